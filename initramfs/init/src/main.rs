//! `koboshi-init`, PID 1 of a booting machine: fetches its role's root and becomes it.
//!
//! The moments of a boot, in order; each is a module of the same name:
//! [`mounts`] and [`console`] → [`cmdline`] and [`orders`] → [`modules`] → [`net`] → [`report`] and
//! [`clock`] (over [`http`]) → [`hardware`] and [`bmc`] → [`menu`] → [`root`] → [`disks`] → [`settle`] →
//! [`switch`]. [`agent`] stays behind in the running system and does its [`duty`], where one was ordered; with it
//! stay [`logs`], and what answers which [`changes`] were made there; [`rescue`] is where a boot ends up that
//! cannot go on. What may hang is run as an [`errand`], what failed is tried again after a [`backoff`].

#[path = "../../src/contract.rs"]
#[allow(dead_code, reason = "the appliance's half of the contract is not used here")]
mod contract;
#[path = "../../src/changes/mod.rs"]
#[allow(dead_code, reason = "the appliance's half of it is not used here")]
mod wire;

mod agent;
mod backoff;
mod bmc;
mod changes;
mod clock;
mod cmdline;
mod console;
mod disks;
mod duty;
mod errand;
mod hardware;
mod http;
mod logs;
mod menu;
mod modules;
mod mounts;
mod net;
mod orders;
mod report;
mod rescue;
mod root;
mod settle;
mod switch;

use std::convert::Infallible;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use cmdline::Cmdline;
use console::{Pause, pause, say};
use contract::room::Memory;
use contract::{HOSTS_PATH, Hardware, ORDERS_PATH, Orders, Phase};
use http::Server;
use modules::Modules;
use net::link::Card;
use net::links::Network;
use report::Reporter;
use rescue::Stop;

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some(agent::WORD) && !is_init() {
        return agent::run();
    }
    if std::env::args().nth(1).as_deref() == Some(changes::WORD) && !is_init() {
        return changes::run(std::env::args());
    }
    if std::env::args().nth(1).as_deref() == Some(logs::WORD) && !is_init() {
        return logs::run(std::env::args().nth(2));
    }
    if !is_init()
        && let Some(code) = errand::run(std::env::args())
    {
        return code;
    }
    // The kernel's own request_module(): a PHY's driver (`mdio:…`), a file system, a cipher.
    if std::env::args().next().is_some_and(|name| name.ends_with("/modprobe")) && !is_init() {
        return modprobe();
    }
    if !is_init() {
        eprintln!(
            "koboshi-init is PID 1 of a machine that boots from a koboshi appliance, and nothing else"
        );
        return ExitCode::from(2);
    }
    rescue::catch_panics();
    let troubles = mounts::basics();
    console::open();
    let text = fs::read_to_string("/proc/cmdline").unwrap_or_default();
    let line = cmdline::parse(&text);
    let seq = std::env::var(rescue::SEQ_KEY).ok().and_then(|seq| seq.parse().ok()).unwrap_or(0);
    let boot = line.boot.as_deref().and_then(report::boot_id);
    let mut reporter = Reporter { server: None, boot, seq };
    say(format!("koboshi-init {}, kernel {}", env!("CARGO_PKG_VERSION"), kernel()));
    troubles.iter().for_each(say);
    match boot_machine(&line, &mut reporter) {
        Err(stop) => rescue::shell(&stop, &mut reporter),
    }
}

/// `/sbin/modprobe -q -- ALIAS`, as the kernel calls it while the initramfs is the root.
fn modprobe() -> ExitCode {
    let text = fs::read_to_string("/proc/cmdline").unwrap_or_default();
    let mut modules = Modules::at_hand();
    let wanted = std::env::args().next_back().unwrap_or_default();
    match modules.request(&wanted, &cmdline::parse(&text)) {
        0 => ExitCode::FAILURE,
        _ => ExitCode::SUCCESS,
    }
}

