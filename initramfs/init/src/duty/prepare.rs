//! Disks prepared for the seats that will mount them: is this the machine that is meant, are these its disks, is
//! nothing on them that the order does not name, and will each label be there once. Only when all of that is so is
//! anything written.

use std::path::Path;
use std::time::{Duration, Instant};

use super::chosen::{self, Found, now};
use super::held::{Ends, Thing, things};
use super::mkfs::{Job, Made, Stop, make};
use crate::console::say;
use crate::contract::Phase;
use crate::contract::duty::{Blank, Prepare, Prepared, WORKS_MAX, Work};
use crate::contract::hardware::Disk;
use crate::disks::devices::{Device, Seen, inventory};
use crate::hardware;
use crate::report::Reporter;

/// Until then a disk that is named may only be waking up.
const AWAKE: Duration = Duration::from_secs(45);
/// Between two reports, and between two words on the console.
const REPORT: Duration = Duration::from_secs(5);
const WORD: Duration = Duration::from_secs(15);
const MOMENT: Duration = Duration::from_millis(200);

/// One disk, and what is going to be lost of it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Plan {
    found: Found,
    label: String,
    held: Vec<String>,
    parted: bool,
}

/// Carries the order out, or none of it. True if the machine was told to stop meanwhile.
pub fn run(order: &Prepare, reporter: &mut Reporter, rings: &dyn Fn(Duration) -> bool) -> bool {
    let root = Path::new("/");
    let meant = chosen::is_meant(&order.serial, &hardware::gather(root));
    let planned = match meant {
        Ok(()) => match awake(order, root, rings) {
            Some(found) => {
                let devices = inventory(&root.join("sys"), &root.join("dev"), &mut Seen::default());
                plan(order, &found, &devices, &|found| {
                    Ends::read(&found.path(), found.bytes).map_err(|error| error.to_string())
                })
            }
            None => return true,
        },
        Err(why) => Err(why),
    };
    let plans = match planned {
        Ok(plans) => plans,
        Err(why) => {
            let message = format!("nothing was prepared: {why}");
            say(&message);
            return super::surely(reporter, rings, &Phase::Finished { well: false, message });
        }
    };
    for plan in &plans {
        let (disk, fs, label) = (plan.found.shown(), order.fs.as_str(), &plan.label);
        say(format!("{disk} gets {fs} LABEL={label}"));
        plan.held.iter().for_each(|held| say(format!("  {held} will be lost")));
    }
    let mut works: Vec<Work> = plans.iter().map(|plan| waiting(order, plan)).collect();
    let mut bad = Vec::new();
    for (n, plan) in plans.iter().enumerate() {
        let Some(prepared) = one(order, plan, (&mut works, n), reporter, rings) else {
            say(format!("told to stop: {} is NOT prepared", plan.found.shown()));
            return true;
        };
        let Prepared { name, serial, label, uuid, .. } = &prepared;
        match prepared.prepared {
            true => say(format!("{name} {serial} is prepared: LABEL={label} UUID={uuid}")),
            false => {
                say(format!("{name} {serial} is NOT prepared: {}", prepared.note));
                bad.push(format!("{name} {serial}: {}", prepared.note));
            }
        }
        if super::surely(reporter, rings, &Phase::Prepared(Box::new(prepared))) {
            return true;
        }
    }
    let count = plans.len();
    let message = match bad.as_slice() {
        [] if count == 1 => "its disk is prepared".to_owned(),
        [] => format!("its {count} disks are prepared"),
        bad => format!("NOT prepared: {}; {} of {count} are", bad.join("; "), count - bad.len()),
    };
    say(&message);
    super::surely(reporter, rings, &Phase::Finished { well: bad.is_empty(), message })
}

/// The machine's disks, when all that are named are there, or have had their time. None: told to stop.
fn awake(order: &Prepare, root: &Path, rings: &dyn Fn(Duration) -> bool) -> Option<Vec<Found>> {
    let begun = Instant::now();
    loop {
        let found = chosen::found(root);
        let there = |blank: &Blank| found.iter().any(|found| found.has(&blank.serial));
        if order.disks.iter().all(there) || begun.elapsed() > AWAKE {
            return Some(found);
        }
        if rings(MOMENT) {
            return None;
        }
    }
}

