//! Which server certificates are accepted, and the error messages for the others.
//!
//! webpki checks the chain to a trusted authority according to RFC 5280. OpenSSL and Go accept two
//! more kinds, which people make with `openssl req -x509`: a certificate that is itself trusted,
//! and an authority's certificate (CA:TRUE) that a server uses as its own. Their names, dates and
//! signatures are checked like those of other certificates.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, OtherError, RootCertStore, SignatureScheme};

use super::issuer;

const ANOTHER_CERTIFICATE: &str = "the registry needs another certificate; to go on without this \
                                   check, there is --insecure-skip-tls-verify";
/// How many names of a certificate a message shows.
const MAX_NAMES: usize = 8;

/// How a server's certificate is verified.
#[derive(Debug)]
pub struct Verifier {
    algorithms: WebPkiSupportedAlgorithms,
    trust: TrustedRoots,
}

/// What a server's certificate must be signed by.
#[derive(Debug)]
pub enum TrustedRoots {
    /// One of these certificates.
    Only {
        /// As authorities.
        roots: RootCertStore,
        /// The same certificates, because a server may use one of them directly.
        certificates: HashSet<CertificateDer<'static>>,
        /// Why some of the system's certificates are missing, for messages.
        missing: Option<String>,
    },
    /// Any certificate is accepted: `--insecure-skip-tls-verify`.
    Anyone,
}

/// Why a certificate was rejected, and what to do about it.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{reason}")]
pub struct CertificateProblem {
    reason: String,
    /// What to do.
    pub hint: String,
}

impl Verifier {
    pub fn new(provider: &CryptoProvider, trust: TrustedRoots) -> Self {
        Self { algorithms: provider.signature_verification_algorithms, trust }
    }

    fn verify(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<(), rustls::Error> {
        let TrustedRoots::Only { roots, certificates, .. } = &self.trust else {
            return Ok(());
        };
        let parsed = ParsedCertificate::try_from(certificate)?;
        let algorithms = self.algorithms.all;
        let chain = verify_server_cert_signed_by_trust_anchor(
            &parsed,
            roots,
            intermediates,
            now,
            algorithms,
        );
        match chain {
            Err(rustls::Error::InvalidCertificate(error))
                if is_about_issuer(&error)
                    && (certificates.contains(certificate)
                        || issuer::is_signed_by(certificate, &roots.roots, algorithms)) => {}
            other => other?,
        }
        verify_server_name(&parsed, name)
    }

    /// Why a signature could not be verified, if a certificate is too weak.
    fn weakness(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
    ) -> Option<CertificateProblem> {
        let TrustedRoots::Only { roots, .. } = &self.trust else { return None };
        let own = || issuer::weakness(certificate).map(|what| format!("its certificate {what}"));
        let between = || {
            let what = intermediates.iter().find_map(|it| issuer::weakness(it))?;
            Some(format!("a certificate between its own and its authority's {what}"))
        };
        let issuer = || {
            let last = intermediates.last().unwrap_or(certificate);
            let what = issuer::weakness_of_issuer(last, &roots.roots)?;
            Some(format!("the certificate of its authority {what}"))
        };
        let reason = own().or_else(between).or_else(issuer)?;
        Some(CertificateProblem { reason, hint: ANOTHER_CERTIFICATE.to_owned() })
    }

    /// The same check for a signature in the handshake.
    fn handshake_problem(
        &self,
        certificate: &CertificateDer<'_>,
        error: rustls::Error,
    ) -> rustls::Error {
        match self.weakness(certificate, &[]) {
            Some(problem) => CertificateError::Other(OtherError(Arc::new(problem))).into(),
            None => error,
        }
    }

    fn problem(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        error: CertificateError,
    ) -> CertificateProblem {
        if is_about_signature(&error)
            && let Some(problem) = self.weakness(certificate, intermediates)
        {
            return problem;
        }
        let host = name.to_str();
        let missing = match &self.trust {
            TrustedRoots::Only { missing: Some(missing), .. } => format!("; {missing}"),
            _ => String::new(),
        };
        let trust = format!(
            "if you trust that registry, name its certificate, or that of its authority, with \
             --ca-file FILE{missing}; for plain HTTP there is --plain-http"
        );
        let clock = format!(
            "check the clock of this machine, where it is {} now; else the registry needs a new \
             certificate",
            date(UnixTime::now().as_secs())
        );
        let (reason, hint) = match error {
            // If it is not trusted, report it like any other unknown certificate.
            CertificateError::Other(error) if is_authority(&error) => {
                let error = CertificateError::UnknownIssuer;
                return self.problem(certificate, intermediates, name, error);
            }
            CertificateError::ExpiredContext { not_after, .. } => {
                (format!("its certificate expired on {}", date(not_after.as_secs())), clock)
            }
            CertificateError::NotValidYetContext { not_before, .. } => (
                format!("its certificate is not valid before {}", date(not_before.as_secs())),
                clock,
            ),
            CertificateError::NotValidForNameContext { presented, .. } => {
                wrong_name(&host, &presented)
            }
            CertificateError::UnknownIssuer if issuer::is_self_signed(certificate) => {
                ("its certificate is self-signed and not among the trusted ones".to_owned(), trust)
            }
            CertificateError::UnknownIssuer => (
                "its certificate was issued by an authority that is not trusted here".to_owned(),
                format!(
                    "{trust}; if its authority is a well-known one, the registry does not send all \
                     certificates that lead to it"
                ),
            ),
            CertificateError::BadSignature => (
                "its certificate names a trusted authority and was not signed with that \
                 authority's key"
                    .to_owned(),
                format!("the authority may have got a new certificate; {trust}"),
            ),
            CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => (
                "its certificate is not one for servers (its extended key usage lacks serverAuth)"
                    .to_owned(),
                "the registry needs a certificate for servers".to_owned(),
            ),
            other => (
                format!("its certificate cannot be verified: {}", words(other)),
                ANOTHER_CERTIFICATE.to_owned(),
            ),
        };
        CertificateProblem { reason, hint }
    }
}

/// Whether the error is about a signature.
fn is_about_signature(error: &CertificateError) -> bool {
    matches!(
        error,
        CertificateError::BadSignature
            | CertificateError::UnsupportedSignatureAlgorithmContext { .. }
            | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. }
    )
}

