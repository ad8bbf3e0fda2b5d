//! Power is lost on the whole site, and the appliance is the last to have it back.

use std::time::{Duration, Instant};

use koboshi::lab::qemu::{Firmware, Spec};
use serde_json::json;

use crate::boot::{MINUTES, spec};
use crate::world::{World, in_world, stages};

/// m01 goes by its iPXE ROM, m02 is sent through undionly.kpxe, m03 and m04 are OVMF; of m04 somebody
/// can say whether it has power.
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
m03 = { mac = ["52:54:00:77:00:03"] }
m04 = { mac = ["52:54:00:77:00:04"], power = "exec:pgrep -f 'qem[u].*-name m04 ' >/dev/null && echo on || echo off #" }

[seats]
tool1 = { role = "rescue", ip = "10.77.0.11" }
tool2 = { role = "rescue", ip = "10.77.0.12" }
tool3 = { role = "rescue", ip = "10.77.0.13" }
tool4 = { role = "rescue", ip = "10.77.0.14" }

[matrix]
m01 = "tool1"
m02 = "tool2"
m03 = "tool3"
m04 = "tool4"
"#;

/// The machines have power three minutes before the appliance has: nobody touches them, and all are
/// up in the end, but for one whose firmware does not try again: that one is listed, with what is
/// known of its power and what to do. One that falls silent later is said to be late, until it is
/// heard again.
#[test]
fn the_appliance_may_be_the_last_to_start() {
    let retries = Spec { firmware: Firmware::Uefi, ..spec("m03") };
    let gives_up = Spec { firmware: Firmware::Uefi, retries: false, ..spec("m04") };
    in_world(SITE, vec![spec("m01"), spec("m02"), retries, gives_up], async |world| {
        let mut world = world.with_images();
        // m04 has run, and was seen to restart: how long that takes is known.
        world.serve().await;
        let m04 = world.machine("m04").clone();
        m04.power_on().await.expect("power on");
        world.up("m04", "tool4").await;
        tokio::time::sleep(Duration::from_secs(30)).await;
        let first = world.json(&["boots", "m04"])[0]["id"].clone();
        m04.cycle().await.expect("power cycle");
        let second = anew(&world, &first).await;
        let after = second["after"].as_u64().expect("a restart was seen");
        assert!((1_000..180_000).contains(&after), "{after}");

        // The power fails everywhere, and comes back to the machines first.
        world.kill().await;
        m04.power_off().await.expect("power off");
        for machine in world.rack.machines() {
            machine.power_on().await.expect("power on");
        }
        let on = Instant::now();
        m04.viewer().expect("UEFI Interactive Shell", MINUTES * 2).await.expect("it gives up");
        eprintln!("m04 gave up after {} s", on.elapsed().as_secs());
        tokio::time::sleep(Duration::from_secs(180).saturating_sub(on.elapsed())).await;
        world.serve().await;
        let began = Instant::now();
        for (machine, seat) in [("m01", "tool1"), ("m02", "tool2"), ("m03", "tool3")] {
            let boot = world.up(machine, seat).await;
            eprintln!("{machine} is up {} s after the appliance", began.elapsed().as_secs());
            assert!(stages(&boot).contains(&"root-ready".to_string()), "{boot:#}");
        }
        assert_eq!(world.row("m04")["silent"], json!(null), "it has the time to start still");
        let silent = until(&world, "m04 is missed", |world| {
            let rows = world.json(&["status", "--silent"]);
            rows[0]["silent"]["evidence"]["power"].as_str().map(|_| rows.clone())
        })
        .await;
        assert!(began.elapsed() >= Duration::from_secs(170), "{silent:#}");
        assert_eq!(silent.as_array().map(Vec::len), Some(1), "{silent:#}");
        assert_eq!(silent[0]["silent"]["evidence"], json!({ "power": "on" }), "{silent:#}");
        let shown = world.ok(&["status", "--silent"]);
        assert!(shown.starts_with("1 machine has not come back: m04\n  it has power"), "{shown}");
        let events = world.ok(&["events"]);
        assert!(events.contains("m04 not heard of for"), "{events}");
        // What it says to do.
        m04.cycle().await.expect("power cycle");
        anew(&world, &second["id"]).await;
        until(&world, "nobody is missed", |world| {
            world.ok(&["status", "--silent"]).starts_with("every machine that ran").then_some(())
        })
        .await;

        // m02 stands still: its heartbeats stop, and that is said with what to look at.
        let m02 = world.machine("m02");
        m02.monitor("stop", json!({})).await.expect("stopped");
        until(&world, "m02 is late", |world| {
            world.ok(&["boots", "m02"]).contains("was up, and its heartbeats stopped").then_some(())
        })
        .await;
        let status = world.ok(&["status", "m02"]);
        assert!(status.contains("late: was up, and its heartbeats stopped"), "{status}");
        let events = world.ok(&["events"]);
        assert!(events.contains("stuck") && events.contains("ping 10.77.0.12"), "{events}");
        m02.monitor("cont", json!({})).await.expect("runs on");
        until(&world, "m02 is heard again", |world| {
            world.ok(&["boots", "m02"]).contains("it is heard of again").then_some(())
        })
        .await;
        assert_eq!(world.row("m02")["notes"], json!(null));
    });
}

/// m04's boot after this one, once it is up.
async fn anew(world: &World, last: &serde_json::Value) -> serde_json::Value {
    until(world, "m04 boots anew", |world| {
        let boot = world.json(&["boots", "m04"])[0].clone();
        (boot["id"] != *last && boot["stage"] == "up").then_some(boot)
    })
    .await
}

async fn until<T>(world: &World, what: &str, done: impl Fn(&World) -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(400);
    loop {
        if let Some(done) = done(world) {
            return done;
        }
        let all = || format!("{}\n{}", world.ok(&["status"]), world.log());
        assert!(Instant::now() < deadline, "{what}:\n{}", all());
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}
