//! What a machine does once, by an operator's order, when its image is up. The agent runs it, and starts
//! the machine anew afterwards: its former duty is what it then gets.

mod chosen;
mod held;
mod mkfs;
mod overwrite;
mod pattern;
mod prepare;
mod setup;
mod wipe;

use std::time::{Duration, Instant};

use crate::backoff;
use crate::console::say;
use crate::contract::{Duty, Phase};
use crate::report::Reporter;

/// Longest pause between two tries to be heard.
const RETRY_MAX: Duration = Duration::from_secs(60);
/// After so long nobody is going to hear it.
const GIVE_UP: Duration = Duration::from_secs(3600);

/// Carries an order out. True if the machine was told to stop meanwhile.
pub fn run(duty: &Duty, reporter: &mut Reporter, rings: &dyn Fn(Duration) -> bool) -> bool {
    match duty {
        Duty::Wipe(order) => wipe::run(order, reporter, rings),
        Duty::Prepare(order) => prepare::run(order, reporter, rings),
        Duty::Setup(order) => setup::run(order, reporter, rings),
    }
}

/// Until the appliance hears it, or has not for an hour: the machine is wanted elsewhere, and its console has
/// said all of it. True if told to stop first.
fn surely(reporter: &mut Reporter, rings: &dyn Fn(Duration) -> bool, phase: &Phase) -> bool {
    heard_within(GIVE_UP, reporter, rings, phase)
}

/// Until the appliance hears it, or has not for so long; true if told to stop first.
pub fn heard_within(
    patience: Duration,
    reporter: &mut Reporter,
    rings: &dyn Fn(Duration) -> bool,
    phase: &Phase,
) -> bool {
    let begun = Instant::now();
    for failures in 1u32.. {
        match reporter.tell(phase.clone()) {
            Ok(_) => break,
            Err(error) if failures == 1 => {
                say(format!("the appliance does not hear that: {error}"));
            }
            Err(error) if begun.elapsed() > patience => {
                say(format!("the appliance does not hear that, and is told no more: {error}"));
                break;
            }
            Err(_) => {}
        }
        // An appliance that is away for hours is asked once a minute.
        let wait = if failures > 6 {
            backoff::jitter(RETRY_MAX, backoff::random())
        } else {
            backoff::pause(failures, backoff::random())
        };
        if rings(wait) {
            return true;
        }
    }
    false
}
