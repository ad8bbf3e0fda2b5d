//! DHCP against clients that others wrote: busybox `udhcpc`, and `perfdhcp` of Kea, over a wire
//! that loses nothing and over one that loses a datagram in twenty.
//!
//! Each test runs again inside a user and network namespace of its own, where it is root of
//! nothing else; the namespace goes when its last process does, however that ends.

use std::collections::{BTreeMap, HashSet};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use koboshi_pxe::Mac;
use koboshi_pxe::dhcp::{
    Address, Answer, BootFile, ClientKey, Config, Control, Event, EventKind, JournalWrite, Kept,
    LeaseRecord, Now, Request, Server, Serving, Subnet, Who, Wire, serve,
};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

const INSIDE: &str = "KOBOSHI_TEST_NAMESPACE";
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
const SEAT: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 11);

/// Runs a test in a namespace of its own. True in there.
fn namespace(test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    for tool in ["unshare", "nsenter", "ip", "udhcpc", "perfdhcp"] {
        let found = Command::new("sh").args(["-c", &format!("command -v {tool}")]).output();
        assert!(
            found.is_ok_and(|found| found.status.success()),
            "{tool} is missing: `make setup` installs it"
        );
    }
    let here = std::env::current_exe().expect("a test knows its own program");
    let status = Command::new("unshare")
        .args(["--user", "--map-root-user", "--net"])
        .arg(here)
        .args(["--exact", test, "--nocapture"])
        .env(INSIDE, test)
        .status()
        .expect("unshare runs");
    assert!(status.success(), "{test} failed in its namespace: {status}");
    false
}

