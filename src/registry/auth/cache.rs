//! Tokens that are still good, and those that are being fetched just now.
//!
//! If many requests need a token at the same time, it is fetched once: the others wait for the same
//! answer, or the same error. If all of them are dropped, the fetch ends with them.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::{Shared, WeakShared};
use parking_lot::Mutex;
use reqwest::header::HeaderValue;
use tokio::time::Instant;

use super::error::AuthError;
use super::scopes::Scopes;
use super::token::Token;

type Fetch = Pin<Box<dyn Future<Output = Result<Token, AuthError>> + Send>>;

/// The tokens of one registry.
#[derive(Default)]
pub(super) struct Tokens(Mutex<TokenStore>);

#[derive(Default)]
struct TokenStore {
    /// By the repository whose credential they were fetched with.
    good: HashMap<String, Vec<Token>>,
    /// By the same and by what they are for.
    coming: HashMap<(String, Scopes), WeakShared<Fetch>>,
}

impl Tokens {
    /// A token for these scopes: one that we have, one that is on its way, or the one that `fetch`
    /// brings.
    pub async fn get<F>(
        self: &Arc<Self>,
        repository: &str,
        scopes: Scopes,
        fetch: impl FnOnce(Scopes) -> F,
    ) -> Result<HeaderValue, AuthError>
    where
        F: Future<Output = Result<Token, AuthError>> + Send + 'static,
    {
        let coming = match self.join(repository, scopes, fetch) {
            Ok(header) => return Ok(header),
            Err(coming) => coming,
        };
        coming.await.map(|token| token.header)
    }

    /// Drops a token that the registry refused. One that has taken its place stays.
    pub fn forget(&self, repository: &str, refused: &HeaderValue) {
        if let Some(tokens) = self.0.lock().good.get_mut(repository) {
            tokens.retain(|token| token.header != refused);
        }
    }

    fn join<F>(
        self: &Arc<Self>,
        repository: &str,
        scopes: Scopes,
        fetch: impl FnOnce(Scopes) -> F,
    ) -> Result<HeaderValue, Shared<Fetch>>
    where
        F: Future<Output = Result<Token, AuthError>> + Send + 'static,
    {
        let mut state = self.0.lock();
        let now = Instant::now();
        let good = state.good.get(repository).into_iter().flatten();
        if let Some(token) =
            good.filter(|token| token.stale_at > now).find(|token| token.scopes.contains(&scopes))
        {
            return Ok(token.header.clone());
        }
        let key = (repository.to_owned(), scopes);
        // A fetch that has ended without a good token was refused, is stale, or failed: it is of use
        // only to the requests that waited for it.
        let coming = state.coming.get(&key).and_then(WeakShared::upgrade);
        if let Some(coming) = coming.filter(|coming| coming.peek().is_none()) {
            return Err(coming);
        }
        let fetch = fetch(key.1.clone());
        let (tokens, repository) = (Arc::clone(self), key.0.clone());
        let coming: Fetch = Box::pin(async move {
            let token = fetch.await?;
            tokens.keep(repository, token.clone());
            Ok(token)
        });
        let coming = coming.shared();
        state.coming.retain(|_, other| other.upgrade().is_some());
        if let Some(weak) = coming.downgrade() {
            state.coming.insert(key, weak);
        }
        Err(coming)
    }

    fn keep(&self, repository: String, token: Token) {
        let now = Instant::now();
        let mut state = self.0.lock();
        let tokens = state.good.entry(repository).or_default();
        tokens.retain(|other| other.stale_at > now && !token.scopes.contains(&other.scopes));
        tokens.push(token);
    }
}
