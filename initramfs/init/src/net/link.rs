//! One link: found by its MAC, named, brought up, proved to be alone with its address. Which links
//! there are, and in what order they come up, is for [`links`](crate::links).

use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::socket::{self, AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::backoff;
use crate::console::{Pause, pause, say};
use crate::contract::Nic;
use crate::net::arp::{self, Mac};
use crate::net::{naming, netlink};
use crate::rescue::Stop;

const SYS_NET: &str = "/sys/class/net";

/// A link as the kernel has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Card {
    /// Interface index, the same for the life of the link.
    pub index: u32,
    /// Name right now.
    pub name: String,
    /// Its address; a bond's member's own one, not the bond's.
    pub mac: Mac,
}

/// `52:54:00:77:00:01`, with colons or dashes.
pub fn parse_mac(text: &str) -> Option<Mac> {
    let mut mac = [0; 6];
    let mut parts = text.split([':', '-']);
    for byte in &mut mac {
        let part = parts.next()?;
        if part.len() != 2 || !part.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        *byte = u8::from_str_radix(part, 16).ok()?;
    }
    parts.next().is_none().then_some(mac)
}

/// As a person writes it.
pub fn show_mac(mac: &Mac) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// Where the kernel shows them.
pub fn all() -> Vec<Card> {
    cards(Path::new(SYS_NET))
}

/// The link of this name.
pub fn named(name: &str) -> Option<Card> {
    all().into_iter().find(|card| card.name == name)
}

/// Whether it is hardware, and no bond, bridge or VLAN.
pub fn is_hardware(name: &str) -> bool {
    Path::new(SYS_NET).join(name).join("device").exists()
}

/// Whether it hears its switch.
pub fn has_carrier(name: &str) -> bool {
    // Reading the carrier of an interface that is down is EINVAL.
    let carrier = fs::read_to_string(Path::new(SYS_NET).join(name).join("carrier"));
    carrier.is_ok_and(|text| text.trim() == "1")
}

/// Whether a member of an LACP bond sends (IEEE 802.1AX, Distributing). Kernels that do not tell
/// count as if it did.
pub fn distributes(member: &str) -> bool {
    let state = Path::new(SYS_NET).join(member).join("bonding_slave/ad_actor_oper_port_state");
    let state = fs::read_to_string(state).ok().and_then(|text| text.trim().parse::<u8>().ok());
    state.is_none_or(|state| state & 0x20 != 0)
}

/// All Ethernet interfaces, by index.
pub fn cards(sys_net: &Path) -> Vec<Card> {
    let mut all: Vec<Card> = fs::read_dir(sys_net)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let read = |file: &str| fs::read_to_string(entry.path().join(file)).ok();
            Some(Card {
                index: read("ifindex")?.trim().parse().ok()?,
                name: entry.file_name().into_string().ok()?,
                mac: parse_mac(
                    read("bonding_slave/perm_hwaddr").or_else(|| read("address"))?.trim(),
                )?,
            })
        })
        .collect();
    all.sort_by_key(|card| card.index);
    all
}

/// The NIC with this address. Bridges and VLANs carry their port's address: hardware goes first.
pub fn find(sys_net: &Path, mac: Mac) -> Option<Card> {
    let mut found: Vec<Card> = cards(sys_net).into_iter().filter(|card| card.mac == mac).collect();
    found.sort_by_key(|card| !sys_net.join(&card.name).join("device").exists());
    found.into_iter().next()
}

/// The boot NIC, if the kernel has it already.
pub fn boot_nic(nic: &Nic) -> Option<Card> {
    find(Path::new(SYS_NET), parse_mac(&nic.mac)?)
}

/// Names of what is there instead, for the message.
pub fn inventory() -> String {
    let all: Vec<String> = all()
        .iter()
        .filter(|card| card.name != "lo")
        .map(|card| {
            // What it could be called in the site file.
            let names: Vec<String> = naming::names(Path::new("/sys"), &card.name)
                .into_iter()
                .filter(|name| *name != card.name)
                .collect();
            let also =
                if names.is_empty() { String::new() } else { format!(" ({})", names.join(", ")) };
            format!("{}{also} {}", card.name, show_mac(&card.mac))
        })
        .collect();
    if all.is_empty() { "no NIC at all".to_owned() } else { all.join(", ") }
}

