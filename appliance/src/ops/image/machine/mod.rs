//! `koboshi image diff --machine` and `koboshi image commit`: what changed on a machine that runs, and the next
//! version of its image made of it (S16). The machine is asked over its console or by SSH, by whoever may go
//! there anyway; nothing listens for it.

mod console;
mod show;
mod ssh;
mod talk;
mod who;
mod words;

use std::io::IsTerminal;

use anyhow::{Context, bail};
use koboshi_images::{ImportOptions, Store, Version};

use super::diff::{Colour, Paint};
use super::progress::Line;
use super::{At, author, by, mib, pretty, print};
use show::{Committed, Held};
use who::Who;
pub use words::{Asks, Commit};

/// Shows what changed on a machine.
pub fn diff(machine: &str, asks: &Asks, at: &At, json: bool, colour: Colour) -> anyhow::Result<()> {
    let store = at.there()?;
    runtime()?.block_on(async {
        let who = Who::find(machine, asks, at, &store).await?;
        let found = who.ask(false).await?;
        let diff = found.live.diff()?;
        let held = found.held(&who)?;
        if json {
            return print(&pretty(&found.told(&who, &diff, held.as_ref()))?);
        }
        let mut text = found.shown(&who, &diff, Paint(colour.is_on()));
        if let Some(Held { image, paths }) = held {
            let (some, more) = (paths.iter().take(5).cloned().collect::<Vec<_>>(), paths.len() > 5);
            let (some, more) = (some.join(", "), if more { " …" } else { "" });
            text.push_str(&format!("{} of it in {image} already: {some}{more}\n", paths.len()));
        }
        print(&text)
    })
}

/// Makes the next version of what changed on a machine.
pub fn commit(commit: Commit) -> anyhow::Result<()> {
    let store = commit.at.there()?;
    if !commit.yes && !std::io::stdin().is_terminal() {
        bail!(
            "nobody is there to be asked: look at it first (koboshi image diff --machine {}), and then say --yes",
            commit.machine
        );
    }
    runtime()?.block_on(async {
        let who = Who::find(&commit.machine, &commit.asks, &commit.at, &store).await?;
        let onto = onto(&commit, &store, &who)?;
        let found = who.ask(true).await?;
        if found.live.is_empty() {
            bail!("nothing has changed on {}{}", who.machine, found.left_out());
        }
        let diff = found.live.diff()?;
        let report = found.live.lint(&commit.name)?;
        if !commit.json {
            let paint = Paint(Colour::Auto.is_on());
            print(&found.shown(&who, &diff, paint))?;
            eprint!("{}", show::found(&report));
        }
        if report.stops() && !commit.keep_findings {
            bail!(
                "secrets would be in the image: choose what is meant with --path, or say --keep-findings and \
                 allow them before it is published (koboshi image allow)"
            );
        }
        if !commit.yes && !agreed(&commit.name, onto.as_ref().unwrap_or(&who.version)).await? {
            bail!("nothing was made");
        }
        let reason = commit.reason.clone();
        let options = ImportOptions { author: author(), reason, ..Default::default() };
        let mut line = Line::new();
        let done = found.live.commit(
            &commit.name,
            onto.as_ref(),
            &who.machine,
            &options,
            &mut |step| line.show(&step),
        )?;
        line.clear();
        for warning in &done.imported.warnings {
            eprintln!("warning: {warning}");
        }
        let (version, new) = (done.imported.version, done.imported.new);
        let published = commit.publish;
        if published {
            store.publish(&version.name, Some(version.version), &by(commit.reason.clone()))?;
        }
        if commit.json {
            let (image, onto) = (version.to_string(), done.onto.to_string());
            let (machine, version) = (&*who.machine, &version);
            let findings = &report;
            let told = Committed { machine, image, version, onto, new, published, findings };
            return print(&pretty(&told)?);
        }
        let size = version.boot.layers.last().map_or(0, |layer| layer.blob.size);
        let layers = version.boot.layers.len();
        let mut text = match new {
            true => format!(
                "{version}: one layer of {} above {}, {layers} in all\n",
                mib(size),
                done.onto
            ),
            false => format!("{version} is the very same already\n"),
        };
        match published {
            true => text.push_str(&format!("{version} is what machines boot now\n")),
            false => {
                text.push_str(&format!("`koboshi image publish {version}` lets machines boot it\n"))
            }
        }
        print(&text)
    })
}

/// The version it is to lie above, if that is another one than the machine booted.
fn onto(commit: &Commit, store: &Store, who: &Who<'_>) -> anyhow::Result<Option<Version>> {
    let booted = &who.version;
    if let Some(onto) = &commit.onto {
        if onto.name != commit.name {
            bail!("--onto {onto}: it becomes a version of {}", commit.name);
        }
        return Ok(Some(store.show(&onto.to_string())?));
    }
    let Ok(newest) = store.show(&commit.name) else { return Ok(None) };
    if commit.anyway || newest.digest == booted.digest {
        return Ok(None);
    }
    if commit.name != booted.name {
        bail!(
            "{} booted {booted}, and {newest} is something else: a new name makes an image of its own, --anyway \
             the next version of {}",
            who.machine,
            commit.name
        );
    }
    bail!(
        "{} booted {booted}, and there is {newest} since\n  help: --onto {newest} lays its changes above that, \
         where both did not change the same; --anyway lays them above {booted}, without what {newest} changed",
        who.machine
    )
}

async fn agreed(name: &str, onto: &Version) -> anyhow::Result<bool> {
    eprint!("make the next version of {name} of this, above {onto}? [y/N] ");
    let answer = tokio::task::spawn_blocking(|| {
        let mut answer = String::new();
        std::io::stdin().read_line(&mut answer).map(|_| answer)
    });
    tokio::select! {
        answer = answer => {
            let answer = answer.context("reading the answer")?.context("reading the answer")?;
            Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
        }
        // The keyboard is still being read: that is not waited for.
        _ = tokio::signal::ctrl_c() => {
            eprintln!();
            std::process::exit(130);
        }
    }
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("starting the runtime")
}
