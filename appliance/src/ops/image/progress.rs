//! How far an import, a build or a squashfs is, said while people wait.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use koboshi_images::Progress;

use super::mib;

/// Progress: a bar on a terminal; elsewhere a line for each step, so that a log stays readable.
pub(super) struct Line {
    bar: ProgressBar,
    terminal: bool,
    said: String,
    last: Instant,
}

impl Line {
    pub(super) fn new() -> Line {
        let bar = ProgressBar::new(1000);
        let style = ProgressStyle::with_template("{bar:30} {percent:>3} %  {msg}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        let terminal = std::io::stderr().is_terminal();
        Line { bar, terminal, said: String::new(), last: Instant::now() }
    }

    pub(super) fn show(&mut self, progress: &Progress) {
        let (text, done) = match progress {
            Progress::Step(text) => (text.clone(), None),
            Progress::Unpacking { bytes } => (format!("unpacks, {}", mib(*bytes)), None),
            Progress::Reading { entries } => (format!("reads, {entries} names"), None),
            Progress::Squashing { done, total } => {
                (format!("squashes the root, {}", mib(*total)), Some(done * 1000 / (*total).max(1)))
            }
            Progress::Fetching { done, total } => {
                (format!("fetches, {}", mib(*total)), Some(done * 1000 / (*total).max(1)))
            }
            Progress::Sending { done, total } => {
                (format!("sends, {}", mib(*total)), Some(done * 1000 / (*total).max(1)))
            }
            Progress::Modules { release } => (format!("packs the modules of {release}"), None),
            Progress::Packing { done, total } => {
                (format!("packs the root, {}", mib(*total)), Some(done * 1000 / (*total).max(1)))
            }
        };
        if self.terminal {
            self.bar.set_position(done.unwrap_or(0));
            self.bar.set_message(text);
            return;
        }
        // The same step with another figure is said at most once in ten seconds.
        let step = text.split(',').next().unwrap_or_default().to_string();
        if step != self.said || self.last.elapsed() > Duration::from_secs(10) {
            eprintln!("{text}");
            self.said = step;
            self.last = Instant::now();
        }
    }

    pub(super) fn clear(&self) {
        if self.terminal {
            self.bar.finish_and_clear();
        }
    }
}
