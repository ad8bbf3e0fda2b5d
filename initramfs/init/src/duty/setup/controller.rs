//! A BMC asked from within: who it is, where it is in the network, which accounts it has.
//!
//! IPMI 2.0 §20.1 (device id), §22.27–22.29 (users), §23.2 and table 23-4 (LAN). What firmware refuses it does not
//! have; what is cut is not told.

use std::io;
use std::net::Ipv4Addr;
use std::time::Duration;

use ipmi_rs::connection::NetFn;

use crate::bmc;
use crate::contract::survey::{Controller, Lan, Source, User};
use crate::net::link::show_mac;

/// IP address, its source, subnet mask, default gateway, VLAN (table 23-4).
pub const ADDRESS: u8 = 3;
pub const SOURCE: u8 = 4;
pub const MASK: u8 = 6;
pub const GATEWAY: u8 = 12;
pub const VLAN: u8 = 20;

/// Codes after which the same is asked again (table 5-2): busy, still at work on it, starting.
const LATER: [u8; 4] = [0xc0, 0xcf, 0xd0, 0xd2];
/// Between tries, milliseconds: 1.5 s in all.
const PAUSES: [u64; 6] = [20, 50, 100, 200, 400, 730];
/// Of a user id (§22.26: 6 bits).
const USERS_MAX: u8 = 63;
/// A name's bytes.
const NAME_MAX: usize = 16;

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// It says so, by this completion code.
    Refused(u8),
    /// It does not answer.
    Silent(String),
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Failure::Refused(code) => write!(f, "the BMC refuses it ({code:#04x})"),
            Failure::Silent(why) => write!(f, "the BMC does not answer: {why}"),
        }
    }
}

/// Whoever answers: completion code and data.
type Ask<'a> = &'a mut dyn FnMut(NetFn, u8, &[u8]) -> io::Result<(u8, Vec<u8>)>;

/// A BMC, and how time passes.
pub struct Wire<'a> {
    ask: Ask<'a>,
    pause: &'a mut dyn FnMut(Duration),
}

impl<'a> Wire<'a> {
    /// Over whoever answers.
    pub fn new(ask: Ask<'a>, pause: &'a mut dyn FnMut(Duration)) -> Wire<'a> {
        Wire { ask, pause }
    }

    /// Lets a BMC have its moment.
    pub fn pause(&mut self, span: Duration) {
        (self.pause)(span);
    }

    /// One command, asked again while the BMC is busy, and once more where it was silent.
    pub fn call(&mut self, netfn: NetFn, command: u8, data: &[u8]) -> Result<Vec<u8>, Failure> {
        let mut silent = false;
        let mut pauses = PAUSES.into_iter();
        loop {
            match (self.ask)(netfn, command, data) {
                Ok((0, data)) => return Ok(data),
                Ok((code, _)) => match pauses.next().filter(|_| LATER.contains(&code)) {
                    Some(pause) => self.pause(Duration::from_millis(pause)),
                    None => return Err(Failure::Refused(code)),
                },
                Err(error) if silent => return Err(Failure::Silent(error.to_string())),
                Err(_) => silent = true,
            }
        }
    }

    /// One LAN parameter, without its revision; nothing where the BMC does not have it.
    fn parameter(&mut self, channel: u8, number: u8) -> Result<Option<Vec<u8>>, Failure> {
        match self.call(NetFn::Transport, 0x02, &[channel, number, 0, 0]) {
            Ok(data) => Ok(data.get(1..).map(<[u8]>::to_vec)),
            Err(Failure::Refused(_)) => Ok(None),
            Err(silent) => Err(silent),
        }
    }
}

/// All of it. `plain` makes a name fit to be shown.
pub fn read(wire: &mut Wire, plain: fn(&str) -> String) -> Result<Controller, Failure> {
    let mut controller = device(&wire.call(NetFn::App, 0x01, &[])?);
    let found = bmc::channel(|netfn, command, data| wire.call(netfn, command, data).ok());
    if let Some((channel, mac)) = found {
        controller.lan = Some(Lan { mac: show_mac(&mac), ..lan(wire, channel)? });
        controller.users = users(wire, channel, plain)?;
    }
    Ok(controller)
}

/// Get Device ID (table 20-2).
fn device(data: &[u8]) -> Controller {
    let byte = |at: usize| data.get(at).copied().unwrap_or(0);
    let ipmi = byte(4);
    Controller {
        device: byte(0),
        // BCD by the book.
        firmware: format!("{}.{:02x}", byte(2) & 0x7f, byte(3)),
        ipmi: format!("{}.{}", ipmi & 0x0f, ipmi >> 4),
        // 20 bits are the number; some set the rest.
        maker: u32::from_le_bytes([byte(6), byte(7), byte(8) & 0x0f, 0]),
        product: u16::from_le_bytes([byte(9), byte(10)]),
        lan: None,
        users: Vec::new(),
    }
}

