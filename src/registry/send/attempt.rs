//! A request of a registry's API: with the authorization that it needs, again with a new token where
//! one is refused, and again and again as long as its budget lasts.

use reqwest::StatusCode;
use reqwest::header::{HeaderValue, WWW_AUTHENTICATE};
use url::Url;

use super::super::auth::{AuthError, Challenge, Realm, Scopes};
use super::super::error::Error;
use super::super::repository::Registry;
use super::failure::FailedRequest;
use super::request::{Answer, Request};
use super::retry::RetryBudget;

/// A request to a registry, with what its authorization depends on.
pub struct Call<'a> {
    pub request: Request,
    /// The repository that it is about.
    pub repository: &'a str,
    /// What the token must allow.
    pub scopes: &'a Scopes,
}

impl Registry {
    /// Sends a request until there is an answer, or trying again is pointless, or the budget is
    /// spent.
    pub async fn send(&self, call: &Call<'_>, budget: &mut RetryBudget) -> Result<Answer, Error> {
        let deadline = budget.deadline();
        // On the heap, so that the many futures that wait for their turn to send are small.
        let sending = Box::pin(self.send_again(call, budget));
        match deadline {
            Some(deadline) => deadline.limit(&call.request.doing, sending).await,
            None => sending.await,
        }
    }

    async fn send_again(&self, call: &Call<'_>, budget: &mut RetryBudget) -> Result<Answer, Error> {
        loop {
            let failure = match self.attempt(call).await {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            self.door.wait_before_retry(failure, budget).await?;
        }
    }

    /// Sends a request once; a second time with a new token where the first one is refused.
    pub async fn attempt(&self, call: &Call<'_>) -> Result<Answer, FailedRequest> {
        let turn = self.door.first.turn().await;
        let failed = |source| self.auth_failure(source);
        let secrets = self.auth.secrets(call.repository);
        // Before the first challenge there is nothing to send: a credential is never sent unasked.
        let authorization =
            self.auth.authorization(call.repository, call.scopes).await.map_err(failed)?;
        let request = &call.request;
        let answer = self.door.follow(request, authorization.as_ref(), &secrets).await?;
        let is_ours = Some(Realm::of(&answer.url)) == self.door.realm();
        if !is_ours || !self.needs_login(call, &answer, authorization.as_ref()) {
            return self.judge(call, answer, authorization.as_ref());
        }
        self.auth.note_challenge(&answer.headers);
        drop(turn);
        let renewed = self
            .auth
            .challenged(call.repository, call.scopes, &answer.headers, authorization.as_ref())
            .await
            .map_err(failed)?;
        // The search for a credential may only now have found one.
        let secrets = self.auth.secrets(call.repository);
        let answer = self.door.follow(request, Some(&renewed), &secrets).await?;
        self.judge(call, answer, Some(&renewed))
    }

    /// Whether an answer means that other credentials would help: 401, unless it says that this
    /// user may not do it, or a 403 that says that the token's scope was too narrow (RFC 6750,
    /// section 3.1).
    fn needs_login(&self, call: &Call<'_>, answer: &Answer, sent: Option<&HeaderValue>) -> bool {
        let is_password = sent.and_then(|value| value.to_str().ok()).is_some_and(is_basic);
        match answer.status {
            StatusCode::UNAUTHORIZED if sent.is_none() => true,
            StatusCode::UNAUTHORIZED => match Challenge::choose(&answer.headers) {
                // A password does not get better by being sent again.
                Some(Challenge::Basic { .. }) => !is_password,
                Some(Challenge::Bearer { .. }) => {
                    !is_password || !self.is_about_rights(call, answer)
                }
                None => false,
            },
            StatusCode::FORBIDDEN => is_scope_too_narrow(answer),
            _ => false,
        }
    }

    fn auth_failure(&self, source: AuthError) -> FailedRequest {
        let server = source.token_server().and_then(|server| server.parse::<Url>().ok());
        FailedRequest {
            transient: source.is_transient(),
            retry_after: source.retry_after(),
            server: server.map(|url| self.door.server(&url)),
            connected: true,
            about_trust: false,
            error: Error::Auth { host: self.host().to_owned(), source: Box::new(source) },
        }
    }
}

/// Whether an `Authorization` header holds a password.
pub(super) fn is_basic(header: &str) -> bool {
    header.get(..6).is_some_and(|scheme| scheme.eq_ignore_ascii_case("basic "))
}

/// Whether an answer says that the token allows too little.
pub(super) fn is_scope_too_narrow(answer: &Answer) -> bool {
    let mut values = answer.headers.get_all(WWW_AUTHENTICATE).iter();
    values.any(|value| value.to_str().is_ok_and(|text| text.contains("insufficient_scope")))
}
