//! Serial ports, with pseudo-terminals for ports: what the kernel says they are set to, marks, being pulled and put
//! back, and whoever else has them.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Arc;
use std::time::{Duration, Instant};

use koboshi_console::wire::serial::{Host, Port, open};
use koboshi_console::wire::{Event, NotOpen, Operation, Wire};
use koboshi_console::{Line, Mark, Person, State, What};
use rustix::pty::OpenptFlags;

/// Far beyond what anything here takes.
const CEILING: Duration = Duration::from_secs(30);

/// A port, its other end, and a host with locks of its own.
struct Bench {
    folder: tempfile::TempDir,
    host: Arc<Host>,
    far: File,
    device: PathBuf,
}

impl Bench {
    fn new() -> Bench {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("locks")).unwrap();
        let host = Host { locks: folder.path().join("locks"), ..Host::default() };
        let (far, device) = pty();
        Bench { folder, host: Arc::new(host), far, device }
    }

    fn port(&self, set: &str) -> Port {
        format!("{}@{set}", self.device.display()).parse().unwrap()
    }

    async fn open(&self, set: &str) -> Result<Wire, NotOpen> {
        open(&self.host, &self.port(set)).await
    }
}

/// The far end, and the name of the near one.
fn pty() -> (File, PathBuf) {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let far = rustix::pty::openpt(flags).unwrap();
    rustix::pty::grantpt(&far).unwrap();
    rustix::pty::unlockpt(&far).unwrap();
    let name = rustix::pty::ptsname(&far, Vec::new()).unwrap();
    (File::from(far), PathBuf::from(name.to_str().unwrap()))
}

fn stty(device: &Path, words: &[&str]) -> String {
    let out = Command::new("stty").arg("-F").arg(device).args(words).output().unwrap();
    assert!(out.status.success(), "{out:?}");
    String::from_utf8(out.stdout).unwrap()
}

/// What comes until it is so much text, or this many marks.
async fn read(wire: &mut Wire, text: usize, marks: usize) -> (Vec<u8>, Vec<Mark>) {
    let (mut said, mut marked) = (Vec::new(), Vec::new());
    while said.len() < text || marked.len() < marks {
        match tokio::time::timeout(CEILING, wire.recv()).await.unwrap() {
            Some(Event::Data { bytes, .. }) => said.extend_from_slice(&bytes),
            Some(Event::Mark(mark)) => marked.push(mark),
            other => panic!("{other:?} behind {said:?} {marked:?}"),
        }
    }
    (said, marked)
}

/// A process that ends with the test.
struct Other(Child);

impl Drop for Other {
    fn drop(&mut self) {
        let _ended_already = self.0.kill();
        let _reaped = self.0.wait();
    }
}

#[tokio::test]
async fn it_is_set_as_the_site_says() {
    let bench = Bench::new();
    for (set, speed, words) in [
        ("9600", "9600", &["-crtscts", "-ixon", "-ixoff"][..]),
        ("115200,8n2,rtscts", "115200", &["crtscts", "cstopb"]),
        ("230400,xonxoff", "230400", &["ixon", "ixoff", "-crtscts", "-cstopb"]),
        ("1500000", "1500000", &[]),
    ] {
        let wire = bench.open(set).await.unwrap();
        let says = stty(&bench.device, &["-a"]);
        let has = |word: &str| says.split([' ', ';', '\n']).any(|said| said == word);
        assert!(says.contains(&format!("speed {speed} baud")), "{set}: {says}");
        let always = [
            "-hupcl", "clocal", "cread", "cs8", "parmrk", "inpck", "-ignbrk", "-brkint", "-icanon",
        ];
        for word in always.iter().chain(&["-echo", "-opost", "-isig", "-iexten", "-icrnl"]) {
            assert!(has(word), "{set}: no {word} in {says}");
        }
        for word in words {
            assert!(has(word), "{set}: no {word} in {says}");
        }
        wire.close().await;
        assert!(stty(&bench.device, &["-a"]).contains("-hupcl"), "still when it is closed");
    }
    // A pseudo-terminal has no parity, as some adapters have none: that is said, and not passed over.
    let Err(NotOpen::Here(why)) = bench.open("9600,7e1").await else { panic!() };
    assert!(why.ends_with("its driver cannot do 9600,7e1"), "{why}");
}

#[tokio::test]
async fn any_byte_goes_both_ways() {
    let mut bench = Bench::new();
    let mut wire = bench.open("115200").await.unwrap();
    let all: Vec<u8> = (0..=255).collect();
    bench.far.write_all(&all).unwrap();
    assert_eq!(read(&mut wire, 256, 0).await, (all.clone(), vec![]));
    wire.typist().send(&all).await.unwrap();
    let mut far = bench.far.try_clone().unwrap();
    let back = tokio::task::spawn_blocking(move || {
        let mut back = [0; 256];
        far.read_exact(&mut back).map(|()| back.to_vec())
    });
    let back = tokio::select! {
        back = back => back,
        event = wire.recv() => panic!("{event:?}"),
    };
    assert_eq!(back.unwrap().unwrap(), all);
    wire.close().await;
}

