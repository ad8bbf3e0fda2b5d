//! What goes over a serial port: characters as they are; marks that the kernel wrote between them; BREAK, for a
//! length that every peer takes for one, and only behind what was typed before it.

use std::io;
use std::time::{Duration, Instant};

use super::marks::Marks;
use super::port::Open;
use crate::wire::stream::Codec;
use crate::wire::{Cannot, Event, NotOpen, Operation};

/// tcsendbreak(3) says between a quarter and half a second.
const BREAK: Duration = Duration::from_millis(300);
/// Behind a BREAK the peer needs the time of a character or two to see that it ended.
const REST: Duration = Duration::from_millis(50);
/// How often it is looked whether what was typed is sent.
const LOOK: Duration = Duration::from_millis(20);
/// Who is stopped by flow control for so long does not send it: the BREAK goes first.
const SENT_WITHIN: Duration = Duration::from_secs(1);
/// Characters that a UART has in its own memory, of which the kernel does not tell.
const WITHIN_UART: u32 = 64;

/// See the module.
#[derive(Debug)]
pub(super) struct Serial {
    name: String,
    /// What a character takes.
    character: Duration,
    marks: Marks,
    breaking: Breaking,
}

/// How far a BREAK is, and until when.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Breaking {
    Not,
    /// What was typed goes first.
    Sending {
        next: Instant,
        until: Instant,
    },
    /// The kernel has sent it all, the UART has not.
    Emptying(Instant),
    Saying(Instant),
    Resting(Instant),
    Failed(Cannot),
}

impl Serial {
    pub fn new(name: String, speed: u32) -> Serial {
        let character = Duration::from_secs(11) / speed.max(1);
        Serial { name, character, marks: Marks::default(), breaking: Breaking::Not }
    }

    /// The next step of a BREAK.
    fn step(&mut self, port: &mut Open, now: Instant) -> Breaking {
        match self.breaking.clone() {
            Breaking::Sending { next, until } if now < until => {
                if now < next {
                    return Breaking::Sending { next, until };
                }
                match port.unsent() {
                    0 => Breaking::Emptying(now + self.character * WITHIN_UART),
                    _ => Breaking::Sending { next: now + LOOK, until },
                }
            }
            Breaking::Sending { .. } => self.say(port, true, Breaking::Saying(now + BREAK)),
            Breaking::Emptying(until) if now >= until => {
                self.say(port, true, Breaking::Saying(now + BREAK))
            }
            Breaking::Saying(until) if now >= until => {
                self.say(port, false, Breaking::Resting(now + REST))
            }
            Breaking::Resting(until) if now >= until => Breaking::Not,
            before => before,
        }
    }

    fn say(&self, port: &mut Open, broken: bool, then: Breaking) -> Breaking {
        match port.say_break(broken) {
            Ok(()) => then,
            Err(why) => Breaking::Failed(self.cannot("say BREAK", &why)),
        }
    }

    fn cannot(&self, what: &str, why: &serialport::Error) -> Cannot {
        Cannot::Unable(format!("{} cannot {what}: {why}", self.name))
    }
}

impl Codec<Open> for Serial {
    fn came(&mut self, bytes: &[u8], events: &mut Vec<Event>, _answer: &mut Vec<u8>) {
        self.marks.came(bytes, Instant::now(), events);
    }

    fn typed(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(bytes);
    }

    fn operate(
        &mut self,
        port: &mut Open,
        operation: Operation,
        _out: &mut Vec<u8>,
    ) -> Result<(), Cannot> {
        match operation {
            Operation::Break => {
                let now = Instant::now();
                self.breaking = Breaking::Sending { next: now, until: now + SENT_WITHIN };
                self.breaking = self.step(port, now);
                Ok(())
            }
            Operation::Dtr(up) => port.dtr(up).map_err(|why| self.cannot("set DTR", &why)),
            Operation::Rts(up) => port.rts(up).map_err(|why| self.cannot("set RTS", &why)),
        }
    }

    fn settled(&mut self) -> Option<Result<(), Cannot>> {
        match std::mem::replace(&mut self.breaking, Breaking::Not) {
            Breaking::Not => Some(Ok(())),
            Breaking::Failed(why) => Some(Err(why)),
            under_way => {
                self.breaking = under_way;
                None
            }
        }
    }

    fn deadline(&self) -> Option<Instant> {
        let breaking = match &self.breaking {
            Breaking::Not | Breaking::Failed(_) => None,
            Breaking::Sending { next, until } => Some(*next.min(until)),
            Breaking::Emptying(at) | Breaking::Saying(at) | Breaking::Resting(at) => Some(*at),
        };
        breaking.into_iter().chain(self.marks.deadline()).min()
    }

    fn late(
        &mut self,
        port: &mut Open,
        events: &mut Vec<Event>,
        _out: &mut Vec<u8>,
    ) -> Result<(), NotOpen> {
        let now = Instant::now();
        self.marks.tell(now, events);
        self.breaking = self.step(port, now);
        Ok(())
    }

    fn ended(&mut self, _why: Option<&io::Error>) -> NotOpen {
        // A pulled adapter is EIO, ENODEV, or an end, by driver and moment.
        NotOpen::Unplugged(format!("{} vanished: pulled, reset, or hung up", self.name))
    }
}
