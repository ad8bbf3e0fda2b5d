//! Slots and sockets, as the board tells of them: the table of SMBIOS that the kernel shows in
//! `/sys/firmware/dmi/tables/DMI`.
//!
//! DMTF DSP0134: a structure is its type, the length of its formatted part, a handle, that part, and its strings,
//! each ended by a NUL and all of them by another one. A string is meant by its number, from 1; 0 is none.
//! Firmware writers count wrongly, end too early, and put anything into strings: what does not fit is not there.

use crate::contract::survey::{Module, Part, Processor, Survey};

/// Slots, and sockets, of one machine: what is over that is counted. The largest boards have 96 slots.
const SLOTS_MAX: usize = 512;

const BOARD: u8 = 2;
const CHASSIS: u8 = 3;
const PROCESSOR: u8 = 4;
const MEMORY: u8 = 17;
const END: u8 = 127;

/// Of a chassis (§7.4.1), from 1.
const CHASSIS_KINDS: [&str; 36] = [
    "Other",
    "Unknown",
    "Desktop",
    "Low Profile Desktop",
    "Pizza Box",
    "Mini Tower",
    "Tower",
    "Portable",
    "Laptop",
    "Notebook",
    "Hand Held",
    "Docking Station",
    "All in One",
    "Sub Notebook",
    "Space-saving",
    "Lunch Box",
    "Main Server Chassis",
    "Expansion Chassis",
    "SubChassis",
    "Bus Expansion Chassis",
    "Peripheral Chassis",
    "RAID Chassis",
    "Rack Mount Chassis",
    "Sealed-case PC",
    "Multi-system chassis",
    "Compact PCI",
    "Advanced TCA",
    "Blade",
    "Blade Enclosure",
    "Tablet",
    "Convertible",
    "Detachable",
    "IoT Gateway",
    "Embedded PC",
    "Mini PC",
    "Stick PC",
];

/// What of memory devices (§7.18.2) is found in servers; another one is told by its number.
const MEMORY_KINDS: [(u8, &str); 12] = [
    (0x03, "DRAM"),
    (0x07, "RAM"),
    (0x0f, "SDRAM"),
    (0x12, "DDR"),
    (0x13, "DDR2"),
    (0x18, "DDR3"),
    (0x1a, "DDR4"),
    (0x1e, "LPDDR4"),
    (0x1f, "non-volatile"),
    (0x20, "HBM"),
    (0x22, "DDR5"),
    (0x23, "LPDDR5"),
];

/// All of a table that is of use here. `plain` makes a firmware writer's text fit to be shown.
pub fn parse(table: &[u8], plain: fn(&str) -> String) -> Survey {
    let mut survey = Survey::default();
    let (mut board, mut chassis) = (None, None);
    for one in structures(table, plain) {
        match one.kind() {
            // The first is the machine's; risers and backplanes follow.
            BOARD if board.is_none() => board = Some(one.board()),
            CHASSIS if chassis.is_none() => chassis = Some(one.chassis()),
            PROCESSOR => {
                let Some(processor) = one.processor() else { continue };
                match survey.processors.len() < SLOTS_MAX {
                    true => survey.processors.push(processor),
                    false => survey.left_out += 1,
                }
            }
            MEMORY if survey.memory.len() < SLOTS_MAX => survey.memory.push(one.module()),
            MEMORY => survey.left_out += 1,
            _ => {}
        }
    }
    survey.board = board.unwrap_or_default();
    survey.chassis = chassis.unwrap_or_default();
    survey
}

/// A structure, and the strings behind it.
struct Structure<'a> {
    formatted: &'a [u8],
    strings: &'a [u8],
    plain: fn(&str) -> String,
}

/// One after the other, until the table ends or says so.
fn structures(table: &[u8], plain: fn(&str) -> String) -> impl Iterator<Item = Structure<'_>> {
    let mut rest = table;
    std::iter::from_fn(move || {
        let [kind, length, _, _, ..] = *rest else { return None };
        // Without its own header it would be followed by itself.
        let (formatted, behind) = rest.split_at_checked(usize::from(length.max(4)))?;
        if kind == END {
            return None;
        }
        let end = behind.windows(2).position(|two| two == [0, 0]);
        let (strings, next) = behind.split_at(end.unwrap_or(behind.len()));
        rest = next.get(2..).unwrap_or_default();
        Some(Structure { formatted, strings, plain })
    })
}

