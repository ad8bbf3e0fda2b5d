//! What a recipe puts over the packages of its root, without running anything in it: names taken
//! away, files, accounts, services, and what must not be the building host's.

use std::io::Write;
use std::path::Path;

use super::accounts::Accounts;
use super::services;
use crate::content::{Content, Span};
use crate::error::Fault;
use crate::recipe::Recipe;
use crate::tree::{Inode, Kind, Member, Meta, Tree, normalise};

/// Debian's largest account file has a few KiB; a site of 100 000 people has 10 MiB.
const ACCOUNTS_MAX: u64 = 16 << 20;

/// Dresses a root. Unnamed files with what was written are made in `spool`.
pub(super) fn dress(recipe: &Recipe, tree: &mut Tree, spool: &Path) -> Result<(), Fault> {
    let wrong = |what: String| Fault::Malformed { what };
    take_away(recipe, tree)?;
    for file in &recipe.files {
        if let Some(target) = &file.link {
            let meta = Meta { mode: 0o777, ..Meta::default() };
            let kind = Kind::Symlink(target.as_bytes().into());
            tree.add(file.path.as_bytes(), Member::Inode(Inode { meta, kind }))?;
            continue;
        }
        let meta = Meta { mode: file.mode_bits().map_err(wrong)?, ..Meta::default() };
        add(tree, &file.path, meta, &file.bytes(&recipe.dir)?, spool)?;
    }
    if !recipe.users.is_empty() {
        users(recipe, tree, spool)?;
    }
    for name in &recipe.services {
        for link in services::enable(tree, name).map_err(wrong)? {
            let meta = Meta { mode: 0o777, ..Meta::default() };
            let kind = Kind::Symlink(link.target.as_bytes().into());
            tree.add(link.path.as_bytes(), Member::Inode(Inode { meta, kind }))?;
        }
    }
    identity(recipe, tree, spool)
}

/// Takes away what the recipe does not want. Packages' own layers are made without it: one that a
/// layer above took away, a host key, would still be there for whoever reads the image.
pub(super) fn take_away(recipe: &Recipe, tree: &mut Tree) -> Result<(), Fault> {
    for pattern in &recipe.remove {
        remove(tree, &normalise(pattern.as_bytes())?);
    }
    Ok(())
}

/// Names, resolvers and ids come with the boot. An empty machine-id is made at boot, where
/// `uninitialized` would make systemd ask questions on the console.
pub(super) fn identity(recipe: &Recipe, tree: &mut Tree, spool: &Path) -> Result<(), Fault> {
    let own =
        |path: &str| recipe.files.iter().any(|file| file.path.trim_start_matches('/') == path);
    for (path, text) in
        [("etc/hostname", "localhost\n"), ("etc/machine-id", ""), ("etc/resolv.conf", "")]
    {
        if !own(path) {
            let meta = Meta { mode: 0o644, ..Meta::default() };
            add(tree, path, meta, text.as_bytes(), spool)?;
        }
    }
    Ok(())
}

/// A file; where the very same lies, nothing changes.
fn add(tree: &mut Tree, path: &str, meta: Meta, bytes: &[u8], spool: &Path) -> Result<(), Fault> {
    let content = if bytes.is_empty() {
        Content::Empty
    } else {
        let mut file = tempfile::tempfile_in(spool)?;
        file.write_all(bytes)?;
        Content::Span(Span::whole(file)?)
    };
    tree.add(path.as_bytes(), Member::Inode(Inode { meta, kind: Kind::File(content) }))
}

/// Takes away what a path with `*` in its parts names. Links on the way lead where they would in the
/// booted system; one at the end is taken away itself.
fn remove(tree: &mut Tree, pattern: &[u8]) {
    let mut found: Vec<Vec<u8>> = vec![Vec::new()];
    for part in pattern.split(|c| *c == b'/') {
        let mut next = Vec::new();
        for path in &found {
            let dir = match tree.resolve(path) {
                Some((dir, inode)) if matches!(inode.kind, Kind::Dir) => dir,
                None if path.is_empty() => Vec::new(),
                _ => continue,
            };
            let names = tree.children(&dir).into_iter().filter(|name| matches(part, name));
            next.extend(names.map(|name| match &dir[..] {
                [] => name,
                dir => [dir, b"/", &name].concat(),
            }));
        }
        found = next;
    }
    found.iter().for_each(|path| tree.remove(path));
}

/// Whether a part of a path fits one with `*`.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    match (pattern.split_first(), name.split_first()) {
        (None, None) => true,
        (Some((b'*', rest)), _) => (0..=name.len()).any(|at| matches(rest, &name[at..])),
        (Some((a, pattern)), Some((b, name))) if a == b => matches(pattern, name),
        _ => false,
    }
}

