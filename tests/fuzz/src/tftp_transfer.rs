//! One transfer against a client that sends anything at any time. It ends, sends nothing beyond the
//! file, never more than its window, and within bounds however the client behaves.

#![no_main]

use std::time::{Duration, Instant};

use koboshi_fuzz::Input;
use koboshi_pxe::tftp::packet::{self, Options, Packet};
use koboshi_pxe::tftp::terms::agree;
use koboshi_pxe::tftp::transfer::{End, Patience, Step, Transfer};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let input = &mut Input(bytes);
    let asks = input.byte();
    let options = Options {
        blksize: (asks & 1 != 0).then(|| input.short().max(8)),
        timeout: (asks & 2 != 0).then(|| input.byte().max(1)),
        tsize: asks & 4 != 0,
        windowsize: (asks & 8 != 0).then(|| input.short().max(1)),
    };
    // Past 65535 blocks, so that numbers wrap, and the ends of what a size can be.
    let size = match asks >> 6 {
        0 => u64::from(input.short()),
        1 => u64::from(input.word()),
        2 => u64::MAX - u64::from(input.short()),
        _ => 65535 * 8 + u64::from(input.byte()),
    };
    let terms = agree(&options, size, usize::from(input.short()));
    let last = size / u64::from(terms.blksize) + 1;
    let patience = Patience::default();
    let start = Instant::now();
    let mut now = start;
    let (mut transfer, mut step) = Transfer::begin(&terms, size, patience, now);
    let mut sent_to = 0;
    loop {
        match step {
            Step::Wait => {}
            Step::Oack => assert!(terms.oack.is_some() && sent_to == 0),
            Step::Blocks(blocks) => {
                let to = blocks.first + u64::from(blocks.count) - 1;
                assert!(blocks.count >= 1 && blocks.count <= terms.window);
                assert!(blocks.first == transfer.acknowledged() + 1 && to <= last);
                sent_to = sent_to.max(to);
            }
            Step::End(end) => {
                if end == (End::Done { confirmed: true }) {
                    assert_eq!((transfer.acknowledged(), sent_to), (last, last));
                    assert_eq!(transfer.bytes(size), size);
                }
                return;
            }
        }
        assert!(transfer.acknowledged() <= sent_to && transfer.bytes(size) <= size);
        if !input.more() {
            break;
        }
        step = match input.byte() % 8 {
            0..=2 => {
                // Near what was sent, where the edges are.
                let near = i16::from(input.byte() as i8);
                let block = (transfer.acknowledged() as u16).wrapping_add_signed(near);
                transfer.receive(Packet::Ack(block), now)
            }
            3 => {
                let length = usize::from(input.byte());
                match packet::decode(input.take(length)) {
                    Ok(packet) => transfer.receive(packet, now),
                    Err(_) => Step::Wait,
                }
            }
            4 => {
                now += Duration::from_millis(u64::from(input.short()));
                transfer.expire(now)
            }
            5 => {
                now = now.max(transfer.deadline());
                transfer.expire(now)
            }
            6 => transfer.again(now),
            _ => {
                match input.byte() % 4 {
                    0 => transfer.step_aside(),
                    1 => drop(transfer.gone()),
                    _ => now += Duration::from_secs(u64::from(input.byte())),
                }
                Step::Wait
            }
        };
    }
    // A client that has fallen silent is given up in finite time.
    for _ in 0..64 {
        now = now.max(transfer.deadline());
        if let Step::End(_) = transfer.expire(now) {
            return;
        }
    }
    panic!("a transfer that never ends: {transfer:?}");
});
