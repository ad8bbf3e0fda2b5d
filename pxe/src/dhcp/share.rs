//! What of a pool is for whom. Anybody can invent a MAC, a thousand a second, and take an address for each;
//! a pool must not run dry by that. Machines of the site take what they need of it. Those that the site
//! does not know share the rest: so many behind one port of a relay, so many that have not booted yet and
//! only for a short time, and part of the pool is never theirs. (RFC 2131 §7 leaves this to the server.)
//!
//! ```text
//! |<------------------------------- the pool -------------------------------->|
//! | kept for the site's own |           strangers, and addresses that rest    |
//!                           | half of it: those that have not booted yet      |
//! ```

use std::collections::HashMap;
use std::fmt;
use std::net::Ipv4Addr;
use std::sync::Arc;

use serde::Serialize;

use super::answer::{Serving, Subnet, Who};
use super::lease::ClientKey;
use super::relay::RelayInfo;
use super::request::Request;

/// Strangers behind one port of one relay agent (giaddr and circuit-id) at a time. The widest honest one is
/// the uplink of a chassis: sixteen blades with two NICs each.
pub const PER_CIRCUIT: usize = 32;
/// The first lease of a stranger, seconds: it covers a ROM's way to its loader (EDK2 takes up to a minute
/// with its own retries), and what an invented MAC takes comes back soon. With its loader, or its first
/// report, it gets the lease that the site says.
pub const FIRST_LEASE: u32 = 120;
/// One part in so many of a pool is the site's own machines', where they seem to need none of it: they do
/// as soon as one waits for its seat, or is to be wiped.
const KEPT_AT_LEAST: usize = 8;
/// Of a pool three parts in so many are the most that is kept: a site of many spares sees new machines too.
const KEPT_AT_MOST: usize = 4;
/// Addresses inside a pool that may rest, one in so many, however many strangers there are: somebody's
/// conflict is found out of a handful.
const RESTS_AT_LEAST: usize = 8;

/// Why a stranger gets no address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Crowded {
    /// Too many are behind this port of its relay.
    Circuit {
        /// As the relay calls it.
        circuit: String,
    },
    /// As many as may have not booted yet.
    NotBooted {
        /// So many addresses.
        have: usize,
    },
    /// All that strangers may have.
    Pool {
        /// So many addresses, those that rest among them …
        have: usize,
        /// … of so many.
        of: usize,
    },
}

impl fmt::Display for Crowded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Crowded::Circuit { circuit } => write!(
                f,
                "{PER_CIRCUIT} machines that the site does not know have addresses behind circuit {circuit}: \
                 no more of them get one there; somebody invents MACs at that switch port, or has more machines"
            ),
            Crowded::NotBooted { have } => write!(
                f,
                "{have} machines that the site does not know were given an address and have booted nothing: \
                 until their first leases end ({FIRST_LEASE} s) others get none; somebody invents MACs, or very \
                 many machines are new"
            ),
            Crowded::Pool { have, of } => write!(
                f,
                "machines that the site does not know have {have} of the pool's {of} addresses, which is all \
                 that they may have: the rest is kept for machines of the site; koboshi adopt MAC makes one of \
                 them known, a larger pool = \"FIRST-LAST\" has room for more"
            ),
        }
    }
}

/// A port of a relay agent.
type Circuit = (Ipv4Addr, String);

#[derive(Debug)]
struct Stranger {
    network: Ipv4Addr,
    circuit: Option<Circuit>,
    /// It has fetched its loader, or reported.
    booted: bool,
    /// Seconds that it is lent an address for from then on.
    lease: u32,
}

/// One pool.
#[derive(Debug)]
struct Part {
    subnet: Arc<Subnet>,
    /// Addresses that it may give.
    size: usize,
    /// Strangers that have one of them; of these, who has not booted.
    strangers: usize,
    not_booted: usize,
    /// Addresses that rest.
    rests: usize,
}

