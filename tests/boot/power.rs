//! A machine whose every button is pressed by its BMC, and whose serial line is read over Serial over LAN alone: by
//! everybody who looks at its console, whichever way he came.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::stream::SplitSink;
use futures::{SinkExt, StreamExt};
use koboshi::lab::bmc::{Account, Bmcs};
use koboshi::lab::machine::Power;
use koboshi::lab::qemu::Spec;
use koboshi_console::attach::{Notice, Request, Want};
use koboshi_ipmi::commands::{boot, chassis};
use koboshi_ipmi::{Access, Bmc, Password};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::process::Child;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use super::{MINUTES, spec};
use crate::world::{KOBOSHI, World, in_world};

const SITE: &str = r#"
[site]
name = "rack"

[net]
interface = "kb0"
cidr = "10.77.0.0/24"
pool = "10.77.0.200-10.77.0.220"

[console]
authorized-keys = "keys"

[roles.metal]
image = "metal"

[defaults.bmc]
user = "admin"
password-file = "bmc.pw"

[machines]
m01 = { mac = ["52:54:00:77:00:01"], bmc = "10.78.0.11", console = "sol" }

[seats]
tool1 = { role = "metal", ip = "10.77.0.21" }

[matrix]
m01 = "tool1"
"#;

const PASSWORD: &str = "open-sesame-42";

fn account() -> Account {
    Account {
        machine: "m01".into(),
        listen: SocketAddr::from(([10, 78, 0, 11], 623)),
        mac: None,
        user: "admin".into(),
        password: Password::new(PASSWORD).expect("it is short"),
        kg: None,
        suite: None,
    }
}

/// Somebody at the console, by the protocol that browsers and programs speak: all that came, in order.
struct Read {
    bytes: Arc<Mutex<Vec<u8>>>,
    people: Arc<Mutex<Vec<String>>>,
    to: SplitSink<WebSocketStream<Box<dyn Stream>>, Message>,
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

impl Read {
    async fn of(stream: Box<dyn Stream>, url: &str, protocols: Option<String>) -> Read {
        let mut request = url.into_client_request().expect("an address");
        if let Some(protocols) = protocols {
            let protocols = protocols.parse().expect("a header");
            request.headers_mut().insert("sec-websocket-protocol", protocols);
        }
        let come = tokio_tungstenite::client_async(request, stream).await;
        let (socket, _) = come.unwrap_or_else(|error| panic!("{url}: {error}"));
        let (to, mut from) = socket.split();
        let bytes: Arc<Mutex<Vec<u8>>> = Arc::default();
        let people: Arc<Mutex<Vec<String>>> = Arc::default();
        let (kept, here) = (Arc::clone(&bytes), Arc::clone(&people));
        tokio::spawn(async move {
            while let Some(Ok(message)) = from.next().await {
                match message {
                    Message::Binary(more) => locked(&kept).extend_from_slice(&more),
                    // Whatever is missing is missed by the comparison.
                    Message::Text(text) => match serde_json::from_str(&text) {
                        Ok(Notice::People { people, .. }) => {
                            *locked(&here) = people.into_iter().map(|one| one.via).collect();
                        }
                        Ok(_) => eprintln!("after {} bytes: {text}", locked(&kept).len()),
                        Err(error) => panic!("{text}: {error}"),
                    },
                    _ => {}
                }
            }
        });
        Read { bytes, people, to }
    }

    /// On the API's socket.
    async fn by_socket(world: &World) -> Read {
        let socket = UnixStream::connect(world.state.join("koboshi.sock")).await;
        let socket = Box::new(socket.expect("the socket"));
        Read::of(socket, "ws://koboshi/api/v1/console/attach?who=m01&last=0", None).await
    }

    /// On the admin network, as a browser does: with a ticket that is good once.
    async fn by_browser(world: &World) -> Read {
        let url = world.ok(&["console", "m01", "--url", "--watch"]);
        let (place, ticket) = url.trim().rsplit_once('#').expect("an address with a ticket");
        let host = place.trim_start_matches("http://").split('/').next().expect("a host");
        let stream = TcpStream::connect(host).await.expect("it listens");
        let url = format!("ws://{host}/console/m01/attach?last=0");
        Read::of(Box::new(stream), &url, Some(format!("koboshi, ticket.{ticket}"))).await
    }

    fn bytes(&self) -> Vec<u8> {
        locked(&self.bytes).clone()
    }

    async fn type_in(&mut self, text: &str) {
        self.to.send(Message::Binary(text.to_string().into())).await.expect("it is open");
    }

