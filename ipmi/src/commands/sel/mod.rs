//! The event log: reading all of it or only what is new, clearing it, and its clock (IPMI §31).

pub mod clock;
pub mod describe;
pub mod detail;
pub mod record;

use std::collections::HashSet;
use std::time::Duration;

use serde::Serialize;

pub use clock::Clock;
pub use describe::{Described, describe};
pub use record::{Content, Entry, Event, Stamp, When};

use super::busy;
use crate::controller::Controller;
use crate::error::Error;
use crate::message::{Completion, NetFn, Request};
use crate::wire::Malformed;

/// What the log says of itself (§31.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Info {
    /// Entries in it.
    pub entries: u16,
    /// Bytes left; 0xFFFF means that many or more.
    pub free: u16,
    /// When an entry was last added, by the controller's clock.
    pub added: Stamp,
    /// When it was last cleared, or an entry deleted.
    pub erased: Stamp,
    /// Whether events were lost for want of room.
    pub overflow: bool,
}

/// Get SEL Info.
pub fn info_request() -> Request {
    Request::new(NetFn::STORAGE, 0x40, [])
}

/// Get SEL Entry, all of it: 0 is the first, 0xFFFF the last.
pub fn entry_request(id: u16) -> Request {
    let [low, high] = id.to_le_bytes();
    Request::new(NetFn::STORAGE, 0x43, [0, 0, low, high, 0, 0xff])
}

/// Add SEL Entry.
pub fn add_request(entry: [u8; record::LENGTH]) -> Request {
    Request::new(NetFn::STORAGE, 0x44, entry)
}

impl Info {
    /// From Get SEL Info's answer.
    pub fn decode(bytes: &[u8]) -> Result<Info, Malformed> {
        let short = Malformed("what the event log says of itself is too short");
        let b: &[u8; 14] = bytes.first_chunk().ok_or(short)?;
        Ok(Info {
            entries: u16::from_le_bytes([b[1], b[2]]),
            free: u16::from_le_bytes([b[3], b[4]]),
            added: Stamp(u32::from_le_bytes([b[5], b[6], b[7], b[8]])),
            erased: Stamp(u32::from_le_bytes([b[9], b[10], b[11], b[12]])),
            overflow: b[13] & 0x80 != 0,
        })
    }
}

/// Asks for it.
pub async fn info(bmc: &impl Controller) -> Result<Info, Error> {
    Ok(Info::decode(&busy::call(bmc, &info_request()).await?)?)
}

/// Entries, and what was odd about reading them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Log {
    /// In the log's own order, the oldest first.
    pub entries: Vec<Entry>,
    /// What was odd, for the operator.
    pub notes: Vec<String>,
}

/// Reads the log from the first entry on.
pub async fn list(bmc: &impl Controller) -> Result<Log, Error> {
    let mut follower = Follower::from_the_first();
    follower.poll(bmc).await
}

/// The last entry that was seen, and whatever came after it. Ids begin anew after a clear, and a full log may
/// write over its first entries: the last entry is known by all of its bytes.
#[derive(Debug, Clone, Default)]
pub struct Follower {
    last: Option<(u16, Vec<u8>)>,
}

impl Follower {
    /// One to whom every entry is new.
    pub fn from_the_first() -> Follower {
        Follower::default()
    }

    /// One to whom only what comes from now on is new.
    pub async fn from_now(bmc: &impl Controller) -> Result<Follower, Error> {
        let last = read_entry(bmc, 0xffff).await?;
        // Some say NOT PRESENT, and some hand out an entry's id of 0xFFFF for the last one.
        let last =
            last.and_then(|(_, bytes)| Some((u16::from_le_bytes(*bytes.first_chunk()?), bytes)));
        Ok(Follower { last })
    }

    /// One who saw this entry last.
    pub fn after(entry: &[u8; record::LENGTH]) -> Follower {
        let id = u16::from_le_bytes([entry[0], entry[1]]);
        Follower { last: Some((id, entry.to_vec())) }
    }

    /// What is new.
    pub async fn poll(&mut self, bmc: &impl Controller) -> Result<Log, Error> {
        let mut next = 0;
        if let Some((id, bytes)) = &self.last
            && let Some((after, now)) = read_entry(bmc, *id).await?
            && now == *bytes
        {
            if after == 0xffff {
                return Ok(Log::default());
            }
            next = after;
        }
        let mut log = Log::default();
        let mut seen = HashSet::new();
        // A set of 16-bit ids: there is an end to it.
        while seen.insert(next) {
            let (after, bytes) = match read_entry(bmc, next).await {
                Ok(Some(read)) => read,
                // Empty; or deleted under our hands: the rest comes with the next poll.
                Ok(None) => return Ok(log),
                Err(error @ (Error::Refused { .. } | Error::Malformed(_)))
                    if !log.entries.is_empty() =>
                {
                    log.notes.push(format!("entry {next:#06x} cannot be read: {error}"));
                    return Ok(log);
                }
                Err(error) => return Err(error),
            };
            let entry = Entry::decode(&bytes)?;
            // The first is asked for as 0, whatever its id.
            seen.insert(entry.id);
            self.last = Some((entry.id, bytes));
            log.entries.push(entry);
            if after == 0xffff {
                return Ok(log);
            }
            next = after;
        }
        log.notes.push(format!("entry {next:#06x} came twice: taken for the end"));
        Ok(log)
    }
}

