//! A BMC's channels: what they are, who may use them, and which of them is the LAN one is talking over.
//!
//! IPMI 2.0 §22.22–22.24; tables 22-28 (access), 22-29 (info), 6-3 (media).

use serde::Serialize;

use crate::controller::Controller;
use crate::error::Error;
use crate::message::{NetFn, Request};
use crate::wire::{Malformed, take};

/// Set Channel Access.
pub const SET_ACCESS: u8 = 0x40;
/// Get Channel Access.
pub const GET_ACCESS: u8 = 0x41;
/// Get Channel Info.
pub const INFO: u8 = 0x42;
/// "The channel this is asked over".
pub const PRESENT: u8 = 0x0e;

/// How far a session, an account, a channel or a cipher suite may go. What a session is asked for is a
/// [`Privilege`](crate::Privilege).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Limit {
    /// Unspecified: no limit is set.
    Unset,
    /// May only ask to be called back.
    Callback,
    /// May read.
    User,
    /// May switch the power, and more that does not change the BMC.
    Operator,
    /// May do everything.
    Admin,
    /// What the maker thought of.
    Oem,
    /// None at all: the account is shut out of the channel.
    NoAccess,
    /// A number without a meaning.
    Reserved(u8),
}

impl Limit {
    /// Its number.
    pub fn number(self) -> u8 {
        match self {
            Limit::Unset => 0,
            Limit::Callback => 1,
            Limit::User => 2,
            Limit::Operator => 3,
            Limit::Admin => 4,
            Limit::Oem => 5,
            Limit::NoAccess => 0x0f,
            Limit::Reserved(number) => number & 0x0f,
        }
    }

    /// From its number.
    pub fn from_number(number: u8) -> Limit {
        match number & 0x0f {
            0 => Limit::Unset,
            1 => Limit::Callback,
            2 => Limit::User,
            3 => Limit::Operator,
            4 => Limit::Admin,
            5 => Limit::Oem,
            0x0f => Limit::NoAccess,
            number => Limit::Reserved(number),
        }
    }

    /// As an operator writes it.
    pub fn name(self) -> &'static str {
        match self {
            Limit::Unset => "unset",
            Limit::Callback => "callback",
            Limit::User => "user",
            Limit::Operator => "operator",
            Limit::Admin => "admin",
            Limit::Oem => "oem",
            Limit::NoAccess => "no-access",
            Limit::Reserved(_) => "reserved",
        }
    }

    /// From what an operator writes.
    pub fn by_name(name: &str) -> Option<Limit> {
        [Limit::Callback, Limit::User, Limit::Operator, Limit::Admin, Limit::Oem, Limit::NoAccess]
            .into_iter()
            .find(|known| known.name() == name)
    }
}

/// What a channel runs over (table 6-3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Medium {
    /// A bus between controllers.
    Ipmb,
    /// A network.
    Lan,
    /// A serial line or a modem.
    Serial,
    /// The host's own interface.
    System,
    /// Another number.
    Other(u8),
}

impl Medium {
    fn from_number(number: u8) -> Medium {
        match number & 0x7f {
            1 => Medium::Ipmb,
            4 | 6 => Medium::Lan,
            5 => Medium::Serial,
            12 => Medium::System,
            number => Medium::Other(number),
        }
    }
}

/// Get Channel Info (table 22-29).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct ChannelInfo {
    /// Its number.
    pub channel: u8,
    /// Over what.
    pub medium: Medium,
    /// Its protocol (table 6-2).
    pub protocol: u8,
    /// Whether it has sessions, and more than one.
    pub sessions: u8,
    /// How many are open now.
    pub active: u8,
}

impl ChannelInfo {
    /// From an answer's data.
    pub fn decode(mut data: &[u8]) -> Result<ChannelInfo, Malformed> {
        let [channel, medium, protocol, sessions] =
            take(&mut data, "channel info of less than 4 bytes")?;
        Ok(ChannelInfo {
            channel: channel & 0x0f,
            medium: Medium::from_number(medium),
            protocol: protocol & 0x1f,
            sessions: sessions >> 6,
            active: sessions & 0x3f,
        })
    }
}

/// What a channel is; [`PRESENT`] is the one this is asked over.
pub async fn info(bmc: &impl Controller, channel: u8) -> Result<ChannelInfo, Error> {
    let data = bmc.call(Request::new(NetFn::APP, INFO, [channel & 0x0f])).await?;
    Ok(ChannelInfo::decode(&data)?)
}

