//! Upload sessions that are open before a blob needs them: opened ahead while it is compressed and
//! asked for, or opened by a registry in place of a mount. Only the ledger takes them.

use std::collections::{HashMap, VecDeque};

use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;

use crate::image::Digest;
use crate::registry::Repository;
use crate::registry::upload::Session;

/// How many are opened ahead for one repository: enough for the config and the layers that change
/// from one push to the next. Each that is not used has to be cancelled.
const AHEAD: usize = 4;

/// The spare sessions of a run, by registry and repository.
#[derive(Default)]
pub struct SpareSessions(Mutex<HashMap<String, Spare>>);

#[derive(Default)]
struct Spare {
    /// Open, or being opened; `None` comes of one that could not be opened.
    sessions: VecDeque<BoxFuture<'static, Option<Session>>>,
    /// The uploads that are expected, by digest where it is known.
    expected: Vec<Option<Digest>>,
}

/// An upload that is likely to come.
pub struct Expected<'a> {
    spare: &'a SpareSessions,
    repository: &'a Repository,
    blob: Option<Digest>,
}

impl SpareSessions {
    /// Opens a session for an upload that is likely to come, unless one is spare. A near registry
    /// opens it soon enough when the upload comes.
    pub fn expect<'a>(&'a self, repository: &'a Repository, blob: Option<&Digest>) -> Expected<'a> {
        let mut repositories = self.0.lock();
        let spare = repositories.entry(repository.to_string()).or_default();
        let blob = blob.cloned();
        let is_new = blob.is_none() || !spare.expected.contains(&blob);
        spare.expected.push(blob.clone());
        if is_new
            && repository.registry().is_far()
            && spare.sessions.len() < spare.expected.len().min(AHEAD)
        {
            let repository = repository.clone();
            // A task of its own, so that it goes on while nothing waits for it. Why it failed is
            // said by the upload, which then opens a session itself.
            let opening = tokio::spawn(async move { repository.open_upload().await.ok() });
            spare.sessions.push_back(async { opening.await.ok().flatten() }.boxed());
        }
        Expected { spare: self, repository, blob }
    }

    /// Keeps an open session for the next upload to the repository.
    pub fn keep(&self, repository: &Repository, session: Session) {
        let mut repositories = self.0.lock();
        let spare = repositories.entry(repository.to_string()).or_default();
        spare.sessions.push_front(async { Some(session) }.boxed());
    }

    /// A session for an upload to the repository, if one is spare.
    pub async fn take(&self, repository: &Repository) -> Option<Session> {
        let next = self.0.lock().get_mut(&repository.to_string())?.sessions.pop_front();
        next?.await
    }
}

impl Drop for Expected<'_> {
    fn drop(&mut self) {
        if let Some(spare) = self.spare.0.lock().get_mut(&self.repository.to_string())
            && let Some(place) = spare.expected.iter().position(|blob| *blob == self.blob)
        {
            spare.expected.swap_remove(place);
        }
    }
}
