//! Tests against the outside world, with the program as a user runs it.
//!
//! - `boot`: real firmware, from power-on to a running role. New claims go into an existing boot
//!   where they can: a boot costs half a minute of both cores.
//! - `syslog`: what machines log, by reference senders.
//! - `wire`: the appliance on a network with reference clients, without machines.
//! - `program`: the command line: `check`, `explain`, `image`, exit codes. No root needed.
//! - `console`: lines that a test plays, and who looks at them.
//! - `hostile`: one machine on the wire that means harm, and honest ones beside it.
//! - `ipmi`: power and what else is reached out of band, with simulated BMCs. Half of it needs no root.
//! - `versions`: images from the first import to the last `rm`, and what the appliance keeps of them.
//! - `corpora`: what fuzzing starts from, read once.
//! - `faults`: disks that are full or read-only, clocks that jump, interfaces that go, `kill -9`.
//! - `fuzz`: what strangers may send, a minute a parser.
//! - `soak`: real machines that take their time, by `make soak` only.
//! - `storm`: machines on paper, many at a time.
//! - `world`: what the first two stand on: a site, an appliance, a rack.

mod boot;
mod console;
mod corpora;
mod faults;
mod fuzz;
mod hostile;
mod ipmi;
mod program;
mod soak;
mod storm;
mod syslog;
mod versions;
mod wire;
mod world;
