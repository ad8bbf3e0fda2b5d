//! What a machine logged: by syslog, and by netconsole.

use std::path::PathBuf;
use std::time::Duration;

use koboshi_console::log::{Find, pattern};
use serde::{Deserialize, Serialize};

use super::out::Out;
use super::{CONTEXT_MOST, LAST_MOST, Query, Row};
use crate::ops::console::Seen;
use crate::syslog::{Entry, Reader, Severity, Way};

/// Of one who follows: how often it is looked for more.
const LOOK: Duration = Duration::from_millis(250);

/// What a message says of itself, and how it came.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Said {
    /// How it came.
    pub way: Way,
    /// What part of the system.
    pub facility: String,
    /// How grave.
    pub severity: Severity,
    /// When, by the sender's clock; without an offset where it names none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<String>,
    /// What it calls itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app: Option<String>,
    /// Its process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub procid: Option<String>,
    /// The kind of message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub msgid: Option<String>,
    /// Structured data, as RFC 5424 writes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
}

impl Said {
    /// Before the line, for a terminal.
    pub fn mark(&self) -> String {
        let way = if self.way == Way::Netconsole { " netconsole" } else { "" };
        format!("{}.{}{way} ", self.facility, self.severity.as_str())
    }
}

/// Reads one directory.
pub(super) struct Logged {
    machine: String,
    reader: Option<Reader>,
    pub out: Out,
    find: Find<Row>,
    since: u64,
    until: u64,
    priority: Severity,
    /// Where it begins, as long as it has not.
    begin: Option<Begin>,
}

#[derive(Clone, Copy)]
enum Begin {
    Since(u64),
    Lines(usize),
}

impl Logged {
    pub fn new(query: &Query, machine: String, dir: PathBuf, out: Out) -> Logged {
        let grep = query.grep.as_ref().and_then(|grep| pattern(grep).ok());
        let begin = match (query.since, query.last) {
            (Some(since), _) => Begin::Since(since),
            (None, Some(last))
                if grep.is_none() && query.until.is_none() && query.priority.is_none() =>
            {
                Begin::Lines(last.min(LAST_MOST))
            }
            _ => Begin::Since(0),
        };
        Logged {
            machine,
            reader: Some(Reader::new(dir)),
            out,
            find: Find::new(grep, query.context.min(CONTEXT_MOST)),
            since: query.since.unwrap_or(0),
            until: query.until.unwrap_or(u64::MAX),
            priority: query.priority.unwrap_or(Severity::Debug),
            begin: Some(begin),
        }
    }

    /// All that was logged until now. False: nobody listens.
    pub async fn history(&mut self) -> bool {
        loop {
            let Some(entries) = self.more().await.filter(|entries| !entries.is_empty()) else {
                return true;
            };
            if !self.entries(entries).await {
                return false;
            }
        }
    }

    /// What is logged from now on, until nobody listens.
    pub async fn follow(mut self) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                () = self.out.closed() => return,
            }
            if !self.history().await {
                return;
            }
        }
    }

    /// What comes next. None: it cannot be read, which is said.
    async fn more(&mut self) -> Option<Vec<Entry>> {
        let mut reader = self.reader.take()?;
        let begin = self.begin.take();
        let read = tokio::task::spawn_blocking(move || {
            let begun = match begin {
                Some(Begin::Since(at)) => reader.since(at),
                Some(Begin::Lines(lines)) => reader.last(lines),
                None => Ok(()),
            };
            let read = begun.and_then(|()| reader.read());
            (reader, read)
        });
        let (reader, read) = read.await.ok()?;
        match read {
            Ok(entries) => {
                self.reader = Some(reader);
                Some(entries)
            }
            Err(why) => {
                tracing::warn!(machine = self.machine, %why, "its logs cannot be read");
                None
            }
        }
    }

    async fn entries(&mut self, entries: Vec<Entry>) -> bool {
        let mut rows = Vec::new();
        for entry in entries {
            let within = (self.since..=self.until).contains(&entry.at);
            if !within || entry.message.severity > self.priority {
                continue;
            }
            let row = row(&self.machine, entry);
            let line = row.line.clone().unwrap_or_default();
            self.find.line(&line, row, &mut rows);
        }
        self.out.give(rows).await
    }
}

fn row(machine: &str, Entry { at, way, message }: Entry) -> Row {
    let line = match (&message.app, &message.procid) {
        (Some(app), Some(process)) => format!("{app}[{process}]: {}", message.text),
        (Some(app), None) => format!("{app}: {}", message.text),
        (None, _) => message.text,
    };
    let said = Said {
        way,
        facility: message.facility.to_string(),
        severity: message.severity,
        time: message.time,
        host: message.host,
        app: message.app,
        procid: message.procid,
        msgid: message.msgid,
        data: message.data,
    };
    let seen = Seen { at, text: None, bytes: None, mark: None };
    Row { machine: machine.to_string(), line: Some(line), syslog: Some(Box::new(said)), seen }
}
