//! A hundred consoles that say what machines say when they are broken, for minutes: `SECONDS=600 make soak`.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::world::{World, in_world};

const LINES: usize = 100;
/// What a line's log may take.
const BOUND: u64 = 256 * 1024;
/// What was said so long before the end is in the log.
const FLUSHED: Duration = Duration::from_secs(3);
/// For the appliance with lines that keep silent, KiB.
const MEMORY: u64 = 128 * 1024;

/// What becomes of a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    /// Counts: line after line, and what is missing in the log shows.
    Counts,
    /// Every byte there is.
    Noise,
    /// Titles, answerback, OSC 52, strings without an end.
    Attacks,
    /// One line that never ends.
    Endless,
    /// Nothing but line ends.
    Empty,
    /// Comes and goes, within a word.
    Flaps,
    /// BREAKs, by telnet.
    Breaks,
    /// Negotiates for ever, by telnet.
    Negotiates,
}

const MANNERS: [Manner; 8] = [
    Manner::Counts,
    Manner::Noise,
    Manner::Attacks,
    Manner::Endless,
    Manner::Empty,
    Manner::Flaps,
    Manner::Breaks,
    Manner::Negotiates,
];

/// Shared with all machines.
#[derive(Default)]
struct Stage {
    over: AtomicBool,
    /// What each one that counts has said, and how many machines were connected.
    counts: Vec<AtomicU64>,
    connected: AtomicU64,
}

trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

/// The same noise each time.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn bytes(&mut self, many: usize) -> Vec<u8> {
        (0..many).map(|_| self.next().to_le_bytes()[3]).collect()
    }
}

const ATTACKS: &[&[u8]] = &[
    b"\x1b]0;rm -rf /\x07\x1b[21t",
    b"\x1b]52;c;cm0gLXJmIC8=\x07",
    b"\x05\x1b[c\x1b[6n\x1bZ",
    b"\x1bP+q544e\x1b\\\x1b[5i secret \x1b[4i",
    b"\x1b[9999999999;9999999999H\x1b[4294967295b",
    b"\x1b]never ends ",
    b"\x9d0;C1\x9c\x9b6n",
    b"\x1b[?1049h\x1b[?1049l\x1b#8\x1bc",
];

fn manner(number: usize) -> Manner {
    MANNERS[number % MANNERS.len()]
}

/// What a machine says next. None: it is gone.
fn says(number: usize, dice: &mut Dice, stage: &Stage) -> Option<Vec<u8>> {
    Some(match manner(number) {
        Manner::Counts => {
            let count = stage.counts[number].load(Ordering::SeqCst);
            format!("m{number:03} count {count:010}\r\n").into_bytes()
        }
        Manner::Noise => dice.bytes(700),
        Manner::Attacks => {
            let many = ATTACKS.len() as u64;
            (0..20).flat_map(|_| ATTACKS[(dice.next() % many) as usize].to_vec()).collect()
        }
        Manner::Endless => vec![b'x'; 900],
        Manner::Empty => b"\r\n".repeat(300),
        Manner::Flaps if dice.next().is_multiple_of(40) => return None,
        Manner::Flaps => format!("m{number:03} was here, and then ").into_bytes(),
        Manner::Breaks => [&[255, 243][..], b"after a BREAK\r\n", &[255, 243]].concat(),
        Manner::Negotiates => {
            let option = dice.next().to_le_bytes()[0];
            let mut said = vec![255, 251 + option % 4, option, 255, 250, option];
            said.extend(dice.bytes(100));
            said
        }
    })
}

