//! What is typed, cut into pieces anywhere: the same keys come out, nothing but the escape character and what
//! stands behind it is missing, and the key that is named in a help screen is read back.

#![no_main]

use koboshi_console::escape::{Escapes, Key, help, parse, shown};
use libfuzzer_sys::fuzz_target;

/// Characters that follow each other are one, whatever pieces they came in.
fn joined(keys: Vec<Key>) -> Vec<Key> {
    let mut all: Vec<Key> = Vec::new();
    for key in keys {
        match (all.last_mut(), key) {
            (Some(Key::Type(before)), Key::Type(more)) => before.extend_from_slice(&more),
            (Some(Key::Echo(before)), Key::Echo(more)) => before.extend_from_slice(&more),
            (_, key) => all.push(key),
        }
    }
    all
}

fuzz_target!(|bytes: &[u8]| {
    let [escape, cut, typed @ ..] = bytes else { return };
    let key = (*escape != 0).then_some(*escape);
    let mut whole = Vec::new();
    Escapes::new(key).typed(typed, &mut whole);
    let (mut escapes, mut pieces) = (Escapes::new(key), Vec::new());
    for piece in typed.chunks(usize::from(*cut % 16) + 1) {
        escapes.typed(piece, &mut pieces);
    }
    for key in whole.iter().chain(&pieces) {
        match key {
            Key::Type(bytes) => assert!(!bytes.is_empty() && bytes.len() <= typed.len()),
            Key::HandOver(name) => assert!(name.chars().count() <= 64),
            _ => {}
        }
    }
    let whole = joined(whole);
    assert_eq!(whole, joined(pieces));
    if key.is_none() && !typed.is_empty() {
        assert_eq!(whole, [Key::Type(typed.to_vec())]);
    }
    assert!(help(*escape).contains(&shown(*escape)));
    if let Ok(text) = std::str::from_utf8(typed) {
        let _ = parse(text);
    }
});
