//! A BMC's accounts: who there is, and changing one of them.

use std::fmt;

use koboshi_ipmi::Password;
use koboshi_ipmi::commands::channel::{self, Limit};
use koboshi_ipmi::commands::user::{self, User, UserAccess};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::bmcs::Lent;
use crate::ops::many::{Failure, Said};

/// A password on its way to a BMC, never shown.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Typed(pub String);

impl fmt::Debug for Typed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Typed")
    }
}

/// What of an account changes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct UserChange {
    /// Its number.
    pub id: u8,
    /// Its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<Typed>,
    /// What it may do on the LAN channel: user, operator, admin, no-access.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub privilege: Option<String>,
    /// Whether it may use Serial over LAN.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sol: Option<bool>,
    /// Whether it may log in at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
}

impl UserChange {
    /// In words, without its password.
    pub fn says(&self) -> String {
        let mut parts = vec![format!("user {}", self.id)];
        parts.extend(self.name.iter().map(|name| format!("name {name}")));
        parts.extend(self.password.iter().map(|_| "a new password".to_string()));
        parts.extend(self.privilege.iter().cloned());
        let way = |on| if on { "on" } else { "off" };
        parts.extend(self.sol.map(|on| format!("sol {}", way(on))));
        parts.extend(self.enabled.map(|on| if on { "enabled" } else { "disabled" }.to_string()));
        parts.join(", ")
    }

    /// What makes no sense.
    pub fn check(&self) -> Result<(), String> {
        if *self == (UserChange { id: self.id, ..UserChange::default() }) {
            return Err("nothing is said that changes: --name, --privilege, --enable …".to_string());
        }
        if let Some(name) = &self.privilege
            && Limit::by_name(name).is_none()
        {
            return Err(format!("no privilege {name:?}: user, operator, admin, no-access"));
        }
        self.password().map(drop)
    }

    fn password(&self) -> Result<Option<Password>, String> {
        let Some(Typed(text)) = &self.password else { return Ok(None) };
        Password::new(text).map(Some).map_err(|error| error.to_string())
    }

    /// Does it.
    pub(in crate::ops) async fn apply(&self, bmc: &Lent) -> Result<Said, Failure> {
        let password = self.password().map_err(|error| Failure::new("usage", error))?;
        self.apply_with(bmc, password.as_ref()).await
    }

    /// The same with a password that was not typed, in the order in which nothing is open to nobody: the password
    /// before the right to log in.
    pub(in crate::ops) async fn apply_with(
        &self,
        bmc: &Lent,
        password: Option<&Password>,
    ) -> Result<Said, Failure> {
        let channel = channel::lan(bmc).await?;
        if self.enabled == Some(false) {
            user::enable(bmc, self.id, false).await?;
        }
        if let Some(name) = &self.name {
            user::set_name(bmc, self.id, name).await?;
        }
        if let Some(password) = password {
            user::set_password(bmc, self.id, password).await?;
        }
        if let Some(limit) = self.privilege.as_deref().and_then(Limit::by_name) {
            let messaging = limit != Limit::NoAccess;
            let wanted = UserAccess { callback: false, link: false, messaging, limit };
            user::set_access(bmc, channel, self.id, wanted).await?;
        }
        if let Some(allowed) = self.sol {
            user::set_sol(bmc, channel, self.id, allowed).await?;
        }
        if self.enabled == Some(true) {
            user::enable(bmc, self.id, true).await?;
        }
        let mut users = user::list(bmc, channel).await?;
        users.retain(|user| user.id == self.id);
        Ok(Said { word: "changed".to_string(), ..said(&users) })
    }
}

/// All of them.
pub(super) async fn list(bmc: &Lent) -> Result<Said, Failure> {
    let channel = channel::lan(bmc).await?;
    Ok(said(&user::list(bmc, channel).await?))
}

fn said(users: &[User]) -> Said {
    let or = |told: Option<bool>, yes: &str, no: &str| match told {
        Some(true) => yes.to_string(),
        Some(false) => no.to_string(),
        None => "?".to_string(),
    };
    let cells = users.iter().map(|user| {
        let name = if user.name.is_empty() { "(none)" } else { &user.name };
        vec![
            user.id.to_string(),
            name.to_string(),
            user.access.limit.name().to_string(),
            or(user.enabled, "enabled", "disabled"),
            or(Some(user.access.messaging), "yes", "no"),
            or(user.sol, "yes", "no"),
        ]
    });
    let word = match users.len() {
        1 => "1 account".to_string(),
        many => format!("{many} accounts"),
    };
    Said { word, cells: cells.collect(), data: json!({ "users": users }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_never_said() {
        let change = UserChange {
            id: 3,
            name: Some("ops".into()),
            password: Some(Typed("s3cret".into())),
            privilege: Some("operator".into()),
            sol: Some(true),
            enabled: Some(true),
        };
        assert_eq!(change.check(), Ok(()));
        assert_eq!(change.says(), "user 3, name ops, a new password, operator, sol on, enabled");
        assert!(!format!("{change:?}").contains("s3cret"));
        assert!(UserChange { id: 3, ..UserChange::default() }.check().is_err());
        assert!(UserChange { privilege: Some("root".into()), ..change.clone() }.check().is_err());
        let long = Some(Typed("x".repeat(21)));
        assert!(UserChange { password: long, ..change }.check().unwrap_err().contains("20"));
    }
}
