//! A BMC's own place in the network: address, mask, gateways, VLAN, cipher suites, alerts.
//!
//! IPMI 2.0 §23.1–23.2 and table 23-4. IPv6 is in [`super::lan_ipv6`], changes in [`super::lan_set`].

use std::fmt;
use std::net::Ipv4Addr;

use serde::{Serialize, Serializer};

use super::channel::Limit;
use super::lan_ipv6::{self, Ipv6};
use super::parameters::Table;
use crate::controller::Controller;
use crate::error::Error;

/// IP address.
pub const ADDRESS: u8 = 3;
/// IP address source.
pub const SOURCE: u8 = 4;
/// MAC address.
pub const MAC: u8 = 5;
/// Subnet mask.
pub const MASK: u8 = 6;
/// IPv4 header: time to live, flags, type of service.
pub const HEADER: u8 = 7;
/// Primary RMCP port.
pub const PORT: u8 = 8;
/// BMC-generated ARP.
pub const ARP: u8 = 10;
/// Gratuitous ARP interval.
pub const ARP_INTERVAL: u8 = 11;
/// Default gateway's address.
pub const GATEWAY: u8 = 12;
/// Default gateway's MAC address.
pub const GATEWAY_MAC: u8 = 13;
/// Backup gateway's address.
pub const BACKUP_GATEWAY: u8 = 14;
/// Backup gateway's MAC address.
pub const BACKUP_GATEWAY_MAC: u8 = 15;
/// Number of alert destinations.
pub const DESTINATIONS: u8 = 17;
/// Alert destinations' types.
pub const DESTINATION_TYPE: u8 = 18;
/// Alert destinations' addresses.
pub const DESTINATION_ADDRESS: u8 = 19;
/// 802.1q VLAN id.
pub const VLAN: u8 = 20;
/// 802.1q VLAN priority.
pub const VLAN_PRIORITY: u8 = 21;
/// Number of cipher suites.
pub const SUITE_COUNT: u8 = 22;
/// Cipher suites.
pub const SUITES: u8 = 23;
/// Cipher suites' privilege levels.
pub const SUITE_LIMITS: u8 = 24;
/// Bad password threshold.
pub const BAD_PASSWORDS: u8 = 26;

/// A MAC address.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Mac {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

/// Where a BMC has its address from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// Not told.
    Unspecified,
    /// Set.
    Static,
    /// From DHCP.
    Dhcp,
    /// From the BIOS or other software of the host.
    Bios,
    /// By another protocol.
    Other,
}

impl Source {
    /// Its number.
    pub fn number(self) -> u8 {
        match self {
            Source::Unspecified => 0,
            Source::Static => 1,
            Source::Dhcp => 2,
            Source::Bios => 3,
            Source::Other => 4,
        }
    }

    fn from_number(number: u8) -> Source {
        match number & 0x0f {
            0 => Source::Unspecified,
            1 => Source::Static,
            2 => Source::Dhcp,
            3 => Source::Bios,
            _ => Source::Other,
        }
    }
}

/// Which ARP a BMC does by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Arp {
    /// It answers who asks for its address. Without it its peers need a fixed entry.
    pub answers: bool,
    /// It announces its address from time to time.
    pub announces: bool,
}

/// A cipher suite, and how far a session with it may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct SuiteLimit {
    /// Its number.
    pub suite: u8,
    /// [`Limit::Unset`] is not allowed at all.
    pub limit: Limit,
}

/// Where alerts go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Destination {
    /// 0 is the one that is not kept.
    pub number: u8,
    /// To whom.
    pub address: Ipv4Addr,
    /// SNMP traps; otherwise something of the maker's.
    pub traps: bool,
    /// They are repeated until they are acknowledged.
    pub acknowledged: bool,
}

