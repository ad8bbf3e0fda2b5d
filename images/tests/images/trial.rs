//! Versions on trial, versions for single machines, and what takes a version back: all of it in the index, and
//! each act in the log.

use std::collections::BTreeSet;

use koboshi_images::{By, Error, Store, Track};

use super::lint::key;
use super::store::root_saying;
use crate::fixture::{Bench, base_tar, member};

fn by(author: &str, reason: &str) -> By {
    By { author: Some(author.to_owned()), reason: Some(reason.to_owned()) }
}

fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(ToString::to_string).collect()
}

fn web(store: &Store) -> Track {
    store.tracks().unwrap().remove("web").unwrap()
}

/// A store with three versions of `web`, the first of them for all.
fn three() -> Bench {
    let bench = Bench::new();
    for text in ["one", "two", "three"] {
        bench.import_bytes(&root_saying(text)).unwrap();
    }
    bench.store.publish("web", Some(1), &By::default()).unwrap();
    bench
}

fn begin(store: &Store, version: u32, machines: &[&str]) -> Result<(), Error> {
    store.begin_trial("web", version, names(machines), 600, &by("alice", "new nginx"))
}

fn refused(result: Result<(), Error>, why: &str) {
    let error = result.expect_err(why);
    assert!(error.to_string().contains(why), "{error}");
}

#[test]
fn a_trial_is_one_at_a_time_and_reads_back() {
    let bench = three();
    let store = &bench.store;
    refused(begin(store, 1, &["m07"]), "is what all machines boot already");
    begin(store, 2, &["m07"]).unwrap();
    let (version, trial) = web(store).trial.unwrap();
    assert_eq!((version, trial.stay, trial.against), (2, 600, Some(1)));
    assert_eq!((trial.by.as_deref(), trial.reason.as_deref()), (Some("alice"), Some("new nginx")));
    assert_eq!(trial.machines, names(&["m07"]));
    assert_eq!(web(store).others(), BTreeSet::from([2]));
    assert_eq!(store.resolve("web").unwrap().version, 1, "the rest never sees it");
    assert!(store.show("web@2").unwrap().published.is_none());
    refused(begin(store, 3, &["m08"]), "web@2 is on trial");
    // The same version on more machines.
    begin(store, 2, &["m07", "m08"]).unwrap();
    assert_eq!(web(store).trial.unwrap().1.machines, names(&["m07", "m08"]));
    store.end_trial("web", &by("bob", "")).unwrap();
    store.end_trial("web", &by("bob", "")).unwrap();
    assert_eq!(web(store).trial, None);
    begin(store, 3, &["m08"]).unwrap();
    let log = store.log(Some("web")).unwrap().acts;
    let acts: Vec<&str> = log.iter().map(|act| &*act.act).collect();
    assert_eq!(acts[acts.len() - 4..], ["trial", "trial", "trial-end", "trial"], "{acts:?}");
}

#[test]
fn a_version_that_is_withdrawn_says_why_until_it_is_wanted_again() {
    let bench = three();
    let store = &bench.store;
    begin(store, 2, &["m07"]).unwrap();
    store.withdraw("web", 2, &by("koboshi", "on m07: 3 boots")).unwrap();
    let shown = store.show("web@2").unwrap();
    assert_eq!(shown.marks.trial, None);
    assert_eq!(shown.marks.withdrawn.unwrap().why, "on m07: 3 boots");
    begin(store, 2, &["m07"]).unwrap();
    assert_eq!(store.show("web@2").unwrap().marks.withdrawn, None);
    store.withdraw("web", 2, &by("koboshi", "again")).unwrap();
    store.publish("web", Some(2), &by("alice", "it was the switch")).unwrap();
    assert_eq!(store.show("web@2").unwrap().marks.withdrawn, None);
    let track = web(store);
    assert_eq!((track.current.unwrap().0, track.former), (2, Some(1)));
    assert!(track.current.unwrap().1 > 0, "since when is known");
}

#[test]
fn a_machine_has_one_version_of_its_own() {
    let bench = three();
    let store = &bench.store;
    let who = by("alice", "its disk is old");
    store.pin_machine("web", 3, "m02", &who).unwrap();
    store.pin_machine("web", 3, "m05", &who).unwrap();
    store.pin_machine("web", 2, "m02", &who).unwrap();
    let pins: Vec<(String, u32)> = web(store).pins.into_iter().collect();
    assert_eq!(pins, [("m02".to_string(), 2), ("m05".to_string(), 3)]);
    assert_eq!(web(store).others(), BTreeSet::from([2, 3]));
    refused(begin(store, 3, &["m02"]), "m02 is pinned to web@2");
    assert_eq!(store.unpin_machine("web", "m02", &who).unwrap(), Some(2));
    assert_eq!(store.unpin_machine("web", "m02", &who).unwrap(), None);
    begin(store, 3, &["m02"]).unwrap();
    assert!(matches!(store.pin_machine("web", 9, "m02", &who), Err(Error::NoSuchVersion { .. })));
    assert!(matches!(store.unpin_machine("db", "m02", &who), Err(Error::NoSuchImage(_))));
    // None of them goes while somebody boots it.
    assert!(matches!(store.remove("web", 3, &who), Err(Error::InUse { .. })));
}

#[test]
fn what_was_tested_says_so_and_a_stranger_s_words_say_nothing() {
    let bench = three();
    let store = &bench.store;
    store.tested("web", 2, "bios, ram, 1024 MiB", &by("alice", "")).unwrap();
    let tested = store.show("web@2").unwrap().marks.tested.unwrap();
    assert_eq!((&*tested.how, tested.by.as_deref()), ("bios, ram, 1024 MiB", Some("alice")));
    begin(store, 2, &["m07"]).unwrap();
    let index = store.dir().join("index.json");
    let text = std::fs::read_to_string(&index).unwrap();
    let broken = text.replace(r#"{\"machines\":[\"m07\"]"#, r#"{\"machines\":7"#);
    assert_ne!(text, broken);
    std::fs::write(&index, broken).unwrap();
    assert_eq!(web(store).trial, None);
    assert_eq!(store.list().unwrap().len(), 3);
}

/// Whoever is killed between two of these leaves one that the other can go on from: verdicts are carried out
/// twice without harm.
#[test]
fn verdicts_twice_are_once() {
    let bench = three();
    let store = &bench.store;
    begin(store, 2, &["m07"]).unwrap();
    let us = by("koboshi", "m07 came up");
    for _ in 0..2 {
        store.publish("web", Some(2), &us).unwrap();
        store.end_trial("web", &us).unwrap();
    }
    for _ in 0..2 {
        store.rollback("web", Some(1), &us).unwrap();
        store.withdraw("web", 2, &us).unwrap();
    }
    let track = web(store);
    assert_eq!((track.current.unwrap().0, track.trial), (1, None));
    assert!(store.show("web@2").unwrap().marks.withdrawn.is_some());
}

/// What holds a secret reaches no machine by a side door.
#[test]
fn a_secret_stops_a_trial_too() {
    let bench = three();
    let mut builder = base_tar();
    let key = key();
    member(&mut builder, "root/.ssh/id_ed25519", tar::EntryType::Regular, "", key.as_bytes());
    bench.import_bytes(&builder.into_inner().unwrap()).unwrap();
    let who = By::default();
    assert!(matches!(begin(&bench.store, 4, &["m07"]), Err(Error::Lint(_))));
    assert!(matches!(bench.store.pin_machine("web", 4, "m07", &who), Err(Error::Lint(_))));
    assert_eq!(web(&bench.store).others(), BTreeSet::new());
}