/// Every channel there is.
pub async fn list(bmc: &impl Controller) -> Result<Vec<ChannelInfo>, Error> {
    let mut found = Vec::new();
    for channel in (0..=0x0b).chain([0x0f]) {
        match info(bmc, channel).await {
            // Some answer for channels they do not have, with the data of another or with nothing.
            Ok(info) if info.channel == channel && info.medium != Medium::Other(0) => {
                found.push(info);
            }
            Ok(_) | Err(Error::Refused { .. } | Error::Malformed(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// The LAN channel's number: the one this is asked over if that is a LAN, else the first that is.
pub async fn lan(bmc: &impl Controller) -> Result<u8, Error> {
    for channel in [PRESENT].into_iter().chain(1..=0x0b) {
        match info(bmc, channel).await {
            Ok(info) if info.medium == Medium::Lan && info.channel != PRESENT => {
                return Ok(info.channel);
            }
            Ok(_) | Err(Error::Refused { .. } | Error::Malformed(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Err(Error::Unsupported("a LAN channel"))
}

/// When a channel may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Never.
    Disabled,
    /// Until an operating system starts.
    PreBoot,
    /// Always.
    Always,
    /// Always, and the host shares the line.
    Shared,
    /// A number without a meaning.
    Reserved(u8),
}

impl Mode {
    fn number(self) -> u8 {
        match self {
            Mode::Disabled => 0,
            Mode::PreBoot => 1,
            Mode::Always => 2,
            Mode::Shared => 3,
            Mode::Reserved(number) => number & 7,
        }
    }

    fn from_number(number: u8) -> Mode {
        match number & 7 {
            0 => Mode::Disabled,
            1 => Mode::PreBoot,
            2 => Mode::Always,
            3 => Mode::Shared,
            number => Mode::Reserved(number),
        }
    }
}

/// Channel access (table 22-28).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct ChannelAccess {
    /// When it may be used.
    pub mode: Mode,
    /// Alerts go out.
    pub alerting: bool,
    /// Each packet of IPMI 1.5 is authenticated, not only the first ones.
    pub per_message: bool,
    /// Commands of user privilege are authenticated.
    pub user_level: bool,
    /// The most that anybody may be raised to.
    pub limit: Limit,
}

impl ChannelAccess {
    /// From an answer's data.
    pub fn decode(mut data: &[u8]) -> Result<ChannelAccess, Malformed> {
        let [access, limit] = take(&mut data, "channel access of less than 2 bytes")?;
        Ok(ChannelAccess {
            mode: Mode::from_number(access),
            alerting: access & 0x20 == 0,
            per_message: access & 0x10 == 0,
            user_level: access & 0x08 == 0,
            limit: Limit::from_number(limit),
        })
    }

    /// As an answer's data.
    pub fn encode(&self) -> [u8; 2] {
        let access = self.mode.number()
            | u8::from(!self.alerting) << 5
            | u8::from(!self.per_message) << 4
            | u8::from(!self.user_level) << 3;
        [access, self.limit.number()]
    }
}

/// Which of the two settings of a channel: the one in force, or the one kept over a BMC's restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Store {
    /// Kept.
    NonVolatile,
    /// In force.
    Volatile,
}

impl Store {
    fn bits(self) -> u8 {
        match self {
            Store::NonVolatile => 0x40,
            Store::Volatile => 0x80,
        }
    }
}

/// Who may use a channel.
pub async fn access(
    bmc: &impl Controller,
    channel: u8,
    store: Store,
) -> Result<ChannelAccess, Error> {
    let request = Request::new(NetFn::APP, GET_ACCESS, [channel & 0x0f, store.bits()]);
    Ok(ChannelAccess::decode(&bmc.call(request).await?)?)
}

/// Sets who may use a channel, in force and kept, and reads both back.
pub async fn set_access(
    bmc: &impl Controller,
    channel: u8,
    wanted: ChannelAccess,
) -> Result<(), Error> {
    let [mode, limit] = wanted.encode();
    for store in [Store::NonVolatile, Store::Volatile] {
        let data = [channel & 0x0f, store.bits() | mode, store.bits() | limit];
        bmc.call(Request::new(NetFn::APP, SET_ACCESS, data)).await?;
        let reads = access(bmc, channel, store).await?;
        if reads != wanted {
            let reads = format!("{:?}, {}", reads.mode, reads.limit.name());
            return Err(Error::NotKept { what: "the channel's access", reads });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::commands::script::{Script, ok, refuse};

    proptest! {
        #[test]
        fn any_bytes(data in prop::collection::vec(any::<u8>(), 0..40)) {
            prop_assert_eq!(ChannelInfo::decode(&data).is_ok(), data.len() >= 4);
            if let Ok(access) = ChannelAccess::decode(&data) {
                prop_assert_eq!(ChannelAccess::decode(&access.encode()), Ok(access));
            }
        }
    }

    fn ask(channel: u8) -> Request {
        Request::new(NetFn::APP, INFO, [channel])
    }

    #[tokio::test]
    async fn the_lan_channel_where_the_present_one_is_not_told() {
        let bmc = Script::new([
            (ask(0x0e), refuse(0xcc)),
            (ask(1), ok([1, 5, 0, 0])),
            (ask(2), ok([2])),
            (ask(3), ok([3, 4, 1, 0x81, 0xf2, 0x1b, 0, 0, 0])),
        ]);
        assert_eq!(lan(&bmc).await, Ok(3));
        bmc.finish();
        let bmc = Script::new([(ask(0x0e), ok([8, 4, 1, 0x81]))]);
        assert_eq!(lan(&bmc).await, Ok(8));
    }

    #[tokio::test]
    async fn access_that_is_not_kept() {
        let wanted = ChannelAccess {
            mode: Mode::Always,
            alerting: false,
            per_message: true,
            user_level: true,
            limit: Limit::Admin,
        };
        let set = |bits: u8| Request::new(NetFn::APP, SET_ACCESS, [1, bits | 0x22, bits | 4]);
        let get = |bits| Request::new(NetFn::APP, GET_ACCESS, [1, bits]);
        let bmc = Script::new([
            (set(0x40), ok([])),
            (get(0x40), ok([0x22, 4])),
            (set(0x80), ok([])),
            (get(0x80), ok([0x22, 3])),
        ]);
        let error = set_access(&bmc, 1, wanted).await.unwrap_err();
        assert!(error.to_string().contains("operator"), "{error}");
        bmc.finish();
    }
}
