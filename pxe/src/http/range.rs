//! What a request is owed: all of it, a part of it, or nothing new. Conditions before ranges, in
//! the order of RFC 9110 §13.2.2. A boot fetches hundreds of megabytes over a link that may break;
//! ranges let it go on where it stopped, and the ETag makes sure that it is still the same image.

use axum::http::{HeaderMap, Method, header};

/// What is owed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owed {
    /// 200
    Whole,
    /// 206: these bytes, `first..=last`.
    Part {
        /// First byte.
        first: u64,
        /// Last byte.
        last: u64,
    },
    /// 304: the client has it.
    NotModified,
    /// 412: it is not what the client thinks it is.
    PreconditionFailed,
    /// 416: it ends before that.
    Unsatisfiable,
}

/// Decides for a GET or HEAD of `size` bytes named `etag` (with its quotes, strong).
pub fn owed(method: &Method, headers: &HeaderMap, etag: &str, size: u64) -> Owed {
    if headers.contains_key(header::IF_MATCH) && !lists(headers, header::IF_MATCH, etag, false) {
        return Owed::PreconditionFailed;
    }
    if lists(headers, header::IF_NONE_MATCH, etag, true) {
        return Owed::NotModified;
    }
    // RFC 9110 §14.2: a Range with any other method is ignored.
    if *method != Method::GET {
        return Owed::Whole;
    }
    // A date in If-Range never matches: we know none.
    let unchanged =
        headers.get(header::IF_RANGE).is_none_or(|given| given.as_bytes() == etag.as_bytes());
    let mut ranges = headers.get_all(header::RANGE).iter();
    match (ranges.next(), ranges.next()) {
        (Some(range), None) if unchanged => {
            range.to_str().map_or(Owed::Whole, |range| one_range(range, size))
        }
        _ => Owed::Whole,
    }
}

/// One range of bytes. What is not understood is ignored (RFC 9110 §14.2), and so are several at
/// once, which no loader asks for: the answer is then the whole.
fn one_range(range: &str, size: u64) -> Owed {
    let Some((unit, set)) = range.split_once('=') else { return Owed::Whole };
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return Owed::Whole;
    }
    let Some((first, last)) = set.trim().split_once('-') else { return Owed::Whole };
    match (position(first), position(last)) {
        (Some(first), _) if last.is_empty() && first < size => Owed::Part { first, last: size - 1 },
        (Some(first), Some(last)) if first <= last && first < size => {
            Owed::Part { first, last: last.min(size - 1) }
        }
        (Some(first), Some(last)) if first > last => Owed::Whole,
        (Some(_), Some(_)) => Owed::Unsatisfiable,
        (Some(_), None) if last.is_empty() => Owed::Unsatisfiable,
        (None, Some(0)) if first.is_empty() => Owed::Unsatisfiable,
        // The last bytes of nothing are nothing, and a Content-Range cannot say that.
        (None, Some(_)) if first.is_empty() && size == 0 => Owed::Whole,
        (None, Some(count)) if first.is_empty() => {
            Owed::Part { first: size.saturating_sub(count), last: size - 1 }
        }
        _ => Owed::Whole,
    }
}

/// Digits only; more of them than fit mean "beyond any end".
fn position(digits: &str) -> Option<u64> {
    let valid = !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit());
    valid.then(|| digits.parse().unwrap_or(u64::MAX))
}

