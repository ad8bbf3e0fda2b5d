//! What the appliance tells a booting machine, and what the machine tells back.
//!
//! Both sides compile this one file: `koboshi-initramfs` as a module, `koboshi-init` by path.
//! The kernel command line carries the keys below; everything else travels in the boot's own
//! archive segment as [`Orders`]; the machine answers with [`Report`]s to `POST /report/<boot-id>`.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

// By path, since `koboshi-init` includes this file by path too.
#[path = "duty.rs"]
pub mod duty;
#[path = "hardware.rs"]
pub mod hardware;
pub use duty::Duty;
pub use hardware::Hardware;
#[path = "room.rs"]
pub mod room;
#[path = "survey.rs"]
pub mod survey;
pub use survey::Survey;

/// `koboshi.server=http://10.77.0.1:8080`
pub const KEY_SERVER: &str = "koboshi.server";
/// `koboshi.boot=<32 hex digits>`
pub const KEY_BOOT: &str = "koboshi.boot";
/// `koboshi.seat=web1`
pub const KEY_SEAT: &str = "koboshi.seat";
/// `koboshi.role=web`
pub const KEY_ROLE: &str = "koboshi.role";
/// `koboshi.root=sha256:<64 hex digits>`, or `koboshi.root=nfs:10.77.0.9:/srv/web`
pub const KEY_ROOT: &str = "koboshi.root";

/// Where [`Orders`] lie in the initramfs, as JSON.
pub const ORDERS_PATH: &str = "koboshi/orders.json";
/// Where the site's names lie, as lines of `/etc/hosts`: the same for all machines, and so a segment
/// of its own beside the orders of one boot.
pub const HOSTS_PATH: &str = "koboshi/hosts";
/// Where the modules segment keeps the list of its modules (see `modules.rs`): one a line,
/// `name path dep,dep…`, paths absolute in the initramfs.
pub const MODULES_LIST: &str = "koboshi/modules";
/// `pattern name` a line: which device (MODALIAS) wants which module of the list.
pub const ALIASES_LIST: &str = "koboshi/aliases";

/// Bytes of all files of a role, or of a seat, together.
pub const FILES_MAX: u64 = 16 << 20;

/// The largest report the appliance reads.
pub const REPORT_MAX: usize = 16 * 1024;

/// All one boot needs to know beside its command line. Holds no secret: anyone on the
/// provisioning network can read it (S17).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Orders {
    /// Seconds since 1970 when the orders were written: a lower bound for a clock that is far off.
    pub written: u64,
    /// First label of the host name: the seat's name, or one made from the MAC.
    pub hostname: String,
    /// DNS domain, may be empty.
    pub domain: String,
    /// What becomes `/etc/machine-id`, 32 hex digits: the same at every boot of this machine, and no other's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine_id: Option<String>,
    /// The NIC that boots, and its address.
    pub nic: Nic,
    /// Names for further NICs.
    #[serde(default)]
    pub cards: Vec<Card>,
    /// Bonds, built before anything is put on them.
    #[serde(default)]
    pub bonds: Vec<Bond>,
    /// The seat's further networks.
    #[serde(default)]
    pub nets: Vec<Net>,
    /// Name servers.
    pub dns: Vec<Ipv4Addr>,
    /// Time servers.
    pub ntp: Vec<Ipv4Addr>,
    /// Lines for `/etc/hosts`: address and names. They travel by [`HOSTS_PATH`].
    #[serde(skip)]
    pub hosts: Vec<(Ipv4Addr, Vec<String>)>,
    /// Public keys for root's `authorized_keys`.
    pub ssh_keys: Vec<String>,
    /// `ttyS0,115200`: the one serial line loader, kernel and getty follow (S24).
    pub serial: String,
    /// What becomes `/`.
    pub root: Root,
    /// Data disks and where they are mounted.
    #[serde(default)]
    pub disks: Vec<Disk>,
    /// The seat's arguments, also on the command line.
    pub args: BTreeMap<String, String>,
    /// Seconds between heartbeats once up.
    pub heartbeat: u32,
    /// The port of our syslog, if we listen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub syslog: Option<u16>,
    /// The port to which the kernel shall send by itself, if it shall.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub netconsole: Option<u16>,
    /// What whoever is at the console may choose, if anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub menu: Option<Menu>,
    /// What is to be done once the system is up. The machine starts anew afterwards.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duty: Option<Duty>,
}

