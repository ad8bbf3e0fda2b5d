//! A site, an appliance and a rack for one test, in a network namespace of its own that ends with
//! the test, however it ends.

use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::{Duration, Instant};

use koboshi::lab::machine::Machine;
use koboshi::lab::net::{Plan, Wire};
use koboshi::lab::qemu::Spec;
use koboshi::lab::rack::Rack;
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::Child;

/// The program under test.
pub const KOBOSHI: &str = env!("CARGO_BIN_EXE_koboshi");

/// See the module.
pub struct World {
    pub rack: Rack,
    pub site: PathBuf,
    pub state: PathBuf,
    /// What sets the appliance's clock, where a test does: see faketime(1), FAKETIME_TIMESTAMP_FILE.
    pub clock: Option<PathBuf>,
    appliance: Option<Child>,
    dir: TempDir,
}

/// Runs a test in a world whose site file says `site`, with these machines racked and switched off.
pub fn in_world<F>(site: &str, specs: Vec<Spec>, test: impl FnOnce(World) -> F + Send + 'static)
where
    F: Future<Output = ()>,
{
    let site = site.to_string();
    koboshi::lab::on_wire(Plan::default(), move |wire| {
        let world = World::build(wire, &site, specs);
        test(world)
    })
    .expect("a network namespace, which needs root (or `unshare -Urn` around the tests)");
}

impl World {
    fn build(wire: Wire, site: &str, specs: Vec<Spec>) -> World {
        // Beside the cached images, so that their blobs can be linked instead of copied.
        let dir = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory for the test");
        let site_path = dir.path().join("site.toml");
        std::fs::write(&site_path, site).expect("the site file is written");
        let state = dir.path().join("state");
        std::fs::create_dir(&state).expect("a state directory");
        let rack = Rack::raise(wire, &dir.path().join("rack"), specs).expect("a rack");
        World { rack, site: site_path, state, clock: None, appliance: None, dir }
    }

    /// Puts the images that `make rack-images` made into the state.
    pub fn with_images(self) -> World {
        let cached = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/rack/state/images");
        assert!(
            cached.join("index.json").exists(),
            "{} has no images: `make rack-images` builds them",
            cached.display()
        );
        // Blobs are never written in place, so links do; index.json is replaced by rename.
        let copied = std::process::Command::new("cp")
            .arg("-al")
            .args([&cached, &self.state])
            .status()
            .expect("cp runs");
        assert!(copied.success(), "the cached images are linked");
        // A lock that two worlds share holds up both, and the log is written in place.
        let images = self.state.join("images");
        std::fs::remove_file(images.join(".lock")).expect("the lock's link goes");
        let log = std::fs::read(images.join("log.jsonl")).expect("the log of images");
        std::fs::remove_file(images.join("log.jsonl")).expect("its link goes");
        std::fs::write(images.join("log.jsonl"), log).expect("and a copy comes");
        self
    }

    /// Starts the appliance and waits until it answers.
    pub async fn serve(&mut self) {
        self.start().await;
        let deadline = Instant::now() + Duration::from_secs(30);
        while !self.run(&["status", "--json"]).status.success() {
            let ended = self.appliance.as_mut().and_then(|child| child.try_wait().ok().flatten());
            if ended.is_some() || Instant::now() > deadline {
                panic!("koboshi serve does not answer ({ended:?}):\n{}", self.log());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Starts it, and waits for nothing.
    pub async fn start(&mut self) {
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log_file())
            .expect("a log file");
        let mut command = self.rack.command(KOBOSHI);
        command.arg("serve").arg("--site").arg(&self.site).arg("--state").arg(&self.state);
        command.stderr(log);
        if let Some(clock) = &self.clock {
            command.env("LD_PRELOAD", "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1");
            command.env("FAKETIME_TIMESTAMP_FILE", clock).env("FAKETIME_NO_CACHE", "1");
            // The monotonic clock is nobody's to set.
            command.env("DONT_FAKE_MONOTONIC", "1").env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        }
        self.appliance = Some(self.rack.spawn(command).await.expect("koboshi serve starts"));
    }

    /// `kill -9`.
    pub async fn kill(&mut self) {
        let mut child = self.appliance.take().expect("the appliance runs");
        child.kill().await.expect("it is killed");
    }

    /// SIGTERM, and whether it ended well.
    pub async fn stop(&mut self) -> bool {
        let mut child = self.appliance.take().expect("the appliance runs");
        let pid = child.id().expect("it has not ended").to_string();
        self.rack.output("kill", &["-TERM", &pid]).expect("kill runs");
        child.wait().await.expect("it ends").success()
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.appliance.as_ref().and_then(Child::id).expect("the appliance runs")
    }

    /// What the appliance wrote.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    /// Not in the state, whose disk may be full.
    fn log_file(&self) -> PathBuf {
        self.dir.path().join("serve.log")
    }

    /// Runs `koboshi … --state …`.
    pub fn run(&self, words: &[&str]) -> Output {
        let state = self.state.to_str().expect("a path of ours is UTF-8");
        let mut all = words.to_vec();
        all.extend(["--state", state]);
        self.rack.output(KOBOSHI, &all).expect("koboshi runs")
    }

    /// Runs a command that has to go well; what it printed.
    pub fn ok(&self, words: &[&str]) -> String {
        let output = self.run(words);
        assert!(output.status.success(), "koboshi {words:?}: {}", text(&output));
        String::from_utf8(output.stdout).expect("koboshi prints UTF-8")
    }

    /// The same, as JSON.
    pub fn json(&self, words: &[&str]) -> Value {
        let mut all = words.to_vec();
        all.push("--json");
        serde_json::from_str(&self.ok(&all)).expect("--json prints JSON")
    }

    /// A machine of the rack.
    pub fn machine(&self, name: &str) -> &Machine {
        self.rack.machine(name).expect("the machine is racked")
    }

    /// A machine's row of `koboshi status`.
    pub fn row(&self, machine: &str) -> Value {
        let rows = self.json(&["status"]);
        let rows = rows.as_array().expect("an array");
        rows.iter().find(|row| row["machine"] == machine).cloned().unwrap_or(Value::Null)
    }

    /// Waits until a machine says it is up, in that seat (`""`: in none). On failure: its timeline and its console.
    pub async fn up(&self, machine: &str, seat: &str) -> Value {
        let deadline = Instant::now() + Duration::from_secs(400);
        loop {
            let boots = self.json(&["boots", machine, "-n", "1"]);
            let boot = &boots[0];
            if boot["stage"] == "up" && boot["plan"]["seat"].as_str().unwrap_or("") == seat {
                return boot.clone();
            }
            if Instant::now() > deadline {
                panic!(
                    "{machine} is not up in {seat}\n{}\n{}\n{}\nthe appliance said:\n{}",
                    self.ok(&["boots", machine]),
                    self.machine(machine).console().tail(60),
                    self.machine(machine).condition().await,
                    self.log()
                );
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    /// Fetches a URL from beside the appliance.
    pub fn curl(&self, url: &str) -> String {
        let output = self
            .rack
            .output(
                "curl",
                &["-sS", "--fail", "--max-time", "20", "--retry", "5", "--retry-connrefused", url],
            )
            .expect("curl runs");
        assert!(output.status.success(), "curl {url}: {}", text(&output));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

/// Both outputs of a command, for a message.
pub fn text(output: &Output) -> String {
    format!(
        "{}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// The stages of a boot's timeline, each once, in order.
pub fn stages(boot: &Value) -> Vec<String> {
    let marks = boot["marks"].as_array().expect("a boot has marks");
    let mut stages: Vec<String> =
        marks.iter().map(|mark| mark["stage"].as_str().expect("a name").to_string()).collect();
    stages.dedup();
    stages
}
