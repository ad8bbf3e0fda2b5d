//! A console before a BMC that sends anything at any time, while somebody types: bounds hold, each packet is
//! answered by a few at most, nothing is taken twice for sent, and there is always something to wait for.

#![no_main]

use std::time::{Duration, Instant};

use koboshi_ipmi::sol::payload::{Activated, decode_owner, decode_status};
use koboshi_ipmi::sol::{Engine, Event, Operation, Settings};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = (decode_owner(bytes), decode_status(bytes, bytes.len() as u8));
    let largest = Activated::decode(bytes).map_or(255, |agreed| agreed.largest(false));
    assert!((1..=255).contains(&largest));
    let settings = Settings {
        largest: largest.min(60),
        input: 500,
        output: 700,
        acks_once: bytes.len().is_multiple_of(2),
        ..Settings::default()
    };
    let mut engine = Engine::new(&settings);
    let (mut now, mut number, mut rest) = (Instant::now(), 0u32, bytes);
    while let [what, length, after @ ..] = rest {
        let (data, after) = after.split_at(usize::from(*length).min(after.len()));
        rest = after;
        match what % 8 {
            // In turn, late, far ahead.
            0..=2 => number = number.wrapping_add(1),
            3 => number = number.wrapping_sub(u32::from(what / 8)),
            4 => number = number.wrapping_add(1 << 30),
            _ => {}
        }
        match what % 8 {
            0..=4 => engine.handle(number, data, now),
            5 => assert!(engine.write(data) <= data.len()),
            6 => {
                let _ = engine.operate(match what / 8 % 6 {
                    0 => Operation::Break,
                    1 => Operation::Ring,
                    2 => Operation::Cts(*length % 2 == 0),
                    3 => Operation::Dcd(*length % 2 == 0),
                    4 => Operation::FlushInbound,
                    _ => Operation::FlushOutbound,
                });
            }
            _ => {
                now += Duration::from_millis(u64::from(what / 8) * u64::from(*length));
                let mut read = 0;
                while let Some(event) = engine.event() {
                    if let Event::Data { bytes, .. } = event {
                        assert!(!bytes.is_empty());
                        read += bytes.len();
                    }
                }
                assert!(read <= settings.output);
            }
        }
        let mut sent = 0;
        while let Some(payload) = engine.poll(now) {
            sent += 1;
            assert!(sent <= 3 && (4..=4 + settings.largest).contains(&payload.len()));
        }
        assert!(engine.deadline().is_none_or(|deadline| deadline > now));
        assert!(engine.is_idle() || engine.deadline().is_some());
        assert!(engine.waiting() <= settings.input + settings.largest);
    }
});
