//! The last moment of the initramfs: the new root becomes `/`, the old one's memory is given back,
//! the agent is left behind, and PID 1 becomes the system's own.

use std::convert::Infallible;
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::agent;
use crate::console::{self, say};
use crate::mounts::NEW_ROOT;
use crate::rescue::{SEQ_KEY, Stop, last_resort};
use crate::settle::intree::Tree;

const RAMFS_MAGIC: u64 = 0x8584_58f6;
const TMPFS_MAGIC: u64 = 0x0102_1994;
const MOVED: [&str; 4] = ["/dev", "/proc", "/sys", "/run"];
const INITS: [&str; 5] =
    ["/sbin/init", "/usr/lib/systemd/systemd", "/lib/systemd/systemd", "/etc/init", "/bin/init"];

/// What to run as PID 1: the first that is there and can be run. `wanted` is `init=`.
pub fn find_init(tree: &Tree, wanted: Option<&str>) -> Option<String> {
    let runs = |path: &&str| {
        tree.place(path, true)
            .and_then(fs::metadata)
            .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
    };
    if let Some(wanted) = wanted {
        if runs(&wanted) {
            return Some(wanted.to_owned());
        }
        say(format!("init={wanted} is not in the root; looking for another"));
    }
    if let Some(found) = INITS.iter().copied().find(runs) {
        return Some(found.to_owned());
    }
    ["/bin/sh"].iter().copied().find(runs).map(|shell| {
        say("no init in the root: a bare shell will be PID 1");
        shell.to_owned()
    })
}

/// Goes over. Comes back only if nothing irrevocable was done.
pub fn switch(init: &str) -> Stop {
    for target in MOVED {
        if let Err(error) = fs::create_dir_all(format!("{NEW_ROOT}{target}")) {
            return Stop::because(format!("no place for {target} in the root: {error}"));
        }
    }
    for target in MOVED {
        if let Err(errno) = rustix::mount::mount_move(target, format!("{NEW_ROOT}{target}")) {
            // Half moved, and no /proc or /dev here to rescue anybody with: there is no way back.
            last_resort(&format!("cannot move {target} into the root: {errno}"));
        }
    }
    if let Err(error) = burn_initramfs() {
        say(format!("initramfs not freed: {error}"));
    }
    let gone: Result<Infallible, io::Error> = step_over().map(|()| become_init(init));
    match gone {
        Err(error) => last_resort(&format!("cannot make the new root /: {error}")),
    }
}

fn step_over() -> io::Result<()> {
    rustix::process::chdir(NEW_ROOT)?;
    rustix::mount::mount_move(".", "/")?;
    rustix::process::chroot(".")?;
    rustix::process::chdir("/")?;
    Ok(())
}

fn become_init(init: &str) -> Infallible {
    console::take_stdio();
    // Before the exec, so that PID 1 is its parent and whoever becomes PID 1 reaps it.
    let agent = Command::new(agent::PROGRAM)
        .arg(agent::WORD)
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    if let Err(error) = agent {
        say(format!("no agent: {error}; this machine will not report itself up"));
    }
    for path in std::iter::once(init).chain(INITS).chain(["/bin/sh"]) {
        // Words the kernel did not know (`single`, `3`) were given to us, and are init's.
        let error = Command::new(path).args(std::env::args_os().skip(1)).env_remove(SEQ_KEY).exec();
        if error.kind() != io::ErrorKind::NotFound || path == init {
            say(format!("{path} does not run: {error}"));
        }
    }
    last_resort("nothing in the root runs as PID 1")
}

/// Removes what lies in the initramfs, and only there: never across a mount, and only if `/` is
/// the memory file system it should be.
fn burn_initramfs() -> io::Result<()> {
    let kind = rustix::fs::statfs("/")?.f_type as u64;
    if kind != RAMFS_MAGIC && kind != TMPFS_MAGIC {
        return Err(io::Error::other("/ is no memory file system"));
    }
    let here = fs::symlink_metadata("/")?.dev();
    if fs::symlink_metadata(NEW_ROOT)?.dev() == here {
        return Err(io::Error::other("the new root is no mount of its own"));
    }
    burn(Path::new("/"), here);
    Ok(())
}

fn burn(folder: &Path, device: u64) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let Ok(meta) = fs::symlink_metadata(&path) else { continue };
        if meta.dev() != device {
            continue;
        }
        // What stays costs a few KiB of memory, no more.
        if meta.is_dir() {
            burn(&path, device);
            let _ = fs::remove_dir(&path);
        } else {
            let _ = fs::remove_file(&path);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn finds_what_runs() {
        let root = tempfile::tempdir().unwrap();
        let tree = Tree(root.path().to_owned());
        assert_eq!(find_init(&tree, None), None);
        let program = |path: &str, mode: u32| {
            let place = root.path().join(path);
            fs::create_dir_all(place.parent().unwrap()).unwrap();
            fs::write(&place, "").unwrap();
            fs::set_permissions(&place, fs::Permissions::from_mode(mode)).unwrap();
        };
        program("bin/sh", 0o755);
        assert_eq!(find_init(&tree, None).unwrap(), "/bin/sh");
        program("usr/lib/systemd/systemd", 0o755);
        fs::create_dir_all(root.path().join("sbin")).unwrap();
        // Absolute, as Debian's: it leads into the new root, not into ours.
        symlink("/usr/lib/systemd/systemd", root.path().join("sbin/init")).unwrap();
        assert_eq!(find_init(&tree, None).unwrap(), "/sbin/init");
        assert_eq!(find_init(&tree, Some("/bin/sh")).unwrap(), "/bin/sh");
        assert_eq!(find_init(&tree, Some("/bin/none")).unwrap(), "/sbin/init");
        program("usr/lib/systemd/systemd", 0o644);
        assert_eq!(find_init(&tree, None).unwrap(), "/bin/sh");
    }

    #[test]
    fn burns_a_folder_and_nothing_behind_its_links() {
        let outer = tempfile::tempdir().unwrap();
        fs::write(outer.path().join("kept"), "").unwrap();
        let old = outer.path().join("old");
        fs::create_dir_all(old.join("deep/er")).unwrap();
        fs::write(old.join("deep/er/file"), "").unwrap();
        symlink("..", old.join("deep/out")).unwrap();
        symlink(outer.path().join("kept"), old.join("kept")).unwrap();
        let device = fs::metadata(&old).unwrap().dev();
        burn(&old, device + 1);
        assert!(old.join("deep/er/file").exists());
        burn(&old, device);
        assert_eq!(fs::read_dir(&old).unwrap().count(), 0);
        assert!(outer.path().join("kept").exists());
    }
}
