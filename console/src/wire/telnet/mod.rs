//! A terminal server's port by telnet (RFC 854), its serial port set and watched by RFC 2217 where the server does
//! that.
//!
//! ```text
//! parse    characters, commands, negotiations and subnegotiations
//! options  which options both sides do
//! port     the serial port behind it
//! ```
//!
//! BINARY is asked for where RFC 2217 is done, and taken where it is offered. Elsewhere it is not asked for: a login
//! daemon then ends its lines with LF alone.

mod options;
mod parse;
mod port;
#[cfg(test)]
mod tests;

use std::io;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::io::AsyncWriteExt;

use self::options::{BINARY, COM_PORT, Change, Options, SGA, Side, TERMINAL_TYPE};
use self::parse::{BRK, IAC, Parser, SB, SE, Said};
use self::port::Port;
use super::stream::{Codec, drive};
use super::{Cannot, Event, NotOpen, Operation, Settings, Wire, tcp};
use crate::scrollback::Mark;

/// How long a BREAK is, as `tcsendbreak` has it.
const BREAK: Duration = Duration::from_millis(300);
/// A server that is to set its port has said by then whether it does.
const ASKED: Duration = Duration::from_secs(10);
/// Of TERMINAL-TYPE (RFC 1091).
const IS: u8 = 0;
const SEND: u8 = 1;
/// What the screens of those who look are at least.
const TERMINAL: &[u8] = b"vt220";
/// Answers that are written before so much else is are none that a peer waits for.
const ROOM: usize = 7 * 1024;
/// Answers at once, and a second: a peer that negotiates for ever is not answered for ever.
const ANSWERS: u32 = 64;
const ANSWERS_A_SECOND: u32 = 8;

pub(super) async fn open(
    host: &str,
    port: u16,
    settings: Option<Settings>,
) -> Result<Wire, NotOpen> {
    let mut stream = tcp::connect(host, port).await?;
    let mut telnet = Telnet::new(format!("{host} port {port}"), settings);
    let mut out = Vec::new();
    telnet.begin(Instant::now(), &mut out);
    let away = |why: io::Error| NotOpen::Away(format!("{host} port {port}: {why}"));
    stream.write_all(&out).await.map_err(away)?;
    Ok(drive(stream, telnet))
}

/// This end of a telnet connection. It has no socket, and no clock of its own.
#[derive(Debug)]
pub struct Telnet {
    /// The other end, for people.
    to: String,
    parser: Parser,
    options: Options,
    port: Port,
    answers: Answers,
    /// BREAK is on until then.
    breaking: Option<Instant>,
    /// It was asked whether it does RFC 2217, and needs to have said so by then.
    asked: Option<Instant>,
}

impl Telnet {
    /// One that was just connected. With `settings`, the port behind it is to be set so.
    pub fn new(to: String, settings: Option<Settings>) -> Telnet {
        Telnet {
            to,
            parser: Parser::default(),
            options: Options::default(),
            port: Port::new(settings),
            answers: Answers { left: ANSWERS, at: None },
            breaking: None,
            asked: None,
        }
    }

    /// Says what is wanted of the other end.
    pub fn begin(&mut self, now: Instant, out: &mut Vec<u8>) {
        self.options.ask(Side::They, SGA, true, out);
        self.options.ask(Side::We, COM_PORT, true, out);
        if self.port.is_to_be_set() {
            self.asked = Some(now + ASKED);
        }
    }

    /// These came. What is written in answer is bounded, however much is asked.
    pub fn heard(
        &mut self,
        bytes: &[u8],
        now: Instant,
        events: &mut Vec<Event>,
        out: &mut Vec<u8>,
    ) {
        let mut rest = bytes;
        let mut text = Vec::new();
        let mut marks = Vec::new();
        loop {
            let binary = self.options.is(Side::They, BINARY);
            let Some(said) = self.parser.next(&mut rest, binary) else { break };
            let before = out.len();
            let mute = before >= ROOM || !self.answers.any(now);
            match said {
                Said::Text(more) => text.extend_from_slice(more),
                Said::Command(BRK) => marks.push(Mark::Break),
                Said::Command(_) => {}
                Said::Negotiation(verb, option) => {
                    match self.options.heard(verb, option, mute, out) {
                        Some(Change::On(Side::We, COM_PORT)) => {
                            self.asked = None;
                            self.port.agreed(out);
                            self.options.ask(Side::We, BINARY, true, out);
                            self.options.ask(Side::They, BINARY, true, out);
                        }
                        Some(Change::Off(Side::We, COM_PORT)) => {
                            self.breaking = None;
                            self.port.resume(&mut marks);
                            if self.port.is_to_be_set() {
                                self.asked = None;
                                marks.push(self.unset("does not do RFC 2217"));
                            }
                        }
                        _ => {}
                    }
                }
                Said::Sub(COM_PORT, within) if self.options.is(Side::We, COM_PORT) => {
                    self.port.heard(within, now, &mut marks, mute, out);
                }
                Said::Sub(TERMINAL_TYPE, [SEND])
                    if self.options.is(Side::We, TERMINAL_TYPE) && !mute =>
                {
                    out.extend_from_slice(&[IAC, SB, TERMINAL_TYPE, IS]);
                    out.extend_from_slice(TERMINAL);
                    out.extend_from_slice(&[IAC, SE]);
                }
                Said::Sub(..) => {}
                Said::Endless(bytes) => marks.push(Mark::Omitted { bytes }),
            }
            if out.len() > before {
                self.answers.spend();
            }
            if !marks.is_empty() {
                say(&mut text, now, events);
                events.extend(marks.drain(..).map(Event::Mark));
            }
        }
        say(&mut text, now, events);
    }

