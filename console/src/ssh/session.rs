//! What a channel is for: a console, the list of them, or nothing that there is; and how it ends.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use russh::server::Msg;
use russh::{Channel, ChannelMsg, ChannelReadHalf, ChannelWriteHalf};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::authorized::Authorized;
use super::console;
use super::keys::Key;
use super::screen::Piece;
use super::server::{Consoles, NotReached, Times};
use super::words::{Words, no_subsystem};

/// Asks for nothing in particular: the list.
const LIST: &str = "consoles";
/// A channel that asks for nothing is given up.
const PATIENCE: Duration = Duration::from_secs(30);

/// Somebody who logged in.
pub(super) struct Visit {
    pub consoles: Arc<dyn Consoles>,
    pub authorized: Arc<Authorized>,
    pub cancel: CancellationToken,
    pub times: Times,
    pub key: Key,
    /// As he called himself: the console he wants.
    pub user: String,
    pub from: IpAddr,
}

/// What the channel is for.
enum Asked {
    Console(Words),
    Refused(String),
}

/// The client's terminal, columns and rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Size(pub u16, pub u16);

impl Size {
    pub fn of(columns: u32, rows: u32) -> Size {
        let small = |number| u16::try_from(number).unwrap_or(u16::MAX);
        Size(small(columns), small(rows))
    }
}

/// How a session ended: its exit status and last words.
pub(super) struct End(pub u32, pub String);

/// Until it ends, either way.
pub(super) async fn run(channel: Channel<Msg>, visit: Visit) {
    let (mut read, write) = channel.split();
    let mut size = None;
    let begun = timeout(PATIENCE, begin(&mut read, &mut size)).await;
    let Ok(Some(asked)) = begun else { return };
    let out = Out { write, terminal: size.is_some() };
    let ended = match asked {
        Asked::Refused(why) => End(1, why),
        Asked::Console(words) => visit.answer(words, &mut read, size, &out).await,
    };
    let farewell = async {
        if !ended.1.is_empty() {
            out.aside(&ended.1).await?;
        }
        out.write.exit_status(ended.0).await?;
        out.write.eof().await?;
        out.write.close().await
    };
    // A client that takes nothing is closed by the server, sooner or later.
    let _best_effort = timeout(Duration::from_secs(2), farewell).await;
}

/// What the client asks for on its channel. None: it went.
async fn begin(read: &mut ChannelReadHalf, size: &mut Option<Size>) -> Option<Asked> {
    loop {
        match read.wait().await? {
            ChannelMsg::RequestPty { col_width, row_height, .. } => {
                *size = Some(Size::of(col_width, row_height));
            }
            ChannelMsg::WindowChange { col_width, row_height, .. } => {
                *size = size.map(|_| Size::of(col_width, row_height));
            }
            ChannelMsg::RequestShell { .. } => return Some(Asked::Console(Words::default())),
            ChannelMsg::Exec { command, .. } => {
                let words = Words::parse(&command);
                return Some(words.map_or_else(Asked::Refused, Asked::Console));
            }
            ChannelMsg::RequestSubsystem { name, .. } => {
                return Some(Asked::Refused(no_subsystem(&name)));
            }
            ChannelMsg::Close => return None,
            _ => {}
        }
    }
}

/// Where things are shown.
pub(super) struct Out {
    write: ChannelWriteHalf<Msg>,
    pub terminal: bool,
}

impl Out {
    /// What the machine said.
    async fn show(&self, bytes: Bytes) -> Result<(), russh::Error> {
        self.write.data_bytes(bytes).await
    }

    /// What is handed on, until nothing is any more, or the client is gone.
    pub async fn writes(&self, mut shown: mpsc::Receiver<Piece>) {
        while let Some(piece) = shown.recv().await {
            let done = match piece {
                Piece::Out(bytes) => self.write.data_bytes(bytes).await,
                Piece::Err(bytes) => self.write.extended_data_bytes(1, bytes).await,
            };
            if done.is_err() {
                return;
            }
        }
    }

    /// What we say: on standard error, with a line end of the terminal's.
    async fn aside(&self, text: &str) -> Result<(), russh::Error> {
        let mut lines = text.trim_end().replace('\n', if self.terminal { "\r\n" } else { "\n" });
        lines.push_str(if self.terminal { "\r\n" } else { "\n" });
        match self.terminal {
            // OpenSSH writes standard error past its terminal's buffer: it would come too early.
            true => self.write.data_bytes(lines).await,
            false => self.write.extended_data_bytes(1, lines).await,
        }
    }
}

impl Visit {
    async fn answer(
        self,
        words: Words,
        read: &mut ChannelReadHalf,
        size: Option<Size>,
        out: &Out,
    ) -> End {
        let reach = match self.consoles.reach(&self.key, &self.user) {
            Ok(reach) => reach,
            Err(NotReached::Refused(why)) => {
                let (name, from) = (&self.key.name, self.from);
                let user: String = self.user.chars().take(64).collect();
                let text = format!("{name} (SSH from {from}) is refused: {why}");
                tracing::info!(user, "{text}");
                return End(1, format!("koboshi: {why}"));
            }
            Err(NotReached::Unknown(why)) => {
                let (status, why) = match self.user.as_str() {
                    LIST => (0, String::new()),
                    _ => (1, format!("koboshi: {why}")),
                };
                let list = self.consoles.list(&self.key);
                let list = if out.terminal { list.replace('\n', "\r\n") } else { list };
                let shown = tokio::select! {
                    shown = out.show(list.into()) => shown,
                    () = closed(read) => return End(1, String::new()),
                };
                return End(if shown.is_ok() { status } else { 1 }, why);
            }
        };
        let name = reach.name.clone();
        self.consoles.note(
            Some(&name),
            format!(
                "{} {} by SSH from {}",
                self.key.name,
                if words.watch { "looks at its console" } else { "is at its console" },
                self.from
            ),
        );
        console::run(self, reach, &words, read, size, out).await
    }
}

/// Returns when the client closed the channel, or is gone.
async fn closed(read: &mut ChannelReadHalf) {
    while !matches!(read.wait().await, None | Some(ChannelMsg::Close)) {}
}
