//! A transfer against clients on paper: losses, reordering, duplicates, wrap-around, expiry.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::tftp::packet::Options;
use crate::tftp::terms;

const MS: Duration = Duration::from_millis(1);

fn terms(blksize: u16, window: u16) -> Terms {
    Terms { blksize, window, timeout: None, oack: None }
}

fn begin(terms: &Terms, size: u64) -> (Transfer, Step, Instant) {
    let now = Instant::now();
    let (transfer, step) = Transfer::begin(terms, size, Patience::default(), now);
    (transfer, step, now)
}

fn blocks(first: u64, count: u16) -> Step {
    Step::Blocks(Blocks { first, count })
}

fn ack(block: u16) -> Packet {
    Packet::Ack(block)
}

const DONE: Step = Step::End(End::Done { confirmed: true });

#[test]
fn sizes_at_the_edges_end_with_a_short_block() {
    // blksize, window, size, blocks
    for (blksize, window, size, last) in [
        (512, 1, 0, 1),
        (512, 1, 1, 1),
        (512, 1, 511, 1),
        (512, 1, 512, 2),
        (512, 1, 513, 2),
        (512, 4, 512 * 4 - 1, 4),
        (512, 4, 512 * 4, 5),
        (512, 4, 512 * 4 + 1, 5),
        (512, 4, 512 * 3, 4),
        (8, 64, 8 * 64, 65),
        (65464, 1, 65464, 2),
    ] {
        let (mut transfer, mut step, now) = begin(&terms(blksize, window), size);
        let mut got = Vec::new();
        let mut out = Vec::new();
        while let Step::Blocks(due) = step {
            let fill = |offset: u64, bodies: &mut [IoSliceMut<'_>]| {
                let bytes = bodies.iter_mut().flat_map(|body| body.iter_mut());
                bytes.zip(offset..).for_each(|(byte, at)| *byte = at as u8);
                Ok(true)
            };
            assert!(lay_out(due, blksize, size, &mut out, fill).unwrap());
            for datagram in out.chunks(usize::from(blksize) + 4) {
                got.extend_from_slice(&datagram[4..]);
            }
            step = transfer.receive(ack((due.first + u64::from(due.count) - 1) as u16), now);
        }
        assert_eq!(step, DONE);
        let wanted: Vec<u8> = (0..size).map(|at| at as u8).collect();
        assert!(got == wanted, "{blksize} × {window}, {size} bytes");
        assert_eq!(transfer.acknowledged(), last, "{blksize} × {window}, {size} bytes");
        assert_eq!(transfer.bytes(size), size);
        assert_eq!(transfer.resent(), 0);
    }
}

#[test]
fn the_uefi_size_probe_ends_at_once() {
    let asked = Options { tsize: true, blksize: Some(1468), ..Options::default() };
    let terms = terms::agree(&asked, 1_000_000, 1472);
    let (mut transfer, step, now) = begin(&terms, 1_000_000);
    assert_eq!(step, Step::Oack);
    let message = "User aborted the transfer".to_string();
    let error = Packet::Error { code: 8, message: message.clone() };
    let end = transfer.receive(error, now + MS);
    assert_eq!(end, Step::End(End::Probed { code: Some(8), message }));
}

#[test]
fn an_oack_waits_for_ack_0() {
    let asked = Options { windowsize: Some(4), ..Options::default() };
    let (mut transfer, step, now) = begin(&terms::agree(&asked, 9999, 1472), 9999);
    assert_eq!(step, Step::Oack);
    assert_eq!(transfer.receive(ack(1), now), Step::Wait);
    assert_eq!(transfer.expire(now + 500 * MS), Step::Wait);
    assert_eq!(transfer.expire(now + 1000 * MS), Step::Oack);
    assert!(!transfer.heard());
    assert_eq!(transfer.receive(ack(0), now + 1001 * MS), blocks(1, 4));
    assert!(transfer.heard());
}

