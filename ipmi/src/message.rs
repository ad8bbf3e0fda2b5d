//! One question to a controller and its answer, before anybody wraps them for a wire.
//!
//! IPMI 2.0 §5 (network functions, completion codes), §13.8 (the LAN message, which is an IPMB message
//! addressed to the BMC).

use std::fmt;

use crate::wire::Malformed;

/// A network function: which family a command belongs to. Even numbers ask, the next odd one answers.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct NetFn(pub u8);

impl NetFn {
    /// Power, boot device, identify (§28).
    pub const CHASSIS: NetFn = NetFn(0x00);
    /// Bridged IPMB (§7).
    pub const BRIDGE: NetFn = NetFn(0x02);
    /// Sensors and events (§29, §35).
    pub const SENSOR: NetFn = NetFn(0x04);
    /// The controller itself, sessions, users, channels, watchdog (§20, §22, §24, §27).
    pub const APP: NetFn = NetFn(0x06);
    /// SDR repository, event log, FRU (§31, §33, §34).
    pub const STORAGE: NetFn = NetFn(0x0a);
    /// LAN and Serial over LAN settings (§23, §26).
    pub const TRANSPORT: NetFn = NetFn(0x0c);
    /// Bodies that extend IPMI; DCMI is body 0xDC.
    pub const GROUP: NetFn = NetFn(0x2c);

    /// What the answer carries.
    pub fn answer(self) -> NetFn {
        NetFn(self.0 | 1)
    }
}

impl fmt::Debug for NetFn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#04x}", self.0)
    }
}

/// What is asked of a controller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Family.
    pub netfn: NetFn,
    /// Logical unit of the responder: 0 for nearly everything; sensors may live on 1 or 3.
    pub lun: u8,
    /// Number within the family.
    pub command: u8,
    /// What follows the command byte.
    pub data: Vec<u8>,
}

impl Request {
    /// A request to logical unit 0.
    pub fn new(netfn: NetFn, command: u8, data: impl Into<Vec<u8>>) -> Request {
        Request { netfn, lun: 0, command, data: data.into() }
    }

    /// The same for another logical unit.
    #[must_use]
    pub fn lun(self, lun: u8) -> Request {
        Request { lun: lun & 3, ..self }
    }
}

/// What a controller answered, completion code and all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// 0x00 if it did what it was asked.
    pub completion: Completion,
    /// What follows the completion code.
    pub data: Vec<u8>,
}

/// A completion code (table 5-2). 0x80–0xBE mean what the command says they mean.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Completion(pub u8);

impl Completion {
    /// Done.
    pub const OK: Completion = Completion(0x00);
    /// The controller is busy; asking again helps.
    pub const NODE_BUSY: Completion = Completion(0xc0);
    /// No such command.
    pub const INVALID_COMMAND: Completion = Completion(0xc1);
    /// No such command on this logical unit.
    pub const INVALID_FOR_LUN: Completion = Completion(0xc2);
    /// It gave up on something behind it.
    pub const TIMEOUT: Completion = Completion(0xc3);
    /// No room.
    pub const OUT_OF_SPACE: Completion = Completion(0xc4);
    /// The reservation was lost: somebody else read too, or a record was added.
    pub const RESERVATION_LOST: Completion = Completion(0xc5);
    /// More data than it takes.
    pub const TRUNCATED: Completion = Completion(0xc6);
    /// Data of a length it does not take.
    pub const LENGTH_INVALID: Completion = Completion(0xc7);
    /// Data beyond a field's limit.
    pub const LENGTH_LIMIT: Completion = Completion(0xc8);
    /// A parameter beyond its range.
    pub const OUT_OF_RANGE: Completion = Completion(0xc9);
    /// It cannot return that many bytes at once.
    pub const CANNOT_RETURN: Completion = Completion(0xca);
    /// No such sensor, record or datum.
    pub const NOT_PRESENT: Completion = Completion(0xcb);
    /// A field of the request has a value it does not take.
    pub const INVALID_FIELD: Completion = Completion(0xcc);
    /// Not for this sensor or record.
    pub const ILLEGAL: Completion = Completion(0xcd);
    /// It has no answer now.
    pub const CANNOT_RESPOND: Completion = Completion(0xce);
    /// The same request is being worked on: its answer follows.
    pub const DUPLICATE: Completion = Completion(0xcf);
    /// The SDR repository is being updated.
    pub const SDR_UPDATING: Completion = Completion(0xd0);
    /// The firmware is being updated.
    pub const FIRMWARE_UPDATING: Completion = Completion(0xd1);
    /// The controller is starting.
    pub const INITIALIZING: Completion = Completion(0xd2);
    /// What is to be reached is not there.
    pub const DESTINATION_UNAVAILABLE: Completion = Completion(0xd3);
    /// The session may not do this.
    pub const PRIVILEGE: Completion = Completion(0xd4);
    /// Not in this state (a fan of a machine that is off).
    pub const NOT_NOW: Completion = Completion(0xd5);
    /// Disabled.
    pub const DISABLED: Completion = Completion(0xd6);
    /// No reason given.
    pub const UNSPECIFIED: Completion = Completion(0xff);

