//! Uploads one blob: opens a session and sends the bytes. After a failure it finds out how many
//! bytes the registry has, and continues there.

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

/// A smaller blob is sent again without asking how many bytes arrived.
const WORTH_RESUMING: u64 = 1 << 20;
/// The most requests that are used to send one blob.
const MAX_CHUNKS: u64 = 100_000;
/// How many new sessions in a row an upload may need without progress.
const MAX_RESTARTS: u32 = 5;

/// What to do after a failure.
enum Remedy {
    /// The connection or the registry failed: ask for the position of the session, and continue
    /// there.
    Resume,
    /// The same, but do not accept the offset that the registry has just rejected.
    ResumeElsewhere,
    /// The registry has forgotten the session: open a new one.
    NewSession,
    /// The registry rejects the rest of a body that broke off: send everything again, and do not
    /// resume at this registry any more.
    StopResuming,
    /// The registry received other bytes than were sent: send everything again, once.
    SendAgain,
    /// The registry rejects this method: use one that is left.
    Change(Accepted),
    /// The registry rejects the blob.
    GiveUp,
}

/// One upload.
struct Uploader<'a> {
    repository: &'a Repository,
    body: UploadBody,
    doing: String,
    accepted: Accepted,
    budget: RetryBudget,
    /// How many bytes the registry has, by its last answer.
    offset: u64,
    /// The position that the registry reported and from which the upload was resumed.
    resumed: Option<u64>,
    /// The highest position of all sessions so far.
    furthest: u64,
    /// How many sessions were opened since then without getting further.
    restarts: u32,
    /// How many answers had status 500 since the method last changed.
    crashes: u32,
    /// The method that was used last.
    method: UploadMethod,
    /// The length of the last body.
    length: u64,
    limits: ChunkLimits,
    /// Whether the last bytes were sent, or are being sent.
    complete: bool,
}

impl Repository {
    /// Uploads a blob, in `session` if one is already open. Returns its digest and length.
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
        // On the heap, because many blobs may wait for their upload and should need little memory.
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
            // Other uploads may have learnt something meanwhile.
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
                    // Bytes were changed on the way, or the session's position was wrong. If this
                    // happens a second time, it is final.
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

    /// How far the network has taken bytes in this session.
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

    /// Another method, for a registry that answers 500 repeatedly: some registries that support
    /// only PATCH answer like this to other methods.
    fn another_method(&mut self) -> Option<Accepted> {
        if self.crashes < 2 {
            return None;
        }
        self.crashes = 0;
        self.accepted.without(self.method)
    }

    /// Waits before the next attempt, if there is one.
    async fn wait(&mut self, failure: FailedRequest) -> Result<(), Error> {
        let failure = FailedRequest { transient: true, ..failure };
        self.repository.registry().door.wait_before_retry(failure, &mut self.budget).await
    }

    /// Cancels a session, so that a new one can be opened without a wait.
    async fn start_over(&self, session: Session, failure: &FailedRequest) {
        self.registry().door.announce_retry(&failure.error, Duration::ZERO);
        session.cancel().await;
    }

    /// Opens a new session, which begins at zero bytes.
    async fn open(&mut self) -> Result<Session, Error> {
        self.offset = 0;
        self.resumed = None;
        self.restarts += 1;
        self.body.taken.store(0, Ordering::Relaxed);
        self.repository.open_upload_for(self.doing.clone(), &mut self.budget).await
    }

    /// Sends the missing bytes, and asks the registry to store the blob under its digest.
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
            // If no method is left, the upload has already ended with the last refusal.
            self.method = self.accepted.method(known).unwrap_or(self.method);
            match self.method {
                UploadMethod::Put => {
                    let (digest, size) = self.finished().await?;
                    if known.is_none() {
                        // Now that the length is known, it may be too long for one body.
                        continue;
                    }
                    self.complete = true;
                    self.length = size;
                    let payload = self.body.part(0, Some(size));
                    return self.put(session, digest, size, payload).await;
                }
                UploadMethod::Stream => {
                    // If the length is not known, the body uses chunked transfer encoding.
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

    /// Sends a part of known length, at most `most` bytes, in one PATCH.
    async fn patch_part(&mut self, session: &mut Session, most: u64) -> Result<(), FailedRequest> {
        // Content-Range contains the last byte, so the blob must be complete.
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
        // Any other success may come from a proxy and not from the registry.
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

    /// Whether the registry confirms the blob in answer to a HEAD request. If that request fails,
    /// the blob counts as missing.
    async fn is_there(&self, digest: &Digest, size: u64) -> Result<bool, Error> {
        match self.repository.head_blob(digest).await {
            Ok(present) => Ok(present.is_some_and(|there| there.size.is_none_or(|s| s == size))),
            Err(error) if error.is_of_one_request() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Asks for the position of the session, to continue there. `None` if a new session is needed.
    /// `rejected` is a position that the registry reported and then rejected.
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

    /// Whether the blob was stored, although the answer to its upload was lost.
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
            // docker-registry 2.8 gives this answer for any session whose PATCH broke off.
            400 | 404 if error.has_code("BLOB_UPLOAD_INVALID") && resumed => Remedy::StopResuming,
            404 if error.has_code("NAME_UNKNOWN") => Remedy::GiveUp,
            404 => Remedy::NewSession,
            _ if error.has_code("BLOB_UPLOAD_UNKNOWN") => Remedy::NewSession,
            416 => Remedy::ResumeElsewhere,
            413 => change(self.accepted.shorter(self.length, self.limits.least)),
            // The registry may accept the bytes without a Content-Range.
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
