//! Tokens that are still valid, and tokens that are being fetched.
//!
//! If many requests need the same token, it is fetched once, and all requests get the same token or
//! error. If all of them are dropped, the fetch is dropped too.

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
    /// By the repository whose credential was used.
    good: HashMap<String, Vec<Token>>,
    /// By that repository and the scopes.
    coming: HashMap<(String, Scopes), WeakShared<Fetch>>,
}

impl Tokens {
    /// A token for these scopes: one that is valid, one that is being fetched, or a new one from
    /// `fetch`.
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

    /// Removes a token that the registry refused. A newer token is kept.
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
        // If a fetch has ended and there is no valid token, its token was refused or is stale, or
        // it failed. Only the requests that waited for it can use its result.
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
