//! Which block devices there are, and what each of them holds: `/sys/class/block`, and the first and
//! last bytes of each. Nothing is written, ever.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::disks::partitions::{self, Named};
use crate::disks::superblock::{Found, HEAD, TAIL, identify};

/// Partition tables are read this far: 128 entries of 128 bytes and what precedes them are 17 KiB.
const TABLE_MAX: usize = 256 * 1024;

/// A disk, a partition, or what a RAID or LVM makes of some.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Device {
    /// The kernel's name: `sda1`, `nvme0n1p2`, `dm-0`.
    pub name: String,
    /// The disk it is a part of.
    pub disk: Option<String>,
    /// Bytes.
    pub size: u64,
    /// Something is built on it: partitions, a RAID, a mapping.
    pub used: bool,
    /// What lies on it.
    pub holds: Option<Found>,
    /// `PARTUUID`
    pub part_uuid: String,
    /// `PARTLABEL`
    pub part_label: String,
    /// Serial number and world-wide name of the disk.
    pub serials: Vec<String>,
    /// Reading failed.
    pub unread: Option<String>,
}

impl Device {
    /// `sda1 (931 GiB, ext4 LABEL=db)`
    pub fn describe(&self) -> String {
        let size = match self.size {
            size if size >= 10 << 30 => format!("{} GiB", size >> 30),
            size => format!("{} MiB", size >> 20),
        };
        let what = match (&self.holds, &self.unread) {
            (_, Some(why)) => format!("cannot be read: {why}"),
            (Some(found), _) if found.label.is_empty() => found.kind.name().to_owned(),
            (Some(found), _) => format!("{} LABEL={}", found.kind.name(), found.label),
            (None, _) if self.used => "in use".to_owned(),
            (None, _) => "blank".to_owned(),
        };
        format!("{} ({size}, {what})", self.name)
    }

    /// `/dev/sda1`
    pub fn path(&self, dev: &Path) -> PathBuf {
        // cciss!c0d0 is how sysfs writes a name with a slash.
        dev.join(self.name.replace('!', "/"))
    }
}

/// What was read of a device before: a disk that fails takes half a minute at each read.
#[derive(Debug, Default)]
pub struct Seen(HashMap<(String, u64), (Option<Found>, Option<String>)>);

impl Seen {
    /// Forgets what was blank: RAID, LVM or an operator may have changed it.
    pub fn forget_blank(&mut self) {
        self.0.retain(|_, (found, unread)| found.is_some() || unread.is_some());
    }
}

