//! The machine behind a BMC where it is a process: started by power on, killed by power off, gone with the
//! simulator however that ends.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

use crate::chassis::{self, Order};
use crate::sim::Cell;
use crate::vm::Tell;

/// A monitor that says nothing for so long has hung.
const PATIENCE: Duration = Duration::from_secs(5);
/// A process that was just started makes its monitor's socket within this.
const APPEARING: Duration = Duration::from_secs(2);

/// A process and all that it started.
struct Running {
    child: Child,
    group: Option<Pid>,
}

impl Running {
    fn start(command: &str, boot: Option<&str>) -> io::Result<Running> {
        // The kernel tells of the parent's end only who asked for it while the parent lived. The parent is the
        // thread, and this one lives as long as the simulator does.
        let here = std::process::id().to_string();
        let mut shell = Command::new("setpriv");
        shell
            .args(["--pdeathsig", "KILL", "/bin/sh", "-c", r#"[ "$PPID" = "$0" ] && exec "$@""#])
            .args([&here, "/bin/sh", "-c", command])
            .env_remove("KOBOSHI_BOOT")
            .stdin(Stdio::null())
            .stdout(io::stderr())
            .process_group(0)
            .kill_on_drop(true);
        if let Some(device) = boot {
            shell.env("KOBOSHI_BOOT", device);
        }
        let child = shell.spawn()?;
        let group = child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw);
        Ok(Running { child, group })
    }

    fn signal(&self, signal: Signal) {
        if let Some(group) = self.group {
            // It may have ended already.
            let _ = killpg(group, signal);
        }
    }

    async fn kill(mut self) {
        self.signal(Signal::SIGKILL);
        let _ = self.child.wait().await;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.signal(Signal::SIGKILL);
    }
}

/// Carries out orders, and tells the chassis when the process ends by itself.
pub(crate) async fn run(cell: Arc<Cell>, command: String, monitor: Option<PathBuf>) {
    let mut running: Option<Running> = None;
    let mut booted = None;
    loop {
        let order = cell.lock().bmc.chassis.orders.pop_front();
        let Some(order) = order else {
            tokio::select! {
                () = cell.ordered.notified() => {}
                () = ended(&mut running) => {
                    running = None;
                    let bmc = &mut cell.lock().bmc;
                    // What has been ordered meanwhile is newer than this end.
                    if bmc.chassis.orders.is_empty() {
                        chassis::exited(bmc);
                    }
                }
            }
            continue;
        };
        match order {
            Order::Kill => kill(&mut running).await,
            Order::Start(boot) => {
                kill(&mut running).await;
                booted = boot;
                running = start(&cell, &command, boot);
            }
            Order::Reset => {
                if !tell(&cell, monitor.as_deref(), Tell::Reset).await {
                    kill(&mut running).await;
                    running = start(&cell, &command, booted);
                }
            }
            Order::Shutdown => {
                if !tell(&cell, monitor.as_deref(), Tell::Shutdown).await
                    && let Some(running) = &running
                {
                    running.signal(Signal::SIGTERM);
                }
            }
            Order::Interrupt => {
                tell(&cell, monitor.as_deref(), Tell::Interrupt).await;
            }
        }
    }
}

fn start(cell: &Cell, command: &str, boot: Option<&str>) -> Option<Running> {
    match Running::start(command, boot) {
        Ok(running) => Some(running),
        Err(error) => {
            tracing::error!(command, %error, "the machine does not start");
            chassis::exited(&mut cell.lock().bmc);
            None
        }
    }
}

async fn kill(running: &mut Option<Running>) {
    if let Some(running) = running.take() {
        running.kill().await;
    }
}

async fn ended(running: &mut Option<Running>) {
    let Some(running) = running else { return std::future::pending().await };
    if let Ok(status) = running.child.wait().await {
        let (code, signal) = (status.code(), status.signal());
        tracing::info!(code, signal, "the machine switched itself off");
    }
}

/// Has QEMU do something, by its monitor or by the host's own interface; whether it did.
async fn tell(cell: &Cell, monitor: Option<&Path>, what: Tell) -> bool {
    let Some(path) = monitor else { return cell.vm.tell(what) };
    let command = match what {
        Tell::Reset => "system_reset",
        Tell::Shutdown => "system_powerdown",
        Tell::Interrupt => "inject-nmi",
    };
    match timeout(PATIENCE, execute(path, command)).await {
        Ok(Ok(())) => true,
        Ok(Err(error)) => {
            tracing::warn!(command, monitor = %path.display(), %error, "the monitor refused");
            false
        }
        Err(_) => {
            tracing::warn!(command, monitor = %path.display(), "the monitor is silent");
            false
        }
    }
}

/// QMP: a greeting, then one JSON object a line each way, with events in between.
async fn execute(path: &Path, command: &str) -> io::Result<()> {
    let stream = connect(path).await?;
    let (reader, mut writer) = stream.into_split();
    let mut lines = BufReader::new(reader).lines();
    for command in ["qmp_capabilities", command] {
        let line = format!("{}\n", serde_json::json!({ "execute": command }));
        writer.write_all(line.as_bytes()).await?;
        loop {
            let line = lines.next_line().await?.ok_or(io::ErrorKind::UnexpectedEof)?;
            let answer: Value = serde_json::from_str(&line)?;
            if let Some(error) = answer.get("error") {
                return Err(io::Error::other(error.to_string()));
            }
            if answer.get("return").is_some() {
                break;
            }
        }
    }
    Ok(())
}

async fn connect(path: &Path) -> io::Result<UnixStream> {
    let begun = tokio::time::Instant::now();
    loop {
        match UnixStream::connect(path).await {
            Err(_) if begun.elapsed() < APPEARING => sleep(Duration::from_millis(20)).await,
            other => return other,
        }
    }
}
