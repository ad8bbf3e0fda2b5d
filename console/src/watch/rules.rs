//! What is watched for: rules of our own and of the site, compiled once for all lines.
//!
//! The words are those of Linux (`kernel/panic.c`, `mm/oom_kill.c`, `kernel/watchdog.c`, `kernel/hung_task.c`),
//! of the PXE specification's appendix on messages, iPXE, GRUB, dracut and systemd, and of the firmware of
//! common servers.

use std::collections::{BTreeSet, HashSet};

use regex::bytes::{RegexSet, RegexSetBuilder};
use serde::{Deserialize, Serialize};

/// Compiled, all rules together take no more: patterns of a site are a person's, and `(a{1000}){1000}` is one.
const SIZE_MAX: usize = 8 << 20;
/// What a thread may spend on matching, beside that.
const CACHE_MAX: usize = 4 << 20;
/// The same of one.
const ONE_MAX: usize = 256 << 10;

/// How grave it is.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Good to know.
    Info,
    /// Somebody should look, some day.
    #[default]
    Warning,
    /// Something is broken.
    Error,
}

impl Level {
    /// `warning`
    pub fn as_str(self) -> &'static str {
        match self {
            Level::Info => "info",
            Level::Warning => "warning",
            Level::Error => "error",
        }
    }
}

impl std::str::FromStr for Level {
    type Err = ();

    fn from_str(text: &str) -> Result<Level, ()> {
        [Level::Info, Level::Warning, Level::Error]
            .into_iter()
            .find(|level| level.as_str() == text)
            .ok_or(())
    }
}

/// The rule that sees that a machine starts: what was told of it before is told again.
pub const STARTS: &str = "starts";
/// The rule that sees who may log in.
pub const LOGIN: &str = "login-prompt";
/// The rule that sees a machine's SSH host key ([`super::host_key`]).
pub const HOST_KEY: &str = "ssh-host-key";
/// The rule for a trace of calls, which alone says little: it is told where nothing else is.
pub const TRACE: &str = "call-trace";

/// A rule of the site's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Its name. One of ours is replaced by it.
    pub name: String,
    /// A regular expression, matched against each line by itself; bytes, and letters of ASCII.
    pub pattern: String,
    /// How grave it is.
    pub level: Level,
    /// The lines it is for. None: all.
    pub only: Option<HashSet<String>>,
}

/// Why a pattern cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadPattern {
    /// It does not read.
    #[error("is no regular expression: {0}")]
    Unreadable(String),
    /// `(a{1000}){1000}`
    #[error("is too large once compiled")]
    TooLarge,
    /// Many lines are looked at at once, and only then one by one.
    #[error(r"has \A or \z: each line is matched by itself, and its ends are ^ and $")]
    Ends,
    /// It asks for nothing.
    #[error("matches every line")]
    EveryLine,
}

/// All rules, compiled.
#[derive(Debug)]
pub struct Rules {
    set: RegexSet,
    /// By pattern: the number of its rule.
    of: Vec<usize>,
    known: Vec<Known>,
}

#[derive(Debug)]
pub(super) struct Known {
    pub name: String,
    pub level: Level,
    only: Option<HashSet<String>>,
}

impl Known {
    pub fn is_for(&self, line: &str) -> bool {
        self.only.as_ref().is_none_or(|only| only.contains(line))
    }
}

impl Default for Rules {
    fn default() -> Rules {
        Rules::new(&[]).unwrap_or_else(|_| Rules {
            set: RegexSet::empty(),
            of: Vec::new(),
            known: Vec::new(),
        })
    }
}

impl Rules {
    /// Ours and these.
    ///
    /// # Errors
    /// Together they are too large. Each was checked by [`check`].
    pub fn new(own: &[Rule]) -> Result<Rules, BadPattern> {
        let (mut patterns, mut of, mut known) = (Vec::new(), Vec::new(), Vec::new());
        let replaced: BTreeSet<&str> = own.iter().map(|rule| rule.name.as_str()).collect();
        for (name, level, some) in OURS.iter().filter(|(name, ..)| !replaced.contains(name)) {
            patterns.extend(some.iter().map(|pattern| (*pattern).to_string()));
            of.extend(some.iter().map(|_| known.len()));
            known.push(Known { name: (*name).to_string(), level: *level, only: None });
        }
        for Rule { name, pattern, level, only } in own {
            patterns.push(pattern.clone());
            of.push(known.len());
            known.push(Known { name: name.clone(), level: *level, only: only.clone() });
        }
        Ok(Rules { set: compile(&patterns, SIZE_MAX)?, of, known })
    }

    /// Whether any rule may match a line of this text.
    pub(super) fn stir(&self, text: &[u8]) -> bool {
        self.set.is_match(text)
    }

