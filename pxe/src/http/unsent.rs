//! How much of its answer waits in the kernel for each connection, beside what is under way (tcp(7),
//! `TCP_NOTSENT_LOWAT`): together no more than what TCP's memory can do with.
//!
//! These bytes are the page cache's, but count as TCP's memory (`net.ipv4.tcp_mem`). Where a thousand machines read their
//! roots and each had megabytes of it, the kernel would be short of that memory, drop what arrives and send it again: at
//! 1,024 connections the rate beside nginx's is twice what it was with 2 MiB each (`tests/bench/run.sh 3 http`). With few connections more is better, as we
//! are woken less often.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use socket2::SockRef;
use tokio::net::TcpStream;

use super::serve::Counters;

/// Bytes of all connections, as long as each has [`LEAST`].
const ALL: u64 = 128 * 1024 * 1024;
/// Bytes of one connection. With more, a reader of 10 kB/s would look like one that reads no more.
const MOST: u64 = 2 * 1024 * 1024;
/// A few packets of the longest kind, so that a connection goes on while we are elsewhere.
const LEAST: u64 = 128 * 1024;

/// Bytes for each of so many connections: it changes where their number doubles.
fn share(open: u64) -> u32 {
    let open = open.clamp(1, ALL).next_power_of_two();
    (ALL / open).clamp(LEAST, MOST) as u32
}

/// What one connection has been told.
#[derive(Debug)]
pub(super) struct Unsent {
    counters: Arc<Counters>,
    told: u32,
}

impl Unsent {
    /// Nothing yet; the counters say how many connections there are.
    pub(super) fn new(counters: Arc<Counters>) -> Unsent {
        Unsent { counters, told: 0 }
    }

    /// Tells the kernel, where others have come or gone since.
    pub(super) fn tell(&mut self, stream: &TcpStream) {
        let share = share(self.counters.open.load(Ordering::Relaxed));
        if share != self.told {
            self.told = share;
            // Without it the connection is no worse than any other program's.
            let _ = SockRef::from(stream).set_tcp_notsent_lowat(share);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn many_share_what_few_have() {
        let shares = [0, 1, 64, 65, 128, 500, 1024, 8192, u64::MAX].map(|open| share(open) / 1024);
        assert_eq!(shares, [2048, 2048, 2048, 1024, 1024, 256, 128, 128, 128]);
    }

    #[tokio::test]
    async fn the_kernel_hears_of_it_when_others_come() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let counters = Arc::new(Counters::default());
        let mut unsent = Unsent::new(counters.clone());
        for (open, expected) in [(1, 2048), (300, 256), (3, 2048)] {
            counters.open.store(open, Ordering::Relaxed);
            unsent.tell(&stream);
            let told = SockRef::from(&stream).tcp_notsent_lowat().unwrap();
            assert_eq!(told, expected * 1024);
        }
    }
}
