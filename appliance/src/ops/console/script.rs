//! `koboshi console WHO --script FILE`: what a person would do at a line, done by a script. It is read and its
//! values are found before anybody is asked for the line; what it sees is shown, and kept if that is wanted.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::future::ready;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::{SinkExt, StreamExt};
use koboshi_console::attach::Frame;
use koboshi_console::expect::{self, Failed, Note, Outcome, Program, Run, drive};
use serde::Serialize;
use tokio_tungstenite::tungstenite::Message;

use super::Query;
use crate::api::Client;
use crate::bmcs::secrets;
use crate::ledger::now_ms;
use crate::ops::table::clock;
use crate::site::origin::Source;
use crate::site::{Look, Problem, Problems};

/// Bytes of a script that are read.
const SCRIPT_MAX: u64 = 1 << 20;

/// What is to be run, as it was typed.
#[derive(Debug, Clone)]
pub struct Script {
    /// The script.
    pub path: PathBuf,
    /// Its values, in order or by name.
    pub values: Vec<String>,
    /// For whatever says no time of its own.
    pub timeout: Duration,
    /// Where what is seen is kept.
    pub log: Option<PathBuf>,
    /// Nothing is done: it is only said.
    pub dry: bool,
    /// The line is taken from whoever has it.
    pub take: bool,
    /// For programs.
    pub json: bool,
}

/// Everything that is needed to run it.
struct Ready {
    program: Program,
    values: HashMap<String, Vec<u8>>,
    secrets: HashMap<String, Vec<u8>>,
}

/// Runs it; the exit code: 0 well, 1 it failed, 2 the script or its values are not as they should be.
///
/// # Errors
/// There is no such line, or no appliance.
pub async fn run(client: &Client, who: String, script: Script) -> anyhow::Result<u8> {
    let Ready { program, values, secrets } = match read(&script) {
        Ok(has) => has,
        Err(problems) => {
            eprint!("{}", problems.render(Look::for_stderr()));
            return Ok(2);
        }
    };
    if script.dry {
        let shown = format!("at {who}'s console:\n{}", program.shown());
        io::stdout().write_all(shown.as_bytes())?;
        return Ok(0);
    }
    let mut seen = Seen::new(&script)?;
    let socket = client.socket("/console/attach", &Query { who, last: 0 }).await?;
    let run = Run::new(Arc::new(program), values, secrets, script.timeout);
    let (to, from) = socket.split();
    let from = from.scan((), |(), message| ready_frame(message.ok()));
    let from = from.filter_map(ready);
    let to = to.with(|frame| {
        ready(Ok::<_, tokio_tungstenite::tungstenite::Error>(match frame {
            Frame::Characters(bytes) => Message::Binary(bytes),
            Frame::Control(text) => Message::Text(text.into()),
        }))
    });
    let running = drive(run, script.take, from, to, |note| seen.note(&note));
    let outcome = tokio::select! {
        outcome = running => outcome,
        _ = tokio::signal::ctrl_c() => None,
    };
    let outcome = outcome.unwrap_or_else(|| {
        Outcome::Failed(Failed {
            line: 0,
            why: "it was broken off at the keyboard".to_string(),
            expected: Vec::new(),
            waited: None,
            last: Vec::new(),
        })
    });
    seen.end(&script, &outcome)?;
    Ok(u8::from(!matches!(outcome, Outcome::Done { .. })))
}

/// Of a message. The outer None: nothing comes any more.
fn ready_frame(message: Option<Message>) -> std::future::Ready<Option<Option<Frame>>> {
    ready(message.map(|message| match message {
        Message::Binary(bytes) => Some(Frame::Characters(bytes)),
        Message::Text(text) => Some(Frame::Control(text.to_string())),
        _ => None,
    }))
}

