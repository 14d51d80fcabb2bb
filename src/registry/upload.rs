//! Getting a blob's bytes to a registry, whatever happens on the way (OCI distribution-spec 1.1,
//! "Pushing blobs").
//!
//! One loop: open a session, send, and where that fails find out where the registry stands and go
//! on from there. How the bytes are sent is told by the host's ladder.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use reqwest::header::{CONTENT_RANGE, CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION, RANGE};
use reqwest::{Method, StatusCode};
use tokio::time::Instant;
use url::Url;

use super::body::Cargo;
use super::display::SafeUrl;
use super::ladder::{Manner, Rung};
use super::retry::Patience;
use super::send::{Answer, AnswerTime, Call, Failure, Payload, Persistence, Target, location};
pub use super::sessions::Session;
use super::{Error, Registry, Repository};
use crate::image::Digest;

/// Less than this is sent again rather than asked after.
const WORTH_RESUMING: u64 = 1 << 20;
/// How often an upload is begun anew without getting further than before.
const RESTARTS: u32 = 5;

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

/// What a failure means for the upload.
enum Setback {
    /// The connection or the registry failed: ask where the session stands.
    Passing,
    /// The registry does not know the session any more.
    SessionGone,
    /// It has another idea of where the session stands.
    RangeRefused,
    /// It does not take the rest of a body that broke off.
    ResumeRefused,
    /// What it has got is not what was sent.
    DigestRefused,
    /// It does not take bytes in this manner.
    Climb(Manner),
    /// It will not take them at all.
    Final,
}

struct Upload<'a> {
    repository: &'a Repository,
    cargo: Cargo,
    doing: String,
    manner: Manner,
    patience: Patience,
    /// Bytes that the registry has, as far as we know.
    offset: u64,
    /// Where the session stood by the registry's own word, on which we rely.
    resumed: Option<u64>,
    /// The farthest that any session got.
    furthest: u64,
    /// Sessions that were opened since without getting further.
    restarts: u32,
    /// Answers of 500 since the last change of manner.
    crashes: u32,
    /// The length of the body sent last.
    length: u64,
    /// The least size of a chunk, as `OCI-Chunk-Min-Length` tells.
    least_chunk: u64,
    /// The last bytes are under way or have arrived.
    complete: bool,
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
        let registry = self.registry().clone();
        let upload = Upload {
            repository: self,
            doing,
            manner: registry.ladder.manner(),
            patience: self.patience(),
            offset: 0,
            resumed: None,
            furthest: 0,
            restarts: 0,
            crashes: 0,
            length: 0,
            least_chunk: 0,
            complete: false,
            cargo: Cargo {
                registry,
                sent: self.sent.clone(),
                content,
                progress,
                taken: Arc::default(),
                broken: Arc::default(),
            },
        };
        upload.run(session).await
    }
}

