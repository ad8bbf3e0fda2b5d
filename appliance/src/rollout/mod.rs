//! How a version of an image comes to machines, and how it is taken back: trials on single machines, machines
//! that fall back by themselves, versions for one machine alone.
//!
//! `course` remembers how machines do with versions, `books` chooses one for a machine, `verdict` says what
//! becomes of versions. None of them knows a clock, a file or a socket. The ledger tells the books what it
//! hears, plans ask them, and `watch` carries their verdicts out.

pub mod books;
pub mod course;
pub mod verdict;
pub mod watch;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use koboshi_images::Track;
use koboshi_pxe::BootId;
use koboshi_pxe::boots::Stage;

use crate::site::Site;
use crate::store::BootRecord;

pub use books::{Because, Books, Choice, Told};
pub use course::Course;
pub use verdict::{Does, Verdict, What};

use course::Live;

/// The books, as all of the appliance has them.
#[derive(Debug, Default)]
pub struct Rollout(Mutex<Books>);

impl Rollout {
    /// As they were kept, with the boots that were under way when the appliance ended.
    pub fn restored(courses: HashMap<String, Course>, boots: &[BootRecord]) -> Rollout {
        let now = Instant::now();
        let mut books = Books::remembering(courses);
        let mut newest: Vec<&BootRecord> = boots.iter().collect();
        newest.sort_by_key(|boot| boot.order());
        for boot in newest {
            books.live.insert(boot.machine.clone(), Live::restored(boot, now));
        }
        Rollout(Mutex::new(books))
    }

    /// What the image store and the site say now.
    pub fn read(&self, tracks: BTreeMap<String, Track>, site: &Site) -> Vec<Told> {
        let limits = site.roles.iter().map(|(name, role)| (name.to_string(), role.failures));
        self.books().read(tracks, limits.collect())
    }

    /// Which version of an image a machine boots, and why. None: the image has none to boot.
    pub fn choose(&self, image: &str, machine: &str, role: &str) -> Option<Choice> {
        self.books().choose(image, machine, role)
    }

    /// What is to be said of a machine that boots this image: that its version is another one than that of
    /// all, and why; how it does in a trial.
    pub fn note(&self, image: &str, machine: &str, role: &str) -> Option<String> {
        let books = self.books();
        let choice = books.choose(image, machine, role)?;
        let Some(says) = choice.differs(image) else {
            return books.failed_here(image, machine, choice.version);
        };
        let does = books.does(image, Instant::now());
        let does = does.into_iter().find(|(on_trial, _)| on_trial == machine);
        Some(does.map_or(says.clone(), |(_, does)| format!("{says}: it {}", does.says())))
    }

    /// How each machine does in the trial of an image, if there is one.
    pub fn does(&self, image: &str) -> Vec<(String, Does)> {
        self.books().does(image, Instant::now())
    }

    /// What is said of an image.
    pub fn track(&self, image: &str) -> Option<Track> {
        self.books().track(image).cloned()
    }

    /// What becomes of versions now.
    pub fn judge(&self) -> Vec<Verdict> {
        self.books().judge(Instant::now())
    }

    /// A boot begins.
    pub fn opened(&self, boot: &BootRecord) -> Vec<Told> {
        let plan = course::promised(boot);
        let promised = (plan.map(|plan| &*plan.image), plan.map_or("", |plan| &*plan.role));
        self.books().opened(&boot.machine, boot.id, promised, boot.opened, Instant::now())
    }

    /// A boot is as far as this.
    pub fn reached(
        &self,
        machine: &str,
        boot: BootId,
        stage: Stage,
        note: &str,
        at: u64,
    ) -> Vec<Told> {
        let mut books = self.books();
        if course::is_typed(note) {
            books.ordered(machine);
        }
        books.reached(machine, boot, (stage, note), at, Instant::now())
    }

    /// A heartbeat.
    pub fn heard(&self, machine: &str, boot: BootId) {
        self.books().heard(machine, boot, Instant::now());
    }

    /// Somebody here switches the machine, or starts it anew: what ends by that is no failure.
    pub fn ordered(&self, machine: &str) {
        self.books().ordered(machine);
    }

    /// A stranger that is forgotten.
    pub fn gone(&self, machine: &str) {
        self.books().gone(machine);
    }

    /// Lets a machine try again what failed on it. Returns what is to be kept; nothing if nothing had.
    pub fn forget(&self, image: &str, machine: &str) -> Option<Told> {
        self.books().forget(image, machine)
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
