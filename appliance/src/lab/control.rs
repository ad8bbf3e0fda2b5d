//! The rack's control socket, `DIR/lab.sock`: what `koboshi lab status|on|off|console …` in another
//! terminal talk to. One JSON request a connection, one JSON answer; a console goes on raw.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};

use super::Error;
use super::machine::{Machine, Power};
use super::qemu::Firmware;
use super::rack::Rack;

/// What is asked of a rack.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "ask")]
pub enum Request {
    /// The rack and its machines.
    Status,
    /// Buttons and plugs of machines; none named means all.
    Power {
        /// Which machines.
        machines: Vec<String>,
        /// What to do with them.
        verb: Verb,
    },
    /// The raw serial line, both ways, until either side hangs up.
    Console {
        /// Whose.
        machine: String,
        /// How many past bytes to show first.
        replay: usize,
    },
}

/// What can be done to a machine's power.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verb {
    /// Switch on.
    On,
    /// Pull the plug.
    Off,
    /// Press the power button: ACPI.
    Soft,
    /// Off and on.
    Cycle,
    /// The reset button.
    Reset,
}

/// The rack as seen from another terminal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RackStatus {
    /// The process that holds it.
    pub pid: u32,
    /// File of its network namespace, for `nsenter --net=`.
    pub namespace: String,
    /// The appliance's interface.
    pub bridge: String,
    /// The appliance's address.
    pub address: String,
    /// Its machines.
    pub machines: Vec<MachineStatus>,
}

/// One machine as seen from another terminal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineStatus {
    /// Name.
    pub name: String,
    /// MAC of the boot NIC.
    pub mac: String,
    /// `bios`, `uefi` or `uefi-http`.
    pub firmware: String,
    /// Seconds since it was switched on; absent while it is off.
    pub on_for: Option<u64>,
    /// The last line on its console.
    pub last_line: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Reply {
    Done,
    Status(RackStatus),
    Refused(String),
}

/// The socket of the rack in `dir`.
pub fn socket_path(dir: &Path) -> PathBuf {
    dir.join("lab.sock")
}

/// The listening end, gone from the file system when dropped.
pub struct Door {
    listener: UnixListener,
    path: PathBuf,
}

impl Door {
    /// Opens `DIR/lab.sock`, unless a living rack answers there already.
    pub async fn open(dir: &Path) -> Result<Door, Error> {
        let path = socket_path(dir);
        let doing = format!("listening on {}", path.display());
        if UnixStream::connect(&path).await.is_ok() {
            let why = io::Error::new(io::ErrorKind::AddrInUse, "another rack answers there");
            return Err(Error::Io { doing, why });
        }
        // Nobody answers: a socket left by a rack that was killed.
        match std::fs::remove_file(&path) {
            Err(why) if why.kind() != io::ErrorKind::NotFound => {
                return Err(Error::Io { doing, why });
            }
            _ => {}
        }
        let listener = UnixListener::bind(&path).map_err(Error::io(doing.clone()))?;
        let mode = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(&path, mode).map_err(Error::io(doing))?;
        Ok(Door { listener, path })
    }

    /// Answers until the task is dropped.
    pub async fn serve(self, rack: Arc<Rack>) {
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let rack = Arc::clone(&rack);
                    tokio::spawn(async move {
                        if let Err(error) = answer(stream, &rack).await {
                            tracing::debug!(%error, "control connection");
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "control socket");
                    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
                }
            }
        }
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

async fn answer(stream: UnixStream, rack: &Rack) -> io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut line = String::new();
    let mut reader = BufReader::new(reader);
    (&mut reader).take(64 * 1024).read_line(&mut line).await?;
    let request = match serde_json::from_str(&line) {
        Ok(request) => request,
        Err(error) => return reply(&mut writer, &Reply::Refused(error.to_string())).await,
    };
    match request {
        Request::Status => reply(&mut writer, &Reply::Status(status(rack).await)).await,
        Request::Power { machines, verb } => {
            let answer = match power(rack, &machines, verb).await {
                Ok(()) => Reply::Done,
                Err(error) => Reply::Refused(error.to_string()),
            };
            reply(&mut writer, &answer).await
        }
        Request::Console { machine, replay } => {
            let machine = match rack.machine(&machine) {
                Ok(machine) => machine.clone(),
                Err(error) => return reply(&mut writer, &Reply::Refused(error.to_string())).await,
            };
            reply(&mut writer, &Reply::Done).await?;
            let console = machine.console();
            let mut stream = console.stream(replay);
            let mut typed = vec![0; 1024];
            loop {
                tokio::select! {
                    piece = stream.next() => writer.write_all(&piece).await?,
                    length = reader.read(&mut typed) => match length? {
                        0 => return Ok(()),
                        // Typed at a machine that is off: lost, as on a real line.
                        length => drop(console.send(&typed[..length]).await),
                    },
                }
            }
        }
    }
}

