//! ipmitool and FreeIPMI against simulated BMCs: whoever shares no code with them judges them.

use crate::tools::{FreeIpmi, PASSWORD, ipmitool};
use koboshi_bmcsim::{Config, Faults, Sim};
use koboshi_ipmi::crypto::SUITES;
use koboshi_ipmi::wire::v15::Auth;
use koboshi_ipmi::{Kg, Password};

fn config() -> Config {
    let mut config = Config::with_admin("admin", Password::new(PASSWORD).unwrap());
    config.suites = SUITES.to_vec();
    config.auths = vec![Auth::None, Auth::Md5, Auth::Password];
    config
}

fn is_on(sim: &Sim) -> bool {
    sim.with(|bmc| bmc.chassis.on)
}

#[test]
fn ipmitool_by_every_suite() {
    let sim = Sim::start(config()).unwrap();
    for suite in SUITES {
        let suite = suite.id.to_string();
        for (button, on) in [("on", true), ("off", false)] {
            let said = ipmitool(&sim, &["-I", "lanplus", "-C", &suite, "power", button]).unwrap();
            assert!(said.starts_with("Chassis Power Control"), "suite {suite}: {said}");
            assert_eq!(is_on(&sim), on, "suite {suite}");
            let said = ipmitool(&sim, &["-I", "lanplus", "-C", &suite, "power", "status"]).unwrap();
            assert_eq!(said.trim(), format!("Chassis Power is {button}"), "suite {suite}");
        }
    }
    assert_eq!(sim.with(|bmc| bmc.sessions.open().count()), 0, "it closes what it opens");
}

#[test]
fn ipmitool_chooses_the_best_suite_by_itself() {
    let sim = Sim::start(config()).unwrap();
    let said = ipmitool(&sim, &["-I", "lanplus", "session", "info", "active"]).unwrap();
    assert!(said.contains("IPMIv2/RMCP+") && said.contains("ADMINISTRATOR"), "{said}");
    let said = ipmitool(&sim, &["-I", "lanplus", "channel", "getciphers", "ipmi"]).unwrap();
    for suite in SUITES {
        let line = said.lines().find(|line| line.split(' ').next() == Some(&suite.id.to_string()));
        assert!(line.is_some(), "{said}");
    }
    let said = ipmitool(&sim, &["-I", "lanplus", "channel", "authcap", "1", "4"]).unwrap();
    assert!(said.contains("Channel supports IPMI v2.0 : yes"), "{said}");
}

#[test]
fn ipmitool_by_ipmi_1_5() {
    let sim = Sim::start(Config { suites: Vec::new(), ..config() }).unwrap();
    for auth in ["MD5", "PASSWORD", "NONE"] {
        for button in ["on", "off"] {
            ipmitool(&sim, &["-I", "lan", "-A", auth, "power", button]).unwrap();
            assert_eq!(is_on(&sim), button == "on", "{auth}");
        }
    }
    ipmitool(&sim, &["-I", "lanplus", "-C", "3", "power", "on"]).unwrap_err();
}

#[test]
fn freeipmi_by_both_suites_and_by_1_5() {
    let sim = Sim::start(config()).unwrap();
    let free = FreeIpmi::new(&sim);
    for how in [&["-D", "LAN_2_0", "-I", "3"][..], &["-D", "LAN_2_0", "-I", "17"], &["-D", "LAN"]] {
        for (button, on) in [("--on", true), ("--off", false)] {
            let said = free.run("ipmipower", how, &[button]);
            assert!(said.trim().ends_with("ok"), "{how:?}: {said}");
            assert_eq!(is_on(&sim), on, "{how:?}");
            let said = free.run("ipmipower", how, &["--stat"]);
            assert!(said.trim().ends_with(if on { "on" } else { "off" }), "{how:?}: {said}");
        }
        let said = free.run("bmc-info", how, &["--get-device-id"]);
        let version = said.lines().find(|line| line.starts_with("IPMI Version"));
        assert!(version.is_some_and(|line| line.ends_with("2.0")), "{how:?}: {said}");
        let said = free.run("ipmi-chassis", how, &["--get-chassis-status"]);
        assert!(said.contains("System Power"), "{how:?}: {said}");
    }
    assert_eq!(sim.with(|bmc| bmc.sessions.open().count()), 0);
}

