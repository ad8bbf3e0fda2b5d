//! A script that was read: orders in a row, of which some jump. The sources of its values are named, the values
//! themselves are not here.

use std::ops::Range;
use std::time::Duration;

use regex::bytes::Regex;

/// A script that can be run.
#[derive(Debug, Clone)]
pub struct Program {
    pub(super) orders: Vec<Order>,
    /// Which names its values have: those given, those kept, those captured.
    pub(super) names: Vec<String>,
    /// What whoever runs it gives, in order.
    pub args: Vec<Arg>,
    /// What nobody else may see.
    pub secrets: Vec<Secret>,
    /// Loops, each with a count of its own.
    pub(super) loops: usize,
}

/// Something that whoever runs it gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arg {
    /// Its name.
    pub name: String,
    /// What it is if it is not given. None: it must be.
    pub otherwise: Option<String>,
    /// What it is for.
    pub help: Option<String>,
}

/// Something that nobody else may see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Secret {
    /// Its name.
    pub name: String,
    /// Where it is.
    pub from: From,
    /// Where that is written.
    pub at: Range<usize>,
}

/// Where a secret is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum From {
    /// In a file; beside the script, if the path does not begin with a slash.
    File(String),
    /// In a variable of the environment.
    Env(String),
}

/// A text with values in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Text(pub Vec<Piece>);

/// A part of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Piece {
    Plain(Vec<u8>),
    /// By its number among the names.
    Value(usize),
}

/// What is waited for.
#[derive(Debug, Clone)]
pub(super) struct Pattern {
    pub what: Match,
    /// As written, for people.
    pub shown: String,
}

#[derive(Debug, Clone)]
pub(super) enum Match {
    Literal(Text),
    /// And which values it keeps: the number of the group, the number of the name.
    Regex(Box<Regex>, Vec<(usize, usize)>),
    /// With values in it: known when it is waited for. Whether letters of both cases are the same.
    Template(Text, bool, Vec<(usize, usize)>),
}

/// `if "${a}" == "b"`
#[derive(Debug, Clone)]
pub(super) enum Condition {
    Same(Text, Text),
    Matches(Text, Pattern),
    Not(Box<Condition>),
}

/// One thing to do, and the line of the script that says so.
#[derive(Debug, Clone)]
pub(super) struct Order {
    pub what: What,
    pub line: usize,
}

#[derive(Debug, Clone)]
pub(super) enum What {
    Send(Text),
    Break,
    SysRq(char),
    Pause(Duration),
    Say(Text),
    Set(usize, Text),
    /// Each with the order that follows; the order that follows if none comes in time.
    Expect {
        arms: Vec<(Pattern, usize)>,
        late: Option<usize>,
        within: Option<Duration>,
    },
    /// For all that is expected from now on.
    Within(Duration),
    /// The order that follows when something does not come in time.
    OnTimeout(usize),
    Jump(usize),
    Unless(Condition, usize),
    /// So often.
    Times(usize, u32),
    /// One time less, or onward there.
    Next(usize, usize),
    Fail(Text),
    Done(Text),
    /// It is over: what did not come in time is told.
    GiveUp,
}
