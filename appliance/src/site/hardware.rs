//! How a machine is reached when it has no network of its own: its BMC, its console line, its outlet,
//! its switch port. Only where secrets are kept is known here, never a secret.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use koboshi_console::Settings;
use koboshi_console::wire::serial;
use koboshi_ipmi::Version;
use koboshi_pxe::Mac;
use serde::{Serialize, Serializer};

use super::names::Malformed;
use super::origin::At;
use super::values::shown;

/// Where a password is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Secret {
    /// In this file; relative paths are relative to the site file that says so.
    File(PathBuf),
    /// In this variable of the appliance's environment.
    Env(String),
}

/// Which RMCP+ cipher suite a BMC is asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Cipher {
    /// 17 where the BMC has it, else 3.
    #[default]
    Auto,
    /// This one.
    Suite(u8),
}

/// A BMC: what the machine, its class and `[defaults.bmc]` say of it together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Bmc {
    /// Its address or name.
    pub host: At<String>,
    /// The MAC of its NIC: where we lend BMCs their addresses, it gets that of `host`.
    pub mac: Option<At<Mac>>,
    /// UDP port.
    pub port: u16,
    /// The account.
    pub user: Option<At<String>>,
    /// The account's password.
    pub password: Option<At<Secret>>,
    /// The file with the BMC's own key (`Kg`).
    pub kg: Option<At<PathBuf>>,
    /// The cipher suite.
    pub cipher: Cipher,
    /// Which IPMI it speaks.
    pub version: Version,
    /// Workarounds, by name.
    pub quirks: Vec<String>,
    /// The blade behind a bridging BMC.
    pub target: Option<u8>,
}

/// What one of the three places says of a BMC.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct BmcPart {
    /// Its address or name; only a machine has one.
    pub host: Option<At<String>>,
    /// The MAC of its NIC; only a machine has one.
    pub mac: Option<At<Mac>>,
    /// UDP port.
    pub port: Option<At<u16>>,
    /// The account.
    pub user: Option<At<String>>,
    /// The account's password.
    pub password: Option<At<Secret>>,
    /// The file with the BMC's own key.
    pub kg: Option<At<PathBuf>>,
    /// The cipher suite.
    pub cipher: Option<At<Cipher>>,
    /// Which IPMI it speaks.
    pub version: Option<At<Version>>,
    /// Workarounds, by name.
    pub quirks: Option<Vec<String>>,
    /// The blade behind a bridging BMC.
    pub target: Option<At<u8>>,
}

impl BmcPart {
    /// A machine's BMC, if it has one: what it says itself first, then its class, then the defaults.
    pub fn merge(&self, class: &BmcPart, defaults: &BmcPart) -> Option<Bmc> {
        fn first<T: Clone>(parts: [&Option<T>; 3]) -> Option<T> {
            parts.into_iter().flatten().next().cloned()
        }
        let of = [self, class, defaults];
        Some(Bmc {
            host: self.host.clone()?,
            mac: self.mac.clone(),
            port: first(of.map(|part| &part.port)).map_or(623, |port| port.value),
            user: first(of.map(|part| &part.user)),
            password: first(of.map(|part| &part.password)),
            kg: first(of.map(|part| &part.kg)),
            cipher: first(of.map(|part| &part.cipher)).map_or(Cipher::Auto, |cipher| cipher.value),
            version: first(of.map(|part| &part.version))
                .map_or(Version::Auto, |version| version.value),
            quirks: first(of.map(|part| &part.quirks)).unwrap_or_default(),
            target: first(of.map(|part| &part.target)).map(|target| target.value),
        })
    }
}

/// A machine's console line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Console {
    /// Serial over LAN, through its BMC.
    Sol,
    /// A serial port of the appliance.
    Serial(serial::Port),
    /// A terminal server's port, and how the serial port behind it is set if that is done from here.
    Telnet(String, u16, Option<Settings>),
    /// A bare TCP port.
    Tcp(String, u16),
    /// A socket on the appliance.
    Unix(PathBuf),
    /// What this command reads and writes.
    Exec(String),
}

