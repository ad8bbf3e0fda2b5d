//! Says "no IPv6 router here" to machines that ask: iPXE otherwise waits 16 s of every boot.
//!
//! iPXE's autoboot configures IPv4 and IPv6 side by side and goes on only when both are settled.
//! Its router solicitation is repeated with doubling pauses (0.25 s … 8 s, 15.75 s in all) until a
//! router answers, so on a network without one each stage of iPXE loses 16 s, most of a boot. An
//! advertisement with router lifetime 0, no prefix and no flags (RFC 4861 §4.2: "not a default
//! router") settles it at once and configures nothing on anybody.

use std::net::{Ipv6Addr, SocketAddrV6, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::net::if_::if_nametoindex;
use socket2::{Domain, Protocol, Socket, Type};

use super::keeper::Keeper;

const ROUTER_SOLICITATION: u8 = 133;
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);

/// Type 134, code 0, checksum (the kernel's), hop limit 64, no flags, router lifetime 0,
/// reachable time and retransmission timer unspecified; no options.
const ADVERTISEMENT: [u8; 16] = [134, 0, 0, 0, 64, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// Answers until it is dropped.
pub struct Router {
    stop: Arc<AtomicBool>,
}

impl Router {
    /// Starts answering on `interface`. `None` where there is no IPv6: boots are slower, no less.
    pub fn start(keeper: &Keeper, interface: &str) -> Option<Router> {
        let name = interface.to_string();
        let opened = keeper.run(move || {
            let index = if_nametoindex(name.as_str()).map_err(std::io::Error::from)?;
            Ok::<_, std::io::Error>((open(index)?, index))
        });
        let (socket, index) = match opened {
            Ok(Ok(opened)) => opened,
            Ok(Err(error)) => {
                tracing::warn!(%error, interface, "no IPv6 here; iPXE waits 16 s for a router");
                return None;
            }
            Err(_) => return None,
        };
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let serve = move || answer(&socket, index, &stopped);
        std::thread::Builder::new().name("lab-router".into()).spawn(serve).ok()?;
        Some(Router { stop })
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn open(index: u32) -> std::io::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6))?;
    // RFC 4861 §6.1.2: an advertisement with any other hop limit is ignored.
    socket.set_multicast_hops_v6(255)?;
    socket.set_multicast_loop_v6(false)?;
    socket.set_multicast_if_v6(index)?;
    socket.join_multicast_v6(&ALL_ROUTERS, index)?;
    socket.set_read_timeout(Some(Duration::from_secs(1)))?;
    // A raw socket, but receiving and sending datagrams are the same calls.
    Ok(UdpSocket::from(std::os::fd::OwnedFd::from(socket)))
}

fn answer(socket: &UdpSocket, index: u32, stop: &AtomicBool) {
    let mut message = [0; 256];
    let everybody = SocketAddrV6::new(ALL_NODES, 0, 0, index);
    while !stop.load(Ordering::Relaxed) {
        match socket.recv_from(&mut message) {
            Ok((length, _)) if length >= 8 && message[0] == ROUTER_SOLICITATION => {
                if let Err(error) = socket.send_to(&ADVERTISEMENT, everybody) {
                    tracing::debug!(%error, "router advertisement not sent");
                }
            }
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => {
                tracing::warn!(%error, "no longer answering router solicitations");
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::net::Plan;

    #[test]
    fn a_solicitation_is_answered_with_no_router_here() {
        crate::lab::on_wire(Plan::default(), |wire| async move {
            let peer = wire.peer().expect("a veth pair");
            let heard = peer.keeper.run(|| {
                // The peer's namespace is fresh: its eth0 has IPv6, after duplicate detection.
                std::fs::write("/proc/sys/net/ipv6/conf/eth0/accept_dad", "0").expect("sysctl");
                std::fs::write("/proc/sys/net/ipv6/conf/eth0/disable_ipv6", "1").expect("sysctl");
                std::fs::write("/proc/sys/net/ipv6/conf/eth0/disable_ipv6", "0").expect("sysctl");
                let index = if_nametoindex("eth0").expect("eth0");
                let socket = open(index).expect("a raw socket");
                socket.set_read_timeout(Some(Duration::from_millis(300))).expect("a socket");
                let routers = SocketAddrV6::new(ALL_ROUTERS, 0, 0, index);
                let mut heard = [0; 64];
                for _ in 0..100 {
                    // Fails until the kernel has given itself a link-local address.
                    let _ = socket.send_to(&[133, 0, 0, 0, 0, 0, 0, 0], routers);
                    while let Ok((length, _)) = socket.recv_from(&mut heard) {
                        if heard[0] == 134 {
                            return heard[..length].to_vec();
                        }
                    }
                }
                Vec::new()
            });
            let heard = heard.expect("runs");
            assert_eq!(heard.len(), 16, "an advertisement: {heard:?}");
            assert_eq!(heard[6..8], [0, 0], "router lifetime");
        })
        .expect("a namespace");
    }
}
