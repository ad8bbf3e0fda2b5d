//! Distributions keep modules and microcode as `.gz`, `.xz` or `.zst`; a booting machine gets them
//! plain, so that its PID 1 needs no unpacker and the segment compresses as a whole.

use std::io::Cursor;

use crate::Error;
use crate::compress;

/// The content of a file by its name's ending; a file of another ending is as it is.
pub(crate) fn by_ending(name: &str, bytes: Vec<u8>, limit: usize) -> Result<Vec<u8>, Error> {
    let unpacked = match name.rsplit_once('.').map(|(_, ending)| ending) {
        Some("gz") if bytes.starts_with(&[0x1f, 0x8b]) => front(&bytes, limit),
        Some("zst") if bytes.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) => front(&bytes, limit),
        Some("gz" | "zst") => Err("not what its ending says".into()),
        Some("xz") => xz(&bytes, limit),
        _ if bytes.len() > limit => Err("larger than it may be".into()),
        _ => return Ok(bytes),
    };
    unpacked.map_err(|why| Error::Packed { name: name.to_owned(), why })
}

/// A name without its packing: `igb.ko.xz` is `igb.ko`.
pub(crate) fn without_ending(name: &str) -> &str {
    [".gz", ".xz", ".zst"].iter().find_map(|ending| name.strip_suffix(ending)).unwrap_or(name)
}

fn front(bytes: &[u8], limit: usize) -> Result<Vec<u8>, String> {
    compress::unpack_front(bytes, limit).map(|(out, _)| out)
}

fn xz(bytes: &[u8], limit: usize) -> Result<Vec<u8>, String> {
    // The decoder keeps a block in memory whole before it hands any of it on, so the size is
    // counted before, from the chunk headers.
    let size = xz_size(bytes).ok_or("not xz as the kernel build makes it")?;
    if size > limit as u64 {
        return Err("unpacks to more than it may".into());
    }
    let mut out = Vec::with_capacity(size as usize);
    lzma_rs::xz_decompress(&mut Cursor::new(bytes), &mut out).map_err(|e| e.to_string())?;
    Ok(out)
}