/// The menu on the console; the answer goes to `POST /choose/<boot-id>` as it was typed, and comes back
/// with 200 or, in words, with 422.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Menu {
    /// A line for each choice; its first word is what to type.
    pub lines: Vec<String>,
    /// The machine is nothing until somebody chooses.
    pub asks: bool,
}

/// The boot NIC.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nic {
    /// Found by this address, whatever the kernel called it.
    pub mac: String,
    /// The name it gets, if the site gives one.
    pub name: Option<String>,
    /// Its address.
    pub address: Ipv4Addr,
    /// Another DHCP server lent it, and only for a time: whoever manages the image's networks has
    /// to ask for it again.
    #[serde(default)]
    pub lent: bool,
    /// Network bits, 0 to 32.
    pub prefix: u8,
    /// Default route.
    pub gateway: Option<Ipv4Addr>,
    /// MTU, if not the NIC's own.
    pub mtu: Option<u32>,
    /// Static routes, as DHCP's option 121 has them.
    #[serde(default)]
    pub routes: Vec<Route>,
}

/// What stands for the link that carries the seat's own address: the boot NIC, or the bond it is in.
pub const BOOT_LINK: &str = "boot";

/// A further NIC with a name of the site's. Hardware is meant by its MAC address, by the name the
/// kernel gave it, or by the one that udev would (`eno2`, `ens1f0`, `enp3s0f1`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Card {
    /// The name it gets.
    pub name: String,
    /// Which one.
    pub hardware: String,
}

/// Several NICs as one. If the boot NIC is among them, the bond carries the seat's own address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bond {
    /// Its name.
    pub name: String,
    /// How they share the work.
    pub mode: BondMode,
    /// Its members: a name of [`Card`], or hardware as there.
    pub of: Vec<String>,
}

/// How the members of a bond share the work.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum BondMode {
    /// One works, the others wait. Needs nothing of the switch.
    #[default]
    #[serde(rename = "active-backup")]
    ActiveBackup,
    /// LACP. The switch has to let a single port through without it (fallback) while firmware boots.
    #[serde(rename = "802.3ad")]
    Lacp,
}

impl std::fmt::Display for BondMode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            BondMode::ActiveBackup => "active-backup",
            BondMode::Lacp => "802.3ad",
        })
    }
}

/// The seat's life on a further network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Net {
    /// The network's name in the site, for people.
    pub name: String,
    /// What carries it: a bond, a NIC, or [`BOOT_LINK`].
    pub on: String,
    /// Its VLAN, if it comes tagged.
    pub vlan: Option<u16>,
    /// The seat's address there, if it has one.
    pub address: Option<Ipv4Addr>,
    /// Network bits, 0 to 32.
    pub prefix: u8,
    /// A router that takes everything, once those before it in the list are gone.
    pub gateway: Option<Ipv4Addr>,
    /// MTU, if not the link's own.
    pub mtu: Option<u32>,
    /// Static routes.
    pub routes: Vec<Route>,
}

/// A static route.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Where to.
    pub to: Ipv4Addr,
    /// Network bits, 0 to 32.
    pub prefix: u8,
    /// By which router.
    pub via: Ipv4Addr,
}

/// The root file system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Root {
    /// Image as a person says it: `web@3`. Of an NFS root only the kernel is from it.
    pub image: String,
    /// Size of the tmpfs that is written to: `80%` of memory, or `2g`, as tmpfs reads it.
    pub tmpfs: String,
    /// Digest of the image's manifest, `sha256:<64 hex digits>`: what names a root of several layers.
    #[serde(default)]
    pub digest: String,
    /// Where it comes from.
    pub from: Source,
    /// Tars compressed with zstd that are laid over the finished root, in order: the files of the role and
    /// of the seat.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<Blob>,
}

