//! Our session against `bmcsim`: cipher suites with SHA-256, the BMC's own key, a network that loses, and
//! firmware that does otherwise than the specification says.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use koboshi_bmcsim::faults::Mischief;
use koboshi_bmcsim::user::{Privilege as Level, User};
use koboshi_bmcsim::{Config, Faults, Sim};
use koboshi_ipmi::bmc::{Engine, Limits};
use koboshi_ipmi::crypto::{SUITE_3, SUITES};
use koboshi_ipmi::session::{Cipher, Learned, Patience, Version};
use koboshi_ipmi::wire::v15::Auth;
use koboshi_ipmi::{
    Access, Bmc, Controller, Error, Kg, NetFn, Password, Privilege, Quirk, Quirks, Request,
};

const PASSWORD: &str = "a password of 20 by.";

fn config() -> Config {
    let user = |name: &str, level| User::new(name, Password::new(PASSWORD).unwrap(), level);
    let users = vec![user("admin", Level::Admin), user("clerk", Level::Operator)];
    Config {
        listen: SocketAddr::from((Ipv4Addr::new(127, 44, 2, 1), 0)),
        users,
        ..Config::default()
    }
}

fn access_at(address: SocketAddr) -> Access {
    let password = Password::new(PASSWORD).unwrap();
    let access = Access::new(address.ip().to_string(), "admin", password);
    Access { port: address.port(), ..access }
}

fn access(sim: &Sim) -> Access {
    access_at(sim.addr())
}

async fn status(bmc: &Bmc) -> Result<Vec<u8>, Error> {
    bmc.call(Request::new(NetFn::CHASSIS, 0x01, [])).await
}

fn open(sim: &Sim) -> usize {
    sim.with(|bmc| bmc.sessions.open().count())
}

#[tokio::test]
async fn every_suite_and_the_best_of_them_first() {
    let config =
        Config { suites: SUITES.into(), auths: vec![Auth::Md5, Auth::Password], ..config() };
    let sim = Sim::start(config).unwrap();
    for suite in SUITES {
        let bmc = Bmc::new(Access { cipher: Cipher::Suite(suite.id), ..access(&sim) });
        for _ in 0..5 {
            status(&bmc).await.unwrap_or_else(|error| panic!("suite {}: {error}", suite.id));
        }
        assert_eq!(bmc.facts().unwrap().suite, Some(suite.id));
        assert_eq!(bmc.learned(), Learned::default());
        bmc.close().await;
    }
    for auth in [Auth::Md5, Auth::Password] {
        let bmc = Bmc::new(Access { cipher: Cipher::Legacy(auth), ..access(&sim) });
        assert!(status(&bmc).await.is_ok());
        bmc.close().await;
    }
    let bmc = Bmc::new(access(&sim));
    assert!(status(&bmc).await.is_ok());
    assert_eq!(bmc.learned().suite, Some(17));
    bmc.close().await;
    assert_eq!(open(&sim), 0);
}

#[tokio::test]
async fn the_boards_own_key() {
    let kg = Kg::new(b"twenty bytes of key.").unwrap();
    let sim = Sim::start(Config { kg: Some(kg.clone()), ..config() }).unwrap();
    let bmc = Bmc::new(Access { kg: Some(kg), ..access(&sim) });
    assert!(status(&bmc).await.is_ok());
    bmc.close().await;
    assert_eq!(status(&Bmc::new(access(&sim))).await, Err(Error::WrongKey));
}

#[tokio::test]
async fn firmware_that_does_otherwise() {
    async fn learns(faults: Faults, quirks: &[Quirk]) {
        let sim = Sim::start(Config { faults: faults.clone(), ..config() }).unwrap();
        let bmc = Bmc::new(access(&sim));
        let answer = status(&bmc).await;
        assert!(answer.is_ok(), "{faults:?}: {answer:?}");
        assert_eq!(bmc.learned().quirks, Quirks::of(quirks), "{faults:?}");
        bmc.close().await;
        assert_eq!(open(&sim), 0);
    }
    learns(Faults { sixteen: true, ..Faults::default() }, &[Quirk::Password16]).await;
    // The privilege that we open with is the one we ask for.
    learns(Faults { opensesspriv: true, ..Faults::default() }, &[]).await;
    learns(Faults { no_name_bit: true, ..Faults::default() }, &[Quirk::OpenPrivilege]).await;
    for rakp2_length in [-1, 1] {
        learns(Faults { rakp2_length, ..Faults::default() }, &[]).await;
    }
    learns(Faults { checksums: true, ..Faults::default() }, &[]).await;
    learns(Faults { busy: 3, ..Faults::default() }, &[]).await;
    learns(Faults { no_ping: true, no_v2_bit: true, ..Faults::default() }, &[]).await;
    learns(Faults { slow: Duration::from_millis(700), ..Faults::default() }, &[]).await;
    let close = vec![(NetFn::APP, 0x3c)];
    learns(Faults { unanswered: close, ..Faults::default() }, &[]).await;
}

