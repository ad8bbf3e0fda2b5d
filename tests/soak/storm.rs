//! Two thousand machines within a second, at 2 % loss: more than any rack, and nobody is left behind.

use crate::storm::storm;

#[test]
fn two_thousand_at_once_all_come_up() {
    let found = storm(&["--machines=2000", "--within=1s", "--loss=2%", "--speed=4"]);
    assert_eq!((&found["up"], &found["failed"]), (&2000.into(), &0.into()), "{found}");
}
