//! The BMCs of the site: one [`ipmi::Bmc`](koboshi_ipmi::Bmc) each, shared by everything that reaches it, made when it is first needed
//! from what the site says and the secrets it names. Sessions open by themselves when something is asked and
//! close when nothing is.
//!
//! ```text
//! secrets   passwords and keys: from a file, the environment, a terminal
//! command   power for hardware without IPMI
//! scan      who in a network is a BMC
//! ```

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use koboshi_ipmi::bmc::{Engine, Limits};
use koboshi_ipmi::commands::bridge::{Place, Satellite};
use koboshi_ipmi::commands::sdr::Cache;
use koboshi_ipmi::sol::{Console, Options};
use koboshi_ipmi::{
    Access, Bmc, Cipher as Asked, Controller, Error, Password, Quirks, Request, Response,
};

use crate::ops::many::Failure;
use crate::site::{self, Cipher, Machine, MachineName, Secret};

pub mod command;
pub mod scan;
pub mod secrets;

/// See the module.
pub struct Bmcs {
    engine: Engine,
    folder: Option<PathBuf>,
    patience: Option<Duration>,
    known: Mutex<HashMap<Door, Known>>,
    /// Passwords typed at a terminal, by account.
    typed: Mutex<HashMap<String, Password>>,
    warned: Mutex<HashSet<PathBuf>>,
    warn: fn(String),
}

/// What a session goes to: blades behind one BMC share it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Door {
    host: String,
    port: u16,
    user: String,
}

struct Known {
    /// What the site said when it was made.
    said: site::Bmc,
    direct: Direct,
    /// Blades behind it, by their addresses on its bus.
    blades: Mutex<HashMap<u8, Arc<Satellite<Direct>>>>,
}

impl Known {
    fn lend(&self, target: Option<u8>) -> Lent {
        let direct = self.direct.clone();
        let blade = target.map(|address| {
            let mut blades = lock(&self.blades);
            let made = || Arc::new(Satellite::new(direct.clone(), Place { channel: 0, address }));
            blades.entry(address).or_insert_with(made).clone()
        });
        Lent { direct, blade }
    }
}

/// A BMC itself.
#[derive(Debug, Clone)]
struct Direct {
    bmc: Bmc,
    /// It refused us: the secret is read anew next time, somebody may have mended the file.
    refused: Arc<AtomicBool>,
}

/// What switches a machine's power.
pub enum Switch {
    /// Its BMC.
    Bmc(Lent),
    /// A command, which is given one word more.
    Command(String),
}

/// A machine's BMC, for as long as it is needed.
#[derive(Clone)]
pub struct Lent {
    direct: Direct,
    /// The blade behind it that is meant, and not the BMC itself.
    blade: Option<Arc<Satellite<Direct>>>,
}

impl Bmcs {
    /// Those of an appliance, which is the only one that has this folder: what is learned of BMCs is kept
    /// there, and which sessions are open, so that after a kill the next start closes its own first.
    pub fn remembering(folder: &Path, warn: fn(String)) -> std::io::Result<Bmcs> {
        let engine = Engine::remembering(Limits::default(), folder)?;
        Ok(Bmcs::with(engine, Some(folder.to_path_buf()), warn))
    }

    /// Those of one command. `folder`: where sensor records are kept for the next one.
    pub fn passing(folder: Option<PathBuf>, warn: fn(String)) -> Bmcs {
        Bmcs::with(Engine::default(), folder, warn)
    }

    /// None is known yet. `warn` hears of what is careless.
    fn with(engine: Engine, folder: Option<PathBuf>, warn: fn(String)) -> Bmcs {
        let (known, typed, warned) = (Mutex::default(), Mutex::default(), Mutex::default());
        Bmcs { engine, folder, patience: None, known, typed, warned, warn }
    }

    /// A BMC that is silent for so long is given up. None: as long as is usual.
    pub fn be_patient(&mut self, patience: Option<Duration>) {
        self.patience = patience.or(self.patience);
    }

