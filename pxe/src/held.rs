//! A seat that another machine holds, as it is told to whoever waits for it, on its console, in
//! `status` and in events: who holds it, what is known of that machine, what ends the waiting.

use std::net::Ipv4Addr;
use std::time::Duration;

use serde::Serialize;

use crate::decide::Exclusive;

/// A seat that another machine holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Held {
    /// The seat that is wanted.
    pub seat: String,
    /// The machine that keeps it.
    pub by: String,
    /// The seat that one sits in: the same, or one that had the same address before.
    pub sits_in: String,
    /// The address it has there.
    pub address: Ipv4Addr,
    /// How long.
    pub since: Duration,
    /// How long ago it last spoke, if ever.
    pub heard: Option<Duration>,
    /// How it holds it.
    pub how: How,
    /// What proves that it does not any more.
    pub exclusive: Exclusive,
}

/// How a seat is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum How {
    /// A plan was frozen for it; the machine has not spoken since.
    Promised,
    /// The machine reported from the seat.
    Holding,
    /// Its last report was that it shuts down.
    Down,
}

impl Held {
    /// Who waits for what, in one line that stays true while it waits.
    pub fn says(&self) -> String {
        let Held { seat, by, sits_in, address, .. } = self;
        match seat == sits_in {
            true => format!("waits for {seat}, which {by} holds"),
            false => format!("waits for {seat}: {by} has its address {address}, by {sits_in}"),
        }
    }

    /// Since when, and when last heard of.
    pub fn evidence(&self) -> String {
        let since = ago(self.since);
        match (self.how, self.heard.map(ago)) {
            (How::Promised, _) | (_, None) => {
                format!("it was given to {} {since} ago, which has not reported since", self.by)
            }
            (How::Holding, Some(heard)) => {
                format!("{} has it for {since} and last reported {heard} ago", self.by)
            }
            (How::Down, Some(heard)) => format!(
                "{} said {heard} ago that it shuts down, which does not prove that it stays off",
                self.by
            ),
        }
    }

    /// What ends the waiting.
    pub fn ends(&self) -> String {
        let Held { by, address, .. } = self;
        let probe = match self.exclusive {
            Exclusive::Fence => String::new(),
            Exclusive::Probe => format!(" or answers ARP no more at {address}"),
        };
        format!(
            "until {by} netboots afresh{probe}; if it is dead: make sure that it is off, then `koboshi fence {by} --by-hand`"
        )
    }
}

/// `40 s`, `12 min`, `3 h`, `2 d`.
fn ago(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..=119 => format!("{seconds} s"),
        seconds @ 120..=7199 => format!("{} min", seconds / 60),
        seconds @ 7200..=172_799 => format!("{} h", seconds / 3600),
        seconds => format!("{} d", seconds / 86_400),
    }
}