#[tokio::test]
async fn breaks_and_damage_are_marks() {
    let mut bench = Bench::new();
    let mut wire = bench.open("115200").await.unwrap();
    // What a UART's driver would make the kernel write; without the doubling, that does not touch it.
    stty(&bench.device, &["-parmrk"]);
    bench.far.write_all(b"ok\xff\0\0\xff\0S\xff\xff\n").unwrap();
    let (text, marks) = read(&mut wire, 5, 2).await;
    assert_eq!(text, b"okS\xff\n");
    assert_eq!(marks, [Mark::Break, Mark::Damaged { characters: 1 }]);
    // Nothing comes any more, and still it is told how many there were.
    bench.far.write_all(&b"\xff\0\x80".repeat(1000)).unwrap();
    let (text, marks) = read(&mut wire, 1000, 1).await;
    assert_eq!((text.len(), marks), (1000, vec![Mark::Damaged { characters: 1000 }]));
    wire.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pulled_and_put_back_it_comes_up_by_itself() {
    let bench = Bench::new();
    let link = bench.folder.path().join("usb-adapter");
    symlink(&bench.device, &link).unwrap();
    let (host, port) = (bench.host.clone(), format!("{}@115200", link.display()).parse::<Port>());
    let port = Arc::new(port.unwrap());
    let line = Line::start(move || {
        let (host, port) = (host.clone(), port.clone());
        async move { open(&host, &port).await }
    });
    let mut status = line.follow_status();
    let mut until = async |is: fn(&State) -> bool| {
        let waited = tokio::time::timeout(CEILING, status.wait_for(|status| is(&status.state)));
        waited.await.unwrap().unwrap().state.clone()
    };
    until(|state| matches!(state, State::Up { .. })).await;
    let operator = line.ask(Person { name: "ann".into(), via: "cli".into() }).unwrap();
    // In mid-write: nobody takes it, and the adapter is pulled.
    let types = tokio::spawn(async move { operator.send(&vec![b'x'; 100_000]).await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    let Bench { folder, far, .. } = bench;
    drop(far);
    let down = until(|state| matches!(state, State::Down { .. })).await;
    let State::Down { why, .. } = down else { panic!() };
    assert!(why.ends_with("usb-adapter vanished: pulled, reset, or hung up"), "{why}");
    types.await.unwrap().unwrap_err();
    std::fs::remove_file(&link).unwrap();
    until(|state| matches!(state, State::Down { why, .. } if why.contains("not plugged in"))).await;
    // Put back, it is another device.
    let (mut far, device) = pty();
    symlink(&device, &link).unwrap();
    until(|state| matches!(state, State::Up { .. })).await;
    far.write_all(b"login: ").unwrap();
    let mut viewer = line.view(50);
    let mut marks = Vec::new();
    loop {
        match tokio::time::timeout(CEILING, viewer.next()).await.unwrap().unwrap().what {
            What::Mark(mark) => marks.push(mark),
            What::Text(text) => {
                assert_eq!(&text[..], b"login: ");
                break;
            }
        }
    }
    assert!(matches!(marks.last(), Some(Mark::Reconnected { .. })), "{marks:?}");
    line.close().await;
    assert_eq!(std::fs::read_dir(folder.path().join("locks")).unwrap().count(), 0, "no lock stays");
}

#[tokio::test(flavor = "multi_thread")]
async fn endless_noise_is_read_and_is_no_flood_of_marks() {
    let mut bench = Bench::new();
    let mut wire = bench.open("3000000").await.unwrap();
    stty(&bench.device, &["-parmrk"]);
    let noise: Vec<u8> =
        (0..2_000_000_u32).map(|i| [0xff, 0, (i % 7) as u8, i as u8][i as usize % 4]).collect();
    let writes = std::thread::spawn(move || {
        bench.far.write_all(&noise).unwrap();
        bench
    });
    let (mut text, mut marks, mut damaged) = (0, 0, 0);
    while !writes.is_finished() || text + damaged < 900_000 {
        match tokio::time::timeout(CEILING, wire.recv()).await.unwrap().unwrap() {
            Event::Data { bytes, .. } => text += bytes.len(),
            Event::Mark(Mark::Damaged { characters }) => {
                marks += 1;
                damaged += characters as usize;
            }
            Event::Mark(Mark::Break) => marks += 1,
            other => panic!("{other:?}"),
        }
    }
    assert!(marks < 400, "{marks}");
    writes.join().unwrap();
    wire.close().await;
}

#[tokio::test]
async fn whoever_has_it_is_named_and_left_in_peace() {
    let bench = Bench::new();
    let refused = async |set: &str| match bench.open(set).await {
        Err(NotOpen::Away(why) | NotOpen::Here(why)) => why,
        other => panic!("{other:?}"),
    };
    // One who only has it open.
    let reader = File::open(&bench.device).unwrap();
    let other = Other(Command::new("sleep").arg("60").stdin(reader).spawn().unwrap());
    let id = other.0.id();
    let why = refused("9600").await;
    assert_eq!(why, format!("{}: sleep (process {id}) has it", bench.device.display()));
    drop(other);
    // A getty: a program of that name whose terminal it is.
    let getty = bench.folder.path().join("agetty");
    std::fs::copy("/bin/sleep", &getty).unwrap();
    let terminal = File::options().read(true).write(true).open(&bench.device).unwrap();
    let other = {
        let mut setsid = Command::new("setsid");
        Other(setsid.arg("--ctty").arg(&getty).arg("60").stdin(terminal).spawn().unwrap())
    };
    let deadline = Instant::now() + CEILING;
    let why = loop {
        let why = refused("9600").await;
        if why.contains("agetty") || Instant::now() > deadline {
            break why;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert!(why.contains("has it: it asks for a login there"), "{why}");
    assert!(why.contains("systemctl disable --now serial-getty@"), "{why}");
    drop(other);
    // A lock of UUCP's alone.
    let other = Other(Command::new("sleep").arg("60").spawn().unwrap());
    let name = bench.device.strip_prefix("/dev").unwrap().display().to_string().replace('/', "_");
    let lock = bench.folder.path().join("locks").join(format!("LCK..{name}"));
    std::fs::write(&lock, format!("{:>10}\n", other.0.id())).unwrap();
    let why = refused("9600").await;
    assert!(why.contains(&format!("sleep (process {}), says ", other.0.id())), "{why}");
    drop(other);
    // His process is gone; and we have one of our own while it is open.
    let wire = bench.open("9600").await.unwrap();
    let text = std::fs::read_to_string(&lock).unwrap();
    assert_eq!(text.trim(), std::process::id().to_string());
    assert!(refused("9600").await.ends_with("another line of this site has it"));
    // Who asks by flock hears that it is taken.
    let flock = Command::new("flock").arg("-n").arg(&bench.device).arg("true").status().unwrap();
    assert!(!flock.success());
    wire.close().await;
    assert!(!lock.exists());
}

/// What strace saw of it: `read`, `write` and `ioctl`, in order.
fn traced(test: &str, folder: &Path) -> Vec<(f64, String)> {
    let trace = folder.join("trace");
    let mut strace = Command::new("strace");
    strace.args(["-f", "-ttt", "-e", "trace=ioctl,write,close", "-s", "64", "-o"]).arg(&trace);
    strace.arg(std::env::current_exe().unwrap()).args(["--exact", test, "--ignored"]);
    let ran = strace.output().unwrap();
    assert!(ran.status.success(), "{ran:?}");
    let trace = std::fs::read_to_string(trace).unwrap();
    let calls = trace.lines().filter_map(|line| {
        let (_process, rest) = line.split_once(' ')?;
        let (time, call) = rest.trim_start().split_once(' ')?;
        Some((time.parse().ok()?, call.to_string()))
    });
    calls.collect()
}

#[test]
fn a_break_reaches_the_driver_behind_what_was_typed_and_nothing_is_drained() {
    let folder = tempfile::tempdir().unwrap();
    let calls = traced("says_break_between_words", folder.path());
    let place = |what: &str| {
        let found = calls.iter().position(|(_, call)| call.contains(what));
        found.unwrap_or_else(|| panic!("no {what} in {calls:#?}"))
    };
    let order = ["\"before\"", "TIOCSBRK", "TIOCCBRK", "\"after\""].map(place);
    assert!(order.is_sorted(), "{calls:#?}");
    let long = calls[order[2]].0 - calls[order[1]].0;
    assert!((0.25..5.0).contains(&long), "{long} s");
    // TCSBRK is what tcdrain and tcsendbreak are made of: both wait for whoever holds the line.
    let drained =
        calls.iter().find(|(_, call)| call.contains("TCSBRK") || call.contains("TCSETSW"));
    assert_eq!(drained, None);
    assert!(place("TIOCEXCL") < order[0]);
}

/// Of another test, which traces it.
#[tokio::test]
#[ignore = "runs within a_break_reaches_the_driver_behind_what_was_typed_and_nothing_is_drained"]
async fn says_break_between_words() {
    let bench = Bench::new();
    let mut wire = bench.open("9600").await.unwrap();
    let typist = wire.typist();
    // A line is driven by whoever reads it.
    let reads = tokio::spawn(async move { while wire.recv().await.is_some() {} });
    typist.send(b"before").await.unwrap();
    let breaks = {
        let typist = typist.clone();
        tokio::spawn(async move { typist.operate(Operation::Break).await })
    };
    tokio::time::sleep(Duration::from_millis(50)).await;
    // While BREAK is said nothing else is.
    typist.send(b"after").await.unwrap();
    assert_eq!(breaks.await.unwrap(), Ok(()));
    let mut far = bench.far.try_clone().unwrap();
    let said = tokio::task::spawn_blocking(move || {
        let mut said = [0; 11];
        far.read_exact(&mut said).map(|()| said)
    });
    assert_eq!(&said.await.unwrap().unwrap(), b"beforeafter");
    // A pseudo-terminal has no such wires.
    let why = typist.operate(Operation::Dtr(false)).await.unwrap_err().to_string();
    assert!(why.contains("cannot set DTR"), "{why}");
    reads.abort();
}
