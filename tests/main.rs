//! Tests against the outside world.
