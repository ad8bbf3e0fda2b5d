use std::sync::Arc;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;

/// A script that runs, and a machine that a test plays.
struct Play {
    run: Run,
    begun: Instant,
    now: Duration,
}

impl Play {
    fn new(script: &str) -> Play {
        Play::with(script, &[], &[])
    }

    fn with(script: &str, values: &[(&str, &str)], secrets: &[(&str, &str)]) -> Play {
        let program = Program::parse(script).unwrap_or_else(|faults| panic!("{faults:?}"));
        let own = |all: &[(&str, &str)]| -> Vec<(String, Vec<u8>)> {
            all.iter().map(|(name, value)| (name.to_string(), value.as_bytes().to_vec())).collect()
        };
        let run = Run::new(Arc::new(program), own(values), own(secrets), Duration::from_secs(10));
        Play { run, begun: Instant::now(), now: Duration::ZERO }
    }

    /// What it does until it waits.
    fn does(&mut self) -> Vec<String> {
        let mut does = Vec::new();
        while let Step::Do(act) = self.run.step(self.begun + self.now) {
            does.push(match act {
                Act::Send(bytes) => bytes.escape_ascii().to_string(),
                other => format!("{other:?}"),
            });
        }
        does
    }

    /// The same once the machine has said this.
    fn says(&mut self, text: &str) -> Vec<String> {
        self.run.came(text.as_bytes());
        self.does()
    }

    fn waits(&mut self, ms: u64) -> Vec<String> {
        self.now += Duration::from_millis(ms);
        self.does()
    }

    fn failed(&self) -> &Failed {
        match self.run.outcome() {
            Some(Outcome::Failed(failed)) => failed,
            other => panic!("{other:?}"),
        }
    }

    fn done(&self) -> &str {
        match self.run.outcome() {
            Some(Outcome::Done { says }) => says,
            other => panic!("{other:?}"),
        }
    }
}

