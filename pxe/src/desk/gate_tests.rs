//! Machines that change seats, step by step and in any order: DHCP as the server does it, a clock that
//! stands still, and a ledger as small as it can be, from which another desk takes up.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::tests::{Plans, at};
use super::*;
use crate::decide::{Arch, Exclusive, Place, Rule, Seat};

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

    /// A REQUEST for what was offered; a NAK if that is not its own any more.
    fn request(&mut self, machine: usize, client: Client) -> bool {
        let Some(wanted) = self.offered[machine] else { return false };
        if self.given(machine, client, false) != wanted {
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
        if let Some(boot) = boot.filter(|boot| Some(boot.address) == self.answers[machine]) {
            self.runs[machine] = Some(boot.id);
        }
        text
    }

    fn report(&mut self, machine: usize) -> Option<Result<(), ReportRefusal>> {
        let (id, address) = (self.runs[machine]?, self.answers[machine]?);
        let taken = self.desk.report(id, IpAddr::V4(address), Bytes::from_static(b"{}"));
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

#[test]
fn a_swap_goes_well_in_either_order() {
    for order in [[0, 1], [1, 0]] {
        let mut rack = Rack::up();
        rack.matrix(vec![1, 0, 2]);
        let [first, second] = order;
        rack.boot(first);
        rack.check();
        assert_eq!(rack.planned(first), None);
        let text = rack.script(first);
        let (seat, holder) = (seat_name(second), format!("m{:02}", second + 1));
        assert!(text.contains(&format!("waits for {seat}, which {holder} holds")), "{text}");
        assert!(text.contains(&format!("koboshi fence {holder} --by-hand")), "{text}");
        for _ in 0..20 {
            rack.ask_again(first);
            rack.check();
        }
        let waits = rack.told.iter().filter(|told| told.starts_with("waits")).count();
        assert_eq!(waits, 1, "a wait is told once: {:?}", rack.told);

        // The second one is restarted and finds its seat free at once: the first one left it.
        rack.boot(second);
        rack.check();
        assert_eq!(rack.planned(second), Some(seat_name(first)));
        rack.ask_again(first);
        rack.check();
        assert_eq!(rack.planned(first), Some(seat_name(second)));
        assert_eq!(rack.told.iter().filter(|told| told.contains("free:")).count(), 2);
    }
}

#[test]
fn both_of_a_swap_and_three_in_a_ring_restart_at_one_moment() {
    for matrix in [vec![1, 0, 2], vec![1, 2, 0], vec![2, 0, 1]] {
        let mut rack = Rack::up();
        rack.matrix(matrix.clone());
        for machine in 0..MACHINES {
            rack.reset(machine);
            rack.discover(machine, Client::Ipxe);
            rack.check();
        }
        for machine in [2, 0, 1] {
            rack.request(machine, Client::Ipxe);
            rack.script(machine);
            rack.check();
        }
        for _ in 0..2 {
            (0..MACHINES).for_each(|machine| rack.ask_again(machine));
            rack.check();
        }
        for (machine, seat) in matrix.iter().enumerate() {
            assert_eq!(rack.planned(machine), Some(seat_name(*seat)), "{matrix:?}");
        }
    }
}

#[test]
fn one_discover_in_its_name_costs_a_machine_nothing() {
    let mut rack = Rack::up();
    rack.matrix(vec![1, 0, 2]);
    rack.discover(0, Client::Firmware);
    rack.boot(1);
    rack.check();
    assert_eq!(rack.planned(1), None, "m01 has not left: nobody took up what it was offered");
    // A whole exchange in its name: nothing on the wire tells that from its firmware. But it reports.
    let id = rack.runs[0].expect("it runs");
    rack.desk.acked(&Rack::facts(0, Client::Firmware, false), &at(pool_at(0)), None);
    rack.write();
    assert!(rack.desk.holders().iter().all(|holder| holder.seat != "web1"));
    assert_eq!(rack.report(0), Some(Err(ReportRefusal::NoSuchBoot)));
    rack.write();
    assert!(rack.told.contains(&format!("stray: {id}")), "{:?}", rack.told);
    let holder = Holder {
        seat: "web1".into(),
        address: seat_at(0),
        machine: "m01".into(),
        mac: mac(0),
        boot: id,
        since: SystemTime::now(),
        heard: Some(SystemTime::now()),
        down: false,
    };
    assert_eq!(rack.desk.alive(holder.clone()), None);
    rack.write();
    rack.ask_again(1);
    rack.check();
    assert_eq!(rack.planned(1), None, "m01 is in its seat");
    // Where the seat has been given away meanwhile, that is said instead.
    rack.fence(0);
    rack.ask_again(1);
    assert_eq!(rack.planned(1), Some("web1".into()));
    assert_eq!(rack.desk.alive(holder).map(|other| other.machine), Some("m02".into()));
}

#[test]
fn a_fenced_machine_is_out_and_who_waits_is_in() {
    let mut rack = Rack::up();
    rack.matrix(vec![1, 0, 2]);
    let running = rack.runs[0].expect("it runs");
    rack.boot(1);
    let freed = rack.fence(0);
    assert_eq!(freed.iter().map(|holder| holder.seat.as_str()).collect::<Vec<_>>(), ["web1"]);
    rack.write();
    rack.ask_again(1);
    rack.check();
    assert_eq!(rack.planned(1), Some("web1".into()));
    // It was not off at all.
    let peer = IpAddr::V4(seat_at(0));
    let refused = rack.desk.report(running, peer, Bytes::from_static(b"{}"));
    assert_eq!(refused, Err(ReportRefusal::NoSuchBoot));
    rack.write();
    assert!(rack.told.iter().any(|told| told.starts_with("stray")), "{:?}", rack.told);
    assert!(rack.fence(0).is_empty());
}

#[test]
fn a_machine_that_dies_at_any_stage_keeps_its_seat_until_it_is_fenced() {
    for steps in 0..4 {
        let mut rack = Rack::new(Exclusive::Fence);
        rack.discover(0, Client::Ipxe);
        if steps > 0 {
            rack.request(0, Client::Ipxe);
        }
        if steps > 1 {
            rack.script(0);
        }
        if steps > 2 {
            rack.report(0);
        }
        rack.write();
        rack.matrix(vec![1, 0, 2]);
        for restarted in [false, true] {
            if restarted {
                rack.restart();
            }
            rack.reset(0);
            rack.boot(1);
            assert_eq!(rack.planned(1), None, "{steps} steps, restarted: {restarted}");
        }
        rack.fence(0);
        rack.ask_again(1);
        rack.check();
        assert_eq!(rack.planned(1), Some("web1".into()));
    }
}

#[test]
fn a_machine_that_said_it_shuts_down_is_not_off_by_that() {
    let mut rack = Rack::up();
    let id = rack.runs[0].expect("it runs");
    assert!(rack.desk.reached(id, Stage::Down));
    rack.matrix(vec![1, 0, 2]);
    rack.boot(1);
    assert_eq!(rack.planned(1), None);
    let text = rack.script(1);
    assert!(text.contains("it shuts down, which does not prove that it stays off"), "{text}");
}

#[test]
fn a_seat_that_needs_no_fence_moves_when_nobody_answers() {
    let mut rack = Rack::new(Exclusive::Probe);
    (0..MACHINES).for_each(|machine| rack.boot(machine));
    rack.matrix(vec![1, 0, 2]);
    rack.boot(1);
    let looks = |rack: &mut Rack| {
        rack.write();
        rack.told.iter().filter(|told| *told == "look for m01 for m02").count()
    };
    assert_eq!(looks(&mut rack), 0, "DHCP asks for it, where the link is");
    rack.desk.look_for_holder(mac(1));
    rack.desk.look_for_holder(mac(1));
    assert_eq!(looks(&mut rack), 1, "one look at a time");
    // An answer that comes late, for a boot that holds the seat no more, moves nothing.
    let holder = rack.desk.holders().into_iter().find(|holder| holder.seat == "web1");
    let holder = holder.expect("held");
    let other = Holder { boot: BootId([9; 16]), ..holder.clone() };
    assert!(!rack.desk.vacate(&other, "nobody answers".into()));
    // Nor one for a machine that has reported meanwhile.
    rack.report(0);
    assert!(!rack.desk.vacate(&holder, "nobody answers".into()));
    let holder = rack.desk.holders().into_iter().find(|holder| holder.seat == "web1");
    rack.reset(0);
    assert!(rack.desk.vacate(&holder.expect("held"), "nobody answers".into()));
    rack.write();
    rack.ask_again(1);
    rack.check();
    assert_eq!(rack.planned(1), Some("web1".into()));
    rack.restart();
    rack.check();
    assert_eq!(rack.planned(1), Some("web1".into()));

    // A machine between loader and koboshi-init answers nobody either, and is on its way.
    let mut rack = Rack::new(Exclusive::Probe);
    rack.discover(0, Client::Ipxe);
    rack.request(0, Client::Ipxe);
    rack.script(0);
    rack.matrix(vec![1, 0, 2]);
    rack.boot(1);
    rack.desk.look_for_holder(mac(1));
    assert_eq!(looks(&mut rack), 0);
    // What needs a fence is not asked for.
    let mut rack = Rack::up();
    rack.matrix(vec![1, 0, 2]);
    rack.boot(1);
    rack.desk.look_for_holder(mac(1));
    assert_eq!(looks(&mut rack), 0);
}

#[test]
fn two_nics_of_a_machine_never_have_two_seats_nor_one_address_twice() {
    let mut rack = Rack::up();
    let ask = |rack: &Rack, client, discover| {
        let asks = Asks::Dhcp { client, archs: vec![], discover };
        let step = rack.desk.ask(&Facts { mac: second(0), asks });
        match step.action {
            Action::Address { address, hostname, loader, opens } => {
                assert!(address.is_some() || (hostname.is_none() && loader.is_none() && !opens));
                (address, step.because.contains(&Rule::OtherNic))
            }
            other => panic!("an address, not {other:?}"),
        }
    };
    // Its system asks by the other NIC too: an address of the pool, also once the matrix has changed.
    assert_eq!(ask(&rack, Client::System, true), (None, true));
    rack.matrix(vec![1, 0, 2]);
    assert_eq!(ask(&rack, Client::System, true), (None, true));
    assert_eq!(ask(&rack, Client::System, false), (None, true));
    rack.matrix(vec![0, 1, 2]);
    // Its firmware asks by the other NIC: a boot of the whole machine, and what ran does not.
    assert_eq!(ask(&rack, Client::Firmware, true), (Some(seat_at(0)), false));
    let asks = Asks::Dhcp { client: Client::Firmware, archs: vec![], discover: true };
    rack.desk.offered(&Facts { mac: second(0), asks }, &at(seat_at(0)));
    assert!(rack.desk.boot_of(mac(0)).is_none());
    rack.check();
    // A REQUEST that was under way by the first NIC comes too late.
    assert_eq!(rack.given(0, Client::Firmware, false), pool_at(0));
}

#[test]
fn an_offer_whose_seat_was_given_away_meanwhile_opens_nothing() {
    let mut rack = Rack::new(Exclusive::Fence);
    let address = rack.given(0, Client::Ipxe, true);
    assert_eq!(address, seat_at(0));
    rack.matrix(vec![1, 0, 2]);
    rack.boot(1);
    assert_eq!(rack.planned(1), Some("web1".into()));
    rack.matrix(vec![0, 1, 2]);
    rack.desk.offered(&Rack::facts(0, Client::Ipxe, true), &at(address));
    rack.check();
    assert!(rack.desk.boot_of(mac(0)).is_none());
    assert_eq!(rack.given(0, Client::Ipxe, false), pool_at(0), "and is refused");
}

/// One thing that happens.
#[derive(Debug, Clone)]
enum Happens {
    Reset(usize),
    Discover(usize, bool),
    Request(usize, bool),
    Script(usize),
    Report(usize),
    Dies(usize),
    Fence(usize),
    Down(usize),
    NobodyAnswers(usize),
    Matrix([usize; MACHINES]),
    Restart,
    RestartBeforeWriting,
    SecondNic(usize),
}

fn happens() -> impl Strategy<Value = Happens> {
    let machine = 0..MACHINES;
    let matrices =
        prop::sample::select(vec![[0, 1, 2], [1, 0, 2], [1, 2, 0], [2, 0, 1], [0, 2, 1]]);
    prop_oneof![
        3 => machine.clone().prop_map(Happens::Reset),
        6 => (machine.clone(), any::<bool>()).prop_map(|(m, rom)| Happens::Discover(m, rom)),
        6 => (machine.clone(), any::<bool>()).prop_map(|(m, rom)| Happens::Request(m, rom)),
        5 => machine.clone().prop_map(Happens::Script),
        3 => machine.clone().prop_map(Happens::Report),
        1 => machine.clone().prop_map(Happens::Dies),
        1 => machine.clone().prop_map(Happens::Fence),
        1 => machine.clone().prop_map(Happens::Down),
        1 => machine.clone().prop_map(Happens::NobodyAnswers),
        2 => matrices.prop_map(Happens::Matrix),
        1 => Just(Happens::Restart),
        1 => Just(Happens::RestartBeforeWriting),
        1 => machine.prop_map(Happens::SecondNic),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Whatever happens in whatever order, as long as nobody lies about what is off.
    #[test]
    fn never_two_machines_in_one_seat(events in prop::collection::vec(happens(), 1..120)) {
        let mut rack = Rack::new(Exclusive::Probe);
        let rom = |rom| if rom { Client::Firmware } else { Client::Ipxe };
        // What was offered and not yet acknowledged may be lost with the process; whoever fetches a
        // script has been written down for seconds.
        let mut late = false;
        for event in events {
            if !late || !matches!(event, Happens::RestartBeforeWriting) {
                rack.write();
            }
            match event {
                Happens::Reset(machine) | Happens::Dies(machine) => {
                    rack.reset(machine);
                    rack.offered[machine] = None;
                }
                // Only what is not running asks: a machine that runs is reset before.
                Happens::Discover(machine, _) if rack.runs[machine].is_some() => {}
                Happens::Discover(machine, by) => {
                    rack.answers[machine] = None;
                    rack.discover(machine, rom(by));
                }
                Happens::Request(machine, _) if rack.runs[machine].is_some() => {}
                Happens::Request(machine, by) => {
                    let _acked = rack.request(machine, rom(by));
                }
                Happens::Script(machine) => drop(rack.script(machine)),
                Happens::Report(machine) => drop(rack.report(machine)),
                Happens::Fence(machine) => drop(rack.fence(machine)),
                Happens::Down(machine) => {
                    if let Some(id) = rack.runs[machine].take() {
                        rack.desk.reached(id, Stage::Down);
                        rack.answers[machine] = None;
                        rack.offered[machine] = None;
                    }
                }
                Happens::NobodyAnswers(machine) => {
                    rack.desk.look_for_holder(mac(machine));
                    let seat = seat_name(rack.matrix[machine]);
                    let holders = rack.desk.holders();
                    let holder = holders.into_iter().find(|holder| holder.seat == seat);
                    if let Some(holder) = holder && !rack.answers.contains(&Some(holder.address)) {
                        rack.desk.vacate(&holder, "nobody answers".into());
                    }
                }
                Happens::Matrix(matrix) => rack.matrix(matrix.to_vec()),
                Happens::Restart => {
                    rack.write();
                    rack.restart();
                }
                Happens::RestartBeforeWriting => rack.restart(),
                Happens::SecondNic(machine) => {
                    let asks = Asks::Dhcp { client: Client::System, archs: vec![], discover: true };
                    let step = rack.desk.ask(&Facts { mac: second(machine), asks });
                    if let Action::Address { address: Some(address), .. } = step.action {
                        prop_assert!(!rack.answers.contains(&Some(address)), "{address} twice");
                    }
                }
            }
            rack.check();
            late = matches!(event, Happens::Discover(..));
        }
    }
}
