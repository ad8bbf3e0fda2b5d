//! What becomes `/`, by one of three ways: an archive unpacked into memory, a squashfs kept in memory
//! with a tmpfs above it, a server's export. Whether it will fit is said before anything is fetched.

pub mod archive;
pub mod fetch;
pub mod nfs;
pub mod owners;
pub mod pour;
pub mod progress;
pub mod remove;
pub mod squashfs;
pub mod tape;
pub mod unpack;

use std::path::Path;
use std::time::Duration;

use crate::changes;
use crate::cmdline::Cmdline;
use crate::console::{Pause, pause, say};
use crate::contract::room::{self, Memory};
use crate::contract::{Blob, Orders, Phase, Source};
use crate::http::Server;
use crate::modules::Modules;
use crate::mounts;
use crate::report::Reporter;
use crate::rescue::Stop;
use crate::{clock, tell};
use archive::{NoRoot, Ready};
use fetch::Event;
use nfs::Export;
use progress::{Course, rate};

/// Every failure is told up to here, then each of this many: an appliance knows by then.
const TOLD: u32 = 8;

/// Builds the root at [`mounts::NEW_ROOT`]; when nothing was in it but its image.
pub fn build(
    server: Server,
    orders: &Orders,
    modules: &mut Modules,
    line: &Cmdline,
    reporter: &mut Reporter,
) -> Result<changes::Whole, Stop> {
    let root = &orders.root;
    let memory = Memory::now();
    match &root.from {
        Source::Archive { layers, unpacked } => {
            room::check(*unpacked, &root.tmpfs, memory).map_err(Stop::Because)?;
            let bound = room::tmpfs_bytes(&root.tmpfs, memory.total).map_err(Stop::Because)?;
            say_fetch(server, orders, layers);
            let place = Path::new(mounts::NEW_ROOT);
            let mut fresh = || mounts::fresh_root(&root.tmpfs);
            let mut hear = |event| listen(event, orders, reporter);
            let (image, patience) = (&root.image, fetch::PATIENCE);
            let ready = archive::fetch(
                server, layers, image, bound, place, &mut fresh, patience, &mut hear,
            )
            .map_err(stopped)?;
            let made = &ready.made;
            let size = format!("{} members, {} MB", made.members, made.bytes / 1_000_000);
            Whole::of(layers, &ready).tell(orders, reporter, &size);
            if !made.lost.is_empty() {
                let lost = &made.lost;
                say(format!("extended attributes this kernel does not keep: {lost:?}"));
            }
        }
        Source::Squashfs { layers } => {
            squashfs::load(layers, modules, line);
            let size = layers.iter().fold(0u64, |sum, blob| sum.saturating_add(blob.size));
            let upper = room::above(size, &root.tmpfs, memory).map_err(Stop::Because)?;
            say_fetch(server, orders, layers);
            // Whatever a try before this one mounted.
            let no_place = |error| Stop::Because(format!("no place for the root: {error}"));
            mounts::clear().map_err(no_place)?;
            let mut course = Course::new(layers);
            let mut took = Whole::default();
            for (at, blob) in layers.iter().enumerate() {
                let mut hear = |event| listen(event, orders, reporter);
                let (image, patience) = (&root.image, fetch::PATIENCE);
                let ready =
                    squashfs::fetch(server, blob, at, image, &mut course, patience, &mut hear)
                        .map_err(stopped)?;
                took.add(std::slice::from_ref(blob), &ready);
            }
            let no_root = |error| Stop::Because(format!("the squashfs does not mount: {error}"));
            let lower = squashfs::mount(layers.len()).map_err(no_root)?;
            lay_over(&lower, upper, modules, line)?;
            took.tell(orders, reporter, &format!("{} MiB above it", upper >> 20));
        }
        Source::Nfs { server, path, options, read_only } => {
            let upper = match read_only {
                true => room::above(0, &root.tmpfs, memory).map_err(Stop::Because)?,
                false => 0,
            };
            let export = Export {
                server: *server,
                path,
                options,
                read_only: *read_only,
                own: orders.nic.address,
            };
            let mut hear = |event| listen(event, orders, reporter);
            let ready = nfs::mount_root(&export, modules, line, &mut hear).map_err(stopped)?;
            let place = if *read_only { mounts::LOWER } else { mounts::NEW_ROOT };
            if let Some(message) = owners::learn(place).words(&export.name()) {
                say(&message);
                tell(reporter, Phase::Trouble { message }, orders.written);
            }
            if *read_only {
                lay_over(mounts::LOWER, upper, modules, line)?;
                let mib = upper >> 20;
                say(format!(
                    "{} is read only, what is written goes to {mib} MiB of memory",
                    export.name()
                ));
            }
            let ms = u64::try_from(ready.took.as_millis()).unwrap_or(u64::MAX);
            // Nothing was fetched: nobody makes a rate of it.
            let phase = Phase::RootReady { bytes: 0, ms, attempts: ready.attempts };
            tell(reporter, phase, orders.written);
        }
    }
    let whole = changes::whole();
    lay_files(server, orders, reporter)?;
    Ok(whole)
}

