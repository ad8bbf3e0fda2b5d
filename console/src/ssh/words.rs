//! What stands behind `ssh m01@host`, and what cannot stand there.

/// What somebody asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Words {
    /// Only looks.
    pub watch: bool,
    /// Takes the line, whoever has it.
    pub take: bool,
    /// With how many of its last lines it begins, if he said so.
    pub last: Option<usize>,
    /// What begins an order, on a terminal.
    pub escape: Option<u8>,
}

/// Control-], which OpenSSH and its like pass on as it is, and no shell means anything by.
pub(super) const ESCAPE: u8 = 0x1d;

/// Shown to who asks for help, and with each refusal.
pub(super) const HELP: &str = "\
ssh MACHINE@HOST                 the console of a machine, or of the machine that has a seat
ssh MACHINE@HOST watch           only looks
ssh -t MACHINE@HOST take         takes the line, whoever has it
ssh consoles@HOST                the consoles there are
Further words: last N (lines it begins with), escape KEY (^], ^A … or none, instead of ^]).
A word may have -- in front of it: ssh MACHINE@HOST -- --watch.
With a terminal, Enter and Control-] and ? shows what else there is; without one (ssh -T) nothing is filtered.
";

impl Default for Words {
    fn default() -> Words {
        Words { watch: false, take: false, last: None, escape: Some(ESCAPE) }
    }
}

impl Words {
    /// Of a command.
    ///
    /// # Errors
    /// Why it is not done, in words.
    pub fn parse(command: &[u8]) -> Result<Words, String> {
        let command = String::from_utf8_lossy(command);
        let mut given = command.split_whitespace();
        let mut words = Words::default();
        while let Some(given_word) = given.next() {
            let word = given_word.strip_prefix("--").unwrap_or(given_word);
            let (word, mut value) = match word.split_once('=') {
                Some((word, value)) => (word, Some(value)),
                None => (word, None),
            };
            match word {
                "" if value.is_none() => {}
                "watch" => words.watch = true,
                "take" => words.take = true,
                "last" => {
                    let many = value.take().or_else(|| given.next());
                    let many = many.and_then(|many| many.parse().ok());
                    words.last = Some(many.ok_or("last takes a number of lines, like `last 100`")?);
                }
                "escape" => {
                    let key = value.take().or_else(|| given.next()).unwrap_or_default();
                    words.escape =
                        crate::escape::parse(key).map_err(|why| format!("escape: {why}"))?;
                }
                "help" | "-h" => return Err(HELP.to_string()),
                _ => return Err(refusal(&command)),
            }
            if value.is_some() {
                return Err(refusal(&command));
            }
        }
        if words.watch && words.take {
            return Err("watch or take: who only looks does not type".to_string());
        }
        Ok(words)
    }
}

/// A subsystem, which here is none.
pub(super) fn no_subsystem(name: &str) -> String {
    match name {
        "sftp" => NO_FILES.to_string(),
        _ => "consoles only: there are no subsystems".to_string(),
    }
}

const NO_FILES: &str = "consoles only: no files of this host are to be had, and none are taken. \
To send one over the line of a machine: koboshi console MACHINE --send FILE";

fn refusal(command: &str) -> String {
    let program = command.split_whitespace().next().unwrap_or_default();
    match program.rsplit('/').next().unwrap_or_default() {
        "scp" | "rsync" | "sftp-server" | "internal-sftp" | "git-upload-pack"
        | "git-receive-pack" => NO_FILES.to_string(),
        _ => {
            let command: String = command.chars().take(80).collect();
            format!("consoles only: `{}` is not run.\n{HELP}", command.escape_debug())
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn words_are_few() {
        let parse = |text: &str| Words::parse(text.as_bytes()).unwrap();
        assert_eq!(parse(""), Words::default());
        let watch = Words { watch: true, ..Words::default() };
        assert_eq!(
            (parse("watch"), parse("--watch"), parse("-- --watch")),
            (watch.clone(), watch.clone(), watch)
        );
        let all = Words { watch: false, take: true, last: Some(7), escape: None };
        assert_eq!(parse("--take last 7 --escape=none"), all);
        assert_eq!(parse("escape ^A").escape, Some(1));
    }

    #[test]
    fn all_else_is_refused_with_a_reason() {
        let why = |text: &str| Words::parse(text.as_bytes()).unwrap_err();
        assert!(
            why("scp -t /etc/passwd").contains("no files")
                && why("/usr/bin/rsync --server").contains("--send")
        );
        assert!(why("ls; rm -rf /").starts_with("consoles only: `ls; rm -rf /` is not run"));
        assert!(why("watch=1").contains("not run") && why("watch take").contains("only looks"));
        assert!(why("last").contains("number") && why("last x").contains("number"));
        assert!(why("\u{1b}[2J").contains("\\u{1b}"), "what he typed does nothing to his terminal");
        assert!(why("help").contains("Control-]"));
        assert!(
            no_subsystem("sftp").contains("no files")
                && no_subsystem("x").contains("consoles only")
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(command in prop::collection::vec(any::<u8>(), 0..80)) {
            let _either = Words::parse(&command);
        }
    }
}
