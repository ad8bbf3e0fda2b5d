//! Our console against the simulated BMC, over real sockets: faults of firmware, thieves, outages.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use koboshi_bmcsim::faults::Mischief;
use koboshi_bmcsim::sol::{self, ToHost};
use koboshi_bmcsim::{Config, Faults, Sim, session};
use koboshi_ipmi::bmc::{Bmc, Engine, Limits};
use koboshi_ipmi::crypto::SUITE_17;
use koboshi_ipmi::session::{Access, Cipher, Patience};
use koboshi_ipmi::sol::{Console, Event, Operation, Options, Takeover};
use koboshi_ipmi::{Completion, Error, NetFn, Password, Quirk, Quirks, Request, Suite};

/// Far beyond what anything here takes.
const CEILING: Duration = Duration::from_secs(60);

fn password() -> Password {
    Password::new("a secret").unwrap()
}

fn start(faults: Faults) -> Sim {
    Sim::start(Config { faults, ..Config::with_admin("admin", password()) }).unwrap()
}

fn bmc(address: SocketAddr) -> Bmc {
    let mut access = Access::new(address.ip().to_string(), "admin", password());
    access.port = address.port();
    access.patience = Patience {
        total: Duration::from_secs(5),
        first: Duration::from_millis(100),
        suspect: Duration::from_secs(2),
        ..Patience::default()
    };
    Bmc::new(access)
}

/// As impatient as tests are.
fn options() -> Options {
    Options {
        keep_alive: Duration::from_millis(500),
        retry: Duration::from_millis(100),
        patience: Duration::from_secs(2),
        back_off: Duration::from_millis(100),
        back_off_most: Duration::from_millis(500),
        ..Options::default()
    }
}

/// The next event that is not characters, and the characters before it.
async fn mark(console: &mut Console) -> (Vec<u8>, Event) {
    let mut text = Vec::new();
    loop {
        match tokio::time::timeout(CEILING, console.recv()).await.unwrap().unwrap() {
            Event::Data { bytes, .. } => text.extend_from_slice(&bytes),
            mark => return (text, mark),
        }
    }
}

/// Reads so many characters; any mark between fails the test.
async fn read(console: &mut Console, length: usize) -> Vec<u8> {
    let mut text = Vec::new();
    while text.len() < length {
        match tokio::time::timeout(CEILING, console.recv()).await.unwrap().unwrap() {
            Event::Data { bytes, .. } => text.extend_from_slice(&bytes),
            mark => panic!("{mark:?} after {} characters", text.len()),
        }
    }
    text
}

