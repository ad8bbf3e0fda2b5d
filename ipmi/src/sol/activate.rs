//! From a session to an active payload: whether the BMC does it at all, whose it is, and what is agreed on.
//!
//! IPMI 2.0 §15.3 (activation), §24.1 (Activate Payload and its completion codes).

use std::time::Duration;

use super::owner::{self, Bearer, Owner};
use super::payload::{self, Activate, Activated, Alerts};
use crate::commands::parameters::Table;
use crate::crypto::{Confidentiality, Integrity};
use crate::error::Error;
use crate::message::{Completion, NetFn, Request};

/// In a request: the channel it comes by.
const THIS_CHANNEL: u8 = 0x0e;
/// SOL configuration parameter 1 (table 26-5).
const ENABLE: u8 = 1;
const CLOSE_SESSION: u8 = 0x3c;

/// Attempts until another's deactivation has come through: on some boards it takes a moment, on
/// Supermicro's H8QME it takes two.
const ATTEMPTS: u32 = 4;

/// Whose Serial over LAN may be ended for ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Takeover {
    /// Nobody's.
    Never,
    /// Our own of before, which nobody reads any more.
    #[default]
    OwnOrphan,
    /// Anybody's.
    Always,
}

/// How to activate.
#[derive(Debug, Clone)]
pub struct Wish {
    /// Which instance, from 1.
    pub instance: u8,
    /// Whose may be ended.
    pub takeover: Takeover,
    /// What becomes of alerts by the serial port.
    pub alerts: Alerts,
    /// CTS and DCD stay down.
    pub lines_down: bool,
    /// Between attempts.
    pub pause: Duration,
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Activation {
    /// What the BMC agreed to.
    pub agreed: Activated,
    /// It tells whose the payload is, and says ours: what it says later can be believed.
    pub tells_owner: bool,
}

/// Activates.
///
/// # Errors
/// [`Error::SolTaken`], [`Error::SolDisabled`], and those of any command.
pub async fn activate(bmc: &impl Bearer, wish: &Wish) -> Result<Activation, Error> {
    // What cannot be read is found out by activating.
    let enabled = Table::sol(THIS_CHANNEL).read_if_known(bmc, ENABLE, 0, 0).await;
    match enabled {
        Ok(Some(data)) if data.first().is_some_and(|first| first & 1 == 0) => {
            return Err(Error::SolDisabled);
        }
        Ok(_) | Err(Error::Refused { .. } | Error::Malformed(_)) => {}
        Err(error) => return Err(error),
    }
    if is_active(bmc, wish.instance).await? {
        make_way(bmc, wish).await?;
    }
    let suite = bmc.suite();
    if suite.is_none() && bmc.session().is_some() {
        return Err(Error::Unsupported("Serial over LAN under IPMI 1.5"));
    }
    let activate = Activate {
        instance: wish.instance,
        encrypted: suite.is_some_and(|suite| suite.confidentiality != Confidentiality::None),
        authenticated: suite.is_some_and(|suite| suite.integrity != Integrity::None),
        alerts: wish.alerts,
        lines_down: wish.lines_down,
    };
    for attempt in 0..ATTEMPTS {
        if attempt > 0 {
            tokio::time::sleep(wish.pause).await;
        }
        let response = match bmc.ask(activate.request()).await {
            // In a new session it shows whether it was heard: by who has it now.
            Err(Error::Uncertain { .. }) if attempt + 1 < ATTEMPTS => continue,
            other => other?,
        };
        match response.completion.0 {
            0x00 => {
                let agreed = Activated::decode(&response.data)?;
                let tells_owner = owner::ask(bmc, wish.instance).await? == Owner::Us;
                return Ok(Activation { agreed, tells_owner });
            }
            // Active already, or as often as it can be. Also when the first answer was lost and the
            // repetition came to firmware that does not know one when it sees it.
            0x80 | 0x82 => make_way(bmc, wish).await?,
            0x81 => return Err(Error::SolDisabled),
            code if Completion(code).is_passing() => {}
            // Also 0x83, "not encrypted": in the clear is never sent what was agreed on as hidden.
            code => {
                let completion = Completion(code);
                return Err(Error::Refused {
                    netfn: NetFn::APP,
                    command: payload::ACTIVATE,
                    completion,
                });
            }
        }
    }
    Err(Error::SolTaken { by: None })
}

/// Ends ours.
pub async fn deactivate(bmc: &impl Bearer, instance: u8) -> Result<(), Error> {
    match bmc.call(payload::deactivate_request(instance)).await {
        Err(Error::Refused { .. }) | Ok(_) => Ok(()),
        Err(error) => Err(error),
    }
}

async fn is_active(bmc: &impl Bearer, instance: u8) -> Result<bool, Error> {
    match bmc.call(payload::status_request()).await {
        Ok(data) => Ok(payload::decode_status(&data, instance).is_ok_and(|(_, active)| active)),
        // Supermicro's X8SIL-F does not know the question.
        Err(Error::Refused { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Ends whose it is, if that may be.
async fn make_way(bmc: &impl Bearer, wish: &Wish) -> Result<(), Error> {
    match (owner::ask(bmc, wish.instance).await?, wish.takeover) {
        (Owner::Us, _) | (_, Takeover::Always) => {}
        (Owner::Orphan(session), Takeover::OwnOrphan) => {
            close(bmc, session).await?;
            if !is_active(bmc, wish.instance).await? {
                return Ok(());
            }
        }
        (Owner::Other(session) | Owner::Orphan(session), _) => {
            return Err(Error::SolTaken { by: owner::name(bmc, session).await });
        }
        (Owner::Nobody | Owner::Unknown, Takeover::OwnOrphan) if !bmc.orphans().is_empty() => {
            // It may be that of an orphan: without them, it shows.
            for session in bmc.orphans() {
                close(bmc, session).await?;
            }
            return match is_active(bmc, wish.instance).await? {
                true => Err(Error::SolTaken { by: None }),
                false => Ok(()),
            };
        }
        // "Active", and nobody's: left behind by a session that broke off (OpenBMC).
        (Owner::Nobody, _) => {}
        (Owner::Unknown, _) => return Err(Error::SolTaken { by: None }),
    }
    deactivate(bmc, wish.instance).await
}

/// Closes a session of before. That it is gone already is as good.
async fn close(bmc: &impl Bearer, session: u32) -> Result<(), Error> {
    let request = Request::new(NetFn::APP, CLOSE_SESSION, session.to_le_bytes());
    match bmc.call(request).await {
        Err(Error::Refused { .. }) | Ok(_) => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::script::{Script, ok, refuse};
    use crate::controller::Controller;
    use crate::crypto::{SUITE_17, Suite};
    use crate::message::Response;

    const US: u32 = 0x1122_3344;
    const ORPHAN: u32 = 0x0a0b_0c0d;
    const OTHER: u32 = 0x5566_7788;

    struct Ours(Script);

    impl Controller for Ours {
        async fn ask(&self, request: Request) -> Result<Response, Error> {
            self.0.ask(request).await
        }
    }

    impl Bearer for Ours {
        fn session(&self) -> Option<u32> {
            Some(US)
        }

        fn suite(&self) -> Option<Suite> {
            Some(SUITE_17)
        }

        fn orphans(&self) -> Vec<u32> {
            vec![ORPHAN]
        }
    }

    type Step = (Request, Result<Response, Error>);

    fn wish(takeover: Takeover) -> Wish {
        Wish {
            instance: 1,
            takeover,
            alerts: Alerts::Fail,
            lines_down: false,
            pause: Duration::ZERO,
        }
    }

    fn enabled() -> Step {
        (Table::sol(0x0e).get_request(1, 0, 0), ok([0x11, 1]))
    }

    fn status(active: u8) -> Step {
        (payload::status_request(), ok([1, active, 0]))
    }

    fn activation(answer: Result<Response, Error>) -> Step {
        (Request::new(NetFn::APP, 0x48, [1, 1, 0xc0, 0, 0, 0]), answer)
    }

    fn granted() -> Step {
        activation(ok([0, 0, 0, 0, 0xcc, 0, 0xcc, 0, 0x6f, 2, 0xff, 0xff]))
    }

    fn owned(by: u32) -> Step {
        let mut data = by.to_le_bytes().to_vec();
        data.extend([0; 8]);
        (payload::instance_request(1), ok(data))
    }

    fn deactivated() -> Step {
        (payload::deactivate_request(1), ok([]))
    }

    fn named() -> [Step; 2] {
        let info = [7, 5, 2, 3, 4, 0x11, 10, 0, 0, 9, 1, 2, 3, 4, 5, 6, 0x6f, 2];
        let mut name = b"eve".to_vec();
        name.resize(16, 0);
        [
            (Request::new(NetFn::APP, 0x3d, [0xff, 0x88, 0x77, 0x66, 0x55]), ok(info)),
            (Request::new(NetFn::APP, 0x46, [3]), ok(name)),
        ]
    }

    async fn run(takeover: Takeover, steps: Vec<Step>) -> Result<Activation, Error> {
        let bmc = Ours(Script::new(steps));
        let outcome = activate(&bmc, &wish(takeover)).await;
        bmc.0.finish();
        outcome
    }

    #[tokio::test]
    async fn free_and_given() {
        let steps = vec![enabled(), status(0), granted(), owned(US)];
        let activation = run(Takeover::Never, steps).await.unwrap();
        assert!(activation.tells_owner);
        assert_eq!(activation.agreed.largest(false), 200);
    }

    #[tokio::test]
    async fn switched_off_by_its_setting_or_by_its_answer() {
        let off = (Table::sol(0x0e).get_request(1, 0, 0), ok([0x11, 0]));
        assert_eq!(run(Takeover::Never, vec![off]).await, Err(Error::SolDisabled));
        let unknown = (Table::sol(0x0e).get_request(1, 0, 0), refuse(0x80));
        let steps = vec![unknown, status(0), activation(refuse(0x81))];
        assert_eq!(run(Takeover::Never, steps).await, Err(Error::SolDisabled));
        assert!(Error::SolDisabled.advice().is_some());
    }

    #[tokio::test]
    async fn taken_by_another_who_is_named() {
        for takeover in [Takeover::Never, Takeover::OwnOrphan] {
            let mut steps = vec![enabled(), status(1), owned(OTHER)];
            steps.extend(named());
            let by = Some("eve from 10.0.0.9".to_string());
            assert_eq!(run(takeover, steps).await, Err(Error::SolTaken { by }));
        }
    }

    #[tokio::test]
    async fn taken_over_from_another_when_asked_for() {
        let steps = vec![enabled(), status(1), owned(OTHER), deactivated(), granted(), owned(US)];
        run(Takeover::Always, steps).await.unwrap();
    }

    #[tokio::test]
    async fn an_orphan_of_ours_is_closed_and_nobody_elses() {
        let close = || (Request::new(NetFn::APP, 0x3c, ORPHAN.to_le_bytes()), ok([]));
        let steps =
            vec![enabled(), status(1), owned(ORPHAN), close(), status(0), granted(), owned(US)];
        run(Takeover::OwnOrphan, steps).await.unwrap();
        // A BMC that does not tell whose it is.
        let untold = || (payload::instance_request(1), refuse(0xc1));
        let steps = vec![enabled(), status(1), untold(), close(), status(0), granted(), untold()];
        assert!(!run(Takeover::OwnOrphan, steps).await.unwrap().tells_owner);
        let steps = vec![enabled(), status(1), untold(), close(), status(1)];
        assert_eq!(run(Takeover::OwnOrphan, steps).await, Err(Error::SolTaken { by: None }));
    }

    /// The answer to the first was lost, and the repetition is refused as another's would be.
    #[tokio::test]
    async fn active_already_and_ours() {
        let steps = vec![
            enabled(),
            status(0),
            activation(refuse(0x80)),
            owned(US),
            deactivated(),
            granted(),
            owned(US.swap_bytes()),
        ];
        assert!(run(Takeover::Never, steps).await.unwrap().tells_owner);
    }

    /// The BMC fell silent at Activate: the next session finds what the one before left.
    #[tokio::test]
    async fn whether_it_was_heard_is_not_known() {
        let steps = vec![
            enabled(),
            status(0),
            activation(Err(Error::Uncertain { waited: Duration::ZERO })),
            activation(refuse(0x80)),
            owned(ORPHAN),
            (Request::new(NetFn::APP, 0x3c, ORPHAN.to_le_bytes()), ok([])),
            status(0),
            granted(),
            owned(US),
        ];
        run(Takeover::OwnOrphan, steps).await.unwrap();
    }

    #[tokio::test]
    async fn status_unknown_or_wrong() {
        let unknown = (payload::status_request(), refuse(0xcc));
        run(Takeover::Never, vec![enabled(), unknown, granted(), owned(US)]).await.unwrap();
        let none = (payload::status_request(), ok([0, 1, 0]));
        let steps = vec![enabled(), none, owned(0), deactivated(), granted(), owned(US)];
        run(Takeover::Never, steps).await.unwrap();
    }

    #[tokio::test]
    async fn a_deactivation_that_never_comes_through_ends() {
        let mut steps = vec![enabled(), status(0)];
        for _ in 0..ATTEMPTS {
            steps.extend([activation(refuse(0x80)), owned(OTHER), deactivated()]);
        }
        assert_eq!(run(Takeover::Always, steps).await, Err(Error::SolTaken { by: None }));
    }

    #[tokio::test]
    async fn never_in_the_clear_where_it_was_hidden() {
        let steps = vec![enabled(), status(0), activation(refuse(0x83))];
        let error = run(Takeover::Never, steps).await.unwrap_err();
        assert_eq!(error.completion(), Some(Completion(0x83)));
        assert!(error.to_string().contains("encrypt"), "{error}");
    }
}
