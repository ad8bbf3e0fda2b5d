//! What is wrong with a site file. Everything is said at once, each thing with its place, and twice
//! the same complaint about one place (a host-list key has forty machines) is one complaint.

use std::collections::HashMap;
use std::fmt;

use serde::ser::{SerializeSeq, SerializeStruct};
use serde::{Serialize, Serializer};

use super::load::Watched;
use super::origin::Origin;

/// More than this is counted, not kept.
const KEPT: usize = 1000;

/// Whether a problem refuses the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Refuses it.
    Error,
    /// Is said, and the file is used.
    Warning,
}

/// One thing that is wrong, and where.
#[derive(Debug, Clone)]
pub struct Problem {
    /// Error or warning.
    pub severity: Severity,
    /// The rule, as one word for programs: `duplicate-mac`.
    pub code: &'static str,
    /// What is wrong, naming the thing.
    pub message: String,
    /// Where.
    pub origin: Origin,
    /// What is said under the place itself.
    pub label: String,
    /// What to do about it.
    pub help: Option<String>,
    /// Further places: where the other of two is.
    pub related: Vec<(String, Origin)>,
    /// How often the same was said of the same place, beyond the first time.
    pub again: usize,
}

impl Problem {
    /// Something that refuses the file.
    pub fn error(code: &'static str, origin: &Origin, message: impl Into<String>) -> Problem {
        Problem {
            severity: Severity::Error,
            code,
            message: message.into(),
            origin: origin.clone(),
            label: "here".into(),
            help: None,
            related: Vec::new(),
            again: 0,
        }
    }

    /// Something that is only said.
    pub fn warning(code: &'static str, origin: &Origin, message: impl Into<String>) -> Problem {
        Problem { severity: Severity::Warning, ..Problem::error(code, origin, message) }
    }

    /// What to say under the place.
    pub fn label(mut self, label: impl Into<String>) -> Problem {
        self.label = label.into();
        self
    }

    /// What to do about it.
    pub fn help(mut self, help: impl Into<String>) -> Problem {
        self.help = Some(help.into());
        self
    }

    /// What to do about it, if there is something to say.
    pub fn maybe_help(mut self, help: Option<String>) -> Problem {
        self.help = help.or(self.help);
        self
    }

    /// Another place that belongs to it.
    pub fn also(mut self, origin: &Origin, text: impl Into<String>) -> Problem {
        self.related.push((text.into(), origin.clone()));
        self
    }

    /// The message, with how often it holds.
    pub fn whole_message(&self) -> String {
        match self.again {
            0 => self.message.clone(),
            n => format!("{} (and {n} more like it from this line)", self.message),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let warning = if self.severity == Severity::Warning { "warning: " } else { "" };
        let (origin, column) = (&self.origin, self.origin.column());
        write!(f, "{origin}:{column}: {warning}{}", self.whole_message())?;
        match &self.help {
            Some(help) => write!(f, " ({help})"),
            None => Ok(()),
        }
    }
}

impl Serialize for Problem {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Place<'a> {
            file: String,
            line: usize,
            column: usize,
            message: &'a str,
        }
        fn file(origin: &Origin) -> String {
            origin.file().display().to_string()
        }
        let related: Vec<Place> = self
            .related
            .iter()
            .map(|(message, origin)| Place {
                file: file(origin),
                line: origin.line(),
                column: origin.column(),
                message,
            })
            .collect();
        let mut out = serializer.serialize_struct("Problem", 9)?;
        out.serialize_field("severity", &self.severity)?;
        out.serialize_field("code", self.code)?;
        out.serialize_field("file", &file(&self.origin))?;
        out.serialize_field("line", &self.origin.line())?;
        out.serialize_field("column", &self.origin.column())?;
        out.serialize_field("message", &self.whole_message())?;
        out.serialize_field("label", &self.label)?;
        out.serialize_field("help", &self.help)?;
        out.serialize_field("related", &related)?;
        out.end()
    }
}

/// Everything that is wrong, in the order of the files.
#[derive(Default, Clone)]
pub struct Problems(Box<Kept>);

#[derive(Default, Clone)]
struct Kept {
    list: Vec<Problem>,
    seen: HashMap<(u32, u32, &'static str), usize>,
    errors: usize,
    dropped: usize,
    watched: Watched,
}

impl Problems {
    /// Adds one. The same rule broken at the same place is counted, not repeated.
    pub fn push(&mut self, problem: Problem) {
        if problem.severity == Severity::Error {
            self.0.errors += 1;
        }
        let (file, start, _) = problem.origin.order();
        if let Some(at) = self.0.seen.get(&(file, start, problem.code)) {
            self.0.list[*at].again += 1;
        } else if self.0.list.len() < KEPT {
            self.0.seen.insert((file, start, problem.code), self.0.list.len());
            self.0.list.push(problem);
        } else {
            self.0.dropped += 1;
        }
    }

    /// Any error among them?
    pub fn has_errors(&self) -> bool {
        self.0.errors > 0
    }

    /// Nothing at all?
    pub fn is_empty(&self) -> bool {
        self.0.list.is_empty()
    }

    /// How many are kept.
    pub fn len(&self) -> usize {
        self.0.list.len()
    }

    /// How many more there were than are kept.
    pub fn dropped(&self) -> usize {
        self.0.dropped
    }

    /// One after the other.
    pub fn iter(&self) -> std::slice::Iter<'_, Problem> {
        self.0.list.iter()
    }

    /// What to watch for a mended file.
    pub fn watched(&self) -> &Watched {
        &self.0.watched
    }

    pub(super) fn watch(&mut self, watched: Watched) {
        self.0.watched = watched;
    }

    /// In the order of the files.
    pub(super) fn sorted(mut self) -> Problems {
        self.0.list.sort_by_key(|problem| problem.origin.order());
        let keys = self.0.list.iter().enumerate().map(|(at, problem)| {
            let (file, start, _) = problem.origin.order();
            ((file, start, problem.code), at)
        });
        self.0.seen = keys.collect();
        self
    }
}

impl<'a> IntoIterator for &'a Problems {
    type Item = &'a Problem;
    type IntoIter = std::slice::Iter<'a, Problem>;
    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl From<Problem> for Problems {
    fn from(problem: Problem) -> Problems {
        let mut problems = Problems::default();
        problems.push(problem);
        problems
    }
}

/// One line each, as compilers write them.
impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, problem) in self.iter().enumerate() {
            write!(f, "{}{problem}", if at == 0 { "" } else { "\n" })?;
        }
        match self.0.dropped {
            0 => Ok(()),
            n => write!(f, "\nand {n} more"),
        }
    }
}

impl fmt::Debug for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Problems {}

impl Serialize for Problems {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut out = serializer.serialize_seq(Some(self.0.list.len()))?;
        self.0.list.iter().try_for_each(|problem| out.serialize_element(problem))?;
        out.end()
    }
}

/// The nearest of the names one might have meant.
pub(super) fn nearest<'a>(word: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let allowed = (word.chars().count() / 2).clamp(1, 3);
    let lower = word.to_lowercase();
    names
        .into_iter()
        .filter(|name| name.len().abs_diff(lower.len()) <= allowed)
        .map(|name| (strsim::damerau_levenshtein(&lower, &name.to_lowercase()), name))
        .filter(|(distance, _)| *distance <= allowed)
        .min()
        .map(|(_, name)| name)
}

/// `did you mean "web1"?`
pub fn did_you_mean<'a>(word: &str, names: impl IntoIterator<Item = &'a str>) -> Option<String> {
    nearest(word, names).map(|name| format!("did you mean {name:?}?"))
}
