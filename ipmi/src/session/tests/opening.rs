//! How a session comes about, or why not.

use super::*;
use crate::crypto::{Kg, SUITE_3};
use crate::message::{Completion, Message};
use crate::quirks::{Quirk, Quirks};
use crate::session::{Cipher, Privilege, Version};
use crate::wire::rakp::Algorithms;
use crate::wire::rmcp::Rmcp;
use crate::wire::v15::{self, Auth};

fn error(rig: &mut Rig) -> Error {
    rig.ask(get(1)).unwrap_err()
}

fn suite(odd: Odd) -> (Option<u8>, Vec<u8>) {
    let mut rig = rig(odd);
    assert!(rig.ask(get(1)).is_ok());
    (rig.opened().suite, rig.fake.asked)
}

#[test]
fn suite_17_then_3() {
    assert_eq!(suite(Odd::none()), (Some(17), vec![17]));
    let three = Odd { suites: vec![3], ..Odd::none() };
    assert_eq!(suite(three.clone()), (Some(3), vec![17, 3]));
    // "No free session" of a suite that is refused; silence.
    assert_eq!(suite(Odd { misleading: true, ..three.clone() }), (Some(3), vec![17, 3]));
    assert_eq!(suite(Odd { mute: vec![17], ..three }), (Some(3), vec![17, 17, 17, 3]));
}

#[test]
fn a_learned_suite_is_pinned() {
    let mut first = rig(Odd::none());
    assert!(first.ask(get(1)).is_ok());
    let learned = first.session.learned().clone();
    assert_eq!(learned.suite, Some(17));
    let downgraded = Odd { suites: vec![3], ..Odd::none() };
    let mut second = rig_of(downgraded.clone(), access(), learned.clone());
    assert!(matches!(error(&mut second), Error::Downgrade(_)));
    assert_eq!(second.fake.asked, [17]);
    // Nor is silence a reason.
    let mut mute = rig_of(Odd { mute: vec![17], ..downgraded.clone() }, access(), learned.clone());
    assert!(matches!(error(&mut mute), Error::Silent { .. }));
    assert!(mute.fake.asked.iter().all(|suite| *suite == 17));
    // By number it is asked for all the same, and that is not learned.
    let by_number = Access { cipher: Cipher::Suite(3), ..access() };
    let mut third = rig_of(downgraded, by_number, learned.clone());
    assert!(third.ask(get(1)).is_ok());
    assert_eq!(third.session.learned(), &learned);
}

#[test]
fn what_is_learned_while_full_is_not_pinned() {
    // 17 was not refused as a suite: it may be taken the next time.
    let mut rig = rig(Odd { suites: vec![3], misleading: true, ..Odd::none() });
    assert!(rig.ask(get(1)).is_ok());
    assert_eq!(rig.session.learned().suite, None);
}

#[test]
fn other_algorithms_than_asked_for_are_a_downgrade() {
    let answers = Some(Algorithms { confidentiality: 0, ..SUITE_3.into() });
    let mut rig = rig(Odd { answers, ..Odd::none() });
    assert!(matches!(error(&mut rig), Error::Downgrade(_)));
    assert!(rig.fake.sessions.is_empty());
}

#[test]
fn refusals_say_which() {
    let mut none = rig(Odd { suites: vec![], ..Odd::none() });
    assert_eq!(error(&mut none), Error::SuiteRefused { tried: vec![17, 3] });
    let mut full = rig(Odd { full: true, ..Odd::none() });
    assert_eq!(error(&mut full), Error::NoFreeSession);
    let wrong = Access { password: Password::new("wrong").unwrap(), ..access() };
    let mut wrong = rig_of(Odd::none(), wrong, Learned::default());
    assert_eq!(error(&mut wrong), Error::WrongPassword { user: USER.to_string() });
    // And the BMC was told, so that the slot is free at once.
    assert_eq!(wrong.fake.closed.len(), 1);
    let kg = Some(Kg::new(b"own").unwrap());
    let mut key = rig(Odd { kg: kg.clone(), ..Odd::none() });
    assert_eq!(error(&mut key), Error::WrongKey);
    let mut right = rig_of(
        Odd { kg: kg.clone(), ..Odd::none() },
        Access { kg: kg.clone(), ..access() },
        Learned::default(),
    );
    assert!(right.ask(get(1)).is_ok());
    let mut unset = rig_of(Odd::none(), Access { kg, ..access() }, Learned::default());
    assert_eq!(error(&mut unset), Error::WrongKey);
    let nobody = Access { user: "nobody".to_string(), ..access() };
    let mut nobody = rig_of(Odd::none(), nobody, Learned::default());
    assert_eq!(error(&mut nobody), Error::UserRefused { user: "nobody".to_string() });
}

