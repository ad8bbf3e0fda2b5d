//! `koboshi lab storm`: ten thousand machines on paper against the appliance, or against what others would
//! set up, on a wire of their own. Nothing boots here; what firmware sends is sent, when it would send it.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use koboshi_storm::drive::{self, Outcome, Progress, Weather};
use koboshi_storm::firmware::Mix;
use koboshi_storm::log::Stage;
use koboshi_storm::machine::{Machine, Spec};
use koboshi_storm::paper::{self, Sizes};
use koboshi_storm::process::{Usage, usage};
use koboshi_storm::summary::Summary;
use koboshi_storm::wire::Wire as Packets;
use koboshi_storm::{dice::Dice, peer, plot};
use tokio_util::sync::CancellationToken;

use super::Error;
use super::appliance::{Appliance, own_path};
use super::demo;
use super::enemy;
use super::net::{BRIDGE_MAC, Peer, Plan, Wire, ip};
use super::rack::Rack;

/// The storm's end of the cable.
const STORM_MAC: &str = "02:6b:74:00:00:01";
/// What the server takes for the way to all machines, so that it needs one neighbour and not ten thousand.
const ROUTER: &str = "10.77.255.254";
/// How long the server is left alone before its memory is read, where machines think as fast as hardware.
const QUIET: Duration = Duration::from_secs(5);

/// What storm.
#[derive(Debug, Args)]
#[command(after_help = "\
On a network of its own, in memory: as root, or where user namespaces are allowed. Machines are on
paper: each sends what its firmware sends, waits as long, and asks again when that would; files are
noise of the sizes below. The server sees them behind one router, as a relayed network looks: a host
that has 10,000 machines on one flat network has to raise net.ipv4.neigh.default.gc_thresh3.

  koboshi lab storm --machines 1000 --loss 5%          a rack row, on a bad day
  koboshi lab storm --plot storm.svg --peer kea        ours and theirs, one after the other
  koboshi lab storm --machines 300 --enemy             one more machine, that means harm

The enemy sends so many messages a second of each kind: DISCOVERs of invented MACs, whose offers it takes
or declines; DHCP in the names of the machines that boot; requests by TFTP from their addresses; log
messages of hosts that are none; and it claims by ARP each address that is asked for. Over TCP it holds
10,000 connections that ask nothing, reads a file a byte a second 300 times over, wants ranges by the
thousand, and reports for boots that never were. Strangers have a pool and a role then. What
`koboshi status` says of it is shown.")]
pub struct Options {
    /// How many machines
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=i64::from(paper::MOST)))]
    machines: u32,
    /// All are switched on within this time
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = seconds)]
    within: Duration,
    /// Shares of firmware: iPXE in ROM, a PXE ROM with undionly.kpxe, UEFI by PXE, UEFI by HTTP
    #[arg(long, value_name = "MIX", default_value_t = Mix::default())]
    mix: Mix,
    /// Datagrams (and TCP segments) lost, each way
    #[arg(long, value_name = "PERCENT", default_value = "1%", value_parser = percent)]
    loss: u32,
    /// Datagrams that come twice, each way
    #[arg(long, value_name = "PERCENT", default_value = "0.1%", value_parser = percent)]
    doubled: u32,
    /// Machines that read slowly
    #[arg(long, value_name = "PERCENT", default_value = "1%", value_parser = percent)]
    slow: u32,
    /// … at this rate, kilobytes a second
    #[arg(long, value_name = "KB", default_value_t = 200)]
    slow_rate: u32,
    /// How much faster than hardware they think between two packets
    #[arg(long, value_name = "TIMES", default_value_t = 1.0)]
    speed: f64,
    /// What is random comes from here: the same seed is the same storm
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Size of each loader
    #[arg(long, value_name = "SIZE", default_value = "128k", value_parser = size)]
    loader_size: u64,
    /// Size of the kernel
    #[arg(long, value_name = "SIZE", default_value = "256k", value_parser = size)]
    kernel_size: u64,
    /// Size of the image's part of the initramfs (the appliance's own comes on top)
    #[arg(long, value_name = "SIZE", default_value = "64k", value_parser = size)]
    initrd_size: u64,
    /// Size of the root
    #[arg(long, value_name = "SIZE", default_value = "512k", value_parser = size)]
    root_size: u64,
    /// The storm ends by then, and who is not up has failed
    #[arg(long, value_name = "TIME", default_value = "900s", value_parser = seconds)]
    most: Duration,
    /// One more machine means harm: so many messages of each kind a second
    #[arg(long, value_name = "RATE", num_args = 0..=1, default_missing_value = "1000", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    enemy: Option<u32>,
    /// The same storm against what others would set up, afterwards
    #[arg(long, value_enum)]
    peer: Option<PeerWord>,
    /// Draw machines at each stage over time
    #[arg(long, value_name = "FILE.svg")]
    plot: Option<PathBuf>,
    /// For programs
    #[arg(long)]
    json: bool,
    /// The appliance to try [default: this program]
    #[arg(long, value_name = "PROGRAM")]
    koboshi: Option<PathBuf>,
    /// Keep site, state and logs of the server in this directory [default: a temporary one]
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
}

