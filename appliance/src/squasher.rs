//! What roles wait for and the appliance can get by itself: the squashfs of an image, made by
//! `koboshi image squash` in a process of its own, one at a time; the new address of an NFS server.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use koboshi_images::Store as Images;
use tokio::process::{Child, Command};

use crate::app::App;
use crate::lab::appliance::own_path;
use crate::roots;
use crate::site::RootMode;

/// After a failure: a disk that was full may have room, a package may be installed.
const AGAIN: Duration = Duration::from_secs(60);
const LOOK_UP_AGAIN: Duration = Duration::from_secs(30);

/// Looks after it. Each call of [`Squasher::look`] is short.
pub struct Squasher {
    app: Arc<App>,
    images: PathBuf,
    running: Option<(String, Child)>,
    /// When it failed last.
    failed: BTreeMap<String, Instant>,
    servers: Vec<(String, Option<Ipv4Addr>)>,
    looked_up: Option<Instant>,
}

impl Squasher {
    /// For the images of this appliance.
    pub fn new(app: Arc<App>, images: PathBuf) -> Squasher {
        let (running, failed, servers, looked_up) = (None, BTreeMap::new(), Vec::new(), None);
        Squasher { app, images, running, failed, servers, looked_up }
    }

    /// Begins what is due, and notices what has ended.
    pub async fn look(&mut self) {
        self.look_up().await;
        if let Some((image, child)) = &mut self.running {
            let ended = match child.try_wait() {
                Ok(None) => return,
                Ok(Some(status)) if status.success() => Ok(()),
                Ok(Some(status)) => Err(status.to_string()),
                Err(error) => Err(error.to_string()),
            };
            let image = std::mem::take(image);
            self.running = None;
            self.ended(image, ended).await;
        }
        if let Some(image) = self.due().await {
            self.begin(image).await;
        }
    }

    async fn ended(&mut self, image: String, ended: Result<(), String>) {
        // Where it went well the store's index has changed, and whoever watches that publishes.
        let Err(why) = ended else {
            self.failed.remove(&image);
            let text = format!("the squashfs of {image} is made");
            return self.app.ledger.event("squashed", None, text).await;
        };
        let text = format!(
            "the squashfs of {image} was not made ({why}; the appliance's log has the words): tried \
             again in {} s",
            AGAIN.as_secs()
        );
        tracing::error!("{text}");
        if self.failed.insert(image, Instant::now()).is_none() {
            self.app.ledger.event("squash-failed", None, text).await;
        }
    }

    /// The next image without its squashfs whose last failure is old enough.
    async fn due(&self) -> Option<String> {
        let site = self.app.site.load_full();
        if !site.roles.values().any(|role| role.root == RootMode::Overlay) {
            return None;
        }
        let dir = self.images.clone();
        let wanted = tokio::task::spawn_blocking(move || {
            Images::open(dir).map(|images| roots::unsquashed(&site, &images)).unwrap_or_default()
        });
        let recent = |image: &String| self.failed.get(image).is_some_and(|at| at.elapsed() < AGAIN);
        wanted.await.unwrap_or_default().into_iter().find(|image| !recent(image))
    }

    async fn begin(&mut self, image: String) {
        // nice(1): machines that boot now come before those that will.
        let mut command = Command::new("nice");
        command.args(["-n", "10"]).arg(own_path()).args(["image", "squash", &image, "--state"]);
        command.arg(&self.app.state).stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true);
        match command.spawn() {
            Ok(child) => {
                let text = format!("the squashfs of {image} is being made, for root = \"overlay\"");
                self.app.ledger.event("squash", None, text).await;
                self.running = Some((image, child));
            }
            Err(error) => {
                tracing::error!("`koboshi image squash {image}` does not start: {error}");
                self.failed.insert(image, Instant::now());
            }
        }
    }

    /// Reads the site against the images again when a server's name means another address, or at
    /// last one.
    async fn look_up(&mut self) {
        if self.looked_up.is_some_and(|at| at.elapsed() < LOOK_UP_AGAIN) {
            return;
        }
        self.looked_up = Some(Instant::now());
        let site = self.app.site.load_full();
        let found = tokio::task::spawn_blocking(move || roots::servers(&site)).await;
        let found = found.unwrap_or_default();
        if found != self.servers {
            self.servers = found;
            self.app.republish().await;
        }
    }
}
