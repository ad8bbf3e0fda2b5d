//! What an operator hands over as an image: told apart by its bytes, read into a [`Tree`].

mod archive;
mod dir;
pub(crate) mod header;
mod layers;
mod sparse;
pub(crate) mod spool;
mod untar;

use std::collections::BTreeSet;
use std::fs::File;
use std::path::Path;

use crate::content::Span;
use crate::error::{Error, Fault};
use crate::import::Progress;
use crate::stack::Source;
use crate::tree::Tree;

pub(crate) use spool::Spool;
pub(crate) use untar::keep_xattr;

/// How much a stranger's archive may claim before it is refused.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of all files once unpacked, holes included.
    pub unpacked: u64,
    /// Unpacked over packed bytes, asked only of what unpacks to more than [`Limits::RATIO_FREE`].
    pub ratio: u64,
    /// Names.
    pub entries: usize,
    /// Bytes of names, links and extended attributes: these are held in memory.
    pub words: u64,
}

impl Limits {
    /// Below this nobody asks for the ratio: a small archive of zeros is no bomb.
    pub const RATIO_FREE: u64 = 1 << 30;
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { unpacked: 64 << 30, ratio: 250, entries: 4_000_000, words: 1 << 30 }
    }
}

/// What the reading of a source gathers.
pub(crate) struct Reading<'a> {
    /// Where unpacked archives are kept until the import ends.
    pub(crate) spool: Spool<'a>,
    pub(crate) limits: Limits,
    /// Worth telling the operator, though no reason to refuse.
    pub(crate) warnings: Vec<String>,
    pub(crate) progress: &'a mut dyn FnMut(Progress),
}

/// Reads `path`, whatever it is: into one tree, or into one for each layer it has.
pub(crate) fn read(path: &Path, reading: &mut Reading<'_>) -> Result<Source, Error> {
    let meta = std::fs::metadata(path).map_err(Error::io("reading", path))?;
    let fault = Error::source(path);
    if meta.is_dir() {
        if path.join("oci-layout").is_file() && path.join("index.json").is_file() {
            return layers::layout_dir(path, reading).map_err(fault);
        }
        return dir::read(path, reading).map(Source::from).map_err(fault);
    }
    if !meta.is_file() {
        return Err(fault(Fault::Unknown));
    }
    let file = File::open(path).map_err(Error::io("reading", path))?;
    let packed = Span::whole(file).map_err(Error::io("reading", path))?;
    archive::read(&packed, reading).map_err(fault)
}

/// Applies a packed layer to a tree, its whiteouts included.
#[allow(dead_code, reason = "its readers come with it")]
pub(crate) fn apply(
    tree: &mut Tree,
    packed: &Span,
    reading: &mut Reading<'_>,
) -> Result<(), Fault> {
    let tar = reading.spool.plain(packed, &reading.limits, reading.progress)?;
    layers::apply(tree, &tar, reading)
}

/// A packed layer without those below it: its names, and what its whiteouts take away.
pub(crate) fn alone(
    packed: &Span,
    reading: &mut Reading<'_>,
) -> Result<(Tree, BTreeSet<Vec<u8>>), Fault> {
    let tar = reading.spool.plain(packed, &reading.limits, reading.progress)?;
    layers::alone(&tar, reading.limits)
}

/// Lays a directory over a tree, everything in it owned by root: a package somebody unpacked.
pub(crate) fn overlay(tree: &mut Tree, dir: &Path, reading: &mut Reading<'_>) -> Result<(), Error> {
    dir::overlay(tree, dir, reading).map_err(Error::source(dir))
}