fn boot_machine(line: &Cmdline, reporter: &mut Reporter) -> Result<Infallible, Stop> {
    let server = line.server.as_deref().ok_or("no koboshi.server= on the command line".to_owned());
    let server = server.and_then(Server::parse).map_err(Stop::Because)?;
    reporter.server = Some(server);
    let mut orders =
        orders::read(&Path::new("/").join(ORDERS_PATH), line).map_err(Stop::Because)?;
    orders.hosts = orders::hosts(&Path::new("/").join(HOSTS_PATH));
    clock::mind(None, orders.written);
    say(format!(
        "seat {}, role {}, root {}",
        line.seat.as_deref().unwrap_or("none"),
        line.role.as_deref().unwrap_or("none"),
        orders.root.image
    ));
    if orders.menu.as_ref().is_some_and(|menu| !menu.asks) {
        say("type 'menu' now to choose another role");
    }
    if reporter.boot.is_none() {
        say("no koboshi.boot= on the command line: this boot will not be reported");
    }

    let mut modules = Modules::at_hand();
    let card = find_nic(line, &orders, &mut modules)?;
    // Only a machine without a seat is asked which of its cables are plugged: elsewhere a port that
    // nobody wants up stays down.
    let stranger = line.seat.as_deref().is_none_or(|seat| seat == "-");
    let woken = if stranger { net::link::wake_others(&card) } else { Vec::new() };
    let mut network = Network::build(&orders, &card, &mut modules, line)?;
    let trouble = network.come_up(&orders.nic)?;
    let begun = Phase::Init {
        kernel: kernel(),
        memory_mib: Memory::now().total >> 20,
        nic: network.boot().card.name.clone(),
    };
    tell(reporter, begun, orders.written);
    if let Some(message) = trouble {
        tell(reporter, Phase::Trouble { message }, orders.written);
    }
    network.further(&orders, &mut modules, line, &mut |message| {
        tell(reporter, Phase::Trouble { message }, orders.written);
    })?;
    for message in std::mem::take(&mut network.troubles) {
        tell(reporter, Phase::Trouble { message }, orders.written);
    }
    let hardware = tell_hardware(None, reporter, orders.written);
    if let Some(menu) = &orders.menu {
        menu::offer(menu, server, reporter)?;
    }

    // Before the root: an NFS 4 client is known to its server by its host name (RFC 8881 2.4). Two
    // machines that mount under one name end each other's state, and one finds EIO where its root was.
    if let Err(errno) = rustix::system::sethostname(orders.hostname.as_bytes()) {
        say(format!("host name not set: {errno}"));
    }
    let whole = root::build(server, &orders, &mut modules, line, reporter)?;
    // Links, disks and BMCs that were still waking up the first time.
    tell_hardware(Some(hardware), reporter, orders.written);
    net::link::lower(&woken);

    let tree = settle::intree::Tree(PathBuf::from(mounts::NEW_ROOT));
    let init = switch::find_init(&tree, line.init.as_deref()).ok_or_else(|| {
        Stop::because(format!("{} holds no init and no shell", orders.root.image))
    })?;
    disks::attach(&tree, &orders, &mut modules, line, reporter)?;
    settle::settle(&tree, &orders, &network.links, &network.named).iter().for_each(say);
    network.announce_again();
    for message in network.silent() {
        say(&message);
        tell(reporter, Phase::Trouble { message }, orders.written);
    }
    tell(reporter, Phase::Switching, orders.written);
    if let Err(error) = changes::leave(&orders, reporter.boot.as_deref(), whole) {
        say(format!("what changes here will not be known: {error}"));
    }
    if let Err(error) = agent::leave(reporter, &orders) {
        say(format!("no agent: {error}"));
    }
    say(format!("{} becomes {} by {init}", orders.hostname, orders.root.image));
    Err(switch::switch(&init))
}

/// Loads drivers until the boot NIC is there and no device asks for more.
fn find_nic(line: &Cmdline, orders: &Orders, modules: &mut Modules) -> Result<Card, Stop> {
    say(format!("looking for NIC {} ({} modules at hand)", orders.nic.mac, modules.len()));
    // ARP for ourselves goes through packet sockets, a module in most distributions.
    let mut loaded = modules.load("af_packet", line);
    let begun = Instant::now();
    let mut next_word = 5;
    loop {
        let more = modules.coldplug(Path::new("/sys"), line);
        loaded += more;
        if more > 0 {
            continue;
        }
        if let Some(card) = net::link::boot_nic(&orders.nic) {
            // A device file is nobody's device: no alias asks for this one.
            if bmc::expected(Path::new("/sys")) {
                loaded += modules.load("ipmi_devintf", line);
            }
            say(format!("NIC {} is {} ({loaded} modules loaded)", orders.nic.mac, card.name));
            return Ok(card);
        }
        let waited = begun.elapsed().as_secs();
        if waited >= next_word {
            // Ten seconds for a slow card; after a minute it is likely not to come at all.
            next_word = if waited < 60 { waited + 10 } else { waited + 60 };
            say(format!(
                "no NIC {} after {waited} s; there is: {}; waiting ('rescue' for a shell)",
                orders.nic.mac,
                net::link::inventory()
            ));
        }
        if pause(Duration::from_millis(200)) == Pause::Rescue {
            return Err(Stop::Asked);
        }
    }
}

/// What the machine is made of, if that was not told yet.
fn tell_hardware(told: Option<Hardware>, reporter: &mut Reporter, floor: u64) -> Hardware {
    let bmc = if bmc::expected(Path::new("/sys")) { bmc::read() } else { None };
    let hardware = Hardware { bmc, ..hardware::gather(Path::new("/")) };
    if told.as_ref() != Some(&hardware) {
        tell(reporter, Phase::Hardware(Box::new(hardware.clone())), floor);
    }
    hardware
}

/// A report, and the appliance's clock from its answer.
pub(crate) fn tell(reporter: &mut Reporter, phase: Phase, floor: u64) {
    if let Ok(Some(date)) = reporter.tell(phase) {
        clock::mind(Some(date), floor);
    }
}

fn is_init() -> bool {
    rustix::process::getpid().is_init()
}

fn kernel() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}
