//! How consoles are kept: what `[console]` says, or the defaults.

use std::path::PathBuf;
use std::time::Duration;

use koboshi_console::watch::rules::Rules;
use koboshi_console::watch::{Level, Rule};
use serde::Serialize;

use super::Site;
use crate::site::names::MachineName;
use crate::site::origin::At;
use crate::site::problem::{Problem, Problems};
use crate::site::written::ConsoleTable;

/// How the lines of all machines are kept.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Consoles {
    /// The most that one line's log takes, bytes.
    pub log_size: u64,
    /// An operator who types nothing for so long gives way to whoever asks.
    pub idle: Duration,
    /// Who may come in by SSH, and to which machines: a file of public keys.
    pub authorized_keys: Option<At<PathBuf>>,
    /// Whether what operators type is kept too.
    pub keystrokes: bool,
    /// What is looked for, besides what always is.
    pub watch: Vec<At<Watch>>,
}

/// Something to look for in what machines say.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Watch {
    /// What it is called in events.
    pub name: String,
    /// A regular expression, for one line of text.
    pub pattern: String,
    /// How much it matters.
    pub level: Level,
    /// Where. None: everywhere.
    pub machines: Option<Vec<MachineName>>,
}

impl Consoles {
    /// What is looked for, besides what always is.
    pub fn own_rules(&self) -> Vec<Rule> {
        own(&self.watch)
    }

    /// All that is looked for.
    pub fn rules(&self) -> Rules {
        // That they compile was seen when the site was read.
        Rules::new(&self.own_rules()).unwrap_or_default()
    }
}

fn own(watch: &[At<Watch>]) -> Vec<Rule> {
    let name = |machine: &MachineName| machine.to_string();
    let own =
        watch.iter().map(|At { value: Watch { name: of, pattern, level, machines }, .. }| Rule {
            name: of.clone(),
            pattern: pattern.clone(),
            level: *level,
            only: machines.as_ref().map(|machines| machines.iter().map(name).collect()),
        });
    own.collect()
}

impl Default for Consoles {
    fn default() -> Consoles {
        Consoles {
            log_size: 16 << 20,
            idle: Duration::from_secs(600),
            authorized_keys: None,
            keystrokes: false,
            watch: Vec::new(),
        }
    }
}

/// As meant; machines are looked up in the rest of the site.
pub(super) fn consoles(written: ConsoleTable, site: &Site, problems: &mut Problems) -> Consoles {
    let default = Consoles::default();
    let mut watch: Vec<At<Watch>> = Vec::new();
    for At { value: rule, origin } in written.watch {
        if let Some(first) = watch.iter().find(|known| known.name == rule.name.value) {
            let message = format!("rule {} is written twice", rule.name.value);
            let problem = Problem::error("written-twice", &origin, message).label("again");
            problems.push(problem.also(&first.origin, "first written here"));
        }
        let machines = rule.machines.map(|machines| {
            site.who(&machines.value).unwrap_or_else(|nobody| {
                let problem = Problem::error("nobody", &machines.origin, nobody.to_string());
                problems.push(problem.label("machines of this site go here"));
                Vec::new()
            })
        });
        let (name, pattern) = (rule.name.value, rule.pattern.value);
        watch.push(At::new(Watch { name, pattern, level: rule.level, machines }, origin));
    }
    // Each compiles by itself; a thousand of them may be too much.
    if let Some(last) = watch.last()
        && let Err(why) = Rules::new(&own(&watch))
    {
        let message = format!("what is looked for, all together, {why}");
        problems.push(Problem::error("too-large", &last.origin, message).label("the last rule"));
    }
    Consoles {
        log_size: written.log_size.map_or(default.log_size, |size| size.value),
        idle: written.idle.map_or(default.idle, |idle| idle.value),
        authorized_keys: written.authorized_keys,
        keystrokes: written.keystrokes.is_some_and(|keep| keep.value),
        watch,
    }
}
