//! Images that are in a registry: their manifests and configs, without their layers.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::image::Reference;
use oci_client::manifest::OciDescriptor;
use serde::Deserialize;

use crate::error::Error;
use crate::event::Events;
use crate::image::{Config, Digest, Format, Listed, MAX_CONFIG_BYTES, Manifest, Platform};
use crate::inspect;
use crate::json;
use crate::registry::{self, Registry, Repository};
use crate::source::layout::{Node, StoredBlob, Tree};

/// At most this many images of an index are read.
const MAX_IMAGES: usize = 64;

/// An image, or one of an index.
pub(crate) struct RemoteImage {
    /// The digest of its manifest.
    pub digest: Digest,
    pub config: Config,
    /// The digests and lengths of its layers' blobs, lowest first.
    pub blobs: Vec<(Digest, u64)>,
}

/// The repository of a reference, for reading.
pub(crate) fn repository(
    reference: &Reference,
    options: &registry::Options,
    events: &Events,
) -> Repository {
    let settings = Arc::new(options.clone());
    let registry = Registry::new(reference.registry(), settings, events.clone());
    registry.readable_repository(reference.repository())
}

/// The manifest or index that a reference points to.
pub(crate) async fn manifest(
    repository: &Repository,
    reference: &Reference,
) -> Result<Manifest, Error> {
    let asked = reference.digest().or(reference.tag()).unwrap_or("latest");
    let fetched = repository
        .manifest(asked)
        .await?
        .ok_or_else(|| Error::NotInRegistry { reference: reference.to_string() })?;
    if reference.digest().is_some_and(|digest| digest != fetched.digest.as_str()) {
        return Err(Error::Failed(format!(
            "{} sent another manifest for {reference}: {}",
            reference.registry(),
            fetched.digest
        )));
    }
    let media_type = media_type(&fetched.bytes);
    Ok(Manifest::stored(&media_type, fetched.bytes))
}

/// The media type that a manifest names. OCI allows it to be missing; then it depends on the
/// content.
fn media_type(bytes: &[u8]) -> String {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Typed {
        media_type: Option<String>,
    }
    let named = json::from_slice::<Typed>(bytes).ok().and_then(|typed| typed.media_type);
    named.unwrap_or_else(|| match Listed::parse(bytes) {
        Ok(Listed::Index(_)) => oci_client::manifest::OCI_IMAGE_INDEX_MEDIA_TYPE.to_owned(),
        _ => Format::Oci.manifest_media_type().to_owned(),
    })
}

/// The image that a reference points to, or those of an index, of all platforms or of one.
pub(crate) async fn images(
    repository: &Repository,
    reference: &Reference,
    platform: Option<&Platform>,
) -> Result<Vec<RemoteImage>, Error> {
    let root = manifest(repository, reference).await?;
    let entries = match Listed::parse(&root.bytes)? {
        Listed::Image(_) => {
            let image = image(repository, reference, &root).await?;
            let of = image.config.platform();
            return match platform.filter(|platform| !platform.matches(of)) {
                None => Ok(vec![image]),
                Some(platform) => Err(Error::Usage(format!(
                    "{reference} is an image for {of}, not for {platform}"
                ))),
            };
        }
        Listed::Index(entries) => entries,
    };
    // Skip attestations: their platform is unknown/unknown.
    let is_meant =
        |of: &Platform| !of.is_unknown() && platform.is_none_or(|platform| platform.matches(of));
    let mut images = Vec::new();
    for (digest, _) in entries.iter().filter(|(_, of)| is_meant(of)).take(MAX_IMAGES) {
        let (host, name) = (reference.registry(), reference.repository());
        let child = Reference::with_digest(host, name, digest.clone());
        let manifest = manifest(repository, &child).await?;
        images.push(image(repository, &child, &manifest).await?);
    }
    if let (true, Some(platform)) = (images.is_empty(), platform) {
        let listed: Vec<_> = entries.iter().map(|(_, platform)| platform.to_string()).collect();
        return Err(Error::Usage(format!(
            "{reference} has no image for {platform}; it has: {}",
            listed.join(", ")
        )));
    }
    Ok(images)
}

