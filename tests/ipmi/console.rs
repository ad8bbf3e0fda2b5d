//! Consoles that are always on: everybody sees what the machine says; a killed appliance has them back within
//! seconds; a thief is named and left in peace; the site file decides which there are.

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::process::Stdio;
use std::time::{Duration, Instant};

use koboshi_bmcsim::config::Serial;
use koboshi_ipmi::Password;
use koboshi_ipmi::session::Access;
use koboshi_ipmi::sol::{Console, Options, Takeover};
use tokio::io::AsyncReadExt;
use tokio::process::{Child, ChildStdout};

use super::{Bmcs, PASSWORD, write_site};
use crate::world::{KOBOSHI, World, in_world, text};

/// Far beyond what anything here takes.
const CEILING: Duration = Duration::from_secs(60);

/// Machines with a console each, and the other ends of their serial ports.
fn machines(net: u8, many: u8) -> (Bmcs, Vec<TcpStream>) {
    let listen = |_| TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let ports: Vec<TcpListener> = (0..many).map(listen).collect();
    let bmcs = Bmcs::new(net, many, |number, config| {
        let port = &ports[usize::from(number) - 1];
        config.serial = Serial::Tcp(port.local_addr().expect("it listens"));
    });
    let hosts = ports.iter().map(|port| port.accept().expect("the BMC connects").0).collect();
    (bmcs, hosts)
}

fn write(world: &World, bmcs: &Bmcs) {
    let lines = bmcs.lines().replace("bmc = {", "console = \"sol\", bmc = {");
    write_site(world.site.parent().expect("a folder"), &lines, "kb0");
}

