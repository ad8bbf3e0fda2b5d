//! `koboshi explain <machine|seat|mac>`: what the machine would get at each step, and the line of
//! the site file behind every rule that decided. It asks the very function the wire asks.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context;
use koboshi_initramfs::contract::room::never_fits;
use koboshi_initramfs::contract::{Hardware, Orders};
use koboshi_pxe::Mac;
use koboshi_pxe::decide::{self, Action, Arch, Asks, Entry, Facts, Loader, Rule, Step};
use koboshi_pxe::desk::{self, Desk, Network};
use koboshi_pxe::firmware::{Firmware, Way};
use koboshi_pxe::loader::{self, Language};
use serde::{Deserialize, Serialize};

use crate::api::Refusal;
use crate::app::App;
use crate::hardware;
use crate::home::Homes;
use crate::hostile;
use crate::loaders;
use crate::publish;
use crate::site::{self, Origin, Site};

/// What is asked.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Query {
    /// Machine, seat or MAC.
    pub who: String,
    /// `bios`, `efi64`, `http64`, `arm64`, or a number of option 93.
    #[serde(default)]
    pub arch: Option<String>,
}

/// The whole answer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Explanation {
    /// `m01 (52:54:00:77:00:01)`
    pub who: String,
    /// Each step of its boot.
    pub steps: Vec<Explained>,
    /// What it would boot, if anything.
    pub plan: Option<PlanShown>,
    /// Why it would boot nothing.
    #[serde(default)]
    pub nothing: Option<String>,
    /// Why the root of that has no room in its memory, as far as that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub room: Option<String>,
    /// What it is made of, by its last boot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hardware: Option<Hardware>,
    /// What its firmware said of itself when it last booted by the network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub firmware: Option<Firmware>,
    /// Where that disagrees with its past or with the site.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub evidence: Vec<String>,
}

/// One step.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Explained {
    /// `firmware (BIOS) asks DHCP`
    pub asks: String,
    /// What it gets.
    pub gets: String,
    /// Why: rule and line.
    pub because: Vec<Because>,
}

/// A rule that decided.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Because {
    /// In words.
    pub rule: String,
    /// `site.toml:42`, where the site decided.
    pub line: Option<String>,
}

/// The plan a boot that began now would be given.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PlanShown {
    /// Seat.
    pub seat: Option<String>,
    /// Role.
    pub role: String,
    /// Image.
    pub image: String,
    /// Why this version of it.
    #[serde(default)]
    pub version: String,
    /// Kernel command line (the boot id is made up).
    pub cmdline: String,
    /// Segments and sizes.
    pub parts: Vec<(String, u64)>,
    /// Bonds and further networks, a line each.
    #[serde(default)]
    pub links: Vec<String>,
}

/// Explains, with what the running appliance knows of the machine's hardware.
pub fn answer(app: &App, query: &Query) -> Result<Explanation, Refusal> {
    let site = app.site.load();
    let client = find(&site, &query.who)?;
    let firmware = match &client {
        Client::Machine(Some(name), _) => app.ledger.firmware(name),
        _ => None,
    };
    let machine = match client {
        Client::Machine(name, mac) => Some(name.unwrap_or_else(|| mac.to_string())),
        Client::Malformed(_) => None,
    };
    let record = machine.as_ref().and_then(|machine| app.ledger.hardware().remove(machine));
    let hardware = record.map(|record| record.hardware);
    let memory = hardware.as_ref().map(|hardware| hardware.memory_mib << 20);
    let mut explanation = explain(&site, &app.desk, query, firmware, memory)?;
    if let Some(machine) = machine {
        explanation.hardware = hardware;
        explanation.evidence = app.ledger.evidence().remove(&machine).unwrap_or_default();
    }
    let troubles = app.desk.hostile.now(Instant::now());
    explanation.evidence.extend(troubles.iter().map(hostile::line));
    Ok(explanation)
}

