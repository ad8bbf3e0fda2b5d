//! Where this host tells of its serial ports: each place may be another, so that a test can have a host of
//! its own.

use std::path::{Path, PathBuf};

/// The places that are looked at.
#[derive(Debug, Clone)]
pub struct Host {
    /// Devices: `/dev`.
    pub dev: PathBuf,
    /// What is plugged in where: `/sys`.
    pub sys: PathBuf,
    /// Who runs: `/proc`.
    pub proc: PathBuf,
    /// UUCP's lock files: `/var/lock`.
    pub locks: PathBuf,
}

impl Default for Host {
    fn default() -> Host {
        let at = PathBuf::from;
        Host { dev: at("/dev"), sys: at("/sys"), proc: at("/proc"), locks: at("/var/lock") }
    }
}

impl Host {
    /// What a process is called. None: there is no such process.
    pub(super) fn process(&self, pid: u32) -> Option<String> {
        let name = std::fs::read_to_string(self.proc.join(pid.to_string()).join("comm")).ok()?;
        Some(format!("{} (process {pid})", shown(name.trim())))
    }
}

/// One line of a file of the kernel's, for people.
pub(super) fn line(path: &Path) -> Option<String> {
    let text = std::fs::read(path).ok()?;
    let text = shown(String::from_utf8_lossy(&text).trim());
    (!text.is_empty()).then_some(text)
}

/// What a device or a process calls itself, without what a terminal would obey.
fn shown(text: &str) -> String {
    text.chars().take(80).map(|c| if c.is_control() { '·' } else { c }).collect()
}
