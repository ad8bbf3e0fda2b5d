//! Boot options, and what the machine boots from because of them.
//!
//! IPMI 2.0 §28.12–28.13, table 28-14. As real ones do, it forgets boot flags 60 seconds after they were set,
//! unless parameter 3 says otherwise, and a choice for one boot as soon as it is used.

use std::time::{Duration, Instant};

use koboshi_ipmi::{Completion, Response};

use crate::bmc::Bmc;
use crate::dispatch::{Asked, ok, refuse};

const IN_PROGRESS: u8 = 0;
const CLEARING: u8 = 3;
const ACKNOWLEDGE: u8 = 4;
const FLAGS: u8 = 5;

/// In the first byte of the flags.
const VALID: u8 = 0x80;
const PERSISTENT: u8 = 0x40;
/// In parameter 3: the 60 seconds do not count.
const NO_TIMEOUT: u8 = 0x08;

/// How long boot flags are good for.
pub const TIMEOUT: Duration = Duration::from_secs(60);

const UNSUPPORTED: Completion = Completion(0x80);
const BUSY: Completion = Completion(0x81);

/// Bytes of parameters 0 to 7 (the mailbox has blocks of 16 behind a selector).
const LENGTHS: [usize; 8] = [1, 1, 1, 1, 2, 5, 9, 17];

/// Boot options.
#[derive(Debug, Clone)]
pub struct Boot {
    parameters: [Vec<u8>; 8],
    /// Parameters that are marked invalid.
    invalid: u8,
    forgotten_at: Option<Instant>,
}

impl Default for Boot {
    fn default() -> Boot {
        let parameters = LENGTHS.map(|length| vec![0; length]);
        Boot { parameters, invalid: 0, forgotten_at: None }
    }
}

impl Boot {
    fn flags(&mut self) -> &mut [u8] {
        &mut self.parameters[usize::from(FLAGS)]
    }
}

/// Answers for it.
pub fn answer(bmc: &mut Bmc, asked: &Asked<'_>) -> Option<Response> {
    match (asked.command, asked.data) {
        (0x08, [selector, data @ ..]) => set(&mut bmc.boot, *selector, data, asked.now),
        (0x09, [selector, _set, _block]) => get(&bmc.boot, selector & 0x7f),
        (0x08 | 0x09, _) => refuse(Completion::LENGTH_INVALID),
        _ => None,
    }
}

fn get(boot: &Boot, parameter: u8) -> Option<Response> {
    let Some(datum) = boot.parameters.get(usize::from(parameter)) else {
        return refuse(UNSUPPORTED);
    };
    let invalid = boot.invalid >> parameter & 1;
    ok([&[0x01, invalid << 7 | parameter], datum.as_slice()].concat())
}

fn set(boot: &mut Boot, selector: u8, data: &[u8], now: Instant) -> Option<Response> {
    let parameter = selector & 0x7f;
    let Some(datum) = boot.parameters.get_mut(usize::from(parameter)) else {
        return refuse(UNSUPPORTED);
    };
    boot.invalid = boot.invalid & !(1 << parameter) | (selector >> 7) << parameter;
    match data {
        // Only the mark of validity changes.
        [] => return ok([]),
        _ if data.len() != datum.len() => return refuse(Completion::LENGTH_INVALID),
        _ => {}
    }
    match (parameter, data) {
        (IN_PROGRESS, [1]) if datum[0] == 1 => return refuse(BUSY),
        (IN_PROGRESS, [2]) => datum[0] = 0,
        (ACKNOWLEDGE, [mask, bits]) => {
            datum[1] = datum[1] & !mask | bits & mask;
        }
        _ => datum.copy_from_slice(data),
    }
    if matches!(parameter, FLAGS | CLEARING) {
        let valid = boot.flags()[0] & VALID != 0;
        let kept = boot.parameters[usize::from(CLEARING)][0] & NO_TIMEOUT != 0;
        boot.forgotten_at = (valid && !kept).then_some(now + TIMEOUT);
    }
    ok([])
}

