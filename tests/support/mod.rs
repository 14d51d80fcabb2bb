//! The test laboratory: registries, a proxy with faults, and the real programs that read back.
//!
//! - [`registry`]: a small OCI registry in this process, also the `registry` example.
//! - [`docker_registry`]: Debian's `docker-registry`, plain, Basic, token or TLS.
//! - [`nginx`], [`haproxy`]: real gateways before a registry, with TLS, limits and refusals.
//! - [`socks`]: a SOCKS proxy; [`htpasswd`]: logins for `docker-registry`.
//! - [`sshd`]: OpenSSH's server, for `ssh://`.
//! - [`token_server`]: issues the signed tokens `docker-registry` accepts.
//! - [`proxy`]: stands between a client and a registry, counts, delays and breaks.
//! - [`archive`], [`run`], [`pull`]: make an image, push it with `pushimg`, read it back.
//! - [`layout`]: OCI layouts, made by hand and compared with a registry.
//! - [`nix_store`]: streamed images over store paths of this machine.
//! - [`put`]: what a push finds at a registry, made by hand; [`measure`]: a program's memory.
//!
//! All servers listen on 127.0.0.1 and run on threads of their own until their handle is dropped,
//! so both `#[test]` and `#[tokio::test]` can use them.

// Each test crate includes all of this and uses a part of it.
#![allow(dead_code, unused_imports)]

pub mod archive;
pub mod containerd;
pub mod docker_registry;
pub mod gateway;
pub mod haproxy;
pub mod htpasswd;
pub mod layout;
pub mod measure;
pub mod nginx;
pub mod nix_store;
pub mod proxy;
pub mod pull;
pub mod put;
pub mod registry;
pub mod run;
pub mod served;
pub mod server_program;
pub mod socks;
pub mod sshd;
pub mod tls;
pub mod token_server;

pub use docker_registry::{DockerRegistry, DockerRegistryOptions};
pub use gateway::GatewayOptions;
pub use haproxy::HaProxy;
pub use nginx::Nginx;
pub use proxy::{FaultProxy, ProxyOptions};
pub use registry::DevRegistry;
pub use socks::SocksProxy;
pub use token_server::{TokenOptions, TokenServer};
