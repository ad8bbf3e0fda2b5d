//! A person's terminal at a line: keys become characters and requests, frames become what he sees. Without a terminal
//! and without a line, for the command line as for any other way that has a terminal at its end.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::filter::Filter;
use super::message::{Frame, Notice, Request, Want};
use crate::escape::{self, Escapes, Key};
use crate::operator::{Floor, Holder};
use crate::state::State;

/// Answers that are waited for; of more, nothing is said.
const ANSWERS: usize = 64;

/// How somebody comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Manner {
    /// What begins an escape, if anything does.
    pub escape: Option<u8>,
    /// He takes the line from whoever has it.
    pub take: bool,
    /// He looks, and types only when he asks for the line himself.
    pub watch: bool,
    /// A terminal shows it: what acts on terminals is left out. Otherwise all bytes are handed on as they are.
    pub filter: bool,
}

/// What is to be done for him.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Do {
    /// To the line.
    Send(Frame),
    /// To his terminal: the machine's own.
    Show(Vec<u8>),
    /// To his terminal, in a line of its own: something about the line. It may hold a stranger's words.
    Note {
        /// When, where it is not now: Unix milliseconds.
        at: Option<u64>,
        /// What.
        text: String,
    },
    /// To his terminal, where the cursor is, or on lines of its own: koboshi's own words, lines end with CR LF.
    Say(String),
    /// He leaves.
    Leave,
    /// He stops the program.
    Suspend,
}

/// See the module.
#[derive(Debug)]
pub struct Terminal {
    manner: Manner,
    escapes: Escapes,
    filter: Filter,
    /// While he is at the line.
    here: Option<Here>,
    /// What is said when a request is done, by its number.
    waits: BTreeMap<u64, &'static str>,
    requests: u64,
    /// He was told why nothing is typed.
    told: bool,
    /// When this request is answered he leaves.
    last: Option<u64>,
    /// Columns and rows of his screen.
    size: Option<(u16, u16)>,
}

#[derive(Debug)]
struct Here {
    visit: u64,
    types: bool,
    floor: Floor,
    /// By this request he asked, and the answer is not here yet: what he types goes behind it.
    asked: Option<u64>,
}

impl Terminal {
    /// Nobody is connected yet.
    pub fn new(manner: Manner) -> Terminal {
        Terminal {
            manner,
            escapes: Escapes::new(manner.escape),
            filter: Filter::new(),
            here: None,
            waits: BTreeMap::new(),
            requests: 0,
            told: false,
            last: None,
            size: None,
        }
    }

    /// Whether he is at the line: then what he types goes somewhere.
    pub fn is_here(&self) -> bool {
        self.here.is_some()
    }

    /// Whether he has the line.
    pub fn holds(&self) -> bool {
        self.holder().is_some_and(|(here, holder)| here.visit == holder.visit)
    }

    /// The connection is gone: what he types goes nowhere until the next [`Notice::Hello`].
    pub fn gone(&mut self) {
        self.here = None;
        self.waits.clear();
        self.told = false;
        self.filter.answers(false);
    }

    /// What brings his terminal back, see [`Filter::farewell`]. Empty where none was changed.
    pub fn farewell(&self) -> Vec<u8> {
        if self.manner.filter { self.filter.farewell() } else { Vec::new() }
    }

    /// Nothing more is typed: he leaves once the line took what was.
    pub fn ends(&mut self, out: &mut Vec<Do>) {
        match self.here {
            Some(_) => {
                self.wants(Want::Release, "", out);
                self.last = Some(self.requests);
            }
            None => out.push(Do::Leave),
        }
    }

    /// His screen has another size.
    pub fn resized(&mut self, columns: u16, rows: u16, out: &mut Vec<Do>) {
        self.size = Some((columns, rows)).filter(|_| columns > 0 && rows > 0);
        if self.here.is_some() {
            self.wants(Want::Resize { columns, rows }, "", out);
        }
    }

    /// He typed this.
    pub fn typed(&mut self, bytes: &[u8], out: &mut Vec<Do>) {
        let mut keys = Vec::new();
        self.escapes.typed(bytes, &mut keys);
        for key in keys {
            self.key(key, out);
        }
    }

