//! A server that cuts, flips bits and lies, and a root that is right in the end or not there.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use sha2::{Digest, Sha256};

use super::*;

const QUICK: Patience = Patience {
    connect: Duration::from_secs(5),
    head: Duration::from_secs(5),
    body: Duration::from_secs(5),
};

/// What the server does with one request.
#[derive(Clone, Copy, Debug)]
enum Deed {
    Serve,
    /// Ends the connection after so many bytes of the body.
    Cut(usize),
    /// Flips a bit of this byte of the blob.
    Flip(usize),
    Refuse,
    Hang,
    Garbage,
    WrongLength,
    /// Answers a range with the whole.
    IgnoreRange,
}

fn blob() -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    // Noise, so that the blob is as large as what is in it.
    let mut state = 1u32;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as u8
    })
    .take(200_000)
    .collect();
    for (path, content) in [("etc/hostname", b"image\n".as_slice()), ("usr/noise", &noise)] {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        tar.append_data(&mut header, path, content).unwrap();
    }
    zstd::encode_all(tar.into_inner().unwrap().as_slice(), 1).unwrap()
}

fn order(blob: &[u8]) -> Blob {
    let sha256: String = Sha256::digest(blob).iter().map(|b| format!("{b:02x}")).collect();
    Blob { path: format!("/blob/sha256/{sha256}"), sha256, size: blob.len() as u64 }
}

fn serve(blobs: Vec<Vec<u8>>, deeds: Vec<Deed>) -> (Server, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = Server(listener.local_addr().unwrap());
    let asked = Arc::new(Mutex::new(Vec::new()));
    let log = asked.clone();
    thread::spawn(move || {
        let mut deeds = deeds.into_iter();
        let mut kept = Vec::new();
        for stream in listener.incoming().flatten() {
            let deed = deeds.next().unwrap_or(Deed::Serve);
            if let Some(stream) = answer(stream, &blobs, deed, &log) {
                kept.push(stream);
            }
        }
    });
    (server, asked)
}