#[test]
fn silence_is_met_with_longer_and_longer_waits_and_then_an_end() {
    // Whoever has acknowledged nothing may not be there: three datagrams.
    for (heard, expected) in
        [(true, &[1000, 2000, 4000, 8000, 8000, 8000, 8000][..]), (false, &[1000, 2000, 4000])]
    {
        let (mut transfer, _, mut now) = begin(&terms(512, 1), 5000);
        if heard {
            now += 1000 * MS;
            assert!(matches!(transfer.receive(ack(1), now), Step::Blocks(_)));
        }
        let mut waits = Vec::new();
        let end = loop {
            waits.push((transfer.deadline() - now).as_millis());
            now = transfer.deadline();
            match transfer.expire(now) {
                Step::Blocks(Blocks { count: 1, .. }) => {}
                other => break other,
            }
        };
        assert_eq!(end, Step::End(End::TimedOut));
        assert_eq!(waits, expected);
        assert_eq!(transfer.resent(), expected.len() as u64 - 1);
    }
}

#[test]
fn one_request_that_comes_again_and_again_is_answered_eight_times() {
    let (mut transfer, _, now) = begin(&terms(512, 1), 5000);
    let again = (0..1000).filter(|_| transfer.again(now) != Step::Wait).count();
    assert_eq!(again, 7);
    let terms = terms::agree(&Options { windowsize: Some(64), ..Options::default() }, 5000, 1472);
    let (mut transfer, first) = Transfer::begin(&terms, 5000, Patience::default(), now);
    assert_eq!(first, Step::Oack, "no window before somebody has taken the OACK");
    assert_eq!(transfer.again(now), Step::Oack);
}

#[test]
fn who_is_answered_once_is_answered_once() {
    let once = Patience { unheard: 0, ..Patience::default() };
    let (now, asked) = (Instant::now(), Options { windowsize: Some(64), ..Options::default() });
    for (terms, answer, ack_of_it) in
        [(terms(512, 1), blocks(1, 1), 1), (terms::agree(&asked, 5000, 1472), Step::Oack, 0)]
    {
        let (mut transfer, first) = Transfer::begin(&terms, 5000, once, now);
        assert_eq!(first, answer);
        assert!((0..1000).all(|_| transfer.again(now + MS) == Step::Wait));
        assert_eq!(transfer.deadline() - now, 1000 * MS, "it does not stay for longer");
        assert_eq!(transfer.expire(transfer.deadline()), Step::End(End::TimedOut));
        // Who is there has all the patience there is.
        let (mut transfer, _) = Transfer::begin(&terms, 512 * 500, once, now);
        assert!(matches!(transfer.receive(ack(ack_of_it), now + MS), Step::Blocks(_)));
        assert!(matches!(transfer.expire(transfer.deadline()), Step::Blocks(_)));
    }
}

#[test]
fn an_agreed_timeout_is_kept() {
    let asked = Options { timeout: Some(3), ..Options::default() };
    let (mut transfer, _, now) = begin(&terms::agree(&asked, 5000, 1472), 5000);
    assert_eq!(transfer.deadline() - now, 3000 * MS);
    assert_eq!(transfer.receive(ack(0), now + MS), blocks(1, 1));
    assert_eq!(transfer.deadline() - now, 3001 * MS);
}

#[test]
fn a_client_that_never_moves_on_is_left_in_the_end() {
    let (mut transfer, _, start) = begin(&terms(512, 1), 5000);
    let mut now = start;
    let mut sent = 0;
    let end = loop {
        now += 100 * MS;
        transfer.receive(ack(0), now);
        match transfer.expire(now) {
            Step::Wait => {}
            Step::Blocks(_) => sent += 1,
            other => break other,
        }
    };
    assert_eq!(end, Step::End(End::TimedOut));
    assert!(now - start < 70_000 * MS, "{:?}", now - start);
    assert!(sent < 80, "{sent} resent");
}

