//! The HTTP clients: one for small requests, over HTTP/2 where offered, and one for blob bodies,
//! over HTTP/1.1 connections of their own.
//!
//! One HTTP/2 connection shares a single receive window, about 1 MB in Go's server, which over a
//! round trip of 50 ms caps all uploads together at 20 MB/s. A hundred HEADs, on the other hand, go
//! through it in one round trip.

mod certificates;
mod dns;
mod ecdsa;
mod issuer;
pub mod problem;
pub mod proxy;
mod verify;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use reqwest::{Client, redirect};
use rustls::{ClientConfig, RootCertStore};

use self::certificates::HostFolder;
use self::dns::Resolver;
use self::proxy::Proxies;
use self::verify::{TrustedRoots, Verifier};
use super::error::Error;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How many connections to a host are kept for later. After a burst of requests there are hundreds,
/// and each takes memory.
const IDLE_CONNECTIONS: usize = 64;

/// Which servers to trust at the TLS level. Default: those with a certificate of an authority that
/// the system trusts.
#[derive(Clone, Debug, Default)]
pub struct TlsOptions {
    /// A PEM file of certificates trusted besides the system's, of authorities or of servers
    /// themselves. Default: none.
    pub ca_file: Option<PathBuf>,
    /// Trust any certificate. Default: no.
    pub skip_verify: bool,
}

/// The clients for one registry.
#[derive(Clone, Debug)]
pub struct Clients {
    /// For HEADs, manifests and tokens.
    pub small: Client,
    /// For blob bodies.
    pub bodies: Client,
    /// The proxies that both use.
    pub proxies: Arc<Proxies>,
}

impl Clients {
    /// Clients for plain HTTP. They read no certificates, which takes 10 ms and more.
    pub fn plain() -> Result<Self, Error> {
        let proxies = Arc::new(Proxies::from_env());
        let tls = tls_builder(TrustedRoots::Only {
            roots: RootCertStore::empty(),
            certificates: Default::default(),
            missing: None,
        })?
        .with_no_client_auth();
        let client = client(tls, &proxies)?;
        // The same connections serve both: a blob's body goes over the one that its POST opened.
        Ok(Self { bodies: client.clone(), small: client, proxies })
    }

    /// Clients for HTTPS. `host` names the registry's folders in `certs.d`.
    pub fn tls(host: &str, options: &TlsOptions) -> Result<Self, Error> {
        let proxies = Arc::new(Proxies::from_env());
        let mut tls = tls_config(host, options)?;
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        let bodies = client(tls.clone(), &proxies)?;
        tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self { small: client(tls, &proxies)?, bodies, proxies })
    }
}

fn client(tls: ClientConfig, proxies: &Arc<Proxies>) -> Result<Client, Error> {
    Client::builder()
        .tls_backend_preconfigured(tls)
        .user_agent(concat!("pushimg/", env!("CARGO_PKG_VERSION")))
        .redirect(redirect::Policy::none())
        .dns_resolver(Resolver::default())
        .connect_timeout(CONNECT_TIMEOUT)
        .pool_idle_timeout(Duration::from_secs(55))
        .pool_max_idle_per_host(IDLE_CONNECTIONS)
        .tcp_keepalive(Duration::from_secs(30))
        .proxy(proxies.rule())
        .build()
        .map_err(|error| {
            Error::Settings(format!("cannot set up HTTP: {}", problem::innermost(&error)))
        })
}

fn tls_builder(
    trust: TrustedRoots,
) -> Result<rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert>, Error> {
    let provider = Arc::new(ecdsa::provider());
    let verifier = Arc::new(Verifier::new(&provider, trust));
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::Settings(format!("cannot set up TLS: {error}")))?;
    Ok(builder.dangerous().with_custom_certificate_verifier(verifier))
}

fn tls_config(host: &str, options: &TlsOptions) -> Result<ClientConfig, Error> {
    let folder = HostFolder::find(host);
    let builder = tls_builder(certificates::trust(options, &folder)?)?;
    let Some((certificate, key)) = folder.identity else {
        return Ok(builder.with_no_client_auth());
    };
    let (chain, secret) = certificates::identity(&certificate, &key)?;
    builder.with_client_auth_cert(chain, secret).map_err(|_| {
        let why =
            format!("its key {} does not belong to it, or is of an unknown kind", key.display());
        certificates::unusable(&certificate, &why)
    })
}
