//! A credential, and where it was found.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::HeaderValue;
use zeroize::Zeroizing;

use super::super::send::mask::Secrets;
use super::secret::Secret;

/// The user name by which credential programs say that the password is an identity token.
const IDENTITY_TOKEN_USER: &str = "<token>";

/// What proves to a registry, or to its token server, who we are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credential {
    /// User and password.
    Basic {
        /// Shown in messages.
        username: String,
        /// Never shown.
        password: Secret,
    },
    /// A refresh token, which the token server changes into bearer tokens.
    IdentityToken(Secret),
    /// A bearer token as such; no token server is asked.
    RegistryToken(Secret),
}

impl Credential {
    /// What a user name and its password are; the name `<token>` marks an identity token.
    pub(super) fn from_login(username: impl Into<String>, password: Secret) -> Self {
        let username = username.into();
        if username == IDENTITY_TOKEN_USER {
            Self::IdentityToken(password)
        } else {
            Self::Basic { username, password }
        }
    }

    /// Everything in it that must not be shown.
    pub(super) fn secrets(&self) -> Secrets {
        match self {
            Self::Basic { username, password } => Secrets::of(password.expose(), Some(username)),
            Self::IdentityToken(token) | Self::RegistryToken(token) => {
                Secrets::of(token.expose(), None)
            }
        }
    }
}

/// Whose it is, for messages: `the credentials of user x`.
impl fmt::Display for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Basic { username, .. } => write!(f, "the credentials of user {username}"),
            Self::IdentityToken(_) => f.write_str("the identity token"),
            Self::RegistryToken(_) => f.write_str("the registry token"),
        }
    }
}

/// What a search for credentials came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The credential; `None`: we are anonymous.
    pub credential: Option<Credential>,
    /// For messages: `from /root/.docker/config.json`, `from --username`, or
    /// `no credentials for HOST were found in …` with every place that was looked at.
    pub origin: String,
}

/// Who we are, for messages: `with the credentials of user x from /root/.docker/config.json`, or
/// `anonymously; no credentials for HOST were found in …`.
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

/// `Authorization: Basic …` (RFC 7617), which no debug format shows.
pub(super) fn basic(username: &str, password: &Secret) -> HeaderValue {
    let text = Zeroizing::new(format!("Basic {}", user_pass(username, password).as_str()));
    let mut value = HeaderValue::from_str(&text)
        // Letters, digits, `+`, `/`, `=` and a space are all that it can hold.
        .expect("base64 is valid in a header");
    value.set_sensitive(true);
    value
}

/// `Authorization: Bearer …` (RFC 6750), which no debug format shows; `None` where the token
/// holds what no header may hold.
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
