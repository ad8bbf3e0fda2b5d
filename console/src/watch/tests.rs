use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;

struct Line {
    watcher: Watcher,
    begun: Instant,
    /// Milliseconds since then.
    now: u64,
    hits: Vec<Hit>,
}

impl Line {
    fn new() -> Line {
        Line::with(Rules::default())
    }

    fn with(rules: Rules) -> Line {
        let watcher = Watcher::new("m01".into(), Arc::new(rules));
        Line { watcher, begun: Instant::now(), now: 0, hits: Vec::new() }
    }

    fn clock(&self) -> (Instant, u64) {
        (self.begun + Duration::from_millis(self.now), self.now)
    }

    fn says(&mut self, text: &[u8]) -> &mut Line {
        self.watcher.came(text, self.clock(), &mut self.hits);
        self
    }

    /// So long nothing is said; it is called when it asked for that, and at the end.
    fn waits(&mut self, ms: u64) -> &mut Line {
        let end = self.now + ms;
        while let Some(at) = self.watcher.deadline() {
            let at = at.duration_since(self.begun).as_millis() as u64;
            if at > end {
                break;
            }
            assert!(at >= self.now, "it asks for what is over");
            self.now = at;
            self.watcher.late(self.clock(), &mut self.hits);
            let next = self.watcher.deadline();
            assert!(next.is_none_or(|next| next > self.clock().0), "it asks for the same again");
        }
        self.now = end;
        self
    }

    /// Rule, line, how many before and behind; or how often again.
    fn told(&mut self) -> Vec<String> {
        let told = self.hits.drain(..).map(|hit| match hit.what {
            What::Said { line, before, behind } => {
                format!("{}: {line} [{}+{}]", hit.rule, before.len(), behind.len())
            }
            What::Again { times, within } => {
                format!("{}: {times} more in {} s", hit.rule, within / 1000)
            }
        });
        told.collect()
    }
}

/// A machine shows one key of each kind; a second one of a kind is what somebody should hear of.
#[test]
fn each_host_key_is_told_and_a_flood_of_them_is_not() {
    let mut line = Line::new();
    line.says(b"web1 login: \r\nkoboshi: ssh host key ssh-ed25519 AAAA1\r\n");
    line.says(b"\r\nkoboshi: ssh host key ecdsa-sha2-nistp256 AAAA2\r\n").waits(2000);
    line.says(b"koboshi: ssh host key ssh-ed25519 AAAA3\r\n").waits(2000);
    let told = line.told();
    let keys: Vec<&str> =
        told.iter().filter_map(|told| told.strip_prefix("ssh-host-key: ")).collect();
    assert_eq!(keys.len(), 3, "{told:?}");
    assert!(keys[2].starts_with("koboshi: ssh host key ssh-ed25519 AAAA3 ["), "{told:?}");
    for _ in 0..100 {
        line.says(b"koboshi: ssh host key ssh-ed25519 AAAA4\r\n").waits(10);
    }
    assert!(line.waits(5000).told().len() < 8);
}

const PANIC: &[u8] =
    b"[ 1.0] one\r\n\x1b[1;31m[ 2.0] Kernel \x1b[0;1mpanic - not syncing: VFS\x1b[0m\r\n";

#[test]
fn a_panic_with_the_lines_around_it() {
    let mut line = Line::new();
    line.says(PANIC);
    assert_eq!(line.told(), [""; 0], "what follows belongs to it");
    line.says(b"[ 2.1] CPU: 0 PID: 1\r\n\r\n[ 2.2] Call Trace:\r\n").waits(999);
    assert_eq!(line.told(), [""; 0]);
    line.waits(1);
    let hit = line.hits[0].clone();
    assert_eq!((hit.rule.as_str(), hit.level, hit.at), ("kernel-panic", Level::Error, 0));
    let What::Said { line: said, before, behind } = hit.what else { panic!() };
    assert_eq!(said, "[ 2.0] Kernel panic - not syncing: VFS");
    assert_eq!(before, ["[ 1.0] one"]);
    assert_eq!(behind, ["[ 2.1] CPU: 0 PID: 1", "[ 2.2] Call Trace:"]);
    assert_eq!(line.told().len(), 1, "the trace is its own");
    line.waits(100_000);
    assert!(line.told().is_empty() && line.watcher.deadline().is_none());
}

#[test]
fn lines_behind_come_in_time_or_are_not_waited_for() {
    let mut line = Line::new();
    line.says(PANIC);
    for _ in 0..BEHIND {
        line.says(b"more\r\n");
    }
    assert_eq!(line.told(), ["kernel-panic: [ 2.0] Kernel panic - not syncing: VFS [1+6]"]);
    // One that says a dot each half second would never be quiet.
    let mut line = Line::new();
    line.says(PANIC);
    for _ in 0..12 {
        line.says(b".").waits(500);
    }
    assert_eq!(line.told(), ["kernel-panic: [ 2.0] Kernel panic - not syncing: VFS [1+0]"]);
}

