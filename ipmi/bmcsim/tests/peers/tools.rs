//! ipmitool and FreeIPMI as they are run by tests: passwords by environment and by file.

use std::io::Write;
use std::net::SocketAddr;
use std::process::{Command, Output};

use koboshi_bmcsim::Sim;
use tempfile::NamedTempFile;

/// Everybody's.
pub const PASSWORD: &str = "secret";

/// What it printed, or what it complained of.
fn told(output: Output) -> Result<String, String> {
    let mut said = String::from_utf8_lossy(&output.stdout).into_owned();
    match output.status.success() {
        true => Ok(said),
        false => {
            said.push_str(&String::from_utf8_lossy(&output.stderr));
            Err(said)
        }
    }
}

/// Runs ipmitool as `admin`. `-N 1`: it waits a second for what is lost.
pub fn ipmitool(sim: &Sim, arguments: &[&str]) -> Result<String, String> {
    ipmitool_at(sim.addr(), arguments)
}

/// The same against a BMC that is not in this process.
pub fn ipmitool_at(at: SocketAddr, arguments: &[&str]) -> Result<String, String> {
    let (host, port) = (at.ip().to_string(), at.port().to_string());
    let output = Command::new("ipmitool")
        .args(["-H", &host, "-p", &port, "-U", "admin", "-E", "-N", "1", "-R", "4"])
        .args(arguments)
        .env("IPMI_PASSWORD", PASSWORD)
        .output();
    told(output.expect("ipmitool is installed"))
}

/// FreeIPMI's programs with their configuration.
pub struct FreeIpmi {
    config: NamedTempFile,
    hosts: String,
}

impl FreeIpmi {
    /// For this BMC.
    pub fn new(sim: &Sim) -> FreeIpmi {
        FreeIpmi::with(sim, "")
    }

    /// The same with another line of configuration.
    pub fn with(sim: &Sim, line: &str) -> FreeIpmi {
        FreeIpmi::at(&sim.addr().to_string(), line)
    }

    /// For hosts as FreeIPMI writes them.
    pub fn at(hosts: &str, line: &str) -> FreeIpmi {
        let mut config = NamedTempFile::new().expect("a file");
        writeln!(config, "username admin\npassword {PASSWORD}\n{line}").expect("written");
        FreeIpmi { config, hosts: hosts.to_owned() }
    }

    /// Runs one of them: what it says, be it well or ill.
    pub fn run(&self, program: &str, how: &[&str], what: &[&str]) -> String {
        let output = Command::new(format!("/usr/sbin/{program}"))
            .arg("--config-file")
            .arg(self.config.path())
            .args(["-h", &self.hosts])
            .args(how)
            .args(what)
            .output();
        told(output.expect("freeipmi-tools are installed")).unwrap_or_else(|complaint| complaint)
    }
}
