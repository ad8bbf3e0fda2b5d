//! The command line of `bmcsim`, and the BMCs it asks for.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::Parser;
use koboshi_bmcsim::config::{Host, Serial};
use koboshi_bmcsim::control::{LINES, faults_help};
use koboshi_bmcsim::user::{Privilege, User};
use koboshi_bmcsim::{Config, Faults};
use koboshi_ipmi::wire::v15::Auth;
use koboshi_ipmi::{Kg, Password, Suite};

/// More than anybody has asked for.
const MOST: usize = 65_536;

/// Simulated BMCs, as many as there are addresses: sessions of IPMI 1.5 and 2.0, a chassis that may be a QEMU
/// process, Serial over LAN, and the faults of real boards on request.
#[derive(Debug, Parser)]
#[command(name = "bmcsim", version, after_help = after_help())]
pub struct Args {
    /// Address to listen on, or a range of them with a BMC on each: 127.44.0.1-127.44.3.232.
    #[arg(long, default_value = "127.0.0.1", value_name = "ADDRESS[-ADDRESS]")]
    listen: Range,
    /// UDP port of each.
    #[arg(long, default_value_t = 623)]
    port: u16,
    /// Threads that share the BMCs.
    #[arg(long, default_value_t = 1)]
    pub threads: usize,

    /// Name of the administrator.
    #[arg(long, default_value = "admin", help_heading = "Accounts")]
    user: String,
    /// File with the administrator's password in its first line.
    #[arg(long, value_name = "FILE", help_heading = "Accounts")]
    password_file: Option<PathBuf>,
    /// File with further accounts, a line each: NAME PRIVILEGE PASSWORD, where PRIVILEGE is user, operator,
    /// admin or disabled.
    #[arg(long, value_name = "FILE", help_heading = "Accounts")]
    accounts_file: Option<PathBuf>,
    /// File with the BMC's own key, K_g, as text or as 0x and hexadecimal digits.
    #[arg(long, value_name = "FILE", help_heading = "Accounts")]
    kg_file: Option<PathBuf>,

    /// Cipher suites that it takes; an empty list makes it a BMC of IPMI 1.5.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "3,17",
        value_name = "NUMBERS",
        help_heading = "Sessions"
    )]
    suites: Vec<String>,
    /// Authentication that sessions of IPMI 1.5 may use: md5, password, none. An empty list makes it a BMC
    /// that knows only 2.0.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "md5",
        value_name = "KINDS",
        help_heading = "Sessions"
    )]
    auth: Vec<String>,
    /// Sessions that may be open at a time.
    #[arg(long, default_value_t = 5, help_heading = "Sessions")]
    slots: usize,
    /// Seconds without a word after which a session is closed, and its SOL with it.
    #[arg(long, default_value_t = 60.0, value_name = "SECONDS", help_heading = "Sessions")]
    idle: f64,

    /// Command for /bin/sh that is the machine: power on starts it, power off kills it, its end is power off. A
    /// single command, or one that ends in `exec`, also ends with the simulator when that is killed.
    /// KOBOSHI_BOOT in its environment says the boot device asked for (pxe, disk, …). {number} and {address} are
    /// the BMC's number, from 0, and address.
    #[arg(long, value_name = "COMMAND", help_heading = "Machine")]
    start: Option<String>,
    /// QEMU's QMP socket: reset, ACPI shutdown and NMI go by it. Takes {number} and {address}.
    #[arg(long, value_name = "PATH", requires = "start", help_heading = "Machine")]
    monitor: Option<String>,
    /// TCP address for QEMU's ipmi-bmc-extern: the guest gets the BMC as /dev/ipmi0. One BMC only.
    #[arg(long, value_name = "ADDRESS:PORT", help_heading = "Machine")]
    vm: Option<SocketAddr>,
    /// The host's serial port: tcp:ADDRESS:PORT, telnet:ADDRESS:PORT (BREAK gets through), unix:PATH or echo.
    /// Takes {number} and {address}.
    #[arg(long, value_name = "WHERE", help_heading = "Machine")]
    sol: Option<String>,
    /// The machine is on from the beginning.
    #[arg(long, help_heading = "Machine")]
    on: bool,
    /// Sensors that it has.
    #[arg(long, default_value_t = 8, help_heading = "Machine")]
    sensors: usize,
    /// What GUIDs, serial numbers and chance are made from.
    #[arg(long, default_value_t = 1, value_name = "NUMBER", help_heading = "Machine")]
    seed: u64,

    /// A fault to have from the beginning; may be given several times.
    #[arg(long, value_name = "NAME[=VALUE]", help_heading = "Faults")]
    fault: Vec<String>,
    /// Obey lines on standard input, each for the BMC whose ADDRESS or ADDRESS:PORT precedes it, or for "all",
    /// and end when it ends.
    #[arg(long, help_heading = "Faults")]
    pub control: bool,
}