/// Takes whoever listens, one after another, until it is over.
fn machine(number: usize, accept: &dyn Fn() -> Option<Box<dyn Stream>>, stage: &Stage) {
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15 ^ (number as u64 + 1));
    while !stage.over.load(Ordering::SeqCst) {
        let Some(mut stream) = accept() else {
            std::thread::sleep(Duration::from_millis(100));
            continue;
        };
        stage.connected.fetch_add(1, Ordering::SeqCst);
        let mut typed = [0; 4096];
        while !stage.over.load(Ordering::SeqCst) {
            let Some(words) = says(number, &mut dice, stage) else { break };
            if stream.write_all(&words).is_err() {
                break;
            }
            if manner(number) == Manner::Counts {
                stage.counts[number].fetch_add(1, Ordering::SeqCst);
            }
            // What is answered is taken, as far as it is there.
            match stream.read(&mut typed) {
                Ok(0) => break,
                Ok(_) => {}
                Err(why) if why.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(_) => break,
            }
            std::thread::sleep(Duration::from_millis(20 + dice.next() % 40));
        }
    }
}

/// Machines, and how the site reaches each.
struct Machines {
    stage: Arc<Stage>,
    consoles: Vec<String>,
    threads: Vec<std::thread::JoinHandle<()>>,
    _folder: TempDir,
}

impl Machines {
    fn new() -> Machines {
        let folder = TempDir::new().expect("a folder");
        let counts = (0..LINES).map(|_| AtomicU64::new(0)).collect();
        let stage = Arc::new(Stage { counts, ..Stage::default() });
        let (mut consoles, mut threads) = (Vec::new(), Vec::new());
        for number in 0..LINES {
            let stage = stage.clone();
            let run = |accept: Box<dyn Fn() -> Option<Box<dyn Stream>> + Send>| {
                std::thread::spawn(move || machine(number, &*accept, &stage))
            };
            threads.push(if matches!(manner(number), Manner::Breaks | Manner::Negotiates) {
                let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
                listener.set_nonblocking(true).expect("set");
                let at = listener.local_addr().expect("it listens");
                consoles.push(format!("telnet:{at}"));
                run(Box::new(move || {
                    let (stream, _) = listener.accept().ok()?;
                    stream.set_nonblocking(false).ok()?;
                    stream.set_read_timeout(Some(Duration::from_millis(1))).ok()?;
                    stream.set_write_timeout(Some(Duration::from_secs(5))).ok()?;
                    Some(Box::new(stream))
                }))
            } else {
                let path = folder.path().join(format!("m{number:03}"));
                let listener = UnixListener::bind(&path).expect("a socket");
                listener.set_nonblocking(true).expect("set");
                consoles.push(format!("unix:{}", path.display()));
                run(Box::new(move || {
                    let (stream, _) = listener.accept().ok()?;
                    stream.set_nonblocking(false).ok()?;
                    stream.set_read_timeout(Some(Duration::from_millis(1))).ok()?;
                    stream.set_write_timeout(Some(Duration::from_secs(5))).ok()?;
                    Some(Box::new(stream))
                }))
            });
        }
        Machines { stage, consoles, threads, _folder: folder }
    }

    fn site(&self) -> String {
        let machines = self.consoles.iter().enumerate().map(|(number, console)| {
            format!(
                "m{number:03} = {{ mac = [\"52:54:00:7a:00:{number:02x}\"], console = \"{console}\" }}\n"
            )
        });
        format!(
            "[site]\nname = \"soak\"\n\n[net]\ninterface = \"kb0\"\ncidr = \"10.77.0.0/24\"\n\n\
             [console]\nlog-size = \"{}K\"\n\n[machines]\n{}",
            BOUND / 1024,
            machines.collect::<String>()
        )
    }

    /// What each of those that count has said.
    fn counts(&self) -> BTreeMap<usize, u64> {
        let counting = (0..LINES).filter(|number| manner(*number) == Manner::Counts);
        counting.map(|number| (number, self.stage.counts[number].load(Ordering::SeqCst))).collect()
    }
}

impl Drop for Machines {
    fn drop(&mut self) {
        self.stage.over.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            let _it_ended = thread.join();
        }
    }
}

/// All files of a line's log, the oldest first.
fn files(state: &Path, number: usize) -> Vec<PathBuf> {
    let folder = state.join(format!("consoles/m{number:03}"));
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    files.sort();
    files
}

