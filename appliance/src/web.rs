//! The admin address's HTTP: consoles for browsers. It listens on the maintenance network and nowhere else.
//!
//! The page and its scripts are no secret. The WebSocket behind it wants a ticket ([`crate::tickets`]) among its
//! subprotocols (the one header that a script can set), and, from a browser, that the page is ours: its `Origin` has to
//! be the host that was asked (RFC 6455 §10.2).

use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::{ConnectInfo, Extension, Path, Query, State};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, ORIGIN, REFERRER_POLICY,
    SEC_WEBSOCKET_PROTOCOL, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, Request};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use koboshi_console::Person;
use koboshi_console::attach::{Comes, May};
use serde::Deserialize;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::api::{self, Refusal};
use crate::app::App;
use crate::ops::console;
use crate::rights::{Verb, may};

/// Connections at a time, consoles that are looked at among them; more wait in the kernel.
const CONNECTIONS: usize = 512;
/// For a request's head, and between two requests.
const HEAD: Duration = Duration::from_secs(15);
/// A browser that vanished is found after three of these.
const ALIVE: Duration = Duration::from_secs(20);
/// Before another try where the system has no descriptor for a connection.
const AGAIN: Duration = Duration::from_millis(100);
/// Whose words a script may say that we understand.
const PROTOCOL: &str = "koboshi";
/// Nothing but what is ours, in nobody's frame. xterm.js writes styles of its own.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Held as long as a connection is.
type Room = Arc<OwnedSemaphorePermit>;

