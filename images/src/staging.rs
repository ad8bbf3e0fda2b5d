//! An import in the making: its blobs lie in a directory of its own until all of them are whole,
//! then they enter the store together. A killed import leaves that directory and no lock on it.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufReader, Read, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use crate::content::Content;
use crate::digest::Hashing;
use crate::oci::Index;
use crate::reach;
use crate::store::{Store, sync_dir};
use crate::version::Blob;
use crate::{Digest, Error};

/// Which blobs a commit was about to put into the store.
pub(crate) const JOURNAL: &str = "journal";
/// Held as long as the import lives.
pub(crate) const LOCK: &str = "lock";

pub(crate) struct Staging<'s> {
    store: &'s Store,
    dir: PathBuf,
    _lock: File,
    blobs: Vec<Blob>,
}

impl<'s> Staging<'s> {
    /// Begins, and clears away what killed imports left.
    pub(crate) fn begin(store: &'s Store) -> Result<Staging<'s>, Error> {
        let held = store.lock()?;
        store.sweep(&held)?;
        let tmp = store.tmp();
        let dir = tempfile::Builder::new()
            .prefix("import-")
            .tempdir_in(&tmp)
            .map_err(Error::io("making a directory in", &tmp))?
            .keep();
        let path = dir.join(LOCK);
        let lock = File::create_new(&path).map_err(Error::io("making", &path))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)
            .map_err(|error| Error::io("locking", &path)(error.into()))?;
        Ok(Staging { store, dir, _lock: lock, blobs: Vec::new() })
    }

    /// Where the import may keep what it needs; gone when it ends.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// A blob of these bytes.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> Result<Blob, Error> {
        let blob = Blob { digest: Digest::of(bytes), size: bytes.len() as u64 };
        let path = self.dir.join(blob.digest.hex());
        let mut file = File::create(&path).map_err(Error::io("making", &path))?;
        file.write_all(bytes).map_err(Error::io("writing", &path))?;
        self.keep(file, &path, blob)
    }

    /// A blob of a file in the tree.
    pub(crate) fn content(&mut self, content: &Content) -> Result<Blob, Error> {
        let path = self.dir.join("content");
        let mut out = Hashing::new(File::create(&path).map_err(Error::io("making", &path))?);
        let reader = content.open().map_err(Error::io("reading for", &path))?;
        // A page cache that is written in long pieces is sent in long pieces too.
        let mut reader = BufReader::with_capacity(1 << 18, reader);
        std::io::copy(&mut reader, &mut out).map_err(Error::io("writing", &path))?;
        let (file, digest, size) = out.finish();
        self.keep(file, &path, Blob { digest, size })
    }

    /// An empty file whose blob [`Staging::keep`] takes over when it is written.
    pub(crate) fn file(&self, name: &str) -> Result<(File, PathBuf), Error> {
        let path = self.dir.join(name);
        let file = File::create(&path).map_err(Error::io("making", &path))?;
        Ok((file, path))
    }

    /// Takes a written file as a blob. From here on its bytes survive a loss of power.
    pub(crate) fn keep(&mut self, file: File, path: &Path, blob: Blob) -> Result<Blob, Error> {
        file.sync_all().map_err(Error::io("writing", path))?;
        let to = self.dir.join(blob.digest.hex());
        fs::rename(path, &to).map_err(Error::io("renaming", path))?;
        self.blobs.push(blob);
        Ok(blob)
    }

    /// Whether it brings this blob.
    pub(crate) fn holds(&self, digest: &Digest) -> bool {
        self.blobs.iter().any(|blob| blob.digest == *digest)
    }

    /// Puts the blobs into the store and changes the index, or does neither: `change` is asked
    /// first, under the lock, and says whether there is anything to do.
    pub(crate) fn commit<T>(
        self,
        change: impl FnOnce(&mut Index) -> Result<(bool, T), Error>,
    ) -> Result<T, Error> {
        let held = self.store.lock()?;
        let before = self.store.index()?;
        let mut index = before.clone();
        let (changed, result) = change(&mut index)?;
        if changed {
            self.check_whole(&before, &index)?;
            self.write_journal()?;
        }
        // Also where nothing changed: the same content once more heals a blob that rotted.
        self.move_blobs()?;
        if changed {
            self.store.write_index(&held, &index)?;
        }
        Ok(result)
    }

    fn write_journal(&self) -> Result<(), Error> {
        let digests: Vec<Digest> = self.blobs.iter().map(|blob| blob.digest).collect();
        write_journal(&self.dir, &digests)
    }

    /// What a new entry of the index leads to is there: a blob it shares with a version that was
    /// removed meanwhile is not.
    fn check_whole(&self, before: &Index, after: &Index) -> Result<(), Error> {
        let old: BTreeSet<&str> = before.manifests.iter().map(|old| &old.digest[..]).collect();
        let added = after.manifests.iter().filter(|new| !old.contains(&new.digest[..]));
        for new in added {
            let Ok(digest) = new.digest.parse::<Digest>() else { continue };
            let missing = |digest| {
                let what = "it is missing: what it belonged to was removed meanwhile".to_owned();
                Error::Damaged { digest, what }
            };
            let path = self.path_of(&digest).ok_or_else(|| missing(digest))?;
            let document = fs::read(&path).map_err(Error::io("reading", &path))?;
            let document = serde_json::from_slice(&document)
                .map_err(|error| Error::Damaged { digest, what: error.to_string() })?;
            for (led_to, _) in reach::led_to(&document) {
                let Ok(digest) = led_to.parse::<Digest>() else { continue };
                self.path_of(&digest).ok_or_else(|| missing(digest))?;
            }
        }
        Ok(())
    }

    /// Where a blob is: of this import, or in the store.
    fn path_of(&self, digest: &Digest) -> Option<PathBuf> {
        let places = [self.dir.join(digest.hex()), self.store.blob_path(digest)];
        places.into_iter().find(|path| path.exists())
    }

    fn move_blobs(&self) -> Result<(), Error> {
        for blob in &self.blobs {
            let from = self.dir.join(blob.digest.hex());
            let to = self.store.blob_path(&blob.digest);
            match fs::rename(&from, &to) {
                Ok(()) => {}
                // The same bytes twice in one import, and already renamed.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound && to.exists() => {}
                Err(error) => return Err(Error::io("renaming", &from)(error)),
            }
        }
        sync_dir(&self.store.blobs())
    }
}

