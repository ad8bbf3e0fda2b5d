//! One machine, as the appliance knows it: where it can be asked, what it booted, and the asking from beginning to
//! end, by whichever way it goes.

use std::cell::Cell;
use std::fs::File;
use std::io::{BufWriter, IsTerminal, Write};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, bail};
use indicatif::{ProgressBar, ProgressStyle};
use koboshi_console::modem::Ends;
use koboshi_images::{Bootable, Chosen, Live, Store, Version, Wanted};
use koboshi_initramfs::changes::frame::About;
use koboshi_initramfs::changes::{Header, Manner};
use tokio::sync::mpsc;

use super::show::Found;
use super::talk::{self, Talk};
use super::words::{Asks, Via};
use super::{console, ssh};
use crate::api::Client;
use crate::ops::boots::{Boot, Query};
use crate::ops::console::Seat;
use crate::ops::image::progress::Line;
use crate::ops::image::{At, mib};
use crate::ops::known_hosts;

/// Bytes of a listing at the most, compressed.
const LISTING_MAX: u64 = 64 << 20;
/// Files whose lines are shown, each and together: on a line of a console, and by SSH.
const SHOWN_CONSOLE: (u64, u64) = (64 << 10, 256 << 10);
const SHOWN_SSH: (u64, u64) = (1 << 20, 16 << 20);
/// Longer than this is said before it begins.
const LONG: u64 = 10;

/// A machine as the appliance knows it, and where it can be asked.
pub(super) struct Who<'a> {
    client: Client,
    pub(super) store: &'a Store,
    asks: &'a Asks,
    pub(super) machine: String,
    boot: String,
    address: Ipv4Addr,
    pub(super) version: Version,
}

