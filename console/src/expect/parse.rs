//! Words become a program: one statement a line, blocks in braces. All faults are said at once.

use std::collections::HashMap;
use std::ops::Range;

use regex::bytes::{Regex, RegexBuilder};

use super::Fault;
use super::program::{
    Arg, Condition, From, Match, Order, Pattern, Piece, Program, Secret, Text, What,
};
use super::words::{Part, Token, Word, words};

/// Bytes of a script.
const SCRIPT_MAX: usize = 64 << 10;
/// Blocks within blocks.
const DEEP_MAX: usize = 16;
/// Times that something is repeated.
const TIMES_MAX: u32 = 10_000;
/// Compiled, a pattern takes no more.
const PATTERN_MAX: usize = 1 << 20;
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

    fn with_text(&mut self, at: Range<usize>, what: fn(Text) -> What) {
        if let Some(text) = self.text() {
            self.emit(what(text), at.start);
        }
    }

    fn text(&mut self) -> Option<Text> {
        match self.take() {
            Token::Text(parts) => Some(self.with_values(parts)),
            _ => {
                self.back("a text in \"…\" comes here");
                None
            }
        }
    }

    fn plain(&mut self, wanted: &str) -> Option<String> {
        let at = self.at();
        let Token::Text(parts) = self.take() else {
            self.back(wanted);
            return None;
        };
        let mut bytes = Vec::new();
        for part in parts {
            match part {
                Part::Plain(more) => bytes.extend(more),
                Part::Value(_, at) => {
                    self.faults.push(Fault::new(at, "no values here"));
                    return None;
                }
            }
        }
        let text = String::from_utf8(bytes).ok().filter(|text| !text.contains(char::is_control));
        if text.is_none() {
            self.faults.push(Fault::new(at, "this has to be plain text"));
        }
        text
    }

    fn with_values(&mut self, parts: Vec<Part>) -> Text {
        let pieces = parts.into_iter().map(|part| match part {
            Part::Plain(bytes) => Piece::Plain(bytes),
            Part::Value(name, at) => {
                let number = self.name(&name, false);
                self.asked.push((name, at));
                Piece::Value(number)
            }
        });
        Text(pieces.collect())
    }

    fn new_name(&mut self) -> Option<String> {
        let at = self.at();
        let Token::Name(name) = self.take() else {
            self.back("a name comes here");
            return None;
        };
        if self.known.get(&name).copied().unwrap_or(false) {
            self.faults.push(Fault::new(at, &format!("{name} is there already")));
        }
        self.name(&name, true);
        Some(name)
    }

    fn arg(&mut self) {
        let Some(name) = self.new_name() else { return };
        let otherwise = match self.sign("=") {
            true => match self.plain("what it is otherwise, in \"…\", comes here") {
                Some(text) => Some(text),
                None => return,
            },
            false => None,
        };
        let help = match self.peek() {
            Token::Text(_) => self.plain("what it is for comes here"),
            _ => None,
        };
        self.args.push(Arg { name, otherwise, help });
    }

    fn secret(&mut self, at: Range<usize>) {
        let Some(name) = self.new_name() else { return };
        if !self.word("from") {
            return self.wrong("from file \"…\" or from env \"…\" comes here");
        }
        let from = match self.take() {
            Token::Name(kind) if kind == "file" => {
                self.plain("a path in \"…\" comes here").map(From::File)
            }
            Token::Name(kind) if kind == "env" => {
                self.plain("a name in \"…\" comes here").map(From::Env)
            }
            _ => return self.back("file or env comes here"),
        };
        let at = at.start
            ..self.words.get(self.next.saturating_sub(1)).map_or(at.end, |word| word.at.end);
        self.secrets.extend(from.map(|from| Secret { name, from, at }));
    }

    fn on_timeout(&mut self, at: Range<usize>) {
        if !self.word("timeout") {
            return self.wrong("on timeout { … }: timeout comes here");
        }
        let start = self.orders.len();
        self.emit(What::OnTimeout(start + 2), at.start);
        let over = self.emit(What::Jump(0), at.start);
        let (leaves, expects) =
            (std::mem::take(&mut self.leaves), std::mem::take(&mut self.expects));
        self.braces();
        (self.leaves, self.expects) = (leaves, expects);
        self.emit(What::GiveUp, at.start);
        self.land(over);
    }

    fn sysrq(&mut self, at: Range<usize>) {
        let key = match self.take() {
            Token::Name(key) => key,
            Token::Number(key) => key.to_string(),
            _ => return self.back("a key of SysRq, like b, comes here"),
        };
        match key.chars().next().filter(|_| key.len() == 1) {
            Some(key) => self.add(What::SysRq(key), at.start),
            None => self.back("a key of SysRq, one letter or digit, comes here"),
        }
    }

    fn set(&mut self, at: Range<usize>) {
        let Token::Name(name) = self.take() else { return self.back("a name comes here") };
        if self.secrets.iter().any(|secret| secret.name == name) {
            let fault = Fault::new(at, &format!("{name} is a secret, and stays what it is"));
            return self.faults.push(fault);
        }
        if !self.sign("=") {
            return self.wrong("= comes here");
        }
        if let Some(text) = self.text() {
            let number = self.name(&name, true);
            self.emit(What::Set(number, text), at.start);
        }
    }

    fn within(&mut self) -> Option<std::time::Duration> {
        if !self.word("within") {
            return None;
        }
        match self.take() {
            Token::Time(time) => Some(time),
            _ => {
                self.back("a time like 10s comes here");
                None
            }
        }
    }

    fn expect(&mut self, at: Range<usize>) {
        let mut within = self.within();
        let empty = What::Expect { arms: Vec::new(), late: None, within: None };
        let expect = self.emit(empty, at.start);
        let opened = self.at();
        if !self.sign("{") {
            let Some(pattern) = self.pattern() else { return };
            within = self.within().or(within);
            let arms = vec![(pattern, self.orders.len())];
            self.put(expect, What::Expect { arms, late: None, within });
            return;
        }
        if self.deep >= DEEP_MAX {
            return self.too_deep(opened);
        }
        self.deep += 1;
        let (mut arms, mut late, mut ends) = (Vec::new(), None, Vec::new());
        self.expects.push(expect);
        loop {
            if self.next + 1 >= self.words.len() {
                self.faults
                    .push(Fault::new(opened, "a block without an end").help("end it with }"));
                break;
            }
            if self.is(&Token::End) {
                continue;
            }
            if self.sign("}") {
                break;
            }
            if self.word("timeout") {
                late = Some(self.orders.len());
            } else if let Some(pattern) = self.pattern() {
                arms.push((pattern, self.orders.len()));
            } else {
                continue;
            }
            if self.sign("=>") {
                match self.peek() {
                    Token::Sign("{") => self.braces(),
                    _ => self.statement(),
                }
            } else if !matches!(self.peek(), Token::End | Token::Sign("}")) {
                self.wrong("=> and what is to be done then comes here");
            }
            ends.push(self.emit(What::Jump(0), at.start));
        }
        self.expects.pop();
        self.deep -= 1;
        if arms.is_empty() && late.is_none() {
            self.faults.push(Fault::new(at, "nothing is expected here"));
        }
        for end in ends {
            self.land(end);
        }
        self.put(expect, What::Expect { arms, late, within });
    }

    fn put(&mut self, order: usize, what: What) {
        self.orders.get_mut(order).into_iter().for_each(|order| order.what = what.clone());
    }

    fn pattern(&mut self) -> Option<Pattern> {
        let at = self.at();
        let shown = self.script.get(at.clone()).unwrap_or_default().to_string();
        match self.take() {
            Token::Text(parts) if parts.is_empty() => {
                self.faults.push(Fault::new(at, "nothing is there at once"));
                None
            }
            Token::Text(parts) => {
                let what = Match::Literal(self.with_values(parts));
                Some(Pattern { what, shown })
            }
            Token::Pattern(parts, any_case) => {
                let what = self.regex(parts, any_case, &at)?;
                Some(Pattern { what, shown })
            }
            _ => {
                self.back("a \"text\" or a /pattern/ comes here");
                None
            }
        }
    }

    fn regex(&mut self, parts: Vec<Part>, any_case: bool, at: &Range<usize>) -> Option<Match> {
        let plain = |part: &Part| match part {
            Part::Plain(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            // Whatever it will be, it is taken literally.
            Part::Value(..) => "x".to_string(),
        };
        let whole: String = parts.iter().map(plain).collect();
        let regex = match compile(&whole, any_case) {
            Ok(regex) => regex,
            Err(why) => {
                self.faults
                    .push(Fault::new(at.clone(), &format!("this pattern does not read: {why}")));
                return None;
            }
        };
        if regex.is_match(b"") {
            let fault =
                Fault::new(at.clone(), "this pattern matches nothing at all, and so at once");
            self.faults.push(fault.help("ask for at least one character"));
            return None;
        }
        let keeps: Vec<String> = regex.capture_names().flatten().map(str::to_string).collect();
        for name in &keeps {
            if self.secrets.iter().any(|secret| secret.name == *name) {
                let message = format!("{name} is a secret, and stays what it is");
                self.faults.push(Fault::new(at.clone(), &message));
            }
            self.name(name, true);
        }
        let groups = regex.capture_names().enumerate();
        let names: Vec<(usize, Option<String>)> =
            groups.map(|(group, name)| (group, name.map(str::to_string))).collect();
        let mut kept = Vec::new();
        for (group, name) in names {
            if group < 10 {
                kept.push((group, self.name(&group.to_string(), true)));
            }
            kept.extend(name.map(|name| (group, self.name(&name, true))));
        }
        if parts.iter().any(|part| matches!(part, Part::Value(..))) {
            return Some(Match::Template(self.with_values(parts), any_case, kept));
        }
        Some(Match::Regex(Box::new(regex), kept))
    }

    fn condition(&mut self, at: Range<usize>) {
        let mut overs = Vec::new();
        loop {
            let Some(condition) = self.compared() else { return };
            let unless = self.emit(What::Unless(condition, 0), at.start);
            self.braces();
            if !self.word("else") {
                self.land(unless);
                break;
            }
            overs.push(self.emit(What::Jump(0), at.start));
            self.land(unless);
            if !self.word("if") {
                self.braces();
                break;
            }
        }
        for over in overs {
            self.land(over);
        }
    }

    fn compared(&mut self) -> Option<Condition> {
        let one = self.text()?;
        let not = |condition| Condition::Not(Box::new(condition));
        match self.take() {
            Token::Sign("==") => self.text().map(|other| Condition::Same(one, other)),
            Token::Sign("!=") => self.text().map(|other| not(Condition::Same(one, other))),
            Token::Sign("~") => self.pattern().map(|other| Condition::Matches(one, other)),
            Token::Sign("!~") => self.pattern().map(|other| not(Condition::Matches(one, other))),
            _ => {
                self.back("==, !=, ~ or !~ comes here");
                None
            }
        }
    }

    fn repeat(&mut self, at: Range<usize>) {
        let times = match self.take() {
            Token::Number(times) if (1..=TIMES_MAX).contains(&times) => times,
            Token::Number(_) => return self.back("between 1 and 10000 times"),
            _ => return self.back("how often, as a number, comes here"),
        };
        let number = self.loops;
        self.loops += 1;
        self.emit(What::Times(number, times), at.start);
        let next = self.emit(What::Next(number, 0), at.start);
        self.leaves.push(Vec::new());
        self.braces();
        self.emit(What::Jump(next), at.start);
        self.land(next);
        for leave in self.leaves.pop().unwrap_or_default() {
            self.land(leave);
        }
    }
}

