//! What lies on a disk, all that anybody might miss: file systems, partition tables and what is in the partitions,
//! members of something larger, and bytes that nobody knows. A disk is written over only by an order that names
//! all of it.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::disks::devices::Device;
use crate::disks::superblock::{Found, identify};

/// Bytes of a disk's beginning and of its end that are looked at, and cleared: the labels of ZFS, the furthest, are
/// 512 KiB at each.
pub const END: usize = 1 << 20;

/// One thing on a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Thing {
    /// In the words of an order that lets it go (`duty::HELD`).
    pub word: &'static str,
    /// For a person.
    pub text: String,
}

/// A disk's first and last bytes.
#[derive(Debug, Clone, Default)]
pub struct Ends {
    head: Vec<u8>,
    tail: Vec<u8>,
    size: u64,
}

impl Ends {
    /// Reads them.
    pub fn read(path: &Path, size: u64) -> io::Result<Ends> {
        let len = usize::try_from(size).unwrap_or(END).min(END);
        let (mut head, mut tail) = (vec![0; len], vec![0; len]);
        let file = File::open(path)?;
        file.read_exact_at(&mut head, 0)?;
        file.read_exact_at(&mut tail, size - len as u64)?;
        Ok(Ends { head, tail, size })
    }

    /// What they are of, where one thing has the whole disk.
    pub fn identify(&self) -> Option<Found> {
        identify(&self.head, &self.tail, self.size)
    }

    /// The table of partitions.
    fn table(&self) -> Option<&'static str> {
        const SIGNATURE: &[u8] = b"EFI PART";
        // Blocks of 512 bytes or of 4096; the second table is the last block.
        let first = [512, 4096].iter().any(|at| starts_at(&self.head, *at, SIGNATURE));
        let last = [512, 4096].iter().any(|from_end| {
            self.tail
                .len()
                .checked_sub(*from_end)
                .is_some_and(|at| starts_at(&self.tail, at, SIGNATURE))
        });
        if first || last {
            return Some("gpt");
        }
        let entries = self.head.get(446..510)?;
        let mut entries = entries.chunks_exact(16).filter(|entry| entry.get(4) != Some(&0));
        let plausible = |entry: &[u8]| matches!(entry.first(), Some(0 | 0x80));
        let some = entries.next().is_some_and(|entry| plausible(entry) && entries.all(plausible));
        (some && starts_at(&self.head, 510, &[0x55, 0xaa])).then_some("mbr")
    }

    fn is_blank(&self) -> bool {
        self.head.iter().chain(&self.tail).all(|byte| *byte == 0)
    }
}

fn starts_at(bytes: &[u8], at: usize, with: &[u8]) -> bool {
    bytes.get(at..).is_some_and(|rest| rest.starts_with(with))
}

/// All that is on a disk whose ends are these. `parts` are its partitions.
pub fn things(ends: &Ends, parts: &[&Device]) -> Vec<Thing> {
    let mut things = Vec::new();
    let found = ends.identify();
    if let Some(found) = &found {
        things.push(Thing { word: found.kind.word(), text: named(found) });
    }
    // The first sector of a FAT or NTFS ends like an MBR.
    let table = ends.table().filter(|word| *word == "gpt" || found.is_none());
    if let Some(word) = table {
        let text = match parts.len() {
            0 => format!("a table of partitions ({word})"),
            1 => format!("a table of partitions ({word}, 1 partition)"),
            n => format!("a table of partitions ({word}, {n} partitions)"),
        };
        things.push(Thing { word, text });
    }
    for part in parts {
        match (&part.holds, &part.unread) {
            (Some(found), _) => {
                let text = format!("{} on {}", named(found), part.name);
                things.push(Thing { word: found.kind.word(), text });
            }
            (None, Some(why)) => {
                let text = format!("{}, which cannot be read ({why})", part.name);
                things.push(Thing { word: "data", text });
            }
            (None, None) => {}
        }
    }
    if things.is_empty() && !ends.is_blank() {
        let text = "bytes of a kind that is not known here".to_owned();
        things.push(Thing { word: "data", text });
    }
    things
}

