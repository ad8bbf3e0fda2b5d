//! One boot, from the button to `up`: firmware, loader, script, kernel, `koboshi-init`, root. Datagrams,
//! answers of HTTP and a clock in; datagrams, wishes to fetch and a deadline out. What hardware does
//! between two packets is time that is drawn.

mod init;
mod words;

use std::net::Ipv4Addr;
use std::time::Duration;

use koboshi_initramfs::contract::Phase;
use koboshi_pxe::Mac;
use koboshi_pxe::dhcp::Packet;

use crate::dhcp::{self, Exchange, Lease};
use crate::dice::Dice;
use crate::firmware::Speaker;
use crate::log::{Log, Stage};
use crate::script::{BYTES_MAX, Script, Step, Url};
use crate::tftp::{self, Transfer};

pub use words::{Answer, Ask, Effect, Heard, Patience, Spec};

use init::{Init, Told, init};

/// From power at the NIC to the first DISCOVER.
const FIRMWARE: Duration = Duration::from_millis(1500);
/// From a whole loader to its own DISCOVER.
const LOADER: Duration = Duration::from_millis(1500);
/// From the kernel's first instruction to the first report: drivers, and a link that comes up.
const KERNEL: Duration = Duration::from_secs(4);
/// From the root's last byte to a root.
const UNPACK: Duration = Duration::from_secs(1);
/// From there to a system that is up.
const SYSTEM: Duration = Duration::from_secs(5);
/// Firmware that has failed tries what else there is to boot from, and then the network again.
const AGAIN: Duration = Duration::from_secs(10);
/// Times it does; an operator would be there by then.
const ROUNDS: u32 = 10;
/// A system that runs is heard of.
const HEARTBEAT: Duration = Duration::from_secs(30);

/// How long iPXE waits for a byte.
const IPXE: Patience =
    Patience { connect: Duration::from_secs(30), silence: Duration::from_secs(60) };

/// See the module.
#[derive(Debug)]
pub struct Machine {
    /// What it is.
    pub spec: Spec,
    /// What it did.
    pub log: Log,
    dice: Dice,
    speed: f64,
    doing: Doing,
    deadline: Option<Duration>,
    address: Option<Ipv4Addr>,
    server: Option<(Mac, Ipv4Addr)>,
    script: Option<Script>,
    init: Option<Init>,
    /// Of the question that waits for its answer.
    tries: u32,
}

#[derive(Debug)]
enum Doing {
    Thinks(Next),
    Asks(Exchange),
    Loads(Transfer),
    Fetches(What),
    Up,
    Lost,
}

#[derive(Debug, Clone)]
enum Next {
    On,
    Dhcp(Speaker),
    Script,
    Tell(Told),
    Root,
}

#[derive(Debug, Clone)]
enum What {
    LoaderSize(Url),
    Loader,
    Script,
    Kernel(String),
    Initrd,
    Root,
    Report(Told),
}

impl What {
    /// What it is fetched for.
    fn stage(&self) -> Option<Stage> {
        Some(match self {
            What::LoaderSize(_) | What::Report(_) => return None,
            What::Loader => Stage::Loader,
            What::Script => Stage::Script,
            What::Kernel(_) => Stage::Kernel,
            What::Initrd => Stage::Initramfs,
            What::Root => Stage::Root,
        })
    }
}

type Effects = Vec<Effect>;

impl Machine {
    /// A machine that is switched off. `speed`: how much faster than hardware it thinks.
    pub fn new(spec: Spec, seed: u64, speed: f64) -> Machine {
        let dice = Dice::new(seed, u64::from(spec.number) + 1);
        let deadline = Some(spec.on);
        let log = Log::new(spec.on);
        Machine {
            spec,
            log,
            dice,
            speed: speed.max(0.001),
            doing: Doing::Thinks(Next::On),
            deadline,
            address: None,
            server: None,
            script: None,
            init: None,
            tries: 0,
        }
    }

    /// When [`Machine::on_deadline`] is to be called.
    pub fn deadline(&self) -> Option<Duration> {
        self.deadline
    }

    /// Its address, once it has one.
    pub fn address(&self) -> Option<Ipv4Addr> {
        self.address
    }

    /// It is up, or will never be.
    pub fn is_over(&self) -> bool {
        matches!(self.doing, Doing::Up | Doing::Lost)
    }

