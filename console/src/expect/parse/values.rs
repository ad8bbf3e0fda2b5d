//! What statements are given: texts with values in them, names, arguments, secrets, times.

use std::ops::Range;

use super::Parser;
use crate::expect::Fault;
use crate::expect::program::{Arg, From, Piece, Secret, Text, What};
use crate::expect::words::{Part, Token};

impl Parser<'_> {
    pub(super) fn with_text(&mut self, at: Range<usize>, what: fn(Text) -> What) {
        if let Some(text) = self.text() {
            self.emit(what(text), at.start);
        }
    }

    pub(super) fn text(&mut self) -> Option<Text> {
        match self.take() {
            Token::Text(parts) => Some(self.with_values(parts)),
            _ => {
                self.back("a text in \"…\" comes here");
                None
            }
        }
    }

    pub(super) fn plain(&mut self, wanted: &str) -> Option<String> {
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

    pub(super) fn with_values(&mut self, parts: Vec<Part>) -> Text {
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

    pub(super) fn new_name(&mut self) -> Option<String> {
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

    pub(super) fn arg(&mut self) {
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

    pub(super) fn secret(&mut self, at: Range<usize>) {
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

    pub(super) fn on_timeout(&mut self, at: Range<usize>) {
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

    pub(super) fn sysrq(&mut self, at: Range<usize>) {
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

    pub(super) fn set(&mut self, at: Range<usize>) {
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

    pub(super) fn within(&mut self) -> Option<std::time::Duration> {
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
}
