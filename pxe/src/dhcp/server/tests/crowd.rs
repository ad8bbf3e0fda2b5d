//! A crowd of clients doing all of it at random, while we look for one address in two hands.

use proptest::prelude::*;

use super::*;

/// What the pool has: all of it is lent ahead of the disk, or nothing.
const POOL: [Ipv4Addr; 4] = [
    Ipv4Addr::new(10, 77, 0, 200),
    Ipv4Addr::new(10, 77, 0, 216),
    Ipv4Addr::new(10, 77, 0, 232),
    Ipv4Addr::new(10, 77, 0, 248),
];

/// What may happen to one of a few clients, or to all.
#[derive(Debug, Clone)]
enum Step {
    /// DISCOVER to ACK without a hitch, but for a disk that is behind.
    Lease(u16),
    Discover(u16),
    Select(u16),
    Reboot(u16),
    Renew(u16),
    Release(u16),
    Decline(u16),
    Keep(u16),
    /// A journal entry is written, or fails to be.
    Disk(bool),
    /// All that is written reaches the disk.
    Sync,
    /// A probe is answered, by the link as it is.
    Link,
    Pass(u16),
    /// The host's clock is set, which is seen, and written, before anything else happens.
    Clock(u64),
    Kill,
    /// The host goes down, and of what was written since the last sync so many entries are there.
    LosePower(u8),
    /// A seat for the client, in the middle of the pool; or none any more.
    Reload(u16, Option<usize>),
}

fn any_step() -> impl Strategy<Value = Step> {
    let who = 0..5u16;
    prop_oneof![
        6 => who.clone().prop_map(Step::Lease),
        4 => who.clone().prop_map(Step::Discover),
        6 => who.clone().prop_map(Step::Select),
        2 => who.clone().prop_map(Step::Reboot),
        2 => who.clone().prop_map(Step::Renew),
        1 => who.clone().prop_map(Step::Release),
        1 => who.clone().prop_map(Step::Decline),
        1 => who.clone().prop_map(Step::Keep),
        6 => prop::bool::weighted(0.9).prop_map(Step::Disk),
        4 => Just(Step::Sync),
        6 => Just(Step::Link),
        2 => (0..2000u16).prop_map(Step::Pass),
        1 => (0..4_000_000u64).prop_map(Step::Clock),
        1 => Just(Step::Kill),
        1 => (0..6u8).prop_map(Step::LosePower),
        1 => (who, prop::option::of(0..3usize)).prop_map(|(who, seat)| Step::Reload(who, seat)),
    ]
}

/// A client's side: what it was last offered, and what it believes to have, until when.
#[derive(Debug, Default, Clone)]
struct Client {
    offered: Option<Ipv4Addr>,
    has: Option<(Ipv4Addr, Instant)>,
    asked_at: Option<Instant>,
}

struct Crowd {
    /// Seats come and go too. A seat takes its address from an expired lease without waiting for
    /// the journal, so that here no entry gets lost.
    reloads: bool,
    /// The machines are behind a relay: nobody can be asked whether an address is free.
    relayed: bool,
    rig: Rig,
    clients: Vec<Client>,
    probes: Vec<(Ipv4Addr, Mac)>,
    journal: Vec<(Ticket, LeaseChange, bool)>,
    /// Not on the disk yet, with those that wait for it.
    written: Vec<(LeaseChange, Option<Ticket>)>,
}

impl Crowd {
    fn new(reloads: bool, relayed: bool) -> Crowd {
        let mut crowd = Crowd {
            reloads,
            relayed,
            rig: Rig::new(200..=248),
            clients: vec![Client::default(); 5],
            probes: Vec::new(),
            journal: Vec::new(),
            written: Vec::new(),
        };
        crowd.network(&[]);
        crowd.rig.server.ahead.storm = 1;
        crowd
    }

    fn network(&mut self, reserved: &[Ipv4Addr]) {
        let between = (200..=248).map(at).filter(|address| !POOL.contains(address));
        let reserved: Vec<Ipv4Addr> = between.chain(reserved.iter().copied()).collect();
        self.rig.subnet = subnet(200..=248, &reserved);
        if self.relayed {
            self.rig.subnet = far(&self.rig.subnet);
        }
    }

