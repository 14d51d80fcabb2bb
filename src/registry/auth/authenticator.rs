//! Adds the layers that an image lists. For each diff ID at most `most` entries are kept. The keys
//! that the image gives its layers are used only if it is trusted.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use reqwest::header::{HeaderMap, HeaderValue};
use tokio::sync::OnceCell;
use url::Url;

use super::super::hosts;
use super::super::send::door::Door;
use super::super::send::mask::Secrets;
use super::cache::Tokens;
use super::challenge::Challenge;
use super::credential::{Credential, Found, basic, bearer};
use super::error::{AuthError, CredentialError};
use super::realm::Realm;
use super::scopes::Scopes;
use super::sources::Sources;
use super::token::{Endpoint, TokenRequest};

/// Logs in to one registry. It is shared by all requests to that registry.
pub struct Authenticator {
    door: Arc<Door>,
    sources: Sources,
    /// What the last challenge asked for; `None` before the first one.
    asked: Mutex<Option<WantedToken>>,
    /// Credentials, by repository. A failed search is not repeated, because a credential program
    /// may have taken half a minute, and a hundred requests may wait for the result.
    searches: Mutex<HashMap<String, Search>>,
    tokens: Arc<Tokens>,
}

type Search = Arc<OnceCell<Result<Arc<Login>, CredentialError>>>;

/// A credential that was found, and the texts in it that must not be shown.
struct Login {
    found: Arc<Found>,
    secrets: Secrets,
}

/// What the registry asks for.
#[derive(Clone)]
enum WantedToken {
    Password,
    Token(Endpoint),
}

/// As whom we log in to a registry, for messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// `with the credentials of user x from /root/.docker/config.json`
    User(String),
    /// `anonymously; no credentials for HOST were found in …`
    Anonymous(String),
    /// The registry has not asked for a login.
    NotAsked,
}

impl Authenticator {
    /// An authenticator for the registry behind this door. Tokens are also fetched through the
    /// door.
    pub fn new(door: Arc<Door>, sources: Sources) -> Self {
        Self {
            door,
            sources,
            asked: Mutex::default(),
            searches: Mutex::default(),
            tokens: Arc::default(),
        }
    }

    /// The header to send with a request now. `None` if the registry has not asked for a login, or
    /// if it asked for a password and we have no password for it.
    ///
    /// The value is marked as sensitive. This may send a request to the token server.
    pub async fn authorization(
        &self,
        repository: &str,
        scopes: &Scopes,
    ) -> Result<Option<HeaderValue>, AuthError> {
        let asked = self.asked.lock().clone();
        match asked {
            None => Ok(None),
            Some(WantedToken::Password) => {
                Ok(match &self.login(repository).await?.found.credential {
                    Some(Credential::Basic { username, password }) => {
                        Some(basic(username, password))
                    }
                    _ => None,
                })
            }
            Some(WantedToken::Token(endpoint)) => {
                self.token(repository, scopes.clone(), endpoint).await.map(Some)
            }
        }
    }

    /// Whether the registry has asked for a login.
    pub fn was_challenged(&self) -> bool {
        self.asked.lock().is_some()
    }

    /// Remembers what a 401 asks for, so that other requests send it at once.
    pub fn note_challenge(&self, headers: &HeaderMap) {
        let asked = match Challenge::choose(headers) {
            Some(Challenge::Basic { .. }) => WantedToken::Password,
            Some(Challenge::Bearer { realm, service, .. }) => {
                WantedToken::Token(Endpoint { url: realm, service })
            }
            None => return,
        };
        *self.asked.lock() = Some(asked);
    }

    /// The header to send in place of `sent`, after the registry has answered 401 with `headers`.
    ///
    /// Send the request once more with it. If that is refused too, [`Authenticator::identity`]
    /// tells as whom it was sent.
    ///
    /// # Errors
    ///
    /// [`AuthError::Denied`] if the token server gives no token for `scopes`. If they were extended
    /// for a mount, the caller may continue with the smaller set. [`AuthError::is_transient`] tells
    /// whether to try again later.
    pub async fn challenged(
        &self,
        repository: &str,
        scopes: &Scopes,
        headers: &HeaderMap,
        sent: Option<&HeaderValue>,
    ) -> Result<HeaderValue, AuthError> {
        let challenge = Challenge::choose(headers).ok_or_else(|| AuthError::NoChallenge {
            host: self.host(),
            offered: Challenge::offered(headers),
        })?;
        Ok(match challenge {
            Challenge::Basic { .. } => {
                self.note_challenge(headers);
                let login = self.login(repository).await?;
                let Some(Credential::Basic { username, password }) = &login.found.credential else {
                    return Err(AuthError::NoCredentials {
                        host: self.host(),
                        origin: login.found.to_string(),
                        advice: self.advice(),
                    });
                };
                let header = basic(username, password);
                if sent == Some(&header) {
                    return Err(self.refused(&login));
                }
                header
            }
            Challenge::Bearer { realm, service, scope, .. } => {
                self.check(repository, &realm).await?;
                let endpoint = Endpoint { url: realm, service };
                *self.asked.lock() = Some(WantedToken::Token(endpoint.clone()));
                if let Some(refused) = sent {
                    self.tokens.forget(repository, refused);
                }
                let scopes = scopes.clone().with_challenged(scope.as_deref().unwrap_or_default());
                let header = self.token(repository, scopes, endpoint).await?;
                let login = self.login(repository).await?;
                // The registry refused this very registry token, and there is no other one. A token
                // from a token server is different: that server has accepted the login.
                if let Some(Credential::RegistryToken(_)) = &login.found.credential
                    && sent == Some(&header)
                {
                    return Err(self.refused(&login));
                }
                header
            }
        })
    }

