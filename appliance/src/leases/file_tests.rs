use std::net::Ipv4Addr;

use koboshi_pxe::Mac;
use koboshi_pxe::dhcp::{Ahead, ClientKey, LeaseRecord};

use super::*;

fn put(last: u8, serial: u64) -> LeaseChange {
    LeaseChange::Put(LeaseRecord {
        key: ClientKey { htype: 1, mac: Mac([2, 0, 0, 0, 0, last]) },
        address: Ipv4Addr::new(10, 0, 0, last),
        seconds: 3600,
        expires: 10_000,
        serial,
    })
}

fn ahead(stripes: u16) -> LeaseChange {
    let (first, last) = (Ipv4Addr::new(10, 0, 0, 0), Ipv4Addr::new(10, 0, 0, 99));
    LeaseChange::Ahead(Ahead { first, last, stripes, seconds: 3600 })
}

/// As `koboshi` of this boot of the host, or of another.
fn open(dir: &Path, boot: &str) -> (Book, Kept) {
    Book::open(dir, boot, 8000, Kept::default).expect("it opens")
}

fn known(kept: &Kept) -> Vec<u8> {
    let mut known: Vec<u8> = kept.leases.keys().map(|key| key.mac.0[5]).collect();
    known.sort_unstable();
    known
}

/// A journal that is worth to be written anew.
pub fn grown(dir: &Path) -> Book {
    let (mut book, _) = open(dir, "one");
    for serial in 0..1000 {
        book.append(&[put(1, serial)]).expect("written");
    }
    book.limit = 0;
    book
}

/// A journal on a disk that is full until its next change but one.
pub fn full(dir: &Path) -> Book {
    let (mut book, _) = open(dir, "one");
    let full = File::options().read(true).write(true).open("/dev/full").expect("there");
    book.file = Arc::new(full);
    book
}

#[test]
fn what_was_written_is_there_however_it_ended() {
    let dir = tempfile::tempdir().expect("a folder");
    let (mut book, kept) = open(dir.path(), "one");
    assert_eq!(kept, Kept::default());
    book.append(&[put(1, 1), put(2, 2), ahead(1)]).expect("written");
    let key = ClientKey { htype: 1, mac: Mac([2, 0, 0, 0, 0, 1]) };
    let delete = LeaseChange::Delete(key, Ipv4Addr::new(10, 0, 0, 1));
    book.append(&[delete, put(3, 3)]).expect("written");
    drop(book);
    // kill -9: nothing is in doubt, and nothing is lent ahead of the disk until there is a storm again.
    let (mut book, kept) = open(dir.path(), "one");
    assert_eq!((known(&kept), kept.ahead.len(), kept.doubts.len()), (vec![2, 3], 0, 0));
    assert!(kept.leases.values().all(|lease| lease.expires == 10_000));
    // The host restarts in good order.
    book.append(&[ahead(1)]).expect("written");
    book.finish().expect("ended");
    let (mut book, kept) = open(dir.path(), "two");
    assert_eq!((known(&kept), kept.doubts.len()), (vec![2, 3], 0));
    assert!(kept.leases.values().all(|lease| lease.expires == 10_000));
    // It loses its power. What is in doubt stays so over a `kill -9`.
    book.append(&[ahead(1), put(4, 4)]).expect("written");
    drop(book);
    for _ in 0..2 {
        let (_, kept) = open(dir.path(), "three");
        assert_eq!((known(&kept), kept.ahead.len(), kept.doubts.len()), (vec![2, 3, 4], 0, 1));
        assert!(kept.leases.values().all(|lease| lease.expires == 11_602));
    }
}

#[test]
fn leases_of_an_older_koboshi_are_taken_over_once() {
    let dir = tempfile::tempdir().expect("a folder");
    let former = || {
        let LeaseChange::Put(lease) = put(1, 1) else { panic!() };
        [lease].into_iter().collect()
    };
    let (_, kept) = Book::open(dir.path(), "one", 8000, former).expect("it opens");
    assert_eq!((known(&kept), kept.doubts.len()), (vec![1], 0));
    let gone = || -> Kept { panic!("there is a journal") };
    let (_, kept) = Book::open(dir.path(), "one", 8000, gone).expect("it opens");
    assert_eq!(known(&kept), [1]);
}

