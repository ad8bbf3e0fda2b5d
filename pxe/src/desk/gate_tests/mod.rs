//! Machines that change seats, step by step and in any order: DHCP as the server does it, a clock that
//! stands still, and a ledger as small as it can be, from which another desk takes up.

mod any_order;
mod stories;

use std::collections::BTreeMap;
use std::time::SystemTime;

use bytes::Bytes;

use super::tests::{Plans, at};
use super::*;
use crate::boots::Stage;
use crate::decide::{Action, Arch, Exclusive, Place, Rule, Seat};
use crate::seats::Holder;

const SERVER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
const MACHINES: usize = 3;

fn mac(machine: usize) -> Mac {
    Mac([0x52, 0x54, 0, 0x77, 0, machine as u8 + 1])
}

/// Each machine has a second NIC.
fn second(machine: usize) -> Mac {
    Mac([0x52, 0x54, 0, 0x77, 1, machine as u8 + 1])
}

fn seat_name(seat: usize) -> String {
    format!("web{}", seat + 1)
}

fn seat_at(seat: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, seat as u8 + 11)
}

fn pool_at(machine: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, machine as u8 + 200)
}

/// The site with this matrix: the seat of each machine.
fn site(matrix: &[usize], exclusive: Exclusive) -> Snapshot {
    let mut machines = HashMap::new();
    for (machine, seat) in matrix.iter().enumerate() {
        let seat = Seat {
            name: seat_name(*seat),
            role: "web".into(),
            address: Some(seat_at(*seat)),
            trouble: None,
            exclusive,
        };
        let known = Arc::new(Known {
            name: format!("m{:02}", machine + 1),
            macs: vec![mac(machine), second(machine)],
            place: Place::Seat(seat),
            loader: None,
        });
        machines.insert(mac(machine), known.clone());
        machines.insert(second(machine), known);
    }
    let reach = Reach::Wire { interface: "eth1".into() };
    let mut subnet = Subnet::new(SERVER, Ipv4Addr::new(10, 77, 0, 0), 24);
    subnet.pool = Some(pool_at(0)..=pool_at(50));
    Snapshot {
        revision: 1,
        networks: vec![Network { subnet: Arc::new(subnet), reach, kind: Kind::Boot }],
        seats: HashSet::new(),
        bmcs: HashMap::new(),
        proxy: false,
        http_port: 8080,
        machines,
        unknown: Arc::new(Unknown::Ignore),
        menu: None,
        loaders: HashMap::new(),
        blobs: HashMap::new(),
        freeze: Arc::new(Plans),
    }
}

/// What is on disk.
#[derive(Default)]
struct Disk {
    boots: HashMap<Mac, Boot>,
    held: BTreeMap<String, Holder>,
}

struct Rack {
    desk: Desk,
    news: mpsc::Receiver<News>,
    disk: Disk,
    matrix: Vec<usize>,
    exclusive: Exclusive,
    /// What each machine was offered by its last DISCOVER.
    offered: Vec<Option<Ipv4Addr>>,
    /// The address each machine answers at: its running system, or its loader.
    answers: Vec<Option<Ipv4Addr>>,
    /// The boot by which its system runs.
    runs: Vec<Option<BootId>>,
    told: Vec<String>,
}

impl Rack {
    fn new(exclusive: Exclusive) -> Rack {
        let matrix: Vec<usize> = (0..MACHINES).collect();
        let (sends, news) = mpsc::channel(10_000);
        Rack {
            desk: Desk::new(site(&matrix, exclusive), sends),
            news,
            disk: Disk::default(),
            matrix,
            exclusive,
            offered: vec![None; MACHINES],
            answers: vec![None; MACHINES],
            runs: vec![None; MACHINES],
            told: Vec::new(),
        }
    }

    fn up() -> Rack {
        let mut rack = Rack::new(Exclusive::Fence);
        (0..MACHINES).for_each(|machine| rack.boot(machine));
        rack
    }