fn answer(
    mut stream: TcpStream,
    blobs: &[Vec<u8>],
    deed: Deed,
    log: &Mutex<Vec<String>>,
) -> Option<TcpStream> {
    let mut request = Vec::new();
    let mut piece = [0; 1024];
    while !request.windows(4).any(|w| w == b"\r\n\r\n") {
        match stream.read(&mut piece) {
            Ok(n) if n > 0 => request.extend_from_slice(&piece[..n]),
            _ => return None,
        }
    }
    let request = String::from_utf8(request).unwrap();
    let range = request
        .lines()
        .find_map(|line| line.strip_prefix("Range: bytes="))
        .map(|r| r.trim_end_matches('-'));
    let from: usize = range.map_or(0, |from| from.parse().unwrap());
    let which = blobs.iter().position(|blob| request.contains(&order(blob).path)).unwrap();
    let blob = &blobs[which];
    log.lock().unwrap().push(match blobs.len() {
        1 => range.unwrap_or("all").to_owned(),
        _ => format!("{which}: {}", range.unwrap_or("all")),
    });
    let mut body = blob.clone();
    let mut most = usize::MAX;
    let mut from = from;
    match deed {
        Deed::Serve => {}
        Deed::Cut(at) => most = at,
        Deed::Flip(at) => body[at] ^= 0x10,
        Deed::Refuse => {
            let _ = stream.write_all(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n");
            return None;
        }
        Deed::Hang => return Some(stream),
        Deed::Garbage => {
            let _ = stream.write_all(b"\x15\x03\x01\0\x02\x02\x16");
            return None;
        }
        Deed::WrongLength => body.push(0),
        Deed::IgnoreRange => from = 0,
    }
    let part = &body[from..];
    let status = if from > 0 {
        format!(
            "206 Partial Content\r\nContent-Range: bytes {from}-{}/{}",
            body.len() - 1,
            body.len()
        )
    } else {
        "200 OK".to_owned()
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\nDate: Mon, 23 Nov 2026 08:00:00 GMT\r\n\r\n",
        part.len()
    );
    let _ = stream.write_all(head.as_bytes());
    let _ = stream.write_all(&part[..part.len().min(most)]);
    None
}

struct Told {
    outcome: Result<Ready<Unpacked>, NoRoot>,
    events: Vec<Event>,
    asked: Vec<String>,
    dir: tempfile::TempDir,
}

fn try_it(
    blob: Vec<u8>,
    order: &Blob,
    deeds: &[Deed],
    patience: Patience,
    stop_after: usize,
) -> Told {
    try_all(vec![blob], std::slice::from_ref(order), deeds, patience, stop_after)
}

fn try_all(
    blobs: Vec<Vec<u8>>,
    layers: &[Blob],
    deeds: &[Deed],
    patience: Patience,
    stop_after: usize,
) -> Told {
    let (server, asked) = serve(blobs, deeds.to_vec());
    let outer = tempfile::tempdir().unwrap();
    let dir = outer.path().join("root");
    let mut fresh = || {
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir(&dir)
    };
    let mut events = Vec::new();
    let mut failures = 0;
    let mut listener = |event| {
        failures += usize::from(matches!(event, Event::Failed { .. }));
        events.push(event);
        failures < stop_after
    };
    let outcome =
        fetch(server, layers, "test@1", 1 << 20, &dir, &mut fresh, patience, &mut listener);
    let asked = asked.lock().unwrap().clone();
    Told { outcome, events, asked, dir: outer }
}

fn whys(events: &[Event]) -> Vec<&str> {
    events
        .iter()
        .filter_map(
            |event| if let Event::Failed { why, .. } = event { Some(why.as_str()) } else { None },
        )
        .collect()
}

#[test]
fn a_good_root_comes_at_once() {
    let blob = blob();
    let told = try_it(blob.clone(), &order(&blob), &[], QUICK, 9);
    let ready = told.outcome.unwrap();
    assert_eq!((ready.attempts, ready.made.members, ready.made.bytes), (1, 2, 200_006));
    assert_eq!(told.events, [Event::Date(1_795_420_800), Event::Begun { attempt: 1 }]);
    assert_eq!(fs::read(told.dir.path().join("root/etc/hostname")).unwrap(), b"image\n");
}

#[test]
fn a_cut_is_resumed_where_it_was() {
    let blob = blob();
    let order = order(&blob);
    let told = try_it(blob, &order, &[Deed::Cut(5000), Deed::Cut(0), Deed::Cut(7000)], QUICK, 9);
    assert_eq!(told.outcome.unwrap().attempts, 4);
    assert_eq!(told.asked, ["all", "5000", "5000", "12000"]);
    assert_eq!(fs::read(told.dir.path().join("root/usr/noise")).unwrap().len(), 200_000);
}

#[test]
fn a_flipped_bit_is_fetched_again_wherever_it_is() {
    let blob = blob();
    let order = order(&blob);
    let last = blob.len() - 1;
    for at in [0, 3, 5, 40, blob.len() / 3, blob.len() / 2, last - 4, last] {
        let told = try_it(blob.clone(), &order, &[Deed::Flip(at)], QUICK, 9);
        assert_eq!(told.outcome.unwrap().attempts, 2, "byte {at}");
        assert_eq!(whys(&told.events).len(), 1);
        assert!(whys(&told.events)[0].contains("altered"), "{:?}", told.events);
        assert_eq!(fs::read(told.dir.path().join("root/etc/hostname")).unwrap(), b"image\n");
    }
}

/// What is mounted is what `until_right` hands back, and nothing before it.
#[test]
fn a_squashfs_is_poured_again_until_it_is_right() {
    let blob = blob();
    let order = order(&blob);
    let disk = tempfile::NamedTempFile::new().unwrap();
    let deeds = vec![Deed::Flip(5000), Deed::Cut(9000), Deed::Serve, Deed::Flip(0)];
    let (server, _) = serve(vec![blob.clone()], deeds);
    let mut place = || fs::File::create(disk.path()).map_err(|error| error.to_string());
    let mut take = |target: &File, stream: &mut Stream<'_>, _: usize, poured: &mut u64| {
        *poured = crate::root::pour::pour(stream, target).map_err(|error| error.to_string())?;
        Ok(())
    };
    let mut altered = 0;
    let mut hear = |event| {
        if let Event::Failed { why, .. } = event {
            altered += usize::from(why.contains("altered"));
        }
        true
    };
    let blobs = std::slice::from_ref(&order);
    let course = &mut Course::new(blobs);
    let ready =
        until_right(server, blobs, "test@1", &mut place, &mut take, course, QUICK, &mut hear);
    let ready = ready.unwrap();
    assert_eq!((ready.made, ready.attempts, altered), (order.size, 3, 1));
    assert!(fs::read(disk.path()).unwrap().starts_with(&blob));
}

