//! What real firmware said in the virtual rack (`tests/captures`), said again to DHCP, TFTP and HTTP as they are,
//! without a socket and with a clock and dice that always fall the same. What we answer is kept beside each capture,
//! byte for byte: whoever changes a byte of it changes `NAME.expected` too (`UPDATE_EXPECTED=1`), and that is
//! reviewed. tcpdump reads our answers as well, and finds nothing wrong with them.

mod pcap;
mod site;
mod told;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::fmt::Write;
use std::io::IoSliceMut;
use std::net::{SocketAddr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::ConnectInfo;
use bytes::Bytes;
use hyper::service::{Service, service_fn};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use koboshi_pxe::desk::{Desk, News};
use koboshi_pxe::dhcp::frame::Datagram;
use koboshi_pxe::dhcp::{Destination, Effect, Heard, Kept, Now, Outgoing, Request, Server};
use koboshi_pxe::http::{Lane, routes};
use koboshi_pxe::tftp::packet::{self, Code, Packet};
use koboshi_pxe::tftp::transfer::{Blocks, End, Patience, Step, Transfer, lay_out};
use koboshi_pxe::tftp::{self, name, terms};
use koboshi_pxe::{Content, Mac};
use pcap::{SERVER, SERVER_MAC, Said};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

/// UDP's payload of an Ethernet frame.
const PAYLOAD: usize = 1472;

fn captures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/captures")
}

#[tokio::test]
async fn answers_to_captured_firmware_are_as_they_were_reviewed() {
    let update = std::env::var_os("UPDATE_EXPECTED").is_some();
    let files = std::fs::read_dir(captures()).expect("captures");
    let files = files.map(|file| file.expect("a file").path());
    let names: BTreeSet<String> = files
        .filter(|path| path.extension().is_some_and(|ext| ext == "pcap"))
        .map(|path| path.file_stem().expect("a name").to_string_lossy().into_owned())
        .collect();
    assert_eq!(names, site::MACHINES.iter().map(|(name, _)| name.to_string()).collect());
    for name in names {
        let capture = std::fs::read(captures().join(format!("{name}.pcap"))).expect("read");
        let replay = Replay::run(&pcap::read(&capture)).await;
        let path = captures().join(format!("{name}.expected"));
        if update {
            std::fs::write(&path, &replay.text).expect("written");
        }
        let expected = std::fs::read_to_string(&path).unwrap_or_default();
        let differs = replay.text.lines().zip(expected.lines()).position(|(is, was)| is != was);
        let at =
            differs.unwrap_or_else(|| replay.text.lines().count().min(expected.lines().count()));
        assert!(
            replay.text == expected,
            "{name}: koboshi answers otherwise than reviewed, from line {} on:\n  was {:?}\n  is  {:?}\n\
             if that is meant: UPDATE_EXPECTED=1 cargo nextest run -p koboshi-pxe captured, and commit it",
            at + 1,
            expected.lines().nth(at).unwrap_or_default(),
            replay.text.lines().nth(at).unwrap_or_default(),
        );
        stranger(&name, &replay);
    }
}

/// tcpdump's reading of what we send.
fn stranger(name: &str, replay: &Replay) {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("ours.pcap");
    std::fs::write(&file, pcap::write(&replay.frames)).expect("written");
    let mut tcpdump = Command::new("tcpdump");
    let said = tcpdump.args(["-n", "-t", "-vvv", "-r"]).arg(&file).output();
    let said = said.expect("tcpdump: `make setup` installs it");
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    let count = |what: &str| said.matches(what).count();
    assert_eq!(count("BOOTP/DHCP, Reply"), replay.leases, "{name}: {said}");
    assert_eq!(count("[udp sum ok] TFTP"), replay.frames.len() - replay.leases, "{name}: {said}");
    assert_eq!(count("udp sum ok"), replay.frames.len(), "{name}: {said}");
    assert_eq!(count("Magic Cookie 0x63825363"), replay.leases, "{name}: {said}");
    for wrong in ["[|", "bad ", "malformed", "invalid", "truncated", "missing", "ERROR: "] {
        assert!(!said.contains(wrong), "{name}: {wrong:?} in {said}");
    }
}

/// One machine's day.
struct Replay {
    desk: Arc<Desk>,
    _news: mpsc::Receiver<News>,
    dhcp: Server,
    transfers: HashMap<SocketAddrV4, Running>,
    began: Instant,
    text: String,
    /// What we sent by UDP; so many of them are DHCP.
    frames: Vec<Vec<u8>>,
    leases: usize,
}

struct Running {
    request: packet::Request,
    name: Arc<str>,
    content: Bytes,
    terms: terms::Terms,
    transfer: Transfer,
}

