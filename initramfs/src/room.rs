//! Will a root fit? Asked by the machine before the first byte is fetched, and by the appliance of a machine
//! whose memory it knows; answered in missing MiB.

use std::fs;

use super::{Root, Source};

/// What fetching and unpacking take beside the root: a zstd window, socket buffers, page tables,
/// and enough for the system to start in.
const WORKING: u64 = 32 << 20;
/// Below this a system above a read-only root does not get far.
const UPPER_MIN: u64 = 16 << 20;
const PAGE: u64 = 4096;
const MIB: u64 = 1 << 20;

/// `/proc/meminfo`, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Memory {
    /// `MemTotal`
    pub total: u64,
    /// `MemAvailable`
    pub available: u64,
}

impl Memory {
    /// As the kernel tells it now.
    pub fn now() -> Memory {
        Memory::parse(&fs::read_to_string("/proc/meminfo").unwrap_or_default())
    }

    /// Reads `/proc/meminfo`.
    pub fn parse(text: &str) -> Memory {
        let field = |name: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
                .and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok())
                .map_or(0, |kib| kib.saturating_mul(1024))
        };
        Memory { total: field("MemTotal"), available: field("MemAvailable") }
    }
}

/// Whether a root cannot fit into a machine of which only this is known: what its kernel and the system take
/// is not counted, so what is missing here is the least.
pub fn never_fits(root: &Root, total: u64) -> Result<(), String> {
    let memory = Memory { total, available: total };
    match &root.from {
        Source::Archive { unpacked, .. } => check(*unpacked, &root.tmpfs, memory),
        Source::Squashfs { layers } => {
            let size = layers.iter().fold(0u64, |sum, layer| sum.saturating_add(layer.size));
            above(size, &root.tmpfs, memory).map(drop)
        }
        Source::Nfs { read_only: true, .. } => above(0, &root.tmpfs, memory).map(drop),
        Source::Nfs { .. } => Ok(()),
    }
}

/// Bytes behind `80%`, `2g`, `512m`, as tmpfs's `size=` reads them. 0 means no bound there, too.
pub fn tmpfs_bytes(size: &str, total: u64) -> Result<u64, String> {
    let wrong = || format!("root size {size:?} is neither like 80% nor like 2g");
    let digits = size.trim_end_matches(|c: char| !c.is_ascii_digit());
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(wrong());
    }
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    let shift = match &size[digits.len()..] {
        "%" if number > 100 => return Err(wrong()),
        "%" => {
            return Ok(
                u64::try_from(u128::from(total) * u128::from(number) / 100).unwrap_or(u64::MAX)
            );
        }
        "" => 0,
        "k" | "K" => 10,
        "m" | "M" => 20,
        "g" | "G" => 30,
        "t" | "T" => 40,
        _ => return Err(wrong()),
    };
    match number.checked_mul(1 << shift) {
        Some(0) => Ok(u64::MAX),
        Some(bytes) => Ok(bytes),
        None => Err(wrong()),
    }
}

/// Says in a sentence what is missing, if something is.
pub fn check(unpacked: u64, tmpfs: &str, memory: Memory) -> Result<(), String> {
    let bound = tmpfs_bytes(tmpfs, memory.total)?;
    let needed = unpacked.saturating_add(WORKING);
    if needed > memory.available {
        return Err(format!(
            "the root takes {} MiB and {} MiB to work with, this machine has {} MiB left of {}: \
             {} MiB are missing",
            mib(unpacked),
            WORKING / MIB,
            memory.available / MIB,
            memory.total / MIB,
            mib(needed - memory.available)
        ));
    }
    if unpacked > bound {
        return Err(format!(
            "the root takes {} MiB, its tmpfs of {tmpfs} holds {} MiB: {} MiB are missing there \
             (root-size in the site file; this machine has {} MiB)",
            mib(unpacked),
            bound / MIB,
            mib(unpacked - bound),
            memory.total / MIB
        ));
    }
    Ok(())
}

/// How much may be written above a squashfs of `lower` bytes, or in a sentence what is missing. A
/// percentage is the most that is wanted and gives way to what the system needs to live on when all
/// of it is written; a size in bytes is meant.
pub fn above(lower: u64, tmpfs: &str, memory: Memory) -> Result<u64, String> {
    let wanted = tmpfs_bytes(tmpfs, memory.total)?;
    let kept = lower.saturating_add(WORKING).saturating_add(memory.total / 16);
    let room = memory.available.saturating_sub(kept);
    let needed = if tmpfs.ends_with('%') { wanted.min(UPPER_MIN) } else { wanted };
    if room >= needed {
        // A tmpfs of size 0 would have no bound at all.
        return Ok(wanted.min(room).max(PAGE));
    }
    Err(format!(
        "the root takes {} MiB as it is, {} MiB are to be left to work with and {} MiB for what is \
         written (root-size {tmpfs}), this machine has {} MiB left of {}: {} MiB are missing",
        mib(lower),
        mib(kept - lower),
        mib(needed),
        memory.available / MIB,
        memory.total / MIB,
        mib(kept.saturating_add(needed).saturating_sub(memory.available)),
    ))
}

