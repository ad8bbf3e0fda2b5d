//! One person at one line, over whatever carries frames: what he types goes to the line while it is his, what the
//! line says goes to him as fast as he takes it.
//!
//! His queue is the line's scrollback. Who does not read costs one frame that waits, and is told afterwards how much
//! he missed; what he types is read nevertheless.

use std::fmt;
use std::pin::pin;
use std::sync::Arc;

use futures::{Sink, SinkExt, Stream, StreamExt};
use tokio::sync::mpsc;

use super::message::{Frame, Notice, PROTOCOL, Request, Want};
use crate::line::Handle;
use crate::operator::{NotTyped, Person, Visitor};
use crate::scrollback::{Piece, What};
use crate::sysrq::Key;
use crate::viewer::Viewer;
use crate::wire::Operation;

/// Answers that wait until he reads; then no more is read from him.
const ANSWERS: usize = 16;

/// Whether somebody may type, asked whenever he does. Otherwise why not, in words.
#[derive(Clone)]
pub struct May(Arc<dyn Fn() -> Result<(), String> + Send + Sync>);

impl May {
    /// As this says.
    pub fn new(may: impl Fn() -> Result<(), String> + Send + Sync + 'static) -> May {
        May(Arc::new(may))
    }

    pub(super) fn ask(&self) -> Result<(), String> {
        (self.0)()
    }
}

impl fmt::Debug for May {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("May")
    }
}

/// Who comes to a line.
#[derive(Debug)]
pub struct Comes {
    /// To which machine's.
    pub machine: String,
    /// Who.
    pub person: Person,
    /// Whether he may type.
    pub may: May,
    /// He begins with so many of its last lines.
    pub last: usize,
}

/// What the half that reads has for the half that writes.
enum Out {
    Notice(Notice),
    Tail(Option<u64>, usize),
    Screen(Option<u64>),
}

/// Sees to one person until he goes (`from` ends, or `to` fails) or the line is closed.
pub async fn attach<R, W>(line: &Handle, who: Comes, from: R, to: W)
where
    R: Stream<Item = Frame>,
    W: Sink<Frame>,
{
    let types = who.may.ask().is_ok();
    let visitor = line.enter(who.person, types);
    let hello = Notice::Hello {
        protocol: PROTOCOL,
        machine: who.machine,
        line: line.status().state,
        visit: visitor.number(),
        types,
        floor: visitor.floor().borrow().clone(),
    };
    let (answers, asked) = mpsc::channel(ANSWERS);
    let reads = Reads { visitor: &visitor, may: who.may, answers, told: None };
    tokio::select! {
        () = reads.run(from) => {}
        () = writes(line, &visitor, hello, who.last, asked, to) => {}
        () = visitor.idleness() => {}
    }
}

async fn writes<W: Sink<Frame>>(
    line: &Handle,
    visitor: &Visitor,
    hello: Notice,
    last: usize,
    mut asked: mpsc::Receiver<Out>,
    to: W,
) {
    let mut to = pin!(to);
    let (mut floor, mut status) = (visitor.floor(), line.follow_status());
    let mut viewer: Viewer = line.view(last);
    let mut frame = Frame::control(&hello);
    loop {
        if let Some(frame) = frame.take()
            && to.send(frame).await.is_err()
        {
            return;
        }
        frame = tokio::select! {
            biased;
            // Before the answer to who asked for it: he types at once.
            Ok(()) = floor.changed() => {
                let floor = floor.borrow_and_update().clone();
                Frame::control(&Notice::Floor(floor))
            }
            Some(out) = asked.recv() => match out {
                Out::Notice(notice) => Frame::control(&notice),
                Out::Tail(n, lines) => {
                    viewer = line.view(lines);
                    Frame::control(&Notice::Done { n })
                }
                Out::Screen(n) => {
                    let (drawn, on) = line.screen();
                    viewer = on;
                    if to.send(Frame::Characters(drawn.draws.into())).await.is_err() {
                        return;
                    }
                    Frame::control(&Notice::Done { n })
                }
            },
            Ok(()) = status.changed() => {
                let line = status.borrow_and_update().state.clone();
                Frame::control(&Notice::Line { line })
            }
            piece = viewer.next() => match piece {
                Some(Piece { what: What::Text(text), .. }) => Some(Frame::Characters(text)),
                Some(Piece { at, what: What::Mark(mark) }) => {
                    Frame::control(&Notice::Mark { at, mark })
                }
                None => {
                    let why = "the line is closed".to_string();
                    if let Some(bye) = Frame::control(&Notice::Bye { why }) {
                        let _he_may_be_gone = to.send(bye).await;
                    }
                    return;
                }
            },
        };
    }
}

