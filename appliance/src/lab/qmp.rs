//! QEMU's monitor: reset, ACPI power button, cable, NMI. One JSON object a line in each direction.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::timeout;

/// QEMU answers within milliseconds unless the host swaps or the machine is dying.
const PATIENCE: Duration = Duration::from_secs(20);

/// A monitor connection past its greeting.
pub struct Qmp {
    reader: BufReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
}

impl Qmp {
    /// Waits for QEMU's greeting and leaves the negotiation mode.
    pub async fn greet(stream: UnixStream) -> Result<Qmp, String> {
        let (reader, writer) = stream.into_split();
        let mut qmp = Qmp { reader: BufReader::new(reader), writer };
        let greeting = timeout(PATIENCE, qmp.read()).await.map_err(|_| "no greeting")??;
        if greeting.get("QMP").is_none() {
            return Err(format!("not a greeting: {greeting}"));
        }
        qmp.execute("qmp_capabilities", json!({})).await?;
        Ok(qmp)
    }

    /// Runs a command; events that come before its answer are skipped.
    pub async fn execute(&mut self, command: &str, arguments: Value) -> Result<Value, String> {
        let silent = |_| format!("no answer to {command}");
        timeout(PATIENCE, self.exchange(command, arguments)).await.map_err(silent)?
    }

    async fn exchange(&mut self, command: &str, arguments: Value) -> Result<Value, String> {
        let mut line = json!({ "execute": command, "arguments": arguments }).to_string();
        line.push('\n');
        self.writer.write_all(line.as_bytes()).await.map_err(|error| error.to_string())?;
        loop {
            let mut answer = self.read().await?;
            if let Some(error) = answer.get("error") {
                let said = error.get("desc").and_then(Value::as_str).unwrap_or("refused");
                return Err(format!("{command}: {said}"));
            }
            if let Some(value) = answer.get_mut("return") {
                return Ok(value.take());
            }
        }
    }

    async fn read(&mut self) -> Result<Value, String> {
        let mut line = String::new();
        match self.reader.read_line(&mut line).await {
            Ok(0) => Err("hung up".into()),
            Ok(_) => serde_json::from_str(&line).map_err(|error| format!("{error} in {line:?}")),
            Err(error) => Err(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn scripted(answers: &'static [&'static str]) -> Result<Qmp, String> {
        let (ours, theirs) = UnixStream::pair().expect("a socket pair");
        tokio::spawn(async move {
            let (reader, mut writer) = theirs.into_split();
            let mut lines = BufReader::new(reader).lines();
            for (turn, answer) in answers.iter().enumerate() {
                if turn > 0 {
                    lines.next_line().await.expect("attached");
                }
                writer.write_all(answer.as_bytes()).await.expect("attached");
            }
        });
        Qmp::greet(ours).await
    }

    #[tokio::test]
    async fn events_are_skipped_and_errors_told() {
        let mut qmp = scripted(&[
            "{\"QMP\": {\"version\": {}}}\r\n",
            "{\"return\": {}}\r\n",
            "{\"event\": \"RESET\", \"data\": {}}\r\n{\"return\": {\"status\": \"running\"}}\r\n",
            "{\"error\": {\"class\": \"CommandNotFound\", \"desc\": \"unknown\"}}\r\n",
        ])
        .await
        .expect("greeted");
        let status = qmp.execute("query-status", json!({})).await.expect("answered");
        assert_eq!(status["status"], "running");
        let error = qmp.execute("dance", json!({})).await.expect_err("refused");
        assert_eq!(error, "dance: unknown");
        qmp.execute("stop", json!({})).await.expect_err("it hung up");
    }
}
