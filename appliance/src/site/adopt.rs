//! A machine is taken into the site file: its line in `[machines]` and, if it is to have a place, its
//! line in `[matrix]`, by one edit of one file. Half a machine is never written.

use std::cell::Cell;
use std::net::Ipv4Addr;
use std::path::Path;

use koboshi_pxe::Mac;
use toml_edit::{Array, DocumentMut, InlineTable, Item, Value};

use super::Site;
use super::edit::{EditError, Edited, Lock, change, put, rows_of, table};
use super::load::gather;
use super::names::MachineName;
use super::written::Place;

/// What is to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Newcomer {
    /// Its name.
    pub name: MachineName,
    /// All its NICs, that of the boot first.
    pub macs: Vec<Mac>,
    /// Where its BMC answers.
    pub bmc: Option<Ipv4Addr>,
    /// Its place in the matrix, if it gets one.
    pub place: Option<Place>,
}

impl Newcomer {
    fn value(&self) -> Value {
        let mut line = InlineTable::new();
        let macs: Array = self.macs.iter().map(ToString::to_string).collect();
        line.insert("mac", macs.into());
        if let Some(bmc) = self.bmc {
            line.insert("bmc", bmc.to_string().into());
        }
        line.into()
    }

    /// The lines as they will stand in the file.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = vec![format!("[machines] {} = {}", self.name, self.value())];
        if let Some(place) = &self.place {
            lines.push(format!("[matrix] {} = {:?}", self.name, place.to_string()));
        }
        lines
    }
}

/// Writes it. With a place both lines go where the matrix is, else the one behind the last machine.
pub fn adopt(site: &Path, newcomer: &Newcomer) -> Result<Edited, EditError> {
    let _lock = Lock::take(site)?;
    let gathered = gather(site);
    if gathered.broken || gathered.problems.has_errors() {
        return Err(EditError::Site(gathered.problems.sorted()));
    }
    let machines = gathered.written.machines.values().map(|machine| &machine.origin);
    let rows = gathered.written.matrix.values().map(|row| &row.origin);
    let last = machines.max_by_key(|origin| origin.order()).map(|origin| origin.file());
    let matrix = rows.max_by_key(|origin| origin.order()).map(|origin| origin.file());
    let file = match &newcomer.place {
        Some(_) => matrix.or(last),
        None => last,
    };
    let file = file.unwrap_or(site).to_path_buf();
    let name = newcomer.name.as_str();
    let before = Cell::new(None);
    change(
        &file,
        |document| {
            before.set(rows_of(&document.to_string()));
            put(table(document, &["machines"], &file)?, name, newcomer.value());
            if let Some(place) = &newcomer.place {
                put(table(document, &["matrix"], &file)?, name, place.to_string().into());
            }
            Ok(None)
        },
        |text| {
            let document: DocumentMut =
                text.parse().map_err(|_| "the result could not be read back")?;
            let written = document.get("machines").and_then(Item::as_table_like);
            let written = written.and_then(|machines| machines.get(name));
            let macs = written.and_then(|line| line.get("mac")?.as_array().map(Array::len));
            let mut rows = before.take().unwrap_or_default();
            rows.extend(newcomer.place.as_ref().map(|to| (name.to_string(), to.to_string())));
            rows.sort();
            match macs == Some(newcomer.macs.len()) && Some(rows) == rows_of(text) {
                true => Ok(()),
                false => Err("other machines would be touched".to_string()),
            }
        },
    )
}

/// Writes into a machine's own line where its BMC is.
pub fn give_bmc(site: &Path, name: &MachineName, bmc: Ipv4Addr) -> Result<Edited, EditError> {
    let _lock = Lock::take(site)?;
    let gathered = gather(site);
    if gathered.broken || gathered.problems.has_errors() {
        return Err(EditError::Site(gathered.problems.sorted()));
    }
    let origin = gathered.written.machines.get(name).map(|machine| &machine.origin);
    let file = origin.map_or(site, |origin| origin.file()).to_path_buf();
    let key = origin.map(|origin| origin.text().trim().trim_matches(['"', '\'']).to_string());
    let key = key.unwrap_or_else(|| name.to_string());
    if key != name.as_str() {
        let why = "one address is not that of all of them".to_string();
        return Err(EditError::Shared { machine: name.clone(), key, file, why });
    }
    let bmc = bmc.to_string();
    change(
        &file,
        |document| {
            let machines = table(document, &["machines"], &file)?;
            if let Some(line) = machines.get_mut(&key).and_then(Item::as_inline_table_mut) {
                let was = put(line, "bmc", bmc.as_str().into());
                line.fmt();
                return Ok(was);
            }
            Ok(put(table(document, &["machines", &key], &file)?, "bmc", bmc.as_str().into()))
        },
        |text| {
            let document: DocumentMut =
                text.parse().map_err(|_| "the result could not be read back")?;
            let machines = document.get("machines").and_then(Item::as_table_like);
            let line = machines.and_then(|machines| machines.get(&key)?.as_table_like());
            let reads = line.and_then(|line| line.get("bmc")?.as_str());
            if reads == Some(bmc.as_str()) {
                Ok(())
            } else {
                Err("it does not read back".to_string())
            }
        },
    )
}

