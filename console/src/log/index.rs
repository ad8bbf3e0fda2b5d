//! The index beside a segment: when which of its characters came, and marks between them.
//!
//! ```text
//! head    "KBC1"  base: u64   marks: u64   sum: u32        what was before this segment
//! record  at: u48   offset: u32   length: u16   sum: u32   length bytes of JSON, which is a mark; none: a time
//! ```
//!
//! All of it little-endian; `offset` counts from the segment's beginning, `at` is Unix milliseconds. What a
//! power cut tore, or left as zeros, has a wrong sum: there the index ends.

use crate::scrollback::{Cursor, Mark};

/// Of the head.
pub(super) const HEAD: usize = 24;
/// Of a record, without its mark.
pub(super) const RECORD: usize = 16;
/// A mark's JSON is never longer. Longer words of a BMC are not worth the room.
pub(super) const MARK: usize = 1024;
const MAGIC: &[u8; 4] = b"KBC1";

/// What a record says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Note {
    /// Characters before it, in the segment.
    pub offset: u32,
    /// Unix milliseconds.
    pub at: u64,
    /// None: it is the time of the characters that follow.
    pub mark: Option<Mark>,
}

/// An index as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Index {
    /// What was before the segment.
    pub base: Cursor,
    /// In order.
    pub notes: Vec<Note>,
    /// Bytes of it that are whole.
    pub whole: usize,
}

/// The head of a segment that begins there.
pub(super) fn head(base: Cursor) -> Vec<u8> {
    let mut head = MAGIC.to_vec();
    head.extend_from_slice(&base.text.to_le_bytes());
    head.extend_from_slice(&base.marks.to_le_bytes());
    let sum = sum(&[&head]);
    head.extend_from_slice(&sum.to_le_bytes());
    head
}

/// Adds a record.
pub(super) fn record(base: u64, offset: u32, at: u64, mark: Option<&Mark>, out: &mut Vec<u8>) {
    let json = |mark| serde_json::to_vec(mark).unwrap_or_default();
    let mark = mark.map(|mark| Some(json(mark)).filter(|json| json.len() <= MARK));
    let mark = mark.map(|short| short.unwrap_or_else(|| json(&Mark::Unknown))).unwrap_or_default();
    let length = u16::try_from(mark.len()).unwrap_or(0);
    let mut front = [0; 12];
    let at = at.to_le_bytes();
    front[..6].copy_from_slice(&at[..6]);
    front[6..10].copy_from_slice(&offset.to_le_bytes());
    front[10..].copy_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&front);
    out.extend_from_slice(&sum(&[&base.to_le_bytes(), &front, &mark]).to_le_bytes());
    out.extend_from_slice(&mark);
}

/// Reads as much as is whole. None: not even the head is.
pub(super) fn read(bytes: &[u8]) -> Option<Index> {
    let (front, found) = bytes.get(..HEAD)?.split_at_checked(HEAD - 4)?;
    if sum(&[front]).to_le_bytes() != found || !front.starts_with(MAGIC) {
        return None;
    }
    let text = u64::from_le_bytes(front.get(4..12)?.try_into().ok()?);
    let marks = u64::from_le_bytes(front.get(12..20)?.try_into().ok()?);
    let mut index = Index { base: Cursor { text, marks }, notes: Vec::new(), whole: HEAD };
    while let Some((note, length)) = next(text, bytes.get(index.whole..)?) {
        if index.notes.last().is_some_and(|last| last.offset > note.offset) {
            break;
        }
        index.notes.push(note);
        index.whole += length;
    }
    Some(index)
}

fn next(base: u64, bytes: &[u8]) -> Option<(Note, usize)> {
    let (front, found) = bytes.get(..RECORD)?.split_at_checked(12)?;
    let mut at = [0; 8];
    at.get_mut(..6)?.copy_from_slice(front.get(..6)?);
    let offset = u32::from_le_bytes(front.get(6..10)?.try_into().ok()?);
    let length = usize::from(u16::from_le_bytes(front.get(10..)?.try_into().ok()?));
    let mark = bytes.get(RECORD..RECORD + length)?;
    if sum(&[&base.to_le_bytes(), front, mark]).to_le_bytes() != found {
        return None;
    }
    let mark = match mark {
        [] => None,
        json => Some(serde_json::from_slice(json).unwrap_or(Mark::Unknown)),
    };
    Some((Note { offset, at: u64::from_le_bytes(at), mark }, RECORD + length))
}

/// FNV-1a of 32 bits: it has to notice what is torn, not who lies.
fn sum(parts: &[&[u8]]) -> u32 {
    let bytes = parts.iter().flat_map(|part| part.iter());
    bytes.fold(0x811c_9dc5, |sum, byte| (sum ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn whole() -> (Vec<u8>, Vec<Note>) {
        let base = Cursor { text: 1 << 40, marks: 7 };
        let down = Mark::Down { why: "no answer".to_string() };
        let note = |offset, at, mark| Note { offset, at, mark };
        let notes = vec![
            note(0, 1_800_000_000_000, None),
            note(0, 1_800_000_000_001, Some(Mark::Up)),
            note(70_000, 1_800_000_000_900, Some(down)),
        ];
        let mut bytes = head(base);
        for Note { offset, at, mark } in &notes {
            record(base.text, *offset, *at, mark.as_ref(), &mut bytes);
        }
        (bytes, notes)
    }

    #[test]
    fn what_is_torn_ends_it() {
        let (bytes, notes) = whole();
        let index = read(&bytes).unwrap();
        assert_eq!(index.base, Cursor { text: 1 << 40, marks: 7 });
        assert_eq!((&index.notes, index.whole), (&notes, bytes.len()));
        for end in 0..bytes.len() {
            match read(&bytes[..end]) {
                None => assert!(end < HEAD),
                Some(part) => assert_eq!(part.notes, notes[..part.notes.len()]),
            }
            // A power cut leaves zeros.
            let mut zeros = bytes.clone();
            zeros[end..].fill(0);
            let index = read(&zeros).map(|index| index.notes.len());
            assert!(index.is_none_or(|many| many < 3 || zeros == bytes), "{end}");
        }
    }

    #[test]
    fn a_long_mark_and_one_of_later_days_are_marks_still() {
        let mut bytes = head(Cursor::default());
        record(0, 1, 1, Some(&Mark::Down { why: "x".repeat(5000) }), &mut bytes);
        assert_eq!(read(&bytes).unwrap().notes[0].mark, Some(Mark::Unknown));
        let later = br#"{"kind":"aurora","seen":true}"#;
        assert_eq!(serde_json::from_slice::<Mark>(later).unwrap(), Mark::Unknown);
    }

    proptest! {
        #[test]
        fn any_bytes_are_no_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), at in 0usize..90, bit in 0u8..8) {
            let _none = read(&bytes);
            let (mut good, notes) = whole();
            good[at] ^= 1 << bit;
            if let Some(index) = read(&good) {
                prop_assert_eq!(&index.notes[..], &notes[..index.notes.len()]);
                prop_assert!(index.notes.len() < notes.len());
            }
        }
    }
}
