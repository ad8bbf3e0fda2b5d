//! Machines nobody knows, and people who choose: the hardware report, `adopt`, the menu.

use std::time::{Duration, Instant};

use koboshi::lab::qemu::{Bus, Card, Disk, Nic, Spec};

use super::{HasShell, MINUTES, spec};
use crate::world::{in_world, text};

const SITE: &str = r#"
[site]
name = "rack"

[net]
interface = "kb0"
cidr = "10.77.0.0/24"
pool = "10.77.0.200-10.77.0.220"
unknown = "discover"
menu = ["tool"]

[roles.rescue]
image = "rescue"

[roles.tool]
image = "rescue"
cmdline = "kept=1"

[machines]
m01 = { mac = ["52:54:00:77:00:01"] } # the first

[seats]
tool1 = { role = "rescue", ip = "10.77.0.21", args = { id = "1" } }
tool2 = { role = "rescue", ip = "10.77.0.22" }

[matrix]
m01 = "tool1"
"#;

/// S5 and unknown machines. A stranger boots into rescue and shows what it is made of; `adopt` writes
/// it into the site file with a seat, and it becomes that by its next start. Meanwhile somebody presses
/// m on the serial line of the other machine, mistypes, and then makes it another role with an
/// argument, for that one boot.
#[test]
fn a_stranger_is_adopted_and_a_menu_is_answered() {
    let second = Card { mac: "52:54:00:77:01:07".parse().expect("a MAC"), model: Nic::Virtio };
    let nvme = Disk { bus: Bus::Nvme, ..Disk::new(512, "NV-07") };
    let stranger = Spec {
        more_nics: vec![second],
        disks: vec![Disk::new(1024, "VD-07"), nvme],
        ..spec("m07")
    };
    in_world(SITE, vec![spec("m01"), stranger], async |world| {
        let mut world = world.with_images();
        world.serve().await;
        for machine in ["m01", "m07"] {
            world.machine(machine).power_on().await.expect("power on");
        }

        let mut console = world.machine("m01").viewer();
        console.expect("koboshi: m for the menu", MINUTES).await.expect("the menu is offered");
        console.send("m").await.expect("pressed");
        console
            .follow(
                &["what shall this machine be?", "- tool1 (its seat", "- tool", "koboshi>"],
                MINUTES,
            )
            .await
            .expect("the menu");
        console.enter("toll id=100", MINUTES).await.expect("mistyped");
        console
            .follow(&["no \"toll\" here; there is tool1, tool", "koboshi>"], MINUTES)
            .await
            .expect("refused in words, and asked again");
        console.enter("tool id=100", MINUTES).await.expect("typed");
        console
            .follow(&["koboshi: role tool, id=100", "m01 boots into no seat (role tool"], MINUTES)
            .await
            .expect("taken");
        let typed = world.up("m01", "").await;
        assert_eq!(typed["plan"]["role"], "tool");
        let boots = world.ok(&["boots", "m01"]);
        assert!(boots.contains("role tool, id=100 was typed at its console"), "{boots}");
        let mut shell = world.machine("m01").viewer_of_shell().await;
        let cmdline = shell.run("cat /proc/cmdline").await;
        for word in ["koboshi.seat=-", "koboshi.role=tool", " id=100 kept=1"] {
            assert!(cmdline.contains(word), "{word} in {cmdline}");
        }
        assert_eq!(shell.run("hostname").await, "tool-525400770001");
        let address = world.row("m01")["address"].as_str().expect("an address").to_string();
        assert!(
            address.starts_with("10.77.0.2") && address.len() > "10.77.0.21".len(),
            "{address}"
        );
        let status = world.ok(&["status", "m01"]);
        assert!(status.contains("role tool was typed at its console"), "{status}");

        // The stranger says what it is made of.
        let mac = "52:54:00:77:00:07";
        world.up(mac, "").await;
        let told = world.json(&["explain", mac]);
        let hardware = &told["hardware"];
        assert_eq!(hardware["serial"], "LAB-m07", "{hardware:#}");
        assert_eq!(hardware["uuid"], "6b6f626f-7368-4969-8000-525400770007");
        assert_eq!(hardware["firmware"]["uefi"], false);
        assert!(hardware["firmware"]["vendor"].as_str().is_some_and(|v| !v.is_empty()));
        let list = |of: &str, key: &str| -> Vec<String> {
            let all = hardware[of].as_array().expect("a list").iter();
            all.map(|one| one[key].as_str().unwrap_or_default().to_string()).collect()
        };
        let mut disks = list("disks", "serial");
        disks.sort();
        assert_eq!(disks, ["NV-07", "VD-07"], "{hardware:#}");
        assert_eq!(list("nics", "mac"), [mac, "52:54:00:77:01:07"]);
        let links = hardware["nics"].as_array().expect("a list").iter();
        assert!(links.clone().all(|nic| nic["link"] == true), "{hardware:#}");
        let said = world.ok(&["status"]);
        assert!(said.contains("koboshi lab, serial LAB-m07, 1 core"), "{said}");
        let events = world.ok(&["events"]);
        assert!(events.contains(&format!("`koboshi adopt {mac}` writes it")), "{events}");

        // It is written into the site file, by one edit.
        let before = std::fs::read_to_string(&world.site).expect("the site file");
        let dry = world.ok(&["adopt", mac, "--dry"]);
        assert!(dry.contains("m02 would be written") && dry.contains("VD-07"), "{dry}");
        for (words, why) in [
            (&["adopt", mac, "--name", "m01"][..], "has a machine m01 already"),
            (&["adopt", mac, "--seat", "tool1"], "the matrix gives tool1 to m01"),
            (&["adopt", "52:54:00:77:00:01"], "gives 52:54:00:77:00:01 to m01 already"),
        ] {
            let refused = world.run(words);
            assert!(
                !refused.status.success() && text(&refused).contains(why),
                "{}",
                text(&refused)
            );
        }
        assert_eq!(std::fs::read_to_string(&world.site).expect("the site file"), before);
        let adopted = world.ok(&["adopt", mac, "--name", "m07", "--seat", "tool2"]);
        assert!(adopted.contains("it becomes tool2 as soon as it boots again"), "{adopted}");
        let line = format!("m07 = {{ mac = [\"{mac}\", \"52:54:00:77:01:07\"] }}\n");
        let after = before
            .replace("# the first\n", &format!("# the first\n{line}"))
            .replace("m01 = \"tool1\"\n", "m01 = \"tool1\"\nm07 = \"tool2\"\n");
        assert_eq!(std::fs::read_to_string(&world.site).expect("the site file"), after);

        // Both start again: the stranger into its seat, and what was typed is forgotten.
        for machine in ["m01", "m07"] {
            world.machine(machine).cycle().await.expect("power cycle");
        }
        world.up("m07", "tool2").await;
        world.up("m01", "tool1").await;
        assert_eq!(world.row("m07")["address"], "10.77.0.22");
        assert_eq!(world.row("m01")["address"], "10.77.0.21");
        let mut shell = world.machine("m01").viewer_of_shell().await;
        let cmdline = shell.run("cat /proc/cmdline").await;
        assert!(cmdline.ends_with(" id=1"), "{cmdline}");
        let explained = world.json(&["explain", "m07"]);
        assert_eq!(explained["hardware"]["serial"], "LAB-m07");
        assert_eq!(explained["evidence"], serde_json::Value::Null, "{explained:#}");

        // Two lines of the site are swapped by mistake: each machine answers with the other's number.
        let swapped = after
            .replace(mac, "52:54:00:77:00:xx")
            .replace("52:54:00:77:00:01", mac)
            .replace("52:54:00:77:00:xx", "52:54:00:77:00:01");
        std::fs::write(&world.site, swapped).expect("written");
        world.ok(&["reload", "--accept"]);
        // Or the one would wait for the other's address, and say nothing of itself.
        world.machine("m07").power_off().await.expect("power off");
        world.machine("m01").cycle().await.expect("power cycle");
        let deadline = Instant::now() + MINUTES;
        let wanted =
            "m07 answers with serial LAB-m01, last time LAB-m07 (m01 had LAB-m01 last time)";
        while !world.ok(&["status"]).contains(wanted) {
            assert!(Instant::now() < deadline, "{}", world.ok(&["status"]));
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        assert!(world.ok(&["events"]).contains("are two lines of the site swapped?"));
    });
}