#[test]
fn the_bmcs_own_key() {
    let kg = Some(Kg::new(b"own-key").unwrap());
    let sim = Sim::start(Config { kg, ..config() }).unwrap();
    ipmitool(&sim, &["-I", "lanplus", "-C", "17", "power", "on"]).unwrap_err();
    let free = FreeIpmi::with(&sim, "k_g own-key");
    let how = ["-D", "LAN_2_0", "-I", "17"];
    let said = free.run("ipmipower", &how, &["--on"]);
    assert!(said.trim().ends_with("ok"), "{said}");
    assert!(is_on(&sim));
    let said = FreeIpmi::new(&sim).run("ipmipower", &how, &["--stat"]);
    assert!(said.contains("k_g invalid"), "{said}");
}

#[test]
fn wrong_passwords_and_strange_names_are_told_apart() {
    let sim = Sim::start(config()).unwrap();
    sim.with(|bmc| {
        bmc.users.by_id_mut(2).unwrap().password = Password::new("another").unwrap();
    });
    ipmitool(&sim, &["-I", "lanplus", "-C", "3", "power", "on"]).unwrap_err();
    ipmitool(&sim, &["-I", "lan", "-A", "MD5", "power", "on"]).unwrap_err();
    let how = ["-D", "LAN_2_0", "-I", "17"];
    let said = FreeIpmi::new(&sim).run("ipmipower", &how, &["--on"]);
    assert!(said.contains("password invalid"), "{said}");
    sim.with(|bmc| bmc.users.by_id_mut(2).unwrap().enabled = false);
    let said = FreeIpmi::new(&sim).run("ipmipower", &how, &["--on"]);
    assert!(said.contains("username invalid"), "{said}");
    assert!(!is_on(&sim));
}

/// Each peer gets through, or says what the fault is there to make it say.
#[test]
fn faults_as_the_peers_see_them() {
    let sim = Sim::start(config()).unwrap();
    let free = FreeIpmi::new(&sim);
    let faults = |text: &str| {
        let mut faults = Faults::default();
        text.split(' ').filter(|one| !one.is_empty()).for_each(|one| faults.set(one).unwrap());
        sim.with(|bmc| bmc.faults = faults);
    };
    let tool = |suite: &str| ipmitool(&sim, &["-I", "lanplus", "-C", suite, "power", "status"]);
    let power = |more: &[&str]| {
        let how = [&["-D", "LAN_2_0", "-I", "3"][..], more].concat();
        free.run("ipmipower", &how, &["--stat"])
    };

    faults("full");
    let said = tool("3").unwrap_err();
    assert!(said.contains("insufficient resources"), "{said}");
    assert!(power(&[]).contains("BMC busy"), "{}", power(&[]));

    faults("opensesspriv");
    assert!(power(&["-W", "opensesspriv"]).trim().ends_with("off"));
    assert!(!power(&[]).trim().ends_with("off"), "without the workaround it is refused");

    faults("checksums");
    assert!(power(&["-W", "nochecksumcheck"]).trim().ends_with("off"));

    faults("downgrade=1");
    tool("17").unwrap_err();

    faults("no-ping ignore-cipher-suites");
    tool("17").unwrap();

    // ipmitool waits ten seconds for the answer to Close Session, which is lost as often as others.
    faults("loss=10 dup=10 reorder=10");
    let answered = (0..8).any(|_| tool("17").is_ok_and(|said| said.contains("Power is off")));
    assert!(answered, "a lossy wire is no dead one");

    faults("dead");
    assert!(power(&["--session-timeout", "1000"]).contains("timeout"));
}
