//! Accounts, and what they may do.
//!
//! IPMI 2.0 §6.8 (privilege levels), §22.26–22.30 (users).

use std::fmt;

use koboshi_ipmi::{Completion, Password, Response};

use crate::bmc::Bmc;
use crate::dispatch::{Asked, LAN, ok, refuse};

/// What a session may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Privilege {
    /// Ask to be called back.
    Callback = 1,
    /// Look.
    User = 2,
    /// Act on the machine.
    Operator = 3,
    /// Act on the BMC.
    Admin = 4,
    /// The maker's own.
    Oem = 5,
}

impl Privilege {
    /// Of this number.
    pub fn of(number: u8) -> Option<Privilege> {
        Some(match number {
            1 => Privilege::Callback,
            2 => Privilege::User,
            3 => Privilege::Operator,
            4 => Privilege::Admin,
            5 => Privilege::Oem,
            _ => return None,
        })
    }
}

/// One account.
#[derive(Clone)]
pub struct User {
    /// At most 16 bytes, without zeros behind.
    pub name: Vec<u8>,
    /// What it proves itself by.
    pub password: Password,
    /// Whether that is kept at 20 bytes, not at 16.
    pub twenty: bool,
    /// Whether it may log in.
    pub enabled: bool,
    /// The most it may do by LAN; `None` is no access.
    pub limit: Option<Privilege>,
    /// Whether it may use IPMI messaging by LAN.
    pub messaging: bool,
    /// Whether it is restricted to callback.
    pub callback: bool,
    /// Whether it takes part in link authentication.
    pub link: bool,
    /// Whether it may use Serial over LAN.
    pub sol: bool,
}

impl User {
    /// An account that may log in.
    pub fn new(name: &str, password: Password, limit: Privilege) -> User {
        let name = name.as_bytes().iter().copied().take(16).collect();
        User {
            name,
            twenty: password.is_beyond_sixteen(),
            password,
            enabled: true,
            limit: Some(limit),
            messaging: true,
            callback: false,
            link: false,
            sol: true,
        }
    }

    /// An account that nobody has set up.
    pub fn unused() -> User {
        User {
            name: Vec::new(),
            password: Password::default(),
            twenty: false,
            enabled: false,
            limit: None,
            messaging: false,
            callback: false,
            link: false,
            sol: false,
        }
    }

    /// Whether it may open a session by LAN.
    pub fn may_log_in(&self) -> bool {
        self.enabled && self.messaging && self.limit.is_some()
    }
}

impl fmt::Debug for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "User({} {:?})", String::from_utf8_lossy(&self.name), self.limit)
    }
}

/// Ids that there are.
pub const IDS: usize = 16;

/// All accounts; the first has id 1, and no name.
#[derive(Debug, Clone)]
pub struct Users(pub Vec<User>);

impl Users {
    /// With these from id 2 on.
    pub fn new(users: &[User]) -> Users {
        let mut all = vec![User::unused()];
        all.extend(users.iter().take(IDS - 1).cloned());
        all.resize_with(IDS, User::unused);
        Users(all)
    }

    /// The account of an id.
    pub fn by_id(&self, id: u8) -> Option<&User> {
        self.0.get(usize::from(id).checked_sub(1)?)
    }

    /// The account of an id, to be changed.
    pub fn by_id_mut(&mut self, id: u8) -> Option<&mut User> {
        self.0.get_mut(usize::from(id).checked_sub(1)?)
    }

    /// The first account of this name that may log in and fits, and its id.
    pub fn find(&self, name: &[u8], fits: impl Fn(&User) -> bool) -> Option<(u8, &User)> {
        (1u8..).zip(&self.0).find(|(_, user)| user.name == name && user.may_log_in() && fits(user))
    }
}

const NO_SESSIONS: Completion = Completion(0x82);
const OTHER_PASSWORD: Completion = Completion(0x80);
const OTHER_LENGTH: Completion = Completion(0x81);

/// Answers for users.
pub fn answer(bmc: &mut Bmc, asked: &Asked<'_>) -> Option<Response> {
    let (id, data) = match (asked.command, asked.data) {
        (0x43 | 0x44 | 0x4c | 0x4d, [channel, ..]) if asked.channel_of(*channel) != LAN => {
            return refuse(NO_SESSIONS);
        }
        (0x43 | 0x44 | 0x4c | 0x4d, [_, id, data @ ..]) => (id & 0x3f, data),
        (0x45..=0x47, [id, data @ ..]) => (id & 0x3f, data),
        (0x43..=0x47 | 0x4c | 0x4d, _) => return refuse(Completion::LENGTH_INVALID),
        _ => return None,
    };
    let enabled = bmc.users.0.iter().filter(|user| user.enabled).count();
    let sixteen = bmc.faults.sixteen;
    let Some(user) = bmc.users.by_id_mut(id) else { return refuse(Completion::OUT_OF_RANGE) };
    match asked.command {
        0x43 => set_access(user, asked.data),
        0x44 => ok(access(user, enabled)),
        0x45 => match (id, <[u8; 16]>::try_from(data)) {
            // The account without a name keeps none.
            (1, Ok(_)) => refuse(Completion::INVALID_FIELD),
            (_, Ok(name)) => {
                user.name = name.into_iter().take_while(|byte| *byte != 0).collect();
                ok([])
            }
            (_, Err(_)) => refuse(Completion::LENGTH_INVALID),
        },
        0x46 => {
            let mut name = user.name.clone();
            name.resize(16, 0);
            ok(name)
        }
        0x47 => password(user, asked.data, sixteen),
        0x4c => match asked.data {
            [_, operation, payloads, _, _, _] => {
                if payloads & 0x02 != 0 {
                    user.sol = operation >> 6 == 0;
                }
                ok([])
            }
            _ => refuse(Completion::LENGTH_INVALID),
        },
        0x4d => ok([u8::from(user.sol) << 1, 0, 0, 0]),
        _ => None,
    }
}

