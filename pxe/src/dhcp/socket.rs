//! The driver: port 67 of one interface, a packet socket for frames to clients without an address,
//! another for ARP, and the loop between them and the state machine.

use std::collections::VecDeque;
use std::io::{self, IoSliceMut};
use std::mem::size_of;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use nix::libc;
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, LinkAddr, MsgFlags, SockaddrIn, bind, recvfrom, recvmsg,
    sendmsg, setsockopt, sockopt,
};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::answer::Answer;
use super::event::{Counters, Event};
use super::frame::{ARP, Arp, Datagram};
use super::lease::{LeaseChange, Now};
use super::packet::BadPacket;
use super::probe::{Due, Probes};
use super::reply::{Destination, Outgoing};
use super::request::Request;
use super::server::{Effect, LeaseStatus, Server, Ticket};
use crate::Mac;

/// A rack that comes back from a power cut asks all at once: 8 MiB hold some 10,000 DISCOVERs.
const RECEIVE_BUFFER: usize = 8 << 20;
/// Datagrams, or ARP packets, taken before the others get a turn.
const BATCH: usize = 256;

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
}

impl Config {
    /// The ports of RFC 2131 on an interface.
    pub fn on(interface: impl Into<String>) -> Config {
        Config {
            interface: interface.into(),
            server_port: 67,
            client_port: 68,
            probe: Duration::from_millis(300),
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
    config: Config,
    mac: Mac,
    index: usize,
    udp: UdpSocket,
    /// A packet socket. tokio's `AsyncFd` wants `unsafe`; its `UdpSocket` waits for any socket of
    /// datagrams, and waiting is all it does here.
    arp: UdpSocket,
    raw: Socket,
}

impl Wire {
    /// Opens them. From here on datagrams are kept for us.
    pub fn open(config: Config) -> Result<Wire, WireError> {
        let failed = |what| {
            let interface = config.interface.clone();
            move |source| WireError::Socket { what, interface, source }
        };
        let link = link_address(&config.interface).map_err(failed("reading addresses"))?;
        let link = link.ok_or_else(|| WireError::NoInterface(config.interface.clone()))?;
        let mac = Mac(link.addr().unwrap_or_default());
        let udp = udp_socket(&config).map_err(failed("DHCP socket"))?;
        // A packet socket with no protocol receives nothing and sends what it is given.
        let raw = packet_socket(0, &link).map_err(failed("packet socket"))?;
        let arp = packet_socket(ARP, &link)
            .and_then(|socket| UdpSocket::from_std(socket.into()))
            .map_err(failed("ARP socket"))?;
        Ok(Wire { mac, index: link.ifindex(), udp, arp, raw, config })
    }

    fn send(&self, out: &Outgoing) -> io::Result<()> {
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
        sendmsg(
            self.udp.as_raw_fd(),
            &[io::IoSlice::new(&out.bytes)],
            &[ControlMessage::Ipv4PacketInfo(&source)],
            MsgFlags::MSG_DONTWAIT,
            Some(&SockaddrIn::from(to)),
        )?;
        Ok(())
    }

    fn ask(&self, arp: &Arp) {
        if let Err(error) = self.raw.send(&arp.encode()) {
            tracing::debug!(%error, address = %arp.target.1, "ARP probe not sent");
        }
    }
}

fn link_address(interface: &str) -> io::Result<Option<LinkAddr>> {
    let mut all = nix::ifaddrs::getifaddrs()?;
    Ok(all.find_map(|one| {
        (one.interface_name == interface).then_some(one.address?.as_link_addr().copied()).flatten()
    }))
}

fn udp_socket(config: &Config) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_reuse_address(true)?;
    socket.set_broadcast(true)?;
    socket.bind_device(Some(config.interface.as_bytes()))?;
    // Over the host's limit where we may, up to it where we may not.
    if setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER).is_err() {
        socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
    }
    setsockopt(&socket, sockopt::RxqOvfl, &1)?;
    socket.bind(&SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, config.server_port).into())?;
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

/// One change for the journal. Dropping `done` says that it failed.
#[derive(Debug)]
pub struct JournalWrite {
    /// The change. Those of one channel are made in their order.
    pub change: LeaseChange,
    /// Told once it is on disk, or is not.
    pub done: oneshot::Sender<bool>,
}

/// What the rest of the appliance asks of a running server.
#[derive(Debug)]
pub enum Control {
    /// A machine gave a sign of life.
    Keep(Mac),
    /// The pool address it holds.
    Lookup(Mac, oneshot::Sender<Option<Ipv4Addr>>),
    /// All leases.
    Leases(oneshot::Sender<Vec<LeaseStatus>>),
    /// How often what has happened.
    Counters(oneshot::Sender<Counters>),
}

