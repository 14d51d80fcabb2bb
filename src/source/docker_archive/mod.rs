//! Docker archives: a tar of `manifest.json`, image configs and layers, as `docker save`,
//! `podman save`, Nix's dockerTools and many others write it (Docker image spec 1.2, "Combined
//! Image JSON + Filesystem Changeset Format").
//!
//! A plain tar in a file is read by seeking ([`seekable`]), everything else front to back
//! ([`streamed`]), or twice where the images must be known before their layers ([`read_twice`]).
//! They share how the images are put together ([`images`]).

mod error;
mod images;
pub mod read_twice;
pub mod seekable;
pub mod streamed;
mod unpack;
