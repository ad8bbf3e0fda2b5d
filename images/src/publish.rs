//! Which version machines boot: publishing one, and what becomes of the others.

use jiff::Timestamp;

use crate::Error;
use crate::oci;
use crate::store::Store;
use crate::version::{ImageRef, Version, check_name, pick};

impl Store {
    /// Makes a version, the newest if none is named, one that machines boot. Twice is once.
    pub fn publish(&self, name: &str, version: Option<u32>) -> Result<Version, Error> {
        check_name(name)?;
        let wanted = ImageRef { name: name.to_owned(), version };
        let held = self.lock()?;
        let mut index = self.index()?;
        let found = pick(&index.manifests, &wanted)?.clone();
        if found.get(oci::A_PUBLISHED).is_none() {
            // A version whose parts are not all there must not reach a machine.
            let whole = self.version(&index, &found)?;
            for blob in whole.blobs() {
                let there = std::fs::metadata(self.blob_path(&blob.digest)).map(|meta| meta.len());
                if there.ok() != Some(blob.size) {
                    let what = "it is missing or cut short".to_owned();
                    return Err(Error::Damaged { digest: blob.digest, what });
                }
            }
            for entry in index.manifests.iter_mut().filter(|entry| **entry == found) {
                let now = Timestamp::now().to_string();
                entry.annotations.insert(oci::A_PUBLISHED.to_owned(), now);
            }
            self.write_index(&held, &index)?;
        }
        let found = pick(&index.manifests, &wanted)?;
        self.version(&index, found)
    }
}
