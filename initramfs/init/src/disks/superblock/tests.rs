//! Superblocks as mke2fs makes them and as their formats have them, and bytes that are none.

use std::fs;
use std::process::Command;

use super::*;

const SIZE: u64 = 8 << 20;

fn disk() -> Vec<u8> {
    vec![0; SIZE as usize]
}

fn look(disk: &[u8]) -> Option<Found> {
    let tail = disk.len().saturating_sub(TAIL);
    identify(&disk[..HEAD.min(disk.len())], &disk[tail..], disk.len() as u64)
}

fn put(disk: &mut [u8], at: usize, bytes: &[u8]) {
    disk[at..at + bytes.len()].copy_from_slice(bytes);
}

const UUID: [u8; 16] = [0xab; 16];
const WRITTEN: &str = "abababab-abab-abab-abab-abababababab";

#[test]
fn what_mke2fs_makes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk");
    for kind in ["ext2", "ext3", "ext4"] {
        fs::write(&path, disk()).unwrap();
        let made = Command::new("/sbin/mke2fs")
            .args(["-q", "-F", "-t", kind, "-L", "a label of 16", "-U", WRITTEN])
            .arg(&path)
            .status()
            .expect("mke2fs (e2fsprogs) is part of every Debian");
        assert!(made.success());
        let found = look(&fs::read(&path).unwrap()).unwrap();
        let meant = Found { kind: Kind::Ext, label: "a label of 16".into(), uuid: WRITTEN.into() };
        assert_eq!(found, meant, "{kind}");
    }
}

#[test]
fn the_others_by_their_formats() {
    let mut xfs = disk();
    put(&mut xfs, 0, b"XFSB");
    put(&mut xfs, 32, &UUID);
    put(&mut xfs, 108, b"twelve chars");
    let mut btrfs = disk();
    put(&mut btrfs, 65_536 + 0x40, b"_BHRfS_M");
    put(&mut btrfs, 65_536 + 0x20, &UUID);
    put(&mut btrfs, 65_536 + 0x12b, b"pool");
    for (disk, kind, label) in [(xfs, Kind::Xfs, "twelve chars"), (btrfs, Kind::Btrfs, "pool")] {
        let meant = Found { kind, label: label.into(), uuid: WRITTEN.into() };
        assert_eq!(look(&disk).unwrap(), meant);
    }
    for (at, magic, name) in
        [(0, &b"LUKS\xba\xbe"[..], "LUKS (encrypted)"), (4086, b"SWAPSPACE2", "swap")]
    {
        let mut disk = disk();
        put(&mut disk, at, magic);
        assert_eq!(look(&disk).unwrap().kind, Kind::Other(name));
    }
    let mut lvm = disk();
    put(&mut lvm, 512, b"LABELONE");
    put(&mut lvm, 512 + 24, b"LVM2 001");
    assert_eq!(look(&lvm).unwrap().kind, Kind::Lvm);
    assert_eq!(look(&disk()), None);
}

/// Half a mirror must never be taken for the file system it holds.
#[test]
fn a_member_is_a_member_wherever_its_superblock_is() {
    let magic = 0xa92b_4efc_u32;
    let end = SIZE as usize;
    let v1: Vec<u8> = [magic.to_le_bytes(), 1u32.to_le_bytes()].concat();
    for (at, block) in [
        (0, v1.clone()),
        (4096, v1.clone()),
        (end - 8192, v1),
        (end - 65_536, magic.to_le_bytes().to_vec()),
        (end - 65_536, magic.to_be_bytes().to_vec()),
        (end - 1024, b"Intel Raid ISM Cfg Sig. 1.3.00".to_vec()),
    ] {
        let mut disk = disk();
        put(&mut disk, 1024 + 0x38, &[0x53, 0xef]);
        put(&mut disk, 1024 + 0x78, b"db");
        assert_eq!(look(&disk).unwrap().kind, Kind::Ext);
        put(&mut disk, at, &block);
        assert_eq!(look(&disk).unwrap().kind, Kind::Raid, "at {at}");
    }
}

#[test]
fn no_bytes_are_too_few_or_too_strange() {
    let mut noise = disk();
    let mut state = 1u32;
    for byte in &mut noise {
        state = state.wrapping_mul(1_103_515_245).wrapping_add(12_345);
        *byte = (state >> 16) as u8;
    }
    for length in (0..4200).chain([65_536, 65_600, HEAD, HEAD + 1]) {
        look(&noise[..length]);
        // A device that gives less than it says, and one that says less than it gives.
        for size in [0, 1, 511, 65_535, u64::MAX] {
            identify(&noise[..length.min(HEAD)], &noise[..length.min(TAIL)], size);
        }
    }
}