/// Brings up every other port, so that its link can be seen: those that were down, to be
/// [`lower`]ed when that is done. A port takes 1 to 3 seconds to find its link, as does the boot
/// NIC's, which is waited for anyway.
pub fn wake_others(boot: &Card) -> Vec<Card> {
    let Ok(wire) = Netlink::open() else { return Vec::new() };
    let sys = Path::new(SYS_NET);
    let down = |card: &Card| {
        let flags = fs::read_to_string(sys.join(&card.name).join("flags")).unwrap_or_default();
        let flags = flags.trim().strip_prefix("0x").map(|hex| u32::from_str_radix(hex, 16));
        card.index != boot.index
            && sys.join(&card.name).join("device").exists()
            && matches!(flags, Some(Ok(flags)) if flags & 1 == 0)
    };
    let others = cards(sys).into_iter().filter(down);
    others
        .filter(|card| {
            wire.ask(&format!("{} up", card.name), |seq| netlink::set_up(seq, card.index, true))
        })
        .collect()
}

/// Takes down what [`wake_others`] brought up, unless it became part of something meanwhile.
pub fn lower(woken: &[Card]) {
    let Ok(wire) = Netlink::open() else { return };
    for card in
        woken.iter().filter(|card| !Path::new(SYS_NET).join(&card.name).join("master").exists())
    {
        wire.ask(&format!("{} down", card.name), |seq| netlink::set_up(seq, card.index, false));
    }
}

/// Tells the wire whose address this is now: after a takeover the switch and every neighbour
/// still send to the machine that had it before.
pub fn announce(card: &Card, address: Ipv4Addr) {
    let sent =
        Packets::open(card).and_then(|packets| packets.send(&arp::announce(card.mac, address)));
    if let Err(error) = sent {
        say(format!("no gratuitous ARP on {}: {error}", card.name));
    }
}

/// Gives it a name; another that has it steps aside.
pub fn rename(wire: &Netlink, card: &mut Card, name: &str) {
    // Before Linux 6.2 an interface that is up keeps its name; `ip=` on the command line ups it.
    wire.ask("down", |seq| netlink::set_up(seq, card.index, false));
    if let Some(other) = named(name) {
        let aside = format!("was-{}", other.index);
        wire.ask("down", |seq| netlink::set_up(seq, other.index, false));
        wire.ask(&format!("{name} aside as {aside}"), |seq| {
            netlink::set_name(seq, other.index, &aside)
        });
    }
    if wire.ask(&format!("name {name}"), |seq| netlink::set_name(seq, card.index, name)) {
        say(format!("{} is now called {name}", card.name));
        name.clone_into(&mut card.name);
    }
}

/// Until it hears its switch. `by`: the members of a bond, any of which would do.
pub fn wait_for_carrier(card: &Card, by: &[String]) -> Result<(), Stop> {
    let begun = Instant::now();
    let mut next_word = 3;
    while !has_carrier(&card.name) {
        let waited = begun.elapsed().as_secs();
        if waited >= next_word {
            say(format!("{} after {waited} s ('rescue' for a shell)", deaf(&card.name, by)));
            next_word = waited + 15;
        }
        if pause(Duration::from_millis(100)) == Pause::Rescue {
            return Err(Stop::Asked);
        }
    }
    Ok(())
}

/// What keeps a link from its switch, in words.
fn deaf(name: &str, by: &[String]) -> String {
    let (up, down): (Vec<&String>, Vec<&String>) = by.iter().partition(|one| has_carrier(one));
    if !up.is_empty() {
        // An LACP port whose NIC does not tell its speed is never used.
        return format!(
            "{name}: {} hears the switch and is not used; waiting for LACP (does the switch allow a port without it, does the NIC tell its speed?)",
            up[0]
        );
    }
    let down: Vec<&str> = down.into_iter().map(String::as_str).collect();
    let on = if down.is_empty() { String::new() } else { format!(" on {}", down.join(", ")) };
    format!("{name}: no link{on}; waiting for cable and switch")
}

/// Two machines with one address harm the one that is right. We stay silent until the other is
/// gone (it may be about to be fenced), and say by which MAC to look for it. `met` is handed the
/// first such sentence, `Ok` carries the last one.
pub fn wait_for_address(
    address: Ipv4Addr,
    card: &Card,
    met: &mut dyn FnMut(&str),
) -> Result<Option<String>, Stop> {
    let mut trouble = None;
    for tries in 1.. {
        let rival = match Packets::open(card).and_then(|packets| packets.probe(card.mac, address)) {
            Ok(rival) => rival,
            Err(error) => {
                say(format!("cannot probe for {address}: {error}; taking it"));
                None
            }
        };
        let Some(rival) = rival else { break };
        let wait = backoff::pause(tries, backoff::random());
        let message = format!("address {address} is in use by {}", show_mac(&rival));
        say(format!(
            "{message}; not taking it, next look in {} s ('rescue' for a shell)",
            wait.as_secs()
        ));
        if trouble.is_none() {
            met(&message);
        }
        trouble = Some(format!("{message}; it was free again after {tries} probes"));
        if pause(wait) == Pause::Rescue {
            return Err(Stop::Asked);
        }
    }
    Ok(trouble)
}