    fn key(&mut self, key: Key, out: &mut Vec<Do>) {
        match key {
            Key::Type(bytes) => self.characters(bytes, out),
            Key::Leave => out.push(Do::Leave),
            Key::Suspend => out.push(Do::Suspend),
            Key::Help => {
                let Some(escape) = self.manner.escape else { return };
                let mut help = escape::help(escape);
                if let Some((columns, rows)) = self.size {
                    // A serial line has no way to say it.
                    help.push_str(&format!(
                        "On the machine, `stty rows {rows} cols {columns}` tells it the size of this screen.\r\n"
                    ));
                }
                out.push(Do::Say(help));
            }
            Key::SysrqMenu => out.push(Do::Say(escape::SYSRQ.to_string())),
            Key::Name => out.push(Do::Say("hand the line over to: ".to_string())),
            Key::Echo(bytes) => out.push(Do::Say(String::from_utf8_lossy(&bytes).into_owned())),
            Key::HandOver(to) if to.is_empty() => out.push(Do::Say(" nobody\r\n".to_string())),
            Key::HandOver(to) => {
                out.push(Do::Say("\r\n".to_string()));
                self.wants(Want::HandOver { to }, "", out);
            }
            Key::Break => self.wants(Want::Break, "BREAK is sent", out),
            Key::Sysrq(key) => {
                let key = char::from(key);
                self.wants(Want::Sysrq { key }, "SysRq is sent: BREAK and its key", out);
            }
            Key::Take => self.asks(Want::Take, out),
            Key::Ask => self.asks(Want::Ask, out),
            Key::Release => self.wants(Want::Release, "", out),
            Key::Who => self.wants(Want::Who, "", out),
            Key::Redraw => self.wants(Want::Tail { lines: 24 }, "", out),
            Key::Screen => self.wants(Want::Screen, "", out),
        }
    }

    fn characters(&mut self, bytes: Vec<u8>, out: &mut Vec<Do>) {
        let Some(here) = &mut self.here else { return };
        let why = match &here.floor.holder {
            Some(holder) if holder.visit == here.visit => None,
            _ if here.asked.is_some() => None,
            _ if !here.types => Some("you may watch this line, and not type".to_string()),
            None if self.manner.watch => Some("you only watch".to_string()),
            None => {
                self.asks(Want::Ask, out);
                None
            }
            Some(holder) => Some(format!("{} has the line", holder.person)),
        };
        let Some(why) = why else {
            self.told = false;
            out.push(Do::Send(Frame::Characters(Bytes::from(bytes))));
            return;
        };
        if !std::mem::replace(&mut self.told, true) {
            let may = self.here.as_ref().is_some_and(|here| here.types);
            let text = match self.manner.escape.filter(|_| may) {
                Some(escape) => format!("{why}: {}", ways(escape)),
                None => why,
            };
            out.push(Do::Note { at: None, text });
        }
    }

    /// For the line.
    fn asks(&mut self, want: Want, out: &mut Vec<Do>) {
        self.wants(want, "", out);
        if let Some(here) = &mut self.here {
            here.asked = Some(self.requests);
        }
    }

    fn wants(&mut self, want: Want, done: &'static str, out: &mut Vec<Do>) {
        if self.here.is_none() {
            let text = "there is no connection now".to_string();
            return out.push(Do::Note { at: None, text });
        }
        self.requests += 1;
        if self.waits.len() < ANSWERS {
            self.waits.insert(self.requests, done);
        }
        let request = Request { n: Some(self.requests), want };
        out.extend(Frame::control(&request).map(Do::Send));
    }

    /// The line, or its appliance, says this.
    pub fn came(&mut self, frame: Frame, out: &mut Vec<Do>) {
        match frame {
            Frame::Characters(bytes) if self.manner.filter => {
                let mut shown = Vec::new();
                self.filter.pass(&bytes, &mut shown);
                out.push(Do::Show(shown));
            }
            Frame::Characters(bytes) => out.push(Do::Show(bytes.into())),
            // A notice that a newer appliance has is none for us.
            Frame::Control(text) => {
                if let Ok(notice) = serde_json::from_str(&text) {
                    self.notice(notice, out);
                }
            }
        }
    }

