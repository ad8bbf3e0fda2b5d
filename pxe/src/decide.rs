//! The one boot decision: what the client said, what the site says of it and how its boot stands,
//! in; what it gets and because of which rules, out. DHCP, TFTP, HTTP and `koboshi explain` all
//! ask here, and nothing here knows a socket, a clock or a file.

mod entry;
mod rules;

use std::fmt;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::Mac;
use crate::boots::{Plan, Stage};
use crate::loader::{self, Language};
use crate::menu::{Becomes, Choice};

pub use entry::{Entry, Exclusive, Known, Place, Seat, Ticket, Unknown};
pub use rules::Rule;

/// What the client said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Its address.
    pub mac: Mac,
    /// What it wants to know.
    pub asks: Asks,
}

/// The question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asks {
    /// An address, and perhaps a boot file.
    Dhcp {
        /// Who speaks, by options 60 and 77.
        client: Client,
        /// Option 93; some firmware lists several, some none.
        archs: Vec<Arch>,
        /// A DISCOVER, as against the REQUEST that follows it.
        discover: bool,
    },
    /// `GET /boot/<mac>.ipxe`
    Script,
}

/// Which program on the machine speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Client {
    /// A PXE ROM or UEFI's PXE stack: option 60 begins with `PXEClient`.
    Firmware,
    /// UEFI HTTP boot: option 60 begins with `HTTPClient`.
    HttpBoot,
    /// iPXE, from flash or loaded by us: option 77 is `iPXE`.
    Ipxe,
    /// Anything else: an operating system that wants an address.
    System,
}

/// Client system architecture, option 93 (RFC 4578 and IANA's "Processor Architecture Types").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Arch(pub u16);

impl Arch {
    /// BIOS.
    pub const BIOS: Arch = Arch(0);
    /// UEFI x86-64. Most firmware says 7 (which IANA calls EBC), some 9.
    pub const EFI64: Arch = Arch(7);
    /// UEFI x86-64 HTTP boot.
    pub const HTTP64: Arch = Arch(16);
    /// UEFI arm64.
    pub const ARM64: Arch = Arch(11);

    /// As the command line spells it.
    pub fn named(name: &str) -> Option<Arch> {
        Some(match name {
            "bios" => Arch::BIOS,
            "efi64" => Arch::EFI64,
            "http64" => Arch::HTTP64,
            "arm64" => Arch::ARM64,
            number => Arch(number.parse().ok()?),
        })
    }

    /// The loader this architecture starts when nobody says otherwise.
    pub fn default_loader(self) -> Option<&'static str> {
        Some(match self.0 {
            0 => "undionly.kpxe",
            7 | 9 | 16 => "ipxe.efi",
            11 | 19 => "snponly-arm64.efi",
            _ => return None,
        })
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => f.write_str("BIOS"),
            6 => f.write_str("UEFI x86-32"),
            7 | 9 => f.write_str("UEFI x86-64"),
            11 => f.write_str("UEFI arm64"),
            15 => f.write_str("UEFI x86-32 HTTP"),
            16 => f.write_str("UEFI x86-64 HTTP"),
            19 => f.write_str("UEFI arm64 HTTP"),
            other => write!(f, "architecture {other}"),
        }
    }
}

/// A choice that waits for the boot it was made for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chosen {
    /// What was chosen.
    pub choice: Arc<Choice>,
    /// In the loader, which asks DHCP again at once; otherwise in `koboshi-init`, which starts the
    /// machine over.
    pub in_loader: bool,
}

/// How the machine's current boot stands.
#[derive(Debug, Clone)]
pub struct Live {
    /// How far it is.
    pub stage: Stage,
    /// How long ago it was opened.
    pub age: Duration,
    /// What was frozen, unless the machine had nothing to boot.
    pub plan: Option<Arc<Plan>>,
    /// The address is a seat's, not a lease of the pool.
    pub fixed: bool,
    /// It goes by the NIC that asks now, not by another one of the machine.
    pub here: bool,
    /// What was chosen at its console for the boot that follows.
    pub chosen: Option<Chosen>,
}

/// What the client gets, and why.
#[derive(Debug, Clone)]
pub struct Step {
    /// What it gets.
    pub action: Action,
    /// The rules that decided, in the order they did.
    pub because: Vec<Rule>,
}

