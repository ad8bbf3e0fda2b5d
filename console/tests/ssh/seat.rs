//! Who comes: OpenSSH as a program that runs, and a client of our own that trusts anybody.

use std::process::Output;
use std::sync::Arc;
use std::time::Instant;

use russh::client::{self, AuthResult};
use russh::keys::PrivateKeyWithHashAlg;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;

use crate::rig::{CEILING, private};

pub async fn ended(mut command: Command) -> Output {
    let ended = tokio::time::timeout(CEILING, command.output()).await;
    ended.expect("it ends").expect("it runs")
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// An `ssh` that runs.
pub struct Seat {
    pub child: Child,
    pub out: mpsc::Receiver<Vec<u8>>,
    pub err: mpsc::Receiver<Vec<u8>>,
    pub seen: Vec<u8>,
    pub heard: Vec<u8>,
}

pub fn read(
    mut from: impl tokio::io::AsyncRead + Unpin + Send + 'static,
) -> mpsc::Receiver<Vec<u8>> {
    let (send, receive) = mpsc::channel(64);
    tokio::spawn(async move {
        let mut buffer = vec![0; 16 * 1024];
        while let Ok(many @ 1..) = from.read(&mut buffer).await {
            if send.send(buffer[..many].to_vec()).await.is_err() {
                return;
            }
        }
    });
    receive
}

impl Seat {
    pub fn new(mut child: Child) -> Seat {
        let (out, err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        Seat { out: read(out), err: read(err), child, seen: Vec::new(), heard: Vec::new() }
    }

    pub async fn types(&mut self, bytes: &[u8]) {
        let stdin = self.child.stdin.as_mut().expect("a pipe");
        stdin.write_all(bytes).await.expect("ssh reads");
        stdin.flush().await.expect("ssh reads");
    }

    /// Until that was shown on standard output or error.
    pub async fn sees(&mut self, part: &str) {
        let ends = Instant::now() + CEILING;
        let has = |bytes: &[u8]| text(bytes).contains(part);
        while !has(&self.seen) && !has(&self.heard) {
            let all = || format!("{:?} {:?}", text(&self.seen), text(&self.heard));
            tokio::select! {
                Some(bytes) = self.out.recv() => self.seen.extend(bytes),
                Some(bytes) = self.err.recv() => self.heard.extend(bytes),
                () = tokio::time::sleep_until(ends.into()) => panic!("no {part:?} in {}", all()),
                else => panic!("ssh ended without {part:?}: {}", all()),
            }
        }
    }

    pub fn saw(&self) -> String {
        text(&self.seen) + &text(&self.heard)
    }

    /// Its exit code, when all of what it said is known.
    pub async fn leaves(&mut self) -> i32 {
        let ended = tokio::time::timeout(CEILING, self.child.wait()).await;
        while let Some(bytes) = self.out.recv().await {
            self.seen.extend(bytes);
        }
        while let Some(bytes) = self.err.recv().await {
            self.heard.extend(bytes);
        }
        ended.expect("it ends").expect("it ran").code().expect("by itself")
    }
}

/// Trusts any server: it is ours.
pub struct Anybody;

impl client::Handler for Anybody {
    type Error = russh::Error;

    async fn check_server_key(
        &mut self,
        _: &russh::keys::PublicKeyOrCertificate,
    ) -> Result<bool, russh::Error> {
        Ok(true)
    }
}

pub async fn log_in(handle: &mut client::Handle<Anybody>, who: &str, seed: u8) -> bool {
    let key = PrivateKeyWithHashAlg::new(Arc::new(private(seed)), None);
    matches!(handle.authenticate_publickey(who, key).await, Ok(AuthResult::Success))
}
