//! What is asked in an open session.

use super::*;
use crate::message::{Completion, Message};
use crate::session::Patience;
use crate::wire::v20::PayloadType;

fn open(odd: Odd) -> Rig {
    let mut rig = rig(odd);
    assert!(rig.ask(get(1)).is_ok());
    rig.fake.done.clear();
    rig
}

const CYCLE: u8 = 2;

fn chassis(action: u8) -> Request {
    Request::new(NetFn::CHASSIS, 0x02, [action])
}

#[test]
fn answers_are_those_of_the_questions() {
    let mut rig = open(Odd::none());
    // Past the end of six bits; 0x3b and 0x3c are the session's own, 0x34 is for those behind the BMC.
    for round in (0..200u8).filter(|round| !matches!(round, 0x34 | 0x3b | 0x3c)) {
        let answer = rig.ask(Request::new(NetFn::APP, round, [round])).unwrap();
        assert_eq!(answer.data, [round]);
    }
}

#[test]
fn a_lost_answer_is_asked_for_under_the_same_number() {
    let mut rig = open(Odd::none());
    rig.back = vec![Fate::Lose];
    let before = rig.sent.len();
    assert!(rig.ask(chassis(CYCLE)).is_ok());
    assert_eq!(rig.sent.len(), before + 2);
    // Another datagram altogether: a new session number, a new vector.
    assert_ne!(rig.sent[before], rig.sent[before + 1]);
    // Later than a question would be.
    assert!(rig.elapsed() >= Duration::from_secs(2), "{:?}", rig.elapsed());
}

#[test]
fn late_and_repeated_answers_are_nobodys() {
    let mut rig = open(Odd::none());
    rig.back = vec![Fate::Lose];
    assert!(rig.ask(get(1)).is_ok());
    let old: Vec<_> = rig.received.clone();
    let ticket = rig.session.ask(get(1), rig.now);
    for datagram in &old {
        rig.session.handle(datagram, rig.now);
    }
    rig.events();
    assert!(!rig.events.iter().any(|event| matches!(event, Event::Answer(..))));
    assert!(rig.answer(ticket).is_ok());
}

#[test]
fn busy_is_waited_for() {
    let mut rig = open(Odd { first: vec![], ..Odd::none() });
    rig.fake.odd.first = vec![0xc0, 0xc0, 0xc3];
    let answer = rig.ask(get(1)).unwrap();
    assert_eq!((answer.completion, answer.data), (Completion::OK, vec![1, 2]));
    assert_eq!(rig.fake.done.len(), 1);
    // For ever busy is the answer in the end.
    rig.fake.odd.first = vec![0xc0; 1000];
    assert_eq!(rig.ask(get(1)).unwrap().completion, Completion::NODE_BUSY);
    rig.fake.odd.first = vec![0xc3; 1000];
    assert_eq!(rig.ask(get(1)).unwrap().completion, Completion::TIMEOUT);
    // A deed that timed out behind the BMC is not done again.
    rig.fake.odd.first = vec![0xc3];
    assert_eq!(rig.ask(chassis(CYCLE)).unwrap().completion, Completion::TIMEOUT);
    rig.fake.odd.first = vec![0xcf];
    assert_eq!(rig.ask(get(1)).unwrap().completion, Completion::OK);
}

#[test]
fn wrong_checksums_are_taken_where_a_signature_holds() {
    let mut rig = rig(Odd { bad_checksums: true, ..Odd::none() });
    assert!(rig.ask(get(1)).is_ok());
}

#[test]
fn a_session_that_the_bmc_forgot_is_opened_again() {
    let mut rig = open(Odd::none());
    rig.fake.sessions.clear();
    assert!(rig.ask(get(1)).is_ok());
    assert!(rig.events.iter().any(|event| matches!(event, Event::Lost(_))));
    assert!(rig.elapsed() < Duration::from_secs(8), "{:?}", rig.elapsed());
    // A deed is not done in another session: nobody knows whether it was.
    rig.fake.sessions.clear();
    assert!(matches!(rig.ask(chassis(CYCLE)), Err(Error::Uncertain { .. })));
    assert!(rig.ask(chassis(CYCLE)).is_ok());
    assert_eq!(rig.fake.done.iter().filter(|(netfn, ..)| *netfn == 0).count(), 1);
    // What waited behind it is asked in the next one.
    rig.fake.sessions.clear();
    let cycle = rig.session.ask(chassis(CYCLE), rig.now);
    let off = rig.session.ask(chassis(0), rig.now);
    assert!(matches!(rig.answer(cycle), Err(Error::Uncertain { .. })));
    assert!(rig.answer(off).is_ok());
}

