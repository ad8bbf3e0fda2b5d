//! First set-up of a server as it comes out of its box: a BMC with its factory's account and an address that DHCP never
//! gave it, and a machine that nobody has written down.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Instant;

use koboshi::lab::bmc::{Account, Bmcs};
use koboshi::lab::qemu::{Bus, Disk, Spec};
use koboshi_ipmi::commands::lan;
use koboshi_ipmi::commands::parameters::Table;
use koboshi_ipmi::{Completion, Password};

use super::build;
use crate::boot::maintain::finished;
use crate::boot::{MINUTES, spec};
use crate::world::{in_world, text};

const SITE: &str = r#"
[site]
name = "rack"

[net]
interface = "kb0"
cidr = "10.77.0.0/24"
pool = "10.77.0.200-10.77.0.220"

[roles.rescue]
image = "rescue"

[defaults.bmc]
user = "admin"
password-file = "bmc.pw"

[machines]

[seats]
tool1 = { role = "rescue", ip = "10.77.0.21" }

[matrix]
"#;

const OURS: &str = "open-sesame-42";
const THEIRS: &str = "ADMIN-4711";
const BMC: [u8; 4] = [10, 78, 0, 7];

fn account() -> Account {
    Account {
        machine: "m07".into(),
        listen: SocketAddr::from((BMC, 623)),
        mac: None,
        user: "ADMIN".into(),
        password: Password::new(THEIRS).expect("it is short"),
        kg: None,
        suite: None,
    }
}

/// Two commands later the machine is in the site file with its BMC, which knows the site's account and no factory's
/// any more; its slots, disks and cards are there to be read; and it is in its seat by itself. No password has crossed
/// the provisioning network, or is in anything that was written down.
#[test]
fn a_server_out_of_its_box_is_set_up() {
    // Debian's kernel for clouds has no driver for a BMC.
    build(&["setup", "--kernel", "metal"]);
    let nvme = Disk { bus: Bus::Nvme, ..Disk::new(96, "NV-07") };
    let bmc = Some(account().system_interface());
    in_world(SITE, vec![Spec { bmc, disks: vec![nvme], ..spec("m07") }], async |world| {
        let mut world = world.with_images();
        let dir = world.site.parent().unwrap_or(Path::new("/")).to_path_buf();
        let factory = dir.join("factory.pw");
        std::fs::write(dir.join("bmc.pw"), OURS).expect("written");
        std::fs::write(&factory, THEIRS).expect("written");
        let bmcs = Bmcs::plug_in(&world.rack, vec![account()]).expect("a BMC");
        let listen = account().listen;
        // It waits for DHCP.
        let fresh = bmcs.sim().with_at(listen, |bmc| {
            let set = |parameter, data: &[u8]| Table::lan(1).set_request(parameter, data);
            let address = bmc.ask(&set(lan::ADDRESS, &[0; 4]), Instant::now());
            [address, bmc.ask(&set(lan::SOURCE, &[2]), Instant::now())]
        });
        let fresh = fresh.expect("it is plugged in");
        assert!(fresh.iter().all(|answer| answer.completion == Completion::OK), "{fresh:?}");
        world.serve().await;

        world.ok(&["adopt", "52:54:00:77:00:07", "--name", "m07", "--seat", "tool1"]);
        let none = world.run(&["maintain", "m07", "setup", "--bmc-address", "--bmc-user"]);
        assert!(text(&none).contains("the site names no BMC for m07"), "{}", text(&none));
        let path = factory.to_str().expect("UTF-8");
        let ordered = world.ok(&[
            "maintain",
            "m07",
            "setup",
            "--bmc-address",
            "10.78.0.7/24",
            "--bmc-gateway",
            "10.78.0.1",
            "--bmc-user",
            "--factory-user",
            "ADMIN",
            "--factory-password-file",
            path,
            "--disable-factory",
        ]);
        assert!(ordered.contains("bmc = \"10.78.0.7\" goes into its line"), "{ordered}");
        let mut console = world.machine("m07").viewer();
        world.machine("m07").power_on().await.expect("power on");
        console
            .expect("surveyed; its BMC is at 10.78.0.7/24", MINUTES)
            .await
            .expect("on its console");
        let row = finished(&world).await;
        assert_eq!(row["ticket"]["state"], "done", "{row:#}\n{}", world.log());
        let says = row["ticket"]["says"].as_str().expect("a sentence");
        for word in [
            "its BMC is at 10.78.0.7/24 (static), gateway 10.78.0.1 now",
            "user 3, admin, was made by ADMIN",
            "admin logs in",
            "ADMIN is disabled",
        ] {
            assert!(says.contains(word), "{word} in {says}");
        }

        // The site has it, and everything that goes by the site reaches it.
        let site = std::fs::read_to_string(&world.site).expect("the site");
        assert!(site.contains(r#"bmc = "10.78.0.7""#), "{site}");
        assert!(world.ok(&["power", "m07", "status"]).contains("on"));
        let (ours, theirs) = bmcs
            .sim()
            .with_at(listen, |bmc| {
                let may = |id| bmc.users.by_id(id).is_some_and(|user| user.may_log_in());
                (may(3), may(2))
            })
            .expect("it is there");
        assert!(ours && !theirs);
        let page = world.ok(&["hardware", "m07"]);
        for word in [
            "serial LAB-m07",
            "serial NV-07, firmware",
            "52:54:00:77:00:07",
            "slot      DIMM 0",
            "firmware 1.00, IPMI 2.0",
            "10.78.0.7/24 (static), gateway 10.78.0.1, untagged, MAC 52:54:00:78:00:07",
            "user 2: ADMIN, admin, enabled",
        ] {
            assert!(page.contains(word), "{word} in\n{page}");
        }
        let told = world.json(&["hardware", "m07"]);
        assert_eq!(told["surveyed"]["survey"]["bmc"]["lan"]["address"], "10.78.0.7", "{told:#}");
        let receipt = row["ticket"]["receipt"].as_str().expect("a receipt");
        assert!(world.ok(&["receipt", "verify"]).contains(&format!("{receipt}: well")));
        assert!(world.ok(&["receipt", "show", receipt]).contains("slot      DIMM 0"));

        let boot = world.up("m07", "tool1").await;
        assert_eq!(boot["plan"]["role"], "rescue");
        // It could be ordered once more, and nothing would go into the site file.
        let place = ["--bmc-address", "10.78.0.7/24", "--bmc-user", "--dry"];
        let again = world.ok(&[&["maintain", "m07", "setup"], &place[..]].concat());
        assert!(again.contains("m07 would be ordered: setup"), "{again}");
        assert!(!again.contains("goes into its line"), "{again}");

        for secret in [OURS, THEIRS] {
            let found = std::process::Command::new("grep")
                .args(["-rlaF", secret])
                .arg(&world.state)
                .arg(world.rack.dir())
                .args(["--exclude=bmc.pw", "--exclude=factory.pw"])
                .output();
            let found = found.expect("grep runs");
            assert!(found.stdout.is_empty(), "{}", String::from_utf8_lossy(&found.stdout));
        }
    });
}
