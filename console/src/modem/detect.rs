//! Sees in what a machine says that a program there waits for ZMODEM: `sz FILE` and `rz` begin with a header that
//! nothing else says.

/// What the other side wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wants {
    /// It sends: `sz` was started.
    ToSend,
    /// It waits for files: `rz` was started.
    ToReceive,
}

/// ZRQINIT, or ZRINIT but for what it can.
const BEGIN: &[u8] = b"**\x18B0";
/// ZRINIT's two bytes that say how much room it has, and one that is not used.
const RINIT: usize = 6;

/// Looks at what comes.
#[derive(Debug, Default)]
pub struct Detector {
    /// What came of a header.
    at: usize,
    kind: u8,
}

impl Detector {
    /// What these bytes, with those before, say of it. The last one counts.
    pub fn came(&mut self, bytes: &[u8]) -> Option<Wants> {
        bytes.iter().filter_map(|byte| self.step(*byte)).last()
    }

    fn step(&mut self, byte: u8) -> Option<Wants> {
        let at = self.at;
        self.at = match BEGIN.get(at) {
            Some(awaited) if *awaited == byte => at + 1,
            // A third star.
            Some(_) if byte == b'*' => {
                if at == 2 {
                    2
                } else {
                    1
                }
            }
            Some(_) => 0,
            None if at == BEGIN.len() => {
                self.kind = byte;
                if matches!(byte, b'0' | b'1') { at + 1 } else { 0 }
            }
            None => {
                let digit = byte.is_ascii_digit() || matches!(byte, b'a'..=b'f');
                if !digit {
                    0
                } else if at == BEGIN.len() + RINIT {
                    self.at = 0;
                    return Some(if self.kind == b'0' { Wants::ToSend } else { Wants::ToReceive });
                } else {
                    at + 1
                }
            }
        };
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn programs_that_wait() {
        let came = |bytes: &[u8]| Detector::default().came(bytes);
        assert_eq!(came(b"# sz x\r\nrz\r**\x18B00000000000000\r\x8a\x11"), Some(Wants::ToSend));
        assert_eq!(
            came(b"rz waiting to receive.***\x18B0100000023be50\r\x8a\x11"),
            Some(Wants::ToReceive)
        );
        assert_eq!(came(b"**\x18B0800000000022d\r\x8a"), None);
        assert_eq!(came(b"**B00000000000000"), None);
    }

    proptest! {
        #[test]
        fn split_anywhere(noise in prop::collection::vec(any::<u8>(), 0..40), cut in 0usize..60) {
            let mut bytes = noise;
            bytes.extend(b"\n**\x18B00000000000000\r");
            let (one, two) = bytes.split_at(cut.min(bytes.len()));
            let mut detector = Detector::default();
            let seen = detector.came(one).or(detector.came(two));
            prop_assert_eq!(seen, Some(Wants::ToSend));
        }
    }
}
