//! Files with holes in a tar: the map of their pieces, however it is written.

use crate::content::{Content, Span};
use crate::error::Fault;
use crate::source::header::decimal;

/// The map of a sparse file: a piece takes at least four bytes of it.
pub(super) const MAP_MAX: u64 = 4 << 20;

/// The decimal lines before the data of format 1.0, and where the data begin.
pub(super) fn map_before(data: &Span) -> Result<(Vec<(u64, u64)>, u64), Fault> {
    let bad = || Fault::Malformed { what: "a damaged sparse map".to_owned() };
    let mut text = Vec::new();
    let mut numbers: Vec<u64> = Vec::new();
    let mut parsed = 0;
    loop {
        let at = text.len() as u64;
        if at >= MAP_MAX {
            return Err(Fault::TooLarge { what: "a sparse map".to_owned() });
        }
        text.resize(text.len() + 512, 0);
        data.read_exact_at(&mut text[at as usize..], at).map_err(|_| bad())?;
        while let Some(len) = text[parsed..].iter().position(|c| *c == b'\n') {
            numbers.push(decimal(&text[parsed..parsed + len]).ok_or_else(bad)?);
            parsed += len + 1;
            let want = numbers[0].checked_mul(2).and_then(|n| n.checked_add(1)).ok_or_else(bad)?;
            if numbers.len() as u64 == want {
                let map = numbers[1..].chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
                return Ok((map, text.len() as u64));
            }
        }
    }
}

/// Pieces in a row in `data`, each at its place in a file of `real` bytes.
pub(super) fn sparse(data: &Span, real: u64, map: &[(u64, u64)]) -> Option<Content> {
    let mut pieces = Vec::new();
    let (mut taken, mut end) = (0u64, 0u64);
    for &(begin, len) in map {
        if begin < end {
            return None;
        }
        end = begin.checked_add(len)?;
        if end > real {
            return None;
        }
        if len > 0 {
            pieces.push((begin, data.part(taken, len)?));
        }
        taken += len;
    }
    Some(if real == 0 { Content::Empty } else { Content::Sparse { size: real, pieces } })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::spool::spooled;

    #[test]
    fn sparse_maps_that_lie_are_refused() {
        let data = spooled(b"abcdef");
        assert!(sparse(&data, 10, &[(0, 3), (5, 3), (10, 0)]).is_some());
        for map in [
            &[(0, 3), (2, 3)][..],
            &[(0, 7)],
            &[(8, 3)],
            &[(u64::MAX, 2)],
            &[(0, 4), (5, 4)],
            &[(5, 1), (0, 1)],
        ] {
            assert!(sparse(&data, 10, map).is_none(), "{map:?}");
        }
    }
}