    /// The size of the datagrams that come in one piece where a kernel has not cut them yet.
    pub fn cut(&self) -> Option<usize> {
        match &self.doing {
            Doing::Loads(transfer) => Some(transfer.packet_size()),
            _ => None,
        }
    }

    /// A datagram for it.
    pub fn heard(&mut self, heard: Heard<'_>, now: Duration, out: &mut Effects) {
        match &mut self.doing {
            Doing::Asks(exchange) if heard.port == dhcp::PORTS.0 => {
                let Ok(packet) = Packet::decode(heard.payload) else { return };
                let step = exchange.heard(&packet, now);
                if let dhcp::Step::Got(lease) = &step {
                    self.server = Some((heard.from.0, lease.next_server));
                }
                self.asked(step, now, out);
            }
            Doing::Loads(transfer) => {
                let step = transfer.heard((heard.from.2, heard.port), heard.payload, now);
                self.loaded(step, now, out);
            }
            _ => {}
        }
    }

    /// Something is due.
    pub fn on_deadline(&mut self, now: Duration, out: &mut Effects) {
        if self.deadline.is_none_or(|deadline| deadline > now) {
            return;
        }
        match &mut self.doing {
            Doing::Thinks(next) => {
                let next = next.clone();
                self.go(next, now, out);
            }
            Doing::Asks(exchange) => {
                let step = exchange.on_deadline(now);
                self.asked(step, now, out);
            }
            Doing::Loads(transfer) => {
                let step = transfer.on_deadline(now);
                self.loaded(step, now, out);
            }
            Doing::Up => {
                self.deadline = Some(now + self.dice.about(HEARTBEAT));
                let beat = Phase::Heartbeat { load5: 3, available_mib: 60_000 };
                self.report(beat, now, out);
            }
            Doing::Fetches(_) | Doing::Lost => self.deadline = None,
        }
    }

    /// An answer over HTTP, or why there is none.
    pub fn answered(&mut self, answer: Result<Answer, String>, now: Duration, out: &mut Effects) {
        // A heartbeat's: nobody minds.
        let Doing::Fetches(what) = &self.doing else { return };
        let what = what.clone();
        let answer = answer.and_then(|answer| match answer.status {
            200..=299 => Ok(answer),
            status => Err(format!("HTTP {status}")),
        });
        match answer {
            Ok(answer) => {
                self.tries = 0;
                if let Some(stage) = what.stage() {
                    self.log.fetched(stage, answer.bytes);
                }
                self.fetched(what, answer, now, out);
            }
            Err(why) => self.not_fetched(what, why, now, out),
        }
    }

    fn go(&mut self, next: Next, now: Duration, out: &mut Effects) {
        match next {
            Next::On => self.think(FIRMWARE, Next::Dhcp(self.spec.firmware.speaks()), now),
            Next::Dhcp(speaker) => self.ask_address(speaker, now, out),
            Next::Script => self.follow(now, out),
            Next::Tell(told) => self.tell(told, now, out),
            Next::Root => self.fetch_root(now, out),
        }
    }

    fn ask_address(&mut self, speaker: Speaker, now: Duration, out: &mut Effects) {
        let xid = self.dice.draw() as u32;
        let (exchange, sent) = Exchange::begin(speaker, self.spec.mac, xid, now);
        self.log.asks(address_stage(speaker), 1, now);
        self.deadline = Some(exchange.deadline());
        self.doing = Doing::Asks(exchange);
        out.push(broadcast(sent));
    }

    fn asked(&mut self, step: dhcp::Step, now: Duration, out: &mut Effects) {
        let Doing::Asks(exchange) = &self.doing else { return };
        let (speaker, tries) = (exchange.speaker(), exchange.tries());
        match step {
            dhcp::Step::Wait => {}
            dhcp::Step::Send(bytes) => {
                let tries = u32::try_from(tries).unwrap_or(u32::MAX);
                self.log.asks(address_stage(speaker), tries, now);
                self.deadline = Some(exchange.deadline());
                out.push(broadcast(bytes));
            }
            dhcp::Step::GaveUp => match self.script.is_some() {
                true => self.step_failed(now, out),
                false => self.start_over("no address", now),
            },
            dhcp::Step::Got(lease) => self.has_address(speaker, lease, now, out),
        }
    }

