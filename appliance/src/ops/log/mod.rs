//! `koboshi log`: what machines said on their consoles and what they logged, by time, by pattern, as it comes;
//! from the appliance, or from the files themselves where none runs.

mod logged;
mod out;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::FutureExt;
use futures::stream::{FuturesUnordered, StreamExt};
use koboshi_console::log::{Cast, Find, Plain, directory, pattern};
use koboshi_console::{Mark, Piece, Start, Viewer, What};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use logged::Logged;
pub use logged::Said;
use out::Out;

use super::console::Seen;
use super::table::clock;
use crate::api::Refusal;
use crate::app::App;
use crate::lines::logs;
use crate::site::hostlist;
use crate::syslog::{self, Severity, UNKNOWN};

/// Rows that wait for a slow reader.
const ROWS: usize = 256;
/// Of one who follows: a line without its end is shown when nothing more came for so long.
const PROMPT: Duration = Duration::from_millis(500);
/// The last lines are never more.
const LAST_MOST: usize = 100_000;
const CONTEXT_MOST: usize = 1000;

/// What is asked.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Query {
    /// A host list, a seat, `@group`, `@role` or `@all`.
    pub who: String,
    /// Nothing older, Unix milliseconds.
    #[serde(default)]
    pub since: Option<u64>,
    /// Nothing younger, Unix milliseconds.
    #[serde(default)]
    pub until: Option<u64>,
    /// Only lines that match.
    #[serde(default)]
    pub grep: Option<String>,
    /// And so many lines before and behind each.
    #[serde(default)]
    pub context: usize,
    /// Only the last so many of each machine.
    #[serde(default)]
    pub last: Option<usize>,
    /// Stay and tell.
    #[serde(default)]
    pub follow: bool,
    /// Characters as they came, not lines.
    #[serde(default)]
    pub raw: bool,
    /// Where they said it.
    #[serde(default)]
    pub from: From,
    /// Of what they logged, only what is so grave or graver.
    #[serde(default)]
    pub priority: Option<Severity>,
}

/// Where machines say things.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum From {
    /// On their consoles
    #[default]
    Console,
    /// By syslog, and by netconsole where no program is left to log
    Syslog,
    /// Both, in the order of time
    All,
}

impl From {
    fn consoles(self) -> bool {
        self != From::Syslog
    }

    fn syslog(self) -> bool {
        self != From::Console
    }
}

/// What is read of one machine.
pub struct Source {
    machine: String,
    /// Its console.
    viewer: Option<Viewer>,
    /// The directory of what it logged.
    logged: Option<PathBuf>,
}

/// Something a machine said, or that happened to its console: one of the four.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Whose console.
    pub machine: String,
    /// A line of text, safe to show.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<String>,
    /// Of a line that it logged: what it says of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub syslog: Option<Box<Said>>,
    /// When; characters as they came; what happened.
    #[serde(flatten)]
    pub seen: Seen,
}

/// How rows are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Export {
    /// asciicast v2, for `asciinema play`
    Cast,
    /// Lines of text with times
    Text,
}

/// The machines that are meant, with where each is read, if `allow` lets them be.
pub fn sources(
    app: &App,
    query: &Query,
    allow: impl Fn(&str) -> Result<(), Refusal>,
) -> Result<Vec<Source>, Refusal> {
    let start = check(query)?;
    let machines = match app.site.load().who(&query.who) {
        Ok(machines) => machines,
        Err(nobody) => {
            let strangers = strangers(&app.state, query);
            if strangers.is_empty() {
                return Err(Refusal::not_found(nobody.to_string(), None));
            }
            strangers.iter().try_for_each(|place| allow(place))?;
            return Ok(strangers
                .into_iter()
                .filter_map(|place| stranger(&app.state, place))
                .collect());
        }
    };
    machines.iter().try_for_each(|machine| allow(machine.as_str()))?;
    let root = logs(&app.state);
    let all = machines.into_iter().map(|machine| {
        let viewer = || match app.lines.handle(&machine) {
            Some(line) => Some(line.history(start)),
            None => Some(Viewer::of_files(directory(&root, machine.as_str()).ok()?, start)),
        };
        let viewer = if query.from.consoles() { viewer() } else { None };
        let logged = query.from.syslog();
        let logged = logged.then(|| syslog::directory(&app.state, machine.as_str()).ok()).flatten();
        Source { machine: machine.to_string(), viewer, logged }
    });
    Ok(all.collect())
}

