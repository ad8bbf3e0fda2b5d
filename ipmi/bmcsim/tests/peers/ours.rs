//! Our client against each fault of a session: what it learns, what it needs to be told, and what it says
//! where nothing helps.

use std::time::Duration;

use koboshi_bmcsim::{Config, Faults, Sim};
use koboshi_ipmi::crypto::{SUITE_3, SUITE_17, SUITES};
use koboshi_ipmi::quirks::{Quirk, Quirks};
use koboshi_ipmi::session::{Access, Cipher, Patience, Version};
use koboshi_ipmi::wire::v15::Auth;
use koboshi_ipmi::{Bmc, Controller, Error, NetFn, Password, Request};

const LONG: &str = "a password of 20 by.";

fn config() -> Config {
    let mut config = Config::with_admin("admin", Password::new(LONG).unwrap());
    config.suites = SUITES.to_vec();
    config.auths = vec![Auth::None, Auth::Md5, Auth::Password];
    config
}

/// Somebody who does not wait long.
fn access(sim: &Sim) -> Access {
    let at = sim.addr();
    let mut access = Access::new(at.ip().to_string(), "admin", Password::new(LONG).unwrap());
    access.port = at.port();
    access.patience = Patience {
        total: Duration::from_secs(4),
        first: Duration::from_millis(100),
        ..Patience::default()
    };
    access
}

/// Power on by a new handle, and what it learnt.
async fn power_on(sim: &Sim, access: Access) -> Result<Quirks, Error> {
    sim.with(|bmc| bmc.chassis.on = false);
    let bmc = Bmc::new(access);
    let done = bmc.call(Request::new(NetFn::CHASSIS, 0x02, [1])).await;
    let learned = bmc.learned().quirks;
    bmc.close().await;
    assert_eq!(sim.with(|bmc| bmc.chassis.on), done.is_ok());
    done.map(|_| learned)
}

fn with(fault: &str) -> Sim {
    let mut config = config();
    config.faults.set(fault).unwrap();
    Sim::start(config).unwrap()
}

#[tokio::test]
async fn what_it_learns_by_itself() {
    for (fault, due) in [
        ("no-name-bit", Quirks::of(&[Quirk::OpenPrivilege])),
        ("sixteen", Quirks::of(&[Quirk::Password16])),
        ("no-name-only", Quirks::of(&[Quirk::NoNameOnly])),
        // What needs nothing of anybody.
        ("opensesspriv", Quirks::NONE),
        ("rakp2-length=-1", Quirks::NONE),
        ("rakp2-length=1", Quirks::NONE),
        ("checksums", Quirks::NONE),
        ("no-ping", Quirks::NONE),
        ("ignore-cipher-suites", Quirks::NONE),
        ("ignore=06:38", Quirks::NONE),
        ("mute=06:3c", Quirks::NONE),
        ("no-v2-bit", Quirks::NONE),
        ("once", Quirks::NONE),
        ("busy=2", Quirks::NONE),
        ("slow=150", Quirks::NONE),
    ] {
        let sim = with(fault);
        // The bit refused is what a BMC of 1.5 does: that this one knows 2.0 must be told.
        let version = if fault == "no-v2-bit" { Version::V20 } else { Version::Auto };
        let learned = power_on(&sim, Access { version, ..access(&sim) }).await;
        assert_eq!(learned, Ok(due), "{fault}");
    }
}

