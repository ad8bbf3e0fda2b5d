//! No message in any state brings the server down.

use proptest::prelude::*;

use super::*;

prop_compose! {
    fn any_request()(
        kind in prop::sample::select(vec![
            MessageType::Discover, MessageType::Request, MessageType::Decline,
            MessageType::Release, MessageType::Inform, MessageType::Offer,
        ]),
        (who, xid, broadcast) in (0..4u16, any::<u32>(), any::<bool>()),
        (ciaddr, giaddr) in (any_address(), any_address()),
        (requested, server_id) in
            (prop::option::of(any_address()), prop::option::of(any_address())),
        max_size in any::<Option<u16>>(),
        (client_id, guid, relay_info) in (any_bytes(), any_bytes(), any_bytes()),
        vendor in prop::sample::select(vec!["", "PXEClient:Arch:00007", "HTTPClient", "MSFT"]),
    ) -> Request {
        let mut request = Request::bare(kind, mac(who));
        (request.xid, request.broadcast, request.max_size) = (xid, broadcast, max_size);
        (request.ciaddr, request.giaddr) = (ciaddr, giaddr);
        (request.requested, request.server_id) = (requested, server_id);
        (request.client_id, request.guid, request.relay_info) = (client_id, guid, relay_info);
        request.vendor_class = vendor.into();
        request
    }
}

fn any_bytes() -> impl Strategy<Value = Option<Vec<u8>>> {
    prop::option::of(prop::collection::vec(any::<u8>(), 0..1200))
}

fn any_address() -> impl Strategy<Value = Ipv4Addr> {
    prop_oneof![
        2 => Just(Ipv4Addr::UNSPECIFIED),
        2 => Just(SERVER),
        4 => (199..205u8).prop_map(at),
        1 => any::<u32>().prop_map(Ipv4Addr::from),
    ]
}

proptest! {
    /// No message in any state brings it down or makes it say what is no message.
    #[test]
    fn any_message_at_any_time(requests in prop::collection::vec(any_request(), 1..40)) {
        let mut rig = Rig::new(200..=203);
        rig.seats.insert(mac(0), at(201));
        for request in requests {
            for effect in rig.run(&request) {
                if let Effect::Send(out) = effect {
                    prop_assert!((300..=1472).contains(&out.bytes.len()));
                    let packet = Packet::decode(&out.bytes).expect("ours is well formed");
                    prop_assert_eq!(packet.xid, request.xid);
                    prop_assert_eq!(packet.options.get(54), Some(&SERVER.octets()[..]));
                }
            }
            rig.pass(7);
        }
        prop_assert!(rig.disk.leases.len() <= 4);
    }
}
