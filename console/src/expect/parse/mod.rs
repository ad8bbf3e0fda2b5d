//! Words become a program: one statement a line, blocks in braces. All faults are said at once.

mod expect;
mod flow;
mod values;

use std::collections::HashMap;
use std::ops::Range;

pub(super) use self::expect::compile;
use super::Fault;
use super::program::{Arg, Order, Program, Secret, Text, What};
use super::words::{Token, Word, words};

/// Bytes of a script.
const SCRIPT_MAX: usize = 64 << 10;
/// Blocks within blocks.
const DEEP_MAX: usize = 16;
/// Faults that are said.
const FAULTS_MAX: usize = 20;

/// What a line may begin with.
const STATEMENTS: &[&str] = &[
    "arg",
    "secret",
    "timeout",
    "on",
    "send",
    "expect",
    "sendbreak",
    "sysrq",
    "pause",
    "say",
    "set",
    "if",
    "repeat",
    "leave",
    "again",
    "fail",
    "done",
];

impl Program {
    /// Reads a script.
    ///
    /// # Errors
    /// Everything that is wrong with it, in its order.
    pub fn parse(script: &str) -> Result<Program, Vec<Fault>> {
        if script.len() > SCRIPT_MAX {
            let large = format!("a script of {} KiB", script.len() >> 10);
            return Err(vec![Fault::new(0..0, &large).help("64 KiB are a lot for one line")]);
        }
        let mut faults = Vec::new();
        let words = words(script, &mut faults);
        let mut parser = Parser::new(script, words, faults);
        parser.block(None);
        parser.emit(What::Done(Text(Vec::new())), script.len());
        parser.finish()
    }
}

struct Parser<'a> {
    script: &'a str,
    words: Vec<Word>,
    next: usize,
    faults: Vec<Fault>,
    orders: Vec<Order>,
    names: Vec<String>,
    /// By name: whether something gives it a value, or where it is asked for.
    known: HashMap<String, bool>,
    asked: Vec<(String, Range<usize>)>,
    args: Vec<Arg>,
    secrets: Vec<Secret>,
    loops: usize,
    deep: usize,
    /// Of the loop we are in: the jumps to its end.
    leaves: Vec<Vec<usize>>,
    /// Of the expectation whose arms we are in: its order.
    expects: Vec<usize>,
}

