//! Consoles by SSH, on the maintenance network alone: where it listens, by which key people know it, and what the
//! keys of people may do here.
//!
//! That it cannot listen is no reason for machines not to boot: it is told, and tried again.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use koboshi_console::ssh::{Authorized, Consoles, HostKey, Key, NotReached, Reach, Server, Times};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::api::Refusal;
use crate::app::App;
use crate::ops;
use crate::rights::{Machines, Principal, Verb, may};
use crate::site::hostlist::{HostList, Sign, Term};
use crate::site::{MachineName, Site};

/// Between two attempts to listen.
const AGAIN: Duration = Duration::from_secs(10);
/// Between two looks at which file the site names.
const LOOK: Duration = Duration::from_secs(1);

/// What is known of it while it runs.
#[derive(Debug, Default)]
pub struct Door {
    authorized: Arc<Authorized>,
    stands: Mutex<Stands>,
}

#[derive(Debug, Clone, Default)]
struct Stands {
    at: Option<SocketAddr>,
    why: Option<String>,
    fingerprint: Option<String>,
    public: Option<String>,
}

/// How it stands, for people who compare fingerprints and wonder why they are not let in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// Where it listens.
    pub at: Option<SocketAddr>,
    /// Why it does not.
    pub why: Option<String>,
    /// `SHA256:…` of the host key.
    pub fingerprint: Option<String>,
    /// The host key's public half.
    pub host_key: Option<String>,
    /// The file of keys.
    pub authorized_keys: Option<PathBuf>,
    /// Keys that let somebody in.
    pub keys: usize,
    /// Lines of it that are not taken, and why nobody is let in, if so.
    pub problems: Vec<String>,
}

impl Door {
    /// How it stands.
    pub fn answer(&self) -> Answer {
        let Stands { at, why, fingerprint, public } = self.stands().clone();
        let (authorized_keys, nobody) = self.authorized.told();
        let keys = self.authorized.keys();
        let problems = keys.refused.iter().map(ToString::to_string).chain(nobody);
        Answer {
            at,
            why,
            fingerprint,
            host_key: public,
            authorized_keys,
            keys: keys.len(),
            problems: problems.collect(),
        }
    }

    fn stands(&self) -> std::sync::MutexGuard<'_, Stands> {
        self.stands.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn follow(&self, site: &Site) {
        let path = site.consoles.authorized_keys.as_ref().map(|path| path.value.clone());
        self.authorized.follow(path);
    }
}

/// Listens and serves until cancelled.
pub async fn run(app: Arc<App>, cancel: CancellationToken) -> anyhow::Result<()> {
    // A change of it waits for a restart, as the site file says.
    let at = app.site.load().admin.ssh;
    app.ssh.follow(&app.site.load());
    let mut told = None;
    let (listener, key) = loop {
        match open(at, &app.state).await {
            Ok(open) => break open,
            Err(why) => {
                let why = format!("{why:#}");
                if told.as_ref() != Some(&why) {
                    tracing::error!("{why}");
                    app.ledger.event("ssh", None, format!("no consoles by SSH: {why}")).await;
                    app.ssh.stands().why = Some(why.clone());
                    told = Some(why);
                }
            }
        }
        if cancel.run_until_cancelled(tokio::time::sleep(AGAIN)).await.is_none() {
            return Ok(());
        }
    };
    tracing::info!("consoles by SSH at {at}; host key {}", key.fingerprint);
    *app.ssh.stands() = Stands {
        at: listener.local_addr().ok(),
        why: None,
        fingerprint: Some(key.fingerprint.clone()),
        public: Some(key.public.clone()),
    };
    let follow = async {
        loop {
            tokio::time::sleep(LOOK).await;
            app.ssh.follow(&app.site.load());
        }
    };
    let consoles = Arc::new(Of(app.clone()));
    let authorized = app.ssh.authorized.clone();
    let server = Server { key, authorized, consoles, times: Times::default() };
    tokio::select! {
        () = server.serve(listener, cancel) => Ok(()),
        never = follow => never,
    }
}

async fn open(at: SocketAddr, state: &Path) -> anyhow::Result<(TcpListener, HostKey)> {
    let key = HostKey::at(&state.join("ssh")).context("the host key of SSH")?;
    let listener = TcpListener::bind(at).await.with_context(|| format!("SSH on {at}"))?;
    Ok((listener, key))
}

/// The consoles of this appliance.
struct Of(Arc<App>);

