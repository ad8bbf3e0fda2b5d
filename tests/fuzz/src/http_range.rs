//! Conditions and ranges of a request for a blob: whatever they say, what is owed lies inside it.
//!
//! First byte: the method and how large the blob is; then header lines.

#![no_main]

use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use koboshi_pxe::http::range::{Owed, owed};
use libfuzzer_sys::fuzz_target;

const NAMES: [HeaderName; 5] =
    [header::RANGE, header::IF_RANGE, header::IF_MATCH, header::IF_NONE_MATCH, header::ACCEPT];

fuzz_target!(|bytes: &[u8]| {
    let Some((how, text)) = bytes.split_first() else { return };
    let mut headers = HeaderMap::new();
    for line in text.split(|byte| *byte == b'\n') {
        let Some((which, value)) = line.split_first() else { continue };
        let Ok(value) = HeaderValue::from_bytes(value) else { continue };
        headers.append(NAMES[usize::from(*which) % NAMES.len()].clone(), value);
    }
    let method = if how & 1 == 0 { Method::GET } else { Method::HEAD };
    let size = [0, 1, 2, 1000, u64::from(u32::MAX) + 1, u64::MAX][usize::from(how >> 1) % 6];
    let what = owed(&method, &headers, "\"abc\"", size);
    if let Owed::Part { first, last } = what {
        assert!(first <= last && last < size && method == Method::GET);
    }
    if matches!(what, Owed::Part { .. } | Owed::Unsatisfiable) {
        assert!(headers.contains_key(header::RANGE));
    }
    if what == Owed::NotModified {
        assert!(headers.contains_key(header::IF_NONE_MATCH));
    }
});
