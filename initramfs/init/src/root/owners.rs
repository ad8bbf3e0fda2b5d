//! Whose the files of an NFS 4 root are, once it is mounted. A server may name an owner (`root@example.com`, RFC 8881
//! 5.9) where its number would do: nfs-ganesha does unless told otherwise, the Linux kernel's own server does not. The
//! kernel then has `/sbin/request-key` find the number, a program of the very root whose owner it asks for. An image
//! without it has files of nobody's, `su` among them; and once a minute, when "unknown" is forgotten, whoever opens a
//! file may wait for that program, and it for the owner of `/sbin`: for ever. So the numbers of all names in the
//! root's own `passwd` and `group` are put where the kernel looks before it asks: root's user-session keyring, and
//! they never expire.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use keyutils::keytypes::user;
use keyutils::{KeyType, Keyring, SpecialKeyring};
use rustix::fs::{AtFlags, CWD, StatxFlags, statx};

use crate::settle::intree::Tree;

const KEYS: &str = "/proc/keys";
/// As much of `id_resolver` as `/proc/keys` has room for.
const ASKED: &str = "id_resolv";
/// The kernel's number for an owner whose name nobody knows: -2.
const UNKNOWN: u32 = u32::MAX - 1;
/// No image has so many users and groups; a server that has, knows them by other means.
const MOST: usize = 4096;

/// What `nfsidmap` would answer with.
struct IdResolver;

impl KeyType for IdResolver {
    type Description = <user::User as KeyType>::Description;
    type Payload = <user::User as KeyType>::Payload;

    fn name() -> &'static str {
        "id_resolver"
    }
}

/// How the server tells owners.
#[derive(Debug, PartialEq, Eq)]
pub enum Owners {
    /// By numbers, as they are on its disk.
    Numbers,
    /// By names like this one, of which so many are known here.
    Names { root: String, known: usize },
    /// By names, and none of them is known here.
    Nobodys(String),
}

impl Owners {
    /// What whoever set up the server should know.
    pub fn words(&self, export: &str) -> Option<String> {
        let numbers = "have the server send numbers (nfs-ganesha: Only_Numeric_Owners = true;), or use vers=3";
        match self {
            Owners::Numbers => None,
            Owners::Names { root, known } => Some(format!(
                "{export} names its owners ({root}); {known} of the image's own passwd and group are known now, and a \
                 file is another's where the server's differ: {numbers}"
            )),
            Owners::Nobodys(why) => Some(format!(
                "{export} names its owners, and files are nobody's here: {why}; {numbers}"
            )),
        }
    }
}

/// Asks how, of the root mounted at `place`, and has the kernel know its names.
pub fn learn(place: &str) -> Owners {
    let asked = fs::read_to_string(KEYS).unwrap_or_default();
    let domains = domains(&asked);
    let known = match domains.is_empty() {
        true => Ok(0),
        false => teach(place, &domains),
    };
    let unknown = !owner_known(place);
    match known {
        Err(why) => Owners::Nobodys(why),
        Ok(_) if unknown => Owners::Nobodys("that of / is not in its passwd or group".into()),
        Ok(0) => Owners::Numbers,
        Ok(known) => {
            let roots: Vec<String> = domains.iter().map(|domain| at("root", domain)).collect();
            Owners::Names { root: roots.join(", "), known }
        }
    }
}

fn teach(place: &str, domains: &BTreeSet<String>) -> Result<usize, String> {
    let no_ring = |error| format!("no keyring to put numbers in: {error}");
    let mut ring = Keyring::attach_or_create(SpecialKeyring::UserSession).map_err(no_ring)?;
    let mut put = |kind: &str, name: &str, id: u32| -> Result<usize, String> {
        for domain in domains {
            // The kernel reads a number up to its NUL.
            let (wanted, number) = (format!("{kind}:{}", at(name, domain)), format!("{id}\0"));
            ring.add_key::<IdResolver, _, _>(wanted.as_str(), number.as_bytes())
                .map_err(|error| format!("{wanted} not told to the kernel: {error}"))?;
        }
        Ok(domains.len())
    };
    // First whose the way to those files is: what is looked up before is nobody's for a minute.
    let mut known = put("uid", "root", 0)? + put("gid", "root", 0)?;
    owner_known(place);
    let tree = Tree(place.into());
    for (kind, file) in [("uid", "/etc/passwd"), ("gid", "/etc/group")] {
        for (name, id) in numbers(&tree.read(file)) {
            if name != "root" {
                known += put(kind, name, id)?;
            }
        }
    }
    Ok(known)
}

