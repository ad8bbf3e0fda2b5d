//! By SSH: this host's own client, with the keys and the agent of whoever asks. It never asks back; a host key is
//! the one that the machine showed on its console, where the appliance saw that, and else what the client knows.

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, bail};
use bytes::Bytes;
use koboshi_initramfs::changes::{PROGRAM, WORD};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::sync::mpsc;

/// Bytes of a frame: no kernel talks on this line.
pub const FRAME: u32 = 4096;
/// Seconds until a machine that does not answer is given up.
const CONNECTS: &str = "ConnectTimeout=10";
/// What the client says of a failure.
const WORDS_MAX: usize = 4096;

/// Whom, and how.
#[derive(Debug, Clone)]
pub struct Whom<'a> {
    pub user: &'a str,
    pub address: Ipv4Addr,
    pub port: u16,
    /// OpenSSH's lines of `known_hosts`, where they are known.
    pub keys: Option<&'a Path>,
}

impl Whom<'_> {
    fn command(&self) -> Command {
        let mut command = Command::new("ssh");
        command.args(["-T", "-x", "-a", "-o", "BatchMode=yes", "-o", CONNECTS]);
        command.args(["-o", "ServerAliveInterval=10", "-o", "ServerAliveCountMax=3"]);
        if let Some(keys) = self.keys {
            // A machine makes its keys anew at every boot: what was known of its address before is no key.
            let known = format!("UserKnownHostsFile={}", keys.display());
            command.args(["-o", &known, "-o", "GlobalKnownHostsFile=/dev/null"]);
            command.args(["-o", "StrictHostKeyChecking=yes"]);
        }
        let sudo = if self.user == "root" { "" } else { "sudo -n " };
        command.args(["-p", &self.port.to_string(), "-l", self.user, "--"]);
        command.arg(self.address.to_string());
        command.arg(format!("{sudo}{PROGRAM} {WORD} {FRAME}"));
        command
    }
}

/// A connection.
pub struct Ssh {
    child: Child,
    stdin: ChildStdin,
    stdout: ChildStdout,
    stderr: ChildStderr,
}

impl Ssh {
    /// Starts the client.
    pub fn start(whom: &Whom<'_>) -> anyhow::Result<Ssh> {
        let mut command = whom.command();
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.kill_on_drop(true);
        let mut child = command.spawn().context("ssh (openssh-client) does not start")?;
        let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (Some(stdin), Some(stdout), Some(stderr)) = pipes else { bail!("ssh has no pipes") };
        Ok(Ssh { child, stdin, stdout, stderr })
    }

    /// Carries bytes both ways until the talk is over; what the client says of it, if it failed.
    pub async fn carry(
        self,
        say: mpsc::Sender<Bytes>,
        mut typed: mpsc::Receiver<Bytes>,
    ) -> anyhow::Result<()> {
        let Ssh { mut child, mut stdin, mut stdout, stderr } = self;
        let mut words = Vec::new();
        let said = async {
            let mut bytes = vec![0; 1 << 16];
            loop {
                let many = stdout.read(&mut bytes).await?;
                let Some(bytes) = bytes.get(..many).filter(|bytes| !bytes.is_empty()) else {
                    break;
                };
                if say.send(Bytes::copy_from_slice(bytes)).await.is_err() {
                    break;
                }
            }
            // Whoever listens is told that it is over.
            drop(say);
            std::io::Result::Ok(())
        };
        let types = async {
            while let Some(bytes) = typed.recv().await {
                stdin.write_all(&bytes).await?;
                stdin.flush().await?;
            }
            drop(stdin);
            std::io::Result::Ok(())
        };
        let complains = async {
            let mut stderr = stderr.take(WORDS_MAX as u64);
            let _as_much_as_there_is = stderr.read_to_end(&mut words).await;
        };
        let both = async {
            tokio::select! {
                said = said => said,
                typed = types => typed,
            }
        };
        let (carried, ()) = tokio::join!(both, complains);
        let status = child.wait().await.context("ssh does not end")?;
        let words = String::from_utf8_lossy(&words);
        let words = words.lines().map(str::trim).filter(|line| !line.is_empty());
        let words = words.map(super::talk::clean).collect::<Vec<_>>().join("; ");
        if !status.success() {
            bail!("{}", if words.is_empty() { format!("ssh ended with {status}") } else { words });
        }
        carried.context("the connection by SSH")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(whom: &Whom<'_>) -> String {
        let command = whom.command();
        let words = command.as_std().get_args().map(|word| word.to_string_lossy().into_owned());
        words.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn it_never_asks_and_believes_what_the_console_showed() {
        let address = Ipv4Addr::new(10, 77, 0, 11);
        let root = Whom { user: "root", address, port: 22, keys: None };
        let said = words(&root);
        assert!(
            said.contains("BatchMode=yes") && !said.contains("StrictHostKeyChecking"),
            "{said}"
        );
        assert!(
            said.ends_with("-p 22 -l root -- 10.77.0.11 /run/koboshi/koboshi-init changes 4096"),
            "{said}"
        );
        let said = words(&Whom { user: "ops", keys: Some(Path::new("/x/known")), ..root });
        assert!(said.contains("StrictHostKeyChecking=yes"), "{said}");
        assert!(said.contains("UserKnownHostsFile=/x/known"), "{said}");
        assert!(said.contains("sudo -n /run"), "{said}");
    }
}
