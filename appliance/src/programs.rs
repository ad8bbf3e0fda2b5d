//! Sockets for programs on this host, one a line: `STATE/consoles/MACHINE/line.sock`. Bytes and nothing else, see
//! [`koboshi_console::attach::program`]; who is at the other end, and what he may, says the system.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use koboshi_console::attach::program;
use koboshi_console::{Handle, Person};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::api::may_type;
use crate::app::App;
use crate::rights::{Principal, Verb, may};

/// Programs at a line at a time; more wait in the kernel.
const PROGRAMS: usize = 64;
/// Before another try where the system has no descriptor for a connection.
const AGAIN: Duration = Duration::from_millis(100);

/// One line's, while it is open.
struct Door {
    line: Handle,
    path: PathBuf,
    _open: DropGuard,
}

impl Drop for Door {
    fn drop(&mut self) {
        // A path that is gone already is as good.
        std::fs::remove_file(&self.path).unwrap_or(());
    }
}

/// Keeps them in step with the lines until cancelled.
pub async fn run(app: Arc<App>, cancel: CancellationToken) {
    let mut doors: BTreeMap<String, Door> = BTreeMap::new();
    let mut changes = app.lines.changes();
    loop {
        changes.mark_unchanged();
        let lines = app.lines.handles();
        doors.retain(|name, door| {
            let line = lines.iter().find(|(machine, _)| machine.as_str() == name);
            line.is_some_and(|(_, line)| line.is(&door.line))
        });
        for (machine, line) in lines {
            if doors.contains_key(machine.as_str()) {
                continue;
            }
            match open(&app.state, machine.as_str(), line) {
                Ok(door) => drop(doors.insert(machine.to_string(), door)),
                Err(error) => {
                    tracing::warn!(%machine, %error, "its console has no socket for programs");
                }
            }
        }
        match cancel.run_until_cancelled(changes.changed()).await {
            Some(Ok(())) => {}
            Some(Err(_)) | None => return,
        }
    }
}

fn open(state: &Path, machine: &str, line: Handle) -> io::Result<Door> {
    let folder = state.join("consoles").join(machine);
    std::fs::create_dir_all(&folder)?;
    let path = folder.join("line.sock");
    // The lock on the state directory is ours: a socket that is there is a dead appliance's.
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(&path)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
    let cancel = CancellationToken::new();
    let serves = serve(listener, machine.to_string(), line.clone(), cancel.clone());
    tokio::spawn(cancel.clone().run_until_cancelled_owned(serves));
    Ok(Door { line, path, _open: cancel.drop_guard() })
}

async fn serve(listener: UnixListener, machine: String, line: Handle, cancel: CancellationToken) {
    let room = Arc::new(Semaphore::new(PROGRAMS));
    while let Ok(permit) = room.clone().acquire_owned().await {
        match listener.accept().await {
            Ok((stream, _)) => {
                let sees = sees(stream, machine.clone(), line.clone());
                let cancel = cancel.clone();
                tokio::spawn(async move {
                    let _it_ends_or_we_do = cancel.run_until_cancelled(sees).await;
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!(machine, %error, "its console's socket");
                tokio::time::sleep(AGAIN).await;
            }
        }
    }
}

async fn sees(stream: UnixStream, machine: String, line: Handle) {
    let Ok(peer) = stream.peer_cred() else { return };
    let by = Principal::Local { uid: peer.uid() };
    if !may(&by, Verb::Watch, Some(&machine)) {
        return;
    }
    let via = peer.pid().map_or_else(|| "program".to_string(), |pid| format!("program {pid}"));
    let person = Person { name: by.to_string(), via };
    // It went away: nobody is there to be told.
    let _however_it_ended = program(&line, person, may_type(by, machine), stream).await;
}
