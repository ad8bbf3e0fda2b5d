//! A version's root read back from its layers, for those who compare, search or build on it.

use std::fs::File;

use crate::content::Span;
use crate::oci::Manifest;
use crate::source::{self, Reading};
use crate::store::Store;
use crate::tree::Tree;
use crate::version::Version;
use crate::{Digest, Error};

impl Store {
    /// The root as its layers make it, those included that no machine fetches. The contents of its files
    /// lie in unnamed files of the reading's spool.
    #[allow(dead_code, reason = "its readers come with it")]
    pub(crate) fn tree(&self, version: &Version, reading: &mut Reading<'_>) -> Result<Tree, Error> {
        let image: Manifest = self.document(&version.digest)?;
        let mut tree = Tree::new(reading.limits);
        for layer in &image.layers {
            let what = |what: String| Error::Damaged { digest: version.digest, what };
            let digest: Digest = layer.digest.parse().map_err(|bad| what(format!("{bad}")))?;
            let path = self.blob_path(&digest);
            let packed = File::open(&path).and_then(Span::whole);
            let packed = packed.map_err(Error::io("reading", &path))?;
            source::apply(&mut tree, &packed, reading).map_err(Error::source(&path))?;
        }
        Ok(tree)
    }
}
