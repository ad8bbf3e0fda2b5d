//! A BMC that answers anything, asked for its sensors, its event log and its inventory: whatever it says, there is
//! an end to asking, and every row can be printed.

#![no_main]

use std::sync::{LazyLock, Mutex};

use koboshi_ipmi::commands::sdr::{self, Records, Repository, Source};
use koboshi_ipmi::commands::sensor::{self, Options};
use koboshi_ipmi::commands::{dcmi, fru, sel};
use koboshi_ipmi::{Completion, Controller, Error, Request, Response};
use libfuzzer_sys::fuzz_target;
use tokio::runtime::{Builder, Runtime};

/// Questions after which a BMC says nothing more.
const MOST: usize = 2000;

/// Answers from the input: a byte that chooses between data and a refusal, a length, the data; then from the
/// beginning again.
struct Stranger {
    answers: Vec<Response>,
    asked: Mutex<usize>,
}

impl Stranger {
    fn new(mut bytes: &[u8]) -> Stranger {
        let mut answers = Vec::new();
        while let [choice, length, rest @ ..] = bytes {
            let (data, rest) = rest.split_at(usize::from(*length).min(rest.len()));
            let completion = if *choice < 0xc0 { Completion::OK } else { Completion(*choice) };
            answers.push(Response { completion, data: data.to_vec() });
            bytes = rest;
        }
        Stranger { answers, asked: Mutex::default() }
    }
}

impl Controller for Stranger {
    async fn ask(&self, _request: Request) -> Result<Response, Error> {
        let asked = {
            let mut count = self.asked.lock().expect("one thread");
            *count += 1;
            *count - 1
        };
        if self.answers.is_empty() || asked >= MOST {
            return Err(Error::Closed);
        }
        Ok(self.answers[asked % self.answers.len()].clone())
    }
}

/// Time goes by as fast as it is waited for.
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    let mut builder = Builder::new_current_thread();
    builder.enable_time().start_paused(true).build().expect("a runtime")
});

fuzz_target!(|bytes: &[u8]| {
    let records = bytes.chunks(70).map(<[u8]>::to_vec).collect();
    let mut repository = Repository::new(&Records { records, ..Records::default() });
    RUNTIME.block_on(async {
        if let Ok(read) = sdr::load(&Stranger::new(bytes), None).await {
            repository.sensors.extend(read.sensors);
        }
        let _ = sdr::read::records(&Stranger::new(bytes), Source::Device, Some(3)).await;
        let options = Options { thresholds: true, ..Options::default() };
        for reading in sensor::read_all(&Stranger::new(bytes), &repository, options)
            .await
            .into_iter()
            .flatten()
        {
            assert!(reading.value.is_none_or(f64::is_finite));
            assert!(!reading.shown().chars().any(char::is_control));
        }
        let log = sel::list(&Stranger::new(bytes)).await.unwrap_or_default();
        for entry in &log.entries {
            let told = sel::describe(entry, Some(&repository));
            assert!(!told.event.is_empty() && !told.sensor.chars().any(char::is_control));
        }
        for part in fru::all(&Stranger::new(bytes), Some(&repository)).await.into_iter().flatten() {
            assert!(!format!("{part:?}").is_empty());
        }
        let _ = (dcmi::power(&Stranger::new(bytes)).await, sel::clear(&Stranger::new(bytes)).await);
    });
});
