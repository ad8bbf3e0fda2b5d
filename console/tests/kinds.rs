//! Every kind of line in one test: each is read, typed at, told to say BREAK, broken off and found again, with its
//! state, its age and the gap told. The other ends are others' programs where there are any: `ser2net` (telnet with
//! RFC 2217, its serial port a pseudo-terminal), OpenIPMI's `ipmi_sim`, `nc` in a pseudo-terminal.

#[path = "../../ipmi/tests/peers/mod.rs"]
mod peers;

use std::fs::File;
use std::net::{SocketAddr, SocketAddrV4};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use koboshi_bmcsim::config::Serial;
use koboshi_bmcsim::{Config, Sim};
use koboshi_console::wire::serial::{self, Host};
use koboshi_console::{
    Cannot, Kind, Line, Mark, NotOpen, NotTyped, Operation, Person, State, Viewer, What, Wire,
};
use koboshi_ipmi::sol::{self, Options, Takeover};
use koboshi_ipmi::{Access, Bmc, Password};
use nix::sys::termios::{BaudRate, SetArg, cfgetospeed, cfmakeraw, tcgetattr, tcsetattr};
use rustix::pty::OpenptFlags;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::process::Child;

use peers::ipmi_sim::IpmiSim;
use peers::{PASSWORD, Place, USER, somewhere, tool};

/// Far beyond what anything here takes.
const CEILING: Duration = Duration::from_secs(60);

/// The other end of a line.
trait Far {
    /// It says this.
    async fn say(&mut self, words: &[u8]);
    /// It hears this, and nothing before it.
    async fn hear(&mut self, words: &[u8]);
    /// The line breaks off.
    async fn cut(&mut self);
    /// It is whole again, as far as that is the other end's.
    async fn mend(&mut self);
}

fn somebody() -> Person {
    Person { name: "eva".to_string(), via: "cli".to_string() }
}

fn clock() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(since.as_millis()).unwrap()
}

async fn until(name: &str, line: &Line, is: impl Fn(&State) -> bool) -> State {
    let mut status = line.follow_status();
    let waited = tokio::time::timeout(CEILING, status.wait_for(|status| is(&status.state))).await;
    waited.unwrap_or_else(|_| panic!("{name}: {:?}", line.status())).unwrap().state.clone()
}

/// Reads until these words; the marks that came before.
async fn read(name: &str, viewer: &mut Viewer, words: &[u8]) -> Vec<Mark> {
    let (mut text, mut marks) = (Vec::new(), Vec::new());
    while !text.windows(words.len()).any(|part| part == words) {
        let next = tokio::time::timeout(CEILING, viewer.next()).await;
        match next.unwrap_or_else(|_| panic!("{name}: {text:?} {marks:?}")).unwrap().what {
            What::Text(more) => text.extend_from_slice(&more),
            What::Mark(mark) => marks.push(mark),
        }
    }
    marks
}

async fn judge(name: &str, line: Line, mut far: impl Far, breaks: bool) {
    far.mend().await;
    until(name, &line, |state| matches!(state, State::Up { .. })).await;
    let mut viewer = line.view(100);
    far.say(format!("words of {name}\r\n").as_bytes()).await;
    read(name, &mut viewer, format!("words of {name}\r\n").as_bytes()).await;
    let operator = line.take(somebody());
    operator.send(format!("typed at {name}").as_bytes()).await.unwrap();
    far.hear(format!("typed at {name}").as_bytes()).await;
    match operator.operate(Operation::Break).await {
        Ok(()) => assert!(breaks, "{name}"),
        Err(NotTyped::Cannot(Cannot::Unable(why))) => {
            assert!(!breaks && why.contains("no BREAK"), "{name}: {why}");
        }
        Err(other) => panic!("{name}: {other}"),
    }
    operator.send(b"and on").await.unwrap();
    far.hear(b"and on").await;

    let (begun, before) = (Instant::now(), clock());
    far.cut().await;
    let gone = |state: &State| matches!(state, State::Down { .. } | State::Stolen { .. });
    let (State::Down { since, .. } | State::Stolen { since, .. }) = until(name, &line, gone).await
    else {
        unreachable!()
    };
    assert!((before..=clock()).contains(&since), "{name}: {since}");
    // One that is taken comes back by itself; any other tells at once that nothing is typed.
    if matches!(line.status().state, State::Down { .. }) {
        while operator.send(b"nowhere").await != Err(NotTyped::Cannot(Cannot::Down)) {
            assert!(begun.elapsed() < CEILING, "{name}: {:?}", line.status());
            tokio::task::yield_now().await;
        }
    }
    far.mend().await;
    until(name, &line, |state| matches!(state, State::Up { since: up } if *up >= since)).await;
    far.say(b"here again\r\n").await;
    let marks = read(name, &mut viewer, b"here again").await;
    let lost =
        marks.iter().position(|mark| matches!(mark, Mark::Down { .. } | Mark::Stolen { .. }));
    let back = marks.iter().rposition(|mark| match mark {
        // By the wall clock, which may be set meanwhile.
        Mark::Reconnected { after } => u128::from(*after) <= begun.elapsed().as_millis() + 1000,
        _ => false,
    });
    assert!(lost.is_some() && lost < back, "{name}: {marks:?}");
    line.close().await;
}

