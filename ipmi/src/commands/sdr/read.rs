//! Reading every record of a repository, or of a controller's own list, over whatever its firmware allows
//! (IPMI §33.12 Get SDR, §35.3 Get Device SDR): whole records where it can, parts of a size that is learned
//! where it cannot; a lost reservation begins a record again; and an end is found even where none is marked.

use std::collections::HashSet;
use std::time::Duration;

use super::record::HEADER;
use crate::commands::busy;
use crate::controller::Controller;
use crate::error::Error;
use crate::message::{Completion, NetFn, Request};
use crate::wire::Malformed;

/// Where records are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The repository (§33): every sensor of the machine.
    Repository,
    /// What the controller says of its own sensors (§35).
    Device,
}

impl Source {
    fn netfn(self) -> NetFn {
        match self {
            Source::Repository => NetFn::STORAGE,
            Source::Device => NetFn::SENSOR,
        }
    }

    /// Reserves it, for reads in parts.
    pub fn reserve_request(self) -> Request {
        Request::new(self.netfn(), 0x22, [])
    }

    /// Reads a part of a record; 0xFF bytes from 0 on are all of it.
    pub fn get_request(self, reservation: u16, record: u16, offset: u8, count: u8) -> Request {
        let command = match self {
            Source::Repository => 0x23,
            Source::Device => 0x21,
        };
        let [reservation_low, reservation_high] = reservation.to_le_bytes();
        let [low, high] = record.to_le_bytes();
        let data = [reservation_low, reservation_high, low, high, offset, count];
        Request::new(self.netfn(), command, data)
    }
}

/// What was read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Records {
    /// Each record's bytes, header and all.
    pub records: Vec<Vec<u8>>,
    /// What was odd about it.
    pub notes: Vec<String>,
    /// Whether all are here.
    pub complete: bool,
}

/// More than any machine has (a blade chassis: about 1,500), and an end to a controller that has no end.
const MOST: usize = 8192;
/// A whole record and its header are at most this long.
const LONGEST: usize = HEADER + 255;
/// Sizes of parts, the next smaller one after each refusal. Every controller can do 16 (§33.12); some
/// satellites behind a slow bus cannot.
const PARTS: [u8; 6] = [64, 32, 24, 16, 8, 5];
/// Of one record, before the controller is left alone: somebody else reserves as fast as we do.
const RESERVATIONS: usize = 12;

/// Reads all records. `count`: how many it says it has, if it says.
pub async fn records(
    bmc: &impl Controller,
    source: Source,
    count: Option<u16>,
) -> Result<Records, Error> {
    let mut reader = Reader { bmc, source, reservation: None, part: None, next: 0xffff };
    let mut read = Records { complete: true, ..Records::default() };
    let mut seen = HashSet::new();
    let mut id = 0;
    // Fujitsu's count is wrong, so that it only says whether an error may be the end.
    let told = count.map(usize::from);
    while seen.insert(id) {
        if read.records.len() >= MOST {
            read.notes.push(format!("it has no end of records: {MOST} are read"));
            read.complete = false;
            return Ok(read);
        }
        match reader.record(id).await {
            Ok((next, record)) => {
                if let Some(actual) = record.first_chunk() {
                    // The first is asked for as 0, whatever its id.
                    seen.insert(u16::from_le_bytes(*actual));
                }
                read.records.push(record);
                if next == 0xffff {
                    return Ok(read);
                }
                id = next;
            }
            // An empty one has no first record.
            Err(Error::Refused { completion: Completion::NOT_PRESENT, .. }) if id == 0 => {
                return Ok(read);
            }
            Err(error @ (Error::Refused { .. } | Error::Malformed(_))) if id != 0 => {
                // Dell's FC830 answers 0xC3 for its last one.
                let last = told.is_some_and(|told| read.records.len() + 1 >= told);
                read.complete = last;
                let rest = if last { "the last one" } else { "the rest is missing" };
                read.notes.push(format!("record {id:#06x} cannot be read ({error}): {rest}"));
                return Ok(read);
            }
            Err(error) => return Err(error),
        }
    }
    // Inspur marks no end and begins again.
    read.notes.push(format!("record {id:#06x} came twice: taken for the end"));
    Ok(read)
}

