//! Machines that ran and have not come back: after a power loss, those that gave up before the
//! appliance was there again. Pure: boots and a clock in, machines out; and the words for what is
//! known of each.

use std::net::Ipv4Addr;

use koboshi_pxe::Mac;
use koboshi_pxe::boots::Stage;
use serde::{Deserialize, Serialize};

use super::learned::Learned;
use super::power::Power;
use crate::ops::table::ago;
use crate::site::hostlist::fold;
use crate::store::BootRecord;

/// A machine that should be heard and is not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gone {
    /// Its name.
    pub machine: String,
    /// The NIC it booted by.
    pub mac: Mac,
    /// The address it had.
    pub address: Ipv4Addr,
    /// The address is its seat's, not one of the pool that may be another's by now.
    pub fixed: bool,
    /// When it was last heard of, Unix milliseconds.
    pub heard: u64,
    /// Milliseconds that a start takes it at most.
    pub start: u64,
}

/// What is known of it beside its silence.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// Whether it has power.
    pub power: Power,
    /// Who answers ARP at its address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answers: Option<Mac>,
}

/// The same for people and programs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Silence {
    /// When it was last heard of, Unix milliseconds.
    pub heard: u64,
    /// Milliseconds within which it should have been heard.
    pub start: u64,
    /// What is known beside that; nothing yet, if it was not asked yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<Evidence>,
    /// In words, with what to do. The same for all machines that are in the same case.
    pub says: String,
}

/// The machines that are silent for longer than they take to start, and how many were meant to run.
/// `boots` are each machine's newest, with when it was last heard of. Before `listening` nobody could
/// be heard.
pub fn gone<'a>(
    now: u64,
    listening: u64,
    boots: impl Iterator<Item = (&'a BootRecord, u64)>,
    learned: &Learned,
) -> (Vec<Gone>, usize) {
    let (mut gone, mut all) = (Vec::new(), 0);
    for (boot, heard) in boots {
        // Without a plan and not waiting: it passed by, on its way to a disk perhaps.
        let waits = boot.stage == Stage::Waiting;
        if boot.over
            || boot.is_off(heard)
            || (boot.plan.is_none() && !waits)
            || matches!(boot.stage, Stage::Down | Stage::Rescue)
        {
            continue;
        }
        // One that is on its way is late where it hangs, unless it was on its way when we left. One
        // that waits asks every few seconds.
        let ran = waits || boot.sits() || boot.marks.iter().any(|mark| mark.stage == Stage::Up);
        if !ran && heard >= listening {
            continue;
        }
        all += 1;
        let start = learned.start_time(&boot.machine);
        if now.saturating_sub(heard.max(listening)) > start {
            gone.push(Gone {
                machine: boot.machine.clone(),
                mac: boot.mac,
                address: boot.address,
                fixed: boot.fixed,
                heard,
                start,
            });
        }
    }
    gone.sort_by(|a, b| a.machine.cmp(&b.machine));
    (gone, all)
}

impl Silence {
    /// A machine that is gone, with what is known of it.
    pub fn of(gone: &Gone, evidence: Option<Evidence>) -> Silence {
        let says = says(gone, evidence.as_ref());
        Silence { heard: gone.heard, start: gone.start, evidence, says }
    }
}

fn says(gone: &Gone, evidence: Option<&Evidence>) -> String {
    let Some(evidence) = evidence else {
        return "silent past its start time; its power and its address are being asked".to_string();
    };
    match (&evidence.power, evidence.answers) {
        (Power::Off, _) => "off: switch it on".to_string(),
        (_, Some(mac)) if mac == gone.mac => {
            "its address answers ARP: it runs and its reports do not arrive; a firewall in its role? look at its console"
                .to_string()
        }
        (_, Some(mac)) => {
            format!("its address {} is answered by {mac}, which is not its own; see who that is", gone.address)
        }
        (Power::On, None) => {
            "it has power and gave up before the appliance was back, or hangs: power-cycle it".to_string()
        }
        (Power::NotAsked, None) => {
            "silent past its start time, power unknown (neither bmc nor power = \"exec:…\" in the site): if it has power it gave up, power-cycle it"
                .to_string()
        }
        (Power::Unknown(why), None) => {
            format!("silent past its start time, its power could not be asked for ({why}): look at its lamp, then power-cycle it")
        }
    }
}

