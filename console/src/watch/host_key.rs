//! The line by which a machine shows its SSH host key on its console:
//!
//! ```text
//! koboshi: ssh host key ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAA…
//! ```
//!
//! The key is OpenSSH's of one line, without a comment (RFC 4253 6.6, RFC 8709, RFC 5656). What else was written into
//! that line in the same moment makes it no key: the base64 has to decode to one.

use russh::keys::{HashAlg, PublicKey};

const BEGINS: &str = "koboshi: ssh host key ";

/// A key that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostKey {
    /// `ssh-ed25519`
    pub kind: String,
    /// `ssh-ed25519 AAAA…`
    pub line: String,
    /// `SHA256:…`, as `ssh` shows it.
    pub fingerprint: String,
}

impl HostKey {
    /// Of a whole line of a console.
    pub fn read(line: &str) -> Option<HostKey> {
        HostKey::of(line.strip_prefix(BEGINS)?.trim_end())
    }

    /// Of `ssh-ed25519 AAAA…`.
    pub fn of(line: &str) -> Option<HostKey> {
        let (kind, base64) = line.split_once(' ')?;
        if base64.contains(|c: char| c.is_whitespace()) {
            return None;
        }
        let public = PublicKey::from_openssh(line).ok()?;
        // The name inside the key is the one that counts.
        let named = public.algorithm().as_str() == kind;
        let fingerprint = public.fingerprint(HashAlg::Sha256).to_string();
        named.then(|| HostKey { kind: kind.to_string(), line: line.to_string(), fingerprint })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    // A throw-away key's public half, and what `ssh-keygen -lf` says of it.
    const KEY: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAINSrzpoNrB9NQnjlLhWtqfvFiDT5VxKY/t1QGpAZhuM8";
    const FINGERPRINT: &str = "SHA256:YP08eq/iASdFngbQvSDZM9Io242JQuzqGIRInfjilgw";

    #[test]
    fn a_whole_line_is_a_key_and_nothing_else_is() {
        let line = format!("{BEGINS}{KEY}");
        let key = HostKey::read(&format!("{line} ")).expect("a key");
        assert_eq!((key.kind.as_str(), key.line.as_str()), ("ssh-ed25519", KEY));
        assert_eq!(key.fingerprint, FINGERPRINT);
        let cut = &line[..line.len() - 4];
        let torn = line.replacen("AAAAC3", "AAAA[ 9.1] e1000e: Link is Up C3", 1);
        for other in [
            cut,
            &torn,
            &format!("web1 login: {line}"),
            &format!("{line} root@web1"),
            &line.replace("ssh-ed25519", "ssh-rsa"),
            BEGINS,
            "",
        ] {
            assert_eq!(HostKey::read(other), None, "{other}");
        }
    }

    proptest! {
        #[test]
        fn any_line(line in ".{0,200}") {
            let _ = HostKey::of(&line);
            prop_assert!(HostKey::read(&line).is_none());
        }
    }
}