struct Reader<'a, C> {
    bmc: &'a C,
    source: Source,
    reservation: Option<u16>,
    /// The index into [`PARTS`] that works, once whole records turned out not to.
    part: Option<usize>,
    /// What the part read last said of the next record.
    next: u16,
}

/// Why a part did not come.
enum Not {
    Reserved,
    SoMuch,
    Failed(Error),
}

impl From<Error> for Not {
    fn from(error: Error) -> Not {
        Not::Failed(error)
    }
}

impl<C: Controller> Reader<'_, C> {
    /// One record and the next one's id.
    async fn record(&mut self, id: u16) -> Result<(u16, Vec<u8>), Error> {
        let mut bytes = Vec::new();
        let mut part = self.part;
        let mut reservations = 0;
        loop {
            let (offset, count) = self.range(&bytes, part);
            match self.get(id, offset, count).await {
                Ok((next, more)) => {
                    let empty = more.is_empty();
                    bytes.extend(more.into_iter().take(usize::from(count)));
                    let length = length(&bytes)
                        .ok_or(Malformed("a record's header of less than 5 bytes"))?;
                    if bytes.len() >= length || empty || bytes.len() > usize::from(u8::MAX) {
                        bytes.truncate(length);
                        return Ok((next, bytes));
                    }
                    if offset != 0 {
                        self.part = part;
                    }
                    self.next = next;
                }
                Err(Not::Failed(error)) => return Err(error),
                Err(Not::Reserved) => {
                    reservations += 1;
                    if reservations > RESERVATIONS {
                        return Err(self.refused(Completion::RESERVATION_LOST));
                    }
                    if reservations > 2 {
                        // Gives the other reader a chance to finish.
                        let pause = Duration::from_millis(5 << reservations.min(6));
                        tokio::time::sleep(pause).await;
                    }
                    bytes.clear();
                    self.reserve().await?;
                    continue;
                }
                Err(Not::SoMuch) => {
                    part = Some(part.map_or(0, |part| part + 1));
                    if part >= Some(PARTS.len()) {
                        // HP's DL585 G7 claims more than a record has: past its end every size is refused.
                        return match bytes.len() {
                            0..=HEADER => Err(self.refused(Completion::CANNOT_RETURN)),
                            _ => Ok((self.next, bytes)),
                        };
                    }
                    if bytes.is_empty() {
                        self.part = part;
                    }
                }
            }
            if self.reservation.is_none() {
                self.reserve().await?;
            }
        }
    }

    /// What to ask for next: all of it, its header, or what is missing, in parts.
    fn range(&self, bytes: &[u8], part: Option<usize>) -> (u8, u8) {
        let part = part.and_then(|part| PARTS.get(part).copied());
        match length(bytes) {
            None => (0, if part.is_none() { 0xff } else { HEADER as u8 }),
            Some(length) => {
                let rest = u8::try_from(length.saturating_sub(bytes.len())).unwrap_or(u8::MAX);
                let offset = u8::try_from(bytes.len()).unwrap_or(u8::MAX);
                (offset, rest.min(part.unwrap_or(PARTS[0])))
            }
        }
    }

    async fn get(&mut self, id: u16, offset: u8, count: u8) -> Result<(u16, Vec<u8>), Not> {
        // Whole records need no reservation.
        let reservation = self.reservation.unwrap_or(0);
        let request = self.source.get_request(reservation, id, offset, count);
        let response = busy::ask(self.bmc, &request).await?;
        match response.completion {
            Completion::OK => {
                let mut data = response.data.as_slice();
                let next: [u8; 2] =
                    crate::wire::take(&mut data, "a record without the next one's id")
                        .map_err(Error::from)?;
                Ok((u16::from_le_bytes(next), data.iter().copied().take(LONGEST).collect()))
            }
            Completion::RESERVATION_LOST => Err(Not::Reserved),
            Completion::CANNOT_RETURN
            | Completion::LENGTH_INVALID
            | Completion::LENGTH_LIMIT
            | Completion::TRUNCATED
            | Completion::OUT_OF_RANGE
            | Completion::INVALID_FIELD
            | Completion::UNSPECIFIED => Err(Not::SoMuch),
            completion => Err(Not::Failed(self.refused(completion))),
        }
    }

    async fn reserve(&mut self) -> Result<(), Error> {
        let data = match busy::call(self.bmc, &self.source.reserve_request()).await {
            Ok(data) => data,
            // A repository of one reader need not know reservations.
            Err(Error::Refused { completion: Completion::INVALID_COMMAND, .. }) => vec![0, 0],
            Err(error) => return Err(error),
        };
        let id = data.first_chunk().ok_or(Malformed("a reservation without an id"))?;
        self.reservation = Some(u16::from_le_bytes(*id));
        Ok(())
    }

    fn refused(&self, completion: Completion) -> Error {
        let request = self.source.get_request(0, 0, 0, 0);
        Error::Refused { netfn: request.netfn, command: request.command, completion }
    }
}

