//! Segments of an initramfs, plain and packed, read as the kernel would read them; what can be read
//! reads back the same once written.

#![no_main]

use koboshi_initramfs::cpio;
use libfuzzer_sys::fuzz_target;

const LIMIT: usize = 1 << 20;

fuzz_target!(|bytes: &[u8]| {
    let Ok(archive) = cpio::read(bytes, LIMIT) else { return };
    for (path, _) in archive.iter() {
        assert!(!path.is_empty() && !path.starts_with('/'));
        assert!(path.split('/').all(|part| !matches!(part, "" | "." | "..")));
        if let Some((parent, _)) = path.rsplit_once('/') {
            let parent = archive.get(parent).expect("parents exist");
            assert_eq!(parent.kind, cpio::Kind::Dir);
        }
    }
    let written = archive.to_bytes();
    assert_eq!(written.len() % 4, 0);
    // Parents that the archive left out cost bytes of their own.
    assert_eq!(cpio::read(&written, usize::MAX).as_ref().ok(), Some(&archive));
});
