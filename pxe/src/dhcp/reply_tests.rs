//! Replies, read back as a client would.

use std::sync::Arc;

use super::*;
use crate::dhcp::answer::{Address, BootFile, Subnet, Who};

const SERVER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 11);

fn serving(boot: Option<&str>) -> Serving {
    let mut subnet = Subnet::new(SERVER, Ipv4Addr::new(10, 77, 0, 0), 24);
    subnet.gateway = Some(Ipv4Addr::new(10, 77, 0, 1));
    subnet.dns = vec![Ipv4Addr::new(10, 77, 0, 1), Ipv4Addr::new(10, 77, 0, 3)];
    subnet.ntp = vec![Ipv4Addr::new(10, 77, 0, 4)];
    subnet.domain = Some("dc.example".into());
    subnet.mtu = Some(1400);
    subnet.options = vec![(53, vec![9]), (52, vec![3]), (82, vec![1]), (100, b"JST-9".to_vec())];
    Serving {
        address: Address::Fixed(CLIENT),
        subnet: Arc::new(subnet),
        hostname: Some("web1".into()),
        boot: boot.map(|name| BootFile { name: name.into(), next_server: SERVER }),
        who: Who::Machine,
        macs: Vec::new(),
        runs: false,
    }
}

fn discover() -> Request {
    let mut request = Request::bare(MessageType::Discover, Mac([0x52, 0x54, 0, 0x77, 0, 1]));
    request.xid = 0xabcd;
    request.max_size = Some(1472);
    request
}

fn firmware() -> Request {
    let mut request = discover();
    request.vendor_class = b"PXEClient:Arch:00007:UNDI:003016".to_vec();
    request.archs = vec![7];
    request.guid = Some(vec![0; 17]);
    request
}

fn offer(request: &Request, serving: &Serving) -> (Outgoing, Packet) {
    let out = grant(request, MessageType::Offer, serving, Some((CLIENT, FOR_EVER)));
    let packet = Packet::decode(&out.bytes).expect("ours is well formed");
    (out, packet)
}

fn codes(packet: &Packet) -> Vec<u8> {
    packet.options.iter().map(|(code, _)| code).collect()
}

#[test]
fn firmware_is_told_its_boot_file_in_both_places() {
    let (out, packet) = offer(&firmware(), &serving(Some("ipxe.efi")));
    assert_eq!(out.source, SERVER);
    assert_eq!((packet.op, packet.xid, packet.yiaddr), (BOOTREPLY, 0xabcd, CLIENT));
    assert_eq!((packet.siaddr, packet.file.as_slice()), (SERVER, &b"ipxe.efi"[..]));
    assert_eq!(packet.options.get(67), Some(&b"ipxe.efi"[..]));
    assert_eq!(packet.options.get(66), Some(&b"10.77.0.2"[..]));
    assert_eq!(packet.options.get(60), Some(&b"PXEClient"[..]));
    assert_eq!(packet.options.get(43), Some(&[6, 1, 8, 255][..]));
    assert_eq!(packet.options.get(97), Some(&[0; 17][..]));
    assert_eq!(packet.options.get(175), None);
    assert_eq!(codes(&packet)[..3], [53, 54, 51]);
    assert_eq!(packet.options.get(53), Some(&[2][..]), "the site's own 53 does not count");
    assert_eq!(packet.options.get(51), Some(&[255; 4][..]));
    assert_eq!((packet.options.get(58), packet.options.get(59)), (None, None));
}

#[test]
fn the_network_is_described() {
    let (_, packet) = offer(&discover(), &serving(None));
    for (code, value) in [
        (1, &[255, 255, 255, 0][..]),
        (3, &[10, 77, 0, 1]),
        (6, &[10, 77, 0, 1, 10, 77, 0, 3]),
        (12, b"web1"),
        (15, b"dc.example"),
        (26, &[5, 120]),
        (28, &[10, 77, 0, 255]),
        (42, &[10, 77, 0, 4]),
        (100, b"JST-9"),
    ] {
        assert_eq!(packet.options.get(code), Some(value), "option {code}");
    }
    for code in [43, 60, 66, 67, 82, 97, 175] {
        assert_eq!(packet.options.get(code), None, "option {code}");
    }
    assert_eq!(packet.siaddr, Ipv4Addr::UNSPECIFIED);
}

#[test]
fn only_what_was_asked_for_where_something_was() {
    let mut request = discover();
    request.wanted = vec![1, 3, 42];
    let (_, packet) = offer(&request, &serving(None));
    assert_eq!(codes(&packet), [53, 54, 51, 1, 3, 42]);
}

#[test]
fn ipxe_need_not_wait_for_proxy_dhcp() {
    let mut request = firmware();
    request.user_class = b"iPXE".to_vec();
    let (_, packet) = offer(&request, &serving(Some("http://10.77.0.2:8080/boot/x.ipxe")));
    assert_eq!(packet.options.get(175), Some(&[176, 1, 1][..]));
    assert_eq!(packet.options.get(43), None);
}