/// The same without an appliance: the names are directories. To be called within a runtime.
pub fn files(state: &Path, query: &Query) -> Result<Vec<Source>, Refusal> {
    let start = check(query)?;
    let root = logs(state);
    let mut found = Vec::new();
    if query.from.consoles() {
        let folders = std::fs::read_dir(&root).into_iter().flatten().flatten();
        found.extend(folders.filter_map(|entry| entry.file_name().into_string().ok()));
    }
    if query.from.syslog() {
        let strange = |place: &String| !place.starts_with(&format!("{UNKNOWN}/"));
        found.extend(syslog::places(state).into_iter().filter(strange));
    }
    found.sort();
    found.dedup();
    let names = match query.who.as_str() {
        "@all" => found.clone(),
        who => {
            let strangers = strangers(state, query);
            if !strangers.is_empty() {
                return Ok(strangers
                    .into_iter()
                    .filter_map(|place| stranger(state, place))
                    .collect());
            }
            let hosts = hostlist::expand(who);
            let hosts = hosts.map_err(|error| Refusal::not_found(error.to_string(), None))?;
            hosts.into_iter().map(|host| host.name).collect()
        }
    };
    let mut all = Vec::new();
    for name in names {
        if !found.contains(&name) {
            let help = "no appliance answers, and without one only machines with a log are known";
            let error = format!("{name} has no log under {}", state.display());
            return Err(Refusal::not_found(error, Some(help.to_string())));
        }
        let bad = |error: io::Error| Refusal::failed(error.to_string());
        let dir = directory(&root, &name).map_err(bad)?;
        let viewer = query.from.consoles().then(|| Viewer::of_files(dir, start));
        let logged = syslog::directory(state, &name).map_err(bad)?;
        let logged = query.from.syslog().then_some(logged);
        all.push(Source { machine: name, viewer, logged });
    }
    Ok(all)
}

/// Senders that are no machines of the site: `@unknown`, an address, a MAC.
fn strangers(state: &Path, query: &Query) -> Vec<String> {
    if !query.from.syslog() {
        return Vec::new();
    }
    let who = query.who.trim_start_matches(&format!("{UNKNOWN}/")).replace(':', "-");
    let unknown = |place: &str| place.strip_prefix(UNKNOWN)?.strip_prefix('/').map(str::to_string);
    let places = syslog::places(state).into_iter().filter(|place| match unknown(place) {
        Some(address) => query.who == "@unknown" || address == who,
        None => *place == who,
    });
    places.collect()
}

fn stranger(state: &Path, place: String) -> Option<Source> {
    let logged = syslog::directory(state, &place).ok()?;
    Some(Source { machine: place, viewer: None, logged: Some(logged) })
}

/// Whether any log is there.
pub fn has_any(state: &Path) -> bool {
    logs(state).is_dir() || syslog::root(state).is_dir()
}

fn check(query: &Query) -> Result<Start, Refusal> {
    if let Some(grep) = &query.grep {
        pattern(grep).map_err(|why| Refusal::not_found(format!("--grep: {why}"), None))?;
    }
    if query.from.syslog() && query.raw {
        let error = "--raw and a cast are of characters, as consoles have them: --from console";
        return Err(Refusal::not_found(error.to_string(), None));
    }
    Ok(match (query.since, &query.grep, query.until, query.last) {
        (Some(since), ..) => Start::Since(since),
        (None, None, None, Some(last)) => Start::Lines(last.min(LAST_MOST)),
        _ => Start::Oldest,
    })
}

/// Begins: the history of each machine, one after the other, then what they say, if it is followed.
pub fn begin(query: Query, sources: Vec<Source>) -> mpsc::Receiver<Row> {
    let (rows, told) = mpsc::channel(ROWS);
    tokio::spawn(async move {
        let mut followed = FuturesUnordered::new();
        for Source { machine, viewer, logged } in sources {
            let out = Out::new(&query, rows.clone());
            let console = viewer.map(|viewer| Reading::new(&query, machine.clone(), viewer, out));
            let out = Out::new(&query, rows.clone());
            let logged = logged.map(|dir| Logged::new(&query, machine, dir, out));
            let goes_on = match (console, logged) {
                (Some(mut console), Some(mut logged)) => {
                    let both = out::merged(&query, &mut console, &mut logged, &rows).await;
                    if both && query.follow {
                        followed.push(console.follow().boxed());
                        followed.push(logged.follow().boxed());
                    }
                    both
                }
                (Some(mut console), None) => {
                    let goes_on = console.history().await && console.out.end().await;
                    if goes_on && query.follow {
                        followed.push(console.follow().boxed());
                    }
                    goes_on
                }
                (None, Some(mut logged)) => {
                    let goes_on = logged.history().await && logged.out.end().await;
                    if goes_on && query.follow {
                        followed.push(logged.follow().boxed());
                    }
                    goes_on
                }
                (None, None) => true,
            };
            if !goes_on {
                return;
            }
        }
        while followed.next().await.is_some() {}
    });
    told
}

