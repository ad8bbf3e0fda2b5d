//! Anything may come at any time: no panic, no end of it, and no session but one that was proved.

use proptest::prelude::*;

use super::*;
use crate::session::Facts;

/// What a stranger does next.
#[derive(Debug, Clone)]
enum Act {
    /// Any bytes.
    Bytes(Vec<u8>),
    /// Any bytes behind a header that lets them in.
    Behind(u8, Vec<u8>),
    /// What the BMC once sent, with a byte changed.
    Altered(usize, usize, u8),
    /// What the console sent, sent back.
    Echo(usize),
    Tick,
    Unreachable,
    Ask,
}

fn act() -> impl Strategy<Value = Act> {
    let bytes = || proptest::collection::vec(any::<u8>(), 0..80);
    prop_oneof![
        bytes().prop_map(Act::Bytes),
        (any::<u8>(), bytes()).prop_map(|(kind, bytes)| Act::Behind(kind, bytes)),
        (any::<usize>(), any::<usize>(), 1u8..)
            .prop_map(|(which, at, with)| Act::Altered(which, at, with)),
        any::<usize>().prop_map(Act::Echo),
        Just(Act::Tick),
        Just(Act::Unreachable),
        Just(Act::Ask),
    ]
}

fn stranger(rig: &mut Rig, act: Act) {
    match act {
        Act::Bytes(bytes) => rig.session.handle(&bytes, rig.now),
        Act::Behind(kind, bytes) => {
            let mut datagram = vec![6, 0, 0xff, 7, 6, kind];
            datagram.extend([0; 8]);
            datagram.extend(u16::try_from(bytes.len()).unwrap().to_le_bytes());
            datagram.extend(bytes);
            rig.session.handle(&datagram, rig.now);
        }
        Act::Altered(which, at, with) => {
            if !rig.received.is_empty() {
                let mut datagram = rig.received[which % rig.received.len()].clone();
                let at = at % datagram.len();
                datagram[at] ^= with;
                rig.session.handle(&datagram, rig.now);
            }
        }
        Act::Echo(which) => {
            if !rig.sent.is_empty() {
                let datagram = rig.sent[which % rig.sent.len()].clone();
                rig.session.handle(&datagram, rig.now);
            }
        }
        Act::Tick => {
            if let Some(deadline) = rig.session.deadline() {
                rig.now = rig.now.max(deadline);
                rig.session.handle_timeout(rig.now);
            }
        }
        Act::Unreachable => rig.session.handle_unreachable("?".to_string(), rig.now),
        Act::Ask => {
            if rig.session.is_closed() {
                rig.session.ask(get(1), rig.now);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// With no BMC there at all, nothing opens a session.
    #[test]
    fn nobody_opens_a_session_who_does_not_know_the_password(
        acts in proptest::collection::vec(act(), 0..60),
    ) {
        let mut rig = rig(Odd::none());
        rig.there = vec![Fate::Lose; 10_000];
        rig.session.ask(get(1), rig.now);
        for act in acts {
            rig.exchange();
            stranger(&mut rig, act);
        }
        rig.exchange();
        let opened = rig.events.iter().any(|event| matches!(event, Event::Opened(Facts { .. })));
        prop_assert!(!opened);
    }

    /// An open session minds nobody but its BMC.
    #[test]
    fn an_open_session_minds_nobody_else(acts in proptest::collection::vec(act(), 0..60)) {
        let mut rig = rig(Odd::none());
        prop_assert!(rig.ask(get(1)).is_ok());
        rig.events.clear();
        rig.session.hold();
        for act in acts {
            if !matches!(act, Act::Tick) {
                stranger(&mut rig, act);
            }
            rig.events();
            prop_assert!(rig.events.is_empty(), "{:?}", rig.events);
        }
        prop_assert!(rig.ask(get(1)).is_ok());
    }
}
