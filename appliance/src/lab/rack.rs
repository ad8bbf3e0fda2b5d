//! Machines on a wire, and what else runs beside them.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio::process::{Child, Command};

use super::Error;
use super::keeper;
use super::machine::Machine;
use super::net::Wire;
use super::qemu::Spec;

/// How long a machine may take to settle before the next one is switched on regardless.
const SETTLE: Duration = Duration::from_secs(150);

/// A rack, raised. Dropping it switches everything off.
pub struct Rack {
    // Machines before the wire: fields drop in order, and a tap outlives its QEMU that way.
    machines: Vec<Machine>,
    wire: Wire,
    dir: PathBuf,
}

impl Rack {
    /// Racks the machines, all switched off. `dir` keeps their disks, UEFI variables and logs
    /// (`m01.console` is everything m01 ever printed); it is made if missing.
    pub fn raise(wire: Wire, dir: &Path, specs: Vec<Spec>) -> Result<Rack, Error> {
        std::fs::create_dir_all(dir).map_err(Error::io(format!("making {}", dir.display())))?;
        let machines = specs
            .into_iter()
            .map(|spec| Machine::rack(&wire, dir, spec))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Rack { machines, wire, dir: dir.to_path_buf() })
    }

    /// The network.
    pub fn wire(&self) -> &Wire {
        &self.wire
    }

    /// Where its files are.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// All machines, in the order they were racked.
    pub fn machines(&self) -> &[Machine] {
        &self.machines
    }

    /// One machine.
    pub fn machine(&self, name: &str) -> Result<&Machine, Error> {
        self.machines.iter().find(|machine| machine.name() == name).ok_or_else(|| {
            let known: Vec<&str> = self.machines.iter().map(Machine::name).collect();
            Error::UnknownMachine { name: name.to_string(), known: known.join(", ") }
        })
    }

    /// A command that will run inside the rack, by [`Rack::spawn`], and not outlive it. (What it
    /// starts in its turn can: the kernel's promise is for children, not for grandchildren.)
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        keeper::bound(program)
    }

    /// Runs a command made by [`Rack::command`] inside the rack: the appliance, for example.
    pub async fn spawn(&self, command: Command) -> Result<Child, Error> {
        self.wire.keeper().spawn(command).await.map_err(Error::io("running a command in the rack"))
    }

    /// Runs a short command inside the rack and hands back what it printed.
    pub fn output(&self, program: &str, arguments: &[&str]) -> Result<std::process::Output, Error> {
        let mut command = std::process::Command::new(program);
        command.args(arguments);
        let doing = format!("running {program} in the rack");
        self.wire.keeper().output(command).map_err(Error::io(doing))
    }

    /// Switches machines on, at most `at_once` of them booting at a time: a firmware's timeouts
    /// are short when two processors emulate five.
    pub async fn power_on_in_turn(
        &self,
        machines: &[Machine],
        at_once: usize,
        settled: impl Fn(&Machine) -> bool,
    ) -> Result<(), Error> {
        let mut booting: Vec<(&Machine, Instant)> = Vec::new();
        for machine in machines {
            while booting.len() >= at_once.max(1) {
                tokio::time::sleep(Duration::from_millis(300)).await;
                booting.retain(|(machine, since)| !settled(machine) && since.elapsed() < SETTLE);
            }
            machine.power_on().await?;
            booting.push((machine, Instant::now()));
        }
        Ok(())
    }

    /// Switches everything off and waits until it is.
    pub async fn lower(self) -> Result<(), Error> {
        for machine in &self.machines {
            machine.power_off().await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::machine::Power;
    use crate::lab::net::Plan;
    use crate::lab::qemu::Disk;
    use crate::lab::{control, on_wire};
    use koboshi_pxe::mac::Mac;

    fn small(name: &str) -> Spec {
        let mac = Mac([0x52, 0x54, 0, 0x77, 0, 9]);
        Spec { memory_mib: 64, disks: vec![Disk::new(8, "disk0")], ..Spec::new(name, mac) }
    }

    /// From the first byte after power-on, through reset, to power-off: the serial line is both
    /// screen and keyboard of SeaBIOS and iPXE (S24).
    #[test]
    fn a_machine_obeys_its_buttons_and_its_console() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().to_path_buf();
        on_wire(Plan::default(), move |wire| async move {
            let minute = Duration::from_secs(60);
            let rack = Rack::raise(wire, &path, vec![small("m01")]).expect("raised");
            let m01 = rack.machine("m01").expect("racked");
            assert_eq!(m01.status().await, Power::Off);
            assert!(m01.reset().await.is_err(), "no reset without power");

            let mut viewer = m01.viewer();
            m01.power_on().await.expect("switched on");
            viewer.follow(&["SeaBIOS", "iPXE initialising", "Press Ctrl-B"], minute).await.unwrap();
            viewer.send("\x02").await.expect("attached");
            viewer.expect("iPXE>", minute).await.unwrap();
            viewer.enter("echo uuid ${uuid}", minute).await.unwrap();
            let wanted = format!("uuid {}", m01.spec().uuid());
            viewer.expect(&wanted, minute).await.unwrap();

            m01.reset().await.expect("it runs");
            viewer.follow(&["SeaBIOS", "net0: 52:54:00:77:00:09"], minute).await.unwrap();
            assert!(matches!(m01.status().await, Power::On(_)));
            m01.power_off().await.expect("switched off");
            assert_eq!(m01.status().await, Power::Off);
            let log = std::fs::read(path.join("m01.console")).expect("a log");
            assert!(log.starts_with(b"\x1bc"), "from the first byte");
        })
        .expect("a namespace");
    }

    #[test]
    fn another_terminal_sees_and_commands_the_rack() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().to_path_buf();
        on_wire(Plan::default(), move |wire| async move {
            let rack = std::sync::Arc::new(Rack::raise(wire, &path, vec![small("m01")]).unwrap());
            let door = control::Door::open(&path).await.expect("a socket");
            tokio::spawn(door.serve(std::sync::Arc::clone(&rack)));
            assert!(control::Door::open(&path).await.is_err(), "a second rack in the same place");

            let status = control::ask_status(&path).await.expect("answered");
            assert_eq!(status.machines[0].on_for, None);
            let nobody = ["m77".to_string()];
            let error = control::ask_power(&path, &nobody, control::Verb::On).await.unwrap_err();
            assert!(error.to_string().contains("m77") && error.to_string().contains("m01"));
            control::ask_power(&path, &[], control::Verb::On).await.expect("switched on");
            let mut line = control::ask_console(&path, "m01", 4096).await.expect("attached");
            let mut heard = String::new();
            while !heard.contains("SeaBIOS") {
                let piece = tokio::io::AsyncBufReadExt::fill_buf(&mut line).await.expect("open");
                assert!(!piece.is_empty(), "hung up after {heard:?}");
                heard += &String::from_utf8_lossy(piece);
                let length = piece.len();
                tokio::io::AsyncBufReadExt::consume(&mut line, length);
            }
            let status = control::ask_status(&path).await.expect("answered");
            assert!(status.machines[0].on_for.is_some());
            control::ask_power(&path, &[], control::Verb::Off).await.expect("switched off");

            // What `koboshi lab exec` does, from a thread outside the namespace.
            let net = format!("--net={}", status.namespace);
            let inside = std::process::Command::new("nsenter")
                .args([net.as_str(), "ip", "-4", "-o", "addr"])
                .output()
                .expect("nsenter");
            let addresses = String::from_utf8_lossy(&inside.stdout).into_owned();
            assert!(addresses.contains("10.77.0.1/24"), "{addresses}");
        })
        .expect("a namespace");
        assert!(!dir.path().join("lab.sock").exists(), "the socket goes with the rack");
    }

    const VICTIM: &str = "KOBOSHI_TEST_VICTIM";

    /// `kill -9` of the program that raised a rack leaves no QEMU, no namespace, nothing.
    #[test]
    fn a_killed_rack_leaves_nothing_behind() {
        if let Some(dir) = std::env::var_os(VICTIM) {
            raise_and_wait(PathBuf::from(dir));
        }
        let dir = tempfile::tempdir().expect("a directory");
        let marker = dir.path().display().to_string();
        let mut victim = std::process::Command::new(std::env::current_exe().expect("a test"))
            .args(["lab::rack::tests::a_killed_rack_leaves_nothing_behind", "--exact"])
            .env(VICTIM, dir.path())
            .spawn()
            .expect("the same program");
        let up = dir.path().join("up");
        wait_until("the rack is up", || up.exists());
        assert_eq!(processes_with(&marker).len(), 2, "a QEMU and a tail");

        victim.kill().expect("kill -9");
        victim.wait().expect("killed");
        wait_until("everything is gone", || processes_with(&marker).is_empty());
    }

    fn raise_and_wait(dir: PathBuf) -> ! {
        let _ = on_wire(Plan::default(), move |wire| async move {
            let rack = Rack::raise(wire, &dir, vec![small("m01")]).expect("raised");
            rack.machines()[0].power_on().await.expect("switched on");
            let mut tail = rack.command("tail");
            tail.arg("-f").arg(dir.join("m01.console"));
            let _tail = rack.spawn(tail).await.expect("spawned");
            tokio::time::sleep(Duration::from_millis(300)).await;
            std::fs::write(dir.join("up"), "").expect("written");
            std::future::pending::<()>().await;
        });
        unreachable!("killed before");
    }

    /// Living processes that name the marker on their command line (without this one).
    fn processes_with(marker: &str) -> Vec<String> {
        let entries = std::fs::read_dir("/proc").expect("/proc").flatten();
        let lines = entries.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
        let lines = lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " "));
        lines.filter(|line| line.contains(marker)).collect()
    }

    fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
        let began = Instant::now();
        while !done() {
            assert!(began.elapsed() < Duration::from_secs(60), "{what}: not within a minute");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}
