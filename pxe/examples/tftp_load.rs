//! TFTP clients by the hundred (RFC 1350, 2347, 2348, 2349, 7440), as ROMs are: for `make bench`.
//!
//! ```text
//! tftp_load SERVER:PORT NAME FILE [clients=N] [transfers=N] [from=ADDRESS] [addresses=N]
//!           [probe=1] [tsize=0] [blksize=N] [windowsize=N] [timeout=N]
//! ```
//!
//! `FILE` holds what is to arrive, and each block is compared with it. Options of TFTP go out in the order
//! given. `probe=1` asks for the size first and ends that with ERROR 8, as EDK2 does. Clients are on
//! `addresses` addresses, counted on from `from`. Says what arrived, how long it took, and what went wrong.
//!
//! Datagrams are taken many a call and one by one (no GRO, as no ROM has it), so that it is the server whose
//! time is measured, and the same for each server.

use std::io::{self, ErrorKind, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use quinn_udp::{BATCH_SIZE, RecvMeta, UdpSockRef, UdpSocketState};
use rustix::event::{Timespec, epoll};

/// No answer for so long, and it is asked again; ROMs wait about as long.
const PATIENCE: Duration = Duration::from_secs(1);
/// So often, and the transfer has failed.
const TRIES: u32 = 8;
/// The largest datagram there is on Ethernet, and some.
const DATAGRAM: usize = 2048;

/// What all transfers of a run ask for.
struct Plan {
    server: SocketAddr,
    name: String,
    expected: Vec<u8>,
    clients: usize,
    transfers: usize,
    from: Ipv4Addr,
    addresses: usize,
    probe: bool,
    options: Vec<(String, String)>,
}

/// What a client does next.
#[derive(Debug, PartialEq)]
enum Step {
    Wait,
    Send(Vec<u8>),
    /// The size is known: the same again, from another port, for the bytes.
    Probed(Vec<u8>),
    Failed(String),
}

/// One transfer as its client sees it: datagrams in, datagrams out.
struct Transfer<'a> {
    expected: &'a [u8],
    probing: bool,
    blksize: usize,
    window: u64,
    /// Blocks that arrived in order.
    got: u64,
    /// Of them, acknowledged.
    acked: u64,
    /// This gap has been told of.
    told: bool,
}

impl<'a> Transfer<'a> {
    fn new(expected: &'a [u8], probing: bool) -> Transfer<'a> {
        Transfer { expected, probing, blksize: 512, window: 1, got: 0, acked: 0, told: false }
    }

    fn receive(&mut self, datagram: &[u8]) -> Step {
        match datagram {
            [0, 3, high, low, block @ ..] => {
                if self.probing {
                    return Step::Probed(error(8));
                }
                self.block(u16::from_be_bytes([*high, *low]), block)
            }
            [0, 5, ..] => Step::Failed(String::from_utf8_lossy(&datagram[2..]).into_owned()),
            [0, 6, options @ ..] if self.got == 0 => {
                let words: Vec<&[u8]> = options.split(|byte| *byte == 0).collect();
                for pair in words.chunks_exact(2) {
                    let value = String::from_utf8_lossy(pair[1]).parse().unwrap_or(0);
                    match &pair[0].to_ascii_lowercase()[..] {
                        b"blksize" => self.blksize = value,
                        b"windowsize" => self.window = value as u64,
                        _ => {}
                    }
                }
                match (self.probing, self.blksize, self.window) {
                    (_, 0, _) | (_, _, 0) => Step::Failed("an OACK of zeros".to_owned()),
                    (true, ..) => Step::Probed(error(8)),
                    (false, ..) => Step::Send(self.ack()),
                }
            }
            _ => Step::Wait,
        }
    }

    fn block(&mut self, number: u16, bytes: &[u8]) -> Step {
        if number != (self.got + 1) as u16 {
            // RFC 7440 §4: the last one in order, once for a gap.
            if self.window == 1 || std::mem::replace(&mut self.told, true) {
                return Step::Wait;
            }
            return Step::Send(self.ack());
        }
        let start = self.got as usize * self.blksize;
        let end = self.expected.len().min(start + self.blksize);
        if self.expected.get(start..end) != Some(bytes) {
            return Step::Failed(format!("block {number} has other bytes than it should"));
        }
        self.got += 1;
        self.told = false;
        if bytes.len() < self.blksize || self.got - self.acked == self.window {
            return Step::Send(self.ack());
        }
        Step::Wait
    }

    fn ack(&mut self) -> Vec<u8> {
        self.acked = self.got;
        let [high, low] = (self.got as u16).to_be_bytes();
        vec![0, 4, high, low]
    }

    /// What is sent where nothing came for a while: `last`, but for the blocks that did come.
    fn again(&mut self, last: &[u8]) -> Vec<u8> {
        if self.got > self.acked { self.ack() } else { last.to_vec() }
    }

    fn whole(&self) -> bool {
        self.got > (self.expected.len() / self.blksize) as u64
    }
}

fn error(code: u8) -> Vec<u8> {
    vec![0, 5, 0, code, b'n', b'o', 0]
}

/// A transfer with its port.
struct Client<'a> {
    socket: UdpSocket,
    state: UdpSocketState,
    transfer: Transfer<'a>,
    /// The server's port for it, once it has answered.
    peer: Option<SocketAddr>,
    last: Vec<u8>,
    deadline: Instant,
    tries: u32,
}

