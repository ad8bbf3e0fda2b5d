//! The server: it listens, counts, and cuts off; what a client asks for is in [`super::client`].

use std::borrow::Cow;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use russh::keys::{Algorithm, EcdsaCurve, HashAlg, PublicKey};
use russh::server::Config;
use russh::{MethodKind, MethodSet, Preferred, SshId, cipher, compression, kex, mac};
use rustix::net::{Shutdown, shutdown};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{MissedTickBehavior, interval, sleep, sleep_until, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use super::authorized::Authorized;
use super::client::Client;
use super::host_key::HostKey;
use super::keys::{Key, NotLet};
use super::limits::{Admitted, KEYS, Limits};
use crate::line::{Handle, locked};

/// A client that is alive answers within two of these.
const ALIVE: Duration = Duration::from_secs(30);
/// One that takes nothing for so long is gone, whatever it answers.
const STUCK: Duration = Duration::from_secs(120);
/// Between two looks at the file of keys while nobody logs in.
const LOOK: Duration = Duration::from_secs(2);
/// What a client may send before we took what it sent. Pasting goes no faster than the line, and what the machine
/// says comes between two such packets.
const WINDOW: u32 = 16 * 1024;
const PACKET: u32 = 1024;
/// Messages to and from a channel that wait.
const QUEUE: usize = 8;

/// Whoever has the lines.
pub trait Consoles: Send + Sync + 'static {
    /// The console that is meant by a name, for the one with this key.
    ///
    /// # Errors
    /// There is none, or he may not look at it.
    fn reach(&self, key: &Key, who: &str) -> Result<Reach, NotReached>;

    /// Those he may look at, as a text for people.
    fn list(&self, key: &Key) -> String;

    /// Something that people should read of.
    fn note(&self, who: Option<&str>, text: String);
}

/// A console somebody may look at.
#[derive(Debug)]
pub struct Reach {
    /// The machine.
    pub name: String,
    /// Its line.
    pub line: Handle,
    /// Whether he may type.
    pub types: bool,
}

/// Why somebody is not at a console.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotReached {
    /// There is no such console. He is shown which there are.
    #[error("{0}")]
    Unknown(String),
    /// There is, and it is not for him, or not there now; in words.
    #[error("{0}")]
    Refused(String),
}

/// How long people are waited for.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    /// A connection has to log in within this.
    pub grace: Duration,
    /// Between two looks whether somebody may still be here.
    pub look: Duration,
    /// A line that takes nothing of what is typed for so long does not get the rest.
    pub stuck: Duration,
}

impl Default for Times {
    fn default() -> Times {
        let secs = Duration::from_secs;
        Times { grace: secs(20), look: secs(5), stuck: secs(15) }
    }
}

/// What stands behind the server.
pub struct Server {
    /// Its own key.
    pub key: HostKey,
    /// Those of people.
    pub authorized: Arc<Authorized>,
    /// The lines.
    pub consoles: Arc<dyn Consoles>,
    /// See there.
    pub times: Times,
}

/// What all connections share.
pub(super) struct Shared {
    pub server: Server,
    pub limits: Mutex<Limits>,
    /// To cut a connection off, whatever it is waiting for.
    open: Mutex<HashMap<u64, OwnedFd>>,
    pub cancel: CancellationToken,
}

impl Server {
    /// Serves until cancelled.
    pub async fn serve(self, listener: TcpListener, cancel: CancellationToken) {
        let config = Arc::new(config(&self.key));
        let (limits, open) = (Mutex::default(), Mutex::default());
        let shared = Arc::new(Shared { server: self, limits, open, cancel });
        shared.listen(listener, config).await;
    }
}

/// Nothing that ssh-audit(1) calls weak; compression saves nothing on a console, and is code that strangers reach.
fn config(key: &HostKey) -> Config {
    let preferred = Preferred {
        kex: Cow::Borrowed(&[
            kex::MLKEM768X25519_SHA256,
            kex::CURVE25519,
            kex::CURVE25519_PRE_RFC_8731,
            kex::EXTENSION_SUPPORT_AS_SERVER,
            kex::EXTENSION_OPENSSH_STRICT_KEX_AS_SERVER,
        ]),
        // Our own key is of the first kind; people's may be of all of these (RFC 8308 server-sig-algs). Not among them:
        // RSA with SHA-1.
        key: Cow::Borrowed(&[
            Algorithm::Ed25519,
            Algorithm::SkEd25519,
            Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 },
            Algorithm::Ecdsa { curve: EcdsaCurve::NistP384 },
            Algorithm::Ecdsa { curve: EcdsaCurve::NistP521 },
            Algorithm::SkEcdsaSha2NistP256,
            Algorithm::Rsa { hash: Some(HashAlg::Sha512) },
            Algorithm::Rsa { hash: Some(HashAlg::Sha256) },
        ]),
        host_key_certificates: Cow::Borrowed(&[]),
        cipher: Cow::Borrowed(&[
            cipher::CHACHA20_POLY1305,
            cipher::AES_256_GCM,
            cipher::AES_128_GCM,
            cipher::AES_256_CTR,
        ]),
        mac: Cow::Borrowed(&[mac::HMAC_SHA512_ETM, mac::HMAC_SHA256_ETM]),
        compression: Cow::Borrowed(&[compression::NONE]),
    };
    Config {
        server_id: SshId::Standard(Cow::Borrowed("SSH-2.0-koboshi")),
        methods: MethodSet::from(&[MethodKind::PublicKey][..]),
        // The wait for a wrong key is in `limits`: it grows with their number.
        auth_rejection_time: Duration::ZERO,
        keys: vec![key.private.clone()],
        window_size: WINDOW,
        maximum_packet_size: PACKET,
        channel_buffer_size: QUEUE,
        event_buffer_size: QUEUE,
        preferred,
        max_auth_attempts: KEYS,
        inactivity_timeout: Some(STUCK),
        keepalive_interval: Some(ALIVE),
        keepalive_max: 2,
        nodelay: true,
        ..Config::default()
    }
}

