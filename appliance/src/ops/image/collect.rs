//! `koboshi image rm` and `gc`: what nobody needs goes.

use anyhow::bail;
use clap::Args;
use koboshi_images::{Collected, ImageRef};

use super::{At, by, mib, pretty, print};

/// `koboshi image rm`
#[derive(Debug, Args)]
pub struct Remove {
    /// Versions: `web@3`
    #[arg(required = true)]
    images: Vec<String>,
    /// What for
    #[arg(long)]
    reason: Option<String>,
    /// Where the images are
    #[command(flatten)]
    at: At,
}

/// `koboshi image gc`
#[derive(Debug, Args)]
pub struct Collect {
    /// How many versions of each image stay, the newest first, needed or not
    #[arg(long, value_name = "N", default_value_t = 5)]
    keep: usize,
    /// Only say what would go
    #[arg(long)]
    dry_run: bool,
    /// For programs
    #[arg(long)]
    json: bool,
    /// What for
    #[arg(long)]
    reason: Option<String>,
    /// Where the images are
    #[command(flatten)]
    at: At,
}

impl Remove {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let mut wanted = Vec::new();
        for image in &self.images {
            let parsed: ImageRef = image.parse()?;
            match parsed.version {
                Some(version) => wanted.push((parsed.name, version)),
                None => bail!(
                    "say which version of {image}: {image}@3; `koboshi image gc --keep 1` removes all old ones"
                ),
            }
        }
        let store = self.at.there()?;
        let by = by(self.reason);
        for (name, version) in wanted {
            let gone = store.remove(&name, version, &by)?;
            print(&format!("{name}@{version} is removed{}\n", freed(&gone)))?;
        }
        Ok(())
    }
}

impl Collect {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let store = self.at.there()?;
        let gone = store.collect(self.keep, self.dry_run, &by(self.reason))?;
        if self.json {
            return print(&pretty(&gone)?);
        }
        let mut text = String::new();
        if !gone.damaged.is_empty() {
            gone.damaged.iter().for_each(|one| text.push_str(&format!("{one}\n")));
            return print(&format!("{text}nothing is collected: what it needs cannot be told\n"));
        }
        for (image, why) in &gone.kept {
            text.push_str(&format!("{image} stays: {}\n", why.join("; ")));
        }
        let what = match (gone.versions.len(), self.dry_run) {
            (0, _) => "no version goes".to_string(),
            (_, true) => format!("would go: {}", gone.versions.join(", ")),
            (_, false) => format!("gone: {}", gone.versions.join(", ")),
        };
        print(&format!("{text}{what}{}\n", freed(&gone)))
    }
}

fn freed(gone: &Collected) -> String {
    let mut text = format!(": {} in {} blobs", mib(gone.bytes), gone.blobs);
    if gone.held > 0 {
        text.push_str(&format!(
            "; {} more blobs are being booted from, and go with a later `koboshi image gc`",
            gone.held
        ));
    }
    text
}
