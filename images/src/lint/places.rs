//! Files that are known by where they lie: most of them hold secrets only on some lines, and
//! packages ship many of them with none.

use super::accounts;
use super::rules::*;
use super::scan::{Hit, public};
use super::text::{lines, meant, settings, value};
use super::{keys, logins};

/// None of these files is ever larger.
pub(super) const MOST: u64 = 4 << 20;

/// Which paths.
#[derive(Debug, Clone, Copy)]
enum Spot {
    /// This one.
    At(&'static str),
    /// Whatever begins and ends so.
    Under(&'static str, &'static str),
    /// A file of this name, anywhere people keep theirs.
    Name(&'static str),
    /// A path that ends in these components.
    Tail(&'static str),
    /// A file whose name ends so, outside of /usr.
    Ends(&'static str),
}

/// What in them is a finding.
#[derive(Clone, Copy)]
enum Look {
    /// All of it, if it is not blank.
    Whole,
    /// Lines that give one of these keys a value.
    Keys(&'static [&'static str]),
    /// Lines that say so.
    Lines(fn(&[u8]) -> bool),
    /// Whatever this tells.
    Bytes(fn(&[u8]) -> Vec<Hit>),
    /// JSON strings of these names, several on a line.
    Json(&'static [&'static str]),
}

pub(super) struct Place {
    spot: Spot,
    rule: &'static Rule,
    look: Look,
}

use Look::{Bytes, Json, Keys, Lines, Whole};
use Spot::{At, Ends, Name, Tail, Under};

const fn place_of(spot: Spot, rule: &'static Rule, look: Look) -> Place {
    Place { spot, rule, look }
}

macro_rules! places {
    ($($rule:ident { $($spot:expr => $look:expr;)* })*) => {
        static PLACES: &[Place] = &[$($(place_of($spot, &$rule, $look),)*)*];
    };
}

const WPA: Look = Keys(&[
    "psk",
    "password",
    "sae_password",
    "wpa_passphrase",
    "wpa_psk",
    "wpa-psk",
    "wpa-passphrase",
    "wep_key0",
    "wep_key1",
    "wep-key0",
    "wireless-key",
    "Passphrase",
    "PreSharedKey",
    "leap-password",
    "private-key-password",
    "preshared-key",
]);
const KUBE: Look = Keys(&["client-key-data", "token", "password", "id-token", "refresh-token"]);
const AUTHS: Look = Json(&["auth", "identitytoken", "registrytoken", "password"]);

places! {
    HOST_KEY {
        Under("etc/ssh/ssh_host_", "_key") => Whole;
        Under("etc/dropbear/dropbear_", "_host_key") => Whole;
        Under("etc/dropbear-initramfs/dropbear_", "_host_key") => Whole;
        Under("etc/dropbear/initramfs/dropbear_", "_host_key") => Whole;
    }
    PASSWORD_HASH {
        Under("etc/shadow", "") => Bytes(accounts::accounts);
        Under("var/backups/shadow", "") => Bytes(accounts::accounts);
        Under("etc/gshadow", "") => Bytes(accounts::groups);
        Under("var/backups/gshadow", "") => Bytes(accounts::groups);
        At("etc/passwd") => Bytes(accounts::accounts);
        At("etc/passwd-") => Bytes(accounts::accounts);
        At("etc/group") => Bytes(accounts::groups);
        At("etc/group-") => Bytes(accounts::groups);
        Name(".htpasswd") => Bytes(accounts::htpasswd);
        Ends("htpasswd") => Bytes(accounts::htpasswd);
        Ends(".htpasswd.users") => Bytes(accounts::htpasswd);
        Ends("htdigest") => Bytes(accounts::htpasswd);
        At("var/lib/samba/private/passdb.tdb") => Whole;
        At("etc/samba/smbpasswd") => Whole;
    }
    OLD_PASSWORDS { At("etc/security/opasswd") => Whole; }
    PRIVATE_KEY {
        Name("secring.gpg") => Whole;
        Tail("private-keys-v1.d/") => Whole;
    }
    VPN_KEY {
        Under("etc/wireguard/", "") => Bytes(bare);
        Under("etc/systemd/network/", ".key") => Bytes(bare);
        At("etc/ipsec.secrets") => Lines(ipsec);
        Under("etc/ipsec.d/", ".secrets") => Lines(ipsec);
        Under("etc/swanctl/", ".conf") => Keys(&["secret"]);
        Under("etc/openvpn/", "auth.txt") => Whole;
        At("etc/racoon/psk.txt") => Lines(|_| true);
    }
    AWS_KEY {
        Tail(".aws/credentials") => Keys(&["aws_secret_access_key", "aws_session_token"]);
        Name(".boto") => Keys(&["aws_secret_access_key", "gs_secret_access_key"]);
        Name(".s3cfg") => Keys(&["secret_key", "access_token"]);
        Name(".passwd-s3fs") => Lines(|line| line.contains(&b':'));
        At("etc/passwd-s3fs") => Lines(|line| line.contains(&b':'));
    }
    GCP_KEY {
        Tail("gcloud/application_default_credentials.json")
            => Json(&["refresh_token", "private_key", "client_secret"]);
        Tail("gcloud/credentials.db") => Whole;
        Tail("gcloud/access_tokens.db") => Whole;
    }
    AZURE_KEY {
        Tail(".azure/accessTokens.json") => Json(&["accessToken", "refreshToken"]);
        Tail(".azure/msal_token_cache.json") => Json(&["secret"]);
        Tail(".azure/msal_token_cache.bin") => Whole;
        Tail(".azure/service_principal_entries.json") => Json(&["client_secret"]);
    }
    TOKEN {
        Name(".vault-token") => Whole;
        Tail("serviceaccount/token") => Whole;
        Tail(".config/gh/hosts.yml") => Keys(&["oauth_token"]);
        Tail(".config/hub") => Keys(&["oauth_token"]);
        Tail(".config/glab-cli/config.yml") => Keys(&["token"]);
        Tail(".terraform.d/credentials.tfrc.json") => Json(&["token"]);
        Name(".terraformrc") => Keys(&["token"]);
        Tail(".config/doctl/config.yaml") => Keys(&["access-token"]);
        Tail(".config/hcloud/cli.toml") => Keys(&["token"]);
        Tail("rclone/rclone.conf")
            => Keys(&["pass", "password", "token", "secret_access_key", "client_secret"]);
        At("var/lib/rancher/k3s/server/token") => Whole;
        At("var/lib/rancher/k3s/server/node-token") => Whole;
    }
    KUBECONFIG {
        Tail(".kube/config") => KUBE;
        Name("kubeconfig") => KUBE;
        Ends(".kubeconfig") => KUBE;
        Under("etc/kubernetes/", ".conf") => KUBE;
        At("etc/rancher/k3s/k3s.yaml") => KUBE;
        At("etc/rancher/rke2/rke2.yaml") => KUBE;
    }
    REGISTRY_LOGIN {
        Tail(".docker/config.json") => AUTHS;
        Name(".dockercfg") => AUTHS;
        Tail("containers/auth.json") => AUTHS;
        At("var/lib/kubelet/config.json") => AUTHS;
    }
    PACKAGE_LOGIN {
        Name(".npmrc") => Lines(logins::npmrc);
        Name("npmrc") => Lines(logins::npmrc);
        Name(".yarnrc.yml") => Keys(&["npmAuthToken", "npmAuthIdent"]);
        Name(".pypirc") => Keys(&["password"]);
        Tail(".cargo/credentials") => Keys(&["token"]);
        Tail(".cargo/credentials.toml") => Keys(&["token"]);
        Tail(".gem/credentials") => Whole;
        Tail(".m2/settings.xml") => Keys(&["password", "passphrase"]);
        Tail("composer/auth.json") => Whole;
        Name(".git-credentials") => Lines(|line| logins::url_password(line).is_some());
    }
    LOGIN {
        Name(".netrc") => Bytes(logins::netrc);
        Name("_netrc") => Bytes(logins::netrc);
        At("etc/apt/auth.conf") => Bytes(logins::netrc);
        Under("etc/apt/auth.conf.d/", "") => Bytes(logins::netrc);
        Name(".msmtprc") => Keys(&["password"]);
        At("etc/msmtprc") => Keys(&["password"]);
        At("etc/exim4/passwd.client") => Lines(|line| line.iter().filter(|c| **c == b':').count() > 1);
        At("etc/postfix/sasl_passwd") => Lines(|line| line.contains(&b':'));
        At("etc/postfix/sasl_passwd.db") => Whole;
        At("etc/ssmtp/ssmtp.conf") => Keys(&["AuthPass"]);
        At("etc/sasldb2") => Whole;
        At("etc/ldap.secret") => Whole;
        At("etc/pam_ldap.secret") => Whole;
        At("etc/libnss-ldap.secret") => Whole;
        At("etc/nslcd.conf") => Keys(&["bindpw", "rootpwmodpw"]);
        At("etc/ldap.conf") => Keys(&["bindpw"]);
        At("etc/pam_ldap.conf") => Keys(&["bindpw"]);
        At("etc/libnss-ldap.conf") => Keys(&["bindpw"]);
        At("etc/sssd/sssd.conf") => Keys(&["ldap_default_authtok"]);
        Under("etc/sssd/conf.d/", ".conf") => Keys(&["ldap_default_authtok"]);
        Name(".smbcredentials") => Keys(&["password"]);
        At("etc/samba/credentials") => Keys(&["password"]);
        At("etc/cifs-credentials") => Keys(&["password"]);
        At("etc/rsyncd.secrets") => Lines(|line| line.contains(&b':'));
        At("etc/nut/upsd.users") => Keys(&["password"]);
        Under("etc/cloud/cloud.cfg", "") => Keys(&["plain_text_passwd", "password"]);
        Tail("svn.simple/") => Whole;
        At("var/lib/samba/private/secrets.tdb") => Whole;
    }
    DATABASE_LOGIN {
        Name(".pgpass") => Lines(logins::pgpass);
        Name(".my.cnf") => Keys(&["password", "passwd"]);
        Name(".mylogin.cnf") => Whole;
        Under("etc/mysql/", ".cnf") => Keys(&["password", "passwd"]);
        At("etc/my.cnf") => Keys(&["password", "passwd"]);
        At("etc/redis/redis.conf") => Keys(&["requirepass", "masterauth"]);
        Name(".pg_service.conf") => Keys(&["password"]);
        Name(".mongorc.js") => Whole;
    }
    SERVICE_SECRET {
        At("etc/munge/munge.key") => Whole;
        At("etc/corosync/authkey") => Whole;
        At("etc/pacemaker/authkey") => Whole;
        At("etc/cluster/fence_xvm.key") => Whole;
        At("etc/ha.d/authkeys") => Lines(|_| true);
        Name(".erlang.cookie") => Whole;
        At("etc/bind/rndc.key") => Keys(&["secret"]);
        At("etc/rndc.key") => Keys(&["secret"]);
        Under("etc/ceph/", ".keyring") => Keys(&["key"]);
        Under("var/lib/ceph/", "/keyring") => Keys(&["key"]);
        Under("etc/cryptsetup-keys.d/", "") => Whole;
        Under("etc/credstore/", "") => Whole;
        At("var/lib/systemd/credential.secret") => Whole;
        At("etc/icinga2/api-users.conf") => Keys(&["password"]);
    }
    HISTORY {
        Name(".bash_history") => Whole;
        Name(".sh_history") => Whole;
        Name(".zsh_history") => Whole;
        Name(".zhistory") => Whole;
        Name(".ksh_history") => Whole;
        Name(".ash_history") => Whole;
        Name(".history") => Whole;
        Name("fish_history") => Whole;
        Name(".mysql_history") => Whole;
        Name(".mariadb_history") => Whole;
        Name(".psql_history") => Whole;
        Name(".sqlite_history") => Whole;
        Name(".python_history") => Whole;
        Name(".rediscli_history") => Whole;
        Name(".node_repl_history") => Whole;
        Name(".irb_history") => Whole;
        Name(".dbshell") => Whole;
        Name(".lesshst") => Lines(|line| line.starts_with(b"\""));
        Name(".viminfo") => Whole;
    }
    BMC_PASSWORD {
        Under("etc/freeipmi/", ".conf") => Keys(&["password", "k_g", "ipmi-password"]);
        Name(".freeipmi.conf") => Keys(&["password", "k_g"]);
        At("etc/conman.conf") => Lines(conman);
        Name("ipmi_password") => Whole;
        Name("ipmi-password") => Whole;
        Name("ipmipass") => Whole;
        Name("bmc-password") => Whole;
        Name("bmc_password") => Whole;
    }
    PPP_SECRET {
        Under("etc/ppp/", "-secrets") => Lines(ppp);
        At("etc/wvdial.conf") => Keys(&["password"]);
    }
    WIFI_KEY {
        Under("etc/wpa_supplicant", ".conf") => WPA;
        Under("etc/hostapd/", ".conf") => WPA;
        Under("etc/NetworkManager/system-connections/", "") => WPA;
        At("etc/network/interfaces") => WPA;
        Under("etc/network/interfaces.d/", "") => WPA;
        Under("etc/netplan/", ".yaml") => WPA;
        Under("var/lib/iwd/", "") => WPA;
    }
    KEYTAB {
        Ends(".keytab") => Bytes(keytab);
        Ends("keytab") => Bytes(keytab);
        At("var/lib/krb5kdc/principal") => Whole;
        At("etc/krb5kdc/stash") => Whole;
    }
    AUTHORIZED_KEYS {
        Tail(".ssh/authorized_keys") => Lines(|_| true);
        Tail(".ssh/authorized_keys2") => Lines(|_| true);
        Under("etc/ssh/authorized_keys", "") => Lines(|_| true);
        At("etc/dropbear/authorized_keys") => Lines(|_| true);
    }
    MACHINE_ID {
        At("etc/machine-id") => Lines(|line| line != b"uninitialized");
        At("var/lib/dbus/machine-id") => Lines(|line| line != b"uninitialized");
    }
    RANDOM_SEED {
        At("var/lib/systemd/random-seed") => Whole;
        At("var/lib/urandom/random-seed") => Whole;
        At("var/lib/random-seed") => Whole;
        Under("var/lib/seedrng/", "") => Whole;
    }
    DHCP_LEASE {
        Under("var/lib/dhcp/", ".leases") => Lines(|line| line.starts_with(b"lease"));
        Under("var/lib/dhclient/", ".leases") => Lines(|line| line.starts_with(b"lease"));
        Under("var/lib/NetworkManager/", ".lease") => Whole;
        Under("var/lib/dhcpcd", ".lease") => Whole;
    }
    AGENT {
        Tail(".ssh/environment") => Whole;
        Tail(".ssh/agent.env") => Whole;
        Tail(".keychain/") => Whole;
    }
}

/// A key of WireGuard alone in its file: `wg genkey > private.key`.
fn bare(bytes: &[u8]) -> Vec<Hit> {
    let found = keys::bare_wireguard(bytes.trim_ascii()).filter(|_| bytes.len() < 64);
    found.map(|key| Hit::line(&VPN_KEY, 0, key).of(b"WireGuard")).into_iter().collect()
}

/// `%any : PSK "…"`; `RSA file` names a key that lies elsewhere.
fn ipsec(line: &[u8]) -> bool {
    let kinds: [&[u8]; 4] = [b"PSK", b"XAUTH", b"EAP", b"NTLM"];
    let mut words = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
    words.any(|word| kinds.contains(&word)) && words.next().is_some()
}

/// `client server secret addresses`. Debian's pap-secrets has users of the system (`""`) and those
/// that may not dial in (`"*"`).
fn ppp(line: &[u8]) -> bool {
    let mut words = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
    words.nth(2).is_some_and(|secret| !matches!(secret, b"\"\"" | b"\"*\"" | b"*" | b"''"))
}

/// conman's `ipmiopts="U:admin,P:secret"`.
fn conman(line: &[u8]) -> bool {
    let line = line.to_ascii_lowercase();
    let has = |what: &[u8]| line.windows(what.len()).any(|part| part == what);
    has(b"ipmiopts") && (has(b",p:") || has(b"\"p:") || has(b"'p:"))
}

/// MIT's file format: 5, then the version.
fn keytab(bytes: &[u8]) -> Vec<Hit> {
    match bytes {
        [5, 1 | 2, _, ..] => vec![Hit::line(&KEYTAB, 0, bytes)],
        _ => Vec::new(),
    }
}

/// Which of the known places this is.
pub(super) fn place(path: &[u8]) -> Option<&'static Place> {
    let name = path.rsplit(|c| *c == b'/').next().unwrap_or(path);
    let system = || (path.starts_with(b"usr/") && !path.starts_with(b"usr/local/")) || public(path);
    PLACES.iter().find(|place| match place.spot {
        At(whole) => path == whole.as_bytes(),
        Under(begin, end) => {
            path.len() >= begin.len() + end.len()
                && path.starts_with(begin.as_bytes())
                && path.ends_with(end.as_bytes())
        }
        Name(known) => name == known.as_bytes() && !system(),
        Ends(end) => name.ends_with(end.as_bytes()) && !system(),
        Tail(tail) => match tail.strip_suffix('/') {
            // Whatever lies in a directory of that name.
            Some(dir) => {
                let above = path.strip_suffix(name).and_then(|above| above.strip_suffix(b"/"));
                above.is_some_and(|above| ends_in(above, dir.as_bytes()))
            }
            None => ends_in(path, tail.as_bytes()),
        },
    })
}

/// Whether these are the last components of a path.
fn ends_in(path: &[u8], tail: &[u8]) -> bool {
    path.strip_suffix(tail).is_some_and(|above| above.is_empty() || above.ends_with(b"/"))
}

impl Place {
    /// Whether all of the file is the secret.
    pub(super) fn is_whole(&self) -> bool {
        matches!(self.look, Whole)
    }

