//! A person at a terminal: what he types and sees, who has the line, and his terminal as it was afterwards.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Termios, tcgetattr};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

use crate::world::{KOBOSHI, World, in_world, text};

/// Far beyond what anything here takes.
pub(super) const CEILING: Duration = Duration::from_secs(30);

/// A terminal and `koboshi console` on it, killed when this is dropped.
struct Desk {
    keys: File,
    tty: OwnedFd,
    seen: Arc<Mutex<Vec<u8>>>,
    child: Child,
}

impl Desk {
    fn new(world: &World, words: &[&str]) -> Desk {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
        grantpt(&master).expect("granted");
        unlockpt(&master).expect("unlocked");
        let name =
            ptsname(&master, Vec::new()).expect("it has a name").into_string().expect("text");
        let tty = File::options().read(true).write(true).open(&name).expect("its other end");
        let end = || Stdio::from(tty.try_clone().expect("another one"));
        // It becomes the session's terminal, as a login shell's does.
        let mut command = Command::new("setsid");
        command.args(["--ctty", KOBOSHI, "console"]).args(words).arg("--state").arg(&world.state);
        let child = command.stdin(end()).stdout(end()).stderr(end()).spawn();
        let child = child.expect("koboshi runs");
        let keys = File::from(master);
        let (seen, mut read) = (Arc::default(), keys.try_clone().expect("another one"));
        let sees: Arc<Mutex<Vec<u8>>> = Arc::clone(&seen);
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(many) = read.read(&mut buffer) {
                sees.lock().expect("no panic").extend_from_slice(&buffer[..many]);
            }
        });
        Desk { keys, tty: tty.into(), seen, child }
    }

    fn modes(&self) -> Termios {
        tcgetattr(self.tty.as_fd()).expect("it is a terminal")
    }

    fn types(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).expect("the terminal takes it");
    }

    /// Waits until this is seen, and forgets what was until then.
    async fn sees(&mut self, part: &str) -> String {
        let begun = Instant::now();
        loop {
            {
                let mut seen = self.seen.lock().expect("no panic");
                let found = seen.windows(part.len()).position(|seen| seen == part.as_bytes());
                if let Some(at) = found {
                    let until: Vec<u8> = seen.drain(..at + part.len()).collect();
                    return String::from_utf8_lossy(&until).into_owned();
                }
                let text = String::from_utf8_lossy(&seen);
                assert!(begun.elapsed() < CEILING, "no {part:?} in {text:?}");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let kill = Command::new("kill").args([name, &pid]).status().expect("kill runs");
        assert!(kill.success());
    }

    async fn ends(&mut self) -> ExitStatus {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("it is ours") {
                return status;
            }
            let seen =
                || String::from_utf8_lossy(&self.seen.lock().expect("no panic")).into_owned();
            assert!(begun.elapsed() < CEILING, "it does not end: {:?}", seen());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        let _it_may_have_ended = self.child.kill();
        let _it_is_ours = self.child.wait();
    }
}

fn same(one: &Termios, other: &Termios) -> bool {
    let modes = |t: &Termios| (t.input_modes, t.output_modes, t.local_modes, t.control_modes);
    modes(one) == modes(other)
}

pub(super) fn site(folder: &Path) -> String {
    format!(
        "[site]\nname = \"console\"\n[net]\ninterface = \"kb0\"\ncidr = \"10.77.0.0/24\"\n\
         pool = \"10.77.0.200-10.77.0.250\"\n[console]\nkeystrokes = true\n[machines]\nsw1 = {{ console = \"unix:{}/sw1.sock\" }}\n",
        folder.display()
    )
}

pub(super) async fn reads(machine: &mut UnixStream, expected: &str) {
    let mut seen = vec![0; expected.len()];
    let read = tokio::time::timeout(CEILING, machine.read_exact(&mut seen)).await;
    read.unwrap_or_else(|_| panic!("no {expected:?} in {seen:?}")).expect("it is open");
    assert_eq!(String::from_utf8_lossy(&seen), expected);
}

#[test]
fn a_terminal_is_typed_at_spared_and_given_back() {
    in_world("", vec![], async |mut world| {
        let folder = world.site.parent().expect("a folder").to_path_buf();
        std::fs::write(&world.site, site(&folder)).expect("written");
        let listener = UnixListener::bind(folder.join("sw1.sock")).expect("a socket");
        world.serve().await;
        let mut machine = listener.accept().await.expect("it comes").0;
        let begun = Instant::now();
        while world.json(&["console"])[0]["state"] != "up" {
            assert!(begun.elapsed() < CEILING, "{}", world.ok(&["console"]));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }

        let mut alice = Desk::new(&world, &["sw1"]);
        let before = Desk::new(&world, &["nobody"]);
        alice.sees("sw1's console is up").await;
        alice.sees("root (cli) holds the line").await;
        assert!(!alice.modes().local_modes.contains(LocalModes::ICANON), "it is raw");
        alice.types("ls\r");
        reads(&mut machine, "ls\r").await;
        let said = b"\x1b]0;owned\x07\x1b[21t\x05\x1b[1mlogin: ";
        machine.write_all(said).await.expect("it is read");
        let seen = alice.sees("\x1b[1mlogin: ").await;
        assert!(!seen.contains("owned") && !seen.contains("21t") && !seen.contains('\x05'));

        // Keys for koboshi, and keys for the machine.
        alice.types("\r~?");
        alice.sees("Within ssh").await;
        alice.types("~B");
        alice.sees("it has no BREAK").await;
        alice.types("~~.\r");
        reads(&mut machine, "\r~.\r").await;
        let table = world.ok(&["console"]);
        assert!(table.contains("OPERATOR") && table.contains("root (cli), "), "{table}");

        // Another one takes it, types what comes from a file, and leaves.
        let mut bob = Command::new(KOBOSHI);
        bob.args(["console", "sw1", "--take", "--state"]).arg(&world.state);
        let mut bob =
            bob.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("koboshi runs");
        bob.stdin.take().expect("a pipe").write_all(b"id\r").expect("it reads");
        let bob = bob.wait_with_output().expect("it ends");
        assert!(bob.status.success(), "{}", text(&bob));
        assert!(bob.stdout.windows(said.len()).any(|part| part == said), "a pipe gets every byte");
        reads(&mut machine, "id\r").await;
        alice.sees("root (cli) took the line from root (cli)").await;
        alice.sees("root (cli) let go of the line").await;
        let events = world.ok(&["events"]);
        assert!(events.contains("root (cli) took the line from root (cli)"), "{events}");

        // The site wants what is typed kept, and not what has no echo.
        alice.types("~a");
        alice.sees("root (cli) holds the line").await;
        machine.write_all(b"\r\nPassword: ").await.expect("it is read");
        alice.sees("Password: ").await;
        alice.types("hunter2\r");
        reads(&mut machine, "hunter2\r").await;
        machine.write_all(b"\r\n# ").await.expect("it is read");
        alice.sees("# ").await;
        alice.types("id\r");
        reads(&mut machine, "id\r").await;
        machine.write_all(b"id\r\nuid=0\r\n# ").await.expect("it is read");
        let path = world.state.join("consoles/sw1/keys");
        let begun = Instant::now();
        let kept = loop {
            let kept = std::fs::read_to_string(&path).unwrap_or_default();
            if kept.contains(r#""keys":"id^M""#) {
                break kept;
            }
            assert!(begun.elapsed() < CEILING, "{kept}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        assert!(kept.contains("[7 hidden]^M") && !kept.contains("hunter2"), "{kept}");
        let mode = std::fs::metadata(&path).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);

        // The appliance is killed and comes back, and so does the line.
        world.kill().await;
        alice.sees("it is waited for").await;
        world.serve().await;
        let mut machine = listener.accept().await.expect("it comes again").0;
        alice.sees("root (cli) holds the line").await;
        alice.types("x");
        reads(&mut machine, "x").await;

        alice.signal("-TERM");
        assert_eq!(alice.ends().await.code(), Some(143));
        assert!(same(&alice.modes(), &before.modes()), "its modes are not as they were");
        let mut again = Desk::new(&world, &["sw1"]);
        again.sees("holds the line").await;
        again.signal("-TSTP");
        let begun = Instant::now();
        while !same(&again.modes(), &before.modes()) {
            assert!(begun.elapsed() < CEILING, "stopped, its terminal is raw");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        again.signal("-CONT");
        again.sees("here again").await;
        assert!(!again.modes().local_modes.contains(LocalModes::ICANON), "it is raw again");
        again.types("~.");
        assert_eq!(again.ends().await.code(), Some(0));
        assert!(same(&again.modes(), &before.modes()), "its modes are not as they were");
        let floor = &world.json(&["console"])[0];
        assert_eq!(floor.get("holder"), None, "who left let go: {floor}");
        assert!(world.stop().await);
    });
}
