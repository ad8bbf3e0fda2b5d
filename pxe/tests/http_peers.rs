//! HTTP against curl, as a loader or an initramfs uses it: ranges, conditions, keep-alive, HTTP/1.0;
//! and against clients that are slow, greedy, or no clients at all.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::{ConnectInfo, Extension, Path as Route, State};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use bytes::Bytes;
use koboshi_pxe::Content;
use koboshi_pxe::http::{Counters, Lane, Limits, Reached, bind, respond, serve};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::process::Command;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

const LONG: Duration = Duration::from_secs(60);
const CHUNK: usize = 128 * 1024;
const SIZES: &[usize] = &[0, 1, 1000, CHUNK - 1, CHUNK, CHUNK + 1, 5 * CHUNK, 9_000_001];

/// A server of the files `/file/<size>` on disk and `/bytes/<size>` in memory.
struct Rig {
    address: SocketAddr,
    counters: Arc<Counters>,
    cancel: CancellationToken,
    task: tokio::task::JoinHandle<std::io::Result<()>>,
    folder: Arc<tempfile::TempDir>,
}

fn noise(length: usize) -> Vec<u8> {
    (0..length as u64)
        .map(|at| (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8 ^ at as u8)
        .collect()
}

async fn file(
    State(folder): State<Arc<tempfile::TempDir>>,
    Route((kind, size)): Route<(String, usize)>,
    Extension(lane): Extension<Lane>,
    method: Method,
    headers: HeaderMap,
) -> Response {
    let content = match kind.as_str() {
        "bytes" => Content::Bytes(Bytes::from(noise(size))),
        _ => {
            let path = folder.path().join(size.to_string());
            Content::File { path: Arc::new(path), size: size as u64 }
        }
    };
    respond(&lane, &content, "\"tag\"", "application/octet-stream", &method, &headers)
}

async fn who(ConnectInfo(peer): ConnectInfo<SocketAddr>, reached: Extension<Reached>) -> String {
    format!("{} {}", peer.ip(), reached.0.0)
}

fn rig(limits: Limits) -> Rig {
    let folder = Arc::new(tempfile::tempdir().unwrap());
    for &size in SIZES {
        let path = folder.path().join(size.to_string());
        std::fs::write(&path, noise(size)).unwrap();
        // Out of the page cache, so that the way over the disk is walked too.
        let file = std::fs::File::open(&path).unwrap();
        file.sync_all().unwrap();
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
    }
    let router = Router::new()
        .route("/{kind}/{size}", get(file).post(file))
        .route("/who", get(who))
        .route("/echo", post(|body: Bytes| async move { body.into_response() }))
        .with_state(Arc::clone(&folder));
    let listener = bind("127.0.0.1:0".parse().unwrap(), None).unwrap();
    let address = listener.local_addr().unwrap();
    let counters = Arc::new(Counters::default());
    let cancel = CancellationToken::new();
    let served = serve(listener, router, limits, Arc::clone(&counters), cancel.clone());
    Rig { address, counters, cancel, task: tokio::spawn(served), folder }
}

impl Rig {
    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    async fn stop(self) {
        self.cancel.cancel();
        timeout(LONG, self.task).await.expect("it stops").unwrap().unwrap();
    }

    /// Waits until a counter has reached a value.
    async fn counted(&self, counter: impl Fn(&Counters) -> &AtomicU64, wanted: u64) {
        let reached = timeout(LONG, async {
            while counter(&self.counters).load(Ordering::Relaxed) != wanted {
                sleep(Duration::from_millis(10)).await;
            }
        });
        reached.await.unwrap_or_else(|_| panic!("not {wanted}: {:?}", self.counters));
    }
}

async fn curl(arguments: &[&str], folder: &Path) -> (Option<i32>, Vec<u8>) {
    let mut command = Command::new("curl");
    command.arg("-sS").args(arguments).current_dir(folder).stdin(Stdio::null()).kill_on_drop(true);
    let output = timeout(LONG, command.output()).await.expect("curl ends");
    let output = output.unwrap_or_else(|error| panic!("curl: {error}; `make setup` installs it"));
    (output.status.code(), [output.stdout, output.stderr].concat())
}

/// What curl printed, as text.
async fn said(arguments: &[&str], folder: &Path) -> String {
    String::from_utf8_lossy(&curl(arguments, folder).await.1).to_lowercase()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn curl_gets_every_size_whole_and_in_parts() {
    let rig = rig(Limits::default());
    let folder = rig.folder.path();
    for kind in ["file", "bytes"] {
        for &size in SIZES {
            let (url, wanted) = (rig.url(&format!("/{kind}/{size}")), noise(size));
            let (code, got) = curl(&[&url], folder).await;
            assert!(code == Some(0) && got == wanted, "{url}: {code:?}, {} bytes", got.len());
            let (code, got) = curl(&["--http1.0", &url], folder).await;
            assert!(code == Some(0) && got == wanted, "{url}: {code:?}, {} bytes", got.len());
            for (first, last) in [(0, 0), (1, size / 2), (size / 3, size - size / 4), (0, size)] {
                if first >= size || last < first {
                    continue;
                }
                let (_, got) = curl(&["-r", &format!("{first}-{last}"), &url], folder).await;
                assert!(got == wanted[first..size.min(last + 1)], "{url} {first}-{last}");
            }
        }
    }
    rig.stop().await;
}

#[tokio::test]
async fn a_broken_download_goes_on_where_it_stopped() {
    let rig = rig(Limits::default());
    let folder = rig.folder.path();
    let wanted = noise(9_000_001);
    std::fs::write(folder.join("half"), &wanted[..4_000_000]).unwrap();
    let url = rig.url("/file/9000001");
    let (code, text) = curl(&["-C", "-", "-o", "half", &url], folder).await;
    assert_eq!(code, Some(0), "{}", String::from_utf8_lossy(&text));
    assert!(std::fs::read(folder.join("half")).unwrap() == wanted);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_file_takes_little_memory() {
    let rig = rig(Limits::default());
    let size: u64 = 256 << 20;
    let path = rig.folder.path().join(size.to_string());
    std::fs::File::create(&path).unwrap().set_len(size).unwrap();
    let peak = || {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() / 1024
    };
    let before = peak();
    let url = rig.url(&format!("/file/{size}"));
    let fast = ["-o", "/dev/null", "-w", "%{size_download}", &url];
    let slow = [&fast[..], &["--limit-rate", "200M"]].concat();
    let folder = rig.folder.path();
    let (one, two) = tokio::join!(curl(&fast, folder), curl(&slow, folder));
    for (code, said) in [one, two] {
        assert_eq!((code, said), (Some(0), size.to_string().into_bytes()));
    }
    let grown = peak() - before;
    assert!(grown < 16, "{grown} MiB more for two readers");
    rig.stop().await;
}

#[tokio::test]
async fn heads_and_headers() {
    let rig = rig(Limits::default());
    let folder = rig.folder.path();
    let url = rig.url("/file/1000");
    // What curl is told, and what the answer's head must hold; `!` what it must not.
    let table: &[(&[&str], &[&str])] = &[
        (
            &["-I"],
            &["200 ok", "content-length: 1000\r", "accept-ranges: bytes\r", "etag: \"tag\"\r"],
        ),
        (&["-I", "--http1.0"], &["200 ok", "content-length: 1000\r"]),
        (&["-i", "-r", "10-19"], &["206 ", "content-range: bytes 10-19/1000", "length: 10\r"]),
        (&["-i", "-r", "-1"], &["206 ", "content-range: bytes 999-999/1000", "length: 1\r"]),
        (&["-i", "-r", "1000-"], &["416 ", "content-range: bytes */1000", "length: 0\r"]),
        (&["-I", "-H", "Range: bytes=1-2"], &["200 ok", "content-length: 1000\r"]),
        (
            &["-i", "-H", "If-None-Match: \"tag\""],
            &["304 ", "etag: \"tag\"", "!content-length", "!content-type"],
        ),
        (&["-i", "-H", "If-Match: \"other\""], &["412 "]),
        (&["-i", "-H", "If-Range: \"tag\"", "-r", "0-0"], &["206 "]),
        (&["-I", "-H", "If-Range: \"other\"", "-X", "GET", "-r", "0-0"], &["200 "]),
        (&["-i", "-X", "POST"], &["405 ", "allow: get, head"]),
        (&["-i", "-H", "Accept-Encoding: gzip, zstd", "-r", "0-0"], &["206 ", "!encoding"]),
    ];
    for (arguments, wanted) in table {
        let said = said(&[*arguments, &[url.as_str()]].concat(), folder).await;
        for wanted in *wanted {
            let holds = match wanted.strip_prefix('!') {
                Some(unwanted) => !said.contains(unwanted),
                None => said.contains(wanted),
            };
            assert!(holds, "{arguments:?}: {wanted:?} in\n{said}");
        }
    }
    let missing = said(&["-i", &rig.url("/file/77")], folder).await;
    assert!(missing.contains("500 "), "{missing}");
    let who = said(&[&rig.url("/who")], folder).await;
    assert_eq!(who, format!("127.0.0.1 {}", rig.address));
    rig.stop().await;
}

#[tokio::test]
async fn a_connection_is_kept_and_http_1_0_is_closed() {
    let rig = rig(Limits::default());
    let folder = rig.folder.path();
    let (a, b) = (rig.url("/file/131073"), rig.url("/bytes/1"));
    let count = ["-w", "%{num_connects} ", "-o", "/dev/null", "-o", "/dev/null"];
    let said = said(&[&count[..], &[&a, &b]].concat(), folder).await;
    assert_eq!(said, "1 0 ");
    let mut old = TcpStream::connect(rig.address).await.unwrap();
    old.write_all(b"GET /bytes/1 HTTP/1.0\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    timeout(LONG, old.read_to_end(&mut answer)).await.expect("it is closed").unwrap();
    assert!(answer.starts_with(b"HTTP/1.0 200"), "{}", answer.escape_ascii());
    // One that closes its side with the request is answered all the same.
    let mut half = TcpStream::connect(rig.address).await.unwrap();
    half.write_all(b"GET /file/131073 HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    half.shutdown().await.unwrap();
    let mut answer = Vec::new();
    timeout(LONG, half.read_to_end(&mut answer)).await.expect("it is closed").unwrap();
    assert!(answer.ends_with(&noise(131_073)), "{} bytes", answer.len());
    rig.stop().await;
}

/// Sends bytes and reads the answer's first line.
async fn first_line(rig: &Rig, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(rig.address).await.unwrap();
    // It may be closed on us while we still write.
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    while !answer.contains(&b'\n') {
        match timeout(LONG, stream.read(&mut buffer)).await.expect("an answer or an end") {
            Ok(0) | Err(_) => break,
            Ok(length) => answer.extend_from_slice(&buffer[..length]),
        }
    }
    String::from_utf8_lossy(&answer).lines().next().unwrap_or_default().to_string()
}

#[tokio::test]
async fn what_is_no_request_is_answered_in_short() {
    let rig = rig(Limits::default());
    let filler = b"a".repeat(65536);
    let long = [b"GET / HTTP/1.1\r\nX: ".as_slice(), &filler, b"\r\n\r\n"].concat();
    let long_path = [b"GET /".as_slice(), &filler, b" HTTP/1.1\r\n\r\n"].concat();
    let many = [b"GET / HTTP/1.1\r\n".as_slice(), &b"A: b\r\n".repeat(500), b"\r\n"].concat();
    for (bytes, wanted) in [
        (&b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03\r\n\r\n"[..], "400"),
        (b"NONSENSE\r\n\r\n", "400"),
        (b"GET / HTTP/9.9\r\n\r\n", "400"),
        (b"GET /bytes/1 HTTP/1.1\r\nContent-Length: x\r\n\r\n", "400"),
        (b"GET /../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n", "404"),
        (b"GET /file/..%2f..%2fetc%2fpasswd HTTP/1.1\r\nHost: x\r\n\r\n", "400"),
        (&long, "431"),
        (&long_path, "431"),
        (&many, "431"),
        (b"GET /bytes/1 HTTP/1.1\r\nHost: x\r\n\r\n", "200"),
    ] {
        let line = first_line(&rig, bytes).await;
        let shown = bytes[..bytes.len().min(40)].escape_ascii();
        assert!(line.contains(wanted), "{shown}: {line:?} is not {wanted}");
    }
    rig.counted(|counters| &counters.malformed, 7).await;
    rig.stop().await;
}

#[tokio::test]
async fn a_request_that_trickles_in_is_answered_and_one_that_stops_is_closed() {
    let limits = Limits { head: Duration::from_secs(2), ..Limits::default() };
    let rig = rig(limits);
    let mut stream = TcpStream::connect(rig.address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    for byte in b"GET /bytes/3 HTTP/1.1\r\nHost: x\r\n\r\n" {
        stream.write_all(&[*byte]).await.unwrap();
        sleep(Duration::from_millis(2)).await;
    }
    let mut answer = Vec::new();
    let body = noise(3);
    while !answer.ends_with(&body) {
        let length = timeout(LONG, stream.read_buf(&mut answer)).await.expect("an answer");
        assert!(length.unwrap() > 0, "{}", answer.escape_ascii());
    }
    // Kept alive, and then idle.
    let end = timeout(LONG, stream.read(&mut [0; 10])).await.expect("it is closed");
    assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
    let mut stuck = TcpStream::connect(rig.address).await.unwrap();
    stuck.write_all(b"GET /bytes/3 HT").await.unwrap();
    let mut rest = Vec::new();
    let _ = timeout(LONG, stuck.read_to_end(&mut rest)).await.expect("it is closed");
    rig.counted(|counters| &counters.slow, 2).await;
    rig.stop().await;
}

#[tokio::test]
async fn a_body_that_does_not_come_is_not_waited_for() {
    let limits = Limits { answer: Duration::from_secs(1), ..Limits::default() };
    let rig = rig(limits);
    let line = first_line(&rig, b"POST /echo HTTP/1.1\r\nContent-Length: 10\r\n\r\nabc").await;
    assert_eq!(line, "HTTP/1.1 408 Request Timeout");
    let line = first_line(&rig, b"POST /echo HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc").await;
    assert_eq!(line, "HTTP/1.1 200 OK");
    rig.stop().await;
}

#[tokio::test]
async fn a_reader_that_stops_is_closed_and_leaves_the_others_alone() {
    let limits = Limits { stall: Duration::from_secs(1), ..Limits::default() };
    let rig = rig(limits);
    let size = 64 << 20;
    let file = std::fs::File::create(rig.folder.path().join(size.to_string())).unwrap();
    file.set_len(size).unwrap();
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut stuck = socket.connect(rig.address).await.unwrap();
    let request = format!("GET /file/{size} HTTP/1.1\r\nHost: x\r\n\r\n");
    stuck.write_all(request.as_bytes()).await.unwrap();
    assert!(first_line(&rig, b"GET /bytes/1 HTTP/1.1\r\nHost: x\r\n\r\n").await.contains("200"));
    rig.counted(|counters| &counters.slow, 1).await;
    rig.counted(|counters| &counters.open, 0).await;
    drop(stuck);
    rig.stop().await;
}

#[tokio::test]
async fn a_file_that_shrinks_ends_the_connection() {
    let rig = rig(Limits::default());
    let size = 64 << 20;
    let path = rig.folder.path().join(size.to_string());
    std::fs::File::create(&path).unwrap().set_len(size).unwrap();
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut stream = socket.connect(rig.address).await.unwrap();
    let request = format!("GET /file/{size} HTTP/1.1\r\nHost: x\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    stream.read_exact(&mut [0; 1000]).await.unwrap();
    std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(1000).unwrap();
    let mut taken = 0;
    let mut buffer = vec![0; 1 << 20];
    while let Ok(length @ 1..) = timeout(LONG, stream.read(&mut buffer)).await.expect("an end") {
        taken += length as u64;
    }
    assert!(taken < size, "{taken}");
    rig.counted(|counters| &counters.broken, 1).await;
    rig.stop().await;
}

#[tokio::test]
async fn connections_are_bounded_for_one_address_and_for_all() {
    let limits = Limits { connections: 3, per_peer: 2, ..Limits::default() };
    let rig = rig(limits);
    let from = |address: &str| {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(format!("{address}:0").parse().unwrap()).unwrap();
        socket.connect(rig.address)
    };
    let _first = from("127.0.0.2").await.unwrap();
    let second = from("127.0.0.2").await.unwrap();
    rig.counted(|counters| &counters.open, 2).await;
    let mut third = from("127.0.0.2").await.unwrap();
    let end = timeout(LONG, third.read(&mut [0; 10])).await.expect("it is closed");
    assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
    rig.counted(|counters| &counters.crowded, 1).await;
    let _other = from("127.0.0.3").await.unwrap();
    rig.counted(|counters| &counters.open, 3).await;
    // The fourth waits in the kernel's queue until one leaves.
    let mut fourth = from("127.0.0.4").await.unwrap();
    fourth.write_all(b"GET /bytes/1 HTTP/1.0\r\n\r\n").await.unwrap();
    let early = timeout(Duration::from_millis(200), fourth.read_u8()).await;
    assert!(early.is_err(), "{early:?}");
    drop(second);
    assert_eq!(timeout(LONG, fourth.read_u8()).await.expect("its turn").unwrap(), b'H');
    rig.stop().await;
}

#[tokio::test]
async fn connections_that_are_not_used_make_room() {
    let limits = Limits { connections: 8, ..Limits::default() };
    let rig = rig(limits);
    let mut idle = Vec::new();
    for _ in 0..8 {
        idle.push(TcpStream::connect(rig.address).await.unwrap());
    }
    // Half a head is no use either.
    idle[3].write_all(b"GET /bytes/1 HT").await.unwrap();
    rig.counted(|counters| &counters.open, 8).await;
    let mut asks = TcpStream::connect(rig.address).await.unwrap();
    asks.write_all(b"GET /bytes/1 HTTP/1.0\r\n\r\n").await.unwrap();
    assert_eq!(timeout(LONG, asks.read_u8()).await.expect("its turn").unwrap(), b'H');
    rig.counted(|counters| &counters.displaced, 1).await;
    rig.stop().await;
}

#[tokio::test]
async fn two_ports_count_their_connections_together() {
    let rig = rig(Limits::default());
    let listener = bind("127.0.0.1:0".parse().unwrap(), None).unwrap();
    let (other, cancel) = (listener.local_addr().unwrap(), CancellationToken::new());
    let counters = Arc::clone(&rig.counters);
    let served = serve(listener, Router::new(), Limits::default(), counters, cancel.clone());
    let served = tokio::spawn(served);
    let mut here = Vec::new();
    for (address, opened) in [(rig.address, 1), (rig.address, 2), (other, 3), (rig.address, 4)] {
        here.push(TcpStream::connect(address).await.unwrap());
        rig.counted(|counters| &counters.open, opened).await;
    }
    here.truncate(3);
    rig.counted(|counters| &counters.open, 3).await;
    // One that ends takes its own with it.
    cancel.cancel();
    timeout(LONG, served).await.expect("it stops").unwrap().unwrap();
    rig.counted(|counters| &counters.open, 2).await;
    let counters = Arc::clone(&rig.counters);
    rig.stop().await;
    assert_eq!(counters.open.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_stop_lets_an_answer_finish_and_closes_the_idle() {
    let rig = rig(Limits::default());
    let size = 5 * CHUNK;
    let mut idle = TcpStream::connect(rig.address).await.unwrap();
    let mut busy = TcpStream::connect(rig.address).await.unwrap();
    let request = format!("GET /file/{size} HTTP/1.1\r\nHost: x\r\n\r\n");
    busy.write_all(request.as_bytes()).await.unwrap();
    let mut answer = vec![busy.read_u8().await.unwrap()];
    let address = rig.address;
    let stopped = tokio::spawn(rig.stop());
    timeout(LONG, busy.read_to_end(&mut answer)).await.expect("it is closed").unwrap();
    assert!(answer.ends_with(&noise(size)), "{} bytes", answer.len());
    let end = timeout(LONG, idle.read(&mut [0; 10])).await.expect("it is closed");
    assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
    stopped.await.unwrap();
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn an_unknown_address_is_a_404() {
    let rig = rig(Limits::default());
    let line = first_line(&rig, b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(line.contains(StatusCode::NOT_FOUND.as_str()), "{line}");
    rig.stop().await;
}
