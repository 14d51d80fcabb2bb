//! The HTTP clients: one for small requests, which uses HTTP/2 if the server offers it, and one for
//! blob bodies, which uses separate HTTP/1.1 connections.
//!
//! An HTTP/2 connection has a single receive window, about 1 MB in Go's server. With a round trip
//! of 50 ms it would limit all uploads together to 20 MB/s. A hundred HEAD requests, however, need
//! only one round trip over it.

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
/// How many idle connections to a host are kept. After many requests at once there may be hundreds,
/// and each needs memory.
const IDLE_CONNECTIONS: usize = 64;

/// Which servers to trust in TLS. Default: servers whose certificate is from an authority that the
/// system trusts.
#[derive(Clone, Debug, Default)]
pub struct TlsOptions {
    /// A PEM file with additional trusted certificates, of authorities or of servers. Default:
    /// none.
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
    /// The proxies that both clients use.
    pub proxies: Arc<Proxies>,
}

impl Clients {
    /// Clients for plain HTTP. They do not load certificates, which would take 10 ms or more.
    pub fn plain() -> Result<Self, Error> {
        let proxies = Arc::new(Proxies::from_env());
        let tls = tls_builder(TrustedRoots::Only {
            roots: RootCertStore::empty(),
            certificates: Default::default(),
            missing: None,
        })?
        .with_no_client_auth();
        let client = client(tls, &proxies)?;
        // One client for both, so that a blob's body reuses the connection of the POST that opened
        // its session.
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
