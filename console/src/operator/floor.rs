//! Who holds a line, who asks for it, who is there: decided without a clock and without a line.
//!
//! One person holds it. He lets go of it, hands it over, goes away, or has it taken from him. Whoever asks gets it
//! when it is free, in the order of asking; and at once from a holder who typed nothing for so long that he may
//! have gone to bed.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::{Floor, Holder, NotHanded, Person};

/// So many wait for a line; who comes then is told who holds it, and does not wait.
const ASKING: usize = 32;
/// Who asks again within so long is not told of again: programs knock for ever.
const KNOCKS: Duration = Duration::from_secs(10);

/// The same moment by both clocks: this process's, and Unix milliseconds.
pub(super) type Now = (Instant, u64);

/// What became of the right to type.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "did", rename_all = "kebab-case")]
pub enum Turn {
    /// Somebody holds the line, which was free.
    Holds {
        /// Who.
        who: Person,
    },
    /// Somebody took it from another.
    Took {
        /// Who has it now.
        who: Person,
        /// Who had it.
        from: Person,
    },
    /// Somebody got it from another who handed it over.
    Given {
        /// Who has it now.
        who: Person,
        /// Who had it.
        from: Person,
    },
    /// Somebody asked, and who had it was idle.
    GaveWay {
        /// Who has it now.
        who: Person,
        /// Who had it.
        from: Person,
    },
    /// It is free.
    LetGo {
        /// Who had it.
        who: Person,
    },
    /// Somebody asks for it.
    Asks {
        /// Who.
        who: Person,
        /// Who holds it.
        holder: Person,
    },
}

impl fmt::Display for Turn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Turn::Holds { who } => write!(f, "{who} holds the line"),
            Turn::Took { who, from } => write!(f, "{who} took the line from {from}"),
            Turn::Given { who, from } => write!(f, "{from} handed the line over to {who}"),
            Turn::GaveWay { who, from } => {
                write!(f, "{who} holds the line: {from} was idle and gave way")
            }
            Turn::LetGo { who } => write!(f, "{who} let go of the line"),
            Turn::Asks { who, holder } => {
                write!(f, "{who} asks for the line, which {holder} holds")
            }
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Turns {
    /// Who is there, by the number of his visit.
    people: BTreeMap<u64, Here>,
    holder: Option<Sits>,
    asking: VecDeque<u64>,
    /// Who asked last, and when.
    knocked: Option<(Person, Instant)>,
    visits: u64,
    pub(super) idle: Duration,
}

#[derive(Debug)]
struct Here {
    person: Person,
    types: bool,
}

#[derive(Debug)]
struct Sits {
    visit: u64,
    since: u64,
    /// When he typed last, or got it.
    active: Instant,
}

impl Turns {
    pub fn new(idle: Duration) -> Turns {
        Turns {
            people: BTreeMap::new(),
            holder: None,
            asking: VecDeque::new(),
            knocked: None,
            visits: 0,
            idle,
        }
    }

    /// Somebody comes, who may have the line or only looks; the number of his visit.
    pub fn enter(&mut self, person: Person, types: bool) -> u64 {
        self.visits += 1;
        self.people.insert(self.visits, Here { person, types });
        self.visits
    }

    /// He goes, and lets go.
    pub fn leave(&mut self, visit: u64, now: Now, out: &mut Vec<Turn>) {
        self.asking.retain(|asking| *asking != visit);
        self.release(visit, now, out);
        self.people.remove(&visit);
    }

    /// He asks. Otherwise who holds it: the one who asks waits.
    pub fn ask(&mut self, visit: u64, now: Now, out: &mut Vec<Turn>) -> Result<(), Holder> {
        let Some(sits) = &self.holder else {
            self.sit(visit, now);
            out.extend(self.person(visit).map(|who| Turn::Holds { who }));
            return Ok(());
        };
        if sits.visit == visit {
            return Ok(());
        }
        let idle = self.is_idle(now.0);
        if !self.asking.contains(&visit) && self.asking.len() < ASKING {
            self.asking.push_back(visit);
            let (who, holder) = (self.person(visit), self.holder().map(|holder| holder.person));
            if let (Some(who), Some(holder), false) = (who, holder, idle) {
                let again = self.knocked.as_ref().is_some_and(|(known, at)| {
                    *known == who && now.0.saturating_duration_since(*at) < KNOCKS
                });
                self.knocked = Some((who.clone(), now.0));
                out.extend((!again).then_some(Turn::Asks { who, holder }));
            }
        }
        self.late(now, out);
        match self.holder() {
            Some(holder) if holder.visit != visit => Err(holder),
            _ => Ok(()),
        }
    }

