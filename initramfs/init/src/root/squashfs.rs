//! A root that stays compressed in memory: the squashfs lies in the kernel's RAM disk, written past
//! the page cache so that it is not there twice, and is mounted once its digest is right.
//!
//! Not a loop device over a file: a RAM disk needs no ioctl, cannot be truncated under the mount, and
//! `mkfs` refuses it while it is mounted.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::OFlags;
use rustix::mount::MountFlags;

use crate::cmdline::Cmdline;
use crate::contract::Blob;
use crate::http::{Patience, Server};
use crate::modules::Modules;
use crate::mounts::{self, LOWER};
use crate::root::archive::{NoRoot, Ready, until_right};
use crate::root::fetch::{Listener, Stream};
use crate::root::pour::{ALIGNED, pour};
use crate::root::progress::Course;

/// Loads what it takes: a RAM disk for each layer, large enough for the largest. A RAM disk takes memory
/// for what is written to it, not for its size.
pub fn load(layers: &[Blob], modules: &mut Modules, line: &Cmdline) {
    let largest = layers.iter().map(|blob| blob.size).max().unwrap_or(0);
    let kib = largest.div_ceil(ALIGNED as u64) * (ALIGNED as u64 >> 10);
    let disks = layers.len();
    modules.load_with("brd", &format!("rd_nr={disks} rd_size={kib} max_part=1"), line);
    modules.load("squashfs", line);
}

/// Fetches a squashfs into the RAM disk of its layer, 0 being the lowest. One that was altered on its way is
/// fetched again, and no other.
#[allow(clippy::too_many_arguments, reason = "each is another part of the boot")]
pub fn fetch(
    server: Server,
    blob: &Blob,
    layer: usize,
    image: &str,
    course: &mut Course,
    patience: Patience,
    listener: Listener<'_>,
) -> Result<Ready<u64>, NoRoot> {
    let mut place = || open(layer, blob.size);
    let mut take = |disk: &File, stream: &mut Stream<'_>, _: usize, poured: &mut u64| {
        let bytes = pour(stream, disk);
        *poured = bytes.map_err(|error| format!("the RAM disk does not take it: {error}"))?;
        Ok(())
    };
    let blobs = std::slice::from_ref(blob);
    until_right(server, blobs, image, &mut place, &mut take, course, patience, listener)
}

/// Mounts them where an overlay finds them, and gives what it calls them: the highest first.
pub fn mount(layers: usize) -> io::Result<String> {
    let mut lower = Vec::new();
    if layers > 1 {
        mounts::lowers()?;
    }
    for layer in (0..layers).rev() {
        let place = match layers {
            1 => LOWER.to_owned(),
            _ => format!("{LOWER}/{layer}"),
        };
        fs::create_dir_all(&place)?;
        let disk = format!("/dev/ram{layer}");
        mounts::mount_from(&disk, &place, "squashfs", MountFlags::RDONLY, "")?;
        lower.push(place);
    }
    Ok(lower.join(":"))
}

fn open(layer: usize, size: u64) -> Result<File, String> {
    let (disk, told) = (format!("/dev/ram{layer}"), format!("/sys/class/block/ram{layer}/size"));
    let sectors = fs::read_to_string(told).ok().and_then(|text| text.trim().parse::<u64>().ok());
    let Some(sectors) = sectors else {
        // Built into the kernel, and not a module, it makes 16 (CONFIG_BLK_DEV_RAM_COUNT).
        if layer > 0 {
            return Err(format!(
                "this kernel has {layer} RAM disks and the root more layers: brd.rd_nr=24 in the role's \
                 cmdline, or an image of fewer layers"
            ));
        }
        return Err("the initramfs of this image has no RAM disk (module brd): import the image \
                    again, or say root = \"ram\""
            .to_owned());
    };
    let holds = sectors.saturating_mul(512);
    if holds < size {
        return Err(format!(
            "this kernel's RAM disks hold {} KiB, the root takes {}: ramdisk_size={1} in the role's \
             cmdline",
            holds >> 10,
            size.div_ceil(1024)
        ));
    }
    OpenOptions::new()
        .write(true)
        .custom_flags(OFlags::DIRECT.bits().cast_signed())
        .open(Path::new(&disk))
        .map_err(|error| format!("{disk}: {error}"))
}
