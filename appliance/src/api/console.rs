//! Consoles: how they are, and what they say, streamed a JSON object a line.

use std::sync::Arc;

use axum::extract::{ConnectInfo, Query, State};
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Json, Router};
use futures::stream;
use koboshi_console::Drawn;
use tokio_stream::wrappers::ReceiverStream;

use super::Refusal;
use super::machines::json_lines;
use super::server::{Api, From, allow};
use crate::app::App;
use crate::ops;
use crate::ops::console::{self, Row, Seen};
use crate::rights::Verb;

/// Their addresses.
pub(super) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/consoles", get(all))
        .route("/consoles/ssh", get(by_ssh))
        .route("/console", get(watch))
        .route("/console/break", post(sysrq))
        .route("/console/screen", get(screen))
        .route("/log", get(log))
}

async fn all(State(app): Api, ConnectInfo(caller): From) -> Result<Json<Vec<Row>>, Refusal> {
    allow(&caller, Verb::Look, None)?;
    Ok(Json(console::all(&app)))
}

async fn by_ssh(
    State(app): Api,
    ConnectInfo(caller): From,
) -> Result<Json<crate::ssh::Answer>, Refusal> {
    allow(&caller, Verb::Look, None)?;
    Ok(Json(app.ssh.answer()))
}

/// A BREAK, and SysRq keys if they are named.
async fn sysrq(
    State(app): Api,
    ConnectInfo(caller): From,
    Json(query): Json<console::sysrq::Query>,
) -> Result<Response, Refusal> {
    let line = console::line(&app, &query.who, |machine| {
        allow(&caller, Verb::Type, Some(machine.as_str()))
    })?;
    let steps = console::sysrq::begin(&app.ledger, line, query, caller.name()).await?;
    Ok(json_lines(&app, ReceiverStream::new(steps)))
}

async fn screen(
    State(app): Api,
    ConnectInfo(caller): From,
    Query(query): Query<console::Query>,
) -> Result<Json<Drawn>, Refusal> {
    let drawn = console::screen(&app, &query.who, |machine| {
        allow(&caller, Verb::Watch, Some(machine.as_str()))
    })?;
    Ok(Json(drawn))
}

async fn log(
    State(app): Api,
    ConnectInfo(caller): From,
    Query(query): Query<ops::log::Query>,
) -> Result<Response, Refusal> {
    let sources = ops::log::sources(&app, &query, |name| allow(&caller, Verb::Watch, Some(name)))?;
    tracing::debug!(who = query.who, by = caller.name(), "logs of consoles are read");
    Ok(json_lines(&app, ReceiverStream::new(ops::log::begin(query, sources))))
}

async fn watch(
    State(app): Api,
    ConnectInfo(caller): From,
    Query(query): Query<console::Query>,
) -> Result<Response, Refusal> {
    let (machine, viewer) = console::watch(&app, &query, |machine| {
        allow(&caller, Verb::Watch, Some(machine.as_str()))
    })?;
    tracing::debug!(%machine, by = caller.name(), "its console is watched");
    // What the connection does not take stays in the line's scrollback, or is skipped there.
    let seen = stream::unfold(viewer, async |mut viewer| {
        let piece = viewer.next().await?;
        Some((Seen::from(piece), viewer))
    });
    Ok(json_lines(&app, seen))
}
