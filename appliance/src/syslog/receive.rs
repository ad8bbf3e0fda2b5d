//! The sockets: syslog by UDP and TCP, netconsole by UDP, on our addresses on the provisioning networks. A port
//! that somebody else has is said, and tried again: machines boot without their logs.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use koboshi_pxe::hostile::Harm;
use nix::sys::resource::{Resource, getrlimit};
use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::frame::Frames;
use super::gate::Gate;
use super::message::{Entry, Facility, Message, Severity, Way};
use super::whose::Whose;
use super::{Health, UNKNOWN, netconsole, parse};
use crate::app::App;
use crate::ledger::now_ms;

/// A rack that starts says more within a moment than the kernel holds by itself.
const BUFFER: usize = 4 << 20;
/// Connections of all senders; where this process may open few files, no more than one in so many of them.
const CONNECTIONS: usize = 8192;
const SHARE: u64 = 8;
/// Senders whose address is no machine's get none where more than one in so many is taken.
const STRANGERS: usize = 2;
/// A port that somebody else has.
const AGAIN: Duration = Duration::from_secs(10);
/// Grave messages that wait to be written down.
const GRAVE: usize = 1024;
/// Of one machine, no grave message is an event sooner than this after the last.
const GRAVE_AGAIN: Duration = Duration::from_secs(60);
const GRAVE_MACHINES: usize = 4096;
/// That something is dropped is an event no more often.
const DROPS_AGAIN: Duration = Duration::from_secs(600);
/// Characters of a message in an event.
const SHOWN: usize = 200;
/// Where Linux counts what its sockets had no room for (proc_net_udp: the last column).
const UDP: &str = "/proc/self/net/udp";

const NETCONSOLE: &str = "netconsole";

/// What all sockets share.
struct Receiver {
    app: Arc<App>,
    gate: Mutex<Gate>,
    whose: Mutex<Whose>,
    grave: mpsc::Sender<(String, Message)>,
}

/// Receives until cancelled.
pub async fn run(app: Arc<App>, cancel: CancellationToken) {
    let (grave, grave_in) = mpsc::channel(GRAVE);
    let receiver = Arc::new(Receiver {
        app: app.clone(),
        gate: Mutex::default(),
        whose: Mutex::default(),
        grave,
    });
    let net = app.site.load().net.clone();
    let mut tasks = JoinSet::new();
    let mut udp = Vec::new();
    for address in app.homes.addresses() {
        if let Some(port) = net.syslog {
            let at = SocketAddr::from((address, port));
            udp.push(at);
            tasks.spawn(datagrams(receiver.clone(), at, Way::Udp));
            tasks.spawn(connections(receiver.clone(), at));
        }
        if let Some(port) = net.netconsole {
            let at = SocketAddr::from((address, port));
            udp.push(at);
            tasks.spawn(datagrams(receiver.clone(), at, Way::Netconsole));
        }
    }
    tasks.spawn(tell_grave(app.clone(), grave_in));
    tasks.spawn(tell_drops(receiver, udp));
    tasks.spawn(tell_health(app));
    cancel.cancelled().await;
    tasks.shutdown().await;
}

impl Receiver {
    fn gate(&self) -> MutexGuard<'_, Gate> {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the address is a machine's.
    fn is_machine(&self, from: IpAddr) -> bool {
        !self.place(from).starts_with(UNKNOWN)
    }

    fn place(&self, from: IpAddr) -> String {
        let mut whose = self.whose.lock().unwrap_or_else(PoisonError::into_inner);
        whose.place(&self.app.site.load_full(), &self.app.desk, from)
    }

    /// Keeps a message in the directory of whoever is at the address now.
    fn keep(&self, from: IpAddr, way: Way, message: Message) {
        let place = self.place(from);
        let entry = Entry { at: now_ms(), way, message };
        if !self.app.syslog.writer.put(&place, &entry.line()) {
            self.dropped(&place, 1);
        }
        let Entry { message, .. } = entry;
        if message.severity <= Severity::Crit {
            // One that finds no room is in its file.
            let _crowded = self.grave.try_send((place, message)).is_err();
        }
    }

    fn dropped(&self, place: &str, many: u64) {
        let mut drops = self.app.syslog.drops();
        // Strangers may be invented.
        if drops.len() < GRAVE_MACHINES || drops.contains_key(place) {
            let known = drops.entry(place.to_string()).or_default();
            *known = (now_ms(), known.1 + many);
        }
    }
}

fn socket(at: SocketAddr, kind: Type, protocol: Protocol) -> io::Result<Socket> {
    let socket =
        Socket::new(Domain::for_address(at), kind.nonblocking().cloexec(), Some(protocol))?;
    if kind == Type::STREAM {
        socket.set_reuse_address(true)?;
    }
    // As much as the kernel allows.
    let _less = socket.set_recv_buffer_size(BUFFER);
    socket.bind(&at.into())?;
    Ok(socket)
}