    async fn want(&mut self, want: Want) {
        let text = serde_json::to_string(&Request { n: None, want }).expect("JSON");
        self.to.send(Message::Text(text.into())).await.expect("it is open");
    }

    /// Waits until so many are at the console.
    async fn company(&mut self, many: usize) {
        let begun = Instant::now();
        while locked(&self.people).len() < many {
            self.want(Want::Who).await;
            tokio::time::sleep(Duration::from_millis(200)).await;
            assert!(begun.elapsed() < MINUTES, "only {:?} are here", locked(&self.people));
        }
    }

    /// Waits for a text behind the first `from` bytes; where it ends.
    async fn expect(&self, text: &str, from: usize) -> usize {
        let begun = Instant::now();
        loop {
            let read = self.bytes();
            let rest = read.get(from..).unwrap_or_default();
            if let Some(at) = rest.windows(text.len()).position(|part| part == text.as_bytes()) {
                return from + at + text.len();
            }
            let tail = &rest[rest.len().saturating_sub(2000)..];
            assert!(begun.elapsed() < MINUTES, "{text:?}: {}", String::from_utf8_lossy(tail));
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A program that shows the console, and the file in which all of that is.
struct Shown {
    file: PathBuf,
    _program: Child,
}

impl Shown {
    async fn of(world: &World, name: &str, program: &str, words: &[&str]) -> Shown {
        let file = world.state.join(format!("{name}.seen"));
        let mut command = world.rack.command(program);
        command.args(words).stdin(Stdio::null()).stdout(File::create(&file).expect("a file"));
        let _program = world.rack.spawn(command).await.expect("it starts");
        Shown { file, _program }
    }

    async fn by_cli(world: &World) -> Shown {
        let state = world.state.to_str().expect("UTF-8");
        let words = ["console", "m01", "--watch", "--state", state];
        Shown::of(world, "cli", KOBOSHI, &words).await
    }

    async fn by_ssh(world: &World) -> Shown {
        let dir = world.site.parent().expect("a folder");
        let path = |name: &str| dir.join(name).to_str().expect("UTF-8").to_string();
        let (key, known) = (path("key"), format!("UserKnownHostsFile={}", path("known")));
        let words = [
            "-T",
            "-F",
            "none",
            "-i",
            &key,
            "-o",
            "BatchMode=yes",
            "-o",
            "LogLevel=ERROR",
            "-o",
            "StrictHostKeyChecking=no",
            "-o",
            &known,
            "-p",
            "2222",
            "m01@127.0.0.1",
            "watch",
            "last",
            "0",
        ];
        Shown::of(world, "ssh", "ssh", &words).await
    }

    fn bytes(&self) -> Vec<u8> {
        std::fs::read(&self.file).expect("a file")
    }
}

/// A key for SSH, and the file that lets its holder look.
fn keys(dir: &Path) {
    let key = dir.join("key");
    let made = std::process::Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-C", "alice", "-f"])
        .arg(&key)
        .status();
    assert!(made.expect("ssh-keygen runs").success());
    let public = std::fs::read_to_string(key.with_extension("pub")).expect("a public key");
    std::fs::write(dir.join("keys"), format!("watch=\"m01\" {public}")).expect("written");
}

/// What came out of QEMU's serial port, over all the times it was started: as the rack's own console took it from
/// QEMU's socket, and as QEMU itself wrote it down.
fn emitted(world: &World) -> (Vec<u8>, Vec<u8>) {
    let read = |name| std::fs::read(world.rack.dir().join(name)).expect("a log");
    (read("m01.console"), read("m01.serial"))
}

/// QEMU's log without its repetitions: a character that its socket had no room for at first is written down
/// when it is tried and again when it is sent.
fn once(log: &[u8], sent: &[u8]) -> Vec<u8> {
    let mut out: Vec<u8> = Vec::with_capacity(log.len());
    for byte in log {
        if out.last() != Some(byte) || sent.get(out.len()) == Some(byte) {
            out.push(*byte);
        }
    }
    out
}

fn same(read: &[u8], emitted: &[u8]) {
    let agree = read.iter().zip(emitted).take_while(|(read, emitted)| read == emitted).count();
    let around = |bytes: &[u8]| {
        let from = agree.saturating_sub(100).min(bytes.len());
        String::from_utf8_lossy(&bytes[from..bytes.len().min(agree + 200)]).into_owned()
    };
    assert!(
        read == emitted,
        "{} bytes of {}, the same up to {agree}: {:?} for {:?}",
        read.len(),
        emitted.len(),
        around(read),
        around(emitted)
    );
}

/// Switched on, netbooted, reset, booted from disk and switched off by IPMI alone (S28). Three viewers (SSH, the
/// browser's protocol, the command line) read on its console what QEMU's serial port emitted, from the first byte to
/// the last, while an operator gives root a password, logs in and runs a command.
#[test]
fn a_machine_lives_by_its_bmc() {
    let system = Some(account().system_interface());
    in_world(SITE, vec![Spec { bmc: system, ..spec("m01") }], async |world| {
        let mut world = world.with_images();
        let dir = world.site.parent().unwrap_or(Path::new("/")).to_path_buf();
        std::fs::write(dir.join("bmc.pw"), PASSWORD).expect("written");
        keys(&dir);
        let _bmcs = Bmcs::plug_in(&world.rack, vec![account()]).expect("a BMC");
        world.serve().await;
        let password = Password::new(PASSWORD).expect("it is short");
        let bmc = Bmc::new(Access::new("10.78.0.11", "admin", password));
        let begun = Instant::now();
        while world.json(&["console"])[0]["state"] != "up" {
            assert!(begun.elapsed() < MINUTES, "{}", world.ok(&["console"]));
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let mut read = Read::by_socket(&world).await;
        let browser = Read::by_browser(&world).await;
        let (cli, ssh) = (Shown::by_cli(&world).await, Shown::by_ssh(&world).await);
        // Who looks by the command line is no visitor, and begins with what there was.
        read.company(3).await;
        assert_eq!(world.machine("m01").status().await, Power::Off);

        world.ok(&["power", "m01", "on"]);
        assert!(matches!(world.machine("m01").status().await, Power::On(_)));
        assert!(chassis::status(&bmc).await.expect("it answers").power);
        let booted = world.up("m01", "tool1").await;
        let prompt = read.expect("# ", read.expect("Linux version", 0).await).await;

        // The guest's kernel talks to the same BMC, by the host's own interface.
        let told = world.json(&["explain", "m01"]);
        assert_eq!(told["hardware"]["bmc"]["address"], "10.78.0.11", "{told:#}");
        assert_eq!(told["hardware"]["bmc"]["mac"], "52:54:00:78:00:01", "{told:#}");

        // The operator makes a login of the rescue system's shell, logs in, and is heard.
        read.want(Want::Ask).await;
        read.type_in("echo root:open-sesame | chpasswd; exec getty 0 ttyS0 vt100\r").await;
        let login = read.expect("tool1 login: ", prompt).await;
        read.type_in("root\r").await;
        let password = read.expect("Password: ", login).await;
        read.type_in("open-sesame\r").await;
        let inside = read.expect("# ", password).await;
        read.type_in("echo typed over $((600+23))\r").await;
        let typed = read.expect("typed over 623", inside).await;

        // A BREAK arrives, and the kernel takes the key after it for SysRq.
        read.want(Want::Sysrq { key: 'h' }).await;
        let helped = read.expect("sysrq: HELP", typed).await;

        world.ok(&["power", "m01", "reset"]);
        let again = read.expect("Linux version", helped).await;
        read.expect("# ", again).await;
        let second = world.up("m01", "tool1").await;
        assert_ne!(second["id"], booted["id"], "{second:#}");

        world.ok(&["power", "m01", "off"]);
        assert_eq!(world.machine("m01").status().await, Power::Off);

        // For one start the firmware goes to the disk, which is blank.
        world.ok(&["bootdev", "m01", "disk"]);
        let off = read.bytes().len();
        world.ok(&["power", "m01", "on"]);
        read.expect("Booting from Hard Disk", off).await;
        assert!(!boot::get(&bmc).await.expect("flags").is_override(), "it is used up");
        world.ok(&["power", "m01", "off"]);
        assert!(!chassis::status(&bmc).await.expect("it answers").power);
        let said = world.ok(&["power", "m01", "status"]);
        assert!(said.contains("m01") && said.contains("off"), "{said}");

        let (port, log) = emitted(&world);
        same(&once(&log, &port), &port);
        assert!(port.len() > 20_000, "two boots are more than {} bytes", port.len());
        let begun = Instant::now();
        for viewer in [&|| read.bytes(), &|| browser.bytes(), &|| cli.bytes(), &|| ssh.bytes()]
            as [&dyn Fn() -> Vec<u8>; 4]
        {
            while viewer().len() < port.len() && begun.elapsed() < Duration::from_secs(30) {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            same(&viewer(), &port);
        }
        bmc.close().await;
    });
}
