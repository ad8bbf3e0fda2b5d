//! `koboshi image diff`: in what two versions differ, for people and for programs.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::IsTerminal;

use anyhow::bail;
use clap::{Args, ValueEnum};
use koboshi_images::{Aspect, Change, Counts, Diff, Facts, ImageRef, NoText, Store, Version, What};
use serde::Serialize;

use super::machine::{self, Asks};
use super::progress::Line;
use super::{At, pretty, print};

/// `koboshi image diff`
#[derive(Debug, Args)]
pub struct Asked {
    /// Version: `web@3`; `web` alone for what machines boot now
    #[arg(required_unless_present = "machine", conflicts_with = "machine")]
    old: Option<String>,
    /// Another one: `web@4`; without it, the first one against what machines booted before it
    new: Option<String>,
    /// What changed on this machine, or the one in this seat, since it booted
    #[arg(long, value_name = "WHO", conflicts_with = "stat")]
    machine: Option<String>,
    #[command(flatten)]
    asks: Asks,
    /// Directories with figures, not each name
    #[arg(long, conflicts_with = "json")]
    stat: bool,
    /// For programs
    #[arg(long)]
    json: bool,
    /// Whether words are coloured
    #[arg(long, value_enum, default_value = "auto", value_name = "WHEN")]
    color: Colour,
    /// Where the images are
    #[command(flatten)]
    at: At,
}

/// When output is coloured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Colour {
    /// On a terminal, unless NO_COLOR is set
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

impl Colour {
    pub(super) fn is_on(self) -> bool {
        match self {
            Colour::Always => true,
            Colour::Never => false,
            // https://no-color.org: any value that is not empty.
            Colour::Auto => {
                let unwanted = std::env::var_os("NO_COLOR").is_some_and(|no| !no.is_empty());
                !unwanted && std::io::stdout().is_terminal()
            }
        }
    }
}

/// What programs read.
#[derive(Serialize)]
struct Answer<'a> {
    old: &'a str,
    new: &'a str,
    kernel_before: &'a str,
    kernel_after: &'a str,
    #[serde(flatten)]
    diff: &'a Diff,
}

impl Asked {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let old = match (&self.machine, &self.old) {
            (Some(machine), _) => {
                return machine::diff(machine, &self.asks, &self.at, self.json, self.color);
            }
            (None, Some(old)) => old,
            (None, None) => bail!("name a version (`web@3`), or a machine with --machine"),
        };
        let store = self.at.there()?;
        let (old, new) = pair(&store, old, self.new.as_deref())?;
        let mut line = Line::new();
        let diff = store.diff(&old, &new, &mut |step| line.show(&step))?;
        line.clear();
        if self.json {
            let (kernel_before, kernel_after) =
                (&old.boot.kernel_release, &new.boot.kernel_release);
            let (old, new) = (&old.to_string(), &new.to_string());
            return print(&pretty(&Answer { old, new, kernel_before, kernel_after, diff: &diff })?);
        }
        let paint = Paint(self.color.is_on());
        let mut text = head(&old, &new, &diff, paint);
        if self.stat {
            stat(&diff, &mut text);
        } else {
            changes(&diff, paint, &mut text);
        }
        text.push_str(&sum(&diff.counts));
        print(&text)
    }
}

/// The two versions that are meant, the older one first.
fn pair(store: &Store, old: &str, new: Option<&str>) -> anyhow::Result<(Version, Version)> {
    let version = |text: &str| -> anyhow::Result<Version> {
        let wanted: ImageRef = text.parse()?;
        // `web` is what machines boot; where there is nothing yet, the newest.
        match (wanted.version, store.resolve(text)) {
            (None, Ok(boot)) => Ok(store.show(&format!("{}@{}", boot.name, boot.version))?),
            _ => Ok(store.show(text)?),
        }
    };
    let first = version(old)?;
    if let Some(new) = new {
        return Ok((first, version(new)?));
    }
    let all = store.list()?;
    let own = || all.iter().filter(|other| other.name == first.name);
    let former = first.former.and_then(|number| own().find(|other| other.version == number));
    // One that was never published is laid beside what it was made from.
    let parent = || own().rev().find(|other| Some(other.digest) == first.parent);
    let before = || own().rev().find(|other| other.version < first.version);
    match former.or_else(parent).or_else(before) {
        Some(former) => Ok((former.clone(), first)),
        None => {
            bail!("{first} has nothing before it: name two versions, `koboshi image ls` has them")
        }
    }
}

