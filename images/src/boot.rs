//! What a machine loads before its root: microcode and modules out of the image, packed as its
//! kernel can unpack them.

use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use koboshi_initramfs::{Choice, Compression, microcode_segment, modules_segment};

use crate::error::Fault;
use crate::kernel::Kernel;
use crate::tree::{Kind, Tree};

/// Segments of the initramfs that belong to an image.
pub(crate) struct Segments {
    /// Plain, read by the kernel before anything else; few images bring any.
    pub(crate) microcode: Option<bytes::Bytes>,
    pub(crate) modules: bytes::Bytes,
    /// Paths of the modules in it.
    pub(crate) paths: Vec<String>,
    pub(crate) firmware_count: usize,
    /// Files that drivers of it name and the image does not have.
    pub(crate) firmware_missing: Vec<String>,
    /// Modules that the kernel's list names and the image does not have.
    pub(crate) missing: Vec<String>,
    /// Bytes the modules take unpacked.
    pub(crate) modules_unpacked: u64,
}

impl Segments {
    /// What the operator should know of them.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if let Some(some) = some_of(&self.missing) {
            warnings.push(format!(
                "{} modules that modules.dep names are not in the image ({some}): machines boot without them; \
                 depmod makes a list of those that are there",
                self.missing.len()
            ));
        }
        if let Some(some) = some_of(&self.firmware_missing) {
            warnings.push(format!(
                "{} firmware files that its drivers name are not in the image ({some}): install \
                 Debian's firmware-… packages into the root if the hardware needs them",
                self.firmware_missing.len()
            ));
        }
        warnings
    }
}

/// `one`, `one, two`, or `one, two …`
fn some_of(all: &[String]) -> Option<String> {
    let more = if all.len() > 2 { " …" } else { "" };
    (!all.is_empty()).then(|| all.iter().take(2).cloned().collect::<Vec<_>>().join(", ") + more)
}

/// Makes the segments, by way of a directory that holds only modules and firmware.
pub(crate) fn segments(tree: &Tree, kernel: &Kernel, work: &Path) -> Result<Segments, Fault> {
    let root = work.join("modules");
    extract(tree, &kernel.release, &root)?;
    let fault = |error: koboshi_initramfs::Error| Fault::Modules {
        release: kernel.release.clone(),
        why: error.to_string(),
    };
    let compression = Compression::for_kernel(kernel.config.as_deref(), &kernel.release);
    let modules =
        modules_segment(&root, &kernel.release, &Choice::servers(), compression).map_err(fault)?;
    let microcode = microcode_segment(&root).map_err(fault)?;
    fs::remove_dir_all(&root)?;
    Ok(Segments {
        microcode,
        paths: modules.modules.into_iter().map(|module| module.path).collect(),
        firmware_count: modules.firmware.len(),
        firmware_missing: modules.firmware_missing.into_iter().map(|(_, file)| file).collect(),
        missing: modules.missing,
        modules_unpacked: modules.unpacked,
        modules: modules.bytes,
    })
}

/// Writes directories, regular files and links of the kernel's modules and of the firmware below
/// `root`. Every parent of a tree's name is a real directory there, and so here: nothing is
/// written through a link, wherever the links point.
fn extract(tree: &Tree, release: &str, root: &Path) -> Result<(), Fault> {
    fs::create_dir(root)?;
    let modules = format!("lib/modules/{release}");
    let tops = [modules.as_str(), "lib/firmware"];
    let wanted = |path: &[u8]| {
        let path = path.strip_prefix(b"usr/").unwrap_or(path);
        tops.iter().any(|top| {
            path == top.as_bytes()
                || path.strip_prefix(top.as_bytes()).is_some_and(|rest| rest[0] == b'/')
        })
    };
    for (path, _, inode) in tree.iter() {
        let on_the_way =
            matches!(path, b"lib" | b"usr" | b"usr/lib" | b"lib/modules" | b"usr/lib/modules");
        if !on_the_way && !wanted(path) {
            continue;
        }
        let target = root.join(std::ffi::OsStr::from_bytes(path));
        match &inode.kind {
            Kind::Dir => fs::create_dir(&target)?,
            Kind::Symlink(to) => {
                std::os::unix::fs::symlink(std::ffi::OsStr::from_bytes(to), &target)?;
            }
            Kind::File(content) => {
                let mut file = File::create_new(&target)?;
                io::copy(&mut content.open()?, &mut file)?;
            }
            Kind::Char { .. } | Kind::Block { .. } | Kind::Fifo => {}
        }
    }
    Ok(())
}
