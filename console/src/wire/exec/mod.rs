//! A command in a pseudo-terminal: what it says is what the line says, and its end is the line's.
//!
//! It has a session of its own with the pseudo-terminal as controlling terminal, `/` for its folder, and of our
//! environment only what a login has, such that passwords that we were given there stay here. A process
//! beside it, the `warden`, ends the whole session when the line is closed, and also when we are killed.

mod running;
mod warden;

use pty_process::{Command, Size};

use super::stream::drive;
use super::tcp::Plain;
use super::{NotOpen, Wire};
use running::Running;
use warden::Warden;

/// What a command is given of our environment, beside all of `LC_`.
const ENVIRONMENT: [&str; 6] = ["PATH", "HOME", "USER", "LOGNAME", "LANG", "TZ"];
/// What a terminal of ours understands, whoever looks: the one that is in every terminfo.
const TERM: (&str, &str) = ("TERM", "vt220");

/// Begins it once. To be called within a runtime.
pub(super) fn open(command: &str) -> Result<Wire, NotOpen> {
    let here = |why: &dyn std::fmt::Display| NotOpen::Here(format!("it cannot be begun: {why}"));
    let (pty, terminal) = pty_process::open().map_err(|why| here(&why))?;
    pty.resize(Size::new(24, 80)).map_err(|why| here(&why))?;
    let child = Command::new("/bin/sh")
        .args(["-c", command])
        .env_clear()
        .envs(environment(std::env::vars_os()))
        .current_dir("/")
        .spawn(terminal)
        .map_err(|why| here(&why))?;
    let session = child.id().ok_or_else(|| here(&"it ended before it began"))?;
    let warden = Warden::over(session).map_err(|why| here(&why))?;
    Ok(drive(Running::new(pty, child, warden), Plain("a command")))
}

/// What of our environment a command is given.
fn environment(
    ours: impl Iterator<Item = (std::ffi::OsString, std::ffi::OsString)>,
) -> Vec<(std::ffi::OsString, std::ffi::OsString)> {
    let given = ours.filter(|(name, _)| {
        let name = name.to_string_lossy();
        ENVIRONMENT.contains(&&*name) || name.starts_with("LC_")
    });
    given.chain([(TERM.0.into(), TERM.1.into())]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_our_environment_it_has_what_a_login_has() {
        let ours = [
            ("PATH", "/bin"),
            ("BMC_PASSWORD", "a secret"),
            ("LC_ALL", "C"),
            ("TERM", "xterm-256color"),
            ("SSH_AUTH_SOCK", "/run/agent"),
        ];
        let given = environment(ours.into_iter().map(|(name, value)| (name.into(), value.into())));
        let given: Vec<_> = given
            .iter()
            .map(|(name, value)| (name.to_str().unwrap(), value.to_str().unwrap()))
            .collect();
        assert_eq!(given, [("PATH", "/bin"), ("LC_ALL", "C"), ("TERM", "vt220")]);
    }
}
