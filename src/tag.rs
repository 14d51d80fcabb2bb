//! Tags for an image that is already in its repository: one GET of its manifest, one PUT for each
//! tag. No layer is read or sent.

use std::sync::Arc;

use crate::image::Reference;
use serde::Serialize;

use crate::error::Error;
use crate::event::{Event, Events};
use crate::image::Digest;
use crate::push;
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
    push::put_under(tags, &manifest, &repository, async |_| None).await?;
    Ok(Tagged {
        pinned: format!("{}/{}@{}", source.registry(), source.repository(), manifest.digest),
        digest: manifest.digest,
        media_type: manifest.media_type,
        tags: tags.to_vec(),
    })
}
