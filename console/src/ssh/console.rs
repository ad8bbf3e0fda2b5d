//! Somebody at a console.
//!
//! With a terminal (`ssh`, `ssh -t`) a machine's characters go through the filter of [`crate::attach`], marks are
//! lines among them, and [`crate::escape`] gives orders. Without one (`ssh -T`) bytes are as they are, both ways, and
//! marks go to standard error.

use std::time::{Duration, Instant};

use russh::{ChannelMsg, ChannelReadHalf};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::server::Reach;
use super::session::{End, Out, Size, Visit};
use super::words::Words;
use crate::attach::Filter;
use crate::escape::{self, Escapes};
use crate::operator::{NotTyped, Person, Visitor};
use crate::scrollback::{Piece, What};
use crate::state::clock;
use crate::viewer::Viewer;
use crate::wire::{Cannot, Operation};

/// Who types in vain is told so no more often.
const TOLD: Duration = Duration::from_secs(3);
/// What is to be shown waits for the client, so many pieces of it.
const SHOWN: usize = 16;
/// With how many of its last lines a console begins.
const LAST: usize = 20;

/// What is to be shown besides what the machine says.
enum Shown {
    /// Ours, a line or several.
    Say(String),
    /// As it is: an echo.
    Raw(Vec<u8>),
    Redraw,
}

/// Somebody at a console.
pub(super) struct Console {
    visit: Visit,
    name: String,
    line: crate::line::Handle,
    visitor: Visitor,
    words: Words,
    /// Whether he may type, by his key, at the last look.
    types: bool,
    size: Option<Size>,
}

impl Console {
    pub fn new(visit: Visit, reach: Reach, words: Words, size: Option<Size>) -> Console {
        let Reach { name, line, types } = reach;
        let via = format!("ssh from {}", visit.from);
        let visitor = line.enter(Person { name: visit.key.name.clone(), via }, types);
        Console { visit, name, line, visitor, words, types, size }
    }

    pub async fn run(mut self, read: &mut ChannelReadHalf, out: &Out) -> End {
        let last = self.words.last.unwrap_or(match (out.terminal, self.words.watch) {
            // A program that types wants what comes now.
            (false, false) => 0,
            _ => LAST,
        });
        let viewer = self.line.view(last);
        let (say, said) = mpsc::channel(SHOWN);
        let (floor, number) = (self.visitor.floor(), self.visitor.number());
        let holds =
            move || floor.borrow().holder.as_ref().is_some_and(|holder| holder.visit == number);
        let cancel = self.visit.cancel.clone();
        let mut filter = Filter::new();
        let end = tokio::select! {
            end = show(out, viewer, said, holds, &mut filter) => end,
            end = self.listen(read, say) => end,
            () = cancel.cancelled() => End(1, "\nkoboshi: the appliance ends".to_string()),
        };
        if out.terminal {
            let shown = out.show(filter.farewell().into());
            let _best_effort = timeout(Duration::from_secs(1), shown).await;
        }
        end
    }

    /// What the client types and asks, until it leaves.
    async fn listen(&mut self, read: &mut ChannelReadHalf, say: mpsc::Sender<Shown>) -> End {
        let mut escapes = Escapes::new(self.size.and(self.words.escape));
        let mut told: Option<Instant> = None;
        let mut doubts = 0;
        let mut looks = interval(self.visit.times.look);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        looks.reset();
        if let Some(greeting) = self.begin() {
            let _it_is_shown_or_over = say.send(Shown::Say(greeting)).await;
        }
        loop {
            let message = tokio::select! {
                message = read.wait() => message,
                () = self.visitor.idleness() => continue,
                _ = looks.tick() => {
                    match self.still() {
                        Ok(None) => doubts = 0,
                        Ok(Some(text)) => {
                            doubts = 0;
                            let _it_is_shown_or_over = say.send(Shown::Say(text)).await;
                        }
                        // A file that is just being written has no keys for a moment.
                        Err(_) if doubts == 0 => doubts = 1,
                        Err(why) => return End(1, format!("\nkoboshi: {why}")),
                    }
                    continue;
                }
            };
            match message {
                None | Some(ChannelMsg::Close) => return End(0, String::new()),
                // `ssh -n`, or the end of what was piped in: he goes on looking.
                Some(ChannelMsg::Eof) => self.visitor.release(),
                Some(ChannelMsg::WindowChange { col_width, row_height, .. }) => {
                    self.size = self.size.map(|_| Size(col_width, row_height));
                }
                Some(ChannelMsg::Data { data }) => {
                    let mut keys = Vec::new();
                    escapes.typed(&data, &mut keys);
                    for key in keys {
                        let shown = match key {
                            escape::Key::Leave => return End(0, String::new()),
                            escape::Key::Type(bytes) => {
                                let again = told.is_none_or(|told| told.elapsed() >= TOLD);
                                match self.type_in(&bytes).await {
                                    Err(why) if again => {
                                        told = Some(Instant::now());
                                        Some(Shown::Say(why))
                                    }
                                    _ => None,
                                }
                            }
                            key => self.order(key).await,
                        };
                        if let Some(shown) = shown
                            && say.send(shown).await.is_err()
                        {
                            return End(1, String::new());
                        }
                    }
                }
                Some(_) => {}
            }
        }
    }

