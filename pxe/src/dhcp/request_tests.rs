//! What real clients send, and what no client should.

use proptest::prelude::*;

use super::*;
use crate::dhcp::packet::LARGEST;

/// A datagram as a client writes it.
fn datagram(mac: [u8; 6], options: &[(u8, &[u8])]) -> Vec<u8> {
    let mut chaddr = [0; 16];
    chaddr[..6].copy_from_slice(&mac);
    let mut packet = Packet {
        op: BOOTREQUEST,
        htype: 1,
        hlen: 6,
        hops: 0,
        xid: 0x1234_5678,
        secs: 4,
        broadcast: true,
        ciaddr: Ipv4Addr::UNSPECIFIED,
        yiaddr: Ipv4Addr::UNSPECIFIED,
        siaddr: Ipv4Addr::UNSPECIFIED,
        giaddr: Ipv4Addr::UNSPECIFIED,
        chaddr,
        file: Vec::new(),
        options: Options::default(),
    };
    for (code, value) in options {
        packet.options.push(*code, value);
    }
    packet.encode()
}

const MAC: [u8; 6] = [0x52, 0x54, 0, 0x77, 0, 1];

/// Files of hexadecimal text: `#` begins a comment, blanks and line ends mean nothing.
fn message(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .flat_map(str::chars)
        .filter_map(|c| c.to_digit(16))
        .map(|digit| digit as u8)
        .collect();
    digits.as_chunks::<2>().0.iter().map(|[high, low]| high << 4 | low).collect()
}

const IPXE: &str = include_str!("testdata/ipxe-discover.hex");
const EDK2_PXE: &str = include_str!("testdata/edk2-pxe-discover.hex");
const EDK2_HTTP: &str = include_str!("testdata/edk2-http-discover.hex");
const UDHCPC: &str = include_str!("testdata/udhcpc-discover.hex");

#[test]
fn ipxe_of_a_bios_option_rom() {
    let request = Request::decode(&message(IPXE)).expect("iPXE's DISCOVER");
    assert_eq!(request.kind, MessageType::Discover);
    assert_eq!(request.mac, Mac(MAC));
    assert_eq!(request.secs, 4);
    assert!(request.is_ipxe());
    assert_eq!(request.vendor(), Vendor::Pxe);
    assert_eq!(request.archs, [0]);
    assert_eq!(request.ndi, Some([1, 2, 1]));
    assert_eq!(request.max_size, Some(1472));
    assert_eq!(request.guid, Some(vec![0; 17]));
    assert_eq!(request.uuid(), None, "QEMU without -uuid has none");
    assert_eq!(request.client_id.as_deref(), Some(&[1, 0x52, 0x54, 0, 0x77, 0, 1][..]));
    assert_eq!(request.ipxe.as_deref().map(|encapsulated| encapsulated[0]), Some(0xb1));
    assert!(request.wants(code::BOOT_FILE) && !request.wants(code::NTP));
    assert!(!request.broadcast);
}

#[test]
fn edk2_by_pxe() {
    let request = Request::decode(&message(EDK2_PXE)).expect("EDK2's DISCOVER");
    assert!(!request.is_ipxe());
    assert_eq!(request.vendor(), Vendor::Pxe);
    assert_eq!(request.vendor_class, b"PXEClient:Arch:00007:UNDI:003000");
    assert_eq!(request.archs, [7]);
    assert_eq!(request.max_size, Some(1472));
    assert!(request.broadcast);
    assert!(request.guid.is_some() && request.client_id.is_none());
}

#[test]
fn edk2_by_http() {
    let request = Request::decode(&message(EDK2_HTTP)).expect("EDK2's DISCOVER");
    assert_eq!(request.vendor(), Vendor::Http);
    assert_eq!(request.archs, [16]);
    assert!(!request.is_ipxe());
}

#[test]
fn udhcpc_asking_for_an_address() {
    let request = Request::decode(&message(UDHCPC)).expect("udhcpc's DISCOVER");
    assert_eq!(request.requested, Some(Ipv4Addr::new(10, 77, 0, 200)));
    assert_eq!(request.server_id, None);
    assert_eq!(request.vendor(), Vendor::Other);
    assert_eq!(request.hostname.as_deref(), Some("m07"));
    assert_eq!(request.wanted, [1, 3, 6, 12, 15, 28, 42]);
    assert!(request.archs.is_empty());
}

/// Every prefix of each: an error that names something, or the truth so far.
#[test]
fn cut_at_every_byte() {
    for text in [IPXE, EDK2_PXE, EDK2_HTTP, UDHCPC] {
        let whole = message(text);
        let full = Request::decode(&whole).expect("whole");
        for length in 0..whole.len() {
            match Request::decode(&whole[..length]) {
                Ok(request) => assert_eq!(request.mac, full.mac),
                Err(BadPacket::Short(_) | BadPacket::OptionCut(_) | BadPacket::NoMessageType) => {}
                Err(other) => panic!("{length}: {other}"),
            }
        }
    }
}

