//! Operations that reach many machines out of band: one handler for all of them, which streams a JSON object a
//! line as machines answer.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{ConnectInfo, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use futures::{Stream, StreamExt};
use serde::Serialize;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::Refusal;
use super::server::{Api, From, allow};
use crate::app::App;
use crate::ops::many::{self, Asked, Operation, Reach};
use crate::ops::{bmc, bootdev, fru, lan, power, scan, sel, sensors, watchdog};
use crate::rights::Verb;

/// Their addresses.
pub(super) fn routes() -> Router<Arc<App>> {
    Router::new()
        .merge(route::<power::Query>())
        .merge(route::<bootdev::Query>())
        .merge(route::<sensors::Query>())
        .merge(route::<sel::Query>())
        .merge(route::<fru::Query>())
        .merge(route::<watchdog::Query>())
        .merge(route::<lan::Query>())
        .merge(route::<bmc::Query>())
        .route("/scan", post(scan))
}

fn route<O: Operation>() -> Router<Arc<App>> {
    Router::new().route(&format!("/{}", O::NAME), post(answer::<O>))
}

async fn answer<O: Operation>(
    State(app): Api,
    ConnectInfo(caller): From,
    Json(asked): Json<Asked<O>>,
) -> Result<Response, Refusal> {
    allow(&caller, Verb::Look, None)?;
    let site = app.site.load_full();
    let machines = many::meant(&site, &asked)?;
    let verb = asked.what.deed().map_or(Verb::Look, |deed| deed.verb);
    for machine in &machines {
        allow(&caller, verb, Some(machine.as_str()))?;
    }
    let ledger = Some(app.ledger.clone());
    let reach = Reach { site, bmcs: app.bmcs.clone(), ledger, by: caller.name() };
    Ok(stream(&app, many::begin(reach, asked.what, machines)))
}

async fn scan(
    State(app): Api,
    ConnectInfo(caller): From,
    Json(query): Json<scan::Query>,
) -> Result<Response, Refusal> {
    // It sends to whoever has an address there.
    allow(&caller, Verb::Operate, None)?;
    Ok(stream(&app, scan::begin(app.site.load_full(), &query)?))
}

fn stream<T: Serialize + Send + 'static>(app: &App, lines: mpsc::Receiver<T>) -> Response {
    json_lines(app, ReceiverStream::new(lines))
}

/// A JSON object a line.
pub(super) fn json_lines<T: Serialize>(
    app: &App,
    lines: impl Stream<Item = T> + Send + 'static,
) -> Response {
    let lines = lines.map(|line| serde_json::to_string(&line).map(|line| format!("{line}\n")));
    // One who follows never ends by himself, and must not hold up a stop.
    let lines = lines.take_until(app.cancel.clone().cancelled_owned());
    ([(CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response()
}
