//! A script that an operator wrote, and a machine that says anything: faults point into the script, a run ends, and
//! what it keeps and types is bounded.

#![no_main]

use std::sync::Arc;
use std::time::{Duration, Instant};

use koboshi_console::expect::{Act, Program, Run, Step};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    // The script, a zero, what the machine says.
    let mut parts = bytes.splitn(2, |byte| *byte == 0);
    let script = String::from_utf8_lossy(parts.next().unwrap_or_default()).into_owned();
    let said = parts.next().unwrap_or_default();
    let program = match Program::parse(&script) {
        Ok(program) => Arc::new(program),
        Err(faults) => {
            assert!(!faults.is_empty());
            for fault in faults {
                assert!(
                    fault.at.start <= fault.at.end && fault.at.end <= script.len(),
                    "{fault:?}"
                );
                assert!(
                    script.is_char_boundary(fault.at.start)
                        && script.is_char_boundary(fault.at.end)
                );
            }
            return;
        }
    };
    let names: Vec<String> = program.args.iter().map(|arg| arg.name.clone()).collect();
    let values = names.into_iter().map(|name| (name, b"Gi1/0/7".to_vec()));
    let secrets: Vec<_> =
        program.secrets.iter().map(|secret| (secret.name.clone(), b"s3cret".to_vec())).collect();
    let mut run = Run::new(program, values, secrets, Duration::from_secs(10));
    let mut now = Instant::now();
    let mut said = said.chunks(16);
    let mut typed = 0;
    for _ in 0..200 {
        match run.step(now) {
            Step::Do(Act::Send(bytes)) => typed += bytes.len(),
            Step::Do(Act::Break | Act::SysRq(_)) => {}
            Step::Wait(until) => match said.next() {
                Some(said) => run.came(said),
                None => {
                    assert!(until > now, "it waits for what has passed");
                    now = until;
                }
            },
            Step::Ended => {
                assert!(run.outcome().is_some());
                break;
            }
        }
    }
    assert!(typed < 200 << 16, "{typed}");
});
