//! The virtual rack: machines with real firmware on a private network, before any metal is touched.
//!
//! A rack is a [`net::Wire`] (an anonymous network namespace with a bridge in it) and
//! [`machine::Machine`]s (QEMU with SeaBIOS and iPXE, or OVMF and its own PXE stack) whose serial
//! consoles are [`console::Console`]s. `koboshi lab` gives it to users, `tests/` boots in it.
//! Nothing of it outlives the program, not even after `kill -9`: the namespace has no name and
//! dies with its last process, and every child is killed by the kernel when its parent goes.

pub mod ansi;
pub mod appliance;
pub mod blueprint;
pub mod bmc;
pub mod cli;
pub mod console;
pub mod control;
pub mod demo;
mod enemy;
pub mod far;
pub mod keeper;
pub mod machine;
pub mod net;
pub mod proof;
pub mod qemu;
pub mod qmp;
pub mod rack;
pub mod router;
pub mod storm;
pub mod terminal;
pub mod viewer;

use std::future::Future;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use nix::errno::Errno;

use net::{Plan, Wire};

/// What kept the rack from doing as told.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel gave no network namespace.
    #[error(
        "cannot make a network namespace ({errno}): run as root, or allow user namespaces \
         (sysctl kernel.unprivileged_userns_clone=1)"
    )]
    NoNamespace {
        /// What the kernel said.
        errno: Errno,
    },
    /// A tool of the rack is not installed.
    #[error("{tool} is not installed ({package} has it): `make setup` installs it")]
    MissingTool {
        /// The program or file.
        tool: String,
        /// Debian's package.
        package: &'static str,
    },
    /// `ip` or `nft` refused.
    #[error("{doing}: {said}")]
    Refused {
        /// What was asked.
        doing: String,
        /// What the tool printed.
        said: String,
    },
    /// A machine's QEMU ended, or never began.
    #[error("{machine}: QEMU {how}\n{said}")]
    Qemu {
        /// Whose.
        machine: String,
        /// What happened.
        how: String,
        /// Its last words.
        said: String,
    },
    /// QEMU's monitor refused a command or fell silent.
    #[error("{machine}: QEMU's monitor: {said}")]
    Monitor {
        /// Whose.
        machine: String,
        /// What it said.
        said: String,
    },
    /// No machine of that name stands in the rack.
    #[error("no machine {name:?} in this rack (there are {known})")]
    UnknownMachine {
        /// As asked.
        name: String,
        /// The rack's machines.
        known: String,
    },
    /// The site file does not describe a rack.
    #[error("{}: {why}", path.display())]
    Site {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The machine as described cannot be built.
    #[error("{machine}: {why}")]
    Spec {
        /// Whose.
        machine: String,
        /// What does not go together.
        why: String,
    },
    /// The namespace's thread has ended.
    #[error("the rack's keeper thread has ended")]
    KeeperGone,
    /// The operating system refused something.
    #[error("{doing}: {why}")]
    Io {
        /// What was being done.
        doing: String,
        /// Why it failed. Part of the message, so not its source as well.
        why: io::Error,
    },
}

impl Error {
    /// For `map_err`: what was being done, with the path or name in it.
    pub(crate) fn io(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
        let doing = doing.into();
        move |why| Error::Io { doing, why }
    }
}

/// Set when the program was started again; holds the user's id outside.
const REEXEC: &str = "KOBOSHI_LAB_USER";

/// Makes sure that this process may make network namespaces. As root nothing happens; otherwise
/// the program is started again by `unshare -Ur` in place of this one, as root of a user namespace.
pub fn ensure_namespace() -> Result<(), Error> {
    if nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    if std::env::var_os(REEXEC).is_some() {
        return Err(Error::NoNamespace { errno: Errno::EPERM });
    }
    let mut arguments = std::env::args_os();
    let own_name = arguments.next();
    let program = std::env::current_exe().ok().map(Into::into).or(own_name).unwrap_or_default();
    let failed = Command::new("unshare")
        .args(["--user", "--map-root-user", "--"])
        .arg(program)
        .args(arguments)
        .env(REEXEC, nix::unistd::getuid().to_string())
        .exec();
    if failed.kind() == io::ErrorKind::NotFound {
        return Err(Error::MissingTool { tool: "unshare".into(), package: "util-linux" });
    }
    Err(Error::Io { doing: "running unshare".into(), why: failed })
}

/// The user's id on the host, also where we are root of a user namespace.
pub fn host_user() -> String {
    std::env::var(REEXEC).unwrap_or_else(|_| nix::unistd::getuid().to_string())
}

/// Each connection is a descriptor, and the usual soft limit is 1,024. As root the hard one gives way too.
pub(crate) fn raise_descriptors() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    const WANTED: u64 = 65_536;
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return };
    let raised = |to: u64, hard: u64| setrlimit(Resource::RLIMIT_NOFILE, to, hard).is_ok();
    if soft < WANTED && !raised(WANTED, hard.max(WANTED)) && !raised(hard.min(WANTED), hard) {
        tracing::warn!(soft, hard, "the limit of open files could not be raised");
    }
}

/// Runs `work` on a wire of its own: a thread enters a fresh namespace, lays the wire, and starts
/// a runtime whose threads are all inside. The wire is gone when the call returns; a panic in
/// `work` goes on in the caller. Safe to call where another runtime runs already.
pub fn on_wire<T, F>(plan: Plan, work: impl FnOnce(Wire) -> F + Send + 'static) -> Result<T, Error>
where
    T: Send + 'static,
    F: Future<Output = T>,
{
    let thread = std::thread::Builder::new()
        .name("rack".into())
        .spawn(move || {
            let wire = Wire::enter(&plan)?;
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()
                .map_err(Error::io("starting a runtime"))?;
            let result = runtime.block_on(work(wire));
            // Tasks that were left running are dropped here, and with them what they hold.
            runtime.shutdown_timeout(Duration::from_secs(3));
            Ok(result)
        })
        .map_err(Error::io("starting a thread"))?;
    match thread.join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}
