//! The header block of a tar, and how numbers and pax records are written in it.

use std::collections::BTreeMap;

pub(crate) type Records = BTreeMap<Vec<u8>, Vec<u8>>;

/// A header block: POSIX.1-1988 ustar, and GNU's use of the same bytes.
pub(crate) struct Header(pub(crate) [u8; 512]);

impl Header {
    pub(crate) fn field(&self, from: usize, to: usize) -> &[u8] {
        &self.0[from..to]
    }

    pub(crate) fn text(&self, from: usize, to: usize) -> &[u8] {
        until_nul(&self.0[from..to])
    }

    pub(crate) fn kind(&self) -> u8 {
        self.0[156]
    }

    pub(crate) fn name(&self) -> Vec<u8> {
        let name = self.text(0, 100);
        // GNU's magic is `ustar  \0`, and it keeps times and sparse maps where ustar has a prefix.
        let prefix = self.text(345, 500);
        if self.field(257, 263) == b"ustar\0" && !prefix.is_empty() {
            return [prefix, b"/", name].concat();
        }
        name.to_vec()
    }

    pub(crate) fn checksum_holds(&self) -> bool {
        let Some(want) = number(self.field(148, 156)) else { return false };
        let outside = || self.0[..148].iter().chain(&self.0[156..]);
        let unsigned: u64 = outside().map(|byte| u64::from(*byte)).sum::<u64>() + 8 * 32;
        // Old Sun tars summed signed bytes.
        let signed: i64 = outside().map(|byte| i64::from(*byte as i8)).sum::<i64>() + 8 * 32;
        want == unsigned || i64::try_from(want) == Ok(signed)
    }
}

/// `LEN KEY=VALUE\n`, LEN counting all of it.
pub(crate) fn pax(mut bytes: &[u8]) -> Option<Records> {
    let mut records = Records::new();
    while !bytes.is_empty() && bytes[0] != 0 {
        let space = bytes.iter().take(20).position(|c| *c == b' ')?;
        let len = usize::try_from(decimal(&bytes[..space])?).ok()?;
        let record = bytes.get(space + 1..len)?.strip_suffix(b"\n")?;
        let equals = record.iter().position(|c| *c == b'=')?;
        records.insert(record[..equals].to_vec(), record[equals + 1..].to_vec());
        bytes = &bytes[len..];
    }
    Some(records)
}

/// Octal between blanks and NULs, or GNU's base 256 for what octal cannot hold.
pub(crate) fn number(field: &[u8]) -> Option<u64> {
    if field[0] == 0x80 {
        return field[1..]
            .iter()
            .try_fold(0u64, |value, byte| Some(value.checked_mul(256)? + u64::from(*byte)));
    }
    let digits = field.trim_ascii_start();
    let end = digits.iter().position(|c| *c == 0 || *c == b' ').unwrap_or(digits.len());
    digits[..end].iter().try_fold(0u64, |value, digit| {
        let digit = (*digit as char).to_digit(8)?;
        value.checked_mul(8)?.checked_add(u64::from(digit))
    })
}

pub(crate) fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

pub(crate) fn until_nul(field: &[u8]) -> &[u8] {
    &field[..field.iter().position(|c| *c == 0).unwrap_or(field.len())]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_as_tars_write_them() {
        for (field, value) in [
            (&b"0000644\0"[..], Some(0o644)),
            (b"   644 \0", Some(0o644)),
            (b"\0\0\0\0", Some(0)),
            (b"    ", Some(0)),
            (b"77777777777\0", Some(0o77777777777)),
            (b"\x80\0\0\0\0\0\0\x01\0\0\0\0", Some(1 << 32)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", None),
            (b"\x80\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", None),
            (b"99", None),
            (b"-1", None),
        ] {
            assert_eq!(number(field), value, "{field:?}");
        }
    }

    #[test]
    fn pax_records_hold_newlines_and_lies_are_seen() {
        let records = pax(b"12 path=a\nb\n6 a=b\n").unwrap();
        assert_eq!(records[&b"path"[..]], b"a\nb");
        for bad in [
            &b"13 path=a\nb\n"[..],
            b"5 a\n",
            b"99999999999999999999999 a=b\n",
            b"0 a=b\n",
            b"2 a=b\n",
        ] {
            assert!(pax(bad).is_none(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn pax_of_any_bytes_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = pax(&bytes);
        }
    }
}
