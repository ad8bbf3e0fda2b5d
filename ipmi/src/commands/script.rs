//! A controller that answers from a script, for tests of procedures.

use std::collections::VecDeque;
use std::sync::Mutex;

use crate::controller::Controller;
use crate::error::Error;
use crate::message::{Completion, Request, Response};

/// What is expected, in order, and what is answered. Anything else fails the test.
pub(crate) struct Script(Mutex<VecDeque<(Request, Result<Response, Error>)>>);

/// An answer of completion code 0.
pub(crate) fn ok(data: impl Into<Vec<u8>>) -> Result<Response, Error> {
    Ok(Response { completion: Completion::OK, data: data.into() })
}

/// A refusal.
pub(crate) fn refuse(code: u8) -> Result<Response, Error> {
    Ok(Response { completion: Completion(code), data: Vec::new() })
}

impl Script {
    pub(crate) fn new(
        steps: impl IntoIterator<Item = (Request, Result<Response, Error>)>,
    ) -> Script {
        Script(Mutex::new(steps.into_iter().collect()))
    }

    /// Fails the test if something expected was not asked.
    pub(crate) fn finish(self) {
        let rest = self.0.into_inner().unwrap();
        assert!(rest.is_empty(), "not asked: {rest:x?}");
    }
}

impl Controller for Script {
    async fn ask(&self, request: Request) -> Result<Response, Error> {
        let (expected, answer) =
            self.0.lock().unwrap().pop_front().unwrap_or_else(|| panic!("asked: {request:x?}"));
        assert_eq!(request, expected);
        answer
    }
}
