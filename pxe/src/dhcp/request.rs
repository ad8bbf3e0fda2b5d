//! What a client said: firmware, iPXE, `koboshi-init` or a running system, each in its own dialect
//! and often on the same machine within one minute. The boot decision reads nothing else.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use super::lease::ClientKey;
use super::options::{Options, code};
use super::packet::{BOOTREQUEST, BadPacket, Packet};
use crate::Mac;

/// Option 53, RFC 2132 9.6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names are those of the RFC")]
pub enum MessageType {
    Discover = 1,
    Offer = 2,
    Request = 3,
    Decline = 4,
    Ack = 5,
    Nak = 6,
    Release = 7,
    Inform = 8,
}

/// What option 60 makes of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Vendor {
    /// `PXEClient…`: firmware, and iPXE, which says so too.
    Pxe,
    /// `HTTPClient…`: UEFI HTTP boot. It takes no offer that does not echo the word.
    Http,
    /// Anything else: `udhcp 1.35.0`, `MSFT 5.0`.
    Other,
    /// No option 60.
    None,
}

/// Where a message came in. Whoever sent it may have forged all of it but the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heard {
    /// Which of the interfaces served.
    pub wire: usize,
    /// Sender's address; 0.0.0.0 of a client without one.
    pub from: Ipv4Addr,
    /// Sender's port.
    pub from_port: u16,
    /// The address it was sent to: ours, or everybody's.
    pub to: Ipv4Addr,
    /// It came to the ProxyDHCP port, 4011.
    pub proxy_port: bool,
}

impl Default for Heard {
    /// A broadcast of a client without an address.
    fn default() -> Heard {
        Heard {
            wire: 0,
            from: Ipv4Addr::UNSPECIFIED,
            from_port: 68,
            to: Ipv4Addr::BROADCAST,
            proxy_port: false,
        }
    }
}

/// One message of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Where it came in; set by who received it.
    pub heard: Heard,
    /// What it wants.
    pub kind: MessageType,
    /// Who it is.
    pub mac: Mac,
    /// Hardware type, 1 for Ethernet.
    pub htype: u8,
    /// Hardware address as sent, 16 bytes.
    pub chaddr: [u8; 16],
    /// Transaction.
    pub xid: u32,
    /// Seconds since it began to ask.
    pub secs: u16,
    /// It cannot take unicast yet.
    pub broadcast: bool,
    /// The address it has and uses.
    pub ciaddr: Ipv4Addr,
    /// The relay it came through.
    pub giaddr: Ipv4Addr,
    /// Option 50.
    pub requested: Option<Ipv4Addr>,
    /// Option 54.
    pub server_id: Option<Ipv4Addr>,
    /// Option 61, echoed and nothing else (RFC 6842): the firmware, iPXE, the initramfs and the
    /// booted system each send another one, and are one machine with one address.
    pub client_id: Option<Vec<u8>>,
    /// Option 60, as sent.
    pub vendor_class: Vec<u8>,
    /// Option 77, as sent.
    pub user_class: Vec<u8>,
    /// Option 93, or what option 60 says after `Arch:` where there is no 93.
    pub archs: Vec<u16>,
    /// Option 97, as sent. Firmware compares the echo, so even a malformed one goes back whole.
    pub guid: Option<Vec<u8>>,
    /// Option 94: type, major, minor.
    pub ndi: Option<[u8; 3]>,
    /// Option 55: empty when it did not say.
    pub wanted: Vec<u8>,
    /// Option 57.
    pub max_size: Option<u16>,
    /// Option 82, as sent.
    pub relay_info: Option<Vec<u8>>,
    /// Option 12, where it is text.
    pub hostname: Option<String>,
    /// Option 175, as sent.
    pub ipxe: Option<Vec<u8>>,
}

impl Request {
    /// Reads a datagram. Tolerant where machines are known to be odd (93, 94, 97, 12, 60, 77),
    /// strict where an exchange hangs on it (50, 53, 54).
    pub fn decode(datagram: &[u8]) -> Result<Request, BadPacket> {
        let packet = Packet::decode(datagram)?;
        if packet.op != BOOTREQUEST {
            return Err(BadPacket::NotARequest(packet.op));
        }
        let mac = match packet.chaddr {
            [a, b, c, d, e, f, ..] if packet.hlen == 6 => Mac([a, b, c, d, e, f]),
            _ => return Err(BadPacket::NoMac { htype: packet.htype, hlen: packet.hlen }),
        };
        if mac.is_multicast() || mac == Mac([0; 6]) {
            return Err(BadPacket::NoMac { htype: packet.htype, hlen: packet.hlen });
        }
        let options = &packet.options;
        let kind = match options.get(code::MESSAGE_TYPE) {
            None => return Err(BadPacket::NoMessageType),
            Some(_) => match options.fixed::<1>(code::MESSAGE_TYPE) {
                None => return Err(BadPacket::OptionLength(code::MESSAGE_TYPE)),
                Some([1]) => MessageType::Discover,
                Some([3]) => MessageType::Request,
                Some([4]) => MessageType::Decline,
                Some([7]) => MessageType::Release,
                Some([8]) => MessageType::Inform,
                Some([other]) => return Err(BadPacket::MessageType(other)),
            },
        };
        let vendor_class = options.get(code::VENDOR_CLASS).unwrap_or_default().to_vec();
        let mut archs: Vec<u16> = options
            .get(code::ARCH)
            .unwrap_or_default()
            .as_chunks::<2>()
            .0
            .iter()
            .map(|pair| u16::from_be_bytes(*pair))
            .collect();
        if archs.is_empty() {
            archs.extend(arch_in_words(&vendor_class));
        }
        Ok(Request {
            heard: Heard::default(),
            kind,
            mac,
            htype: packet.htype,
            chaddr: packet.chaddr,
            xid: packet.xid,
            secs: packet.secs,
            broadcast: packet.broadcast,
            ciaddr: packet.ciaddr,
            giaddr: packet.giaddr,
            requested: needed_address(options, code::REQUESTED_ADDRESS)?,
            server_id: needed_address(options, code::SERVER_ID)?,
            client_id: options.get(code::CLIENT_ID).map(<[u8]>::to_vec),
            vendor_class,
            user_class: options.get(code::USER_CLASS).unwrap_or_default().to_vec(),
            archs,
            guid: options.get(code::GUID).map(<[u8]>::to_vec),
            ndi: options.fixed::<3>(code::NDI),
            wanted: options.get(code::PARAMETERS).unwrap_or_default().to_vec(),
            max_size: options.fixed::<2>(code::MAX_SIZE).map(u16::from_be_bytes),
            relay_info: options.get(code::RELAY_INFO).map(<[u8]>::to_vec),
            hostname: options.get(code::HOST_NAME).and_then(text),
            ipxe: options.get(code::IPXE).map(<[u8]>::to_vec),
        })
    }