/// ANSI colours, or none.
#[derive(Clone, Copy)]
pub(super) struct Paint(pub(super) bool);

impl Paint {
    fn with(self, code: &str, text: &str) -> String {
        if self.0 { format!("\x1b[{code}m{text}\x1b[m") } else { text.to_string() }
    }

    fn of(self, what: What, text: &str) -> String {
        self.with(
            match what {
                What::Added => "32",
                What::Removed => "31",
                What::Renamed => "36",
                What::Changed => "33",
            },
            text,
        )
    }
}

/// Which versions, kernels and packages.
fn head(old: &Version, new: &Version, diff: &Diff, paint: Paint) -> String {
    let mut text = format!("{}\n", paint.with("1", &format!("{old} → {new}")));
    let (before, after) = (&old.boot, &new.boot);
    if before.kernel_release != after.kernel_release {
        text.push_str(&format!("kernel {} → {}\n", before.kernel_release, after.kernel_release));
    } else if (before.kernel, &before.segments) != (after.kernel, &after.segments) {
        text.push_str("kernel, modules or microcode differ, with the same release\n");
    }
    for package in &diff.packages {
        let (what, version) = match (&package.before, &package.after) {
            (Some(before), Some(after)) => (What::Changed, format!("{before} → {after}")),
            (None, Some(after)) => (What::Added, format!("{after}, new")),
            (before, None) => {
                (What::Removed, format!("{}, gone", before.as_deref().unwrap_or_default()))
            }
        };
        let line = format!("package {} {version}", package.name);
        text.push_str(&format!("{}\n", paint.of(what, &clean(&line))));
    }
    text
}

/// Every name, with what is another, and the lines of texts.
pub(super) fn changes(diff: &Diff, paint: Paint, text: &mut String) {
    for change in &diff.changes {
        let sign = match change.what {
            What::Added => '+',
            What::Removed => '-',
            What::Renamed => '>',
            What::Changed => '~',
        };
        let name = match &change.from {
            Some(from) => format!("{from} → {}", change.path),
            None => change.path.clone(),
        };
        let line = format!("{sign} {}", clean(&name));
        // A String takes any text.
        let _ = writeln!(text, "{}  {}", paint.of(change.what, &line), clean(&facts(change)));
        for line in change.text.iter().flat_map(|text| text.lines()) {
            let code = match line.as_bytes().first() {
                Some(b'+') => "32",
                Some(b'-') => "31",
                Some(b'@') => "36",
                _ => "",
            };
            let line = clean(line);
            let line = if code.is_empty() { line } else { paint.with(code, &line) };
            let _ = writeln!(text, "    {line}");
        }
    }
}

/// What is another of a name, in words.
fn facts(change: &Change) -> String {
    let mut words = Vec::new();
    match (&change.before, &change.after) {
        (Some(before), Some(after)) => {
            for aspect in &change.differs {
                words.push(differs(*aspect, before, after));
            }
        }
        (Some(one), None) | (None, Some(one)) => words.push(whole(one)),
        (None, None) => {}
    }
    let why = change.no_text.map(|why| match why {
        NoText::Binary => "binary",
        NoText::Large => "too large for lines",
        NoText::Private => "lines not shown: not everybody may read it",
        NoText::Enough => "lines not shown: there are enough",
    });
    words.extend(why.map(str::to_string));
    words.join(", ")
}

fn whole(facts: &Facts) -> String {
    let mut words = vec![facts.kind.to_string()];
    if let Some(target) = &facts.target {
        words.push(format!("→ {target}"));
    } else {
        words.push(format!("{:04o}", facts.mode));
    }
    words.push(format!("{}:{}", facts.uid, facts.gid));
    words.extend(facts.size.map(bytes));
    words.extend(facts.device.map(|(major, minor)| format!("{major}, {minor}")));
    words.extend(facts.xattrs.iter().map(|(name, value)| format!("{name}={value}")));
    words.join(" ")
}

