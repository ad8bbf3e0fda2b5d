//! The segment between the common initramfs and a boot's orders: the drivers of the image's own
//! kernel, so that PID 1 finds its NIC.
//!
//! Made once for each image, when it is imported. Modules lie in it plain (PID 1 only calls
//! `finit_module`), under `/lib/modules/<release>/` as everywhere, with the firmware they name under
//! `/lib/firmware/`. Two lists go along, so that PID 1 need not read depmod's files:
//!
//! * [`contract::MODULES_LIST`], a line a module: `name /path dep,dep…`, or `name /path` alone.
//!   The deps are *all* modules to load before, in the order of loading: soft ones of kind `pre`
//!   first, hard ones after. A soft one may refuse to load (a processor without the instructions):
//!   go on. A line comes after the lines of its deps.
//! * [`contract::ALIASES_LIST`], a line an alias: `pattern name`, the pattern as the kernel's
//!   MODALIAS is written, with `*`, `?` and `[…]`. Several lines may match: load them all, in order;
//!   a `post` soft dependency is such a later line.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::Path;

use bytes::Bytes;

use crate::cpio::{Archive, Entry};
use crate::depmod::Depmod;
use crate::inroot::Root;
use crate::{Choice, Compression, Error, contract, modinfo, unpack};

/// Debian's largest are amdgpu with 24 MB and xfs with 3 MB.
const MODULE_MAX: usize = 64 << 20;
/// `netronome` and `mellanox` ship single files of up to 15 MB.
const FIRMWARE_MAX: usize = 64 << 20;
/// Everything unpacked, since it will lie in the machine's memory.
const SEGMENT_MAX: u64 = 1 << 30;

/// An image kernel's drivers.
#[derive(Debug, Clone)]
pub struct ModulesSegment {
    /// The archive, packed, a multiple of four bytes long.
    pub bytes: Bytes,
    /// Bytes it takes unpacked.
    pub unpacked: u64,
    /// What is in it, dependencies before those who need them.
    pub modules: Vec<Module>,
    /// Firmware files in it, below `lib/firmware/`.
    pub firmware: Vec<String>,
    /// Module and firmware file it names that the image does not have. Most are for other revisions
    /// of the hardware, or wait for the package `firmware-…` of the distribution.
    pub firmware_missing: Vec<(String, String)>,
    /// Files that `modules.dep` names and the image does not have, below its folder. Others are loaded
    /// without them.
    pub missing: Vec<String>,
}

/// One module of the segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Module {
    /// Name, `-` as `_`.
    pub name: String,
    /// Absolute path in the initramfs.
    pub path: String,
    /// All that is loaded before, in order.
    pub deps: Vec<String>,
    /// Size of the module.
    pub size: u64,
}

/// Kernel releases an image has modules for, sorted by name.
pub fn releases(root: &Path) -> Result<Vec<String>, Error> {
    let root = Root::open(root)?;
    releases_in(&root)
}

/// Takes the chosen modules of `release`, with all they depend on and their firmware, out of an
/// image unpacked at `root`. No link in the image leads out of it.
pub fn modules_segment(
    root: &Path,
    release: &str,
    choice: &Choice,
    compression: Compression,
) -> Result<ModulesSegment, Error> {
    let root = Root::open(root)?;
    let dir = modules_dir(&root, release)?;
    let all = Depmod::read(&root, &dir, release)?;
    let chosen = all.modules.iter().filter(|(name, module)| choice.takes(name, &module.path));
    let wanted = all.closure(chosen.map(|(name, _)| name.as_str()));

    let mut archive = Archive::new();
    let mut room = SEGMENT_MAX;
    let (mut modules, mut names_firmware) = (Vec::new(), Vec::new());
    let (mut missing, mut absent) = (Vec::new(), HashSet::new());
    for (name, mut deps) in in_order(&all, &wanted)? {
        let from = format!("{dir}/{}", all.modules[name].path);
        // Cut-down images are shipped with the list of the whole kernel.
        let Some(packed) = root.read(&from, MODULE_MAX as u64)? else {
            missing.push(all.modules[name].path.clone());
            absent.insert(name);
            continue;
        };
        deps.retain(|dep| !absent.contains(dep.as_str()));
        let module = unpack::by_ending(&from, packed, MODULE_MAX)?;
        let path = unpack::without_ending(&all.modules[name].path);
        let path = format!("lib/modules/{release}/{path}");
        room = take(room, module.len(), release)?;
        for file in modinfo::values(&module, "firmware") {
            names_firmware.push((name, file.to_owned()));
        }
        let size = module.len() as u64;
        archive.insert(&path, Entry::file(0o444, module))?;
        modules.push(Module { name: name.to_owned(), path: format!("/{path}"), deps, size });
    }

    if modules.is_empty()
        && let Some(first) = missing.first()
    {
        return Err(not_there(&format!("{dir}/{first}")));
    }

    let mut firmware = BTreeMap::new();
    let mut firmware_missing = Vec::new();
    for (module, file) in names_firmware {
        let found = match firmware.get(&file) {
            Some(found) => *found,
            None => {
                let found = find_firmware(&root, release, &file)?;
                if let Some((name, bytes)) = &found {
                    room = take(room, bytes.len(), release)?;
                    let path = format!("lib/firmware/{name}");
                    archive.insert(&path, Entry::file(0o444, bytes.clone()))?;
                }
                firmware.insert(file.clone(), found.is_some());
                found.is_some()
            }
        };
        if !found {
            firmware_missing.push((module.to_owned(), file));
        }
    }

    archive.put(contract::MODULES_LIST, Entry::file(0o444, modules_list(&modules)));
    archive.put(contract::ALIASES_LIST, Entry::file(0o444, aliases_list(&all, &modules)));
    let plain = archive.to_bytes();
    let firmware = firmware.into_iter().filter_map(|(file, found)| found.then_some(file)).collect();
    Ok(ModulesSegment {
        bytes: compression.pack(&plain),
        unpacked: plain.len() as u64,
        modules,
        firmware,
        firmware_missing,
        missing,
    })
}

