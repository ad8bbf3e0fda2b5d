//! `koboshi bmc scan 10.78.0.0/24`: who there is a BMC, which of them the site knows, and which that the site
//! knows did not answer.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget};
use koboshi_ipmi::wire::rmcp;
use serde::{Deserialize, Serialize};
use tokio::net::UdpSocket;
use tokio::sync::mpsc;

use crate::api::Refusal;
use crate::bmcs::scan::{Found, Scan, WIDEST};
use crate::site::{Cidr, Site};

const TICK: Duration = Duration::from_millis(20);
/// A name that does not resolve holds nobody up.
const NAMES: Duration = Duration::from_secs(3);

/// What is asked.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Query {
    /// `10.78.0.0/24`
    pub network: String,
    /// UDP port.
    #[serde(default = "port")]
    pub port: u16,
}

fn port() -> u16 {
    rmcp::PORT
}

/// What is streamed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Line {
    /// How far it is: questions asked, and all there are.
    Progress(usize, usize),
    /// A BMC.
    Bmc(Row),
    /// A BMC of the site, in this network, that did not answer.
    Silent(Row),
}

/// A BMC.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// Its address.
    pub address: Ipv4Addr,
    /// Machines of the site whose BMC it is.
    pub machines: Vec<String>,
    /// What it said.
    #[serde(flatten)]
    pub found: Found,
}

/// Begins; dropping the receiver ends it.
pub fn begin(site: Arc<Site>, query: &Query) -> Result<mpsc::Receiver<Line>, Refusal> {
    let network: Cidr = query
        .network
        .parse()
        .map_err(|bad: crate::site::names::Malformed| Refusal::not_found(bad.message, bad.help))?;
    if network.prefix() < WIDEST {
        let help = format!("/{WIDEST} at most: scan its parts");
        return Err(Refusal::not_found(format!("{network} is very wide"), Some(help)));
    }
    let (lines, out) = mpsc::channel(256);
    let port = query.port;
    tokio::spawn(async move {
        let whose = whose(&site, network).await;
        if let Err(error) = scan(network, port, &whose, &lines).await {
            tracing::warn!(%error, "scanning {network}");
        }
    });
    Ok(out)
}

/// Machines by the address of their BMC.
async fn whose(site: &Site, network: Cidr) -> BTreeMap<Ipv4Addr, Vec<String>> {
    let mut whose: BTreeMap<Ipv4Addr, Vec<String>> = BTreeMap::new();
    let bmcs =
        site.machines.iter().filter_map(|(name, machine)| Some((name, machine.bmc.as_ref()?)));
    let resolved = bmcs.map(|(name, bmc)| async move {
        let host = &bmc.host.value;
        if let Ok(address) = host.parse() {
            return Some((address, name));
        }
        let found = tokio::time::timeout(NAMES, tokio::net::lookup_host((host.as_str(), 0)));
        let mut found = found.await.ok()?.ok()?;
        found.find_map(|found| match found.ip() {
            IpAddr::V4(address) => Some((address, name)),
            IpAddr::V6(_) => None,
        })
    });
    for (address, name) in futures::future::join_all(resolved).await.into_iter().flatten() {
        if network.contains(address) {
            whose.entry(address).or_default().push(name.to_string());
        }
    }
    whose
}