/// The half that reads.
struct Reads<'a> {
    visitor: &'a Visitor,
    may: May,
    answers: mpsc::Sender<Out>,
    /// What he was told last of what he typed in vain: not again for each key.
    told: Option<String>,
}

impl Reads<'_> {
    async fn run(mut self, from: impl Stream<Item = Frame>) {
        let mut from = pin!(from);
        while let Some(frame) = from.next().await {
            let answer = match frame {
                Frame::Characters(typed) => {
                    let why = self.typed(&typed).await.err();
                    let new = why.is_some() && why != self.told;
                    self.told.clone_from(&why);
                    let Some(why) = why.filter(|_| new) else { continue };
                    Out::Notice(Notice::Refused { n: None, why })
                }
                Frame::Control(text) => match serde_json::from_str::<Request>(&text) {
                    Ok(Request { n, want: Want::Tail { lines } }) => Out::Tail(n, lines),
                    Ok(Request { n, want: Want::Screen }) => Out::Screen(n),
                    Ok(Request { n, want: Want::Who }) => {
                        let people = self.visitor.people();
                        Out::Notice(Notice::People { n, people })
                    }
                    Ok(Request { n, want }) => Out::Notice(match self.wants(want).await {
                        Ok(()) => Notice::Done { n },
                        Err(why) => Notice::Refused { n, why },
                    }),
                    Err(why) => {
                        let why = format!("no request of ours: {why}");
                        Out::Notice(Notice::Refused { n: None, why })
                    }
                },
            };
            if self.answers.send(answer).await.is_err() {
                return;
            }
        }
    }

    async fn typed(&self, typed: &[u8]) -> Result<(), String> {
        self.may.ask()?;
        self.visitor.send(typed).await.map_err(|why| why.to_string())
    }

    async fn wants(&mut self, want: Want) -> Result<(), String> {
        let words = |why: NotTyped| why.to_string();
        self.told = None;
        match want {
            Want::Ask => {
                self.may.ask()?;
                self.visitor.ask().map_err(|holder| {
                    format!("{} has the line, and hears that you ask", holder.person)
                })
            }
            Want::Take => {
                self.may.ask()?;
                self.visitor.take();
                Ok(())
            }
            Want::Release => {
                self.visitor.release();
                Ok(())
            }
            Want::HandOver { to } => self.visitor.hand_over(&to).map_err(|why| why.to_string()),
            Want::Break => {
                self.may.ask()?;
                self.visitor.operate(Operation::Break).await.map_err(words)
            }
            Want::Sysrq { key } => {
                self.may.ask()?;
                let key = Key::try_from(key).map_err(|why| why.to_string())?;
                self.visitor.sysrq(key).await.map_err(words)
            }
            // The line's own screen is as large as the machine thinks.
            Want::Resize { .. } | Want::Tail { .. } | Want::Screen | Want::Who => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::time::{Duration, Instant};

    use bytes::Bytes;
    use futures::channel::mpsc as pipe;
    use tokio::time::timeout;

    use super::*;
    use crate::line::Line;
    use crate::scrollback::{CHARACTERS, Mark};
    use crate::state::State;
    use crate::wire::{Ends, Event, NotOpen, Order, Wire};

    const PATIENCE: Duration = Duration::from_secs(20);

    /// A line that is open, and its machine.
    async fn line() -> (Line, Ends) {
        let (wire, ends) = Wire::new();
        let wire = Arc::new(Mutex::new(Some(wire)));
        let line = Line::start(move || {
            let wire = wire.lock().unwrap().take();
            async move { wire.ok_or_else(|| NotOpen::Away("it was open once".to_string())) }
        });
        let mut status = line.follow_status();
        status.wait_for(|status| matches!(status.state, State::Up { .. })).await.unwrap();
        (line, ends)
    }

    /// Somebody at the line, by channels; he reads when the test does.
    struct One {
        types: pipe::Sender<Frame>,
        sees: pipe::Receiver<Frame>,
    }

    impl One {
        fn comes(line: &Line, name: &str, may: May) -> One {
            let (types, from) = pipe::channel(0);
            let (to, sees) = pipe::channel(0);
            let person = Person { name: name.to_string(), via: "test".to_string() };
            let who = Comes { machine: "m01".to_string(), person, may, last: 10 };
            let handle = line.handle();
            tokio::spawn(async move { attach(&handle, who, from, to).await });
            One { types, sees }
        }

        async fn wants(&mut self, json: &str) {
            self.types.send(Frame::Control(json.to_string())).await.unwrap();
        }

        async fn types(&mut self, bytes: &'static [u8]) {
            self.types.send(Frame::Characters(Bytes::from_static(bytes))).await.unwrap();
        }

        /// Reads on until this says so.
        async fn until(&mut self, mut is: impl FnMut(&Frame) -> bool) -> Frame {
            let mut seen = Vec::new();
            let found = timeout(PATIENCE, async {
                while let Some(frame) = self.sees.next().await {
                    if is(&frame) {
                        return Some(frame);
                    }
                    seen.push(frame);
                }
                None
            });
            match found.await {
                Ok(Some(frame)) => frame,
                other => panic!("{other:?} after {seen:?}"),
            }
        }

        async fn hears(&mut self, part: &str) -> String {
            let hears =
                |frame: &Frame| matches!(frame, Frame::Control(text) if text.contains(part));
            let Frame::Control(text) = self.until(hears).await else { panic!() };
            text
        }
    }

    fn anybody() -> May {
        May::new(|| Ok(()))
    }

    async fn typed(ends: &mut Ends) -> Bytes {
        match timeout(PATIENCE, ends.orders.recv()).await {
            Ok(Some(Order::Type(bytes))) => bytes,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn two_look_and_one_types() {
        let (line, mut ends) = line().await;
        let mut alice = One::comes(&line, "alice", anybody());
        let mut bob = One::comes(&line, "bob", anybody());
        let refuse = || Err("you may watch, and not type".to_string());
        let mut eve = One::comes(&line, "eve", May::new(refuse));
        for one in [&mut alice, &mut bob, &mut eve] {
            one.hears(r#""is":"hello""#).await;
        }
        alice.types(b"too early").await;
        alice.hears("nobody has the line").await;
        alice.wants(r#"{"n":1,"want":"ask"}"#).await;
        alice.hears(r#"{"is":"done","n":1}"#).await;
        bob.hears(r#""did":"holds","who":{"name":"alice""#).await;
        alice.types(b"ls\r").await;
        assert_eq!(typed(&mut ends).await, "ls\r");

        bob.types(b"rm\r").await;
        bob.types(b"rm\r").await;
        bob.wants(r#"{"n":1,"want":"ask"}"#).await;
        let held = "alice (test) has the line now";
        assert!(bob.hears(r#""is":"refused""#).await.contains(held));
        let refused = bob.hears(r#""is":"refused""#).await;
        assert!(
            refused.contains("hears that you ask"),
            "of what he types he is told once: {refused}"
        );
        alice.hears(r#""did":"asks","who":{"name":"bob""#).await;
        for want in ["ask", "take"] {
            eve.wants(&format!(r#"{{"want":"{want}"}}"#)).await;
            eve.hears("you may watch, and not type").await;
        }
        eve.wants(r#"{"want":"break"}"#).await;
        eve.hears("you may watch, and not type").await;
        alice.wants(r#"{"want":"hand-over","to":"eve"}"#).await;
        alice.hears("eve may look at this line, and not type").await;

        bob.wants(r#"{"want":"take"}"#).await;
        alice.hears(r#""did":"took","who":{"name":"bob""#).await;
        alice.types(b"x").await;
        alice.hears("bob (test) has the line now").await;
        bob.types(b"id\r").await;
        assert_eq!(typed(&mut ends).await, "id\r", "and nothing of alice's");
        bob.wants(r#"{"want":"hand-over","to":"alice"}"#).await;
        alice.hears(r#""did":"given""#).await;
        alice.wants(r#"{"n":9,"want":"who"}"#).await;
        let people = alice.hears(r#""is":"people""#).await;
        assert!(["alice", "bob", "eve"].iter().all(|name| people.contains(name)), "{people}");
        alice.wants("no JSON").await;
        alice.hears("no request of ours").await;
        drop(alice);
        bob.hears(r#""did":"let-go""#).await;
        assert_eq!(line.holder(), None);
        drop(ends);
        line.close().await;
        bob.hears(r#""is":"bye""#).await;
    }

    /// A menu that only its clock was drawn anew of since, for longer than the scrollback is.
    #[tokio::test]
    async fn who_comes_late_sees_the_screen_as_it_stands() {
        let (line, ends) = line().await;
        let says = async |bytes: &[u8]| {
            let bytes = Bytes::copy_from_slice(bytes);
            ends.events.send(Event::Data { at: Instant::now(), bytes }).await.unwrap();
        };
        says(b"\x1b[2J\x1b[3;5HBoot Option #1\x1b[24;1HF10: save").await;
        for second in 0..2 * CHARACTERS / 16 {
            says(format!("\x1b[1;70H{:08}", second % 86_400).as_bytes()).await;
        }
        let mut bob = One::comes(&line, "bob", anybody());
        bob.hears("hello").await;
        bob.wants(r#"{"n":1,"want":"screen"}"#).await;
        let drawn = |frame: &Frame| {
            let Frame::Characters(bytes) = frame else { return false };
            let text = String::from_utf8_lossy(bytes);
            text.contains("Boot Option #1") && text.contains("F10: save")
        };
        bob.until(drawn).await;
        bob.hears(r#"{"is":"done","n":1}"#).await;
        says(b"\x1b[3;5H*").await;
        bob.until(|frame| *frame == Frame::Characters(Bytes::from_static(b"\x1b[3;5H*"))).await;
    }

    #[tokio::test]
    async fn who_reads_nothing_delays_nobody_and_is_told_what_he_missed() {
        let (line, mut ends) = line().await;
        let mut operator = One::comes(&line, "alice", anybody());
        operator.hears("hello").await;
        let mut stuck = One::comes(&line, "stuck", anybody());
        let readers: Vec<_> = (0..50)
            .map(|number| {
                let mut one = One::comes(&line, &format!("reader{number}"), anybody());
                tokio::spawn(async move {
                    let mut seen = 0;
                    one.until(|frame| {
                        if let Frame::Characters(text) = frame {
                            seen += text.len();
                        }
                        seen == 3 * CHARACTERS
                    })
                    .await;
                })
            })
            .collect();
        while line.people().len() < 52 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        operator.wants(r#"{"want":"ask"}"#).await;
        operator.hears("done").await;
        let page = Bytes::from(vec![b'.'; 4096]);
        let mut slowest = Duration::ZERO;
        for _ in 0..3 * CHARACTERS / 4096 {
            let begun = Instant::now();
            operator.types(b"x").await;
            assert_eq!(typed(&mut ends).await, "x");
            slowest = slowest.max(begun.elapsed());
            let data = Event::Data { at: Instant::now(), bytes: page.clone() };
            ends.events.send(data).await.unwrap();
            operator.until(|frame| matches!(frame, Frame::Characters(_))).await;
        }
        for reader in readers {
            reader.await.unwrap();
        }
        assert!(slowest < Duration::from_secs(5), "{slowest:?}");
        stuck.hears("hello").await;
        let mut seen = 0u64;
        stuck
            .until(|frame| {
                seen += match frame {
                    Frame::Characters(text) => text.len() as u64,
                    Frame::Control(text) => match serde_json::from_str(text).unwrap() {
                        Notice::Mark { mark: Mark::Skipped { characters, .. }, .. } => characters,
                        _ => 0,
                    },
                };
                seen == 3 * CHARACTERS as u64
            })
            .await;
        drop(ends);
        line.close().await;
    }
}