/// What the client gets.
#[derive(Debug, Clone)]
pub enum Action {
    /// Nothing at all.
    Silence,
    /// An address.
    Address {
        /// The seat's, or one of the pool.
        address: Option<Ipv4Addr>,
        /// Host name to go with it.
        hostname: Option<String>,
        /// Boot file, if it boots.
        loader: Option<Loader>,
        /// A new boot begins with this offer.
        opens: bool,
    },
    /// The frozen plan, as a script.
    Boot(Arc<Plan>),
    /// A script that says why there is nothing to boot, and asks again.
    Wait {
        /// What to say on the console: a line for the timeline too, and perhaps more.
        says: String,
        /// There is something to boot by now, and only a boot has to begin: by DHCP.
        begins: bool,
    },
}

/// What the boot file names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Loader {
    /// A file of our TFTP server.
    Tftp(String),
    /// A file of our HTTP server (UEFI HTTP boot).
    Http(String),
    /// The machine's script, by HTTP: the client is iPXE already.
    Script,
}

/// A firmware DISCOVER within this time of the last, with nothing loaded since, is the same boot
/// asking again: EDK2 repeats at 4, 8, 16 and 32 seconds, a ROM's own retry round is a minute.
const SAME_BOOT: Duration = Duration::from_secs(90);
/// A boot that began this long ago without a plan would have one, were it only a matter of asking.
const SETTLED: Duration = Duration::from_secs(30);
/// From a loader handed over to iPXE's own DISCOVER: slow ROMs take their time to unpack it.
const LOADER_TO_IPXE: Duration = Duration::from_secs(300);

/// Decides.
pub fn decide(facts: &Facts, entry: &Entry, live: Option<&Live>) -> Step {
    if facts.mac.is_multicast() {
        return Step { action: Action::Silence, because: vec![Rule::MacIsMulticast] };
    }
    let mut because = Vec::new();
    let typed = typed(facts, entry, live);
    let (entry, live) = match &typed {
        // A new boot, whatever was under way.
        Some(typed) => (typed, None),
        None => (entry, live),
    };
    let standing = standing_of(entry, &mut because);
    let Some(standing) = standing else {
        return Step { action: Action::Silence, because };
    };
    match &facts.asks {
        Asks::Script => script(standing, live, because),
        Asks::Dhcp { client, archs, discover } => {
            address(standing, *client, archs, *discover, live, because)
        }
    }
}

/// What a machine is by a choice made at its console, if this is the question that the choice was
/// made for: the DISCOVER that begins the next boot.
pub fn typed(facts: &Facts, entry: &Entry, live: Option<&Live>) -> Option<Entry> {
    let chosen = live?.chosen.as_ref()?;
    let begins = match facts.asks {
        Asks::Dhcp { client: Client::Ipxe, discover, .. } => discover,
        Asks::Dhcp { client: Client::Firmware | Client::HttpBoot, discover, .. } => {
            discover && !chosen.in_loader
        }
        Asks::Dhcp { client: Client::System, .. } | Asks::Script => false,
    };
    let choice = begins.then(|| chosen.choice.clone())?;
    match entry {
        // The site may have changed its mind about strangers since.
        Entry::Unknown(unknown) => matches!(**unknown, Unknown::Menu(_))
            .then(|| Entry::Unknown(Arc::new(Unknown::Typed(choice)))),
        Entry::Known(known) => {
            let seat = match (&known.place, &choice.becomes) {
                (Place::Seat(seat), Becomes::Seat) => Some(seat.clone()),
                // An order came after it was typed, and goes before it.
                (Place::Ticket(_), _) => return None,
                // Its seat is another machine's by now, or none at all: it waits as it would.
                (_, Becomes::Seat) => return None,
                (_, Becomes::Role(_)) => None,
            };
            let place = Place::Typed { choice, seat };
            Some(Entry::Known(Arc::new(Known { place, ..known.as_ref().clone() })))
        }
    }
}

/// What the site wants of the machine, whoever it is.
struct Wanted<'a> {
    seat: Option<&'a str>,
    address: Option<Ipv4Addr>,
    loader: Option<&'a str>,
    nothing_because: Option<String>,
}

