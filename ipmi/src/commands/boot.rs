//! What a machine starts from next.
//!
//! IPMI 2.0 §28.12–28.13 and table 28-14: parameter 3 (when the BMC forgets), 4 (who has seen it), 5 (the
//! boot flags).

use std::time::Duration;

use serde::Serialize;

use super::parameters::{Setting, Table};
use crate::controller::Controller;
use crate::error::Error;
use crate::message::Completion;
use crate::wire::{Malformed, take};

/// When the valid bit is cleared.
pub const VALID_BIT_CLEARING: u8 = 3;
/// Who has handled the boot information.
pub const ACKNOWLEDGE: u8 = 4;
/// The boot flags.
pub const FLAGS: u8 = 5;

/// Parameter 3: keep the boot flags whatever starts the machine, and longer than 60 seconds. Without it a
/// machine that is switched on a minute later, or reset, starts from its disk.
pub const KEEP: u8 = 0x1f;
/// Parameter 4: the BIOS has not seen them yet (mask, then datum).
const UNSEEN: [u8; 2] = [0x01, 0x01];

/// What to start from (table 28-14, parameter 5, byte 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Device {
    /// Whatever its own order says.
    None,
    /// The network.
    Pxe,
    /// The first disk.
    Disk,
    /// The first disk, in safe mode.
    Safe,
    /// A diagnostic partition.
    Diag,
    /// A CD or DVD.
    Cdrom,
    /// BIOS set-up.
    Bios,
    /// A floppy disk that a console lends.
    RemoteFloppy,
    /// A CD that a console lends.
    RemoteCdrom,
    /// The first medium that a console lends. Boards of Supermicro take this for the disk of a UEFI machine,
    /// and do not start from [`Device::Disk`] with EFI.
    RemoteMedia,
    /// A disk that a console lends.
    RemoteDisk,
    /// A floppy disk or the first removable medium.
    Floppy,
    /// A number without a meaning.
    Reserved(u8),
}

const DEVICES: [(u8, Device, &str); 12] = [
    (0x0, Device::None, "none"),
    (0x1, Device::Pxe, "pxe"),
    (0x2, Device::Disk, "disk"),
    (0x3, Device::Safe, "safe"),
    (0x4, Device::Diag, "diag"),
    (0x5, Device::Cdrom, "cdrom"),
    (0x6, Device::Bios, "bios"),
    (0x7, Device::RemoteFloppy, "remote-floppy"),
    (0x8, Device::RemoteCdrom, "remote-cdrom"),
    (0x9, Device::RemoteMedia, "remote-media"),
    (0xb, Device::RemoteDisk, "remote-disk"),
    (0xf, Device::Floppy, "floppy"),
];

impl Device {
    fn number(self) -> u8 {
        match self {
            Device::Reserved(number) => number & 0x0f,
            _ => DEVICES.iter().find(|known| known.1 == self).map_or(0, |known| known.0),
        }
    }

    fn from_number(number: u8) -> Device {
        DEVICES
            .iter()
            .find(|known| known.0 == number)
            .map_or(Device::Reserved(number), |known| known.1)
    }

    /// As an operator writes it.
    pub fn name(self) -> &'static str {
        DEVICES.iter().find(|known| known.1 == self).map_or("reserved", |known| known.2)
    }

    /// From what an operator writes.
    pub fn by_name(name: &str) -> Option<Device> {
        DEVICES.iter().find(|known| known.2 == name).map(|known| known.1)
    }

    /// Every name, for help and mistakes.
    pub fn names() -> impl Iterator<Item = &'static str> {
        DEVICES.iter().map(|known| known.2)
    }
}

/// The boot flags (parameter 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct BootFlags {
    /// They count. Otherwise the machine starts as its own order says.
    pub valid: bool,
    /// They count for every start, not only for the next one.
    pub persistent: bool,
    /// Start as EFI does, not as a PC BIOS does.
    pub efi: bool,
    /// From what.
    pub device: Device,
    /// Forget the BIOS settings.
    pub clear_cmos: bool,
}

impl BootFlags {
    /// No override.
    pub const NONE: BootFlags = BootFlags {
        valid: false,
        persistent: false,
        efi: false,
        device: Device::None,
        clear_cmos: false,
    };

