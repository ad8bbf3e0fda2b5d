//! `bmcsim` as a program: a hundred BMCs, a machine that is a process, and what is left when it is killed.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::tools::{FreeIpmi, PASSWORD, ipmitool_at};

/// Nothing here takes so long unless it never comes.
const PATIENCE: Duration = Duration::from_secs(60);

struct Program {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    at: SocketAddr,
    dir: tempfile::TempDir,
}

impl Program {
    fn start(listen: &str, more: &[&str]) -> Program {
        let dir = tempfile::tempdir().unwrap();
        let password = dir.path().join("password");
        std::fs::write(&password, format!("{PASSWORD}\n")).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_bmcsim"))
            .args(["--listen", listen, "--port", "6230", "--control", "--password-file"])
            .arg(password)
            .args(more)
            .current_dir(dir.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let mut output = BufReader::new(output);
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        let at = line.split(' ').nth(2).unwrap().trim().parse().unwrap();
        Program { child, input, output, at, dir }
    }

    fn say(&mut self, line: &str) -> String {
        writeln!(self.input, "{line}").unwrap();
        let mut answer = String::new();
        self.output.read_line(&mut answer).unwrap();
        answer.trim().to_owned()
    }

    fn power(&self, what: &str) -> String {
        ipmitool_at(self.at, &["-I", "lanplus", "-C", "3", "power", what]).unwrap()
    }

    fn is_on(&self) -> bool {
        self.power("status").trim() == "Chassis Power is on"
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn until(what: &str, mut happened: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !happened() {
        assert!(begun.elapsed() < PATIENCE, "{what} does not come");
        sleep(Duration::from_millis(20));
    }
}

fn number_in(path: &Path) -> Option<i32> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn lives(process: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    // Killed, and not yet waited for, is dead.
    stat.rsplit(')').next().is_some_and(|rest| !rest.trim().is_empty() && !rest.starts_with(" Z"))
}

#[test]
fn a_hundred_of_them() {
    let mut program = Program::start("127.44.90.1-127.44.90.100", &["--threads", "2"]);
    let free = FreeIpmi::at("127.44.90.[1-100]:6230", "");
    let how = ["-D", "LAN_2_0", "-I", "17"];
    assert_eq!(program.say("127.44.90.7 power on"), "ok");
    let said = free.run("ipmipower", &how, &["--stat"]);
    let on: Vec<&str> = said.lines().filter(|line| line.ends_with(": on")).collect();
    assert_eq!((said.lines().count(), on.len()), (100, 1), "{said}");
    assert!(on[0].starts_with("127.44.90.7:"), "{said}");
    assert_eq!(program.say("all fault dead"), "ok");
    assert_eq!(program.say("127.44.90.8:6230 well"), "ok");
    let said =
        free.run("ipmipower", &[&how[..], &["--session-timeout", "1500"]].concat(), &["--stat"]);
    assert_eq!(said.lines().filter(|line| line.ends_with(": off")).count(), 1, "{said}");
    assert!(program.say("127.44.91.1 power on").starts_with("error"));
    assert!(program.say("all fault nonsense").starts_with("error"));
}

#[test]
fn a_machine_that_is_a_process() {
    let start = "trap 'exit 0' TERM; echo $$ > pid.new; echo \"$KOBOSHI_BOOT\" >> boots; \
                 mv pid.new pid; sleep 600 & echo $! > child; wait";
    let program = Program::start("127.44.91.1", &["--start", start]);
    let pid = program.path("pid");
    assert!(!program.is_on());
    program.power("on");
    until("a process", || number_in(&program.path("child")).is_some());
    let (first, child) = (number_in(&pid).unwrap(), number_in(&program.path("child")).unwrap());
    assert!(program.is_on() && lives(first));

    program.power("reset");
    until("another process", || number_in(&pid).is_some_and(|pid| pid != first));
    until("the end of the first", || !lives(first) && !lives(child));
    assert!(program.is_on());

    program.power("soft");
    until("its own end", || !program.is_on());

    std::fs::remove_file(&pid).unwrap();
    let bootdev = ["-I", "lanplus", "-C", "3", "chassis", "bootdev", "pxe"];
    ipmitool_at(program.at, &bootdev).unwrap();
    program.power("on");
    until("a process", || number_in(&pid).is_some());
    let last = number_in(&pid).unwrap();
    program.power("off");
    assert!(!program.is_on());
    until("the end of the last", || !lives(last));
    assert_eq!(std::fs::read_to_string(program.path("boots")).unwrap(), "\n\npxe\n");
}

/// Whether it ends by SIGTERM, with its input or by SIGKILL, what it started ends too.
#[test]
fn nothing_survives_it() {
    for end in ["TERM", "KILL", "input"] {
        let mut program =
            Program::start("127.44.91.2", &["--on", "--start", "echo $$ > pid; exec sleep 600"]);
        until("a process", || number_in(&program.path("pid")).is_some());
        let process = number_in(&program.path("pid")).unwrap();
        assert!(lives(process));
        if end == "input" {
            let (reader, writer) = std::io::pipe().unwrap();
            drop(reader);
            program.input = ChildStdin::from(std::os::fd::OwnedFd::from(writer));
        } else {
            let id = program.child.id().to_string();
            let killed = Command::new("kill").args([&format!("-{end}"), &id]).status();
            assert!(killed.unwrap().success());
        }
        until("the end of the program", || program.child.try_wait().unwrap().is_some());
        until("the end of the process", || !lives(process));
    }
}

/// QEMU's own banner counts its starts; reset goes by the host's interface or by the monitor, in place.
#[test]
fn a_qemu_is_reset_in_place() {
    for (n, by_monitor) in [(3, true), (4, false)] {
        let vm = format!("127.44.91.{n}:6239");
        let qemu = format!(
            "exec qemu-system-x86_64 -machine pc,accel=tcg -m 32 -nodefaults -display none \
             -qmp unix:qmp,server=on,wait=off -pidfile pid \
             -chardev socket,id=ipmi0,host=127.44.91.{n},port=6239,reconnect=1 \
             -device ipmi-bmc-extern,id=bmc0,chardev=ipmi0 -device isa-ipmi-kcs,bmc=bmc0 \
             -chardev file,id=log,path=log,append=on -device isa-debugcon,iobase=0x402,chardev=log"
        );
        let mut more = vec!["--start", qemu.as_str(), "--vm", vm.as_str()];
        if by_monitor {
            more.extend(["--monitor", "qmp"]);
        }
        let program = Program::start(&format!("127.44.91.{n}"), &more);
        let banners = || {
            let log = std::fs::read(program.path("log")).unwrap_or_default();
            String::from_utf8_lossy(&log).matches("SeaBIOS (version").count()
        };
        program.power("on");
        until("firmware", || banners() > 0);
        let process = number_in(&program.path("pid")).unwrap();
        let before = banners();
        program.power("reset");
        until("firmware again", || banners() > before);
        assert_eq!(number_in(&program.path("pid")), Some(process));
        assert!(lives(process) && program.is_on());
        program.power("off");
        until("the end of QEMU", || !lives(process));
    }
}
