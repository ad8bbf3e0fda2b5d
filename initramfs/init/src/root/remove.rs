//! A name goes, and all that is below it: what a layer says is gone, or puts something else in the place of.
//! Nothing is followed. Directories below are brought up before they are emptied, so that however deep they
//! lie, two are open at a time.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{self, AtFlags, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

/// Names that are held at a time: a directory may have millions.
const NAMES: usize = 1024;

/// Removes it, if it is there; adds up the bytes that are free by it.
pub fn remove(parent: BorrowedFd<'_>, name: &[u8], freed: &mut u64) -> Result<(), Errno> {
    if gone(parent, name, freed)? {
        return Ok(());
    }
    let top = open(parent, name)?;
    let mut number = 0u64;
    loop {
        let names = some(&top)?;
        if names.is_empty() {
            break;
        }
        for name in names {
            if gone(top.as_fd(), &name, freed)? {
                continue;
            }
            let below = open(top.as_fd(), &name)?;
            loop {
                let names = some(&below)?;
                if names.is_empty() {
                    break;
                }
                for name in names {
                    if !gone(below.as_fd(), &name, freed)? {
                        bring_up(below.as_fd(), &name, top.as_fd(), &mut number)?;
                    }
                }
            }
            fs::unlinkat(&top, &name, AtFlags::REMOVEDIR)?;
        }
    }
    fs::unlinkat(parent, name, AtFlags::REMOVEDIR)
}

/// How much is free once this name is gone: nothing, as long as its file has another one.
fn frees(parent: BorrowedFd<'_>, name: &[u8]) -> u64 {
    match fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(is)
            if is.st_nlink == 1 && FileType::from_raw_mode(is.st_mode) == FileType::RegularFile =>
        {
            let blocks = u64::try_from(is.st_blocks).unwrap_or(0).saturating_mul(512);
            blocks.min(u64::try_from(is.st_size).unwrap_or(0))
        }
        _ => 0,
    }
}

/// Anything but a directory that holds something.
fn gone(parent: BorrowedFd<'_>, name: &[u8], freed: &mut u64) -> Result<bool, Errno> {
    let bytes = frees(parent, name);
    match fs::unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) => {
            *freed = freed.saturating_add(bytes);
            return Ok(true);
        }
        Err(Errno::NOENT) => return Ok(true),
        // The second is POSIX's for a directory.
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(errno) => return Err(errno),
    }
    match fs::unlinkat(parent, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(true),
        Err(Errno::NOTEMPTY | Errno::EXIST) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// Under a name that nobody there has, or that is to be removed as well.
fn bring_up(
    from: BorrowedFd<'_>,
    name: &[u8],
    to: BorrowedFd<'_>,
    number: &mut u64,
) -> Result<(), Errno> {
    loop {
        let new = format!(".koboshi.{number}");
        *number += 1;
        match fs::renameat(from, name, to, new.as_bytes()) {
            Err(Errno::EXIST | Errno::NOTEMPTY | Errno::NOTDIR) => {}
            done => return done,
        }
    }
}

fn some(dir: &OwnedFd) -> Result<Vec<Vec<u8>>, Errno> {
    let mut names = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(name.to_vec());
        }
        if names.len() >= NAMES {
            break;
        }
    }
    Ok(names)
}

fn open(parent: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    fs::openat(parent, name, flags, Mode::empty())
}

#[cfg(test)]
mod tests {
    use std::fs::{self as stdfs, File};
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn however_deep_and_whatever_is_in_it() {
        let outer = tempfile::tempdir().unwrap();
        stdfs::write(outer.path().join("outside"), b"untouched").unwrap();
        let top = outer.path().join("root");
        stdfs::create_dir(&top).unwrap();
        let dir = File::open(&top).unwrap();
        // Deeper than a path may be long, and than files may be open.
        let mut here = open(dir.as_fd(), b".").unwrap();
        for level in 0..3000 {
            fs::mkdirat(&here, "d", Mode::RWXU).unwrap();
            if level % 100 == 0 {
                fs::mkdirat(&here, "also", Mode::RWXU).unwrap();
                fs::symlinkat("../outside", &here, "link").unwrap();
                fs::mknodat(&here, ".koboshi.1", FileType::Fifo, Mode::RUSR, 0).unwrap();
            }
            here = open(here.as_fd(), b"d").unwrap();
        }
        drop(here);
        stdfs::write(top.join("d/file"), [1; 5000]).unwrap();
        stdfs::write(top.join("d/twice"), [1; 5000]).unwrap();
        stdfs::hard_link(top.join("d/twice"), top.join("stays")).unwrap();
        for n in 0..3000 {
            stdfs::write(top.join(format!("d/d/{n}")), b"").unwrap();
        }
        symlink("..", top.join("way")).unwrap();
        let mut freed = 0;
        for name in ["d", "way", "also", "not-there"] {
            remove(dir.as_fd(), name.as_bytes(), &mut freed).unwrap();
            assert!(
                !top.join(name).exists() && top.join(name).symlink_metadata().is_err(),
                "{name}"
            );
        }
        assert_eq!(freed, 5000, "a file of another name is still there");
        assert_eq!(stdfs::read(outer.path().join("outside")).unwrap(), b"untouched");
        assert_eq!(stdfs::read(top.join("stays")).unwrap(), [1; 5000]);
    }
}
