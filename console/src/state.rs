//! What the events of a line mean: marks between its characters, and in which state it is. Without sockets.

use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use koboshi_ipmi::Error;
use serde::{Deserialize, Serialize};

use crate::line::waits;
use crate::scrollback::{Mark, Scrollback};
use crate::wire::{Event, NotOpen};

/// In which state a line is; times are Unix milliseconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum State {
    /// It is opened for the first time.
    Opening,
    /// What the machine says comes here.
    Up {
        /// Since when.
        since: u64,
    },
    /// It is tried until it is up.
    Down {
        /// Since when.
        since: u64,
        /// The newest cause, in words.
        why: String,
    },
    /// Somebody else has it. It is used again once he is through.
    Stolen {
        /// Since when.
        since: u64,
        /// Account and address, where the BMC tells.
        by: Option<String>,
    },
}

/// A line's state, and how often it changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// The present one.
    pub state: State,
    /// Changes since the line was begun: who looks now and then sees how much he missed.
    pub changes: u64,
}

/// What is to be done after an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// It opens itself again.
    GoOn,
    /// It will not come back before somebody mends something: it is opened from the beginning, with what the
    /// site says then.
    Anew {
        /// The first wait, and the longest.
        waits: (Duration, Duration),
    },
}

/// A line without its source.
#[derive(Debug)]
pub(crate) struct Record {
    pub scrollback: Scrollback,
    /// Places in it are known: its log was opened, or it has none.
    pub ready: bool,
    /// Where its log is.
    pub files: Option<PathBuf>,
    status: Status,
}

impl Record {
    pub fn new() -> Record {
        let status = Status { state: State::Opening, changes: 0 };
        Record { scrollback: Scrollback::default(), ready: true, files: None, status }
    }

    pub fn status(&self) -> &Status {
        &self.status
    }

    /// It was opened, which took no event.
    pub fn opened(&mut self, now: u64) {
        let mark = match &self.status.state {
            State::Opening => Mark::Up,
            State::Up { since } | State::Down { since, .. } | State::Stolen { since, .. } => {
                Mark::Reconnected { after: now.saturating_sub(*since) }
            }
        };
        self.scrollback.mark(now, mark);
        self.now_is(State::Up { since: now });
    }

    pub fn down(&mut self, now: u64, why: String) {
        if matches!(&self.status.state, State::Down { why: known, .. } if *known == why) {
            return;
        }
        self.scrollback.mark(now, Mark::Down { why: why.clone() });
        let since = match &self.status.state {
            State::Down { since, .. } => *since,
            _ => now,
        };
        self.now_is(State::Down { since, why });
    }

    pub fn stolen(&mut self, now: u64, by: Option<String>) {
        if matches!(&self.status.state, State::Stolen { by: known, .. } if *known == by) {
            return;
        }
        self.scrollback.mark(now, Mark::Stolen { by: by.clone() });
        self.now_is(State::Stolen { since: now, by });
    }

    fn now_is(&mut self, state: State) {
        self.status = Status { state, changes: self.status.changes + 1 };
    }

    /// An event of an open line. `now`: the same moment by both clocks.
    pub fn take(&mut self, event: Event, now: (Instant, u64)) -> Next {
        let (now, clock) = now;
        match event {
            Event::Data { at, bytes } => {
                let age = now.saturating_duration_since(at).as_millis();
                let at = clock.saturating_sub(u64::try_from(age).unwrap_or(0));
                self.scrollback.write(at, &bytes);
            }
            Event::Down { why, itself } => {
                let waits = waits(&why);
                self.refused(clock, why);
                if !itself {
                    return Next::Anew { waits };
                }
            }
            Event::Stolen { by } => self.stolen(clock, by),
            Event::Reconnected { after } => {
                let after = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
                self.scrollback.mark(clock, Mark::Reconnected { after });
                self.now_is(State::Up { since: clock });
            }
            Event::Mark(mark) => self.scrollback.mark(clock, mark),
        }
        Next::GoOn
    }

