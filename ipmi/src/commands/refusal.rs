//! What completion codes 0x80 to 0xBE mean: each command has its own (IPMI 2.0 table 5-2). Also a word on
//! generic codes where a command makes them clearer.

use crate::message::{Completion, NetFn};

/// What a refusal of this command means, where the command says so. `None`: the generic words hold.
pub fn words(netfn: NetFn, command: u8, completion: Completion) -> Option<&'static str> {
    Some(match (netfn, command, completion.0) {
        (NetFn::CHASSIS, 0x02, 0xd5) => {
            "not in the machine's present state: one that is off can only be switched on"
        }
        (NetFn::CHASSIS, 0x08 | 0x09, 0x80) => "it has no such boot option",
        (NetFn::CHASSIS, 0x08, 0x81) => "somebody else is changing its boot options",
        (NetFn::CHASSIS, 0x08, 0x82) => "that boot option cannot be changed",
        (NetFn::APP, 0x22, 0x80) => "its watchdog was never set, so it cannot be started",
        (NetFn::APP, 0x34, 0x80) => "that bus takes no messages",
        (NetFn::APP, 0x34, 0x81) => "the bus was lost to another sender",
        (NetFn::APP, 0x34, 0x82) => "the bus is in error",
        (NetFn::APP, 0x34, 0x83) => "nobody answers at that address of the bus",
        (NetFn::APP, 0x33, 0x80) => "its message queue is empty",
        (NetFn::APP, 0x40 | 0x41 | 0x43 | 0x44, 0x82) => "that channel has no sessions",
        (NetFn::APP, 0x40 | 0x41, 0x83) => "that channel does not have this access mode",
        (NetFn::APP, 0x47, 0x80) => "the password is another",
        (NetFn::APP, 0x47, 0x81) => "the password is kept at another length (16 or 20 bytes)",
        (NetFn::APP, 0x48, 0x80) => "Serial over LAN is active in another session",
        (NetFn::APP, 0x48, 0x83) => "it does Serial over LAN without encryption only",
        (NetFn::APP, 0x48, 0x84) => {
            "it does Serial over LAN with encryption only: that takes cipher suite 3 or 17"
        }
        (NetFn::APP, 0x49, 0x80) => "Serial over LAN is not active",
        (NetFn::APP, 0x3d, 0xcb) => "there is no such session",
        (NetFn::APP, 0x58 | 0x59, 0x80) => "it has no such system information",
        (NetFn::APP, 0x58, 0x81) => "somebody else is changing its system information",
        (NetFn::APP, 0x58, 0x82) => "that system information cannot be changed",
        (NetFn::TRANSPORT, 0x01 | 0x02, 0x80) => "it has no such LAN setting",
        (NetFn::TRANSPORT, 0x01, 0x81) => "somebody else is changing its LAN settings",
        (NetFn::TRANSPORT, 0x01, 0x82) => "that LAN setting cannot be changed",
        (NetFn::TRANSPORT, 0x02, 0x83) => "that LAN setting can only be written",
        (NetFn::TRANSPORT, 0x21 | 0x22, 0x80) => "it has no such setting of Serial over LAN",
        (NetFn::TRANSPORT, 0x21, 0x81) => {
            "somebody else is changing its settings of Serial over LAN"
        }
        (NetFn::TRANSPORT, 0x21, 0x82) => "that setting of Serial over LAN cannot be changed",
        (NetFn::TRANSPORT, 0x22, 0x83) => "that setting of Serial over LAN can only be written",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    #[test]
    fn the_same_code_means_what_its_command_says() {
        let told = |netfn, command, code| {
            Error::Refused { netfn, command, completion: Completion(code) }.to_string()
        };
        assert_eq!(told(NetFn::TRANSPORT, 2, 0x80), "it has no such LAN setting (0x80)");
        assert_eq!(told(NetFn::APP, 0x47, 0x80), "the password is another (0x80)");
        assert_eq!(told(NetFn::APP, 0x01, 0x80), "completion code 0x80");
        assert_eq!(told(NetFn::APP, 0x47, 0xc7), "data of the wrong length (0xc7)");
    }
}
