//! A file of keys as an operator may have written it: every line is a key, is refused with its number and a reason,
//! or is a comment.

#![no_main]

use koboshi_console::ssh::Keys;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let keys = Keys::parse(text);
    let lines = text.lines().count();
    assert!(keys.len() + keys.refused.len() <= lines.max(1));
    for refused in &keys.refused {
        assert!((1..=lines).contains(&refused.line), "line {} of {lines}", refused.line);
        assert!(!refused.why.is_empty() && !refused.why.contains('\n'), "{:?}", refused.why);
    }
});
