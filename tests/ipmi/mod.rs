//! Machines reached out of band, as a user does it: `power`, `bootdev`, `sensors` … with simulated BMCs on
//! loopback addresses, through the appliance and without one.

mod appliance;
mod console;

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use koboshi_bmcsim::sim::Sim;
use koboshi_bmcsim::{Bmc, Config};
use koboshi_ipmi::Password;
use serde_json::Value;
use tempfile::TempDir;

use crate::world::{KOBOSHI, text};

const PASSWORD: &str = "s3cret-of-bmcs";

/// BMCs of machines m01, m02 …, all of them on in the beginning.
struct Bmcs {
    sim: Sim,
    addresses: Vec<SocketAddr>,
}

impl Bmcs {
    /// On 127.44.`net`.1 and so on, with what each does otherwise.
    fn new(net: u8, many: u8, change: impl Fn(u8, &mut Config)) -> Bmcs {
        let config = |number: u8| {
            let password = Password::new(PASSWORD).expect("short enough");
            let mut config = Config::with_admin("admin", password);
            config.listen = SocketAddr::from((Ipv4Addr::new(127, 44, net, number), 0));
            config.seed = u64::from(number);
            config.on = true;
            change(number, &mut config);
            config
        };
        let sim = Sim::fleet((1..=many).map(config).collect(), 1).expect("BMCs run");
        let addresses = sim.addresses().collect();
        Bmcs { sim, addresses }
    }

    /// Their lines in `[machines]`.
    fn lines(&self) -> String {
        let line = |(number, at): (usize, &SocketAddr)| {
            let number = number + 1;
            format!(
                "m{number:02} = {{ mac = [\"52:54:00:77:00:{number:02x}\"], bmc = {{ host = \"{}\", port = {} }} }}\n",
                at.ip(),
                at.port()
            )
        };
        self.addresses.iter().enumerate().map(line).collect()
    }

    /// Looks at m01's, m02's …, or changes it.
    fn with<T>(&self, number: usize, look: impl FnOnce(&mut Bmc) -> T) -> T {
        self.sim.with_at(self.addresses[number - 1], look).expect("it is there")
    }

    fn is_on(&self, number: usize) -> bool {
        self.with(number, |bmc| bmc.chassis.on)
    }
}

/// A site file with these machines, and the password beside it.
fn write_site(folder: &Path, machines: &str, interface: &str) {
    let site = format!(
        "[site]\nname = \"ipmi\"\n\n[net]\ninterface = \"{interface}\"\ncidr = \"10.77.0.0/24\"\n\
         pool = \"10.77.0.200-10.77.0.250\"\n\n\
         [defaults.bmc]\nuser = \"admin\"\npassword-file = \"bmc.pw\"\n\n\
         [roles.web]\nimage = \"web\"\n\n[machines]\n{machines}\n"
    );
    std::fs::write(folder.join("site.toml"), site).expect("written");
    secret(&folder.join("bmc.pw"), PASSWORD);
}

fn secret(path: &Path, password: &str) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::write(path, format!("{password}\n")).expect("written");
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).expect("changed");
}

/// Somebody with a site file, and no appliance.
struct Here(TempDir);

impl Here {
    fn new(machines: &str) -> Here {
        let dir = TempDir::new().expect("a directory");
        write_site(dir.path(), machines, "nowhere0");
        Here(dir)
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(KOBOSHI);
        command.current_dir(self.0.path()).args(words).args(["--site", "site.toml"]);
        command.env("XDG_CACHE_HOME", self.0.path().join("cache")).stdin(Stdio::null());
        command
    }

    fn run(&self, words: &[&str]) -> Output {
        self.command(words).output().expect("koboshi runs")
    }

    /// Exit code, and everything it printed.
    fn says(&self, words: &[&str]) -> (i32, String) {
        let output = self.run(words);
        (output.status.code().expect("an exit code"), text(&output))
    }

    /// What it printed as JSON, by machine.
    fn json(&self, words: &[&str]) -> Vec<Value> {
        let mut all = words.to_vec();
        all.push("--json");
        let output = self.run(&all);
        let out = String::from_utf8(output.stdout).expect("UTF-8");
        let mut lines: Vec<Value> =
            out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        lines.sort_by_key(|line| line["machine"].to_string());
        lines
    }
}