    /// The error if the credential was refused and there is no other one.
    fn refused(&self, login: &Login) -> AuthError {
        AuthError::Refused {
            host: self.host(),
            origin: login.found.to_string(),
            advice: self.advice(),
        }
    }

    /// The identity for messages about a repository that cannot be accessed.
    pub fn identity(&self, repository: &str) -> Identity {
        let search = self.searches.lock().get(repository).cloned();
        match search.as_ref().and_then(|search| search.get()) {
            Some(Ok(login)) if login.found.credential.is_some() => {
                Identity::User(login.found.to_string())
            }
            Some(Ok(login)) => Identity::Anonymous(login.found.to_string()),
            Some(Err(_)) => {
                Identity::Anonymous("anonymously; the search for credentials failed".into())
            }
            None => Identity::NotAsked,
        }
    }

    /// The secrets of the credential for a repository, if it was found. They must not be shown.
    pub fn secrets(&self, repository: &str) -> Secrets {
        let search = self.searches.lock().get(repository).cloned();
        match search.as_ref().and_then(|search| search.get()) {
            Some(Ok(login)) => login.secrets.clone(),
            _ => Secrets::default(),
        }
    }

    /// The header with a token from the token server, or with a registry token from the
    /// credentials.
    async fn token(
        &self,
        repository: &str,
        scopes: Scopes,
        endpoint: Endpoint,
    ) -> Result<HeaderValue, AuthError> {
        self.check(repository, &endpoint.url).await?;
        let login = self.login(repository).await?;
        if let Some(Credential::RegistryToken(token)) = &login.found.credential {
            return bearer(token).ok_or_else(|| AuthError::Unsendable {
                host: self.host(),
                origin: login.found.to_string(),
                advice: self.advice(),
            });
        }
        let fetch = |scopes| {
            let (door, found) = (self.door.clone(), login.found.clone());
            TokenRequest { door, endpoint, scopes, found, secrets: login.secrets.clone() }.send()
        };
        self.tokens.get(repository, scopes, fetch).await
    }

    /// Checks that the token server may be asked. Over TLS any server may be asked. Over plain HTTP
    /// only a server on the registry's own host, or on this machine if the registry is here too.
    /// Any other server is asked only with `--plain-http` and without a password.
    async fn check(&self, repository: &str, token_server: &Url) -> Result<(), AuthError> {
        let server = Realm::of(token_server);
        if server.is_tls() {
            return Ok(());
        }
        let refused = AuthError::InsecureRealm { host: self.host(), server: server.to_string() };
        let Some(registry) = self.door.realm().filter(|registry| !registry.is_tls()) else {
            return Err(refused);
        };
        if server.is_same_host(&registry) || (server.is_loopback() && registry.is_loopback()) {
            return Ok(());
        }
        let is_anonymous = self.login(repository).await?.found.credential.is_none();
        if self.door.options().plain_http && is_anonymous { Ok(()) } else { Err(refused) }
    }

    async fn login(&self, repository: &str) -> Result<Arc<Login>, AuthError> {
        let search = self.searches.lock().entry(repository.to_owned()).or_default().clone();
        let login = search
            .get_or_init(|| async {
                let host = self.door.host();
                let found = Arc::new(self.sources.find(host, repository).await?);
                self.door.note(format!("{host}/{repository}: asking {found}"));
                let secrets = found.credential.as_ref().map(Credential::secrets);
                Ok(Arc::new(Login { found, secrets: secrets.unwrap_or_default() }))
            })
            .await;
        Ok(login.clone()?)
    }

    fn host(&self) -> String {
        self.door.host().to_owned()
    }

    fn advice(&self) -> String {
        hosts::log_in(self.door.host())
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(text) | Self::Anonymous(text) => f.write_str(text),
            Self::NotAsked => f.write_str("anonymously; the registry did not ask for a login"),
        }
    }
}

impl fmt::Debug for Authenticator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authenticator")
            .field("host", &self.door.host())
            .field("sources", &self.sources)
            .finish_non_exhaustive()
    }
}