/// When an account is locked because of wrong passwords.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Lockout {
    /// After so many. 0 is never.
    pub attempts: u8,
    /// The count starts anew after so many seconds.
    pub reset_seconds: u32,
    /// The account opens again after so many seconds. 0 is only by an administrator.
    pub lockout_seconds: u32,
}

/// What a BMC tells of its LAN settings; `None` is not told. The SNMP community is never asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct LanSettings {
    /// Of this channel.
    pub channel: u8,
    /// Where the address is from.
    pub source: Option<Source>,
    /// The address.
    pub address: Option<Ipv4Addr>,
    /// Its mask.
    pub mask: Option<Ipv4Addr>,
    /// The BMC's MAC address.
    pub mac: Option<Mac>,
    /// Default gateway; `None` also if it has none.
    pub gateway: Option<Ipv4Addr>,
    /// Its MAC address.
    pub gateway_mac: Option<Mac>,
    /// The gateway that is used when that fails.
    pub backup_gateway: Option<Ipv4Addr>,
    /// Its MAC address.
    pub backup_gateway_mac: Option<Mac>,
    /// The VLAN it tags with; `None` also if it does not.
    pub vlan: Option<u16>,
    /// Priority of what it tags, 0 to 7.
    pub vlan_priority: Option<u8>,
    /// UDP port of RMCP.
    pub port: Option<u16>,
    /// Time to live of what it sends.
    pub ttl: Option<u8>,
    /// ARP by itself.
    pub arp: Option<Arp>,
    /// Announcing, every so many milliseconds.
    pub arp_interval_ms: Option<u64>,
    /// Cipher suites.
    pub suites: Vec<SuiteLimit>,
    /// Alerts.
    pub destinations: Vec<Destination>,
    /// Locking of accounts.
    pub lockout: Option<Lockout>,
    /// IPv6, where it has it.
    pub ipv6: Option<Ipv6>,
}

fn address(data: &[u8]) -> Option<Ipv4Addr> {
    data.first_chunk::<4>().copied().map(Ipv4Addr::from)
}

fn some_address(data: &[u8]) -> Option<Ipv4Addr> {
    address(data).filter(|address| !address.is_unspecified())
}

fn mac(data: &[u8]) -> Option<Mac> {
    data.first_chunk().copied().map(Mac)
}

fn some_mac(data: &[u8]) -> Option<Mac> {
    mac(data).filter(|mac| mac.0 != [0; 6])
}

impl LanSettings {
    /// Takes in a parameter's datum; bytes that are missing are not told.
    pub fn take(&mut self, parameter: u8, data: &[u8]) {
        let first = data.first().copied();
        match parameter {
            ADDRESS => self.address = address(data),
            SOURCE => self.source = first.map(Source::from_number),
            MAC => self.mac = mac(data),
            MASK => self.mask = address(data),
            HEADER => self.ttl = first,
            PORT => self.port = data.first_chunk().map(|port| u16::from_le_bytes(*port)),
            ARP => {
                self.arp = first.map(|arp| Arp { answers: arp & 2 != 0, announces: arp & 1 != 0 });
            }
            ARP_INTERVAL => self.arp_interval_ms = first.map(|halves| u64::from(halves) * 500),
            GATEWAY => self.gateway = some_address(data),
            GATEWAY_MAC => self.gateway_mac = some_mac(data),
            BACKUP_GATEWAY => self.backup_gateway = some_address(data),
            BACKUP_GATEWAY_MAC => self.backup_gateway_mac = some_mac(data),
            VLAN => {
                self.vlan = data.first_chunk().and_then(|[low, high]| {
                    let id = u16::from_le_bytes([*low, high & 0x0f]);
                    (high & 0x80 != 0).then_some(id)
                });
            }
            VLAN_PRIORITY => self.vlan_priority = first.map(|priority| priority & 7),
            BAD_PASSWORDS => {
                self.lockout = data.first_chunk().map(|[_, attempts, a, b, c, d]| Lockout {
                    attempts: *attempts,
                    reset_seconds: u32::from(u16::from_le_bytes([*a, *b])) * 10,
                    lockout_seconds: u32::from(u16::from_le_bytes([*c, *d])) * 10,
                });
            }
            _ => {}
        }
    }
}

