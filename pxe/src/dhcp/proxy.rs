//! Beside somebody else's DHCP server (PXE 2.1, section 2.2.3): that server lends the address, we
//! add what to boot. Never an address, never an ACK on port 67, never a NAK.
//!
//! What each kind of client makes of it: EDK2 and Intel's ROMs take the boot file from this offer,
//! because option 43 tells them that there is nothing to discover; older ROMs ask port 4011 for it;
//! iPXE takes the file of an offer that has one and asks port 4011 otherwise.

use std::net::{Ipv4Addr, SocketAddrV4};

use super::answer::Proxying;
use super::event::{Event, EventKind};
use super::options::code;
use super::reply::{Destination, Fitting, NO_DISCOVERY, Outgoing, envelope};
use super::request::{MessageType, Request, Vendor};
use super::server::{Effect, Effects, Server};

impl Server {
    /// One message of a client whose address another server lends.
    pub(super) fn beside(&mut self, request: &Request, proxying: &Proxying, out: &mut Effects) {
        // Only those that look for a boot file understand an offer without an address.
        let boots = matches!(request.vendor(), Vendor::Pxe | Vendor::Http);
        let boot_file = Some(proxying.boot.name.clone());
        match (request.kind, request.heard.proxy_port) {
            (MessageType::Discover, false) if boots => {
                self.counters.discovers += 1;
                self.counters.offers += 1;
                out.push(Effect::Send(offer(request, MessageType::Offer, proxying)));
                out.push(Effect::Tell(Event::of(
                    request,
                    EventKind::ProxyOffered,
                    None,
                    boot_file,
                )));
            }
            // RFC 2131 3.1: broadcast, so that every server hears whose offer was taken.
            (MessageType::Request, false) if boots => {
                self.counters.requests += 1;
                let address = request.requested.or(has(request.ciaddr));
                let kind = EventKind::LentElsewhere { by: request.server_id };
                out.push(Effect::Tell(Event::of(request, kind, address, None)));
            }
            (MessageType::Request | MessageType::Inform, true) if boots => {
                self.counters.requests += 1;
                let Some(address) = has(request.heard.from).or(has(request.ciaddr)) else {
                    self.counters.ignored += 1;
                    return;
                };
                self.counters.acks += 1;
                out.push(Effect::Send(offer(request, MessageType::Ack, proxying)));
                let kind = EventKind::ProxyAcked;
                out.push(Effect::Tell(Event::of(request, kind, Some(address), boot_file)));
            }
            _ => self.counters.ignored += 1,
        }
    }
}

fn offer(request: &Request, kind: MessageType, proxying: &Proxying) -> Outgoing {
    let Proxying { subnet, boot } = proxying;
    let mut packet = envelope(request);
    packet.ciaddr = request.ciaddr;
    packet.siaddr = boot.next_server;
    packet.file = boot.name.as_bytes().to_vec();
    let mut out = Fitting::new(request);
    out.must(code::MESSAGE_TYPE, &[kind as u8]);
    out.must(code::SERVER_ID, &subnet.server.octets());
    // The word by which a client knows an offer without an address for what it is.
    match request.vendor() {
        Vendor::Http => out.may(code::VENDOR_CLASS, b"HTTPClient"),
        _ => out.may(code::VENDOR_CLASS, b"PXEClient"),
    }
    if request.vendor() == Vendor::Pxe {
        out.may(code::VENDOR, &NO_DISCOVERY);
    }
    if let Some(guid) = &request.guid {
        out.may(code::GUID, guid);
    }
    if let Some(id) = &request.client_id {
        out.may(code::CLIENT_ID, id);
    }
    out.may(code::BOOT_FILE, boot.name.as_bytes());
    out.may(code::TFTP_SERVER, boot.next_server.to_string().as_bytes());
    packet.options = out.finish();
    let heard = request.heard;
    let destination = if heard.proxy_port {
        let to = has(heard.from).unwrap_or(request.ciaddr);
        Destination::Proxy(SocketAddrV4::new(to, heard.from_port))
    } else if request.relayed() {
        Destination::Relay(request.giaddr)
    } else if let Some(ciaddr) = has(request.ciaddr) {
        Destination::Client(ciaddr)
    } else {
        Destination::Broadcast
    };
    Outgoing { wire: subnet.wire, destination, source: subnet.server, bytes: packet.encode() }
}

fn has(address: Ipv4Addr) -> Option<Ipv4Addr> {
    (!address.is_unspecified()).then_some(address)
}