struct Reading {
    machine: String,
    viewer: Viewer,
    out: Out,
    plain: Plain,
    find: Find<Row>,
    until: u64,
    since: u64,
    raw: bool,
}

impl Reading {
    fn new(query: &Query, machine: String, viewer: Viewer, out: Out) -> Reading {
        let grep = query.grep.as_ref().and_then(|grep| pattern(grep).ok());
        Reading {
            machine,
            viewer,
            out,
            plain: Plain::default(),
            find: Find::new(grep, query.context.min(CONTEXT_MOST)),
            until: query.until.unwrap_or(u64::MAX),
            since: query.since.unwrap_or(0),
            raw: query.raw,
        }
    }

    /// All that was said until now. False: nobody listens.
    async fn history(&mut self) -> bool {
        while let Some(piece) = self.viewer.now().await {
            if piece.at > self.until {
                break;
            }
            // A time is one of a tenth of a second, and a place may be before it.
            if piece.at >= self.since && !self.piece(piece).await {
                return false;
            }
        }
        self.prompt().await
    }

    /// What is said from now on, until the line ends or nobody listens.
    async fn follow(mut self) {
        loop {
            let next = tokio::select! {
                next = tokio::time::timeout(PROMPT, self.viewer.next()) => next,
                () = self.out.closed() => return,
            };
            let goes_on = match next {
                Err(_) => self.prompt().await,
                Ok(None) => return,
                Ok(Some(piece)) if piece.at > self.until => return,
                Ok(Some(piece)) => self.piece(piece).await,
            };
            if !goes_on {
                return;
            }
        }
    }

    async fn prompt(&mut self) -> bool {
        let rest = self.plain.rest();
        let lines = rest.into_iter().collect();
        self.lines(lines).await
    }

    async fn piece(&mut self, piece: Piece) -> bool {
        if self.raw {
            let (machine, seen) = (self.machine.clone(), Seen::from(piece));
            return self.out.give(vec![Row { machine, line: None, syslog: None, seen }]).await;
        }
        match piece.what {
            What::Text(text) => {
                let mut lines = Vec::new();
                self.plain.came(piece.at, &text, &mut lines);
                self.lines(lines).await
            }
            What::Mark(mark) => {
                if !self.prompt().await {
                    return false;
                }
                let mut rows = Vec::new();
                let row = self.row(piece.at, None, Some(mark));
                self.find.other(row, &mut rows);
                self.out.give(rows).await
            }
        }
    }

    async fn lines(&mut self, lines: Vec<koboshi_console::log::Line>) -> bool {
        let mut rows = Vec::new();
        for line in lines {
            let row = self.row(line.at, Some(line.text.clone()), None);
            self.find.line(&line.text, row, &mut rows);
        }
        self.out.give(rows).await
    }

    fn row(&self, at: u64, line: Option<String>, mark: Option<Mark>) -> Row {
        let seen = Seen { at, text: None, bytes: None, mark };
        Row { machine: self.machine.clone(), line, syslog: None, seen }
    }
}

/// Shows rows on standard output.
pub struct Show {
    json: bool,
    names: bool,
    times: bool,
    raw: bool,
    cast: Option<Cast>,
}

impl Show {
    /// `names`: before each line stands whose it is.
    pub fn new(json: bool, names: bool, times: bool, raw: bool, export: Option<Export>) -> Show {
        let cast = (export == Some(Export::Cast)).then(Cast::default);
        Show { json, names, times: times || export == Some(Export::Text), raw, cast }
    }

