//! Getting a blob's bytes to a registry, whatever happens on the way (OCI distribution-spec 1.1,
//! "Pushing blobs").
//!
//! One loop: open a session, send, and where that fails find out where the registry stands and go
//! on from there. How the bytes are sent is a rung of a ladder, climbed down when a registry
//! refuses one and remembered for the host: a single PUT, one streamed PATCH, PATCHes of a size.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream;
use reqwest::header::{CONTENT_RANGE, CONTENT_TYPE, HeaderMap, HeaderValue, RANGE};
use reqwest::{Method, StatusCode};
use url::Url;

use super::pulse::Pulse;
use super::retry::Patience;
use super::send::{Answer, Call, Failure, Payload, Persistence, StreamPayload, Target, location};
pub use super::sessions::Session;
use super::{Error, Repository};
use crate::image::Digest;

/// Bytes handed to the network at a time.
const PIECE: usize = 256 << 10;
/// The first size of chunks where a registry takes neither a whole blob nor a stream.
const FIRST_CHUNK: u64 = 64 << 20;
/// The least size that chunks are halved to.
const LEAST_CHUNK: u64 = 512 << 10;
/// Less than this is sent again rather than asked after.
const WORTH_RESUMING: u64 = 1 << 20;

/// The bytes of a blob, some of which may still be in the making. Any part that exists can be had
/// again.
pub trait Content: Send + Sync + 'static {
    /// Digest and length, once they are known.
    fn whole(&self) -> Option<(Digest, u64)>;

    /// Waits until digest and length are known.
    fn finished(&self) -> BoxFuture<'_, Result<(Digest, u64), ContentError>>;

    /// At most `max` bytes from `offset` on, as soon as there are any; `None` at the end.
    fn chunk(&self, offset: u64, max: usize) -> BoxFuture<'_, Result<Option<Bytes>, ContentError>>;
}

/// Why there are no bytes.
pub type ContentError = Box<dyn std::error::Error + Send + Sync>;

/// Hears how many bytes of the blob the network has taken.
pub type Progress = Arc<dyn Fn(u64) + Send + Sync>;

/// How a blob's bytes are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rung {
    /// One PUT with all of it; a streamed PATCH where the length is not known yet.
    Whole,
    /// One PATCH without Content-Range, as docker does it.
    Stream,
    /// PATCHes of at most so many bytes each.
    Chunks(u64),
}

/// What was learnt about how a host takes uploads.
#[derive(Debug)]
pub struct Ladder(Mutex<Learnt>);

#[derive(Clone, Copy, Debug)]
struct Learnt {
    rung: Rung,
    /// Its ranges have been right so far.
    resumes: bool,
}

/// What a failure means for the upload.
enum Setback {
    /// The connection or the registry failed: ask where the session stands.
    Passing,
    /// The registry does not know the session any more.
    SessionGone,
    /// It has another idea of where the session stands.
    RangeRefused,
    /// What it has got is not what was sent.
    DigestRefused,
    /// It does not take bytes in this way.
    Climb(Rung),
    /// It will not take them at all.
    Final,
}

struct Upload<'a> {
    repository: &'a Repository,
    content: Arc<dyn Content>,
    progress: Progress,
    doing: String,
    rung: Rung,
    /// Bytes that the registry has, as far as we know.
    offset: u64,
    /// The registry's answer to a status request was relied on.
    resumed: bool,
    /// The least size of a chunk, as `OCI-Chunk-Min-Length` tells.
    least_chunk: u64,
    /// The last bytes are under way or have arrived.
    complete: bool,
    broken_content: Arc<Mutex<Option<String>>>,
}

impl Repository {
    /// Uploads a blob, in `session` if one is open already, and returns its digest and length.
    pub async fn upload(
        &self,
        content: Arc<dyn Content>,
        session: Option<Session>,
        progress: Progress,
    ) -> Result<(Digest, u64), Error> {
        let doing = match content.whole() {
            Some((digest, _)) => format!("upload blob {digest} to {self}"),
            None => format!("upload a blob to {self}"),
        };
        let upload = Upload {
            rung: self.registry().ladder.learnt().rung,
            repository: self,
            content,
            progress,
            doing,
            offset: 0,
            resumed: false,
            least_chunk: 0,
            complete: false,
            broken_content: Arc::default(),
        };
        upload.run(session).await
    }
}

