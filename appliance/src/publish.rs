//! One writer makes what everyone reads: a site as meant, plus the images as they are now, become
//! one `Snapshot` for the desk. The same function serves `koboshi explain --site`, offline.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::Ipv4Addr;
use std::sync::Arc;

use bytes::Bytes;
use koboshi_images::Store as Images;
use koboshi_pxe::decide::{Exclusive, Known, Place, Seat, Unknown};
use koboshi_pxe::desk::Snapshot;
use koboshi_pxe::{Content, dhcp};
use sha2::{Digest as _, Sha256};

use crate::caveats::caveats;
use crate::loaders;
use crate::plan::{self, Planner};
use crate::roots;
use crate::site::{self, At, Kind, RoleName, Site, Subnet};

/// The appliance's own place on the provisioning network.
#[derive(Debug, Clone, Copy)]
pub struct Home {
    /// Its address there.
    pub address: Ipv4Addr,
    /// Network bits.
    pub prefix: u8,
    /// HTTP port.
    pub http_port: u16,
}

impl Home {
    /// The network's own address.
    pub fn network(self) -> Ipv4Addr {
        let host = u32::MAX.checked_shr(u32::from(self.prefix)).unwrap_or(0);
        Ipv4Addr::from(u32::from(self.address) & !host)
    }
}

/// A reading, ready to be put in force.
pub struct Reading {
    /// For the desk.
    pub snapshot: Snapshot,
    /// What is not as it should be, though not wrong enough to refuse the site.
    pub warnings: Vec<String>,
}

/// The common initramfs segment of this program: made once, the same bytes every time.
pub fn common() -> (Bytes, [u8; 32]) {
    let busybox = busybox();
    let bytes = koboshi_initramfs::common(koboshi_initramfs::INIT, busybox.as_deref());
    let digest = Sha256::digest(&bytes).into();
    (bytes, digest)
}

/// A static busybox of this host, for the rescue shell. Without one, `koboshi-init` has a small
/// prompt of its own.
fn busybox() -> Option<Vec<u8>> {
    let places = ["/bin/busybox", "/usr/bin/busybox", "/bin/busybox.static"];
    places.iter().filter_map(|path| std::fs::read(path).ok()).find(|bytes| is_static_elf(bytes))
}

/// An ELF program without an interpreter needs nothing but a kernel.
fn is_static_elf(bytes: &[u8]) -> bool {
    const PT_INTERP: u32 = 3;
    let u16_at = |at: usize| Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
    let u32_at = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    let u64_at = |at: usize| Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
    let check = || {
        let (start, size, count) = (u64_at(32)? as usize, u16_at(54)? as usize, u16_at(56)?);
        let mut headers = (0..usize::from(count)).map(|n| u32_at(start.checked_add(n * size)?));
        Some(headers.all(|kind| kind.is_some_and(|kind| kind != PT_INTERP)))
    };
    bytes.starts_with(b"\x7fELF\x02\x01") && check().unwrap_or(false)
}

/// The network machines boot on: the first that is on an interface of ours.
pub fn boot_subnet(site: &Site) -> Option<&At<Subnet>> {
    site.subnets.iter().find(|subnet| subnet.kind == Kind::Boot && subnet.interface().is_some())
}

/// Makes a reading.
pub fn read(
    site: Arc<Site>,
    images: &Images,
    home: Home,
    revision: u64,
    common: (Bytes, [u8; 32]),
) -> Reading {
    let (loaders, mut warnings) = loaders::find(&site);
    warnings.extend(caveats(&site).iter().map(ToString::to_string));
    let mut roles = BTreeMap::new();
    for (name, role) in &site.roles {
        let ready = roots::ready(images, role);
        if let Err(why) = &ready {
            warnings.push(format!("role {name} ({}): {why}", role.image.origin));
        }
        roles.insert(name.clone(), ready);
    }
    let trouble = |role: &RoleName| match roles.get(role) {
        Some(Ok(_)) => None,
        Some(Err(why)) => Some(why.clone()),
        None => Some(format!("the site has no role {role}")),
    };

    let mut machines = HashMap::new();
    for (name, machine) in &site.machines {
        let seat = site.seat_of(name);
        let place = match (site.matrix.get(name).map(|line| &line.value), seat) {
            (_, Some((name, seat))) => Place::Seat(Seat {
                name: name.to_string(),
                role: seat.role.to_string(),
                address: seat.ip.as_ref().map(|ip| ip.value),
                trouble: trouble(&seat.role),
                exclusive: match seat.exclusive {
                    site::Exclusive::Fence => Exclusive::Fence,
                    site::Exclusive::Probe => Exclusive::Probe,
                },
            }),
            (Some(site::Place::Spare), _) => Place::Spare,
            _ => Place::Nowhere,
        };
        let role = seat.and_then(|(_, seat)| site.role_of(seat)).map(|(_, role)| &role.value);
        let loader = site.loader(Some(machine), role).value.map(str::to_string);
        let macs = machine.macs.iter().map(|mac| mac.value).collect();
        let known = Arc::new(Known { name: name.to_string(), macs, place, loader });
        machines.extend(machine.macs.iter().map(|mac| (mac.value, known.clone())));
    }
    let unknown = match &site.net.unknown {
        site::Unknown::Ignore => Unknown::Ignore,
        // Until the menu is built, asking for it is as if the machine were not known.
        site::Unknown::Menu => {
            warnings.push(
                "net.unknown = \"menu\" is not built yet: unknown machines get no answer".into(),
            );
            Unknown::Ignore
        }
        site::Unknown::Discover => role_for_unknown(&site, "rescue", &trouble, &mut warnings),
        site::Unknown::Role(role) => {
            role_for_unknown(&site, role.as_str(), &trouble, &mut warnings)
        }
    };

    let mut blobs = HashMap::new();
    for ready in roles.values().flatten() {
        blobs.extend(ready.blobs.clone());
    }
    blobs.insert(common.1, Content::Bytes(common.0.clone()));
    let server = format!("http://{}:{}", home.address, home.http_port);
    let subnet = Arc::new(subnet(&site, home));
    let hosts = plan::hosts(&site);
    blobs.insert(hosts.1, Content::Bytes(hosts.0.clone()));
    let prefix = home.prefix;
    let planner = Planner { site, revision, roles, server: server.clone(), common, hosts, prefix };
    let snapshot = Snapshot {
        revision,
        subnet,
        server,
        http_port: home.http_port,
        machines,
        unknown: Arc::new(unknown),
        loaders,
        blobs,
        freeze: Arc::new(planner),
    };
    Reading { snapshot, warnings }
}

