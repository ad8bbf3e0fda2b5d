//! Files of this host: those that are sent, and the folder where received ones go. A file is `NAME.part` until it
//! is whole, which is also where a transfer that broke goes on.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{CWD, OFlags, RenameFlags, renameat_with};

use super::crc::Crc32;
use super::{Announced, Answer, Failure, Outgoing, safe_name};

/// Read at once for a CRC.
const READ: usize = 64 * 1024;

/// What is sent.
#[derive(Debug)]
pub struct Sources {
    files: Vec<(Outgoing, PathBuf)>,
    /// The one that is open.
    open: Option<(usize, File)>,
}

impl Sources {
    /// Looks at them.
    ///
    /// # Errors
    /// One is not there, is no file, or has no name that can be said; in words.
    pub fn new(paths: &[PathBuf]) -> Result<Sources, String> {
        let files = paths.iter().map(|path| {
            let no = |why: &dyn std::fmt::Display| format!("{}: {why}", path.display());
            let about = std::fs::metadata(path).map_err(|why| no(&why))?;
            if !about.is_file() {
                return Err(no(&"not a file: a folder goes as an archive (tar)"));
            }
            File::open(path).map_err(|why| no(&why))?;
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
            let name = name.ok_or_else(|| no(&"it has no name"))?;
            let modified = about.modified().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
            let modified = modified.map_or(0, |since| since.as_secs());
            Ok((Outgoing { name, size: about.len(), modified }, path.clone()))
        });
        Ok(Sources { files: files.collect::<Result<_, _>>()?, open: None })
    }

    /// As they are announced.
    pub fn outgoing(&self) -> Vec<Outgoing> {
        self.files.iter().map(|(file, _)| file.clone()).collect()
    }

    /// Its name and size.
    pub(super) fn about(&self, file: usize) -> Option<&Outgoing> {
        self.files.get(file).map(|(file, _)| file)
    }

    /// So much of it from there on; less where it ends.
    pub(super) fn read(&mut self, file: usize, at: u64, most: usize) -> Result<Vec<u8>, Failure> {
        let Some((_, path)) = self.files.get(file) else { return Ok(Vec::new()) };
        let no = |why: io::Error| Failure::Here(format!("{}: {why}", path.display()));
        if self.open.as_ref().is_none_or(|(open, _)| *open != file) {
            self.open = Some((file, File::open(path).map_err(no)?));
        }
        let Some((_, open)) = &self.open else { return Ok(Vec::new()) };
        let mut bytes = vec![0; most];
        let mut filled = 0;
        while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match open.read_at(rest, at + filled as u64) {
                Ok(0) => break,
                Ok(many) => filled += many,
                Err(why) if why.kind() == io::ErrorKind::Interrupted => {}
                Err(why) => return Err(no(why)),
            }
        }
        bytes.truncate(filled);
        Ok(bytes)
    }
}

/// What may come, and where to.
#[derive(Debug, Clone)]
pub struct Rules {
    /// Where to.
    pub folder: PathBuf,
    /// Its name here, whatever it is there: for the first file. XMODEM has no names.
    pub name: Option<String>,
    /// Its length, where the protocol does not say it.
    pub size: Option<u64>,
    /// Also over a file that is there.
    pub overwrite: bool,
    /// A file may be so large, in bytes.
    pub most: u64,
}

/// Where received files go.
#[derive(Debug)]
pub struct Folder {
    rules: Rules,
    coming: Option<Coming>,
}

/// A file that comes.
#[derive(Debug)]
struct Coming {
    path: PathBuf,
    part: PathBuf,
    file: File,
    announced: Announced,
    at: u64,
}

/// A file that is whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Kept {
    pub path: PathBuf,
    pub size: u64,
}

/// What is said to an offer.
#[derive(Debug)]
pub(super) enum Said {
    Taken { name: String, answer: Answer },
    No { name: String, why: String },
}

impl Folder {
    /// As the rules say.
    pub fn new(rules: Rules) -> Folder {
        Folder { rules, coming: None }
    }

