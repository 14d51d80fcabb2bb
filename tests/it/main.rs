//! All integration tests in one crate. Each module tests one promise; `support` is the laboratory
//! that they share.
//!
//! `cargo test --test it push::` runs the tests of one module.

#[path = "../support/mod.rs"]
mod support;

mod action;
mod auth;
mod cache;
mod choice;
mod completions;
mod docker_archives;
mod documents;
mod errors;
mod every_push_ends;
mod found;
mod gateways;
mod hostile;
mod inspect;
mod interrupt;
mod json;
mod kill;
mod laboratory;
mod layout_blobs;
mod layout_source;
mod layouts;
mod login;
mod matrix;
mod nix2container;
mod nix_package;
mod nix_stream;
mod open_files;
mod other_registries;
mod parallel;
mod push;
mod referrers;
mod registry_behaviour;
mod remote_images;
mod reproducible;
mod reuse;
mod serve;
mod several;
mod soak;
mod sources_bad;
mod ssh;
mod stream_push;
mod tag;
mod tls_and_proxies;
mod together;
mod trust;
mod untagged;
mod what_is_put;
mod wire;
