//! The event log: entries up to its room, its clock, clearing.
//!
//! IPMI 2.0 §31 (commands), §32 (entries), §29.3 (Platform Event).

use std::time::{SystemTime, UNIX_EPOCH};

use koboshi_ipmi::commands::sel::Event;
use koboshi_ipmi::commands::sel::record::LENGTH;
use koboshi_ipmi::{Completion, Response};

use crate::bmc::Bmc;
use crate::dispatch::{Asked, ok, refuse};

/// The event log.
#[derive(Debug, Clone)]
pub struct Sel {
    /// In the order they were logged.
    pub entries: Vec<[u8; LENGTH]>,
    /// Entries that it has room for.
    pub room: usize,
    /// Seconds that its clock is ahead of the host's.
    pub ahead: i64,
    /// How many more times erasure is said to be in progress; tests set it.
    pub erasing: u8,
    next: u16,
    reservation: u16,
    added: u32,
    erased: u32,
    overflow: bool,
    utc_offset: i16,
}

impl Default for Sel {
    fn default() -> Sel {
        Sel {
            entries: Vec::new(),
            room: 1024,
            ahead: 0,
            erasing: 1,
            next: 1,
            reservation: 0,
            added: u32::MAX,
            erased: u32::MAX,
            overflow: false,
            utc_offset: 0x7ff,
        }
    }
}

/// Seconds since 1970 by the host's clock.
pub(crate) fn wall_clock() -> u32 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u32::try_from(now.as_secs()).unwrap_or(u32::MAX)
}

/// The log's own time.
pub fn time(bmc: &Bmc) -> u32 {
    let time = i64::from(wall_clock()) + bmc.sel.ahead;
    u32::try_from(time.max(0)).unwrap_or(u32::MAX)
}

/// Logs an event, now. `None`: there is no room.
pub fn log(bmc: &mut Bmc, mut event: Event) -> Option<u16> {
    if bmc.faults.sel_generator {
        event.generator = [0x41, 0];
    }
    add(bmc, event.encode())
}

/// Adds an entry, whose id and time it gives itself (but no time where its type has none).
pub fn add(bmc: &mut Bmc, mut entry: [u8; LENGTH]) -> Option<u16> {
    let now = time(bmc);
    let sel = &mut bmc.sel;
    if sel.entries.len() >= sel.room {
        sel.overflow = true;
        return None;
    }
    let id = sel.next;
    // 0 and 0xFFFF stand for the first and the last.
    sel.next = if id >= 0xfffe { 1 } else { id + 1 };
    entry[..2].copy_from_slice(&id.to_le_bytes());
    if entry[2] < 0xe0 {
        entry[3..7].copy_from_slice(&now.to_le_bytes());
    }
    sel.entries.push(entry);
    sel.added = now;
    sel.reservation = sel.reservation.wrapping_add(1).max(1);
    Some(id)
}

/// Platform Event: whoever sends it is the generator.
pub fn platform_event(bmc: &mut Bmc, asked: &Asked<'_>) -> Option<Response> {
    let [revision, sensor_type, number, direction, data @ ..] = asked.data else {
        return refuse(Completion::LENGTH_INVALID);
    };
    let byte = |at: usize| data.get(at).copied().unwrap_or(0xff);
    let mut entry = [0; LENGTH];
    entry[2] = 2;
    entry[7] = asked.message.from;
    entry[8] = asked.message.from_lun;
    entry[9..13].copy_from_slice(&[*revision, *sensor_type, *number, *direction]);
    entry[13..].copy_from_slice(&[byte(0), byte(1), byte(2)]);
    match add(bmc, entry) {
        Some(_) => ok([]),
        None => refuse(Completion::OUT_OF_SPACE),
    }
}

fn position(sel: &Sel, id: u16) -> Option<usize> {
    match id {
        0 => (!sel.entries.is_empty()).then_some(0),
        0xffff => sel.entries.len().checked_sub(1),
        id => sel.entries.iter().position(|entry| entry[..2] == id.to_le_bytes()),
    }
}

