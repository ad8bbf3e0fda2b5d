//! The rack's network: an anonymous namespace, a bridge in it, and a tap for every machine.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::Error;
use super::keeper::{Keeper, enter_fresh_namespace};
use super::router::Router;

/// The appliance's NIC, above the numbers that sites give their machines.
pub(super) const BRIDGE_MAC: &str = "52:54:00:77:ff:01";

/// What the wire is like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Name of the bridge: the appliance's provisioning interface.
    pub bridge: String,
    /// The appliance's address on it.
    pub address: Ipv4Addr,
    /// Network bits.
    pub prefix: u8,
    /// Answer IPv6 router solicitations (with "no router here"): saves 16 s a boot, see [`Router`].
    pub router: bool,
}

impl Default for Plan {
    fn default() -> Plan {
        let address = Ipv4Addr::new(10, 77, 0, 1);
        Plan { bridge: "kb0".into(), address, prefix: 24, router: true }
    }
}

/// A private network. It has no name on the host and ends with its last process.
pub struct Wire {
    keeper: Arc<Keeper>,
    plan: Plan,
    ports: AtomicU32,
    _router: Option<Router>,
}

impl Wire {
    /// Takes the current thread, and all threads and processes it starts from now on, into a
    /// fresh namespace and lays the network of `plan` there.
    pub fn enter(plan: &Plan) -> Result<Wire, Error> {
        enter_fresh_namespace()?;
        let keeper = Arc::new(Keeper::here()?);
        // Without this the kernel's own IPv6 chatter is on the wire. Harmless where /proc/sys is
        // read-only, as in some containers.
        let quiet = |key: &str, value: &str| {
            let (path, value) = (format!("/proc/sys/net/ipv6/conf/{key}"), value.to_string());
            let _ = keeper.run(move || std::fs::write(path, value));
        };
        quiet("default/disable_ipv6", "1");
        let Plan { bridge, address, prefix, router } = plan;
        // forward_delay 0: a port that learns for 15 s swallows the firmware's DISCOVERs. A fixed
        // address: a bridge otherwise takes its lowest port's, and changes it as ports come.
        let script = format!(
            "link set lo up\n\
             link add {bridge} address {BRIDGE_MAC} type bridge stp_state 0 forward_delay 0 mcast_snooping 0\n\
             addr add {address}/{prefix} brd + dev {bridge}\n\
             link set {bridge} up\n"
        );
        ip(&keeper, &format!("laying bridge {bridge}"), &script)?;
        let router = if *router {
            quiet(&format!("{bridge}/accept_dad"), "0");
            quiet(&format!("{bridge}/disable_ipv6"), "0");
            Router::start(&keeper, bridge)
        } else {
            None
        };
        let ports = AtomicU32::new(0);
        Ok(Wire { keeper, plan: plan.clone(), ports, _router: router })
    }

    /// What it was laid after.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The thread inside it.
    pub fn keeper(&self) -> &Arc<Keeper> {
        &self.keeper
    }

    /// Makes an address one of this host's: something in the rack is to be reached there, not by the bridge.
    pub fn own(&self, address: IpAddr) -> Result<(), Error> {
        if address.is_loopback() {
            return Ok(());
        }
        let prefix = if address.is_ipv4() { 32 } else { 128 };
        let script = format!("addr replace {address}/{prefix} dev lo\n");
        ip(&self.keeper, &format!("taking the address {address}"), &script)
    }

    /// A new tap on the bridge, for a machine's NIC. Returns its name.
    pub fn tap(&self) -> Result<String, Error> {
        let name = format!("kt{}", self.ports.fetch_add(1, Ordering::Relaxed));
        let bridge = &self.plan.bridge;
        let script = format!(
            "tuntap add dev {name} mode tap\nlink set {name} master {bridge}\nlink set {name} up\n"
        );
        ip(&self.keeper, &format!("adding tap {name} (/dev/net/tun must be writable)"), &script)?;
        Ok(name)
    }