async fn reply(writer: &mut (impl AsyncWriteExt + Unpin), reply: &Reply) -> io::Result<()> {
    let mut line = serde_json::to_string(reply)?;
    line.push('\n');
    writer.write_all(line.as_bytes()).await
}

async fn status(rack: &Rack) -> RackStatus {
    let mut machines = Vec::new();
    for machine in rack.machines() {
        let spec = machine.spec();
        machines.push(MachineStatus {
            name: spec.name.clone(),
            mac: spec.mac.to_string(),
            firmware: match spec.firmware {
                Firmware::Bios => "bios",
                Firmware::Uefi => "uefi",
                Firmware::UefiHttp => "uefi-http",
                Firmware::UefiSecure => "uefi-sb",
            }
            .to_string(),
            on_for: match machine.status().await {
                Power::On(since) => Some(since.elapsed().as_secs()),
                Power::Off => None,
            },
            last_line: machine.console().tail(1),
        });
    }
    let plan = rack.wire().plan();
    RackStatus {
        pid: std::process::id(),
        namespace: rack.wire().keeper().namespace(),
        bridge: plan.bridge.clone(),
        address: plan.address.to_string(),
        machines,
    }
}

async fn power(rack: &Rack, names: &[String], verb: Verb) -> Result<(), Error> {
    let machines: Vec<Machine> = match names {
        [] => rack.machines().to_vec(),
        names => names.iter().map(|name| rack.machine(name).cloned()).collect::<Result<_, _>>()?,
    };
    for machine in machines {
        match verb {
            Verb::On => machine.power_on().await?,
            Verb::Off => machine.power_off().await?,
            Verb::Soft => machine.soft_off().await?,
            Verb::Cycle => machine.cycle().await?,
            Verb::Reset => machine.reset().await?,
        }
    }
    Ok(())
}

/// Asks the rack in `dir` for its status.
pub async fn ask_status(dir: &Path) -> Result<RackStatus, Error> {
    match ask(dir, &Request::Status).await?.0 {
        Reply::Status(status) => Ok(status),
        Reply::Done => Err(refused(dir, "answered nothing".into())),
        Reply::Refused(why) => Err(refused(dir, why)),
    }
}

/// Has the rack in `dir` press buttons.
pub async fn ask_power(dir: &Path, machines: &[String], verb: Verb) -> Result<(), Error> {
    let request = Request::Power { machines: machines.to_vec(), verb };
    match ask(dir, &request).await?.0 {
        Reply::Refused(why) => Err(refused(dir, why)),
        Reply::Done | Reply::Status(_) => Ok(()),
    }
}

/// The raw serial line of a machine, after the last `replay` bytes it printed.
pub async fn ask_console(
    dir: &Path,
    machine: &str,
    replay: usize,
) -> Result<BufReader<UnixStream>, Error> {
    let (reply, stream) =
        ask(dir, &Request::Console { machine: machine.to_string(), replay }).await?;
    match reply {
        Reply::Refused(why) => Err(refused(dir, why)),
        Reply::Done | Reply::Status(_) => Ok(stream),
    }
}

async fn ask(dir: &Path, request: &Request) -> Result<(Reply, BufReader<UnixStream>), Error> {
    let path = socket_path(dir);
    let doing = || format!("asking the rack at {} (is one up? koboshi lab up)", path.display());
    let exchange = async {
        let mut stream = BufReader::new(UnixStream::connect(&path).await?);
        let mut line = serde_json::to_string(request)?;
        line.push('\n');
        stream.get_mut().write_all(line.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_line(&mut answer).await?;
        Ok((serde_json::from_str(&answer)?, stream))
    };
    exchange.await.map_err(Error::io(doing()))
}

fn refused(dir: &Path, said: String) -> Error {
    Error::Refused { doing: format!("the rack at {}", dir.display()), said }
}