impl Upload<'_> {
    async fn run(mut self, mut session: Option<Session>) -> Result<(Digest, u64), Error> {
        let registry = self.repository.registry().clone();
        let mut patience = Patience::new(registry.settings.retry_for);
        let mut digest_refused = false;
        let mut furthest = 0;
        loop {
            let mut current = match session.take() {
                Some(session) => session,
                None => self.open().await?,
            };
            let failure = match self.carry(&mut current).await {
                Ok(done) => {
                    current.closed();
                    registry.ladder.learn(|learnt| learnt.rung = self.rung);
                    return Ok(done);
                }
                Err(failure) => failure,
            };
            if let Some(reason) = self.take_broken_content() {
                current.cancel().await;
                return Err(Error::Content { doing: self.doing, reason });
            }
            if self.offset > furthest {
                furthest = self.offset;
                patience.renew();
            }
            match self.setback(&failure) {
                Setback::Final => {
                    current.cancel().await;
                    return Err(failure.error);
                }
                Setback::Climb(rung) => {
                    self.rung = rung;
                    current.cancel().await;
                }
                Setback::DigestRefused => {
                    // Bytes changed on the way, or a session that lied about where it stood. Once
                    // more from the start; a second time it is the registry's last word.
                    if digest_refused {
                        current.cancel().await;
                        return Err(failure.error);
                    }
                    digest_refused = true;
                    if self.resumed {
                        registry.ladder.learn(|learnt| learnt.resumes = false);
                    }
                    current.cancel().await;
                }
                Setback::SessionGone => {
                    current.closed();
                    let passing = Failure { transient: true, ..failure };
                    registry.wait_before_retry(passing, &mut patience).await?;
                }
                Setback::RangeRefused | Setback::Passing => {
                    let passing = Failure { transient: true, ..failure };
                    if let Err(error) = registry.wait_before_retry(passing, &mut patience).await {
                        current.cancel().await;
                        return Err(error);
                    }
                    if let Some(done) = self.arrived_after_all().await? {
                        current.closed();
                        return Ok(done);
                    }
                    session = self.resume(current).await;
                    if self.offset > furthest {
                        furthest = self.offset;
                        patience.renew();
                    }
                }
            }
        }
    }

    /// Opens a new session; everything begins at zero.
    async fn open(&mut self) -> Result<Session, Error> {
        self.offset = 0;
        self.resumed = false;
        let (session, headers) = self.repository.open_session(&self.doing).await?;
        self.least_chunk = number(&headers, "oci-chunk-min-length").unwrap_or(0);
        Ok(session)
    }

    /// Sends what is missing and closes the session under the blob's digest.
    async fn carry(&mut self, session: &mut Session) -> Result<(Digest, u64), Failure> {
        self.complete = false;
        if self.rung == Rung::Whole
            && self.offset == 0
            && let Some((digest, size)) = self.content.whole()
        {
            self.complete = true;
            let payload = self.stream(0, Some(size));
            self.put(session, &digest, payload).await?;
            (self.progress)(size);
            return Ok((digest, size));
        }
        loop {
            let known = self.content.whole();
            if let Some((_, size)) = &known
                && self.offset >= *size
            {
                break;
            }
            match self.rung {
                Rung::Whole | Rung::Stream if self.offset == 0 => {
                    // Chunked transfer: the end is not known, or not needed.
                    let length = known.as_ref().map(|(_, size)| *size);
                    self.patch(session, length, None).await?;
                    let (_, size) = self.finished().await?;
                    self.offset = size;
                }
                Rung::Whole | Rung::Stream => self.patch_part(session, u64::MAX).await?,
                Rung::Chunks(size) => self.patch_part(session, size.max(self.least_chunk)).await?,
            }
        }
        let (digest, size) = self.finished().await?;
        self.complete = true;
        self.put(session, &digest, Payload::Empty).await?;
        (self.progress)(size);
        Ok((digest, size))
    }

    /// One PATCH of a part whose length is known: at most `most` bytes of what there is.
    async fn patch_part(&mut self, session: &mut Session, most: u64) -> Result<(), Failure> {
        // Content-Range names the last byte, so the blob has to be whole; it soon will be.
        let (_, size) = self.finished().await?;
        let end = size.min(self.offset.saturating_add(most));
        if end <= self.offset {
            return Ok(());
        }
        let range = format!("{}-{}", self.offset, end - 1);
        // Digits and a dash are a valid header value.
        let range = HeaderValue::from_str(&range).ok();
        self.patch(session, Some(end), range).await?;
        self.offset = end;
        Ok(())
    }

    async fn patch(
        &self,
        session: &mut Session,
        end: Option<u64>,
        range: Option<HeaderValue>,
    ) -> Result<(), Failure> {
        let payload = self.stream(self.offset, end);
        let mut call = self.call(Method::PATCH, session.url().clone(), payload);
        call.headers.insert(CONTENT_TYPE, octets());
        if let Some(range) = range {
            call.headers.insert(CONTENT_RANGE, range);
        }
        let answer = self.repository.registry().attempt(&call).await?;
        // Any 2xx with a Location is an answer: Pulp sends 204 or 201 in place of 202. Without one
        // the session stays where it is.
        if answer.headers.contains_key(reqwest::header::LOCATION) {
            session.moved(self.location(&answer)?);
        }
        Ok(())
    }

    async fn put(
        &self,
        session: &Session,
        digest: &Digest,
        payload: Payload,
    ) -> Result<(), Failure> {
        let mut url = session.url().clone();
        url.query_pairs_mut().append_pair("digest", digest.as_str());
        let mut call = self.call(Method::PUT, url, payload);
        call.headers.insert(CONTENT_TYPE, octets());
        self.repository.registry().attempt(&call).await?;
        Ok(())
    }

    /// Finds out where the session stands, to go on from there; `None`: a new one is needed.
    async fn resume(&mut self, mut session: Session) -> Option<Session> {
        let sent_little = self.content.whole().is_some_and(|(_, size)| size < WORTH_RESUMING);
        if sent_little || !self.repository.registry().ladder.learnt().resumes {
            session.cancel().await;
            return None;
        }
        let call = Call {
            also: &[StatusCode::NOT_FOUND],
            ..self.call(Method::GET, session.url().clone(), Payload::Empty)
        };
        let Ok(answer) = self.repository.registry().send(&call).await else {
            session.cancel().await;
            return None;
        };
        if answer.status == StatusCode::NOT_FOUND {
            session.closed();
            return None;
        }
        if answer.headers.contains_key(reqwest::header::LOCATION)
            && let Ok(url) = self.location(&answer)
        {
            session.moved(url);
        }
        match arrived(&answer.headers) {
            Some(offset) if self.content.whole().is_none_or(|(_, size)| offset <= size) => {
                self.offset = offset;
                self.resumed = true;
                Some(session)
            }
            _ => {
                session.cancel().await;
                None
            }
        }
    }

    /// Whether the blob is there although the answer that said so was lost.
    async fn arrived_after_all(&self) -> Result<Option<(Digest, u64)>, Error> {
        if !self.complete {
            return Ok(None);
        }
        let Some((digest, size)) = self.content.whole() else {
            return Ok(None);
        };
        let present = self.repository.head_blob(&digest).await?;
        Ok(present.filter(|there| there.size.is_none_or(|s| s == size)).map(|_| (digest, size)))
    }

    fn setback(&self, failure: &Failure) -> Setback {
        if failure.transient {
            return Setback::Passing;
        }
        let error = &failure.error;
        let Some(status) = error.status() else {
            return Setback::Final;
        };
        let next = match self.rung {
            Rung::Whole => Some(Rung::Stream),
            Rung::Stream => Some(Rung::Chunks(FIRST_CHUNK)),
            Rung::Chunks(_) => None,
        };
        match status.as_u16() {
            _ if error.has_code("DIGEST_INVALID") => Setback::DigestRefused,
            _ if error.has_code("BLOB_UPLOAD_UNKNOWN") => Setback::SessionGone,
            404 if !error.has_code("NAME_UNKNOWN") => Setback::SessionGone,
            416 => Setback::RangeRefused,
            413 => self.smaller().map_or(Setback::Final, Setback::Climb),
            400 | 405 | 411 | 415 | 501 => next.map_or(Setback::Final, Setback::Climb),
            _ => Setback::Final,
        }
    }

    /// Chunks half as long as what was too long.
    fn smaller(&self) -> Option<Rung> {
        let size = match (self.rung, self.content.whole()) {
            (Rung::Chunks(size), _) => size / 2,
            (_, Some((_, size))) => (size / 2).min(FIRST_CHUNK),
            (_, None) => FIRST_CHUNK,
        };
        (size >= LEAST_CHUNK.max(self.least_chunk)).then_some(Rung::Chunks(size))
    }

    fn stream(&self, from: u64, end: Option<u64>) -> Payload {
        let pulse = Arc::new(Pulse::new());
        let content = self.content.clone();
        let progress = self.progress.clone();
        let broken = self.broken_content.clone();
        let beating = pulse.clone();
        let registry = self.repository.registry().clone();
        let open = move || {
            let (content, progress) = (content.clone(), progress.clone());
            let (broken, pulse) = (broken.clone(), beating.clone());
            let registry = registry.clone();
            let pieces = stream::try_unfold(from, move |at| {
                let (content, progress) = (content.clone(), progress.clone());
                let (broken, pulse) = (broken.clone(), pulse.clone());
                let registry = registry.clone();
                async move {
                    // Asked for the next piece, the network has taken the one before.
                    progress(at);
                    let left = end.map_or(PIECE as u64, |end| end - at).min(PIECE as u64);
                    if left == 0 {
                        pulse.beat();
                        return Ok(None);
                    }
                    pulse.hold();
                    let piece = content.chunk(at, left as usize).await;
                    pulse.beat();
                    match piece {
                        Ok(piece) => Ok(piece.map(|bytes| {
                            registry.count_sent(bytes.len());
                            let next = at + bytes.len() as u64;
                            (bytes, next)
                        })),
                        Err(error) => {
                            remember(&broken, &*error);
                            Err(error)
                        }
                    }
                }
            });
            reqwest::Body::wrap_stream(pieces)
        };
        Payload::Stream(StreamPayload {
            open: Box::new(open),
            length: end.map(|end| end - from),
            pulse,
        })
    }

    fn call(&self, method: Method, to: Url, payload: Payload) -> Call<'_> {
        Call {
            doing: self.doing.clone(),
            to: Target::Url(to),
            payload,
            persistence: Persistence::Once,
            ..self.repository.call(method, String::new())
        }
    }

    async fn finished(&self) -> Result<(Digest, u64), Failure> {
        self.content.finished().await.map_err(|error| {
            remember(&self.broken_content, &*error);
            let reason = error.to_string();
            Error::Content { doing: self.doing.clone(), reason }.into()
        })
    }

    fn take_broken_content(&self) -> Option<String> {
        // An Option is whole at any time.
        self.broken_content.lock().unwrap_or_else(|e| e.into_inner()).take()
    }

    fn location(&self, answer: &Answer) -> Result<Url, Failure> {
        location(&answer.url, &answer.headers)
            .map_err(|problem| Error::Protocol { doing: self.doing.clone(), problem }.into())
    }
}