async fn scan(
    network: Cidr,
    port: u16,
    whose: &BTreeMap<Ipv4Addr, Vec<String>>,
    lines: &mpsc::Sender<Line>,
) -> std::io::Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await?;
    let mut scan = Scan::new(network, port, Instant::now());
    let mut tick = tokio::time::interval(TICK);
    let mut datagram = [0; 1024];
    let mut told = BTreeMap::new();
    let row = |address: Ipv4Addr, found: &Found| Row {
        address,
        machines: whose.get(&address).cloned().unwrap_or_default(),
        found: found.clone(),
    };
    while !scan.is_over(Instant::now()) {
        tokio::select! {
            _ = tick.tick() => {
                for (to, data) in scan.due(Instant::now()) {
                    // No route, or a port unreachable of somebody asked before: no BMC either way.
                    let _unsent = socket.send_to(&data, to).await.is_err();
                }
                let (asked, total) = scan.progress();
                if lines.is_closed() {
                    return Ok(());
                }
                // Whoever does not keep up misses some.
                let _slow = lines.try_send(Line::Progress(asked, total)).is_err();
            }
            received = socket.recv_from(&mut datagram) => {
                // Errors here are of datagrams that were sent before.
                let Ok((length, from)) = received else { continue };
                scan.receive(from, &datagram[..length]);
            }
        }
        // Told once it has said how it lets people in; who only answers pings is told at the end.
        let fresh: Vec<Ipv4Addr> = scan
            .found()
            .iter()
            .filter(|(address, found)| found.says.is_some() && !told.contains_key(*address))
            .map(|(address, _)| *address)
            .collect();
        for address in fresh {
            told.insert(address, ());
            let found = scan.found().get(&address).cloned().unwrap_or_default();
            if lines.send(Line::Bmc(row(address, &found))).await.is_err() {
                return Ok(());
            }
        }
    }
    let rest = scan.found().iter().filter(|(address, _)| !told.contains_key(*address));
    let rest = rest.map(|(address, found)| Line::Bmc(row(*address, found)));
    let silent = whose.keys().filter(|address| !scan.found().contains_key(*address));
    let silent = silent.map(|address| Line::Silent(row(*address, &Found::default())));
    for line in rest.chain(silent) {
        if lines.send(line).await.is_err() {
            break;
        }
    }
    Ok(())
}

/// The lines as they are shown.
pub struct Shown {
    json: bool,
    bar: ProgressBar,
    known: usize,
    unknown: usize,
    silent: usize,
}

impl Shown {
    /// Nothing yet.
    pub fn new(json: bool) -> Shown {
        let bar = ProgressBar::new(0);
        if std::io::stderr().is_terminal() {
            bar.set_draw_target(ProgressDrawTarget::stderr());
        } else {
            bar.set_draw_target(ProgressDrawTarget::hidden());
        }
        Shown { json, bar, known: 0, unknown: 0, silent: 0 }
    }

    /// Shows a line; errors when nobody reads any more.
    pub fn line(&mut self, line: &Line) -> std::io::Result<()> {
        let (row, silent) = match line {
            Line::Progress(asked, total) => {
                self.bar.set_length(*total as u64);
                self.bar.set_position(*asked as u64);
                return Ok(());
            }
            Line::Bmc(row) => (row, false),
            Line::Silent(row) => (row, true),
        };
        match (silent, row.machines.is_empty()) {
            (true, _) => self.silent += 1,
            (false, true) => self.unknown += 1,
            (false, false) => self.known += 1,
        }
        let text = match self.json {
            true => {
                let mut object = serde_json::to_value(row)?;
                object["silent"] = silent.into();
                object.to_string()
            }
            false => words(row, silent),
        };
        self.bar.suspend(|| {
            let mut out = std::io::stdout().lock();
            writeln!(out, "{text}")?;
            out.flush()
        })
    }

    /// The end.
    pub fn end(self) {
        self.bar.finish_and_clear();
        if !self.json {
            let Shown { known, unknown, silent, .. } = self;
            eprintln!(
                "{known} of the site, {unknown} that it does not know; {silent} of the site silent"
            );
        }
    }
}

fn words(row: &Row, silent: bool) -> String {
    let machines = match row.machines.as_slice() {
        [] => "unknown".to_string(),
        machines => machines.join(","),
    };
    let speaks = match &row.found.says {
        _ if silent => "silent",
        Some(says) if says.v20 => "IPMI 2.0",
        Some(says) if says.types != 0 => "IPMI 1.5",
        Some(_) => "IPMI",
        None => "ping only",
    };
    let mut notes = row.found.says.as_ref().map(|says| says.notes()).unwrap_or_default();
    if !silent && !row.found.ping {
        notes.push("answers no pings");
    }
    let notes = notes.join(", ");
    format!("{:<15}  {machines:<12}  {speaks:<9}  {notes}", row.address.to_string())
        .trim_end()
        .to_string()
}
