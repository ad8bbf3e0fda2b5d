//! A simulated BMC with faults, for racks without hardware: hundreds of them in one process, each on an
//! address of its own. It shares wire codecs and crypto with `koboshi-ipmi`, and nothing else: ipmitool and
//! FreeIPMI judge it.
//!
//! ```text
//! sim        sockets, threads, processes: what turns a `Machine` into something that can be asked
//! machine    one BMC's port without sockets: datagrams and a clock in, datagrams and a deadline out
//! session/   the BMC's side of sessions: 1.5, RMCP+, slots, windows, the reaper
//! dispatch   who may ask what, and who answers it
//! bmc        all that a BMC knows: one field a concern, and the module of its name answers for it
//! chassis    power; process: the machine behind it, where it is more than a flag
//! sol/       Serial over LAN; line: the serial port behind it
//! vm         the host's own interface: a QEMU guest's /dev/ipmi0; mailbox: what waits for the host
//! control    what tests say to a running program
//! faults     what it does wrong, and how often
//! ```
//!
//! # How a handler is added
//! A concern is a file with a state (`pub struct Boot`, a field of [`Bmc`]) and
//! `pub fn answer(bmc: &mut Bmc, asked: &Asked) -> Option<Response>`: a `match` over `asked.command`, with
//! [`dispatch::ok`] and [`dispatch::refuse`] for what it says, and `None` for a command that is not its own (then the
//! next module of the family is asked, and in the end 0xC1 is answered). [`dispatch::route`] names the
//! modules of each family; `dispatch::required` the privilege of each command, which has been checked before a
//! handler sees it. What fires by itself has `poll(bmc, now)` and `deadline(bmc)`, named in [`Bmc::poll`] and
//! [`Bmc::deadline`]. Handlers know no sockets: what they want of the outside they leave in the state
//! (`bmc.chassis.orders`, `bmc.send(…)`), and the driver takes it from there.

pub mod bmc;
pub mod boot;
pub mod bridge;
pub mod channel;
pub mod chassis;
pub mod config;
pub mod control;
pub mod dcmi;
pub mod device;
pub mod dispatch;
pub mod faults;
pub mod fru;
pub mod identify;
pub mod lan;
mod line;
pub mod machine;
pub mod mailbox;
mod process;
pub mod sdr;
pub mod sel;
pub mod sensor;
pub mod session;
pub mod sim;
pub mod sol;
pub mod sol_config;
pub mod system_info;
pub mod user;
mod vm;
pub mod watchdog;

pub use bmc::Bmc;
pub use config::Config;
pub use dispatch::Asked;
pub use faults::Faults;
pub use line::SerialPort;
pub use machine::Machine;
pub use sim::Sim;