/// Explains, for the architecture asked for, or that which the machine's firmware is known to have. `memory`: bytes
/// that the machine has, if that is known.
pub fn explain(
    site: &Site,
    desk: &Desk,
    query: &Query,
    firmware: Option<Firmware>,
    memory: Option<u64>,
) -> Result<Explanation, Refusal> {
    let (name, mac) = match find(site, &query.who)? {
        Client::Machine(name, mac) => (name, mac),
        Client::Malformed(why) => return Ok(malformed(site, &query.who, why)),
    };
    let archs: Vec<Arch> = match (&query.arch, firmware) {
        (None, None) => vec![Arch::BIOS, Arch::EFI64],
        (None, Some(firmware)) => vec![firmware.arch],
        (Some(text), _) => {
            let help = "bios, efi64, http64, arm64, or a number of DHCP option 93".to_string();
            let arch = Arch::named(text).ok_or_else(|| {
                Refusal::not_found(format!("no architecture {text:?}"), Some(help))
            })?;
            vec![arch]
        }
    };
    let snapshot = desk.site();
    if let Some(bmc) = snapshot.bmcs.get(&mac) {
        return Ok(of_bmc(site, mac, bmc));
    }
    let entry = desk.entry(mac);
    let mut steps = Vec::new();
    let boots = |network: &&Network| network.kind == desk::Kind::Boot;
    let mut pools =
        snapshot.networks.iter().filter(boots).filter_map(|one| one.subnet.pool.clone());
    let pool = pools.next();
    let no_pool = pool.is_none() && !snapshot.proxy;
    let mut ask = |asks: String, question: Asks| {
        let step = desk.ask(&Facts { mac, asks: question });
        let starves = matches!(step.action, Action::Address { address: None, .. }) && no_pool;
        let because = step.because.iter().map(|rule| Because {
            rule: rule.to_string(),
            line: line(site, mac, &entry, rule).map(|origin| origin.to_string()),
        });
        let absent = |file: &str| !snapshot.loaders.contains_key(file);
        let gets = if starves {
            "no answer: it needs an address of the pool, and there is no pool in [net]".to_string()
        } else {
            gets(&step, snapshot.proxy, &absent)
        };
        steps.push(Explained { asks, gets, because: because.collect() });
        match step.action {
            Action::Address { loader: Some(Loader::Tftp(file) | Loader::Http(file)), .. } => {
                Some(file)
            }
            _ => None,
        }
    };
    // An iPXE in the ROM is told apart by what was heard of the machine.
    let rom = firmware.filter(|firmware| firmware.way == Way::Ipxe && query.arch.is_none());
    let mut others = Vec::new();
    let mut ipxe = None;
    for arch in archs {
        let client = if rom.is_some() {
            decide::Client::Ipxe
        } else if matches!(arch.0, 15 | 16 | 19) {
            decide::Client::HttpBoot
        } else {
            decide::Client::Firmware
        };
        let question = Asks::Dhcp { client, archs: vec![arch], discover: true };
        let speaks = if rom.is_some() { "iPXE in its ROM" } else { "firmware" };
        match ask(format!("{speaks} ({arch}) asks DHCP"), question) {
            Some(file) if loader::language(&file) != Language::Ipxe => others.push(file),
            _ => ipxe = ipxe.or(Some(arch)),
        }
    }
    if let Some(arch) = ipxe {
        let archs = vec![arch];
        if rom.is_none() {
            let question = Asks::Dhcp { client: decide::Client::Ipxe, archs, discover: true };
            ask("iPXE asks DHCP".to_string(), question);
        }
        ask(format!("iPXE asks for /boot/{mac}.ipxe"), Asks::Script);
    }
    for file in others {
        let orders = match loader::language(&file) {
            Language::Grub => "grub/grub.cfg-01-",
            _ => "pxelinux.cfg/01-",
        };
        ask(format!("{file} asks for {orders}{}", mac.dashed()), Asks::Script);
    }

    let address = match &desk.ask(&Facts { mac, asks: Asks::Script }).action {
        Action::Boot(plan) => Some(plan.address),
        _ => seat_address(&entry),
    };
    let address = address.or_else(|| pool.map(|pool| *pool.start()));
    // Beside another DHCP server any address of the network stands for the one that it will lend.
    let first = snapshot.networks.iter().find(boots).map(|one| &one.subnet);
    let address = address.or(first.filter(|_| snapshot.proxy).map(|subnet| subnet.server));
    let network = address.and_then(|address| Some((address, snapshot.subnet_of(address)?)));
    let frozen = network.ok_or_else(|| "it gets no address".to_string());
    let frozen = frozen.and_then(|(address, subnet)| {
        let id = koboshi_pxe::BootId([0; 16]);
        snapshot.freeze.freeze(mac, &entry, id, address, subnet)
    });
    let nothing = frozen.as_ref().err().cloned();
    if let Ok(plan) = &frozen {
        let because = version(site, plan);
        for step in &mut steps {
            let role =
                step.because.iter().position(|because| because.rule == Rule::SeatRole.to_string());
            if let Some(at) = role {
                step.because.insert(at + 1, because.clone());
            }
        }
    }
    let orders = frozen.as_ref().ok().and_then(|plan| serde_json::from_str(&plan.orders).ok());
    let orders: Option<Orders> = orders;
    let room = orders.as_ref().zip(memory.filter(|memory| *memory > 0));
    let room = room.and_then(|(orders, memory)| never_fits(&orders.root, memory).err());
    let plan = frozen.ok().map(|plan| PlanShown {
        parts: plan.parts().map(|part| (part.name.clone(), part.size)).collect(),
        version: version(site, &plan).rule,
        seat: plan.seat,
        role: plan.role,
        image: plan.image,
        cmdline: plan.cmdline,
        links: orders.as_ref().map(crate::plan::nics::in_words).unwrap_or_default(),
    });
    let who = match name {
        Some(name) => format!("{name} ({mac})"),
        None => format!("{mac}, which no machine has"),
    };
    let (hardware, evidence) = (None, Vec::new());
    Ok(Explanation { who, steps, plan, nothing, room, hardware, firmware, evidence })
}