    fn notice(&mut self, notice: Notice, out: &mut Vec<Do>) {
        let note = |text: String| Do::Note { at: None, text };
        match notice {
            Notice::Hello { machine, line, visit, types, floor, .. } => {
                let mut text = format!("{machine}'s console {}", state(&line));
                if let Some(holder) = &floor.holder {
                    text.push_str(&format!("; {} has the line", holder.person));
                }
                if !types {
                    text.push_str("; you may watch, and not type");
                }
                if let Some(escape) = self.manner.escape {
                    text.push_str(&format!("; {0}? helps, {0}. leaves", shown(escape)));
                }
                out.push(note(text));
                let free = floor.holder.is_none();
                self.here = Some(Here { visit, types, floor, asked: None });
                if types && self.manner.take {
                    self.asks(Want::Take, out);
                } else if types && free && !self.manner.watch {
                    self.asks(Want::Ask, out);
                }
            }
            Notice::Floor(floor) => {
                if let Some(here) = &mut self.here {
                    self.told &= here.floor == floor;
                    here.floor = floor;
                }
                let holds = self.holds();
                self.filter.answers(holds);
            }
            Notice::Mark { at, mark } => {
                out.push(Do::Note { at: Some(at), text: mark.to_string() });
            }
            // A mark says so too.
            Notice::Line { .. } => {}
            Notice::Done { n } => {
                out.extend(n.filter(|_| n == self.last).map(|_| Do::Leave));
                self.answered(n);
                let done = n.and_then(|n| self.waits.remove(&n)).filter(|done| !done.is_empty());
                out.extend(done.map(|done| note(done.to_string())));
            }
            Notice::Refused { n, why } => {
                n.and_then(|n| self.waits.remove(&n));
                self.answered(n);
                out.push(note(why));
            }
            Notice::People { n, people } => {
                n.and_then(|n| self.waits.remove(&n));
                let people: Vec<String> = people.iter().map(ToString::to_string).collect();
                out.push(note(format!("here: {}", people.join(", "))));
            }
            Notice::Bye { why } => out.push(note(why)),
        }
    }

    fn answered(&mut self, n: Option<u64>) {
        if let Some(here) = self.here.as_mut().filter(|here| here.asked == n) {
            here.asked = None;
        }
    }

    fn holder(&self) -> Option<(&Here, &Holder)> {
        let here = self.here.as_ref()?;
        Some((here, here.floor.holder.as_ref()?))
    }
}

fn ways(escape: u8) -> String {
    format!("{0}a asks for it, {0}t takes it", shown(escape))
}

fn shown(escape: u8) -> String {
    escape::shown(escape)
}