    /// Shows one.
    pub fn row(&mut self, row: &Row) -> io::Result<()> {
        let mut out = io::stdout().lock();
        let bytes = row.seen.text.as_deref().map(str::as_bytes).or(row.seen.bytes.as_deref());
        if let Some(cast) = &mut self.cast {
            let text = match (bytes, &row.seen.mark) {
                (Some(bytes), _) => cast.came(&row.machine, row.seen.at, bytes),
                (None, Some(mark)) => cast.mark(&row.machine, row.seen.at, mark),
                (None, None) => String::new(),
            };
            return out.write_all(text.as_bytes());
        }
        if self.json {
            serde_json::to_writer(&mut out, row)?;
            return out.write_all(b"\n");
        }
        if self.raw {
            return out.write_all(bytes.unwrap_or_default());
        }
        let mut line = String::new();
        if self.names {
            line += &format!("{}: ", row.machine);
        }
        // A line that was logged has no place on a screen to tell its time by.
        if self.times || row.syslog.is_some() {
            line += &format!("{}  ", precise(row.seen.at));
        }
        if let Some(said) = &row.syslog {
            line += &said.mark();
        }
        match (&row.line, &row.seen.mark) {
            (Some(text), _) => line += text,
            (None, Some(mark)) if self.times => line += &format!("[{mark}]"),
            (None, Some(mark)) => line += &format!("[{} {mark}]", clock(row.seen.at)),
            (None, None) => {}
        }
        let line: String = line.chars().map(|c| if c.is_control() { '·' } else { c }).collect();
        writeln!(out, "{line}")
    }
}

fn precise(ms: u64) -> String {
    let at = jiff::Timestamp::from_millisecond(i64::try_from(ms).unwrap_or(i64::MAX));
    let at = at.map(|at| at.to_zoned(jiff::tz::TimeZone::system()));
    at.map_or_else(|_| "-".to_string(), |at| at.strftime("%Y-%m-%d %H:%M:%S%.3f").to_string())
}

/// A moment that a person wrote: `10m` (ago), `14:03`, `2026-11-25 14:03:27`, RFC 3339. Unix milliseconds.
///
/// # Errors
/// It is none, and what would be one.
pub fn moment(text: &str) -> Result<u64, String> {
    moment_at(text, &jiff::Zoned::now())
}

fn moment_at(text: &str, now: &jiff::Zoned) -> Result<u64, String> {
    let ms = |at: jiff::Timestamp| u64::try_from(at.as_millisecond()).unwrap_or(0);
    if let Some((at, unit)) = text.char_indices().next_back()
        && let Ok(many) = text[..at].parse::<u64>()
        && let Some(unit) = match unit {
            's' => Some(1),
            'm' => Some(60),
            'h' => Some(3600),
            'd' => Some(86_400),
            _ => None,
        }
    {
        return Ok(ms(now.timestamp()).saturating_sub(many.saturating_mul(unit * 1000)));
    }
    if let Ok(at) = text.parse::<jiff::Timestamp>() {
        return Ok(ms(at));
    }
    let zone = now.time_zone().clone();
    let local = |at: jiff::civil::DateTime| at.to_zoned(zone.clone()).map(|at| ms(at.timestamp()));
    if let Ok(time) = text.parse::<jiff::civil::Time>() {
        let today = now.date().to_datetime(time);
        let at = local(today).map_err(|why| why.to_string())?;
        // What is still to come was meant of yesterday.
        return Ok(if at > ms(now.timestamp()) { at.saturating_sub(86_400_000) } else { at });
    }
    if let Ok(at) = text.parse::<jiff::civil::DateTime>() {
        return local(at).map_err(|why| why.to_string());
    }
    Err(format!("{text:?} is no time: 10m (ago), 2h, 14:03, 2026-11-25, \"2026-11-25 14:03:27\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_as_people_write_them() {
        let now: jiff::Zoned = "2026-11-25T14:30:00[UTC]".parse().unwrap();
        let at = |text: &str| {
            moment_at(text, &now).map(|at| (now.timestamp().as_millisecond() as u64 - at) / 1000)
        };
        assert_eq!(at("10m"), Ok(600));
        assert_eq!(at("2h"), Ok(7200));
        assert_eq!(at("14:03"), Ok(27 * 60));
        assert_eq!(at("14:29:30"), Ok(30));
        assert_eq!(at("15:00"), Ok(23 * 3600 + 1800));
        assert_eq!(at("2026-11-25 14:00"), Ok(1800));
        assert_eq!(at("2026-11-25"), Ok(14 * 3600 + 1800));
        assert_eq!(at("2026-11-25T14:29:59Z"), Ok(1));
        for wrong in ["", "m", "yesterday", "10x", "10é", "99999999999999999999d"] {
            assert!(at(wrong).is_err(), "{wrong}");
        }
    }
}
