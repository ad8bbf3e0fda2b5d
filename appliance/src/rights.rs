//! Who may do what. Every operation of the API asks here and nowhere else.

use std::collections::BTreeSet;
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
    /// Somebody with a key, who came by SSH: he is at consoles, and nowhere else.
    Key {
        /// Whose key it is.
        name: String,
        /// Whose consoles he may look at.
        watch: Machines,
        /// Whose consoles he may type into.
        types: Machines,
    },
}

/// Which machines somebody has a right to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Machines {
    /// Whichever there are.
    All,
    /// These.
    Of(BTreeSet<String>),
}

impl Machines {
    fn hold(&self, machine: Option<&str>) -> bool {
        match self {
            Machines::All => true,
            Machines::Of(names) => machine.is_some_and(|machine| names.contains(machine)),
        }
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let uid = match self {
            Principal::Local { uid } => uid,
            Principal::Key { name, .. } => return f.write_str(name),
        };
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
    /// Type into a machine's console.
    Type,
    /// Change the site: seat, reload.
    Change,
    /// Say that a machine cannot run, so that another one may have its seat.
    Fence,
    /// Switch a machine: power, boot device, watchdog.
    Operate,
    /// Order a machine out of its seat for one boot, its disks wiped by it, perhaps.
    Maintain,
    /// Change a BMC: its network, its accounts, its log.
    Administer,
}

/// Whether `principal` may do `verb`, to one machine or (`None`) to the whole site.
///
/// The socket's file mode already keeps strangers out. Behind it, the user the appliance runs as
/// and root may do everything, others of the socket's group may look.
pub fn may(principal: &Principal, verb: Verb, machine: Option<&str>) -> bool {
    let uid = match principal {
        Principal::Local { uid } => uid,
        Principal::Key { watch, types, .. } => {
            return match verb {
                Verb::Watch => watch.hold(machine) || types.hold(machine),
                Verb::Type => types.hold(machine),
                _ => false,
            };
        }
    };
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
        for verb in [Verb::Fence, Verb::Operate, Verb::Maintain, Verb::Administer] {
            assert!(!may(&stranger, verb, Some("m01")), "{verb:?}");
        }
        assert!(may(&Principal::Local { uid: 0 }, Verb::Change, None));
    }

    #[test]
    fn a_key_is_for_consoles_and_those_it_names() {
        let of = |names: &[&str]| Machines::Of(names.iter().map(ToString::to_string).collect());
        let (watch, types) = (of(&["m01"]), of(&["m02"]));
        let key = Principal::Key { name: "bob".to_string(), watch, types };
        for (verb, machine, is) in [
            (Verb::Watch, "m01", true),
            (Verb::Type, "m01", false),
            (Verb::Watch, "m02", true),
            (Verb::Type, "m02", true),
            (Verb::Watch, "m03", false),
            (Verb::Operate, "m02", false),
            (Verb::Look, "m01", false),
        ] {
            assert_eq!(may(&key, verb, Some(machine)), is, "{verb:?} {machine}");
        }
        assert!(!may(&key, Verb::Watch, None));
        let all = Machines::All;
        let key = Principal::Key { name: "alice".to_string(), watch: all.clone(), types: all };
        assert!(may(&key, Verb::Type, Some("m03")) && !may(&key, Verb::Change, None));
    }
}