/// An entry and the next one's id. `None`: there is none.
async fn read_entry(bmc: &impl Controller, id: u16) -> Result<Option<(u16, Vec<u8>)>, Error> {
    let request = entry_request(id);
    let response = busy::ask(bmc, &request).await?;
    match response.completion {
        Completion::OK => {
            let mut data = response.data.as_slice();
            let next = crate::wire::take(&mut data, "an entry without the next one's id")?;
            let entry: [u8; record::LENGTH] =
                crate::wire::take(&mut data, "an entry of the event log of less than 16 bytes")?;
            Ok(Some((u16::from_le_bytes(next), entry.to_vec())))
        }
        Completion::NOT_PRESENT => Ok(None),
        // Some refuse an id that is not there, in place of saying so.
        Completion::OUT_OF_RANGE | Completion::INVALID_FIELD if id != 0 => Ok(None),
        // HP's DL585 has events and no way to read them.
        Completion::INVALID_COMMAND => Err(Error::Unsupported("reading its event log")),
        completion => {
            Err(Error::Refused { netfn: request.netfn, command: request.command, completion })
        }
    }
}

/// Adds an entry; what becomes of its id and time is the log's own affair. Gives its id.
pub async fn add(bmc: &impl Controller, entry: [u8; record::LENGTH]) -> Result<u16, Error> {
    let data = busy::call(bmc, &add_request(entry)).await?;
    let id = data.first_chunk().ok_or(Malformed("a new entry without an id"))?;
    Ok(u16::from_le_bytes(*id))
}

/// How often erasure is asked after, and how long to wait between: 20 s in all. Large flash takes seconds.
const ASKED: usize = 100;
const BETWEEN: Duration = Duration::from_millis(200);

