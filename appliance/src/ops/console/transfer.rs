//! `koboshi console WHO --send FILE…` and `--receive [DIR]`: files over a machine's line, by XMODEM, YMODEM or
//! ZMODEM, by whoever has the line.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::bail;
use bytes::Bytes;
use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use koboshi_console::modem::{
    self, Detector, Ends, Event, Failure, Folder, Options, Protocol, Rules, Sources, Work,
};
use serde::Serialize;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::prompt::{Waits, waits};
use super::seat::shown;
use super::{Query, Seat};
use crate::api::Client;

/// A line of `--json` each so long.
const TELL: Duration = Duration::from_millis(500);
/// A machine may send so much, unless more is allowed.
const MOST: u64 = 4 << 30;

/// What may be typed of it.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Files over the line")]
pub struct Words {
    /// Send these files. Where a shell prompt is on the line, the program that receives them is started there
    /// (`rz`); otherwise start it before, or say how with --command. Control-C cancels on both sides
    #[arg(
        long,
        value_name = "FILE",
        num_args = 1..,
        requires = "who",
        conflicts_with_all = ["watch", "url", "script", "sysrq", "sends_break"]
    )]
    pub send: Vec<PathBuf>,
    /// Receive what is sent there into a folder; start `sz FILE` there, or by --command 'sz FILE'. A file is
    /// NAME.part until it is whole, and a transfer that broke goes on there (ZMODEM)
    #[arg(
        long,
        value_name = "DIR",
        num_args = 0..=1,
        default_missing_value = ".",
        requires = "who",
        conflicts_with_all = ["watch", "url", "script", "sysrq", "sends_break", "send"]
    )]
    pub receive: Option<PathBuf>,
    /// As the program on the other side speaks: rz and sz, rb and sb, rx and sx. Boot loaders: often xmodem or
    /// ymodem (U-Boot: --command 'loady')
    #[arg(long, value_enum, default_value = "zmodem")]
    pub protocol: By,
    /// Type this first, to start the other side; '' types nothing
    #[arg(long, value_name = "WORDS")]
    pub command: Option<String>,
    /// Escape all control characters (ZMODEM), for a line that eats some of them
    #[arg(long)]
    pub escape_control: bool,
    /// With --receive: the file's name here, whatever it is there. XMODEM needs one
    #[arg(long, value_name = "NAME", requires = "receive")]
    pub name: Option<String>,
    /// With --receive: the file's length in bytes. XMODEM does not say it, and fills the last block up
    #[arg(long, value_name = "BYTES", requires = "receive")]
    pub size: Option<u64>,
    /// With --receive: also over files that are there
    #[arg(long, requires = "receive")]
    pub overwrite: bool,
    /// With --receive: a file may have so many bytes
    #[arg(long, value_name = "BYTES", default_value_t = MOST, requires = "receive")]
    pub most: u64,
}

/// Protocols as they are typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum By {
    /// Streams, resumes, names
    Zmodem,
    /// Blocks of 1,024 bytes, names
    Ymodem,
    /// Blocks of 128 bytes, one file without a name
    Xmodem,
    /// The same with blocks of 1,024 bytes
    #[value(name = "xmodem-1k")]
    Xmodem1k,
}

impl From<By> for Protocol {
    fn from(by: By) -> Protocol {
        match by {
            By::Zmodem => Protocol::Zmodem,
            By::Ymodem => Protocol::Ymodem,
            By::Xmodem => Protocol::Xmodem,
            By::Xmodem1k => Protocol::Xmodem1k,
        }
    }
}

/// For programs: one object a line.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
enum Told<'a> {
    Begun { name: &'a str, size: Option<u64>, at: u64 },
    At { at: u64, bytes_a_second: u64 },
    Done { name: &'a str, size: u64, path: Option<&'a PathBuf>, padded: bool, milliseconds: u64 },
    Skipped { name: &'a str, why: &'a str },
    Failed { why: String },
}

impl Words {
    /// Whether a file is to go over the line.
    pub fn any(&self) -> bool {
        !self.send.is_empty() || self.receive.is_some()
    }