impl<'a> Who<'a> {
    pub(super) async fn find(
        who: &str,
        asks: &'a Asks,
        at: &At,
        store: &'a Store,
    ) -> anyhow::Result<Who<'a>> {
        let client = Client::new(&at.state);
        let query = Query { who: who.to_string(), count: 1 };
        let boots: Vec<Boot> = client.get("/boots", &query).await?;
        let none =
            || format!("{who} has not booted: there is nothing to compare (koboshi boots {who})");
        let boot = boots.into_iter().next().with_context(none)?;
        let plan = boot.plan.as_ref().with_context(none)?;
        if boot.over {
            bail!("{}'s last boot is over: it is not up (koboshi boots {who})", boot.machine);
        }
        let version = store.show(&plan.image).with_context(|| {
            format!("{} booted {}, which has to be there to compare with", boot.machine, plan.image)
        })?;
        let address = boot.lent.unwrap_or(boot.address);
        let (machine, boot) = (boot.machine.clone(), boot.id.to_string());
        Ok(Who { client, store, asks, machine, boot, address, version })
    }

    /// Asks the machine; `whole`: for all contents of what changed, else for those that are shown.
    pub(super) async fn ask(&self, whole: bool) -> anyhow::Result<Found<'a>> {
        let by_ssh = async || {
            let keys = self.keys().await?;
            let whom = ssh::Whom {
                user: &self.asks.ssh_user,
                address: self.address,
                port: self.asks.ssh_port,
                keys: keys.as_ref().map(|keys| &*keys.0),
            };
            let way = Way::Ssh(Box::new(ssh::Ssh::start(&whom)?));
            let begun = Cell::new(false);
            match self.over(way, whole, &begun).await {
                Err(why) if begun.get() => Err(why.context(Begun)),
                found => found,
            }
        };
        let by_console = async || {
            let seat = console::start(&self.client, &self.machine, self.asks.take).await?;
            self.over(Way::Console(seat), whole, &Cell::new(false)).await
        };
        match self.asks.via {
            Via::Ssh => by_ssh().await,
            Via::Console => by_console().await,
            Via::Auto => match by_ssh().await {
                Ok(found) => Ok(found),
                Err(why) if why.downcast_ref::<Begun>().is_some() => Err(why),
                Err(why) => {
                    eprintln!("not by SSH ({why:#}): over {}'s console", self.machine);
                    by_console().await
                }
            },
        }
    }

    /// The keys that the machine showed on its console, as a file for OpenSSH.
    async fn keys(&self) -> anyhow::Result<Option<Keys>> {
        let query = known_hosts::Query { host: Some(self.address.to_string()) };
        let rows: Vec<known_hosts::Row> = self.client.get("/known-hosts", &query).await?;
        if rows.is_empty() {
            return Ok(None);
        }
        let name = format!("koboshi-known-hosts-{}-{}", std::process::id(), self.boot);
        let keys = Keys(std::env::temp_dir().join(name));
        let lines: String =
            rows.iter().map(|row| format!("{} {}\n", self.host(), row.key)).collect();
        let mut file = File::options()
            .write(true)
            .create_new(true)
            .open(&keys.0)
            .with_context(|| format!("making {}", keys.0.display()))?;
        file.write_all(lines.as_bytes())?;
        Ok(Some(keys))
    }

    /// As `known_hosts` names another port than 22.
    fn host(&self) -> String {
        match self.asks.ssh_port {
            22 => self.address.to_string(),
            port => format!("[{}]:{port}", self.address),
        }
    }

    async fn over(&self, way: Way, whole: bool, begun: &Cell<bool>) -> anyhow::Result<Found<'a>> {
        let (say, says) = mpsc::channel(64);
        let (types, typed) = mpsc::channel(8);
        let mut ends = Ends { says, types };
        let (frame, via) = match &way {
            Way::Console(_) => (console::FRAME, "console"),
            Way::Ssh(_) => (ssh::FRAME, "ssh"),
        };
        let talked = async {
            let found = tokio::select! {
                found = self.talk(&mut ends, frame, via, whole, begun) => found,
                _ = tokio::signal::ctrl_c() => {
                    // He does not want another way either.
                    begun.set(true);
                    Err(anyhow::anyhow!("stopped at the keyboard"))
                }
            };
            if found.is_err() {
                talk::interrupt(&ends).await;
            }
            drop(ends);
            found
        };
        let (found, carried) = tokio::join!(talked, way.carry(say, typed));
        match (found, carried) {
            (Ok(found), _) => Ok(found),
            // The way's own words say more than that it is gone.
            (Err(_), Err(why)) => Err(why),
            (Err(why), Ok(())) => Err(why),
        }
    }

    async fn talk(
        &self,
        ends: &mut Ends,
        frame: u32,
        via: &'static str,
        whole: bool,
        begun: &Cell<bool>,
    ) -> anyhow::Result<Found<'a>> {
        let (mut talk, header) = Talk::begin(ends, frame, console::gave_up).await?;
        begun.set(true);
        self.is_it(&header)?;
        let mut line = Line::new();
        let mut live = Live::of(self.store, self.version.clone(), &mut |step| line.show(&step))?;
        line.clear();
        let Asks { paths, all, .. } = self.asks;
        let chosen = Chosen { paths: paths.clone(), all: *all };
        let bar = Bar::new("what changed");
        let (mut listing, since) = (Vec::new(), Instant::now());
        talk.get(About::Listing, LISTING_MAX, &mut listing, |at| bar.at(at)).await?;
        drop(bar);
        let rate = rate(&talk, since, header.speed);
        live.list(&header, &listing[..], &chosen)?;
        let bounds = if via == "console" { SHOWN_CONSOLE } else { SHOWN_SSH };
        let wanted = live.wanted((!whole).then_some(bounds));
        if !wanted.entries.is_empty() {
            before(&wanted, &talk, &header, rate);
            let place = live.folder().join("sent");
            let file =
                File::create(&place).with_context(|| format!("making {}", place.display()))?;
            let mut out = BufWriter::new(file);
            talk.pick(1, &wanted.entries).await?;
            let bar = Bar::new("their contents");
            // What zstd cannot make smaller it makes larger by very little.
            let most = wanted.bytes.saturating_add(wanted.bytes / 64).saturating_add(1 << 20);
            talk.get(About::Contents(1), most, &mut out, |at| bar.at(at)).await?;
            drop(bar);
            out.flush()?;
            drop(out);
            live.fill(File::open(&place)?)?;
        }
        let repeated = talk.repeated();
        talk.end().await;
        if repeated > 0 {
            eprintln!("{repeated} lines were damaged on the way and came once more");
        }
        Ok(Found { live, header, via })
    }

    /// Whether who answers is the machine that is meant, and booted what is compared.
    fn is_it(&self, header: &Header) -> anyhow::Result<()> {
        if header.boot != self.boot {
            bail!(
                "who answers there is {}, in another boot than {}'s last one (koboshi boots {}): the line or the \
                 address leads elsewhere",
                talk::clean(&header.hostname),
                self.machine,
                self.machine
            );
        }
        let of = &self.version.boot;
        if header.root != Manner::Nfs && !keys(of).any(|key| key == header.key) {
            bail!(
                "{} booted {}, whose root was {}; {} in the store is another",
                self.machine,
                talk::clean(&header.image),
                talk::clean(&header.key),
                self.version
            );
        }
        Ok(())
    }
}