/// Where a root comes from, and what it becomes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Source {
    /// Tars compressed with zstd, unpacked one over the other into a tmpfs (`root = "ram"`). From the second
    /// on a name `.wh.NAME` says that NAME is gone (OCI image spec, layer.md); such names come first.
    Archive {
        /// To fetch, the lowest first.
        layers: Vec<Blob>,
        /// Bytes they take once unpacked, for the check of memory before the fetch.
        unpacked: u64,
    },
    /// Squashfs that stay as they are in memory, one over the other, a tmpfs above them
    /// (`root = "overlay"`). What is gone is a character device 0:0, as overlayfs has it.
    Squashfs {
        /// To fetch, the lowest first.
        layers: Vec<Blob>,
    },
    /// A server's export (`root = "nfs"`).
    Nfs {
        /// The server, as an address: nobody looks names up before there is a root.
        server: Ipv4Addr,
        /// What it exports.
        path: String,
        /// As `mount -o` takes them, without `ro` and `rw`.
        options: String,
        /// Nothing is written to the server: a tmpfs lies above.
        read_only: bool,
    },
}

/// Bytes to fetch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blob {
    /// Path on the server: `/blob/sha256/<hex>`.
    pub path: String,
    /// SHA-256 of the bytes as fetched, 64 hex digits.
    pub sha256: String,
    /// Size as fetched.
    pub size: u64,
}

/// A data disk of the seat. It is mounted as it is; nothing is ever formatted or repaired.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// Where, an absolute path in the root.
    pub at: String,
    /// Which: `LABEL=db`, `UUID=…`, `PARTLABEL=…`, `PARTUUID=…`, `SERIAL=…` or `/dev/…`.
    pub what: String,
}

impl Root {
    /// What the command line says of it ([`KEY_ROOT`]).
    pub fn key(&self) -> String {
        match &self.from {
            Source::Archive { layers, .. } | Source::Squashfs { layers } => match &layers[..] {
                [layer] => format!("sha256:{}", layer.sha256),
                _ => self.digest.clone(),
            },
            Source::Nfs { server, path, .. } => format!("nfs:{server}:{path}"),
        }
    }

    /// The layers to fetch, the lowest first; an NFS root has none.
    pub fn layers(&self) -> &[Blob] {
        match &self.from {
            Source::Archive { layers, .. } | Source::Squashfs { layers } => layers,
            Source::Nfs { .. } => &[],
        }
    }
}

/// One report of a booting or running machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Where it is.
    pub phase: Phase,
    /// Milliseconds since the kernel started.
    pub uptime_ms: u64,
    /// Sequence number within the boot; a report that overtakes another is told by it.
    pub seq: u32,
}

/// How far a boot is. Facts come with the phase they belong to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "phase", rename_all = "kebab-case")]
pub enum Phase {
    /// `koboshi-init` runs and the network is configured.
    Init {
        /// Kernel release.
        kernel: String,
        /// MiB of memory.
        memory_mib: u64,
        /// Name of the boot NIC as found.
        nic: String,
    },
    /// What the machine is made of. It moves no boot.
    Hardware(Box<Hardware>),
    /// Asks at the console what the machine shall be.
    Asks,
    /// The root's first byte has arrived.
    RootBegun {
        /// Which try, from 1.
        attempt: u32,
    },
    /// The root is whole, its digest right, and unpacked.
    RootReady {
        /// Bytes fetched.
        bytes: u64,
        /// Milliseconds from request to unpacked.
        ms: u64,
        /// Tries it took.
        attempts: u32,
    },
    /// About to become the real root.
    Switching,
    /// The system says it is up.
    Up {
        /// What said so: `systemd running`, `systemd degraded`, `init`.
        by: String,
    },
    /// Still there.
    Heartbeat {
        /// Five-minute load average times 100.
        load5: u32,
        /// MiB of memory available.
        available_mib: u64,
    },
    /// It does what it was told to do once; as good as a heartbeat.
    Working {
        /// Each piece of that.
        works: Vec<duty::Work>,
    },
    /// What a set-up found; said again when it has changed something.
    Surveyed(Box<Survey>),
    /// A disk is wiped, or will not be.
    Wiped(Box<duty::Wiped>),
    /// A disk has its file system, or will not have it.
    Prepared(Box<duty::Prepared>),
    /// The order is carried out, or cannot be. The machine starts anew.
    Finished {
        /// As it was ordered.
        well: bool,
        /// In words.
        message: String,
    },
    /// Something went wrong; what will happen next is in the text.
    Trouble {
        /// In words, as on the console.
        message: String,
    },
    /// Gave up: a rescue shell is on the console.
    Rescue {
        /// Why.
        message: String,
    },
    /// Is being shut down in good order.
    Down,
}