impl<'a> Upload<'a> {
    async fn run(mut self, mut session: Option<Session>) -> Result<(Digest, u64), Error> {
        let mut digest_refused = false;
        loop {
            let mut current = match session.take() {
                Some(session) => session,
                None => self.open().await?,
            };
            let (began, from) = (Instant::now(), self.taken());
            let failure = match self.carry(&mut current).await {
                Ok(done) => {
                    current.closed();
                    self.registry().ladder.learn(self.manner);
                    return Ok(done);
                }
                Err(failure) => failure,
            };
            if let Some(reason) = self.cargo.broken() {
                current.cancel().await;
                return Err(Error::Content { doing: self.doing, reason });
            }
            if self.taken().saturating_sub(from) >= WORTH_RESUMING {
                self.patience.excuse(began.elapsed());
            }
            self.note_progress();
            if failure.error.status() == Some(StatusCode::INTERNAL_SERVER_ERROR) {
                self.crashes += 1;
            }
            let setback = match self.setback(&failure) {
                Setback::DigestRefused if digest_refused => Setback::Final,
                Setback::Passing | Setback::SessionGone if self.restarts > RESTARTS => {
                    Setback::Final
                }
                setback => setback,
            };
            match setback {
                Setback::Final => {
                    current.cancel().await;
                    return Err(failure.error);
                }
                Setback::Climb(manner) => {
                    self.manner = manner;
                    self.restarts = 0;
                    self.begin_again(current, &failure).await;
                }
                Setback::ResumeRefused => {
                    self.distrust();
                    self.begin_again(current, &failure).await;
                }
                Setback::DigestRefused => {
                    // Bytes changed on the way, or a session that lied about where it stood. Once
                    // more from the start; a second time it is the registry's last word.
                    digest_refused = true;
                    if self.resumed.is_some() {
                        self.distrust();
                    }
                    self.begin_again(current, &failure).await;
                }
                Setback::SessionGone => {
                    current.closed();
                    self.wait(failure).await?;
                    if let Some(done) = self.arrived_after_all().await? {
                        return Ok(done);
                    }
                }
                Setback::RangeRefused | Setback::Passing => {
                    // Asked where it stands, it must not say again what it has just refused.
                    let refused = matches!(setback, Setback::RangeRefused);
                    let lie = self.resumed.filter(|_| refused);
                    if let Err(error) = self.wait(failure).await {
                        current.cancel().await;
                        return Err(error);
                    }
                    if let Some(done) = self.arrived_after_all().await? {
                        current.closed();
                        return Ok(done);
                    }
                    if let Some(manner) = self.other_manner() {
                        self.manner = manner;
                        current.cancel().await;
                        continue;
                    }
                    session = self.resume(current, lie).await;
                    self.note_progress();
                }
            }
        }
    }

    fn registry(&self) -> &Registry {
        &self.cargo.registry
    }

    /// How far the network took bytes in this session.
    fn taken(&self) -> u64 {
        self.cargo.taken.load(Ordering::Relaxed)
    }

    /// Whoever got further than ever may fail as often as at the beginning.
    fn note_progress(&mut self) {
        if self.offset > self.furthest {
            self.furthest = self.offset;
            self.restarts = 0;
            self.patience.renew();
        }
    }

    /// The registry's answers about where a session stands are of no use.
    fn distrust(&mut self) {
        self.manner.resumes = false;
        self.registry().ladder.distrust();
    }

    /// Another way to send, for a registry that answers 500 again and again to what it was not
    /// made for: there are some that take bytes by PATCH only, and say so like this.
    fn other_manner(&mut self) -> Option<Manner> {
        if self.crashes < 2 {
            return None;
        }
        self.crashes = 0;
        self.manner.next()
    }

    /// Waits before the next try, if there is to be one.
    async fn wait(&mut self, failure: Failure) -> Result<(), Error> {
        let failure = Failure { transient: true, ..failure };
        self.cargo.registry.wait_before_retry(failure, &mut self.patience).await
    }

    /// Gives a session up for a new one at once.
    async fn begin_again(&self, session: Session, failure: &Failure) {
        self.registry().tell_retry(&failure.error, Duration::ZERO);
        session.cancel().await;
    }

    /// Opens a new session; everything begins at zero.
    async fn open(&mut self) -> Result<Session, Error> {
        self.offset = 0;
        self.resumed = None;
        // Others may have learnt something since.
        self.manner = self.manner.and(self.registry().ladder.manner());
        self.restarts += 1;
        self.cargo.taken.store(0, Ordering::Relaxed);
        let opened = self.repository.open_session(&self.doing, &mut self.patience).await;
        let (session, headers) = opened?;
        self.least_chunk = number(&headers, "oci-chunk-min-length").unwrap_or(0);
        Ok(session)
    }