#[test]
fn http_boot_gets_its_word_back() {
    let mut request = firmware();
    request.vendor_class = b"HTTPClient:Arch:00016:UNDI:003016".to_vec();
    let (_, packet) = offer(&request, &serving(Some("http://10.77.0.2:8080/ipxe.efi")));
    assert_eq!(packet.options.get(60), Some(&b"HTTPClient"[..]));
    assert_eq!(packet.options.get(43), None);
    assert_eq!(packet.options.get(67), Some(&b"http://10.77.0.2:8080/ipxe.efi"[..]));
}

#[test]
fn a_url_of_any_length_arrives_whole() {
    let url = format!("http://10.77.0.2/{}", "a".repeat(400));
    let (_, packet) = offer(&firmware(), &serving(Some(&url)));
    assert_eq!(packet.options.get(67), Some(url.as_bytes()));
    assert_eq!(packet.file, b"");
}

#[test]
fn a_pool_lease_has_t1_and_t2() {
    let out = grant(&discover(), MessageType::Ack, &serving(None), Some((CLIENT, 3600)));
    let packet = Packet::decode(&out.bytes).expect("ours");
    assert_eq!(packet.options.get(51), Some(&3600u32.to_be_bytes()[..]));
    assert_eq!(packet.options.get(58), Some(&1800u32.to_be_bytes()[..]));
    assert_eq!(packet.options.get(59), Some(&3150u32.to_be_bytes()[..]));
}

#[test]
fn the_relays_option_goes_last_and_the_clients_id_back() {
    let mut request = firmware();
    request.relay_info = Some(vec![1, 4, 0, 0, 0, 9]);
    request.client_id = Some(vec![255, 1, 2]);
    request.giaddr = Ipv4Addr::new(10, 99, 0, 1);
    let (out, packet) = offer(&request, &serving(Some("x")));
    assert_eq!(codes(&packet).last(), Some(&82));
    assert_eq!(packet.options.get(82), Some(&[1, 4, 0, 0, 0, 9][..]));
    assert_eq!(packet.options.get(61), Some(&[255, 1, 2][..]));
    assert_eq!(out.destination, Destination::Relay(request.giaddr));
    assert_eq!(packet.giaddr, request.giaddr);
    let refusal = nak(&request, &serving(None).subnet, "no");
    let packet = Packet::decode(&refusal.bytes).expect("ours");
    assert_eq!(codes(&packet), [53, 54, 61, 56, 82]);
}

#[test]
fn never_more_than_the_client_takes_nor_less_than_a_relay_passes() {
    let url = "u".repeat(300);
    let mut big = serving(Some(&url));
    Arc::make_mut(&mut big.subnet).options = (100..=200).map(|c| (c, vec![1; 200])).collect();
    for (said, most) in [
        (None, 548),
        (Some(0), 548),
        (Some(576), 548),
        (Some(1024), 996),
        (Some(1472), 1444),
        (Some(1500), 1472),
        (Some(65535), 1472),
    ] {
        let mut request = firmware();
        request.max_size = said;
        request.client_id = Some(vec![9; 1200]);
        let (out, packet) = offer(&request, &big);
        assert!(out.bytes.len() <= most, "{said:?}: {} bytes", out.bytes.len());
        assert_eq!(codes(&packet)[..3], [53, 54, 51]);
        request.relay_info = Some(vec![7; 900]);
        let (out, packet) = offer(&request, &big);
        assert!(out.bytes.len() <= LARGEST);
        assert_eq!(packet.options.iter().last(), Some((82, &[7; 900][..])), "whole, and last");
    }
    assert_eq!(nak(&discover(), &serving(None).subnet, "").bytes.len(), 300);
}

#[test]
fn where_it_goes() {
    let (relay, ciaddr) = (Ipv4Addr::new(10, 99, 0, 1), Ipv4Addr::new(10, 77, 0, 9));
    let none = Ipv4Addr::UNSPECIFIED;
    let frame = Destination::Frame { mac: discover().mac, ip: CLIENT };
    for (giaddr, client, broadcast, grants, naks) in [
        (none, none, false, frame, Destination::Broadcast),
        (none, none, true, Destination::Broadcast, Destination::Broadcast),
        (none, ciaddr, false, Destination::Client(ciaddr), Destination::Broadcast),
        (none, ciaddr, true, Destination::Client(ciaddr), Destination::Broadcast),
        (relay, none, false, Destination::Relay(relay), Destination::Relay(relay)),
        (relay, ciaddr, true, Destination::Relay(relay), Destination::Relay(relay)),
    ] {
        let mut request = discover();
        (request.giaddr, request.ciaddr, request.broadcast) = (giaddr, client, broadcast);
        assert_eq!(offer(&request, &serving(None)).0.destination, grants);
        let refusal = nak(&request, &serving(None).subnet, "no");
        assert_eq!(refusal.destination, naks);
        let packet = Packet::decode(&refusal.bytes).expect("ours");
        assert_eq!(packet.broadcast, broadcast || giaddr != none, "RFC 2131 4.3.2");
        assert_eq!(packet.yiaddr, none);
    }
}
