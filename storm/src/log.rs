//! When a machine did what, and how often it had to ask: what a storm is judged by.

use std::time::Duration;

/// How far a boot is, as its machine sees it. In the order of a boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// Its firmware has an address.
    Address,
    /// It has its loader.
    Loader,
    /// iPXE has an address.
    Ipxe,
    /// It has the script that boots it: its turn has come.
    Script,
    /// It has the kernel.
    Kernel,
    /// It has all of the initramfs.
    Initramfs,
    /// `koboshi-init` was heard.
    Init,
    /// It has its root.
    Root,
    /// It is up, and was heard.
    Up,
}

/// How many.
pub const STAGES: usize = 9;

impl Stage {
    /// All of them, in order.
    pub const ALL: [Stage; STAGES] = [
        Stage::Address,
        Stage::Loader,
        Stage::Ipxe,
        Stage::Script,
        Stage::Kernel,
        Stage::Initramfs,
        Stage::Init,
        Stage::Root,
        Stage::Up,
    ];

    /// As tables have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Stage::Address => "address",
            Stage::Loader => "loader",
            Stage::Ipxe => "ipxe address",
            Stage::Script => "script",
            Stage::Kernel => "kernel",
            Stage::Initramfs => "initramfs",
            Stage::Init => "init heard",
            Stage::Root => "root",
            Stage::Up => "up heard",
        }
    }
}

/// One stage of one machine. Times are since the storm began.
#[derive(Debug, Clone, Copy, Default)]
pub struct Passed {
    /// When it first asked for it.
    pub begun: Option<Duration>,
    /// When it had it.
    pub done: Option<Duration>,
    /// Questions asked again, for want of an answer or for a bad one.
    pub again: u32,
    /// Of these, by machines that had asked twice already.
    pub third: u32,
    /// Bytes that came for it.
    pub bytes: u64,
}

/// One machine's.
#[derive(Debug, Clone, Default)]
pub struct Log {
    /// When it was switched on.
    pub on: Duration,
    stages: [Passed; STAGES],
    /// Times it was told that its turn had not come.
    pub turns: u32,
    /// Reports that were not taken.
    pub unheard: u32,
    /// Times its firmware started over.
    pub rounds: u32,
    /// Why it is not up.
    pub lost: Option<String>,
}

impl Log {
    /// Of a machine that is switched on then.
    pub fn new(on: Duration) -> Log {
        Log { on, ..Log::default() }
    }

    /// Bytes came for a stage.
    pub fn fetched(&mut self, stage: Stage, bytes: u64) {
        self.stages[stage as usize].bytes += bytes;
    }

    /// It asks for a stage, for the first time or (`try_number` over 1) again.
    pub fn asks(&mut self, stage: Stage, try_number: u32, now: Duration) {
        let passed = &mut self.stages[stage as usize];
        passed.begun.get_or_insert(now);
        passed.again += u32::from(try_number > 1);
        passed.third += u32::from(try_number == 3);
    }

    /// It has it.
    pub fn done(&mut self, stage: Stage, now: Duration) {
        let passed = &mut self.stages[stage as usize];
        passed.begun.get_or_insert(now);
        passed.done = Some(now);
    }

    /// A stage.
    pub fn of(&self, stage: Stage) -> &Passed {
        &self.stages[stage as usize]
    }
}
