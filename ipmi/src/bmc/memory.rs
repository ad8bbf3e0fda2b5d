//! What is kept from one run to the next, in two files of a folder, neither of which holds a secret:
//! * `bmc-learned.json`: what was found out about each BMC;
//! * `bmc-sessions.json`: the sessions that are open, and when this was last true. A process that was killed
//!   leaves them to the BMC, which keeps each for a minute and then takes down with it whatever was
//!   activated; so the next run closes its own first ([`super::orphan`]).

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::locked;
use crate::session::Learned;

/// BMCs end sessions after 60 s without traffic, a few after three minutes.
pub(super) const FORGOTTEN: Duration = Duration::from_secs(240);
/// How often the sessions' file says that they are still open.
const HEARTBEAT: Duration = Duration::from_secs(30);
/// What comes in so short a time is written at once.
const GATHER: Duration = Duration::from_millis(20);

/// A session that was open when the process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Orphan {
    /// The BMC's id for it.
    pub managed: u32,
    /// The UDP port that it was opened from.
    pub port: u16,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Sessions {
    /// Seconds since 1970.
    written: u64,
    open: BTreeMap<String, Orphan>,
}

/// The two files, as they are now.
pub(super) struct Memory {
    folder: PathBuf,
    state: Mutex<State>,
    changed: Arc<Notify>,
    keeper: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Default)]
struct State {
    learned: BTreeMap<String, Learned>,
    open: BTreeMap<String, Orphan>,
    orphans: BTreeMap<String, Orphan>,
    /// From then on every BMC has ended them, and may have given their ids to others.
    orphans_until: Option<Instant>,
    /// Something of the learned was changed since it was written.
    learned_changed: bool,
    sessions_changed: bool,
    /// The last write failed.
    failing: bool,
}

impl State {
    fn forget_orphans(&mut self) {
        if self.orphans_until.is_none_or(|until| Instant::now() >= until) {
            self.orphans.clear();
        }
    }
}

impl Memory {
    /// From a folder, which is made if it is not there. A file that cannot be read is set aside: it holds
    /// nothing that would not be found out again.
    pub fn open(folder: &Path) -> io::Result<Arc<Memory>> {
        fs::create_dir_all(folder)?;
        let learned = read(&folder.join("bmc-learned.json"))?.unwrap_or_default();
        let sessions: Sessions = read(&folder.join("bmc-sessions.json"))?.unwrap_or_default();
        let age = now().saturating_sub(sessions.written);
        let orphans = match Duration::from_secs(age) < FORGOTTEN {
            true => sessions.open,
            false => BTreeMap::new(),
        };
        let left = FORGOTTEN.saturating_sub(Duration::from_secs(age));
        let orphans_until = Some(Instant::now() + left);
        let state = State { learned, orphans, orphans_until, ..State::default() };
        let folder = folder.to_path_buf();
        let (changed, keeper) = (Arc::default(), Mutex::default());
        Ok(Arc::new(Memory { folder, state: Mutex::new(state), changed, keeper }))
    }

    /// Sees to it that what changes is written. To be called within a runtime.
    pub fn keep(self: &Arc<Memory>) {
        let mut keeper = locked(&self.keeper);
        if keeper.as_ref().is_none_or(JoinHandle::is_finished) {
            let changed = Arc::clone(&self.changed);
            *keeper = Some(tokio::spawn(keep(Arc::downgrade(self), changed)));
        }
    }

    pub fn learned(&self, bmc: &str) -> Learned {
        locked(&self.state).learned.get(bmc).cloned().unwrap_or_default()
    }

    pub fn learn(&self, bmc: &str, learned: &Learned) {
        let mut state = locked(&self.state);
        match *learned == Learned::default() {
            true => state.learned.remove(bmc),
            false => state.learned.insert(bmc.to_string(), learned.clone()),
        };
        state.learned_changed = true;
        drop(state);
        self.changed.notify_one();
    }

    /// The session of the run before, asked for once.
    pub fn orphan(&self, bmc: &str) -> Option<Orphan> {
        let mut state = locked(&self.state);
        state.forget_orphans();
        state.orphans.remove(bmc)
    }

    /// It could not be closed yet.
    pub fn keep_orphan(&self, bmc: &str, orphan: Orphan) {
        locked(&self.state).orphans.insert(bmc.to_string(), orphan);
    }

    pub fn opened(&self, bmc: &str, session: Orphan) {
        let mut state = locked(&self.state);
        state.open.insert(bmc.to_string(), session);
        state.sessions_changed = true;
        drop(state);
        self.changed.notify_one();
    }

