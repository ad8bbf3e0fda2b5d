//! A tree looked through: names at known places, permissions, and the contents of every file, each
//! read once. Two threads where the host has two processors.

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::markers::look_through;
use super::rules::Rule;
use super::{Finding, keys, logins, modes, places};
use crate::Digest;
use crate::content::Content;
use crate::error::{Error, Fault, shown};
use crate::tree::{Inode, Kind, Tree};

/// What a look at a small file found.
#[derive(Debug, Clone)]
pub(super) struct Hit {
    pub(super) rule: &'static Rule,
    /// Byte of the file.
    pub(super) at: u64,
    /// A user's name, a kind of key: never the secret.
    pub(super) note: Option<String>,
    /// Of the secret.
    pub(super) evidence: Digest,
}

impl Hit {
    /// A line, or another stretch of the file, that begins at byte `at`.
    pub(super) fn line(rule: &'static Rule, at: usize, evidence: &[u8]) -> Hit {
        Hit { rule, at: at as u64, note: None, evidence: Digest::of(evidence) }
    }

    /// Whose, or of which kind.
    pub(super) fn of(mut self, note: &[u8]) -> Hit {
        self.note = Some(shown(note));
        self
    }
}

/// Where nobody's secrets lie, but documentation, examples and the keys of test suites; kernel
/// modules and firmware are their makers'.
pub(super) fn public(path: &[u8]) -> bool {
    let path = path.strip_prefix(b"usr/").map_or(path, |inner| inner);
    if path.starts_with(b"local/") || path.starts_with(b"src/") {
        return false;
    }
    let published: [&[u8]; 10] = [
        b"share/doc/",
        b"share/man/",
        b"share/info/",
        b"share/locale/",
        b"lib/modules/",
        b"lib/firmware/",
        b"include/",
        b"share/mime/",
        // Manuals with hashes in their examples, and the tables made of them.
        b"share/mysql/",
        b"var/lib/mysql/mysql/help_topic.",
    ];
    if published.iter().any(|dir| path.starts_with(dir)) {
        return true;
    }
    let shipped: [&[u8]; 5] = [b"share/", b"lib/", b"lib64/", b"libexec/", b"lib32/"];
    let of_tests: [&[u8]; 13] = [
        b"test",
        b"tests",
        b"testing",
        b"testdata",
        b"test-data",
        b"test_data",
        b"testsuite",
        b"t",
        b"example",
        b"examples",
        b"fixtures",
        b"demos",
        b"samples",
    ];
    shipped.iter().any(|dir| path.starts_with(dir))
        && path.split(|c| *c == b'/').rev().skip(1).any(|part| of_tests.contains(&part))
}

/// Programs and libraries of packages: some prove themselves with keys they bring (FIPS 140), and
/// none holds anything of this image's.
fn packaged_program(path: &[u8], head: &[u8]) -> bool {
    let dirs: [&[u8]; 6] = [b"usr/", b"bin/", b"sbin/", b"lib/", b"lib32/", b"lib64/"];
    head.starts_with(b"\x7fELF")
        && dirs.iter().any(|dir| path.starts_with(dir))
        && !path.starts_with(b"usr/local/")
}

/// Everything found, by path, then rule. Hard links are looked at under their first name.
pub(super) fn scan(tree: &Tree) -> Result<Vec<Finding>, Error> {
    let mut entries: Vec<(&[u8], &Inode)> = Vec::with_capacity(tree.len());
    let mut seen = std::collections::HashSet::new();
    for (path, number, inode) in tree.iter() {
        if seen.insert(number) {
            entries.push((path, inode));
        }
    }
    let next = AtomicUsize::new(0);
    let all = Mutex::new(Ok(Vec::new()));
    let work = || {
        let mut buf = Vec::new();
        let mut found = Vec::new();
        let mut result = Ok(());
        // A few at a time: neighbours lie beside each other in the archive.
        'entries: loop {
            let at = next.fetch_add(32, Ordering::Relaxed);
            let Some(some) = entries.get(at..(at + 32).min(entries.len())) else { break };
            if some.is_empty() {
                break;
            }
            for (path, inode) in some {
                if let Err(error) = entry(path, inode, &mut buf, &mut found) {
                    result = Err(error);
                    break 'entries;
                }
            }
        }
        if let Ok(mut all) = all.lock() {
            match (&mut *all, result) {
                (Ok(all), Ok(())) => all.append(&mut found),
                (all @ Ok(_), Err(error)) => *all = Err(error),
                (Err(_), _) => {}
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get().clamp(1, 8));
    std::thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(work);
        }
        work();
    });
    let mut all = all.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner())?;
    all.sort_by(|a: &Finding, b| (&a.path, a.rule.id).cmp(&(&b.path, b.rule.id)));
    Ok(all)
}

