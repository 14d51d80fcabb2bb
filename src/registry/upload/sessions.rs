//! The upload sessions that are open, so that they can be cancelled when a push stops.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::future::{BoxFuture, join_all};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;
use url::Url;

/// The upload sessions of one or several pushes. Clones share them.
#[derive(Clone, Default)]
pub struct Sessions(Arc<OpenSessions>);

#[derive(Default)]
struct OpenSessions {
    next: AtomicU64,
    open: Mutex<HashMap<u64, OpenSession>>,
    /// How many requests that may open a session are running.
    opening: watch::Sender<usize>,
}

/// Tells the registry that no more bytes will come to the session at this URL.
pub(super) type Cancel = Arc<dyn Fn(Url) -> BoxFuture<'static, ()> + Send + Sync>;

struct OpenSession {
    url: Url,
    cancel: Cancel,
    /// Whether no upload uses it any more.
    abandoned: bool,
}

/// Counts a request that may open a session as running, until it is dropped.
pub(super) struct UnderWay(Sessions);

impl Sessions {
    /// Cancels all open sessions, within this time at most. Failures do not matter, because a
    /// registry deletes abandoned sessions after some time.
    pub async fn cancel_all(&self, within: Duration) {
        self.cancel(|_| true, within).await;
    }

    /// Cancels the sessions whose uploads were given up.
    pub async fn cancel_abandoned(&self, within: Duration) {
        self.cancel(|open| open.abandoned, within).await;
    }

    async fn cancel(&self, which: impl Fn(&OpenSession) -> bool, within: Duration) {
        let deadline = Instant::now() + within;
        // A POST that is still running may open one more session, so wait for it first.
        let mut opening = self.0.opening.subscribe();
        let _ = tokio::time::timeout(within / 2, opening.wait_for(|count| *count == 0)).await;
        let chosen: Vec<OpenSession> =
            self.0.open.lock().extract_if(|_, open| which(open)).map(|(_, open)| open).collect();
        let cancelling = join_all(chosen.into_iter().map(|open| (open.cancel)(open.url)));
        let _ = tokio::time::timeout_at(deadline, cancelling).await;
    }

    /// Counts a request that may open a session until the value is dropped.
    pub(super) fn opening(&self) -> UnderWay {
        self.0.opening.send_modify(|count| *count += 1);
        UnderWay(self.clone())
    }

    /// Adds a session that was opened, and returns its number.
    pub(super) fn add(&self, url: Url, cancel: Cancel) -> u64 {
        let id = self.0.next.fetch_add(1, Ordering::Relaxed);
        self.0.open.lock().insert(id, OpenSession { url, cancel, abandoned: false });
        id
    }

    /// Records the new location of a session.
    pub(super) fn moved(&self, id: u64, url: Url) {
        if let Some(open) = self.0.open.lock().get_mut(&id) {
            open.url = url;
        }
    }

    /// Removes a session that was finished, or that the registry has forgotten.
    pub(super) fn remove(&self, id: u64) {
        self.0.open.lock().remove(&id);
    }

    /// Marks a session as no longer used by an upload.
    pub(super) fn abandon(&self, id: u64) {
        if let Some(open) = self.0.open.lock().get_mut(&id) {
            open.abandoned = true;
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.0.opening.send_modify(|count| *count -= 1);
    }
}

impl std::fmt::Debug for Sessions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} open upload sessions", self.0.open.lock().len())
    }
}