#[test]
fn less_privilege_is_taken() {
    for strict in [false, true] {
        for (most, granted) in [(3, Privilege::Operator), (2, Privilege::User)] {
            let mut rig = rig(Odd { privilege: most, strict, ..Odd::none() });
            assert!(rig.ask(get(1)).is_ok());
            assert_eq!(rig.opened().privilege, granted);
        }
    }
    let mut none = rig(Odd { privilege: 1, strict: true, ..Odd::none() });
    assert_eq!(error(&mut none), Error::Privilege { user: USER.to_string() });
    let user = Access { privilege: Privilege::User, ..access() };
    let mut rig = rig_of(Odd::none(), user, Learned::default());
    assert_eq!(rig.ask(get(1)).map(|answer| answer.data), Ok(vec![1, 2]));
}

#[test]
fn quirks_are_learned() {
    let learns = |odd: Odd, quirk: Quirk| {
        let mut rig = rig(odd.clone());
        assert!(rig.ask(get(1)).is_ok(), "{quirk}");
        let learned = rig.session.learned().clone();
        assert_eq!(learned.quirks, Quirks::of(&[quirk]));
        // And spare the detour the next time.
        let mut again = rig_of(odd, access(), learned);
        assert!(again.ask(get(1)).is_ok());
        assert_eq!(again.fake.asked.len(), 1, "{quirk}");
    };
    learns(Odd { keeps_16: true, ..Odd::none() }, Quirk::Password16);
    learns(Odd { open_privilege: true, ..Odd::none() }, Quirk::OpenPrivilege);
    learns(Odd { no_name_only: true, ..Odd::none() }, Quirk::NoNameOnly);
    let mut long = rig(Odd { long_rakp2: true, ..Odd::none() });
    assert!(long.ask(get(1)).is_ok());
}

#[test]
fn any_one_message_may_be_lost_or_come_twice() {
    for at in 0..8 {
        for fate in [Fate::Lose, Fate::Twice] {
            for there in [true, false] {
                let mut rig = rig(Odd::none());
                let mut fates = vec![Fate::Pass; at];
                fates.push(fate);
                *(if there { &mut rig.there } else { &mut rig.back }) = fates;
                assert!(rig.ask(get(1)).is_ok(), "{at} {fate:?} {there}");
                assert_eq!(rig.fake.done, [(6, 1, Some(1))].repeat(rig.fake.done.len()));
                assert_eq!(rig.fake.sessions.len(), 1, "{at} {fate:?} {there}: an orphan");
                rig.session.close(rig.now);
                rig.until(|event| *event == Event::Closed);
                assert!(rig.fake.sessions.is_empty());
            }
        }
    }
}

#[test]
fn one_in_five_is_lost_each_way() {
    let mut failures = 0;
    for seed in 0..40 {
        let mut rig = rig(Odd::none());
        let mut random = Random::seeded(seed + 1);
        let mut fates = || {
            let fate = |byte: &u8| if byte.is_multiple_of(5) { Fate::Lose } else { Fate::Pass };
            random.bytes::<200>().iter().map(fate).collect::<Vec<_>>()
        };
        (rig.there, rig.back) = (fates(), fates());
        match rig.ask(get(1)) {
            Ok(answer) => assert_eq!(answer.data, [1, 2]),
            Err(_) => failures += 1,
        }
    }
    // RAKP has to come through three times in a row, in 15 s.
    assert!(failures < 8, "{failures} of 40");
}

#[test]
fn a_bmc_that_is_not_there() {
    let mut rig = rig(Odd::none());
    rig.there = vec![Fate::Lose; 1000];
    let error = error(&mut rig);
    assert_eq!(error, Error::Unreachable { waited: Duration::from_secs(15) });
    assert_eq!(rig.elapsed(), Duration::from_secs(15));
    assert!(rig.sent.len() < 40, "{}", rig.sent.len());
    // Both suites and the question whether anybody is there.
    assert!(rig.sent.iter().any(|datagram| datagram[4] == 0));
}

#[test]
fn a_bmc_of_1_5_is_found_out() {
    let mut rig = rig(Odd { v15_only: true, ..Odd::none() });
    assert!(rig.ask(get(1)).is_ok());
    assert_eq!(rig.opened().suite, None);
    let learned = rig.session.learned().clone();
    assert_eq!(learned.version, Version::V15);
    // The next time at once; and never where something stronger is pinned.
    let odd = Odd { v15_only: true, ..Odd::none() };
    let mut again = rig_of(odd.clone(), access(), learned.clone());
    assert!(again.ask(get(1)).is_ok());
    assert_eq!(again.elapsed(), Duration::ZERO);
    let pinned = Learned { suite: Some(17), ..Learned::default() };
    let mut refused = rig_of(odd.clone(), access(), pinned);
    assert!(matches!(error(&mut refused), Error::Downgrade(_)));
    let v20 = Access { version: Version::V20, ..access() };
    let mut refused = rig_of(odd, v20, learned);
    assert!(matches!(error(&mut refused), Error::Unsupported(_)));
}

