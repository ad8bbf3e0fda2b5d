//! Classic pcap files of Ethernet, as tcpdump writes them: the datagrams that machines sent, and a file of what we
//! would send for a stranger to read.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

/// The appliance of the rack.
pub const SERVER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
/// Its card.
pub const SERVER_MAC: [u8; 6] = [0x52, 0x54, 0, 0x77, 0xff, 0x01];

const MAGIC: u32 = 0xa1b2_c3d4;
const ETHERNET: u32 = 1;

/// What a machine sent.
#[derive(Debug)]
pub struct Said {
    /// Since the first packet.
    pub at: Duration,
    pub mac: [u8; 6],
    pub from: SocketAddrV4,
    pub to: SocketAddrV4,
    /// TCP, else UDP.
    pub tcp: bool,
    pub payload: Vec<u8>,
}

/// Everything in a file that the appliance did not say itself.
pub fn read(file: &[u8]) -> Vec<Said> {
    let word = |at: usize| u32::from_le_bytes(file[at..at + 4].try_into().expect("four bytes"));
    assert_eq!((word(0), word(20)), (MAGIC, ETHERNET), "no pcap of Ethernet, little-endian, in µs");
    let (mut at, mut first, mut said) = (24, None, Vec::new());
    while at < file.len() {
        let time = Duration::new(word(at).into(), word(at + 4) * 1000);
        let (kept, length) = (word(at + 8) as usize, word(at + 12) as usize);
        let frame = &file[at + 16..at + 16 + kept];
        at += 16 + kept;
        let since = time.saturating_sub(*first.get_or_insert(time));
        if frame[6..12] != SERVER_MAC {
            assert_eq!(kept, length, "a packet of a machine's was cut: record with a longer -s");
            said.push(datagram(since, frame));
        }
    }
    said
}

fn datagram(at: Duration, frame: &[u8]) -> Said {
    assert_eq!(frame[12..14], [8, 0], "the filter takes IPv4 alone");
    let packet = &frame[14..];
    let number = |at: usize| usize::from(u16::from_be_bytes([packet[at], packet[at + 1]]));
    let header = usize::from(packet[0] & 15) * 4;
    let tcp = packet[9] == 6;
    let payload = header + if tcp { usize::from(packet[header + 12] >> 4) * 4 } else { 8 };
    let end = |address: usize, port: usize| {
        let octets: [u8; 4] = packet[address..address + 4].try_into().expect("four bytes");
        SocketAddrV4::new(octets.into(), number(port) as u16)
    };
    Said {
        at,
        mac: frame[6..12].try_into().expect("six bytes"),
        from: end(12, header),
        to: end(16, header + 2),
        tcp,
        payload: packet[payload..number(2)].to_vec(),
    }
}

/// A file of these frames.
pub fn write(frames: &[Vec<u8>]) -> Vec<u8> {
    let head = [MAGIC, 2 | 4 << 16, 0, 0, 65535, ETHERNET];
    let mut file: Vec<u8> = head.iter().flat_map(|word| word.to_le_bytes()).collect();
    for frame in frames {
        let length = frame.len() as u32;
        file.extend([0, 0, length, length].iter().flat_map(|word: &u32| word.to_le_bytes()));
        file.extend(frame);
    }
    file
}
