//! A kernel of nine modules stands in for Debian's four thousand.

use std::fs;
use std::os::unix::fs::symlink;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::cpio;
use crate::modinfo::tiny_module;

const RELEASE: &str = "6.1.0-9-test";
const NET: &str = "kernel/drivers/net/ethernet";

const DEP: &str = "\
kernel/net/core/failover.ko:
kernel/drivers/net/net_failover.ko: kernel/net/core/failover.ko
kernel/drivers/net/virtio_net.ko: kernel/drivers/net/net_failover.ko kernel/net/core/failover.ko
kernel/drivers/net/phy/real-tek.ko.zst:
kernel/drivers/net/ethernet/r8169.ko.gz:
kernel/drivers/net/ethernet/bnx2x.ko.xz:
kernel/drivers/char/ipmi/ipmi_msghandler.ko:
kernel/drivers/char/ipmi/ipmi_si.ko: kernel/drivers/char/ipmi/ipmi_msghandler.ko
kernel/drivers/gpu/radeon.ko:
";
const SOFT: &str = "softdep r8169 pre: real-tek\nsoftdep ipmi_msghandler post: failover radeon\n";
const ALIAS: &str = "\
alias virtio:d00000001v* virtio_net
alias pci:v000010ECd00008168sv*sd*bc*sc*i* r8169
alias acpi*:IPI0001:* ipmi-si
alias pci:v00001002d* radeon
";

/// A root as Debian lays it out: `/lib` is a link.
fn kernel() -> TempDir {
    let root = tempfile::tempdir().expect("a directory");
    let modules = root.path().join("usr/lib/modules").join(RELEASE);
    symlink("usr/lib", root.path().join("lib")).ok();
    for line in DEP.lines() {
        let path = line.split(':').next().expect("split has a first");
        let plain = tiny_module(match path.rsplit('/').next() {
            Some("bnx2x.ko.xz") => {
                b"firmware=bnx2x/a.fw\0firmware=bnx2x/packed.fw\0firmware=new.fw\0"
            }
            Some("r8169.ko.gz") => {
                b"firmware=bnx2x/a.fw\0firmware=../../../etc/shadow\0firmware=out.fw\0"
            }
            _ => b"license=GPL\0",
        });
        let file = modules.join(path);
        fs::create_dir_all(file.parent().expect("below modules")).expect("made");
        let bytes = match path.rsplit('.').next() {
            Some("zst") => zstd::encode_all(&plain[..], 3).expect("memory"),
            Some("gz") => Compression::Gzip.pack(&plain).to_vec(),
            Some("xz") => {
                let mut out = Vec::new();
                lzma_rs::xz_compress(&mut &plain[..], &mut out).expect("memory");
                out
            }
            _ => plain,
        };
        fs::write(file, bytes).expect("written");
    }
    for (file, text) in [("modules.dep", DEP), ("modules.softdep", SOFT), ("modules.alias", ALIAS)]
    {
        fs::write(modules.join(file), text).expect("written");
    }
    let firmware = root.path().join("usr/lib/firmware");
    fs::create_dir_all(firmware.join("bnx2x")).expect("made");
    fs::write(firmware.join("bnx2x/a-7.fw"), "firmware a").expect("written");
    symlink("a-7.fw", firmware.join("bnx2x/a.fw")).expect("linked");
    fs::write(firmware.join("bnx2x/packed.fw.xz"), "as it is").expect("written");
    symlink("/etc/hostname", firmware.join("out.fw")).expect("linked");
    root
}

fn segment(root: &TempDir, choice: &Choice) -> ModulesSegment {
    modules_segment(root.path(), RELEASE, choice, Compression::Zstd).expect("a sound kernel")
}

#[test]
fn drivers_with_all_they_need() {
    let root = kernel();
    let segment = segment(&root, &Choice::servers());
    let archive = cpio::read(&segment.bytes, 1 << 20).expect("our own");
    let text =
        |path: &str| String::from_utf8(archive.data(path).expect(path).to_vec()).expect("text");
    let at = format!("/lib/modules/{RELEASE}");
    assert_eq!(
        text(contract::MODULES_LIST),
        format!(
            "\
bnx2x {at}/{NET}/bnx2x.ko
failover {at}/kernel/net/core/failover.ko
ipmi_msghandler {at}/kernel/drivers/char/ipmi/ipmi_msghandler.ko
ipmi_si {at}/kernel/drivers/char/ipmi/ipmi_si.ko ipmi_msghandler
net_failover {at}/kernel/drivers/net/net_failover.ko failover
real_tek {at}/kernel/drivers/net/phy/real-tek.ko
r8169 {at}/{NET}/r8169.ko real_tek
radeon {at}/kernel/drivers/gpu/radeon.ko
virtio_net {at}/kernel/drivers/net/virtio_net.ko failover,net_failover
"
        )
    );
    assert_eq!(
        text(contract::ALIASES_LIST),
        "\
virtio:d00000001v* virtio_net
pci:v000010ECd00008168sv*sd*bc*sc*i* r8169
acpi*:IPI0001:* ipmi_si
acpi*:IPI0001:* failover
acpi*:IPI0001:* radeon
pci:v00001002d* radeon
"
    );
    for module in &segment.modules {
        let data = archive.data(&module.path).expect("in it");
        assert!(data.starts_with(b"\x7fELF") && data.len() as u64 == module.size, "{module:?}");
    }
    assert_eq!(segment.bytes.len() % 4, 0);
    assert_eq!(segment.bytes, self::segment(&root, &Choice::servers()).bytes);
}

