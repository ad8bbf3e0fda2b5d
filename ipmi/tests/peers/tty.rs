//! Programs that want a terminal: `ipmitool sol activate`, `ipmiconsole`.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::process::Child;

use super::{tool, until};

/// A program on a terminal of its own.
pub struct Tty {
    child: Child,
    keyboard: File,
    screen: Arc<Mutex<Vec<u8>>>,
    /// What of the screen was looked at.
    seen: usize,
    typed: String,
}

impl Tty {
    /// Starts it.
    pub fn spawn<S: AsRef<OsStr>>(program: &str, words: impl IntoIterator<Item = S>) -> Tty {
        let pty = nix::pty::openpty(None, None).expect("a terminal");
        let end = |fd: &OwnedFd| Stdio::from(fd.try_clone().expect("a descriptor"));
        let mut command = tool::bound("setsid");
        command.args(["--ctty", program]);
        let mut typed = program.to_owned();
        for word in words {
            typed.push(' ');
            typed.push_str(&word.as_ref().to_string_lossy());
            command.arg(word);
        }
        command.stdin(end(&pty.slave)).stdout(end(&pty.slave)).stderr(end(&pty.slave));
        let child = command.spawn().expect("setpriv and setsid (util-linux) run");
        drop(command);
        drop(pty.slave);
        let keyboard = File::from(pty.master);
        let mut reader = keyboard.try_clone().expect("a descriptor");
        let screen = Arc::new(Mutex::new(Vec::new()));
        let shown = Arc::clone(&screen);
        // Ends when the last process on the terminal does.
        std::thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(length) = reader.read(&mut piece) {
                if length == 0 {
                    return;
                }
                shown
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .extend_from_slice(&piece[..length]);
            }
        });
        Tty { child, keyboard, screen, seen: 0, typed }
    }

    /// Types.
    pub fn send(&mut self, keys: impl AsRef<[u8]>) {
        self.keyboard.write_all(keys.as_ref()).expect("the terminal takes keys");
    }

    /// Waits until it shows this, after what was waited for before.
    pub async fn expect(&mut self, text: &str) {
        let screen = Arc::clone(&self.screen);
        let seen = self.seen;
        let look = || {
            let screen = screen.lock().unwrap_or_else(PoisonError::into_inner);
            let at = screen[seen..].windows(text.len()).position(|w| w == text.as_bytes())?;
            Some(seen + at + text.len())
        };
        let what = format!("{} shows {text:?}", self.typed);
        let found = tokio::time::timeout(std::time::Duration::from_secs(40), until(&what, look));
        match found.await {
            Ok(end) => self.seen = end,
            Err(_) => panic!("{what}: {:?}", self.shown()),
        }
    }

    /// All it has shown.
    pub fn shown(&self) -> String {
        let screen = self.screen.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&screen).into_owned()
    }

    /// Waits for its end.
    pub async fn end(mut self) {
        let ended = tokio::time::timeout(std::time::Duration::from_secs(30), self.child.wait());
        assert!(ended.await.is_ok(), "{} does not end: {:?}", self.typed, self.shown());
    }
}
