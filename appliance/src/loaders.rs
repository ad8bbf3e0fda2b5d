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

/// Files of a directory of loaders; nobody has so many, and each is held in memory.
const FILES_MAX: usize = 64;

/// The loaders that are there, and a sentence for each that should be and is not. Every file of
/// `dir` is one, by its name, and goes before the packages' own.
pub fn find(dir: Option<&Path>) -> (HashMap<String, Content>, Vec<String>) {
    let mut loaders = HashMap::new();
    let mut missing = Vec::new();
    match dir.map(fs::read_dir) {
        Some(Ok(files)) => {
            for file in files.flatten().take(FILES_MAX) {
                let name = file.file_name().into_string().ok();
                if let Some((name, bytes)) = name.zip(read(&file.path())) {
                    loaders.insert(name, Content::Bytes(bytes));
                }
            }
        }
        Some(Err(error)) => missing.push(format!("the folder of [site] loaders: {error}")),
        None => {}
    }
    for (name, places) in
        KNOWN.iter().filter(|(name, _)| !loaders.contains_key(*name)).collect::<Vec<_>>()
    {
        match places.iter().map(Path::new).find_map(read) {
            Some(bytes) => {
                loaders.insert((*name).to_string(), Content::Bytes(bytes));
            }
            None if name.contains("arm64") => {}
            None => missing.push(format!(
                "the loader {name} is not there: install the package ipxe, or name a folder with [site] loaders"
            )),
        }
    }
    (loaders, missing)
}

fn read(path: &Path) -> Option<Bytes> {
    let size = fs::metadata(path).ok().filter(|meta| meta.is_file())?.len();
    (0 < size && size <= MAX).then(|| fs::read(path).ok())?.map(Bytes::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_of_ones_own_goes_first_and_holds_any_name() {
        let dir = tempfile::tempdir().expect("a directory");
        fs::write(dir.path().join("my.efi"), b"mine").expect("written");
        fs::write(dir.path().join("ipxe.efi"), b"newer").expect("written");
        fs::write(dir.path().join("empty.efi"), b"").expect("written");
        fs::create_dir(dir.path().join("folder")).expect("made");
        let (loaders, _) = find(Some(dir.path()));
        let bytes = |name: &str| match loaders.get(name) {
            Some(Content::Bytes(bytes)) => bytes.to_vec(),
            _ => Vec::new(),
        };
        assert_eq!(bytes("my.efi"), b"mine");
        assert_eq!(bytes("ipxe.efi"), b"newer");
        assert!(!loaders.contains_key("empty.efi") && !loaders.contains_key("folder"));
        let (_, missing) = find(Some(&dir.path().join("nowhere")));
        assert!(missing[0].contains("the folder of [site] loaders"), "{missing:?}");
    }
}
