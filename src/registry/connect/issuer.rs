//! Who issued a certificate: the little of its structure that webpki does not tell (RFC 5280,
//! section 4.1).

use rustls::pki_types::{SignatureVerificationAlgorithm, TrustAnchor};

/// Whether a certificate's issuer is its own subject.
pub fn is_self_signed(certificate: &[u8]) -> bool {
    Certificate::read(certificate).is_some_and(|it| it.issuer == it.subject)
}

/// Whether a trusted authority has itself signed a certificate. An authority that may sign only for
/// certain names does not count, because names are not compared with its constraints here.
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

/// The parts of a certificate, in DER.
struct Certificate<'a> {
    /// What was signed, with its tag.
    signed: &'a [u8],
    issuer: &'a [u8],
    subject: &'a [u8],
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
        // Version 1 is left out.
        let fields = value(VERSION, fields).map_or(fields, |(_, rest)| rest);
        let (_serial, fields) = value(INTEGER, fields)?;
        let (_algorithm, fields) = value(SEQUENCE, fields)?;
        let (issuer, fields) = value(SEQUENCE, fields)?;
        let (_validity, fields) = value(SEQUENCE, fields)?;
        let (subject, _) = value(SEQUENCE, fields)?;
        Some(Self { signed, issuer, subject, algorithm, signature })
    }
}

/// The content of a value with this tag, and what follows the value.
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

/// A bit string of whole bytes.
fn bits(der: &[u8]) -> Option<&[u8]> {
    match value(BIT_STRING, der)?.0.split_first()? {
        (0, bits) => Some(bits),
        _ => None,
    }
}
