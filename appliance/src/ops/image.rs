//! `koboshi image …`: offline, on the store of a state directory. A running appliance notices.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use koboshi_images::{
    BuildOptions, ImportOptions, Imported, Kernel, Progress, Store, Version, build, import, squash,
};

use super::table::table;

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
        /// A shipped recipe (rescue, web) or a recipe file
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
    Ls {
        /// For programs
        #[arg(long)]
        json: bool,
        /// Where the images are
        #[command(flatten)]
        at: At,
    },
    /// Show one version
    Show {
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
    },
    /// Let machines boot the newest version, or `web@3`
    Publish {
        /// Image
        image: String,
        /// Where the images are
        #[command(flatten)]
        at: At,
    },
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
            told(&store, imported, publish)
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
            told(&store, imported, publish)
        }
        Command::Squash { image, at } => {
            let store = at.there()?;
            let mut line = Line::new();
            let (version, new) = squash(&store, &image, &mut |step| line.show(&step))?;
            line.clear();
            let size = version.boot.squashfs.map_or(0, |blob| blob.size);
            let what = if new { "has" } else { "already has" };
            print(&format!("{version} {what} its squashfs: {}\n", mib(size)))
        }
        Command::Ls { json, at } => {
            let versions = at.there()?.list()?;
            let text = if json { pretty(&versions)? } else { list(&versions) };
            print(&text)
        }
        Command::Show { image, verify, json, at } => {
            let store = at.there()?;
            let version = store.show(&image)?;
            if verify {
                store.verify(&version)?;
            }
            print(&if json { pretty(&version)? } else { show(&version, verify) })
        }
        Command::Publish { image, at } => {
            let wanted: koboshi_images::ImageRef = image.parse()?;
            let version = at.there()?.publish(&wanted.name, wanted.version)?;
            print(&format!("{}@{} is what machines boot now\n", version.name, version.version))
        }
    }
}

fn told(store: &Store, imported: Imported, publish: bool) -> anyhow::Result<()> {
    for warning in &imported.warnings {
        eprintln!("warning: {warning}");
    }
    let version = &imported.version;
    let (name, number) = (&version.name, version.version);
    let what = if imported.new {
        "is in the store"
    } else {
        "is in the store already, the same to the bit"
    };
    let mut text = format!(
        "{name}@{number} {what}: kernel {}, root {}\n",
        version.boot.kernel_release,
        mib(version.boot.root.size)
    );
    if publish {
        store.publish(name, Some(number))?;
        text.push_str(&format!("{name}@{number} is what machines boot now\n"));
    } else if version.published.is_none() {
        text.push_str(&format!("`koboshi image publish {name}` lets machines boot it\n"));
    }
    print(&text)
}

fn list(versions: &[Version]) -> String {
    if versions.is_empty() {
        return "no images; `koboshi image build rescue` makes one, `koboshi image import` takes one in\n".into();
    }
    let rows: Vec<Vec<String>> = versions
        .iter()
        .map(|version| {
            vec![
                format!("{}@{}", version.name, version.version),
                if version.published.is_some() { "published" } else { "-" }.to_string(),
                version.boot.kernel_release.clone(),
                mib(version.boot.root.size),
                mib(version.boot.unpacked),
                version.created.strftime("%Y-%m-%d %H:%M").to_string(),
                version.reason.clone().unwrap_or_default(),
            ]
        })
        .collect();
    table(&["IMAGE", "STATE", "KERNEL", "ROOT", "UNPACKED", "CREATED", "REASON"], &rows)
}

fn show(version: &Version, verified: bool) -> String {
    let boot = &version.boot;
    let mut text = format!("{}@{}  {}\n", version.name, version.version, version.digest);
    let mut line = |name: &str, value: String| text.push_str(&format!("  {name:<10} {value}\n"));
    line("created", version.created.to_string());
    let state = version.published.map(|at| format!("{at}")).unwrap_or_else(|| "no".to_string());
    line("published", state);
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
    let unpacked = mib(boot.unpacked);
    if let Some(squashfs) = &boot.squashfs {
        line("squashfs", format!("{}  {}", mib(squashfs.size), squashfs.digest));
    }
    line("root", format!("{}  {}", mib(boot.root.size), boot.root.digest));
    line("unpacked", format!("{unpacked} in {} files", version.inodes));
    if verified {
        line("verified", "every blob has the digest it is named by".to_string());
    }
    text
}

/// Progress: a bar on a terminal; elsewhere a line for each step, so that a log stays readable.
struct Line {
    bar: ProgressBar,
    terminal: bool,
    said: String,
    last: Instant,
}

impl Line {
    fn new() -> Line {
        let bar = ProgressBar::new(1000);
        let style = ProgressStyle::with_template("{bar:30} {percent:>3} %  {msg}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        let terminal = std::io::stderr().is_terminal();
        Line { bar, terminal, said: String::new(), last: Instant::now() }
    }

    fn show(&mut self, progress: &Progress) {
        let (text, done) = match progress {
            Progress::Step(text) => (text.clone(), None),
            Progress::Unpacking { bytes } => (format!("unpacks, {}", mib(*bytes)), None),
            Progress::Reading { entries } => (format!("reads, {entries} names"), None),
            Progress::Squashing { done, total } => {
                (format!("squashes the root, {}", mib(*total)), Some(done * 1000 / (*total).max(1)))
            }
            Progress::Modules { release } => (format!("packs the modules of {release}"), None),
            Progress::Packing { done, total } => {
                (format!("packs the root, {}", mib(*total)), Some(done * 1000 / (*total).max(1)))
            }
        };
        if self.terminal {
            self.bar.set_position(done.unwrap_or(0));
            self.bar.set_message(text);
            return;
        }
        // The same step with another figure is said at most once in ten seconds.
        let step = text.split(',').next().unwrap_or_default().to_string();
        if step != self.said || self.last.elapsed() > Duration::from_secs(10) {
            eprintln!("{text}");
            self.said = step;
            self.last = Instant::now();
        }
    }

    fn clear(&self) {
        if self.terminal {
            self.bar.finish_and_clear();
        }
    }
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