    /// Asks for the line or takes it, as he wants; what he is told in the beginning.
    fn begin(&mut self) -> Option<String> {
        let may = match (self.words.watch, self.types) {
            (true, _) => "You look at it.".to_string(),
            (false, false) => format!("You look at it: {}.", self.no_typing()),
            (false, true) if self.words.take => {
                self.visitor.take();
                "You have the line.".to_string()
            }
            (false, true) => match self.visitor.ask() {
                Ok(()) => "You have the line.".to_string(),
                Err(holder) => format!(
                    "{} has the line; it is yours when it is free or idle{}.",
                    holder.person,
                    match (self.size, self.words.escape) {
                        (Some(_), Some(escape)) => {
                            format!(", {}t takes it at once", escape::shown(escape))
                        }
                        _ => ", `ssh … take` takes it at once".to_string(),
                    }
                ),
            },
        };
        let Some(escape) = self.words.escape.filter(|_| self.size.is_some()) else {
            // Programs read this: nothing but what they have to know.
            return (!self.visitor.holds() && !self.words.watch).then_some(may);
        };
        let key = escape::shown(escape);
        Some(format!(
            "Console of {}. {may} Enter, {key} and ? for help, {key} and . to leave.",
            self.name
        ))
    }

    fn no_typing(&self) -> String {
        format!("your key may not type here (line {} of the authorized keys)", self.visit.key.line)
    }

    async fn type_in(&self, bytes: &[u8]) -> Result<(), String> {
        for (at, chunk) in bytes.chunks(256).enumerate() {
            match timeout(self.visit.times.stuck, self.visitor.send(chunk)).await {
                Ok(Ok(())) => {}
                Ok(Err(why)) => return Err(self.not_typed(&why)),
                Err(_) => {
                    let many = bytes.len() - at * 256;
                    return Err(format!(
                        "the line takes nothing: {many} characters were not typed (flow control? ^Q goes on)"
                    ));
                }
            }
        }
        Ok(())
    }

    fn not_typed(&self, why: &NotTyped) -> String {
        match why {
            _ if self.words.watch => "you only look: come without `watch` to type".to_string(),
            _ if !self.types => self.no_typing(),
            why => why.to_string(),
        }
    }

    async fn operate(&self, operation: Operation, done: &str) -> String {
        match timeout(self.visit.times.stuck, self.visitor.operate(operation)).await {
            Ok(Ok(())) => done.to_string(),
            Ok(Err(why)) => self.not_typed(&why),
            Err(_) => self.not_typed(&NotTyped::Cannot(Cannot::Down)),
        }
    }

