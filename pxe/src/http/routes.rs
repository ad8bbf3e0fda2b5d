//! The addresses of the provisioning network: a machine's script, blobs by digest, reports, and the
//! files that TFTP has too.
//! Nothing here asks who somebody is, and nothing secret is behind it (S17).

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{ConnectInfo, DefaultBodyLimit, Path, RawQuery, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};

use super::{Lane, respond};
use crate::content::{Content, parse_hex};
use crate::desk::{Desk, NoChoice, ReportRefusal};
use crate::mac::Mac;
use crate::{menu, tftp};

/// The largest answer that is read at all; what is understood is shorter.
const ANSWER_MAX: usize = 4096;
/// A machine waits a second for the answer to a report, and its boot with it.
const KEPT: Duration = Duration::from_millis(800);

/// The router; `report_max` is the contract's bound on a report.
pub fn routes(desk: Arc<Desk>, report_max: usize) -> Router {
    Router::new()
        .route("/boot/{file}", get(script))
        .route("/blob/sha256/{digest}", get(blob))
        .route("/report/{boot}", post(report).layer(DefaultBodyLimit::max(report_max)))
        .route("/choose/{who}", get(choose).post(chosen).layer(DefaultBodyLimit::max(ANSWER_MAX)))
        .route("/{*name}", get(file))
        .with_state(desk)
}

async fn script(
    State(desk): State<Arc<Desk>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    Path(file): Path<String>,
) -> Response {
    let mac = file.strip_suffix(".ipxe").and_then(|mac| mac.parse::<Mac>().ok());
    let Some(mac) = mac else {
        return no("expected /boot/<mac>.ipxe, like /boot/52:54:00:77:00:01.ipxe");
    };
    match desk.script(mac, peer.ip()) {
        Some(text) => ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response(),
        None => no("the site has nothing for this machine"),
    }
}

/// iPXE, with what was typed at its menu: `GET /choose/<mac>?words=db%20id%3D100`. It opens no boot: the
/// DISCOVER that the answer asks for does.
async fn choose(
    State(desk): State<Arc<Desk>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    Path(who): Path<String>,
    RawQuery(query): RawQuery,
) -> Response {
    let Ok(mac) = who.parse::<Mac>() else {
        return no("expected /choose/<mac>, like /choose/52:54:00:77:00:01");
    };
    let query = query.unwrap_or_default();
    let words = menu::decode(query.strip_prefix("words=").unwrap_or_default());
    match desk.choose_in_loader(mac, peer.ip(), &words) {
        Some(text) => ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response(),
        None => no("the site offers nothing to choose here"),
    }
}

/// `koboshi-init`, with what was typed at its prompt: `POST /choose/<boot>`.
async fn chosen(
    State(desk): State<Arc<Desk>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    Path(who): Path<String>,
    body: Bytes,
) -> Response {
    let Ok(id) = who.parse() else { return no("a boot id is 32 hexadecimal digits") };
    match desk.choose_in_init(id, peer.ip(), &String::from_utf8_lossy(&body)) {
        Ok(says) => (StatusCode::OK, format!("{says}\n")).into_response(),
        Err(NoChoice::Refused(why)) => {
            (StatusCode::UNPROCESSABLE_ENTITY, format!("{why}\n")).into_response()
        }
        Err(NoChoice::NotYours) => no("no such boot"),
    }
}

/// UEFI HTTP boot fetches its loader here (HEAD for the size, then GET), and whoever speaks HTTP
/// may have all that TFTP has, under the same names.
async fn file(
    State(desk): State<Arc<Desk>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    Path(name): Path<String>,
    Extension(lane): Extension<Lane>,
    method: Method,
    headers: HeaderMap,
) -> Response {
    let Some(name) = tftp::name::clean(name.as_bytes()) else { return no("no such file") };
    let Some(content) = desk.file(&name, peer.ip()) else { return no("no such file") };
    if method == Method::GET {
        desk.file_sent(peer, &name, " over HTTP");
    }
    let etag = match &content {
        // Orders are of the moment, and a loader is replaced by a package upgrade.
        Content::Bytes(bytes) => {
            let mut hasher = DefaultHasher::new();
            bytes.hash(&mut hasher);
            format!("\"{:016x}\"", hasher.finish())
        }
        Content::File { .. } => format!("\"{name}\""),
    };
    respond(&lane, &content, &etag, "application/efi", &method, &headers)
}

async fn blob(
    State(desk): State<Arc<Desk>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    Path(hex): Path<String>,
    Extension(lane): Extension<Lane>,
    method: Method,
    headers: HeaderMap,
) -> Response {
    let Some(digest) = parse_hex::<32>(&hex) else {
        return no("a digest is 64 hexadecimal digits");
    };
    let Some(content) = desk.blob(&digest) else { return no("no such blob") };
    if method == Method::GET {
        desk.blob_sent(peer.ip(), &digest);
    }
    let etag = format!("\"{}\"", hex.to_ascii_lowercase());
    let kind = "application/octet-stream";
    let mut response = respond(&lane, &content, &etag, kind, &method, &headers);
    let forever = HeaderValue::from_static("public, max-age=31536000, immutable");
    response.headers_mut().insert(header::CACHE_CONTROL, forever);
    response
}

async fn report(
    State(desk): State<Arc<Desk>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    Path(boot): Path<String>,
    body: Bytes,
) -> Response {
    let Ok(id) = boot.parse() else { return no("a boot id is 32 hexadecimal digits") };
    match desk.report(id, peer.ip(), body) {
        // A machine that was told "heard" tells it once: it is on disk by then, or it is told otherwise.
        Ok(kept) => match tokio::time::timeout(KEPT, kept).await {
            Ok(Ok(())) => StatusCode::NO_CONTENT.into_response(),
            _ => (StatusCode::SERVICE_UNAVAILABLE, "heard, and not written down yet\n")
                .into_response(),
        },
        // One answer for both: which ids exist is nobody's business.
        Err(ReportRefusal::NoSuchBoot | ReportRefusal::WrongAddress) => no("no such boot"),
        Err(ReportRefusal::TooOften) => StatusCode::TOO_MANY_REQUESTS.into_response(),
        Err(ReportRefusal::Busy) => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}

fn no(why: &'static str) -> Response {
    (StatusCode::NOT_FOUND, Body::from(format!("{why}\n"))).into_response()
}
