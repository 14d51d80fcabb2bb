//! The HTTP clients: one for small requests, over HTTP/2 where offered, and one for blob bodies,
//! over HTTP/1.1 connections of their own.
//!
//! One HTTP/2 connection shares a single receive window, about 1 MB in Go's server, which over a
//! round trip of 50 ms caps all uploads together at 20 MB/s. A hundred HEADs, on the other hand, go
//! through it in one round trip.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use reqwest::{Client, redirect};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use super::Error;
use super::dns::Resolver;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Whom to trust, and how to prove who we are, at the TLS level.
#[derive(Clone, Debug, Default)]
pub struct TlsOptions {
    /// A PEM file of certificate authorities trusted besides the system's. Default: none.
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
}

impl Clients {
    /// Clients for plain HTTP. They read no certificates, which takes 10 ms and more.
    pub fn plain(host: &str) -> Result<Self, Error> {
        let tls =
            tls_builder()?.with_root_certificates(RootCertStore::empty()).with_no_client_auth();
        let client = client(host, tls)?;
        // The same connections serve both: a blob's body goes over the one that its POST opened.
        Ok(Self { bodies: client.clone(), small: client })
    }

    /// Clients for HTTPS with the system's roots.
    pub fn tls(host: &str, options: &TlsOptions) -> Result<Self, Error> {
        let mut tls = tls_config(host, options)?;
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        let bodies = client(host, tls.clone())?;
        tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self { small: client(host, tls)?, bodies })
    }
}

fn client(host: &str, tls: ClientConfig) -> Result<Client, Error> {
    let mut builder = Client::builder()
        .tls_backend_preconfigured(tls)
        .user_agent(concat!("pushimg/", env!("CARGO_PKG_VERSION")))
        .redirect(redirect::Policy::none())
        .dns_resolver(Resolver::default())
        .connect_timeout(CONNECT_TIMEOUT)
        .pool_idle_timeout(Duration::from_secs(55))
        .tcp_keepalive(Duration::from_secs(30));
    if super::is_loopback(host) {
        // As Go's programs do: no proxy is asked for what is on this machine.
        builder = builder.no_proxy();
    }
    builder.build().map_err(|error| {
        Error::Settings(format!("cannot set up HTTP: {}", super::send::failure::innermost(&error)))
    })
}

fn tls_builder() -> Result<rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>, Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::Settings(format!("cannot set up TLS: {error}")))
}

fn tls_config(host: &str, options: &TlsOptions) -> Result<ClientConfig, Error> {
    let mut roots = RootCertStore::empty();
    let system = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(system.certs);
    let folder = HostFolder::find(host);
    for file in options.ca_file.iter().chain(&folder.authorities) {
        for certificate in certificates(file)? {
            roots.add(certificate).map_err(|error| unusable(file, &error.to_string()))?;
        }
    }
    let builder = tls_builder()?;
    let builder = if options.skip_verify {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(TrustAnyone::new()))
    } else {
        builder.with_root_certificates(roots)
    };
    match folder.identity {
        None => Ok(builder.with_no_client_auth()),
        Some((certificate, key)) => {
            let chain = certificates(&certificate)?;
            let secret = PrivateKeyDer::from_pem_file(&key)
                .map_err(|error| unusable(&key, &error.to_string()))?;
            builder
                .with_client_auth_cert(chain, secret)
                .map_err(|error| unusable(&certificate, &error.to_string()))
        }
    }
}

fn certificates(file: &PathBuf) -> Result<Vec<CertificateDer<'static>>, Error> {
    let found = CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| unusable(file, &error.to_string()))?;
    if found.is_empty() {
        return Err(unusable(file, "it holds no PEM certificate"));
    }
    Ok(found)
}

fn unusable(file: &std::path::Path, why: &str) -> Error {
    Error::Settings(format!("cannot use {} for TLS: {why}", file.display()))
}

/// What Docker's and containers' `certs.d/<host:port>/` folders hold for a registry: `*.crt` are
/// authorities, `*.cert` with its `*.key` is the client's identity.
#[derive(Default)]
struct HostFolder {
    authorities: Vec<PathBuf>,
    identity: Option<(PathBuf, PathBuf)>,
}

impl HostFolder {
    fn find(host: &str) -> Self {
        let folder = |variable| std::env::var_os(variable).map(PathBuf::from);
        let mut parents = Vec::new();
        if let Some(config) = folder("XDG_CONFIG_HOME") {
            parents.push(config.join("containers/certs.d"));
        }
        if let Some(home) = folder("HOME") {
            parents.push(home.join(".config/containers/certs.d"));
            parents.push(home.join(".docker/certs.d"));
        }
        parents.push("/etc/containers/certs.d".into());
        parents.push("/etc/docker/certs.d".into());

        let mut found = Self::default();
        for parent in parents {
            let Ok(entries) = std::fs::read_dir(parent.join(host)) else {
                continue;
            };
            let mut files: Vec<_> = entries.filter_map(|e| Some(e.ok()?.path())).collect();
            files.sort();
            for file in files {
                match file.extension().and_then(|e| e.to_str()) {
                    Some("crt") => found.authorities.push(file),
                    Some("cert") if found.identity.is_none() => {
                        let key = file.with_extension("key");
                        found.identity = Some((file, key));
                    }
                    _ => {}
                }
            }
        }
        found
    }
}

/// The verifier of `--insecure-skip-tls-verify`.
#[derive(Debug)]
struct TrustAnyone(rustls::crypto::CryptoProvider);

impl TrustAnyone {
    fn new() -> Self {
        Self(rustls::crypto::ring::default_provider())
    }
}

impl rustls::client::danger::ServerCertVerifier for TrustAnyone {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &rustls::pki_types::ServerName<'_>,
        _ocsp_response: &[u8],
        _now: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
