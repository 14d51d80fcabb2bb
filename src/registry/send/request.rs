//! A request as a value, and the answer to it.

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
    /// What it is for, to follow the word "cannot": `upload blob sha256:… to HOST/REPOSITORY`.
    pub doing: String,
    pub method: Method,
    pub to: RequestTarget,
    pub headers: HeaderMap,
    pub payload: Payload,
    /// Counts the bytes of bodies.
    pub sent: Arc<AtomicU64>,
    /// Statuses besides 2xx that are an answer and no error.
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
    /// A location that the registry gave, or its token server.
    Url(Url),
}

/// What a request carries.
pub enum Payload {
    Empty,
    Bytes(Bytes),
    Stream(StreamPayload),
    /// Nothing; the request only opens a connection, for the body of a later one.
    OpenConnection,
}

/// A body that is made anew each time the request is sent, with the number that the timer gives to
/// this sending.
pub struct StreamPayload {
    pub open: Box<dyn Fn(u64) -> reqwest::Body + Send + Sync>,
    /// Sent as `Content-Length`; without it the transfer is chunked.
    pub length: Option<u64>,
    /// Knows whether bytes move, and tells the body when it is not needed any more.
    pub timer: Arc<IdleTimer>,
}

/// How much of an answer's body is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadBody {
    /// Only the beginning, for an error's text.
    Nothing,
    /// A successful answer's body, of this many bytes at most; a longer one is an error.
    Success(u64),
    /// The same for the bodies of errors.
    Always(u64),
}

/// How long an answer may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnswerTime {
    /// As long as nothing may move on a connection.
    Idle,
    /// Longer: the registry completes a blob.
    Commit,
}

/// What becomes of a redirect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Redirects {
    /// It is followed; our authorization stays behind where it leaves the registry.
    Follow,
    /// It is the answer.
    Return,
}

/// An answer, its body read.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    /// The URL that gave it, after redirects.
    pub url: Url,
    pub body: Bytes,
}

impl Request {
    /// A request without a body, of whose answer only the status and the headers matter.
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

    /// Where it redirects to, if it is a redirect.
    pub fn redirect(&self) -> Option<SafeUrl> {
        let to = self.header("location").filter(|_| self.status.is_redirection())?;
        self.url.join(to).ok().map(SafeUrl::from)
    }

    /// The body of an error, for its text: decompressed if it is in gzip, as some gateways send it
    /// unasked.
    pub fn text(&self) -> Cow<'_, [u8]> {
        if self.header("content-encoding").is_none_or(|it| !it.to_lowercase().contains("gzip")) {
            return Cow::Borrowed(&self.body);
        }
        let mut text = Vec::new();
        // If the rest is damaged or missing, the beginning still tells something.
        let _ = GzDecoder::new(&self.body[..]).take(MAX_TEXT).read_to_end(&mut text);
        Cow::Owned(text)
    }

    /// Whether it is a page for a browser.
    pub fn is_web_page(&self) -> bool {
        let is_html = self.header("content-type").is_some_and(|kind| kind.contains("text/html"));
        let start = self.body.trim_ascii_start();
        let starts_with = |tag: &[u8]| {
            start.get(..tag.len()).is_some_and(|start| start.eq_ignore_ascii_case(tag))
        };
        is_html || starts_with(b"<!doctype html") || starts_with(b"<html")
    }
}
