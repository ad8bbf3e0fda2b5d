//! Scripts at a switch: one with an IOS-like command line that the test plays, which is rebooted and has a port
//! shut; what goes wrong there, and in the script itself, is said so that somebody can mend it.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

use crate::world::{KOBOSHI, World, in_world, text};

const SITE: &str = r#"
[site]
name = "script"
[net]
interface = "kb0"
cidr = "10.77.0.0/24"
pool = "10.77.0.200-10.77.0.250"
[machines]
sw1 = { console = "unix:AT/sw1.sock" }
"#;

/// What becomes of the switch.
#[derive(Debug, Default)]
struct Facts {
    shut: Vec<String>,
    reloads: usize,
}

/// Where its command line is.
#[derive(Debug, Clone, Copy, PartialEq)]
enum At {
    Username,
    Password,
    User,
    Enable,
    Privileged,
    Config,
    Interface,
    Save,
    Confirm,
    Started,
}

/// A switch whose console is this connection.
async fn switch(mut line: UnixStream, facts: Arc<Mutex<Facts>>) {
    let (mut at, mut typed, mut port) = (At::Started, String::new(), String::new());
    let mut buffer = [0; 256];
    while let Ok(many @ 1..) = line.read(&mut buffer).await {
        for byte in &buffer[..many] {
            let mut out = String::new();
            match byte {
                b'\r' => {
                    let command = std::mem::take(&mut typed);
                    let (next, says) = answer(at, command.trim(), &mut port, &facts);
                    at = next;
                    out = format!("\r\n{says}{}", prompt(at));
                }
                0x1a => {
                    at = At::Privileged;
                    out = format!("^Z\r\n{}", prompt(at));
                }
                byte => {
                    typed.push(char::from(*byte));
                    if !matches!(at, At::Password | At::Enable) {
                        out.push(char::from(*byte));
                    }
                }
            }
            // In pieces, as a line of 9600 baud has it.
            for piece in out.as_bytes().chunks(5) {
                if line.write_all(piece).await.is_err() {
                    return;
                }
                tokio::task::yield_now().await;
            }
        }
    }
}

fn prompt(at: At) -> &'static str {
    match at {
        At::Username => "\r\nUser Access Verification\r\n\r\nUsername: ",
        At::Password | At::Enable => "Password: ",
        At::User => "sw1>",
        At::Privileged => "\x1b[1msw1#\x1b[0m",
        At::Config => "sw1(config)#",
        At::Interface => "sw1(config-if)#",
        At::Save => "System configuration has been modified. Save? [yes/no]: ",
        At::Confirm => "Proceed with reload? [confirm]",
        At::Started => "Press RETURN to get started!\r\n\r\n",
    }
}

fn answer(at: At, typed: &str, port: &mut String, facts: &Mutex<Facts>) -> (At, String) {
    let mut facts = facts.lock().unwrap();
    let quiet = |at| (at, String::new());
    match (at, typed) {
        (At::Started, _) => quiet(At::Username),
        (At::Username, "") => quiet(At::Username),
        (At::Username, _) => quiet(At::Password),
        (At::Password, "line-s3cret") => quiet(At::User),
        (At::Password, _) => (At::Username, "% Login invalid\r\n".to_string()),
        (At::User, "enable") => quiet(At::Enable),
        (At::Enable, "enable-s3cret") => quiet(At::Privileged),
        (At::Enable, _) => (At::User, "% Access denied\r\n".to_string()),
        (At::Privileged, "configure terminal") => (
            At::Config,
            "Enter configuration commands, one per line.  End with CNTL/Z.\r\n".to_string(),
        ),
        (At::Config, typed) if typed.starts_with("interface Gi1/0/") => {
            *port = typed.trim_start_matches("interface ").to_string();
            quiet(At::Interface)
        }
        (At::Config, _) => {
            (at, "  ^\r\n% Invalid input detected at '^' marker.\r\n\r\n".to_string())
        }
        (At::Interface, "shutdown") => {
            facts.shut.push(port.clone());
            let log = format!(
                "*Mar  1 00:01:02.003: %LINK-5-CHANGED: Interface {port}, changed state to administratively down\r\n"
            );
            (at, log)
        }
        (At::Interface, "end") => quiet(At::Privileged),
        (At::Privileged, "reload") => quiet(At::Save),
        (At::Save, "no") => quiet(At::Confirm),
        (At::Confirm, "") => {
            facts.reloads += 1;
            let boot = "\r\n%SYS-5-RELOAD: Reload requested by admin on console.\r\nSystem Bootstrap, Version 15.2(7r)E\r\nPOST: PASSED\r\n";
            (At::Started, boot.to_string())
        }
        (At::Privileged, typed) if typed.starts_with("show interfaces") => {
            let status = match facts.shut.contains(port) {
                true => "disabled",
                false => "connected",
            };
            (at, format!("Port      Name    Status    Vlan\r\n{port}           {status}  1\r\n"))
        }
        (At::Privileged | At::User, "exit") => quiet(At::Started),
        (_, "") => quiet(at),
        _ => (at, "% Invalid input detected at '^' marker.\r\n".to_string()),
    }
}

fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../console/scripts")
}

/// Beside the shipped scripts, copied, the passwords that they want.
fn secret(folder: &Path, name: &str, value: &str) {
    use std::os::unix::fs::PermissionsExt;
    let path = folder.join(name);
    std::fs::write(&path, format!("{value}\n")).expect("written");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("changed");
}

#[test]
fn a_switch_is_rebooted_and_a_port_is_shut_by_script() {
    in_world("", vec![], async |mut world| {
        let folder = world.site.parent().expect("a folder").to_path_buf();
        std::fs::write(&world.site, SITE.replace("AT", &folder.display().to_string()))
            .expect("written");
        let listener = UnixListener::bind(folder.join("sw1.sock")).expect("a socket");
        let facts: Arc<Mutex<Facts>> = Arc::default();
        let known = facts.clone();
        tokio::spawn(async move {
            while let Ok((line, _)) = listener.accept().await {
                tokio::spawn(switch(line, known.clone()));
            }
        });
        for name in ["close-port.expect", "reboot-switch.expect", "login.expect"] {
            std::fs::copy(scripts().join(name), folder.join(name)).expect("copied");
        }
        secret(&folder, "switch.pw", "line-s3cret");
        secret(&folder, "enable.pw", "enable-s3cret");
        let at = |name: &str| folder.join(name).display().to_string();
        world.serve().await;
        let up = || world.json(&["console"])[0]["state"] == "up";
        while !up() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }

        // A port is shut; what was seen is kept, without the passwords.
        let log = at("close.log");
        let close = at("close-port.expect");
        let done = world.ok(&["console", "sw1", "--script", &close, "--log", &log, "Gi1/0/7"]);
        assert_eq!(done, "Gi1/0/7 is shut\n");
        assert_eq!(facts.lock().unwrap().shut, ["Gi1/0/7"]);
        let kept = std::fs::read_to_string(&log).expect("kept");
        for part in
            ["> [PASSWORD]\\r", "> [ENABLE]\\r", "< sw1#", "> shutdown\\r", "= Gi1/0/7 is shut"]
        {
            assert!(kept.contains(part), "{part}: {kept}");
        }
        assert!(!kept.contains("s3cret"), "{kept}");

        // It is rebooted, and waited for.
        let reboot = at("reboot-switch.expect");
        let done = world.json(&["console", "sw1", "--script", &reboot]);
        assert_eq!(
            (&done["outcome"], &done["says"]),
            (&"done".into(), &"it is back".into()),
            "{done}"
        );
        assert_eq!(facts.lock().unwrap().reloads, 1);

        goes_wrong(&world, &folder, &close).await;
        let no_secret = text(&world.run(&["events", "-n", "500"])) + &world.log();
        assert!(!no_secret.contains("s3cret"), "{no_secret}");
        assert!(world.stop().await);
    });
}

