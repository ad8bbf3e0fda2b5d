//! `koboshi image ls` and `show`: what there is.

use std::collections::BTreeSet;

use clap::Args;
use koboshi_images::{Damaged, Digest, ImageRef, Store, Usage, Version};
use serde::Serialize;

use super::{At, mib, pretty, print, trial};
use crate::ops::table::{ago, table};
use crate::site::hostlist;

/// `koboshi image ls`
#[derive(Debug, Args)]
pub struct List {
    /// Image name; all if none
    name: Option<String>,
    /// For programs
    #[arg(long)]
    json: bool,
    /// Where the images are
    #[command(flatten)]
    at: At,
}

/// `koboshi image show`
#[derive(Debug, Args)]
pub struct Show {
    /// `web` for the newest, `web@3` for that one
    image: String,
    /// Also read every blob again and compare its digest
    #[arg(long)]
    verify: bool,
    /// For programs
    #[arg(long)]
    json: bool,
    /// Where the images are
    #[command(flatten)]
    at: At,
}

/// A version with what surrounds it.
#[derive(Debug, Serialize)]
struct Row {
    #[serde(flatten)]
    version: Version,
    /// Bytes on disk.
    disk: Usage,
    /// Machines that run it or are on their way to it, as the appliance said last.
    machines: Vec<String>,
}

/// What `ls` has a line for.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Item {
    Whole(Box<Row>),
    Damaged(Damaged),
}

/// One version with what it was made from, and why it stays.
#[derive(Debug, Serialize)]
struct Whole {
    #[serde(flatten)]
    row: Row,
    /// What it was made from, what that was made from, …
    ancestors: Vec<Ancestor>,
    /// Why it cannot be removed.
    in_use: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Ancestor {
    digest: Digest,
    /// `web@2`, unless it was removed.
    image: Option<String>,
}

impl List {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let store = self.at.there()?;
        let wanted = self.name.map(|name| name.parse::<ImageRef>()).transpose()?;
        let (mut rows, mut damaged) = rows(&store)?;
        if let Some(wanted) = wanted {
            let meant = |name: &str, version: u32| {
                name == wanted.name && wanted.version.is_none_or(|number| number == version)
            };
            rows.retain(|row| meant(&row.version.name, row.version.version));
            damaged.retain(|one| meant(&one.name, one.version));
            if rows.is_empty() && damaged.is_empty() {
                store.show(&wanted.to_string())?;
            }
        }
        if self.json {
            let whole = rows.into_iter().map(|row| Item::Whole(Box::new(row)));
            let all: Vec<Item> = whole.chain(damaged.into_iter().map(Item::Damaged)).collect();
            return print(&pretty(&all)?);
        }
        print(&list(&rows, &damaged))
    }
}

impl Show {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let store = self.at.there()?;
        let version = store.show(&self.image)?;
        if self.verify {
            store.verify(&version)?;
        }
        let (mut all, _) = rows(&store)?;
        let in_use = store.uses(&version.name, version.version)?;
        let ancestors = ancestors(&all, &version);
        let here =
            |row: &Row| row.version.name == version.name && row.version.version == version.version;
        let Some(at) = all.iter().position(here) else {
            anyhow::bail!("{version} was removed just now")
        };
        let whole = Whole { row: all.swap_remove(at), ancestors, in_use };
        print(&if self.json { pretty(&whole)? } else { show(&whole, self.verify) })
    }
}

fn rows(store: &Store) -> anyhow::Result<(Vec<Row>, Vec<Damaged>)> {
    let (mut usage, holds) = (store.usage()?, store.holds()?);
    let (whole, damaged) = store.listed()?;
    let rows = whole.into_iter().map(|version| {
        let disk = usage.remove(&(version.name.clone(), version.version)).unwrap_or_default();
        let held: BTreeSet<String> =
            holds.machines_of(&version.to_string()).map(|held| held.machine.clone()).collect();
        Row { version, disk, machines: held.into_iter().collect() }
    });
    Ok((rows.collect(), damaged))
}

/// From parent to parent, as far as the store remembers.
fn ancestors(all: &[Row], version: &Version) -> Vec<Ancestor> {
    let mut found: Vec<Ancestor> = Vec::new();
    let mut next = version.parent;
    while let Some(digest) = next {
        // Content that came back has the digest it had.
        if digest == version.digest || found.iter().any(|known| known.digest == digest) {
            break;
        }
        let same = |row: &&Row| row.version.digest == digest;
        let own = all.iter().rev().filter(same).find(|row| row.version.name == version.name);
        let parent = own.or_else(|| all.iter().rev().find(same)).map(|row| &row.version);
        found.push(Ancestor { digest, image: parent.map(ToString::to_string) });
        next = parent.and_then(|parent| parent.parent);
    }
    found
}

/// What is said of a version in a few words.
fn state(version: &Version) -> String {
    let current = version.current.then_some("current");
    let said = [
        current.or(version.published.map(|_| "published")),
        version.pinned.as_ref().map(|_| "pinned"),
    ];
    let mut words: Vec<String> = said.into_iter().flatten().map(str::to_string).collect();
    words.extend(trial::marks(version));
    if words.is_empty() { "-".to_string() } else { words.join(", ") }
}

