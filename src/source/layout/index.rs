//! `index.json`: the images of a layout, their names, and the manifests that refer to them.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use oci_client::manifest as media;
use serde::Deserialize;

use super::error::{LayoutError, Listing};
use super::manifest::{Descriptor, is_index};
use super::read::ManifestReader;
use crate::image::{Bounded, Digest, Platform, distinct_names, is_same_name, is_tag};
use crate::json;
use crate::source::error::Error;

/// The name of the file that lists the images.
pub const INDEX: &str = "index.json";

/// The most manifests that `index.json` may list.
const MAX_ENTRIES: usize = 16_384;

/// The images of a layout, each once.
pub struct LayoutIndex {
    /// Where they are listed.
    by: Listing,
    entries: Vec<ListedManifest>,
    /// The list itself, if it is the index of one image for several platforms.
    whole: Option<ListedManifest>,
}

/// An entry of `index.json`.
struct ListedManifest {
    descriptor: Descriptor,
    /// All names that it has.
    names: Vec<String>,
    /// Set if this is only a list of referrers: the manifest that they refer to.
    lists_referrers_of: Option<Digest>,
}

/// An image that the user may mean.
#[derive(Clone)]
pub struct Chosen {
    /// Its descriptor.
    pub descriptor: Descriptor,
    /// Where the descriptor is listed.
    pub by: Listing,
    /// Its names, or those of the index that lists it.
    pub names: Vec<String>,
}

/// A manifest that refers to another.
pub struct StoredReferrer {
    /// The manifest that it refers to.
    pub subject: Digest,
    /// Its descriptor.
    pub descriptor: Descriptor,
    /// Where the descriptor is listed.
    pub by: Listing,
}

/// The result of reading the manifests that `index.json` lists.
pub struct Survey {
    /// The places of the images. Manifests that only belong to another image are left out.
    roots: Vec<usize>,
    /// The manifests that refer to others.
    pub referrers: Vec<StoredReferrer>,
}

