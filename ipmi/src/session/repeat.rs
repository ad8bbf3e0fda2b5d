//! Which commands may be asked again in another session, when nobody knows whether the first one was heard.
//!
//! Within a session every command is repeated with its own number (rqSeq) until it is answered, so that a
//! BMC recognises the repetition (§5.2, completion code 0xCF). With a new session that knowledge is gone:
//! what reads or sets a value is asked again, what *does* something is not, and its asker is told.

use crate::message::{NetFn, Request};

/// Whether asking twice is the same as asking once.
pub fn is_repeatable(request: &Request) -> bool {
    match (request.netfn, request.command) {
        // Off and on are states; cycle, reset, diagnostic interrupt and soft off are deeds.
        (NetFn::CHASSIS, 0x02) => matches!(request.data.first(), Some(0 | 1)),
        // Cold and warm reset, self test, Send Message (whatever is in it), Activate Payload.
        (NetFn::APP, 0x02 | 0x03 | 0x34 | 0x48 | 0x52) => false,
        // Platform Event, Alert Immediate.
        (NetFn::SENSOR, 0x02 | 0x16) => false,
        // Add, partial add and delete of records; clear.
        (NetFn::STORAGE, 0x24..=0x27 | 0x44..=0x47) => false,
        // DCMI's Gets: capabilities, power reading and limit, asset tag, sensors, ids, thermal limit.
        (NetFn::GROUP, 0x01..=0x03 | 0x06 | 0x07 | 0x09 | 0x0b | 0x0c | 0x10 | 0x13) => {
            request.data.first() == Some(&0xdc)
        }
        (netfn, _) => netfn.0 <= NetFn::TRANSPORT.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_and_deeds() {
        let chassis = |action: u8| is_repeatable(&Request::new(NetFn::CHASSIS, 0x02, [action]));
        assert!(chassis(0) && chassis(1));
        assert!(!chassis(2) && !chassis(3) && !chassis(4) && !chassis(5));
        assert!(is_repeatable(&Request::new(NetFn::APP, 0x01, [])));
        assert!(!is_repeatable(&Request::new(NetFn::APP, 0x02, [])));
        assert!(!is_repeatable(&Request::new(NetFn(0x2e), 0x01, [])));
        assert!(!is_repeatable(&Request::new(NetFn::GROUP, 0x04, [0xdc])));
    }
}