    pub fn closed(&self, bmc: &str) {
        let mut state = locked(&self.state);
        if state.open.remove(bmc).is_some() {
            state.sessions_changed = true;
            drop(state);
            self.changed.notify_one();
        }
    }

    /// Writes what has changed, or what must be said again.
    fn write(&self, heartbeat: bool) {
        let (learned, sessions) = {
            let mut state = locked(&self.state);
            let heartbeat = heartbeat || state.failing;
            let learned = state.learned_changed.then(|| serde_json::to_vec_pretty(&state.learned));
            let beats = heartbeat && !state.open.is_empty();
            let sessions = (state.sessions_changed || beats).then(|| {
                // Orphans nobody has asked for yet are the next run's too, as long as they may live.
                state.forget_orphans();
                let mut open = state.orphans.clone();
                open.extend(state.open.iter().map(|(bmc, session)| (bmc.clone(), *session)));
                serde_json::to_vec_pretty(&Sessions { written: now(), open })
            });
            (state.learned_changed, state.sessions_changed) = (false, false);
            (learned, sessions)
        };
        let write = |name: &str, text: Option<serde_json::Result<Vec<u8>>>| match text {
            Some(Ok(text)) => replace(&self.folder.join(name), &text),
            _ => Ok(()),
        };
        let learned = write("bmc-learned.json", learned);
        let sessions = write("bmc-sessions.json", sessions);
        // With the next heartbeat again: the disk may be full.
        let mut state = locked(&self.state);
        state.learned_changed |= learned.is_err();
        state.sessions_changed |= sessions.is_err();
        let error = learned.and(sessions).err();
        if let Some(error) = error.as_ref().filter(|_| !state.failing) {
            tracing::warn!(folder = %self.folder.display(), %error, "what is known of BMCs is not written");
        }
        state.failing = error.is_some();
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.write(false);
        if let Some(keeper) = locked(&self.keeper).take() {
            keeper.abort();
        }
    }
}

/// Until nobody else has it: the last to let go of it writes what is left.
async fn keep(memory: Weak<Memory>, changed: Arc<Notify>) {
    loop {
        let heartbeat = tokio::time::timeout(HEARTBEAT, changed.notified()).await.is_err();
        tokio::time::sleep(GATHER).await;
        let Some(memory) = memory.upgrade() else { return };
        if tokio::task::spawn_blocking(move || memory.write(heartbeat)).await.is_err() {
            return;
        }
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn read<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    match serde_json::from_slice(&text) {
        Ok(value) => Ok(Some(value)),
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "set aside");
            fs::rename(path, path.with_extension("broken"))?;
            Ok(None)
        }
    }
}

/// Whole or not at all, over a power cut too.
fn replace(path: &Path, text: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = fs::File::create(&new)?;
    file.write_all(text)?;
    file.sync_all()?;
    fs::rename(new, path)?;
    fs::File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn from_one_run_to_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let memory = Memory::open(folder.path()).unwrap();
        let learned = Learned { suite: Some(17), ..Learned::default() };
        let session = Orphan { managed: 7, port: 9 };
        memory.learn("10.78.0.1:623", &learned);
        memory.opened("10.78.0.1:623", session);
        memory.opened("10.78.0.2:623", session);
        memory.closed("10.78.0.2:623");
        drop(memory);
        let memory = Memory::open(folder.path()).unwrap();
        assert_eq!(memory.learned("10.78.0.1:623"), learned);
        assert_eq!(memory.orphan("10.78.0.1:623"), Some(session));
        assert_eq!(memory.orphan("10.78.0.1:623"), None);
        assert_eq!(memory.orphan("10.78.0.2:623"), None);
        memory.learn("10.78.0.1:623", &Learned::default());
        drop(memory);
        assert_eq!(Memory::open(folder.path()).unwrap().learned("10.78.0.1:623").suite, None);
    }

    #[test]
    fn old_orphans_are_not_dug_up_and_broken_files_are_set_aside() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bmc-sessions.json");
        let open = r#"{"written": 1, "open": {"10.78.0.1:623": {"managed": 7, "port": 9}}}"#;
        fs::write(&path, open).unwrap();
        fs::write(folder.path().join("bmc-learned.json"), "{\"half").unwrap();
        let memory = Memory::open(folder.path()).unwrap();
        assert_eq!(memory.orphan("10.78.0.1:623"), None);
        assert!(folder.path().join("bmc-learned.broken").exists());
    }
}
