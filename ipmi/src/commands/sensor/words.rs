//! The words of IPMI tables 42-1 to 42-3: sensor types, and what each offset of a discrete sensor says, with
//! how much it matters. Data, and look-ups in it.
//!
//! The tables do not say what is bad; that column follows what FreeIPMI's interpretation and the wording of
//! the tables agree on: presence, modes and progress are information.

use serde::Serialize;

/// How much a state matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// As it should be, or only information.
    Ok,
    /// Should be looked at.
    NonCritical,
    /// Must be looked at.
    Critical,
    /// Beyond repair by itself.
    NonRecoverable,
}

/// An offset's words.
pub type Offset = (&'static str, Severity);

const fn i(words: &'static str) -> Offset {
    (words, Severity::Ok)
}
const fn w(words: &'static str) -> Offset {
    (words, Severity::NonCritical)
}
const fn c(words: &'static str) -> Offset {
    (words, Severity::Critical)
}
const fn x(words: &'static str) -> Offset {
    (words, Severity::NonRecoverable)
}

/// A sensor type in words (table 42-3).
pub fn sensor_type(number: u8) -> &'static str {
    match number {
        0xc0.. => "OEM",
        number => TYPES.get(usize::from(number)).map_or("reserved", |(name, _)| name),
    }
}

/// What an offset says. `event_type`: 0x02–0x0C generic, 0x6F by sensor type; 0x01 are thresholds, whose
/// words are those of an event.
pub fn offset(event_type: u8, sensor_type: u8, offset: u8) -> Option<Offset> {
    let offsets = match event_type {
        0x01..=0x0c => GENERIC.get(usize::from(event_type) - 1)?,
        0x6f => TYPES.get(usize::from(sensor_type)).map(|(_, offsets)| offsets)?,
        _ => return None,
    };
    let found = offsets.get(usize::from(offset)).copied()?;
    (!found.0.is_empty()).then_some(found)
}

/// Table 42-2, from event/reading type 0x01 on.
const GENERIC: [&[Offset]; 12] = [
    &[
        w("lower non-critical, going low"),
        w("lower non-critical, going high"),
        c("lower critical, going low"),
        c("lower critical, going high"),
        x("lower non-recoverable, going low"),
        x("lower non-recoverable, going high"),
        w("upper non-critical, going low"),
        w("upper non-critical, going high"),
        c("upper critical, going low"),
        c("upper critical, going high"),
        x("upper non-recoverable, going low"),
        x("upper non-recoverable, going high"),
    ],
    &[i("idle"), i("active"), i("busy")],
    &[i("state deasserted"), i("state asserted")],
    &[i("no failure predicted"), w("failure predicted")],
    &[i("limit not exceeded"), w("limit exceeded")],
    &[i("performance met"), w("performance lags")],
    &[
        i("OK"),
        w("non-critical, from OK"),
        c("critical, from less severe"),
        x("non-recoverable, from less severe"),
        w("non-critical, from more severe"),
        c("critical, from non-recoverable"),
        x("non-recoverable"),
        i("monitor"),
        i("informational"),
    ],
    &[i("absent"), i("present")],
    &[i("disabled"), i("enabled")],
    &[
        i("running"),
        i("in test"),
        i("power off"),
        i("on line"),
        i("off line"),
        i("off duty"),
        w("degraded"),
        i("power save"),
        c("install error"),
    ],
    &[
        i("fully redundant"),
        c("redundancy lost"),
        w("redundancy degraded"),
        w("not redundant, sufficient resources, from redundant"),
        w("not redundant, sufficient resources, from insufficient"),
        c("not redundant, insufficient resources"),
        w("redundancy degraded, from fully redundant"),
        w("redundancy degraded, from not redundant"),
    ],
    &[i("D0"), i("D1"), i("D2"), i("D3")],
];

const NONE: &[Offset] = &[];

