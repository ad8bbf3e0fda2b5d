//! What machines log: a connection's bytes cut anywhere are the same messages; each is a line that reads back as it
//! was written; and so is what a kernel sends by itself.

#![no_main]

use jiff::Timestamp;
use koboshi::syslog::{Entry, Frames, MOST, Message, Way, parse, parse_netconsole};
use libfuzzer_sys::fuzz_target;

/// Messages, and the bytes that were passed over.
fn frames(bytes: &[u8], cut: usize) -> (Vec<Vec<u8>>, u64) {
    let (mut frames, mut all) = (Frames::default(), Vec::new());
    for piece in bytes.chunks(cut) {
        frames.came(piece, |message| all.push(message.to_vec()));
    }
    let passed = frames.cut;
    frames.end(|message| all.push(message.to_vec()));
    assert!(all.iter().all(|message| message.len() <= MOST + 8));
    (all, passed)
}

fn reads_back(way: Way, message: Message) {
    let entry = Entry { at: 1_764_079_407_123, way, message };
    let line = entry.line();
    assert!(line.len() < 48 * 1024 && line.matches('\n').count() == 1);
    assert!(!line.trim_end_matches('\n').chars().any(char::is_control), "{line:?}");
    assert_eq!(Entry::read(line.trim_end_matches('\n')), Some(entry));
}

fuzz_target!(|bytes: &[u8]| {
    let whole = frames(bytes, bytes.len().max(1));
    assert_eq!(whole, frames(bytes, 1));
    let now: Timestamp = "2026-11-25T14:03:30Z".parse().expect("a time");
    for message in whole.0.iter().map(Vec::as_slice).chain([bytes]) {
        reads_back(Way::Tcp, parse(message, now));
    }
    for message in parse_netconsole(bytes) {
        reads_back(Way::Netconsole, message);
    }
    if let Ok(line) = std::str::from_utf8(bytes)
        && let Some(entry) = Entry::read(line)
    {
        assert!(!entry.line().is_empty());
    }
});