/// A socket to the kernel's links, addresses and routes.
pub struct Netlink(OwnedFd);

impl Netlink {
    /// Opens it.
    pub fn open() -> nix::Result<Netlink> {
        socket::socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkRoute,
        )
        .map(Netlink)
    }

    /// Sends a request and waits for its answer; says what failed.
    pub fn ask(&self, what: &str, request: impl Fn(u32) -> Vec<u8>) -> bool {
        let seq = backoff::random() as u32;
        let failed = match self.exchange(&request(seq), seq) {
            Ok(Ok(())) => return true,
            Ok(Err(errno)) => io::Error::from_raw_os_error(errno),
            Err(error) => error,
        };
        say(format!("kernel refuses {what}: {failed}"));
        false
    }

    fn exchange(&self, request: &[u8], seq: u32) -> io::Result<Result<(), i32>> {
        // With no address given, a netlink socket talks to the kernel.
        socket::send(self.0.as_raw_fd(), request, MsgFlags::empty())?;
        let end = Instant::now() + Duration::from_secs(5);
        let mut answer = [0; 4096];
        while readable(&self.0, end) {
            let n = socket::recv(self.0.as_raw_fd(), &mut answer, MsgFlags::MSG_DONTWAIT)?;
            if let Some(verdict) = netlink::acknowledged(&answer[..n], seq) {
                return Ok(verdict);
            }
        }
        Err(io::ErrorKind::TimedOut.into())
    }
}

struct Packets(OwnedFd);

impl Packets {
    fn open(card: &Card) -> io::Result<Packets> {
        let fd = socket::socket(
            AddressFamily::Packet,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
            SockProtocol::EthAll,
        )?;
        // getifaddrs hands out a packet address of every interface, with its index in it: what bind wants.
        let address = nix::ifaddrs::getifaddrs()?
            .filter_map(|entry| entry.address)
            .filter_map(|address| address.as_link_addr().copied())
            .find(|address| address.ifindex() == card.index as usize)
            .ok_or(io::ErrorKind::NotFound)?;
        socket::bind(fd.as_raw_fd(), &address)?;
        Ok(Packets(fd))
    }

    fn send(&self, frame: &[u8]) -> io::Result<()> {
        socket::send(self.0.as_raw_fd(), frame, MsgFlags::empty())?;
        Ok(())
    }

    /// RFC 5227 §2.1.1 with its seconds cut to quarters: the appliance gave this address to nobody
    /// else, so this is a look over the shoulder, and a boot should not pay five seconds for it.
    fn probe(&self, mac: Mac, address: Ipv4Addr) -> io::Result<Option<Mac>> {
        let mut frame = [0; 128];
        for _ in 0..3 {
            self.send(&arp::probe(mac, address))?;
            let end = Instant::now() + Duration::from_millis(250);
            while readable(&self.0, end) {
                match socket::recv(self.0.as_raw_fd(), &mut frame, MsgFlags::MSG_DONTWAIT) {
                    Ok(n) => {
                        let rival = arp::rival(&frame[..n], mac, address);
                        if rival.is_some() {
                            return Ok(rival);
                        }
                    }
                    Err(nix::Error::EAGAIN | nix::Error::EINTR) => {}
                    Err(errno) => return Err(errno.into()),
                }
            }
        }
        Ok(None)
    }
}

