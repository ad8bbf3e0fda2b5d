//! The socket's side: who calls, by the credentials of the connection; whether they may; which
//! operation; an answer or a refusal as JSON.

use std::convert::Infallible;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use axum::extract::connect_info::Connected;
use axum::extract::{ConnectInfo, Query, Request, State};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::sse::{Event as SseEvent, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::serve::IncomingStream;
use axum::{Json, Router};
use futures::stream::{self, Stream, StreamExt};
use koboshi_pxe::hostile::Trouble;
use serde::{Deserialize, Serialize};
use tokio::net::UnixListener;
use tokio_stream::wrappers::BroadcastStream;
use tokio_util::sync::CancellationToken;

use crate::app::App;
use crate::ops;
use crate::rights::{Principal, Verb, may};
use crate::store::Event;

/// Where the socket of an appliance with this state directory is.
pub fn socket_path(state: &Path) -> PathBuf {
    state.join("koboshi.sock")
}

/// Why an operation was not done, and what to do about it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Refusal {
    /// HTTP status.
    #[serde(skip)]
    pub status: u16,
    /// In words.
    pub error: String,
    /// What to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
}

impl Refusal {
    /// The request names something that is not there.
    pub fn not_found(error: impl Into<String>, help: Option<String>) -> Refusal {
        Refusal { status: 404, error: error.into(), help }
    }

    /// The request cannot be done as things stand.
    pub fn conflict(error: impl Into<String>, help: Option<String>) -> Refusal {
        Refusal { status: 409, error: error.into(), help }
    }

    /// It is a lot, and whoever asks has to say that he knows.
    pub fn unsure(error: impl Into<String>, help: impl Into<String>) -> Refusal {
        Refusal { status: 428, error: error.into(), help: Some(help.into()) }
    }

    /// Whether it is only that.
    pub fn is_unsure(&self) -> bool {
        self.status == 428
    }

    /// Something failed on this side.
    pub fn failed(error: impl Into<String>) -> Refusal {
        Refusal { status: 500, error: error.into(), help: None }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, Json(self)).into_response()
    }
}

/// Who is at the other end.
#[derive(Clone)]
pub(super) struct Caller(pub(super) Option<Principal>);

impl Caller {
    /// For the event log.
    pub(super) fn name(&self) -> String {
        self.0.as_ref().map_or_else(|| "somebody".to_string(), ToString::to_string)
    }
}

impl Connected<IncomingStream<'_, UnixListener>> for Caller {
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Caller {
        Caller(stream.io().peer_cred().ok().map(|cred| Principal::Local { uid: cred.uid() }))
    }
}

/// Serves until cancelled.
pub async fn serve(app: Arc<App>, cancel: CancellationToken) -> std::io::Result<()> {
    let path = socket_path(&app.state);
    // The lock on the state directory is ours: a socket that is there is a dead appliance's.
    match std::fs::remove_file(&path) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let listener = UnixListener::bind(&path)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o660))?;
    let service = routes(app).into_make_service_with_connect_info::<Caller>();
    let result = axum::serve(listener, service)
        .with_graceful_shutdown(async move { cancel.cancelled().await })
        .await;
    // A path that is gone already is as good.
    std::fs::remove_file(&path).unwrap_or(());
    result
}

fn routes(app: Arc<App>) -> Router {
    let v1 = Router::new()
        .route("/status", get(status))
        .route("/boots", get(boots))
        .route("/booted", get(booted))
        .route("/events", get(events))
        .route("/counters", get(counters))
        .route("/hostile", get(hostile))
        .route("/pending", get(pending))
        .route("/leases", get(leases))
        .route("/explain", get(explain))
        .route("/hardware", get(hardware))
        .route("/rollout/meant", get(rollout_meant))
        .route("/rollout/trials", get(rollout_trials))
        .route("/maintain", get(maintained))
        .route("/known-hosts", get(known_hosts))
        .route("/troubles", get(troubles))
        .merge(changes(app.clone()))
        .merge(super::attach::routes())
        .merge(super::console::routes())
        .merge(super::machines::routes());
    Router::new().nest("/api/v1", v1).with_state(app)
}

