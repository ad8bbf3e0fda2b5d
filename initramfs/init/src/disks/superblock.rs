//! What lies on a block device, told from its first and last bytes: file systems with their label and
//! UUID, and members of something larger. Bytes of strangers: pure, and never beyond their end.

use std::fmt::Write as _;

/// How much of the front is looked at: btrfs keeps its superblock at 64 KiB.
pub const HEAD: usize = 68 * 1024;
/// How much of the end: an old RAID superblock lies up to 128 KiB before it.
pub const TAIL: usize = 128 * 1024;

/// What it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// ext2, ext3 or ext4: one driver serves all three.
    Ext,
    /// XFS.
    Xfs,
    /// btrfs.
    Btrfs,
    /// A disk of a software RAID (md).
    Raid,
    /// A physical volume of LVM.
    Lvm,
    /// Something else we know by name and do not mount.
    Other(&'static str),
}

impl Kind {
    /// What mount(2) calls it, if we mount it.
    pub fn file_system(self) -> Option<&'static str> {
        match self {
            Kind::Ext => Some("ext4"),
            Kind::Xfs => Some("xfs"),
            Kind::Btrfs => Some("btrfs"),
            Kind::Raid | Kind::Lvm | Kind::Other(_) => None,
        }
    }

    /// For a person.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Raid => "a RAID member",
            Kind::Lvm => "an LVM volume",
            Kind::Other(name) => name,
            Kind::Ext | Kind::Xfs | Kind::Btrfs => self.file_system().unwrap_or_default(),
        }
    }

    /// The word by which an order lets it go (`duty::HELD`).
    pub fn word(self) -> &'static str {
        match self {
            Kind::Raid => "raid",
            Kind::Lvm => "lvm",
            Kind::Other("LUKS (encrypted)") => "luks",
            Kind::Other("swap") => "swap",
            Kind::Other("BitLocker") => "bitlocker",
            Kind::Other("NTFS") => "ntfs",
            Kind::Other("ISO 9660") => "iso9660",
            Kind::Other("FAT") => "fat",
            Kind::Other("an ext4 journal") => "journal",
            Kind::Other(_) => "data",
            Kind::Ext | Kind::Xfs | Kind::Btrfs => self.file_system().unwrap_or_default(),
        }
    }
}

/// A superblock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Of what.
    pub kind: Kind,
    /// Its label, may be empty.
    pub label: String,
    /// Its UUID as `8-4-4-4-12`, may be empty.
    pub uuid: String,
}

/// Tells what a device of `size` bytes holds. `head` are its first bytes, `tail` its last.
///
/// Members of RAIDs come first: half of a mirror looks like the file system on it, and mounting one
/// half is how mirrors are lost.
pub fn identify(head: &[u8], tail: &[u8], size: u64) -> Option<Found> {
    raid(head, tail, size)
        .or_else(|| lvm(head))
        .or_else(|| other(head))
        .or_else(|| btrfs(head))
        .or_else(|| xfs(head))
        .or_else(|| ext(head))
}

fn raid(head: &[u8], tail: &[u8], size: u64) -> Option<Found> {
    const MAGIC: [u8; 4] = 0xa92b_4efc_u32.to_le_bytes();
    let begin = size.saturating_sub(tail.len() as u64);
    let in_tail = |at: u64| usize::try_from(at.checked_sub(begin)?).ok();
    // Metadata 1.1, 1.2 and 1.0, then 0.90 (Documentation/admin-guide/md.rst, md_p.h).
    let last = in_tail((size / 512).saturating_sub(16) / 8 * 8 * 512);
    for (from, at) in [(head, Some(0)), (head, Some(4096)), (tail, last)] {
        let Some(block) = at.and_then(|at| from.get(at..at.checked_add(64)?)) else { continue };
        if block[..4] == MAGIC && block[4..8] == 1u32.to_le_bytes() {
            let (label, uuid) = (text(&block[32..64]), uuid(&block[16..32]));
            return Some(Found { kind: Kind::Raid, label, uuid });
        }
    }
    let old = in_tail((size / 65_536).saturating_sub(1) * 65_536);
    let block = old.and_then(|at| tail.get(at..at.checked_add(8)?));
    // Written in the byte order of the machine that made it.
    let old = block.is_some_and(|b| b[..4] == MAGIC || b[..4].iter().rev().eq(MAGIC.iter()));
    // Intel's RAID, made in the firmware: its anchor is the second sector from the end.
    let intel = tail.len().checked_sub(1024).and_then(|at| tail.get(at..));
    let intel = intel.is_some_and(|anchor| anchor.starts_with(b"Intel Raid ISM Cfg Sig. "));
    (old || intel).then(|| plain(Kind::Raid))
}

