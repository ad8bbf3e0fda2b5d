//! The seat's data disks: found by what is written on them, mounted into the new root before anybody
//! in it looks. A seat never starts with an empty directory where its data should be: a disk that is
//! not there, or is there twice, is waited for with words. Nothing is formatted or repaired here.

mod assemble;
pub mod devices;
mod partitions;
pub mod superblock;

use std::path::Path;
use std::time::{Duration, Instant};

use rustix::mount::MountFlags;

use crate::cmdline::Cmdline;
use crate::console::{Pause, pause, say};
use crate::contract::{Disk, Orders, Phase};
use crate::disks::assemble::{Assembler, Made};
use crate::disks::devices::{Device, Seen, inventory};
use crate::disks::superblock::Kind;
use crate::modules::Modules;
use crate::report::Reporter;
use crate::rescue::Stop;
use crate::settle::intree::Tree;
use crate::{mounts, tell};

const LOOK: Duration = Duration::from_millis(500);
/// A controller with forty disks behind it may take half a minute; a word after five seconds.
const FIRST_WORD: Duration = Duration::from_secs(5);
const NEXT_WORD: Duration = Duration::from_secs(60);
const MARK: &str = "# koboshi: data disks of this seat, mounted before the system started";

/// Which disk, as the site says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// Of the file system.
    Label(String),
    /// Of the file system.
    Uuid(String),
    /// Of the partition.
    PartLabel(String),
    /// Of the partition.
    PartUuid(String),
    /// Of the disk, or its world-wide name.
    Serial(String),
    /// The kernel's name.
    Path(String),
}

impl Wanted {
    /// `LABEL=db`, and udev's links where they say the same.
    pub fn parse(text: &str) -> Option<Wanted> {
        type Make = fn(String) -> Wanted;
        const BY: [(&str, Make); 9] = [
            ("LABEL=", Wanted::Label),
            ("UUID=", Wanted::Uuid),
            ("PARTLABEL=", Wanted::PartLabel),
            ("PARTUUID=", Wanted::PartUuid),
            ("SERIAL=", Wanted::Serial),
            ("/dev/disk/by-label/", Wanted::Label),
            ("/dev/disk/by-uuid/", Wanted::Uuid),
            ("/dev/disk/by-partlabel/", Wanted::PartLabel),
            ("/dev/disk/by-partuuid/", Wanted::PartUuid),
        ];
        let named = BY.iter().find_map(|(by, make)| Some((make, text.strip_prefix(by)?)));
        let (make, name) = match named {
            Some((make, name)) => (*make, name),
            None if text.starts_with("/dev/disk/") => return None,
            None => (Wanted::Path as Make, text.strip_prefix("/dev/")?),
        };
        (!name.is_empty()).then(|| make(name.to_owned()))
    }

    fn is(&self, device: &Device, mapped: &dyn Fn(&str) -> Option<String>) -> bool {
        let found = device.holds.as_ref();
        match self {
            Wanted::Label(label) => found.is_some_and(|found| found.label == *label),
            Wanted::Uuid(uuid) => found.is_some_and(|found| found.uuid.eq_ignore_ascii_case(uuid)),
            Wanted::PartLabel(label) => device.part_label == *label,
            Wanted::PartUuid(uuid) => device.part_uuid.eq_ignore_ascii_case(uuid),
            Wanted::Serial(serial) => device.serials.iter().any(|found| found == serial),
            Wanted::Path(name) => {
                device.name.replace('!', "/") == *name
                    || mapped(name).is_some_and(|real| real == device.name)
            }
        }
    }
}

/// The one device that is meant: `None` while there is none, and in words why it cannot be used.
/// `mapped` tells the kernel's name behind a link of `/dev` (`vg/db` → `dm-0`).
pub fn choose<'a>(
    disk: &Disk,
    wanted: &Wanted,
    devices: &'a [Device],
    mapped: &dyn Fn(&str) -> Option<String>,
) -> Result<Option<&'a Device>, String> {
    let what = &disk.what;
    let there: Vec<&Device> = devices.iter().filter(|device| wanted.is(device, mapped)).collect();
    let system = |device: &&Device| {
        device.holds.as_ref().is_some_and(|found| found.kind.file_system().is_some())
    };
    let fit: Vec<&Device> = there.iter().copied().filter(system).collect();
    let names = |all: &[&Device]| {
        let names: Vec<String> = all.iter().map(|device| device.describe()).collect();
        names.join(" and ")
    };
    match fit.as_slice() {
        [one] => Ok(Some(one)),
        [] => match there.iter().find(|device| !device.used).or(there.first()) {
            // What a RAID or LVM makes of it is another device, and may come.
            Some(device) if is_member(device) => Ok(None),
            Some(device) if device.used && matches!(wanted, Wanted::Serial(_)) => Ok(None),
            Some(device) => Err(format!(
                "{what} is {}: no file system to mount at {}, and nothing is formatted here",
                device.describe(),
                disk.at
            )),
            None => Ok(None),
        },
        // Disks of one btrfs share its UUID; mounting one mounts all.
        [first, rest @ ..] if rest.iter().all(|other| one_btrfs(first, other)) => Ok(Some(first)),
        many => Err(format!(
            "{what} is there {} times: {}; none is mounted at {} until only one is left, or UUID= or \
             SERIAL= says which",
            many.len(),
            names(many),
            disk.at
        )),
    }
}

