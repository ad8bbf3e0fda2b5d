//! `koboshi console`: which lines there are and how they are; what one says, from its last lines on.
//!
//! What a machine sends goes to a pipe as it is; a terminal is spared what acts on it ([`Filter`]). What is said of it
//! (names, causes, marks) has no control characters.

mod attach;
pub mod prompt;
pub mod script;
mod seat;
pub mod sysrq;
mod terminal;
pub mod transfer;

use std::io::{self, IsTerminal, Write};

use koboshi_console::attach::Filter;
use koboshi_console::{Drawn, Handle, Holder, Logging, Mark, Piece, State, Viewer, What};
use serde::{Deserialize, Serialize};

use super::table::{ago, clock, table};
use crate::api::Refusal;
use crate::app::App;
use crate::site::{Console, MachineName};
pub use attach::{Asked, run};
pub use seat::Seat;

/// What is asked.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Query {
    /// A machine, or a seat: the machine the matrix puts into it.
    pub who: String,
    /// With how many of its last lines it begins.
    #[serde(default = "twenty")]
    pub last: usize,
}

/// An address for a browser is asked for.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Browse {
    /// A machine, or a seat.
    pub who: String,
    /// Only to look.
    #[serde(default)]
    pub watch: bool,
}

/// An address for a browser.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Address {
    /// What to open. It is a secret until it is used.
    pub url: String,
    /// Whether whoever opens it may type.
    pub types: bool,
    /// How long it is good, once.
    pub seconds: u64,
}

fn twenty() -> usize {
    20
}

/// A line and how it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Its machine.
    pub machine: String,
    /// As in the site file: `sol`.
    pub console: String,
    /// How it is. None: this kind is not built yet.
    #[serde(flatten)]
    pub state: Option<State>,
    /// Who types, if anybody does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holder: Option<Holder>,
    /// How its log is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<Logging>,
}

/// Something that a line said, or that happened to it: one of the three.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Seen {
    /// When, Unix milliseconds.
    pub at: u64,
    /// Characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// Characters that are not UTF-8, or end within one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<Vec<u8>>,
    /// What happened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mark: Option<Mark>,
}

impl From<Piece> for Seen {
    fn from(piece: Piece) -> Seen {
        let mut seen = Seen { at: piece.at, text: None, bytes: None, mark: None };
        match piece.what {
            What::Mark(mark) => seen.mark = Some(mark),
            What::Text(text) => match String::from_utf8(text.into()) {
                Ok(text) => seen.text = Some(text),
                Err(other) => seen.bytes = Some(other.into_bytes()),
            },
        }
        seen
    }
}

/// Every console of the site.
pub fn all(app: &App) -> Vec<Row> {
    let mut lines = app.lines.status();
    let site = app.site.load();
    let mut machines: Vec<_> = site.machines.iter().collect();
    machines.sort_by(|one, other| one.0.cmp(other.0));
    let rows = machines.into_iter().filter_map(|(name, machine)| {
        let console = machine.console.as_ref()?.value.to_string();
        let state = lines.remove(name).map(|status| status.state);
        let line = app.lines.handle(name);
        let holder = line.as_ref().and_then(Handle::holder);
        let log = line.as_ref().and_then(Handle::logging);
        Some(Row { machine: name.to_string(), console, state, holder, log })
    });
    rows.collect()
}

/// The screen of one as it stands now, if `allow` says so.
pub fn screen(
    app: &App,
    who: &str,
    allow: impl FnOnce(&MachineName) -> Result<(), Refusal>,
) -> Result<Drawn, Refusal> {
    let (_, line) = line(app, who, allow)?;
    Ok(line.screen().0)
}

/// Follows one, if `allow` says so.
pub fn watch(
    app: &App,
    query: &Query,
    allow: impl FnOnce(&MachineName) -> Result<(), Refusal>,
) -> Result<(MachineName, Viewer), Refusal> {
    let (machine, line) = line(app, &query.who, allow)?;
    Ok((machine, line.view(query.last)))
}

/// The line of a machine, or of the machine in a seat, if `allow` says so.
pub fn line(
    app: &App,
    who: &str,
    allow: impl FnOnce(&MachineName) -> Result<(), Refusal>,
) -> Result<(MachineName, Handle), Refusal> {
    let site = app.site.load();
    let machine = super::one(&site, who)?;
    allow(&machine)?;
    if let Some(line) = app.lines.handle(&machine) {
        return Ok((machine, line));
    }
    let console = site.machines.get(&machine).and_then(|machine| machine.console.as_ref());
    Err(match console.map(|console| &console.value) {
        None => Refusal::not_found(
            format!("the site names no console for {machine}"),
            Some("console = \"sol\" with the machine, in its class or in [defaults]".to_string()),
        ),
        Some(Console::Sol) => Refusal::conflict(
            format!("{machine}'s console is not begun: it has no BMC, or the site was just read"),
            None,
        ),
        Some(other) => Refusal::conflict(
            format!("{machine}'s console is {other}, which is not built yet"),
            None,
        ),
    })
}

