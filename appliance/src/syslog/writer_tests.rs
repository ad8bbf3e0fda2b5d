//! Bounds, strangers, and a disk that is full for a while.

use super::*;
use crate::syslog::files::{LEAST, names};

fn text(root: &Path, place: &str) -> String {
    let path = root.join(place);
    let names = names(&path).unwrap();
    names.iter().map(|name| fs::read_to_string(path.join(name)).unwrap()).collect()
}

fn size(root: &Path) -> u64 {
    places(root).iter().map(|place| text(root, place).len() as u64).sum()
}

#[test]
fn each_machine_has_its_own_and_all_of_it_is_there_at_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let bounds = Bounds { each: 1 << 20, total: 1 << 30 };
    let writer = Writer::start(folder.path().to_path_buf(), bounds).unwrap();
    for number in 0..100 {
        for machine in 0..300 {
            assert!(writer.put(&format!("m{machine}"), &format!("m{machine} says {number}\n")));
        }
    }
    drop(writer);
    for machine in 0..300 {
        let said = text(folder.path(), &format!("m{machine}"));
        assert_eq!(said.lines().count(), 100);
        let own = format!("m{machine} says");
        assert!(said.lines().all(|line| line.starts_with(&own)));
    }
}

#[test]
fn all_together_are_bounded_and_the_oldest_goes() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let mut dirs = Dirs::read(root);
    let bounds = Bounds { each: LEAST, total: 4 * LEAST };
    let lines = |number: u64| format!("{number:0999}\n").into_bytes();
    for number in 0..200 {
        let all = (0..10).map(|machine| (format!("m{machine}"), lines(number))).collect();
        let written = dirs.write(all, bounds);
        assert_eq!((written.failed.len(), written.why, written.refused), (0, None, 0));
        assert!(dirs.total <= bounds.total);
    }
    assert_eq!(dirs.total, size(root));
    for machine in 0..10 {
        let said = text(root, &format!("m{machine}"));
        assert!(said.ends_with("199\n"), "each has its newest");
    }
    // The next process knows what there is.
    assert_eq!(Dirs::read(root).total, dirs.total);
    let less = Bounds { each: LEAST, total: 1000 };
    dirs.write(HashMap::from([("m0".to_string(), lines(200))]), less);
    assert_eq!((dirs.total, size(root)), (1000, 1000));
}

#[test]
fn strangers_are_bounded_and_machines_are_none() {
    let folder = tempfile::tempdir().unwrap();
    let mut dirs = Dirs::read(folder.path());
    let bounds = Bounds { each: LEAST, total: 1 << 30 };
    let from = |number: usize| format!("{UNKNOWN}/10.9.{}.{}", number / 256, number % 256);
    let one = |place: String| HashMap::from([(place, b"x\n".to_vec())]);
    for number in 0..STRANGERS {
        assert_eq!(dirs.write(one(from(number)), bounds).refused, 0);
    }
    assert_eq!(dirs.write(one(from(STRANGERS)), bounds).refused, 1);
    assert_eq!(dirs.write(one("m01".to_string()), bounds).refused, 0);
    assert!(dirs.admit(&from(STRANGERS), now_ms() + QUIET_MS + 60_000), "one was quiet");
    assert_eq!(places(folder.path()).len(), STRANGERS, "it went, and m01 is there");
}

/// What stands in for a full disk: a file where the directory has to be.
#[test]
fn what_cannot_be_written_waits_is_counted_and_is_written_then() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().to_path_buf();
    fs::write(root.join("m01"), "in the way").unwrap();
    let bounds = Bounds { each: 1 << 20, total: 1 << 30 };
    let writer = Writer::start(root.clone(), bounds).unwrap();
    let mut health = writer.health();
    assert!(writer.put("m01", "first\n") && writer.put("m02", "well\n"));
    let until = |health: &mut watch::Receiver<Health>, wanted: &dyn Fn(&Health) -> bool| {
        let begun = Instant::now();
        while !wanted(&health.borrow_and_update()) {
            assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", health.borrow());
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    until(&mut health, &|health| health.failing.as_ref().is_some_and(|why| why.contains("m01")));
    assert_eq!(text(&root, "m02"), "well\n", "the others go on");
    let long = "x".repeat(1000) + "\n";
    let taken = (0..1000).filter(|_| writer.put("m01", &long)).count();
    assert!((500..530).contains(&taken), "{taken}");
    until(&mut health, &|health| health.lost == 1000 - taken as u64);
    fs::remove_file(root.join("m01")).unwrap();
    until(&mut health, &|health| health.failing.is_none());
    drop(writer);
    let said = text(&root, "m01");
    assert_eq!(said, "first\n".to_string() + &long.repeat(taken));
}