#[tokio::test]
async fn what_it_needs_to_be_told() {
    let legacy = |auth| (Version::V15, Cipher::Legacy(auth));
    let v2 = (Version::Auto, Cipher::Auto);
    for (fault, quirk, (version, cipher)) in [
        ("pad-names", Quirk::PadNames, v2),
        ("zero-session", Quirk::ZeroSession, legacy(Auth::Md5)),
        ("unexpected-auth", Quirk::UnexpectedAuth, legacy(Auth::Md5)),
        ("force-per-message", Quirk::ForcePerMessage, legacy(Auth::Md5)),
        ("wrong-capabilities", Quirk::NoCapabilities, legacy(Auth::Md5)),
        ("big-endian", Quirk::BigEndianSequence, legacy(Auth::Md5)),
    ] {
        let sim = with(fault);
        let told = Access { version, cipher, quirks: Quirks::of(&[quirk]), ..access(&sim) };
        let mut untold = Access { quirks: Quirks::NONE, ..told.clone() };
        untold.patience.total = Duration::from_secs(1);
        power_on(&sim, untold).await.expect_err(fault);
        power_on(&sim, told).await.unwrap_or_else(|error| panic!("{fault}: {error}"));
    }
}

#[tokio::test]
async fn what_it_says_where_nothing_helps() {
    let sim = Sim::start(config()).unwrap();
    let faults = |text: &str| {
        let mut faults = Faults::default();
        faults.set(text).unwrap();
        sim.with(|bmc| bmc.faults = faults);
    };
    faults("full");
    assert_eq!(power_on(&sim, access(&sim)).await, Err(Error::NoFreeSession));
    faults("downgrade=1");
    let error = power_on(&sim, access(&sim)).await;
    assert!(matches!(error, Err(Error::Downgrade(_))), "{error:?}");
    faults("rakp2-length=-20");
    let error = power_on(&sim, access(&sim)).await;
    assert!(error.is_err(), "half a proof is none");
    faults("dead");
    let error = power_on(&sim, access(&sim)).await;
    assert!(matches!(error, Err(Error::Unreachable { .. })), "{error:?}");
    faults("ignore=00:02");
    let error = power_on(&sim, access(&sim)).await;
    assert!(matches!(error, Err(Error::Lost { .. } | Error::Silent { .. })), "{error:?}");
}

/// Intel's M50CYP: "insufficient resources" means "only suite 17".
#[tokio::test]
async fn a_suite_refused_by_a_misleading_word() {
    let mut config = config();
    config.suites = vec![SUITE_3];
    config.faults.set("misleading").unwrap();
    let sim = Sim::start(config).unwrap();
    assert_eq!(power_on(&sim, access(&sim)).await, Ok(Quirks::NONE), "3 after 17");
    sim.with(|bmc| bmc.config.suites = vec![SUITE_17]);
    assert_eq!(power_on(&sim, access(&sim)).await, Ok(Quirks::NONE));
}

/// Whatever a wire does, what was asked is done, and nothing else.
#[tokio::test]
async fn through_loss_duplicates_and_detours() {
    for seed in 1..=5 {
        let mut config = Config { seed, ..config() };
        for fault in ["loss=15", "dup=15", "reorder=15"] {
            config.faults.set(fault).unwrap();
        }
        let sim = Sim::start(config).unwrap();
        let mut access = access(&sim);
        access.patience.total = Duration::from_secs(20);
        let bmc = Bmc::new(access);
        for on in [true, false, true, false] {
            let control = Request::new(NetFn::CHASSIS, 0x02, [u8::from(on)]);
            bmc.call(control).await.unwrap();
            let status = bmc.call(Request::new(NetFn::CHASSIS, 0x01, [])).await.unwrap();
            assert_eq!(status[0] & 1 == 1, on, "seed {seed}");
        }
        bmc.close().await;
    }
}

/// The reaper took the session: the next command has another.
#[tokio::test]
async fn a_session_that_the_bmc_forgot() {
    let sim = Sim::start(config()).unwrap();
    let mut access = access(&sim);
    access.patience.suspect = Duration::from_secs(1);
    let bmc = Bmc::new(access);
    let status = || bmc.call(Request::new(NetFn::CHASSIS, 0x01, []));
    status().await.unwrap();
    sim.with(koboshi_bmcsim::session::end_all);
    status().await.unwrap();
    assert_eq!(sim.with(|bmc| bmc.sessions.open().count()), 1);
    bmc.close().await;
    assert_eq!(sim.with(|bmc| bmc.sessions.open().count()), 0);
}
