//! What a server room does to an appliance: a disk that is full or read-only, a clock that somebody sets, an
//! interface that goes and comes, `kill -9`. It goes on serving what it can, acknowledges nothing that it could lose,
//! says what is wrong and what to do, and goes on by itself.

mod gives_up;
pub mod kills;

use std::fs::{self, File};
use std::io::Write;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use koboshi_storm::paper;
use nix::sched::{CloneFlags, unshare};

use crate::wire::{self, Client, peer, rom, udhcpc};
use crate::world::{KOBOSHI, World, in_world, text};

/// A larger pool.
fn site() -> String {
    wire::SITE.replace("pool = \"10.77.0.200-10.77.0.200\"", "pool = \"10.77.0.200-10.77.0.210\"")
}

/// A small disk over a folder, in a mount namespace of this test.
struct Disk(PathBuf);

impl Disk {
    /// Threads and programs that are started from here on see it, and nobody else.
    fn mount(at: &Path, options: &str) -> Disk {
        fs::create_dir_all(at).expect("a folder");
        let disk = Disk(at.to_path_buf());
        disk.tool("mount", &["-t", "tmpfs", "-o", options, "faults"]);
        disk
    }

    fn remount(&self, options: &str) {
        self.tool("mount", &["-o", &format!("remount,{options}")]);
    }

    fn tool(&self, tool: &str, words: &[&str]) {
        let output = Command::new(tool).args(words).arg(&self.0).output().expect("it runs");
        assert!(output.status.success(), "{tool} {words:?}: {}", text(&output));
    }

    /// Takes every byte that is left, but so many.
    fn fill(&self, but: u64) {
        let path = self.0.join("ballast");
        let mut file = File::options().create(true).append(true).open(&path).expect("a file");
        while file.write_all(&[b'x'; 4096]).is_ok() {}
        let size = file.metadata().expect("its size").len();
        file.set_len(size.saturating_sub(but)).expect("cut");
    }

    fn empty(&self) {
        fs::remove_file(self.0.join("ballast")).expect("removed");
    }
}

