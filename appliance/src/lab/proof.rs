//! `koboshi image test`: one machine of the rack boots a version of an image, and what comes of that is judged:
//! whether it comes up, whether its services do, whether its console says what is expected.
//!
//! It has an appliance of its own on a copy of the store's index; blobs are the store's. Its directory is under
//! the state directory and goes with it; what a kill left is cleared away by the next test.

use std::fs::File;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use regex::Regex;
use rustix::fs::{FlockOperation, flock};
use serde::Serialize;

use super::appliance::{Appliance, own_path};
use super::blueprint::{self, Blueprint};
use super::bmc::Bmcs;
use super::demo;
use super::machine::{Machine, Power};
use super::qemu::{Accel, Disk, Firmware};
use super::rack::Rack;
use crate::ops::boots::Boot;
use koboshi_pxe::boots::Stage;

/// What a kernel prints when it cannot go on.
const PANIC: &str = "Kernel panic - not syncing";
/// What `koboshi-init` prints when it gives up, also where it has nobody to report to.
const RESCUE: &str = "koboshi: RESCUE: ";
/// What systemd prints of a unit that failed.
const FAILED: &str = "Failed to start ";
/// Lines of its console that are shown of one that failed.
const TAIL: usize = 40;
/// A shell on the console answers within this, or there is none.
const PROMPT: Duration = Duration::from_secs(10);
const MACHINE: &str = "m01";
const LOCK: &str = "lock";

/// What is to be proven.
#[derive(Debug, Clone)]
pub struct Claim {
    /// State directory whose images are meant.
    pub state: PathBuf,
    /// `web@3`
    pub image: String,
    /// `root` of a role: `ram` or `overlay`.
    pub root: String,
    /// Of the machine.
    pub memory_mib: u32,
    /// Its firmware.
    pub firmware: Firmware,
    /// How its instructions are executed.
    pub accel: Accel,
    /// Within which it has to be up and have said all.
    pub within: Duration,
    /// What its console has to show.
    pub expect: Vec<Regex>,
    /// A console script that has to go well once it is up.
    pub script: Option<PathBuf>,
    /// Units that may fail.
    pub may_fail: Vec<String>,
    /// What its seat says by `args`.
    pub args: Vec<(String, String)>,
    /// Data disks of the machine.
    pub disks: Vec<DataDisk>,
}

/// A data disk of the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataDisk {
    /// Its size.
    pub mib: u32,
    /// It holds an ext4 of this label; nothing if none.
    pub label: Option<String>,
    /// Where the seat has it, by its label.
    pub at: Option<String>,
}

/// What came of it.
#[derive(Debug, Clone, Serialize)]
pub struct Proof {
    /// `web@3`
    pub image: String,
    /// It came up, and all was as claimed.
    pub well: bool,
    /// Why not, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Seconds from power-on until it was up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub up: Option<f64>,
    /// Who said that it is: `systemd running`, `init`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// Units that failed, also those that may.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub failed: Vec<String>,
    /// The end of its console, where it did not go well.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub console: Vec<String>,
}

/// Boots it and judges. Blocks; brings its own runtime. `step` is told how far it is.
pub fn prove(claim: Claim, step: impl Fn(&str) + Send + 'static) -> anyhow::Result<Proof> {
    let scratch = Scratch::make(&claim.state.join("test"))?;
    let site = scratch.furnish(&claim)?;
    let Blueprint { plan, mut specs, bmcs } = blueprint::read(&site)?;
    for spec in &mut specs {
        spec.memory_mib = claim.memory_mib;
        spec.firmware = claim.firmware;
        spec.accel = claim.accel;
        let disk = |(n, disk): (usize, &DataDisk)| Disk::new(disk.mib, &format!("disk{n}"));
        spec.disks = claim.disks.iter().enumerate().map(disk).collect();
    }
    super::on_wire(plan, move |wire| async move {
        let stop = demo::stop_token();
        let rack = std::sync::Arc::new(Rack::raise(wire, &scratch.dir.join("rack"), specs)?);
        let _bmcs = Bmcs::plug_in(&rack, bmcs)?;
        let state = scratch.state();
        let appliance = Appliance::start(&rack, &own_path(), &site, &state).await?;
        let machine = rack.machine(MACHINE)?.clone();
        for (n, disk) in claim.disks.iter().enumerate() {
            if let Some(label) = &disk.label {
                label_disk(&rack.dir().join(format!("{MACHINE}.disk{n}")), label).await?;
            }
        }
        machine.power_on().await?;
        let mut test =
            Test { claim: &claim, appliance: &appliance, machine: &machine, step: &step };
        let proof = tokio::select! {
            proof = test.judge() => proof,
            () = stop.cancelled() => Err(anyhow::anyhow!("interrupted: nothing is proven")),
        };
        machine.power_off().await?;
        appliance.stop().await;
        proof
    })?
}

