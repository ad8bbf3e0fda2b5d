//! Requests and answers as a reviewer reads them: what they mean, and then their very bytes.

use std::fmt::Write;

use koboshi_pxe::dhcp::{Destination, MessageType, Outgoing, Packet, Request};
use koboshi_pxe::mac::Mac;

/// Bytes in hexadecimal, 32 a line.
pub fn hex(bytes: &[u8], text: &mut String) {
    for line in bytes.chunks(32) {
        text.push_str("   ");
        for four in line.chunks(4) {
            text.push(' ');
            four.iter().for_each(|byte| write!(text, "{byte:02x}").expect("memory"));
        }
        text.push('\n');
    }
}

/// A text, each of its lines set in.
pub fn lines(said: &str, text: &mut String) {
    for line in said.lines() {
        let gap = if line.is_empty() { "" } else { "    " };
        writeln!(text, "{gap}{}", line.replace(char::is_control, "\u{fffd}")).expect("memory");
    }
}

/// Bytes as text where they are one, in hexadecimal otherwise.
fn value(bytes: &[u8]) -> String {
    let plain = bytes.len() > 4 && bytes.iter().all(|byte| (0x20..0x7f).contains(byte));
    match plain {
        true => format!("{:?}", String::from_utf8_lossy(bytes)),
        false => bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
    }
}

/// A message of a client, in short: the bytes are in the capture.
pub fn asked(request: &Request, datagram: &[u8]) -> String {
    let packet = Packet::decode(datagram).expect("it was a request");
    let codes: Vec<String> = packet.options.iter().map(|(code, _)| code.to_string()).collect();
    let (kind, xid, secs) = (format!("{:?}", request.kind).to_uppercase(), packet.xid, packet.secs);
    let (length, broadcast) = (datagram.len(), if packet.broadcast { ", broadcast" } else { "" });
    let codes = codes.join(" ");
    format!("DHCP {kind} xid {xid:08x}, {secs} s{broadcast}, {length} bytes, options {codes}")
}

/// A message of ours.
pub fn answered(out: &Outgoing, text: &mut String) {
    let packet = Packet::decode(&out.bytes).expect("ours");
    let kind = packet.options.get(53).and_then(|kind| kind.first().copied());
    let kind = match kind {
        Some(2) => MessageType::Offer,
        Some(5) => MessageType::Ack,
        Some(6) => MessageType::Nak,
        other => panic!("no server says {other:?}"),
    };
    let way = match out.destination {
        Destination::Relay(relay) => format!("to the relay {relay}"),
        Destination::Client(address) => format!("to {address}"),
        Destination::Proxy(address) => format!("from port 4011 to {address}"),
        Destination::Broadcast => "to all".to_string(),
        Destination::Frame { mac, ip } => format!("to {ip} at {mac}"),
    };
    let kind = format!("{kind:?}").to_uppercase();
    let mut line = |said: String| writeln!(text, "{said}").expect("memory");
    line(format!("  {kind} {way}, {} bytes", out.bytes.len()));
    let Packet { op, htype, hlen, hops, xid, secs, broadcast, .. } = packet;
    line(format!(
        "    op {op} htype {htype} hlen {hlen} hops {hops} xid {xid:08x} secs {secs} broadcast {broadcast}"
    ));
    let Packet { ciaddr, yiaddr, siaddr, giaddr, .. } = packet;
    line(format!("    ciaddr {ciaddr} yiaddr {yiaddr} siaddr {siaddr} giaddr {giaddr}"));
    let [a, b, c, d, e, f, ..] = packet.chaddr;
    let file = String::from_utf8_lossy(&packet.file);
    line(format!("    chaddr {} file {file:?}", Mac([a, b, c, d, e, f])));
    for (code, bytes) in packet.options.iter() {
        line(format!("    option {code}: {}", value(bytes)));
    }
    hex(&out.bytes, text);
}
