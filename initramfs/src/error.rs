//! What can go wrong between an image's kernel and the archives a machine boots from.

use std::io;

/// Why an archive could not be made or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A name that cannot stand in an archive.
    #[error("archive name {name:?}: {why}")]
    Name {
        /// The name as given.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// An entry the format has no room for.
    #[error("archive entry {name:?}: {why}")]
    Entry {
        /// Its name.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Bytes that are no archive.
    #[error("not a readable archive at byte {at}: {why}")]
    Format {
        /// Offset in the (unpacked) segment.
        at: usize,
        /// What was found.
        why: String,
    },
    /// A file that does not unpack, or to more than it may.
    #[error("{name}: {why}")]
    Packed {
        /// The file.
        name: String,
        /// What is wrong with it.
        why: String,
    },
    /// Something grew beyond what any honest kernel brings.
    #[error("{what} is larger than {limit} bytes")]
    TooLarge {
        /// What.
        what: String,
        /// Bytes allowed.
        limit: u64,
    },
    /// The image's file system refused.
    #[error("{path} in the image: {source}")]
    Read {
        /// Path inside the image.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// A path that is not what its place asks for: a FIFO, a device, a directory.
    #[error("{path} in the image is not {want}")]
    Kind {
        /// Path inside the image.
        path: String,
        /// What it should have been.
        want: &'static str,
    },
    /// The image has no such kernel.
    #[error("the image has no usr/lib/modules/{release}; it has: {}", or_none(.found))]
    NoModules {
        /// Release asked for.
        release: String,
        /// Releases there are.
        found: Vec<String>,
    },
    /// The kernel's package was unpacked, not installed.
    #[error("usr/lib/modules/{release}/modules.dep is missing: run `depmod -b ROOT {release}`")]
    NoModulesDep {
        /// Release asked for.
        release: String,
    },
    /// depmod's files say something they cannot mean.
    #[error("{file} line {line}: {why}")]
    Depmod {
        /// `modules.dep` or another.
        file: &'static str,
        /// From 1.
        line: usize,
        /// What is wrong.
        why: String,
    },
    /// A module leans on more modules than any honest one.
    #[error("module {module} has more than {limit} dependencies, or they nest too deep")]
    TooManyDependencies {
        /// Its name.
        module: String,
        /// Modules allowed.
        limit: usize,
    },
}

fn or_none(found: &[String]) -> String {
    if found.is_empty() { "none".into() } else { found.join(", ") }
}
