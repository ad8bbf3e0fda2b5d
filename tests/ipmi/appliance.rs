//! The same through the appliance, and what it adds: one door for all, the event log, timelines, fencing, and
//! strangers that are known by their BMCs.

use std::time::{Duration, Instant};

use super::{Bmcs, PASSWORD, write_site};
use koboshi::lab::net::Peer;

use crate::wire::{peer, rom};
use crate::world::{World, in_world, text};

#[test]
fn the_appliance_switches_remembers_and_fences() {
    in_world("", vec![], async |mut world| {
        let bmcs = Bmcs::new(7, 6, |number, config| config.faults.dead = number == 6);
        let folder = world.site.parent().expect("a folder").to_path_buf();
        // Nobody listens at m04's.
        let lines = bmcs
            .lines()
            .replacen("m05 = {", "m05 = { fence = [\"pdu\", \"bmc\"],", 1)
            .replacen("127.44.7.4\"", "127.44.7.40\"", 1)
            .replacen("m06 = {", "m06 = { protected = true,", 1);
        write_site(&folder, &lines, "kb0");
        world.serve().await;
        assert_eq!(world.ok(&["power", "m01"]).lines().last(), Some("m01      on"));
        let refused = world.run(&["power", "@all", "off"]);
        assert_eq!(refused.status.code(), Some(2), "{}", text(&refused));
        assert!(text(&refused).contains("power off for 6 machines"), "{}", text(&refused));
        let rows = world.run(&["power", "m[01-02]", "off", "--json"]);
        assert!(rows.status.success(), "{}", text(&rows));
        assert_eq!(String::from_utf8_lossy(&rows.stdout).lines().count(), 2);
        assert!(!bmcs.is_on(1) && !bmcs.is_on(2));
        event(&world, "power           m01 power off by root: off").await;

        // Rows come as machines answer: the dead one is last, and late.
        let all = world.run(&["power", "@all"]);
        assert_eq!(all.status.code(), Some(1), "{}", text(&all));
        let rows = String::from_utf8_lossy(&all.stdout).into_owned();
        assert!(rows.lines().last().is_some_and(|row| row.starts_with("m06")), "{rows}");
        let end = "off: m[01-02]; on: m[03,05]; no answer: m[04,06]";
        assert!(text(&all).contains(end), "{}", text(&all));

        // Set User Password, by hand: who did it is kept, what it was is not.
        let raw = ["bmc", "m05", "raw", "0x06", "0x47", "0x43", "0x03", "0x5e", "0xc2"];
        let _refused_as_it_is_cut = world.run(&raw);
        event(&world, "m05 bmc raw 0x06 0x47 and 4 bytes by root").await;
        assert!(!world.ok(&["events"]).contains("0x5e"));
        fences(&world, &bmcs).await;
        // It was not in any file, nor is it in the log.
        assert!(!world.log().contains(PASSWORD) && !world.ok(&["events"]).contains(PASSWORD));
        assert!(world.stop().await);
        let open = bmcs.with(1, |bmc| bmc.sessions.open().count());
        assert_eq!(open, 0, "a session was left open");
    });
}

async fn fences(world: &World, bmcs: &Bmcs) {
    let fenced = world.ok(&["fence", "m03", "--yes"]);
    for part in ["m03 was on at", "m03 told to switch off at", "m03 reads off again at"] {
        assert!(fenced.contains(part), "{part}: {fenced}");
    }
    assert!(!bmcs.is_on(3));
    let dead = world.run(&["fence", "m04", "--yes"]);
    assert_eq!(dead.status.code(), Some(1), "{}", text(&dead));
    let said = text(&dead);
    assert!(said.contains("reading its power failed: "), "{said}");
    assert!(said.contains("koboshi fence m04 --by-hand"), "{said}");
    let protected = world.run(&["fence", "m06", "--yes"]);
    assert!(text(&protected).contains("m06 is protected"), "{}", text(&protected));
    // What is not built is said, and the next means is taken.
    let second = world.ok(&["fence", "m05", "--yes"]);
    assert!(second.contains("m05 reads off again"), "{second}");
    event(world, "m03 is fenced, by its BMC at 127.44.7.3, by root: was on").await;
    event(world, "is not fenced, by its outlet: fencing by its outlet is not built").await;
    event(world, "m04 is not fenced, by its BMC at 127.44.7.40").await;
}

