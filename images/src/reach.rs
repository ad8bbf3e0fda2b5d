//! Which blobs a version leads to, and so what it takes on disk, alone and together with others.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use serde::Serialize;
use serde_json::Value;

use crate::oci::{self, Descriptor, Index, Manifest};
use crate::store::Store;
use crate::version::identity;
use crate::{Digest, Error};

/// Lists of lists of a stranger's.
const DEPTH_MAX: usize = 4;

/// What a version takes on disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Usage {
    /// Bytes that go when it is removed.
    pub own: u64,
    /// Bytes that other versions need too.
    pub shared: u64,
}

impl Store {
    /// What every version that can be read takes, by name and number.
    pub fn usage(&self) -> Result<BTreeMap<(String, u32), Usage>, Error> {
        let index = self.index()?;
        let mut users: BTreeMap<Digest, usize> = BTreeMap::new();
        let mut all = Vec::new();
        for found in &index.manifests {
            let Some((name, version)) = identity(found) else { continue };
            let needs = match self.needs(&index, found) {
                // It is listed as damaged; what it takes nobody knows.
                Err(Error::Damaged { .. }) => continue,
                needs => needs?,
            };
            for digest in &needs {
                *users.entry(*digest).or_default() += 1;
            }
            all.push(((name.to_owned(), version), needs));
        }
        let size = |digest: &Digest| fs::metadata(self.blob_path(digest)).map_or(0, |m| m.len());
        let usage = all.into_iter().map(|(name, needs)| {
            let mut usage = Usage::default();
            for digest in &needs {
                let alone = users.get(digest).is_some_and(|users| *users == 1);
                *if alone { &mut usage.own } else { &mut usage.shared } += size(digest);
            }
            (name, usage)
        });
        Ok(usage.collect())
    }

    /// Every blob of one version: its manifests, its layers, what is booted beside them, and the
    /// squashfs of its layers.
    pub(crate) fn needs(
        &self,
        index: &Index,
        found: &Descriptor,
    ) -> Result<BTreeSet<Digest>, Error> {
        let mut needs = BTreeSet::new();
        self.walk(&found.digest, true, 0, &mut needs)?;
        for beside in self.beside(index, found)? {
            self.walk(&beside.digest, true, 0, &mut needs)?;
        }
        Ok(needs)
    }

    /// Entries of the index that a version needs beside its own: what is booted, its squashfs.
    pub(crate) fn beside<'i>(
        &self,
        index: &'i Index,
        found: &Descriptor,
    ) -> Result<Vec<&'i Descriptor>, Error> {
        let Ok(digest) = found.digest.parse::<Digest>() else { return Ok(Vec::new()) };
        if !self.blob_path(&digest).exists() {
            return Ok(Vec::new());
        }
        let image: Manifest = self.document(&digest)?;
        let boot = image.annotations.get(oci::A_BOOT);
        let layers: BTreeSet<&str> = image.layers.iter().map(|layer| &layer.digest[..]).collect();
        let belongs = |entry: &&Descriptor| {
            let squashed = entry.get(oci::A_SQUASHFS_OF);
            Some(&entry.digest) == boot || squashed.is_some_and(|of| layers.contains(of))
        };
        Ok(index.manifests.iter().filter(belongs).collect())
    }

    /// Every blob that the index leads to. An error where that cannot be told: then nothing may be
    /// removed.
    pub(crate) fn reach(&self, index: &Index) -> Result<BTreeSet<Digest>, Error> {
        let mut reached = BTreeSet::new();
        for found in &index.manifests {
            self.walk(&found.digest, true, 0, &mut reached)?;
        }
        Ok(reached)
    }

    /// Follows a blob, and whatever it names if it is a manifest or a list of them.
    fn walk(
        &self,
        digest: &str,
        document: bool,
        depth: usize,
        reached: &mut BTreeSet<Digest>,
    ) -> Result<(), Error> {
        // Of another algorithm: not among our blobs.
        let Ok(digest) = digest.parse::<Digest>() else { return Ok(()) };
        if !reached.insert(digest) || !document || !self.blob_path(&digest).exists() {
            return Ok(());
        }
        if depth > DEPTH_MAX {
            let what = "lists in lists in lists: what they lead to is not known".to_owned();
            return Err(Error::Damaged { digest, what });
        }
        let found: Value = self.document(&digest)?;
        for (digest, document) in led_to(&found) {
            self.walk(digest, document, depth + 1, reached)?;
        }
        Ok(())
    }
}

/// Digests of all descriptors in a document, and whether each is of a document.
pub(crate) fn led_to(found: &Value) -> Vec<(&str, bool)> {
    let mut digests = Vec::new();
    let mut todo = vec![found];
    while let Some(value) = todo.pop() {
        match value {
            Value::Array(all) => todo.extend(all),
            Value::Object(all) => {
                if let Some(digest) = all.get("digest").and_then(Value::as_str) {
                    let kind = all.get("mediaType").and_then(Value::as_str).unwrap_or_default();
                    digests.push((digest, kind.contains("manifest") || kind.contains("index")));
                }
                todo.extend(all.values());
            }
            _ => {}
        }
    }
    digests
}