#[test]
fn firmware_that_has_learned_2_0_since() {
    let learned = Learned { version: Version::V15, ..Learned::default() };
    let mut rig = rig_of(Odd::none(), access(), learned);
    assert!(rig.ask(get(1)).is_ok());
    assert_eq!(rig.opened().suite, Some(17));
    let learned = rig.session.learned();
    assert_eq!((learned.version, learned.suite), (Version::Auto, Some(17)));
}

#[test]
fn nobody_activates_a_session_of_1_5_without_the_password() {
    let md5 = Access { cipher: Cipher::Legacy(Auth::Md5), ..access() };
    let odd = Odd { no_per_message: true, ..Odd::none() };
    let mut rig = rig_of(odd, md5, Learned::default());
    // Capabilities and challenge come; the activation's answer is somebody else's, with no code.
    rig.there = vec![Fate::Pass, Fate::Pass, Fate::Lose];
    let ticket = rig.session.ask(get(1), rig.now);
    rig.exchange();
    let Ok(Rmcp::Ipmi(rest)) = Rmcp::decode(rig.sent.last().unwrap()) else { panic!() };
    let asked = v15::Packet::decode(rest).unwrap();
    let mut data = vec![0];
    data.extend([9, 9, 9, 9, 5, 0, 0, 0, 4]);
    let answer = Message::decode(asked.payload)
        .unwrap()
        .respond(&Response { completion: Completion::OK, data });
    let none = Password::new("").unwrap();
    let forged = v15::encode(Auth::None, asked.session, 0, &none, &answer.encode());
    rig.session.handle(&forged, rig.now);
    assert!(rig.session.is_opening());
    assert!(rig.answer(ticket).is_ok());
    assert!(rig.events.iter().all(|event| match event {
        Event::Opened(facts) => facts.managed != 0x0909_0909,
        _ => true,
    }));
}

#[test]
fn sessions_of_1_5() {
    for no_per_message in [false, true] {
        for auth in [Auth::None, Auth::Md5, Auth::Password] {
            let legacy = Access { cipher: Cipher::Legacy(auth), ..access() };
            let odd = Odd { no_per_message, ..Odd::none() };
            let mut rig = rig_of(odd.clone(), legacy.clone(), Learned::default());
            for _ in 0..5 {
                assert!(rig.ask(get(1)).is_ok(), "{auth:?}");
            }
            rig.session.close(rig.now);
            rig.until(|event| *event == Event::Closed);
            assert!(rig.fake.sessions.is_empty());
            for at in 0..6 {
                for there in [true, false] {
                    let mut rig = rig_of(odd.clone(), legacy.clone(), Learned::default());
                    let mut fates = vec![Fate::Pass; at];
                    fates.push(Fate::Lose);
                    *(if there { &mut rig.there } else { &mut rig.back }) = fates;
                    assert!(rig.ask(get(1)).is_ok(), "{auth:?} {at} {there}");
                }
            }
        }
    }
    let md5 = Access { cipher: Cipher::Legacy(Auth::Md5), ..access() };
    let wrong = Access { password: Password::new("wrong").unwrap(), ..md5.clone() };
    let mut wrong = rig_of(Odd::none(), wrong, Learned::default());
    assert_eq!(error(&mut wrong), Error::WrongPassword { user: USER.to_string() });
    let nobody = Access { user: "nobody".to_string(), ..md5 };
    let mut nobody = rig_of(Odd::none(), nobody, Learned::default());
    assert_eq!(error(&mut nobody), Error::UserRefused { user: "nobody".to_string() });
}

#[test]
fn nobody_listens_or_somebody_else_does() {
    let mut rig = rig(Odd::none());
    rig.there = vec![Fate::Lose; 1000];
    let ticket = rig.session.ask(get(1), rig.now);
    rig.exchange();
    rig.session.handle_unreachable("nothing listens".to_string(), rig.now);
    rig.session.handle_unreachable("nothing listens".to_string(), rig.now);
    assert_eq!(rig.answer(ticket), Err(Error::Network("nothing listens".to_string())));
    let ticket = rig.session.ask(get(1), rig.now);
    rig.exchange();
    rig.session.handle(b"220 mail.example ESMTP\r\n", rig.now);
    assert!(matches!(rig.answer(ticket), Err(Error::NotABmc(_))));
}
