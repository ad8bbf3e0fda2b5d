use std::cell::RefCell;
use std::sync::Arc;

use super::*;
use crate::dhcp::{Address, EventKind, Kept, MessageType, Serving, Subnet, Who};

/// A burst of machines whose leases are written down together, between two turns of the sockets.
#[test]
fn what_is_written_together_is_acknowledged_together() {
    let mut subnet = Subnet::new(Ipv4Addr::new(192, 168, 9, 9), Ipv4Addr::new(10, 0, 0, 0), 16);
    subnet.pool = Some(Ipv4Addr::new(10, 0, 1, 0)..=Ipv4Addr::new(10, 0, 4, 255));
    let subnet = Arc::new(subnet);
    let (journal, mut writes) = mpsc::channel(1024);
    let (offered, acked) = (RefCell::new(Vec::new()), RefCell::new(0));
    let mut driver = Driver {
        wires: Vec::new(),
        server: Server::restore(Kept::default(), Now::read()),
        desk: |_: &Request| Answer::Silence,
        tell: |event: Event| match event.kind {
            EventKind::Offered => offered.borrow_mut().push((event.mac, event.address)),
            EventKind::Acked => *acked.borrow_mut() += 1,
            other => panic!("{other:?}"),
        },
        journal,
        probes: Vec::new(),
        looks: Vec::new(),
        commits: FuturesUnordered::new(),
        overruns: Vec::new(),
        lost: Lost::default(),
    };
    let serving = Serving {
        address: Address::Pool,
        subnet,
        hostname: None,
        boot: None,
        who: Who::Machine,
        macs: Vec::new(),
        runs: false,
    };
    let mut ask = |request: Request| {
        let answer = Answer::Serve(serving.clone());
        let effects = driver.server.handle(&request, answer, Now::read());
        driver.perform(effects);
    };
    for number in 0..300_u16 {
        let [high, low] = number.to_be_bytes();
        ask(Request::bare(MessageType::Discover, Mac([2, 0, 0, 0, high, low])));
    }
    for (mac, requested) in offered.take() {
        let server_id = Some(serving.subnet.server);
        ask(Request { requested, server_id, ..Request::bare(MessageType::Request, mac) });
    }
    let mut puts = 0;
    while let Ok(write) = writes.try_recv() {
        puts += usize::from(matches!(write.change, LeaseChange::Put(_)));
        write.done.send(true).expect("somebody waits");
    }
    assert_eq!((puts, *acked.borrow()), (300, 0));
    driver.all_committed();
    let first = *acked.borrow();
    assert!((BATCH / 2..=BATCH).contains(&first), "{first}");
    driver.all_committed();
    assert_eq!(*acked.borrow(), 300);
    assert!(driver.commits.is_empty());
    driver.all_committed();
}

#[tokio::test]
async fn a_clock_set_just_before_the_end_is_known_to_the_next_one() {
    let now = Now::read();
    let server = Server::restore(Kept::default(), Now { wall: now.wall - 1000, ..now });
    let (journal, mut writes) = mpsc::channel(1);
    let (_control, controls) = mpsc::channel(1);
    let cancel = CancellationToken::new();
    cancel.cancel();
    let desk = |_: &Request| Answer::Silence;
    let served = serve(Vec::new(), server, desk, drop::<Event>, journal, controls, cancel);
    served.await.expect("it ends in good order");
    let write = writes.recv().await.expect("one change");
    assert!(matches!(write.change, LeaseChange::Clock(set) if set.is >= now.wall));
}

#[test]
fn what_is_lost_is_told_together() {
    let (start, mut lost) = (Instant::now(), Lost::default());
    let at = |ms| start + Duration::from_millis(ms);
    let told: Vec<u64> = (0..25_000).filter_map(|ms| lost.another(at(ms))).collect();
    assert_eq!(told, [1, 10_000, 10_000]);
}

/// The appliance spawns it.
#[test]
fn serving_moves_between_threads() {
    fn is_send<T: Send>(_: impl FnOnce(Wire, Server) -> T) {}
    is_send(|wire, server| {
        let (journal, _) = mpsc::channel(1);
        let (_, control) = mpsc::channel(1);
        let desk = |_: &Request| Answer::Silence;
        serve(vec![wire], server, desk, drop::<Event>, journal, control, CancellationToken::new())
    });
}
