//! What we say: which options an OFFER, ACK or NAK carries and where it goes. Everything here is
//! something that some firmware insists on.

use std::net::{Ipv4Addr, SocketAddrV4};

use super::answer::{Serving, Subnet};
use super::options::{Options, code, cost};
use super::packet::{BOOTREPLY, LARGEST, Packet};
use super::request::{MessageType, Request, Vendor};
use crate::Mac;

/// RFC 2132 9.10: nobody may be sent less than this is good for; 28 bytes of it are IP and UDP.
const LEAST_SIZE: u16 = 576;
const IP_AND_UDP: usize = 28;
/// Header, cookie and END.
const FRAME: usize = 241;
/// PXE 2.1, option 43: sub-option 6, discovery control, bit 3 set: load the boot file that this
/// offer names, no boot-server discovery, no menu. Then the end.
pub(super) const NO_DISCOVERY: [u8; 4] = [6, 1, 8, 255];
/// iPXE `no-pxedhcp` (176): otherwise it waits for a ProxyDHCP offer before it takes ours.
const NO_PXEDHCP: [u8; 3] = [176, 1, 1];
/// A seat's address never expires (S10). Such a lease has no T1 and T2: some clients compute
/// with them and overflow.
pub const FOR_EVER: u32 = u32::MAX;

/// Where a message goes, RFC 2131 4.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Destination {
    /// To the relay, on the server's port.
    Relay(Ipv4Addr),
    /// To a client that has its address already, through the kernel.
    Client(Ipv4Addr),
    /// From the ProxyDHCP port to whoever asked there.
    Proxy(SocketAddrV4),
    /// To 255.255.255.255.
    Broadcast,
    /// A frame to a client that does not answer ARP yet.
    Frame {
        /// Hardware address.
        mac: Mac,
        /// The address it is being given.
        ip: Ipv4Addr,
    },
}

/// A datagram to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// By which of the interfaces served.
    pub wire: usize,
    /// Where to.
    pub destination: Destination,
    /// Our address as this client's network knows it.
    pub source: Ipv4Addr,
    /// The DHCP message.
    pub bytes: Vec<u8>,
}

/// OFFER or ACK of an address for so many seconds; the ACK of an INFORM has neither.
pub(super) fn grant(
    request: &Request,
    kind: MessageType,
    serving: &Serving,
    lent: Option<(Ipv4Addr, u32)>,
) -> Outgoing {
    let mut packet = envelope(request);
    packet.ciaddr = if kind == MessageType::Ack { request.ciaddr } else { Ipv4Addr::UNSPECIFIED };
    packet.yiaddr = lent.map_or(Ipv4Addr::UNSPECIFIED, |(address, _)| address);
    if let Some(boot) = &serving.boot {
        packet.siaddr = boot.next_server;
        packet.file = boot.name.as_bytes().to_vec();
    }
    let mut out = Fitting::new(request);
    out.must(code::MESSAGE_TYPE, &[kind as u8]);
    out.must(code::SERVER_ID, &serving.subnet.server.octets());
    if let Some((_, seconds)) = lent {
        out.must(code::LEASE_TIME, &seconds.to_be_bytes());
        if seconds != FOR_EVER {
            out.must(code::RENEWAL_TIME, &(seconds / 2).to_be_bytes());
            out.must(code::REBINDING_TIME, &(seconds - seconds / 8).to_be_bytes());
        }
    }
    boot_options(request, serving, &mut out);
    network_options(request, serving, &mut out);
    packet.options = out.finish();
    let destination = if request.relayed() {
        Destination::Relay(request.giaddr)
    } else if !request.ciaddr.is_unspecified() {
        Destination::Client(request.ciaddr)
    } else if request.broadcast || packet.yiaddr.is_unspecified() {
        Destination::Broadcast
    } else {
        Destination::Frame { mac: request.mac, ip: packet.yiaddr }
    };
    let Subnet { wire, server: source, .. } = *serving.subnet;
    Outgoing { wire, destination, source, bytes: packet.encode() }
}

/// NAK. Always broadcast on our own link: the client may hold an address of another network, and
/// a relay is told to broadcast too (RFC 2131 4.1, 4.3.2).
pub(super) fn nak(request: &Request, subnet: &Subnet, because: &str) -> Outgoing {
    let mut packet = envelope(request);
    packet.broadcast = request.broadcast || request.relayed();
    let mut out = Fitting::new(request);
    out.must(code::MESSAGE_TYPE, &[MessageType::Nak as u8]);
    out.must(code::SERVER_ID, &subnet.server.octets());
    if let Some(id) = &request.client_id {
        out.may(code::CLIENT_ID, id);
    }
    out.may(code::MESSAGE, because.as_bytes());
    packet.options = out.finish();
    let destination =
        if request.relayed() { Destination::Relay(request.giaddr) } else { Destination::Broadcast };
    Outgoing { wire: subnet.wire, destination, source: subnet.server, bytes: packet.encode() }
}