/// Table 42-3 by sensor type; an offset without words is reserved.
const TYPES: [(&str, &[Offset]); 0x2d] = [
    ("reserved", NONE),
    ("temperature", NONE),
    ("voltage", NONE),
    ("current", NONE),
    ("fan", NONE),
    (
        "physical security",
        &[
            c("chassis intrusion"),
            w("drive bay intrusion"),
            w("I/O card area intrusion"),
            w("processor area intrusion"),
            w("LAN leash lost"),
            w("unauthorized dock"),
            w("fan area intrusion"),
        ],
    ),
    (
        "platform security",
        &[
            w("front panel lockout violation attempted"),
            w("pre-boot password violation (user)"),
            w("pre-boot password violation (setup)"),
            w("pre-boot password violation (network boot)"),
            w("other pre-boot password violation"),
            w("out-of-band access password violation"),
        ],
    ),
    (
        "processor",
        &[
            c("IERR"),
            c("thermal trip"),
            c("FRB1/BIST failure"),
            c("FRB2/hang in POST failure"),
            c("FRB3/processor startup failure"),
            c("configuration error"),
            c("SM BIOS uncorrectable CPU-complex error"),
            i("present"),
            w("disabled"),
            i("terminator present"),
            w("throttled"),
            c("uncorrectable machine check"),
            w("correctable machine check"),
        ],
    ),
    (
        "power supply",
        &[
            i("present"),
            c("failure detected"),
            w("failure predicted"),
            c("input lost (AC/DC)"),
            c("input lost or out of range"),
            c("input out of range, but present"),
            c("configuration error"),
            i("standby"),
        ],
    ),
    (
        "power unit",
        &[
            i("off"),
            i("power cycle"),
            i("240 VA power down"),
            i("interlock power down"),
            c("AC lost"),
            c("soft power control failure"),
            c("failure detected"),
            w("failure predicted"),
        ],
    ),
    ("cooling device", NONE),
    ("other units-based", NONE),
    (
        "memory",
        &[
            w("correctable ECC"),
            c("uncorrectable ECC"),
            c("parity"),
            c("scrub failed"),
            w("device disabled"),
            w("correctable ECC logging limit reached"),
            i("present"),
            c("configuration error"),
            i("spare"),
            w("throttled"),
            c("critical overtemperature"),
        ],
    ),
    (
        "drive slot",
        &[
            i("present"),
            c("fault"),
            w("failure predicted"),
            i("hot spare"),
            i("consistency check in progress"),
            w("in critical array"),
            c("in failed array"),
            i("rebuild in progress"),
            w("rebuild aborted"),
        ],
    ),
    ("POST memory resize", NONE),
    (
        "system firmware progress",
        &[c("firmware error (POST error)"), c("firmware hang"), i("firmware progress")],
    ),
    (
        "event logging",
        &[
            i("correctable memory error logging disabled"),
            i("event logging of a type disabled"),
            i("log area cleared"),
            w("all event logging disabled"),
            w("log full"),
            w("log almost full"),
            w("correctable machine check logging disabled"),
        ],
    ),
    (
        "watchdog 1",
        &[
            c("BIOS reset"),
            c("OS reset"),
            c("OS shut down"),
            c("OS power down"),
            c("OS power cycle"),
            c("OS NMI or diagnostic interrupt"),
            w("OS expired, status only"),
            w("OS pre-timeout interrupt"),
        ],
    ),
    (
        "system event",
        &[
            i("system reconfigured"),
            i("OEM system boot event"),
            c("undetermined system hardware failure"),
            i("entry added to auxiliary log"),
            i("PEF action"),
            i("timestamp clock synch"),
        ],
    ),
    (
        "critical interrupt",
        &[
            i("front panel NMI or diagnostic interrupt"),
            c("bus timeout"),
            c("I/O channel check NMI"),
            c("software NMI"),
            c("PCI PERR"),
            c("PCI SERR"),
            c("EISA fail safe timeout"),
            w("bus correctable error"),
            c("bus uncorrectable error"),
            c("fatal NMI"),
            c("bus fatal error"),
            w("bus degraded"),
        ],
    ),
    (
        "button",
        &[
            i("power button pressed"),
            i("sleep button pressed"),
            i("reset button pressed"),
            i("FRU latch open"),
            i("FRU service request button"),
        ],
    ),
    ("module or board", NONE),
    ("microcontroller", NONE),
    ("add-in card", NONE),
    ("chassis", NONE),
    ("chip set", &[c("soft power control failure"), c("thermal trip")]),
    ("other FRU", NONE),
    ("cable", &[i("connected"), c("configuration error, incorrect cable")]),
    ("terminator", NONE),
    (
        "system boot initiated",
        &[
            i("by power up"),
            i("by hard reset"),
            i("by warm reset"),
            i("by user-requested network boot"),
            i("automatic boot to diagnostic"),
            i("by OS: hard reset"),
            i("by OS: warm reset"),
            i("system restart"),
        ],
    ),
    (
        "boot error",
        &[
            c("no bootable media"),
            w("non-bootable diskette left in drive"),
            c("network server not found"),
            c("invalid boot sector"),
            w("timeout waiting for selection of boot source"),
        ],
    ),
    (
        "OS boot",
        &[
            i("A: boot completed"),
            i("C: boot completed"),
            i("network boot completed"),
            i("diagnostic boot completed"),
            i("CD-ROM boot completed"),
            i("ROM boot completed"),
            i("boot completed"),
            i("OS installation started"),
            i("OS installation completed"),
            w("OS installation aborted"),
            c("OS installation failed"),
        ],
    ),
    (
        "OS stop",
        &[
            c("critical stop during OS load"),
            c("run-time critical stop"),
            i("graceful stop"),
            i("graceful shutdown"),
            i("soft shutdown by PEF"),
            w("agent not responding"),
        ],
    ),
    (
        "slot or connector",
        &[
            c("fault"),
            i("identify"),
            i("device installed"),
            i("ready for device installation"),
            i("ready for device removal"),
            i("power off"),
            i("device removal requested"),
            i("interlock asserted"),
            w("disabled"),
            i("holds spare device"),
        ],
    ),
    (
        "ACPI power state",
        &[
            i("S0/G0"),
            i("S1"),
            i("S2"),
            i("S3"),
            i("S4"),
            i("S5/G2"),
            i("S4/S5 soft-off"),
            i("G3 mechanical off"),
            i("sleeping in S1, S2 or S3"),
            i("G1 sleeping"),
            i("S5 entered by override"),
            i("legacy on"),
            i("legacy off"),
            i(""),
            i("unknown"),
        ],
    ),
    (
        "watchdog 2",
        &[
            w("timer expired"),
            c("hard reset"),
            c("power down"),
            c("power cycle"),
            i(""),
            i(""),
            i(""),
            i(""),
            w("timer interrupt"),
        ],
    ),
    (
        "platform alert",
        &[
            i("page generated"),
            i("LAN alert generated"),
            i("event trap generated"),
            i("OEM trap generated"),
        ],
    ),
    ("entity presence", &[i("present"), i("absent"), w("disabled")]),
    ("monitor ASIC", NONE),
    ("LAN", &[w("heartbeat lost"), i("heartbeat")]),
    (
        "management subsystem",
        &[
            w("sensor access degraded or unavailable"),
            w("controller access degraded or unavailable"),
            c("controller off-line"),
            c("controller unavailable"),
            c("sensor failure"),
            c("FRU failure"),
        ],
    ),
    ("battery", &[w("low"), c("failed"), i("present")]),
    (
        "session audit",
        &[
            i("session activated"),
            i("session deactivated"),
            w("invalid user name or password"),
            w("invalid password disable"),
        ],
    ),
    (
        "version change",
        &[
            i("hardware change detected"),
            i("firmware or software change detected"),
            w("hardware incompatibility"),
            w("firmware or software incompatibility"),
            w("hardware of invalid or unsupported version"),
            w("firmware or software of invalid or unsupported version"),
            i("hardware change successful"),
            i("firmware or software change successful"),
        ],
    ),
    (
        "FRU state",
        &[
            i("not installed"),
            i("inactive"),
            i("activation requested"),
            i("activation in progress"),
            i("active"),
            i("deactivation requested"),
            i("deactivation in progress"),
            w("communication lost"),
        ],
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_the_tables() {
        let words = |event, kind, at| offset(event, kind, at).map(|(words, _)| words);
        assert_eq!(sensor_type(0x0d), "drive slot");
        assert_eq!(sensor_type(0x12), "system event");
        assert_eq!(sensor_type(0x1d), "system boot initiated");
        assert_eq!(sensor_type(0x22), "ACPI power state");
        assert_eq!(sensor_type(0x2c), "FRU state");
        assert_eq!(sensor_type(0x2d), "reserved");
        assert_eq!(sensor_type(0xc7), "OEM");
        assert_eq!(words(0x6f, 0x08, 3), Some("input lost (AC/DC)"));
        assert_eq!(words(0x6f, 0x23, 8), Some("timer interrupt"));
        assert_eq!(words(0x6f, 0x23, 4), None);
        assert_eq!(words(0x6f, 0x22, 14), Some("unknown"));
        assert_eq!(words(0x6f, 0x0c, 10), Some("critical overtemperature"));
        assert_eq!(words(0x6f, 0x13, 11), Some("bus degraded"));
        assert_eq!(words(0x6f, 0x29, 2), Some("present"));
        assert_eq!(words(0x01, 0x01, 9), Some("upper critical, going high"));
        assert_eq!(words(0x07, 0x08, 8), Some("informational"));
        assert_eq!(words(0x0a, 0, 8), Some("install error"));
        assert_eq!(words(0x0b, 0, 7), Some("redundancy degraded, from not redundant"));
        assert_eq!(words(0x0c, 0, 3), Some("D3"));
        assert_eq!(words(0x0d, 0, 0), None);
        assert_eq!(words(0x70, 1, 0), None);
    }

    #[test]
    fn every_number_has_an_answer() {
        for number in 0..=255 {
            assert!(!sensor_type(number).is_empty());
            for at in 0..=15 {
                for event in 0..=255 {
                    let _words_or_none = offset(event, number, at);
                }
            }
        }
    }
}
