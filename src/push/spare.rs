//! Upload sessions that are open before a blob needs them. They were opened early, while the blob
//! was still compressed and asked for, or the registry opened them in answer to a mount request.
//! Only the ledger takes them.

use std::collections::{HashMap, VecDeque};

use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;

use crate::image::Digest;
use crate::registry::Repository;
use crate::registry::upload::Session;

/// How many sessions are opened early for one repository: enough for the config and for the layers
/// that usually change. A session that is not used must be cancelled.
const AHEAD: usize = 4;

/// The spare sessions of a run, by registry and repository.
#[derive(Default)]
pub struct SpareSessions(Mutex<HashMap<String, Spare>>);

#[derive(Default)]
struct Spare {
    /// Open sessions, or sessions being opened. `None` means that opening failed.
    sessions: VecDeque<BoxFuture<'static, Option<Session>>>,
    /// The uploads that are expected, by digest if it is known.
    expected: Vec<Option<Digest>>,
}

/// An upload that will probably come.
pub struct Expected<'a> {
    spare: &'a SpareSessions,
    repository: &'a Repository,
    blob: Option<Digest>,
}

impl SpareSessions {
    /// Opens a session for an upload that will probably come, unless a spare one is left. With a
    /// near registry it is fast enough to open the session when the upload comes.
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
            // A separate task, so that it continues while no future waits for it. If it fails, the
            // upload opens a session itself and reports the error.
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

    /// Takes a spare session for an upload to the repository, if there is one.
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