fn differs(aspect: Aspect, before: &Facts, after: &Facts) -> String {
    let device = |facts: &Facts| {
        facts.device.map_or_else(String::new, |(major, minor)| format!("{major}, {minor}"))
    };
    let target = |facts: &Facts| facts.target.clone().unwrap_or_default();
    match aspect {
        Aspect::Type => format!("{} → {}", whole(before), whole(after)),
        Aspect::Mode => format!("mode {:04o} → {:04o}", before.mode, after.mode),
        Aspect::Owner => {
            format!("owner {}:{} → {}:{}", before.uid, before.gid, after.uid, after.gid)
        }
        Aspect::Content => match (before.size, after.size) {
            (Some(old), Some(new)) if old != new => format!("{} → {}", bytes(old), bytes(new)),
            (_, new) => format!("{}, other bytes", bytes(new.unwrap_or(0))),
        },
        Aspect::Target => format!("→ {}, before → {}", target(after), target(before)),
        Aspect::Device => format!("device {} → {}", device(before), device(after)),
        Aspect::Xattrs => {
            let said = |facts: &Facts| {
                let all = facts.xattrs.iter().map(|(name, value)| format!("{name}={value}"));
                let all = all.collect::<Vec<_>>().join(" ");
                if all.is_empty() { "none".to_string() } else { all }
            };
            format!("xattrs {} → {}", said(before), said(after))
        }
        Aspect::Links => {
            format!("{} → {} names", before.links.unwrap_or(1), after.links.unwrap_or(1))
        }
    }
}

/// By directory, two levels deep.
fn stat(diff: &Diff, text: &mut String) {
    let mut dirs: BTreeMap<String, [i64; 5]> = BTreeMap::new();
    for change in &diff.changes {
        let parts: Vec<&str> = change.path.split('/').collect();
        let dir = parts[..parts.len().saturating_sub(1).min(2)].join("/");
        let row = dirs.entry(dir).or_default();
        let column = match change.what {
            What::Added => 0,
            What::Removed => 1,
            What::Renamed => 2,
            What::Changed => 3,
        };
        row[column] += 1;
        let size = |facts: &Option<Facts>| {
            facts.as_ref().and_then(|facts| i64::try_from(facts.size?).ok()).unwrap_or(0)
        };
        row[4] = row[4].saturating_add(size(&change.after) - size(&change.before));
    }
    let rows: Vec<Vec<String>> = dirs
        .iter()
        .map(|(dir, row)| {
            let mut cells = vec![format!("/{dir}")];
            cells.extend(row[..4].iter().map(|n| if *n == 0 { "-".into() } else { n.to_string() }));
            let sign = if row[4] < 0 { "-" } else { "+" };
            cells.push(format!("{sign}{}", bytes(row[4].unsigned_abs())));
            cells
        })
        .collect();
    let headings = ["DIRECTORY", "ADDED", "REMOVED", "RENAMED", "CHANGED", "SIZE"];
    if !rows.is_empty() {
        text.push_str(&crate::ops::table::table(&headings, &rows));
    }
}

/// All of it in a line.
pub(super) fn sum(counts: &Counts) -> String {
    let Counts { added, removed, changed, renamed, .. } = counts;
    let mut text = match added + removed + changed + renamed {
        0 => "their files are the same".to_string(),
        _ => format!(
            "{added} added, {removed} removed, {renamed} renamed, {changed} changed: {} → {}",
            bytes(counts.bytes_before),
            bytes(counts.bytes_after)
        ),
    };
    if counts.touched > 0 {
        text.push_str(&format!("; {} differ in their time alone", counts.touched));
    }
    if counts.unlisted > 0 {
        text.push_str(&format!("; {} more are not listed", counts.unlisted));
    }
    if counts.texts_unlisted > 0 {
        text.push_str(&format!("; lines of {} texts are not shown", counts.texts_unlisted));
    }
    text + "\n"
}

fn bytes(bytes: u64) -> String {
    match bytes {
        0..=9999 => format!("{bytes} B"),
        10_000..=9_999_999 => format!("{:.1} KiB", bytes as f64 / 1024.0),
        _ => super::mib(bytes),
    }
}

/// Names and lines may hold what would move a terminal's cursor.
fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\t' { '·' } else { c }).collect()
}
