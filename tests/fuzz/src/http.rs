//! A connection: whatever is sent on it, the appliance answers or closes, never by an error of its own (5xx),
//! and never with more than it was asked for. `@BOOT@` stands for the id of the boot that is open.

#![no_main]

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::ConnectInfo;
use bytes::Bytes;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use koboshi_initramfs::contract::REPORT_MAX;
use koboshi_pxe::boots::{Part, Plan};
use koboshi_pxe::decide::{
    Arch, Asks, Client, Entry, Exclusive, Facts, Known, Place, Seat, Unknown,
};
use koboshi_pxe::desk::{Desk, Freeze, Kind, Network, News, Offer, Reach, Snapshot};
use koboshi_pxe::dhcp::Subnet;
use koboshi_pxe::http::{Lane, Reached, routes};
use koboshi_pxe::menu::Offered;
use koboshi_pxe::script::Uart;
use koboshi_pxe::{BootId, Content, Mac};
use libfuzzer_sys::fuzz_target;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc::Receiver;

const MAC: Mac = Mac([0x52, 0x54, 0x00, 0x77, 0x00, 0x01]);
const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 11);
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
/// What a request may be answered with at most: a loader, and some words.
const LOADER: &[u8] = &[0x5a; 3000];
const ANSWER_MAX: usize = 8192;

struct Plans;

impl Freeze for Plans {
    fn freeze(
        &self,
        _: Mac,
        _: &Entry,
        id: BootId,
        address: Ipv4Addr,
        _: &Subnet,
    ) -> Result<Plan, String> {
        let part = |name: &str, byte| Part { name: name.into(), sha256: [byte; 32], size: 4 };
        Ok(Plan {
            machine: "m01".into(),
            seat: Some("web1".into()),
            role: "web".into(),
            hostname: "web1".into(),
            address,
            image: "web@1".into(),
            digest: None,
            because: None,
            kernel: part("kernel", 0x11),
            efi: None,
            segments: vec![part("common", 0x22)],
            roots: vec![part("root", 0x33)],
            cmdline: format!("koboshi.boot={id} koboshi.role=web"),
            revision: 1,
            ticket: None,
            orders: String::new(),
            blobs: [0x11, 0x22, 0x33]
                .map(|byte| ([byte; 32], Content::Bytes(Bytes::from_static(b"part"))))
                .into(),
        })
    }

    fn uart(&self, _: &Entry) -> Option<Uart> {
        Uart::of(0, 115_200)
    }

    fn image(&self, _: &str, _: &str) -> Option<String> {
        Some("web@1".to_string())
    }
}

/// A desk where one machine has just been given its address, and whoever writes down what it is told.
fn desk() -> (Arc<Desk>, Receiver<News>) {
    let mut subnet = Subnet::new(SERVER, Ipv4Addr::new(10, 77, 0, 0), 24);
    subnet.pool = Some(Ipv4Addr::new(10, 77, 0, 200)..=Ipv4Addr::new(10, 77, 0, 210));
    let subnet = Arc::new(subnet);
    let reach = Reach::Wire { interface: "eth1".into() };
    let seat = Seat {
        name: "web1".into(),
        role: "web".into(),
        address: Some(ADDRESS),
        trouble: None,
        exclusive: Exclusive::Fence,
    };
    let known =
        Known { name: "m01".into(), macs: vec![MAC], place: Place::Seat(seat), loader: None };
    let offered = Arc::new(vec![Offered { role: "db".into(), trouble: None }]);
    let loader = Content::Bytes(Bytes::from_static(LOADER));
    let snapshot = Snapshot {
        revision: 1,
        networks: vec![Network { subnet: Arc::clone(&subnet), reach, kind: Kind::Boot }],
        seats: [ADDRESS].into(),
        bmcs: HashMap::new(),
        proxy: false,
        http_port: 80,
        machines: [(MAC, Arc::new(known))].into(),
        unknown: Arc::new(Unknown::Menu(Arc::clone(&offered))),
        menu: Some(offered),
        loaders: [("undionly.kpxe".to_string(), loader)].into(),
        blobs: [([0x44; 32], Content::Bytes(Bytes::from_static(b"blob")))].into(),
        freeze: Arc::new(Plans),
    };
    let (news, heard) = tokio::sync::mpsc::channel(1024);
    let desk = Desk::new(snapshot, news);
    let asks = |discover| Facts {
        mac: MAC,
        asks: Asks::Dhcp { client: Client::Ipxe, archs: vec![Arch::BIOS], discover },
    };
    let offer = Offer { address: ADDRESS, subnet, via: None, lender: None };
    desk.offered(&asks(true), &offer);
    desk.acked(&asks(false), &offer, None);
    (Arc::new(desk), heard)
}

fuzz_target!(|bytes: &[u8]| {
    let (desk, mut heard) = desk();
    let id = desk.boot_of(MAC).expect("its boot is open").id.to_string();
    let sent = swapped(bytes, b"@BOOT@", id.as_bytes());
    let router = routes(desk, REPORT_MAX)
        .layer(Extension(ConnectInfo(SocketAddr::new(IpAddr::V4(ADDRESS), 4711))))
        .layer(Extension(Reached(SocketAddr::new(IpAddr::V4(SERVER), 80))))
        .layer(Extension(Lane::default()));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    let answer = runtime.block_on(async move {
        let (ours, mut theirs) = tokio::io::duplex(64 << 10);
        let served = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(Duration::from_secs(30))
            .max_buf_size(16 * 1024)
            .serve_connection(TokioIo::new(ours), TowerToHyperService::new(router));
        let client = async {
            let (mut answers, mut asks) = tokio::io::split(&mut theirs);
            let ask = async {
                // Closed on us: the answer says why.
                let _ = asks.write_all(&sent).await;
                let _ = asks.shutdown().await;
            };
            let mut answer = Vec::new();
            let hear = answers.read_to_end(&mut answer);
            let _ = tokio::join!(ask, hear);
            answer
        };
        let both = async { tokio::join!(served, client).1 };
        // Whoever writes things down has done it at once.
        let written = tokio::spawn(async move {
            while let Some(news) = heard.recv().await {
                if let News::Report { kept, .. } = news {
                    let _ = kept.send(());
                }
            }
        });
        let answer = tokio::time::timeout(Duration::from_secs(3600), both).await.expect("it ends");
        written.abort();
        answer
    });
    // Each request has a line's end at least.
    let asked = 1 + bytes.iter().filter(|byte| **byte == b'\n').count();
    assert!(answer.len() <= asked * ANSWER_MAX, "{} for {asked}", answer.len());
    let is_ours = |at: usize| answer[at..].starts_with(b"HTTP/1.");
    let lines = (0..answer.len()).filter(|at| *at == 0 || answer[at - 1] == b'\n');
    for at in lines.filter(|at| is_ours(*at)) {
        assert_ne!(answer.get(at + 9), Some(&b'5'), "{}", String::from_utf8_lossy(&answer));
    }
});

/// The same with one word in another's place.
fn swapped(bytes: &[u8], word: &[u8], by: &[u8]) -> Vec<u8> {
    let (mut swapped, mut rest) = (Vec::with_capacity(bytes.len()), bytes);
    while let Some((first, others)) = rest.split_first() {
        if let Some(behind) = rest.strip_prefix(word) {
            swapped.extend_from_slice(by);
            rest = behind;
        } else {
            swapped.push(*first);
            rest = others;
        }
    }
    swapped
}
