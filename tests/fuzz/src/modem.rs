//! The other side of a file transfer that sends anything, to each sender and each receiver: each ends, says what is
//! to be done in its order, asks for no more than there is, and hands on names that are no paths.

#![no_main]

use std::time::{Duration, Instant};

use koboshi_console::modem::{
    Answer, Engine, Failure, Next, Options, Outgoing, Protocol, receive, safe_name, send,
};
use libfuzzer_sys::fuzz_target;

const SIZE: u64 = 3000;

fn run(mut engine: Box<dyn Engine>, bytes: &[u8], cut: usize, mut now: Instant) {
    let mut pieces = bytes.chunks(cut.max(1));
    let (mut sent, mut stored, mut steps, mut stopped) = (0usize, 0usize, 0, false);
    loop {
        steps += 1;
        assert!(steps < 100_000, "it does not end");
        match engine.next(now) {
            Next::Send(bytes) => {
                assert!(!bytes.is_empty());
                sent += bytes.len();
            }
            Next::Read { file, at, most } => {
                assert!(file < 2 && most > 0 && most <= 64 * 1024);
                let many = SIZE.saturating_sub(at).min(most as u64);
                engine.data(&vec![file as u8; many as usize]);
            }
            Next::Offer(announced) => {
                if let Some(name) = announced.name.and_then(|name| safe_name(&name)) {
                    assert!(!name.is_empty() && name.len() <= 255);
                    assert!(!name.contains(['/', '\0']) && !name.starts_with('.'), "{name:?}");
                }
                engine.answer(match bytes.first().map_or(0, |byte| byte % 3) {
                    0 => Answer::Skip,
                    1 => Answer::Take { at: 0, crc: 0 },
                    _ => Answer::Take { at: 1000, crc: 0x1234_5678 },
                });
            }
            Next::Store(bytes) => stored += bytes.len(),
            Next::Begin { .. } | Next::Whole { .. } | Next::Sent { .. } | Next::Skipped { .. } => {}
            Next::Wait(until) => match pieces.next() {
                Some(piece) => engine.came(piece),
                None => {
                    assert!(until > now, "it waits for what has passed");
                    now = until;
                    if steps > 50_000 && !stopped {
                        stopped = true;
                        engine.stop(Failure::Stopped);
                    }
                }
            },
            Next::End(_) => break,
        }
    }
    assert!(stored <= bytes.len() * 256 + 1024 && sent < 64 << 20, "{stored} {sent}");
}

fuzz_target!(|bytes: &[u8]| {
    let [which, cut, said @ ..] = bytes else { return };
    let protocol = match which % 4 {
        0 => Protocol::Zmodem,
        1 => Protocol::Ymodem,
        2 => Protocol::Xmodem,
        _ => Protocol::Xmodem1k,
    };
    let options = Options { escape: which / 4 % 2 == 0 };
    let now = Instant::now() + Duration::from_secs(1);
    let engine = match which / 8 % 2 {
        0 => receive(protocol, options, now),
        _ => {
            let file = |name: &str| Outgoing { name: name.to_string(), size: SIZE, modified: 0 };
            send(protocol, vec![file("one"), file("two")], options, now)
        }
    };
    run(engine, said, usize::from(*cut), now);
});
