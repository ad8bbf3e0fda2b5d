//! Lines of a boot's timeline, and how far they move it: never back.

use std::net::IpAddr;
use std::time::{Instant, SystemTime};

use super::{Desk, News};
use crate::Mac;
use crate::boots::{Boot, Stage};

impl Desk {
    /// Something about the machine at this address worth a line in its boot's timeline.
    pub fn remark(&self, peer: IpAddr, note: String) {
        if self.may_be_of_begun(peer, &note) {
            return;
        }
        if let Some(mac) = self.mac_at(peer) {
            self.note(mac, note);
        }
    }

    pub(super) fn took(&self, mac: Mac, note: String) {
        self.took_at(mac, note, SystemTime::now());
    }

    pub(super) fn took_at(&self, mac: Mac, note: String, at: SystemTime) {
        let waits = |boot: &Boot| boot.plan.is_none() && boot.stage == Stage::Waiting;
        // It asks every 10 to 20 seconds; that it still waits is no news.
        if !self.inner().boots.of(mac).is_some_and(waits) {
            self.advance_at(mac, Stage::Ack, note, at);
        }
    }

    /// Moves a boot on, never back, and tells.
    pub(super) fn advance(&self, mac: Mac, stage: Stage, note: String) {
        self.advance_at(mac, stage, note, SystemTime::now());
    }

    pub(super) fn advance_at(&self, mac: Mac, stage: Stage, note: String, at: SystemTime) {
        let id = {
            let mut inner = self.inner();
            let Some(boot) = inner.boots.of_mut(mac) else { return };
            // iPXE's own ACK comes after its loader: the boot is no less far for it. And a machine
            // that is up and fetches its kernel's blob again is no less up.
            let turn_came = boot.stage == Stage::Waiting && stage == Stage::Script;
            let further = stage > boot.stage || turn_came;
            boot.stage = if turn_came { stage } else { boot.stage.max(stage) };
            if further {
                boot.moved = Some(Instant::now());
            }
            let (id, reached) = (boot.id, boot.stage);
            // A new stage is told always, there are few; the rest within the boot's budget.
            if !further && (reached >= Stage::Init || !inner.spend(id)) {
                return;
            }
            id
        };
        self.tell(News::Mark { id, stage, note, at });
    }

    /// A line in the timeline that moves nothing.
    pub(super) fn note(&self, mac: Mac, note: String) {
        self.note_at(mac, note, SystemTime::now());
    }

    pub(super) fn note_at(&self, mac: Mac, note: String, at: SystemTime) {
        let (id, stage) = {
            let mut inner = self.inner();
            let Some(boot) = inner.boots.of(mac) else { return };
            let (id, stage) = (boot.id, boot.stage);
            if !inner.spend(id) {
                return;
            }
            (id, stage)
        };
        self.tell(News::Mark { id, stage, note, at });
    }
}
