//! `kill -9` at any moment, again and again, while leases are taken and given back, machines report, operators
//! change the site and images are published: nothing that was acknowledged is lost, no address is in two hands, and
//! every image that is listed is whole.

use std::collections::{HashMap, HashSet};
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use koboshi::lab::net::Peer;
use koboshi_storm::dice::Dice;
use koboshi_storm::paper;

use super::{boot_of, image, whole};
use crate::wire::{peer, rom};
use crate::world::{KOBOSHI, World, in_world, text};

/// More clients than addresses.
const CLIENTS: u8 = 60;
const ADDRESSES: u8 = 40;

fn site() -> String {
    let clients = (0..CLIENTS).map(|n| format!("c{n:02} = {{ mac = [\"{}\"] }}\n", mac(n)));
    let spares = (0..CLIENTS).map(|n| format!("c{n:02} = \"spare\"\n"));
    format!(
        r#"
[site]
name = "kills"

[net]
interface = "kb0"
cidr = "10.77.0.0/24"
pool = "10.77.0.101-10.77.0.{last}"

[roles.rescue]
image = "rescue"

[machines]
m01 = {{ mac = ["52:54:00:77:00:01"] }}
m02 = {{ mac = ["52:54:00:77:00:02"] }}
{clients}
[seats]
tool1 = {{ role = "rescue", ip = "10.77.0.21" }}
tool2 = {{ role = "rescue", ip = "10.77.0.22" }}

[matrix]
m01 = "tool1"
m02 = "spare"
{spares}"#,
        last = 100 + ADDRESSES,
        clients = clients.collect::<String>(),
        spares = spares.collect::<String>(),
    )
}

fn mac(client: u8) -> String {
    format!("52:54:00:88:00:{client:02x}")
}

/// Twenty of a thousand: `make soak` has the others.
#[test]
fn what_was_acknowledged_outlives_kill_9() {
    kills(20, u64::from(std::process::id()));
}

/// Kills it so many times, and looks at what is left.
pub fn kills(count: usize, seed: u64) {
    eprintln!("seed {seed}");
    in_world(&site(), vec![], move |world| async move {
        let mut world = world;
        image(&world.state, "rescue");
        world.serve().await;
        let (one, two) = (peer(&world, "52:54:00:77:00:01"), peer(&world, "52:54:00:77:00:02"));
        assert_eq!(rom(&one).as_deref(), Some("10.77.0.21"));
        one.address(Ipv4Addr::new(10, 77, 0, 21), 24).expect("an address");
        let boot = boot_of(&one, "52:54:00:77:00:01");

        let stop = Arc::new(AtomicBool::new(false));
        let halt = || stop.clone();
        let leases = inside(&two, halt(), move |halt| Leases::new(seed).run(&halt));
        let reports = inside(&one, halt(), move |halt| report(&boot, &halt));
        let (socket, state) = (world.state.join("koboshi.sock"), world.state.clone());
        let (changes_halt, images_halt) = (halt(), halt());
        let changes = std::thread::spawn(move || change(&socket, &changes_halt));
        // Each is read again in the end: of a thousand deaths there are hundreds, not thousands.
        let pause = Duration::from_millis(count as u64);
        let images = std::thread::spawn(move || publish(&state, seed, pause, &images_halt));

        let mut dice = Dice::new(seed, 1);
        world.kill().await;
        let mut starts = Vec::new();
        for number in 0..count {
            let began = Instant::now();
            world.start().await;
            // Some die while they start.
            if dice.chance(800_000) {
                answers(&world, began).await;
                starts.push(began.elapsed());
            }
            tokio::time::sleep(dice.within(Duration::from_millis(400))).await;
            world.kill().await;
            if number % 50 == 49 {
                eprintln!("{} deaths", number + 1);
            }
        }
        world.serve().await;
        tokio::time::sleep(Duration::from_secs(3)).await;
        stop.store(true, Ordering::Relaxed);
        let leases = leases.join().expect("the clients' thread");
        let told = reports.join().expect("the reporter's thread");
        let changed = changes.join().expect("the operator's thread");
        let published = images.join().expect("the publisher's thread");
        starts.sort();
        eprintln!(
            "{count} deaths: {} ACKs, {} refusals, {} reports and {changed} changes acknowledged, {published} images \
             published; it answered {:?} after its start (the median; {:?} at worst)",
            leases.acked,
            leases.refused,
            told.len(),
            starts[starts.len() / 2],
            starts[starts.len() - 1]
        );

        assert!(leases.wrong.is_empty(), "{:#?}", leases.wrong);
        assert!(leases.acked > count && told.len() > count / 10 && changed > 0 && published > 0);
        let mut notes = HashSet::new();
        let mut reloads = 0;
        // 0 would be the newest ones.
        let mut since = 1;
        loop {
            let words = ["events", "--json", "--since", &since.to_string(), "-n", "5000"];
            let page = world.ok(&words);
            let mut last = None;
            for event in page.lines() {
                let event: serde_json::Value = serde_json::from_str(event).expect("JSON");
                reloads += usize::from(event["kind"] == "reload");
                notes.insert(event["text"].as_str().expect("a text").to_string());
                last = event["id"].as_u64();
            }
            let Some(last) = last else { break };
            since = last;
        }
        let lost: Vec<_> = told.iter().filter(|note| !notes.contains(*note)).collect();
        assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
        assert!(reloads >= changed, "{reloads} of {changed} changes are in the log");
        assert!(whole(&world.state) > published);
        assert_eq!(world.row("m01")["address"], "10.77.0.21");
        let log = world.log();
        assert!(!log.contains("panicked"), "{log}");
    });
}

