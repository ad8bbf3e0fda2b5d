//! The drivers of a real kernel. The package is large and comes from the network, so this is run by
//! hand; the small kernel of the unit tests stands in for it every day.
//!
//! ```text
//! apt-get download linux-image-6.1.0-56-amd64
//! dpkg -x linux-image-*.deb root && depmod -b root 6.1.0-56-amd64
//! KOBOSHI_KERNEL_ROOT=root cargo nextest run -p koboshi-initramfs --run-ignored only --no-capture
//! ```

use std::collections::HashSet;
use std::path::PathBuf;

use koboshi_initramfs::{Choice, Compression, contract, cpio, modules_segment, releases};

#[test]
#[ignore = "wants KOBOSHI_KERNEL_ROOT, a root with a Debian kernel in it"]
fn debian_kernel() {
    let root =
        PathBuf::from(std::env::var_os("KOBOSHI_KERNEL_ROOT").expect("see the head of this file"));
    for release in releases(&root).expect("a root with modules") {
        let begun = std::time::Instant::now();
        let segment = modules_segment(&root, &release, &Choice::servers(), Compression::Zstd)
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