pub(super) fn envelope(request: &Request) -> Packet {
    Packet {
        op: BOOTREPLY,
        htype: request.htype,
        hlen: 6,
        hops: 0,
        xid: request.xid,
        secs: 0,
        broadcast: request.broadcast,
        ciaddr: Ipv4Addr::UNSPECIFIED,
        yiaddr: Ipv4Addr::UNSPECIFIED,
        siaddr: Ipv4Addr::UNSPECIFIED,
        giaddr: request.giaddr,
        chaddr: request.chaddr,
        file: Vec::new(),
        options: Options::default(),
    }
}

/// What a machine boots by.
fn boot_options(request: &Request, serving: &Serving, out: &mut Fitting) {
    out.may(code::SUBNET_MASK, &serving.subnet.mask().octets());
    if let Some(gateway) = serving.subnet.gateway {
        out.may(code::ROUTER, &gateway.octets());
    }
    // RFC 6842: also to those who did not ask for it.
    if let Some(id) = &request.client_id {
        out.may(code::CLIENT_ID, id);
    }
    // Firmware drops offers that do not repeat its UUID, as it sent it.
    if let Some(guid) = &request.guid {
        out.may(code::GUID, guid);
    }
    let Some(boot) = &serving.boot else { return };
    match request.vendor() {
        Vendor::Pxe => out.may(code::VENDOR_CLASS, b"PXEClient"),
        Vendor::Http => out.may(code::VENDOR_CLASS, b"HTTPClient"),
        Vendor::Other | Vendor::None => {}
    }
    if request.vendor() == Vendor::Pxe && !request.is_ipxe() {
        out.may(code::VENDOR, &NO_DISCOVERY);
    }
    if request.is_ipxe() {
        out.may(code::IPXE, &NO_PXEDHCP);
    }
    // Both here and in the header: each half of the world reads one of them only.
    out.may(code::BOOT_FILE, boot.name.as_bytes());
    out.may(code::TFTP_SERVER, boot.next_server.to_string().as_bytes());
}

/// What a running system asks for as well.
fn network_options(request: &Request, serving: &Serving, out: &mut Fitting) {
    let subnet = &serving.subnet;
    let list = |addresses: &[Ipv4Addr]| -> Vec<u8> {
        addresses.iter().flat_map(|address| address.octets()).collect()
    };
    let mut offer = |code: u8, value: &[u8]| {
        if !value.is_empty() && request.wants(code) {
            out.may(code, value);
        }
    };
    offer(code::DNS, &list(&subnet.dns));
    offer(code::HOST_NAME, serving.hostname.as_deref().unwrap_or_default().as_bytes());
    offer(code::DOMAIN, subnet.domain.as_deref().unwrap_or_default().as_bytes());
    offer(code::NTP, &list(&subnet.ntp));
    offer(code::MTU, subnet.mtu.map(u16::to_be_bytes).as_ref().map_or(&[], |mtu| &mtu[..]));
    offer(code::BROADCAST, &subnet.broadcast().octets());
    for (code, value) in &subnet.options {
        offer(*code, value);
    }
}

/// Options within what the client can take, the most needed first; the relay's own goes last
/// (RFC 3046 2.2) and is not the client's to hold.
pub(super) struct Fitting {
    options: Options,
    left: usize,
    relay: Option<Vec<u8>>,
}

impl Fitting {
    pub(super) fn new(request: &Request) -> Fitting {
        let size = usize::from(request.max_size.unwrap_or(LEAST_SIZE).max(LEAST_SIZE));
        let relay = request.relay_info.clone();
        // The echo has its room in any case: an agent drops what comes back without it.
        let echo = relay.as_deref().map_or(0, cost);
        let left = (size - IP_AND_UDP).min(LARGEST.saturating_sub(echo)).saturating_sub(FRAME);
        Fitting { options: Options::default(), left, relay }
    }

    /// The first few, which always fit.
    pub(super) fn must(&mut self, code: u8, value: &[u8]) {
        self.left = self.left.saturating_sub(cost(value));
        self.options.push(code, value);
    }

    /// If there is room and nobody was before us.
    pub(super) fn may(&mut self, code: u8, value: &[u8]) {
        let ours = matches!(code, code::OVERLOAD | code::RELAY_INFO);
        if !ours && self.options.get(code).is_none() && cost(value) <= self.left {
            self.must(code, value);
        }
    }

    pub(super) fn finish(mut self) -> Options {
        let used: usize = self.options.iter().map(|(_, value)| cost(value)).sum();
        if let Some(relay) = self.relay
            && FRAME + used + cost(&relay) <= LARGEST
        {
            self.options.push(code::RELAY_INFO, &relay);
        }
        self.options
    }
}

#[cfg(test)]
#[path = "reply_tests.rs"]
mod tests;
