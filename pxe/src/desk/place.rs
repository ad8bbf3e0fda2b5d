//! Where a client stands: which of the site's networks a DHCP message came from, told by the
//! interface it was heard on and by what a relay agent says of it. One function, nothing but values.
//! An agent that lies must not be able to have an address of another network lent.

use std::fmt;
use std::net::Ipv4Addr;
use std::sync::Arc;

use crate::dhcp::{Event, Heard, RelayInfo, Request, Subnet};

/// One of the site's networks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    /// As its clients have to know it; its `wire` leads there.
    pub subnet: Arc<Subnet>,
    /// How it is reached.
    pub reach: Reach,
    /// Who lives there.
    pub kind: Kind,
}

/// How a network is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reach {
    /// It is on one of our interfaces.
    Wire {
        /// The interface's name.
        interface: String,
    },
    /// Through relay agents with these addresses (giaddr).
    Relays(Vec<Ipv4Addr>),
}

/// Who lives on a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Machines that boot.
    Boot,
    /// BMCs.
    Bmc,
}

/// All that tells where a message came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Whence {
    /// Where it came in.
    pub heard: Heard,
    /// The address its client has and uses.
    pub ciaddr: Ipv4Addr,
    /// The agent that brought it; 0.0.0.0 if none did.
    pub giaddr: Ipv4Addr,
    /// What the agent says of it.
    pub info: RelayInfo,
}

impl Whence {
    /// Of a message.
    pub fn of(request: &Request) -> Whence {
        Whence {
            heard: request.heard,
            ciaddr: request.ciaddr,
            giaddr: request.giaddr,
            info: request.relay_info.as_deref().map(RelayInfo::read).unwrap_or_default(),
        }
    }

    /// Of what was told of a message.
    pub fn of_event(event: &Event) -> Whence {
        Whence {
            heard: event.heard,
            ciaddr: event.ciaddr,
            giaddr: event.relay.unwrap_or(Ipv4Addr::UNSPECIFIED),
            info: event.relay_info.clone().unwrap_or_default(),
        }
    }
}

/// Why a message stands nowhere. What an operator reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stray {
    /// No network of the site is on this interface.
    NoNetwork,
    /// The agent's address, or its link selection, lies in none of the site's networks.
    UnknownNetwork {
        /// The agent.
        giaddr: Ipv4Addr,
        /// The network it speaks of.
        link: Ipv4Addr,
    },
    /// It speaks of a network that we hear ourselves.
    OursAlready {
        /// The agent.
        giaddr: Ipv4Addr,
        /// The network.
        network: String,
        /// Where we hear it.
        interface: String,
    },
    /// The site names other agents for this network.
    NotItsRelay {
        /// The agent.
        giaddr: Ipv4Addr,
        /// The network.
        network: String,
        /// Those that are named.
        named: Vec<Ipv4Addr>,
    },
    /// No agent has this address: it is a machine's, or nobody's.
    ImplausibleSource {
        /// The agent it claims to be.
        giaddr: Ipv4Addr,
        /// The address it came from.
        from: Ipv4Addr,
    },
    /// Option 82 does not read.
    MalformedInfo {
        /// The agent.
        giaddr: Ipv4Addr,
    },
}

/// The networks a message may have come from: one, but for several networks on one interface, which
/// the wire cannot tell apart.
pub fn place<'a>(
    networks: &'a [Network],
    lent: &dyn Fn(Ipv4Addr) -> bool,
    whence: &Whence,
) -> Result<Vec<&'a Network>, Stray> {
    let Whence { heard, ciaddr, giaddr, info } = whence;
    if !giaddr.is_unspecified() {
        return relayed(networks, lent, *heard, *giaddr, info).map(|network| vec![network]);
    }
    // RFC 2131 4.3.2, RENEWING: by unicast from the address it has, past any relay.
    let unicast = !heard.to.is_broadcast() && heard.from == *ciaddr;
    if !ciaddr.is_unspecified() && (unicast || heard.proxy_port) {
        let network = networks.iter().find(|network| network.subnet.contains(*ciaddr));
        return network.map(|network| vec![network]).ok_or(Stray::NoNetwork);
    }
    let here: Vec<&Network> = networks
        .iter()
        .filter(|network| network.subnet.wire == heard.wire)
        .filter(|network| matches!(network.reach, Reach::Wire { .. }))
        .collect();
    if here.is_empty() { Err(Stray::NoNetwork) } else { Ok(here) }
}

