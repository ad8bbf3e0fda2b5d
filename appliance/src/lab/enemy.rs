//! The enemy of `koboshi lab storm --enemy`: a neighbour on the storm's wire with a NIC, two hundred addresses of its
//! own, and bad intentions.

use std::net::{Ipv4Addr, SocketAddrV4};

use anyhow::Context;
use koboshi_pxe::Mac;
use koboshi_storm::enemy::{Attack, Enemy, Target};
use koboshi_storm::siege::{self, Siege, Siegework};
use koboshi_storm::{drive, paper, wire};
use tokio_util::sync::CancellationToken;

use super::Error;
use super::net::{BRIDGE_MAC, Peer, Wire, ip};

/// Its end of the cable.
const MAC: &str = "02:6b:75:00:00:01";
/// What the server takes for the way to all its addresses.
const ROUTER: &str = "10.77.255.253";
/// Those; none of a machine's.
const NETWORK: &str = "10.77.1.0/24";
/// Addresses that it has of them.
const ADDRESSES: u8 = 200;
/// Connections that ask nothing.
const IDLE: usize = 10_000;
/// Readers of one byte a second.
const SLOW: usize = 300;
/// Askers for ranges, reporters, talkers.
const ASKERS: usize = 8;

/// Its cable.
pub fn lay(wire: &Wire) -> Result<Peer, Error> {
    let peer = wire.peer()?;
    let (bridge, server) = (&wire.plan().bridge, paper::SERVER);
    ip(
        wire.keeper(),
        "leading the way to the enemy",
        &format!(
            "neigh replace {ROUTER} lladdr {MAC} dev {bridge} nud permanent\n\
             route replace {NETWORK} via {ROUTER} dev {bridge} onlink src {server}\n"
        ),
    )?;
    ip(
        &peer.keeper,
        "giving the enemy its addresses",
        &format!(
            "link set eth0 down\nlink set eth0 address {MAC} arp off\nlink set eth0 up\n\
             route add {server}/32 dev eth0\n\
             neigh replace {server} lladdr {BRIDGE_MAC} dev eth0 nud permanent\n\
             route add local {NETWORK} dev lo\n"
        ),
    )?;
    Ok(peer)
}

/// Attacks until told to stop. Blocks; to be called on the enemy's side of its cable.
///
/// # Errors
/// Its packet socket.
pub fn attack(
    machines: u32,
    rate: u32,
    seed: u64,
    stop: &CancellationToken,
) -> anyhow::Result<Siegework> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let wire = wire::Wire::open("eth0").context("the enemy's packet socket")?;
        let server: Mac = BRIDGE_MAC.parse().context("the bridge's MAC")?;
        let victims = (0..machines).map(|n| (drive::mac(n), paper::address(n))).collect();
        let file = "ipxe.efi".to_string();
        let target = Target { server: (server, paper::SERVER), victims, file };
        let enemy = Enemy::new(target, wire.mac, &Attack::ALL, rate, seed);
        let siege = Siege {
            http: SocketAddrV4::new(paper::SERVER, 8080),
            syslog: SocketAddrV4::new(paper::SERVER, 514),
            from: (1..=ADDRESSES).map(|last| Ipv4Addr::new(10, 77, 1, last)).collect(),
            path: "/ipxe.efi".to_string(),
            idle: IDLE,
            slow: SLOW,
            askers: ASKERS,
        };
        let done = siege::run(enemy, &wire, Some(siege), stop.cancelled()).await;
        done.context("the enemy's wire")
    })
}