#[test]
fn a_bit_that_stays_flipped_is_never_booted() {
    let blob = blob();
    let told = try_it(blob.clone(), &order(&blob), &[Deed::Flip(70); 20], QUICK, 3);
    assert_eq!(told.outcome, Err(NoRoot::Stopped));
    assert_eq!(told.asked.len(), 3);
    assert!(whys(&told.events)[2].contains("3 times now"), "{:?}", told.events);
}

#[test]
fn refusals_hangs_and_garbage_are_tried_again() {
    let blob = blob();
    let order = order(&blob);
    let hasty =
        Patience { head: Duration::from_millis(300), body: Duration::from_millis(300), ..QUICK };
    let deeds = [Deed::Refuse, Deed::Garbage, Deed::Hang, Deed::WrongLength];
    let told = try_it(blob, &order, &deeds, hasty, 9);
    assert_eq!(told.outcome.unwrap().attempts, 5);
    let whys = whys(&told.events);
    for (why, word) in whys.iter().zip(["503", "not an HTTP answer", "no answer", "ordered are"]) {
        assert!(why.contains(word), "{why} / {word}");
    }
}

#[test]
fn a_server_that_cannot_resume_is_asked_from_the_start() {
    let blob = blob();
    let order = order(&blob);
    let told = try_it(blob, &order, &[Deed::Cut(5000), Deed::IgnoreRange], QUICK, 9);
    assert_eq!(told.outcome.unwrap().attempts, 3);
    assert_eq!(told.asked, ["all", "5000", "all"]);
}

#[test]
fn an_image_that_is_no_archive_is_not_fetched_for_ever() {
    for (blob, word) in [
        (vec![b'x'; 3000], "arrived as ordered"),
        (zstd::encode_all([b'x'; 3000].as_slice(), 1).unwrap(), "checksum"),
        (zstd::encode_all(vec![0; 200 << 20].as_slice(), 1).unwrap(), "goes on"),
    ] {
        let told = try_it(blob.clone(), &order(&blob), &[], QUICK, 9);
        let Err(NoRoot::Unusable(why)) = told.outcome else { panic!("{:?}", told.outcome) };
        assert!(why.contains(word), "{why}");
        assert_eq!(told.asked.len(), 1);
    }
}

/// Names with their contents.
fn layer(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (path, content) in members {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        tar.append_data(&mut header, path, *content).unwrap();
    }
    zstd::encode_all(tar.into_inner().unwrap().as_slice(), 1).unwrap()
}

/// A cut in a layer is resumed there. One that was altered has left its traces: the root is begun anew, and is
/// right in the end.
#[test]
fn layers_come_one_over_the_other() {
    let blobs = vec![
        blob(),
        layer(&[("etc/.wh.hostname", b""), ("etc/motd", b"two")]),
        layer(&[("etc/motd", b"three")]),
    ];
    let layers: Vec<Blob> = blobs.iter().map(|blob| order(blob)).collect();
    let told = try_all(blobs.clone(), &layers, &[], QUICK, 9);
    assert_eq!(told.outcome.unwrap().attempts, 1);
    assert_eq!(told.asked, ["0: all", "1: all", "2: all"]);
    let begun = |event: &&Event| matches!(event, Event::Begun { .. });
    assert_eq!(told.events.iter().filter(begun).count(), 1, "a root begins once");
    assert!(!told.dir.path().join("root/etc/hostname").exists());
    assert_eq!(fs::read(told.dir.path().join("root/etc/motd")).unwrap(), b"three");

    let deeds = [Deed::Serve, Deed::Cut(30), Deed::Serve, Deed::Flip(30)];
    let told = try_all(blobs, &layers, &deeds, QUICK, 9);
    let ready = told.outcome.unwrap();
    assert_eq!((ready.attempts, ready.made.members), (3, 5));
    let asked = ["0: all", "1: all", "1: 30", "2: all", "0: all", "1: all", "2: all"];
    assert_eq!(told.asked, asked);
    let whys = whys(&told.events);
    assert!(whys[1].contains("layer 3 of 3 of test@1 were altered"), "{whys:?}");
    assert!(whys[1].contains("begun anew"), "{whys:?}");
    assert_eq!(fs::read(told.dir.path().join("root/etc/motd")).unwrap(), b"three");
}

