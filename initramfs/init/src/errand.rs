//! What PID 1 does not do itself, because it may hang or wants another `/`: a mount that waits for a
//! server, a program of the root's own. Each runs as a child of this very program, can be killed, and
//! PID 1 goes on listening to the console meanwhile.

use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use rustix::mount::MountFlags;

use crate::mounts;

const ITSELF: &str = "/proc/self/exe";
const MOUNT: &str = "mount-errand";
const IN_ROOT: &str = "in-root-errand";
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";
const SAID_MAX: u64 = 16 * 1024;
/// The exit code that stands for an errno on standard output.
const REFUSED: u8 = 3;

/// The child's half: does the errand named first, if it is one.
pub fn run(args: impl Iterator<Item = String>) -> Option<ExitCode> {
    let args: Vec<String> = args.skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words.as_slice() {
        [MOUNT, source, target, kind, flags, data] => {
            let flags = MountFlags::from_bits_retain(flags.parse().ok()?);
            match mounts::mount_from(source, target, kind, flags, data) {
                Ok(()) => Some(ExitCode::SUCCESS),
                Err(error) => {
                    print!("{}", error.raw_os_error().unwrap_or(0));
                    Some(ExitCode::from(REFUSED))
                }
            }
        }
        [IN_ROOT, root, program, rest @ ..] => {
            let entered = rustix::process::chroot(*root)
                .and_then(|()| rustix::process::chdir("/"))
                .map_err(io::Error::from);
            let error = match entered {
                Ok(()) => Command::new(program).args(rest).exec(),
                Err(error) => error,
            };
            eprintln!("{program}: {error}");
            Some(ExitCode::from(127))
        }
        _ => None,
    }
}

/// A mount under way.
pub fn mount(
    source: &str,
    target: &str,
    kind: &str,
    flags: MountFlags,
    data: &str,
) -> io::Result<Errand> {
    let flags = flags.bits().to_string();
    let mut command = Command::new(ITSELF);
    command.args([MOUNT, source, target, kind, &flags, data]);
    Errand::begin(command)
}

/// A program of another root, with that root as its `/`.
pub fn in_root(root: &Path, program: &str, args: &[&str]) -> io::Result<Errand> {
    let mut command = Command::new(ITSELF);
    command.arg(IN_ROOT).arg(root).arg(program).args(args);
    command.env_clear().env("PATH", PATH);
    // There is no udev yet to make the nodes of device mapper: its library does it itself then.
    command.env("DM_DISABLE_UDEV", "1");
    Errand::begin(command)
}

/// A program of the root that is ours.
pub fn here(program: &str, args: &[&str]) -> io::Result<Errand> {
    let mut command = Command::new(program);
    command.args(args).env_clear().env("PATH", PATH).env("LC_ALL", "C");
    Errand::begin(command)
}

/// A child at work.
#[derive(Debug)]
pub struct Errand {
    child: Child,
    begun: Instant,
}

/// How it ended.
#[derive(Debug)]
pub struct Ended {
    /// Well.
    pub well: bool,
    /// The errno of a mount that was refused.
    pub refused: Option<i32>,
    /// What it printed.
    pub said: String,
}

impl Errand {
    fn begin(mut command: Command) -> io::Result<Errand> {
        let child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        Ok(Errand { child, begun: Instant::now() })
    }

    /// How long it has been away.
    pub fn age(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Its end, if it has come.
    pub fn ended(&mut self) -> io::Result<Option<Ended>> {
        let Some(status) = self.child.try_wait()? else { return Ok(None) };
        let mut said = Vec::new();
        if let Some(out) = self.child.stdout.take() {
            lying_there(out, &mut said);
        }
        let refused = (status.code() == Some(i32::from(REFUSED)))
            .then(|| str::from_utf8(&said).ok().and_then(|errno| errno.parse().ok()))
            .flatten();
        if let Some(err) = self.child.stderr.take() {
            lying_there(err, &mut said);
        }
        let said = String::from_utf8_lossy(&said).trim().to_owned();
        Ok(Some(Ended { well: status.success(), refused, said }))
    }

    /// Ends it. What hangs in the kernel where no signal reaches it is left behind.
    pub fn give_up(mut self) {
        let _ = self.child.kill();
        let end = Instant::now() + Duration::from_secs(2);
        while Instant::now() < end && matches!(self.child.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// What is in a pipe now: a daemon the errand left behind (mdmon) may hold its other end for ever.
fn lying_there(mut pipe: impl Read + AsFd, said: &mut Vec<u8>) {
    if rustix::io::ioctl_fionbio(&pipe, true).is_ok() {
        // WouldBlock is the end as well.
        let _ = (&mut pipe).take(SAID_MAX).read_to_end(said);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(command: Command) -> Ended {
        let mut errand = Errand::begin(command).unwrap();
        loop {
            if let Some(ended) = errand.ended().unwrap() {
                return ended;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn an_errand_tells_how_it_ended() {
        let well = end(shell("echo out; echo err >&2"));
        assert!(well.well && well.refused.is_none());
        assert_eq!(well.said, "out\nerr");
        let refused = end(shell("printf 111; exit 3"));
        assert_eq!((refused.well, refused.refused), (false, Some(111)));
        assert!(!end(shell("kill -9 $$")).well);
    }

    #[test]
    fn one_that_leaves_a_daemon_behind_has_ended() {
        let begun = Instant::now();
        assert_eq!(end(shell("sleep 20 & echo here")).said, "here");
        assert!(begun.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn one_that_hangs_is_given_up() {
        let mut errand = Errand::begin(shell("exec sleep 60")).unwrap();
        assert!(errand.ended().unwrap().is_none());
        let begun = Instant::now();
        errand.give_up();
        assert!(begun.elapsed() < Duration::from_secs(2));
    }

    #[test]
    fn only_errands_are_run() {
        for words in [&["x"][..], &["x", "agent"], &["x", MOUNT, "a"], &["x", IN_ROOT, "/"]] {
            assert!(run(words.iter().map(|word| (*word).to_owned())).is_none(), "{words:?}");
        }
    }
}
