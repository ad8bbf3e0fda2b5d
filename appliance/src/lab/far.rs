//! A second wire, behind a neighbour that routes between the two: where machines stand that reach the
//! appliance through a relay agent.

use std::net::Ipv4Addr;

use tokio::process::Child;

use super::Error;
use super::keeper;
use super::net::{Peer, Wire, ip};
use super::router::Router;

/// See the module.
pub struct Far {
    /// The neighbour: `eth0` on the first wire, `eth1` on this one.
    pub router: Peer,
    bridge: String,
    near: Ipv4Addr,
    _router: Option<Router>,
}

impl Wire {
    /// Lays another wire with this bridge, and a router with an address on each. The appliance knows
    /// the way there, and has no address there itself.
    pub fn far(
        &self,
        bridge: &str,
        near: Ipv4Addr,
        far: Ipv4Addr,
        prefix: u8,
    ) -> Result<Far, Error> {
        self.segment(bridge)?;
        let router = self.peer()?;
        router.address(near, self.plan().prefix)?;
        let port = self.cable(&router, "eth1", bridge)?;
        let script = format!("link set eth1 up\naddr add {far}/{prefix} brd + dev eth1\n");
        ip(&router.keeper, "giving the router its far address", &script)?;
        let forward = || std::fs::write("/proc/sys/net/ipv4/ip_forward", "1");
        router.keeper.run(forward)?.map_err(Error::io(format!("routing to {port}")))?;
        let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
        let network = Ipv4Addr::from_bits(far.to_bits() & mask);
        let script = format!("route add {network}/{prefix} via {near}\n");
        ip(self.keeper(), "adding the way to the far wire", &script)?;
        let bridge = bridge.to_string();
        let _router = Router::start(self.keeper(), &bridge);
        Ok(Far { router, bridge, near, _router })
    }
}

impl Far {
    /// Moves a machine's or a neighbour's cable over to this wire.
    pub fn plug(&self, wire: &Wire, port: &str) -> Result<(), Error> {
        let script = format!("link set {port} master {}\n", self.bridge);
        ip(wire.keeper(), &format!("moving {port} to {}", self.bridge), &script)
    }

    /// Starts ISC's relay agent on the router, with option 82. It ends with the router.
    pub async fn relay(&self, server: Ipv4Addr) -> Result<Child, Error> {
        let mut command = keeper::bound("dhcrelay");
        command.args(["-d", "-4", "-a", "--no-pid", "-iu", "eth0", "-id", "eth1"]);
        command.arg(server.to_string()).stderr(std::process::Stdio::null());
        let doing = format!("running dhcrelay (isc-dhcp-relay) on {}", self.near);
        self.router.keeper.spawn(command).await.map_err(Error::io(doing))
    }
}
