//! UDP sockets that many BMCs share, and that are told when a host or a router refuses a datagram.
//!
//! On a socket that is not connected the kernel tells such errors only through its error queue (ip(7),
//! `IP_RECVERR`), which names whom the refused datagram was for.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;

use nix::sys::socket::sockopt::{Ipv4RecvErr, Ipv6RecvErr, RcvBuf};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt};
use tokio::io::Interest;
use tokio::net::UdpSocket;

/// Answers that may wait while the task is at work: a burst of all BMCs of a socket.
const BUFFER: usize = 1 << 20;

/// A socket on a port of its own.
pub(super) fn bind(v4: bool) -> io::Result<UdpSocket> {
    let any: SocketAddr = match v4 {
        true => (Ipv4Addr::UNSPECIFIED, 0).into(),
        false => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = std::net::UdpSocket::bind(any)?;
    socket.set_nonblocking(true)?;
    match v4 {
        true => setsockopt(&socket, Ipv4RecvErr, &true)?,
        false => setsockopt(&socket, Ipv6RecvErr, &true)?,
    }
    // The kernel gives less where its own limit is lower.
    setsockopt(&socket, RcvBuf, &BUFFER)?;
    UdpSocket::from_std(socket)
}

/// The datagrams that were refused since the last time: to whom, and by what error.
pub(super) fn refused(socket: &UdpSocket) -> Vec<(SocketAddr, io::Error)> {
    let mut found = Vec::new();
    // As many as a burst brings; the rest the next time.
    while found.len() < 1024 {
        match socket.try_io(Interest::ERROR, || next_refused(socket)) {
            Ok(refused) => found.extend(refused),
            Err(_) => break,
        }
    }
    found
}

fn next_refused(socket: &UdpSocket) -> io::Result<Option<(SocketAddr, io::Error)>> {
    let mut none = [io::IoSliceMut::new(&mut [])];
    let mut space = nix::cmsg_space!([u8; 128]);
    let flags = MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT;
    let told = recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut none, Some(&mut space), flags)?;
    let peer = told.address.and_then(|address| {
        let v4 = address.as_sockaddr_in().map(|v4| SocketAddr::from((v4.ip(), v4.port())));
        v4.or_else(|| address.as_sockaddr_in6().map(|v6| SocketAddr::from((v6.ip(), v6.port()))))
    });
    let number = told.cmsgs()?.find_map(|message| match message {
        ControlMessageOwned::Ipv4RecvErr(error, _) | ControlMessageOwned::Ipv6RecvErr(error, _) => {
            i32::try_from(error.ee_errno).ok()
        }
        _ => None,
    });
    Ok(peer.zip(number.map(io::Error::from_raw_os_error)))
}
