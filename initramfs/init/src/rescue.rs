//! When a boot cannot go on: a shell for the person at the console, on the machine as it stands.
//!
//! With busybox in the initramfs it is busybox's; without, a prompt of our own with the few words
//! that find a cable, a driver or a typing error.

use std::fs::{self, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::OFlags;
use rustix::process::WaitOptions;
use rustix::system::RebootCommand;

use crate::console::{self, print, say};
use crate::contract::Phase;
use crate::net::link;
use crate::report::Reporter;

/// Carries the number of the last report over a retry.
pub const SEQ_KEY: &str = "KOBOSHI_SEQ";
const BUSYBOX: &str = "/bin/busybox";
const SHOWN_MAX: u64 = 64 * 1024;

/// Why a boot stops.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stop {
    /// Somebody typed `rescue`.
    Asked,
    /// It cannot go on; the sentence says why.
    Because(String),
}

impl Stop {
    /// It cannot go on.
    pub fn because(why: impl Into<String>) -> Stop {
        Stop::Because(why.into())
    }
}

/// Says why, reports it, and stays with the person until they retry or reboot.
pub fn shell(stop: &Stop, reporter: &mut Reporter) -> ! {
    let why = match stop {
        Stop::Asked => "asked for at the console",
        Stop::Because(why) => why,
    };
    say(format!("RESCUE: {why}"));
    let _ = reporter.tell(Phase::Rescue { message: why.to_owned() });
    if Path::new(BUSYBOX).exists() {
        say("a shell follows; 'exit' tries the boot again, 'reboot -f' restarts the machine");
        match busybox() {
            Ok(()) => {
                say("the shell has ended: trying again");
                let error = retry(reporter);
                say(format!("cannot start over: {error}"));
            }
            Err(error) => say(format!("busybox does not start: {error}")),
        }
    }
    prompt(Some(reporter))
}

/// For when even the initramfs is gone, or we are: a prompt that cannot retry.
pub fn last_resort(why: &str) -> ! {
    say(format!("RESCUE: {why}"));
    prompt(None)
}

/// Starts over in the same process; comes back only with an error.
fn retry(reporter: &Reporter) -> io::Error {
    let itself = std::env::current_exe().unwrap_or_else(|_| "/init".into());
    Command::new(itself)
        .args(std::env::args_os().skip(1))
        .env(SEQ_KEY, reporter.seq.to_string())
        .exec()
}

/// Runs the shell in a session of its own on the console, and reaps what it leaves behind.
fn busybox() -> io::Result<()> {
    let tty = || {
        OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(OFlags::NOCTTY.bits().cast_signed())
            .open(console::main_port())
    };
    let child = Command::new(BUSYBOX)
        .args(["setsid", "-c", BUSYBOX, "sh"])
        .env("PS1", "rescue:\\w# ")
        .env("HOME", "/")
        .env("TERM", "vt100")
        .env("PATH", "/bin:/sbin:/usr/bin:/usr/sbin")
        .stdin(Stdio::from(tty()?))
        .stdout(Stdio::from(tty()?))
        .stderr(Stdio::from(tty()?))
        .spawn()?;
    let shell = child.id();
    let begun = Instant::now();
    loop {
        match rustix::process::wait(WaitOptions::empty()) {
            Ok(Some((pid, _))) if pid.as_raw_pid().unsigned_abs() == shell => break,
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => break,
        }
    }
    // A console that hung up ends every shell at once; the boot must not spin on it.
    std::thread::sleep(Duration::from_secs(5).saturating_sub(begun.elapsed()));
    Ok(())
}

fn prompt(reporter: Option<&mut Reporter>) -> ! {
    let retry = |reporter: &Reporter| say(format!("cannot start over: {}", retry(reporter)));
    print(HELP);
    loop {
        print("rescue> ");
        let Some(line) = wait_for_line() else { continue };
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            [] => {}
            ["log"] => print(&(console::log().join("\n") + "\n")),
            ["kernel"] => show_kernel_log(),
            ["net"] => show_net(),
            ["mem"] => show_file("/proc/meminfo"),
            ["ls", path] => show_folder(path),
            ["cat", path] => show_file(path),
            ["retry"] => match &reporter {
                Some(reporter) => retry(reporter),
                None => print("the initramfs is gone already; only a reboot starts over\n"),
            },
            ["reboot"] => power(RebootCommand::Restart),
            ["poweroff"] => power(RebootCommand::PowerOff),
            _ => print(HELP),
        }
    }
}

