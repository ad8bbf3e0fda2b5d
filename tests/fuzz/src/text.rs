//! Short texts out of URLs, file names and command lines: addresses, ids, digests, names of images.

#![no_main]

use koboshi_images::{Digest, ImageRef, check_name};
use koboshi_initramfs::Compression;
use koboshi_pxe::content::{hex, parse_hex};
use koboshi_pxe::{BootId, Mac};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(mac) = text.parse::<Mac>() {
        assert_eq!(mac.to_string().parse(), Ok(mac));
        assert_eq!(mac.dashed().parse(), Ok(mac));
    }
    if let Ok(id) = text.parse::<BootId>() {
        assert_eq!(id.to_string(), text.to_ascii_lowercase());
    }
    if let Some(digest) = parse_hex::<32>(text) {
        assert_eq!(hex(&digest), text.to_ascii_lowercase());
    }
    if let Ok(digest) = text.parse::<Digest>() {
        assert_eq!(digest.to_string().parse::<Digest>().ok(), Some(digest));
    }
    if let Ok(image) = text.parse::<ImageRef>() {
        assert!(check_name(&image.name).is_ok() && image.version != Some(0));
    }
    let _ = check_name(text);
    let _ = Compression::for_kernel(Some(text), text);
});
