//! Files of a line's log as a crash, a full disk or somebody with an editor left them: read from anywhere, it ends;
//! places only go forward, no piece is empty, and nothing comes out that is not in the files.

#![no_main]

use koboshi_console::What;
use koboshi_console::log::{Reader, Start};
use koboshi_console::scrollback::Cursor;
use koboshi_fuzz::{Input, folder};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let dir = folder().join("m01");
    let _it_was_not_there = std::fs::remove_dir_all(&dir);
    std::fs::create_dir(&dir).expect("a folder");
    let mut input = Input(bytes);
    let (lines, since, place) = (input.byte(), input.word(), input.short());
    let mut all = 0;
    for _ in 0..4 {
        if !input.more() {
            break;
        }
        let (base, log, idx) = (input.short(), input.short(), input.short());
        let stem = format!("{base:016}-20261125T213000Z");
        let log = input.take(usize::from(log) % 4096);
        let idx = input.take(usize::from(idx) % 1024);
        all += log.len();
        std::fs::write(dir.join(format!("{stem}.log")), log).expect("written");
        std::fs::write(dir.join(format!("{stem}.idx")), idx).expect("written");
    }
    let starts = [
        Start::Oldest,
        Start::Lines(usize::from(lines)),
        Start::Since(u64::from(since)),
        Start::Place(u64::from(place)),
    ];
    for start in starts {
        let Ok(mut reader) = Reader::open(dir.clone()) else { continue };
        if reader.seek(start).is_err() {
            continue;
        }
        let (mut read, mut before) = (0, Cursor::default());
        for step in 0.. {
            assert!(step < 10_000, "it does not end");
            let Ok(pieces) = reader.read() else { break };
            if pieces.is_empty() {
                break;
            }
            for (piece, after) in pieces {
                assert!(after >= before && (after.marks >= before.marks), "{before:?} {after:?}");
                before = after;
                if let What::Text(text) = piece.what {
                    assert!(!text.is_empty());
                    read += text.len();
                }
            }
        }
        assert!(read <= all, "{read} of {all}");
    }
});
