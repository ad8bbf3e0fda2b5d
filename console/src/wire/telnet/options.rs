//! Which options both sides do: negotiated by the Q method (RFC 1143), which cannot go round in circles however
//! answers and requests cross.
//!
//! The other side does ECHO (RFC 857), so that what is typed is seen; both suppress GO AHEAD (RFC 858), which makes
//! it character by character, and are BINARY (RFC 856), so that a file goes over the line unharmed. Everything else
//! is refused, the size of a window (RFC 1073) too: many look at a line, each with a window of his own.

use super::parse::{DO, DONT, IAC, WILL, WONT};

pub(super) const BINARY: u8 = 0;
pub(super) const ECHO: u8 = 1;
pub(super) const SGA: u8 = 3;
/// RFC 1091.
pub(super) const TERMINAL_TYPE: u8 = 24;
/// RFC 2217.
pub(super) const COM_PORT: u8 = 44;

/// Those that one side or the other may do, and whether we may, and whether it may.
const KNOWN: [(u8, bool, bool); 5] = [
    (BINARY, true, true),
    (ECHO, false, true),
    (SGA, true, true),
    (TERMINAL_TYPE, true, false),
    (COM_PORT, true, false),
];

/// Whose doing an option is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    We,
    They,
}

/// How an option stands on one side; `true`: the opposite was wanted since, and is asked for once this is
/// answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Q {
    #[default]
    No,
    Yes,
    WantNo(bool),
    WantYes(bool),
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// This side does it now.
    On(Side, u8),
    /// It does not any more, or will not.
    Off(Side, u8),
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Options {
    we: [Q; KNOWN.len()],
    they: [Q; KNOWN.len()],
}

impl Options {
    /// Asks that it be so; writes what asks for it.
    pub fn ask(&mut self, side: Side, option: u8, on: bool, out: &mut Vec<u8>) {
        let Some(q) = self.of(side, option) else { return };
        let (next, says) = match (*q, on) {
            (Q::No, true) => (Q::WantYes(false), true),
            (Q::Yes, false) => (Q::WantNo(false), true),
            (Q::WantNo(_), on) => (Q::WantNo(on), false),
            (Q::WantYes(_), on) => (Q::WantYes(!on), false),
            (same, _) => (same, false),
        };
        *q = next;
        if says {
            say(side, option, on, out);
        }
    }

    /// It says this of an option. Writes what answers it; `mute`: there is no room for answers.
    pub fn heard(&mut self, verb: u8, option: u8, mute: bool, out: &mut Vec<u8>) -> Option<Change> {
        let (side, on) = match verb {
            DO => (Side::We, true),
            DONT => (Side::We, false),
            WILL => (Side::They, true),
            _ => (Side::They, false),
        };
        let agreed = may(side, option);
        let Some(q) = self.of(side, option) else {
            if on && !mute {
                say(side, option, false, out);
            }
            return None;
        };
        let before = *q;
        // RFC 1143 §7; what it calls an error of the other side is taken for an answer.
        let (next, answer) = match (before, on) {
            (Q::No, true) if agreed => (Q::Yes, Some(true)),
            (Q::No, true) => (Q::No, Some(false)),
            (Q::Yes, false) => (Q::No, Some(false)),
            (Q::WantNo(false), _) => (Q::No, None),
            (Q::WantNo(true), true) => (Q::Yes, None),
            (Q::WantNo(true), false) => (Q::WantYes(false), Some(true)),
            (Q::WantYes(false), true) => (Q::Yes, None),
            (Q::WantYes(true), true) => (Q::WantNo(false), Some(false)),
            (Q::WantYes(_), false) => (Q::No, None),
            (same @ (Q::No | Q::Yes), _) => (same, None),
        };
        // One whose change cannot be answered for is not changed.
        if answer.is_some() && mute {
            return None;
        }
        *q = next;
        if let Some(answer) = answer {
            say(side, option, answer, out);
        }
        match (before, next) {
            (before, Q::Yes) if before != Q::Yes => Some(Change::On(side, option)),
            (before, Q::No | Q::WantNo(_)) if before != Q::No => Some(Change::Off(side, option)),
            _ => None,
        }
    }

    /// Whether this side does it.
    pub fn is(&self, side: Side, option: u8) -> bool {
        let states = match side {
            Side::We => &self.we,
            Side::They => &self.they,
        };
        let at = KNOWN.iter().position(|known| known.0 == option);
        at.and_then(|at| states.get(at)) == Some(&Q::Yes)
    }

    fn of(&mut self, side: Side, option: u8) -> Option<&mut Q> {
        let at = KNOWN.iter().position(|known| known.0 == option)?;
        match side {
            Side::We => self.we.get_mut(at),
            Side::They => self.they.get_mut(at),
        }
    }
}

