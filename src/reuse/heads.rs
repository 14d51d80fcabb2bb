//! HEADs for blobs, each asked once a push, as early as its digest is known.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use tokio::task::JoinSet;

use crate::image::Digest;
use crate::registry::{Error, Present, Repository};

type Answer = Result<Option<Present>, Arc<Error>>;

/// What a repository answered to the HEADs of this push.
///
/// Dropping it ends the requests that are still under way.
pub struct Heads {
    repository: Repository,
    asked: Mutex<Asked>,
}

#[derive(Default)]
struct Asked {
    answers: HashMap<Digest, Shared<BoxFuture<'static, Answer>>>,
    under_way: JoinSet<()>,
}

impl Heads {
    /// Nothing is asked yet.
    pub fn new(repository: Repository) -> Self {
        Self { repository, asked: Mutex::default() }
    }

    /// Sends the HEAD for a blob now, whoever will want to know the answer.
    pub fn expect(&self, digest: &Digest) {
        drop(self.answer(digest));
    }

    /// Whether the blob is there.
    pub async fn ask(&self, digest: &Digest) -> Answer {
        self.answer(digest).await
    }

    fn answer(&self, digest: &Digest) -> Shared<BoxFuture<'static, Answer>> {
        // A map and a set of tasks are whole between any two of their operations.
        let mut asked = self.asked.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(answer) = asked.answers.get(digest) {
            return answer.clone();
        }
        let (repository, blob) = (self.repository.clone(), digest.clone());
        let answer = async move { repository.head_blob(&blob).await.map_err(Arc::new) };
        let answer = answer.boxed().shared();
        asked.answers.insert(digest.clone(), answer.clone());
        asked.under_way.spawn(answer.clone().map(drop));
        answer
    }
}
