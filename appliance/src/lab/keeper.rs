//! The thread that holds a rack's network namespace and is the parent of all it runs.
//!
//! A child's parent-death signal fires when the *thread* that spawned it ends, and a runtime's
//! pool threads end when they are idle. So whatever must live as long as the rack, and not a
//! moment longer, is spawned from this one thread; an anonymous namespace lives as long as it.

use std::io;
use std::process::{Command as StdCommand, Output, Stdio};
use std::sync::mpsc;
use std::thread;

use nix::sched::{CloneFlags, unshare};
use tokio::process::{Child, Command};

use super::Error;

type Job = Box<dyn FnOnce() + Send>;

/// A thread in a network namespace, taking jobs until it is dropped.
pub struct Keeper {
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<thread::JoinHandle<()>>,
    tid: i32,
}

impl Keeper {
    /// Holds the namespace of the calling thread.
    pub fn here() -> Result<Keeper, Error> {
        Keeper::start(false)
    }

    /// Holds a namespace of its own, fresh and empty.
    pub fn apart() -> Result<Keeper, Error> {
        Keeper::start(true)
    }

    fn start(apart: bool) -> Result<Keeper, Error> {
        let (jobs, queue) = mpsc::channel::<Job>();
        let (ready, begun) = mpsc::channel();
        let thread = thread::Builder::new()
            .name("lab-keeper".into())
            .spawn(move || {
                let entered = if apart { enter_fresh_namespace() } else { Ok(()) };
                let failed = entered.is_err();
                let _ = ready.send(entered.map(|()| nix::unistd::gettid().as_raw()));
                if failed {
                    return;
                }
                while let Ok(job) = queue.recv() {
                    job();
                }
            })
            .map_err(Error::io("starting the keeper thread"))?;
        let tid = begun.recv().map_err(|_| Error::KeeperGone)??;
        Ok(Keeper { jobs: Some(jobs), thread: Some(thread), tid })
    }

    /// Runs a closure on the keeper's thread, that is inside its namespace, and waits for it.
    /// A socket made there stays in that namespace wherever it is used later.
    pub fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Error> {
        let (answer, answered) = mpsc::channel();
        self.submit(Box::new(move || {
            let _ = answer.send(job());
        }))?;
        answered.recv().map_err(|_| Error::KeeperGone)
    }

    /// Spawns a child that is killed when the keeper ends, however it ends.
    /// Build the command with [`bound`], or it survives a `kill -9` of this process.
    pub async fn spawn(&self, mut command: Command) -> io::Result<Child> {
        let runtime = tokio::runtime::Handle::current();
        let (answer, answered) = tokio::sync::oneshot::channel();
        let gone = || io::Error::other("the rack's keeper thread has ended");
        self.submit(Box::new(move || {
            let _entered = runtime.enter();
            let _ = answer.send(command.kill_on_drop(true).spawn());
        }))
        .map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }

    /// Runs a short command in the namespace and hands back what it printed.
    pub fn output(&self, mut command: StdCommand) -> io::Result<Output> {
        self.run(move || command.stdin(Stdio::null()).output()).map_err(io::Error::other)?
    }

    /// The file that names the namespace, for `nsenter --net=FILE`.
    pub fn namespace(&self) -> String {
        format!("/proc/{}/task/{}/ns/net", std::process::id(), self.tid)
    }

    /// The thread's id: `ip link set … netns` takes it in place of a process id.
    pub fn tid(&self) -> i32 {
        self.tid
    }

    fn submit(&self, job: Job) -> Result<(), Error> {
        let jobs = self.jobs.as_ref().ok_or(Error::KeeperGone)?;
        jobs.send(job).map_err(|_| Error::KeeperGone)
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // A job may itself hold the last handle to the rack.
            if thread.thread().id() != thread::current().id() {
                let _ = thread.join();
            }
        }
    }
}

/// Moves the calling thread into an empty network namespace without a name.
pub fn enter_fresh_namespace() -> Result<(), Error> {
    unshare(CloneFlags::CLONE_NEWNET).map_err(|errno| Error::NoNamespace { errno })
}

/// A command whose process gets SIGKILL once the thread that spawned it is gone.
///
/// `setpriv` asks the kernel for the signal; the shell then looks whether the parent died before
/// it could ask, and only then becomes the program itself: no moment is left uncovered.
pub fn bound(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    // A group of its own: Ctrl-C at our terminal is ours to handle.
    command
        .process_group(0)
        .args(["--pdeathsig", "KILL", "sh", "-c", r#"[ "$PPID" = "$0" ] && exec "$@""#])
        .arg(std::process::id().to_string())
        .arg(program);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_child_ends_with_its_keeper() {
        let keeper = Keeper::here().expect("a thread");
        let mut command = bound("sleep");
        command.arg("600");
        let mut child = keeper.spawn(command).await.expect("setpriv of util-linux");
        // Let it get past setpriv and the shell, so that the signal is what ends it.
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        assert!(child.try_wait().expect("a child").is_none(), "sleep runs");
        drop(keeper);
        let status = child.wait().await.expect("a child");
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9), "{status}");
    }

    #[test]
    fn jobs_run_on_one_thread() {
        let keeper = Keeper::here().expect("a thread");
        let first = keeper.run(nix::unistd::gettid).expect("runs");
        let second = keeper.run(nix::unistd::gettid).expect("runs");
        assert_eq!((first.as_raw(), second.as_raw()), (keeper.tid(), keeper.tid()));
    }
}
