//! How problems look: on a terminal with colours, elsewhere in plain ASCII, for programs as JSON.
//! A line of a site file is somebody's text and may hold a secret that does not belong there: control
//! characters and keys are not repeated on the operator's screen.

use std::fmt;
use std::io::IsTerminal;
use std::ops::Range;

use miette::{
    Diagnostic, GraphicalReportHandler, GraphicalTheme, LabeledSpan, MietteError,
    MietteSpanContents, SourceCode, SourceSpan, SpanContents,
};

use super::origin::Origin;
use super::problem::{Problem, Problems, Severity};

/// More than this would scroll the first one away.
const SHOWN: usize = 60;
/// Bytes of a long line shown on either side of the place.
const AROUND: usize = 160;

/// How to draw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// Colours and line drawing, for a terminal this wide.
    Fancy(usize),
    /// ASCII without colours, 100 wide: for logs, pipes and tests.
    Plain,
}

impl Look {
    /// What standard error can show.
    pub fn for_stderr() -> Look {
        let dumb = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
            || std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        if !std::io::stderr().is_terminal() || dumb {
            return Look::Plain;
        }
        let size = rustix::termios::tcgetwinsize(std::io::stderr());
        Look::Fancy(size.map_or(100, |size| usize::from(size.ws_col).clamp(60, 160)))
    }
}

impl Problems {
    /// All of them with the lines they are about, and a count at the end.
    pub fn render(&self, look: Look) -> String {
        let mut out = String::new();
        for problem in self.iter().take(SHOWN) {
            out.push_str(&problem.render(look));
            out.push('\n');
        }
        let hidden = self.len().saturating_sub(SHOWN) + self.dropped();
        if hidden > 0 {
            out.push_str(&format!("… and {hidden} more\n"));
        }
        let count = |severity| self.iter().filter(|p| p.severity == severity).count();
        let plural = |n, word| format!("{n} {word}{}", if n == 1 { "" } else { "s" });
        match (count(Severity::Error), count(Severity::Warning)) {
            (0, 0) => {}
            (0, n) => out.push_str(&format!("{}\n", plural(n, "warning"))),
            (n, 0) => out.push_str(&format!("{}\n", plural(n, "error"))),
            (n, m) => out.push_str(&format!("{}, {}\n", plural(n, "error"), plural(m, "warning"))),
        }
        out
    }
}

impl Problem {
    /// This one with its lines.
    pub fn render(&self, look: Look) -> String {
        let handler = match look {
            Look::Plain => GraphicalReportHandler::new_themed(GraphicalTheme::none())
                .with_width(100)
                .without_syntax_highlighting(),
            Look::Fancy(width) => GraphicalReportHandler::new_themed(GraphicalTheme::unicode())
                .with_width(width)
                .without_syntax_highlighting(),
        };
        let mut shown = Shown {
            severity: match self.severity {
                Severity::Error => miette::Severity::Error,
                Severity::Warning => miette::Severity::Warning,
            },
            message: clean(&self.whole_message()),
            help: self.help.as_deref().map(clean),
            snippet: Snippet::cut(&self.origin, clean(&self.label)),
            related: Vec::new(),
        };
        if shown.snippet.is_none() {
            shown.message = format!("{}: {}", clean(self.origin.shown()), shown.message);
        }
        for (text, origin) in &self.related {
            shown.related.push(Shown {
                severity: miette::Severity::Advice,
                message: clean(text),
                help: None,
                snippet: Snippet::cut(origin, "here".into()),
                related: Vec::new(),
            });
        }
        let mut out = String::new();
        if handler.render_report(&mut out, &shown).is_err() {
            return self.to_string();
        }
        let lines: Vec<&str> = out.lines().map(str::trim_end).collect();
        format!("{}\n", lines.join("\n").trim_end())
    }
}

/// No control characters: what a file says must not move the operator's cursor.
fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' { '\u{fffd}' } else { c }).collect()
}

