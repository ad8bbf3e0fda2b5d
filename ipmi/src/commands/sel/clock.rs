//! The event log's clock against ours (IPMI §31.10, §31.11): boards without a battery, set to local time or
//! never set at all are the rule, and their events are worth little until the difference is known.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::Serialize;

use super::record::{Stamp, When};
use crate::commands::busy;
use crate::controller::Controller;
use crate::error::Error;
use crate::message::{NetFn, Request};
use crate::wire::Malformed;

/// What the controller's clock says, and how far that is from ours.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Clock {
    /// Its own time.
    pub time: Stamp,
    /// Seconds that it is ahead of ours (behind: negative); it counts whole seconds, so that this is true to
    /// half a second and half of the round trip.
    pub ahead: f64,
    /// Seconds that question and answer took.
    pub round_trip: f64,
}

impl Clock {
    /// From its answer and ours before and after. A whole second's reading is half a second old on average.
    pub fn of(time: Stamp, before: SystemTime, round_trip: Duration) -> Clock {
        let before = before.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        let round_trip = round_trip.as_secs_f64();
        let ahead = f64::from(time.0) + 0.5 - (before + round_trip / 2.0);
        Clock { time, ahead, round_trip }
    }

    /// A stamp of this controller as our time, in seconds since 1970. `None` where a stamp is no time.
    pub fn ours(&self, stamp: Stamp) -> Option<i64> {
        match (stamp.when(), self.time.when()) {
            (When::At(_), When::At(_)) | (When::AfterStart(_), When::AfterStart(_)) => {
                Some(i64::from(stamp.0) - self.ahead.round() as i64)
            }
            // Set since: what happened before cannot be told.
            _ => None,
        }
    }

    /// Whether it is so far off that times mislead: more than two seconds.
    pub fn is_off(&self) -> bool {
        self.ahead.abs() > 2.0
    }
}

/// Get SEL Time.
pub fn time_request() -> Request {
    Request::new(NetFn::STORAGE, 0x48, [])
}

/// Set SEL Time.
pub fn set_time_request(time: Stamp) -> Request {
    Request::new(NetFn::STORAGE, 0x49, time.0.to_le_bytes())
}

/// Reads the clock and measures it.
pub async fn read(bmc: &impl Controller) -> Result<Clock, Error> {
    let (before, began) = (SystemTime::now(), Instant::now());
    let data = busy::call(bmc, &time_request()).await?;
    let took = began.elapsed();
    let time = data.first_chunk().ok_or(Malformed("a time of less than 4 bytes"))?;
    Ok(Clock::of(Stamp(u32::from_le_bytes(*time)), before, took))
}

/// Sets it to our time (UTC), and measures what came of it.
pub async fn set(bmc: &impl Controller) -> Result<Clock, Error> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    // The nearest whole second.
    let seconds = (now + Duration::from_millis(500)).as_secs();
    let time =
        u32::try_from(seconds).map_err(|_| Error::Invalid("our clock is past 2106".into()))?;
    busy::call(bmc, &set_time_request(Stamp(time))).await?;
    read(bmc).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::busy::script::{Scripted, ok};

    fn at(seconds: f64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs_f64(seconds)
    }

    #[test]
    fn the_round_trip_is_halved() {
        let clock = Clock::of(Stamp(1_700_000_100), at(1_700_000_000.0), Duration::from_secs(1));
        assert!((clock.ahead - 100.0).abs() < 1e-6);
        assert!(clock.is_off());
        assert_eq!(clock.ours(Stamp(1_700_000_050)), Some(1_699_999_950));
        assert_eq!(clock.ours(Stamp(u32::MAX)), None);
        assert_eq!(clock.ours(Stamp(40)), None);
    }

    /// A clock that was never set still tells how long ago something was.
    #[test]
    fn a_clock_that_counts_from_its_start() {
        let clock = Clock::of(Stamp(1000), at(1_700_000_000.5), Duration::ZERO);
        assert_eq!(clock.ours(Stamp(940)), Some(1_699_999_940));
    }

    #[tokio::test]
    async fn set_to_our_time() {
        let mut held = 5;
        let bmc = Scripted::new(move |request| match request.command {
            0x49 => {
                held = u32::from_le_bytes(request.data[..].try_into().unwrap());
                ok([])
            }
            _ => ok(held.to_le_bytes()),
        });
        assert!(read(&bmc).await.unwrap().ahead < -1e9);
        assert!(!set(&bmc).await.unwrap().is_off());
    }
}