    /// Whether asking the same again may help.
    pub fn is_passing(self) -> bool {
        matches!(
            self,
            Completion::NODE_BUSY
                | Completion::DUPLICATE
                | Completion::SDR_UPDATING
                | Completion::INITIALIZING
        )
    }
}

impl fmt::Debug for Completion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#04x}", self.0)
    }
}

impl fmt::Display for Completion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = match *self {
            Completion::OK => "done",
            Completion::NODE_BUSY => "the controller is busy",
            Completion::INVALID_COMMAND => "it does not know this command",
            Completion::INVALID_FOR_LUN => "it does not know this command there",
            Completion::TIMEOUT => "it gave up on something behind it",
            Completion::OUT_OF_SPACE => "it has no room",
            Completion::RESERVATION_LOST => "the reservation was lost",
            Completion::TRUNCATED => "too much data",
            Completion::LENGTH_INVALID => "data of the wrong length",
            Completion::LENGTH_LIMIT => "data beyond a field's limit",
            Completion::OUT_OF_RANGE => "a parameter is out of range",
            Completion::CANNOT_RETURN => "it cannot return that much at once",
            Completion::NOT_PRESENT => "no such thing is present",
            Completion::INVALID_FIELD => "it does not take one of the values",
            Completion::ILLEGAL => "not for this sensor or record",
            Completion::CANNOT_RESPOND => "it has no answer now",
            Completion::DUPLICATE => "it is still at work on the same request",
            Completion::SDR_UPDATING => "its sensor records are being updated",
            Completion::FIRMWARE_UPDATING => "its firmware is being updated",
            Completion::INITIALIZING => "it is starting",
            Completion::DESTINATION_UNAVAILABLE => "what is behind it is not there",
            Completion::PRIVILEGE => "the account has too little privilege",
            Completion::NOT_NOW => "not in the machine's present state",
            Completion::DISABLED => "it is disabled",
            Completion::UNSPECIFIED => "it gives no reason",
            _ => return write!(f, "completion code {:#04x}", self.0),
        };
        write!(f, "{words} ({:#04x})", self.0)
    }
}

/// The BMC's own address on its IPMB.
pub const BMC: u8 = 0x20;
/// Remote console software (§5.5: software ids are odd).
pub const CONSOLE: u8 = 0x81;

/// An IPMB message as LAN channels carry it (§13.8): a request, or a response whose first datum is the
/// completion code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Who it is for.
    pub to: u8,
    /// Its logical unit.
    pub to_lun: u8,
    /// Family; odd in a response.
    pub netfn: NetFn,
    /// Who sent it.
    pub from: u8,
    /// Its logical unit.
    pub from_lun: u8,
    /// The requester's number (six bits); a response repeats it.
    pub seq: u8,
    /// Number within the family.
    pub command: u8,
    /// The rest, without the checksum.
    pub data: Vec<u8>,
    /// Whether both checksums were right. Some boards of Supermicro get them wrong under RMCP+, where the
    /// session's own integrity check makes them superfluous.
    pub checksums: bool,
}

