//! `koboshi console WHO --break` and `--sysrq KEYS`: by somebody who comes to a line for nothing else.

use std::sync::Arc;

use koboshi_console::sysrq::{KEYS, Keys};
use koboshi_console::{Handle, Operation, Person};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::super::table::ago;
use crate::api::Refusal;
use crate::ledger::Ledger;
use crate::site::MachineName;

/// What is asked.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Query {
    /// A machine, or a seat: the machine the matrix puts into it.
    pub who: String,
    /// The keys, one after another. None: a BREAK alone.
    #[serde(default)]
    pub keys: Option<Keys>,
    /// The line is taken from whoever has it.
    #[serde(default)]
    pub take: bool,
}

/// Something that is sent, or why no more is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// The machine.
    pub machine: String,
    /// What is sent, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sent: Option<String>,
    /// Why it did not reach the line. Nothing follows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Takes the line if it is free, or is to be taken, and begins; each step is told. Who asked is gone: it ends.
pub async fn begin(
    ledger: &Arc<Ledger>,
    (machine, line): (MachineName, Handle),
    query: Query,
    by: String,
) -> Result<mpsc::Receiver<Step>, Refusal> {
    let person = Person { name: by.clone(), via: "cli".to_string() };
    let operator = if query.take {
        line.take(person)
    } else {
        line.ask(person).map_err(|holder| {
            let age = ago(crate::ledger::now_ms().saturating_sub(holder.since));
            let error = format!("{} has {machine}'s console, since {age}", holder.person);
            Refusal::conflict(error, Some("--take takes it from him".to_string()))
        })?
    };
    let what = query.keys.as_ref().map_or("BREAK".to_string(), |keys| format!("SysRq {keys}"));
    let text = format!("{by} sends {what} over its console");
    ledger.event("console", Some(machine.to_string()), text).await;
    let ends = |keys: &Keys| keys.to_string().contains(['b', 'c', 'e', 'i', 'o']);
    if query.keys.as_ref().is_some_and(ends) {
        ledger.restarted(machine.as_str());
    }
    let (tell, told) = mpsc::channel(64);
    tokio::spawn(async move {
        let step = |sent, error| Step { machine: machine.to_string(), sent, error };
        let begins = |sent: String| {
            let _nobody_listens = tell.try_send(step(Some(sent), None));
        };
        let sends = async {
            match &query.keys {
                Some(keys) => operator.sysrq(keys, |key| begins(key.to_string())).await,
                None => {
                    operator.operate(Operation::Break).await?;
                    begins("BREAK".to_string());
                    Ok(())
                }
            }
        };
        let done = tokio::select! {
            done = sends => done,
            () = tell.closed() => return,
        };
        if let Err(why) = done {
            let _nobody_listens = tell.send(step(None, Some(why.to_string()))).await;
        }
    });
    Ok(told)
}

/// For a terminal.
pub fn show(step: &Step) -> String {
    let Step { machine, sent, error } = step;
    let text = sent.as_deref().or(error.as_deref()).unwrap_or_default();
    let line = format!("{machine}: {text}");
    line.chars().map(|c| if c.is_control() { '·' } else { c }).collect()
}

/// What `--help` says of the keys.
pub fn help() -> String {
    let keys: String = KEYS
        .iter()
        .filter(|(key, _)| key.is_ascii_alphabetic())
        .map(|(key, words)| format!("\n  {key}  {words}"))
        .collect();
    format!(
        "Magic SysRq: for each key a BREAK and the key, with the time in between that the kernel needs; \
         b reboots at once, reisub as gently as it goes. Kernels do what kernel.sysrq allows, and say on the \
         console when they do not. A BREAK that no key followed is taken back by the next one: if nothing \
         happens, do the same once more\n{keys}\n  0 … 9  which messages reach the console: 0 panics alone, 8 all"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_with_the_query() {
        let read = |json: &str| serde_json::from_str::<Query>(json);
        let query = read(r#"{"who":"m01","keys":"SUB"}"#).unwrap();
        assert_eq!(query.keys.map(|keys| keys.to_string()).as_deref(), Some("sub"));
        assert!(read(r#"{"who":"m01"}"#).unwrap().keys.is_none());
        assert!(read(r#"{"who":"m01","keys":"s;"}"#).unwrap_err().to_string().contains("no key"));
        assert!(help().contains("\n  b  reboot at once") && help().contains("\n  w  show tasks"));
        let error = Some("a\u{1b}[2J".to_string());
        assert_eq!(show(&Step { machine: "m01".into(), sent: None, error }), "m01: a·[2J");
    }
}