/// What is going to be done, or all that speaks against it.
fn plan(
    order: &Prepare,
    found: &[Found],
    devices: &[Device],
    look: &dyn Fn(&Found) -> Result<Ends, String>,
) -> Result<Vec<Plan>, String> {
    let (mut plans, mut against) = (Vec::new(), Vec::new());
    for blank in &order.disks {
        match one_disk(blank, found) {
            Ok(found) => match held(order, found, devices, look) {
                Ok((held, parted)) => {
                    let (found, label) = (found.clone(), blank.label.clone());
                    plans.push(Plan { found, label, held, parted });
                }
                Err(why) => against.push(why),
            },
            Err(why) => against.push(why),
        }
        against.extend(order.fs.no_label(&blank.label));
    }
    let chosen = |device: &&Device| {
        let disk = device.disk.as_ref().unwrap_or(&device.name);
        plans.iter().any(|plan| plan.found.disk.name == *disk)
    };
    for device in devices.iter().filter(|device| !chosen(device)) {
        let label = device.holds.as_ref().map(|held| held.label.as_str()).unwrap_or_default();
        let labels = [("LABEL", label), ("PARTLABEL", device.part_label.as_str())];
        for (by, label) in labels {
            let twice = !label.is_empty() && order.disks.iter().any(|blank| blank.label == label);
            if twice && (by == "LABEL" || order.partition) {
                let there = device.describe();
                against
                    .push(format!("{by}={label} is there already: {there}; a seat would find two"));
            }
        }
    }
    if against.is_empty() { Ok(plans) } else { Err(against.join("; ")) }
}

/// The disk with that serial number; one that is reached by two ways is one.
fn one_disk<'a>(blank: &Blank, found: &'a [Found]) -> Result<&'a Found, String> {
    let all: Vec<&Found> = found.iter().filter(|found| found.has(&blank.serial)).collect();
    match all.as_slice() {
        [] => Err(chosen::absent(&blank.serial, found)),
        [one] => Ok(one),
        [first, rest @ ..]
            if !first.wwid.is_empty() && rest.iter().all(|other| other.wwid == first.wwid) =>
        {
            Ok(first)
        }
        many => {
            let names: Vec<String> = many.iter().map(|found| found.shown()).collect();
            Err(format!(
                "{} disks have the serial number {:?}: {}",
                many.len(),
                blank.serial,
                names.join(", ")
            ))
        }
    }
}

/// What is on a disk and may be lost, and whether it has partitions; or what is on it that may not.
fn held(
    order: &Prepare,
    found: &Found,
    devices: &[Device],
    look: &dyn Fn(&Found) -> Result<Ends, String>,
) -> Result<(Vec<String>, bool), String> {
    let (name, shown) = (&found.disk.name, found.shown());
    let parts: Vec<&Device> =
        devices.iter().filter(|device| device.disk.as_ref() == Some(name)).collect();
    let whole = devices.iter().find(|device| device.name == *name);
    let busy = parts.iter().find(|part| part.used).map(|part| part.name.as_str());
    let busy = busy.or(whole.filter(|disk| disk.used && parts.is_empty()).map(|_| name.as_str()));
    if let Some(busy) = busy {
        return Err(format!(
            "{shown} is in use: {busy} is part of a RAID, of LVM or of another mapping"
        ));
    }
    let ends = look(found).map_err(|why| format!("{shown} cannot be read: {why}"))?;
    let things = things(&ends, &parts);
    let (lost, kept): (Vec<&Thing>, Vec<&Thing>) =
        things.iter().partition(|thing| order.force.iter().any(|word| word == thing.word));
    if kept.is_empty() {
        let lost = lost.into_iter().map(|thing| thing.text.clone()).collect();
        return Ok((lost, !parts.is_empty()));
    }
    let texts: Vec<&str> = things.iter().map(|thing| thing.text.as_str()).collect();
    let mut words: Vec<&str> = things.iter().map(|thing| thing.word).collect();
    words.sort_unstable();
    words.dedup();
    let (texts, words) = (texts.join(", "), words.join(","));
    Err(format!(
        "{shown} holds {texts}, and is left alone: --force {words} says that it may be lost"
    ))
}