/// What changes the state: refused while nothing gets onto the disk, and answered once it is there.
fn changes(app: Arc<App>) -> Router<Arc<App>> {
    Router::new()
        .route("/rollout/retry", post(rollout_retry))
        .route("/seat", post(seat))
        .route("/adopt", post(adopt))
        .route("/fence", post(fence))
        .route("/maintain", post(maintain))
        .route("/maintain/cancel", post(cancel))
        .route("/reload", post(reload))
        .route_layer(middleware::from_fn_with_state(app, durable))
}

async fn durable(State(app): Api, request: Request, next: Next) -> Response {
    if let Some(trouble) = app.store.trouble() {
        let error = format!(
            "nothing is changed: {} cannot be written ({})",
            trouble.path.display(),
            trouble.why
        );
        return Refusal { status: 507, error, help: Some(trouble.help) }.into_response();
    }
    let response = next.run(request).await;
    if !response.status().is_success() {
        return response;
    }
    match app.store.settled().await {
        Ok(()) => response,
        Err(error) => Refusal::failed(error.to_string()).into_response(),
    }
}

pub(super) type Api = State<Arc<App>>;
pub(super) type From = ConnectInfo<Caller>;

pub(super) fn allow(caller: &Caller, verb: Verb, machine: Option<&str>) -> Result<(), Refusal> {
    if caller.0.as_ref().is_some_and(|principal| may(principal, verb, machine)) {
        return Ok(());
    }
    let error = "you may look, and not change anything".to_string();
    let help = Some("run it as root or as the user the appliance runs as".to_string());
    Err(Refusal { status: 403, error, help })
}

async fn status(
    State(app): Api,
    ConnectInfo(caller): From,
    Query(query): Query<ops::status::Query>,
) -> Result<Json<Vec<ops::status::Row>>, Refusal> {
    allow(&caller, Verb::Look, None)?;
    ops::status::answer(&app, &query).map(Json)
}

async fn boots(
    State(app): Api,
    ConnectInfo(caller): From,
    Query(query): Query<ops::boots::Query>,
) -> Result<Json<Vec<ops::boots::Boot>>, Refusal> {
    allow(&caller, Verb::Look, Some(&query.who))?;
    ops::boots::answer(&app, &query).map(Json)
}

async fn booted(
    State(app): Api,
    ConnectInfo(caller): From,
    Query(query): Query<ops::booted::Query>,
) -> Result<Json<ops::booted::Answer>, Refusal> {
    allow(&caller, Verb::Look, Some(&query.who))?;
    ops::booted::answer(&app, &query).map(Json)
}

async fn explain(
    State(app): Api,
    ConnectInfo(caller): From,
    Query(query): Query<ops::explain::Query>,
) -> Result<Json<ops::explain::Explanation>, Refusal> {
    allow(&caller, Verb::Look, Some(&query.who))?;
    ops::explain::answer(&app, &query).map(Json)
}

async fn hardware(
    State(app): Api,
    ConnectInfo(caller): From,
    Query(query): Query<ops::hardware::Query>,
) -> Result<Json<ops::hardware::Answer>, Refusal> {
    allow(&caller, Verb::Look, Some(&query.who))?;
    ops::hardware::answer(&app, &query).map(Json)
}

async fn known_hosts(
    State(app): Api,
    ConnectInfo(caller): From,
    Query(query): Query<ops::known_hosts::Query>,
) -> Result<Json<Vec<ops::known_hosts::Row>>, Refusal> {
    allow(&caller, Verb::Look, None)?;
    Ok(Json(ops::known_hosts::answer(&app, &query)))
}

async fn rollout_meant(
    State(app): Api,
    ConnectInfo(caller): From,
    Query(query): Query<ops::rollout::Query>,
) -> Result<Json<ops::rollout::Meant>, Refusal> {
    allow(&caller, Verb::Look, None)?;
    ops::rollout::meant(&app, &query).map(Json)
}

async fn rollout_trials(
    State(app): Api,
    ConnectInfo(caller): From,
) -> Result<Json<Vec<ops::rollout::Shown>>, Refusal> {
    allow(&caller, Verb::Look, None)?;
    Ok(Json(ops::rollout::trials(&app)))
}

