//! `koboshi image ls` and `show`: what there is.

use koboshi_images::Version;

use super::{mib, trial};
use crate::ops::table::table;

/// All versions as a table.
pub(super) fn list(versions: &[Version]) -> String {
    if versions.is_empty() {
        return "no images; `koboshi image build rescue` makes one, `koboshi image import` takes one in\n".into();
    }
    let rows: Vec<Vec<String>> = versions
        .iter()
        .map(|version| {
            vec![
                format!("{}@{}", version.name, version.version),
                state(version),
                version.boot.kernel_release.clone(),
                mib(version.boot.size()),
                mib(version.boot.unpacked()),
                version.created.strftime("%Y-%m-%d %H:%M").to_string(),
                version.reason.clone().unwrap_or_default(),
            ]
        })
        .collect();
    table(&["IMAGE", "STATE", "KERNEL", "ROOT", "UNPACKED", "CREATED", "REASON"], &rows)
}

fn state(version: &Version) -> String {
    let published = if version.published.is_some() { "published" } else { "-" };
    let mut all = trial::marks(version);
    if version.published.is_some() || all.is_empty() {
        all.insert(0, published.to_string());
    }
    all.join(", ")
}

/// One version, a line for each thing.
pub(super) fn show(version: &Version, verified: bool) -> String {
    let boot = &version.boot;
    let mut text = format!("{}@{}  {}\n", version.name, version.version, version.digest);
    let mut line = |name: &str, value: String| text.push_str(&format!("  {name:<10} {value}\n"));
    line("created", version.created.to_string());
    let state = version.published.map(|at| format!("{at}")).unwrap_or_else(|| "no".to_string());
    line("published", state);
    for mark in trial::marks(version) {
        line("rollout", mark);
    }
    if let Some(withdrawn) = &version.marks.withdrawn {
        line("because", withdrawn.why.clone());
    }
    if let Some(author) = &version.author {
        line("author", author.clone());
    }
    if let Some(reason) = &version.reason {
        line("reason", reason.clone());
    }
    if let Some(parent) = &version.parent {
        line("parent", parent.to_string());
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
    if verified {
        line("verified", "every blob has the digest it is named by".to_string());
    }
    text
}