/// Parameters of one datum each, in the order they are asked for.
const SINGLE: [u8; 15] = [
    ADDRESS,
    SOURCE,
    MAC,
    MASK,
    HEADER,
    PORT,
    ARP,
    ARP_INTERVAL,
    GATEWAY,
    GATEWAY_MAC,
    BACKUP_GATEWAY,
    BACKUP_GATEWAY_MAC,
    VLAN,
    VLAN_PRIORITY,
    BAD_PASSWORDS,
];

/// LAN settings of a channel.
pub async fn get(bmc: &impl Controller, channel: u8) -> Result<LanSettings, Error> {
    let table = Table::lan(channel);
    let mut settings = basic(bmc, channel).await?;
    settings.suites = suites(bmc, channel).await?;
    settings.destinations = destinations(bmc, table).await?;
    settings.ipv6 = lan_ipv6::get(bmc, table).await?;
    Ok(settings)
}

/// The same without cipher suites, alerts and IPv6.
pub async fn basic(bmc: &impl Controller, channel: u8) -> Result<LanSettings, Error> {
    let mut settings = LanSettings { channel, ..LanSettings::default() };
    for parameter in SINGLE {
        if let Some(data) = Table::lan(channel).read_if_known(bmc, parameter, 0, 0).await? {
            settings.take(parameter, &data);
        }
    }
    if settings == (LanSettings { channel, ..LanSettings::default() }) {
        return Err(Error::Invalid(format!("channel {channel} is no LAN")));
    }
    Ok(settings)
}

/// Cipher suites of a channel with what each is good for. Empty where the BMC does not tell.
pub async fn suites(bmc: &impl Controller, channel: u8) -> Result<Vec<SuiteLimit>, Error> {
    let table = Table::lan(channel);
    let Some(count) = table.read_if_known(bmc, SUITE_COUNT, 0, 0).await? else {
        return Ok(Vec::new());
    };
    let count = usize::from(count.first().copied().unwrap_or(0)).min(16);
    let Some(ids) = table.read_if_known(bmc, SUITES, 0, 0).await? else {
        return Ok(Vec::new());
    };
    let limits = table.read_if_known(bmc, SUITE_LIMITS, 0, 0).await?.unwrap_or_default();
    let ids = ids.get(1..).unwrap_or_default();
    Ok(ids
        .iter()
        .take(count)
        .enumerate()
        .map(|(place, suite)| {
            let byte = limits.get(1 + place / 2).copied().unwrap_or(0);
            let nibble = if place % 2 == 0 { byte & 0x0f } else { byte >> 4 };
            SuiteLimit { suite: *suite, limit: Limit::from_number(nibble) }
        })
        .collect())
}

