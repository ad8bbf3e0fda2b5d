//! `koboshi receipt ls|show|verify|key`: what was done to disks, signed. All of it works on files, without an
//! appliance, and `verify` anywhere: with the receipt, the public key, and this program or OpenSSL.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Subcommand;
use koboshi_initramfs::contract::duty::Prepared;
use serde_json::json;

use super::table::table;
use crate::receipts::{Receipt, Receipts, Signed, public_key, read, verify};
use crate::surveys;

/// What may be typed.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// All receipts of this appliance
    Ls {
        /// Where they are
        #[command(flatten)]
        at: At,
    },
    /// What one says
    Show {
        /// Its name, as `ls` shows it, or a file
        receipt: String,
        /// Where they are
        #[command(flatten)]
        at: At,
    },
    /// Whether receipts are as they were signed: all, or these. Exit code 1 if one is not
    #[command(after_help = "Anybody can, without koboshi:\n  \
        jq -cS .receipt FILE | tr -d '\\n' > text; jq -r .signature FILE | xxd -r -p > sig\n  \
        openssl pkeyutl -verify -pubin -inkey KEY.pem -rawin -in text -sigfile sig")]
    Verify {
        /// Names, or files
        receipts: Vec<String>,
        /// The public key that `koboshi receipt key` printed; this appliance's if none
        #[arg(long, value_name = "FILE")]
        key: Option<PathBuf>,
        /// Where they are
        #[command(flatten)]
        at: At,
    },
    /// Print the public key, for whoever shall verify receipts
    Key {
        /// Where they are
        #[command(flatten)]
        at: At,
    },
}

/// Where they are, and for whom they are shown.
#[derive(Debug, Clone, clap::Args)]
pub struct At {
    /// State directory of the appliance
    #[arg(long, value_name = "DIR", default_value = "/var/lib/koboshi", env = "KOBOSHI_STATE")]
    state: PathBuf,
    /// For programs
    #[arg(long)]
    json: bool,
}

/// Runs what was typed; what is to be printed, and whether all was well.
pub fn run(command: Command) -> anyhow::Result<(String, bool)> {
    match command {
        Command::Ls { at } => {
            let receipts = Receipts::of(&at.state);
            let names = receipts.names().context("reading the receipts")?;
            let mut all = Vec::new();
            for name in names {
                let signed = receipts.read(&name).with_context(|| name.clone())?;
                all.push((name, signed));
            }
            Ok((ls(&all, at.json)?, true))
        }
        Command::Show { receipt, at } => {
            let signed = one(&at.state, &receipt)?;
            match at.json {
                true => Ok((serde_json::to_string_pretty(&signed)? + "\n", true)),
                false => Ok((show(&signed)?, true)),
            }
        }
        Command::Verify { receipts, key, at } => {
            let key = match key {
                Some(path) => {
                    fs::read_to_string(&path).with_context(|| path.display().to_string())?
                }
                None => {
                    Receipts::of(&at.state).public_pem().context("the key of this appliance")?
                }
            };
            let key = public_key(&key).map_err(anyhow::Error::msg)?;
            let names = match receipts.is_empty() {
                true => Receipts::of(&at.state).names().context("reading the receipts")?,
                false => receipts,
            };
            let (mut text, mut well, mut all) = (String::new(), true, Vec::new());
            for name in names {
                let outcome = one(&at.state, &name).map_err(|error| format!("{error:#}"));
                let outcome = outcome.and_then(|signed| verify(&signed, &key));
                well &= outcome.is_ok();
                match &outcome {
                    Ok(()) => text.push_str(&format!("{name}: well\n")),
                    Err(why) => text.push_str(&format!("{name}: NOT GENUINE: {why}\n")),
                }
                all.push(json!({ "receipt": name, "well": outcome.is_ok(), "why": outcome.err() }));
            }
            match at.json {
                true => Ok((serde_json::to_string_pretty(&all)? + "\n", well)),
                false => Ok((text, well)),
            }
        }
        Command::Key { at } => Ok((Receipts::of(&at.state).public_pem().context("the key")?, true)),
    }
}