/// All versions as a table.
fn list(rows: &[Row], damaged: &[Damaged]) -> String {
    if rows.is_empty() && damaged.is_empty() {
        return "no images; `koboshi image build rescue` makes one, `koboshi image import` takes one in\n".into();
    }
    let now = jiff::Timestamp::now();
    let mut cells: Vec<Vec<String>> = rows
        .iter()
        .map(|row| {
            let version = &row.version;
            let age = now.as_millisecond() - version.created.as_millisecond();
            vec![
                version.to_string(),
                state(version),
                mib(row.disk.own),
                mib(row.disk.shared),
                ago(u64::try_from(age).unwrap_or(0)),
                version.author.clone().unwrap_or_else(|| "-".to_string()),
                machines(&row.machines),
                version.boot.kernel_release.clone(),
                version.reason.clone().unwrap_or_default(),
            ]
        })
        .collect();
    for Damaged { name, version, .. } in damaged {
        let mut line = vec![format!("{name}@{version}"), "DAMAGED".to_string()];
        line.resize(9, "-".to_string());
        cells.push(line);
    }
    let headings =
        ["IMAGE", "STATE", "SIZE", "SHARED", "AGE", "AUTHOR", "MACHINES", "KERNEL", "REASON"];
    let mut text = table(&headings, &cells);
    for Row { version, .. } in rows {
        if let Some(withdrawn) = &version.marks.withdrawn {
            text.push_str(&format!("{version} was withdrawn: {}\n", withdrawn.why));
        }
    }
    damaged.iter().for_each(|one| text.push_str(&format!("{one}\n")));
    text
}

/// `12: m[01-12]`
fn machines(names: &[String]) -> String {
    if names.is_empty() {
        return "-".to_string();
    }
    let folded = hostlist::fold(names);
    let short: String = folded.chars().take(30).collect();
    let more = if short.len() < folded.len() { "…" } else { "" };
    format!("{}: {short}{more}", names.len())
}

/// One version, a line for each thing.
fn show(whole: &Whole, verified: bool) -> String {
    let Row { version, disk, machines } = &whole.row;
    let boot = &version.boot;
    let mut text = format!("{}@{}  {}\n", version.name, version.version, version.digest);
    let mut line = |name: &str, value: String| text.push_str(&format!("  {name:<10} {value}\n"));
    line("created", version.created.to_string());
    let current = if version.current { ", and what machines boot" } else { "" };
    let state = version.published.map_or_else(|| "no".to_string(), |at| format!("{at}{current}"));
    line("published", state);
    for mark in trial::marks(version) {
        line("rollout", mark);
    }
    if let Some(withdrawn) = &version.marks.withdrawn {
        line("because", withdrawn.why.clone());
    }
    if let Some(former) = version.former {
        line("former", format!("{}@{former}", version.name));
    }
    if let Some(pin) = &version.pinned {
        let by = pin.by.as_deref().map(|by| format!(" by {by}")).unwrap_or_default();
        let why = pin.why.as_deref().map(|why| format!(": {why}")).unwrap_or_default();
        line("pinned", format!("{}{by}{why}", pin.at));
    }
    if let Some(author) = &version.author {
        line("author", author.clone());
    }
    if let Some(reason) = &version.reason {
        line("reason", reason.clone());
    }
    for (at, ancestor) in whole.ancestors.iter().enumerate() {
        let image = ancestor.image.as_deref().unwrap_or("not in the store");
        line(if at == 0 { "parent" } else { "" }, format!("{image}  {}", ancestor.digest));
    }
    line(
        "kernel",
        format!("{}  {}  {}", boot.kernel_release, mib(boot.kernel.size), boot.kernel.digest),
    );
    for (at, segment) in boot.segments.iter().enumerate() {
        let name = if at < boot.microcode { "microcode" } else { "modules" };
        line(name, format!("{}  {}", mib(segment.size), segment.digest));
    }
    for layer in &boot.layers {
        line("root", format!("{}  {}", mib(layer.blob.size), layer.blob.digest));
        if let Some(squashfs) = &layer.squashfs {
            line("squashfs", format!("{}  {}", mib(squashfs.size), squashfs.digest));
        }
    }
    line("unpacked", format!("{} in {} files", mib(boot.unpacked()), boot.inodes()));
    line("on disk", format!("{} of its own, {} shared", mib(disk.own), mib(disk.shared)));
    if !machines.is_empty() {
        line("machines", format!("{}: {}", machines.len(), hostlist::fold(machines)));
    }
    let stays = whole.in_use.join("; ");
    line("in use", if stays.is_empty() { "no".to_string() } else { stays });
    if verified {
        line("verified", "every blob has the digest it is named by".to_string());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_version_is_listed_with_what_to_do() {
        let damaged = "blob sha256:00 is damaged: it is missing".to_string();
        let damaged = Damaged { name: "web".to_string(), version: 2, damaged };
        let text = list(&[], std::slice::from_ref(&damaged));
        let line = text.lines().find(|line| line.starts_with("web@2 ")).expect("a line of its own");
        assert!(line.contains("DAMAGED"), "{text}");
        assert!(
            text.contains("it is missing") && text.contains("`koboshi image rm web@2`"),
            "{text}"
        );
        let json = pretty(&[Item::Damaged(damaged)]).expect("JSON");
        assert!(json.contains("\"version\": 2") && json.contains("\"damaged\": \"blob"), "{json}");
    }
}
