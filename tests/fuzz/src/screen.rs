//! The screen of a line that says anything, of any size, cut anywhere: it is drawn, no larger than it is, and draws
//! itself again on another one.

#![no_main]

use koboshi_console::Screen;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let [rows, columns, cut, said @ ..] = bytes else { return };
    let (mut whole, mut pieces) = (Screen::default(), Screen::default());
    for screen in [&mut whole, &mut pieces] {
        screen.resize(u16::from(*rows), u16::from(*columns));
    }
    whole.feed(said);
    for piece in said.chunks(usize::from(*cut % 64) + 1) {
        pieces.feed(piece);
    }
    let drawn = whole.drawn();
    let other = pieces.drawn();
    // Where a piece ends within what is no UTF-8, the emulator may lose the next character.
    if std::str::from_utf8(said).is_ok() {
        assert_eq!(drawn, other);
    }
    assert_eq!(whole.fed(), said.len() as u64);
    assert!(drawn.text.len() <= usize::from(drawn.rows));
    assert!(drawn.cursor.0 < drawn.rows && drawn.cursor.1 <= drawn.columns, "{drawn:?}");
    let mut again = Screen::default();
    again.resize(drawn.rows, drawn.columns);
    again.feed(drawn.draws.as_bytes());
    assert_eq!(again.drawn().text, drawn.text);
});
