//! What was done to images, when, by whom and why: `log.jsonl` beside the index, a line for each act.
//!
//! An act and the change of the index are one: the index carries the acts of its last change
//! (annotation `dev.koboshi.acts`), and they are appended to the log once it is in place. What a
//! crash kept from the log is appended with the next change, and readers see it meanwhile.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::oci::{self, Index};
use crate::store::{Held, Store};
use crate::version::{Version, identity};
use crate::{Digest, Error};

const FILE: &str = "log.jsonl";
/// The log is rewritten when it is larger. About 20,000 acts: years of an image a day.
const SIZE_MAX: u64 = 8 << 20;
/// What a rewritten log has at most.
const SIZE_KEPT: usize = 4 << 20;
/// The newest lines, where the last act is looked for.
const TAIL: u64 = 64 << 10;
/// Longest author or reason that is written down, in characters.
const WORDS_MAX: usize = 2000;

/// Who does something to an image, and what for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct By {
    /// Who.
    pub author: Option<String>,
    /// What for.
    pub reason: Option<String>,
}

/// One line of the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Act {
    /// Counts from 1 and grows.
    #[serde(default)]
    pub id: u64,
    /// When.
    pub at: Timestamp,
    /// `import`, `build`, `publish`, `rollback`, `pin`, …
    pub act: String,
    /// Image name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub image: String,
    /// Its version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u32>,
    /// Of that version's manifest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// What machines booted before it, where they boot another version by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub former: Option<u32>,
    /// Who.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// What for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Older acts that the log has forgotten, where it stands for them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forgotten: Option<u64>,
}

impl Act {
    /// An act on a version, now.
    pub fn on(act: &str, version: &Version, by: &By) -> Act {
        Act::named(act, &version.name, version.version, Some(version.digest), by)
    }

    pub(crate) fn named(
        act: &str,
        image: &str,
        version: u32,
        digest: Option<Digest>,
        by: &By,
    ) -> Act {
        let short = |text: &Option<String>| {
            text.as_ref().map(|text| text.chars().take(WORDS_MAX).collect::<String>())
        };
        Act {
            id: 0,
            at: Timestamp::now(),
            act: act.to_owned(),
            image: image.to_owned(),
            version: Some(version),
            digest,
            former: None,
            author: short(&by.author),
            reason: short(&by.reason),
            forgotten: None,
        }
    }
}

/// What is remembered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Log {
    /// The oldest first.
    pub acts: Vec<Act>,
    /// Lines that do not read back.
    pub unreadable: u64,
    /// Acts that were forgotten, for the log is bounded.
    pub forgotten: u64,
}

impl Store {
    /// What was done to images, or to one of them.
    pub fn log(&self, name: Option<&str>) -> Result<Log, Error> {
        // In this order: what the index has not handed on by now is in it.
        let pending = pending(&self.index()?);
        let mut log = parse(&read(self)?);
        let last = log.acts.last().map_or(0, |act| act.id);
        log.acts.extend(pending.into_iter().filter(|act| act.id > last));
        log.forgotten = log.acts.iter().filter_map(|act| act.forgotten).sum();
        log.acts.retain(|act| act.forgotten.is_none() && name.is_none_or(|name| act.image == name));
        Ok(log)
    }
}

/// Writes down in the index what the change of it does.
pub(crate) fn note(index: &mut Index, act: Act) {
    let mut acts = pending(index);
    acts.push(act);
    set(index, &acts);
}

/// Gives the acts of a change their numbers, and lets go of those that are in the log.
pub(crate) fn number(store: &Store, index: &mut Index) -> Result<(), Error> {
    let mut acts = pending(index);
    let logged = last(store)?;
    acts.retain(|act| act.id == 0 || act.id > logged);
    let mut next = acts.iter().map(|act| act.id).max().unwrap_or(0).max(logged);
    for act in acts.iter_mut().filter(|act| act.id == 0) {
        next += 1;
        act.id = next;
    }
    set(index, &acts);
    Ok(())
}

/// Appends what the index holds and the log lacks. A log that takes nothing (a full disk) stops no
/// act: the index keeps it until the log does.
pub(crate) fn append(store: &Store, held: &Held, index: &Index) {
    // The act stands, and is in the index.
    let _ = try_append(store, held, index);
}

fn try_append(store: &Store, held: &Held, index: &Index) -> Result<(), Error> {
    let logged = last(store)?;
    let mut lines = Vec::new();
    for act in pending(index).iter().filter(|act| act.id > logged) {
        lines.extend(oci::to_bytes(act));
        lines.push(b'\n');
    }
    if lines.is_empty() {
        return Ok(());
    }
    let path = store.dir().join(FILE);
    let mut file = File::options()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(&path)
        .map_err(Error::io("opening", &path))?;
    let writing = Error::io("writing", &path);
    let size = whole_lines(&mut file).and_then(|size| {
        file.set_len(size)?;
        file.seek(SeekFrom::Start(size))?;
        file.write_all(&lines)?;
        file.sync_data()?;
        Ok(size + lines.len() as u64)
    });
    if size.map_err(writing)? > SIZE_MAX {
        rewrite(store, held, index)?;
    }
    Ok(())
}

