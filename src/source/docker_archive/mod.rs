//! Docker archives: a tar of `manifest.json`, image configs and layers, as `docker save`,
//! `podman save`, Nix's dockerTools and many others write it (Docker image spec 1.2, "Combined
//! Image JSON + Filesystem Changeset Format").
//!
//! A plain tar in a file is read by seeking ([`seekable`]), everything else front to back
//! ([`streamed`]); the two share how the images are put together ([`images`]).

mod images;
pub mod seekable;
pub mod streamed;

/// The longest `manifest.json` that is read: some 300 images of 128 layers.
const MAX_MANIFEST_BYTES: u64 = 4 << 20;

/// What all JSON of one archive that is held in memory may add up to.
const MAX_JSON_BYTES: u64 = 32 << 20;

/// More images than anybody saves in one archive.
const MAX_IMAGES: usize = 1024;