/// Every device that could hold data, by name.
pub fn inventory(sys: &Path, dev: &Path, seen: &mut Seen) -> Vec<Device> {
    let blocks = sys.join("class/block");
    let names = fs::read_dir(&blocks).into_iter().flatten().flatten();
    let mut all: BTreeMap<String, Device> = BTreeMap::new();
    let mut numbers: HashMap<String, u32> = HashMap::new();
    for name in names.filter_map(|entry| entry.file_name().into_string().ok()) {
        let place = blocks.join(&name);
        let word =
            |file: &str| fs::read_to_string(place.join(file)).unwrap_or_default().trim().to_owned();
        let size = word("size").parse::<u64>().unwrap_or(0).saturating_mul(512);
        if size == 0 || is_no_disk(&name) {
            continue;
        }
        let mut device = Device { name: name.clone(), size, ..Device::default() };
        if let Ok(number) = word("partition").parse() {
            numbers.insert(name.clone(), number);
            let whole = fs::canonicalize(&place).ok();
            let whole = whole.as_deref().and_then(Path::parent).and_then(Path::file_name);
            device.disk = whole.map(|disk| disk.to_string_lossy().into_owned());
            let label = word("uevent");
            let label = label.lines().find_map(|line| line.strip_prefix("PARTNAME="));
            device.part_label = label.unwrap_or_default().to_owned();
        } else {
            device.serials = serials(&place);
        }
        let holders = fs::read_dir(place.join("holders")).into_iter().flatten().flatten().count();
        device.used = holders > 0;
        all.insert(name, device);
    }
    let wholes: Vec<String> = all.values().filter_map(|device| device.disk.clone()).collect();
    let mut tables: HashMap<String, (Vec<Named>, Option<String>)> = HashMap::new();
    for whole in wholes {
        let Some(disk) = all.get_mut(&whole) else { continue };
        disk.used = true;
        let (path, place) = (disk.path(dev), blocks.join(&whole));
        tables.entry(whole).or_insert_with(|| table(&path, &place));
    }
    for (name, number) in numbers {
        let Some(disk) = all.get(&name).and_then(|device| device.disk.clone()) else { continue };
        let serials = all.get(&disk).map(|disk| disk.serials.clone()).unwrap_or_default();
        let Some(device) = all.get_mut(&name) else { continue };
        device.serials = serials;
        let Some((named, signature)) = tables.get(&disk) else { continue };
        if let Some(named) = named.iter().find(|named| named.number == number) {
            device.part_uuid = named.uuid.clone();
            device.part_label = named.label.clone();
        } else if let Some(signature) = signature {
            device.part_uuid = format!("{signature}-{number:02x}");
        }
    }
    for device in all.values_mut().filter(|device| !device.used) {
        let key = (device.name.clone(), device.size);
        let (holds, unread) =
            seen.0.entry(key).or_insert_with(|| match look(&device.path(dev), device.size) {
                Ok(found) => (found, None),
                Err(error) => (None, Some(error.to_string())),
            });
        (device.holds, device.unread) = (holds.clone(), unread.clone());
    }
    all.into_values().collect()
}

/// Memory, files and discs that are no one's data disk.
fn is_no_disk(name: &str) -> bool {
    ["loop", "ram", "zram", "sr", "fd", "nbd", "mtdblock"].iter().any(|kind| {
        name.strip_prefix(kind).is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    })
}

/// virtio's and NVMe's serial number, SCSI's page 0x80, and the world-wide name, as far as there are.
fn serials(place: &Path) -> Vec<String> {
    const FILES: [&str; 5] = ["serial", "device/serial", "device/vpd_pg80", "wwid", "device/wwid"];
    let read = |file: &&str| {
        let bytes = fs::read(place.join(file)).ok()?;
        // The page begins with four bytes of its own.
        let text = if file.ends_with("vpd_pg80") { bytes.get(4..)? } else { &bytes };
        let text = String::from_utf8_lossy(&text[..text.len().min(256)]);
        let text = text.trim_matches(|c: char| c.is_whitespace() || c == '\0').to_owned();
        (!text.is_empty()).then_some(text)
    };
    FILES.iter().filter_map(read).collect()
}

fn look(path: &Path, size: u64) -> io::Result<Option<Found>> {
    let file = File::open(path)?;
    let part = |most: usize| usize::try_from(size).unwrap_or(usize::MAX).min(most);
    let mut head = vec![0; part(HEAD)];
    file.read_exact_at(&mut head, 0)?;
    let mut tail = vec![0; part(TAIL)];
    let begin = size - tail.len() as u64;
    file.read_exact_at(&mut tail, begin)?;
    Ok(identify(&head, &tail, size))
}

