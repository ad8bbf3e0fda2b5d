use std::net::Ipv4Addr;

use koboshi_pxe::Mac;
use koboshi_pxe::dhcp::{ClientKey, LeaseChange, LeaseRecord};

use super::*;

fn put(last: u8) -> LeaseChange {
    LeaseChange::Put(LeaseRecord {
        key: ClientKey { htype: 1, mac: Mac([2, 0, 0, 0, 0, last]) },
        address: Ipv4Addr::new(10, 0, 0, last),
        seconds: 3600,
        expires: 10_000,
        serial: last.into(),
    })
}

#[tokio::test]
async fn who_waits_for_the_disk_and_who_does_not_are_told_in_the_end() {
    let dir = tempfile::tempdir().expect("a folder");
    let (leases, kept) = open(dir.path(), Arc::default(), Kept::default).expect("it opens");
    assert_eq!(kept, Kept::default());
    let mut told = Vec::new();
    for last in 1..=100 {
        let (done, outcome) = oneshot::channel();
        let write = JournalWrite { change: put(last), durable: last % 3 == 0, done };
        leases.journal.send(write).await.expect("it is kept");
        told.push(outcome);
        if last % 10 == 0 {
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
    }
    for outcome in told {
        assert!(outcome.await.expect("told"));
    }
    // Another process, while this one has not ended.
    let (_, kept) = Book::open(dir.path(), "", 0, Kept::default).expect("it opens");
    assert_eq!(kept.leases.len(), 100);
    drop(leases.journal);
    leases.ended.await.expect("ended in good order");
}

#[tokio::test]
async fn the_end_in_good_order_is_written_too() {
    let dir = tempfile::tempdir().expect("a folder");
    let (leases, _) = open(dir.path(), Arc::default(), Kept::default).expect("it opens");
    let (done, outcome) = oneshot::channel();
    let write = JournalWrite { change: put(1), durable: false, done };
    leases.journal.send(write).await.expect("it is kept");
    assert!(outcome.await.expect("told"));
    drop(leases.journal);
    leases.ended.await.expect("ended");
    let after = Book::open(dir.path(), "another boot of the host", 9000, Kept::default);
    let (_, kept) = after.expect("it opens");
    let expires: Vec<u64> = kept.leases.values().map(|lease| lease.expires).collect();
    assert_eq!(expires, [10_000], "nothing is in doubt");
}

#[test]
fn what_is_not_written_is_told_as_not_written_and_shown() {
    let dir = tempfile::tempdir().expect("a folder");
    let unwritten = Arc::<Unwritten>::default();
    let shared = Arc::<Shared>::default();
    let (journal, writes) = mpsc::channel(16);
    let (waiters, waiting) = queue::channel();
    let (book, showing, between) =
        (file::tests::full(dir.path()), unwritten.clone(), shared.clone());
    let writer = thread::spawn(move || write_all(book, writes, waiters, &between, &showing));
    let ask = |last, durable| {
        let (done, outcome) = oneshot::channel();
        let write = JournalWrite { change: put(last), durable, done };
        journal.blocking_send(write).expect("it is kept");
        outcome
    };
    assert_eq!(ask(1, true).blocking_recv(), Ok(false));
    assert!(unwritten.list()[0].path.ends_with("leases.journal"), "{:?}", unwritten.list());
    assert_eq!(ask(2, false).blocking_recv(), Ok(true));
    assert!(unwritten.list().is_empty());
    // Who waits for the disk is not told before it has it.
    let mut third = ask(3, true);
    assert_eq!(ask(4, false).blocking_recv(), Ok(true));
    assert!(third.try_recv().is_err());
    drop(journal);
    let book = writer.join().expect("ended");
    bring_to_disk(&waiting, &shared);
    assert_eq!(third.blocking_recv(), Ok(true));
    finish(book, &shared);
    let (_, kept) = Book::open(dir.path(), "another", 9000, Kept::default).expect("it opens");
    assert_eq!(kept.leases.len(), 3);
}

/// It has grown: nobody who asks is kept waiting for it to become short again.
#[test]
fn it_is_written_anew_once_nobody_asks() {
    let dir = tempfile::tempdir().expect("a folder");
    let book = file::tests::grown(dir.path());
    let path = book.path().to_owned();
    let length = || std::fs::metadata(&path).expect("there").len();
    let before = length();
    let shared = Arc::<Shared>::default();
    let (journal, writes) = mpsc::channel(16);
    let (waiters, waiting) = queue::channel();
    let between = shared.clone();
    let unwritten = Unwritten::default();
    let writer = thread::spawn(move || write_all(book, writes, waiters, &between, &unwritten));
    let ask = |last| {
        let (done, outcome) = oneshot::channel();
        let write = JournalWrite { change: put(last), durable: false, done };
        journal.blocking_send(write).expect("it is kept");
        assert_eq!(outcome.blocking_recv(), Ok(true));
    };
    (2..20).for_each(&ask);
    let until = Instant::now() + 80 * QUIET;
    while length() > before / 10 {
        assert!(Instant::now() < until, "{} bytes", length());
        thread::sleep(QUIET / 10);
    }
    // What comes is written to the new one, and brought to the disk there.
    ask(20);
    drop(journal);
    let book = writer.join().expect("ended");
    bring_to_disk(&waiting, &shared);
    finish(book, &shared);
    let (_, kept) = Book::open(dir.path(), "another", 9000, Kept::default).expect("it opens");
    assert_eq!(kept.leases.len(), 20);
    assert!(kept.leases.values().all(|lease| lease.expires == 10_000), "nothing is in doubt");
}

/// The disk fails with the last of it, which only the thread that waits for it hears; then comes the end.
#[test]
fn what_the_disk_did_not_take_is_not_ended_in_good_order() {
    for repaired in [true, false] {
        let dir = tempfile::tempdir().expect("a folder");
        let host = Host::named("one", dir.path());
        let opened = Book::open(dir.path(), &host.name(), 8000, Kept::default);
        let (book, _) = opened.expect("it opens");
        let shared = Arc::new(Shared { host, ..Shared::default() });
        let (journal, writes) = mpsc::channel(16);
        let (waiters, waiting) = queue::channel();
        let (done, mut outcome) = oneshot::channel();
        let last = JournalWrite { change: put(1), durable: true, done };
        journal.blocking_send(last).expect("it is kept");
        drop(journal);
        let book = write_all(book, writes, waiters, &shared, &Unwritten::default());
        // Nothing that can be brought to a disk.
        let failing = File::open("/dev/null").expect("there");
        *shared.file.lock().expect("whole") = Some(Arc::new(failing));
        bring_to_disk(&waiting, &shared);
        assert_eq!(outcome.try_recv(), Ok(false));
        // All of it is written anew, unless that fails too.
        let beside = dir.path().join("leases.journal.new");
        if !repaired {
            std::fs::create_dir(&beside).expect("in its way");
        }
        finish(book, &shared);
        if !repaired {
            std::fs::remove_dir(&beside).expect("there");
        }
        // The host has not gone down, and its disk may have been mounted anew.
        let after = Book::open(dir.path(), &shared.host.name(), 9000, Kept::default);
        let (_, kept) = after.expect("it opens");
        let expires: Vec<u64> = kept.leases.values().map(|lease| lease.expires).collect();
        assert_eq!(expires, [if repaired { 10_000 } else { 12_602 }]);
    }
}