async fn rollout_retry(
    State(app): Api,
    ConnectInfo(caller): From,
    Json(query): Json<ops::rollout::Query>,
) -> Result<Json<ops::rollout::Meant>, Refusal> {
    allow(&caller, Verb::Change, None)?;
    ops::rollout::retry(&app, &query, &caller.name()).await.map(Json)
}

async fn seat(
    State(app): Api,
    ConnectInfo(caller): From,
    Json(query): Json<ops::seat::Query>,
) -> Result<Json<ops::seat::Answer>, Refusal> {
    allow(&caller, Verb::Change, Some(&query.machine))?;
    ops::seat::answer(&app, query).await.map(Json)
}

async fn adopt(
    State(app): Api,
    ConnectInfo(caller): From,
    Json(query): Json<ops::adopt::Query>,
) -> Result<Json<ops::adopt::Answer>, Refusal> {
    allow(&caller, if query.dry { Verb::Look } else { Verb::Change }, Some(&query.who))?;
    ops::adopt::answer(&app, query).await.map(Json)
}

async fn fence(
    State(app): Api,
    ConnectInfo(caller): From,
    Json(query): Json<ops::fence::Query>,
) -> Result<Json<ops::fence::Answer>, Refusal> {
    let verb = if query.dry { Verb::Look } else { Verb::Fence };
    allow(&caller, verb, Some(&query.machine))?;
    ops::fence::answer(&app, &query, &caller.name()).await.map(Json)
}

async fn maintain(
    State(app): Api,
    ConnectInfo(caller): From,
    Json(query): Json<ops::maintain::Query>,
) -> Result<Json<ops::maintain::Answer>, Refusal> {
    let verb = if query.dry { Verb::Look } else { Verb::Maintain };
    allow(&caller, verb, Some(&query.machine))?;
    if query.now {
        allow(&caller, Verb::Operate, Some(&query.machine))?;
    }
    if query.duty.changes_bmc() && !query.dry {
        allow(&caller, Verb::Administer, Some(&query.machine))?;
    }
    ops::maintain::answer(&app, query, &caller.name()).await.map(Json)
}

async fn cancel(
    State(app): Api,
    ConnectInfo(caller): From,
    Json(query): Json<ops::maintain::Cancel>,
) -> Result<Json<ops::maintain::Row>, Refusal> {
    allow(&caller, Verb::Maintain, Some(&query.machine))?;
    ops::maintain::cancel(&app, &query, &caller.name()).await.map(Json)
}

async fn maintained(
    State(app): Api,
    ConnectInfo(caller): From,
) -> Result<Json<Vec<ops::maintain::Row>>, Refusal> {
    allow(&caller, Verb::Look, None)?;
    Ok(Json(ops::maintain::list(&app)))
}

async fn reload(
    State(app): Api,
    ConnectInfo(caller): From,
    Json(query): Json<ops::reload::Query>,
) -> Result<Json<crate::app::Reloaded>, Refusal> {
    allow(&caller, if query.dry { Verb::Look } else { Verb::Change }, None)?;
    if let Some(path) = &query.site {
        let same = |a: &Path, b: &Path| {
            a == b || a.canonicalize().ok().is_some_and(|a| b.canonicalize().is_ok_and(|b| a == b))
        };
        if !same(path, &app.path) {
            let error =
                format!("the appliance serves {}, not {}", app.path.display(), path.display());
            return Err(Refusal::not_found(error, None));
        }
    }
    Ok(Json(app.reload(query.accept, query.dry).await))
}

/// What looks as if somebody on the wire meant harm.
async fn hostile(
    State(app): Api,
    ConnectInfo(caller): From,
) -> Result<Json<Vec<Trouble>>, Refusal> {
    allow(&caller, Verb::Look, None)?;
    Ok(Json(app.desk.hostile.now(Instant::now())))
}

