//! From a key to its echo, while the line says other things: straight over a machine's socket, or through SSH while
//! others look at the same line and one of them does not read.
//!
//! ```text
//! key_echo --socket PATH [--keys 400]
//! key_echo --ssh 127.0.0.1:2222 --who m0000 --identity FILE [--viewers 50] [--keys 400]
//! key_echo --ssh 127.0.0.1:2222 --who m0000 --identity FILE --draw 40
//! ```
//! The third comes to a silent line so often, with a terminal, and waits until its screen is drawn.
//!
//! What is typed must not be among what the line says. One line of JSON, milliseconds.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use russh::ChannelMsg;
use russh::client::{self, AuthResult};
use russh::keys::{PrivateKeyWithHashAlg, load_secret_key};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::UnixStream;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// What is typed.
const KEY: u8 = b'#';
/// Between two keys, and a little more each time: not in step with whatever ticks.
const PAUSE: Duration = Duration::from_millis(23);
/// When nothing has come for so long, a screen is drawn.
const QUIET: Duration = Duration::from_millis(400);
/// An echo that takes longer is none.
const PATIENCE: Duration = Duration::from_secs(10);

#[tokio::main(worker_threads = 1)]
async fn main() -> Result<(), Failure> {
    let mut words = std::env::args().skip(1);
    let (mut socket, mut ssh, mut who, mut identity) =
        (None, String::new(), String::new(), String::new());
    let (mut viewers, mut keys, mut draws) = (50, 400, 0);
    while let Some(word) = words.next() {
        let value = words.next().unwrap_or_default();
        match word.as_str() {
            "--socket" => socket = Some(value),
            "--ssh" => ssh = value,
            "--who" => who = value,
            "--identity" => identity = value,
            "--viewers" => viewers = value.parse()?,
            "--keys" => keys = value.parse()?,
            "--draw" => draws = value.parse()?,
            _ => return Err(format!("{word}: see the first lines of this program").into()),
        }
    }
    let mut took = match socket {
        Some(path) => typed(UnixStream::connect(path).await?, keys).await?,
        None if draws > 0 => drawn(&ssh, &who, Path::new(&identity), draws).await?,
        None => through_ssh(&ssh, &who, Path::new(&identity), viewers, keys).await?,
    };
    took.sort_unstable();
    let at = |share: usize| {
        took.get((took.len() * share / 100).min(took.len() - 1))
            .map_or(0.0, |took| took.as_secs_f64() * 1e3)
    };
    println!(
        "{{\"keys\": {}, \"median_ms\": {:.3}, \"p99_ms\": {:.3}, \"longest_ms\": {:.3}}}",
        took.len(),
        at(50),
        at(99),
        at(100)
    );
    Ok(())
}

/// Types keys, and how long the echo of each took.
async fn typed(
    mut line: impl AsyncRead + AsyncWrite + Unpin,
    keys: u32,
) -> Result<Vec<Duration>, Failure> {
    let mut took = Vec::new();
    let mut buffer = vec![0; 64 * 1024];
    for number in 0..keys {
        let pause = tokio::time::sleep(PAUSE + Duration::from_micros(u64::from(number % 97) * 131));
        tokio::pin!(pause);
        // What comes meanwhile is read.
        loop {
            tokio::select! {
                () = &mut pause => break,
                read = line.read(&mut buffer) => if read? == 0 { return Err("it ended".into()) },
            }
        }
        let begun = Instant::now();
        line.write_all(&[KEY]).await?;
        line.flush().await?;
        loop {
            let read = tokio::time::timeout(PATIENCE, line.read(&mut buffer)).await??;
            if read == 0 {
                return Err("it ended".into());
            }
            if buffer.iter().take(read).any(|byte| *byte == KEY) {
                break;
            }
        }
        took.push(begun.elapsed());
    }
    Ok(took)
}

struct Anybody;

impl client::Handler for Anybody {
    type Error = russh::Error;

    async fn check_server_key(
        &mut self,
        _: &russh::keys::PublicKeyOrCertificate,
    ) -> Result<bool, russh::Error> {
        Ok(true)
    }
}

async fn through_ssh(
    at: &str,
    who: &str,
    identity: &Path,
    viewers: usize,
    keys: u32,
) -> Result<Vec<Duration>, Failure> {
    // OpenSSH's own, each a process. The first one does not read.
    let (host, port) = at.rsplit_once(':').ok_or("HOST:PORT")?;
    let mut looking = Looking(Vec::new());
    for _ in 0..viewers {
        let viewer = Command::new("ssh")
            .args(["-F", "none", "-T", "-n", "-p", port, "-l", who, "-i"])
            .arg(identity)
            .args(["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"])
            .args(["-o", "LogLevel=ERROR", "-o", "IdentitiesOnly=yes", host, "watch"])
            .stdin(Stdio::null())
            .stdout(if looking.0.is_empty() { Stdio::piped() } else { Stdio::null() })
            .stderr(Stdio::null())
            .spawn()?;
        looking.0.push(viewer);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    tokio::time::sleep(Duration::from_secs(2)).await;

    let client = log_in(at, who, identity).await?;
    let channel = client.channel_open_session().await?;
    channel.exec(false, "take last 0").await?;
    let took = typed(channel.into_stream(), keys).await?;
    for viewer in &mut looking.0 {
        if viewer.try_wait()?.is_some() {
            return Err("a viewer has ended".into());
        }
    }
    Ok(took)
}

async fn log_in(at: &str, who: &str, identity: &Path) -> Result<client::Handle<Anybody>, Failure> {
    let key = Arc::new(load_secret_key(identity, None)?);
    let mut client = client::connect(Arc::default(), at, Anybody).await?;
    let key = PrivateKeyWithHashAlg::new(key, None);
    match client.authenticate_publickey(who, key).await? {
        AuthResult::Success => Ok(client),
        AuthResult::Failure { .. } => Err("the key is not taken".into()),
    }
}

/// From the wish for a console to the last of what is drawn at once.
async fn drawn(
    at: &str,
    who: &str,
    identity: &Path,
    draws: usize,
) -> Result<Vec<Duration>, Failure> {
    let mut took = Vec::new();
    for _ in 0..draws {
        let client = log_in(at, who, identity).await?;
        let begun = Instant::now();
        let mut channel = client.channel_open_session().await?;
        channel.request_pty(false, "xterm", 80, 24, 0, 0, &[]).await?;
        channel.request_shell(false).await?;
        let (mut last, mut bytes) = (begun, 0);
        while let Ok(message) = tokio::time::timeout(QUIET, channel.wait()).await {
            match message {
                Some(ChannelMsg::Data { data }) => {
                    bytes += data.len();
                    last = Instant::now();
                }
                Some(_) => {}
                None => return Err("it ended".into()),
            }
        }
        // Half a screen of what chatter says.
        if bytes < 800 {
            return Err(format!("{bytes} bytes are no screen").into());
        }
        took.push(last - begun);
    }
    Ok(took)
}

/// They end with this.
struct Looking(Vec<std::process::Child>);

impl Drop for Looking {
    fn drop(&mut self) {
        for viewer in &mut self.0 {
            let _it_ended_already = viewer.kill();
            let _it_ended_already = viewer.wait();
        }
    }
}
