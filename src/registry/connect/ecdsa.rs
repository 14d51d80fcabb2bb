//! Verifies the ECDSA signatures that ring does not support: keys on the curve P-521, and SHA-512
//! with the other two curves. OpenSSL and Go support them, so private authorities use them.

use std::sync::LazyLock;

use p521::ecdsa::signature::hazmat::PrehashVerifier;
use rustls::SignatureScheme;
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::pki_types::{
    AlgorithmIdentifier, InvalidSignature, SignatureVerificationAlgorithm, alg_id,
};
use sha2::{Digest, Sha256, Sha384, Sha512};

/// ring, with these algorithms added.
pub fn provider() -> CryptoProvider {
    CryptoProvider {
        signature_verification_algorithms: *ALGORITHMS,
        ..rustls::crypto::ring::default_provider()
    }
}

/// Verifies a signature: key, hash, signature.
type Verify = fn(&[u8], &[u8], &[u8]) -> Option<()>;

/// One curve with one hash function.
#[derive(Debug)]
struct Ecdsa {
    key: AlgorithmIdentifier,
    signature: AlgorithmIdentifier,
    hash: fn(&[u8]) -> Vec<u8>,
    verify: Verify,
}

static P256_SHA512: Ecdsa = Ecdsa {
    key: alg_id::ECDSA_P256,
    signature: alg_id::ECDSA_SHA512,
    hash: hash::<Sha512>,
    verify: p256,
};
static P384_SHA512: Ecdsa = Ecdsa {
    key: alg_id::ECDSA_P384,
    signature: alg_id::ECDSA_SHA512,
    hash: hash::<Sha512>,
    verify: p384,
};
static P521_SHA256: Ecdsa = Ecdsa {
    key: alg_id::ECDSA_P521,
    signature: alg_id::ECDSA_SHA256,
    hash: hash::<Sha256>,
    verify: p521,
};
static P521_SHA384: Ecdsa = Ecdsa {
    key: alg_id::ECDSA_P521,
    signature: alg_id::ECDSA_SHA384,
    hash: hash::<Sha384>,
    verify: p521,
};
static P521_SHA512: Ecdsa = Ecdsa {
    key: alg_id::ECDSA_P521,
    signature: alg_id::ECDSA_SHA512,
    hash: hash::<Sha512>,
    verify: p521,
};

fn hash<D: Digest>(message: &[u8]) -> Vec<u8> {
    D::digest(message).to_vec()
}

fn p256(key: &[u8], hash: &[u8], signature: &[u8]) -> Option<()> {
    use p256::ecdsa::{Signature, VerifyingKey};
    let key = VerifyingKey::from_sec1_bytes(key).ok()?;
    key.verify_prehash(hash, &Signature::from_der(signature).ok()?).ok()
}

fn p384(key: &[u8], hash: &[u8], signature: &[u8]) -> Option<()> {
    use p384::ecdsa::{Signature, VerifyingKey};
    let key = VerifyingKey::from_sec1_bytes(key).ok()?;
    key.verify_prehash(hash, &Signature::from_der(signature).ok()?).ok()
}

fn p521(key: &[u8], hash: &[u8], signature: &[u8]) -> Option<()> {
    use p521::ecdsa::{Signature, VerifyingKey};
    let key = VerifyingKey::from_sec1_bytes(key).ok()?;
    key.verify_prehash(hash, &Signature::from_der(signature).ok()?).ok()
}

impl SignatureVerificationAlgorithm for Ecdsa {
    fn verify_signature(
        &self,
        public_key: &[u8],
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), InvalidSignature> {
        (self.verify)(public_key, &(self.hash)(message), signature).ok_or(InvalidSignature)
    }

    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        self.key
    }

    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        self.signature
    }
}

static ADDED: [&dyn SignatureVerificationAlgorithm; 5] =
    [&P521_SHA512, &P384_SHA512, &P256_SHA512, &P521_SHA256, &P521_SHA384];

/// Built once, because rustls requires lists that live as long as the program.
static ALGORITHMS: LazyLock<WebPkiSupportedAlgorithms> = LazyLock::new(|| {
    let ring = rustls::crypto::ring::default_provider().signature_verification_algorithms;
    let mut mapping = ring.mapping.to_vec();
    // In TLS 1.2 the scheme names only the hash. In TLS 1.3 the first algorithm is used.
    for (scheme, algorithms) in &mut mapping {
        let added = match *scheme {
            SignatureScheme::ECDSA_NISTP256_SHA256 => &ADDED[3..4],
            SignatureScheme::ECDSA_NISTP384_SHA384 => &ADDED[4..],
            _ => &[],
        };
        *algorithms = Vec::leak([*algorithms, added].concat());
    }
    mapping.push((SignatureScheme::ECDSA_NISTP521_SHA512, &ADDED[..3]));
    WebPkiSupportedAlgorithms {
        all: Vec::leak([ring.all, &ADDED].concat()),
        mapping: Vec::leak(mapping),
    }
});
