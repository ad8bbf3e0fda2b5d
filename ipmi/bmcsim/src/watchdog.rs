//! The watchdog timer: it counts down, and what it is set to do it does to the machine.
//!
//! IPMI 2.0 §27; tables 27-2, 27-4, 27-5.

use std::time::{Duration, Instant};

use koboshi_ipmi::{Completion, Response};

use crate::bmc::Bmc;
use crate::chassis::{self, Act, Cause};
use crate::dispatch::{Asked, ok, refuse};
use crate::{sel, sensor};

/// Of Reset: it was never set.
const NEVER_SET: Completion = Completion(0x80);

/// In the first byte of a setting: no entry in the event log.
const UNLOGGED: u8 = 0x80;
/// In the first byte of a setting: the timer goes on.
const KEEP_RUNNING: u8 = 0x40;
/// The same bit where it is read.
const RUNNING: u8 = 0x40;

/// The watchdog timer.
#[derive(Debug, Clone, Default)]
pub struct Watchdog {
    is_set: bool,
    /// Who uses it, and whether it is logged.
    user: u8,
    /// What warns, and what it does.
    action: u8,
    /// Seconds of warning.
    warning: u8,
    expired: u8,
    /// In steps of 100 ms.
    initial: u16,
    ends: Option<Instant>,
    warns: Option<Instant>,
    /// Warnings that were given (interrupts).
    pub warned: u32,
    /// What it has done, in table 27-4's numbers, the latest last.
    pub fired: Vec<u8>,
}

fn steps(number: u16) -> Duration {
    Duration::from_millis(u64::from(number) * 100)
}

impl Watchdog {
    fn start(&mut self, now: Instant) {
        let ends = now + steps(self.initial);
        self.ends = Some(ends);
        let warning = Duration::from_secs(self.warning.into());
        self.warns = (self.action >> 4 & 7 != 0).then(|| ends.checked_sub(warning)).flatten();
    }

    fn stop(&mut self) {
        (self.ends, self.warns) = (None, None);
    }

    fn set(&mut self, setting: [u8; 6], now: Instant) -> Completion {
        let [user, action, warning, forget, low, high] = setting;
        let initial = u16::from_le_bytes([low, high]);
        let warns = action >> 4 & 7 != 0;
        if !(1..=5).contains(&(user & 7)) || action & 7 > 3 || action >> 4 & 7 > 3 {
            return Completion::INVALID_FIELD;
        }
        if warns && Duration::from_secs(warning.into()) > steps(initial) {
            return Completion::INVALID_FIELD;
        }
        let goes_on = self.ends.is_some() && user & KEEP_RUNNING != 0;
        self.is_set = true;
        (self.user, self.action, self.warning) = (user & 0x87, action, warning);
        self.expired &= !forget;
        self.initial = initial;
        match goes_on {
            true => self.start(now),
            false => self.stop(),
        }
        Completion::OK
    }

    fn get(&self, now: Instant) -> Vec<u8> {
        let left = match self.ends {
            Some(ends) => ends.saturating_duration_since(now).as_millis() / 100,
            None => u128::from(self.initial),
        };
        let running = if self.ends.is_some() { RUNNING } else { 0 };
        let mut out = vec![self.user | running, self.action, self.warning, self.expired];
        out.extend(self.initial.to_le_bytes());
        out.extend(u16::try_from(left).unwrap_or(u16::MAX).to_le_bytes());
        out
    }
}

/// Number of the sensor that events name.
pub const SENSOR: u8 = 0x70;
/// Events with offsets of the sensor type (table 42-3), and the offset of its interrupt.
const SENSOR_SPECIFIC: u8 = 0x6f;
const INTERRUPT: u8 = 8;

/// Logs what it does: offsets 0 to 3 are table 27-4's actions.
fn log(bmc: &mut Bmc, offset: u8) {
    let watchdog = &bmc.watchdog;
    if watchdog.user & UNLOGGED != 0 {
        return;
    }
    let mut entry = [0; 16];
    let which = watchdog.action & 0x70 | watchdog.user & 7;
    entry[2] = 0x02;
    entry[7] = 0x20;
    let data = [0xc0 | offset, which, 0xff];
    entry[9..13].copy_from_slice(&[4, sensor::WATCHDOG, SENSOR, SENSOR_SPECIFIC]);
    entry[13..].copy_from_slice(&data);
    // A log that is full is another's concern.
    sel::add(bmc, entry);
}

/// Answers for it.
pub fn answer(bmc: &mut Bmc, asked: &Asked<'_>) -> Option<Response> {
    let watchdog = &mut bmc.watchdog;
    match asked.command {
        0x22 if !watchdog.is_set => refuse(NEVER_SET),
        0x22 => {
            watchdog.start(asked.now);
            ok([])
        }
        0x24 => {
            let Ok(setting) = asked.data.try_into() else {
                return refuse(Completion::LENGTH_INVALID);
            };
            match watchdog.set(setting, asked.now) {
                Completion::OK => ok([]),
                completion => refuse(completion),
            }
        }
        0x25 => ok(watchdog.get(asked.now)),
        _ => None,
    }
}

