//! `[console]`: how lines are kept, for all of them, and what is looked for in what they say.

use std::path::PathBuf;
use std::time::Duration;

use koboshi_console::watch::rules::check;
use koboshi_console::watch::{BadPattern, Level};

use super::walk::{Value, Walk};
use crate::site::hostlist::HostList;
use crate::site::names::Malformed;
use crate::site::origin::At;
use crate::site::problem::Problem;
use crate::site::values::{Lease, RootSize, shown};

/// As written.
#[derive(Default)]
pub(in crate::site) struct ConsoleTable {
    pub log_size: Option<At<u64>>,
    pub idle: Option<At<Duration>>,
    pub authorized_keys: Option<At<PathBuf>>,
    pub keystrokes: Option<At<bool>>,
    pub watch: Vec<At<WatchTable>>,
}

/// A rule, its machines not looked up yet.
pub(in crate::site) struct WatchTable {
    pub name: At<String>,
    pub pattern: At<String>,
    pub level: Level,
    pub machines: Option<At<String>>,
}

const KEYS: &[&str] = &["log-size", "idle", "authorized-keys", "keystrokes", "watch"];
const WATCH_KEYS: &[&str] = &["name", "pattern", "level", "machines"];
/// Bounds of a line's log, bytes.
const LOG_LEAST: u64 = 64 << 10;
const LOG_MOST: u64 = 1 << 40;

pub(super) fn console(walk: &mut Walk, console: &mut ConsoleTable, value: &Value) {
    let Some(table) = walk.table("[console]", value) else { return };
    for (key, value) in table {
        match key.get_ref().as_ref() {
            "log-size" => {
                let text = walk.text("log-size", value);
                let size = text.and_then(|text| walk.meaning("size of a log", text, log_size));
                walk.once(&mut console.log_size, "log-size", size);
            }
            "idle" => {
                let text = walk.text("idle", value);
                let idle = text.and_then(|text| walk.meaning("time", text, idle));
                walk.once(&mut console.idle, "idle", idle);
            }
            "authorized-keys" => {
                let path = walk.path("authorized-keys", value);
                walk.once(&mut console.authorized_keys, "authorized-keys", path);
            }
            "keystrokes" => {
                let keep = walk.boolean("keystrokes", value);
                walk.once(&mut console.keystrokes, "keystrokes", keep);
            }
            "watch" => {
                let rules = walk.list("console.watch", value, |walk, _, value| rule(walk, value));
                console.watch.extend(rules);
            }
            _ => walk.unknown("[console]", key, KEYS),
        }
    }
}

fn rule(walk: &mut Walk, value: &Value) -> Option<At<WatchTable>> {
    let at = walk.at(value.span());
    let (mut name, mut pattern, mut level, mut machines) = (None, None, None, None);
    for (key, value) in walk.table("[[console.watch]]", value)? {
        match key.get_ref().as_ref() {
            "name" => {
                name = walk.text("name", value).filter(|name| super::plain(walk, "name", name));
            }
            "pattern" => {
                let text = walk.text("pattern", value);
                pattern = text.and_then(|text| walk.meaning("pattern", text, compiles));
            }
            "level" => {
                let words =
                    [("info", Level::Info), ("warning", Level::Warning), ("error", Level::Error)];
                level = walk.word("level", value, &words);
            }
            "machines" => {
                let text = walk.text("machines", value);
                machines = text.and_then(|text| {
                    walk.meaning("host list", text, |text| {
                        let list = text.parse::<HostList>();
                        list.map(|_| text.to_string())
                            .map_err(|bad| Malformed::new(bad.to_string()))
                    })
                });
            }
            _ => walk.unknown("[[console.watch]]", key, WATCH_KEYS),
        }
    }
    let table = value.get_ref().as_table()?;
    let mut missing = |key: &str, like: &str| {
        if !table.iter().any(|(known, _)| known.get_ref().as_ref() == key) {
            let problem = Problem::error("missing", &at, format!("this rule has no {key}"));
            walk.error(problem.label("a rule needs name and pattern").help(like.to_string()));
        }
    };
    missing("name", "name = \"raid\"");
    missing("pattern", "pattern = \"md[0-9]+.*degraded\"");
    let level = level.map(|level| level.value).unwrap_or_default();
    Some(At::new(WatchTable { name: name?, pattern: pattern?, level, machines }, at))
}

fn compiles(text: &str) -> Result<String, Malformed> {
    check(text).map(|()| text.to_string()).map_err(|why| {
        let malformed = Malformed::new(format!("{} {why}", shown(text)));
        malformed.help(match why {
            BadPattern::EveryLine => "a rule must ask for at least one character",
            BadPattern::Ends => "^ and $",
            BadPattern::Unreadable(_) | BadPattern::TooLarge => {
                "as in Rust's crate regex, of bytes: no look-around, no back references"
            }
        })
    })
}

/// A size of logs on disk, bytes.
pub(super) fn log_size(text: &str) -> Result<u64, Malformed> {
    let bad = |help| Malformed::new(format!("{} is no size for a log", shown(text))).help(help);
    match text.parse() {
        Ok(RootSize::Bytes(bytes)) if (LOG_LEAST..=LOG_MOST).contains(&bytes) => Ok(bytes),
        Ok(RootSize::Bytes(_)) => Err(bad("between 64k and 1t")),
        Ok(RootSize::Percent(_)) | Err(_) => Err(bad("a size like 16m or 1g")),
    }
}

fn idle(text: &str) -> Result<Duration, Malformed> {
    text.parse().map(|Lease(time)| time).map_err(|_| {
        Malformed::new(format!("{} is no time after which an operator is idle", shown(text)))
            .help("from 1m up, like 10m or 1h")
    })
}
