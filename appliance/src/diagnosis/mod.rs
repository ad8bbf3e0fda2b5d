//! Where a boot hangs, and who did not come: what has not happened is nobody's message, so somebody
//! has to look at the clock.
//!
//! ```text
//! course    a timeline walked: which stage, since when, by what steps
//! learned   how long each step takes, by the machine's own finished boots
//! late      boots past their deadline
//! causes    what was seen, what usually causes it, what to do next
//! console   the same by what the machine's console says
//! silent    machines that ran and have not come back
//! power     what else is known of a silent machine: its power, its address
//! watch     the task that looks every few seconds, marks timelines and tells
//! ```

mod causes;
mod console;
mod course;
pub mod late;
pub mod learned;
mod power;
pub mod silent;
pub mod watch;

pub use learned::Learned;
pub use silent::Silence;
