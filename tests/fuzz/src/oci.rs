//! A stranger's OCI image whose layer is sound and whose configuration, manifest and index are the input, NULs
//! between them: an image, or an error in words, and the store is as it was.

#![no_main]

use koboshi_fuzz::image::{Bench, oci_described};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    // Each `@` grows.
    if text.matches('@').count() > 64 {
        return;
    }
    let mut parts = text.splitn(3, '\0');
    let (config, manifest, index) = (parts.next(), parts.next(), parts.next());
    let (Some(config), Some(manifest), Some(index)) = (config, manifest, index) else { return };
    Bench::with(|bench| bench.import(&oci_described(config, manifest, index)));
});