impl<'a> Parser<'a> {
    fn new(script: &'a str, words: Vec<Word>, faults: Vec<Fault>) -> Parser<'a> {
        Parser {
            script,
            words,
            next: 0,
            faults,
            orders: Vec::new(),
            names: Vec::new(),
            known: HashMap::new(),
            asked: Vec::new(),
            args: Vec::new(),
            secrets: Vec::new(),
            loops: 0,
            deep: 0,
            leaves: Vec::new(),
            expects: Vec::new(),
        }
    }

    fn finish(mut self) -> Result<Program, Vec<Fault>> {
        for (name, at) in std::mem::take(&mut self.asked) {
            if self.known.get(&name).copied().unwrap_or(false) || name.parse::<u8>().is_ok() {
                continue;
            }
            let known =
                self.known.iter().filter(|(_, given)| **given).map(|(name, _)| name.as_str());
            let like = alike(&name, known);
            let help = match like {
                Some(like) => format!("did you mean ${{{like}}}?"),
                None => {
                    format!("arg {name}, secret {name}, set {name}, or (?<{name}>…) in a pattern")
                }
            };
            self.faults.push(Fault::new(at, &format!("nothing is called {name}")).help(&help));
        }
        if self.faults.is_empty() {
            let Parser { orders, names, args, secrets, loops, .. } = self;
            return Ok(Program { orders, names, args, secrets, loops });
        }
        self.faults.sort_by_key(|fault| (fault.at.start, fault.at.end));
        self.faults.truncate(FAULTS_MAX);
        Err(self.faults)
    }

    // Words.

    fn peek(&self) -> &Token {
        self.words.get(self.next).map_or(&Token::End, |word| &word.what)
    }

    fn at(&self) -> Range<usize> {
        let end = self.script.len();
        self.words.get(self.next).map_or(end..end, |word| word.at.clone())
    }

    fn take(&mut self) -> Token {
        let token = self.peek().clone();
        self.next = (self.next + 1).min(self.words.len());
        token
    }

    fn is(&mut self, what: &Token) -> bool {
        let is = self.peek() == what;
        if is {
            self.take();
        }
        is
    }

    fn sign(&mut self, sign: &'static str) -> bool {
        self.is(&Token::Sign(sign))
    }

    fn word(&mut self, word: &str) -> bool {
        let is = matches!(self.peek(), Token::Name(name) if name == word);
        if is {
            self.take();
        }
        is
    }

    /// What stands here is not what belongs here. The rest of the line is left out.
    fn wrong(&mut self, wanted: &str) {
        let message = format!("{wanted}, not {}", self.peek().shown());
        self.faults.push(Fault::new(self.at(), &message));
        self.skip_line();
    }

    /// Up to the end of the line, blocks that begin on it included.
    fn skip_line(&mut self) {
        let mut deep = 0usize;
        while self.next < self.words.len() {
            match self.peek() {
                Token::End if deep == 0 => return,
                Token::Sign("{") => deep += 1,
                Token::Sign("}") if deep == 0 => return,
                Token::Sign("}") => deep -= 1,
                _ => {}
            }
            self.take();
        }
    }

    fn line_of(&self, at: usize) -> usize {
        self.script.get(..at).map_or(1, |before| before.matches('\n').count() + 1)
    }

    // Orders.

    fn emit(&mut self, what: What, at: usize) -> usize {
        let line = self.line_of(at);
        self.orders.push(Order { what, line });
        self.orders.len() - 1
    }

    fn add(&mut self, what: What, at: usize) {
        let _nobody_jumps_there = self.emit(what, at);
    }

    /// An order is where the next one will be.
    fn land(&mut self, jump: usize) {
        let here = self.orders.len();
        let jump = self.orders.get_mut(jump).map(|order| &mut order.what);
        if let Some(What::Jump(to) | What::Unless(_, to) | What::Next(_, to)) = jump {
            *to = here;
        }
    }

    fn name(&mut self, name: &str, given: bool) -> usize {
        *self.known.entry(name.to_string()).or_default() |= given;
        if let Some(known) = self.names.iter().position(|known| known == name) {
            return known;
        }
        self.names.push(name.to_string());
        self.names.len() - 1
    }

    // Statements.

    /// Up to the brace that ends it, or the end of the script.
    fn block(&mut self, opened: Option<Range<usize>>) {
        if self.deep >= DEEP_MAX {
            return self.too_deep(opened.unwrap_or_default());
        }
        self.deep += 1;
        loop {
            if self.next + 1 >= self.words.len() {
                if let Some(at) = opened {
                    self.faults
                        .push(Fault::new(at, "a block without an end").help("end it with }"));
                }
                break;
            }
            match self.peek() {
                Token::End => {
                    self.take();
                }
                Token::Sign("}") => {
                    let at = self.at();
                    self.take();
                    if opened.is_some() {
                        break;
                    }
                    self.faults.push(Fault::new(at, "nothing begins that would end here"));
                }
                _ => self.statement(),
            }
        }
        self.deep -= 1;
    }

    /// The end of such a block is looked for without reading it.
    fn too_deep(&mut self, at: Range<usize>) {
        self.faults.push(Fault::new(at, "blocks within blocks within blocks"));
        let mut deep = 1usize;
        while self.next < self.words.len() && deep > 0 {
            match self.take() {
                Token::Sign("{") => deep += 1,
                Token::Sign("}") => deep -= 1,
                _ => {}
            }
        }
    }

    /// A block, which has to begin here.
    fn braces(&mut self) {
        let at = self.at();
        if self.sign("{") {
            self.block(Some(at));
        } else {
            self.wrong("a block begins here with {");
        }
    }

    fn statement(&mut self) {
        let at = self.at();
        let Token::Name(name) = self.peek().clone() else {
            self.wrong("a line begins with what is to be done");
            return;
        };
        self.take();
        let faults = self.faults.len();
        match name.as_str() {
            "arg" => self.arg(),
            "secret" => self.secret(at),
            "timeout" => match self.take() {
                Token::Time(time) => self.add(What::Within(time), at.start),
                _ => self.back("a time like 10s comes here"),
            },
            "on" => self.on_timeout(at),
            "send" => self.with_text(at, What::Send),
            "say" => self.with_text(at, What::Say),
            "fail" => self.with_text(at, What::Fail),
            "done" if *self.peek() == Token::End || *self.peek() == Token::Sign("}") => {
                self.emit(What::Done(Text(Vec::new())), at.start);
            }
            "done" => self.with_text(at, What::Done),
            "sendbreak" => self.add(What::Break, at.start),
            "sysrq" => self.sysrq(at),
            "pause" => match self.take() {
                Token::Time(time) => self.add(What::Pause(time), at.start),
                _ => self.back("a time like 500ms comes here"),
            },
            "set" => self.set(at),
            "expect" => self.expect(at),
            "if" => self.condition(at),
            "repeat" => self.repeat(at),
            "leave" => match self.leaves.is_empty() {
                false => {
                    let jump = self.emit(What::Jump(0), at.start);
                    self.leaves.last_mut().into_iter().for_each(|leaves| leaves.push(jump));
                }
                true => self.faults.push(Fault::new(at, "there is no repeat to leave")),
            },
            "again" => match self.expects.last().copied() {
                Some(expect) => self.add(What::Jump(expect), at.start),
                None => {
                    let fault = Fault::new(at, "there is no expect that could be done again");
                    self.faults.push(fault.help("it stands behind => in a block of expect"));
                }
            },
            other => {
                let like = alike(other, STATEMENTS.iter().copied());
                let help = match like {
                    Some(like) => format!("did you mean {like}?"),
                    None => format!("there are: {}", STATEMENTS.join(", ")),
                };
                self.faults.push(Fault::new(at, &format!("{other} is nothing to do")).help(&help));
                self.skip_line();
            }
        }
        let ended = matches!(self.peek(), Token::End | Token::Sign("}"));
        if !ended && self.faults.len() == faults {
            self.wrong("one statement a line: it ends here");
        } else if !ended {
            self.skip_line();
        }
    }

    /// What was taken last does not belong there.
    fn back(&mut self, wanted: &str) {
        self.next = self.next.saturating_sub(1);
        self.wrong(wanted);
    }
}

/// One that somebody may have meant.
fn alike<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    if name.len() > 40 {
        return None;
    }
    let lower = name.to_lowercase();
    known
        .map(|other| (strsim::levenshtein(&lower, &other.to_lowercase()), other))
        .filter(|(far, _)| *far <= 2)
        .min()
        .map(|(_, other)| other)
}
