//! Versions that single machines boot while the others boot the current one: on trial, pinned, or fallen back
//! to. Each is made ready for every role of its image, so that a plan has it at hand.

use std::collections::BTreeMap;
use std::sync::Arc;

use koboshi_images::{Store as Images, Track};

use super::Ready;
use crate::rollout::{Because, Rollout};
use crate::roots;
use crate::site::{Role, RoleName, Site};

/// See the module.
pub struct Versions {
    ready: BTreeMap<(RoleName, u32), Result<Ready, String>>,
    rollout: Arc<Rollout>,
}

impl Versions {
    /// Reads what may be booted by the side of what all boot.
    pub fn read(
        site: &Site,
        images: &Images,
        tracks: &BTreeMap<String, Track>,
        rollout: Arc<Rollout>,
    ) -> Versions {
        let mut ready = BTreeMap::new();
        for (name, role) in &site.roles {
            // A version that the site file names is what its machines boot.
            let image = &role.image.value;
            let track = tracks.get(&image.name).filter(|_| image.version.is_none());
            for version in track.map(Track::others).unwrap_or_default() {
                let reference = format!("{}@{version}", image.name);
                ready.insert((name.clone(), version), roots::ready_as(images, role, &reference));
            }
        }
        Versions { ready, rollout }
    }

    /// Why a machine boots a version of its own in a role, and that version, where it is not the current one
    /// all the same. None: it boots what all boot.
    pub fn of(
        &self,
        (name, role): (&RoleName, &Role),
        current: Option<u32>,
        machine: &str,
    ) -> Option<(Option<Result<&Ready, String>>, String)> {
        let image = &role.image.value;
        if image.version.is_some() {
            return None;
        }
        let choice = self.rollout.choose(&image.name, machine, name.as_str())?;
        let because = choice.differs(&image.name)?;
        if current == Some(choice.version) {
            return Some((None, because));
        }
        match self.ready.get(&(name.clone(), choice.version)) {
            Some(Ok(ready)) => Some((Some(Ok(ready)), because)),
            // Better what has failed here than nothing.
            _ if matches!(choice.because, Because::FellBack { .. }) => None,
            Some(Err(why)) => Some((Some(Err(why.clone())), because)),
            None => {
                let why = format!("{because}, and that is being read still");
                Some((Some(Err(why)), because))
            }
        }
    }
}
