//! Sends requests. Every request goes through a [`door`](door::Door):
//!
//! ```text
//!  Request ──► attempt: authorization, a second try with a new token ──► judge: answer or error
//!                 │                                                          ▲
//!                 ▼                                                          │
//!              redirect: follow, leaving our authorization behind ──► transport: one request, one
//!                                                                    answer, limits on time
//! ```
//!
//! - `retry`: how often a request is sent.
//! - `optional`: how long requests may take that only save work.
//! - `pause`: makes all requests to a server wait together.
//! - `first`: lets one request go before the others.
//! - `mask`: hides secrets in everything that is shown.

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
