//! Roots built from a page of text. These fetch Debian packages: a kernel for virtual machines and
//! busybox, 30 MB once, kept under the target folder for the next run.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use koboshi_images::{BuildOptions, Error, Kernel, Progress, build};

use crate::fixture::Bench;

fn options() -> BuildOptions {
    let mut options = BuildOptions::new(PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("recipes"));
    options.kernel = Some(Kernel::Cloud);
    options
}

/// Path → what lies there: `file` bytes, `-> target`, or `dir`, each with its mode.
fn listing(bench: &Bench, name: &str) -> BTreeMap<String, String> {
    let root = bench.store.show(name).unwrap().boot.layers[0].blob;
    let packed = fs::File::open(bench.store.blob_path(&root.digest)).unwrap();
    let mut archive = tar::Archive::new(zstd::Decoder::new(packed).unwrap());
    archive
        .entries()
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let header = entry.header();
            let what = match entry.link_name().unwrap() {
                Some(link) => format!("-> {}", link.display()),
                None => format!(
                    "{:o} {} {}",
                    header.mode().unwrap(),
                    header.uid().unwrap(),
                    entry.size()
                ),
            };
            (entry.path().unwrap().to_string_lossy().into_owned(), what)
        })
        .collect()
}

#[test]
fn rescue_is_built_from_packages_alone() {
    let bench = Bench::new();
    let mut steps = Vec::new();
    let built = build(&bench.store, "rescue", &options(), &mut |progress| {
        if let Progress::Step(said) = progress {
            steps.push(said);
        }
    })
    .unwrap_or_else(|error| panic!("{error}"));
    let version = &built.version;
    assert_eq!((version.name.as_str(), version.version), ("rescue", 1));
    assert!(version.boot.kernel_release.contains("cloud"), "{}", version.boot.kernel_release);
    assert!(version.reason.as_ref().unwrap().starts_with("built from recipe rescue, linux-image-"));
    // It must fit beside its own archive into the smallest machine of the rack.
    assert!(version.boot.unpacked() < 96 << 20, "{} bytes", version.boot.unpacked());

    let files = listing(&bench, "rescue");
    for (path, what) in [
        ("sbin", "-> usr/sbin"),
        ("usr/sbin/init", "-> /usr/bin/busybox"),
        ("usr/bin/sh", "-> /usr/bin/busybox"),
        ("etc/hostname", "644 0 10"),
        ("etc/machine-id", "644 0 0"),
    ] {
        assert_eq!(files.get(path).map(String::as_str), Some(what), "{path}");
    }
    assert!(files["etc/rc"].starts_with("755 0 "));
    assert!(files["etc/shadow"].starts_with("600 0 "));
    let modules = format!("usr/lib/modules/{}", version.boot.kernel_release);
    assert!(files.contains_key(&format!("{modules}/modules.dep.bin")));
    assert!(files.contains_key(&format!("{modules}/kernel/drivers/net/virtio_net.ko")));
    assert!(!files.keys().any(|path| path.contains("/kernel/sound/")));
    assert!(
        files.values().all(|what| what.starts_with("->") || what.contains(" 0 ")),
        "all root's"
    );

    // The same packages give the same image.
    let again = build(&bench.store, "rescue", &options(), &mut |_| ()).unwrap();
    assert!(!again.new);
}

#[test]
fn a_recipe_of_ones_own_brings_its_files() {
    let bench = Bench::new();
    let dir = bench.path("recipes");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("motd"), b"welcome").unwrap();
    let path = dir.join("own.toml");
    fs::write(
        &path,
        r#"
name = "own"
base = "busybox"
kernel = "cloud"
modules = "none"
[[files]]
path = "/etc/motd"
source = "motd"
mode = "0640"
[[files]]
path = "/srv/deep/link"
link = "../../etc/motd"
"#,
    )
    .unwrap();
    let mut options = options();
    options.name = Some("mine".to_owned());
    build(&bench.store, path.to_str().unwrap(), &options, &mut |_| ())
        .unwrap_or_else(|error| panic!("{error}"));
    let files = listing(&bench, "mine");
    assert_eq!(files["etc/motd"], "640 0 7");
    assert_eq!(files["srv/deep/link"], "-> ../../etc/motd");
    assert!(!files.keys().any(|path| path.contains("lib/modules/6")));
    assert!(bench.store.show("mine").unwrap().boot.unpacked() < 8 << 20);
}

#[test]
fn recipes_that_cannot_be_built_say_why() {
    let bench = Bench::new();
    let refused = |recipe: &str, options: &BuildOptions| {
        build(&bench.store, recipe, options, &mut |_| ()).unwrap_err()
    };
    assert!(matches!(refused("nothing", &options()), Error::Recipe(_)));
    let mut unknown = options();
    unknown.kernel = Some(Kernel::Package("linux-image-of-nobody".to_owned()));
    let said = refused("rescue", &unknown).to_string();
    assert!(said.contains("linux-image-of-nobody"), "{said}");
    let mut option = options();
    option.kernel = Some(Kernel::Package("--version".to_owned()));
    assert!(matches!(refused("rescue", &option), Error::Recipe(_)));
    bench.assert_clean();
}
