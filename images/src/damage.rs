//! Versions that cannot be read any more: a disk lost bytes of what says what they are. Others are read, listed and
//! booted as before; what such a one needs nobody can tell, so nothing is collected beside it.

use std::fmt;

use serde::Serialize;

use crate::Error;
use crate::oci::{Descriptor, Index};
use crate::store::Store;
use crate::version::{Version, identity};

/// A version whose manifest, or what it boots, is damaged or missing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Damaged {
    /// Image name.
    pub name: String,
    /// Its version.
    pub version: u32,
    /// What is wrong with it.
    pub damaged: String,
}

impl fmt::Display for Damaged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Damaged { name, version, damaged } = self;
        write!(
            f,
            "{name}@{version} cannot be read: {damaged}. The same content imported, built or pulled once more makes \
             it whole; `koboshi image rm {name}@{version}` lets go of it"
        )
    }
}

impl Store {
    /// Every version of every image that can be read, by name and number, and every other one.
    pub fn listed(&self) -> Result<(Vec<Version>, Vec<Damaged>), Error> {
        let index = self.index()?;
        let mut found: Vec<(&str, u32, &Descriptor)> = index
            .manifests
            .iter()
            .filter_map(|found| identity(found).map(|(name, version)| (name, version, found)))
            .collect();
        found.sort_by_key(|(name, version, _)| (*name, *version));
        let (mut whole, mut broken) = (Vec::new(), Vec::new());
        for (name, version, found) in found {
            match self.version(&index, found) {
                Ok(version) => whole.push(version),
                Err(error @ Error::Damaged { .. }) => {
                    let (name, damaged) = (name.to_owned(), error.to_string());
                    broken.push(Damaged { name, version, damaged });
                }
                Err(error) => return Err(error),
            }
        }
        Ok((whole, broken))
    }

    /// Every version of every image that can be read, by name and number.
    pub fn list(&self) -> Result<Vec<Version>, Error> {
        Ok(self.listed()?.0)
    }

    /// Why nothing can be said of what an index needs; empty where all of it can be read.
    pub(crate) fn doubts(&self, index: &Index) -> Result<Vec<String>, Error> {
        let mut doubts: Vec<String> = self.listed()?.1.iter().map(ToString::to_string).collect();
        if doubts.is_empty() {
            match self.reach(index) {
                Err(error @ Error::Damaged { .. }) => doubts.push(error.to_string()),
                reached => drop(reached?),
            }
        }
        Ok(doubts)
    }
}
