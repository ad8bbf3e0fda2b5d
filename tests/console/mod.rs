//! Consoles as their operators have them: lines that a test plays, and the program as a user runs it.

mod files;
mod person;
mod script;
mod ssh;
mod watch;
mod web;
