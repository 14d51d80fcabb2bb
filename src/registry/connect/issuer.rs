//! Who issued a certificate, and how strong its key and its signature are. webpki does not return
//! these parts of a certificate (RFC 5280, section 4.1).

use rustls::pki_types::{SignatureVerificationAlgorithm, TrustAnchor};

/// Whether a certificate's issuer is equal to its subject.
pub fn is_self_signed(certificate: &[u8]) -> bool {
    Certificate::read(certificate).is_some_and(|it| it.issuer == it.subject)
}

/// Whether a certificate was signed directly by a trusted authority. An authority with name
/// constraints does not count, because they are not checked here.
pub fn is_signed_by(
    certificate: &[u8],
    authorities: &[TrustAnchor<'_>],
    algorithms: &[&dyn SignatureVerificationAlgorithm],
) -> bool {
    let Some(certificate) = Certificate::read(certificate) else {
        return false;
    };
    let named = |authority: &&TrustAnchor<'_>| {
        authority.subject.as_ref() == certificate.issuer && authority.name_constraints.is_none()
    };
    authorities.iter().filter(named).any(|authority| {
        let signed = || {
            let (key_algorithm, rest) =
                value(SEQUENCE, authority.subject_public_key_info.as_ref())?;
            let key = bits(rest)?;
            let fits = |algorithm: &&&dyn SignatureVerificationAlgorithm| {
                algorithm.public_key_alg_id().as_ref() == key_algorithm
                    && algorithm.signature_alg_id().as_ref() == certificate.algorithm
            };
            algorithms.iter().filter(fits).find_map(|algorithm| {
                algorithm.verify_signature(key, certificate.signed, certificate.signature).ok()
            })
        };
        signed().is_some()
    })
}

/// What is too weak in a certificate, in words that follow "the certificate".
pub fn weakness(certificate: &[u8]) -> Option<String> {
    let certificate = Certificate::read(certificate)?;
    weak_key(certificate.key).or_else(|| {
        let (_, name) =
            WEAK_SIGNATURES.iter().find(|(prefix, _)| certificate.algorithm.starts_with(prefix))?;
        Some(format!("is signed with {name}, which is not secure"))
    })
}

/// What is too weak in the authority that a certificate names as its issuer.
pub fn weakness_of_issuer(certificate: &[u8], authorities: &[TrustAnchor<'_>]) -> Option<String> {
    let certificate = Certificate::read(certificate)?;
    let named = |it: &&TrustAnchor<'_>| it.subject.as_ref() == certificate.issuer;
    let mut named = authorities.iter().filter(named);
    named.find_map(|authority| weak_key(&authority.subject_public_key_info))
}

/// A message if a public key is an RSA key that is too short.
fn weak_key(key_info: &[u8]) -> Option<String> {
    let (algorithm, rest) = value(SEQUENCE, key_info)?;
    if !algorithm.starts_with(RSA) {
        return None;
    }
    let (numbers, _) = value(SEQUENCE, bits(rest)?)?;
    let (modulus, _) = value(INTEGER, numbers)?;
    let zeros: u32 = match modulus.iter().position(|byte| *byte != 0) {
        Some(place) => 8 * u32::try_from(place).ok()? + modulus[place].leading_zeros(),
        None => return None,
    };
    let length = 8 * u32::try_from(modulus.len()).ok()? - zeros;
    (length < LEAST_RSA)
        .then(|| format!("has an RSA key of {length} bits, and at least {LEAST_RSA} are needed"))
}

/// The shortest RSA key that ring accepts, in bits.
const LEAST_RSA: u32 = 2048;
/// The object identifier of RSA keys, with its tag.
const RSA: &[u8] = &[0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
/// The object identifiers of signatures that are not secure, with their tags.
const WEAK_SIGNATURES: [(&[u8], &str); 3] = [
    (&[0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x04], "MD5"),
    (&[0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x05], "SHA-1"),
    (&[0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x01], "SHA-1"),
];

/// The parts of a certificate, in DER.
struct Certificate<'a> {
    /// The signed bytes, with their tag.
    signed: &'a [u8],
    issuer: &'a [u8],
    subject: &'a [u8],
    /// The public key, its algorithm included.
    key: &'a [u8],
    algorithm: &'a [u8],
    signature: &'a [u8],
}

const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;

impl<'a> Certificate<'a> {
    fn read(der: &'a [u8]) -> Option<Self> {
        let (whole, _) = value(SEQUENCE, der)?;
        let (fields, rest) = value(SEQUENCE, whole)?;
        let signed = &whole[..whole.len() - rest.len()];
        let (algorithm, rest) = value(SEQUENCE, rest)?;
        let signature = bits(rest)?;
        // The version field is missing in version 1.
        let fields = value(VERSION, fields).map_or(fields, |(_, rest)| rest);
        let (_serial, fields) = value(INTEGER, fields)?;
        let (_algorithm, fields) = value(SEQUENCE, fields)?;
        let (issuer, fields) = value(SEQUENCE, fields)?;
        let (_validity, fields) = value(SEQUENCE, fields)?;
        let (subject, fields) = value(SEQUENCE, fields)?;
        let (key, _) = value(SEQUENCE, fields)?;
        Some(Self { signed, issuer, subject, key, algorithm, signature })
    }
}

/// The content of a value with this tag, and the bytes after the value.
fn value(tag: u8, der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&first, rest) = der.split_first()?;
    let (&short, mut rest) = rest.split_first()?;
    let mut length = usize::from(short);
    if short & 0x80 != 0 {
        let digits = usize::from(short & 0x7f);
        let (long, after) = rest.split_at_checked(digits)?;
        if digits > 4 {
            return None;
        }
        length = long.iter().fold(0, |length, digit| length << 8 | usize::from(*digit));
        rest = after;
    }
    if first != tag {
        return None;
    }
    rest.split_at_checked(length)
}

/// A bit string that consists of whole bytes.
fn bits(der: &[u8]) -> Option<&[u8]> {
    match value(BIT_STRING, der)?.0.split_first()? {
        (0, bits) => Some(bits),
        _ => None,
    }
}