#[derive(Debug)]
struct Shown {
    severity: miette::Severity,
    message: String,
    help: Option<String>,
    snippet: Option<Snippet>,
    related: Vec<Shown>,
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Shown {}

impl Diagnostic for Shown {
    fn severity(&self) -> Option<miette::Severity> {
        Some(self.severity)
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.help.as_ref().map(|help| Box::new(help) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.snippet.as_ref().map(|snippet| snippet as &dyn SourceCode)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let snippet = self.snippet.as_ref()?;
        let label = Some(snippet.label.clone());
        Some(Box::new(std::iter::once(LabeledSpan::new_with_span(label, snippet.mark))))
    }

    fn related<'a>(&'a self) -> Option<Box<dyn Iterator<Item = &'a dyn Diagnostic> + 'a>> {
        if self.related.is_empty() {
            return None;
        }
        Some(Box::new(self.related.iter().map(|shown| shown as &dyn Diagnostic)))
    }
}

/// The line, the one before and the one after, made fit to be shown.
#[derive(Debug)]
struct Snippet {
    text: String,
    mark: SourceSpan,
    label: String,
    first_line: usize,
    lines: usize,
    name: String,
    /// 0-based line and column of the place itself, for the heading.
    place: (usize, usize),
}

impl Snippet {
    fn cut(origin: &Origin, label: String) -> Option<Snippet> {
        let source = origin.source();
        if source.text().is_empty() {
            return None;
        }
        let line = origin.line();
        let first = line.saturating_sub(1).max(1);
        let last = (line + 1).min(source.line_count());
        let mut text = String::new();
        let mut mark = (0, 0);
        for number in first..=last {
            let range = source.line_range(number);
            let whole = &source.text()[range.clone()];
            let open = match within_key(&source.text()[..range.start]) {
                true => 0,
                false => secret_from(whole).unwrap_or(whole.len()),
            };
            if number == line {
                let from = origin.span().start.clamp(range.start, range.end) - range.start;
                let to = origin.span().end.clamp(range.start + from, range.end) - range.start;
                mark = marked_line(&mut text, whole, from..to, open);
            } else {
                let shown = clip(&whole[..open], 2 * AROUND);
                text.push_str(&tidy(shown));
                text.push_str(if open < whole.len() { HIDDEN } else { "" });
            }
            text.push('\n');
        }
        Some(Snippet {
            lines: last - first + 1,
            text,
            mark: SourceSpan::new(mark.0.into(), mark.1),
            label,
            first_line: first - 1,
            name: clean(origin.shown()),
            place: (line - 1, origin.column() - 1),
        })
    }
}

const HIDDEN: &str = "… (not shown)";

/// The line of the problem, of which nothing is shown from `open` on. Returns where the mark is in `text`.
fn marked_line(text: &mut String, whole: &str, mark: Range<usize>, open: usize) -> (usize, usize) {
    let before = &whole[..mark.start.min(open)];
    let cut = clip_left(before);
    if cut.len() < before.len() {
        text.push('…');
    }
    text.push_str(&tidy(cut));
    let start = text.len();
    text.push_str(&tidy(clip(&whole[mark.start.min(open)..mark.end.min(open)], 4 * AROUND)));
    if mark.start >= open && open < whole.len() {
        text.push('…');
    }
    let length = (text.len() - start).max(1);
    let after = clip(&whole[mark.end.min(open)..open], AROUND);
    text.push_str(&tidy(after));
    if open < whole.len() {
        text.push_str(if mark.start >= open { " (not shown)" } else { HIDDEN });
    }
    (start, length)
}

impl SourceCode for Snippet {
    fn read_span<'a>(
        &'a self,
        _span: &SourceSpan,
        before: usize,
        after: usize,
    ) -> Result<Box<dyn SpanContents<'a> + 'a>, MietteError> {
        // Asked without context, miette wants line and column for its heading.
        let (line, column) = match before + after {
            0 => self.place,
            _ => (self.first_line, 0),
        };
        Ok(Box::new(MietteSpanContents::new_named(
            self.name.clone(),
            self.text.as_bytes(),
            SourceSpan::new(0.into(), self.text.len()),
            line,
            column,
            self.lines,
        )))
    }
}

fn clip(text: &str, most: usize) -> &str {
    let mut end = text.len().min(most);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

fn clip_left(text: &str) -> &str {
    let mut start = text.len().saturating_sub(AROUND);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    &text[start..]
}

/// Keys whose value is a secret by its name.
pub(super) const SECRET_KEYS: [&str; 6] =
    ["password", "passwd", "passphrase", "secret", "kg", "token"];

/// Does a private key run on behind this text?
fn within_key(before: &str) -> bool {
    match before.rfind("-----BEGIN ") {
        Some(at) => before[at..].contains("PRIVATE KEY") && !before[at..].contains("-----END "),
        None => false,
    }
}

/// Where a line stops being fit to be shown: behind a private key's first line or a secret's `=`.
fn secret_from(line: &str) -> Option<usize> {
    if let Some(at) = line.find("PRIVATE KEY") {
        return Some(at + "PRIVATE KEY".len());
    }
    let lower = line.to_ascii_lowercase();
    SECRET_KEYS
        .iter()
        .flat_map(|key| lower.match_indices(key).map(|(at, _)| at + key.len()))
        .filter_map(|end| {
            let rest = lower[end..].trim_start_matches(['"', '\'', ' ', '\t']);
            let equals = lower.len() - rest.len();
            rest.starts_with('=').then_some(equals + 1)
        })
        .min()
}

/// Characters that would move the cursor, made visible.
fn tidy(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\t' { '\u{fffd}' } else { c }).collect()
}
