//! SOL configuration parameters, kept as the bytes they are; timing goes to [`crate::sol`] at once.
//!
//! IPMI 2.0 §26.2–26.3, table 26-5.

use std::time::Duration;

use koboshi_ipmi::{Completion, Response};

use crate::bmc::Bmc;
use crate::config::Config;
use crate::dispatch::{Asked, LAN, ok, refuse};

const UNSUPPORTED: Completion = Completion(0x80);
const BUSY: Completion = Completion(0x81);
const READ_ONLY: Completion = Completion(0x82);

/// SOL configuration parameters 0 to 8.
#[derive(Debug, Clone)]
pub struct SolConfig {
    data: [Vec<u8>; 9],
}

impl SolConfig {
    /// Enabled for users, authenticated and encrypted, at 115,200 bits a second, where RMCP is.
    pub fn new(config: &Config) -> SolConfig {
        let port = config.listen.port().to_le_bytes().to_vec();
        SolConfig {
            data: [
                vec![0],
                vec![1],
                vec![0xc2],
                vec![4, 96],
                vec![7, 10],
                vec![10],
                vec![10],
                vec![LAN],
                port,
            ],
        }
    }

    /// Whether it is activated with encryption only.
    pub fn forces_encryption(&self) -> bool {
        self.data[2].first().is_some_and(|how| how & 0x80 != 0)
    }

    /// Whether it may be activated.
    pub fn is_enabled(&self) -> bool {
        self.data[1].first().is_some_and(|on| on & 1 != 0)
    }
}

/// Answers for it.
pub fn answer(bmc: &mut Bmc, asked: &Asked<'_>) -> Option<Response> {
    match (asked.command, asked.data) {
        (0x21 | 0x22, [channel, ..]) if asked.channel_of(*channel) != LAN => {
            refuse(Completion::INVALID_FIELD)
        }
        (0x21, [_, parameter, data @ ..]) => set(bmc, *parameter, data),
        (0x22, [channel, parameter, _set, _block]) => {
            match bmc.sol_config.data.get(usize::from(*parameter)) {
                // Bit 7: its revision alone.
                Some(_) if channel & 0x80 != 0 => ok([0x11]),
                Some(datum) => ok([&[0x11], datum.as_slice()].concat()),
                None => refuse(UNSUPPORTED),
            }
        }
        (0x21 | 0x22, _) => refuse(Completion::LENGTH_INVALID),
        _ => None,
    }
}

fn set(bmc: &mut Bmc, parameter: u8, data: &[u8]) -> Option<Response> {
    let Some(datum) = bmc.sol_config.data.get_mut(usize::from(parameter)) else {
        return refuse(UNSUPPORTED);
    };
    if data.len() != datum.len() {
        return refuse(Completion::LENGTH_INVALID);
    }
    match (parameter, data) {
        (0, [1]) if *datum == [1] => return refuse(BUSY),
        (0, [2]) => *datum = vec![0],
        (0, [3..=255]) | (5 | 6, [1..=5 | 11..=255]) => return refuse(Completion::INVALID_FIELD),
        (7 | 8, _) => return refuse(READ_ONLY),
        _ => *datum = data.to_vec(),
    }
    let timing = &mut bmc.sol.timing;
    match (parameter, data) {
        (3, [wait, threshold]) => {
            timing.accumulate = Duration::from_millis(5 * u64::from(*wait));
            timing.threshold = usize::from(*threshold).max(1);
        }
        (4, [retries, interval]) => {
            timing.retries = u32::from(retries & 7);
            timing.interval = Duration::from_millis(10 * u64::from(*interval));
        }
        _ => {}
    }
    ok([])
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use koboshi_ipmi::{NetFn, Request};

    use super::*;

    #[test]
    fn it_begins_as_sol_does_and_a_change_reaches_it() {
        let now = Instant::now();
        let mut bmc = Bmc::new(Config::default(), now);
        let set = |bmc: &mut Bmc, data: &[u8]| {
            let data = [&[1], data].concat();
            bmc.ask(&Request::new(NetFn::TRANSPORT, 0x21, data), now).completion.0
        };
        let before = format!("{:?}", bmc.sol.timing);
        assert_eq!((set(&mut bmc, &[3, 4, 96]), set(&mut bmc, &[4, 7, 10])), (0, 0));
        assert_eq!(format!("{:?}", bmc.sol.timing), before, "what is told is what is done");
        assert_eq!(set(&mut bmc, &[4, 3, 50]), 0);
        assert_eq!(bmc.sol.timing.interval, Duration::from_millis(500));
        assert_eq!((set(&mut bmc, &[8, 1, 1]), set(&mut bmc, &[5, 3])), (0x82, 0xcc));
        assert_eq!(set(&mut bmc, &[1, 0]), 0);
        assert!(!bmc.sol_config.is_enabled());
    }
}
