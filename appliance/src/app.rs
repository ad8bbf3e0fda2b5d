//! The running appliance as its operations see it: the site in force, the desk, the ledger, the
//! store, and the one way to change what is in force.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use koboshi_pxe::boots::Stage;
use koboshi_pxe::desk::Desk;
use koboshi_pxe::{dhcp, http, tftp};
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::bmcs::Bmcs;
use crate::diagnosis::Silence;
use crate::holds;
use crate::home::Homes;
use crate::identify::Identities;
use crate::ledger::Ledger;
use crate::lines::Lines;
use crate::publish;
use crate::rollout::Rollout;
use crate::site::{self, Problems, Site, Watched, reload};
use crate::ssh;
use crate::store::{BootRecord, Store};
use crate::syslog::Syslog;
use crate::tickets::Tickets;

/// Heartbeats come every 20 seconds.
const SILENT_UP_MS: u64 = 70_000;
/// A large root over a slow network says nothing between its beginning and its end.
const SILENT_BOOTING_MS: u64 = 300_000;

/// See the module.
pub struct App {
    /// The site file.
    pub path: PathBuf,
    /// Where its state is.
    pub state: PathBuf,
    /// Its places on the provisioning networks.
    pub homes: Homes,
    /// The site in force.
    pub site: ArcSwap<Site>,
    /// Where machines come to.
    pub desk: Arc<Desk>,
    /// What happened.
    pub ledger: Arc<Ledger>,
    /// How versions of images do.
    pub rollout: Arc<Rollout>,
    /// What is kept.
    pub store: Store,
    /// What is needed of the images.
    pub holds: Arc<holds::Keeper>,
    /// What to watch: the files of the site in force, or of the broken one that is there now.
    pub watched: ArcSwap<Watched>,
    /// Why a changed site file is not in force; empty if there is none.
    pub pending: ArcSwap<Vec<String>>,
    /// To the DHCP service.
    pub dhcp: mpsc::Sender<dhcp::Control>,
    /// The common initramfs segment and its digest.
    pub common: (Bytes, [u8; 32]),
    /// One reload at a time; the number of the last reading.
    pub revision: Mutex<u64>,
    /// What TFTP and HTTP count; DHCP is asked for its own.
    pub counters: Counters,
    /// Machines that are known by their BMCs.
    pub identities: Identities,
    /// BMCs of the site.
    pub bmcs: Arc<Bmcs>,
    /// Consoles of the site.
    pub lines: Lines,
    /// What machines log.
    pub syslog: Syslog,
    /// Where people come to them by SSH.
    pub ssh: ssh::Door,
    /// For browsers.
    pub tickets: Tickets,
    /// Machines that ran and have not come back.
    pub silent: ArcSwap<BTreeMap<String, Silence>>,
    /// What is wrong with our places on the networks, a line each.
    pub unreached: ArcSwap<Vec<String>>,
    /// The end of the process.
    pub cancel: CancellationToken,
}

/// Counts since the start.
#[derive(Debug, Clone, Default)]
pub struct Counters {
    /// TFTP's.
    pub tftp: Arc<tftp::Counters>,
    /// HTTP's.
    pub http: Arc<http::Counters>,
}

/// What came of a reload.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case", tag = "outcome")]
pub enum Reloaded {
    /// Nothing differs.
    Same,
    /// In force.
    Applied {
        /// What changed, a line each.
        changes: Vec<String>,
        /// What is not as it should be.
        warnings: Vec<String>,
        /// Changes that wait for a restart of the appliance.
        restart: Vec<String>,
    },
    /// The former site stays until `koboshi reload --accept`.
    Waits {
        /// Why, a line each.
        reasons: Vec<String>,
    },
    /// The former site stays.
    Refused {
        /// Every error, as `koboshi check` shows it.
        report: String,
        /// How many.
        errors: usize,
    },
}

