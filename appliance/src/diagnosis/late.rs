//! Boots past their deadline, each once for each stage. Pure: the newest boots, what was learned and
//! a clock in; findings out.

use koboshi_pxe::BootId;
use koboshi_pxe::boots::Stage;

pub use super::causes::Cause;
use super::causes::cause;
use super::course::standing;
use super::learned::{Learned, Typical};
use crate::site::hostlist::fold;
use crate::store::BootRecord;

/// Up to so many findings of one kind are told one by one; more are told as one.
const ONE_BY_ONE: usize = 3;

/// A boot that is late.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Which.
    pub id: BootId,
    /// Whose.
    pub machine: String,
    /// Where it hangs.
    pub stage: Stage,
    /// What was seen, what usually causes it, what to do.
    pub cause: Cause,
}

/// What the clock is compared with.
pub struct Now<'a> {
    /// Unix milliseconds.
    pub now: u64,
    /// Since when this process listens: nobody could be heard before.
    pub listening: u64,
    /// How long things take.
    pub learned: &'a Learned,
    /// The same where nothing of the machine is known.
    pub typical: &'a Typical,
}

/// The boots that are late and not yet said to be.
pub fn late<'a>(
    now: &Now<'_>,
    boots: impl Iterator<Item = (&'a BootRecord, u64)> + Clone,
    class_of: impl Fn(&str) -> Option<String>,
) -> Vec<Finding> {
    // One that somebody here switched off is missed by nobody.
    let live = boots.filter(|(boot, heard)| !boot.over && !boot.is_off(*heard));
    let share = live.clone().filter(|(boot, _)| boot.stage == Stage::Root).count() as u64;
    let mut found = Vec::new();
    for (boot, heard) in live {
        // One that has nothing to boot waits, and that is in order.
        if boot.plan.is_none() && boot.stage < Stage::Init {
            continue;
        }
        // What has no way to say anything is not missed either.
        if boot.stage >= Stage::Kernel && boot.plan.as_ref().is_some_and(|plan| plan.is_bare()) {
            continue;
        }
        let standing = standing(boot);
        // A machine that is up, or in trouble, is late when it is silent; one on its way when it
        // does not get further, whatever it says.
        let since = match standing.stage {
            Stage::Up | Stage::Trouble => standing.since.max(heard),
            _ => standing.since,
        };
        let waited = now.now.saturating_sub(since.max(now.listening));
        let class = class_of(&boot.machine);
        let who = (boot.machine.as_str(), class.as_deref());
        let root = boot.plan.as_ref().map_or(0, |plan| plan.root_size());
        let deadline = now.learned.deadline(now.typical, who, standing.stage, root, share);
        let said = standing.marks.iter().any(|mark| mark.late.is_some() && mark.at >= since);
        if said || deadline.is_none_or(|deadline| waited <= deadline) {
            continue;
        }
        let pace = now.learned.pace(&boot.machine);
        let silent = now.now.saturating_sub(since);
        let cause = cause(boot, standing, silent, pace);
        let machine = boot.machine.clone();
        found.push(Finding { id: boot.id, machine, stage: standing.stage, cause });
    }
    found.sort_by(|a, b| (a.stage, &a.machine).cmp(&(b.stage, &b.machine)));
    found
}

