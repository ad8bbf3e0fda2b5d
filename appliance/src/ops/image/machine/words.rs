//! What may be typed of a machine that runs and of its image.

use clap::{Args, ValueEnum};
use koboshi_images::ImageRef;

use crate::ops::image::At;

/// Which machine is asked, and how.
#[derive(Debug, Clone, Args)]
pub struct Asks {
    /// Only these paths of the machine and what is below them; one that lies among logs, caches and the like
    /// is meant nevertheless
    #[arg(long = "path", value_name = "PATH", requires = "machine")]
    pub(super) paths: Vec<String>,
    /// Also what every machine writes by itself: logs, caches, keys, names, addresses
    #[arg(long, requires = "machine")]
    pub(super) all: bool,
    /// By which way the machine is asked
    #[arg(long, value_enum, default_value = "auto", value_name = "WAY")]
    pub(super) via: Via,
    /// As whom by SSH; another one than root asks by `sudo -n`
    #[arg(long, value_name = "USER", default_value = "root")]
    pub(super) ssh_user: String,
    /// Where SSH listens on the machine
    #[arg(long, value_name = "PORT", default_value_t = 22)]
    pub(super) ssh_port: u16,
    /// Take the machine's console from whoever has it
    #[arg(long)]
    pub(super) take: bool,
}

/// By which way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Via {
    /// By SSH, and over the console where that does not go
    Auto,
    /// Over the machine's console, where a shell of root's waits
    Console,
    /// By SSH, with your own keys and agent; nothing is asked back
    Ssh,
}

/// `koboshi image commit`
#[derive(Debug, Args)]
pub struct Commit {
    /// The image whose next version it becomes
    pub(super) name: String,
    /// The machine that was changed: its name, or the seat it is in
    #[arg(long, value_name = "WHO")]
    pub(super) machine: String,
    #[command(flatten)]
    pub(super) asks: Asks,
    /// What for
    #[arg(long)]
    pub(super) reason: Option<String>,
    /// Above this version instead of the one that the machine booted; refused where both changed the same
    #[arg(long, value_name = "IMAGE@N", conflicts_with = "anyway")]
    pub(super) onto: Option<ImageRef>,
    /// Above the version that the machine booted although there is a newer one: what that changed is not in it
    #[arg(long)]
    pub(super) anyway: bool,
    /// Also with secrets in it; a publish refuses it until they are allowed (koboshi image allow)
    #[arg(long)]
    pub(super) keep_findings: bool,
    /// Machines may boot it at once
    #[arg(long)]
    pub(super) publish: bool,
    /// Do not ask: what changed was looked at before (koboshi image diff --machine)
    #[arg(long, short)]
    pub(super) yes: bool,
    /// For programs; asks nothing, and so needs --yes
    #[arg(long, requires = "yes")]
    pub(super) json: bool,
    /// Where the images are, and the appliance's socket
    #[command(flatten)]
    pub(super) at: At,
}