/// Machines by what there is to do about them, most first: what, how many, and a host list to paste.
pub fn cases<'a>(
    silent: impl Iterator<Item = (&'a str, &'a Silence)>,
) -> Vec<(&'a str, usize, String)> {
    let mut cases: Vec<(&str, Vec<&str>)> = Vec::new();
    for (machine, silence) in silent {
        match cases.iter_mut().find(|(says, _)| *says == silence.says) {
            Some((_, machines)) => machines.push(machine),
            None => cases.push((&silence.says, vec![machine])),
        }
    }
    cases.sort_by_key(|(_, machines)| std::cmp::Reverse(machines.len()));
    cases.into_iter().map(|(says, machines)| (says, machines.len(), fold(&machines))).collect()
}

/// The line for the event log when these have fallen silent: whose it is, and what.
pub fn told(fresh: &[(&str, &Silence)], all: usize, now: u64) -> (Option<String>, String) {
    if let [(machine, silence)] = fresh {
        let since = ago(now.saturating_sub(silence.heard));
        let text = format!("not heard of for {since}: {}", silence.says);
        return (Some((*machine).to_string()), text);
    }
    let cases = cases(fresh.iter().copied());
    let cases: Vec<String> =
        cases.iter().map(|(says, _, hosts)| format!("{hosts}: {says}")).collect();
    let text =
        format!("{} machines of {all} have not come back. {}", fresh.len(), cases.join(". "));
    (None, text)
}

#[cfg(test)]
mod tests {
    use super::super::course::tests::boot;
    use super::*;
    use crate::store::{Mark, Switched};

    const OTHER: Mac = Mac([2, 0, 0, 0, 0, 9]);

    fn up(machine: &str) -> BootRecord {
        let plan = koboshi_pxe::boots::Plan {
            machine: machine.into(),
            seat: Some("web1".into()),
            role: "web".into(),
            hostname: "web1".into(),
            address: Ipv4Addr::new(10, 77, 0, 11),
            image: "web@1".into(),
            digest: None,
            kernel: part(),
            efi: None,
            segments: vec![],
            roots: vec![part()],
            cmdline: String::new(),
            revision: 1,
            ticket: None,
            orders: String::new(),
            because: None,
            blobs: Default::default(),
        };
        let plan = Some(std::sync::Arc::new(plan));
        BootRecord {
            machine: machine.into(),
            plan,
            ..boot(&[(0, Stage::Init, ""), (50, Stage::Up, "")])
        }
    }

    fn part() -> koboshi_pxe::boots::Part {
        koboshi_pxe::boots::Part { name: "part".into(), sha256: [0; 32], size: 1 }
    }

    #[test]
    fn a_power_loss_leaves_those_that_gave_up() {
        // All were up and last heard at minute 20; the appliance is back at minute 60.
        let minute = |m: u64| m * 60_000;
        let boots: Vec<BootRecord> = (1..=40).map(|n| up(&format!("m{n:02}"))).collect();
        let mut learned = Learned::default();
        let restart = BootRecord { after: Some(100_000), ..up("m01") };
        learned.learn(super::super::learned::Lesson::of_opened(&restart).expect("a restart"));
        let look = |at, came: usize| {
            let boots = boots.iter().enumerate();
            let heard = boots.map(|(n, boot)| (boot, minute(if n < came { 70 } else { 20 })));
            let (gone, all) = gone(at, minute(60), heard, &learned);
            assert_eq!(all, 40);
            gone.into_iter().map(|gone| gone.machine).collect::<Vec<_>>()
        };
        assert!(look(minute(63), 0).is_empty(), "nobody had the time to start");
        assert_eq!(look(minute(64), 0), ["m01"], "it takes 100 s, and twice that has passed");
        assert_eq!(look(minute(71), 0).len(), 40);
        assert_eq!(look(minute(71), 3).len(), 37, "three came within ten minutes");
    }