/// A record's whole length as its header says.
fn length(bytes: &[u8]) -> Option<usize> {
    bytes.first_chunk::<HEADER>().map(|header| HEADER + usize::from(header[4]))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::record::tests::{slots, temperature};
    use super::*;
    use crate::commands::busy::script::{Scripted, code, ok};
    use crate::message::Response;

    /// What firmware does to its readers.
    #[derive(Clone, Copy, Default)]
    struct Firmware {
        /// Bytes of a record it can return at once.
        most: usize,
        /// Every n-th read finds the reservation lost.
        loses: usize,
        /// The last record's completion code.
        last: Option<Completion>,
        /// The last record leads back to the first.
        no_end: bool,
        /// Records say they are this much longer than they are.
        longer: u8,
        /// Short answers instead of a refusal.
        short: bool,
    }

    fn repository(firmware: Firmware) -> (Vec<Vec<u8>>, Scripted) {
        let mut records: Vec<Vec<u8>> = (1..=5).map(|n| temperature(n, n as u8, "Inlet")).collect();
        records.push(slots(6, 0x40));
        let wanted = records.clone();
        for record in &mut records {
            record[4] += firmware.longer;
        }
        let (mut reads, mut reservation) = (0, 0u16);
        let bmc = Scripted::new(move |request| {
            if request.command == 0x22 {
                reservation += 1;
                return ok(reservation.to_le_bytes());
            }
            let id = u16::from_le_bytes([request.data[2], request.data[3]]);
            let index = usize::from(id.max(1) - 1);
            let (from, count) = (usize::from(request.data[4]), usize::from(request.data[5]));
            reads += 1;
            if firmware.loses != 0 && reads % firmware.loses == 0 {
                reservation += 1;
            }
            let given = u16::from_le_bytes([request.data[0], request.data[1]]);
            if from != 0 && given != reservation {
                return code(Completion::RESERVATION_LOST);
            }
            let Some(record) = records.get(index) else { return code(Completion::NOT_PRESENT) };
            if index + 1 == records.len()
                && let Some(completion) = firmware.last
            {
                return code(completion);
            }
            let count = if count == 0xff { record.len() } else { count };
            if count > firmware.most && !firmware.short {
                return code(Completion::CANNOT_RETURN);
            }
            let Some(part) = record.get(from..) else { return code(Completion::OUT_OF_RANGE) };
            if part.len() < count && firmware.longer != 0 && from != 0 {
                return code(Completion::OUT_OF_RANGE);
            }
            let part = &part[..count.min(part.len()).min(firmware.most)];
            let next = match id.max(1) {
                6 if firmware.no_end => 1,
                6 => 0xffff,
                id => id + 1,
            };
            ok([&next.to_le_bytes()[..], part].concat())
        });
        (wanted, bmc)
    }

    async fn read(firmware: Firmware) -> (Vec<Vec<u8>>, Records, usize) {
        let (wanted, bmc) = repository(firmware);
        let read = records(&bmc, Source::Repository, Some(6)).await.unwrap();
        (wanted, read, bmc.count())
    }

    #[tokio::test]
    async fn whole_records_where_it_can() {
        let (wanted, read, asked) = read(Firmware { most: 100, ..Firmware::default() }).await;
        assert_eq!(read.records, wanted);
        assert!(read.complete && read.notes.is_empty());
        assert_eq!(asked, 6);
    }

    #[tokio::test]
    async fn parts_where_it_cannot_and_the_size_is_learned() {
        for short in [false, true] {
            let firmware = Firmware { most: 20, short, ..Firmware::default() };
            let (wanted, read, asked) = read(firmware).await;
            assert_eq!(read.records, wanted, "short: {short}");
            // 4 or 3 parts of at most 16 bytes and a header each, and a few to learn it by.
            assert!(asked <= 6 * 5 + 6, "{asked}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_lost_reservation_begins_the_record_again() {
        let firmware = Firmware { most: 20, loses: 7, ..Firmware::default() };
        let (wanted, read, _) = read(firmware).await;
        assert_eq!(read.records, wanted);
        // Somebody else never lets go.
        let (_, bmc) = repository(Firmware { most: 20, loses: 1, ..Firmware::default() });
        let lost = records(&bmc, Source::Repository, None).await.unwrap_err();
        assert_eq!(lost.completion(), Some(Completion::RESERVATION_LOST));
        assert!(bmc.count() < 60);
    }

    #[tokio::test]
    async fn an_end_is_found_where_none_is_marked() {
        let firmware =
            Firmware { most: 100, last: Some(Completion::TIMEOUT), ..Firmware::default() };
        let (wanted, last, _) = read(firmware).await;
        assert_eq!(last.records, wanted[..5]);
        assert!(last.complete && last.notes.len() == 1);
        // The same far from the end is a loss, and is said.
        let (_, bmc) = repository(firmware);
        let short = records(&bmc, Source::Repository, Some(20)).await.unwrap();
        assert!(!short.complete && short.records.len() == 5, "{short:?}");
        let (wanted, no_end, _) =
            read(Firmware { most: 100, no_end: true, ..Firmware::default() }).await;
        assert_eq!(no_end.records, wanted);
        assert!(no_end.complete && no_end.notes.len() == 1);
    }

    #[tokio::test]
    async fn records_that_claim_more_than_they_have() {
        let (wanted, read, _) =
            read(Firmware { most: 100, longer: 9, ..Firmware::default() }).await;
        for (got, wanted) in read.records.iter().zip(&wanted) {
            let sensors = |bytes: &[u8]| super::super::record::Record::decode(bytes).unwrap();
            assert_eq!(got.len(), wanted.len());
            assert_eq!(sensors(got), sensors(wanted));
        }
    }

    #[tokio::test]
    async fn an_empty_one_and_one_that_refuses() {
        let bmc = Scripted::new(|_| code(Completion::NOT_PRESENT));
        let empty = records(&bmc, Source::Device, Some(0)).await.unwrap();
        assert!(empty.records.is_empty() && empty.complete);
        let bmc = Scripted::new(|_| code(Completion::INVALID_COMMAND));
        assert!(records(&bmc, Source::Device, None).await.is_err());
    }

    proptest! {
        /// Whatever it answers, there is an end to asking.
        #[test]
        fn any_answers(answers in proptest::collection::vec(
            (prop_oneof![4 => Just(0u8), 1 => any::<u8>()],
             proptest::collection::vec(prop_oneof![Just(0u8), Just(1), any::<u8>()], 0..30)), 1..40)) {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_time().start_paused(true).build().unwrap();
            let mut at = 0;
            let bmc = Scripted::new(move |_| {
                at += 1;
                let (completion, data) = answers[at % answers.len()].clone();
                Response { completion: Completion(completion), data }
            });
            let _any = runtime.block_on(records(&bmc, Source::Repository, None));
            prop_assert!(bmc.count() < 3_000_000);
        }
    }
}