fn users(recipe: &Recipe, tree: &mut Tree, spool: &Path) -> Result<(), Fault> {
    let wrong = |what: String| Fault::Malformed { what };
    let read = |path: &str| match &tree.resolve(path.as_bytes()).map(|found| &found.1.kind) {
        Some(Kind::File(content)) => Ok(Some(
            String::from_utf8(content.read(ACCOUNTS_MAX)?)
                .map_err(|_| wrong(format!("/{path} is no text")))?,
        )),
        _ => Ok::<_, Fault>(None),
    };
    let mut accounts = Accounts {
        passwd: read("etc/passwd")?.unwrap_or_default(),
        shadow: read("etc/shadow")?.unwrap_or_default(),
        group: read("etc/group")?.unwrap_or_default(),
        gshadow: read("etc/gshadow")?,
    };
    let mut homes = Vec::new();
    for user in &recipe.users {
        homes.push((user, accounts.add(user).map_err(wrong)?));
    }
    let files = [
        ("etc/passwd", 0o644, Some(accounts.passwd)),
        ("etc/shadow", 0o640, Some(accounts.shadow)),
        ("etc/group", 0o644, Some(accounts.group)),
        ("etc/gshadow", 0o640, accounts.gshadow),
    ];
    for (path, mode, text) in files {
        let Some(text) = text else { continue };
        // Owner and mode stay: shadow is root:shadow in Debian, and root's alone elsewhere.
        let meta = match tree.resolve(path.as_bytes()) {
            Some((_, inode)) => Meta { mtime: 0, ..inode.meta.clone() },
            None => Meta { mode, ..Meta::default() },
        };
        add(tree, path, meta, text.as_bytes(), spool)?;
    }
    for (user, id) in homes {
        let home = user.home();
        let meta = |mode| Meta { mode, uid: id, gid: id, ..Meta::default() };
        if tree.resolve(home.as_bytes()).is_none() {
            let kind = Kind::Dir;
            tree.add(home.as_bytes(), Member::Inode(Inode { meta: meta(0o700), kind }))?;
        }
        if !user.keys.is_empty() {
            let kind = Kind::Dir;
            let dir = format!("{home}/.ssh");
            tree.add(dir.as_bytes(), Member::Inode(Inode { meta: meta(0o700), kind }))?;
            let text = user.keys.iter().map(|key| format!("{}\n", key.trim())).collect::<String>();
            add(tree, &format!("{dir}/authorized_keys"), meta(0o600), text.as_bytes(), spool)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Limits;

    fn tree(files: &[&str], links: &[(&str, &str)]) -> Tree {
        let mut tree = Tree::new(Limits::default());
        let mut put = |path: &str, kind| {
            let inode = Inode { meta: Meta::default(), kind };
            tree.add(path.as_bytes(), Member::Inode(inode)).unwrap();
        };
        files.iter().for_each(|path| put(path, Kind::File(Content::Empty)));
        links.iter().for_each(|(path, to)| put(path, Kind::Symlink(to.as_bytes().into())));
        tree
    }

    fn left(files: &[&str], links: &[(&str, &str)], pattern: &str) -> Vec<String> {
        let mut tree = tree(files, links);
        remove(&mut tree, pattern.as_bytes());
        tree.iter().map(|(path, ..)| String::from_utf8(path.to_vec()).unwrap()).collect()
    }

    #[test]
    fn names_with_stars_are_taken_away_and_no_others() {
        let keys = ["etc/ssh/ssh_host_rsa_key", "etc/ssh/ssh_host_rsa_key.pub", "etc/ssh/sshd"];
        assert_eq!(left(&keys, &[], "etc/ssh/ssh_host_*"), ["etc", "etc/ssh", "etc/ssh/sshd"]);
        assert_eq!(left(&keys, &[], "etc/*/*_key").len(), 4);
        assert_eq!(left(&keys, &[], "etc/ssh"), ["etc"]);
        assert_eq!(left(&keys, &[], "none/*").len(), 5);
        assert_eq!(left(&["usr/lib/a"], &[("lib", "usr/lib")], "lib/a"), ["lib", "usr", "usr/lib"]);
        assert_eq!(left(&["usr/lib/a"], &[("lib", "usr/lib")], "lib").len(), 3, "the link alone");
    }

    #[test]
    fn users_get_homes_keys_and_no_password() {
        let toml =
            "name = 'x'\nfrom = 'web'\n[[users]]\nname = 'ops'\nkeys = ['ssh-ed25519 AAAA a']";
        let recipe: Recipe = toml::from_str(toml).unwrap();
        let mut tree = tree(&["etc/passwd", "etc/group", "etc/shadow"], &[]);
        let spool = tempfile::tempdir().unwrap();
        dress(&recipe, &mut tree, spool.path()).unwrap();
        let text = |path: &str| match &tree.get(path.as_bytes()).unwrap().kind {
            Kind::File(content) => String::from_utf8(content.read(999).unwrap()).unwrap(),
            other => panic!("{path}: {other:?}"),
        };
        assert_eq!(text("etc/passwd"), "ops:x:1000:1000::/home/ops:/bin/bash\n");
        assert_eq!(text("etc/shadow"), "ops:*:19000:0:99999:7:::\n");
        assert_eq!(text("home/ops/.ssh/authorized_keys"), "ssh-ed25519 AAAA a\n");
        let meta = &tree.get(b"home/ops/.ssh/authorized_keys").unwrap().meta;
        assert_eq!((meta.mode, meta.uid, meta.gid), (0o600, 1000, 1000));
        assert!(tree.get(b"etc/gshadow").is_none());
        // Nothing of the building host.
        assert_eq!(
            (text("etc/machine-id"), text("etc/hostname")),
            (String::new(), "localhost\n".into())
        );
    }
}