/// Others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PeerWord {
    /// Kea for addresses, dnsmasq for TFTP, nginx for the rest
    Kea,
}

/// Raises it. Blocks; brings its own runtime.
pub fn run(options: Options) -> anyhow::Result<()> {
    super::ensure_namespace()?;
    super::raise_descriptors();
    let temporary = Temporary::new(options.keep.as_deref())?;
    let options = Arc::new(options);
    let sizes = options.sizes();
    let mut storms = vec![options.clone().against(Server::Ours, &temporary.0, sizes)?];
    if options.peer.is_some() {
        // The same bytes: our initramfs has parts that are not the image's.
        let ours = storms[0].stages.iter().find(|row| row.stage == Stage::Initramfs);
        let initrd = ours.map_or(sizes.initrd, |row| row.bytes);
        let root = storms[0].stages.iter().find(|row| row.stage == Stage::Root);
        let root = root.map_or(sizes.root, |row| row.bytes);
        let sizes = Sizes { initrd, root, ..sizes };
        storms.push(options.clone().against(Server::Theirs, &temporary.0, sizes)?);
    }
    if let Some(path) = &options.plot {
        let text = plot::svg(&storms, &options.in_words());
        std::fs::write(path, text).with_context(|| path.display().to_string())?;
    }
    let text = match options.json {
        true => serde_json::to_string_pretty(&storms)? + "\n",
        false => {
            let tables: Vec<String> = storms.iter().map(Summary::table).collect();
            format!("{}\n\n{}", options.in_words(), tables.join("\n"))
        }
    };
    std::io::stdout().write_all(text.as_bytes())?;
    let failed: usize = storms.first().map_or(0, |ours| ours.failed);
    if failed > 0 {
        bail!("{failed} machines are not up; --keep DIR keeps what the server said");
    }
    Ok(())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Server {
    Ours,
    Theirs,
}

impl Options {
    fn sizes(&self) -> Sizes {
        Sizes {
            loader: self.loader_size,
            kernel: self.kernel_size,
            initrd: self.initrd_size,
            root: self.root_size,
        }
    }

    fn in_words(&self) -> String {
        let kib = |bytes: u64| format!("{} KiB", bytes / 1024);
        let share = |million: u32| format!("{} %", f64::from(million) / 10_000.0);
        format!(
            "{} machines ({}) on within {:.0} s, thinking {} times as fast as hardware; {} lost, {} doubled, \
             {} slow; loaders {}, kernel {}, image's initramfs {}, root {}",
            self.machines,
            self.mix,
            self.within.as_secs_f64(),
            self.speed,
            share(self.loss),
            share(self.doubled),
            share(self.slow),
            kib(self.loader_size),
            kib(self.kernel_size),
            kib(self.initrd_size),
            kib(self.root_size)
        )
    }

    /// One storm against one server, on a wire that is gone afterwards.
    fn against(
        self: Arc<Self>,
        server: Server,
        dir: &Path,
        sizes: Sizes,
    ) -> anyhow::Result<Summary> {
        let dir = dir.join(if server == Server::Ours { "koboshi" } else { "peer" });
        std::fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
        let plan = Plan {
            address: paper::SERVER,
            prefix: paper::PREFIX,
            router: false,
            ..Plan::default()
        };
        let bridge = plan.bridge.clone();
        if server == Server::Ours {
            prepare(&self, &dir, &bridge, sizes)?;
        }
        super::on_wire(plan, move |wire| async move {
            let stop = demo::stop_token();
            let peer = lay(&wire, self.loss)?;
            let enemy = match self.enemy.filter(|_| server == Server::Ours) {
                Some(rate) => Some((enemy::lay(&wire)?, rate)),
                None => None,
            };
            let rack = Rack::raise(wire, &dir, vec![])?;
            let mut appliance = None;
            let mut programs = Vec::new();
            let pids = match server {
                Server::Ours => {
                    let program = self.koboshi.clone().unwrap_or_else(own_path);
                    let (site, state) = (dir.join("site.toml"), dir.join("state"));
                    let started = Appliance::start(&rack, &program, &site, &state).await?;
                    appliance.insert(started).pid().into_iter().collect()
                }
                Server::Theirs => {
                    for program in peer::lay(&dir, &bridge, &sizes)? {
                        programs.push(start(&rack, program).await?);
                    }
                    // nginx's workers are its children.
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    let pids = programs.iter().filter_map(tokio::process::Child::id);
                    pids.flat_map(with_children).collect::<Vec<u32>>()
                }
            };
            let before = usage(&[std::process::id()]);
            let options = self.clone();
            let (watched, halt) = (pids.clone(), stop.clone());
            let peace = CancellationToken::new();
            let attack = enemy.map(|(peer, rate)| {
                let (machines, seed, peace) = (self.machines, self.seed, peace.clone());
                tokio::task::spawn_blocking(move || {
                    peer.keeper.run(move || enemy::attack(machines, rate, seed, &peace))
                })
            });
            let stormed = tokio::task::spawn_blocking(move || {
                peer.keeper.run(move || options.storm(&watched, &halt))
            });
            let stormed = stormed.await;
            peace.cancel();
            let siegework = match attack {
                Some(attack) => Some(attack.await???),
                None => None,
            };
            let (outcome, usage_then) = stormed???;
            if stop.is_cancelled() {
                bail!("broken off");
            }
            let own = usage(&[std::process::id()]).cpu - before.cpu;
            let name = if server == Server::Ours { "koboshi" } else { peer::NAME };
            let mut summary = Summary::new(name, &outcome, usage_then, own);
            summary.enemy = siegework;
            if let Some(appliance) = appliance {
                if siegework.is_some() {
                    summary.hostile = appliance.hostile().await?;
                }
                let rows = appliance.rows().await?;
                let up = rows.iter().filter(|row| row.stage == "up").count();
                if up != summary.up {
                    eprintln!("the appliance knows of {up} machines that are up");
                }
                appliance.stop().await;
            }
            for mut program in programs {
                program.start_kill()?;
                program.wait().await?;
            }
            anyhow::Ok(summary)
        })?
    }

    /// The storm itself, on the storm's side of the wire.
    fn storm(&self, pids: &[u32], stop: &CancellationToken) -> anyhow::Result<(Outcome, Usage)> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let wire = Packets::open("eth0").context("the storm's packet socket")?;
            let bar = Bar::new(self.machines);
            let weather = Weather {
                seed: self.seed,
                lost: self.loss,
                doubled: self.doubled,
                most: self.most,
                after: QUIET.div_f64(self.speed.max(1.0)),
            };
            let machines = (0..self.machines).map(|number| self.machine(number)).collect();
            let began = usage(pids);
            let tell = |progress: &Progress| bar.show(progress);
            let outcome = drive::run(machines, &wire, weather, tell, stop.cancelled()).await;
            let mut spent = usage(pids);
            spent.cpu -= began.cpu;
            bar.clear();
            anyhow::Ok((outcome.context("the storm's wire")?, spent))
        })
    }

    fn machine(&self, number: u32) -> Machine {
        let mut dice = Dice::new(self.seed, u64::from(number) << 32);
        let spec = Spec {
            number,
            mac: drive::mac(number),
            firmware: self.mix.of(dice.draw()),
            on: dice.within(self.within),
            reads: dice.chance(self.slow).then_some(self.slow_rate.saturating_mul(1000)),
        };
        Machine::new(spec, self.seed, self.speed)
    }
}

