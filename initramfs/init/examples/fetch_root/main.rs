//! A root on its way into memory, as PID 1 takes it, outside of a machine: for `make bench`.
//!
//! ```text
//! fetch_root http://ADDRESS:PORT DIRECTORY HEX SIZE [HEX SIZE]…    unpacks archives there, the lowest first
//! fetch_root http://ADDRESS:PORT NAME HEX SIZE [HEX SIZE]…         pours squashfs into the files NAME.0, …
//! ```

#![allow(dead_code, reason = "the rest of PID 1 is not here")]

#[path = "../../src/backoff.rs"]
mod backoff;
#[path = "../../src/clock.rs"]
mod clock;
#[path = "../../src/console.rs"]
mod console;
#[path = "../../../src/contract.rs"]
mod contract;
#[path = "../../src/http.rs"]
mod http;
mod root;
mod settle;

use std::fs::File;
use std::path::Path;
use std::process::ExitCode;

use contract::Blob;
use http::Server;
use root::archive::{self, NoRoot};
use root::fetch::{Event, PATIENCE, Stream};
use root::pour::pour;
use root::progress::{Course, rate};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [server, target, blobs @ ..] = args.as_slice() else {
        eprintln!("fetch_root http://ADDRESS:PORT DIRECTORY|NAME HEX SIZE [HEX SIZE]…");
        return ExitCode::from(2);
    };
    match blobs_of(blobs).and_then(|blobs| fetch(server, &blobs, target)) {
        Ok(said) => {
            println!("{said}");
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

fn blobs_of(words: &[String]) -> Result<Vec<Blob>, String> {
    let blobs = words.chunks_exact(2).map(|pair| {
        let path = format!("/blob/sha256/{}", pair[0]);
        let size = pair[1].parse().map_err(|_| format!("{:?} is no size", pair[1]))?;
        Ok(Blob { path, sha256: pair[0].clone(), size })
    });
    blobs.collect()
}

fn fetch(server: &str, blobs: &[Blob], target: &str) -> Result<String, String> {
    let server = Server::parse(server)?;
    // Nothing is tried twice here: what goes wrong is the answer.
    let mut failed = String::new();
    let mut hear = |event| match event {
        Event::Failed { why, .. } => {
            failed = why;
            false
        }
        _ => true,
    };
    let dir = Path::new(target);
    let outcome = if dir.is_dir() {
        let mut fresh = || Ok(());
        archive::fetch(server, blobs, "root", 1 << 40, dir, &mut fresh, PATIENCE, &mut hear)
            .map(|ready| (ready.made.members, ready.took))
    } else {
        let mut course = Course::new(blobs);
        let poured = blobs.iter().enumerate().map(|(at, blob)| {
            let mut place =
                || File::create(format!("{target}.{at}")).map_err(|error| error.to_string());
            let mut take = |file: &File, stream: &mut Stream<'_>, _, poured: &mut u64| {
                *poured = pour(stream, file).map_err(|error| error.to_string())?;
                Ok(())
            };
            let (blobs, course) = (std::slice::from_ref(blob), &mut course);
            archive::until_right(
                server, blobs, "root", &mut place, &mut take, course, PATIENCE, &mut hear,
            )
        });
        let poured = poured.collect::<Result<Vec<_>, _>>();
        poured.map(|all| (0, all.iter().map(|ready| ready.took).sum()))
    };
    match outcome {
        Ok((members, took)) => {
            let size = blobs.iter().map(|blob| blob.size).sum();
            Ok(format!("{members} members, {:.3} s, {}", took.as_secs_f64(), rate(size, took)))
        }
        Err(NoRoot::Stopped) => Err(failed),
        Err(NoRoot::Unusable(why)) => Err(why),
    }
}