/// Serves one interface until cancelled. `desk` is the boot decision; `journal` makes leases
/// durable. Nothing here waits for the journal: clients whose lease is on its way do.
pub async fn serve(
    wire: Wire,
    server: Server,
    desk: impl Fn(&Request) -> Answer + Send,
    tell: impl Fn(Event) + Send,
    journal: mpsc::Sender<JournalWrite>,
    mut control: mpsc::Receiver<Control>,
    cancel: CancellationToken,
) -> io::Result<()> {
    let probes = Probes::new(wire.mac, wire.config.probe);
    let commits = FuturesUnordered::new();
    let mut driver = Driver { wire, server, desk, tell, journal, probes, commits };
    loop {
        let deadline = [driver.server.next_deadline(), driver.probes.next()];
        let deadline = deadline.into_iter().flatten().min();
        tokio::select! {
            () = cancel.cancelled() => return Ok(()),
            Some((ticket, ok)) = driver.commits.next() => driver.committed(ticket, ok),
            Some(control) = control.recv() => driver.control(control),
            () = until(deadline) => driver.on_deadline(),
            ready = driver.wire.arp.readable() => {
                ready?;
                driver.hear();
            }
            ready = driver.wire.udp.readable() => {
                ready?;
                driver.receive();
            }
        }
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

struct Driver<Desk, Tell> {
    wire: Wire,
    server: Server,
    desk: Desk,
    tell: Tell,
    journal: mpsc::Sender<JournalWrite>,
    probes: Probes,
    commits: FuturesUnordered<BoxFuture<'static, (Ticket, bool)>>,
}

impl<Desk: Fn(&Request) -> Answer, Tell: Fn(Event)> Driver<Desk, Tell> {
    fn receive(&mut self) {
        let mut buffer = [0; 2048];
        for _ in 0..BATCH {
            let received = self.wire.udp.try_io(Interest::READABLE, || {
                Ok(receive_one(self.wire.udp.as_raw_fd(), &mut buffer)?)
            });
            let (length, overrun) = match received {
                Ok(received) => received,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // An interface that goes down says so once, here; the socket outlives it.
                Err(error) => return tracing::warn!(%error, "DHCP socket"),
            };
            if let Some(overrun) = overrun {
                self.server.counters_mut().overrun = u64::from(overrun);
            }
            match Request::decode(&buffer[..length]) {
                Ok(request) => {
                    let answer = (self.desk)(&request);
                    let effects = self.server.handle(&request, answer, Now::read());
                    self.perform(effects);
                }
                Err(BadPacket::NotARequest(_)) => {}
                Err(error) => {
                    self.server.counters_mut().malformed += 1;
                    tracing::debug!(%error, "datagram not taken");
                }
            }
        }
    }

    fn hear(&mut self) {
        let mut buffer = [0; 128];
        for _ in 0..BATCH {
            let heard = self.wire.arp.try_io(Interest::READABLE, || {
                Ok(recvfrom::<LinkAddr>(self.wire.arp.as_raw_fd(), &mut buffer)?)
            });
            let (length, from) = match heard {
                Ok(heard) => heard,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => return tracing::warn!(%error, "ARP socket"),
            };
            // Between its making and its binding the socket heard every interface.
            if from.is_some_and(|from| from.ifindex() != self.wire.index) {
                continue;
            }
            let arp = Arp::decode(&buffer[..length]);
            if let Some(address) = arp.and_then(|arp| self.probes.heard(&arp)) {
                let effects = self.server.probed(address, true, Now::read());
                self.perform(effects);
            }
        }
    }

    fn on_deadline(&mut self) {
        let now = Now::read();
        for due in self.probes.due(now.mono) {
            match due {
                Due::Ask(arp) => self.wire.ask(&arp),
                Due::Free(address) => {
                    let effects = self.server.probed(address, false, now);
                    self.perform(effects);
                }
            }
        }
        if self.server.next_deadline().is_some_and(|deadline| deadline <= now.mono) {
            let effects = self.server.on_deadline(now);
            self.perform(effects);
        }
    }

    fn committed(&mut self, ticket: Ticket, ok: bool) {
        let effects = self.server.committed(ticket, ok, Now::read());
        self.perform(effects);
    }

    fn control(&mut self, control: Control) {
        let now = Now::read();
        match control {
            Control::Keep(mac) => {
                let effects = self.server.keep(mac, now);
                self.perform(effects);
            }
            // Who asked may have gone: then nobody misses the answer.
            Control::Lookup(mac, answer) => drop(answer.send(self.server.lookup(mac, now))),
            Control::Leases(answer) => drop(answer.send(self.server.leases(now))),
            Control::Counters(answer) => drop(answer.send(self.server.counters())),
        }
    }

    fn perform(&mut self, effects: Vec<Effect>) {
        let mut effects = VecDeque::from(effects);
        while let Some(effect) = effects.pop_front() {
            match effect {
                Effect::Send(out) => {
                    if let Err(error) = self.wire.send(&out) {
                        self.server.counters_mut().unsent += 1;
                        tracing::warn!(%error, to = ?out.destination, "DHCP reply not sent");
                    }
                }
                Effect::Probe { address, mac } => {
                    let arp = self.probes.begin(address, mac, Instant::now());
                    self.wire.ask(&arp);
                }
                Effect::Commit { ticket, change } => {
                    let (done, outcome) = oneshot::channel();
                    match self.journal.try_send(JournalWrite { change, done }) {
                        Ok(()) => self.commits.push(Box::pin(async move {
                            (ticket, outcome.await.unwrap_or(false))
                        })),
                        Err(error) => {
                            tracing::warn!(%error, "lease not written down");
                            effects.extend(self.server.committed(ticket, false, Now::read()));
                        }
                    }
                }
                Effect::Tell(event) => (self.tell)(event),
            }
        }
    }
}

/// One datagram's length, and how many the socket has dropped so far, where it did.
fn receive_one(fd: i32, buffer: &mut [u8]) -> nix::Result<(usize, Option<u32>)> {
    let mut space = [0; 64];
    debug_assert!(space.len() >= size_of::<libc::cmsghdr>() + size_of::<u32>());
    let mut slices = [IoSliceMut::new(buffer)];
    let message = recvmsg::<SockaddrIn>(fd, &mut slices, Some(&mut space), MsgFlags::MSG_DONTWAIT)?;
    let overrun = message.cmsgs()?.find_map(|control| match control {
        ControlMessageOwned::RxqOvfl(count) => Some(count),
        _ => None,
    });
    Ok((message.bytes, overrun))
}