impl LayoutIndex {
    /// Reads `index.json`.
    pub fn parse(file: &Arc<str>, bytes: &[u8]) -> Result<Self, LayoutError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct IndexFile {
            media_type: Option<String>,
            manifests: Option<Bounded<Descriptor, MAX_ENTRIES>>,
        }
        let by = Listing::File(INDEX);
        let fields: IndexFile = json::from_slice(bytes).map_err(|error| LayoutError::Json {
            file: file.clone(),
            of: by.clone(),
            what: error.to_string(),
        })?;
        let mut index = Self { by, entries: Vec::new(), whole: None };
        let mut places: HashMap<Digest, usize> = HashMap::new();
        for descriptor in fields.manifests.map_or(Vec::new(), |list| list.0) {
            let names = descriptor.names();
            let next = index.entries.len();
            let place = *places.entry(descriptor.digest.clone()).or_insert(next);
            if place == next {
                index.entries.push(ListedManifest::new(descriptor));
            }
            let entry = &mut index.entries[place];
            entry.names = distinct_names(entry.names.drain(..).chain(names));
        }
        for entry in &mut index.entries {
            entry.lists_referrers_of = entry.names.iter().find_map(|name| {
                let subject = referrers_tag_of(name)?;
                is_index(&entry.descriptor.media_type).then_some(subject)
            });
        }
        if index.lists_platforms() {
            let media_type = fields.media_type.filter(|own| is_index(own));
            let media_type = media_type.unwrap_or(media::OCI_IMAGE_INDEX_MEDIA_TYPE.to_owned());
            let descriptor = Descriptor::of(media_type, Digest::of(bytes), bytes.len() as u64);
            let names = index.entries.first().map_or(Vec::new(), |entry| entry.names.clone());
            let lists_referrers_of = None;
            index.whole = Some(ListedManifest { descriptor, names, lists_referrers_of });
        }
        Ok(index)
    }

    /// Whether this is the index of one image. Then all entries are manifests and have the same
    /// names, and each has another platform, or the platform "unknown" of an attestation.
    fn lists_platforms(&self) -> bool {
        let mut platforms = HashSet::new();
        let fits = |entry: &ListedManifest| {
            let descriptor = &entry.descriptor;
            let is_manifest = descriptor.is_manifest() && !descriptor.may_be_index();
            let is_new =
                |platform: &Platform| platform.is_unknown() || platforms.insert(platform.clone());
            is_manifest
                && entry.names == self.entries[0].names
                && descriptor.platform.as_ref().is_some_and(is_new)
        };
        self.entries.iter().all(fits) && !platforms.is_empty() && self.entries.len() > 1
    }

    /// The descriptor of `index.json`, if it is itself the index of one image.
    pub fn whole(&self) -> Option<&Descriptor> {
        self.whole.as_ref().map(|whole| &whole.descriptor)
    }

    /// The list for an image that has no `index.json`: its one manifest, from the file of this
    /// name.
    pub fn of(by: &'static str, descriptor: Descriptor) -> Self {
        Self { by: Listing::File(by), entries: vec![ListedManifest::new(descriptor)], whole: None }
    }

    /// The names of all images.
    pub fn names(&self) -> Vec<String> {
        self.images().flat_map(|entry| entry.names.iter().cloned()).collect()
    }

    /// Reads the manifests to find out which of them belong to others. If there is only one, it is
    /// not read.
    pub fn survey(&self, reader: &mut ManifestReader<'_>) -> Result<Survey, Error> {
        let mut referrers = Vec::new();
        if self.entries.len() == 1 {
            return Ok(Survey { roots: vec![0], referrers });
        }
        let mut listed = HashSet::new();
        let mut own = Vec::new();
        for (place, entry) in self.entries.iter().enumerate() {
            let descriptor = &entry.descriptor;
            // A layout may list entries of unknown types, and manifests that it does not contain.
            if !descriptor.is_manifest() {
                continue;
            }
            let manifest = reader.manifest_if_there(descriptor, &self.by)?;
            let (children, subject) = match manifest {
                Some((_, manifest)) => (manifest.manifests, manifest.subject),
                None => (None, None),
            };
            let children = children.unwrap_or_default();
            if let Some(subject) = &entry.lists_referrers_of {
                let by = Listing::Manifest(descriptor.digest.clone());
                for child in children {
                    let found = reader.manifest_if_there(&child, &by)?;
                    if found.is_some_and(|(_, it)| it.subject.as_ref() == Some(subject)) {
                        let (subject, by) = (subject.clone(), by.clone());
                        referrers.push(StoredReferrer { subject, descriptor: child, by });
                    }
                }
                continue;
            }
            listed.extend(children.into_iter().map(|child| child.digest));
            own.push((place, subject.is_some()));
            if let Some(subject) = subject {
                let (descriptor, by) = (descriptor.clone(), self.by.clone());
                referrers.push(StoredReferrer { subject, descriptor, by });
            }
        }
        // Some programs list all manifests here, including referrers and those within an index.
        own.retain(|(place, _)| {
            let entry = &self.entries[*place];
            !entry.names.is_empty() || !listed.contains(&entry.descriptor.digest)
        });
        // If there is another image, the user does not mean an attestation.
        let is_attestation = |place: usize| {
            self.entries[place].descriptor.platform.as_ref().is_some_and(Platform::is_unknown)
        };
        let only_attestations = own.iter().all(|(place, _)| is_attestation(*place));
        own.retain(|(place, _)| only_attestations || !is_attestation(*place));
        let only_referrers = own.iter().all(|(_, refers)| *refers);
        own.retain(|(_, refers)| only_referrers || !refers);
        Ok(Survey { roots: own.into_iter().map(|(place, _)| place).collect(), referrers })
    }

    /// The images that a name may mean.
    fn images(&self) -> impl Iterator<Item = &ListedManifest> {
        let entries = if self.whole.is_some() { &[][..] } else { &self.entries };
        let images = entries.iter().filter(|entry| entry.lists_referrers_of.is_none());
        self.whole.iter().chain(images)
    }

    /// The images, without manifests that only belong to another image.
    pub fn roots(&self, survey: &Survey) -> Vec<Chosen> {
        if let Some(whole) = &self.whole {
            return vec![self.chosen(whole)];
        }
        survey.roots.iter().map(|&place| self.chosen(&self.entries[place])).collect()
    }

    /// All entries, and the list itself if it is an image.
    pub fn all(&self) -> Vec<Chosen> {
        self.entries.iter().chain(&self.whole).map(|entry| self.chosen(entry)).collect()
    }

    /// The images of this name. If none has exactly this name, those that have it in another form:
    /// `v1` and `app:v1` are forms of `docker.io/library/app:v1`.
    pub fn named(&self, wanted: &str) -> Vec<Chosen> {
        let having = |fits: &dyn Fn(&String) -> bool| -> Vec<Chosen> {
            let fitting = self.images().filter(|entry| entry.names.iter().any(fits));
            fitting.map(|entry| self.chosen(entry)).collect()
        };
        let exact = having(&|name| name == wanted);
        if !exact.is_empty() {
            return exact;
        }
        having(&|name| {
            let tag = name.rsplit_once(':').map(|(_, tag)| tag);
            is_same_name(name, wanted) || (is_tag(wanted) && tag == Some(wanted))
        })
    }

    fn chosen(&self, entry: &ListedManifest) -> Chosen {
        Chosen {
            descriptor: entry.descriptor.clone(),
            by: self.by.clone(),
            names: entry.names.clone(),
        }
    }
}

impl ListedManifest {
    fn new(descriptor: Descriptor) -> Self {
        Self { descriptor, names: Vec::new(), lists_referrers_of: None }
    }
}

/// The manifest whose list of referrers has this tag (OCI distribution-spec 1.1, "Referrers Tag
/// Schema").
fn referrers_tag_of(name: &str) -> Option<Digest> {
    Digest::from_sha256_hex(name.strip_prefix("sha256-")?).ok()
}
