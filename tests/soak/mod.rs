//! What takes longer than every change should wait for: `make soak`.

mod arrays;
mod loaders;
mod outage;