struct Load<'a> {
    plan: &'a Plan,
    epoll: std::os::fd::OwnedFd,
    clients: Vec<Option<Client<'a>>>,
    begun: usize,
    done: usize,
    failed: Vec<String>,
    repeated: u64,
}

impl<'a> Load<'a> {
    fn begin(&mut self, at: usize, probing: bool) -> io::Result<()> {
        let plan = self.plan;
        let own = Ipv4Addr::from(u32::from(plan.from) + (at % plan.addresses) as u32);
        let socket = UdpSocket::bind((IpAddr::V4(own), 0))?;
        let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
        nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::UdpGroSegment, &false)?;
        // A whole window must find room, as it does in a card's ring.
        socket2::SockRef::from(&socket).set_recv_buffer_size(512 * 1024)?;
        epoll::add(
            &self.epoll,
            &socket,
            epoll::EventData::new_u64(at as u64),
            epoll::EventFlags::IN,
        )?;
        let mut request = [&[0, 1][..], plan.name.as_bytes(), b"\0octet\0"].concat();
        for (option, value) in &plan.options {
            // A probe is for the size.
            if !probing || option != "windowsize" {
                request.extend([option.as_bytes(), b"\0", value.as_bytes(), b"\0"].concat());
            }
        }
        socket.send_to(&request, plan.server)?;
        self.clients[at] = Some(Client {
            socket,
            state,
            transfer: Transfer::new(&plan.expected, probing),
            peer: None,
            last: request,
            deadline: Instant::now() + PATIENCE,
            tries: 0,
        });
        Ok(())
    }

    fn next(&mut self, at: usize) -> io::Result<()> {
        self.clients[at] = None;
        if self.begun < self.plan.transfers {
            self.begun += 1;
            self.begin(at, self.plan.probe)?;
        }
        Ok(())
    }

    fn ready(&mut self, at: usize, memory: &mut [u8]) -> io::Result<()> {
        let mut meta = [RecvMeta::default(); BATCH_SIZE];
        let mut buffers: Vec<IoSliceMut<'_>> =
            memory.chunks_mut(DATAGRAM).take(BATCH_SIZE).map(IoSliceMut::new).collect();
        loop {
            let Some(client) = &mut self.clients[at] else { return Ok(()) };
            let socket = UdpSockRef::from(&client.socket);
            let many = match client.state.recv(socket, &mut buffers, &mut meta) {
                Ok(many) => many,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                    self.failed.push("the server's port is closed".to_owned());
                    return self.next(at);
                }
                Err(error) => return Err(error),
            };
            for (meta, buffer) in meta.iter().zip(&buffers).take(many) {
                let Some(client) = &mut self.clients[at] else { return Ok(()) };
                if client.peer.is_none() {
                    client.peer = Some(meta.addr);
                    client.socket.connect(meta.addr)?;
                } else if client.peer != Some(meta.addr) {
                    continue;
                }
                match client.transfer.receive(&buffer[..meta.len]) {
                    Step::Wait => {}
                    Step::Send(datagram) => {
                        // A server that is gone already (after the last ACK) is no failure.
                        let _ = client.socket.send(&datagram);
                        client.last = datagram;
                        client.tries = 0;
                        client.deadline = Instant::now() + PATIENCE;
                        if client.transfer.whole() {
                            self.done += 1;
                            return self.next(at);
                        }
                    }
                    Step::Probed(datagram) => {
                        let _ = client.socket.send(&datagram);
                        return self.begin(at, false);
                    }
                    Step::Failed(why) => {
                        self.failed.push(why);
                        return self.next(at);
                    }
                }
            }
            if many < BATCH_SIZE {
                return Ok(());
            }
        }
    }

    /// Who has waited for too long asks again.
    fn ring(&mut self, now: Instant) -> io::Result<()> {
        for at in 0..self.clients.len() {
            let Some(client) = self.clients[at].as_mut().filter(|client| client.deadline <= now)
            else {
                continue;
            };
            if client.tries == TRIES {
                let got = client.transfer.got;
                self.failed.push(format!("no answer after block {got}"));
                self.next(at)?;
                continue;
            }
            client.tries += 1;
            client.deadline = now + PATIENCE;
            self.repeated += 1;
            // Everything after the last block in order comes again.
            client.transfer.told = false;
            let _ = match client.peer {
                Some(_) => client.socket.send(&client.transfer.again(&client.last)),
                None => client.socket.send_to(&client.last, self.plan.server),
            };
        }
        Ok(())
    }

    fn run(&mut self) -> io::Result<()> {
        let mut memory = vec![0; BATCH_SIZE * DATAGRAM];
        for at in 0..self.plan.clients.min(self.plan.transfers) {
            self.begun += 1;
            self.begin(at, self.plan.probe)?;
        }
        let mut events = Vec::with_capacity(256);
        let mut rings = Instant::now() + PATIENCE / 10;
        while self.done + self.failed.len() < self.plan.transfers {
            events.clear();
            let wait = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
            let memory_of_events = rustix::buffer::spare_capacity(&mut events);
            epoll::wait(&self.epoll, memory_of_events, Some(&wait))?;
            for event in &events {
                self.ready(event.data.u64() as usize, &mut memory)?;
            }
            let now = Instant::now();
            if now >= rings {
                self.ring(now)?;
                rings = now + PATIENCE / 10;
            }
        }
        Ok(())
    }
}

