//! What this appliance needs of the image store, told to whoever removes versions: `holds.json` beside
//! the images' index. Written before it is relied on, and after that when it changes.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use koboshi_images::{Digest, Error, Holds, MachineHold, RoleHold, Store as Images};
use koboshi_pxe::Mac;
use koboshi_pxe::boots::Stage;

use crate::store::BootRecord;

/// What nobody needs any more stays so long: a boot may have begun in between that the ledger has not heard
/// of yet, and after a restart the last process's boots count until they are known.
const GRACE: Duration = Duration::from_secs(15);
/// A machine that was not heard of for so long does not live. Heartbeats come every 20 seconds.
const SILENT_MS: u64 = 24 * 3600 * 1000;

/// Keeps the file.
#[derive(Debug)]
pub struct Keeper {
    images: Images,
    inner: Mutex<Needs>,
}

impl Keeper {
    /// Over what the last process left there.
    pub fn new(images: Images) -> Keeper {
        let left = images.holds().unwrap_or_else(|error| {
            tracing::warn!("{error}");
            Holds::default()
        });
        Keeper { images, inner: Mutex::new(Needs::after(left, Instant::now())) }
    }

    /// Images that roles boot from now on. They are held when this returns; what was removed before is
    /// gone, so whoever calls looks again.
    ///
    /// # Errors
    /// The store could not be written.
    pub fn roles(&self, roles: BTreeSet<RoleHold>) -> Result<(), Error> {
        let mut needs = self.needs();
        needs.roles_now = roles;
        self.write(&mut needs)
    }

    /// What machines boot and run now.
    ///
    /// # Errors
    /// The store could not be written; said once, until it can be again.
    pub fn boots(
        &self,
        machines: BTreeSet<MachineHold>,
        blobs: BTreeSet<Digest>,
    ) -> Result<(), Error> {
        let mut needs = self.needs();
        (needs.machines_now, needs.blobs_now) = (machines, blobs);
        let written = self.write(&mut needs);
        let known = std::mem::replace(&mut needs.failed, written.is_err());
        if known { Ok(()) } else { written }
    }

    fn write(&self, needs: &mut Needs) -> Result<(), Error> {
        let Some(holds) = needs.changed(Instant::now()) else { return Ok(()) };
        let written = Some(jiff::Timestamp::now());
        self.images.hold(&Holds { written, ..holds.clone() })?;
        needs.written = Some(holds);
        Ok(())
    }

    fn needs(&self) -> MutexGuard<'_, Needs> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is needed, and what was until a moment ago.
#[derive(Debug, Default)]
struct Needs {
    roles_now: BTreeSet<RoleHold>,
    machines_now: BTreeSet<MachineHold>,
    blobs_now: BTreeSet<Digest>,
    roles: BTreeMap<RoleHold, Instant>,
    machines: BTreeMap<MachineHold, Instant>,
    blobs: BTreeMap<Digest, Instant>,
    /// As it is in the file, but for the time.
    written: Option<Holds>,
    /// It could not be written the last time.
    failed: bool,
}

impl Needs {
    fn after(left: Holds, now: Instant) -> Needs {
        Needs {
            roles: left.roles.into_iter().map(|role| (role, now)).collect(),
            machines: left.machines.into_iter().map(|machine| (machine, now)).collect(),
            blobs: left.blobs.into_iter().map(|blob| (blob, now)).collect(),
            ..Needs::default()
        }
    }

    /// What is to be written, if it is another than what is there.
    fn changed(&mut self, now: Instant) -> Option<Holds> {
        let holds = Holds {
            written: None,
            roles: recent(&mut self.roles, &self.roles_now, now),
            machines: recent(&mut self.machines, &self.machines_now, now),
            blobs: recent(&mut self.blobs, &self.blobs_now, now),
        };
        (self.written.as_ref() != Some(&holds)).then_some(holds)
    }
}

fn recent<T: Ord + Clone>(
    seen: &mut BTreeMap<T, Instant>,
    needed: &BTreeSet<T>,
    now: Instant,
) -> BTreeSet<T> {
    for one in needed {
        match seen.get_mut(one) {
            Some(at) => *at = now,
            None => drop(seen.insert(one.clone(), now)),
        }
    }
    seen.retain(|_, at| now.saturating_duration_since(*at) < GRACE);
    seen.keys().cloned().collect()
}

/// What the boots that are known need. `started`: when anybody could be heard first, Unix milliseconds.
pub fn of_boots(
    boots: &HashMap<Mac, BootRecord>,
    heard: &HashMap<Mac, u64>,
    started: u64,
    now: u64,
) -> (BTreeSet<MachineHold>, BTreeSet<Digest>) {
    let (mut machines, mut blobs) = (BTreeSet::new(), BTreeSet::new());
    for boot in boots.values() {
        let Some(plan) = &boot.plan else { continue };
        let last = heard.get(&boot.mac).copied().unwrap_or(boot.opened);
        let silent = now.saturating_sub(last.max(started)) > SILENT_MS;
        if boot.over || boot.stage == Stage::Down || boot.is_off(last) || silent {
            continue;
        }
        let runs = matches!(boot.stage, Stage::Switching | Stage::Up);
        machines.insert(MachineHold {
            machine: boot.machine.clone(),
            image: plan.image.clone(),
            runs,
        });
        if !runs {
            // Its own segments are not in the store, and do no harm here.
            blobs.extend(plan.parts().map(|part| Digest(part.sha256)));
        }
    }
    (machines, blobs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn role(image: &str) -> BTreeSet<RoleHold> {
        BTreeSet::from([RoleHold { role: "web".to_string(), image: image.to_string() }])
    }

    #[test]
    fn what_is_needed_is_written_at_once_and_let_go_of_late() {
        let begun = Instant::now();
        let mut needs = Needs::after(Holds { roles: role("web@1"), ..Holds::default() }, begun);
        needs.roles_now = role("web@2");
        let both = role("web@1").into_iter().chain(role("web@2")).collect();
        let holds = needs.changed(begun).expect("another role");
        assert_eq!(holds.roles, both);
        needs.written = Some(holds);
        assert_eq!(needs.changed(begun + GRACE / 2), None);
        let holds = needs.changed(begun + GRACE).expect("one is let go of");
        assert_eq!(holds.roles, role("web@2"));
        needs.written = Some(holds);
        assert_eq!(needs.changed(begun + 10 * GRACE), None, "what is needed does not age");
    }
}
