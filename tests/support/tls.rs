//! A certificate authority for one test, which issues server and client certificates and writes
//! them as files.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Once, OnceLock};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose,
};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use tempfile::TempDir;

/// Makes ring the process's TLS provider; clients built without one need it.
pub fn install_provider() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // An error says that some other test installed one already.
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
}

/// An HTTP client that ignores the proxies in the environment and follows no redirects.
pub fn http_client() -> reqwest::Client {
    install_provider();
    reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .tls_certs_only([reqwest::Certificate::from_der(&unused_root()).expect("a certificate")])
        .build()
        .expect("an HTTP client")
}

/// A certificate that signed nothing. A client that trusts only this one need not read the
/// system's certificates, which takes unoptimised code longer than a small push.
pub fn unused_root() -> Vec<u8> {
    static ROOT: OnceLock<Vec<u8>> = OnceLock::new();
    ROOT.get_or_init(|| Authority::new().issuer.der().to_vec()).clone()
}

/// A certificate and its key as PEM files.
pub struct Identity {
    pub cert: PathBuf,
    pub key: PathBuf,
}

/// A certificate authority that no system trusts, with its files in a temporary folder.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    dir: TempDir,
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "pushimg test authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().expect("a key for the authority");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("a certificate authority");
        let dir = TempDir::new().expect("a folder for certificates");
        std::fs::write(dir.path().join("ca.crt"), issuer.pem()).expect("write ca.crt");
        Self { issuer, dir }
    }

    /// The authority's certificate, PEM, for `--ca-file` and the like.
    pub fn ca_file(&self) -> PathBuf {
        self.dir.path().join("ca.crt")
    }

    /// The folder that holds `ca.crt` and, once made, `client.cert` and `client.key`: the form of
    /// `certs.d/<host:port>/`.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A server certificate for 127.0.0.1, ::1 and localhost.
    pub fn server(&self) -> Identity {
        self.issue(
            &["127.0.0.1", "::1", "localhost"],
            ExtendedKeyUsagePurpose::ServerAuth,
            ["server.crt", "server.key"],
        )
    }

    /// A client certificate, written as `client.cert` and `client.key`.
    pub fn client(&self) -> Identity {
        self.issue(
            &["pushimg-client"],
            ExtendedKeyUsagePurpose::ClientAuth,
            ["client.cert", "client.key"],
        )
    }

    fn issue(&self, names: &[&str], usage: ExtendedKeyUsagePurpose, files: [&str; 2]) -> Identity {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("certificate names");
        params.extended_key_usages = vec![usage];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate().expect("a key");
        let cert =
            params.signed_by(&key, &self.issuer).expect("a certificate signed by the authority");
        let [cert_path, key_path] = files.map(|file| self.dir.path().join(file));
        std::fs::write(&cert_path, cert.pem()).expect("write a certificate");
        std::fs::write(&key_path, key.serialize_pem()).expect("write a key");
        Identity { cert: cert_path, key: key_path }
    }

    /// A server's TLS settings that offer HTTP/2 and HTTP/1.1; with `client_certificates` it takes
    /// only clients of this authority.
    pub fn server_config(&self, client_certificates: bool) -> Arc<rustls::ServerConfig> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .expect("protocol versions of ring");
        let builder = if client_certificates {
            let mut roots = rustls::RootCertStore::empty();
            roots.add(self.issuer.der().clone()).expect("the authority as a root");
            builder.with_client_cert_verifier(
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                    .build()
                    .expect("a verifier of client certificates"),
            )
        } else {
            builder.with_no_client_auth()
        };
        let names = ["127.0.0.1", "::1", "localhost"].map(str::to_owned);
        let mut params = CertificateParams::new(names).expect("certificate names");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate().expect("a key");
        let cert = params.signed_by(&key, &self.issuer).expect("a server certificate");
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let mut config = builder
            .with_single_cert(vec![cert.der().clone()], key)
            .expect("a certificate and its key");
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Arc::new(config)
    }
}
