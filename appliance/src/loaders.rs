//! The loaders a machine's firmware starts: iPXE from the distribution's packages, or from the
//! directory the site names. Read once at each reading of the site, so a package upgrade in the
//! middle of a transfer changes nothing.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use bytes::Bytes;
use koboshi_pxe::Content;

/// Names that may be asked for by TFTP, and the file a Debian package keeps for each.
const KNOWN: &[(&str, &[&str])] = &[
    ("undionly.kpxe", &["/usr/lib/ipxe/undionly.kpxe", "/usr/share/ipxe/undionly.kpxe"]),
    ("ipxe.efi", &["/usr/lib/ipxe/ipxe.efi", "/usr/share/ipxe/ipxe-x86_64.efi"]),
    ("snponly.efi", &["/usr/lib/ipxe/snponly.efi", "/usr/share/ipxe/ipxe-snponly-x86_64.efi"]),
    ("snponly-arm64.efi", &["/usr/lib/ipxe/snponly-arm64.efi", "/usr/lib/ipxe/arm64/snponly.efi"]),
];
/// No loader is larger; a mistaken link to a disk image is not read into memory.
const MAX: u64 = 16 << 20;

/// The loaders that are there, and a sentence for each that should be and is not.
pub fn find(dir: Option<&Path>) -> (HashMap<String, Content>, Vec<String>) {
    let mut loaders = HashMap::new();
    let mut missing = Vec::new();
    for (name, places) in KNOWN {
        let own = dir.map(|dir| dir.join(name));
        let places = own.iter().map(|path| path.as_path()).chain(places.iter().map(Path::new));
        match places.into_iter().find_map(read) {
            Some(bytes) => {
                loaders.insert((*name).to_string(), Content::Bytes(bytes));
            }
            None if name.contains("arm64") => {}
            None => missing.push(format!(
                "the loader {name} is not there: install the package ipxe, or name a directory with [site] loaders"
            )),
        }
    }
    (loaders, missing)
}

fn read(path: &Path) -> Option<Bytes> {
    let size = fs::metadata(path).ok().filter(|meta| meta.is_file())?.len();
    (0 < size && size <= MAX).then(|| fs::read(path).ok())?.map(Bytes::from)
}
