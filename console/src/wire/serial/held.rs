//! Who has a port open: two that read one port get half of it each, and a getty hangs up whoever else has it.
//!
//! `TIOCEXCL` keeps out whoever comes later unless he is root, and tells nothing of who was there before; so the
//! kernel is asked for each process's open files and for its controlling terminal (proc(5)).

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::host::Host;

/// Somebody who has a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holder {
    /// This process: another line of the same appliance.
    Own,
    /// Another one, by name and number.
    Other {
        /// `agetty (process 812)`.
        who: String,
        /// It asks people to log in there.
        getty: bool,
    },
}

/// Who has this device (its own name, no link to it). Whose files may not be looked at is known by his
/// controlling terminal alone.
pub fn holder(host: &Host, device: &Path) -> Option<Holder> {
    let number = fs::metadata(device).ok()?.rdev();
    let own = std::process::id();
    let mut others = Vec::new();
    for entry in fs::read_dir(&host.proc).ok()?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let has = opened(&entry.path(), device);
        if pid == own && has {
            return Some(Holder::Own);
        }
        if pid != own && (has || terminal(&entry.path()) == Some(number)) {
            others.push(pid);
        }
    }
    let pid = others.into_iter().min()?;
    let who = host.process(pid).unwrap_or_else(|| format!("process {pid}"));
    let getty = who.split(' ').next().is_some_and(|name| name.contains("getty") || name == "login");
    Some(Holder::Other { who, getty })
}

/// Whether a process has it open. Links are read, not followed: a file on a server that is gone would hold us.
fn opened(process: &Path, device: &Path) -> bool {
    let Ok(files) = fs::read_dir(process.join("fd")) else { return false };
    files.flatten().any(|file| fs::read_link(file.path()).is_ok_and(|path| path == device))
}

/// The number of a process's controlling terminal: field 7.
fn terminal(process: &Path) -> Option<u64> {
    let stat = fs::read_to_string(process.join("stat")).ok()?;
    let (_, behind_name) = stat.rsplit_once(')')?;
    let number: i32 = behind_name.split_whitespace().nth(4)?.parse().ok()?;
    let number = number.cast_unsigned();
    let (major, minor) = ((number >> 8) & 0xfff, (number & 0xff) | ((number >> 12) & 0xfff00));
    (number != 0).then(|| rustix::fs::makedev(major, minor))
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Holder::Own => f.write_str("another line of this site"),
            Holder::Other { who, .. } => f.write_str(who),
        }
    }
}
