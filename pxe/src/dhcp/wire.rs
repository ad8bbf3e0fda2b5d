//! The sockets of one interface: port 67 (and 4011 beside another DHCP server), a packet socket for frames to clients without an address,
//! and another that hears ARP. No root: `CAP_NET_BIND_SERVICE` and `CAP_NET_RAW` are enough, also
//! those of a user namespace.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::AsRawFd;
use std::task::{Context, Poll};
use std::time::Duration;

use nix::libc;
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, LinkAddr, MsgFlags, SockaddrIn, bind, recvfrom, recvmsg,
    sendmsg, setsockopt, sockopt,
};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::Interest;
use tokio::net::UdpSocket;

use super::frame::{ARP, Arp, Datagram};
use super::reply::{Destination, Outgoing};
use super::request::Heard;
use crate::Mac;

/// A rack that comes back from a power cut asks all at once: 8 MiB hold some 10,000 DISCOVERs.
const RECEIVE_BUFFER: usize = 8 << 20;
/// ProxyDHCP, PXE 2.1.
const PROXY_PORT: u16 = 4011;

/// Where to serve.
#[derive(Debug, Clone)]
pub struct Config {
    /// The interface: physical, VLAN, bridge or bond.
    pub interface: String,
    /// 67; relays are answered there too.
    pub server_port: u16,
    /// 68.
    pub client_port: u16,
    /// How long a probe listens.
    pub probe: Duration,
    /// Another server lends the addresses: port 4011 is listened to as well.
    pub proxy: bool,
}

impl Config {
    /// The ports of RFC 2131 on an interface.
    pub fn on(interface: impl Into<String>) -> Config {
        Config {
            interface: interface.into(),
            server_port: 67,
            client_port: 68,
            probe: Duration::from_millis(300),
            proxy: false,
        }
    }
}

/// Why an interface cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// Not there, or no Ethernet.
    #[error("no Ethernet interface {0}")]
    NoInterface(String),
    /// A socket could not be had.
    #[error("{what} on {interface}: {source}{}", hint(.source))]
    Socket {
        /// Which.
        what: &'static str,
        /// Where.
        interface: String,
        /// Why.
        source: io::Error,
    },
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => " (CAP_NET_BIND_SERVICE and CAP_NET_RAW are needed)",
        _ => "",
    }
}

/// The sockets of one interface, open.
#[derive(Debug)]
pub struct Wire {
    pub(super) config: Config,
    pub(super) mac: Mac,
    index: usize,
    pub(super) udp: UdpSocket,
    /// Port 4011, in proxy mode.
    pub(super) proxy: Option<UdpSocket>,
    /// A packet socket. tokio's `AsyncFd` wants `unsafe`; its `UdpSocket` waits for any socket of
    /// datagrams, and waiting is all it does here.
    pub(super) arp: UdpSocket,
    raw: Socket,
}

impl Wire {
    /// Opens them, within a tokio runtime. From here on datagrams are kept for us.
    pub fn open(config: Config) -> Result<Wire, WireError> {
        let failed = |what| {
            let interface = config.interface.clone();
            move |source| WireError::Socket { what, interface, source }
        };
        let link = link_address(&config.interface).map_err(failed("reading addresses"))?;
        let link = link.ok_or_else(|| WireError::NoInterface(config.interface.clone()))?;
        let mac = Mac(link.addr().unwrap_or_default());
        let udp = udp_socket(&config, config.server_port).map_err(failed("DHCP socket"))?;
        let proxy = config.proxy.then(|| udp_socket(&config, PROXY_PORT)).transpose();
        let proxy = proxy.map_err(failed("ProxyDHCP socket (port 4011)"))?;
        // A packet socket with no protocol receives nothing and sends what it is given.
        let raw = packet_socket(0, &link).map_err(failed("packet socket"))?;
        let arp = packet_socket(ARP, &link)
            .and_then(|socket| UdpSocket::from_std(socket.into()))
            .map_err(failed("ARP socket"))?;
        Ok(Wire { mac, index: link.ifindex(), udp, proxy, arp, raw, config })
    }

    /// The interface that the sockets are of: its number in the kernel, and its address.
    pub(super) fn link(&self) -> (usize, Mac) {
        (self.index, self.mac)
    }

    /// The next datagram of port 67, or of port 4011. `WouldBlock` when there is none.
    pub(super) fn receive(&self, proxy_port: bool, buffer: &mut [u8]) -> io::Result<Received> {
        let socket = match &self.proxy {
            Some(proxy) if proxy_port => proxy,
            None if proxy_port => return Err(io::ErrorKind::WouldBlock.into()),
            _ => &self.udp,
        };
        socket.try_io(Interest::READABLE, || {
            let mut space = [0; 128];
            let mut slices = [IoSliceMut::new(buffer)];
            let flags = MsgFlags::MSG_DONTWAIT;
            let message =
                recvmsg::<SockaddrIn>(socket.as_raw_fd(), &mut slices, Some(&mut space), flags)?;
            let mut dropped = None;
            let mut heard = Heard { proxy_port, ..Heard::default() };
            if let Some(from) = message.address {
                (heard.from, heard.from_port) = (from.ip(), from.port());
            }
            for control in message.cmsgs()? {
                match control {
                    ControlMessageOwned::RxqOvfl(count) => dropped = Some(count),
                    ControlMessageOwned::Ipv4PacketInfo(info) => {
                        heard.to = Ipv4Addr::from_bits(u32::from_be(info.ipi_addr.s_addr));
                    }
                    _ => {}
                }
            }
            Ok(Received { length: message.bytes, dropped, heard })
        })
    }

