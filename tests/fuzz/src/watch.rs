//! Lines that say anything, watched by our rules and one of the user's own: hits are bounded in number and in what
//! they carry, and printable; a deadline that has passed is gone once it was kept.

#![no_main]

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use koboshi_console::watch::rules::{Rules, check};
use koboshi_console::watch::{Hit, Level, Rule, Watcher, What};
use koboshi_fuzz::Input;
use libfuzzer_sys::fuzz_target;

fn rules() -> Arc<Rules> {
    static RULES: OnceLock<Arc<Rules>> = OnceLock::new();
    let own = Rule {
        name: "own".to_string(),
        pattern: "(a|b)*c$|^x".to_string(),
        level: Level::Info,
        only: None,
    };
    RULES.get_or_init(|| Arc::new(Rules::new(&[own]).expect("they are small"))).clone()
}

fn seen(hits: &mut Vec<Hit>) -> usize {
    for hit in hits.iter() {
        if let What::Said { line, before, behind } = &hit.what {
            assert!(before.len() <= 6 && behind.len() <= 6);
            for line in before.iter().chain(behind).chain([line]) {
                assert!(
                    line.len() <= 4096 && !line.contains(|c: char| c.is_control() && c != '\t'),
                    "{line:?}"
                );
            }
        }
    }
    let many = hits.len();
    hits.clear();
    many
}

fuzz_target!(|bytes: &[u8]| {
    if let Ok(pattern) = std::str::from_utf8(bytes)
        && check(pattern).is_ok()
    {
        let own = Rule {
            name: "own".to_string(),
            pattern: pattern.to_string(),
            level: Level::Error,
            only: None,
        };
        if bytes.len() < 64 {
            let _ = Rules::new(&[own]);
        }
    }
    let mut input = Input(bytes);
    let mut watcher = Watcher::new("m01".into(), rules());
    let (mut now, mut at) = (Instant::now(), 1_800_000_000_000);
    let mut hits = Vec::new();
    while input.more() {
        let (what, many) = (input.byte(), usize::from(input.byte()));
        match what % 8 {
            0..=4 => {
                let some = input.take(many);
                watcher.came(some, (now, at), &mut hits);
                // A line's worth may hit each rule once.
                assert!(seen(&mut hits) <= 64 * (some.len() + 8));
            }
            5 => {
                // One that never ends.
                watcher.came(&vec![what; many * 64], (now, at), &mut hits);
                seen(&mut hits);
            }
            6 => {
                watcher.broke_off((now, at), &mut hits);
                seen(&mut hits);
            }
            _ => {
                let later = u64::from(what / 8) * many as u64;
                now += Duration::from_millis(later);
                at += later;
                watcher.late((now, at), &mut hits);
                seen(&mut hits);
                assert!(watcher.deadline().is_none_or(|deadline| deadline > now));
            }
        }
    }
});
