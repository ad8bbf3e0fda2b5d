//! Orders for one boot: a wipe, and what is left of a disk after it.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::time::{Duration, Instant};

use koboshi::lab::qemu::{Bus, Disk, Spec};

use super::roots::mke2fs;
use super::{HasShell, MINUTES, spec};
use crate::world::{World, in_world, text};

pub const SITE: &str = r#"
[site]
name = "rack"

[net]
interface = "kb0"
cidr = "10.77.0.0/24"
pool = "10.77.0.200-10.77.0.220"

[roles.rescue]
image = "rescue"

[machines]
m07 = { mac = ["52:54:00:77:00:07"] }
m08 = { mac = ["52:54:00:77:00:08"], protected = true }

[seats]
tool1 = { role = "rescue", ip = "10.77.0.21" }

[matrix]
m07 = "tool1"
"#;

const SECRET: &[u8] = b"customers' data ";

/// S14. Two disks full of known bytes, one by each driver, a machine with an order and never seen before:
/// nothing of them is left, each is told of on the console and in `status`, the receipt verifies with OpenSSL too,
/// and the machine is in its seat afterwards without anybody's doing.
#[test]
fn a_wipe_leaves_nothing_and_a_receipt() {
    let nvme = Disk { bus: Bus::Nvme, ..Disk::new(96, "NV-07") };
    let disks = vec![Disk::new(160, "VD-07"), nvme];
    in_world(SITE, vec![Spec { disks, ..spec("m07") }], async |world| {
        let mut world = world.with_images();
        let paths = [world.rack.dir().join("m07.disk0"), world.rack.dir().join("m07.disk1")];
        paths.iter().for_each(|path| fill(path));
        world.serve().await;

        for (words, why) in [
            (&["maintain", "m08", "rescue"][..], "m08 is protected"),
            (&["maintain", "m09", "rescue"], "m09"),
            (&["maintain", "m07", "wipe"], "--serial NUMBER"),
            (&["maintain", "m07", "--cancel"], "nothing is ordered"),
        ] {
            let refused = world.run(words);
            assert!(
                !refused.status.success() && text(&refused).contains(why),
                "{}",
                text(&refused)
            );
        }
        world.ok(&["maintain", "m07", "rescue"]);
        let twice = world.run(&["maintain", "m07", "wipe", "--serial", "LAB-m07"]);
        assert!(text(&twice).contains("m07 has an order already: rescue"), "{}", text(&twice));
        world.ok(&["maintain", "m07", "--cancel"]);
        let wipe = ["maintain", "m07", "wipe", "--serial", "lab-M07", "--method", "random,zeros"];
        let ordered = world.ok(&wipe);
        assert!(ordered.contains("koboshi power m07 cycle"), "{ordered}");
        let explained = world.ok(&["explain", "m07", "--arch", "bios"]);
        assert!(
            explained.contains("because a ticket orders wipe for its next boot"),
            "{explained}"
        );
        assert!(explained.contains("would become no seat (role wipe, image wipe@"), "{explained}");
        assert!(world.ok(&["status"]).contains("ordered for its next boot: wipe"));

        // The order outlives the appliance.
        world.kill().await;
        world.serve().await;
        let mut console = world.machine("m07").viewer();
        world.machine("m07").power_on().await.expect("power on");
        console.expect("vda VD-07 (", MINUTES).await.expect("it says what it wipes");
        console.expect("its 2 disks are wiped", MINUTES).await.expect("and that it has");
        let row = finished(&world).await;
        assert_eq!(row["ticket"]["state"], "done", "{row:#}");
        for path in &paths {
            assert_eq!(left(path), 0, "{} of {}", row["ticket"], path.display());
        }

        let receipt = row["ticket"]["receipt"].as_str().expect("a receipt").to_string();
        assert!(world.ok(&["receipt", "verify"]).contains(&format!("{receipt}: well")));
        let shown = world.ok(&["receipt", "show", &receipt]);
        for word in
            ["VD-07", "NV-07", "160 MiB", "random, zeros", "LAB-m07", "its 2 disks are wiped"]
        {
            assert!(shown.contains(word), "{word} in {shown}");
        }
        let file = world.state.join(format!("receipts/{receipt}.json"));
        let forged = std::fs::read_to_string(&file).expect("the receipt").replace("VD-07", "VD-08");
        let path = world.rack.dir().join("forged.json");
        std::fs::write(&path, forged).expect("written");
        let refused = world.run(&["receipt", "verify", path.to_str().expect("a path")]);
        assert!(!refused.status.success() && text(&refused).contains("NOT GENUINE"));

        let boot = world.up("m07", "tool1").await;
        assert_eq!(boot["plan"]["role"], "rescue");
        let events = world.ok(&["events"]);
        for word in
            ["VD-07 is wiped (random, zeros), 160 MiB of 160 read back", "its 2 disks are wiped"]
        {
            assert!(events.contains(word), "{word} in {events}");
        }
        // It runs in a seat now, and is known: neither is forgotten.
        for (words, why) in [
            (&["maintain", "m07", "rescue"][..], "m07 runs in tool1"),
            (&["maintain", "m07", "rescue", "--seat", "tool2"], "m07 runs in tool1"),
            (&["maintain", "m07", "wipe", "--serial", "LAB-m08"], "not the serial number of m07"),
        ] {
            let refused = world.run(words);
            assert!(
                !refused.status.success() && text(&refused).contains(why),
                "{}",
                text(&refused)
            );
        }
    });
}

