//! The file has changed while machines run: what would be different, and may it be so now? A half-saved
//! file is valid TOML, so what would take much away waits for the operator's word.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;
use serde_json::Value;

use super::meant::Site;
use super::names::{MachineName, SeatName};
use super::origin::At;
use super::written::Place;

/// A reload that drops more than one machine in so many waits.
const DROPPED: usize = 20;

/// What a new site changes.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Changes {
    /// Machines that come.
    pub machines_added: Vec<MachineName>,
    /// Machines that go.
    pub machines_removed: Vec<MachineName>,
    /// Machines that are described otherwise.
    pub machines_changed: BTreeMap<MachineName, Vec<Field>>,
    /// Lines of the matrix that say something else.
    pub moves: Vec<Move>,
    /// Seats that come.
    pub seats_added: Vec<SeatName>,
    /// Seats that go.
    pub seats_removed: Vec<SeatName>,
    /// Seats that are described otherwise.
    pub seats_changed: BTreeMap<SeatName, Vec<Field>>,
    /// Everything else, by its path: `roles.web.image`, `net.subnets.0.pool`.
    pub settings: Vec<Field>,
    /// What takes effect only when the appliance starts anew.
    pub restart: Vec<String>,
    /// The seat each machine had, for those whose seat is touched.
    #[serde(skip)]
    touched: BTreeMap<MachineName, Vec<String>>,
    #[serde(skip)]
    before: usize,
}

/// One value that differs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Field {
    /// Where.
    pub path: String,
    /// What it was; none if it is new.
    pub from: Option<Value>,
    /// What it is; none if it is gone.
    pub to: Option<Value>,
}

/// One machine's line in the matrix.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Move {
    /// The machine.
    pub machine: MachineName,
    /// Its former place.
    pub from: Option<Place>,
    /// Its new one.
    pub to: Option<Place>,
}

/// What is to be done with a new site.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "verdict", content = "reasons", rename_all = "lowercase")]
pub enum Verdict {
    /// Use it.
    Apply,
    /// Wait for `koboshi reload --accept`, because of this.
    Wait(Vec<String>),
    /// Use it, and say that these changes need a restart.
    Restart(Vec<String>),
}

/// What `new` changes.
pub fn diff(old: &Site, new: &Site) -> Changes {
    let mut changes = Changes { before: old.machines.len(), ..Changes::default() };
    let machines = table(&old.machines, &new.machines);
    (changes.machines_added, changes.machines_removed, changes.machines_changed) = machines;
    let seats = table(&old.seats, &new.seats);
    (changes.seats_added, changes.seats_removed, changes.seats_changed) = seats;
    let mut lines: Vec<&MachineName> = old.matrix.keys().chain(new.matrix.keys()).collect();
    lines.sort();
    lines.dedup();
    for machine in lines {
        let (from, to) = (old.matrix.get(machine), new.matrix.get(machine));
        if from != to {
            let place = |place: Option<&At<Place>>| place.map(|place| place.value.clone());
            changes.moves.push(Move { machine: machine.clone(), from: place(from), to: place(to) });
        }
    }
    let mut settings = |path: &str, from: Value, to: Value| {
        fields(path, Some(&from), Some(&to), &mut changes.settings);
    };
    settings("site.name", json(&old.name), json(&new.name));
    settings("site.domain", json(&old.domain), json(&new.domain));
    settings("site.ssh-keys", json(&old.ssh_keys), json(&new.ssh_keys));
    settings("site.loaders", json(&old.loaders), json(&new.loaders));
    settings("net", json(&old.net), json(&new.net));
    settings("net.subnet", json(&old.subnets), json(&new.subnets));
    settings("networks", json(&old.networks), json(&new.networks));
    settings("admin", json(&old.admin), json(&new.admin));
    settings("console", json(&old.consoles), json(&new.consoles));
    settings("logs", json(&old.logs), json(&new.logs));
    settings("classes", json(&old.classes), json(&new.classes));
    settings("roles", json(&old.roles), json(&new.roles));
    settings("groups", json(&old.groups), json(&new.groups));
    changes.restart = restart(old, new);
    changes.touched = touched(old, new, &changes);
    changes
}

/// May it be so now? `running` says whether a machine is up, or on its way.
pub fn judge(changes: &Changes, running: &dyn Fn(&MachineName) -> bool) -> Verdict {
    let mut reasons: Vec<String> = Vec::new();
    for (machine, what) in changes.touched.iter().filter(|(machine, _)| running(machine)) {
        reasons.extend(what.iter().map(|what| format!("{machine} is running and {what}")));
    }
    let removed = changes.machines_removed.len();
    if removed * DROPPED > changes.before {
        reasons.push(format!(
            "{removed} of {} machines would be dropped (more than 5 %)",
            changes.before
        ));
    }
    if !reasons.is_empty() {
        reasons.extend(changes.restart.iter().cloned());
        return Verdict::Wait(reasons);
    }
    match changes.restart.is_empty() {
        true => Verdict::Apply,
        false => Verdict::Restart(changes.restart.clone()),
    }
}

