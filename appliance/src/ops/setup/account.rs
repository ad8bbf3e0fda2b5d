//! The site's account on a BMC: there already, or made by the account that its factory gave it, and proved by logging
//! in as everything here does. It goes over the BMCs' own network; the machine has no part in it.
//!
//! A BMC that was given its address a moment ago is deaf for up to a minute. Each wrong password counts towards its
//! lock: the site's is tried once before, and a few times after it was set.

use std::time::{Duration, Instant};

use koboshi_ipmi::commands::channel::{self, Limit};
use koboshi_ipmi::commands::user::{self, User};
use koboshi_ipmi::{Error, Password, Privilege};

use crate::bmcs::{Bmcs, Lent, secrets};
use crate::maintenance::{Account, Factory};
use crate::ops::bmc::accounts::UserChange;
use crate::ops::many::Failure;
use crate::site::{Machine, MachineName};

/// Tries to log in by an account that was just made: some take seconds until they know it.
const PROOFS: usize = 3;

/// How long what is waited for.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// A BMC that does not answer, from the first try to the last.
    pub silent: Duration,
    /// Between tries.
    pub pause: Duration,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// What was done, or is so.
    pub did: Vec<String>,
    /// What was not, why, and what to do.
    pub failed: Option<String>,
}

/// How the site's account stands on a BMC.
enum Standing {
    /// It logs in, and may do everything.
    Admin(Vec<User>),
    /// It logs in, and may not.
    Lacks(String),
}

/// Sees to it that the site's account is an administrator's. Done twice it does nothing.
pub async fn ensure(
    bmcs: &Bmcs,
    (name, machine): (&MachineName, &Machine),
    account: &Account,
    patience: Patience,
) -> Told {
    let mut did = Vec::new();
    let failed = steps(bmcs, (name, machine), account, patience, &mut did).await.err();
    Told { did, failed }
}

async fn steps(
    bmcs: &Bmcs,
    (name, machine): (&MachineName, &Machine),
    account: &Account,
    patience: Patience,
    did: &mut Vec<String>,
) -> Result<(), String> {
    let said = machine.bmc.as_ref().ok_or_else(|| format!("the site names no BMC for {name}"))?;
    let user = said.user.as_ref().map(|user| user.value.as_str()).unwrap_or_default();
    let host = said.host.value.as_str();
    let begun = Instant::now();
    let site = || bmcs.of(name, machine).map_err(|failure| told(&failure));
    let first = loop {
        match standing(&site()?, user).await {
            Err(error) if is_silence(&error) && begun.elapsed() < patience.silent => {
                tokio::time::sleep(patience.pause).await;
            }
            first => break first,
        }
    };
    let (users, why) = match first {
        Ok(Standing::Admin(users)) => {
            did.push(format!("its BMC knows {user} as administrator already"));
            (Some(users), String::new())
        }
        Ok(Standing::Lacks(why)) => (None, why),
        Err(
            error @ (Error::WrongPassword { .. }
            | Error::UserRefused { .. }
            | Error::Privilege { .. }),
        ) => (None, error.to_string()),
        Err(error) => {
            let waited = begun.elapsed().as_secs();
            return Err(format!(
                "its BMC at {host} could not be asked for {waited} s: {}; is its port in the BMCs' network? its accounts \
                 are as they were",
                told(&error.into())
            ));
        }
    };
    let users = match users {
        Some(users) => users,
        None => {
            let Some(factory) = &account.factory else {
                return Err(format!(
                    "its BMC does not take the site's account ({why}), and no other is known: --factory-user NAME \
                     --factory-password-file FILE makes it"
                ));
            };
            did.push(make(bmcs, (name, machine), factory, user).await?);
            // A session that is open keeps the privilege it began with.
            site()?.renew();
            let users = prove(bmcs, (name, machine), user, patience.pause).await?;
            did.push(format!("{user} logs in"));
            users
        }
    };
    let Some(factory) = account.factory.as_ref().filter(|_| account.disable) else { return Ok(()) };
    did.push(disable(&site()?, &users, &factory.user).await.map_err(|why| {
        format!(
            "the factory account {} is NOT disabled: {why}; `koboshi bmc {name} users` shows it",
            factory.user
        )
    })?);
    Ok(())
}

async fn standing(bmc: &Lent, user: &str) -> Result<Standing, Error> {
    let channel = channel::lan(bmc).await?;
    let users = match user::list(bmc, channel).await {
        // Who may not look at accounts is no administrator.
        Err(error @ Error::Refused { .. }) => {
            return Ok(Standing::Lacks(format!("{user} may not see its accounts: {error}")));
        }
        users => users?,
    };
    let own = users.iter().find(|one| one.name == user);
    let limit = own.map(|own| own.access.limit).filter(|limit| *limit != Limit::Admin);
    // Whoever has another name there than he logs in by has proved himself by his session.
    let session = bmc.bmc().facts().map(|facts| facts.privilege);
    Ok(match (limit, session) {
        (Some(limit), _) => Standing::Lacks(format!("{user} is {} there", limit.name())),
        (None, Some(less)) if less < Privilege::Admin => {
            Standing::Lacks(format!("{user} gets no further than {less} there"))
        }
        _ => Standing::Admin(users),
    })
}