impl Message {
    /// A request to the BMC.
    pub fn request(request: &Request, seq: u8) -> Message {
        Message {
            to: BMC,
            to_lun: request.lun,
            netfn: request.netfn,
            from: CONSOLE,
            from_lun: 0,
            seq,
            command: request.command,
            data: request.data.clone(),
            checksums: true,
        }
    }

    /// The response to this request, from where it was sent to.
    pub fn respond(&self, response: &Response) -> Message {
        let mut data = Vec::with_capacity(1 + response.data.len());
        data.push(response.completion.0);
        data.extend_from_slice(&response.data);
        Message {
            to: self.from,
            to_lun: self.from_lun,
            netfn: self.netfn.answer(),
            from: self.to,
            from_lun: self.to_lun,
            seq: self.seq,
            command: self.command,
            data,
            checksums: true,
        }
    }

    /// What a response says. `None`: not even a completion code.
    pub fn response(&self) -> Option<Response> {
        let (code, data) = self.data.split_first()?;
        Some(Response { completion: Completion(*code), data: data.to_vec() })
    }

    /// As bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(7 + self.data.len());
        out.extend([self.to, self.netfn.0 << 2 | self.to_lun & 3]);
        out.push(checksum(&out));
        out.extend([self.from, self.seq << 2 | self.from_lun & 3, self.command]);
        out.extend_from_slice(&self.data);
        out.push(checksum(&out[3..]));
        out
    }

    /// From bytes. Wrong checksums are told, not refused.
    pub fn decode(bytes: &[u8]) -> Result<Message, Malformed> {
        let [to, function, first, from, source, command, rest @ ..] = bytes else {
            return Err(Malformed("an IPMB message of less than 7 bytes"));
        };
        let Some((second, data)) = rest.split_last() else {
            return Err(Malformed("an IPMB message of less than 7 bytes"));
        };
        let right =
            checksum(&bytes[..2]) == *first && checksum(&bytes[3..bytes.len() - 1]) == *second;
        Ok(Message {
            to: *to,
            to_lun: function & 3,
            netfn: NetFn(function >> 2),
            from: *from,
            from_lun: source & 3,
            seq: source >> 2,
            command: *command,
            data: data.to_vec(),
            checksums: right,
        })
    }
}

/// What makes the sum of bytes zero (§13.8).
pub fn checksum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0u8, |sum, byte| sum.wrapping_sub(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_and_its_response() {
        let request = Request::new(NetFn::CHASSIS, 0x02, [0x01]);
        let message = Message::request(&request, 5);
        let bytes = message.encode();
        assert_eq!(bytes, [0x20, 0x00, 0xe0, 0x81, 0x14, 0x02, 0x01, 0x68]);
        assert_eq!(Message::decode(&bytes).unwrap(), message);
        let answer = message.respond(&Response { completion: Completion::OK, data: vec![7] });
        let bytes = answer.encode();
        assert_eq!(bytes[..6], [0x81, 0x04, 0x7b, 0x20, 0x14, 0x02]);
        let answer = Message::decode(&bytes).unwrap();
        assert!(answer.checksums && answer.netfn == NetFn(1) && answer.seq == 5);
        assert_eq!(answer.response().unwrap().data, [7]);
    }

    #[test]
    fn short_and_wrong_ones() {
        for length in 0..7 {
            assert!(Message::decode(&[0; 7][..length]).is_err());
        }
        let mut bytes = Message::request(&Request::new(NetFn::APP, 1, []), 1).encode();
        bytes[2] ^= 1;
        assert!(!Message::decode(&bytes).unwrap().checksums);
    }
}