async fn destinations(bmc: &impl Controller, table: Table) -> Result<Vec<Destination>, Error> {
    let Some(count) = table.read_if_known(bmc, DESTINATIONS, 0, 0).await? else {
        return Ok(Vec::new());
    };
    let count = count.first().copied().unwrap_or(0) & 0x0f;
    let mut found = Vec::new();
    for number in 1..=count {
        let Some(place) = table.read_if_known(bmc, DESTINATION_ADDRESS, number, 0).await? else {
            break;
        };
        let Some(address) = place.get(3..).and_then(some_address) else { continue };
        let kind = table.read_if_known(bmc, DESTINATION_TYPE, number, 0).await?;
        let kind = kind.and_then(|kind| kind.get(1).copied()).unwrap_or(0);
        found.push(Destination {
            number,
            address,
            traps: kind & 7 == 0,
            acknowledged: kind & 0x80 != 0,
        });
    }
    Ok(found)
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::commands::script::{Script, ok, refuse};
    use crate::message::{Request, Response};

    pub(crate) type Step = (Request, Result<Response, Error>);

    /// What a BMC at 10.78.0.1/24 answers to [`basic`], parameters in `other` answered otherwise.
    pub(crate) fn answers(other: &[(u8, &[u8])]) -> Vec<Step> {
        let known: [(u8, &[u8]); 12] = [
            (ADDRESS, &[10, 78, 0, 1]),
            (SOURCE, &[1]),
            (MAC, &[0x52, 0x54, 0, 0x77, 0, 1]),
            (MASK, &[255, 255, 255, 0]),
            (HEADER, &[64, 0, 0]),
            (PORT, &[0x6f, 2]),
            (ARP, &[3]),
            (GATEWAY, &[0, 0, 0, 0]),
            (GATEWAY_MAC, &[0; 6]),
            (VLAN, &[78, 0x00]),
            (VLAN_PRIORITY, &[0]),
            (BAD_PASSWORDS, &[0, 3, 6, 0, 30, 0]),
        ];
        SINGLE
            .iter()
            .map(|parameter| {
                let request = Table::lan(1).get_request(*parameter, 0, 0);
                let data = other.iter().chain(&known).find(|(number, _)| number == parameter);
                let answer = data.map_or(refuse(0x80), |(_, data)| ok([&[0x11], *data].concat()));
                (request, answer)
            })
            .collect()
    }

    fn read(parameter: u8, set: u8, data: &[u8]) -> Step {
        (Table::lan(1).get_request(parameter, set, 0), ok([&[0x11], data].concat()))
    }

    proptest! {
        #[test]
        fn any_bytes(parameter: u8, data in prop::collection::vec(any::<u8>(), 0..24)) {
            LanSettings::default().take(parameter, &data);
        }
    }

    #[tokio::test]
    async fn the_settings_of_a_bmc() {
        let mut steps = answers(&[(VLAN, &[0x4e, 0x81])]);
        steps.extend([
            read(SUITE_COUNT, 0, &[3]),
            read(SUITES, 0, &[0, 0, 3, 17, 9, 9]),
            read(SUITE_LIMITS, 0, &[0, 0x40, 0x04]),
            read(DESTINATIONS, 0, &[2]),
            read(DESTINATION_ADDRESS, 1, &[1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
            read(DESTINATION_ADDRESS, 2, &[2, 0, 0, 10, 0, 0, 9, 0, 0, 0, 0, 0, 0]),
            read(DESTINATION_TYPE, 2, &[2, 0x80, 3, 1]),
            (Table::lan(1).get_request(lan_ipv6::SUPPORT, 0, 0), refuse(0x80)),
        ]);
        let bmc = Script::new(steps);
        let lan = get(&bmc, 1).await.unwrap();
        assert_eq!((lan.address, lan.vlan), (Some(Ipv4Addr::new(10, 78, 0, 1)), Some(0x14e)));
        assert_eq!((lan.source, lan.gateway, lan.port), (Some(Source::Static), None, Some(623)));
        assert_eq!(lan.mac.unwrap().to_string(), "52:54:00:77:00:01");
        assert_eq!(lan.lockout.unwrap().lockout_seconds, 300);
        let limits = [Limit::Unset, Limit::Admin, Limit::Admin];
        let due: Vec<_> = [0, 3, 17].into_iter().zip(limits).collect();
        assert_eq!(lan.suites.iter().map(|one| (one.suite, one.limit)).collect::<Vec<_>>(), due);
        assert_eq!(lan.destinations.len(), 1);
        assert!(lan.destinations[0].acknowledged && lan.destinations[0].traps);
        bmc.finish();
    }

    #[tokio::test]
    async fn a_channel_that_is_no_lan() {
        let steps =
            SINGLE.map(|parameter| (Table::lan(2).get_request(parameter, 0, 0), refuse(0xcc)));
        assert!(basic(&Script::new(steps), 2).await.is_err());
    }
}
