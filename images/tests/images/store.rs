//! Versions and publishing; two imports at once; what a kill leaves behind; and that strangers
//! find an ordinary OCI layout.

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use koboshi_images::{By, Digest, Error, ImportOptions, Store, import};
use serde_json::Value;

use crate::fixture::{Bench, base_tar, member};

pub fn root_saying(text: &str) -> Vec<u8> {
    let mut builder = base_tar();
    member(&mut builder, "etc/motd", tar::EntryType::Regular, "", text.as_bytes());
    builder.into_inner().unwrap()
}

#[test]
fn versions_count_up_and_only_published_ones_boot() {
    let bench = Bench::new();
    assert!(matches!(bench.store.resolve("web"), Err(Error::NoSuchImage(_))));
    assert!(matches!(bench.store.publish("web", None, &By::default()), Err(Error::NoSuchImage(_))));
    let one = bench.import_bytes(&root_saying("one")).unwrap().version;
    assert!(matches!(bench.store.resolve("web"), Err(Error::NothingPublished(_))));
    assert_eq!(bench.store.resolve("web@1").unwrap().layers[0].blob, one.boot.layers[0].blob);
    assert!(bench.store.publish("web", None, &By::default()).unwrap().published.is_some());
    let two = bench.import_bytes(&root_saying("two")).unwrap().version;
    assert_eq!((two.version, two.parent), (2, Some(one.digest)));
    assert_eq!(bench.store.resolve("web").unwrap().version, 1, "2 is not published yet");
    let published = bench.store.publish("web", Some(2), &By::default()).unwrap();
    assert_eq!(
        bench.store.publish("web", Some(2), &By::default()).unwrap(),
        published,
        "twice is once"
    );
    assert_eq!(bench.store.resolve("web").unwrap().version, 2);
    // The former content again is a version of its own, and shares its blobs.
    let three = bench.import_bytes(&root_saying("one")).unwrap();
    assert!(three.new);
    assert_eq!((three.version.version, three.version.digest), (3, one.digest));
    assert_eq!(bench.store.resolve("web").unwrap().version, 2);
    bench.store.publish("web", None, &By::default()).unwrap();
    assert_eq!(bench.store.resolve("web").unwrap().version, 3);
    assert!(bench.store.show("web@1").unwrap().published.is_some());
    assert!(matches!(
        bench.store.resolve("web@9"),
        Err(Error::NoSuchVersion { version: 9, newest: 3, .. })
    ));
    let listed: Vec<String> = bench.store.list().unwrap().iter().map(|v| v.to_string()).collect();
    assert_eq!(listed, ["web@1", "web@2", "web@3"]);
}

fn by(author: &str, reason: &str) -> By {
    By { author: Some(author.to_owned()), reason: Some(reason.to_owned()) }
}

fn current(store: &Store) -> u32 {
    let all = store.list().unwrap();
    let current: Vec<u32> = all.iter().filter(|v| v.current).map(|v| v.version).collect();
    assert_eq!(current.len(), 1, "one version is current");
    assert_eq!(store.resolve("web").unwrap().version, current[0]);
    current[0]
}

