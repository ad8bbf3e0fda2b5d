//! Machines that talk: so many Unix sockets, each with one console's worth of numbered lines at the speed of a
//! serial port, and what that costs the process that listens.
//!
//! ```text
//! chatter --folder F [--lines 48] [--baud 115200] [--seconds 20] [--tick 10]
//! chatter --check FOLDER [--lines 48] [--baud 115200] [--seconds 20]
//! ```
//! The first serves `F/0000` and so on, says `ready`, and waits for one line on its standard input: the numbers
//! of the processes to be measured. It then talks, through whoever is connected, and when all of it is taken prints
//! one line of JSON. It stays until its standard input ends. What is typed at it comes back.
//!
//! The second reads one log for each line, in order of their names (a file, or a folder of `.log` files), and exits with 1
//! if a numbered line is missing there or comes twice.

use std::io::BufRead;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage, setrlimit};
use nix::sys::time::TimeValLike;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;
use tokio::sync::{mpsc, watch};

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[derive(Debug, Clone)]
struct Args {
    folder: PathBuf,
    check: Option<PathBuf>,
    lines: usize,
    baud: usize,
    seconds: usize,
    tick: Duration,
}

fn args() -> Result<Args, Failure> {
    let mut args = Args {
        folder: PathBuf::from("."),
        check: None,
        lines: 48,
        baud: 115_200,
        seconds: 20,
        tick: Duration::from_millis(10),
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let value = words.next().unwrap_or_default();
        match word.as_str() {
            "--folder" => args.folder = value.into(),
            "--check" => args.check = Some(value.into()),
            "--lines" => args.lines = value.parse()?,
            "--baud" => args.baud = value.parse()?,
            "--seconds" => args.seconds = value.parse()?,
            "--tick" => args.tick = Duration::from_millis(value.parse()?),
            _ => return Err(format!("{word}: see the first lines of this program").into()),
        }
    }
    Ok(args)
}

impl Args {
    /// Characters that each line says.
    fn due(&self) -> usize {
        self.baud / 10 * self.seconds
    }
}

fn main() -> Result<ExitCode, Failure> {
    let args = args()?;
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
    match &args.check {
        Some(folder) => check(&args, folder),
        None => serve(args),
    }
}

/// What line `line` says in its `number`th text, as a kernel would.
fn text(line: usize, number: usize) -> String {
    let what =
        ["scsi 0:0:1:0: Direct-Access", "EXT4-fs: mounted filesystem", "systemd[1]: Started"];
    format!("[{number:10}] chatter {line:04}: {} with ordered data mode\r\n", what[number % 3])
}

/// All of it: whole texts, and no more characters than are due.
fn texts(line: usize, due: usize) -> impl Iterator<Item = String> {
    let mut left = due;
    (0..).map(move |number| text(line, number)).take_while(move |text| {
        let fits = text.len() <= left;
        left = left.saturating_sub(text.len());
        fits
    })
}

/// Shared by all lines.
#[derive(Default)]
struct Counted {
    connected: AtomicUsize,
    written: AtomicU64,
    /// The most that a line was behind its time, characters.
    behind: AtomicU64,
}