fn standing_of<'a>(entry: &'a Entry, because: &mut Vec<Rule>) -> Option<Wanted<'a>> {
    match entry {
        Entry::Unknown(policy) => {
            because.push(Rule::MacUnknown);
            match policy.as_ref() {
                Unknown::Ignore => None,
                Unknown::Menu(_) => {
                    because.extend([Rule::MenuAsks, Rule::PoolAddress]);
                    Some(Wanted { seat: None, address: None, loader: None, nothing_because: None })
                }
                Unknown::Typed(choice) => {
                    because.extend([Rule::Typed(choice.says()), Rule::PoolAddress]);
                    Some(Wanted { seat: None, address: None, loader: None, nothing_because: None })
                }
                Unknown::Role { trouble, .. } => {
                    because.push(Rule::PoolAddress);
                    because.extend(trouble.clone().map(Rule::RoleTrouble));
                    Some(Wanted {
                        seat: None,
                        address: None,
                        loader: None,
                        nothing_because: trouble.clone(),
                    })
                }
            }
        }
        Entry::Known(known) => {
            because.push(Rule::MacKnown);
            let loader = known.loader.as_deref();
            match &known.place {
                Place::Seat(seat) => {
                    because.push(Rule::MatrixSeat);
                    because.push(match seat.address {
                        Some(address) => Rule::SeatAddress(address),
                        None => Rule::PoolAddress,
                    });
                    because.push(Rule::SeatRole);
                    because.extend(seat.trouble.clone().map(Rule::RoleTrouble));
                    Some(Wanted {
                        seat: Some(&seat.name),
                        address: seat.address,
                        loader,
                        nothing_because: seat.trouble.clone(),
                    })
                }
                Place::Taken(seat, held) => {
                    because.push(Rule::MatrixSeat);
                    because.push(Rule::SeatHeld(held.clone()));
                    because.push(Rule::PoolAddress);
                    because.extend(seat.trouble.clone().map(Rule::RoleTrouble));
                    let says = format!("{}\n{}\n{}", held.says(), held.evidence(), held.ends());
                    Some(Wanted { seat: None, address: None, loader, nothing_because: Some(says) })
                }
                Place::Typed { choice, seat } => {
                    because.push(Rule::Typed(choice.says()));
                    let address = seat.as_ref().and_then(|seat| seat.address);
                    because.push(address.map_or(Rule::PoolAddress, Rule::SeatAddress));
                    let seat = seat.as_ref().map(|seat| seat.name.as_str());
                    Some(Wanted { seat, address, loader, nothing_because: None })
                }
                Place::Ticket(ticket) => {
                    because.extend([Rule::Ticket(ticket.duty.clone()), Rule::PoolAddress]);
                    let nothing_because = ticket.trouble.clone();
                    because.extend(nothing_because.clone().map(Rule::RoleTrouble));
                    Some(Wanted { seat: None, address: None, loader, nothing_because })
                }
                Place::Spare => {
                    because.push(Rule::MatrixSpare);
                    because.push(Rule::PoolAddress);
                    let says = format!("{} is a spare and waits for a seat", known.name);
                    Some(Wanted { seat: None, address: None, loader, nothing_because: Some(says) })
                }
                Place::Nowhere => {
                    because.push(Rule::MatrixSilent);
                    because.push(Rule::PoolAddress);
                    let says = format!("the matrix gives {} no seat", known.name);
                    Some(Wanted { seat: None, address: None, loader, nothing_because: Some(says) })
                }
            }
        }
    }
}

fn script(wanted: Wanted<'_>, live: Option<&Live>, mut because: Vec<Rule>) -> Step {
    if let Some(plan) = live.and_then(|live| live.plan.clone()) {
        because.push(Rule::FrozenPlan);
        return Step { action: Action::Boot(plan), because };
    }
    // Not at once: a machine that can only begin by starting over must not do so for ever.
    let settled = live.is_none_or(|live| live.age >= SETTLED);
    let begins = wanted.nothing_because.is_none() && settled;
    let says = wanted
        .nothing_because
        .unwrap_or_else(|| "no boot is open for this machine: it asks DHCP again".to_string());
    Step { action: Action::Wait { says, begins }, because }
}

