//! Boots under way: one id, one frozen plan, one stage for each machine, from its firmware's first
//! DISCOVER until its next. What happened when goes to the appliance as marks; what a later stage
//! needs (the plan, its blobs) stays here, so that a reload in mid-boot cannot mix two seats.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::content::{BootId, Content};
use crate::decide::{Chosen, Live};
use crate::mac::Mac;

/// A choice made in the loader stands this long: it asks DHCP again at once.
const IN_LOADER: Duration = Duration::from_secs(120);
/// One made in `koboshi-init` outlives a server's long way from reset to DISCOVER.
const BY_RESTART: Duration = Duration::from_secs(900);
/// A machine that runs reports every 30 s. On a wire that is full several in a row are lost; and one that was
/// reset is known by the first thing that it fetches, however long this is.
pub const HEARD_LATELY: Duration = Duration::from_secs(300);

/// How far a boot is. Ordered as a boot goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// An address was offered.
    Offer,
    /// The address was acknowledged.
    Ack,
    /// A loader was fetched.
    Loader,
    /// The script was fetched.
    Script,
    /// Nothing to boot: the script waits.
    Waiting,
    /// The kernel was fetched.
    Kernel,
    /// The archives of the initramfs were fetched.
    Initramfs,
    /// `koboshi-init` runs.
    Init,
    /// The root is being fetched.
    Root,
    /// The root is whole and unpacked.
    RootReady,
    /// The root takes over.
    Switching,
    /// The system says it is up.
    Up,
    /// Something went wrong and is tried again.
    Trouble,
    /// A rescue shell is on the console.
    Rescue,
    /// Shut down in good order.
    Down,
}

impl Stage {
    /// `root-ready`
    pub fn as_str(self) -> &'static str {
        match self {
            Stage::Offer => "offer",
            Stage::Ack => "ack",
            Stage::Loader => "loader",
            Stage::Script => "script",
            Stage::Waiting => "waiting",
            Stage::Kernel => "kernel",
            Stage::Initramfs => "initramfs",
            Stage::Init => "init",
            Stage::Root => "root",
            Stage::RootReady => "root-ready",
            Stage::Switching => "switching",
            Stage::Up => "up",
            Stage::Trouble => "trouble",
            Stage::Rescue => "rescue",
            Stage::Down => "down",
        }
    }
}

/// A blob by digest, with the name the loader gives it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Part {
    /// `kernel`, `common`, `modules`, `orders`, `root`.
    pub name: String,
    /// SHA-256.
    #[serde(with = "hex_digest")]
    pub sha256: [u8; 32],
    /// Size in bytes.
    pub size: u64,
}

/// Everything one boot was promised when it began.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Plan {
    /// Machine's name, or its MAC if the site does not know it.
    pub machine: String,
    /// Seat, if it has one.
    pub seat: Option<String>,
    /// Role.
    pub role: String,
    /// Host name.
    pub hostname: String,
    /// Address.
    pub address: Ipv4Addr,
    /// Image as a person says it: `web@3`.
    pub image: String,
    /// Its digest, as a program says it. (Not known of plans that were written before it was kept.)
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// Why it is this version, where that is not the one that all boot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub because: Option<String>,
    /// Kernel.
    pub kernel: Part,
    /// What UEFI starts in its place, where that is another program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub efi: Option<Part>,
    /// Initramfs segments in order.
    pub segments: Vec<Part>,
    /// Layers of the root, the lowest first, with what is laid over them; none if the root is on a server of
    /// its own.
    #[serde(default)]
    pub roots: Vec<Part>,
    /// The whole kernel command line.
    pub cmdline: String,
    /// Which reading of the site it was made from.
    pub revision: u64,
    /// The order that it carries out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ticket: Option<u64>,
    /// What the machine is told beside its command line, as the appliance wrote it. Opaque here,
    /// and kept, so that the segment made from it can be made again after a restart.
    pub orders: String,
    /// Where the parts are. Not kept: after a restart the appliance fills it again.
    #[serde(skip)]
    pub blobs: Vec<([u8; 32], Content)>,
}

impl Plan {
    /// Kernel, segments and root, if it is fetched.
    pub fn parts(&self) -> impl Iterator<Item = &Part> {
        let kernel = std::iter::once(&self.kernel);
        kernel.chain(&self.segments).chain(&self.roots).chain(&self.efi)
    }