fn by(kind: Kind) -> Line {
    Line::start(move || {
        let kind = kind.clone();
        async move { kind.open().await }
    })
}

/// Of a stream that a listener here accepts: a TCP port, a Unix socket, what is behind a command.
struct Socket<S> {
    at: At,
    stream: Option<S>,
}

enum At {
    Tcp(SocketAddrV4),
    Unix(PathBuf),
}

async fn hear(stream: &mut (impl AsyncRead + Unpin), words: &[u8]) {
    let mut heard = vec![0; words.len()];
    tokio::time::timeout(CEILING, stream.read_exact(&mut heard)).await.unwrap().unwrap();
    assert_eq!(heard, words);
}

trait Accepts: AsyncRead + AsyncWrite + Unpin + Sized {
    async fn accept(at: &At) -> Self;
}

impl Accepts for TcpStream {
    async fn accept(at: &At) -> TcpStream {
        let At::Tcp(at) = at else { unreachable!() };
        TcpListener::bind(at).await.unwrap().accept().await.unwrap().0
    }
}

impl Accepts for UnixStream {
    async fn accept(at: &At) -> UnixStream {
        let At::Unix(at) = at else { unreachable!() };
        let _it_is_not_there = std::fs::remove_file(at);
        UnixListener::bind(at).unwrap().accept().await.unwrap().0
    }
}

impl<S: Accepts> Far for Socket<S> {
    async fn say(&mut self, words: &[u8]) {
        self.stream.as_mut().unwrap().write_all(words).await.unwrap();
    }

    async fn hear(&mut self, words: &[u8]) {
        hear(self.stream.as_mut().unwrap(), words).await;
    }

    async fn cut(&mut self) {
        self.stream = None;
    }

    async fn mend(&mut self) {
        self.stream = Some(S::accept(&self.at).await);
    }
}

/// A pseudo-terminal's far end, and the name of the near one. No child has them: it would not hang up.
fn pty() -> (tokio::fs::File, PathBuf) {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let far = rustix::pty::openpt(flags).unwrap();
    rustix::pty::grantpt(&far).unwrap();
    rustix::pty::unlockpt(&far).unwrap();
    let name = rustix::pty::ptsname(&far, Vec::new()).unwrap();
    (tokio::fs::File::from_std(File::from(far)), PathBuf::from(name.to_str().unwrap()))
}

/// A serial port, which is pulled and plugged in again under another name.
struct Port {
    name: PathBuf,
    far: Option<tokio::fs::File>,
}

impl Far for Port {
    async fn say(&mut self, words: &[u8]) {
        let far = self.far.as_mut().unwrap();
        far.write_all(words).await.unwrap();
        far.flush().await.unwrap();
    }

    async fn hear(&mut self, words: &[u8]) {
        hear(self.far.as_mut().unwrap(), words).await;
    }

    async fn cut(&mut self) {
        std::fs::remove_file(&self.name).unwrap();
        self.far = None;
    }

    async fn mend(&mut self) {
        let (far, name) = pty();
        symlink(name, &self.name).unwrap();
        self.far = Some(far);
    }
}

/// `ser2net`, and the port behind it.
struct Server {
    place: Place,
    at: SocketAddrV4,
    far: tokio::fs::File,
    near: File,
    name: PathBuf,
    child: Option<Child>,
}

impl Server {
    fn new(at: SocketAddrV4) -> Server {
        let (far, name) = pty();
        let near = File::options().read(true).write(true).open(&name).unwrap();
        let mut raw = tcgetattr(&near).unwrap();
        cfmakeraw(&mut raw);
        tcsetattr(&near, SetArg::TCSANOW, &raw).unwrap();
        Server { place: Place::new(), at, far, near, name, child: None }
    }
}

impl Far for Server {
    async fn say(&mut self, words: &[u8]) {
        self.far.write_all(words).await.unwrap();
        self.far.flush().await.unwrap();
    }

    async fn hear(&mut self, words: &[u8]) {
        hear(&mut self.far, words).await;
        // It was set from here.
        let set = tcgetattr(&self.near).unwrap();
        assert_eq!(cfgetospeed(&set), BaudRate::B19200, "{:?}", self.name);
    }

    async fn cut(&mut self) {
        self.child.take().unwrap().kill().await.unwrap();
    }

