//! Requests to one registry: who we are is said to it and to nobody else, wherever it sends us.
//!
//! Redirects are followed here and not by the client, for they lead to other hosts as a matter of
//! course (blobs lie in an object store), and what is for the registry must not go along.

use std::io::Read;
use std::time::Duration;

use ureq::http::{Request, Response, StatusCode, Uri};
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, Body, SendBody};

use super::Options;
use super::auth::{self, Basic, Challenge, encoded, same_house};
use super::reference::{Remote, is_loopback};
use crate::{Error, oci};

/// Silence longer than this is the end of a connection.
const SILENCE: Duration = Duration::from_secs(60);
/// Redirects in a row.
const REDIRECTS: usize = 5;
/// What is read of an error's body, and of a token's.
const WORDS_MAX: u64 = 64 << 10;

/// What to send, so often as it takes.
pub(super) type Payload<'a> = &'a mut dyn FnMut() -> std::io::Result<(Box<dyn Read + 'a>, u64)>;

/// One registry and one repository of it.
pub(super) struct Client {
    agent: Agent,
    host: String,
    plain: bool,
    repository: String,
    actions: &'static str,
    basic: Option<Basic>,
    /// `Authorization`, once a challenge was met.
    authorization: Option<String>,
}

impl Client {
    pub(super) fn new(
        remote: &Remote,
        options: &Options,
        actions: &'static str,
    ) -> Result<Client, Error> {
        let host = match &remote.host[..] {
            // What docker means by the name of its hub.
            "docker.io" | "index.docker.io" => "registry-1.docker.io".to_owned(),
            host => host.to_owned(),
        };
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .user_agent(concat!("koboshi/", env!("CARGO_PKG_VERSION")))
            .timeout_connect(Some(Duration::from_secs(20)))
            .timeout_recv_response(Some(SILENCE))
            .timeout_per_read(Some(SILENCE))
            .timeout_per_write(Some(SILENCE));
        if is_loopback(&host) {
            config = config.proxy(None);
        }
        if let Some(path) = &options.ca {
            let pem = std::fs::read(path).map_err(Error::io("reading", path))?;
            let certs: Vec<_> = parse_pem(&pem)
                .filter_map(|item| match item {
                    Ok(PemItem::Certificate(cert)) => Some(cert),
                    _ => None,
                })
                .collect();
            if certs.is_empty() {
                let what = format!("{} holds no certificate in PEM", path.display());
                return Err(Error::Registry { host, what });
            }
            let roots = RootCerts::new_with_certs(&certs);
            config = config.tls_config(TlsConfig::builder().root_certs(roots).build());
        }
        let basic = auth::find(&remote.host, &remote.repository, options.creds_file.as_deref())?;
        Ok(Client {
            agent: config.build().into(),
            host,
            plain: options.plain_http,
            repository: remote.repository.clone(),
            actions,
            basic,
            authorization: None,
        })
    }

    /// An error that names the registry.
    pub(super) fn error(&self, what: impl Into<String>) -> Error {
        Error::Registry { host: self.host.clone(), what: what.into() }
    }

    /// Address of something of the repository: `manifests/3`, `blobs/sha256:…`.
    pub(super) fn url(&self, rest: &str) -> String {
        let scheme = if self.plain { "http" } else { "https" };
        format!("{scheme}://{}/v2/{}/{rest}", self.host, self.repository)
    }

    /// Sends it, meets a challenge, follows redirects of what only reads.
    pub(super) fn send(
        &mut self,
        method: &str,
        url: &str,
        headers: &[(&str, &str)],
        mut payload: Option<Payload<'_>>,
    ) -> Result<Response<Body>, Error> {
        let mut url = url.to_owned();
        let (mut redirects, mut challenged) = (0, false);
        loop {
            let reads = matches!(method, "GET" | "HEAD");
            let response = self.once(method, &url, headers, payload.as_mut())?;
            let status = response.status();
            if status == StatusCode::UNAUTHORIZED && !challenged && self.is_ours(&url) {
                challenged = true;
                self.meet(&response)?;
                continue;
            }
            if !(status.is_redirection() && reads && status != StatusCode::NOT_MODIFIED) {
                return Ok(response);
            }
            redirects += 1;
            if redirects > REDIRECTS {
                return Err(self.error("sends us from one address to the next without end"));
            }
            let location = header(&response, "location");
            let location = location.ok_or_else(|| self.error("sends us to no address"))?;
            url = self.join(&url, &location)?;
        }
    }

    fn once(
        &self,
        method: &str,
        url: &str,
        headers: &[(&str, &str)],
        payload: Option<&mut Payload<'_>>,
    ) -> Result<Response<Body>, Error> {
        let mut request = Request::builder().method(method).uri(url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(authorization) = self.authorization.as_ref().filter(|_| self.is_ours(url)) {
            request = request.header("authorization", authorization);
        }
        let wrong = |error: ureq::http::Error| self.error(error.to_string());
        let sent = match payload {
            None => self.agent.run(request.body(()).map_err(wrong)?),
            Some(payload) => {
                let (mut reader, length) = payload()
                    .map_err(|source| Error::Io { what: "reading a blob".to_owned(), source })?;
                request = request.header("content-length", length.to_string());
                let body = SendBody::from_reader(&mut reader);
                self.agent.run(request.body(body).map_err(wrong)?)
            }
        };
        sent.map_err(|error| self.error(told(&error, self.plain)))
    }

    /// Whether this address may know who we are.
    fn is_ours(&self, url: &str) -> bool {
        let scheme = if self.plain { "http" } else { "https" };
        url.parse::<Uri>().is_ok_and(|uri| {
            uri.scheme_str() == Some(scheme)
                && uri.authority().is_some_and(|authority| authority.as_str() == self.host)
        })
    }

    /// An address relative to another; never from https to http.
    pub(super) fn join(&self, from: &str, to: &str) -> Result<String, Error> {
        let from: Uri = from.parse().map_err(|_| self.error("sends us to no address"))?;
        let (scheme, authority) = match (from.scheme_str(), from.authority()) {
            (Some(scheme), Some(authority)) => (scheme, authority),
            _ => return Err(self.error("sends us to no address")),
        };
        let joined =
            if to.starts_with('/') { format!("{scheme}://{authority}{to}") } else { to.to_owned() };
        let uri: Uri = joined.parse().map_err(|_| self.error("sends us to no address"))?;
        match uri.scheme_str() {
            Some("https") => Ok(joined),
            Some("http") if scheme == "http" => Ok(joined),
            Some("http") => Err(self.error("sends us from https to http; that is not followed")),
            _ => Err(self.error("sends us to no address of http or https")),
        }
    }

    /// Does what a 401 asks for.
    fn meet(&mut self, response: &Response<Body>) -> Result<(), Error> {
        let asked = response.headers().get_all("www-authenticate");
        let challenge =
            asked.iter().filter_map(|value| auth::challenge(value.to_str().ok()?)).next();
        let login = || match &self.basic {
            Some(_) => "refuses the login that is kept for it".to_owned(),
            None => "wants a login: `podman login`, or --creds-file with a line user:password"
                .to_owned(),
        };
        match challenge {
            Some(Challenge::Basic) => {
                let Some(basic) = self.basic.as_ref().filter(|_| self.authorization.is_none())
                else {
                    return Err(self.error(login()));
                };
                self.authorization = Some(basic.header());
                Ok(())
            }
            Some(Challenge::Bearer { realm, service, scope }) => {
                let token = self.token(&realm, service, scope)?;
                self.authorization = Some(format!("Bearer {token}"));
                Ok(())
            }
            None => Err(self.error("asks for a kind of login that is not known (Basic, Bearer)")),
        }
    }

    /// Fetches a token (distribution, "Token Authentication Specification").
    fn token(
        &self,
        realm: &str,
        service: Option<String>,
        scope: Option<String>,
    ) -> Result<String, Error> {
        #[derive(serde::Deserialize)]
        struct Token {
            token: Option<String>,
            access_token: Option<String>,
        }
        let realm = self.join(&self.url(""), realm)?;
        let uri: Uri = realm.parse().map_err(|_| self.error("names no address for tokens"))?;
        let host = uri.authority().map(|authority| authority.as_str()).unwrap_or_default();
        let scope =
            scope.unwrap_or_else(|| format!("repository:{}:{}", self.repository, self.actions));
        let mut url = realm;
        let query =
            service.map(|service| ("service", service)).into_iter().chain([("scope", scope)]);
        for (name, value) in query {
            let mark = if url.contains('?') { '&' } else { '?' };
            url.push_str(&format!("{mark}{name}={}", encoded(&value)));
        }
        let mut request = Request::builder().method("GET").uri(&url);
        let ours = same_house(&self.host, host);
        if let Some(basic) = self.basic.as_ref().filter(|_| ours) {
            request = request.header("authorization", basic.header());
        }
        let request = request.body(()).map_err(|error| self.error(error.to_string()))?;
        let mut response =
            self.agent.run(request).map_err(|error| self.error(told(&error, self.plain)))?;
        let status = response.status();
        if !status.is_success() {
            let why = match (&self.basic, ours) {
                (None, _) => ": `podman login`, or --creds-file with a line user:password",
                (Some(_), true) => ": the login that is kept for the registry is refused",
                (Some(_), false) => ", and is of another house: our login was not sent there",
            };
            return Err(self.error(format!("{host} gives no token ({status}){why}")));
        }
        let bytes = read(&mut response, WORDS_MAX).map_err(|what| self.error(what))?;
        let token: Token = serde_json::from_slice(&bytes)
            .map_err(|_| self.error(format!("{host} gives what is no token")))?;
        let token = token.token.or(token.access_token).unwrap_or_default();
        let fits = |c: char| c.is_ascii_graphic();
        if token.is_empty() || !token.chars().all(fits) {
            return Err(self.error(format!("{host} gives what is no token")));
        }
        Ok(token)
    }

    /// A document of at most 4 MiB; `wanted` are its media types.
    pub(super) fn document(
        &mut self,
        rest: &str,
        wanted: &str,
    ) -> Result<(Response<Body>, Vec<u8>), Error> {
        let url = self.url(rest);
        let mut response = self.send("GET", &url, &[("accept", wanted)], None)?;
        self.check(&mut response, rest)?;
        let bytes = read(&mut response, oci::DOCUMENT_MAX)
            .map_err(|what| self.error(format!("{rest}: {what}")))?;
        Ok((response, bytes))
    }

    /// An error for what is no success, with what the registry says about it.
    pub(super) fn check(&self, response: &mut Response<Body>, what: &str) -> Result<(), Error> {
        let status = response.status();
        if status.is_success() {
            return Ok(());
        }
        let said = read(response, WORDS_MAX).ok().and_then(|bytes| said(&bytes));
        let said = said.map(|said| format!(": {said}")).unwrap_or_default();
        let repository = &self.repository;
        Err(self.error(match status {
            StatusCode::NOT_FOUND => format!("has no {repository} {what}{said}"),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                format!("does not let us at {repository} {what} ({status}){said}")
            }
            _ => format!("{repository} {what}: {status}{said}"),
        }))
    }
}

/// A header as text.
pub(super) fn header(response: &Response<Body>, name: &str) -> Option<String> {
    Some(response.headers().get(name)?.to_str().ok()?.to_owned())
}

/// The whole body, if it is no larger.
pub(super) fn read(response: &mut Response<Body>, most: u64) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let reader = response.body_mut().with_config().limit(u64::MAX).reader();
    reader.take(most + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() as u64 > most {
        return Err(format!("is larger than {most} bytes"));
    }
    Ok(bytes)
}

/// The first message of an error (OCI distribution spec, "Error Codes"); HTML is nobody's message.
fn said(bytes: &[u8]) -> Option<String> {
    let errors: serde_json::Value = serde_json::from_slice(bytes).ok()?;
    let first = errors.get("errors")?.get(0)?;
    let text = first.get("message").or_else(|| first.get("code"))?.as_str()?;
    Some(crate::error::shown(text.as_bytes()))
}

/// What went wrong, and what to try.
fn told(error: &ureq::Error, plain: bool) -> String {
    let hint = match error {
        ureq::Error::Io(io) if io.kind() == std::io::ErrorKind::ConnectionRefused => {
            ": does the registry run, and is the port right?"
        }
        ureq::Error::HostNotFound => ": is the name right?",
        ureq::Error::Rustls(_) | ureq::Error::Tls(_) => {
            ": a CA of your own is named with --ca, a registry without TLS with --plain-http"
        }
        ureq::Error::Io(io) if !plain && io.to_string().contains("certificate") => {
            ": a CA of your own is named with --ca"
        }
        ureq::Error::Io(io)
            if !plain
                && (io.kind() == std::io::ErrorKind::InvalidData
                    || io.to_string().contains("InvalidContentType")) =>
        {
            ": if it has no TLS, say --plain-http"
        }
        _ => "",
    };
    format!("{error}{hint}")
}