/// The files of role and seat, over whatever became the root.
fn lay_files(server: Server, orders: &Orders, reporter: &mut Reporter) -> Result<(), Stop> {
    let files = &orders.root.files;
    if files.is_empty() {
        return Ok(());
    }
    let mut hear = |event| match event {
        // The root has begun long ago.
        Event::Begun { .. } => true,
        event => listen(event, orders, reporter),
    };
    let place = Path::new(mounts::NEW_ROOT);
    let done = archive::lay(server, files, place, fetch::PATIENCE, &mut hear).map_err(stopped)?;
    say(format!("{} files of the site file laid over the root", done.members));
    Ok(())
}

fn say_fetch(server: Server, orders: &Orders, layers: &[Blob]) {
    let size = layers.iter().fold(0u64, |sum, blob| sum.saturating_add(blob.size));
    let of = match layers.len() {
        1 => String::new(),
        many => format!(" in {many} layers"),
    };
    say(format!("root {} from {}, {} MB{of}", orders.root.image, server.0, size / 1_000_000));
}

fn lay_over(lower: &str, bytes: u64, modules: &mut Modules, line: &Cmdline) -> Result<(), Stop> {
    modules.load("overlay", line);
    mounts::overlay(lower, bytes)
        .map_err(|error| Stop::Because(format!("no overlay over the root: {error}")))
}

/// What all layers of a root took.
#[derive(Default)]
struct Whole {
    bytes: u64,
    took: Duration,
    /// More than one: something went wrong on the way.
    attempts: u32,
}

impl Whole {
    fn of<T>(layers: &[Blob], ready: &Ready<T>) -> Whole {
        let mut whole = Whole::default();
        whole.add(layers, ready);
        whole
    }

    fn add<T>(&mut self, layers: &[Blob], ready: &Ready<T>) {
        let size = layers.iter().fold(0u64, |sum, blob| sum.saturating_add(blob.size));
        self.bytes = self.bytes.saturating_add(size);
        self.took += ready.took;
        self.attempts = self.attempts.max(ready.attempts);
    }

    fn tell(&self, orders: &Orders, reporter: &mut Reporter, what: &str) {
        let ms = u64::try_from(self.took.as_millis()).unwrap_or(u64::MAX);
        let (whole, tenth) = (ms / 1000, ms % 1000 / 100);
        let rate = rate(self.bytes, self.took);
        say(format!("root whole, sha256 right: {what} in {whole}.{tenth} s, {rate}"));
        let phase = Phase::RootReady { bytes: self.bytes, ms, attempts: self.attempts };
        tell(reporter, phase, orders.written);
    }
}

fn stopped(none: NoRoot) -> Stop {
    match none {
        NoRoot::Stopped => Stop::Asked,
        NoRoot::Unusable(why) => Stop::Because(why),
    }
}

/// Says and reports what happens; pauses after a failure, and hears `rescue` meanwhile.
fn listen(event: Event, orders: &Orders, reporter: &mut Reporter) -> bool {
    match event {
        Event::Begun { attempt } => {
            tell(reporter, Phase::RootBegun { attempt }, orders.written);
            true
        }
        Event::Progress(line) => {
            say(line);
            true
        }
        Event::Date(date) => {
            clock::mind(Some(date), orders.written);
            true
        }
        Event::Waits(span) => pause(span) == Pause::Over,
        Event::Failed { attempt, why, wait } => {
            let message = format!("try {attempt}: {why}; next in {} s", wait.as_secs_f32().ceil());
            say(format!("{message} ('rescue' for a shell)"));
            if attempt <= TOLD || attempt % TOLD == 0 {
                tell(reporter, Phase::Trouble { message }, orders.written);
            }
            pause(wait.max(Duration::from_millis(1))) == Pause::Over
        }
    }
}
