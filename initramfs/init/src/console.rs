//! The person at the console: what happens, what comes next, and a way to step in.
//!
//! Lines go to every console the kernel was given (`console=tty0 console=ttyS0` names two) and to
//! the kernel log. Ports are written without blocking: a serial line held by XOFF must not hold a boot.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;

const LOG_LINES: usize = 200;
const LINE_MAX: usize = 400;
/// What a person types to get a shell while we wait. A bare Enter does not do: people press it to
/// see whether a line is alive, and an idle serial port makes them up from noise.
pub const RESCUE_WORD: &str = "rescue";
/// What one types to choose another role, where the site allows that.
pub const MENU_WORD: &str = "menu";

static CONSOLE: Mutex<Console> =
    Mutex::new(Console { ports: Vec::new(), kmsg: None, log: VecDeque::new(), menu: false });

struct Console {
    ports: Vec<Port>,
    kmsg: Option<File>,
    log: VecDeque<String>,
    /// Somebody typed `menu` while something else was waited for.
    menu: bool,
}

struct Port {
    path: String,
    file: File,
    stuck: bool,
}

/// How a pause ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pause {
    /// The time is over.
    Over,
    /// Somebody typed `rescue`.
    Rescue,
}

/// Takes the consoles, once `/dev` and `/sys` are there; standard input and output become the
/// console that the kernel named last.
pub fn open() {
    let mut paths: Vec<String> = fs::read_to_string("/sys/class/tty/console/active")
        .unwrap_or_default()
        .split_whitespace()
        .map(|tty| format!("/dev/{tty}"))
        .collect();
    if paths.is_empty() {
        paths.push("/dev/console".to_owned());
    }
    let ports = paths.into_iter().filter_map(|path| {
        // Without O_NONBLOCK the open itself waits for carrier on a three-wire serial cable.
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags((OFlags::NOCTTY | OFlags::NONBLOCK).bits().cast_signed())
            .open(&path)
            .ok()?;
        Some(Port { path, file, stuck: false })
    });
    let mut console = lock();
    console.ports = ports.collect();
    console.kmsg = OpenOptions::new().write(true).open("/dev/kmsg").ok();
    drop(console);
    take_stdio();
}

/// Points 0, 1 and 2 at `/dev/console`, for what is run next.
pub fn take_stdio() {
    let Ok(file) = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(OFlags::NOCTTY.bits().cast_signed())
        .open("/dev/console")
    else {
        return;
    };
    for dup in [rustix::stdio::dup2_stdin, rustix::stdio::dup2_stdout, rustix::stdio::dup2_stderr] {
        // Whoever fails here keeps what the kernel gave us at start.
        let _ = dup(&file);
    }
}

/// The path of the console a shell should run on: the last the kernel was given.
pub fn main_port() -> String {
    lock().ports.last().map_or_else(|| "/dev/console".to_owned(), |port| port.path.clone())
}

/// One line for the person, one for the log.
pub fn say(text: impl AsRef<str>) {
    let line = format!("koboshi: {}\n", plain(text.as_ref()));
    let mut console = lock();
    if console.log.len() == LOG_LINES {
        console.log.pop_front();
    }
    console.log.push_back(line.trim_end().to_owned());
    // Facility daemon, level debug: in the log for dmesg and journald, yet not printed a second
    // time on the very consoles written below.
    if let Some(kmsg) = &mut console.kmsg {
        let _ = kmsg.write_all(format!("<31>{line}").as_bytes());
    }
    write_ports(&mut console, line.as_bytes());
}

/// Text as it stands, for the rescue prompt.
pub fn print(text: &str) {
    write_ports(&mut lock(), text.as_bytes());
}

/// The last lines said.
pub fn log() -> Vec<String> {
    lock().log.iter().cloned().collect()
}

/// Waits, and listens for the word that asks for a shell.
pub fn pause(span: Duration) -> Pause {
    let end = Instant::now() + span;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Pause::Over;
        }
        match line_within(left) {
            Some(line) if line.trim() == RESCUE_WORD => return Pause::Rescue,
            Some(line) if line.trim() == MENU_WORD => lock().menu = true,
            Some(_) | None => {}
        }
    }
}

/// Whether `menu` was typed since the kernel started; said once.
pub fn menu_was_typed() -> bool {
    let now = line_within(Duration::from_millis(1));
    let now = now.is_some_and(|line| line.trim() == MENU_WORD);
    std::mem::take(&mut lock().menu) || now
}

/// The next line typed on any console, or nothing within `span`. A console that is gone or not a
/// terminal costs the span, never the processor.
pub fn line_within(span: Duration) -> Option<String> {
    // Copies, so that nobody waits for the lock while we wait for a person.
    let mut ports: Vec<File> =
        lock().ports.iter().filter_map(|port| port.file.try_clone().ok()).collect();
    let end = Instant::now() + span;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return None;
        }
        let timeout = Timespec {
            tv_sec: left.as_secs().min(3600) as i64,
            tv_nsec: left.subsec_nanos().into(),
        };
        let mut fds: Vec<PollFd> = ports
            .iter()
            .map(|file| PollFd::from_borrowed_fd(file.as_fd(), PollFlags::IN))
            .collect();
        if poll(&mut fds, Some(&timeout)).is_err() {
            std::thread::sleep(Duration::from_millis(50).min(left));
        }
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        let mut dead = Vec::new();
        for (at, file) in ports.iter_mut().enumerate().filter(|(at, _)| ready[*at]) {
            let mut bytes = [0u8; 1024];
            match file.read(&mut bytes) {
                Ok(0) => dead.push(at),
                Ok(n) => return Some(String::from_utf8_lossy(&bytes[..n]).into_owned()),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(_) => dead.push(at),
            }
        }
        for at in dead.into_iter().rev() {
            ports.remove(at);
        }
    }
}

/// Only what a terminal prints: a stranger's bytes must not move cursors or answer queries.
pub fn plain(text: &str) -> String {
    let mut line: String = text
        .chars()
        .take(LINE_MAX)
        .map(|c| match c {
            '\n' | '\r' | '\t' => ' ',
            ' '..='~' => c,
            _ => '?',
        })
        .collect();
    if text.chars().nth(LINE_MAX).is_some() {
        line.push_str("...");
    }
    line
}

fn lock() -> MutexGuard<'static, Console> {
    CONSOLE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn write_ports(console: &mut Console, bytes: &[u8]) {
    if console.ports.is_empty() {
        let _ = std::io::stderr().write_all(bytes);
    }
    for port in &mut console.ports {
        port.stuck = !write_port(&port.file, bytes, port.stuck);
    }
}

/// A port that stood still for a second is not waited for again until it takes something.
fn write_port(mut file: &File, mut bytes: &[u8], stuck: bool) -> bool {
    while !bytes.is_empty() {
        match file.write(bytes) {
            Ok(n) if n > 0 => bytes = &bytes[n..],
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock && !stuck => {
                let mut fds = [PollFd::from_borrowed_fd(file.as_fd(), PollFlags::OUT)];
                let second = Timespec { tv_sec: 1, tv_nsec: 0 };
                if !matches!(poll(&mut fds, Some(&second)), Ok(n) if n > 0) {
                    return false;
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Ok(_) | Err(_) => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(plain("a\x1b[2Jb\x07c\u{9b}d\nline é"), "a?[2Jb?c?d line ?");
        assert_eq!(plain(&"x".repeat(1000)).len(), LINE_MAX + 3);
    }
}
