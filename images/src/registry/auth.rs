//! Who we are to a registry: names and passwords from the files podman and docker keep them in, and
//! the challenges of RFC 7235 (Basic) and the distribution token specification (Bearer).

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::reference::bare;
use crate::Error;

/// No such file is larger.
const FILE_MAX: u64 = 1 << 20;

/// What `Authorization: Basic` says; in no log and no message.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Basic(String);

impl std::fmt::Debug for Basic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Basic(…)")
    }
}

impl Basic {
    /// The header's value.
    pub(super) fn header(&self) -> String {
        format!("Basic {}", self.0)
    }
}

/// What a 401 asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Challenge {
    Basic,
    Bearer { realm: String, service: Option<String>, scope: Option<String> },
}

/// A name and a password for a registry: of `file` (a line `user:password`, or an auth.json), else of
/// the files podman and docker keep.
pub(super) fn find(
    host: &str,
    repository: &str,
    file: Option<&Path>,
) -> Result<Option<Basic>, Error> {
    if let Some(path) = file {
        let text = read(path).map_err(Error::io("reading", path))?;
        let whole = if text.trim_start().starts_with('{') {
            of_json(&text, host, repository)
        } else {
            let line = text.lines().next().unwrap_or_default().trim_end();
            line.contains(':').then(|| Basic(base64(line.as_bytes())))
        };
        return match whole {
            Some(basic) => Ok(Some(basic)),
            None => Err(Error::Registry {
                host: host.to_owned(),
                what: format!("{} holds no user:password for it", path.display()),
            }),
        };
    }
    let found = usual().into_iter().find_map(|path| of_json(&read(&path).ok()?, host, repository));
    Ok(found)
}

/// containers-auth.json(5), then docker's.
fn usual() -> Vec<PathBuf> {
    let env = |name: &str| std::env::var_os(name).filter(|set| !set.is_empty()).map(PathBuf::from);
    let home = env("HOME");
    let under = |dir: Option<PathBuf>, name: &str| dir.map(|dir| dir.join(name));
    [
        env("REGISTRY_AUTH_FILE"),
        under(env("XDG_RUNTIME_DIR"), "containers/auth.json"),
        under(env("XDG_CONFIG_HOME"), "containers/auth.json"),
        under(home.clone(), ".config/containers/auth.json"),
        under(env("DOCKER_CONFIG"), "config.json"),
        under(home, ".docker/config.json"),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn read(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(FILE_MAX).read_to_string(&mut text)?;
    Ok(text)
}

/// The most particular entry: `host/a/b`, `host/a`, `host`, with the spellings docker has for a host.
fn of_json(text: &str, host: &str, repository: &str) -> Option<Basic> {
    #[derive(Deserialize)]
    struct File {
        #[serde(default)]
        auths: std::collections::BTreeMap<String, Entry>,
    }
    #[derive(Deserialize)]
    struct Entry {
        auth: Option<String>,
    }
    let file: File = serde_json::from_str(text).ok()?;
    let whole = format!("{host}/{repository}");
    let cuts = whole.match_indices('/').map(|(at, _)| at).chain([whole.len()]).rev();
    let mut keys: Vec<String> = cuts.map(|at| whole[..at].to_owned()).collect();
    for spelled in ["https://{}", "https://{}/", "https://{}/v1/", "https://{}/v2/", "http://{}"] {
        keys.push(spelled.replace("{}", host));
    }
    if matches!(bare(host), "docker.io" | "registry-1.docker.io" | "index.docker.io") {
        keys.extend(["docker.io".to_owned(), "https://index.docker.io/v1/".to_owned()]);
    }
    let auth = keys.iter().find_map(|key| file.auths.get(key)?.auth.clone())?;
    let fits = |c: char| c.is_ascii_alphanumeric() || "+/=".contains(c);
    (!auth.is_empty() && auth.chars().all(fits)).then_some(Basic(auth))
}

fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let mut word = [0u8; 4];
        word[1..=chunk.len()].copy_from_slice(chunk);
        let word = u32::from_be_bytes(word);
        for at in 0..4 {
            let letter = LETTERS[(word >> (18 - 6 * at) & 63) as usize];
            out.push(if at <= chunk.len() { char::from(letter) } else { '=' });
        }
    }
    out
}

