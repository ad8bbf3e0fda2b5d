//! WHO: which machines a host list, a seat's name, `@group`, `@role` or `@all` stands for.

use std::collections::BTreeSet;

use super::Site;
use crate::site::hostlist::HostList;
use crate::site::names::MachineName;
use crate::site::problem::did_you_mean;
use crate::site::written::Place;

/// A name nobody has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Nobody {
    /// Neither a machine nor a seat.
    #[error("{name:?} is neither a machine nor a seat{}", hint(.help))]
    Name {
        /// As given.
        name: String,
        /// What may have been meant.
        help: Option<String>,
    },
    /// Neither a group nor a role.
    #[error("@{name} is neither a group nor a role{}", hint(.help))]
    Group {
        /// As given.
        name: String,
        /// What may have been meant.
        help: Option<String>,
    },
    /// A seat nobody sits in.
    #[error("the matrix gives seat {0} to no machine")]
    Empty(String),
    /// Not a host list at all.
    #[error(transparent)]
    List(#[from] crate::site::hostlist::BadHostList),
}

fn hint(help: &Option<String>) -> String {
    help.as_ref().map_or(String::new(), |help| format!("; {help}"))
}

impl Site {
    /// The machines WHO stands for, each once, in the order of the list.
    pub fn who(&self, text: &str) -> Result<Vec<MachineName>, Nobody> {
        let list: HostList = text.parse()?;
        let names = list.resolve(|group| self.members(group))?;
        let mut seen = BTreeSet::new();
        let mut out = Vec::new();
        for name in names {
            let machine = self.one(&name)?;
            if seen.insert(machine.clone()) {
                out.push(machine);
            }
        }
        Ok(out)
    }

    fn one(&self, name: &str) -> Result<MachineName, Nobody> {
        if let Some((machine, _)) = self.machines.get_key_value(name) {
            return Ok(machine.clone());
        }
        if let Some((seat, _)) = self.seats.get_key_value(name) {
            let machine = self.machine_of(seat).map(|(machine, _)| machine.clone());
            return machine.ok_or_else(|| Nobody::Empty(name.to_string()));
        }
        let names = self.machines.keys().map(MachineName::as_str);
        let names = names.chain(self.seats.keys().map(|seat| seat.as_str()));
        Err(Nobody::Name { name: name.into(), help: did_you_mean(name, names) })
    }

    fn members(&self, name: &str) -> Result<Vec<String>, Nobody> {
        if name == "all" {
            return Ok(self.machines.keys().map(|machine| machine.to_string()).collect());
        }
        if let Some(group) = self.groups.get(name) {
            return Ok(group.members.iter().map(|machine| machine.to_string()).collect());
        }
        if self.roles.contains_key(name) {
            let sits = |place: &Place| match place {
                Place::Seat(seat) => {
                    self.seats.get(seat).is_some_and(|seat| seat.role.as_str() == name)
                }
                Place::Spare => false,
            };
            let machines = self.matrix.iter().filter(|(_, place)| sits(place));
            return Ok(machines.map(|(machine, _)| machine.to_string()).collect());
        }
        let names = self.groups.keys().map(|group| group.as_str());
        let names = names.chain(self.roles.keys().map(|role| role.as_str()));
        Err(Nobody::Group { name: name.into(), help: did_you_mean(name, names) })
    }
}
