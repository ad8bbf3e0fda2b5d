//! A stranger's image of two layers, as `skopeo copy … oci-archive:` writes it: a sound root, and over
//! it a layer with whiteouts and links as the input has them.

#![no_main]

use koboshi_fuzz::image::{Bench, mend, oci_archive};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if bytes.starts_with(b"\xfd7zXZ\0") {
        return;
    }
    let mut layer = bytes.to_vec();
    mend(&mut layer);
    Bench::with(|bench| bench.import(&oci_archive(&layer)));
});
