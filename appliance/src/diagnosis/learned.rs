//! How long a machine takes for each step of a boot, and for a restart: the median of its last
//! finished boots; where it has none, that of its class or of the whole site. Nothing of this is
//! kept by itself: the boots are, twenty for each machine, and are learned from again at each start.

use std::collections::HashMap;

use koboshi_pxe::boots::Stage;

use super::course;
use crate::store::BootRecord;

/// Boots that a median is made of.
const KEPT: usize = 7;
/// Machines learned of; strangers beyond that go by the site's median.
const MACHINES_MAX: usize = 20_000;
/// A step is late after so many medians: a busy site takes twice, a lost packet a few seconds.
const MARGIN: u64 = 4;
/// A machine that was away for longer was not restarting.
const RESTART_MAX: u64 = 30 * 60_000;

/// See the module.
#[derive(Debug, Default)]
pub struct Learned {
    machines: HashMap<String, Machine>,
}

#[derive(Debug, Default)]
struct Machine {
    /// A handful of stages.
    steps: Vec<(Stage, Samples)>,
    /// Milliseconds that a megabyte of root took.
    pace: Samples,
    /// From the last sign of life to the firmware's first.
    restart: Samples,
}

impl Machine {
    fn step(&self, stage: Stage) -> Option<u64> {
        let (_, samples) = self.steps.iter().find(|(of, _)| *of == stage)?;
        samples.median()
    }

    fn add_step(&mut self, stage: Stage, took: u64) {
        if let Some((_, samples)) = self.steps.iter_mut().find(|(of, _)| *of == stage) {
            return samples.add(took);
        }
        let mut first = Samples::default();
        first.add(took);
        self.steps.push((stage, first));
    }
}

/// The last few, milliseconds: a step of more than seven weeks counts as one of seven weeks.
#[derive(Debug, Default)]
struct Samples {
    last: [u32; KEPT],
    /// How many there were, of which the newest are kept.
    seen: usize,
}

impl Samples {
    fn add(&mut self, value: u64) {
        self.last[self.seen % KEPT] = u32::try_from(value).unwrap_or(u32::MAX);
        self.seen += 1;
    }

    fn kept(&self) -> impl Iterator<Item = u64> {
        self.last.iter().take(self.seen).map(|value| u64::from(*value))
    }

    fn median(&self) -> Option<u64> {
        median(self.kept())
    }

    fn least(&self) -> Option<u64> {
        self.kept().min()
    }
}

/// The upper one of two middles: rather patient.
fn median(values: impl Iterator<Item = u64>) -> Option<u64> {
    let mut values: Vec<u64> = values.collect();
    values.sort_unstable();
    values.get(values.len() / 2).copied()
}

/// What machines without boots of their own are taken to need: medians of their kind.
#[derive(Debug, Default)]
pub struct Typical {
    steps: HashMap<(Option<String>, Stage), u64>,
    pace: HashMap<Option<String>, u64>,
}

impl Learned {
    /// From boots in any order.
    pub fn from_boots(mut boots: Vec<Lesson>) -> Learned {
        boots.sort_by_key(|lesson| lesson.opened);
        let mut learned = Learned::default();
        for lesson in boots {
            learned.learn(lesson);
        }
        learned
    }

    /// A boot was opened or is up: newer ones push out older ones.
    pub fn learn(&mut self, lesson: Lesson) {
        if self.machines.len() >= MACHINES_MAX && !self.machines.contains_key(&lesson.machine) {
            return;
        }
        let machine = self.machines.entry(lesson.machine).or_default();
        for step in &lesson.steps {
            if step.from == Stage::Root {
                if let Some(root) = lesson.root.filter(|root| *root > 0) {
                    machine.pace.add(step.took.saturating_mul(1_000_000) / root);
                }
            } else {
                machine.add_step(step.from, step.took);
            }
        }
        if let Some(after) = lesson.after.filter(|after| *after < RESTART_MAX) {
            machine.restart.add(after);
        }
    }

    /// What is typical of each class and of all, for one look at many machines.
    pub fn typical(&self, class_of: impl Fn(&str) -> Option<String>) -> Typical {
        let mut steps: HashMap<(Option<String>, Stage), Vec<u64>> = HashMap::new();
        let mut paces: HashMap<Option<String>, Vec<u64>> = HashMap::new();
        for (name, machine) in &self.machines {
            let kinds = [None, class_of(name)];
            let kinds = if kinds[1].is_none() { &kinds[..1] } else { &kinds[..] };
            for kind in kinds {
                for (stage, samples) in &machine.steps {
                    let key = (kind.clone(), *stage);
                    steps.entry(key).or_default().extend(samples.median());
                }
                paces.entry(kind.clone()).or_default().extend(machine.pace.median());
            }
        }
        let steps =
            steps.into_iter().filter_map(|(key, all)| Some((key, median(all.into_iter())?)));
        let pace = paces.into_iter().filter_map(|(key, all)| Some((key, median(all.into_iter())?)));
        Typical { steps: steps.collect(), pace: pace.collect() }
    }

