//! What the second and third byte of an event add (IPMI table 42-3, "Event Data 2" and "Event Data 3"): which
//! memory module, which timer, which error code.

use super::record::{Datum, Event};

/// What they add, in words, or nothing.
pub fn words(event: &Event) -> Option<String> {
    let (second, third) = (byte(event.second()), byte(event.third()));
    let told = match event.event_type {
        0x6f => specific(event, second, third),
        _ => None,
    };
    told.or_else(|| match (event.second(), event.third()) {
        (Datum::Oem(second), Datum::Oem(third)) => Some(format!("OEM {second:#04x} {third:#04x}")),
        (Datum::Oem(byte), _) | (_, Datum::Oem(byte)) => Some(format!("OEM {byte:#04x}")),
        _ => None,
    })
}

/// What the sensor's type means by it. A trigger in a discrete event is a state before it.
fn byte(datum: Datum) -> Option<u8> {
    match datum {
        Datum::Specific(byte) => Some(byte),
        _ => None,
    }
}

fn specific(event: &Event, second: Option<u8>, third: Option<u8>) -> Option<String> {
    Some(match (event.sensor_type, event.offset()) {
        // Physical security, LAN leash lost: which controller.
        (0x05, 4) => format!("network controller {}", second?),
        (0x08, 6) => pick(second? & 15, &POWER_SUPPLY)?,
        // Memory: the module's number; of redundancy, its count.
        (0x0c, 8) if third.is_some() => format!("module {}", third?),
        (0x0c, _) => format!("module {}", third?),
        (0x0f, 0) => pick(second?, &POST_ERRORS)?,
        (0x0f, 1 | 2) => pick(second?, &PROGRESS)?,
        (0x10, 0) => format!("module {}", second?),
        (0x10, 1) => format!("event type {:#04x}", second?),
        (0x10, 5) => format!("{} % full", third?),
        (0x10, 6) => format!("processor {}", third?),
        (0x12, 3) => pick(second? & 15, &AUXILIARY_LOG)?,
        (0x12, 4) => actions(second?),
        (0x12, 5) => match second? {
            0 => "the first of a pair".into(),
            0x80 => "the second of a pair".into(),
            _ => return None,
        },
        (0x1d, 7) => pick(second? & 15, &RESTART)?,
        (0x21, _) => match (second, third) {
            (Some(kind), Some(number)) => format!("{} {number}", pick(kind & 0x7f, &SLOTS)?),
            (None, Some(number)) => format!("slot {number}"),
            (Some(kind), None) => pick(kind & 0x7f, &SLOTS)?,
            (None, None) => return None,
        },
        (0x23, _) => watchdog(second?)?,
        (0x28, 4 | 5) => match second? {
            number if event.offset() == 4 => format!("sensor {number}"),
            bits => format!("FRU {}", third.unwrap_or(bits & 0x7f)),
        },
        (0x2a, _) => audit(second?, third),
        (0x2b, _) => pick(second?, &VERSION)?,
        (0x2c, _) => format!("from state {}, {}", second? & 15, pick(second? >> 4, &FRU_CAUSES)?),
        _ => return None,
    })
}

