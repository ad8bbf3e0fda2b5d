//! The plan of a boot: what the site, the roles and the images promise one machine, frozen at its
//! firmware's first DISCOVER. The only place that writes a kernel command line.

use std::collections::{BTreeMap, HashMap};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use koboshi_images::Bootable;
use koboshi_initramfs::contract::room::never_fits;
use koboshi_initramfs::contract::{self, Disk, Nic, Orders, Root};
use koboshi_pxe::boots::{Part, Plan};
use koboshi_pxe::decide::{Entry, Place, Ticket, Unknown};
use koboshi_pxe::desk::Freeze;
use koboshi_pxe::dhcp::Subnet;
use koboshi_pxe::menu::{Becomes, Menu, Offered};
use koboshi_pxe::script::Uart;
use koboshi_pxe::{BootId, Content, Mac};
use sha2::{Digest as _, Sha256};

use crate::files::{self, Facts};
use crate::memtest::{self, Memtest};
use crate::publish::boot_subnet;
use crate::site::{At, Mode, Role, RoleName, Site};

pub mod nics;
mod versions;

pub use versions::Versions;

/// Seconds between heartbeats.
const HEARTBEAT: u32 = 20;
/// Up to this many seats are written into every machine's `/etc/hosts`.
const HOSTS_MAX: usize = 10_000;

/// A role whose image is there, with where its blobs lie.
#[derive(Debug, Clone)]
pub struct Ready {
    /// The image.
    pub image: Bootable,
    /// The blobs its machines fetch, by digest.
    pub blobs: HashMap<[u8; 32], Content>,
    /// What becomes `/`.
    pub root: Root,
}

/// One reading of the site with everything needed to make plans from it.
pub struct Planner {
    /// The site.
    pub site: Arc<Site>,
    /// Which reading.
    pub revision: u64,
    /// Roles that can be booted, and why the others cannot.
    pub roles: BTreeMap<RoleName, Result<Ready, String>>,
    /// What single machines boot beside that.
    pub versions: Versions,
    /// Images that orders for one boot want, by name, and why the others cannot be booted.
    pub duties: BTreeMap<String, Result<Ready, String>>,
    /// Memtest86+, or why there is none.
    pub memtest: Result<Memtest, String>,
    /// Where our HTTP listens.
    pub http_port: u16,
    /// The common initramfs segment, with its digest.
    pub common: (Bytes, [u8; 32]),
    /// The site's names as a segment, with its digest.
    pub hosts: (Bytes, [u8; 32]),
    /// Roles that may be chosen at a machine's console.
    pub menu: Option<Arc<Vec<Offered>>>,
}

impl Freeze for Planner {
    fn freeze(
        &self,
        mac: Mac,
        entry: &Entry,
        id: BootId,
        address: Ipv4Addr,
        network: &Subnet,
    ) -> Result<Plan, String> {
        let guest = mac.to_string();
        let as_the_site_says = Extra { menu: self.menu(entry), ..Extra::default() };
        let (machine, seat, role, extra) = match entry {
            Entry::Known(known) => match &known.place {
                Place::Seat(seat) => {
                    (&known.name, Some(seat.name.as_str()), &seat.role, as_the_site_says)
                }
                Place::Spare => {
                    return Err(format!("{} is a spare and waits for a seat", known.name));
                }
                Place::Taken(_, held) => {
                    return Err(format!("{} {}", known.name, held.says()));
                }
                Place::Nowhere => return Err(format!("the matrix gives {} no seat", known.name)),
                Place::Ticket(ticket) => {
                    let extra = Extra { ticket: Some(ticket), ..Extra::default() };
                    (&known.name, None, &ticket.duty, extra)
                }
                Place::Typed { choice, seat } => {
                    let extra = Extra { args: &choice.args, ..Extra::default() };
                    match (&choice.becomes, seat) {
                        (Becomes::Role(role), _) => (&known.name, None, role, extra),
                        (Becomes::Seat, Some(seat)) => {
                            (&known.name, Some(seat.name.as_str()), &seat.role, extra)
                        }
                        (Becomes::Seat, None) => {
                            return Err(format!("{} has no seat any more", known.name));
                        }
                    }
                }
            },
            Entry::Unknown(policy) => match policy.as_ref() {
                Unknown::Role { role, .. } => (&guest, None, role, as_the_site_says),
                Unknown::Ignore => return Err("the site does not know this machine".to_string()),
                // The kernel of any role will do to ask on the serial line, where the loader's
                // menu was not seen.
                Unknown::Menu(roles) => (&guest, None, asking_role(roles)?, as_the_site_says),
                Unknown::Typed(choice) => match &choice.becomes {
                    Becomes::Role(role) => {
                        (&guest, None, role, Extra { args: &choice.args, ..Extra::default() })
                    }
                    Becomes::Seat => return Err("a stranger has no seat".to_string()),
                },
            },
        };
        self.plan(mac, machine, seat, role, id, (address, network), extra)
    }