fn lvm(head: &[u8]) -> Option<Found> {
    // The label is in one of the first four sectors (lib/label/label.h).
    (0..4).map(|n| n * 512).find_map(|at| {
        let sector = head.get(at..at + 512)?;
        (sector.starts_with(b"LABELONE") && &sector[24..32] == b"LVM2 001")
            .then(|| plain(Kind::Lvm))
    })
}

fn other(head: &[u8]) -> Option<Found> {
    const KNOWN: [(usize, &[u8], &str); 7] = [
        (0, b"LUKS\xba\xbe", "LUKS (encrypted)"),
        (4086, b"SWAPSPACE2", "swap"),
        (4086, b"SWAP-SPACE", "swap"),
        (0, b"BITLOCKER", "BitLocker"),
        (3, b"NTFS    ", "NTFS"),
        (32_769, b"CD001", "ISO 9660"),
        (0x52, b"FAT32   ", "FAT"),
    ];
    let there = |at: usize, magic: &[u8]| head.get(at..at + magic.len()) == Some(magic);
    KNOWN.iter().find(|(at, magic, _)| there(*at, magic)).map(|(.., name)| plain(Kind::Other(name)))
}

fn btrfs(head: &[u8]) -> Option<Found> {
    let block = head.get(65_536..65_536 + 0x22b)?;
    (&block[0x40..0x48] == b"_BHRfS_M").then(|| Found {
        kind: Kind::Btrfs,
        label: text(&block[0x12b..0x22b]),
        uuid: uuid(&block[0x20..0x30]),
    })
}

fn xfs(head: &[u8]) -> Option<Found> {
    let block = head.get(..120)?;
    block.starts_with(b"XFSB").then(|| Found {
        kind: Kind::Xfs,
        label: text(&block[108..120]),
        uuid: uuid(&block[32..48]),
    })
}

fn ext(head: &[u8]) -> Option<Found> {
    const JOURNAL_DEVICE: u32 = 8;
    let block = head.get(1024..1024 + 136)?;
    if block[0x38..0x3a] != [0x53, 0xef] {
        return None;
    }
    let incompatible = u32::from_le_bytes([block[0x60], block[0x61], block[0x62], block[0x63]]);
    let kind = match incompatible & JOURNAL_DEVICE {
        0 => Kind::Ext,
        _ => Kind::Other("an ext4 journal"),
    };
    Some(Found { kind, label: text(&block[0x78..0x88]), uuid: uuid(&block[0x68..0x78]) })
}

fn plain(kind: Kind) -> Found {
    Found { kind, label: String::new(), uuid: String::new() }
}

fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|&b| b == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).trim_end().to_owned()
}

/// As `blkid` writes it; empty where it is all zeros.
fn uuid(bytes: &[u8]) -> String {
    if bytes.iter().all(|&b| b == 0) {
        return String::new();
    }
    bytes.iter().enumerate().fold(String::new(), |mut text, (at, byte)| {
        if matches!(at, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
// Said in full, for the fuzzing of this file stands elsewhere.
#[path = "superblock/tests.rs"]
mod tests;