fn at(name: &str, domain: &str) -> String {
    if domain.is_empty() { name.to_owned() } else { format!("{name}@{domain}") }
}

/// The server is asked anew, and the kernel keeps what it says.
fn owner_known(place: &str) -> bool {
    let wanted = StatxFlags::UID | StatxFlags::GID;
    statx(CWD, Path::new(place), AtFlags::STATX_FORCE_SYNC, wanted)
        .is_ok_and(|found| found.stx_uid != UNKNOWN && found.stx_gid != UNKNOWN)
}

/// What follows the `@` of the owners that the kernel has asked for; empty, if nothing does.
fn domains(keys: &str) -> BTreeSet<String> {
    let asked = keys.lines().filter_map(|line| {
        // serial, flags, usage, expiry, permissions, uid, gid, type, description
        let mut words = line.split_whitespace().skip(7);
        if words.next() != Some(ASKED) {
            return None;
        }
        // Of one that is known, its length follows: `uid:root@example.com: 2`.
        let wanted = words.next()?.trim_end_matches(':');
        let name = wanted.strip_prefix("uid:").or_else(|| wanted.strip_prefix("gid:"))?;
        Some(name.split_once('@').map_or("", |(_, domain)| domain).to_owned())
    });
    asked.take(MOST).collect()
}

/// Names and numbers of a `passwd` or a `group`; lines that are neither are left out.
fn numbers(file: &str) -> impl Iterator<Item = (&str, u32)> {
    file.lines().filter_map(number).take(MOST)
}

fn number(line: &str) -> Option<(&str, u32)> {
    let mut fields = line.split(':');
    let (name, number) = (fields.next()?, fields.nth(1)?.parse().ok()?);
    let sane = !name.is_empty() && name.len() < 256 && !name.contains(['@', '\0']);
    sane.then_some((name, number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_names_its_owners_is_known_by_what_the_kernel_asked() {
        let keys = "\
            202797d5 I--Q-N-     1  36s 3b010000     0     0 id_resolv uid:root@localdomain\n\
            34d0a43b I--Q-N-     1  36s 3b010000     0     0 id_resolv gid:root@localdomain\n\
            34d0a43c I--Q---     1 perm 3b010000     0     0 id_resolv gid:mail@v4.example.com: 2\n\
            3283518a I--Q-N-     1  36s 3b010000     0     0 id_legacy uid:root@elsewhere\n\
            1206f1a2 I--Q---     2 perm 3f030000     0     0 keyring   _ses: 1\n";
        let found: Vec<String> = domains(keys).into_iter().collect();
        assert_eq!(found, ["localdomain", "v4.example.com"]);
        assert_eq!(domains("1 I 1 perm 3b010000 0 0 id_resolv uid:root\n").len(), 1);
        assert!(domains("1 I 1 perm 3b010000 0 0 id_resolv user:33\nx\n\n").is_empty());
    }

    #[test]
    fn numbers_of_passwd_and_group() {
        let of = |file| numbers(file).collect::<Vec<_>>();
        let passwd =
            "root:x:0:0:root:/root:/bin/bash\nwww-data:x:33:33::/var/www:/usr/sbin/nologin\n";
        assert_eq!(of(passwd), [("root", 0), ("www-data", 33)]);
        assert_eq!(
            of("shadow:*:42:\n\n#mail:x\n:x:1:\na@b:x:2:\nnone:x:-1:\nadm:x:4:a,b"),
            [("shadow", 42), ("adm", 4)]
        );
    }
}