/// Reads `WWW-Authenticate`: the first challenge we can meet.
pub(super) fn challenge(header: &str) -> Option<Challenge> {
    let (scheme, rest) = header.trim().split_once(' ').unwrap_or((header.trim(), ""));
    if scheme.eq_ignore_ascii_case("basic") {
        return Some(Challenge::Basic);
    }
    if !scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    let (mut realm, mut service, mut scope) = (None, None, None);
    let mut rest = rest;
    while let Some((key, after)) = rest.split_once('=') {
        let (value, next) = match after.strip_prefix('"') {
            Some(quoted) => {
                let (value, next) = quoted.split_once('"')?;
                (value, next)
            }
            None => after.split_at(after.find(',').unwrap_or(after.len())),
        };
        match key.trim().trim_start_matches(',').trim().to_ascii_lowercase().as_str() {
            "realm" => realm = Some(value.to_owned()),
            "service" => service = Some(value.to_owned()),
            "scope" => scope = Some(value.to_owned()),
            _ => {}
        }
        rest = next.trim_start().trim_start_matches(',');
    }
    Some(Challenge::Bearer { realm: realm?, service, scope })
}

/// Whether a host may see what was meant for a registry: itself, or one of the same house
/// (`auth.docker.io` for `registry-1.docker.io`).
pub(super) fn same_house(registry: &str, other: &str) -> bool {
    if registry == other {
        return true;
    }
    let (a, b) = (bare(registry), bare(other));
    if [a, b].iter().any(|host| host.parse::<std::net::IpAddr>().is_ok() || !host.contains('.')) {
        return false;
    }
    let house = |host: &str| {
        let labels: Vec<&str> = host.rsplit('.').collect();
        // `co.uk` and its like are nobody's house.
        let short = labels.get(1).is_some_and(|second| second.len() <= 3);
        labels.iter().take(if short { 3 } else { 2 }).rev().copied().collect::<Vec<_>>().join(".")
    };
    house(a) == house(b)
}

/// A value of a query, percent-encoded (RFC 3986, 2.1).
pub(super) fn encoded(value: &str) -> String {
    let mut out = String::new();
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_of_rfc_4648() {
        for (plain, coded) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")]
        {
            assert_eq!(base64(plain.as_bytes()), coded);
        }
    }

    #[test]
    fn challenges() {
        let bearer = "Bearer realm=\"https://auth.r.example/token\",service=\"r\",scope=\"repository:a:pull,push\"";
        let Some(Challenge::Bearer { realm, service, scope }) = challenge(bearer) else { panic!() };
        assert_eq!(realm, "https://auth.r.example/token");
        assert_eq!(
            (service.as_deref(), scope.as_deref()),
            (Some("r"), Some("repository:a:pull,push"))
        );
        assert_eq!(challenge("Basic realm=\"x\""), Some(Challenge::Basic));
        for none in ["", "Bearer", "Bearer service=\"x\"", "Bearer realm=\"x", "Digest realm=\"x\""]
        {
            assert_eq!(challenge(none), None, "{none}");
        }
    }

    #[test]
    fn the_most_particular_login_is_taken() {
        let text = r#"{"auths": {"r.example": {"auth": "YTpi"}, "r.example/team": {"auth": "Yzpk"},
            "https://old.example/v1/": {"auth": "ZTpm"}, "empty.example": {}}}"#;
        let of =
            |host: &str, repository: &str| of_json(text, host, repository).map(|basic| basic.0);
        assert_eq!(of("r.example", "team/web").as_deref(), Some("Yzpk"));
        assert_eq!(of("r.example", "web").as_deref(), Some("YTpi"));
        assert_eq!(of("old.example", "web").as_deref(), Some("ZTpm"));
        assert_eq!(of("empty.example", "web"), None);
        assert_eq!(of("other.example", "web"), None);
        assert!(!format!("{:?}", of_json(text, "r.example", "web")).contains("YTpi"));
    }

    #[test]
    fn houses() {
        assert!(same_house("registry-1.docker.io", "auth.docker.io"));
        assert!(same_house("r.example:5000", "r.example:5000"));
        for (a, b) in [
            ("r.example:5000", "evil.example:5000"),
            ("127.0.0.1:5000", "127.0.0.2:5000"),
            ("127.0.0.1:5000", "127.0.0.1:5001"),
            ("registry.a.co.uk", "registry.b.co.uk"),
            ("localhost:5000", "localhost:5001"),
            ("docker.io", "docker.io.evil.example"),
        ] {
            assert!(!same_house(a, b), "{a} {b}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_header_is_read_without_harm(header in ".{0,200}") {
            challenge(&header);
            challenge(&format!("Bearer {header}"));
        }
    }
}
