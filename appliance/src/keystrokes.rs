//! What operators type, where the site wants it kept (`[console] keystrokes`): `STATE/consoles/MACHINE/keys`, a JSON
//! object a line, for nobody but the appliance's own user. What is left out of it says
//! [`koboshi_console::operator::Keys`].

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use koboshi_console::operator::{Entry, Keys, Typed};
use koboshi_console::{Handle, What};
use tokio::sync::mpsc;
use tokio::time::sleep_until;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::app::App;

/// Of a line, the newer file and the one before it have so much each.
const LARGEST: u64 = 512 * 1024;
/// Of what is typed at once; then whoever types waits for the disk.
const WAIT: usize = 64;

/// Keeps audits in step with the lines and the site until cancelled.
pub async fn run(app: Arc<App>, cancel: CancellationToken) {
    let mut kept: BTreeMap<String, (Handle, DropGuard)> = BTreeMap::new();
    let mut changes = app.lines.changes();
    loop {
        changes.mark_unchanged();
        let mut lines = app.lines.handles();
        if !app.site.load().consoles.keystrokes {
            for (line, _) in kept.values() {
                line.keep_keys(None);
            }
            lines.clear();
        }
        kept.retain(|name, (line, _)| {
            let now = lines.iter().find(|(machine, _)| machine.as_str() == name);
            now.is_some_and(|(_, now)| now.is(line))
        });
        for (machine, line) in lines {
            if !kept.contains_key(machine.as_str()) {
                let path = app.state.join("consoles").join(machine.as_str()).join("keys");
                let guard = keep(path, machine.to_string(), &line);
                kept.insert(machine.to_string(), (line, guard));
            }
        }
        match cancel.run_until_cancelled(changes.changed()).await {
            Some(Ok(())) => {}
            Some(Err(_)) | None => return,
        }
    }
}

fn keep(path: PathBuf, machine: String, line: &Handle) -> DropGuard {
    let (tell, typed) = mpsc::channel(WAIT);
    line.keep_keys(Some(tell));
    let cancel = CancellationToken::new();
    let hears = hear(path, machine, line.clone(), typed, cancel.clone());
    tokio::spawn(hears);
    cancel.drop_guard()
}

async fn hear(
    path: PathBuf,
    machine: String,
    line: Handle,
    mut typed: mpsc::Receiver<Typed>,
    cancel: CancellationToken,
) {
    let (mut keys, mut viewer) = (Keys::default(), line.view(0));
    let mut failing = false;
    loop {
        let mut entries = Vec::new();
        let late = async {
            match keys.deadline() {
                Some(deadline) => sleep_until(deadline.into()).await,
                None => std::future::pending().await,
            }
        };
        let goes_on = tokio::select! {
            biased;
            Some(typed) = typed.recv() => {
                keys.typed(&typed, Instant::now(), &mut entries);
                true
            }
            () = late => {
                keys.late(Instant::now(), &mut entries);
                true
            }
            piece = viewer.next() => match piece {
                Some(piece) => {
                    if let What::Text(text) = piece.what {
                        keys.said(&text, &mut entries);
                    }
                    true
                }
                None => false,
            },
            () = cancel.cancelled() => false,
        };
        if !goes_on {
            keys.end(&mut entries);
        }
        if !entries.is_empty() {
            let path = path.clone();
            let wrote = tokio::task::spawn_blocking(move || write(&path, &entries)).await;
            let failed = match wrote {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(error.to_string()),
                Err(error) => Some(error.to_string()),
            };
            // Said once, until it goes well again.
            if let Some(error) = failed.as_ref().filter(|_| !failing) {
                tracing::error!(machine, error, "what is typed there is not kept");
            }
            failing = failed.is_some();
        }
        if !goes_on {
            return;
        }
    }
}

fn write(path: &Path, entries: &[Entry]) -> io::Result<()> {
    let mut text = Vec::new();
    for entry in entries {
        serde_json::to_writer(&mut text, entry)?;
        text.push(b'\n');
    }
    let mut file = open(path)?;
    if file.metadata()?.len() + text.len() as u64 > LARGEST {
        std::fs::rename(path, path.with_extension("1"))?;
        file = open(path)?;
    }
    file.write_all(&text)
}

fn open(path: &Path) -> io::Result<File> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

#[cfg(test)]
mod tests {
    use koboshi_console::Person;

    use super::*;

    #[test]
    fn bounded_and_for_nobody_else() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("consoles/m01/keys");
        let who = Person { name: "alice".to_string(), via: "cli".to_string() };
        let entry = Entry { at: 1, who, keys: "x".repeat(1000) };
        for _ in 0..1500 {
            write(&path, std::slice::from_ref(&entry)).unwrap();
        }
        for (name, least) in [("keys", 1000), ("keys.1", LARGEST - 2000)] {
            let meta = std::fs::metadata(path.with_file_name(name)).unwrap();
            assert!((least..=LARGEST).contains(&meta.len()), "{name}: {}", meta.len());
            assert_eq!(meta.permissions().mode() & 0o777, 0o600);
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let read: Entry = serde_json::from_str(text.lines().next().unwrap()).unwrap();
        assert_eq!(read, entry);
    }
}
