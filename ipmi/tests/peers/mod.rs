//! Peers that judge ours: the reference BMC and the two clients that everybody has, each started for one test, on a
//! loopback address of the test's own, and gone with it however it ends.
//!
//! A tool that is missing fails the test (`make setup` installs it). Passwords reach no command line.

// A test file uses what it needs of this.
#![allow(dead_code)]

pub mod bmcsim;
pub mod fru;
pub mod ipmi_sim;
pub mod line;
pub mod tool;
pub mod tty;
pub mod vm;

use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use tempfile::TempDir;
use tokio::net::UdpSocket;

/// The account of every simulated BMC here.
pub const USER: &str = "admin";
/// Its password.
pub const PASSWORD: &str = "open-sesame-42";

/// An address that no other test process uses, and a port that nothing else in this one does.
pub fn somewhere() -> SocketAddrV4 {
    static NEXT: AtomicU16 = AtomicU16::new(6230);
    let [_, high, middle, low] = std::process::id().to_be_bytes();
    let address = Ipv4Addr::new(127, 64 | high & 0x3f, middle, low);
    SocketAddrV4::new(address, NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A folder of the test, with the password as each client wants to read it.
pub struct Place {
    dir: TempDir,
}

impl Place {
    /// An empty one.
    pub fn new() -> Place {
        let place = Place { dir: tempfile::tempdir().expect("a folder") };
        place.write("password", PASSWORD);
        place.write("freeipmi.conf", format!("username {USER}\npassword {PASSWORD}\n"));
        place
    }

    /// A path in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Writes a file that nobody else may read.
    pub fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        use std::os::unix::fs::PermissionsExt;
        let path = self.path(name);
        std::fs::write(&path, text).expect("room in the folder");
        let mode = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(&path, mode).expect("it is ours");
        path
    }

    /// Writes a program.
    pub fn script(&self, name: &str, text: &str) -> PathBuf {
        use std::os::unix::fs::PermissionsExt;
        let path = self.write(name, text);
        let mode = std::fs::Permissions::from_mode(0o700);
        std::fs::set_permissions(&path, mode).expect("it is ours");
        path
    }
}

/// Waits until a BMC answers an ASF ping (IPMI 2.0 §13.2.4); panics with `log` if it does not.
pub async fn until_it_answers(at: SocketAddrV4, log: impl Fn() -> String) {
    const PING: [u8; 12] = [6, 0, 0xff, 6, 0, 0, 0x11, 0xbe, 0x80, 0, 0, 0];
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("loopback");
    for _ in 0..300 {
        let _ = socket.send_to(&PING, at).await;
        let mut pong = [0; 64];
        let answer = socket.recv_from(&mut pong);
        if let Ok(Ok(_)) = tokio::time::timeout(Duration::from_millis(100), answer).await {
            return;
        }
    }
    panic!("nothing answers at {at} within 30 s\n{}", log());
}

/// Looks again and again until something is so.
pub async fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    for _ in 0..600 {
        if let Some(seen) = look() {
            return seen;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{what}: not within 30 s");
}