/// Reads it and finds its values.
fn read(script: &Script) -> Result<Ready, Problems> {
    let mut problems = Problems::default();
    let shown = script.path.display().to_string();
    let source = |text: &str| Source::new(script.path.clone(), shown.clone(), text.to_string(), 0);
    let text = match contents(&script.path) {
        Ok(text) => text,
        Err(why) => {
            let origin = source("").origin(0..0);
            problems.push(Problem::error("script", &origin, format!("it cannot be read: {why}")));
            return Err(problems);
        }
    };
    let source = source(&text);
    let program = match Program::parse(&text) {
        Ok(program) => program,
        Err(faults) => {
            for expect::Fault { at, message, help } in faults {
                let problem = Problem::error("script", &source.origin(at), message);
                problems.push(problem.maybe_help(help));
            }
            return Err(problems);
        }
    };
    let at = source.origin(0..0);
    let values = given(&program, &script.values).unwrap_or_else(|why| {
        let names = program.args.iter().map(|arg| match arg.otherwise {
            None => arg.name.to_uppercase(),
            Some(_) => format!("[{}]", arg.name.to_uppercase()),
        });
        let help = format!("--script {shown} {}", names.collect::<Vec<_>>().join(" "));
        problems.push(Problem::error("script", &at, why).help(help));
        HashMap::new()
    });
    let mut found = HashMap::new();
    // Nothing is typed, and no secret is needed.
    for secret in program.secrets.iter().filter(|_| !script.dry) {
        let origin = source.origin(secret.at.clone());
        let (value, careless) = look_up(&script.path, &secret.from);
        if let Some(careless) = careless {
            problems.push(Problem::error("secret", &origin, careless).help("chmod 600"));
        }
        match value {
            Ok(value) => drop(found.insert(secret.name.clone(), value)),
            Err(why) => problems.push(Problem::error("secret", &origin, why)),
        }
    }
    match problems.is_empty() {
        true => Ok(Ready { program, values, secrets: found }),
        false => Err(problems),
    }
}

fn contents(path: &Path) -> io::Result<String> {
    use std::io::Read;
    let mut text = String::new();
    File::open(path)?.take(SCRIPT_MAX).read_to_string(&mut text)?;
    Ok(text)
}

/// Its values: `name=value` where there is such a name, the others in their order.
fn given(program: &Program, typed: &[String]) -> Result<HashMap<String, Vec<u8>>, String> {
    let mut values: HashMap<String, Vec<u8>> = HashMap::new();
    let mut rest = Vec::new();
    for value in typed {
        match value
            .split_once('=')
            .filter(|(name, _)| program.args.iter().any(|arg| arg.name == *name))
        {
            Some((name, value)) => {
                if values.insert(name.to_string(), value.into()).is_some() {
                    return Err(format!("{name} is given twice"));
                }
            }
            None => rest.push(value),
        }
    }
    let mut rest = rest.into_iter();
    let mut missing = Vec::new();
    for arg in &program.args {
        if values.contains_key(&arg.name) {
            continue;
        }
        match rest.next().cloned().or_else(|| arg.otherwise.clone()) {
            Some(value) => drop(values.insert(arg.name.clone(), value.into())),
            None => missing.push(match &arg.help {
                Some(help) => format!("{} ({help})", arg.name),
                None => arg.name.clone(),
            }),
        }
    }
    if let Some(more) = rest.next() {
        return Err(format!("{more:?} is one value more than it takes"));
    }
    match missing.is_empty() {
        true => Ok(values),
        false => Err(format!("it needs {}", missing.join(" and "))),
    }
}

/// A secret, and what is careless about where it is.
fn look_up(script: &Path, from: &expect::From) -> (Result<Vec<u8>, String>, Option<String>) {
    let (value, careless) = match from {
        expect::From::Env(name) => {
            let value = std::env::var(name).map_err(|_| format!("the variable {name} is not set"));
            (value.map(String::into_bytes), None)
        }
        expect::From::File(path) => {
            let path = script.parent().unwrap_or(Path::new("")).join(path);
            let value = secrets::file(&path).map_err(|why| why.to_string());
            let careless = secrets::careless(&path);
            let careless = careless.map(|what| format!("{}: {what}", path.display()));
            (value.map(|value| value.as_bytes().to_vec()), careless)
        }
    };
    let value = value.and_then(|value| match value.is_empty() {
        true => Err("it is empty".to_string()),
        false => Ok(value),
    });
    (value, careless)
}

/// Where what is seen goes.
struct Seen {
    json: bool,
    terminal: bool,
    log: Option<BufWriter<File>>,
    failed: Option<io::Error>,
}

/// For programs, at its end.
#[derive(Serialize)]
struct Ended<'a> {
    script: String,
    #[serde(flatten)]
    outcome: &'a Outcome,
}

impl Seen {
    fn new(script: &Script) -> anyhow::Result<Seen> {
        let open = |path: &PathBuf| {
            // What machines say is not for everybody.
            let opened = OpenOptions::new().create(true).append(true).mode(0o600).open(path);
            opened.map_err(|why| anyhow::anyhow!("{}: {why}", path.display()))
        };
        let log = script.log.as_ref().map(open).transpose()?.map(BufWriter::new);
        let terminal = io::stdout().is_terminal();
        Ok(Seen { json: script.json, terminal, log, failed: None })
    }

