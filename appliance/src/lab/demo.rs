//! `koboshi lab demo`, behind `make demo`: three blank machines boot into two roles before your eyes.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, bail};
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::appliance::{Appliance, Row, own_path};
use super::blueprint;
use super::bmc::{Account, Bmcs};
use super::control::Door;
use super::net::Wire;
use super::qemu::{Accel, Firmware, Spec};
use super::rack::Rack;

/// Three machines come up in about two minutes on two cores; a loaded machine gets five times that.
const PATIENCE: Duration = Duration::from_secs(600);

pub(super) const SITE: &str = include_str!("demo.toml");

/// How to show it.
#[derive(Debug, Args)]
pub struct Options {
    /// Leave when all machines are up and the page was fetched (exit code 0), instead of waiting
    #[arg(long)]
    once: bool,
    /// State directory of the appliance [default: DIR/state]
    #[arg(long, value_name = "STATE")]
    state: Option<PathBuf>,
    /// How instructions are executed
    #[arg(long, value_enum, default_value_t = super::cli::AccelWord::Tcg)]
    accel: super::cli::AccelWord,
    #[command(flatten)]
    at: super::cli::Place,
}

/// Shows it. Blocks; brings its own runtime.
pub fn run(options: Options) -> anyhow::Result<()> {
    super::ensure_namespace()?;
    let dir = options.at.make()?;
    let state = options.state.clone().unwrap_or_else(|| dir.join("state"));
    let site = dir.join("site.toml");
    std::fs::write(&site, SITE).with_context(|| format!("writing {}", site.display()))?;
    password(&dir.join("bmc.pw"))?;
    let blueprint = blueprint::read(&site)?;
    // Before the wire: a build fetches packages, and the rack's network leads nowhere.
    for image in ["rescue", "web"] {
        provide(image, &state)?;
    }
    super::on_wire(blueprint.plan, move |wire| async move {
        let stop = stop_token();
        let stage = Stage { dir, state, site };
        let specs = machines(blueprint.specs, options.accel.into());
        let show = tokio::select! {
            show = Show::raise(wire, &stage, specs, blueprint.bmcs) => show,
            () = stop.cancelled() => return Ok(()),
        };
        let mut show = show?;
        let watched = tokio::select! {
            watched = show.watch(&stage) => watched,
            () = stop.cancelled() => Ok(()),
        };
        if watched.is_ok() && !options.once && !stop.is_cancelled() {
            stage.suggest();
            tokio::select! {
                status = show.appliance.ended() => eprintln!("The appliance ended: {status}"),
                () = stop.cancelled() => {}
            }
        }
        show.lower().await;
        println!("\nThe rack is down; its files are in {}.", stage.dir.display());
        watched
    })?
}

/// Where everything is.
struct Stage {
    dir: PathBuf,
    state: PathBuf,
    site: PathBuf,
}

/// What runs.
struct Show {
    // Before the rack: its machines go on without them, not the reverse.
    _bmcs: Bmcs,
    rack: Arc<Rack>,
    appliance: Appliance,
    door: tokio::task::JoinHandle<()>,
}

impl Show {
    async fn raise(
        wire: Wire,
        stage: &Stage,
        specs: Vec<Spec>,
        bmcs: Vec<Account>,
    ) -> anyhow::Result<Show> {
        let rack = Arc::new(Rack::raise(wire, &stage.dir, specs)?);
        let bmcs = Bmcs::plug_in(&rack, bmcs)?;
        let door = Door::open(&stage.dir).await?;
        let door = tokio::spawn(door.serve(Arc::clone(&rack)));
        let appliance = Appliance::start(&rack, &own_path(), &stage.site, &stage.state).await?;
        Ok(Show { _bmcs: bmcs, rack, appliance, door })
    }