fn ok(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

fn ip(line: &str) {
    ok(Command::new("ip").args(line.split(' ')));
}

/// Ends a process with its handle.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The clients' namespace. `cat` holds it open, and ends with us.
struct Clients(Running);

impl Clients {
    fn new() -> Clients {
        let mut cat = Command::new("unshare")
            .args(["--net", "cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare runs");
        // Once it echoes it is in its namespace.
        cat.stdin.as_mut().expect("piped").write_all(b".").expect("cat reads");
        cat.stdout.as_mut().expect("piped").read_exact(&mut [0]).expect("cat writes");
        Clients(Running(cat))
    }

    fn pid(&self) -> u32 {
        self.0.0.id()
    }

    fn take(&self, link: &str) {
        ip(&format!("link set {link} netns {}", self.pid()));
        self.ip(&format!("link set {link} up"));
    }

    fn run(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/proc/{}/ns/net", self.pid())).arg(program);
        command
    }

    /// Runs something of ours in there.
    fn inside(&self, what: impl FnOnce() + Send + 'static) {
        let path = format!("/proc/{}/ns/net", self.pid());
        let thread = std::thread::spawn(move || {
            let net = std::fs::File::open(path).expect("it lives");
            nix::sched::setns(net, nix::sched::CloneFlags::CLONE_NEWNET).expect("ours to enter");
            what();
        });
        thread.join().expect("it ended well");
    }

    fn ip(&self, line: &str) {
        ok(self.run("ip").args(line.split(' ')));
    }
}

fn veth(ours: &str, theirs: &str) {
    ip(&format!("link add {ours} type veth peer name {theirs}"));
    ip(&format!("link set {ours} up"));
}

fn subnet() -> Subnet {
    let mut subnet = Subnet::new(SERVER, Ipv4Addr::new(10, 77, 0, 0), 16);
    subnet.pool = Some(Ipv4Addr::new(10, 77, 1, 0)..=Ipv4Addr::new(10, 77, 8, 255));
    subnet.gateway = Some(Ipv4Addr::new(10, 77, 0, 1));
    subnet.dns = vec![Ipv4Addr::new(10, 77, 0, 1)];
    subnet.ntp = vec![Ipv4Addr::new(10, 77, 0, 4)];
    subnet.domain = Some("dc.example".into());
    subnet
}

/// A server on an interface, with a journal in memory, in a thread of its own.
struct Appliance {
    events: Arc<Mutex<Vec<Event>>>,
    journal: Arc<Mutex<Kept>>,
    control: mpsc::Sender<Control>,
    cancel: CancellationToken,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Appliance {
    fn start(interface: &str, desk: impl Fn(&Request) -> Answer + Send + 'static) -> Appliance {
        let (events, journal) = (Arc::default(), Arc::default());
        let (control, commands) = mpsc::channel(16);
        let cancel = CancellationToken::new();
        let mut appliance =
            Appliance { events, journal, control, cancel: cancel.clone(), thread: None };
        let (events, journal) = (appliance.events.clone(), appliance.journal.clone());
        let config = Config::on(interface);
        let (up, is_up) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(async move {
                let (writes, inbox) = mpsc::channel(1024);
                tokio::spawn(keep_journal(inbox, journal));
                let wire = Wire::open(config).expect("the interface is there and we are root");
                up.send(()).expect("somebody waits");
                let server = Server::restore(Kept::default(), Now::read());
                let tell = move |event| lock(&events).push(event);
                serve(vec![wire], server, desk, tell, writes, commands, cancel)
                    .await
                    .expect("served");
            });
        });
        is_up.recv().expect("the server is up");
        appliance.thread = Some(thread);
        appliance
    }

    fn kinds(&self) -> Vec<EventKind> {
        lock(&self.events).iter().map(|event| event.kind.clone()).collect()
    }

    fn wait_for(&self, kind: &EventKind) {
        let patience = Instant::now() + Duration::from_secs(20);
        while !self.kinds().contains(kind) {
            assert!(Instant::now() < patience, "no {kind:?} among {:?}", self.kinds());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn leases(&self) -> Vec<LeaseRecord> {
        lock(&self.journal).leases.values().cloned().collect()
    }
}

impl Drop for Appliance {
    fn drop(&mut self) {
        self.cancel.cancel();
        let outcome = self.thread.take().map(std::thread::JoinHandle::join);
        if !std::thread::panicking() {
            assert!(matches!(outcome, Some(Ok(()))), "the server ended well");
        }
    }
}

fn lock<T>(shared: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    shared.lock().expect("nobody panics while holding it")
}

/// Commits in batches, each a few milliseconds late, as a disk does.
async fn keep_journal(mut inbox: mpsc::Receiver<JournalWrite>, journal: Arc<Mutex<Kept>>) {
    let mut batch = Vec::new();
    while inbox.recv_many(&mut batch, 64).await > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
        for write in batch.drain(..) {
            lock(&journal).apply(write.change);
            let _ = write.done.send(true);
        }
    }
}

/// `udhcpc` configures the interface and writes down what it was told, a file per event.
fn script(folder: &Path) -> PathBuf {
    let path = folder.join("udhcpc.sh");
    let text = format!(
        "#!/bin/sh\n\
         case $1 in\n\
         deconfig) ip addr flush dev $interface ;;\n\
         bound|renew) ip addr replace $ip/$mask dev $interface ;;\n\
         esac\n\
         env > {0}/$1.new && mv {0}/$1.new {0}/$1\n",
        folder.display()
    );
    std::fs::write(&path, text).expect("a script");
    ok(Command::new("chmod").arg("+x").arg(&path));
    path
}

fn told(folder: &Path, event: &str) -> BTreeMap<String, String> {
    let path = folder.join(event);
    let patience = Instant::now() + Duration::from_secs(20);
    while !path.exists() {
        assert!(Instant::now() < patience, "udhcpc had no {event:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
    let text = std::fs::read_to_string(&path).expect("just written");
    std::fs::remove_file(&path).expect("ours");
    text.lines()
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.to_string(), value.to_string()))
        .collect()
}

fn udhcpc(clients: &Clients, folder: &Path, more: &[&str]) -> Command {
    let mut command = clients.run("udhcpc");
    command.args(["-i", "c0", "-f", "-t", "10", "-T", "1", "-n", "-s"]).arg(script(folder));
    command.args(more);
    command
}

fn serving(address: Address, subnet: Subnet) -> Serving {
    Serving {
        address,
        subnet: Arc::new(subnet),
        hostname: Some("web1".into()),
        boot: None,
        who: Who::Machine,
        macs: Vec::new(),
        runs: false,
    }
}

#[test]
fn udhcpc_takes_a_seats_address() {
    if !namespace("udhcpc_takes_a_seats_address") {
        return;
    }
    let clients = Clients::new();
    veth("k0", "c0");
    ip(&format!("addr add {SERVER}/16 dev k0"));
    clients.take("c0");
    let appliance = Appliance::start("k0", |_| {
        let boot = BootFile { name: "http://10.77.0.2:8080/x.ipxe".into(), next_server: SERVER };
        let seat = serving(Address::Fixed(SEAT), subnet());
        Answer::Serve(Serving { boot: Some(boot), ..seat })
    });
    let folder = tempfile::tempdir().expect("a folder");
    for flags in [&[][..], &["-B"]] {
        let mut more = vec!["-q", "-O", "ntpsrv", "-O", "bootfile", "-O", "tftp"];
        more.extend_from_slice(flags);
        ok(&mut udhcpc(&clients, folder.path(), &more));
        let bound = told(folder.path(), "bound");
        for (name, value) in [
            ("ip", "10.77.0.11"),
            ("serverid", "10.77.0.2"),
            ("siaddr", "10.77.0.2"),
            ("subnet", "255.255.0.0"),
            ("router", "10.77.0.1"),
            ("dns", "10.77.0.1"),
            ("ntpsrv", "10.77.0.4"),
            ("domain", "dc.example"),
            ("hostname", "web1"),
            ("boot_file", "http://10.77.0.2:8080/x.ipxe"),
            ("bootfile", "http://10.77.0.2:8080/x.ipxe"),
            ("tftp", "10.77.0.2"),
        ] {
            assert_eq!(bound.get(name).map(String::as_str), Some(value), "{name} of {bound:?}");
        }
    }
    assert!(appliance.leases().is_empty(), "a seat needs no lease");
}

#[test]
fn udhcpc_leases_renews_and_releases() {
    if !namespace("udhcpc_leases_renews_and_releases") {
        return;
    }
    let clients = Clients::new();
    veth("k0", "c0");
    ip(&format!("addr add {SERVER}/16 dev k0"));
    clients.take("c0");
    let appliance = Appliance::start("k0", |_| Answer::Serve(serving(Address::Pool, subnet())));
    let folder = tempfile::tempdir().expect("a folder");
    let client = Running(udhcpc(&clients, folder.path(), &["-R"]).spawn().expect("udhcpc runs"));
    let bound = told(folder.path(), "bound");
    let [lease] = &appliance.leases()[..] else { panic!("one lease: {:?}", appliance.leases()) };
    assert_eq!(bound["ip"], lease.address.to_string());
    assert_eq!(bound["lease"], "3600");
    assert!(subnet().gives(lease.address));

    // By unicast, from the address it has.
    let signal = |name: &str| ok(Command::new("kill").arg(name).arg(client.0.id().to_string()));
    signal("-USR1");
    assert_eq!(told(folder.path(), "renew")["ip"], bound["ip"]);
    assert_eq!(appliance.leases()[0].serial, lease.serial, "so young a lease is not written again");

    let (answer, leases) = oneshot::channel();
    appliance.control.blocking_send(Control::Leases(answer)).expect("it runs");
    assert_eq!(leases.blocking_recv().expect("answered")[0].record.address, lease.address);

    signal("-USR2");
    appliance.wait_for(&EventKind::Released);
    told(folder.path(), "deconfig");
    signal("-USR1");
    assert_eq!(told(folder.path(), "bound")["ip"], bound["ip"], "the same again");
}

#[test]
fn an_address_that_somebody_set_by_hand_is_not_offered() {
    if !namespace("an_address_that_somebody_set_by_hand_is_not_offered") {
        return;
    }
    let (clients, squatter) = (Clients::new(), Clients::new());
    ip("link add br0 type bridge");
    ip("link set br0 up");
    for (ours, theirs) in [("p0", "c0"), ("p1", "d0")] {
        veth(ours, theirs);
        ip(&format!("link set {ours} master br0"));
    }
    ip(&format!("addr add {SERVER}/16 dev br0"));
    clients.take("c0");
    squatter.take("d0");
    squatter.ip("addr add 10.77.1.5/16 dev d0");

    let appliance = Appliance::start("br0", |_| Answer::Serve(serving(Address::Pool, subnet())));
    let folder = tempfile::tempdir().expect("a folder");
    ok(&mut udhcpc(&clients, folder.path(), &["-q", "-r", "10.77.1.5"]));
    let bound = told(folder.path(), "bound");
    assert_ne!(bound["ip"], "10.77.1.5");
    assert!(appliance.kinds().contains(&EventKind::Occupied), "{:?}", appliance.kinds());

    // Its own address of last time, still set, does not stand in its own way: another appliance
    // that knows of no lease offers it again.
    drop(appliance);
    let appliance = Appliance::start("br0", |_| Answer::Serve(serving(Address::Pool, subnet())));
    clients.ip(&format!("addr replace {}/16 dev c0", bound["ip"]));
    let quiet = folder.path().join("quiet.sh");
    std::fs::write(&quiet, "#!/bin/sh\necho $1 $ip\n").expect("a script");
    ok(Command::new("chmod").arg("+x").arg(&quiet));
    let mut again = clients.run("udhcpc");
    again.args(["-i", "c0", "-f", "-q", "-n", "-T", "1", "-r", &bound["ip"], "-s"]).arg(&quiet);
    let said = String::from_utf8_lossy(&ok(&mut again).stdout).into_owned();
    assert!(said.contains(&format!("bound {}", bound["ip"])), "{said}");
    assert!(!appliance.kinds().contains(&EventKind::Occupied), "{:?}", appliance.kinds());
}

#[test]
fn silence_to_the_unknown_and_to_noise() {
    if !namespace("silence_to_the_unknown_and_to_noise") {
        return;
    }
    let clients = Clients::new();
    veth("k0", "c0");
    ip(&format!("addr add {SERVER}/16 dev k0"));
    ip("link set lo up");
    clients.take("c0");
    let appliance = Appliance::start("k0", |_| Answer::Silence);
    let folder = tempfile::tempdir().expect("a folder");
    let mut client = clients.run("udhcpc");
    client.args(["-i", "c0", "-f", "-t", "2", "-T", "1", "-n", "-s"]).arg(script(folder.path()));
    assert!(!client.output().expect("udhcpc runs").status.success(), "no lease");
    assert!(!folder.path().join("bound").exists());

    clients.ip("addr add 10.77.0.99/16 dev c0");
    clients.inside(|| {
        let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
        socket.set_broadcast(true).expect("may broadcast");
        for length in [0, 1, 239, 240, 241, 300, 1400] {
            let noise: Vec<u8> = (0..length).map(|n| (n * 7 % 251) as u8).collect();
            socket.send_to(&noise, "10.77.255.255:67").expect("sent");
        }
    });
    let patience = Instant::now() + Duration::from_secs(20);
    loop {
        let (answer, counters) = oneshot::channel();
        appliance.control.blocking_send(Control::Counters(answer)).expect("it runs");
        let counters = counters.blocking_recv().expect("answered");
        if counters.malformed == 7 {
            assert_eq!((counters.offers, counters.acks, counters.naks), (0, 0, 0));
            break;
        }
        assert!(Instant::now() < patience, "{counters:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// `sent packets: 400` and `received packets: 400`, once for each half of the exchange.
fn figures(report: &str, name: &str) -> Vec<u32> {
    report.lines().filter_map(|line| line.trim().strip_prefix(name)?.trim().parse().ok()).collect()
}

fn perfdhcp(clients: &Clients, rate: u32, count: u32) -> String {
    clients.ip("addr add 10.77.0.3/16 dev c0");
    let mut command = clients.run("perfdhcp");
    command.args(["-4", "-l", "c0", "-g", "single", "-u", "-d", "3", "-W", "4000000"]);
    command.args(["-r", &rate.to_string(), "-n", &count.to_string()]);
    // It sends a few more than asked for when it lags behind its rate; none may be a client twice.
    command.args(["-R", "2000"]);
    let output = command.arg(SERVER.to_string()).output().expect("perfdhcp runs");
    let report = String::from_utf8_lossy(&output.stdout).into_owned();
    // 3 means that some exchanges were not completed; who calls looks at the figures.
    assert!(
        matches!(output.status.code(), Some(0 | 3)),
        "{}\n{report}{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    report
}

fn each_address_once(appliance: &Appliance) {
    let leases = appliance.leases();
    let addresses: HashSet<Ipv4Addr> = leases.iter().map(|lease| lease.address).collect();
    assert_eq!(addresses.len(), leases.len());
    let mut acked: BTreeMap<Ipv4Addr, Mac> = BTreeMap::new();
    for event in lock(&appliance.events).iter().filter(|event| event.kind == EventKind::Acked) {
        let address = event.address.expect("an ACK has one");
        let holder = *acked.entry(address).or_insert(event.mac);
        assert_eq!(holder, event.mac, "{address} in two hands");
    }
}

#[test]
fn perfdhcp_completes_every_exchange() {
    if !namespace("perfdhcp_completes_every_exchange") {
        return;
    }
    let clients = Clients::new();
    veth("k0", "c0");
    ip(&format!("addr add {SERVER}/16 dev k0"));
    clients.take("c0");
    let appliance = Appliance::start("k0", |_| Answer::Serve(serving(Address::Pool, subnet())));
    let report = perfdhcp(&clients, 100, 400);
    let sent = figures(&report, "sent packets:");
    assert!(sent.len() == 2 && sent.iter().all(|count| *count >= 400), "{report}");
    assert_eq!(figures(&report, "received packets:"), sent, "{report}");
    assert_eq!(figures(&report, "non unique addresses:"), [0, 0], "{report}");
    assert_eq!(appliance.leases().len(), sent[1] as usize);
    each_address_once(&appliance);
}

/// A wire with a hole in it: every frame is carried from one end to the other, save one in twenty.
/// Ours, because few kernels have `sch_netem` built in.
fn lossy_wire(a: &'static str, b: &'static str) {
    let ends = [a, b].map(|end| {
        let mut all = nix::ifaddrs::getifaddrs().expect("interfaces");
        let link = all.find_map(|one| {
            (one.interface_name == end).then_some(one.address?.as_link_addr().copied()).flatten()
        });
        let everything = socket2::Protocol::from(i32::from(0x0003u16.to_be()));
        let (domain, kind) = (socket2::Domain::PACKET, socket2::Type::RAW);
        let socket = socket2::Socket::new(domain, kind, Some(everything)).expect("we are root");
        nix::sys::socket::bind(socket.as_raw_fd(), &link.expect("there")).expect("bound");
        Arc::new(socket)
    });
    for (from, to, seed) in [(0, 1, 17u64), (1, 0, 4711)] {
        let (from, to) = (ends[from].clone(), ends[to].clone());
        std::thread::spawn(move || carry(&from, &to, seed));
    }
}

fn carry(from: &socket2::Socket, to: &socket2::Socket, mut seed: u64) {
    use nix::sys::socket::{LinkAddr, recvfrom};
    const OUTGOING: u8 = 4;
    let mut frame = [0; 2048];
    while let Ok((length, source)) = recvfrom::<LinkAddr>(from.as_raw_fd(), &mut frame) {
        if source.is_some_and(|source| source.pkttype() == OUTGOING) {
            continue;
        }
        // xorshift; DHCP alone is lossy, so that ARP does not hold the test up for seconds.
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        let frame = &mut frame[..length];
        let udp = length > 42 && frame[12..14] == [8, 0] && frame[23] == 17;
        if udp {
            if seed.is_multiple_of(20) {
                continue;
            }
            // A veth leaves the checksum to hardware that it does not have; zero means none.
            frame[40..42].fill(0);
        }
        let _ = to.send(frame);
    }
}

#[test]
fn one_datagram_in_twenty_lost() {
    if !namespace("one_datagram_in_twenty_lost") {
        return;
    }
    // The wire's ends are in a namespace without addresses, so that nobody there answers ARP.
    let (clients, between) = (Clients::new(), Clients::new());
    veth("k0", "m0");
    veth("m1", "c0");
    ip(&format!("addr add {SERVER}/16 dev k0"));
    clients.take("c0");
    between.take("m0");
    between.take("m1");
    between.inside(|| lossy_wire("m0", "m1"));
    let appliance = Appliance::start("k0", |_| Answer::Serve(serving(Address::Pool, subnet())));

    // Real clients ask again until they have an address.
    let folder = tempfile::tempdir().expect("a folder");
    for client in 1..=8 {
        clients.ip("link set c0 down");
        clients.ip(&format!("link set c0 address 52:54:00:77:01:0{client}"));
        clients.ip("link set c0 up");
        ok(&mut udhcpc(&clients, folder.path(), &["-q"]));
        let bound = told(folder.path(), "bound");
        let key = ClientKey { htype: 1, mac: Mac([0x52, 0x54, 0, 0x77, 1, client]) };
        assert_eq!(lock(&appliance.journal).leases[&key].address.to_string(), bound["ip"]);
    }
    clients.ip("addr flush dev c0");

    // perfdhcp never asks again: what is lost is lost, and nothing else is wrong.
    let report = perfdhcp(&clients, 60, 300);
    let (sent, received) =
        (figures(&report, "sent packets:"), figures(&report, "received packets:"));
    assert!(received[0] < sent[0] && received[1] < sent[1], "the wire does lose: {report}");
    assert!(received[0] * 10 > sent[0] * 8 && received[1] * 10 > sent[1] * 8, "{report}");
    assert_eq!(figures(&report, "non unique addresses:"), [0, 0], "{report}");
    each_address_once(&appliance);
}
