//! A crowd of clients doing all of it at random, while we look for one address in two hands.

use proptest::prelude::*;

use super::*;

/// What may happen to one of a few clients, or to all.
#[derive(Debug, Clone)]
enum Step {
    Discover(u16),
    Select(u16),
    Reboot(u16),
    Renew(u16),
    Release(u16),
    Decline(u16),
    Keep(u16),
    /// A journal entry reaches the disk, or fails to.
    Disk(bool),
    /// A probe is answered, by the link as it is.
    Link,
    Pass(u16),
    Kill,
    /// A seat for the client, in the middle of the pool; or none any more.
    Reload(u16, Option<u8>),
}

fn any_step() -> impl Strategy<Value = Step> {
    let who = 0..5u16;
    prop_oneof![
        4 => who.clone().prop_map(Step::Discover),
        6 => who.clone().prop_map(Step::Select),
        2 => who.clone().prop_map(Step::Reboot),
        2 => who.clone().prop_map(Step::Renew),
        1 => who.clone().prop_map(Step::Release),
        1 => who.clone().prop_map(Step::Decline),
        1 => who.clone().prop_map(Step::Keep),
        6 => prop::bool::weighted(0.9).prop_map(Step::Disk),
        6 => Just(Step::Link),
        2 => (0..2000u16).prop_map(Step::Pass),
        1 => Just(Step::Kill),
        1 => (who, prop::option::of(200..203u8)).prop_map(|(who, seat)| Step::Reload(who, seat)),
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
    rig: Rig,
    clients: Vec<Client>,
    probes: Vec<(Ipv4Addr, Mac)>,
    journal: Vec<(Ticket, LeaseChange)>,
}

impl Crowd {
    fn absorb(&mut self, effects: Effects) {
        for effect in effects {
            match effect {
                Effect::Probe { address, mac, .. } => self.probes.push((address, mac)),
                Effect::Commit { ticket, change } => self.journal.push((ticket, change)),
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
                let (ticket, change) = self.journal.remove(0);
                let ok = ok || (self.reloads && matches!(change, LeaseChange::Delete(_)));
                if ok {
                    self.rig.write(&change);
                }
                self.rig.server.committed(ticket, ok, self.rig.now)
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
            Step::Kill => {
                // What was on its way may have arrived: the first half did.
                let arrived = self.journal.len() / if self.reloads { 1 } else { 2 };
                for (_, change) in std::mem::take(&mut self.journal).into_iter().take(arrived) {
                    self.rig.write(&change);
                }
                self.probes.clear();
                self.rig.restart();
                return;
            }
            Step::Reload(who, seat) => {
                let taken = seat.map(at);
                self.rig
                    .seats
                    .retain(|holder, address| *holder != mac(who) && Some(*address) != taken);
                if let Some(address) = taken {
                    self.rig.seats.insert(mac(who), address);
                }
                let reserved: Vec<Ipv4Addr> = self.rig.seats.values().copied().collect();
                self.rig.subnet = subnet(200..=203, &reserved);
                return;
            }
        };
        self.absorb(effects);
    }
}

fn no_address_twice(steps: Vec<Step>, reloads: bool) {
    let mut crowd = Crowd {
        reloads,
        rig: Rig::new(200..=203),
        clients: vec![Client::default(); 5],
        probes: Vec::new(),
        journal: Vec::new(),
    };
    for step in steps {
        if !reloads && matches!(step, Step::Reload(..)) {
            continue;
        }
        crowd.step(step.clone());
        for last in 200..=203 {
            let holders = crowd.holders(at(last));
            // A seat that moves while its former machine runs is for fences to prevent.
            let by_lease = holders.iter().any(|holder| crowd.by_lease(*holder));
            assert!(
                holders.len() <= 1 || !by_lease,
                "{} in two hands: {holders:?} after {step:?}",
                at(last)
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    /// Whatever is lost, late, doubled or killed.
    #[test]
    fn no_address_of_the_pool_is_ever_in_two_hands(
        steps in prop::collection::vec(any_step(), 1..120),
    ) {
        no_address_twice(steps, false);
    }

    /// And whatever the site says in between.
    #[test]
    fn nor_a_seats_address_in_a_lease(steps in prop::collection::vec(any_step(), 1..120)) {
        no_address_twice(steps, true);
    }
}