    /// What a new process finds.
    fn restart(&mut self, written: usize, power: bool) {
        self.probes.clear();
        self.journal.clear();
        let written: Vec<_> = self.written.drain(..).take(written).collect();
        written.into_iter().for_each(|(change, _)| self.rig.disk.apply(change));
        if power {
            self.rig.disk.lose_power(self.rig.now.wall);
        }
        self.rig.restart();
        self.rig.server.ahead.storm = 1;
    }

    fn absorb(&mut self, effects: Effects) {
        for effect in effects {
            match effect {
                Effect::Probe { address, mac, .. } => {
                    self.probes.retain(|(former, _)| *former != address);
                    self.probes.push((address, mac));
                }
                Effect::Commit { ticket, change, durable } => {
                    self.journal.push((ticket, change, durable));
                }
                Effect::Tell(_) => {}
                Effect::Send(out) => {
                    let packet = Packet::decode(&out.bytes).expect("ours");
                    let who = usize::from(packet.chaddr[5]);
                    let client = &mut self.clients[who];
                    match packet.options.fixed::<1>(53) {
                        Some([2]) => client.offered = Some(packet.yiaddr),
                        Some([5]) => {
                            let seconds = packet.options.fixed::<4>(51).expect("a lease time");
                            let seconds = u64::from(u32::from_be_bytes(seconds));
                            // RFC 2131 4.4.1: counted from when the REQUEST was sent.
                            // A client that asks for nothing takes no ACK.
                            let Some(start) = client.asked_at else { continue };
                            client.has =
                                Some((packet.yiaddr, start + Duration::from_secs(seconds)));
                        }
                        _ => *client = Client::default(),
                    }
                }
            }
        }
    }

    fn holders(&self, address: Ipv4Addr) -> Vec<Mac> {
        (0u16..)
            .zip(&self.clients)
            .filter(|(_, client)| {
                client.has.is_some_and(|(has, until)| has == address && until > self.rig.now.mono)
            })
            .map(|(who, _)| mac(who))
            .collect()
    }

    fn by_lease(&self, holder: Mac) -> bool {
        let client = &self.clients[usize::from(holder.0[5])];
        client
            .has
            .is_some_and(|(_, until)| until < self.rig.now.mono + Duration::from_secs(LEASE * 2))
    }

