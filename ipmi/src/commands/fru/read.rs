//! Reading FRU data in parts of a size that is learned (IPMI §34.1 Get FRU Inventory Area Info, §34.2 Read FRU
//! Data): counts in words where the device says so, answers shorter than asked for, sizes refused.

use crate::commands::busy;
use crate::controller::Controller;
use crate::error::Error;
use crate::message::{Completion, NetFn, Request};
use crate::wire::Malformed;

/// Get FRU Inventory Area Info.
pub fn info_request(id: u8) -> Request {
    Request::new(NetFn::STORAGE, 0x10, [id])
}

/// Read FRU Data; offset and count in the device's own units.
pub fn read_request(id: u8, offset: u16, count: u8) -> Request {
    let [low, high] = offset.to_le_bytes();
    Request::new(NetFn::STORAGE, 0x11, [id, low, high, count])
}

/// Sizes of parts in bytes, the next smaller one after each refusal.
const PARTS: [u8; 6] = [128, 64, 32, 24, 16, 8];
/// The device is busy (§34.2's own completion code).
const BUSY: Completion = Completion(0x81);

/// One FRU's data.
#[derive(Debug)]
pub struct Device<'a, C> {
    bmc: &'a C,
    id: u8,
    /// Bytes it has.
    size: usize,
    /// Whether it counts in words of two bytes.
    words: bool,
    part: usize,
}

impl<'a, C: Controller> Device<'a, C> {
    /// Asks how large it is.
    pub async fn open(bmc: &'a C, id: u8) -> Result<Device<'a, C>, Error> {
        let data = busy::call(bmc, &info_request(id)).await?;
        let [low, high, access, ..] = data[..] else {
            return Err(Malformed("what a FRU says of itself is too short").into());
        };
        let size = usize::from(u16::from_le_bytes([low, high]));
        Ok(Device { bmc, id, size, words: access & 1 != 0, part: 0 })
    }

    /// So many bytes from here, or those up to its end.
    pub async fn read(&mut self, offset: usize, count: usize) -> Result<Vec<u8>, Error> {
        let end = (offset + count).min(self.size);
        // Words begin at even offsets, and there are whole ones only.
        let unit = if self.words { 2 } else { 1 };
        let from = offset / unit * unit;
        let mut bytes = Vec::new();
        while from + bytes.len() < end {
            let at = from + bytes.len();
            let part = PARTS.get(self.part).copied().map_or(8, usize::from);
            let wanted = (end - at).div_ceil(unit).min(part / unit);
            let (Ok(place), Ok(many)) = (u16::try_from(at / unit), u8::try_from(wanted)) else {
                break;
            };
            let Some(mut more) = self.part(place, many).await? else { continue };
            more.truncate(wanted * unit);
            if more.is_empty() {
                break;
            }
            bytes.extend(more);
        }
        let skipped = (offset - from).min(bytes.len());
        bytes.drain(..skipped);
        bytes.truncate(count);
        Ok(bytes)
    }

    /// A part; `None`: it was too large, and the next smaller size is to be tried.
    async fn part(&mut self, offset: u16, count: u8) -> Result<Option<Vec<u8>>, Error> {
        let request = read_request(self.id, offset, count);
        let mut tries = 0;
        loop {
            let response = busy::ask(self.bmc, &request).await?;
            match response.completion {
                Completion::OK => {
                    let (said, data) =
                        response.data.split_first().ok_or(Malformed("FRU data without a count"))?;
                    let said = usize::from(*said) * if self.words { 2 } else { 1 };
                    return Ok(Some(data.iter().copied().take(said).collect()));
                }
                BUSY if tries < 10 => {
                    tries += 1;
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                }
                Completion::CANNOT_RETURN
                | Completion::LENGTH_INVALID
                | Completion::LENGTH_LIMIT
                | Completion::OUT_OF_RANGE
                | Completion::TRUNCATED
                | Completion::INVALID_FIELD
                | Completion::UNSPECIFIED
                    if self.part + 1 < PARTS.len() =>
                {
                    self.part += 1;
                    return Ok(None);
                }
                completion => {
                    let (netfn, command) = (request.netfn, request.command);
                    return Err(Error::Refused { netfn, command, completion });
                }
            }
        }
    }

    /// An area whose second byte says how long it is, in eights. What is wrong with it is noted; `None`: there
    /// is none, or nothing of it can be read.
    pub async fn area(
        &mut self,
        offset: Option<usize>,
        name: &str,
        notes: &mut Vec<String>,
    ) -> Result<Option<Vec<u8>>, Error> {
        let Some(offset) = offset else { return Ok(None) };
        let begin = match self.read(offset, 2).await {
            Ok(begin) => begin,
            Err(error @ (Error::Refused { .. } | Error::Malformed(_))) => {
                notes.push(format!("the {name} area cannot be read: {error}"));
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let [_, eights] = begin[..] else {
            notes.push(format!("the {name} area is beyond the end of the data"));
            return Ok(None);
        };
        let length = usize::from(eights) * 8;
        let bytes = match self.read(offset, length).await {
            Ok(bytes) => bytes,
            Err(error @ (Error::Refused { .. } | Error::Malformed(_))) => {
                notes.push(format!("the {name} area cannot be read: {error}"));
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        if bytes.len() < length {
            notes.push(format!("the {name} area ends early"));
        } else if crate::message::checksum(&bytes) != 0 {
            notes.push(format!("the checksum of the {name} area is wrong"));
        }
        Ok(Some(bytes))
    }
}
