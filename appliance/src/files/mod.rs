//! Files of a role or a seat (`files = "dir/"`): a folder beside the site file that is laid over the root its
//! machines boot, the role's first, the seat's over it. A name that ends in `.j2` is a template of Jinja's
//! language, filled in for each boot, and loses that ending.
//!
//! ```text
//! read    a folder, bounded, with all that is wrong in it
//! render  its templates, for one boot
//! pack    files as a tar compressed with zstd: of the same files always the same bytes
//! ```
//!
//! They are as public as images: whoever reaches the provisioning network can fetch them. So nothing in them is a
//! secret, and what the linter of images takes for one is refused.

mod pack;
mod read;
mod render;

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;

use crate::site::At;

pub use pack::Archive;
pub use read::{Bad, Folder, Found, read};
pub use render::Facts;

/// What `files` says, and what was there when the site was read.
#[derive(Debug, Clone, Serialize)]
pub struct Files {
    /// The folder.
    pub folder: At<PathBuf>,
    /// Digest of its names, modes and contents: whether a reload changes them.
    pub digest: String,
    /// What is in it.
    #[serde(skip)]
    pub read: Arc<Folder>,
}

impl Files {
    /// As it is written; nothing was read yet.
    pub fn of(folder: At<PathBuf>) -> Files {
        Files { folder, digest: String::new(), read: Arc::default() }
    }

    /// The archives for one boot: what is the same for all, and what was filled in.
    ///
    /// # Errors
    /// A template that cannot be filled in, with its line.
    pub fn archives(&self, facts: &Facts) -> Result<Vec<Archive>, Bad> {
        let rendered = self.read.render(facts)?;
        let fixed = self.read.fixed.clone();
        Ok(fixed.into_iter().chain(pack::pack(&rendered)).collect())
    }
}

impl PartialEq for Files {
    fn eq(&self, other: &Files) -> bool {
        self.folder == other.folder && self.digest == other.digest
    }
}

/// One file on its way into an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::files) struct Member {
    /// Below the root, without a slash before it.
    path: String,
    /// Permissions.
    mode: u32,
    /// Seconds since 1970.
    mtime: u64,
    what: What,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::files) enum What {
    Bytes(Bytes),
    /// Where a symbolic link leads.
    Link(String),
}

#[cfg(test)]
mod tests;
