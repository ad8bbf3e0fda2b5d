//! Asking again while a controller says that it is busy, starting or updating: completion codes after which
//! IPMI has the requester come back (table 5-2, 0xC0 and its like).

use std::time::Duration;

use crate::controller::Controller;
use crate::error::Error;
use crate::message::{Completion, Request, Response};

/// How often, and for how long each time: 1.5 s in all.
const PAUSES: [u64; 6] = [20, 50, 100, 200, 400, 730];

/// Asks until the answer is something else than "later", for about 1.5 s.
pub async fn ask(bmc: &impl Controller, request: &Request) -> Result<Response, Error> {
    for pause in PAUSES {
        let response = bmc.ask(request.clone()).await?;
        if !response.completion.is_passing() {
            return Ok(response);
        }
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }
    bmc.ask(request.clone()).await
}

/// The same, with any completion code but 0 for an error.
pub async fn call(bmc: &impl Controller, request: &Request) -> Result<Vec<u8>, Error> {
    let response = ask(bmc, request).await?;
    match response.completion {
        Completion::OK => Ok(response.data),
        completion => {
            Err(Error::Refused { netfn: request.netfn, command: request.command, completion })
        }
    }
}

#[cfg(test)]
pub(crate) mod script {
    //! A controller that answers from a closure, and remembers what it was asked.

    use std::sync::Mutex;

    use super::*;

    type Answer = Box<dyn FnMut(&Request) -> Response + Send>;

    pub(crate) struct Scripted {
        answer: Mutex<Answer>,
        pub(crate) asked: Mutex<Vec<Request>>,
    }

    impl Scripted {
        pub(crate) fn new(answer: impl FnMut(&Request) -> Response + Send + 'static) -> Scripted {
            Scripted { answer: Mutex::new(Box::new(answer)), asked: Mutex::default() }
        }

        pub(crate) fn count(&self) -> usize {
            self.asked.lock().unwrap().len()
        }
    }

    impl Controller for Scripted {
        async fn ask(&self, request: Request) -> Result<Response, Error> {
            let response = (self.answer.lock().unwrap())(&request);
            self.asked.lock().unwrap().push(request);
            Ok(response)
        }
    }

    pub(crate) fn ok(data: impl Into<Vec<u8>>) -> Response {
        Response { completion: Completion::OK, data: data.into() }
    }

    pub(crate) fn code(completion: Completion) -> Response {
        Response { completion, data: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::script::{Scripted, code, ok};
    use super::*;
    use crate::message::NetFn;

    #[tokio::test(start_paused = true)]
    async fn busy_is_waited_for_and_not_for_ever() {
        let mut left = 3;
        let bmc = Scripted::new(move |_| {
            left -= 1;
            if left < 0 { ok([1]) } else { code(Completion::NODE_BUSY) }
        });
        let request = Request::new(NetFn::APP, 1, []);
        assert_eq!(call(&bmc, &request).await.unwrap(), [1]);
        assert_eq!(bmc.count(), 4);
        let bmc = Scripted::new(|_| code(Completion::NODE_BUSY));
        let refused = call(&bmc, &request).await.unwrap_err();
        assert_eq!(refused.completion(), Some(Completion::NODE_BUSY));
        assert_eq!(bmc.count(), 7);
    }
}