    fn facts(machine: usize, client: Client, discover: bool) -> Facts {
        Facts { mac: mac(machine), asks: Asks::Dhcp { client, archs: vec![Arch::BIOS], discover } }
    }

    /// What DHCP would give now.
    fn given(&self, machine: usize, client: Client, discover: bool) -> Ipv4Addr {
        match self.desk.ask(&Self::facts(machine, client, discover)).action {
            Action::Address { address, .. } => address.unwrap_or(pool_at(machine)),
            other => panic!("an address, not {other:?}"),
        }
    }

    fn discover(&mut self, machine: usize, client: Client) {
        let address = self.given(machine, client, true);
        self.desk.offered(&Self::facts(machine, client, true), &at(address));
        self.offered[machine] = Some(address);
    }

    /// A REQUEST for what was offered; a NAK if that is not its own any more. An address of the pool is.
    fn request(&mut self, machine: usize, client: Client) -> bool {
        let Some(wanted) = self.offered[machine] else { return false };
        if self.given(machine, client, false) != wanted && wanted != pool_at(machine) {
            self.offered[machine] = None;
            return false;
        }
        self.desk.acked(&Self::facts(machine, client, false), &at(wanted), None);
        self.answers[machine] = Some(wanted);
        true
    }

    /// Power on: whatever ran does not run any more.
    fn reset(&mut self, machine: usize) {
        self.answers[machine] = None;
        self.runs[machine] = None;
    }

    /// The script; with a plan, its system runs from here on.
    fn script(&mut self, machine: usize) -> String {
        let peer = IpAddr::V4(self.answers[machine].unwrap_or(pool_at(machine)));
        let text = self.desk.script(mac(machine), peer).expect("a known machine has a script");
        let boot = self.desk.boot_of(mac(machine)).filter(|boot| boot.plan.is_some());
        let here = |boot: &Boot| self.answers[machine].is_some_and(|at| boot.speaks_from(at));
        if let Some(boot) = boot.filter(here) {
            self.runs[machine] = Some(boot.id);
            // Its loader may have been lent another one.
            self.answers[machine] = Some(boot.address);
        }
        text
    }

    fn report(&mut self, machine: usize) -> Option<Result<(), ReportRefusal>> {
        let (id, address) = (self.runs[machine]?, self.answers[machine]?);
        let taken = self.desk.report(id, IpAddr::V4(address), Bytes::from_static(b"{}")).map(drop);
        if taken.is_ok() {
            self.desk.reached(id, Stage::Up);
            self.disk.boots.values_mut().filter(|boot| boot.id == id).for_each(|boot| {
                boot.stage = Stage::Up;
            });
        }
        Some(taken)
    }

    /// From power-on as far as it gets.
    fn boot(&mut self, machine: usize) {
        self.reset(machine);
        self.discover(machine, Client::Ipxe);
        assert!(self.request(machine, Client::Ipxe), "nobody is in between");
        self.script(machine);
        self.report(machine);
        self.write();
    }

    /// What a loader that waits does again and again.
    fn ask_again(&mut self, machine: usize) {
        self.discover(machine, Client::Ipxe);
        assert!(self.request(machine, Client::Ipxe), "nobody is in between");
        self.script(machine);
        self.report(machine);
        self.write();
    }

    fn matrix(&mut self, matrix: Vec<usize>) {
        self.desk.publish(site(&matrix, self.exclusive));
        self.matrix = matrix;
    }

    fn fence(&mut self, machine: usize) -> Vec<Holder> {
        self.reset(machine);
        let (done, _) = mpsc::channel(1);
        let name = format!("m{:02}", machine + 1);
        self.desk.fence(&name, "by hand".into(), done).expect("the ledger hears")
    }