impl Part {
    /// For the site's own machines.
    fn kept(&self) -> usize {
        let most = self.size * (KEPT_AT_MOST - 1) / KEPT_AT_MOST;
        self.subnet.kept.max(self.size / KEPT_AT_LEAST).min(most)
    }

    fn for_strangers(&self) -> usize {
        self.size.saturating_sub(self.kept())
    }
}

/// See the module. Bounded by the addresses of the pools.
#[derive(Debug, Default)]
pub(super) struct Shares {
    strangers: HashMap<ClientKey, Stranger>,
    circuits: HashMap<Circuit, usize>,
    parts: HashMap<Ipv4Addr, Part>,
}

impl Shares {
    /// A client that is to be given an address of a pool, and has none if it is `new`.
    pub fn admit(
        &mut self,
        request: &Request,
        serving: &Serving,
        new: bool,
    ) -> Result<(), Crowded> {
        let key = request.key();
        if serving.who == Who::Machine {
            self.leave(key);
            return Ok(());
        }
        let booted = serving.who == Who::Booted;
        if self.strangers.contains_key(&key) {
            if booted {
                self.boots(key);
            }
            return Ok(());
        }
        let circuit = circuit(request);
        let part = self.part(&serving.subnet);
        let (most, network) = (part.for_strangers(), serving.subnet.network);
        let have = part.strangers + part.rests;
        if new && have >= most {
            return Err(Crowded::Pool { have, of: part.size });
        }
        if new && !booted && part.not_booted >= most.div_ceil(2) {
            return Err(Crowded::NotBooted { have: part.not_booted });
        }
        let behind = circuit.as_ref().and_then(|circuit| self.circuits.get(circuit)).copied();
        if let Some((_, circuit)) = circuit.as_ref().filter(|_| new)
            && behind.unwrap_or(0) >= PER_CIRCUIT
        {
            return Err(Crowded::Circuit { circuit: circuit.clone() });
        }
        let part = self.part(&serving.subnet);
        part.strangers += 1;
        part.not_booted += usize::from(!booted);
        if let Some(circuit) = &circuit {
            *self.circuits.entry(circuit.clone()).or_default() += 1;
        }
        let lease = super::server::whole_lease(&serving.subnet);
        self.strangers.insert(key, Stranger { network, circuit, booted, lease });
        Ok(())
    }

    /// It has booted: the lease that is its own from now on, where it had a short one until now.
    pub fn boots(&mut self, key: ClientKey) -> Option<u32> {
        let stranger = self.strangers.get_mut(&key).filter(|stranger| !stranger.booted)?;
        stranger.booted = true;
        if let Some(part) = self.parts.get_mut(&stranger.network) {
            part.not_booted = part.not_booted.saturating_sub(1);
        }
        Some(stranger.lease)
    }

    /// It is a machine of the site, or has no address any more.
    pub fn leave(&mut self, key: ClientKey) {
        let Some(stranger) = self.strangers.remove(&key) else { return };
        if let Some(part) = self.parts.get_mut(&stranger.network) {
            part.strangers = part.strangers.saturating_sub(1);
            part.not_booted = part.not_booted.saturating_sub(usize::from(!stranger.booted));
        }
        if let Some(circuit) = stranger.circuit
            && let Some(behind) = self.circuits.get_mut(&circuit)
        {
            *behind -= 1;
            if *behind == 0 {
                self.circuits.remove(&circuit);
            }
        }
    }

    /// Forgets those that have no address any more.
    pub fn sweep(&mut self, has: impl Fn(ClientKey) -> bool) {
        let gone: Vec<ClientKey> =
            self.strangers.keys().filter(|key| !has(**key)).copied().collect();
        gone.into_iter().for_each(|key| self.leave(key));
    }

