//! What changed on a machine, for people and for programs.

use std::collections::BTreeMap;

use koboshi_images::{Diff, Live, Report, Severity, Version};
use koboshi_initramfs::changes::{Header, Manner};
use serde::Serialize;

use super::who::Who;
use crate::ops::image::diff::{Paint, changes, sum};
use crate::ops::image::progress::Line;

/// For programs.
#[derive(Serialize)]
pub(super) struct Told<'a> {
    pub(super) machine: &'a str,
    pub(super) image: String,
    /// `ram` or `overlay`.
    pub(super) root: Manner,
    pub(super) via: &'a str,
    pub(super) left_out: &'a BTreeMap<&'static str, u64>,
    pub(super) unread: u64,
    /// A newer version, and what of the changes is in it already.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) held: Option<&'a Held>,
    #[serde(flatten)]
    pub(super) diff: &'a Diff,
}

/// For programs.
#[derive(Serialize)]
pub(super) struct Committed<'a> {
    pub(super) machine: &'a str,
    /// What it became.
    pub(super) image: String,
    pub(super) version: &'a Version,
    /// What it lies above.
    pub(super) onto: String,
    /// False: there was the very same already.
    pub(super) new: bool,
    pub(super) published: bool,
    pub(super) findings: &'a Report,
}

/// A newer version, and what of a machine's changes is in it already.
#[derive(Serialize)]
pub(super) struct Held {
    pub(super) image: String,
    pub(super) paths: Vec<String>,
}

/// What was asked.
pub(super) struct Found<'s> {
    pub(super) live: Live<'s>,
    pub(super) header: Header,
    pub(super) via: &'static str,
}

impl Found<'_> {
    /// What a newer version has of it: its changes may have been committed.
    pub(super) fn held(&self, who: &Who<'_>) -> anyhow::Result<Option<Held>> {
        let newest = who.store.show(&who.version.name)?;
        if newest.digest == who.version.digest || self.live.is_empty() {
            return Ok(None);
        }
        let mut line = Line::new();
        let paths = self.live.held_by(&newest, &mut |step| line.show(&step))?;
        line.clear();
        let held = Held { image: newest.to_string(), paths };
        Ok(Some(held).filter(|held| !held.paths.is_empty()))
    }

    pub(super) fn told<'a>(
        &'a self,
        who: &'a Who<'_>,
        diff: &'a Diff,
        held: Option<&'a Held>,
    ) -> Told<'a> {
        Told {
            machine: &who.machine,
            image: who.version.to_string(),
            root: self.header.root,
            via: self.via,
            left_out: self.live.left_out(),
            unread: self.live.unread(),
            held,
            diff,
        }
    }

    pub(super) fn shown(&self, who: &Who<'_>, diff: &Diff, paint: Paint) -> String {
        let how = match self.header.root {
            Manner::Ram => "root in memory",
            Manner::Overlay => "root under an overlay",
            Manner::Nfs => "root on a server",
        };
        let mut text = format!("{} since it booted {} ({how})\n", who.machine, who.version);
        changes(diff, paint, &mut text);
        match self.live.is_empty() {
            true => text.push_str("nothing has changed\n"),
            false => text.push_str(&sum(&diff.counts)),
        }
        let left_out = self.left_out();
        if !left_out.is_empty() {
            text.push_str(&format!("{}\n", left_out.trim_start_matches([';', ' '])));
        }
        if self.live.unread() > 0 {
            text.push_str(&format!("of {} names nothing could be read\n", self.live.unread()));
        }
        text
    }

    /// `; left out: 5 (logs 3, caches 2); --all shows them`, or nothing.
    pub(super) fn left_out(&self) -> String {
        let left_out = self.live.left_out();
        let all: u64 = left_out.values().sum();
        if all == 0 {
            return String::new();
        }
        let each = left_out.iter().map(|(why, many)| format!("{why} {many}")).collect::<Vec<_>>();
        format!("; left out: {all} ({}); --all shows them", each.join(", "))
    }
}

/// What was found in it that should be in no image, if anything was.
pub(super) fn found(report: &Report) -> String {
    let severities = [Severity::Secret, Severity::Risk];
    severities.into_iter().map(|severity| report.told(report.open(severity))).collect()
}