#[test]
fn a_client_that_falls_silent_after_a_nudge_is_given_up_by_tries() {
    let (mut transfer, _, start) = begin(&terms(512, 1), 5000);
    transfer.receive(ack(1), start + MS);
    transfer.receive(ack(1), start + 2 * MS);
    let mut sent = 0;
    while let Step::Blocks(_) = transfer.expire(transfer.deadline()) {
        sent += 1;
    }
    assert_eq!(sent, 7);
    assert!(transfer.deadline() - start < 40_000 * MS);
}

#[test]
fn repeated_acks_bring_no_block_twice() {
    // RFC 1123 §4.2.3.1: every ACK arrives twice, and no DATA goes out twice for it.
    let (mut transfer, _, mut now) = begin(&terms(512, 1), 512 * 100);
    for block in 1..=100u16 {
        now += MS;
        assert_eq!(transfer.receive(ack(block), now), blocks(u64::from(block) + 1, 1));
        assert_eq!(transfer.receive(ack(block), now), Step::Wait);
        assert_eq!(transfer.expire(now), Step::Wait);
    }
    assert_eq!(transfer.receive(ack(101), now), DONE);
    assert_eq!(transfer.resent(), 0);
}

#[test]
fn an_ack_inside_the_window_resends_from_there() {
    let (mut transfer, step, now) = begin(&terms(512, 8), 512 * 20);
    assert_eq!(step, blocks(1, 8));
    assert_eq!(transfer.receive(ack(3), now + MS), blocks(4, 8));
    assert_eq!(transfer.resent(), 5);
    // EDK2 says it once more for each block behind the gap.
    for _ in 0..4 {
        assert_eq!(transfer.receive(ack(3), now + 2 * MS), Step::Wait);
    }
    assert_eq!(transfer.receive(ack(11), now + 3 * MS), blocks(12, 8));
    // Older than the window, or not sent yet.
    for stray in [0, 3, 10, 20, 40000, 65535] {
        assert_eq!(transfer.receive(ack(stray), now + 4 * MS), Step::Wait, "{stray}");
    }
}

#[test]
fn an_ack_before_the_window_resends_it_soon() {
    let (mut transfer, _, now) = begin(&terms(512, 8), 512 * 20);
    assert_eq!(transfer.receive(ack(8), now + MS), blocks(9, 8));
    // Block 9 is lost; the client asks for it.
    assert_eq!(transfer.receive(ack(8), now + 2 * MS), Step::Wait);
    let soon = transfer.deadline();
    assert!(soon - now < 20 * MS, "{:?}", soon - now);
    assert_eq!(transfer.expire(soon), blocks(9, 8));
}

