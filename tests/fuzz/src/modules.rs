//! What an image says of its kernel's modules: depmod's files, modules in four packings, firmware,
//! microcode. A first byte says which of them the rest is; the others are sound.

#![no_main]

use std::fs;

use koboshi_fuzz::folder;
use koboshi_initramfs::{Choice, Compression, cpio, microcode_segment, modules_segment, releases};
use libfuzzer_sys::{Corpus, fuzz_target};

const RELEASE: &str = "6.1.0-99-test";
const LIMIT: usize = 64 << 20;

fuzz_target!(|bytes: &[u8]| -> Corpus {
    let Some((which, rest)) = bytes.split_first() else { return Corpus::Reject };
    let root = folder().join("root");
    let _ = fs::remove_dir_all(&root);
    let modules = root.join("usr/lib/modules").join(RELEASE);
    fs::create_dir_all(modules.join("kernel/drivers/net/ethernet")).expect("a folder");
    fs::create_dir_all(root.join("usr/lib/firmware/intel-ucode")).expect("a folder");
    let module = ["a.ko", "a.ko.gz", "a.ko.xz", "a.ko.zst"][usize::from(which >> 4) % 4];
    let path = format!("kernel/drivers/net/ethernet/{module}");
    let second = "kernel/drivers/net/ethernet/b.ko";
    let dep = format!("{path}: {second}\n{second}:\n");
    for (name, text) in [
        ("modules.dep", dep.as_str()),
        ("modules.softdep", "softdep a pre: b\n"),
        ("modules.alias", "alias pci:v00008086d* a\n"),
        ("modules.builtin", "kernel/fs/ext4/ext4.ko\n"),
    ] {
        fs::write(modules.join(name), text).expect("a file");
    }
    fs::write(modules.join(second), "a module").expect("a file");
    fs::write(modules.join("kernel/drivers/net/ethernet/a.ko"), "a module").expect("a file");
    let given = match which & 15 {
        0 => modules.join("modules.dep"),
        1 => modules.join("modules.softdep"),
        2 => modules.join("modules.alias"),
        3 => modules.join("modules.weakdep"),
        4 => modules.join(&path),
        5 => root.join("usr/lib/firmware/intel-ucode/06-55-04"),
        _ => return Corpus::Reject,
    };
    fs::write(given, rest).expect("a file");
    let _ = releases(&root).expect("a folder of ours");
    if let Ok(segment) = modules_segment(&root, RELEASE, &Choice::servers(), Compression::None) {
        let archive = cpio::read(&segment.bytes, LIMIT).expect("what we wrote can be read");
        for (at, module) in segment.modules.iter().enumerate() {
            assert!(archive.data(&module.path).is_some(), "{module:?}");
            for dep in &module.deps {
                let before = segment.modules[..at].iter().any(|earlier| earlier.name == *dep);
                assert!(before, "{module:?} before what it needs");
            }
        }
    }
    if let Ok(Some(segment)) = microcode_segment(&root) {
        cpio::read(&segment, LIMIT).expect("what we wrote can be read");
    }
    Corpus::Keep
});