/// Answers for it.
pub fn answer(bmc: &mut Bmc, asked: &Asked<'_>) -> Option<Response> {
    let word = |at: usize| {
        let bytes = asked.data.get(at..at + 2).and_then(|bytes| bytes.first_chunk());
        bytes.map_or(0, |bytes| u16::from_le_bytes(*bytes))
    };
    match (asked.command, asked.data.len()) {
        (0x40, _) => ok(info(&bmc.sel)),
        (0x41, _) => {
            let free = (bmc.sel.room - bmc.sel.entries.len().min(bmc.sel.room)) as u16;
            let units = [bmc.sel.room as u16, LENGTH as u16, free, free];
            let mut data: Vec<u8> = units.iter().flat_map(|unit| unit.to_le_bytes()).collect();
            data.push(1);
            ok(data)
        }
        (0x42, _) => {
            bmc.sel.reservation = bmc.sel.reservation.wrapping_add(1).max(1);
            ok(bmc.sel.reservation.to_le_bytes())
        }
        (0x43, 6..) => {
            let (offset, count) = (usize::from(asked.data[4]), usize::from(asked.data[5]));
            if offset != 0 && word(0) != bmc.sel.reservation {
                return refuse(Completion::RESERVATION_LOST);
            }
            let Some(at) = position(&bmc.sel, word(2)) else {
                return refuse(Completion::NOT_PRESENT);
            };
            let next = bmc.sel.entries.get(at + 1).map_or([0xff; 2], |next| [next[0], next[1]]);
            let Some(rest) = bmc.sel.entries[at].get(offset..) else {
                return refuse(Completion::OUT_OF_RANGE);
            };
            ok([&next[..], &rest[..rest.len().min(count)]].concat())
        }
        (0x44, LENGTH..) => {
            let mut entry = [0; LENGTH];
            entry.copy_from_slice(&asked.data[..LENGTH]);
            match add(bmc, entry) {
                Some(id) => ok(id.to_le_bytes()),
                None => refuse(Completion::OUT_OF_SPACE),
            }
        }
        (0x46, 4..) => {
            if word(0) != bmc.sel.reservation {
                return refuse(Completion::RESERVATION_LOST);
            }
            let Some(at) = position(&bmc.sel, word(2)) else {
                return refuse(Completion::NOT_PRESENT);
            };
            let gone = bmc.sel.entries.remove(at);
            bmc.sel.erased = time(bmc);
            ok([gone[0], gone[1]])
        }
        (0x47, 6..) => clear(bmc, word(0), &asked.data[2..6]),
        (0x48, _) => ok(time(bmc).to_le_bytes()),
        (0x49, 4..) => {
            let wanted = u32::from_le_bytes([0, 1, 2, 3].map(|at: usize| asked.data[at]));
            bmc.sel.ahead = i64::from(wanted) - i64::from(wall_clock());
            ok([])
        }
        (0x5c, _) => ok(bmc.sel.utc_offset.to_le_bytes()),
        (0x5d, 2..) => {
            bmc.sel.utc_offset = word(0) as i16;
            ok([])
        }
        (0x43 | 0x44 | 0x46 | 0x47 | 0x49 | 0x5d, _) => refuse(Completion::LENGTH_INVALID),
        _ => None,
    }
}

fn info(sel: &Sel) -> Vec<u8> {
    let free = (sel.room - sel.entries.len().min(sel.room)) * LENGTH;
    let mut info = vec![0x51];
    info.extend((sel.entries.len() as u16).to_le_bytes());
    info.extend(u16::try_from(free).unwrap_or(u16::MAX).to_le_bytes());
    info.extend(sel.added.to_le_bytes());
    info.extend(sel.erased.to_le_bytes());
    // Deletes, reserves, and tells of its allocation.
    info.push(u8::from(sel.overflow) << 7 | 0b1011);
    info
}

fn clear(bmc: &mut Bmc, reservation: u16, request: &[u8]) -> Option<Response> {
    if reservation != bmc.sel.reservation {
        return refuse(Completion::RESERVATION_LOST);
    }
    let now = time(bmc);
    let sel = &mut bmc.sel;
    match request {
        [b'C', b'L', b'R', 0xaa] => {
            sel.entries.clear();
            sel.overflow = false;
            sel.next = 1;
            sel.erased = now;
            ok([u8::from(sel.erasing == 0)])
        }
        [b'C', b'L', b'R', 0x00] => {
            sel.erasing = sel.erasing.saturating_sub(1);
            ok([u8::from(sel.erasing == 0)])
        }
        _ => refuse(Completion::INVALID_FIELD),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use koboshi_ipmi::commands::sel::{add_request, entry_request, info_request};
    use koboshi_ipmi::{NetFn, Request};

    use super::*;
    use crate::config::Config;

    #[test]
    fn a_log_with_an_end() {
        let now = Instant::now();
        let mut bmc = Bmc::new(Config::default(), now);
        bmc.sel.room = 3;
        bmc.sel.ahead = -500;
        let mut entry = [0; LENGTH];
        entry[2] = 2;
        for id in 1..=3 {
            assert_eq!(bmc.ask(&add_request(entry), now).data, [id, 0]);
        }
        assert_eq!(bmc.ask(&add_request(entry), now).completion, Completion::OUT_OF_SPACE);
        let info = bmc.ask(&info_request(), now).data;
        assert_eq!((info[1], info[13] & 0x80), (3, 0x80));
        let last = bmc.ask(&entry_request(0xffff), now).data;
        assert_eq!(last[..4], [0xff, 0xff, 3, 0]);
        let logged = u32::from_le_bytes([last[5], last[6], last[7], last[8]]);
        assert!(wall_clock().abs_diff(logged) >= 499);
        let clear = |bmc: &mut Bmc, low, action| {
            let request = Request::new(NetFn::STORAGE, 0x47, [low, 0, b'C', b'L', b'R', action]);
            bmc.ask(&request, now)
        };
        assert_eq!(clear(&mut bmc, 99, 0xaa).completion, Completion::RESERVATION_LOST);
        let low = bmc.ask(&Request::new(NetFn::STORAGE, 0x42, []), now).data[0];
        assert_eq!(clear(&mut bmc, low, 0xaa).data, [0]);
        assert_eq!(clear(&mut bmc, low, 0).data, [1]);
        assert_eq!(bmc.ask(&entry_request(0), now).completion, Completion::NOT_PRESENT);
    }
}
