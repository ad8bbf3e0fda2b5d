//! Roots built from a page of text. These fetch Debian packages: a kernel for virtual machines and
//! busybox, 30 MB once, kept under the target folder for the next run.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use koboshi_images::{BuildOptions, Error, Kernel, Progress, Version, build};

use crate::fixture::Bench;

fn options() -> BuildOptions {
    let mut options = BuildOptions::new(PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("recipes"));
    options.kernel = Some(Kernel::Cloud);
    options
}

/// Path → what lies there: mode, owner and bytes, or `-> target`.
fn listing(bench: &Bench, name: &str) -> BTreeMap<String, String> {
    let tars = bench.layer_tars(name);
    let mut sizes = BTreeMap::new();
    for tar in &tars {
        let mut archive = tar::Archive::new(&tar[..]);
        for entry in archive.entries().unwrap().map(Result::unwrap) {
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
            let path = entry.path().unwrap().to_string_lossy().trim_end_matches('/').to_owned();
            sizes.insert(path, what);
        }
    }
    let merged = bench.merged(name);
    sizes.retain(|path, _| merged.contains_key(path));
    sizes
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

/// Writes a recipe into the bench's own folder, and says where it is.
fn recipe(bench: &Bench, name: &str, text: &str) -> String {
    let dir = bench.path("recipes");
    fs::create_dir_all(&dir).unwrap();
    let path = dir.join(format!("{name}.toml"));
    fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

fn made(bench: &Bench, recipe: &str, options: &BuildOptions) -> Version {
    build(&bench.store, recipe, options, &mut |_| ()).unwrap_or_else(|e| panic!("{e}")).version
}

const SMALL: &str = "name = 'small'\nbase = 'busybox'\nkernel = 'cloud'\nmodules = 'boot'\n";

#[test]
fn each_step_is_a_layer_and_one_that_was_packed_is_not_packed_again() {
    let bench = Bench::new();
    let with = |motd: &str| format!("{SMALL}[[files]]\npath = '/etc/motd'\ntext = '{motd}'\n");
    let options = own_steps(&bench);
    let path = recipe(&bench, "small", &with("one"));
    let one = made(&bench, &path, &options);
    assert_eq!(one.boot.layers.len(), 3, "busybox, its kernel's modules, the recipe's files");
    recipe(&bench, "small", &with("two"));
    let mut packed = Vec::new();
    let two = build(&bench.store, &path, &options, &mut |progress| match progress {
        Progress::Packing { total, .. } => packed.push(total),
        Progress::Modules { .. } => packed.push(u64::MAX),
        _ => {}
    });
    let two = two.unwrap().version;
    assert_eq!(two.version, 2);
    assert_eq!(two.boot.layers[..2], one.boot.layers[..2]);
    assert_ne!(two.boot.layers[2], one.boot.layers[2]);
    assert_eq!((two.boot.kernel, &two.boot.segments), (one.boot.kernel, &one.boot.segments));
    assert!(packed.iter().all(|total| *total < 100), "the file alone: {packed:?}");
    bench.store.verify(&two).unwrap();
    // A note whose layer is gone is not believed.
    fs::remove_file(bench.store.blob_path(&one.boot.layers[1].blob.digest)).unwrap();
    let healed = made(&bench, &path, &options);
    assert_eq!(healed.digest, two.digest);
    bench.store.verify(&healed).unwrap();
}

/// The shared cache of packages, with notes of the test's own.
fn own_steps(bench: &Bench) -> BuildOptions {
    let shared = options();
    build(&bench.store, "rescue", &shared, &mut |_| ()).unwrap_or_else(|e| panic!("{e}"));
    let own = bench.path("cache");
    fs::create_dir(&own).unwrap();
    for part in ["apt", "packages"] {
        std::os::unix::fs::symlink(shared.cache.join(part), own.join(part)).unwrap();
    }
    BuildOptions { cache: own, ..shared }
}

#[test]
fn the_same_packages_make_the_same_image_on_any_day_and_in_any_cache() {
    let bench = Bench::new();
    let options = own_steps(&bench);
    let first = made(&bench, "rescue", &options);
    // Unpacked again at another time, in another order of directories.
    let packages = options.cache.join("packages");
    let shared = fs::read_link(&packages).unwrap();
    fs::remove_file(&packages).unwrap();
    let copy = ["-r", "--no-preserve=timestamps", shared.to_str().unwrap()];
    crate::fixture::run(
        "cp",
        &[&copy[..], &[packages.to_str().unwrap()]].concat(),
        bench.dir.path(),
    );
    fs::remove_dir_all(options.cache.join("steps")).unwrap();
    let depmod = fs::read_dir(&packages).unwrap().map(|entry| entry.unwrap().path().join("usr"));
    for usr in depmod.filter(|usr| usr.join("lib/modules").is_dir()) {
        let release = fs::read_dir(usr.join("lib/modules")).unwrap().next().unwrap().unwrap();
        let release = release.file_name().into_string().unwrap();
        crate::fixture::run("/usr/sbin/depmod", &["-b", usr.to_str().unwrap(), &release], &usr);
    }
    let store = koboshi_images::Store::open(bench.path("elsewhere")).unwrap();
    let again = build(&store, "rescue", &options, &mut |_| ()).unwrap();
    assert_eq!(again.version.digest, first.digest);
}

/// A recipe gives its files the time of its epoch, and an image it lies on may be younger than that.
#[test]
fn a_recipe_over_a_young_image_is_a_layer_of_what_it_adds() {
    let bench = Bench::new();
    let base = bench.import(&bench.root()).unwrap().version;
    let text = "name = 'page'\nfrom = 'web'\n[[files]]\npath = '/srv/page'\ntext = 'new'\n";
    let options = BuildOptions::new(bench.path("cache"));
    let page = made(&bench, &recipe(&bench, "page", text), &options);
    let (top, below) = page.boot.layers.split_last().unwrap();
    assert_eq!(below, &base.boot.layers[..]);
    let whole = base.boot.layers.iter().map(|layer| layer.inodes).sum::<u64>();
    assert!(top.inodes < whole, "{} names of {whole} are there once more", top.inodes);
    let merged = bench.merged("page");
    assert!(merged.contains_key("srv/page") && merged.contains_key("usr/sbin/init"));
}

#[test]
fn a_recipe_lies_on_an_image_and_shares_its_layers() {
    let bench = Bench::new();
    let options = options();
    let base = made(&bench, &recipe(&bench, "small", SMALL), &options);
    let text = "name = 'role'\nfrom = 'small'\nremove = ['/etc/host*']\nservices = ['own']\n\
        [[users]]\nname = 'ops'\nshell = '/bin/sh'\nkeys = ['ssh-ed25519 AAAA ops@desk']\n\
        [[files]]\npath = '/etc/systemd/system/own.service'\n\
        text = \"[Install]\\nWantedBy=multi-user.target\\n\"\n";
    let path = recipe(&bench, "role", text);
    let role = made(&bench, &path, &options);
    assert_eq!(role.boot.layers[..base.boot.layers.len()], base.boot.layers[..]);
    assert_eq!(role.boot.layers.len(), base.boot.layers.len() + 1);
    assert_eq!((role.boot.kernel, &role.beside), (base.boot.kernel, &base.beside));
    assert_eq!(role.boot.segments, base.boot.segments);
    assert!(role.reason.as_ref().unwrap().ends_with("recipe role, on small@1"));
    let merged = bench.merged("role");
    assert!(merged["etc/shadow"].starts_with("Regular 640 0:0"), "{}", merged["etc/shadow"]);
    assert!(merged["home/ops/.ssh/authorized_keys"].starts_with("Regular 600 1000:1000"));
    let wants = &merged["etc/systemd/system/multi-user.target.wants/own.service"];
    assert!(wants.contains("/etc/systemd/system/own.service"), "{wants}");
    // Its own host name is among what was removed, and then what every image has.
    assert!(merged.contains_key("etc/hostname"));
    // Twice is once; and on an older version of it, once more.
    assert!(!build(&bench.store, &path, &options, &mut |_| ()).unwrap().new);
    recipe(&bench, "small", &format!("{SMALL}[[files]]\npath = '/etc/motd'\ntext = 'new'\n"));
    let newer = made(&bench, bench.path("recipes/small.toml").to_str().unwrap(), &options);
    let moved = made(&bench, &path, &options);
    assert_eq!(moved.boot.layers[..newer.boot.layers.len()], newer.boot.layers[..]);
    recipe(&bench, "role", &text.replace("'small'", "'small@1'"));
    assert_eq!(made(&bench, &path, &options).digest, role.digest);

    for (text, says) in [
        ("name = 'x'\nfrom = 'nothing'", "no image `nothing`"),
        ("name = 'x'\nfrom = 'small@99'", "no version 99"),
        ("name = 'x'\nfrom = 'small'\npackages = ['a']", "no apt-get"),
        ("name = 'x'\nfrom = 'small'\nservices = ['none']", "no unit none.service"),
    ] {
        let path = recipe(&bench, "x", text);
        let said = build(&bench.store, &path, &options, &mut |_| ()).unwrap_err().to_string();
        assert!(said.contains(says), "{said}");
    }
}
