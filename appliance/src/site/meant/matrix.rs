//! The matrix and the groups as meant: every machine and every seat in them is one there is.

use std::collections::{BTreeMap, BTreeSet};

use super::Group;
use super::build::missing;
use crate::site::hostlist;
use crate::site::names::{GroupName, MachineName, SeatName};
use crate::site::origin::{At, Origin};
use crate::site::problem::{Problem, Problems, did_you_mean};
use crate::site::written::{Place, Written};

pub(super) type Matrix = BTreeMap<MachineName, At<Place>>;

pub(super) fn matrix(
    written: &mut Written,
    problems: &mut Problems,
) -> (Matrix, BTreeMap<SeatName, MachineName>) {
    let mut matrix = Matrix::new();
    let mut held: BTreeMap<SeatName, (MachineName, Origin)> = BTreeMap::new();
    let mut rows: Vec<_> = std::mem::take(&mut written.matrix).into_iter().collect();
    rows.sort_by_key(|(_, row)| row.origin.order());
    for (machine, At { value: row, origin }) in rows {
        let known = written.machines.get(&machine);
        if known.is_none() {
            let names = written.machines.keys().map(MachineName::as_str);
            let name = At::new(machine.clone(), row.key.clone());
            problems.push(missing("machine", &name, names, "the matrix".into()));
        }
        if let Place::Seat(seat) = &row.place {
            if !written.seats.contains_key(seat) {
                let names = written.seats.keys().map(SeatName::as_str).chain(["spare"]);
                let name = At::new(seat.clone(), origin.clone());
                problems.push(missing(
                    "seat",
                    &name,
                    names,
                    format!("the matrix line of {machine}"),
                ));
            }
            match held.get(seat) {
                Some((first, there)) => problems.push(
                    Problem::error(
                        "seat-twice",
                        &origin,
                        format!("seat {seat} is given to {first} and to {machine}"),
                    )
                    .label(format!("{machine} sits in {seat}, too"))
                    .also(there, format!("{first} sits in {seat}"))
                    .help("a seat has one machine; \"spare\" is a machine without a seat"),
                ),
                None => {
                    held.insert(seat.clone(), (machine.clone(), origin.clone()));
                }
            }
        }
        if known.is_some_and(|known| known.macs.is_empty()) {
            let message =
                format!("machine {machine} has a place in the matrix but no mac to boot by");
            let problem = Problem::error("no-mac", &row.key, message);
            problems
                .push(problem.label("cannot boot").help("mac = [\"52:54:00:…\"] on the machine"));
        }
        matrix.insert(machine, At::new(row.place, origin));
    }
    (matrix, held.into_iter().map(|(seat, (machine, _))| (seat, machine)).collect())
}

/// A name is a machine's or a seat's; `@name` a group's or a role's.
pub(super) fn one_namespace(written: &Written, problems: &mut Problems) {
    for (name, seat) in &written.seats {
        if let Some(machine) = written.machines.get(name.as_str()) {
            problems.push(
                Problem::error(
                    "name-twice",
                    &seat.origin,
                    format!("{name} is a machine and a seat"),
                )
                .label("the seat")
                .also(&machine.origin, "the machine")
                .help("a machine is hardware, a seat is what it serves as: give one another name"),
            );
        }
    }
}

pub(super) fn groups(written: &Written, problems: &mut Problems) -> BTreeMap<GroupName, At<Group>> {
    let mut groups = BTreeMap::new();
    let mut round = BTreeSet::new();
    for (name, group) in &written.groups {
        let mut members = BTreeSet::new();
        let mut chain = vec![name];
        gather(written, name, &mut chain, &mut members, &mut round, problems);
        groups.insert(name.clone(), At::new(Group { members }, group.origin.clone()));
        if written.roles.contains_key(name.as_str()) {
            let problem = Problem::error(
                "name-twice",
                &group.origin,
                format!("{name} is a group and a role"),
            );
            problems.push(problem.label("the group").help(format!("@{name} would be either")));
        }
    }
    groups
}

/// A group's machines; those of `@other` within it, too.
fn gather<'w>(
    written: &'w Written,
    name: &'w GroupName,
    chain: &mut Vec<&'w GroupName>,
    members: &mut BTreeSet<MachineName>,
    round: &mut BTreeSet<GroupName>,
    problems: &mut Problems,
) {
    let Some(group) = written.groups.get(name) else { return };
    for list in &group.value {
        let names = list.resolve(|other| {
            let mut inside = BTreeSet::new();
            if other == "all" {
                inside.extend(written.machines.keys().cloned());
            } else if let Some((other, _)) = written.groups.get_key_value(other) {
                if let Some(at) = chain.iter().position(|one| *one == other) {
                    // Said once, whichever group of the round is looked at first.
                    let whole: Vec<String> =
                        chain[at..].iter().map(|one| format!("@{one}")).collect();
                    if chain[at..].iter().all(|one| !round.contains(*one)) {
                        let message = format!("groups contain each other: {}", whole.join(" → "));
                        let problem = Problem::error("group-cycle", &list.origin, message);
                        problems.push(problem.label(format!("leads back to @{other}")));
                    }
                    round.extend(chain[at..].iter().map(|one| (*one).clone()));
                } else if chain.len() < 64 {
                    chain.push(other);
                    gather(written, other, chain, &mut inside, round, problems);
                    chain.pop();
                }
            } else {
                let known = written.groups.keys().map(GroupName::as_str);
                let help = did_you_mean(other, known);
                let message = format!("group {name} contains @{other}, which does not exist");
                let problem = Problem::error("unknown-group", &list.origin, message);
                problems.push(problem.label("no such group").maybe_help(help));
            }
            Ok::<_, std::convert::Infallible>(inside.iter().map(|m| m.to_string()).collect())
        });
        let Ok(names) = names;
        let (known, unknown): (Vec<_>, Vec<_>) =
            names.into_iter().partition(|name| written.machines.contains_key(name.as_str()));
        members.extend(known.iter().filter_map(|name| {
            written.machines.get_key_value(name.as_str()).map(|(name, _)| name.clone())
        }));
        if !unknown.is_empty() && chain.len() == 1 {
            let message = format!("group {name} names machines that do not exist");
            let problem = Problem::warning("unknown-machine", &list.origin, message);
            let folded: String = hostlist::fold(&unknown).chars().take(200).collect();
            problems.push(problem.label(format!("not in [machines]: {folded}")));
        }
    }
}
