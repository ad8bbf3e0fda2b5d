use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use koboshi_images::{Track, Trial};
use koboshi_pxe::BootId;
use koboshi_pxe::boots::Stage;

use super::books::FAILURES;
use super::*;

const MINUTE: Duration = Duration::from_secs(60);

/// A site of machines that all have the role `web`, told step by step.
struct Story {
    books: Books,
    now: Instant,
    at: u64,
    boots: u8,
    /// What was remembered, as the disk has it.
    disk: HashMap<String, Course>,
    said: Vec<String>,
}

fn track(current: u32, former: Option<u32>) -> Track {
    let versions = BTreeSet::from([1, 2, 3, 4, 5]);
    Track { current: Some((current, 1000)), former, versions, ..Track::default() }
}

fn trial(machines: &[&str], against: u32) -> Trial {
    Trial {
        machines: machines.iter().map(ToString::to_string).collect(),
        stay: 600,
        begun: 2000,
        by: None,
        reason: None,
        against: Some(against),
    }
}

impl Story {
    fn new(track: Track) -> Story {
        let books = Books::default();
        let (now, disk) = (Instant::now(), HashMap::new());
        let mut story = Story { books, now, at: 10_000, boots: 0, disk, said: Vec::new() };
        story.store(track);
        story
    }

    /// The image store says this now.
    fn store(&mut self, track: Track) {
        let tracks = BTreeMap::from([("web".to_string(), track)]);
        let limits = HashMap::from([("web".to_string(), 2), ("never".to_string(), 0)]);
        let told = self.books.read(tracks, limits);
        self.keep(told);
    }

    fn keep(&mut self, told: Vec<Told>) {
        for one in told {
            match one {
                Told::Keep(machine, course) => {
                    self.disk.insert(machine, course);
                }
                Told::Event { kind, machine, text } => {
                    self.said.push(format!("{machine} {kind}: {text}"));
                }
            }
        }
    }

    fn waits(&mut self, time: Duration) {
        self.now += time;
        self.at += u64::try_from(time.as_millis()).unwrap();
    }

    fn choice(&self, machine: &str) -> u32 {
        self.books.choose("web", machine, "web").expect("a version").version
    }

    /// Its firmware speaks: it gets what is chosen.
    fn boots(&mut self, machine: &str) -> u32 {
        self.boots_as(machine, "web")
    }

    fn boots_as(&mut self, machine: &str, role: &str) -> u32 {
        self.boots += 1;
        let choice = self.books.choose("web", machine, role).expect("a version").version;
        let image = format!("web@{choice}");
        let id = BootId([self.boots; 16]);
        let told = self.books.opened(machine, id, (Some(&image), role), self.at, self.now);
        self.keep(told);
        choice
    }

    fn reaches(&mut self, machine: &str, stage: Stage) {
        let id = self.books.live[machine].boot;
        let told = self.books.reached(machine, id, (stage, ""), self.at, self.now);
        self.keep(told);
    }

    /// Boots, and comes as far as its own init: the next thing heard is its firmware.
    fn fails(&mut self, machine: &str) -> u32 {
        let version = self.boots(machine);
        self.reaches(machine, Stage::Kernel);
        self.reaches(machine, Stage::Switching);
        self.waits(MINUTE);
        version
    }

    fn comes_up(&mut self, machine: &str) -> u32 {
        let version = self.boots(machine);
        for stage in [Stage::Kernel, Stage::Init, Stage::Switching, Stage::Up] {
            self.reaches(machine, stage);
        }
        version
    }

    /// Stays, with its heartbeats.
    fn stays(&mut self, machine: &str, time: Duration) {
        let mut left = time;
        while !left.is_zero() {
            let beat = left.min(Duration::from_secs(20));
            self.waits(beat);
            left -= beat;
            let id = self.books.live[machine].boot;
            self.books.heard(machine, id, self.now);
        }
    }

    /// The appliance is killed and started again: machines' newest boots are read as they stood.
    fn restarts(&mut self) {
        let mut books = Books::remembering(self.disk.clone());
        let told = books.read(self.books.tracks.clone(), HashMap::from([("web".to_string(), 2)]));
        assert!(told.is_empty());
        for (machine, live) in &self.books.live {
            let mut live = live.clone();
            live.lived = Duration::ZERO;
            live.heard = self.now;
            live.since = self.now;
            books.live.insert(machine.clone(), live);
        }
        self.books = books;
    }

