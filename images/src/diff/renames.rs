//! Files that have another name and the same bytes: found where it is cheap, among names that went
//! and names that came with the same size.

use std::collections::HashMap;
use std::io;

use super::{Entry, same};
use crate::tree::Kind;

/// Names of one size that went: beyond these (a package of empty markers, a directory of keys) who
/// became whom says nothing.
const ALIKE: usize = 16;

/// Takes renamed files out of both lists, as pairs.
pub(super) fn pair<'t>(
    gone: &mut Vec<Entry<'t>>,
    came: &mut Vec<Entry<'t>>,
) -> io::Result<Vec<(Entry<'t>, Entry<'t>)>> {
    let mut by_size: HashMap<u64, Vec<usize>> = HashMap::new();
    for (at, entry) in gone.iter().enumerate() {
        if let Some(size) = size(entry) {
            by_size.entry(size).or_default().push(at);
        }
    }
    by_size.retain(|_, alike| alike.len() <= ALIKE);
    let mut pairs = Vec::new();
    let mut taken = vec![false; gone.len()];
    let mut rest = Vec::with_capacity(came.len());
    for new in came.drain(..) {
        let candidates = size(&new).and_then(|size| by_size.get(&size));
        let mut best: Option<usize> = None;
        for &at in candidates.into_iter().flatten().filter(|at| !taken[**at]) {
            if !has_same_bytes(&gone[at], &new)? {
                continue;
            }
            // The same name in another directory is who it was.
            if best.is_none() || base(gone[at].path) == base(new.path) {
                best = Some(at);
            }
        }
        match best {
            Some(at) => {
                taken[at] = true;
                pairs.push((gone[at], new));
            }
            None => rest.push(new),
        }
    }
    *came = rest;
    let mut taken = taken.into_iter();
    gone.retain(|_| !taken.next().unwrap_or(false));
    Ok(pairs)
}

fn has_same_bytes(old: &Entry<'_>, new: &Entry<'_>) -> io::Result<bool> {
    match (&old.inode.kind, &new.inode.kind) {
        (Kind::File(old), Kind::File(new)) => same(old, new),
        _ => Ok(false),
    }
}

/// An empty file is like any other.
fn size(entry: &Entry<'_>) -> Option<u64> {
    match &entry.inode.kind {
        Kind::File(content) => Some(content.size()).filter(|size| *size > 0),
        _ => None,
    }
}

fn base(path: &[u8]) -> &[u8] {
    path.rsplit(|c| *c == b'/').next().unwrap_or(path)
}
