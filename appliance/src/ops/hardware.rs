//! `koboshi hardware m07`: what a machine is made of: what it tells of itself at every boot, and what its last set-up
//! found in slots and sockets and in its BMC.

use koboshi_pxe::Mac;
use serde::{Deserialize, Serialize};

use super::table::ago;
use crate::api::Refusal;
use crate::app::App;
use crate::hardware::{self, Record};
use crate::ledger::now_ms;
use crate::surveys::{self, Surveyed};

/// What is asked.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Query {
    /// Machine, or a MAC.
    pub who: String,
}

/// All that is known.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Answer {
    /// What its last boot told.
    pub told: Record,
    /// What its last set-up found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub surveyed: Option<Surveyed>,
    /// Where that disagrees with its past or with the site.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub evidence: Vec<String>,
}

/// What is known of one machine, known to the site or not.
pub fn answer(app: &App, query: &Query) -> Result<Answer, Refusal> {
    let site = app.site.load();
    let machine = match query.who.parse::<Mac>() {
        Ok(mac) => match site.machine_by_mac(mac) {
            Some((name, _)) => name.to_string(),
            None => mac.to_string(),
        },
        Err(_) => super::one(&site, &query.who)?.to_string(),
    };
    let Some(told) = app.ledger.hardware().remove(&machine) else {
        let help = "its next boot by the network tells it; `koboshi status` lists who was heard of";
        let error = format!("nothing is known of what {machine} is made of");
        return Err(Refusal::not_found(error, Some(help.to_string())));
    };
    Ok(Answer {
        told,
        surveyed: app.ledger.survey(&machine),
        evidence: app.ledger.evidence().remove(&machine).unwrap_or_default(),
    })
}

/// For a terminal.
pub fn show(answer: &Answer) -> String {
    let now = now_ms();
    let Record { machine, mac, at, hardware, .. } = &answer.told;
    let known = if *machine == mac.to_string() { String::new() } else { format!(" ({mac})") };
    let mut text =
        format!("{machine}{known}, as it boots, the same for {}\n", ago(now.saturating_sub(*at)));
    for line in hardware::lines(hardware) {
        text.push_str(&format!("  {line}\n"));
    }
    match &answer.surveyed {
        Some(Surveyed { at, survey, .. }) => {
            text.push_str(&format!("surveyed {} ago\n", ago(now.saturating_sub(*at))));
            for line in surveys::lines(survey) {
                text.push_str(&format!("  {line}\n"));
            }
        }
        None => text.push_str(&format!(
            "`koboshi maintain {machine} setup` looks into its slots and sockets, and asks its BMC\n"
        )),
    }
    for line in &answer.evidence {
        text.push_str(&format!("EVIDENCE: {line}\n"));
    }
    text
}
