//! The drivers of Debian's real kernels, the one for all hardware and the one for virtual machines,
//! as `make rack-images` has unpacked and indexed them.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use koboshi_initramfs::{Choice, Compression, contract, cpio, modules_segment, releases};

#[test]
fn debian_kernels() {
    let cache = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/rack/cache/packages");
    let packages = std::fs::read_dir(&cache).map(|dir| dir.flatten().collect::<Vec<_>>());
    let packages = packages.unwrap_or_default().into_iter().map(|package| package.path());
    let is_kernel = |path: &PathBuf| {
        path.is_dir()
            && path
                .file_name()
                .is_some_and(|name| name.as_encoded_bytes().starts_with(b"linux-image-"))
    };
    let kernels: Vec<PathBuf> = packages.filter(is_kernel).collect();
    let has = |cloud: bool| {
        kernels.iter().any(|path| path.to_string_lossy().contains("-cloud-") == cloud)
    };
    assert!(has(true) && has(false), "{}: `make rack-images` fetches the kernels", cache.display());
    kernels.iter().for_each(|root| debian_kernel(root));
}

fn debian_kernel(root: &Path) {
    for release in releases(root).expect("a root with modules") {
        let begun = std::time::Instant::now();
        let segment = modules_segment(root, &release, &Choice::servers(), Compression::Zstd)
            .expect("a sound kernel");
        println!(
            "{release}: {} modules, {} bytes, as zstd {} bytes, {:?}; firmware {}, missing {}",
            segment.modules.len(),
            segment.unpacked,
            segment.bytes.len(),
            begun.elapsed(),
            segment.firmware.len(),
            segment.firmware_missing.len(),
        );
        let deps = |name: &str| {
            let module = segment.modules.iter().find(|module| module.name == name);
            module.unwrap_or_else(|| panic!("no {name}")).deps.join(" ")
        };
        assert_eq!(deps("virtio_net"), "virtio_ring virtio failover net_failover");
        assert!(deps("virtio_pci").contains("virtio_pci_modern_dev"), "{}", deps("virtio_pci"));
        assert!(deps("xfs").contains("crc32c_intel"), "{}", deps("xfs"));
        if !release.contains("cloud") {
            assert!(deps("nvme").ends_with("nvme_core"), "{}", deps("nvme"));
            assert!(deps("r8169").contains("realtek"), "{}", deps("r8169"));
            for name in [
                "e1000e",
                "igb",
                "ixgbe",
                "i40e",
                "ice",
                "tg3",
                "bnx2x",
                "mlx5_core",
                "megaraid_sas",
                "ipmi_si",
            ] {
                deps(name);
            }
        }

        let archive = cpio::read(&segment.bytes, 1 << 30).expect("our own");
        let mut seen = HashSet::new();
        for module in &segment.modules {
            assert!(archive.data(&module.path).expect("in it").starts_with(b"\x7fELF"));
            assert!(module.deps.iter().all(|dep| seen.contains(dep)), "{module:?}");
            seen.insert(module.name.clone());
        }
        let aliases = archive.data(contract::ALIASES_LIST).expect("in it");
        let aliases = std::str::from_utf8(aliases).expect("text");
        assert!(aliases.contains("virtio:d00000001v* virtio_net\n"));
        println!("{} aliases, {} bytes", aliases.lines().count(), aliases.len());
    }
}
