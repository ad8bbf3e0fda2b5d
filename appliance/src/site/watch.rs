//! Says that the site has changed, a second after the last write. Folders are watched, not files: an
//! editor writes beside the file and renames, and a file may be gone for a while.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use notify::event::{AccessKind, AccessMode, EventKind, ModifyKind};
use notify::{Config, Event, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use super::load::Watched;

/// After the last sign of a change: an editor, a copy or a checkout is then done.
const QUIET: Duration = Duration::from_secs(1);
/// A folder that was removed and made again is found again this soon.
const LOOK: Duration = Duration::from_secs(5);

/// The site, or something that belongs to it, has changed, come or gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Changed;

/// Watches until it is dropped.
pub struct SiteWatcher {
    shared: Arc<Mutex<Shared>>,
    relevant: Arc<Mutex<Watched>>,
    task: JoinHandle<()>,
}

struct Shared {
    watcher: RecommendedWatcher,
    watched: Watched,
    /// The folders under watch, and which ones they were (device and inode).
    folders: BTreeMap<PathBuf, Option<(u64, u64)>>,
    /// What the files were when last told of, and at the last look.
    told: Vec<Stamp>,
    seen: Vec<Stamp>,
}

/// A file's device, inode, size and time of change; none if it is not there.
type Stamp = Option<(u64, u64, u64, i64, i64)>;

impl SiteWatcher {
    /// Begins to watch. The receiver yields once for every burst of changes. Needs a tokio runtime.
    /// What changed between reading the site and this call is not told: read it once more, or compare hashes.
    pub fn start(watched: &Watched) -> notify::Result<(SiteWatcher, mpsc::Receiver<Changed>)> {
        // The kernel's thread must never wait: one unread sign of change says all there is to say.
        let (raw, signs) = mpsc::channel(1);
        let relevant = Arc::new(Mutex::new(absolute(watched)));
        let filter = Arc::clone(&relevant);
        let handler = move |event: notify::Result<Event>| {
            let watched = filter.lock().unwrap_or_else(PoisonError::into_inner);
            if event.map_or(true, |event| matters(&event, &watched)) {
                let _ = raw.try_send(());
            }
        };
        let watcher = RecommendedWatcher::new(handler, Config::default())?;
        let (out, changes) = mpsc::channel(1);
        let mut shared = Shared {
            watcher,
            watched: watched.clone(),
            folders: BTreeMap::new(),
            told: Vec::new(),
            seen: Vec::new(),
        };
        shared.renew();
        shared.remember();
        let shared = Arc::new(Mutex::new(shared));
        let task = tokio::spawn(settle(Arc::clone(&shared), signs, out));
        Ok((SiteWatcher { shared, relevant, task }, changes))
    }

    /// After a reload: the includes may be others now.
    pub fn follow(&self, watched: &Watched) {
        *self.relevant.lock().unwrap_or_else(PoisonError::into_inner) = absolute(watched);
        let mut shared = lock(&self.shared);
        shared.watched = watched.clone();
        shared.renew();
        shared.remember();
    }
}

impl Drop for SiteWatcher {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn lock(shared: &Mutex<Shared>) -> std::sync::MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits for silence after a sign, then tells.
async fn settle(
    shared: Arc<Mutex<Shared>>,
    mut signs: mpsc::Receiver<()>,
    out: mpsc::Sender<Changed>,
) {
    let mut look = interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut quiet: Option<Instant> = None;
    loop {
        let until = quiet.unwrap_or_else(|| Instant::now() + LOOK);
        tokio::select! {
            sign = signs.recv() => match sign {
                Some(()) => quiet = Some(Instant::now() + QUIET),
                None => return,
            },
            _ = sleep_until(until), if quiet.is_some() => {
                quiet = None;
                lock(&shared).remember();
                // Full: a change is already waiting to be looked at, and it will be seen then.
                if let Err(mpsc::error::TrySendError::Closed(_)) = out.try_send(Changed) {
                    return;
                }
            }
            _ = look.tick() => {
                let mut shared = lock(&shared);
                if shared.renew() | shared.settled() {
                    quiet = Some(Instant::now() + QUIET);
                }
            }
        }
    }
}

impl Shared {
    fn stamps(&self) -> Vec<Stamp> {
        let stamp = |path: &PathBuf| {
            let meta = std::fs::metadata(path).ok()?;
            Some((meta.dev(), meta.ino(), meta.size(), meta.ctime(), meta.ctime_nsec()))
        };
        self.watched.files.iter().map(stamp).collect()
    }

    fn remember(&mut self) {
        self.told = self.stamps();
        self.seen.clone_from(&self.told);
    }

    /// What the kernel does not tell: a write on another host of an NFS, a link that leads elsewhere now.
    /// True when a file is not what it was, and has been so for a whole look.
    fn settled(&mut self) -> bool {
        let now = self.stamps();
        let settled = now != self.told && now == self.seen;
        self.seen = now;
        settled
    }

    /// Watches what is to be watched. True if a folder came, went or is another one now.
    fn renew(&mut self) -> bool {
        let wanted = &self.watched.folders;
        let gone: Vec<PathBuf> =
            self.folders.keys().filter(|folder| !wanted.contains(*folder)).cloned().collect();
        for folder in gone {
            let _ = self.watcher.unwatch(&folder);
            self.folders.remove(&folder);
        }
        let mut changed = false;
        for folder in wanted.clone() {
            let is = std::fs::metadata(&folder).ok().map(|meta| (meta.dev(), meta.ino()));
            let was = self.folders.get(&folder).copied();
            if was == Some(is) {
                continue;
            }
            if was.flatten().is_some() {
                let _ = self.watcher.unwatch(&folder);
            }
            let watching =
                is.is_some() && self.watcher.watch(&folder, RecursiveMode::NonRecursive).is_ok();
            self.folders.insert(folder, is.filter(|_| watching));
            changed |= was.is_some_and(|was| was.is_some() || watching);
        }
        changed
    }
}

/// Closed after writing, renamed, removed: never a write in its middle. A queue that ran over may have
/// held anything.
fn matters(event: &Event, watched: &Watched) -> bool {
    let kind = match event.kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
        EventKind::Modify(ModifyKind::Name(_)) | EventKind::Remove(_) => true,
        // A symbolic or hard link is never written to; a folder may be filled before it is watched.
        EventKind::Create(_) => event.paths.iter().any(|path| path.is_symlink() || path.is_dir()),
        _ => false,
    };
    event.need_rescan() || kind && event.paths.iter().any(|path| watched.concerns(&plain(path)))
}

/// Without the `./` that a relative folder brings.
fn plain(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf())
}