#[test]
fn a_row_each_as_it_comes_and_who_is_how_at_the_end() {
    let bmcs = Bmcs::new(1, 4, |number, config| match number {
        2 => config.on = false,
        3 => config.faults.dead = true,
        4 => config.users[0].password = Password::new("another").expect("short enough"),
        _ => {}
    });
    let here = Here::new(&(bmcs.lines() + "sw1 = { console = \"serial:/dev/ttyUSB1@9600\" }\n"));
    let mut command = here.command(&["power", "@all", "status", "--patience", "4"]);
    let mut child =
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("koboshi runs");
    let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    let lines: Vec<String> = lines.map(|line| line.expect("UTF-8")).collect();
    let output = child.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{lines:?}\n{said}");
    assert_eq!(lines[0].split_whitespace().collect::<Vec<_>>(), ["MACHINE", "POWER", "NOTE"]);
    let row = |name: &str| {
        let row = lines.iter().find(|line| line.starts_with(name));
        row.unwrap_or_else(|| panic!("{name}: {lines:?}")).as_str()
    };
    assert_eq!((row("m01"), row("m02")), ("m01      on", "m02      off"));
    assert!(row("m03").contains("no answer within"), "{lines:?}");
    assert!(row("m04").contains("wrong password for admin"), "{lines:?}");
    assert!(row("sw1").contains("the site names no BMC for sw1"), "{lines:?}");
    // The dead one holds nobody up.
    assert!(lines.last().is_some_and(|line| line.starts_with("m03")), "{lines:?}");
    let end = "off: m02; on: m01; no BMC: sw1; no answer: m03; wrong password: m04";
    assert!(said.contains(end), "{said}");
    assert!(said.contains("its password file"), "{said}");

    let rows = here.json(&["power", "m[01-02]"]);
    assert_eq!((&rows[0]["power"], &rows[1]["power"]), (&"on".into(), &"off".into()));
    let rows = here.json(&["power", "m04"]);
    assert_eq!(rows[0]["failed"], "wrong password");
    assert!(rows[0]["error"].as_str().is_some_and(|error| error.contains("admin")));
}

#[test]
fn power_is_switched_read_back_and_staggered() {
    let bmcs = Bmcs::new(2, 3, |_, _| {});
    let here = Here::new(&bmcs.lines());
    let (code, said) = here.says(&["power", "m[01-03]", "off"]);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("m01      off    was on") && said.contains("off: m[01-03]"), "{said}");
    assert!((1..=3).all(|number| !bmcs.is_on(number)));
    let (code, said) = here.says(&["power", "m01", "off"]);
    assert!(code == 0 && said.contains("as before"), "{said}");
    let (code, said) = here.says(&["power", "m01", "reset"]);
    assert!(code == 1 && said.contains("it is off, and stays so"), "{said}");
    let begun = Instant::now();
    let (code, said) = here.says(&["power", "m[01-03]", "on", "--stagger", "0.5"]);
    assert_eq!(code, 0, "{said}");
    assert!(begun.elapsed() >= Duration::from_secs(1), "they started all at once");
    assert!((1..=3).all(|number| bmcs.is_on(number)));
    let (code, said) = here.says(&["power", "m02", "cycle"]);
    assert!(code == 0 && said.contains("cycled"), "{said}");
    // Its operating system does not listen.
    bmcs.with(3, |bmc| bmc.chassis.shutdown = Duration::from_secs(3600));
    let (code, said) = here.says(&["power", "m03", "soft", "--wait", "1"]);
    assert!(code == 1 && said.contains("still on after 1 s"), "{said}");
}

#[test]
fn many_are_not_switched_off_on_one_word_and_protected_ones_not_at_all() {
    let bmcs = Bmcs::new(3, 6, |_, _| {});
    let lines = bmcs.lines().replacen("m06 = {", "m06 = { protected = true,", 1);
    let here = Here::new(&lines);
    let (code, said) = here.says(&["power", "@all", "off"]);
    assert_eq!(code, 2, "{said}");
    assert!(
        said.contains("power off for 6 machines: m[01-06]") && said.contains("--yes"),
        "{said}"
    );
    assert!((1..=6).all(|number| bmcs.is_on(number)));
    let (code, said) = here.says(&["power", "@all", "off", "--yes"]);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("off: m[01-05]; protected: m06"), "{said}");
    assert!((1..=5).all(|number| !bmcs.is_on(number)) && bmcs.is_on(6));
    // Looking takes nothing away.
    let (code, said) = here.says(&["power", "@all"]);
    assert!(code == 0 && said.contains("off: m[01-05]; on: m06"), "{said}");
}

