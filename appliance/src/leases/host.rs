//! Whose memory holds what is written and not on the disk yet. As long as it is the same, a koboshi that died has lost
//! nothing: the host has it. It is another's after a restart of the host, and after a disk that gave up was
//! unmounted, repaired and mounted again: then the last entries may be gone.

use std::io;
use std::path::{Path, PathBuf};
use std::{env, fs};

/// See the module.
#[derive(Debug, Default)]
pub struct Host {
    /// This boot of the host.
    boot: String,
    /// How often a disk did not take what was written, as a number; gone with the host's memory.
    failures: PathBuf,
}

impl Host {
    /// Of a state directory, which exists.
    pub fn of(dir: &Path) -> io::Result<Host> {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
        let path = fs::canonicalize(dir)?;
        let name = path.to_string_lossy().trim_matches('/').replace('/', "-");
        // The same for root by whichever way it was logged in.
        let own = env::var_os("XDG_RUNTIME_DIR").filter(|_| !nix::unistd::geteuid().is_root());
        let runtime = own.map_or_else(|| "/run".into(), PathBuf::from);
        let failures = runtime.join(format!("koboshi-{name}.failures"));
        Ok(Host { boot: boot.trim().to_string(), failures })
    }

    /// To be told from others by.
    pub fn name(&self) -> String {
        match self.failed() {
            0 => self.boot.clone(),
            times => format!("{} after {times} failures of its disk", self.boot),
        }
    }

    /// The disk did not take what was written: from here on it is another's.
    pub fn fails(&self) {
        let times = self.failed().saturating_add(1);
        if let Err(error) = fs::write(&self.failures, times.to_string()) {
            let path = self.failures.display();
            tracing::warn!(%error, "{path}: whoever starts next will not know what the disk lost");
        }
    }

    fn failed(&self) -> u64 {
        let times = fs::read_to_string(&self.failures).unwrap_or_default();
        times.trim().parse().unwrap_or(0)
    }

    /// A host of this name, for tests.
    #[cfg(test)]
    pub fn named(boot: &str, dir: &Path) -> Host {
        Host { boot: boot.to_string(), failures: dir.join("failures") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_another_after_its_disk_failed_and_stays_that() {
        let dir = tempfile::tempdir().expect("a folder");
        let host = Host::named("one", dir.path());
        assert_eq!(host.name(), "one");
        host.fails();
        let once = host.name();
        assert_ne!(once, "one");
        assert_eq!(Host::named("one", dir.path()).name(), once, "and so it is for the next one");
        host.fails();
        assert_ne!(host.name(), once);
        fs::write(dir.path().join("failures"), "no number").expect("written");
        assert_eq!(host.name(), "one");
        // Nowhere to write it: it is told, and no more.
        Host::default().fails();
    }

    #[test]
    fn each_state_has_its_own() {
        let dir = tempfile::tempdir().expect("a folder");
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        for dir in [&a, &b] {
            fs::create_dir(dir).expect("a folder");
        }
        let [one, other] = [&a, &b].map(|dir| Host::of(dir).expect("a host"));
        assert_ne!(one.failures, other.failures);
        assert_eq!(one.boot, other.boot);
        assert!(!one.boot.is_empty() && one.failures.to_string_lossy().ends_with("-a.failures"));
        // By whichever way it is reached.
        let again = Host::of(&dir.path().join("b/../a")).expect("a host");
        assert_eq!(again.failures, one.failures);
    }
}
