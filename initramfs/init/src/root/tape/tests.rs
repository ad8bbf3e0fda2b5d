//! Headers as writers make them, cut at every byte, and lies.

use super::*;

fn header(path: &str, kind: u8, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
    header.as_mut_bytes()[156] = kind;
    header.set_size(size);
    header.set_mode(0o644);
    header.set_uid(7);
    header.set_gid(8);
    header.set_mtime(1_795_000_000);
    header.set_cksum();
    header
}

fn member(path: &str, kind: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = header(path, kind, content.len() as u64).as_bytes().to_vec();
    bytes.extend_from_slice(content);
    bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
    bytes
}

fn pax(key: &str, value: &[u8]) -> Vec<u8> {
    let body = key.len() + value.len() + 3;
    let len = (body + 1..).find(|len| len.to_string().len() + body == *len).unwrap();
    let mut record = format!("{len} {key}=").into_bytes();
    record.extend_from_slice(value);
    record.push(b'\n');
    record
}

fn first(bytes: &[u8]) -> Result<Option<Entry>, TapeError> {
    Tape::new(bytes).next_entry()
}

#[test]
fn names_of_all_three_kinds() {
    let long = "d/".repeat(90) + "file";
    let mut gnu = member("././@LongLink", b'L', format!("{long}\0").as_bytes());
    gnu.extend(member("cut", b'0', b"content"));
    let mut by_pax = member("pax", b'x', &pax("path", long.as_bytes()));
    by_pax.extend(member("cut", b'0', b"content"));
    for bytes in [gnu, by_pax] {
        let mut tape = Tape::new(bytes.as_slice());
        let entry = tape.next_entry().unwrap().unwrap();
        assert_eq!(entry.path, long.as_bytes());
        let mut content = String::new();
        tape.read_to_string(&mut content).unwrap();
        assert_eq!(content, "content");
        assert_eq!(
            (entry.uid, entry.gid, entry.mode, entry.mtime),
            (7, 8, 0o644, (1_795_000_000, 0))
        );
        assert!(tape.next_entry().unwrap().is_none());
    }
}

#[test]
fn pax_carries_binary_attributes_and_large_ids() {
    let capability = b"\x01\0\0\x02\x0a\0=\n\0\0\0\0\0\0\0\0\0\0\0\0";
    let mut records = pax("SCHILY.xattr.security.capability", capability);
    records.extend(pax("uid", b"3000000"));
    records.extend(pax("mtime", b"1795000000.25"));
    let mut bytes = member("pax", b'x', &records);
    bytes.extend(member("bin/ping", b'0', b""));
    let entry = first(&bytes).unwrap().unwrap();
    assert_eq!(entry.xattrs, [(b"security.capability".to_vec(), capability.to_vec())]);
    assert_eq!((entry.uid, entry.mtime), (3_000_000, (1_795_000_000, 250_000_000)));
}

#[test]
fn what_was_not_read_is_passed_over() {
    let mut bytes = member("a", b'0', &[1; 1300]);
    bytes.extend(member("b/", b'0', b""));
    bytes.extend(member("c", b'2', b""));
    let mut tape = Tape::new(bytes.as_slice());
    assert_eq!(tape.next_entry().unwrap().unwrap().path, b"a");
    tape.read_exact(&mut [0; 100]).unwrap();
    let b = tape.next_entry().unwrap().unwrap();
    assert_eq!((b.path.as_slice(), b.kind), (&b"b/"[..], Kind::Directory));
    assert_eq!(tape.next_entry().unwrap().unwrap().kind, Kind::Symlink(Vec::new()));
}

#[test]
fn a_hard_link_names_a_size_and_has_no_bytes() {
    let mut link = header("b", b'1', 4096);
    link.as_mut_bytes()[157] = b'a';
    link.set_cksum();
    let mut bytes = link.as_bytes().to_vec();
    bytes.extend(member("c", b'0', b"x"));
    let mut tape = Tape::new(bytes.as_slice());
    assert_eq!(tape.next_entry().unwrap().unwrap().kind, Kind::HardLink(b"a".to_vec()));
    assert_eq!(tape.next_entry().unwrap().unwrap().path, b"c");
}

