//! Uploads one blob: opens a session, sends, and where that fails finds out where the registry stands
//! and goes on from there.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use reqwest::StatusCode;
use tokio::time::Instant;

use super::super::error::Error;
use super::super::repository::{Registry, Repository};
use super::super::send::failure::FailedRequest;
use super::super::send::mask::SafeUrl;
use super::super::send::request::Payload;
use super::super::send::retry::RetryBudget;
use super::body::UploadBody;
use super::method::{Accepted, UploadMethod};
use super::session::{ChunkLimits, Session, SessionPosition};
use super::{UploadProgress, UploadSource};
use crate::image::Digest;

/// Less than this is sent again without asking how much arrived.
const WORTH_RESUMING: u64 = 1 << 20;
/// A blob is not sent in more requests than this.
const MAX_CHUNKS: u64 = 100_000;
/// How many new sessions an upload may need in a row without getting further than before.
const MAX_RESTARTS: u32 = 5;

/// What to do after a failure.
enum Remedy {
    /// The connection or the registry failed: ask where the session stands, and go on from there.
    Resume,
    /// The same, but do not accept the offset that the registry has just rejected.
    ResumeElsewhere,
    /// The registry does not know the session any more: open a new one.
    NewSession,
    /// It does not take the rest of a body that broke off: send all again, and do not resume here
    /// any more.
    StopResuming,
    /// It received other bytes than were sent: send all again, once.
    SendAgain,
    /// It does not take bytes in this way: send them in one that is left.
    Change(Accepted),
    /// It will not take them at all.
    GiveUp,
}

/// One upload.
struct Uploader<'a> {
    repository: &'a Repository,
    body: UploadBody,
    doing: String,
    accepted: Accepted,
    budget: RetryBudget,
    /// Bytes that the registry has, as far as we know.
    offset: u64,
    /// Where the session stood by the registry's own word, on which we rely.
    resumed: Option<u64>,
    /// The farthest that any session got.
    furthest: u64,
    /// Sessions that were opened since without getting further.
    restarts: u32,
    /// Answers of 500 since the last change of method.
    crashes: u32,
    /// The method used last.
    method: UploadMethod,
    /// The length of the body sent last.
    length: u64,
    limits: ChunkLimits,
    /// The last bytes are under way or have arrived.
    complete: bool,
}

impl Repository {
    /// Uploads a blob, in `session` if one is open already, and returns its digest and length.
    pub async fn upload(
        &self,
        source: Arc<dyn UploadSource>,
        session: Option<Session>,
        progress: UploadProgress,
    ) -> Result<(Digest, u64), Error> {
        let doing = match source.whole() {
            Some((digest, _)) => format!("upload blob {digest} to {self}"),
            None => format!("upload a blob to {self}"),
        };
        let body = UploadBody {
            source,
            progress,
            sent: self.sent.clone(),
            taken: Arc::default(),
            broken: Arc::default(),
        };
        let uploader = Uploader {
            repository: self,
            body,
            doing,
            accepted: self.registry().upload_methods.accepted(),
            budget: self.budget(),
            offset: 0,
            resumed: None,
            furthest: 0,
            restarts: 0,
            crashes: 0,
            method: UploadMethod::Put,
            length: 0,
            limits: ChunkLimits { least: 0, most: u64::MAX },
            complete: false,
        };
        // On the heap, so that the many blobs that wait for their upload take little memory.
        Box::pin(uploader.run(session)).await
    }
}

