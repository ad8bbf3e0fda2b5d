//! What a serial port with PARMRK gives, cut anywhere: the same characters and marks come out, none is empty, and
//! nothing comes out that was not there.

#![no_main]

use std::time::{Duration, Instant};

use koboshi_console::Mark;
use koboshi_console::wire::Event;
use koboshi_console::wire::serial::Marks;
use libfuzzer_sys::fuzz_target;

/// Characters, BREAKs and damaged characters.
fn all(bytes: &[u8], cut: usize) -> (Vec<u8>, usize, u64) {
    let mut now = Instant::now();
    let (mut marks, mut events) = (Marks::default(), Vec::new());
    for piece in bytes.chunks(cut) {
        marks.came(piece, now, &mut events);
        now += Duration::from_secs(10);
    }
    now += Duration::from_secs(60);
    marks.tell(now, &mut events);
    assert!(marks.deadline().is_none(), "something is never told");
    let (mut text, mut breaks, mut damaged) = (Vec::new(), 0, 0);
    for event in events {
        match event {
            Event::Data { bytes, .. } => {
                assert!(!bytes.is_empty());
                text.extend_from_slice(&bytes);
            }
            Event::Mark(Mark::Break) => breaks += 1,
            Event::Mark(Mark::Damaged { characters }) => damaged += u64::from(characters),
            other => panic!("{other:?}"),
        }
    }
    (text, breaks, damaged)
}

fuzz_target!(|bytes: &[u8]| {
    let whole = all(bytes, bytes.len().max(1));
    let pieces = all(bytes, 1);
    // BREAKs that follow each other at once are one.
    assert!(whole.1 <= pieces.1);
    assert_eq!((&whole.0, whole.2), (&pieces.0, pieces.2));
    assert!(whole.0.len() <= bytes.len());
    if !bytes.contains(&0o377) {
        assert_eq!(whole, (bytes.to_vec(), 0, 0));
    }
});
