//! The ledger: it knows which repository has which blob, as the registries have answered in this
//! run, and which blobs are being uploaded. Every blob is found, mounted or uploaded through it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::future::pending;
use std::sync::Arc;

use futures::future::try_join_all;
use parking_lot::Mutex;
use tokio::sync::{OnceCell, Semaphore};

use super::spare::{Expected, SpareSessions};
use crate::error::Error;
use crate::event::{Event, Events};
use crate::image::{Blob, Digest};
use crate::pack::{self, Packed, Spool};
use crate::registry::upload::{UploadProgress, UploadSource};
use crate::registry::{self, Mount, Present, Repository};
use crate::report::{Known, Outcome};
use crate::reuse::{Candidate, Why};
use crate::source::LayerId;

/// From how many repositories a mount of one blob is tried. If two fail, others would fail too.
const MOUNTS: usize = 2;

/// The ledger of one run, for all its images.
pub struct Ledger {
    /// Whether nothing is sent (`--dry-run`).
    dry_run: bool,
    /// Permits to upload a blob (`-j`).
    uploads: Semaphore,
    /// By registry and digest.
    entries: Mutex<HashMap<(String, Digest), Arc<BlobEntry>>>,
    /// Upload sessions that are already open.
    spare: SpareSessions,
}

/// One blob at one registry.
#[derive(Default)]
struct BlobEntry {
    /// Held while the blob is uploaded, so that no other image uploads it to this registry.
    uploading: tokio::sync::Mutex<()>,
    /// By repository.
    presences: Mutex<BTreeMap<Arc<str>, Presence>>,
    /// The repositories that were confirmed to have it, the earliest first.
    holders: Mutex<Vec<Arc<str>>>,
}

/// One blob in one repository. A run of many images has very many, so it is kept small.
#[derive(Default)]
struct Presence {
    /// The answer to the HEAD request. It is sent at most once, and only if it is needed.
    head: Option<Arc<OnceCell<Option<Present>>>>,
    verdict: Verdict,
}

#[derive(Clone, Default)]
enum Verdict {
    #[default]
    Unknown,
    /// The repository has the blob. `image` is the image of the run that found or brought it.
    Confirmed { outcome: Outcome, image: usize },
    /// The registry first said that it has the blob, and later that it does not. It must be
    /// uploaded.
    Denied,
}

/// The ledger as one image sees it: the blobs of the image's repository.
pub struct RepositoryBlobs<'a> {
    ledger: &'a Ledger,
    repository: &'a Repository,
    /// The number of the image in the run.
    image: usize,
    events: &'a Events,
    /// Mounts that failed.
    refused: Mutex<Vec<(Arc<str>, Digest)>>,
}

/// A blob to upload, and where its events go.
pub struct Upload {
    pub layer: LayerId,
    /// The layer's name, to be shown to the user.
    pub name: String,
    pub content: Arc<dyn UploadSource>,
    pub events: Events,
}

/// Why a blob was not uploaded.
pub enum UploadError {
    Packing(pack::Error),
    Push(Error),
}

impl<E: Into<Error>> From<E> for UploadError {
    fn from(error: E) -> Self {
        Self::Push(error.into())
    }
}

impl Ledger {
    /// An empty ledger. At most `jobs` blobs are uploaded at the same time.
    pub fn new(jobs: usize, dry_run: bool) -> Self {
        Self {
            dry_run,
            uploads: Semaphore::new(jobs.max(1)),
            entries: Mutex::default(),
            spare: SpareSessions::default(),
        }
    }

    /// The ledger as this image sees it.
    pub fn of<'a>(
        &'a self,
        repository: &'a Repository,
        image: usize,
        events: &'a Events,
    ) -> RepositoryBlobs<'a> {
        RepositoryBlobs { ledger: self, repository, image, events, refused: Mutex::default() }
    }

    /// To be called after the registry has refused a manifest. It does not have the `denied` blobs.
    /// The other blobs of `relied_on` count as present only if a HEAD request confirms them.
    pub fn distrust(
        &self,
        repository: &Repository,
        relied_on: &HashSet<Digest>,
        denied: &HashSet<Digest>,
    ) {
        for digest in relied_on {
            let denied = denied.contains(digest);
            let verdict = if denied { Verdict::Denied } else { Verdict::Unknown };
            let entry = self.entry(repository, digest);
            entry.presence(repository, |presence| presence.verdict = verdict);
            entry.holders.lock().retain(|name| **name != *repository.name());
        }
    }

    fn entry(&self, repository: &Repository, digest: &Digest) -> Arc<BlobEntry> {
        let key = (repository.registry().host().to_owned(), digest.clone());
        self.entries.lock().entry(key).or_default().clone()
    }
}

