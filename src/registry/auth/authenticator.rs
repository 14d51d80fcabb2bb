//! The way from a 401 to the header that answers it, for one registry.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use reqwest::Client;
use reqwest::header::{HeaderMap, HeaderValue};
use tokio::sync::OnceCell;
use url::Url;

use super::super::hosts;
use super::cache::Tokens;
use super::challenge::Challenge;
use super::credential::{Credential, Found, basic, bearer};
use super::error::{AuthError, CredentialError};
use super::realm::Realm;
use super::scopes::Scopes;
use super::sources::Sources;
use super::token::{Endpoint, TokenRequest};
use crate::event::{Event, Events};

const DEFAULT_LIMIT: Duration = Duration::from_secs(60);

/// Says who we are to one registry. It is shared by all requests to that registry.
pub struct Authenticator {
    realm: Realm,
    host: String,
    plain_token_servers: bool,
    sources: Sources,
    client: Client,
    limit: Duration,
    events: Events,
    /// The last challenge; `None`: the registry has not asked.
    asked: Mutex<Option<Asked>>,
    /// Credentials, by repository. A failed search is not repeated: it may have taken a program
    /// half a minute, and a hundred requests may wait for it.
    searches: Mutex<HashMap<String, Search>>,
    tokens: Arc<Tokens>,
}

type Search = Arc<OnceCell<Result<Arc<Found>, CredentialError>>>;

/// What the registry wants.
#[derive(Clone)]
enum Asked {
    Password,
    Token(Endpoint),
}

impl Authenticator {
    /// For the registry at `base` (its scheme, host and port are what counts), which the user
    /// calls `host` (`docker.io`, `registry.example:5000`). `client` talks to token servers; it
    /// must not follow redirects.
    pub fn new(base: &Url, host: &str, sources: Sources, client: Client, events: Events) -> Self {
        Self {
            realm: Realm::of(base),
            host: host.to_owned(),
            plain_token_servers: false,
            sources,
            client,
            limit: DEFAULT_LIMIT,
            events,
            asked: Mutex::default(),
            searches: Mutex::default(),
            tokens: Arc::default(),
        }
    }

    /// Lets a registry that is spoken to over plain HTTP name a token server that is, too, wherever
    /// it is: `--plain-http`. Without this, such a token server must be on this machine.
    #[must_use]
    pub fn allow_plain_token_servers(mut self) -> Self {
        self.plain_token_servers = true;
        self
    }

    /// How long a token server may take for its whole answer. Default: one minute.
    #[must_use]
    pub fn with_time_limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// The only realm that may be sent what this authenticator says.
    pub fn realm(&self) -> &Realm {
        &self.realm
    }

    /// What to send with a request now. `None`: nothing, because the registry has not asked, or
    /// because it asked for a password and we have none.
    ///
    /// The value is marked as sensitive. It may take a request to the token server.
    pub async fn authorization(
        &self,
        repository: &str,
        scopes: &Scopes,
    ) -> Result<Option<HeaderValue>, AuthError> {
        let asked = lock(&self.asked).clone();
        match asked {
            None => Ok(None),
            Some(Asked::Password) => {
                let found = self.found(repository).await?;
                Ok(match &found.credential {
                    Some(Credential::Basic { username, password }) => {
                        Some(basic(username, password))
                    }
                    _ => None,
                })
            }
            Some(Asked::Token(endpoint)) => {
                self.token(repository, scopes.clone(), endpoint).await.map(Some)
            }
        }
    }