/// As command lines name a root of this version.
fn keys(of: &Bootable) -> impl Iterator<Item = String> {
    let layers = of.layers.iter().flat_map(|layer| [Some(layer.blob), layer.squashfs]).flatten();
    let digests = layers.map(|blob| blob.digest).chain([of.digest]);
    digests.map(|digest| digest.to_string()).collect::<Vec<_>>().into_iter()
}

/// The machine had said who it is: another way is not tried.
#[derive(Debug, thiserror::Error)]
#[error("asked by SSH")]
struct Begun;

/// A file that goes with us.
struct Keys(PathBuf);

impl Drop for Keys {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

enum Way {
    Console(Seat),
    Ssh(Box<ssh::Ssh>),
}

impl Way {
    async fn carry(
        self,
        say: mpsc::Sender<bytes::Bytes>,
        typed: mpsc::Receiver<bytes::Bytes>,
    ) -> anyhow::Result<()> {
        match self {
            Way::Ssh(ssh) => ssh.carry(say, typed).await,
            Way::Console(mut seat) => {
                let carried = seat.carry(say, typed).await;
                seat.leave().await;
                carried
            }
        }
    }
}

/// Bytes a second that the line carries, if that can be said yet.
fn rate(talk: &Talk<'_>, since: Instant, speed: u32) -> u64 {
    /// Less says nothing of a line.
    const ENOUGH: u64 = 16 << 10;
    let millis = since.elapsed().as_millis().max(1) as u64;
    match talk.heard() {
        heard if heard >= ENOUGH => heard.saturating_mul(1000) / millis,
        _ => u64::from(speed / 10),
    }
}

/// Says what is coming, where it takes its time.
fn before(wanted: &Wanted, talk: &Talk<'_>, header: &Header, rate: u64) {
    let seconds = match rate {
        0 => 0,
        rate => talk.on_the_line(wanted.bytes) / rate,
    };
    if seconds < LONG {
        return;
    }
    let time = match seconds {
        0..=119 => format!("{seconds} seconds"),
        _ => format!("{} minutes", seconds.div_ceil(60)),
    };
    let line = match header.speed {
        0 => String::new(),
        speed => format!(" over {speed} baud"),
    };
    let (files, size) = (wanted.entries.len(), mib(wanted.bytes));
    eprintln!("{files} files, {size}{line}: {time} at the most; Control-C stops it");
}

/// How far it is, where somebody looks.
struct Bar(ProgressBar);

impl Bar {
    fn new(what: &str) -> Bar {
        if !std::io::stderr().is_terminal() {
            return Bar(ProgressBar::hidden());
        }
        let bar = ProgressBar::new_spinner();
        let style = "{spinner} {msg} {bytes} {bytes_per_sec} {elapsed}";
        if let Ok(style) = ProgressStyle::with_template(style) {
            bar.set_style(style);
        }
        bar.set_message(what.to_string());
        Bar(bar)
    }

    fn at(&self, bytes: u64) {
        self.0.set_position(bytes);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