#[test]
fn what_is_no_request_is_refused_by_name() {
    let good = datagram(MAC, &[(53, &[1])]);
    assert!(Request::decode(&good).is_ok());
    let with = |at: usize, byte: u8| {
        let mut wire = good.clone();
        wire[at] = byte;
        Request::decode(&wire)
    };
    assert_eq!(with(0, 2), Err(BadPacket::NotARequest(2)));
    assert_eq!(with(2, 255), Err(BadPacket::HardwareLength(255)));
    assert_eq!(with(2, 0), Err(BadPacket::NoMac { htype: 1, hlen: 0 }));
    assert_eq!(with(2, 16), Err(BadPacket::NoMac { htype: 1, hlen: 16 }));
    assert_eq!(with(28, 0x53), Err(BadPacket::NoMac { htype: 1, hlen: 6 }), "multicast");
    for (options, wanted) in [
        (&[][..], BadPacket::NoMessageType),
        (&[(53, &[][..])], BadPacket::OptionLength(53)),
        (&[(53, &[2])], BadPacket::MessageType(2)),
        (&[(53, &[10])], BadPacket::MessageType(10)),
        (&[(53, &[3]), (50, &[10, 0, 0])], BadPacket::OptionLength(50)),
        (&[(53, &[3]), (54, &[10, 0, 0, 1, 1])], BadPacket::OptionLength(54)),
    ] {
        assert_eq!(Request::decode(&datagram(MAC, options)), Err(wanted));
    }
    let zero = datagram([0; 6], &[(53, &[1])]);
    assert_eq!(Request::decode(&zero), Err(BadPacket::NoMac { htype: 1, hlen: 6 }));
}

#[test]
fn odd_firmware_is_understood() {
    let read = |options: &[(u8, &[u8])]| {
        let mut all: Vec<(u8, &[u8])> = vec![(53, &[1])];
        all.extend_from_slice(options);
        Request::decode(&datagram(MAC, &all)).expect("odd, and sound")
    };
    assert_eq!(read(&[(93, &[0, 7, 0, 9])]).archs, [7, 9], "several architectures");
    assert_eq!(read(&[(93, &[0, 7, 0])]).archs, [7], "an odd byte");
    assert_eq!(read(&[(93, &[7]), (60, b"PXEClient:Arch:00009:UNDI:003000")]).archs, [9]);
    assert_eq!(read(&[(60, b"PXEClient:Arch:99999:UNDI")]).archs, [0u16; 0]);
    assert_eq!(read(&[(60, b"PXEClient:Arch:")]).archs, [0u16; 0]);
    assert_eq!(read(&[(60, b"\xff:Arch:00001")]).archs, [0u16; 0]);

    assert_eq!(read(&[]).uuid(), None);
    assert_eq!(read(&[(97, &[0; 16])]).uuid(), None, "no type");
    assert_eq!(read(&[(97, &[0; 16])]).guid, Some(vec![0; 16]), "and still echoed");
    assert_eq!(read(&[(97, &[255; 17])]).uuid(), None);
    assert_eq!(read(&[(97, &[0; 17])]).uuid(), None);
    let mut guid = [7; 17];
    guid[0] = 0;
    assert_eq!(read(&[(97, &guid)]).uuid(), Some([7; 16]));

    assert_eq!(read(&[(94, &[1, 2])]).ndi, None);
    assert_eq!(read(&[(12, b"m01\0")]).hostname.as_deref(), Some("m01"));
    assert_eq!(read(&[(12, b"m\xff")]).hostname, None);
    assert_eq!(read(&[(12, b"a b")]).hostname, None);
    assert_eq!(read(&[(57, &[2])]).max_size, None);
}

#[test]
fn ipxe_in_either_spelling() {
    for (user_class, ipxe) in [
        (&b"iPXE"[..], true),
        (b"\x04iPXE", true),
        (b"\x03abc\x04iPXE", true),
        (b"\x05iPXE!", false),
        (b"\x04iPX", false),
        (b"gPXE", false),
        (b"", false),
        (b"\0", false),
        (b"iPXE2", false),
    ] {
        let mut request = Request::bare(MessageType::Discover, Mac(MAC));
        request.user_class = user_class.to_vec();
        assert_eq!(request.is_ipxe(), ipxe, "{user_class:?}");
    }
}

proptest! {
    #[test]
    fn no_bytes_bring_it_down(bytes in prop::collection::vec(any::<u8>(), 0..=LARGEST)) {
        let _ = Request::decode(&bytes);
    }

    #[test]
    fn no_options_bring_it_down(noise in prop::collection::vec(any::<u8>(), 0..600)) {
        let mut wire = datagram(MAC, &[]);
        wire.truncate(240);
        wire.extend_from_slice(&[53, 1, 1]);
        wire.extend_from_slice(&noise);
        if let Ok(request) = Request::decode(&wire) {
            let _ = (request.is_ipxe(), request.vendor(), request.uuid());
            prop_assert_eq!(request.mac, Mac(MAC));
        }
    }
}
