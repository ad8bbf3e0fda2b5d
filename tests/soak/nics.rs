//! NICs beside the one that boots: bonds, VLANs, further networks.

use std::process::Stdio;
use std::time::{Duration, Instant};

use koboshi::lab::qemu::{Bus, Card, Disk, Nic, Spec};

use crate::boot::{HasShell, MINUTES, Shell, spec};
use crate::world::{World, in_world, text};

/// m01 is of metal, as far as QEMU has any: it boots by an Intel NIC, which is one half of an
/// active-backup bond, and has an NVMe disk. m02 has LACP before a switch that knows none, a NIC by the name that udev will give it, and one whose
/// cable is out.
const SITE: &str = r#"
[site]
name = "rack"

[net]
interface = "kb0"
cidr = "10.77.0.0/24"
pool = "10.77.0.200-10.77.0.210"
routes = "10.99.0.0/16 via 10.77.0.1"

[networks.svc]
vlan = 20
cidr = "10.20.0.0/24"
gateway = "10.20.0.1"

[networks.store]
cidr = "10.30.0.0/24"
mtu = 9000
routes = "10.80.0.0/16 via 10.30.0.254"

[networks.lost]
cidr = "10.40.0.0/24"

[roles.metal]
image = "metal"

[roles.web]
image = "web"

[machines.m01]
mac = ["52:54:00:77:00:01", "52:54:00:77:01:01"]
nics = { boot = "eno1", second = "52:54:00:77:01:01", bond0 = ["eno1", "second"] }

[machines.m02]
mac = ["52:54:00:77:00:02", "52:54:00:77:01:02"]
nics = { boot = "eno1", lost = "52:54:00:77:03:02", bond0 = { of = ["eno1", "52:54:00:77:01:02"], mode = "802.3ad" } }

[seats]
db1 = { role = "metal", ip = "10.77.0.21", nets = { svc = { ip = "10.20.0.21", on = "bond0" } } }
web2 = { role = "web", ip = "10.77.0.12", nets = { svc = "10.20.0.22", store = { ip = "10.30.0.22", on = "enp0s3" }, lost = { ip = "10.40.0.22", on = "lost" } } }

[matrix]
m01 = "db1"
m02 = "web2"
"#;

fn card(mac: &str, model: Nic) -> Card {
    Card { mac: mac.parse().expect("a MAC"), model }
}

