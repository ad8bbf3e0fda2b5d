//! The appliance: composes what boots machines, reads the site file, keeps what happened, and
//! answers people and programs.
//!
//! ```text
//! site/     the site file: as written, as meant, every error at once, reload, edit
//! publish   site + images = the one snapshot all services read
//! plan      what one boot is promised; the only place that writes a kernel command line
//! loaders   iPXE, from the distribution's packages
//! caveats   what is no error in a site file and yet will not do what its writer thinks
//! files/    what the site file lays over the roots of a role or a seat
//! roots     archive, squashfs or export: where a role's root comes from; `squasher` makes what lacks
//! serve     the services stood up in order
//! app       the running appliance as its operations see it
//! bmcs      the BMCs of the site: one session each, opened when it is needed
//! lines     the consoles that are always on
//! ledger    timelines, holdings, events; `store` keeps them
//! leases/   the journal of DHCP
//! memtest   Memtest86+, which is no Linux
//! receipts  what was done to disks, signed
//! maintenance  what can be ordered for one boot of a machine
//! hardware  what machines say they are made of, and where that disagrees with the site
//! hostile   what looks as if somebody on the wire meant harm, said once
//! diagnosis/  where a boot hangs and why, who has not come back
//! interfaces  the wires under it, that go and come
//! identify  a stranger that is known by its BMC
//! rights    may(principal, verb, machine)
//! api/      /api/v1 on the Unix socket, and its client
//! ops/      one module an operation: what it is asked, what it answers, how that is shown
//! holds     what is needed of the image store, for whoever removes versions
//! syslog/   what machines log, a directory each
//! keystrokes  what operators type, where the site wants it kept
//! programs  a socket of bytes for each console
//! web       the admin address: consoles for browsers, by `tickets`
//! unwritten  what a full disk does not take, told once
//! cli       words in, exit code out
//! lab/      a rack of virtual machines with real firmware
//! ```

pub mod api;
pub mod app;
pub mod bmcs;
pub mod caveats;
pub mod cli;
pub mod diagnosis;
pub mod files;
pub mod hardware;
pub mod holds;
mod home;
pub mod hostile;
pub mod identify;
mod interfaces;
pub mod keystrokes;
pub mod lab;
pub mod leases;
pub mod ledger;
pub mod lines;
pub mod loaders;
pub mod maintenance;
pub mod memtest;
pub mod networks;
pub mod ops;
pub mod plan;
pub mod programs;
pub mod publish;
pub mod receipts;
pub mod rights;
pub mod rollout;
pub mod roots;
pub mod serve;
pub mod site;
pub mod squasher;
pub mod ssh;
pub mod store;
pub mod surveys;
pub mod syslog;
pub mod tickets;
pub mod unwritten;
pub mod web;
