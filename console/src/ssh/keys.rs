//! Who may log in: a file of public keys in OpenSSH's `authorized_keys` format (sshd(8)), with what each key may do
//! in front of it.
//!
//! ```text
//! ssh-ed25519 AAAA… alice                                  types everywhere, as with OpenSSH
//! watch="@rack1",type="m[01-20]" ssh-ed25519 AAAA… bob     looks at rack1, types into twenty
//! watch="*",from="10.1.0.0/16,!10.1.9.*",expiry-time="20270101" ssh-rsa AAAA… contractor
//! ```
//!
//! What cannot be understood gives nobody a right: a line with an option that is not known here is refused as a whole.

use std::net::IpAddr;

use russh::keys::{Algorithm, HashAlg, PublicKey};

use super::options::{expiry, first_word, split};
use super::source::Sources;

/// Keys that are read of one file. More are a mistake.
const MOST: usize = 10_000;
/// Of a name, characters.
const NAME: usize = 64;

/// What a file of keys says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Keys {
    keys: Vec<Key>,
    /// Lines that nobody can log in by, and why.
    pub refused: Vec<Refused>,
}

/// A line that is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {why}")]
pub struct Refused {
    /// Its number, from 1.
    pub line: usize,
    /// In words.
    pub why: String,
}

/// Somebody's key and what it may.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// The line of the file, from 1.
    pub line: usize,
    /// Whose: `name="…"`, or the comment, or the fingerprint.
    pub name: String,
    /// `SHA256:…`, as OpenSSH shows it.
    pub fingerprint: String,
    /// The machines it may do something with. None: all of them.
    pub limits: Option<Limits>,
    from: Option<Sources>,
    /// Unix milliseconds.
    expires: Option<u64>,
    public: PublicKey,
}

/// Host lists, for the appliance to resolve.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limits {
    /// `watch="…"`: whose consoles it may look at.
    pub watch: Option<String>,
    /// `type="…"`: whose consoles it may look at and type into.
    pub types: Option<String>,
}

/// Why a key does not let somebody in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotLet {
    /// It is not in the file.
    #[error("it is not among the authorized keys")]
    Unknown,
    /// `from=` does not name the address.
    #[error("line {0} lets it in from other addresses")]
    From(usize),
    /// `expiry-time=` is over.
    #[error("it expired, says line {0}")]
    Expired(usize),
}

impl Keys {
    /// Of the text of a file.
    pub fn parse(text: &str) -> Keys {
        let mut keys = Keys::default();
        for (at, line) in text.lines().enumerate() {
            let (number, line) = (at + 1, line.trim());
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if keys.keys.len() >= MOST {
                keys.refused.push(Refused { line: number, why: format!("more than {MOST} keys") });
                break;
            }
            match key(number, line) {
                Ok(key) => keys.keys.push(key),
                Err(why) if keys.refused.len() < MOST => {
                    keys.refused.push(Refused { line: number, why });
                }
                Err(_) => {}
            }
        }
        keys
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether nobody can log in.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The first line that lets in who has this key, from this address, at this time (Unix milliseconds).
    ///
    /// # Errors
    /// Why none does.
    pub fn find(&self, public: &PublicKey, from: IpAddr, now: u64) -> Result<&Key, NotLet> {
        let mut why = NotLet::Unknown;
        let same = |key: &&Key| key.public.key_data() == public.key_data();
        for key in self.keys.iter().filter(same) {
            why = match key {
                Key { from: Some(sources), .. } if !sources.hold(from) => NotLet::From(key.line),
                Key { expires: Some(at), .. } if *at <= now => NotLet::Expired(key.line),
                key => return Ok(key),
            };
        }
        Err(why)
    }
}

impl Key {
    /// The line that lets in who has this key, as the file is now.
    ///
    /// # Errors
    /// As [`Keys::find`].
    pub(super) fn again<'a>(
        &self,
        keys: &'a Keys,
        from: IpAddr,
        now: u64,
    ) -> Result<&'a Key, NotLet> {
        keys.find(&self.public, from, now)
    }

    /// When it is over, Unix milliseconds.
    pub fn expires(&self) -> Option<u64> {
        self.expires
    }
}

