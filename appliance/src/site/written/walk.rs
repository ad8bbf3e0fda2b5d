//! Walking a parsed file value by value: the right type, or a problem with its place, and on to the
//! next one, so that the operator sees everything that is wrong at once.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::Ipv4Addr;
use std::ops::{Range, RangeInclusive};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use crate::site::hostlist;
use crate::site::names::Malformed;
use crate::site::origin::{At, Origin, Source};
use crate::site::problem::{Problem, Problems, did_you_mean};
use crate::site::render::SECRET_KEYS;
use crate::site::template;

pub(super) type Value<'i> = Spanned<DeValue<'i>>;
pub(super) type Key<'i> = Spanned<DeString<'i>>;

/// Host-list keys of one site name at most this many things together.
const MOST_NAMES: usize = 4 * hostlist::MOST;

pub(super) struct Walk<'a> {
    pub source: &'a Arc<Source>,
    pub problems: &'a mut Problems,
    /// What `{n}` stands for, below a host-list key.
    pub numbers: Option<Vec<String>>,
    /// How many names host-list keys have made so far.
    pub named: &'a mut usize,
}

impl Walk<'_> {
    pub fn at(&self, span: Range<usize>) -> Origin {
        self.source.origin(span)
    }

    pub fn error(&mut self, problem: Problem) {
        self.problems.push(problem);
    }

    fn wrong_type(&mut self, what: &str, wanted: &str, value: &Value) {
        let found = value.get_ref().type_str();
        let article = |word: &str| if word.starts_with(['a', 'i', 'o', 'e']) { "an" } else { "a" };
        let wanted_article = if wanted.starts_with("true") { "" } else { article(wanted) };
        let wanted = format!("{wanted_article} {wanted}");
        let problem = Problem::error(
            "type",
            &self.at(value.span()),
            format!("{what} must be {}, not {} {found}", wanted.trim(), article(found)),
        );
        self.error(problem.label(format!("{} {found}", article(found))));
    }

    /// A table's entries.
    pub fn table<'t, 'i>(&mut self, what: &str, value: &'t Value<'i>) -> Option<&'t DeTable<'i>> {
        let table = value.get_ref().as_table();
        if table.is_none() {
            self.wrong_type(what, "table", value);
        }
        table
    }

    /// Text as written, with the numbers of a host-list key put in.
    pub fn text(&mut self, what: &str, value: &Value) -> Option<At<String>> {
        self.filled(what, value, false)
    }

    fn filled(&mut self, what: &str, value: &Value, plain: bool) -> Option<At<String>> {
        let Some(text) = value.get_ref().as_str() else {
            self.wrong_type(what, "string", value);
            return None;
        };
        let origin = self.at(value.span());
        if text.contains('\0') {
            let problem = Problem::error("nul", &origin, format!("{what} holds a NUL character"));
            self.error(problem.label("no program could be given this"));
            return None;
        }
        let Some(numbers) = &self.numbers else {
            return Some(At::new(text.to_string(), origin));
        };
        match template::fill(text, numbers, plain) {
            Ok(text) => Some(At::new(text, origin)),
            Err(why) => {
                let problem = Problem::error("template", &origin, format!("{what}: {why}"));
                self.error(problem.help(
                    "under a key like m[03-40], {n} is the number, {n+10} counts on, {n:02x} is hexadecimal",
                ));
                None
            }
        }
    }

    /// Text that means something.
    pub fn parsed<T>(&mut self, what: &str, value: &Value) -> Option<At<T>>
    where
        T: FromStr<Err = Malformed>,
    {
        let text = self.text(what, value)?;
        self.meaning(what, text, T::from_str)
    }

    /// Text, turned into what it means by a function.
    pub fn meaning<T>(
        &mut self,
        what: &str,
        text: At<String>,
        read: impl FnOnce(&str) -> Result<T, Malformed>,
    ) -> Option<At<T>> {
        match read(&text.value) {
            Ok(value) => Some(At::new(value, text.origin)),
            Err(bad) => {
                let problem = Problem::error("value", &text.origin, bad.message);
                self.error(problem.label(format!("this is no {what}")).maybe_help(bad.help));
                None
            }
        }
    }

    /// An IPv4 address. `{n}` goes in without leading zeros, which no address has.
    pub fn address(&mut self, what: &str, value: &Value) -> Option<At<Ipv4Addr>> {
        let text = self.filled(what, value, true)?;
        self.meaning("address", text, |text| {
            text.parse().map_err(|_| {
                Malformed::new(format!(
                    "{} is not an IPv4 address",
                    crate::site::values::shown(text)
                ))
                .help(format!("{what} is written like 10.77.0.11"))
            })
        })
    }

    /// A host: an IPv4 address or a name.
    pub fn host(&mut self, what: &str, value: &Value) -> Option<At<String>> {
        let plain = self.filled(what, value, true)?;
        let text = match plain.parse::<Ipv4Addr>() {
            Ok(_) => plain,
            Err(_) => self.filled(what, value, false)?,
        };
        self.meaning("host", text, |text| {
            let fits = |c: char| c.is_ascii_alphanumeric() || ".:-_%".contains(c);
            if text.is_empty() || text.len() > 253 || !text.chars().all(fits) {
                let shown = crate::site::values::shown(text);
                return Err(Malformed::new(format!(
                    "{shown} is neither an address nor a host name"
                )));
            }
            Ok(text.to_string())
        })
    }

    /// One of a few words.
    pub fn word<T: Copy>(
        &mut self,
        what: &str,
        value: &Value,
        words: &[(&str, T)],
    ) -> Option<At<T>> {
        let text = self.text(what, value)?;
        if let Some((_, meaning)) = words.iter().find(|(word, _)| *word == text.value) {
            return Some(At::new(*meaning, text.origin));
        }
        let all: Vec<String> = words.iter().map(|(word, _)| format!("{word:?}")).collect();
        let problem = Problem::error(
            "value",
            &text.origin,
            format!("{what} cannot be {}", crate::site::values::shown(&text.value)),
        )
        .label(format!("one of {}", all.join(", ")))
        .maybe_help(did_you_mean(&text.value, words.iter().map(|(word, _)| *word)));
        self.error(problem);
        None
    }

    pub fn boolean(&mut self, what: &str, value: &Value) -> Option<At<bool>> {
        let boolean = value.get_ref().as_bool();
        if boolean.is_none() {
            self.wrong_type(what, "true or false", value);
        }
        boolean.map(|boolean| At::new(boolean, self.at(value.span())))
    }

    /// A whole number within bounds.
    pub fn number<T>(
        &mut self,
        what: &str,
        value: &Value,
        bounds: RangeInclusive<i64>,
    ) -> Option<At<T>>
    where
        T: TryFrom<i64>,
    {
        let Some(integer) = value.get_ref().as_integer() else {
            self.wrong_type(what, "whole number", value);
            return None;
        };
        let number = i64::from_str_radix(integer.as_str(), integer.radix()).ok();
        let fitting = number.filter(|number| bounds.contains(number));
        match fitting.and_then(|number| T::try_from(number).ok()) {
            Some(number) => Some(At::new(number, self.at(value.span()))),
            None => {
                let (low, high) = (bounds.start(), bounds.end());
                let message = format!("{what} must be from {low} to {high}, not {integer}");
                let problem = Problem::error("range", &self.at(value.span()), message);
                self.error(problem.label("out of range"));
                None
            }
        }
    }

    /// A list, each element read by `one`.
    pub fn list<T>(
        &mut self,
        what: &str,
        value: &Value,
        mut one: impl FnMut(&mut Self, &str, &Value) -> Option<T>,
    ) -> Vec<T> {
        let Some(array) = value.get_ref().as_array() else {
            self.wrong_type(what, "array", value);
            return Vec::new();
        };
        array.iter().filter_map(|value| one(self, what, value)).collect()
    }

    /// A list, or one element without the brackets.
    pub fn one_or_many<T>(
        &mut self,
        what: &str,
        value: &Value,
        mut one: impl FnMut(&mut Self, &str, &Value) -> Option<T>,
    ) -> Vec<T> {
        match value.get_ref().is_array() {
            true => self.list(what, value, one),
            false => one(self, what, value).into_iter().collect(),
        }
    }

    /// A path; a relative one is relative to the folder of the file that says it.
    pub fn path(&mut self, what: &str, value: &Value) -> Option<At<PathBuf>> {
        let text = self.text(what, value)?;
        if text.is_empty() {
            let problem = Problem::error("value", &text.origin, format!("{what} is empty"));
            self.error(problem.label("a path goes here"));
            return None;
        }
        let folder = self.source.path().parent().unwrap_or(std::path::Path::new(""));
        Some(At::new(folder.join(&text.value), text.origin))
    }

    /// A key that means nothing here.
    pub fn unknown(&mut self, place: &str, key: &Key, known: &[&str]) {
        let name: &str = key.get_ref();
        let origin = self.at(key.span());
        let lower = name.to_lowercase();
        if SECRET_KEYS.contains(&lower.as_str()) {
            let file = if lower == "kg" { "kg-file" } else { "password-file" };
            let problem = Problem::error(
                "secret",
                &origin,
                format!("{place} must not hold a secret: the site file is read by many"),
            )
            .label("no secrets here")
            .help(format!(
                "put it into a file of mode 0600 and write {file} = \"FILE\" (or password-env = \"NAME\")"
            ));
            return self.error(problem);
        }
        let shown: String = name.chars().take(60).collect();
        let help = did_you_mean(name, known.iter().copied()).unwrap_or_else(|| {
            let mut sorted = known.to_vec();
            sorted.sort_unstable();
            format!("{place} knows {}", sorted.join(", "))
        });
        let problem =
            Problem::error("unknown-key", &origin, format!("{place} has no key {shown:?}"));
        self.error(problem.label("unknown key").help(help));
    }

    /// Puts a value where none may be yet. In one file TOML itself sees to that, over several we do.
    pub fn once<T>(&mut self, slot: &mut Option<At<T>>, what: &str, value: Option<At<T>>) {
        let Some(value) = value else { return };
        match slot {
            None => *slot = Some(value),
            Some(there) => {
                let (first, again) = in_order(&there.origin, &value.origin);
                let problem =
                    Problem::error("written-twice", again, format!("{what} is set twice"))
                        .label("set again here")
                        .also(first, "first set here");
                self.error(problem);
            }
        }
    }

    /// Puts a thing into a table, unless one of that name is there.
    pub fn insert<K: Ord + Display, V>(
        &mut self,
        map: &mut BTreeMap<K, At<V>>,
        kind: &str,
        name: K,
        value: At<V>,
    ) {
        match map.get(&name) {
            None => {
                map.insert(name, value);
            }
            Some(there) => {
                let (first, again) = in_order(&there.origin, &value.origin);
                let message = format!("{kind} {name} is written twice");
                let problem = Problem::error("written-twice", again, message)
                    .label(format!("{name} again"))
                    .also(first, format!("{name} is first written here"));
                self.error(problem);
            }
        }
    }

    /// Every name a key stands for, with `{n}` set while `each` runs.
    pub fn names<K>(&mut self, kind: &str, key: &Key, mut each: impl FnMut(&mut Self, K))
    where
        K: FromStr<Err = Malformed>,
    {
        let text: &str = key.get_ref();
        let origin = self.at(key.span());
        if !hostlist::is_list(text) {
            let name = At::new(text.to_string(), origin);
            if let Some(name) = self.meaning(kind, name, K::from_str) {
                each(self, name.value);
            }
            return;
        }
        let hosts = match hostlist::expand(text) {
            Ok(hosts) => hosts,
            Err(bad) => {
                let problem = Problem::error("host-list", &origin, bad.to_string());
                return self.error(problem.label("this host list").help("like m[01-40],m[51-60]"));
            }
        };
        *self.named += hosts.len();
        if *self.named > MOST_NAMES {
            let problem = Problem::error(
                "host-list",
                &origin,
                format!("the host lists of this site name more than {MOST_NAMES} things"),
            );
            return self.error(problem.label("this one is too many"));
        }
        for host in hosts {
            self.numbers = Some(host.numbers);
            let name = At::new(host.name, origin.clone());
            if let Some(name) = self.meaning(kind, name, K::from_str) {
                each(self, name.value);
            }
        }
        self.numbers = None;
    }
}

/// Tables are walked in the order of their keys, not of their lines.
fn in_order<'o>(one: &'o Origin, other: &'o Origin) -> (&'o Origin, &'o Origin) {
    if one.order() <= other.order() { (one, other) } else { (other, one) }
}
