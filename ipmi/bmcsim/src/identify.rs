//! The identify light, what happens when mains power comes back, and the hours of service.
//!
//! IPMI 2.0 §28.5 (identify), §28.8 (restore policy), §28.14 (POH counter).

use std::time::{Duration, Instant};

use koboshi_ipmi::{Completion, Response};

use crate::bmc::Bmc;
use crate::dispatch::{Asked, ok, refuse};

/// How long the light is on unless it is said.
const USUAL: u8 = 15;

/// The light, and the counter.
#[derive(Debug, Clone)]
pub struct Identify {
    dark_at: Option<Instant>,
    /// Hours that the machine has been on, as it was plugged in.
    pub hours: u32,
}

impl Default for Identify {
    fn default() -> Identify {
        Identify { dark_at: None, hours: 8760 }
    }
}

/// Answers for both.
pub fn answer(bmc: &mut Bmc, asked: &Asked<'_>) -> Option<Response> {
    match (asked.command, asked.data) {
        (0x04, data) => {
            let seconds = data.first().copied().unwrap_or(USUAL);
            let for_good = data.get(1).is_some_and(|force| force & 1 != 0);
            bmc.chassis.identify = match (for_good, seconds) {
                (true, _) => 2,
                (false, 0) => 0,
                (false, _) => 1,
            };
            let ends = asked.now + Duration::from_secs(seconds.into());
            bmc.identify.dark_at = (bmc.chassis.identify == 1).then_some(ends);
            ok([])
        }
        (0x06, [policy, ..]) => {
            match policy & 7 {
                policy @ 0..=2 => bmc.chassis.policy = policy,
                3 => {}
                _ => return refuse(Completion::INVALID_FIELD),
            }
            ok([0x07])
        }
        (0x0f, _) => ok([&[60], bmc.identify.hours.to_le_bytes().as_slice()].concat()),
        (0x06, []) => refuse(Completion::LENGTH_INVALID),
        _ => None,
    }
}

/// Lets the light go out.
pub fn poll(bmc: &mut Bmc, now: Instant) {
    if bmc.identify.dark_at.take_if(|at| *at <= now).is_some() {
        bmc.chassis.identify = 0;
    }
}

/// When it does.
pub fn deadline(bmc: &Bmc) -> Option<Instant> {
    bmc.identify.dark_at
}

#[cfg(test)]
mod tests {
    use koboshi_ipmi::{NetFn, Request};

    use super::*;
    use crate::config::Config;

    #[test]
    fn the_light_goes_out_unless_it_is_to_stay() {
        let now = Instant::now();
        let mut bmc = Bmc::new(Config::default(), now);
        let light = |bmc: &mut Bmc, data: &[u8]| {
            bmc.ask(&Request::new(NetFn::CHASSIS, 4, data), now);
            bmc.chassis.identify
        };
        assert_eq!(light(&mut bmc, &[]), 1);
        assert_eq!(bmc.deadline(), Some(now + Duration::from_secs(15)));
        assert_eq!((light(&mut bmc, &[0, 1]), bmc.deadline()), (2, None));
        assert_eq!(light(&mut bmc, &[5]), 1);
        bmc.poll(now + Duration::from_secs(5));
        assert_eq!(bmc.chassis.identify, 0);
    }
}
