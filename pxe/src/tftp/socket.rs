//! The port that ROMs knock at, and the port of one transfer. RFC 1350 §4 gives each transfer a port
//! of its own; ours is bound to the very address the request was sent to, since a ROM drops what
//! comes from another one, and is connected, so that the kernel drops what others send to it.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::os::fd::AsRawFd;
use std::time::Duration;

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg, setsockopt, sockopt};
use quinn_udp::{RecvMeta, UdpSockRef, UdpSocketState};
use rustix::io::Errno;
use rustix::net::sockopt::{Ipv4PathMtuDiscovery, set_ip_mtu_discover};
use rustix::net::{RecvFlags, SendFlags};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::UdpSocket;
use tokio::time::sleep;

/// Largest request we read; RFC 2347 §2 says 512 bytes.
pub(super) const REQUEST_MAX: usize = 1500;

/// A rack that is powered on asks all at once.
const LISTEN_BUFFER: usize = 1 << 20;

/// Binds a listening port, to one interface only if a `device` is named.
pub fn bind(address: SocketAddr, device: Option<&str>) -> io::Result<UdpSocket> {
    let socket = udp(address, device)?;
    // The kernel gives as much as net.core.rmem_max allows, and says nothing of it.
    socket.set_recv_buffer_size(LISTEN_BUFFER)?;
    socket.bind(&address.into())?;
    UdpSocket::from_std(socket.into())
}

/// A listening port that tells which of our addresses a request was sent to.
pub(super) struct Listener {
    socket: UdpSocket,
    state: UdpSocketState,
}

impl Listener {
    pub(super) fn new(socket: UdpSocket) -> io::Result<Listener> {
        let state = state(&socket)?;
        Ok(Listener { socket, state })
    }

    /// The next datagram: its length, who sent it, and to which address.
    pub(super) async fn receive(
        &self,
        buffer: &mut [u8],
    ) -> io::Result<(usize, SocketAddr, Option<IpAddr>)> {
        let mut meta = [RecvMeta::default()];
        let receive = || {
            let mut buffers = [IoSliceMut::new(buffer)];
            self.state.recv(UdpSockRef::from(&self.socket), &mut buffers, &mut meta)
        };
        self.socket.async_io(Interest::READABLE, receive).await?;
        let [meta] = meta;
        // A dual-stack socket shows IPv4 as ::ffff:a.b.c.d.
        let peer = SocketAddr::new(meta.addr.ip().to_canonical(), meta.addr.port());
        let peer = if peer.is_ipv4() { peer } else { meta.addr };
        Ok((meta.len, peer, meta.dst_ip.map(|to| to.to_canonical())))
    }
}

/// How long to wait, and how often, until the kernel has room for what we send.
const ROOM: Duration = Duration::from_millis(1);
const ROOM_TRIES: u32 = 20;

/// The port of one transfer.
pub(super) struct Port {
    /// Waited on for reading alone: a datagram that has left makes a socket writable anew, and each would wake
    /// us for nothing.
    socket: AsyncFd<Socket>,
    peer: SocketAddr,
    /// Whether kernel and card cut what is handed to them at once into datagrams, as far as we know.
    cuts: bool,
}

