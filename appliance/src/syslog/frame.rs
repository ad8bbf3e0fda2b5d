//! Where one message ends and the next begins on a TCP connection (RFC 6587): counted octets, or a line's end;
//! each frame may be another, and is told by how it begins. Bytes in, messages out; split in any place.
//!
//! A message is never longer than [`MOST`]: what is behind that is passed over, and counted.

/// Bytes of a message: thousands of connections may each hold one that is not whole. RFC 5424 6.1 asks for 2048.
pub const MOST: usize = 32 * 1024;
/// Digits of a count.
const DIGITS: usize = 7;

/// One connection's.
#[derive(Debug, Default)]
pub struct Frames {
    held: Vec<u8>,
    /// Of the held bytes, those that were looked at for a line's end.
    seen: usize,
    passing: Passing,
    /// Bytes that were passed over.
    pub cut: u64,
}

/// What is passed over, of a message that is too long.
#[derive(Debug, Default, PartialEq)]
enum Passing {
    #[default]
    Nothing,
    Octets(usize),
    Line,
}

impl Frames {
    /// These came; `each` gets every message that is whole by them.
    pub fn came(&mut self, mut bytes: &[u8], mut each: impl FnMut(&[u8])) {
        loop {
            bytes = self.pass(bytes);
            if bytes.is_empty() {
                return;
            }
            // No more than a message and what says its length is ever held.
            let room = (MOST + DIGITS + 1).saturating_sub(self.held.len());
            let (now, later) = bytes.split_at(bytes.len().min(room));
            self.held.extend_from_slice(now);
            bytes = later;
            let mut begin = 0;
            while let Some((message, after)) = self.next(begin) {
                let message = self.held.get(message).unwrap_or_default();
                if !message.is_empty() {
                    each(message);
                }
                begin = after;
                self.seen = 0;
            }
            let begin = begin.min(self.held.len());
            self.held.drain(..begin);
        }
    }

    /// The connection has ended: what has no end is a message still.
    pub fn end(mut self, mut each: impl FnMut(&[u8])) {
        if self.passing == Passing::Nothing && !self.held.is_empty() {
            let held = std::mem::take(&mut self.held);
            let digits = held.iter().take_while(|byte| byte.is_ascii_digit()).count();
            let counted = held.get(digits) == Some(&b' ') && held.get(digits + 1) == Some(&b'<');
            each(if counted { held.get(digits + 1..).unwrap_or_default() } else { &held });
        }
    }

    fn pass<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let many = match self.passing {
            Passing::Nothing => return bytes,
            Passing::Octets(many) => many.min(bytes.len()),
            Passing::Line => match bytes.iter().position(|byte| ends(*byte)) {
                Some(end) => end,
                None => bytes.len(),
            },
        };
        self.cut += many as u64;
        let (_, rest) = bytes.split_at(many);
        self.passing = match self.passing {
            Passing::Octets(all) if all > many => Passing::Octets(all - many),
            Passing::Line if rest.is_empty() => Passing::Line,
            _ => Passing::Nothing,
        };
        rest
    }

    /// The message that begins there, and where the next one does. None: it is not whole.
    fn next(&mut self, begin: usize) -> Option<(std::ops::Range<usize>, usize)> {
        let held = self.held.get(begin..)?;
        let digits = held.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if digits > 0 && held.len() == digits && digits <= DIGITS {
            return None;
        }
        if (1..=DIGITS).contains(&digits) && held.get(digits) == Some(&b' ') {
            match held.get(digits + 1) {
                None => return None,
                Some(b'<') => return self.counted(begin, digits),
                Some(_) => {}
            }
        }
        let from = self.seen.min(held.len());
        let found = held.iter().skip(from).position(|byte| ends(*byte)).map(|at| from + at);
        match found {
            Some(end) => {
                self.cut += end.saturating_sub(MOST) as u64;
                Some((begin..begin + end.min(MOST), begin + end + 1))
            }
            None if held.len() >= MOST => {
                let all = self.held.len();
                self.cut += (all - begin - MOST) as u64;
                self.passing = Passing::Line;
                Some((begin..begin + MOST, all))
            }
            None => {
                self.seen = held.len();
                None
            }
        }
    }

    fn counted(&mut self, begin: usize, digits: usize) -> Option<(std::ops::Range<usize>, usize)> {
        let held = self.held.get(begin..)?;
        let count = std::str::from_utf8(held.get(..digits)?).ok()?;
        let count: usize = count.parse().ok()?;
        let message = begin + digits + 1;
        let here = held.len() - digits - 1;
        if here >= count {
            self.cut += count.saturating_sub(MOST) as u64;
            return Some((message..message + count.min(MOST), message + count));
        }
        if here < MOST {
            return None;
        }
        let all = self.held.len();
        self.cut += (here - MOST) as u64;
        self.passing = Passing::Octets(count - here);
        Some((message..message + MOST, all))
    }
}

/// NUL is Cisco's and, of old, rsyslog's.
fn ends(byte: u8) -> bool {
    matches!(byte, b'\n' | 0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frames(parts: &[&[u8]]) -> (Vec<Vec<u8>>, u64) {
        let (mut frames, mut all) = (Frames::default(), Vec::new());
        for part in parts {
            frames.came(part, |message| all.push(message.to_vec()));
            assert!(frames.held.len() <= MOST + DIGITS + 1);
        }
        let cut = frames.cut;
        frames.end(|message| all.push(message.to_vec()));
        (all, cut)
    }

    #[test]
    fn either_way_and_both_on_one_connection() {
        let said = b"<13>one\n12 <13>two\nmore<13>three\r\n0 <7 <13>abc2026 is no count\n<13>end";
        let (all, cut) = frames(&[said]);
        let all: Vec<String> =
            all.iter().map(|message| String::from_utf8_lossy(message).into_owned()).collect();
        let wanted =
            ["<13>one", "<13>two\nmore", "<13>three\r", "<7 <13>abc2026 is no count", "<13>end"];
        assert_eq!((all, cut), (wanted.map(str::to_string).to_vec(), 0));
    }

    #[test]
    fn what_is_too_long_is_cut_and_the_next_is_whole() {
        for long in [MOST - 1, MOST, MOST + 1, 3 * MOST] {
            let line = "x".repeat(long);
            let counted = format!("{} <{}", long + 1, line);
            for bytes in [format!("<{line}\n<13>next\n"), format!("{counted}<13>next\n")] {
                for step in [1, 1000, MOST, usize::MAX] {
                    let parts: Vec<&[u8]> = bytes.as_bytes().chunks(step).collect();
                    let (all, cut) = frames(&parts);
                    assert_eq!(all.len(), 2, "{long} {step}");
                    assert_eq!(all[0].len() + cut as usize, long + 1, "{long} {step}");
                    assert_eq!(all[1], b"<13>next");
                }
            }
        }
    }

    proptest! {
        #[test]
        fn split_anywhere_it_is_the_same(
            bytes in prop::collection::vec(prop::sample::select(&b"<13>0 2abc\n\0"[..]), 0..120),
            cuts in prop::collection::vec(1usize..40, 1..6),
        ) {
            let mut parts = Vec::new();
            let mut rest = &bytes[..];
            for cut in cuts {
                let (part, after) = rest.split_at(cut.min(rest.len()));
                parts.push(part);
                rest = after;
            }
            parts.push(rest);
            prop_assert_eq!(frames(&parts), frames(&[&bytes]));
        }
    }
}