    /// A program of its own instead of Linux: nothing runs there that could report.
    pub fn is_bare(&self) -> bool {
        self.efi.is_some()
    }

    /// Bytes of the root that are fetched.
    pub fn root_size(&self) -> u64 {
        self.roots.iter().map(|root| root.size).sum()
    }
}

/// One boot.
#[derive(Debug, Clone)]
pub struct Boot {
    /// Its id.
    pub id: BootId,
    /// Whose.
    pub mac: Mac,
    /// When it was opened.
    pub opened: Instant,
    /// How far it is.
    pub stage: Stage,
    /// What it was promised, unless there was nothing to boot.
    pub plan: Option<Arc<Plan>>,
    /// The address is a seat's.
    pub fixed: bool,
    /// Its address: its seat's, or the one it was lent.
    pub address: Ipv4Addr,
    /// Beside another DHCP server, the address that lent it where its seat has one of its own: the
    /// firmware and the loader speak from this one, the booted system from the seat's.
    pub lent: Option<Ipv4Addr>,
    /// What was chosen at its console for the boot that follows, and when.
    pub chosen: Option<(Chosen, Instant)>,
    /// When its script let it fetch.
    pub let_in: Option<Instant>,
    /// Its place among those whose turn it is not yet.
    pub queued: Option<Queued>,
    /// The loader it was last handed whole.
    pub loader: Option<String>,
    /// When it last reported.
    pub heard: Option<Instant>,
    /// When it last came a step further, or fetched a part of its plan.
    pub moved: Option<Instant>,
    /// Which parts were fetched: `parts()` index bits.
    fetched: u64,
}

/// A machine that was told to ask again later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Queued {
    /// When it asked first.
    pub since: Instant,
    /// When it is to ask again.
    pub until: Instant,
}

/// The table of boots under way: one for each machine of the site, and one for each address of the
/// pool, since a stranger's boot goes when another machine boots at its address.
#[derive(Debug, Default)]
pub struct Boots {
    by_mac: HashMap<Mac, Boot>,
    by_id: HashMap<BootId, Mac>,
    by_address: HashMap<Ipv4Addr, Mac>,
    blobs: HashMap<[u8; 32], (Content, usize)>,
}

impl Boots {
    /// Opens a boot in place of the machine's last one, and of another machine's that had a lease
    /// of the same address. Returns those that are over by this.
    pub fn open(&mut self, boot: Boot) -> Vec<Boot> {
        let mut over: Vec<Boot> = self.close(boot.mac).into_iter().collect();
        for address in boot.addresses() {
            let there = self.by_address.get(&address).and_then(|mac| self.by_mac.get(mac));
            // Who sits in a seat is not over because its firmware's address was lent to another.
            let met = |other: &&Boot| !other.fixed && other.address == address;
            if let Some(other) = there.filter(met).map(|other| other.mac) {
                over.extend(self.close(other));
            }
        }
        if let Some(plan) = &boot.plan {
            for (digest, content) in &plan.blobs {
                self.blobs.entry(*digest).or_insert_with(|| (content.clone(), 0)).1 += 1;
            }
        }
        self.by_id.insert(boot.id, boot.mac);
        for address in boot.addresses() {
            self.by_address.insert(address, boot.mac);
        }
        self.by_mac.insert(boot.mac, boot);
        over
    }

    /// The other server lent the next stage of a boot another address: EDK2 and iPXE are two clients
    /// to it. Where the seat has an address of its own the boot goes on. False if it cannot.
    pub fn lent(&mut self, mac: Mac, address: Ipv4Addr) -> bool {
        let Some(boot) = self.by_mac.get_mut(&mac).filter(|boot| boot.fixed) else { return false };
        let (own, former) = (boot.address, boot.lent.replace(address));
        if let Some(former) = former.filter(|former| *former != own)
            && self.by_address.get(&former) == Some(&mac)
        {
            self.by_address.remove(&former);
        }
        self.by_address.insert(address, mac);
        true
    }

    /// A boot speaks from its seat's address alone from now on.
    pub fn has_left_what_it_was_lent(&mut self, mac: Mac) {
        let Some(boot) = self.by_mac.get_mut(&mac).filter(|boot| boot.fixed) else { return };
        if let Some(lent) = boot.lent.take()
            && lent != boot.address
            && self.by_address.get(&lent) == Some(&mac)
        {
            self.by_address.remove(&lent);
        }
    }

