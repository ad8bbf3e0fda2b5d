//! SSH host keys, as machines show them on their consoles. A console is a machine's own wire: whoever else is on
//! its network cannot write there. Who may write to it on the machine itself could still lie, and so the first key
//! of a boot is believed, and another one while that boot runs is told of and not taken.

use std::collections::HashMap;

use koboshi_console::watch::host_key::HostKey;
use koboshi_console::watch::{Hit, What};
use koboshi_pxe::BootId;

use super::Ledger;
use crate::store::HostKeys;

/// Ed25519 and the three of ECDSA.
const KINDS_MAX: usize = 4;

/// What a key that was shown means.
#[derive(Debug, PartialEq, Eq)]
enum Shown {
    /// Nothing new.
    Again,
    /// The first of its kind in this boot.
    Taken(HostKeys),
    /// Not the one that was shown before (this) in the same boot.
    Other(HostKeys, String),
}

impl Ledger {
    /// The SSH host keys of each machine, as last shown.
    pub fn host_keys(&self) -> HashMap<String, HostKeys> {
        self.inner().host_keys.clone()
    }

    pub(super) async fn host_key_shown(&self, machine: &str, hit: &Hit) {
        let What::Said { line, .. } = &hit.what else { return };
        // A line that something else was written into. `systemctl restart koboshi-ssh-host-keys-shown` shows it again.
        let Some(key) = HostKey::read(line) else {
            return tracing::warn!(machine, line, "no SSH host key");
        };
        let shown = {
            let mut inner = self.inner();
            let boots = inner.boots.values().filter(|boot| boot.machine == machine);
            let boot = boots.max_by_key(|boot| boot.order()).map(|boot| boot.id);
            let shown = shown(inner.host_keys.get(machine), (machine, boot), &key, hit.at);
            if let Shown::Taken(keys) | Shown::Other(keys, _) = &shown {
                inner.host_keys.insert(machine.to_string(), keys.clone());
            }
            shown
        };
        let (keys, text) = match shown {
            Shown::Again => return,
            Shown::Taken(keys) => {
                (keys, Some(format!("shows its SSH host key: {} {}", key.kind, key.fingerprint)))
            }
            Shown::Other(keys, first) => {
                let text = format!(
                    "shows ANOTHER SSH host key while the same boot runs: {} {}, and {first} before, \
                     which stays: somebody made new keys there, or somebody writes to its console who \
                     should not ({} so far); its next boot is believed anew",
                    key.kind, key.fingerprint, keys.others
                );
                // Seldomer and seldomer: whoever can write there can write for ever.
                let tell = keys.others.is_power_of_two();
                (keys, tell.then_some(text))
            }
        };
        if let Err(error) = self.store.record_host_keys(keys).await {
            self.failed(&error);
        }
        if let Some(text) = text {
            self.event("host-key", Some(machine.to_string()), text).await;
        }
    }
}

fn shown(
    known: Option<&HostKeys>,
    (machine, boot): (&str, Option<BootId>),
    key: &HostKey,
    at: u64,
) -> Shown {
    let known = known.filter(|known| known.boot == boot);
    let Some(known) = known else {
        let (machine, keys) = (machine.to_string(), vec![key.line.clone()]);
        return Shown::Taken(HostKeys { machine, boot, at, keys, others: 0 });
    };
    let kind = format!("{} ", key.kind);
    let mut keys = known.clone();
    match known.keys.iter().find(|line| line.starts_with(&kind)) {
        Some(line) if *line == key.line => Shown::Again,
        Some(line) => {
            keys.others = keys.others.saturating_add(1);
            let first = HostKey::of(line).map_or_else(|| line.clone(), |first| first.fingerprint);
            Shown::Other(keys, first)
        }
        None if known.keys.len() >= KINDS_MAX => Shown::Again,
        None => {
            keys.keys.push(key.line.clone());
            Shown::Taken(keys)
        }
    }
}

#[cfg(test)]
mod tests {
    use koboshi_console::watch::Level;

    use super::super::tests::boot;
    use super::*;
    use crate::store::Store;

    fn key(kind: &str, name: &str) -> HostKey {
        let (kind, line) = (kind.to_string(), format!("{kind} {name}"));
        HostKey { kind, line, fingerprint: format!("SHA256:{name}") }
    }

    #[test]
    fn the_first_of_a_boot_is_believed() {
        let (one, two) = (BootId([1; 16]), BootId([2; 16]));
        let ed = key("ssh-ed25519", "AAAA1");
        let Shown::Taken(first) = shown(None, ("m01", Some(one)), &ed, 5) else { panic!("taken") };
        assert_eq!((first.keys.len(), first.at), (1, 5));
        assert_eq!(shown(Some(&first), ("m01", Some(one)), &ed, 6), Shown::Again);
        let ec = key("ecdsa-sha2-nistp256", "AAAA2");
        let Shown::Taken(both) = shown(Some(&first), ("m01", Some(one)), &ec, 7) else {
            panic!("another kind is taken too")
        };
        assert_eq!(both.keys, [ed.line.as_str(), ec.line.as_str()]);
        let evil = key("ssh-ed25519", "AAAA3");
        let Shown::Other(kept, _) = shown(Some(&both), ("m01", Some(one)), &evil, 8) else {
            panic!("another one is told of")
        };
        assert_eq!((kept.keys.clone(), kept.others), (both.keys, 1));
        let Shown::Taken(next) = shown(Some(&kept), ("m01", Some(two)), &evil, 9) else {
            panic!("another boot has other keys")
        };
        assert_eq!((next.keys, next.others, next.boot), (vec![evil.line], 0, Some(two)));
    }

    #[tokio::test]
    async fn a_key_outlives_the_appliance_and_another_one_is_an_event() {
        const LINES: [&str; 2] = [
            "koboshi: ssh host key ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFgORT7lZL27dHqY7IUQ0c9an17jAhRnV49ftJgNa9L4",
            "koboshi: ssh host key ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAINgBuFKrncDBq7UvYfZ5acyd7vBCFEQdMycjvFnnNR34",
        ];
        let dir = tempfile::tempdir().expect("a temporary directory");
        let store = Store::open(dir.path()).expect("a new state");
        let ledger = std::sync::Arc::new(Ledger::new(store.clone(), Vec::new(), Vec::new()));
        let mut events = ledger.follow();
        ledger.opened(boot("m01", 1), None, &[]).await;
        for line in [LINES[0], LINES[0], "koboshi: ssh host key ssh-ed25519 torn", LINES[1]] {
            let (before, behind) = (Vec::new(), Vec::new());
            let what = What::Said { line: line.to_string(), before, behind };
            let rule = koboshi_console::watch::rules::HOST_KEY.to_string();
            ledger.on_console("m01", &Hit { at: 7, rule, level: Level::Info, what }).await;
        }
        let first = events.recv().await.expect("told");
        assert!(first.text.starts_with("shows its SSH host key: ssh-ed25519 SHA256:"), "{first:?}");
        let second = events.recv().await.expect("told");
        assert!(second.text.starts_with("shows ANOTHER SSH host key"), "{second:?}");
        let kept = store.host_keys().expect("read").remove("m01").expect("kept");
        assert_eq!(kept.keys, [LINES[0].trim_start_matches("koboshi: ssh host key ")]);
        assert_eq!((kept.boot, kept.others), (Some(BootId([1; 16])), 1));
        let again = Ledger::new(store, Vec::new(), Vec::new());
        assert_eq!(again.host_keys().get("m01"), Some(&kept));
    }
}