    /// He has it from now on, whoever had it.
    pub fn take(&mut self, visit: u64, now: Now, out: &mut Vec<Turn>) {
        let from = match &self.holder {
            Some(sits) if sits.visit == visit => return,
            Some(sits) => self.person(sits.visit),
            None => None,
        };
        self.sit(visit, now);
        let Some(who) = self.person(visit) else { return };
        out.push(match from {
            Some(from) => Turn::Took { who, from },
            None => Turn::Holds { who },
        });
    }

    /// He does not want it any more: whoever asked first has it. Not the holder: nothing.
    pub fn release(&mut self, visit: u64, now: Now, out: &mut Vec<Turn>) {
        if !self.holds(visit) {
            return;
        }
        self.holder = None;
        out.extend(self.person(visit).map(|who| Turn::LetGo { who }));
        if let Some(next) = self.asking.pop_front() {
            self.sit(next, now);
            out.extend(self.person(next).map(|who| Turn::Holds { who }));
        }
    }

    /// He gives it to somebody by name. Of several of that name, one who asks is meant.
    pub fn hand_over(
        &mut self,
        visit: u64,
        to: &str,
        now: Now,
        out: &mut Vec<Turn>,
    ) -> Result<(), NotHanded> {
        if !self.holds(visit) {
            return Err(NotHanded::NotYours);
        }
        let named = |other: &u64| {
            *other != visit && self.people.get(other).is_some_and(|here| here.person.name == to)
        };
        let asking = self.asking.iter().copied().find(|other| named(other));
        let here: Vec<u64> = self.people.keys().copied().filter(|other| named(other)).collect();
        let types = |other: &u64| self.people.get(other).is_some_and(|here| here.types);
        if !here.is_empty() && !here.iter().any(types) {
            return Err(NotHanded::MayNot { name: to.to_string() });
        }
        let here: Vec<u64> = here.into_iter().filter(types).collect();
        let next = match (asking, here.as_slice()) {
            (Some(next), _) => next,
            (None, [next]) => *next,
            (None, []) => return Err(NotHanded::NotHere { name: to.to_string() }),
            (None, many) => {
                return Err(NotHanded::Several { name: to.to_string(), many: many.len() });
            }
        };
        let from = self.person(visit);
        self.sit(next, now);
        if let (Some(who), Some(from)) = (self.person(next), from) {
            out.push(Turn::Given { who, from });
        }
        Ok(())
    }

    /// He types. Err: who holds it instead, if anybody does.
    pub fn types(&mut self, visit: u64, now: Instant) -> Result<(), Option<Holder>> {
        match &mut self.holder {
            Some(sits) if sits.visit == visit => {
                sits.active = now;
                Ok(())
            }
            _ => Err(self.holder()),
        }
    }

    /// When [`Turns::late`] is to be called.
    pub fn deadline(&self) -> Option<Instant> {
        let sits = self.holder.as_ref().filter(|_| !self.asking.is_empty())?;
        sits.active.checked_add(self.idle)
    }

    /// Gives an idle holder's line to whoever asked first.
    pub fn late(&mut self, now: Now, out: &mut Vec<Turn>) {
        if !self.is_idle(now.0) {
            return;
        }
        let from = self.holder().map(|holder| holder.person);
        let Some(next) = self.asking.pop_front() else { return };
        self.sit(next, now);
        if let (Some(who), Some(from)) = (self.person(next), from) {
            out.push(Turn::GaveWay { who, from });
        }
    }

    pub fn holds(&self, visit: u64) -> bool {
        self.holder.as_ref().is_some_and(|sits| sits.visit == visit)
    }

    pub fn floor(&self) -> Floor {
        let asking = self.asking.iter().filter_map(|visit| self.person(*visit)).collect();
        Floor { holder: self.holder(), asking }
    }