    fn verdict(&self) -> Option<(What, u32)> {
        let verdicts = self.books.judge(self.now);
        assert!(verdicts.len() <= 1);
        verdicts.first().map(|verdict| (verdict.what, verdict.version))
    }

    fn says(&self) -> String {
        self.books.judge(self.now).first().map(Verdict::says).unwrap_or_default()
    }
}

fn on_trial(machines: &[&str]) -> Track {
    Track { trial: Some((4, trial(machines, 3))), ..track(3, Some(2)) }
}

#[test]
fn a_trial_is_for_its_machines_and_then_for_all() {
    let mut story = Story::new(on_trial(&["m07", "m08"]));
    assert_eq!((story.choice("m07"), story.choice("m01")), (4, 3));
    let does = story.books.does("web", story.now);
    assert_eq!(does, [("m07".to_string(), Does::Waits), ("m08".to_string(), Does::Waits)]);
    story.waits(1000 * MINUTE);
    assert_eq!(story.verdict(), None, "a machine that never boots proves nothing");
    assert_eq!((story.comes_up("m07"), story.comes_up("m01")), (4, 3));
    story.stays("m07", 10 * MINUTE);
    assert_eq!(story.verdict(), None, "m08 has not been seen");
    assert_eq!(story.comes_up("m08"), 4);
    story.stays("m08", 5 * MINUTE);
    let (_, m08) = &story.books.does("web", story.now)[1];
    assert_eq!(*m08, Does::Up { lived: 300, stay: 600 });
    story.stays("m08", 5 * MINUTE);
    assert_eq!(story.verdict(), Some((What::Promoted, 4)));
    assert_eq!(
        story.says(),
        "web@4 is for all machines now: m07, m08 came up and stayed so for 600 s"
    );
    // Its verdict was carried out: nothing is left to judge.
    story.store(Track { current: Some((4, story.at)), ..track(4, Some(3)) });
    assert_eq!((story.verdict(), story.choice("m01")), (None, 4));
    assert!(story.said.is_empty(), "{:?}", story.said);
}

#[test]
fn a_bad_version_never_leaves_its_trial() {
    let mut story = Story::new(on_trial(&["m07"]));
    assert_eq!(story.fails("m07"), 4);
    assert_eq!(story.verdict(), None);
    // The second failure is known the moment its firmware speaks: that boot is the former one's already.
    assert_eq!(story.fails("m07"), 4);
    assert_eq!(story.choice("m07"), 3);
    assert_eq!(story.comes_up("m07"), 3);
    assert_eq!(story.verdict(), Some((What::Withdrawn, 4)));
    assert_eq!(
        story.says(),
        "web@4 is withdrawn, and its machines boot what all boot: on m07: 2 boots, the last: it \
         started anew after `switching`, without having been up"
    );
    assert_eq!(story.said.len(), 2, "{:?}", story.said);
    assert!(story.said[1].contains("2 of 2"), "{:?}", story.said);
    let mut after = track(3, Some(2));
    after.withdrawn.insert(4, "on m07".to_string());
    story.store(after);
    assert_eq!((story.choice("m07"), story.choice("m01")), (3, 3));
    let note = story.books.failed_here("web", "m07", 3).unwrap();
    assert!(note.starts_with("web@4 was withdrawn; 2 boots failed here"), "{note}");
    assert_eq!(story.books.failed_here("web", "m01", 3), None);
    // The same version once more, repaired: it begins anew.
    let mut again = trial(&["m07"], 3);
    again.begun = story.at + 1;
    story.store(Track { trial: Some((4, again)), ..track(3, Some(2)) });
    story.waits(MINUTE);
    assert_eq!((story.verdict(), story.boots("m07")), (None, 4));
}

#[test]
fn one_that_comes_up_and_dies_has_failed() {
    let mut story = Story::new(on_trial(&["m07"]));
    for _ in 0..2 {
        assert_eq!(story.comes_up("m07"), 4);
        story.stays("m07", MINUTE);
    }
    assert_eq!(story.boots("m07"), 3);
    assert!(story.says().contains("it came up and was gone after 60 s"), "{}", story.says());
    // For all, coming up is enough: machines are restarted for many reasons.
    let mut story = Story::new(track(4, Some(3)));
    for _ in 0..5 {
        assert_eq!(story.comes_up("m07"), 4);
        story.stays("m07", MINUTE);
    }
    assert!(story.said.is_empty(), "{:?}", story.said);
}

