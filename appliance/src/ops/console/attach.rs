//! `koboshi console WHO`: somebody at a line, by the API's socket. What his keys and the line's messages mean is
//! [`Terminal`]'s; here they are carried, and the connection is made again when the appliance comes back.

use std::collections::VecDeque;
use std::io::{self, IsTerminal};
use std::time::Duration;

use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use koboshi_console::attach::{Do, Frame, Manner, Terminal};
use tokio::sync::mpsc;
use tokio::time::sleep;
use tokio_tungstenite::tungstenite::Message;

use super::terminal::{Raw, Screen, Signals, Told, keys, size, stop};
use super::{Query, note};
use crate::api::{Client, ClientError, Socket};

/// Between two attempts to find the appliance again.
const AGAIN: Duration = Duration::from_millis(500);
/// An appliance that was just started may say for so long that it does not know the line yet.
const BEGINS: u32 = 20;
/// Messages that wait for a line which takes nothing. More is not typed, and that is said.
const WAIT: usize = 64;

/// How he comes, as he typed it.
#[derive(Debug, Clone, Copy)]
pub struct Asked {
    /// He takes the line, whoever has it.
    pub take: bool,
    /// What begins an escape.
    pub escape: Option<u8>,
}

/// Why it ended.
enum End {
    Left,
    /// By a signal of this number.
    Told(i32),
    /// The connection is gone.
    Gone,
}

/// Sees to it until he leaves; the exit code.
///
/// # Errors
/// There is no such line, or no appliance when it begins.
pub async fn run(client: &Client, query: Query, asked: Asked) -> anyhow::Result<u8> {
    let keyboard = io::stdin().is_terminal();
    let manner = Manner {
        escape: asked.escape.filter(|_| keyboard),
        take: asked.take,
        watch: false,
        filter: io::stdout().is_terminal(),
    };
    // What is refused is said on a terminal that is as it was.
    let socket = connect(client, &query).await?;
    let signals = Signals::new()?;
    let mut seat = Seat {
        raw: Raw::enter()?,
        terminal: Terminal::new(manner),
        keys: keys(),
        keyboard,
        typing: true,
        screen: Screen::new(),
        signals,
        sends: VecDeque::new(),
        stuck: false,
    };
    let mut end = seat.talk(socket).await;
    let query = Query { last: 0, ..query };
    while let Ok(End::Gone) = end {
        end = match seat.wait(client, &query).await {
            Ok(Ok(socket)) => seat.talk(socket).await,
            Ok(Err(end)) => Ok(end),
            Err(why) => Err(why),
        };
    }
    let Seat { raw, terminal, mut screen, .. } = seat;
    screen.show(terminal.farewell());
    if raw.is_some() {
        screen.note("[left; the line stays on]");
    }
    let shown = screen.close().await;
    drop(raw);
    Ok(match end? {
        End::Told(signal) => u8::try_from(128 + signal).unwrap_or(255),
        End::Left | End::Gone => {
            shown?;
            0
        }
    })
}

async fn connect(client: &Client, query: &Query) -> Result<Socket, ClientError> {
    client.socket("/console/attach", query).await
}

struct Seat {
    raw: Option<Raw>,
    terminal: Terminal,
    keys: mpsc::Receiver<Vec<u8>>,
    /// Standard input is a terminal.
    keyboard: bool,
    /// It has not ended.
    typing: bool,
    screen: Screen,
    signals: Signals,
    sends: VecDeque<Frame>,
    /// He was told that the line takes nothing.
    stuck: bool,
}

/// What happened on this side.
enum Here {
    Keys(Option<Vec<u8>>),
    Told(Told),
    Shown(bool),
}

impl Seat {
    /// Until he leaves, or the connection ends.
    async fn talk(&mut self, socket: Socket) -> anyhow::Result<End> {
        let (to, from) = socket.split();
        let (give, given) = mpsc::channel(WAIT);
        let sender = tokio::spawn(carry(given, to));
        let end = self.messages(from, give).await;
        if matches!(end, Ok(End::Gone)) {
            sender.abort();
        } else {
            // What was typed last is still on its way.
            let _as_far_as_it_goes = tokio::time::timeout(AGAIN, sender).await;
        }
        self.terminal.gone();
        self.sends.clear();
        end
    }