fn relayed<'a>(
    networks: &'a [Network],
    lent: &dyn Fn(Ipv4Addr) -> bool,
    heard: Heard,
    giaddr: Ipv4Addr,
    info: &RelayInfo,
) -> Result<&'a Network, Stray> {
    let from = heard.from;
    let nobody = from.is_unspecified()
        || from.is_loopback()
        || from.is_multicast()
        || from.is_broadcast()
        || networks.iter().any(|network| network.subnet.is_us(from));
    // A machine that was lent an address here, or sits in a seat, is no agent.
    if nobody || lent(from) {
        return Err(Stray::ImplausibleSource { giaddr, from });
    }
    if info.malformed {
        return Err(Stray::MalformedInfo { giaddr });
    }
    let link = info.link.unwrap_or(giaddr);
    let network = networks.iter().find(|network| network.subnet.contains(link));
    let network = network.ok_or(Stray::UnknownNetwork { giaddr, link })?;
    let shown = || format!("{}/{}", network.subnet.network, network.subnet.prefix);
    match &network.reach {
        Reach::Wire { interface } => {
            Err(Stray::OursAlready { giaddr, network: shown(), interface: interface.clone() })
        }
        Reach::Relays(named) if !named.contains(&giaddr) => {
            Err(Stray::NotItsRelay { giaddr, network: shown(), named: named.clone() })
        }
        Reach::Relays(_) => Ok(network),
    }
}

impl Stray {
    /// The agent it is about: it is told of once, whatever machines it brings.
    pub fn relay(&self) -> Option<Ipv4Addr> {
        match self {
            Stray::NoNetwork => None,
            Stray::UnknownNetwork { giaddr, .. }
            | Stray::OursAlready { giaddr, .. }
            | Stray::NotItsRelay { giaddr, .. }
            | Stray::ImplausibleSource { giaddr, .. }
            | Stray::MalformedInfo { giaddr } => Some(*giaddr),
        }
    }
}

impl fmt::Display for Stray {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Stray::NoNetwork => f.write_str("asks from a network that the site does not have"),
            Stray::UnknownNetwork { giaddr, link } if giaddr == link => write!(
                f,
                "relay {giaddr} is in no network of the site: add a [[net.subnet]] with relay = \"{giaddr}\""
            ),
            Stray::UnknownNetwork { giaddr, link } => write!(
                f,
                "relay {giaddr} speaks of the network of {link} (link selection), which the site does not have"
            ),
            Stray::OursAlready { giaddr, network, interface } => write!(
                f,
                "relay {giaddr} speaks of {network}, which is on our own interface {interface}: \
                 its machines are heard without it, and it is not believed"
            ),
            Stray::NotItsRelay { giaddr, network, named } => {
                let named: Vec<String> = named.iter().map(ToString::to_string).collect();
                let named = named.join(", ");
                write!(f, "{giaddr} is not a relay of {network}, which the site gives {named}")
            }
            Stray::ImplausibleSource { giaddr, from } => write!(
                f,
                "a packet from {from} claims to come through relay {giaddr}: \
                 that address is no agent's, and it is not believed"
            ),
            Stray::MalformedInfo { giaddr } => {
                write!(f, "relay {giaddr} sends an option 82 that does not read")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const fn ip(c: u8, d: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, c, 0, d)
    }

    fn network(third: u8, wire: usize, reach: Reach, kind: Kind) -> Network {
        let server = ip(if matches!(reach, Reach::Relays(_)) { 77 } else { third }, 1);
        let mut subnet = Subnet::new(server, ip(third, 0), 24);
        subnet.wire = wire;
        subnet.pool = Some(ip(third, 200)..=ip(third, 250));
        subnet.ours = Arc::new([ip(77, 1), ip(80, 1)]);
        Network { subnet: Arc::new(subnet), reach, kind }
    }

    /// 10.77 on eth1, 10.79 behind two agents, BMCs of 10.78 behind one, 10.80 and BMCs of 10.81 on eth2.
    fn site() -> Vec<Network> {
        let on = |name: &str| Reach::Wire { interface: name.into() };
        vec![
            network(77, 0, on("eth1"), Kind::Boot),
            network(79, 0, Reach::Relays(vec![ip(79, 1), ip(79, 2)]), Kind::Boot),
            network(78, 0, Reach::Relays(vec![ip(79, 1)]), Kind::Bmc),
            network(80, 1, on("eth2"), Kind::Boot),
            network(81, 1, on("eth2"), Kind::Bmc),
        ]
    }

    fn lent(address: Ipv4Addr) -> bool {
        address == ip(77, 11) || (200..=250).contains(&address.octets()[3])
    }

    fn through(giaddr: Ipv4Addr, from: Ipv4Addr, link: Option<Ipv4Addr>) -> Whence {
        let heard = Heard { from, from_port: 67, to: ip(77, 1), ..Heard::default() };
        let info = RelayInfo { link, ..RelayInfo::default() };
        Whence { heard, ciaddr: Ipv4Addr::UNSPECIFIED, giaddr, info }
    }

    fn stands(whence: &Whence) -> Result<Vec<Ipv4Addr>, Stray> {
        place(&site(), &lent, whence)
            .map(|networks| networks.iter().map(|one| one.subnet.network).collect())
    }

