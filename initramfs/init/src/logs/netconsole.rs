//! The kernel sends by itself what it prints (Documentation/networking/netconsole.rst), where the site wants
//! it: no program is left to log a panic. It is told so by configfs, as it can be told again.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Command, Stdio};

use nix::ifaddrs::getifaddrs;
use rustix::mount::{MountFlags, mount};

const CONFIG: &str = "/sys/kernel/config";
const TARGET: &str = "/sys/kernel/config/netconsole/koboshi";
const MODPROBE: [&str; 3] = ["/sbin/modprobe", "/usr/sbin/modprobe", "/bin/modprobe"];

/// Arms it, unless it is. What does not go, in words.
pub fn arm(to: SocketAddr) -> Result<(), String> {
    let target = Path::new(TARGET);
    if read(&target.join("enabled")).trim() == "1" {
        return Ok(());
    }
    let IpAddr::V4(server) = to.ip() else { return Err("netconsole is for IPv4 here".into()) };
    let (device, own, prefix) = towards(server).ok_or("no interface has an address")?;
    let routes = read(Path::new("/proc/net/route"));
    let next = match same_network(own, server, prefix) {
        true => server,
        false => gateway(&routes).ok_or("no way to the appliance")?,
    };
    let mac = neighbour(&read(Path::new("/proc/net/arp")), next)
        .ok_or_else(|| format!("nobody knows the MAC of {next}"))?;
    let netconsole = Path::new(CONFIG).join("netconsole");
    if !netconsole.is_dir() {
        // With configfs before it, which it needs.
        modprobe("netconsole")?;
        if !netconsole.is_dir() {
            mount("configfs", CONFIG, "configfs", MountFlags::empty(), None::<&std::ffi::CStr>)
                .map_err(|errno| format!("configfs is not mounted: {errno}"))?;
        }
    }
    let told = || -> io::Result<()> {
        if !target.is_dir() {
            fs::create_dir(target)?;
        }
        let tell = |key: &str, value: &str| fs::write(target.join(key), value);
        // One that an interface's end has switched off can be told anew.
        tell("dev_name", &device)?;
        tell("local_ip", &own.to_string())?;
        tell("remote_ip", &server.to_string())?;
        tell("remote_port", &to.port().to_string())?;
        tell("remote_mac", &mac)?;
        tell("extended", "1")?;
        tell("enabled", "1")
    };
    told().map_err(|error| format!("the kernel does not take it: {error}"))
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn modprobe(name: &str) -> Result<(), String> {
    let program = MODPROBE.iter().find(|path| Path::new(path).exists());
    let program = program.ok_or("the image has no modprobe")?;
    let status = Command::new(program)
        .args(["-b", name])
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(_) => Err(format!("the image's kernel has no module {name}")),
        Err(error) => Err(format!("{program}: {error}")),
    }
}

/// The interface by which the server is reached: its name, our address there, network bits.
fn towards(server: Ipv4Addr) -> Option<(String, Ipv4Addr, u8)> {
    let socket = std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect((server, 9)).ok()?;
    let IpAddr::V4(own) = socket.local_addr().ok()?.ip() else { return None };
    getifaddrs().ok()?.find_map(|found| {
        let address = found.address?.as_sockaddr_in()?.ip();
        let mask = found.netmask?.as_sockaddr_in()?.ip();
        let prefix = u8::try_from(mask.to_bits().leading_ones()).ok()?;
        (address == own).then_some((found.interface_name, own, prefix))
    })
}

fn same_network(one: Ipv4Addr, other: Ipv4Addr, prefix: u8) -> bool {
    let shift = 32 - u32::from(prefix.min(32));
    (one.to_bits() ^ other.to_bits()).checked_shr(shift).unwrap_or(0) == 0
}

/// The default route's, of /proc/net/route: addresses as the processor has them.
fn gateway(routes: &str) -> Option<Ipv4Addr> {
    routes.lines().skip(1).find_map(|line| {
        let mut words = line.split_whitespace().skip(1);
        let (to, via) = (words.next()?, words.next()?);
        let via = u32::from_str_radix(via, 16).ok().filter(|via| *via != 0)?;
        (to == "00000000").then(|| Ipv4Addr::from(via.to_ne_bytes()))
    })
}

/// Of /proc/net/arp, where it is complete (flag 2).
fn neighbour(table: &str, who: Ipv4Addr) -> Option<String> {
    table.lines().skip(1).find_map(|line| {
        let mut words = line.split_whitespace();
        let address: Ipv4Addr = words.next()?.parse().ok()?;
        let flags = words.nth(1)?.trim_start_matches("0x");
        let complete = u32::from_str_radix(flags, 16).ok()? & 2 != 0;
        let mac = words.next()?;
        (address == who && complete).then(|| mac.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_of_the_kernel() {
        let arp = "IP address       HW type     Flags       HW address            Mask     Device
10.77.0.9        0x1         0x0         00:00:00:00:00:00     *        eth0
10.77.0.1        0x1         0x2         52:54:00:77:00:fe     *        eth0\n";
        let at = |text: &str| text.parse().unwrap();
        assert_eq!(neighbour(arp, at("10.77.0.1")).as_deref(), Some("52:54:00:77:00:fe"));
        assert_eq!(neighbour(arp, at("10.77.0.9")), None);
        let routes =
            "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00004D0A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
eth0\t00000000\t01004D0A\t0003\t0\t0\t0\t00000000\t0\t0\t0\n";
        assert_eq!(gateway(routes), Some(at("10.77.0.1")));
        assert_eq!(gateway("odd\n\nx y\n"), None);
        assert!(same_network(at("10.77.0.1"), at("10.77.0.9"), 24));
        assert!(!same_network(at("10.77.0.1"), at("10.78.0.9"), 24));
        assert!(same_network(at("10.77.0.1"), at("99.78.0.9"), 0));
        assert!(!same_network(at("10.77.0.1"), at("10.77.0.2"), 32));
    }
}
