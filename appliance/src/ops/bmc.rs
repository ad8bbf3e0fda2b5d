//! `koboshi bmc m01 info|reset|users|…`: the BMC itself, as against the machine behind it.

use koboshi_ipmi::Controller;
use koboshi_ipmi::commands::channel::{self, Store};
use koboshi_ipmi::commands::device::{self, ResetTold};
use koboshi_ipmi::commands::{authentication, panel, raw, sessions};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::many::{Deed, Failure, On, Operation, Said};
use crate::bmcs::Lent;

pub(super) mod accounts;
mod console;

pub use accounts::{Typed, UserChange};
pub use console::SolChange;

/// What is asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Query {
    /// Who it is, and whether it is well.
    Info,
    /// Starts it anew.
    Reset {
        /// Only its software.
        warm: bool,
    },
    /// Its accounts.
    Users,
    /// Changes one of them.
    User(UserChange),
    /// How it does Serial over LAN; changes what is given.
    Sol(SolChange),
    /// Its channels, and who may come in by them.
    Channel,
    /// A request by its bytes.
    Raw(Vec<String>),
    /// The light by which it is found in the room.
    Identify {
        /// For so long; none: until told otherwise; zero: no more.
        seconds: Option<u8>,
    },
    /// Who is logged in.
    Sessions,
    /// Drops what was learned of it.
    Forget,
}

impl Operation for Query {
    const NAME: &'static str = "bmc";

    fn headings(&self) -> &'static [&'static str] {
        match self {
            Query::Info => &[
                "MAKER     ",
                "PRODUCT",
                "FIRMWARE",
                "IPMI",
                "SESSION            ",
                "GUID                                ",
                "NOTE",
            ],
            Query::Users | Query::User(_) => {
                &["ID", "NAME            ", "PRIVILEGE", "ENABLED ", "LAN", "SOL"]
            }
            Query::Sol(_) => {
                &["SOL     ", "PRIVILEGE", "ENCRYPTED", "SPEED ", "RETRIES       ", "PORT"]
            }
            Query::Channel => &["CHANNEL", "MEDIUM", "SESSIONS", "ACCESS", "LIMIT", "SUITES"],
            Query::Sessions => &["SESSION", "USER", "PRIVILEGE", "CHANNEL", "FROM"],
            Query::Raw(_) => &["ANSWER"],
            Query::Reset { .. } | Query::Identify { .. } | Query::Forget => &["RESULT"],
        }
    }

    fn deed(&self) -> Option<Deed> {
        let mild = |says: String| Deed { harms: false, ..Deed::of_bmc(says) };
        match self {
            Query::Info | Query::Users | Query::Channel | Query::Sessions => None,
            Query::Sol(change) if change.is_empty() => None,
            Query::Reset { warm: true } => Some(Deed::of_bmc("bmc reset, warm")),
            Query::Reset { warm: false } => Some(Deed::of_bmc("bmc reset")),
            Query::User(change) => Some(Deed::of_bmc(format!("bmc {}", change.says()))),
            Query::Sol(_) => Some(mild("bmc sol settings".to_string())),
            // Nobody knows what it does, and its data may be a password (Set User Password): not told on.
            Query::Raw(words) => {
                let (function, data) = words.split_at(words.len().min(2));
                let says = format!("bmc raw {} and {} bytes", function.join(" "), data.len());
                Some(Deed { stops: true, ..Deed::of_bmc(says) })
            }
            Query::Identify { .. } => Some(Deed::harmless("bmc identify")),
            Query::Forget => Some(mild("bmc forget".to_string())),
        }
    }

    fn check(&self, _machines: usize) -> Result<(), String> {
        match self {
            Query::Raw(words) => raw::parse(words).map(drop).map_err(|error| error.to_string()),
            Query::User(change) => change.check(),
            _ => Ok(()),
        }
    }

    async fn run(&self, on: &On) -> Result<Said, Failure> {
        let bmc = on.bmc()?;
        match self {
            Query::Info => info(&bmc).await,
            Query::Reset { warm } => {
                let told = device::reset(&bmc, !warm).await?;
                let note = match told {
                    ResetTold::Answered => "it said so; it is away for a minute or two",
                    ResetTold::Silent => "it went silent at once, as many do",
                };
                Ok(Said::line("restarts", [note.to_string()], json!({ "reset": told })))
            }
            Query::Users => accounts::list(&bmc).await,
            Query::User(change) => change.apply(&bmc).await,
            Query::Sol(change) => change.apply(&bmc).await,
            Query::Channel => channels(&bmc).await,
            Query::Raw(words) => {
                let request = raw::parse(words)?;
                let (netfn, command) = (request.netfn, request.command);
                let response = bmc.ask(request).await?;
                let hex: Vec<String> =
                    response.data.iter().map(|byte| format!("{byte:02x}")).collect();
                if response.completion != koboshi_ipmi::Completion::OK {
                    let completion = response.completion;
                    return Err(koboshi_ipmi::Error::Refused { netfn, command, completion }.into());
                }
                let said = Said::line(&hex.join(" "), [], json!({ "data": response.data }));
                Ok(Said { word: "answered".to_string(), ..said })
            }
            Query::Identify { seconds } => {
                panel::identify(&bmc, *seconds).await?;
                let word = match seconds {
                    Some(0) => "dark".to_string(),
                    Some(seconds) => format!("lit for {seconds} s"),
                    None => "lit".to_string(),
                };
                Ok(Said::line(&word, [], json!({ "identify": word })))
            }
            Query::Sessions => logged_in(&bmc).await,
            Query::Forget => {
                on.forget().await?;
                Ok(Said::line("forgotten", [], json!({ "forgotten": true })))
            }
        }
    }
}