fn plan() -> Result<Plan, String> {
    let usage = "tftp_load SERVER:PORT NAME FILE [clients=N] [OPTION=VALUE]…";
    let mut args = std::env::args().skip(1);
    let (Some(server), Some(name), Some(file)) = (args.next(), args.next(), args.next()) else {
        return Err(usage.to_owned());
    };
    let mut plan = Plan {
        server: server.parse().map_err(|_| format!("{server:?} is no address and port"))?,
        name,
        expected: std::fs::read(&file).map_err(|error| format!("{file}: {error}"))?,
        clients: 1,
        transfers: 0,
        from: Ipv4Addr::UNSPECIFIED,
        addresses: 1,
        probe: false,
        options: Vec::new(),
    };
    for arg in args {
        let (key, value) = arg.split_once('=').ok_or(usage)?;
        let number = || value.parse::<usize>().map_err(|_| format!("{arg}: not a number"));
        match key {
            "clients" => plan.clients = number()?.max(1),
            "transfers" => plan.transfers = number()?,
            "addresses" => plan.addresses = number()?.max(1),
            "probe" => plan.probe = number()? > 0,
            "from" => plan.from = value.parse().map_err(|_| format!("{arg}: not an address"))?,
            _ => plan.options.push((key.to_owned(), value.to_owned())),
        }
    }
    plan.transfers = plan.transfers.max(plan.clients);
    Ok(plan)
}

fn main() -> ExitCode {
    let plan = match plan() {
        Ok(plan) => plan,
        Err(why) => {
            eprintln!("{why}");
            return ExitCode::from(2);
        }
    };
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(io::Error::from);
    let began = Instant::now();
    let ran = epoll.and_then(|epoll| {
        let clients = (0..plan.clients).map(|_| None).collect();
        let failed = Vec::new();
        let mut load = Load { plan: &plan, epoll, clients, begun: 0, done: 0, failed, repeated: 0 };
        load.run().map(|()| (load.done, load.failed, load.repeated))
    });
    let took = began.elapsed().as_secs_f64();
    match ran {
        Ok((done, failed, repeated)) => {
            let bytes = done * plan.expected.len();
            println!("{bytes} bytes {took:.4} s {} failed {repeated} repeated", failed.len());
            failed.iter().take(5).for_each(|why| eprintln!("{why}"));
            ExitCode::from(u8::from(!failed.is_empty()))
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
