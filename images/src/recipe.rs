//! Recipes: a page of TOML that says what a system image is made of. How they are written stands
//! at the top of `recipes/rescue.toml`.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::Modules;

/// The recipes that come with koboshi.
const SHIPPED: [(&str, &str); 7] = [
    ("db", include_str!("../recipes/db.toml")),
    ("debian", include_str!("../recipes/debian.toml")),
    ("lb", include_str!("../recipes/lb.toml")),
    ("rescue", include_str!("../recipes/rescue.toml")),
    ("setup", include_str!("../recipes/setup.toml")),
    ("web", include_str!("../recipes/web.toml")),
    ("wipe", include_str!("../recipes/wipe.toml")),
];

/// A recipe that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("recipe {recipe}: {what}")]
pub struct BadRecipe {
    /// Its name or path.
    pub recipe: String,
    /// What is wrong, with the line.
    pub what: String,
}

/// What a system image is made of.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Recipe {
    /// The image it becomes, unless another name is asked for.
    pub name: String,
    /// A line for people.
    #[serde(default)]
    pub summary: String,
    /// What it starts from: this, or an image.
    pub base: Option<Base>,
    /// The image it is layered on: `web` for the newest version, or `web@3`.
    pub from: Option<String>,
    /// Debian's suite.
    #[serde(default = "bookworm")]
    pub suite: String,
    /// Components of Debian's archive.
    #[serde(default = "main_component")]
    pub components: Vec<String>,
    /// The kernel; that of the image it is layered on, unless another is named.
    pub kernel: Option<Kernel>,
    /// Which of the kernel's modules the root keeps.
    #[serde(default)]
    pub modules: Modules,
    /// Debian packages.
    #[serde(default)]
    pub packages: Vec<String>,
    /// Names taken away from what the packages brought, with `*` for any part of one.
    #[serde(default)]
    pub remove: Vec<String>,
    /// Units of systemd to enable.
    #[serde(default)]
    pub services: Vec<String>,
    /// Accounts, none with a password.
    #[serde(default)]
    pub users: Vec<User>,
    /// Run in the root when packages and files are in place.
    #[serde(default)]
    pub commands: Vec<String>,
    /// No file is younger than this, in seconds since 1970: the same packages make the same image on
    /// any day (reproducible-builds.org, SOURCE_DATE_EPOCH).
    #[serde(default = "epoch")]
    pub epoch: u64,
    /// Files put over what the packages brought.
    #[serde(default)]
    pub files: Vec<FileEntry>,
    /// Where `source` files lie.
    #[serde(skip)]
    pub(crate) dir: PathBuf,
}

/// An account that nobody can use a password for.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct User {
    /// Login name.
    pub name: String,
    /// Its number, and its group's; the next from 1000 on, unless one is named.
    pub uid: Option<u32>,
    /// Other groups it is in, made where they are missing.
    #[serde(default)]
    pub groups: Vec<String>,
    /// Home directory; `/home/NAME` unless named.
    pub home: Option<String>,
    /// Login shell.
    #[serde(default = "plain_shell")]
    pub shell: String,
    /// Public keys that may log in as it.
    #[serde(default)]
    pub keys: Vec<String>,
}

/// What a recipe starts from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Base {
    /// One static program.
    Busybox,
    /// mmdebstrap's minbase.
    Debian,
}

/// Which kernel an image boots.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(from = "String")]
pub enum Kernel {
    /// `linux-image-amd64`: every driver there is.
    Metal,
    /// `linux-image-cloud-amd64`: virtual machines only, a fifth of the size.
    Cloud,
    /// A package of that name.
    Package(String),
}

/// A file of a recipe.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct FileEntry {
    /// Where it goes.
    pub path: String,
    /// Permissions in octal.
    #[serde(default = "plain_mode")]
    pub mode: String,
    /// What is in it; a newline right after the opening quotes does not count.
    pub text: Option<String>,
    /// A file beside the recipe.
    pub source: Option<String>,
    /// A symbolic link to this.
    pub link: Option<String>,
}

/// Names and summaries of the recipes that come with koboshi.
pub fn shipped() -> Vec<(String, String)> {
    SHIPPED
        .iter()
        .map(|(name, text)| {
            let recipe = Recipe::parse(name, text).expect("a test reads every shipped recipe");
            ((*name).to_owned(), recipe.summary)
        })
        .collect()
}

impl Recipe {
    /// A shipped recipe by name, or a file by its path (anything with a `/` or ending in `.toml`).
    pub fn load(name_or_path: &str) -> Result<Recipe, BadRecipe> {
        let is_path = name_or_path.contains('/') || name_or_path.ends_with(".toml");
        if !is_path {
            let found = SHIPPED.iter().find(|(name, _)| *name == name_or_path);
            let Some((name, text)) = found else {
                let names: Vec<&str> = SHIPPED.iter().map(|(name, _)| *name).collect();
                let what = format!("unknown; shipped are {}, others by path", names.join(", "));
                return Err(BadRecipe { recipe: name_or_path.to_owned(), what });
            };
            return Recipe::parse(name, text);
        }
        let bad = |what: String| BadRecipe { recipe: name_or_path.to_owned(), what };
        let path = Path::new(name_or_path);
        let text = fs::read_to_string(path).map_err(|error| bad(error.to_string()))?;
        let mut recipe = Recipe::parse(name_or_path, &text)?;
        recipe.dir = path.parent().unwrap_or(Path::new("")).to_owned();
        Ok(recipe)
    }