    /// What switches a machine's power: the command that the site names, else its BMC. `None`: it has
    /// neither.
    pub fn switch(&self, name: &MachineName, machine: &Machine) -> Option<Result<Switch, Failure>> {
        if let Some(power) = &machine.power {
            return Some(Ok(Switch::Command(power.value.0.clone())));
        }
        machine.bmc.as_ref()?;
        Some(self.of(name, machine).map(Switch::Bmc))
    }

    /// A machine's BMC. Nothing is sent before something is asked of it.
    pub fn of(&self, name: &MachineName, machine: &Machine) -> Result<Lent, Failure> {
        let Some(said) = &machine.bmc else {
            return Err(Failure::new("no BMC", format!("the site names no BMC for {name}")));
        };
        let Some(user) = &said.user else {
            let error = format!("no account is given for the BMC of {name}");
            return Err(Failure::new("no login", error).help(
                "user = \"NAME\" in [defaults.bmc], in the class or with the machine's bmc",
            ));
        };
        let door =
            Door { host: said.host.value.clone(), port: said.port, user: user.value.clone() };
        let mut known = lock(&self.known);
        let fresh = known.get(&door).filter(|known| {
            same(&known.said, said) && !known.direct.refused.load(Ordering::Relaxed)
        });
        if let Some(known) = fresh {
            return Ok(known.lend(said.target));
        }
        let access = self.access(name, said, &user.value)?;
        let bmc = self.engine.bmc(access);
        let direct = Direct { bmc, refused: Arc::new(AtomicBool::new(false)) };
        let made = Known { said: said.clone(), direct, blades: Mutex::default() };
        let lent = made.lend(said.target);
        // What the former one has open closes by itself once nobody needs it.
        drop(known.insert(door, made));
        Ok(lent)
    }

    /// The same BMC by another account, whose password is in a file: for whoever sets it up. It is known to nobody else,
    /// and is to be closed.
    pub fn by_account(
        &self,
        name: &MachineName,
        machine: &Machine,
        (user, file): (&str, &Path),
    ) -> Result<Lent, Failure> {
        let Some(said) = &machine.bmc else {
            return Err(Failure::new("no BMC", format!("the site names no BMC for {name}")));
        };
        let password = site::At::new(Secret::File(file.to_path_buf()), said.host.origin.clone());
        let said = site::Bmc { password: Some(password), target: None, ..said.clone() };
        let bmc = self.engine.bmc(self.access(name, &said, user)?);
        let direct = Direct { bmc, refused: Arc::new(AtomicBool::new(false)) };
        Ok(Lent { direct, blade: None })
    }

    fn access(&self, name: &MachineName, said: &site::Bmc, user: &str) -> Result<Access, Failure> {
        let no = |why: secrets::NoSecret| {
            Failure::new("no login", format!("the secret of {name}'s BMC: {why}"))
        };
        let password = match &said.password {
            Some(kept) => {
                if let Secret::File(path) = &kept.value {
                    self.warn_of(path);
                }
                secrets::password(&kept.value).map_err(no)?
            }
            None => lock(&self.typed).get(user).cloned().ok_or_else(|| {
                let error = format!("no password is given for the BMC of {name}");
                Failure::new("no login", error).help(
                    "password-file = \"FILE\" in [defaults.bmc], in the class or with the machine's bmc",
                )
            })?,
        };
        let mut access = Access::new(said.host.value.clone(), user, password);
        access.port = said.port;
        if let Some(path) = &said.kg {
            self.warn_of(&path.value);
            access.kg = Some(secrets::kg(&path.value).map_err(no)?);
        }
        access.cipher = match said.cipher {
            Cipher::Auto => Asked::Auto,
            Cipher::Suite(id) => Asked::Suite(id),
        };
        if let Some(patience) = self.patience {
            access.patience.total = patience;
            access.patience.suspect = access.patience.suspect.min(patience);
        }
        access.version = said.version;
        // One that nobody knows was warned of when the site was read.
        let quirks = said.quirks.iter().filter_map(|quirk| quirk.parse().ok());
        access.quirks = Quirks::of(&quirks.collect::<Vec<_>>());
        access.check().map_err(Failure::from)?;
        Ok(access)
    }

