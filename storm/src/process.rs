//! What the server takes: processor time and memory of one process or several, as /proc tells.

use std::fs;
use std::time::Duration;

/// Kernel ticks a second: a hundred on every Linux that `proc(5)` speaks of (`USER_HZ`).
const TICKS: u64 = 100;

/// Of one or several processes together.
#[derive(Debug, Clone, Copy, Default, PartialEq, serde::Serialize)]
pub struct Usage {
    /// Processor seconds.
    pub cpu: f64,
    /// Bytes in memory.
    pub memory: u64,
    /// Bytes in memory at the most.
    pub peak: u64,
}

/// Reads it. Processes that are gone count nothing.
pub fn usage(pids: &[u32]) -> Usage {
    let mut all = Usage::default();
    for pid in pids {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        all.cpu += ticks(&stat).as_secs_f64();
        all.memory += kib(&status, "VmRSS:") * 1024;
        all.peak += kib(&status, "VmHWM:") * 1024;
    }
    all
}

/// utime and stime, the 14th and 15th field; the second is a name in brackets that may hold anything.
fn ticks(stat: &str) -> Duration {
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let spent = fields.split_whitespace().skip(11).take(2);
    let spent: u64 = spent.filter_map(|field| field.parse::<u64>().ok()).sum();
    Duration::from_millis(spent * 1000 / TICKS)
}

fn kib(status: &str, key: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(key));
    let number = line.and_then(|line| line.split_whitespace().next());
    number.and_then(|number| number.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_is_told() {
        let before = usage(&[std::process::id()]);
        assert!(before.memory > 1 << 20 && before.peak >= before.memory, "{before:?}");
        assert_eq!(usage(&[u32::MAX]), Usage::default(), "nobody has this number");
    }

    #[test]
    fn a_name_may_hold_anything() {
        let stat = "7 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 250 50 0 0 20 0";
        assert_eq!(ticks(stat), Duration::from_secs(3));
        assert_eq!(ticks("cut"), Duration::ZERO);
    }
}