#[test]
fn silence_a_rescue_shell_and_lasting_trouble_fail_a_trial() {
    let mut story = Story::new(on_trial(&["m07"]));
    story.comes_up("m07");
    story.stays("m07", MINUTE);
    story.waits(4 * MINUTE);
    assert_eq!(story.verdict(), None);
    story.waits(MINUTE);
    assert!(story.says().contains("fell silent after 60 s"), "{}", story.says());

    let mut story = Story::new(on_trial(&["m07"]));
    story.boots("m07");
    story.reaches("m07", Stage::Kernel);
    story.reaches("m07", Stage::Trouble);
    assert_eq!(story.verdict(), None, "it tries again by itself");
    story.waits(MINUTE);
    story.reaches("m07", Stage::Root);
    story.waits(5 * MINUTE);
    assert_eq!(story.verdict(), None, "and that went well");
    story.reaches("m07", Stage::Trouble);
    story.waits(2 * MINUTE);
    assert!(story.says().contains("trouble for 120 s"), "{}", story.says());

    let mut story = Story::new(on_trial(&["m07"]));
    story.boots("m07");
    story.reaches("m07", Stage::Init);
    story.reaches("m07", Stage::Rescue);
    assert!(story.says().contains("a rescue shell"), "{}", story.says());
    assert_eq!(story.disk["m07"].failures("web", 4, 0), 1);
    // Its restart is no second failure of the same boot.
    story.boots("m07");
    assert_eq!(story.disk["m07"].failures("web", 4, 0), 1);
}

#[test]
fn what_was_ordered_here_is_no_failure() {
    let mut story = Story::new(on_trial(&["m07"]));
    for _ in 0..5 {
        story.fails("m07");
        story.books.ordered("m07");
        story.comes_up("m07");
        story.books.ordered("m07");
    }
    assert_eq!((story.choice("m07"), story.verdict()), (4, None));
    assert!(story.said.is_empty(), "{:?}", story.said);
    // A boot that was overtaken by another is not moved by late news of it.
    let late = story.books.live["m07"].boot;
    story.boots("m07");
    let told = story.books.reached("m07", late, (Stage::Rescue, ""), story.at, story.now);
    assert!(told.is_empty());
}

#[test]
fn restarts_of_the_appliance_lose_nothing() {
    let mut story = Story::new(on_trial(&["m07"]));
    story.fails("m07");
    story.restarts();
    story.fails("m07");
    story.restarts();
    assert_eq!(story.boots("m07"), 3, "one failure before each restart");
    story.restarts();
    assert_eq!(story.verdict(), Some((What::Withdrawn, 4)));

    let mut story = Story::new(on_trial(&["m07"]));
    story.comes_up("m07");
    story.stays("m07", 9 * MINUTE);
    story.waits(60 * MINUTE);
    story.restarts();
    assert_eq!(story.verdict(), None, "nobody listened: it has not stayed, nor has it failed");
    story.stays("m07", 10 * MINUTE);
    assert_eq!(story.verdict(), Some((What::Promoted, 4)));
}

#[test]
fn whoever_decides_by_hand_ends_a_trial() {
    // Rolled back, another version published, this one published for all.
    for (current, what) in [(2, What::Ended), (5, What::Ended), (4, What::Ended)] {
        let mut story = Story::new(on_trial(&["m07"]));
        story.comes_up("m07");
        story.stays("m07", 20 * MINUTE);
        let decided = Track { current: Some((current, story.at)), ..on_trial(&["m07"]) };
        story.store(decided);
        assert_eq!(story.verdict(), Some((what, 4)), "{current}");
        let text = story.says();
        assert_eq!(text.contains("by hand"), current == 4, "{text}");
        assert_eq!(story.choice("m01"), current);
    }
}

