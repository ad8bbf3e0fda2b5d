//! Whose Serial over LAN is.
//!
//! IPMI 2.0 §24.5 (Get Payload Instance Info), §22.20 (Get Session Info), §22.29 (Get User Name).

use super::payload;
use crate::commands::{sessions, user};
use crate::controller::Controller;
use crate::crypto::Suite;
use crate::error::Error;
use crate::message::{NetFn, Request};

/// Get Session Info, by the session's id.
const BY_ID: u8 = 0xff;

/// A controller by a session that can carry payloads.
pub trait Bearer: Controller {
    /// The BMC's id of the session that is open now.
    fn session(&self) -> Option<u32>;
    /// Its cipher suite.
    fn suite(&self) -> Option<Suite>;
    /// Sessions of ours that this process knows to be without anybody: those of a run before.
    fn orphans(&self) -> Vec<u32>;
}

/// Whose it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// The present session's.
    Us,
    /// A session's that we had before.
    Orphan(u32),
    /// Somebody else's.
    Other(u32),
    /// Nobody's.
    Nobody,
    /// The BMC does not tell.
    Unknown,
}

/// Asks whose an instance is. Firmware that does not know the question is no error.
pub async fn ask(bmc: &impl Bearer, instance: u8) -> Result<Owner, Error> {
    let id = match bmc.call(payload::instance_request(instance)).await {
        Ok(data) => match payload::decode_owner(&data) {
            Ok(Some(id)) => id,
            Ok(None) => return Ok(Owner::Nobody),
            Err(_) => return Ok(Owner::Unknown),
        },
        Err(Error::Refused { .. }) => return Ok(Owner::Unknown),
        Err(error) => return Err(error),
    };
    // Some firmware stores it in the other byte order.
    let is = |known: u32| known == id || known.swap_bytes() == id;
    Ok(if bmc.session().is_some_and(is) {
        Owner::Us
    } else if let Some(orphan) = bmc.orphans().into_iter().find(|orphan| is(*orphan)) {
        Owner::Orphan(orphan)
    } else {
        Owner::Other(id)
    })
}

/// Account and address behind a session, as far as the BMC tells: `root from 10.0.0.9`.
pub async fn name(bmc: &impl Controller, session: u32) -> Option<String> {
    let [a, b, c, d] = session.to_le_bytes();
    let request = Request::new(NetFn::APP, sessions::SESSION, [BY_ID, a, b, c, d]);
    let data = bmc.call(request).await.ok()?;
    let (_, _, info) = sessions::Session::decode(&data).ok()?;
    let info = info?;
    let account = match user::name(bmc, info.user).await {
        Ok(name) if !name.is_empty() => name,
        _ => format!("user {}", info.user),
    };
    Some(match info.from {
        Some(address) => format!("{account} from {address}"),
        None => account,
    })
}