    fn image(&self, machine: &str, role: &str) -> Option<String> {
        let (name, ready) = self.roles.get_key_value(role)?;
        let (ready, _) = self.ready((name, self.site.roles.get(name)?), ready, machine).ok()?;
        Some(format!("{}@{}", ready.image.name, ready.image.version))
    }

    fn no_room(&self, machine: &str, role: &str, memory: u64) -> Option<String> {
        let (name, ready) = self.roles.get_key_value(role)?;
        let (ready, _) = self.ready((name, self.site.roles.get(name)?), ready, machine).ok()?;
        never_fits(&ready.root, memory).err()
    }

    fn uart(&self, entry: &Entry) -> Option<Uart> {
        let (machine, role) = match entry {
            Entry::Known(known) => {
                let role = match &known.place {
                    Place::Seat(seat) | Place::Taken(seat, _) => {
                        self.site.roles.get(seat.role.as_str())
                    }
                    Place::Typed { choice, seat } => match (&choice.becomes, seat) {
                        (Becomes::Role(role), _) => self.site.roles.get(role.as_str()),
                        (Becomes::Seat, seat) => {
                            seat.as_ref().and_then(|seat| self.site.roles.get(seat.role.as_str()))
                        }
                    },
                    Place::Spare | Place::Nowhere | Place::Ticket(_) => None,
                };
                (self.site.machines.get(known.name.as_str()), role)
            }
            Entry::Unknown(policy) => match policy.as_ref() {
                Unknown::Role { role, .. } => (None, self.site.roles.get(role.as_str())),
                Unknown::Ignore | Unknown::Menu(_) | Unknown::Typed(_) => (None, None),
            },
        };
        let machine = machine.map(|machine| &machine.value);
        let serial = self.site.serial(machine, role.map(|role| &role.value)).value;
        Uart::of(serial.unit()?, serial.speed)
    }

    fn no_image(&self, image: &str) -> Option<String> {
        match image {
            memtest::DUTY => self.memtest.as_ref().err().cloned(),
            image => self.duty(image).err(),
        }
    }
}

/// What a plan holds beside what the site says.
#[derive(Default)]
struct Extra<'a> {
    /// Arguments typed at the console.
    args: &'a [(String, String)],
    /// What may be chosen there.
    menu: Option<contract::Menu>,
    /// The order it is for: the role is its duty then.
    ticket: Option<&'a Ticket>,
}

impl Planner {
    /// The image of an order for one boot.
    fn duty(&self, image: &str) -> Result<&Ready, String> {
        let none = || format!("no image {image:?} is for orders");
        self.duties.get(image).ok_or_else(none)?.as_ref().map_err(Clone::clone)
    }

    /// The plan of a machine that runs Memtest86+: nothing of ours is there to be told anything. It takes the
    /// serial line in Linux's words, `console=ttyS0,115200`.
    fn test_memory(
        &self,
        machine: &str,
        ticket: &Ticket,
        address: Ipv4Addr,
    ) -> Result<Plan, String> {
        let Memtest { bios, efi } = self.memtest.as_ref().map_err(Clone::clone)?;
        let hardware = self.site.machines.get(machine).map(|machine| &machine.value);
        let serial = self.site.serial(hardware, None).value.to_string();
        let blobs = [bios, efi].map(|(part, content)| (part.sha256, content.clone()));
        Ok(Plan {
            machine: machine.to_string(),
            seat: None,
            role: ticket.duty.clone(),
            hostname: machine.to_string(),
            address,
            image: "memtest86+".to_string(),
            digest: Some(koboshi_images::Digest(bios.0.sha256).to_string()),
            kernel: bios.0.clone(),
            efi: Some(efi.0.clone()),
            segments: Vec::new(),
            roots: Vec::new(),
            cmdline: format!("console={serial}"),
            revision: self.revision,
            ticket: Some(ticket.id),
            because: None,
            orders: String::new(),
            blobs: blobs.into(),
        })
    }

