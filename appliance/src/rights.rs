//! Who may do what. Every operation of the API asks here and nowhere else.

use std::fmt;

use serde::Serialize;

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum Principal {
    /// A process on this host, by the credentials of its socket.
    Local {
        /// User.
        uid: u32,
    },
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Principal::Local { uid } = self;
        match nix::unistd::User::from_uid(nix::unistd::Uid::from_raw(*uid)) {
            Ok(Some(user)) => f.write_str(&user.name),
            _ => write!(f, "user {uid}"),
        }
    }
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verb {
    /// Look: status, boots, events, explain.
    Look,
    /// Read a machine's console.
    Watch,
    /// Change the site: seat, reload.
    Change,
    /// Say that a machine cannot run, so that another one may have its seat.
    Fence,
    /// Switch a machine: power, boot device, watchdog.
    Operate,
    /// Change a BMC: its network, its accounts, its log.
    Administer,
}

/// Whether `principal` may do `verb`, to one machine or (`None`) to the whole site.
///
/// The socket's file mode already keeps strangers out. Behind it, the user the appliance runs as
/// and root may do everything, others of the socket's group may look.
pub fn may(principal: &Principal, verb: Verb, _machine: Option<&str>) -> bool {
    let Principal::Local { uid } = principal;
    let own = nix::unistd::Uid::effective().as_raw();
    *uid == 0 || *uid == own || matches!(verb, Verb::Look | Verb::Watch)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_look_and_do_not_touch() {
        let stranger = Principal::Local { uid: 65_534 };
        assert!(may(&stranger, Verb::Look, None) && may(&stranger, Verb::Watch, Some("m01")));
        assert!(!may(&stranger, Verb::Change, Some("m01")));
        for verb in [Verb::Fence, Verb::Operate, Verb::Administer] {
            assert!(!may(&stranger, verb, Some("m01")), "{verb:?}");
        }
        assert!(may(&Principal::Local { uid: 0 }, Verb::Change, None));
    }
}
