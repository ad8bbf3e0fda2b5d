//! `expect`, its arms, and the patterns they wait for.

use std::ops::Range;

use regex::bytes::{Regex, RegexBuilder};

use super::{DEEP_MAX, Parser};
use crate::expect::Fault;
use crate::expect::program::{Match, Pattern, What};
use crate::expect::words::{Part, Token};

/// Compiled, a pattern takes no more.
const PATTERN_MAX: usize = 1 << 20;

impl Parser<'_> {
    pub(super) fn expect(&mut self, at: Range<usize>) {
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

    pub(super) fn put(&mut self, order: usize, what: What) {
        self.orders.get_mut(order).into_iter().for_each(|order| order.what = what.clone());
    }

    pub(super) fn pattern(&mut self) -> Option<Pattern> {
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

    pub(super) fn regex(
        &mut self,
        parts: Vec<Part>,
        any_case: bool,
        at: &Range<usize>,
    ) -> Option<Match> {
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
}

/// A pattern of a script: bytes, `.` is any but a newline, `^` and `$` are the ends of what came since the last
/// match.
pub fn compile(pattern: &str, any_case: bool) -> Result<Regex, String> {
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