/// Where it is, but for its MAC.
pub fn lan(wire: &mut Wire, channel: u8) -> Result<Lan, Failure> {
    let mut address = |number| {
        let data = wire.parameter(channel, number)?;
        let bytes = data.and_then(|data| data.first_chunk::<4>().copied());
        let address = bytes.map(Ipv4Addr::from);
        Ok(address.filter(|address| !address.is_unspecified()))
    };
    let (at, mask, gateway) = (address(ADDRESS)?, address(MASK)?, address(GATEWAY)?);
    let source = wire.parameter(channel, SOURCE)?.and_then(|data| data.first().copied());
    let vlan = wire.parameter(channel, VLAN)?.and_then(|data| data.first_chunk::<2>().copied());
    Ok(Lan {
        channel,
        source: match source.map(|source| source & 0x0f) {
            Some(1) => Source::Static,
            Some(2) => Source::Dhcp,
            Some(3) => Source::Bios,
            _ => Source::Unknown,
        },
        address: at,
        mask,
        gateway,
        mac: String::new(),
        vlan: vlan
            .filter(|[_, high]| high & 0x80 != 0)
            .map(|[low, high]| u16::from_le_bytes([low, high & 0x0f])),
    })
}

/// Accounts that have a name, or may log in.
fn users(wire: &mut Wire, channel: u8, plain: fn(&str) -> String) -> Result<Vec<User>, Failure> {
    let mut users = Vec::new();
    let (mut id, mut ids) = (1, 1);
    while id <= ids {
        let access = match wire.call(NetFn::App, 0x44, &[channel, id]) {
            Ok(access) => access,
            // Firmware that counts more than it has.
            Err(Failure::Refused(_)) => break,
            Err(silent) => return Err(silent),
        };
        let [all, enabled, _, limit, ..] = *access else { break };
        ids = (all & 0x3f).min(USERS_MAX);
        // The name of one that was never set is refused.
        let name = match wire.call(NetFn::App, 0x46, &[id]) {
            Ok(name) => name,
            Err(Failure::Refused(_)) => Vec::new(),
            Err(silent) => return Err(silent),
        };
        let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
        let name = plain(&String::from_utf8_lossy(name.get(..NAME_MAX).unwrap_or(name)));
        let enabled = match enabled >> 6 {
            1 => Some(true),
            2 => Some(false),
            _ => None,
        };
        let privilege = match limit & 0x0f {
            1 => "callback",
            2 => "user",
            3 => "operator",
            4 => "admin",
            5 => "oem",
            _ => "no-access",
        };
        let messages = limit & 0x10 != 0 && privilege != "no-access";
        if !name.is_empty() || enabled == Some(true) || messages {
            users.push(User { id, name, privilege: privilege.to_owned(), enabled });
        }
        id += 1;
    }
    Ok(users)
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::hardware::plain;

    /// A BMC in memory: LAN channel 1 and a serial one, parameters that can be set, two accounts.
    pub(crate) struct Fake {
        pub lan: Vec<(u8, Vec<u8>)>,
        /// Every parameter that was set, in order.
        pub set: Vec<(u8, Vec<u8>)>,
        /// Answers in place of its own: so many times.
        pub refuses: Vec<(u8, u8, usize)>,
        /// It takes it, and goes on telling the old for so many reads.
        pub slow: usize,
        pub old: Vec<(u8, Vec<u8>)>,
        pub silent: bool,
    }

    impl Fake {
        pub fn new() -> Fake {
            let lan = vec![
                (0, vec![0]),
                (ADDRESS, vec![192, 168, 0, 120]),
                (SOURCE, vec![2]),
                (5, vec![0x52, 0x54, 0, 0x78, 0, 1]),
                (MASK, vec![255, 255, 255, 0]),
                (GATEWAY, vec![0; 4]),
                (VLAN, vec![0, 0]),
            ];
            Fake { lan, set: vec![], refuses: vec![], slow: 0, old: vec![], silent: false }
        }

        pub fn ask(&mut self, netfn: NetFn, command: u8, data: &[u8]) -> io::Result<(u8, Vec<u8>)> {
            if self.silent {
                return Err(io::Error::other("nothing"));
            }
            Ok(match (netfn, command, data) {
                (NetFn::App, 0x01, []) => {
                    (0, vec![0x20, 0x81, 2, 0x88, 2, 0xbf, 0x7c, 0x2a, 0xf0, 0x1c, 9, 0, 0, 0, 0])
                }
                (NetFn::App, 0x42, [channel @ (1 | 2)]) => {
                    (0, vec![*channel, if *channel == 2 { 4 } else { 5 }, 1])
                }
                (NetFn::App, 0x44, [2, 1]) => (0, vec![10, 0x82, 0, 0x0f]),
                (NetFn::App, 0x44, [2, 2]) => (0, vec![10, 0x42, 0, 0x14]),
                (NetFn::App, 0x44, [2, 3]) => (0, vec![10, 0x82, 0, 0x0f]),
                (NetFn::App, 0x46, [2]) => (0, [&b"ADMIN"[..], &[0; 11]].concat()),
                (NetFn::App, 0x46, _) => (0xcb, Vec::new()),
                (NetFn::Transport, 0x02, [2, number, 0, 0]) => {
                    let stale = self.slow > 0 && !self.set.is_empty() && *number != 0;
                    let table = if stale { &self.old } else { &self.lan };
                    self.slow -= usize::from(stale);
                    match table.iter().find(|(known, _)| known == number) {
                        Some((_, value)) => (0, [&[0x11], &value[..]].concat()),
                        None => (0x80, Vec::new()),
                    }
                }
                (NetFn::Transport, 0x01, [2, number, value @ ..]) => {
                    let mut refuses = self.refuses.iter_mut();
                    if let Some((_, code, times)) =
                        refuses.find(|(which, _, times)| which == number && *times > 0)
                    {
                        *times -= 1;
                        return Ok((*code, Vec::new()));
                    }
                    if self.set.is_empty() {
                        self.old = self.lan.clone();
                    }
                    self.set.push((*number, value.to_vec()));
                    match self.lan.iter_mut().find(|(known, _)| known == number) {
                        Some((_, known)) => *known = value.to_vec(),
                        None => return Ok((0x80, Vec::new())),
                    }
                    (0, Vec::new())
                }
                _ => (0xc1, Vec::new()),
            })
        }
    }

    fn read_of(fake: &mut Fake) -> Result<Controller, Failure> {
        let mut ask = |netfn, command, data: &[u8]| fake.ask(netfn, command, data);
        read(&mut Wire::new(&mut ask, &mut |_| {}), plain)
    }

    #[test]
    fn a_bmc_is_asked_all_of_it() {
        let bmc = read_of(&mut Fake::new()).unwrap();
        assert_eq!(
            (&*bmc.firmware, &*bmc.ipmi, bmc.maker, bmc.product),
            ("2.88", "2.0", 10876, 2332)
        );
        let lan = bmc.lan.unwrap();
        assert_eq!((lan.channel, lan.source, lan.gateway, lan.vlan), (2, Source::Dhcp, None, None));
        assert_eq!(lan.address, Some(Ipv4Addr::new(192, 168, 0, 120)));
        assert_eq!(lan.mac, "52:54:00:78:00:01");
        let [user] = &bmc.users[..] else { panic!("{:?}", bmc.users) };
        assert_eq!((user.id, &*user.name, &*user.privilege), (2, "ADMIN", "admin"));
        let mut tagged = Fake::new();
        tagged.lan[6].1 = vec![0xe8, 0x83];
        assert_eq!(read_of(&mut tagged).unwrap().lan.unwrap().vlan, Some(1000));
        let silent = read_of(&mut Fake { silent: true, ..Fake::new() });
        assert_eq!(silent, Err(Failure::Silent("nothing".into())));
    }

    #[test]
    fn who_is_busy_is_asked_again_and_who_refuses_is_not() {
        let (mut asked, mut waited) = (0, Duration::ZERO);
        let mut pause = |span| waited += span;
        let mut ask = |_: NetFn, _: u8, _: &[u8]| {
            asked += 1;
            match asked {
                1 => Err(io::Error::other("lost")),
                2..=4 => Ok((0xc0, Vec::new())),
                _ => Ok((0xcc, Vec::new())),
            }
        };
        let told = Wire::new(&mut ask, &mut pause).call(NetFn::App, 1, &[]);
        assert_eq!((told, asked), (Err(Failure::Refused(0xcc)), 5));
        assert_eq!(waited, Duration::from_millis(170));
    }

    proptest! {
        /// Whatever it answers, the reading ends, and its text is plain.
        #[test]
        fn any_answers(answers in prop::collection::vec((0u8..4, prop::collection::vec(any::<u8>(), 0..20)), 1..60)) {
            let mut round = answers.iter().cycle();
            let mut ask = |_: NetFn, _: u8, _: &[u8]| {
                let (code, data) = round.next().unwrap();
                Ok((if *code == 3 { 0xcb } else { 0 }, data.clone()))
            };
            if let Ok(bmc) = read(&mut Wire::new(&mut ask, &mut |_| {}), plain) {
                prop_assert!(bmc.users.len() <= 63);
                prop_assert!(bmc.users.iter().all(|user| user.name.bytes().all(|b| (b' '..=b'~').contains(&b))));
            }
        }
    }
}
