use koboshi_pxe::Mac;
use koboshi_pxe::boots::Stage;

use super::*;

fn event(text: &str) -> Event {
    Event { id: 0, at: 1, kind: "test".into(), who: None, text: text.into() }
}

#[tokio::test]
async fn events_keep_their_order_and_their_ids_over_a_restart() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = Store::open(dir.path()).expect("a new state");
    for text in ["one", "two"] {
        store.append(event(text)).await.expect("queued").await.expect("written");
    }
    drop(store);
    // The writer lets go of the file a moment after the last clone.
    let store = loop {
        match Store::open(dir.path()) {
            Ok(store) => break store,
            Err(StoreError::Redb(_)) => thread::sleep(std::time::Duration::from_millis(5)),
            Err(error) => panic!("{error}"),
        }
    };
    let third = store.append(event("three")).await.expect("queued").await;
    assert_eq!(third.expect("written").id, 3);
    let texts = |events: Vec<Event>| events.into_iter().map(|e| e.text).collect::<Vec<_>>();
    assert_eq!(texts(store.events(0, 2).expect("read")), ["two", "three"]);
    assert_eq!(texts(store.events(1, 10).expect("read")), ["two", "three"]);
}

fn holding(machine: &str, id: u8) -> Holding {
    Holding {
        seat: "web1".into(),
        machine: machine.into(),
        boot: BootId([id; 16]),
        epoch: 0,
        at: None,
        since: 1,
    }
}

#[tokio::test]
async fn a_seat_is_never_taken_from_another_machine() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = Store::open(dir.path()).expect("a new state");
    let open = async |machine: &str, id: u8| {
        let boot = record(machine, u64::from(id));
        let holds = Some(holding(machine, id));
        let held = store.open_boot(boot, vec![], vec![], holds).await.expect("queued");
        held.await.expect("written").expect("a seat was asked for")
    };
    assert_eq!(open("m01", 1).await.epoch, 1);
    let again = open("m01", 2).await;
    assert_eq!((again.boot, again.epoch), (BootId([2; 16]), 2), "it boots again");
    assert_eq!(open("m02", 3).await, again, "another machine does not get it");

    // A release that comes late, for a boot that is not the holder any more, frees nothing.
    let release = async |id: u8| {
        let seats = vec![("web1".to_string(), BootId([id; 16]))];
        store.release(seats, vec![]).await.expect("queued").await.expect("written");
    };
    release(1).await;
    assert_eq!(store.holdings().expect("read"), [again]);
    release(2).await;
    assert!(store.holdings().expect("read").is_empty());
    assert_eq!(open("m02", 4).await.epoch, 3);
}

#[tokio::test]
async fn a_holding_of_an_older_state_reads_back() {
    let old =
        br#"{"seat":"web1","machine":"m01","boot":"01010101010101010101010101010101","epoch":7}"#;
    let read: Holding = parse("holdings", old).expect("it reads");
    assert_eq!((read.epoch, read.at, read.since), (7, None, 0));
}

fn record(machine: &str, opened: u64) -> BootRecord {
    BootRecord {
        id: BootId([u8::try_from(opened).expect("small"); 16]),
        mac: Mac([2, 0, 0, 0, 0, 1]),
        machine: machine.to_string(),
        address: std::net::Ipv4Addr::new(10, 77, 0, 11),
        fixed: true,
        lent: None,
        via: None,
        opened,
        order: 0,
        stage: Stage::Offer,
        plan: None,
        marks: Vec::new(),
        over: false,
        after: None,
        fenced: false,
    }
}

#[tokio::test]
async fn a_machines_oldest_boots_and_a_strangers_all_are_forgotten() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = Store::open(dir.path()).expect("a new state");
    for opened in 1..=30 {
        let done = store.open_boot(record("m01", opened), vec![], vec![], None).await;
        done.expect("queued").await.expect("written");
    }
    let kept = store.boots_of("m01").expect("read");
    assert_eq!((kept.len(), kept[0].opened), (BOOTS_KEPT, 30));
    let done = store.open_boot(record("m02", 31), vec![], vec!["m01".into()], None).await;
    done.expect("queued").await.expect("written");
    assert!(store.boots_of("m01").expect("read").is_empty());
    assert_eq!(store.boots_of("m02").expect("read").len(), 1);
}

fn into(machine: &str, opened: u64, image: &str) -> BootRecord {
    let sample = crate::ledger::tests::boot(machine, 1);
    let plan = sample.plan.as_ref().expect("it has a plan").as_ref().clone();
    let plan = koboshi_pxe::boots::Plan { image: image.to_string(), ..plan };
    let id = BootId([u8::try_from(opened % 250).expect("small"); 16]);
    BootRecord { id, opened, plan: Some(Arc::new(plan)), ..sample }
}