/// For a terminal.
pub fn show(rows: &[Row]) -> String {
    if rows.is_empty() {
        return "the site names no consoles\n".to_string();
    }
    let now = crate::ledger::now_ms();
    let cells = rows.iter().map(|row| {
        let since = |since: &u64| ago(now.saturating_sub(*since));
        let (state, since, note) = match &row.state {
            None => ("not built", String::new(), String::new()),
            Some(State::Opening) => ("opening", String::new(), String::new()),
            Some(State::Up { since: at }) => ("up", since(at), String::new()),
            Some(State::Down { since: at, why }) => ("down", since(at), why.clone()),
            Some(State::Stolen { since: at, by }) => {
                let by = by.as_deref().unwrap_or("another");
                ("taken", since(at), format!("by {by}"))
            }
        };
        let holder = row.holder.as_ref().map_or_else(String::new, |holder| {
            format!("{}, {}", holder.person, ago(now.saturating_sub(holder.since)))
        });
        let note = match row.log.as_ref().map(|log| (&log.failing, log.lost)) {
            None | Some((None, 0)) => note,
            Some((None, lost)) => format!("{note} {lost} characters are not in its log"),
            Some((Some((since, why)), lost)) => {
                let since = ago(now.saturating_sub(*since));
                format!("{note} not logged for {since} ({why}), {lost} characters lost")
            }
        };
        let note = note.trim_start().to_string();
        vec![row.machine.clone(), row.console.clone(), state.to_string(), since, holder, note]
    });
    let head = ["MACHINE", "CONSOLE", "STATE", "SINCE", "OPERATOR", "NOTE"];
    table(&head, &cells.collect::<Vec<_>>())
}

/// Where a console is shown: characters on standard output, marks on standard error; or all of it for
/// programs.
pub struct Screen {
    json: bool,
    /// Both are one terminal, and the machine's last line is not at its end.
    within: bool,
    terminal: bool,
    /// Where standard output is one.
    filter: Option<Filter>,
}

impl Screen {
    /// Nothing was shown yet.
    pub fn new(json: bool) -> Screen {
        let terminal = io::stdout().is_terminal() && io::stderr().is_terminal();
        let filter = io::stdout().is_terminal().then(Filter::new);
        Screen { json, within: false, terminal, filter }
    }

    /// Shows what came.
    pub fn show(&mut self, seen: &Seen) -> io::Result<()> {
        let mut out = io::stdout().lock();
        if self.json {
            serde_json::to_writer(&mut out, seen)?;
            out.write_all(b"\n")?;
            return out.flush();
        }
        if let Some(text) = seen.text.as_deref().map(str::as_bytes).or(seen.bytes.as_deref()) {
            self.within = text.last() != Some(&b'\n');
            match &mut self.filter {
                Some(filter) => {
                    let mut shown = Vec::new();
                    filter.pass(text, &mut shown);
                    out.write_all(&shown)?;
                }
                None => out.write_all(text)?,
            }
            out.flush()?;
        }
        if let Some(mark) = &seen.mark {
            let begin = if self.terminal && self.within { "\r\n" } else { "" };
            self.within = false;
            let line = note(seen.at, &mark.to_string());
            io::stderr().lock().write_all(format!("{begin}{line}\r\n").as_bytes())?;
        }
        Ok(())
    }
}

/// Something about a line, as it is shown between its characters. It may hold a stranger's words.
fn note(at: u64, text: &str) -> String {
    let line = format!("[{} {text}]", clock(at));
    line.chars().map(|c| if c.is_control() { '·' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn a_json_object_a_line() {
        let json = |what| {
            let seen = Seen::from(Piece { at: 7, what });
            let json = serde_json::to_string(&seen).unwrap();
            assert_eq!(serde_json::from_str::<Seen>(&json).unwrap(), seen);
            json
        };
        let text = |text: &'static [u8]| What::Text(Bytes::from_static(text));
        assert_eq!(json(text(b"\x1b[0m")), r#"{"at":7,"text":"\u001b[0m"}"#);
        assert_eq!(json(text(b"\xff")), r#"{"at":7,"bytes":[255]}"#);
        let gap = What::Mark(Mark::Gap { packets: 3 });
        assert_eq!(json(gap), r#"{"at":7,"mark":{"kind":"gap","packets":3}}"#);
    }

    #[test]
    fn a_table_of_all() {
        let row = |machine: &str, console: &str, state| Row {
            machine: machine.to_string(),
            console: console.to_string(),
            state,
            holder: None,
            log: None,
        };
        let why = "no answer \x1b[2J".to_string();
        let rows = [
            row("m01", "sol", Some(State::Down { since: 0, why })),
            row("sw1", "serial:/dev/ttyUSB1@9600", None),
        ];
        let shown = show(&rows);
        assert!(shown.contains("down") && shown.contains("no answer ·[2J"), "{shown}");
        assert!(shown.contains("not built"), "{shown}");
        let json = serde_json::to_string(&rows[0]).unwrap();
        assert!(json.contains(r#""state":"down""#), "{json}");
        assert_eq!(serde_json::from_str::<Row>(&json).unwrap(), rows[0]);
        let none: Row = serde_json::from_str(&serde_json::to_string(&rows[1]).unwrap()).unwrap();
        assert_eq!(none.state, None);
    }
}