fn readable(fd: &OwnedFd, end: Instant) -> bool {
    let left = end.saturating_duration_since(Instant::now());
    let timeout =
        Timespec { tv_sec: left.as_secs().min(3600) as i64, tv_nsec: left.subsec_nanos().into() };
    let mut fds = [PollFd::from_borrowed_fd(fd.as_fd(), PollFlags::IN)];
    !left.is_zero() && matches!(poll(&mut fds, Some(&timeout)), Ok(n) if n > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn macs() {
        let mac = [0x52, 0x54, 0, 0x77, 0, 0xab];
        assert_eq!(parse_mac("52:54:00:77:00:AB"), Some(mac));
        assert_eq!(parse_mac("52-54-00-77-00-ab"), Some(mac));
        assert_eq!(show_mac(&mac), "52:54:00:77:00:ab");
        for bad in [
            "",
            "52:54:00:77:00",
            "52:54:00:77:00:01:02",
            "5:54:00:77:00:01",
            "+2:54:00:77:00:01",
            "zz:54:00:77:00:01",
        ] {
            assert_eq!(parse_mac(bad), None, "{bad}");
        }
    }

    #[test]
    fn finds_the_hardware_behind_an_address() {
        let sys = tempfile::tempdir().unwrap();
        let make = |name: &str, index: &str, mac: &str, hardware: bool| {
            let card = sys.path().join(name);
            fs::create_dir_all(if hardware { card.join("device") } else { card.clone() }).unwrap();
            fs::write(card.join("ifindex"), format!("{index}\n")).unwrap();
            fs::write(card.join("address"), format!("{mac}\n")).unwrap();
        };
        make("lo", "1", "00:00:00:00:00:00", false);
        make("br0", "2", "52:54:00:77:00:01", false);
        make("eth7", "9", "52:54:00:77:00:01", true);
        // Once in a bond it shows the bond's address, or another member's.
        make("eth8", "10", "52:54:00:77:00:01", true);
        fs::create_dir(sys.path().join("eth8/bonding_slave")).unwrap();
        fs::write(sys.path().join("eth8/bonding_slave/perm_hwaddr"), "52:54:00:77:00:08\n")
            .unwrap();
        make("ib0", "4", "80:00:02:08:fe:80:00:00:00:00:00:00:00:02:c9:03:00:00:00:01", true);
        let found = find(sys.path(), parse_mac("52:54:00:77:00:01").unwrap()).unwrap();
        assert_eq!((found.index, found.name.as_str()), (9, "eth7"));
        assert_eq!(find(sys.path(), parse_mac("52:54:00:77:00:08").unwrap()).unwrap().index, 10);
        assert_eq!(find(sys.path(), [9; 6]), None);
        assert_eq!(cards(sys.path()).len(), 4);
        assert!(cards(Path::new("/nonexistent")).is_empty());
    }

    /// In a network namespace of this thread alone, gone with it.
    #[test]
    fn the_kernel_takes_our_bytes() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        std::thread::spawn(|| {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            let wire = Netlink::open().unwrap();
            let (lo, at) = (1, Ipv4Addr::new(10, 99, 0, 2));
            assert!(wire.ask("up", |seq| netlink::set_up(seq, lo, true)));
            assert!(wire.ask("mtu", |seq| netlink::set_mtu(seq, lo, 9000)));
            // Twice: a retry finds its own address and route there.
            for _ in 0..2 {
                assert!(wire.ask("address", |seq| netlink::add_address(seq, lo, at, 24)));
                let default = netlink::Hop {
                    to: Ipv4Addr::UNSPECIFIED,
                    prefix: 0,
                    via: Ipv4Addr::new(10, 98, 0, 1),
                    metric: 0,
                    onlink: true,
                };
                let to = Ipv4Addr::new(10, 97, 1, 2);
                let via = Ipv4Addr::new(10, 98, 0, 2);
                let hop = netlink::Hop { to, prefix: 16, via, metric: 1024, ..default.clone() };
                for hop in [&default, &hop] {
                    assert!(wire.ask("route", |seq| netlink::add_route(seq, lo, hop)));
                }
            }
            let found = nix::ifaddrs::getifaddrs().unwrap().any(|entry| {
                entry
                    .address
                    .as_ref()
                    .and_then(|at| at.as_sockaddr_in())
                    .is_some_and(|found| found.ip() == at)
            });
            assert!(found);
            let routes = fs::read_to_string("/proc/thread-self/net/route").unwrap();
            assert!(routes.contains("lo\t00000000\t0100620A"), "{routes}");
            assert!(routes.contains("lo\t0000610A\t0200620A\t0003\t0\t0\t1024\t"), "{routes}");
            // Hardware (and lo) is not ours to take away.
            assert!(!wire.ask("deletion", |seq| netlink::stacked::delete(seq, lo)));
            assert!(!wire.ask("nothing", |seq| netlink::set_up(seq, 999, true)));
            let card = Card { index: lo, name: "lo".into(), mac: [0; 6] };
            assert_eq!(Packets::open(&card).unwrap().probe(card.mac, at).unwrap(), None);
        })
        .join()
        .unwrap();
    }
}
