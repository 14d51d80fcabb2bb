//! Who may do what: anonymous, Basic, or opaque tokens with scopes from the registry's own token
//! endpoint.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use axum::http::{HeaderMap, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::error::Refusal;

/// How a registry authenticates clients.
#[derive(Clone, Debug)]
pub enum Auth {
    Anonymous,
    Basic {
        user: String,
        password: String,
    },
    /// Tokens from `/token`, by GET with Basic or by POST; the password is the refresh token too.
    Bearer {
        user: String,
        password: String,
        lifetime: Duration,
    },
}

struct Grant {
    scopes: Vec<Scope>,
    until: Instant,
}

/// `repository:<name>:<actions>`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    pub name: String,
    pub actions: Vec<String>,
}

impl Scope {
    /// Reads the scopes in one `scope` parameter, which are separated by spaces. Scopes that are
    /// not for repositories are ignored.
    pub fn parse_all(text: &str) -> Vec<Self> {
        text.split_ascii_whitespace()
            .filter_map(|scope| {
                let rest = scope.strip_prefix("repository:")?;
                let (name, actions) = rest.rsplit_once(':')?;
                Some(Self {
                    name: name.to_owned(),
                    actions: actions.split(',').map(str::to_owned).collect(),
                })
            })
            .collect()
    }
}

/// Checks requests against the auth of a registry.
pub struct Gate {
    auth: Auth,
    realm: String,
    service: String,
    grants: Mutex<HashMap<String, Grant>>,
}

impl Gate {
    pub fn new(auth: Auth, addr: SocketAddr) -> Self {
        Self {
            auth,
            realm: format!("http://{addr}/token"),
            service: addr.to_string(),
            grants: Mutex::default(),
        }
    }

    /// Lets a request pass that needs these actions on a repository; `None` is the API's base.
    pub fn admit(&self, headers: &HeaderMap, need: Option<(&str, &[&str])>) -> Result<(), Refusal> {
        match &self.auth {
            Auth::Anonymous => Ok(()),
            Auth::Basic { user, password } => {
                if basic_login(headers).is_some_and(|(u, p)| u == *user && p == *password) {
                    Ok(())
                } else {
                    let challenge = "Basic realm=\"pushimg development registry\"";
                    Err(Refusal::unauthorized(challenge, "authentication required"))
                }
            }
            Auth::Bearer { .. } => self.admit_token(headers, need),
        }
    }

    fn admit_token(
        &self,
        headers: &HeaderMap,
        need: Option<(&str, &[&str])>,
    ) -> Result<(), Refusal> {
        let mut challenge = format!("Bearer realm=\"{}\",service=\"{}\"", self.realm, self.service);
        if let Some((name, actions)) = need {
            challenge.push_str(&format!(",scope=\"repository:{name}:{}\"", actions.join(",")));
        }
        let Some(token) = headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "))
        else {
            return Err(Refusal::unauthorized(&challenge, "authentication required"));
        };
        let grants = self.grants.lock().expect("no holder panics");
        let Some(grant) = grants.get(token).filter(|grant| grant.until > Instant::now()) else {
            challenge.push_str(",error=\"invalid_token\"");
            return Err(Refusal::unauthorized(&challenge, "the token has expired"));
        };
        if let Some((name, actions)) = need {
            let granted = |action: &&str| {
                grant.scopes.iter().any(|scope| {
                    scope.name == name && scope.actions.iter().any(|have| have == action)
                })
            };
            if !actions.iter().all(granted) {
                challenge.push_str(",error=\"insufficient_scope\"");
                return Err(Refusal::unauthorized(&challenge, "the token does not allow it"));
            }
        }
        Ok(())
    }

    /// Answers the token endpoint; `form` holds the query of a GET or the body of a POST.
    ///
    /// Without credentials, anyone gets a token to pull.
    pub fn issue(&self, headers: &HeaderMap, form: &[(String, String)]) -> Result<Value, Refusal> {
        let Auth::Bearer { user, password, lifetime } = &self.auth else {
            return Err(Refusal::unsupported("this registry issues no tokens"));
        };
        let field =
            |name: &str| form.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
        let refused = || {
            let challenge = "Basic realm=\"pushimg development registry\"";
            Refusal::unauthorized(challenge, "incorrect username or password")
        };
        let known = match field("grant_type") {
            Some("refresh_token") => field("refresh_token") == Some(password),
            Some("password") => {
                field("username") == Some(user) && field("password") == Some(password)
            }
            Some(_) => false,
            None => match basic_login(headers) {
                Some((u, p)) if u == *user && p == *password => true,
                Some(_) => return Err(refused()),
                None => false,
            },
        };
        if field("grant_type").is_some() && !known {
            return Err(refused());
        }
        let mut scopes: Vec<Scope> = form
            .iter()
            .filter(|(key, _)| key == "scope")
            .flat_map(|(_, value)| Scope::parse_all(value))
            .collect();
        if !known {
            for scope in &mut scopes {
                scope.actions.retain(|action| action == "pull");
            }
        }
        let token = format!("{:032x}{:032x}", rand::random::<u128>(), rand::random::<u128>());
        let grant = Grant { scopes, until: Instant::now() + *lifetime };
        self.grants.lock().expect("no holder panics").insert(token.clone(), grant);
        Ok(json!({ "token": token, "access_token": token, "expires_in": lifetime.as_secs() }))
    }

    pub fn expire_tokens(&self) {
        self.grants.lock().expect("no holder panics").clear();
    }
}

/// The user and password of a Basic header.
pub fn basic_login(headers: &HeaderMap) -> Option<(String, String)> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let decoded = STANDARD.decode(value.strip_prefix("Basic ")?).ok()?;
    let text = String::from_utf8(decoded).ok()?;
    let (user, password) = text.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}
