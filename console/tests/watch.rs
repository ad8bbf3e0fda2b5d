//! What a line says is watched while it comes: by one set of rules for all lines, which may change.

use std::time::Duration;

use koboshi_console::watch::rules::Rules;
use koboshi_console::watch::{Found, Level, Rule, Watching, What};
use koboshi_console::{Beside, Kind, Line};
use tokio::io::AsyncWriteExt;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc::Receiver;

/// Far beyond what anything here takes.
const CEILING: Duration = Duration::from_secs(60);

async fn next(found: &mut Receiver<Found>) -> (String, String, String) {
    let found = tokio::time::timeout(CEILING, found.recv()).await.expect("a hit").expect("it runs");
    let What::Said { line, .. } = found.hit.what else { panic!("{found:?}") };
    (found.line.to_string(), found.hit.rule, line)
}

fn said(line: &str, rule: &str, text: &str) -> (String, String, String) {
    (line.to_string(), rule.to_string(), text.to_string())
}

#[tokio::test]
async fn panics_prompts_and_what_was_said_before_a_line_broke_off() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sw1");
    let listener = UnixListener::bind(&path).unwrap();
    let (watching, mut found) = Watching::new(Rules::default());
    let kind = std::sync::Arc::new(Kind::Unix(path));
    let open = move || {
        let kind = kind.clone();
        async move { kind.open().await }
    };
    let line =
        Line::start_beside(open, Beside { watch: Some(watching.feed("sw1")), ..Beside::default() });
    let accept = async || -> UnixStream { listener.accept().await.unwrap().0 };

    let mut machine = accept().await;
    machine.write_all(b"\x1b[31mKernel").await.unwrap();
    machine.write_all(b"\x1b[0m panic - not syncing: VFS\r\n").await.unwrap();
    assert_eq!(
        next(&mut found).await,
        said("sw1", "kernel-panic", "Kernel panic - not syncing: VFS")
    );
    machine.write_all(b"sw1 login: ").await.unwrap();
    assert_eq!(next(&mut found).await, said("sw1", "login-prompt", "sw1 login:"));

    // Its last words are told though the line is gone.
    machine.write_all(b"\r\nOut of memory: Killed process 7 (java)").await.unwrap();
    drop(machine);
    let killed = "Out of memory: Killed process 7 (java)";
    assert_eq!(next(&mut found).await, said("sw1", "out-of-memory", killed));

    let own = Rule {
        name: "fan".to_string(),
        pattern: "fan [0-9] failed".to_string(),
        level: Level::Warning,
        only: None,
    };
    watching.follow(Rules::new(&[own]).unwrap());
    let mut machine = accept().await;
    machine.write_all(b"fan 3 failed\r\n").await.unwrap();
    assert_eq!(next(&mut found).await, said("sw1", "fan", "fan 3 failed"));
    assert_eq!(watching.lost(), 0);
    line.close().await;
}