/// Serves until cancelled.
pub async fn serve(
    app: Arc<App>,
    listener: TcpListener,
    cancel: CancellationToken,
) -> io::Result<()> {
    let router = routes(app);
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    let accepted = async {
        loop {
            let Ok(permit) = room.clone().acquire_owned().await else { pending().await };
            match listener.accept().await {
                Ok((stream, from)) => {
                    let (router, cancel) = (router.clone(), cancel.clone());
                    tokio::spawn(async move {
                        let serves = connection(stream, from, router, Arc::new(permit));
                        let _it_ends_or_we_do = cancel.run_until_cancelled(serves).await;
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "the admin address");
                    tokio::time::sleep(AGAIN).await;
                }
            }
        }
    };
    let _never: Option<()> = cancel.run_until_cancelled(accepted).await;
    Ok(())
}

async fn connection(stream: TcpStream, from: SocketAddr, router: Router, room: Room) {
    // A socket that takes neither is gone already.
    let _as_far_as_it_goes = stream.set_nodelay(true);
    let alive = TcpKeepalive::new().with_time(ALIVE).with_interval(ALIVE).with_retries(3);
    let _as_far_as_it_goes = SockRef::from(&stream).set_tcp_keepalive(&alive);
    let router = TowerToHyperService::new(router);
    let service = service_fn(|mut request: Request<Incoming>| {
        request.extensions_mut().insert(ConnectInfo(from));
        request.extensions_mut().insert(room.clone());
        router.call(request)
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD).max_buf_size(16 * 1024);
    // Whatever a stranger sends: he hears it, and we go on.
    let served = http.serve_connection(TokioIo::new(stream), service).with_upgrades();
    let _whatever_he_sent = served.await;
}

fn routes(app: Arc<App>) -> Router {
    Router::new()
        .route("/console/{machine}", get(page))
        .route("/console/{machine}/attach", get(attach))
        .route("/web/{file}", get(file))
        .with_state(app)
}

async fn page() -> Response {
    ours("text/html; charset=utf-8", include_bytes!("../../web/console.html"))
}

async fn file(Path(name): Path<String>) -> Response {
    match name.as_str() {
        "console.js" => ours(SCRIPT, include_bytes!("../../web/console.js")),
        "console.css" => ours(STYLE, include_bytes!("../../web/console.css")),
        "xterm.js" => ours(SCRIPT, include_bytes!("../../web/xterm/xterm.js")),
        "xterm.css" => ours(STYLE, include_bytes!("../../web/xterm/xterm.css")),
        "xterm.LICENSE" => {
            ours("text/plain; charset=utf-8", include_bytes!("../../web/xterm/LICENSE"))
        }
        _ => Refusal::not_found("there is no such page", None).into_response(),
    }
}

const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";

fn ours(kind: &'static str, bytes: &'static [u8]) -> Response {
    let head = [
        (CONTENT_TYPE, kind),
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
        (CACHE_CONTROL, "no-cache"),
    ];
    (head, Body::from(bytes)).into_response()
}

#[derive(Debug, Deserialize)]
struct Begin {
    #[serde(default)]
    last: usize,
}

async fn attach(
    State(app): State<Arc<App>>,
    ConnectInfo(from): ConnectInfo<SocketAddr>,
    Extension(room): Extension<Room>,
    Path(machine): Path<String>,
    Query(begin): Query<Begin>,
    headers: HeaderMap,
    upgrade: WebSocketUpgrade,
) -> Result<Response, Refusal> {
    let refused = |error: &str| {
        tracing::info!(%from, machine, error, "a browser is refused");
        let help = "koboshi console WHO --url makes an address that is good once, within a minute";
        Refusal { status: 403, error: error.to_string(), help: Some(help.to_string()) }
    };
    if !same_origin(&headers) {
        return Err(refused("this page is of another origin"));
    }
    let ticket = ticket(&headers).and_then(|text| app.tickets.redeem(text, Instant::now()));
    let Some(ticket) = ticket.filter(|ticket| ticket.machine == machine) else {
        return Err(refused(
            "no ticket for this console: it was used, it is too old, or it never was",
        ));
    };
    // Asked again with every key: rights change while somebody is at a line.
    let allowed = {
        let (by, machine) = (ticket.by.clone(), machine.clone());
        move |verb| may(&by, verb, Some(&machine))
    };
    let (machine, line) = console::line(&app, &machine, |_| match allowed(Verb::Watch) {
        true => Ok(()),
        false => Err(refused("who made this ticket may not watch this console")),
    })?;
    let types = ticket.types;
    let may = May::new(move || match types && allowed(Verb::Type) {
        true => Ok(()),
        false => Err("you may watch this line, and not type".to_string()),
    });
    let person = Person { name: ticket.by.to_string(), via: format!("web from {}", from.ip()) };
    let who = Comes { machine: machine.to_string(), person, may, last: begin.last };
    let upgrade = upgrade.protocols([PROTOCOL]);
    Ok(api::carry(&app, upgrade, line, who, Some(room)))
}

/// Programs have no origin; a page has, and it has to be the host that it asks.
fn same_origin(headers: &HeaderMap) -> bool {
    let mut origins = headers.get_all(ORIGIN).iter();
    let (Some(origin), None) = (origins.next(), origins.next()) else {
        return headers.get(ORIGIN).is_none();
    };
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    let origin = origin.to_str().ok().and_then(|origin| {
        origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"))
    });
    host.is_some_and(|host| origin.is_some_and(|origin| origin.eq_ignore_ascii_case(host)))
}

/// Of the subprotocols that are offered, the one that is none.
fn ticket(headers: &HeaderMap) -> Option<&str> {
    let offered = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter();
    let offered =
        offered.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    offered.map(str::trim).find_map(|protocol| protocol.strip_prefix("ticket."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_of_others_are_refused_and_programs_are_not() {
        let headers = |origin: Option<&str>, host: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(HOST, host.parse().unwrap());
            if let Some(origin) = origin {
                headers.insert(ORIGIN, origin.parse().unwrap());
            }
            headers
        };
        let at = "127.0.0.1:7070";
        assert!(same_origin(&headers(None, at)));
        assert!(same_origin(&headers(Some("http://127.0.0.1:7070"), at)));
        assert!(same_origin(&headers(Some("https://Koboshi.example"), "koboshi.example")));
        for foreign in ["http://evil.example", "null", "http://127.0.0.1", "127.0.0.1:7070", ""] {
            assert!(!same_origin(&headers(Some(foreign), at)), "{foreign}");
        }
        let mut twice = headers(Some("http://127.0.0.1:7070"), at);
        twice.append(ORIGIN, "http://evil.example".parse().unwrap());
        assert!(!same_origin(&twice));
        let mut offers = HeaderMap::new();
        assert_eq!(ticket(&offers), None);
        offers.insert(SEC_WEBSOCKET_PROTOCOL, "koboshi, ticket.abc".parse().unwrap());
        assert_eq!(ticket(&offers), Some("abc"));
    }
}
