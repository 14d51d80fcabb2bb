//! Reads a layout's JSON within limits, and compares each file with its descriptor.

use std::sync::Arc;

use bytes::Bytes;

use super::error::{LayoutError, Listing};
use super::manifest::{Descriptor, ManifestJson};
use super::region::Region;
use crate::image::{Compression, Config, Digest, Format, MAX_CONFIG_BYTES};
use crate::source::error::Error;
use crate::source::role::EntryRole;

/// The longest manifest or index that is read: registries take no longer ones.
pub const MAX_MANIFEST_BYTES: u64 = 4 << 20;

/// How deep indexes may be nested. In practice the depth is two.
///
/// Indexes cannot form a cycle: each is hashed before the manifests that it lists are read, and an
/// index in a cycle would have a wrong digest.
pub const MAX_DEPTH: usize = 16;

/// The most bytes of JSON that one reader reads.
const MAX_JSON_BYTES: u64 = 32 << 20;

/// The most parts that are kept in memory: those of sixteen platforms with as many layers as an
/// image may have.
const MAX_PARTS: usize = 65_536;

/// Where the blobs of a layout are.
pub trait BlobStore: Send + Sync {
    /// The bytes of a manifest or an index; `None` if they are missing.
    fn manifest(&self, digest: &Digest) -> Result<Option<Region>, Error> {
        self.blob(digest)
    }

    /// The bytes of any other blob.
    fn blob(&self, digest: &Digest) -> Result<Option<Region>, Error>;
}

/// Reads manifests and configs, up to the limits.
pub struct ManifestReader<'a> {
    file: &'a Arc<str>,
    store: &'a dyn BlobStore,
    json_left: u64,
    parts_left: usize,
}

impl<'a> ManifestReader<'a> {
    /// A reader for the layout `file`, which has read nothing yet.
    pub fn new(file: &'a Arc<str>, store: &'a dyn BlobStore) -> Self {
        Self { file, store, json_left: MAX_JSON_BYTES, parts_left: MAX_PARTS }
    }

