//! Addresses: every subnet known, every seat within one, nobody's address twice. What slips through
//! here is found at three in the morning, as a machine that answers for another.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use super::{Machine, Net, Network, Reach, Seat, Subnet};
use crate::site::load::{Env, Purpose};
use crate::site::names::{MachineName, NetworkName, SeatName};
use crate::site::network::Cidr;
use crate::site::origin::{At, Origin};
use crate::site::problem::{Problem, Problems};
use crate::site::values::Unknown;
use crate::site::written::{Kind, Mode, SubnetTable, Written};

pub(super) struct Table<'a> {
    pub net: &'a Net,
    pub machines: &'a BTreeMap<MachineName, At<Machine>>,
    pub seats: &'a BTreeMap<SeatName, Option<At<Seat>>>,
    pub networks: &'a BTreeMap<NetworkName, Option<At<Network>>>,
    pub domain: Option<&'a str>,
    pub root: &'a Origin,
    pub env: &'a Env<'a>,
}

impl Table<'_> {
    pub fn build(
        &self,
        written: &Written,
        problems: &mut Problems,
    ) -> (Vec<At<Subnet>>, BTreeMap<Ipv4Addr, SeatName>) {
        let (subnets, all_known) = self.subnets(written, problems);
        for (at, subnet) in subnets.iter().enumerate() {
            within(subnet, problems);
            for other in &subnets[..at] {
                if subnet.cidr.overlaps(other.cidr) {
                    let message = format!("networks {} and {} overlap", subnet.cidr, other.cidr);
                    problems.push(
                        Problem::error("overlap", &subnet.origin, message)
                            .label("this one")
                            .also(&other.origin, "and this one"),
                    );
                }
            }
        }
        for (name, network) in self.networks {
            if let Some(network) = network
                && let Some(gateway) = &network.gateway
            {
                host_of(network.cidr, gateway, &format!("the gateway of {name}"), problems);
            }
        }
        let by_address = self.seats_within(&subnets, all_known, problems);
        self.bmcs(&subnets, &by_address, problems);
        self.strangers(written, &subnets, all_known, problems);
        (subnets, by_address)
    }

    /// The subnets, and whether all their networks are known.
    fn subnets(&self, written: &Written, problems: &mut Problems) -> (Vec<At<Subnet>>, bool) {
        let net = &written.net;
        let own = &net.own;
        let said = own.interface.as_ref().map(|interface| &interface.origin);
        let said = said.or(own.relay.as_ref().map(|relay| &relay.origin));
        let said = said.or(own.cidr.as_ref().map(|cidr| &cidr.origin));
        let said = said.or(own.pool.as_ref().map(|pool| &pool.origin));
        let mut tables: Vec<(SubnetTable, Origin)> = Vec::new();
        if let Some(origin) = said {
            tables.push((own.clone(), origin.clone()));
        }
        for subnet in &net.subnets {
            // What the shorthand says of name servers and time holds for all that do not say.
            let mut table = subnet.value.clone();
            table.dns = table.dns.or_else(|| own.dns.clone());
            table.ntp = table.ntp.or_else(|| own.ntp.clone());
            table.domain = table.domain.or_else(|| own.domain.clone());
            tables.push((table, subnet.origin.clone()));
        }
        if tables.is_empty() {
            let boots = self.machines.values().any(|machine| !machine.macs.is_empty());
            if boots || !self.seats.is_empty() || net.origin.is_some() {
                let origin = net.origin.as_ref().unwrap_or(self.root);
                let message = "the site does not say on which interface machines boot";
                let problem = Problem::error("no-interface", origin, message);
                problems.push(problem.label("no interface").help("interface = \"eth1\" in [net]"));
            }
            return (Vec::new(), false);
        }
        let mut all_known = true;
        let mut subnets = Vec::new();
        for (table, origin) in tables {
            match self.subnet(table, &origin, problems) {
                Some(subnet) => subnets.push(At::new(subnet, origin)),
                None => all_known = false,
            }
        }
        (subnets, all_known)
    }

    fn subnet(
        &self,
        table: SubnetTable,
        origin: &Origin,
        problems: &mut Problems,
    ) -> Option<Subnet> {
        let mut own = None;
        let mut cidr = table.cidr.clone();
        let reach = match (&table.interface, &table.relay) {
            (Some(interface), None) => {
                let here = (self.env.interface_network)(&interface.value);
                let fits = |(address, _): &&(Ipv4Addr, u8)| {
                    cidr.as_ref().is_none_or(|cidr| cidr.contains(*address))
                };
                let found = here.iter().find(fits);
                own = found.map(|(address, _)| *address);
                if cidr.is_none() {
                    cidr = found.map(|(address, prefix)| {
                        At::new(Cidr::around(*address, *prefix), interface.origin.clone())
                    });
                }
                if own.is_none() {
                    self.not_here(interface, &here, table.cidr.as_ref(), problems);
                }
                Reach::Interface(interface.value.clone())
            }
            (None, Some(relay)) => {
                if relay.is_empty() {
                    let problem =
                        Problem::error("no-interface", &relay.origin, "no relay is named");
                    problems.push(problem.label("empty").help("relay = \"ADDRESS OF THE AGENT\""));
                }
                if cidr.is_none() {
                    let message = "a subnet behind a relay has no cidr";
                    let problem = Problem::error("no-cidr", origin, message);
                    problems
                        .push(problem.label("which addresses?").help("cidr = \"10.78.0.0/24\""));
                }
                Reach::Relay(relay.iter().map(|address| address.value).collect())
            }
            (Some(_), Some(relay)) => {
                let message = "a subnet is on an interface or behind a relay, not both";
                let problem = Problem::error("no-interface", &relay.origin, message);
                problems.push(problem.label("two ways to reach it"));
                return None;
            }
            (None, None) => {
                let message = "a subnet does not say how it is reached";
                let problem = Problem::error("no-interface", origin, message);
                problems.push(problem.label("interface or relay?").help("interface = \"eth1\""));
                return None;
            }
        };
        let cidr = cidr?;
        if cidr.prefix() > 30 {
            let message = format!("{} has no room for a machine beside us", cidr.value);
            problems.push(Problem::error("no-cidr", &cidr.origin, message).label("too small"));
        }
        if self.net.mode == Mode::Proxy
            && let Some(pool) = &table.pool
        {
            let message = "in proxy mode somebody else gives addresses: the pool is not used";
            problems.push(Problem::warning("proxy-pool", &pool.origin, message).label("not used"));
        }
        let values = |list: Option<At<Vec<At<Ipv4Addr>>>>| {
            list.map(|list| list.value.into_iter().map(|one| one.value).collect())
                .unwrap_or_default()
        };
        Some(Subnet {
            reach,
            cidr: cidr.value,
            own,
            gateway: table.gateway,
            pool: table.pool,
            dns: values(table.dns),
            ntp: values(table.ntp),
            domain: table.domain.map(|d| d.value).or_else(|| self.domain.map(str::to_string)),
            mtu: table.mtu.map(|mtu| mtu.value),
            routes: table.routes.map(|routes| routes.value).unwrap_or_default(),
            options: table.options.map(|options| options.value).unwrap_or_default(),
            kind: table.kind.map(|kind| kind.value).unwrap_or_default(),
        })
    }

    /// The interface is not on this machine, or has another network: wrong when we are to work by it.
    fn not_here(
        &self,
        interface: &At<String>,
        here: &[(Ipv4Addr, u8)],
        cidr: Option<&At<Cidr>>,
        problems: &mut Problems,
    ) {
        let name = &interface.value;
        let (message, help) = match (here.first(), cidr) {
            (Some((address, prefix)), Some(cidr)) => (
                format!("interface {name} has {address}/{prefix}, which is not in {}", cidr.value),
                format!("give {name} an address in {}, or mend cidr", cidr.value),
            ),
            _ => (
                format!("interface {name} does not exist on this machine or has no IPv4 address"),
                format!("ip address show dev {name}"),
            ),
        };
        let problem = match self.env.purpose {
            Purpose::Serve => Problem::error("interface", &interface.origin, message),
            Purpose::Check => Problem::warning("interface", &interface.origin, message),
        };
        problems.push(problem.label("this interface").help(help));
    }

    fn seats_within(
        &self,
        subnets: &[At<Subnet>],
        all_known: bool,
        problems: &mut Problems,
    ) -> BTreeMap<Ipv4Addr, SeatName> {
        let mut taken: Vec<(&SeatName, String, &At<Ipv4Addr>)> = Vec::new();
        let mut by_address = BTreeMap::new();
        let seats = self.seats.iter().filter_map(|(name, seat)| Some((name, seat.as_ref()?)));
        for (name, seat) in seats {
            if let Some(ip) = &seat.ip {
                taken.push((name, format!("seat {name}"), ip));
                by_address.insert(ip.value, name.clone());
                self.seat_within(name, ip, subnets, all_known, problems);
            }
            for (network, net) in &seat.nets {
                let Some(ip) = &net.ip else { continue };
                taken.push((name, format!("seat {name} on {network}"), ip));
                let Some(Some(network)) = self.networks.get(network) else { continue };
                host_of(network.cidr, ip, &format!("seat {name}"), problems);
                if network.gateway.as_ref().is_some_and(|gateway| gateway.value == ip.value) {
                    let message =
                        format!("seat {name} has the address of its gateway, {}", ip.value);
                    problems
                        .push(Problem::error("address-taken", &ip.origin, message).label("taken"));
                }
            }
        }
        taken.sort_by_key(|(_, _, ip)| ip.origin.order());
        let mut first: BTreeMap<Ipv4Addr, (String, &Origin)> = BTreeMap::new();
        for (_, who, ip) in taken {
            if let Some((other, there)) = first.get(&ip.value) {
                let message = format!("address {} is given to {other} and to {who}", ip.value);
                problems.push(
                    Problem::error("duplicate-address", &ip.origin, message)
                        .label(format!("{who} here"))
                        .also(there, format!("{other} here")),
                );
            } else {
                first.insert(ip.value, (who, &ip.origin));
            }
        }
        by_address
    }

    fn seat_within(
        &self,
        name: &SeatName,
        ip: &At<Ipv4Addr>,
        subnets: &[At<Subnet>],
        all_known: bool,
        problems: &mut Problems,
    ) {
        let address = ip.value;
        let Some(subnet) = subnets.iter().find(|subnet| subnet.cidr.contains(address)) else {
            if all_known {
                let known: Vec<String> = subnets
                    .iter()
                    .filter(|subnet| subnet.kind == Kind::Boot)
                    .map(|subnet| subnet.cidr.to_string())
                    .collect();
                let message = format!("the address of seat {name}, {address}, is in no network");
                let problem = Problem::error("address-outside", &ip.origin, message);
                problems.push(
                    problem.label("outside").help(format!("machines boot on {}", known.join(", "))),
                );
            }
            return;
        };
        if subnet.kind == Kind::Bmc {
            let message = format!("seat {name} is on {}, a network of BMCs", subnet.cidr);
            let problem = Problem::error("address-outside", &ip.origin, message);
            return problems
                .push(problem.label("BMCs live here").also(&subnet.origin, "the network"));
        }
        if !host_of(subnet.cidr, ip, &format!("seat {name}"), problems) {
            return;
        }
        let taken = |whose: &str| {
            let message = format!("seat {name} has {whose} address, {address}");
            Problem::error("address-taken", &ip.origin, message).label("taken")
        };
        if subnet.own == Some(address) {
            return problems.push(taken("the appliance's own"));
        }
        if let Some(gateway) = subnet.gateway.as_ref().filter(|gateway| gateway.value == address) {
            return problems.push(taken("the gateway's").also(&gateway.origin, "the gateway"));
        }
        if let Some(pool) = subnet.pool.as_ref().filter(|pool| pool.contains(address)) {
            let message = format!("the pool {} lies over seat {name}, {address}", pool.value);
            problems.push(
                Problem::error("pool-over-seat", &pool.origin, message)
                    .label("lent to anybody")
                    .also(&ip.origin, format!("the seat {name}"))
                    .help("a pool is for machines without a seat: shorten it, or move the seat"),
            );
        }
    }

    /// Machines we do not know need an address from somewhere.
    fn strangers(
        &self,
        written: &Written,
        subnets: &[At<Subnet>],
        all_known: bool,
        problems: &mut Problems,
    ) {
        let Some(unknown) = &written.net.unknown else { return };
        let served = self.net.mode == Mode::Server && unknown.value != Unknown::Ignore;
        let mut boot = subnets.iter().filter(|subnet| subnet.kind == Kind::Boot);
        if served && all_known && boot.all(|subnet| subnet.pool.is_none()) {
            let message = "machines we do not know are to be served, but there is no pool for them";
            let problem = Problem::warning("no-pool", &unknown.origin, message);
            problems.push(
                problem
                    .label("with which address?")
                    .help("pool = \"FIRST-LAST\" in [net], clear of the seats"),
            );
        }
    }

    /// One BMC, one machine; several blades may share one with a `target` each.
    fn bmcs(
        &self,
        subnets: &[At<Subnet>],
        seats: &BTreeMap<Ipv4Addr, SeatName>,
        problems: &mut Problems,
    ) {
        let mut all: Vec<_> = self
            .machines
            .iter()
            .filter_map(|(name, machine)| Some((name, machine.bmc.as_ref()?)))
            .collect();
        all.sort_by_key(|(_, bmc)| bmc.host.origin.order());
        let mut first = BTreeMap::new();
        for (name, bmc) in all {
            let address = bmc.host.value.parse::<Ipv4Addr>().ok();
            let bmcs = subnets.iter().filter(|subnet| subnet.kind == Kind::Bmc);
            let lives = |address| bmcs.clone().any(|subnet| subnet.cidr.contains(address));
            if let Some(mac) = bmc.mac.as_ref().filter(|_| !address.is_some_and(lives)) {
                let message = format!(
                    "the BMC of {name} has a MAC, but {} is in no network of BMCs",
                    bmc.host
                );
                let problem = Problem::warning("bmc-outside", &mac.origin, message);
                problems.push(problem.label("it gets no address from us").help(
                    "a [[net.subnet]] of kind = \"bmc\" with its address; without one, mac has no effect",
                ));
            }
            if let Some(seat) = address.and_then(|address| seats.get(&address)) {
                let message = format!("BMC {} of {name} has the address of seat {seat}", bmc.host);
                let problem = Problem::error("duplicate-address", &bmc.host.origin, message);
                problems.push(problem.label("taken"));
            }
            let key = (bmc.host.value.as_str(), bmc.port, bmc.target);
            let Some((other, there)) = first.get(&key) else {
                first.insert(key, (name, &bmc.host.origin));
                continue;
            };
            let message = format!("BMC {} belongs to {other} and to {name}", bmc.host);
            problems.push(
                Problem::error("duplicate-bmc", &bmc.host.origin, message)
                    .label(format!("of {name} here"))
                    .also(there, format!("of {other} here"))
                    .help("who cycles one would cycle the other; blades behind one BMC need a `target` each"),
            );
        }
    }
}

