//! A terminal server that says anything, while somebody types, sends BREAK and time passes: what is answered is
//! bounded by what came, what is typed is escaped, no event is empty; cut anywhere, the same comes out.

#![no_main]

use std::time::{Duration, Instant};

use koboshi_console::Operation;
use koboshi_console::wire::Event;
use koboshi_console::wire::telnet::Telnet;
use koboshi_fuzz::Input;
use libfuzzer_sys::fuzz_target;

/// Characters alone: how they are cut is nobody's business.
fn text(events: &[Event]) -> Vec<u8> {
    let bytes = events.iter().filter_map(|event| match event {
        Event::Data { bytes, .. } => Some(bytes.to_vec()),
        _ => None,
    });
    bytes.flatten().collect()
}

fuzz_target!(|bytes: &[u8]| {
    let now = Instant::now();
    let (mut whole, mut out) = (Vec::new(), Vec::new());
    Telnet::new("ts1 port 7001".to_string(), None).heard(bytes, now, &mut whole, &mut out);
    let (mut events, mut answers) = (Vec::new(), Vec::new());
    let mut telnet = Telnet::new("ts1 port 7001".to_string(), None);
    for piece in bytes.chunks(3) {
        telnet.heard(piece, now, &mut events, &mut answers);
    }
    assert_eq!((text(&whole), out), (text(&events), answers));

    let mut input = Input(bytes);
    let mut telnet = Telnet::new("ts1 port 7001".to_string(), None);
    let (mut now, mut events, mut out) = (now, Vec::new(), Vec::new());
    telnet.begin(now, &mut out);
    while input.more() {
        let (what, many) = (input.byte(), usize::from(input.byte()));
        let some = input.take(many);
        out.clear();
        events.clear();
        match what % 4 {
            0 | 1 => {
                telnet.heard(some, now, &mut events, &mut out);
                assert!(out.len() <= 16 * some.len() + 256, "{} for {}", out.len(), some.len());
            }
            2 => {
                now += Duration::from_millis(u64::from(what) * 64);
                telnet.past(now, &mut events, &mut out);
                assert!(out.len() < 256);
            }
            _ => {
                let operation = match what / 4 % 3 {
                    0 => Operation::Break,
                    1 => Operation::Dtr(many % 2 == 0),
                    _ => Operation::Rts(many % 2 == 0),
                };
                let _ = telnet.begin_to(operation, now, &mut out);
                assert!(out.len() < 256);
            }
        }
        for event in &events {
            assert!(!matches!(event, Event::Data { bytes, .. } if bytes.is_empty()));
        }
    }
});