fn one_btrfs(one: &Device, other: &Device) -> bool {
    match (&one.holds, &other.holds) {
        (Some(a), Some(b)) => a.kind == Kind::Btrfs && a == b && !a.uuid.is_empty(),
        _ => false,
    }
}

fn is_member(device: &Device) -> bool {
    device.holds.as_ref().is_some_and(|found| matches!(found.kind, Kind::Raid | Kind::Lvm))
}

/// Mounts every disk of the seat, and waits for those that are not there.
pub fn attach(
    tree: &Tree,
    orders: &Orders,
    modules: &mut Modules,
    line: &Cmdline,
    reporter: &mut Reporter,
) -> Result<(), Stop> {
    if orders.disks.is_empty() {
        return Ok(());
    }
    let mut disks = orders.disks.clone();
    // What lies within another comes after it.
    disks.sort_by(|one, other| one.at.cmp(&other.at));
    let mut hunt =
        Hunt { modules, assembler: Assembler::default(), seen: Seen::default(), line, tree };
    let mut lines = Vec::new();
    for disk in &disks {
        let wanted = Wanted::parse(&disk.what)
            .ok_or_else(|| Stop::because(format!("{:?} does not name a disk", disk.what)))?;
        lines.push(hunt.one(disk, &wanted, orders, reporter)?);
    }
    let text = fstab(&tree.read("etc/fstab"), &lines);
    if let Err(error) = tree.write("etc/fstab", &text, 0o644) {
        say(format!("fstab not told of the data disks: {error}"));
    }
    Ok(())
}

struct Hunt<'a> {
    modules: &'a mut Modules,
    assembler: Assembler,
    seen: Seen,
    line: &'a Cmdline,
    tree: &'a Tree,
}

/// A line of fstab to be.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Mounted {
    source: String,
    at: String,
    kind: &'static str,
}

impl Hunt<'_> {
    fn one(
        &mut self,
        disk: &Disk,
        wanted: &Wanted,
        orders: &Orders,
        reporter: &mut Reporter,
    ) -> Result<Mounted, Stop> {
        let begun = Instant::now();
        let (mut next, mut fresh) = (FIRST_WORD, FIRST_WORD);
        let mut last = String::new();
        let mut there = 0;
        loop {
            while self.modules.coldplug(Path::new("/sys"), self.line) > 0 {}
            let devices = inventory(Path::new("/sys"), Path::new("/dev"), &mut self.seen);
            // A second disk of the same label may be half a second behind the first.
            let settled = std::mem::replace(&mut there, devices.len()) == devices.len();
            let why = match choose(disk, wanted, &devices, &mapped) {
                Ok(Some(_)) if !settled => String::new(),
                Ok(Some(device)) => match self.mount(disk, device, &devices) {
                    Ok(mounted) => return Ok(mounted),
                    Err(why) => why,
                },
                Ok(None) => {
                    let made = self.step(&devices, begun.elapsed());
                    if made.changed {
                        self.seen.forget_blank();
                        continue;
                    }
                    missing(disk, &devices, &made.lacks)
                }
                Err(why) => why,
            };
            let waited = begun.elapsed();
            let due = waited >= next || (waited >= FIRST_WORD && why != last);
            if due && !why.is_empty() {
                next = waited + NEXT_WORD;
                say(format!("{why}; waiting since {} s ('rescue' for a shell)", waited.as_secs()));
                if why != last {
                    tell(reporter, Phase::Trouble { message: why.clone() }, orders.written);
                }
                last = why;
            }
            if waited >= fresh {
                fresh = waited + FIRST_WORD;
                self.seen.forget_blank();
            }
            if pause(LOOK) == Pause::Rescue {
                return Err(Stop::Asked);
            }
        }
    }

    fn step(&mut self, devices: &[Device], waited: Duration) -> Made {
        let (modules, line) = (&mut *self.modules, self.line);
        self.assembler.step(self.tree, devices, waited, &mut |module| {
            modules.load(module, line);
        })
    }

    fn mount(&mut self, disk: &Disk, device: &Device, all: &[Device]) -> Result<Mounted, String> {
        let Some(found) = &device.holds else { return Err(format!("{} is blank", device.name)) };
        let kind = found.kind.file_system().unwrap_or_default();
        self.modules.load(kind, self.line);
        let place = self.tree.place(&disk.at, true).map_err(|error| error.to_string())?;
        let made = std::fs::create_dir_all(&place);
        made.map_err(|error| format!("no place at {} in the root: {error}", disk.at))?;
        let source = device.path(Path::new("/dev"));
        let (source, target) = (source.to_string_lossy(), place.to_string_lossy());
        // Without its other disks a btrfs of several does not mount; there is no udev to tell it.
        let others = all.iter().filter(|other| one_btrfs(device, other));
        let others: Vec<String> = others
            .map(|other| format!("device={}", other.path(Path::new("/dev")).display()))
            .collect();
        let options = if others.len() > 1 { others.join(",") } else { String::new() };
        mounts::mount_from(&source, &target, kind, MountFlags::empty(), &options).map_err(
            |error| {
                let check = match found.kind {
                    Kind::Xfs => "xfs_repair",
                    Kind::Btrfs => "btrfs check",
                    _ => "e2fsck",
                };
                format!(
                    "{} on {} does not mount at {}: {error} (nothing is repaired here: {check} does)",
                    disk.what,
                    device.describe(),
                    disk.at
                )
            },
        )?;
        say(format!("{} is {}, mounted at {}", disk.what, device.describe(), disk.at));
        let source = match found.uuid.is_empty() {
            true => source.into_owned(),
            false => format!("UUID={}", found.uuid),
        };
        Ok(Mounted { source, at: disk.at.clone(), kind })
    }
}