impl Drop for Disk {
    /// The folder under it is to be removed.
    fn drop(&mut self) {
        let _it_went_with_the_test = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

/// From here on mounts are this test's own.
fn own_mounts() {
    unshare(CloneFlags::CLONE_NEWNS).expect("a mount namespace, which needs root");
    let private =
        Command::new("mount").args(["--make-rprivate", "/"]).status().expect("mount runs");
    assert!(private.success());
}

/// A world whose state, and whose site file, are on a disk of that size.
fn on_disk<F>(size: &str, test: impl FnOnce(World, Disk) -> F + Send + 'static)
where
    F: Future<Output = ()>,
{
    own_mounts();
    let options = format!("size={size}");
    in_world(&site(), vec![], move |mut world| {
        let disk = Disk::mount(&world.state, &options);
        let site = world.state.join("site.toml");
        fs::copy(&world.site, &site).expect("the site file");
        world.site = site;
        test(world, disk)
    });
}

/// Waits until it is so.
async fn until(what: &str, mut so: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !so() {
        assert!(Instant::now() < end, "never: {what}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// What a report is answered, in three digits.
fn report(peer: &koboshi::lab::net::Peer, boot: &str, seq: u32, phase: &str) -> String {
    let url = format!("http://10.77.0.1:8080/report/{boot}");
    let body = format!(r#"{{"phase":{{"phase":{phase}}},"uptime_ms":1,"seq":{seq}}}"#);
    let words =
        ["-sS", "-o", "/dev/null", "-w", "%{http_code}", "--max-time", "5", "-d", &body, &url];
    let output = peer.output("curl", &words).expect("curl runs");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The boot of a machine, from its script.
pub fn boot_of(peer: &koboshi::lab::net::Peer, mac: &str) -> String {
    let url = format!("http://10.77.0.1:8080/boot/{mac}.ipxe");
    let script = peer.output("curl", &["-sS", "--fail", &url]).expect("curl runs");
    let script = text(&script);
    let boot = script.split("koboshi.boot=").nth(1).unwrap_or_else(|| panic!("no plan: {script}"));
    boot[..32].to_string()
}

#[test]
fn what_a_full_disk_does_not_take_is_not_acknowledged_and_it_goes_on_by_itself() {
    on_disk("24m", async |mut world, disk| {
        image(&world.state, "rescue");
        world.serve().await;
        let [m01, m02, m03] = ["52:54:00:77:00:01", "52:54:00:77:00:02", "52:54:00:77:00:03"]
            .map(|mac| peer(&world, mac));
        assert_eq!(rom(&m01).as_deref(), Some("10.77.0.21"));
        let kept = udhcpc(&m02).expect("an address of the pool");
        m01.address(Ipv4Addr::new(10, 77, 0, 21), 24).expect("an address");
        let boot = boot_of(&m01, "52:54:00:77:00:01");
        assert_eq!(report(&m01, &boot, 1, r#""init","kernel":"6.1""#), "204");

        // Every byte is taken, and strangers ask until the state has to grow.
        disk.fill(0);
        let stranger = peer(&world, "52:54:00:99:00:00");
        let full = || text(&world.run(&["status"])).contains("No space left on device");
        let mut number = 0u16;
        until("the state has to grow", || {
            let from = number;
            number += 250;
            let asked = stranger.keeper.run(move || {
                let mut client = Client::new([0x52, 0x54, 0, 0x99, 0, 0]);
                for number in from..from + 250 {
                    client.mac[4..].copy_from_slice(&number.to_be_bytes());
                    client.send(1, None);
                }
            });
            asked.expect("the peer's thread lives");
            full()
        })
        .await;
        let said = text(&world.run(&["status"]));
        assert!(
            said.contains("koboshi.redb cannot be written") && said.contains("df -i"),
            "{said}"
        );

        // What needs no writing is served.
        assert_eq!(udhcpc(&m01).as_deref(), Some("10.77.0.21"));
        boot_of(&m01, "52:54:00:77:00:01");
        // Nothing is acknowledged that is not on disk.
        assert_eq!(report(&m01, &boot, 2, r#""up","by":"init""#), "503");
        let site = fs::read_to_string(&world.site).expect("the site file");
        let refused = text(&world.run(&["seat", "m01", "spare"]));
        assert!(
            refused.contains("nothing is changed") && refused.contains("make room"),
            "{refused}"
        );
        assert_eq!(fs::read_to_string(&world.site).expect("the site file"), site);
        let given = udhcpc(&m03);

        disk.empty();
        until("there is room again", || !full()).await;
        let given_later = udhcpc(&m03).expect("an address of the pool");
        assert!(given.is_none_or(|given| given == given_later));
        assert_eq!(report(&m01, &boot, 3, r#""up","by":"init""#), "204");
        let events = || world.ok(&["events", "-n", "10000"]);
        until("the log of events tells of it", || events().contains("could not be written for"))
            .await;
        assert_eq!(
            world.log().matches("koboshi.redb cannot be written").count(),
            1,
            "{}",
            world.log()
        );
        world.ok(&["seat", "m01", "spare", "--accept"]);

        // What was acknowledged is there, whatever comes.
        world.kill().await;
        world.serve().await;
        assert_eq!(world.row("m01")["stage"], "up");
        assert_eq!(world.row("m01")["seat"], "spare");
        assert_eq!(udhcpc(&m03).as_deref(), Some(given_later.as_str()));
        assert_eq!(udhcpc(&m02).as_deref(), Some(kept.as_str()));
    });
}

/// Imports and publishes a root of a few kilobytes.
pub fn image(state: &Path, name: &str) {
    for words in [vec!["import", name], vec!["publish", name]] {
        let output = image_words(state, &words);
        assert!(output.status.success(), "{words:?}: {}", text(&output));
    }
}

pub fn image_words(state: &Path, words: &[&str]) -> Output {
    let mut command = Command::new(KOBOSHI);
    command.arg("image").args(words);
    let root = tempfile::tempdir().expect("a folder");
    if words[0] == "import" {
        let sizes = paper::Sizes { loader: 1024, kernel: 65_536, initrd: 8192, root: 65_536 };
        paper::root(root.path(), &sizes).expect("a root");
        command.arg(root.path());
    }
    command.arg("--state").arg(state).output().expect("koboshi runs")
}

/// Every version that is listed is all there, byte for byte. How many there are.
pub fn whole(state: &Path) -> usize {
    let listed = image_words(state, &["ls", "--json"]);
    assert!(listed.status.success(), "{}", text(&listed));
    let rows: Vec<serde_json::Value> = serde_json::from_slice(&listed.stdout).expect("JSON");
    for row in &rows {
        let name = format!("{}@{}", row["name"].as_str().expect("a name"), row["version"]);
        let verified = image_words(state, &["show", &name, "--verify"]);
        assert!(verified.status.success(), "{name}: {}", text(&verified));
    }
    rows.len()
}

/// However much room there is: an image is there whole, or it is not there, and the next one has the room.
#[test]
fn an_image_that_finds_no_room_is_absent_and_leaves_nothing_behind() {
    own_mounts();
    let dir = tempfile::TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let state = dir.path().join("state");
    let disk = Disk::mount(&state, "size=4m");
    image(&state, "first");
    let (mut refused, mut taken) = (0, 0);
    for room in (0..).map(|step| step * 48 * 1024) {
        disk.fill(room);
        let imported = image_words(&state, &["import", "second"]);
        let published =
            imported.status.success().then(|| image_words(&state, &["publish", "second"]));
        let last = published.as_ref().unwrap_or(&imported);
        let said = text(last);
        whole(&state);
        disk.empty();
        if last.status.success() {
            taken += 1;
            break;
        }
        refused += 1;
        assert!(said.contains("No space left on device"), "{said}");
    }
    assert!(refused > 2 && taken == 1, "{refused} refused");
    assert_eq!(whole(&state), 2);
}

/// The interface under a running appliance is taken down, loses its address, gets another, is made anew.
#[test]
fn an_interface_that_goes_and_comes_is_served_again() {
    in_world(&site(), vec![], async |mut world| {
        world.serve().await;
        let ip = |words: &str| {
            let words: Vec<&str> = words.split(' ').collect();
            let output = world.rack.output("ip", &words).expect("ip runs");
            assert!(output.status.success(), "ip {words:?}: {}", text(&output));
        };
        let m01 = peer(&world, "52:54:00:77:00:01");
        let told = async |says: &str| {
            until(says, || text(&world.run(&["events", "-n", "20"])).contains(says)).await;
        };
        let served = async || {
            until("m01 is served", || udhcpc(&m01).as_deref() == Some("10.77.0.21")).await;
            m01.address(Ipv4Addr::new(10, 77, 0, 21), 24).expect("an address");
            let curl = [
                "-sS",
                "--fail",
                "--max-time",
                "5",
                "-o",
                "/dev/null",
                "http://10.77.0.1:8080/ipxe.efi",
            ];
            until("HTTP", || m01.output("curl", &curl).expect("curl runs").status.success()).await;
            let atftp = ["--get", "-r", "undionly.kpxe", "-l", "/dev/null", "10.77.0.1"];
            until("TFTP", || m01.output("atftp", &atftp).expect("atftp runs").status.success())
                .await;
        };
        served().await;

        ip("link set kb0 down");
        told("kb0 is down").await;
        assert!(text(&world.run(&["status"])).contains("`ip link set kb0 up`"));
        ip("link set kb0 up");
        served().await;
        told("kb0 is as it was").await;

        ip("addr flush dev kb0");
        told("kb0 has lost 10.77.0.1").await;
        ip("addr add 10.77.0.5/24 dev kb0");
        told("10.77.0.5 in place of 10.77.0.1").await;
        assert!(text(&world.run(&["status"])).contains("restart koboshi"));
        ip("addr flush dev kb0");
        ip("addr add 10.77.0.1/24 brd + dev kb0");
        served().await;

        ip("link del kb0");
        told("kb0 is gone").await;
        ip("link add kb0 address 52:54:00:77:ff:02 type bridge stp_state 0 forward_delay 0");
        ip("addr add 10.77.0.1/24 brd + dev kb0");
        ip(&format!("link set {} master kb0", m01.port));
        ip("link set kb0 up");
        served().await;
        until("nothing is wrong", || !text(&world.run(&["status"])).contains("kb0")).await;
    });
}

/// The clock of the host is set back by a year and forward by two under a running appliance, and it is started again
/// under either: leases, boots, orders and the order of events go on.
#[test]
fn a_clock_that_is_set_ends_nothing_and_makes_nothing_last() {
    in_world(&site(), vec![], async |mut world| {
        image(&world.state, "rescue");
        let clock = world.state.join("clock");
        let set = |days: i32| fs::write(&clock, format!("{days:+}d\n")).expect("written");
        set(0);
        world.clock = Some(clock.clone());
        world.serve().await;
        let [m01, m02, m03] = ["52:54:00:77:00:01", "52:54:00:77:00:02", "52:54:00:77:00:03"]
            .map(|mac| peer(&world, mac));
        assert_eq!(rom(&m01).as_deref(), Some("10.77.0.21"));
        m01.address(Ipv4Addr::new(10, 77, 0, 21), 24).expect("an address");
        let boot = boot_of(&m01, "52:54:00:77:00:01");
        assert_eq!(report(&m01, &boot, 1, r#""up","by":"init""#), "204");
        let kept = udhcpc(&m02).expect("an address of the pool");
        world.ok(&["maintain", "m03", "rescue", "--expires", "1h"]);
        let orders = |world: &World| text(&world.run(&["maintain", "--json"]));
        assert!(orders(&world).contains(r#""open""#), "{}", orders(&world));

        let mut seq = 1;
        for (days, way) in [(-365, "back"), (365, "forward")] {
            set(days);
            until("the clock is seen", || {
                text(&world.run(&["events"])).contains(&format!("was set {way} by"))
            })
            .await;
            // Nothing is late, silent, or over by it.
            tokio::time::sleep(Duration::from_secs(3)).await;
            let row = world.row("m01");
            assert_eq!((&row["stage"], &row["silent"]), (&"up".into(), &serde_json::Value::Null));
            assert!(!text(&world.run(&["events"])).contains("stuck"));
            assert!(orders(&world).contains(r#""open""#), "{}", orders(&world));
            // The seat is not taken for empty.
            let refused = text(&world.run(&["seat", "m01", "spare"]));
            assert!(refused.contains("m01 is running in tool1"), "{refused}");
            assert_eq!(udhcpc(&m02).as_deref(), Some(kept.as_str()));
            let other = udhcpc(&m03).expect("an address of the pool");
            assert_ne!(other, kept);
            seq += 1;
            assert_eq!(report(&m01, &boot, seq, r#""trouble","message":"disk""#), "204");
            seq += 1;
            assert_eq!(report(&m01, &boot, seq, r#""up","by":"init""#), "204");
        }
        // It is set back while nobody looks.
        world.kill().await;
        set(-365);
        world.serve().await;
        assert_eq!(world.row("m01")["stage"], "up");
        assert!(orders(&world).contains(r#""open""#), "{}", orders(&world));
        assert_eq!(udhcpc(&m02).as_deref(), Some(kept.as_str()));
        seq += 1;
        assert_eq!(report(&m01, &boot, seq, r#""trouble","message":"disk""#), "204");
        // The next boot is the newest, whatever the clock says, and for whoever starts then.
        assert_eq!(rom(&m01).as_deref(), Some("10.77.0.21"));
        let next = boot_of(&m01, "52:54:00:77:00:01");
        assert_ne!(next, boot);
        for _ in 0..2 {
            until("it is the newest", || {
                world.json(&["boots", "m01", "-n", "1"])[0]["id"] == next.as_str()
            })
            .await;
            assert_eq!(report(&m01, &next, 1, r#""up","by":"init""#), "204");
            world.kill().await;
            world.serve().await;
        }
    });
}

/// Where the state cannot be written at the start it says where, why, and what to do.
#[test]
fn a_start_on_a_disk_that_takes_nothing_says_which_and_what_to_do() {
    on_disk("8m", async |mut world, disk| {
        world.serve().await;
        assert!(world.stop().await, "{}", world.log());
        let start = |world: &World| {
            let mut command = Command::new(KOBOSHI);
            command.arg("serve").arg("--site").arg(&world.site).arg("--state").arg(&world.state);
            text(&command.output().expect("koboshi runs"))
        };
        disk.remount("ro");
        let said = start(&world);
        let folder = world.state.display().to_string();
        assert!(said.contains(&folder) && said.contains("remount,rw"), "{said}");
        // Full, it starts with the state that it has.
        disk.remount("rw");
        disk.fill(0);
        world.serve().await;
        assert_eq!(udhcpc(&peer(&world, "52:54:00:77:00:01")).as_deref(), Some("10.77.0.21"));
        assert!(world.stop().await, "{}", world.log());
        // Without any it cannot, and what it had begun is in nobody's way.
        fs::remove_file(world.state.join("koboshi.redb")).expect("removed");
        disk.fill(0);
        let said = start(&world);
        assert!(said.contains(&folder) && said.contains("make room there"), "{said}");
        disk.empty();
        world.serve().await;
    });
}