    /// The rules that match this line, in their order, each once.
    pub(super) fn of_line(&self, line: &[u8]) -> impl Iterator<Item = usize> {
        let matched = self.set.matches(line);
        let rules: BTreeSet<usize> =
            matched.iter().filter_map(|pattern| self.of.get(pattern).copied()).collect();
        rules.into_iter()
    }

    pub(super) fn get(&self, rule: usize) -> Option<&Known> {
        self.known.get(rule)
    }
}

/// Whether a pattern can be used by itself.
///
/// # Errors
/// What is wrong with it, in a line.
pub fn check(pattern: &str) -> Result<(), BadPattern> {
    if pattern.contains(r"\A") || pattern.contains(r"\z") {
        return Err(BadPattern::Ends);
    }
    let set = compile(&[pattern.to_string()], ONE_MAX)?;
    if set.is_match(b"") {
        return Err(BadPattern::EveryLine);
    }
    Ok(())
}

fn compile(patterns: &[String], most: usize) -> Result<RegexSet, BadPattern> {
    let set = RegexSetBuilder::new(patterns)
        .unicode(false)
        .multi_line(true)
        .size_limit(most)
        .dfa_size_limit(CACHE_MAX)
        .build();
    set.map_err(|error| match error {
        regex::Error::CompiledTooBig(_) => BadPattern::TooLarge,
        error => {
            // The parser draws the pattern and an arrow; its last line says what is wrong.
            let why = error.to_string();
            let last = why.lines().last().unwrap_or_default();
            BadPattern::Unreadable(last.strip_prefix("error: ").unwrap_or(last).to_string())
        }
    })
}