#[test]
fn hardware_without_ipmi_answers_the_same_words() {
    let here = Here::new("m01 = { power = \"exec:./power\" }\n");
    let script = "#!/bin/sh\necho \"$1\" >> log\ncase \"$1\" in\nstatus) cat state ;;\non|off) echo \"$1\" > state ;;\nesac\n";
    let folder = here.0.path();
    std::fs::write(folder.join("power"), script).expect("written");
    std::fs::write(folder.join("state"), "off\n").expect("written");
    let made = Command::new("chmod").args(["+x", "power"]).current_dir(folder).status();
    assert!(made.expect("chmod runs").success());
    for (words, code, says) in [
        (&["power", "m01"][..], 0, "off"),
        (&["power", "m01", "on"], 0, "was off"),
        (&["power", "m01", "cycle"], 0, "on"),
        (&["power", "m01", "diag"], 1, "its power command has no diag"),
        (&["power", "m01", "off"], 0, "was on"),
        (&["bootdev", "m01", "pxe"], 1, "the site names no BMC for m01"),
    ] {
        let (ended, said) = here.says(words);
        assert!(ended == code && said.contains(says), "{words:?}: {said}");
    }
    let log = std::fs::read_to_string(folder.join("log")).expect("it was run");
    let log: Vec<&str> = log.lines().filter(|line| *line != "status").collect();
    assert_eq!(log, ["on", "off", "on", "off"]);
}

#[test]
fn the_next_start_is_set_read_back_and_taken_away() {
    let bmcs = Bmcs::new(4, 2, |_, _| {});
    let here = Here::new(&bmcs.lines());
    let (code, said) = here.says(&["bootdev", "m[01-02]", "pxe", "--efi"]);
    assert!(code == 0 && said.contains("pxe (EFI), the next start: m[01-02]"), "{said}");
    let rows = here.json(&["bootdev", "m01"]);
    assert_eq!(rows[0]["boot"]["device"], "pxe");
    assert_eq!(rows[0]["boot"]["persistent"], false);
    let (code, said) = here.says(&["bootdev", "m01", "disk", "--persistent"]);
    assert!(code == 0 && said.contains("disk, every start"), "{said}");
    assert!(said.contains("set as for a BIOS; --efi if it is"), "{said}");
    let (code, said) = here.says(&["bootdev", "m01", "none"]);
    assert!(code == 0 && said.contains("none"), "{said}");
    let (code, said) = here.says(&["bootdev", "m01", "tape"]);
    assert!(code == 2 && said.contains("pxe"), "{said}");
}

#[test]
fn sensors_inventory_and_log_are_read_followed_and_cleared() {
    let bmcs = Bmcs::new(8, 2, |_, config| config.sensors = 16);
    let here = Here::new(&bmcs.lines());
    let (code, said) = here.says(&["sensors", "m[01-02]", "--kind", "fan"]);
    assert_eq!(code, 0, "{said}");
    assert_eq!(said.matches("Fan ").count(), 8, "{said}");
    assert!(
        !said.contains("Temp") && said.contains("RPM") && said.contains("ok: m[01-02]"),
        "{said}"
    );
    let (code, said) = here.says(&["sensors", "m01", "--kind", "smell"]);
    assert!(code == 2 && said.contains("temperature"), "{said}");

    // A fan stops: it is said with what is bad, and in the log.
    let stopped = bmcs.with(1, |bmc| koboshi_bmcsim::sensor::set(bmc, "Fan 1", 0.0));
    assert!(stopped, "there is a fan");
    let (code, said) = here.says(&["sensors", "m[01-02]", "--kind", "fan"]);
    assert!(code == 0 && said.contains("bad below"), "{said}");
    assert!(said.contains("critical: m01") || said.contains("non-recoverable: m01"), "{said}");
    let rows = here.json(&["sel", "m[01-02]"]);
    let entries = rows[0]["entries"].as_array().expect("a list");
    assert!(!entries.is_empty() && rows[1]["entries"] == serde_json::json!([]), "{rows:?}");
    assert_eq!(entries[0]["sensor"], "Fan 1");
    assert!(entries[0]["at"].as_i64().is_some_and(|at| at > 1_600_000_000), "{entries:?}");
    let (_, said) = here.says(&["sel", "m[01-02]", "info"]);
    assert!(said.contains("right"), "{said}");

    // Who follows hears of the next one within seconds.
    let mut follow = here.command(&["sel", "m[01-02]", "-f", "--json"]);
    let mut follow = Ended(follow.stdout(Stdio::piped()).spawn().expect("koboshi runs"));
    let mut told = BufReader::new(follow.0.stdout.take().expect("a pipe")).lines();
    // It follows from now on, and nobody is told when that is.
    std::thread::sleep(Duration::from_secs(3));
    bmcs.with(2, |bmc| koboshi_bmcsim::sensor::set(bmc, "Fan 2", 0.0));
    let line = told.next().expect("a line").expect("UTF-8");
    let line: Value = serde_json::from_str(&line).expect("JSON");
    assert_eq!((&line["machine"], &line["sensor"]), (&"m02".into(), &"Fan 2".into()));
    drop(follow);

    let (code, said) = here.says(&["sel", "m01", "clear"]);
    assert!(code == 0 && said.contains("cleared"), "{said}");
    assert_eq!(bmcs.with(1, |bmc| bmc.sel.entries.len()), 0);
    let (code, said) = here.says(&["fru", "m01"]);
    assert!(code == 0 && said.contains("Simulated Board"), "{said}");
    let rows = here.json(&["fru", "m01"]);
    assert_eq!(rows[0]["parts"][0]["board"]["manufacturer"], "Koboshi");
}