    fn parse(name: &str, text: &str) -> Result<Recipe, BadRecipe> {
        let bad = |what: String| BadRecipe { recipe: name.to_owned(), what };
        let recipe: Recipe = toml::from_str(text).map_err(|error| bad(error.to_string()))?;
        recipe.check().map_err(bad)?;
        Ok(recipe)
    }

    /// The same recipe with another kernel.
    pub(crate) fn with_kernel(mut self, kernel: Kernel) -> Result<Recipe, BadRecipe> {
        self.kernel = Some(kernel);
        self.check().map_err(|what| BadRecipe { recipe: self.name.clone(), what })?;
        Ok(self)
    }

    fn check(&self) -> Result<(), String> {
        crate::check_name(&self.name).map_err(|error| error.to_string())?;
        match (self.base, &self.from) {
            (Some(_), None) if self.kernel.is_none() => {
                return Err("a base needs a kernel: \"metal\", \"cloud\" or a package".to_owned());
            }
            (Some(_), None) => {}
            (None, Some(from)) => {
                from.parse::<crate::ImageRef>().map_err(|error| error.to_string())?;
            }
            _ => return Err("give one of base and from".to_owned()),
        }
        if self.base == Some(Base::Busybox)
            && !(self.packages.is_empty() && self.commands.is_empty())
        {
            return Err("packages and commands need base = \"debian\"".to_owned());
        }
        // These become arguments of apt and mmdebstrap: a leading `-` would be an option.
        let word = |text: &str| {
            text.bytes().all(|c| c.is_ascii_alphanumeric() || b"+-.:_=~".contains(&c))
                && !text.is_empty()
                && !text.starts_with(['-', '+', '.'])
        };
        let words = self.packages.iter().chain(&self.components).map(String::as_str);
        let kernel = self.kernel.as_ref().map(Kernel::package);
        let words = words.chain([self.suite.as_str()]).chain(kernel.as_deref());
        if let Some(bad) = words.into_iter().find(|text| !word(text)) {
            return Err(format!("`{bad}` is no name of a package, suite or component"));
        }
        for file in &self.files {
            let given = [&file.text, &file.source, &file.link];
            if given.iter().filter(|one| one.is_some()).count() != 1 {
                return Err(format!("{}: give one of text, source and link", file.path));
            }
            if !file.path.starts_with('/') {
                return Err(format!("{}: a path begins with /", file.path));
            }
            crate::tree::normalise(file.path.as_bytes()).map_err(|fault| fault.to_string())?;
            file.mode_bits()?;
        }
        for path in &self.remove {
            if !path.starts_with('/') {
                return Err(format!("{path}: a path begins with /"));
            }
            crate::tree::normalise(path.as_bytes()).map_err(|fault| fault.to_string())?;
        }
        let unit = |name: &str| {
            name.bytes().all(|c| c.is_ascii_alphanumeric() || b"-_.@:\\".contains(&c))
                && !name.starts_with('.')
                && !name.is_empty()
        };
        if let Some(bad) = self.services.iter().find(|name| !unit(name)) {
            return Err(format!("`{bad}` is no name of a service"));
        }
        self.users.iter().try_for_each(User::check)
    }
}

impl User {
    /// Names go into lines of /etc/passwd, where a colon or a line's end would make another field.
    fn check(&self) -> Result<(), String> {
        let login = |name: &str| {
            let begins = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_');
            begins
                && name.len() <= 32
                && name
                    .bytes()
                    .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || b"_-".contains(&c))
        };
        let names = [&self.name].into_iter().chain(&self.groups);
        if let Some(bad) = names.into_iter().find(|name| !login(name)) {
            return Err(format!("`{bad}` is no login name: lower-case letters, digits, - and _"));
        }
        let home = self.home();
        for path in [&home, &self.shell] {
            if !path.starts_with('/') || path.contains(|c: char| c == ':' || c.is_control()) {
                return Err(format!("user {}: `{path}` is no path", self.name));
            }
            crate::tree::normalise(path.as_bytes()).map_err(|fault| fault.to_string())?;
        }
        for key in &self.keys {
            if key.contains("PRIVATE KEY") || key.lines().count() != 1 || !key.contains(' ') {
                return Err(format!("user {}: a key is one line of a public key file", self.name));
            }
        }
        Ok(())
    }

    pub(crate) fn home(&self) -> String {
        self.home.clone().unwrap_or_else(|| format!("/home/{}", self.name))
    }
}

impl FileEntry {
    pub(crate) fn mode_bits(&self) -> Result<u32, String> {
        u32::from_str_radix(&self.mode, 8)
            .ok()
            .filter(|mode| *mode <= 0o7777)
            .ok_or_else(|| format!("{}: `{}` is no mode (say \"0644\")", self.path, self.mode))
    }

