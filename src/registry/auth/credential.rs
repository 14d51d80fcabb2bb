//! A credential, and where it was found.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::HeaderValue;
use zeroize::Zeroizing;

use super::super::send::mask::Secrets;
use super::secret::Secret;

/// The user name that marks the password as an identity token.
const IDENTITY_TOKEN_USER: &str = "<token>";

/// A credential for a registry or its token server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credential {
    /// User and password.
    Basic {
        /// It is shown in messages.
        username: String,
        /// It is never shown.
        password: Secret,
    },
    /// A refresh token, which the token server exchanges for bearer tokens.
    IdentityToken(Secret),
    /// A bearer token that is sent directly; no token server is asked.
    RegistryToken(Secret),
}

impl Credential {
    /// Makes a credential of a user name and a password. The name `<token>` marks an identity
    /// token.
    pub(super) fn from_login(username: impl Into<String>, password: Secret) -> Self {
        let username = username.into();
        if username == IDENTITY_TOKEN_USER {
            Self::IdentityToken(password)
        } else {
            Self::Basic { username, password }
        }
    }

    /// The texts in it that must not be shown.
    pub(super) fn secrets(&self) -> Secrets {
        match self {
            Self::Basic { username, password } => Secrets::of(password.expose(), Some(username)),
            Self::IdentityToken(token) | Self::RegistryToken(token) => {
                Secrets::of(token.expose(), None)
            }
        }
    }
}

/// The owner, for messages: `the credentials of user x`.
impl fmt::Display for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Basic { username, .. } => write!(f, "the credentials of user {username}"),
            Self::IdentityToken(_) => f.write_str("the identity token"),
            Self::RegistryToken(_) => f.write_str("the registry token"),
        }
    }
}

/// The result of a search for credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The credential; `None` for anonymous access.
    pub credential: Option<Credential>,
    /// Where it was found, for messages: `from /root/.docker/config.json`, `from --username`, or
    /// `no credentials for HOST were found in …` with every place that was searched.
    pub origin: String,
}

/// For messages: `with the credentials of user x from /root/.docker/config.json`, or `anonymously;
/// no credentials for HOST were found in …`.
impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.credential {
            Some(credential) => write!(f, "with {credential} {}", self.origin),
            None => write!(f, "anonymously; {}", self.origin),
        }
    }
}

fn user_pass(username: &str, password: &Secret) -> Zeroizing<String> {
    let plain = Zeroizing::new(format!("{username}:{}", password.expose()));
    Zeroizing::new(STANDARD.encode(plain.as_bytes()))
}

/// `Authorization: Basic …` (RFC 7617). The value is marked as sensitive, so debug output hides it.
pub(super) fn basic(username: &str, password: &Secret) -> HeaderValue {
    let text = Zeroizing::new(format!("Basic {}", user_pass(username, password).as_str()));
    let mut value = HeaderValue::from_str(&text)
        // It contains only letters, digits, `+`, `/`, `=` and a space.
        .expect("base64 is valid in a header");
    value.set_sensitive(true);
    value
}

/// `Authorization: Bearer …` (RFC 6750). The value is marked as sensitive, so debug output hides
/// it. `None` if the token contains a character that is not allowed in a header.
pub(super) fn bearer(token: &Secret) -> Option<HeaderValue> {
    let text = Zeroizing::new(format!("Bearer {}", token.expose()));
    let clean = !token.is_empty() && token.expose().bytes().all(|b| b.is_ascii_graphic());
    let mut value = HeaderValue::from_str(&text).ok().filter(|_| clean)?;
    value.set_sensitive(true);
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_right_and_are_not_shown() {
        let value = basic("Aladdin", &Secret::new("open sesame"));
        assert_eq!(value.to_str().unwrap(), "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
        assert_eq!(format!("{value:?}"), "Sensitive");

        let value = bearer(&Secret::new("abc.def")).unwrap();
        assert_eq!(value.to_str().unwrap(), "Bearer abc.def");
        assert_eq!(format!("{value:?}"), "Sensitive");
    }

    #[test]
    fn a_token_cannot_bring_in_other_headers() {
        for token in ["", "a\r\nHost: evil", "a b", "a\0", "é"] {
            assert_eq!(bearer(&Secret::new(token)), None, "{token:?}");
        }
    }

    #[test]
    fn messages_name_the_user_and_the_place_but_no_secret() {
        let found = |credential| Found { credential, origin: "from /f".into() };
        let basic = Credential::from_login("x", Secret::new("hunter2"));
        let identity = Credential::from_login("<token>", Secret::new("hunter2"));
        assert_eq!(identity, Credential::IdentityToken(Secret::new("hunter2")));
        assert_eq!(found(Some(basic)).to_string(), "with the credentials of user x from /f");
        assert_eq!(found(Some(identity)).to_string(), "with the identity token from /f");
    }
}