    fn has_address(&mut self, speaker: Speaker, lease: Lease, now: Duration, out: &mut Effects) {
        self.address = Some(lease.address);
        self.log.done(address_stage(speaker), now);
        if self.script.is_some() {
            // The script asked for it.
            return self.follow(now, out);
        }
        let url = Url::read(&lease.file);
        match (speaker, url) {
            (Speaker::Ipxe | Speaker::IpxeEfi, Some(url)) => {
                self.log.asks(Stage::Script, 1, now);
                self.fetch_script(url, now, out);
            }
            (Speaker::Edk2Http, Some(url)) => {
                self.log.asks(Stage::Loader, 1, now);
                let ask = self.question("HEAD", url.clone(), IPXE);
                self.fetch(What::LoaderSize(url), ask, out);
            }
            (Speaker::PxeRom | Speaker::Edk2Pxe, None) if !lease.file.is_empty() => {
                let manner = if speaker == Speaker::PxeRom { tftp::PXE_ROM } else { tftp::EDK2 };
                let port = 2048 + (self.dice.draw() % 30_000) as u16 * 2;
                let (transfer, sent) = Transfer::begin(manner, &lease.file, port, now);
                self.log.asks(Stage::Loader, 1, now);
                self.deadline = Some(transfer.deadline());
                self.doing = Doing::Loads(transfer);
                self.send_tftp(sent, out);
            }
            _ => self.start_over(&format!("nothing to boot: {:?}", lease.file), now),
        }
    }

    fn loaded(&mut self, step: tftp::Step, now: Duration, out: &mut Effects) {
        let Doing::Loads(transfer) = &self.doing else { return };
        let tries = transfer.tries();
        self.deadline = Some(transfer.deadline());
        match step {
            tftp::Step::Wait => {}
            tftp::Step::Send { sent, again } => {
                if again {
                    self.log.asks(Stage::Loader, tries.max(2), now);
                }
                for sent in sent {
                    self.send_tftp(sent, out);
                }
            }
            tftp::Step::Done { sent, bytes } => {
                self.log.fetched(Stage::Loader, bytes);
                self.send_tftp(sent, out);
                self.has_loader(now);
            }
            tftp::Step::Failed(why) => self.start_over(&format!("loader: {why}"), now),
        }
    }

    fn send_tftp(&mut self, sent: tftp::Sent, out: &mut Effects) {
        let (Some(address), Some((mac, server))) = (self.address, self.server) else { return };
        out.push(Effect::Send {
            from: (address, sent.from),
            to: (mac, server, sent.to),
            payload: sent.bytes,
        });
    }

    fn has_loader(&mut self, now: Duration) {
        self.log.done(Stage::Loader, now);
        self.think(LOADER, Next::Dhcp(self.spec.firmware.loads()), now);
    }

    fn fetch_script(&mut self, url: Url, now: Duration, out: &mut Effects) {
        self.tries += 1;
        self.log.asks(Stage::Script, self.tries, now);
        let ask = Ask { wants: BYTES_MAX, ..self.question("GET", url, IPXE) };
        self.fetch(What::Script, ask, out);
    }

    /// The next command of the script.
    fn follow(&mut self, now: Duration, out: &mut Effects) {
        let step = self.script.as_mut().and_then(Script::step);
        self.command(step, now, out);
    }

    fn step_failed(&mut self, now: Duration, out: &mut Effects) {
        let step = self.script.as_mut().and_then(Script::failed);
        self.command(step, now, out);
    }

    fn command(&mut self, step: Option<Step>, now: Duration, out: &mut Effects) {
        match step {
            Some(Step::Kernel(url, cmdline)) => {
                self.tries += 1;
                self.log.done(Stage::Script, now);
                self.log.asks(Stage::Kernel, self.tries, now);
                let ask = self.question("GET", url, IPXE);
                self.fetch(What::Kernel(cmdline), ask, out);
            }
            Some(Step::Initrd(url)) => {
                self.tries += 1;
                self.log.asks(Stage::Initramfs, self.tries, now);
                let ask = self.question("GET", url, IPXE);
                self.fetch(What::Initrd, ask, out);
            }
            Some(Step::Boot) => {
                self.log.done(Stage::Initramfs, now);
                // iPXE closes all connections before the kernel starts (`tcp_shutdown`).
                out.push(Effect::HangUp);
                self.think(KERNEL, Next::Tell(Told::Init), now);
            }
            Some(Step::Sleep(span)) => {
                // What a script says is not hardware: it is slept as it stands there.
                self.deadline = Some(now + span);
                self.doing = Doing::Thinks(Next::Script);
            }
            Some(Step::Chain(url)) => self.fetch_script(url, now, out),
            Some(Step::Dhcp) => self.ask_address(self.spec.firmware.loads(), now, out),
            Some(Step::Reboot) => self.start_over("its script gave up", now),
            None => self.start_over("its script ended", now),
        }
    }