    /// What is found in the file's bytes.
    pub(super) fn look(&self, bytes: &[u8]) -> Vec<Hit> {
        let hit = |(at, line): (usize, &[u8])| Hit::line(self.rule, at, line);
        match self.look {
            Whole if bytes.trim_ascii().is_empty() => Vec::new(),
            Whole => vec![Hit::line(self.rule, 0, bytes)],
            Lines(says) => settings_of(bytes).filter(|(_, line)| says(line)).map(hit).collect(),
            Keys(keys) => settings(bytes)
                .filter_map(|(at, line)| {
                    let found = keys.iter().find_map(|key| Some((*key, value(line, key)?)))?;
                    Some(hit((at, found.1)).of(found.0.as_bytes()))
                })
                .collect(),
            Json(keys) => keys
                .iter()
                .flat_map(|key| logins::json(bytes, key).map(move |found| (*key, found)))
                .filter(|(_, (_, text))| meant(text))
                .map(|(key, found)| hit(found).of(key.as_bytes()))
                .collect(),
            Bytes(tell) => tell(bytes),
        }
    }
}

/// Lines that are no comment of `#`: `//` begins a registry in an npmrc.
fn settings_of(bytes: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    lines(bytes).filter(|(_, line)| !matches!(line.first(), Some(b'#' | b';')))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, text: &str) -> Vec<&'static str> {
        let hits = place(path.as_bytes()).map(|place| place.look(text.as_bytes()));
        hits.unwrap_or_default().into_iter().map(|hit| hit.rule.id).collect()
    }

    #[test]
    fn files_at_their_places() {
        for (path, text, rule) in [
            ("etc/ssh/ssh_host_ed25519_key", "key", "ssh-host-key"),
            ("root/.bash_history", "ls\n", "history"),
            ("home/a/.config/fish/fish_history", "- cmd: ls\n", "history"),
            ("root/.netrc", "machine a login b password c3\n", "login"),
            ("etc/apt/auth.conf.d/site", "machine a\n login b\n password c3\n", "login"),
            ("root/.pgpass", "*:*:*:app:s3cret\n", "database-login"),
            ("root/.my.cnf", "[client]\npassword = s3cret\n", "database-login"),
            ("root/.docker/config.json", r#"{"auths":{"r":{"auth":"YTpi"}}}"#, "registry-login"),
            ("root/.npmrc", "//registry.npmjs.org/:_authToken=a-b-c\n", "package-login"),
            ("root/.cargo/credentials.toml", "[registry]\ntoken = \"cio1\"\n", "package-login"),
            ("root/.kube/config", "users:\n- user:\n    client-key-data: LS0t\n", "kubeconfig"),
            ("root/.git-credentials", "https://a:b@example.org\n", "package-login"),
            ("etc/wpa_supplicant/wpa_supplicant.conf", "network={\n psk=\"s3\"\n}\n", "wifi-key"),
            ("etc/ppp/chap-secrets", "me isp s3cret *\n", "ppp-secret"),
            ("etc/ipsec.secrets", "%any : PSK \"s3cret\"\n", "vpn-key"),
            ("etc/freeipmi/freeipmi.conf", "password s3cret\n", "bmc-password"),
            ("etc/conman.conf", "console name=\"a\" ipmiopts=\"U:a,P:b\"\n", "bmc-password"),
            ("etc/krb5.keytab", "\u{5}\u{2}rest", "keytab"),
            ("etc/machine-id", "0123456789abcdef0123456789abcdef\n", "machine-id"),
            ("var/lib/dhcp/dhclient.eth0.leases", "lease {\n}\n", "dhcp-lease"),
            ("root/.ssh/authorized_keys", "# me\nssh-ed25519 AAAA me\n", "authorized-keys"),
            ("root/.ssh/environment", "SSH_AUTH_SOCK=/tmp/x\n", "ssh-agent"),
            ("etc/bind/rndc.key", "key \"rndc\" {\n secret \"abc=\";\n};\n", "service-secret"),
            ("var/lib/systemd/random-seed", "seed", "random-seed"),
            ("srv/www/.htpasswd", "admin:aBcDeFgHiJkLm\n", "password-hash"),
        ] {
            assert_eq!(found(path, text), [rule], "{path}");
        }
    }

    #[test]
    fn the_same_files_as_packages_ship_them() {
        for (path, text) in [
            ("etc/machine-id", ""),
            ("etc/machine-id", "uninitialized\n"),
            ("etc/ppp/pap-secrets", "# x\n*\thostname\t\"\"\t*\nguest hostname \"*\" -\n"),
            ("etc/freeipmi/freeipmi.conf", "# password mypassword\n"),
            ("etc/mysql/debian.cnf", "[client]\nhost = localhost\nuser = root\n"),
            ("etc/security/opasswd", ""),
            ("etc/ssh/ssh_host_ed25519_key.pub", "ssh-ed25519 AAAA root@a\n"),
            ("usr/share/doc/x/examples/.netrc", "machine a password c\n"),
            ("usr/bin/htpasswd", "admin:aBcDeFgHiJkLm\n"),
            ("root/.docker/config.json", r#"{"auths":{},"credsStore":"pass"}"#),
            ("root/.npmrc", "//registry.npmjs.org/:_authToken=${NPM_TOKEN}\n"),
            ("etc/krb5.keytab", ""),
            ("var/lib/dhcp/dhclient.leases", ""),
        ] {
            assert_eq!(found(path, text), [""; 0], "{path}");
        }
    }
}
