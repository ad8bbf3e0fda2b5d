//! Somebody at a console: an SSH channel carries what [`crate::attach`] says, as a WebSocket does elsewhere.
//!
//! With a terminal (`ssh`, `ssh -t`) a machine's characters go through its filter, marks are lines among them, and
//! [`crate::escape`] gives orders. Without one (`ssh -T`) bytes are as they are, both ways, and marks go to standard
//! error.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::channel::mpsc as frames;
use futures::{SinkExt, StreamExt};
use russh::{ChannelMsg, ChannelReadHalf};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::screen::{Piece, Screen};
use super::server::Reach;
use super::session::{End, Out, Size, Visit};
use super::words::Words;
use crate::attach::{Comes, Do, Frame, Manner, May, Request, Terminal, Want, attach};
use crate::line::locked;
use crate::operator::Person;
use crate::state::clock;

/// With how many of its last lines a console begins.
const LAST: usize = 20;
/// Frames that wait for a line which takes nothing; then no more is read from the client.
const WAIT: usize = 64;
/// What was typed last, and what is shown last, have so long to arrive.
const FAREWELL: Duration = Duration::from_millis(500);

/// Whether he may type, as of the last look; otherwise why not.
type Rights = Arc<Mutex<Result<(), String>>>;

/// Until he leaves, the line is closed, or he may not be here any more.
pub(super) async fn run(
    visit: Visit,
    reach: Reach,
    words: &Words,
    read: &mut ChannelReadHalf,
    size: Option<Size>,
    out: &Out,
) -> End {
    let manner = Manner {
        escape: size.and(words.escape),
        take: words.take,
        watch: words.watch,
        filter: out.terminal,
    };
    let last = match (out.terminal, words.watch) {
        // A program that types wants what comes now.
        (false, false) => 0,
        _ => LAST,
    };
    let rights: Rights = Arc::new(Mutex::new(rights(&visit, &reach, words)));
    let may = rights.clone();
    let who = Comes {
        machine: reach.name.clone(),
        person: Person { name: visit.key.name.clone(), via: format!("ssh from {}", visit.from) },
        may: May::new(move || locked(&may).clone()),
        last: words.last.unwrap_or(last),
    };
    let (types, typed) = frames::channel(0);
    let (says, said) = frames::channel(0);
    let line = reach.line.clone();
    // It ends when `types` does.
    let attached = tokio::spawn(async move { attach(&line, who, typed, says).await });
    let (show, shown) = mpsc::channel(1);
    let (cancel, times) = (visit.cancel.clone(), visit.times);
    let mut seat = Seat {
        name: reach.name,
        words: words.clone(),
        visit,
        rights,
        terminal: Terminal::new(manner),
        screen: Screen::new(out.terminal),
        sends: VecDeque::new(),
        moved: Instant::now(),
        stuck: times.stuck,
        unheard: false,
    };
    let mut said = said;
    let mut types = types;
    let mut writes = std::pin::pin!(out.writes(shown));
    let end = tokio::select! {
        end = seat.talk(read, size, &mut types, &mut said, &show) => end,
        () = &mut writes => return End(1, String::new()),
        () = cancel.cancelled() => End(1, "\nkoboshi: the appliance ends".to_string()),
    };
    let last = async {
        for frame in seat.sends.drain(..) {
            types.send(frame).await?;
        }
        drop(types);
        // What it says meanwhile is seen no more.
        while said.next().await.is_some() {}
        Ok::<_, frames::SendError>(())
    };
    let _as_far_as_it_goes = timeout(FAREWELL, last).await;
    attached.abort();
    seat.screen.show(seat.terminal.farewell());
    let shown = async {
        while let Some(piece) = seat.screen.next() {
            if show.send(piece).await.is_err() {
                return;
            }
        }
        drop(show);
        std::future::pending().await
    };
    let _as_far_as_it_goes = timeout(FAREWELL, async {
        tokio::select! {
            () = shown => {}
            () = writes => {}
        }
    })
    .await;
    end
}

fn rights(visit: &Visit, reach: &Reach, words: &Words) -> Result<(), String> {
    if words.watch {
        return Err("you only look: come without `watch` to type".to_string());
    }
    match reach.types {
        true => Ok(()),
        false => Err(format!(
            "your key may not type here (line {} of the authorized keys)",
            visit.key.line
        )),
    }
}

struct Seat {
    visit: Visit,
    /// Of the machine.
    name: String,
    words: Words,
    rights: Rights,
    terminal: Terminal,
    screen: Screen,
    /// For the line.
    sends: VecDeque<Frame>,
    /// When it took something, or had nothing to take.
    moved: Instant,
    stuck: Duration,
    /// Something was said to him besides what happened to the line: of what he typed, some was not.
    unheard: bool,
}

