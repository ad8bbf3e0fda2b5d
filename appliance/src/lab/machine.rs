//! One machine of the rack: its power button, its console, its cable.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::net::UnixStream;
use tokio::process::Child;
use tokio::sync::Mutex;
use tokio::task::JoinSet;

use super::Error;
use super::console::{Console, Viewer};
use super::keeper::{self, Keeper};
use super::net::Wire;
use super::qemu::{self, Firmware, QEMU, SERIAL, Spec, Start};
use super::qmp::Qmp;

/// What a kernel prints when it cannot go on.
const PANIC: &str = "Kernel panic - not syncing";
/// What OVMF ends in when nothing of its boot order worked (after PXE and HTTP boot, about three
/// minutes without an appliance); it stays there until somebody types.
const GAVE_UP: &str = "UEFI Interactive Shell";
/// Until it then begins anew, as SeaBIOS does by `reboot-timeout`.
const AGAIN_AFTER: Duration = Duration::from_secs(5);

/// A machine in its place. Cheap to clone; all clones are the same machine.
#[derive(Clone)]
pub struct Machine {
    inner: Arc<Inner>,
}

struct Inner {
    spec: Spec,
    dir: PathBuf,
    ports: Vec<String>,
    keeper: Arc<Keeper>,
    console: Console,
    /// Where its console stood when it was last switched on.
    begun: AtomicU64,
    running: Mutex<Option<Running>>,
}

struct Running {
    child: Child,
    monitor: Qmp,
    since: Instant,
    /// Begins the boot order anew for a firmware that cannot; ends with the power.
    _retries: JoinSet<()>,
}

/// Whether a machine has power.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Power {
    /// It runs, since then.
    On(Instant),
    /// It does not: never switched on, switched off, or it switched itself off.
    Off,
}

impl Machine {
    /// Racks a machine: makes its disks in `dir` and plugs its cable in. It stays off.
    pub fn rack(wire: &Wire, dir: &Path, spec: Spec) -> Result<Machine, Error> {
        qemu::prepare(&spec, dir)?;
        let ports =
            (0..=spec.more_nics.len()).map(|_| wire.tap()).collect::<Result<Vec<_>, _>>()?;
        let log = dir.join(format!("{}.console", spec.name));
        let console = Console::new(&spec.name, Some(&log))
            .map_err(Error::io(format!("opening {}", log.display())))?;
        let keeper = Arc::clone(wire.keeper());
        let (dir, begun) = (dir.to_path_buf(), AtomicU64::new(0));
        let running = Mutex::new(None);
        Ok(Machine { inner: Arc::new(Inner { spec, dir, ports, keeper, console, begun, running }) })
    }

    /// What it was ordered as.
    pub fn spec(&self) -> &Spec {
        &self.inner.spec
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.inner.spec.name
    }

    /// The port of the bridge that its boot NIC's cable is in, for [`Wire::lose`].
    pub fn port(&self) -> &str {
        &self.inner.ports[0]
    }

    /// The ports of all its NICs, the boot NIC's first.
    pub fn ports(&self) -> &[String] {
        &self.inner.ports
    }

    /// Its serial line.
    pub fn console(&self) -> &Console {
        &self.inner.console
    }

    /// A reader of all its console has printed since it was last switched on, alarmed by a
    /// kernel panic.
    pub fn viewer(&self) -> Viewer {
        self.console().viewer_at(self.inner.begun.load(Ordering::Relaxed)).alarmed_by(&[PANIC])
    }

    /// Whether it has power.
    pub async fn status(&self) -> Power {
        let mut running = self.inner.running.lock().await;
        match self.still(&mut running).await {
            Some(machine) => Power::On(machine.since),
            None => Power::Off,
        }
    }

    /// Switches it on; one that is on stays as it is.
    pub async fn power_on(&self) -> Result<(), Error> {
        self.power_on_from(Start::Network).await
    }

    /// The same, with what it is to start from.
    pub async fn power_on_from(&self, start: Start) -> Result<(), Error> {
        let mut running = self.inner.running.lock().await;
        if self.still(&mut running).await.is_none() {
            *running = Some(self.start(start).await?);
        }
        Ok(())
    }

    /// Pulls the plug.
    pub async fn power_off(&self) -> Result<(), Error> {
        let mut running = self.inner.running.lock().await;
        if let Some(mut machine) = running.take() {
            let doing = format!("{}: ending QEMU", self.name());
            machine.child.kill().await.map_err(Error::io(doing))?;
            self.inner.console.detach().await;
        }
        Ok(())
    }

    /// Pulls the plug and switches it on again.
    pub async fn cycle(&self) -> Result<(), Error> {
        self.power_off().await?;
        self.power_on().await
    }

    /// Presses the reset button: everything but the power begins anew.
    pub async fn reset(&self) -> Result<(), Error> {
        self.monitor("system_reset", json!({})).await.map(drop)
    }

    /// Presses the power button for a moment: the system may shut down in good order (ACPI).
    pub async fn soft_off(&self) -> Result<(), Error> {
        self.monitor("system_powerdown", json!({})).await.map(drop)
    }

    /// Sends it a non-maskable interrupt, which some systems take for "write a dump".
    pub async fn interrupt(&self) -> Result<(), Error> {
        self.monitor("inject-nmi", json!({})).await.map(drop)
    }

    /// A BREAK on its serial line.
    pub async fn send_break(&self) -> Result<(), Error> {
        self.monitor("chardev-send-break", json!({ "id": SERIAL })).await.map(drop)
    }

    /// Pulls the cable out of its boot NIC, or puts it back.
    pub async fn cable(&self, plugged: bool) -> Result<(), Error> {
        self.cable_of(0, plugged).await
    }