/// Bytes that a line's log takes. A file may go while it is looked at.
fn size(state: &Path, number: usize) -> u64 {
    let sizes = files(state, number).into_iter().filter_map(|file| std::fs::metadata(file).ok());
    sizes.map(|file| file.len()).sum()
}

/// The counts in a line's log, in order.
fn logged(state: &Path, number: usize) -> Vec<u64> {
    let logs = files(state, number)
        .into_iter()
        .filter(|file| file.extension().is_some_and(|end| end == "log"));
    let bytes: Vec<u8> = logs.flat_map(|file| std::fs::read(file).unwrap_or_default()).collect();
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let counts = text.lines().filter_map(|line| line.strip_prefix(&format!("m{number:03} count ")));
    counts.filter(|count| count.len() == 10).filter_map(|count| count.parse().ok()).collect()
}

/// KiB of the appliance that are its own.
fn memory(world: &World) -> u64 {
    let status = format!("/proc/{}/status", world.pid());
    let status = std::fs::read_to_string(status).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("Linux");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

#[test]
fn logs_of_a_hundred_noisy_lines_stay_under_their_bound_and_survive_kill() {
    let seconds = std::env::var("SECONDS").ok().and_then(|seconds| seconds.parse().ok());
    let seconds = Duration::from_secs(seconds.unwrap_or(180));
    let machines = Machines::new();
    in_world(&machines.site(), vec![], async move |mut world| {
        let state = world.state.clone();
        let (begun, mut kills, mut most, mut largest) = (Instant::now(), 0, 0, 0);
        world.serve().await;
        let mut next = Instant::now() + seconds / 4;
        while begun.elapsed() < seconds {
            tokio::time::sleep(Duration::from_secs(1)).await;
            for number in 0..LINES {
                let size = size(&state, number);
                largest = largest.max(size);
                assert!(
                    size <= BOUND,
                    "m{number:03}'s log has {size} bytes, {:?}",
                    files(&state, number)
                );
            }
            most = most.max(memory(&world));
            assert!(most < MEMORY + 256 * LINES as u64, "{most} KiB");
            if Instant::now() < next {
                continue;
            }
            // Power fails.
            let before = machines.counts();
            tokio::time::sleep(FLUSHED).await;
            world.kill().await;
            let said = machines.counts();
            kills += 1;
            for (number, before) in &before {
                let logged = logged(&state, *number);
                let last = logged.last().copied().unwrap_or(0);
                assert!(
                    last + 1 >= *before,
                    "m{number:03} said {before}, and {last} is the last in its log"
                );
                assert!(last <= said[number], "m{number:03} never said {last}");
                assert!(
                    logged.is_sorted_by(|one, next| one < next),
                    "m{number:03}: twice, or out of order"
                );
            }
            world.serve().await;
            next = Instant::now() + seconds / 4;
        }
        assert!(kills >= 2, "{kills}");
        // Places in the logs go on where they were: a file's name begins with its first character's place.
        for number in 0..LINES {
            let logs = files(&state, number).into_iter();
            let mut end = None;
            for log in logs.filter(|file| file.extension().is_some_and(|end| end == "log")) {
                let name = log.file_name().and_then(|name| name.to_str()).unwrap_or_default();
                let base: u64 =
                    name.split('-').next().and_then(|base| base.parse().ok()).expect("a place");
                assert!(
                    end.is_none_or(|end| base >= end),
                    "m{number:03}: {name} begins before {end:?}"
                );
                end = Some(base + std::fs::metadata(&log).expect("it is there").len());
            }
        }
        let connected = machines.stage.connected.load(Ordering::SeqCst);
        assert!(connected >= 2 * LINES as u64, "{connected}");
        println!(
            "{kills} kills in {} s; the largest log had {largest} bytes of {BOUND}; {most} KiB at the most",
            begun.elapsed().as_secs()
        );
        assert!(world.stop().await);
    });
}
