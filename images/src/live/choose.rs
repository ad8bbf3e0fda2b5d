//! Which of a machine's changes are meant: at these paths, and without what machines write by themselves.

use std::collections::{BTreeMap, HashSet};

use koboshi_initramfs::changes::listing::Kind;

use super::compare::{Became, Change, parents};
use super::left_out;
use crate::error::{Fault, shown};
use crate::tree;

/// Which changes are meant.
#[derive(Debug, Clone, Default)]
pub struct Chosen {
    /// These, and what is below them; all, where there are none.
    pub paths: Vec<String>,
    /// Also what machines write by themselves.
    pub all: bool,
}

/// Those that are meant, and how many are left out of them.
pub(super) fn choose(
    changes: Vec<Change>,
    chosen: &Chosen,
    new: impl Fn(&[u8]) -> bool,
) -> Result<(Vec<Change>, BTreeMap<&'static str, u64>), Fault> {
    let mut paths: Vec<(Vec<u8>, bool, bool)> = Vec::new();
    for path in &chosen.paths {
        let path = tree::normalise(path.as_bytes())?;
        // Who names something that is left out by itself means it.
        let meant = left_out::place(&path).is_some();
        paths.push((path, meant, false));
    }
    let mut left_out = BTreeMap::new();
    let mut kept: Vec<bool> = Vec::with_capacity(changes.len());
    for change in &changes {
        let below = |path: &[u8]| {
            path.is_empty()
                || change
                    .path
                    .strip_prefix(path)
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
        };
        let mut meant = chosen.all;
        let mut named = paths.is_empty();
        for (path, place, found) in paths.iter_mut().filter(|(path, ..)| below(path)) {
            (named, *found) = (true, true);
            meant |= *place || *path == change.path;
        }
        let node = match &change.became {
            Became::Is(_, node) => Some(node),
            Became::Gone => None,
        };
        let socket = node.is_some_and(|node| node.kind == Kind::Socket);
        let why = left_out::place(&change.path).or_else(|| left_out::inode(node?));
        let why = if socket { Some(left_out::SOCKETS) } else { why.filter(|_| !meant) };
        if let (true, Some(why)) = (named, why) {
            *left_out.entry(why).or_insert(0) += 1;
        }
        kept.push(named && why.is_none());
    }
    if let Some((path, ..)) = paths.iter().find(|(.., found)| !found) {
        let what = format!("nothing has changed at /{}", shown(path));
        return Err(Fault::Unsupported { what });
    }
    // A directory that is new comes along with what is in it.
    let way: HashSet<Vec<u8>> = changes
        .iter()
        .zip(&kept)
        .filter(|(change, kept)| **kept && matches!(change.became, Became::Is(..)))
        .flat_map(|(change, _)| parents(&change.path).map(<[u8]>::to_vec))
        .collect();
    let is_way = |change: &Change| {
        let dir = matches!(&change.became, Became::Is(_, node) if node.kind == Kind::Dir);
        dir && way.contains(&change.path) && new(&change.path)
    };
    let all = changes.into_iter().zip(kept);
    let changes = all.filter(|(change, kept)| *kept || is_way(change)).map(|(change, _)| change);
    Ok((changes.collect(), left_out))
}
