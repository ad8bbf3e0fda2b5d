//! One connection: who is let in, and what he may ask for.
//!
//! It has one console at a time. Whatever else a client asks for (commands, files, forwarding) is refused with a
//! reason, where the protocol has a place for one. RFC 4335's `break` (OpenSSH's `~B`) is a request that russh answers
//! by itself, with a failure: BREAK is in the menu.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use russh::keys::Algorithm;
use russh::server::{
    Auth, ChannelOpenHandle, Handler, Msg, PublicKeyOffer, Session, VerifiedPublicKey,
};
use russh::{Channel, ChannelId, ChannelOpenFailure, Pty};
use tokio_util::sync::CancellationToken;

use super::keys::Key;
use super::limits::{CHANNELS, KEYS};
use super::server::Shared;
use super::session;
use crate::line::locked;
use crate::state::clock;

/// One connection.
pub(super) struct Client {
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
    pub fn new(
        shared: Arc<Shared>,
        number: u64,
        peer: SocketAddr,
        inside: CancellationToken,
    ) -> Client {
        Client { shared, number, peer, offers: 0, channels: 0, known: None, inside, session: None }
    }

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