async fn image(
    repository: &Repository,
    reference: &Reference,
    manifest: &Manifest,
) -> Result<RemoteImage, Error> {
    let strange = |why: String| Error::Failed(format!("{reference} is not an image: {why}"));
    let Listed::Image(listed) = Listed::parse(&manifest.bytes)? else {
        return Err(strange("an index lists it as one, but it is an index".to_owned()));
    };
    let config_types = [Format::Docker, Format::Oci].map(Format::config_media_type);
    if !config_types.contains(&listed.config.media_type.as_str()) {
        let kind = listed.artifact_type.unwrap_or(listed.config.media_type);
        return Err(inspect::not_an_image(&reference.to_string(), Some(&kind)));
    }
    let parse = |digest: &str| digest.parse::<Digest>().map_err(|error| strange(error.to_string()));
    let config = parse(&listed.config.digest)?;
    let bytes = repository
        .blob(&config, MAX_CONFIG_BYTES)
        .await?
        .ok_or_else(|| strange(format!("the registry does not have its config {config}")))?;
    let config = Config::parse(bytes).map_err(|error| strange(error.to_string()))?;
    let blobs = listed
        .layers
        .iter()
        .map(|layer| Ok((parse(&layer.digest)?, u64::try_from(layer.size).unwrap_or_default())));
    Ok(RemoteImage {
        digest: manifest.digest.clone(),
        config,
        blobs: blobs.collect::<Result<_, Error>>()?,
    })
}

/// The image that a reference points to, as a tree that is pushed unchanged. For an index, it is
/// the only image for the platform. The bytes of the blobs are not read here.
pub(crate) async fn tree(
    repository: &Repository,
    reference: &Reference,
    platform: Option<&Platform>,
) -> Result<Tree, Error> {
    let root = manifest(repository, reference).await?;
    let (reference, root) = match Listed::parse(&root.bytes)? {
        Listed::Image(_) => (reference.clone(), root),
        Listed::Index(entries) => {
            let child = only_child(reference, &entries, platform)?;
            let root = manifest(repository, &child).await?;
            (child, root)
        }
    };
    let RemoteImage { config, .. } = image(repository, &reference, &root).await?;
    let Listed::Image(listed) = Listed::parse(&root.bytes)? else {
        return Err(Error::Failed(format!("{reference} is an index, not an image")));
    };
    let stored = |descriptor: &OciDescriptor| {
        let digest = descriptor
            .digest
            .parse::<Digest>()
            .map_err(|error| Error::Failed(format!("{reference} is not an image: {error}")))?;
        let size = u64::try_from(descriptor.size).unwrap_or_default();
        let media_type = descriptor.media_type.clone();
        Ok(StoredBlob { media_type, digest, size, region: None })
    };
    let blobs = std::iter::once(&listed.config).chain(&listed.layers).map(stored);
    let node = Node {
        media_type: root.media_type,
        bytes: root.bytes,
        digest: root.digest,
        artifact_type: None,
        annotations: BTreeMap::new(),
        subject: None,
        platform: Some(config.platform().clone()),
        children: Vec::new(),
        blobs: blobs.collect::<Result<_, Error>>()?,
        config: Some(config),
    };
    Ok(Tree { names: Vec::new(), nodes: vec![node], root: 0 })
}

/// The only image of an index that is for the platform.
fn only_child(
    reference: &Reference,
    entries: &[(Digest, Platform)],
    platform: Option<&Platform>,
) -> Result<Reference, Error> {
    let is_meant =
        |of: &Platform| !of.is_unknown() && platform.is_none_or(|platform| platform.matches(of));
    let meant: Vec<_> = entries.iter().filter(|(_, of)| is_meant(of)).collect();
    let [(digest, _)] = meant.as_slice() else {
        let listed: Vec<_> = entries.iter().map(|(_, platform)| platform.to_string()).collect();
        let listed = listed.join(", ");
        return Err(Error::Usage(format!(
            "{reference} is an index of {listed}; say which image by PLATFORM={reference}, or by the \
             image's digest"
        )));
    };
    let (host, name) = (reference.registry(), reference.repository());
    Ok(Reference::with_digest(host, name, digest.clone()))
}
