//! Tables of parameters behind a Get and a Set command (boot options, LAN, Serial over LAN, system
//! information), and how to change them so that nobody reads a half: "set in progress" (parameter 0 of
//! each), then the parameters, then "commit", then "complete".
//!
//! IPMI 2.0 §22.14, §23.1–23.2, §26.2–26.3, §28.12–28.13. Firmware differs in what it takes of this:
//! parameter 0 is missing (0x80), or another console died and left "in progress" behind (0x81), or "commit"
//! is refused. None of it keeps the parameters themselves from being set.

use std::time::Duration;

use super::busy;
use crate::controller::Controller;
use crate::error::Error;
use crate::message::{Completion, NetFn, Request};
use crate::wire::Malformed;

/// No such parameter, in every table.
pub const UNSUPPORTED: Completion = Completion(0x80);
/// Somebody else has set "in progress".
pub const IN_PROGRESS: Completion = Completion(0x81);
/// The parameter cannot be changed.
pub const READ_ONLY: Completion = Completion(0x82);
/// Parameter 0 of every table.
pub const SET_IN_PROGRESS: u8 = 0;

const COMPLETE: u8 = 0;
const BEGUN: u8 = 1;
const COMMIT: u8 = 2;

/// How often another console's "in progress" is waited for before it counts as an orphan.
const WAITS: usize = 3;

/// A parameter to be set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// Its number.
    pub parameter: u8,
    /// Its datum.
    pub data: Vec<u8>,
    /// Whether the change fails if the BMC does not take it.
    pub must: bool,
}

impl Setting {
    /// One that has to be taken.
    pub fn must(parameter: u8, data: impl Into<Vec<u8>>) -> Setting {
        Setting { parameter, data: data.into(), must: true }
    }

    /// One that helps where it is taken.
    pub fn may(parameter: u8, data: impl Into<Vec<u8>>) -> Setting {
        Setting { parameter, data: data.into(), must: false }
    }
}

/// One table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Table {
    netfn: NetFn,
    get: u8,
    set: u8,
    /// What stands before the parameter's number: a channel; in system information a reserved byte, in Get
    /// alone.
    before: Before,
    /// Bytes of an answer before the datum.
    head: usize,
    patience: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Before {
    Nothing,
    Channel(u8),
    ReservedInGet,
}

impl Table {
    /// System boot options (§28.12–28.13).
    pub fn boot() -> Table {
        Table::new(NetFn::CHASSIS, 0x09, 0x08, Before::Nothing, 2)
    }

    /// LAN settings of a channel (§23.1–23.2).
    pub fn lan(channel: u8) -> Table {
        Table::new(NetFn::TRANSPORT, 0x02, 0x01, Before::Channel(channel & 0x0f), 1)
    }

    /// Settings of Serial over LAN on a channel (§26.2–26.3).
    pub fn sol(channel: u8) -> Table {
        Table::new(NetFn::TRANSPORT, 0x22, 0x21, Before::Channel(channel & 0x0f), 1)
    }

    /// System information (§22.14).
    pub fn system() -> Table {
        Table::new(NetFn::APP, 0x59, 0x58, Before::ReservedInGet, 1)
    }

    fn new(netfn: NetFn, get: u8, set: u8, before: Before, head: usize) -> Table {
        Table { netfn, get, set, before, head, patience: Duration::from_millis(500) }
    }

    /// How long to wait between tries where somebody else has set "in progress".
    #[must_use]
    pub fn patience(self, patience: Duration) -> Table {
        Table { patience, ..self }
    }

    /// Asks for a parameter; sets and blocks of it count from 0 where it has any.
    pub fn get_request(&self, parameter: u8, set: u8, block: u8) -> Request {
        let data = match self.before {
            Before::Nothing => vec![parameter, set, block],
            Before::Channel(channel) => vec![channel, parameter, set, block],
            Before::ReservedInGet => vec![0, parameter, set, block],
        };
        Request::new(self.netfn, self.get, data)
    }

