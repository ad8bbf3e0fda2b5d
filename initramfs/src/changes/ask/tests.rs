//! Both halves against each other, over a line that loses, damages, repeats and delays.

use proptest::prelude::*;

use super::super::Manner;
use super::super::answer::Answer;
use super::*;

/// A machine that answers.
struct Machine {
    lines: Lines,
    stream: Vec<u8>,
    answer: Option<Answer<std::io::Cursor<Vec<u8>>>>,
    picked: Vec<(u32, u32)>,
    left: bool,
}

impl Machine {
    fn new(stream: Vec<u8>) -> Machine {
        Machine { lines: Lines::default(), stream, answer: None, picked: Vec::new(), left: false }
    }

    fn came(&mut self, bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut requests = Vec::new();
        self.lines.came(bytes, |line| requests.extend(Request::read(line)));
        requests.into_iter().flat_map(|request| self.asked(request)).collect()
    }

    fn asked(&mut self, request: Request) -> Vec<Vec<u8>> {
        let one = |about, seq, body: &[u8]| {
            vec![Frame { about, seq, last: true, body: body.to_vec() }.line()]
        };
        match request {
            Request::Hello => one(About::Hello, 0, &serde_json::to_vec(&header()).unwrap()),
            Request::Bye => {
                self.left = true;
                Vec::new()
            }
            Request::Pick { round, line, ranges } => {
                if line == 0 {
                    self.picked.clear();
                }
                self.picked.extend(ranges);
                one(About::Picked(round), line, b"")
            }
            Request::Go { about, first, last, free } => {
                let stream = self.stream.clone();
                let answer = self
                    .answer
                    .get_or_insert_with(|| Answer::new(std::io::Cursor::new(stream), about, 50));
                answer.free(free);
                let frames = (first..=last).map_while(|seq| answer.frame(seq).unwrap());
                frames.map(|frame| frame.line()).collect()
            }
        }
    }
}

fn header() -> Header {
    Header {
        protocol: PROTOCOL,
        image: "web@3".to_owned(),
        key: "sha256:00".to_owned(),
        root: Manner::Ram,
        hostname: "web1".to_owned(),
        boot: "00".repeat(16),
        speed: 115_200,
    }
}

/// What a line does to a line of ours.
#[derive(Debug, Clone, Copy)]
enum Fate {
    Arrives,
    Lost,
    Twice,
    /// Something else is said in the middle of it.
    Spoiled(usize),
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        12 => Just(Fate::Arrives),
        1 => Just(Fate::Lost),
        1 => Just(Fate::Twice),
        1 => any::<usize>().prop_map(Fate::Spoiled),
    ]
}

fn suffer(line: &[u8], fate: Fate) -> Vec<u8> {
    match fate {
        Fate::Arrives => line.to_vec(),
        Fate::Lost => Vec::new(),
        Fate::Twice => [line, line].concat(),
        Fate::Spoiled(at) => {
            let mut line = line.to_vec();
            let at = at % line.len();
            line.splice(at..at, b"[  99.000] random: crng init done\r\n".iter().copied());
            line
        }
    }
}

/// Runs it until it is idle; what came of it.
fn run(
    ask: &mut Ask,
    machine: &mut Machine,
    fates: &mut impl Iterator<Item = Fate>,
    now: &mut Instant,
) -> Vec<Event> {
    let mut events = Vec::new();
    for _ in 0..100_000 {
        match ask.next(*now) {
            Next::Idle => return events,
            Next::Came(event) => events.push(event),
            Next::Wait(until) => *now = until,
            Next::Send(bytes) => {
                let heard = suffer(&bytes, fates.next().unwrap_or(Fate::Arrives));
                for line in machine.came(&heard) {
                    let said = suffer(&line, fates.next().unwrap_or(Fate::Arrives));
                    for piece in said.chunks(33) {
                        ask.came(piece, *now);
                    }
                }
            }
        }
    }
    panic!("it has no end: {ask:?}");
}

fn bytes(many: usize) -> Vec<u8> {
    (0..many).map(|n| ((n * 7) >> 2) as u8).collect()
}

/// A line that lets a question and its answer through after two misfortunes: one that never does is told of.
fn bearable(fates: Vec<Fate>) -> Vec<Fate> {
    let mut bad = 0;
    let mut bearable = Vec::with_capacity(2 * fates.len());
    for fate in fates {
        bad = if matches!(fate, Fate::Arrives | Fate::Twice) { 0 } else { bad + 1 };
        bearable.push(fate);
        if bad == 2 {
            bearable.extend([Fate::Arrives; 2]);
            bad = 0;
        }
    }
    bearable
}