    /// A neighbour on the same wire with a network stack of its own: where a reference client
    /// (udhcpc, perfdhcp, atftp, curl) runs. Its interface is `eth0`, up and without an address.
    pub fn peer(&self) -> Result<Peer, Error> {
        let port = format!("kp{}", self.ports.fetch_add(1, Ordering::Relaxed));
        let keeper = Keeper::apart()?;
        let script = format!(
            "link add {port} type veth peer name eth0 netns {}\n\
             link set {port} master {}\nlink set {port} up\n",
            keeper.tid(),
            self.plan.bridge
        );
        ip(&self.keeper, "adding a peer", &script)?;
        ip(&keeper, "raising the peer", "link set lo up\nlink set eth0 up\n")?;
        Ok(Peer { keeper, port })
    }

    /// Another bridge beside the first one, up and without an address.
    pub fn segment(&self, bridge: &str) -> Result<(), Error> {
        let script = format!(
            "link add {bridge} type bridge stp_state 0 forward_delay 0 mcast_snooping 0\n\
             link set {bridge} up\n"
        );
        ip(&self.keeper, &format!("laying bridge {bridge}"), &script)
    }

    /// A further cable from a neighbour to a bridge. Returns the bridge's end of it.
    pub fn cable(&self, peer: &Peer, interface: &str, bridge: &str) -> Result<String, Error> {
        let port = format!("kp{}", self.ports.fetch_add(1, Ordering::Relaxed));
        let script = format!(
            "link add {port} type veth peer name {interface} netns {}\n\
             link set {port} master {bridge}\nlink set {port} up\n",
            peer.keeper.tid()
        );
        ip(&self.keeper, &format!("adding {interface} to a peer"), &script)?;
        Ok(port)
    }

    /// Loses `percent` of the packets that enter or leave by `device` (the bridge for all
    /// traffic of the appliance, a tap or a peer's port for one machine's).
    ///
    /// By nftables, not netem: Debian's kernels have both, minimal ones often lack sch_netem.
    pub fn lose(&self, device: &str, percent: u8) -> Result<(), Error> {
        let drop = match percent {
            // numgen yields 0 to 99, and nft refuses to compare it with 100.
            100.. => "counter drop".to_string(),
            _ => format!("numgen random mod 100 < {percent} counter drop"),
        };
        self.nft(&format!(
            "table netdev lose_{device} {{}}\n\
             delete table netdev lose_{device}\n\
             table netdev lose_{device} {{\n\
             chain in {{ type filter hook ingress device \"{device}\" priority 0; {drop}; }}\n\
             chain out {{ type filter hook egress device \"{device}\" priority 0; {drop}; }}\n\
             }}\n"
        ))
        .map(drop_text)
    }

    /// How many packets [`Wire::lose`] has lost on `device` so far.
    pub fn lost(&self, device: &str) -> Result<u64, Error> {
        let listing = self.nft(&format!("list table netdev lose_{device}\n"))?;
        let counts = listing.split("counter packets ").skip(1);
        Ok(counts.filter_map(|rest| rest.split(' ').next()?.parse::<u64>().ok()).sum())
    }

    /// Ends the losses on `device`.
    pub fn heal(&self, device: &str) -> Result<(), Error> {
        self.nft(&format!("delete table netdev lose_{device}\n")).map(drop_text)
    }

    fn nft(&self, script: &str) -> Result<String, Error> {
        nft(&self.keeper, "losing packets", script)
    }
}

/// A neighbour on the wire, see [`Wire::peer`]. Processes bound to its keeper end with it.
pub struct Peer {
    /// The thread in the peer's namespace: `peer.keeper.run(…)`, `peer.keeper.spawn(…)`.
    pub keeper: Keeper,
    /// The bridge's end of its cable.
    pub port: String,
}

impl Peer {
    /// Gives `eth0` an address.
    pub fn address(&self, address: Ipv4Addr, prefix: u8) -> Result<(), Error> {
        let script = format!("addr replace {address}/{prefix} brd + dev eth0\n");
        ip(&self.keeper, "giving the peer an address", &script)
    }

