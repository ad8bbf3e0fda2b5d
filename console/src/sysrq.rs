//! Magic SysRq on a serial console: a BREAK, then a key within five seconds (Linux, `admin-guide/sysrq.rst` and
//! `uart_handle_break`).
//!
//! A kernel does what `kernel.sysrq` allows, and says on the console when it does not. It forgets a BREAK only when a
//! character follows: after one without a key, the next BREAK takes it back, and the key is a mere character. Then
//! the same once more is right.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::sleep;

use crate::operator::{NotTyped, Operator, Visitor};
use crate::wire::Operation;

/// Between BREAK and key: BMCs that are still sending the one drop the other.
const BETWEEN: Duration = Duration::from_millis(200);
/// Of a sequence, no longer ones are taken.
const LONGEST: usize = 32;

/// Each key and what it makes the kernel do, in the order of a help screen.
pub const KEYS: [(char, &str); 36] = [
    ('b', "reboot at once: nothing is written back, nothing unmounted"),
    ('s', "write back all file systems (sync)"),
    ('u', "mount all file systems read-only"),
    ('e', "SIGTERM to all processes but init"),
    ('i', "SIGKILL to all processes but init"),
    ('r', "take the keyboard back from a program that has it raw"),
    ('o', "switch the machine off"),
    ('c', "crash, and write a crash dump where kdump is set up"),
    ('f', "kill the process that has the most memory (OOM killer)"),
    ('k', "kill all that runs on the virtual console (secure access key)"),
    ('j', "thaw file systems that were frozen"),
    ('n', "make real-time processes ordinary ones"),
    ('h', "show which keys there are"),
    ('t', "show all tasks"),
    ('w', "show tasks that wait and cannot be interrupted"),
    ('l', "show what each processor does"),
    ('m', "show the memory"),
    ('p', "show the registers"),
    ('q', "show the timers"),
    ('d', "show locks that are held"),
    ('z', "show the trace buffer"),
    ('g', "enter the kernel debugger"),
    ('v', "restore the frame buffer console; on ARM show the trace buffer"),
    ('x', "enter xmon on PowerPC; on MIPS show the TLB"),
    ('y', "show all registers on SPARC"),
    ('a', "nothing, in kernels as they are published"),
    ('0', "messages: panics alone reach the console"),
    ('1', "messages: alerts too"),
    ('2', "messages: critical ones too"),
    ('3', "messages: errors too"),
    ('4', "messages: warnings too"),
    ('5', "messages: notices too"),
    ('6', "messages: information too"),
    ('7', "messages: debugging too"),
    ('8', "messages: all"),
    ('9', "messages: all"),
];

/// A key that SysRq has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "char", into = "char")]
pub struct Key(char);

/// It has no such key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoKey {
    /// It is none.
    #[error(
        "{0:?} is no key of SysRq: a letter or a digit, b reboots at once, h shows which there are"
    )]
    Unknown(char),
    /// It begins or ends with nothing.
    #[error("no key of SysRq is named: b reboots at once, h shows which there are")]
    Nothing,
    /// It is very long.
    #[error("{0} keys at once are too many: {LONGEST} at most")]
    TooMany(usize),
}

impl Key {
    /// What it makes the kernel do, in words.
    pub fn words(self) -> &'static str {
        KEYS.iter().find(|key| key.0 == self.0).map_or("", |key| key.1)
    }

    /// How long the kernel, or what it has woken, is left alone before the next key of a sequence.
    pub fn takes(self) -> Duration {
        Duration::from_secs(match self.0 {
            // Processes end, and what they had is written.
            'e' | 's' | 'u' => 5,
            'i' | 'f' => 3,
            _ => 1,
        })
    }
}

impl TryFrom<char> for Key {
    type Error = NoKey;

    fn try_from(key: char) -> Result<Key, NoKey> {
        let key = key.to_ascii_lowercase();
        let known = KEYS.iter().any(|known| known.0 == key);
        known.then_some(Key(key)).ok_or(NoKey::Unknown(key))
    }
}

impl From<Key> for char {
    fn from(key: Key) -> char {
        key.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SysRq {}: {}", self.0, self.words())
    }
}

/// Keys one after another: `b`, or `reisub`, which reboots as gently as a kernel without its processes can.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Keys(Vec<Key>);

impl Keys {
    /// In order, at least one.
    pub fn iter(&self) -> impl Iterator<Item = Key> {
        self.0.iter().copied()
    }

    /// How long all of them take.
    pub fn take(&self) -> Duration {
        let pauses = self.iter().take(self.0.len().saturating_sub(1)).map(Key::takes);
        pauses.sum::<Duration>() + BETWEEN
    }
}

impl FromStr for Keys {
    type Err = NoKey;

    fn from_str(text: &str) -> Result<Keys, NoKey> {
        let many = text.chars().count();
        match many {
            0 => Err(NoKey::Nothing),
            1..=LONGEST => text.chars().map(Key::try_from).collect::<Result<_, _>>().map(Keys),
            _ => Err(NoKey::TooMany(many)),
        }
    }
}

impl TryFrom<String> for Keys {
    type Error = NoKey;

    fn try_from(text: String) -> Result<Keys, NoKey> {
        text.parse()
    }
}

impl From<Keys> for String {
    fn from(keys: Keys) -> String {
        keys.to_string()
    }
}