/// A rule of ours: name, level, patterns.
pub(super) type Ours = (&'static str, Level, &'static [&'static str]);

/// The gravest first.
pub(super) const OURS: &[Ours] = &[
    (
        "kernel-panic",
        Level::Error,
        // Its last line says it once more: "---[ end Kernel panic - not syncing".
        &["(?:^|[^d] )Kernel panic", r"(?:^|\) )panic: ", r"Panic on CPU \d", "Guru Meditation"],
    ),
    (
        "out-of-memory",
        Level::Error,
        // The line that names the victim. "invoked oom-killer" names who asked for the last page.
        &["[Oo]ut of memory: Kill", "[Oo]ut of memory and no killable"],
    ),
    (
        "kernel-oops",
        Level::Error,
        &[
            "BUG: (?:unable|kernel|Bad|Dentry|KASAN|KFENCE|scheduling|sleeping|non-zero|spinlock|stack)",
            "kernel BUG at",
            r"(?:^|\] |: )Oops(?:: | - )",
            "general protection fault",
            "Unable to handle kernel",
            "double fault: ",
        ],
    ),
    (
        "lockup",
        Level::Error,
        &[
            "soft lockup - CPU",
            "[Hh]ard LOCKUP",
            "(?:self-)?detected (?:expedited )?stalls? on CPU",
            "BUG: workqueue lockup",
        ],
    ),
    ("hung-task", Level::Warning, &[r"blocked for more than \d+ seconds"]),
    (
        "hardware-error",
        Level::Error,
        &[
            r"\[Hardware Error\]: (?:Machine check|event severity: (?:fatal|recoverable)|.*Uncorrected)",
            "Machine [Cc]heck(?: Exception|: |ing exception)",
            r"EDAC .*: \d+ UE ",
            r"AER: .*(?:Fatal|Uncorrect)",
            "NMI: (?:IOCK|PCI system) error",
            "Uhhuh. NMI received for unknown reason",
            "Thermal shutdown|critical temperature reached",
        ],
    ),
    (
        "corrected-error",
        Level::Warning,
        &[
            r"EDAC .*: \d+ CE ",
            r"AER: .*Corrected error",
            r"\[Hardware Error\]: .*(?:corrected|Corrected error)",
        ],
    ),
    (
        "read-only",
        Level::Error,
        &["[Rr]emounting filesystem read-only", "forced readonly", "Remount(?:ing)? read-only"],
    ),
    (
        "io-error",
        Level::Error,
        &[
            "I/O error, dev ",
            "Buffer I/O error on",
            "critical (?:medium|target|space allocation) error",
            "EXT[234]-fs error",
            r"XFS \([^)]*\): (?:.*(?:[Cc]orruption|I/O [Ee]rror)|Filesystem has been shut down)",
            "BTRFS (?:error|critical)",
            "SQUASHFS error",
            r"nvme\d*: .*controller is down",
            "Medium Error",
        ],
    ),
    (
        "watchdog",
        Level::Warning,
        &[
            "watchdog did not stop",
            "[Ww]atchdog (?:timer )?(?:expired|timed? ?out)",
            "IPMI Watchdog: .*(?:timeout|pretimeout)",
            r"NETDEV WATCHDOG: .* timed out",
        ],
    ),
    ("kernel-warning", Level::Warning, &[r"WARNING: CPU: \d+ PID: \d+"]),
    (TRACE, Level::Warning, &["Call [Tt]race:"]),
    (
        "pxe-error",
        Level::Error,
        &[r"PXE-E\w\w\b", "No boot filename received", "NBP filesize is 0 "],
    ),
    ("ipxe-error", Level::Error, &[r"ipxe\.org/[0-9a-f]{6,8}\b"]),
    (
        "no-boot-device",
        Level::Error,
        &[
            "(?i:no boot(?:able)? (?:device|disk|medium|media|option))",
            "(?i:(?:operating system|boot(?:able)? device) (?:is )?not found)",
            "(?i:missing operating system)",
            "(?i:(?:non-system disk|disk boot failure))",
        ],
    ),
    (
        "firmware-error",
        Level::Error,
        &[
            r"(?i:(?:press|strike|hit) (?:the )?<?F1\b)",
            r"(?i:(?:memory|dimm|ddr\d?|link) training (?:fail|error))",
            r"(?i:memory (?:initialization|configuration) error)",
            r"(?i:(?:uncorrectable|multi-bit) memory error)",
            r"(?i:cmos (?:checksum|battery))",
            "BdsDxe: failed to (?:load|start)",
            "Security Violation",
            "Verification failed: \\(0x1A\\)",
        ],
    ),
    (
        "grub-rescue",
        Level::Error,
        &[
            "grub rescue>",
            "^grub> ?$",
            "^error: (?:no such (?:device|partition)|unknown filesystem|you need to load the kernel|out of memory|invalid magic|disk .* not found|file .* not found)",
        ],
    ),
    (
        "emergency-shell",
        Level::Error,
        &[
            "Entering (?:emergency|rescue) mode",
            "You are in (?:emergency|rescue) mode",
            "Give root password for maintenance",
            "Cannot open access to console, the root account is locked",
            "(?i:dropping (?:you )?(?:in)?to (?:a |an |the )?(?:debug |emergency |recovery )?shell)",
            r"^\(initramfs\) ?$",
            r"^dracut:\S*# ?$",
            "dracut-initqueue.*timeout",
            r"ALERT!.*does not exist",
        ],
    ),
    (
        LOGIN,
        Level::Info,
        &[
            "(?i:(?:^|[^ ] |[ >#])(?:login|username|user name|user): ?$)",
            "(?i:press (?:return|enter) to get started)",
        ],
    ),
    (HOST_KEY, Level::Info, &["^koboshi: ssh host key [a-z]"]),
    (
        STARTS,
        Level::Info,
        &[
            r"^(?:\[[ 0.]+\] )?Linux version \d",
            r"^SeaBIOS \(",
            "^iPXE initialising devices",
            r"^U-Boot (?:SPL )?20\d\d",
            "^System Bootstrap, Version",
            "^BdsDxe: starting Boot",
            r"^Booting .{1,60}\.{3}$",
        ],
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn named(line: &str) -> Vec<String> {
        let rules = Rules::default();
        let of = rules.of_line(line.as_bytes());
        of.filter_map(|rule| rules.get(rule)).map(|rule| rule.name.clone()).collect()
    }

    #[test]
    fn what_machines_say_when_they_break() {
        for (line, rule) in [
            (
                "[    1.234567] Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)",
                "kernel-panic",
            ),
            (
                "Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000009",
                "kernel-panic",
            ),
            (
                "m01 login: [ 99.5] Kernel panic - not syncing: sysrq triggered crash",
                "kernel-panic",
            ),
            (
                "[  812.1] Out of memory: Killed process 4242 (java) total-vm:9012345kB, anon-rss:8000000kB",
                "out-of-memory",
            ),
            (
                "Memory cgroup out of memory: Killed process 77 (nginx) total-vm:1kB",
                "out-of-memory",
            ),
            (
                "[ 33.1] BUG: unable to handle page fault for address: ffffffffc0a01000",
                "kernel-oops",
            ),
            (
                "[ 33.1] BUG: kernel NULL pointer dereference, address: 0000000000000008",
                "kernel-oops",
            ),
            ("[ 33.2] Oops: 0002 [#1] PREEMPT SMP NOPTI", "kernel-oops"),
            ("[ 33.2] Internal error: Oops: 96000004 [#1] SMP", "kernel-oops"),
            ("general protection fault, probably for non-canonical address 0xdead", "kernel-oops"),
            ("watchdog: BUG: soft lockup - CPU#3 stuck for 22s! [kworker/3:1:123]", "lockup"),
            ("NMI watchdog: Watchdog detected hard LOCKUP on cpu 5", "lockup"),
            ("rcu: INFO: rcu_sched self-detected stall on CPU", "lockup"),
            ("INFO: task jbd2/sda1-8:321 blocked for more than 120 seconds.", "hung-task"),
            ("mce: [Hardware Error]: Machine check events logged", "hardware-error"),
            ("EDAC MC0: 1 UE memory read error on CPU_SrcID#0", "hardware-error"),
            ("EDAC MC0: 3 CE memory read error on CPU_SrcID#0", "corrected-error"),
            ("EXT4-fs (sda1): Remounting filesystem read-only", "read-only"),
            ("EXT4-fs error (device sda1): ext4_find_entry:1455: inode #2: comm ls", "io-error"),
            ("blk_update_request: I/O error, dev sda, sector 12345 op 0x0:(READ)", "io-error"),
            ("XFS (dm-0): Metadata corruption detected at xfs_agf_read_verify", "io-error"),
            ("watchdog: watchdog0: watchdog did not stop!", "watchdog"),
            (
                "WARNING: CPU: 1 PID: 77 at net/sched/sch_generic.c:525 dev_watchdog+0x1",
                "kernel-warning",
            ),
            ("PXE-E11: ARP timeout", "pxe-error"),
            ("  PXE-E51: No DHCP or proxyDHCP offers were received.", "pxe-error"),
            ("Connection timed out (https://ipxe.org/4c116092)", "ipxe-error"),
            ("No bootable device.", "no-boot-device"),
            ("Operating System not found", "no-boot-device"),
            ("No bootable option or device was found.", "no-boot-device"),
            ("Press <F1> to continue, <F2> to enter setup", "firmware-error"),
            ("Strike the F1 key to continue, F2 to run the setup utility", "firmware-error"),
            ("MEMORY TRAINING FAILURE on DIMM A3", "firmware-error"),
            (
                "BdsDxe: failed to load Boot0001 \"UEFI PXEv4\" from PciRoot(0x0): Access Denied",
                "firmware-error",
            ),
            ("grub rescue> ", "grub-rescue"),
            ("error: no such device: 1234-abcd.", "grub-rescue"),
            (
                "You are in emergency mode. After logging in, type \"journalctl -xb\"",
                "emergency-shell",
            ),
            ("(initramfs) ", "emergency-shell"),
            ("dracut:/# ", "emergency-shell"),
            ("ALERT!  UUID=1234 does not exist.  Dropping to a shell!", "emergency-shell"),
            ("web1 login: ", "login-prompt"),
            ("login:", "login-prompt"),
            ("Username: ", "login-prompt"),
            (
                "[    0.000000] Linux version 6.1.0-18-amd64 (debian-kernel@lists.debian.org)",
                "starts",
            ),
            ("SeaBIOS (version 1.16.2-debian-1.16.2-1)", "starts"),
        ] {
            assert_eq!(named(line), [rule], "{line}");
        }
    }

    #[test]
    fn what_is_none_of_it() {
        for line in [
            "---[ end Kernel panic - not syncing: sysrq triggered crash ]---",
            "Last login: Tue Nov 24 10:00:01 UTC 2026 on ttyS0",
            "web1 login: root",
            "java invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0",
            "iPXE 1.21.1 -- Open Source Network Boot Firmware -- https://ipxe.org",
            "[    1.0] panic_timeout 30, panic on oops 0",
            "mce: CPU0: Thermal monitoring enabled (TM1)",
            "grub> ls",
            "EXT4-fs (sda1): mounted filesystem with ordered data mode. Quota mode: none.",
            "systemd[1]: Started Getty on tty1.",
            "Broadcom UNDI PXE-2.1 v16.4.3",
            "",
        ] {
            assert_eq!(named(line), [""; 0], "{line}");
        }
    }

    #[test]
    fn rules_of_the_site_are_checked() {
        for (pattern, why) in [
            ("(", "unclosed group"),
            ("a{2,1}", "invalid repetition count range"),
            ("(?:a{1000}){1000}", "too large"),
            (r"\Aone", "^ and $"),
            ("x*", "every line"),
            (r"(a)\1", "backreferences"),
        ] {
            let told = check(pattern).unwrap_err().to_string();
            assert!(told.contains(why), "{pattern}: {told}");
        }
        assert_eq!(check("^fan [0-9]+ failed$"), Ok(()));

        let rule = Rule {
            name: LOGIN.to_string(),
            pattern: "^sw1 console$".to_string(),
            level: Level::Warning,
            only: Some(HashSet::from(["sw1".to_string()])),
        };
        let rules = Rules::new(&[rule]).unwrap();
        assert_eq!(rules.of_line(b"web1 login: ").count(), 0, "it is replaced");
        let found: Vec<_> =
            rules.of_line(b"sw1 console").filter_map(|rule| rules.get(rule)).collect();
        assert!(found.len() == 1 && found[0].is_for("sw1") && !found[0].is_for("m01"), "{found:?}");
    }
}
