//! Files in a tree that is not `/` yet. Its links are read as it will read them once it is `/`:
//! `/etc/resolv.conf -> /run/x` means the tree's `/run`, not ours.

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};

const LINKS_MAX: usize = 40;
const READ_MAX: u64 = 1 << 20;

/// The tree.
#[derive(Debug, Clone)]
pub struct Tree(pub PathBuf);

impl Tree {
    /// Where a path of the tree lies for us; its last name is followed only on demand.
    pub fn place(&self, path: &str, follow_last: bool) -> io::Result<PathBuf> {
        let mut todo: Vec<PathBuf> = names(Path::new(path)).into_iter().rev().collect();
        let mut place: Vec<PathBuf> = Vec::new();
        let mut links = 0;
        while let Some(name) = todo.pop() {
            if name == Path::new("..") {
                place.pop();
                continue;
            }
            place.push(name);
            if todo.is_empty() && !follow_last {
                break;
            }
            let here = self.join(&place);
            let Ok(target) = fs::read_link(&here) else { continue };
            links += 1;
            if links > LINKS_MAX {
                return Err(io::Error::other(format!("{path}: links without end")));
            }
            place.pop();
            if target.has_root() {
                place.clear();
            }
            todo.extend(names(&target).into_iter().rev());
        }
        Ok(self.join(&place))
    }

    /// Whether there is something, links followed.
    pub fn has(&self, path: &str) -> bool {
        self.place(path, true).is_ok_and(|place| place.exists())
    }

    /// The target, if this is a link.
    pub fn link_target(&self, path: &str) -> Option<String> {
        let place = self.place(path, false).ok()?;
        Some(
            String::from_utf8_lossy(fs::read_link(place).ok()?.as_os_str().as_bytes()).into_owned(),
        )
    }

    /// A text file's content; empty if there is none or it is no file of a sane size.
    pub fn read(&self, path: &str) -> String {
        let mut bytes = Vec::new();
        let Ok(place) = self.place(path, true) else { return String::new() };
        if !place.is_file() {
            return String::new();
        }
        match fs::File::open(place).and_then(|file| file.take(READ_MAX).read_to_end(&mut bytes)) {
            Ok(_) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(_) => String::new(),
        }
    }

    /// Writes a file with its parents. What was there goes first: a link would lead elsewhere.
    pub fn write(&self, path: &str, content: &str, mode: u32) -> io::Result<()> {
        let place = self.clear(path)?;
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(place)?;
        file.write_all(content.as_bytes())?;
        file.set_permissions(fs::Permissions::from_mode(mode))
    }

    /// Makes a link, parents and all.
    pub fn link(&self, path: &str, target: &str) -> io::Result<()> {
        symlink(target, self.clear(path)?)
    }

    /// Makes a directory with exactly this mode, and its parents with the usual one.
    pub fn directory(&self, path: &str, mode: u32) -> io::Result<()> {
        let place = self.place(path, true)?;
        fs::DirBuilder::new().recursive(true).mode(0o755).create(&place)?;
        fs::set_permissions(place, fs::Permissions::from_mode(mode))
    }

    fn clear(&self, path: &str) -> io::Result<PathBuf> {
        if let Some((parents, _)) = path.trim_start_matches('/').rsplit_once('/') {
            let parents = self.place(parents, true)?;
            fs::DirBuilder::new().recursive(true).mode(0o755).create(parents)?;
        }
        let place = self.place(path, false)?;
        match fs::remove_file(&place) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(place),
        }
    }

    fn join(&self, names: &[PathBuf]) -> PathBuf {
        names.iter().fold(self.0.clone(), |place, name| place.join(name))
    }
}

fn names(path: &Path) -> Vec<PathBuf> {
    path.components()
        .filter_map(|part| match part {
            Component::Normal(name) => Some(PathBuf::from(name)),
            Component::ParentDir => Some(PathBuf::from("..")),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_stay_in_the_tree() {
        let outer = tempfile::tempdir().unwrap();
        let top = outer.path().join("root");
        fs::create_dir_all(top.join("usr/lib")).unwrap();
        fs::create_dir_all(top.join("etc")).unwrap();
        symlink("usr/lib", top.join("lib")).unwrap();
        symlink("/etc", top.join("usr/lib/conf")).unwrap();
        symlink("../../../../..", top.join("usr/up")).unwrap();
        symlink("loop", top.join("loop")).unwrap();
        let tree = Tree(top.clone());
        let table = [
            ("lib/conf/x", "etc/x"),
            ("/lib/../lib/a", "usr/lib/a"),
            ("usr/up/etc/y", "etc/y"),
            ("../../../evil", "evil"),
            ("none/at/all", "none/at/all"),
        ];
        for (path, meant) in table {
            assert_eq!(tree.place(path, true).unwrap(), top.join(meant), "{path}");
        }
        assert_eq!(tree.place("lib", false).unwrap(), top.join("lib"));
        assert!(tree.place("loop/x", true).is_err());
        assert!(!tree.has("loop"));
    }

    #[test]
    fn a_file_takes_the_place_of_a_link() {
        let outer = tempfile::tempdir().unwrap();
        let top = outer.path().join("root");
        fs::create_dir_all(top.join("etc")).unwrap();
        fs::write(outer.path().join("victim"), "whole").unwrap();
        symlink(outer.path().join("victim"), top.join("etc/resolv.conf")).unwrap();
        let tree = Tree(top.clone());
        assert!(!tree.has("etc/resolv.conf"));
        tree.write("etc/resolv.conf", "mine", 0o644).unwrap();
        assert_eq!(tree.read("etc/resolv.conf"), "mine");
        assert_eq!(fs::read_to_string(outer.path().join("victim")).unwrap(), "whole");
        tree.write("root/.ssh/keys", "k", 0o600).unwrap();
        tree.directory("root/.ssh", 0o700).unwrap();
        let mode = |path: &str| fs::metadata(top.join(path)).unwrap().permissions().mode() & 0o7777;
        assert_eq!(
            (mode("root/.ssh/keys"), mode("root/.ssh"), mode("root")),
            (0o600, 0o700, 0o755)
        );
        assert_eq!(tree.read("etc"), "");
    }
}