    fn step(&mut self, step: Step) {
        let mono = self.rig.now.mono;
        let effects = match step {
            Step::Lease(who) => {
                self.step(Step::Discover(who));
                while !self.probes.is_empty() {
                    self.step(Step::Link);
                }
                self.step(Step::Select(who));
                while !self.journal.is_empty() {
                    self.step(Step::Disk(true));
                }
                return;
            }
            Step::Discover(who) => self.rig.send(&discover(who)),
            Step::Select(who) => {
                let client = &mut self.clients[usize::from(who)];
                let Some(offered) = client.offered else { return };
                client.asked_at = Some(mono);
                client.has = None;
                self.rig.send(&select(who, offered))
            }
            Step::Reboot(who) => {
                let client = &mut self.clients[usize::from(who)];
                let Some((address, _)) = client.has else { return };
                client.asked_at = Some(mono);
                self.rig.send(&reboot(who, address))
            }
            Step::Renew(who) => {
                let client = &mut self.clients[usize::from(who)];
                let Some((address, until)) = client.has else { return };
                if until <= mono {
                    return;
                }
                client.asked_at = Some(mono);
                self.rig.send(&renew(who, address))
            }
            Step::Release(who) => {
                let client = std::mem::take(&mut self.clients[usize::from(who)]);
                let Some((address, _)) = client.has else { return };
                self.rig.send(&give_back(who, address))
            }
            Step::Decline(who) => {
                let client = std::mem::take(&mut self.clients[usize::from(who)]);
                let Some((address, _)) = client.has else { return };
                self.rig.send(&decline(who, address))
            }
            Step::Keep(who) => self.rig.server.keep(mac(who), self.rig.now),
            Step::Disk(ok) => {
                if self.journal.is_empty() {
                    return;
                }
                let (ticket, change, durable) = self.journal.remove(0);
                let ok = ok || (self.reloads && matches!(change, LeaseChange::Delete(..)));
                if ok {
                    self.written.push((change, durable.then_some(ticket)));
                }
                if ok && durable {
                    return;
                }
                self.rig.server.committed(ticket, ok, self.rig.now)
            }
            Step::Sync => {
                let mut effects = Effects::new();
                for (change, waits) in std::mem::take(&mut self.written) {
                    self.rig.disk.apply(change);
                    let now = self.rig.now;
                    effects.extend(
                        waits.into_iter().flat_map(|t| self.rig.server.committed(t, true, now)),
                    );
                }
                effects
            }
            Step::Link => {
                if self.probes.is_empty() {
                    return;
                }
                let (address, mac) = self.probes.remove(0);
                let in_use = self.holders(address).iter().any(|holder| *holder != mac);
                self.rig.server.probed(address, in_use, self.rig.now)
            }
            Step::Pass(seconds) => {
                self.rig.pass(u64::from(seconds));
                self.rig.server.on_deadline(self.rig.now)
            }
            Step::Clock(wall) => {
                self.rig.now.wall = 1_698_000_000 + wall;
                let effects = self.rig.server.on_deadline(self.rig.now);
                self.absorb(effects);
                while !self.journal.is_empty() {
                    self.step(Step::Disk(true));
                }
                return;
            }
            Step::Kill => {
                // What was on its way may have arrived: the first half did.
                let arrived = self.journal.len() / if self.reloads { 1 } else { 2 };
                let arrived = self.journal.drain(..).take(arrived);
                self.written.extend(arrived.map(|(_, change, _)| (change, None)));
                self.restart(usize::MAX, false);
                return;
            }
            Step::LosePower(arrived) => {
                self.restart(usize::from(arrived), true);
                return;
            }
            Step::Reload(who, seat) => {
                let taken = seat.map(|seat| POOL[seat]);
                self.rig
                    .seats
                    .retain(|holder, address| *holder != mac(who) && Some(*address) != taken);
                if let Some(address) = taken {
                    self.rig.seats.insert(mac(who), address);
                }
                // Nobody sees a machine run on behind a relay: that too is for fences.
                for who in (0..5).filter(|_| self.relayed) {
                    let client = &self.clients[usize::from(who)];
                    let has = client.has.map(|(address, _)| address);
                    if !self.by_lease(mac(who)) && self.rig.seats.get(&mac(who)).copied() != has {
                        self.clients[usize::from(who)] = Client::default();
                    }
                }
                let reserved: Vec<Ipv4Addr> = self.rig.seats.values().copied().collect();
                self.network(&reserved);
                return;
            }
        };
        self.absorb(effects);
    }
}

fn no_address_twice(steps: Vec<Step>, reloads: bool, relayed: bool) {
    let mut crowd = Crowd::new(reloads, relayed);
    for step in steps {
        let not_here = match step {
            Step::Reload(..) => !reloads,
            // A seat takes an address from a lease that has run out without waiting for the disk.
            Step::LosePower(_) => reloads,
            _ => false,
        };
        if not_here {
            continue;
        }
        crowd.step(step.clone());
        for address in POOL {
            let holders = crowd.holders(address);
            // A seat that moves while its former machine runs is for fences to prevent.
            let by_lease = holders.iter().any(|holder| crowd.by_lease(*holder));
            assert!(
                holders.len() <= 1 || !by_lease,
                "{address} in two hands: {holders:?} after {step:?}"
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    /// Whatever is lost, late, doubled, killed or without power.
    #[test]
    fn no_address_of_the_pool_is_ever_in_two_hands(
        steps in prop::collection::vec(any_step(), 1..120),
    ) {
        no_address_twice(steps, false, false);
    }

    /// Nor where nobody can be asked.
    #[test]
    fn nor_behind_a_relay(steps in prop::collection::vec(any_step(), 1..120)) {
        no_address_twice(steps, false, true);
    }

    /// And whatever the site says in between.
    #[test]
    fn nor_a_seats_address_in_a_lease(steps in prop::collection::vec(any_step(), 1..120)) {
        no_address_twice(steps, true, false);
    }

    /// Both.
    #[test]
    fn nor_a_seats_behind_a_relay(steps in prop::collection::vec(any_step(), 1..120)) {
        no_address_twice(steps, true, true);
    }
}