#[test]
fn all_machines_of_a_role_may_be_on_trial() {
    let mut story = Story::new(on_trial(&["m01", "m02"]));
    for machine in ["m01", "m02"] {
        assert_eq!(story.comes_up(machine), 4);
        story.stays(machine, 5 * MINUTE);
    }
    let id = story.books.live["m01"].boot;
    story.books.heard("m01", id, story.now);
    // A gap of heartbeats counts for little: what was not heard is not proven.
    let (_, m01) = &story.books.does("web", story.now)[0];
    assert_eq!(*m01, Does::Up { lived: 370, stay: 600 });
    for machine in ["m01", "m02"] {
        story.stays(machine, 5 * MINUTE);
    }
    assert_eq!(story.verdict(), Some((What::Promoted, 4)));
    // The first version there ever was, on trial before anybody has anything.
    let first = Trial { against: None, ..trial(&["m01"], 3) };
    let first = Track { current: None, trial: Some((1, first)), ..track(1, None) };
    let mut story = Story::new(first);
    assert_eq!(story.books.choose("web", "m02", "web"), None);
    assert_eq!(story.comes_up("m01"), 1);
    story.stays("m01", 10 * MINUTE);
    assert_eq!(story.verdict(), Some((What::Promoted, 1)));
}

#[test]
fn a_pinned_machine_boots_its_own() {
    let pins = BTreeMap::from([("m07".to_string(), 1)]);
    let mut story = Story::new(Track { pins, ..on_trial(&["m07"]) });
    let choice = story.books.choose("web", "m07", "web").unwrap();
    assert_eq!((choice.version, &choice.because), (1, &Because::Pinned));
    assert_eq!(choice.says("web"), "the machine is pinned to web@1");
    // However often it fails: that was somebody's word.
    for _ in 0..4 {
        assert_eq!(story.fails("m07"), 1);
    }
    assert_eq!((story.boots("m07"), story.verdict()), (1, None));
    assert!(story.said.iter().any(|said| said.contains("2 of 2, and it is what")));
    // Also to what all boot, so that it does not fall back.
    let pins = BTreeMap::from([("m07".to_string(), 3)]);
    let mut story = Story::new(Track { pins, ..track(3, Some(2)) });
    for _ in 0..4 {
        assert_eq!(story.fails("m07"), 3);
    }
    story.store(track(3, Some(2)));
    assert_eq!(story.choice("m07"), 2, "unpinned, its failures count");
}

#[test]
fn a_machine_falls_back_by_itself() {
    let mut story = Story::new(track(3, Some(2)));
    story.comes_up("m01");
    assert_eq!((story.fails("m02"), story.fails("m02")), (3, 3));
    let choice = story.books.choose("web", "m02", "web").unwrap();
    assert_eq!(choice.version, 2);
    let says = choice.differs("web").unwrap();
    assert!(says.starts_with("web@3 failed here (2 boots, the last: it started anew"), "{says}");
    assert_eq!(story.comes_up("m02"), 2);
    assert!(
        story.said[1].starts_with("m02 fallback: its boot of web@3 failed"),
        "{:?}",
        story.said
    );
    assert!(story.said[1].contains("it falls back to web@2"), "{:?}", story.said);
    assert_eq!(story.verdict(), None, "the version is not to blame: it is up on m01");
    story.restarts();
    assert_eq!(story.boots("m02"), 2, "and it stays so");
    // The next version is tried, and so is this one when somebody says so.
    story.store(track(4, Some(3)));
    assert_eq!(story.choice("m02"), 4);
    story.store(track(3, Some(2)));
    assert_eq!(story.choice("m02"), 2);
    let told = story.books.forget("web", "m02").expect("something to forget");
    story.keep(vec![told]);
    assert_eq!((story.choice("m02"), story.books.forget("web", "m02")), (3, None));
}

