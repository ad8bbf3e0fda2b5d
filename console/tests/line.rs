//! A line against a simulated BMC: what keeps it from being up, is mended; and its end, whatever it is doing.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use koboshi_bmcsim::{Config, Faults, Sim, sol};
use koboshi_console::{Beside, Line, Mark, NotOpen, Pace, State, What, Wire};
use koboshi_ipmi::bmc::Bmc;
use koboshi_ipmi::session::Access;
use koboshi_ipmi::sol::Options;
use koboshi_ipmi::{Error, Password};

/// Far beyond what anything here takes.
const CEILING: Duration = Duration::from_secs(60);

fn start(faults: Faults) -> Sim {
    let password = Password::new("a secret").unwrap();
    Sim::start(Config { faults, ..Config::with_admin("admin", password) }).unwrap()
}

/// Opened with the password that is known at the time. None: it cannot be read.
fn line(sim: &Sim, password: &Arc<Mutex<Option<&'static str>>>) -> Line {
    let (address, password) = (sim.addr(), password.clone());
    Line::start(move || {
        let known = *password.lock().unwrap();
        async move {
            let known = known.ok_or_else(|| NotOpen::Here("no password file".to_string()))?;
            let known = Password::new(known).unwrap();
            let mut access = Access::new(address.ip().to_string(), "admin", known);
            access.port = address.port();
            Bmc::new(access).sol(Options::default()).await.map(Wire::from).map_err(NotOpen::Bmc)
        }
    })
}

async fn until(line: &Line, is: impl Fn(&State) -> bool) {
    let mut status = line.follow_status();
    let waited = tokio::time::timeout(CEILING, status.wait_for(|status| is(&status.state))).await;
    waited.unwrap_or_else(|_| panic!("{:?}", line.status())).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn causes_are_told_once_and_what_was_mended_is_taken_up() {
    let sim = start(Faults::default());
    let password = Arc::new(Mutex::new(None));
    let line = line(&sim, &password);
    let mut viewer = line.view(20);
    let down = |says: &'static str| move |state: &State| matches!(state, State::Down { why, .. } if why == says);
    until(&line, down("no password file")).await;
    // Long enough for another attempt or two.
    tokio::time::sleep(Duration::from_secs(5)).await;
    *password.lock().unwrap() = Some("another");
    let wrong = Error::WrongPassword { user: "admin".to_string() }.to_string();
    until(&line, |state| matches!(state, State::Down { why, .. } if *why == wrong)).await;
    *password.lock().unwrap() = Some("a secret");
    until(&line, |state| matches!(state, State::Up { .. })).await;
    sim.with(|bmc| sol::heard(bmc, b"login: ", Instant::now()));

    let mut marks = Vec::new();
    let text = loop {
        match tokio::time::timeout(CEILING, viewer.next()).await.unwrap().unwrap().what {
            What::Mark(mark) => marks.push(mark),
            What::Text(text) => break text,
        }
    };
    assert_eq!(&text[..], b"login: ");
    let down = |why: String| Mark::Down { why };
    assert_eq!(&marks[..2], [down("no password file".to_string()), down(wrong)]);
    assert!(marks.len() == 3 && matches!(marks[2], Mark::Reconnected { .. }), "{marks:?}");

    line.close().await;
    assert_eq!(sim.with(|bmc| bmc.sol.owner()), None, "it was deactivated");
    assert_eq!(viewer.next().await.map(|piece| piece.what), Some(What::Mark(Mark::Closed)));
    assert_eq!(viewer.next().await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_ends_while_its_bmc_is_silent() {
    let sim = start(Faults { dead: true, ..Faults::default() });
    let line = line(&sim, &Arc::new(Mutex::new(Some("a secret"))));
    tokio::time::sleep(Duration::from_millis(300)).await;
    let begun = Instant::now();
    line.close().await;
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_that_opens_and_closes_at_once_is_opened_less_and_less_often() {
    let begun = Instant::now();
    let opened: Arc<Mutex<Vec<Duration>>> = Arc::default();
    let times = opened.clone();
    let line = Line::start(move || {
        times.lock().unwrap().push(begun.elapsed());
        // Its driver ends at once.
        let (wire, _ends) = Wire::new();
        std::future::ready(Ok(wire))
    });
    while opened.lock().unwrap().len() < 3 {
        assert!(begun.elapsed() < CEILING);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    line.close().await;
    let waits: Vec<_> = opened.lock().unwrap().windows(2).map(|two| two[1] - two[0]).collect();
    // A quarter is left to chance.
    assert!(waits[0] >= Duration::from_millis(740), "{waits:?}");
    assert!(waits[1] >= Duration::from_millis(1480), "{waits:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_of_one_pace_are_opened_in_turn() {
    let pace = Arc::new(Pace::new(20, 5));
    let opened: Arc<Mutex<Vec<Instant>>> = Arc::default();
    let begun = Instant::now();
    let lines: Vec<_> = (0..30)
        .map(|_| {
            let times = opened.clone();
            let open = move || {
                times.lock().unwrap().push(Instant::now());
                std::future::ready(Err(NotOpen::Here("not today".to_string())))
            };
            let pace = Some(pace.clone());
            Line::start_beside(open, Beside { pace, ..Beside::default() })
        })
        .collect();
    while opened.lock().unwrap().len() < 30 {
        assert!(begun.elapsed() < CEILING);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let took = opened.lock().unwrap()[29] - begun;
    assert!(took >= Duration::from_millis(1240), "25 turns at 20 a second: {took:?}");
    let closing = Instant::now();
    futures::future::join_all(lines.into_iter().map(Line::close)).await;
    assert!(closing.elapsed() < Duration::from_secs(3), "who waits for his turn does not keep us");
}
