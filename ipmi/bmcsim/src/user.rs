//! Accounts, and what they may do.
//!
//! IPMI 2.0 §6.8 (privilege levels), §22.26–22.30 (users).

use std::fmt;

use koboshi_ipmi::{Password, Response};

use crate::bmc::Bmc;
use crate::dispatch::Asked;

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

/// Answers for users.
pub fn answer(_bmc: &mut Bmc, _asked: &Asked<'_>) -> Option<Response> {
    None
}