/// Two requests are on the way at once, unless that is too much for it.
#[tokio::test]
async fn firmware_that_does_one_thing_at_a_time() {
    let faults = Faults { single: true, slow: Duration::from_millis(20), ..Faults::default() };
    for quirks in [Quirks::NONE, Quirks::of(&[Quirk::OneAtATime])] {
        let sim = Sim::start(Config { faults: faults.clone(), ..config() }).unwrap();
        let bmc = Bmc::new(Access { quirks, ..access(&sim) });
        assert!(status(&bmc).await.is_ok());
        let opening = sim.with(|bmc| bmc.missed);
        let (one, other, third) = tokio::join!(status(&bmc), status(&bmc), status(&bmc));
        assert!(one.is_ok() && other.is_ok() && third.is_ok());
        let missed = sim.with(|bmc| bmc.missed) > opening;
        assert_eq!(missed, quirks == Quirks::NONE);
        bmc.close().await;
    }
}

/// Where nothing is signed, a wrong checksum may be a torn message, unless the board is known for it.
#[tokio::test]
async fn checksums_that_firmware_gets_wrong() {
    let suites = vec![SUITES[1]];
    let faults = Faults { checksums: true, ..Faults::default() };
    let sim = Sim::start(Config { faults, suites, ..config() }).unwrap();
    for quirks in [Quirks::NONE, Quirks::of(&[Quirk::NoChecksum])] {
        let cipher = Cipher::Suite(1);
        let patience = Patience { total: Duration::from_secs(2), ..Patience::default() };
        let bmc = Bmc::new(Access { quirks, cipher, patience, ..access(&sim) });
        assert_eq!(status(&bmc).await.is_ok(), quirks != Quirks::NONE);
        bmc.close().await;
    }
}

#[tokio::test]
async fn refusals_say_which() {
    let refusal = async |config: Config| {
        let sim = Sim::start(config).unwrap();
        status(&Bmc::new(access(&sim))).await.unwrap_err()
    };
    let faults = |faults: Faults| Config { faults, ..config() };
    let full = faults(Faults { full: true, ..Faults::default() });
    assert_eq!(refusal(full).await, Error::NoFreeSession);
    let downgrade = faults(Faults { downgrade: Some(2), ..Faults::default() });
    assert!(matches!(refusal(downgrade).await, Error::Downgrade(_)));
    let none = Config { suites: vec![SUITES[0]], ..config() };
    assert_eq!(refusal(none).await, Error::SuiteRefused { tried: vec![17, 3] });
    // The slots are taken, and it says so; and the same words where the suite is meant.
    let misleading = Faults { misleading: true, ..Faults::default() };
    let sim = Sim::start(Config { suites: vec![SUITE_3], ..faults(misleading) }).unwrap();
    let bmc = Bmc::new(access(&sim));
    assert!(status(&bmc).await.is_ok());
    assert_eq!(bmc.facts().unwrap().suite, Some(3));
    // Less privilege than asked for.
    let sim = Sim::start(config()).unwrap();
    let bmc = Bmc::new(Access { user: "clerk".to_string(), ..access(&sim) });
    assert!(status(&bmc).await.is_ok());
    assert_eq!(bmc.facts().unwrap().privilege, Privilege::Operator);
}

#[tokio::test]
async fn a_bmc_of_1_5_alone_is_found_out() {
    let sim = Sim::start(Config { suites: vec![], ..config() }).unwrap();
    let bmc = Bmc::new(access(&sim));
    assert!(status(&bmc).await.is_ok());
    assert_eq!((bmc.facts().unwrap().suite, bmc.learned().version), (None, Version::V15));
    bmc.close().await;
}

#[tokio::test]
async fn a_network_that_loses_repeats_and_turns_around() {
    let bad = Mischief { loss: 10.0, duplicates: 10.0, reordering: 10.0 };
    let faults = Faults { inbound: bad, outbound: bad, ..Faults::default() };
    let sim = Sim::start(Config { faults, ..config() }).unwrap();
    let patience = Patience { first: Duration::from_millis(50), ..Patience::default() };
    let bmc = Bmc::new(Access { patience, ..access(&sim) });
    for round in 0..300u16 {
        // Whose answer this is shows in it.
        let level = Request::new(NetFn::APP, 0x38, [0x0e, (round % 3) as u8 + 2]);
        assert!(bmc.ask(level).await.is_ok(), "{round}");
        assert!(status(&bmc).await.is_ok(), "{round}");
    }
    bmc.close().await;
}

#[tokio::test]
async fn one_slot_is_enough_for_one_after_the_other() {
    let sim = Sim::start(Config { slots: 1, ..config() }).unwrap();
    for _ in 0..20 {
        let bmc = Bmc::new(access(&sim));
        let (one, other) = tokio::join!(status(&bmc), status(&bmc));
        assert!(one.is_ok() && other.is_ok());
        assert_eq!(open(&sim), 1);
        bmc.close().await;
    }
    // Dropped, it is closed all the same; idle too.
    drop({
        let bmc = Bmc::new(access(&sim));
        assert!(status(&bmc).await.is_ok());
        bmc
    });
    until(|| open(&sim) == 0).await;
    let patience = Patience { linger: Duration::from_millis(100), ..Patience::default() };
    let bmc = Bmc::new(Access { patience, ..access(&sim) });
    assert!(status(&bmc).await.is_ok());
    until(|| open(&sim) == 0 && bmc.facts().is_none()).await;
    assert!(status(&bmc).await.is_ok());
}

