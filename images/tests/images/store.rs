//! Versions and publishing; two imports at once; what a kill leaves behind; and that strangers
//! find an ordinary OCI layout.

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use koboshi_images::{Digest, Error, ImportOptions, Store, import};
use serde_json::Value;

use crate::fixture::{Bench, base_tar, member};

fn root_saying(text: &str) -> Vec<u8> {
    let mut builder = base_tar();
    member(&mut builder, "etc/motd", tar::EntryType::Regular, "", text.as_bytes());
    builder.into_inner().unwrap()
}

#[test]
fn versions_count_up_and_only_published_ones_boot() {
    let bench = Bench::new();
    assert!(matches!(bench.store.resolve("web"), Err(Error::NoSuchImage(_))));
    assert!(matches!(bench.store.publish("web", None), Err(Error::NoSuchImage(_))));
    let one = bench.import_bytes(&root_saying("one")).unwrap().version;
    assert!(matches!(bench.store.resolve("web"), Err(Error::NothingPublished(_))));
    assert_eq!(bench.store.resolve("web@1").unwrap().layers[0].blob, one.boot.layers[0].blob);
    assert!(bench.store.publish("web", None).unwrap().published.is_some());
    let two = bench.import_bytes(&root_saying("two")).unwrap().version;
    assert_eq!((two.version, two.parent), (2, Some(one.digest)));
    assert_eq!(bench.store.resolve("web").unwrap().version, 1, "2 is not published yet");
    let published = bench.store.publish("web", Some(2)).unwrap();
    assert_eq!(bench.store.publish("web", Some(2)).unwrap(), published, "twice is once");
    assert_eq!(bench.store.resolve("web").unwrap().version, 2);
    // The former content again is a version of its own, and shares its blobs.
    let three = bench.import_bytes(&root_saying("one")).unwrap();
    assert!(three.new);
    assert_eq!((three.version.version, three.version.digest), (3, one.digest));
    assert_eq!(bench.store.resolve("web").unwrap().version, 2);
    bench.store.publish("web", None).unwrap();
    assert_eq!(bench.store.resolve("web").unwrap().version, 3);
    assert!(bench.store.show("web@1").unwrap().published.is_some());
    assert!(matches!(
        bench.store.resolve("web@9"),
        Err(Error::NoSuchVersion { version: 9, newest: 3, .. })
    ));
    let listed: Vec<String> = bench.store.list().unwrap().iter().map(|v| v.to_string()).collect();
    assert_eq!(listed, ["web@1", "web@2", "web@3"]);
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
fn stray_blobs(bench: &Bench) -> Vec<String> {
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
    assert_eq!(image["layers"].as_array().unwrap().len(), 1);
    assert_eq!(image["layers"][0]["mediaType"], "application/vnd.oci.image.layer.v1.tar+zstd");
    let config = &image["config"]["digest"].as_str().unwrap()[7..];
    let config = read(format!("blobs/sha256/{config}"));
    assert_eq!(config["os"], "linux");
    assert_eq!(config["rootfs"]["diff_ids"][0], Digest::of(&bench.root_tar()).to_string());
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
    assert!(matches!(bench.store.publish("web", None), Err(Error::Damaged { .. })));
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
    assert_eq!(index["annotations"], before["annotations"]);
    fs::write(&path, b"{").unwrap();
    assert!(matches!(bench.store.list(), Err(Error::Store { .. })));
    fs::write(bench.store.dir().join("oci-layout"), r#"{"imageLayoutVersion":"2.0.0"}"#).unwrap();
    assert!(Store::open(bench.store.dir()).is_err());
}