/// Lets it fire if it is due: through [`crate::chassis::act`].
pub fn poll(bmc: &mut Bmc, now: Instant) {
    let watchdog = &mut bmc.watchdog;
    if watchdog.warns.take_if(|at| *at <= now).is_some() {
        watchdog.warned += 1;
        let by_nmi = watchdog.action >> 4 & 7 == 2;
        log(bmc, INTERRUPT);
        if by_nmi {
            chassis::act(bmc, Act::Diag, Cause::Watchdog, now);
        }
    }
    let watchdog = &mut bmc.watchdog;
    if watchdog.ends.take_if(|at| *at <= now).is_none() {
        return;
    }
    watchdog.stop();
    watchdog.expired |= 1 << (watchdog.user & 7);
    let action = watchdog.action & 7;
    watchdog.fired.push(action);
    log(bmc, action);
    let act = match action {
        1 => Act::Reset,
        2 => Act::Off,
        3 => Act::Cycle,
        _ => return,
    };
    // A machine that is off meanwhile refuses, and that is well.
    chassis::act(bmc, act, Cause::Watchdog, now);
}

/// When it is due.
pub fn deadline(bmc: &Bmc) -> Option<Instant> {
    [bmc.watchdog.ends, bmc.watchdog.warns].into_iter().flatten().min()
}

#[cfg(test)]
mod tests {
    use koboshi_ipmi::{NetFn, Request};

    use super::*;
    use crate::config::Config;

    fn ask(bmc: &mut Bmc, command: u8, data: &[u8], now: Instant) -> Response {
        bmc.ask(&Request::new(NetFn::APP, command, data), now)
    }

    fn on(now: Instant) -> Bmc {
        Bmc::new(Config { on: true, ..Config::default() }, now)
    }

    #[test]
    fn it_warns_and_then_cycles_the_machine() {
        let now = Instant::now();
        let mut bmc = on(now);
        assert_eq!(ask(&mut bmc, 0x22, &[], now).completion, NEVER_SET);
        ask(&mut bmc, 0x24, &[0x04, 0x23, 2, 0x3e, 100, 0], now);
        assert_eq!(bmc.deadline(), None, "set is not started");
        ask(&mut bmc, 0x22, &[], now);
        let due = bmc.deadline().unwrap();
        assert_eq!(due, now + Duration::from_secs(8));
        assert_eq!(ask(&mut bmc, 0x25, &[], due).data, [0x44, 0x23, 2, 0, 100, 0, 20, 0]);
        bmc.poll(due);
        assert_eq!((bmc.watchdog.warned, bmc.chassis.acts.back()), (1, Some(&Act::Diag)));
        let due = bmc.deadline().unwrap();
        bmc.poll(due);
        assert!(!bmc.chassis.on && bmc.watchdog.fired == [3]);
        let logged: Vec<_> = bmc.sel.entries.iter().map(|entry| &entry[10..15]).collect();
        assert_eq!(logged, [[0x23, SENSOR, 0x6f, 0xc8, 0x24], [0x23, SENSOR, 0x6f, 0xc3, 0x24]]);
        assert_eq!(ask(&mut bmc, 0x25, &[], due).data, [0x04, 0x23, 2, 0x10, 100, 0, 100, 0]);
        bmc.poll(due + bmc.chassis.interval);
        assert!(bmc.chassis.on && bmc.chassis.cause == Cause::Watchdog);
    }

    #[test]
    fn started_again_it_does_not_fire_and_stopped_neither() {
        let now = Instant::now();
        let mut bmc = on(now);
        ask(&mut bmc, 0x24, &[0x04, 0x01, 0, 0, 100, 0], now);
        ask(&mut bmc, 0x22, &[], now);
        let later = now + Duration::from_secs(9);
        ask(&mut bmc, 0x22, &[], later);
        bmc.poll(now + Duration::from_secs(10));
        assert!(bmc.watchdog.fired.is_empty() && bmc.sel.entries.is_empty());
        // Kept running, it takes the new count; without that bit it stops.
        ask(&mut bmc, 0x24, &[0x44, 0x02, 0, 0, 200, 0], later);
        assert_eq!(bmc.deadline(), Some(later + Duration::from_secs(20)));
        ask(&mut bmc, 0x24, &[0x04, 0x02, 0, 0, 200, 0], later);
        assert_eq!(bmc.deadline(), None);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let now = Instant::now();
        let mut bmc = on(now);
        for wrong in [[0, 1, 0, 0, 9, 0], [4, 5, 0, 0, 9, 0], [4, 0x11, 2, 0, 9, 0]] {
            assert_eq!(ask(&mut bmc, 0x24, &wrong, now).completion, Completion::INVALID_FIELD);
        }
        assert_eq!(ask(&mut bmc, 0x24, &[4, 1], now).completion, Completion::LENGTH_INVALID);
    }
}
