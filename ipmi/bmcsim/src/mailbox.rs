//! What a host asks of its own interface before anything else: global enables, and whether something waits for
//! it. No event ever does.
//!
//! IPMI 2.0 §22.1–22.4, §22.8 (Read Event Message Buffer).

use koboshi_ipmi::{Completion, Response};

use crate::bmc::Bmc;
use crate::dispatch::{Asked, ok, refuse};

/// Of Read Event Message Buffer: there is none.
const EMPTY: Completion = Completion(0x80);

/// The host's interface.
#[derive(Debug, Clone)]
pub struct Mailbox {
    /// Global enables: bit 3 has events logged.
    pub enables: u8,
}

impl Default for Mailbox {
    fn default() -> Mailbox {
        Mailbox { enables: 0x08 }
    }
}

/// Answers for it.
pub fn answer(bmc: &mut Bmc, asked: &Asked<'_>) -> Option<Response> {
    match (asked.command, asked.data) {
        (0x2e, [enables, ..]) => {
            bmc.mailbox.enables = *enables;
            ok([])
        }
        (0x2f, _) => ok([bmc.mailbox.enables]),
        (0x30, [_, ..]) => ok([]),
        (0x31, _) => ok([0]),
        (0x35, _) => refuse(EMPTY),
        (0x2e | 0x30, []) => refuse(Completion::LENGTH_INVALID),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use koboshi_ipmi::{NetFn, Request};

    use super::*;
    use crate::Config;

    /// What Linux's `ipmi_si` asks as it starts; it complains of anything else.
    #[test]
    fn what_linux_asks_first() {
        let now = Instant::now();
        let mut bmc = Bmc::new(Config::default(), now);
        let mut ask = |command, data: &[u8]| bmc.ask(&Request::new(NetFn::APP, command, data), now);
        assert_eq!(ask(0x2f, &[]).data, [0x08]);
        assert_eq!(ask(0x2e, &[0x09]).completion, Completion::OK);
        assert_eq!(ask(0x2f, &[]).data, [0x09]);
        assert_eq!(ask(0x30, &[0x01]).completion, Completion::OK);
        assert_eq!(ask(0x31, &[]).data, [0]);
        assert_eq!(ask(0x35, &[]).completion, EMPTY);
    }
}