    /// What `koboshi-init` may offer on the machine's console.
    fn menu(&self, entry: &Entry) -> Option<contract::Menu> {
        let (menu, asks) = match entry {
            Entry::Known(known) => match &known.place {
                Place::Seat(seat) => {
                    let seat = Some((seat.name.clone(), seat.role.clone()));
                    (Menu { seat, roles: self.menu.clone()? }, false)
                }
                _ => return None,
            },
            Entry::Unknown(unknown) => match unknown.as_ref() {
                Unknown::Menu(roles) => (Menu { seat: None, roles: roles.clone() }, true),
                _ => return None,
            },
        };
        Some(contract::Menu { lines: menu.lines(), asks })
    }

    /// What a machine boots in a role, and why, where that is not what all boot.
    fn ready<'a>(
        &'a self,
        (name, role): (&RoleName, &Role),
        ready: &'a Result<Ready, String>,
        machine: &str,
    ) -> Result<(&'a Ready, Option<String>), String> {
        let current = ready.as_ref().ok().map(|ready| ready.image.version);
        match self.versions.of((name, role), current, machine) {
            Some((Some(other), because)) => Ok((other?, Some(because))),
            Some((None, because)) => Ok((ready.as_ref().map_err(Clone::clone)?, Some(because))),
            None => Ok((ready.as_ref().map_err(Clone::clone)?, None)),
        }
    }

    #[expect(clippy::too_many_arguments, reason = "each is what one boot is promised")]
    fn plan(
        &self,
        mac: Mac,
        machine: &str,
        seat: Option<&str>,
        role: &str,
        id: BootId,
        (address, network): (Ipv4Addr, &Subnet),
        extra: Extra<'_>,
    ) -> Result<Plan, String> {
        if let Some(ticket) = extra.ticket.filter(|ticket| ticket.image == memtest::DUTY) {
            return self.test_memory(machine, ticket, address);
        }
        let name = role;
        let (ready, because, role) = match extra.ticket {
            Some(ticket) => (self.duty(&ticket.image)?, None, None),
            None => {
                let no_role = || format!("the site has no role {role}");
                let (name, ready) = self.roles.get_key_value(role).ok_or_else(no_role)?;
                let role = self.site.roles.get(name).ok_or_else(no_role)?;
                let (ready, because) = self.ready((name, role), ready, machine)?;
                (ready, because, Some(role))
            }
        };
        let order = extra.ticket.filter(|ticket| !ticket.order.is_empty());
        let duty = order.map(|ticket| serde_json::from_str(&ticket.order));
        let duty = duty.transpose().map_err(|error| format!("its order does not read: {error}"))?;
        let place = seat.and_then(|seat| self.site.seats.get(seat));
        let hardware = self.site.machines.get(machine).map(|machine| &machine.value);
        let hostname = seat
            .map_or_else(|| format!("{name}-{}", mac.to_string().replace(':', "")), str::to_string);
        let serial = self.site.serial(hardware, role.map(|role| &role.value)).value.to_string();
        let mut args: BTreeMap<String, String> = place
            .map(|seat| {
                seat.args.iter().map(|(key, text)| (key.clone(), text.value.clone())).collect()
            })
            .unwrap_or_default();
        args.extend(extra.args.iter().cloned());
        let image = &ready.image;
        let reference = format!("{}@{}", image.name, image.version);

        let (cards, bonds, nets) = nics::links(&self.site, hardware, place.map(|seat| &seat.value));
        let mut orders = Orders {
            written: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs()),
            hostname: hostname.clone(),
            domain: network.domain.clone().unwrap_or_default(),
            machine_id: Some(machine_id(&self.site.name, machine)),
            nic: Nic {
                mac: mac.to_string(),
                name: hardware.and_then(|machine| machine.boot_nic()).map(str::to_string),
                address,
                lent: self.site.net.mode == Mode::Proxy
                    && place.is_none_or(|seat| seat.ip.is_none()),
                prefix: network.prefix,
                gateway: network.gateway,
                mtu: network.mtu.map(u32::from),
                routes: self
                    .site
                    .subnet_of(network.network)
                    .map(|subnet| nics::routes(&subnet.routes))
                    .unwrap_or_default(),
            },
            cards,
            bonds,
            nets,
            dns: network.dns.clone(),
            ntp: network.ntp.clone(),
            // They are in the site's own segment.
            hosts: Vec::new(),
            ssh_keys: self.site.ssh_keys.iter().map(|key| key.value.clone()).collect(),
            serial: serial.clone(),
            root: ready.root.clone(),
            disks: place
                .map(|seat| {
                    let disk = |(at, what): (&String, &At<String>)| Disk {
                        at: at.clone(),
                        what: what.value.clone(),
                    };
                    seat.disks.iter().map(disk).collect()
                })
                .unwrap_or_default(),
            args: args.clone(),
            heartbeat: HEARTBEAT,
            syslog: self.site.net.syslog,
            netconsole: self.site.net.netconsole,
            menu: extra.menu,
            duty,
        };
        // An order's image is as it was made, whatever role has its name.
        let own = match extra.ticket {
            Some(_) => Vec::new(),
            None => self.files(machine, seat, name, &orders)?,
        };
        orders.root.files = own.iter().map(files::Archive::blob).collect();
        let mut text =
            serde_json::to_string(&orders).expect("orders hold nothing that JSON cannot");
        // Kept as long as the boot, ten thousand of them.
        text.shrink_to_fit();

        let mut cmdline = vec![
            format!("{}=http://{}:{}", contract::KEY_SERVER, network.server, self.http_port),
            format!("{}={id}", contract::KEY_BOOT),
            format!("{}={}", contract::KEY_SEAT, seat.unwrap_or("-")),
            format!("{}={name}", contract::KEY_ROLE),
            format!("{}={}", contract::KEY_ROOT, ready.root.key()),
            // The last console is /dev/console; tty0 is for whoever stands before the machine.
            "console=tty0".to_string(),
            format!("console={serial}"),
            // A machine that panics with nobody awake netboots again: one reboot is the repair.
            "panic=10".to_string(),
        ];
        cmdline.extend(args.iter().map(|(key, value)| argument(key, value)));
        let words = role.and_then(|role| role.cmdline.as_ref());
        cmdline.extend(words.map(|words| words.value.clone()));

        let mut plan = Plan {
            machine: machine.to_string(),
            seat: seat.map(str::to_string),
            role: name.to_string(),
            hostname,
            address,
            image: reference,
            digest: Some(image.digest.to_string()),
            kernel: part("kernel", image.kernel.digest.0, image.kernel.size),
            efi: None,
            segments: Vec::new(),
            roots: fetched(&orders.root),
            cmdline: cmdline.join(" "),
            revision: self.revision,
            ticket: extra.ticket.map(|ticket| ticket.id),
            orders: text,
            because,
            blobs: Vec::new(),
        };
        // Microcode has to come first, uncompressed; the orders last, being the only part that is
        // this boot's own.
        let (early, late) = image.segments.split_at(image.microcode.min(image.segments.len()));
        plan.segments.extend(early.iter().map(|s| part("microcode", s.digest.0, s.size)));
        plan.segments.push(part("common", self.common.1, self.common.0.len() as u64));
        plan.segments.extend(late.iter().map(|s| part("modules", s.digest.0, s.size)));
        plan.segments.push(part("hosts", self.hosts.1, self.hosts.0.len() as u64));
        self.fill(&mut plan, &orders, ready);
        plan.blobs.extend(own.into_iter().map(files::Archive::content));
        Ok(plan)
    }

    /// The files of role and seat, for a boot with these orders.
    fn files(
        &self,
        machine: &str,
        seat: Option<&str>,
        role: &str,
        orders: &Orders,
    ) -> Result<Vec<files::Archive>, String> {
        let of_role = self.site.roles.get(role).and_then(|role| role.files.as_ref());
        let place = seat.and_then(|seat| self.site.seats.get(seat));
        let of_seat = place.and_then(|seat| seat.files.as_ref());
        let mut archives = Vec::new();
        for own in of_role.into_iter().chain(of_seat) {
            let facts = Facts {
                site: self.site.name.clone(),
                seat: seat.map(str::to_string),
                role: role.to_string(),
                machine: machine.to_string(),
                hostname: orders.hostname.clone(),
                domain: orders.domain.clone(),
                address: Some(orders.nic.address),
                addresses: orders
                    .nets
                    .iter()
                    .filter_map(|net| Some((net.name.clone(), net.address?)))
                    .collect(),
                args: orders.args.clone(),
            };
            archives.extend(own.archives(&facts).map_err(|bad| format!("its files: {bad}"))?);
        }
        Ok(archives)
    }

    /// The same of a boot that was planned before: of the same folders, the same bytes.
    pub fn files_again(&self, plan: &Plan) -> HashMap<[u8; 32], Content> {
        let Ok(orders) = serde_json::from_str::<Orders>(&plan.orders) else {
            return HashMap::new();
        };
        if orders.root.files.is_empty() {
            return HashMap::new();
        }
        let made = self.files(&plan.machine, plan.seat.as_deref(), &plan.role, &orders);
        made.unwrap_or_default().into_iter().map(files::Archive::content).collect()
    }

    fn fill(&self, plan: &mut Plan, orders: &Orders, ready: &Ready) {
        let segment = koboshi_initramfs::orders_segment(orders);
        let digest: [u8; 32] = Sha256::digest(&segment).into();
        plan.segments.push(part("orders", digest, segment.len() as u64));
        plan.blobs.reserve_exact(ready.blobs.len() + 3);
        plan.blobs.extend(ready.blobs.iter().map(|(digest, content)| (*digest, content.clone())));
        for (bytes, digest) in [&self.common, &self.hosts] {
            plan.blobs.push((*digest, Content::Bytes(bytes.clone())));
        }
        plan.blobs.push((digest, Content::Bytes(segment)));
    }
}