/// A blade is reached through its BMC; what is meant for it never lands on the BMC itself.
#[test]
fn a_blade_is_reached_through_the_bmc_before_it() {
    let bmcs = Bmcs::new(11, 1, |_, _| {});
    let at = bmcs.addresses[0];
    let blade = |name: &str, target: u8| {
        let (host, port) = (at.ip(), at.port());
        format!("{name} = {{ bmc = {{ host = \"{host}\", port = {port}, target = {target} }} }}\n")
    };
    let here = Here::new(&(blade("b1", 0x82) + &blade("b2", 0x84)));
    let (code, said) = here.says(&["bmc", "b1", "raw", "0x06", "0x01"]);
    assert!(code == 0 && said.contains("82 01 09"), "{said}");
    let (code, said) = here.says(&["power", "b1", "off"]);
    assert!(code == 1 && said.contains("does not know this command"), "{said}");
    let (code, said) = here.says(&["power", "b2", "off"]);
    assert!(code == 1 && said.contains("nobody answers at that address"), "{said}");
    assert!(bmcs.is_on(1), "the BMC's own machine was switched off");
}

/// A process that does not outlive its test.
struct Ended(std::process::Child);

impl Drop for Ended {
    fn drop(&mut self) {
        // One that has ended already is as good.
        let _ended = self.0.kill().is_ok();
        let _status = self.0.wait().is_ok();
    }
}

#[test]
fn a_bmcs_own_settings_are_shown_and_changed() {
    let bmcs = Bmcs::new(9, 2, |_, _| {});
    let here = Here::new(&bmcs.lines());
    let (code, said) =
        here.says(&["watchdog", "m01", "set", "--timeout", "300", "--action", "cycle"]);
    assert!(code == 0 && said.contains("stopped"), "{said}");
    let (code, said) = here.says(&["watchdog", "m01", "start"]);
    assert!(code == 0 && said.contains("runs"), "{said}");
    let rows = here.json(&["watchdog", "m01"]);
    assert_eq!((&rows[0]["action"], &rows[0]["running"]), (&"cycle".into(), &true.into()));
    let (code, said) = here.says(&["watchdog", "m01", "stop"]);
    assert!(code == 0 && said.contains("stopped"), "{said}");

    let (code, said) = here.says(&["lan", "m01", "vlan", "12"]);
    assert!(code == 0 && said.contains("changed"), "{said}");
    assert_eq!(here.json(&["lan", "m01"])[0]["vlan"], 12);
    let (code, said) =
        here.says(&["lan", "m01", "set", "--vlan", "off", "--gateway", "127.44.9.254"]);
    assert_eq!(code, 0, "{said}");
    let rows = here.json(&["lan", "m[01-02]"]);
    assert_eq!((&rows[0]["vlan"], &rows[0]["gateway"]), (&Value::Null, &"127.44.9.254".into()));
    assert_eq!(rows[1]["gateway"], Value::Null);
    let (code, said) = here.says(&["lan", "m[01-02]", "set", "--address", "127.44.9.9"]);
    assert!(code == 2 && said.contains("one machine at a time"), "{said}");

    // An account for a colleague, who then comes in by it.
    secret(&here.0.path().join("ops.pw"), "0ther-s3cret");
    let user = ["bmc", "m01", "user", "3", "--name", "ops", "--password-file", "ops.pw"];
    let (code, said) = here.says(&[&user[..], &["--privilege", "operator", "--enable"]].concat());
    assert!(code == 0 && said.contains("ops") && !said.contains("0ther"), "{said}");
    let theirs = Here::new(&bmcs.lines());
    secret(&theirs.0.path().join("bmc.pw"), "0ther-s3cret");
    let path = theirs.0.path().join("site.toml");
    let site = std::fs::read_to_string(&path).expect("it is there");
    std::fs::write(&path, site.replace("user = \"admin\"", "user = \"ops\"")).expect("written");
    let (code, said) = theirs.says(&["power", "m01"]);
    assert!(code == 0 && said.contains("on"), "{said}");
    let (code, said) = theirs.says(&["bmc", "m01", "user", "3", "--privilege", "admin"]);
    assert!(code == 1 && said.contains("privilege"), "{said}");
    let (code, said) = here.says(&["bmc", "m01", "user", "3"]);
    assert!(code == 2 && said.contains("nothing is said that changes"), "{said}");

    let (code, said) = here.says(&["bmc", "m01", "info"]);
    assert!(code == 0 && said.contains("2.0 suite 17, admin"), "{said}");
    let (code, said) = here.says(&["bmc", "m01", "raw", "0x06", "0x01"]);
    assert!(code == 0 && said.contains("20 81"), "{said}");
    let (code, said) = here.says(&["bmc", "m01", "raw", "0x07", "0x01"]);
    assert!(code == 2 && said.contains("0x07"), "{said}");
    let (code, said) = here.says(&["bmc", "m01", "sessions"]);
    assert!(code == 0 && said.contains("admin"), "{said}");
    for words in [&["bmc", "info"][..], &["bmc", "m01", "raw", "6"], &["watchdog", "m01", "set"]] {
        assert_eq!(here.says(words).0, 2, "{words:?}");
    }
}

