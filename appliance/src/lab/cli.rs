//! `koboshi lab …`: a rack in this terminal, its buttons and consoles in others.

use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use anyhow::{Context, bail};
use clap::{Args, Subcommand, ValueEnum};

use super::appliance::{Appliance, own_path};
use super::blueprint::{self, Blueprint};
use super::bmc::Bmcs;
use super::control::{self, Door, RackStatus, Verb};
use super::qemu::{Accel, Firmware, Spec};
use super::rack::Rack;
use super::{demo, storm, terminal};

/// Bytes of the past shown when a terminal attaches to a console.
const REPLAY: usize = 4096;

/// Where a rack is.
#[derive(Debug, Clone, Args)]
pub struct Place {
    /// The rack's directory: control socket, disks, console logs
    #[arg(long, value_name = "DIR", env = "KOBOSHI_LAB")]
    pub dir: Option<PathBuf>,
}

impl Place {
    /// As said, or one per user.
    pub fn dir(&self) -> PathBuf {
        let ours = || format!("/var/tmp/koboshi-lab-{}", super::host_user()).into();
        self.dir.clone().unwrap_or_else(ours)
    }

    /// The directory, made if missing, as an absolute path. The default one lies where anybody
    /// can make folders, so it has to be ours.
    pub fn make(&self) -> anyhow::Result<PathBuf> {
        let dir = self.dir();
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&dir)
            .with_context(|| format!("making {}", dir.display()))?;
        let owner = std::fs::symlink_metadata(&dir).map(|metadata| metadata.uid());
        if self.dir.is_none() && owner.ok() != Some(nix::unistd::getuid().as_raw()) {
            bail!("{} belongs to somebody else: choose another with --dir", dir.display());
        }
        dir.canonicalize().with_context(|| dir.display().to_string())
    }
}

/// What can be done with a rack.
#[derive(Debug, Subcommand)]
pub enum LabCommand {
    /// Raise a rack with the machines of a site file, and the BMCs it gives them; Ctrl-C takes it down
    Up(Up),
    /// Raise three machines in two roles and show them boot
    Demo(demo::Options),
    /// Switch ten thousand machines on that are not there, and see how the appliance bears it
    Storm(Box<storm::Options>),
    /// Show the rack and its machines
    Status {
        /// For programs
        #[arg(long)]
        json: bool,
        /// Which rack
        #[command(flatten)]
        at: Place,
    },
    /// Switch machines on (all, if none is named)
    On(Machines),
    /// Pull the plug of machines
    Off(Machines),
    /// Press the power button: the system shuts down, if it listens
    Soft(Machines),
    /// Pull the plug and switch on again
    Cycle(Machines),
    /// Press the reset button
    Reset(Machines),
    /// This terminal on a machine's serial console; Ctrl-] leaves
    Console {
        /// Machine
        machine: String,
        /// Which rack
        #[command(flatten)]
        at: Place,
    },
    /// Run a command on the rack's network (a shell, if none is given)
    Exec {
        /// Command and arguments
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<String>,
        /// Which rack
        #[command(flatten)]
        at: Place,
    },
}

/// Which machines of which rack.
#[derive(Debug, Args)]
pub struct Machines {
    /// Machines
    machines: Vec<String>,
    #[command(flatten)]
    at: Place,
}

/// How to raise a rack.
#[derive(Debug, Args)]
pub struct Up {
    /// Site file
    #[arg(long, value_name = "FILE", default_value = "site.toml")]
    site: PathBuf,
    /// These machines have UEFI firmware, booting by PXE
    #[arg(long, value_name = "MACHINES", value_delimiter = ',')]
    uefi: Vec<String>,
    /// These machines have UEFI firmware, booting by HTTP
    #[arg(long, value_name = "MACHINES", value_delimiter = ',')]
    uefi_http: Vec<String>,
    /// These machines have UEFI firmware, booting by PXE, with Secure Boot on
    #[arg(long, value_name = "MACHINES", value_delimiter = ',')]
    uefi_secure: Vec<String>,
    /// Memory of each machine in MiB
    #[arg(long, value_name = "MIB", default_value_t = 1024)]
    memory: u32,
    /// How many boot at the same time
    #[arg(long, value_name = "N", default_value_t = 2)]
    at_once: usize,
    /// How instructions are executed
    #[arg(long, value_enum, default_value_t = AccelWord::Tcg)]
    accel: AccelWord,
    /// Leave the machines switched off
    #[arg(long)]
    off: bool,
    /// Also run the appliance, with this state directory
    #[arg(long, value_name = "STATE")]
    serve: Option<PathBuf>,
    #[command(flatten)]
    at: Place,
}

/// [`Accel`] as typed.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum AccelWord {
    /// Emulation: works everywhere
    Tcg,
    /// The host's KVM where it works, else emulation
    Kvm,
}

impl From<AccelWord> for Accel {
    fn from(word: AccelWord) -> Accel {
        match word {
            AccelWord::Tcg => Accel::Tcg,
            AccelWord::Kvm => Accel::Kvm,
        }
    }
}

