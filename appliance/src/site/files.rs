//! Folders of files of roles and seats (`files = "dir/"`), read with the site: what is wrong in them refuses it
//! like any other error, with its own file and line, and a change in them is a change of the site.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use super::load::Watched;
use super::meant::Site;
use super::origin::{At, Origin, Source};
use super::problem::{Problem, Problems};
use crate::files::{self, Bad, Facts, Folder};

/// Reads the folders, and fills every template in for every seat that has it.
pub(super) fn read(site: &mut Site, watched: &mut Watched, problems: &mut Problems) {
    let mut known: BTreeMap<PathBuf, (Arc<Folder>, String)> = BTreeMap::new();
    let roles = site.roles.values_mut().filter_map(|role| role.value.files.as_mut());
    let seats = site.seats.values_mut().filter_map(|seat| seat.value.files.as_mut());
    for files in roles.chain(seats) {
        let (folder, digest) = match known.entry(files.folder.value.clone()) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => {
                let found = files::read(new.key());
                watched.folders.extend(found.folders);
                // What comes into it is not among the files yet.
                let inside = glob::Pattern::escape(&new.key().to_string_lossy());
                watched.globs.insert(format!("{}/**/*", inside.trim_end_matches('/')));
                watched.files.extend(found.files);
                for bad in &found.bad {
                    problems.push(problem(bad, &files.folder.origin));
                }
                new.insert((Arc::new(found.folder), found.digest))
            }
        };
        files.read = folder.clone();
        files.digest = digest.clone();
    }
    if !problems.has_errors() {
        fill_in(site, problems);
    }
}

fn fill_in(site: &Site, problems: &mut Problems) {
    // Of one slip in a role's folder, one seat is enough.
    let mut told: BTreeSet<(PathBuf, String)> = BTreeSet::new();
    for (name, At { value: seat, .. }) in &site.seats {
        let role = site.role_of(seat);
        let own = [role.and_then(|(_, role)| role.files.as_ref()), seat.files.as_ref()];
        let mut own = own.into_iter().flatten().peekable();
        if own.peek().is_none() {
            continue;
        }
        let domain = match &seat.ip {
            Some(ip) => site.subnet_of(ip.value).and_then(|subnet| subnet.domain.clone()),
            None => site.domain.clone(),
        };
        let machine = site.seated.get(name).map_or_else(|| name.to_string(), ToString::to_string);
        let addresses = seat.nets.iter();
        let facts = Facts {
            site: site.name.clone(),
            seat: Some(name.to_string()),
            role: seat.role.to_string(),
            machine,
            hostname: name.to_string(),
            domain: domain.unwrap_or_default(),
            address: seat.ip.as_ref().map(|ip| ip.value),
            addresses: addresses
                .filter_map(|(net, at)| Some((net.to_string(), at.ip.as_ref()?.value)))
                .collect(),
            args: seat.args.iter().map(|(key, text)| (key.clone(), text.value.clone())).collect(),
        };
        for files in own {
            let Err(bad) = files.read.try_fill(&facts) else { continue };
            let line = bad.line.as_ref().map_or(0, |(_, line)| *line);
            if told.insert((bad.path.clone(), format!("{line} {}", bad.what))) {
                let problem = problem(&bad, &files.folder.origin);
                problems.push(problem.help(format!("so it is for seat {name}")));
            }
        }
    }
}

fn problem(bad: &Bad, from: &Origin) -> Problem {
    let Some((text, line)) = &bad.line else {
        return Problem::error("files", from, bad.to_string()).label("these files");
    };
    let shown = bad.path.display().to_string();
    let source = Source::new(bad.path.clone(), shown.clone(), text.clone(), u32::MAX);
    let place = source.origin(source.line_range(*line));
    let problem = Problem::error("files", &place, format!("{shown}: {}", bad.what));
    problem.label("in this line").also(from, "laid over its machines by this")
}