/// Waits until a machine's console is so.
async fn console_is(world: &World, machine: &str, state: &str) -> serde_json::Value {
    let begun = Instant::now();
    loop {
        let rows = world.json(&["console"]);
        let row = rows.as_array().expect("rows").iter().find(|row| row["machine"] == machine);
        if let Some(row) = row.filter(|row| row["state"] == state) {
            return row.clone();
        }
        assert!(begun.elapsed() < CEILING, "{machine} is not {state}: {rows}\n{}", world.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Whose session has a machine's console.
fn owner(bmcs: &Bmcs, number: usize) -> Option<u32> {
    bmcs.with(number, |bmc| bmc.sol.owner())
}

/// `koboshi console … --watch`.
struct Viewer {
    child: Child,
    out: ChildStdout,
    seen: Vec<u8>,
}

impl Viewer {
    async fn new(world: &World, machine: &str, last: &str) -> Viewer {
        let mut command = world.rack.command(KOBOSHI);
        command.args(["console", machine, "--watch", "--last", last]).arg("--state");
        command.arg(&world.state).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = world.rack.spawn(command).await.expect("koboshi runs");
        let out = child.stdout.take().expect("a pipe");
        Viewer { child, out, seen: Vec::new() }
    }

    /// Reads so much.
    async fn read(&mut self, many: usize) -> &[u8] {
        let mut buffer = vec![0; 64 * 1024];
        while self.seen.len() < many {
            let read = tokio::time::timeout(CEILING, self.out.read(&mut buffer)).await;
            let read = read.unwrap_or_else(|_| panic!("{} of {many}", self.seen.len()));
            match read.expect("it can be read") {
                0 => panic!("it ended after {} of {many}", self.seen.len()),
                read => self.seen.extend_from_slice(&buffer[..read]),
            }
        }
        &self.seen
    }

    /// Waits for its end; what it said beside the characters.
    async fn end(mut self) -> String {
        let mut rest = Vec::new();
        let ended = tokio::time::timeout(CEILING, self.out.read_to_end(&mut rest)).await;
        ended.expect("it ends").expect("it can be read");
        let output = self.child.wait_with_output().await.expect("it ended");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }
}

/// Every byte there is, among lines.
fn said(many: usize) -> Vec<u8> {
    let line = |n: usize| {
        let mut line = format!("line {n} of the machine's own words ").into_bytes();
        line.push(u8::try_from(n % 256).expect("a byte"));
        line.extend_from_slice(b"\r\n");
        line
    };
    (0..).flat_map(line).take(many).collect()
}

#[test]
fn a_killed_appliance_has_its_console_back_within_seconds() {
    in_world("", vec![], async |mut world| {
        let (bmcs, mut hosts) = machines(20, 1);
        write(&world, &bmcs);
        world.serve().await;
        console_is(&world, "m01", "up").await;
        // Whoever looks sees all of it, from the beginning or from the middle on.
        let words = said(60_000);
        let mut first = Viewer::new(&world, "m01", "100000").await;
        let (begin, rest) = words.split_at(20_000);
        hosts[0].write_all(begin).expect("the BMC takes it");
        assert!(first.read(begin.len()).await == begin, "not what the machine said");
        let mut second = Viewer::new(&world, "m01", "100000").await;
        hosts[0].write_all(rest).expect("the BMC takes it");
        assert!(first.read(words.len()).await == words, "not what the machine said");
        assert!(second.read(words.len()).await == words, "not what the machine said");
        let mut third = Viewer::new(&world, "m01", "2").await;
        let tail = words.iter().rev().position(|byte| *byte == b'\n').expect("lines");
        assert!(third.read(tail).await.len() < 200, "two lines were asked for");

        // The BMC would keep the orphan for a minute.
        let orphan = owner(&bmcs, 1).expect("it is up");
        let journal = world.state.join("bmcs/bmc-sessions.json");
        let kept = |text: String| text.contains(&orphan.to_string());
        let begun = Instant::now();
        while !std::fs::read_to_string(&journal).is_ok_and(kept) {
            assert!(begun.elapsed() < CEILING, "the session is not written down");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let last = world.ok(&["log", "m01", "--last", "1"]);
        let line = words.split(|byte| *byte == b'\n').next_back().expect("a line");
        assert_eq!(last.trim_end(), String::from_utf8_lossy(line).trim_end());
        let found = world.ok(&["log", "m01", "--grep", "^line 7 of", "--context", "1"]);
        assert_eq!(found.matches("of the machine's own words").count(), 3, "{found}");
        let cast = world.ok(&["log", "m01", "--since", "1h", "--export", "cast"]);
        let mut cast = cast.lines().map(serde_json::from_str::<serde_json::Value>);
        assert_eq!(cast.next().expect("a header").expect("JSON")["version"], 2);
        assert!(cast.all(|event| event.is_ok_and(|event| event[0].is_f64())));
        let screen = world.ok(&["console", "m01", "--screen"]);
        assert!(screen.contains(String::from_utf8_lossy(line).trim_end()), "{screen}");

        // What was said is in a file within the fifth of a second.
        tokio::time::sleep(Duration::from_millis(300)).await;
        world.kill().await;
        assert_eq!(owner(&bmcs, 1), Some(orphan));
        let begun = Instant::now();
        world.serve().await;
        console_is(&world, "m01", "up").await;
        let took = begun.elapsed();
        assert!(took < Duration::from_secs(20), "{took:?}");
        println!("back {took:?} after the start");
        assert_ne!(owner(&bmcs, 1), Some(orphan));
        assert!(bmcs.with(1, |bmc| bmc.sessions.get(orphan).is_none()), "it was closed");
        let mut viewer = Viewer::new(&world, "m01", "100000").await;
        hosts[0].write_all(b"login: ").expect("the BMC takes it");
        // It remembers what was said before it was killed.
        let words = [&words[..], b"login: "].concat();
        assert!(viewer.read(words.len()).await == words, "not what the machine said");
        let events = world.ok(&["events"]);
        assert!(events.contains("m01 its console is up"), "{events}");

        // Followed, and over many machines.
        let past = world.ok(&["log", "@all", "--since", "1h", "--grep", "login:", "--times"]);
        assert!(past.starts_with("m01: 20") && past.trim_end().ends_with("login:"), "{past}");

        // At its end nothing is left on the BMC.
        assert!(world.stop().await);
        assert_eq!(owner(&bmcs, 1), None);
        assert_eq!(bmcs.with(1, |bmc| bmc.sessions.open().count()), 0, "a session was left open");
        // Without an appliance the files are read.
        let past = world.ok(&["log", "m01", "--last", "3"]);
        assert!(past.contains("login:") && past.contains("the console is closed"), "{past}");
        let marks = viewer.end().await;
        assert!(marks.contains("koboshi did not have this console"), "{marks}");
        assert!(marks.contains("the console is closed"), "{marks}");
    });
}

/// Somebody else takes a machine's console.
async fn thief(bmcs: &Bmcs, number: usize, takeover: Takeover) -> Console {
    let at = bmcs.addresses[number - 1];
    let password = Password::new(PASSWORD).expect("short enough");
    let mut access = Access::new(at.ip().to_string(), "admin", password);
    access.port = at.port();
    let options = Options { takeover, ..Options::default() };
    koboshi_ipmi::Bmc::new(access).sol(options).await.expect("it is given")
}

#[test]
fn a_thief_is_named_and_the_site_decides_which_consoles_there_are() {
    in_world("", vec![], async |mut world| {
        let (bmcs, mut hosts) = machines(21, 3);
        write(&world, &bmcs);
        // One is there before us, one comes later.
        let before = thief(&bmcs, 1, Takeover::Never).await;
        world.serve().await;
        let by = "admin from 127.0.0.1";
        assert_eq!(console_is(&world, "m01", "stolen").await["by"], by);
        console_is(&world, "m02", "up").await;
        console_is(&world, "m03", "up").await;
        let viewer = Viewer::new(&world, "m02", "20").await;
        let later = thief(&bmcs, 2, Takeover::Always).await;
        assert_eq!(console_is(&world, "m02", "stolen").await["by"], by);
        let table = world.ok(&["console"]);
        assert!(table.contains("taken") && table.contains(&format!("by {by}")), "{table}");
        let thieves = (owner(&bmcs, 1), owner(&bmcs, 2));
        // Longer than it takes to look again.
        tokio::time::sleep(Duration::from_secs(12)).await;
        assert_eq!((owner(&bmcs, 1), owner(&bmcs, 2)), thieves, "they were robbed");
        before.close().await;
        later.close().await;
        console_is(&world, "m01", "up").await;
        console_is(&world, "m02", "up").await;

        // A machine without a console any more has none; the others' are not touched.
        let ours = (owner(&bmcs, 1), owner(&bmcs, 3));
        let site = std::fs::read_to_string(&world.site).expect("it is there");
        let lines = site.lines().map(|line| match line.starts_with("m02") {
            true => line.replace("console = \"sol\", ", ""),
            false => line.to_string(),
        });
        std::fs::write(&world.site, lines.collect::<Vec<_>>().join("\n")).expect("written");
        world.run(&["reload", "--accept"]);
        let marks = viewer.end().await;
        assert!(marks.contains(&format!("taken by {by}")), "{marks}");
        assert!(marks.contains("up again") && marks.contains("is closed"), "{marks}");
        assert_eq!(owner(&bmcs, 2), None);
        assert_eq!((owner(&bmcs, 1), owner(&bmcs, 3)), ours);
        let gone = world.run(&["console", "m02", "--watch"]);
        assert_eq!(gone.status.code(), Some(2));
        assert!(text(&gone).contains("no console for m02"), "{}", text(&gone));
        let mut viewer = Viewer::new(&world, "m03", "20").await;
        hosts[2].write_all(b"still here").expect("the BMC takes it");
        assert_eq!(viewer.read(10).await, b"still here");
        assert!(world.stop().await);
        assert!((1..=3).all(|number| owner(&bmcs, number).is_none()));
    });
}