fn absolute(watched: &Watched) -> Watched {
    let globs = watched.globs.iter().map(|pattern| {
        let absolute = plain(Path::new(pattern));
        absolute.to_string_lossy().into_owned()
    });
    Watched {
        files: watched.files.iter().map(|path| plain(path)).collect(),
        folders: watched.folders.clone(),
        globs: globs.collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::site::load::gather;
    use std::fs;
    use tokio::time::timeout;

    const PATIENCE: Duration = Duration::from_secs(20);

    async fn told(changes: &mut mpsc::Receiver<Changed>) -> bool {
        timeout(PATIENCE, changes.recv()).await.ok().flatten().is_some()
    }

    async fn silent(changes: &mut mpsc::Receiver<Changed>) -> bool {
        timeout(QUIET * 2, changes.recv()).await.is_err()
    }

    #[tokio::test]
    async fn every_way_to_save_a_file_is_seen_once() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("site.toml");
        fs::create_dir(dir.path().join("machines.d")).unwrap();
        fs::write(&file, "[site]\ninclude = \"machines.d/*.toml\"\n").unwrap();
        let watched = gather(&file).watched;
        let (watcher, mut changes) = SiteWatcher::start(&watched).unwrap();

        fs::write(&file, "[site]\ninclude = \"machines.d/*.toml\"\n# written\n").unwrap();
        fs::write(&file, "[site]\ninclude = \"machines.d/*.toml\"\n# twice\n").unwrap();
        assert!(told(&mut changes).await, "written in place");
        assert!(silent(&mut changes).await, "and said once");

        fs::write(dir.path().join(".site.toml.swp"), "x").unwrap();
        fs::write(dir.path().join("notes.txt"), "x").unwrap();
        assert!(silent(&mut changes).await, "other files are nobody's business");

        fs::rename(dir.path().join(".site.toml.swp"), &file).unwrap();
        assert!(told(&mut changes).await, "renamed over");

        fs::remove_file(&file).unwrap();
        assert!(told(&mut changes).await, "removed");
        fs::write(&file, "# again").unwrap();
        assert!(told(&mut changes).await, "made again");

        fs::write(dir.path().join("machines.d/new.toml"), "").unwrap();
        assert!(told(&mut changes).await, "a new file that an include finds");

        fs::write(&file, "[site]\ninclude = \"other.d/*.toml\"\n").unwrap();
        assert!(told(&mut changes).await);
        fs::create_dir(dir.path().join("other.d")).unwrap();
        watcher.follow(&gather(&file).watched);
        fs::write(dir.path().join("other.d/new.toml"), "").unwrap();
        assert!(told(&mut changes).await, "another include is followed");
    }

    #[tokio::test]
    async fn a_link_that_leads_elsewhere_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let of = |name: &str| dir.path().join(name);
        for name in ["one", "two"] {
            fs::create_dir(of(name)).unwrap();
            fs::write(of(name).join("site.toml"), name).unwrap();
        }
        std::os::unix::fs::symlink("one", of("now")).unwrap();
        std::os::unix::fs::symlink("now/site.toml", of("site.toml")).unwrap();
        let watched = gather(&of("site.toml")).watched;
        let (_watcher, mut changes) = SiteWatcher::start(&watched).unwrap();
        std::os::unix::fs::symlink("two", of("next")).unwrap();
        fs::rename(of("next"), of("now")).unwrap();
        assert!(told(&mut changes).await);
    }

    #[tokio::test]
    async fn a_folder_that_was_replaced_is_watched_again() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("etc");
        fs::create_dir(&inner).unwrap();
        let file = inner.join("site.toml");
        fs::write(&file, "").unwrap();
        let (_watcher, mut changes) = SiteWatcher::start(&gather(&file).watched).unwrap();
        fs::rename(&inner, dir.path().join("old")).unwrap();
        fs::create_dir(&inner).unwrap();
        fs::write(&file, "# new folder").unwrap();
        assert!(told(&mut changes).await, "the new folder is found");
        while !silent(&mut changes).await {}
        fs::write(&file, "# and watched").unwrap();
        assert!(told(&mut changes).await, "and watched");
    }
}