/// Whether a header's list of entity tags names `etag`; a weak comparison ignores `W/`
/// (RFC 9110 §8.8.3.2). Our tags are digests: they hold no comma.
fn lists(headers: &HeaderMap, header: header::HeaderName, etag: &str, weak: bool) -> bool {
    headers.get_all(header).iter().filter_map(|value| value.to_str().ok()).any(|value| {
        value.split(',').map(str::trim).any(|given| {
            let given = if weak { given.strip_prefix("W/").unwrap_or(given) } else { given };
            given == "*" || given == etag
        })
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ask(headers: &[(header::HeaderName, &str)], size: u64) -> Owed {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(name, value.parse().unwrap());
        }
        owed(&Method::GET, &map, "\"abc\"", size)
    }

    #[test]
    fn ranges_at_the_edges() {
        use Owed::{Unsatisfiable, Whole};
        let part = |first, last| Owed::Part { first, last };
        for (range, size, wanted) in [
            ("bytes=0-0", 10, part(0, 0)),
            ("bytes=0-9", 10, part(0, 9)),
            ("bytes=0-10", 10, part(0, 9)),
            ("bytes=9-", 10, part(9, 9)),
            ("bytes=9-9", 10, part(9, 9)),
            ("bytes=0-", 10, part(0, 9)),
            ("bytes=-1", 10, part(9, 9)),
            ("bytes=-10", 10, part(0, 9)),
            ("bytes=-11", 10, part(0, 9)),
            ("bytes=5-99999999999999999999999999", 10, part(5, 9)),
            ("bytes=-99999999999999999999999999", 10, part(0, 9)),
            ("Bytes=0-0", 10, part(0, 0)),
            ("bytes= 0-0 ", 10, part(0, 0)),
            ("bytes=10-", 10, Unsatisfiable),
            ("bytes=10-20", 10, Unsatisfiable),
            ("bytes=99999999999999999999999999-", 10, Unsatisfiable),
            ("bytes=-0", 10, Unsatisfiable),
            ("bytes=0-", 0, Unsatisfiable),
            ("bytes=0-0", 0, Unsatisfiable),
            ("bytes=-1", 0, Whole),
            ("bytes=5-4", 10, Whole),
            ("bytes=20-19", 10, Whole),
            ("bytes=0-0,2-2", 10, Whole),
            ("bytes=", 10, Whole),
            ("bytes=-", 10, Whole),
            ("bytes=--1", 10, Whole),
            ("bytes=+1-2", 10, Whole),
            ("bytes=1-x", 10, Whole),
            ("bytes=x-1", 10, Whole),
            ("bytes=x-", 10, Whole),
            ("bytes", 10, Whole),
            ("lines=0-1", 10, Whole),
            ("", 10, Whole),
        ] {
            assert_eq!(ask(&[(header::RANGE, range)], size), wanted, "{range:?} of {size}");
        }
    }

    #[test]
    fn conditions_come_before_ranges() {
        use header::{IF_MATCH, IF_NONE_MATCH, IF_RANGE, RANGE};
        let part = Owed::Part { first: 1, last: 2 };
        let range = (RANGE, "bytes=1-2");
        for (headers, wanted) in [
            (vec![range.clone()], part),
            (vec![(IF_NONE_MATCH, "\"abc\""), range.clone()], Owed::NotModified),
            (vec![(IF_NONE_MATCH, "\"x\", W/\"abc\"")], Owed::NotModified),
            (vec![(IF_NONE_MATCH, "\"x\""), (IF_NONE_MATCH, "\"abc\"")], Owed::NotModified),
            (vec![(IF_NONE_MATCH, "*")], Owed::NotModified),
            (vec![(IF_NONE_MATCH, "\"x\""), range.clone()], part),
            (vec![(IF_NONE_MATCH, "abc")], Owed::Whole),
            (vec![(IF_RANGE, "\"abc\""), range.clone()], part),
            (vec![(IF_RANGE, "\"x\""), range.clone()], Owed::Whole),
            (vec![(IF_RANGE, "W/\"abc\""), range.clone()], Owed::Whole),
            (vec![(IF_RANGE, "Sat, 01 Nov 2008 00:00:00 GMT"), range.clone()], Owed::Whole),
            (vec![(IF_MATCH, "\"abc\""), range.clone()], part),
            (vec![(IF_MATCH, "*")], Owed::Whole),
            (vec![(IF_MATCH, "\"x\""), range.clone()], Owed::PreconditionFailed),
            (vec![(IF_MATCH, "W/\"abc\"")], Owed::PreconditionFailed),
            (vec![range.clone(), (RANGE, "bytes=3-4")], Owed::Whole),
        ] {
            assert_eq!(ask(&headers, 10), wanted, "{headers:?}");
        }
        let mut headers = HeaderMap::new();
        headers.insert(RANGE, "bytes=1-2".parse().unwrap());
        assert_eq!(owed(&Method::HEAD, &headers, "\"abc\"", 10), Owed::Whole);
    }

    proptest! {
        #[test]
        fn a_part_lies_within_the_whole(range in "bytes=[0-9]{0,21}-[0-9]{0,21}", size: u64) {
            if let Owed::Part { first, last } = ask(&[(header::RANGE, &range)], size) {
                prop_assert!(first <= last && last < size);
            }
        }
    }
}
