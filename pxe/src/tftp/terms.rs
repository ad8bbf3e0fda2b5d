//! What a transfer runs on, agreed before its first block: the options asked for, held against what
//! the path and our memory carry.

use std::time::Duration;

use super::packet::{self, BLKSIZE_DEFAULT, BLKSIZE_MAX, Options};

/// Bytes of one window with its headers. As many as one UDP datagram holds, which is what the
/// kernel splits into blocks in one call; a larger window overruns the receive buffer of a ROM
/// (and of the common clients), and each overrun costs a timeout.
pub const WINDOW_BYTES: usize = 65507;

/// Blocks of one window: what the kernel splits in one call.
const WINDOW_BLOCKS: usize = 64;

/// Longest resend interval we agree to, in seconds. RFC 2349 lets us take the value as it is or
/// leave the option out, not change it. U-Boot asks for 5 and curl for 6: taken at their word, each
/// lost datagram would cost that long where a round trip takes a millisecond.
const TIMEOUT_MAX: u8 = 3;

/// Agreed between client and server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// Bytes a block.
    pub blksize: u16,
    /// Blocks a window.
    pub window: u16,
    /// Fixed resend interval, where the client asked for one.
    pub timeout: Option<Duration>,
    /// The OACK that says so; none where no option was agreed, then block 1 is the answer.
    pub oack: Option<Vec<u8>>,
}

/// Agrees on terms for `size` bytes. `payload` is what one unfragmented datagram of this path
/// carries: 1472 on Ethernet. A ROM cannot put fragments together, and RFC 2348 lets us answer with
/// a smaller block than it asked for.
pub fn agree(asked: &Options, size: u64, payload: usize) -> Terms {
    let room = payload.saturating_sub(4).clamp(8, usize::from(BLKSIZE_MAX));
    let room = u16::try_from(room).unwrap_or(BLKSIZE_MAX);
    let mut granted = Vec::new();
    if asked.tsize {
        granted.push(("tsize", size));
    }
    let blksize = asked.blksize.map(|blksize| blksize.min(room));
    granted.extend(blksize.map(|blksize| ("blksize", u64::from(blksize))));
    let blksize = blksize.unwrap_or(BLKSIZE_DEFAULT);

    let timeout = asked.timeout.filter(|&seconds| seconds <= TIMEOUT_MAX);
    granted.extend(timeout.map(|seconds| ("timeout", u64::from(seconds))));

    let most = (WINDOW_BYTES / (usize::from(blksize) + 4)).clamp(1, WINDOW_BLOCKS);
    let most = u16::try_from(most).unwrap_or(1);
    // RFC 7440 §3: the server may answer with a smaller window.
    let window = asked.windowsize.map(|window| window.min(most));
    granted.extend(window.map(|window| ("windowsize", u64::from(window))));

    Terms {
        blksize,
        window: window.unwrap_or(1),
        timeout: timeout.map(|seconds| Duration::from_secs(u64::from(seconds))),
        oack: (!granted.is_empty()).then(|| packet::oack(&granted)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(blksize: u16, windowsize: u16) -> Options {
        Options {
            blksize: (blksize > 0).then_some(blksize),
            windowsize: (windowsize > 0).then_some(windowsize),
            ..Options::default()
        }
    }

    #[test]
    fn blocks_fit_the_path_and_windows_fit_one_datagram() {
        // asked blksize and window, payload of the path, granted blksize and window
        for (asked, payload, granted) in [
            ((0, 0), 1472, (512, 1)),
            ((1468, 0), 1472, (1468, 1)),
            ((1469, 0), 1472, (1468, 1)),
            ((65464, 0), 1472, (1468, 1)),
            ((65464, 1), 65507, (65464, 1)),
            ((65464, 65535), 65507, (65464, 1)),
            ((8, 65535), 1472, (8, 64)),
            ((512, 65535), 1472, (512, 64)),
            ((1468, 4), 1472, (1468, 4)),
            ((1468, 65535), 1472, (1468, 44)),
            ((8960, 16), 8972, (8960, 7)),
            ((1468, 0), 0, (8, 1)),
        ] {
            let terms = agree(&options(asked.0, asked.1), 1, payload);
            assert_eq!((terms.blksize, terms.window), granted, "{asked:?} over {payload}");
            assert!(usize::from(terms.window) * (usize::from(terms.blksize) + 4) <= WINDOW_BYTES);
        }
    }

    #[test]
    fn the_oack_says_what_was_agreed_and_nothing_else() {
        assert_eq!(agree(&Options::default(), 5, 1472).oack, None);
        let all =
            Options { blksize: Some(9000), timeout: Some(3), tsize: true, windowsize: Some(99) };
        assert_eq!(
            agree(&all, 7_000_000_000, 1472).oack.unwrap(),
            b"\0\x06tsize\x007000000000\0blksize\x001468\0timeout\x003\0windowsize\x0044\0"
        );
        let slow = Options { timeout: Some(4), ..Options::default() };
        let terms = agree(&slow, 5, 1472);
        assert_eq!((terms.timeout, terms.oack), (None, None));
    }
}