async fn turn_away(mut stream: TcpStream) {
    // Shown by clients, as they wait for the version (RFC 4253 §4.2).
    let _best_effort = stream.try_write(b"Too many connections: try again later\r\n");
    let _best_effort = timeout(Duration::from_secs(1), stream.shutdown()).await;
}

fn cut(fd: &OwnedFd) {
    // It has ended by itself, if not.
    let _it_may_be_gone = shutdown(fd, Shutdown::Both);
}

impl Shared {
    async fn listen(self: Arc<Shared>, listener: TcpListener, config: Arc<Config>) {
        let mut looks = interval(self.server.times.look.min(LOOK));
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let accepted = tokio::select! {
                () = self.cancel.cancelled() => break,
                _ = looks.tick() => {
                    self.look().await;
                    continue;
                }
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => {
                    // Here, so that the oldest one is the oldest.
                    let Ok(fd) = rustix::io::fcntl_dupfd_cloexec(&stream, 0) else { continue };
                    match self.admit(peer.ip(), fd) {
                        Some(number) => {
                            tokio::spawn(self.clone().connection(
                                config.clone(),
                                stream,
                                peer,
                                number,
                            ));
                        }
                        None => {
                            tokio::spawn(turn_away(stream));
                        }
                    }
                }
                // No descriptors, most likely: they come back as connections end.
                Err(error) => {
                    tracing::warn!(%error, "an SSH connection was not taken");
                    sleep(Duration::from_millis(200)).await;
                }
            }
        }
        // Sessions have heard of it too, and say goodbye.
        sleep(Duration::from_millis(300)).await;
        for fd in std::mem::take(&mut *locked(&self.open)).into_values() {
            cut(&fd);
        }
    }

    pub async fn look(&self) {
        let (_, news) = self.server.authorized.look().await;
        for text in news {
            self.server.consoles.note(None, text);
        }
    }

    async fn connection(
        self: Arc<Shared>,
        config: Arc<Config>,
        stream: TcpStream,
        peer: SocketAddr,
        number: u64,
    ) {
        let socket = SockRef::from(&stream);
        let alive = TcpKeepalive::new().with_time(ALIVE).with_interval(ALIVE).with_retries(2);
        let kept = socket.set_tcp_keepalive(&alive);
        if let Err(error) =
            kept.and(socket.set_tcp_user_timeout(Some(STUCK))).and(stream.set_nodelay(true))
        {
            tracing::debug!(%peer, %error, "an SSH connection is not as it should be");
        }
        let inside = CancellationToken::new();
        let client = Client::new(self.clone(), number, peer, inside.clone());
        let ended = async {
            let late = tokio::time::Instant::now() + self.server.times.grace;
            let begun = timeout_at(late, russh::server::run_stream(config, stream, client));
            let mut session = begun.await.map_err(|_| russh::Error::ConnectionTimeout)??;
            tokio::select! {
                ended = &mut session => return ended,
                () = inside.cancelled() => {}
                () = sleep_until(late) => self.cut(number),
            }
            session.await
        };
        if let Err(error) = ended.await {
            tracing::debug!(%peer, %error, "an SSH connection ended");
        }
        self.cut(number);
        locked(&self.limits).gone(number);
    }

    /// Its number, if there is room for it.
    fn admit(&self, from: IpAddr, fd: OwnedFd) -> Option<u64> {
        let Admitted::As(number, make_room) = locked(&self.limits).come(from) else { return None };
        let mut open = locked(&self.open);
        make_room.iter().filter_map(|other| open.remove(other)).for_each(|fd| cut(&fd));
        open.insert(number, fd);
        Some(number)
    }

    fn cut(&self, number: u64) {
        if let Some(fd) = locked(&self.open).remove(&number) {
            cut(&fd);
        }
    }

    /// A key that lets nobody in: answered after a while, and told of.
    pub async fn wrong(&self, from: IpAddr, user: &str, key: &PublicKey, why: &NotLet) {
        let wrong = locked(&self.limits).wrong(from, Instant::now());
        if let Some(before) = wrong.tell {
            let user: String = user.chars().take(32).collect();
            let key = key.fingerprint(HashAlg::Sha256);
            let more = match before {
                0 => String::new(),
                many => format!("; {many} more since the last of these"),
            };
            let user = user.escape_debug();
            self.server.consoles.note(
                None,
                format!("SSH from {from} as {user} with the key {key} is refused: {why}{more}"),
            );
        }
        sleep(wrong.wait).await;
    }
}
