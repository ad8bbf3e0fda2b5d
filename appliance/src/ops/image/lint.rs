//! `koboshi image lint` and `allow`: what an image holds that it should not, and who answers for it.

use std::path::Path;

use anyhow::{Context, bail};
use clap::Args;
use koboshi_images::{Allowance, Finding, ImageRef, Report, Severity, Store, rule, rules};
use serde::Serialize;

use super::progress::Line;
use super::{At, by, pretty, print};
use crate::ops::table::table;

/// `koboshi image lint`
#[derive(Debug, Args)]
pub struct Lint {
    /// `web` for the newest, `web@3` for that one; or a directory or archive by its path, with a `/`
    image: String,
    /// What is allowed too
    #[arg(long)]
    all: bool,
    /// For programs
    #[arg(long)]
    json: bool,
    /// Where the images are
    #[command(flatten)]
    at: At,
}

/// `koboshi image allow`
#[derive(Debug, Args)]
pub struct Allow {
    /// `web` for the newest, `web@3` for that one
    image: String,
    /// Rule that found it (`private-key`)
    #[arg(requires = "path")]
    rule: Option<String>,
    /// Where, as the finding has it
    path: Option<String>,
    /// Why it is meant to be there
    #[arg(long)]
    reason: Option<String>,
    /// Take it back
    #[arg(long, requires = "path")]
    revoke: bool,
    /// For programs
    #[arg(long)]
    json: bool,
    /// Where the images are
    #[command(flatten)]
    at: At,
}

/// A finding with what its rule says, for programs.
#[derive(Serialize)]
struct Row<'a> {
    #[serde(flatten)]
    finding: &'a Finding,
    severity: Severity,
    what: &'a str,
    why: &'a str,
    todo: &'a str,
}

#[derive(Serialize)]
struct Told<'a> {
    image: &'a str,
    stops: bool,
    findings: Vec<Row<'a>>,
}

impl Lint {
    /// Looks an image through, and fails where a publish would.
    pub(super) fn run(self) -> anyhow::Result<()> {
        if self.image.contains('/') {
            return lint_path(Path::new(&self.image), self.json);
        }
        let store = self.at.there()?;
        let mut line = Line::new();
        let report = store.lint(&self.image, &mut |step| line.show(&step))?;
        line.clear();
        tell(&report.image, &report.findings, self.json, || words(&report, self.all))?;
        refused(&report.image, &report.findings)
    }
}

/// The same for a directory or an archive that is no image yet.
fn lint_path(path: &Path, json: bool) -> anyhow::Result<()> {
    let name = path.display().to_string();
    let findings = koboshi_images::lint(path, &std::env::temp_dir())?;
    tell(&name, &findings, json, || {
        let lines = findings.iter().map(|f| format!("{} {}: {f}\n", f.rule.severity, f.rule.id));
        lines.chain(findings.is_empty().then(|| format!("{name}: nothing found\n"))).collect()
    })?;
    refused(&name, &findings)
}

fn tell(
    name: &str,
    findings: &[Finding],
    json: bool,
    words: impl FnOnce() -> String,
) -> anyhow::Result<()> {
    if !json {
        return print(&words());
    }
    let rows = findings.iter().map(|finding| {
        let rule = finding.rule;
        let (severity, what, why, todo) = (rule.severity, rule.what, rule.why, rule.todo);
        Row { finding, severity, what, why, todo }
    });
    let stops = findings.iter().any(Finding::stops);
    print(&pretty(&Told { image: name, stops, findings: rows.collect() })?)
}

fn words(report: &Report, all: bool) -> String {
    let allowed: Vec<&Finding> =
        report.findings.iter().filter(|finding| finding.allowed.is_some()).collect();
    let open = report.findings.iter().filter(|finding| finding.allowed.is_none());
    let mut text = report.told(open).trim_start_matches('\n').to_owned();
    if text.is_empty() {
        text = format!("{}: nothing found\n", report.image);
    }
    if all && !allowed.is_empty() {
        text.push_str("\n  allowed:\n");
        allowed.iter().for_each(|finding| text.push_str(&format!("    {finding}\n")));
    } else if !allowed.is_empty() {
        text.push_str(&format!("\n{} more are allowed (--all shows them)\n", allowed.len()));
    }
    text
}

fn refused(name: &str, findings: &[Finding]) -> anyhow::Result<()> {
    match findings.iter().filter(|finding| finding.stops()).count() {
        0 => Ok(()),
        1 => bail!("{name}: a secret in it would stop a publish"),
        count => bail!("{name}: secrets of {count} kinds or places would stop a publish"),
    }
}

/// Tells what is risky in a version that was just published.
pub(super) fn warn(store: &Store, image: &str) -> anyhow::Result<()> {
    let report = store.lint(image, &mut |_| ())?;
    let risks = report.told(report.open(Severity::Risk));
    if !risks.is_empty() {
        eprintln!("warning: {image} is published with what may be a risk:{}", risks.trim_end());
    }
    Ok(())
}

impl Allow {
    /// Allows something, or takes that back, or lists what is allowed.
    pub(super) fn run(self) -> anyhow::Result<()> {
        let store = self.at.there()?;
        let image = &self.image;
        let name = image.parse::<ImageRef>()?.name;
        store.show(image)?;
        let Some((id, path)) = self.rule.zip(self.path) else {
            let all = store.allowances(&name)?;
            return print(&if self.json { pretty(&all)? } else { list(&name, &all) });
        };
        if rule(&id).is_none() {
            let known: Vec<&str> = rules().iter().map(|rule| rule.id).collect();
            bail!("no rule `{id}`; there are {}", known.join(", "));
        }
        if self.revoke {
            return match store.disallow(&name, &id, &path, &by(self.reason))? {
                0 => bail!("{name}: {id} is not allowed at {path}"),
                _ => print(&format!("{name}: {id} is no longer allowed at {path}\n")),
            };
        }
        let reason = self.reason.filter(|reason| !reason.trim().is_empty());
        let reason = reason.context("say why with --reason: it is kept with the image")?;
        match store.allow(image, &id, &path, &by(Some(reason)))? {
            Some(allowed) => print(&format!(
                "{name}: {id} at {} is allowed as it is in @{}; if it changes, it is found again\n",
                allowed.path, allowed.version
            )),
            None => bail!(
                "{image} has no {id} at {path}; `koboshi image lint {image}` shows what it has, and where"
            ),
        }
    }
}

fn list(name: &str, all: &[Allowance]) -> String {
    if all.is_empty() {
        return format!("{name}: nothing is allowed\n");
    }
    let row = |one: &Allowance| {
        vec![
            one.rule.clone(),
            one.path.clone(),
            one.who.clone().unwrap_or_default(),
            one.when.strftime("%Y-%m-%d %H:%M").to_string(),
            format!("@{}", one.version),
            one.why.clone(),
        ]
    };
    let rows: Vec<Vec<String>> = all.iter().map(row).collect();
    table(&["RULE", "PATH", "WHO", "WHEN", "SINCE", "WHY"], &rows)
}
