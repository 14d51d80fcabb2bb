//! Manifests: reading the one that a tag points to, and putting new ones.

use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Method, StatusCode};

use super::error::Error;
use super::repository::Repository;
use super::send::mask::SafeUrl;
use super::send::request::{Payload, ReadBody, Request};
use super::send::retry::RetryBudget;
use crate::image::{Digest, Format, Manifest};

/// The longest manifest that is read; registries accept 4 MiB.
const MAX_MANIFEST_BYTES: u64 = 8 << 20;

/// The header with a manifest's digest.
const DIGEST: &str = "docker-content-digest";

const ACCEPTED: &str = "application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.v2+json, \
    application/vnd.oci.image.index.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json";

/// A manifest that was read from a registry.
#[derive(Clone, Debug)]
pub struct FetchedManifest {
    /// Its bytes.
    pub bytes: Bytes,
    /// Their digest, computed here.
    pub digest: Digest,
}

impl Repository {
    /// The manifest or index that a tag or digest points to; `None` if it does not exist (OCI
    /// distribution-spec 1.1, "Pulling manifests").
    pub async fn manifest(&self, reference: &str) -> Result<Option<FetchedManifest>, Error> {
        let doing = format!("get manifest {reference} of {self}");
        let mut request = Request {
            also: &[StatusCode::NOT_FOUND],
            read: ReadBody::Success(MAX_MANIFEST_BYTES),
            ..self.request(doing, Method::GET, &format!("manifests/{reference}"))
        };
        request.headers.insert(ACCEPT, HeaderValue::from_static(ACCEPTED));
        let answer = self.small(request).await?;
        if answer.status == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        Ok(Some(FetchedManifest { digest: Digest::of(&answer.body), bytes: answer.body }))
    }

    /// The digest of the manifest that a tag points to, without reading it. `None` if it does not
    /// exist, or if the registry does not return its digest.
    pub async fn manifest_digest(&self, reference: &str) -> Result<Option<Digest>, Error> {
        let doing = format!("ask {self} for manifest {reference}");
        let mut request = Request {
            also: &[StatusCode::NOT_FOUND, StatusCode::METHOD_NOT_ALLOWED],
            ..self.request(doing, Method::HEAD, &format!("manifests/{reference}"))
        };
        request.headers.insert(ACCEPT, HeaderValue::from_static(ACCEPTED));
        // Do not retry, because the caller has another way to find out.
        let mut budget = RetryBudget::new(Duration::ZERO).until(self.budget().deadline());
        let answer = self.registry().send_small(&self.call(request), &mut budget).await?;
        let digest = answer.header(DIGEST).filter(|_| answer.status.is_success());
        Ok(digest.and_then(|text| text.parse().ok()))
    }

    /// Puts a manifest under a tag or its digest (OCI distribution-spec 1.1, "Pushing manifests").
    ///
    /// The registry must already have every blob that it lists.
    pub async fn put_manifest(&self, reference: &str, manifest: &Manifest) -> Result<(), Error> {
        self.put(reference, manifest).await.map(drop)
    }

    /// Puts a manifest, and returns the answer's headers. They are empty if the answer was lost.
    pub(super) async fn put(
        &self,
        reference: &str,
        manifest: &Manifest,
    ) -> Result<HeaderMap, Error> {
        let doing = format!("put the manifest to {}", self.reference(reference));
        let mut request = Request {
            payload: Payload::Bytes(manifest.bytes.clone()),
            ..self.request(doing.clone(), Method::PUT, &format!("manifests/{reference}"))
        };
        let Ok(media_type) = HeaderValue::from_str(&manifest.media_type) else {
            let reason = format!("{:?} is no media type", manifest.media_type);
            return Err(Error::Content { doing, reason });
        };
        request.headers.insert(CONTENT_TYPE, media_type);
        let answer = match self.small(request).await {
            Ok(answer) => answer,
            Err(error) if error.is_refusal() => return Err(with_format_hint(error, manifest)),
            // The manifest may have been stored although the answer was lost.
            Err(error) => {
                return match self.holds(reference, manifest).await {
                    Ok(true) => Ok(HeaderMap::new()),
                    Ok(false) => Err(error),
                    Err(_) => Err(Error::OutcomeUnknown(Box::new(error))),
                };
            }
        };
        // Some registries do not return the digest, and some return one of another algorithm. A
        // page from a server in between has none either.
        let stored = answer.header(DIGEST).filter(|stored| stored.starts_with("sha256:"));
        let problem = match stored {
            Some(stored) if stored == manifest.digest.as_str() => return Ok(answer.headers),
            None if self.has_stored(reference, manifest).await? => return Ok(answer.headers),
            None if !self.registry().door.is_registry() => {
                return Err(self.registry().door.not_a_registry(&answer));
            }
            None => {
                let (url, status) = (SafeUrl::from(answer.url), answer.status);
                format!("{url} answered {status}, but does not have the manifest")
            }
            Some(stored) => format!(
                "it was stored under {stored}, not under its digest {}: something on the way \
                 changed it",
                manifest.digest
            ),
        };
        Err(Error::Protocol { doing, problem })
    }

    /// Whether the manifest was stored, after the registry has accepted the PUT.
    async fn has_stored(&self, reference: &str, manifest: &Manifest) -> Result<bool, Error> {
        let stored = self.holds(reference, manifest).await;
        stored.map_err(|error| Error::OutcomeUnknown(Box::new(error)))
    }

    /// Whether the reference points to exactly this manifest.
    async fn holds(&self, reference: &str, manifest: &Manifest) -> Result<bool, Error> {
        let stored = self.inquiring().manifest(reference).await?;
        Ok(stored.is_some_and(|stored| stored.digest == manifest.digest))
    }
}

/// Adds a hint about the format: registries that do not know OCI's media types only say that the
/// manifest is invalid.
fn with_format_hint(error: Error, manifest: &Manifest) -> Error {
    let Error::Status(mut answer) = error else { return error };
    let is_zstd = manifest.bytes.windows(5).any(|part| part == b"+zstd");
    if answer.hint.is_none()
        && answer.is_about_format()
        && (is_zstd || manifest.format() == Some(Format::Oci))
    {
        let compression = if is_zstd { " --compression gzip" } else { "" };
        answer.hint = Some(format!(
            "if the registry is too old for {}, push with --format docker{compression}",
            if is_zstd { "layers in zstd" } else { "OCI manifests" }
        ));
    }
    Error::Status(answer)
}