fn named(found: &Found) -> String {
    match found.label.as_str() {
        "" => found.kind.name().to_owned(),
        label => format!("{} LABEL={label}", found.kind.name()),
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::contract::duty::HELD;
    use crate::disks::superblock::Kind;

    const SIZE: u64 = 320 << 20;

    fn run(program: &str, args: &[&str], path: &Path) {
        let out = Command::new(program).args(args).arg(path).output();
        let out = out.unwrap_or_else(|error| panic!("{program}: {error}"));
        assert!(out.status.success(), "{program}: {}", String::from_utf8_lossy(&out.stderr));
    }

    fn words(path: &Path, parts: &[&Device]) -> Vec<&'static str> {
        let ends = Ends::read(path, SIZE).unwrap();
        things(&ends, parts).into_iter().map(|thing| thing.word).collect()
    }

    /// What the tools of Debian leave on a disk is told by the words that let it go.
    #[test]
    fn a_disk_is_blank_or_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        let fresh = || File::create(&path).unwrap().set_len(SIZE).unwrap();
        fresh();
        assert!(words(&path, &[]).is_empty());
        for (program, args, word) in [
            ("/sbin/mkfs.ext4", &["-q", "-F"][..], "ext4"),
            ("/sbin/mkfs.xfs", &["-q"], "xfs"),
            ("/sbin/mkswap", &[], "swap"),
            ("/sbin/sgdisk", &["--new=1:0:0"], "gpt"),
        ] {
            fresh();
            run(program, args, &path);
            assert_eq!(words(&path, &[]), [word]);
            assert!(HELD.contains(&word));
        }
        // A second table alone, and a disk whose table is the old kind.
        let file = File::options().write(true).open(&path).unwrap();
        file.write_all_at(&[0; 4096], 0).unwrap();
        assert_eq!(words(&path, &[]), ["gpt"]);
        fresh();
        let file = File::options().write(true).open(&path).unwrap();
        file.write_all_at(&[0x80, 1, 1, 0, 0x83], 446).unwrap();
        assert_eq!(words(&path, &[]), ["data"]);
        file.write_all_at(&[0x55, 0xaa], 510).unwrap();
        assert_eq!(words(&path, &[]), ["mbr"]);
        fresh();
        file.write_all_at(b"\n", SIZE - 1).unwrap();
        assert_eq!(words(&path, &[]), ["data"]);
        file.write_all_at(b"\n", SIZE / 2).unwrap();
        assert!(Ends::read(&path, SIZE + 1).is_err());
    }

    #[test]
    fn what_is_in_partitions_is_told_too() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        File::create(&path).unwrap().set_len(SIZE).unwrap();
        run("/sbin/sgdisk", &["--new=1:0:+8M", "--new=2:0:+8M", "--new=3:0:0"], &path);
        let part = |name: &str, holds, unread: Option<&str>| Device {
            name: name.into(),
            holds,
            unread: unread.map(str::to_owned),
            ..Device::default()
        };
        let old = Found { kind: Kind::Ext, label: "old".into(), uuid: String::new() };
        let all = [
            part("sda1", Some(old), None),
            part("sda2", None, None),
            part("sda3", None, Some("EIO")),
        ];
        let parts: Vec<&Device> = all.iter().collect();
        let things = things(&Ends::read(&path, SIZE).unwrap(), &parts);
        let texts: Vec<&str> = things.iter().map(|thing| thing.text.as_str()).collect();
        assert_eq!(words(&path, &parts), ["gpt", "ext4", "data"]);
        assert_eq!(texts[0], "a table of partitions (gpt, 3 partitions)");
        assert_eq!(texts[1], "ext4 LABEL=old on sda1");
    }
}