#[tokio::test]
async fn what_a_machine_booted_is_known_when_its_timelines_are_gone() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut store = Store::open(dir.path()).expect("a new state");
    let open = async |store: &Store, boot: BootRecord| {
        let done = store.open_boot(boot, vec![], vec![], None).await;
        done.expect("queued").await.expect("written");
    };
    open(&store, into("m01", 1, "web@1")).await;
    // It restarts all night.
    for opened in 10..100 {
        open(&store, into("m01", opened, "web@2")).await;
    }
    open(&store, into("m01", 200, "web@3")).await;
    let mut up = into("m01", 300, "web@1");
    open(&store, up.clone()).await;
    up.stage = Stage::Up;
    let mark =
        |at, stage| Mark { at, stage, note: String::new(), late: None, power: None, console: None };
    up.marks.push(mark(340, Stage::Up));
    store.record_boot(up.clone()).await.expect("queued");
    up.stage = Stage::Down;
    up.marks = vec![mark(360, Stage::Down)];
    store.record_boot(up).await.expect("queued");
    open(&store, into("m02", 5, "db@1")).await;
    let known = |store: &Store| -> Vec<(u64, String, u64)> {
        let booted = store.booted("m01").expect("read");
        let image = |one: &Booted| one.what.as_ref().map_or(String::new(), |w| w.image.clone());
        booted.iter().map(|one| (one.opened, image(one), one.times)).collect()
    };
    let all = [
        (300, "web@1", 1),
        (200, "web@3", 1),
        (99, "web@2", 89),
        (10, "web@2", 1),
        (1, "web@1", 1),
    ];
    let all = all.map(|(at, image, times)| (at, image.to_string(), times));
    assert_eq!(known(&store), all);
    assert_eq!(store.boots_of("m01").expect("read").len(), BOOTS_KEPT);
    drop(store);
    store = loop {
        match Store::open(dir.path()) {
            Ok(store) => break store,
            Err(StoreError::Redb(_)) => thread::sleep(std::time::Duration::from_millis(5)),
            Err(error) => panic!("{error}"),
        }
    };
    assert_eq!(known(&store), all, "over a restart");
    let newest = &store.booted("m01").expect("read")[0];
    assert_eq!((newest.up, newest.down), (Some(340), Some(360)), "though its middle was forgotten");
}

#[tokio::test]
async fn what_was_booted_before_it_was_written_down_is_taken_over_and_bounded() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = Store::open(dir.path()).expect("a new state");
    let done = store.submit(|txn| {
        for opened in 1..=3 {
            put_boot(txn, &into("m01", opened, &format!("web@{opened}")))?;
        }
        booted::migrate(txn)?;
        for opened in 4..=1500 {
            booted::open(txn, &into("m01", opened, &format!("web@{opened}")))?;
        }
        booted::open(txn, &record("02:00:00:00:00:01", 9))
    });
    done.await.expect("queued").await.expect("written");
    let booted = store.booted("m01").expect("read");
    assert_eq!((booted.len(), booted[0].opened, booted[999].opened), (1000, 1500, 501));
    assert!(store.booted("02:00:00:00:00:01").expect("read").is_empty(), "a stranger's nothing");
}

/// The writer is held up; what comes meanwhile for one boot is written once, but for what is looked for
/// in its rows.
#[tokio::test]
async fn a_boot_that_moves_while_the_disk_is_behind_is_written_as_it_stands() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = Store::open(dir.path()).expect("a new state");
    let mut boot = into("m01", 1, "web@1");
    store.open_boot(boot.clone(), vec![], vec![], None).await.expect("queued");
    let (go, gate) = std::sync::mpsc::channel::<()>();
    let held_up = store.submit(move |_| {
        let _released = gate.recv();
        Ok(())
    });
    let held_up = held_up.await.expect("queued");
    let stages = [Stage::Ack, Stage::Script, Stage::Init, Stage::Up, Stage::Down];
    for (at, stage) in stages.into_iter().enumerate() {
        boot.stage = stage;
        let note = String::new();
        let at = at as u64;
        boot.marks.push(Mark { at, stage, note, late: None, power: None, console: None });
        store.record_boot(boot.clone()).await.expect("queued");
    }
    assert_eq!(held(&store.moving).len(), 1);
    drop(go);
    held_up.await.expect("written");
    let last = store.submit(|_| Ok(())).await.expect("queued");
    last.await.expect("written");
    assert!(held(&store.moving).is_empty(), "nothing is kept of what is written");
    let written = store.boot(boot.id).expect("read").expect("there");
    assert_eq!((written.stage, written.marks.len()), (Stage::Down, 5));
    let booted = &store.booted("m01").expect("read")[0];
    assert_eq!((booted.up, booted.down), (Some(3), Some(4)));
}