/// Bytes an xz stream unpacks to, added up over the LZMA2 chunks (xz-file-format 1.2.1, §3).
fn xz_size(bytes: &[u8]) -> Option<u64> {
    // Size of the check after a block, by the type in the stream's flags: none, CRC32, CRC64.
    let check = match (bytes.get(..6)?, bytes.get(7)?) {
        (b"\xfd7zXZ\0", 0) => 0,
        (b"\xfd7zXZ\0", 1) => 4,
        (b"\xfd7zXZ\0", 4) => 8,
        _ => return None,
    };
    let be16 =
        |at: usize| Some(u64::from(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?])));
    let (mut at, mut total) = (12usize, 0u64);
    loop {
        let header = usize::from(*bytes.get(at)?);
        if header == 0 {
            return Some(total); // the index
        }
        // A second filter could unpack the first one's output once more.
        if bytes.get(at + 1)? & 3 != 0 {
            return None;
        }
        at += (header + 1) * 4;
        loop {
            let control = *bytes.get(at)?;
            match control {
                0 => break at += 1,
                1 | 2 => {
                    let size = be16(at + 1)? + 1;
                    total += size;
                    at += 3 + size as usize;
                }
                0x80.. => {
                    total += (u64::from(control & 0x1f) << 16) + be16(at + 1)? + 1;
                    let properties = usize::from(control >= 0xc0);
                    at += 5 + properties + be16(at + 3)? as usize + 1;
                }
                _ => return None,
            }
        }
        at = at.next_multiple_of(4) + check;
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::process::{Command, Stdio};
    use std::sync::LazyLock;

    use proptest::prelude::*;

    use super::*;

    /// xz as the kernel's `make modules_install` calls it.
    fn xz_tool(text: &[u8], more: &[&str]) -> Vec<u8> {
        let mut child = Command::new("xz")
            .args(["--check=crc32", "--lzma2=dict=1MiB", "-c"])
            .args(more)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("xz is missing: `make setup` installs xz-utils");
        let mut stdin = child.stdin.take().expect("piped");
        let text = text.to_vec();
        let feeder = std::thread::spawn(move || stdin.write_all(&text));
        let out = child.wait_with_output().expect("xz ends");
        feeder.join().expect("no panic").expect("xz reads all");
        assert!(out.status.success());
        out.stdout
    }

    #[test]
    fn xz_of_one_and_many_blocks() {
        let mut text: Vec<u8> = (0..600_000u32).flat_map(|n| (n / 7).to_le_bytes()).collect();
        text.extend((0..100_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 11) as u8));
        for more in [&[][..], &["--block-size=900000"], &["--check=crc64"], &["--check=none"]] {
            let packed = xz_tool(&text, more);
            assert_eq!(xz_size(&packed), Some(text.len() as u64), "{more:?}");
            let limit = text.len();
            assert_eq!(by_ending("a.ko.xz", packed.clone(), limit).expect("sound"), text);
            by_ending("a.ko.xz", packed.clone(), limit - 1).expect_err("too large");
            for cut in [0, 5, 7, 12, 13, 20, packed.len() / 2, packed.len() - 1] {
                by_ending("a.ko.xz", packed[..cut].to_vec(), limit).expect_err("cut");
            }
        }
        assert_eq!(by_ending("a.xz", xz_tool(b"", &[]), 0).expect("empty"), b"");
    }

    /// Found by fuzzing: lzma-rs adds one to the index's size as the footer has it.
    #[test]
    fn a_footer_that_lies_is_an_error() {
        let mut packed = xz_tool(b"", &[]);
        let size = packed.len() - 8..packed.len() - 4;
        packed[size].fill(0xff);
        by_ending("a.ko.xz", packed, 1 << 20).expect_err("no index is 16 GiB long");
    }

    #[test]
    fn a_bomb_is_measured_not_unpacked() {
        let packed = xz_tool(&vec![0; 16 << 20], &[]);
        assert!(packed.len() < 4_000, "{}", packed.len());
        by_ending("bomb.ko.xz", packed, 8 << 20).expect_err("16 MiB");
    }

    #[test]
    fn endings() {
        for (name, bare) in
            [("a.ko", "a.ko"), ("a.ko.xz", "a.ko"), ("a.ko.zst", "a.ko"), ("a.gz", "a")]
        {
            assert_eq!(without_ending(name), bare);
        }
        let zst = zstd::encode_all(&b"elf"[..], 3).expect("memory");
        assert_eq!(by_ending("a.ko.zst", zst, 10).expect("sound"), b"elf");
        assert_eq!(by_ending("a.ko", b"elf".to_vec(), 10).expect("sound"), b"elf");
        by_ending("a.ko", b"elf".to_vec(), 2).expect_err("too large");
        by_ending("a.ko.gz", b"elf".to_vec(), 10).expect_err("no gzip");
        by_ending("a.ko.xz", b"elf".to_vec(), 10).expect_err("no xz");
    }

    static SMALL: LazyLock<Vec<u8>> = LazyLock::new(|| {
        let text: Vec<u8> = (0..700u32).flat_map(|n| (n * n % 251).to_le_bytes()).collect();
        xz_tool(&text, &["--block-size=2000"])
    });

    proptest! {
        #[test]
        fn damaged_xz_is_an_error_at_most(
            at in any::<prop::sample::Index>(),
            bytes in proptest::collection::vec(any::<u8>(), 1..6),
        ) {
            let mut packed = SMALL.clone();
            let at = at.index(packed.len());
            let end = packed.len().min(at + bytes.len());
            packed[at..end].copy_from_slice(&bytes[..end - at]);
            let _any = by_ending("a.ko.xz", packed, 1 << 20);
        }
    }
}