/// A bond with a tagged VLAN carries a seat's addresses, by whichever cable is left; a boot that has
/// no link says so and waits for it, and one whose further network has none goes on and says so;
/// networkd is restarted, and nothing of what koboshi-init built so much as blinks.
#[test]
fn bonds_and_vlans_carry_a_seat_and_change_hands() {
    let metal = Spec {
        nic: Nic::E1000e,
        more_nics: vec![card("52:54:00:77:01:01", Nic::Virtio)],
        disks: vec![Disk { bus: Bus::Nvme, ..Disk::new(64, "nvme0") }],
        ..spec("m01")
    };
    let more = ["52:54:00:77:01:02", "52:54:00:77:02:02", "52:54:00:77:03:02"];
    let more_nics = more.map(|mac| card(mac, Nic::Virtio)).to_vec();
    let web = Spec { more_nics, ..spec("m02") };
    in_world(SITE, vec![metal, web], async |world| {
        let mut world = world.with_images();
        world.serve().await;
        let (m01, m02) = (world.machine("m01"), world.machine("m02"));
        m02.power_on().await.expect("power on");
        m02.cable_of(3, false).await.expect("a cable out");
        m01.power_on().await.expect("power on");
        let plan = world.ok(&["explain", "m01"]);
        assert!(plan.contains("network svc: 10.20.0.21/24 on bond0, VLAN 20"), "{plan}");
        let checked = text(
            &world
                .rack
                .output(
                    crate::world::KOBOSHI,
                    &["check", "--site", world.site.to_str().expect("UTF-8")],
                )
                .expect("koboshi runs"),
        );
        assert!(checked.contains("speak no LACP"), "{checked}");

        // Both cables out between loader and init: nothing to do but wait, and to say for what. The
        // one it booted by stays out.
        let mut console = m01.viewer();
        console.expect("Linux version", MINUTES).await.expect("the kernel starts");
        for nic in [0, 1] {
            m01.cable_of(nic, false).await.expect("a cable out");
        }
        let said = console.expect("bond0: no link on eno1, second; waiting", MINUTES).await;
        said.expect("it says so");
        m01.cable_of(1, true).await.expect("a cable in");
        console
            .expect("bond0 works by second; no link on eno1", MINUTES)
            .await
            .expect("it says so");
        world.up("m01", "db1").await;
        world.up("m02", "web2").await;
        assert!(world.ok(&["boots", "m01"]).contains("bond0 works by second"));

        let mut db = m01.viewer_of_shell().await;
        has(&mut db, "ip -4 addr show bond0", &["10.77.0.21/24"]).await;
        has(&mut db, "ip -4 addr show bond0.20", &["10.20.0.21/24"]).await;
        has(&mut db, "cat /proc/net/bonding/bond0", &["active-backup", "Active Slave: second"])
            .await;
        has(&mut db, "cat /proc/net/vlan/bond0.20", &["VID: 20"]).await;
        has(&mut db, "ip route", &["10.99.0.0/16 via 10.77.0.1", "default via 10.20.0.1"]).await;
        has(&mut db, "ls /dev/nvme0n1; hostname", &["/dev/nvme0n1", "db1"]).await;

        // Further networks without a link hold up no boot.
        let boot = &world.json(&["boots", "m02", "-n", "1"])[0];
        assert!(boot.to_string().contains("lost: no link"), "{boot:#}");
        let mut web = m02.viewer_of_shell().await;
        has(&mut web, "cat /proc/net/bonding/bond0", &["802.3ad", "layer2+3"]).await;
        // What udev calls it is what we called it.
        has(&mut web, "udevadm info /sys/class/net/enp0s3", &["ID_NET_NAME_PATH=enp0s3"]).await;
        has(&mut web, "ip link show enp0s3", &["mtu 9000"]).await;
        has(&mut web, "networkctl --no-pager", &["enp0s3", "configured", "unmanaged"]).await;

        // Two machines in one VLAN, and the frames between them are tagged.
        let tagged = Tagged::count(&world, &m01.ports()[1]);
        has(&mut web, "ping -c 3 10.20.0.21", &[" 0% packet loss"]).await;
        assert!(tagged.so_far(&world) >= 6, "{}", tagged.listing(&world));

        // The other cable back in, and this one out: the other one carries both networks.
        let bond = "cat /proc/net/bonding/bond0";
        m01.cable_of(0, true).await.expect("a cable in");
        until(&mut db, bond, |said| said.matches("MII Status: up").count() == 3).await;
        // The boot NIC is preferred when it has its link for the first time.
        db.run("echo second > /sys/class/net/bond0/bonding/active_slave").await;
        has(&mut db, bond, &["Active Slave: second"]).await;
        m01.cable_of(1, false).await.expect("a cable out");
        until(&mut db, bond, |said| said.contains("Active Slave: eno1")).await;
        assert!(answers(&world, "10.77.0.21"), "{}", db.run(bond).await);
        has(&mut web, "ping -c 3 10.20.0.21", &[" 0% packet loss"]).await;

        // networkd starts anew: what it finds is what it wants. Nor was there a flap when it first did.
        has(&mut web, "dmesg | grep 'definitely down' || echo never", &["never"]).await;
        let state = "ip -4 -o addr | grep -v ' lo '; ip route; ip -o link | cut -d: -f2; \
                     cat /sys/class/net/*/carrier_changes";
        let before = web.run(state).await;
        let mut outside = world.rack.command("busybox");
        outside.args(["ping", "-i", "0.2", "-c", "60", "10.77.0.12"]).stdout(Stdio::piped());
        let watched = world.rack.spawn(outside).await.expect("ping runs");
        has(
            &mut web,
            "systemctl restart systemd-networkd; sleep 6; networkctl --no-pager",
            &["configured"],
        )
        .await;
        let said = watched.wait_with_output().await.expect("ping ends");
        let said = String::from_utf8_lossy(&said.stdout).into_owned();
        assert!(
            [" 60 packets rec", " 59 packets rec"].iter().any(|many| said.contains(many)),
            "{said}"
        );
        assert_eq!(web.run(state).await, before);
        for line in ["10.77.0.12/24", "10.20.0.22/24", "10.30.0.22/24", "10.40.0.22/24"] {
            assert!(before.contains(line), "{before}");
        }
        for line in ["10.99.0.0/16 via 10.77.0.1 dev bond0", "10.80.0.0/16 via 10.30.0.254"] {
            assert!(before.contains(line), "{before}");
        }
        has(&mut web, "ping -c 3 10.20.0.21", &[" 0% packet loss"]).await;
        assert!(world.curl("http://10.77.0.12/").contains("web2"));
        assert!(world.stop().await, "SIGTERM ends it well:\n{}", world.log());
    });
}

async fn has(shell: &mut Shell, command: &str, expected: &[&str]) {
    let said = shell.run(command).await;
    for word in expected {
        assert!(said.contains(word), "{command}: no {word} in {said}");
    }
}

async fn until(shell: &mut Shell, command: &str, holds: impl Fn(&str) -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let said = shell.run(command).await;
        if holds(&said) {
            return;
        }
        assert!(Instant::now() < deadline, "{command}: {said}");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

fn answers(world: &World, address: &str) -> bool {
    let ping = world.rack.output("busybox", &["ping", "-c", "1", "-W", "1", address]);
    ping.expect("ping runs").status.success()
}

/// Counts frames of VLAN 20 on a machine's port of the switch.
struct Tagged;

impl Tagged {
    fn count(world: &World, port: &str) -> Tagged {
        let script = format!(
            "table netdev tagged {{
                chain in {{ type filter hook ingress device \"{port}\" priority 0; vlan id 20 counter; }}
                chain out {{ type filter hook egress device \"{port}\" priority 0; vlan id 20 counter; }}
            }}"
        );
        let made = world.rack.output("nft", &[&script]).expect("nft runs");
        assert!(made.status.success(), "{}", text(&made));
        Tagged
    }

    fn listing(&self, world: &World) -> String {
        text(&world.rack.output("nft", &["list", "table", "netdev", "tagged"]).expect("nft runs"))
    }

    fn so_far(&self, world: &World) -> u64 {
        let listing = self.listing(world);
        let counts = listing.split("counter packets ").skip(1);
        counts.filter_map(|rest| rest.split(' ').next()?.parse::<u64>().ok()).sum()
    }
}
