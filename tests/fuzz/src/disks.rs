//! What lies on a machine's disks, under PID 1: superblocks of file systems, RAID and LVM, and tables of
//! partitions. Whatever the bytes say, nothing is read beyond them and nothing is made of them that is
//! larger than they are.

#![no_main]

use koboshi_fuzz::Input;
use libfuzzer_sys::fuzz_target;

#[path = "../../../initramfs/init/src/disks/partitions.rs"]
mod partitions;
#[path = "../../../initramfs/init/src/disks/superblock.rs"]
mod superblock;

use superblock::{HEAD, TAIL, identify};

fuzz_target!(|bytes: &[u8]| {
    let mut input = Input(bytes);
    // Superblocks lie apart, and most of a disk is zeros: pieces are put where they could be.
    let size = u64::from(input.word());
    let mut disk = vec![0; HEAD + TAIL];
    let most = disk.len();
    for _ in 0..4 {
        let at = input.word() as usize % most;
        let length = usize::from(input.short());
        let piece = input.take(length.min(most - at));
        disk[at..at + piece.len()].copy_from_slice(piece);
    }
    let (head, tail) = disk.split_at(HEAD);
    if let Some(found) = identify(head, tail, size) {
        assert!(found.label.len() <= 3 * 256 && found.uuid.len() <= 36, "{found:?}");
        assert!(found.kind.file_system().is_some() || !found.kind.name().is_empty());
        assert!(!found.kind.word().is_empty());
    }
    let rest = input.0;
    partitions::mbr_signature(rest);
    if let Some((at, number, size)) = partitions::gpt_header(rest, 512) {
        assert!(number <= 1024 && (128..=4096).contains(&size) && at.is_multiple_of(512));
    }
    for size in [0, 128, 4096] {
        for named in partitions::gpt(rest, size) {
            assert!(named.number > 0 && named.uuid.len() == 36 && named.label.len() <= 3 * 36);
        }
    }
});