/// A deed goes out only where the BMC was heard of a moment ago; else a question goes first, which may be
/// asked again in the next session.
#[test]
fn a_deed_is_not_wasted_on_a_session_that_is_gone() {
    let mut rig = open(Odd::none());
    rig.session.hold();
    rig.rest(Duration::from_secs(15));
    rig.fake.sessions.clear();
    assert!(rig.ask(chassis(CYCLE)).is_ok());
    let cycles = rig.fake.done.iter().filter(|(netfn, ..)| *netfn == 0).count();
    assert_eq!(cycles, 1);
}

#[test]
fn a_bmc_that_goes_dark() {
    let mut rig = open(Odd::none());
    let begun = rig.now;
    rig.there = vec![Fate::Lose; 1000];
    assert!(matches!(rig.ask(get(1)), Err(Error::Lost { .. })));
    assert!(rig.now - begun <= Duration::from_secs(25));
    // And comes back.
    rig.there.clear();
    assert!(rig.ask(get(1)).is_ok());
    // One that opens sessions and answers nothing in them.
    rig.fake.odd.deaf = true;
    let begun = rig.now;
    assert!(matches!(rig.ask(get(1)), Err(Error::Lost { .. })));
    assert!(rig.now - begun <= Duration::from_secs(60));
}

#[test]
fn idle_it_is_closed_and_held_it_is_kept_alive() {
    let mut rig = open(Odd::none());
    rig.rest(Duration::from_secs(10));
    assert!(rig.session.is_closed() && rig.fake.sessions.is_empty());
    rig.session.hold();
    assert!(rig.ask(get(1)).is_ok());
    rig.fake.done.clear();
    rig.rest(Duration::from_secs(100));
    assert_eq!(rig.fake.done.len(), 5);
    assert!(rig.events.iter().all(|event| !matches!(event, Event::Lost(_))));
    rig.session.release(rig.now);
    rig.rest(Duration::from_secs(10));
    assert!(rig.session.is_closed());
    // Lost while held: told, and not opened again before something is asked.
    rig.session.hold();
    assert!(rig.ask(get(1)).is_ok());
    rig.fake.sessions.clear();
    rig.rest(Duration::from_secs(60));
    assert!(rig.events.iter().any(|event| matches!(event, Event::Lost(_))));
    assert!(rig.session.is_closed());
}

#[test]
fn close_waits_for_the_bmc_but_not_for_ever() {
    let mut rig = open(Odd::none());
    let ticket = rig.session.ask(get(1), rig.now);
    rig.session.close(rig.now);
    rig.events();
    assert!(rig.events.contains(&Event::Answer(ticket, Err(Error::Closed))));
    rig.there = vec![Fate::Lose; 100];
    let begun = rig.now;
    rig.until(|event| *event == Event::Closed);
    assert!(rig.now - begun <= Patience::default().first * 2);
}

#[test]
fn payloads_and_commands_share_it() {
    let mut rig = open(Odd::none());
    for round in 0..50u8 {
        let ticket = rig.session.ask(get(1), rig.now);
        let bytes = rig.fake.send(&[round; 40]);
        rig.session.handle(&bytes, rig.now);
        rig.session.handle(&bytes, rig.now);
        assert!(rig.session.send_payload(PayloadType::Sol, &[round], rig.now));
        assert!(rig.answer(ticket).is_ok());
        let event = rig.until(|event| matches!(event, Event::Payload(..)));
        let Event::Payload(PayloadType::Sol, _, bytes) = event else { panic!("{event:?}") };
        assert_eq!(bytes, [round; 40]);
        assert!(!rig.events.iter().any(|event| matches!(event, Event::Payload(..))));
    }
    assert_eq!(rig.fake.payloads.len(), 50);
    rig.session.close(rig.now);
    assert!(!rig.session.send_payload(PayloadType::Sol, &[1], rig.now));
}

#[test]
fn several_at_once() {
    let mut rig = rig_of(Odd::none(), Access { at_once: 4, ..access() }, Learned::default());
    let tickets: Vec<_> = (0..20u8)
        .map(|number| (number, rig.session.ask(Request::new(NetFn::APP, 1, [number]), rig.now)))
        .collect();
    // The first is asked for again, and the others go on.
    rig.back = vec![Fate::Pass, Fate::Pass, Fate::Pass, Fate::Pass, Fate::Lose, Fate::Pass];
    for (number, ticket) in tickets {
        assert_eq!(rig.answer(ticket).unwrap().data, [number]);
    }
}

