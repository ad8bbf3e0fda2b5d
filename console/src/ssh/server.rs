//! The server: who is let in, and what a connection may ask for.
//!
//! A connection has one console at a time. Whatever else a client asks for (commands, files, forwarding) is refused
//! with a reason, where the protocol has a place for one.

use std::borrow::Cow;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use russh::keys::{Algorithm, PublicKey};
use russh::server::{
    Auth, ChannelOpenHandle, Config, Handler, Msg, PublicKeyOffer, Session, VerifiedPublicKey,
};
use russh::{
    Channel, ChannelId, ChannelOpenFailure, MethodKind, MethodSet, Preferred, Pty, SshId, cipher,
    compression, kex, mac,
};
use rustix::net::{Shutdown, shutdown};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, sleep_until, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use super::authorized::Authorized;
use super::host_key::HostKey;
use super::keys::{Key, NotLet};
use super::limits::{Admitted, CHANNELS, KEYS, Limits};
use super::session;
use crate::line::{Handle, locked};
use crate::state::clock;

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
struct Shared {
    server: Server,
    limits: Mutex<Limits>,
    /// To cut a connection off, whatever it is waiting for.
    open: Mutex<HashMap<u64, OwnedFd>>,
    cancel: CancellationToken,
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
        key: Cow::Borrowed(&[Algorithm::Ed25519]),
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
        loop {
            let accepted = tokio::select! {
                () = self.cancel.cancelled() => break,
                () = sleep(self.server.times.look.min(LOOK)) => {
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

    async fn look(&self) {
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
        let client = Client {
            shared: self.clone(),
            number,
            peer,
            offers: 0,
            channels: 0,
            known: None,
            inside: inside.clone(),
            session: None,
        };
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
    async fn wrong(&self, from: IpAddr, user: &str, key: &PublicKey, why: &NotLet) {
        let wrong = locked(&self.limits).wrong(from, Instant::now());
        if let Some(before) = wrong.tell {
            let user: String = user.chars().take(32).collect();
            let key = key.fingerprint(russh::keys::HashAlg::Sha256);
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

/// One connection.
struct Client {
    shared: Arc<Shared>,
    number: u64,
    peer: SocketAddr,
    /// Keys it offered.
    offers: usize,
    /// Channels it asked for.
    channels: usize,
    known: Option<(Key, String)>,
    /// It logged in.
    inside: CancellationToken,
    session: Option<Running>,
}

/// Its console.
struct Running {
    channel: ChannelId,
    /// Whether it was said what it is to be.
    begun: bool,
    task: tokio::task::JoinHandle<()>,
}

impl Client {
    fn from(&self) -> IpAddr {
        self.peer.ip().to_canonical()
    }

    /// Whether a request to begin something is the first one on this channel.
    fn begins(&mut self, channel: ChannelId) -> bool {
        let session = self.session.as_mut().filter(|session| session.channel == channel);
        session.is_some_and(|session| !std::mem::replace(&mut session.begun, true))
    }

    /// What is refused, and how often before the client is shown the door.
    fn refuse(&mut self, reason: &str) -> Result<ChannelOpenFailure, russh::Error> {
        self.channels += 1;
        if self.channels > CHANNELS {
            return Err(russh::Error::Disconnect);
        }
        let user = self.known.as_ref().map(|(key, _)| key.name.as_str());
        tracing::debug!(peer = %self.peer, user, reason, "an SSH request is refused");
        let prohibited = ChannelOpenFailure::AdministrativelyProhibited.code();
        Ok(ChannelOpenFailure::Other { code: prohibited, reason: reason.to_string() })
    }
}

const NO_FORWARDING: &str = "consoles only: nothing is forwarded";

impl Handler for Client {
    type Error = russh::Error;

    async fn auth_publickey_offered(
        &mut self,
        user: &str,
        offer: PublicKeyOffer<'_>,
    ) -> Result<Auth, russh::Error> {
        self.offers += 1;
        // A key that is known may be offered for ever: RFC 4252 counts failures alone.
        if self.offers > 2 * KEYS {
            return Err(russh::Error::Disconnect);
        }
        self.shared.look().await;
        // RFC 8332: `ssh-rsa` is the same key with SHA-1.
        let sha1 = matches!(offer.algorithm, Algorithm::Rsa { hash: None });
        let keys = self.shared.server.authorized.keys();
        let found = match keys.find(offer.public_key, self.from(), clock()) {
            Ok(_) if !sha1 => return Ok(Auth::Accept),
            Ok(_) => return Ok(Auth::reject()),
            Err(why) => why,
        };
        self.shared.wrong(self.from(), user, offer.public_key, &found).await;
        Ok(Auth::reject())
    }

    async fn auth_publickey(
        &mut self,
        user: &str,
        key: VerifiedPublicKey<'_>,
    ) -> Result<Auth, russh::Error> {
        let keys = self.shared.server.authorized.keys();
        let Ok(key) = keys.find(key.public_key, self.from(), clock()) else {
            return Ok(Auth::reject());
        };
        self.known = Some((key.clone(), user.to_string()));
        locked(&self.shared.limits).known(self.number);
        self.inside.cancel();
        Ok(Auth::Accept)
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), russh::Error> {
        let Some((key, user)) = self.known.clone() else { return Ok(()) };
        // OpenSSH opens a connection of its own where a shared one has no room.
        if self.session.as_ref().is_some_and(|session| !session.task.is_finished()) {
            let why = self.refuse("one console at a time on one connection")?;
            reply.reject(why).await;
            return Ok(());
        }
        let id = channel.id();
        let visit = session::Visit {
            consoles: self.shared.server.consoles.clone(),
            authorized: self.shared.server.authorized.clone(),
            cancel: self.shared.cancel.clone(),
            times: self.shared.server.times,
            key,
            user,
            from: self.from(),
        };
        let task = tokio::spawn(session::run(channel, visit));
        self.session = Some(Running { channel: id, begun: false, task });
        reply.accept().await;
        Ok(())
    }

    async fn channel_close(
        &mut self,
        channel: ChannelId,
        _: &mut Session,
    ) -> Result<(), russh::Error> {
        if let Some(session) = self.session.take_if(|session| session.channel == channel) {
            session.task.abort();
        }
        Ok(())
    }

    async fn pty_request(
        &mut self,
        channel: ChannelId,
        _term: &str,
        _columns: u32,
        _rows: u32,
        _width: u32,
        _height: u32,
        _modes: &[(Pty, u32)],
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        session.channel_success(channel)
    }

    async fn window_change_request(
        &mut self,
        channel: ChannelId,
        _columns: u32,
        _rows: u32,
        _width: u32,
        _height: u32,
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        session.channel_success(channel)
    }

    async fn shell_request(
        &mut self,
        channel: ChannelId,
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        match self.begins(channel) {
            true => session.channel_success(channel),
            false => session.channel_failure(channel),
        }
    }

    // The reason comes on standard error, which a plain failure has no room for.
    async fn exec_request(
        &mut self,
        channel: ChannelId,
        _command: &[u8],
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        self.shell_request(channel, session).await
    }

    async fn subsystem_request(
        &mut self,
        channel: ChannelId,
        _name: &str,
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        self.shell_request(channel, session).await
    }

    async fn env_request(
        &mut self,
        channel: ChannelId,
        _name: &str,
        _value: &str,
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        session.channel_failure(channel)
    }

    async fn x11_request(
        &mut self,
        channel: ChannelId,
        _single: bool,
        _protocol: &str,
        _cookie: &str,
        _screen: u32,
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        self.refuse(NO_FORWARDING)?;
        session.channel_failure(channel)
    }

    async fn channel_open_x11(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        _: u32,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), russh::Error> {
        reply.reject(self.refuse(NO_FORWARDING)?).await;
        Ok(())
    }

    async fn channel_open_direct_tcpip(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        _: u32,
        _: &str,
        _: u32,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), russh::Error> {
        reply.reject(self.refuse(NO_FORWARDING)?).await;
        Ok(())
    }

    async fn channel_open_forwarded_tcpip(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        _: u32,
        _: &str,
        _: u32,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), russh::Error> {
        reply.reject(self.refuse(NO_FORWARDING)?).await;
        Ok(())
    }

    async fn channel_open_direct_streamlocal(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), russh::Error> {
        reply.reject(self.refuse(NO_FORWARDING)?).await;
        Ok(())
    }
}