fn state(state: &State) -> String {
    match state {
        State::Opening => "is being opened".to_string(),
        State::Up { .. } => "is up".to_string(),
        State::Down { why, .. } => format!("is down ({why}); it is tried until it is up"),
        State::Stolen { by: Some(by), .. } => format!("is taken by {by}"),
        State::Stolen { by: None, .. } => "is taken by another".to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attach::message::PROTOCOL;
    use crate::operator::Person;

    const MANNER: Manner =
        Manner { escape: Some(escape::TILDE), take: false, watch: false, filter: true };

    fn holder(name: &str, visit: u64) -> Holder {
        let person = Person { name: name.to_string(), via: "cli".to_string() };
        Holder { person, since: 1, visit }
    }

    fn floor(holder: Option<Holder>) -> Floor {
        Floor { holder, asking: Vec::new() }
    }

    fn hello(holder: Option<Holder>, types: bool) -> Notice {
        Notice::Hello {
            protocol: PROTOCOL,
            machine: "m01".to_string(),
            line: State::Up { since: 1 },
            visit: 7,
            types,
            floor: floor(holder),
        }
    }

    fn came(terminal: &mut Terminal, notice: &Notice) -> Vec<Do> {
        let mut out = Vec::new();
        terminal.came(Frame::control(notice).unwrap(), &mut out);
        out
    }

    fn typed(terminal: &mut Terminal, bytes: &[u8]) -> Vec<Do> {
        let mut out = Vec::new();
        terminal.typed(bytes, &mut out);
        out
    }

    fn sends(bytes: &'static [u8]) -> Do {
        Do::Send(Frame::Characters(Bytes::from_static(bytes)))
    }

    fn wants(n: u64, want: &str) -> Do {
        Do::Send(Frame::Control(format!(r#"{{"n":{n},"want":"{want}"}}"#)))
    }

    fn note(text: &str) -> Do {
        Do::Note { at: None, text: text.to_string() }
    }

    #[test]
    fn a_free_line_is_asked_for_and_typed_at() {
        let mut terminal = Terminal::new(MANNER);
        assert_eq!(typed(&mut terminal, b"too early"), []);
        let said = note("m01's console is up; ~? helps, ~. leaves");
        assert_eq!(came(&mut terminal, &hello(None, true)), [said, wants(1, "ask")]);
        assert_eq!(typed(&mut terminal, b"l"), [sends(b"l")], "behind what was asked");
        came(&mut terminal, &Notice::Floor(floor(Some(holder("me", 7)))));
        came(&mut terminal, &Notice::Done { n: Some(1) });
        assert!(terminal.holds());
        assert_eq!(typed(&mut terminal, b"ls\r"), [sends(b"ls\r")]);
        assert_eq!(typed(&mut terminal, b"~B"), [wants(2, "break")]);
        assert_eq!(came(&mut terminal, &Notice::Done { n: Some(2) }), [note("BREAK is sent")]);
        // Let go of, it is asked for again by typing.
        assert_eq!(typed(&mut terminal, b"~r"), [wants(3, "release")]);
        came(&mut terminal, &Notice::Floor(floor(None)));
        assert_eq!(typed(&mut terminal, b"x"), [wants(4, "ask"), sends(b"x")]);
        assert_eq!(typed(&mut terminal, b"y"), [sends(b"y")]);
        assert_eq!(typed(&mut terminal, b"\r~."), [sends(b"\r"), Do::Leave]);
        // A file that ends is typed to its end.
        let mut out = Vec::new();
        terminal.ends(&mut out);
        assert_eq!(out, [wants(5, "release")]);
        assert_eq!(came(&mut terminal, &Notice::Done { n: Some(5) }), [Do::Leave]);
        terminal.gone();
        assert_eq!(typed(&mut terminal, b"z"), []);
        assert_eq!(typed(&mut terminal, b"\r~."), [Do::Leave]);
    }

    #[test]
    fn who_has_it_is_told_once_and_may_be_asked() {
        let mut terminal = Terminal::new(MANNER);
        let said = came(&mut terminal, &hello(Some(holder("alice", 3)), true));
        assert_eq!(
            said,
            [note("m01's console is up; alice (cli) has the line; ~? helps, ~. leaves")]
        );
        let held = note("alice (cli) has the line: ~a asks for it, ~t takes it");
        assert_eq!(typed(&mut terminal, b"l"), std::slice::from_ref(&held));
        assert_eq!(typed(&mut terminal, b"s\r"), []);
        assert_eq!(typed(&mut terminal, b"~t"), [wants(1, "take")]);
        came(&mut terminal, &Notice::Floor(floor(Some(holder("me", 7)))));
        came(&mut terminal, &Notice::Done { n: Some(1) });
        assert_eq!(typed(&mut terminal, b"l"), [sends(b"l")]);
        came(&mut terminal, &Notice::Floor(floor(Some(holder("alice", 3)))));
        assert_eq!(typed(&mut terminal, b"s"), [held]);
        let mut taker = Terminal::new(Manner { take: true, ..MANNER });
        assert_eq!(came(&mut taker, &hello(Some(holder("alice", 3)), true))[1], wants(1, "take"));
        let said = came(&mut taker, &hello(None, false));
        assert_eq!(said.len(), 1, "{said:?}");
        assert_eq!(typed(&mut taker, b"x"), [note("you may watch this line, and not type")]);
        let mut watcher = Terminal::new(Manner { watch: true, ..MANNER });
        assert_eq!(came(&mut watcher, &hello(None, true)).len(), 1);
    }

    #[test]
    fn a_terminal_is_spared_and_a_pipe_gets_every_byte() {
        let bytes = b"\x1b]0;title\x07\x05login: \xff";
        for (filter, expected) in [(true, &b"login: ?"[..]), (false, bytes)] {
            let mut terminal = Terminal::new(Manner { filter, ..MANNER });
            let mut out = Vec::new();
            terminal.came(Frame::Characters(Bytes::from_static(bytes)), &mut out);
            assert_eq!(out, [Do::Show(expected.to_vec())]);
            assert_eq!(terminal.farewell().is_empty(), !filter);
        }
        let mut terminal = Terminal::new(MANNER);
        let mut out = Vec::new();
        terminal.came(Frame::Control(r#"{"is":"news of 2031"}"#.to_string()), &mut out);
        assert_eq!(out, []);
    }
}
