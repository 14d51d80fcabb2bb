//! Who we are to a registry: credentials, challenges, tokens.
//!
//! ```text
//!  flags, files, programs, environment ──► Sources::find ──► Found{credential, origin}
//!                                                               │
//!  401 with WWW-Authenticate ──► Challenge ──► Authenticator ◄──┘
//!                                                  │  ▲
//!                                 token server ◄───┘  └──── tokens, kept by scopes
//! ```
//!
//! An [`Authenticator`] stands for one registry. Nothing is sent before the registry has asked for
//! it; what is sent goes to this registry ([`Authenticator::realm`]) and to the token server that
//! it named, over TLS wherever the registry itself is spoken to over TLS.

mod authenticator;
mod cache;
mod challenge;
mod credential;
mod docker_config;
mod error;
mod fly;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod helper;
mod realm;
mod scopes;
mod secret;
mod sources;
#[cfg(test)]
mod tests;
mod token;
mod wire_log;

pub use authenticator::Authenticator;
pub use challenge::Challenge;
pub use credential::{Credential, Found};
pub use error::{AuthError, CredentialError, Denied};
pub use realm::Realm;
pub use scopes::Scopes;
pub use secret::Secret;
pub use sources::{Environment, Sources};
