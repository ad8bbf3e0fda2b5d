//! The BMC's watchdog: a timer that acts on the machine unless it is started again in time.
//!
//! IPMI 2.0 §27; tables 27-2 (reset), 27-4 (set), 27-5 (get).

use std::time::Duration;

use serde::Serialize;

use crate::controller::Controller;
use crate::error::Error;
use crate::message::{NetFn, Request};
use crate::wire::{Malformed, take};

/// Reset Watchdog Timer: starts it, or starts it again.
pub const RESET: u8 = 0x22;
/// Set Watchdog Timer.
pub const SET: u8 = 0x24;
/// Get Watchdog Timer.
pub const GET: u8 = 0x25;

/// Most that its counter of 100 ms takes.
pub const LONGEST: Duration = Duration::from_millis(6_553_500);

/// Who uses it: what the machine is doing when it must not hang.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Use {
    /// The BIOS, for its fault-resilient start.
    BiosFrb2,
    /// The BIOS.
    BiosPost,
    /// A loader of an operating system.
    OsLoad,
    /// The operating system.
    Os,
    /// The maker's.
    Oem,
    /// A number without a meaning.
    Reserved(u8),
}

impl Use {
    /// Its number, which is also its bit among the expired.
    pub fn number(self) -> u8 {
        match self {
            Use::BiosFrb2 => 1,
            Use::BiosPost => 2,
            Use::OsLoad => 3,
            Use::Os => 4,
            Use::Oem => 5,
            Use::Reserved(number) => number & 7,
        }
    }

    fn from_number(number: u8) -> Use {
        match number & 7 {
            1 => Use::BiosFrb2,
            2 => Use::BiosPost,
            3 => Use::OsLoad,
            4 => Use::Os,
            5 => Use::Oem,
            number => Use::Reserved(number),
        }
    }
}

/// What it does when it runs out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// Nothing but an event.
    None,
    /// The reset line.
    Reset,
    /// Off.
    Off,
    /// Off and on.
    Cycle,
    /// A number without a meaning.
    Reserved(u8),
}

impl Action {
    /// Its number.
    pub fn number(self) -> u8 {
        match self {
            Action::None => 0,
            Action::Reset => 1,
            Action::Off => 2,
            Action::Cycle => 3,
            Action::Reserved(number) => number & 7,
        }
    }

    fn from_number(number: u8) -> Action {
        match number & 7 {
            0 => Action::None,
            1 => Action::Reset,
            2 => Action::Off,
            3 => Action::Cycle,
            number => Action::Reserved(number),
        }
    }

    /// From what an operator writes.
    pub fn by_name(name: &str) -> Option<Action> {
        Some(match name {
            "none" => Action::None,
            "reset" => Action::Reset,
            "off" => Action::Off,
            "cycle" => Action::Cycle,
            _ => return None,
        })
    }

    /// As an operator writes it.
    pub fn name(self) -> &'static str {
        match self {
            Action::None => "none",
            Action::Reset => "reset",
            Action::Off => "off",
            Action::Cycle => "cycle",
            Action::Reserved(_) => "reserved",
        }
    }
}

/// What warns before it runs out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Warning {
    /// Nothing.
    None,
    /// A system management interrupt.
    Smi,
    /// A diagnostic interrupt: the operating system dumps, if it was told to.
    Nmi,
    /// An interrupt of the interface between host and BMC.
    Message,
    /// A number without a meaning.
    Reserved(u8),
}

impl Warning {
    fn number(self) -> u8 {
        match self {
            Warning::None => 0,
            Warning::Smi => 1,
            Warning::Nmi => 2,
            Warning::Message => 3,
            Warning::Reserved(number) => number & 7,
        }
    }

    fn from_number(number: u8) -> Warning {
        match number & 7 {
            0 => Warning::None,
            1 => Warning::Smi,
            2 => Warning::Nmi,
            3 => Warning::Message,
            number => Warning::Reserved(number),
        }
    }
}

/// How it is set (table 27-4), without whether it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Setting {
    /// Who uses it.
    pub user: Use,
    /// What it does.
    pub action: Action,
    /// What warns.
    pub warning: Warning,
    /// How long before the end, in seconds.
    pub warning_seconds: u8,
    /// No entry in the event log when it runs out.
    pub unlogged: bool,
    /// From what it counts down; steps of 100 ms up to [`LONGEST`].
    #[serde(rename = "seconds", serialize_with = "seconds")]
    pub countdown: Duration,
}

fn seconds<S: serde::Serializer>(value: &Duration, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_f64(value.as_secs_f64())
}

fn maybe_seconds<S: serde::Serializer>(value: &Option<Duration>, to: S) -> Result<S::Ok, S::Error> {
    value.map(|value| value.as_secs_f64()).serialize(to)
}

fn tenths(duration: Duration) -> u16 {
    u16::try_from(duration.as_millis() / 100).unwrap_or(u16::MAX)
}

fn from_tenths(bytes: [u8; 2]) -> Duration {
    Duration::from_millis(u64::from(u16::from_le_bytes(bytes)) * 100)
}

impl Setting {
    fn head(&self) -> [u8; 3] {
        [
            u8::from(self.unlogged) << 7 | self.user.number(),
            self.warning.number() << 4 | self.action.number(),
            self.warning_seconds,
        ]
    }

    fn from_head([user, action, warning]: [u8; 3], countdown: Duration) -> Setting {
        Setting {
            user: Use::from_number(user),
            action: Action::from_number(action),
            warning: Warning::from_number(action >> 4),
            warning_seconds: warning,
            unlogged: user & 0x80 != 0,
            countdown,
        }
    }
}