/// `/lib` is a link in most images, and the only one there is in a few.
const PLACES: [&str; 2] = ["usr/lib", "lib"];

fn modules_dir(root: &Root, release: &str) -> Result<String, Error> {
    // It becomes a word of the lists, and a folder.
    let letters = release.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/');
    let sound = !release.is_empty() && letters && !release.starts_with('.');
    for place in PLACES {
        let dir = format!("{place}/modules/{release}");
        if sound && root.has_dir(&dir)? {
            return Ok(dir);
        }
    }
    Err(Error::NoModules { release: release.to_owned(), found: releases_in(root)? })
}

fn releases_in(root: &Root) -> Result<Vec<String>, Error> {
    let mut found = BTreeSet::new();
    for place in PLACES {
        for name in root.list(&format!("{place}/modules"))?.unwrap_or_default() {
            if root.has_dir(&format!("{place}/modules/{name}"))? {
                found.insert(name);
            }
        }
    }
    Ok(found.into_iter().collect())
}

/// Every wanted module after its dependencies, and those dependencies.
fn in_order<'a>(
    all: &'a Depmod,
    wanted: &HashSet<&'a str>,
) -> Result<Vec<(&'a str, Vec<String>)>, Error> {
    let mut roots: Vec<&str> = wanted.iter().copied().collect();
    roots.sort_unstable();
    let (mut order, mut place) = (Vec::new(), HashMap::new());
    for name in roots {
        let before = all.before(name)?;
        for name in before.iter().map(String::as_str).chain([name]) {
            let Some((name, _)) = all.modules.get_key_value(name) else { continue };
            if !place.contains_key(name.as_str()) {
                place.insert(name.as_str(), order.len());
                order.push(name.as_str());
            }
        }
    }
    let with_deps = |(at, name): (usize, &'a str)| {
        let mut deps = all.before(name)?;
        // Only a broken modules.dep has circles; PID 1 is not to run round in them.
        deps.retain(|dep| place.get(dep.as_str()).is_some_and(|place| *place < at));
        Ok((name, deps))
    };
    order.into_iter().enumerate().map(with_deps).collect()
}

/// Where the kernel looks, in its order (`drivers/base/firmware_loader/main.c`, `fw_path`), plain
/// before packed. A packed file stays packed: the kernel unpacks it if it can.
fn find_firmware(root: &Root, release: &str, file: &str) -> Result<Option<(String, Bytes)>, Error> {
    if file.is_empty() || file.split('/').any(|part| part == "..") {
        return Ok(None);
    }
    let folders =
        [format!("updates/{release}/"), "updates/".into(), format!("{release}/"), "".into()];
    for packing in ["", ".xz", ".zst"] {
        for folder in &folders {
            for place in PLACES {
                let path = format!("{place}/firmware/{folder}{file}{packing}");
                if let Some(bytes) = root.read_if_file(&path, FIRMWARE_MAX as u64)? {
                    return Ok(Some((format!("{file}{packing}"), bytes.into())));
                }
            }
        }
    }
    Ok(None)
}

fn modules_list(modules: &[Module]) -> String {
    let line = |module: &Module| {
        let line = format!("{} {} {}", module.name, module.path, module.deps.join(","));
        format!("{}\n", line.trim_end())
    };
    modules.iter().map(line).collect()
}

fn aliases_list(all: &Depmod, modules: &[Module]) -> String {
    let by_name: HashMap<&str, &Module> = modules.iter().map(|m| (m.name.as_str(), m)).collect();
    let mut seen = HashSet::new();
    let mut out = String::new();
    for (pattern, name) in &all.aliases {
        let Some(module) = by_name.get(name.as_str()) else { continue };
        for name in [name.as_str()].into_iter().chain(all.after(name, &module.deps)) {
            if by_name.contains_key(name) && seen.insert((pattern, name)) {
                out.push_str(&format!("{pattern} {name}\n"));
            }
        }
    }
    out
}

fn take(room: u64, size: usize, release: &str) -> Result<u64, Error> {
    room.checked_sub(size as u64).ok_or_else(|| Error::TooLarge {
        what: format!("modules and firmware of {release}"),
        limit: SEGMENT_MAX,
    })
}

fn not_there(path: &str) -> Error {
    Error::Read { path: path.to_owned(), source: std::io::ErrorKind::NotFound.into() }
}

#[cfg(test)]
mod tests;