fn waiting(order: &Prepare, plan: &Plan) -> Work {
    let Disk { name, serial, .. } = &plan.found.disk;
    let of = job(order, plan, Path::new("")).steps();
    Work { what: format!("{name} {serial}"), step: "waits".to_owned(), done: 0, of }
}

fn job<'a>(order: &Prepare, plan: &'a Plan, path: &'a Path) -> Job<'a> {
    Job {
        name: &plan.found.disk.name,
        path,
        fs: order.fs,
        label: &plan.label,
        partition: order.partition,
        parted: plan.parted,
    }
}

/// One disk, to its end; None if told to stop.
fn one(
    order: &Prepare,
    plan: &Plan,
    (works, n): (&mut [Work], usize),
    reporter: &mut Reporter,
    rings: &dyn Fn(Duration) -> bool,
) -> Option<Prepared> {
    let Disk { name, model, serial, bus, .. } = plan.found.disk.clone();
    let mut prepared = Prepared {
        name,
        model,
        serial,
        bus,
        bytes: plan.found.bytes,
        method: "prepared".to_owned(),
        held: plan.held.clone(),
        began: now(),
        ..Prepared::default()
    };
    let path = plan.found.path();
    let (mut report, mut word) = (Instant::now(), Instant::now());
    let (begun, mut made) = (Instant::now(), Made::default());
    let ended = make(job(order, plan, &path), &mut made, &mut |step, done| {
        if let Some(work) = works.get_mut(n) {
            step.clone_into(&mut work.step);
            work.done = done;
        }
        if report.elapsed() >= REPORT {
            report = Instant::now();
            // The next one comes in a moment.
            let works = works.iter().take(WORKS_MAX).cloned().collect();
            let _ = reporter.tell(Phase::Working { works });
        }
        if word.elapsed() >= WORD {
            word = Instant::now();
            let (disk, since) = (&plan.found.disk, begun.elapsed().as_secs());
            say(format!("{} {}: {step}, for {since} s", disk.name, disk.serial));
        }
        rings(MOMENT)
    });
    if let Some(work) = works.get_mut(n) {
        work.done = work.of;
    }
    prepared.ended = now();
    (prepared.steps, prepared.device) = (made.steps, made.device);
    match ended {
        Ok(()) => prepared.prepared = true,
        Err(Stop::Told) => return None,
        Err(Stop::Because(why)) => prepared.note = why,
    }
    if let Some(found) = made.found {
        prepared.fs = found.kind.name().to_owned();
        (prepared.label, prepared.uuid) = (found.label, found.uuid);
    }
    Some(prepared)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::FileExt;

    use super::*;
    use crate::contract::duty::FileSystem;
    use crate::disks::superblock::{self, Kind};

    const SIZE: u64 = 8 << 20;

    fn disk(name: &str, serial: &str) -> Found {
        let disk = Disk { name: name.into(), serial: serial.into(), ..Disk::default() };
        Found { disk, bytes: SIZE, ..Found::default() }
    }

    fn device(name: &str, disk: Option<&str>, label: &str) -> Device {
        let held = superblock::Found { kind: Kind::Ext, label: label.into(), uuid: "u".into() };
        let holds = (!label.is_empty()).then_some(held);
        Device {
            name: name.into(),
            disk: disk.map(str::to_owned),
            size: SIZE,
            holds,
            ..Device::default()
        }
    }

    fn order(disks: &[(&str, &str)], force: &[&str]) -> Prepare {
        let blank = |(serial, label): &(&str, &str)| Blank {
            serial: (*serial).to_owned(),
            label: (*label).to_owned(),
        };
        Prepare {
            serial: "CZ123".into(),
            disks: disks.iter().map(blank).collect(),
            fs: FileSystem::Ext4,
            partition: false,
            force: force.iter().map(|word| (*word).to_owned()).collect(),
        }
    }

    /// The ends of a disk with an LVM label, of one with unknown bytes, and of blank ones.
    fn look(found: &Found) -> Result<Ends, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(SIZE).unwrap();
        let put = |at, bytes: &[u8]| file.as_file().write_all_at(bytes, at).unwrap();
        match found.disk.name.as_str() {
            "lvm" => {
                put(512, b"LABELONE");
                put(512 + 24, b"LVM2 001");
            }
            "odd" => put(5, b"?"),
            "dead" => return Err("Input/output error".to_owned()),
            _ => {}
        }
        let path = file.path().to_owned();
        assert!(File::open(&path).is_ok());
        Ends::read(&path, SIZE).map_err(|error| error.to_string())
    }

    #[test]
    fn a_blank_disk_is_prepared_and_a_full_one_told_of() {
        let found = [disk("vda", "S1"), disk("lvm", "S2"), disk("odd", "S3"), disk("dead", "S4")];
        let devices: Vec<Device> =
            found.iter().map(|one| device(&one.disk.name, None, "")).collect();
        let plans = plan(&order(&[(" s1", "db")], &[]), &found, &devices, &look).unwrap();
        assert_eq!((plans[0].found.disk.name.as_str(), plans[0].held.len()), ("vda", 0));
        for (serial, says) in [
            ("S2", "holds an LVM volume, and is left alone: --force lvm says"),
            ("S3", "--force data"),
            ("S4", "cannot be read: Input/output error"),
            ("S5", "no disk has the serial number \"S5\"; there are: vda S1"),
        ] {
            for force in [&[][..], &["gpt", "ext4"]] {
                let both = order(&[("S1", "db"), (serial, "log")], force);
                let why = plan(&both, &found, &devices, &look).unwrap_err();
                assert!(why.contains(says), "{why}");
            }
        }
        let forced = order(&[("S2", "db")], &["lvm"]);
        let plans = plan(&forced, &found, &devices, &look).unwrap();
        assert_eq!(plans[0].held, ["an LVM volume"]);
    }

    #[test]
    fn partitions_count_and_what_is_in_use_is_left_alone() {
        let found = [disk("vda", "S1")];
        let part = device("vda1", Some("vda"), "old");
        let devices = [Device { used: true, ..device("vda", None, "") }, part.clone()];
        let why = plan(&order(&[("S1", "db")], &[]), &found, &devices, &look).unwrap_err();
        assert!(
            why.contains("holds ext4 LABEL=old on vda1") && why.contains("--force ext4"),
            "{why}"
        );
        let plans = plan(&order(&[("S1", "old")], &["ext4"]), &found, &devices, &look).unwrap();
        assert!(plans[0].parted, "its own label may be used again");
        for devices in [
            vec![Device { used: true, ..device("vda", None, "") }],
            vec![Device { used: true, ..device("vda", None, "") }, Device { used: true, ..part }],
        ] {
            let why = plan(&order(&[("S1", "db")], &["ext4", "raid"]), &found, &devices, &look);
            assert!(why.unwrap_err().contains("is in use: vda"));
        }
    }

    #[test]
    fn a_label_is_there_once() {
        let found = [disk("vda", "S1"), disk("vdb", "S2")];
        let mut devices = [device("vda", None, ""), device("vdb", None, "db")];
        let asked = order(&[("S1", "db")], &[]);
        let why = plan(&asked, &found, &devices, &look).unwrap_err();
        assert!(why.contains("LABEL=db is there already: vdb (8 MiB, ext4 LABEL=db)"), "{why}");
        devices[1] = device("vdb", None, "");
        devices[1].part_label = "db".into();
        assert!(plan(&asked, &found, &devices, &look).is_ok());
        let parted = Prepare { partition: true, ..asked };
        assert!(plan(&parted, &found, &devices, &look).unwrap_err().contains("PARTLABEL=db"));
        let odd = order(&[("S1", "a b")], &[]);
        assert!(plan(&odd, &found, &devices, &look).unwrap_err().contains("is no label"));
    }

    #[test]
    fn a_disk_by_two_ways_is_one_and_two_disks_are_two() {
        let way = |name| Found { wwid: "naa.5000c500".into(), ..disk(name, "Z1") };
        let asked = order(&[("Z1", "db")], &[]);
        let plans = plan(&asked, &[way("sda"), way("sdb")], &[], &look).unwrap();
        assert_eq!(plans[0].found.disk.name, "sda");
        let why = plan(&asked, &[way("sda"), disk("sdb", "Z1")], &[], &look).unwrap_err();
        assert!(why.contains("2 disks have the serial number \"Z1\""), "{why}");
    }
}
