//! Pacing: what keeps a rack that comes back all at once from treading on its own feet. Each rendered
//! script carries pauses of its own, and above a bound the next machine is told how long to wait for
//! its turn. Nothing waits while few boot, nobody waits for ever, seats go before guests.

use std::time::{Duration, Instant};

/// Boots that may always fetch at a time, however slow the wire.
const ROOM_MIN: u64 = 32;
/// Boots that may fetch at this very moment: each is a connection or two, and memory for them, and who
/// reports or asks for an address has to get through between them …
const BUSY_MAX: u64 = 1024;
/// … and that may be let in, with those whose kernel is starting.
const ROOM_MAX: u64 = 7168;
/// Those let in share the wire so that each has its bytes within about this time: iPXE gives up on a
/// connection that is silent for long, and a person on a machine that shows nothing.
const WITHIN: Duration = Duration::from_secs(60);
/// The shortest and the longest a machine is sent away for; it asks again, and is told anew. A question
/// costs next to nothing, and the longer it is away the longer a room may stay empty.
pub(crate) const SHORTEST: Duration = Duration::from_secs(5);
const LONGEST: Duration = Duration::from_secs(20);
/// Bytes a second until it has been measured: a gigabit.
pub const ASSUMED: u64 = 100_000_000;
/// A measurement wants this many boots that have fetched all they fetch …
const MEASURED_BY: u32 = 16;
/// … within this time, told apart by spans of so long: it is the best of them that shows what the wire can do.
const SPANS: usize = 24;
const SPAN: Duration = Duration::from_secs(5);
/// So many times what boots show is believed of sockets: kernels that start are time in which nothing is fetched.
const BELIEVED: u64 = 4;
/// Sockets are counted no more often: their buffers fill at once, whatever the wire is.
const COUNTED: Duration = Duration::from_secs(2);

/// How it stands when one more machine asks for its script.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Crowd {
    /// Machines that were let in and have not all they fetch.
    pub fetching: usize,
    /// Of these, who fetches at this moment, and is not starting its kernel.
    pub busy: usize,
    /// Machines that wait and come before this one.
    pub before: usize,
    /// Of these, who asks again within seconds, or should have: the rooms that are free are theirs. Who was
    /// told to come back later leaves none empty until then.
    pub due: usize,
    /// Of those, who asks again within a second, or should have. Who fetches at this moment is ready a moment later:
    /// what is kept free of that for longer is nobody's.
    pub at_hand: usize,
    /// Bytes that this one will fetch.
    pub bytes: u64,
    /// Bytes a second that the appliance hands out.
    pub rate: u64,
}

/// How long the machine waits before it asks again; `None`: it goes on now. `draw` is any random
/// number.
pub fn pause(crowd: &Crowd, draw: u64) -> Option<Duration> {
    let (rate, bytes) = (crowd.rate.max(1), crowd.bytes.max(1));
    let room = (rate.saturating_mul(WITHIN.as_secs()) / bytes).clamp(ROOM_MIN, ROOM_MAX);
    let over = |ahead: usize, at_hand: usize| {
        let promised = ((crowd.fetching + ahead + 1) as u64).saturating_sub(room);
        promised.max(((crowd.busy + at_hand + 1) as u64).saturating_sub(BUSY_MAX))
    };
    if over(crowd.due, crowd.at_hand) == 0 {
        return None;
    }
    let turns = over(crowd.before, crowd.before).max(1);
    // Half of what that takes: then it is known better, and who is away for long leaves a room empty.
    let seconds = (turns as f64 * bytes as f64 / rate as f64 / 2.0).min(LONGEST.as_secs_f64());
    let pause = Duration::from_secs_f64(seconds).max(SHORTEST);
    // Up to a half less, so that those who wait longest do not all come back in one second.
    let less = pause.mul_f64((draw % 1000) as f64 / 2000.0);
    Some((pause - less).max(SHORTEST))
}

/// What the appliance hands out, measured by boots that have fetched everything, and by what its sockets took.
#[derive(Debug, Default)]
pub struct Rate {
    begun: Option<Instant>,
    /// Number of the span since then, bytes that were under way in it, boots that ended in it. A ring.
    spans: [(u64, f64, u32); SPANS],
    /// All bytes that the sockets had taken when they were last counted, and by spans the best rate since.
    sockets: Option<(Instant, u64)>,
    best: [(u64, u64); SPANS],
}

impl Rate {
    /// A boot that was let in then has fetched so many bytes: as many in each moment.
    pub fn fetched(&mut self, bytes: u64, let_in: Instant, now: Instant) {
        let begun = *self.begun.get_or_insert(let_in);
        let since = |at: Instant| at.saturating_duration_since(begun).as_secs_f64();
        let (from, to) = (since(let_in), since(now).max(since(let_in) + 0.001));
        let length = SPAN.as_secs_f64();
        let last = (to / length) as u64;
        let first = ((from / length) as u64).max((last + 1).saturating_sub(SPANS as u64));
        for number in first..=last {
            let span = &mut self.spans[(number % SPANS as u64) as usize];
            if span.0 != number {
                *span = (number, 0.0, 0);
            }
            let begins = number as f64 * length;
            let there = (to.min(begins + length) - from.max(begins)).max(0.0);
            span.1 += bytes as f64 * there / (to - from);
            span.2 += u32::from(number == last);
        }
    }

