//! What earlier builds packed: a step that was packed is not packed again. A note is believed only
//! while the store has all it names.

use std::fs;
use std::path::{Path, PathBuf};

use crate::Digest;
use crate::stack::Known;
use crate::store::Store;

/// Notes older builds left are kept for this many steps.
const KEPT: usize = 256;

/// Names a step by all that went into it and into those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Key(Digest);

impl Key {
    /// Of nothing. The number changes with the form of what is packed.
    pub(super) fn new(level: i32) -> Key {
        Key(Digest::of(format!("koboshi 1 {} {level}", crate::oci::architecture()).as_bytes()))
    }

    /// After one more step.
    pub(super) fn and(self, what: &str, parts: &[&[u8]]) -> Key {
        let mut all = [&self.0.0[..], what.as_bytes()].concat();
        for part in parts {
            // Each by its own digest, so that no two lists run into one.
            all.extend(Digest::of(part).0);
        }
        Key(Digest::of(&all))
    }

    pub(super) fn hex(self) -> String {
        self.0.hex()[..16].to_owned()
    }
}

/// Where notes are kept.
pub(super) struct Notes(PathBuf);

impl Notes {
    pub(super) fn in_cache(cache: &Path) -> Notes {
        Notes(cache.join("steps"))
    }

    /// What a step left in this store.
    pub(super) fn find(&self, key: Key, store: &Store) -> Option<Known> {
        let text = fs::read(self.path(key)).ok()?;
        let known: Known = serde_json::from_slice(&text).ok()?;
        known.missing(store).is_none().then_some(known)
    }

    /// Notes it for the next build. A note that cannot be written costs time then, and no more.
    pub(super) fn write(&self, key: Key, known: &Known) {
        let _ = fs::create_dir_all(&self.0);
        let Ok(mut file) = tempfile::NamedTempFile::new_in(&self.0) else { return };
        let text = crate::oci::to_bytes(known);
        if std::io::Write::write_all(&mut file, &text).is_ok() {
            let _ = file.persist(self.path(key));
        }
        self.forget();
    }

    fn path(&self, key: Key) -> PathBuf {
        self.0.join(format!("{}.json", key.0.hex()))
    }

    fn forget(&self) {
        let Ok(entries) = fs::read_dir(&self.0) else { return };
        let mut all: Vec<_> = entries
            .filter_map(|entry| {
                let entry = entry.ok()?;
                Some((entry.metadata().ok()?.modified().ok()?, entry.path()))
            })
            .collect();
        all.sort();
        let many = all.len().saturating_sub(KEPT);
        all.into_iter().take(many).for_each(|(_, path)| drop(fs::remove_file(path)));
    }
}
