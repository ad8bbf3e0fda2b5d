//! What a machine sends of its files, compared with what it announced and kept where it can be read again.

use std::collections::HashMap;
use std::io::{self, BufReader, BufWriter, Read, Write};

use koboshi_initramfs::changes::contents::Parts;
use koboshi_initramfs::changes::listing::Kind;

use super::Live;
use super::compare::Became;
use crate::Digest;
use crate::content::{Content, Span};
use crate::digest::Hashing;
use crate::error::{Fault, shown};

/// What zstd itself accepts: 128 MiB of window.
const WINDOW_LOG_MAX: u32 = 27;

impl Live<'_> {
    /// Contents by their numbers, and what is other than it was announced.
    pub(super) fn take(
        &self,
        sent: impl Read,
    ) -> Result<(HashMap<u32, Content>, Vec<String>), Fault> {
        let mut wanted = HashMap::new();
        for change in &self.changes {
            if let Became::Is(number, node) = &change.became
                && let Kind::File(size) = node.kind
            {
                wanted.insert(*number, (&change.path, size, node.sha256));
            }
        }
        let mut file = tempfile::tempfile_in(self.staging.dir())?;
        let (mut spans, mut changed, mut written) = (Vec::new(), Vec::new(), 0_u64);
        let mut out = BufWriter::with_capacity(1 << 17, &mut file);
        let mut parts = Parts::new(BufReader::with_capacity(1 << 16, decoder(sent)?));
        while let Some(number) = parts.next_file()? {
            let Some((path, size, sum)) = wanted.remove(&number) else {
                let what = format!("entry {number}, which nobody asked for");
                return Err(Fault::Malformed { what });
            };
            let (begin, mut came) = (written, 0_u64);
            let mut hashing = Hashing::new(io::sink());
            let whole = parts.pieces(|piece| {
                came = came.saturating_add(piece.len() as u64);
                // One that grew is known by its first byte too many.
                if came <= size {
                    hashing.write_all(piece)?;
                    out.write_all(piece)?;
                    written += piece.len() as u64;
                }
                Ok(())
            })?;
            if written > self.limits.unpacked {
                return Err(Fault::TooLarge { what: "what the machine sends".to_owned() });
            }
            let (_, digest, _) = hashing.finish();
            if !whole || came != size || sum.is_some_and(|sum| digest != Digest(sum)) {
                changed.push(shown(path));
            } else {
                spans.push((number, begin, size));
            }
        }
        out.flush()?;
        drop(out);
        let whole = Span::whole(file)?;
        let mut contents = HashMap::new();
        for (number, begin, size) in spans {
            let content = match size {
                0 => Content::Empty,
                _ => {
                    let span = whole.part(begin, size);
                    Content::Span(span.ok_or(io::Error::from(io::ErrorKind::UnexpectedEof))?)
                }
            };
            contents.insert(number, content);
        }
        Ok((contents, changed))
    }
}

/// As it was before it was compressed.
pub(super) fn decoder(packed: impl Read) -> io::Result<impl Read> {
    let mut decoder = zstd::stream::read::Decoder::new(packed)?;
    decoder.window_log_max(WINDOW_LOG_MAX)?;
    Ok(decoder)
}