/// Clears the log, and returns when it is clear.
pub async fn clear(bmc: &impl Controller) -> Result<(), Error> {
    let mut begun = false;
    for _ in 0..ASKED {
        // Each new entry ends a reservation, so that one is taken for each question.
        let reservation = match busy::call(bmc, &Request::new(NetFn::STORAGE, 0x42, [])).await {
            Ok(data) => *data.first_chunk().ok_or(Malformed("a reservation without an id"))?,
            Err(Error::Refused { completion: Completion::INVALID_COMMAND, .. }) => [0, 0],
            Err(error) => return Err(error),
        };
        let [low, high] = reservation;
        let action = if begun { 0x00 } else { 0xaa };
        let request = Request::new(NetFn::STORAGE, 0x47, [low, high, b'C', b'L', b'R', action]);
        let response = busy::ask(bmc, &request).await?;
        match response.completion {
            Completion::OK => {
                begun = true;
                // Without a word of progress it is done.
                if response.data.first().is_none_or(|progress| progress & 15 == 1) {
                    return Ok(());
                }
            }
            Completion::RESERVATION_LOST => {}
            completion => {
                return Err(Error::Refused {
                    netfn: request.netfn,
                    command: request.command,
                    completion,
                });
            }
        }
        tokio::time::sleep(BETWEEN).await;
    }
    let completion = if begun { Completion::TIMEOUT } else { Completion::RESERVATION_LOST };
    Err(Error::Refused { netfn: NetFn::STORAGE, command: 0x47, completion })
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use proptest::prelude::*;

    use super::*;
    use crate::commands::busy::script::{Scripted, code, ok};
    use crate::message::Response;

    fn bytes(id: u16, time: u32) -> [u8; 16] {
        let event = Event {
            time: Stamp(time),
            generator: [0x20, 0],
            revision: 4,
            sensor_type: 1,
            number: 9,
            deasserted: false,
            event_type: 1,
            data: [0x59, 51, 50],
        };
        let mut bytes = event.encode();
        bytes[..2].copy_from_slice(&id.to_le_bytes());
        bytes
    }

    type Shared = Arc<Mutex<Vec<[u8; 16]>>>;

    /// A log that a test writes into.
    fn log(entries: Vec<[u8; 16]>) -> (Shared, Scripted) {
        let shared = Arc::new(Mutex::new(entries));
        let theirs = shared.clone();
        let bmc = Scripted::new(move |request| {
            let entries = theirs.lock().unwrap();
            if request.command != 0x43 {
                return code(Completion::INVALID_COMMAND);
            }
            let id = u16::from_le_bytes([request.data[2], request.data[3]]);
            let at = match id {
                0 if entries.is_empty() => None,
                0 => Some(0),
                0xffff => entries.len().checked_sub(1),
                id => entries.iter().position(|entry| entry[..2] == id.to_le_bytes()),
            };
            let Some(at) = at else { return code(Completion::NOT_PRESENT) };
            let next = entries.get(at + 1).map_or([0xff, 0xff], |entry| [entry[0], entry[1]]);
            ok([&next[..], &entries[at]].concat())
        });
        (shared, bmc)
    }

    fn ids(log: &Log) -> Vec<u16> {
        log.entries.iter().map(|entry| entry.id).collect()
    }

    #[tokio::test]
    async fn all_of_it_whatever_the_ids() {
        let (_, bmc) = log(vec![bytes(0x14, 1), bytes(0x28, 2), bytes(0x3c, 3)]);
        let read = list(&bmc).await.unwrap();
        assert_eq!(ids(&read), [0x14, 0x28, 0x3c]);
        assert!(read.notes.is_empty());
        let (_, empty) = log(Vec::new());
        assert_eq!(list(&empty).await.unwrap(), Log::default());
        let none = Scripted::new(|_| code(Completion::INVALID_COMMAND));
        assert!(matches!(list(&none).await, Err(Error::Unsupported(_))));
    }

    #[tokio::test]
    async fn a_circle_has_an_end() {
        let bmc = Scripted::new(|request| {
            let id = request.data[2].max(1);
            ok([&[id % 5 + 1, 0][..], &bytes(u16::from(id), 1)].concat())
        });
        let read = list(&bmc).await.unwrap();
        assert_eq!(ids(&read), [1, 2, 3, 4, 5]);
        assert_eq!(read.notes.len(), 1);
    }

    #[tokio::test]
    async fn only_what_is_new_and_across_a_clear() {
        let (entries, bmc) = log(vec![bytes(1, 10), bytes(2, 11)]);
        let mut follower = Follower::from_now(&bmc).await.unwrap();
        assert_eq!(follower.poll(&bmc).await.unwrap(), Log::default());
        let asked = bmc.count();
        assert_eq!(follower.poll(&bmc).await.unwrap(), Log::default());
        assert_eq!(bmc.count() - asked, 1);
        entries.lock().unwrap().extend([bytes(3, 12), bytes(4, 12)]);
        assert_eq!(ids(&follower.poll(&bmc).await.unwrap()), [3, 4]);
        // Cleared, and as many entries again: the same ids, other events.
        *entries.lock().unwrap() = (1..=4).map(|id| bytes(id, 20 + u32::from(id))).collect();
        assert_eq!(ids(&follower.poll(&bmc).await.unwrap()), [1, 2, 3, 4]);
        entries.lock().unwrap().clear();
        assert_eq!(follower.poll(&bmc).await.unwrap(), Log::default());
        entries.lock().unwrap().push(bytes(1, 30));
        assert_eq!(ids(&follower.poll(&bmc).await.unwrap()), [1]);
        let (entries, bmc) = log(Vec::new());
        let mut follower = Follower::from_now(&bmc).await.unwrap();
        entries.lock().unwrap().push(bytes(1, 30));
        assert_eq!(ids(&follower.poll(&bmc).await.unwrap()), [1]);
    }

    #[tokio::test(start_paused = true)]
    async fn clearing_waits_until_it_is_clear() {
        let mut progress = 0;
        let bmc = Scripted::new(move |request| match request.command {
            0x42 => ok([7, 0]),
            _ => {
                progress += 1;
                match (progress, request.data[5]) {
                    (1, 0xaa) => code(Completion::RESERVATION_LOST),
                    (2, 0xaa) => ok([0]),
                    (3..6, 0x00) => ok([0]),
                    (6, 0x00) => ok([1]),
                    other => panic!("{other:?}"),
                }
            }
        });
        clear(&bmc).await.unwrap();
        let never = Scripted::new(|_| ok([0, 0]));
        assert_eq!(clear(&never).await.unwrap_err().completion(), Some(Completion::TIMEOUT));
    }

    proptest! {
        #[test]
        fn any_answers(answers in proptest::collection::vec(
            (prop_oneof![6 => Just(0u8), 1 => any::<u8>()],
             proptest::collection::vec(any::<u8>(), 0..20)), 1..40)) {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_time().start_paused(true).build().unwrap();
            let mut at = 0;
            let bmc = Scripted::new(move |_| {
                at += 1;
                let (completion, data) = answers[at % answers.len()].clone();
                Response { completion: Completion(completion), data }
            });
            let _any = runtime.block_on(list(&bmc));
            prop_assert!(bmc.count() <= 7 * 65536);
            let _any = runtime.block_on(info(&bmc));
        }
    }
}
