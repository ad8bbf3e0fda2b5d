//! The interfaces that machines are on, looked at once a second. One that was pulled, taken down, made anew or given
//! another address is told of with what to do, and is served again by itself: the sockets of HTTP, TFTP and syslog are
//! of an address and outlive its absence, those of DHCP are of the interface and are opened again.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use koboshi_pxe::{Mac, dhcp};
use nix::net::if_::InterfaceFlags;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::app::App;
use crate::home::Home;

/// How often they are looked at.
const LOOK: Duration = Duration::from_secs(1);
/// So many looks agree before it is told: a port that learns, a bridge that is set up.
const SURE: u32 = 2;

/// An interface as it is now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Link {
    /// Its number in the kernel, and its address.
    is: Option<(usize, Mac)>,
    up: bool,
    /// Something is at the other end.
    carrier: bool,
    addresses: Vec<Ipv4Addr>,
}

/// How one of our places stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
enum State {
    #[default]
    Well,
    Gone,
    Down,
    NoLink,
    NoAddress,
    Moved(Ipv4Addr),
}

impl State {
    fn of(home: &Home, link: Option<&Link>) -> State {
        let Some(link) = link else { return State::Gone };
        let mut others = link.addresses.iter().filter(|address| home.cidr.contains(**address));
        match link {
            Link { up: false, .. } => State::Down,
            link if !link.addresses.contains(&home.address) => {
                others.next().map_or(State::NoAddress, |other| State::Moved(*other))
            }
            Link { carrier: false, .. } => State::NoLink,
            _ => State::Well,
        }
    }

    /// What is wrong and what to do.
    fn says(&self, home: &Home) -> Option<String> {
        let Home { interface, address, cidr } = home;
        let again = format!("`ip addr add {address}/{} dev {interface}`", cidr.prefix());
        Some(match self {
            State::Well => return None,
            State::Gone => {
                format!("{interface} is gone: no machine on it is served until it is back")
            }
            State::Down => format!(
                "{interface} is down: no machine on it is served until it is up (`ip link set {interface} up`)"
            ),
            State::NoLink => {
                format!("{interface} has no link: look at its cable and at the switch's port")
            }
            State::NoAddress => format!(
                "{interface} has lost {address}, by which its machines reach koboshi: {again} gives it back, and \
                 it goes on by itself then"
            ),
            State::Moved(other) => format!(
                "{interface} has {other} in place of {address}, by which its machines reach koboshi: {again} gives \
                 it back, and it goes on by itself then; if {other} is meant, restart koboshi, and start machines \
                 anew that run by the old one"
            ),
        })
    }
}

/// What was seen of a place, and how often in a row.
#[derive(Debug, Default)]
struct Known {
    told: State,
    seen: State,
    times: u32,
    /// It had a link since we look: one that never had is a bridge without ports.
    linked: bool,
}

impl Known {
    /// What is to be told, if anything.
    fn look(&mut self, home: &Home, link: Option<&Link>) -> Option<String> {
        let mut now = State::of(home, link);
        self.linked |= now == State::Well;
        if now == State::NoLink && !self.linked {
            now = State::Well;
        }
        self.times = if now == self.seen { self.times.saturating_add(1) } else { 1 };
        self.seen = now;
        if self.seen == self.told || self.times < SURE {
            return None;
        }
        self.told = self.seen.clone();
        let well = || format!("{} is as it was, at {}: it is served", home.interface, home.address);
        Some(self.told.says(home).unwrap_or_else(well))
    }
}

