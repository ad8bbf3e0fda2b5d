//! Data disks that are put together first: a mirror, half a mirror, a volume of LVM.

use std::path::Path;

use koboshi::lab::qemu::{Disk, Spec};

use super::build;
use crate::boot::{HasShell, MINUTES, spec};
use crate::world::in_world;

const SITE: &str = r#"
[site]
name = "rack"

[net]
interface = "kb0"
cidr = "10.77.0.0/24"

[roles.db]
image = "array"

[machines]
m01 = { mac = ["52:54:00:77:00:01"] }

[seats]
db1 = { role = "db", ip = "10.77.0.11" }

[matrix]
m01 = "db1"
"#;

/// The image's own mdadm and vgchange assemble what they find, before the system starts; systemd has
/// both file systems from its first moment. With one disk of the mirror gone the boot waits for it,
/// then goes on with the other.
#[test]
fn a_mirror_and_a_volume_are_assembled() {
    let recipe = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/soak/array.toml");
    build(&[recipe.to_str().expect("a path of ours is UTF-8")]);
    let disks = ["disk0", "disk1", "disk2"].map(|serial| Disk::new(96, serial)).to_vec();
    in_world(SITE, vec![Spec { disks, ..spec("m01") }], async |world| {
        let mut world = world.with_images();
        world.serve().await;
        let machine = world.machine("m01").clone();
        machine.power_on().await.expect("power on");
        world.up("m01", "db1").await;
        let mut shell = machine.viewer_of_shell().await;
        for command in [
            "mdadm --create /dev/md0 --run --level=1 --raid-devices=2 /dev/vda /dev/vdb",
            "mkfs.ext4 -q -L db /dev/md0",
            "vgcreate vg0 /dev/vdc",
            "lvcreate -y -n log -L 32M vg0",
            "mkfs.ext4 -q -L log /dev/vg0/log",
            "mdadm --wait /dev/md0 || true",
            "sync",
        ] {
            let said = shell.run(&format!("{command} < /dev/null; echo ended $?")).await;
            assert!(said.ends_with("ended 0"), "{command}: {said}");
        }

        let disks = r#"disks = { "/data" = "LABEL=db", "/data/log" = "/dev/vg0/log" }"#;
        let site =
            SITE.replace("ip = \"10.77.0.11\" }", &format!("ip = \"10.77.0.11\", {disks} }}"));
        std::fs::write(&world.site, site).expect("written");
        world.ok(&["reload", "--accept"]);
        machine.cycle().await.expect("power cycle");
        world.up("m01", "db1").await;
        let mut shell = machine.viewer_of_shell().await;
        let mounted = shell.run("findmnt -rno TARGET,SOURCE,FSTYPE | grep data").await;
        assert!(
            mounted.contains("/data /dev/md") && mounted.contains("/data/log /dev/dm-"),
            "{mounted}"
        );
        let state = shell.run("systemctl is-system-running; systemctl --failed --no-legend").await;
        assert!(state.starts_with("running"), "{state}");
        shell.run("echo still here | tee /data/kept > /data/log/kept; sync").await;

        machine.power_off().await.expect("power off");
        let half = world.rack.dir().join("m01.disk1");
        std::fs::write(&half, vec![0; 96 << 20]).expect("a new blank disk");
        machine.power_on().await.expect("power on");
        let mut console = machine.viewer();
        console
            .expect("arrays are started without them", MINUTES)
            .await
            .expect("it waits for the other half, then goes on");
        world.up("m01", "db1").await;
        let mut shell = machine.viewer_of_shell().await;
        assert_eq!(shell.run("sort -u /data/kept /data/log/kept").await, "still here");
        let state = shell.run("cat /proc/mdstat").await;
        assert!(state.contains("[2/1]"), "{state}");
    });
}
