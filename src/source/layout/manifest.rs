//! Descriptors, manifests and indexes of a layout: the few of their fields that are needed to push
//! them unchanged (OCI image-spec 1.1, "Content Descriptors", "Image Manifest", "Image Index";
//! Docker's manifest and manifest list, version 2, schema 2).

use std::collections::BTreeMap;
use std::fmt;

use oci_client::manifest as media;
use serde::Deserialize;
use serde::de::{Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};

use crate::image::{Bounded, Digest, MAX_LAYERS, Platform, distinct_names};
use crate::json;

/// The most manifests that an index may list.
pub const MAX_CHILDREN: usize = 4096;

/// The most annotations that a manifest may have.
const MAX_ANNOTATIONS: usize = 1024;

/// Describes a blob or a manifest.
#[derive(Clone, Debug, Deserialize)]
pub struct Descriptor {
    /// Its media type; empty if it is missing, which the specification does not allow.
    #[serde(rename = "mediaType", default)]
    pub media_type: String,
    /// Its digest.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
    /// Other places to download it from. Only their number is kept.
    #[serde(default)]
    urls: Option<Vec<IgnoredAny>>,
    /// The platform that it runs on.
    #[serde(default)]
    pub platform: Option<Platform>,
    #[serde(default)]
    annotations: Option<Naming>,
}

/// The annotations that name an image.
#[derive(Clone, Debug, Deserialize)]
struct Naming {
    #[serde(rename = "io.containerd.image.name", default)]
    image_name: Option<String>,
    #[serde(rename = "org.opencontainers.image.ref.name", default)]
    ref_name: Option<String>,
}

/// A manifest or an index.
#[derive(Debug)]
pub struct ManifestJson {
    /// Its own media type, or else the one in its descriptor.
    pub media_type: String,
    /// Its `artifactType`, or else the media type of its config. Lists of referrers contain it.
    pub artifact_type: Option<String>,
    /// The config.
    pub config: Option<Descriptor>,
    /// The layers, lowest first; of an artifact, its blobs.
    pub layers: Vec<Descriptor>,
    /// The manifests that an index lists; `None` for a manifest.
    pub manifests: Option<Vec<Descriptor>>,
    /// The manifest that it refers to.
    pub subject: Option<Digest>,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ManifestFields {
    schema_version: Option<u64>,
    media_type: Option<String>,
    artifact_type: Option<String>,
    config: Option<Descriptor>,
    layers: Option<Bounded<Descriptor, MAX_LAYERS>>,
    /// The layers of an artifact manifest, which drafts of image-spec 1.1 called blobs.
    blobs: Option<Bounded<Descriptor, MAX_LAYERS>>,
    manifests: Option<Bounded<Descriptor, MAX_CHILDREN>>,
    subject: Option<SubjectJson>,
    #[serde(default)]
    annotations: Annotations,
}

#[derive(Deserialize)]
struct SubjectJson {
    digest: Digest,
}

impl Descriptor {
    /// The descriptor of a manifest that nothing lists.
    pub fn of(media_type: String, digest: Digest, size: u64) -> Self {
        Self { media_type, digest, size, urls: None, platform: None, annotations: None }
    }

    /// The names of the image, the longer forms first.
    pub fn names(&self) -> Vec<String> {
        let Some(Naming { image_name, ref_name }) = self.annotations.clone() else {
            return Vec::new();
        };
        distinct_names(image_name.into_iter().chain(ref_name).filter(|name| !name.is_empty()))
    }

    /// Whether its media type is missing, or is a known one of manifests or indexes.
    pub fn is_manifest(&self) -> bool {
        is_index(&self.media_type)
            || matches!(
                self.media_type.as_str(),
                "" | media::OCI_IMAGE_MEDIA_TYPE | media::IMAGE_MANIFEST_MEDIA_TYPE | ARTIFACT
            )
    }

    /// Whether it may be an index.
    pub fn may_be_index(&self) -> bool {
        self.media_type.is_empty() || is_index(&self.media_type)
    }