/// Why a boot that begins now gets this version of its image.
fn version(site: &Site, plan: &koboshi_pxe::boots::Plan) -> Because {
    let role = site.roles.get(plan.role.as_str());
    let rule = match (&plan.because, role) {
        (Some(because), _) => because.clone(),
        (None, Some(role)) if role.image.value.version.is_some() => {
            format!("the role has {} and no other", plan.image)
        }
        _ => format!("{} is what machines boot", plan.image),
    };
    Because { rule, line: role.map(|role| role.image.origin.to_string()) }
}

/// A desk over a site file and the images of a state directory, for when no appliance runs.
pub fn desk_of(site: &Arc<Site>, state: &Path) -> anyhow::Result<Desk> {
    publish::boot_subnet(site).context("the site has no network to boot on")?;
    let homes = Homes::stand_ins(site);
    let images = koboshi_images::Store::open(state.join("images"))?;
    let (rollout, known) = (Arc::default(), BTreeMap::new());
    let reading =
        publish::read(site.clone(), &images, &rollout, &homes, &known, 0, publish::common());
    let (news, _) = tokio::sync::mpsc::channel(1);
    Ok(Desk::new(reading.snapshot, news))
}

/// Who was meant.
enum Client {
    /// A machine of the site, or a MAC that no machine has.
    Machine(Option<String>, Mac),
    /// No Ethernet address, and why.
    Malformed(String),
}

/// What a client gets whose hardware address is none (hlen 0 or 255, a cut MAC): nothing.
fn malformed(site: &Site, who: &str, why: String) -> Explanation {
    let heard = publish::boot_subnet(site).map(|subnet| subnet.origin.to_string());
    let step = Explained {
        asks: "a client with that address asks DHCP".to_string(),
        gets: "no answer at all".to_string(),
        because: vec![Because { rule: Rule::Malformed(why).to_string(), line: heard }],
    };
    Explanation {
        who: format!("{who:?}, which is no client"),
        steps: vec![step],
        plan: None,
        nothing: None,
        room: None,
        hardware: None,
        firmware: None,
        evidence: Vec::new(),
    }
}