/// Looks until cancelled.
pub async fn watch(app: Arc<App>, cancel: CancellationToken) -> anyhow::Result<()> {
    let mut known: HashMap<Ipv4Addr, Known> = HashMap::new();
    let mut served: HashMap<String, ((usize, Mac), Vec<Ipv4Addr>)> = HashMap::new();
    let mut clock = tokio::time::interval(LOOK);
    clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while cancel.run_until_cancelled(clock.tick()).await.is_some() {
        let links = match tokio::task::spawn_blocking(links).await {
            Ok(Ok(links)) => links,
            Ok(Err(error)) => {
                tracing::debug!(%error, "interfaces are not seen");
                continue;
            }
            Err(_) => continue,
        };
        for (wire, interface) in app.homes.interfaces().into_iter().enumerate() {
            let Some(link) = links.get(interface).filter(|link| link.up) else { continue };
            let Some((index, mac)) = link.is else { continue };
            let homes = app.homes.all().iter().filter(|home| home.interface == interface);
            let ours = homes.map(|home| home.address).filter(|ours| link.addresses.contains(ours));
            let ours: Vec<Ipv4Addr> = ours.collect();
            let now = ((index, mac), ours.clone());
            if served.get(interface) == Some(&now) {
                continue;
            }
            let (told, done) = oneshot::channel();
            let control = dhcp::Control::Link { wire, index, mac, ours, served: told };
            if app.dhcp.send(control).await.is_ok() && done.await.is_ok() {
                served.insert(interface.to_string(), now);
            }
        }
        for home in app.homes.all() {
            let known = known.entry(home.address).or_default();
            if let Some(text) = known.look(home, links.get(&home.interface)) {
                app.ledger.event("interface", None, text).await;
            }
        }
        let wrong =
            app.homes.all().iter().filter_map(|home| known.get(&home.address)?.told.says(home));
        app.unreached.store(Arc::new(wrong.collect()));
    }
    Ok(())
}

/// All interfaces of this machine.
fn links() -> nix::Result<HashMap<String, Link>> {
    let mut all: HashMap<String, Link> = HashMap::new();
    for one in nix::ifaddrs::getifaddrs()? {
        let link = all.entry(one.interface_name).or_default();
        link.up = one.flags.contains(InterfaceFlags::IFF_UP);
        link.carrier = one.flags.contains(InterfaceFlags::IFF_RUNNING);
        let Some(address) = one.address else { continue };
        if let Some(ethernet) = address.as_link_addr() {
            link.is = Some((ethernet.ifindex(), Mac(ethernet.addr().unwrap_or_default())));
        }
        link.addresses.extend(address.as_sockaddr_in().map(|address| address.ip()));
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::site::Cidr;

    fn home() -> Home {
        let address = Ipv4Addr::new(10, 77, 0, 1);
        Home { interface: "eth1".into(), address, cidr: Cidr::around(address, 24) }
    }

    fn link(last: &[u8]) -> Link {
        let addresses = last.iter().map(|last| Ipv4Addr::new(10, 77, 0, *last)).collect();
        Link { up: true, carrier: true, addresses, ..Link::default() }
    }

    #[test]
    fn what_is_wrong_is_told_once_with_what_to_do_and_so_is_its_end() {
        let mut known = Known::default();
        let mut told = |link: Option<Link>| -> Vec<String> {
            (0..5).filter_map(|_| known.look(&home(), link.as_ref())).collect()
        };
        assert!(
            told(Some(Link { carrier: false, ..link(&[1]) })).is_empty(),
            "a bridge without ports"
        );
        assert!(told(Some(link(&[1, 7]))).is_empty());
        for (link, says) in [
            (None, "eth1 is gone"),
            (Some(Link { up: false, ..link(&[1]) }), "`ip link set eth1 up`"),
            (Some(link(&[])), "`ip addr add 10.77.0.1/24 dev eth1`"),
            (Some(link(&[5])), "has 10.77.0.5 in place of 10.77.0.1"),
            (Some(Link { carrier: false, ..link(&[1]) }), "no link"),
            (Some(link(&[1])), "as it was"),
        ] {
            let all = told(link);
            assert!(all.len() == 1 && all[0].contains(says), "{says}: {all:?}");
        }
    }

    #[test]
    fn a_flap_between_two_looks_is_nothing_to_tell() {
        let mut known = Known::default();
        for _ in 0..4 {
            assert_eq!(known.look(&home(), Some(&link(&[1]))), None);
            assert_eq!(known.look(&home(), None), None);
        }
    }

    #[test]
    fn ours_are_seen() {
        let links = links().expect("the kernel lists them");
        let loopback = links.get("lo").expect("every machine has one");
        assert!(loopback.is.is_some_and(|(index, _)| index > 0), "{loopback:?}");
    }
}