#[test]
fn machines_go_back_step_by_step_and_the_log_says_who_sent_them() {
    let bench = Bench::new();
    let store = &bench.store;
    let none = By::default();
    for (text, publish) in [("one", true), ("two", false), ("three", true), ("four", true)] {
        bench.import_bytes(&root_saying(text)).unwrap();
        if publish {
            store.publish("web", None, &none).unwrap();
        }
    }
    let four = store.show("web@4").unwrap();
    assert_eq!((four.current, four.former), (true, Some(3)));
    let bad = by("ann", "five hundreds");
    assert_eq!(store.rollback("web", None, &bad).unwrap().version, 3);
    assert_eq!(current(store), 3);
    assert_eq!(store.rollback("web", None, &none).unwrap().version, 1, "2 was never published");
    assert_eq!(current(store), 1);
    let refused = store.rollback("web", None, &none);
    assert!(matches!(refused, Err(Error::NoFormer { current: 1, .. })), "{refused:?}");
    let refused = store.rollback("web", Some(2), &none);
    assert!(matches!(refused, Err(Error::NeverPublished { version: 2, .. })), "{refused:?}");
    assert!(store.rollback("web", Some(9), &none).is_err());
    store.rollback("web", Some(3), &none).unwrap();
    let published = store.show("web@4").unwrap().published;
    store.publish("web", Some(4), &by("bob", "repaired")).unwrap();
    assert_eq!(current(store), 4);
    assert_eq!(store.show("web@4").unwrap().published, published, "the first time stands");
    store.rollback("web", Some(4), &none).unwrap();

    let log = store.log(Some("web")).unwrap();
    let told: Vec<(&str, u32, Option<u32>)> =
        log.acts.iter().map(|act| (&act.act[..], act.version.unwrap(), act.former)).collect();
    assert_eq!(
        told,
        [
            ("import", 1, None),
            ("publish", 1, None),
            ("import", 2, None),
            ("import", 3, None),
            ("publish", 3, Some(1)),
            ("import", 4, None),
            ("publish", 4, Some(3)),
            ("rollback", 3, Some(4)),
            ("rollback", 1, Some(3)),
            ("rollback", 3, Some(1)),
            ("publish", 4, Some(3)),
        ]
    );
    let back = &log.acts[7];
    assert_eq!(back.author.as_deref(), Some("ann"));
    assert_eq!(back.reason.as_deref(), Some("five hundreds"));
    assert_eq!(back.digest, Some(store.show("web@3").unwrap().digest));
    assert!(store.log(Some("db")).unwrap().acts.is_empty());
}

/// A store that an older koboshi wrote knows what was published, and nothing more.
#[test]
fn an_older_store_boots_its_newest_published_version() {
    let bench = Bench::new();
    for text in ["one", "two", "three"] {
        bench.import_bytes(&root_saying(text)).unwrap();
    }
    let path = bench.store.dir().join("index.json");
    let mut index: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    index.as_object_mut().unwrap().remove("annotations");
    for entry in index["manifests"].as_array_mut().unwrap() {
        let said = entry.get_mut("annotations").and_then(Value::as_object_mut);
        let version = said.as_ref().and_then(|said| said.get("dev.koboshi.version"));
        if version.is_some_and(|version| version == "1" || version == "2") {
            let at = "2026-01-01T00:00:00Z".into();
            said.unwrap().insert("dev.koboshi.published".to_owned(), at);
        }
    }
    fs::write(&path, serde_json::to_vec(&index).unwrap()).unwrap();
    fs::remove_file(bench.store.dir().join("log.jsonl")).unwrap();
    assert_eq!(current(&bench.store), 2);
    bench.store.publish("web", None, &By::default()).unwrap();
    assert_eq!(current(&bench.store), 3);
    for back in [2, 1] {
        assert_eq!(bench.store.rollback("web", None, &By::default()).unwrap().version, back);
    }
}

#[test]
fn a_pin_says_who_and_why() {
    let bench = Bench::new();
    bench.import_bytes(&root_saying("one")).unwrap();
    let pinned = bench.store.pin("web", 1, &by("ann", "the auditors'")).unwrap().pinned.unwrap();
    assert_eq!((pinned.by.as_deref(), pinned.why.as_deref()), (Some("ann"), Some("the auditors'")));
    assert!(bench.store.pin("web", 2, &By::default()).is_err());
    assert_eq!(bench.store.unpin("web", 1, &By::default()).unwrap().pinned, None);
    bench.store.unpin("web", 1, &By::default()).unwrap();
    let acts = bench.store.log(None).unwrap().acts;
    assert_eq!(acts.iter().map(|act| &act.act[..]).collect::<Vec<_>>(), ["import", "pin", "unpin"]);
}