    #[test]
    fn a_broadcast_stands_where_it_is_heard() {
        let direct = |wire, ciaddr, from, to| {
            let heard = Heard { wire, from, to, ..Heard::default() };
            let giaddr = Ipv4Addr::UNSPECIFIED;
            stands(&Whence { heard, ciaddr, giaddr, info: RelayInfo::default() })
        };
        let (none, all) = (Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST);
        for (wire, ciaddr, from, to, meant) in [
            (0, none, none, all, vec![ip(77, 0)]),
            (1, none, none, all, vec![ip(80, 0), ip(81, 0)]),
            // REBINDING: broadcast, and so from here, whatever address it has.
            (0, ip(80, 11), ip(80, 11), all, vec![ip(77, 0)]),
            // RENEWING: past the relay, by whatever way packets go.
            (0, ip(79, 11), ip(79, 11), ip(77, 1), vec![ip(79, 0)]),
            (1, ip(79, 11), ip(79, 11), ip(80, 1), vec![ip(79, 0)]),
            // Somebody else's address as ciaddr moves nobody.
            (0, ip(80, 11), ip(77, 11), ip(77, 1), vec![ip(77, 0)]),
        ] {
            assert_eq!(direct(wire, ciaddr, from, to), Ok(meant), "{wire} {ciaddr} {from}");
        }
        assert_eq!(direct(2, none, none, all), Err(Stray::NoNetwork));
        assert_eq!(direct(0, ip(99, 9), ip(99, 9), ip(77, 1)), Err(Stray::NoNetwork));
    }

    #[test]
    fn a_relayed_one_stands_where_its_relay_says_if_the_site_says_so_too() {
        let router = ip(77, 254);
        for (giaddr, link, meant) in [
            (ip(79, 1), None, ip(79, 0)),
            (ip(79, 2), None, ip(79, 0)),
            (ip(79, 1), Some(ip(79, 0)), ip(79, 0)),
            // RFC 3527: the agent's own address is elsewhere.
            (ip(79, 1), Some(ip(78, 0)), ip(78, 0)),
        ] {
            assert_eq!(
                stands(&through(giaddr, router, link)),
                Ok(vec![meant]),
                "{giaddr} {link:?}"
            );
        }
    }

    #[test]
    fn an_agent_that_lies_is_not_believed() {
        let router = ip(77, 254);
        type Told = fn(&Stray) -> bool;
        let rows: [(Ipv4Addr, Ipv4Addr, Option<Ipv4Addr>, Told); 13] = [
            (ip(99, 1), router, None, |s| matches!(s, Stray::UnknownNetwork { .. })),
            (ip(79, 1), router, Some(ip(99, 0)), |s| matches!(s, Stray::UnknownNetwork { .. })),
            (ip(77, 254), router, None, |s| matches!(s, Stray::OursAlready { .. })),
            (ip(79, 1), router, Some(ip(80, 0)), |s| matches!(s, Stray::OursAlready { .. })),
            (ip(79, 9), router, None, |s| matches!(s, Stray::NotItsRelay { .. })),
            (ip(79, 2), router, Some(ip(78, 0)), |s| matches!(s, Stray::NotItsRelay { .. })),
            // A machine that was lent an address, one in a seat, we ourselves, and nobody.
            (ip(79, 1), ip(77, 201), None, |s| matches!(s, Stray::ImplausibleSource { .. })),
            (ip(79, 1), ip(77, 11), None, |s| matches!(s, Stray::ImplausibleSource { .. })),
            (ip(79, 1), ip(77, 1), None, |s| matches!(s, Stray::ImplausibleSource { .. })),
            (ip(79, 1), ip(80, 1), None, |s| matches!(s, Stray::ImplausibleSource { .. })),
            (ip(79, 1), Ipv4Addr::UNSPECIFIED, None, |s| {
                matches!(s, Stray::ImplausibleSource { .. })
            }),
            (ip(79, 1), Ipv4Addr::LOCALHOST, None, |s| {
                matches!(s, Stray::ImplausibleSource { .. })
            }),
            (Ipv4Addr::BROADCAST, router, None, |s| matches!(s, Stray::UnknownNetwork { .. })),
        ];
        for (giaddr, from, link, told) in rows {
            let stray = stands(&through(giaddr, from, link)).expect_err("it lies");
            assert!(told(&stray), "{giaddr} {from} {link:?}: {stray:?}");
            assert_eq!(stray.relay(), Some(giaddr));
        }
        let mut cut = through(ip(79, 1), router, None);
        cut.info.malformed = true;
        assert_eq!(stands(&cut), Err(Stray::MalformedInfo { giaddr: ip(79, 1) }));
    }

    proptest! {
        /// Whatever an agent says, it never brings a machine into a network of our own wires.
        #[test]
        fn nothing_relayed_stands_on_a_wire_of_ours(
            (giaddr, from, link) in (any::<u32>(), any::<u32>(), any::<Option<u32>>()),
            (near, third, last) in (any::<bool>(), 76..83u8, any::<u8>()),
            (wire, ciaddr) in (0..3usize, any::<u32>()),
        ) {
            let giaddr = if near { ip(third, last) } else { Ipv4Addr::from_bits(giaddr | 1) };
            let mut whence = through(giaddr, Ipv4Addr::from_bits(from), link.map(Ipv4Addr::from_bits));
            (whence.heard.wire, whence.ciaddr) = (wire, Ipv4Addr::from_bits(ciaddr));
            if let Ok(found) = place(&site(), &lent, &whence) {
                prop_assert!(found.iter().all(|one| matches!(one.reach, Reach::Relays(_))));
                prop_assert_eq!(found.len(), 1);
            }
        }
    }
}