impl BlobEntry {
    /// Reads or changes what is known about the blob in a repository.
    fn presence<T>(&self, repository: &Repository, then: impl FnOnce(&mut Presence) -> T) -> T {
        let mut all = self.presences.lock();
        match all.get_mut(repository.name()) {
            Some(presence) => then(presence),
            None => then(all.entry(repository.shared_name()).or_default()),
        }
    }

    /// The first repositories that have the blob and for which `fits` is true.
    fn holders(&self, fits: impl Fn(&str) -> bool) -> Vec<Arc<str>> {
        let holders = self.holders.lock();
        holders.iter().filter(|name| fits(name)).take(MOUNTS).cloned().collect()
    }
}

impl RepositoryBlobs<'_> {
    /// The first candidate that the repository has, or that can be mounted into it.
    pub async fn find(&self, candidates: &[Candidate]) -> Result<Option<(Blob, Outcome)>, Error> {
        if let Some(found) = self.recorded(candidates) {
            return Ok(Some(found));
        }
        // If another repository certainly has the blob, one mount request is enough. It also
        // succeeds if the blob is already in this repository.
        let certain = self.certain_sources(candidates);
        if !certain.is_empty() && !self.ledger.dry_run {
            return match self.mount_one(&certain).await? {
                Some(found) => Ok(Some(found)),
                None => self.ask(candidates).await,
            };
        }
        if let Some(found) = self.ask(candidates).await? {
            return Ok(Some(found));
        }
        self.mount_one(&self.mount_sources(candidates)).await
    }

    /// The first candidate that the repository has according to this run's answers. Sends no
    /// request.
    fn recorded(&self, candidates: &[Candidate]) -> Option<(Blob, Outcome)> {
        candidates.iter().find_map(|Candidate { blob, why, .. }| {
            let outcome = match self.confirmed(&blob.digest) {
                Some(outcome) => outcome,
                None if matches!(why, Why::Tagged(_)) && !self.is_denied(&blob.digest) => {
                    self.confirm(&blob.digest, Outcome::Reused { why: why.clone().into() })
                }
                None => return None,
            };
            Some((blob.clone(), outcome))
        })
    }

    /// Asks the registry for all candidates, and returns the first one that the repository has.
    async fn ask(&self, candidates: &[Candidate]) -> Result<Option<(Blob, Outcome)>, Error> {
        let there = try_join_all(candidates.iter().map(|c| self.is_there(&c.blob))).await?;
        let found = candidates.iter().zip(there).find(|(_, there)| *there);
        Ok(found.map(|(Candidate { blob, why, .. }, _)| {
            let outcome = Outcome::Reused { why: why.clone().into() };
            (blob.clone(), self.confirm(&blob.digest, outcome))
        }))
    }

    /// The repositories that a candidate can be mounted from, those that certainly have it first.
    fn mount_sources<'c>(&self, candidates: &'c [Candidate]) -> Vec<(&'c Blob, Arc<str>)> {
        let mut sources = self.certain_sources(candidates);
        for Candidate { blob, repository, .. } in candidates {
            self.add_source(&mut sources, blob, repository.clone());
        }
        sources.truncate(MOUNTS);
        sources
    }

    /// Other repositories that have a candidate, as the registry has confirmed in this run.
    fn certain_sources<'c>(&self, candidates: &'c [Candidate]) -> Vec<(&'c Blob, Arc<str>)> {
        let mut sources = Vec::new();
        for Candidate { blob, .. } in candidates {
            let is_other = |from: &str| {
                from != self.repository.name() && !self.was_refused(from, &blob.digest)
            };
            for from in self.entry(&blob.digest).holders(is_other) {
                self.add_source(&mut sources, blob, from);
            }
        }
        sources.truncate(MOUNTS);
        sources
    }

    fn add_source<'c>(&self, to: &mut Vec<(&'c Blob, Arc<str>)>, blob: &'c Blob, from: Arc<str>) {
        let is_own = *from == *self.repository.name();
        let source = (blob, from);
        if !is_own
            && !self.is_denied(&blob.digest)
            && !self.was_refused(&source.1, &blob.digest)
            && !to.contains(&source)
        {
            to.push(source);
        }
    }

    async fn mount_one(
        &self,
        sources: &[(&Blob, Arc<str>)],
    ) -> Result<Option<(Blob, Outcome)>, Error> {
        for (blob, from) in sources {
            let from = from.clone();
            match self.mount(blob, &from).await? {
                Mount::Mounted => {
                    let outcome = match self.ledger.dry_run {
                        true => Outcome::WouldMount { from },
                        false => Outcome::Mounted { from },
                    };
                    let blob = (*blob).clone();
                    let outcome = self.confirm(&blob.digest, outcome);
                    return Ok(Some((blob, outcome)));
                }
                Mount::Refused => self.refused.lock().push((from, blob.digest.clone())),
                Mount::Opened(session) => {
                    self.refused.lock().push((from, blob.digest.clone()));
                    self.ledger.spare.keep(self.repository, session);
                    // Another mount request could open another session.
                    break;
                }
            }
        }
        Ok(None)
    }

    /// Opens a session for an upload that will probably be needed.
    pub fn expect_upload(&self, blob: Option<&Digest>) -> Option<Expected<'_>> {
        (!self.ledger.dry_run).then(|| self.ledger.spare.expect(self.repository, blob))
    }

    /// Makes sure that the repository has the blob: finds it, mounts it, or uploads it.
    pub async fn ensure(
        &self,
        blob: &Blob,
        candidates: &[Candidate],
        upload: &Upload,
    ) -> Result<Outcome, Error> {
        let candidates = self.with_own(blob, candidates);
        if let Some((_, outcome)) = self.recorded(&candidates) {
            return Ok(outcome);
        }
        let entry = self.entry(&blob.digest);
        let is_coming = entry.uploading.try_lock().is_err();
        let is_likely = !is_coming && self.mount_sources(&candidates).is_empty();
        // The registry is asked for the blob and for a session at the same time.
        let expected = if is_likely { self.expect_upload(Some(&blob.digest)) } else { None };
        if let Some((_, outcome)) = self.find(&candidates).await? {
            return Ok(outcome);
        }
        let mut uploading = entry.uploading.lock().await;
        if !entry.holders.lock().is_empty() {
            // Another image has uploaded the blob meanwhile, so it can be mounted. Release the lock
            // first, because mounts need not wait for each other.
            drop(uploading);
            if let Some((_, outcome)) = self.find(&candidates).await? {
                return Ok(outcome);
            }
            uploading = entry.uploading.lock().await;
        }
        if self.ledger.dry_run {
            return Ok(self.confirm(&blob.digest, Outcome::WouldUpload));
        }
        (upload.events)(Event::UploadQueued {
            layer: upload.layer,
            name: upload.name.clone(),
            total: blob.size,
        });
        // The semaphore is never closed.
        let _permit = self.ledger.uploads.acquire().await;
        drop(expected);
        self.upload(upload).await?;
        let outcome = self.confirm(&blob.digest, Outcome::Uploaded);
        drop(uploading);
        Ok(outcome)
    }

    /// Uploads a big blob while it is being packed. The upload is stopped if the repository turns
    /// out to have the blob. `finished` is called when the digest is known.
    pub async fn ensure_growing(
        &self,
        spool: &Spool,
        upload: &Upload,
        finished: impl FnOnce(&Packed),
    ) -> Result<(Blob, Outcome), UploadError> {
        let _permit = self.ledger.uploads.acquire().await;
        let there = async {
            let packed = spool.finished().await.map_err(UploadError::Packing)?;
            let entry = self.entry(&packed.blob.digest);
            let _uploading = entry.uploading.lock().await;
            finished(&packed);
            if let Some((blob, outcome)) = self.find(&self.with_own(&packed.blob, &[])).await? {
                return Ok((blob, outcome));
            }
            // The blob is not there, so wait for the upload.
            pending().await
        };
        tokio::select! {
            biased;
            there = there => there,
            uploaded = self.upload(upload) => {
                uploaded?;
                let packed = spool.finished().await.map_err(UploadError::Packing)?;
                let outcome = self.confirm(&packed.blob.digest, Outcome::Uploaded);
                Ok((packed.blob, outcome))
            }
        }
    }

    pub fn repository(&self) -> &Repository {
        self.repository
    }

    /// Mounts that failed so far: the repository to mount from, and the blob.
    pub fn refused(&self) -> Vec<(Arc<str>, Digest)> {
        self.refused.lock().clone()
    }

    fn was_refused(&self, from: &str, digest: &Digest) -> bool {
        self.refused.lock().iter().any(|refused| *refused.0 == *from && refused.1 == *digest)
    }

    /// The candidates for a blob. The first one is the blob itself in this repository.
    fn with_own(&self, blob: &Blob, candidates: &[Candidate]) -> Vec<Candidate> {
        let repository = self.repository.shared_name();
        let own = Candidate { blob: blob.clone(), repository, why: Why::SameBlob };
        [own].into_iter().chain(candidates.iter().cloned()).collect()
    }

    fn presence<T>(&self, digest: &Digest, then: impl FnOnce(&mut Presence) -> T) -> T {
        self.entry(digest).presence(self.repository, then)
    }

    fn entry(&self, digest: &Digest) -> Arc<BlobEntry> {
        self.ledger.entry(self.repository, digest)
    }

    fn is_denied(&self, digest: &Digest) -> bool {
        self.presence(digest, |presence| matches!(presence.verdict, Verdict::Denied))
    }

    /// The outcome of a blob that is known to be in the repository.
    fn confirmed(&self, digest: &Digest) -> Option<Outcome> {
        self.presence(digest, |presence| match &presence.verdict {
            Verdict::Confirmed { outcome, image } if *image == self.image => Some(outcome.clone()),
            Verdict::Confirmed { .. } => Some(Outcome::Reused { why: Known::SameAsLayer }),
            Verdict::Unknown | Verdict::Denied => None,
        })
    }

    fn confirm(&self, digest: &Digest, outcome: Outcome) -> Outcome {
        let confirmed = Verdict::Confirmed { outcome: outcome.clone(), image: self.image };
        let entry = self.entry(digest);
        let before = entry.presence(self.repository, |presence| {
            std::mem::replace(&mut presence.verdict, confirmed)
        });
        if !matches!(before, Verdict::Confirmed { .. }) {
            entry.holders.lock().push(self.repository.shared_name());
        }
        outcome
    }

    /// Whether the registry confirms the blob and its length in its answer to a HEAD request.
    ///
    /// Any answer other than yes counts as no, for example if the registry has quarantined the
    /// blob, or if it redirects to storage that cannot be reached. If something is wrong, the
    /// upload shows it.
    async fn is_there(&self, blob: &Blob) -> Result<bool, Error> {
        if self.is_denied(&blob.digest) {
            return Ok(false);
        }
        let head = |presence: &mut Presence| presence.head.get_or_insert_default().clone();
        let head = self.presence(&blob.digest, head);
        let head = head.get_or_try_init(|| self.repository.head_blob(&blob.digest)).await;
        match head {
            Ok(Some(Present { size })) => Ok(size.is_none_or(|size| size == blob.size)),
            Ok(None) => Ok(false),
            Err(error) if error.is_of_one_request() => {
                (self.events)(Event::Note(format!("blob taken as missing: {error}")));
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn mount(&self, blob: &Blob, from: &str) -> Result<Mount, registry::Error> {
        if !self.ledger.dry_run {
            return self.repository.mount(&blob.digest, from).await;
        }
        let entry = self.entry(&blob.digest);
        let theirs = self.repository.registry().readable_repository(from);
        let is_there = entry.holders.lock().iter().any(|name| **name == *from)
            || matches!(theirs.head_blob(&blob.digest).await, Ok(Some(_)));
        Ok(if is_there { Mount::Mounted } else { Mount::Refused })
    }

    async fn upload(&self, upload: &Upload) -> Result<(), Error> {
        let (layer, name) = (upload.layer, upload.name.clone());
        let total = upload.content.whole().map(|(_, size)| size);
        (upload.events)(Event::UploadStarted { layer, name, total });
        let (events, content) = (upload.events.clone(), upload.content.clone());
        let progress: UploadProgress = Arc::new(move |position| {
            let total = content.whole().map(|(_, size)| size);
            let ready = content.ready();
            events(Event::UploadProgress { layer, position, ready, total });
        });
        let session = self.ledger.spare.take(self.repository).await;
        self.repository.upload(upload.content.clone(), session, progress).await?;
        Ok(())
    }
}
