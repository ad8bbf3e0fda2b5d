//! Contents, read once from end to end in bounded memory: a few dozen fixed markers are looked
//! for, and what stands around one decides whether it is a finding.

use std::io::Read;
use std::sync::LazyLock;

use aho_corasick::{AhoCorasick, Anchored, Input, MatchKind};

use super::rules::{BMC_PASSWORD, PASSWORD_HASH, Rule};
use super::tokens::{self, TOKENS};
use super::{accounts, keys, text};

/// Read at a time.
const CHUNK: usize = 1 << 19;
/// What a look can see before its marker.
const BEFORE: usize = 128;
/// And from it on: the PEM of an RSA key of 16384 bits takes 12 KiB.
const REST: usize = 16 << 10;

/// Around a marker.
pub(super) struct Window<'a> {
    /// Of the file.
    pub(super) path: &'a [u8],
    /// At most [`BEFORE`] bytes.
    pub(super) before: &'a [u8],
    /// From the marker on, at least [`REST`] bytes or all there are.
    pub(super) rest: &'a [u8],
}

/// What a look found.
pub(super) struct Found {
    pub(super) rule: &'static Rule,
    pub(super) note: Option<String>,
    /// The secret itself; only its digest is kept.
    pub(super) evidence: Vec<u8>,
}