    /// Milliseconds after which a machine that is at this stage is late. `root`: bytes of its root;
    /// `share`: boots that fetch theirs at the same time.
    pub fn deadline(
        &self,
        typical: &Typical,
        (machine, class): (&str, Option<&str>),
        stage: Stage,
        root: u64,
        share: u64,
    ) -> Option<u64> {
        let (unknown, floor) = bounds(stage)?;
        let own = self.machines.get(machine);
        let class = class.map(str::to_string);
        if stage == Stage::Root {
            let pace = own.and_then(|own| own.pace.median());
            let pace = pace.or_else(|| typical.pace.get(&class).copied());
            let pace = pace.or_else(|| typical.pace.get(&None).copied());
            let needs = pace.map(|pace| pace.saturating_mul(root) / 1_000_000 * MARGIN);
            // Nothing known: two megabytes a second are a slow wire.
            let needs = needs.unwrap_or(unknown.saturating_add(root / 2000));
            return Some(needs.max(floor).saturating_mul(share.clamp(1, 100)));
        }
        let step = own.and_then(|own| own.step(stage));
        let step = step.or_else(|| typical.steps.get(&(class, stage)).copied());
        let step = step.or_else(|| typical.steps.get(&(None, stage)).copied());
        Some(step.map_or(unknown, |step| step.saturating_mul(MARGIN)).max(floor))
    }

    /// Milliseconds within which a machine that has power is heard of: twice its quickest restart,
    /// three minutes at least; ten where nobody has seen it restart: large memories are tested long.
    pub fn start_time(&self, machine: &str) -> u64 {
        let least = self.machines.get(machine).and_then(|own| own.restart.least());
        least.map_or(600_000, |least| (2 * least).max(180_000))
    }

    /// What a machine's root takes by its own account, for people.
    pub fn pace(&self, machine: &str) -> Option<f64> {
        let pace = self.machines.get(machine)?.pace.median()?;
        Some(1000.0 / pace.max(1) as f64)
    }
}

/// What is learned of one boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lesson {
    machine: String,
    opened: u64,
    steps: Vec<course::Step>,
    root: Option<u64>,
    after: Option<u64>,
}

impl Lesson {
    /// Of a boot that is up: its steps.
    pub fn of_up(boot: &BootRecord) -> Option<Lesson> {
        let steps = course::steps(boot);
        let lesson = Lesson { steps, after: None, ..Lesson::of_kept(boot)? };
        (!lesson.steps.is_empty()).then_some(lesson)
    }

    /// Of a boot that begins: how long the restart took.
    pub fn of_opened(boot: &BootRecord) -> Option<Lesson> {
        boot.after?;
        Some(Lesson { steps: Vec::new(), ..Lesson::of_kept(boot)? })
    }

    /// Of one that was kept: both.
    pub fn of_kept(boot: &BootRecord) -> Option<Lesson> {
        let steps = course::steps(boot);
        let lesson = Lesson {
            machine: boot.machine.clone(),
            opened: boot.opened,
            root: boot.plan.as_ref().map(|plan| plan.root_size()),
            after: boot.after,
            steps,
        };
        (!lesson.steps.is_empty() || lesson.after.is_some()).then_some(lesson)
    }
}

/// Milliseconds for a stage of which nothing is known, and the least that any machine has. Firmware
/// repeats what is lost: EDK2's DISCOVER after 4, 8, 16 and 32 s; a switch port without portfast
/// learns for 30 s each time the link is taken over (by the loader, by the kernel). A stage that is
/// not here waits for no machine.
fn bounds(stage: Stage) -> Option<(u64, u64)> {
    let (unknown, floor) = match stage {
        Stage::Offer => (60, 40),
        Stage::Ack => (120, 45),
        Stage::Loader => (180, 75),
        Stage::Script => (90, 45),
        Stage::Kernel => (240, 60),
        Stage::Initramfs => (300, 90),
        Stage::Init => (120, 60),
        Stage::Root => (120, 60),
        Stage::RootReady => (120, 60),
        Stage::Switching => (600, 120),
        // Three heartbeats and a little.
        Stage::Up => (90, 90),
        // koboshi-init tells each of its first tries, then every eighth, half a minute apart.
        Stage::Trouble => (900, 900),
        Stage::Waiting | Stage::Rescue | Stage::Down => return None,
    };
    Some((unknown * 1000, floor * 1000))
}

#[cfg(test)]
mod tests {
    use super::super::course::tests::{boot, whole};
    use super::*;