    /// Sets a parameter.
    pub fn set_request(&self, parameter: u8, data: &[u8]) -> Request {
        let mut out = match self.before {
            Before::Channel(channel) => vec![channel, parameter],
            Before::Nothing | Before::ReservedInGet => vec![parameter],
        };
        out.extend_from_slice(data);
        Request::new(self.netfn, self.set, out)
    }

    /// Reads a parameter, without revision and number before it.
    pub async fn read(
        &self,
        bmc: &impl Controller,
        parameter: u8,
        set: u8,
        block: u8,
    ) -> Result<Vec<u8>, Error> {
        let mut data = busy::call(bmc, &self.get_request(parameter, set, block)).await?;
        if data.len() < self.head {
            return Err(Malformed("a parameter that is cut").into());
        }
        data.drain(..self.head);
        Ok(data)
    }

    /// Reads a parameter that a BMC may not have. Firmware says so in several ways, and with a datum of no
    /// bytes too.
    pub async fn read_if_known(
        &self,
        bmc: &impl Controller,
        parameter: u8,
        set: u8,
        block: u8,
    ) -> Result<Option<Vec<u8>>, Error> {
        match self.read(bmc, parameter, set, block).await {
            Ok(data) if data.is_empty() => Ok(None),
            Ok(data) => Ok(Some(data)),
            Err(error) => match error.completion() {
                Some(
                    UNSUPPORTED
                    | Completion::INVALID_COMMAND
                    | Completion::INVALID_FIELD
                    | Completion::OUT_OF_RANGE
                    | Completion::NOT_PRESENT
                    | Completion::ILLEGAL
                    | Completion::CANNOT_RESPOND
                    | Completion::LENGTH_INVALID
                    | Completion::UNSPECIFIED,
                ) => Ok(None),
                _ => Err(error),
            },
        }
    }

    /// Sets parameters in this order, as one change where the BMC knows how. The first that must be taken
    /// and is refused ends it; "complete" is written all the same.
    pub async fn change(&self, bmc: &impl Controller, settings: &[Setting]) -> Result<(), Error> {
        let guarded = self.begin(bmc).await?;
        let mut outcome = Ok(());
        for setting in settings {
            let request = self.set_request(setting.parameter, &setting.data);
            outcome = busy::call(bmc, &request).await.map(drop);
            match &outcome {
                Err(Error::Refused { .. }) if !setting.must => outcome = Ok(()),
                Err(_) => break,
                Ok(()) => {}
            }
        }
        match outcome {
            Ok(()) if guarded => {
                // Most take no roll-back and refuse "commit": then the parameters hold already.
                bmc.ask(self.set_request(SET_IN_PROGRESS, &[COMMIT])).await?;
                bmc.ask(self.set_request(SET_IN_PROGRESS, &[COMPLETE])).await?;
                Ok(())
            }
            Err(Error::Refused { .. }) if guarded => {
                bmc.ask(self.set_request(SET_IN_PROGRESS, &[COMPLETE])).await?;
                outcome
            }
            _ => outcome,
        }
    }