type Look = fn(&Window<'_>) -> Option<Found>;

/// Markers beside the prefixes of tokens.
static LOOKS: &[(&[u8], Look)] = &[
    (b" PRIVATE KEY", keys::pem),
    (b"OpenVPN Static key V1-----", keys::openvpn),
    (b"PuTTY-User-Key-File-", keys::putty),
    (b"AGE-SECRET-KEY-1", keys::age),
    (b"PrivateKey", keys::wireguard),
    (b"PresharedKey", keys::wireguard),
    (b"private-key", keys::wireguard),
    (b"preshared-key", keys::wireguard),
    (b"aws_secret_access_key", tokens::aws_secret),
    (b"AWS_SECRET_ACCESS_KEY", tokens::aws_secret),
    (b"SecretAccessKey", tokens::aws_secret),
    (b"8Q~", tokens::azure_client),
    (b"hooks.slack.com/services/", tokens::slack_hook),
    (b"eyJhbGciOi", tokens::jwt),
    (b"$1$", crypt),
    (b"$apr1$", crypt),
    (b"$2a$", crypt),
    (b"$2b$", crypt),
    (b"$2y$", crypt),
    (b"$5$", crypt),
    (b"$6$", crypt),
    (b"$7$", crypt),
    (b"$y$", crypt),
    (b"$gy$", crypt),
    (b"{SSHA", ldap),
    (b"$argon2", argon2),
    (b"ipmitool ", ipmi_option),
    (b"ipmipower ", ipmi_option),
    (b"IPMI_PASSWORD=", ipmi_variable),
];

fn hash(window: &Window<'_>, length: Option<usize>) -> Option<Found> {
    let evidence = window.rest.get(..length?)?.to_vec();
    Some(Found { rule: &PASSWORD_HASH, note: None, evidence })
}

fn crypt(window: &Window<'_>) -> Option<Found> {
    hash(window, accounts::crypt(window.rest))
}

fn ldap(window: &Window<'_>) -> Option<Found> {
    hash(window, accounts::ldap(window.rest))
}

fn argon2(window: &Window<'_>) -> Option<Found> {
    hash(window, accounts::argon2(window.rest))
}

/// Programs of the distribution know how a password is given; no password is written in them.
fn of_packages(path: &[u8]) -> bool {
    path.starts_with(b"usr/") && !path.starts_with(b"usr/local/")
}

/// `ipmitool … -P PASSWORD`, `ipmipower … -p PASSWORD`, on one line.
fn ipmi_option(window: &Window<'_>) -> Option<Found> {
    if of_packages(window.path) {
        return None;
    }
    let line = window.rest.split(|c| *c == b'\n').next()?;
    let option: &[u8] = if line.starts_with(b"ipmitool") { b"-P" } else { b"-p" };
    let mut words = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
    let given = words.find_map(|word| word.strip_prefix(option))?;
    let given = if given.is_empty() { words.next()? } else { given };
    let bare = given.strip_prefix(b"'").or(given.strip_prefix(b"\"")).unwrap_or(given);
    let evidence = bare.to_vec();
    text::meant(bare).then_some(Found { rule: &BMC_PASSWORD, note: None, evidence })
}

/// ipmitool's `-E`.
fn ipmi_variable(window: &Window<'_>) -> Option<Found> {
    if of_packages(window.path) {
        return None;
    }
    let line = window.rest.split(|c| *c == b'\n').next()?;
    let evidence = text::value(line, "IPMI_PASSWORD")?.to_vec();
    Some(Found { rule: &BMC_PASSWORD, note: None, evidence })
}

static MARKERS: LazyLock<Option<AhoCorasick>> = LazyLock::new(|| {
    let all = LOOKS.iter().map(|(marker, _)| *marker).chain(TOKENS.iter().map(|t| t.prefix));
    // Only a set beyond its own limits is refused, and a test builds this one.
    AhoCorasick::builder().match_kind(MatchKind::LeftmostFirst).build(all).ok()
});

/// Where findings go: at which byte.
pub(super) type Tell<'a> = &'a mut dyn FnMut(u64, Found);

/// Looks through a file of `size` bytes. `buf` is kept by the caller from file to file.
pub(super) fn look_through(
    path: &[u8],
    reader: &mut dyn Read,
    size: u64,
    buf: &mut Vec<u8>,
    tell: Tell<'_>,
) -> std::io::Result<()> {
    let mut reader = reader.take(size);
    // Byte of the file the buffer begins with, and where in it the next look begins.
    let (mut base, mut next) = (0u64, 0usize);
    buf.clear();
    loop {
        let want = CHUNK as u64;
        let got = (&mut reader).take(want).read_to_end(buf)?;
        let end = (got as u64) < want;
        let limit = if end { buf.len() } else { buf.len().saturating_sub(REST) };
        next = look(path, buf, next, limit, base, tell).max(next);
        if end {
            return Ok(());
        }
        let keep = next.saturating_sub(BEFORE);
        buf.drain(..keep);
        base += keep as u64;
        next -= keep;
    }
}

/// Looks at every marker that begins in `from..limit`; tells where the next look is to begin.
fn look(
    path: &[u8],
    buf: &[u8],
    mut from: usize,
    limit: usize,
    base: u64,
    tell: Tell<'_>,
) -> usize {
    let Some(markers) = MARKERS.as_ref() else { return limit };
    while from < limit {
        let input = Input::new(buf).range(from..).anchored(Anchored::No);
        let Some(hit) = markers.find(input).filter(|hit| hit.start() < limit) else { break };
        let window = Window {
            path,
            before: &buf[hit.start().saturating_sub(BEFORE)..hit.start()],
            rest: &buf[hit.start()..buf.len().min(hit.start() + REST)],
        };
        let which = hit.pattern().as_usize();
        let found = match LOOKS.get(which) {
            Some((_, look)) => look(&window),
            None => TOKENS.get(which - LOOKS.len()).and_then(|t| tokens::look(t, &window)),
        };
        if let Some(found) = found {
            tell(base + hit.start() as u64, found);
        }
        from = hit.end();
    }
    from.max(limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(bytes: &[u8]) -> Vec<(u64, &'static str)> {
        let mut out = Vec::new();
        let mut reader = bytes;
        let mut tell = |at, found: Found| out.push((at, found.rule.id));
        look_through(b"etc/x", &mut reader, bytes.len() as u64, &mut Vec::new(), &mut tell)
            .unwrap();
        out
    }

    fn key() -> String {
        let body = "MC4CAQAwBQYDK2VwBCIEIFxZ4yJmVbB8GwqLrT5cK7eYp3uQhN0vXsD1fAoRzEt9";
        format!("-----BEGIN PRIVATE KEY-----\n{body}\n-----END PRIVATE KEY-----\n")
    }

    #[test]
    fn the_set_of_markers_is_built() {
        assert!(MARKERS.is_some());
    }

    #[test]
    fn a_key_is_found_once_wherever_it_lies() {
        let key = key();
        for at in [0, 1, CHUNK - 400, CHUNK - 20, CHUNK, CHUNK + 1, CHUNK - REST, 2 * CHUNK - REST]
        {
            for tail in [0, 1, REST, CHUNK] {
                let mut bytes = vec![b'.'; at];
                bytes.extend(key.as_bytes());
                bytes.resize(bytes.len() + tail, b'.');
                let mark = (at + "-----BEGIN".len()) as u64;
                assert_eq!(found(&bytes), [(mark, "private-key")], "at {at}, then {tail}");
            }
        }
    }

    #[test]
    fn passwords_of_bmcs_on_command_lines() {
        let one = |line: &str| found(line.as_bytes()).len();
        assert_eq!(one("ipmitool -I lanplus -H m01-bmc -U root -P calvin power on\n"), 1);
        assert_eq!(one("ipmitool -H m01 -Pcalvin sol activate\n"), 1);
        assert_eq!(one("export IPMI_PASSWORD=calvin\n"), 1);
        for none in [
            "ipmitool -H m01 -P \"$PASSWORD\" power on\n",
            "ipmitool -H m01 -E power on\n",
            "ipmitool -P\n calvin",
            "ipmitool -H $1 -P <password>",
            "IPMI_PASSWORD=\n",
        ] {
            assert_eq!(one(none), 0, "{none}");
        }
    }
}
