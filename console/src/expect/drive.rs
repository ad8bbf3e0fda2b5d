//! Runs a program over an attach session: it asks for the line, does what the program says, and lets go of it
//! when that has ended, whichever way.

use std::pin::{Pin, pin};
use std::time::{Duration, Instant};

use futures::{Sink, SinkExt, Stream, StreamExt};
use tokio::time::{sleep_until, timeout, timeout_at};

use super::run::{Act, Note, Outcome, Run, Step};
use crate::attach::{Frame, Notice, Request, Want};
use crate::state::State;

/// Whoever answers for the line does so within this.
const ANSWERS: Duration = Duration::from_secs(20);
/// A line that takes nothing for so long is not waited for.
const TAKES: Duration = Duration::from_secs(30);
/// What was typed last is on its way within this.
const FAREWELL: Duration = Duration::from_secs(5);

/// Runs it to its end. `take`: the line is taken from whoever has it. `see` is given what people should see, as it
/// comes; no secrets are in it.
pub async fn drive<R, W>(
    run: Run,
    take: bool,
    from: R,
    to: W,
    mut see: impl FnMut(Note),
) -> Option<Outcome>
where
    R: Stream<Item = Frame>,
    W: Sink<Frame>,
{
    let (from, to) = (pin!(from), pin!(to));
    let mut driver = Driver { run, from, to, see: &mut see, visit: None, number: 0 };
    if let Err(why) = driver.drive(take).await {
        driver.run.broke_off(&why);
    }
    driver.show();
    driver.visit = None;
    let release = timeout(FAREWELL, driver.want(Want::Release)).await;
    if release.is_ok() {
        let _it_may_be_gone = timeout(FAREWELL, driver.to.close()).await;
    }
    driver.run.outcome().cloned()
}

struct Driver<'a, R, W, S> {
    run: Run,
    from: Pin<&'a mut R>,
    to: Pin<&'a mut W>,
    see: &'a mut S,
    /// Our own, once the line is ours.
    visit: Option<u64>,
    /// Of the last request.
    number: u64,
}

impl<R, W, S> Driver<'_, R, W, S>
where
    R: Stream<Item = Frame>,
    W: Sink<Frame>,
    S: FnMut(Note),
{
    async fn drive(&mut self, take: bool) -> Result<(), String> {
        let visit = self.hello().await?;
        self.want(if take { Want::Take } else { Want::Ask }).await?;
        self.visit = Some(visit);
        loop {
            let step = self.run.step(Instant::now());
            self.show();
            match step {
                Step::Ended => return Ok(()),
                Step::Do(Act::Send(bytes)) => self.send(Frame::Characters(bytes.into())).await?,
                Step::Do(Act::Break) => self.want(Want::Break).await?,
                Step::Do(Act::SysRq(key)) => self.want(Want::Sysrq { key }).await?,
                Step::Wait(until) => {
                    tokio::select! {
                        () = sleep_until(until.into()) => {}
                        frame = self.from.next() => {
                            self.said(frame)?;
                        }
                    }
                }
            }
        }
    }

    /// The first thing that is said.
    async fn hello(&mut self) -> Result<u64, String> {
        let first = timeout(ANSWERS, self.from.next()).await;
        let Ok(Some(Frame::Control(text))) = first else {
            return Err("the appliance does not answer".to_string());
        };
        match serde_json::from_str(&text) {
            Ok(Notice::Hello { types: false, machine, .. }) => {
                Err(format!("you may watch {machine}'s console, and not type"))
            }
            Ok(Notice::Hello { machine, line: State::Down { why, .. }, .. }) => {
                Err(format!("{machine}'s console is down: {why}"))
            }
            Ok(Notice::Hello { machine, line: State::Stolen { by, .. }, .. }) => {
                let by = by.unwrap_or_else(|| "another".to_string());
                Err(format!("{machine}'s console is taken by {by}"))
            }
            Ok(Notice::Hello { visit, .. }) => Ok(visit),
            Ok(_) | Err(_) => {
                Err("the appliance says something else: is it another version?".to_string())
            }
        }
    }

    /// Asks for something, and waits until it is done.
    async fn want(&mut self, want: Want) -> Result<(), String> {
        self.number += 1;
        let request = Request { n: Some(self.number), want };
        let frame = Frame::control(&request).ok_or("a request without words")?;
        self.send(frame).await?;
        let end = tokio::time::Instant::now() + ANSWERS;
        loop {
            let frame = timeout_at(end, self.from.next()).await;
            let frame = frame.map_err(|_| "the appliance does not answer".to_string())?;
            if self.said(frame)? == Some(self.number) {
                return Ok(());
            }
        }
    }

    async fn send(&mut self, frame: Frame) -> Result<(), String> {
        match timeout(TAKES, self.to.send(frame)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err("the appliance is gone".to_string()),
            Err(_) => Err("the line takes nothing".to_string()),
        }
    }

    /// What came; of a request that is done, its number.
    fn said(&mut self, frame: Option<Frame>) -> Result<Option<u64>, String> {
        let notice = match frame {
            None => return Err("the appliance is gone".to_string()),
            Some(Frame::Characters(bytes)) => {
                self.run.came(&bytes);
                self.show();
                return Ok(None);
            }
            Some(Frame::Control(text)) => serde_json::from_str::<Notice>(&text),
        };
        match notice {
            Ok(Notice::Done { n }) => return Ok(n),
            Ok(Notice::Refused { why, .. } | Notice::Bye { why }) => return Err(why),
            Ok(Notice::Floor(floor)) => {
                let holder = floor.holder.as_ref();
                let ours = self.visit.is_none() || holder.map(|holder| holder.visit) == self.visit;
                if !ours {
                    return Err(holder.map_or_else(
                        || {
                            "the line was taken and left again, or let go of in our name"
                                .to_string()
                        },
                        |holder| format!("{} took the line", holder.person),
                    ));
                }
            }
            Ok(Notice::Line { line: State::Down { why, .. } }) => {
                (self.see)(Note::Did(format!("(the line is down: {why})")));
            }
            // A notice of a later version is not for us.
            Ok(_) | Err(_) => {}
        }
        Ok(None)
    }

    fn show(&mut self) {
        self.run.notes().into_iter().for_each(&mut self.see);
    }
}