#[test]
fn block_numbers_wrap_to_zero() {
    for window in [1, 7, 64] {
        let size = 8 * 140_000 + 3;
        let (mut transfer, mut step, now) = begin(&terms(8, window), size);
        let mut next = 1;
        while let Step::Blocks(due) = step {
            assert_eq!(due.first, next);
            next += u64::from(due.count);
            step = transfer.receive(ack((next - 1) as u16), now);
        }
        assert_eq!(step, DONE);
        assert_eq!(next - 1, 140_001);
    }
    let mut out = Vec::new();
    let fill = |_: u64, _: &mut [IoSliceMut<'_>]| Ok(true);
    assert!(lay_out(Blocks { first: 65535, count: 3 }, 8, 1 << 30, &mut out, fill).unwrap());
    let numbers: Vec<&[u8]> = out.chunks(12).map(|datagram| &datagram[..4]).collect();
    assert_eq!(numbers, [[0, 3, 255, 255], [0, 3, 0, 0], [0, 3, 0, 1]]);
}

#[test]
fn a_partial_ack_across_the_wrap() {
    let (mut transfer, mut step, now) = begin(&terms(8, 8), 8 * 70_000);
    while let Step::Blocks(Blocks { first, .. }) = step {
        if first > 65_528 {
            break;
        }
        step = transfer.receive(ack((first + 7) as u16), now);
    }
    assert_eq!(step, blocks(65_529, 8));
    assert_eq!(transfer.receive(ack(65_535), now), blocks(65_536, 8));
    assert_eq!(transfer.receive(ack(2), now), blocks(65_539, 8));
    assert_eq!(transfer.receive(ack(65_535), now), Step::Wait);
}

#[test]
fn a_repeated_request_is_answered_until_the_client_has_been_heard() {
    let (mut transfer, _, now) = begin(&terms(512, 1), 5000);
    assert_eq!(transfer.again(now + MS), blocks(1, 1));
    transfer.receive(ack(1), now + 2 * MS);
    assert_eq!(transfer.again(now + 3 * MS), Step::Wait);
}

#[test]
fn a_transfer_set_aside_ends_unless_its_client_lives() {
    let (mut transfer, _, now) = begin(&terms(512, 1), 5000);
    transfer.step_aside();
    assert_eq!(transfer.receive(ack(1), now + MS), blocks(2, 1));
    let late = transfer.deadline();
    assert_eq!(transfer.expire(late), blocks(2, 1));
    transfer.step_aside();
    assert_eq!(transfer.expire(transfer.deadline()), Step::End(End::Replaced));
}

#[test]
fn a_closed_port_after_the_last_block_is_an_end_as_good_as_an_ack() {
    let (mut transfer, _, now) = begin(&terms(512, 1), 600);
    assert!(matches!(transfer.gone(), End::Aborted { code: None, .. }));
    transfer.receive(ack(1), now);
    assert_eq!(transfer.gone(), End::Done { confirmed: false });
}

/// How a client answers a block it does not expect.
#[derive(Debug, Clone, Copy)]
enum Habit {
    /// Says nothing, repeats its last ACK after a second.
    Patient,
    /// RFC 7440: one ACK at a gap.
    Gap,
    /// EDK2: an ACK for each.
    Each,
}

/// A network on paper: packets with the moment they arrive. Returns the blocks sent.
fn simulate(
    blksize: u16,
    window: u16,
    size: u64,
    habit: Habit,
    loss: u32,
    seed: u64,
) -> Result<u64, String> {
    let mut state = seed | 1;
    let mut random = move |below: u32| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 33) as u32 % below
    };
    enum Wire {
        Data(u64),
        Ack(u64),
    }
    let start = Instant::now();
    // This client asks once: one that asks again is another transfer to the server.
    let patience = Patience { unheard: 6, ..Patience::default() };
    let (mut transfer, step) = Transfer::begin(&terms(blksize, window), size, patience, start);
    let mut wire: BTreeMap<(Instant, u64), Wire> = BTreeMap::new();
    let (mut serial, mut sent) = (0u64, 0u64);
    let last = size / u64::from(blksize) + 1;
    // The client: what it has, blocks since its ACK, whether it has spoken of this gap.
    let (mut have, mut since, mut complained) = (0u64, 0u64, false);
    let mut client_deadline = start + 1000 * MS;
    let mut steps = vec![(start, step)];
    for _ in 0..2_000_000 {
        while let Some((now, step)) = steps.pop() {
            match step {
                Step::Wait | Step::Oack => {}
                Step::Blocks(due) => {
                    for block in due.first..due.first + u64::from(due.count) {
                        sent += 1;
                        for _ in 0..1 + u32::from(random(100) < loss / 2) {
                            serial += 1;
                            if random(100) >= loss {
                                let late = Duration::from_micros(u64::from(100 + random(400)));
                                wire.insert((now + late, serial), Wire::Data(block));
                            }
                        }
                    }
                }
                Step::End(End::Done { .. }) => {
                    return if have == last { Ok(sent) } else { Err(format!("has {have}")) };
                }
                // The client has it all and has left: only its last ACKs were lost.
                Step::End(End::TimedOut) if have == last => return Ok(sent),
                Step::End(other) => return Err(format!("{other:?} at {have} of {last}")),
            }
        }
        let due = wire.first_key_value().map(|((at, _), _)| *at);
        let server_deadline = transfer.deadline();
        let now = due.unwrap_or(server_deadline).min(server_deadline).min(client_deadline);
        let mut acks = Vec::new();
        if due == Some(now) {
            let (_, packet) = wire.pop_first().expect("its key was just read");
            match packet {
                Wire::Ack(block) => {
                    steps.push((now, transfer.receive(ack(block as u16), now)));
                }
                Wire::Data(block) if block == have + 1 => {
                    have += 1;
                    since += 1;
                    complained = false;
                    client_deadline = now + 1000 * MS;
                    if since == u64::from(window) || have == last {
                        acks.push(have);
                        since = 0;
                    }
                }
                Wire::Data(_) => match habit {
                    Habit::Patient => {}
                    Habit::Gap if complained => {}
                    Habit::Gap | Habit::Each => {
                        complained = true;
                        since = 0;
                        acks.push(have);
                    }
                },
            }
        } else if client_deadline == now {
            client_deadline = now + 1000 * MS;
            since = 0;
            if have > 0 {
                acks.push(have);
            }
        } else {
            steps.push((now, transfer.expire(now)));
        }
        for block in acks {
            serial += 1;
            if random(100) >= loss {
                let late = Duration::from_micros(u64::from(100 + random(400)));
                wire.insert((now + late, serial), Wire::Ack(block));
            }
        }
    }
    Err(format!("no end in sight, {have} of {last}, {sent} sent"))
}