/// The names of a disk's partitions, and its MBR's signature. One that cannot be read has none.
fn table(path: &Path, place: &Path) -> (Vec<Named>, Option<String>) {
    let read = || {
        let block = fs::read_to_string(place.join("queue/logical_block_size")).ok();
        let block = block.and_then(|text| text.trim().parse::<u64>().ok()).unwrap_or(512);
        let file = File::open(path)?;
        let mut sector = vec![0; 512];
        file.read_exact_at(&mut sector, 0)?;
        let signature = partitions::mbr_signature(&sector);
        let mut header = vec![0; 512];
        file.read_exact_at(&mut header, block)?;
        let Some((at, number, size)) = partitions::gpt_header(&header, block) else {
            return Ok((Vec::new(), signature));
        };
        let mut entries = vec![0; (number * size).min(TABLE_MAX)];
        file.read_exact_at(&mut entries, at)?;
        Ok::<_, io::Error>((partitions::gpt(&entries, size), None))
    };
    read().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::disks::superblock::Kind;

    /// A sysfs and a /dev of a page: a partitioned disk, a whole one, a RAID's member, a RAM disk.
    #[test]
    fn a_machine_full_of_disks() {
        let top = tempfile::tempdir().unwrap();
        let (sys, dev) = (top.path().join("sys"), top.path().join("dev"));
        let blocks = sys.join("class/block");
        fs::create_dir_all(&blocks).unwrap();
        fs::create_dir_all(&dev).unwrap();
        let add = |name: &str, under: &str, size: u64, files: &[(&str, &[u8])]| {
            let place = sys.join("devices").join(under).join(name);
            fs::create_dir_all(place.join("holders")).unwrap();
            fs::create_dir_all(place.join("device")).unwrap();
            fs::write(place.join("size"), format!("{}\n", size / 512)).unwrap();
            for (file, bytes) in files {
                fs::write(place.join(file), bytes).unwrap();
            }
            symlink(&place, blocks.join(name)).unwrap();
            File::create(dev.join(name)).unwrap().set_len(size).unwrap();
        };
        const MIB: u64 = 1 << 20;
        add("sda", "pci", 64 * MIB, &[("device/vpd_pg80", b"\0\x80\0\x08  S3R1AL\0")]);
        add(
            "sda1",
            "pci/sda",
            8 * MIB,
            &[("partition", b"1\n"), ("uevent", b"DEVNAME=sda1\nPARTNAME=old\n")],
        );
        add("vdb", "pci", 16 * MIB, &[("serial", b"disk0\n")]);
        add("sdc", "pci", 16 * MIB, &[]);
        add("ram0", "virtual", 16 * MIB, &[]);
        add("sr0", "pci", 16 * MIB, &[]);
        add("sdd", "pci", 0, &[]);
        let write = |name: &str, at: u64, bytes: &[u8]| {
            let file = fs::OpenOptions::new().write(true).open(dev.join(name)).unwrap();
            file.write_all_at(bytes, at).unwrap();
        };
        write("vdb", 0, b"XFSB");
        write("vdb", 108, b"db");
        write("sdc", 4096, &[0xfc, 0x4e, 0x2b, 0xa9, 1, 0, 0, 0]);
        write("sda", 512, b"EFI PART");
        write("sda", 512 + 72, &2u64.to_le_bytes());
        write("sda", 512 + 80, &[4, 0, 0, 0, 128, 0, 0, 0]);
        write("sda", 1024, &[9; 32]);
        write("sda", 1024 + 56, b"d\0b\0");
        let mut seen = Seen::default();
        let all = inventory(&sys, &dev, &mut seen);
        let names: Vec<&str> = all.iter().map(|device| device.name.as_str()).collect();
        assert_eq!(names, ["sda", "sda1", "sdc", "vdb"]);
        assert!(all[0].used && all[0].holds.is_none());
        assert_eq!(all[1].disk.as_deref(), Some("sda"));
        assert_eq!(all[1].serials, ["S3R1AL"]);
        assert_eq!(all[1].part_label, "db");
        assert_eq!(all[1].part_uuid, "09090909-0909-0909-0909-090909090909");
        assert_eq!(all[1].describe(), "sda1 (8 MiB, blank)");
        assert_eq!(all[2].describe(), "sdc (16 MiB, a RAID member)");
        assert_eq!(all[3].describe(), "vdb (16 MiB, xfs LABEL=db)");
        assert_eq!(all[3].holds.as_ref().unwrap().kind, Kind::Xfs);
        // A disk that goes away between two looks is no longer there; one that fails says so.
        fs::remove_file(blocks.join("vdb")).unwrap();
        fs::remove_file(dev.join("sdc")).unwrap();
        let all = inventory(&sys, &dev, &mut Seen::default());
        assert_eq!(all.len(), 3);
        assert!(all[2].describe().contains("cannot be read"), "{}", all[2].describe());
    }
}
