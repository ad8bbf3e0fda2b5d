//! The programs that firmware starts and that start a kernel: under which firmware each runs, which
//! language it reads its machine's orders in, and how it fetches. All by the file's name, since
//! that is what a site file says and what a ROM asks for.

use crate::decide::Arch;

/// What a loader reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    /// A script, by HTTP.
    Ipxe,
    /// `pxelinux.cfg/01-<mac>`: PXELINUX, and SYSLINUX for UEFI.
    Pxelinux,
    /// `grub/grub.cfg-01-<mac>`.
    Grub,
}

/// A loader's language. One that nobody has heard of is somebody's own build of iPXE.
pub fn language(file: &str) -> Language {
    let name = base(file).to_ascii_lowercase();
    if name.contains("pxelinux") || name.contains("syslinux") {
        Language::Pxelinux
    } else if name.starts_with("grub") || name.starts_with("shim") {
        Language::Grub
    } else {
        Language::Ipxe
    }
}

/// Whether firmware of this architecture starts it: an `.efi` program starts under UEFI alone,
/// everything else under BIOS alone, and the names say when it is not for x86-64.
pub fn fits(file: &str, arch: Arch) -> bool {
    let name = base(file).to_ascii_lowercase();
    let efi = name.ends_with(".efi") || name.ends_with(".efi.signed");
    let says = |words: [&str; 2]| words.iter().any(|word| name.contains(word));
    let (arm64, ia32) = (says(["arm64", "aa64"]), says(["ia32", "i386"]));
    match arch.0 {
        0 => !efi,
        // UEFI HTTP boot leaves no trace of the server that PXELINUX and GRUB could go on with:
        // they read their orders over TFTP, from the server of a PXE exchange.
        15 | 16 | 19 if language(file) != Language::Ipxe => false,
        6 | 15 => efi && ia32,
        7 | 9 | 16 => efi && !arm64 && !ia32,
        11 | 19 => efi && arm64,
        // An architecture we do not know: whoever names a loader for it does.
        _ => efi,
    }
}

/// Where a loader is asked for. SYSLINUX for UEFI looks for its modules beside itself, and they
/// are called as those for BIOS are: it lives in a folder of its own.
pub fn path(file: &str) -> String {
    match file {
        "syslinux.efi" => format!("{EFI64}{file}"),
        other => other.to_string(),
    }
}

/// The folder of SYSLINUX for UEFI.
pub const EFI64: &str = "efi64/";

/// Whether it fetches `http://` by itself and is to be trusted with it. SYSLINUX 6.04 for UEFI is
/// not: an archive it fetched so from OVMF was 16 KiB too long, and the kernel found junk in it.
pub fn fetches_http(file: &str) -> bool {
    base(file) == "lpxelinux.0"
}

/// A program, as against the modules and fonts that a program fetches for itself.
pub fn is_program(file: &str) -> bool {
    ![".c32", ".e64", ".e32", ".mod", ".lst", ".pf2"].iter().any(|end| file.ends_with(end))
}

/// A name that loaders ask for as a matter of course, and go on without: no news for a timeline.
/// PXELINUX tries its machine's UUID before its MAC, shim looks for revocations, GRUB for lists of
/// modules that a signed image has no use for.
pub fn is_asked_in_vain(name: &str) -> bool {
    name.contains("pxelinux.cfg/")
        || name.ends_with(".lst")
        || name.starts_with("grub/x86_64-efi/grub.cfg")
        || name.starts_with("grub/grub.cfg-")
        || matches!(base(name), "revocations.efi" | "revocations_sbat.efi" | "revocations_sku.efi")
        || base(name).starts_with("shim_certificate")
}

fn base(file: &str) -> &str {
    file.rsplit('/').next().unwrap_or(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_loader_starts_where_it_was_built_for() {
        let x64 = [Arch::EFI64, Arch(9)];
        let rows: &[(&str, &[Arch])] = &[
            ("undionly.kpxe", &[Arch::BIOS]),
            ("pxelinux.0", &[Arch::BIOS]),
            ("lpxelinux.0", &[Arch::BIOS]),
            ("grub.pxe", &[Arch::BIOS]),
            ("ipxe.efi", &[Arch::EFI64, Arch(9), Arch::HTTP64]),
            ("syslinux.efi", &x64),
            ("grubnetx64.efi.signed", &x64),
            ("shimx64.efi", &x64),
            ("snponly-arm64.efi", &[Arch::ARM64, Arch(19)]),
            ("grubnetaa64.efi.signed", &[Arch::ARM64]),
            ("ipxe-ia32.efi", &[Arch(6), Arch(15)]),
        ];
        for (file, starts) in rows {
            for number in [0, 6, 7, 9, 11, 15, 16, 19] {
                let arch = Arch(number);
                assert_eq!(fits(file, arch), starts.contains(&arch), "{file} under {arch}");
            }
        }
        assert!(fits("ipxe-riscv64.efi", Arch(27)));
    }

    #[test]
    fn names_tell_what_a_loader_reads_and_how_it_fetches() {
        for (file, reads, http) in [
            ("undionly.kpxe", Language::Ipxe, false),
            ("my-own.efi", Language::Ipxe, false),
            ("pxelinux.0", Language::Pxelinux, false),
            ("lpxelinux.0", Language::Pxelinux, true),
            ("efi64/syslinux.efi", Language::Pxelinux, false),
            ("grubnetx64.efi.signed", Language::Grub, false),
            ("shimx64.efi", Language::Grub, false),
            ("grub.pxe", Language::Grub, false),
        ] {
            assert_eq!((language(file), fetches_http(file)), (reads, http), "{file}");
        }
    }
}
