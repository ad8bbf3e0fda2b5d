//! Is this the machine that is meant, and which disks has it: what every order asks that writes on disks.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::contract::hardware::{Disk, Hardware};
use crate::hardware;

/// A disk as it was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// What it says of itself.
    pub disk: Disk,
    /// Its size.
    pub bytes: u64,
    /// It can be taken out, and is no disk of the machine's own.
    pub removable: bool,
    /// What one disk has that is reached by two ways.
    pub wwid: String,
}

impl Found {
    /// `vda VD-07 (QEMU HARDDISK, 1024 MiB)`
    pub fn shown(&self) -> String {
        let Found { disk, bytes, .. } = self;
        let model = if disk.model.is_empty() { disk.bus.as_str() } else { disk.model.as_str() };
        format!("{} {} ({model}, {} MiB)", disk.name, disk.serial, bytes >> 20)
    }

    /// Whether that is its serial number.
    pub fn has(&self, serial: &str) -> bool {
        let serial = serial.trim();
        !serial.is_empty() && self.disk.serial.eq_ignore_ascii_case(serial)
    }

    /// `/dev/vda`
    pub fn path(&self) -> PathBuf {
        // cciss!c0d0 is how sysfs writes a name with a slash.
        Path::new("/dev").join(self.disk.name.replace('!', "/"))
    }
}

/// Whether the serial number is this machine's: the chassis', the board's, or its UUID.
pub fn is_meant(serial: &str, hardware: &Hardware) -> Result<(), String> {
    let own = [&hardware.serial, &hardware.board, &hardware.uuid];
    let wanted = serial.trim();
    if !wanted.is_empty() && own.iter().any(|own| own.trim().eq_ignore_ascii_case(wanted)) {
        return Ok(());
    }
    let says = match own.iter().find(|own| !own.is_empty()) {
        Some(_) => format!(
            "this machine's serial number is {:?} (board {:?}, UUID {})",
            hardware.serial, hardware.board, hardware.uuid
        ),
        None => "this machine's firmware tells no serial number".to_owned(),
    };
    Err(format!("the order is for the machine {wanted:?}; {says}"))
}

/// In words, when no disk has that serial number.
pub fn absent(serial: &str, found: &[Found]) -> String {
    let there: Vec<String> = found.iter().map(Found::shown).collect();
    let there = if there.is_empty() { "none".to_owned() } else { there.join(", ") };
    format!("no disk has the serial number {serial:?}; there are: {there}")
}

/// What lies in `/sys/block`.
pub fn found(root: &Path) -> Vec<Found> {
    let word = |path: &Path| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let of = |disk: Disk| {
        let at = root.join("sys/block").join(&disk.name);
        let bytes = word(&at.join("size")).parse::<u64>().unwrap_or(0).saturating_mul(512);
        // An SD card says `SD`, what is soldered to the board `MMC`.
        let card = word(&at.join("device/type")) == "SD";
        let removable = word(&at.join("removable")) == "1" || card;
        let wwid = [at.join("wwid"), at.join("device/wwid")];
        let wwid = wwid.iter().map(|path| word(path)).find(|wwid| !wwid.is_empty());
        Found { disk, bytes, removable, wwid: wwid.unwrap_or_default() }
    };
    // The boot and replay areas of an eMMC are no disks: they take no writes.
    let area =
        |name: &str| name.starts_with("mmc") && (name.contains("boot") || name.contains("rpmb"));
    let disks = hardware::disks(root).into_iter().filter(|disk| !area(&disk.name));
    disks.map(of).collect()
}

/// Seconds since 1970.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_is_known_by_what_is_on_its_sticker() {
        let hardware = Hardware {
            serial: "CZ123".into(),
            board: "B-9".into(),
            uuid: "6b6f626f-7368-4969-8000-525400770007".into(),
            ..Hardware::default()
        };
        for right in ["CZ123", " cz123 ", "B-9", "6B6F626F-7368-4969-8000-525400770007"] {
            assert_eq!(is_meant(right, &hardware), Ok(()), "{right}");
        }
        for wrong in ["", " ", "CZ124", "CZ12"] {
            let why = is_meant(wrong, &hardware).unwrap_err();
            assert!(why.contains("serial number is \"CZ123\""), "{why}");
        }
        let silent = Hardware::default();
        assert!(is_meant("", &silent).unwrap_err().contains("tells no serial number"));
    }
}