    /// The bytes of a `text` or `source`.
    pub(crate) fn bytes(&self, dir: &Path) -> std::io::Result<Vec<u8>> {
        match (&self.text, &self.source) {
            (Some(text), _) => Ok(text.as_bytes().to_vec()),
            (None, Some(source)) => fs::read(dir.join(source)),
            (None, None) => Ok(Vec::new()),
        }
    }
}

impl From<String> for Kernel {
    fn from(text: String) -> Kernel {
        match text.as_str() {
            "metal" | "amd64" => Kernel::Metal,
            "cloud" => Kernel::Cloud,
            _ => Kernel::Package(text),
        }
    }
}

impl Kernel {
    /// The Debian package that brings it, or depends on the one that does.
    pub(crate) fn package(&self) -> String {
        let arch = crate::oci::architecture();
        match self {
            Kernel::Metal => format!("linux-image-{arch}"),
            Kernel::Cloud => format!("linux-image-cloud-{arch}"),
            Kernel::Package(name) => name.clone(),
        }
    }
}

fn bookworm() -> String {
    "bookworm".to_owned()
}

fn main_component() -> Vec<String> {
    vec!["main".to_owned()]
}

/// 1 January 2025.
fn epoch() -> u64 {
    1_735_689_600
}

fn plain_shell() -> String {
    "/bin/bash".to_owned()
}

fn plain_mode() -> String {
    "0644".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shipped_recipe_reads_and_holds_no_secret() {
        for (name, text) in SHIPPED {
            let recipe = Recipe::load(name).unwrap();
            assert_eq!(recipe.name, name);
            assert!(!recipe.summary.is_empty());
            for word in ["chpasswd", "passwd -", "PRIVATE KEY", "$6$", "$y$"] {
                assert!(!text.contains(word), "{name} holds {word}");
            }
        }
        assert_eq!(shipped().len(), SHIPPED.len());
    }

    #[test]
    fn bad_recipes_are_told_what_is_wrong() {
        let good = "name = 'x'\nbase = 'debian'\nkernel = 'cloud'\n";
        assert_eq!(Recipe::parse("x", good).unwrap().kernel, Some(Kernel::Cloud));
        for (more, says) in [
            ("packges = ['a']", "unknown field `packges`"),
            ("packages = ['--help']", "--help"),
            ("packages = ['a b']", "a b"),
            ("packages = ['a,b']", "a,b"),
            ("suite = '-x'", "-x"),
            ("[[files]]\npath = '/x'", "one of text, source and link"),
            ("[[files]]\npath = '/x'\ntext = ''\nlink = '/y'", "one of text, source and link"),
            ("[[files]]\npath = 'x'\ntext = ''", "begins with /"),
            ("[[files]]\npath = '/../x'\ntext = ''", "outside"),
            ("[[files]]\npath = '/x'\ntext = ''\nmode = '99'", "no mode"),
            ("name = 'x'", "duplicate key"),
            ("from = 'web'", "one of base and from"),
            ("remove = ['x']", "begins with /"),
            ("services = ['a b']", "no name of a service"),
            ("services = ['../x']", "no name of a service"),
            ("[[users]]\nname = 'a:b'", "no login name"),
            ("[[users]]\nname = 'ops'\ngroups = ['x\\ny']", "no login name"),
            ("[[users]]\nname = 'ops'\npassword = 'x'", "unknown field `password`"),
            ("[[users]]\nname = 'ops'\nhome = '/a:0:0'", "is no path"),
            ("[[users]]\nname = 'ops'\nshell = '/../x'", "outside"),
            (
                "[[users]]\nname = 'ops'\nkeys = ['-----BEGIN OPENSSH PRIVATE KEY-----']",
                "public key",
            ),
        ] {
            let said = Recipe::parse("x", &format!("{good}{more}")).unwrap_err().to_string();
            assert!(said.contains(says), "{more}: {said}");
        }
        let said = Recipe::parse("x", "name = '../x'\nbase = 'debian'\nkernel = 'cloud'");
        assert!(said.unwrap_err().to_string().contains("not an image name"));
        let busybox = "name = 'x'\nbase = 'busybox'\nkernel = 'cloud'\npackages = ['a']";
        assert!(Recipe::parse("x", busybox).is_err());
        assert!(Recipe::parse("x", "name = 'x'\nbase = 'debian'").is_err(), "without a kernel");
        assert!(Recipe::parse("x", "name = 'x'\nfrom = 'web@3'").is_ok());
        for from in ["", "web@0", "../web", "web:3"] {
            assert!(Recipe::parse("x", &format!("name = 'x'\nfrom = '{from}'")).is_err(), "{from}");
        }
        for kernel in ["--help", "", "a b"] {
            let kernel = Kernel::from(kernel.to_owned());
            assert!(Recipe::load("web").unwrap().with_kernel(kernel).is_err());
        }
        assert!(
            Recipe::load("nothing")
                .unwrap_err()
                .to_string()
                .contains("db, debian, lb, rescue, setup, web")
        );
        assert!(Recipe::load("./nothing.toml").is_err());
    }
}