impl Replay {
    async fn run(said: &[Said]) -> Replay {
        let (news, heard) = mpsc::channel(1000);
        let snapshot = site::snapshot(&blobs(said));
        let began = Instant::now();
        let mut replay = Replay {
            desk: Arc::new(Desk::drawing(snapshot, news, || 0x0102_0304_0506_0708)),
            _news: heard,
            dhcp: Server::restore(Kept::default(), Now { mono: began, wall: 1_795_000_000 }),
            transfers: HashMap::new(),
            began,
            text: String::new(),
            frames: Vec::new(),
            leases: 0,
        };
        for (number, packet) in said.iter().enumerate() {
            let (mac, from, to) = (Mac(packet.mac), packet.from, packet.to);
            // Not when: how fast this machine was is in the capture, and none of the answer's business.
            let gap = if number == 0 { "" } else { "\n" };
            write!(replay.text, "{gap}{} {mac} {from} > {to} ", number + 1).expect("memory");
            match (packet.tcp, to.port()) {
                (true, _) => replay.http(packet).await,
                (false, 67 | 4011) => replay.dhcp(packet),
                (false, 69) => replay.asks(packet),
                (false, _) => replay.goes_on(packet),
            }
        }
        replay
    }

    fn line(&mut self, line: &str) {
        self.text.push_str(line);
        self.text.push('\n');
    }

    fn dhcp(&mut self, said: &Said) {
        let mut request = Request::decode(&said.payload).expect("a request");
        request.heard = Heard {
            wire: 0,
            from: *said.from.ip(),
            from_port: said.from.port(),
            to: *said.to.ip(),
            proxy_port: said.to.port() == 4011,
        };
        self.line(&told::asked(&request, &said.payload));
        let now = Now { mono: self.began + said.at, wall: 1_795_000_000 + said.at.as_secs() };
        let answer = self.desk.dhcp(&request);
        let mut effects = VecDeque::from(self.dhcp.handle(&request, answer, now));
        let before = self.frames.len();
        while let Some(effect) = effects.pop_front() {
            match effect {
                Effect::Send(out) => {
                    told::answered(&out, &mut self.text);
                    self.frames.push(on_the_wire(&out));
                    self.leases += 1;
                }
                Effect::Probe { address, .. } => {
                    effects.extend(self.dhcp.probed(address, false, now));
                }
                Effect::Commit { ticket, .. } => {
                    effects.extend(self.dhcp.committed(ticket, true, now));
                }
                Effect::Tell(event) => self.desk.dhcp_event(&event),
            }
        }
        if self.frames.len() == before {
            self.line("  no answer");
        }
    }

    /// TFTP, the listening port.
    fn asks(&mut self, said: &Said) {
        let words: Vec<_> = said.payload[2..].split(|byte| *byte == 0).collect();
        let words: Vec<_> = words.iter().map(|word| String::from_utf8_lossy(word)).collect();
        self.line(&format!("TFTP RRQ {}", words.join(" ").trim_end()));
        let Ok(Packet::Read(request)) = packet::decode(&said.payload) else {
            panic!("no request to read")
        };
        let now = self.began + said.at;
        let repeated = |running: &Running| running.request == request && !running.transfer.heard();
        if let Some(mut running) = self.transfers.remove(&said.from).filter(repeated) {
            let step = running.transfer.again(now);
            return self.step(said.from, running, step);
        }
        let name = name::clean(&request.name).expect("a name");
        let peer = SocketAddr::V4(said.from);
        let Some(Content::Bytes(content)) = self.desk.file(&name, peer.ip()) else {
            let why = format!("{name}: no such file");
            let error = packet::error(Code::FileNotFound, &why);
            self.line(&format!("  ERROR 1 {why:?}"));
            told::hex(&error, &mut self.text);
            let name = name.into();
            self.desk.tftp_event(&tftp::Event::Refused { peer, name, why });
            return self.sends(said.from, &error);
        };
        let size = content.len() as u64;
        let terms = terms::agree(&request.options, size, PAYLOAD);
        let (transfer, step) = Transfer::begin(&terms, size, Patience::default(), now);
        self.step(
            said.from,
            Running { request, name: name.into(), content, terms, transfer },
            step,
        );
    }

    /// TFTP, the port of a transfer.
    fn goes_on(&mut self, said: &Said) {
        let packet = packet::decode(&said.payload).expect("a packet");
        match &packet {
            Packet::Ack(block) => self.line(&format!("TFTP ACK {block}")),
            Packet::Error { code, message } => {
                self.line(&format!("TFTP ERROR {code} {message:?}"));
            }
            other => panic!("{other:?} to a transfer"),
        }
        // The file was longer in the rack.
        let Some(mut running) = self.transfers.remove(&said.from) else {
            return self.line("  the transfer is over");
        };
        let step = running.transfer.receive(packet, self.began + said.at);
        self.step(said.from, running, step);
    }

    fn step(&mut self, peer: SocketAddrV4, running: Running, step: Step) {
        match step {
            Step::Wait => self.line("  no answer"),
            Step::Oack => {
                let oack = running.terms.oack.clone().expect("agreed");
                let words = String::from_utf8_lossy(&oack[2..]).replace('\0', " ");
                self.line(&format!("  OACK {}", words.trim_end()));
                told::hex(&oack, &mut self.text);
                self.sends(peer, &oack);
            }
            Step::Blocks(blocks) => self.blocks(peer, &running, blocks),
            Step::End(end) => return self.ended(peer, &running, end),
        }
        self.transfers.insert(peer, running);
    }