fn may(side: Side, option: u8) -> bool {
    KNOWN
        .iter()
        .any(|(known, we, they)| *known == option && if side == Side::We { *we } else { *they })
}

fn say(side: Side, option: u8, on: bool, out: &mut Vec<u8>) {
    let verb = match (side, on) {
        (Side::We, true) => WILL,
        (Side::We, false) => WONT,
        (Side::They, true) => DO,
        (Side::They, false) => DONT,
    };
    out.extend_from_slice(&[IAC, verb, option]);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_offered_is_taken_or_refused_once() {
        let mut options = Options::default();
        let mut out = Vec::new();
        assert_eq!(options.heard(WILL, ECHO, false, &mut out), Some(Change::On(Side::They, ECHO)));
        assert_eq!(options.heard(WILL, ECHO, false, &mut out), None, "it does already");
        assert_eq!(options.heard(DO, ECHO, false, &mut out), None, "we do not echo");
        // NAWS, and one that nobody knows.
        assert_eq!(options.heard(DO, 31, false, &mut out), None);
        assert_eq!(options.heard(WILL, 99, false, &mut out), None);
        assert_eq!(options.heard(WONT, 99, false, &mut out), None);
        let expected = [IAC, DO, ECHO, IAC, WONT, ECHO, IAC, WONT, 31, IAC, DONT, 99];
        assert_eq!(out, expected);
    }

    #[test]
    fn an_answer_is_not_answered() {
        let mut options = Options::default();
        let mut out = Vec::new();
        options.ask(Side::We, COM_PORT, true, &mut out);
        options.ask(Side::They, SGA, true, &mut out);
        assert_eq!(out, [IAC, WILL, COM_PORT, IAC, DO, SGA]);
        out.clear();
        let change = options.heard(DO, COM_PORT, false, &mut out);
        assert_eq!(change, Some(Change::On(Side::We, COM_PORT)));
        assert!(options.is(Side::We, COM_PORT) && !options.is(Side::They, COM_PORT));
        assert_eq!(options.heard(WONT, SGA, false, &mut out), Some(Change::Off(Side::They, SGA)));
        assert!(out.is_empty());
        assert_eq!(
            options.heard(DONT, COM_PORT, false, &mut out),
            Some(Change::Off(Side::We, COM_PORT))
        );
        assert_eq!(out, [IAC, WONT, COM_PORT]);
    }

    /// Two of them, whose words cross: whatever is asked for meanwhile, they come to an end and agree.
    fn settle(asked: &[(bool, bool, bool)]) {
        let mut ends = [Options::default(), Options::default()];
        let mut wires = [Vec::new(), Vec::new()];
        let deliver = |ends: &mut [Options; 2], wires: &mut [Vec<u8>; 2], to: usize| {
            let words = std::mem::take(&mut wires[1 - to]);
            for word in words.chunks(3) {
                let _ = ends[to].heard(word[1], word[2], false, &mut wires[to]);
            }
        };
        for (who, on, delivered) in asked {
            let who = usize::from(*who);
            ends[who].ask(Side::We, BINARY, *on, &mut wires[who]);
            ends[1 - who].ask(Side::They, SGA, *on, &mut wires[1 - who]);
            if *delivered {
                deliver(&mut ends, &mut wires, who);
            }
        }
        for _round in 0..6 {
            deliver(&mut ends, &mut wires, 0);
            deliver(&mut ends, &mut wires, 1);
        }
        assert!(wires.iter().all(Vec::is_empty), "{wires:?} {ends:?}");
        for option in [BINARY, SGA] {
            for who in [0, 1] {
                let (own, other) =
                    (ends[who].is(Side::We, option), ends[1 - who].is(Side::They, option));
                assert_eq!(own, other, "{option} {ends:?}");
            }
        }
    }

    proptest! {
        #[test]
        fn two_that_change_their_minds_agree(
            asked in prop::collection::vec(any::<(bool, bool, bool)>(), 0..12),
        ) {
            settle(&asked);
        }

        #[test]
        fn each_word_has_one_answer_at_most(
            words in prop::collection::vec((WILL..=DONT, 0_u8..50), 0..200),
        ) {
            let mut options = Options::default();
            for (verb, option) in words {
                let mut out = Vec::new();
                let _ = options.heard(verb, option, false, &mut out);
                prop_assert!(out.len() <= 3);
                let mut out = Vec::new();
                let _ = options.heard(verb, option, true, &mut out);
                prop_assert!(out.is_empty());
            }
        }
    }
}
