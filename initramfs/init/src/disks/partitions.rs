//! A disk's table of partitions, for the names that only it knows: GPT's UUIDs and labels, and what
//! `PARTUUID=` means on an MBR disk. The kernel has made the devices; this only reads what they are
//! called. Bytes of strangers: bounded, and never beyond their end.

use std::fmt::Write as _;

/// More entries than any table has; a header that claims more is cut here.
const ENTRIES_MAX: usize = 1024;

/// One partition's names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// As in `sda3`.
    pub number: u32,
    /// `PARTUUID`
    pub uuid: String,
    /// `PARTLABEL`, may be empty.
    pub label: String,
}

/// Where the entries of a GPT lie: first byte, entries, bytes of each. `block` is the second logical
/// block of the disk.
pub fn gpt_header(block: &[u8], block_size: u64) -> Option<(u64, usize, usize)> {
    let header = block.get(..92)?;
    if !header.starts_with(b"EFI PART") {
        return None;
    }
    let at = u64::from_le_bytes(header[72..80].try_into().ok()?).checked_mul(block_size)?;
    let number = u32::from_le_bytes(header[80..84].try_into().ok()?) as usize;
    let size = u32::from_le_bytes(header[84..88].try_into().ok()?) as usize;
    (128..=4096).contains(&size).then_some((at, number.min(ENTRIES_MAX), size))
}

/// The entries of a GPT that are in use.
pub fn gpt(entries: &[u8], size: usize) -> Vec<Named> {
    let named = |(at, entry): (usize, &[u8])| {
        if entry.len() < 128 || entry[..16].iter().all(|&b| b == 0) {
            return None;
        }
        let label: Vec<u16> = entry[56..128]
            .chunks_exact(2)
            .map(|pair| u16::from_le_bytes([pair[0], pair[1]]))
            .collect();
        let end = label.iter().position(|&c| c == 0).unwrap_or(label.len());
        Some(Named {
            number: at as u32 + 1,
            uuid: mixed(&entry[16..32]),
            label: String::from_utf16_lossy(&label[..end]),
        })
    };
    entries.chunks(size.max(128)).take(ENTRIES_MAX).enumerate().filter_map(named).collect()
}

/// `xxxxxxxx`, the start of an MBR disk's `PARTUUID=xxxxxxxx-NN`.
pub fn mbr_signature(sector: &[u8]) -> Option<String> {
    let sector = sector.get(..512)?;
    let signature = u32::from_le_bytes(sector[440..444].try_into().ok()?);
    (sector[510..] == [0x55, 0xaa] && signature != 0).then(|| format!("{signature:08x}"))
}

/// A GUID as text: its first three parts are little-endian.
fn mixed(guid: &[u8]) -> String {
    const ORDER: [usize; 16] = [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15];
    ORDER.iter().enumerate().fold(String::new(), |mut text, (at, from)| {
        if matches!(at, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        let _ = write!(text, "{:02x}", guid[*from]);
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(at: u64, number: u32, size: u32) -> Vec<u8> {
        let mut block = vec![0; 512];
        block[..8].copy_from_slice(b"EFI PART");
        block[72..80].copy_from_slice(&at.to_le_bytes());
        block[80..84].copy_from_slice(&number.to_le_bytes());
        block[84..88].copy_from_slice(&size.to_le_bytes());
        block
    }

    #[test]
    fn a_table_as_it_is_written() {
        assert_eq!(gpt_header(&header(2, 128, 128), 512), Some((1024, 128, 128)));
        assert_eq!(gpt_header(&header(2, 128, 128), 4096), Some((8192, 128, 128)));
        let mut entries = vec![0; 256];
        entries[128..144].fill(7);
        // EFI's own example of a GUID as text.
        let guid = [
            0x28, 0x73, 0x2a, 0xc1, 0x1f, 0xf8, 0xd2, 0x11, 0xba, 0x4b, 0, 0xa0, 0xc9, 0x3e, 0xc9,
            0x3b,
        ];
        entries[144..160].copy_from_slice(&guid);
        for (at, c) in "db data".encode_utf16().enumerate() {
            entries[128 + 56 + 2 * at..][..2].copy_from_slice(&c.to_le_bytes());
        }
        assert_eq!(
            gpt(&entries, 128),
            [Named {
                number: 2,
                uuid: "c12a7328-f81f-11d2-ba4b-00a0c93ec93b".into(),
                label: "db data".into()
            }]
        );
    }

    #[test]
    fn tables_that_lie_are_cut() {
        assert_eq!(gpt_header(&header(2, u32::MAX, 128), 512), Some((1024, ENTRIES_MAX, 128)));
        for (at, size) in [(2, 0), (2, 127), (2, 4097), (2, u32::MAX), (u64::MAX, 128)] {
            assert_eq!(gpt_header(&header(at, 4, size), 512), None, "{at} {size}");
        }
        for cut in 0..92 {
            assert_eq!(gpt_header(&header(2, 4, 128)[..cut], 512), None);
        }
        assert_eq!(gpt(&vec![1; 128 * 5000], 128).len(), ENTRIES_MAX);
        assert!(gpt(&[1; 100], 128).is_empty() && gpt(&[], 0).is_empty());
    }

    #[test]
    fn an_mbr_has_a_signature_or_none() {
        let mut sector = vec![0; 512];
        sector[440..444].copy_from_slice(&[0xef, 0xbe, 0xad, 0xde]);
        assert_eq!(mbr_signature(&sector), None);
        sector[510..].copy_from_slice(&[0x55, 0xaa]);
        assert_eq!(mbr_signature(&sector).as_deref(), Some("deadbeef"));
        sector[440..444].fill(0);
        assert_eq!(mbr_signature(&sector), None);
        assert_eq!(mbr_signature(&[]), None);
    }
}
