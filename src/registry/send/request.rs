//! A request and an answer as values.

use std::borrow::Cow;
use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use bytes::Bytes;
use flate2::read::GzDecoder;
use reqwest::header::HeaderMap;
use reqwest::{Method, StatusCode};
use url::Url;

use super::idle::IdleTimer;
use super::mask::SafeUrl;

/// How much of a compressed error is decompressed.
const MAX_TEXT: u64 = 64 << 10;

/// A request to be sent.
pub struct Request {
    /// What the request is for, in words that follow "cannot": `upload blob sha256:… to
    /// HOST/REPOSITORY`.
    pub doing: String,
    pub method: Method,
    pub to: RequestTarget,
    pub headers: HeaderMap,
    pub payload: Payload,
    /// Counts the bytes of bodies.
    pub sent: Arc<AtomicU64>,
    /// Statuses besides 2xx that are not an error for this request.
    pub also: &'static [StatusCode],
    pub read: ReadBody,
    pub answer_time: AnswerTime,
    pub redirects: Redirects,
}

/// Where a request goes.
#[derive(Clone)]
pub enum RequestTarget {
    /// A path of the registry's API, with its query: `/v2/…`.
    Path(String),
    /// A location that the registry gave, or the URL of its token server.
    Url(Url),
}

/// The body of a request.
pub enum Payload {
    Empty,
    Bytes(Bytes),
    Stream(StreamPayload),
    /// No body. The request only opens a connection for a later body.
    OpenConnection,
}

/// A body that is created each time the request is sent, with the number that the timer gives to
/// this attempt.
pub struct StreamPayload {
    pub open: Box<dyn Fn(u64) -> reqwest::Body + Send + Sync>,
    /// Sent as `Content-Length`; without it the transfer is chunked.
    pub length: Option<u64>,
    /// Checks whether bytes move, and tells the body when it is no longer needed.
    pub timer: Arc<IdleTimer>,
}

/// How much of an answer's body is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadBody {
    /// Only the beginning, for the text of an error.
    Nothing,
    /// The body of a successful answer, up to this many bytes. A longer one is an error.
    Success(u64),
    /// The body of any answer, up to this many bytes.
    Always(u64),
}

/// How long to wait for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnswerTime {
    /// As long as a connection may be idle.
    Idle,
    /// Longer, because the registry has to store a blob.
    Commit,
}

/// What to do with a redirect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Redirects {
    /// Follow it. The authorization is not sent to another server.
    Follow,
    /// Return it as the answer.
    Return,
}

/// An answer with its body.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    /// The URL that answered, after redirects.
    pub url: Url,
    pub body: Bytes,
}

impl Request {
    /// A request without a body, which needs only the status and the headers of the answer.
    pub fn new(doing: String, method: Method, to: RequestTarget) -> Self {
        Self {
            doing,
            method,
            to,
            headers: HeaderMap::new(),
            payload: Payload::Empty,
            sent: Arc::default(),
            also: &[],
            read: ReadBody::Nothing,
            answer_time: AnswerTime::Idle,
            redirects: Redirects::Follow,
        }
    }
}

impl Answer {
    /// A header's text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// A header's number.
    pub fn number(&self, name: &str) -> Option<u64> {
        self.header(name)?.trim().parse().ok()
    }

    /// The target of a redirect; `None` if the answer is not one.
    pub fn redirect(&self) -> Option<SafeUrl> {
        let to = self.header("location").filter(|_| self.status.is_redirection())?;
        self.url.join(to).ok().map(SafeUrl::from)
    }

    /// The body of an error, for its text. It is decompressed if it is in gzip, because some
    /// gateways compress without being asked.
    pub fn text(&self) -> Cow<'_, [u8]> {
        if self.header("content-encoding").is_none_or(|it| !it.to_lowercase().contains("gzip")) {
            return Cow::Borrowed(&self.body);
        }
        let mut text = Vec::new();
        // If the rest is damaged or missing, the beginning may still be useful.
        let _ = GzDecoder::new(&self.body[..]).take(MAX_TEXT).read_to_end(&mut text);
        Cow::Owned(text)
    }

    /// Whether it is an HTML page.
    pub fn is_web_page(&self) -> bool {
        let is_html = self.header("content-type").is_some_and(|kind| kind.contains("text/html"));
        let start = self.body.trim_ascii_start();
        let starts_with = |tag: &[u8]| {
            start.get(..tag.len()).is_some_and(|start| start.eq_ignore_ascii_case(tag))
        };
        is_html || starts_with(b"<!doctype html") || starts_with(b"<html")
    }
}