/// Get User Access (table 22-32).
fn access(user: &User, enabled: usize) -> [u8; 4] {
    let count = |number: usize| u8::try_from(number).unwrap_or(0x3f);
    let state = if user.enabled { 0x40 } else { 0x80 };
    let limit = user.limit.map_or(0x0f, |limit| limit as u8);
    let bits =
        u8::from(user.callback) << 6 | u8::from(user.link) << 5 | u8::from(user.messaging) << 4;
    // One name is fixed: the first, which is none.
    [count(IDS), state | count(enabled), 1, bits | limit]
}

/// Set User Access (table 22-31).
fn set_access(user: &mut User, data: &[u8]) -> Option<Response> {
    let [bits, _, limit, ..] = *data else { return refuse(Completion::LENGTH_INVALID) };
    if bits & 0x80 != 0 {
        user.callback = bits & 0x40 != 0;
        user.link = bits & 0x20 != 0;
        user.messaging = bits & 0x10 != 0;
    }
    user.limit = match limit & 0x0f {
        0x0f => None,
        number => match Privilege::of(number) {
            Some(limit) => Some(limit),
            None => return refuse(Completion::INVALID_FIELD),
        },
    };
    ok([])
}

/// Set User Password (table 22-37): enable, disable, set, test.
fn password(user: &mut User, data: &[u8], sixteen: bool) -> Option<Response> {
    let [id, operation, bytes @ ..] = data else { return refuse(Completion::LENGTH_INVALID) };
    let twenty = id & 0x80 != 0;
    match operation & 3 {
        0 => user.enabled = false,
        1 => user.enabled = true,
        operation => {
            if bytes.len() != if twenty { 20 } else { 16 } {
                return refuse(Completion::LENGTH_INVALID);
            }
            let length = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
            let text = std::str::from_utf8(&bytes[..length]).ok();
            let Some(given) = text.and_then(|text| Password::new(text).ok()) else {
                return refuse(Completion::INVALID_FIELD);
            };
            let given = if sixteen { given.cut() } else { given };
            if operation == 2 {
                (user.password, user.twenty) = (given, twenty && !sixteen);
            } else if user.twenty != twenty {
                return refuse(OTHER_LENGTH);
            } else if user.password.twenty() != given.twenty() {
                return refuse(OTHER_PASSWORD);
            }
        }
    }
    ok([])
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use koboshi_ipmi::{NetFn, Request};

    use super::*;
    use crate::config::Config;

    fn ask(bmc: &mut Bmc, command: u8, data: &[u8]) -> Response {
        bmc.ask(&Request::new(NetFn::APP, command, data), Instant::now())
    }

    #[test]
    fn an_account_is_made_and_may_log_in() {
        let config = Config::with_admin("root", Password::new("secret").unwrap());
        let mut bmc = Bmc::new(config, Instant::now());
        assert_eq!(ask(&mut bmc, 0x44, &[1, 2]).data, [16, 0x41, 1, 0x14]);
        assert_eq!(ask(&mut bmc, 0x44, &[1, 3]).data, [16, 0x81, 1, 0x0f]);
        let mut name = b"\x03operator".to_vec();
        name.resize(17, 0);
        assert_eq!(ask(&mut bmc, 0x45, &name).completion, Completion::OK);
        let mut long = b"\x83\x02a password of 19 ch".to_vec();
        long.resize(22, 0);
        assert_eq!(ask(&mut bmc, 0x47, &long).completion, Completion::OK);
        assert!(!bmc.users.by_id(3).unwrap().may_log_in());
        ask(&mut bmc, 0x43, &[0x91, 3, 3]);
        ask(&mut bmc, 0x47, &[3, 1]);
        assert!(bmc.users.by_id(3).unwrap().may_log_in());
        assert_eq!(ask(&mut bmc, 0x44, &[1, 3]).data, [16, 0x42, 1, 0x13]);
        long[1] = 3;
        assert_eq!(ask(&mut bmc, 0x47, &long).completion, Completion::OK);
        long[21] = b'!';
        assert_eq!(ask(&mut bmc, 0x47, &long).completion, OTHER_PASSWORD);
        long[0] = 3;
        assert_eq!(ask(&mut bmc, 0x47, &long[..18]).completion, OTHER_LENGTH);
        ask(&mut bmc, 0x4c, &[1, 0x43, 2, 0, 0, 0]);
        assert_eq!(ask(&mut bmc, 0x4d, &[1, 3]).data, [0, 0, 0, 0]);
        ask(&mut bmc, 0x47, &[3, 0]);
        assert!(!bmc.users.by_id(3).unwrap().may_log_in());
        assert_eq!(ask(&mut bmc, 0x46, &[17]).completion, Completion::OUT_OF_RANGE);
        assert_eq!(ask(&mut bmc, 0x44, &[15, 2]).completion, NO_SESSIONS);
    }
}