    /// Switches the machines on, shows how they come up, and fetches a page.
    async fn watch(&self, stage: &Stage) -> anyhow::Result<()> {
        println!("The appliance serves {}. Switching on, two at a time.", stage.site.display());
        let up: Mutex<BTreeSet<String>> = Mutex::default();
        let settled = |machine: &super::machine::Machine| {
            up.lock().unwrap_or_else(PoisonError::into_inner).contains(machine.name())
        };
        let rack = &self.rack;
        let ((), rows) = tokio::try_join!(
            async { Ok(rack.power_on_in_turn(rack.machines(), 2, settled).await?) },
            watch(rack, &self.appliance, &up),
        )?;
        fetch(rack, &rows)
    }

    async fn lower(self) {
        self.door.abort();
        // Machines first: one that runs needs no appliance, and reports no trouble this way.
        for machine in self.rack.machines() {
            if let Err(error) = machine.power_off().await {
                eprintln!("{error}");
            }
        }
        self.appliance.stop().await;
    }
}

/// The site's machines; the last one has the other firmware.
fn machines(mut specs: Vec<Spec>, accel: Accel) -> Vec<Spec> {
    for spec in &mut specs {
        spec.accel = accel;
    }
    if let Some(last) = specs.last_mut() {
        last.firmware = Firmware::Uefi;
    }
    specs
}

/// The BMCs' password: nobody outside of the rack's network can reach them.
pub(super) fn password(path: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let mut options = std::fs::OpenOptions::new();
    options.create(true).truncate(true).write(true).mode(0o600);
    let file = options.open(path).and_then(|mut file| file.write_all(b"in-the-lab\n"));
    file.with_context(|| format!("writing {}", path.display()))
}

/// Builds and publishes a shipped image, unless the state has it. With the kernel for virtual
/// machines: a tenth of the modules, and every machine here is one.
fn provide(image: &str, state: &Path) -> anyhow::Result<()> {
    let koboshi = |words: &[&str]| {
        let mut command = std::process::Command::new(own_path());
        command.arg("image").args(words).arg("--state").arg(state).stdin(Stdio::null());
        command
    };
    let shown = koboshi(&["show", image]).output();
    if shown.with_context(|| format!("koboshi image show {image}"))?.status.success() {
        return Ok(());
    }
    println!("Building the image {image}; this happens once.");
    let built = koboshi(&["build", image, "--kernel", "cloud", "--publish"]).status();
    if !built.with_context(|| format!("koboshi image build {image}"))?.success() {
        bail!("koboshi image build {image} failed");
    }
    Ok(())
}

