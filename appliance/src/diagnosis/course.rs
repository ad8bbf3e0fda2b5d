//! The course of a boot, walked again by its marks: at which stage it is, since when, and what was
//! seen since; how long each step took.

use koboshi_pxe::boots::Stage;

use crate::store::{BootRecord, Mark};

/// How a boot stands.
#[derive(Debug, Clone, Copy)]
pub struct Standing<'a> {
    /// How far it is.
    pub stage: Stage,
    /// Since when, Unix milliseconds.
    pub since: u64,
    /// Its marks since then, the one that brought it there first.
    pub marks: &'a [Mark],
}

/// From one stage to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// The stage that was left.
    pub from: Stage,
    /// The stage that was reached.
    pub to: Stage,
    /// Milliseconds.
    pub took: u64,
}

/// Where a boot is by its marks.
pub fn standing(boot: &BootRecord) -> Standing<'_> {
    let (mut stage, mut since, mut first) = (Stage::Offer, boot.opened, 0);
    for (number, mark) in boot.marks.iter().enumerate() {
        let next = after(stage, mark);
        if next != stage {
            (stage, since, first) = (next, mark.at, number);
        }
    }
    Standing { stage, since, marks: boot.marks.get(first..).unwrap_or(&[]) }
}

/// The steps of a boot until it was first up; none if it never was. A step that led into trouble or
/// a wait, or out of it, says nothing of how long a step takes.
pub fn steps(boot: &BootRecord) -> Vec<Step> {
    let (mut stage, mut since) = (Stage::Offer, boot.opened);
    let mut steps = Vec::new();
    let plain = |stage| !matches!(stage, Stage::Trouble | Stage::Rescue | Stage::Waiting);
    for mark in &boot.marks {
        let next = after(stage, mark);
        if next == stage {
            continue;
        }
        if plain(stage) && plain(next) && next > stage {
            steps.push(Step { from: stage, to: next, took: mark.at.saturating_sub(since) });
        }
        (stage, since) = (next, mark.at);
        if stage == Stage::Up {
            return steps;
        }
    }
    Vec::new()
}

/// As the ledger moves a boot: what is seen on the wire never moves it back, what the machine says
/// of itself is so.
fn after(stage: Stage, mark: &Mark) -> Stage {
    match mark.stage {
        _ if !mark.is_sign() => stage,
        Stage::Script if stage == Stage::Waiting => Stage::Script,
        told if told >= Stage::Init => told,
        seen => stage.max(seen),
    }
}

#[cfg(test)]
pub mod tests {
    use std::net::Ipv4Addr;

    use koboshi_pxe::{BootId, Mac};

    use super::*;

    /// A boot of m01 that began at second 1000, with these marks: seconds after that, stage, note.
    pub fn boot(marks: &[(u64, Stage, &str)]) -> BootRecord {
        let mark = |(at, stage, note): &(u64, Stage, &str)| Mark {
            at: (1000 + at) * 1000,
            stage: *stage,
            note: note.to_string(),
            late: None,
            power: None,
            console: None,
        };
        BootRecord {
            id: BootId([1; 16]),
            mac: Mac([2, 0, 0, 0, 0, 1]),
            machine: "m01".into(),
            address: Ipv4Addr::new(10, 77, 0, 11),
            fixed: true,
            lent: None,
            via: None,
            opened: 1_000_000,
            order: 0,
            stage: marks.last().map_or(Stage::Offer, |(_, stage, _)| *stage),
            plan: None,
            marks: marks.iter().map(mark).collect(),
            over: false,
            fenced: false,
            after: None,
        }
    }

    /// A boot as OVMF does it, times in seconds.
    pub fn whole() -> BootRecord {
        boot(&[
            (0, Stage::Offer, "10.77.0.11 to PXE firmware (UEFI x86-64)"),
            (4, Stage::Ack, "10.77.0.11 to PXE firmware, then ipxe.efi"),
            (5, Stage::Ack, "asked the size of ipxe.efi: 1023 KiB"),
            (7, Stage::Loader, "ipxe.efi, 1023 KiB in 1.2 s"),
            (12, Stage::Ack, "10.77.0.11 to iPXE, then http://10.77.0.1:8080/boot/x.ipxe"),
            (13, Stage::Script, "to 10.77.0.11"),
            (13, Stage::Kernel, ""),
            (15, Stage::Initramfs, ""),
            (35, Stage::Init, "Linux 6.1, 1024 MiB, eth0"),
            (36, Stage::Root, ""),
            (42, Stage::RootReady, "66.0 MB in 6.0 s, 11.0 MB/s"),
            (43, Stage::Switching, ""),
            (55, Stage::Up, "systemd running"),
            (5000, Stage::Trouble, "long after"),
        ])
    }

    #[test]
    fn a_boots_steps_and_where_it_stands() {
        let steps = steps(&whole());
        let took: Vec<_> = steps.iter().map(|s| (s.from.as_str(), s.took / 1000)).collect();
        assert_eq!(
            took,
            [
                ("offer", 4),
                ("ack", 3),
                ("loader", 6),
                ("script", 0),
                ("kernel", 2),
                ("initramfs", 20),
                ("init", 1),
                ("root", 6),
                ("root-ready", 1),
                ("switching", 12)
            ]
        );
        let mut boot = whole();
        boot.marks.truncate(5);
        let standing = standing(&boot);
        assert_eq!((standing.stage, standing.since), (Stage::Loader, 1_007_000));
        assert_eq!(standing.marks.len(), 2);
        assert!(super::steps(&boot).is_empty(), "it never was up");
    }

    #[test]
    fn trouble_and_waits_are_no_measure() {
        let boot = boot(&[
            (0, Stage::Script, ""),
            (0, Stage::Waiting, "212 machines boot at once"),
            (60, Stage::Script, "after 60 s in the queue"),
            (61, Stage::Kernel, ""),
            (90, Stage::Init, ""),
            (91, Stage::Root, ""),
            (95, Stage::Trouble, "try 1: cut"),
            (100, Stage::Root, "try 2"),
            (104, Stage::RootReady, ""),
            (105, Stage::Up, ""),
        ]);
        let took: Vec<_> = steps(&boot).iter().map(|s| (s.from.as_str(), s.took / 1000)).collect();
        assert_eq!(
            took,
            [
                ("offer", 0),
                ("script", 1),
                ("kernel", 29),
                ("init", 1),
                ("root", 4),
                ("root-ready", 1)
            ]
        );
    }
}
