//! The store on disk: an OCI image layout (`oci-layout`, `index.json`, `blobs/sha256/…`) that
//! skopeo and its kin read too. Readers take no lock: `index.json` is replaced whole, and blobs
//! never change.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use serde::de::DeserializeOwned;

use crate::digest::Hashing;
use crate::log;
use crate::oci::{self, Index};
use crate::staging::{LOCK, journalled};
use crate::{Digest, Error};

const LAYOUT: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;

/// The image store of one appliance.
#[derive(Debug, Clone)]
pub struct Store {
    dir: PathBuf,
}

/// Proof that the store's lock is held.
pub(crate) struct Held {
    _file: File,
}

impl Store {
    /// Opens the store in `dir` (`<state>/images`), making an empty one where there is none.
    pub fn open(dir: impl Into<PathBuf>) -> Result<Store, Error> {
        let store = Store { dir: dir.into() };
        if store.dir.join("index.json").exists() {
            return store.layout_checked();
        }
        for dir in [store.blobs(), store.tmp()] {
            fs::create_dir_all(&dir).map_err(Error::io("making", &dir))?;
        }
        let held = store.lock()?;
        if !store.dir.join("index.json").exists() {
            store.replace(&held, "oci-layout", LAYOUT.as_bytes())?;
            store.write_index(&held, &Index::empty())?;
        }
        store.layout_checked()
    }

    /// Where it is.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The file that holds a blob, if the store has it.
    pub fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.blobs().join(digest.hex())
    }

    /// Rehashes a blob.
    pub fn verify_blob(&self, blob: &crate::Blob) -> Result<(), Error> {
        let digest = blob.digest;
        let path = self.blob_path(&digest);
        let file = File::open(&path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Error::Damaged { digest, what: "it is missing".to_owned() },
            _ => Error::io("reading", &path)(error),
        })?;
        let mut hashing = Hashing::new(io::sink());
        io::copy(&mut io::BufReader::with_capacity(1 << 18, file), &mut hashing)
            .map_err(Error::io("reading", &path))?;
        let (_, found, size) = hashing.finish();
        if size != blob.size {
            let what = format!("{size} bytes instead of {}", blob.size);
            return Err(Error::Damaged { digest, what });
        }
        if found != digest {
            return Err(Error::Damaged { digest, what: format!("its bytes are {found}") });
        }
        Ok(())
    }

    fn layout_checked(self) -> Result<Store, Error> {
        let path = self.dir.join("oci-layout");
        let text = fs::read_to_string(&path).map_err(Error::io("reading", &path))?;
        if !text.contains("\"1.") {
            let what = "an OCI layout of a version we do not know".to_owned();
            return Err(Error::Store { path, what });
        }
        Ok(self)
    }

    pub(crate) fn blobs(&self) -> PathBuf {
        self.dir.join("blobs/sha256")
    }

    pub(crate) fn tmp(&self) -> PathBuf {
        self.dir.join("tmp")
    }

    /// Waits for whoever else changes the index; nobody holds it for long.
    pub(crate) fn lock(&self) -> Result<Held, Error> {
        let tmp = self.tmp();
        fs::create_dir_all(&tmp).map_err(Error::io("making", &tmp))?;
        let path = self.dir.join(".lock");
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(Error::io("opening", &path))?;
        loop {
            match flock(&file, FlockOperation::LockExclusive) {
                Ok(()) => return Ok(Held { _file: file }),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(Error::io("locking", &path)(error.into())),
            }
        }
    }

    pub(crate) fn index(&self) -> Result<Index, Error> {
        let path = self.dir.join("index.json");
        let file = File::open(&path).map_err(Error::io("reading", &path))?;
        let mut bytes = Vec::new();
        file.take(oci::DOCUMENT_MAX * 16)
            .read_to_end(&mut bytes)
            .map_err(Error::io("reading", &path))?;
        serde_json::from_slice(&bytes)
            .map_err(|error| Error::Store { path, what: error.to_string() })
    }

    /// Puts a changed index in force, and writes what was done to it into the log. Whatever happens
    /// between the two, the index itself holds the acts of its last change.
    pub(crate) fn write_index(&self, held: &Held, index: &Index) -> Result<(), Error> {
        let mut index = index.clone();
        log::number(self, &mut index)?;
        self.replace(held, "index.json", &oci::to_bytes(&index))?;
        log::append(self, held, &index);
        Ok(())
    }

    /// A small blob that is JSON, its bytes checked: nothing else would notice if they were bent.
    pub(crate) fn document<T: DeserializeOwned>(&self, digest: &Digest) -> Result<T, Error> {
        let path = self.blob_path(digest);
        let damaged = |what: String| Error::Damaged { digest: *digest, what };
        let file = File::open(&path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => damaged("it is missing".to_owned()),
            _ => Error::io("reading", &path)(error),
        })?;
        let mut bytes = Vec::new();
        file.take(oci::DOCUMENT_MAX)
            .read_to_end(&mut bytes)
            .map_err(Error::io("reading", &path))?;
        if Digest::of(&bytes) != *digest {
            return Err(damaged("its bytes have changed".to_owned()));
        }
        serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))
    }

    /// Clears away what killed imports left: their directories, and blobs that reached the store
    /// although the index never named them.
    pub(crate) fn sweep(&self, _held: &Held) -> Result<(), Error> {
        let tmp = self.tmp();
        let mut orphans = Vec::new();
        for entry in fs::read_dir(&tmp).map_err(Error::io("reading", &tmp))? {
            let path = entry.map_err(Error::io("reading", &tmp))?.path();
            if !path.is_dir() {
                fs::remove_file(&path).map_err(Error::io("removing", &path))?;
                continue;
            }
            if let Ok(lock) = File::open(path.join(LOCK))
                && flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err()
            {
                continue;
            }
            orphans.extend(journalled(&path));
            fs::remove_dir_all(&path).map_err(Error::io("removing", &path))?;
        }
        if orphans.is_empty() {
            return Ok(());
        }
        // Where nobody can tell what is needed, nothing goes; `koboshi image gc` says why.
        let Ok(reached) = self.reach(&self.index()?) else { return Ok(()) };
        let Ok(holds) = self.holds() else { return Ok(()) };
        let needed = |digest: &Digest| reached.contains(digest) || holds.blobs.contains(digest);
        for digest in orphans.into_iter().filter(|digest| !needed(digest)) {
            // Missing: it was never renamed into place.
            let _ = fs::remove_file(self.blob_path(&digest));
        }
        Ok(())
    }

    pub(crate) fn replace(&self, _held: &Held, name: &str, bytes: &[u8]) -> Result<(), Error> {
        let temp = self.tmp().join(format!("{name}.new"));
        let to = self.dir.join(name);
        let mut file = File::create(&temp).map_err(Error::io("making", &temp))?;
        file.write_all(bytes).map_err(Error::io("writing", &temp))?;
        file.sync_all().map_err(Error::io("writing", &temp))?;
        fs::rename(&temp, &to).map_err(Error::io("renaming", &temp))?;
        sync_dir(&self.dir)
    }
}

/// A rename is durable once its directory is.
pub(crate) fn sync_dir(dir: &Path) -> Result<(), Error> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(Error::io("writing", dir))
}