/// Prints how the boots go, until all are up.
async fn watch(
    rack: &Rack,
    appliance: &Appliance,
    up: &Mutex<BTreeSet<String>>,
) -> anyhow::Result<Vec<Row>> {
    let began = Instant::now();
    let switched_on = unix_ms();
    let mut table = Table::new(began);
    loop {
        let mut rows = appliance.rows().await.with_context(|| appliance.log_tail())?;
        // A state from a former run remembers machines that have lost their power since.
        for row in rows.iter_mut().filter(|row| row.since < switched_on) {
            row.stage = "off".into();
        }
        table.show(&rows)?;
        let arrived = rows.iter().filter(|row| row.stage == "up");
        let arrived: BTreeSet<String> = arrived.map(|row| row.machine.clone()).collect();
        let all = rack.machines().iter().all(|machine| arrived.contains(machine.name()));
        *up.lock().unwrap_or_else(PoisonError::into_inner) = arrived;
        if all {
            println!("All {} machines are up after {} s.", rows.len(), began.elapsed().as_secs());
            return Ok(rows);
        }
        if began.elapsed() > PATIENCE {
            for machine in rack.machines() {
                eprintln!("--- {} ---\n{}", machine.name(), machine.console().tail(20));
            }
            bail!("not all machines came up within {} s", PATIENCE.as_secs());
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// A table redrawn in place on a terminal; elsewhere a line for each change.
struct Table {
    began: Instant,
    in_place: bool,
    drawn: usize,
    shown: BTreeMap<String, String>,
}

impl Table {
    fn new(began: Instant) -> Table {
        let in_place = std::io::stdout().is_terminal();
        Table { began, in_place, drawn: 0, shown: BTreeMap::new() }
    }

    fn show(&mut self, rows: &[Row]) -> std::io::Result<()> {
        let seconds = self.began.elapsed().as_secs();
        let mut text = String::new();
        if self.in_place {
            if self.drawn > 0 {
                text += &format!("\x1b[{}A\x1b[J", self.drawn);
            }
            text +=
                &format!("{:>5} s  MACHINE  SEAT     ROLE     ADDRESS          STAGE\n", seconds);
            for row in rows {
                text += &format!("         {}\n", line(row));
            }
            self.drawn = rows.len() + 1;
        } else {
            for row in rows {
                let now = line(row);
                if self.shown.get(&row.machine) != Some(&now) {
                    text += &format!("{seconds:>5} s  {now}\n");
                    self.shown.insert(row.machine.clone(), now);
                }
            }
        }
        let mut out = std::io::stdout().lock();
        out.write_all(text.as_bytes())?;
        out.flush()
    }
}

fn unix_ms() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.map_or(0, |now| now.as_millis() as u64)
}

fn line(row: &Row) -> String {
    let Row { machine, seat, role, address, stage, .. } = row;
    format!("{machine:<8} {seat:<8} {role:<8} {address:<16} {stage}")
}

/// Fetches the page of a web seat from inside the rack.
fn fetch(rack: &Rack, rows: &[Row]) -> anyhow::Result<()> {
    let web = rows.iter().find(|row| row.role == "web").context("no machine has the role web")?;
    let url = format!("http://{}/", web.address);
    // `up` is said by systemd; nginx may need a breath longer when two machines share a core.
    let words = ["-sS", "--fail", "--max-time", "10", "--retry", "5", "--retry-connrefused", &url];
    let output = rack.output("curl", &words)?;
    if !output.status.success() {
        bail!("{url}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let page = String::from_utf8_lossy(&output.stdout).into_owned();
    println!("\n{url} on {} ({}) says:", web.machine, web.seat);
    for line in page.lines().take(12) {
        println!("    {line}");
    }
    Ok(())
}

impl Stage {
    fn suggest(&self) {
        let Stage { dir, state, site } = self;
        println!(
            "
Try, in another terminal:
    export KOBOSHI_LAB={} KOBOSHI_STATE={}
    alias koboshi={}
    koboshi status                       # who sits where
    koboshi boots m01                    # how its last boot went, step by step
    koboshi explain m03                  # which line of the site file decided
    koboshi console m02                  # its serial console, by its BMC: type; ~? helps, ~. leaves
    koboshi console m02 --sysrq h        # BREAK and a key: the kernel answers
    koboshi log m01 --grep 'nginx|login' # what it said since its power came on
    koboshi power m02 cycle              # by its BMC, as all of these:
    koboshi sensors m01,m02
    koboshi bootdev m01 disk             # for its next start
    koboshi lab exec curl http://10.77.0.11/
A web server becomes a tool server and the reverse, by one reboot: swap two lines of [matrix],
    m01 = \"tool1\"
    m02 = \"web1\"
in {}, then
    koboshi reload --accept              # it unseats running machines, so it asks
    koboshi lab cycle m01 m02
    koboshi status --watch
Ctrl-C here takes the rack down.",
            dir.display(),
            state.display(),
            own_path().display(),
            site.display(),
        );
    }
}

/// Cancelled by Ctrl-C, SIGTERM or the terminal's end.
pub fn stop_token() -> CancellationToken {
    let token = CancellationToken::new();
    let stop = token.clone();
    tokio::spawn(async move {
        let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
        let mut signals: Vec<_> = kinds.into_iter().filter_map(|kind| signal(kind).ok()).collect();
        let waits = signals.iter_mut().map(|signal| Box::pin(signal.recv()));
        futures::future::select_all(waits).await;
        stop.cancel();
    });
    token
}
