//! One holder a seat: who wants a held seat waits, and says for whom.

use std::process::Stdio;
use std::time::{Duration, Instant};

use koboshi::lab::keeper::bound;
use koboshi::lab::net::Peer;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Child;
use tokio::sync::oneshot;

use super::{HasShell, MINUTES, spec};
use crate::world::{World, in_world, text};

const SITE: &str = r#"
[site]
name = "rack"

[net]
interface = "kb0"
cidr = "10.77.0.0/24"
pool = "10.77.0.200-10.77.0.220"

[roles.rescue]
image = "rescue"

[machines]
m01 = { mac = ["52:54:00:77:00:01"] }
m02 = { mac = ["52:54:00:77:00:02"], loader = "undionly.kpxe" }

[seats]
tool1 = { role = "rescue", ip = "10.77.0.21" }
tool2 = { role = "rescue", ip = "10.77.0.22" }

[matrix]
m01 = "tool1"
m02 = "tool2"
"#;

/// A third host that asks the wire, every second, who has an address.
struct Watch {
    arping: Child,
    replies: tokio::task::JoinHandle<Vec<String>>,
}

impl Watch {
    async fn begin(host: &Peer, address: &str) -> Watch {
        let mut command = bound("arping");
        command.args(["-b", "-I", "eth0", address]).stdout(Stdio::piped());
        let mut arping =
            host.keeper.spawn(command).await.expect("arping: `make setup` installs it");
        let told = arping.stdout.take().expect("a pipe");
        let mut lines = BufReader::new(told).lines();
        let (first, heard) = oneshot::channel();
        let replies = tokio::spawn(async move {
            let (mut macs, mut first) = (Vec::new(), Some(first));
            while let Ok(Some(line)) = lines.next_line().await {
                let mac = line.split(['[', ']']).nth(1).filter(|_| line.contains("reply from"));
                macs.extend(mac.map(str::to_lowercase));
                if let Some(first) = first.take_if(|_| !macs.is_empty()) {
                    let _ = first.send(());
                }
            }
            macs
        });
        // Whoever has it now is seen before anything happens to him.
        heard.await.expect("somebody answers");
        Watch { arping, replies }
    }

    /// Who answered, one after the other, each as long as nobody else did.
    async fn end(mut self) -> Vec<String> {
        self.arping.kill().await.expect("killed");
        let mut macs = self.replies.await.expect("read");
        assert!(macs.len() > 30, "the wire was watched: {macs:?}");
        macs.dedup();
        macs
    }
}

/// The matrix with these two seats, in force also where it unseats running machines.
fn matrix(world: &World, m01: &str, m02: &str) {
    let head = SITE.split("[matrix]").next().expect("it has one");
    let site = format!("{head}[matrix]\nm01 = \"{m01}\"\nm02 = \"{m02}\"\n");
    std::fs::write(&world.site, site).expect("written");
    world.ok(&["reload", "--accept"]);
}

/// A machine is switched on again and waits for a seat: its console, `status` and `events` say so.
async fn waits(world: &World, machine: &str, seat: &str, holder: &str) {
    world.machine(machine).cycle().await.expect("power cycle");
    let mut console = world.machine(machine).viewer();
    let lines = [
        &format!("koboshi: waits for {seat}, which {holder} holds"),
        &format!("{holder} has it for"),
        &format!("koboshi fence {holder} --by-hand"),
    ];
    for line in lines {
        console.expect(line, MINUTES).await.expect("it says why it waits");
    }
    let row = world.row(machine);
    assert_eq!((&row["stage"], &row["held_by"]), (&"waiting".into(), &holder.into()), "{row:#}");
    let status = world.ok(&["status"]);
    assert!(status.contains(&format!("waits for {seat}, which {holder} holds (")), "{status}");
    let events = world.ok(&["events"]);
    assert!(
        events.contains(&format!("{machine} waits for {seat}, which {holder} holds")),
        "{events}"
    );
    let address = row["address"].as_str().expect("an address");
    assert!(address.starts_with("10.77.0.2") && address.len() == "10.77.0.200".len(), "{address}");
}

/// Part of S12, S20: two live machines are swapped in the matrix and restarted in either order. Who
/// comes first waits for the other, over a restart of the appliance too; a third host never sees two
/// of them answer at one address. A machine that is switched off for good is waited for until somebody
/// says so.
#[test]
fn a_seat_has_one_holder_whoever_restarts_first() {
    in_world(SITE, vec![spec("m01"), spec("m02")], async |world| {
        let mut world = world.with_images();
        world.serve().await;
        for machine in ["m01", "m02"] {
            world.machine(machine).power_on().await.expect("power on");
        }
        world.up("m01", "tool1").await;
        world.up("m02", "tool2").await;
        let host = world.rack.wire().peer().expect("a third host");
        host.address([10, 77, 0, 99].into(), 24).expect("an address");
        let first = Watch::begin(&host, "10.77.0.21").await;
        let second = Watch::begin(&host, "10.77.0.22").await;

        matrix(&world, "tool2", "tool1");
        waits(&world, "m02", "tool1", "m01").await;
        let explained = world.ok(&["explain", "m02"]);
        assert!(explained.contains("m01 holds the seat"), "{explained}");
        world.kill().await;
        world.serve().await;
        assert_eq!(world.row("m02")["held_by"], "m01", "held over a restart: {}", world.log());
        let mut shell = world.machine("m01").viewer_of_shell().await;
        assert_eq!(shell.run("hostname").await, "tool1");
        world.machine("m01").cycle().await.expect("power cycle");
        world.up("m01", "tool2").await;
        world.up("m02", "tool1").await;

        // And back, the other one first.
        matrix(&world, "tool1", "tool2");
        waits(&world, "m01", "tool1", "m02").await;
        world.machine("m02").cycle().await.expect("power cycle");
        world.up("m02", "tool2").await;
        world.up("m01", "tool1").await;

        // m01 is switched off and stays off. Nobody but us can know that.
        world.machine("m01").power_off().await.expect("power off");
        matrix(&world, "spare", "tool1");
        waits(&world, "m02", "tool1", "m01").await;
        let unproved = world.run(&["fence", "m01"]);
        assert_eq!(unproved.status.code(), Some(1), "{}", text(&unproved));
        assert!(text(&unproved).contains("koboshi fence m01 --by-hand"), "{}", text(&unproved));
        let unasked = world.run(&["fence", "m01", "--by-hand"]);
        assert_eq!(unasked.status.code(), Some(2), "{}", text(&unasked));
        assert!(text(&unasked).contains("m01 holds tool1 (10.77.0.21)"), "{}", text(&unasked));
        assert_eq!(world.row("m02")["held_by"], "m01");
        let fenced = world.ok(&["fence", "m01", "--by-hand", "--yes"]);
        assert!(fenced.contains("tool1 (10.77.0.21) is free; m02 boots into it"), "{fenced}");
        let free = Instant::now();
        world.up("m02", "tool1").await;
        assert!(free.elapsed() < Duration::from_secs(120), "{:?}", free.elapsed());
        let events = world.ok(&["events"]);
        assert!(events.contains("m01 is fenced, by hand, by root"), "{events}");
        assert!(!events.contains("conflict"), "{events}");

        let (m01, m02) = ("52:54:00:77:00:01", "52:54:00:77:00:02");
        assert_eq!(first.end().await, [m01, m02, m01, m02], "10.77.0.21, one after the other");
        assert_eq!(second.end().await, [m02, m01, m02], "10.77.0.22, one after the other");
    });
}