/// Names of device selectors.
fn name(selector: u8) -> Option<&'static str> {
    Some(match selector {
        1 => "pxe",
        2 => "disk",
        3 => "safe",
        4 => "diag",
        5 => "cdrom",
        6 => "bios",
        7 => "remote-floppy",
        8 => "remote-cdrom",
        9 => "remote-media",
        0xb => "remote-disk",
        0xf => "floppy",
        _ => return None,
    })
}

/// What the machine is to boot from as it starts now (`pxe`, `disk`, `cdrom`, `bios`, …: the value of
/// `KOBOSHI_BOOT`); `None` is its own order. A choice for one boot is used up by this.
pub fn chosen(bmc: &mut Bmc) -> Option<&'static str> {
    let boot = &mut bmc.boot;
    let flags = boot.flags();
    if flags[0] & VALID == 0 {
        return None;
    }
    let chosen = name(flags[1] >> 2 & 0x0f);
    if flags[0] & PERSISTENT == 0 {
        flags[0] &= !VALID;
        boot.forgotten_at = None;
    }
    // The BIOS has seen it.
    boot.parameters[usize::from(ACKNOWLEDGE)][1] &= !0x01;
    chosen
}

/// Forgets what is due.
pub fn poll(bmc: &mut Bmc, now: Instant) {
    if bmc.boot.forgotten_at.take_if(|at| *at <= now).is_some() {
        bmc.boot.flags()[0] &= !VALID;
    }
}

/// When something is due.
pub fn deadline(bmc: &Bmc) -> Option<Instant> {
    bmc.boot.forgotten_at
}

#[cfg(test)]
mod tests {
    use koboshi_ipmi::{NetFn, Request};

    use super::*;
    use crate::config::Config;

    fn ask(bmc: &mut Bmc, command: u8, data: &[u8], now: Instant) -> Response {
        bmc.ask(&Request::new(NetFn::CHASSIS, command, data), now)
    }

    #[test]
    fn a_choice_for_one_boot_is_used_up_and_a_persistent_one_stays() {
        let now = Instant::now();
        let mut bmc = Bmc::new(Config::default(), now);
        ask(&mut bmc, 8, &[3, 0x1f], now);
        assert_eq!(ask(&mut bmc, 8, &[5, 0xa0, 0x04, 0, 0, 0], now).completion, Completion::OK);
        assert_eq!(bmc.deadline(), None);
        ask(&mut bmc, 2, &[1], now);
        assert_eq!(ask(&mut bmc, 9, &[5, 0, 0], now).data, [1, 5, 0x20, 0x04, 0, 0, 0]);
        ask(&mut bmc, 2, &[3], now);
        ask(&mut bmc, 8, &[5, 0xe0, 0x18, 0, 0, 0], now);
        ask(&mut bmc, 2, &[3], now);
        ask(&mut bmc, 2, &[3], now);
        assert_eq!(bmc.chassis.boots, [Some("pxe"), None, Some("bios"), Some("bios")]);
    }

    #[test]
    fn sixty_seconds_later_nobody_knows() {
        let now = Instant::now();
        let mut bmc = Bmc::new(Config::default(), now);
        ask(&mut bmc, 8, &[5, 0x80, 0x04, 0, 0, 0], now);
        assert_eq!(bmc.deadline(), Some(now + TIMEOUT));
        bmc.poll(now + TIMEOUT);
        assert_eq!(ask(&mut bmc, 9, &[5, 0, 0], now).data, [1, 5, 0x00, 0x04, 0, 0, 0]);
        ask(&mut bmc, 2, &[1], now);
        assert_eq!(bmc.chassis.boots, [None]);
    }

    #[test]
    fn one_change_at_a_time_and_nonsense() {
        let now = Instant::now();
        let mut bmc = Bmc::new(Config::default(), now);
        let mut code = |data: &[u8]| ask(&mut bmc, 8, data, now).completion.0;
        assert_eq!((code(&[0, 1]), code(&[0, 1]), code(&[0, 2]), code(&[0, 1])), (0, 0x81, 0, 0));
        assert_eq!((code(&[5, 0x80]), code(&[99, 1]), code(&[])), (0xc7, 0x80, 0xc7));
        assert_eq!(code(&[0x85]), 0);
        assert_eq!(ask(&mut bmc, 9, &[5, 0, 0], now).data[1], 0x85);
    }
}
