//! What is removed and what is not: versions in use stay, blobs of others stay, no number is given twice,
//! and a crash in the middle leaves nothing behind.

use std::collections::BTreeSet;
use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use koboshi_images::{
    Blob, By, Error, Holds, ImportOptions, MachineHold, RoleHold, Store, Version, import,
};

use crate::fixture::Bench;
use crate::store::{root_saying, stray_blobs};

fn bench(versions: u32) -> Bench {
    let bench = Bench::new();
    for version in 1..=versions {
        bench.import_bytes(&root_saying(&version.to_string())).unwrap();
    }
    bench
}

fn publish(bench: &Bench, version: u32) {
    bench.store.publish("web", Some(version), &By::default()).unwrap();
}

fn numbers(store: &Store) -> Vec<u32> {
    store.list().unwrap().iter().map(|version| version.version).collect()
}

fn layer(version: &Version) -> Blob {
    version.boot.layers[0].blob
}

fn why(refused: Result<impl std::fmt::Debug, Error>) -> String {
    match refused {
        Err(Error::InUse { why, .. }) => why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_version_goes_with_what_no_other_needs() {
    let bench = bench(3);
    let store = &bench.store;
    publish(&bench, 1);
    publish(&bench, 2);
    publish(&bench, 3);
    let two = store.show("web@2").unwrap();
    let usage = store.usage().unwrap();
    let of_two = usage[&("web".to_owned(), 2)];
    assert!(of_two.own > layer(&two).size && of_two.shared >= two.boot.kernel.size, "{of_two:?}");
    let by = By { author: Some("ann".to_owned()), reason: Some("room".to_owned()) };
    let gone = store.remove("web", 2, &by).unwrap();
    assert_eq!(gone.versions, ["web@2"]);
    assert_eq!(gone.bytes, of_two.own);
    assert!(!store.blob_path(&layer(&two).digest).exists());
    assert_eq!(stray_blobs(&bench), Vec::<String>::new());
    for version in store.list().unwrap() {
        store.verify(&version).unwrap();
    }
    assert_eq!(store.rollback("web", None, &by).unwrap().version, 1, "what was before 2");
    let acts = store.log(None).unwrap().acts;
    let act = &acts[acts.len() - 2];
    assert_eq!((&act.act[..], act.version, act.digest), ("rm", Some(2), Some(two.digest)));
    assert_eq!(act.reason.as_deref(), Some("room"));
    assert!(matches!(store.remove("web", 2, &by), Err(Error::NoSuchVersion { .. })));
}

#[test]
fn no_number_is_given_twice() {
    let bench = bench(2);
    publish(&bench, 1);
    bench.store.remove("web", 2, &By::default()).unwrap();
    assert_eq!(bench.import_bytes(&root_saying("other")).unwrap().version.version, 3);
}

#[test]
fn what_is_in_use_stays_and_it_is_said_why() {
    let bench = bench(4);
    let store = &bench.store;
    let by = By::default();
    publish(&bench, 4);
    store.pin("web", 1, &by).unwrap();
    let held = |machine: &str, image: &str, runs| MachineHold {
        machine: machine.to_owned(),
        image: image.to_owned(),
        runs,
    };
    let role = RoleHold { role: "cache".to_owned(), image: "web@2".to_owned() };
    let mut holds = Holds { roles: BTreeSet::from([role]), ..Holds::default() };
    holds.machines.insert(held("m01", "web@3", true));
    holds.machines.insert(held("m02", "web@3", false));
    store.hold(&holds).unwrap();
    let said = [
        (4, "machines boot it"),
        (1, "it is pinned"),
        (2, "role cache boots it"),
        (3, "m01 runs it; m02 is on its way to it"),
    ];
    for (version, words) in said {
        assert_eq!(why(store.remove("web", version, &by)), words);
    }
    let collected = store.collect(0, false, &by).unwrap();
    assert_eq!(collected.versions, Vec::<String>::new());
    assert_eq!(collected.kept["web@3"], ["m01 runs it", "m02 is on its way to it"]);
    assert_eq!(numbers(store), [1, 2, 3, 4]);
    // A file that nobody can read is no leave to remove anything.
    fs::write(store.dir().join("holds.json"), "{").unwrap();
    assert!(matches!(store.remove("web", 3, &by), Err(Error::Store { .. })));
    assert!(store.collect(0, false, &by).is_err());
    store.hold(&Holds::default()).unwrap();
    store.unpin("web", 1, &by).unwrap();
    assert_eq!(store.collect(0, false, &by).unwrap().versions, ["web@1", "web@2", "web@3"]);
    assert_eq!(stray_blobs(&bench), Vec::<String>::new());
}

#[test]
fn the_newest_and_the_way_back_stay() {
    let bench = bench(6);
    let by = By::default();
    publish(&bench, 2);
    publish(&bench, 5);
    let dry = bench.store.collect(1, true, &by).unwrap();
    assert_eq!(numbers(&bench.store), [1, 2, 3, 4, 5, 6]);
    let collected = bench.store.collect(1, false, &by).unwrap();
    assert_eq!(dry, collected);
    assert_eq!(collected.versions, ["web@1", "web@3", "web@4"]);
    assert!(collected.kept["web@2"][0].contains("rollback"), "{:?}", collected.kept);
    assert_eq!(bench.store.rollback("web", None, &by).unwrap().version, 2);
    assert_eq!(bench.store.collect(1, false, &by).unwrap().versions, ["web@5"]);
    assert_eq!(numbers(&bench.store), [2, 6]);
}

#[test]
fn a_blob_that_a_boot_was_promised_stays_until_it_is_over() {
    let bench = bench(2);
    let store = &bench.store;
    publish(&bench, 2);
    let one = layer(&store.show("web@1").unwrap());
    store.hold(&Holds { blobs: BTreeSet::from([one.digest]), ..Holds::default() }).unwrap();
    let gone = store.remove("web", 1, &By::default()).unwrap();
    assert_eq!((gone.versions, gone.held), (vec!["web@1".to_owned()], 1));
    store.verify_blob(&one).unwrap();
    // Also if the import that brought it is swept up only now.
    bench.import_bytes(&root_saying("other")).unwrap();
    store.verify_blob(&one).unwrap();
    store.hold(&Holds::default()).unwrap();
    // Nothing leads to it; a stranger may be about to write an index that does.
    assert_eq!(store.collect(9, false, &By::default()).unwrap().blobs, 0);
    let old = std::time::SystemTime::now() - Duration::from_secs(48 * 3600);
    let file = fs::File::options().write(true).open(store.blob_path(&one.digest)).unwrap();
    file.set_modified(old).unwrap();
    assert_eq!(store.collect(9, false, &By::default()).unwrap().blobs, 1);
    assert_eq!(stray_blobs(&bench), Vec::<String>::new());
}

#[test]
fn what_cannot_be_told_apart_is_not_removed() {
    let bench = bench(3);
    let store = &bench.store;
    publish(&bench, 3);
    let two = store.show("web@2").unwrap();
    fs::write(store.blob_path(&two.digest), "bent").unwrap();
    let before = fs::read_dir(store.dir().join("blobs/sha256")).unwrap().count();
    assert!(matches!(store.remove("web", 1, &By::default()), Err(Error::Damaged { .. })));
    assert_eq!(fs::read_dir(store.dir().join("blobs/sha256")).unwrap().count(), before);
    // The others are listed and booted as ever.
    let (whole, damaged) = store.listed().unwrap();
    assert_eq!(whole.iter().map(|one| one.version).collect::<Vec<_>>(), [1, 3]);
    assert_eq!((damaged.len(), damaged[0].version), (1, 2));
    assert!(damaged[0].to_string().contains("`koboshi image rm web@2` lets go of it"));
    assert_eq!(store.usage().unwrap().len(), 2);
    assert_eq!(store.resolve("web").unwrap().version, 3);
    for spoil in ["bent", ""] {
        match spoil {
            "" => fs::remove_file(store.blob_path(&two.digest)).unwrap(),
            bytes => fs::write(store.blob_path(&two.digest), bytes).unwrap(),
        }
        let gone = store.collect(1, false, &By::default()).unwrap();
        assert!(gone.versions.is_empty() && gone.blobs == 0, "{gone:?}");
        assert!(gone.damaged[0].starts_with("web@2 cannot be read: blob"), "{gone:?}");
    }
    // Its content once more makes it whole.
    bench.import_bytes(&root_saying("2")).unwrap();
    assert_eq!(store.show("web@2").unwrap(), two);
    store.remove("web", 4, &By::default()).unwrap();
    fs::write(store.blob_path(&two.digest), "bent").unwrap();
    // The damaged one itself may go.
    store.remove("web", 2, &By::default()).unwrap();
    store.remove("web", 1, &By::default()).unwrap();
    assert_eq!(numbers(store), [3]);
    store.verify(&store.show("web@3").unwrap()).unwrap();
    assert!(store.collect(1, true, &By::default()).unwrap().damaged.is_empty());
}

/// Not a test of its own: [`a_kill_at_any_moment_leaves_versions_whole_or_gone`] runs it in a process that
/// it kills.
#[test]
fn child_that_comes_and_goes() {
    let Ok(dir) = std::env::var("KOBOSHI_TEST_COMES_AND_GOES") else { return };
    let store = Store::open(&dir).unwrap();
    let source = tempfile::NamedTempFile::new().unwrap();
    for n in 0.. {
        fs::write(source.path(), root_saying(&format!("{n} {}", std::process::id()))).unwrap();
        let by = By::default();
        import(&store, "web", source.path(), &ImportOptions::default(), &mut |_| ()).unwrap();
        store.publish("web", None, &by).unwrap();
        store.collect(0, false, &by).unwrap();
        store.rollback("web", None, &by).unwrap();
        store.collect(0, false, &by).unwrap();
    }
}

#[test]
fn a_kill_at_any_moment_leaves_versions_whole_or_gone() {
    let bench = bench(1);
    publish(&bench, 1);
    for round in 0..12 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "collect::child_that_comes_and_goes"])
            .env("KOBOSHI_TEST_COMES_AND_GOES", bench.store.dir())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(60 + round * 17));
        child.kill().unwrap();
        child.wait().unwrap();
        let all = bench.store.list().unwrap();
        for version in &all {
            bench.store.verify(version).unwrap();
        }
        assert_eq!(all.iter().filter(|version| version.current).count(), 1);
        let log = bench.store.log(Some("web")).unwrap();
        assert_eq!(log.unreadable, 0);
        let moved = |act: &&koboshi_images::Act| matches!(&act.act[..], "publish" | "rollback");
        let told = log.acts.iter().rev().find(moved).and_then(|act| act.version);
        assert_eq!(told, Some(bench.store.resolve("web").unwrap().version), "as the log has it");
        let ids: Vec<u64> = log.acts.iter().map(|act| act.id).collect();
        assert_eq!(ids, (1..=ids.len() as u64).collect::<Vec<_>>(), "no act is missing");
        let imported = log.acts.iter().filter(|act| act.act == "import");
        let numbers: Vec<u32> = imported.filter_map(|act| act.version).collect();
        assert!(numbers.is_sorted_by(|a, b| a < b), "a number twice: {numbers:?}");
    }
    bench.import_bytes(&root_saying("last")).unwrap();
    assert_eq!(fs::read_dir(bench.store.dir().join("tmp")).unwrap().count(), 0, "not swept");
    assert_eq!(stray_blobs(&bench), Vec::<String>::new());
}