    /// Forgets a machine's boot.
    pub fn close(&mut self, mac: Mac) -> Option<Boot> {
        let last = self.by_mac.remove(&mac)?;
        self.by_id.remove(&last.id);
        for address in last.addresses() {
            if self.by_address.get(&address) == Some(&mac) {
                self.by_address.remove(&address);
            }
        }
        for digest in last.plan.iter().flat_map(|plan| plan.blobs.iter().map(|(digest, _)| digest))
        {
            if let Some((_, users)) = self.blobs.get_mut(digest) {
                *users -= 1;
                if *users == 0 {
                    self.blobs.remove(digest);
                }
            }
        }
        Some(last)
    }

    /// A machine's boot.
    pub fn of(&self, mac: Mac) -> Option<&Boot> {
        self.by_mac.get(&mac)
    }

    /// A machine's boot, to move on.
    pub fn of_mut(&mut self, mac: Mac) -> Option<&mut Boot> {
        self.by_mac.get_mut(&mac)
    }

    /// By id.
    pub fn get(&self, id: BootId) -> Option<&Boot> {
        self.by_mac.get(self.by_id.get(&id)?)
    }

    /// Whose boot speaks from this address.
    pub fn at(&self, address: Ipv4Addr) -> Option<&Boot> {
        self.by_mac.get(self.by_address.get(&address)?)
    }

    /// A blob some boot under way was promised.
    pub fn blob(&self, digest: &[u8; 32]) -> Option<Content> {
        self.blobs.get(digest).map(|(content, _)| content.clone())
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Boot> {
        self.by_mac.values()
    }
}

impl Boot {
    /// A boot that begins now.
    pub fn begin(
        id: BootId,
        mac: Mac,
        address: Ipv4Addr,
        fixed: bool,
        plan: Option<Arc<Plan>>,
        now: Instant,
    ) -> Boot {
        Boot {
            id,
            mac,
            opened: now,
            stage: Stage::Offer,
            plan,
            fixed,
            address,
            lent: None,
            chosen: None,
            let_in: None,
            queued: None,
            loader: None,
            heard: None,
            moved: None,
            fetched: 0,
        }
    }

    /// Where it may speak from.
    pub fn addresses(&self) -> impl Iterator<Item = Ipv4Addr> + use<> {
        [Some(self.address), self.lent].into_iter().flatten()
    }

    /// Whether it may speak from an address.
    pub fn speaks_from(&self, address: Ipv4Addr) -> bool {
        self.addresses().any(|own| own == address)
    }

    /// The same of any peer.
    pub fn speaks_as(&self, peer: IpAddr) -> bool {
        matches!(peer, IpAddr::V4(peer) if self.speaks_from(peer))
    }

    /// As the decision sees it.
    pub fn live(&self, now: Instant) -> Live {
        let stands = |(chosen, at): &&(Chosen, Instant)| {
            let within = if chosen.in_loader { IN_LOADER } else { BY_RESTART };
            now.saturating_duration_since(*at) < within
        };
        Live {
            chosen: self.chosen.as_ref().filter(stands).map(|(chosen, _)| chosen.clone()),
            stage: self.stage,
            age: now.saturating_duration_since(self.opened),
            plan: self.plan.clone(),
            fixed: self.fixed,
            here: true,
        }
    }

    /// All that it fetches.
    pub fn bytes(&self) -> u64 {
        self.plan.iter().flat_map(|plan| plan.parts()).map(|part| part.size).sum()
    }

    /// Notes that a part has been handed over whole; says which stage that completes, if one.
    pub fn fetched(&mut self, digest: &[u8; 32]) -> Option<Stage> {
        let plan = self.plan.clone()?;
        if plan.efi.as_ref().is_some_and(|efi| &efi.sha256 == digest) {
            return Some(Stage::Kernel);
        }
        let index = plan.parts().position(|part| &part.sha256 == digest)?;
        self.fetched |= 1 << index;
        let segments = plan.segments.len();
        if index == 0 {
            return Some(Stage::Kernel);
        }
        let archives = ((1u64 << segments) - 1) << 1;
        (index <= segments && self.fetched & archives == archives).then_some(Stage::Initramfs)
    }
}

mod hex_digest {
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(digest: &[u8; 32], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&crate::content::hex(digest))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<[u8; 32], D::Error> {
        let text = String::deserialize(from)?;
        crate::content::parse_hex(&text)
            .ok_or_else(|| serde::de::Error::custom("a digest is 64 hexadecimal digits"))
    }
}
