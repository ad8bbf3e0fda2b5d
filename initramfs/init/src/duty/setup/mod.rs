//! First set-up: what the board tells of its slots and sockets, what the BMC tells of itself, and the BMC's place in
//! the network, where one was ordered. Disks and cards were told before the root was fetched.
//!
//! The BMC's accounts are none of this: their passwords do not cross this network. The appliance makes them,
//! once the BMC is where it can reach it.

mod controller;
mod place;
mod smbios;

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use controller::Wire;
use place::Outcome;

use crate::bmc;
use crate::console::say;
use crate::contract::duty::{BmcPlace, Setup};
use crate::contract::survey::{Controller, Survey};
use crate::contract::{Phase, REPORT_MAX};
use crate::hardware::plain;
use crate::report::Reporter;

const TABLE: &str = "/sys/firmware/dmi/tables/DMI";
/// The largest boards have 60 KiB.
const TABLE_MAX: u64 = 1 << 20;
/// Room in a report for what stands around the survey.
const AROUND: usize = 512;
/// A driver may be loading yet.
const DEVICE: Duration = Duration::from_secs(10);
/// The slowest firmware takes seconds for a change of its address.
const ONE_ANSWER: Duration = Duration::from_secs(10);
/// Then it is not going to end.
const IN_ALL: Duration = Duration::from_secs(300);

/// What the thread that talks to the BMC has to say.
enum Told {
    /// So it is.
    Found(Controller),
    /// It was to be moved.
    Placed(Result<Outcome, String>),
    /// It could not be asked.
    Silent(String),
}

/// Carries the order out, as far as it can be. True if the machine was told to stop meanwhile.
pub fn run(order: &Setup, reporter: &mut Reporter, rings: &dyn Fn(Duration) -> bool) -> bool {
    let mut table = Vec::new();
    // Not there: then the board tells nothing.
    let read = File::open(TABLE).and_then(|file| file.take(TABLE_MAX).read_to_end(&mut table));
    if let Err(error) = read {
        say(format!("{TABLE}: {error}"));
    }
    let mut survey = smbios::parse(&table, plain);
    say(words(&survey));
    let told = talk(order.bmc);
    let begun = Instant::now();
    let mut placed = order.bmc.map(|_| Err("the BMC was never asked".to_owned()));
    loop {
        match told.try_recv() {
            Ok(Told::Found(bmc)) => {
                say(shown(&bmc));
                survey.bmc = Some(bmc);
                let phase = Phase::Surveyed(Box::new(fitting(survey.clone())));
                if super::surely(reporter, rings, &phase) {
                    return true;
                }
            }
            Ok(Told::Placed(outcome)) => placed = Some(outcome),
            Ok(Told::Silent(why)) => {
                say(&why);
                placed = placed.map(|_| Err(why));
            }
            Err(mpsc::TryRecvError::Disconnected) => break,
            Err(mpsc::TryRecvError::Empty) if begun.elapsed() > IN_ALL => {
                // Whoever hangs in the driver hangs alone.
                placed = placed.map(|_| Err("the BMC has not answered for minutes".to_owned()));
                break;
            }
            Err(mpsc::TryRecvError::Empty) => {
                if rings(Duration::from_millis(100)) {
                    say("told to stop: what the BMC was told holds");
                    return true;
                }
            }
        }
    }
    if survey.bmc.is_none() {
        let phase = Phase::Surveyed(Box::new(fitting(survey)));
        if super::surely(reporter, rings, &phase) {
            return true;
        }
    }
    let (well, message) = match placed {
        None => (true, "surveyed".to_owned()),
        Some(Ok(Outcome::Same(lan))) => {
            (true, format!("surveyed; its BMC was at {} already", place::shown(&lan)))
        }
        Some(Ok(Outcome::Moved(lan))) => {
            (true, format!("surveyed; its BMC is at {} now", place::shown(&lan)))
        }
        Some(Err(why)) => {
            (false, format!("surveyed; its BMC was NOT put where it shall be: {why}"))
        }
    };
    say(&message);
    super::surely(reporter, rings, &Phase::Finished { well, message })
}