#[test]
fn many_who_publish_at_once_are_one_after_another() {
    let bench = Bench::new();
    for text in 1..=6 {
        bench.import_bytes(&root_saying(&text.to_string())).unwrap();
    }
    std::thread::scope(|scope| {
        for version in 1..=6 {
            let store = Store::open(bench.store.dir()).unwrap();
            scope.spawn(move || {
                store.publish("web", Some(version), &By::default()).unwrap();
            });
        }
    });
    let now = current(&bench.store);
    let log = bench.store.log(Some("web")).unwrap();
    let published: Vec<_> = log.acts.iter().filter(|act| act.act == "publish").collect();
    assert_eq!(published.len(), 6);
    assert_eq!(published[5].version, Some(now));
    for pair in published.windows(2) {
        assert_eq!(pair[1].former, pair[0].version);
    }
}

#[test]
fn who_when_and_why_are_kept() {
    let bench = Bench::new();
    let path = bench.path("archive");
    fs::write(&path, root_saying("x")).unwrap();
    let options = ImportOptions {
        author: Some("ops".to_owned()),
        reason: Some("first\nversion".to_owned()),
        ..ImportOptions::default()
    };
    import(&bench.store, "web", &path, &options, &mut |_| ()).unwrap();
    let version = bench.store.show("web").unwrap();
    assert_eq!(version.author.as_deref(), Some("ops"));
    assert_eq!(version.reason.as_deref(), Some("first\nversion"));
    let age = jiff::Timestamp::now().duration_since(version.created);
    assert!(age.as_secs().abs() < 600, "{age:?}");
}

#[test]
fn two_imports_at_once_both_arrive() {
    let bench = Bench::new();
    std::thread::scope(|scope| {
        for n in 0..4 {
            let bench = &bench;
            scope.spawn(move || {
                let path = bench.path(&format!("{n}.tar"));
                fs::write(&path, root_saying(&format!("import {n}"))).unwrap();
                let name = if n % 2 == 0 { "web" } else { "db" };
                import(&bench.store, name, &path, &ImportOptions::default(), &mut |_| ()).unwrap();
            });
        }
    });
    let all = bench.store.list().unwrap();
    let names: Vec<String> = all.iter().map(|version| version.to_string()).collect();
    assert_eq!(names, ["db@1", "db@2", "web@1", "web@2"]);
    all.iter().for_each(|version| bench.store.verify(version).unwrap());
    assert_eq!(fs::read_dir(bench.store.dir().join("tmp")).unwrap().count(), 0);
}

/// Not a test of its own: what the next one starts and kills. It imports one version after the
/// other until it dies.
#[test]
fn child_that_imports() {
    let Ok(dir) = std::env::var("KOBOSHI_TEST_STORE") else { return };
    let store = Store::open(&dir).unwrap();
    let source = tempfile::NamedTempFile::new().unwrap();
    for n in 0.. {
        fs::write(source.path(), root_saying(&format!("{n} {}", std::process::id()))).unwrap();
        import(&store, "web", source.path(), &ImportOptions::default(), &mut |_| ()).unwrap();
    }
}

#[test]
fn a_killed_import_leaves_whole_images_or_nothing() {
    let bench = Bench::new();
    let own = bench.import_bytes(&root_saying("mine")).unwrap().version;
    for round in 0..12 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "store::child_that_imports"])
            .env("KOBOSHI_TEST_STORE", bench.store.dir())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // Let it get somewhere, each time a little further.
        let begun = Instant::now();
        let busy = || fs::read_dir(bench.store.dir().join("tmp")).unwrap().count() > 0;
        while !busy() && begun.elapsed() < Duration::from_secs(20) {
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_millis(round * 9));
        child.kill().unwrap();
        child.wait().unwrap();
        for version in bench.store.list().unwrap() {
            bench.store.verify(&version).unwrap();
        }
    }
    bench.import_bytes(&root_saying("last")).unwrap();
    assert_eq!(fs::read_dir(bench.store.dir().join("tmp")).unwrap().count(), 0, "not swept");
    assert_eq!(bench.store.show("web@1").unwrap(), own);
    assert_eq!(stray_blobs(&bench), Vec::<String>::new());
}