/// Waits for what the host is told.
async fn told(sim: &Sim, length: usize) -> Vec<ToHost> {
    let began = Instant::now();
    let mut heard: Vec<ToHost> = Vec::new();
    loop {
        heard.extend(sim.with(|bmc| bmc.sol.to_host.drain(..).collect::<Vec<_>>()));
        let count: usize = heard
            .iter()
            .map(|one| match one {
                ToHost::Data(bytes) => bytes.len(),
                ToHost::Break => 1,
            })
            .sum();
        if count >= length {
            return heard;
        }
        assert!(began.elapsed() < CEILING, "{count} of {length}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn text(heard: &[ToHost]) -> Vec<u8> {
    let mut text = Vec::new();
    for one in heard {
        if let ToHost::Data(bytes) = one {
            text.extend_from_slice(bytes);
        }
    }
    text
}

/// The host says something, as fast as its port takes it.
async fn say(sim: &Sim, said: &[u8]) {
    let mut at = 0;
    while at < said.len() {
        at += sim.with(|bmc| {
            let room = sol::room(bmc).min(said.len() - at);
            sol::heard(bmc, &said[at..at + room], Instant::now());
            room
        });
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

fn lines(length: usize) -> Vec<u8> {
    (0..)
        .flat_map(|n| format!("line {n} of the machine's own words\r\n").into_bytes())
        .take(length)
        .collect()
}

async fn converse(sim: &Sim, console: &mut Console) {
    say(sim, b"login: ").await;
    assert_eq!(read(console, 7).await, b"login: ");
    console.send(b"root\r").await.unwrap();
    assert_eq!(text(&told(sim, 5).await), b"root\r");
}

#[tokio::test(flavor = "multi_thread")]
async fn open_type_break_close() {
    let sim = start(Faults::default());
    let bmc = bmc(sim.addr());
    let mut console = bmc.sol(options()).await.unwrap();
    converse(&sim, &mut console).await;
    console.send(b"a").await.unwrap();
    console.send_break().await.unwrap();
    console.send(b"b").await.unwrap();
    let said = [ToHost::Data(b"a".to_vec()), ToHost::Break, ToHost::Data(b"b".to_vec())];
    assert_eq!(told(&sim, 3).await, said);
    sim.with(|bmc| sol::heard_break(bmc, Instant::now()));
    assert_eq!(mark(&mut console).await.1, Event::Break);
    assert!(matches!(bmc.sol(options()).await, Err(Error::Invalid(_))), "one at a time");
    console.send(b"bye").await.unwrap();
    console.close().await;
    assert_eq!(text(&told(&sim, 3).await), b"bye");
    assert_eq!(sim.with(|bmc| bmc.sol.owner()), None, "it was deactivated");
    // The session is the commands' too, and the next console's.
    assert!(bmc.sol(options()).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_firmware_says_of_it() {
    let port = |port| Faults { sol_port: Some(port), ..Faults::default() };
    let size = |size| Faults { sol_size: Some(size), ..Faults::default() };
    let mut all = vec![port(5123), port(0), size(0), size(0xffff), size(3), size(0xcc00)];
    all.push(Faults { sol_port_swapped: true, ..Faults::default() });
    all.push(Faults { sol_no_status: true, ..Faults::default() });
    all.push(Faults { sol_no_instances: true, ..Faults::default() });
    all.push(Faults { sol_repeats: true, ..Faults::default() });
    all.push(Faults { sol_acks_once: true, ..Faults::default() });
    all.push(Faults { sol_part: Some(2), ..Faults::default() });
    for faults in all {
        let sim = start(faults.clone());
        let opened = bmc(sim.addr()).sol(options()).await;
        let mut console = opened.unwrap_or_else(|error| panic!("{faults:?}: {error}"));
        converse(&sim, &mut console).await;
        console.close().await;
    }
}

/// Boards of the Windmill kind: what is not tried unasked, as alerts would wait for nothing elsewhere.
#[tokio::test(flavor = "multi_thread")]
async fn alerts_wait_where_the_site_says_so() {
    let sim = start(Faults { sol_alerts: true, ..Faults::default() });
    let refused = bmc(sim.addr()).sol(options()).await.unwrap_err();
    assert_eq!(refused.completion(), Some(Completion::INVALID_FIELD), "{refused}");
    let access = bmc(sim.addr()).access().clone();
    let quirks = Quirks::of(&[Quirk::SolDeferAlerts]);
    let mut console = Bmc::new(Access { quirks, ..access }).sol(options()).await.unwrap();
    converse(&sim, &mut console).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn both_ways_through_a_bad_network() {
    let mischief = Mischief { loss: 10.0, duplicates: 10.0, reordering: 10.0 };
    let sim = start(Faults { inbound: mischief, outbound: mischief, ..Faults::default() });
    let bmc = bmc(sim.addr());
    let mut console = loop {
        // One command in a thousand finds its BMC silent for seconds, in this weather.
        match bmc.sol(Options { patience: Duration::from_secs(20), ..options() }).await {
            Ok(console) => break console,
            Err(error) => assert!(error.is_passing(), "{error}"),
        }
    };
    let said = lines(60_000);
    let typed = lines(30_000);
    let typist = console.typist();
    let (heard, host, ()) = tokio::join!(
        read(&mut console, said.len()),
        async {
            let (host, sent) = tokio::join!(told(&sim, typed.len()), typist.send(&typed));
            sent.unwrap();
            host
        },
        say(&sim, &said),
    );
    assert!(heard == said, "not what the machine said");
    assert!(text(&host) == typed, "not what was typed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_who_is_slow_loses_nothing() {
    let sim = start(Faults::default());
    let mut console = bmc(sim.addr()).sol(options()).await.unwrap();
    let said = lines(100_000);
    let (heard, ()) = tokio::join!(
        async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            read(&mut console, said.len()).await
        },
        say(&sim, &said),
    );
    assert!(heard == said);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_it_is_named_and_left_in_peace_or_not() {
    let sim = start(Faults::default());
    let (one, other) = (bmc(sim.addr()), bmc(sim.addr()));
    let mut first = one.sol(options()).await.unwrap();
    let by = Some("admin from 127.0.0.1".to_string());
    let refused = other.sol(options()).await.unwrap_err();
    assert_eq!(refused, Error::SolTaken { by: by.clone() });
    let always = Options { takeover: Takeover::Always, ..options() };
    let mut second = other.sol(always).await.unwrap();
    assert_eq!(mark(&mut first).await.1, Event::Stolen { by });
    // It is not stolen back, and used again when it is free.
    converse(&sim, &mut second).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    converse(&sim, &mut second).await;
    second.close().await;
    assert!(matches!(mark(&mut first).await.1, Event::Reconnected { .. }));
    converse(&sim, &mut first).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_came_while_it_was_down_is_named() {
    let sim = start(Faults::default());
    let (one, other) = (bmc(sim.addr()), bmc(sim.addr()));
    let mut first = one.sol(options()).await.unwrap();
    sim.with(session::end_all);
    let second = other.sol(options()).await.unwrap();
    assert!(matches!(mark(&mut first).await.1, Event::Down { why: Error::Lost { .. } }));
    let by = Some("admin from 127.0.0.1".to_string());
    assert_eq!(mark(&mut first).await.1, Event::Stolen { by });
    second.close().await;
    assert!(matches!(mark(&mut first).await.1, Event::Reconnected { .. }));
    converse(&sim, &mut first).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_theft_that_nobody_tells_of_is_noticed() {
    let sim = start(Faults { sol_silent_theft: true, ..Faults::default() });
    let (one, other) = (bmc(sim.addr()), bmc(sim.addr()));
    let mut first = one.sol(options()).await.unwrap();
    let always = Options { takeover: Takeover::Always, ..options() };
    let _second = other.sol(always).await.unwrap();
    let by = Some("admin from 127.0.0.1".to_string());
    assert_eq!(mark(&mut first).await.1, Event::Stolen { by });
}

#[tokio::test(flavor = "multi_thread")]
async fn deaf_is_noticed_told_and_activated_anew() {
    let sim = start(Faults::default());
    let mut console = bmc(sim.addr()).sol(options()).await.unwrap();
    converse(&sim, &mut console).await;
    sim.with(|bmc| bmc.faults.sol_deaf = true);
    console.send(b"anybody?").await.unwrap();
    assert_eq!(mark(&mut console).await.1, Event::Down { why: Error::SolDeaf });
    sim.with(|bmc| bmc.faults.sol_deaf = false);
    loop {
        match mark(&mut console).await.1 {
            Event::Discarded { bytes } => assert_eq!(bytes, 8),
            // It was deaf still when it was activated.
            Event::Down { why: Error::SolDeaf } => {}
            other => break assert!(matches!(other, Event::Reconnected { .. }), "{other:?}"),
        }
    }
    sim.with(|bmc| bmc.sol.to_host.clear());
    converse(&sim, &mut console).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bmc_that_was_reset_and_one_that_was_away() {
    let sim = start(Faults::default());
    let mut console = bmc(sim.addr()).sol(options()).await.unwrap();
    converse(&sim, &mut console).await;
    sim.with(session::end_all);
    let (_, down) = mark(&mut console).await;
    assert!(matches!(down, Event::Down { why: Error::Lost { .. } }), "{down:?}");
    assert!(matches!(mark(&mut console).await.1, Event::Reconnected { .. }));
    converse(&sim, &mut console).await;

    // The BMC still has the session of before, and the console by it, when it is asked for a new one.
    let began = Instant::now();
    sim.with(|bmc| bmc.faults.dead = true);
    let (_, down) = mark(&mut console).await;
    assert!(matches!(down, Event::Down { .. }), "{down:?}");
    console.send(b"into the void").await.unwrap();
    sim.with(|bmc| bmc.faults.dead = false);
    let mut discarded = 0;
    loop {
        match mark(&mut console).await.1 {
            Event::Discarded { bytes } => discarded += bytes,
            Event::Down { .. } => {}
            other => break assert!(matches!(other, Event::Reconnected { .. }), "{other:?}"),
        }
    }
    assert_eq!(discarded, 13);
    assert!(began.elapsed() < CEILING / 2, "the BMC had to reap it");
    converse(&sim, &mut console).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn switched_off_is_said_and_the_wrong_suite_too() {
    let open = Suite::by_id(2).unwrap();
    let config = Config::with_admin("admin", password());
    let sim = Sim::start(Config { suites: vec![open, SUITE_17], ..config }).unwrap();
    let without = Access { cipher: Cipher::Suite(2), ..bmc(sim.addr()).access().clone() };
    let error = Bmc::new(without).sol(options()).await.unwrap_err();
    assert_eq!(error.completion(), Some(Completion(0x84)), "{error}");
    let enable = |on| Request::new(NetFn::TRANSPORT, 0x21, [1, 1, on]);
    sim.with(|bmc| bmc.ask(&enable(0), Instant::now()));
    assert_eq!(bmc(sim.addr()).sol(options()).await.unwrap_err(), Error::SolDisabled);
    sim.with(|bmc| bmc.ask(&enable(1), Instant::now()));
    sim.with(|bmc| bmc.users.by_id_mut(2).unwrap().sol = false);
    assert_eq!(bmc(sim.addr()).sol(options()).await.unwrap_err(), Error::SolDisabled);
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_and_flushes() {
    let sim = start(Faults::default());
    let mut console = bmc(sim.addr()).sol(options()).await.unwrap();
    console.operate(Operation::Cts(false)).await.unwrap();
    let began = Instant::now();
    while sim.with(|bmc| sol::room(bmc)) > 0 {
        assert!(began.elapsed() < CEILING, "the host is not paused");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    console.operate(Operation::Cts(true)).await.unwrap();
    converse(&sim, &mut console).await;
}

/// Of the run that is killed: where its BMC is, and its folder.
const KILLED_BMC: &str = "KOBOSHI_TEST_BMC";
const KILLED_FOLDER: &str = "KOBOSHI_TEST_FOLDER";

fn remembering(address: SocketAddr, folder: &Path) -> Bmc {
    let engine = Engine::remembering(Limits::default(), folder).unwrap();
    engine.bmc(bmc(address).access().clone())
}

/// Not a test of its own: the process that [`killed_in_mid_console_it_is_back_within_seconds`] kills.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "is killed by another"]
async fn the_run_that_is_killed() {
    let (Ok(address), Ok(folder)) = (std::env::var(KILLED_BMC), std::env::var(KILLED_FOLDER))
    else {
        return;
    };
    let bmc = remembering(address.parse().unwrap(), Path::new(&folder));
    let _console = bmc.sol(options()).await.unwrap();
    tokio::time::sleep(CEILING).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_in_mid_console_it_is_back_within_seconds() {
    let sim = start(Faults::default());
    let folder = tempfile::tempdir().unwrap();
    let mut child = tokio::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "the_run_that_is_killed", "--ignored"])
        .env(KILLED_BMC, sim.addr().to_string())
        .env(KILLED_FOLDER, folder.path())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let began = Instant::now();
    let journal = folder.path().join("bmc-sessions.json");
    let is_up = || {
        sim.with(|bmc| bmc.sol.owner()).is_some_and(|owner| {
            std::fs::read_to_string(&journal).is_ok_and(|text| text.contains(&owner.to_string()))
        })
    };
    while !is_up() {
        assert!(began.elapsed() < CEILING, "it is not up, or not written down");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let orphan = sim.with(|bmc| bmc.sol.owner());
    child.kill().await.unwrap();
    // Another process, with nothing written down, finds it taken and leaves it so.
    let stranger = bmc(sim.addr()).sol(options()).await;
    assert!(matches!(stranger, Err(Error::SolTaken { .. })), "{:?}", stranger.err());

    let began = Instant::now();
    let next = remembering(sim.addr(), folder.path());
    let mut console = next.sol(options()).await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    assert_ne!(sim.with(|bmc| bmc.sol.owner()), orphan);
    converse(&sim, &mut console).await;
    assert!(sim.with(|bmc| bmc.sessions.get(orphan.unwrap()).is_none()), "it is closed");
}
