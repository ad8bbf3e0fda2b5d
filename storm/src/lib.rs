//! A storm: machines by the ten thousand switched on at once, each of them a few hundred bytes of
//! state instead of hardware. On the wire they are what their firmware is: its options, its time-outs,
//! its second tries; what they wait for between two packets is drawn, and can be sped up.
//!
//! ```text
//! firmware   what a machine has in its flash: what it says, and how long it waits for an answer
//! dhcp       DISCOVER to ACK, the client's side
//! tftp       a transfer, the client's side
//! script     what iPXE is told to do
//! machine    one boot from the button to `up`: frames, answers and a clock in, frames and wishes out
//! log        when a machine did what, and how often it had to ask
//! dice       a storm can be repeated: all that is random comes from one seed
//! wire       the packet socket: frames of all machines
//! http       one question over TCP from a machine's own address
//! drive      the loop between them
//! enemy      one machine among them that means harm: frames in, frames out
//! siege      its sockets
//! process    what the server took: processor and memory
//! summary    percentiles, failures, a table, JSON
//! paper      what the appliance serves meanwhile: a site, and stand-ins of noise
//! peer       the same by Kea, dnsmasq and nginx
//! plot       machines at each stage over time, as SVG
//! ```

pub mod dhcp;
pub mod dice;
pub mod drive;
pub mod enemy;
pub mod firmware;
pub mod http;
pub mod log;
pub mod machine;
pub mod paper;
pub mod peer;
pub mod plot;
pub mod process;
pub mod script;
pub mod siege;
pub mod summary;
pub mod tftp;
pub mod wire;
