//! `if` and `repeat`: jumps over blocks.

use std::ops::Range;

use super::Parser;
use crate::expect::program::{Condition, What};
use crate::expect::words::Token;

/// Times that something is repeated.
const TIMES_MAX: u32 = 10_000;

impl Parser<'_> {
    pub(super) fn condition(&mut self, at: Range<usize>) {
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

    pub(super) fn compared(&mut self) -> Option<Condition> {
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

    pub(super) fn repeat(&mut self, at: Range<usize>) {
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
