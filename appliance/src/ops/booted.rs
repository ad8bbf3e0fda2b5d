//! `koboshi boots WHO --at TIME`: what a machine had booted at a moment, from records that outlive its
//! timelines.

use serde::{Deserialize, Serialize};

use super::table::{ago, clock, table};
use crate::api::Refusal;
use crate::app::App;
use crate::ledger::now_ms;
use crate::store::{Booted, BootedInto};

/// What is asked.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Query {
    /// A machine, a seat or a MAC.
    pub who: String,
    /// When, Unix milliseconds; all there is if none.
    #[serde(default)]
    pub at: Option<u64>,
}

/// What is known.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// The machine.
    pub machine: String,
    /// When, Unix milliseconds.
    pub at: Option<u64>,
    /// The boot that counted then; all boots, newest first, if no time was asked for.
    pub boots: Vec<Booted>,
    /// The boot after it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<Booted>,
    /// Unix milliseconds of the oldest boot that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<u64>,
}

/// Answers from the store.
pub fn answer(app: &App, query: &Query) -> Result<Answer, Refusal> {
    let machine = super::boots::machine(app, &query.who)?;
    let boots = app.store.booted(&machine).map_err(|error| Refusal::failed(error.to_string()))?;
    Ok(at(machine, query.at, boots))
}

/// `boots`: newest first.
fn at(machine: String, at: Option<u64>, mut boots: Vec<Booted>) -> Answer {
    let since = boots.last().map(|boot| boot.opened);
    let Some(moment) = at else { return Answer { machine, at, boots, next: None, since } };
    let before = boots.partition_point(|boot| boot.opened > moment);
    let next = before.checked_sub(1).and_then(|next| boots.get(next)).cloned();
    let boots = boots.drain(..).nth(before).into_iter().collect();
    Answer { machine, at, boots, next, since }
}

/// For a terminal.
pub fn show(answer: &Answer) -> String {
    let Answer { machine, boots, next, since, .. } = answer;
    let Some(at) = answer.at else { return history(machine, boots) };
    let Some(boot) = boots.first() else {
        return match since {
            Some(since) => format!("nothing is known of {machine} before {}\n", clock(*since)),
            None => format!("no boot of {machine} is known\n"),
        };
    };
    let mut text = format!("{machine} at {}: {}\n", clock(at), what(boot.what.as_ref()));
    if let Some(digest) = boot.what.as_ref().and_then(|what| what.digest.as_ref()) {
        text.push_str(&format!("  {digest}\n"));
    }
    let up = match boot.up {
        Some(up) => format!(", up after {}", ago(up.saturating_sub(boot.opened))),
        None => ", and is not known to have come up".to_string(),
    };
    text.push_str(&format!("  booted {}{up}\n", clock(boot.opened)));
    if let Some(down) = boot.down.filter(|down| *down <= at) {
        text.push_str(&format!("  shut down {}: it was off then\n", clock(down)));
    }
    match next {
        Some(next) if next.what == boot.what => {
            let more = match next.times {
                1 => String::new(),
                times => format!(" (of {} boots into it since)", times),
            };
            text.push_str(&format!("  booted the same again {}{more}\n", clock(next.opened)));
        }
        Some(next) => text.push_str(&format!(
            "  until {}, when it booted {}\n",
            clock(next.opened),
            what(next.what.as_ref())
        )),
        None if at > now_ms() => text.push_str("  so far: that is still to come\n"),
        None => text.push_str("  and nothing else since\n"),
    }
    text
}

fn what(what: Option<&BootedInto>) -> String {
    match what {
        Some(into) => {
            let seat = into.seat.as_deref().map_or_else(|| "no seat".to_string(), str::to_string);
            format!("{} (role {}, {seat})", into.image, into.role)
        }
        None => "nothing to boot".to_string(),
    }
}

fn history(machine: &str, boots: &[Booted]) -> String {
    if boots.is_empty() {
        return format!("no boot of {machine} is known\n");
    }
    let or = |text: Option<&String>| text.cloned().unwrap_or_else(|| "-".to_string());
    let rows: Vec<Vec<String>> = boots
        .iter()
        .rev()
        .map(|boot| {
            let into = boot.what.as_ref();
            let digest = into.and_then(|into| into.digest.as_ref());
            let short = digest.map(|digest| digest.chars().take(19).collect::<String>());
            vec![
                clock(boot.opened),
                or(into.map(|into| &into.image)),
                or(into.map(|into| &into.role)),
                or(into.and_then(|into| into.seat.as_ref())),
                boot.up.map_or_else(|| "-".to_string(), |up| ago(up.saturating_sub(boot.opened))),
                if boot.times > 1 { boot.times.to_string() } else { "-".to_string() },
                or(short.as_ref()),
            ]
        })
        .collect();
    table(&["BOOTED", "IMAGE", "ROLE", "SEAT", "UP AFTER", "BOOTS", "DIGEST"], &rows)
}

#[cfg(test)]
mod tests {
    use koboshi_pxe::BootId;

    use super::*;

    fn boot(opened: u64, image: &str) -> Booted {
        let what = (!image.is_empty()).then(|| BootedInto {
            image: image.to_string(),
            digest: None,
            role: "web".to_string(),
            seat: Some("web1".to_string()),
        });
        Booted { opened, id: BootId([1; 16]), what, up: None, down: None, times: 1 }
    }

    #[test]
    fn the_boot_that_counted_is_the_last_one_before() {
        let all = vec![boot(300, "web@4"), boot(200, ""), boot(100, "web@3")];
        let of = |moment| {
            let answer = at("m01".to_string(), Some(moment), all.clone());
            let opened = |boot: &Booted| boot.opened;
            (answer.boots.first().map(opened), answer.next.as_ref().map(opened))
        };
        assert_eq!(of(99), (None, Some(100)));
        assert_eq!(of(100), (Some(100), Some(200)));
        assert_eq!(of(199), (Some(100), Some(200)));
        assert_eq!(of(250), (Some(200), Some(300)));
        assert_eq!(of(9999), (Some(300), None));
        let told = show(&at("m01".to_string(), Some(250), all.clone()));
        assert!(told.contains("nothing to boot"), "{told}");
        assert!(told.contains("when it booted web@4 (role web, web1)"), "{told}");
        assert!(show(&at("m01".to_string(), Some(99), all)).contains("nothing is known"));
    }
}