fn pick(number: u8, words: &[&'static str]) -> Option<String> {
    words.get(usize::from(number)).filter(|word| !word.is_empty()).map(|word| (*word).to_owned())
}

fn watchdog(byte: u8) -> Option<String> {
    let user = match byte & 15 {
        1 => "BIOS FRB2",
        2 => "BIOS/POST",
        3 => "OS load",
        4 => "SMS/OS",
        5 => "OEM",
        _ => return None,
    };
    let interrupt = match byte >> 4 {
        1 => ", SMI",
        2 => ", NMI",
        3 => ", messaging interrupt",
        _ => "",
    };
    Some(format!("timer of {user}{interrupt}"))
}

fn actions(byte: u8) -> String {
    let names =
        ["alert", "power off", "reset", "power cycle", "OEM action", "diagnostic interrupt"];
    let done: Vec<_> = (0..).zip(names).filter(|(at, _)| byte & 1 << at != 0).collect();
    done.iter().map(|(_, name)| *name).collect::<Vec<_>>().join(", ")
}

fn audit(user: u8, cause: Option<u8>) -> String {
    let user = match user & 0x3f {
        0 => "no account".to_owned(),
        id => format!("account {id}"),
    };
    let Some(cause) = cause else { return user };
    let channel = cause & 15;
    match cause >> 4 & 3 {
        1 => format!("{user}, channel {channel}, closed by command"),
        2 => format!("{user}, channel {channel}, timed out"),
        3 => format!("{user}, channel {channel}, configuration changed"),
        _ => format!("{user}, channel {channel}"),
    }
}

const POWER_SUPPLY: [&str; 5] = [
    "vendor mismatch",
    "revision mismatch",
    "processor missing",
    "rating mismatch",
    "voltage rating mismatch",
];

const POST_ERRORS: [&str; 14] = [
    "unspecified",
    "no system memory",
    "no usable system memory",
    "unrecoverable hard disk failure",
    "unrecoverable system board failure",
    "unrecoverable diskette failure",
    "unrecoverable hard disk controller failure",
    "unrecoverable keyboard failure",
    "removable boot media not found",
    "unrecoverable video controller failure",
    "no video device",
    "firmware corruption",
    "CPU voltage mismatch",
    "CPU speed mismatch",
];

const PROGRESS: [&str; 26] = [
    "unspecified",
    "memory initialization",
    "hard disk initialization",
    "secondary processor initialization",
    "user authentication",
    "user-initiated setup",
    "USB resource configuration",
    "PCI resource configuration",
    "option ROM initialization",
    "video initialization",
    "cache initialization",
    "SM bus initialization",
    "keyboard controller initialization",
    "management controller initialization",
    "docking station attachment",
    "enabling docking station",
    "docking station ejection",
    "disabling docking station",
    "calling OS wake-up vector",
    "starting OS boot",
    "baseboard initialization",
    "",
    "floppy initialization",
    "keyboard test",
    "pointing device test",
    "primary processor initialization",
];

const AUXILIARY_LOG: [&str; 6] = [
    "entry added",
    "entry added that is no event of IPMI",
    "entry added with its event",
    "log cleared",
    "log disabled",
    "log enabled",
];

const RESTART: [&str; 12] = [
    "unknown cause",
    "chassis control",
    "reset button",
    "power button",
    "watchdog",
    "OEM",
    "powered up: always on",
    "powered up: as before",
    "reset by PEF",
    "power cycle by PEF",
    "soft reset",
    "powered up by clock",
];

const SLOTS: [&str; 13] = [
    "PCI slot",
    "drive array",
    "peripheral connector",
    "docking",
    "internal expansion slot",
    "slot",
    "AdvancedTCA slot",
    "DIMM slot",
    "fan",
    "PCI Express slot",
    "SCSI slot",
    "SATA or SAS slot",
    "USB slot",
];

const VERSION: [&str; 24] = [
    "unspecified",
    "management controller device id",
    "management controller firmware revision",
    "management controller device revision",
    "management controller manufacturer",
    "management controller IPMI version",
    "management controller auxiliary firmware",
    "management controller boot block",
    "other management controller firmware",
    "system firmware (EFI or BIOS)",
    "SMBIOS",
    "operating system",
    "OS loader",
    "service or diagnostic partition",
    "management software agent",
    "management software application",
    "management software middleware",
    "programmable hardware",
    "board or FRU",
    "board or FRU component",
    "board or FRU replaced with an equivalent version",
    "board or FRU replaced with a newer version",
    "board or FRU replaced with an older version",
    "board or FRU switches changed",
];

const FRU_CAUSES: [&str; 16] = [
    "a normal change",
    "commanded by software",
    "a latch was operated",
    "a hot-swap button was pressed",
    "by its own program",
    "communication lost",
    "communication lost through a local failure",
    "surprise extraction",
    "information was provided",
    "invalid hardware address",
    "unexpected deactivation",
    "surprise power failure",
    "",
    "",
    "",
    "unknown cause",
];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::record::Stamp;
    use super::*;

    fn event(sensor_type: u8, data: [u8; 3]) -> Event {
        Event {
            time: Stamp(0),
            generator: [0x20, 0],
            revision: 4,
            sensor_type,
            number: 1,
            deasserted: false,
            event_type: 0x6f,
            data,
        }
    }

    #[test]
    fn bytes_that_add_something() {
        let told = |kind, data| words(&event(kind, data)).unwrap_or_default();
        assert_eq!(told(0x0c, [0x30, 0xff, 5]), "module 5");
        assert_eq!(told(0x23, [0xc1, 0x24, 0xff]), "timer of SMS/OS, NMI");
        assert_eq!(told(0x1d, [0xc7, 4, 0]), "watchdog");
        assert_eq!(told(0x0f, [0xc2, 7, 0xff]), "PCI resource configuration");
        assert_eq!(told(0x2a, [0xf1, 2, 0x11]), "account 2, channel 1, closed by command");
        assert_eq!(told(0x21, [0xf0, 7, 3]), "DIMM slot 3");
        // Bus, device and function, as Dell and Intel write them: their own, and no table's.
        assert_eq!(told(0x13, [0xa5, 3, 0x0a]), "OEM 0x03 0x0a");
        assert_eq!(told(0x08, [0xa3, 1, 2]), "OEM 0x01 0x02");
        assert_eq!(told(0x12, [0xc4, 0b1001, 0]), "alert, power cycle");
        assert_eq!(told(0x10, [0x02, 0xff, 0xff]), "");
    }

    proptest! {
        #[test]
        fn any_event(sensor_type: u8, event_type: u8, data: [u8; 3]) {
            let _words_or_none = words(&Event { event_type, ..event(sensor_type, data) });
        }
    }
}