    /// Who is there, in the order of coming, no more than so many.
    pub fn people(&self, most: usize) -> Vec<Person> {
        self.people.values().take(most).map(|here| here.person.clone()).collect()
    }

    fn holder(&self) -> Option<Holder> {
        let Sits { visit, since, .. } = *self.holder.as_ref()?;
        Some(Holder { person: self.person(visit)?, since, visit })
    }

    pub fn person(&self, visit: u64) -> Option<Person> {
        self.people.get(&visit).map(|here| here.person.clone())
    }

    fn is_idle(&self, now: Instant) -> bool {
        self.holder
            .as_ref()
            .is_some_and(|sits| now.saturating_duration_since(sits.active) >= self.idle)
    }

    fn sit(&mut self, visit: u64, now: Now) {
        self.asking.retain(|asking| *asking != visit);
        self.holder = Some(Sits { visit, since: now.1, active: now.0 });
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const IDLE: Duration = Duration::from_secs(600);

    fn person(name: &str) -> Person {
        Person { name: name.to_string(), via: "cli".to_string() }
    }

    /// A table with these people, its first moment, and where turns go.
    fn table(names: &[&str]) -> (Turns, Vec<u64>, Now, Vec<Turn>) {
        let mut turns = Turns::new(IDLE);
        let visits = names.iter().map(|name| turns.enter(person(name), true)).collect();
        (turns, visits, (Instant::now(), 1000), Vec::new())
    }

    fn later(now: Now, by: Duration) -> Now {
        (now.0 + by, now.1 + u64::try_from(by.as_millis()).unwrap())
    }

    #[test]
    fn who_asks_first_holds_it_and_the_next_one_waits_until_it_is_free() {
        let (mut turns, visits, now, mut out) = table(&["alice", "bob", "carol"]);
        let [alice, bob, carol] = visits[..] else { panic!() };
        assert_eq!(turns.ask(alice, now, &mut out), Ok(()));
        let held = Holder { person: person("alice"), since: 1000, visit: alice };
        let then = later(now, Duration::from_secs(1));
        assert_eq!(turns.ask(bob, then, &mut out), Err(held.clone()));
        assert_eq!(turns.ask(carol, then, &mut out), Err(held.clone()));
        assert_eq!(turns.ask(bob, then, &mut out), Err(held.clone()), "asking twice is once");
        assert_eq!(turns.types(bob, then.0), Err(Some(held.clone())));
        assert_eq!(turns.types(alice, then.0), Ok(()));
        let floor = turns.floor();
        assert_eq!(
            (floor.holder, floor.asking),
            (Some(held), vec![person("bob"), person("carol")])
        );
        turns.leave(alice, then, &mut out);
        assert!(turns.holds(bob));
        turns.leave(carol, then, &mut out);
        turns.release(bob, then, &mut out);
        assert_eq!(turns.floor(), Floor::default());
        assert_eq!(turns.types(bob, then.0), Err(None));
        let (alice, bob, carol) = (person("alice"), person("bob"), person("carol"));
        let expected = [
            Turn::Holds { who: alice.clone() },
            Turn::Asks { who: bob.clone(), holder: alice.clone() },
            Turn::Asks { who: carol, holder: alice.clone() },
            Turn::LetGo { who: alice },
            Turn::Holds { who: bob.clone() },
            Turn::LetGo { who: bob },
        ];
        assert_eq!(out, expected);
    }

    #[test]
    fn an_idle_holder_gives_way_at_once_or_later() {
        let (mut turns, visits, now, mut out) = table(&["alice", "bob", "carol"]);
        let [alice, bob, carol] = visits[..] else { panic!() };
        turns.ask(alice, now, &mut out).unwrap();
        assert_eq!(turns.deadline(), None, "nobody asks: he may sleep");
        let asked = later(now, IDLE / 2);
        turns.ask(bob, asked, &mut out).unwrap_err();
        assert_eq!(turns.deadline(), Some(now.0 + IDLE));
        turns.types(alice, asked.0).unwrap();
        turns.late(later(now, IDLE), &mut out);
        assert!(turns.holds(alice), "he typed since");
        assert_eq!(turns.deadline(), Some(asked.0 + IDLE));
        turns.late(later(asked, IDLE), &mut out);
        assert!(turns.holds(bob));
        let gone = later(asked, IDLE * 2);
        assert_eq!(turns.ask(carol, gone, &mut out), Ok(()));
        let (alice, bob) = (person("alice"), person("bob"));
        let expected = [
            Turn::Asks { who: bob.clone(), holder: alice.clone() },
            Turn::GaveWay { who: bob.clone(), from: alice },
            Turn::GaveWay { who: person("carol"), from: bob },
        ];
        assert_eq!(out[1..], expected);
    }

    #[test]
    fn taking_and_handing_over() {
        let (mut turns, visits, now, mut out) = table(&["alice", "bob", "bob"]);
        let [alice, bob, other] = visits[..] else { panic!() };
        turns.take(alice, now, &mut out);
        turns.take(bob, now, &mut out);
        turns.take(bob, now, &mut out);
        let not_yours = turns.hand_over(alice, "bob", now, &mut out);
        assert_eq!(not_yours, Err(NotHanded::NotYours));
        let name = "eve".to_string();
        let nobody = turns.hand_over(bob, "eve", now, &mut out);
        assert_eq!(nobody, Err(NotHanded::NotHere { name: name.clone() }));
        turns.enter(person("eve"), false);
        let looks = turns.hand_over(bob, "eve", now, &mut out);
        assert_eq!(looks, Err(NotHanded::MayNot { name }));
        turns.hand_over(bob, "alice", now, &mut out).unwrap();
        let several = turns.hand_over(alice, "bob", now, &mut out);
        assert_eq!(several, Err(NotHanded::Several { name: "bob".to_string(), many: 2 }));
        turns.ask(other, now, &mut out).unwrap_err();
        turns.hand_over(alice, "bob", now, &mut out).unwrap();
        assert!(turns.holds(other), "the one of them who asks is meant");
        assert_eq!(turns.floor().asking, []);
        let (alice, bob) = (person("alice"), person("bob"));
        let expected = [
            Turn::Holds { who: alice.clone() },
            Turn::Took { who: bob.clone(), from: alice.clone() },
            Turn::Given { who: alice.clone(), from: bob.clone() },
            Turn::Asks { who: bob.clone(), holder: alice.clone() },
            Turn::Given { who: bob, from: alice },
        ];
        assert_eq!(out, expected);
    }

    #[test]
    fn who_knocks_for_ever_is_told_of_once_in_a_while() {
        let (mut turns, visits, now, mut out) = table(&["alice"]);
        turns.take(visits[0], now, &mut out);
        for nth in 0..1000u32 {
            let now = later(now, Duration::from_millis(20) * nth);
            let program = turns.enter(person("program"), true);
            turns.ask(program, now, &mut out).unwrap_err();
            turns.leave(program, now, &mut out);
        }
        assert_eq!(out.len(), 2, "{out:?}");
        assert_eq!(turns.people(9), [person("alice")]);
    }

    proptest! {
        /// Whatever people do: one holds it or nobody, and nobody who asks is forgotten while it is free.
        #[test]
        fn one_or_nobody(steps in prop::collection::vec((0u8..7, 0u64..6, 0u64..400), 0..200)) {
            let (mut turns, _, mut now, mut out) = table(&["a", "b", "c"]);
            for (step, visit, secs) in steps {
                now = later(now, Duration::from_secs(secs));
                match step {
                    0 => { turns.enter(person("d"), true); }
                    1 => turns.leave(visit, now, &mut out),
                    2 if turns.person(visit).is_some() => { let _who = turns.ask(visit, now, &mut out); }
                    3 if turns.person(visit).is_some() => turns.take(visit, now, &mut out),
                    4 => turns.release(visit, now, &mut out),
                    5 => { let _why = turns.hand_over(visit, "d", now, &mut out); }
                    _ => turns.late(now, &mut out),
                }
                let floor = turns.floor();
                prop_assert!(floor.holder.is_some() || floor.asking.is_empty());
                prop_assert!(floor.asking.len() <= ASKING);
                if let Some(holder) = floor.holder {
                    prop_assert!(turns.people.contains_key(&holder.visit));
                    prop_assert!(!turns.asking.contains(&holder.visit));
                }
            }
        }
    }
}
