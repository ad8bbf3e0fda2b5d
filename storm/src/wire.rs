//! The packet socket under all machines: their frames out, and what UDP and ARP bring for them in. TCP
//! is the kernel's, and none of it is copied here: a filter in the kernel sees to that.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;

use koboshi_pxe::Mac;
use koboshi_pxe::dhcp::frame::{ARP, Arp};
use nix::sys::socket::{LinkAddr, bind, recvfrom, setsockopt, sockopt};
use socket2::{Domain, Protocol, SockFilter, Socket, Type};
use tokio::io::Interest;
use tokio::net::UdpSocket;

/// Ten thousand machines answered at once.
const BUFFER: usize = 64 << 20;
const IPV4: u16 = 0x0800;
const UDP: u8 = 17;
/// The largest frame: a kernel hands over several datagrams as one where nobody has cut them yet.
pub const FRAME_MAX: usize = 70_000;

/// Sockets on one interface.
#[derive(Debug)]
pub struct Wire {
    /// The interface's own address: what TCP goes by.
    pub mac: Mac,
    frames: UdpSocket,
    arp: UdpSocket,
    out: Socket,
}

/// A UDP datagram off the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Datagram<'a> {
    /// Who sent it.
    pub from: (Mac, Ipv4Addr, u16),
    /// To whom.
    pub to: (Mac, Ipv4Addr, u16),
    /// What.
    pub payload: &'a [u8],
}

/// Reads a frame. Its UDP checksum is not looked at: between two ends of one host nobody fills it in.
pub fn read(frame: &[u8]) -> Option<Datagram<'_>> {
    let (ethernet, packet) = frame.split_first_chunk::<14>()?;
    if ethernet[12..14] != IPV4.to_be_bytes() {
        return None;
    }
    let header = usize::from(packet.first()? & 15) * 4;
    let ip = packet.get(..header).filter(|ip| ip.len() >= 20 && ip[9] == UDP)?;
    let length = usize::from(u16::from_be_bytes([ip[2], ip[3]]));
    let (udp, payload) = packet.get(header..length)?.split_first_chunk::<8>()?;
    let port = |at: usize| u16::from_be_bytes([udp[at], udp[at + 1]]);
    let address = |at: usize| Ipv4Addr::new(ip[at], ip[at + 1], ip[at + 2], ip[at + 3]);
    let mac = |at: usize| ethernet[at..].first_chunk::<6>().copied().map(Mac);
    Some(Datagram {
        from: (mac(6)?, address(12), port(0)),
        to: (mac(0)?, address(16), port(2)),
        payload,
    })
}

impl Wire {
    /// Opens them, within a tokio runtime.
    pub fn open(interface: &str) -> io::Result<Wire> {
        let link = link_address(interface)?;
        let mac = Mac(link.addr().unwrap_or_default());
        let frames = packet_socket(IPV4, &link)?;
        // RFC 791: the protocol is the tenth byte of the header. Load it; 17 passes whole, the rest not
        // at all.
        frames.attach_filter(&[
            SockFilter::new(0x30, 0, 0, 14 + 9),
            SockFilter::new(0x15, 0, 1, u32::from(UDP)),
            SockFilter::new(0x06, 0, 0, u32::MAX),
            SockFilter::new(0x06, 0, 0, 0),
        ])?;
        if setsockopt(&frames, sockopt::RcvBufForce, &BUFFER).is_err() {
            frames.set_recv_buffer_size(BUFFER)?;
        }
        let arp = packet_socket(ARP, &link)?;
        let out = packet_socket(0, &link)?;
        if setsockopt(&out, sockopt::SndBufForce, &BUFFER).is_err() {
            out.set_send_buffer_size(BUFFER)?;
        }
        // tokio waits for any socket of datagrams; waiting is all it does here.
        let frames = UdpSocket::from_std(frames.into())?;
        let arp = UdpSocket::from_std(arp.into())?;
        Ok(Wire { mac, frames, arp, out })
    }

    /// Waits until something has come, perhaps.
    pub async fn ready(&self) -> io::Result<()> {
        tokio::select! {
            ready = self.frames.readable() => ready,
            ready = self.arp.readable() => ready,
        }
    }

    /// The next frame that carries UDP. `WouldBlock` when there is none.
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.frames.try_io(Interest::READABLE, || {
            Ok(recvfrom::<LinkAddr>(self.frames.as_raw_fd(), buffer)?.0)
        })
    }

    /// The next ARP packet, if what comes is one. `WouldBlock` when there is none.
    pub fn hear(&self) -> io::Result<Option<Arp>> {
        self.arp.try_io(Interest::READABLE, || {
            let mut frame = [0; 128];
            let (length, _) = recvfrom::<LinkAddr>(self.arp.as_raw_fd(), &mut frame)?;
            Ok(frame.get(..length).and_then(Arp::decode))
        })
    }

    /// Sends a frame.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        self.out.send(frame).map(drop)
    }
}

fn link_address(interface: &str) -> io::Result<LinkAddr> {
    let mut all = nix::ifaddrs::getifaddrs()?;
    let link = all.find_map(|one| {
        (one.interface_name == interface).then_some(one.address?.as_link_addr().copied()).flatten()
    });
    link.ok_or_else(|| io::Error::other(format!("no Ethernet interface {interface}")))
}

fn packet_socket(protocol: u16, link: &LinkAddr) -> io::Result<Socket> {
    let protocol = Protocol::from(i32::from(protocol.to_be()));
    let socket = Socket::new(Domain::PACKET, Type::RAW, Some(protocol))?;
    socket.set_nonblocking(true)?;
    bind(socket.as_raw_fd(), link)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use koboshi_pxe::dhcp::frame;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_the_server_writes_is_read(payload in prop::collection::vec(any::<u8>(), 0..1473), broken in any::<bool>()) {
            let (from, to) = ((Mac([2; 6]), Ipv4Addr::new(10, 0, 0, 1), 67), (Mac([4; 6]), Ipv4Addr::new(10, 0, 0, 2), 68));
            let mut bytes = frame::Datagram { from, to, payload: &payload }.encode();
            if broken {
                bytes[40] ^= 0xff;
            }
            prop_assert_eq!(read(&bytes), Some(Datagram { from, to, payload: &payload }));
        }

        #[test]
        fn no_bytes_bring_it_down(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = read(&bytes);
            let _ = read(&[&[0; 12][..], &[8, 0, 0x4f], &bytes].concat());
        }
    }
}