#[test]
fn firmware_comes_along_and_stays_in_the_image() {
    let segment = segment(&kernel(), &Choice::servers());
    let archive = cpio::read(&segment.bytes, 1 << 20).expect("our own");
    assert_eq!(segment.firmware, ["bnx2x/a.fw", "bnx2x/packed.fw"]);
    assert_eq!(archive.data("lib/firmware/bnx2x/a.fw").expect("in it").as_ref(), b"firmware a");
    let packed = archive.data("lib/firmware/bnx2x/packed.fw.xz").expect("in it");
    assert_eq!(packed.as_ref(), b"as it is");
    let missing: Vec<_> =
        segment.firmware_missing.iter().map(|(m, f)| format!("{m} {f}")).collect();
    assert_eq!(missing, ["bnx2x new.fw", "r8169 ../../../etc/shadow", "r8169 out.fw"]);
}

#[test]
fn only_what_was_asked_for() {
    let segment = segment(&kernel(), &Choice::only(&["virtio_net", "not_there"]));
    let names: Vec<_> = segment.modules.iter().map(|module| module.name.as_str()).collect();
    assert_eq!(names, ["failover", "net_failover", "virtio_net"]);
}

#[test]
fn what_is_missing_is_named() {
    let root = kernel();
    let error = |release: &str| {
        let choice = Choice::servers();
        let all = modules_segment(root.path(), release, &choice, Compression::None);
        all.expect_err(release).to_string()
    };
    for release in ["5.10.0-1", "", "..", "../modules/6.1.0-9-test", ".", "a\0b"] {
        let text = error(release);
        assert!(text.contains("it has: 6.1.0-9-test"), "{release:?}: {text}");
    }
    let modules = root.path().join("usr/lib/modules").join(RELEASE);
    fs::write(modules.join("kernel/net/core/failover.ko"), [0xff; 30]).expect("written");
    error_free(&root);
    for line in DEP.lines() {
        let path = line.split(':').next().expect("split has a first");
        fs::remove_file(modules.join(path)).expect("removed");
    }
    assert!(error(RELEASE).contains("kernel/drivers/net/ethernet/bnx2x.ko.xz in the image"));
    fs::write(modules.join("modules.dep"), b"a.ko:\n\xff\xfe").expect("written");
    assert!(error(RELEASE).contains("modules.dep line 2: not text"), "{}", error(RELEASE));
    fs::remove_file(modules.join("modules.dep")).expect("removed");
    assert!(error(RELEASE).contains("run `depmod -b ROOT 6.1.0-9-test`"), "{}", error(RELEASE));
    assert_eq!(releases(root.path()).expect("read"), [RELEASE]);
    assert!(releases(&modules).expect("read").is_empty());
}

/// A list of the whole kernel beside a part of it: what is there is taken, and what is not is told.
#[test]
fn modules_that_are_only_listed_are_left_out() {
    let root = kernel();
    let modules = root.path().join("usr/lib/modules").join(RELEASE);
    fs::remove_file(modules.join("kernel/net/core/failover.ko")).expect("removed");
    fs::remove_file(modules.join("kernel/drivers/gpu/radeon.ko")).expect("removed");
    let segment = segment(&root, &Choice::servers());
    assert_eq!(segment.missing, ["kernel/net/core/failover.ko", "kernel/drivers/gpu/radeon.ko"]);
    let archive = cpio::read(&segment.bytes, 1 << 20).expect("our own");
    for list in [contract::MODULES_LIST, contract::ALIASES_LIST] {
        let text = String::from_utf8(archive.data(list).expect(list).to_vec()).expect("text");
        let named = text.split([' ', ',', '\n']).any(|word| word == "failover" || word == "radeon");
        assert!(!named, "{text}");
    }
    let virtio = segment.modules.iter().find(|module| module.name == "virtio_net").expect("there");
    assert_eq!(virtio.deps, ["net_failover"]);
}

fn error_free(root: &TempDir) {
    segment(root, &Choice::servers());
}

fn depmod_text() -> impl Strategy<Value = (String, String)> {
    let names = || proptest::collection::vec(0..9u8, 0..4);
    let row = (0..9u8, names(), names(), names());
    proptest::collection::vec(row, 0..12).prop_map(|rows| {
        let (mut dep, mut soft) = (String::new(), String::new());
        for (name, hard, pre, post) in rows {
            let list = |names: Vec<u8>, end: &str| -> String {
                names.iter().map(|name| format!(" m{name}{end}")).collect()
            };
            dep += &format!("m{name}.ko:{}\n", list(hard, ".ko"));
            soft += &format!("softdep m{name} pre:{} post:{}\n", list(pre, ""), list(post, ""));
        }
        (dep, soft)
    })
}

proptest! {
    #[test]
    fn a_line_comes_after_the_lines_of_its_deps((dep, soft) in depmod_text(), chosen in 0..9u8) {
        let all = Depmod::parse(&dep, &soft, "", "").expect("small");
        let chosen = format!("m{chosen}");
        let wanted = all.closure([chosen.as_str()].into_iter());
        let mut seen = HashSet::new();
        for (name, deps) in in_order(&all, &wanted).expect("small") {
            prop_assert!(deps.iter().all(|dep| seen.contains(dep.as_str())), "{name}: {deps:?}");
            prop_assert!(seen.insert(name));
        }
        prop_assert!(seen.is_superset(&wanted));
    }

    #[test]
    fn any_text_is_an_error_at_most(dep in "[a-b/.ko: \n-]{0,60}", soft in "[a-bpre: softdep\n]{0,60}") {
        if let Ok(all) = Depmod::parse(&dep, &soft, &soft, &soft) {
            let wanted = all.closure(all.modules.keys().map(String::as_str));
            let _any = in_order(&all, &wanted);
        }
    }
}