/// Where the last whole line ends: a crash may have left a part of one behind it.
fn whole_lines(file: &mut File) -> io::Result<u64> {
    let mut end = file.seek(SeekFrom::End(0))?;
    let mut block = [0; 4096];
    while end > 0 {
        let start = end.saturating_sub(block.len() as u64);
        let part = &mut block[..(end - start) as usize];
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(part)?;
        if let Some(at) = part.iter().rposition(|byte| *byte == b'\n') {
            return Ok(start + at as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}

/// The number of the last act in the log.
fn last(store: &Store) -> Result<u64, Error> {
    let path = store.dir().join(FILE);
    let reading = Error::io("reading", &path);
    let tail = || {
        let mut file = File::open(&path)?;
        let size = file.metadata()?.len();
        file.seek(SeekFrom::Start(size.saturating_sub(TAIL)))?;
        let mut bytes = Vec::new();
        file.take(TAIL).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = match tail() {
        Ok(bytes) => bytes,
        Err(error) if io::Error::kind(&error) == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(reading(error)),
    };
    if let Some(act) = parse(&bytes).acts.last() {
        return Ok(act.id);
    }
    Ok(parse(&read(store)?).acts.last().map_or(0, |act| act.id))
}

fn read(store: &Store) -> Result<Vec<u8>, Error> {
    let path = store.dir().join(FILE);
    let mut bytes = Vec::new();
    match File::open(&path).and_then(|file| file.take(SIZE_MAX * 2).read_to_end(&mut bytes)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::io("reading", &path)(error))
        }
        _ => Ok(bytes),
    }
}

/// Whole lines only; what was written after a torn one counts.
fn parse(bytes: &[u8]) -> Log {
    let mut log = Log::default();
    let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    for line in bytes[..whole].split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        match serde_json::from_slice::<Act>(line) {
            Ok(act) if log.acts.last().is_none_or(|last| last.id < act.id) => log.acts.push(act),
            // Twice the same act, or one out of its order.
            Ok(_) => {}
            Err(_) => log.unreadable += 1,
        }
    }
    log
}

/// Makes a log that has become too long shorter: acts on versions that are there stay longest, then
/// the newest.
fn rewrite(store: &Store, held: &Held, index: &Index) -> Result<(), Error> {
    let log = parse(&read(store)?);
    let there: BTreeSet<(&str, u32)> = index.manifests.iter().filter_map(identity).collect();
    let kept = keep(&log.acts, SIZE_KEPT, |act| {
        act.version.is_some_and(|version| there.contains(&(act.image.as_str(), version)))
    });
    store.replace(held, FILE, &kept)
}

/// The lines of a shorter log.
fn keep(acts: &[Act], most: usize, matters: impl Fn(&Act) -> bool) -> Vec<u8> {
    let lines: Vec<Vec<u8>> = acts.iter().map(oci::to_bytes).collect();
    let mut stays = vec![false; acts.len()];
    let mut room = most;
    let newest = most / 4;
    // A quarter for whatever was last, then what matters, then the rest; each the newest first.
    type Pick<'a> = &'a dyn Fn(usize, usize) -> bool;
    let picks: [Pick<'_>; 3] =
        [&|_, room| most - room < newest, &|at, _| matters(&acts[at]), &|_, _| true];
    for pick in picks {
        for at in (0..acts.len()).rev() {
            let size = lines[at].len() + 1;
            if !stays[at] && acts[at].forgotten.is_none() && size <= room && pick(at, room) {
                stays[at] = true;
                room -= size;
            }
        }
    }
    let gone = || acts.iter().zip(&stays).filter(|(_, stays)| !**stays).map(|(act, _)| act);
    let forgotten: u64 = gone().map(|act| act.forgotten.unwrap_or(1)).sum();
    let mut kept = Vec::new();
    if let (Some(first), Some(oldest)) = (gone().next(), acts.first()) {
        let mark = Act {
            act: "forgotten".to_owned(),
            // Before all that stay.
            id: oldest.id.saturating_sub(u64::from(stays.first() == Some(&true))),
            version: None,
            digest: None,
            image: String::new(),
            forgotten: Some(forgotten),
            ..first.clone()
        };
        kept.extend(oci::to_bytes(&mark));
        kept.push(b'\n');
    }
    for (line, _) in lines.iter().zip(&stays).filter(|(_, stays)| **stays) {
        kept.extend(line);
        kept.push(b'\n');
    }
    kept
}

fn pending(index: &Index) -> Vec<Act> {
    let text = index.annotations.get(oci::A_ACTS);
    text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
}

fn set(index: &mut Index, acts: &[Act]) {
    if acts.is_empty() {
        index.annotations.remove(oci::A_ACTS);
        return;
    }
    let text = String::from_utf8_lossy(&oci::to_bytes(&acts)).into_owned();
    index.annotations.insert(oci::A_ACTS.to_owned(), text);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use std::fs;

    use super::*;

    fn act(id: u64, image: &str) -> Act {
        let by = By { author: Some("ann".to_owned()), reason: None };
        Act { id, ..Act::named("publish", image, 1, None, &by) }
    }

    fn change(store: &Store, image: &str) {
        let held = store.lock().unwrap();
        let mut index = store.index().unwrap();
        note(&mut index, act(0, image));
        store.write_index(&held, &index).unwrap();
    }

    fn told(store: &Store) -> Vec<(u64, String)> {
        let acts = store.log(None).unwrap().acts;
        acts.into_iter().map(|act| (act.id, act.image)).collect()
    }

    #[test]
    fn a_crash_at_any_byte_of_the_log_loses_no_act() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path().join("images")).unwrap();
        for image in ["one", "two"] {
            change(&store, image);
        }
        let path = store.dir().join(FILE);
        let bytes = fs::read(&path).unwrap();
        let first = bytes.iter().position(|byte| *byte == b'\n').unwrap() + 1;
        let index = fs::read(store.dir().join("index.json")).unwrap();
        let all = [(1, "one"), (2, "two"), (3, "three")].map(|(id, name)| (id, name.to_owned()));
        for cut in first..=bytes.len() {
            // The index was renamed into place, the line was being written.
            fs::write(&path, &bytes[..cut]).unwrap();
            fs::write(store.dir().join("index.json"), &index).unwrap();
            assert_eq!(told(&store), all[..2], "cut at {cut}");
            change(&store, "three");
            assert_eq!(told(&store), all, "cut at {cut}");
            assert_eq!(store.log(None).unwrap().unreadable, 0);
        }
        fs::remove_file(&path).unwrap();
        assert_eq!(told(&store), all[2..], "what the index has");
    }

    #[test]
    fn a_log_that_takes_nothing_stops_no_act() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path().join("images")).unwrap();
        fs::create_dir(store.dir().join(FILE)).unwrap();
        // Reading it fails too, and then nobody knows which number is next.
        let held = store.lock().unwrap();
        assert!(store.write_index(&held, &Index::empty()).is_err());
        fs::remove_dir(store.dir().join(FILE)).unwrap();
        std::os::unix::fs::symlink("not/there", store.dir().join(FILE)).unwrap();
        drop(held);
        change(&store, "one");
        change(&store, "two");
        fs::remove_file(store.dir().join(FILE)).unwrap();
        change(&store, "three");
        let all = [(1, "one"), (2, "two"), (3, "three")].map(|(id, name)| (id, name.to_owned()));
        assert_eq!(told(&store), all);
        assert_eq!(parse(&read(&store).unwrap()).acts.len(), 3);
    }

    #[test]
    fn a_shorter_log_keeps_what_matters_and_what_is_new() {
        let acts: Vec<Act> =
            (1..=1000).map(|id| act(id, if id % 50 == 0 { "kept" } else { "gone" })).collect();
        let size: usize = acts.iter().map(|act| oci::to_bytes(act).len() + 1).sum();
        let bytes = keep(&acts, size / 5, |act| act.image == "kept");
        assert!(bytes.len() <= size / 5 + 300, "{} of {size}", bytes.len());
        let log = parse(&bytes);
        let ids: BTreeSet<u64> = log.acts.iter().map(|act| act.id).collect();
        assert!((1..=20).all(|n| ids.contains(&(n * 50))), "{ids:?}");
        assert!((960..=1000).all(|id| ids.contains(&id)), "{ids:?}");
        let forgotten: u64 = log.acts.iter().filter_map(|act| act.forgotten).sum();
        assert_eq!(forgotten + log.acts.len() as u64 - 1, 1000);
        let again = parse(&keep(&log.acts, size / 10, |_| false));
        let forgotten: u64 = again.acts.iter().filter_map(|act| act.forgotten).sum();
        assert_eq!(forgotten + again.acts.len() as u64 - 1, 1000, "twice shortened");
    }

    proptest! {
        /// Strangers may have written there.
        #[test]
        fn any_log_is_read(mut bytes in prop::collection::vec(any::<u8>(), 0..200), at in 0usize..9) {
            let line = [&oci::to_bytes(&act(7, "web"))[..], b"\n"].concat();
            bytes.splice(bytes.len().min(at)..bytes.len().min(at), line);
            let log = parse(&bytes);
            let order: Vec<u64> = log.acts.iter().map(|act| act.id).collect();
            prop_assert!(order.is_sorted());
        }
    }
}