    /// What to send in place of `sent`, which the registry has answered with 401 and `headers`.
    ///
    /// The answer is worth one more try; if that, too, is refused, [`Authenticator::origin`] and
    /// [`Authenticator::advice`] say the rest.
    ///
    /// # Errors
    ///
    /// [`AuthError::Denied`] where the token server gives no token for `scopes`: if they were
    /// widened for a mount, the caller may go on with the narrower ones.
    /// [`AuthError::is_transient`] tells whether to try again later.
    pub async fn challenged(
        &self,
        repository: &str,
        scopes: &Scopes,
        headers: &HeaderMap,
        sent: Option<&HeaderValue>,
    ) -> Result<HeaderValue, AuthError> {
        let challenge = Challenge::choose(headers)
            .ok_or_else(|| AuthError::NoChallenge { host: self.host.clone() })?;
        let header = match challenge {
            Challenge::Basic { .. } => {
                *lock(&self.asked) = Some(Asked::Password);
                let found = self.found(repository).await?;
                let Some(Credential::Basic { username, password }) = &found.credential else {
                    return Err(AuthError::NoCredentials {
                        host: self.host.clone(),
                        origin: found.to_string(),
                        advice: self.advice(),
                    });
                };
                basic(username, password)
            }
            Challenge::Bearer { realm, service, scope, .. } => {
                self.check(&realm)?;
                let endpoint = Endpoint { url: realm, service };
                *lock(&self.asked) = Some(Asked::Token(endpoint.clone()));
                if let Some(refused) = sent {
                    self.tokens.forget(repository, refused);
                }
                let scopes = scopes.clone().with_challenged(scope.as_deref().unwrap_or_default());
                self.token(repository, scopes, endpoint).await?
            }
        };
        // Nothing new to say: a password, or a registry token, was refused.
        if sent == Some(&header) {
            let found = self.found(repository).await?;
            return Err(AuthError::Refused {
                host: self.host.clone(),
                origin: found.to_string(),
                advice: self.advice(),
            });
        }
        Ok(header)
    }

    /// Who we are, for messages about a repository that is closed to us: `with the credentials of
    /// user x from /root/.docker/config.json`, or `anonymously; no credentials for HOST were found
    /// in …`.
    pub fn origin(&self, repository: &str) -> String {
        let search = lock(&self.searches).get(repository).cloned();
        match search.as_ref().and_then(|search| search.get()) {
            Some(Ok(found)) => found.to_string(),
            Some(Err(_)) => "anonymously; the search for credentials failed".into(),
            None => format!("anonymously; {} did not ask who we are", self.host),
        }
    }

    /// What to do to be let in, for the same messages.
    pub fn advice(&self) -> String {
        hosts::log_in(&self.host)
    }

    /// A token, or what stands for one.
    async fn token(
        &self,
        repository: &str,
        scopes: Scopes,
        endpoint: Endpoint,
    ) -> Result<HeaderValue, AuthError> {
        let found = self.found(repository).await?;
        if let Some(Credential::RegistryToken(token)) = &found.credential {
            return bearer(token).ok_or_else(|| AuthError::Unsendable {
                host: self.host.clone(),
                origin: found.to_string(),
                advice: self.advice(),
            });
        }
        self.tokens
            .get(repository, scopes, |scopes| {
                TokenRequest {
                    client: self.client.clone(),
                    host: self.host.clone(),
                    endpoint,
                    scopes,
                    found,
                    limit: self.limit,
                    events: Arc::clone(&self.events),
                }
                .send()
            })
            .await
    }

    /// Whether a credential may go to a token server: over TLS to any that the registry names;
    /// in the open only where the registry itself is spoken to in the open, which the user has
    /// allowed, or which stays on this machine.
    fn check(&self, token_server: &Url) -> Result<(), AuthError> {
        let server = Realm::of(token_server);
        let in_the_open_too =
            !self.realm.is_tls() && (server.is_loopback() || self.plain_token_servers);
        if server.is_tls() || in_the_open_too {
            return Ok(());
        }
        Err(AuthError::InsecureRealm { host: self.host.clone(), server: server.to_string() })
    }

    async fn found(&self, repository: &str) -> Result<Arc<Found>, AuthError> {
        let search = Arc::clone(lock(&self.searches).entry(repository.to_owned()).or_default());
        let found = search
            .get_or_init(|| async {
                let found = self.sources.find(&self.host, repository).await?;
                (self.events)(Event::Note(format!("{}/{repository}: going {found}", self.host)));
                Ok(Arc::new(found))
            })
            .await;
        Ok(found.clone()?)
    }
}

impl fmt::Debug for Authenticator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authenticator")
            .field("realm", &self.realm)
            .field("host", &self.host)
            .field("sources", &self.sources)
            .finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No code that can panic runs while one of these is locked.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
