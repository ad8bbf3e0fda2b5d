//! TFTP against the clients people have: atftp, tftp-hpa, curl and busybox, on a good network and
//! through one that loses every twentieth datagram; and against requests no client would send.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use koboshi_pxe::Content;
use koboshi_pxe::tftp::{Counters, Event, Limits, Server, bind, serve};
use tokio::net::UdpSocket;
use tokio::process::Command;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

const LONG: Duration = Duration::from_secs(60);

/// A server on loopback with files of edge sizes, half of them on disk.
struct Rig {
    address: SocketAddr,
    files: HashMap<String, Vec<u8>>,
    events: Arc<Mutex<Vec<Event>>>,
    counters: Arc<Counters>,
    cancel: CancellationToken,
    task: tokio::task::JoinHandle<std::io::Result<()>>,
    folder: tempfile::TempDir,
}

fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64 ^ length as u64;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    })
    .flatten()
    .take(length)
    .collect()
}

fn rig(listen: &str, sizes: &[usize], limits: Limits) -> Rig {
    let folder = tempfile::tempdir().unwrap();
    let mut files = HashMap::new();
    let mut contents = HashMap::new();
    for (at, &size) in sizes.iter().enumerate() {
        let name = format!("f{size}");
        let bytes = noise(size);
        let content = if at % 2 == 0 {
            Content::Bytes(Bytes::from(bytes.clone()))
        } else {
            let path = folder.path().join(&name);
            std::fs::write(&path, &bytes).unwrap();
            // Out of the page cache, so that the way over the disk is walked too.
            let file = std::fs::File::open(&path).unwrap();
            file.sync_all().unwrap();
            rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
            Content::File { path: Arc::new(path), size: size as u64 }
        };
        contents.insert(name.clone(), content);
        files.insert(name, bytes);
    }
    let text = b"#!ipxe\necho one\r\nboot\n";
    contents.insert("dir/text".to_string(), Content::Bytes(Bytes::from_static(text)));
    let socket = bind(listen.parse().unwrap(), None).unwrap();
    let address = socket.local_addr().unwrap();
    let events = Arc::new(Mutex::new(Vec::new()));
    let counters = Arc::new(Counters::default());
    let told = Arc::clone(&events);
    let server = Server {
        lookup: Arc::new(move |_, name| contents.get(name).cloned()),
        expected: Arc::new(|peer| peer == IpAddr::from([127, 0, 0, 77])),
        tell: Arc::new(move |event| told.lock().unwrap().push(event)),
        limits,
        counters: Arc::clone(&counters),
        device: None,
    };
    let cancel = CancellationToken::new();
    let task = tokio::spawn(serve(socket, server, cancel.clone()));
    Rig { address, files, events, counters, cancel, task, folder }
}

impl Rig {
    async fn stop(self) -> Vec<Event> {
        self.cancel.cancel();
        timeout(LONG, self.task).await.expect("it stops").unwrap().unwrap();
        self.events.lock().unwrap().clone()
    }