fn after_help() -> String {
    let lines: String = LINES.iter().map(|(line, does)| format!("  {line:22} {does}\n")).collect();
    format!("Faults:\n{}\nLines of --control:\n{lines}", faults_help())
}

/// Addresses from one to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Range {
    first: IpAddr,
    count: usize,
}

impl std::str::FromStr for Range {
    type Err = String;

    fn from_str(text: &str) -> Result<Range, String> {
        let Some((first, last)) = text.split_once('-') else {
            let first = text.parse().map_err(|_| format!("{text:?} is no address"))?;
            return Ok(Range { first, count: 1 });
        };
        let parse = |text: &str| -> Result<Ipv4Addr, String> {
            text.trim().parse().map_err(|_| format!("{text:?} is no IPv4 address"))
        };
        let (first, last) = (parse(first)?, parse(last)?);
        let count = u32::from(last).checked_sub(u32::from(first)).map(|more| more as usize + 1);
        let count = count.ok_or_else(|| format!("{last} is before {first}"))?;
        if count > MOST {
            return Err(format!("{count} BMCs are more than {MOST}"));
        }
        Ok(Range { first: first.into(), count })
    }
}

impl Range {
    fn nth(self, n: usize) -> IpAddr {
        match self.first {
            IpAddr::V4(first) => {
                let n = u32::try_from(n).unwrap_or(u32::MAX);
                Ipv4Addr::from(u32::from(first).saturating_add(n)).into()
            }
            IpAddr::V6(first) => first.into(),
        }
    }
}

impl Args {
    /// The BMCs that are asked for.
    pub fn configs(&self) -> anyhow::Result<Vec<Config>> {
        let users = self.users()?;
        let kg = self.kg_file.as_deref().map(kg).transpose()?;
        let suites = self.suites.iter().filter(|text| !text.is_empty()).map(|text| {
            let known = text.trim().parse().ok().and_then(Suite::by_id);
            known.with_context(|| format!("cipher suite {text} is none of 0–3 and 15–17"))
        });
        let suites = suites.collect::<anyhow::Result<Vec<_>>>()?;
        let auths = self.auth.iter().filter(|text| !text.is_empty()).map(|text| {
            Ok(match text.trim() {
                "md5" => Auth::Md5,
                "password" => Auth::Password,
                "none" => Auth::None,
                other => bail!("{other:?} is none of md5, password and none"),
            })
        });
        let auths = auths.collect::<anyhow::Result<Vec<_>>>()?;
        ensure!(!suites.is_empty() || !auths.is_empty(), "neither --suites nor --auth are left");
        let mut faults = Faults::default();
        for fault in &self.fault {
            faults.set(fault)?;
        }
        let idle = Duration::try_from_secs_f64(self.idle).context("--idle")?;
        ensure!(self.vm.is_none() || self.listen.count == 1, "--vm is for one BMC");
        (0..self.listen.count)
            .map(|n| {
                let address = self.listen.nth(n);
                let place = |text: &str| {
                    text.replace("{number}", &n.to_string())
                        .replace("{address}", &address.to_string())
                };
                let monitor = self.monitor.as_deref().map(|path| place(path).into());
                let host = match &self.start {
                    None => Host::Memory,
                    Some(start) => Host::Process { start: place(start), monitor },
                };
                Ok(Config {
                    listen: SocketAddr::new(address, self.port),
                    users: users.clone(),
                    kg: kg.clone(),
                    suites: suites.clone(),
                    auths: auths.clone(),
                    slots: self.slots,
                    idle,
                    seed: self.seed.wrapping_add(n as u64),
                    sensors: self.sensors,
                    faults: faults.clone(),
                    host,
                    serial: self
                        .sol
                        .as_deref()
                        .map_or(Ok(Serial::Memory), |at| serial(&place(at)))?,
                    vm: self.vm,
                    on: self.on,
                })
            })
            .collect()
    }

