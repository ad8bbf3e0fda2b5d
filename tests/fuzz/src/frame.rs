//! Whatever passes on the link of a raw socket: DHCP frames and ARP.

#![no_main]

use koboshi_pxe::dhcp::frame::{Arp, Datagram};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|frame: &[u8]| {
    if let Some(datagram) = Datagram::decode(frame) {
        assert!(datagram.payload.len() + 42 <= frame.len());
        if datagram.payload.len() <= 1472 {
            let ours = datagram.encode();
            assert_eq!(Datagram::decode(&ours), Some(datagram));
        }
    }
    if let Some(arp) = Arp::decode(frame) {
        let mut ours = arp.encode();
        // We broadcast; a stranger may not have.
        ours[..6].copy_from_slice(&frame[..6]);
        ours[6..12].copy_from_slice(&frame[6..12]);
        assert_eq!(Arp::decode(&ours), Some(arp));
    }
});