    /// The sockets have taken so many bytes since the start. What they took of late the wire can do, whoever is
    /// ready by now: boots that spend half a minute on their kernels say that late. Some of it never left their
    /// buffers (who asks for much and breaks off may mean that), so boots that have all may speak against it.
    pub fn taken(&mut self, bytes: u64, now: Instant) {
        let begun = *self.begun.get_or_insert(now);
        let (at, before) = *self.sockets.get_or_insert((now, bytes));
        let passed = now.saturating_duration_since(at);
        if passed < COUNTED {
            return;
        }
        self.sockets = Some((now, bytes));
        let rate = (bytes.saturating_sub(before) as f64 / passed.as_secs_f64()) as u64;
        let number = now.saturating_duration_since(begun).as_secs() / SPAN.as_secs();
        let best = &mut self.best[(number % SPANS as u64) as usize];
        let former = if best.0 == number { best.1 } else { 0 };
        *best = (number, rate.max(former));
    }

    /// Bytes a second. It is believed once as many have fetched everything as are half of those that fetch: the
    /// first ones to be ready are few, and say nothing of what the others have of the wire.
    pub fn now(&self, now: Instant, fetching: usize) -> u64 {
        let Some(begun) = self.begun else { return ASSUMED };
        let at = now.saturating_duration_since(begun).as_secs() / SPAN.as_secs();
        let of_late = |number: u64| number + SPANS as u64 > at;
        let sockets = self.best.iter().filter(|(number, _)| of_late(*number));
        let sockets = sockets.map(|(_, rate)| *rate).max().unwrap_or(0);
        let recent = self.spans.iter().filter(|(number, ..)| of_late(*number));
        let (mut most, mut count) = (0.0_f64, 0);
        for (_, bytes, ended) in recent {
            (most, count) = (most.max(*bytes), count + ended);
        }
        if count < MEASURED_BY || (count as usize) < fetching / 2 {
            return sockets.max(ASSUMED);
        }
        let boots = (most / SPAN.as_secs_f64()) as u64;
        sockets.min(boots.saturating_mul(BELIEVED)).max(boots)
    }
}

/// The pauses of one rendered script. A loader has no random numbers: they are drawn where its script
/// is written. One digit each, so that a script asked for twice has the same size: UEFI asks TFTP
/// for the size first, and refuses a file that has grown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pauses {
    /// Seconds after the first failure.
    pub first: u64,
    /// Seconds that each further failure adds.
    pub more: u64,
    /// Seconds until a machine with nothing to boot asks again (two digits).
    pub again: u64,
}

impl Pauses {
    /// Draws them.
    pub fn drawn(draw: u64) -> Pauses {
        Pauses { first: 2 + draw % 7, more: 1 + (draw >> 8) % 2, again: 10 + (draw >> 16) % 11 }
    }
}

