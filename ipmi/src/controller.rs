//! Whoever answers IPMI requests: a BMC through its session, or a satellite controller behind one.

use std::future::Future;

use crate::error::Error;
use crate::message::{Completion, Request, Response};

/// What commands are asked of. Procedures of several steps (a sensor repository read in parts) are written
/// once against this, and tested against a script.
pub trait Controller: Sync {
    /// Asks and waits for the answer, whatever its completion code. Loss is the controller's affair: it asks
    /// again, and errs when the session or the BMC is gone.
    fn ask(&self, request: Request) -> impl Future<Output = Result<Response, Error>> + Send;

    /// Asks, and takes any completion code but 0 for an error.
    fn call(&self, request: Request) -> impl Future<Output = Result<Vec<u8>, Error>> + Send {
        async move {
            let (netfn, command) = (request.netfn, request.command);
            let response = self.ask(request).await?;
            match response.completion {
                Completion::OK => Ok(response.data),
                completion => Err(Error::Refused { netfn, command, completion }),
            }
        }
    }
}

impl<C: Controller + ?Sized> Controller for &C {
    fn ask(&self, request: Request) -> impl Future<Output = Result<Response, Error>> + Send {
        (**self).ask(request)
    }
}