/// A test under way.
struct Test<'a> {
    claim: &'a Claim,
    appliance: &'a Appliance,
    machine: &'a Machine,
    step: &'a (dyn Fn(&str) + Send),
}

impl Test<'_> {
    async fn judge(&mut self) -> anyhow::Result<Proof> {
        let deadline = Instant::now() + self.claim.within;
        let mut proof = Proof {
            image: self.claim.image.clone(),
            well: false,
            why: None,
            up: None,
            by: None,
            failed: Vec::new(),
            console: Vec::new(),
        };
        proof.why = match self.up(deadline, &mut proof).await? {
            Some(why) => Some(why),
            None => self.fits(deadline, &mut proof).await?,
        };
        proof.well = proof.why.is_none();
        if !proof.well {
            let tail = self.machine.console().tail(TAIL);
            proof.console = tail.lines().map(str::to_string).collect();
        }
        Ok(proof)
    }

    /// Until it is up; or why it is not.
    async fn up(&self, deadline: Instant, proof: &mut Proof) -> anyhow::Result<Option<String>> {
        let began = Instant::now();
        let mut said = None;
        loop {
            let boots = self.boots().await?;
            let stage = boots.first().map(|boot| boot.stage);
            if let Some(stage) = stage.filter(|stage| said != Some(*stage)) {
                said = Some(stage);
                (self.step)(&format!("{:>4} s  {}", began.elapsed().as_secs(), stage.as_str()));
            }
            let note = |boot: &Boot| boot.marks.last().map(|mark| mark.note.clone());
            let note = boots.first().and_then(note).unwrap_or_default();
            match stage {
                Some(Stage::Up) => {
                    proof.up = Some(began.elapsed().as_secs_f64());
                    proof.by = Some(note);
                    return Ok(None);
                }
                Some(Stage::Rescue) => return Ok(Some(format!("it gave up: {note}"))),
                _ => {}
            }
            let before = boots.get(1).filter(|boot| boot.stage >= Stage::Kernel);
            if let Some(before) = before {
                let stage = before.stage.as_str();
                return Ok(Some(format!(
                    "it started anew after `{stage}`, without having been up"
                )));
            }
            if let Some(why) = self.despairs() {
                return Ok(Some(why));
            }
            if self.machine.status().await == Power::Off {
                return Ok(Some("it switched itself off".to_string()));
            }
            if Instant::now() > deadline {
                let stage = stage.map_or("its firmware", Stage::as_str);
                let seconds = self.claim.within.as_secs();
                return Ok(Some(format!(
                    "it was not up within {seconds} s, and came to `{stage}`"
                )));
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    /// What its console says when nothing more is to come.
    fn despairs(&self) -> Option<String> {
        let text = self.machine.console().text_since(0);
        if text.contains(PANIC) {
            return Some("its kernel panicked".to_string());
        }
        let gave_up = text.lines().find_map(|line| line.split_once(RESCUE))?.1;
        Some(format!("it gave up: {gave_up}"))
    }

    /// Why one that is up is not as claimed, if it is not.
    async fn fits(&self, deadline: Instant, proof: &mut Proof) -> anyhow::Result<Option<String>> {
        if proof.by.as_deref() == Some("systemd degraded") {
            proof.failed = self.failed().await;
            let may = |unit: &String| self.claim.may_fail.iter().any(|may| unit.contains(may));
            let wrong: Vec<&str> =
                proof.failed.iter().filter(|unit| !may(unit)).map(String::as_str).collect();
            if !wrong.is_empty() || proof.failed.is_empty() {
                let units =
                    if wrong.is_empty() { "which is not told".into() } else { wrong.join(", ") };
                return Ok(Some(format!("a unit failed: {units}")));
            }
        }
        for expected in &self.claim.expect {
            (self.step)(&format!("        waits for {expected}"));
            while !expected.is_match(&self.machine.console().text_since(0)) {
                if Instant::now() > deadline {
                    return Ok(Some(format!("its console did not show {expected}")));
                }
                tokio::time::sleep(Duration::from_millis(300)).await;
            }
        }
        match &self.claim.script {
            Some(script) => self.run(script, deadline).await,
            None => Ok(None),
        }
    }

    /// Units that failed: by systemd's own word, if a shell is on the console, else by what it printed.
    async fn failed(&self) -> Vec<String> {
        let mut shell = self.machine.console().viewer_from_now();
        let list = "systemctl list-units --failed --no-legend --plain --no-pager | cut -d' ' -f1";
        if shell.send("\n").await.is_ok()
            && shell.expect("# ", PROMPT).await.is_ok()
            && let Ok(said) = shell.shell(list, PROMPT).await
        {
            return said.lines().map(|line| line.trim().to_string()).collect();
        }
        let text = self.machine.console().text_since(0);
        let units = text.lines().filter_map(|line| line.split_once(FAILED));
        units.map(|(_, unit)| unit.trim_end_matches('.').trim().to_string()).collect()
    }

    async fn run(&self, script: &Path, deadline: Instant) -> anyhow::Result<Option<String>> {
        (self.step)(&format!("        runs {}", script.display()));
        let Some(path) = script.to_str() else { bail!("{} is no UTF-8", script.display()) };
        let mut command = self.appliance.koboshi(&["console", MACHINE, "--script", path]);
        let left = deadline.saturating_duration_since(Instant::now());
        let Ok(output) = tokio::time::timeout(left, command.output()).await else {
            return Ok(Some(format!("{} did not end in time", script.display())));
        };
        let output = output.context("running koboshi console --script")?;
        if output.status.success() {
            return Ok(None);
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Ok(Some(format!("{} failed: {}", script.display(), said.trim())))
    }

    async fn boots(&self) -> anyhow::Result<Vec<Boot>> {
        let output =
            self.appliance.koboshi(&["boots", MACHINE, "-n", "2", "--json"]).output().await?;
        serde_json::from_slice(&output.stdout).with_context(|| {
            let said = String::from_utf8_lossy(&output.stderr);
            format!("koboshi boots: {}\n{}", said.trim(), self.appliance.log_tail())
        })
    }
}

/// The directory of one test. While it is in use its lock is held.
struct Scratch {
    dir: PathBuf,
    _lock: File,
}

impl Scratch {
    fn make(base: &Path) -> anyhow::Result<Scratch> {
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(true).mode(0o700);
        builder.create(base).with_context(|| format!("making {}", base.display()))?;
        sweep(base);
        let dir = base.join(std::process::id().to_string());
        builder.create(&dir).with_context(|| format!("making {}", dir.display()))?;
        let dir = dir.canonicalize().with_context(|| dir.display().to_string())?;
        let path = dir.join(LOCK);
        let lock = File::create(&path).with_context(|| path.display().to_string())?;
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            bail!("{} is in use", dir.display());
        }
        Ok(Scratch { dir, _lock: lock })
    }

    fn state(&self) -> PathBuf {
        self.dir.join("s")
    }

    /// A site of one machine, and a store of its own whose blobs are the real one's.
    fn furnish(&self, claim: &Claim) -> anyhow::Result<PathBuf> {
        let (from, to) = (claim.state.join("images"), self.state().join("images"));
        let make = |dir: &Path| {
            std::fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))
        };
        make(&to)?;
        for name in ["oci-layout", "index.json"] {
            let copied = std::fs::copy(from.join(name), to.join(name));
            copied.with_context(|| format!("copying {}", from.join(name).display()))?;
        }
        let blobs = from.join("blobs").canonicalize().context("the store's blobs")?;
        std::os::unix::fs::symlink(blobs, to.join("blobs")).context("linking the store's blobs")?;
        let site = self.dir.join("site.toml");
        let text = format!(
            r#"[site]
name = "test"
[net]
interface = "kb0"
cidr = "10.77.0.0/24"
gateway = "10.77.0.1"
[roles.test]
image = "{}"
root = "{}"
[defaults.bmc]
user = "admin"
password-file = "bmc.pw"
[machines]
{MACHINE} = {{ mac = ["52:54:00:77:00:01"], bmc = "10.78.0.11", console = "sol" }}
[matrix]
{MACHINE} = "test1"
{}"#,
            claim.image,
            claim.root,
            of_the_seat(claim)
        );
        std::fs::write(&site, text).with_context(|| format!("writing {}", site.display()))?;
        demo::password(&self.dir.join("bmc.pw"))?;
        Ok(site)
    }
}