/// Opens a socket, as often as it takes.
async fn opened<T>(
    receiver: &Receiver,
    what: &str,
    at: SocketAddr,
    open: impl Fn() -> io::Result<T>,
) -> T {
    let mut told = false;
    loop {
        match open() {
            Ok(socket) => {
                if told {
                    let text = format!("{what} is received on {at}");
                    receiver.app.ledger.event("syslog", None, text).await;
                }
                return socket;
            }
            Err(why) if !told => {
                told = true;
                let key = if what == NETCONSOLE { NETCONSOLE } else { "syslog" };
                let hint = match why.kind() {
                    io::ErrorKind::AddrInUse => format!(
                        "; ss -lnptu says who has the port; [net] {key} = PORT is another one, 0 is none"
                    ),
                    _ => String::new(),
                };
                let text = format!("{what} is not received on {at}: {why}{hint}");
                receiver.app.ledger.event("syslog", None, text).await;
            }
            Err(_) => {}
        }
        tokio::time::sleep(AGAIN).await;
    }
}

async fn datagrams(receiver: Arc<Receiver>, at: SocketAddr, way: Way) {
    let what = if way == Way::Netconsole { NETCONSOLE } else { "syslog by UDP" };
    let open = || UdpSocket::from_std(socket(at, Type::DGRAM, Protocol::UDP)?.into());
    let socket = opened(&receiver, what, at, open).await;
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let (many, from) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            Err(error) => {
                tracing::warn!(%error, "{what}");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let from = from.ip();
        let passes = receiver.gate().pass(from, Instant::now(), || receiver.is_machine(from));
        if !passes {
            continue;
        }
        let bytes = buffer.get(..many).unwrap_or_default();
        match way {
            Way::Netconsole => {
                for message in netconsole::parse(bytes) {
                    receiver.keep(from, way, message);
                }
            }
            _ => receiver.keep(from, way, parse::parse(bytes, jiff::Timestamp::now())),
        }
    }
}

async fn connections(receiver: Arc<Receiver>, at: SocketAddr) {
    let open = || {
        let socket = socket(at, Type::STREAM, Protocol::TCP)?;
        socket.listen(1024)?;
        TcpListener::from_std(socket.into())
    };
    let listener = opened(&receiver, "syslog by TCP", at, open).await;
    let mut tasks = JoinSet::new();
    let (descriptors, _) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or((1024, 1024));
    let all = usize::try_from(descriptors / SHARE).map_or(CONNECTIONS, |all| all.min(CONNECTIONS));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = tasks.join_next(), if !tasks.is_empty() => continue,
        };
        let (stream, from) = match accepted {
            Ok((stream, from)) => (stream, from.ip()),
            Err(error) => {
                tracing::warn!(%error, "syslog by TCP");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let known = receiver.is_machine(from);
        let most = if known { all } else { all / STRANGERS };
        if tasks.len() >= most || !receiver.gate().connects(from, Instant::now(), known) {
            tracing::debug!(%from, "one connection too many");
            continue;
        }
        let receiver = receiver.clone();
        tasks.spawn(async move {
            // The count goes down however this ends.
            let _counted = Counted(receiver.clone(), from);
            connection(&receiver, stream, from).await;
        });
    }
}

struct Counted(Arc<Receiver>, IpAddr);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.gate().ended(self.1);
    }
}