impl Seat {
    async fn talk(
        &mut self,
        read: &mut ChannelReadHalf,
        size: Option<Size>,
        types: &mut frames::Sender<Frame>,
        said: &mut frames::Receiver<Frame>,
        show: &mpsc::Sender<Piece>,
    ) -> End {
        let closed = || End(1, "\nkoboshi: the console is closed".to_string());
        let mut does = Vec::new();
        // What he typed already comes behind it.
        let Some(hello) = said.next().await else { return closed() };
        self.terminal.came(hello, &mut does);
        if let Some(Size(columns, rows)) = size {
            self.terminal.resized(columns, rows, &mut does);
        }
        if let (Err(why), false) = (&*locked(&self.rights), self.words.watch) {
            does.push(Do::Note { at: None, text: why.clone() });
        }
        let mut looks = interval(self.visit.times.look);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        looks.reset();
        let mut doubts = 0;
        loop {
            if let Some(end) = self.all(&mut does) {
                return end;
            }
            if self.sends.is_empty() {
                self.moved = Instant::now();
            }
            let (room, sends) = (self.sends.len() < WAIT, !self.sends.is_empty());
            let (shows, reads) = (self.screen.waits(), !self.screen.waits());
            tokio::select! {
                message = read.wait(), if room => match message {
                    None | Some(ChannelMsg::Close) => return End(0, String::new()),
                    Some(message) => self.message(message, &mut does),
                },
                ready = std::future::poll_fn(|cx| types.poll_ready(cx)), if sends => {
                    let sent = self.sends.pop_front().map(|frame| types.start_send(frame));
                    if ready.is_err() || matches!(sent, Some(Err(_))) {
                        return closed();
                    }
                    self.moved = Instant::now();
                }
                frame = said.next(), if reads => match frame {
                    Some(frame) => {
                        self.terminal.came(frame, &mut does);
                        self.unheard |=
                            does.iter().any(|does| matches!(does, Do::Note { at: None, .. }));
                    }
                    None => return closed(),
                },
                permit = show.reserve(), if shows => match permit {
                    Ok(permit) => {
                        if let Some(piece) = self.screen.next() {
                            permit.send(piece);
                        }
                    }
                    Err(_) => return End(1, String::new()),
                },
                _ = looks.tick() => {
                    match self.still() {
                        Ok(()) => doubts = 0,
                        // A file that is just being written has no keys for a moment.
                        Err(_) if doubts == 0 => doubts = 1,
                        Err(why) => return End(1, format!("\nkoboshi: {why}")),
                    }
                    self.give_up(&mut does);
                }
            }
        }
    }

    fn message(&mut self, message: ChannelMsg, does: &mut Vec<Do>) {
        match message {
            ChannelMsg::Data { data } => {
                self.terminal.typed(&data, does);
                self.unheard |= does.iter().any(|does| matches!(does, Do::Note { .. }));
            }
            ChannelMsg::WindowChange { col_width, row_height, .. } if self.screen.terminal => {
                let Size(columns, rows) = Size::of(col_width, row_height);
                self.terminal.resized(columns, rows, does);
            }
            // `ssh -n` looks on; what was piped in is typed to its end.
            ChannelMsg::Eof if !self.words.watch => self.terminal.ends(does),
            _ => {}
        }
    }

    fn all(&mut self, does: &mut Vec<Do>) -> Option<End> {
        for one in does.drain(..) {
            match one {
                Do::Send(frame) => self.sends.push_back(frame),
                Do::Show(bytes) => self.screen.show(bytes),
                Do::Note { at, text } => self.screen.note(at, &text),
                Do::Say(text) => self.screen.say(&text),
                Do::Suspend => {
                    self.screen.note(None, "it is your ssh that can be stopped: Enter, ~ and ^Z");
                }
                Do::Leave if self.screen.terminal || !self.unheard => {
                    return Some(End(0, String::new()));
                }
                Do::Leave => return Some(End(1, String::new())),
            }
        }
        None
    }

    /// A line that takes nothing does not keep him from leaving.
    fn give_up(&mut self, does: &mut Vec<Do>) {
        if self.moved.elapsed() < self.stuck {
            return;
        }
        let characters = self.sends.drain(..).map(|frame| match frame {
            Frame::Characters(bytes) => Bytes::len(&bytes),
            Frame::Control(_) => 0,
        });
        let many: usize = characters.sum();
        let text = format!(
            "the line takes nothing: {many} characters were not typed (^Q lets it go on, if ^S stopped it)"
        );
        does.push(Do::Note { at: None, text });
        self.unheard = true;
    }

    /// Whether he still may be here, and type.
    fn still(&mut self) -> Result<(), String> {
        let keys = self.visit.authorized.keys();
        let key = self.visit.key.again(&keys, self.visit.from, clock());
        let key = key.map_err(|why| format!("your key lets you in no more: {why}"))?;
        let reach = self.visit.consoles.reach(key, &self.name).map_err(|why| why.to_string())?;
        self.visit.key = key.clone();
        let now = rights(&self.visit, &reach, &self.words);
        let before = std::mem::replace(&mut *locked(&self.rights), now.clone());
        if let (Ok(()), Err(why)) = (before, now) {
            self.screen.note(None, &why);
            self.sends.extend(Frame::control(&Request { n: None, want: Want::Release }));
        }
        Ok(())
    }
}
