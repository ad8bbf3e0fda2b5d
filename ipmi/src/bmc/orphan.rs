//! A session that the run before left open: closed before anything else, so that the BMC does not end it a
//! minute later together with the console that was activated in the meantime.
//!
//! IPMI 2.0 §22.19 (an administrator may close the session of another), §22.20 (whose it is). Ids are
//! handed out again, so that one is closed only if the BMC says that it was opened from our port, or does
//! not say.

use super::memory::Orphan;
use crate::controller::Controller;
use crate::error::Error;
use crate::message::{Completion, NetFn, Request};

const CLOSE_SESSION: u8 = 0x3c;
const GET_SESSION_INFO: u8 = 0x3d;
const BY_ID: u8 = 0xff;

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Burial {
    /// It was open, and is not any more.
    Closed,
    /// The BMC does not know it any more.
    Gone,
    /// Its id is somebody else's now.
    NotOurs,
    /// The BMC does not let us.
    Refused(Completion),
}

/// Closes it, by another session.
pub(super) async fn close(bmc: &impl Controller, orphan: Orphan) -> Result<Burial, Error> {
    let id = orphan.managed.to_le_bytes();
    let mut data = vec![BY_ID];
    data.extend(id);
    let info = bmc.ask(Request::new(NetFn::APP, GET_SESSION_INFO, data)).await?;
    if info.completion == Completion::OK {
        // [handle, most, active, user, privilege, channel, address × 4, MAC × 6, port × 2]
        match info.data.as_slice() {
            [0, ..] => return Ok(Burial::Gone),
            [_, _, _, _, _, _, rest @ ..] => {
                let port = rest.get(10..12).and_then(|port| port.try_into().ok());
                let ours = |port: [u8; 2]| {
                    [u16::from_le_bytes(port), u16::from_be_bytes(port)].contains(&orphan.port)
                };
                if port.is_some_and(|port| port != [0, 0] && !ours(port)) {
                    return Ok(Burial::NotOurs);
                }
            }
            _ => {}
        }
    }
    let closed = bmc.ask(Request::new(NetFn::APP, CLOSE_SESSION, id)).await?;
    Ok(match closed.completion {
        Completion::OK => Burial::Closed,
        // No such session; of a handle.
        Completion(0x87 | 0x88) => Burial::Gone,
        completion => Burial::Refused(completion),
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::message::Response;

    struct Script(Mutex<Vec<(u8, Response)>>);

    impl Controller for Script {
        async fn ask(&self, request: Request) -> Result<Response, Error> {
            let (command, response) = self.0.lock().unwrap().remove(0);
            assert_eq!(request.command, command);
            Ok(response)
        }
    }

    async fn play(script: &[(u8, u8, &[u8])]) -> Burial {
        let answers = script.iter().map(|(command, code, data)| {
            (*command, Response { completion: Completion(*code), data: data.to_vec() })
        });
        let script = Script(Mutex::new(answers.collect()));
        let orphan = Orphan { managed: 0x0102_0304, port: 0x1234 };
        let burial = close(&script, orphan).await.unwrap();
        assert!(script.0.lock().unwrap().is_empty());
        burial
    }

    #[tokio::test]
    async fn ours_or_not() {
        let mut info = vec![1, 4, 2, 2, 4, 0x11, 127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0x34, 0x12];
        let close: (u8, u8, &[u8]) = (0x3c, 0, &[]);
        assert_eq!(play(&[(0x3d, 0, &info), close]).await, Burial::Closed);
        info[16..].copy_from_slice(&[0x12, 0x34]);
        assert_eq!(play(&[(0x3d, 0, &info), close]).await, Burial::Closed);
        info[16..].copy_from_slice(&[0x12, 0x35]);
        assert_eq!(play(&[(0x3d, 0, &info)]).await, Burial::NotOurs);
        assert_eq!(play(&[(0x3d, 0, &info[..6]), close]).await, Burial::Closed);
        assert_eq!(play(&[(0x3d, 0, &[0, 4, 1])]).await, Burial::Gone);
        assert_eq!(play(&[(0x3d, 0xc1, &[]), close]).await, Burial::Closed);
        assert_eq!(play(&[(0x3d, 0xc1, &[]), (0x3c, 0x87, &[])]).await, Burial::Gone);
        let refused = Burial::Refused(Completion::PRIVILEGE);
        assert_eq!(play(&[(0x3d, 0xcb, &[]), (0x3c, 0xd4, &[])]).await, refused);
    }
}