fn role_for_unknown(
    site: &Site,
    name: &str,
    trouble: &dyn Fn(&RoleName) -> Option<String>,
    warnings: &mut Vec<String>,
) -> Unknown {
    match site.roles.keys().find(|role| role.as_str() == name) {
        Some(role) => Unknown::Role { role: role.to_string(), trouble: trouble(role) },
        None => {
            warnings
                .push(format!("net.unknown wants the role {name}, which the site does not have"));
            Unknown::Ignore
        }
    }
}

/// Option 121 (RFC 3442): each destination with only the octets its mask needs. A client that takes
/// it ignores option 3, so the default route is in it too.
fn classless(
    gateway: Option<Ipv4Addr>,
    routes: impl Iterator<Item = (Ipv4Addr, u8, Ipv4Addr)>,
) -> Vec<u8> {
    let default = gateway.map(|gateway| (Ipv4Addr::UNSPECIFIED, 0, gateway));
    let mut option = Vec::new();
    for (to, prefix, via) in routes.chain(default) {
        option.push(prefix);
        option.extend(&to.octets()[..usize::from(prefix.div_ceil(8))]);
        option.extend(via.octets());
    }
    option
}

fn subnet(site: &Site, home: Home) -> dhcp::Subnet {
    let mut subnet = dhcp::Subnet::new(home.address, home.network(), home.prefix);
    subnet.lease = site.net.lease.0;
    let mut reserved: HashSet<Ipv4Addr> = site.by_address.keys().copied().collect();
    reserved.insert(home.address);
    if let Some(meant) = boot_subnet(site) {
        subnet.pool = meant.pool.as_ref().map(|pool| pool.first..=pool.last);
        subnet.gateway = meant.gateway.as_ref().map(|gateway| gateway.value);
        subnet.dns = meant.dns.clone();
        subnet.ntp = meant.ntp.clone();
        subnet.domain = meant.domain.clone();
        subnet.mtu = meant.mtu;
        subnet.options =
            meant.options.iter().map(|(code, option)| (*code, option.0.clone())).collect();
        if !meant.routes.is_empty() {
            let routes =
                meant.routes.iter().map(|route| (route.to.network(), route.to.prefix(), route.via));
            subnet.options.push((121, classless(meant.gateway.as_ref().map(|g| g.value), routes)));
        }
        reserved.extend(subnet.gateway);
        reserved.extend(&subnet.dns);
        reserved.extend(&subnet.ntp);
    }
    subnet.reserved = Arc::new(reserved);
    subnet
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_are_as_short_as_rfc_3442_has_them() {
        let ip = Ipv4Addr::new;
        let routes =
            [(ip(10, 80, 0, 0), 16, ip(10, 77, 0, 254)), (ip(10, 0, 0, 128), 25, ip(10, 77, 0, 9))];
        assert_eq!(
            classless(Some(ip(10, 77, 0, 1)), routes.into_iter()),
            [16, 10, 80, 10, 77, 0, 254, 25, 10, 0, 0, 128, 10, 77, 0, 9, 0, 10, 77, 0, 1]
        );
    }

    #[test]
    fn an_elf_with_an_interpreter_is_not_static() {
        assert!(is_static_elf(koboshi_initramfs::INIT), "koboshi-init is static");
        let dynamic = std::fs::read("/bin/ls").expect("every Debian has /bin/ls");
        assert!(!is_static_elf(&dynamic));
        assert!(!is_static_elf(b"\x7fELF\x02\x01 cut short"));
    }
}