impl Consoles for Of {
    fn reach(&self, key: &Key, who: &str) -> Result<Reach, NotReached> {
        let site = self.0.site.load();
        let principal = principal(&site, key);
        let query = ops::console::Query { who: who.to_string(), last: 0 };
        let reached = ops::console::watch(&self.0, &query, |machine| {
            if may(&principal, Verb::Watch, Some(machine.as_str())) {
                return Ok(());
            }
            let (name, line) = (&key.name, key.line);
            let error = format!(
                "{name} may not look at {machine}'s console (line {line} of the authorized keys)"
            );
            Err(Refusal { status: 403, error, help: None })
        });
        let (machine, _) = reached.map_err(|refusal| match refusal.status {
            // Whoever may not see all does not learn their names by guessing.
            404 if key.limits.is_some() => {
                NotReached::Unknown(format!("there is no console {who:?}"))
            }
            404 => NotReached::Unknown(refusal.error),
            _ => NotReached::Refused(refusal.error),
        })?;
        let types = may(&principal, Verb::Type, Some(machine.as_str()));
        let line = self.0.lines.handle(&machine);
        let line =
            line.ok_or_else(|| NotReached::Refused(format!("{machine}'s console is gone")))?;
        Ok(Reach { name: machine.to_string(), line, types })
    }

    fn list(&self, key: &Key) -> String {
        let site = self.0.site.load();
        let principal = principal(&site, key);
        let mut rows = ops::console::all(&self.0);
        rows.retain(|row| may(&principal, Verb::Watch, Some(&row.machine)));
        if rows.is_empty() {
            return format!("there are no consoles that {} may look at\n", key.name);
        }
        ops::console::show(&rows)
    }

    fn note(&self, who: Option<&str>, text: String) {
        tracing::info!(who, "{text}");
        let (ledger, who) = (self.0.ledger.clone(), who.map(str::to_string));
        tokio::spawn(async move { ledger.event("ssh", who, text).await });
    }
}

/// What a key stands for on this site, as it is now.
fn principal(site: &Site, key: &Key) -> Principal {
    let (watch, types) = match &key.limits {
        None => (Machines::All, Machines::All),
        Some(limits) => {
            (machines(site, limits.watch.as_deref()), machines(site, limits.types.as_deref()))
        }
    };
    Principal::Key { name: key.name.clone(), watch, types }
}

/// Those of a list that are there. A machine that is gone takes nothing from the others of its list; what is to be
/// left out and is not known leaves out all.
fn machines(site: &Site, list: Option<&str>) -> Machines {
    let list = match list.map(str::trim) {
        Some("*" | "@all") => return Machines::All,
        list => list.unwrap_or_default(),
    };
    let one = |name: &str| {
        let machine = site.machines.get_key_value(name).map(|(machine, _)| machine);
        machine.or_else(|| site.seated.get(name)).map(MachineName::to_string)
    };
    let mut out = BTreeSet::new();
    for (sign, term) in list.parse().map(|HostList(terms)| terms).unwrap_or_default() {
        let found: Option<BTreeSet<String>> = match &term {
            Term::Names(names) => Some(names.iter().filter_map(|name| one(name)).collect()),
            Term::Group(group) => {
                let group = site.who(&format!("@{group}")).ok();
                group.map(|group| group.iter().map(MachineName::to_string).collect())
            }
        };
        match (sign, found) {
            (Sign::And, found) => out.extend(found.unwrap_or_default()),
            (Sign::Not, Some(found)) => out.retain(|machine| !found.contains(machine)),
            (Sign::Not, None) => return Machines::Of(BTreeSet::new()),
        }
    }
    Machines::Of(out)
}

/// For a terminal.
pub fn show(answer: &Answer) -> String {
    let Answer { at, why, fingerprint, host_key, authorized_keys, keys, problems } = answer;
    let mut out = String::new();
    let mut line = |text: String| {
        out.extend(text.chars().map(|c| if c.is_control() { '·' } else { c }));
        out.push('\n');
    };
    match (at, fingerprint) {
        (Some(at), Some(fingerprint)) => {
            line(format!("consoles by SSH at {at}; host key ED25519 {fingerprint}"));
            if let Some(host_key) = host_key {
                line(format!("for known_hosts: [{}]:{} {host_key}", at.ip(), at.port()));
            }
        }
        _ => line(format!("no consoles by SSH: {}", why.as_deref().unwrap_or("it begins"))),
    }
    if let Some(path) = authorized_keys {
        let many = if *keys == 1 { "1 key lets" } else { &format!("{keys} keys let") };
        line(format!("{many} somebody in, in {}", path.display()));
    }
    for problem in problems {
        line(format!("  {problem}"));
    }
    out
}