    /// Sends what is missing and closes the session under the blob's digest.
    async fn carry(&mut self, session: &mut Session) -> Result<(Digest, u64), Failure> {
        self.complete = false;
        let Manner { rung, most, .. } = self.manner;
        if rung == Rung::Whole
            && self.offset == 0
            && let Some((digest, size)) = self.cargo.content.whole()
            && size <= most
        {
            self.complete = true;
            self.length = size;
            let payload = self.cargo.part(0, Some(size));
            return self.put(session, digest, size, payload).await;
        }
        loop {
            let known = self.cargo.content.whole().map(|(_, size)| size);
            if known.is_some_and(|size| self.offset >= size) {
                break;
            }
            let fits = most == u64::MAX || known.is_some_and(|size| size <= most);
            if rung != Rung::Chunks && self.offset == 0 && fits {
                // Without a length known it is a chunked transfer.
                self.length = known.unwrap_or(u64::MAX);
                self.patch(session, known, None).await?;
                let (_, size) = self.finished().await?;
                self.offset = size;
            } else if rung != Rung::Chunks && self.least_chunk == 0 {
                self.patch_part(session, most).await?;
            } else {
                self.patch_part(session, self.manner.chunk(self.least_chunk)).await?;
            }
        }
        let (digest, size) = self.finished().await?;
        self.complete = true;
        self.length = 0;
        self.put(session, digest, size, Payload::Empty).await
    }

    /// One PATCH of a part whose length is known: at most `most` bytes of what there is.
    async fn patch_part(&mut self, session: &mut Session, most: u64) -> Result<(), Failure> {
        // Content-Range names the last byte, so the blob has to be whole; it soon will be.
        let (_, size) = self.finished().await?;
        let end = size.min(self.offset.saturating_add(most));
        if end <= self.offset {
            return Ok(());
        }
        self.length = end - self.offset;
        let range = format!("{}-{}", self.offset, end - 1);
        // Digits and a dash are a valid header value.
        let range = HeaderValue::from_str(&range).ok();
        self.patch(session, Some(end), range).await?;
        self.offset = end;
        self.note_progress();
        Ok(())
    }

    async fn patch(
        &self,
        session: &mut Session,
        end: Option<u64>,
        range: Option<HeaderValue>,
    ) -> Result<(), Failure> {
        let payload = self.cargo.part(self.offset, end);
        let mut call = self.call(Method::PATCH, session.url().clone(), payload);
        call.headers.insert(CONTENT_TYPE, octets());
        if let Some(range) = range {
            call.headers.insert(CONTENT_RANGE, range);
        }
        let answer = self.registry().attempt(&call).await?;
        // Any 2xx with a Location is an answer: Pulp sends 204 or 201 in place of 202. Without one
        // the session stays where it is.
        if answer.headers.contains_key(LOCATION) {
            session.moved(self.location(&answer)?);
        }
        Ok(())
    }

    async fn put(
        &self,
        session: &Session,
        digest: Digest,
        size: u64,
        payload: Payload,
    ) -> Result<(Digest, u64), Failure> {
        let mut url = session.url().clone();
        url.query_pairs_mut().append_pair("digest", digest.as_str());
        let mut call = self.call(Method::PUT, url, payload);
        call.headers.insert(CONTENT_TYPE, octets());
        let answer = self.registry().attempt(&call).await?;
        // Another success may come from something in between that is no registry at all.
        if answer.status != StatusCode::CREATED && !self.is_there(&digest, size).await? {
            let (url, status) = (SafeUrl::from(answer.url), answer.status);
            let problem = format!("{url} answered {status}, but does not have the blob");
            let error = Error::Protocol { doing: self.doing.clone(), problem };
            return Err(Failure { transient: true, ..error.into() });
        }
        (self.cargo.progress)(size);
        Ok((digest, size))
    }

    async fn is_there(&self, digest: &Digest, size: u64) -> Result<bool, Error> {
        let present = self.repository.head_blob(digest).await?;
        Ok(present.is_some_and(|there| there.size.is_none_or(|s| s == size)))
    }