    /// Waits until an event of that kind has come.
    async fn event(&self, wanted: impl Fn(&Event) -> bool) -> Event {
        timeout(LONG, async {
            loop {
                let found = self.events.lock().unwrap().iter().find(|event| wanted(event)).cloned();
                if let Some(event) = found {
                    return event;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await
        .unwrap_or_else(|_| panic!("not among {:?}", self.events.lock().unwrap()))
    }
}

async fn run(program: &str, arguments: &[&str], folder: &Path) -> String {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(folder).kill_on_drop(true).stdin(Stdio::null());
    let output = timeout(LONG * 2, command.output()).await;
    let output = output
        .unwrap_or_else(|_| panic!("{program} {arguments:?} did not end"))
        .unwrap_or_else(|error| panic!("{program}: {error}; `make setup` installs it"));
    let text = [output.stdout, output.stderr].concat();
    format!("{}: {}", output.status, String::from_utf8_lossy(&text).trim())
}

/// How each client is told to fetch `remote` into `local`.
const CLIENTS: &[(&str, &str)] = &[
    ("atftp", "--get -r REMOTE -l LOCAL HOST PORT"),
    ("atftp", "--option|blksize 1468 --get -r REMOTE -l LOCAL HOST PORT"),
    ("atftp", "--option|blksize 1468 --option|windowsize 8 --get -r REMOTE -l LOCAL HOST PORT"),
    ("atftp", "--option|windowsize 64 --option|timeout 1 --get -r REMOTE -l LOCAL HOST PORT"),
    ("atftp", "--option|blksize 8192 --option|tsize 0 --get -r REMOTE -l LOCAL HOST PORT"),
    ("tftp", "-m binary HOST PORT -c get REMOTE LOCAL"),
    ("curl", "-sS -o LOCAL tftp://HOST:PORT/REMOTE"),
    ("curl", "-sS --tftp-blksize 1468 -o LOCAL tftp://HOST:PORT/REMOTE"),
    ("curl", "-sS --tftp-no-options -o LOCAL tftp://HOST:PORT/REMOTE"),
    ("busybox", "tftp -g -r REMOTE -l LOCAL HOST PORT"),
    ("busybox", "tftp -b 1468 -g -r REMOTE -l LOCAL HOST PORT"),
];

async fn fetch(client: (&str, &str), server: SocketAddr, remote: &str, folder: &Path) -> Vec<u8> {
    let local = folder.join("got");
    let _ = std::fs::remove_file(&local);
    let (program, template) = client;
    let (host, port) = (server.ip().to_string(), server.port().to_string());
    let mut arguments: Vec<String> = Vec::new();
    let mut words = template.split(' ');
    while let Some(word) = words.next() {
        if let Some((flag, option)) = word.split_once('|') {
            arguments.push(flag.to_string());
            arguments.push(format!("{option} {}", words.next().unwrap_or_default()));
            continue;
        }
        let word = word.replace("HOST", &host).replace("PORT", &port);
        arguments.push(word.replace("REMOTE", remote).replace("LOCAL", "got"));
    }
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let said = run(program, &arguments, folder).await;
    std::fs::read(&local).unwrap_or_else(|_| panic!("{program} {arguments:?}: {said}"))
}

const EDGES: &[usize] =
    &[0, 1, 511, 512, 513, 1467, 1468, 1469, 4096, 8 * 512, 8 * 1468, 64 * 512, 300_001];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_client_gets_every_size() {
    let rig = rig("127.0.0.1:0", EDGES, Limits::default());
    let folder = tempfile::tempdir().unwrap();
    for &client in CLIENTS {
        for (name, wanted) in &rig.files {
            // curl leaves no file behind where there were no bytes.
            if wanted.is_empty() && client.0 == "curl" {
                continue;
            }
            let got = fetch(client, rig.address, name, folder.path()).await;
            assert!(got == *wanted, "{client:?} {name}: {} bytes", got.len());
        }
    }
    let events = rig.stop().await;
    let lost =
        events.iter().find(|event| !matches!(event, Event::Begun { .. } | Event::Done { .. }));
    assert_eq!(lost, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_client_gets_its_file_through_a_lossy_network() {
    let sizes = &[0, 60_000, 200_000];
    let rig = rig("127.0.0.1:0", sizes, Limits::default());
    let mut all = tokio::task::JoinSet::new();
    for (at, &client) in CLIENTS.iter().enumerate() {
        // The others wait for seconds before they ask again, each time.
        let quick = client.0 == "busybox" || client.1.contains("windowsize 8");
        let name = if quick { "f200000" } else { "f60000" };
        let (relay, _guard) = lossy(rig.address, 5, at as u64 + 1).await;
        let wanted = rig.files[name].clone();
        all.spawn(async move {
            let _guard = _guard;
            let folder = tempfile::tempdir().unwrap();
            let got = fetch(client, relay, name, folder.path()).await;
            assert!(got == wanted, "{client:?} {name}: {} bytes", got.len());
        });
    }
    while let Some(ended) = all.join_next().await {
        ended.unwrap();
    }
    let counters = Arc::clone(&rig.counters);
    rig.stop().await;
    assert!(counters.resent.load(std::sync::atomic::Ordering::Relaxed) > 0, "{counters:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn block_numbers_wrap_for_clients_that_know_it() {
    let size = 512 * 66_000 + 7;
    // The second size goes to disk.
    let rig = rig("127.0.0.1:0", &[1, size], Limits::default());
    let folder = tempfile::tempdir().unwrap();
    let name = format!("f{size}");
    for client in [
        ("atftp", "--option|windowsize 32 --get -r REMOTE -l LOCAL HOST PORT"),
        ("tftp", "-m binary HOST PORT -c get REMOTE LOCAL"),
        ("curl", "-sS -o LOCAL tftp://HOST:PORT/REMOTE"),
    ] {
        let got = fetch(client, rig.address, &name, folder.path()).await;
        assert!(got == rig.files[&name], "{client:?}: {} bytes", got.len());
    }
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_default_mode_of_tftp_hpa_gets_text_and_is_told_about_the_rest() {
    let rig = rig("127.0.0.1:0", &[70_000], Limits::default());
    let folder = tempfile::tempdir().unwrap();
    let netascii = ("tftp", "-m ascii HOST PORT -c get REMOTE LOCAL");
    let got = fetch(netascii, rig.address, "dir/text", folder.path()).await;
    assert_eq!(got, b"#!ipxe\necho one\r\nboot\n");
    let port = rig.address.port().to_string();
    let arguments = ["-m", "ascii", "127.0.0.1", &port, "-c", "get", "f70000", "x"];
    let said = run("tftp", &arguments, folder.path()).await;
    assert!(said.contains("too large for netascii"), "{said}");
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_there_is_refused_aloud_and_nothing_is_written() {
    let rig = rig("127.0.0.1:0", &[1], Limits::default());
    let folder = tempfile::tempdir().unwrap();
    let port = rig.address.port().to_string();
    let url = format!("tftp://127.0.0.1:{port}/etc/passwd");
    let said = run("curl", &["-sS", &url], folder.path()).await;
    // 68: "File not found on TFTP server"
    assert!(said.contains("68"), "{said}");
    std::fs::write(folder.path().join("up"), "x").unwrap();
    let put = ["--put", "-l", "up", "-r", "f1", "127.0.0.1", &port];
    let said = run("atftp", &put, folder.path()).await;
    assert!(!said.starts_with("exit status: 0"), "{said}");
    let refused = rig
        .event(|event| matches!(event, Event::Refused { why, .. } if why.contains("no such")))
        .await;
    assert!(matches!(refused, Event::Refused { name, .. } if &*name == "etc/passwd"));
    rig.stop().await;
}

/// A client by hand.
struct Hand {
    socket: UdpSocket,
}

impl Hand {
    async fn new(from: &str) -> Hand {
        Hand { socket: UdpSocket::bind(from).await.unwrap() }
    }

    async fn ask(&self, server: SocketAddr, request: &[u8]) {
        self.socket.send_to(request, server).await.unwrap();
    }

    /// The next datagram and who sent it.
    async fn hear(&self) -> (Vec<u8>, SocketAddr) {
        let mut buffer = [0; 2000];
        let received = timeout(LONG, self.socket.recv_from(&mut buffer)).await;
        let (length, from) = received.expect("an answer").unwrap();
        (buffer[..length].to_vec(), from)
    }

    async fn silence(&self, time: Duration) {
        let mut buffer = [0; 2000];
        let heard = timeout(time, self.socket.recv_from(&mut buffer)).await;
        assert!(heard.is_err(), "{:?}", heard.map(|heard| buffer[..heard.unwrap().0].to_vec()));
    }
}

const PROBE: &[u8] = b"\0\x01f5000\0octet\0tsize\x000\0blksize\x001468\0";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_uefi_size_probe_ends_at_once_and_the_same_port_may_ask_again() {
    let rig = rig("127.0.0.1:0", &[5000], Limits::default());
    let client = Hand::new("127.0.0.1:0").await;
    for _ in 0..100 {
        client.ask(rig.address, PROBE).await;
        let (oack, port) = client.hear().await;
        assert_eq!(oack, b"\0\x06tsize\x005000\0blksize\x001468\0");
        client.ask(port, b"\0\x05\0\x08User aborted the transfer\0").await;
    }
    // Longer than the first interval: a zombie would have sent its OACK again.
    client.silence(Duration::from_millis(1500)).await;
    let probed = rig.event(|event| matches!(event, Event::Probed { .. })).await;
    assert!(matches!(probed, Event::Probed { size: 5000, .. }));
    client.ask(rig.address, PROBE).await;
    let (_, port) = client.hear().await;
    for block in 0..=4u8 {
        client.ask(port, &[0, 4, 0, block]).await;
        if block < 4 {
            assert_eq!(client.hear().await.0[..4], [0, 3, 0, block + 1]);
        }
    }
    let done = rig.event(|event| matches!(event, Event::Done { .. })).await;
    assert!(matches!(done, Event::Done { bytes: 5000, confirmed: true, .. }));
    rig.stop().await;
}

#[tokio::test]
async fn a_request_again_from_the_same_port_is_answered() {
    let rig = rig("127.0.0.1:0", &[5000], Limits::default());
    let client = Hand::new("127.0.0.1:0").await;
    let request = b"\0\x01f5000\0octet\0";
    client.ask(rig.address, request).await;
    let (first, port) = client.hear().await;
    client.ask(rig.address, request).await;
    assert_eq!(client.hear().await, (first.clone(), port), "by the same transfer");
    client.ask(port, &[0, 4, 0, 1]).await;
    assert_eq!(client.hear().await.0[..4], [0, 3, 0, 2]);
    // Reset in the middle, and asking from the start.
    client.ask(rig.address, request).await;
    let (again, other) = client.hear().await;
    assert_eq!(again, first);
    assert_ne!(other, port);
    rig.event(|event| matches!(event, Event::Replaced { bytes: 512, .. })).await;
    client.ask(other, &[0, 4, 0, 1]).await;
    loop {
        let (data, from) = client.hear().await;
        if from == other && data[..4] == [0, 3, 0, 2] {
            break;
        }
    }
    rig.stop().await;
}

#[tokio::test]
async fn a_client_whose_port_is_closed_is_let_go() {
    let rig = rig("127.0.0.1:0", &[5000], Limits::default());
    let client = Hand::new("127.0.0.1:0").await;
    client.ask(rig.address, b"\0\x01f5000\0octet\0").await;
    let (_, port) = client.hear().await;
    client.ask(port, &[0, 4, 0, 1]).await;
    drop(client);
    let gone = rig.event(|event| matches!(event, Event::Aborted { .. })).await;
    assert!(matches!(gone, Event::Aborted { code: None, .. }), "{gone:?}");
    rig.stop().await;
}

#[tokio::test]
async fn the_answer_comes_from_the_address_that_was_asked() {
    for (listen, client, homes) in [
        ("0.0.0.0:0", "127.0.0.9:0", &["127.0.0.1", "127.0.0.2", "127.7.7.7"][..]),
        ("[::]:0", "127.0.0.9:0", &["127.0.0.1", "127.7.7.7"]),
        ("[::]:0", "[::1]:0", &["::1"]),
    ] {
        let rig = rig(listen, &[10], Limits::default());
        for home in homes {
            let client = Hand::new(client).await;
            let home: IpAddr = home.parse().unwrap();
            let server = SocketAddr::new(home, rig.address.port());
            client.ask(server, b"\0\x01f10\0octet\0").await;
            let (data, from) = client.hear().await;
            assert_eq!((data.len(), from.ip()), (14, home), "{listen}");
            assert_ne!(from.port(), server.port());
            client.ask(from, &[0, 4, 0, 1]).await;
        }
        rig.stop().await;
    }
}

#[tokio::test]
async fn names_in_every_spelling() {
    let rig = rig("127.0.0.1:0", &[10], Limits { unheard: 100, ..Limits::default() });
    let client = Hand::new("127.0.0.1:0").await;
    for name in [&b"f10"[..], b"/f10", b"//f10", b"\\f10", b"./f10", b"f10\xff", b".\\f10\xff"] {
        client.ask(rig.address, &[b"\0\x01", name, b"\0octet\0"].concat()).await;
        let (data, port) = client.hear().await;
        assert_eq!(data[..4], [0, 3, 0, 1], "{}", name.escape_ascii());
        client.ask(port, &[0, 4, 0, 1]).await;
    }
    for name in [&b"../f10"[..], b"..\\f10", b"x/../f10", b"/..", b"..\xff", b"f10\xfe", b"\xff"] {
        client.ask(rig.address, &[b"\0\x01", name, b"\0octet\0"].concat()).await;
        let (error, _) = client.hear().await;
        assert_eq!(error[..4], [0, 5, 0, 2], "{}", name.escape_ascii());
    }
    rig.stop().await;
}

#[tokio::test]
async fn noise_gets_silence_or_an_error_and_is_counted() {
    let rig = rig("127.0.0.1:0", &[10], Limits::default());
    let client = Hand::new("127.0.0.1:0").await;
    let long = [b"\0\x01".as_slice(), &[b'a'; 9000]].concat();
    for (sent, answer) in [
        (&b"\0\x01f10\0"[..], Some(4)),
        (b"\0\x01", Some(4)),
        (b"\0\x01f10\0mail\0", Some(4)),
        (b"\0\x02f10\0octet\0", Some(2)),
        (&long, Some(4)),
        (b"", None),
        (b"\0", None),
        (b"\0\x03\0\x01data", None),
        (b"\0\x04\0\x01", None),
        (b"\0\x05\0\x01error\0", None),
        (b"\xff\xff\xff\xff", None),
    ] {
        client.ask(rig.address, sent).await;
        match answer {
            Some(code) => assert_eq!(client.hear().await.0[..4], [0, 5, 0, code]),
            None => client.silence(Duration::from_millis(50)).await,
        }
    }
    let counters = Arc::clone(&rig.counters);
    let read =
        |counter: &std::sync::atomic::AtomicU64| counter.load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!((read(&counters.malformed), read(&counters.stray)), (6, 3), "{counters:?}");
    // Noise at the port of a transfer does it no harm.
    client.ask(rig.address, b"\0\x01f10\0octet\0").await;
    let (_, port) = client.hear().await;
    for sent in [&b""[..], b"\0", b"\0\x01f10\0octet\0", b"\xff\xff", b"\0\x04\x77\x77", &long] {
        client.ask(port, sent).await;
    }
    client.ask(port, &[0, 4, 0, 1]).await;
    rig.event(|event| matches!(event, Event::Done { .. })).await;
    rig.stop().await;
}

#[tokio::test]
async fn one_address_cannot_hold_every_transfer() {
    let limits = Limits { transfers: 6, per_peer: 4, ..Limits::default() };
    let rig = rig("127.0.0.1:0", &[5000], limits);
    let ask = b"\0\x01f5000\0octet\0";
    let mut greedy = Vec::new();
    for _ in 0..4 {
        let client = Hand::new("127.0.0.2:0").await;
        client.ask(rig.address, ask).await;
        let (_, port) = client.hear().await;
        client.ask(port, &[0, 4, 0, 1]).await;
        client.hear().await;
        greedy.push(client);
    }
    let fifth = Hand::new("127.0.0.2:0").await;
    fifth.ask(rig.address, ask).await;
    fifth.silence(Duration::from_millis(100)).await;
    let other = Hand::new("127.0.0.3:0").await;
    other.ask(rig.address, ask).await;
    other.hear().await;
    // One that leaves makes room.
    drop(greedy.pop());
    rig.event(|event| matches!(event, Event::Aborted { .. })).await;
    fifth.ask(rig.address, ask).await;
    fifth.hear().await;
    rig.stop().await;
}

#[tokio::test]
async fn who_acknowledges_nothing_makes_room_and_gets_no_more() {
    let limits = Limits { transfers: 4, unheard: 5, ..Limits::default() };
    let rig = rig("127.0.0.1:0", &[5000], limits);
    let ask = b"\0\x01f5000\0octet\0";
    let honest = Hand::new("127.0.0.3:0").await;
    honest.ask(rig.address, ask).await;
    let (_, port) = honest.hear().await;
    honest.ask(port, &[0, 4, 0, 1]).await;
    honest.hear().await;
    let mut silent = Vec::new();
    for number in 0..20 {
        let client = Hand::new("127.0.0.2:0").await;
        client.ask(rig.address, ask).await;
        match number {
            0..5 => drop(client.hear().await),
            _ => client.silence(Duration::from_millis(5)).await,
        }
        silent.push(client);
    }
    let read =
        |counter: &std::sync::atomic::AtomicU64| counter.load(std::sync::atomic::Ordering::Relaxed);
    let counters = &rig.counters;
    let all = async {
        while read(&counters.unheard) < 15 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(LONG, all).await.unwrap_or_else(|_| panic!("{counters:?}"));
    assert_eq!((read(&counters.displaced), read(&counters.unheard)), (2, 15), "{counters:?}");
    // Somebody else uses up the credit of a machine that boots: it is answered all the same, once.
    for _ in 0..20 {
        let client = Hand::new("127.0.0.77:0").await;
        client.ask(rig.address, ask).await;
        client.hear().await;
    }
    assert_eq!(read(&counters.unheard), 15);
    // Another one is answered at once, and who was first goes on.
    let other = Hand::new("127.0.0.4:0").await;
    other.ask(rig.address, ask).await;
    other.hear().await;
    honest.ask(port, &[0, 4, 0, 2]).await;
    assert_eq!(honest.hear().await.0[..4], [0, 3, 0, 3]);
    rig.stop().await;
}

#[tokio::test]
async fn who_takes_nothing_makes_room_for_who_does() {
    let limits = Limits { transfers: 2, slow: Duration::from_millis(500), ..Limits::default() };
    let rig = rig("127.0.0.1:0", &[5000], limits);
    let (quick, slow) = (Hand::new("127.0.0.2:0").await, Hand::new("127.0.0.3:0").await);
    quick.ask(rig.address, PROBE).await;
    let (_, port) = quick.hear().await;
    for block in 0..3u8 {
        quick.ask(port, &[0, 4, 0, block]).await;
        assert_eq!(quick.hear().await.0[..4], [0, 3, 0, block + 1]);
    }
    slow.ask(rig.address, PROBE).await;
    let (_, its) = slow.hear().await;
    slow.ask(its, &[0, 4, 0, 0]).await;
    slow.hear().await;
    let other = Hand::new("127.0.0.4:0").await;
    let mut answer = [0; 100];
    let answered = timeout(LONG, async {
        loop {
            other.ask(rig.address, PROBE).await;
            let heard = timeout(Duration::from_millis(50), other.socket.recv(&mut answer)).await;
            if heard.is_ok() {
                break;
            }
        }
    });
    answered.await.expect("the slow one makes room");
    while slow.hear().await.0[..4] != [0, 5, 0, 0] {}
    let gone = rig.event(|event| matches!(event, Event::Aborted { .. })).await;
    assert!(
        matches!(gone, Event::Aborted { peer, .. } if peer.ip() == IpAddr::from([127, 0, 0, 3]))
    );
    while quick.socket.try_recv(&mut answer).is_ok() {}
    quick.ask(port, &[0, 4, 0, 3]).await;
    let mut heard = quick.hear().await.0;
    while heard[..4] == [0, 3, 0, 3] {
        heard = quick.hear().await.0;
    }
    assert_eq!(heard[..4], [0, 3, 0, 4]);
    rig.stop().await;
}

#[tokio::test]
async fn a_file_that_shrinks_ends_the_transfer_aloud() {
    let rig = rig("127.0.0.1:0", &[1, 50_000], Limits::default());
    let client = Hand::new("127.0.0.1:0").await;
    client.ask(rig.address, b"\0\x01f50000\0octet\0").await;
    let (mut heard, port) = client.hear().await;
    let file = std::fs::OpenOptions::new().write(true).open(rig.folder.path().join("f50000"));
    file.unwrap().set_len(600).unwrap();
    // Some blocks were read before.
    for block in 1..50 {
        assert_eq!(heard[..4], [0, 3, 0, block]);
        client.ask(port, &[0, 4, 0, block]).await;
        heard = client.hear().await.0;
        if heard[1] == 5 {
            break;
        }
    }
    assert_eq!(heard[..4], [0, 5, 0, 0]);
    rig.event(|event| matches!(event, Event::Aborted { .. })).await;
    rig.stop().await;
}

#[tokio::test]
async fn a_stop_is_told_to_those_under_way() {
    let rig = rig("127.0.0.1:0", &[5000], Limits::default());
    let client = Hand::new("127.0.0.1:0").await;
    client.ask(rig.address, PROBE).await;
    client.hear().await;
    rig.stop().await;
    assert_eq!(client.hear().await.0[..4], [0, 5, 0, 0]);
}

#[test]
fn blocks_fit_the_mtu_of_the_path() {
    // A network namespace of this thread alone; it is gone with it.
    let wire = std::thread::spawn(|| {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET)
            .expect("a network namespace, for which this test needs root");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let folder = tempfile::tempdir().unwrap();
            for (mtu, blksize) in [("1500", 1468), ("9000", 8968), ("1400", 1368)] {
                let link = ["link", "set", "lo", "up", "mtu", mtu];
                let said = run("ip", &link, folder.path()).await;
                assert!(said.starts_with("exit status: 0"), "{said}");
                let rig = rig("127.0.0.1:0", &[1, 1_000_003], Limits::default());
                let client = Hand::new("127.0.0.1:0").await;
                client.ask(rig.address, b"\0\x01f1\0octet\0blksize\x0065464\0").await;
                let (oack, port) = client.hear().await;
                assert_eq!(oack, format!("\0\x06blksize\0{blksize}\0").as_bytes());
                client.ask(port, b"\0\x05\0\0\0").await;
                let options = "--option|blksize 65464 --option|windowsize 64";
                let template = format!("{options} --get -r REMOTE -l LOCAL HOST PORT");
                let client = ("atftp", template.as_str());
                let got = fetch(client, rig.address, "f1000003", folder.path()).await;
                assert!(got == rig.files["f1000003"], "mtu {mtu}: {} bytes", got.len());
                let resent = Arc::clone(&rig.counters);
                rig.stop().await;
                let resent = resent.resent.load(std::sync::atomic::Ordering::Relaxed);
                assert_eq!(resent, 0, "mtu {mtu}");
            }
        });
    });
    wire.join().unwrap();
}

/// A relay on loopback that loses datagrams both ways. Each client port gets a port towards the
/// server, and each port of the server one towards the client.
async fn lossy(server: SocketAddr, percent: u64, seed: u64) -> (SocketAddr, impl Send) {
    let front = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
    let address = front.local_addr().unwrap();
    let dice = Arc::new(Mutex::new(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1));
    let lost = move || {
        let mut state = dice.lock().unwrap();
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        (*state >> 33) % 100 < percent
    };
    let cancel = CancellationToken::new();
    let guard = cancel.clone().drop_guard();
    let token = cancel.clone();
    tokio::spawn(cancel.run_until_cancelled_owned(async move {
        let mut clients: HashMap<SocketAddr, Arc<UdpSocket>> = HashMap::new();
        let mut buffer = [0; 2000];
        loop {
            let (length, client) = front.recv_from(&mut buffer).await.unwrap();
            if lost() {
                continue;
            }
            let back = match clients.get(&client) {
                Some(back) => Arc::clone(back),
                None => {
                    let back = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
                    clients.insert(client, Arc::clone(&back));
                    let session = session(client, Arc::clone(&back), lost.clone(), token.clone());
                    tokio::spawn(token.clone().run_until_cancelled_owned(session));
                    back
                }
            };
            let _ = back.send_to(&buffer[..length], server).await;
        }
    }));
    (address, guard)
}

async fn session(
    client: SocketAddr,
    back: Arc<UdpSocket>,
    lost: impl Fn() -> bool + Clone + Send + 'static,
    token: CancellationToken,
) {
    let mut ports: HashMap<SocketAddr, Arc<UdpSocket>> = HashMap::new();
    let mut buffer = vec![0; 66_000];
    loop {
        // A port that was closed meanwhile shows up as an error here.
        let Ok((length, from)) = back.recv_from(&mut buffer).await else { continue };
        let face = match ports.get(&from) {
            Some(face) => Arc::clone(face),
            None => {
                let face = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
                ports.insert(from, Arc::clone(&face));
                let upward = upward(Arc::clone(&face), Arc::clone(&back), from, lost.clone());
                tokio::spawn(token.clone().run_until_cancelled_owned(upward));
                face
            }
        };
        if !lost() {
            let _ = face.send_to(&buffer[..length], client).await;
        }
    }
}

async fn upward(
    face: Arc<UdpSocket>,
    back: Arc<UdpSocket>,
    port: SocketAddr,
    lost: impl Fn() -> bool + Send,
) {
    let mut buffer = [0; 2000];
    loop {
        let Ok((length, _)) = face.recv_from(&mut buffer).await else { continue };
        if !lost() {
            let _ = back.send_to(&buffer[..length], port).await;
        }
    }
}