impl fmt::Display for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.iter().try_for_each(|key| write!(f, "{}", key.0))
    }
}

impl Visitor {
    /// One key: returns when it is typed.
    ///
    /// # Errors
    /// As [`Visitor::operate`]: a line that has no BREAK has no SysRq.
    pub async fn sysrq(&self, key: Key) -> Result<(), NotTyped> {
        self.operate(Operation::Break).await?;
        sleep(BETWEEN).await;
        let mut character = [0; 4];
        self.send(key.0.encode_utf8(&mut character).as_bytes()).await
    }
}

impl Operator {
    /// Keys one after another, each told before it is typed.
    ///
    /// # Errors
    /// As [`Visitor::sysrq`]; the keys that follow are not typed.
    pub async fn sysrq(&self, keys: &Keys, mut each: impl FnMut(Key)) -> Result<(), NotTyped> {
        let mut pause = Duration::ZERO;
        for key in keys.iter() {
            sleep(pause).await;
            each(key);
            self.visitor().sysrq(key).await?;
            pause = key.takes();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::sync::Mutex;
    use tokio::time::Instant;

    use super::*;
    use crate::wire::{Cannot, Ends, Order, Wire};
    use crate::{Line, NotOpen, Person, State};

    #[test]
    fn keys_are_checked_before_anything_is_sent() {
        let keys: Keys = "REISUB".parse().unwrap();
        assert_eq!(keys.to_string(), "reisub");
        assert_eq!(keys.take(), Duration::from_millis(19_200));
        assert_eq!("".parse::<Keys>(), Err(NoKey::Nothing));
        assert_eq!("b ".parse::<Keys>(), Err(NoKey::Unknown(' ')));
        assert_eq!("ä".parse::<Keys>(), Err(NoKey::Unknown('ä')));
        assert_eq!("b".repeat(33).parse::<Keys>(), Err(NoKey::TooMany(33)));
        assert_eq!(serde_json::to_string(&keys).unwrap(), r#""reisub""#);
        assert!(serde_json::from_str::<Keys>(r#""reis\u001b""#).is_err());
        let mut known: Vec<char> = KEYS.iter().map(|key| key.0).collect();
        known.sort_unstable();
        assert_eq!(known, ('0'..='9').chain('a'..='z').collect::<Vec<char>>());
        assert_eq!(Key::try_from('B').unwrap().to_string(), format!("SysRq b: {}", KEYS[0].1));
    }

    /// A line whose other end is here: what it was told, `^` for a BREAK, and when.
    async fn line(breaks: bool) -> (Line, Arc<Mutex<Vec<(Instant, String)>>>) {
        let told = Arc::new(Mutex::new(Vec::new()));
        let kept = told.clone();
        let line = Line::start(move || {
            let kept = kept.clone();
            async move {
                let (wire, Ends { events, mut orders }) = Wire::new();
                tokio::spawn(async move {
                    let _open_as_long_as = events;
                    while let Some(order) = orders.recv().await {
                        let what = match order {
                            Order::Type(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
                            Order::Do(_, answer) => {
                                let cannot = Err(Cannot::Unable("it has no BREAK".to_string()));
                                answer.send(if breaks { Ok(()) } else { cannot }).unwrap();
                                "^".to_string()
                            }
                            Order::Close(done) => {
                                done.send(()).unwrap();
                                return;
                            }
                        };
                        kept.lock().await.push((Instant::now(), what));
                    }
                });
                Ok::<_, NotOpen>(wire)
            }
        });
        let mut status = line.follow_status();
        status.wait_for(|status| matches!(status.state, State::Up { .. })).await.unwrap();
        (line, told)
    }

    fn somebody() -> Person {
        Person { name: "eva".to_string(), via: "cli".to_string() }
    }

    #[tokio::test(start_paused = true)]
    async fn each_key_has_its_break_and_the_kernel_its_time() {
        let (line, told) = line(true).await;
        let operator = line.take(somebody());
        let mut each = Vec::new();
        let keys: Keys = "sub".parse().unwrap();
        operator.sysrq(&keys, |key| each.push(char::from(key))).await.unwrap();
        tokio::task::yield_now().await;
        assert_eq!(each, ['s', 'u', 'b']);
        let told = told.lock().await.clone();
        let what: String = told.iter().map(|(_, what)| what.as_str()).collect();
        assert_eq!(what, "^s^u^b");
        let apart: Vec<u64> =
            told.windows(2).map(|two| (two[1].0 - two[0].0).as_secs_f64().round() as u64).collect();
        assert_eq!(apart, [0, 5, 0, 5, 0]);
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_typed_where_there_is_no_break_or_the_line_is_anothers() {
        let (line, told) = line(false).await;
        let operator = line.take(somebody());
        let keys: Keys = "sb".parse().unwrap();
        let cannot = operator.sysrq(&keys, |_| {}).await.unwrap_err();
        assert_eq!(cannot.to_string(), "it has no BREAK");
        assert_eq!(told.lock().await.len(), 1, "no key follows");
        let _other = line.take(Person { name: "tom".to_string(), ..somebody() });
        let held = operator.sysrq(&keys, |_| {}).await.unwrap_err();
        assert_eq!(held.to_string(), "tom (cli) has the line now");
        assert_eq!(told.lock().await.len(), 1);
    }
}
