//! Files as a tar compressed with zstd.

use bytes::Bytes;
use koboshi_initramfs::contract::Blob;
use koboshi_pxe::Content;
use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};

use super::{Member, What};

/// A quick one: files are few and small, and a boot waits for it.
const LEVEL: i32 = 3;

/// A tar, ready to be fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Archive {
    /// Compressed.
    pub bytes: Bytes,
    /// Of these bytes.
    pub sha256: [u8; 32],
}

impl Archive {
    /// As a machine is told of it.
    pub fn blob(&self) -> Blob {
        let sha256: String = self.sha256.iter().map(|byte| format!("{byte:02x}")).collect();
        Blob { path: format!("/blob/sha256/{sha256}"), sha256, size: self.bytes.len() as u64 }
    }

    /// As it is served.
    pub fn content(self) -> ([u8; 32], Content) {
        (self.sha256, Content::Bytes(self.bytes))
    }
}

/// None of no files.
pub(super) fn pack(members: &[Member]) -> Option<Archive> {
    if members.is_empty() {
        return None;
    }
    let mut tar = Builder::new(Vec::new());
    for member in members {
        let mut header = Header::new_gnu();
        header.set_mode(member.mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(member.mtime);
        // Into memory: a name that is too long is given a record of its own, and nothing else can fail.
        let added = match &member.what {
            What::Bytes(bytes) => {
                header.set_entry_type(EntryType::Regular);
                header.set_size(bytes.len() as u64);
                tar.append_data(&mut header, &member.path, bytes.as_ref())
            }
            What::Link(target) => {
                header.set_entry_type(EntryType::Symlink);
                header.set_size(0);
                tar.append_link(&mut header, &member.path, target)
            }
        };
        if let Err(error) = added {
            tracing::error!(path = member.path, %error, "a file is left out");
        }
    }
    let tar = tar.into_inner().ok()?;
    let bytes: Bytes = zstd::encode_all(tar.as_slice(), LEVEL).ok()?.into();
    let sha256 = Sha256::digest(&bytes).into();
    Some(Archive { bytes, sha256 })
}
