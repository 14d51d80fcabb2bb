//! How requests are sent. Every request goes through one [`door`](door::Door), whatever it is for:
//!
//! ```text
//!  Request ──► attempt: authorization, a second try with a new token ──► judge: answer or error
//!                 │                                                          ▲
//!                 ▼                                                          │
//!              redirect: follow, leaving our authorization behind ──► transport: one request, one
//!                                                                    answer, limits on time
//! ```
//!
//! Around it, `retry` says how often, `optional` how long what only saves work may take, `pause` makes all requests to a server wait together, `first`
//! lets one request ask before the others, and `mask` says what may be shown of it all.

pub mod attempt;
pub mod door;
pub mod failure;
mod first;
pub mod idle;
mod judge;
pub mod mask;
pub mod optional;
mod pause;
pub mod redirect;
pub mod request;
pub mod retry;
mod transport;