/// Cut anywhere: what is whole is there, and in the same boot of the host nothing else changes.
#[test]
fn a_torn_end_is_dropped() {
    let dir = tempfile::tempdir().expect("a folder");
    let (mut book, _) = open(dir.path(), "one");
    let begin = book.end as usize;
    book.append(&[put(1, 1)]).expect("written");
    let middle = book.end as usize;
    book.append(&[put(2, 2)]).expect("written");
    let whole = std::fs::read(dir.path().join(NAME)).expect("there");
    for end in (begin..whole.len()).step_by(7).chain([middle - 1, middle, whole.len()]) {
        std::fs::write(dir.path().join(NAME), &whole[..end]).expect("cut");
        let (mut book, kept) = open(dir.path(), "one");
        let expected: &[u8] = match end {
            end if end == whole.len() => &[1, 2],
            end if end >= middle => &[1],
            _ => &[],
        };
        assert_eq!(known(&kept), expected, "cut at {end}");
        assert!(kept.leases.values().all(|lease| lease.expires == 10_000));
        book.append(&[put(3, 3)]).expect("written");
        assert_eq!(known(&open(dir.path(), "one").1), [expected, &[3]].concat());
    }
    std::fs::write(dir.path().join(NAME), b"koboshi leases 2\n").expect("newer");
    let refused = Book::open(dir.path(), "one", 8000, Kept::default).expect_err("newer");
    assert!(refused.to_string().contains("newer"), "{refused}");
}

/// One bit after another: at most the entry that it is in is lost, and then nothing is taken back and leases in force are
/// kept for longer.
#[test]
fn a_flipped_bit_costs_one_entry() {
    let dir = tempfile::tempdir().expect("a folder");
    let (mut book, _) = open(dir.path(), "one");
    let begin = book.end as usize;
    book.append(&[put(1, 1), ahead(1), put(2, 2), ahead(0), put(3, 3)]).expect("written");
    let whole = std::fs::read(dir.path().join(NAME)).expect("there");
    for bit in begin * 8..whole.len() * 8 {
        let mut bytes = whole.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let found = read(&bytes).expect("its head is whole");
        let lost = 3 - found.kept.leases.len();
        assert!(lost <= 1 && found.gaps + found.torn > 0, "bit {bit}: {found:?}");
        // Each file that is opened waits for the disk.
        if bit % 101 > 0 {
            continue;
        }
        std::fs::write(dir.path().join(NAME), &bytes).expect("written");
        let (_, kept) = open(dir.path(), "one");
        let aside = dir.path().join("leases.journal.bad");
        assert_eq!(aside.exists(), found.gaps > 0);
        if found.gaps > 0 {
            std::fs::remove_file(aside).expect("there");
            assert!(kept.leases.values().all(|lease| lease.expires == 11_602), "bit {bit}");
        }
    }
}

#[test]
fn blocks_that_never_came_are_no_entries() {
    let mut bytes = HEAD.to_vec();
    super::put(&mut bytes, &Entry::Began { boot: "one".into() });
    super::put(&mut bytes, &Entry::Change(ahead(1)));
    bytes.extend([0; 8192]);
    super::put(&mut bytes, &Entry::Change(ahead(0)));
    super::put(&mut bytes, &Entry::Change(put(1, 1)));
    bytes.extend([0; 4096]);
    let found = read(&bytes).expect("its head is whole");
    assert_eq!((found.gaps, found.torn, known(&found.kept)), (8192, 4096, vec![1]));
    assert_eq!(found.kept.ahead.len(), 1, "what may have been lent is not taken back");
}

