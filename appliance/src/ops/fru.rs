//! `koboshi fru m01`: what a machine and its parts say they are: maker, model, serial numbers.

use koboshi_ipmi::Error;
use koboshi_ipmi::commands::fru::{self, Inventory};
use koboshi_ipmi::commands::sdr;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::many::{Failure, On, Operation, Said};

/// What is asked.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct Query {}

impl Operation for Query {
    const NAME: &'static str = "fru";

    fn headings(&self) -> &'static [&'static str] {
        &[
            "PART      ",
            "AREA   ",
            "MAKER     ",
            "NAME              ",
            "PART NUMBER",
            "SERIAL    ",
            "NOTE",
        ]
    }

    async fn run(&self, on: &On) -> Result<Said, Failure> {
        let bmc = on.bmc()?;
        let repository = match sdr::load(&bmc, on.records().as_ref()).await {
            Ok(repository) => Some(repository),
            // Its own inventory needs no records.
            Err(Error::Refused { .. } | Error::Malformed(_) | Error::Unsupported(_)) => None,
            Err(error) => return Err(error.into()),
        };
        let found = fru::all(&bmc, repository.as_ref()).await?;
        let word = match found.len() {
            1 => "1 part".to_string(),
            many => format!("{many} parts"),
        };
        let cells = found.iter().flat_map(rows).collect();
        Ok(Said { word, cells, data: json!({ "parts": found }) })
    }
}

fn rows(part: &Inventory) -> Vec<Vec<String>> {
    let name = if part.name.is_empty() { format!("FRU {}", part.id) } else { part.name.clone() };
    let row = |area: &str, rest: [&str; 4], note: String| {
        let mut row = vec![name.clone(), area.to_string()];
        let or = |text: &&str| if text.is_empty() { "-".to_string() } else { text.to_string() };
        row.extend(rest.iter().map(or));
        row.push(note);
        row
    };
    let mut rows = Vec::new();
    if let Some(chassis) = &part.chassis {
        let note = chassis.custom.join(", ");
        rows.push(row("chassis", ["", &chassis.kind, &chassis.part, &chassis.serial], note));
    }
    if let Some(board) = &part.board {
        let note = board.custom.join(", ");
        let rest = [&*board.manufacturer, &board.name, &board.part, &board.serial];
        rows.push(row("board", rest, note));
    }
    if let Some(product) = &part.product {
        let mut notes: Vec<String> = Vec::new();
        if !product.version.is_empty() {
            notes.push(format!("version {}", product.version));
        }
        if !product.asset.is_empty() {
            notes.push(format!("asset {}", product.asset));
        }
        notes.extend(product.custom.iter().cloned());
        let rest = [&*product.manufacturer, &product.name, &product.part, &product.serial];
        rows.push(row("product", rest, notes.join(", ")));
    }
    for note in &part.notes {
        rows.push(row("-", [""; 4], note.clone()));
    }
    if rows.is_empty() {
        rows.push(row("-", [""; 4], String::new()));
    }
    rows
}
