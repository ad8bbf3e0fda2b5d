//! Lines that can be checked, among whatever else is on the line: `~k`, what it is of, its number, its bytes in
//! base64 (RFC 4648 section 4, without padding), and a CRC-32 over all of that. What is asked goes the other way
//! in the same manner, with `~q`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD as BASE64;

/// Begins a frame; no letter of base64.
const FRAME: &[u8] = b"~k";
/// Begins a request.
const REQUEST: &[u8] = b"~q";
/// The longest line that is kept: a kernel's message may stand before ours.
const LINE_MAX: usize = 16 * 1024;
/// Bytes a frame may carry.
pub const BODY_MAX: usize = 6 * 1024;

/// What a frame is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum About {
    /// Who answers, as JSON.
    Hello,
    /// So many lines of the picks of this round have come; its number is the line's.
    Picked(u32),
    /// Words: why it ends here.
    Failed,
    /// The listing.
    Listing,
    /// The contents of what was picked in this round.
    Contents(u32),
}

/// A line of the machine's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Of what.
    pub about: About,
    /// Counts from 0 in each.
    pub seq: u32,
    /// Nothing of it comes after this.
    pub last: bool,
    /// Bytes.
    pub body: Vec<u8>,
}

/// What the machine is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// To say who it is, once more.
    Hello,
    /// Which entries' contents are wanted, in lines counted from 0.
    Pick {
        /// Which picking: another one forgets those before it.
        round: u32,
        /// Which line of it.
        line: u32,
        /// Entries by their number in the listing, from and up to, both wanted.
        ranges: Vec<(u32, u32)>,
    },
    /// Frames `first` to `last` of a stream. None before `free` are asked for again.
    Go {
        /// Which stream.
        about: About,
        /// From this one.
        first: u32,
        /// To this one.
        last: u32,
        /// The first that may still be wanted.
        free: u32,
    },
    /// Nothing more.
    Bye,
}

impl About {
    fn name(self) -> String {
        match self {
            About::Hello => "h".to_owned(),
            About::Failed => "x".to_owned(),
            About::Listing => "l".to_owned(),
            About::Picked(round) => format!("p{round}"),
            About::Contents(round) => format!("c{round}"),
        }
    }

    fn read(name: &str) -> Option<About> {
        match (name.get(..1)?, name.get(1..)?) {
            ("h", "") => Some(About::Hello),
            ("x", "") => Some(About::Failed),
            ("l", "") => Some(About::Listing),
            ("p", round) => Some(About::Picked(number(round, 10)?)),
            ("c", round) => Some(About::Contents(number(round, 10)?)),
            _ => None,
        }
    }
}

impl Frame {
    /// As a line, its end included.
    pub fn line(&self) -> Vec<u8> {
        let sign = if self.last { '!' } else { '.' };
        let body = BASE64.encode(&self.body);
        whole(FRAME, format!("{}{sign}{:x}:{body}", self.about.name(), self.seq).into_bytes())
    }

    /// From a line; nothing if it is none, or damaged.
    pub fn read(line: &[u8]) -> Option<Frame> {
        let text = checked(FRAME, line)?;
        let (head, body) = text.split_once(':')?;
        let at = head.find(['.', '!'])?;
        let (name, seq) = head.split_at_checked(at)?;
        let last = seq.starts_with('!');
        let body = BASE64.decode(body).ok().filter(|body| body.len() <= BODY_MAX)?;
        Some(Frame { about: About::read(name)?, seq: number(seq.get(1..)?, 16)?, last, body })
    }
}

impl Request {
    /// As a line, its end included.
    pub fn line(&self) -> Vec<u8> {
        let words = match self {
            Request::Hello => "hello".to_owned(),
            Request::Bye => "bye".to_owned(),
            Request::Go { about, first, last, free } => {
                format!("go {} {first} {last} {free}", about.name())
            }
            Request::Pick { round, line, ranges } => {
                let mut words = format!("pick {round} {line}");
                for (from, to) in ranges {
                    words.push_str(&match from == to {
                        true => format!(" {from}"),
                        false => format!(" {from}-{to}"),
                    });
                }
                words
            }
        };
        whole(REQUEST, words.into_bytes())
    }

    /// From a line; nothing if it is none, or damaged.
    pub fn read(line: &[u8]) -> Option<Request> {
        let text = checked(REQUEST, line)?;
        let words: Vec<&str> = text.split(' ').collect();
        match words.as_slice() {
            ["hello"] => Some(Request::Hello),
            ["bye"] => Some(Request::Bye),
            ["go", about, first, last, free] => Some(Request::Go {
                about: About::read(about)?,
                first: number(first, 10)?,
                last: number(last, 10)?,
                free: number(free, 10)?,
            }),
            ["pick", round, line, rest @ ..] => {
                let range = |word: &&str| {
                    let (from, to) = word.split_once('-').unwrap_or((word, word));
                    Some((number(from, 10)?, number(to, 10)?))
                };
                let ranges = rest.iter().map(range).collect::<Option<Vec<_>>>()?;
                Some(Request::Pick { round: number(round, 10)?, line: number(line, 10)?, ranges })
            }
            _ => None,
        }
    }
}

fn whole(mark: &[u8], mut text: Vec<u8>) -> Vec<u8> {
    let sum = crc32fast::hash(&text);
    text.splice(0..0, mark.iter().copied());
    text.extend_from_slice(format!(":{sum:08x}\n").as_bytes());
    text
}