    /// Finds out where the session stands, to go on from there; `None`: a new one is needed.
    /// `lie` is an offset that the registry named and then refused.
    async fn resume(&mut self, mut session: Session, lie: Option<u64>) -> Option<Session> {
        let size = self.cargo.content.whole().map(|(_, size)| size);
        if size.is_some_and(|size| size < WORTH_RESUMING)
            || !self.manner.resumes
            || !self.registry().ladder.manner().resumes
        {
            session.cancel().await;
            return None;
        }
        let call = Call {
            also: &[StatusCode::NOT_FOUND],
            persistence: Persistence::UntilLimit,
            ..self.call(Method::GET, session.url().clone(), Payload::Empty)
        };
        let asked = self.cargo.registry.send_within(&call, &mut self.patience).await;
        let Ok(answer) = asked else {
            session.cancel().await;
            return None;
        };
        if answer.status == StatusCode::NOT_FOUND {
            session.closed();
            return None;
        }
        if answer.headers.contains_key(LOCATION)
            && let Ok(url) = self.location(&answer)
        {
            session.moved(url);
        }
        match arrived(&answer.headers) {
            Some(offset) if offset > self.taken() || lie == Some(offset) => {
                self.distrust();
                session.cancel().await;
                None
            }
            Some(offset) => {
                self.offset = offset;
                self.resumed = Some(offset);
                Some(session)
            }
            None => {
                session.cancel().await;
                None
            }
        }
    }

    /// Whether the blob is there although the answer that said so was lost.
    async fn arrived_after_all(&self) -> Result<Option<(Digest, u64)>, Error> {
        let Some((digest, size)) = self.cargo.content.whole().filter(|_| self.complete) else {
            return Ok(None);
        };
        if !self.is_there(&digest, size).await? {
            return Ok(None);
        }
        (self.cargo.progress)(size);
        Ok(Some((digest, size)))
    }

    fn setback(&self, failure: &Failure) -> Setback {
        if failure.transient {
            return Setback::Passing;
        }
        let error = &failure.error;
        let Some(status) = error.status() else {
            return Setback::Final;
        };
        let resumed = self.resumed.is_some();
        let climb = || self.manner.next().map_or(Setback::Final, Setback::Climb);
        match status.as_u16() {
            _ if error.has_code("DIGEST_INVALID") => Setback::DigestRefused,
            400 if error.has_code("SIZE_INVALID") => Setback::DigestRefused,
            // docker-registry 2.8 says so of any session whose PATCH broke off.
            400 | 404 if error.has_code("BLOB_UPLOAD_INVALID") && resumed => Setback::ResumeRefused,
            404 if error.has_code("NAME_UNKNOWN") => Setback::Final,
            404 => Setback::SessionGone,
            _ if error.has_code("BLOB_UPLOAD_UNKNOWN") => Setback::SessionGone,
            416 => Setback::RangeRefused,
            413 => {
                let shorter = self.manner.shorter(self.length, self.least_chunk);
                shorter.map_or(Setback::Final, Setback::Climb)
            }
            // Taken without a Content-Range it may be, and with one it is not.
            400 | 405 | 411 | 415 | 501 if resumed => Setback::ResumeRefused,
            400 | 405 | 411 | 415 | 501 => climb(),
            _ => Setback::Final,
        }
    }

    fn call(&self, method: Method, to: Url, payload: Payload) -> Call<'a> {
        Call {
            doing: self.doing.clone(),
            to: Target::Url(to),
            payload,
            persistence: Persistence::Once,
            answer: AnswerTime::Commit,
            ..self.repository.call(method, String::new())
        }
    }

    async fn finished(&self) -> Result<(Digest, u64), Failure> {
        self.cargo.content.finished().await.map_err(|error| {
            let reason = error.to_string();
            self.cargo.remember(reason.clone());
            Error::Content { doing: self.doing.clone(), reason }.into()
        })
    }

    fn location(&self, answer: &Answer) -> Result<Url, Failure> {
        location(&answer.url, &answer.headers)
            .map_err(|problem| Error::Protocol { doing: self.doing.clone(), problem }.into())
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
