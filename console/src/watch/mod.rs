//! Watches what a line says for people: rules that match one of its lines make hits, with the lines around
//! them. Without sockets: bytes and the time in, hits and a deadline out.
//!
//! ```text
//! plain   bytes without escape sequences
//! lines   text as lines, each bounded
//! rules   what is watched for, compiled once for all lines
//! around  the last lines, for what was said around a hit
//! host_key  the line by which a machine shows its SSH host key
//! feed    where a line's keeper hands over what came, and where hits go
//! ```
//!
//! A machine may say the same for ever: of each rule a line tells once, and then how often it was said again.

mod around;
mod feed;
pub mod host_key;
pub(crate) mod lines;
pub(crate) mod plain;
pub mod rules;

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use around::Around;
use lines::Lines;
use rules::{HOST_KEY, Rules, STARTS, TRACE};

pub use feed::{Feed, Found, Watching};
pub use rules::{BadPattern, Level, Rule};

/// Lines before a hit and behind it that are told with it.
const BEFORE: usize = 6;
const BEHIND: usize = 6;
/// A line that has not ended and says nothing for so long is a prompt.
const PROMPT: Duration = Duration::from_millis(300);
/// Whoever says nothing for so long has said what there is to say of it.
const QUIET: Duration = Duration::from_secs(1);
/// A hit waits no longer for the lines behind it.
const PATIENCE: Duration = Duration::from_secs(5);
/// Hits that wait for the lines behind them.
const WAITING_MAX: usize = 8;
/// What was told is told again after this at the earliest, and then twice as late each time.
const FOLD: Duration = Duration::from_secs(60);
const FOLD_MOST: Duration = Duration::from_secs(600);
/// A start has several lines that say so, and a login may fail: only more than this is a loop.
const USUAL: u32 = 5;
/// A machine has a host key of each kind; each line is another one, and none is folded. One that shows more in a
/// minute is not believed anyway.
const KEYS: u32 = 7;
/// Rules of which that is known at a time.
const FOLDS_MAX: usize = 32;

/// Something that a rule has seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hit {
    /// When, Unix milliseconds.
    pub at: u64,
    /// The rule's name.
    pub rule: String,
    /// How grave it is.
    pub level: Level,
    /// What.
    #[serde(flatten)]
    pub what: What,
}

/// What a rule has seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    /// A line, and those around it. Printable; bytes that are no UTF-8 are replaced.
    Said {
        /// The line.
        line: String,
        /// Those before it, oldest first.
        before: Vec<String>,
        /// Those behind it.
        behind: Vec<String>,
    },
    /// The same again, since it was told last.
    Again {
        /// How often.
        times: u32,
        /// Within so long, milliseconds.
        within: u64,
    },
}

/// Watches one line.
#[derive(Debug)]
pub struct Watcher {
    line: Arc<str>,
    rules: Arc<Rules>,
    lines: Lines,
    around: Around,
    waiting: Vec<Waiting>,
    folds: Vec<Fold>,
    /// When something last came.
    last: Option<Instant>,
    /// The line that has not ended was looked at as it is.
    looked: bool,
    /// The rules that matched it.
    known: Vec<usize>,
}

/// A hit that waits for the lines behind it.
#[derive(Debug)]
struct Waiting {
    rule: usize,
    at: u64,
    since: Instant,
    /// Its line's number.
    number: u64,
}

/// A rule that was told.
#[derive(Debug)]
struct Fold {
    rule: usize,
    until: Instant,
    wait: Duration,
    times: u32,
}

impl Watcher {
    /// Of the line with this name.
    pub fn new(line: Arc<str>, rules: Arc<Rules>) -> Watcher {
        Watcher {
            line,
            rules,
            lines: Lines::default(),
            around: Around::new(BEFORE + 1 + BEHIND),
            waiting: Vec::new(),
            folds: Vec::new(),
            last: None,
            looked: true,
            known: Vec::new(),
        }
    }

