//! The first second: the file systems without which nothing can be seen or said.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::mount::{MountFlags, UnmountFlags, mount, mount_move, mount_remount, unmount};

/// Where the real root is built.
pub const NEW_ROOT: &str = "/newroot";
/// Where what is only read is mounted, until an overlay holds it.
pub const LOWER: &str = "/lower";
const UPPER: &str = "/upper";
/// Where what lies above an overlay's read-only trees can be looked at in the running system, by root.
pub const ABOVE: &str = "/run/koboshi/above";

/// Mounts what a kernel needs to be talked to. What is there already (a retry) stays.
pub fn basics() -> Vec<String> {
    let quiet = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    // The options are systemd's own, for it keeps what it finds mounted. /run may hold
    // executables: the agent runs from there.
    let table: [(&str, &str, MountFlags, &str); 5] = [
        ("proc", "/proc", quiet, ""),
        ("sysfs", "/sys", quiet, ""),
        ("devtmpfs", "/dev", MountFlags::NOSUID, "mode=0755"),
        (
            "devpts",
            "/dev/pts",
            MountFlags::NOSUID | MountFlags::NOEXEC,
            "gid=5,mode=620,ptmxmode=000",
        ),
        (
            "tmpfs",
            "/run",
            MountFlags::NOSUID | MountFlags::NODEV,
            "mode=0755,size=20%,nr_inodes=800k",
        ),
    ];
    let mut troubles = Vec::new();
    for (kind, target, flags, options) in table {
        let _ = fs::create_dir_all(target);
        // A second tmpfs on /run would hide the first one without a word.
        if mounted(Path::new(target)) {
            continue;
        }
        if let Err(error) = mount_one(kind, target, flags, options) {
            troubles.push(format!("cannot mount {kind} on {target}: {error}"));
        }
    }
    let _ = fs::create_dir_all("/tmp");
    troubles
}

/// An empty tmpfs for the real root; what a failed try left there is gone.
pub fn fresh_root(size: &str) -> io::Result<()> {
    clear()?;
    // The options end up in one string with commas: the size was checked to be a size.
    mount_one("tmpfs", NEW_ROOT, MountFlags::empty(), &format!("mode=0755,size={size}"))
}

/// A place in memory for the mounts of several layers, at [`LOWER`].
pub fn lowers() -> io::Result<()> {
    mount_one("tmpfs", LOWER, MountFlags::empty(), "mode=0755,size=64k")
}

/// A tmpfs of `bytes` above read-only trees that are mounted below [`LOWER`] already, `lower` being what
/// overlayfs calls them. They are taken out of sight once the overlay holds them, so that nobody unmounts
/// them under it; the tmpfs is left at [`ABOVE`], read-only, for it is known there what was changed.
pub fn overlay(lower: &str, bytes: u64) -> io::Result<()> {
    fs::create_dir_all(NEW_ROOT)?;
    fs::create_dir_all(UPPER)?;
    mount_one("tmpfs", UPPER, MountFlags::empty(), &format!("mode=0700,size={bytes}"))?;
    let (upper, work) = (format!("{UPPER}/upper"), format!("{UPPER}/work"));
    fs::create_dir(&upper)?;
    fs::create_dir(&work)?;
    // The top's own mode is the upper one's.
    let options = format!("lowerdir={lower},upperdir={upper},workdir={work}");
    mount_one("overlay", NEW_ROOT, MountFlags::empty(), &options)?;
    unmount(LOWER, UnmountFlags::DETACH)?;
    fs::create_dir_all(ABOVE)?;
    mount_move(UPPER, ABOVE)?;
    Ok(mount_remount(ABOVE, MountFlags::BIND | MountFlags::RDONLY, "")?)
}

/// What a failed try left at the places of a root is gone.
pub fn clear() -> io::Result<()> {
    for place in [NEW_ROOT, LOWER, UPPER, ABOVE] {
        fs::create_dir_all(place)?;
        while unmount(place, UnmountFlags::DETACH).is_ok() {}
    }
    Ok(())
}

fn mount_one(kind: &str, target: &str, flags: MountFlags, options: &str) -> io::Result<()> {
    mount_from(kind, target, kind, flags, options)
}

/// Mounts a source; the options are what the file system itself reads.
pub fn mount_from(
    source: &str,
    target: &str,
    kind: &str,
    flags: MountFlags,
    options: &str,
) -> io::Result<()> {
    let options = CString::new(options).map_err(io::Error::other)?;
    Ok(mount(source, Path::new(target), kind, flags, options.as_c_str())?)
}

fn mounted(target: &Path) -> bool {
    let device = |path: &Path| fs::metadata(path).map(|meta| meta.dev()).ok();
    device(target) != device(&target.join(".."))
}