#[test]
fn every_cut_is_an_error_or_an_end() {
    let mut bytes = member("pax", b'x', &pax("path", b"some/where"));
    bytes.extend(member("cut", b'0', &[5; 700]));
    let whole = bytes.len();
    for cut in 0..=whole {
        let mut tape = Tape::new(&bytes[..cut]);
        let mut found = 0;
        let ended = loop {
            match tape.next_entry() {
                Ok(Some(_)) => found += 1,
                Ok(None) => break true,
                Err(_) => break false,
            }
        };
        // Between a PAX header and its member lies a block's edge, too.
        assert_eq!(ended, [0, 1024, whole].contains(&cut), "cut at {cut}");
        assert_eq!(found == 1, cut >= 1536, "cut at {cut}");
    }
}

#[test]
fn lies_are_told_apart() {
    let mut checksum = member("a", b'0', b"");
    checksum[0] = b'b';
    let cases = [
        (checksum, "checksum"),
        (vec![b'x'; 512], "checksum"),
        (header("n", b'L', 1 << 40).as_bytes().to_vec(), "bytes"),
        (header("n", b'x', 1 << 40).as_bytes().to_vec(), "bytes"),
        (member("n", b'x', b"9999 path=x\n"), "PAX"),
        (member("n", b'x', b"0 path=x\n"), "PAX"),
        (member("n", b'x', b"path=x\n"), "PAX"),
        (member("n", b'x', &pax("size", b"-1")), "number"),
        (member("n", b'x', &pax("GNU.sparse.major", b"1")), "sparse"),
        (member("n", b'V', b""), "type 'V'"),
        (member("n", b'S', b"abc"), "add up"),
    ];
    for (bytes, word) in cases {
        let why = first(&bytes).unwrap_err().to_string();
        assert!(why.contains(word), "{why} / {word}");
    }
}

#[test]
fn numbers() {
    let table: [(&[u8], Option<u64>); 9] = [
        (b"0000644\0", Some(0o644)),
        (b" 644 \0\0\0", Some(0o644)),
        (b"\0\0\0\0\0\0\0\0", Some(0)),
        (b"        ", Some(0)),
        (b"00009\0\0\0", None),
        (b"-1\0\0\0\0\0\0", None),
        (b"\x80\0\0\0\0\x2d\xc6\xc0", Some(3_000_000)),
        (b"\x80\0\0\0\0\0\0\x02\0\0\0\0", Some(8 << 30)),
        (b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", None),
    ];
    for (field, meant) in table {
        assert_eq!(octal(field), meant, "{field:?}");
    }
}

#[test]
fn sparse_maps() {
    let make = |pieces: &[(u64, u64)], real: u64, stored: u64| {
        let mut header = header("disk", b'S', stored);
        let gnu = header.as_gnu_mut().unwrap();
        for (slot, (offset, length)) in gnu.sparse.iter_mut().zip(pieces) {
            slot.set_offset(*offset);
            slot.set_length(*length);
        }
        gnu.set_real_size(real);
        header.set_cksum();
        header.as_bytes().to_vec()
    };
    let kind = first(&make(&[(512, 3), (4096, 0)], 4096, 3)).unwrap().unwrap().kind;
    assert_eq!(kind, Kind::File { size: 4096, pieces: vec![(512, 3), (4096, 0)] });
    type Map = (&'static [(u64, u64)], u64, u64);
    let wrong: [Map; 4] = [
        (&[(512, 3), (100, 3)], 4096, 6),
        (&[(4096, 3)], 4096, 3),
        (&[(0, 5), (3, 5)], 4096, 10),
        (&[(0, 5)], 4096, 6),
    ];
    for (pieces, real, stored) in wrong {
        assert!(first(&make(pieces, real, stored)).is_err(), "{pieces:?}");
    }
}
