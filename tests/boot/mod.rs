//! Machines with real firmware, from power-on to a running role. A boot costs half a minute of both
//! cores: a new claim goes into an existing boot where it can, and a test boots two at a time.

mod blank;
mod discover;
mod gate;
mod layers;
pub mod maintain;
mod networks;
mod power;
mod rollout;
pub mod roots;
mod sysrq;
mod writeback;

use std::time::Duration;

use koboshi::lab::qemu::Spec;

/// What any one step of a boot may take on a busy machine.
pub const MINUTES: Duration = Duration::from_secs(240);

/// A machine of the rack: `m03` has the MAC 52:54:00:77:00:03.
pub fn spec(name: &str) -> Spec {
    let mac = format!("52:54:00:77:00:{}", &name[1..]).parse().expect("a MAC");
    Spec::new(name, mac)
}

/// A shell on a console.
pub struct Shell(koboshi::lab::console::Viewer);

impl Shell {
    pub async fn run(&mut self, command: &str) -> String {
        let output = self.0.shell(command, Duration::from_secs(60)).await;
        output.expect("the shell answers").trim().to_string()
    }
}

pub trait HasShell {
    async fn viewer_of_shell(&self) -> Shell;
}

impl HasShell for koboshi::lab::machine::Machine {
    /// The rescue image has a shell on its console.
    async fn viewer_of_shell(&self) -> Shell {
        let mut viewer = self.console().viewer_from_now();
        viewer.send("\n").await.expect("typed");
        viewer.expect("# ", Duration::from_secs(60)).await.expect("a prompt");
        Shell(viewer)
    }
}
