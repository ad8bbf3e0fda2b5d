//! Any datagram on port 69: read, its name made a key, its options agreed on, and the first window
//! laid out.

#![no_main]

use std::io::IoSliceMut;
use std::time::Instant;

use koboshi_pxe::tftp::name;
use koboshi_pxe::tftp::packet::{self, Packet};
use koboshi_pxe::tftp::terms::{WINDOW_BYTES, agree};
use koboshi_pxe::tftp::transfer::{Patience, Step, Transfer, lay_out};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|datagram: &[u8]| {
    if let Some(name) = name::clean(datagram) {
        assert_eq!(name::clean(name.as_bytes()), Some(name.clone()), "clean is clean");
        assert!(!name.is_empty() && !name.starts_with('/') && !name.contains('\\'));
        assert!(name.split('/').all(|part| !matches!(part, "" | "." | "..")));
    }
    if let Some(text) = packet::netascii(datagram, 2 * datagram.len()) {
        assert!(text.len() >= datagram.len());
    }
    match packet::decode(datagram) {
        Ok(Packet::Read(request)) => {
            let _ = name::clean(&request.name);
            for (size, payload) in [(0, 1472), (1 << 20, 65507), (u64::MAX >> 1, 0), (513, 8972)] {
                let terms = agree(&request.options, size, payload);
                assert!(terms.blksize >= 8 && terms.window >= 1);
                let window = usize::from(terms.window) * (usize::from(terms.blksize) + 4);
                assert!(window <= WINDOW_BYTES);
                if let Some(oack) = &terms.oack {
                    assert_eq!(packet::decode(oack), Ok(Packet::Stray));
                }
                let now = Instant::now();
                let (mut transfer, step) = Transfer::begin(&terms, size, Patience::default(), now);
                let step = match step {
                    Step::Oack => transfer.receive(Packet::Ack(0), now),
                    step => step,
                };
                let Step::Blocks(blocks) = step else { panic!("{step:?}") };
                let mut out = Vec::new();
                let fill = |_, bodies: &mut [IoSliceMut<'_>]| {
                    bodies.iter_mut().for_each(|body| body.fill(7));
                    Ok(true)
                };
                assert!(lay_out(blocks, terms.blksize, size, &mut out, fill).expect("no disk"));
                assert!(out.len() <= window);
            }
        }
        Ok(Packet::Error { message, .. }) => {
            assert!(message.len() <= 3 * 128 && !message.contains(char::is_control));
        }
        Ok(Packet::Write | Packet::Ack(_) | Packet::Stray) | Err(_) => {}
    }
});