#[tokio::main(worker_threads = 1)]
async fn serve(args: Args) -> Result<ExitCode, Failure> {
    let counted = Arc::new(Counted::default());
    let (begin, begins) = watch::channel(None);
    let (talk, mut talking) = mpsc::channel(1);
    std::fs::create_dir_all(&args.folder)?;
    for line in 0..args.lines {
        let listener = UnixListener::bind(args.folder.join(format!("{line:04}")))?;
        let (begins, counted) = (begins.clone(), counted.clone());
        tokio::spawn(one(args.clone(), line, listener, begins, counted, Some(talk.clone())));
    }
    drop(talk);
    println!("ready");
    let mut said = String::new();
    let mut input = std::io::stdin().lock();
    input.read_line(&mut said)?;
    let pids: Vec<u32> = said.split_whitespace().filter_map(|pid| pid.parse().ok()).collect();
    let patience = Instant::now();
    while counted.connected.load(Ordering::Relaxed) < args.lines {
        if patience.elapsed() > Duration::from_secs(120) {
            let connected = counted.connected.load(Ordering::Relaxed);
            return Err(format!("{connected} of {} are connected", args.lines).into());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (before, own, began) = (processor(&pids), processor_of_this()?, Instant::now());
    begin.send_replace(Some(began));
    let mut peak = memory(&pids);
    while tokio::time::timeout(Duration::from_millis(500), talking.recv()).await.is_err() {
        peak = peak.max(memory(&pids));
    }
    let took = began.elapsed().as_secs_f64();
    let own = processor_of_this()? - own;
    // What it has read is written down.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let cpu = processor(&pids) - before;
    peak = peak.max(memory(&pids));
    let written = counted.written.load(Ordering::Relaxed);
    let mb = written as f64 / 1e6;
    println!(
        "{{\"lines\": {}, \"mb\": {mb:.2}, \"seconds\": {took:.2}, \"mb_per_s\": {:.2}, \"cpu_s\": {cpu:.2}, \
         \"cpu_ns_per_byte\": {:.1}, \"peak_kib\": {peak}, \"behind\": {}, \"cpu_s_of_chatter\": {own:.2}}}",
        args.lines,
        mb / took,
        cpu * 1e9 / written as f64,
        counted.behind.load(Ordering::Relaxed),
    );
    while input.read_line(&mut said)? > 0 {}
    Ok(ExitCode::SUCCESS)
}

/// One machine. It talks once, whoever is connected then, and answers for as long as anybody is.
async fn one(
    args: Args,
    line: usize,
    listener: UnixListener,
    mut begins: watch::Receiver<Option<Instant>>,
    counted: Arc<Counted>,
    mut done: Option<mpsc::Sender<()>>,
) -> Result<(), std::io::Error> {
    let (mut stream, _) = listener.accept().await?;
    counted.connected.fetch_add(1, Ordering::Relaxed);
    let mut typed = [0; 256];
    let mut talk = Talk::new(&args, line);
    // Not all of them at the same moment.
    let mut tick = tokio::time::interval(args.tick);
    tick.reset_after(args.tick * u32::try_from(line % 64).unwrap_or(0) / 64);
    loop {
        let talks = done.is_some() && begins.borrow().is_some();
        tokio::select! {
            read = stream.read(&mut typed) => match read {
                Ok(read @ 1..) => stream.write_all(&typed[..read]).await?,
                _ => stream = listener.accept().await?.0,
            },
            _ = begins.changed(), if !talks && done.is_some() => {}
            _ = tick.tick(), if talks => {
                let began = begins.borrow().unwrap_or_else(Instant::now);
                let due = began.elapsed().as_millis() as usize * args.baud / 10_000;
                let behind = due.min(args.due()).saturating_sub(talk.said);
                counted.behind.fetch_max(behind as u64, Ordering::Relaxed);
                let (characters, all) = talk.until(due);
                stream.write_all(&characters).await?;
                counted.written.fetch_add(characters.len() as u64, Ordering::Relaxed);
                if all {
                    done = None;
                }
            }
        }
    }
}

/// What one machine says.
struct Talk {
    texts: Box<dyn Iterator<Item = String> + Send>,
    /// Of the present text.
    waiting: Vec<u8>,
    said: usize,
    due: usize,
}

impl Talk {
    fn new(args: &Args, line: usize) -> Talk {
        let due = args.due();
        Talk { texts: Box::new(texts(line, due)), waiting: Vec::new(), said: 0, due }
    }

    /// What is new when so many characters are due, and whether that is the last of it. A port sends
    /// characters, not lines.
    fn until(&mut self, due: usize) -> (Vec<u8>, bool) {
        let want = due.min(self.due).saturating_sub(self.said);
        let mut all = due >= self.due;
        while self.waiting.len() < want {
            match self.texts.next() {
                Some(text) => self.waiting.extend_from_slice(text.as_bytes()),
                None => break,
            }
        }
        all &= self.waiting.len() <= want;
        let later = self.waiting.split_off(want.min(self.waiting.len()));
        let now = std::mem::replace(&mut self.waiting, later);
        self.said += now.len();
        (now, all)
    }
}

/// Seconds of the processor that these have spent.
fn processor(pids: &[u32]) -> f64 {
    let jiffies = pids.iter().map(|pid| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
        let fields = fields.split_whitespace().skip(11).take(2);
        fields.filter_map(|field| field.parse::<u64>().ok()).sum::<u64>()
    });
    jiffies.sum::<u64>() as f64 / 100.0
}

fn processor_of_this() -> Result<f64, Failure> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    let spent = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Ok(spent as f64 / 1e6)
}

/// KiB that are their own.
fn memory(pids: &[u32]) -> u64 {
    let own = pids.iter().map(|pid| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
        line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
    });
    own.sum()
}

fn check(args: &Args, folder: &Path) -> Result<ExitCode, Failure> {
    let mut logs: Vec<PathBuf> = paths(folder)?;
    logs.truncate(args.lines);
    let (mut found, mut missing, mut again) = (0usize, 0usize, 0usize);
    for (line, log) in logs.iter().enumerate() {
        let mut bytes = Vec::new();
        match log.is_dir() {
            true => {
                let files = paths(log)?.into_iter();
                for file in files.filter(|file| file.extension().is_some_and(|end| end == "log")) {
                    bytes.extend(std::fs::read(file)?);
                }
            }
            false => bytes = std::fs::read(log)?,
        }
        let mut next = 0;
        let mark = format!("chatter {line:04}: ");
        for text in bytes.split(|byte| *byte == b'\n') {
            let text = String::from_utf8_lossy(text);
            let Some((number, _)) = text.split_once(&mark) else { continue };
            let number = number.trim_start_matches('[').trim_end_matches("] ").trim();
            let Ok(number) = number.parse::<usize>() else { continue };
            let whole = self::text(line, number).trim_end() == text.trim_end();
            match number {
                number if number < next => again += 1,
                number => {
                    missing += number - next + usize::from(!whole);
                    found += usize::from(whole);
                    next = number + 1;
                }
            }
        }
        missing += texts(line, args.due()).count().saturating_sub(next);
    }
    println!(
        "{{\"logs\": {}, \"found\": {found}, \"missing\": {missing}, \"twice\": {again}}}",
        logs.len()
    );
    let whole = logs.len() == args.lines && missing == 0 && again == 0;
    Ok(if whole { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What is in a folder, by name.
fn paths(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let entries = std::fs::read_dir(folder)?.map(|entry| Ok(entry?.path()));
    let mut paths = entries.collect::<Result<Vec<_>, std::io::Error>>()?;
    paths.sort();
    Ok(paths)
}