    /// A message with nothing in it but its kind and its sender, to fill in: for tests and for
    /// questions such as `explain`.
    pub fn bare(kind: MessageType, mac: Mac) -> Request {
        let mut chaddr = [0; 16];
        chaddr[..6].copy_from_slice(&mac.0);
        Request {
            heard: Heard::default(),
            kind,
            mac,
            htype: 1,
            chaddr,
            xid: 0,
            secs: 0,
            broadcast: false,
            ciaddr: Ipv4Addr::UNSPECIFIED,
            giaddr: Ipv4Addr::UNSPECIFIED,
            requested: None,
            server_id: None,
            client_id: None,
            vendor_class: Vec::new(),
            user_class: Vec::new(),
            archs: Vec::new(),
            guid: None,
            ndi: None,
            wanted: Vec::new(),
            max_size: None,
            relay_info: None,
            hostname: None,
            ipxe: None,
        }
    }

    /// What a lease is kept under.
    pub fn key(&self) -> ClientKey {
        ClientKey { htype: self.htype, mac: self.mac }
    }

    /// iPXE, from whatever it was started. It writes its user class as a bare word; RFC 3004 wants
    /// each class behind its length, and some builds do that.
    pub fn is_ipxe(&self) -> bool {
        self.user_classes().any(|class| class == b"iPXE")
    }

    /// The user classes, in either spelling.
    pub fn user_classes(&self) -> impl Iterator<Item = &[u8]> {
        let mut prefixed = Vec::new();
        let mut rest = self.user_class.as_slice();
        while let [length, tail @ ..] = rest {
            let Some((class, tail)) = tail.split_at_checked(usize::from(*length)) else { break };
            prefixed.push(class);
            rest = tail;
        }
        if !rest.is_empty() {
            prefixed = vec![self.user_class.as_slice()];
        }
        prefixed.into_iter()
    }

    /// What option 60 makes of it.
    pub fn vendor(&self) -> Vendor {
        match self.vendor_class.as_slice() {
            [] => Vendor::None,
            class if class.starts_with(b"PXEClient") => Vendor::Pxe,
            class if class.starts_with(b"HTTPClient") => Vendor::Http,
            _ => Vendor::Other,
        }
    }

    /// The machine's UUID as it stands in SMBIOS, where option 97 is well formed: type 0 and 16
    /// bytes. Much firmware sends all zeros or all ones, and some sends no type.
    pub fn uuid(&self) -> Option<[u8; 16]> {
        let uuid = match self.guid.as_deref()? {
            [0, uuid @ ..] if uuid.len() == 16 => *uuid.first_chunk::<16>()?,
            _ => return None,
        };
        (uuid != [0; 16] && uuid != [255; 16]).then_some(uuid)
    }

    /// Whether it asked for an option; a client without option 55 gets all we have.
    pub fn wants(&self, code: u8) -> bool {
        self.wanted.is_empty() || self.wanted.contains(&code)
    }

    /// It came through a relay.
    pub fn relayed(&self) -> bool {
        !self.giaddr.is_unspecified()
    }
}

fn needed_address(options: &Options, code: u8) -> Result<Option<Ipv4Addr>, BadPacket> {
    match (options.get(code), options.address(code)) {
        (None, _) => Ok(None),
        (Some(_), Some(address)) => Ok(Some(address)),
        (Some(_), None) => Err(BadPacket::OptionLength(code)),
    }
}

/// `PXEClient:Arch:00007:UNDI:003016`: old ROMs say their architecture here alone.
fn arch_in_words(vendor_class: &[u8]) -> Option<u16> {
    let text = std::str::from_utf8(vendor_class).ok()?;
    let digits = text.split_once(":Arch:")?.1.split(':').next()?;
    digits.parse().ok()
}

/// A host name as text. Windows of old ends it with a NUL.
fn text(value: &[u8]) -> Option<String> {
    let value = value.split(|byte| *byte == 0).next()?;
    let name = std::str::from_utf8(value).ok()?;
    (!name.is_empty() && name.chars().all(|c| c.is_ascii_graphic())).then(|| name.to_string())
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
