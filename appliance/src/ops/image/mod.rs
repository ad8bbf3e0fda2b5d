//! `koboshi image …`: offline, on the store of a state directory. A running appliance notices.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, Subcommand};
use koboshi_images::{BuildOptions, By, ImportOptions, Kernel, Store, build, import, squash};

use progress::Line;
use take::told;

mod collect;
mod diff;
mod lint;
mod list;
mod machine;
mod progress;
mod registry;
mod take;
mod test;
mod trial;
mod versions;

/// What is asked.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Take in a root file system: a directory, a tar, an OCI or docker archive
    Import {
        /// Image name
        name: String,
        /// Root file system with its kernel in /boot and modules in /usr/lib/modules
        path: PathBuf,
        /// What for
        #[arg(long)]
        reason: Option<String>,
        /// Machines may boot it at once
        #[arg(long)]
        publish: bool,
        /// Where the images are
        #[command(flatten)]
        at: At,
    },
    /// Build an image of a recipe
    Build {
        /// A shipped recipe (rescue, web, lb, db, wipe, setup) or a recipe file
        recipe: String,
        /// Kernel instead of the recipe's: metal (all hardware), cloud (virtual machines), or a package
        #[arg(long)]
        kernel: Option<Kernel>,
        /// Name of the image, instead of the recipe's
        #[arg(long)]
        name: Option<String>,
        /// Leave the kernel's modules out of the root: smaller, but nothing can be loaded later
        #[arg(long)]
        slim: bool,
        /// Debian mirror
        #[arg(long, value_name = "URL")]
        mirror: Option<String>,
        /// Fetch everything anew; else lists and roots of the last day are used again
        #[arg(long)]
        fresh: bool,
        /// Where downloaded packages are kept
        #[arg(long, value_name = "DIR")]
        cache: Option<PathBuf>,
        /// Machines may boot it at once
        #[arg(long)]
        publish: bool,
        /// Where the images are
        #[command(flatten)]
        at: At,
    },
    /// Make the squashfs of a version's root, for roles with root = "overlay" (the appliance does it by itself)
    Squash {
        /// `web` for the newest, `web@3` for that one
        image: String,
        /// Where the images are
        #[command(flatten)]
        at: At,
    },
    /// List images and their versions
    Ls(list::List),
    /// Show one version: its layers, what it was made from, why it stays
    Show(list::Show),
    /// Fetch an image from a registry: the next version of NAME, with its layers as they are
    ///
    /// What is broken off is gone on with; what is here already is not fetched.
    Pull(registry::Pull),
    /// Send a version to a registry, byte for byte
    Push(registry::Push),
    /// Look for keys, passwords, tokens and the like in an image; fails where a publish would
    ///
    /// Whoever reaches the provisioning network reads images, so a publish refuses them with secrets in.
    /// What is only risky (files everybody may write to, setuid programs) is told and stops nothing.
    Lint(lint::Lint),
    /// Answer for something `image lint` finds, or list what is allowed
    ///
    /// An allowance is for the very thing that was found: another key at the same path is found again.
    /// It holds for later versions of the image too.
    Allow(lint::Allow),
    /// Let machines boot the newest version, or `web@3`
    Publish(trial::Publish),
    /// Boot a version in the virtual rack, and see whether it comes up
    Test(test::Test),
    /// How versions do that are on trial on single machines
    Trial(trial::Trials),
    /// Let machines that fell back by themselves try again what failed on them
    Retry(trial::Retry),
    /// In what two versions differ: files, owners, modes, sizes, lines, packages; or a machine that runs from what
    /// it booted
    Diff(Box<diff::Asked>),
    /// Make the next version of what was changed on a machine that runs
    Commit(Box<machine::Commit>),
    /// Let machines boot again what they booted before the last publish
    Rollback(versions::Rollback),
    /// Keep a version whatever becomes of the others
    Pin(versions::Pin),
    /// Let go of a version that was pinned
    Unpin(versions::Pin),
    /// Remove versions that nobody needs
    Rm(collect::Remove),
    /// Remove all old versions that nobody needs, and blobs that nothing leads to
    Gc(collect::Collect),
    /// What was done to images, when, by whom and why
    Log(versions::Told),
}

/// Where the images are.
#[derive(Debug, Clone, Args)]
pub struct At {
    /// State directory of the appliance
    #[arg(long, value_name = "DIR", default_value = "/var/lib/koboshi", env = "KOBOSHI_STATE")]
    state: PathBuf,
}

impl At {
    fn store(&self) -> anyhow::Result<Store> {
        let dir = self.state.join("images");
        std::fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
        Ok(Store::open(dir)?)
    }

    /// For those that only look: a mistyped directory is said, not made.
    fn there(&self) -> anyhow::Result<Store> {
        let dir = self.state.join("images");
        if !dir.is_dir() {
            anyhow::bail!(
                "no images in {}: name the appliance's state directory with --state",
                self.state.display()
            );
        }
        Ok(Store::open(dir)?)
    }
}

/// Does it.
pub fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Import { name, path, reason, publish, at } => {
            let store = at.store()?;
            let options = ImportOptions { author: author(), reason, ..Default::default() };
            let mut line = Line::new();
            let imported = import(&store, &name, &path, &options, &mut |step| line.show(&step))?;
            line.clear();
            told(&store, imported, publish, options.reason)
        }
        Command::Build { recipe, name, kernel, slim, mirror, fresh, cache, publish, at } => {
            let store = at.store()?;
            let cache = cache.unwrap_or_else(|| at.state.join("cache"));
            let mut line = Line::new();
            let mut options = BuildOptions::new(cache);
            options.name = name;
            options.kernel = kernel;
            options.slim = slim;
            options.fresh = fresh;
            options.mirror = mirror;
            options.import.author = author();
            let imported = build(&store, &recipe, &options, &mut |step| line.show(&step))?;
            line.clear();
            told(&store, imported, publish, None)
        }
        Command::Squash { image, at } => {
            let store = at.there()?;
            let mut line = Line::new();
            let (version, new) = squash(&store, &image, &mut |step| line.show(&step))?;
            line.clear();
            let squashed = version.boot.squashed().unwrap_or_default();
            let size = squashed.iter().map(|blob| blob.size).sum();
            let what = if new { "has" } else { "already has" };
            print(&format!("{version} {what} its squashfs: {}\n", mib(size)))
        }
        Command::Ls(asked) => asked.run(),
        Command::Show(asked) => asked.run(),
        Command::Pull(asked) => asked.run(),
        Command::Push(asked) => asked.run(),
        Command::Lint(asked) => asked.run(),
        Command::Allow(asked) => asked.run(),
        Command::Publish(asked) => asked.run(),
        Command::Test(asked) => asked.run(),
        Command::Trial(asked) => asked.run(),
        Command::Retry(asked) => asked.run(),
        Command::Diff(asked) => asked.run(),
        Command::Commit(commit) => machine::commit(*commit),
        Command::Rollback(asked) => asked.run(),
        Command::Pin(asked) => asked.run(true),
        Command::Unpin(asked) => asked.run(false),
        Command::Rm(asked) => asked.run(),
        Command::Gc(asked) => asked.run(),
        Command::Log(asked) => asked.run(),
    }
}

/// Whoever types, and why.
fn by(reason: Option<String>) -> By {
    By { author: author(), reason }
}

fn author() -> Option<String> {
    std::env::var("SUDO_USER").or_else(|_| std::env::var("USER")).ok()
}

fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

fn pretty(value: &impl serde::Serialize) -> anyhow::Result<String> {
    Ok(format!("{}\n", serde_json::to_string_pretty(value)?))
}

fn print(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}
