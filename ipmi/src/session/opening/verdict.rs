//! What a BMC's refusals mean, and its silence.
//!
//! IPMI 2.0 table 13-15. The same status stands for several causes, and firmware confuses them: what may be
//! the cipher suite is tried with the next one, what may be the look-up or the privilege with another, before
//! anything is concluded.

use std::time::Instant;

use super::{Io, Opening, Outcome, Step};
use crate::crypto::Suite;
use crate::error::Error;
use crate::quirks::Quirk;
use crate::session::Cipher;
use crate::wire::rakp::Status;

impl Opening {
    /// What a refusal means, at whatever stage.
    pub(super) fn refused(&mut self, suite: Suite, status: Status, io: &mut Io<'_>) -> Outcome {
        let user = || self.access.user.clone();
        match status {
            Status::AUTHENTICATION
            | Status::INTEGRITY
            | Status::CONFIDENTIALITY
            | Status::NO_SUITE
            | Status(0x06 | 0x07)
            | Status::NO_RESOURCES
            | Status::ILLEGAL => self.next_suite(suite, status, io),
            Status::NO_RESOURCES_FOR_ROLE => Outcome::Fail(Error::NoFreeSession),
            Status::ROLE | Status::UNAUTHORIZED_ROLE => match self.privilege.less() {
                Some(less) => {
                    self.privilege = less;
                    self.again(io);
                    Outcome::Wait
                }
                None => Outcome::Fail(Error::Privilege { user: user() }),
            },
            Status::UNAUTHORIZED_NAME | Status::NAME_LENGTH if !self.looked_up => {
                self.looked_up = true;
                match self.quirks.has(Quirk::NoNameOnly) {
                    true => return Outcome::Fail(Error::UserRefused { user: user() }),
                    false => self.quirks = self.quirks.with(Quirk::NoNameOnly),
                }
                self.again(io);
                Outcome::Wait
            }
            Status::UNAUTHORIZED_NAME | Status::NAME_LENGTH => {
                Outcome::Fail(Error::UserRefused { user: user() })
            }
            Status::INTEGRITY_CHECK => Outcome::Fail(Error::WrongPassword { user: user() }),
            Status::INVALID_SESSION | Status(0x08) => {
                // It forgot the session that it opened a moment ago.
                self.deadline = io.now + self.access.patience.wait(self.restarts);
                self.stay(Step::Pause)
            }
            status => Outcome::Fail(Error::SessionRefused(status)),
        }
    }

    fn next_suite(&mut self, suite: Suite, status: Status, io: &mut Io<'_>) -> Outcome {
        self.refused.push((suite.id, status));
        self.suites.retain(|left| left.id != suite.id);
        self.at = 0;
        if !self.suites.is_empty() {
            self.again(io);
            return Outcome::Wait;
        }
        if self.refused.iter().any(|(_, status)| *status == Status::NO_RESOURCES) {
            return Outcome::Fail(Error::NoFreeSession);
        }
        if let (Cipher::Auto, Some(pinned)) = (self.access.cipher, self.learned.suite) {
            return Outcome::Fail(Error::Downgrade(format!(
                "it took cipher suite {pinned} before, and refuses it now"
            )));
        }
        let tried = self.refused.iter().map(|(id, _)| *id).collect();
        Outcome::Fail(Error::SuiteRefused { tried })
    }

    /// Why nothing came of it in all that time.
    pub(super) fn verdict(&self, now: Instant) -> Error {
        let waited = now.saturating_duration_since(self.started);
        if let Some(what) = self.heard.silent_at {
            return Error::Silent { what };
        }
        if self.presence.v15_only().is_some() {
            return match (self.access.cipher, self.learned.suite) {
                (Cipher::Auto, Some(pinned)) => Error::Downgrade(format!(
                    "it took cipher suite {pinned} before, and says now that it knows IPMI 1.5 alone"
                )),
                _ => Error::Unsupported("IPMI 2.0: it says that it knows 1.5 alone"),
            };
        }
        if self.presence.has_heard() {
            return Error::Silent { what: "an Open Session Request" };
        }
        if let Some(why) = self.heard.not_ipmi {
            return Error::NotABmc(why.to_string());
        }
        match &self.heard.unreachable {
            Some(why) => Error::Network(why.clone()),
            None => Error::Unreachable { waited },
        }
    }
}