/// By the factory's account. What was done; in words why not, and what was done before.
async fn make(
    bmcs: &Bmcs,
    (name, machine): (&MachineName, &Machine),
    factory: &Factory,
    user: &str,
) -> Result<String, String> {
    let password = password(machine)?;
    let by = (factory.user.as_str(), factory.password_file.as_path());
    let bmc = bmcs.by_account(name, machine, by).map_err(|failure| {
        format!("the factory account {} could not be used: {}", factory.user, told(&failure))
    })?;
    let made = written(&bmc, user, &password, factory).await;
    // It has few sessions.
    bmc.bmc().close().await;
    made
}

async fn written(
    bmc: &Lent,
    user: &str,
    password: &Password,
    factory: &Factory,
) -> Result<String, String> {
    let looked = async {
        let channel = channel::lan(bmc).await?;
        let users = user::list(bmc, channel).await?;
        let all = user::access(bmc, channel, 1).await?;
        Ok::<_, Error>((channel, users, all))
    };
    let (channel, users, all) = looked.await.map_err(|error| match error {
        Error::WrongPassword { .. } | Error::UserRefused { .. } => format!(
            "it refuses the factory account too ({error}): nothing was changed; the sticker of the machine has its \
             password, or somebody changed it, and `ipmitool user set password` in a shell on the machine sets another \
             (`koboshi maintain … rescue`)"
        ),
        error => format!("its accounts could not be read by {}: {}", factory.user, told(&error.into())),
    })?;
    let Some(id) = slot(&users, all.ids, all.fixed_names, user) else {
        return Err(format!(
            "it has no room for another account ({} of {}): nothing was changed",
            users.len(),
            all.ids
        ));
    };
    let known = users.iter().any(|one| one.id == id);
    let change = UserChange {
        id,
        name: (!known).then(|| user.to_string()),
        password: None,
        privilege: Some("admin".to_string()),
        sol: None,
        enabled: Some(true),
    };
    change.apply_with(bmc, Some(password)).await.map_err(|failure| {
        let long = match password.is_beyond_sixteen() {
            true => "; the site's password has more than 16 bytes, which not every BMC takes",
            false => "",
        };
        format!("user {id} could not be made {user}, or not wholly: {}{long}", told(&failure))
    })?;
    // Without it there is no console; some have no such command, and let everybody.
    let sol = match user::set_sol(bmc, channel, id, true).await {
        Ok(()) => "",
        Err(_) => " (its right to Serial over LAN could not be set)",
    };
    let way = if known { "was renewed" } else { "was made" };
    Ok(format!("user {id}, {user}, {way} by {} as administrator{sol}", factory.user))
}

/// The account's own id, or the first that is free: not one whose name is fixed, and not 1, which has none.
fn slot(users: &[User], ids: u8, fixed: u8, user: &str) -> Option<u8> {
    let own = users.iter().find(|one| one.name == user).map(|one| one.id);
    let free = |id: &u8| !users.iter().any(|one| one.id == *id);
    own.or_else(|| (fixed.saturating_add(1).max(2)..=ids).find(free))
}

/// Logs in as everything here does.
async fn prove(
    bmcs: &Bmcs,
    (name, machine): (&MachineName, &Machine),
    user: &str,
    pause: Duration,
) -> Result<Vec<User>, String> {
    let mut why = String::new();
    for n in 0..PROOFS {
        if n > 0 {
            tokio::time::sleep(pause).await;
        }
        let bmc = bmcs.of(name, machine).map_err(|failure| told(&failure))?;
        match standing(&bmc, user).await {
            Ok(Standing::Admin(users)) => return Ok(users),
            Ok(Standing::Lacks(lacks)) => why = lacks,
            Err(error) => why = told(&error.into()),
        }
    }
    Err(format!(
        "{user} was made and does not log in as administrator: {why}; the factory's account is as it was"
    ))
}

async fn disable(bmc: &Lent, users: &[User], factory: &str) -> Result<String, String> {
    let Some(one) = users.iter().find(|one| one.name == factory) else {
        return Ok(format!("there is no account {factory}"));
    };
    if one.enabled == Some(false) {
        return Ok(format!("{factory} was disabled already"));
    }
    let done = async {
        user::enable(bmc, one.id, false).await?;
        let channel = channel::lan(bmc).await?;
        user::access(bmc, channel, one.id).await
    };
    match done.await.map_err(|error| told(&error.into()))?.enabled {
        Some(true) => Err("it says yes, and is enabled still".to_string()),
        _ => Ok(format!("{factory} is disabled")),
    }
}

fn password(machine: &Machine) -> Result<Password, String> {
    let kept = machine.bmc.as_ref().and_then(|bmc| bmc.password.as_ref());
    let kept = kept.ok_or("the site names no password for it: password-file in [defaults.bmc]")?;
    secrets::password(&kept.value).map_err(|why| why.to_string())
}

fn is_silence(error: &Error) -> bool {
    matches!(
        error,
        Error::Unreachable { .. } | Error::Network(_) | Error::Lost { .. } | Error::Silent { .. }
    )
}

fn told(failure: &Failure) -> String {
    match &failure.help {
        Some(help) => format!("{} ({help})", failure.error),
        None => failure.error.clone(),
    }
}

#[cfg(test)]
#[path = "account_tests.rs"]
mod tests;