/// Waits until the event log says so: it is written in batches.
async fn event(world: &World, says: &str) {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let events = world.ok(&["events"]);
        if events.contains(says) {
            return;
        }
        assert!(Instant::now() < deadline, "{says}: {events}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// A machine of the wire that nobody knows, with an address of the pool.
fn stranger(world: &World, mac: &str) -> Peer {
    let board = peer(world, mac);
    let address = rom(&board).expect("an address of the pool");
    assert!(address.starts_with("10.77.0.2") && address != "10.77.0.21", "{address}");
    board.address(address.parse().expect("an address"), 24).expect("an address");
    board
}

/// Says something as koboshi-init would, in the boot that is under way.
fn says(board: &Peer, mac: &str, seq: u32, phase: &str) {
    let curl = |words: &[&str]| {
        let output = board.output("curl", &[&["-sS", "--fail"], words].concat());
        let output = output.expect("curl runs");
        assert!(output.status.success(), "{}", text(&output));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let script = curl(&[&format!("http://10.77.0.1:8080/boot/{mac}.ipxe")]);
    let boot = script.split("koboshi.boot=").nth(1).expect("a plan");
    let body = format!(r#"{{"phase":{phase},"uptime_ms":1,"seq":{seq}}}"#);
    curl(&["-d", &body, &format!("http://10.77.0.1:8080/report/{}", &boot[..32])]);
}

fn made_of(host: &str, mac: &str) -> String {
    let bmc = format!(r#"{{"channel":1,"address":"{host}","mac":"{mac}"}}"#);
    format!(r#"{{"phase":"hardware","serial":"NEW","bmc":{bmc}}}"#)
}

/// S7: an exchanged board is the machine whose BMC it has.
#[test]
fn a_stranger_is_the_machine_whose_bmc_it_has() {
    in_world("", vec![], async |world| {
        let mut world = world.with_images();
        let bmcs = Bmcs::new(10, 2, |_, _| {});
        let folder = world.site.parent().expect("a folder").to_path_buf();
        write_site(&folder, &bmcs.lines(), "kb0");
        let site = std::fs::read_to_string(&world.site).expect("it is there");
        let unknown = "unknown = \"discover\"\nidentify = \"bmc\"\n\n[defaults.bmc]";
        let site = site.replacen("[defaults.bmc]", unknown, 1).replace("web", "rescue");
        let seat = "\n[seats]\ntool1 = { role = \"rescue\", ip = \"10.77.0.21\" }\n\n[matrix]\nm01 = \"tool1\"\n";
        std::fs::write(&world.site, site + seat).expect("written");
        world.serve().await;
        let own = world.json(&["lan", "m01"])["mac"].as_str().expect("a MAC").to_string();

        // A word about a BMC that is another's is told, and moves nothing.
        let liar = "52:54:00:99:00:01";
        let board = stranger(&world, liar);
        says(&board, liar, 1, &made_of("127.44.10.2", &own));
        event(
            &world,
            "its BMC is m02's (127.44.10.2), and is not taken for it: that BMC has the MAC",
        )
        .await;
        assert_ne!(rom(&board).as_deref(), Some("10.77.0.21"));

        // The BMC says the same: it is m01, from its next start on.
        let mac = "52:54:00:99:00:02";
        let board = stranger(&world, mac);
        says(&board, mac, 1, &made_of("127.44.10.1", &own));
        event(&world, &format!("{mac} is m01 from its next start on: that BMC has the MAC {own}"))
            .await;
        assert_eq!(rom(&board).as_deref(), Some("10.77.0.21"));
        let flushed = board.output("ip", &["addr", "flush", "dev", "eth0"]).expect("ip runs");
        assert!(flushed.status.success(), "{}", text(&flushed));
        board.address("10.77.0.21".parse().expect("an address"), 24).expect("an address");
        says(&board, mac, 1, r#"{"phase":"up","by":"init"}"#);
        assert_eq!(world.up("m01", "tool1").await["mac"], mac);

        // Nobody takes the place of a machine that runs.
        let late = "52:54:00:99:00:03";
        says(&stranger(&world, late), late, 1, &made_of("127.44.10.1", &own));
        event(&world, &format!("m01 itself is running, as {mac}")).await;

        // Where the site says otherwise, it counts.
        let site = std::fs::read_to_string(&world.site).expect("it is there");
        std::fs::write(&world.site, site.replace("identify = \"bmc\"\n", "")).expect("written");
        world.ok(&["reload", "--accept"]);
        let known = world.json(&["explain", mac]);
        assert_ne!(known["machine"], "m01", "{known:#}");
    });
}