    /// `whole()` as another machine's, stretched.
    fn slow(machine: &str, times: u64) -> BootRecord {
        let mut boot = BootRecord { machine: machine.into(), ..whole() };
        for mark in &mut boot.marks {
            mark.at = boot.opened + (mark.at - boot.opened) * times;
        }
        boot
    }

    fn seconds(learned: &Learned, machine: &str, class: Option<&str>, stage: Stage) -> u64 {
        let typical = learned.typical(|name| name.starts_with('s').then(|| "slow".to_string()));
        learned.deadline(&typical, (machine, class), stage, 0, 1).expect("it has one") / 1000
    }

    #[test]
    fn a_deadline_is_the_machines_own_then_its_classs_then_the_sites() {
        let mut learned = Learned::default();
        let initramfs =
            |learned: &Learned, who, class| seconds(learned, who, class, Stage::Initramfs);
        assert_eq!(initramfs(&learned, "m01", None), 300, "nobody has booted yet");
        for (machine, times) in [("m01", 2), ("m02", 2), ("m03", 3), ("s01", 10)] {
            learned.learn(Lesson::of_up(&slow(machine, times)).expect("up"));
        }
        assert_eq!(initramfs(&learned, "m01", None), 4 * 40, "its own");
        assert_eq!(initramfs(&learned, "m09", None), 4 * 60, "the site's");
        assert_eq!(initramfs(&learned, "s09", Some("slow")), 4 * 200, "its class's");
        assert_eq!(initramfs(&learned, "m09", Some("new")), 4 * 60, "a class nobody of has booted");
        assert_eq!(seconds(&learned, "m01", None, Stage::Init), 60, "never below the floor");
        // One boot in a storm changes nothing, seven do.
        learned.learn(Lesson::of_up(&slow("m01", 50)).expect("up"));
        learned.learn(Lesson::of_up(&slow("m01", 2)).expect("up"));
        assert_eq!(initramfs(&learned, "m01", None), 4 * 40);
        for _ in 0..KEPT {
            learned.learn(Lesson::of_up(&slow("m01", 20)).expect("up"));
        }
        assert_eq!(initramfs(&learned, "m01", None), 4 * 400);
    }

    #[test]
    fn a_root_is_measured_by_its_size_and_its_company() {
        let root = |learned: &Learned, size, share| {
            let typical = learned.typical(|_| None);
            let deadline = learned.deadline(&typical, ("m01", None), Stage::Root, size, share);
            deadline.expect("it has one") / 1000
        };
        let mut learned = Learned::default();
        assert_eq!(root(&learned, 200_000_000, 1), 220, "unknown: 2 MB/s and two minutes");
        let mut lesson = Lesson::of_up(&whole()).expect("up");
        lesson.root = Some(60_000_000); // in 6 s
        learned.learn(lesson);
        assert_eq!(root(&learned, 600_000_000, 1), 4 * 60);
        assert_eq!(root(&learned, 600_000_000, 10), 10 * 4 * 60);
        assert_eq!(root(&learned, 1_000_000, 1), 60);
        assert!(root(&learned, u64::MAX, u64::MAX) > 0, "nothing overflows");
        assert_eq!(learned.pace("m01"), Some(10.0));
    }

    #[test]
    fn a_start_is_its_quickest_restart_twice() {
        let opened = |after| BootRecord { after, ..boot(&[]) };
        let mut learned = Learned::default();
        assert_eq!(learned.start_time("m01"), 600_000);
        for after in [Some(250_000), Some(400_000), Some(9_000_000), None] {
            if let Some(lesson) = Lesson::of_opened(&opened(after)) {
                learned.learn(lesson);
            }
        }
        assert_eq!(learned.start_time("m01"), 500_000, "two hours in the cupboard are no restart");
        learned.learn(Lesson::of_opened(&opened(Some(20_000))).expect("a restart"));
        assert_eq!(learned.start_time("m01"), 180_000);
    }

    #[test]
    fn what_was_kept_is_learned_in_order_and_within_bounds() {
        let newest_first = (0..100).rev().map(|number| {
            let lesson = Lesson::of_kept(&slow("m01", 1 + number)).expect("up");
            Lesson { opened: number, ..lesson }
        });
        let learned = Learned::from_boots(newest_first.collect());
        let (stage, samples) = &learned.machines["m01"].steps[0];
        assert_eq!((*stage, samples.kept().count()), (Stage::Offer, KEPT));
        let kept: Vec<u64> = samples.kept().collect();
        assert_eq!(kept.iter().min(), Some(&(94 * 4000)), "{kept:?}");
        assert_eq!(kept.iter().max(), Some(&400_000), "{kept:?}");
        let mut learned = Learned::default();
        for number in 0..MACHINES_MAX + 100 {
            learned.learn(Lesson::of_up(&slow(&format!("x{number}"), 1)).expect("up"));
        }
        assert_eq!(learned.machines.len(), MACHINES_MAX);
    }
}