    /// By other rules from now on. What was seen by the former ones is told.
    pub fn rules(&mut self, rules: Arc<Rules>, hits: &mut Vec<Hit>) {
        for waiting in std::mem::take(&mut self.waiting) {
            self.tell(&waiting, hits);
        }
        self.folds.clear();
        self.known.clear();
        self.rules = rules;
    }

    /// This was said now: by both clocks, the second one in Unix milliseconds.
    pub fn came(&mut self, bytes: &[u8], (now, at): (Instant, u64), hits: &mut Vec<Hit>) {
        self.late((now, at), hits);
        self.last = Some(now);
        self.looked = false;
        let batch = self.lines.read(bytes);
        if batch.ends.is_empty() {
            return;
        }
        // What was a prompt has ended.
        let mut known = std::mem::take(&mut self.known);
        if !self.rules.stir(&batch.text) && self.waiting.is_empty() {
            let kept = batch.lines().filter(|(line, over)| !over && !is_blank(line));
            let kept: Vec<&[u8]> = kept.map(|(line, _)| line).collect();
            for line in kept.iter().skip(kept.len().saturating_sub(self.around.keeps())) {
                self.around.push(line);
            }
            return;
        }
        for (line, over) in batch.lines() {
            let known = std::mem::take(&mut known);
            let matched = self.matched(line);
            let number = self.around.written();
            if !(over || is_blank(line)) || !matched.is_empty() || !known.is_empty() {
                self.around.push(line);
            }
            for rule in matched.into_iter().filter(|rule| !known.contains(rule)) {
                self.hit((rule, number), (now, at), hits);
            }
            self.tell_whole(hits);
        }
    }

    /// The line broke off: what is there is all there is.
    pub fn broke_off(&mut self, now: (Instant, u64), hits: &mut Vec<Hit>) {
        self.came(b"\n", now, hits);
        self.tell_if(|_| true, hits);
    }

    /// The time that [`Watcher::deadline`] asked for has come.
    pub fn late(&mut self, (now, at): (Instant, u64), hits: &mut Vec<Hit>) {
        let silent = self.last.map_or(Duration::ZERO, |last| now.saturating_duration_since(last));
        if silent >= PROMPT && !self.looked {
            self.looked = true;
            let number = self.around.written();
            for rule in self.matched(self.lines.partial()) {
                if !self.known.contains(&rule) {
                    self.known.push(rule);
                    self.hit((rule, number), (now, at), hits);
                }
            }
        }
        let ready = |waiting: &Waiting| {
            silent >= QUIET || now.saturating_duration_since(waiting.since) >= PATIENCE
        };
        self.tell_if(ready, hits);
        self.fold((now, at), hits);
    }

    /// What was said again and again, is told when its time is over.
    fn fold(&mut self, (now, at): (Instant, u64), hits: &mut Vec<Hit>) {
        let mut told = Vec::new();
        self.folds.retain_mut(|fold| {
            if fold.until > now {
                return true;
            }
            if fold.times == 0 {
                return false;
            }
            let times = std::mem::take(&mut fold.times);
            told.push((fold.rule, times, fold.wait));
            let info = self.rules.get(fold.rule).is_some_and(|rule| rule.level == Level::Info);
            if !info || times > USUAL {
                fold.wait = (fold.wait * 2).min(FOLD_MOST);
            }
            fold.until = now + fold.wait;
            true
        });
        for (rule, times, within) in told {
            self.again(rule, (times, within), at, hits);
        }
    }

    /// When [`Watcher::late`] is to be called.
    pub fn deadline(&self) -> Option<Instant> {
        let last = self.last?;
        let prompt = !self.looked && !self.lines.partial().is_empty();
        let waiting = self.waiting.first().map(|first| (last + QUIET).min(first.since + PATIENCE));
        let folds = self.folds.iter().filter(|fold| fold.times > 0).map(|fold| fold.until);
        prompt.then_some(last + PROMPT).into_iter().chain(waiting).chain(folds).min()
    }