fn remember(slot: &Mutex<Option<String>>, error: &(dyn std::error::Error + Send + Sync)) {
    slot.lock().unwrap_or_else(|e| e.into_inner()).get_or_insert_with(|| error.to_string());
}

impl Ladder {
    fn learnt(&self) -> Learnt {
        *self.0.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn learn(&self, change: impl FnOnce(&mut Learnt)) {
        change(&mut self.0.lock().unwrap_or_else(|e| e.into_inner()));
    }
}

impl Default for Ladder {
    fn default() -> Self {
        Self(Mutex::new(Learnt { rung: Rung::Whole, resumes: true }))
    }
}

/// How many bytes a session has, by its `Range: 0-N`. `0-0` says zero bytes or one, depending on
/// the registry, and so says nothing.
pub(super) fn arrived(headers: &HeaderMap) -> Option<u64> {
    let text = headers.get(RANGE)?.to_str().ok()?;
    let text = text.strip_prefix("bytes=").unwrap_or(text);
    let (first, last) = text.split_once('-')?;
    let last: u64 = last.trim().parse().ok()?;
    (first.trim() == "0" && last > 0).then(|| last.checked_add(1)).flatten()
}

fn number(headers: &HeaderMap, name: &str) -> Option<u64> {
    headers.get(name)?.to_str().ok()?.trim().parse().ok()
}

fn octets() -> HeaderValue {
    HeaderValue::from_static("application/octet-stream")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_tells_how_much_arrived_unless_it_is_ambiguous() {
        let parse = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(RANGE, text.parse().unwrap());
            arrived(&headers)
        };
        assert_eq!(parse("0-1048575"), Some(1 << 20));
        assert_eq!(parse("bytes=0-9"), Some(10));
        for text in ["0-0", "5-9", "0", "-", "0--1", "0-18446744073709551615", "bytes 0-9/10"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