    fn users(&self) -> anyhow::Result<Vec<User>> {
        let mut users = Vec::new();
        if let Some(path) = &self.password_file {
            let text = read(path)?;
            let password = Password::new(text.lines().next().unwrap_or_default())?;
            users.push(User::new(&self.user, password, Privilege::Admin));
        }
        if let Some(path) = &self.accounts_file {
            for line in read(path)?.lines().filter(|line| !line.trim().is_empty()) {
                // The line is a secret: it is not shown.
                let wrong = || format!("{}: a line is not NAME PRIVILEGE PASSWORD", path.display());
                let (name, rest) = line.split_once(' ').with_context(wrong)?;
                let (privilege, password) = rest.split_once(' ').with_context(wrong)?;
                let mut user = User::new(name, Password::new(password)?, Privilege::Admin);
                user.limit = Some(match privilege {
                    "user" => Privilege::User,
                    "operator" => Privilege::Operator,
                    "admin" => Privilege::Admin,
                    "disabled" => {
                        user.enabled = false;
                        Privilege::Admin
                    }
                    other => bail!("{}: {other:?} is no privilege", path.display()),
                });
                users.push(user);
            }
        }
        ensure!(
            !users.is_empty(),
            "nobody could log in: --password-file or --accounts-file is needed"
        );
        Ok(users)
    }
}

fn read(path: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))
}

fn kg(path: &Path) -> anyhow::Result<Kg> {
    let text = read(path)?;
    let text = text.lines().next().unwrap_or_default();
    let Some(digits) = text.strip_prefix("0x") else { return Ok(Kg::new(text.as_bytes())?) };
    let pairs = digits.as_bytes().chunks(2).map(|pair| {
        let digits = std::str::from_utf8(pair).ok().filter(|digits| digits.len() == 2);
        digits.and_then(|digits| u8::from_str_radix(digits, 16).ok())
    });
    let bytes: Option<Vec<u8>> = pairs.collect();
    Ok(Kg::new(&bytes.with_context(|| format!("{}: not hexadecimal", path.display()))?)?)
}

fn serial(text: &str) -> anyhow::Result<Serial> {
    let place = |at: &str| at.parse().with_context(|| format!("{at:?} is not ADDRESS:PORT"));
    Ok(match text.split_once(':') {
        Some(("tcp", at)) => Serial::Tcp(place(at)?),
        Some(("telnet", at)) => Serial::Telnet(place(at)?),
        Some(("unix", path)) => Serial::Unix(path.into()),
        None if text == "echo" => Serial::Echo,
        _ => bail!("{text:?} is none of tcp:…, telnet:…, unix:… and echo"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> anyhow::Result<Vec<Config>> {
        let file = tempfile::NamedTempFile::new()?;
        std::fs::write(file.path(), "secret\n")?;
        let path = file.path().to_string_lossy().into_owned();
        let fixed = ["bmcsim", "--password-file", &path];
        Args::try_parse_from(fixed.iter().chain(arguments))?.configs()
    }

    #[test]
    fn a_thousand_bmcs_each_with_a_place_of_its_own() {
        let configs = parse(&[
            "--listen",
            "127.44.0.1-127.44.3.232",
            "--start",
            "run {number} {address}",
            "--sol",
            "unix:/run/{number}",
            "--fault",
            "loss=5",
        ]);
        let configs = configs.unwrap();
        assert_eq!(configs.len(), 1000);
        let last = &configs[999];
        assert_eq!(last.listen, "127.44.3.232:623".parse().unwrap());
        let start = "run 999 127.44.3.232".to_owned();
        assert_eq!(last.host, Host::Process { start, monitor: None });
        assert_eq!(last.serial, Serial::Unix("/run/999".into()));
        assert_eq!(last.faults.inbound.loss, 5.0);
        assert_ne!(configs[0].seed, last.seed);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for wrong in [
            ["--listen", "127.0.0.2-127.0.0.1"],
            ["--listen", "127.0.0.1-128.0.0.1"],
            ["--suites", "4"],
            ["--auth", "md2"],
            ["--fault", "nothing"],
            ["--sol", "serial"],
            ["--idle", "-1"],
        ] {
            let one = format!("{}={}", wrong[0], wrong[1]);
            assert!(parse(&[&one]).is_err(), "{one}");
        }
        assert!(parse(&["--suites=", "--auth="]).is_err());
        assert!(parse(&["--suites="]).unwrap()[0].suites.is_empty());
        let nobody = Args::try_parse_from(["bmcsim"]).unwrap().configs().unwrap_err();
        assert!(nobody.to_string().contains("--password-file"));
    }
}