async fn until(come: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !come() {
        assert!(Instant::now() < end, "it never comes");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_session_that_the_bmc_ended_is_opened_again() {
    let sim = Sim::start(config()).unwrap();
    let patience = Patience {
        first: Duration::from_millis(50),
        suspect: Duration::from_millis(300),
        ..Patience::default()
    };
    let bmc = Bmc::new(Access { patience, ..access(&sim) });
    assert!(status(&bmc).await.is_ok());
    let first = bmc.facts().unwrap().managed;
    sim.with(|bmc| koboshi_bmcsim::session::end(bmc, first));
    assert!(status(&bmc).await.is_ok());
    assert_ne!(bmc.facts().unwrap().managed, first);
    assert_eq!(open(&sim), 1);
}

#[tokio::test]
async fn who_does_not_wait_any_more_switches_nothing() {
    let sim = Sim::start(Config { on: true, ..config() }).unwrap();
    sim.with(|bmc| bmc.faults.dead = true);
    let bmc = Bmc::new(access(&sim));
    let off = || bmc.call(Request::new(NetFn::CHASSIS, 0x02, [0]));
    for _ in 0..200 {
        assert!(tokio::time::timeout(Duration::from_millis(1), off()).await.is_err());
    }
    sim.with(|bmc| bmc.faults.dead = false);
    // Bit 0: power is on.
    assert_eq!(status(&bmc).await.unwrap()[0] & 1, 1);
    assert!(off().await.is_ok());
    assert_eq!(status(&bmc).await.unwrap()[0] & 1, 0);
    bmc.close().await;
}

/// Killed, a run leaves its session behind; the next one ends it first, and knows the BMC.
#[test]
fn the_next_run_closes_the_session_of_the_one_before() {
    let sim = Sim::start(Config { idle: Duration::from_secs(3600), ..config() }).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let run = || tokio::runtime::Runtime::new().unwrap();
    let first = run();
    let engine = Engine::remembering(Limits::default(), folder.path()).unwrap();
    let bmc = engine.bmc(access(&sim));
    first.block_on(async {
        assert!(status(&bmc).await.is_ok());
        let journal = folder.path().join("bmc-sessions.json");
        until(|| std::fs::read_to_string(&journal).is_ok_and(|text| text.contains("managed")))
            .await;
    });
    // As SIGKILL does: nothing of it runs any more, and nothing is written.
    let killed = bmc.facts().unwrap().managed;
    first.shutdown_background();
    std::mem::forget((bmc, engine));
    assert_eq!(open(&sim), 1);
    run().block_on(async {
        let engine = Engine::remembering(Limits::default(), folder.path()).unwrap();
        let bmc = engine.bmc(access(&sim));
        assert_eq!(bmc.learned().suite, Some(17));
        assert!(status(&bmc).await.is_ok());
        assert_eq!(open(&sim), 1);
        assert!(sim.with(|bmc| bmc.sessions.get(killed).is_none()));
        // What is pinned holds in this run, until it is forgotten.
        bmc.close().await;
        sim.with(|bmc| bmc.config.suites = vec![SUITE_3]);
        let bmc = engine.bmc(access(&sim));
        assert!(matches!(status(&bmc).await, Err(Error::Downgrade(_))));
        bmc.forget().await;
        assert!(status(&bmc).await.is_ok());
        assert_eq!(bmc.learned().suite, Some(3));
        bmc.close().await;
        assert_eq!(open(&sim), 0);
    });
}

/// Hundreds on a few sockets, half of them dead, cost no more than the patience with one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hundreds_of_which_half_are_dead() {
    let configs = (0..300u32).map(|number| {
        let [_, _, third, fourth] = number.to_be_bytes();
        let faults = Faults { dead: number % 2 == 1, ..Faults::default() };
        Config {
            listen: SocketAddr::from((Ipv4Addr::new(127, 45, third, fourth), 0)),
            faults,
            ..config()
        }
    });
    let sim = Sim::fleet(configs.collect(), 1).unwrap();
    let engine = Engine::new(Limits { per_socket: 64, opening: 16 });
    let patience = Patience { total: Duration::from_secs(4), ..Patience::default() };
    let begun = Instant::now();
    let asked = sim.addresses().map(|address| {
        let bmc = engine.bmc(Access { patience, ..access_at(address) });
        tokio::spawn(async move {
            let answer = status(&bmc).await;
            bmc.close().await;
            answer
        })
    });
    for (number, asked) in asked.collect::<Vec<_>>().into_iter().enumerate() {
        let answer = asked.await.unwrap();
        match number % 2 {
            0 => assert!(answer.is_ok(), "{number}: {answer:?}"),
            _ => assert!(matches!(answer, Err(Error::Unreachable { .. })), "{number}: {answer:?}"),
        }
    }
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
}
