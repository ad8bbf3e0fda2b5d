//! The conversation with a machine that says what has changed on it, over whatever carries bytes: [`Ask`] knows what
//! is to be said, here it is said.

use std::io::Write;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bytes::Bytes;
use koboshi_console::modem::Ends;
use koboshi_initramfs::changes::Header;
use koboshi_initramfs::changes::ask::{Ask, Event, Next};
use koboshi_initramfs::changes::frame::About;
use tokio::time::{sleep_until, timeout};

/// A program that was started says who it is within this, or its start failed.
const BEGINS: Duration = Duration::from_secs(20);
/// It may be a busy machine that walks through its whole root before it says the first word of a listing.
const LAST_WORD: Duration = Duration::from_secs(2);
/// What a frame costs beside its bytes: name, number, sum, end of line.
const AROUND: u32 = 20;
/// Control-C, for a program that reads the line as it is.
const INTERRUPT: &[u8] = &[3];
/// What was said instead is shown up to here.
const SAID_MAX: usize = 8;

/// See the module.
pub struct Talk<'a> {
    ask: Ask,
    ends: &'a mut Ends,
    /// Bytes of a frame.
    size: u32,
    heard: u64,
}

impl<'a> Talk<'a> {
    /// Waits for who answers; `gave_up` looks at what was said instead, and may say why nobody will.
    pub async fn begin(
        ends: &'a mut Ends,
        size: u32,
        mut gave_up: impl FnMut(&[u8]) -> Option<String>,
    ) -> anyhow::Result<(Talk<'a>, Header)> {
        let mut ask = Ask::new(Instant::now());
        let mut said: Vec<String> = Vec::new();
        let end = tokio::time::Instant::now() + BEGINS;
        let mut asked = 0;
        loop {
            match ask.next(Instant::now()) {
                Next::Came(Event::Hello(header)) => {
                    let line = size.div_ceil(3) * 4 + AROUND;
                    ask.pace(line, header.speed);
                    return Ok((Talk { ask, ends, size, heard: 0 }, header));
                }
                Next::Came(Event::Failed(why)) => bail!("{}", clean(&why)),
                Next::Came(Event::Said(line)) => {
                    if let Some(why) = gave_up(&line) {
                        bail!("{why}");
                    }
                    said.push(clean(&String::from_utf8_lossy(&line)));
                    said.drain(..said.len().saturating_sub(SAID_MAX));
                }
                Next::Came(_) | Next::Idle => bail!("the machine says something else"),
                // What was said first may have been damaged on the line; before long nothing is typed there
                // that a shell could take for a command.
                Next::Send(bytes) => {
                    asked += 1;
                    if asked > 1 {
                        self::send(ends, bytes.into()).await?;
                    }
                }
                Next::Wait(until) => {
                    tokio::select! {
                        bytes = ends.says.recv() => {
                            ask.came(&bytes.context("the machine is gone")?, Instant::now());
                        }
                        () = sleep_until(until.into()) => {}
                        () = sleep_until(end) => {
                            let said = match said.is_empty() {
                                true => "nothing".to_string(),
                                false => said.join(" | "),
                            };
                            bail!("the machine does not say what has changed there; it said {said}");
                        }
                    }
                }
            }
        }
    }

    /// Fetches a stream of `most` bytes at the most into `out`; `told` hears how many there are.
    pub async fn get(
        &mut self,
        about: About,
        most: u64,
        out: &mut impl Write,
        mut told: impl FnMut(u64),
    ) -> anyhow::Result<u64> {
        self.ask.get(about, Instant::now());
        let mut came = 0;
        loop {
            match self.next().await? {
                Event::Bytes(bytes) => {
                    came += bytes.len() as u64;
                    if came > most {
                        bail!("the machine sends more than {most} bytes");
                    }
                    out.write_all(&bytes).context("keeping what the machine sends")?;
                    told(came);
                }
                Event::Whole => return Ok(came),
                _ => {}
            }
        }
    }

    /// Says which entries' contents are wanted.
    pub async fn pick(&mut self, round: u32, picks: &[u32]) -> anyhow::Result<()> {
        self.ask.pick(round, picks, Instant::now());
        while self.next().await? != Event::Picked {}
        Ok(())
    }

    /// Bytes that were heard, as the line carried them.
    pub fn heard(&self) -> u64 {
        self.heard
    }

    /// Bytes the line carries for so many of ours.
    pub fn on_the_line(&self, bytes: u64) -> u64 {
        let frame = u64::from(self.size.div_ceil(3) * 4 + AROUND);
        bytes.saturating_mul(frame) / u64::from(self.size.max(1))
    }

    /// Lines that were damaged or lost, and came once more.
    pub fn repeated(&self) -> u64 {
        self.ask.repeated
    }

    /// Lets the machine go, and gives its line a moment to be as it was.
    pub async fn end(mut self) {
        self.ask.bye();
        while let Next::Send(bytes) = self.ask.next(Instant::now()) {
            if send(self.ends, bytes.into()).await.is_err() {
                return;
            }
        }
        let _it_says_nothing_more = timeout(LAST_WORD, async {
            while let Ok(Some(_)) = timeout(LAST_WORD / 4, self.ends.says.recv()).await {}
        })
        .await;
    }

    /// The next thing that comes of it.
    async fn next(&mut self) -> anyhow::Result<Event> {
        loop {
            match self.ask.next(Instant::now()) {
                Next::Came(Event::Failed(why)) => bail!("{}", clean(&why)),
                Next::Came(event) => return Ok(event),
                Next::Idle => bail!("the machine was asked nothing"),
                Next::Send(bytes) => send(self.ends, bytes.into()).await?,
                Next::Wait(until) => {
                    tokio::select! {
                        bytes = self.ends.says.recv() => {
                            let bytes = bytes.context("the machine is gone")?;
                            self.heard += bytes.len() as u64;
                            self.ask.came(&bytes, Instant::now());
                        }
                        () = sleep_until(until.into()) => {}
                    }
                }
            }
        }
    }
}

/// Ends a conversation from outside: whatever the machine is about to say, it says no more.
pub async fn interrupt(ends: &Ends) {
    let _the_line_may_be_gone =
        timeout(LAST_WORD, ends.types.send(Bytes::from_static(INTERRUPT))).await;
}

async fn send(ends: &Ends, bytes: Bytes) -> anyhow::Result<()> {
    ends.types
        .send(bytes)
        .await
        .ok()
        .context("the machine is gone, or its line is not yours any more")
}

/// A stranger's words.
pub fn clean(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(300).collect()
}
