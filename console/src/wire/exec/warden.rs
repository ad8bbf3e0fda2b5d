//! Who ends a command's session: a shell that waits at a pipe which only we hold. When it is closed, by us or
//! by our end, the session is told to end, hung up, which interactive shells heed, and killed.
//!
//! A parent-death signal would go to one process of it, and when the thread that began it ends; a hang-up of
//! the terminal is not heeded by everybody, and never reaches jobs in the background.

use std::io;
use std::process::Stdio;
use std::task::{Context, Poll};

use futures::FutureExt;
use tokio::process::{Child, ChildStdin, Command};

/// `$1` is the session. Who belongs to it is in proc(5), field 6: three fields behind the name in brackets comes
/// the session. What ends well ends within the first tenths of a second.
const SCRIPT: &str = r#"
session=$1
all() {
    left=
    for stat in /proc/[0-9]*/stat; do
        { read -r line < "$stat"; } 2> /dev/null || continue
        pid=${line%% *}
        set -- ${line##*) }
        if [ "$4" = "$session" ] && [ "$1" != Z ]; then
            left="$left $pid"
        fi
    done
    [ -n "$left" ]
}
read -r _
for signal in TERM HUP; do
    all && kill -s $signal $left 2> /dev/null && kill -s CONT $left 2> /dev/null
    for tenth in 1 2 3; do
        all || all || exit 0
        sleep 0.1
    done
done
for again in 1 2 3; do
    all || all || exit 0
    kill -s KILL $left 2> /dev/null
    sleep 0.02
done
"#;

/// Over one session, which it ends when it is dropped.
#[derive(Debug)]
pub(super) struct Warden {
    /// While this is open it waits.
    leash: Option<ChildStdin>,
    process: Child,
}

impl Warden {
    /// Over the session of this number.
    pub fn over(session: u32) -> io::Result<Warden> {
        let mut process = Command::new("/bin/sh")
            .args(["-c", SCRIPT, "koboshi-warden", &session.to_string()])
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // What is meant for us on a terminal is not for it.
            .process_group(0)
            .spawn()?;
        Ok(Warden { leash: process.stdin.take(), process })
    }

    /// Ends the session, and is ready when nobody of it is left.
    pub fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.leash = None;
        let wait = self.process.wait();
        tokio::pin!(wait);
        wait.poll_unpin(cx).map(|_| ())
    }
}