    /// Whether one more address of this pool may rest.
    pub fn may_rest(&mut self, subnet: &Arc<Subnet>) -> bool {
        let part = self.part(subnet);
        let left = part.for_strangers().saturating_sub(part.strangers);
        part.rests < left.max(part.size / RESTS_AT_LEAST).max(1)
    }

    /// An address of this pool rests.
    pub fn rests(&mut self, subnet: &Arc<Subnet>) {
        self.part(subnet).rests += 1;
    }

    /// One of the pool of this network does no more.
    pub fn rested(&mut self, network: Ipv4Addr) {
        if let Some(part) = self.parts.get_mut(&network) {
            part.rests = part.rests.saturating_sub(1);
        }
    }

    /// Nobody is counted.
    pub fn is_idle(&self) -> bool {
        self.strangers.is_empty()
    }

    fn part(&mut self, subnet: &Arc<Subnet>) -> &mut Part {
        let new = || Part {
            size: subnet.pool_size(),
            subnet: subnet.clone(),
            strangers: 0,
            not_booted: 0,
            rests: 0,
        };
        let part = self.parts.entry(subnet.network).or_insert_with(new);
        if !Arc::ptr_eq(&part.subnet, subnet) {
            // The site was read anew.
            (part.size, part.subnet) = (subnet.pool_size(), subnet.clone());
        }
        part
    }
}

