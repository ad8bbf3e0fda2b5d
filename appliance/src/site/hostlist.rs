//! Host lists as clush and FreeIPMI write them: `m[01-40],sw1`. They stand as keys in the site file
//! and as WHO on the command line, where `@group` and `!` (but not) come in too.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// One list names at most this many hosts.
pub const MOST: usize = 65_536;
/// Of one part, outside its brackets. A name has 63 letters; the error for one that has more comes
/// with the name.
const LONGEST: usize = 255;
const BRACKETS: usize = 9;

/// One name of a list, and the numbers that made it, as written: `m03` by `["03"]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// The name.
    pub name: String,
    /// What stood for each bracket, in order.
    pub numbers: Vec<String>,
}

/// What a host list cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadHostList {
    /// Nothing between two commas.
    #[error("the host list {0:?} has an empty part")]
    Empty(String),
    /// A bracket that is not closed, or closed without being open.
    #[error("the host list {0:?} has a bracket too few or too many")]
    Bracket(String),
    /// Not `3`, `3-7` or `0-10/2`.
    #[error("{0:?} is not a range of numbers (like 01-40)")]
    Range(String),
    /// From more to less.
    #[error("the range {0:?} runs backwards")]
    Backwards(String),
    /// More than anybody has.
    #[error("the host list names more than {MOST} hosts")]
    TooMany,
    /// Longer than any name with its ranges.
    #[error("{0:?}… is too long for a name with its ranges")]
    TooLong(String),
    /// `@group` or `!` where only names may stand.
    #[error("{0:?} cannot stand here: only names and ranges like m[01-40]")]
    OnlyNames(String),
}

/// A part of WHO.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Term {
    /// Names, expanded.
    Names(Vec<String>),
    /// `@group`, without the `@`.
    Group(String),
}

/// WHO: parts that are added, or with `!` taken away again, from left to right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostList(pub Vec<(Sign, Term)>);

/// Whether a part adds or takes away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sign {
    /// After a comma, or first.
    And,
    /// After `!`.
    Not,
}

/// The names a list stands for, in its order, doubles included.
pub fn expand(text: &str) -> Result<Vec<Host>, BadHostList> {
    let mut hosts = Vec::new();
    for (sign, part) in parts(text)? {
        if sign == Sign::Not || part.starts_with('@') {
            return Err(BadHostList::OnlyNames(part.to_string()));
        }
        expand_part(part, &mut hosts)?;
    }
    Ok(hosts)
}

/// Could this be a list, rather than one name?
pub fn is_list(text: &str) -> bool {
    text.contains(['[', ']', ','])
}

impl std::str::FromStr for HostList {
    type Err = BadHostList;

    fn from_str(text: &str) -> Result<HostList, BadHostList> {
        let mut terms = Vec::new();
        let mut total = 0;
        for (sign, part) in parts(text)? {
            let term = match part.strip_prefix('@') {
                Some("") => return Err(BadHostList::Empty(text.to_string())),
                Some(group) => Term::Group(group.to_string()),
                None => {
                    let mut hosts = Vec::new();
                    expand_part(part, &mut hosts)?;
                    total += hosts.len();
                    if total > MOST {
                        return Err(BadHostList::TooMany);
                    }
                    Term::Names(hosts.into_iter().map(|host| host.name).collect())
                }
            };
            terms.push((sign, term));
        }
        Ok(HostList(terms))
    }
}

impl HostList {
    /// The names, once `group` says who is in a group.
    pub fn resolve<E>(
        &self,
        mut group: impl FnMut(&str) -> Result<Vec<String>, E>,
    ) -> Result<Vec<String>, E> {
        let mut out: Vec<String> = Vec::new();
        let mut has = BTreeSet::new();
        for (sign, term) in &self.0 {
            let names = match term {
                Term::Names(names) => names.clone(),
                Term::Group(name) => group(name)?,
            };
            match sign {
                Sign::And => out.extend(names.into_iter().filter(|name| has.insert(name.clone()))),
                Sign::Not => {
                    let gone: BTreeSet<String> = names.into_iter().collect();
                    out.retain(|name| !gone.contains(name));
                    has.retain(|name| !gone.contains(name));
                }
            }
        }
        Ok(out)
    }
}

