//! A file that was handed over: unpacked if it is compressed, read as a tar, and looked at once
//! more, for the tar may be an image in OCI's or docker's wrapping.

use std::io::Read;

use crate::content::Span;
use crate::error::Fault;
use crate::import::Progress;
use crate::source::untar::{self, End};
use crate::source::{Reading, layers};
use crate::stack::Source;
use crate::tree::{Kind, Tree};

pub(super) fn read(packed: &Span, reading: &mut Reading<'_>) -> Result<Source, Fault> {
    let tar = reading.spool.plain(packed, &reading.limits, reading.progress)?;
    if !looks_like_tar(&tar) {
        return Err(Fault::Unknown);
    }
    let mut tree = Tree::new(reading.limits);
    let progress = &mut *reading.progress;
    untar::each(&tar, End::Marked, &mut |entry| {
        tree.add(&entry.name, entry.member)?;
        if tree.len().is_multiple_of(1000) {
            progress(Progress::Reading { entries: tree.len() as u64 });
        }
        Ok(())
    })?;
    let is_file = |name: &str| {
        tree.resolve(name.as_bytes()).is_some_and(|(_, inode)| matches!(inode.kind, Kind::File(_)))
    };
    if is_file("oci-layout") && is_file("index.json") {
        return layers::oci_archive(&tree, reading);
    }
    if is_file("manifest.json") && tree.resolve(b"etc").is_none() && tree.resolve(b"usr").is_none()
    {
        return layers::docker_archive(&tree, reading);
    }
    Ok(tree.into())
}

/// Whether the first block could be a tar's: magic, or an old tar's checksum.
fn looks_like_tar(span: &Span) -> bool {
    let mut block = [0u8; 512];
    let mut reader = span.reader();
    if reader.read_exact(&mut block).is_err() {
        return false;
    }
    // An empty tar is two blocks of zeros: it is a tar, and its lack of a kernel is said later.
    block == [0; 512] || &block[257..262] == b"ustar" || untar::has_checksum(&block)
}
