//! The upload sessions that are open, so that whoever stops a push can cancel them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::join_all;
use reqwest::Method;
use reqwest::header::HeaderMap;
use tokio::sync::watch;
use tokio::time::Instant;
use url::Url;

use super::Repository;
use super::send::{AnswerTime, Call, Payload, Persistence, Target};

/// The upload sessions of one or more pushes; clones share them.
#[derive(Clone, Default)]
pub struct Sessions(Arc<Inner>);

#[derive(Default)]
struct Inner {
    next: AtomicU64,
    open: Mutex<HashMap<u64, Open>>,
    /// How many requests that may open a session are under way.
    opening: watch::Sender<usize>,
}

/// A request that may open a session is under way.
pub(super) struct UnderWay(Sessions);

struct Open {
    repository: Repository,
    url: Url,
    /// Nobody works on it any more.
    abandoned: bool,
}

/// One open upload session (OCI distribution-spec 1.1, "Pushing a blob in chunks").
///
/// Dropped unfinished it stays among the open [`Sessions`], to be cancelled
/// by [`Sessions::cancel_abandoned`].
#[derive(Debug)]
pub struct Session {
    repository: Repository,
    url: Url,
    id: u64,
}

impl Sessions {
    /// Cancels all that are open, taking no longer than `within`. Failures are of no interest: a
    /// registry forgets abandoned sessions by itself, in time.
    pub async fn cancel_all(&self, within: Duration) {
        self.cancel(|_| true, within).await;
    }

    /// Cancels those whose uploads were given up.
    pub async fn cancel_abandoned(&self, within: Duration) {
        self.cancel(|open| open.abandoned, within).await;
    }

    async fn cancel(&self, which: impl Fn(&Open) -> bool, within: Duration) {
        let deadline = Instant::now() + within;
        // The answer to a POST that nobody waits for any more may name one more session.
        let mut opening = self.0.opening.subscribe();
        let _ = tokio::time::timeout(within / 2, opening.wait_for(|count| *count == 0)).await;
        let chosen: Vec<Open> =
            self.lock().extract_if(|_, open| which(open)).map(|(_, open)| open).collect();
        let cancelling =
            join_all(chosen.iter().map(|open| delete(&open.repository, open.url.clone())));
        let _ = tokio::time::timeout_at(deadline, cancelling).await;
    }

    /// Counts a request that may open a session until the value is dropped.
    pub(super) fn opening(&self) -> UnderWay {
        self.0.opening.send_modify(|count| *count += 1);
        UnderWay(self.clone())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Open>> {
        // A map is whole between any two of its operations.
        self.0.open.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.0.opening.send_modify(|count| *count -= 1);
    }
}

impl Session {
    /// A session that the registry has just opened.
    pub(super) fn opened(repository: &Repository, url: Url) -> Self {
        let sessions = &repository.registry.settings.sessions;
        let id = sessions.0.next.fetch_add(1, Ordering::Relaxed);
        let open = Open { repository: repository.clone(), url: url.clone(), abandoned: false };
        sessions.lock().insert(id, open);
        Self { repository: repository.clone(), url, id }
    }

    /// Where the next request of this session goes.
    pub(super) fn url(&self) -> &Url {
        &self.url
    }

    /// The registry named a new location.
    pub(super) fn moved(&mut self, url: Url) {
        if let Some(open) = self.repository.registry.settings.sessions.lock().get_mut(&self.id) {
            open.url = url.clone();
        }
        self.url = url;
    }

    /// The session is no more: it was finished, or the registry forgot it.
    pub(super) fn closed(self) {
        self.repository.registry.settings.sessions.lock().remove(&self.id);
    }

    /// Tells the registry that nothing more will come. Until it has heard, the session is one of
    /// the open ones.
    pub(super) async fn cancel(self) {
        delete(&self.repository, self.url.clone()).await;
        self.closed();
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Some(open) = self.repository.registry.settings.sessions.lock().get_mut(&self.id) {
            open.abandoned = true;
        }
    }
}

async fn delete(repository: &Repository, url: Url) {
    let call = Call {
        doing: format!("cancel an upload to {repository}"),
        method: Method::DELETE,
        to: Target::Url(url),
        headers: HeaderMap::new(),
        payload: Payload::Empty,
        repository: &repository.name,
        scopes: &repository.scopes,
        sent: &repository.sent,
        also: &[],
        read: None,
        persistence: Persistence::Once,
        answer: AnswerTime::Idle,
    };
    let _ = tokio::time::timeout(Duration::from_secs(2), repository.registry.attempt(&call)).await;
}

impl std::fmt::Debug for Sessions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} open upload sessions", self.lock().len())
    }
}