/// The cable between server and storm. Behind the server's back there is no neighbour but one; on the
/// storm's side the kernel has the addresses of all machines for TCP, and neither ARP nor UDP of theirs.
fn lay(wire: &Wire, loss: u32) -> Result<Peer, Error> {
    let peer = wire.peer()?;
    let (bridge, prefix) = (&wire.plan().bridge, paper::PREFIX);
    let server = paper::SERVER;
    ip(
        wire.keeper(),
        "leading the way to the storm",
        &format!(
            "neigh replace {ROUTER} lladdr {STORM_MAC} dev {bridge} nud permanent\n\
             route replace 10.77.0.0/{prefix} via {ROUTER} dev {bridge} onlink src {server}\n"
        ),
    )?;
    let mut script = format!(
        "link set eth0 down\nlink set eth0 address {STORM_MAC} arp off\nlink set eth0 up\n\
         route add {server}/32 dev eth0\n\
         neigh replace {server} lladdr {BRIDGE_MAC} dev eth0 nud permanent\n"
    );
    for block in paper::BLOCKS {
        script += &format!("route add local {block} dev lo\n");
    }
    ip(&peer.keeper, "giving the storm its addresses", &script)?;
    let drop = format!("numgen random mod 1000000 < {loss} drop");
    let tcp = if loss > 0 { format!("meta l4proto tcp {drop}") } else { String::new() };
    peer.nft(&format!(
        "table ip storm {{\n\
         chain in {{ type filter hook input priority 0; meta l4proto udp drop; {tcp}; }}\n\
         chain out {{ type filter hook output priority 0; {tcp}; }}\n}}\n"
    ))?;
    Ok(peer)
}

