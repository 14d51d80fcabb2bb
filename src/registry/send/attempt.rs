//! Sends a request of the registry's API: adds the authorization, gets a new token if one is
//! rejected, and retries until the budget is spent.

use reqwest::StatusCode;
use reqwest::header::{HeaderValue, WWW_AUTHENTICATE};
use url::Url;

use super::super::auth::{AuthError, Challenge, Realm, Scopes};
use super::super::error::Error;
use super::super::repository::Registry;
use super::failure::FailedRequest;
use super::request::{Answer, Request};
use super::retry::RetryBudget;

/// A request to a registry, with what determines its authorization.
pub struct Call<'a> {
    pub request: Request,
    /// The repository of the request.
    pub repository: &'a str,
    /// What the token must allow.
    pub scopes: &'a Scopes,
}

impl Registry {
    /// Sends a request until there is an answer, a retry is pointless, or the budget is spent.
    pub async fn send(&self, call: &Call<'_>, budget: &mut RetryBudget) -> Result<Answer, Error> {
        let deadline = budget.deadline();
        // On the heap, because many futures may wait at the same time and should be small.
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

    /// Sends a request once, and a second time with a new token if the first one is rejected.
    pub async fn attempt(&self, call: &Call<'_>) -> Result<Answer, FailedRequest> {
        let turn = self.door.first.turn().await;
        let failed = |source| self.auth_failure(source);
        let secrets = self.auth.secrets(call.repository);
        // Before the first challenge there is no header to send: a credential is never sent without
        // being requested.
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
        // The credential may have been found only now.
        let secrets = self.auth.secrets(call.repository);
        let answer = self.door.follow(request, Some(&renewed), &secrets).await?;
        self.judge(call, answer, Some(&renewed))
    }

    /// Whether an answer means that a new token or login may help: a 401, unless it says that this
    /// user has no permission, or a 403 that says that the token's scope is too narrow (RFC 6750,
    /// section 3.1).
    fn needs_login(&self, call: &Call<'_>, answer: &Answer, sent: Option<&HeaderValue>) -> bool {
        let is_password = sent.and_then(|value| value.to_str().ok()).is_some_and(is_basic);
        match answer.status {
            StatusCode::UNAUTHORIZED if sent.is_none() => true,
            StatusCode::UNAUTHORIZED => match Challenge::choose(&answer.headers) {
                // Sending the same password again is useless.
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

/// Whether an `Authorization` header contains a password.
pub(super) fn is_basic(header: &str) -> bool {
    header.get(..6).is_some_and(|scheme| scheme.eq_ignore_ascii_case("basic "))
}

/// Whether an answer says that the token's scopes are not enough.
pub(super) fn is_scope_too_narrow(answer: &Answer) -> bool {
    let mut values = answer.headers.get_all(WWW_AUTHENTICATE).iter();
    values.any(|value| value.to_str().is_ok_and(|text| text.contains("insufficient_scope")))
}
