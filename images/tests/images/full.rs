//! A disk that is full at any page and at any file: what was there stays as it was, what was to come is there
//! whole or not at all, and with room again all goes on. The disk is a tmpfs in a mount namespace of its own.

use std::fs;
use std::path::Path;
use std::process::Command;

use koboshi_images::{By, ImportOptions, Store, import};

use crate::store::root_saying;

const DISK: &str = "KOBOSHI_TEST_DISK";
const PAGE: u64 = 4096;

fn mount(options: &str, at: &Path) {
    let mut command = Command::new("mount");
    command.args(["-t", "tmpfs", "-o", options, "none"]).arg(at);
    assert!(command.status().unwrap().success(), "mount -o {options}");
}

/// Bytes and files that are in use.
fn used(at: &Path) -> (u64, u64) {
    let found = rustix::fs::statvfs(at).unwrap();
    ((found.f_blocks - found.f_bfree) * found.f_frsize, found.f_files - found.f_ffree)
}

/// Versions by name, which of them machines boot, and that each is whole.
fn told(store: &Store) -> Vec<String> {
    let all = store.list().unwrap();
    all.iter().for_each(|version| store.verify(version).unwrap());
    all.iter().map(|version| format!("{version} {}", version.current)).collect()
}

/// Not a test of its own: what the next one starts, where it may mount.
#[test]
fn child_on_a_small_disk() {
    let Ok(disk) = std::env::var(DISK) else { return };
    let disk = Path::new(&disk);
    mount("size=64m,nr_inodes=10000", disk);
    let dir = disk.join("images");
    let store = Store::open(&dir).unwrap();
    let sources = tempfile::tempdir().unwrap();
    let take_in = |text: &str| {
        let source = sources.path().join("root.tar");
        fs::write(&source, root_saying(text)).unwrap();
        import(&store, "web", &source, &ImportOptions::default(), &mut |_| ())
    };
    take_in("first").unwrap();
    store.publish("web", Some(1), &By::default()).unwrap();
    let whole = told(&store);
    let (mut refused, mut taken) = ([0; 2], 0);
    for scarce in ["bytes", "files"] {
        for extra in 0.. {
            let (bytes, files) = used(disk);
            let room = match scarce {
                "bytes" => format!("remount,size={},nr_inodes=10000", bytes + extra * PAGE),
                _ => format!("remount,size=64m,nr_inodes={}", files + extra),
            };
            mount(&room, disk);
            let came = take_in("second");
            let now = told(&store);
            match came {
                Ok(imported) => {
                    // It is whole, and machines boot the first still.
                    assert_eq!(now.len(), whole.len() + 1, "{room}");
                    assert_eq!(&now[..whole.len()], &whole[..], "{room}");
                    mount("remount,size=64m,nr_inodes=10000", disk);
                    store.remove("web", imported.version.version, &By::default()).unwrap();
                    taken += 1;
                    break;
                }
                Err(why) => {
                    assert_eq!(now, whole, "{room}: {why}");
                    let why = why.to_string();
                    assert!(why.contains("No space left"), "{room}: {why}");
                    refused[usize::from(scarce == "files")] += 1;
                }
            }
            assert!(extra < 5000, "{room} is not enough");
        }
        mount("remount,size=64m,nr_inodes=10000", disk);
        assert_eq!(fs::read_dir(dir.join("tmp")).unwrap().count(), 0, "not swept");
    }
    assert_eq!(taken, 2);
    assert!(refused[0] > 5 && refused[1] > 5, "{refused:?}");

    // To publish takes no more than a page or two.
    let second = take_in("second").unwrap().version.version;
    for extra in 0.. {
        mount(&format!("remount,size={},nr_inodes=10000", used(disk).0 + extra * PAGE), disk);
        let came = store.publish("web", Some(second), &By::default());
        let now = store.list().unwrap();
        let current: Vec<u32> = now.iter().filter(|v| v.current).map(|v| v.version).collect();
        assert_eq!(current, [if came.is_ok() { second } else { 1 }], "{extra}: {came:?}");
        if came.is_ok() {
            break;
        }
    }
}

#[test]
fn a_full_disk_at_any_page_leaves_whole_images_or_nothing() {
    let disk = tempfile::tempdir().unwrap();
    let mut command = Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command.arg("--mount").arg(std::env::current_exe().unwrap());
    command.args(["--exact", "full::child_on_a_small_disk", "--nocapture"]).env(DISK, disk.path());
    let output = command.output().expect("unshare (util-linux)");
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}
