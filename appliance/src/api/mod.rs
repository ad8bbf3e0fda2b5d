//! `/api/v1` on the appliance's Unix socket. Every command line verb is a client of it; each
//! operation lives in a module of `ops`, which serves the handler here and the command there.

mod attach;
mod client;
mod console;
mod machines;
mod server;

pub(crate) use attach::{carry, may_type};
pub use client::{Client, ClientError, Socket};
pub use server::{Refusal, serve, socket_path};