    fn fetched(&mut self, what: What, answer: Answer, now: Duration, out: &mut Effects) {
        match what {
            What::LoaderSize(url) => {
                let ask = self.question("GET", url, IPXE);
                self.fetch(What::Loader, ask, out);
            }
            What::Loader => self.has_loader(now),
            What::Script => {
                self.script = Script::read(&String::from_utf8_lossy(&answer.body));
                if self.script.is_none() {
                    return self.start_over("what should be a script is none", now);
                }
                let step = self.script.as_mut().and_then(Script::step);
                self.log.turns += u32::from(matches!(step, Some(Step::Sleep(_))));
                self.command(step, now, out);
            }
            What::Kernel(cmdline) => {
                self.log.done(Stage::Kernel, now);
                self.init = init(&cmdline, now);
                self.follow(now, out);
            }
            What::Initrd => self.follow(now, out),
            What::Root => {
                self.log.done(Stage::Root, now);
                self.think(UNPACK, Next::Tell(Told::RootReady), now);
            }
            What::Report(told) => self.told(told, now, out),
        }
    }

    fn not_fetched(&mut self, what: What, why: String, now: Duration, out: &mut Effects) {
        match what {
            What::LoaderSize(_) | What::Loader => {
                self.start_over(&format!("loader: {why}"), now);
            }
            What::Script | What::Kernel(_) | What::Initrd if self.script.is_some() => {
                self.step_failed(now, out);
            }
            What::Script | What::Kernel(_) | What::Initrd => {
                self.start_over(&format!("script: {why}"), now);
            }
            What::Root => self.back_off(Next::Root, now),
            // As `koboshi-init` does: it says this one until it is heard.
            What::Report(Told::Up) => self.back_off(Next::Tell(Told::Up), now),
            What::Report(told) => {
                self.log.unheard += 1;
                self.tries = 0;
                self.told(told, now, out);
            }
        }
    }

    /// 1, 2, 4 … 30 s, a quarter more or less.
    fn back_off(&mut self, next: Next, now: Duration) {
        let seconds = 1u64 << self.tries.saturating_sub(1).min(5);
        self.deadline = Some(now + self.dice.about(Duration::from_secs(seconds.min(30))));
        self.doing = Doing::Thinks(next);
    }

    fn question(&self, method: &'static str, url: Url, patience: Patience) -> Ask {
        let reads = self.spec.reads;
        Ask { method, url, body: Vec::new(), keeps: true, wants: 0, patience, reads }
    }

    fn fetch(&mut self, what: What, ask: Ask, out: &mut Effects) {
        self.doing = Doing::Fetches(what);
        self.deadline = None;
        out.push(Effect::Fetch(ask));
    }

    fn think(&mut self, span: Duration, next: Next, now: Duration) {
        let span = self.dice.about(span).div_f64(self.speed);
        self.deadline = Some(now + span);
        self.doing = Doing::Thinks(next);
    }

    fn start_over(&mut self, why: &str, now: Duration) {
        (self.script, self.init, self.address, self.tries) = (None, None, None, 0);
        self.log.rounds += 1;
        self.log.lost = Some(why.to_string());
        if self.log.rounds >= ROUNDS {
            self.doing = Doing::Lost;
            self.deadline = None;
            return;
        }
        self.think(AGAIN, Next::On, now);
    }
}

fn address_stage(speaker: Speaker) -> Stage {
    if speaker.is_ipxe() { Stage::Ipxe } else { Stage::Address }
}

fn broadcast(payload: Vec<u8>) -> Effect {
    let (from, to) = dhcp::PORTS;
    Effect::Send {
        from: (Ipv4Addr::UNSPECIFIED, from),
        to: (Mac([255; 6]), Ipv4Addr::BROADCAST, to),
        payload,
    }
}

#[cfg(test)]
mod tests;