/// Blobs that no manifest of the index leads to.
pub fn stray_blobs(bench: &Bench) -> Vec<String> {
    let read = |path: &std::path::Path| -> Value {
        serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
    };
    let blobs = bench.store.dir().join("blobs/sha256");
    let index = read(&bench.store.dir().join("index.json"));
    let mut led_to = Vec::new();
    let hex = |found: &Value| found["digest"].as_str().unwrap()[7..].to_owned();
    for found in index["manifests"].as_array().unwrap() {
        led_to.push(hex(found));
        let manifest = read(&blobs.join(hex(found)));
        led_to.push(hex(&manifest["config"]));
        led_to.extend(manifest["layers"].as_array().unwrap().iter().map(hex));
    }
    let there = fs::read_dir(&blobs).unwrap();
    there
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !led_to.contains(name))
        .collect()
}

#[test]
fn strangers_find_an_ordinary_oci_image() {
    let bench = Bench::new();
    let version = bench.import_bytes(&root_saying("x")).unwrap().version;
    let dir = bench.store.dir();
    let read = |path: String| -> Value {
        serde_json::from_slice(&fs::read(dir.join(path)).unwrap()).unwrap()
    };
    assert_eq!(read("oci-layout".into())["imageLayoutVersion"], "1.0.0");
    let index = read("index.json".into());
    let found = index["manifests"]
        .as_array()
        .unwrap()
        .iter()
        .find(|found| found["annotations"]["org.opencontainers.image.ref.name"] == "web:1")
        .unwrap();
    assert_eq!(found["digest"], version.digest.to_string());
    let image = read(format!("blobs/sha256/{}", version.digest.hex()));
    let layers = image["layers"].as_array().unwrap();
    let kinds: Vec<&Value> = layers.iter().map(|layer| &layer["mediaType"]).collect();
    assert_eq!(kinds, ["application/vnd.oci.image.layer.v1.tar+zstd"; 2]);
    assert_eq!(layers[0]["annotations"]["dev.koboshi.layer"], "boot");
    let config = &image["config"]["digest"].as_str().unwrap()[7..];
    let config = read(format!("blobs/sha256/{config}"));
    assert_eq!(config["os"], "linux");
    assert_eq!(config["rootfs"]["diff_ids"][1], Digest::of(&bench.root_tar()).to_string());
    assert_eq!(stray_blobs(&bench), Vec::<String>::new());
}

#[test]
fn damage_is_found_and_not_published() {
    let bench = Bench::new();
    let version = bench.import_bytes(&root_saying("x")).unwrap().version;
    let root = bench.store.blob_path(&version.boot.layers[0].blob.digest);
    let mut bytes = fs::read(&root).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    fs::write(&root, &bytes).unwrap();
    let said = bench.store.verify(&version).unwrap_err();
    assert!(
        matches!(said, Error::Damaged { digest, .. } if digest == version.boot.layers[0].blob.digest)
    );
    fs::write(&root, &bytes[1..]).unwrap();
    assert!(matches!(bench.store.publish("web", None, &By::default()), Err(Error::Damaged { .. })));
    // The same content once more heals it.
    assert!(!bench.import_bytes(&root_saying("x")).unwrap().new);
    bench.store.verify(&version).unwrap();
}

#[test]
fn a_store_of_others_is_left_alone() {
    let bench = Bench::new();
    let path = bench.store.dir().join("index.json");
    let theirs = r#"{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json",
        "digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":7,
        "urls":["https://example.net/x"],"annotations":{"org.opencontainers.image.ref.name":"busybox:1"}}],
        "annotations":{"who":"them"}}"#;
    fs::write(&path, theirs).unwrap();
    assert!(bench.store.list().unwrap().is_empty());
    bench.import_bytes(&root_saying("x")).unwrap();
    let index: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let before: Value = serde_json::from_str(theirs).unwrap();
    assert_eq!(index["manifests"][0], before["manifests"][0]);
    assert_eq!(index["annotations"]["who"], "them");
    fs::write(&path, b"{").unwrap();
    assert!(matches!(bench.store.list(), Err(Error::Store { .. })));
    fs::write(bench.store.dir().join("oci-layout"), r#"{"imageLayoutVersion":"2.0.0"}"#).unwrap();
    assert!(Store::open(bench.store.dir()).is_err());
}
