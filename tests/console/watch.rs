//! What machines say on their consoles is told, joins their boots, and explains why one did not come up.

use std::path::Path;
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;
use tokio::net::{UnixListener, UnixStream};

use crate::wire::{peer, rom};
use crate::world::{World, in_world, text};

/// Far beyond what anything here takes.
const CEILING: Duration = Duration::from_secs(30);

fn site(folder: &Path) -> String {
    format!(
        r#"
[site]
name = "console"
[net]
interface = "kb0"
cidr = "10.77.0.0/24"
pool = "10.77.0.200-10.77.0.250"
[console]
watch = [{{ name = "fan", pattern = 'fan \d+ (stopped|failed)', level = "warning", machines = "sw1" }}]
[machines]
m01 = {{ mac = ["52:54:00:77:00:01"], console = "unix:{at}/m01.sock" }}
sw1 = {{ console = "unix:{at}/sw1.sock" }}
"#,
        at = folder.display()
    )
}

/// Somebody else's words in what the appliance answers, once they are there.
async fn says(world: &World, words: &[&str], part: &str) -> String {
    let begun = Instant::now();
    loop {
        let said = text(&world.run(words));
        if said.contains(part) {
            return said;
        }
        assert!(begun.elapsed() < CEILING, "{words:?} without {part}: {said}\n{}", world.log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn say(machine: &mut UnixStream, text: &str) {
    machine.write_all(text.as_bytes()).await.expect("the appliance reads");
}

#[test]
fn panics_and_prompts_are_events_and_lines_of_a_boot() {
    in_world("", vec![], async |mut world| {
        let folder = world.site.parent().expect("a folder").to_path_buf();
        std::fs::write(&world.site, site(&folder)).expect("written");
        let listen = |name: &str| UnixListener::bind(folder.join(name)).expect("a socket");
        let (m01, sw1) = (listen("m01.sock"), listen("sw1.sock"));
        world.serve().await;
        let (mut m01, mut sw1) =
            (m01.accept().await.expect("it comes").0, sw1.accept().await.expect("it comes").0);
        let firmware = peer(&world, "52:54:00:77:00:01");
        assert!(rom(&firmware).is_some(), "it has an address, and a boot by that");

        say(&mut m01, "one\r\n\x1b[31mPXE-E11:\x1b[0m ARP timeout\r\nPXE-M0F: Exiting\r\n").await;
        let event = "m01 says \"PXE-E11: ARP timeout\" [pxe-error, error]; behind it: PXE-M0F: Exiting; before it: one";
        says(&world, &["events"], event).await;
        says(&world, &["boots", "m01"], "CONSOLE     pxe-error: PXE-E11: ARP timeout").await;
        says(&world, &["status"], "console: PXE-E11: ARP timeout").await;

        // A switch boots nothing from here, and has its timeline by its console. Its prompt has no newline.
        say(&mut sw1, "System Bootstrap, Version 15.2(7r)E\r\n").await;
        say(&mut sw1, "fan 3 stopped\r\n\r\nsw1 login: ").await;
        let boots = says(&world, &["boots", "sw1"], "login-prompt: sw1 login:").await;
        for part in
            ["sw1  as its console showed it", "starts: System Bootstrap", "fan: fan 3 stopped"]
        {
            assert!(boots.contains(part), "{part}: {boots}");
        }
        say(&mut m01, "fan 3 stopped\r\n").await;

        // What is said for ever is told once, and then counted.
        for _ in 0..1000 {
            say(&mut m01, "BUG: unable to handle page fault for address: 0\r\n").await;
        }
        says(&world, &["events"], "[kernel-oops, error]").await;
        let events = world.ok(&["events", "-n", "1000"]);
        assert_eq!(events.matches("[kernel-oops, error]").count(), 1, "{events}");
        assert_eq!(events.matches("[fan, warning]").count(), 1, "m01 is not of the rule: {events}");

        // Another rule, while the lines are on.
        let other = site(&folder).replace("stopped|failed", "gone");
        std::fs::write(&world.site, other).expect("written");
        assert!(world.run(&["reload"]).status.success());
        say(&mut sw1, "\r\nfan 7 gone\r\n").await;
        says(&world, &["events"], "sw1 says \"fan 7 gone\" [fan, warning]").await;
        assert!(world.stop().await);
    });
}