/// One name of the tree.
fn entry(
    path: &[u8],
    inode: &Inode,
    buf: &mut Vec<u8>,
    found: &mut Vec<Finding>,
) -> Result<(), Error> {
    for (rule, said) in modes::modes(path, inode) {
        let evidence = Digest::of(said.as_bytes());
        found.push(Finding::new(rule, path, Some(said), evidence));
    }
    let Kind::File(content) = &inode.kind else { return Ok(()) };
    if content.size() == 0 {
        return Ok(());
    }
    file(path, content, buf, found).map_err(|error| {
        Error::source(std::path::Path::new(&format!("/{}", shown(path))))(Fault::Io(error))
    })
}

fn file(
    path: &[u8],
    content: &Content,
    buf: &mut Vec<u8>,
    found: &mut Vec<Finding>,
) -> std::io::Result<()> {
    let mut gathered: BTreeMap<&'static str, Gathered> = BTreeMap::new();
    let mut gather = |hit: Hit| {
        gathered.entry(hit.rule.id).or_insert_with(|| Gathered::new(&hit)).add(hit);
    };
    let size = content.size();
    let place = places::place(path);
    let mut whole = false;
    if let Some(place) = &place {
        // What is larger than any such file ever is, is another kind of file.
        if size <= places::MOST {
            let bytes = content.read(places::MOST)?;
            for hit in place.look(&bytes) {
                gather(hit);
            }
        }
        // A file that is a secret as a whole needs no second look.
        whole = place.is_whole();
    }
    if path.starts_with(b"etc/") && size <= 1 << 20 {
        for hit in logins::url_passwords(&content.read(1 << 20)?) {
            gather(hit);
        }
    }
    if !whole && !public(path) {
        let mut head = [0u8; 8192];
        let mut reader = content.open()?;
        let length = fill(&mut reader, &mut head)?;
        if let Some(hit) = keys::binary(&head[..length], size) {
            gather(hit);
        }
        if !packaged_program(path, &head[..length]) {
            let mut reader = (&head[..length]).chain(reader);
            look_through(path, &mut reader, size, buf, &mut |at, found| {
                let evidence = Digest::of(&found.evidence);
                gather(Hit { rule: found.rule, at, note: found.note, evidence });
            })?;
        }
    }
    for (_, one) in gathered {
        let mut finding = Finding::new(one.rule, path, one.note, one.evidence);
        finding.count = one.count;
        match line_of(content, one.at)? {
            Some(line) => finding.line = Some(line),
            None => finding.byte = Some(one.at),
        }
        found.push(finding);
    }
    Ok(())
}

/// All hits of one rule in one file.
struct Gathered {
    rule: &'static Rule,
    at: u64,
    count: u32,
    note: Option<String>,
    notes: u32,
    evidence: Digest,
    seen: Vec<Digest>,
}

/// Notes beyond these are counted.
const NOTES: u32 = 4;

impl Gathered {
    fn new(first: &Hit) -> Gathered {
        let (rule, at, evidence) = (first.rule, first.at, first.evidence);
        Gathered { rule, at, count: 0, note: None, notes: 0, evidence, seen: Vec::new() }
    }

    fn add(&mut self, hit: Hit) {
        // The same secret by two looks, or written twice.
        if self.seen.contains(&hit.evidence) {
            return;
        }
        if self.seen.len() < 256 {
            self.seen.push(hit.evidence);
        }
        if self.count > 0 {
            self.evidence = Digest::of(&[self.evidence.0, hit.evidence.0].concat());
        }
        self.at = self.at.min(hit.at);
        self.count = self.count.saturating_add(1);
        let Some(note) = hit.note else { return };
        match &mut self.note {
            None => self.note = Some(note),
            Some(notes) if notes.split(", ").any(|said| said == note) => return,
            Some(notes) if self.notes < NOTES => *notes = format!("{notes}, {note}"),
            Some(notes) if self.notes == NOTES => notes.push_str(", …"),
            Some(_) => {}
        }
        self.notes += 1;
    }
}

/// The line a byte is in; `None` in what is no text.
fn line_of(content: &Content, at: u64) -> std::io::Result<Option<u64>> {
    let mut reader = content.open()?.take(at);
    let mut buf = [0u8; 8192];
    let mut line = 1;
    loop {
        let got = fill(&mut reader, &mut buf)?;
        if buf[..got].contains(&0) {
            return Ok(None);
        }
        line += buf[..got].iter().filter(|c| **c == b'\n').count() as u64;
        if got < buf.len() {
            break;
        }
    }
    // What begins with a NUL, or is a secret from its first byte on, may still be no text.
    let mut first = [0u8; 64];
    let mut reader = content.open()?;
    let got = fill(&mut reader, &mut first)?;
    Ok((!first[..got].contains(&0)).then_some(line))
}

/// Fills the buffer as far as there is anything.
fn fill(reader: &mut dyn Read, buf: &mut [u8]) -> std::io::Result<usize> {
    let mut length = 0;
    while length < buf.len() {
        match reader.read(&mut buf[length..]) {
            Ok(0) => break,
            Ok(got) => length += got,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(length)
}