    fn matched(&self, line: &[u8]) -> Vec<usize> {
        let is_for =
            |rule: &usize| self.rules.get(*rule).is_some_and(|rule| rule.is_for(&self.line));
        self.rules.of_line(line).filter(is_for).collect()
    }

    /// A rule has seen the line with this number.
    fn hit(
        &mut self,
        (rule, number): (usize, u64),
        (now, at): (Instant, u64),
        hits: &mut Vec<Hit>,
    ) {
        let name = self.rules.get(rule).map_or("", |rule| &*rule.name);
        if name == TRACE && !self.waiting.is_empty() {
            return;
        }
        let starts = name == STARTS;
        if let Some(fold) = self.folds.iter_mut().find(|fold| fold.rule == rule) {
            fold.times = fold.times.saturating_add(1);
            if name == HOST_KEY && fold.times <= KEYS {
                self.wait((rule, number), (now, at), hits);
            }
            return;
        }
        if starts {
            // Another life: what is said in it is news.
            for fold in std::mem::take(&mut self.folds) {
                if fold.times > 0 {
                    self.again(fold.rule, (fold.times, fold.wait), at, hits);
                }
            }
        }
        if self.folds.len() >= FOLDS_MAX {
            let oldest = self.folds.remove(0);
            if oldest.times > 0 {
                self.again(oldest.rule, (oldest.times, oldest.wait), at, hits);
            }
        }
        self.folds.push(Fold { rule, until: now + FOLD, wait: FOLD, times: 0 });
        self.wait((rule, number), (now, at), hits);
    }

    /// For the lines behind it.
    fn wait(
        &mut self,
        (rule, number): (usize, u64),
        (now, at): (Instant, u64),
        hits: &mut Vec<Hit>,
    ) {
        if self.waiting.len() >= WAITING_MAX {
            let first = self.waiting.remove(0);
            self.tell(&first, hits);
        }
        self.waiting.push(Waiting { rule, at, since: now, number });
    }

    /// Those whose lines have all come.
    fn tell_whole(&mut self, hits: &mut Vec<Hit>) {
        let written = self.around.written();
        self.tell_if(|waiting| waiting.number + (BEHIND as u64) < written, hits);
    }

    fn tell_if(&mut self, ready: impl Fn(&Waiting) -> bool, hits: &mut Vec<Hit>) {
        for waiting in self.waiting.extract_if(.., |waiting| ready(waiting)).collect::<Vec<_>>() {
            self.tell(&waiting, hits);
        }
    }

    fn tell(&self, waiting: &Waiting, hits: &mut Vec<Hit>) {
        let Some(rule) = self.rules.get(waiting.rule) else { return };
        let number = waiting.number;
        let shown = |from, to| self.around.lines(from, to).into_iter().map(|line| shown(&line));
        // A prompt is not among the lines yet.
        let line =
            shown(number, number + 1).next().unwrap_or_else(|| self::shown(self.lines.partial()));
        let before = shown(number.saturating_sub(BEFORE as u64), number).collect();
        let behind = shown(number + 1, number + 1 + BEHIND as u64).collect();
        let what = What::Said { line, before, behind };
        hits.push(Hit { at: waiting.at, rule: rule.name.clone(), level: rule.level, what });
    }

    /// What is only good to know is not counted aloud.
    fn again(&self, rule: usize, (times, within): (u32, Duration), at: u64, hits: &mut Vec<Hit>) {
        let Some(rule) = self.rules.get(rule).filter(|rule| rule.level > Level::Info) else {
            return;
        };
        let within = u64::try_from(within.as_millis()).unwrap_or(u64::MAX);
        let what = What::Again { times, within };
        hits.push(Hit { at, rule: rule.name.clone(), level: rule.level, what });
    }
}

/// Fit for people: no control characters.
fn shown(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    text.trim_end().chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn is_blank(line: &[u8]) -> bool {
    line.iter().all(u8::is_ascii_whitespace)
}

#[cfg(test)]
mod tests;