    /// What is to be done, looked at before the line is asked for.
    ///
    /// # Errors
    /// Something is missing here.
    pub fn work(&self) -> anyhow::Result<Work> {
        let protocol = Protocol::from(self.protocol);
        let Some(folder) = self.receive.clone() else {
            if self.send.len() > 1 && !protocol.names() {
                bail!("{protocol} sends one file at a time; --protocol zmodem sends several");
            }
            return Ok(Work::Send(Sources::new(&self.send).map_err(anyhow::Error::msg)?));
        };
        if !folder.is_dir() {
            bail!("{} is no folder", folder.display());
        }
        if !protocol.names() && self.name.is_none() {
            bail!("{protocol} says no names: --name gives the file one");
        }
        let name = match &self.name {
            Some(name) => match modem::safe_name(name.as_bytes()) {
                Some(safe) if safe == *name => Some(safe),
                _ => bail!("{name:?} is no name for a file: the folder is said by --receive"),
            },
            None => None,
        };
        let Words { size, overwrite, most, .. } = *self;
        Ok(Work::Receive(Folder::new(Rules { folder, name, size, overwrite, most })))
    }

    /// What starts the other side, where a shell waits for a command.
    fn starts(&self) -> Option<String> {
        if !self.send.is_empty() {
            let name = self.send.first()?.file_name()?.to_string_lossy().into_owned();
            return Some(match self.protocol {
                By::Zmodem => "rz".to_string(),
                By::Ymodem => "rb".to_string(),
                By::Xmodem | By::Xmodem1k => format!("rx -c -- {}", quoted(&name)),
            });
        }
        None
    }
}

/// As a shell takes it for one word. What could act on the terminal is left out.
fn quoted(name: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-+=,".contains(c);
    if name.chars().all(plain) {
        return name.to_string();
    }
    let name: String = name.chars().filter(|c| !c.is_control()).collect();
    format!("'{}'", name.replace('\'', r"'\''"))
}

/// Does it, with the line held from the beginning to the end.
///
/// # Errors
/// Why it came to nothing.
pub async fn run(
    client: &Client,
    query: Query,
    words: &Words,
    take: bool,
    json: bool,
) -> anyhow::Result<()> {
    let mut work = words.work()?;
    let mut seat = Seat::come(client, &query).await?;
    seat.sit(take).await?;
    seat.quiet().await?;
    let shell = matches!(waits(&seat.tail), Waits::Shell { .. });
    // Of a transfer that is over, too, the headers are on the line: before its prompt.
    let waits = !shell && Detector::default().came(&seat.tail).is_some();
    let command = match &words.command {
        Some(command) => Some(command.clone()).filter(|command| !command.is_empty()),
        None => words.starts().filter(|_| shell && !waits),
    };
    if let Some(command) = &command {
        say(json, &format!("types: {}", shown(command)));
        seat.types(format!("{command}\r")).await?;
    } else if !waits {
        let protocol = Protocol::from(words.protocol);
        let other = match &work {
            Work::Send(_) => protocol.receiver(),
            Work::Receive(_) => protocol.sender(),
        };
        say(json, &format!("waits for `{other}` on the other side"));
    }
    let options = Options { escape: words.escape_control };
    let now = Instant::now();
    let engine = match &work {
        Work::Send(sources) => modem::send(words.protocol.into(), sources.outgoing(), options, now),
        Work::Receive(_) => modem::receive(words.protocol.into(), options, now),
    };
    let mut screen = Screen::new(json);
    let stop = CancellationToken::new();
    let (say, says) = mpsc::channel(4);
    if waits && command.is_none() {
        // It said already what it says again in ten seconds.
        let _there_is_room = say.try_send(Bytes::from(std::mem::take(&mut seat.tail)));
    }
    let (types, typed) = mpsc::channel(4);
    let mut ends = Ends { says, types };
    let driven = async {
        let how =
            modem::drive(engine, &mut work, &mut ends, &stop, |event| screen.tell(&event)).await;
        drop(ends);
        how
    };
    let (how, gone) = tokio::select! {
        both = async { tokio::join!(driven, seat.carry(say, typed)) } => both,
        never = stops(&stop) => match never {},
    };
    seat.leave().await;
    let why = match (how, gone) {
        (Ok(()), _) => {
            screen.end();
            return if screen.skipped == 0 {
                Ok(())
            } else {
                bail!("{} not done", files(screen.skipped))
            };
        }
        (Err(Failure::Here(_)), Err(gone)) => gone.to_string(),
        (Err(why), _) => why.to_string(),
    };
    screen.failed(&why);
    bail!("{why}")
}

