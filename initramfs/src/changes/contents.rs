//! The bytes of files that were picked, one file after another: its number in the listing, its bytes in pieces of
//! known length, and whether all of them could be read. A file may grow or vanish meanwhile.

use std::io::{self, Read};

use super::number::{put, take};

/// Bytes of a piece.
const PIECE: usize = 64 * 1024;

/// Makes the stream, as it is read.
pub struct Contents<I, O> {
    picks: I,
    open: O,
    file: Option<Box<dyn Read>>,
    ready: Vec<u8>,
    at: usize,
    over: bool,
}

impl<I, O> Contents<I, O>
where
    I: Iterator<Item = u32>,
    O: FnMut(u32) -> io::Result<Box<dyn Read>>,
{
    /// Of these entries, opened as they are come to.
    pub fn new(picks: I, open: O) -> Contents<I, O> {
        Contents { picks, open, file: None, ready: Vec::new(), at: 0, over: false }
    }

    fn more(&mut self) {
        self.ready.clear();
        self.at = 0;
        let Some(file) = &mut self.file else {
            let Some(pick) = self.picks.next() else {
                self.over = true;
                return put(&mut self.ready, 0);
            };
            put(&mut self.ready, u64::from(pick) + 1);
            match (self.open)(pick) {
                Ok(file) => self.file = Some(file),
                Err(_) => self.ready.extend([0, 1]),
            }
            return;
        };
        let mut piece = vec![0; PIECE];
        match file.read(&mut piece) {
            Ok(0) => {
                self.ready.extend([0, 0]);
                self.file = None;
            }
            Ok(many) => {
                put(&mut self.ready, many as u64);
                self.ready.extend(piece.iter().take(many));
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => {
                self.ready.extend([0, 1]);
                self.file = None;
            }
        }
    }
}

impl<I, O> Read for Contents<I, O>
where
    I: Iterator<Item = u32>,
    O: FnMut(u32) -> io::Result<Box<dyn Read>>,
{
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.ready.len() && !self.over {
            self.more();
        }
        let rest = self.ready.get(self.at..).unwrap_or_default();
        let many = rest.len().min(buffer.len());
        for (to, from) in buffer.iter_mut().zip(rest) {
            *to = *from;
        }
        self.at += many;
        Ok(many)
    }
}

/// One of the files, as it begins.
pub type Begun = u32;

/// Takes the stream apart.
#[derive(Debug)]
pub struct Parts<R> {
    from: R,
}

impl<R: Read> Parts<R> {
    /// From its beginning. Bytes are taken one by one: let it be buffered.
    pub fn new(from: R) -> Parts<R> {
        Parts { from }
    }

    /// The next file's number, or nothing behind the last one. Its bytes have to be read before.
    ///
    /// # Errors
    /// It breaks off, or is damaged.
    pub fn next_file(&mut self) -> io::Result<Option<Begun>> {
        match self.number()? {
            0 => Ok(None),
            number => u32::try_from(number - 1).map(Some).map_err(|_| damaged()),
        }
    }

    /// Hands the bytes of the file that began to `each`; whether all of them could be read.
    ///
    /// # Errors
    /// It breaks off, or is damaged, or `each` fails.
    pub fn pieces(&mut self, mut each: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<bool> {
        let mut piece = Vec::new();
        loop {
            let many = self.number()?;
            if many == 0 {
                return Ok(self.byte()? == 0);
            }
            if many > PIECE as u64 {
                return Err(damaged());
            }
            piece.clear();
            self.from.by_ref().take(many).read_to_end(&mut piece)?;
            if piece.len() as u64 != many {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            each(&piece)?;
        }
    }

    fn byte(&mut self) -> io::Result<u8> {
        let mut byte = [0];
        self.from.read_exact(&mut byte)?;
        Ok(byte[0])
    }

    fn number(&mut self) -> io::Result<u64> {
        take(|| self.byte())?.ok_or_else(damaged)
    }
}

fn damaged() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the contents are damaged")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Everything of the stream: (number, bytes, whole).
    fn all(bytes: &[u8]) -> io::Result<Vec<(u32, Vec<u8>, bool)>> {
        let mut parts = Parts::new(bytes);
        let mut files = Vec::new();
        while let Some(number) = parts.next_file()? {
            let mut content = Vec::new();
            let whole = parts.pieces(|piece| {
                content.extend_from_slice(piece);
                Ok(())
            })?;
            files.push((number, content, whole));
        }
        Ok(files)
    }

    #[test]
    fn files_come_as_they_are_and_those_that_are_gone_are_said() {
        let large: Vec<u8> = (0..200_000_u32).map(|n| (n >> 3) as u8).collect();
        let files = [b"".to_vec(), b"text\n".to_vec(), large];
        let open = |pick: u32| match files.get(pick as usize) {
            Some(bytes) => Ok(Box::new(io::Cursor::new(bytes.clone())) as Box<dyn Read>),
            None => Err(io::ErrorKind::NotFound.into()),
        };
        let mut stream = Vec::new();
        let picks = [0, 7, 2, 1].into_iter();
        Contents::new(picks, open).read_to_end(&mut stream).expect("it is made");
        let read = all(&stream).expect("as it was made");
        let shape: Vec<_> =
            read.iter().map(|(n, bytes, whole)| (*n, bytes.len(), *whole)).collect();
        assert_eq!(shape, [(0, 0, true), (7, 0, false), (2, 200_000, true), (1, 5, true)]);
        assert_eq!(read[2].1, files[2]);
        for cut in (0..stream.len()).step_by(997).chain([stream.len() - 1]) {
            assert!(all(&stream[..cut]).is_err(), "{cut}");
        }
    }

    proptest! {
        #[test]
        fn anything_at_all_is_refused_or_read(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _either = all(&bytes);
        }
    }
}
