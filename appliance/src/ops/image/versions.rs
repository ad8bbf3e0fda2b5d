//! `koboshi image rollback`, `pin`, `unpin` and `log`: which versions machines boot, which are kept,
//! and who saw to that.

use anyhow::bail;
use clap::Args;
use koboshi_images::{Act, ImageRef, Log};

use super::{At, by, pretty, print, trial};
use crate::ops::table::table;

/// `koboshi image rollback`
#[derive(Debug, Args)]
pub struct Rollback {
    /// Image name
    name: String,
    /// To this version, which was published once; else to the one before the current
    #[arg(long, value_name = "N")]
    to: Option<u32>,
    /// What for
    #[arg(long)]
    reason: Option<String>,
    /// Where the images are
    #[command(flatten)]
    at: At,
}

impl Rollback {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let wanted: ImageRef = self.name.parse()?;
        let to = match (wanted.version, self.to) {
            (Some(one), Some(other)) if one != other => {
                bail!("{} and --to {other} are two versions; name one", self.name)
            }
            (one, other) => other.or(one),
        };
        let store = self.at.there()?;
        let before = store.resolve(&wanted.name)?;
        let version = store.rollback(&wanted.name, to, &by(self.reason))?;
        if version.version == before.version {
            return print(&format!("{version} is what machines boot, now as before\n"));
        }
        print(&format!(
            "{version} is what machines boot now, and no longer {}@{}; those that run it stay with it \
             until they boot again: `koboshi status --drifted` lists them\n",
            before.name, before.version
        ))
    }
}

/// `koboshi image pin` and `unpin`
#[derive(Debug, Args)]
pub struct Pin {
    /// Version: `web@3`
    image: String,
    /// These machines boot it, whatever the others do, until they are unpinned
    #[arg(long, value_name = "MACHINES")]
    machine: Option<String>,
    /// What for
    #[arg(long)]
    reason: Option<String>,
    /// Where the images are
    #[command(flatten)]
    at: At,
}

impl Pin {
    pub(super) fn run(self, pin: bool) -> anyhow::Result<()> {
        match &self.machine {
            Some(who) if pin => return trial::pin(&self.at, &self.image, who, self.reason),
            Some(who) => return trial::unpin(&self.at, &self.image, who, self.reason),
            None => {}
        }
        let wanted: ImageRef = self.image.parse()?;
        let Some(number) = wanted.version else {
            bail!("say which version of {}: {}@3", wanted.name, wanted.name)
        };
        let store = self.at.there()?;
        let by = by(self.reason);
        if pin {
            let version = store.pin(&wanted.name, number, &by)?;
            return print(&format!("{version} is kept until `koboshi image unpin {version}`\n"));
        }
        let version = store.unpin(&wanted.name, number, &by)?;
        print(&format!("{version} is not pinned: it goes when nothing needs it\n"))
    }
}

/// `koboshi image log`
#[derive(Debug, Args)]
pub struct Told {
    /// Image name; all if none
    name: Option<String>,
    /// For programs
    #[arg(long)]
    json: bool,
    /// Where the images are
    #[command(flatten)]
    at: At,
}

impl Told {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let store = self.at.there()?;
        let wanted = self.name.map(|name| name.parse::<ImageRef>()).transpose()?;
        let mut log = store.log(wanted.as_ref().map(|wanted| wanted.name.as_str()))?;
        if let Some(number) = wanted.as_ref().and_then(|wanted| wanted.version) {
            log.acts.retain(|act| act.version == Some(number));
        }
        print(&if self.json { pretty(&log.acts)? } else { show(&log) })
    }
}

fn show(log: &Log) -> String {
    let mut text = String::new();
    if log.forgotten > 0 {
        text.push_str(&format!("{} older acts are forgotten\n", log.forgotten));
    }
    if log.unreadable > 0 {
        text.push_str(&format!("{} lines of the log do not read back\n", log.unreadable));
    }
    if log.acts.is_empty() {
        return text + "nothing was done to images yet\n";
    }
    let rows: Vec<Vec<String>> = log.acts.iter().map(row).collect();
    text + &table(&["TIME", "WHO", "DID", "IMAGE", "BEFORE", "REASON"], &rows)
}

fn row(act: &Act) -> Vec<String> {
    let image = match act.version {
        Some(version) => format!("{}@{version}", act.image),
        None => act.image.clone(),
    };
    let at = act.at.to_zoned(jiff::tz::TimeZone::system());
    vec![
        at.strftime("%Y-%m-%d %H:%M:%S").to_string(),
        act.author.clone().unwrap_or_else(|| "-".to_string()),
        act.act.clone(),
        image,
        act.former.map_or_else(|| "-".to_string(), |former| format!("@{former}")),
        act.reason.clone().unwrap_or_default(),
    ]
}
