//! What is looked for: each rule with its id, how bad it is, why, and what to do about it.
//!
//! A machine fetches its image before it can prove who it is, so whoever reaches the provisioning
//! network reads all of it. What only works as long as nobody else knows it has no place there.

use std::fmt;

use serde::{Serialize, Serializer};

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Stops a publish.
    Secret,
    /// Is told, and stops nothing.
    Risk,
}

/// A kind of finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// Its name, as `koboshi image allow` takes it.
    pub id: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// What was found, in a few words.
    pub what: &'static str,
    /// Why that is bad.
    pub why: &'static str,
    /// What to do.
    pub todo: &'static str,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Severity::Secret => "secret",
            Severity::Risk => "risk",
        })
    }
}

/// A rule is written by its id alone.
impl Serialize for Rule {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.serialize_str(self.id)
    }
}

macro_rules! rules {
    ($($name:ident: $severity:ident, $id:literal, $what:literal, $why:literal, $todo:literal;)*) => {
        $(pub(crate) static $name: Rule = Rule {
            id: $id, severity: Severity::$severity, what: $what, why: $why, todo: $todo,
        };)*
        static ALL: &[&Rule] = &[$(&$name),*];
    };
}

/// Every rule there is.
pub fn rules() -> &'static [&'static Rule] {
    ALL
}

/// The rule of that id.
pub fn rule(id: &str) -> Option<&'static Rule> {
    ALL.iter().copied().find(|rule| rule.id == id)
}

rules! {
    PRIVATE_KEY: Secret, "private-key", "a private key",
        "who holds the image holds the key",
        "take it out, and make a new one: this one was in an archive; let the machine fetch its own \
         after boot";
    HOST_KEY: Secret, "ssh-host-key", "an SSH server's private host key",
        "every machine of the image would have the same one, and who reads the image can pose as \
         each of them",
        "rm etc/ssh/ssh_host_* in the root: keys are made at boot where none are";
    KEYSTORE: Secret, "keystore", "a keystore with private keys",
        "its password can be guessed at leisure by who holds the image",
        "take it out; keep trusted certificates, if it has any, in a store without keys";
    VPN_KEY: Secret, "vpn-key", "a key of a VPN",
        "who holds the image can join the network as its machines",
        "take it out; a machine makes its own after boot, or gets it over a channel that knows it";
    PASSWORD_HASH: Secret, "password-hash", "a password hash",
        "a hash is guessed offline, at thousands of millions of tries a second",
        "lock the account (`passwd -l` leaves the hash: set the field to `*`) and log in with an SSH \
         key";
    OLD_PASSWORDS: Secret, "old-passwords", "hashes of former passwords",
        "people's former passwords lead to their present ones",
        "rm the file";
    AWS_KEY: Secret, "aws-key", "a key of Amazon Web Services",
        "who holds it acts, and spends, in your name",
        "take it out and revoke it";
    GCP_KEY: Secret, "gcp-key", "a key of Google Cloud",
        "who holds it acts, and spends, in your name",
        "take it out and revoke it";
    AZURE_KEY: Secret, "azure-key", "a key of Azure",
        "who holds it acts, and spends, in your name",
        "take it out and revoke it";
    TOKEN: Secret, "token", "an access token",
        "who holds it is, to that service, you",
        "take it out and revoke it";
    KUBECONFIG: Secret, "kubeconfig", "credentials of a Kubernetes cluster",
        "who holds them commands the cluster as far as they reach",
        "take them out; nodes join with a bootstrap token given after boot";
    REGISTRY_LOGIN: Secret, "registry-login", "a login of a container registry",
        "who holds it pulls and pushes in your name",
        "take it out (`podman logout`), and change it";
    PACKAGE_LOGIN: Secret, "package-login", "a login of a package registry or repository",
        "who holds it publishes, or downloads, in your name",
        "take it out, and change it; give it to a build as a file that stays outside the root";
    LOGIN: Secret, "login", "a file of logins",
        "it holds passwords in clear",
        "take it out, and change what was in it";
    DATABASE_LOGIN: Secret, "database-login", "a database password",
        "who reads the image reads the database, if he can reach it",
        "take it out: local users of PostgreSQL and MariaDB can be known by their socket";
    SERVICE_SECRET: Secret, "service-secret", "a secret two services share",
        "packages make it when they are installed, so every machine of the image has the same, and \
         everybody can read it",
        "rm the file, and make it at boot or give it to the machines after boot";
    HISTORY: Secret, "history", "what somebody typed",
        "histories hold passwords given on command lines, and names of other machines",
        "rm the file";
    BMC_PASSWORD: Secret, "bmc-password", "a password of a BMC",
        "it powers machines off, and reads their consoles",
        "take it out: the appliance talks to BMCs, machines need not";
    PPP_SECRET: Secret, "ppp-secret", "a secret of PPP",
        "who holds it can dial in",
        "take it out";
    WIFI_KEY: Secret, "wifi-key", "a key of a wireless network",
        "who holds it can join that network",
        "take it out";
    KEYTAB: Secret, "keytab", "Kerberos keys",
        "who holds them is that host or service, to the whole realm",
        "rm the file; let each machine fetch its own keytab after boot";
    EMPTY_PASSWORD: Risk, "empty-password", "an account without any password",
        "whoever reaches a login prompt is in",
        "set the field to `*`";
    AUTHORIZED_KEYS: Risk, "authorized-keys", "keys that may log in",
        "they stay valid for as long as the image is booted, whoever has left since",
        "see that the list is meant, then allow it; or hand keys out per role";
    MACHINE_ID: Risk, "machine-id", "a machine-id of another machine",
        "programs take machines of the same id for one (koboshi-init writes each machine its own)",
        "empty the file: `: > etc/machine-id`";
    RANDOM_SEED: Risk, "random-seed", "a seed of random numbers",
        "every machine of the image would begin with the same one, known to all",
        "rm the file";
    DHCP_LEASE: Risk, "dhcp-lease", "a DHCP lease of another machine",
        "a client asks for that address again, all machines of the image for the same",
        "rm the file";
    AGENT: Risk, "ssh-agent", "where an SSH agent was",
        "it points at somebody's session on the machine the root was taken from",
        "rm the file";
    URL_PASSWORD: Risk, "url-password", "a password in an address",
        "who reads the image has it",
        "take it out, if it is one";
    WORLD_WRITABLE: Risk, "world-writable", "something everybody may write to",
        "any process on the machine can change what others trust",
        "chmod o-w; a directory for everybody wants the sticky bit: chmod +t";
    SETUID: Risk, "setuid", "a setuid or setgid program that Debian does not ship so",
        "it runs with the rights of its owner for whoever starts it",
        "chmod ug-s, unless it is meant";
    CAPABILITY: Risk, "capability", "a program with capabilities that Debian does not give it",
        "it runs with some of root's rights for whoever starts it",
        "setcap -r, unless it is meant";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_words_and_no_two_are_the_same() {
        for (at, found) in rules().iter().enumerate() {
            assert!(found.id.bytes().all(|c| c.is_ascii_lowercase() || c == b'-'), "{}", found.id);
            assert!(!rules()[..at].iter().any(|other| other.id == found.id), "{}", found.id);
            assert_eq!(rule(found.id), Some(*found));
            for text in [found.what, found.why, found.todo] {
                assert!(!text.is_empty() && !text.ends_with('.'), "{}", found.id);
            }
        }
        assert_eq!(rule("nonesuch"), None);
    }
}