impl FromStr for Console {
    type Err = Malformed;
    fn from_str(text: &str) -> Result<Console, Malformed> {
        let bad = |why: &str| {
            Malformed::new(format!("{} is not a console line", shown(text))).help(why.to_string())
        };
        if text == "sol" {
            return Ok(Console::Sol);
        }
        let kinds =
            "sol, serial:PATH@SPEED, telnet:HOST:PORT, tcp:HOST:PORT, unix:PATH or exec:COMMAND";
        let (kind, rest) = text.split_once(':').ok_or_else(|| bad(kinds))?;
        let host_port = |text: &str| {
            let (host, port) = text.rsplit_once(':')?;
            let port: u16 = port.parse().ok().filter(|port| *port > 0)?;
            let host = host.trim_start_matches('[').trim_end_matches(']');
            let fits = |c: char| c.is_ascii_alphanumeric() || ".:-_%".contains(c);
            (!host.is_empty() && host.chars().all(fits)).then(|| (host.to_string(), port))
        };
        let absolute = |path: &str| {
            (path.starts_with('/') && !path.contains('\0')).then(|| PathBuf::from(path))
        };
        match kind {
            "serial" => {
                let port: Result<serial::Port, _> = rest.parse();
                port.map(Console::Serial).map_err(|why| bad(&why.to_string()))
            }
            "telnet" => {
                let like = "like telnet:ts1.dc.example:4001, or telnet:ts1.dc.example:4001,115200,8n1 where \
                            the server lets its port be set (RFC 2217)";
                let (at, settings) = match rest.split_once(',') {
                    None => (rest, None),
                    Some((at, set)) => (at, Some(settings(set).ok_or_else(|| bad(like))?)),
                };
                host_port(at)
                    .map(|(host, port)| Console::Telnet(host, port, settings))
                    .ok_or_else(|| bad(like))
            }
            "tcp" => host_port(rest)
                .map(|(host, port)| Console::Tcp(host, port))
                .ok_or_else(|| bad("like tcp:10.78.0.9:4001")),
            "unix" => absolute(rest)
                .map(Console::Unix)
                .ok_or_else(|| bad("like unix:/run/vm1/serial.sock")),
            "exec" if !rest.trim().is_empty() && !rest.contains('\0') => {
                Ok(Console::Exec(rest.to_string()))
            }
            "exec" => Err(bad("like exec:virsh console vm1")),
            _ => Err(bad(kinds)),
        }
    }
}

/// How a serial port is set, at a speed that ports have.
fn settings(text: &str) -> Option<Settings> {
    text.parse().ok().filter(|settings: &Settings| serial::SPEEDS.contains(&settings.speed))
}

impl fmt::Display for Console {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Console::Sol => f.write_str("sol"),
            Console::Serial(port) => write!(f, "serial:{port}"),
            Console::Telnet(host, port, settings) => {
                write!(f, "telnet:{host}:{port}")?;
                settings.map_or(Ok(()), |settings| write!(f, ",{settings}"))
            }
            Console::Tcp(host, port) => write!(f, "tcp:{host}:{port}"),
            Console::Unix(path) => write!(f, "unix:{}", path.display()),
            Console::Exec(command) => write!(f, "exec:{command}"),
        }
    }
}

impl Serialize for Console {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Power for hardware without IPMI: a command that is given `on`, `off`, `reset` or `status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Power(pub String);

impl FromStr for Power {
    type Err = Malformed;
    fn from_str(text: &str) -> Result<Power, Malformed> {
        match text.strip_prefix("exec:") {
            Some(command) if !command.trim().is_empty() && !command.contains('\0') => {
                Ok(Power(command.to_string()))
            }
            _ => Err(Malformed::new(format!("{} does not say how to switch power", shown(text)))
                .help("like exec:/usr/local/bin/vm-power m07")),
        }
    }
}

/// How a machine is kept from running.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Fence {
    /// Its BMC switches it off.
    Bmc,
    /// Its outlet does.
    Pdu,
    /// Its switch port is closed.
    Port,
}

/// An outlet of a PDU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Outlet {
    /// The PDU.
    pub host: String,
    /// The outlet, as the PDU calls it.
    pub outlet: String,
}

/// A port of a switch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SwitchPort {
    /// The switch.
    pub switch: String,
    /// The port, as the switch calls it.
    pub name: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn consoles_read_back_as_they_print() {
        for good in [
            "sol",
            "serial:/dev/ttyUSB0@115200",
            "serial:/dev/serial/by-id/a@b@9600",
            "serial:/dev/ttyS1@9600,7e1,rtscts",
            "serial:usb:A50285BI@115200",
            "serial:usb:1-1.2:3@9600,xonxoff",
            "telnet:ts1:4001",
            "telnet:ts1:4001,115200",
            "telnet:10.0.0.1:4001,9600,7e1,rtscts",
            "tcp:10.0.0.1:7000",
            "unix:/run/x.sock",
            "exec:ssh -t vm 'virsh console {n}'",
        ] {
            assert_eq!(good.parse::<Console>().unwrap().to_string(), good);
        }
        for bad in [
            "",
            "SOL",
            "serial:/dev/ttyUSB0",
            "serial:ttyUSB0@9600",
            "serial:/dev/ttyS0@9601",
            "serial:/dev/ttyS0@9600,8x1",
            "serial:usb:@9600",
            "telnet:ts1",
            "telnet::23",
            "telnet:ts1:4001,",
            "telnet:ts1:4001,9601",
            "telnet:ts1:4001,9600,8x1",
            "tcp:h:0",
            "tcp:h:70000",
            "tcp:a b:1",
            "unix:run",
            "exec:",
            "exec: ",
            "ssh:h:22",
        ] {
            assert!(bad.parse::<Console>().is_err(), "{bad}");
        }
        assert_eq!("exec:pw".parse(), Ok(Power("pw".into())));
        assert!("pw".parse::<Power>().is_err());
    }
}