impl Port {
    /// Opens a port at the address `to`, which the request was sent to, for one peer.
    pub(super) fn open(
        to: Option<IpAddr>,
        peer: SocketAddr,
        device: Option<&str>,
    ) -> io::Result<Port> {
        let local = match (to, peer) {
            (Some(IpAddr::V6(to)), SocketAddr::V6(peer)) => {
                SocketAddrV6::new(to, 0, 0, peer.scope_id()).into()
            }
            (Some(to), _) => SocketAddr::new(to, 0),
            (None, SocketAddr::V4(_)) => SocketAddr::new([0, 0, 0, 0].into(), 0),
            (None, SocketAddr::V6(_)) => SocketAddr::new([0; 16].into(), 0),
        };
        let socket = udp(local, device)?;
        socket.bind(&local.into())?;
        socket.connect(&peer.into())?;
        #[expect(
            deprecated,
            reason = "the socket keeps its descriptor; what replaces this is unsafe"
        )]
        let socket = AsyncFd::with_interest(socket, Interest::READABLE)?;
        // A path that carries less than we know of must be able to cut our packets: TFTP cannot
        // change its block size any more.
        if peer.is_ipv4() {
            set_ip_mtu_discover(&socket, Ipv4PathMtuDiscovery::WANT)?;
        }
        Ok(Port { socket, peer, cuts: true })
    }

    /// Bytes of one datagram that this path carries in one piece, as far as the kernel knows.
    pub(super) fn payload(&self) -> usize {
        match self.peer {
            SocketAddr::V4(_) => {
                let mtu = nix::sys::socket::getsockopt(&self.socket, sockopt::IpMtu);
                mtu.ok()
                    .and_then(|mtu| usize::try_from(mtu).ok())
                    .unwrap_or(1500)
                    .saturating_sub(28)
            }
            // Nobody must cut IPv6 below 1280; Ethernet's 1500 is what a ROM sits on.
            SocketAddr::V6(_) => 1500 - 48,
        }
    }

    /// The next datagram from the peer.
    pub(super) async fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let receive = |socket: &Socket| {
            let received = rustix::net::recv(socket, &mut *buffer, RecvFlags::DONTWAIT);
            Ok(received.map(|(length, _)| length)?)
        };
        self.socket.async_io(Interest::READABLE, receive).await
    }

    /// A datagram that is here already, whether or not the runtime has noticed.
    pub(super) fn receive_now(&self, buffer: &mut [u8]) -> Option<usize> {
        let received = rustix::net::recv(&self.socket, buffer, RecvFlags::DONTWAIT);
        received.ok().map(|(length, _)| length)
    }

    /// Sends datagrams of `size` bytes each, the last perhaps shorter, that lie one behind the other.
    /// In one call where the kernel and the card can; else one by one. Only a closed port is an
    /// error: all else (no route, no answer to ARP, a full queue) is a loss like any other.
    pub(super) async fn send(&mut self, datagrams: &[u8], size: usize) -> io::Result<()> {
        let socket = self.socket.get_ref();
        if self.cuts && datagrams.len() > size {
            match with_room(|| cut(socket, datagrams, size)).await {
                Ok(()) => return Ok(()),
                Err(error) => match Errno::from_io_error(&error) {
                    Some(Errno::CONNREFUSED) => return Err(error),
                    // Too old a kernel, or a card or a tunnel that cannot.
                    Some(Errno::INVAL | Errno::IO | Errno::OPNOTSUPP) => self.cuts = false,
                    _ => {}
                },
            }
        }
        for datagram in datagrams.chunks(size.max(1)) {
            let one = || Ok(rustix::net::send(socket, datagram, SendFlags::DONTWAIT).map(drop)?);
            match with_room(one).await {
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    return Err(error);
                }
                Err(error) => tracing::debug!(peer = %self.peer, %error, "TFTP datagram not sent"),
                Ok(()) => {}
            }
        }
        Ok(())
    }
}

/// Hands over datagrams that are still one.
fn cut(socket: &Socket, datagrams: &[u8], size: usize) -> io::Result<()> {
    let size = u16::try_from(size).map_err(|_| io::ErrorKind::InvalidInput)?;
    let each = [ControlMessage::UdpGsoSegments(&size)];
    let datagrams = [IoSlice::new(datagrams)];
    sendmsg::<()>(socket.as_raw_fd(), &datagrams, &each, MsgFlags::MSG_DONTWAIT, None)?;
    Ok(())
}

/// Sends once there is room for it, if that is soon.
async fn with_room(mut send: impl FnMut() -> io::Result<()>) -> io::Result<()> {
    for _ in 0..ROOM_TRIES {
        match send() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => sleep(ROOM).await,
            other => return other,
        }
    }
    send()
}

fn udp(address: SocketAddr, device: Option<&str>) -> io::Result<Socket> {
    let kind = Type::DGRAM.nonblocking().cloexec();
    let socket = Socket::new(Domain::for_address(address), kind, Some(Protocol::UDP))?;
    if let Some(device) = device {
        socket.bind_device(Some(device.as_bytes()))?;
    }
    Ok(socket)
}

fn state(socket: &UdpSocket) -> io::Result<UdpSocketState> {
    let state = UdpSocketState::new(UdpSockRef::from(socket))?;
    // Several ACKs glued into one buffer help nobody here. Kernels before 5.0 know no gluing.
    let _ = setsockopt(socket, sockopt::UdpGroSegment, &false);
    // One socket that wants to know when a packet came has the kernel read the clock for each of everybody's.
    let _ = setsockopt(socket, sockopt::ReceiveTimestampns, &false);
    Ok(state)
}
