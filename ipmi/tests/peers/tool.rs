//! Programs that others wrote, run with a time-out and a failure that can be read.

use std::ffi::OsStr;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

/// What any one command may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A program that ends with the test, also when the test is killed: the kernel signals it once the thread that
/// started it is gone.
pub fn bound(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    command
        .args(["--pdeathsig", "KILL", "sh", "-c", r#"[ "$PPID" = "$0" ] && exec "$@""#])
        .arg(std::process::id().to_string())
        .arg(program)
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

/// What a command printed.
#[derive(Debug, Clone)]
pub struct Said {
    /// As typed.
    pub typed: String,
    /// Whether it ended well.
    pub well: bool,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Said {
    /// Standard output of a command that has to go well.
    pub fn ok(self) -> String {
        assert!(self.well, "{}\n{}{}", self.typed, self.out, self.err);
        self.out
    }

    /// Both outputs of a command that must not go well.
    pub fn refused(self) -> String {
        assert!(!self.well, "{} went well:\n{}{}", self.typed, self.out, self.err);
        self.out + &self.err
    }
}

/// Runs a program to its end.
pub async fn run<S: AsRef<OsStr>>(program: &str, words: impl IntoIterator<Item = S>) -> Said {
    let mut command = bound(program);
    let mut typed = program.to_owned();
    for word in words {
        typed.push(' ');
        typed.push_str(&word.as_ref().to_string_lossy());
        command.arg(word);
    }
    let output = match tokio::time::timeout(PATIENCE, command.output()).await {
        Ok(output) => output.expect("setpriv (util-linux) runs"),
        Err(_) => panic!("{typed}: not done within {} s", PATIENCE.as_secs()),
    };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let err = text(&output.stderr);
    assert!(output.status.code() != Some(127), "{typed}: {err} (`make setup` installs it)");
    Said { typed, well: output.status.success(), out: text(&output.stdout), err }
}
