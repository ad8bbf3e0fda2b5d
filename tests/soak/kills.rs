//! `kill -9` a thousand times.

use crate::faults::kills::kills;

#[test]
fn a_thousand_deaths_lose_nothing_that_was_acknowledged() {
    kills(1000, 0x6b6f_626f);
}
