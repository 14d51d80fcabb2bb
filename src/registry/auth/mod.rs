//! Authentication at a registry: credentials, challenges, tokens.
//!
//! ```text
//!  flags, files, programs, environment ──► Sources::find ──► Found{credential, origin}
//!                                                               │
//!  401 with WWW-Authenticate ──► Challenge ──► Authenticator ◄──┘
//!                                                  │  ▲
//!                                 token server ◄───┘  └──── tokens, kept by scopes
//! ```
//!
//! An [`Authenticator`] is for one registry. It sends no credential before the registry has asked
//! for it. Credentials are sent only to this registry and to its token server, through the same
//! door as every other request.

mod authenticator;
mod cache;
mod challenge;
mod credential;
mod docker_config;
mod environment;
mod error;
pub(super) mod fly;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod helper;
mod realm;
mod scopes;
mod secret;
mod sources;
pub mod store;
#[cfg(test)]
mod tests;
mod token;

pub use authenticator::{Authenticator, Identity};
pub use challenge::Challenge;
pub use credential::{Credential, Found};
pub use environment::Environment;
pub use error::{AuthError, CredentialError, Denied};
pub use realm::Realm;
pub(super) use realm::is_loopback_host;
pub use scopes::Scopes;
pub use secret::Secret;
pub use sources::Sources;

pub use super::hosts::{TokenLogin, token_login};