impl Changes {
    /// Nothing at all?
    pub fn is_empty(&self) -> bool {
        self.machines_added.is_empty()
            && self.machines_removed.is_empty()
            && self.machines_changed.is_empty()
            && self.moves.is_empty()
            && self.seats_added.is_empty()
            && self.seats_removed.is_empty()
            && self.seats_changed.is_empty()
            && self.settings.is_empty()
    }
}

/// What a running machine would lose, by machine.
fn touched(old: &Site, new: &Site, changes: &Changes) -> BTreeMap<MachineName, Vec<String>> {
    let mut touched: BTreeMap<MachineName, Vec<String>> = BTreeMap::new();
    let mut say = |machine: &MachineName, what: String| {
        touched.entry(machine.clone()).or_default().push(what);
    };
    for machine in &changes.machines_removed {
        say(machine, "would be dropped from the site".into());
    }
    for change in &changes.moves {
        if changes.machines_removed.contains(&change.machine) {
            continue;
        }
        let Some(Place::Seat(seat)) = &change.from else { continue };
        let to = change.to.as_ref().map_or("no place".into(), |to| match to {
            Place::Seat(seat) => format!("seat {seat}"),
            Place::Spare => "spare".into(),
        });
        say(&change.machine, format!("would be moved from seat {seat} to {to}"));
    }
    for seat in &changes.seats_removed {
        let Some(machine) = old.seated.get(seat) else { continue };
        if old.matrix.get(machine) == new.matrix.get(machine) {
            say(machine, format!("its seat {seat} would be dropped"));
        }
    }
    for seat in changes.seats_changed.keys() {
        let (Some(from), Some(to)) = (old.seats.get(seat), new.seats.get(seat)) else { continue };
        let Some(machine) = old.seated.get(seat) else { continue };
        let text = |ip: &Option<At<_>>| {
            ip.as_ref()
                .map_or("no address".to_string(), |ip: &At<std::net::Ipv4Addr>| ip.to_string())
        };
        if from.ip != to.ip {
            let (from, to) = (text(&from.ip), text(&to.ip));
            say(machine, format!("its seat {seat} would change from {from} to {to}"));
        }
    }
    for machine in changes.machines_changed.keys() {
        let (Some(from), Some(to)) = (old.machines.get(machine), new.machines.get(machine)) else {
            continue;
        };
        for mac in from.macs.iter().filter(|mac| !to.macs.contains(mac)) {
            say(machine, format!("would no longer be known by {mac}"));
        }
    }
    touched
}

/// Sockets are bound when the appliance starts: interface, ports, `[admin]`.
fn restart(old: &Site, new: &Site) -> Vec<String> {
    let mut out = Vec::new();
    let mut say = |what: &str, from: String, to: String| {
        if from != to {
            out.push(format!("{what} changes from {from} to {to}: restart koboshi"));
        }
    };
    let on = |site: &Site| {
        let names = site.subnets.iter().filter_map(|subnet| subnet.interface());
        let all: Vec<&str> = names.collect();
        if all.is_empty() { "none".to_string() } else { all.join(", ") }
    };
    say("the interface", on(old), on(new));
    for subnet in &new.subnets {
        let before = old.subnets.iter().find(|one| one.reach == subnet.reach);
        if let (Some(name), Some(to), Some(from)) =
            (subnet.interface(), subnet.own, before.and_then(|before| before.own))
        {
            say(&format!("our address on {name}"), from.to_string(), to.to_string());
        }
    }
    say("http-port", old.net.http_port.to_string(), new.net.http_port.to_string());
    let port = |port: Option<u16>| port.map_or("none".to_string(), |port| port.to_string());
    say("the syslog port", port(old.net.syslog), port(new.net.syslog));
    say("the netconsole port", port(old.net.netconsole), port(new.net.netconsole));
    let mode = |site: &Site| json(&site.net.mode).as_str().unwrap_or_default().to_string();
    say("mode", mode(old), mode(new));
    say("[admin] listen", old.admin.listen.to_string(), new.admin.listen.to_string());
    say("[admin] ssh", old.admin.ssh.to_string(), new.admin.ssh.to_string());
    out
}

type Table<K> = (Vec<K>, Vec<K>, BTreeMap<K, Vec<Field>>);