/// Sets it, and forgets the "expired" of these uses (bits). It stops unless it is to keep running.
pub fn set_request(setting: &Setting, keep_running: bool, forget: u8) -> Request {
    let [user, action, warning] = setting.head();
    let [low, high] = tenths(setting.countdown).to_le_bytes();
    let user = user | u8::from(keep_running) << 6;
    Request::new(NetFn::APP, SET, [user, action, warning, forget, low, high])
}

/// How it is (table 27-5).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Watchdog {
    /// How it is set.
    #[serde(flatten)]
    pub setting: Setting,
    /// It counts.
    pub running: bool,
    /// Who let it run out since that was last forgotten.
    pub expired: Vec<Use>,
    /// What is left; ipmi_sim does not tell.
    #[serde(rename = "seconds-left", serialize_with = "maybe_seconds")]
    pub left: Option<Duration>,
}

impl Watchdog {
    /// From an answer's data.
    pub fn decode(mut data: &[u8]) -> Result<Watchdog, Malformed> {
        let short = "a watchdog of less than 6 bytes";
        let head: [u8; 3] = take(&mut data, short)?;
        let [expired] = take(&mut data, short)?;
        let countdown = from_tenths(take(&mut data, short)?);
        let left = data.first_chunk().copied().map(from_tenths);
        Ok(Watchdog {
            setting: Setting::from_head(head, countdown),
            running: head[0] & 0x40 != 0,
            expired: (1..=5)
                .filter(|number| expired >> number & 1 != 0)
                .map(Use::from_number)
                .collect(),
            left,
        })
    }
}

/// How it is. Boards of Supermicro now and then answer with nothing: asked again.
pub async fn get(bmc: &impl Controller) -> Result<Watchdog, Error> {
    let mut data = Vec::new();
    for _ in 0..3 {
        data = bmc.call(Request::new(NetFn::APP, GET, [])).await?;
        if !data.is_empty() {
            break;
        }
    }
    Ok(Watchdog::decode(&data)?)
}

/// Sets it. It does not run until it is started ([`start`]); one that ran stops.
pub async fn set(bmc: &impl Controller, setting: Setting) -> Result<(), Error> {
    if setting.countdown > LONGEST {
        return Err(Error::Invalid("a watchdog counts 6553.5 s at most".into()));
    }
    if Duration::from_secs(setting.warning_seconds.into()) >= setting.countdown
        && setting.warning != Warning::None
    {
        return Err(Error::Invalid("a warning comes before the watchdog runs out".into()));
    }
    // "Expired" of earlier times is forgotten, so that what shows later is of this time.
    bmc.call(set_request(&setting, false, 0x3e)).await.map(drop)
}

/// Starts it, or starts it again from its full count.
pub async fn start(bmc: &impl Controller) -> Result<(), Error> {
    bmc.call(Request::new(NetFn::APP, RESET, [])).await.map(drop)
}

/// Stops it: it keeps its setting. IPMI has no command for this, only the setting written once more without
/// "keep running".
pub async fn stop(bmc: &impl Controller) -> Result<(), Error> {
    let now = get(bmc).await?;
    bmc.call(set_request(&now.setting, false, 0)).await.map(drop)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::commands::script::{Script, ok, refuse};

    const OS: Setting = Setting {
        user: Use::Os,
        action: Action::Cycle,
        warning: Warning::Nmi,
        warning_seconds: 10,
        unlogged: false,
        countdown: Duration::from_secs(60),
    };

    proptest! {
        #[test]
        fn any_bytes(data in prop::collection::vec(any::<u8>(), 0..12)) {
            prop_assert_eq!(Watchdog::decode(&data).is_ok(), data.len() >= 6);
        }
    }

    #[tokio::test]
    async fn set_start_and_stop() {
        let get_request = || Request::new(NetFn::APP, GET, []);
        let bmc = Script::new([
            (Request::new(NetFn::APP, SET, [0x04, 0x23, 10, 0x3e, 0x58, 0x02]), ok([])),
            (Request::new(NetFn::APP, RESET, []), ok([])),
            (get_request(), ok([])),
            (get_request(), ok([0x44, 0x23, 10, 0x10, 0x58, 0x02, 0x57, 0x02])),
            (get_request(), ok([0x44, 0x23, 10, 0x10, 0x58, 0x02, 0x57, 0x02])),
            (Request::new(NetFn::APP, SET, [0x04, 0x23, 10, 0, 0x58, 0x02]), ok([])),
            (Request::new(NetFn::APP, RESET, []), refuse(0x80)),
        ]);
        set(&bmc, OS).await.unwrap();
        start(&bmc).await.unwrap();
        let now = get(&bmc).await.unwrap();
        assert_eq!((now.setting, now.running), (OS, true));
        assert_eq!((now.expired, now.left), (vec![Use::Os], Some(Duration::from_millis(59_900))));
        stop(&bmc).await.unwrap();
        let error = start(&bmc).await.unwrap_err();
        assert!(error.to_string().contains("never set"), "{error}");
        bmc.finish();
    }

    #[tokio::test]
    async fn what_no_watchdog_does_is_not_sent() {
        let bmc = Script::new([]);
        let long = Setting { countdown: LONGEST + Duration::from_secs(1), ..OS };
        assert!(set(&bmc, long).await.is_err());
        assert!(set(&bmc, Setting { warning_seconds: 60, ..OS }).await.is_err());
    }
}