/// Splits at commas and `!` that are not within brackets.
fn parts(text: &str) -> Result<Vec<(Sign, &str)>, BadHostList> {
    let mut out = Vec::new();
    let mut open = false;
    let mut start = 0;
    let mut sign = Sign::And;
    let mut take = |sign, part: &'_ str, from: usize, to: usize| -> Result<(), BadHostList> {
        let trimmed = part[from..to].trim();
        if trimmed.is_empty() {
            // `!m03` alone takes away from nothing, which nobody means; `a,!b` and `a!b` are the same.
            return Err(BadHostList::Empty(part.chars().take(80).collect()));
        }
        out.push((
            sign,
            from + (part[from..to].len() - part[from..to].trim_start().len()),
            trimmed.len(),
        ));
        Ok(())
    };
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'[' if open => return Err(BadHostList::Bracket(clip(text))),
            b'[' => open = true,
            b']' if !open => return Err(BadHostList::Bracket(clip(text))),
            b']' => open = false,
            b',' | b'!' if !open => {
                let after_comma = byte == b'!' && text[start..at].trim().is_empty() && start > 0;
                if !(after_comma && sign == Sign::And) {
                    take(sign, text, start, at)?;
                }
                sign = if byte == b'!' { Sign::Not } else { Sign::And };
                start = at + 1;
            }
            _ => {}
        }
    }
    if open {
        return Err(BadHostList::Bracket(clip(text)));
    }
    take(sign, text, start, text.len())?;
    Ok(out.into_iter().map(|(sign, from, len)| (sign, &text[from..from + len])).collect())
}

fn clip(text: &str) -> String {
    text.chars().take(80).collect()
}

/// `r[1-2]m[01-20]`: every bracket with every other, the last one fastest.
fn expand_part(part: &str, out: &mut Vec<Host>) -> Result<(), BadHostList> {
    // Before anything is multiplied: no name is so long, and templates count nine brackets.
    let within: usize = part.split('[').skip(1).filter_map(|rest| rest.find(']')).sum();
    if part.len() - within > LONGEST || part.matches('[').count() > BRACKETS {
        return Err(BadHostList::TooLong(clip(part)));
    }
    let mut hosts = vec![Host { name: String::new(), numbers: Vec::new() }];
    let mut rest = part;
    while let Some(open) = rest.find('[') {
        let close = rest.find(']').ok_or_else(|| BadHostList::Bracket(clip(part)))?;
        let numbers = numbers(&rest[open + 1..close])?;
        if hosts.len().saturating_mul(numbers.len()).saturating_add(out.len()) > MOST {
            return Err(BadHostList::TooMany);
        }
        let mut next = Vec::with_capacity(hosts.len() * numbers.len());
        for host in &hosts {
            for number in &numbers {
                let mut made = host.clone();
                made.name.push_str(&rest[..open]);
                made.name.push_str(number);
                made.numbers.push(number.clone());
                next.push(made);
            }
        }
        hosts = next;
        rest = &rest[close + 1..];
    }
    hosts.iter_mut().for_each(|host| host.name.push_str(rest));
    if hosts.len() + out.len() > MOST {
        return Err(BadHostList::TooMany);
    }
    out.append(&mut hosts);
    Ok(())
}

/// `1-3,7`, `01-40`, `0-10/2`: numbers, padded like the first of each range.
fn numbers(text: &str) -> Result<Vec<String>, BadHostList> {
    let mut out = Vec::new();
    for range in text.split(',') {
        let range = range.trim();
        let bad = || BadHostList::Range(clip(range));
        let (span, step) = match range.split_once('/') {
            Some((span, step)) => (span, number(step).filter(|step| *step > 0).ok_or_else(bad)?),
            None => (range, 1),
        };
        let (first, last) = span.split_once('-').unwrap_or((span, span));
        let (from, to) = (number(first).ok_or_else(bad)?, number(last).ok_or_else(bad)?);
        if from > to {
            return Err(BadHostList::Backwards(clip(range)));
        }
        let width = if first.starts_with('0') { first.len() } else { 0 };
        if (to - from) / step >= MOST as u64 || out.len() >= MOST {
            return Err(BadHostList::TooMany);
        }
        let mut at = from;
        while at <= to {
            out.push(format!("{at:0width$}"));
            at += step;
        }
    }
    Ok(out)
}

