//! The port behind a terminal server, set and watched from here: RFC 2217, where the server does it.

use std::time::{Duration, Instant};

use super::super::settings::{Flow, Parity, Settings};
use super::options::COM_PORT;
use super::parse::{IAC, SB, SE};
use crate::scrollback::Mark;

// What we say; the server's answer to each is 100 more.
const SIGNATURE: u8 = 0;
const SET_BAUDRATE: u8 = 1;
const SET_DATASIZE: u8 = 2;
const SET_PARITY: u8 = 3;
const SET_STOPSIZE: u8 = 4;
const SET_CONTROL: u8 = 5;
const SET_LINESTATE_MASK: u8 = 10;
const SET_MODEMSTATE_MASK: u8 = 11;

// What it says by itself.
const FROM_SERVER: u8 = 100;
const NOTIFY_LINESTATE: u8 = 106;
const NOTIFY_MODEMSTATE: u8 = 107;
const SUSPEND: u8 = 108;
const RESUME: u8 = 109;

// Of SET-CONTROL.
const FLOW_NONE: u8 = 1;
const FLOW_XON_XOFF: u8 = 2;
const FLOW_HARDWARE: u8 = 3;
const BREAK_ON: u8 = 5;
const BREAK_OFF: u8 = 6;
const DTR_ON: u8 = 8;
const DTR_OFF: u8 = 9;
const RTS_ON: u8 = 11;
const RTS_OFF: u8 = 12;

// Bits of a line's state.
const LINE_BREAK: u8 = 16;
const LINE_FRAMING: u8 = 8;
const LINE_PARITY: u8 = 4;
const LINE_OVERRUN: u8 = 2;

/// Of a modem's state: the other side is there.
const CARRIER: u8 = 128;

/// A server that suspends what is typed has a full buffer. One that does not say when it has room again is
/// believed for so long: TCP holds us back as well.
const SUSPENDED: Duration = Duration::from_secs(2);

/// See the module.
#[derive(Debug)]
pub(super) struct Port {
    /// What it is to be set to, if that is said here.
    wanted: Option<Settings>,
    /// What it was last told that is not as wanted.
    other: Vec<(u8, u32)>,
    carrier: Option<bool>,
    suspended: Option<Instant>,
    /// The server's name for itself.
    name: String,
}

impl Port {
    pub fn new(wanted: Option<Settings>) -> Port {
        Port { wanted, other: Vec::new(), carrier: None, suspended: None, name: String::new() }
    }

    /// Whether it is to be set from here.
    pub fn is_to_be_set(&self) -> bool {
        self.wanted.is_some()
    }

    /// The server does RFC 2217: sets the port, and asks to hear what goes wrong on it.
    pub fn agreed(&mut self, out: &mut Vec<u8>) {
        self.other.clear();
        write(SIGNATURE, &[], out);
        if let Some(set) = self.wanted {
            write(SET_BAUDRATE, &set.speed.to_be_bytes(), out);
            for (command, value) in values(&set) {
                write(command, &[value], out);
            }
        }
        write(SET_LINESTATE_MASK, &[LINE_BREAK | LINE_FRAMING | LINE_PARITY | LINE_OVERRUN], out);
        write(SET_MODEMSTATE_MASK, &[CARRIER], out);
    }

    /// What it said. Writes what answers it, unless `mute`.
    pub fn heard(
        &mut self,
        within: &[u8],
        now: Instant,
        marks: &mut Vec<Mark>,
        mute: bool,
        out: &mut Vec<u8>,
    ) {
        let Some((command, value)) = within.split_first() else { return };
        match (*command, value) {
            // It asks who we are.
            (SIGNATURE | 100, []) if !mute => write(SIGNATURE, b"koboshi", out),
            (SIGNATURE | 100, name) => {
                let plain = |byte: &&u8| byte.is_ascii_graphic() || **byte == b' ';
                self.name = name.iter().filter(plain).map(|byte| char::from(*byte)).collect();
            }
            (101, &[a, b, c, d]) => {
                self.told(SET_BAUDRATE, u32::from_be_bytes([a, b, c, d]), marks);
            }
            (102..=105, &[value]) => self.told(command - FROM_SERVER, value.into(), marks),
            (NOTIFY_LINESTATE, &[state]) => {
                let happened = |bit| state & bit != 0;
                if happened(LINE_BREAK) {
                    // It is a framing error as well.
                    marks.push(Mark::Break);
                } else if happened(LINE_FRAMING | LINE_PARITY) {
                    marks.push(Mark::Damaged { characters: 1 });
                }
                if happened(LINE_OVERRUN) {
                    marks.push(Mark::Overrun);
                }
            }
            (NOTIFY_MODEMSTATE, &[state]) => {
                let carrier = state & CARRIER != 0;
                let before = self.carrier.replace(carrier);
                if before.is_some_and(|before| before != carrier) {
                    marks.push(Mark::Carrier { up: carrier });
                }
            }
            (SUSPEND, []) => {
                if self.suspended.is_none() {
                    marks.push(Mark::Unavailable);
                }
                self.suspended = Some(now + SUSPENDED);
            }
            (RESUME, []) => self.resume(marks),
            _ => {}
        }
    }

