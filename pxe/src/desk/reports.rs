//! A machine reports: from where it may, as often as it may, and what that says of its boot.

use std::net::IpAddr;
use std::time::{Instant, SystemTime};

use bytes::Bytes;
use tokio::sync::oneshot;

use super::{Desk, Inner, News, ReportRefusal};
use crate::boots::Stage;
use crate::content::BootId;
use crate::hostile::Harm;
use crate::seats::Holder;

/// Reports a machine may make at once, and how many more each second after that.
const REPORT_BURST: f64 = 30.0;
const REPORT_RATE: f64 = 5.0;

impl Desk {
    /// Takes a report, if it comes from where the boot's address says. The receiver hears once all that it says is
    /// written down; an error there: it is heard, and nobody may count on that.
    pub fn report(
        &self,
        id: BootId,
        peer: IpAddr,
        body: Bytes,
    ) -> Result<oneshot::Receiver<()>, ReportRefusal> {
        let (mac, address, holder) = {
            let mut inner = self.inner();
            let Some(boot) = inner.boots.get(id) else {
                self.stray(&mut inner, id, peer);
                return Err(ReportRefusal::NoSuchBoot);
            };
            let (mac, address) = (boot.mac, boot.address);
            if !boot.speaks_as(peer) {
                self.not_its_own(peer);
                return Err(ReportRefusal::WrongAddress);
            }
            if !inner.spend(id) {
                return Err(ReportRefusal::TooOften);
            }
            let now = Instant::now();
            if let Some(boot) = inner.boots.of_mut(mac) {
                boot.heard = Some(now);
            }
            // It has its seat's address by now: what its loader was lent is anybody's.
            if peer.to_canonical() == IpAddr::V4(address) {
                inner.boots.has_left_what_it_was_lent(mac);
            }
            self.runs_on(&mut inner, mac, now);
            (mac, address, self.sits(&mut inner, id))
        };
        let forged = std::mem::take(&mut self.inner().forged);
        for (mac, text) in forged {
            self.heard(Some(mac), Harm::Forged.as_str(), text);
        }
        if let Some(Holder { seat, machine, .. }) = holder {
            let text = format!(
                "reports from {seat}, which {machine} holds: two machines may answer at {address}"
            );
            self.heard(Some(mac), "conflict", text);
        }
        let (kept, written) = oneshot::channel();
        match self.tell(News::Report { id, mac, address, body, at: SystemTime::now(), kept }) {
            true => Ok(written),
            false => Err(ReportRefusal::Busy),
        }
    }

    /// The appliance read a report and says how far the boot is. False if it is over.
    pub fn reached(&self, id: BootId, stage: Stage) -> bool {
        let mut inner = self.inner();
        let Some(mac) = inner.boots.get(id).map(|boot| boot.mac) else { return false };
        let mut fetched = None;
        if let Some(boot) = inner.boots.of_mut(mac) {
            if stage == Stage::RootReady && boot.stage < stage {
                fetched = boot.let_in.map(|let_in| (boot.bytes(), let_in));
            }
            boot.stage = stage;
        }
        if let Some((bytes, let_in)) = fetched {
            inner.rate.fetched(bytes, let_in, Instant::now());
            inner.queue.has_fetched();
        }
        inner.says_down(id, stage == Stage::Down);
        if stage >= Stage::Init {
            inner.ticket_taken(id);
        }
        true
    }
}

impl Inner {
    /// Takes one of what a boot may tell: a burst, and then so many a second.
    pub(super) fn spend(&mut self, id: BootId) -> bool {
        let now = Instant::now();
        let (budget, last) = self.budgets.entry(id).or_insert((REPORT_BURST, now));
        let earned = now.saturating_duration_since(*last).as_secs_f64() * REPORT_RATE;
        *budget = (*budget + earned).min(REPORT_BURST);
        *last = now;
        let enough = *budget >= 1.0;
        if enough {
            *budget -= 1.0;
        }
        enough
    }
}