fn number(text: &str) -> Option<u64> {
    let fits = !text.is_empty() && text.len() <= 18 && text.bytes().all(|b| b.is_ascii_digit());
    fits.then(|| text.parse().ok()).flatten()
}

/// Folds names back into a list, for people: `m[01-40],sw1`. Expanding it gives the same names.
pub fn fold<S: AsRef<str>>(names: impl IntoIterator<Item = S>) -> String {
    // Names that share all but their last number, and how that number is padded.
    let mut groups: BTreeMap<(String, String), BTreeSet<(usize, u64)>> = BTreeMap::new();
    for name in names {
        let name = name.as_ref();
        match last_number(name) {
            Some((start, end)) if number(&name[start..end]).is_some() => {
                let digits = &name[start..end];
                let width =
                    if digits.len() > 1 && digits.starts_with('0') { digits.len() } else { 0 };
                let key = (name[..start].to_string(), name[end..].to_string());
                let number = number(digits).expect("was a number a line above");
                groups.entry(key).or_default().insert((width, number));
            }
            _ => {
                groups.entry((name.to_string(), "\u{0}".into())).or_default();
            }
        }
    }
    let folded = groups.into_iter().map(|((prefix, suffix), numbers)| {
        if numbers.is_empty() {
            return prefix;
        }
        Folded { prefix: &prefix, suffix: &suffix, ranges: ranges(numbers) }.to_string()
    });
    folded.collect::<Vec<_>>().join(",")
}

/// Runs of numbers with one padding: `m08, m09, m10` is one run although `10` shows no zero.
fn ranges(numbers: BTreeSet<(usize, u64)>) -> Vec<(usize, u64, u64)> {
    let widths: BTreeSet<usize> = numbers.iter().map(|(width, _)| *width).collect();
    let digits = |number: u64| number.to_string().len();
    let mut all: Vec<(usize, u64)> = numbers
        .into_iter()
        .map(|(width, n)| match width {
            0 if widths.contains(&digits(n)) => (digits(n), n),
            width => (width, n),
        })
        .collect();
    all.sort_unstable();
    let mut out: Vec<(usize, u64, u64)> = Vec::new();
    for (width, number) in all {
        match out.last_mut() {
            Some((w, _, last)) if *w == width && *last + 1 == number => *last = number,
            _ => out.push((width, number, number)),
        }
    }
    out
}

struct Folded<'a> {
    prefix: &'a str,
    suffix: &'a str,
    ranges: Vec<(usize, u64, u64)>,
}

impl fmt::Display for Folded<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let one = matches!(self.ranges[..], [(_, first, last)] if first == last);
        write!(f, "{}{}", self.prefix, if one { "" } else { "[" })?;
        for (at, (width, first, last)) in self.ranges.iter().enumerate() {
            write!(f, "{}{first:0width$}", if at == 0 { "" } else { "," })?;
            if last > first {
                write!(f, "-{last:0width$}")?;
            }
        }
        write!(f, "{}{}", if one { "" } else { "]" }, self.suffix)
    }
}