/// Entries that come, go, and differ.
fn table<K: Ord + Clone, V: PartialEq + Serialize>(
    old: &BTreeMap<K, At<V>>,
    new: &BTreeMap<K, At<V>>,
) -> Table<K> {
    let added = new.keys().filter(|name| !old.contains_key(name)).cloned().collect();
    let removed = old.keys().filter(|name| !new.contains_key(name)).cloned().collect();
    let mut changed = BTreeMap::new();
    for (name, from) in old {
        if let Some(to) = new.get(name)
            && from != to
        {
            let mut differ = Vec::new();
            fields("", Some(&json(from)), Some(&json(to)), &mut differ);
            changed.insert(name.clone(), differ);
        }
    }
    (added, removed, changed)
}

fn json<T: Serialize>(value: &T) -> Value {
    serde_json::to_value(value).unwrap_or(Value::Null)
}

/// Every value below two that differs.
fn fields(path: &str, from: Option<&Value>, to: Option<&Value>, out: &mut Vec<Field>) {
    let empty = serde_json::Map::new();
    let not_null = |value: Option<&Value>| value.filter(|value| !value.is_null()).cloned();
    if not_null(from) == not_null(to) {
        return;
    }
    let joined =
        |key: &str| if path.is_empty() { key.to_string() } else { format!("{path}.{key}") };
    match (from, to) {
        (Some(Value::Object(_)), _) | (_, Some(Value::Object(_))) => {
            let table =
                |value: Option<&Value>| value.and_then(Value::as_object).unwrap_or(&empty).clone();
            let (from, to) = (table(from), table(to));
            let mut keys: Vec<&String> = from.keys().chain(to.keys()).collect();
            keys.sort();
            keys.dedup();
            for key in keys {
                fields(&joined(&key.replace('_', "-")), from.get(key), to.get(key), out);
            }
        }
        (Some(Value::Array(a)), Some(Value::Array(b)))
            if a.iter().chain(b).any(Value::is_object) =>
        {
            for at in 0..a.len().max(b.len()) {
                fields(&joined(&at.to_string()), a.get(at), b.get(at), out);
            }
        }
        _ => out.push(Field { path: path.into(), from: not_null(from), to: not_null(to) }),
    }
}