    async fn messages(
        &mut self,
        mut from: SplitStream<Socket>,
        to: mpsc::Sender<Frame>,
    ) -> anyhow::Result<End> {
        loop {
            let (reads, sends) = (!self.screen.waits(), !self.sends.is_empty());
            let mut out = Vec::new();
            tokio::select! {
                here = self.here() => {
                    if let Some(end) = self.does(here, &mut out)? {
                        return Ok(end);
                    }
                }
                permit = to.reserve(), if sends => match (permit, self.sends.pop_front()) {
                    (Ok(permit), Some(frame)) => permit.send(frame),
                    _ => return Ok(End::Gone),
                },
                message = from.next(), if reads => match message {
                    Some(Ok(Message::Binary(bytes))) => {
                        self.terminal.came(Frame::Characters(bytes), &mut out);
                    }
                    Some(Ok(Message::Text(text))) => {
                        self.terminal.came(Frame::Control(text.to_string()), &mut out);
                    }
                    Some(Ok(Message::Close(_)) | Err(_)) | None => return Ok(End::Gone),
                    Some(Ok(_)) => {}
                },
            }
            if let Some(end) = self.all(out)? {
                while let Some(frame) = self.sends.pop_front() {
                    let _the_line_may_take_nothing = to.try_send(frame);
                }
                return Ok(end);
            }
        }
    }

    /// Until the appliance is there again.
    async fn wait(
        &mut self,
        client: &Client,
        query: &Query,
    ) -> anyhow::Result<Result<Socket, End>> {
        self.note("the appliance is gone, or the line is another now: it is waited for");
        let mut refused = 0;
        loop {
            let attempt = async {
                sleep(AGAIN).await;
                connect(client, query).await
            };
            tokio::pin!(attempt);
            let answer = loop {
                let here = tokio::select! {
                    answer = &mut attempt => break answer,
                    here = self.here() => here,
                };
                let mut out = Vec::new();
                let end = self.does(here, &mut out)?;
                if let Some(end) = end.or(self.all(out)?) {
                    return Ok(Err(end));
                }
            };
            match answer {
                Ok(socket) => return Ok(Ok(socket)),
                Err(ClientError::Refused(why)) if refused < BEGINS && why.status == 409 => {
                    refused += 1
                }
                Err(ClientError::Refused(why)) => return Err(ClientError::Refused(why).into()),
                Err(_) => {}
            }
        }
    }

    /// What happens here next. May be given up.
    async fn here(&mut self) -> Here {
        // A person may leave at any time; a file waits until it can be typed.
        let takes = self.terminal.is_here() && self.sends.len() < WAIT;
        let hears = self.typing && (self.keyboard || takes);
        let waits = self.screen.waits();
        tokio::select! {
            told = self.signals.next() => Here::Told(told),
            keys = self.keys.recv(), if hears => Here::Keys(keys),
            shown = self.screen.moves(), if waits => Here::Shown(shown),
        }
    }

    fn does(&mut self, here: Here, out: &mut Vec<Do>) -> anyhow::Result<Option<End>> {
        match here {
            Here::Keys(Some(keys)) => self.terminal.typed(&keys, out),
            // The terminal is gone, or the file has ended.
            Here::Keys(None) => {
                self.typing = false;
                self.terminal.ends(out);
            }
            Here::Told(Told::End(signal)) => return Ok(Some(End::Told(signal))),
            Here::Told(Told::Stop) => self.suspend()?,
            Here::Told(Told::Size) => {
                if let Some((columns, rows)) = size() {
                    self.terminal.resized(columns, rows, out);
                }
            }
            Here::Shown(true) => {}
            Here::Shown(false) => return Ok(Some(End::Left)),
        }
        Ok(None)
    }

    fn all(&mut self, out: Vec<Do>) -> anyhow::Result<Option<End>> {
        for what in out {
            match what {
                Do::Send(frame) if self.sends.len() < WAIT || !self.keyboard => {
                    self.stuck = false;
                    self.sends.push_back(frame);
                }
                Do::Send(_) => {
                    if !std::mem::replace(&mut self.stuck, true) {
                        self.note("the line takes nothing now: what is typed is lost");
                    }
                }
                Do::Show(bytes) => self.screen.show(bytes),
                Do::Note { at: Some(at), text } => self.screen.note(&note(at, &text)),
                Do::Note { at: None, text } => self.note(&text),
                Do::Say(text) => self.screen.say(&text),
                Do::Leave => return Ok(Some(End::Left)),
                Do::Suspend => self.suspend()?,
            }
        }
        Ok(None)
    }

    fn note(&mut self, text: &str) {
        self.screen.note(&note(crate::ledger::now_ms(), text));
    }

    /// Stops, with the terminal as it was before; returns when it is continued.
    fn suspend(&mut self) -> io::Result<()> {
        let was = self.raw.take().is_some();
        stop();
        if was {
            self.raw = Raw::enter()?;
        }
        self.note("here again");
        Ok(())
    }
}

async fn carry(mut given: mpsc::Receiver<Frame>, mut to: SplitSink<Socket, Message>) {
    while let Some(frame) = given.recv().await {
        let message = match frame {
            Frame::Characters(bytes) => Message::Binary(bytes),
            Frame::Control(text) => Message::Text(text.into()),
        };
        if to.send(message).await.is_err() {
            return;
        }
    }
    let _he_may_be_gone = to.close().await;
}
