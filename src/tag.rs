//! Tags for an image that is already in its repository: one GET of its manifest, one PUT for each
//! tag. No layer is read or sent.

use std::sync::Arc;

use crate::image::Reference;
use futures::future::join_all;
use serde::Serialize;

use crate::error::Error;
use crate::event::{Event, Events};
use crate::image::Digest;
use crate::registry::{self, Registry};
use crate::remote;

/// An image that got tags.
#[derive(Clone, Debug, Serialize)]
pub struct Tagged {
    /// `registry/repository@sha256:…`.
    pub pinned: String,
    /// The digest of the manifest or index.
    pub digest: Digest,
    /// Its media type.
    pub media_type: String,
    /// The tags that point to it now.
    pub tags: Vec<String>,
}

/// Points `tags` to the manifest or index that `source` names by its digest or by a tag.
pub async fn tag(
    source: &Reference,
    tags: &[String],
    options: &registry::Options,
    events: &Events,
) -> Result<Tagged, Error> {
    let registry = Registry::new(source.registry(), Arc::new(options.clone()), events.clone());
    let repository = registry.repository(source.repository());
    let manifest = remote::manifest(&repository, source).await?;
    events(Event::Tagging);
    let put = async |tag: &String| match repository.put_manifest(tag, &manifest).await {
        // The tag may be immutable, and point to this manifest already.
        Err(error) if error.is_refusal() => match repository.manifest_digest(tag).await {
            Ok(Some(there)) if there == manifest.digest => Ok(()),
            Ok(Some(digest)) => {
                Err(Error::TagKept { tag: tag.clone(), digest, source: error.into() })
            }
            _ => Err(error.into()),
        },
        done => done.map_err(Error::from),
    };
    let results = join_all(tags.iter().map(put)).await;
    let (mut done, mut failed) = (Vec::new(), None);
    for (tag, result) in tags.iter().zip(results) {
        match result {
            Ok(()) => done.push(tag.clone()),
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    match failed {
        None => Ok(Tagged {
            pinned: format!("{}/{}@{}", source.registry(), source.repository(), manifest.digest),
            digest: manifest.digest,
            media_type: manifest.media_type,
            tags: done,
        }),
        Some(error) if done.is_empty() => Err(error),
        Some(error) => Err(Error::SomeTags { put: done, source: Box::new(error) }),
    }
}