impl Structure<'_> {
    fn kind(&self) -> u8 {
        self.byte(0).unwrap_or(END)
    }

    /// None beyond its end: a structure of an older SMBIOS is shorter.
    fn byte(&self, at: usize) -> Option<u8> {
        self.formatted.get(at).copied()
    }

    fn word(&self, at: usize) -> Option<u16> {
        self.formatted.get(at..)?.first_chunk().copied().map(u16::from_le_bytes)
    }

    fn double(&self, at: usize) -> Option<u32> {
        self.formatted.get(at..)?.first_chunk().copied().map(u32::from_le_bytes)
    }

    /// The string whose number stands there.
    fn text(&self, at: usize) -> String {
        let number = usize::from(self.byte(at).unwrap_or(0));
        let Some(place) = number.checked_sub(1) else { return String::new() };
        let string = self.strings.split(|byte| *byte == 0).nth(place).unwrap_or_default();
        (self.plain)(&String::from_utf8_lossy(string))
    }

    fn board(&self) -> Part {
        Part { product: self.text(0x05), ..self.part() }
    }

    fn chassis(&self) -> Part {
        // Bit 7: it can be locked.
        let kind = usize::from(self.byte(0x05).unwrap_or(0) & 0x7f);
        let kind = kind.checked_sub(1).and_then(|place| CHASSIS_KINDS.get(place));
        Part { product: kind.copied().unwrap_or_default().to_owned(), ..self.part() }
    }

    /// What a board (§7.3) and a chassis (§7.4) have at the same places.
    fn part(&self) -> Part {
        Part {
            vendor: self.text(0x04),
            product: String::new(),
            version: self.text(0x06),
            serial: self.text(0x07),
            asset: self.text(0x08),
        }
    }

    /// §7.5. Nothing for a coprocessor: what computes is meant.
    fn processor(&self) -> Option<Processor> {
        const CENTRAL: u8 = 3;
        if self.byte(0x05) != Some(CENTRAL) {
            return None;
        }
        let socket = self.text(0x04);
        if self.byte(0x18).is_some_and(|status| status & 0x40 == 0) {
            return Some(Processor { socket, empty: true, ..Processor::default() });
        }
        // 255 and more stand in words of their own, since SMBIOS 3.0.
        let count = |byte: usize, word: usize| match self.byte(byte) {
            Some(0xff) => self.word(word).map_or(0xff, u32::from),
            byte => u32::from(byte.unwrap_or(0)),
        };
        Some(Processor {
            socket,
            empty: false,
            vendor: self.text(0x07),
            model: self.text(0x10),
            cores: count(0x23, 0x2a),
            threads: count(0x25, 0x2e),
            mhz: self.word(0x16).map_or(0, u32::from),
        })
    }

    /// §7.18.
    fn module(&self) -> Module {
        let (slot, bank) = (self.text(0x10), self.text(0x11));
        let size = self.word(0x0c).unwrap_or(0);
        let mib = match size {
            0 | 0xffff => 0,
            // 32 GiB and more do not fit into the word.
            0x7fff => u64::from(self.double(0x1c).unwrap_or(0) & 0x7fff_ffff),
            kib if kib & 0x8000 != 0 => u64::from(kib & 0x7fff) / 1024,
            mib => u64::from(mib),
        };
        // Of an empty slot makers tell `NO DIMM`, `Not Specified` and the module that was there last.
        if size == 0 {
            return Module { slot, bank, ..Module::default() };
        }
        let speed = |at: usize, more: usize| match self.word(at) {
            Some(0xffff) => self.double(more).map_or(0, |speed| speed & 0x7fff_ffff),
            word => word.map_or(0, u32::from),
        };
        let speed = match speed(0x20, 0x58) {
            0 => speed(0x15, 0x54),
            configured => configured,
        };
        let kind = self.byte(0x12).unwrap_or(0);
        let known = MEMORY_KINDS.iter().find(|(number, _)| *number == kind);
        Module {
            slot,
            bank,
            mib,
            unknown: size == 0xffff,
            kind: known.map_or_else(|| format!("type {kind:#04x}"), |(_, name)| (*name).to_owned()),
            speed,
            vendor: self.text(0x17),
            part: self.text(0x1a),
            serial: self.text(0x18),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn plain(text: &str) -> String {
        text.trim().to_owned()
    }

    /// A structure with a formatted part of so many bytes, in which some are set.
    fn structure(kind: u8, length: u8, set: &[(usize, &[u8])], strings: &[&str]) -> Vec<u8> {
        let mut bytes = vec![0; usize::from(length)];
        (bytes[0], bytes[1]) = (kind, length);
        for (at, value) in set {
            bytes[*at..*at + value.len()].copy_from_slice(value);
        }
        strings.iter().for_each(|string| bytes.extend([string.as_bytes(), &[0]].concat()));
        bytes.extend(if strings.is_empty() { &[0, 0][..] } else { &[0] });
        bytes
    }

    fn server() -> Vec<u8> {
        let name = |at: usize, number: &'static [u8]| (at, number);
        [
            structure(0, 0x18, &[name(4, &[1])], &["American Megatrends"]),
            structure(
                2,
                0x0f,
                &[name(4, &[1, 2, 3, 4, 0])],
                &["Supermicro", "X11DPU", "1.10", "UM19"],
            ),
            structure(2, 0x0f, &[name(4, &[1, 2])], &["Supermicro", "a riser"]),
            structure(3, 0x16, &[name(4, &[1, 0x97, 0, 2])], &["Supermicro", "C8150"]),
            structure(
                4,
                0x30,
                &[
                    name(4, &[1, 3]),
                    name(7, &[2]),
                    name(0x10, &[3]),
                    name(0x16, &[0x34, 0x08]),
                    name(0x18, &[0x41]),
                    name(0x23, &[0xff, 0xff, 0xff]),
                    name(0x2a, &[0x00, 0x01, 0x00, 0x01, 0x00, 0x02]),
                ],
                &["CPU1", "AMD", "AMD EPYC 9999 256-Core"],
            ),
            structure(4, 0x23, &[name(4, &[1, 3]), name(0x18, &[0])], &["CPU2"]),
            structure(4, 0x23, &[name(4, &[1, 4])], &["a coprocessor"]),
            structure(
                17,
                0x54,
                &[
                    name(0x0c, &[0xff, 0x7f]),
                    name(0x10, &[1, 2, 0x1a]),
                    name(0x15, &[0x80, 0x0c]),
                    name(0x17, &[3, 4, 0, 5]),
                    name(0x1c, &[0, 0, 1, 0]),
                    name(0x20, &[0x75, 0x0b]),
                ],
                &["P1-DIMMA1", "P0_Node0", "Samsung", "03A5", "M393A8G40AB2-CWE   "],
            ),
            structure(
                17,
                0x28,
                &[name(0x10, &[1, 2]), name(0x17, &[3])],
                &["P1-DIMMA2", "P0_Node0", "NO DIMM"],
            ),
            structure(127, 4, &[], &[]),
            structure(17, 0x28, &[], &[]),
        ]
        .concat()
    }

    #[test]
    fn a_servers_slots_and_sockets() {
        let survey = parse(&server(), plain);
        assert_eq!(
            (&*survey.board.product, &*survey.board.version, &*survey.board.serial),
            ("X11DPU", "1.10", "UM19")
        );
        assert_eq!(
            (&*survey.chassis.product, &*survey.chassis.serial),
            ("Rack Mount Chassis", "C8150")
        );
        let [first, second] = &survey.processors[..] else { panic!("{survey:?}") };
        assert_eq!((&*first.socket, first.cores, first.threads), ("CPU1", 256, 512));
        assert_eq!((first.mhz, &*first.model), (2100, "AMD EPYC 9999 256-Core"));
        assert_eq!((&*second.socket, second.empty), ("CPU2", true));
        let [full, empty] = &survey.memory[..] else { panic!("{survey:?}") };
        assert_eq!((full.mib, &*full.kind, full.speed), (65_536, "DDR4", 2933));
        assert_eq!(
            (&*full.vendor, &*full.part, &*full.serial),
            ("Samsung", "M393A8G40AB2-CWE", "03A5")
        );
        assert_eq!(
            (&*empty.slot, empty.mib, empty.unknown, &*empty.vendor),
            ("P1-DIMMA2", 0, false, "")
        );
    }

    #[test]
    fn sizes_and_speeds_in_every_way() {
        let of = |set: &[(usize, &[u8])], length| {
            let table = structure(17, length, set, &[]);
            parse(&table, plain).memory.remove(0)
        };
        assert_eq!(of(&[(0x0c, &[0x00, 0x20])], 0x15).mib, 8192);
        assert_eq!(of(&[(0x0c, &[0x00, 0x88])], 0x15).mib, 2, "in kibibytes");
        let unknown = of(&[(0x0c, &[0xff, 0xff]), (0x12, &[0x77])], 0x15);
        assert_eq!((unknown.mib, unknown.unknown, &*unknown.kind), (0, true, "type 0x77"));
        let fast = of(&[(0x0c, &[1, 0]), (0x15, &[0xff, 0xff]), (0x54, &[0, 0, 1, 0])], 0x5c);
        assert_eq!(fast.speed, 65_536);
        assert_eq!(of(&[], 4), Module::default());
    }

    #[test]
    fn too_many_are_counted() {
        let table = structure(17, 4, &[], &[]).repeat(SLOTS_MAX + 7);
        let survey = parse(&table, plain);
        assert_eq!((survey.memory.len(), survey.left_out), (SLOTS_MAX, 7));
    }

    proptest! {
        #[test]
        fn any_bytes(bytes: Vec<u8>) {
            parse(&bytes, plain);
        }

        /// What is cut off is not there, and what is before it is as it was.
        #[test]
        fn cut_and_changed_anywhere(cut in 0usize..1000, at in 0usize..1000, byte: u8) {
            let whole = server();
            let survey = parse(&whole[..cut.min(whole.len())], plain);
            let all = parse(&whole, plain);
            prop_assert!(survey.memory.len() <= all.memory.len());
            if survey.memory.len() == all.memory.len() {
                prop_assert_eq!(&survey.processors, &all.processors);
            }
            let mut other = whole;
            let at = at % other.len();
            other[at] = byte;
            parse(&other, plain);
        }
    }
}