/// Whether the error is about the chain to an authority. webpki checks the certificate's own dates
/// before that, so these are correct.
fn is_about_issuer(error: &CertificateError) -> bool {
    match error {
        CertificateError::UnknownIssuer => true,
        CertificateError::Other(error) => is_authority(error),
        error => is_about_signature(error),
    }
}

/// Whether the error is that a server uses a certificate with CA:TRUE.
fn is_authority(error: &OtherError) -> bool {
    // rustls does not export webpki's own error type, so compare the text.
    error.0.to_string() == "CaUsedAsEndEntity"
}

/// Reason and hint for a certificate that is for other names. `presented` has webpki's text for
/// each name: `DnsName("a.example")`, `IpAddress(10.0.0.1)`.
fn wrong_name(host: &str, presented: &[String]) -> (String, String) {
    let kind = if host.parse::<std::net::IpAddr>().is_ok() { "IP" } else { "DNS" };
    if presented.is_empty() {
        return (
            format!("its certificate names no host at all, so not {host}"),
            format!(
                "a common name (CN) does not count; the certificate needs \
                 subjectAltName={kind}:{host} (openssl req -addext)"
            ),
        );
    }
    if presented.iter().any(|name| *name == format!("DnsName(\"{host}\")")) {
        return (
            format!("its certificate has {host} as a DNS name, not as an address"),
            format!("the certificate needs subjectAltName={kind}:{host}"),
        );
    }
    let mut names: Vec<_> = presented
        .iter()
        .map(|name| {
            let inner = name.split_once('(').map_or(name.as_str(), |(_, inner)| inner);
            inner.trim_end_matches(')').trim_matches('"')
        })
        .take(MAX_NAMES)
        .collect();
    if presented.len() > MAX_NAMES {
        names.push("…");
    }
    (
        format!("its certificate is for {}, not for {host}", names.join(", ")),
        format!(
            "use one of these names, or give the registry a certificate with \
             subjectAltName={kind}:{host}"
        ),
    )
}

/// Writes `UnsupportedCriticalExtension` as `unsupported critical extension`.
fn words(error: CertificateError) -> String {
    let name = match error {
        CertificateError::Other(error) => error.0.to_string(),
        error => format!("{error:?}"),
    };
    let name = name.split(|c: char| !c.is_ascii_alphanumeric()).next().unwrap_or_default();
    let mut words = String::new();
    for c in name.strip_suffix("Context").unwrap_or(name).chars() {
        if c.is_ascii_uppercase() && !words.is_empty() {
            words.push(' ');
        }
        words.push(c.to_ascii_lowercase());
    }
    words
}

fn date(seconds: u64) -> impl fmt::Display {
    let latest = UNIX_EPOCH + Duration::from_secs(253_402_300_799);
    let time = UNIX_EPOCH.checked_add(Duration::from_secs(seconds)).unwrap_or(latest);
    humantime::format_rfc3339_seconds(SystemTime::min(time, latest))
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match self.verify(end_entity, intermediates, server_name, now) {
            Ok(()) => Ok(ServerCertVerified::assertion()),
            Err(rustls::Error::InvalidCertificate(error)) => {
                let problem = self.problem(end_entity, intermediates, server_name, error);
                Err(CertificateError::Other(OtherError(Arc::new(problem))).into())
            }
            Err(other) => Err(other),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        // If any server is accepted, its signature proves nothing.
        if matches!(self.trust, TrustedRoots::Anyone) {
            return Ok(HandshakeSignatureValid::assertion());
        }
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
            .map_err(|error| self.handshake_problem(certificate, error))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        if matches!(self.trust, TrustedRoots::Anyone) {
            return Ok(HandshakeSignatureValid::assertion());
        }
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
            .map_err(|error| self.handshake_problem(certificate, error))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
