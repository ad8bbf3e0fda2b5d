//! The counter every booting machine comes to. DHCP, TFTP and HTTP bring their questions here; the
//! desk looks the machine up in the one snapshot of the site, asks `decide`, opens boots, freezes
//! plans, and tells the appliance what happened. It owns no socket.

mod begun;
mod choose;
mod files;
mod gate;
mod heard;
mod lately;
mod news;
mod opens;
mod orders;
mod place;
mod reports;
pub mod said;
mod stand;
mod tickets;
mod timeline;
mod turns;
mod wire;

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use arc_swap::ArcSwap;
use tokio::sync::mpsc;

pub use self::choose::NoChoice;
use crate::Mac;
use crate::boots::{Boot, Boots, Plan};
use crate::content::{BootId, Content};
use crate::decide::{Asks, Client, Entry, Facts, Known, Live, Step, Ticket, Unknown};
use crate::dhcp::Subnet;
use crate::hostile::Hostile;
use crate::http;
use crate::menu::Offered;
use crate::pace;
use crate::script::Uart;
use crate::seats::Seats;

pub use news::{News, Offer, ReportRefusal};
pub use place::{Kind, Network, Reach};
pub use stand::Bmc;

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
    sockets: OnceLock<Arc<http::Counters>>,
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
    heard: heard::Told,
    questions: stand::Questions,
    strays: gate::Strays,
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
            sockets: OnceLock::new(),
            hostile: Hostile::default(),
        }
    }

    /// Whose bytes show what the wire can do. Without, boots alone do, once they have all.
    pub fn watches(&self, sockets: Arc<http::Counters>) {
        // The first ones stay.
        drop(self.sockets.set(sockets));
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

    /// Puts a boot back after a restart of the appliance.
    pub fn restore(&self, boot: Boot) {
        self.inner().boots.open(boot);
    }

    /// A blob by digest: of the site as it stands, or promised to a boot under way.
    pub fn blob(&self, digest: &[u8; 32]) -> Option<Content> {
        self.site.load().blobs.get(digest).cloned().or_else(|| self.inner().boots.blob(digest))
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