fn key(line: usize, text: &str) -> Result<Key, String> {
    // Options come first, if there are any: nothing else tells them from the kind of key.
    let (options, rest) = match first_word(text)? {
        (kind, _) if is_kind(kind) => ("", text),
        (options, rest) => (options, rest.trim_start()),
    };
    let public = PublicKey::from_openssh(rest).map_err(|_| no_key(rest))?;
    if public.algorithm() == Algorithm::Dsa {
        return Err("DSA keys are not taken any more: ssh-keygen -t ed25519 makes a new one".into());
    }
    let fingerprint = public.fingerprint(HashAlg::Sha256).to_string();
    let comment = public.comment().as_str_lossy();
    let mut limits = Limits::default();
    let (mut name, mut from, mut expires) = (None, None, None);
    for option in split(options)? {
        let (word, value) = option;
        let value = |example: &str| value.clone().ok_or(format!("it is {word}=\"{example}\""));
        match word.to_ascii_lowercase().as_str() {
            "watch" => limits.watch = Some(value("@rack1")?),
            "type" => limits.types = Some(value("m[01-20]")?),
            "name" => name = Some(value("alice")?),
            "from" => from = Some(Sources::parse(&value("10.1.0.0/16")?)?),
            "expiry-time" => expires = Some(expiry(&value("20270101")?)?),
            // So it is here for all.
            "no-port-forwarding" | "no-agent-forwarding" | "no-x11-forwarding" | "no-user-rc" => {}
            "command" => return Err("`command` is not known here: no command is ever run".into()),
            _ => {
                let word: String = word.chars().take(NAME).collect();
                return Err(format!(
                    "the option `{}` is not known here; known are watch, type, name, from and expiry-time",
                    word.escape_debug()
                ));
            }
        }
    }
    let name = name.unwrap_or_else(|| comment.to_string());
    let name: String = name.trim().chars().filter(|c| !c.is_control()).take(NAME).collect();
    let name = if name.is_empty() { fingerprint.clone() } else { name };
    let limits = (limits != Limits::default()).then_some(limits);
    Ok(Key { line, name, fingerprint, limits, from, expires, public })
}

fn no_key(text: &str) -> String {
    let kind = text.split_whitespace().next().unwrap_or_default();
    match kind {
        "" => "there is no key".to_string(),
        kind if kind.contains("-cert-") => {
            "certificates are not taken: the key alone is".to_string()
        }
        kind if is_kind(kind) => format!("this {kind} key cannot be read; was it cut off?"),
        _ => "this is no public key as `ssh-keygen` writes them".to_string(),
    }
}