    /// A time that was waited for has come.
    pub fn past(&mut self, now: Instant, events: &mut Vec<Event>, out: &mut Vec<u8>) {
        let over = |deadline: Option<Instant>| deadline.is_some_and(|deadline| deadline <= now);
        let mut marks = Vec::new();
        if over(self.breaking) {
            self.breaking = None;
            port::set_break(false, out);
        }
        if over(self.port.suspended()) {
            self.port.resume(&mut marks);
        }
        if over(self.asked) {
            self.asked = None;
            marks.push(self.unset("does not say whether it does RFC 2217"));
        }
        events.extend(marks.into_iter().map(Event::Mark));
    }

    /// Begins to do it.
    ///
    /// # Errors
    /// The server cannot.
    pub fn begin_to(
        &mut self,
        operation: Operation,
        now: Instant,
        out: &mut Vec<u8>,
    ) -> Result<(), Cannot> {
        let port = self.options.is(Side::We, COM_PORT);
        match operation {
            Operation::Break if port => {
                port::set_break(true, out);
                self.breaking = Some(now + BREAK);
            }
            Operation::Break => out.extend_from_slice(&[IAC, BRK]),
            Operation::Dtr(on) if port => port::set_dtr(on, out),
            Operation::Rts(on) if port => port::set_rts(on, out),
            Operation::Dtr(_) | Operation::Rts(_) => {
                let why = "does not do RFC 2217, without which it cannot be told of DTR and RTS";
                return Err(Cannot::Unable(format!("{} {why}", self.to)));
            }
        }
        Ok(())
    }

    fn unset(&self, why: &str) -> Mark {
        let (to, name) = (&self.to, self.port.name());
        let help = "the port is as it is set there";
        Mark::Unset { why: format!("{to}{name} {why}: {help}") }
    }
}

fn say(text: &mut Vec<u8>, at: Instant, events: &mut Vec<Event>) {
    if !text.is_empty() {
        events.push(Event::Data { at, bytes: Bytes::from(std::mem::take(text)) });
    }
}

impl<S> Codec<S> for Telnet {
    fn came(&mut self, bytes: &[u8], events: &mut Vec<Event>, answer: &mut Vec<u8>) {
        self.heard(bytes, Instant::now(), events, answer);
    }

    fn typed(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        let binary = self.options.is(Side::We, BINARY);
        for byte in bytes {
            out.push(*byte);
            match *byte {
                IAC => out.push(IAC),
                b'\r' if !binary => out.push(0),
                _ => {}
            }
        }
    }

    fn operate(&mut self, _: &mut S, what: Operation, out: &mut Vec<u8>) -> Result<(), Cannot> {
        self.begin_to(what, Instant::now(), out)
    }

    fn settled(&mut self) -> Option<Result<(), Cannot>> {
        self.breaking.is_none().then_some(Ok(()))
    }

    fn is_full(&self) -> bool {
        self.port.suspended().is_some()
    }

    fn deadline(&self) -> Option<Instant> {
        [self.breaking, self.port.suspended(), self.asked].into_iter().flatten().min()
    }

    fn late(
        &mut self,
        _: &mut S,
        events: &mut Vec<Event>,
        out: &mut Vec<u8>,
    ) -> Result<(), NotOpen> {
        self.past(Instant::now(), events, out);
        Ok(())
    }

    fn ended(&mut self, why: Option<&io::Error>) -> NotOpen {
        tcp::gone(why)
    }

    fn closing(&mut self, _: &mut S, out: &mut Vec<u8>) {
        if self.breaking.take().is_some() {
            port::set_break(false, out);
        }
    }
}

/// How many answers a peer may still have.
#[derive(Debug)]
struct Answers {
    left: u32,
    /// When it was last looked at.
    at: Option<Instant>,
}

impl Answers {
    fn any(&mut self, now: Instant) -> bool {
        let at = *self.at.get_or_insert(now);
        let more =
            now.saturating_duration_since(at).as_millis() * u128::from(ANSWERS_A_SECOND) / 1000;
        if let Some(more) = u32::try_from(more).ok().filter(|more| *more > 0) {
            self.left = self.left.saturating_add(more).min(ANSWERS);
            self.at = Some(now);
        }
        self.left > 0
    }

    fn spend(&mut self) {
        self.left = self.left.saturating_sub(1);
    }
}