/// Tables of the seat, with what whoever tests gives it.
fn of_the_seat(claim: &Claim) -> String {
    let text = |text: &String| toml::Value::String(text.clone());
    let args = claim.args.iter().map(|(name, value)| (name.clone(), text(value)));
    let disk = |disk: &DataDisk| {
        let what = format!("LABEL={}", disk.label.as_ref()?);
        Some((disk.at.clone()?, text(&what)))
    };
    let disks = claim.disks.iter().filter_map(disk).collect();
    let inside = |name: &str, value| toml::Table::from_iter([(name.to_string(), value)]);
    let mut seat = inside("args", toml::Value::Table(args.collect()));
    seat.insert("role".to_string(), text(&"test".to_string()));
    seat.insert("ip".to_string(), text(&"10.77.0.11".to_string()));
    seat.insert("disks".to_string(), toml::Value::Table(disks));
    inside("seats", toml::Value::Table(inside("test1", toml::Value::Table(seat)))).to_string()
}

async fn label_disk(path: &Path, label: &str) -> anyhow::Result<()> {
    let mut mke2fs = tokio::process::Command::new("/sbin/mke2fs");
    mke2fs.args(["-q", "-F", "-t", "ext4", "-L", label]).arg(path);
    let output = mke2fs.output().await.context("running mke2fs (Debian's e2fsprogs)")?;
    if !output.status.success() {
        bail!("mke2fs: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.dir) {
            tracing::warn!(%error, "{} stays behind", self.dir.display());
        }
    }
}