fn mib(bytes: u64) -> u64 {
    bytes.div_ceil(MIB)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_as_tmpfs_reads_them() {
        let total = 1000 * MIB;
        let table = [
            ("80%", Some(800 * MIB)),
            ("100%", Some(total)),
            ("0%", Some(0)),
            ("101%", None),
            ("2g", Some(2 << 30)),
            ("2G", Some(2 << 30)),
            ("512m", Some(512 << 20)),
            ("64k", Some(64 << 10)),
            ("1t", Some(1 << 40)),
            ("4096", Some(4096)),
            ("0", Some(u64::MAX)),
            ("", None),
            ("%", None),
            ("g", None),
            ("-1g", None),
            ("+1g", None),
            ("1.5g", None),
            ("2gb", None),
            ("2g,uid=5", None),
            ("2 g", None),
            ("99999999999999999999", None),
            ("99999999999999t", None),
            ("５%", None),
        ];
        for (size, meant) in table {
            assert_eq!(tmpfs_bytes(size, total).ok(), meant, "{size}");
        }
        assert_eq!(tmpfs_bytes("100%", u64::MAX), Ok(u64::MAX));
    }

    #[test]
    fn says_the_missing_mebibytes() {
        let memory = Memory { total: 512 * MIB, available: 400 * MIB };
        assert_eq!(check(300 * MIB, "80%", memory), Ok(()));
        assert_eq!(check(368 * MIB, "80%", memory), Ok(()));
        let short = check(368 * MIB + 1, "80%", memory).unwrap_err();
        assert!(short.ends_with("1 MiB are missing"), "{short}");
        let narrow = check(300 * MIB, "200m", memory).unwrap_err();
        assert!(narrow.contains("100 MiB are missing there"), "{narrow}");
        assert!(check(u64::MAX, "0", memory).is_err());
    }

    #[test]
    fn what_is_written_above_leaves_room_to_live() {
        let memory = Memory { total: 1024 * MIB, available: 900 * MIB };
        // 900 less 70 of squashfs, 32 to work with and a sixteenth of all.
        assert_eq!(above(70 * MIB, "80%", memory), Ok(734 * MIB));
        assert_eq!(above(70 * MIB, "10%", memory), Ok(1024 * MIB / 10));
        assert_eq!(above(70 * MIB, "734m", memory), Ok(734 * MIB));
        let short = above(70 * MIB, "735m", memory).unwrap_err();
        assert!(short.ends_with(": 1 MiB are missing"), "{short}");
        let large = above(800 * MIB, "80%", memory).unwrap_err();
        assert!(large.ends_with(": 12 MiB are missing"), "{large}");
        assert!(above(u64::MAX, "0", memory).is_err());
        assert!(above(0, "0", memory).is_err(), "without a bound there is none");
        assert_eq!(above(MIB, "0%", memory), Ok(PAGE));
    }

    #[test]
    fn what_never_fits() {
        let blob = |size| super::super::Blob { path: String::new(), sha256: String::new(), size };
        let root = |from, tmpfs: &str| Root {
            image: "web@3".to_owned(),
            tmpfs: tmpfs.to_owned(),
            digest: String::new(),
            from,
            files: Vec::new(),
        };
        let archive = |unpacked| Source::Archive { layers: vec![blob(1)], unpacked };
        let total = 4096 * MIB;
        assert_eq!(never_fits(&root(archive(3000 * MIB), "80%"), total), Ok(()));
        // Sizes beyond 32 bits are sizes like others.
        let large = never_fits(&root(archive(6 << 30), "80%"), total).unwrap_err();
        assert!(large.ends_with("2080 MiB are missing"), "{large}");
        assert_eq!(never_fits(&root(archive(6 << 30), "80%"), 16 << 30), Ok(()));
        let stack = Source::Squashfs { layers: vec![blob(3 << 30), blob(2 << 30)] };
        assert!(never_fits(&root(stack.clone(), "80%"), total).is_err());
        assert_eq!(never_fits(&root(stack, "80%"), 8 << 30), Ok(()));
        let nfs = |read_only| {
            let (path, options) = (String::new(), String::new());
            Source::Nfs { server: [10, 0, 0, 9].into(), path, options, read_only }
        };
        assert!(never_fits(&root(nfs(true), "8g"), total).is_err());
        assert_eq!(never_fits(&root(nfs(false), "8g"), total), Ok(()));
    }

    #[test]
    fn meminfo() {
        let text = "MemTotal:         497848 kB\nMemFree:  1 kB\nMemAvailable:     445188 kB\n";
        assert_eq!(Memory::parse(text), Memory { total: 497_848 << 10, available: 445_188 << 10 });
        assert_eq!(Memory::parse("MemTotal: x kB\nMemAvailable"), Memory::default());
    }
}