/// What a BMC gets: its address, and nothing to boot.
fn of_bmc(site: &Site, mac: Mac, bmc: &desk::Bmc) -> Explanation {
    let line = site.by_bmc_mac.get(&mac).map(|at| at.origin.to_string());
    let kind = |subnet: &&site::At<site::Subnet>| subnet.kind == site::Kind::Bmc;
    let mut networks = site.subnets.iter().filter(kind);
    let lives = bmc.address.and_then(|ip| networks.find(|subnet| subnet.cidr.contains(ip)));
    let gets = match (bmc.address, lives) {
        (Some(address), Some(_)) => format!("{address}, for ever, and no boot file"),
        _ => "no address of ours: the site has no network of BMCs with its own in it".to_string(),
    };
    let known = Because { rule: format!("the MAC is that of the BMC of {}", bmc.machine), line };
    let network = lives.map(|subnet| Because {
        rule: "its network is one of BMCs".to_string(),
        line: Some(subnet.origin.to_string()),
    });
    let step = Explained {
        asks: "it asks DHCP".to_string(),
        gets,
        because: [Some(known), network].into_iter().flatten().collect(),
    };
    Explanation {
        who: format!("the BMC of {} ({mac})", bmc.machine),
        steps: vec![step],
        plan: None,
        nothing: Some("a BMC boots nothing of ours".to_string()),
        evidence: Vec::new(),
        room: None,
        hardware: None,
        firmware: None,
    }
}

fn find(site: &Site, who: &str) -> Result<Client, Refusal> {
    let looks_like_mac = who.contains(':') || who.matches('-').count() == 5;
    match who.parse::<Mac>() {
        Ok(mac) => {
            let name = site.machine_by_mac(mac).map(|(name, _)| name.to_string());
            return Ok(Client::Machine(name, mac));
        }
        Err(error) if looks_like_mac => return Ok(Client::Malformed(error.to_string())),
        Err(_) => {}
    }
    let name = super::one(site, who)?;
    let machine = site.machines.get(&name);
    let mac = machine.and_then(|machine| machine.macs.first()).ok_or_else(|| {
        let line = machine.map(|machine| format!("{} gives it none", machine.origin));
        Refusal::not_found(format!("{name} does not boot: it has no MAC"), line)
    })?;
    Ok(Client::Machine(Some(name.to_string()), mac.value))
}

fn seat_address(entry: &Entry) -> Option<std::net::Ipv4Addr> {
    match entry {
        Entry::Known(known) => match &known.place {
            koboshi_pxe::decide::Place::Seat(seat) => seat.address,
            _ => None,
        },
        Entry::Unknown(_) => None,
    }
}

fn gets(step: &Step, proxy: bool, absent: &dyn Fn(&str) -> bool) -> String {
    match &step.action {
        Action::Silence => "no answer at all".to_string(),
        Action::Address { address, hostname, loader, .. } => {
            let address = match address {
                _ if proxy => "no address (proxy mode: another server lends it)".to_string(),
                Some(address) => address.to_string(),
                None => "an address of the pool".to_string(),
            };
            let name = hostname.as_ref().filter(|_| !proxy);
            let name = name.map(|name| format!(" as {name}")).unwrap_or_default();
            let then = match loader {
                Some(Loader::Tftp(file) | Loader::Http(file)) if absent(file) => {
                    let bring = match loaders::package(file) {
                        Some(package) => format!("the package {package} has it"),
                        None => "put it into the folder of [site] loaders".to_string(),
                    };
                    format!(", then {file}, which is NOT THERE: {bring}")
                }
                Some(Loader::Tftp(file)) => format!(", then {file} over TFTP"),
                Some(Loader::Http(file)) => format!(", then {file} over HTTP"),
                Some(Loader::Script) => ", then its script over HTTP".to_string(),
                None => ", and no boot file".to_string(),
            };
            format!("{address}{name}{then}")
        }
        Action::Boot(plan) => {
            format!("the plan of its boot under way: {} ({})", plan.role, plan.image)
        }
        Action::Wait { says, .. } => {
            format!("orders to wait: {}", says.lines().next().unwrap_or_default())
        }
    }
}

