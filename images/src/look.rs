//! A version's root read back from its layers, for those who compare, search or build on it.

use std::collections::BTreeMap;
use std::fs::File;

use crate::content::Span;
use crate::diff::{self, Diff};
use crate::import::Progress;
use crate::oci::Manifest;
use crate::source::{self, Limits, Reading, Spool};
use crate::staging::Staging;
use crate::store::Store;
use crate::tree::Tree;
use crate::version::Version;
use crate::{Digest, Error};

impl Store {
    /// How one version's root differs from another's.
    pub fn diff(
        &self,
        old: &Version,
        new: &Version,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Diff, Error> {
        let staging = Staging::begin(self)?;
        let mut reading = Reading {
            spool: Spool::new(staging.dir()),
            limits: Limits::default(),
            warnings: Vec::new(),
            progress,
        };
        let mut plain = BTreeMap::new();
        let old = self.layered(old, &mut reading, &mut plain)?;
        let new = self.layered(new, &mut reading, &mut plain)?;
        diff::compare(&old, &new).map_err(Error::io("reading layers in", staging.dir()))
    }

    /// The root as its layers make it, those included that no machine fetches. The contents of its files
    /// lie in unnamed files of the reading's spool.
    #[allow(dead_code, reason = "its readers come with it")]
    pub(crate) fn tree(&self, version: &Version, reading: &mut Reading<'_>) -> Result<Tree, Error> {
        self.layered(version, reading, &mut BTreeMap::new())
    }

    /// The same; a layer that is unpacked already is not unpacked again.
    fn layered(
        &self,
        version: &Version,
        reading: &mut Reading<'_>,
        plain: &mut BTreeMap<Digest, Span>,
    ) -> Result<Tree, Error> {
        let image: Manifest = self.document(&version.digest)?;
        let mut tree = Tree::new(reading.limits);
        for layer in &image.layers {
            let what = |what: String| Error::Damaged { digest: version.digest, what };
            let digest: Digest = layer.digest.parse().map_err(|bad| what(format!("{bad}")))?;
            let path = self.blob_path(&digest);
            let fault = Error::source(&path);
            let unpacked = match plain.get(&digest) {
                Some(unpacked) => unpacked.clone(),
                None => {
                    let packed = File::open(&path).and_then(Span::whole);
                    let packed = packed.map_err(Error::io("reading", &path))?;
                    let limits = reading.limits;
                    let unpacked = reading.spool.plain(&packed, &limits, reading.progress);
                    plain.entry(digest).or_insert(unpacked.map_err(&fault)?).clone()
                }
            };
            source::apply(&mut tree, &unpacked, reading).map_err(&fault)?;
        }
        Ok(tree)
    }
}