/// By its name in this appliance, or a file.
fn one(state: &Path, receipt: &str) -> anyhow::Result<Signed> {
    match Receipts::of(state).read(receipt) {
        Ok(signed) => Ok(signed),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let path = Path::new(receipt);
            if !path.exists() {
                bail!(
                    "no receipt {receipt:?}, and no file of that name; `koboshi receipt ls` has all"
                );
            }
            Ok(read(path)?)
        }
        Err(error) => Err(error.into()),
    }
}

fn ls(all: &[(String, Signed)], json: bool) -> anyhow::Result<String> {
    if json {
        let named =
            all.iter().map(|(name, signed)| json!({ "name": name, "receipt": signed.receipt }));
        return Ok(serde_json::to_string_pretty(&named.collect::<Vec<_>>())? + "\n");
    }
    let word = |signed: &Signed, key: &str| {
        signed.receipt.get(key).and_then(|value| value.as_str()).unwrap_or("-").to_string()
    };
    let cells = all.iter().map(|(name, signed)| {
        let ended = word(signed, "ended");
        vec![
            name.clone(),
            word(signed, "machine"),
            ended,
            word(signed, "operator"),
            word(signed, "result"),
        ]
    });
    Ok(table(&["RECEIPT", "MACHINE", "ENDED", "BY", "RESULT"], &cells.collect::<Vec<_>>()))
}

fn show(signed: &Signed) -> anyhow::Result<String> {
    let receipt: Receipt = serde_json::from_value(signed.receipt.clone())
        .context("it is a newer koboshi's; --json shows it as it is")?;
    let mut text = format!(
        "{} of {} ({}), site {}, ticket {}\n  {}\n  ordered {} by {}\n  begun   {} (boot {})\n  ended   {}\n",
        receipt.duty,
        receipt.machine,
        receipt.says_it_is.join(", "),
        receipt.site,
        receipt.ticket,
        receipt.result,
        receipt.ordered,
        receipt.operator,
        receipt.began,
        receipt.boot,
        receipt.ended
    );
    let cells: Vec<Vec<String>> = receipt
        .disks
        .iter()
        .map(|disk| {
            let faults = format!("{}/{}/{}", disk.bad, disk.unread, disk.differing);
            vec![
                disk.name.clone(),
                disk.serial.clone(),
                disk.model.clone(),
                format!("{} MiB", disk.bytes >> 20),
                if disk.wiped { "yes" } else { "NO" }.to_string(),
                disk.steps.join(", "),
                format!("{} MiB", disk.verified >> 20),
                faults,
                disk.note.clone(),
            ]
        })
        .collect();
    if !cells.is_empty() {
        let headings = [
            "DISK",
            "SERIAL",
            "MODEL",
            "SIZE",
            "WIPED",
            "STEPS",
            "READ BACK",
            "BAD/UNREAD/OTHER",
            "NOTE",
        ];
        text.push_str(&table(&headings, &cells));
    }
    let prepared: Vec<Vec<String>> = receipt.prepared.iter().map(prepared).collect();
    if !prepared.is_empty() {
        let headings = [
            "DISK",
            "SERIAL",
            "MODEL",
            "SIZE",
            "PREPARED",
            "ON",
            "FS",
            "LABEL",
            "UUID",
            "HELD BEFORE",
            "NOTE",
        ];
        text.push_str(&table(&headings, &prepared));
    }
    for line in receipt.survey.iter().flat_map(surveys::lines) {
        text.push_str(&format!("  {line}\n"));
    }
    receipt.witnesses.iter().for_each(|line| text.push_str(&format!("- {line}\n")));
    text.push_str(&format!("signed with {}\n", signed.key));
    Ok(text)
}

fn prepared(disk: &Prepared) -> Vec<String> {
    vec![
        disk.name.clone(),
        disk.serial.clone(),
        disk.model.clone(),
        format!("{} MiB", disk.bytes >> 20),
        if disk.prepared { "yes" } else { "NO" }.to_string(),
        disk.device.clone(),
        disk.fs.clone(),
        disk.label.clone(),
        disk.uuid.clone(),
        if disk.held.is_empty() { "nothing".to_string() } else { disk.held.join(", ") },
        disk.note.clone(),
    ]
}