    /// Until when nothing may be typed, at the longest.
    pub fn suspended(&self) -> Option<Instant> {
        self.suspended
    }

    /// Typing goes on.
    pub fn resume(&mut self, marks: &mut Vec<Mark>) {
        if self.suspended.take().is_some() {
            marks.push(Mark::Available);
        }
    }

    /// Who it says it is, in parentheses; nothing where it does not.
    pub fn name(&self) -> String {
        if self.name.is_empty() { String::new() } else { format!(" ({})", self.name) }
    }

    /// It says what a setting is now; what it answers is what it did, and not what it was told.
    fn told(&mut self, command: u8, value: u32, marks: &mut Vec<Mark>) {
        let Some(set) = &self.wanted else { return };
        let wanted = match command {
            SET_BAUDRATE => Some(set.speed),
            // Of the many that SET-CONTROL has, flow control alone was set.
            SET_CONTROL if !(1..=3).contains(&value) => None,
            _ => values(set).find(|of| of.0 == command).map(|(_, value)| value.into()),
        };
        let Some(wanted) = wanted else { return };
        let known = self.other.iter().position(|other| *other == (command, value));
        self.other.retain(|other| other.0 != command);
        if wanted == value {
            return;
        }
        self.other.push((command, value));
        if known.is_none() {
            let why = format!(
                "the terminal server{} has {} in place of {}",
                self.name(),
                words(command, value),
                words(command, wanted)
            );
            marks.push(Mark::Unset { why });
        }
    }
}

/// A BREAK begins, or ends.
pub(super) fn set_break(on: bool, out: &mut Vec<u8>) {
    write(SET_CONTROL, &[if on { BREAK_ON } else { BREAK_OFF }], out);
}

pub(super) fn set_dtr(on: bool, out: &mut Vec<u8>) {
    write(SET_CONTROL, &[if on { DTR_ON } else { DTR_OFF }], out);
}

pub(super) fn set_rts(on: bool, out: &mut Vec<u8>) {
    write(SET_CONTROL, &[if on { RTS_ON } else { RTS_OFF }], out);
}

/// All that is set besides the speed.
fn values(set: &Settings) -> impl Iterator<Item = (u8, u8)> {
    let parity = match set.parity {
        Parity::None => 1,
        Parity::Odd => 2,
        Parity::Even => 3,
    };
    let flow = set.flow.map(|flow| match flow {
        Flow::None => FLOW_NONE,
        Flow::XonXoff => FLOW_XON_XOFF,
        Flow::RtsCts => FLOW_HARDWARE,
    });
    let fixed = [(SET_DATASIZE, set.bits), (SET_PARITY, parity), (SET_STOPSIZE, set.stop)];
    fixed.into_iter().chain(flow.map(|flow| (SET_CONTROL, flow)))
}

fn words(command: u8, value: u32) -> String {
    match (command, value) {
        (SET_BAUDRATE, speed) => format!("{speed} bit/s"),
        (SET_DATASIZE, bits) => format!("{bits} data bits"),
        (SET_PARITY, 1) => "no parity".to_string(),
        (SET_PARITY, 2) => "odd parity".to_string(),
        (SET_PARITY, 3) => "even parity".to_string(),
        (SET_PARITY, other) => format!("parity of kind {other}"),
        (SET_STOPSIZE, 3) => "1.5 stop bits".to_string(),
        (SET_STOPSIZE, bits) => format!("{bits} stop bits"),
        (_, 1) => "no flow control".to_string(),
        (_, 2) => "XON/XOFF".to_string(),
        (_, _) => "RTS/CTS".to_string(),
    }
}

fn write(command: u8, value: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&[IAC, SB, COM_PORT, command]);
    for byte in value {
        out.push(*byte);
        if *byte == IAC {
            out.push(IAC);
        }
    }
    out.extend_from_slice(&[IAC, SE]);
}