/// Site, loaders and image of the appliance.
fn prepare(options: &Options, dir: &Path, bridge: &str, sizes: Sizes) -> anyhow::Result<()> {
    let (loaders, root, state) = (dir.join("loaders"), dir.join("root"), dir.join("state"));
    paper::loaders(&loaders, sizes.loader)?;
    if root.exists() {
        std::fs::remove_dir_all(&root)?;
    }
    paper::root(&root, &sizes)?;
    std::fs::write(
        dir.join("site.toml"),
        paper::site(options.machines, bridge, &loaders, options.enemy.is_some()),
    )?;
    let program = options.koboshi.clone().unwrap_or_else(own_path);
    let root = root.display().to_string();
    for words in [&["import", paper::IMAGE, &root][..], &["publish", paper::IMAGE]] {
        let mut command = std::process::Command::new(&program);
        command.arg("image").args(words).arg("--state").arg(&state).stdin(Stdio::null());
        let output = command.output().with_context(|| program.display().to_string())?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("koboshi image {}: {}", words.join(" "), said.trim());
        }
    }
    Ok(())
}

async fn start(rack: &Rack, program: peer::Program) -> anyhow::Result<tokio::process::Child> {
    let places = ["/usr/sbin", "/usr/bin"].map(|dir| Path::new(dir).join(program.name));
    let Some(place) = places.iter().find(|place| place.exists()) else {
        let (tool, package) = (program.name.to_string(), program.package);
        return Err(Error::MissingTool { tool, package }.into());
    };
    let log = rack.dir().join(format!("{}.out", program.name));
    let log = std::fs::File::create(&log).with_context(|| log.display().to_string())?;
    let mut command = rack.command(place);
    command.args(&program.arguments).envs(program.environment);
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    let mut child = rack.spawn(command).await?;
    tokio::time::sleep(Duration::from_millis(700)).await;
    if let Some(status) = child.try_wait()? {
        bail!("{} ended at once ({status}); see {}", program.name, rack.dir().display());
    }
    Ok(child)
}

fn with_children(pid: u32) -> Vec<u32> {
    let path = format!("/proc/{pid}/task/{pid}/children");
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let children = text.split_whitespace().filter_map(|word| word.parse().ok());
    std::iter::once(pid).chain(children).collect()
}

/// A bar on a terminal; elsewhere a line every ten seconds.
struct Bar {
    bar: ProgressBar,
    terminal: bool,
}