/// It is written anew beside the old one, and wherever that ends one of the two is there.
#[test]
fn the_file_stays_small_and_is_whole_at_every_step() {
    let dir = tempfile::tempdir().expect("a folder");
    let (mut book, _) = open(dir.path(), "one");
    let many: Vec<LeaseChange> =
        (0..1000).map(|serial| put((serial % 100) as u8, serial)).collect();
    let mut anew = 0;
    for _ in 0..100 {
        book.append(&many).expect("written");
        // Somebody always waits, as far as it is told; at times nobody does.
        if book.grown() {
            assert!((GROWTH..2 * GROWTH).contains(&book.end), "{}", book.end);
            book.shorten().expect("written anew");
            assert!(!book.grown() && book.end < GROWTH, "{}", book.end);
            anew += 1;
        }
    }
    assert!(anew > 0);
    // Nobody ever stops to ask.
    book.append(&many).expect("written");
    (book.limit, book.most) = (0, book.end);
    book.append(&many[..1]).expect("written");
    assert!(!book.grown() && book.end < book.most, "{book:?}");
    let whole = std::fs::read(dir.path().join(NAME)).expect("there");
    // Killed while the new one was being written: it is no more than a file of no interest.
    let beside = dir.path().join("leases.journal.new");
    for length in [0, 5, whole.len() / 2, whole.len()] {
        std::fs::write(&beside, &whole[..length]).expect("written");
        assert_eq!(known(&open(dir.path(), "one").1).len(), 100);
    }
}

#[test]
fn a_disk_that_is_full_is_said_and_costs_nothing_that_was_acknowledged() {
    let dir = tempfile::tempdir().expect("a folder");
    let (mut book, _) = open(dir.path(), "one");
    book.append(&[put(1, 1)]).expect("written");
    let good = book.file();
    let full = File::options().read(true).write(true).open("/dev/full").expect("there");
    // It cannot be cut back either: then all of it is written anew.
    book.file = Arc::new(full);
    let error = book.append(&[put(2, 2)]).expect_err("full");
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    assert!(book.spoiled);
    // A part of the entry was there.
    good.write_all_at(b"\x70\0\0\0", book.end).expect("written");
    book.append(&[put(3, 3)]).expect("there is room again");
    book.append(&[put(4, 4)]).expect("written");
    drop(book);
    let (_, kept) = open(dir.path(), "one");
    assert_eq!(known(&kept), [1, 3, 4]);
    // It starts without room, and begins with what there was when there is some.
    let (mut book, kept) = open(dir.path(), "one");
    (book.spoiled, book.unbegun) = (true, Some(kept));
    book.append(&[put(9, 9)]).expect("written");
    let (mut book, kept) = open(dir.path(), "one");
    assert_eq!(known(&kept), [1, 3, 4, 9]);
    // As long as there is none for a new file, nothing is written.
    let beside = dir.path().join("leases.journal.new");
    std::fs::create_dir(&beside).expect("in the way");
    book.spoil("one".to_string());
    book.append(&[put(5, 5)]).expect_err("no new file");
    // Nor is that tried again and again while nobody asks.
    book.limit = 0;
    assert!(book.shorten().is_err() && !book.grown());
    std::fs::remove_dir(&beside).expect("there");
    let refused = book.append(&[put(6, 6)]).expect_err("it is not tried for each");
    assert_eq!(refused.kind(), io::ErrorKind::IsADirectory);
    let (at, _) = book.refused.as_mut().expect("a moment ago");
    *at -= AGAIN;
    book.append(&[put(6, 6)]).expect("written");
    assert_eq!(known(&open(dir.path(), "one").1), [1, 3, 4, 6, 9]);
}

proptest::proptest! {
    #[test]
    fn any_bytes_are_read(bytes in proptest::collection::vec(0u8.., 0..200), cut in 0usize..400) {
        let mut all = HEAD.to_vec();
        super::put(&mut all, &Entry::Change(put(1, 1)));
        all.truncate(cut.max(HEAD.len()));
        all.extend(&bytes);
        super::put(&mut all, &Entry::Change(put(2, 2)));
        let found = read(&all).expect("its head is whole");
        proptest::prop_assert!(known(&found.kept).contains(&2));
        drop(read(&bytes));
    }
}