fn address(
    wanted: Wanted<'_>,
    client: Client,
    archs: &[Arch],
    discover: bool,
    live: Option<&Live>,
    mut because: Vec<Rule>,
) -> Step {
    // Two NICs of one machine never have one address each of two seats, and never one address both:
    // what has booted has it, and the next boot decides for the whole machine.
    let elsewhere = live.is_some_and(|live| !live.here && live.plan.is_some());
    let elsewhere = elsewhere && live.is_some_and(|live| live.stage != Stage::Down);
    if elsewhere && (client == Client::System || !discover) {
        because.push(Rule::OtherNic);
        because.push(Rule::PoolAddress);
        let pooled = Action::Address { address: None, hostname: None, loader: None, opens: false };
        return Step { action: pooled, because };
    }
    let live = live.filter(|live| live.here);
    let bootable_now = wanted.nothing_because.is_none();
    let speaks = match client {
        // Sent on to PXELINUX or GRUB it never comes back: when iPXE asks, the machine was reset.
        Client::Ipxe if sends_on(wanted.loader, archs) => Client::Firmware,
        client => client,
    };
    let continues = live.filter(|live| goes_on(live, speaks, discover, bootable_now));
    let (mut address, mut hostname) = (wanted.address, wanted.seat.map(str::to_string));
    if let Some((live, plan)) = continues.and_then(|live| Some((live, live.plan.as_ref()?))) {
        because.push(Rule::FrozenPlan);
        address = live.fixed.then_some(plan.address);
        hostname = Some(plan.hostname.clone());
    }
    let loader = match client {
        Client::System => {
            because.push(Rule::NotBooting);
            None
        }
        _ => {
            let loaded = continues.is_some_and(|live| live.stage >= Stage::Loader);
            choose_loader(client, archs, wanted.loader, loaded, &mut because)
        }
    };
    let opens = client != Client::System && continues.is_none();
    Step { action: Action::Address { address, hostname, loader, opens }, because }
}

/// Whether this exchange belongs to the boot under way, or begins a new one.
fn goes_on(live: &Live, client: Client, discover: bool, bootable_now: bool) -> bool {
    // A machine that waited without a plan begins afresh the moment it has something to boot.
    if live.plan.is_none() && bootable_now {
        return false;
    }
    match client {
        // The system that runs keeps what its boot was given until it netboots again. One that was
        // shut down in good order is another system now, from a disk perhaps.
        Client::System => live.stage != Stage::Down,
        Client::Firmware | Client::HttpBoot => {
            !discover || (live.stage < Stage::Loader && live.age < SAME_BOOT)
        }
        // Without a plan iPXE asks again and again from the waiting script: one boot, not many.
        Client::Ipxe => {
            !discover
                || live.plan.is_none()
                || (live.stage <= Stage::Loader && live.age < LOADER_TO_IPXE)
        }
    }
}

fn choose_loader(
    client: Client,
    archs: &[Arch],
    named: Option<&str>,
    loaded: bool,
    because: &mut Vec<Rule>,
) -> Option<Loader> {
    let over = |file: &str| match client {
        Client::HttpBoot => Loader::Http(loader::path(file)),
        _ => Loader::Tftp(loader::path(file)),
    };
    let is_ipxe = client == Client::Ipxe;
    let told = told(archs);
    let goes_last = |named: &&str| loader::language(named) == Language::Ipxe && is_ipxe && loaded;
    if let Some(named) = named.filter(|named| !goes_last(named)) {
        if told.iter().any(|arch| loader::fits(named, *arch)) {
            because.push(Rule::LoaderNamed(named.to_string()));
            return Some(over(named));
        }
        because.push(Rule::LoaderMisfit(named.to_string()));
    }
    if is_ipxe {
        because.push(Rule::AlreadyIpxe);
        return Some(Loader::Script);
    }
    let choice = told.iter().find_map(|arch| Some((*arch, arch.default_loader()?)));
    match choice {
        Some((arch, file)) => {
            because.push(Rule::LoaderByArch(arch, file.to_string()));
            Some(over(file))
        }
        None => {
            because.push(Rule::NoLoader(told.first().copied()));
            None
        }
    }
}

/// RFC 4578 §2.1: a ROM without option 93 is old, and old is BIOS.
pub(crate) fn told(archs: &[Arch]) -> &[Arch] {
    if archs.is_empty() { &[Arch::BIOS] } else { archs }
}

/// Whether iPXE in a ROM is given another program than iPXE to start.
fn sends_on(named: Option<&str>, archs: &[Arch]) -> bool {
    named.is_some_and(|named| {
        let other = loader::language(named) != Language::Ipxe;
        other && told(archs).iter().any(|arch| loader::fits(named, *arch))
    })
}

#[cfg(test)]
mod tests;