/// Any number.
pub fn draw() -> u64 {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).expect("Linux gives random bytes from early boot on");
    u64::from_ne_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: u64 = 1_000_000;

    #[test]
    fn who_waits_and_how_long() {
        let crowd = |fetching, before, bytes, rate| Crowd {
            fetching,
            busy: fetching,
            before,
            due: before,
            at_hand: before,
            bytes,
            rate,
        };
        let seconds = |crowd| pause(&crowd, 0).map(|pause| pause.as_secs());
        for (crowd, expected, why) in [
            (crowd(0, 0, 80 * MB, 100 * MB), None, "alone"),
            (crowd(31, 0, 5000 * MB, 10 * MB), None, "few boot, however slow the wire"),
            (crowd(74, 0, 80 * MB, 100 * MB), None, "a gigabit has 75 of 80 MB in a minute"),
            (crowd(75, 0, 80 * MB, 100 * MB), Some(5), "next, and no storm of questions"),
            (crowd(75, 9, 80 * MB, 100 * MB), Some(5), "ten turns of 0.8 s"),
            (crowd(75, 19, 80 * MB, 100 * MB), Some(8), "half of twenty turns of 0.8 s"),
            (crowd(75, 900, 80 * MB, 100 * MB), Some(20), "far behind: asks again before long"),
            (crowd(1023, 0, 1, 100 * MB), None, "tiny ones are let in by hundreds"),
            (crowd(1024, 0, 1, 100 * MB), Some(5), "but not without bound"),
            (crowd(40, 0, 0, 0), None, "nothing known yet"),
            (crowd(usize::MAX / 2, 9, u64::MAX, 1), Some(20), "nothing overflows"),
        ] {
            assert_eq!(seconds(crowd), expected, "{why}");
        }
        let starting = |fetching| Crowd { busy: 100, ..crowd(fetching, 0, 1, 100 * MB) };
        assert_eq!(seconds(starting(7167)), None, "most of them start their kernels");
        assert_eq!(seconds(starting(7168)), Some(5), "and will come back for their roots");
        let free = Crowd { due: 3, at_hand: 0, ..crowd(70, 900, 80 * MB, 100 * MB) };
        assert_eq!(seconds(free), None, "rooms are free, and who is before it is far away");
        let taken = Crowd { due: 5, ..free };
        assert_eq!(seconds(taken), Some(20), "those that are about to come back have them");
        let small = Crowd { due: 3000, at_hand: 900, busy: 100, ..crowd(600, 8000, 1, 100 * MB) };
        assert_eq!(seconds(small), None, "it is through before most of them come");
        assert_eq!(
            seconds(Crowd { at_hand: 924, ..small }),
            Some(5),
            "those at hand are before it"
        );
        let far = crowd(75, 900, 80 * MB, 100 * MB);
        let drawn: std::collections::BTreeSet<_> =
            (0..1000).filter_map(|draw| pause(&far, draw * 7919)).collect();
        assert!(drawn.len() > 500, "they come back spread out");
        assert!(drawn.iter().all(|pause| (10.0..=20.0).contains(&pause.as_secs_f64())));
    }

    #[test]
    fn a_rate_is_believed_once_enough_boots_made_it() {
        let start = Instant::now();
        let s = |seconds| start + Duration::from_secs(seconds);
        let mut rate = Rate::default();
        assert_eq!(rate.now(s(0), 0), ASSUMED);
        for second in 0..15 {
            // One after the other.
            rate.fetched(80 * MB, s(second), s(second + 1));
        }
        assert_eq!(rate.now(s(15), 1), ASSUMED, "15 are too few");
        rate.fetched(80 * MB, s(15), s(16));
        assert_eq!(rate.now(s(16), 1), 80 * MB);
        assert_eq!(rate.now(s(16), 33), 80 * MB);
        assert_eq!(rate.now(s(16), 34), ASSUMED, "of those that were let in, 16 are not half");
        assert_eq!(rate.now(s(500), 1), ASSUMED, "long ago");
    }

    #[test]
    fn what_the_sockets_take_is_what_the_wire_can_do_at_least() {
        let start = Instant::now();
        let ms = |ms| start + Duration::from_millis(ms);
        let mut rate = Rate::default();
        rate.taken(5000 * MB, ms(0));
        rate.taken(6000 * MB, ms(1000));
        assert_eq!(rate.now(ms(1000), 1000), ASSUMED, "what buffers take at once says nothing");
        rate.taken(7000 * MB, ms(2000));
        assert_eq!(rate.now(ms(2000), 1000), 1000 * MB, "though nobody has all it fetches");
        for second in 3..60 {
            rate.taken(7000 * MB + second, ms(second * 1000));
        }
        assert_eq!(rate.now(ms(60_000), 0), 1000 * MB, "they had less to do since");
        rate.taken(7000 * MB + 61, ms(200_000));
        assert_eq!(rate.now(ms(200_000), 0), ASSUMED, "long ago");
        // A slow wire is known by the boots that share it.
        let mut rate = Rate::default();
        for second in 0..=80 {
            rate.taken(second * 10 * MB, ms(second * 1000));
        }
        assert_eq!(rate.now(ms(80_000), 40), ASSUMED);
        (0..40).for_each(|_| rate.fetched(20 * MB, ms(0), ms(80_000)));
        assert_eq!(rate.now(ms(80_000), 40), 10 * MB);
        // A counter that begins anew, and one that somebody makes run.
        rate.taken(0, ms(90_000));
        assert_eq!(rate.now(ms(90_000), 40), 10 * MB);
        rate.taken(100_000 * MB, ms(92_000));
        assert_eq!(rate.now(ms(92_000), 40), 40 * MB);
    }

    #[test]
    fn those_that_share_a_wire_show_it_together() {
        let start = Instant::now();
        let s = |seconds| start + Duration::from_secs(seconds);
        // Forty share 10 MB a second, and all are ready at once.
        let mut rate = Rate::default();
        for _ in 0..40 {
            rate.fetched(20 * MB, s(0), s(80));
        }
        assert_eq!(rate.now(s(80), 0), 10 * MB);
        // Small ones that spend their time on other things say less than the wire can do, and more with each
        // that is let in: no bound for long.
        let mut rate = Rate::default();
        for number in 0..1000 {
            rate.fetched(4 * MB, s(number / 200), s(8 + number / 200));
        }
        assert!(rate.now(s(13), 100) > 300 * MB, "{}", rate.now(s(13), 100));
        // A boot of hours, one that ends before it began, and a day without any.
        rate.fetched(MB, s(0), s(20_000));
        rate.fetched(MB, s(20_010), s(20_000));
        assert_eq!(rate.now(s(100_000), 0), ASSUMED);
    }

    #[test]
    fn pauses_differ_and_keep_a_scripts_size() {
        let drawn: Vec<Pauses> = (0..1 << 12).map(|n| Pauses::drawn(n * 0x0101_0101)).collect();
        assert!(drawn.iter().all(|p| p.first < 10 && p.more < 10 && (10..=20).contains(&p.again)));
        let kinds: std::collections::HashSet<_> = drawn.iter().map(|p| (p.first, p.more)).collect();
        assert_eq!(kinds.len(), 14);
    }
}