/// S14. A blank disk and one that holds something, which the order names, each get a partition and a file system by
/// their labels; the receipt verifies, and the machine goes on into the seat that mounts them.
#[test]
fn a_blank_disk_is_prepared_and_its_seat_mounts_it() {
    let seat = r#"ip = "10.77.0.21", disks = { "/data" = "LABEL=db", "/log" = "LABEL=log" } }"#;
    let site = SITE.replace(r#"ip = "10.77.0.21" }"#, seat);
    let nvme = Disk { bus: Bus::Nvme, ..Disk::new(96, "NV-07") };
    let disks = vec![Disk::new(160, "VD-07"), nvme];
    in_world(&site, vec![Spec { disks, ..spec("m07") }], async |world| {
        let mut world = world.with_images();
        mke2fs(&world.rack.dir().join("m07.disk1"), "old");
        world.serve().await;
        let order = ["maintain", "m07", "prepare-disks", "--serial", "LAB-m07", "--disk", "VD-07"];
        for (more, why) in [
            (&["--label", "a b"][..], "\"a b\" is no label"),
            (&["--label", "db", "--disk", "NV-07"], "one --label for each --disk"),
            (&["--label", "db", "--force", "everything"], "possible values: gpt"),
        ] {
            let refused = world.run(&[&order[..], more].concat());
            assert!(
                !refused.status.success() && text(&refused).contains(why),
                "{}",
                text(&refused)
            );
        }
        let both = ["--label", "db", "--disk", "nv-07", "--label", "log", "--partition"];
        world.ok(&[&order[..], &both, &["--force", "ext4"]].concat());
        let mut console = world.machine("m07").viewer();
        world.machine("m07").power_on().await.expect("power on");
        console.expect("ext4 LABEL=old will be lost", MINUTES).await.expect("it says what is lost");
        console.expect("its 2 disks are prepared", MINUTES).await.expect("and that it has");
        let row = finished(&world).await;
        assert_eq!(row["ticket"]["state"], "done", "{row:#}");
        let receipt = row["ticket"]["receipt"].as_str().expect("a receipt").to_string();
        assert!(world.ok(&["receipt", "verify"]).contains(&format!("{receipt}: well")));
        let shown = world.ok(&["receipt", "show", &receipt]);
        for word in ["prepare-disks of m07", "VD-07", "vda1", "nvme0n1p1", "ext4 LABEL=old"] {
            assert!(shown.contains(word), "{word} in {shown}");
        }

        world.up("m07", "tool1").await;
        let mut shell = world.machine("m07").viewer_of_shell().await;
        let mounted = shell.run("grep -e /data -e /log /proc/mounts").await;
        for line in ["/dev/vda1 /data ext4 rw", "/dev/nvme0n1p1 /log ext4 rw"] {
            assert!(mounted.contains(line), "{mounted}");
        }
        let uuids = shell.run("grep -e /data -e /log /etc/fstab").await;
        for disk in row["ticket"]["prepared"].as_array().expect("disks") {
            let uuid = disk["uuid"].as_str().expect("a UUID");
            assert!(disk["prepared"] == true && uuids.contains(uuid), "{row:#}\n{uuids}");
        }
    });
}

/// Waits until the order is carried out.
pub async fn finished(world: &World) -> serde_json::Value {
    let deadline = Instant::now() + MINUTES;
    loop {
        let rows = world.json(&["maintain"]);
        let row = rows[0].clone();
        if !matches!(row["ticket"]["state"].as_str(), Some("open" | "running" | "following")) {
            return row;
        }
        assert!(Instant::now() < deadline, "{row:#}\n{}", world.log());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

fn fill(path: &Path) {
    let size = std::fs::metadata(path).expect("the disk is there").len() as usize;
    let bytes = SECRET.repeat(size / SECRET.len());
    std::fs::write(path, bytes).expect("the disk is filled");
}

/// Bytes that are not zero.
fn left(path: &Path) -> usize {
    let (mut file, mut piece) = (File::open(path).expect("the disk"), vec![0; 1 << 20]);
    let mut left = 0;
    loop {
        match file.read(&mut piece).expect("it reads") {
            0 => return left,
            n => left += piece[..n].iter().filter(|byte| **byte != 0).count(),
        }
    }
}

/// S14. Its screen is on the serial line, as the site names that; the order is taken by it, and the machine's next
/// start is its seat's.
#[test]
fn memtest_draws_its_screen_on_the_serial_line() {
    in_world(SITE, vec![spec("m07")], async |world| tests_memory(world).await);
}

pub async fn tests_memory(world: World) {
    let mut world = world.with_images();
    world.serve().await;
    world.ok(&["maintain", "m07", "memtest"]);
    let mut console = world.machine("m07").viewer();
    world.machine("m07").power_on().await.expect("power on");
    console.expect("Memtest86+", MINUTES).await.expect("its screen");
    console.expect("Pass", MINUTES).await.expect("and it tests");
    let row = world.json(&["maintain"])[0].clone();
    assert_eq!(row["ticket"]["state"], "running", "{row:#}");
    assert!(world.ok(&["status"]).contains("memtest was handed over"));
    world.machine("m07").cycle().await.expect("power cycle");
    let row = finished(&world).await;
    assert_eq!(row["ticket"]["state"], "done", "{row:#}");
    let boots = world.json(&["boots", "m07", "-n", "1"]);
    assert_eq!(boots[0]["plan"]["role"], "rescue", "{boots:#}");
}