    /// The same for any of its NICs: 0 is the boot NIC.
    pub async fn cable_of(&self, nic: usize, plugged: bool) -> Result<(), Error> {
        let name = if nic == 0 { "nic".to_string() } else { format!("nic{nic}") };
        self.monitor("set_link", json!({ "name": name, "up": plugged })).await.map(drop)
    }

    /// Any command of QEMU's monitor.
    pub async fn monitor(&self, command: &str, arguments: Value) -> Result<Value, Error> {
        let failed = |said| Error::Monitor { machine: self.name().to_string(), said };
        let mut running = self.inner.running.lock().await;
        match self.still(&mut running).await {
            Some(machine) => machine.monitor.execute(command, arguments).await.map_err(failed),
            None => Err(failed("the machine is off".into())),
        }
    }

    /// What QEMU says of it, for whoever wonders why it is silent: whether it runs, and where its processors are.
    pub async fn condition(&self) -> String {
        let registers = json!({ "command-line": "info registers -a" });
        let mut said = String::new();
        for (command, arguments) in
            [("query-status", json!({})), ("human-monitor-command", registers)]
        {
            said += &match self.monitor(command, arguments).await {
                Ok(Value::String(text)) => text,
                Ok(value) => format!("{value}\n"),
                Err(error) => format!("{error}\n"),
            };
        }
        let errors = self.inner.dir.join(format!("{}.qemu.log", self.name()));
        let telling =
            |line: &&str| ["CPU", "EIP", "RIP", "{", "m"].iter().any(|at| line.starts_with(at));
        let said: Vec<&str> = said.lines().filter(telling).collect();
        format!("QEMU: {}\n{}", said.join("\n"), last_words(&errors))
    }

    /// The running machine, if its QEMU has not ended by itself meanwhile.
    async fn still<'r>(&self, running: &'r mut Option<Running>) -> Option<&'r mut Running> {
        let ended = match running {
            Some(machine) => !matches!(machine.child.try_wait(), Ok(None)),
            None => false,
        };
        if ended {
            *running = None;
            self.inner.console.detach().await;
        }
        running.as_mut()
    }

    /// Real servers' UEFI can be told to begin its boot order anew when all of it failed. OVMF cannot:
    /// this presses the reset button for it.
    fn retries(&self) -> JoinSet<()> {
        let mut task = JoinSet::new();
        if self.spec().firmware == Firmware::Bios || !self.spec().retries {
            return task;
        }
        let machine = Arc::downgrade(&self.inner);
        let mut viewer = self.console().viewer_at(self.inner.begun.load(Ordering::Relaxed));
        task.spawn(async move {
            let day = Duration::from_secs(86_400);
            while viewer.expect(GAVE_UP, day).await.is_ok() {
                tokio::time::sleep(AGAIN_AFTER).await;
                let Some(inner) = machine.upgrade() else { return };
                if let Err(error) = (Machine { inner }).reset().await {
                    tracing::warn!(%error, "a machine that gave up is not started again");
                }
            }
        });
        task
    }

    async fn start(&self, start: Start) -> Result<Running, Error> {
        let Inner { spec, dir, ports, keeper, console, .. } = &*self.inner;
        for (tool, package) in [(QEMU, "qemu-system-x86"), ("setpriv", "util-linux")] {
            if !installed(tool) {
                return Err(Error::MissingTool { tool: tool.into(), package });
            }
        }
        let errors = dir.join(format!("{}.qemu.log", spec.name));
        let doing = || format!("{}: starting QEMU", spec.name);
        let errors_file = File::create(&errors).map_err(Error::io(doing()))?;
        let (line, line_end) = StdStream::pair().map_err(Error::io(doing()))?;
        let (monitor, monitor_end) = StdStream::pair().map_err(Error::io(doing()))?;

        let mut command = keeper::bound(QEMU);
        command
            .args(qemu::arguments(spec, ports, dir, start))
            .stdin(Stdio::from(OwnedFd::from(line_end)))
            .stdout(Stdio::from(OwnedFd::from(monitor_end)))
            .stderr(Stdio::from(errors_file));
        let mut child = keeper.spawn(command).await.map_err(Error::io(doing()))?;
        let since = Instant::now();

        self.inner.begun.store(console.end(), Ordering::Relaxed);
        console.attach(into_tokio(line).map_err(Error::io(doing()))?).await;
        let monitor = into_tokio(monitor).map_err(Error::io(doing()))?;
        match Qmp::greet(monitor).await {
            Ok(monitor) => Ok(Running { child, monitor, since, _retries: self.retries() }),
            Err(why) => {
                let _ = child.start_kill();
                let how = match child.wait().await {
                    Ok(status) => format!("did not start ({why}; {status})"),
                    Err(_) => format!("did not start ({why})"),
                };
                console.detach().await;
                let said = last_words(&errors);
                Err(Error::Qemu { machine: spec.name.clone(), how, said })
            }
        }
    }
}

/// Whether a program is on the PATH (or in the folders root's has).
pub fn installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain([PathBuf::from("/usr/sbin"), PathBuf::from("/sbin")])
        .any(|dir| dir.join(program).is_file())
}

fn into_tokio(stream: StdStream) -> std::io::Result<UnixStream> {
    stream.set_nonblocking(true)?;
    UnixStream::from_std(stream)
}

fn last_words(log: &Path) -> String {
    let mut text = String::new();
    if let Ok(mut file) = File::open(log) {
        let length = file.metadata().map_or(0, |metadata| metadata.len());
        let _ = file.seek(SeekFrom::Start(length.saturating_sub(2000)));
        let _ = file.read_to_string(&mut text);
    }
    text.trim().to_string()
}