/// Asks the BMC, and moves it where that is wanted, in a thread of its own: the driver's calls cannot be hurried.
fn talk(wanted: Option<BmcPlace>) -> mpsc::Receiver<Told> {
    let (tell, told) = mpsc::channel();
    thread::spawn(move || {
        // Nobody waits any more: then it is for nobody.
        let tell = |what| drop(tell.send(what));
        let device = bmc::expected(Path::new("/sys")).then(|| bmc::device(DEVICE)).flatten();
        let Some(device) = device else {
            return tell(Told::Silent("there is no BMC that the kernel can talk to".to_owned()));
        };
        let mut door = bmc::Door::new(device, ONE_ANSWER);
        let mut ask = |netfn, command, data: &[u8]| door.ask(netfn, command, data);
        let mut pause = thread::sleep;
        let mut wire = Wire::new(&mut ask, &mut pause);
        let found = match controller::read(&mut wire, plain) {
            Ok(found) => found,
            Err(failure) => return tell(Told::Silent(failure.to_string())),
        };
        let channel = found.lan.as_ref().map(|lan| lan.channel);
        tell(Told::Found(found));
        let Some(wanted) = wanted else { return };
        let Some(channel) = channel else {
            return tell(Told::Placed(Err("it tells of no LAN port".to_owned())));
        };
        let outcome = place::set(&mut wire, channel, &wanted);
        if !matches!(outcome, Ok(Outcome::Same(_)))
            && let Ok(found) = controller::read(&mut wire, plain)
        {
            tell(Told::Found(found));
        }
        tell(Told::Placed(outcome));
    });
    told
}

/// As much of it as a report holds: slots and accounts are left out where they are most.
fn fitting(mut survey: Survey) -> Survey {
    let size = |survey: &Survey| serde_json::to_vec(survey).map_or(0, |json| json.len());
    while size(&survey) > REPORT_MAX - AROUND {
        let users = survey.bmc.as_ref().map_or(0, |bmc| bmc.users.len());
        let most = survey.memory.len().max(survey.processors.len()).max(users);
        let left = if most == 0 {
            break;
        } else if survey.memory.len() == most {
            survey.memory.pop().is_some()
        } else if survey.processors.len() == most {
            survey.processors.pop().is_some()
        } else {
            survey.bmc.as_mut().is_some_and(|bmc| bmc.users.pop().is_some())
        };
        survey.left_out += u32::from(left);
    }
    survey
}

/// `2 of 2 sockets, 16 of 24 memory slots, 512 GiB`
fn words(survey: &Survey) -> String {
    let sockets = survey.processors.iter().filter(|one| !one.empty).count();
    let full = survey.memory.iter().filter(|one| one.mib > 0 || one.unknown).count();
    let gib = survey.memory.iter().map(|one| one.mib).sum::<u64>() / 1024;
    format!(
        "board {} {}: {sockets} of {} sockets, {full} of {} memory slots, {gib} GiB",
        survey.board.vendor,
        survey.board.product,
        survey.processors.len(),
        survey.memory.len()
    )
}

/// `BMC firmware 2.88, IPMI 2.0, at 10.78.0.7/24 (static)`
fn shown(bmc: &Controller) -> String {
    let at = bmc.lan.as_ref().map_or("without a LAN port".to_owned(), |lan| {
        format!("at {}, MAC {}", place::shown(lan), lan.mac)
    });
    format!("BMC firmware {}, IPMI {}, {at}", bmc.firmware, bmc.ipmi)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::Report;
    use crate::contract::survey::{Module, Processor, User};

    #[test]
    fn a_board_of_a_hundred_slots_still_fits_into_a_report() {
        let text = || "\"".repeat(64);
        let module = Module {
            slot: text(),
            bank: text(),
            mib: 1,
            kind: text(),
            vendor: text(),
            part: text(),
            serial: text(),
            ..Module::default()
        };
        let processor = Processor { socket: text(), model: text(), ..Processor::default() };
        let user = User { name: "x".repeat(16), ..User::default() };
        let bmc = Controller { users: vec![user; 63], ..Controller::default() };
        let whole = Survey {
            memory: vec![module; 100],
            processors: vec![processor; 8],
            bmc: Some(bmc),
            left_out: 5,
            ..Survey::default()
        };
        let cut = fitting(whole);
        let users = cut.bmc.as_ref().map_or(0, |bmc| bmc.users.len());
        assert!(!cut.memory.is_empty() && cut.processors.len() == 8 && users > 0, "{users}");
        let gone = (100 - cut.memory.len()) + (63 - users) + 5;
        assert_eq!(cut.left_out as usize, gone);
        let phase = Phase::Surveyed(Box::new(cut.clone()));
        let report = Report { phase, uptime_ms: u64::MAX, seq: u32::MAX };
        let json = serde_json::to_vec(&report).unwrap();
        assert!(json.len() <= REPORT_MAX, "{}", json.len());
        assert_eq!(serde_json::from_slice::<Report>(&json).unwrap(), report);
        assert_eq!(fitting(cut.clone()), cut);
    }
}
