//! What a machine does once, by an operator's order, when its image is up. The agent runs it, and starts
//! the machine anew afterwards: its former duty is what it then gets.

mod overwrite;
mod pattern;
mod wipe;

use std::time::Duration;

use crate::backoff;
use crate::console::say;
use crate::contract::{Duty, Phase};
use crate::report::Reporter;

/// Longest pause between two tries to be heard.
const RETRY_MAX: Duration = Duration::from_secs(60);

/// Carries an order out. True if the machine was told to stop meanwhile.
pub fn run(duty: &Duty, reporter: &mut Reporter, rings: &dyn Fn(Duration) -> bool) -> bool {
    match duty {
        Duty::Wipe(order) => wipe::run(order, reporter, rings),
    }
}

/// Until the appliance hears it; true if told to stop first.
pub fn surely(reporter: &mut Reporter, rings: &dyn Fn(Duration) -> bool, phase: &Phase) -> bool {
    for failures in 1u32.. {
        match reporter.tell(phase.clone()) {
            Ok(_) => break,
            Err(error) if failures == 1 => {
                say(format!("the appliance does not hear that: {error}"))
            }
            Err(_) => {}
        }
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
