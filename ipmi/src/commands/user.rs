//! Accounts of a BMC: names, passwords, and what they may do on which channel.
//!
//! IPMI 2.0 §22.26–22.32; tables 22-31 to 22-37.

use secrecy::ExposeSecret;
use serde::Serialize;

use super::busy;
use super::channel::Limit;
use crate::controller::Controller;
use crate::crypto::Password;
use crate::error::Error;
use crate::message::{NetFn, Request};
use crate::wire::{Malformed, take};

/// Set User Access.
pub const SET_ACCESS: u8 = 0x43;
/// Get User Access.
pub const GET_ACCESS: u8 = 0x44;
/// Set User Name.
pub const SET_NAME: u8 = 0x45;
/// Get User Name.
pub const GET_NAME: u8 = 0x46;
/// Set User Password.
pub const SET_PASSWORD: u8 = 0x47;
/// Set User Payload Access.
pub const SET_PAYLOADS: u8 = 0x4c;
/// Get User Payload Access.
pub const GET_PAYLOADS: u8 = 0x4d;

/// What an account may do on a channel (table 22-32), without the counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct UserAccess {
    /// It may only ask to be called back.
    pub callback: bool,
    /// It takes part in the authentication of serial links.
    pub link: bool,
    /// It may send IPMI messages.
    pub messaging: bool,
    /// The most it may be raised to.
    pub limit: Limit,
}

/// Get User Access.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access {
    /// Ids that there are on the channel.
    pub ids: u8,
    /// Accounts that are enabled.
    pub enabled_count: u8,
    /// Accounts whose name cannot be changed.
    pub fixed_names: u8,
    /// Whether this one is enabled; `None` from firmware older than that bit.
    pub enabled: Option<bool>,
    /// What it may do.
    pub access: UserAccess,
}

impl Access {
    /// From an answer's data.
    pub fn decode(mut data: &[u8]) -> Result<Access, Malformed> {
        let [ids, enabled, fixed, access] = take(&mut data, "user access of less than 4 bytes")?;
        Ok(Access {
            ids: ids & 0x3f,
            enabled_count: enabled & 0x3f,
            fixed_names: fixed & 0x3f,
            enabled: match enabled >> 6 {
                1 => Some(true),
                2 => Some(false),
                _ => None,
            },
            access: UserAccess {
                callback: access & 0x40 != 0,
                link: access & 0x20 != 0,
                messaging: access & 0x10 != 0,
                limit: Limit::from_number(access),
            },
        })
    }
}

/// One account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct User {
    /// From 1; 1 is the one without a name.
    pub id: u8,
    /// Its name, empty if it has none.
    pub name: String,
    /// Whether it is enabled, where the BMC tells.
    pub enabled: Option<bool>,
    /// What it may do on the channel.
    #[serde(flatten)]
    pub access: UserAccess,
    /// Whether it may use Serial over LAN, where the BMC tells.
    pub sol: Option<bool>,
}

fn checked(id: u8) -> Result<u8, Error> {
    if (1..=63).contains(&id) { Ok(id) } else { Err(Error::Invalid("user ids are 1 to 63".into())) }
}

/// What an account may do on a channel, and how many accounts there are.
pub async fn access(bmc: &impl Controller, channel: u8, id: u8) -> Result<Access, Error> {
    let request = Request::new(NetFn::APP, GET_ACCESS, [channel & 0x0f, checked(id)?]);
    Ok(Access::decode(&busy::call(bmc, &request).await?)?)
}

/// An account's name. What is no text in it is shown as such.
pub async fn name(bmc: &impl Controller, id: u8) -> Result<String, Error> {
    let data = busy::call(bmc, &Request::new(NetFn::APP, GET_NAME, [checked(id)?])).await?;
    let name = data.split(|byte| *byte == 0).next().unwrap_or_default();
    let name = name.get(..16).unwrap_or(name);
    Ok(String::from_utf8_lossy(name).replace(char::is_control, "\u{fffd}").trim_end().to_owned())
}