/// Control-C cancels; once more, nothing is waited for.
async fn stops(stop: &CancellationToken) -> std::convert::Infallible {
    for _ in 0..2 {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
        if stop.is_cancelled() {
            std::process::exit(130);
        }
        stop.cancel();
    }
    std::future::pending().await
}

fn files(many: usize) -> String {
    match many {
        1 => "1 file was".to_string(),
        many => format!("{many} files were"),
    }
}

fn say(json: bool, words: &str) {
    if !json {
        eprintln!("koboshi: {words}");
    }
}

/// How it goes, for a person or for programs.
struct Screen {
    json: bool,
    bar: Option<ProgressBar>,
    begun: Instant,
    from: u64,
    told: Instant,
    skipped: usize,
}

impl Screen {
    fn new(json: bool) -> Screen {
        let now = Instant::now();
        Screen { json, bar: None, begun: now, from: 0, told: now, skipped: 0 }
    }

    fn tell(&mut self, event: &Event) {
        match event {
            Event::Begun { name, size, at } => {
                (self.begun, self.from) = (Instant::now(), *at);
                self.end();
                if self.json {
                    return self.line(&Told::Begun { name, size: *size, at: *at });
                }
                self.bar = Some(bar(&shown(name), *size, *at));
            }
            Event::At(at) => {
                if let Some(bar) = &self.bar {
                    bar.set_position(*at);
                } else if self.json && self.told.elapsed() >= TELL {
                    self.told = Instant::now();
                    let rate = self.rate(*at);
                    self.line(&Told::At { at: *at, bytes_a_second: rate });
                }
            }
            Event::Done { name, size, path, padded } => {
                self.end();
                let took = self.begun.elapsed();
                if self.json {
                    let milliseconds = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
                    let (path, padded) = (path.as_ref(), *padded);
                    return self.line(&Told::Done {
                        name,
                        size: *size,
                        path,
                        padded,
                        milliseconds,
                    });
                }
                let place = path.as_ref().map(|path| format!(" as {}", path.display()));
                let filling = match padded {
                    true => "; its end may be filling (bytes 0x1a): --size leaves that out",
                    false => "",
                };
                let place = place.unwrap_or_default();
                let seconds = took.as_secs_f64();
                let name = shown(name);
                say(false, &format!("{name}: {size} bytes{place} in {seconds:.1} s{filling}"));
            }
            Event::Skipped { name, why } => {
                self.end();
                self.skipped += 1;
                if self.json {
                    return self.line(&Told::Skipped { name, why });
                }
                say(false, &format!("{} is left out: {why}", shown(name)));
            }
        }
    }

    fn rate(&self, at: u64) -> u64 {
        let bytes = u128::from(at.saturating_sub(self.from));
        let rate = bytes * 1000 / self.begun.elapsed().as_millis().max(1);
        u64::try_from(rate).unwrap_or(u64::MAX)
    }

    fn line(&self, told: &Told) {
        let Ok(line) = serde_json::to_string(told) else { return };
        let mut out = std::io::stdout().lock();
        // Who reads it may be gone; the file is the same.
        let _gone = writeln!(out, "{line}").and_then(|()| out.flush());
    }

    fn end(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }

    fn failed(&mut self, why: &str) {
        self.end();
        if self.json {
            self.line(&Told::Failed { why: why.to_string() });
        }
    }
}

fn bar(name: &str, size: Option<u64>, at: u64) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let (bar, style) = match size {
        Some(size) => {
            let style = "{msg} {bar:30} {bytes}/{total_bytes} {bytes_per_sec} eta {eta}";
            (ProgressBar::new(size), style)
        }
        None => (ProgressBar::new_spinner(), "{msg} {bytes} {bytes_per_sec} {elapsed}"),
    };
    if let Ok(style) = ProgressStyle::with_template(style) {
        bar.set_style(style);
    }
    bar.set_message(name.to_string());
    bar.set_position(at);
    bar.reset_eta();
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_for_a_shell() {
        assert_eq!(quoted("vmlinuz-6.1.img"), "vmlinuz-6.1.img");
        assert_eq!(quoted("it's; a\x03 $x"), r"'it'\''s; a $x'");
    }
}