impl App {
    /// Reads the site file again and puts it in force if it is right and harmless, or accepted;
    /// `dry` only says what would come of it.
    pub async fn reload(&self, accept: bool, dry: bool) -> Reloaded {
        let mut revision = self.revision.lock().await;
        let path = self.path.clone();
        let loaded = tokio::task::spawn_blocking(move || {
            let loaded = site::load(&path, &site::Env::system(site::Purpose::Serve));
            let watched = match &loaded {
                Ok(site) => site.watched.clone(),
                Err(problems) => problems.watched().clone(),
            };
            (watched, loaded.map_err(|problems| render(&problems)))
        })
        .await;
        let loaded = loaded.map(|(watched, loaded)| {
            self.watched.store(Arc::new(watched));
            loaded
        });
        let site = match loaded {
            Ok(Ok(site)) => site,
            Ok(Err((report, errors))) if dry => return Reloaded::Refused { report, errors },
            Ok(Err((report, errors))) => {
                let waits = vec![format!(
                    "it has {errors} errors; `koboshi check --site {}` shows them",
                    self.path.display()
                )];
                // Looked at again by itself: nothing new to tell.
                if *self.pending.swap(Arc::new(waits.clone())) != waits {
                    let first = report.lines().find(|line| !line.trim().is_empty());
                    let text = format!(
                        "the site file is refused and the former site stays: {} ({})",
                        waits[0],
                        first.unwrap_or_default().trim()
                    );
                    self.ledger.event("reload-refused", None, text).await;
                }
                return Reloaded::Refused { report, errors };
            }
            Err(error) => {
                return Reloaded::Refused {
                    report: format!("reading the site file failed: {error}"),
                    errors: 1,
                };
            }
        };
        let old = self.site.load_full();
        let changes = reload::diff(&old, &site);
        let newest = self.ledger.newest();
        let running = |machine: &site::MachineName| {
            let mut boots = newest.values().filter(|boot| boot.machine == machine.as_str());
            boots.any(|boot| boot.sits() && self.lives(boot))
        };
        let restart = changes.restart.clone();
        match reload::judge(&changes, &running) {
            reload::Verdict::Apply | reload::Verdict::Restart(_) => {}
            reload::Verdict::Wait(_) if accept => {}
            reload::Verdict::Wait(reasons) if dry => return Reloaded::Waits { reasons },
            reload::Verdict::Wait(reasons) => {
                let known = self.pending.swap(Arc::new(reasons.clone()));
                if *known == reasons {
                    // Looked at again by itself: nothing new to tell.
                    return Reloaded::Waits { reasons };
                }
                let text =
                    format!("a reload waits for `koboshi reload --accept`: {}", reasons.join("; "));
                self.ledger.event("reload-waits", None, text).await;
                return Reloaded::Waits { reasons };
            }
        }
        let lines: Vec<String> = match changes.is_empty() {
            true => Vec::new(),
            false => changes.to_string().lines().map(str::to_string).collect(),
        };
        if dry {
            return match lines.is_empty() {
                true => Reloaded::Same,
                false => Reloaded::Applied { changes: lines, warnings: Vec::new(), restart },
            };
        }
        *revision += 1;
        let site = Arc::new(site);
        let warnings = match self.publish(site.clone(), *revision).await {
            Ok(warnings) => warnings,
            Err(error) => return Reloaded::Refused { report: error, errors: 1 },
        };
        self.lines.follow(site.clone());
        self.syslog.set_bounds(site.logs.into());
        self.site.store(site);
        self.pending.store(Arc::default());
        if lines.is_empty() {
            return Reloaded::Same;
        }
        let text = format!("the site was read again: {}", lines.join("; "));
        self.ledger.event("reload", None, text).await;
        Reloaded::Applied { changes: lines, warnings, restart }
    }

    /// Whether a machine that had its seat's address when last heard of may still have it: one that
    /// is up and silent for three heartbeats, or was on its way and is for five minutes, does not.
    fn lives(&self, boot: &BootRecord) -> bool {
        let patience = if boot.stage == Stage::Up { SILENT_UP_MS } else { SILENT_BOOTING_MS };
        // Nobody could be heard before we listened.
        let heard = self.ledger.heard(boot.mac).unwrap_or(boot.opened).max(self.ledger.began());
        crate::ledger::now_ms().saturating_sub(heard) < patience
    }