    /// Something else than typing.
    async fn order(&mut self, key: escape::Key) -> Option<Shown> {
        use escape::Key;
        let may = self.types && !self.words.watch;
        let say = match key {
            Key::Type(_) | Key::Leave => return None,
            Key::Help => {
                let mut help =
                    escape::help(self.words.escape.unwrap_or(escape::TILDE)).replace('\r', "");
                if let Some(Size(columns, rows)) = self.size.filter(|size| size.0 > 0 && size.1 > 0)
                {
                    help.push_str(&format!(
                        "Your terminal has {rows} rows and {columns} columns: stty rows {rows} cols {columns} tells the machine.\n"
                    ));
                }
                help
            }
            Key::SysrqMenu => escape::SYSRQ.replace('\r', ""),
            Key::Break => self.operate(Operation::Break, "BREAK is sent").await,
            Key::Sysrq(key) => self.sysrq(key).await,
            Key::Take if may => {
                self.visitor.take();
                return None;
            }
            Key::Ask if may => match self.visitor.ask() {
                Ok(()) => return None,
                Err(holder) => {
                    format!("{} has it; it is yours when it is free or idle", holder.person)
                }
            },
            Key::Take | Key::Ask => self.not_typed(&NotTyped::Gone),
            Key::Release => {
                self.visitor.release();
                return None;
            }
            Key::Who => self.who(),
            Key::Redraw => return Some(Shown::Redraw),
            Key::Suspend => "it is your ssh that can be stopped: Enter, ~ and ^Z".to_string(),
            Key::Name => return Some(Shown::Raw(b"\r\nTo whom? ".to_vec())),
            Key::Echo(bytes) => return Some(Shown::Raw(bytes)),
            Key::HandOver(name) if name.is_empty() => "it stays as it is".to_string(),
            Key::HandOver(name) => match self.visitor.hand_over(&name) {
                Ok(()) => return None,
                Err(why) => why.to_string(),
            },
        };
        Some(Shown::Say(say))
    }

    async fn sysrq(&self, key: u8) -> String {
        let sent = self.operate(Operation::Break, "").await;
        if !sent.is_empty() {
            return sent;
        }
        match self.type_in(&[key]).await {
            Ok(()) => format!("SysRq {} is sent", char::from(key).escape_debug()),
            Err(why) => why,
        }
    }

    fn who(&self) -> String {
        let floor = self.visitor.floor().borrow().clone();
        let holder = floor.holder.map_or("nobody has the line".to_string(), |holder| {
            format!("{} has the line", holder.person)
        });
        let people: Vec<String> = self.visitor.people().iter().map(ToString::to_string).collect();
        format!("{holder}; here are {}", people.join(", "))
    }

    /// Whether he still may be here.
    fn still(&mut self) -> Result<Option<String>, String> {
        let keys = self.visit.authorized.keys();
        let key = self.visit.key.again(&keys, self.visit.from, clock());
        let key = key.map_err(|why| format!("your key lets you in no more: {why}"))?;
        let reach = self.visit.consoles.reach(key, &self.name).map_err(|why| why.to_string())?;
        self.visit.key = key.clone();
        let before = std::mem::replace(&mut self.types, reach.types);
        if before && !self.types && self.visitor.holds() {
            self.visitor.release();
            return Ok(Some(self.no_typing()));
        }
        Ok(None)
    }
}

/// Shows what the machine says and what we say, in order, until the line is closed.
async fn show(
    out: &Out,
    mut viewer: Viewer,
    mut said: mpsc::Receiver<Shown>,
    holds: impl Fn() -> bool,
    filter: &mut Filter,
) -> End {
    // Whether the cursor is within a line.
    let mut within = false;
    loop {
        let shown = tokio::select! {
            biased;
            shown = said.recv() => shown,
            piece = viewer.next() => match piece {
                Some(Piece { what: What::Text(text), .. }) => {
                    within = text.last() != Some(&b'\n');
                    let text = match out.terminal {
                        true => {
                            let mut passed = Vec::with_capacity(text.len());
                            filter.answers(holds());
                            filter.pass(&text, &mut passed);
                            passed.into()
                        }
                        false => text,
                    };
                    if out.show(text).await.is_err() {
                        return End(1, String::new());
                    }
                    continue;
                }
                Some(Piece { what: What::Mark(mark), .. }) => Some(Shown::Say(mark.to_string())),
                None => return End(1, "\nkoboshi: the console is closed".to_string()),
            },
        };
        let done = match shown {
            None => return End(0, String::new()),
            Some(Shown::Say(text)) => {
                let text: String = text
                    .chars()
                    .map(|c| if c.is_control() && c != '\n' { '·' } else { c })
                    .collect();
                let begin = if out.terminal && within { "\n" } else { "" };
                within = false;
                out.aside(&format!("{begin}[{}]", text.trim_end())).await
            }
            Some(Shown::Raw(bytes)) if out.terminal => out.show(bytes.into()).await,
            Some(Shown::Raw(_)) => Ok(()),
            Some(Shown::Redraw) => Ok(()),
        };
        if done.is_err() {
            return End(1, String::new());
        }
    }
}
