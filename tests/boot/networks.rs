//! Machines on networks that are not simply ours: beside another DHCP server, behind a relay agent.

use std::net::Ipv4Addr;

use koboshi::lab::keeper;
use koboshi::lab::qemu::{Firmware, Spec};

use super::{HasShell, spec};
use crate::world::{in_world, stages, text};

/// Somebody else's server lends the addresses; one seat has an address of its own.
const BESIDE: &str = r#"
[site]
name = "beside"

[net]
interface = "kb0"
cidr = "10.77.0.0/24"
mode = "proxy"

[roles.rescue]
image = "rescue"

[machines]
m01 = { mac = ["52:54:00:77:00:01"] }
m02 = { mac = ["52:54:00:77:00:02"] }

[seats]
tool1 = { role = "rescue", ip = "10.77.0.21" }
tool2 = { role = "rescue" }

[matrix]
m01 = "tool1"
m02 = "tool2"
"#;

/// Proxy mode beside dnsmasq: EDK2's own PXE stack and SeaBIOS's iPXE take their addresses from it and
/// what they boot from us. The seat with an address gets that, the other keeps what it was lent.
#[test]
fn beside_dnsmasq_machines_boot_by_our_proxy() {
    let uefi = Spec { firmware: Firmware::Uefi, ..spec("m01") };
    in_world(BESIDE, vec![uefi, spec("m02")], async |world| {
        let mut world = world.with_images();
        let other = world.rack.wire().peer().expect("a neighbour");
        other.address(Ipv4Addr::new(10, 77, 0, 2), 24).expect("an address");
        let mut dnsmasq = keeper::bound("dnsmasq");
        dnsmasq.args(["--no-daemon", "--port=0", "--conf-file=/dev/null", "--interface=eth0"]);
        dnsmasq.args(["--dhcp-range=10.77.0.130,10.77.0.140,1h", "--leasefile-ro", "--user=root"]);
        dnsmasq.args(["--dhcp-authoritative", "--log-dhcp", "--no-ping"]);
        dnsmasq.stderr(std::process::Stdio::null());
        let _dnsmasq =
            other.keeper.spawn(dnsmasq).await.expect("dnsmasq: `make setup` installs it");

        let explained = world.rack.output(
            crate::world::KOBOSHI,
            &["explain", "m01", "--site", world.site.to_str().expect("UTF-8")],
        );
        assert!(text(&explained.expect("koboshi runs")).contains("proxy mode"));
        world.serve().await;
        for machine in ["m01", "m02"] {
            world.machine(machine).power_on().await.expect("power on");
        }
        let own = world.up("m02", "tool2").await;
        let lent = own["address"].as_str().expect("an address").to_string();
        assert!(lent.starts_with("10.77.0.13") || lent == "10.77.0.140", "{lent}");
        let seat = world.up("m01", "tool1").await;
        assert_eq!(seat["address"], "10.77.0.21");
        let loaned = seat["lent"].as_str().expect("what its firmware was lent").to_string();
        assert_ne!(loaned, lent);
        assert!(stages(&seat).contains(&"loader".to_string()), "{seat:#}");
        assert!(world.ok(&["boots", "m01"]).contains("lent by 10.77.0.2"));

        let mut shell = world.machine("m01").viewer_of_shell().await;
        let addresses = shell.run("ip -4 addr").await;
        assert!(addresses.contains("10.77.0.21/24") && !addresses.contains(&loaned), "{addresses}");
        let leases = world.ok(&["events"]);
        assert!(!leases.contains("pool-empty"), "{leases}");
    });
}

/// 10.79.0.0/24 is behind a router that runs ISC's relay agent.
const BEHIND: &str = r#"
[site]
name = "behind"

[net]
interface = "kb0"
cidr = "10.77.0.0/24"

[[net.subnet]]
relay = "10.79.0.1"
cidr = "10.79.0.0/24"
gateway = "10.79.0.1"
pool = "10.79.0.200-10.79.0.210"

[roles.rescue]
image = "rescue"

[machines]
m01 = { mac = ["52:54:00:77:00:01"] }
m02 = { mac = ["52:54:00:77:00:02"] }

[seats]
near1 = { role = "rescue", ip = "10.77.0.21" }
far1 = { role = "rescue", ip = "10.79.0.21" }

[matrix]
m01 = "near1"
m02 = "far1"
"#;

/// Behind a relay: a machine comes up in its seat, its root fetched through the router, and the switch
/// port is kept; a machine plugged in there by mistake gets words instead of its seat's address.
#[test]
fn behind_a_relay_a_machine_comes_up_and_a_misplaced_one_is_told() {
    in_world(BEHIND, vec![spec("m01"), spec("m02")], async |world| {
        let mut world = world.with_images();
        let wire = world.rack.wire();
        let (near, beyond) = (Ipv4Addr::new(10, 77, 0, 254), Ipv4Addr::new(10, 79, 0, 1));
        let far = wire.far("kb1", near, beyond, 24).expect("a second wire");
        for machine in ["m01", "m02"] {
            far.plug(wire, world.machine(machine).port()).expect("plugged in");
        }
        let server = Ipv4Addr::new(10, 77, 0, 1);
        let _relay = far.relay(server).await.expect("dhcrelay: `make setup` installs it");
        world.serve().await;
        for machine in ["m01", "m02"] {
            world.machine(machine).power_on().await.expect("power on");
        }
        let boot = world.up("m02", "far1").await;
        assert_eq!(boot["address"], "10.79.0.21");
        assert_eq!(boot["via"]["relay"], "10.79.0.1");
        assert_eq!(boot["via"]["circuit"], "eth1", "{boot:#}");
        assert!(world.ok(&["boots", "m02"]).contains("by relay 10.79.0.1, circuit eth1"));
        assert_eq!(world.row("m02")["via"]["circuit"], "eth1");
        let mut shell = world.machine("m02").viewer_of_shell().await;
        assert!(shell.run("ip route").await.contains("default via 10.79.0.1"));

        let words = "m01 asks from 10.79.0.0/24, its seat near1 lives in 10.77.0.0/24";
        let mut console = world.machine("m01").viewer();
        console.expect(words, super::MINUTES).await.expect("it says so");
        let row = world.row("m01");
        assert_eq!(row["stage"], "waiting", "{row:#}");
        assert!(row["address"].as_str().is_some_and(|at| at.starts_with("10.79.0.2")), "{row:#}");
    });
}