#[test]
fn what_a_controller_behind_the_bmc_answers() {
    let inner = Message {
        to: 0x2c,
        to_lun: 0,
        netfn: NetFn::APP,
        from: 0x81,
        from_lun: 0,
        seq: 9,
        command: 1,
        data: vec![],
        checksums: true,
    };
    let mut data = vec![0x40];
    data.extend(inner.encode());
    let send = Request::new(NetFn::APP, 0x34, data);
    let answer = inner.respond(&Response { completion: Completion::OK, data: vec![5, 6] });
    let mut rig = open(Odd::none());
    // After the BMC's own answer, which says nothing yet.
    let ticket = rig.session.ask(send.clone(), rig.now);
    rig.exchange();
    assert!(!rig.events.iter().any(|event| matches!(event, Event::Answer(..))));
    let other = Message { command: 2, ..answer.clone() };
    for message in [&other, &answer] {
        let datagram = rig.fake.say(message);
        rig.session.handle(&datagram, rig.now);
    }
    assert_eq!(rig.answer(ticket).unwrap().data, answer.encode());
    // Without it.
    rig.there = vec![Fate::Lose];
    let ticket = rig.session.ask(send.clone(), rig.now);
    rig.exchange();
    let datagram = rig.fake.say(&answer);
    rig.session.handle(&datagram, rig.now);
    assert_eq!(rig.answer(ticket).unwrap().data, answer.encode());
    // Not tracked, the BMC's own answer is the answer.
    let untracked = Request { data: [&[0x00], &send.data[1..]].concat(), ..send };
    assert!(rig.ask(untracked).unwrap().data.is_empty());
}

/// The BMC passed it on and said so: whatever becomes of the answer, the blade is not cycled again.
#[test]
fn a_deed_behind_the_bmc_is_passed_on_once() {
    for (command, data, times) in [(2, vec![2], 1..2), (1, vec![], 2..100)] {
        let (to, from, netfn) = (0x2c, 0x81, NetFn::CHASSIS);
        let inner = Message {
            to,
            to_lun: 0,
            netfn,
            from,
            from_lun: 0,
            seq: 9,
            command,
            data,
            checksums: true,
        };
        let send = Request::new(NetFn::APP, 0x34, [&[0x40], &inner.encode()[..]].concat());
        let mut rig = open(Odd::none());
        assert!(matches!(rig.ask(send), Err(Error::Uncertain { .. })));
        let passed_on = rig.fake.done.iter().filter(|(_, command, _)| *command == 0x34).count();
        assert!(times.contains(&passed_on), "{command}: {passed_on}");
    }
}

/// "Busy", said of a repetition: the first may be under way, and only its number tells them apart.
#[test]
fn a_deed_that_meets_a_busy_bmc_keeps_its_number() {
    let mut rig = open(Odd::none());
    rig.fake.numbers.clear();
    rig.back = vec![Fate::Lose];
    let ticket = rig.session.ask(chassis(CYCLE), rig.now);
    rig.exchange();
    rig.fake.odd.first = vec![0xc0, 0xc0];
    assert!(rig.answer(ticket).is_ok());
    let numbers = &rig.fake.numbers;
    assert!(
        numbers.len() == 4 && numbers.iter().all(|number| *number == numbers[0]),
        "{numbers:?}"
    );
    // Said of what was sent once, it was not begun.
    rig.fake.odd.first = vec![0xc0];
    assert!(rig.ask(chassis(CYCLE)).is_ok());
    // Still at work on it in the end: nobody knows.
    rig.fake.odd.first = vec![0xcf; 100];
    assert!(matches!(rig.ask(chassis(CYCLE)), Err(Error::Uncertain { .. })));
}

#[test]
fn what_nobody_waits_for_is_not_sent() {
    let mut rig = open(Odd::none());
    let first = rig.session.ask(get(1), rig.now);
    let second = rig.session.ask(get(2), rig.now);
    let third = rig.session.ask(chassis(CYCLE), rig.now);
    assert!(rig.session.forgo(third) && !rig.session.forgo(third));
    // Two are on their way.
    assert!(!rig.session.forgo(first) && !rig.session.forgo(second));
    assert!(rig.answer(first).is_ok() && rig.answer(second).is_ok() && rig.ask(get(2)).is_ok());
    assert!(rig.fake.done.iter().all(|(netfn, ..)| *netfn != 0));
}
