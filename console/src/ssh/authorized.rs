//! The file of keys as it is now: read again as soon as it changed, as sshd does.

use std::fs;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::fs::OFlags;
use tokio::time::timeout;

use super::keys::Keys;
use crate::line::locked;

/// A file of more bytes is a mistake.
const LARGEST: u64 = 4 << 20;
/// A folder on a network may hang.
const PATIENCE: Duration = Duration::from_secs(5);

/// See the module.
#[derive(Debug, Default)]
pub struct Authorized {
    state: Mutex<State>,
    /// Held by who looks: a folder that hangs holds up one thread, and nobody else.
    looks: Mutex<()>,
    keys: Mutex<Arc<Keys>>,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct State {
    path: Option<PathBuf>,
    found: Option<Stamp>,
    /// Why nobody can log in, in words.
    why: Option<String>,
}

/// What changes with a file.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Stamp {
    Missing,
    File { inode: u64, size: u64, modified: (i64, i64), changed: (i64, i64), mode: u32 },
}

impl Authorized {
    /// It is this file from now on. None: nobody can log in.
    pub fn follow(&self, path: Option<PathBuf>) {
        let mut state = locked(&self.state);
        if state.path != path {
            *state = State { path, ..State::default() };
        }
    }

    /// The keys as they are known, without a look at the file.
    pub fn keys(&self) -> Arc<Keys> {
        locked(&self.keys).clone()
    }

    /// The file, and why nobody can log in by it, if so.
    pub fn told(&self) -> (Option<PathBuf>, Option<String>) {
        let state = locked(&self.state);
        (state.path.clone(), state.why.clone())
    }

    /// The keys as they are now; and where the file changed, what people should read of it.
    pub(super) async fn look(self: &Arc<Authorized>) -> (Arc<Keys>, Vec<String>) {
        let look = self.clone();
        let looked = tokio::task::spawn_blocking(move || look.look_now());
        let news = match timeout(PATIENCE, looked).await {
            Ok(Ok(news)) => news,
            // Whoever was let in before the folder hung still is.
            Ok(Err(_)) | Err(_) => Vec::new(),
        };
        (self.keys(), news)
    }

    fn look_now(&self) -> Vec<String> {
        let Ok(_one_at_a_time) = self.looks.try_lock() else { return Vec::new() };
        let (path, known) = {
            let state = locked(&self.state);
            (state.path.clone(), state.found.clone())
        };
        let Some(path) = path else {
            let why = "the site names no file of keys ([console] authorized-keys)";
            locked(&self.state).why = Some(why.to_string());
            *locked(&self.keys) = Arc::default();
            return Vec::new();
        };
        let found = stamp(&path);
        if known == found && found.is_some() {
            return Vec::new();
        }
        let (keys, why) = match read(&path) {
            Ok(text) => {
                let keys = Keys::parse(&text);
                let none = keys.is_empty().then(|| format!("{} has no keys", path.display()));
                (keys, none)
            }
            Err(why) => (Keys::default(), Some(why)),
        };
        let of_lines = keys.refused.iter().take(16);
        let mut news: Vec<String> =
            of_lines.map(|one| format!("{}, {one}", path.display())).collect();
        if let Some(more) = keys.refused.len().checked_sub(16).filter(|more| *more > 0) {
            news.push(format!("{}: {more} more lines are refused", path.display()));
        }
        let mut state = locked(&self.state);
        if state.path.as_ref() != Some(&path) {
            return Vec::new();
        }
        state.found = found;
        if why != state.why {
            news.extend(why.as_ref().map(|why| format!("nobody can log in by SSH: {why}")));
        }
        state.why = why;
        *locked(&self.keys) = Arc::new(keys);
        news
    }
}

fn stamp(path: &Path) -> Option<Stamp> {
    match fs::metadata(path) {
        Ok(meta) => Some(Stamp::File {
            inode: meta.ino(),
            size: meta.size(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
            mode: meta.mode(),
        }),
        Err(why) if why.kind() == ErrorKind::NotFound => Some(Stamp::Missing),
        Err(_) => None,
    }
}

fn read(path: &Path) -> Result<String, String> {
    let wrong = |why: &dyn std::fmt::Display| format!("{}: {why}", path.display());
    // A pipe would wait for somebody who writes.
    let nonblocking = OFlags::NONBLOCK.bits().cast_signed();
    let file = fs::File::options().read(true).custom_flags(nonblocking).open(path);
    let file = file.map_err(|why| wrong(&why))?;
    let meta = file.metadata().map_err(|why| wrong(&why))?;
    if !meta.is_file() {
        return Err(wrong(&"it is no file"));
    }
    if meta.mode() & 0o002 != 0 {
        return Err(wrong(&"everybody can write it, and let himself in: chmod o-w"));
    }
    let mut bytes = Vec::new();
    file.take(LARGEST + 1).read_to_end(&mut bytes).map_err(|why| wrong(&why))?;
    if bytes.len() as u64 > LARGEST {
        return Err(wrong(&"it is larger than 4 MiB"));
    }
    // A comment may be in any character set.
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const ED: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJf0Yt5bGfPzvT5Q5pNqBfQ4sX0bE5mQ8m0q0rJ6yPpK";

    #[tokio::test]
    async fn it_is_read_again_when_it_changed_and_what_is_wrong_is_told_once() {
        let dir = tempfile::TempDir::new().unwrap();
        let path = dir.path().join("console.keys");
        let authorized = Arc::new(Authorized::default());
        assert!(authorized.look().await.0.is_empty());
        assert!(authorized.told().1.unwrap().contains("authorized-keys"));
        authorized.follow(Some(path.clone()));
        let (keys, news) = authorized.look().await;
        assert!(keys.is_empty() && news.len() == 1, "{news:?}");
        assert_eq!(authorized.look().await.1, Vec::<String>::new());

        fs::write(&path, format!("{ED} alice\nfoo {ED} bob\n")).unwrap();
        let (keys, news) = authorized.look().await;
        assert_eq!((keys.len(), news.len()), (1, 1), "{news:?}");
        assert!(news[0].contains("line 2: the option `foo`"), "{news:?}");
        assert_eq!(authorized.look().await.1, Vec::<String>::new());

        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
        let (keys, news) = authorized.look().await;
        assert!(keys.is_empty() && news[0].contains("chmod o-w"), "{news:?}");
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(authorized.look().await.1[0].contains("no file"));
    }
}
