//! Tars of another writer, whole, cut and bent.

use proptest::prelude::*;

use super::*;
use crate::source::spool::spooled;

fn list(bytes: &[u8], end: End) -> Result<Vec<(String, u64)>, Fault> {
    let mut names = Vec::new();
    each(&spooled(bytes), end, &mut |entry| {
        let size = match &entry.member {
            Member::Inode(Inode { kind: Kind::File(content), .. }) => {
                assert_eq!(content.read(1 << 20)?.len() as u64, content.size());
                content.size()
            }
            _ => 0,
        };
        names.push((String::from_utf8_lossy(&entry.name).into_owned(), size));
        Ok(())
    })?;
    Ok(names)
}

fn sample() -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(5);
    header.set_mode(0o644);
    header.set_cksum();
    builder.append_data(&mut header.clone(), "etc/hello", &b"hello"[..]).unwrap();
    builder.append_data(&mut header.clone(), "x/".repeat(80) + "long", &b"world"[..]).unwrap();
    builder.append_pax_extensions([("SCHILY.xattr.user.x", &b"a\nb"[..])]).unwrap();
    builder.append_data(&mut header, "attr", &b"12345"[..]).unwrap();
    builder.into_inner().unwrap()
}

#[test]
fn a_tar_of_another_writer_reads_as_written() {
    let names = list(&sample(), End::Marked).unwrap();
    assert_eq!(names[0], ("etc/hello".to_owned(), 5));
    assert_eq!(names[1], ("x/".repeat(80) + "long", 5));
    assert_eq!(names[2], ("attr".to_owned(), 5));
}

#[test]
fn a_tar_cut_anywhere_is_refused() {
    let whole = sample();
    let end = whole.len() - 1024;
    for cut in (0..end).step_by(7).chain([end, 512, 1024, end - 1]) {
        let error = list(&whole[..cut], End::Marked).expect_err("a cut tar");
        assert!(matches!(error, Fault::Cut { .. }), "{cut}: {error}");
    }
    assert!(list(&whole[..end], End::Digested).is_ok());
    assert!(list(&whole[..end + 512], End::Marked).is_ok());
}

proptest! {
    #[test]
    fn bent_tars_never_panic(
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        fix in any::<bool>(),
    ) {
        let mut bytes = sample();
        for (at, byte) in edits {
            let at = at.index(bytes.len());
            bytes[at] = byte;
            if fix {
                let block = at / 512 * 512;
                let mut header = tar::Header::new_old();
                header.as_mut_bytes().copy_from_slice(&bytes[block..block + 512]);
                header.set_cksum();
                bytes[block..block + 512].copy_from_slice(header.as_bytes());
            }
        }
        let _ = list(&bytes, End::Marked);
    }

}