/// The port it is behind, where a relay says so; on our own link anybody could say anything.
fn circuit(request: &Request) -> Option<Circuit> {
    let info = request.relay_info.as_deref().filter(|_| request.relayed())?;
    Some((request.giaddr, RelayInfo::read(info).circuit?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Mac;
    use crate::dhcp::{Address, MessageType};

    fn subnet(pool: u8, kept: usize) -> Arc<Subnet> {
        let at = |last| Ipv4Addr::new(10, 79, 0, last);
        let mut subnet = Subnet::new(Ipv4Addr::new(10, 77, 0, 1), at(0), 24);
        subnet.pool = Some(at(1)..=at(pool));
        subnet.kept = kept;
        Arc::new(subnet)
    }

    fn serving(subnet: &Arc<Subnet>, who: Who) -> Serving {
        Serving {
            address: Address::Pool,
            subnet: subnet.clone(),
            hostname: None,
            boot: None,
            who,
            macs: Vec::new(),
            runs: false,
        }
    }

    fn asks(number: u16, circuit: Option<&str>) -> Request {
        let [high, low] = number.to_be_bytes();
        let mut request = Request::bare(MessageType::Discover, Mac([2, 0, 0, 0, high, low]));
        if let Some(circuit) = circuit {
            request.giaddr = Ipv4Addr::new(10, 79, 0, 254);
            request.relay_info = Some([&[1, circuit.len() as u8], circuit.as_bytes()].concat());
        }
        request
    }

    #[test]
    fn strangers_get_half_of_their_part_until_they_boot_and_never_all() {
        let subnet = subnet(80, 0);
        let mut shares = Shares::default();
        let stranger = serving(&subnet, Who::Stranger);
        let admitted = |shares: &mut Shares, numbers: std::ops::Range<u16>| {
            numbers.filter(|n| shares.admit(&asks(*n, None), &stranger, true).is_ok()).count()
        };
        // Ten of 80 are kept, 35 of the other 70 are for those that have not booted.
        assert_eq!(admitted(&mut shares, 0..1000), 35);
        let refused = shares.admit(&asks(1001, None), &stranger, true);
        assert_eq!(refused, Err(Crowded::NotBooted { have: 35 }));
        assert_eq!(shares.admit(&asks(3, None), &stranger, false), Ok(()), "who has one keeps it");
        for number in 0..20 {
            assert_eq!(shares.boots(asks(number, None).key()), Some(3600));
            assert_eq!(shares.boots(asks(number, None).key()), None, "told once");
        }
        assert_eq!(admitted(&mut shares, 1000..2000), 20);
        let booted = serving(&subnet, Who::Booted);
        let more = (2000..3000).filter(|n| shares.admit(&asks(*n, None), &booted, true).is_ok());
        assert_eq!(more.count(), 70 - 55);
        let refused = shares.admit(&asks(9000, None), &booted, true);
        assert_eq!(refused, Err(Crowded::Pool { have: 70, of: 80 }));
        // Machines of the site are asked nothing, and one that becomes one counts no more.
        let machine = serving(&subnet, Who::Machine);
        assert!((5000..9000).all(|n| shares.admit(&asks(n, None), &machine, true).is_ok()));
        assert_eq!(shares.admit(&asks(3, None), &machine, false), Ok(()));
        assert_eq!(shares.admit(&asks(9000, None), &booted, true), Ok(()));
        shares.sweep(|_| false);
        assert!(shares.is_idle() && shares.circuits.is_empty());
        assert_eq!(admitted(&mut shares, 0..1000), 35);
    }

    #[test]
    fn what_the_site_needs_is_kept_but_for_a_quarter() {
        for (pool, need, strangers) in
            [(1, 0, 1), (1, 9, 1), (4, 9, 1), (80, 30, 50), (80, 500, 20)]
        {
            let (subnet, mut shares) = (subnet(pool, need), Shares::default());
            let booted = serving(&subnet, Who::Booted);
            let admitted =
                (0..200).filter(|n| shares.admit(&asks(*n, None), &booted, true).is_ok()).count();
            assert_eq!(admitted, strangers, "{need} of {pool}");
        }
    }

    #[test]
    fn one_port_of_a_relay_is_bounded_and_its_neighbour_is_not() {
        let (subnet, mut shares) = (subnet(250, 0), Shares::default());
        let stranger = serving(&subnet, Who::Stranger);
        let mut behind = |circuit: &str, numbers: std::ops::Range<u16>| {
            numbers
                .filter(|n| shares.admit(&asks(*n, Some(circuit)), &stranger, true).is_ok())
                .count()
        };
        assert_eq!(behind("Gi1/0/7", 0..1000), PER_CIRCUIT);
        assert_eq!(behind("Gi1/0/8", 1000..1010), 10);
        shares.leave(asks(3, None).key());
        let again = shares.admit(&asks(999, Some("Gi1/0/7")), &stranger, true);
        assert_eq!(again, Ok(()), "one has gone");
        let refused = shares.admit(&asks(998, Some("Gi1/0/7")), &stranger, true);
        assert_eq!(refused, Err(Crowded::Circuit { circuit: "Gi1/0/7".into() }));
        // Option 82 without a relay is anybody's word.
        let mut forged = asks(998, Some("Gi1/0/7"));
        forged.giaddr = Ipv4Addr::UNSPECIFIED;
        assert_eq!(shares.admit(&forged, &stranger, true), Ok(()));
    }

    #[test]
    fn rests_are_of_the_strangers_part_and_some_always_may() {
        let (subnet, mut shares) = (subnet(80, 0), Shares::default());
        let rest = |shares: &mut Shares| {
            let may = shares.may_rest(&subnet);
            if may {
                shares.rests(&subnet);
            }
            may
        };
        assert_eq!((0..1000).filter(|_| rest(&mut shares)).count(), 70);
        let stranger = serving(&subnet, Who::Stranger);
        assert!(matches!(
            shares.admit(&asks(1, None), &stranger, true),
            Err(Crowded::Pool { have: 70, of: 80 })
        ));
        shares.rested(subnet.network);
        assert_eq!(shares.admit(&asks(1, None), &stranger, true), Ok(()));
        assert!(!rest(&mut shares));
        let (mut full, booted) = (Shares::default(), serving(&subnet, Who::Booted));
        assert_eq!(
            (0..99).filter(|n| full.admit(&asks(*n, None), &booted, true).is_ok()).count(),
            70
        );
        assert_eq!((0..1000).filter(|_| rest(&mut full)).count(), 10);
    }
}
