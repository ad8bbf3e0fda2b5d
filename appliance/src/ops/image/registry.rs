//! `koboshi image pull` and `push`: images from and to registries.

use std::path::PathBuf;

use clap::Args;
use koboshi_images::ImportOptions;
use koboshi_images::registry::{Options, Remote, pull, push};

use super::progress::Line;
use super::take::told;
use super::{At, author, print};

/// `koboshi image pull`
#[derive(Debug, Args)]
pub struct Pull {
    /// Name it gets here
    name: String,
    /// docker://host[:port]/repository[:tag|@sha256:…]
    from: Remote,
    /// What for
    #[arg(long)]
    reason: Option<String>,
    /// Machines may boot it at once
    #[arg(long)]
    publish: bool,
    /// How the registry is reached
    #[command(flatten)]
    how: How,
    /// Where the images are
    #[command(flatten)]
    at: At,
}

/// `koboshi image push`
#[derive(Debug, Args)]
pub struct Push {
    /// `web` for the newest, `web@3` for that one
    image: String,
    /// docker://host[:port]/repository[:tag]
    to: Remote,
    /// How the registry is reached
    #[command(flatten)]
    how: How,
    /// Where the images are
    #[command(flatten)]
    at: At,
}

/// How the registry is reached.
#[derive(Debug, Clone, Args)]
pub struct How {
    /// File with a line user:password, or an auth.json; else what `podman login` or `docker login` keep
    #[arg(long, value_name = "FILE")]
    creds_file: Option<PathBuf>,
    /// Certificates to trust instead of the world's (PEM)
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Without TLS: anybody between here and there reads the login, and may change a tag's image
    #[arg(long)]
    plain_http: bool,
}

impl From<How> for Options {
    fn from(how: How) -> Options {
        let How { creds_file, ca, plain_http } = how;
        Options { creds_file, ca, plain_http }
    }
}

impl Pull {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let store = self.at.store()?;
        let options = ImportOptions {
            author: author(),
            reason: self.reason.clone(),
            ..ImportOptions::default()
        };
        let mut line = Line::new();
        let how = self.how.into();
        let pulled =
            pull(&store, &self.name, &self.from, &how, &options, &mut |step| line.show(&step))?;
        line.clear();
        told(&store, pulled, self.publish, self.reason)
    }
}

impl Push {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let store = self.at.there()?;
        let version = store.show(&self.image)?;
        let mut line = Line::new();
        let how = self.how.into();
        let digest =
            push(&store, &version.to_string(), &self.to, &how, &mut |step| line.show(&step))?;
        line.clear();
        print(&format!("{version} is {}, {digest}\n", self.to))
    }
}
