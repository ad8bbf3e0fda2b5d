//! Templates of a folder, filled in for one boot. Who writes them runs the site, yet a slip of theirs must not
//! stop the appliance: steps and output are bounded.

use std::collections::BTreeMap;
use std::io;
use std::net::Ipv4Addr;
use std::path::Path;

use koboshi_initramfs::contract::FILES_MAX;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{AutoEscape, Environment, Error, ErrorKind, UndefinedBehavior, Value};
use serde::Serialize;

use super::read::{Bad, Folder};
use super::{Member, What};

/// What the name of a template ends in.
pub(super) const ENDING: &str = ".j2";
/// Steps of one template: a loop over ten thousand seats takes a tenth.
const STEPS: u64 = 1_000_000;

/// What templates may name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Facts {
    /// `[site] name`
    pub site: String,
    /// None: the machine is in a role and has no seat.
    pub seat: Option<String>,
    /// The role's name.
    pub role: String,
    /// The machine's name, or its MAC.
    pub machine: String,
    /// Its host name.
    pub hostname: String,
    /// May be empty.
    pub domain: String,
    /// On the network it boots on. None: only a DHCP server knows it (proxy mode).
    pub address: Option<Ipv4Addr>,
    /// On the seat's further networks, by their names.
    pub addresses: BTreeMap<String, Ipv4Addr>,
    /// The seat's.
    pub args: BTreeMap<String, String>,
}

pub(super) fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    // A configuration file is no HTML, whatever it is called.
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_undefined_behavior(UndefinedBehavior::SemiStrict);
    environment.set_fuel(Some(STEPS));
    let mut syntax = SyntaxConfig::builder();
    // A line that holds only a block is no line of the file.
    syntax.trim_blocks(true).lstrip_blocks(true).keep_trailing_newline(true);
    if let Ok(syntax) = syntax.build() {
        environment.set_syntax(syntax);
    }
    environment
}

impl Folder {
    /// Whether all templates can be filled in.
    ///
    /// # Errors
    /// The first that cannot, with its line.
    pub fn try_fill(&self, facts: &Facts) -> Result<(), Bad> {
        self.render(facts).map(drop)
    }

    /// The templates, filled in.
    pub(super) fn render(&self, facts: &Facts) -> Result<Vec<Member>, Bad> {
        if self.filled.is_empty() {
            return Ok(Vec::new());
        }
        let facts = Value::from(Serde(facts));
        let mut room = FILES_MAX;
        self.filled.iter().map(|member| self.fill(member, &facts, &mut room)).collect()
    }

    fn fill(&self, member: &Member, facts: &Value, room: &mut u64) -> Result<Member, Bad> {
        let name = format!("{}{ENDING}", member.path);
        let wrong = |error: Error| {
            // It may be in a template that this one includes.
            let named = error.name().unwrap_or(&name).to_string();
            let source = self.templates.get_template(&named);
            let text = source.map_or(String::new(), |template| template.source().to_string());
            bad(&self.path.join(named), &text, &error)
        };
        let template = self.templates.get_template(&name).map_err(wrong)?;
        let mut out = Bounded { bytes: Vec::new(), room: *room };
        template.render_captured_to(facts.clone(), &mut out).map_err(wrong)?;
        *room = out.room;
        Ok(Member { what: What::Bytes(out.bytes.into()), ..member.clone() })
    }
}

/// What the language says of a mistake, with its line.
pub(super) fn bad(path: &Path, text: &str, error: &Error) -> Bad {
    let kind = match error.kind() {
        ErrorKind::OutOfFuel => "it takes too many steps: a loop without an end?".to_string(),
        ErrorKind::WriteFailure => {
            format!("what becomes of it is larger than {} MiB", FILES_MAX >> 20)
        }
        kind => kind.to_string(),
    };
    let what = match error.detail() {
        Some(detail) => format!("{kind}: {detail}"),
        None => kind,
    };
    let line = error.line().map(|line| (text.to_string(), line));
    Bad { path: path.to_path_buf(), line, what }
}

struct Bounded {
    bytes: Vec<u8>,
    room: u64,
}

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.room = self.room.checked_sub(bytes.len() as u64).ok_or(io::ErrorKind::FileTooLarge)?;
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