const HELP: &str = "\
log       what was said before           kernel    the kernel's log
net       NICs, addresses, routes        mem       memory
ls PATH   a folder                       cat PATH  a file (cat /proc/cmdline, cat /proc/modules)
retry     the boot once more             reboot    poweroff
";

/// PID 1 is everybody's parent: while waiting for a person it also buries its dead.
fn wait_for_line() -> Option<String> {
    let line = console::line_within(Duration::from_secs(30));
    while matches!(rustix::process::wait(WaitOptions::NOHANG), Ok(Some(_))) {}
    if line.is_none() {
        // A console that hung up answers at once, for ever.
        std::thread::sleep(Duration::from_millis(100));
    }
    line
}

/// Restarts the machine or switches it off; comes back only where the kernel refuses.
pub fn power(command: RebootCommand) {
    rustix::fs::sync();
    if let Err(errno) = rustix::system::reboot(command) {
        say(format!("the kernel refuses: {errno}"));
    }
}

fn show_net() {
    print(&format!("{}\n", link::inventory()));
    for entry in fs::read_dir("/sys/class/net").into_iter().flatten().flatten() {
        let read = |file: &str| {
            fs::read_to_string(entry.path().join(file)).unwrap_or_default().trim().to_owned()
        };
        let line = format!(
            "{:<16} {:<8} carrier {:<2} mtu {:<6} rx {} tx {}\n",
            entry.file_name().to_string_lossy(),
            read("operstate"),
            read("carrier"),
            read("mtu"),
            read("statistics/rx_packets"),
            read("statistics/tx_packets")
        );
        print(&line);
    }
    for address in nix::ifaddrs::getifaddrs().into_iter().flatten() {
        if let Some(at) = address.address.as_ref().and_then(|at| at.as_sockaddr_in()) {
            print(&format!("{:<16} {}\n", address.interface_name, at.ip()));
        }
    }
    show_file("/proc/net/route");
    show_file("/proc/net/arp");
}

fn show_folder(path: &str) {
    match fs::read_dir(path) {
        Ok(entries) => {
            let mut names: Vec<String> = entries
                .flatten()
                .map(|entry| console::plain(&entry.file_name().to_string_lossy()))
                .collect();
            names.sort();
            print(&(names.join("\n") + "\n"));
        }
        Err(error) => print(&format!("{}: {error}\n", console::plain(path))),
    }
}

fn show_file(path: &str) {
    let mut bytes = Vec::new();
    match fs::File::open(path).and_then(|file| file.take(SHOWN_MAX).read_to_end(&mut bytes)) {
        Ok(_) => String::from_utf8_lossy(&bytes)
            .lines()
            .for_each(|line| print(&(console::plain(line) + "\n"))),
        Err(error) => print(&format!("{}: {error}\n", console::plain(path))),
    }
}

/// `/dev/kmsg` gives one record a read: `level,seq,time,flags;text`.
fn show_kernel_log() {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
        .open("/dev/kmsg");
    let Ok(mut file) = file else { return print("no /dev/kmsg\n") };
    let mut lines = std::collections::VecDeque::new();
    let mut record = [0; 8192];
    while let Ok(n) = file.read(&mut record) {
        let text = String::from_utf8_lossy(&record[..n]);
        let Some((_, message)) = text.split_once(';') else { continue };
        if lines.len() == 100 {
            lines.pop_front();
        }
        lines.push_back(console::plain(message.lines().next().unwrap_or_default()));
    }
    lines.iter().for_each(|line| print(&format!("{line}\n")));
}

/// A panic of PID 1 panics the kernel. Ours ends here instead, with its words on the console.
pub fn catch_panics() {
    std::panic::set_hook(Box::new(|info| {
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        last_resort(&format!("a fault in koboshi-init itself, at {place}: {info}"))
    }));
}