    async fn mend(&mut self) {
        let (host, port, name) = (self.at.ip(), self.at.port(), self.name.display());
        let settings = format!(
            "connection: &line\n  accepter: telnet(rfc2217),tcp,{host},{port}\n  \
             connector: serialdev,{name},9600n81,local\n"
        );
        let settings = self.place.write("ser2net.yaml", settings);
        let mut command = tool::bound("ser2net");
        command.args(["-n", "-u", "-c"]).arg(settings);
        self.child = Some(command.spawn().unwrap());
        // It is refused until it listens, which the line bears.
    }
}

/// A BMC, whose Serial over LAN somebody takes.
struct Sol<F> {
    at: SocketAddr,
    host: F,
    whole: bool,
    thief: Option<sol::Console>,
}

fn access(at: SocketAddr) -> Access {
    let mut access = Access::new(at.ip().to_string(), USER, Password::new(PASSWORD).unwrap());
    access.port = at.port();
    access
}

fn by_sol(at: SocketAddr) -> Line {
    Line::start(move || async move {
        let sol = Bmc::new(access(at)).sol(Options::default()).await;
        sol.map(Wire::from).map_err(NotOpen::Bmc)
    })
}

impl<F: Far> Far for Sol<F> {
    async fn say(&mut self, words: &[u8]) {
        self.host.say(words).await;
    }

    async fn hear(&mut self, words: &[u8]) {
        self.host.hear(words).await;
    }

    async fn cut(&mut self) {
        let options = Options { takeover: Takeover::Always, ..Options::default() };
        self.thief = Some(Bmc::new(access(self.at)).sol(options).await.unwrap());
    }

    async fn mend(&mut self) {
        match self.thief.take() {
            Some(thief) => thief.close().await,
            None if self.whole => {}
            None => self.host.mend().await,
        }
    }
}

/// The machine at `ipmi_sim`.
struct Machine {
    sim: Arc<IpmiSim>,
    heard: usize,
}

impl Far for Machine {
    async fn say(&mut self, words: &[u8]) {
        self.sim.line().say(words);
    }

    async fn hear(&mut self, words: &[u8]) {
        let from = self.heard;
        self.heard += words.len();
        assert_eq!(self.sim.line().hear(self.heard).await[from..self.heard], *words);
    }

    async fn cut(&mut self) {}

    async fn mend(&mut self) {}
}

fn by_serial(name: &Path, locks: &Path) -> Line {
    let host = Arc::new(Host { locks: locks.to_path_buf(), ..Host::default() });
    let port = Arc::new(format!("{}@115200", name.display()).parse::<serial::Port>().unwrap());
    Line::start(move || {
        let (host, port) = (host.clone(), port.clone());
        async move { serial::open(&host, &port).await }
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_line_is_read_typed_at_broken_off_and_found_again() {
    let place = Place::new();
    let (tcp, command, telnet, bmc) = (somewhere(), somewhere(), somewhere(), somewhere());
    let (unix, tty) = (place.path("line.sock"), place.path("ttyUSB0"));
    let at = |at: SocketAddrV4| (at.ip().to_string(), at.port());
    let (host, port) = at(tcp);
    let by_tcp = by(Kind::Tcp { host, port });
    let by_unix = by(Kind::Unix(unix.clone()));
    let (host, port) = at(telnet);
    let settings = Some("19200,8n1".parse().unwrap());
    let by_telnet = by(Kind::Telnet { host, port, settings });
    let (host, port) = at(command);
    let by_exec = by(Kind::Exec(format!("stty raw -echo; exec busybox nc {host} {port}")));
    let by_port = by_serial(&tty, place.dir());

    let serial = Serial::Tcp(SocketAddr::V4(bmc));
    let password = Password::new(PASSWORD).unwrap();
    let sim = Sim::start(Config { serial, ..Config::with_admin(USER, password) }).unwrap();
    let sims = IpmiSim::start().await;
    let (ours, theirs) = (sim.addr(), SocketAddr::V4(sims.at()));

    let machine = Machine { sim: Arc::new(sims), heard: 0 };
    tokio::join!(
        judge("tcp", by_tcp, Socket::<TcpStream> { at: At::Tcp(tcp), stream: None }, false),
        judge("unix", by_unix, Socket::<UnixStream> { at: At::Unix(unix), stream: None }, false),
        judge("exec", by_exec, Socket::<TcpStream> { at: At::Tcp(command), stream: None }, false),
        judge("telnet", by_telnet, Server::new(telnet), true),
        judge("serial", by_port, Port { name: tty, far: None }, true),
        async {
            let host: Socket<TcpStream> = Socket { at: At::Tcp(bmc), stream: None };
            let far = Sol { at: ours, host, whole: false, thief: None };
            judge("bmcsim", by_sol(ours), far, true).await;
        },
        judge(
            "ipmi_sim",
            by_sol(theirs),
            Sol { at: theirs, host: machine, whole: true, thief: None },
            true
        ),
    );
    drop(sim);
}
