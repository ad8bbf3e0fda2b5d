//! What is seen on machines' consoles: an event each, and a line in the timeline of the machine's boot. What
//! boots nothing from here (a switch, a server with a disk) has a timeline of its own, a start each.

use koboshi_console::watch::rules::{HOST_KEY, STARTS};
use koboshi_console::watch::{Hit, Level, What};
use koboshi_pxe::BootId;
use koboshi_pxe::boots::Stage;
use sha2::{Digest, Sha256};

use super::reports::clean;
use super::{Ledger, push};
use crate::store::{BootRecord, Mark, OnConsole};

/// Characters of a line beside the one that was seen.
const BESIDE_MAX: usize = 120;

impl Ledger {
    /// Writes it down.
    pub async fn on_console(&self, machine: &str, hit: &Hit) {
        if hit.rule == HOST_KEY {
            return self.host_key_shown(machine, hit).await;
        }
        self.event("console", Some(machine.to_string()), words(hit)).await;
        // That it went on is of no boot.
        let What::Said { line, .. } = &hit.what else { return };
        let seen = Box::new(OnConsole { rule: hit.rule.clone(), level: hit.level });
        let mark = |stage| Mark {
            at: hit.at,
            stage,
            note: clean(line),
            late: None,
            power: None,
            console: Some(seen.clone()),
        };
        let netboot = {
            let mut inner = self.inner();
            let boots = inner.boots.values_mut().filter(|boot| boot.machine == machine);
            boots.max_by_key(|boot| boot.order()).map(|boot| {
                push(boot, mark(boot.stage));
                boot.clone()
            })
        };
        let written = match netboot {
            Some(boot) => self.store.record_boot(boot).await,
            None => self.unbooted(machine, mark(Stage::Offer)).await,
        };
        if let Err(error) = written {
            self.failed(&error);
        }
    }

    /// Of a machine that boots nothing from here.
    async fn unbooted(&self, machine: &str, mark: Mark) -> Result<(), crate::store::StoreError> {
        let known = self.inner().unbooted.get(machine).cloned();
        let known = match known {
            Some(known) => Some(known),
            None => self.store.boots_of(machine)?.into_iter().next(),
        };
        let starts = mark.console.as_ref().is_some_and(|seen| seen.rule == STARTS);
        let (mut boot, former) = match known {
            Some(known) if !starts => (known, None),
            known => {
                let digest = Sha256::digest(format!("{machine} {}", mark.at));
                let mut id = [0; 16];
                id.iter_mut().zip(digest).for_each(|(to, from)| *to = from);
                (BootRecord::unbooted(machine, BootId(id), mark.at), known)
            }
        };
        push(&mut boot, mark);
        if boot.marks.len() == 1 {
            boot.order = self.inner().next(boot.opened);
        }
        self.inner().unbooted.insert(machine.to_string(), boot.clone());
        if boot.marks.len() > 1 {
            return self.store.record_boot(boot).await;
        }
        let former = former.map(|former| BootRecord { over: true, ..former });
        let ended = former.into_iter().collect();
        self.store.open_boot(boot, ended, Vec::new(), None).await.map(drop)
    }
}

/// A line for the event log.
fn words(hit: &Hit) -> String {
    let what = match hit.level {
        Level::Info => hit.rule.clone(),
        level => format!("{}, {}", hit.rule, level.as_str()),
    };
    match &hit.what {
        What::Again { times, within } => {
            format!("said so {times} times more within {} s [{what}]", within / 1000)
        }
        What::Said { line, .. } if hit.level == Level::Info => {
            format!("says {:?} [{what}]", clean(line))
        }
        What::Said { line, before, behind } => {
            let beside = |name: &str, lines: &[String]| match lines {
                [] => String::new(),
                lines => {
                    let cut = |line: &String| match line.char_indices().nth(BESIDE_MAX) {
                        Some((end, _)) => format!("{}…", clean(&line[..end])),
                        None => clean(line),
                    };
                    let lines: Vec<String> = lines.iter().map(cut).collect();
                    format!("; {name} it: {}", lines.join(" | "))
                }
            };
            let (before, behind) = (beside("before", before), beside("behind", behind));
            format!("says {:?} [{what}]{behind}{before}", clean(line))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::boot;
    use super::*;
    use crate::store::Store;

    fn said(rule: &str, level: Level, line: &str, at: u64) -> Hit {
        let what = What::Said {
            line: line.to_string(),
            before: vec!["one".to_string(), "\u{1b}two".to_string()],
            behind: vec!["x".repeat(500)],
        };
        Hit { at, rule: rule.to_string(), level, what }
    }

    #[test]
    fn a_hit_in_a_line() {
        let panic = said("kernel-panic", Level::Error, "Kernel panic - not syncing", 1);
        let x = "x".repeat(120);
        assert_eq!(
            words(&panic),
            format!(
                "says \"Kernel panic - not syncing\" [kernel-panic, error]; behind it: {x}…; before it: one | ·two"
            )
        );
        let login = said("login-prompt", Level::Info, "web1 login:", 1);
        assert_eq!(words(&login), "says \"web1 login:\" [login-prompt]");
        let again = Hit { what: What::Again { times: 57, within: 60_000 }, ..panic };
        assert_eq!(words(&again), "said so 57 times more within 60 s [kernel-panic, error]");
    }

    async fn until_told(events: &mut tokio::sync::broadcast::Receiver<crate::store::Event>) {
        while events.recv().await.expect("told").kind != "test" {}
    }

    #[tokio::test]
    async fn a_machines_boot_has_it_and_a_switch_has_its_own() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let store = Store::open(dir.path()).expect("a new state");
        let ledger = std::sync::Arc::new(Ledger::new(store.clone(), Vec::new(), Vec::new()));
        let mut events = ledger.follow();
        ledger.opened(boot("m01", 1), None, &[]).await;
        ledger.on_console("m01", &said("kernel-panic", Level::Error, "Kernel panic", 7)).await;
        let newest = ledger.newest();
        let mark = newest.values().next().and_then(|boot| boot.marks.last()).expect("a mark");
        assert_eq!((mark.note.as_str(), mark.is_sign()), ("Kernel panic", false));
        for (rule, line, at) in [
            ("login-prompt", "sw1 login:", 1000),
            (STARTS, "System Bootstrap, Version 15", 2000),
            ("login-prompt", "sw1 login:", 3000),
        ] {
            ledger.on_console("sw1", &said(rule, Level::Info, line, at)).await;
        }
        assert_eq!(ledger.newest().len(), 1, "a switch is on no network of ours");
        // Another life of this process knows what it was at.
        // What was written before is on disk once an event behind it is told.
        ledger.event("test", None, String::new()).await;
        until_told(&mut events).await;
        let again = Ledger::new(store.clone(), Vec::new(), Vec::new());
        let mut events = again.follow();
        again.on_console("sw1", &said("io-error", Level::Error, "flash: I/O error", 4000)).await;
        again.event("test", None, String::new()).await;
        until_told(&mut events).await;
        let boots = store.boots_of("sw1").expect("read");
        let notes =
            |boot: &BootRecord| boot.marks.iter().map(|mark| mark.note.clone()).collect::<Vec<_>>();
        assert_eq!(boots.len(), 2);
        assert_eq!(
            notes(&boots[0]),
            ["System Bootstrap, Version 15", "sw1 login:", "flash: I/O error"]
        );
        assert_eq!((notes(&boots[1]), boots[1].over), (vec!["sw1 login:".to_string()], true));
        assert!(store.newest_boots(|_| {}).expect("read").iter().all(|boot| boot.machine != "sw1"));
    }
}