async fn sol(bmc: &impl Controller, channel: u8, id: u8) -> Result<Option<bool>, Error> {
    let request = Request::new(NetFn::APP, GET_PAYLOADS, [channel & 0x0f, id]);
    match busy::call(bmc, &request).await {
        Ok(data) => Ok(data.first().map(|payloads| payloads & 0x02 != 0)),
        Err(Error::Refused { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Every account that has a name, may log in or may do something on the channel.
pub async fn list(bmc: &impl Controller, channel: u8) -> Result<Vec<User>, Error> {
    let mut found = Vec::new();
    let mut ids = 1;
    let mut id = 1;
    while id <= ids {
        let access = match access(bmc, channel, id).await {
            // Firmware that counts more ids than it has.
            Err(Error::Refused { .. }) if id > 1 => break,
            outcome => outcome?,
        };
        ids = access.ids;
        // Firmware refuses the name of an id that was never set (0xCC, 0xCB).
        let name = match name(bmc, id).await {
            Err(Error::Refused { .. }) => String::new(),
            outcome => outcome?,
        };
        let of_use = access.access.messaging && access.access.limit != Limit::NoAccess;
        if !name.is_empty() || access.enabled == Some(true) || of_use {
            let sol = sol(bmc, channel, id).await?;
            let (enabled, access) = (access.enabled, access.access);
            found.push(User { id, name, enabled, access, sol });
        }
        id += 1;
    }
    Ok(found)
}

/// Names an account; at most 16 bytes.
pub async fn set_name(bmc: &impl Controller, id: u8, wanted: &str) -> Result<(), Error> {
    if wanted.len() > 16 || wanted.contains('\0') {
        return Err(Error::Invalid("a user's name has 16 bytes at most".into()));
    }
    let mut data = vec![checked(id)?];
    data.extend(wanted.as_bytes());
    data.resize(17, 0);
    // Some refuse a name that is the account's already.
    match bmc.call(Request::new(NetFn::APP, SET_NAME, data)).await {
        Err(Error::Refused { .. }) if name(bmc, id).await.is_ok_and(|name| name == wanted) => {}
        outcome => {
            outcome?;
            let reads = name(bmc, id).await?;
            if reads != wanted {
                return Err(Error::NotKept { what: "the user's name", reads });
            }
        }
    }
    Ok(())
}

/// Set User Password's operations (table 22-37).
const DISABLE: u8 = 0;
const ENABLE: u8 = 1;
const SET: u8 = 2;
const TEST: u8 = 3;

fn password_request(id: u8, operation: u8, password: &Password, twenty: bool) -> Request {
    let mut data = vec![id | u8::from(twenty) << 7, operation];
    if twenty {
        data.extend(password.twenty());
    } else {
        data.extend(password.sixteen().expose_secret());
    }
    Request::new(NetFn::APP, SET_PASSWORD, data)
}

/// How many bytes of a password a BMC keeps: whether it is 20.
pub type Twenty = bool;

/// Gives an account a password. One of up to 16 bytes is stored as 16, which sessions of IPMI 1.5 and 2.0
/// both take; a longer one as 20, which only IPMI 2.0 takes.
pub async fn set_password(
    bmc: &impl Controller,
    id: u8,
    password: &Password,
) -> Result<Twenty, Error> {
    let twenty = password.is_beyond_sixteen();
    bmc.call(password_request(checked(id)?, SET, password, twenty)).await?;
    Ok(twenty)
}

/// Whether this is an account's password. It is tried at the length it has and, where the BMC says that it
/// keeps it at the other, at that.
pub async fn test_password(
    bmc: &impl Controller,
    id: u8,
    password: &Password,
) -> Result<bool, Error> {
    let id = checked(id)?;
    let twenty = password.is_beyond_sixteen();
    let mut response = bmc.ask(password_request(id, TEST, password, twenty)).await?;
    if response.completion.0 == 0x81 {
        response = bmc.ask(password_request(id, TEST, password, !twenty)).await?;
    }
    match response.completion.0 {
        0x00 => Ok(true),
        0x80 | 0x81 => Ok(false),
        _ => {
            let (netfn, command) = (NetFn::APP, SET_PASSWORD);
            Err(Error::Refused { netfn, command, completion: response.completion })
        }
    }
}

/// Lets an account log in, or not. Some firmware wants the bytes of a password here too, and ignores them.
pub async fn enable(bmc: &impl Controller, id: u8, enabled: bool) -> Result<(), Error> {
    let operation = if enabled { ENABLE } else { DISABLE };
    let short = Request::new(NetFn::APP, SET_PASSWORD, [checked(id)?, operation]);
    match bmc.call(short).await {
        Err(error) if error.completion().is_some_and(|code| matches!(code.0, 0xc6..=0xc8)) => {
            bmc.call(password_request(id, operation, &Password::default(), false)).await?;
        }
        outcome => {
            outcome?;
        }
    }
    Ok(())
}

/// Sets what an account may do on a channel, and reads it back.
pub async fn set_access(
    bmc: &impl Controller,
    channel: u8,
    id: u8,
    wanted: UserAccess,
) -> Result<(), Error> {
    let channel = channel & 0x0f;
    let bits = 0x80
        | u8::from(wanted.callback) << 6
        | u8::from(wanted.link) << 5
        | u8::from(wanted.messaging) << 4
        | channel;
    let data = [bits, checked(id)?, wanted.limit.number()];
    bmc.call(Request::new(NetFn::APP, SET_ACCESS, data)).await?;
    let reads = access(bmc, channel, id).await?.access;
    // Link authentication is of serial lines: many read 0, whatever was set.
    if (reads.callback, reads.messaging, reads.limit)
        != (wanted.callback, wanted.messaging, wanted.limit)
    {
        let messaging = if reads.messaging { "may log in" } else { "may not log in" };
        let reads = format!("{}, {messaging}", reads.limit.name());
        return Err(Error::NotKept { what: "the user's access", reads });
    }
    Ok(())
}

/// Lets an account use Serial over LAN on a channel, or not, and reads it back.
pub async fn set_sol(
    bmc: &impl Controller,
    channel: u8,
    id: u8,
    allowed: bool,
) -> Result<(), Error> {
    let operation = if allowed { 0 } else { 0x40 };
    let data = [channel & 0x0f, operation | checked(id)?, 0x02, 0, 0, 0];
    bmc.call(Request::new(NetFn::APP, SET_PAYLOADS, data)).await?;
    match sol(bmc, channel, id).await? {
        Some(reads) if reads != allowed => {
            let reads = if reads { "allowed" } else { "not allowed" };
            Err(Error::NotKept { what: "the right to Serial over LAN", reads: reads.into() })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::commands::script::{Script, ok, refuse};

    proptest! {
        #[test]
        fn any_bytes(data in prop::collection::vec(any::<u8>(), 0..8)) {
            prop_assert_eq!(Access::decode(&data).is_ok(), data.len() >= 4);
        }
    }

    fn ask(command: u8, data: impl Into<Vec<u8>>) -> Request {
        Request::new(NetFn::APP, command, data)
    }

    fn named(name: &str) -> Vec<u8> {
        let mut bytes = name.as_bytes().to_vec();
        bytes.resize(16, 0);
        bytes
    }

    #[tokio::test]
    async fn accounts_of_a_channel() {
        let bmc = Script::new([
            (ask(GET_ACCESS, [1, 1]), ok([3, 0x41, 1, 0x0f])),
            (ask(GET_NAME, [1]), refuse(0xcc)),
            (ask(GET_PAYLOADS, [1, 1]), ok([0x01, 0, 0, 0])),
            (ask(GET_ACCESS, [1, 2]), ok([3, 0x41, 1, 0x34])),
            (ask(GET_NAME, [2]), ok(named("root"))),
            (ask(GET_PAYLOADS, [1, 2]), ok([0x02, 0, 0, 0])),
            (ask(GET_ACCESS, [1, 3]), ok([3, 0x81, 1, 0x0f])),
            (ask(GET_NAME, [3]), ok(named(""))),
        ]);
        let users = list(&bmc, 1).await.unwrap();
        assert_eq!(users.len(), 2);
        assert_eq!((users[0].sol, users[0].access.limit), (Some(false), Limit::NoAccess));
        assert_eq!((users[1].name.as_str(), users[1].sol), ("root", Some(true)));
        assert!(users[1].access.link && users[1].access.messaging);
        bmc.finish();
    }

    #[tokio::test]
    async fn passwords_of_both_lengths() {
        let short = Password::new("0123456789abcdef").unwrap();
        let long = Password::new("0123456789abcdefghij").unwrap();
        let request = |id: u8, operation: u8, password: &str, length: usize| {
            let mut data = vec![id, operation];
            data.extend(password.as_bytes());
            data.resize(2 + length, 0);
            ask(SET_PASSWORD, data)
        };
        let (sixteen, twenty) = ("0123456789abcdef", "0123456789abcdefghij");
        let bmc = Script::new([
            (request(2, 2, sixteen, 16), ok([])),
            (request(0x82, 2, twenty, 20), ok([])),
            (request(2, 3, sixteen, 16), refuse(0x81)),
            (request(0x82, 3, sixteen, 20), ok([])),
            (request(0x82, 3, twenty, 20), refuse(0x80)),
            (request(2, 3, sixteen, 16), refuse(0xc1)),
        ]);
        assert_eq!(set_password(&bmc, 2, &short).await, Ok(false));
        assert_eq!(set_password(&bmc, 2, &long).await, Ok(true));
        assert_eq!(test_password(&bmc, 2, &short).await, Ok(true));
        assert_eq!(test_password(&bmc, 2, &long).await, Ok(false));
        assert!(test_password(&bmc, 2, &short).await.is_err());
        bmc.finish();
    }

    #[tokio::test]
    async fn enabling_where_a_password_is_wanted_too() {
        let mut padded = vec![4, 0];
        padded.resize(18, 0);
        let bmc = Script::new([
            (ask(SET_PASSWORD, [4, 1]), ok([])),
            (ask(SET_PASSWORD, [4, 0]), refuse(0xc7)),
            (ask(SET_PASSWORD, padded), ok([])),
        ]);
        enable(&bmc, 4, true).await.unwrap();
        enable(&bmc, 4, false).await.unwrap();
        assert!(enable(&bmc, 0, true).await.is_err() && enable(&bmc, 64, true).await.is_err());
        bmc.finish();
    }

    #[tokio::test]
    async fn a_name_and_access_are_read_back() {
        let mut set = vec![3];
        set.extend(named("koboshi"));
        let bmc = Script::new([
            (ask(SET_NAME, set.clone()), refuse(0xcc)),
            (ask(GET_NAME, [3]), ok(named("koboshi"))),
            (ask(SET_NAME, set), ok([])),
            (ask(GET_NAME, [3]), ok(named("kobosh"))),
            (ask(SET_ACCESS, [0x91, 3, 4]), ok([])),
            (ask(GET_ACCESS, [1, 3]), ok([10, 0x42, 1, 0x13])),
            (ask(SET_PAYLOADS, [1, 0x43, 2, 0, 0, 0]), ok([])),
            (ask(GET_PAYLOADS, [1, 3]), ok([0x02, 0, 0, 0])),
        ]);
        set_name(&bmc, 3, "koboshi").await.unwrap();
        assert!(set_name(&bmc, 3, "koboshi").await.is_err());
        let wanted =
            UserAccess { callback: false, link: false, messaging: true, limit: Limit::Admin };
        let error = set_access(&bmc, 1, 3, wanted).await.unwrap_err();
        assert!(error.to_string().contains("operator, may log in"), "{error}");
        assert!(set_sol(&bmc, 1, 3, false).await.is_err());
        bmc.finish();
        let nothing_is_asked = Script::new([]);
        assert!(set_name(&nothing_is_asked, 3, "a name of seventeen").await.is_err());
    }
}