#[test]
fn a_prompt_has_no_newline_behind_it() {
    let mut line = Line::new();
    line.says(b"Debian GNU/Linux 12 web1 ttyS0\r\n\r\nweb1 lo")
        .waits(299)
        .says(b"gin: ")
        .waits(1300);
    assert_eq!(line.told(), ["login-prompt: web1 login: [1+0]"]);
    // Slowly, by a line of 300 baud.
    let mut line = Line::new();
    for piece in [&b"web1 "[..], b"logi", b"n:", b" "] {
        line.says(piece).waits(2000);
    }
    assert_eq!(line.told(), ["login-prompt: web1 login: [0+0]"]);
    // What is typed there makes no other one.
    line.says(b"r").waits(2000).says(b"oot\r\nPassword: ").waits(2000);
    assert_eq!(line.told(), [""; 0]);
    // Whoever types at once was not asked.
    let mut line = Line::new();
    line.says(b"web1 login: root\r\n").waits(5000);
    assert_eq!(line.told(), [""; 0]);
}

#[test]
fn what_a_loop_says_is_folded() {
    let mut line = Line::new();
    for second in 0..3600 {
        line.says(b"[1] BUG: unable to handle page fault\r\n").waits(1000);
        if second == 0 {
            assert_eq!(line.told().len(), 1);
        }
    }
    // 60 s, then 120, 240, 480, 600 …
    let told = line.told();
    assert_eq!(told[0], "kernel-oops: 59 more in 60 s");
    assert_eq!(told[1], "kernel-oops: 120 more in 120 s");
    assert!(told.len() <= 9 && told.last().unwrap().ends_with("600 more in 600 s"), "{told:?}");
    line.waits(2_000_000);
    line.told();
    line.says(b"[1] BUG: unable to handle page fault\r\n").waits(1000);
    assert_eq!(line.told().len(), 1, "after a long silence it is news");
}

#[test]
fn a_machine_that_starts_says_news() {
    let mut line = Line::new();
    let boot = b"\x1bc\x1b[?7l\x1b[2J\x1b[0mSeaBIOS (version 1.16)\r\niPXE initialising devices...ok\r\nm01 login: ";
    line.says(boot).waits(5000);
    assert_eq!(
        line.told(),
        ["starts: SeaBIOS (version 1.16) [0+1]", "login-prompt: m01 login: [2+0]"]
    );
    line.says(b"\r\nm01 login: ").waits(5000);
    assert_eq!(line.told(), [""; 0], "the same getty");
    line.waits(120_000);
    line.says(boot).waits(5000);
    assert_eq!(line.told().len(), 2);
    // A loop of them is one, whatever it says in between.
    for _ in 0..100 {
        line.says(boot).says(b"\r\n").says(PANIC).waits(5000);
    }
    let told = line.told();
    let panics = told.iter().filter(|told| told.starts_with("kernel-panic: [")).count();
    assert!(told.len() < 20 && (1..5).contains(&panics), "{told:?}");
}

#[test]
fn rules_change_while_it_runs() {
    let mut line = Line::new();
    line.says(PANIC);
    let own = Rule {
        name: "fan".to_string(),
        pattern: "fan [0-9] failed".to_string(),
        level: Level::Warning,
        only: None,
    };
    let rules = Arc::new(Rules::new(&[own]).unwrap());
    let mut hits = Vec::new();
    line.watcher.rules(rules, &mut hits);
    assert_eq!(hits.len(), 1);
    line.says(b"fan 3 failed\n").waits(2000);
    assert_eq!(line.told(), ["fan: fan 3 failed [2+0]"]);
}

#[test]
fn a_line_costs_little_whatever_it_says() {
    let mut line = Line::new();
    let mut noise = vec![0u8; 5000];
    for round in 0..2000u64 {
        let mut state = round.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        for byte in &mut noise {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            *byte = (state >> 24) as u8;
        }
        line.says(&noise);
        for (name, level, _) in super::rules::OURS {
            line.says(
                format!("{name} {level:?} PXE-E11 panic: I/O error, dev x{}\n", "y".repeat(900))
                    .as_bytes(),
            );
        }
        line.hits.clear();
    }
    let watcher = &line.watcher;
    let bytes = size_of::<Watcher>()
        + watcher.lines.bytes()
        + watcher.around.bytes()
        + watcher.waiting.capacity() * size_of::<Waiting>()
        + watcher.folds.capacity() * size_of::<Fold>()
        + watcher.known.capacity() * size_of::<usize>();
    assert!(bytes < 8192, "{bytes}");
}

proptest! {
    /// Whatever is said and however it is split: the same hits, and an end to the waiting.
    #[test]
    fn any_bytes_split_anywhere(
        parts in prop::collection::vec(prop_oneof![
            prop::collection::vec(any::<u8>(), 0..40),
            prop::sample::select(vec![PANIC.to_vec(), b"m01 login: ".to_vec(), b"\r\n".to_vec(), b"SeaBIOS (\n".to_vec(), b"PXE-E11\r\n".to_vec(), b"Call Trace:\n".to_vec(), b"one\ntwo\n".to_vec()]),
        ], 0..60),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..10),
    ) {
        let bytes = parts.concat();
        let mut whole = Line::new();
        whole.says(&bytes).waits(10_000_000);
        prop_assert_eq!(whole.watcher.deadline(), None);
        let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        at.sort();
        let (mut split, mut start) = (Line::new(), 0);
        for end in at.into_iter().chain([bytes.len()]) {
            if end > start {
                split.says(&bytes[start..end]);
            }
            start = end;
        }
        split.waits(10_000_000);
        prop_assert_eq!(split.hits, whole.hits);
    }
}