fn is_kind(word: &str) -> bool {
    ["ssh-", "ecdsa-sha2-", "sk-ssh-", "sk-ecdsa-sha2-"].iter().any(|kind| word.starts_with(kind))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ED: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJf0Yt5bGfPzvT5Q5pNqBfQ4sX0bE5mQ8m0q0rJ6yPpK";

    fn one(line: &str) -> Key {
        let mut keys = Keys::parse(line);
        assert_eq!(keys.refused, [], "{line}");
        keys.keys.pop().unwrap()
    }

    fn refused(line: &str) -> String {
        let keys = Keys::parse(&format!("# a comment\n\n{line}\n"));
        assert!(keys.is_empty(), "{keys:?}");
        assert_eq!(keys.refused[0].line, 3);
        keys.refused[0].why.clone()
    }

    #[test]
    fn without_options_all_is_allowed_and_the_comment_is_the_name() {
        let key = one(&format!("{ED} alice of operations"));
        assert_eq!((key.name.as_str(), &key.limits), ("alice of operations", &None));
        assert!(one(ED).name.starts_with("SHA256:"));
        let named = one(&format!("name=\"al\\\"ice\",no-X11-forwarding {ED} root@laptop"));
        assert_eq!((named.name.as_str(), named.limits), ("al\"ice", None));
    }

    #[test]
    fn rights_are_host_lists() {
        let key = one(&format!("watch=\"@rack1\",TYPE=\"m[01-20],sw1\" {ED} bob"));
        let limits = key.limits.unwrap();
        assert_eq!(limits.watch.as_deref(), Some("@rack1"));
        assert_eq!(limits.types.as_deref(), Some("m[01-20],sw1"));
        // Looking alone is a limit too.
        let key = one(&format!("watch=\"*\" {ED} eve"));
        assert_eq!(key.limits.unwrap(), Limits { watch: Some("*".into()), types: None });
    }

    #[test]
    fn what_is_not_understood_lets_nobody_in() {
        for (line, part) in [
            (format!("wacth=\"*\" {ED} eve"), "`wacth` is not known"),
            (format!("restrict,pty {ED} eve"), "`restrict` is not known"),
            (format!("command=\"ls\" {ED} eve"), "no command is ever run"),
            (format!("watch {ED} eve"), "watch=\""),
            (format!("watch=m01 {ED} eve"), "needs quotes"),
            (format!("watch=\"m01 {ED} eve"), "not closed"),
            (format!("watch=\"m01\"type=\"m01\" {ED} eve"), "comma is missing"),
            (format!("from=\"host.example\" {ED} eve"), "host.example"),
            (format!("expiry-time=\"20271301\" {ED} eve"), "expiry-time is like"),
            (format!("=\"x\" {ED}"), "no name"),
            ("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJf0Yt5b eve".to_string(), "cut off"),
            ("hello".to_string(), "no key"),
            ("hello world".to_string(), "no public key"),
        ] {
            let why = refused(&line);
            assert!(why.contains(part), "{line}: {why}");
        }
    }

    #[test]
    fn another_line_of_the_same_key_may_let_in() {
        let text = format!(
            "from=\"10.0.0.0/8\" {ED} office\nexpiry-time=\"20200101Z\",from=\"10.0.0.1\" {ED} old\nfrom=\"!192.0.2.7,192.0.2.*\" {ED} lab\n"
        );
        let keys = Keys::parse(&text);
        assert_eq!(keys.refused, []);
        let public = PublicKey::from_openssh(ED).unwrap();
        let find = |from: &str| keys.find(&public, from.parse().unwrap(), 1_800_000_000_000);
        assert_eq!(find("10.9.9.9").unwrap().name, "office");
        assert_eq!(find("192.0.2.6").unwrap().name, "lab");
        assert_eq!(find("192.0.2.7"), Err(NotLet::From(3)));
        let old = Keys::parse(&format!("expiry-time=\"20200101Z\" {ED} old"));
        let from = "::1".parse().unwrap();
        assert_eq!(old.find(&public, from, 1_577_836_800_000), Err(NotLet::Expired(1)));
        assert_eq!(old.find(&public, from, 1_577_836_799_999).unwrap().line, 1);
        let other = one(
            "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBEmKSENjQEezOmxkZMy7opKgwFB9nkt5YRrYMjNuG5N87uRgg6CLrbo5wAdT/y6v0mKV0U2w0WZ2YB/++Tpockg= x",
        );
        assert_eq!(keys.find(&other.public, from, 0), Err(NotLet::Unknown));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "(?s).{0,200}") {
            Keys::parse(&text);
        }

        #[test]
        fn any_options_are_read_or_refused(options in "[a-z=\",\\\\ !*\u{e9}-]{0,60}") {
            let keys = Keys::parse(&format!("{options} {ED} alice"));
            prop_assert!(keys.len() + keys.refused.len() <= 1);
        }
    }
}
