//! UUCP's lock files: `LCK..ttyS1` with the number of the process that has the port, as minicom, cu, pppd,
//! mgetty and others make and heed them (FHS 3.0, 5.9). One whose process is gone is of no account.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::host::Host;

/// Ours, until it is dropped.
#[derive(Debug)]
pub(super) struct Lock(PathBuf);

/// Takes the lock of this device. None: nobody can have locks here, or none for this one.
///
/// # Errors
/// Who has it.
pub(super) fn take(host: &Host, device: &Path) -> Result<Option<Lock>, String> {
    let Ok(name) = device.strip_prefix(&host.dev) else { return Ok(None) };
    let name = name.to_string_lossy().replace('/', "_");
    let path = host.locks.join(format!("LCK..{name}"));
    let own = std::process::id();
    let new = host.locks.join(format!("LTMP.{own}.{name}"));
    // Twice: a lock that is of no account is removed on the way.
    for _ in 0..2 {
        if let Some(pid) = holder(host, &path).filter(|pid| *pid != own) {
            let who = host.process(pid).unwrap_or_else(|| format!("process {pid}"));
            return Err(format!("{who}, says {}", path.display()));
        }
        match written(&new, own).and_then(|()| fs::hard_link(&new, &path)) {
            Ok(()) => {
                let _it_is_but_litter = fs::remove_file(&new);
                return Ok(Some(Lock(path)));
            }
            Err(why) => {
                let _it_is_but_litter = fs::remove_file(&new);
                if why.kind() != io::ErrorKind::AlreadyExists || fs::remove_file(&path).is_err() {
                    // A folder that we may not write to, as on many hosts.
                    return Ok(None);
                }
            }
        }
    }
    Ok(None)
}

fn written(path: &Path, pid: u32) -> io::Result<()> {
    let _of_a_former_process = fs::remove_file(path);
    let mut file = fs::OpenOptions::new().write(true).create_new(true).open(path)?;
    // Ten digits, as HoneyDanBer UUCP has it.
    writeln!(file, "{pid:>10}")
}

/// The process that has a lock, if it runs.
fn holder(host: &Host, lock: &Path) -> Option<u32> {
    let text = fs::read(lock).ok()?;
    let pid = match <[u8; 4]>::try_from(text.as_slice()) {
        // Old ones have the number itself.
        Ok(number) if !number.iter().all(|c| c.is_ascii_digit() || c.is_ascii_whitespace()) => {
            u32::from_ne_bytes(number)
        }
        _ => String::from_utf8_lossy(&text).split_whitespace().next()?.parse().ok()?,
    };
    let process = fs::metadata(host.proc.join(pid.to_string())).ok()?;
    // A process that began after the lock was made got the number of one that ended.
    let begun = began(host, pid).or_else(|| process.modified().ok());
    let made = fs::metadata(lock).and_then(|lock| lock.modified()).ok();
    let later = begun.zip(made).is_some_and(|(begun, made)| begun > made + SLACK);
    (!later).then_some(pid)
}

/// A second has so many for whoever is told of them (`USER_HZ`).
const TICKS: u64 = 100;
/// Ticks and seconds are rounded.
const SLACK: std::time::Duration = std::time::Duration::from_secs(3);

/// When a process began: proc(5), `stat` field 22 in ticks since the boot, `/proc/stat` has that.
fn began(host: &Host, pid: u32) -> Option<std::time::SystemTime> {
    let stat = fs::read_to_string(host.proc.join(pid.to_string()).join("stat")).ok()?;
    let (_, behind_name) = stat.rsplit_once(')')?;
    let ticks: u64 = behind_name.split_whitespace().nth(19)?.parse().ok()?;
    let whole = fs::read_to_string(host.proc.join("stat")).ok()?;
    let boot: u64 =
        whole.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    let since = ticks / TICKS;
    std::time::UNIX_EPOCH.checked_add(std::time::Duration::from_secs(boot + since))
}

impl Drop for Lock {
    fn drop(&mut self) {
        let own = std::process::id().to_string();
        if fs::read_to_string(&self.0).is_ok_and(|text| text.trim() == own) {
            let _who_has_it_next_ignores_it = fs::remove_file(&self.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host() -> (tempfile::TempDir, Host) {
        let folder = tempfile::tempdir().unwrap();
        let host = Host { locks: folder.path().to_path_buf(), ..Host::default() };
        (folder, host)
    }

    #[test]
    fn taken_shown_to_others_and_given_back() {
        let (folder, host) = host();
        let file = folder.path().join("LCK..ttyS1");
        let lock = take(&host, Path::new("/dev/ttyS1")).unwrap().unwrap();
        let text = fs::read_to_string(&file).unwrap();
        assert_eq!(text, format!("{:>10}\n", std::process::id()));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no litter");
        drop(lock);
        assert!(!file.exists());
        let lock = take(&host, Path::new("/dev/pts/7")).unwrap().unwrap();
        assert!(folder.path().join("LCK..pts_7").exists());
        // Another's, who did not ask: it stays his.
        fs::write(folder.path().join("LCK..pts_7"), "1\n").unwrap();
        drop(lock);
        assert!(folder.path().join("LCK..pts_7").exists());
    }

    #[test]
    fn a_process_that_runs_has_it_and_one_that_is_gone_has_not() {
        let (folder, host) = host();
        let file = folder.path().join("LCK..ttyS1");
        let mut other = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        for text in [
            format!("{:>10} minicom root\n", other.id()).into_bytes(),
            other.id().to_ne_bytes().to_vec(),
        ] {
            fs::write(&file, text).unwrap();
            let who = take(&host, Path::new("/dev/ttyS1")).unwrap_err();
            assert!(who.starts_with(&format!("sleep (process {})", other.id())), "{who}");
        }
        other.kill().unwrap();
        other.wait().unwrap();
        let lock = take(&host, Path::new("/dev/ttyS1")).unwrap();
        assert!(lock.is_some(), "its process is gone");
        drop(lock);
        for litter in ["", "no number", "99999999999999\n"] {
            fs::write(&file, litter).unwrap();
            assert!(take(&host, Path::new("/dev/ttyS1")).unwrap().is_some(), "{litter}");
        }
    }

    #[test]
    fn a_process_that_got_the_number_of_another_has_it_not() {
        let (folder, host) = host();
        let file = folder.path().join("LCK..ttyS1");
        let mut other = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        fs::write(&file, other.id().to_string()).unwrap();
        let long_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(3600);
        fs::File::options().write(true).open(&file).unwrap().set_modified(long_ago).unwrap();
        let lock = take(&host, Path::new("/dev/ttyS1"));
        other.kill().unwrap();
        other.wait().unwrap();
        assert!(lock.unwrap().is_some());
    }

    #[test]
    fn where_there_are_no_locks_there_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let host = Host { locks: folder.path().join("none"), ..Host::default() };
        assert!(take(&host, Path::new("/dev/ttyS1")).unwrap().is_none());
        assert!(take(&host, Path::new("/elsewhere/ttyS1")).unwrap().is_none());
    }
}