    /// The ledger writes down what it was told.
    fn write(&mut self) {
        while let Ok(news) = self.news.try_recv() {
            match news {
                News::Opened { id, mac, address, fixed, plan, holds, over, machine, .. } => {
                    let is_over = |boot: &Boot| over.iter().any(|(id, _)| *id == boot.id);
                    self.disk.boots.retain(|_, boot| !is_over(boot));
                    let boot = Boot::begin(id, mac, address, fixed, plan, Instant::now());
                    self.disk.boots.insert(mac, boot);
                    let since = SystemTime::now();
                    if let Some(seat) = holds {
                        let (heard, down) = (None, false);
                        let seat_of = seat.clone();
                        let holder =
                            Holder { seat, address, machine, mac, boot: id, since, heard, down };
                        self.disk.held.insert(seat_of, holder);
                    }
                }
                News::Freed { holder, why, .. } => {
                    self.told.push(format!("{} free: {why}", holder.seat));
                    self.release(&holder);
                }
                News::Fenced { freed, over, .. } => {
                    freed.iter().for_each(|holder| self.release(holder));
                    self.disk.boots.retain(|_, boot| over.iter().all(|(id, _)| *id != boot.id));
                }
                News::Held { holder } => {
                    self.disk.held.insert(holder.seat.clone(), holder);
                }
                News::Heard { kind, text, .. } => self.told.push(format!("{kind}: {text}")),
                News::Stray { id, .. } => self.told.push(format!("stray: {id}")),
                News::Probe { holder, machine, .. } => {
                    self.told.push(format!("look for {} for {machine}", holder.machine));
                }
                News::Mark { id, stage, .. } => {
                    self.disk.boots.values_mut().filter(|boot| boot.id == id).for_each(|boot| {
                        boot.stage = boot.stage.max(stage);
                    });
                }
                News::Report { .. } | News::Alive { .. } => {}
            }
        }
    }

    fn release(&mut self, holder: &Holder) {
        let its = |held: &Holder| held.boot == holder.boot;
        if self.disk.held.get(&holder.seat).is_some_and(its) {
            self.disk.held.remove(&holder.seat);
        }
        self.disk.boots.retain(|_, boot| boot.id != holder.boot);
    }

    /// `kill -9`, and another process. News that were not written are lost.
    fn restart(&mut self) {
        let (sends, news) = mpsc::channel(10_000);
        self.desk = Desk::new(site(&self.matrix, self.exclusive), sends);
        self.news = news;
        for boot in self.disk.boots.values() {
            self.desk.restore(boot.clone());
        }
        for holder in self.disk.held.values() {
            assert!(self.desk.holds(holder.clone()), "{holder:?}");
        }
    }

    /// The seat a machine's boot under way has a plan for.
    fn planned(&self, machine: usize) -> Option<String> {
        let boots = self.desk.boots();
        let mut its = boots.iter().filter(|boot| boot.mac == mac(machine));
        its.next().and_then(|boot| boot.plan.as_ref()?.seat.clone())
    }

    /// Never two machines with a plan for one seat, never two that answer at one address, and whoever
    /// has a plan for a seat holds it.
    fn check(&self) {
        let (mut planned, mut fixed) = (HashMap::new(), HashMap::new());
        let holders = self.desk.holders();
        for boot in self.desk.boots() {
            if let Some(seat) = boot.plan.as_ref().and_then(|plan| plan.seat.clone()) {
                let holder = holders.iter().find(|holder| holder.seat == seat);
                assert_eq!(holder.map(|holder| holder.boot), Some(boot.id), "{seat}");
                assert_eq!(planned.insert(seat.clone(), boot.mac), None, "two plans for {seat}");
            }
            if boot.fixed {
                assert_eq!(fixed.insert(boot.address, boot.mac), None, "{}", boot.address);
            }
        }
        let mut answers = HashMap::new();
        for (machine, at) in self.answers.iter().enumerate() {
            let Some(at) = at else { continue };
            assert_eq!(answers.insert(*at, machine), None, "two machines answer at {at}");
        }
    }
}