    /// Looks again at a changed site file that waits: machines may have stopped since.
    pub async fn look_again(&self) -> Option<Reloaded> {
        if self.pending.load().is_empty() {
            return None;
        }
        match self.reload(false, false).await {
            Reloaded::Waits { .. } | Reloaded::Refused { .. } => None,
            applied => Some(applied),
        }
    }

    /// Lays what machines say of themselves beside the site in force.
    pub async fn weigh_evidence(&self) {
        let (site, all) = (self.site.load_full(), self.ledger.hardware());
        let weighed = tokio::task::spawn_blocking(move || {
            let others = crate::hardware::Others::of(&site, &all);
            let found = all.iter().map(|(machine, record)| {
                (machine.clone(), crate::hardware::evidence(&site, record, &others))
            });
            found.filter(|(_, found)| !found.is_empty()).collect()
        });
        match weighed.await {
            Ok(evidence) => self.ledger.weigh(evidence).await,
            Err(error) => tracing::error!(%error, "evidence could not be weighed"),
        }
    }

    /// Images changed: the same site, read against what is there now.
    pub async fn republish(&self) {
        let mut revision = self.revision.lock().await;
        *revision += 1;
        match self.publish(self.site.load_full(), *revision).await {
            Ok(warnings) => warnings.iter().for_each(|warning| tracing::warn!("{warning}")),
            Err(error) => tracing::error!("{error}"),
        }
    }

    async fn publish(&self, site: Arc<Site>, revision: u64) -> Result<Vec<String>, String> {
        let (state, homes, common) = (self.state.clone(), self.homes.clone(), self.common.clone());
        let known = self.identities.of(&site);
        let rollout = self.rollout.clone();
        let holds = self.holds.clone();
        let reading = tokio::task::spawn_blocking(move || {
            let images = koboshi_images::Store::open(state.join("images"))
                .map_err(|error| error.to_string())?;
            Ok::<_, String>(publish::held(&holds, || {
                let (site, common) = (site.clone(), common.clone());
                publish::read(site, &images, &rollout, &homes, &known, revision, common)
            }))
        })
        .await
        .map_err(|error| format!("the site could not be put in force: {error}"))??;
        self.desk.publish(reading.snapshot);
        self.ledger.keep(reading.told).await;
        Ok(reading.warnings)
    }

    /// Tells whoever removes images what machines boot and run.
    pub async fn hold(&self) {
        let now = crate::ledger::now_ms();
        let began = self.ledger.began();
        let needed = self.ledger.look(|boots, heard, _| holds::of_boots(boots, heard, began, now));
        let holds = self.holds.clone();
        let written = tokio::task::spawn_blocking(move || holds.boots(needed.0, needed.1)).await;
        if let Ok(Err(error)) = written {
            tracing::error!("what machines need of the images is not written: {error}");
        }
    }

    /// What DHCP has counted.
    pub async fn dhcp_counters(&self) -> dhcp::Counters {
        let (answer, counters) = oneshot::channel();
        if self.dhcp.send(dhcp::Control::Counters(answer)).await.is_err() {
            return dhcp::Counters::default();
        }
        counters.await.unwrap_or_default()
    }

    /// The DHCP service's leases.
    pub async fn leases(&self) -> Vec<dhcp::server::LeaseStatus> {
        let (answer, leases) = oneshot::channel();
        if self.dhcp.send(dhcp::Control::Leases(answer)).await.is_err() {
            return Vec::new();
        }
        leases.await.unwrap_or_default()
    }
}

/// The report of `koboshi check`, plain, and the number of errors.
pub fn render(problems: &Problems) -> (String, usize) {
    let errors = problems.iter().filter(|problem| problem.severity == site::Severity::Error);
    (problems.render(site::Look::Plain), errors.count())
}