    fn warn_of(&self, path: &Path) {
        if let Some(careless) = secrets::careless(path)
            && lock(&self.warned).insert(path.to_path_buf())
        {
            (self.warn)(format!("{}: {careless}", path.display()));
        }
    }

    /// Asks whoever sits at the terminal for the passwords that the site does not name, one an account.
    pub fn ask_passwords<'a>(
        &self,
        machines: impl Iterator<Item = &'a site::At<Machine>>,
    ) -> anyhow::Result<()> {
        let bmcs = machines.filter_map(|machine| machine.bmc.as_ref());
        let without = bmcs.filter(|bmc| bmc.password.is_none());
        let users: HashSet<&str> =
            without.filter_map(|bmc| Some(bmc.user.as_ref()?.value.as_str())).collect();
        for user in users {
            if let Some(typed) = secrets::ask(&format!("Password of {user}"))? {
                lock(&self.typed).insert(user.to_string(), Password::new(&typed)?);
            }
        }
        Ok(())
    }

    /// Where a machine's sensor records are kept: reading two hundred of them anew takes seconds.
    pub fn records(&self, machine: &Machine) -> Option<Cache> {
        let bmc = machine.bmc.as_ref()?;
        let blade = bmc.target.map(|address| format!("-{address:02x}")).unwrap_or_default();
        let name = format!("{}-{}{blade}", bmc.host.value.replace([':', '%'], "_"), bmc.port);
        Some(Cache { directory: self.folder.as_ref()?.join("records"), name })
    }

    /// Closes every session.
    pub async fn close(&self) {
        let all: Vec<Bmc> = lock(&self.known).drain().map(|(_, known)| known.direct.bmc).collect();
        futures::future::join_all(all.iter().map(Bmc::close)).await;
    }
}

/// Whether they are reached alike. The MAC of its NIC and the blade behind it are not the session's.
pub fn same(one: &site::Bmc, other: &site::Bmc) -> bool {
    let alike = |bmc: &site::Bmc| site::Bmc { mac: None, target: None, ..bmc.clone() };
    alike(one) == alike(other)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Lent {
    /// The handle itself, for what is more than commands; a blade's is that of the BMC before it.
    pub fn bmc(&self) -> &Bmc {
        &self.direct.bmc
    }

    /// What its account may do has changed: whoever asks for it next logs in anew.
    pub fn renew(&self) {
        self.direct.refused.store(true, Ordering::Relaxed);
    }

    /// Opens its console. A blade's is not to be had through the BMC before it, which has one of its own.
    pub async fn sol(&self, options: Options) -> Result<Console, Error> {
        if self.blade.is_some() {
            return Err(Error::Unsupported("Serial over LAN of a blade behind it"));
        }
        let console = self.direct.bmc.sol(options).await;
        self.direct.look(&console);
        console
    }
}

impl Direct {
    fn look<T>(&self, outcome: &Result<T, Error>) {
        if let Err(Error::WrongPassword { .. } | Error::WrongKey | Error::UserRefused { .. }) =
            outcome
        {
            self.refused.store(true, Ordering::Relaxed);
        }
    }
}

impl Controller for Lent {
    async fn ask(&self, request: Request) -> Result<Response, Error> {
        match &self.blade {
            Some(blade) => blade.ask(request).await,
            None => self.direct.ask(request).await,
        }
    }
}

impl Controller for Direct {
    async fn ask(&self, request: Request) -> Result<Response, Error> {
        let answer = self.bmc.ask(request).await;
        self.look(&answer);
        answer
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        let kind = match &error {
            Error::Unreachable { .. } | Error::Network(_) | Error::Lost { .. } => "no answer",
            Error::NotABmc(_) => "not a BMC",
            Error::WrongPassword { .. } => "wrong password",
            Error::WrongKey => "wrong key",
            Error::UserRefused { .. } => "account refused",
            Error::Privilege { .. } => "too little privilege",
            Error::NoFreeSession => "no free session",
            Error::SuiteRefused { .. } => "cipher suite refused",
            Error::Downgrade(_) | Error::BadProof(_) => "not trusted",
            _ => "failed",
        };
        let help = error.advice().map(str::to_string);
        Failure { kind: kind.to_string(), error: error.to_string(), help }
    }
}
