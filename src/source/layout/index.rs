//! `index.json`: the images that a layout names, which of them is meant, and what refers to them.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use serde::Deserialize;

use super::error::{LayoutError, Listing};
use super::manifest::{Descriptor, is_index};
use super::read::Reader;
use crate::image::{Bounded, Digest, is_tag, parse_reference};
use crate::source::error::Error;

/// The name of the list of images.
pub const INDEX: &str = "index.json";

/// More images than any layout lists.
const MAX_ENTRIES: usize = 16_384;

/// The images of a layout, each once.
pub struct Index {
    /// Where they are listed.
    by: Listing,
    entries: Vec<IndexEntry>,
}

/// What `index.json` says of a manifest.
struct IndexEntry {
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
pub struct Referrer {
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
    pub referrers: Vec<Referrer>,
}

impl Index {
    /// Reads `index.json`.
    pub fn parse(file: &Arc<str>, bytes: &[u8]) -> Result<Self, LayoutError> {
        #[derive(Deserialize)]
        struct IndexFile {
            manifests: Option<Bounded<Descriptor, MAX_ENTRIES>>,
        }
        let by = Listing::File(INDEX);
        let fields: IndexFile = serde_json::from_slice(bytes).map_err(|error| {
            LayoutError::Json { file: file.clone(), of: by.clone(), what: error.to_string() }
        })?;
        let mut index = Self { by, entries: Vec::new() };
        let mut places: HashMap<Digest, usize> = HashMap::new();
        for descriptor in fields.manifests.map_or(Vec::new(), |list| list.0) {
            let names = descriptor.names();
            let next = index.entries.len();
            let place = *places.entry(descriptor.digest.clone()).or_insert(next);
            if place == next {
                index.entries.push(IndexEntry::new(descriptor));
            }
            let entry = &mut index.entries[place];
            for name in names {
                if !entry.names.contains(&name) {
                    entry.names.push(name);
                }
            }
        }
        for entry in &mut index.entries {
            entry.lists_referrers_of = entry.names.iter().find_map(|name| {
                let subject = referrers_tag_of(name)?;
                is_index(&entry.descriptor.media_type).then_some(subject)
            });
        }
        Ok(index)
    }

    /// The one manifest of what has no list, from the file of this name.
    pub fn of(by: &'static str, descriptor: Descriptor) -> Self {
        Self { by: Listing::File(by), entries: vec![IndexEntry::new(descriptor)] }
    }

    /// The names of all images.
    pub fn names(&self) -> Vec<String> {
        let images = self.entries.iter().filter(|entry| entry.lists_referrers_of.is_none());
        images.flat_map(|entry| entry.names.iter().cloned()).collect()
    }

    /// Finds out what belongs to what. A layout of one image is not read for it.
    pub fn survey(&self, reader: &mut Reader<'_>) -> Result<Survey, Error> {
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
                        referrers.push(Referrer { subject, descriptor: child, by });
                    }
                }
                continue;
            }
            listed.extend(children.into_iter().map(|child| child.digest));
            own.push((place, subject.is_some()));
            if let Some(subject) = subject {
                let (descriptor, by) = (descriptor.clone(), self.by.clone());
                referrers.push(Referrer { subject, descriptor, by });
            }
        }
        // Some programs list all manifests here, those within an index and referrers included.
        own.retain(|(place, _)| {
            let entry = &self.entries[*place];
            !entry.names.is_empty() || !listed.contains(&entry.descriptor.digest)
        });
        let only_referrers = own.iter().all(|(_, refers)| *refers);
        own.retain(|(_, refers)| only_referrers || !refers);
        Ok(Survey { roots: own.into_iter().map(|(place, _)| place).collect(), referrers })
    }

    /// The images, without what belongs to another.
    pub fn roots(&self, survey: &Survey) -> Vec<Chosen> {
        survey.roots.iter().map(|&place| self.chosen(&self.entries[place])).collect()
    }

    /// All that is listed.
    pub fn all(&self) -> Vec<Chosen> {
        self.entries.iter().map(|entry| self.chosen(entry)).collect()
    }

    /// The images of this name: those that have it as it is written, or else those that have it in
    /// another form, as `v1` and `app:v1` are forms of `docker.io/library/app:v1`.
    pub fn named(&self, wanted: &str) -> Vec<Chosen> {
        let images = self.entries.iter().filter(|entry| entry.lists_referrers_of.is_none());
        let having = |fits: &dyn Fn(&String) -> bool| -> Vec<Chosen> {
            let fitting = images.clone().filter(|entry| entry.names.iter().any(fits));
            fitting.map(|entry| self.chosen(entry)).collect()
        };
        let exact = having(&|name| name == wanted);
        if !exact.is_empty() {
            return exact;
        }
        let whole = parse_reference(wanted);
        having(&|name| {
            let tag = name.rsplit_once(':').map(|(_, tag)| tag);
            let is_form = whole.is_some() && parse_reference(name) == whole;
            is_form || (is_tag(wanted) && tag == Some(wanted))
        })
    }

    fn chosen(&self, entry: &IndexEntry) -> Chosen {
        Chosen {
            descriptor: entry.descriptor.clone(),
            by: self.by.clone(),
            names: entry.names.clone(),
        }
    }
}

impl IndexEntry {
    fn new(descriptor: Descriptor) -> Self {
        Self { descriptor, names: Vec::new(), lists_referrers_of: None }
    }
}

/// The manifest whose referrers have this tag (OCI distribution-spec 1.1, "Referrers Tag Schema").
fn referrers_tag_of(name: &str) -> Option<Digest> {
    Digest::from_sha256_hex(name.strip_prefix("sha256-")?).ok()
}