#[test]
fn a_version_that_comes_up_nowhere_is_taken_back() {
    let mut story = Story::new(track(3, Some(2)));
    for machine in ["m01", "m02"] {
        story.fails(machine);
        story.fails(machine);
        story.boots(machine);
    }
    assert_eq!(story.verdict(), Some((What::TakenBack(2), 3)));
    assert!(story.says().contains("it failed on m01, m02 and came up nowhere"), "{}", story.says());
    story.store(Track { current: Some((2, story.at)), ..track(2, Some(1)) });
    assert_eq!((story.choice("m03"), story.verdict()), (2, None));

    // A single machine is no proof, until the former version comes up where this one did not.
    let mut story = Story::new(track(3, Some(2)));
    story.fails("m01");
    story.fails("m01");
    story.boots("m01");
    assert_eq!(story.verdict(), None);
    story.reaches("m01", Stage::Kernel);
    story.reaches("m01", Stage::Up);
    assert_eq!(story.verdict(), Some((What::TakenBack(2), 3)));
    assert!(story.says().contains("where web@2 comes up"), "{}", story.says());
    // Somebody else is trying: that is waited for.
    story.boots("m02");
    assert_eq!(story.verdict(), None);
    for stage in [Stage::Kernel, Stage::Up] {
        story.reaches("m02", stage);
    }
    assert_eq!(story.verdict(), None, "it comes up, so it stays");
    story.boots_as("m02", "web");
    assert_eq!(story.verdict(), None, "also when that machine restarts");
}

#[test]
fn without_a_former_version_there_is_no_way_back() {
    let mut story = Story::new(track(3, None));
    for _ in 0..6 {
        assert_eq!(story.fails("m01"), 3);
        assert_eq!(story.fails("m02"), 3);
    }
    assert_eq!(story.verdict(), None);
    let said = story.said.iter().filter(|said| said.contains("no former version"));
    assert_eq!(said.count(), 2, "once for each machine: {:?}", story.said);
    // A former version that was removed is none.
    let mut gone = track(3, Some(2));
    gone.versions.remove(&2);
    story.store(gone);
    assert_eq!((story.choice("m01"), story.verdict()), (3, None));
}

#[test]
fn a_role_may_never_give_up() {
    let mut story = Story::new(track(3, Some(2)));
    for _ in 0..9 {
        assert_eq!(story.boots_as("m01", "never"), 3);
        story.reaches("m01", Stage::Kernel);
    }
    assert_eq!(story.verdict(), None);
    // But a trial has an end.
    let mut story = Story::new(on_trial(&["m01"]));
    for _ in 0..FAILURES {
        assert_eq!(story.boots_as("m01", "never"), 4);
        story.reaches("m01", Stage::Kernel);
    }
    assert_eq!(story.boots_as("m01", "never"), 3);
    assert_eq!(story.verdict(), Some((What::Withdrawn, 4)));
}

#[test]
fn numbers_of_versions_that_are_gone_may_come_back() {
    let mut story = Story::new(track(3, Some(2)));
    story.fails("m01");
    story.fails("m01");
    assert_eq!(story.boots("m01"), 2);
    let mut gone = track(2, None);
    gone.versions.remove(&3);
    story.store(gone);
    assert!(story.disk["m01"].tries.iter().all(|one| one.version != 3));
    story.store(track(3, Some(2)));
    assert_eq!(story.choice("m01"), 3);
}

/// Whatever happens in whatever order: no panic, and never more failures than a role allows.
#[test]
fn any_order_of_events_keeps_its_promises() {
    use proptest::prelude::*;
    let machine = prop_oneof![Just("m01"), Just("m02"), Just("m07")];
    let step = (machine, 0u8..9, 0u64..400);
    let runner = &mut proptest::test_runner::TestRunner::default();
    let run = runner.run(&prop::collection::vec(step, 0..120), |steps| {
        let mut story = Story::new(on_trial(&["m07"]));
        for (machine, what, seconds) in steps {
            story.waits(Duration::from_secs(seconds));
            let known = story.books.live.contains_key(machine);
            let stages =
                [Stage::Kernel, Stage::Switching, Stage::Up, Stage::Trouble, Stage::Rescue];
            match what {
                0 | 1 => {
                    let version = story.boots(machine);
                    prop_assert!(machine == "m07" || version != 4, "{machine} saw the trial");
                }
                2..=6 if known => story.reaches(machine, stages[usize::from(what) - 2]),
                7 if known => story.stays(machine, Duration::from_secs(seconds)),
                8 => story.books.ordered(machine),
                _ => {}
            }
            story.books.judge(story.now);
            let tracks = &story.books.tracks["web"];
            prop_assert!(story.books.standing("web", tracks, 4, "m07").0 <= 2);
        }
        Ok(())
    });
    run.unwrap();
}