    /// Whether "in progress" is ours; `false` where the BMC has no such thing.
    async fn begin(&self, bmc: &impl Controller) -> Result<bool, Error> {
        for wait in 0..=WAITS {
            let request = self.set_request(SET_IN_PROGRESS, &[BEGUN]);
            let response = busy::ask(bmc, &request).await?;
            match response.completion {
                Completion::OK => return Ok(true),
                IN_PROGRESS if wait < WAITS => tokio::time::sleep(self.patience).await,
                // Its owner is dead: nobody holds it for seconds.
                IN_PROGRESS => {
                    bmc.ask(self.set_request(SET_IN_PROGRESS, &[COMPLETE])).await?;
                }
                Completion::PRIVILEGE | Completion::INVALID_COMMAND => {
                    let (netfn, command) = (self.netfn, self.set);
                    return Err(Error::Refused { netfn, command, completion: response.completion });
                }
                _ => return Ok(false),
            }
        }
        let response = bmc.ask(self.set_request(SET_IN_PROGRESS, &[BEGUN])).await?;
        Ok(response.completion == Completion::OK)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::script::{Script, ok, refuse};

    fn progress(table: Table, state: u8) -> Request {
        table.set_request(SET_IN_PROGRESS, &[state])
    }

    #[tokio::test]
    async fn a_change_is_begun_committed_and_completed() {
        let table = Table::lan(1);
        let bmc = Script::new([
            (progress(table, 1), ok([])),
            (Request::new(NetFn::TRANSPORT, 1, [1, 4, 1]), ok([])),
            (progress(table, 2), refuse(0x80)),
            (progress(table, 0), ok([])),
        ]);
        table.change(&bmc, &[Setting::must(4, [1])]).await.unwrap();
        bmc.finish();
    }

    #[tokio::test]
    async fn a_refused_parameter_completes_and_is_told() {
        let table = Table::sol(1);
        let bmc = Script::new([
            (progress(table, 1), ok([])),
            (table.set_request(5, &[6]), refuse(0x82)),
            (progress(table, 0), ok([])),
        ]);
        let error =
            table.change(&bmc, &[Setting::must(5, [6]), Setting::must(6, [6])]).await.unwrap_err();
        assert_eq!(error.completion(), Some(READ_ONLY));
        bmc.finish();
    }

    #[tokio::test]
    async fn what_helps_may_be_refused() {
        let table = Table::boot();
        let bmc = Script::new([
            (progress(table, 1), ok([])),
            (table.set_request(3, &[0x1f]), refuse(0xcc)),
            (table.set_request(5, &[0x80]), ok([])),
            (progress(table, 2), ok([])),
            (progress(table, 0), ok([])),
        ]);
        table.change(&bmc, &[Setting::may(3, [0x1f]), Setting::must(5, [0x80])]).await.unwrap();
        bmc.finish();
    }

    #[tokio::test]
    async fn without_set_in_progress_the_parameters_are_set_all_the_same() {
        let table = Table::boot();
        let bmc = Script::new([
            (progress(table, 1), refuse(0x80)),
            (Request::new(NetFn::CHASSIS, 8, [3, 0x1f]), ok([])),
        ]);
        table.change(&bmc, &[Setting::must(3, [0x1f])]).await.unwrap();
        bmc.finish();
    }

    #[tokio::test]
    async fn an_orphans_progress_is_waited_for_and_then_ended() {
        let table = Table::lan(1).patience(Duration::ZERO);
        let bmc = Script::new([
            (progress(table, 1), refuse(0x81)),
            (progress(table, 1), refuse(0x81)),
            (progress(table, 1), refuse(0x81)),
            (progress(table, 1), refuse(0x81)),
            (progress(table, 0), ok([])),
            (progress(table, 1), ok([])),
            (table.set_request(4, &[1]), ok([])),
            (progress(table, 2), ok([])),
            (progress(table, 0), ok([])),
        ]);
        table.change(&bmc, &[Setting::must(4, [1])]).await.unwrap();
        bmc.finish();
    }

    #[tokio::test]
    async fn too_little_privilege_ends_it_at_once() {
        let bmc = Script::new([(progress(Table::lan(1), 1), refuse(0xd4))]);
        let error = Table::lan(1).change(&bmc, &[Setting::must(4, [1])]).await.unwrap_err();
        assert_eq!(error.completion(), Some(Completion::PRIVILEGE));
        bmc.finish();
    }

    #[tokio::test]
    async fn short_and_unknown_parameters() {
        let table = Table::boot();
        let bmc = Script::new([
            (Request::new(NetFn::CHASSIS, 9, [5, 0, 0]), ok([1])),
            (Request::new(NetFn::CHASSIS, 9, [5, 0, 0]), ok([1, 5])),
            (Request::new(NetFn::CHASSIS, 9, [7, 2, 1]), refuse(0x80)),
            (Request::new(NetFn::CHASSIS, 9, [5, 0, 0]), refuse(0xd4)),
        ]);
        assert!(matches!(table.read(&bmc, 5, 0, 0).await, Err(Error::Malformed(_))));
        assert_eq!(table.read_if_known(&bmc, 5, 0, 0).await, Ok(None));
        assert_eq!(table.read_if_known(&bmc, 7, 2, 1).await, Ok(None));
        assert!(table.read_if_known(&bmc, 5, 0, 0).await.is_err());
        bmc.finish();
    }
}
