//! What fuzzing starts from, `tests/fuzz/corpus`, read by the parsers it is for: no panic, and an end. `fuzz` goes on
//! from there.

use std::fs;
use std::path::{Path, PathBuf};

use axum::http::{HeaderMap, HeaderValue, Method, header};
use koboshi::site::hostlist;
use koboshi::syslog::{Entry, Frames, parse, parse_netconsole};
use koboshi_images::{ImageRef, ImportOptions, Limits, Store, import};
use koboshi_initramfs::changes::frame::{Frame, Lines};
use koboshi_initramfs::changes::{contents, listing};
use koboshi_initramfs::{contract, cpio};
use koboshi_pxe::dhcp::{Packet, Request, frame};
use koboshi_pxe::http::range::owed;
use koboshi_pxe::{BootId, Mac, tftp};

type Parser<'a> = &'a mut dyn FnMut(&[u8]);

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fuzz")
}

/// Every input of these targets, by its parser.
fn read_all(parsers: &mut [(&str, Parser<'_>)]) {
    for (target, parser) in parsers {
        let files = fs::read_dir(fuzz().join("corpus").join(&target)).expect(target);
        let files: Vec<PathBuf> = files.map(|file| file.expect(target).path()).collect();
        assert!(!files.is_empty(), "{target} starts from nothing");
        for file in files {
            parser(&fs::read(&file).expect("a file"));
        }
    }
}

#[test]
fn parsers_come_to_an_end_with_all_that_fuzzing_starts_from() {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    read_all(&mut [
        ("dhcp", &mut |bytes| drop((Packet::decode(bytes), Request::decode(bytes)))),
        ("frame", &mut |bytes| {
            let _ = (frame::Datagram::decode(bytes), frame::Arp::decode(bytes));
        }),
        ("tftp", &mut |bytes| {
            drop((tftp::packet::decode(bytes), tftp::name::clean(bytes)));
        }),
        ("http_range", &mut |bytes| {
            let mut headers = HeaderMap::new();
            if let Ok(value) = HeaderValue::from_bytes(bytes) {
                headers.insert(header::RANGE, value);
            }
            owed(&Method::GET, &headers, "\"abc\"", 1000);
        }),
        ("report", &mut |bytes| drop(serde_json::from_slice::<contract::Report>(bytes))),
        ("cpio", &mut |bytes| drop(cpio::read(bytes, 1 << 20))),
        ("text", &mut |bytes| {
            let text = text(bytes);
            drop((text.parse::<Mac>(), text.parse::<BootId>(), text.parse::<ImageRef>()));
        }),
        ("changes", &mut |bytes| {
            let Some((kind, bytes)) = bytes.split_first() else { return };
            match kind {
                0 => {
                    let mut reader = listing::Reader::new(bytes);
                    while let Ok(Some(_)) = reader.next_entry() {}
                }
                1 => {
                    let mut parts = contents::Parts::new(bytes);
                    while let Ok(Some(_)) = parts.next_file() {
                        if parts.pieces(|_| Ok(())).is_err() {
                            return;
                        }
                    }
                }
                _ => Lines::default().came(bytes, |line| drop(Frame::read(line))),
            }
        }),
        ("hostlist", &mut |bytes| drop(hostlist::expand(&text(bytes)))),
        ("syslog", &mut |bytes| {
            let mut frames = Frames::default();
            frames.came(bytes, |message| drop(parse(message, jiff::Timestamp::UNIX_EPOCH)));
            frames.end(|message| drop(parse(message, jiff::Timestamp::UNIX_EPOCH)));
            let _ = (parse_netconsole(bytes), Entry::read(&text(bytes)));
        }),
    ]);
}

/// Archives: taken in or refused, and the store is as it was.
#[test]
fn archives_that_fuzzing_starts_from_leave_nothing_behind() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = Store::open(dir.path().join("images")).expect("an empty store");
    let archive = dir.path().join("archive");
    let mut taken = 0;
    let mut take = |bytes: &[u8]| {
        fs::write(&archive, bytes).expect("room");
        let limits =
            Limits { unpacked: 4 << 20, entries: 500, words: 1 << 20, ..Limits::default() };
        let options = ImportOptions { level: 1, limits, ..ImportOptions::default() };
        if let Ok(imported) = import(&store, "web", &archive, &options, &mut |_| ()) {
            store.verify(&imported.version).expect("whole");
            taken += 1;
        }
        let left = fs::read_dir(dir.path().join("images/tmp")).expect("the store").count();
        assert_eq!(left, 0, "left behind by an import");
    };
    read_all(&mut [("tar", &mut take)]);
    assert!(taken > 0, "none of them is sound: the corpus has aged");
}

/// Each target is there, and starts from something.
#[test]
fn every_fuzz_target_starts_from_something() {
    let targets = fs::read_to_string(fuzz().join("Cargo.toml")).expect("there");
    let targets: toml::Table = targets.parse().expect("TOML");
    for target in targets["bin"].as_array().expect("targets") {
        let path = target["path"].as_str().expect("a path");
        assert!(fuzz().join(path).is_file(), "{path}");
        let corpus = fuzz().join("corpus").join(target["name"].as_str().expect("a name"));
        let seeds = fs::read_dir(&corpus).map(|files| files.count()).unwrap_or(0);
        assert!(seeds > 0, "{} is empty", corpus.display());
    }
}
