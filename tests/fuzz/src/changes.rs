//! What a running machine says of its root: listings, contents, and lines among anything else a console says. All of
//! it is read to an end or refused, and who asks gives up in time.

#![no_main]

use std::time::Instant;

use koboshi_initramfs::changes::ask::{Ask, Next};
use koboshi_initramfs::changes::contents::Parts;
use koboshi_initramfs::changes::frame::{About, Frame, Lines, Request};
use koboshi_initramfs::changes::listing::Reader;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    match kind % 3 {
        0 => {
            let mut reader = Reader::new(bytes);
            let mut names = 0;
            while let Ok(Some(entry)) = reader.next_entry() {
                assert!(!entry.path.is_empty() && entry.path.len() <= 4096);
                names += 1;
            }
            assert!(reader.end().is_none_or(|end| end.names == names));
        }
        1 => {
            let mut parts = Parts::new(bytes);
            while let Ok(Some(_)) = parts.next_file() {
                if parts.pieces(|_| Ok(())).is_err() {
                    return;
                }
            }
        }
        _ => asks(bytes),
    }
});

fn asks(bytes: &[u8]) {
    Lines::default().came(bytes, |line| {
        if let Some(frame) = Frame::read(line) {
            let again = frame.line();
            assert_eq!(Frame::read(again.trim_ascii_end()), Some(frame));
        }
        let _either = Request::read(line);
    });
    let mut now = Instant::now();
    let mut ask = Ask::new(now);
    for about in [None, Some(About::Listing), Some(About::Contents(1))] {
        if let Some(about) = about {
            ask.get(about, now);
        }
        let mut said = bytes.chunks(64);
        for _ in 0..10_000 {
            match ask.next(now) {
                Next::Idle => break,
                Next::Send(_) | Next::Came(_) => {}
                Next::Wait(until) => match said.next() {
                    Some(said) => ask.came(said, now),
                    None => {
                        assert!(until > now, "it waits for what has passed");
                        now = until;
                    }
                },
            }
        }
        assert_eq!(ask.next(now), Next::Idle, "it gives up");
    }
}