fn last_number(name: &str) -> Option<(usize, usize)> {
    let bytes = name.as_bytes();
    let end = bytes.iter().rposition(u8::is_ascii_digit)? + 1;
    let start = bytes[..end].iter().rposition(|b| !b.is_ascii_digit()).map_or(0, |at| at + 1);
    Some((start, end))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn names(text: &str) -> Vec<String> {
        expand(text).unwrap().into_iter().map(|host| host.name).collect()
    }

    #[test]
    fn lists_expand_as_clush_expands_them() {
        for (text, want) in [
            ("m01", "m01"),
            ("m[03-05]", "m03 m04 m05"),
            ("m[1-3,7]-a", "m1-a m2-a m3-a m7-a"),
            ("m[08-11],sw1", "m08 m09 m10 m11 sw1"),
            ("r[1-2]m[01-02]", "r1m01 r1m02 r2m01 r2m02"),
            ("m[0-10/5], x", "m0 m5 m10 x"),
            ("m[098-101]", "m098 m099 m100 m101"),
            ("m[0]", "m0"),
        ] {
            assert_eq!(names(text).join(" "), want, "{text}");
        }
        assert_eq!(expand("r[1-2]m[07]").unwrap()[1].numbers, ["2", "07"]);
    }

    #[test]
    fn what_is_no_list_is_refused_by_name() {
        for (text, why) in [
            ("", BadHostList::Empty("".into())),
            // Found by fuzzing: gigabytes of names, and brackets without end.
            (&"a".repeat(300), BadHostList::TooLong("a".repeat(80))),
            (&"m[0]".repeat(10), BadHostList::TooLong("m[0]".repeat(10))),
            ("a,,b", BadHostList::Empty("a,,b".into())),
            ("a,", BadHostList::Empty("a,".into())),
            ("m[1-3", BadHostList::Bracket("m[1-3".into())),
            ("m1]", BadHostList::Bracket("m1]".into())),
            ("m[[1]]", BadHostList::Bracket("m[[1]]".into())),
            ("m[]", BadHostList::Range("".into())),
            ("m[a-b]", BadHostList::Range("a-b".into())),
            ("m[1-]", BadHostList::Range("1-".into())),
            ("m[1-2/0]", BadHostList::Range("1-2/0".into())),
            ("m[5-1]", BadHostList::Backwards("5-1".into())),
            ("m[0-65536]", BadHostList::TooMany),
            ("m[1-999999999999999999]", BadHostList::TooMany),
            ("m[1-9999999999999999999]", BadHostList::Range("1-9999999999999999999".into())),
            ("r[1-300]m[1-300]", BadHostList::TooMany),
            ("m[1-60000],n[1-60000]", BadHostList::TooMany),
            ("m1,@g", BadHostList::OnlyNames("@g".into())),
            ("m[1-3]!m2", BadHostList::OnlyNames("m2".into())),
        ] {
            assert_eq!(expand(text), Err(why), "{text}");
        }
        assert_eq!(expand("m[0-65535]").unwrap().len(), MOST);
    }

    #[test]
    fn who_adds_and_takes_away_from_left_to_right() {
        let group = |name: &str| match name {
            "rack1" => Ok(vec!["m01".to_string(), "sw1".to_string()]),
            other => Err(other.to_string()),
        };
        for (text, want) in [
            ("m[01-03]!m02", "m01 m03"),
            ("m[01-03],!m02", "m01 m03"),
            ("@rack1,m02", "m01 sw1 m02"),
            ("m[01-03]!@rack1,sw1", "m02 m03 sw1"),
            ("m[01-02]!m[01-02],m01", "m01"),
            ("m01,m01", "m01"),
        ] {
            let list: HostList = text.parse().unwrap();
            assert_eq!(list.resolve(group).unwrap().join(" "), want, "{text}");
        }
        assert_eq!("@none".parse::<HostList>().unwrap().resolve(group), Err("none".into()));
        for text in ["@", "!m01", "a!", "a!!b"] {
            assert!(text.parse::<HostList>().is_err(), "{text}");
        }
    }

    #[test]
    fn names_fold_back_for_people() {
        for (names, want) in [
            ("m01 m02 m03 sw1", "m[01-03],sw1"),
            ("m08 m09 m10 m12", "m[08-10,12]"),
            ("m8 m9 m10", "m[8-10]"),
            ("web", "web"),
            ("m1-a m2-a m7-a", "m[1-2,7]-a"),
            ("m1 m01 m001", "m[1,01,001]"),
            ("r1m01 r1m02 r2m01", "r1m[01-02],r2m01"),
            ("", ""),
        ] {
            assert_eq!(fold(names.split_whitespace()), want, "{names}");
        }
    }

    proptest! {
        #[test]
        fn folding_loses_nothing(names in proptest::collection::btree_set("[a-c]{1,2}[0-9]{0,3}(-[ab])?", 1..40)) {
            let folded = fold(&names);
            let back: BTreeSet<String> = expand(&folded).unwrap().into_iter().map(|h| h.name).collect();
            prop_assert_eq!(back, names, "{}", folded);
        }

        #[test]
        fn any_text_is_a_list_or_an_error(text in "[\\[\\]0-9a,\\-/!@ é]{0,40}") {
            let _ = expand(&text);
            let _ = text.parse::<HostList>();
        }
    }
}