/// Nothing touches the root before its digest is right.
#[test]
fn files_are_laid_over_once_they_are_right() {
    let files = layer(&[("etc/hostname", b"mine\n"), ("srv/new", b"new")]);
    let blobs = vec![order(&files)];
    let root = tempfile::tempdir().unwrap();
    fs::create_dir(root.path().join("etc")).unwrap();
    fs::write(root.path().join("etc/hostname"), b"image\n").unwrap();
    let (server, _) = serve(vec![files], vec![Deed::Flip(40), Deed::Serve]);
    let mut seen = Vec::new();
    let mut hear = |event| {
        if let Event::Failed { .. } = event {
            seen.push(fs::read(root.path().join("etc/hostname")).unwrap());
        }
        true
    };
    let done = lay(server, &blobs, root.path(), QUICK, &mut hear).unwrap();
    assert_eq!((done.members, seen), (2, vec![b"image\n".to_vec()]));
    assert_eq!(fs::read(root.path().join("etc/hostname")).unwrap(), b"mine\n");
    // A tar that is none, though its digest is right, is no reason to ask again.
    let (server, asked) = serve(vec![b"no archive".to_vec()], Vec::new());
    let order = order(b"no archive");
    let outcome = lay(server, std::slice::from_ref(&order), root.path(), QUICK, &mut |_| true);
    assert!(matches!(outcome, Err(NoRoot::Unusable(_))), "{outcome:?}");
    assert_eq!(asked.lock().unwrap().len(), 1);
}

/// Nothing on the way of the bytes counts in 32 bits: zeros of four and a half gigabytes, cut behind the fourth.
#[test]
fn a_blob_over_four_gigabytes_is_resumed_where_it_was_cut() {
    const SIZE: u64 = 9 << 29;
    const CUT: u64 = (4 << 30) + 12_345;
    let sha256 = "4a106567656aef43130523c2c13d109f772dd3cd4e5330e9c589e387b347a7dd".to_owned();
    let blob = Blob { path: "/blob".to_owned(), sha256, size: SIZE };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = Server(listener.local_addr().unwrap());
    let answers = thread::spawn(move || {
        let zeros = vec![0; 1 << 20];
        [
            (0, CUT, "200 OK".to_owned()),
            (
                CUT,
                SIZE,
                format!("206 Partial Content\r\nContent-Range: bytes {CUT}-{}/{SIZE}", SIZE - 1),
            ),
        ]
        .map(|(from, to, status)| {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 1024];
            let n = stream.read(&mut request).unwrap();
            let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n", SIZE - from);
            stream.write_all(head.as_bytes()).unwrap();
            let mut left = to - from;
            while left > 0 {
                let piece = left.min(zeros.len() as u64);
                stream.write_all(&zeros[..piece as usize]).unwrap();
                left -= piece;
            }
            String::from_utf8_lossy(&request[..n]).into_owned()
        })
    });
    let mut place = || tempfile::tempfile().map_err(|error| error.to_string());
    let mut take = |_: &File, stream: &mut Stream<'_>, _: usize, bytes: &mut u64| {
        *bytes = io::copy(stream, &mut io::sink()).map_err(|error| error.to_string())?;
        Ok(())
    };
    let blobs = std::slice::from_ref(&blob);
    let course = &mut Course::new(blobs);
    let mut hear = |event| {
        if let Event::Progress(line) = event {
            assert!(line.contains("of 4831 MB"), "{line}");
        }
        true
    };
    let ready = until_right(server, blobs, "t@1", &mut place, &mut take, course, QUICK, &mut hear);
    let ready = ready.unwrap();
    assert_eq!((ready.made, ready.attempts), (SIZE, 2));
    let [first, second] = answers.join().unwrap();
    assert!(
        !first.contains("Range") && second.contains(&format!("Range: bytes={CUT}-")),
        "{second}"
    );
}