impl Uploader<'_> {
    async fn run(mut self, mut session: Option<Session>) -> Result<(Digest, u64), Error> {
        let mut was_sent_again = false;
        loop {
            let mut current = match session.take() {
                Some(session) => session,
                None => self.open().await?,
            };
            self.limits = current.limits();
            // Other uploads may have learnt something since.
            let known = self.registry().upload_methods.accepted();
            self.accepted = self.accepted.and(known).limited_to(self.limits.most);
            let (began, from) = (Instant::now(), self.taken());
            let failure = match self.send_rest(&mut current).await {
                Ok(done) => {
                    current.closed();
                    self.registry().upload_methods.learn(self.accepted);
                    return Ok(done);
                }
                Err(failure) => failure,
            };
            if let Some(reason) = self.body.broken() {
                current.cancel().await;
                return Err(Error::Content { doing: self.doing, reason });
            }
            if self.taken().saturating_sub(from) >= WORTH_RESUMING {
                self.budget.excuse(began.elapsed());
            }
            self.note_progress();
            if failure.error.status() == Some(StatusCode::INTERNAL_SERVER_ERROR) {
                self.crashes += 1;
            }
            let remedy = match self.remedy(&failure) {
                Remedy::SendAgain if was_sent_again => Remedy::GiveUp,
                Remedy::Resume | Remedy::NewSession if self.restarts > MAX_RESTARTS => {
                    Remedy::GiveUp
                }
                remedy => remedy,
            };
            match remedy {
                Remedy::GiveUp => {
                    current.cancel().await;
                    return Err(failure.error);
                }
                Remedy::Change(accepted) => {
                    self.accepted = accepted;
                    self.restarts = 0;
                    self.start_over(current, &failure).await;
                }
                Remedy::StopResuming => {
                    self.distrust_offsets();
                    self.start_over(current, &failure).await;
                }
                Remedy::SendAgain => {
                    // Bytes changed on the way, or the session lied about where it stood. A second
                    // time it is the registry's last word.
                    was_sent_again = true;
                    if self.resumed.is_some() {
                        self.distrust_offsets();
                    }
                    self.start_over(current, &failure).await;
                }
                Remedy::NewSession => {
                    current.closed();
                    self.wait(failure).await?;
                    if let Some(done) = self.stored_after_all().await? {
                        return Ok(done);
                    }
                }
                Remedy::ResumeElsewhere | Remedy::Resume => {
                    let rejects = matches!(remedy, Remedy::ResumeElsewhere);
                    let rejected = self.resumed.filter(|_| rejects);
                    if let Err(error) = self.wait(failure).await {
                        current.cancel().await;
                        return Err(error);
                    }
                    if let Some(done) = self.stored_after_all().await? {
                        current.closed();
                        return Ok(done);
                    }
                    if let Some(accepted) = self.another_method() {
                        self.accepted = accepted;
                        current.cancel().await;
                        continue;
                    }
                    session = self.resume(current, rejected).await;
                    self.note_progress();
                }
            }
        }
    }

    fn registry(&self) -> &Registry {
        self.repository.registry()
    }

    /// How far the network took bytes in this session.
    fn taken(&self) -> u64 {
        self.body.taken.load(Ordering::Relaxed)
    }

    /// Progress resets the retry budget.
    fn note_progress(&mut self) {
        if self.offset > self.furthest {
            self.furthest = self.offset;
            self.restarts = 0;
            self.budget.renew();
        }
    }

    fn distrust_offsets(&mut self) {
        self.accepted.resumes = false;
        self.registry().upload_methods.distrust_offsets();
    }

    /// Another method, for a registry that answers 500 again and again to what it was not made for:
    /// some that take bytes by PATCH only say so like this.
    fn another_method(&mut self) -> Option<Accepted> {
        if self.crashes < 2 {
            return None;
        }
        self.crashes = 0;
        self.accepted.without(self.method)
    }

    /// Waits before the next try, if there is to be one.
    async fn wait(&mut self, failure: FailedRequest) -> Result<(), Error> {
        let failure = FailedRequest { transient: true, ..failure };
        self.repository.registry().door.wait_before_retry(failure, &mut self.budget).await
    }

    /// Gives a session up for a new one at once.
    async fn start_over(&self, session: Session, failure: &FailedRequest) {
        self.registry().door.announce_retry(&failure.error, Duration::ZERO);
        session.cancel().await;
    }

    /// Opens a new session; everything begins at zero.
    async fn open(&mut self) -> Result<Session, Error> {
        self.offset = 0;
        self.resumed = None;
        self.restarts += 1;
        self.body.taken.store(0, Ordering::Relaxed);
        self.repository.open_upload_for(self.doing.clone(), &mut self.budget).await
    }

    /// Sends what is missing and has the registry store the blob under its digest.
    async fn send_rest(&mut self, session: &mut Session) -> Result<(Digest, u64), FailedRequest> {
        self.complete = false;
        loop {
            let known = self.body.source.whole().map(|(_, size)| size);
            if self.offset > 0 {
                if known.is_some_and(|size| self.offset >= size) {
                    break;
                }
                self.method = UploadMethod::Chunks;
                self.patch_part(session, self.accepted.rest(self.limits.least)).await?;
                continue;
            }
            // Without a method left the last one's refusal has ended the upload.
            self.method = self.accepted.method(known).unwrap_or(self.method);
            match self.method {
                UploadMethod::Put => {
                    let (digest, size) = self.finished().await?;
                    if known.is_none() {
                        // It may be too long for one body.
                        continue;
                    }
                    self.complete = true;
                    self.length = size;
                    let payload = self.body.part(0, Some(size));
                    return self.put(session, digest, size, payload).await;
                }
                UploadMethod::Stream => {
                    // Without a length known it is a chunked transfer.
                    self.length = known.unwrap_or(u64::MAX);
                    session.patch(&self.doing, self.body.part(0, known), None).await?;
                    let (_, size) = self.finished().await?;
                    self.offset = size;
                    break;
                }
                UploadMethod::Chunks => {
                    self.patch_part(session, self.accepted.chunk(self.limits.least)).await?;
                    if self.offset == 0 {
                        break;
                    }
                }
            }
        }
        let (digest, size) = self.finished().await?;
        self.complete = true;
        self.length = 0;
        self.put(session, digest, size, Payload::Empty).await
    }

    /// One PATCH of a part whose length is known: at most `most` bytes.
    async fn patch_part(&mut self, session: &mut Session, most: u64) -> Result<(), FailedRequest> {
        // Content-Range names the last byte, so the blob has to be whole.
        let (_, size) = self.finished().await?;
        let requests = size / most.max(1);
        if requests > MAX_CHUNKS {
            let bytes = if most == 1 { "byte" } else { "bytes" };
            let problem = format!(
                "the registry takes at most {most} {bytes} in a request \
                 (OCI-Chunk-Max-Length), and the blob would need {requests} requests"
            );
            return Err(Error::Protocol { doing: self.doing.clone(), problem }.into());
        }
        let end = size.min(self.offset.saturating_add(most));
        if end <= self.offset {
            return Ok(());
        }
        self.length = end - self.offset;
        let payload = self.body.part(self.offset, Some(end));
        session.patch(&self.doing, payload, Some((self.offset, end - 1))).await?;
        self.offset = end;
        self.note_progress();
        Ok(())
    }

    async fn put(
        &self,
        session: &Session,
        digest: Digest,
        size: u64,
        payload: Payload,
    ) -> Result<(Digest, u64), FailedRequest> {
        let answer = session.put(&self.doing, &digest, payload).await?;
        // Another success may come from something in between that is no registry at all.
        let is_stored = answer.status == StatusCode::CREATED
            || answer.header("docker-content-digest") == Some(digest.as_str())
            || self.is_there(&digest, size).await?;
        if !is_stored {
            let (url, status) = (SafeUrl::from(answer.url), answer.status);
            let problem = format!("{url} answered {status}, but does not have the blob");
            let error = Error::Protocol { doing: self.doing.clone(), problem };
            return Err(FailedRequest { transient: true, ..error.into() });
        }
        (self.body.progress)(size);
        Ok((digest, size))
    }

    /// Whether the registry answers the HEAD for the blob. If the question itself fails, the blob
    /// counts as missing.
    async fn is_there(&self, digest: &Digest, size: u64) -> Result<bool, Error> {
        match self.repository.head_blob(digest).await {
            Ok(present) => Ok(present.is_some_and(|there| there.size.is_none_or(|s| s == size))),
            Err(error) if error.is_of_one_request() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Finds out where the session stands, to go on from there; `None`: a new one is needed.
    /// `rejected` is an offset that the registry named and then rejected.
    async fn resume(&mut self, mut session: Session, rejected: Option<u64>) -> Option<Session> {
        let size = self.body.source.whole().map(|(_, size)| size);
        let resumes = self.accepted.resumes
            && self.accepted.takes_patch()
            && self.registry().upload_methods.accepted().resumes;
        if size.is_some_and(|size| size < WORTH_RESUMING) || !resumes {
            session.cancel().await;
            return None;
        }
        match session.position(&self.doing, &mut self.budget).await {
            Ok(SessionPosition::At(offset))
                if offset <= self.taken() && rejected != Some(offset) =>
            {
                self.offset = offset;
                self.resumed = Some(offset);
                return Some(session);
            }
            Ok(SessionPosition::At(_)) => self.distrust_offsets(),
            Ok(SessionPosition::Gone) => {
                session.closed();
                return None;
            }
            Ok(SessionPosition::Unclear) | Err(_) => {}
        }
        session.cancel().await;
        None
    }

    /// Whether the blob is there although the answer that said so was lost.
    async fn stored_after_all(&self) -> Result<Option<(Digest, u64)>, Error> {
        let Some((digest, size)) = self.body.source.whole().filter(|_| self.complete) else {
            return Ok(None);
        };
        if !self.is_there(&digest, size).await? {
            return Ok(None);
        }
        (self.body.progress)(size);
        Ok(Some((digest, size)))
    }

    fn remedy(&self, failure: &FailedRequest) -> Remedy {
        if failure.transient {
            return Remedy::Resume;
        }
        let error = &failure.error;
        let Some(status) = error.status() else {
            return Remedy::GiveUp;
        };
        let resumed = self.resumed.is_some();
        let change = |accepted: Option<Accepted>| accepted.map_or(Remedy::GiveUp, Remedy::Change);
        match status.as_u16() {
            _ if error.has_code("DIGEST_INVALID") => Remedy::SendAgain,
            400 if error.has_code("SIZE_INVALID") => Remedy::SendAgain,
            // docker-registry 2.8 says so of any session whose PATCH broke off.
            400 | 404 if error.has_code("BLOB_UPLOAD_INVALID") && resumed => Remedy::StopResuming,
            404 if error.has_code("NAME_UNKNOWN") => Remedy::GiveUp,
            404 => Remedy::NewSession,
            _ if error.has_code("BLOB_UPLOAD_UNKNOWN") => Remedy::NewSession,
            416 => Remedy::ResumeElsewhere,
            413 => change(self.accepted.shorter(self.length, self.limits.least)),
            // It may take the bytes without a Content-Range although not with one.
            400 | 405 | 411 | 415 | 501 if resumed => Remedy::StopResuming,
            400 | 405 | 411 | 415 | 501 => change(self.accepted.without(self.method)),
            _ => Remedy::GiveUp,
        }
    }

    async fn finished(&self) -> Result<(Digest, u64), FailedRequest> {
        self.body.source.finished().await.map_err(|error| {
            let reason = error.to_string();
            self.body.remember_reason(reason.clone());
            Error::Content { doing: self.doing.clone(), reason }.into()
        })
    }
}
