//! One writer makes what everyone reads: a site as meant, plus the images as they are now, become
//! one `Snapshot` for the desk. The same function serves `koboshi explain --site`, offline.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use koboshi_images::{RoleHold, Store as Images};
use koboshi_pxe::decide::{Exclusive, Known, Place, Seat, Unknown};
use koboshi_pxe::desk::Snapshot;
use koboshi_pxe::menu::Offered;
use koboshi_pxe::{Content, Mac};
use sha2::{Digest as _, Sha256};

use crate::caveats::caveats;
use crate::holds;
use crate::home::Homes;
use crate::loaders;
use crate::maintenance;
use crate::memtest;
use crate::networks;
use crate::plan::{self, Planner, Versions};
use crate::rollout::{Rollout, Told};
use crate::roots;
use crate::site::{self, At, Kind, MachineName, Mode, RoleName, Site, Subnet};

/// A reading, ready to be put in force.
pub struct Reading {
    /// For the desk.
    pub snapshot: Snapshot,
    /// What it plans by.
    pub planner: Arc<Planner>,
    /// What is not as it should be, though not wrong enough to refuse the site.
    pub warnings: Vec<String>,
    /// What is to be kept of how versions have done.
    pub told: Vec<Told>,
    /// Images that roles boot.
    pub images: BTreeSet<RoleHold>,
}

/// Makes a reading whose images nobody removes: they are held, and then looked at again.
pub fn held(holds: &holds::Keeper, read: impl Fn() -> Reading) -> Reading {
    let mut reading = read();
    for _ in 0..3 {
        if let Err(error) = holds.roles(reading.images.clone()) {
            reading.warnings.push(format!("images of roles are not held: {error}"));
            return reading;
        }
        let there = |content: &Content| match content {
            Content::File { path, .. } => path.exists(),
            Content::Bytes(_) => true,
        };
        if reading.snapshot.blobs.values().all(there) {
            break;
        }
        let told = reading.told;
        reading = read();
        // What was learned by the first look is not learned again.
        reading.told.splice(0..0, told);
    }
    reading
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

/// The network most machines boot on: the first of that kind.
pub fn boot_subnet(site: &Site) -> Option<&At<Subnet>> {
    site.subnets.iter().find(|subnet| subnet.kind == Kind::Boot)
}

/// Makes a reading. `identified`: MACs of machines beside those that the site names.
pub fn read(
    site: Arc<Site>,
    images: &Images,
    rollout: &Arc<Rollout>,
    homes: &Homes,
    identified: &BTreeMap<Mac, MachineName>,
    revision: u64,
    common: (Bytes, [u8; 32]),
) -> Reading {
    let (loaders, mut warnings) = loaders::find(&site);
    warnings.extend(caveats(&site).iter().map(ToString::to_string));
    let mut roles = BTreeMap::new();
    let mut held = BTreeSet::new();
    for (name, role) in &site.roles {
        let ready = roots::ready(images, role);
        if let Err(why) = &ready {
            warnings.push(format!("role {name} ({}): {why}", role.image.origin));
        }
        roles.insert(name.clone(), ready);
        // Also one that waits for its squashfs.
        if let Ok(image) = images.resolve(&role.image.value.to_string()) {
            let image = format!("{}@{}", image.name, image.version);
            held.insert(RoleHold { role: name.to_string(), image });
        }
    }
    let mut told = Vec::new();
    let tracks = images.tracks().unwrap_or_else(|error| {
        warnings.push(format!("which versions are on trial or pinned is not known: {error}"));
        BTreeMap::new()
    });
    let versions = Versions::read(&site, images, &tracks, rollout.clone());
    if !tracks.is_empty() {
        told.extend(rollout.read(tracks, &site));
    }
    let trouble = |role: &RoleName| match roles.get(role) {
        Some(Ok(_)) => None,
        Some(Err(why)) => Some(why.clone()),
        None => Some(format!("the site has no role {role}")),
    };

    let trouble_of = |name: &RoleName, machine: &MachineName| {
        let Some(role) = site.roles.get(name) else { return trouble(name) };
        let current = roles.get(name).and_then(|ready| ready.as_ref().ok());
        let current = current.map(|ready: &plan::Ready| ready.image.version);
        match versions.of((name, role), current, machine.as_str()) {
            Some((Some(ready), _)) => ready.err(),
            Some((None, _)) | None => trouble(name),
        }
    };

    let mut machines = HashMap::new();
    for (name, machine) in &site.machines {
        let seat = site.seat_of(name);
        let place = match (site.matrix.get(name).map(|line| &line.value), seat) {
            (_, Some((seat_name, seat))) => Place::Seat(Seat {
                name: seat_name.to_string(),
                role: seat.role.to_string(),
                address: seat.ip.as_ref().map(|ip| ip.value),
                trouble: trouble_of(&seat.role, name),
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
        let also = identified.iter().filter(|(_, machine)| *machine == name).map(|(mac, _)| *mac);
        let macs: Vec<Mac> = machine.macs.iter().map(|mac| mac.value).chain(also).collect();
        let named = name.to_string();
        let known = Arc::new(Known { name: named, macs: macs.clone(), place, loader });
        machines.extend(macs.into_iter().map(|mac| (mac, known.clone())));
    }
    let offer = |role: &RoleName| Offered { role: role.to_string(), trouble: trouble(role) };
    let menu = site.net.menu.as_ref();
    let menu = menu.map(|menu| Arc::new(menu.iter().map(|role| offer(&role.value)).collect()));
    let unknown = match &site.net.unknown {
        site::Unknown::Ignore => Unknown::Ignore,
        site::Unknown::Menu => Unknown::Menu(
            menu.clone().unwrap_or_else(|| Arc::new(site.roles.keys().map(offer).collect())),
        ),
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
    let networks = networks::read(&site, homes, &mut warnings);
    let seats = site.by_address.keys().copied().collect();
    let (bmcs, proxy) = (networks::bmcs(&site), site.net.mode == Mode::Proxy);
    let http_port = homes.http_port;
    let hosts = plan::hosts(&site);
    blobs.insert(hosts.1, Content::Bytes(hosts.0.clone()));
    let menu_of = menu.clone();
    let duty = |image: &&str| (image.to_string(), roots::for_duty(images, image));
    let duties: BTreeMap<_, _> = maintenance::IMAGES.iter().map(duty).collect();
    for ready in duties.values().flatten() {
        blobs.extend(ready.blobs.clone());
    }
    let memtest = memtest::find(&site);
    let planner = Arc::new(Planner {
        site,
        revision,
        roles,
        versions,
        duties,
        memtest,
        http_port,
        common,
        hosts,
        menu: menu_of,
    });
    let snapshot = Snapshot {
        revision,
        networks,
        seats,
        bmcs,
        proxy,
        http_port,
        machines,
        unknown: Arc::new(unknown),
        menu,
        loaders,
        blobs,
        freeze: planner.clone(),
    };
    Reading { snapshot, planner, warnings, told, images: held }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_elf_with_an_interpreter_is_not_static() {
        assert!(is_static_elf(koboshi_initramfs::INIT), "koboshi-init is static");
        let dynamic = std::fs::read("/bin/ls").expect("every Debian has /bin/ls");
        assert!(!is_static_elf(&dynamic));
        assert!(!is_static_elf(b"\x7fELF\x02\x01 cut short"));
    }
}