/// An id by which journals, DHCP clients and D-Bus know a machine (machine-id(5)): of its name in the
/// site, so that it outlives every boot and goes with the hardware, not with the seat. It has the shape
/// of a random UUID (RFC 9562 5.4), and what it was made of cannot be read from it.
fn machine_id(site: &str, machine: &str) -> String {
    let digest = Sha256::digest(format!("koboshi machine-id 1\0{site}\0{machine}"));
    let mut id: [u8; 16] = [0; 16];
    id.iter_mut().zip(digest).for_each(|(to, from)| *to = from);
    id[6] = id[6] & 0x0f | 0x40;
    id[8] = id[8] & 0x3f | 0x80;
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A role that can be booted to ask which one is wanted: rescue, if it is offered.
fn asking_role(offered: &[Offered]) -> Result<&String, String> {
    let ready = offered.iter().filter(|offered| offered.trouble.is_none());
    let first = ready.min_by_key(|offered| offered.role != "rescue");
    let none = || "no role of the menu can be booted now".to_string();
    first.map(|offered| &offered.role).ok_or_else(none)
}

/// The names of a site's seats as a segment, with its digest.
pub fn hosts(site: &Site) -> (Bytes, [u8; 32]) {
    let domain = boot_subnet(site).and_then(|subnet| subnet.domain.as_deref());
    let names = |name: &str| {
        let full = domain.map(|domain| format!("{name}.{domain}"));
        full.into_iter().chain([name.to_string()]).collect()
    };
    let seats = site.seats.iter();
    let hosts =
        seats.filter_map(|(name, seat)| Some((seat.ip.as_ref()?.value, names(name.as_str()))));
    let hosts: Vec<_> = hosts.take(HOSTS_MAX).collect();
    let segment = koboshi_initramfs::hosts_segment(&hosts);
    let digest = Sha256::digest(&segment).into();
    (segment, digest)
}

/// Finds the blobs of a plan that was kept over a restart. False if one is gone for good.
pub fn refill(plan: &mut Plan, find: impl Fn(&[u8; 32]) -> Option<Content>) -> bool {
    let Ok(orders) = serde_json::from_str::<Orders>(&plan.orders) else { return false };
    let segment = koboshi_initramfs::orders_segment(&orders);
    let digest: [u8; 32] = Sha256::digest(&segment).into();
    plan.blobs = plan.parts().filter_map(|part| Some((part.sha256, find(&part.sha256)?))).collect();
    plan.blobs.push((digest, Content::Bytes(segment)));
    plan.parts().all(|part| plan.blobs.iter().any(|(digest, _)| *digest == part.sha256))
}

/// The root's parts among what is fetched.
fn fetched(root: &Root) -> Vec<Part> {
    let digest = |blob: &contract::Blob| {
        let hex: Result<koboshi_images::Digest, _> = format!("sha256:{}", blob.sha256).parse();
        hex.ok().map(|digest| digest.0)
    };
    let layers = root.layers().iter().map(|blob| ("root", blob));
    let blobs = layers.chain(root.files.iter().map(|blob| ("files", blob)));
    blobs.filter_map(|(name, blob)| Some(part(name, digest(blob)?, blob.size))).collect()
}

fn part(name: &str, sha256: [u8; 32], size: u64) -> Part {
    Part { name: name.to_string(), sha256, size }
}

/// `id=100`; quoted where the kernel would split it.
pub(crate) fn argument(key: &str, value: &str) -> String {
    if value.is_empty() {
        key.to_string()
    } else if value.contains(char::is_whitespace) {
        format!("{key}=\"{value}\"")
    } else {
        format!("{key}={value}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first is written down: another one would make every machine of every site a stranger to its logs.
    #[test]
    fn a_machine_id_is_one_machines_for_ever() {
        let id = machine_id("rack", "m01");
        assert_eq!(id, "deeefdedda75412985d316f174e1a4a6");
        assert_eq!((id.len(), &id[12..13]), (32, "4"));
        assert!("89ab".contains(&id[16..17]), "{id}");
        let others = [machine_id("rack", "m02"), machine_id("rac", "km01"), machine_id("", "m01")];
        assert!(others.iter().all(|other| *other != id));
    }
}