async fn goes_wrong(world: &World, folder: &Path, close: &str) {
    let script = |words: &[&str]| {
        let mut all = vec!["console", "sw1", "--script"];
        all.extend(words);
        let output = world.run(&all);
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8_lossy(&said).into_owned())
    };
    // No such port, and the wrong password.
    let (code, said) = script(&[close, "Te9/9"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("there is no port Te9/9: Invalid input detected"), "{said}");
    secret(folder, "switch.pw", "another");
    // It is logged in still, at its configuration, and found there: the line is where the last one left it.
    let write = |name: &str, text: &str| {
        std::fs::write(folder.join(name), text).expect("written");
        folder.join(name).display().to_string()
    };
    let out =
        write("out.expect", "send \"\\x1a\"\nexpect \"#\"\nsend \"exit\\r\"\nexpect \"RETURN\"\n");
    assert_eq!(script(&[&out]).0, Some(0));
    let (code, said) = script(&[close, "Gi1/0/8", "user=eve"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("eve may not log in: Login invalid") && said.contains("its last lines:"),
        "{said}"
    );

    // What does not come in time.
    let never = write(
        "never.expect",
        "say \"begins\"\nsend \"\\r\"\nexpect {\n\"never\"\n/nor (this|that)/\n}\n",
    );
    let (code, said) = script(&[&never, "--timeout", "300ms"]);
    assert_eq!(code, Some(1), "{said}");
    let says = "line 3: \"never\" or /nor (this|that)/ was expected, and did not come within 0.3 s";
    assert!(
        said.contains("begins\n") && said.contains(says) && said.contains("Username:"),
        "{said}"
    );
    let (code, said) = script(&[&never, "--timeout", "300ms", "--json"]);
    let json: Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!(
        (code, &json["outcome"], &json["line"]),
        (Some(1), &"failed".into(), &3.into()),
        "{said}"
    );
    assert_eq!(json["expected"].as_array().map(Vec::len), Some(2));

    // Somebody has the line: he is named, and it can be taken from him. He who loses it fails.
    let long = write("long.expect", "expect \"never\" within 30s\n");
    let mut command = world.rack.command(KOBOSHI);
    command.args(["console", "sw1", "--script", &long]).arg("--state").arg(&world.state);
    command.stderr(std::process::Stdio::piped());
    let first = world.rack.spawn(command).await.expect("koboshi runs");
    let held = || world.json(&["console"])[0]["holder"]["name"].is_string();
    while !held() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let quick = write("quick.expect", "done \"here\"\n");
    let (code, said) = script(&[&quick]);
    assert!(code == Some(1) && said.contains("has the line"), "{said}");
    assert_eq!(script(&[&quick, "--take"]), (Some(0), "here\n".to_string()));
    let lost = first.wait_with_output().await.expect("it ends");
    let said = text(&lost);
    // Who took it may have left again before that was told.
    let (taken, left) = ("took the line: \"never\"", "or let go of in our name: \"never\"");
    assert!(
        lost.status.code() == Some(1) && (said.contains(taken) || said.contains(left)),
        "{said}"
    );

    // Before anybody is asked: what is wrong with a script, with its place; what it needs; what it would do.
    let bad = write("bad.expect", "send \"a\"\nexpect /(/\nsned \"b\"\n");
    let (code, said) = script(&[&bad]);
    assert_eq!(code, Some(2), "{said}");
    for part in [
        "bad.expect:2:8]",
        "this pattern does not read: unclosed group",
        "did you mean send?",
        "2 errors",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let (code, said) = script(&[close]);
    assert!(code == Some(2) && said.contains("it needs port (the port, like Gi1/0/7)"), "{said}");
    let wants = write("wants.expect", "secret P from env \"NO_SUCH_VARIABLE\"\nsend \"${P}\"\n");
    let (code, said) = script(&[&wants]);
    assert!(code == Some(2) && said.contains("the variable NO_SUCH_VARIABLE is not set"), "{said}");
    let (code, said) = script(&[&wants, "--dry"]);
    assert!(
        code == Some(0)
            && said.contains("reads P from $NO_SUCH_VARIABLE")
            && said.contains("send \"${P}\""),
        "{said}"
    );
}