    /// From parameter 5's datum.
    pub fn decode(mut data: &[u8]) -> Result<BootFlags, Malformed> {
        let [how, what] = take(&mut data, "boot flags of less than 2 bytes")?;
        Ok(BootFlags {
            valid: how & 0x80 != 0,
            persistent: how & 0x40 != 0,
            efi: how & 0x20 != 0,
            device: Device::from_number(what >> 2 & 0x0f),
            clear_cmos: what & 0x80 != 0,
        })
    }

    /// As parameter 5's datum.
    pub fn encode(&self) -> [u8; 5] {
        let how =
            u8::from(self.valid) << 7 | u8::from(self.persistent) << 6 | u8::from(self.efi) << 5;
        [how, u8::from(self.clear_cmos) << 7 | self.device.number() << 2, 0, 0, 0]
    }

    /// Whether a machine starts from something other than its own order says.
    pub fn is_override(&self) -> bool {
        self.valid && self.device != Device::None
    }

    /// For the operator: "pxe (EFI), the next start".
    pub fn words(&self) -> String {
        if self.device == Device::None {
            return "none".into();
        }
        if !self.valid {
            return format!("none ({} is not marked valid)", self.device.name());
        }
        let how = if self.efi { " (EFI)" } else { "" };
        let when = if self.persistent { "every start" } else { "the next start" };
        format!("{}{how}, {when}", self.device.name())
    }
}

/// What a machine starts from next.
pub async fn get(bmc: &impl Controller) -> Result<BootFlags, Error> {
    let data = Table::boot().read(bmc, FLAGS, 0, 0).await?;
    Ok(BootFlags::decode(&data)?)
}

/// How often the flags are read back: some firmware answers before it has stored them.
const READS: usize = 4;
const BETWEEN_READS: Duration = Duration::from_millis(300);

/// Sets what a machine starts from, and reads it back. [`Device::None`] takes an override away.
///
/// # Errors
/// [`Error::NotKept`] if the BMC answers well and reads back otherwise: boards without legacy BIOS insist on
/// EFI, others know no persistent override, and ipmi_sim keeps the device without marking it valid.
pub async fn set(
    bmc: &impl Controller,
    device: Device,
    efi: bool,
    persistent: bool,
) -> Result<BootFlags, Error> {
    if device == Device::None {
        return clear(bmc).await;
    }
    let wanted = BootFlags { valid: true, persistent, efi, device, clear_cmos: false };
    write(bmc, wanted).await?;
    let mut reads = get(bmc).await?;
    for _ in 1..READS {
        if reads == wanted {
            break;
        }
        tokio::time::sleep(BETWEEN_READS).await;
        reads = get(bmc).await?;
    }
    if reads != wanted {
        return Err(Error::NotKept { what: "the boot device", reads: reads.words() });
    }
    Ok(reads)
}

async fn clear(bmc: &impl Controller) -> Result<BootFlags, Error> {
    match write(bmc, BootFlags::NONE).await {
        Err(error) if error.completion().is_some_and(|code| code != Completion::PRIVILEGE) => {
            // Firmware that takes no flags without the valid bit: an override to nothing is as good.
            write(bmc, BootFlags { valid: true, ..BootFlags::NONE }).await?;
        }
        outcome => outcome?,
    }
    let reads = get(bmc).await?;
    if reads.is_override() {
        return Err(Error::NotKept { what: "the end of the override", reads: reads.words() });
    }
    Ok(reads)
}