    /// Rules for what it receives and sends.
    pub(super) fn nft(&self, script: &str) -> Result<(), Error> {
        nft(&self.keeper, "setting a peer's rules", script).map(drop_text)
    }

    /// Runs a program on the peer to its end.
    pub fn output(&self, program: &str, arguments: &[&str]) -> Result<std::process::Output, Error> {
        let mut command = Command::new(program);
        command.args(arguments);
        self.keeper.output(command).map_err(Error::io(format!("running {program} on a peer")))
    }
}

fn nft(keeper: &Keeper, doing: &str, script: &str) -> Result<String, Error> {
    feed(keeper, "nft", &["-f", "-"], "nftables", doing, script)
}

pub(super) fn ip(keeper: &Keeper, doing: &str, script: &str) -> Result<(), Error> {
    feed(keeper, "ip", &["-batch", "-"], "iproute2", doing, script).map(drop_text)
}

fn drop_text(_: String) {}

/// Hands `script` to a tool inside the namespace and returns what it printed.
fn feed(
    keeper: &Keeper,
    tool: &str,
    arguments: &[&str],
    package: &'static str,
    doing: &str,
    script: &str,
) -> Result<String, Error> {
    let mut command = Command::new(tool);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let script = script.to_string();
    let ran = keeper.run(move || {
        let mut child = command.spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            // A tool that gave up early has said why on stderr.
            let _ = stdin.write_all(script.as_bytes());
        }
        child.wait_with_output()
    })?;
    let output = ran.map_err(|why| match why.kind() {
        std::io::ErrorKind::NotFound => Error::MissingTool { tool: tool.into(), package },
        _ => Error::Io { doing: doing.into(), why },
    })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_string();
    Err(Error::Refused { doing: doing.into(), said })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;

    /// Two stacks on one bridge talk, lose what they are told to lose, and the host sees nothing.
    #[test]
    fn peers_talk_and_lose() {
        super::super::on_wire(Plan { router: false, ..Plan::default() }, |wire| async move {
            let peer = wire.peer().expect("a veth pair");
            peer.address(Ipv4Addr::new(10, 77, 0, 99), 24).expect("an address");
            let server = UdpSocket::bind("10.77.0.1:4000").expect("the appliance's address");
            // A datagram in flight on a busy host may take its time; one that is lost, for ever.
            let quiet = std::time::Duration::from_millis(500);
            server.set_read_timeout(Some(quiet)).expect("a socket");
            let client = peer.keeper.run(|| UdpSocket::bind("10.77.0.99:4001"));
            let client = client.expect("runs").expect("the peer's address");

            let exchange = |count: usize| {
                for _ in 0..count {
                    client.send_to(b"x", "10.77.0.1:4000").expect("a route to the appliance");
                }
                let mut buffer = [0; 8];
                (0..count).take_while(|_| server.recv_from(&mut buffer).is_ok()).count()
            };
            while exchange(1) == 0 {} // ARP
            assert_eq!(exchange(50), 50);
            wire.lose(&peer.port, 50).expect("nftables");
            let through = exchange(200);
            assert!((40..160).contains(&through), "{through} of 200 at 50 % loss");
            assert!(wire.lost(&peer.port).expect("counters") >= 40);
            wire.lose(&peer.port, 100).expect("nftables again");
            assert_eq!(exchange(20), 0);
            wire.heal(&peer.port).expect("nftables");
            assert_eq!(exchange(50), 50);
        })
        .expect("a namespace");
        let links = std::fs::read_to_string("/proc/net/dev").expect("the host's interfaces");
        assert!(!links.contains("kb0") && !links.contains("kp0"), "left behind: {links}");
    }

    #[test]
    fn refusals_say_what_and_why() {
        let plan = Plan { bridge: "a-name-longer-than-15".into(), ..Plan::default() };
        let error = super::super::on_wire(plan, |_| async {}).expect_err("too long a name");
        let text = error.to_string();
        assert!(text.starts_with("laying bridge a-name-longer-than-15: "), "{text}");
    }
}
