//! The very first segment, if the image brings microcode: read by the kernel before it has a file
//! system or an unpacker, so it is plain and stands before all others.

use std::path::Path;

use bytes::Bytes;

use crate::cpio::{Archive, Entry};
use crate::inroot::Root;
use crate::{Error, unpack};

/// Intel's largest file has 1 MB, all together 13 MB; AMD's all together 0.2 MB.
const FILE_MAX: usize = 16 << 20;
const ALL_MAX: usize = 64 << 20;

/// Makers: folder in the image, how each of its files begins, name the kernel looks for
/// (Documentation/arch/x86/microcode.rst).
const MAKERS: [(&str, &[u8], &str); 2] = [
    ("intel-ucode", &[1, 0, 0, 0], "kernel/x86/microcode/GenuineIntel.bin"),
    ("amd-ucode", b"DMA\0", "kernel/x86/microcode/AuthenticAMD.bin"),
];

/// All microcode an image unpacked at `root` has, or nothing. Signatures, read-mes and whatever else
/// lies beside it is passed over.
pub fn microcode_segment(root: &Path) -> Result<Option<Bytes>, Error> {
    let root = Root::open(root)?;
    let mut archive = Archive::new();
    for (folder, begins, name) in MAKERS {
        let mut all = Vec::new();
        for place in ["usr/lib", "lib"] {
            let dir = format!("{place}/firmware/{folder}");
            for file in root.list(&dir)?.unwrap_or_default() {
                let path = format!("{dir}/{file}");
                let Some(bytes) = root.read_if_file(&path, FILE_MAX as u64)? else { continue };
                let bytes = unpack::by_ending(&path, bytes, FILE_MAX)?;
                if bytes.starts_with(begins) {
                    all.extend_from_slice(&bytes);
                }
                if all.len() > ALL_MAX {
                    return Err(Error::TooLarge { what: dir, limit: ALL_MAX as u64 });
                }
            }
            if !all.is_empty() {
                break; // the same folder under its other name
            }
        }
        if !all.is_empty() {
            archive.put(name, Entry::file(0o444, all));
        }
    }
    Ok((!archive.is_empty()).then(|| archive.to_bytes()))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::cpio;

    #[test]
    fn both_makers_sorted_and_signatures_left_out() {
        let dir = tempfile::tempdir().expect("a directory");
        assert!(microcode_segment(dir.path()).expect("an empty image").is_none());
        let firmware = dir.path().join("usr/lib/firmware");
        fs::create_dir_all(firmware.join("intel-ucode")).expect("made");
        fs::create_dir_all(firmware.join("amd-ucode")).expect("made");
        std::os::unix::fs::symlink("usr/lib", dir.path().join("lib")).expect("linked");
        fs::write(firmware.join("intel-ucode/06-55-04"), b"\x01\0\0\0two").expect("written");
        fs::write(firmware.join("intel-ucode/06-3f-02"), b"\x01\0\0\0one").expect("written");
        fs::write(firmware.join("amd-ucode/microcode_amd.bin.asc"), b"-----BEGIN")
            .expect("written");
        let packed = zstd::encode_all(&b"DMA\0amd"[..], 3).expect("memory");
        fs::write(firmware.join("amd-ucode/microcode_amd.bin.zst"), packed).expect("written");
        fs::create_dir(firmware.join("amd-ucode/more")).expect("made");
        let segment = microcode_segment(dir.path()).expect("sound").expect("some");
        assert!(segment.starts_with(b"070701"), "plain");
        let archive = cpio::read(&segment, 1 << 20).expect("our own");
        let data = |name: &str| archive.data(name).expect("there").as_ref();
        assert_eq!(data("kernel/x86/microcode/GenuineIntel.bin"), b"\x01\0\0\0one\x01\0\0\0two");
        assert_eq!(data("kernel/x86/microcode/AuthenticAMD.bin"), b"DMA\0amd");
    }
}