async fn connection(receiver: &Receiver, mut stream: TcpStream, from: IpAddr) {
    let alive = TcpKeepalive::new().with_time(Duration::from_secs(60));
    let alive = alive.with_interval(Duration::from_secs(10));
    // A machine that lost its power closes nothing.
    let _as_the_kernel_does = socket2::SockRef::from(&stream).set_tcp_keepalive(&alive);
    let mut frames = Frames::default();
    let mut buffer = vec![0; 8 * 1024];
    let mut cut = 0;
    loop {
        let many = stream.read(&mut buffer).await.unwrap_or(0);
        let mut messages = Vec::new();
        let mut each = |bytes: &[u8]| messages.push(parse::parse(bytes, jiff::Timestamp::now()));
        if many == 0 {
            frames.end(&mut each);
            for message in messages {
                receiver.keep(from, Way::Tcp, message);
            }
            return;
        }
        frames.came(buffer.get(..many).unwrap_or_default(), &mut each);
        if frames.cut > cut {
            let text = format!("{} bytes of a message too long were passed over", frames.cut - cut);
            cut = frames.cut;
            receiver.keep(from, Way::Koboshi, own(text));
        }
        for message in messages {
            loop {
                let wait = receiver.gate().wait(from, Instant::now());
                if wait.is_zero() {
                    break;
                }
                tokio::time::sleep(wait).await;
            }
            while !receiver.app.syslog.writer.has_room(&receiver.place(from)) {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            receiver.keep(from, Way::Tcp, message);
        }
    }
}

/// A word of the appliance, in a machine's file.
fn own(text: String) -> Message {
    Message {
        facility: Facility::SYSLOG,
        severity: Severity::Warning,
        app: Some("koboshi".to_string()),
        ..Message::bare(text)
    }
}

async fn tell_grave(app: Arc<App>, mut grave: mpsc::Receiver<(String, Message)>) {
    let mut told: HashMap<String, (Instant, u64)> = HashMap::new();
    while let Some((place, message)) = grave.recv().await {
        let now = Instant::now();
        // Addresses may be invented: all that are no machine's are told of as one.
        let key = if place.starts_with(UNKNOWN) { UNKNOWN.to_string() } else { place.clone() };
        if let Some((at, more)) = told.get_mut(&key)
            && now.saturating_duration_since(*at) < GRAVE_AGAIN
        {
            *more += 1;
            continue;
        }
        if told.len() >= GRAVE_MACHINES {
            told.retain(|_, (at, _)| now.saturating_duration_since(*at) < GRAVE_AGAIN);
        }
        let more = told.insert(key, (now, 0)).map_or(0, |(_, more)| more);
        let app_name = message.app.as_deref().map(|name| format!("{name}: ")).unwrap_or_default();
        let shown: String = message.text.chars().take(SHOWN).collect();
        let before = match more {
            0 => String::new(),
            more => format!(" ({more} more since the last that was told)"),
        };
        let (facility, severity) = (message.facility, message.severity.as_str());
        let text = format!("logs {facility}.{severity}: {app_name}{shown}{before}");
        app.ledger.event("syslog", Some(place), text).await;
    }
}

/// What was dropped stands in the machine's own file, and is an event.
async fn tell_drops(receiver: Arc<Receiver>, udp: Vec<SocketAddr>) {
    let mut told: HashMap<String, Instant> = HashMap::new();
    let mut overrun = 0;
    let mut strangers_told: Option<Instant> = None;
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let now = Instant::now();
        let due = |at: &Instant| now.saturating_duration_since(*at) >= DROPS_AGAIN;
        let (dropped, strangers) = receiver.gate().dropped(now);
        for (from, many) in dropped {
            let place = receiver.place(from);
            let text =
                format!("{many} messages of {from} were dropped: it says more than 500 a second");
            receiver.keep(from, Way::Koboshi, own(text.clone()));
            receiver.dropped(&place, many);
            // The machine's own event is below.
            let _told = receiver.app.desk.hostile.seen(Harm::Syslog, many, &text, now);
            if told.get(&place).is_none_or(due) {
                told.retain(|_, at| !due(at));
                told.insert(place.clone(), now);
                receiver.app.ledger.event("syslog", Some(place), text).await;
            }
        }
        let lost = overruns(&udp, &std::fs::read_to_string(UDP).unwrap_or_default());
        if (strangers > 0 || lost > overrun) && strangers_told.as_ref().is_none_or(due) {
            strangers_told = Some(now);
            let text = format!(
                "{} datagrams of syslog came faster than they could be read; {strangers} came from \
                 more senders than are kept apart",
                lost.saturating_sub(overrun)
            );
            let many = lost.saturating_sub(overrun) + strangers;
            overrun = lost;
            let _told = receiver.app.desk.hostile.seen(Harm::Syslog, many, &text, now);
            receiver.app.ledger.event("syslog", None, text).await;
        }
    }
}

/// Datagrams that found no room in these sockets.
fn overruns(sockets: &[SocketAddr], table: &str) -> u64 {
    let hex = |at: &SocketAddr| match at.ip() {
        IpAddr::V4(ip) => Some(format!("{:08X}:{:04X}", ip.to_bits().swap_bytes(), at.port())),
        IpAddr::V6(_) => None,
    };
    let ours: BTreeSet<String> = sockets.iter().filter_map(hex).collect();
    let drops = table.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        ours.contains(words.nth(1)?).then(|| words.next_back()?.parse::<u64>().ok())?
    });
    drops.sum()
}

/// A disk that does not take it is told once, and its end, with what it cost.
async fn tell_health(app: Arc<App>) {
    let mut health = app.syslog.health();
    let (mut failing, mut lost) = (false, 0);
    while health.changed().await.is_ok() {
        let now: Health = health.borrow_and_update().clone();
        let text = match (&now.failing, failing) {
            (Some(why), false) => format!(
                "logs of machines cannot be written, and wait as long as there is memory for them: {why}"
            ),
            (None, true) if now.lost > lost => {
                format!("logs of machines are written again; {} messages are lost", now.lost - lost)
            }
            (None, true) => "logs of machines are written again; nothing is lost".to_string(),
            _ => continue,
        };
        if failing {
            lost = now.lost;
        }
        failing = now.failing.is_some();
        app.ledger.event("syslog", None, text).await;
        // One that comes and goes is not told of each time.
        tokio::time::sleep(AGAIN).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_had_no_room_for_is_read_from_its_table() {
        let table = "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops
  120: 0100007F:0202 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 9 2 0000000000000000 17
  121: 0200007F:0202 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 9 2 0000000000000000 5\n";
        let at = |text: &str| text.parse().unwrap();
        assert_eq!(overruns(&[at("127.0.0.1:514")], table), 17);
        assert_eq!(overruns(&[at("127.0.0.1:514"), at("127.0.0.2:514")], table), 22);
        assert_eq!(overruns(&[at("127.0.0.1:515")], table), 0);
        assert_eq!(overruns(&[at("127.0.0.1:514")], "rubbish\n\n1 0100007F:0202"), 0);
    }
}
