//! Memtest86+, from the distribution's package or the site's directory of loaders: a program for BIOS and one for
//! UEFI that machines start in place of Linux. It has no root, reports to nobody, and draws its screen on the
//! serial line. Its program for UEFI wants a graphics adapter too, whoever looks at that: without one 6.10 says
//! `set_screen_info() failed` and no more.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use koboshi_pxe::Content;
use koboshi_pxe::boots::Part;
use sha2::{Digest as _, Sha256};

use crate::site::Site;

/// The order that wants it.
pub const DUTY: &str = "memtest";
/// Names that Debian's package gives them; a program for BIOS that obeys Linux's boot protocol, and an EFI one.
const BIOS: &str = "memtest86+x64.bin";
const EFI: &str = "memtest86+x64.efi";
const PACKAGE: &str = "/boot";
/// It has 145 KB.
const SIZE_MAX: u64 = 16 << 20;

/// Both programs.
#[derive(Debug, Clone)]
pub struct Memtest {
    /// For BIOS.
    pub bios: (Part, Content),
    /// For UEFI.
    pub efi: (Part, Content),
}

/// Finds them.
pub fn find(site: &Site) -> Result<Memtest, String> {
    let own = site.loaders.as_ref().map(|loaders| PathBuf::from(&loaders.value));
    let places: Vec<PathBuf> = own.into_iter().chain([PathBuf::from(PACKAGE)]).collect();
    find_in(&places)
}

fn find_in(places: &[PathBuf]) -> Result<Memtest, String> {
    let program = |name: &str| {
        let found = places.iter().map(|place| place.join(name)).find(|path| path.is_file());
        let path = found.ok_or_else(|| {
            let places: Vec<String> =
                places.iter().map(|place| place.display().to_string()).collect();
            format!("{name} is not in {}: Debian's package memtest86+ has it", places.join(" or "))
        })?;
        read(&path).map_err(|error| format!("{}: {error}", path.display()))
    };
    Ok(Memtest { bios: program(BIOS)?, efi: program(EFI)? })
}

fn read(path: &Path) -> std::io::Result<(Part, Content)> {
    let size = std::fs::metadata(path)?.len();
    if size == 0 || size > SIZE_MAX {
        return Err(std::io::Error::other("it has no such size"));
    }
    let bytes = Bytes::from(std::fs::read(path)?);
    let sha256: [u8; 32] = Sha256::digest(&bytes).into();
    let part = Part { name: DUTY.to_string(), sha256, size: bytes.len() as u64 };
    Ok((part, Content::Bytes(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sites_own_goes_before_the_packages() {
        let (own, package) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let places = [own.path().to_path_buf(), package.path().to_path_buf()];
        let why = find_in(&places).unwrap_err();
        assert!(why.contains(BIOS) && why.contains("package memtest86+"), "{why}");
        std::fs::write(package.path().join(BIOS), "bios").unwrap();
        assert!(find_in(&places).unwrap_err().contains(EFI));
        std::fs::write(package.path().join(EFI), "efi").unwrap();
        std::fs::write(own.path().join(BIOS), "our bios").unwrap();
        let found = find_in(&places).unwrap();
        assert_eq!((found.bios.0.size, found.efi.0.size), (8, 3));
        std::fs::write(own.path().join(EFI), "").unwrap();
        assert!(find_in(&places).unwrap_err().contains("no such size"));
    }
}