proptest! {
    #[test]
    fn whatever_the_line_does_the_stream_is_whole(
        many in 0_usize..6000, fates in proptest::collection::vec(fate(), 0..400), speed in prop_oneof![Just(0_u32), Just(9600), Just(115_200)],
    ) {
        let mut now = Instant::now();
        let mut machine = Machine::new(bytes(many));
        let mut fates = bearable(fates).into_iter();
        let mut ask = Ask::new(now);
        // The line may have eaten what was said first.
        now += AGAIN;
        let hello = run(&mut ask, &mut machine, &mut fates, &mut now);
        prop_assert!(hello.contains(&Event::Hello(header())), "{:?}", hello);
        ask.pace(90, speed);
        let picks: Vec<u32> = (0..450).filter(|n| n % 3 != 0).collect();
        ask.pick(1, &picks, now);
        let picked = run(&mut ask, &mut machine, &mut fates, &mut now);
        prop_assert_eq!(picked, [Event::Picked]);
        let mut got: Vec<u32> = machine.picked.iter().flat_map(|(from, to)| *from..=*to).collect();
        // A line of picks that came twice is in it twice.
        got.sort_unstable();
        got.dedup();
        prop_assert_eq!(got, picks);
        ask.get(About::Listing, now);
        let came = run(&mut ask, &mut machine, &mut fates, &mut now);
        prop_assert_eq!(came.last(), Some(&Event::Whole));
        let stream: Vec<u8> = came.iter().flat_map(|event| match event {
            Event::Bytes(bytes) => bytes.clone(),
            _ => Vec::new(),
        }).collect();
        prop_assert_eq!(stream, bytes(many));
        ask.bye();
        run(&mut ask, &mut machine, &mut std::iter::empty(), &mut now);
        prop_assert!(machine.left);
    }
}

#[test]
fn a_gap_is_asked_for_at_once() {
    let now = Instant::now();
    let mut ask = Ask::new(now);
    ask.get(About::Listing, now);
    assert!(matches!(ask.next(now), Next::Send(_)));
    let frame = |seq| Frame { about: About::Listing, seq, last: false, body: vec![1] }.line();
    ask.came(&frame(0), now);
    ask.came(&frame(3), now);
    let sent: Vec<Next> = (0..2).map(|_| ask.next(now)).collect();
    let go = Request::Go { about: About::Listing, first: 1, last: 2, free: 1 };
    assert_eq!(sent, [Next::Came(Event::Bytes(vec![1])), Next::Send(go.line())]);
    assert_eq!(ask.repeated, 2);
    assert!(matches!(ask.next(now), Next::Wait(_)), "and once");
}

#[test]
fn a_machine_that_says_nothing_is_given_up() {
    let mut now = Instant::now();
    let begun = now;
    let mut ask = Ask::new(now);
    let failed = loop {
        match ask.next(now) {
            Next::Wait(until) => now = until,
            Next::Came(event) => break event,
            Next::Send(_) => {}
            Next::Idle => panic!("it gave up without a word"),
        }
    };
    assert!(matches!(failed, Event::Failed(why) if why.contains("says nothing")));
    assert!(now - begun < Duration::from_secs(60));
    assert_eq!(ask.next(now), Next::Idle);
}

#[test]
fn what_is_said_before_us_and_in_anger_is_heard() {
    let now = Instant::now();
    let mut ask = Ask::new(now);
    ask.came(b"sh: 1: /run/koboshi/koboshi-init: not found\r\n", now);
    assert!(matches!(ask.next(now), Next::Came(Event::Said(line)) if line.ends_with(b"not found")));
    let words = Frame { about: About::Failed, seq: 0, last: true, body: b"only root may".to_vec() };
    ask.came(&words.line(), now);
    assert_eq!(ask.next(now), Next::Came(Event::Failed("only root may".to_owned())));
    let mut header = header();
    header.protocol = 9;
    let mut ask = Ask::new(now);
    let body = serde_json::to_vec(&header).unwrap();
    ask.came(&Frame { about: About::Hello, seq: 0, last: true, body }.line(), now);
    assert!(matches!(ask.next(now), Next::Came(Event::Failed(why)) if why.contains("protocol 9")));
}