async fn write(bmc: &impl Controller, flags: BootFlags) -> Result<(), Error> {
    let settings = [
        Setting::may(VALID_BIT_CLEARING, [KEEP]),
        Setting::may(ACKNOWLEDGE, UNSEEN),
        Setting::must(FLAGS, flags.encode()),
    ];
    Table::boot().change(bmc, &settings).await
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::commands::parameters::SET_IN_PROGRESS;
    use crate::commands::script::{Script, ok, refuse};
    use crate::message::{Request, Response};

    type Step = (Request, Result<Response, Error>);

    fn progress(state: u8) -> Request {
        Table::boot().set_request(SET_IN_PROGRESS, &[state])
    }

    fn flags(bytes: [u8; 5]) -> Request {
        Table::boot().set_request(FLAGS, &bytes)
    }

    fn reads(bytes: [u8; 5]) -> Step {
        let mut data = vec![1, 5];
        data.extend(bytes);
        (Table::boot().get_request(FLAGS, 0, 0), ok(data))
    }

    fn written(bytes: [u8; 5], outcome: Result<Response, Error>) -> Vec<Step> {
        let taken = outcome.as_ref().is_ok_and(|answer| answer.completion == Completion::OK);
        let mut steps = vec![
            (progress(1), ok([])),
            (Table::boot().set_request(3, &[0x1f]), ok([])),
            (Table::boot().set_request(4, &[1, 1]), refuse(0x82)),
            (flags(bytes), outcome),
        ];
        if taken {
            steps.push((progress(2), ok([])));
        }
        steps.push((progress(0), ok([])));
        steps
    }

    proptest! {
        #[test]
        fn any_bytes_and_back(data in prop::collection::vec(any::<u8>(), 0..8)) {
            if let Ok(flags) = BootFlags::decode(&data) {
                prop_assert_eq!(BootFlags::decode(&flags.encode()), Ok(flags));
            }
        }
    }

    #[test]
    fn names_and_numbers() {
        for name in Device::names() {
            let device = Device::by_name(name).unwrap();
            assert_eq!((device.name(), Device::from_number(device.number())), (name, device));
        }
        assert_eq!(BootFlags::decode(&[0xe0, 0x04]).unwrap().words(), "pxe (EFI), every start");
        assert_eq!(
            BootFlags::decode(&[0x00, 0x04]).unwrap().words(),
            "none (pxe is not marked valid)"
        );
        assert_eq!(BootFlags::decode(&[0x80, 0x00]).unwrap().words(), "none");
    }

    #[tokio::test]
    async fn pxe_by_efi_is_kept_over_resets_and_read_back() {
        let mut steps = written([0xa0, 0x04, 0, 0, 0], ok([]));
        steps.push(reads([0x00, 0x00, 0, 0, 0]));
        steps.push(reads([0xa0, 0x04, 0, 0, 0]));
        let bmc = Script::new(steps);
        assert!(set(&bmc, Device::Pxe, true, false).await.unwrap().is_override());
        bmc.finish();
    }

    #[tokio::test]
    async fn what_reads_back_otherwise_is_told() {
        let mut steps = written([0x80, 0x08, 0, 0, 0], ok([]));
        steps.extend((0..READS).map(|_| reads([0xa0, 0x08, 0, 0, 0])));
        let bmc = Script::new(steps);
        let error = set(&bmc, Device::Disk, false, false).await.unwrap_err();
        assert!(error.to_string().contains("disk (EFI), the next start"), "{error}");
        bmc.finish();
    }

    #[tokio::test]
    async fn a_device_that_is_kept_and_not_marked_valid_is_told() {
        let mut steps = written([0xc0, 0x04, 0, 0, 0], ok([]));
        steps.extend((0..READS).map(|_| reads([0x00, 0x04, 0, 0, 0])));
        let bmc = Script::new(steps);
        let error = set(&bmc, Device::Pxe, false, true).await.unwrap_err();
        assert!(error.to_string().contains("pxe is not marked valid"), "{error}");
        bmc.finish();
    }

    #[tokio::test]
    async fn none_clears_where_flags_must_be_valid_too() {
        let mut steps = written([0; 5], refuse(0xcc));
        steps.extend(written([0x80, 0, 0, 0, 0], ok([])));
        steps.push(reads([0x80, 0, 0, 0, 0]));
        let bmc = Script::new(steps);
        assert!(!set(&bmc, Device::None, false, false).await.unwrap().is_override());
        bmc.finish();

        let mut steps = written([0; 5], ok([]));
        steps.push(reads([0xc0, 0x04, 0, 0, 0]));
        let bmc = Script::new(steps);
        assert!(set(&bmc, Device::None, false, false).await.is_err());
        bmc.finish();
    }
}