/// The line of the site file behind a rule.
fn line<'a>(site: &'a Site, mac: Mac, entry: &Entry, rule: &Rule) -> Option<&'a Origin> {
    let machine = site.machine_by_mac(mac);
    let place = machine.and_then(|(name, _)| site.matrix.get(name));
    let seat = machine.and_then(|(name, _)| site.seat_of(name)).map(|(_, seat)| seat);
    let role = match entry {
        Entry::Unknown(_) => match &site.net.unknown {
            site::Unknown::Role(role) => site.roles.get(role),
            site::Unknown::Discover => site.roles.get("rescue"),
            _ => None,
        },
        Entry::Known(_) => seat.and_then(|seat| site.role_of(seat)).map(|(_, role)| role),
    };
    match rule {
        Rule::MacKnown => site.by_mac.get(&mac).map(|mac| &mac.origin),
        Rule::MacUnknown | Rule::MenuAsks => site.net.unknown_at.as_ref().map(|line| &line.origin),
        Rule::MatrixSeat | Rule::MatrixSpare | Rule::SeatHeld(_) => place.map(|line| &line.origin),
        Rule::MatrixSilent => machine.map(|(_, machine)| &machine.origin),
        Rule::SeatAddress(_) => seat.and_then(|seat| Some(&seat.ip.as_ref()?.origin)),
        Rule::PoolAddress => {
            publish::boot_subnet(site).and_then(|subnet| Some(&subnet.pool.as_ref()?.origin))
        }
        Rule::SeatRole => seat.map(|seat| &seat.role.origin),
        Rule::RoleTrouble(_) => role.map(|role| &role.image.origin),
        Rule::LoaderNamed(_) | Rule::LoaderMisfit(_) => {
            let machine = machine.map(|(_, machine)| &machine.value);
            site.loader(machine, role.map(|role| &role.value)).origin
        }
        Rule::MacIsMulticast | Rule::Malformed(_) => {
            publish::boot_subnet(site).map(|subnet| &subnet.origin)
        }
        Rule::Typed(_) | Rule::Ticket(_) => None,
        Rule::FrozenPlan
        | Rule::LoaderByArch(..)
        | Rule::NoLoader(_)
        | Rule::AlreadyIpxe
        | Rule::OtherNic
        | Rule::NotBooting => None,
    }
}

/// For a terminal.
pub fn show(explanation: &Explanation) -> String {
    let mut text = format!("{}\n", explanation.who);
    if let Some(firmware) = explanation.firmware {
        text.push_str(&format!("  its firmware, when it last booted: {firmware}\n"));
    }
    for step in &explanation.steps {
        text.push_str(&format!("\n{}\n  gets {}\n", step.asks, step.gets));
        for because in &step.because {
            let line = because.line.as_ref().map(|line| format!("   {line}")).unwrap_or_default();
            text.push_str(&format!("  because {}{line}\n", because.rule));
        }
    }
    match &explanation.plan {
        Some(plan) => {
            let seat = plan.seat.as_deref().unwrap_or("no seat");
            text.push_str(&format!(
                "\na boot that began now would become {seat} (role {}, image {})\n  {}\n",
                plan.role, plan.image, plan.version
            ));
            for (name, size) in &plan.parts {
                text.push_str(&format!("  {name:<10} {:>9.1} KiB\n", *size as f64 / 1024.0));
            }
            plan.links.iter().for_each(|line| text.push_str(&format!("  {line}\n")));
            text.push_str(&format!("  command line: {}\n", plan.cmdline));
        }
        None => {
            let why = explanation.nothing.as_deref().unwrap_or("it is no client");
            text.push_str(&format!("\na boot that began now would find nothing to boot: {why}\n"));
        }
    }
    if let Some(room) = &explanation.room {
        text.push_str(&format!("WARNING: it would not boot: {room}\n"));
    }
    if let Some(hardware) = &explanation.hardware {
        text.push_str("\nit says of itself\n");
        for line in hardware::lines(hardware) {
            text.push_str(&format!("  {line}\n"));
        }
    }
    for line in &explanation.evidence {
        text.push_str(&format!("EVIDENCE: {line}\n"));
    }
    text
}