    /// Why it is not open.
    pub fn refused(&mut self, now: u64, why: NotOpen) {
        match why {
            NotOpen::Bmc(Error::SolTaken { by }) => self.stolen(now, by),
            NotOpen::Bmc(why) => self.down(now, why.to_string()),
            NotOpen::Here(why) | NotOpen::Away(why) | NotOpen::Unplugged(why) => {
                self.down(now, why)
            }
        }
    }
}

/// Unix time in milliseconds.
pub(crate) fn clock() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::scrollback::What;

    fn read(record: &Record) -> Vec<(u64, What)> {
        let mut cursor = record.scrollback.last(usize::MAX);
        let pieces = std::iter::from_fn(|| record.scrollback.read(&mut cursor));
        pieces.map(|piece| (piece.at, piece.what)).collect()
    }

    #[test]
    fn up_down_stolen_and_up_again_with_characters_between() {
        let now = Instant::now();
        let mut record = Record::new();
        record.refused(5, NotOpen::Bmc(Error::Unreachable { waited: Duration::from_secs(20) }));
        record.refused(6, NotOpen::Bmc(Error::NoFreeSession));
        record.refused(7, NotOpen::Bmc(Error::NoFreeSession));
        let State::Down { since: 5, why } = &record.status().state else { panic!("{record:?}") };
        assert_eq!(why, "the BMC has no free session");
        record.opened(9);
        assert_eq!(record.status().state, State::Up { since: 9 });
        let bytes = Bytes::from_static(b"login: ");
        let at = now - Duration::from_millis(30);
        let data = Event::Data { at, bytes: bytes.clone() };
        assert_eq!(record.take(data, (now, 1000)), Next::GoOn);
        record.take(Event::Mark(Mark::Gap { packets: 2 }), (now, 1001));
        let by = Some("eve from 10.0.0.9".to_string());
        assert_eq!(record.take(Event::Stolen { by: by.clone() }, (now, 1002)), Next::GoOn);
        assert_eq!(record.status().state, State::Stolen { since: 1002, by: by.clone() });
        let after = Duration::from_secs(2);
        record.take(Event::Reconnected { after }, (now, 3002));
        assert_eq!(record.status(), &Status { state: State::Up { since: 3002 }, changes: 5 });
        let mark = What::Mark;
        let down = |why: &str| mark(Mark::Down { why: why.to_string() });
        let expected = [
            (5, down("no answer within 20 s")),
            (6, down("the BMC has no free session")),
            (9, mark(Mark::Reconnected { after: 4 })),
            (970, What::Text(bytes)),
            (1001, mark(Mark::Gap { packets: 2 })),
            (1002, mark(Mark::Stolen { by })),
            (3002, mark(Mark::Reconnected { after: 2000 })),
        ];
        assert_eq!(read(&record), expected);
    }

    #[test]
    fn what_somebody_must_mend_is_begun_from_the_beginning() {
        let mut record = Record::new();
        record.opened(1);
        assert_eq!(read(&record), [(1, What::Mark(Mark::Up))]);
        let now = (Instant::now(), 2);
        let lost = Error::Lost { waited: Duration::from_secs(9) };
        assert_eq!(
            record.take(Event::Down { why: NotOpen::Bmc(lost), itself: true }, now),
            Next::GoOn
        );
        let wrong = Error::WrongPassword { user: "admin".to_string() };
        let wrong = Event::Down { why: NotOpen::Bmc(wrong), itself: false };
        assert_eq!(
            record.take(wrong, now),
            Next::Anew { waits: (Duration::from_secs(40), Duration::from_secs(300)) }
        );
        record.refused(3, NotOpen::Bmc(Error::SolTaken { by: None }));
        assert_eq!(record.status().state, State::Stolen { since: 3, by: None });
    }
}