    /// Whether it may be missing in the layout, because runtimes can fetch it from its `urls`
    /// (image-spec 1.1, "Non-Distributable Layers"; Docker's foreign layers).
    pub fn may_be_absent(&self) -> bool {
        self.urls.as_ref().is_some_and(|urls| !urls.is_empty())
    }
}

/// Whether this is the media type of Docker's manifest list or of OCI's index.
pub fn is_index(media_type: &str) -> bool {
    matches!(media_type, media::OCI_IMAGE_INDEX_MEDIA_TYPE | media::IMAGE_MANIFEST_LIST_MEDIA_TYPE)
}

/// The artifact manifest of drafts of image-spec 1.1.
const ARTIFACT: &str = "application/vnd.oci.artifact.manifest.v1+json";

impl ManifestJson {
    /// Parses a manifest or an index. `said` is the media type in its descriptor. The error says
    /// what is wrong.
    ///
    /// What it lists decides whether it is a manifest or an index. An unknown media type is not an
    /// error (image-spec 1.1, "Image Index"), because a program that stores an image does not have
    /// to understand it.
    pub fn parse(bytes: &[u8], said: &str) -> Result<Self, String> {
        let fields: ManifestFields = json::from_slice(bytes).map_err(|error| error.to_string())?;
        if fields.schema_version == Some(1) {
            return Err("it is a Docker manifest of schema 1, which registries take no more; \
                        convert it with `skopeo copy`"
                .to_owned());
        }
        let own = fields.media_type.filter(|own| !own.is_empty());
        let is_manifest =
            fields.config.is_some() || fields.layers.is_some() || fields.blobs.is_some();
        // Some programs would read it as a manifest, others as an index, and they would get
        // different images.
        if is_manifest && fields.manifests.is_some() {
            return Err("it lists both layers and manifests".to_owned());
        }
        let media_type = match own {
            Some(own) => own,
            None if !said.is_empty() => said.to_owned(),
            None if fields.manifests.is_some() => media::OCI_IMAGE_INDEX_MEDIA_TYPE.to_owned(),
            None => media::OCI_IMAGE_MEDIA_TYPE.to_owned(),
        };
        if is_index(&media_type) && fields.manifests.is_none() {
            return Err(format!(
                "it is said to be an index ({media_type}), and lists no manifests"
            ));
        }
        if matches!(
            media_type.as_str(),
            media::OCI_IMAGE_MEDIA_TYPE | media::IMAGE_MANIFEST_MEDIA_TYPE
        ) && fields.config.is_none()
        {
            return Err(format!("it is said to be a manifest ({media_type}), and has no config"));
        }
        let list = |list: Option<Bounded<_, MAX_LAYERS>>| list.map_or(Vec::new(), |list| list.0);
        let mut layers = list(fields.layers);
        layers.extend(list(fields.blobs));
        let config_type = || fields.config.as_ref().map(|config| config.media_type.clone());
        let artifact_type = fields.artifact_type.filter(|own| !own.is_empty());
        Ok(Self {
            media_type,
            artifact_type: artifact_type.or_else(config_type),
            config: fields.config,
            layers,
            manifests: fields.manifests.map(|list| list.0),
            subject: fields.subject.map(|subject| subject.digest),
            annotations: fields.annotations.0,
        })
    }

    /// How many parts of it are kept in memory.
    pub fn parts(&self) -> usize {
        let children = self.manifests.as_ref().map_or(0, Vec::len);
        1 + self.layers.len() + children + self.annotations.len()
    }
}

/// Annotations, limited in number.
#[derive(Default)]
struct Annotations(BTreeMap<String, String>);

impl<'de> Deserialize<'de> for Annotations {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;

        impl<'de> Visitor<'de> for Pairs {
            type Value = Annotations;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of strings")
            }

            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(Annotations::default())
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut all = BTreeMap::new();
                while let Some((key, value)) = map.next_entry::<String, Option<String>>()? {
                    all.insert(key, value.unwrap_or_default());
                    if all.len() > MAX_ANNOTATIONS {
                        return Err(A::Error::custom(format_args!(
                            "there are more than {MAX_ANNOTATIONS} annotations"
                        )));
                    }
                }
                Ok(Annotations(all))
            }
        }

        deserializer.deserialize_any(Pairs)
    }
}