async fn info(bmc: &Lent) -> Result<Said, Failure> {
    let info = device::info(bmc).await?;
    let maker = match info.id.maker {
        Some(maker) => maker.to_string(),
        None => format!("{:#x}", info.id.manufacturer),
    };
    let mut notes: Vec<String> = info.complaints.iter().flatten().cloned().collect();
    if info.id.updating {
        notes.push("its firmware is being updated".to_string());
    }
    let learned = bmc.bmc().learned();
    if learned.quirks != koboshi_ipmi::Quirks::NONE {
        notes.push(format!("needs {}", learned.quirks));
    }
    let session = match bmc.bmc().facts().map(|facts| (facts.suite, facts.privilege)) {
        Some((Some(suite), privilege)) => format!("2.0 suite {suite}, {privilege}"),
        Some((None, privilege)) => format!("1.5, {privilege}"),
        None => "-".to_string(),
    };
    let cells = vec![
        maker,
        format!("{:#06x}", info.id.product),
        info.id.firmware.clone(),
        info.id.ipmi.clone(),
        session.clone(),
        info.guid.map(|guid| guid.to_string()).unwrap_or_default(),
        notes.join(", "),
    ];
    let word =
        if info.complaints.as_ref().is_some_and(|all| !all.is_empty()) { "unwell" } else { "well" };
    let mut data = serde_json::to_value(&info).unwrap_or_default();
    data["learned"] = serde_json::to_value(&learned).unwrap_or_default();
    data["session"] = session.into();
    Ok(Said { word: word.to_string(), cells: vec![cells], data })
}

async fn channels(bmc: &Lent) -> Result<Said, Failure> {
    let mut cells = Vec::new();
    let mut all = Vec::new();
    for info in channel::list(bmc).await? {
        // What has no sessions has no access either.
        let access = match info.sessions {
            0 => None,
            _ => channel::access(bmc, info.channel, Store::Volatile).await.ok(),
        };
        let suites = match info.medium {
            channel::Medium::Lan => authentication::cipher_suites(bmc, info.channel).await.ok(),
            _ => None,
        };
        cells.push(vec![
            info.channel.to_string(),
            named(&info.medium),
            info.active.to_string(),
            access.map_or_else(|| "-".to_string(), |access| named(&access.mode)),
            access.map_or_else(|| "-".to_string(), |access| access.limit.name().to_string()),
            suites.iter().flatten().map(u8::to_string).collect::<Vec<_>>().join(","),
        ]);
        all.push(json!({ "info": info, "access": access, "suites": suites }));
    }
    Ok(Said { word: String::new(), cells, data: json!({ "channels": all }) })
}

async fn logged_in(bmc: &Lent) -> Result<Said, Failure> {
    let sessions = sessions::list(bmc).await?;
    let mut cells: Vec<Vec<String>> = Vec::new();
    for session in &sessions.list {
        cells.push(vec![
            session.handle.to_string(),
            session.user.to_string(),
            session.privilege.name().to_string(),
            session.channel.to_string(),
            match (session.from, session.port) {
                (Some(address), Some(port)) => format!("{address}:{port}"),
                (Some(address), None) => address.to_string(),
                (None, _) => "-".to_string(),
            },
        ]);
    }
    let word = format!("{} of {} sessions", sessions.active, sessions.slots);
    if cells.is_empty() {
        cells.push(vec![word.clone()]);
    }
    let data = serde_json::to_value(&sessions).unwrap_or_default();
    Ok(Said { word, cells, data })
}

/// What a value is called where programs read it.
fn named(value: &impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(name)) => name,
        Ok(other) => other.to_string(),
        Err(_) => "-".to_string(),
    }
}
