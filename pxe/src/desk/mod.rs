//! The counter every booting machine comes to. DHCP, TFTP and HTTP bring their questions here; the
//! desk looks the machine up in the one snapshot of the site, asks `decide`, opens boots, freezes
//! plans, and tells the appliance what happened. It owns no socket.

mod begun;
mod choose;
mod files;
mod gate;
mod heard;
mod news;
mod orders;
mod place;
mod reports;
pub mod said;
mod stand;
mod tickets;
mod turns;
mod wire;

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime};

use arc_swap::ArcSwap;
use tokio::sync::mpsc;

pub use self::choose::NoChoice;
use crate::Mac;
use crate::boots::{Boot, Boots, Plan, Stage};
use crate::content::{BootId, Content};
use crate::decide::{
    Action, Asks, Client, Entry, Facts, Known, Live, Step, Ticket, Unknown, typed,
};
use crate::dhcp::Subnet;
use crate::firmware::Firmware;
use crate::hostile::Hostile;
use crate::menu::Offered;
use crate::pace;
use crate::script::Uart;
use crate::seats::Seats;

use heard::Subject;
pub use news::{News, Offer, ReportRefusal};
pub use place::{Kind, Network, Reach};
pub use stand::Bmc;
use stand::Question;

/// One reading of the site, as far as booting machines are concerned. Published whole.
pub struct Snapshot {
    /// Counts readings.
    pub revision: u64,
    /// The networks machines and BMCs stand on. The first is where most of them do.
    pub networks: Vec<Network>,
    /// Addresses that seats have.
    pub seats: HashSet<Ipv4Addr>,
    /// BMCs by MAC.
    pub bmcs: HashMap<Mac, Bmc>,
    /// Another DHCP server lends the addresses (`mode = "proxy"`).
    pub proxy: bool,
    /// HTTP port.
    pub http_port: u16,
    /// Machines by each of their MACs.
    pub machines: HashMap<Mac, Arc<Known>>,
    /// What becomes of others.
    pub unknown: Arc<Unknown>,
    /// Roles that may be chosen at the consoles of the site's machines, if any.
    pub menu: Option<Arc<Vec<Offered>>>,
    /// Loaders by file name.
    pub loaders: HashMap<String, Content>,
    /// Blobs that any boot may ask for.
    pub blobs: HashMap<[u8; 32], Content>,
    /// Makes plans.
    pub freeze: Arc<dyn Freeze>,
}

/// Makes the plan of a boot. The appliance knows roles, images and archives; the desk only when.
pub trait Freeze: Send + Sync {
    /// The plan for this machine at this address of this network, or in words why there is nothing to boot.
    fn freeze(
        &self,
        mac: Mac,
        entry: &Entry,
        id: BootId,
        address: Ipv4Addr,
        network: &Subnet,
    ) -> Result<Plan, String>;

    /// The serial line of a machine, if a loader can drive it (S24).
    fn uart(&self, entry: &Entry) -> Option<Uart>;

    /// The image that a machine would boot now in this role, as a person says it: `web@3`.
    fn image(&self, machine: &str, role: &str) -> Option<String>;

    /// Why what a machine would boot now in this role has no room in so many bytes of memory, if it has none.
    fn no_room(&self, machine: &str, role: &str, memory: u64) -> Option<String> {
        let _ = (machine, role, memory);
        None
    }

    /// Why the image of a ticket cannot be booted now, if it cannot.
    fn no_image(&self, image: &str) -> Option<String> {
        let _ = image;
        None
    }
}

/// See the module.
pub struct Desk {
    site: ArcSwap<Snapshot>,
    boots: Mutex<Inner>,
    news: mpsc::Sender<News>,
    lost: AtomicU64,
    draw: Draw,
    /// What looks like harm.
    pub hostile: Hostile,
}

/// Where random numbers come from: ids of boots, and the pauses in scripts.
pub type Draw = fn() -> u64;

#[derive(Default)]
struct Inner {
    boots: Boots,
    seats: Seats,
    tickets: HashMap<String, Ticket>,
    budgets: HashMap<BootId, (f64, Instant)>,
    heard: HashMap<(Subject, &'static str), Instant>,
    questions: HashMap<Mac, Question>,
    strays: HashMap<Ipv4Addr, Instant>,
    /// Boots that may have begun, of machines that run.
    begun: begun::Begins,
    /// To be told once nobody looks.
    forged: Vec<(Mac, String)>,
    /// Strangers that were told of one by one, since when.
    strangers: Option<(Instant, usize)>,
    rate: pace::Rate,
    queue: turns::Queue,
    /// When a machine was last told to wait for its turn.
    storm: Option<Instant>,
}

impl Desk {
    /// A desk over a first reading of the site.
    pub fn new(snapshot: Snapshot, news: mpsc::Sender<News>) -> Desk {
        Desk::drawing(snapshot, news, pace::draw)
    }