/// How often what has happened since the start, malformed packets among it.
async fn counters(
    State(app): Api,
    ConnectInfo(caller): From,
) -> Result<Json<serde_json::Value>, Refusal> {
    allow(&caller, Verb::Look, None)?;
    let (tftp, http) = (&app.counters.tftp, &app.counters.http);
    let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    Ok(Json(serde_json::json!({
        "dhcp": app.dhcp_counters().await,
        "tftp": {
            "requests": read(&tftp.requests), "repeated": read(&tftp.repeated),
            "malformed": read(&tftp.malformed), "stray": read(&tftp.stray),
            "refused": read(&tftp.refused), "overload": read(&tftp.overload),
            "unheard": read(&tftp.unheard), "displaced": read(&tftp.displaced),
            "probed": read(&tftp.probed), "done": read(&tftp.done),
            "aborted": read(&tftp.aborted), "timed_out": read(&tftp.timed_out),
            "replaced": read(&tftp.replaced), "bytes": read(&tftp.bytes),
            "resent": read(&tftp.resent), "running": read(&tftp.running),
        },
        "http": {
            "connections": read(&http.connections), "requests": read(&http.requests),
            "crowded": read(&http.crowded), "displaced": read(&http.displaced), "malformed": read(&http.malformed),
            "slow": read(&http.slow), "broken": read(&http.broken), "open": read(&http.open), "sent": read(&http.sent),
        },
        "lost": { "news": app.desk.lost_news(), "ledger": app.ledger.failures() },
    })))
}

async fn pending(
    State(app): Api,
    ConnectInfo(caller): From,
) -> Result<Json<ops::reload::Pending>, Refusal> {
    allow(&caller, Verb::Look, None)?;
    Ok(Json(ops::reload::Pending { site: app.path.clone(), waits: app.pending.load().to_vec() }))
}

/// What is wrong with the host, a line each with what to do.
async fn troubles(
    State(app): Api,
    ConnectInfo(caller): From,
) -> Result<Json<Vec<String>>, Refusal> {
    allow(&caller, Verb::Look, None)?;
    let unwritten = app.store.unwritten().list().iter().map(ToString::to_string).collect();
    Ok(Json([unwritten, app.unreached.load().to_vec()].concat()))
}

async fn leases(
    State(app): Api,
    ConnectInfo(caller): From,
) -> Result<Json<Vec<koboshi_pxe::dhcp::server::LeaseStatus>>, Refusal> {
    allow(&caller, Verb::Look, None)?;
    Ok(Json(app.leases().await))
}

async fn events(
    State(app): Api,
    ConnectInfo(caller): From,
    Query(query): Query<ops::events::Query>,
) -> Result<Response, Refusal> {
    allow(&caller, Verb::Look, None)?;
    let follow = app.ledger.follow();
    let past = app
        .store
        .events(query.since, query.count.min(10_000))
        .map_err(|error| Refusal::failed(error.to_string()))?;
    if !query.follow {
        return Ok(Json(past).into_response());
    }
    // All that was since then, page by page, before what happens: nothing falls between.
    let mut past = past;
    if query.since > 0 {
        loop {
            let last = past.last().map_or(query.since, |event| event.id);
            let more = app.store.events(last, 1000);
            let more = more.map_err(|error| Refusal::failed(error.to_string()))?;
            if more.is_empty() {
                break;
            }
            past.extend(more);
        }
    }
    let last = past.last().map_or(query.since, |event| event.id);
    // A follower never ends by itself, and must not hold up a stop.
    let stream = live(past, follow, last).take_until(app.cancel.clone().cancelled_owned());
    Ok(Sse::new(stream).keep_alive(KeepAlive::default()).into_response())
}

/// What was, then what happens; an event that is in both is told once, and a follower that was too
/// slow is told how many it missed.
fn live(
    past: Vec<Event>,
    follow: tokio::sync::broadcast::Receiver<Event>,
    last: u64,
) -> impl Stream<Item = Result<SseEvent, Infallible>> {
    let now = BroadcastStream::new(follow).filter_map(move |event| async move {
        match event {
            Ok(event) if event.id <= last => None,
            Ok(event) => Some(event),
            Err(lagged) => Some(Event {
                id: 0,
                at: crate::ledger::now_ms(),
                kind: "gap".to_string(),
                who: None,
                text: format!("this follower was too slow: {lagged}"),
            }),
        }
    });
    stream::iter(past).chain(now).map(|event| {
        let text = serde_json::to_string(&event).expect("an event is plain JSON");
        Ok(SseEvent::default().event(event.kind).data(text))
    })
}