/// A thread on a neighbour.
fn inside<T: Send + 'static>(
    peer: &Peer,
    halt: Arc<AtomicBool>,
    work: impl FnOnce(Arc<AtomicBool>) -> T + Send + 'static,
) -> JoinHandle<T> {
    let spawned = peer.keeper.run(move || std::thread::spawn(move || work(halt)));
    spawned.expect("the peer's thread lives")
}

/// Until its API answers.
async fn answers(world: &World, began: Instant) {
    while UnixStream::connect(world.state.join("koboshi.sock")).is_err() {
        assert!(began.elapsed() < Duration::from_secs(30), "it does not start:\n{}", world.log());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Clients that know what they were given, and what that forbids the others.
struct Leases {
    socket: UdpSocket,
    dice: Dice,
    /// The number of each one's last question: an answer to another one is not listened to.
    asked: HashMap<u8, u32>,
    questions: u32,
    /// What each has.
    has: HashMap<u8, Ipv4Addr>,
    /// Whose an address is, and until when.
    whose: HashMap<Ipv4Addr, (u8, Instant)>,
    acked: usize,
    refused: usize,
    wrong: Vec<String>,
}

impl Leases {
    fn new(seed: u64) -> Leases {
        let socket = UdpSocket::bind("0.0.0.0:68").expect("port 68 of the peer");
        socket.set_broadcast(true).expect("broadcast");
        socket.set_read_timeout(Some(Duration::from_millis(4))).expect("a timeout");
        let route = ["route", "replace", "255.255.255.255", "dev", "eth0"];
        assert!(Command::new("ip").args(route).status().expect("ip runs").success());
        Leases {
            socket,
            dice: Dice::new(seed, 2),
            asked: HashMap::new(),
            questions: 0,
            has: HashMap::new(),
            whose: HashMap::new(),
            acked: 0,
            refused: 0,
            wrong: Vec::new(),
        }
    }

    fn run(mut self, halt: &AtomicBool) -> Leases {
        let mut packet = [0; 1500];
        while !halt.load(Ordering::Relaxed) {
            let client = (self.dice.draw() % u64::from(CLIENTS)) as u8;
            match self.has.get(&client).copied() {
                None => self.send(client, 1, None),
                // Given back: from here on anybody may have it.
                Some(address) if self.dice.chance(150_000) => {
                    self.has.remove(&client);
                    self.whose.remove(&address);
                    self.send(client, 7, Some(address));
                }
                Some(address) => self.send(client, 3, Some(address)),
            }
            while let Ok(size) = self.socket.recv(&mut packet) {
                self.hear(&packet[..size]);
            }
        }
        self
    }

    fn hear(&mut self, packet: &[u8]) {
        if packet.len() < 250 || packet[28..33] != [0x52, 0x54, 0, 0x88, 0] {
            return;
        }
        let client = packet[33];
        let number = u32::from_be_bytes([packet[4], packet[5], packet[6], packet[7]]);
        if self.asked.get(&client) != Some(&number) {
            return;
        }
        let address = Ipv4Addr::new(packet[16], packet[17], packet[18], packet[19]);
        let option = |code: u8| {
            let mut rest = &packet[240..];
            while let [found, length, more @ ..] = rest {
                if *found == code {
                    return more.get(..usize::from(*length));
                }
                rest = more.get(usize::from(*length)..)?;
            }
            None
        };
        match option(53) {
            Some([2]) if !self.has.contains_key(&client) => self.send(client, 3, Some(address)),
            Some([5]) => self.acked(client, address, option(51)),
            Some([6]) => {
                self.refused += 1;
                // A lease that runs may not end so.
                if let Some(address) = self.has.remove(&client)
                    && let Some((_, until)) = self.whose.remove(&address)
                    && until > Instant::now()
                {
                    self.wrong
                        .push(format!("{} was given {address} and is refused it", mac(client)));
                }
            }
            _ => {}
        }
    }

    fn acked(&mut self, client: u8, address: Ipv4Addr, seconds: Option<&[u8]>) {
        self.acked += 1;
        let now = Instant::now();
        let seconds = seconds.and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_be_bytes);
        if let Some((other, until)) = self.whose.get(&address)
            && *other != client
            && *until > now
        {
            let (one, other) = (mac(client), mac(*other));
            self.wrong.push(format!("{address} is {other}'s, and {one} is given it"));
        }
        self.whose.insert(address, (client, now + Duration::from_secs(u64::from(seconds))));
        if let Some(former) = self.has.insert(client, address)
            && former != address
        {
            self.whose.remove(&former);
        }
    }

    fn send(&mut self, client: u8, kind: u8, address: Option<Ipv4Addr>) {
        let mut packet = vec![0u8; 240];
        packet[..4].copy_from_slice(&[1, 1, 6, 0]);
        self.questions += 1;
        self.asked.insert(client, self.questions);
        packet[4..8].copy_from_slice(&self.questions.to_be_bytes());
        packet[10] = 0x80;
        packet[28..34].copy_from_slice(&[0x52, 0x54, 0, 0x88, 0, client]);
        packet[236..240].copy_from_slice(&[99, 130, 83, 99]);
        packet.extend([53, 1, kind]);
        match (kind, address) {
            (7, Some(address)) => packet[12..16].copy_from_slice(&address.octets()),
            (_, Some(address)) => packet.extend([&[50, 4][..], &address.octets()].concat()),
            _ => {}
        }
        if address.is_some() {
            packet.extend([54, 4, 10, 77, 0, 1]);
        }
        packet.push(255);
        packet.resize(300, 0);
        // While its interface's queue is full it is as good as lost.
        let _lost = self.socket.send_to(&packet, "255.255.255.255:67").is_err();
    }
}

/// Reports, each of its own words; those that were acknowledged.
fn report(boot: &str, halt: &AtomicBool) -> Vec<String> {
    let mut told = Vec::new();
    let server = SocketAddr::from(([10, 77, 0, 1], 8080));
    let mut seq = 0u32;
    while !halt.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(10));
        seq += 1;
        let note = format!("trouble number {seq}");
        let body = format!(
            r#"{{"phase":{{"phase":"trouble","message":"{note}"}},"uptime_ms":1,"seq":{seq}}}"#
        );
        let post = || {
            let mut stream = TcpStream::connect_timeout(&server, Duration::from_secs(1))?;
            ask(&mut stream, &format!("/report/{boot}"), &body)
        };
        if post().is_ok_and(|answer| answer.starts_with("HTTP/1.1 204")) {
            told.push(note);
        }
    }
    told
}