#[test]
fn bmcs_are_found_and_told_apart_by_what_the_site_knows() {
    let bmcs = Bmcs::new(5, 3, |number, config| {
        config.listen.set_port(46_623);
        config.faults.no_ping = number == 2;
        config.faults.dead = number == 3;
    });
    let lines = bmcs.lines();
    let known: Vec<&str> = lines.lines().collect();
    let here = Here::new(&format!("{}\n{}\n", known[0], known[2]));
    let (code, said) = here.says(&["bmc", "scan", "127.44.5.0/29", "--port", "46623"]);
    assert_eq!(code, 0, "{said}");
    let words = |address: &str| -> Vec<String> {
        let line = said.lines().find(|line| line.starts_with(address));
        line.unwrap_or_else(|| panic!("{address}: {said}"))
            .split_whitespace()
            .map(str::to_string)
            .collect()
    };
    assert_eq!(words("127.44.5.1")[1..4], ["m01", "IPMI", "2.0"]);
    assert_eq!(words("127.44.5.2")[1..], ["unknown", "IPMI", "2.0", "answers", "no", "pings"]);
    assert_eq!(words("127.44.5.3")[1..], ["m03", "silent"]);
    assert!(
        said.contains("1 of the site, 1 that it does not know; 1 of the site silent"),
        "{said}"
    );
    let (code, said) = here.says(&["bmc", "scan", "10.0.0.0/8"]);
    assert!(code == 2 && said.contains("/16 at most"), "{said}");
}

#[test]
fn a_password_is_nowhere_but_in_its_file() {
    let bmcs = Bmcs::new(6, 1, |_, config| config.faults.slow = Duration::from_millis(300));
    let here = Here::new(&bmcs.lines());
    let mut command = here.command(&["power", "m01"]);
    let child = command.env("KOBOSHI_LOG", "trace").stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = child.spawn().expect("koboshi runs");
    let line = std::fs::read(format!("/proc/{}/cmdline", child.id())).expect("it runs");
    let line = String::from_utf8_lossy(&line).into_owned();
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{}", text(&output));
    assert!(!line.contains(PASSWORD) && !text(&output).contains(PASSWORD));
    // One that everybody may read is told of; one that is missing says where it was looked for.
    use std::os::unix::fs::PermissionsExt;
    let path = here.0.path().join("bmc.pw");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).expect("changed");
    let (code, said) = here.says(&["power", "m01"]);
    assert!(code == 0 && said.contains("everybody on this host may read it"), "{said}");
    std::fs::remove_file(&path).expect("removed");
    let (code, said) = here.says(&["power", "m01"]);
    assert!(code == 1 && said.contains("bmc.pw: No such file"), "{said}");
}