/// Gateway and pool are in their network, and the pool is over nobody.
fn within(subnet: &Subnet, problems: &mut Problems) {
    if let Some(gateway) = &subnet.gateway {
        host_of(subnet.cidr, gateway, "the gateway", problems);
    }
    let Some(pool) = &subnet.pool else { return };
    if !subnet.cidr.contains(pool.first) || !subnet.cidr.contains(pool.last) {
        let message = format!("the pool {} is not within {}", pool.value, subnet.cidr);
        return problems
            .push(Problem::error("pool-outside", &pool.origin, message).label("outside"));
    }
    let gateway = subnet.gateway.as_ref().map(|gateway| gateway.value);
    let edges = [
        (Some(subnet.cidr.network()), "the network's own address"),
        (Some(subnet.cidr.broadcast()), "the broadcast address"),
        (gateway, "the gateway"),
        (subnet.own, "the appliance's own address"),
    ];
    let mut told: Option<Ipv4Addr> = None;
    for (address, what) in edges {
        let Some(address) = address.filter(|address| pool.contains(*address)) else { continue };
        if told.replace(address) == Some(address) {
            continue;
        }
        let message = format!("the pool {} lies over {what}, {address}", pool.value);
        problems.push(Problem::error("pool-over", &pool.origin, message).label("too wide"));
    }
}

/// An address a host may have in its network.
fn host_of(cidr: Cidr, ip: &At<Ipv4Addr>, who: &str, problems: &mut Problems) -> bool {
    let address = ip.value;
    if cidr.is_host(address) {
        return true;
    }
    let problem = if !cidr.contains(address) {
        let message = format!("{who} has address {address}, which is not in {cidr}");
        Problem::error("address-outside", &ip.origin, message).label("outside")
    } else if address == cidr.network() {
        let message = format!("{who} has address {address}, which is the network itself");
        Problem::error("address-network", &ip.origin, message).label("no host has this address")
    } else {
        let message =
            format!("{who} has address {address}, which is the broadcast address of {cidr}");
        Problem::error("address-broadcast", &ip.origin, message).label("everybody has this address")
    };
    problems.push(problem);
    false
}
