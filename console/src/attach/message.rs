//! What goes between a line and somebody at it: characters as they are, and the rest as JSON. It is the same for the
//! command line, the browser and programs; over a WebSocket, characters are binary frames and the rest text frames.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::operator::{Floor, Person};
use crate::scrollback::Mark;
use crate::state::State;

/// Raised where a client of before would not understand any more.
pub const PROTOCOL: u32 = 1;

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// To the line: typed. From it: what the machine said.
    Characters(Bytes),
    /// To the line: a [`Request`]. From it: a [`Notice`].
    Control(String),
}

impl Frame {
    /// Of a notice or a request. None: it has no JSON, which none of ours are.
    pub fn control(message: &impl Serialize) -> Option<Frame> {
        serde_json::to_string(message).ok().map(Frame::Control)
    }
}

/// What somebody at a line wants, and a number by which he knows the answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Comes back in the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub n: Option<u64>,
    /// What.
    #[serde(flatten)]
    pub want: Want,
}

/// What somebody at a line wants besides typing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "want", rename_all = "kebab-case")]
pub enum Want {
    /// The line, when it is free.
    Ask,
    /// The line, now.
    Take,
    /// The line no more.
    Release,
    /// That somebody else who is here has it.
    HandOver {
        /// His name.
        to: String,
    },
    /// A BREAK to the machine.
    Break,
    /// Magic SysRq.
    Sysrq {
        /// Its key, one character.
        key: char,
    },
    /// His screen has this size.
    Resize {
        /// Columns.
        columns: u16,
        /// Rows.
        rows: u16,
    },
    /// To begin again, with the last lines.
    Tail {
        /// How many.
        lines: usize,
    },
    /// To begin again, with the machine's screen as it stands now.
    Screen,
    /// To know who is here.
    Who,
}

/// What somebody at a line is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "kebab-case")]
pub enum Notice {
    /// The first one.
    Hello {
        /// [`PROTOCOL`].
        protocol: u32,
        /// Whose line it is.
        machine: String,
        /// Whether it is up, and since when.
        line: State,
        /// His own visit: the holder has this one where it is himself.
        visit: u64,
        /// Whether he may have the line at all.
        types: bool,
        /// Who has it.
        #[serde(flatten)]
        floor: Floor,
    },
    /// Something happened here, between characters. That he missed some is a mark too.
    Mark {
        /// When, Unix milliseconds.
        at: u64,
        /// What.
        mark: Mark,
    },
    /// The line is in another state.
    Line {
        /// Which.
        line: State,
    },
    /// Another has it, or wants it.
    Floor(Floor),
    /// What he wanted is done.
    Done {
        /// Of his request.
        n: Option<u64>,
    },
    /// What he wanted is not done, or what he typed is not typed.
    Refused {
        /// Of his request; none where he typed.
        n: Option<u64>,
        /// Why, and what to do.
        why: String,
    },
    /// Who is here.
    People {
        /// Of his request.
        n: Option<u64>,
        /// Some hundreds at most.
        people: Vec<Person>,
    },
    /// The last one.
    Bye {
        /// Why.
        why: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operator::{Holder, Turn};

    #[test]
    fn json_as_programs_write_and_read_it() {
        let request = |text: &str| serde_json::from_str::<Request>(text).map_err(|_| ());
        assert_eq!(request(r#"{"want":"take"}"#), Ok(Request { n: None, want: Want::Take }));
        let key = Request { n: Some(7), want: Want::Sysrq { key: 'b' } };
        assert_eq!(request(r#"{"n":7,"want":"sysrq","key":"b"}"#), Ok(key));
        let to = "bob".to_string();
        let given = Request { n: None, want: Want::HandOver { to } };
        assert_eq!(request(r#"{"want":"hand-over","to":"bob"}"#), Ok(given));
        for wrong in ["", "{}", r#"{"want":"reboot"}"#, r#"{"want":"sysrq","key":"bb"}"#] {
            assert_eq!(request(wrong), Err(()), "{wrong}");
        }

        let who = Person { name: "alice".to_string(), via: "cli".to_string() };
        let holder = Some(Holder { person: who.clone(), since: 5, visit: 3 });
        let hello = Notice::Hello {
            protocol: PROTOCOL,
            machine: "m01".to_string(),
            line: State::Up { since: 1 },
            visit: 4,
            types: true,
            floor: Floor { holder, asking: Vec::new() },
        };
        let mark = Notice::Mark { at: 9, mark: Mark::Operator(Turn::Holds { who }) };
        let floor = Notice::Floor(Floor::default());
        let texts = [hello, mark, floor].map(|notice| {
            let text = serde_json::to_string(&notice).unwrap();
            assert_eq!(serde_json::from_str::<Notice>(&text).unwrap(), notice);
            text
        });
        let expected = [
            r#"{"is":"hello","protocol":1,"machine":"m01","line":{"state":"up","since":1},"visit":4,"types":true,"holder":{"name":"alice","via":"cli","since":5,"visit":3},"asking":[]}"#,
            r#"{"is":"mark","at":9,"mark":{"kind":"operator","did":"holds","who":{"name":"alice","via":"cli"}}}"#,
            r#"{"is":"floor","holder":null,"asking":[]}"#,
        ];
        assert_eq!(texts, expected);
    }
}
