//! Any datagram on port 623, read from either end: wrappers, what opens a session, Serial over LAN, messages
//! and what answers carry. What is read and written again is the same.

#![no_main]

use koboshi_ipmi::Password;
use koboshi_ipmi::commands::authentication::Capabilities;
use koboshi_ipmi::commands::boot::BootFlags;
use koboshi_ipmi::commands::channel::{ChannelAccess, ChannelInfo};
use koboshi_ipmi::commands::chassis::ChassisStatus;
use koboshi_ipmi::commands::device::DeviceId;
use koboshi_ipmi::commands::watchdog::Watchdog;
use koboshi_ipmi::commands::{dcmi, sdr, sel, sensor, sessions, user};
use koboshi_ipmi::message::Message;
use koboshi_ipmi::sol::payload;
use koboshi_ipmi::wire::rakp::{OpenRequest, OpenResponse, Rakp1, Rakp2, Rakp3, Rakp4};
use koboshi_ipmi::wire::rmcp::Rmcp;
use koboshi_ipmi::wire::sol::Sol;
use koboshi_ipmi::wire::v15;
use koboshi_ipmi::wire::v20;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    datagram(bytes);
    payload(bytes);
    answer(bytes);
});

fn datagram(bytes: &[u8]) {
    let Ok(Rmcp::Ipmi(rest)) = Rmcp::decode(bytes) else { return };
    if let Ok(packet) = v20::Packet::decode(rest) {
        assert!(packet.payload.len() <= bytes.len());
        payload(packet.payload);
    }
    if let Ok(packet) = v15::Packet::decode(rest) {
        assert!(packet.payload.len() <= 255);
        let password = Password::new("secret").expect("six bytes");
        let due =
            v15::encode(packet.auth, packet.session, packet.sequence, &password, packet.payload);
        let Ok(Rmcp::Ipmi(again)) = Rmcp::decode(&due) else { panic!("not RMCP: {due:?}") };
        let again = v15::Packet::decode(again).expect("what was just written");
        assert!(again.is_authentic(&password));
        assert_eq!(packet.is_authentic(&password), packet.code == again.code);
        payload(packet.payload);
    }
}

fn payload(bytes: &[u8]) {
    if let Ok(message) = Message::decode(bytes) {
        assert_eq!(message.encode() == bytes, message.checksums);
        if let Some(response) = message.response() {
            answer(&response.data);
        }
    }
    if let Ok(sol) = Sol::decode(bytes) {
        assert_eq!(Sol::decode(&sol.encode()), Ok(sol.clone()));
        assert_eq!(sol.data.len(), bytes.len() - 4);
    }
    if let Ok(open) = OpenRequest::decode(bytes) {
        assert_eq!(OpenRequest::decode(&open.encode()), Ok(open));
    }
    if let Ok(open) = OpenResponse::decode(bytes) {
        assert_eq!(OpenResponse::decode(&open.encode()).map(|open| open.agreed), Ok(open.agreed));
    }
    if let Ok(one) = Rakp1::decode(bytes) {
        assert!(one.name.len() <= 16);
        assert_eq!(Rakp1::decode(&one.encode()), Ok(one));
    }
    if let Ok(two) = Rakp2::decode(bytes) {
        assert_eq!(Rakp2::decode(&two.encode()), Ok(two));
    }
    if let Ok(three) = Rakp3::decode(bytes) {
        assert_eq!(Rakp3::decode(&three.encode()), Ok(three));
    }
    if let Ok(four) = Rakp4::decode(bytes) {
        assert_eq!(Rakp4::decode(&four.encode()), Ok(four));
    }
}

/// Sealed or not, what a BMC answers is a stranger's.
fn answer(data: &[u8]) {
    let _ = (ChassisStatus::decode(data), BootFlags::decode(data), DeviceId::decode(data));
    let _ = (ChannelInfo::decode(data), ChannelAccess::decode(data), Capabilities::decode(data));
    let _ = (Watchdog::decode(data), user::Access::decode(data), sessions::Session::decode(data));
    let _ = (dcmi::Power::decode(data), sdr::Info::decode(data), sel::Info::decode(data));
    let _ = (sdr::Record::decode(data), sel::Entry::decode(data), sensor::raw::Raw::decode(data));
    let _ = (
        payload::Activated::decode(data),
        payload::decode_status(data, 1),
        payload::decode_owner(data),
    );
}
