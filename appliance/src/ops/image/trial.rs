//! `koboshi image publish`, with its trials on single machines; `pin` and `unpin` for one machine; `trial`
//! and `retry`.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::bail;
use clap::Args;
use koboshi_images::{ImageRef, Store, Version};

use super::{At, by, lint, pretty, print};
use crate::api::{Client, ClientError};
use crate::lab::appliance::own_path;
use crate::ops::console::script::time;
use crate::ops::rollout::{self, Meant, Query, Shown};
use crate::site::hostlist;

/// `koboshi image publish`
#[derive(Debug, Args)]
pub struct Publish {
    /// Image: `web` for its newest version, `web@3` for that one
    image: String,
    /// What for
    #[arg(long)]
    reason: Option<String>,
    /// Only these machines (m07,m08 or m[07-08]) boot it, and the rest only when each of them came up with it
    /// and stayed up; if one fails, it is withdrawn and they boot again what the rest never left
    #[arg(long, value_name = "MACHINES", conflicts_with_all = ["abort", "now"])]
    canary: Option<String>,
    /// How long they have to stay up
    #[arg(long, value_name = "TIME", default_value = "10m", requires = "canary", value_parser = time)]
    stay: Duration,
    /// Restart them now, by their BMCs
    #[arg(long, requires = "canary")]
    reboot: bool,
    /// It is on trial: give it to all now
    #[arg(long, conflicts_with = "abort")]
    now: bool,
    /// It is on trial: end that, and give it to nobody
    #[arg(long)]
    abort: bool,
    /// Only if it came up in the virtual rack before (`koboshi image test`)
    #[arg(long)]
    tested: bool,
    /// Where the images are
    #[command(flatten)]
    at: At,
}

impl Publish {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let wanted: ImageRef = self.image.parse()?;
        let store = self.at.there()?;
        let version = store.show(&self.image)?;
        if self.abort {
            return self.abort(&store, &wanted);
        }
        if self.tested && version.marks.tested.is_none() {
            bail!(
                "{version} is not tested: `koboshi image test {version}` boots it in the virtual rack"
            );
        }
        if let Some(who) = &self.canary {
            return self.begin(&store, &version, who);
        }
        if let Some(trial) = &version.marks.trial
            && !self.now
        {
            bail!(
                "{version} is on trial on {}: `koboshi image trial` shows how it goes; --now gives it \
                 to all at once, --abort ends that",
                hostlist::fold(&trial.machines)
            );
        }
        let ended = store.tracks()?.remove(&wanted.name).and_then(|track| track.trial);
        let by = by(self.reason);
        let version = store.publish(&version.name, Some(version.version), &by)?;
        lint::warn(&store, &version.to_string())?;
        let mut text = format!("{version} is what machines boot now\n");
        if let Some((other, _)) = ended {
            store.end_trial(&wanted.name, &by)?;
            if other != version.version {
                text.push_str(&format!("the trial of {}@{other} is over by that\n", wanted.name));
            }
        }
        print(&text)
    }

    fn abort(&self, store: &Store, wanted: &ImageRef) -> anyhow::Result<()> {
        let name = &wanted.name;
        let trial = store.tracks()?.remove(name).and_then(|track| track.trial);
        let Some((version, trial)) = trial else { bail!("no version of {name} is on trial") };
        if wanted.version.is_some_and(|wanted| wanted != version) {
            bail!("{name}@{version} is on trial, and {wanted} is not");
        }
        store.end_trial(name, &by(self.reason.clone()))?;
        let machines = hostlist::fold(&trial.machines);
        print(&format!(
            "the trial of {name}@{version} is over; {machines} boot what all boot, from their next start: \
             `koboshi power {machines} cycle`\n"
        ))
    }

    fn begin(&self, store: &Store, version: &Version, who: &str) -> anyhow::Result<()> {
        let name = &version.name;
        let machines: BTreeSet<String> = machines(&self.at, name, who)?.into_iter().collect();
        if machines.is_empty() {
            bail!("--canary {who} names no machine");
        }
        let by = by(self.reason.clone());
        store.begin_trial(name, version.version, machines.clone(), self.stay.as_secs(), &by)?;
        let machines = hostlist::fold(&machines);
        let mut text = format!(
            "{version} is on trial on {machines}; all get it when each came up and stayed up for {} s\n",
            self.stay.as_secs()
        );
        if self.reboot {
            print(&text)?;
            let mut power = std::process::Command::new(own_path());
            power.args(["power", &machines, "cycle", "--state"]).arg(&self.at.state);
            if !power.status()?.success() {
                bail!("not all are restarted: `koboshi power {machines} cycle`, or `on`");
            }
            return Ok(());
        }
        text.push_str(&format!(
            "they boot it at their next start: `koboshi power {machines} cycle`\n\
             `koboshi image trial` shows how it goes, `koboshi events -f` what becomes of it\n"
        ));
        print(&text)
    }
}

