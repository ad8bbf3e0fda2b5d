//! What was found, said so that the operator can do something about it.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use super::{Finding, Rule, Severity};
use crate::Digest;

/// What was found in a version of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// `web@3`.
    pub image: String,
    /// Of its manifest.
    pub digest: Digest,
    /// Secrets first, then by path; what is allowed is among them.
    pub findings: Vec<Finding>,
}

impl Report {
    /// Whether it must not be published.
    pub fn stops(&self) -> bool {
        self.findings.iter().any(Finding::stops)
    }

    /// Everything nobody answers for, of this severity.
    pub fn open(&self, severity: Severity) -> impl Iterator<Item = &Finding> {
        let open = move |f: &&Finding| f.rule.severity == severity && f.allowed.is_none();
        self.findings.iter().filter(open)
    }

    /// Findings by rule, with why they matter and what to do: a paragraph for each rule.
    pub fn told<'a>(&'a self, findings: impl Iterator<Item = &'a Finding>) -> String {
        let name = self.image.split('@').next().unwrap_or(&self.image);
        told(Some(name), findings)
    }
}

/// Paths told of one rule; a report for programs has them all.
const PATHS: usize = 20;

/// Findings by rule. `name`: of the image they are in, to say how they are allowed.
pub(super) fn told<'a>(name: Option<&str>, findings: impl Iterator<Item = &'a Finding>) -> String {
    let mut rules: Vec<(&'static Rule, Vec<&Finding>)> = Vec::new();
    let mut at: BTreeMap<&str, usize> = BTreeMap::new();
    for finding in findings {
        let slot = *at.entry(finding.rule.id).or_insert_with(|| {
            rules.push((finding.rule, Vec::new()));
            rules.len() - 1
        });
        if let Some((_, all)) = rules.get_mut(slot) {
            all.push(finding);
        }
    }
    let mut text = String::new();
    for (rule, all) in rules {
        text.push_str(&format!("\n  {} ({}): {}\n", rule.id, rule.severity, rule.why));
        for finding in all.iter().take(PATHS) {
            text.push_str(&format!("    {finding}\n"));
        }
        if all.len() > PATHS {
            text.push_str(&format!("    … and {} more (--json tells all)\n", all.len() - PATHS));
        }
        text.push_str(&format!("    → {}\n", rule.todo));
        if let (Some(name), Some(first)) = (name, all.first()) {
            text.push_str(&format!(
                "      or, if it is meant: koboshi image allow {name} {} {} --reason '…'\n",
                rule.id,
                shell(&first.path)
            ));
        }
    }
    text
}

/// A path as a word of a shell.
fn shell(path: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@%,=".contains(c);
    if path.chars().all(plain) {
        path.to_owned()
    } else {
        format!("'{}'", path.replace('\'', r"'\''"))
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path)?;
        match (self.line, self.byte) {
            (Some(line), _) => write!(f, ":{line}")?,
            (None, Some(byte)) => write!(f, " at byte {byte}")?,
            (None, None) => {}
        }
        write!(f, "  {}", self.rule.what)?;
        if let Some(note) = &self.note {
            write!(f, " ({note})")?;
        }
        if self.count > 1 {
            write!(f, ", {} of them", self.count)?;
        }
        if self.hidden {
            write!(
                f,
                "; a later layer takes it away, but machines fetch layer {} too: build it without",
                self.layer
            )?;
        }
        if let Some(allowed) = &self.allowed {
            let who = allowed.who.as_deref().unwrap_or("somebody");
            write!(f, "; allowed by {who} in @{}: {}", allowed.version, allowed.why)?;
        }
        Ok(())
    }
}

/// As a publish says it that this stops.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.findings.iter().filter(|f| f.stops()).count();
        let what = if count == 1 { "a secret" } else { "secrets" };
        writeln!(
            f,
            "{} is not published: {what} in it, and whoever reaches the provisioning network reads \
             images",
            self.image
        )?;
        let text = self.told(self.findings.iter().filter(|f| f.stops()));
        f.write_str(text.trim_end())
    }
}