/// A spare gets a seat and loses it again; how often that was acknowledged.
fn change(socket: &Path, halt: &AtomicBool) -> usize {
    let mut changed = 0;
    let places = ["tool2", "spare"];
    let mut place = 0;
    while !halt.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(100));
        let body = format!(r#"{{"machine":"m02","place":"{}","accept":true}}"#, places[place]);
        let Ok(mut stream) = UnixStream::connect(socket) else { continue };
        stream.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout");
        let Ok(answer) = ask(&mut stream, "/api/v1/seat", &body) else { continue };
        if answer.starts_with("HTTP/1.1 200") {
            // One that was written by somebody who died before it said so is no change now.
            changed += usize::from(answer.contains(r#""outcome":"applied""#));
            place = 1 - place;
        }
    }
    changed
}

fn ask(stream: &mut (impl Read + Write), path: &str, body: &str) -> std::io::Result<String> {
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: koboshi\r\ncontent-type: application/json\r\n\
         connection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(&[head.as_bytes(), body.as_bytes()].concat())?;
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        // Whoever died had answered, or not.
        Err(error) if error.kind() != ErrorKind::ConnectionReset => return Err(error),
        _ => {}
    }
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// Imports and publishes one image after the other, and kills every third; how many were done.
fn publish(state: &Path, seed: u64, pause: Duration, halt: &AtomicBool) -> usize {
    let mut dice = Dice::new(seed, 3);
    let root = tempfile::tempdir().expect("a folder");
    let sizes = paper::Sizes { loader: 1024, kernel: 65_536, initrd: 8192, root: 65_536 };
    paper::root(root.path(), &sizes).expect("a root");
    let mut done = 0;
    for number in 0.. {
        if halt.load(Ordering::Relaxed) {
            break;
        }
        std::thread::sleep(pause);
        // So that each has a blob of its own.
        std::fs::write(root.path().join("srv/number"), number.to_string()).expect("written");
        let name = format!("image{}", number % 8);
        let path: PathBuf = root.path().into();
        for words in [vec!["import", &name, path.to_str().expect("UTF-8")], vec!["publish", &name]]
        {
            let mut command = Command::new(KOBOSHI);
            command.arg("image").args(&words).arg("--state").arg(state);
            command.stdout(Stdio::null()).stderr(Stdio::piped());
            let mut child = command.spawn().expect("koboshi runs");
            if dice.chance(333_333) {
                std::thread::sleep(dice.within(Duration::from_millis(100)));
                child.kill().expect("it is killed");
                child.wait().expect("it ends");
                break;
            }
            let output = child.wait_with_output().expect("it ends");
            assert!(output.status.success(), "{words:?}: {}", text(&output));
            done += usize::from(words[0] == "publish");
        }
    }
    done
}