/// The same as lines for the event log: who, and what. Many that hang at one place for one reason are
/// one line, or a site-wide trouble would bury itself.
pub fn told(findings: &[Finding]) -> Vec<(Option<String>, String)> {
    let mut lines = Vec::new();
    let mut kinds: Vec<(&Finding, Vec<&str>)> = Vec::new();
    for finding in findings {
        let usual = &finding.cause.late.usual;
        let same = |(first, _): &&mut (&Finding, Vec<&str>)| {
            first.stage == finding.stage && first.cause.late.usual == *usual
        };
        match kinds.iter_mut().find(same) {
            Some((_, machines)) => machines.push(&finding.machine),
            None => kinds.push((finding, vec![&finding.machine])),
        }
    }
    for (first, machines) in kinds {
        let Cause { late, .. } = &first.cause;
        if machines.len() > ONE_BY_ONE {
            let at = match first.stage {
                Stage::Up => "are silent".to_string(),
                stage => format!("hang at {}", stage.as_str()),
            };
            let many = format!(
                "{} machines {at}: {}. The first {}. Usually: {}. Next: {}",
                machines.len(),
                fold(&machines),
                first.cause.seen,
                late.usual,
                late.next
            );
            lines.push((None, many));
            continue;
        }
        for finding in findings.iter().filter(|finding| machines.contains(&&*finding.machine)) {
            let Cause { seen, late } = &finding.cause;
            if finding.stage != first.stage || late.usual != first.cause.late.usual {
                continue;
            }
            let text = format!("{seen}. Usually: {}. Next: {}", late.usual, late.next);
            lines.push((Some(finding.machine.clone()), text));
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use koboshi_pxe::Mac;

    use super::super::course::tests::boot;
    use super::super::learned::Lesson;
    use super::*;
    use crate::store::{Late, Mark};

    const OFFER: (u64, Stage, &str) = (0, Stage::Offer, "10.77.0.11 to PXE firmware (UEFI x86-64)");
    const ACK: (u64, Stage, &str) = (4, Stage::Ack, "10.77.0.11 to PXE firmware, then ipxe.efi");

    fn planned(marks: &[(u64, Stage, &str)]) -> BootRecord {
        let part = |name: &str| koboshi_pxe::boots::Part {
            name: name.into(),
            sha256: [0; 32],
            size: 66_000_000,
        };
        let plan = koboshi_pxe::boots::Plan {
            machine: "m01".into(),
            seat: Some("web1".into()),
            role: "web".into(),
            hostname: "web1".into(),
            address: "10.77.0.11".parse().expect("one"),
            image: "web@1".into(),
            digest: None,
            kernel: part("kernel"),
            efi: None,
            segments: vec![],
            roots: vec![part("root")],
            cmdline: String::new(),
            revision: 1,
            ticket: None,
            orders: String::new(),
            because: None,
            blobs: Default::default(),
        };
        BootRecord { plan: Some(Arc::new(plan)), ..boot(marks) }
    }

    /// What is found `at` seconds after the boot was opened, last heard then.
    fn at(
        boot: &BootRecord,
        learned: &Learned,
        at: u64,
        heard: u64,
        listening: u64,
    ) -> Vec<Finding> {
        let second = |at: u64| (1000 + at) * 1000;
        let typical = learned.typical(|_| None);
        let now = Now { now: second(at), listening: second(listening), learned, typical: &typical };
        late(&now, [(boot, second(heard))].into_iter(), |_| None)
    }

    #[test]
    fn a_boot_is_late_once_in_each_stage() {
        let learned = Learned::default();
        let mut boot = planned(&[OFFER, ACK]);
        assert!(
            at(&boot, &learned, 124, 4, 0).is_empty(),
            "two minutes for a machine nobody knows"
        );
        let found = at(&boot, &learned, 125, 4, 0);
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].stage, found[0].machine.as_str()), (Stage::Ack, "m01"));
        assert!(found[0].cause.seen.contains("never asked for ipxe.efi"), "{found:?}");

        let late = Some(Box::new(found[0].cause.late.clone()));
        let note = found[0].cause.seen.clone();
        boot.marks.push(Mark {
            at: 1_125_000,
            stage: Stage::Ack,
            note,
            late,
            power: None,
            console: None,
        });
        assert!(at(&boot, &learned, 9_000, 4, 0).is_empty(), "it was said");
        // What comes later in the same stage does not say it again; a new stage does.
        let mark = |at, stage, note: &str| Mark {
            at,
            stage,
            note: note.into(),
            late: None,
            power: None,
            console: None,
        };
        boot.marks.push(mark(1_130_000, Stage::Ack, "asked the size of ipxe.efi: 1023 KiB"));
        assert!(at(&boot, &learned, 9_000, 130, 0).is_empty());
        boot.marks.push(mark(1_140_000, Stage::Loader, "ipxe.efi, 1023 KiB in 1.2 s"));
        assert!(at(&boot, &learned, 300, 140, 0).is_empty());
        let found = at(&boot, &learned, 321, 140, 0);
        assert_eq!(found.first().map(|found| found.stage), Some(Stage::Loader));
    }

    #[test]
    fn a_machine_that_was_up_before_is_late_by_its_own_time() {
        let mut learned = Learned::default();
        learned.learn(Lesson::of_up(&super::super::course::tests::whole()).expect("up"));
        let boot = planned(&[OFFER, ACK]);
        assert!(at(&boot, &learned, 49, 4, 0).is_empty());
        assert_eq!(at(&boot, &learned, 50, 4, 0).len(), 1, "the floor: it takes 3 s itself");
    }

    #[test]
    fn nobody_is_late_for_an_appliance_that_was_away() {
        let learned = Learned::default();
        let boot = planned(&[OFFER, ACK, (60, Stage::Up, "systemd running")]);
        assert!(at(&boot, &learned, 5_000, 60, 4_950).is_empty(), "it listens for 50 s");
        let found = at(&boot, &learned, 5_041, 60, 4_950);
        assert_eq!(found.first().map(|found| found.stage), Some(Stage::Up));
        assert!(found[0].cause.seen.contains("stopped 83 min ago"), "{found:?}");
        assert!(at(&boot, &learned, 5_041, 5_030, 4_950).is_empty(), "its heartbeats came");
    }

    #[test]
    fn silence_is_said_again_after_it_was_heard_again() {
        let learned = Learned::default();
        let mut boot = planned(&[OFFER, (60, Stage::Up, "systemd running")]);
        let late = Some(Box::new(Late { usual: String::new(), next: String::new() }));
        boot.marks.push(Mark {
            at: 1_160_000,
            stage: Stage::Up,
            note: String::new(),
            late,
            power: None,
            console: None,
        });
        assert!(at(&boot, &learned, 500, 60, 0).is_empty());
        assert_eq!(at(&boot, &learned, 500, 200, 0).len(), 1);
    }

    #[test]
    fn what_waits_in_order_is_not_late() {
        let learned = Learned::default();
        for (boot, why) in [
            (boot(&[OFFER, ACK]), "nothing to boot"),
            (planned(&[OFFER, (9, Stage::Waiting, "m02 holds web1")]), "told to wait"),
            (planned(&[OFFER, (9, Stage::Rescue, "too little memory")]), "a shell is open"),
            (planned(&[OFFER, (60, Stage::Up, ""), (90, Stage::Down, "")]), "shut down"),
            (BootRecord { over: true, ..planned(&[OFFER, ACK]) }, "over"),
        ] {
            assert!(at(&boot, &learned, 100_000, 9, 0).is_empty(), "{why}");
        }
    }

    #[test]
    fn many_that_hang_alike_are_one_line() {
        let finding = |number: u8, stage| {
            let boot = planned(&[OFFER, ACK]);
            let cause = cause(&boot, standing(&boot), 0, None);
            let machine = format!("m{number:02}");
            Finding { id: BootId([number; 16]), machine, stage, cause }
        };
        let mut findings: Vec<Finding> = (1..=40).map(|n| finding(n, Stage::Ack)).collect();
        findings.extend([finding(50, Stage::Offer), finding(51, Stage::Offer)]);
        let lines = told(&findings);
        assert_eq!(lines.len(), 3, "{lines:#?}");
        assert!(
            lines[0].1.starts_with("40 machines hang at ack: m[01-40]. The first has"),
            "{lines:#?}"
        );
        assert_eq!(lines[1].0.as_deref(), Some("m50"));
        assert_eq!(lines[2].0.as_deref(), Some("m51"));
        // A thousand boots of a site that lost its link cost nothing to look at.
        let boots: Vec<BootRecord> = (0..3000u32)
            .map(|n| {
                let [_, a, b, c] = n.to_be_bytes();
                BootRecord { mac: Mac([2, 0, 0, a, b, c]), ..planned(&[OFFER, ACK]) }
            })
            .collect();
        let (learned, typical) = (Learned::default(), Typical::default());
        let now = Now { now: u64::MAX / 2, listening: 0, learned: &learned, typical: &typical };
        let found = late(&now, boots.iter().map(|boot| (boot, 0)), |_| None);
        assert_eq!((found.len(), told(&found).len()), (3000, 1));
    }
}
