//! What else is known of a machine that is silent: whether it has power, by its BMC or by the command that the
//! site names for it (`power = "exec:…"`), and who answers ARP at its address.

use std::collections::{HashMap, HashSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use futures::StreamExt;
use koboshi_ipmi::Controller;
use koboshi_ipmi::commands::chassis;
use koboshi_pxe::Mac;
use serde::{Deserialize, Serialize};

use super::silent::{Evidence, Gone};
use crate::bmcs::{Switch, command};

/// Machines asked at a time: a dead BMC costs its ten seconds, and five hundred of them must not cost
/// three quarters of an hour.
const AT_ONCE: usize = 64;
const PATIENCE: Duration = Duration::from_secs(10);
/// Addresses asked at a time: the kernel's neighbour table ends at 1,024 (`gc_thresh3`).
const NEIGHBOURS: usize = 256;
/// The kernel doubts an old neighbour for 5 s, asks it three times and then everybody three times.
const ARP_TAKES: Duration = Duration::from_secs(12);

/// Whether a machine has power.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Power {
    /// Its BMC or its command says so.
    On,
    /// Its BMC or its command says so.
    Off,
    /// The site names neither.
    #[default]
    NotAsked,
    /// It could not be asked, or said something else.
    Unknown(String),
}

/// Asks for all of them. `switches`: by machine.
pub async fn ask(
    gone: &[Gone],
    mut switches: HashMap<String, Result<Switch, String>>,
) -> HashMap<String, Evidence> {
    let asked: Vec<(String, Option<Result<Switch, String>>)> =
        gone.iter().map(|gone| (gone.machine.clone(), switches.remove(&gone.machine))).collect();
    let power = futures::stream::iter(asked).map(|(machine, switch)| async {
        let power = match switch {
            Some(Ok(Switch::Command(command))) => status(&command, PATIENCE).await,
            Some(Ok(Switch::Bmc(bmc))) => told(&bmc).await,
            Some(Err(why)) => Power::Unknown(why),
            None => Power::NotAsked,
        };
        (machine, power)
    });
    let (power, answers) = tokio::join!(
        power.buffer_unordered(AT_ONCE).collect::<Vec<_>>(),
        // An address of the pool may be another's by now.
        neighbours(gone.iter().filter(|gone| gone.fixed).map(|gone| gone.address).collect())
    );
    let by_name: HashMap<&str, &Gone> =
        gone.iter().map(|gone| (gone.machine.as_str(), gone)).collect();
    power
        .into_iter()
        .map(|(machine, power)| {
            let address = by_name.get(machine.as_str()).map(|gone| gone.address);
            let answers = address.and_then(|address| answers.get(&address).copied());
            (machine, Evidence { power, answers })
        })
        .collect()
}

/// What its BMC says.
async fn told(bmc: &impl Controller) -> Power {
    match tokio::time::timeout(PATIENCE, chassis::status(bmc)).await {
        Ok(Ok(status)) if status.power => Power::On,
        Ok(Ok(_)) => Power::Off,
        Ok(Err(error)) => Power::Unknown(error.to_string()),
        Err(_) => Power::Unknown(format!("no answer within {} s", PATIENCE.as_secs())),
    }
}

/// What its power command says.
async fn status(command: &str, patience: Duration) -> Power {
    match command::status(command, patience).await {
        Ok(true) => Power::On,
        Ok(false) => Power::Off,
        Err(why) => Power::Unknown(why),
    }
}

/// Who answers ARP at these addresses. The kernel asks, once there is something to send to them.
async fn neighbours(addresses: HashSet<Ipv4Addr>) -> HashMap<Ipv4Addr, Mac> {
    let addresses: Vec<Ipv4Addr> = addresses.into_iter().collect();
    let mut found = HashMap::new();
    for some in addresses.chunks(NEIGHBOURS) {
        let Ok(socket) = tokio::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await else {
            break;
        };
        for address in some {
            // Port 9 is "discard". An error is of an earlier address: nobody listens, so it lives.
            for _ in 0..2 {
                if socket.send_to(&[], SocketAddr::from((*address, 9))).await.is_ok() {
                    break;
                }
            }
        }
        tokio::time::sleep(ARP_TAKES).await;
        let table = tokio::fs::read_to_string("/proc/net/arp").await.unwrap_or_default();
        found.extend(table.lines().filter_map(neighbour).filter(|(at, _)| some.contains(at)));
    }
    found
}

/// `10.77.0.11  0x1  0x2  52:54:00:77:00:01  *  kb0`, if it is complete (flag 2).
fn neighbour(line: &str) -> Option<(Ipv4Addr, Mac)> {
    let mut words = line.split_whitespace();
    let address = words.next()?.parse().ok()?;
    let flags = words.nth(1)?.strip_prefix("0x")?;
    let complete = u32::from_str_radix(flags, 16).ok()? & 2 != 0;
    let mac: Mac = words.next()?.parse().ok()?;
    complete.then_some((address, mac))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_power_command_answers_or_is_given_up() {
        let patience = Duration::from_secs(20);
        for (command, expected) in [
            ("echo m07:", None),
            ("echo Chassis Power is on #", Some(Power::On)),
            ("printf 'shut off\\n' #", Some(Power::Off)),
            ("echo running #", Some(Power::On)),
            ("yes off |", None),
            ("/nonexistent/power", None),
        ] {
            let power = status(command, patience).await;
            match expected {
                Some(expected) => assert_eq!(power, expected, "{command}"),
                None => assert!(matches!(power, Power::Unknown(_)), "{command}: {power:?}"),
            }
        }
        let begun = std::time::Instant::now();
        let power = status("sleep 600; echo", Duration::from_millis(200)).await;
        assert!(matches!(power, Power::Unknown(why) if why.starts_with("no answer")));
        assert!(begun.elapsed() < Duration::from_secs(10));
    }

    /// A BMC that answers one question with this.
    struct Says(Result<u8, koboshi_ipmi::Error>);

    impl Controller for Says {
        async fn ask(
            &self,
            _: koboshi_ipmi::Request,
        ) -> Result<koboshi_ipmi::Response, koboshi_ipmi::Error> {
            let data = vec![self.0.clone()?, 0, 0];
            Ok(koboshi_ipmi::Response { completion: koboshi_ipmi::Completion::OK, data })
        }
    }

    #[tokio::test]
    async fn a_bmc_is_asked_as_a_command_is() {
        assert_eq!(told(&Says(Ok(1))).await, Power::On);
        assert_eq!(told(&Says(Ok(0))).await, Power::Off);
        let wrong = koboshi_ipmi::Error::WrongPassword { user: "admin".into() };
        assert_eq!(
            told(&Says(Err(wrong))).await,
            Power::Unknown("wrong password for admin".into())
        );
    }

    #[test]
    fn the_kernels_neighbours() {
        let table = "IP address       HW type     Flags       HW address            Mask     Device\n\
                     10.77.0.11       0x1         0x2         52:54:00:77:00:01     *        kb0\n\
                     10.77.0.12       0x1         0x0         00:00:00:00:00:00     *        kb0\n\
                     10.77.0.13       0x1         0x6         52:54:00:77:00:03     *        kb0\nodd\n";
        let found: Vec<_> =
            table.lines().filter_map(neighbour).map(|(at, _)| at.octets()[3]).collect();
        assert_eq!(found, [11, 13]);
    }
}