/// The next free name of the site's own pattern: `m01`, `m02` make `m03`, `rack1-node9` makes
/// `rack1-node10`. The machine written last says what the pattern is.
pub fn next_name(site: &Site) -> MachineName {
    let boots = site.machines.iter().filter(|(_, machine)| !machine.macs.is_empty());
    let last = boots.filter(|(name, _)| counted(name.as_str()).is_some());
    let last = last.max_by_key(|(name, machine)| (machine.origin.order(), name.as_str()));
    let letters_of = |name: &'_ str| counted(name).map(|(letters, _)| letters.to_string());
    let letters = last.and_then(|(name, _)| letters_of(name.as_str())).unwrap_or("m".to_string());
    let width = last.map_or(2, |(name, _)| name.as_str().len() - letters.len());
    let numbers = site.machines.keys().filter_map(|name| counted(name.as_str()));
    let numbers = numbers.filter(|(other, _)| *other == letters).map(|(_, number)| number);
    let from = numbers.max().unwrap_or(0) + 1;
    let free = |name: &MachineName| {
        !site.machines.contains_key(name)
            && !site.seats.contains_key(name.as_str())
            && !site.groups.contains_key(name.as_str())
    };
    let names = (from..from + 10_000).map(|number| format!("{letters}{number:0width$}"));
    // A name of 63 letters that ends in nines has no successor.
    let names = names.chain((1u64..).map(|number| format!("m{number:02}")));
    names
        .filter_map(|name| name.parse().ok())
        .find(free)
        .expect("a site has fewer machines than there are numbers")
}

