//! The answer to a GET or HEAD of some content: its headers, and a body that goes from the file to the client
//! by the connection's [`Lane`], without memory of ours, however large the image.

use std::fs::File;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::task::JoinHandle;

use super::file::Source;
use super::lane::{Lane, PIECE};
use super::range::{Owed, owed};
use crate::content::Content;

/// Answers a GET or HEAD with `content`, named by a strong `etag` (with or without its quotes):
/// ranges, conditions, and a Content-Length always, which iPXE's progress and UEFI's buffer need.
/// Opens the file here and now, so that one that is missing is a 500 and no broken stream. `lane` is the
/// connection's, out of the request's extensions.
pub fn respond(
    lane: &Lane,
    content: &Content,
    etag: &str,
    content_type: &str,
    method: &Method,
    headers: &HeaderMap,
) -> Response<Body> {
    if !matches!(*method, Method::GET | Method::HEAD) {
        let mut response = empty(StatusCode::METHOD_NOT_ALLOWED);
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    let source = match Source::open(content) {
        Ok(source) => source,
        Err(error) => {
            tracing::error!(etag, %error, "cannot be served");
            return empty(StatusCode::INTERNAL_SERVER_ERROR);
        }
    };
    let etag = format!("\"{}\"", etag.trim_matches('"'));
    let size = source.size();
    let (status, first, length) = match owed(method, headers, &etag, size) {
        Owed::Whole => (StatusCode::OK, 0, size),
        Owed::Part { first, last } => (StatusCode::PARTIAL_CONTENT, first, last - first + 1),
        Owed::NotModified => (StatusCode::NOT_MODIFIED, 0, 0),
        Owed::PreconditionFailed => (StatusCode::PRECONDITION_FAILED, 0, 0),
        Owed::Unsatisfiable => (StatusCode::RANGE_NOT_SATISFIABLE, 0, 0),
    };
    let body = match source {
        _ if *method == Method::HEAD || length == 0 => Body::empty(),
        Source::Bytes(bytes) => Body::from(bytes.slice(first as usize..(first + length) as usize)),
        Source::File { ref file, .. } => {
            let (lane, file) = (lane.clone(), Arc::clone(file));
            let (offset, remaining) = (first, length);
            Body::new(FileBody { lane, file, source, offset, remaining, warming: None })
        }
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    if let Ok(etag) = HeaderValue::try_from(etag) {
        headers.insert(header::ETAG, etag);
    }
    match status {
        StatusCode::PARTIAL_CONTENT => {
            let last = first + length - 1;
            headers.insert(header::CONTENT_RANGE, text(format!("bytes {first}-{last}/{size}")));
        }
        StatusCode::RANGE_NOT_SATISFIABLE => {
            headers.insert(header::CONTENT_RANGE, text(format!("bytes */{size}")));
        }
        _ => {}
    }
    // RFC 9110 §8.6: a 304 carries the length of what it does not send, or none.
    if status != StatusCode::NOT_MODIFIED {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    if status.is_success()
        && let Ok(kind) = HeaderValue::try_from(content_type)
    {
        headers.insert(header::CONTENT_TYPE, kind);
    }
    response
}

fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(0));
    response
}

fn text(value: String) -> HeaderValue {
    HeaderValue::try_from(value).expect("digits and ASCII words are a header's value")
}

/// Part of a file on its way out. A read error, or a file that ends too early, ends the connection:
/// the client sees fewer bytes than Content-Length and asks again.
struct FileBody {
    lane: Lane,
    file: Arc<File>,
    source: Source,
    offset: u64,
    remaining: u64,
    /// A trip to the disk. Most are spared: the kernel reads ahead of us while we send.
    warming: Option<(u64, JoinHandle<io::Result<u64>>)>,
}

impl FileBody {
    /// What stands for the next bytes of the file; nothing where sending them would wait for the disk. Both ends of a
    /// piece are asked for: files are read from the front, and what is forgotten of them is forgotten from the front. A hole
    /// between the two costs the others the wait for a few reads; to ask in between too costs processor for every piece.
    fn piece(&self, length: usize) -> io::Result<Option<Bytes>> {
        let (first, last) = (self.offset, self.offset + length as u64 - 1);
        for at in [first, last] {
            if !self.source.fill(at, &mut [0])? {
                return Ok(None);
            }
        }
        Ok(Some(self.lane.send(&self.file, first, length)))
    }
}

impl HttpBody for FileBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = self.get_mut();
        if this.remaining == 0 {
            return Poll::Ready(None);
        }
        let length = this.remaining.min(PIECE as u64) as usize;
        loop {
            if let Some((offset, warming)) = &mut this.warming {
                let read = ready!(Pin::new(warming).poll(cx)).map_err(io::Error::other);
                let offset = *offset;
                this.warming = None;
                match read.flatten() {
                    Ok(end) => this.source.warmed(offset, end),
                    Err(error) => return Poll::Ready(Some(Err(error))),
                }
            }
            match this.piece(length) {
                Ok(Some(piece)) => {
                    this.offset += length as u64;
                    this.remaining -= length as u64;
                    return Poll::Ready(Some(Ok(Frame::data(piece))));
                }
                Ok(None) => this.warming = Some((this.offset, this.source.warm(this.offset))),
                Err(error) => {
                    tracing::error!(offset = this.offset, %error, "a file being served");
                    this.remaining = 0;
                    return Poll::Ready(Some(Err(error)));
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.remaining == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.remaining)
    }
}