    #[test]
    fn who_is_not_meant_to_run_is_not_missed() {
        let learned = Learned::default();
        let mut down = up("m01");
        down.stage = Stage::Down;
        let over = BootRecord { over: true, ..up("m02") };
        let disk = BootRecord { plan: None, marks: Vec::new(), stage: Stage::Ack, ..up("m03") };
        let spare =
            BootRecord { plan: None, marks: Vec::new(), stage: Stage::Waiting, ..up("m06") };
        let on_its_way = BootRecord { marks: Vec::new(), stage: Stage::Ack, ..up("m04") };
        let (day, listening) = (86_400_000, 5_000_000);
        for (boot, heard, missed) in [
            (&down, 1, false),
            (&over, 1, false),
            (&disk, 1, false),
            (&spare, 1, true),
            (&spare, 86_399_000, false),
            (&on_its_way, listening + 1, false),
            (&on_its_way, listening - 1, true),
            (&up("m05"), listening + 1, true),
        ] {
            let (gone, _) = gone(day, listening, [(boot, heard)].into_iter(), &learned);
            assert_eq!(!gone.is_empty(), missed, "{} {heard}", boot.machine);
        }
    }

    #[test]
    fn who_was_switched_off_is_not_missed_before_he_is_switched_on() {
        let learned = Learned::default();
        let mut boot = up("m01");
        let missed = |boot: &BootRecord, heard| {
            !gone(86_400_000, 0, [(boot, heard)].into_iter(), &learned).0.is_empty()
        };
        let mark = |at, power| Mark {
            at,
            stage: Stage::Up,
            note: "power off by root: off".into(),
            late: None,
            power: Some(power),
            console: None,
        };
        assert!(missed(&boot, 1_050_000));
        boot.marks.push(mark(2_000_000, Switched::Off));
        assert!(!missed(&boot, 1_050_000));
        // Its last words may have been under way; a report after that is a machine that runs.
        assert!(!missed(&boot, 2_001_000) && missed(&boot, 2_060_000));
        boot.marks.push(mark(3_000_000, Switched::On));
        assert!(missed(&boot, 1_050_000));
        assert!(boot.marks.iter().filter(|mark| mark.is_sign()).count() == 2);
    }

    #[test]
    fn what_is_known_of_a_silent_machine_and_what_to_do() {
        let boot = up("m01");
        let gone = Gone {
            machine: "m01".into(),
            mac: boot.mac,
            address: boot.address,
            fixed: true,
            heard: 0,
            start: 1,
        };
        let failed = Power::Unknown("timeout after 10 s".into());
        for (power, answers, expected) in [
            (Power::Off, Some(OTHER), "switch it on"),
            (Power::On, Some(boot.mac), "firewall"),
            (Power::NotAsked, Some(OTHER), "answered by 02:00:00:00:00:09"),
            (Power::On, None, "power-cycle"),
            (Power::NotAsked, None, "power unknown"),
            (failed, None, "timeout after 10 s"),
        ] {
            let silence = Silence::of(&gone, Some(Evidence { power, answers }));
            assert!(silence.says.contains(expected), "{silence:?}");
            assert!(silence.says.chars().count() <= 170, "{}", silence.says);
        }
        assert!(Silence::of(&gone, None).says.contains("being asked"));
    }

    #[test]
    fn many_are_one_event_with_a_host_list() {
        let silence =
            |says: &str| Silence { heard: 0, start: 1, evidence: None, says: says.into() };
        let (off, lost) = (silence("off: switch it on"), silence("power-cycle it"));
        let names: Vec<String> = (1..=37).map(|n| format!("m{n:02}")).collect();
        let fresh: Vec<(&str, &Silence)> = names
            .iter()
            .enumerate()
            .map(|(n, name)| (name.as_str(), if n < 3 { &off } else { &lost }))
            .collect();
        assert_eq!(
            told(&fresh, 40, 0),
            (
                None,
                "37 machines of 40 have not come back. m[04-37]: power-cycle it. m[01-03]: off: switch it on"
                    .to_string()
            )
        );
        let (who, text) = told(&fresh[..1], 40, 720_000);
        assert_eq!(who.as_deref(), Some("m01"));
        assert_eq!(text, "not heard of for 12 min: off: switch it on");
    }
}