/// `m01` → `m`, 1.
fn counted(name: &str) -> Option<(&str, u64)> {
    let letters = name.trim_end_matches(|c: char| c.is_ascii_digit());
    let number = name[letters.len()..].parse().ok()?;
    (number < 10_000_000).then_some((letters, number))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::site::tests::site as loaded;

    fn newcomer(place: Option<&str>) -> Newcomer {
        Newcomer {
            name: "m03".parse().unwrap(),
            macs: vec![Mac([0x52, 0x54, 0, 0x77, 0, 3]), Mac([0x52, 0x54, 0, 0x77, 1, 3])],
            bmc: Some(Ipv4Addr::new(10, 78, 0, 3)),
            place: place.map(|place| place.parse().unwrap()),
        }
    }

    const LINE: &str =
        r#"m03 = { mac = ["52:54:00:77:00:03", "52:54:00:77:01:03"], bmc = "10.78.0.3" }"#;

    fn adopted(text: &str, place: Option<&str>) -> String {
        let dir = tempfile::tempdir().unwrap();
        let site = dir.path().join("site.toml");
        fs::write(&site, text).unwrap();
        adopt(&site, &newcomer(place)).unwrap();
        fs::read_to_string(&site).unwrap()
    }

    #[test]
    fn two_lines_come_and_nothing_else_changes() {
        let text = "# house\n[machines] # hardware\nm01 = {} # old\n\n[seats]\n\n[matrix]\n# front\nm01 = \"web1\"\n";
        let both = text
            .replace("# old\n", &format!("# old\n{LINE}\n"))
            .replace("\"web1\"\n", "\"web1\"\nm03 = \"web3\"\n");
        assert_eq!(adopted(text, Some("web3")), both);
        assert_eq!(adopted(text, None), text.replace("# old\n", &format!("# old\n{LINE}\n")));
    }

    #[test]
    fn every_shape_of_a_file_takes_it() {
        for (text, want) in [
            ("", format!("[machines]\n{LINE}\n\n[matrix]\nm03 = \"spare\"\n")),
            (
                "[machines.m01]\nmac = \"52:54:00:77:00:01\"\n",
                format!(
                    "[machines]\n{LINE}\n\n[machines.m01]\nmac = \"52:54:00:77:00:01\"\n\n[matrix]\nm03 = \"spare\"\n"
                ),
            ),
            (
                "machines = { m01 = {} }\nmatrix = { m01 = \"spare\" }\n",
                format!(
                    "machines = {{ m01 = {{}}, {LINE} }}\nmatrix = {{ m01 = \"spare\", m03 = \"spare\" }}\n"
                ),
            ),
            (
                "[machines]\n\"m[01-02]\" = {}\n[matrix]\n\"m[01-02]\" = \"web{n}\"\n",
                format!(
                    "[machines]\n\"m[01-02]\" = {{}}\n{LINE}\n[matrix]\n\"m[01-02]\" = \"web{{n}}\"\nm03 = \"spare\"\n"
                ),
            ),
        ] {
            let now = adopted(text, Some("spare"));
            let tight = |text: &str| text.replace("\n\n", "\n").replace(" ,", ",");
            assert_eq!(tight(&now), tight(&want), "{text}");
        }
    }

    #[test]
    fn the_matrix_draws_the_machine_to_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let (site, rack) = (dir.path().join("site.toml"), dir.path().join("rack.toml"));
        let main = "[site]\ninclude = \"rack.toml\"\n[matrix]\nm01 = \"spare\"\n";
        fs::write(&site, main).unwrap();
        fs::write(&rack, "[machines]\nm01 = {}\n").unwrap();
        let edited = adopt(&site, &newcomer(Some("spare"))).unwrap();
        assert!(edited.file.ends_with("site.toml"));
        assert_eq!(fs::read_to_string(&rack).unwrap(), "[machines]\nm01 = {}\n");
        fs::write(&site, main).unwrap();
        let edited = adopt(&site, &newcomer(None)).unwrap();
        assert!(edited.file.ends_with("rack.toml"));
        assert_eq!(fs::read_to_string(&site).unwrap(), main);
        fs::write(&rack, "[machines\n").unwrap();
        assert!(matches!(adopt(&site, &newcomer(None)), Err(EditError::Site(_))));
    }

    #[test]
    fn a_machines_own_line_gets_its_bmc() {
        let given = |text: &str| {
            let dir = tempfile::tempdir().unwrap();
            let site = dir.path().join("site.toml");
            fs::write(&site, text).unwrap();
            give_bmc(&site, &"m03".parse().unwrap(), Ipv4Addr::new(10, 78, 0, 3))
                .map(|_| fs::read_to_string(&site).unwrap())
        };
        let mac = "mac = \"52:54:00:77:00:03\"";
        let bmc = "bmc = \"10.78.0.3\"";
        for (text, want) in [
            (
                format!("[machines]\nm03 = {{ {mac} }} # new\nm04 = {{}}\n"),
                format!("[machines]\nm03 = {{ {mac}, {bmc} }} # new\nm04 = {{}}\n"),
            ),
            (
                format!("[machines.m03]\n{mac}\n\n[machines.m04]\n"),
                format!("[machines.m03]\n{mac}\n{bmc}\n\n[machines.m04]\n"),
            ),
            (
                format!("[machines]\n\"m03\" = {{ {mac}, bmc = \"10.78.0.9\" }}\n"),
                format!("[machines]\n\"m03\" = {{ {mac}, {bmc} }}\n"),
            ),
        ] {
            assert_eq!(given(&text).unwrap(), want);
        }
        let shared = given("[machines]\n\"m[03-04]\" = {}\n").unwrap_err().to_string();
        assert!(shared.contains("m03 is part of the line \"m[03-04]\""), "{shared}");
    }

    #[test]
    fn names_go_on_as_the_site_counts() {
        let with = |machines: &str, rest: &str| {
            let site = loaded(&format!(
                "[net]\ninterface = \"eth1\"\n[machines]\n{machines}\n[roles.web]\nimage = \"web\"\n{rest}"
            ));
            next_name(&site).to_string()
        };
        let mac =
            |name: &str, last: u8| format!("{name} = {{ mac = \"52:54:00:77:00:{last:02x}\" }}\n");
        assert_eq!(with("", ""), "m01");
        assert_eq!(with(&(mac("m01", 1) + &mac("m09", 9)), ""), "m10");
        assert_eq!(with(&(mac("m01", 1) + &mac("rack2-node099", 2)), ""), "rack2-node100");
        assert_eq!(with(&(mac("alpha", 1) + "sw7 = { console = \"exec:x\" }\n"), ""), "m01");
        let seat = "[seats]\nm02 = { role = \"web\", ip = \"10.77.0.2\" }\n";
        assert_eq!(with(&mac("m01", 1), seat), "m03");
        assert_eq!(with(&mac("m18446744073709551615", 1), ""), "m01");
    }
}