fn missing(disk: &Disk, devices: &[Device], lacks: &[String]) -> String {
    let all: Vec<String> = devices.iter().map(Device::describe).collect();
    let seen = if all.is_empty() { "none".to_owned() } else { all.join(", ") };
    let lacks: String = lacks.iter().map(|lack| format!("; {lack}")).collect();
    let (what, way_out) = (&disk.what, way_out(&disk.what, devices));
    format!("{what} for {} is not there{way_out}; disks seen: {seen}{lacks}", disk.at)
}

/// What makes the disk of that label of one that is blank.
fn way_out(what: &str, devices: &[Device]) -> String {
    let blank = |device: &&Device| {
        let holds_nothing = device.holds.is_none() && device.unread.is_none() && !device.used;
        holds_nothing && device.disk.is_none()
    };
    let mut blank = devices.iter().filter(blank);
    let blank = blank.find_map(|device| Some((&device.name, device.serials.first()?)));
    match (what.strip_prefix("LABEL="), blank) {
        (Some(label), Some((name, serial))) => format!(
            " (if {name} is to be that: `koboshi maintain MACHINE prepare-disks --disk {serial} --label {label}`)"
        ),
        _ => String::new(),
    }
}

/// The kernel's name behind `/dev/NAME`: `mapper/vg-db` is a node or a link, `vg/db` a link.
fn mapped(name: &str) -> Option<String> {
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    let meta = std::fs::metadata(Path::new("/dev").join(name)).ok()?;
    if !meta.file_type().is_block_device() {
        return None;
    }
    let (major, minor) = (rustix::fs::major(meta.rdev()), rustix::fs::minor(meta.rdev()));
    let place = std::fs::canonicalize(format!("/sys/dev/block/{major}:{minor}")).ok()?;
    Some(place.file_name()?.to_string_lossy().into_owned())
}

/// The image's own lines stay but for those of the same places. No pass number: a mounted disk is not
/// checked, and the system is not asked to wait for it again.
fn fstab(image: &str, disks: &[Mounted]) -> String {
    let place =
        |line: &str| line.split_whitespace().nth(1).map(|at| at.trim_end_matches('/').to_owned());
    let mut text = String::new();
    for line in image.lines().take_while(|line| *line != MARK) {
        let ours = !line.trim_start().starts_with('#')
            && place(line).is_some_and(|at| disks.iter().any(|d| d.at.trim_end_matches('/') == at));
        if !ours {
            text.push_str(line);
            text.push('\n');
        }
    }
    text.push_str(MARK);
    text.push('\n');
    for Mounted { source, at, kind } in disks {
        // fstab(5): blanks in octal.
        let at = at.replace('\\', "\\134").replace(' ', "\\040").replace('\t', "\\011");
        text.push_str(&format!("{source} {at} {kind} defaults 0 0\n"));
    }
    text
}

#[cfg(test)]
mod tests;