impl Bar {
    fn new(machines: u32) -> Bar {
        let bar = ProgressBar::new(u64::from(machines));
        let style = ProgressStyle::with_template("{bar:30} {pos} of {len} up  {msg}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        Bar { bar, terminal: std::io::stderr().is_terminal() }
    }

    fn show(&self, progress: &Progress) {
        let passed = |stage: Stage| progress.passed[stage as usize];
        let text = format!(
            "{:>4.0} s: {} on, {} with an address, {} script, {} root",
            progress.at.as_secs_f64(),
            progress.on,
            passed(Stage::Ipxe),
            passed(Stage::Script),
            passed(Stage::Root)
        );
        if self.terminal {
            self.bar.set_position(passed(Stage::Up) as u64);
            self.bar.set_message(text);
        } else if progress.at.as_secs().is_multiple_of(10) {
            eprintln!("{text}, {} up", passed(Stage::Up));
        }
    }

    fn clear(&self) {
        if self.terminal {
            self.bar.finish_and_clear();
        }
    }
}

/// A directory that goes with us, unless it was named.
struct Temporary(PathBuf, bool);

impl Temporary {
    fn new(keep: Option<&Path>) -> anyhow::Result<Temporary> {
        let ours = || std::env::temp_dir().join(format!("koboshi-storm-{}", std::process::id()));
        let dir = keep.map_or_else(ours, Path::to_path_buf);
        std::fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
        Ok(Temporary(dir.canonicalize()?, keep.is_none()))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if self.1 {
            // Nothing in it that anybody misses.
            let _gone = std::fs::remove_dir_all(&self.0).is_ok();
        }
    }
}

/// `10s`, `2m`, `500ms`.
fn seconds(text: &str) -> Result<Duration, String> {
    let (number, unit) =
        text.split_at(text.find(|c: char| c.is_alphabetic()).unwrap_or(text.len()));
    let number: f64 = number.parse().map_err(|_| format!("{text:?} is no time: say 10s"))?;
    let unit = match unit {
        "ms" => 0.001,
        "s" | "" => 1.0,
        "m" => 60.0,
        _ => return Err(format!("{text:?} is no time: say 500ms, 10s or 2m")),
    };
    Duration::try_from_secs_f64(number * unit).map_err(|error| format!("{text:?}: {error}"))
}

/// `1%`, `0.5%`: of a million.
fn percent(text: &str) -> Result<u32, String> {
    let number = text.trim_end_matches('%').trim().parse::<f64>();
    let share = number.ok().filter(|share| (0.0..=100.0).contains(share));
    share.map(|share| (share * 10_000.0) as u32).ok_or(format!("{text:?} is no share: say 1%"))
}

/// `64k`, `1m`, bytes without a letter.
fn size(text: &str) -> Result<u64, String> {
    let lower = text.trim().to_ascii_lowercase();
    let digits = lower.trim_end_matches(|c: char| c.is_alphabetic());
    let shift = match &lower[digits.len()..] {
        "" | "b" => 0,
        "k" | "kib" => 10,
        "m" | "mib" => 20,
        "g" | "gib" => 30,
        _ => return Err(format!("{text:?} is no size: say 64k or 1m")),
    };
    let number: u64 = digits.trim().parse().map_err(|_| format!("{text:?} is no size: say 64k"))?;
    let most = 4u64 << 30;
    number
        .checked_shl(shift)
        .filter(|bytes| *bytes <= most && number <= most)
        .ok_or(format!("{text:?} is too large"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_typed_is_read() {
        assert_eq!(seconds("10s"), Ok(Duration::from_secs(10)));
        assert_eq!(seconds("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(seconds("1.5m"), Ok(Duration::from_secs(90)));
        assert_eq!(
            (percent("1%"), percent("0.1"), percent("100%")),
            (Ok(10_000), Ok(1000), Ok(1_000_000))
        );
        assert_eq!((size("64k"), size("1MiB"), size("7")), (Ok(65_536), Ok(1 << 20), Ok(7)));
        for bad in ["", "x", "-1", "5h"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
        for bad in ["101%", "-1", "x"] {
            assert!(percent(bad).is_err(), "{bad}");
        }
        for bad in ["", "1t", "99999999999999g", "é"] {
            assert!(size(bad).is_err(), "{bad}");
        }
    }
}
