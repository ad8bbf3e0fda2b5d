//! Power for hardware without IPMI: the command that the site names (`power = "exec:…"`), given one word more.

use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::AsyncReadExt;
use tokio::process::Command;

/// Bytes of a command's answer that are read.
const ANSWER_MAX: u64 = 4096;

/// What a command said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spoken {
    /// Its output.
    pub text: String,
    /// Whether it ended well.
    pub well: bool,
}

/// Runs `COMMAND WORD` by the shell, as the operator wrote it. An error says why there is no answer.
pub async fn run(command: &str, word: &str, patience: Duration) -> Result<Spoken, String> {
    let mut child = Command::new("/bin/sh")
        .args(["-c", &format!("{command} {word}")])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| error.to_string())?;
    let group = child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw);
    let mut text = Vec::new();
    let answer = async {
        if let Some(out) = child.stdout.take() {
            out.take(ANSWER_MAX).read_to_end(&mut text).await?;
        }
        child.wait().await
    };
    match tokio::time::timeout(patience, answer).await {
        Ok(Ok(status)) => {
            let text = String::from_utf8_lossy(&text).into_owned();
            Ok(Spoken { text, well: status.success() })
        }
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => {
            // With whatever the shell started.
            if let Some(group) = group
                && let Err(error) = killpg(group, Signal::SIGKILL)
            {
                tracing::debug!(%error, command, "a power command that hangs");
            }
            Err(format!("no answer within {} s", patience.as_secs()))
        }
    }
}

/// Whether the machine is on, by `COMMAND status`. What a command says that fails counts for nothing: a
/// fence rests on it.
pub async fn status(command: &str, patience: Duration) -> Result<bool, String> {
    let spoken = run(command, "status", patience).await?;
    match spoken.well {
        true => is_on(&spoken.text),
        false => Err(format!("status failed, and says {:?}", first_words(&spoken.text))),
    }
}

/// What a status command said: `Chassis Power is on`, `m07: off`, `running`, `shut off`. An error says what
/// it said instead; words of both kinds (`LED off, power on`) are neither.
fn is_on(text: &str) -> Result<bool, String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric()).map(str::to_ascii_lowercase);
    let (mut on, mut off) = (false, false);
    for word in words {
        on |= matches!(word.as_str(), "on" | "running");
        off |= word == "off";
    }
    match (on, off) {
        (true, false) => Ok(true),
        (false, true) => Ok(false),
        (true, true) => Err(format!("it says {:?}, both on and off", first_words(text))),
        (false, false) => Err(format!("it says {:?}, not on or off", first_words(text))),
    }
}

/// The beginning of what it said, fit for a line.
pub fn first_words(text: &str) -> String {
    text.trim().chars().filter(|c| !c.is_control()).take(40).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_a_command_that_ends_well_says_on_or_off() {
        let patience = Duration::from_secs(20);
        for (command, expected) in [
            ("echo Chassis Power is on #", Some(true)),
            ("printf 'shut off\n' #", Some(false)),
            ("echo running #", Some(true)),
            ("echo m07: off; false", None),
            ("echo off; exit 1 #", None),
            (r#"echo '"IndicatorLED":"Off","PowerState":"On"' #"#, None),
            ("echo Auto-off: disabled, power: on #", None),
            ("echo offline #", None),
        ] {
            let said = status(command, patience).await;
            assert_eq!(said.clone().ok(), expected, "{command}: {said:?}");
        }
    }
}
