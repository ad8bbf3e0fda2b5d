//! The lines of an operation over many machines, for whoever typed it: rows in columns as they come, or one
//! JSON object a line; how far it is; and who is how at the end, as host lists to paste.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};

use super::{Failure, Line, Said};
use crate::site::hostlist::fold;

/// Columns are no wider than this, however long one cell is.
const WIDE: usize = 40;

/// What was shown so far.
pub struct Shown {
    json: bool,
    widths: Vec<usize>,
    machines: usize,
    words: BTreeMap<String, Vec<String>>,
    failed: BTreeMap<String, Vec<String>>,
    /// What to try, by the kind of failure.
    help: BTreeMap<String, String>,
    bar: ProgressBar,
}

impl Shown {
    /// Nothing yet.
    pub fn new(json: bool) -> Shown {
        Shown {
            json,
            widths: Vec::new(),
            machines: 0,
            words: BTreeMap::new(),
            failed: BTreeMap::new(),
            help: BTreeMap::new(),
            bar: ProgressBar::hidden(),
        }
    }

    /// Shows a line; errors when nobody reads any more.
    pub fn line(&mut self, line: Line) -> std::io::Result<()> {
        match line {
            Line::Begin { machines, headings } => self.begin(&machines, &headings),
            Line::Said(machine, said) => self.said(&machine, &said),
            Line::Done(machine, said) => {
                self.said(&machine, &said)?;
                self.words.entry(said.word).or_default().push(machine);
                self.bar.inc(1);
                Ok(())
            }
            Line::Failed(machine, failure) => {
                self.failure(&machine, &failure)?;
                self.help.extend(failure.help.map(|help| (failure.kind.clone(), help)));
                self.failed.entry(failure.kind).or_default().push(machine);
                self.bar.inc(1);
                Ok(())
            }
        }
    }

    fn begin(&mut self, machines: &[String], headings: &[String]) -> std::io::Result<()> {
        self.machines = machines.len();
        let names = machines.iter().map(|name| name.chars().count()).max().unwrap_or(0);
        let head = std::iter::once("MACHINE").chain(headings.iter().map(String::as_str));
        let head: Vec<String> = head.map(str::to_string).collect();
        self.widths = head.iter().map(|cell| cell.chars().count()).collect();
        self.widths[0] = self.widths[0].max(names);
        if std::io::stderr().is_terminal() && self.machines > 1 {
            let bar = ProgressBar::new(self.machines as u64);
            bar.set_draw_target(ProgressDrawTarget::stderr());
            if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos} of {len}  {elapsed}") {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_millis(200));
            self.bar = bar;
        }
        if self.json || self.machines == 0 || headings.is_empty() {
            return Ok(());
        }
        let text = self.row(&head);
        self.print(&text)
    }

    fn said(&mut self, machine: &str, said: &Said) -> std::io::Result<()> {
        if self.json {
            return self.object(machine, said.data.clone());
        }
        let rows = said.cells.iter().map(|cells| {
            let row = std::iter::once(machine).chain(cells.iter().map(String::as_str));
            row.map(clean).collect::<Vec<_>>()
        });
        let rows: Vec<Vec<String>> = rows.collect();
        // Rows of one machine come together: they are as wide as their widest.
        for row in &rows {
            for (width, cell) in self.widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count().min(WIDE));
            }
        }
        let text: String = rows.iter().map(|row| self.row(row)).collect();
        self.print(&text)
    }

    fn failure(&self, machine: &str, failure: &Failure) -> std::io::Result<()> {
        if self.json {
            let Failure { kind, error, help } = failure;
            return self.object(machine, json!({ "failed": kind, "error": error, "help": help }));
        }
        let text = self.row(&[machine.to_string(), format!("! {}", clean(&failure.error))]);
        self.print(&text)
    }

    fn object(&self, machine: &str, data: Value) -> std::io::Result<()> {
        let mut object = serde_json::Map::new();
        object.insert("machine".to_string(), machine.into());
        match data {
            Value::Object(data) => object.extend(data),
            Value::Null => {}
            other => drop(object.insert("answer".to_string(), other)),
        }
        self.print(&format!("{}\n", Value::Object(object)))
    }

    /// Cells under their columns, the last one free.
    fn row(&self, cells: &[String]) -> String {
        let mut text = String::new();
        for (number, cell) in cells.iter().enumerate() {
            let width = self.widths.get(number).copied().unwrap_or(0);
            match number + 1 == cells.len() {
                true => text.push_str(cell),
                false => text.push_str(&format!("{cell:width$}  ")),
            }
        }
        format!("{}\n", text.trim_end())
    }

    fn print(&self, text: &str) -> std::io::Result<()> {
        self.bar.suspend(|| {
            let mut out = std::io::stdout().lock();
            out.write_all(text.as_bytes())?;
            out.flush()
        })
    }

    /// The end: who is how, and what to try where it failed. The exit code.
    pub fn end(self) -> u8 {
        self.bar.finish_and_clear();
        if !self.json {
            eprint!("{}", self.summary());
        }
        let done: usize = self.words.values().chain(self.failed.values()).map(Vec::len).sum();
        // A stream that broke off is a failure too.
        u8::from(!self.failed.is_empty() || done < self.machines)
    }

    fn summary(&self) -> String {
        let mut text = String::new();
        let hosts = |all: &BTreeMap<String, Vec<String>>| -> Vec<String> {
            let all = all.iter().filter(|(word, _)| !word.is_empty());
            all.map(|(word, hosts)| format!("{word}: {}", fold(hosts))).collect()
        };
        let mut parts = hosts(&self.words);
        parts.extend(hosts(&self.failed));
        if self.machines > 1 && !parts.is_empty() {
            text.push_str(&format!("{}\n", parts.join("; ")));
        }
        for (kind, help) in &self.help {
            text.push_str(&format!("{kind}: {help}\n"));
        }
        let done: usize = self.words.values().chain(self.failed.values()).map(Vec::len).sum();
        if done < self.machines {
            text.push_str(&format!(
                "{} of {} had not ended\n",
                self.machines - done,
                self.machines
            ));
        }
        text
    }
}

/// What a BMC wrote, fit for a terminal.
fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '·' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_is_a_host_list_for_each_word() {
        let mut shown = Shown::new(true);
        let machines: Vec<String> = (1..=5).map(|n| format!("m{n:02}")).collect();
        shown.machines = machines.len();
        for name in &machines[..3] {
            shown.line(Line::Done(name.clone(), Said::line("on", [], json!({})))).unwrap();
        }
        let failure = Failure::new("no answer", "no answer within 4 s").help("is it there?");
        shown.line(Line::Failed(machines[3].clone(), failure)).unwrap();
        let summary = shown.summary();
        assert_eq!(
            summary,
            "on: m[01-03]; no answer: m04\nno answer: is it there?\n1 of 5 had not ended\n"
        );
        assert_eq!(shown.end(), 1);
    }

    #[test]
    fn columns_line_up_and_hold_no_control_characters() {
        let mut shown = Shown::new(false);
        shown.begin(&["m1".into(), "node-100".into()], &["POWER".into(), "NOTE".into()]).unwrap();
        let row = shown.row(&["m1".into(), "on".into(), clean("a\x1b[2J")]);
        assert_eq!(row, "m1        on     a·[2J\n");
        assert_eq!(shown.row(&["m1".into(), "on".into(), String::new()]), "m1        on\n");
    }
}