    pub(super) fn offer(&mut self, announced: Announced) -> Result<Said, Failure> {
        let given = self.rules.name.take();
        let said = announced.name.as_deref().and_then(safe_name);
        let Some(name) = given.or(said) else {
            let says = match &announced.name {
                None => "XMODEM says no names: --name gives it one".to_string(),
                Some(name) => {
                    let name = String::from_utf8_lossy(name);
                    format!("{name:?} is no name for a file: --name gives it one")
                }
            };
            return Err(Failure::Here(says));
        };
        let path = self.rules.folder.join(&name);
        let mut part = OsString::from(&path);
        part.push(".part");
        let part = PathBuf::from(part);
        let no = |why: String| Ok(Said::No { name: name.clone(), why });
        if let Some(size) = announced.size.filter(|size| *size > self.rules.most) {
            return no(format!("it has {size} bytes, and {} may come: --most", self.rules.most));
        }
        match std::fs::symlink_metadata(&path) {
            Ok(about) if about.is_dir() => return no("a folder has that name here".to_string()),
            Ok(_) if !self.rules.overwrite => {
                return no(
                    "a file of that name is here: --overwrite, or another folder".to_string()
                );
            }
            _ => {}
        }
        let here = |why: io::Error| Failure::Here(format!("{}: {why}", part.display()));
        let open = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed())
            .open(&part);
        let mut file = open.map_err(here)?;
        let about = file.metadata().map_err(here)?;
        if !about.is_file() {
            return Err(Failure::Here(format!("{} is no file", part.display())));
        }
        let there = about.len();
        let most = announced.size.unwrap_or(u64::MAX).min(self.rules.most);
        let answer = if there > 0 && there <= most && announced.name.is_some() {
            Answer::Take { at: there, crc: sum(&mut file).map_err(here)? }
        } else {
            Answer::Take { at: 0, crc: 0 }
        };
        self.coming = Some(Coming { path, part, file, announced, at: 0 });
        Ok(Said::Taken { name, answer })
    }

    pub(super) fn begin(&mut self, at: u64) -> Result<(), Failure> {
        let Some(coming) = &mut self.coming else { return Ok(()) };
        let begun = coming.file.set_len(at).and_then(|()| coming.file.seek(SeekFrom::Start(at)));
        begun.map_err(|why| coming.no(&why))?;
        coming.at = at;
        Ok(())
    }

    /// How much is there then.
    pub(super) fn store(&mut self, bytes: &[u8]) -> Result<u64, Failure> {
        let Some(coming) = &mut self.coming else { return Ok(0) };
        if coming.at + bytes.len() as u64 > self.rules.most {
            let says = format!(
                "more than the {} bytes that may come, whatever was announced: --most",
                self.rules.most
            );
            return Err(Failure::Here(says));
        }
        coming.file.write_all(bytes).map_err(|why| coming.no(&why))?;
        coming.at += bytes.len() as u64;
        Ok(coming.at)
    }

    pub(super) fn whole(&mut self, size: u64) -> Result<Kept, Failure> {
        let Some(coming) = self.coming.take() else {
            return Err(Failure::Confused("a file ended that did not begin".to_string()));
        };
        // What was announced may have grown since: a log. It does not shrink.
        let meant = self.rules.size.or(coming.announced.size).filter(|meant| *meant > size);
        if let Some(meant) = meant {
            let says = format!(
                "it ended after {size} of {meant} bytes; what came is {}",
                coming.part.display()
            );
            return Err(Failure::Confused(says));
        }
        let size = self.rules.size.unwrap_or(size);
        coming.keep(size, self.rules.overwrite).map_err(|why| coming.no(&why))?;
        Ok(Kept { path: coming.path, size })
    }
}

impl Coming {
    fn no(&self, why: &io::Error) -> Failure {
        Failure::Here(format!("{}: {why}", self.part.display()))
    }

    fn keep(&self, size: u64, overwrite: bool) -> io::Result<()> {
        self.file.set_len(size)?;
        if let Some(at) = self.announced.modified {
            let at = UNIX_EPOCH.checked_add(Duration::from_secs(at));
            // A time that this file system does not know is no reason to have no file.
            let _kept = self.file.set_modified(at.unwrap_or_else(SystemTime::now));
        }
        self.file.sync_all()?;
        rename(&self.part, &self.path, overwrite)
    }
}

fn rename(from: &Path, to: &Path, overwrite: bool) -> io::Result<()> {
    if overwrite {
        return std::fs::rename(from, to);
    }
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // Some file systems (NFS) cannot say it at once.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {
            std::fs::hard_link(from, to)?;
            std::fs::remove_file(from)
        }
        done => Ok(done?),
    }
}

fn sum(file: &mut File) -> io::Result<u32> {
    file.seek(SeekFrom::Start(0))?;
    let mut crc = Crc32::new();
    let mut buffer = vec![0; READ];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(crc.value()),
            many => crc = crc.and(buffer.get(..many).unwrap_or_default()),
        }
    }
}