const LOGIN: &str = r#"
arg user = "admin"
secret PASSWORD from env "PW"
timeout 5s
send "\r"
expect {
    "Username:" => { send "${user}\r"; again }
    "Password:" => {
        send "${PASSWORD}\r"
        again
    }
    /% (Bad|Access denied)/ => fail "${user} may not log in: ${1}"
    /(?<prompt>\w+)[>#] ?$/
    timeout => fail "it does not answer"
}
done "logged in at ${prompt}"
"#;

#[test]
fn a_login_by_what_is_asked() {
    // One statement a line: a semicolon is none.
    assert!(Program::parse(LOGIN).is_err());
    let script =
        LOGIN.replace("{ send \"${user}\\r\"; again }", "{\nsend \"${user}\\r\"\nagain\n}");
    let begin = || Play::with(&script, &[("user", "eve")], &[("PASSWORD", "s3cret")]);
    let mut play = begin();
    assert_eq!(play.does(), ["\\r"]);
    assert_eq!(play.says("\r\nUser Access Verification\r\n\r\nUser"), [""; 0]);
    assert_eq!(play.says("name: "), ["eve\\r"]);
    assert_eq!(play.says("eve\r\nPass\x1b[0mword: "), ["s3cret\\r"]);
    assert_eq!(play.says("s3cr"), [""; 0]);
    assert_eq!(play.says("et\r\n\r\nsw1# "), [""; 0]);
    assert_eq!(play.done(), "logged in at sw1");
    let notes = format!("{:?}", play.run.notes());
    assert!(
        notes.contains(r#"Sent("[PASSWORD]\\r")"#) && notes.contains(r#"Heard("Password: ")"#),
        "{notes}"
    );
    assert!(!notes.contains("s3cr") && notes.contains(r#"Heard("[PASSWORD]")"#), "{notes}");
    assert!(!format!("{:?} {}", play.run.outcome(), play.run.veil_debug()).contains("s3cret"));

    let mut play = begin();
    play.does();
    play.says("Password: ");
    play.says("\r\n% Bad secrets\r\n");
    let failed = play.failed();
    assert_eq!((failed.line, failed.why.as_str()), (15, "eve may not log in: Bad"));
    assert_eq!(failed.last.last().map(String::as_str), Some("% Bad secrets"));

    let mut play = begin();
    play.does();
    play.says("\r\nbooting");
    assert_eq!(play.waits(4999), [""; 0]);
    play.waits(1);
    let told = play.failed().to_string();
    assert_eq!(
        told,
        "line 6: it does not answer: \"Username:\" or \"Password:\" or /% (Bad|Access denied)/ or \
         /(?<prompt>\\w+)[>#] ?$/ was expected, and did not come within 5.0 s; its last lines:\n  booting"
    );
}

#[test]
fn loops_conditions_and_what_is_done_to_a_line() {
    let script = r#"
        set tries = "no"
        repeat 3 {
            sendbreak
            expect within 1s {
                "rommon" => {
                    set tries = "yes"
                    leave
                }
                timeout
            }
        }
        if "${tries}" == "yes" {
            say "it stands at its monitor"
        } else if "${tries}" !~ /^no$/ {
            fail "never"
        } else {
            sysrq b
            pause 500ms
            done "by SysRq"
        }
        send "reset\r"
    "#;
    let mut play = Play::new(script);
    assert_eq!(play.does(), ["Break"]);
    assert_eq!(play.waits(1000), ["Break"]);
    assert_eq!(play.says("rommon 1 >"), ["reset\\r"]);
    assert_eq!(play.done(), "");
    assert!(play.run.notes().contains(&Note::Says("it stands at its monitor".to_string())));

    let mut play = Play::new(script);
    play.does();
    assert_eq!(play.waits(1000), ["Break"]);
    assert_eq!(play.waits(1000), ["Break"]);
    assert_eq!(play.waits(1000), ["SysRq(b)"]);
    assert!(play.run.outcome().is_none(), "it pauses");
    play.waits(500);
    assert_eq!(play.done(), "by SysRq");
}

#[test]
fn a_timeout_may_be_seen_to_and_is_told_all_the_same() {
    let script = "on timeout {\nsend \"\\x03\"\nexpect \">\"\n}\nsend \"copy\\r\"\nexpect \"OK\" within 2s\n";
    let mut play = Play::new(script);
    assert_eq!(play.does(), ["copy\\r"]);
    assert_eq!(play.waits(2000), ["\\x03"]);
    play.says("sw1>");
    assert_eq!(
        (play.failed().line, play.failed().expected.as_slice()),
        (6, &["\"OK\"".to_string()][..])
    );
    // It is seen to once.
    let mut play = Play::new(script);
    play.does();
    play.waits(2000);
    play.waits(10_000);
    assert_eq!(play.failed().line, 3);
    // A script may say that it is well so.
    let mut play = Play::new("on timeout {\ndone \"never mind\"\n}\nexpect \"OK\"\n");
    play.does();
    play.waits(10_000);
    assert_eq!(play.done(), "never mind");
}

#[test]
fn values_in_patterns_are_taken_literally_and_lines_end_alike() {
    let script = r#"
        arg port
        expect /^(?<name>${port})\s+(\w+)$/ 
        expect "one\ntwo"
        send "${name} ${2}"
    "#;
    let mut play = Play::with(&script.replace("/ \n", "/\n"), &[("port", "Gi1.0/7")], &[]);
    play.says("Gi1x0/7 up");
    assert!(play.run.outcome().is_none(), "a dot is a dot");
    let mut play = Play::with(&script.replace("/ \n", "/\n"), &[("port", "Gi1.0/7")], &[]);
    play.does();
    play.says("Gi1.0/7  down");
    assert_eq!(play.says("\r\n10 %\r20 %\rone\x1b[K\r\r\ntwo"), ["Gi1.0/7 down"]);
}

#[test]
fn a_line_that_goes_away_is_told() {
    let mut play = Play::new("send \"x\"\nexpect \"OK\"\n");
    play.does();
    play.says("almost O");
    play.run.broke_off("eve from ssh has the line now");
    assert_eq!(
        play.failed().to_string(),
        "line 2: eve from ssh has the line now: \"OK\" was expected; its last lines:\n  almost O"
    );
}

#[test]
fn whatever_is_said_and_however_long_it_ends() {
    // Output without an end, of which nothing is expected.
    let mut play = Play::new("expect \"never\"\n");
    play.does();
    for _ in 0..1000 {
        play.run.came(&[b'x'; 5000]);
        play.run.notes();
        play.does();
    }
    assert!(play.run.heard_bytes() <= 64 << 10);
    play.waits(10_000);
    assert!(play.failed().last.len() <= 11);
    // A circle.
    let mut play = Play::new("repeat 10000 {\nrepeat 10000 {\nset x = \"y\"\n}\n}\n");
    play.does();
    assert!(play.failed().why.contains("circles"), "{:?}", play.failed());
    // A pattern that makes others go on for ever.
    let mut play = Play::new("expect /^(a+)+$/\n");
    play.does();
    play.says(&format!("{}b", "a".repeat(30_000)));
    assert!(play.run.outcome().is_none());
}

/// What is wrong, a line each: line, what, help.
fn faults(script: &str) -> Vec<String> {
    let faults = Program::parse(script).err().unwrap_or_default();
    let line = |fault: &Fault| script[..fault.at.start].matches('\n').count() + 1;
    let help =
        |fault: &Fault| fault.help.clone().map(|help| format!(" ({help})")).unwrap_or_default();
    faults
        .iter()
        .map(|fault| format!("{}: {}{}", line(fault), fault.message, help(fault)))
        .collect()
}

#[test]
fn bad_scripts_say_where_and_what_to_do() {
    for (script, says) in [
        ("sned \"x\"", "1: sned is nothing to do (did you mean send?)"),
        ("send x", "1: a text in \"…\" comes here, not \"x\""),
        ("\nsend \"x", "2: a text that does not end on its line (end it with \")"),
        (
            "send \"\\q\"",
            "1: an escape that there is not (there are \\r \\n \\t \\e \\0 \\xNN \\\" \\\\ \\$)",
        ),
        ("send \"\\x3\"", "1: \\x without a byte (two digits, like \\x03 for Ctrl-C)"),
        ("send \"${prot}\"\narg port", "1: nothing is called prot (did you mean ${port}?)"),
        ("expect /(/", "1: this pattern does not read: unclosed group"),
        (
            "expect /x*/",
            "1: this pattern matches nothing at all, and so at once (ask for at least one character)",
        ),
        (
            "expect /(a{1000}){1000}/",
            "1: this pattern does not read: it is too large once compiled",
        ),
        ("expect /(a)\\1/", "1: this pattern does not read: backreferences are not supported"),
        ("expect \"\"", "1: nothing is there at once"),
        ("expect {\n}", "1: nothing is expected here"),
        ("expect {\n\"x\" => send \"y\"", "1: a block without an end (end it with })"),
        (
            "expect {\n\"x\" send \"y\"\n}",
            "2: => and what is to be done then comes here, not \"send\"",
        ),
        ("pause 10", "1: a time like 500ms comes here, not 10"),
        ("pause 10h", "1: 10h is no time (like 500ms, 10s or 2m)"),
        ("timeout 90m", "1: nobody waits for more than an hour (at most 60m)"),
        ("repeat 0 {\n}", "1: between 1 and 10000 times, not 0"),
        ("leave", "1: there is no repeat to leave"),
        (
            "again",
            "1: there is no expect that could be done again (it stands behind => in a block of expect)",
        ),
        ("}", "1: nothing begins that would end here"),
        ("arg x\narg x", "2: x is there already"),
        ("secret P from \"f\"", "1: file or env comes here, not a text"),
        ("secret P from env \"X\"\nset P = \"x\"", "2: P is a secret, and stays what it is"),
        ("send \"a\" send \"b\"", "1: one statement a line: it ends here, not \"send\""),
        ("sysrq boot", "1: a key of SysRq, one letter or digit, comes here, not \"boot\""),
        ("if \"a\" {\n}", "1: ==, !=, ~ or !~ comes here, not {"),
        (
            "§",
            "1: '§' means nothing here (texts stand in \"…\", patterns in /…/, and # begins a remark)",
        ),
    ] {
        let told = faults(script);
        assert!(told.contains(&says.to_string()), "{script}\n{told:#?}");
    }
    let deep = "if \"a\" == \"a\" {\n".repeat(40);
    assert!(faults(&deep).iter().any(|told| told.contains("within blocks")));
    let deep = "expect {\n\"a\" => ".repeat(5000);
    assert!(!faults(&deep).is_empty());
    let chain = format!("if \"a\" == \"a\" {{\n}}{}", " else if \"a\" == \"a\" {\n}".repeat(2000));
    assert_eq!(faults(&chain), [""; 0]);
    assert!(faults(&"x\n".repeat(500)).len() <= 20);
    assert!(!faults(&"#".repeat(100_000)).is_empty());
}

#[test]
fn a_program_is_shown_without_being_run() {
    let script = "arg port \"like Gi1/0/7\"\nsecret P from file \"sw1.pw\"\nsend \"shut ${port} ${P}\\r\"\nexpect {\n/#$/\ntimeout => fail \"no\"\n}\nsysrq b\n";
    let shown = Program::parse(script).unwrap().shown();
    assert_eq!(
        shown,
        "      needs port: like Gi1/0/7\n      reads P from the file sw1.pw\n   3  send \"shut ${port} ${P}\\r\"\n   \
         4  expect /#$/, or go on at line 6\n   4  go on at line 8\n   6  fail with \"no\"\n   8  send SysRq b\n   9  it is done\n"
    );
}

proptest! {
    /// Any text is a program or has faults, and they are where the text is.
    #[test]
    fn any_script(words in prop::collection::vec(prop_oneof![
        "\\PC{0,6}",
        prop::sample::select(vec!["expect", "{", "}", "\n", "=>", "\"a${x}\"", "/b(?<x>c)/", "again", "timeout", "if", "else", "==", "repeat 3", "leave", "set x =", "arg x", "on timeout", "send", "5s", "within", "secret x from env", "\"", "/", "\\"]).prop_map(str::to_string),
    ], 0..60)) {
        let script = words.join(" ");
        match Program::parse(&script) {
            Err(faults) => {
                prop_assert!(!faults.is_empty());
                prop_assert!(faults.iter().all(|fault| fault.at.start <= fault.at.end && fault.at.end <= script.len()));
            }
            // What reads also runs to an end, or waits.
            Ok(program) => {
                let _for_people = program.shown();
                let mut run = Run::new(Arc::new(program), [], [], Duration::from_secs(1));
                let mut now = Instant::now();
                for _ in 0..200 {
                    match run.step(now) {
                        Step::Ended => break,
                        Step::Wait(until) => now = until,
                        Step::Do(_) => {}
                    }
                    run.came(b"abc\n");
                    run.notes();
                }
            }
        }
    }

    /// Whatever a machine says, split anywhere: the same is done, and no secret is shown.
    #[test]
    fn any_bytes_split_anywhere(
        parts in prop::collection::vec(prop_oneof![
            prop::collection::vec(any::<u8>(), 0..20),
            prop::sample::select(vec![b"s3cret".to_vec(), b"s3".to_vec(), b"\r\n".to_vec(), b"\x08".to_vec(), b"END".to_vec(), b"\x1b[1m".to_vec()]),
        ], 0..40),
        at in any::<prop::sample::Index>(),
    ) {
        let play = |chunks: &[&[u8]]| {
            let mut play = Play::with("secret P from env \"P\"\nexpect /E(?<x>N)D/\nsend \"${x}${P}\"\nexpect \"more\"\n", &[], &[("P", "s3cret")]);
            let mut does = play.does();
            let mut notes = Vec::new();
            for chunk in chunks {
                play.run.came(chunk);
                does.extend(play.does());
                notes.extend(play.run.notes());
            }
            play.run.broke_off("over");
            notes.extend(play.run.notes());
            let shown = format!("{notes:?}{:?}", play.run.outcome());
            (does, shown)
        };
        let bytes = parts.concat();
        let (one, other) = bytes.split_at(at.index(bytes.len() + 1));
        let (split, shown) = play(&[one, other]);
        let (whole, _) = play(&[&bytes]);
        prop_assert_eq!(split, whole);
        prop_assert!(!shown.contains("s3cret"), "{}", shown);
    }
}

#[test]
fn the_scripts_that_are_shipped_read() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts");
    let mut seen = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let script = std::fs::read_to_string(&path).unwrap();
        if let Err(faults) = Program::parse(&script) {
            panic!("{}: {faults:?}", path.display());
        }
        seen += 1;
    }
    assert!(seen >= 3, "{seen}");
}