/// What is between the mark and the sum. Others' words may stand before the mark.
fn checked<'a>(mark: &[u8], line: &'a [u8]) -> Option<&'a str> {
    let at = line.windows(mark.len()).rposition(|window| window == mark)?;
    let text = line.get(at + mark.len()..)?;
    let (text, sum) = text.split_at_checked(text.len().checked_sub(9)?)?;
    let sum = str::from_utf8(sum).ok()?.strip_prefix(':')?;
    // As it is written, in small letters: a capital one is a damaged line.
    let as_written = sum == format!("{:08x}", crc32fast::hash(text));
    as_written.then(|| str::from_utf8(text).ok()).flatten()
}

/// Without signs and blanks, which `parse` would take.
fn number(digits: &str, base: u32) -> Option<u32> {
    let plain = !digits.is_empty() && digits.chars().all(|c| c.is_digit(base));
    plain.then(|| u32::from_str_radix(digits, base).ok()).flatten()
}

/// Cuts what comes into lines, wherever it was split.
#[derive(Debug, Default)]
pub struct Lines {
    line: Vec<u8>,
    /// The line is longer than any of ours, and passed over.
    long: bool,
}

impl Lines {
    /// Hands every whole line to `each`.
    pub fn came(&mut self, bytes: &[u8], mut each: impl FnMut(&[u8])) {
        for byte in bytes {
            match byte {
                b'\r' | b'\n' => {
                    if !self.long && !self.line.is_empty() {
                        each(&self.line);
                    }
                    self.line.clear();
                    self.long = false;
                }
                byte if self.line.len() < LINE_MAX => self.line.push(*byte),
                _ => self.long = true,
            }
        }
    }

    /// What of a line is there.
    pub fn begun(&self) -> &[u8] {
        &self.line
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_line_as_it_stands() {
        let frame = Frame { about: About::Contents(2), seq: 26, last: true, body: b"foo".to_vec() };
        let line = frame.line();
        assert_eq!(line, b"~kc2!1a:Zm9v:993161a1\n");
        let said = [b"[   12.5] eth0: link ~k is up", &line[..line.len() - 1]].concat();
        assert_eq!(Frame::read(&said), Some(frame));
        let asked = Request::Pick { round: 1, line: 0, ranges: vec![(0, 5), (9, 9)] };
        assert!(asked.line().starts_with(b"~qpick 1 0 0-5 9:"));
    }

    #[test]
    fn a_message_in_the_middle_spoils_one_line() {
        let frame = |seq| Frame { about: About::Listing, seq, last: false, body: vec![7; 60] };
        let mut said = frame(0).line();
        said.splice(30..30, b"[   12.5] eth0: link is up\r\n".iter().copied());
        said.extend(frame(1).line());
        let mut lines = Lines::default();
        let mut read = Vec::new();
        for piece in said.chunks(7) {
            lines.came(piece, |line| read.extend(Frame::read(line)));
        }
        assert_eq!(read, [frame(1)]);
    }

    #[test]
    fn a_capital_letter_in_the_sum_is_a_wrong_byte() {
        let body = vec![52, 107, 32, 42, 107, 13, 15, 62, 94, 5, 4, 64, 2, 73, 65];
        let line = Frame { about: About::Listing, seq: 3, last: false, body }.line();
        let line = &line[..line.len() - 1];
        let letter = line.iter().rposition(|byte| byte.is_ascii_alphabetic()).unwrap();
        assert!(letter > line.len() - 8, "the sum has a letter");
        let mut wrong = line.to_vec();
        wrong[letter].make_ascii_uppercase();
        assert_eq!(Frame::read(&wrong), None);
        assert!(Frame::read(line).is_some());
    }

    proptest! {
        #[test]
        fn frames_and_requests_read_back(
            round in any::<u32>(), seq in any::<u32>(), last in any::<bool>(),
            body in proptest::collection::vec(any::<u8>(), 0..300),
            ranges in proptest::collection::vec(any::<(u32, u32)>(), 0..20),
        ) {
            for about in [About::Hello, About::Picked(round), About::Failed, About::Listing, About::Contents(round)] {
                let frame = Frame { about, seq, last, body: body.clone() };
                let line = frame.line();
                prop_assert_eq!(Frame::read(&line[..line.len() - 1]), Some(frame));
                let go = Request::Go { about, first: seq, last: round, free: seq };
                let line = go.line();
                prop_assert_eq!(Request::read(&line[..line.len() - 1]), Some(go));
            }
            let pick = Request::Pick { round, line: seq, ranges };
            let line = pick.line();
            prop_assert_eq!(Request::read(&line[..line.len() - 1]), Some(pick));
        }

        #[test]
        fn one_wrong_byte_is_found(
            body in proptest::collection::vec(any::<u8>(), 0..60), at in any::<prop::sample::Index>(), by in 1_u8..,
        ) {
            let frame = Frame { about: About::Listing, seq: 3, last: false, body };
            let mut line = frame.line();
            line.pop();
            let at = at.index(line.len());
            line[at] ^= by;
            prop_assert_eq!(Frame::read(&line), None);
        }

        #[test]
        fn anything_at_all_is_no_frame(bytes in proptest::collection::vec(any::<u8>(), 0..200), cut in 1_usize..20) {
            let (mut lines, mut at_once) = (Lines::default(), Lines::default());
            let (mut cut_up, mut whole) = (Vec::new(), Vec::new());
            for piece in bytes.chunks(cut) {
                lines.came(piece, |line| cut_up.push(line.to_vec()));
            }
            at_once.came(&bytes, |line| whole.push(line.to_vec()));
            prop_assert_eq!(&cut_up, &whole);
            for line in &whole {
                prop_assert_eq!(Frame::read(line), None);
                prop_assert_eq!(Request::read(line), None);
            }
        }
    }
}