/// Does what was typed. Blocks; brings its own runtime.
pub fn run(command: LabCommand) -> anyhow::Result<()> {
    let power = |Machines { machines, at }, verb| {
        runtime()?.block_on(control::ask_power(&at.dir(), &machines, verb))?;
        anyhow::Ok(())
    };
    match command {
        LabCommand::Up(up) => raise(up),
        LabCommand::Demo(options) => demo::run(options),
        LabCommand::Storm(options) => storm::run(*options),
        LabCommand::Status { json, at } => {
            let status = runtime()?.block_on(control::ask_status(&at.dir()))?;
            let text =
                if json { serde_json::to_string_pretty(&status)? + "\n" } else { show(&status) };
            std::io::stdout().write_all(text.as_bytes())?;
            Ok(())
        }
        LabCommand::On(machines) => power(machines, Verb::On),
        LabCommand::Off(machines) => power(machines, Verb::Off),
        LabCommand::Soft(machines) => power(machines, Verb::Soft),
        LabCommand::Cycle(machines) => power(machines, Verb::Cycle),
        LabCommand::Reset(machines) => power(machines, Verb::Reset),
        LabCommand::Console { machine, at } => console(&at.dir(), &machine),
        LabCommand::Exec { command, at } => exec(&at.dir(), command),
    }
}

fn raise(up: Up) -> anyhow::Result<()> {
    let Blueprint { plan, mut specs, bmcs } = blueprint::read(&up.site)?;
    choose(&mut specs, &up)?;
    super::ensure_namespace()?;
    let dir = up.at.make()?;
    super::on_wire(plan, move |wire| async move {
        let stop = demo::stop_token();
        let rack = Arc::new(Rack::raise(wire, &dir, specs)?);
        let _bmcs = Bmcs::plug_in(&rack, bmcs)?;
        let door = Door::open(&dir).await?;
        let door = tokio::spawn(door.serve(Arc::clone(&rack)));
        let mut appliance = None;
        let raised = async {
            if let Some(state) = &up.serve {
                appliance = Some(Appliance::start(&rack, &own_path(), &up.site, state).await?);
            }
            if !up.off {
                let settled = |machine: &super::machine::Machine| machine.console().shows("login:");
                rack.power_on_in_turn(rack.machines(), up.at_once, settled).await?;
            }
            print!("{}", show(&control::ask_status(&dir).await?));
            println!("In other terminals: koboshi lab status|console|cycle|exec. Ctrl-C ends.");
            stop.cancelled().await;
            anyhow::Ok(())
        };
        let result = tokio::select! {
            result = raised => result,
            () = stop.cancelled() => Ok(()),
        };
        door.abort();
        if let Some(appliance) = appliance {
            appliance.stop().await;
        }
        result
    })?
}

fn choose(specs: &mut [Spec], up: &Up) -> anyhow::Result<()> {
    for name in up.uefi.iter().chain(&up.uefi_http).chain(&up.uefi_secure) {
        if !specs.iter().any(|spec| spec.name == *name) {
            bail!("--uefi {name}: {} has no such machine", up.site.display());
        }
    }
    for spec in specs {
        spec.memory_mib = up.memory;
        spec.accel = up.accel.into();
        if up.uefi.contains(&spec.name) {
            spec.firmware = Firmware::Uefi;
        }
        if up.uefi_http.contains(&spec.name) {
            spec.firmware = Firmware::UefiHttp;
        }
        if up.uefi_secure.contains(&spec.name) {
            spec.firmware = Firmware::UefiSecure;
        }
    }
    Ok(())
}

fn show(status: &RackStatus) -> String {
    let mut text =
        format!("rack of process {}: {} at {}\n", status.pid, status.bridge, status.address);
    for machine in &status.machines {
        let power = machine.on_for.map_or("off".into(), |seconds| format!("on {seconds} s"));
        let line: String = machine.last_line.trim().chars().take(70).collect();
        text += &format!(
            "{:<8} {}  {:<9} {power:<9} {line}\n",
            machine.name, machine.mac, machine.firmware
        );
    }
    text
}

fn console(dir: &Path, machine: &str) -> anyhow::Result<()> {
    let runtime = runtime()?;
    let attached = runtime.block_on(async {
        let line = control::ask_console(dir, machine, REPLAY).await?;
        eprintln!("[{machine}; Ctrl-] leaves]");
        terminal::attach(line).await.context("the terminal")
    });
    // A read of the keyboard may still be under way in a thread: do not wait for it.
    runtime.shutdown_background();
    attached
}

fn exec(dir: &Path, command: Vec<String>) -> anyhow::Result<()> {
    let status = runtime()?.block_on(control::ask_status(dir))?;
    let mut nsenter = Command::new("nsenter");
    nsenter.arg(format!("--net={}", status.namespace));
    // A rack raised without root lives in a user namespace of its own, where we are root.
    let user = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/user")).ok();
    let theirs = status.pid.to_string();
    if user("self") != user(&theirs) {
        nsenter.arg(format!("--user=/proc/{theirs}/ns/user")).arg("--preserve-credentials");
    }
    let shell = || std::env::var("SHELL").unwrap_or_else(|_| "/bin/sh".into());
    let command = if command.is_empty() { vec![shell()] } else { command };
    // Becomes the command: its exit code is ours, its terminal is this one.
    let failed = nsenter.arg("--").args(command).stdin(Stdio::inherit()).exec();
    Err(failed).context("running nsenter (util-linux)")
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("starting the runtime")
}