    /// Waits until something has come, perhaps.
    pub(super) fn poll_ready(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let sockets = [Some(&self.udp), self.proxy.as_ref(), Some(&self.arp)];
        for socket in sockets.into_iter().flatten() {
            if let Poll::Ready(ready) = socket.poll_recv_ready(context) {
                return Poll::Ready(ready);
            }
        }
        Poll::Pending
    }

    /// The next ARP packet, if what comes next is one and of this interface. `WouldBlock` when
    /// there is nothing.
    pub(super) fn hear(&self) -> io::Result<Option<Arp>> {
        self.arp.try_io(Interest::READABLE, || {
            let mut frame = [0; 128];
            let (length, from) = recvfrom::<LinkAddr>(self.arp.as_raw_fd(), &mut frame)?;
            // Between its making and its binding the socket heard every interface.
            let here = from.is_none_or(|from| from.ifindex() == self.index);
            Ok(Arp::decode(&frame[..length]).filter(|_| here))
        })
    }

    /// Sends a reply.
    pub(super) fn send(&self, out: &Outgoing) -> io::Result<()> {
        let config = &self.config;
        let to = match out.destination {
            Destination::Frame { mac, ip } => {
                let frame = Datagram {
                    from: (self.mac, out.source, config.server_port),
                    to: (mac, ip, config.client_port),
                    payload: &out.bytes,
                };
                return self.raw.send(&frame.encode()).map(drop);
            }
            Destination::Proxy(to) => to,
            Destination::Relay(ip) => SocketAddrV4::new(ip, config.server_port),
            Destination::Client(ip) => SocketAddrV4::new(ip, config.client_port),
            Destination::Broadcast => SocketAddrV4::new(Ipv4Addr::BROADCAST, config.client_port),
        };
        // Relays and firmware drop what does not come from the address in option 54; with several
        // addresses on the interface the kernel would choose another one.
        let source = libc::in_pktinfo {
            ipi_ifindex: 0,
            ipi_spec_dst: libc::in_addr { s_addr: out.source.to_bits().to_be() },
            ipi_addr: libc::in_addr { s_addr: 0 },
        };
        let socket = match (&self.proxy, out.destination) {
            (Some(proxy), Destination::Proxy(_)) => proxy,
            _ => &self.udp,
        };
        sendmsg(
            socket.as_raw_fd(),
            &[IoSlice::new(&out.bytes)],
            &[ControlMessage::Ipv4PacketInfo(&source)],
            MsgFlags::MSG_DONTWAIT,
            Some(&SockaddrIn::from(to)),
        )?;
        Ok(())
    }

    /// Sends a probe.
    pub(super) fn ask(&self, arp: &Arp) {
        if let Err(error) = self.raw.send(&arp.encode()) {
            tracing::debug!(%error, address = %arp.target.1, "ARP probe not sent");
        }
    }
}

/// A datagram in the caller's buffer.
pub(super) struct Received {
    pub length: usize,
    /// How many the socket has dropped so far, where it did.
    pub dropped: Option<u32>,
    /// All but the wire's number, which it does not know itself.
    pub heard: Heard,
}

fn link_address(interface: &str) -> io::Result<Option<LinkAddr>> {
    let mut all = nix::ifaddrs::getifaddrs()?;
    Ok(all.find_map(|one| {
        (one.interface_name == interface).then_some(one.address?.as_link_addr().copied()).flatten()
    }))
}

fn udp_socket(config: &Config, port: u16) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_reuse_address(true)?;
    socket.set_broadcast(true)?;
    socket.bind_device(Some(config.interface.as_bytes()))?;
    // Over the host's limit where we may, up to it where we may not.
    if setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER).is_err() {
        socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
    }
    setsockopt(&socket, sockopt::RxqOvfl, &1)?;
    setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?;
    socket.bind(&SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port).into())?;
    socket.set_nonblocking(true)?;
    UdpSocket::from_std(socket.into())
}

fn packet_socket(protocol: u16, link: &LinkAddr) -> io::Result<Socket> {
    let protocol = Protocol::from(i32::from(protocol.to_be()));
    let socket = Socket::new(Domain::PACKET, Type::RAW, Some(protocol))?;
    socket.set_nonblocking(true)?;
    // The address of the interface names no protocol, and so leaves the socket's as it is.
    bind(socket.as_raw_fd(), link)?;
    Ok(socket)
}
