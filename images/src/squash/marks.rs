//! What a layer takes away, in its two spellings: OCI's `.wh.NAME`, and overlayfs's character
//! device 0:0 of that name (Documentation/filesystems/overlayfs.rst, "whiteouts and opaque
//! directories").

use std::io::{self, Read, Write};

use crate::layer::WHITEOUT;
use crate::pack;
use crate::source::header::{Header, number, pax};

const BLOCK: u64 = 512;
/// Our own pax headers hold a path, and the attributes of what is not gone.
const PAX_MAX: u64 = 1 << 20;

/// Copies the beginning of one of our own layers, where all that is gone stands: to its first name
/// of something that is there, that name's header included.
pub(super) fn devices(tar: &mut impl Read, to: &mut impl Write) -> io::Result<()> {
    let bad = || io::Error::new(io::ErrorKind::InvalidData, "the layer is none of ours");
    loop {
        let mut block = [0; BLOCK as usize];
        tar.read_exact(&mut block)?;
        let mut header = Header(block);
        let mut before = Vec::new();
        let mut long = None;
        if header.kind() == b'x' {
            let size = number(header.field(124, 136)).filter(|size| *size <= PAX_MAX);
            let size = size.ok_or_else(bad)?;
            let mut records = vec![0; size.next_multiple_of(BLOCK) as usize];
            tar.read_exact(&mut records)?;
            before = [&header.0[..], &records].concat();
            long = pax(&records[..size as usize]).ok_or_else(bad)?.remove(&b"path"[..]);
            tar.read_exact(&mut block)?;
            header = Header(block);
        }
        let path = long.unwrap_or_else(|| header.name());
        let cut = path.iter().rposition(|c| *c == b'/').map_or(0, |at| at + 1);
        if let Some(name) = path[cut..].strip_prefix(WHITEOUT) {
            to.write_all(&pack::mark(&[&path[..cut], name].concat()))?;
            continue;
        }
        to.write_all(&before)?;
        to.write_all(&header.0)?;
        if path != b"./" {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;
    use crate::content::Content;
    use crate::layer::{Delta, between};
    use crate::source::Limits;
    use crate::source::spool::spooled;
    use crate::tree::{Inode, Kind, Member, Meta, Tree};

    fn tree(names: &[&str]) -> Tree {
        let mut tree = Tree::new(Limits::default());
        for name in names {
            let kind = Kind::File(Content::Span(spooled(name.as_bytes())));
            let inode = Inode { meta: Meta::default(), kind };
            tree.add(name.as_bytes(), Member::Inode(inode)).unwrap();
        }
        tree
    }

    fn tar(delta: &Delta<'_>) -> Vec<u8> {
        let out = tempfile::NamedTempFile::new().unwrap();
        pack::pack(delta, 1, out.reopen().unwrap(), &mut |_| ()).unwrap();
        zstd::decode_all(out.reopen().unwrap()).unwrap()
    }

    fn converted(tar: &[u8]) -> Vec<u8> {
        let (mut rest, mut out) = (tar, Vec::new());
        devices(&mut rest, &mut out).unwrap();
        rest.read_to_end(&mut out).unwrap();
        out
    }

    #[test]
    fn names_of_what_is_gone_become_devices_and_the_rest_stays() {
        let long = "long/".repeat(30);
        let [kept, gone, short] = ["kept", "gone", "a"].map(|name| format!("{long}{name}"));
        let (base, new) = (tree(&["etc/x", &gone, &kept]), tree(&[&kept, "etc/y", &short]));
        let before = tar(&between(&base, &new).unwrap());
        let after = converted(&before);
        let mut archive = tar::Archive::new(&after[..]);
        let each = archive.entries().unwrap().map(Result::unwrap).map(|entry| {
            let header = entry.header();
            let device = header.entry_type().is_character_special();
            let zero = (header.device_major().unwrap(), header.device_minor().unwrap());
            assert!(!device || zero == (Some(0), Some(0)));
            (entry.path().unwrap().to_string_lossy().into_owned(), device)
        });
        let each: Vec<(String, bool)> = each.collect();
        let devices: Vec<&str> =
            each.iter().filter(|(_, device)| *device).map(|(path, _)| path.as_str()).collect();
        assert_eq!(devices, ["etc/x", gone.as_str()]);
        assert!(!each.iter().any(|(path, _)| path.contains(".wh.")));
        assert!(each.contains(&(short, false)) && each.contains(&("etc/y".into(), false)));
        // Nothing gone: nothing changed.
        for tree in [tree(&[]), new] {
            let before = tar(&Delta::whole(&tree));
            assert!(converted(&before) == before);
        }
    }

    #[test]
    fn what_is_cut_or_none_of_ours_is_an_error() {
        let tar = tar(&Delta::whole(&tree(&["a"])));
        assert!(devices(&mut &tar[..700], &mut Vec::new()).is_err());
        let mut bent = tar;
        bent[156] = b'x';
        bent[124..135].copy_from_slice(b"77777777777");
        assert!(devices(&mut &bent[..], &mut Vec::new()).is_err());
    }
}
