//! Reading an image's files as the image itself would see them.
//!
//! An image is a stranger's tree. `/lib` may be a link to `/usr/lib`, which must be followed inside
//! the tree; and a link to `/etc/shadow` must not read the appliance's. `openat2(2)` with
//! `RESOLVE_IN_ROOT` does both in the kernel, with nothing to race against. A FIFO in a module's
//! place would hold the reader for ever and a device may act when opened, so each path is opened
//! without access first, and only a regular file is opened to be read.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Dir, FileType, Mode, OFlags, ResolveFlags, fstat, open, openat2};
use rustix::io::Errno;

use crate::Error;

/// Names in one directory; the fullest directory of an honest image has some thousands.
const NAMES_MAX: usize = 100_000;

/// The top of an image's tree.
#[derive(Debug)]
pub(crate) struct Root(OwnedFd);

impl Root {
    /// Takes the directory as `/`.
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map(Self)
            .map_err(|e| failed(&path.display().to_string(), e))
    }

    /// The content of a regular file, or nothing if there is no such path.
    pub(crate) fn read(&self, path: &str, limit: u64) -> Result<Option<Vec<u8>>, Error> {
        let Some(place) = self.find(path, OFlags::empty())? else { return Ok(None) };
        let stat = fstat(&place).map_err(|e| failed(path, e))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(Error::Kind { path: path.to_owned(), want: "a file" });
        }
        let too_large = || Error::TooLarge { what: format!("{path} in the image"), limit };
        if u64::try_from(stat.st_size).unwrap_or(0) > limit {
            return Err(too_large());
        }
        let again = format!("/proc/self/fd/{}", place.as_raw_fd());
        let file = open(again, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|e| failed(path, e))?;
        let mut bytes = Vec::with_capacity(stat.st_size as usize);
        let read = File::from(file).take(limit + 1).read_to_end(&mut bytes);
        read.map_err(|source| Error::Read { path: path.to_owned(), source })?;
        if bytes.len() as u64 > limit { Err(too_large()) } else { Ok(Some(bytes)) }
    }

    /// The same, where something that is no file is as good as nothing.
    pub(crate) fn read_if_file(&self, path: &str, limit: u64) -> Result<Option<Vec<u8>>, Error> {
        match self.read(path, limit) {
            Err(Error::Kind { .. }) => Ok(None),
            other => other,
        }
    }

    /// The names in a directory, sorted, or nothing if there is no such path. Names that are not
    /// text are left out: no kernel, module or firmware has one.
    pub(crate) fn list(&self, path: &str) -> Result<Option<Vec<String>>, Error> {
        let Some(place) = self.find(path, OFlags::DIRECTORY)? else { return Ok(None) };
        let mut names = Vec::new();
        for entry in Dir::read_from(place).map_err(|e| failed(path, e))? {
            let entry = entry.map_err(|e| failed(path, e))?;
            match entry.file_name().to_str() {
                Ok("." | "..") | Err(_) => {}
                Ok(name) => names.push(name.to_owned()),
            }
            if names.len() > NAMES_MAX {
                return Err(Error::TooLarge { what: path.to_owned(), limit: NAMES_MAX as u64 });
            }
        }
        names.sort_unstable();
        Ok(Some(names))
    }

    /// Whether a directory is there.
    pub(crate) fn has_dir(&self, path: &str) -> Result<bool, Error> {
        Ok(self.find(path, OFlags::DIRECTORY | OFlags::PATH)?.is_some())
    }

    fn find(&self, path: &str, flags: OFlags) -> Result<Option<OwnedFd>, Error> {
        let flags = if flags.is_empty() { OFlags::PATH } else { flags } | OFlags::CLOEXEC;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        // EAGAIN: something was renamed in the tree while a `..` was resolved.
        for _ in 0..16 {
            match openat2(&self.0, path, flags, Mode::empty(), resolve) {
                Ok(place) => return Ok(Some(place)),
                Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(e) => return Err(failed(path, e)),
            }
        }
        Err(failed(path, Errno::AGAIN))
    }
}

fn failed(path: &str, e: Errno) -> Error {
    Error::Read { path: path.to_owned(), source: io::Error::from(e) }
}

#[cfg(test)]
mod tests {
    use rustix::fs::CWD;
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_stay_inside() {
        let outside = tempfile::tempdir().expect("a directory");
        fs::write(outside.path().join("shadow"), "secret").expect("written");
        let dir = tempfile::tempdir().expect("a directory");
        let at = |path: &str| dir.path().join(path);
        fs::create_dir_all(at("usr/lib/firmware")).expect("made");
        fs::write(at("usr/lib/firmware/a.fw"), "fw").expect("written");
        symlink("usr/lib", at("lib")).expect("linked");
        symlink("/usr/lib", at("absolute")).expect("linked");
        symlink("../../../../../../usr/lib", at("climbs")).expect("linked");
        symlink(outside.path().join("shadow"), at("away")).expect("linked");
        symlink("/etc/passwd", at("passwd")).expect("linked");
        symlink("/proc/self/root/etc/passwd", at("magic")).expect("linked");
        symlink("loop", at("loop")).expect("linked");
        let root = Root::open(dir.path()).expect("it is there");
        for path in [
            "lib/firmware/a.fw",
            "/lib/firmware/a.fw",
            "absolute/firmware/a.fw",
            "climbs/firmware/a.fw",
            "../usr/lib/firmware/a.fw",
        ] {
            assert_eq!(root.read(path, 10).expect(path).as_deref(), Some(&b"fw"[..]), "{path}");
        }
        for path in ["away", "passwd", "magic", "none", "lib/firmware/a.fw/x"] {
            assert!(root.read(path, 1 << 20).expect(path).is_none(), "{path}");
        }
        root.read("loop", 10).expect_err("a loop");
        root.read("lib/firmware/a.fw", 1).expect_err("larger than allowed");
        root.read("lib", 10).expect_err("a directory");
        assert_eq!(root.list("lib").expect("read").expect("there"), ["firmware"]);
        assert!(root.list("none").expect("read").is_none());
        assert!(root.list("passwd").expect("read").is_none());
        assert!(root.has_dir("lib/firmware").expect("read"));
        assert!(!root.has_dir("lib/firmware/a.fw").expect("read"));
    }

    #[test]
    fn a_fifo_does_not_hold_the_reader() {
        let dir = tempfile::tempdir().expect("a directory");
        let fifo = dir.path().join("modules.dep");
        rustix::fs::mknodat(CWD, &fifo, FileType::Fifo, Mode::RUSR, 0).expect("made");
        let root = Root::open(dir.path()).expect("it is there");
        root.read("modules.dep", 10).expect_err("not a file");
    }
}