/// Names blobs that are to be removed once the index does not lead to them, in a directory that whoever
/// sweeps finds; the caller removes it when they are gone.
pub(crate) fn journal(store: &Store, digests: &[Digest]) -> Result<PathBuf, Error> {
    let tmp = store.tmp();
    let dir = tempfile::Builder::new()
        .prefix("remove-")
        .tempdir_in(&tmp)
        .map_err(Error::io("making a directory in", &tmp))?
        .keep();
    write_journal(&dir, digests)?;
    Ok(dir)
}

fn write_journal(dir: &Path, digests: &[Digest]) -> Result<(), Error> {
    let journal: String = digests.iter().map(|digest| digest.hex() + "\n").collect();
    let path = dir.join(JOURNAL);
    let mut file = File::create(&path).map_err(Error::io("making", &path))?;
    file.write_all(journal.as_bytes()).map_err(Error::io("writing", &path))?;
    file.sync_all().map_err(Error::io("writing", &path))?;
    sync_dir(dir)
}

impl Drop for Staging<'_> {
    fn drop(&mut self) {
        // What cannot be removed now is swept by the next import.
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// Digests a journal names; a journal cut short names whole lines only.
pub(crate) fn journalled(dir: &Path) -> Vec<Digest> {
    let mut text = String::new();
    let Ok(mut file) = File::open(dir.join(JOURNAL)) else { return Vec::new() };
    if file.read_to_string(&mut text).is_err() {
        return Vec::new();
    }
    text.lines().filter_map(|hex| format!("sha256:{hex}").parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::{self, Descriptor};

    /// Its base was removed while it was built.
    #[test]
    fn an_image_that_shares_what_is_gone_does_not_enter() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path().join("images")).unwrap();
        let enter = |gone: bool| {
            let mut staging = Staging::begin(&store).unwrap();
            let config = staging.bytes(b"{}").unwrap();
            let layer = Digest::of(b"layer");
            if !gone {
                staging.bytes(b"layer").unwrap();
            }
            let manifest = oci::Manifest {
                schema_version: 2,
                media_type: oci::MANIFEST.to_owned(),
                artifact_type: None,
                config: Descriptor::new(oci::CONFIG, config.digest, config.size),
                layers: vec![Descriptor::new(oci::LAYER_ZSTD, layer, 5)],
                annotations: oci::Annotations::new(),
            };
            let manifest = staging.bytes(&oci::to_bytes(&manifest)).unwrap();
            let entry = Descriptor::new(oci::MANIFEST, manifest.digest, manifest.size);
            staging.commit(|index| {
                index.manifests.push(entry);
                Ok((true, ()))
            })
        };
        let refused = enter(true).unwrap_err();
        assert!(refused.to_string().contains("removed meanwhile"), "{refused}");
        assert!(store.index().unwrap().manifests.is_empty());
        assert_eq!(std::fs::read_dir(store.blobs()).unwrap().count(), 0);
        enter(false).unwrap();
        enter(true).unwrap();
    }
}