/// A pattern of a script: bytes, `.` is any but a newline, `^` and `$` are the ends of what came since the last
/// match.
pub(super) fn compile(pattern: &str, any_case: bool) -> Result<Regex, String> {
    let regex =
        RegexBuilder::new(pattern).case_insensitive(any_case).size_limit(PATTERN_MAX).build();
    regex.map_err(|why| match why {
        regex::Error::CompiledTooBig(_) => "it is too large once compiled".to_string(),
        why => {
            let why = why.to_string();
            why.lines().last().unwrap_or_default().trim_start_matches("error: ").to_string()
        }
    })
}

/// One that somebody may have meant.
fn alike<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let far = |other: &str| {
        let (one, other): (Vec<char>, Vec<char>) =
            (name.to_lowercase().chars().collect(), other.to_lowercase().chars().collect());
        let mut row: Vec<usize> = (0..=other.len()).collect();
        for (i, a) in one.iter().enumerate() {
            let mut corner = row.first().copied().unwrap_or_default();
            if let Some(first) = row.first_mut() {
                *first = i + 1;
            }
            for (j, b) in other.iter().enumerate() {
                let above = row.get(j + 1).copied().unwrap_or_default();
                let left = row.get(j).copied().unwrap_or_default();
                let best = (corner + usize::from(a != b)).min(above + 1).min(left + 1);
                corner = above;
                row.iter_mut().skip(j + 1).take(1).for_each(|cell| *cell = best);
            }
        }
        row.last().copied().unwrap_or_default()
    };
    if name.len() > 40 {
        return None;
    }
    known
        .map(|other| (far(other), other))
        .filter(|(far, _)| *far <= 2)
        .min()
        .map(|(_, other)| other)
}
