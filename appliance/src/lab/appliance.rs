//! `koboshi serve` as a child inside a rack, and what it says of the machines.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::Deserialize;
use tokio::process::{Child, Command};

use super::rack::Rack;

/// One row of `koboshi status --json`, as far as a rack is concerned.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Row {
    /// Machine.
    pub machine: String,
    /// The seat the matrix gives it.
    pub seat: String,
    /// Role it boots or runs.
    pub role: String,
    /// Address.
    pub address: String,
    /// How far it is: `off` … `up`.
    pub stage: String,
    /// Unix milliseconds of its last step; 0 if it never took one.
    pub since: u64,
}

/// An appliance that runs inside a rack and ends with it.
pub struct Appliance {
    child: Child,
    program: PathBuf,
    state: PathBuf,
    log: PathBuf,
}

impl Appliance {
    /// Starts `program` (see [`own_path`]) and waits until it answers. It logs to `appliance.log`
    /// in the rack's directory.
    pub async fn start(
        rack: &Rack,
        program: &Path,
        site: &Path,
        state: &Path,
    ) -> anyhow::Result<Appliance> {
        let log = rack.dir().join("appliance.log");
        let file = std::fs::OpenOptions::new().create(true).append(true).open(&log);
        let file = file.with_context(|| log.display().to_string())?;
        let mut command = rack.command(program);
        command.arg("serve").arg("--site").arg(site).arg("--state").arg(state);
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let child = rack.spawn(command).await?;
        let (program, state) = (program.to_path_buf(), state.to_path_buf());
        let mut appliance = Appliance { child, program, state, log };
        appliance.answering().await?;
        Ok(appliance)
    }

    async fn answering(&mut self) -> anyhow::Result<()> {
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                bail!("the appliance did not start ({status})\n{}", self.log_tail());
            }
            match self.rows().await {
                Ok(_) => return Ok(()),
                Err(error) if began.elapsed() > Duration::from_secs(60) => {
                    bail!("the appliance does not answer: {error}\n{}", self.log_tail());
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
            }
        }
    }

    /// `koboshi WORDS --state …`, from outside the rack as an operator would.
    pub fn koboshi(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(words).arg("--state").arg(&self.state).stdin(Stdio::null()).kill_on_drop(true);
        command
    }

    /// The machines as `koboshi status` shows them.
    pub async fn rows(&self) -> anyhow::Result<Vec<Row>> {
        let output = self.koboshi(&["status", "--json"]).output().await?;
        serde_json::from_slice(&output.stdout).with_context(|| {
            let said = String::from_utf8_lossy(&output.stderr);
            format!("koboshi status --json: {}", said.trim())
        })
    }

    /// What looks to it as if somebody meant harm, a line each.
    pub async fn hostile(&self) -> anyhow::Result<Vec<String>> {
        let output = self.koboshi(&["status"]).output().await?;
        let text = String::from_utf8_lossy(&output.stdout);
        let lines = text.lines().filter_map(|line| line.strip_prefix("WARNING: hostile wire, "));
        Ok(lines.map(str::to_string).collect())
    }

    /// Its process, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Waits until it ends by itself.
    pub async fn ended(&mut self) -> String {
        match self.child.wait().await {
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        }
    }

    /// The last lines it logged.
    pub fn log_tail(&self) -> String {
        let text = std::fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }

    /// Ends it in good order, and by force if that takes longer than eight seconds.
    pub async fn stop(mut self) {
        self.signal(Signal::SIGTERM);
        let _ = tokio::time::timeout(Duration::from_secs(8), self.child.wait()).await;
        self.kill().await;
    }

    /// `kill -9`.
    pub async fn kill(mut self) {
        let _ = self.child.kill().await;
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        if let Some(pid) = self.child.id().and_then(|pid| i32::try_from(pid).ok()) {
            let _ = kill(Pid::from_raw(pid), signal);
        }
    }
}

/// The running program.
pub fn own_path() -> PathBuf {
    // After a rebuild the link of a running program says "(deleted)": the new one is meant.
    let path = std::env::current_exe().unwrap_or_else(|_| "koboshi".into());
    match path.to_str().and_then(|path| path.strip_suffix(" (deleted)")) {
        Some(replaced) => replaced.into(),
        None => path,
    }
}
