//! The command line's side of `/api/v1`.

use std::path::{Path, PathBuf};

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper::upgrade::Upgraded;
use hyper::{Method, Request, Response, body::Incoming};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::server::{Refusal, socket_path};

/// Answers larger than this are not ours.
const ANSWER_MAX: usize = 256 << 20;

/// Why there was no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error(
        "no appliance answers at {path} ({why}); is `koboshi serve` running, and with this --state?"
    )]
    NoAppliance {
        /// The socket.
        path: PathBuf,
        /// The system's word.
        why: std::io::Error,
    },
    /// Somebody listens, but not to us.
    #[error("you may not open {path}: ask as root, or as the user or group it belongs to")]
    NotAllowed {
        /// The socket.
        path: PathBuf,
    },
    /// It said no.
    #[error("{}{}", .0.error, .0.help.as_ref().map(|help| format!("\n  help: {help}")).unwrap_or_default())]
    Refused(Refusal),
    /// What it says cannot be shown.
    #[error("writing what it says")]
    Output(#[source] std::io::Error),
    /// The answer was cut or not understood.
    #[error("the appliance's answer was not understood: {0}")]
    Garbled(String),
}

/// Messages both ways.
pub type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// One appliance, by its state directory.
pub struct Client {
    socket: PathBuf,
}

impl Client {
    /// The appliance that keeps its state there.
    pub fn new(state: &Path) -> Client {
        Client { socket: socket_path(state) }
    }

    /// Asks.
    pub async fn get<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &impl Serialize,
    ) -> Result<T, ClientError> {
        let query = to_query(query)?;
        let response = self.send(Method::GET, &format!("{path}?{query}"), Bytes::new()).await?;
        parse(&collect(response).await?)
    }

    /// Asks for a change.
    pub async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        let body = serde_json::to_vec(body).map_err(|error| garbled(&error))?;
        let response = self.send(Method::POST, path, body.into()).await?;
        parse(&collect(response).await?)
    }

    /// Follows a stream of events; `each` says whether to go on.
    pub async fn follow<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &impl Serialize,
        mut each: impl FnMut(T) -> bool,
    ) -> Result<(), ClientError> {
        let query = to_query(query)?;
        let mut response = self.send(Method::GET, &format!("{path}?{query}"), Bytes::new()).await?;
        let mut rest = BytesMut::new();
        while let Some(frame) = response.body_mut().frame().await {
            let frame = frame.map_err(|error| garbled(&error))?;
            rest.extend_from_slice(frame.data_ref().unwrap_or(&Bytes::new()));
            while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                let line = rest.split_to(end + 1);
                if let Some(data) = line.strip_prefix(b"data:")
                    && !each(parse(data)?)
                {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Asks for a change, and hears of it line by line; ends early when `each` fails.
    pub async fn lines<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
        each: impl FnMut(T) -> std::io::Result<()>,
    ) -> Result<(), ClientError> {
        let body = serde_json::to_vec(body).map_err(|error| garbled(&error))?;
        each_line(self.send(Method::POST, path, body.into()).await?, each).await
    }

    /// Hears of something line by line; ends early when `each` fails.
    pub async fn listen<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &impl Serialize,
        each: impl FnMut(T) -> std::io::Result<()>,
    ) -> Result<(), ClientError> {
        let path = format!("{path}?{}", to_query(query)?);
        each_line(self.send(Method::GET, &path, Bytes::new()).await?, each).await
    }

    /// Opens a WebSocket.
    pub async fn socket(&self, path: &str, query: &impl Serialize) -> Result<Socket, ClientError> {
        let path = format!("{path}?{}", to_query(query)?);
        let upgrade = Request::builder()
            .header("connection", "upgrade")
            .header("upgrade", "websocket")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", generate_key());
        let response = self.ask(upgrade, Method::GET, &path, Bytes::new()).await?;
        let upgraded = hyper::upgrade::on(response).await.map_err(|error| garbled(&error))?;
        Ok(WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Client, None).await)
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<Response<Incoming>, ClientError> {
        self.ask(Request::builder(), method, path, body).await
    }

    async fn ask(
        &self,
        request: hyper::http::request::Builder,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<Response<Incoming>, ClientError> {
        let no = |why: std::io::Error| match why.kind() {
            std::io::ErrorKind::PermissionDenied => {
                ClientError::NotAllowed { path: self.socket.clone() }
            }
            _ => ClientError::NoAppliance { path: self.socket.clone(), why },
        };
        let stream = UnixStream::connect(&self.socket).await.map_err(no)?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| garbled(&error))?;
        // Ends with the response; its errors come out of the response too.
        tokio::spawn(async move { connection.with_upgrades().await.unwrap_or(()) });
        let request = request
            .method(method)
            .uri(format!("/api/v1{path}"))
            .header("host", "koboshi")
            .header("content-type", "application/json")
            .body(Full::new(body))
            .map_err(|error| garbled(&error))?;
        let response = sender.send_request(request).await.map_err(|error| garbled(&error))?;
        let switches = response.status() == hyper::StatusCode::SWITCHING_PROTOCOLS;
        if response.status().is_success() || switches {
            return Ok(response);
        }
        let status = response.status();
        let body = collect(response).await?;
        let refusal = serde_json::from_slice::<Refusal>(&body).unwrap_or_else(|_| Refusal {
            status: status.as_u16(),
            error: format!("{status}: {}", String::from_utf8_lossy(&body).trim()),
            help: None,
        });
        Err(ClientError::Refused(Refusal { status: status.as_u16(), ..refusal }))
    }
}

async fn each_line<T: DeserializeOwned>(
    mut response: Response<Incoming>,
    mut each: impl FnMut(T) -> std::io::Result<()>,
) -> Result<(), ClientError> {
    let mut rest = BytesMut::new();
    while let Some(frame) = response.body_mut().frame().await {
        let frame = frame.map_err(|error| garbled(&error))?;
        rest.extend_from_slice(frame.data_ref().unwrap_or(&Bytes::new()));
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            each(parse(&rest.split_to(end + 1))?).map_err(ClientError::Output)?;
        }
    }
    Ok(())
}

async fn collect(response: Response<Incoming>) -> Result<Bytes, ClientError> {
    let body = http_body_util::Limited::new(response.into_body(), ANSWER_MAX);
    let body = body.collect().await.map_err(|error| ClientError::Garbled(error.to_string()))?;
    Ok(body.to_bytes())
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, ClientError> {
    serde_json::from_slice(body).map_err(|error| garbled(&error))
}

fn garbled(error: &impl std::fmt::Display) -> ClientError {
    ClientError::Garbled(error.to_string())
}

/// `a=1&b=x%20y`, from a flat struct.
fn to_query(query: &impl Serialize) -> Result<String, ClientError> {
    let value = serde_json::to_value(query).map_err(|error| garbled(&error))?;
    let mut pairs = Vec::new();
    for (key, value) in value.as_object().into_iter().flatten() {
        let text = match value {
            serde_json::Value::Null => continue,
            serde_json::Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let safe = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        let escaped = text.bytes().fold(String::new(), |mut out, byte| {
            if safe(byte) {
                out.push(char::from(byte));
            } else {
                out.push_str(&format!("%{byte:02X}"));
            }
            out
        });
        pairs.push(format!("{key}={escaped}"));
    }
    Ok(pairs.join("&"))
}