#[test]
fn nobody_gets_the_sorcerers_apprentice() {
    // Nothing is lost, so nothing goes out twice.
    for habit in [Habit::Patient, Habit::Gap, Habit::Each] {
        let sent = simulate(512, 1, 512 * 1000, habit, 0, 7).unwrap();
        assert_eq!(sent, 1001, "{habit:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]
    #[test]
    fn every_client_gets_its_file_through_a_bad_network(
        window in 1u16..=64,
        size in 0u64..200_000,
        habit in prop_oneof![Just(Habit::Patient), Just(Habit::Gap), Just(Habit::Each)],
        loss in 0u32..=20,
        seed: u64,
    ) {
        let blksize = 512;
        let sent = simulate(blksize, window, size, habit, loss, seed);
        let blocks = size / u64::from(blksize) + 1;
        // Reordering within a window makes RFC 7440 go back: up to a window each time.
        let bound = (blocks + 20) * (u64::from(window) + 1) * 4;
        prop_assert!(sent.clone().is_ok_and(|sent| sent <= bound), "{sent:?} of {blocks}");
    }

    #[test]
    fn no_order_of_datagrams_panics_or_sends_outside_the_file(
        window in 1u16..=64,
        size in 0u64..100_000,
        datagrams in proptest::collection::vec(
            (0u64..3000, prop_oneof![
                (0u16..220).prop_map(|block| [&[0, 4][..], &block.to_be_bytes()].concat()),
                proptest::collection::vec(any::<u8>(), 0..8),
            ]), 0..60),
    ) {
        let (mut transfer, mut step, mut now) = begin(&terms(512, window), size);
        let last = size / 512 + 1;
        for (wait, datagram) in datagrams {
            match step {
                Step::Blocks(Blocks { first, count }) => {
                    prop_assert!(first >= 1 && count >= 1 && count <= window);
                    prop_assert!(first + u64::from(count) - 1 <= last);
                }
                Step::End(_) => return Ok(()),
                _ => {}
            }
            now += Duration::from_millis(wait);
            let expired = transfer.expire(now);
            if let Step::End(_) = expired {
                return Ok(());
            }
            step = match packet::decode(&datagram) {
                Ok(packet) => transfer.receive(packet, now),
                Err(_) => Step::Wait,
            };
            prop_assert!(transfer.deadline() >= now);
        }
    }
}
