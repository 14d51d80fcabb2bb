//! Manifests: getting the one that a tag points to, and putting ours.

use bytes::Bytes;
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Method, StatusCode};

use super::display::SafeUrl;
use super::send::{Call, Payload, Persistence};
use super::{Error, Repository};
use crate::image::{Digest, Manifest};

/// The longest manifest that is read; registries take 4 MiB.
const MAX_MANIFEST_BYTES: u64 = 8 << 20;

const ACCEPTED: &str = "application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.v2+json, \
    application/vnd.oci.image.index.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json";

/// A manifest that a registry gave.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// Its bytes.
    pub bytes: Bytes,
    /// Their digest, computed.
    pub digest: Digest,
}

impl Repository {
    /// The manifest or index that a tag or a digest stands for; `None` where there is none (OCI
    /// distribution-spec 1.1, "Pulling manifests").
    pub async fn manifest(&self, reference: &str) -> Result<Option<Fetched>, Error> {
        let mut call = Call {
            doing: format!("get manifest {reference} of {self}"),
            also: &[StatusCode::NOT_FOUND],
            read: Some(MAX_MANIFEST_BYTES),
            ..self.call(Method::GET, format!("/v2/{}/manifests/{reference}", self.name()))
        };
        call.headers.insert(ACCEPT, HeaderValue::from_static(ACCEPTED));
        let answer = self.small(&call).await?;
        if answer.status == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        Ok(Some(Fetched { digest: Digest::of(&answer.body), bytes: answer.body }))
    }

    /// The digest of the manifest that a tag stands for, without the manifest; `None` where there
    /// is none, or where the registry does not tell.
    pub async fn manifest_digest(&self, reference: &str) -> Result<Option<Digest>, Error> {
        let mut call = Call {
            doing: format!("ask {self} for manifest {reference}"),
            also: &[StatusCode::NOT_FOUND, StatusCode::METHOD_NOT_ALLOWED],
            persistence: Persistence::Once,
            ..self.call(Method::HEAD, format!("/v2/{}/manifests/{reference}", self.name()))
        };
        call.headers.insert(ACCEPT, HeaderValue::from_static(ACCEPTED));
        let answer = self.small(&call).await?;
        let told =
            answer.headers.get("docker-content-digest").filter(|_| answer.status.is_success());
        Ok(told.and_then(|value| value.to_str().ok()?.parse().ok()))
    }

    /// Puts a manifest under a tag or its digest (OCI distribution-spec 1.1, "Pushing manifests").
    ///
    /// Every blob that it names must be there.
    pub async fn put_manifest(&self, reference: &str, manifest: &Manifest) -> Result<(), Error> {
        self.put(reference, manifest).await.map(drop)
    }

    /// The same; what the answer's headers say, if there was an answer.
    pub(super) async fn put(
        &self,
        reference: &str,
        manifest: &Manifest,
    ) -> Result<HeaderMap, Error> {
        let mut call = Call {
            doing: format!("put the manifest to {self}:{reference}"),
            payload: Payload::Bytes(manifest.bytes.clone()),
            ..self.call(Method::PUT, format!("/v2/{}/manifests/{reference}", self.name()))
        };
        let media_type = HeaderValue::from_str(&manifest.media_type).map_err(|_| {
            let doing = call.doing.clone();
            Error::Content { doing, reason: format!("{:?} is no media type", manifest.media_type) }
        })?;
        call.headers.insert(CONTENT_TYPE, media_type);
        let answer = match self.small(&call).await {
            Ok(answer) => answer,
            Err(error) if error.is_refusal() => return Err(error),
            // It may have been stored although no answer said so.
            Err(error) => {
                return match self.holds(reference, manifest).await {
                    Ok(true) => Ok(HeaderMap::new()),
                    Ok(false) => Err(error),
                    Err(_) => Err(Error::Unsettled(Box::new(error))),
                };
            }
        };
        let told = answer.headers.get("docker-content-digest").and_then(|v| v.to_str().ok());
        let problem = match told {
            Some(told) if told == manifest.digest.as_str() => return Ok(answer.headers),
            // Not all registries tell; neither does a page of something in between.
            None if self.holds(reference, manifest).await? => return Ok(answer.headers),
            None => {
                let (url, status) = (SafeUrl::from(answer.url), answer.status);
                format!("{url} answered {status}, but does not have the manifest")
            }
            Some(told) => format!(
                "it was stored under {told}, not under its digest {}: something on the way \
                 changed it",
                manifest.digest
            ),
        };
        Err(Error::Protocol { doing: call.doing, problem })
    }

    /// Whether the reference stands for this very manifest.
    async fn holds(&self, reference: &str, manifest: &Manifest) -> Result<bool, Error> {
        let there = self.hastily().manifest(reference).await?;
        Ok(there.is_some_and(|there| there.digest == manifest.digest))
    }
}