/// Clears away what tests left that were killed.
fn sweep(base: &Path) {
    for entry in std::fs::read_dir(base).into_iter().flatten().flatten() {
        let dir = entry.path();
        // One without a lock is being made, in this moment, or was to be.
        let Ok(lock) = File::open(dir.join(LOCK)) else { continue };
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok() {
            // Somebody else may be clearing it away too.
            let _gone = std::fs::remove_dir_all(&dir).is_ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is typed comes to the seat as it is, and never to another table.
    #[test]
    fn a_seat_says_what_was_typed() {
        let claim = Claim {
            state: PathBuf::new(),
            image: "db@1".into(),
            root: "ram".into(),
            memory_mib: 1024,
            firmware: Firmware::Bios,
            accel: Accel::Tcg,
            within: PROMPT,
            expect: Vec::new(),
            script: None,
            may_fail: Vec::new(),
            args: vec![("a\"]\nb".into(), "1\"\n[matrix]".into()), ("port".into(), "80".into())],
            disks: vec![
                DataDisk { mib: 1, label: Some("db".into()), at: Some("/data".into()) },
                DataDisk { mib: 1, label: Some("log".into()), at: None },
            ],
        };
        let table: toml::Table = of_the_seat(&claim).parse().expect("TOML");
        let seat = &table["seats"]["test1"];
        assert_eq!(seat["args"]["a\"]\nb"].as_str(), Some("1\"\n[matrix]"));
        assert_eq!(seat["args"]["port"].as_str(), Some("80"));
        assert_eq!(seat["disks"].to_string(), "{ \"/data\" = \"LABEL=db\" }");
        assert!(table.len() == 1 && seat.as_table().map(|seat| seat.len()) == Some(4));
    }

    #[test]
    fn what_a_kill_left_is_cleared_away_and_what_is_in_use_stays() {
        let base = tempfile::tempdir().expect("a directory");
        let left = base.path().join("1");
        std::fs::create_dir(&left).expect("made");
        std::fs::write(left.join(LOCK), "").expect("written");
        let scratch = Scratch::make(base.path()).expect("made");
        assert!(!left.exists() && scratch.dir.exists());
        sweep(base.path());
        assert!(scratch.dir.exists(), "it is in use");
        let dir = scratch.dir.clone();
        drop(scratch);
        assert!(!dir.exists());
    }
}
