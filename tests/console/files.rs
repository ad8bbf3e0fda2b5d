//! Files over a line through the product: a shell in a folder of its own is the machine, and lrzsz is there.

use std::path::Path;
use std::process::Output;

use serde_json::Value;

use super::person::CEILING;
use crate::world::{World, in_world, text};

fn site(folder: &Path) -> String {
    let shell = format!("env -C {}/machine PS1='# ' sh -i", folder.display());
    format!(
        "[site]\nname = \"console\"\n[net]\ninterface = \"kb0\"\ncidr = \"10.77.0.0/24\"\n\
         pool = \"10.77.0.200-10.77.0.250\"\n[machines]\nsw1 = {{ console = \"exec:{shell}\" }}\n"
    )
}

/// Once the line is up.
async fn up(world: &World) {
    let begun = std::time::Instant::now();
    loop {
        let rows = world.json(&["console"]);
        if rows[0]["state"] == "up" {
            return;
        }
        assert!(begun.elapsed() < CEILING, "{rows}\n{}", world.log());
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
}

fn bytes(many: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let next = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..many).map(next).collect()
}

fn events(output: &Output) -> Vec<Value> {
    let lines = String::from_utf8_lossy(&output.stdout).into_owned();
    lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

#[test]
fn files_go_both_ways_through_a_shell_on_the_line() {
    in_world("", vec![], async |mut world| {
        let folder = world.site.parent().expect("a folder").to_path_buf();
        let (machine, here) = (folder.join("machine"), folder.join("here"));
        std::fs::create_dir(&machine).expect("a folder");
        std::fs::create_dir(&here).expect("a folder");
        std::fs::write(&world.site, site(&folder)).expect("written");
        world.serve().await;
        up(&world).await;
        let path = |name: &str| here.join(name).display().to_string();
        let file = bytes(700_000);
        std::fs::write(here.join("it's a file"), &file).expect("written");
        std::fs::write(here.join("second"), &file[..100]).expect("written");

        // A prompt is there: `rz` is typed by itself.
        let (one, two) = (path("it's a file"), path("second"));
        let sent = world.run(&["console", "sw1", "--json", "--send", &one, &two]);
        assert!(sent.status.success(), "{}\n{}", text(&sent), world.log());
        let told = events(&sent);
        let done: Vec<_> = told.iter().filter(|told| told["event"] == "done").collect();
        assert_eq!((done.len(), &done[0]["size"]), (2, &Value::from(700_000)), "{told:?}");
        assert!(std::fs::read(machine.join("it's a file")).expect("it came") == file);
        assert_eq!(std::fs::read(machine.join("second")).expect("it came"), &file[..100]);
        for (protocol, name) in [("ymodem", "y"), ("xmodem-1k", "it is x")] {
            std::fs::write(here.join(name), &file[..51_200]).expect("written");
            let name = path(name);
            let sent = world.run(&["console", "sw1", "--protocol", protocol, "--send", &name]);
            // `rx` and `rb` may throw their last answer away as they end, which XMODEM needs.
            let said = text(&sent);
            let lost = protocol != "ymodem" && said.contains("compare it");
            assert!(sent.status.success() || lost, "{said}\n{}", world.log());
        }
        assert!(std::fs::read(machine.join("y")).expect("it came") == file[..51_200]);
        assert!(std::fs::read(machine.join("it is x")).expect("it came") == file[..51_200]);

        // What comes is here, whole, and nowhere else.
        let inbox = path("inbox");
        std::fs::create_dir(&inbox).expect("a folder");
        let receive = ["console", "sw1", "--receive", &inbox, "--command", "sz 'it'*e second"];
        let got = world.run(&receive);
        assert!(got.status.success(), "{}\n{}", text(&got), world.log());
        assert!(text(&got).contains("700000 bytes as"), "{}", text(&got));
        assert!(std::fs::read(here.join("inbox/it's a file")).expect("it came") == file);
        let again = world.run(&receive);
        assert_eq!(again.status.code(), Some(1), "{}", text(&again));
        assert!(text(&again).contains("--overwrite"), "{}", text(&again));

        // The line is a shell's again, and free.
        let table = world.json(&["console"]);
        assert!(table[0]["holder"].is_null(), "{table}");
        std::fs::write(here.join("third"), &file[..3]).expect("written");
        let sent = world.run(&["console", "sw1", "--send", &path("third")]);
        assert!(sent.status.success(), "{}", text(&sent));

        // Nothing is asked of the line when something is missing here.
        let none = world.run(&["console", "sw1", "--send", &path("nothing")]);
        assert!(text(&none).contains("nothing: No such file"), "{}", text(&none));
        let nameless = world.run(&["console", "sw1", "--receive", "--protocol", "xmodem"]);
        assert!(text(&nameless).contains("--name"), "{}", text(&nameless));
        assert!(world.stop().await);
    });
}