/// Which machines are meant, by the appliance's word; where none runs, by their names alone.
fn machines(at: &At, image: &str, who: &str) -> anyhow::Result<Vec<String>> {
    let query = Query { image: image.to_string(), who: who.to_string() };
    let asked = ask(at, async |client| client.get::<Meant>("/rollout/meant", &query).await);
    match asked? {
        Err(ClientError::NoAppliance { .. }) => {
            let hosts = hostlist::expand(who)?;
            eprintln!("warning: no appliance runs here: whether {who} boots {image} is not known");
            Ok(hosts.into_iter().map(|host| host.name).collect())
        }
        asked => Ok(asked?.machines),
    }
}

fn ask<T>(
    at: &At,
    ask: impl AsyncFnOnce(&Client) -> Result<T, ClientError>,
) -> anyhow::Result<Result<T, ClientError>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(runtime.block_on(ask(&Client::new(&at.state))))
}

/// Gives machines a version of their own.
pub(super) fn pin(at: &At, image: &str, who: &str, reason: Option<String>) -> anyhow::Result<()> {
    let wanted: ImageRef = image.parse()?;
    let name = &wanted.name;
    let Some(version) = wanted.version else { bail!("say which version of {name}: {name}@3") };
    let store = at.there()?;
    let by = by(reason);
    let machines = machines(at, name, who)?;
    for machine in &machines {
        store.pin_machine(name, version, machine, &by)?;
    }
    let machines = hostlist::fold(&machines);
    print(&format!(
        "{machines} boots {wanted} from its next start until `koboshi image unpin {name} --machine {machines}`\n"
    ))
}

/// Lets machines boot again what all boot.
pub(super) fn unpin(at: &At, image: &str, who: &str, reason: Option<String>) -> anyhow::Result<()> {
    let wanted: ImageRef = image.parse()?;
    let name = &wanted.name;
    let store = at.there()?;
    let by = by(reason);
    let mut text = String::new();
    // By their names alone: one that the site does not know any more may be pinned still.
    for host in hostlist::expand(who)? {
        let machine = host.name;
        text.push_str(&match store.unpin_machine(name, &machine, &by)? {
            Some(version) => {
                format!(
                    "{machine} is not pinned to {name}@{version} any more: from its next start\n"
                )
            }
            None => format!("{machine} is not pinned to any version of {name}\n"),
        });
    }
    print(&text)
}

/// `koboshi image trial`
#[derive(Debug, Args)]
pub struct Trials {
    /// For programs
    #[arg(long)]
    json: bool,
    /// Where the images are
    #[command(flatten)]
    at: At,
}

impl Trials {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let trials =
            ask(&self.at, async |client| client.get::<Vec<Shown>>("/rollout/trials", &()).await)??;
        print(&if self.json { pretty(&trials)? } else { rollout::show(&trials) })
    }
}

/// `koboshi image retry`
#[derive(Debug, Args)]
pub struct Retry {
    /// Image name
    image: String,
    /// Machines that fell back
    who: String,
    /// Where the images are
    #[command(flatten)]
    at: At,
}

impl Retry {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let query = Query { image: self.image.clone(), who: self.who.clone() };
        let asked =
            ask(&self.at, async |client| client.post::<Meant>("/rollout/retry", &query).await)??;
        let machines = hostlist::fold(&asked.machines);
        print(&match asked.machines.is_empty() {
            true => format!("nothing of {} has failed on {}\n", self.image, self.who),
            false => {
                format!("{machines} try again what all boot: `koboshi power {machines} cycle`\n")
            }
        })
    }
}

/// What is said of a version in a list, beside whether it is published.
pub(super) fn marks(version: &Version) -> Vec<String> {
    let trial = version.marks.trial.as_ref();
    let trial = trial.map(|trial| format!("on trial on {}", hostlist::fold(&trial.machines)));
    let withdrawn = version.marks.withdrawn.as_ref().map(|_| "withdrawn".to_string());
    let machines = (!version.marks.machines.is_empty())
        .then(|| format!("for {}", hostlist::fold(&version.marks.machines)));
    let tested = version.marks.tested.as_ref().map(|_| "tested".to_string());
    [trial, withdrawn, machines, tested].into_iter().flatten().collect()
}