    /// A desk whose answers depend on nothing but what it is told, if `draw` does.
    pub fn drawing(snapshot: Snapshot, news: mpsc::Sender<News>, draw: Draw) -> Desk {
        Desk {
            site: ArcSwap::from_pointee(snapshot),
            boots: Mutex::default(),
            news,
            lost: AtomicU64::new(0),
            draw,
            hostile: Hostile::default(),
        }
    }

    /// Puts a new reading in force. Boots under way keep their plans.
    pub fn publish(&self, snapshot: Snapshot) {
        self.site.store(Arc::new(snapshot));
    }

    /// The reading in force.
    pub fn site(&self) -> Arc<Snapshot> {
        self.site.load_full()
    }

    /// News that found the ledger's queue full.
    pub fn lost_news(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// What a client gets, and why. Changes nothing.
    pub fn ask(&self, facts: &Facts) -> Step {
        let site = self.site.load();
        self.inner().ask(&site, facts)
    }

    /// The same for a client that stands on this network.
    fn ask_on(&self, facts: &Facts, subnet: &Subnet) -> Step {
        let site = self.site.load();
        self.inner().ask_on(&site, facts, Some(subnet))
    }

    /// How the boot stands that a machine began by this MAC.
    pub fn live(&self, mac: Mac) -> Option<Live> {
        self.inner().boots.of(mac).map(|boot| boot.live(Instant::now()))
    }

    /// A machine's boot under way.
    pub fn boot_of(&self, mac: Mac) -> Option<Boot> {
        self.inner().boots.of(mac).cloned()
    }

    /// All boots under way.
    pub fn boots(&self) -> Vec<Boot> {
        self.inner().boots.iter().cloned().collect()
    }

    /// An address was offered: the moment a boot is opened, once.
    pub fn offered(&self, facts: &Facts, offer: &Offer) {
        let site = self.site.load();
        let mut inner = self.inner();
        let step = inner.ask_on(&site, facts, Some(&offer.subnet));
        let Action::Address { opens, address: fixed, .. } = step.action else { return };
        let address = offer.address;
        // The site was read anew, or the seat given away, while the pool's address was being probed:
        // the REQUEST for it will be refused, and the next DISCOVER opens the boot.
        if fixed.is_some_and(|fixed| fixed != address) {
            return;
        }
        // A lease that lapsed between two tries of one firmware: the old plan names an address
        // that may be another machine's by now.
        if opens || (boots(facts) && inner.moved(facts.mac, address)) {
            if self.may_begin(&mut inner, &site, facts, fixed, offer) {
                return;
            }
            self.open(&mut inner, &site, facts, fixed, offer, SystemTime::now());
        }
    }

    /// Another server's address was taken (`mode = "proxy"`): the moment a boot is opened there. The
    /// seat's own address, where it has one, is set by the machine itself.
    pub fn lent_elsewhere(&self, facts: &Facts, offer: &Offer) {
        let Asks::Dhcp { client, .. } = &facts.asks else { return };
        {
            let site = self.site.load();
            let mut inner = self.inner();
            let step = inner.ask_on(&site, facts, Some(&offer.subnet));
            let Action::Address { opens, address: fixed, .. } = step.action else { return };
            let moved = boots(facts) && inner.moved(facts.mac, offer.address);
            if opens || (moved && !inner.boots.lent(facts.mac, offer.address)) {
                if self.may_begin(&mut inner, &site, facts, fixed, offer) {
                    drop(inner);
                    let note = format!("{} to {}", offer.shown(), says(*client));
                    self.may_have_begun(facts, offer, &note);
                    return;
                }
                self.open(&mut inner, &site, facts, fixed, offer, SystemTime::now());
            }
        }
        self.left(facts.mac, offer.address);
        self.took(facts.mac, format!("{} to {}", offer.shown(), says(*client)));
    }

    /// An address was acknowledged. After a restart in mid-exchange this opens the boot.
    pub fn acked(&self, facts: &Facts, offer: &Offer, file: Option<&str>) {
        let Asks::Dhcp { client, .. } = &facts.asks else { return };
        if *client == Client::System {
            return;
        }
        let file = file.map(|file| format!("{}{file}", said::THEN)).unwrap_or_default();
        let note = format!("{} to {}{file}", offer.address, says(*client));
        if self.may_have_begun(facts, offer, &note) {
            return;
        }
        if self.live(facts.mac).is_none() || self.inner().moved(facts.mac, offer.address) {
            self.offered(facts, offer);
        }
        self.left(facts.mac, offer.address);
        self.took(facts.mac, note);
    }

    fn took(&self, mac: Mac, note: String) {
        self.took_at(mac, note, SystemTime::now());
    }

    fn took_at(&self, mac: Mac, note: String, at: SystemTime) {
        let waits = |boot: &Boot| boot.plan.is_none() && boot.stage == Stage::Waiting;
        // It asks every 10 to 20 seconds; that it still waits is no news.
        if !self.inner().boots.of(mac).is_some_and(waits) {
            self.advance_at(mac, Stage::Ack, note, at);
        }
    }

    fn new_id(&self) -> BootId {
        let mut id = [0; 16];
        for half in id.chunks_exact_mut(8) {
            half.copy_from_slice(&(self.draw)().to_be_bytes());
        }
        BootId(id)
    }

    fn open(
        &self,
        inner: &mut Inner,
        site: &Snapshot,
        facts: &Facts,
        fixed: Option<Ipv4Addr>,
        offer: &Offer,
        at: SystemTime,
    ) {
        let address = fixed.unwrap_or(offer.address);
        let entry = inner.entry_on(site, facts.mac, Some(&offer.subnet));
        let typed = typed(facts, &entry, inner.live(&entry, facts.mac).as_ref());
        let entry = typed.unwrap_or(entry);
        if inner.too_late(&entry, facts.mac, address) {
            return;
        }
        let id = self.new_id();
        let plan = match entry.trouble() {
            Some(why) => Err(why.to_string()),
            None => site.freeze.freeze(facts.mac, &entry, id, address, &offer.subnet),
        };
        let (plan, why) = match plan {
            Ok(plan) => (Some(Arc::new(plan)), None),
            Err(why) => (None, Some(why)),
        };
        let (machine, others) = match &entry {
            Entry::Known(known) => (known.name.clone(), known.macs.as_slice()),
            Entry::Unknown(_) => (facts.mac.to_string(), &[][..]),
        };
        let mut boot =
            Boot::begin(id, facts.mac, address, fixed.is_some(), plan.clone(), Instant::now());
        boot.lent = (offer.address != address).then_some(offer.address);
        let plan_because = plan.as_ref().and_then(|plan| plan.because.clone());
        let (fixed, lent, via) = (fixed.is_some(), boot.lent, offer.via.clone());
        // Its firmware speaks on one NIC: whatever ran and had booted by another does not.
        let mut over: Vec<Boot> = others
            .iter()
            .filter(|mac| **mac != facts.mac)
            .filter_map(|mac| inner.boots.close(*mac))
            .collect();
        for mac in others.iter().chain([&facts.mac]) {
            inner.begun.remove(*mac);
        }
        boot.addresses().for_each(|address| inner.begun.leave(address));
        let holds = inner.sit(&entry, &boot);
        over.extend(inner.boots.open(boot));
        for boot in &over {
            inner.budgets.remove(&boot.id);
        }
        let over = over.iter().map(|boot| (boot.id, boot.mac)).collect();
        let (mac, firmware) = (facts.mac, Firmware::of(facts));
        // Told before anybody else has a turn: the ledger writes holdings in the order they changed.
        self.tell(News::Opened {
            id,
            mac,
            machine,
            address,
            fixed,
            lent,
            via,
            plan,
            holds,
            firmware,
            over,
            at,
        });
        let who = match &facts.asks {
            Asks::Dhcp { client, archs, .. } => {
                let archs: Vec<String> = archs.iter().map(ToString::to_string).collect();
                format!("{} ({})", says(*client), archs.join(", "))
            }
            Asks::Script => "its script".to_string(),
        };
        let why = why.as_deref().and_then(|why| why.lines().next());
        let why = why.map(|why| format!("; nothing to boot: {why}")).unwrap_or_default();
        let typed = match entry.choice() {
            Some(choice) => format!("; {} was typed at its console", choice.says()),
            None => String::new(),
        };
        let because = plan_because.map(|because| format!("; {because}")).unwrap_or_default();
        let through = offer.via.as_ref().map(|via| format!(", by {via}")).unwrap_or_default();
        let note = format!("{} to {who}{through}{typed}{because}{why}", offer.shown());
        self.tell(News::Mark { id, stage: Stage::Offer, note, at });
        self.tell_waits(&entry, mac);
    }

    /// Puts a boot back after a restart of the appliance.
    pub fn restore(&self, boot: Boot) {
        self.inner().boots.open(boot);
    }

    /// Something about the machine at this address worth a line in its boot's timeline.
    pub fn remark(&self, peer: IpAddr, note: String) {
        if self.may_be_of_begun(peer, &note) {
            return;
        }
        if let Some(mac) = self.mac_at(peer) {
            self.note(mac, note);
        }
    }

    /// A blob by digest: of the site as it stands, or promised to a boot under way.
    pub fn blob(&self, digest: &[u8; 32]) -> Option<Content> {
        self.site.load().blobs.get(digest).cloned().or_else(|| self.inner().boots.blob(digest))
    }

    /// Moves a boot on, never back, and tells.
    fn advance(&self, mac: Mac, stage: Stage, note: String) {
        self.advance_at(mac, stage, note, SystemTime::now());
    }

    fn advance_at(&self, mac: Mac, stage: Stage, note: String, at: SystemTime) {
        let id = {
            let mut inner = self.inner();
            let Some(boot) = inner.boots.of_mut(mac) else { return };
            // iPXE's own ACK comes after its loader: the boot is no less far for it. And a machine
            // that is up and fetches its kernel's blob again is no less up.
            let turn_came = boot.stage == Stage::Waiting && stage == Stage::Script;
            let further = stage > boot.stage || turn_came;
            boot.stage = if turn_came { stage } else { boot.stage.max(stage) };
            if further {
                boot.moved = Some(Instant::now());
            }
            let (id, reached) = (boot.id, boot.stage);
            // A new stage is told always, there are few; the rest within the boot's budget.
            if !further && (reached >= Stage::Init || !inner.spend(id)) {
                return;
            }
            id
        };
        self.tell(News::Mark { id, stage, note, at });
    }

    /// A line in the timeline that moves nothing.
    fn note(&self, mac: Mac, note: String) {
        self.note_at(mac, note, SystemTime::now());
    }

    fn note_at(&self, mac: Mac, note: String, at: SystemTime) {
        let (id, stage) = {
            let mut inner = self.inner();
            let Some(boot) = inner.boots.of(mac) else { return };
            let (id, stage) = (boot.id, boot.stage);
            if !inner.spend(id) {
                return;
            }
            (id, stage)
        };
        self.tell(News::Mark { id, stage, note, at });
    }

    fn mac_at(&self, peer: IpAddr) -> Option<Mac> {
        mac_at(&self.inner().boots, peer)
    }

    fn tell(&self, news: News) -> bool {
        let told = self.news.try_send(news).is_ok();
        if !told {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        told
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.boots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn moved(&self, mac: Mac, address: Ipv4Addr) -> bool {
        self.boots.of(mac).is_some_and(|boot| boot.address != address)
    }
}

impl Snapshot {
    /// What the site says of a MAC.
    pub fn entry(&self, mac: Mac) -> Entry {
        match self.machines.get(&mac) {
            Some(known) => Entry::Known(known.clone()),
            None => Entry::Unknown(self.unknown.clone()),
        }
    }
}

fn mac_at(boots: &Boots, peer: IpAddr) -> Option<Mac> {
    match peer {
        IpAddr::V4(address) => boots.at(address).map(|boot| boot.mac),
        IpAddr::V6(_) => None,
    }
}

/// Whether a boot asks, as against a running system.
fn boots(facts: &Facts) -> bool {
    !matches!(facts.asks, Asks::Dhcp { client: Client::System, .. })
}

fn says(client: Client) -> &'static str {
    match client {
        Client::Firmware => said::FIRMWARE,
        Client::HttpBoot => said::HTTP_BOOT,
        Client::Ipxe => said::IPXE,
        Client::System => "a running system",
    }
}

#[cfg(test)]
mod gate_tests;
#[cfg(test)]
mod networks_tests;
#[cfg(test)]
mod tests;
