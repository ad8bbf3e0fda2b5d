//! Messages on their way, framed (RFC 6587 3.4.1). Where there is no more room the oldest goes, and is counted:
//! what a machine says last is what one looks for.

use std::collections::VecDeque;
use std::io;

/// See the module.
pub struct Queue {
    frames: VecDeque<Vec<u8>>,
    /// Bytes of the first that are sent.
    sent: usize,
    bytes: usize,
    most: usize,
    dropped: u64,
}

impl Queue {
    pub fn new(most: usize) -> Queue {
        Queue { frames: VecDeque::new(), sent: 0, bytes: 0, most, dropped: 0 }
    }

    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Behind the others.
    pub fn push(&mut self, message: String) {
        let frame = framed(message);
        self.bytes += frame.len();
        self.frames.push_back(frame);
        // The first may be half sent: the one behind it goes.
        while self.bytes > self.most {
            let number = usize::from(self.sent > 0);
            let Some(gone) = self.frames.remove(number) else { return };
            self.bytes -= gone.len();
            self.dropped += 1;
        }
    }

    /// Before the others. Nothing is half sent.
    pub fn push_first(&mut self, message: String) {
        let frame = framed(message);
        self.bytes += frame.len();
        self.frames.push_front(frame);
    }

    /// How many were dropped since this was asked last, if any were.
    pub fn take_dropped(&mut self) -> Option<u64> {
        Some(std::mem::take(&mut self.dropped)).filter(|dropped| *dropped > 0)
    }

    /// Sends as much as is taken.
    pub fn send(&mut self, mut write: impl FnMut(&[u8]) -> io::Result<usize>) -> io::Result<()> {
        while let Some(frame) = self.frames.front() {
            match write(frame.get(self.sent..).unwrap_or_default()) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(many) => self.sent += many,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
            if self.sent >= frame.len() {
                self.bytes -= frame.len();
                self.sent = 0;
                self.frames.pop_front();
            }
        }
        Ok(())
    }

    /// On another connection: the first from its beginning.
    pub fn again(&mut self) {
        self.sent = 0;
    }
}

fn framed(message: String) -> Vec<u8> {
    format!("{} {message}", message.len()).into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_go_whole_in_any_pieces_and_the_half_one_again() {
        let mut queue = Queue::new(1000);
        queue.push("one".into());
        queue.push("zw\u{f6}lf".into());
        let (mut wire, mut calls) = (Vec::new(), 0);
        let mut slow = |bytes: &[u8]| {
            calls += 1;
            if calls % 2 == 0 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            wire.extend_from_slice(&bytes[..2.min(bytes.len())]);
            Ok(2.min(bytes.len()))
        };
        for _ in 0..4 {
            queue.send(&mut slow).unwrap();
        }
        assert!(queue.send(|_| Err(io::ErrorKind::ConnectionReset.into())).is_err());
        queue.again();
        assert_eq!(wire, "3 one6 ".as_bytes());
        let mut rest = Vec::new();
        queue.send(|bytes| io::Write::write(&mut rest, bytes)).unwrap();
        assert_eq!(rest, "6 zw\u{f6}lf".as_bytes());
        assert!(queue.is_empty() && queue.bytes == 0);
    }

    #[test]
    fn the_oldest_goes_but_for_the_half_of_one() {
        let mut queue = Queue::new(30);
        queue.push("0123456789".into());
        queue.send(|_| Err(io::ErrorKind::WouldBlock.into())).unwrap();
        let mut once = true;
        let begun = queue.send(|_| {
            if std::mem::take(&mut once) { Ok(4) } else { Err(io::ErrorKind::WouldBlock.into()) }
        });
        begun.unwrap();
        for number in 1..=9u8 {
            queue.push(char::from(b'0' + number).to_string().repeat(6));
        }
        assert_eq!(queue.take_dropped(), Some(7));
        assert_eq!(queue.take_dropped(), None);
        let mut rest = Vec::new();
        queue.send(|bytes| io::Write::write(&mut rest, bytes)).unwrap();
        assert_eq!(String::from_utf8(rest).unwrap(), "1234567896 8888886 999999");
        // One that is longer than all the room is no reason to loop.
        queue.push("x".repeat(100));
        assert_eq!((queue.take_dropped(), queue.is_empty(), queue.bytes), (Some(1), true, 0));
    }
}
