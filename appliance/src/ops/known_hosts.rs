//! `koboshi export known-hosts`: the SSH host keys of running machines as their consoles showed them, under every
//! name and address they have now, as OpenSSH's `known_hosts` has them (sshd(8)).

use koboshi_console::watch::host_key::HostKey;
use koboshi_initramfs::contract::Orders;
use serde::{Deserialize, Serialize};

use crate::app::App;
use crate::store::{BootRecord, HostKeys};

/// What is asked.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Query {
    /// Only what goes by this name or address; none of it is no error.
    #[serde(default)]
    pub host: Option<String>,
}

/// A key of a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// Machine.
    pub machine: String,
    /// The seat it sits in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seat: Option<String>,
    /// Machine, seat, host name with and without domain, addresses.
    pub names: Vec<String>,
    /// `ssh-ed25519 AAAA…`
    pub key: String,
    /// `SHA256:…`
    pub fingerprint: String,
    /// When it was shown, Unix milliseconds.
    pub at: u64,
    /// In which boot.
    pub boot: String,
    /// How often another one of its kind was shown since: somebody should look.
    #[serde(default)]
    pub others: u32,
}

/// Answers from the ledger.
pub fn answer(app: &App, query: &Query) -> Vec<Row> {
    let (keys, newest) = (app.ledger.host_keys(), app.ledger.newest());
    rows(keys.values(), newest.values(), query)
}

/// A machine that boots has no keys yet, one that is off or was restarted has none any more.
fn rows<'a>(
    keys: impl Iterator<Item = &'a HostKeys>,
    boots: impl Iterator<Item = &'a BootRecord> + Clone,
    query: &Query,
) -> Vec<Row> {
    let mut rows = Vec::new();
    for shown in keys {
        let mut sitting = boots.clone().filter(|boot| Some(boot.id) == shown.boot && boot.sits());
        let Some(boot) = sitting.next() else { continue };
        let names = names(boot);
        let named = |host: &String| names.iter().any(|name| name.eq_ignore_ascii_case(host));
        if !query.host.as_ref().is_none_or(named) {
            continue;
        }
        for key in shown.keys.iter().filter_map(|line| HostKey::of(line)) {
            rows.push(Row {
                machine: boot.machine.clone(),
                seat: boot.plan.as_ref().and_then(|plan| plan.seat.clone()),
                names: names.clone(),
                key: key.line,
                fingerprint: key.fingerprint,
                at: shown.at,
                boot: boot.id.to_string(),
                others: shown.others,
            });
        }
    }
    rows.sort_by(|one, other| (&one.machine, &one.key).cmp(&(&other.machine, &other.key)));
    rows
}

fn names(boot: &BootRecord) -> Vec<String> {
    let mut names = vec![boot.machine.clone()];
    if let Some(plan) = &boot.plan {
        names.extend(plan.seat.clone());
        names.push(plan.hostname.clone());
        if let Ok(orders) = serde_json::from_str::<Orders>(&plan.orders) {
            if !orders.domain.is_empty() {
                names.push(format!("{}.{}", orders.hostname, orders.domain));
            }
            names.extend(orders.nets.iter().filter_map(|net| Some(net.address?.to_string())));
        }
    }
    names.push(boot.address.to_string());
    names.extend(boot.lent.map(|lent| lent.to_string()));
    let mut seen = std::collections::BTreeSet::new();
    names.retain(|name| seen.insert(name.clone()));
    names
}

/// A file for `ssh`.
pub fn show(rows: &[Row]) -> String {
    let line = |row: &Row| {
        let seen = jiff::Timestamp::from_millisecond(i64::try_from(row.at).unwrap_or(0));
        let seen = seen.map(|at| at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()).unwrap_or_default();
        format!("{} {} {} {seen}\n", row.names.join(","), row.key, row.machine)
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use koboshi_pxe::BootId;
    use koboshi_pxe::boots::Stage;

    use super::*;
    use crate::ledger::tests_boot;

    const KEY: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILfwme635szWyvG4r0fALt5QFZSsxq1UQcCjTWksBdDg";

    #[test]
    fn only_what_runs_under_all_its_names() {
        let mut boot = tests_boot("m01", 1);
        let keys = |id| HostKeys {
            machine: "m01".into(),
            boot: Some(BootId([id; 16])),
            at: 1_795_000_000_000,
            keys: vec![KEY.to_string()],
            others: 0,
        };
        let found = |boot: &BootRecord, id, host: Option<&str>| {
            let query = Query { host: host.map(str::to_string) };
            rows([&keys(id)].into_iter(), [boot].into_iter(), &query)
        };
        assert!(found(&boot, 1, None).is_empty(), "it is on its way");
        boot.stage = Stage::Up;
        let rows = found(&boot, 1, None);
        assert_eq!(show(&rows), format!("m01,web1,10.77.0.11 {KEY} m01 2026-11-18T11:06:40Z\n"));
        assert!(rows[0].fingerprint.starts_with("SHA256:"));
        assert!(found(&boot, 2, None).is_empty(), "those of another boot are nobody's");
        assert_eq!(found(&boot, 1, Some("WEB1")).len(), 1);
        assert!(found(&boot, 1, Some("web")).is_empty());
        boot.over = true;
        assert!(found(&boot, 1, None).is_empty());
    }

    /// OpenSSH reads what is written: it finds the key by each name.
    #[test]
    fn openssh_finds_it() {
        let mut boot = tests_boot("m01", 1);
        boot.stage = Stage::Up;
        let keys = HostKeys {
            machine: "m01".into(),
            boot: Some(boot.id),
            at: 1,
            keys: vec![KEY.to_string()],
            others: 0,
        };
        let rows = rows([&keys].into_iter(), [&boot].into_iter(), &Query::default());
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), show(&rows)).expect("written");
        for name in &rows[0].names {
            let mut command = std::process::Command::new("ssh-keygen");
            let output = command.arg("-F").arg(name).arg("-f").arg(file.path()).output();
            let output = output.expect("ssh-keygen (openssh-client)");
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(output.status.success() && said.contains(KEY), "{name}: {said}");
        }
    }
}