    /// The layout's name.
    pub fn file(&self) -> &'a Arc<str> {
        self.file
    }

    /// A manifest or an index.
    pub fn manifest(
        &mut self,
        descriptor: &Descriptor,
        by: &Listing,
    ) -> Result<(Bytes, ManifestJson), Error> {
        self.manifest_if_there(descriptor, by)?
            .ok_or_else(|| self.missing(descriptor, by, EntryRole::Manifest).into())
    }

    /// The same as [`manifest`](Self::manifest), but `None` if it is missing.
    pub fn manifest_if_there(
        &mut self,
        descriptor: &Descriptor,
        by: &Listing,
    ) -> Result<Option<(Bytes, ManifestJson)>, Error> {
        let found = self.store.manifest(&descriptor.digest)?;
        let Some(region) = self.checked(found, descriptor, by, EntryRole::Manifest)? else {
            return Ok(None);
        };
        let bytes = self.json(&region, descriptor, by, EntryRole::Manifest, MAX_MANIFEST_BYTES)?;
        let manifest = ManifestJson::parse(&bytes, &descriptor.media_type).map_err(|what| {
            let of = Listing::Manifest(descriptor.digest.clone());
            LayoutError::Json { file: self.file.clone(), of, what }
        })?;
        self.keep(manifest.parts())?;
        Ok(Some((bytes, manifest)))
    }

    /// Whether a descriptor with an unknown media type describes a manifest. If the file is
    /// missing, it counts as a manifest.
    pub fn is_manifest(&self, descriptor: &Descriptor) -> Result<bool, Error> {
        let Some(region) = self.store.manifest(&descriptor.digest)? else {
            return Ok(true);
        };
        if region.length > MAX_MANIFEST_BYTES {
            return Ok(false);
        }
        let manifest = ManifestJson::parse(&region.bytes()?, &descriptor.media_type);
        Ok(manifest.is_ok_and(|manifest| manifest.config.is_some() || manifest.parts() > 1))
    }

    /// The bytes of a blob, whose length is checked. `None` if it is missing and need not be there.
    pub fn blob(
        &self,
        descriptor: &Descriptor,
        by: &Listing,
        role: EntryRole,
    ) -> Result<Option<Region>, Error> {
        let found = self.store.blob(&descriptor.digest)?;
        let found = self.checked(found, descriptor, by, role)?;
        if found.is_none() && !(role == EntryRole::Layer && descriptor.may_be_absent()) {
            return Err(self.missing(descriptor, by, role).into());
        }
        Ok(found)
    }

    /// The config of a manifest, if it is that of an image. `by` is the manifest.
    pub fn config(
        &mut self,
        manifest: &ManifestJson,
        region: &Region,
        by: &Listing,
    ) -> Result<Option<Config>, Error> {
        let is_images = |media_type: &str| {
            [Format::Oci, Format::Docker].map(Format::config_media_type).contains(&media_type)
        };
        let Some(descriptor) =
            manifest.config.as_ref().filter(|config| is_images(&config.media_type))
        else {
            return Ok(None);
        };
        let bytes = self.json(region, descriptor, by, EntryRole::Config, MAX_CONFIG_BYTES)?;
        match Config::parse(bytes) {
            Ok(config) => {
                self.keep(config.diff_ids().len() + config.layer_history().count())?;
                Ok(Some(config))
            }
            // Some artifacts use the media type of an image config for something else.
            Err(_) if !manifest.layers.iter().any(is_layer) => Ok(None),
            Err(source) => Err(LayoutError::BadConfig {
                file: self.file.clone(),
                entry: descriptor.digest.to_string(),
                source,
            }
            .into()),
        }
    }

    /// Reads a JSON file, and compares its digest with that in its descriptor.
    fn json(
        &mut self,
        region: &Region,
        descriptor: &Descriptor,
        by: &Listing,
        role: EntryRole,
        limit: u64,
    ) -> Result<Bytes, Error> {
        let file = || self.file.clone();
        let size = region.length;
        if size > limit {
            let entry = descriptor.digest.to_string();
            return Err(LayoutError::JsonTooLong { file: file(), entry, size, limit }.into());
        }
        self.json_left = self.json_left.checked_sub(size).ok_or_else(|| LayoutError::TooLarge {
            file: file(),
            limit: MAX_JSON_BYTES >> 20,
            what: "MiB of manifests and configs",
        })?;
        let bytes = region.bytes()?;
        let actual = Digest::of(&bytes);
        if actual != descriptor.digest {
            let listed = descriptor.digest.clone();
            let by = by.clone();
            return Err(LayoutError::BlobDigest { file: file(), by, role, listed, actual }.into());
        }
        Ok(bytes)
    }

    fn keep(&mut self, parts: usize) -> Result<(), LayoutError> {
        self.parts_left =
            self.parts_left.checked_sub(parts).ok_or_else(|| LayoutError::TooLarge {
                file: self.file.clone(),
                limit: MAX_PARTS as u64,
                what: "layers, manifests and annotations",
            })?;
        Ok(())
    }

    /// Returns `found` if it has the length that is listed.
    fn checked(
        &self,
        found: Option<Region>,
        descriptor: &Descriptor,
        by: &Listing,
        role: EntryRole,
    ) -> Result<Option<Region>, LayoutError> {
        let (file, by, digest) = (self.file.clone(), by.clone(), descriptor.digest.clone());
        if !digest.as_str().starts_with("sha256:") {
            return Err(LayoutError::DigestAlgorithm { file, by, digest });
        }
        match &found {
            Some(region) if region.length != descriptor.size => Err(LayoutError::BlobSize {
                file,
                by,
                role,
                digest,
                listed: descriptor.size,
                actual: region.length,
            }),
            _ => Ok(found),
        }
    }

    fn missing(&self, descriptor: &Descriptor, by: &Listing, role: EntryRole) -> LayoutError {
        let (file, by, digest) = (self.file.clone(), by.clone(), descriptor.digest.clone());
        match (&by, role) {
            (Listing::Manifest(_), EntryRole::Manifest) => {
                let platform = descriptor.platform.as_ref();
                let platform = platform.map(|on| format!(" for {:?}", on.to_string()));
                let platform = platform.unwrap_or_default();
                LayoutError::ChildMissing { file, by, digest, platform }
            }
            _ => LayoutError::BlobMissing { file, by, role, digest },
        }
    }
}

fn is_layer(descriptor: &Descriptor) -> bool {
    Compression::of_media_type(&descriptor.media_type).is_some()
}