    fn blocks(&mut self, peer: SocketAddrV4, running: &Running, blocks: Blocks) {
        let Running { name, content, terms, .. } = running;
        let (blksize, size) = (usize::from(terms.blksize), content.len());
        let mut datagrams = Vec::new();
        let fill = |offset: u64, bodies: &mut [IoSliceMut<'_>]| {
            let mut rest = &content[offset as usize..];
            for body in bodies {
                let (now, later) = rest.split_at(body.len());
                body.copy_from_slice(now);
                rest = later;
            }
            Ok(true)
        };
        lay_out(blocks, terms.blksize, size as u64, &mut datagrams, fill).expect("in memory");
        for (datagram, block) in datagrams.chunks(blksize + 4).zip(blocks.first as usize..) {
            let from = (block - 1) * blksize;
            let body = &content[from..size.min(from + blksize)];
            let head = [0, 3, (block >> 8) as u8, block as u8];
            assert!(datagram[..4] == head && &datagram[4..] == body, "{name}: block {block}");
            if *content == site::holds(name) {
                self.line(&format!("  DATA {block}: {} bytes of {name} from {from}", body.len()));
            } else {
                self.line(&format!("  DATA {block}: {} bytes of {name}:", body.len()));
                told::lines(&String::from_utf8_lossy(body), &mut self.text);
            }
            self.sends(peer, datagram);
        }
    }

    fn ended(&mut self, peer: SocketAddrV4, running: &Running, end: End) {
        let (peer, name, bytes) =
            (SocketAddr::V4(peer), Arc::clone(&running.name), running.content.len() as u64);
        let event = match end {
            End::Done { confirmed } => {
                let (elapsed, resent) = (Duration::ZERO, running.transfer.resent());
                tftp::Event::Done { peer, name, bytes, elapsed, resent, confirmed }
            }
            End::Probed { .. } => tftp::Event::Probed { peer, name, size: bytes },
            other => panic!("{name} ends with {other:?}"),
        };
        let how = if matches!(event, tftp::Event::Done { .. }) { "all of it" } else { "its size" };
        self.line(&format!("  the transfer is over: it has {how}"));
        self.desk.tftp_event(&event);
    }

    /// A request over a connection of its own.
    async fn http(&mut self, said: &Said) {
        let head = String::from_utf8_lossy(&said.payload).into_owned();
        let (first, more) = head.split_once("\r\n").expect("a request");
        self.line(&format!("HTTP {first}"));
        told::lines(more.trim_end(), &mut self.text);
        let peer = SocketAddr::V4(said.from);
        let router = TowerToHyperService::new(routes(Arc::clone(&self.desk), 65536));
        let service = service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
            request.extensions_mut().insert(ConnectInfo(peer));
            request.extensions_mut().insert(Lane::default());
            router.call(request)
        });
        let (mut client, server) = tokio::io::duplex(1 << 20);
        client.write_all(&said.payload).await.expect("room");
        client.shutdown().await.expect("open");
        let mut connection = hyper::server::conn::http1::Builder::new();
        connection.half_close(true).auto_date_header(false);
        connection.serve_connection(TokioIo::new(server), service).await.expect("served");
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.expect("answered");
        let answer = String::from_utf8(answer).expect("text");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        for line in head.split("\r\n") {
            self.line(&format!("  {line}"));
        }
        let name = first.split(' ').nth(1).expect("a path").trim_start_matches('/');
        match body.as_bytes() == site::holds(name) {
            true => self.line(&format!("  and {} bytes of {name}", body.len())),
            false => told::lines(body, &mut self.text),
        }
    }

    /// From the port that a stranger knows as TFTP's.
    fn sends(&mut self, peer: SocketAddrV4, payload: &[u8]) {
        let from = (Mac(SERVER_MAC), SERVER, 69);
        let to = (Mac([0x52, 0x54, 0, 0x77, 0, 0]), *peer.ip(), peer.port());
        self.frames.push(Datagram { from, to, payload }.encode());
    }
}

/// Digests that a capture asks for.
fn blobs(said: &[Said]) -> Vec<String> {
    let texts = said.iter().map(|said| String::from_utf8_lossy(&said.payload).into_owned());
    let digests =
        texts.filter_map(|text| Some(text.split_once("blob/sha256/")?.1.get(..64)?.to_string()));
    digests.collect()
}

fn on_the_wire(out: &Outgoing) -> Vec<u8> {
    let all = (Mac([255; 6]), std::net::Ipv4Addr::BROADCAST, 68);
    let to = match out.destination {
        Destination::Broadcast => all,
        Destination::Frame { mac, ip } => (mac, ip, 68),
        other => panic!("{other:?} in a rack without relays"),
    };
    Datagram { from: (Mac(SERVER_MAC), out.source, 67), to, payload: &out.bytes }.encode()
}
