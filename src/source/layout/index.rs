//! `index.json`: the images that a layout names, which of them is meant, and what refers to them.

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

/// The name of the list of images.
pub const INDEX: &str = "index.json";

/// More images than any layout lists.
const MAX_ENTRIES: usize = 16_384;

/// The images of a layout, each once.
pub struct LayoutIndex {
    /// Where they are listed.
    by: Listing,
    entries: Vec<ListedManifest>,
    /// The list itself, where it is one image for several platforms.
    whole: Option<ListedManifest>,
}

/// What `index.json` says of a manifest.
struct ListedManifest {
    descriptor: Descriptor,
    /// All names that it has.
    names: Vec<String>,
    /// The manifest whose referrers it lists, and nothing else.
    lists_referrers_of: Option<Digest>,
}

/// An image that may be meant.
#[derive(Clone)]
pub struct Chosen {
    /// What leads to it.
    pub descriptor: Descriptor,
    /// Where that stands.
    pub by: Listing,
    /// The names of it, or of what lists it.
    pub names: Vec<String>,
}

/// A manifest that refers to another.
pub struct StoredReferrer {
    /// The other.
    pub subject: Digest,
    /// What leads to it.
    pub descriptor: Descriptor,
    /// Where that stands.
    pub by: Listing,
}

/// What the manifests say that `index.json` lists.
pub struct Survey {
    /// The places of the images: of all that does not merely belong to another.
    roots: Vec<usize>,
    /// What refers to others.
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

    /// Whether it is one image's index: it lists manifests only, each with a platform of its own, or
    /// with the platform "unknown" of an attestation, and none with a name that the others do not
    /// have.
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

    /// The descriptor of `index.json`, where it is an image's index itself.
    pub fn whole(&self) -> Option<&Descriptor> {
        self.whole.as_ref().map(|whole| &whole.descriptor)
    }

    /// The one manifest of what has no list, from the file of this name.
    pub fn of(by: &'static str, descriptor: Descriptor) -> Self {
        Self { by: Listing::File(by), entries: vec![ListedManifest::new(descriptor)], whole: None }
    }

    /// The names of all images.
    pub fn names(&self) -> Vec<String> {
        self.images().flat_map(|entry| entry.names.iter().cloned()).collect()
    }

    /// Finds out what belongs to what. A layout of one image is not read for it.
    pub fn survey(&self, reader: &mut ManifestReader<'_>) -> Result<Survey, Error> {
        let mut referrers = Vec::new();
        if self.entries.len() == 1 {
            return Ok(Survey { roots: vec![0], referrers });
        }
        let mut listed = HashSet::new();
        let mut own = Vec::new();
        for (place, entry) in self.entries.iter().enumerate() {
            let descriptor = &entry.descriptor;
            // What it does not know, or has not got, a layout may list all the same.
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
        // Some programs list all manifests here, those within an index and referrers included.
        own.retain(|(place, _)| {
            let entry = &self.entries[*place];
            !entry.names.is_empty() || !listed.contains(&entry.descriptor.digest)
        });
        // An attestation beside an image is not what is meant.
        let is_attestation = |place: usize| {
            self.entries[place].descriptor.platform.as_ref().is_some_and(Platform::is_unknown)
        };
        let only_attestations = own.iter().all(|(place, _)| is_attestation(*place));
        own.retain(|(place, _)| only_attestations || !is_attestation(*place));
        let only_referrers = own.iter().all(|(_, refers)| *refers);
        own.retain(|(_, refers)| only_referrers || !refers);
        Ok(Survey { roots: own.into_iter().map(|(place, _)| place).collect(), referrers })
    }

    /// The images that may be meant by a name.
    fn images(&self) -> impl Iterator<Item = &ListedManifest> {
        let entries = if self.whole.is_some() { &[][..] } else { &self.entries };
        let images = entries.iter().filter(|entry| entry.lists_referrers_of.is_none());
        self.whole.iter().chain(images)
    }

    /// The images, without what belongs to another.
    pub fn roots(&self, survey: &Survey) -> Vec<Chosen> {
        if let Some(whole) = &self.whole {
            return vec![self.chosen(whole)];
        }
        survey.roots.iter().map(|&place| self.chosen(&self.entries[place])).collect()
    }

    /// All that is listed.
    pub fn all(&self) -> Vec<Chosen> {
        self.entries.iter().chain(&self.whole).map(|entry| self.chosen(entry)).collect()
    }

    /// The images of this name: those that have it as it is written, or else those that have it in
    /// another form, as `v1` and `app:v1` are forms of `docker.io/library/app:v1`.
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

/// The manifest whose referrers have this tag (OCI distribution-spec 1.1, "Referrers Tag Schema").
fn referrers_tag_of(name: &str) -> Option<Digest> {
    Digest::from_sha256_hex(name.strip_prefix("sha256-")?).ok()
}