/// For people, as `check --diff` shows it: `+` comes, `-` goes, `~` differs.
impl fmt::Display for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return writeln!(f, "nothing changes");
        }
        let fold = |names: &[MachineName]| super::hostlist::fold(names);
        if !self.machines_added.is_empty() {
            writeln!(f, "+ machine {}", fold(&self.machines_added))?;
        }
        if !self.machines_removed.is_empty() {
            writeln!(f, "- machine {}", fold(&self.machines_removed))?;
        }
        for (name, differ) in &self.machines_changed {
            for field in differ {
                writeln!(f, "~ machine {name}: {field}")?;
            }
        }
        if !self.seats_added.is_empty() {
            writeln!(f, "+ seat {}", super::hostlist::fold(&self.seats_added))?;
        }
        if !self.seats_removed.is_empty() {
            writeln!(f, "- seat {}", super::hostlist::fold(&self.seats_removed))?;
        }
        for (name, differ) in &self.seats_changed {
            for field in differ {
                writeln!(f, "~ seat {name}: {field}")?;
            }
        }
        for Move { machine, from, to } in &self.moves {
            let place = |place: &Option<Place>| match place {
                Some(place) => place.to_string(),
                None => "(nothing)".to_string(),
            };
            writeln!(f, "~ matrix {machine}: {} → {}", place(from), place(to))?;
        }
        for field in &self.settings {
            writeln!(f, "~ {field}")?;
        }
        self.restart.iter().try_for_each(|why| writeln!(f, "! {why}"))
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = |value: &Option<Value>| match value {
            None => "(nothing)".to_string(),
            Some(Value::String(text)) => text.clone(),
            Some(value) => value.to_string(),
        };
        write!(f, "{}: {} → {}", self.path, value(&self.from), value(&self.to))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::site::tests::site;

    const BEFORE: &str = r#"
        [net]
        interface = "eth1"
        pool = "10.77.0.200-10.77.0.250"
        [roles.web]
        image = "web"
        [machines]
        "m[01-40]" = { mac = ["52:54:00:77:00:{n}"] }
        [seats]
        "web[01-40]" = { role = "web", ip = "10.77.0.{n+10}" }
        [matrix]
        "m[01-40]" = "web{n}"
    "#;

    fn verdict(from: &str, to: &str) -> (String, Verdict) {
        let old = site(BEFORE);
        let new = site(&BEFORE.replace(from, to));
        let changes = diff(&old, &new);
        (changes.to_string(), judge(&changes, &|machine| machine.as_str() == "m01"))
    }

    fn wait(reason: &str) -> Verdict {
        Verdict::Wait(vec![reason.to_string()])
    }

    #[test]
    fn the_same_site_changes_nothing_wherever_its_lines_stand() {
        let (text, verdict) = verdict("[roles.web]", "\n\n# a comment\n[roles.web]");
        assert_eq!((text.as_str(), verdict), ("nothing changes\n", Verdict::Apply));
    }

    #[test]
    fn a_machine_that_comes_is_welcome() {
        let to = "[machines]\nm41 = { mac = \"52:54:00:77:00:41\" }";
        let (text, verdict) = verdict("[machines]", to);
        assert_eq!((text.as_str(), verdict), ("+ machine m41\n", Verdict::Apply));
    }

    #[test]
    fn a_running_machine_keeps_its_seat_until_the_operator_says_so() {
        let swap = "\"m[03-40]\" = \"web{n}\"\nm01 = \"web02\"\nm02 = \"web01\"";
        let (text, verdict) = verdict("\"m[01-40]\" = \"web{n}\"", swap);
        assert_eq!(text, "~ matrix m01: web01 → web02\n~ matrix m02: web02 → web01\n");
        assert_eq!(
            verdict,
            wait("m01 is running and would be moved from seat web01 to seat web02")
        );
    }

    #[test]
    fn machines_that_are_off_may_swap() {
        let swap = "\"m[01-02,05-40]\" = \"web{n}\"\nm03 = \"web04\"\nm04 = \"web03\"";
        assert_eq!(verdict("\"m[01-40]\" = \"web{n}\"", swap).1, Verdict::Apply);
    }

    #[test]
    fn a_running_seat_keeps_its_address() {
        let (text, verdict) = verdict("10.77.0.{n+10}", "10.77.0.{n+60}");
        assert!(text.contains("~ seat web01: ip: 10.77.0.11 → 10.77.0.61\n"), "{text}");
        assert_eq!(
            verdict,
            wait("m01 is running and its seat web01 would change from 10.77.0.11 to 10.77.0.61")
        );
    }

    #[test]
    fn half_a_file_waits() {
        let half = &BEFORE.replace("m[01-40]", "m[01-37]").replace("web[01-40]", "web[01-37]");
        let old = site(BEFORE);
        let changes = diff(&old, &site(half));
        let nobody = judge(&changes, &|_| false);
        assert_eq!(nobody, wait("3 of 40 machines would be dropped (more than 5 %)"));
        let one_less = BEFORE.replace("m[01-40]", "m[01-38]");
        assert_eq!(judge(&diff(&old, &site(&one_less)), &|_| false), Verdict::Apply);
        let text = diff(&old, &site(&one_less)).to_string();
        assert!(text.starts_with("- machine m[39-40]\n"), "{text}");
    }

    #[test]
    fn a_role_changes_at_the_next_boot() {
        let (text, verdict) = verdict("image = \"web\"", "image = \"web@3\"");
        assert_eq!((text.as_str(), verdict), ("~ roles.web.image: web → web@3\n", Verdict::Apply));
        let (text, verdict) = super::tests::verdict("10.77.0.250\"", "10.77.0.249\"");
        assert_eq!(
            (text.as_str(), verdict),
            (
                "~ net.subnet.0.pool: 10.77.0.200-10.77.0.250 → 10.77.0.200-10.77.0.249\n",
                Verdict::Apply
            )
        );
    }

    #[test]
    fn sockets_need_a_restart() {
        let (text, verdict) = verdict(
            "[roles.web]",
            "http-port = 8081\n[admin]\nlisten = \"127.0.0.1:7071\"\n[roles.web]",
        );
        let why = [
            "http-port changes from 8080 to 8081: restart koboshi",
            "[admin] listen changes from 127.0.0.1:7070 to 127.0.0.1:7071: restart koboshi",
        ];
        assert_eq!(verdict, Verdict::Restart(why.map(String::from).to_vec()));
        assert!(
            text.contains("~ net.http-port: 8080 → 8081\n! ") || text.contains("! http-port"),
            "{text}"
        );
    }

    #[test]
    fn a_machine_is_known_by_its_mac() {
        let known = "\"m[02-40]\" = { mac = [\"52:54:00:77:00:{n}\"] }\nm01 = { mac = \"52:54:00:77:01:01\" }";
        let (_, verdict) = verdict("\"m[01-40]\" = { mac = [\"52:54:00:77:00:{n}\"] }", known);
        assert_eq!(
            verdict,
            wait("m01 is running and would no longer be known by 52:54:00:77:00:01")
        );
    }
}