    fn note(&mut self, note: &Note) {
        let (sign, text) = match note {
            Note::Heard(line) => ("<", line),
            Note::Sent(line) => (">", line),
            Note::Did(what) => ("!", what),
            Note::Says(what) => ("=", what),
        };
        if let Some(log) = &mut self.log {
            let line = format!("{} {sign} {text}\n", clock(now_ms()));
            self.failed = log.write_all(line.as_bytes()).err().or(self.failed.take());
        }
        // What the machine says is shown where somebody sits; a script's own words are its answer.
        if !self.json && (self.terminal || matches!(note, Note::Says(_))) {
            let sign = if self.terminal { format!("{sign} ") } else { String::new() };
            self.print(format!("{sign}{text}\n"));
        }
    }

    fn print(&mut self, text: String) {
        let mut out = io::stdout().lock();
        let printed = out.write_all(text.as_bytes()).and_then(|()| out.flush());
        self.failed = printed.err().or(self.failed.take());
    }

    fn end(mut self, script: &Script, outcome: &Outcome) -> anyhow::Result<()> {
        let shown = script.path.display().to_string();
        if self.json {
            let ended = Ended { script: shown.clone(), outcome };
            self.print(format!("{}\n", serde_json::to_string(&ended)?));
        }
        let words = match outcome {
            Outcome::Done { says } if says.is_empty() => "done".to_string(),
            Outcome::Done { says } => says.clone(),
            Outcome::Failed(failed) => format!("{shown}: {failed}"),
        };
        if let Some(mut log) = self.log.take() {
            let line = format!("{} = {}\n", clock(now_ms()), words.replace('\n', "\n    "));
            log.write_all(line.as_bytes())?;
            log.flush()?;
        }
        match outcome {
            _ if self.json => {}
            Outcome::Done { says } if says.is_empty() => {}
            Outcome::Done { .. } => self.print(format!("{words}\n")),
            Outcome::Failed(_) => eprintln!("koboshi: {words}"),
        }
        self.failed.map_or(Ok(()), |why| Err(why.into()))
    }
}

/// A time as somebody types it: `30s`, `500ms`, `2m`, or seconds.
///
/// # Errors
/// It is none, or longer than an hour.
pub fn time(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number = number.parse::<u32>().ok().filter(|number| *number > 0);
    let time = number.and_then(|number| match unit {
        "ms" => Some(Duration::from_millis(number.into())),
        "" | "s" => Some(Duration::from_secs(number.into())),
        "m" => Some(Duration::from_secs(u64::from(number) * 60)),
        _ => None,
    });
    let time = time.filter(|time| *time <= Duration::from_secs(3600));
    time.ok_or_else(|| "a time like 30s, 500ms or 2m, up to an hour".to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_in_order_and_by_name() {
        let program = "arg port \"like Gi1/0/7\"\narg user = \"admin\"\nsend \"${port}${user}\"\n";
        let program = Program::parse(program).unwrap();
        let given = |typed: &[&str]| {
            let typed: Vec<String> = typed.iter().map(ToString::to_string).collect();
            given(&program, &typed).map(|values| {
                let value = |name: &str| String::from_utf8_lossy(&values[name]).into_owned();
                format!("{} {}", value("port"), value("user"))
            })
        };
        assert_eq!(given(&["Gi1"]).as_deref(), Ok("Gi1 admin"));
        assert_eq!(given(&["user=eve", "a=b"]).as_deref(), Ok("a=b eve"));
        assert_eq!(given(&["Gi1", "eve"]).as_deref(), Ok("Gi1 eve"));
        assert_eq!(given(&[]), Err("it needs port (like Gi1/0/7)".to_string()));
        assert_eq!(
            given(&["1", "2", "3"]),
            Err("\"3\" is one value more than it takes".to_string())
        );
        assert_eq!(given(&["port=1", "port=2"]), Err("port is given twice".to_string()));
    }

    #[test]
    fn times_as_they_are_typed() {
        assert_eq!(time("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(time("30"), Ok(Duration::from_secs(30)));
        assert_eq!(time("500ms"), Ok(Duration::from_millis(500)));
        for bad in ["", "s", "0s", "2h", "90m", "-1s", "1.5s"] {
            assert!(time(bad).is_err(), "{bad}");
        }
    }
}
