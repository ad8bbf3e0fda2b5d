//! What a machine sends, on its way to a person's terminal: cut anywhere it is the same; no sequence passes that
//! is not listed; and what is held back of one that is not complete is bounded.

#![no_main]

use koboshi_console::attach::Filter;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let [cut, said @ ..] = bytes else { return };
    for answers in [false, true] {
        let (mut whole, mut filter) = (Vec::new(), Filter::new());
        filter.answers(answers);
        filter.pass(said, &mut whole);
        let (mut pieces, mut again) = (Vec::new(), Filter::new());
        again.answers(answers);
        for piece in said.chunks(usize::from(*cut % 32) + 1) {
            again.pass(piece, &mut pieces);
        }
        assert_eq!(whole, pieces);
        // A byte that is no UTF-8 is shown as the three of U+FFFD, and what broke off is ended.
        assert!(whole.len() <= said.len() * 8, "{} of {}", whole.len(), said.len());
        assert_eq!(filter.farewell(), again.farewell());
        harmless(&whole, answers);
        harmless(&filter.farewell(), answers);
        // What passed once passes again as it is.
        let mut twice = Vec::new();
        let mut filter = Filter::new();
        filter.answers(answers);
        filter.pass(&whole, &mut twice);
        assert_eq!(whole, twice);
    }
});

/// No string, no answer of the terminal to what is no question, no C1 byte that begins one.
fn harmless(passed: &[u8], answers: bool) {
    assert!(!passed.contains(&0x05), "ENQ");
    let mut rest = passed;
    while let Some(at) = rest.iter().position(|byte| *byte == 0x1b) {
        rest = &rest[at + 1..];
        let Some(next) = rest.first() else { return };
        assert!(!b"]P^_Xk".contains(next), "a string passes: ESC {next:#x}");
        if *next == b'[' {
            let end = rest[1..].iter().position(|byte| (0x40..0x7f).contains(byte));
            let Some(end) = end else { return };
            let (parameters, last) = (&rest[1..=end], rest[end + 1]);
            assert!(last != b't' && last != b'i', "CSI … {}", last as char);
            assert!(answers || !(last == b'c' && parameters.is_empty()), "a question passes");
        }
    }
    let text = String::from_utf8_lossy(passed);
    assert!(!text.chars().any(|c| ('\u{80}'..='\u{9f}').contains(&c)), "C1");
}
