//! What takes longer than every change should wait for: `make soak`.

mod arrays;
mod consoles;
mod loaders;
mod maintain;
mod outage;
