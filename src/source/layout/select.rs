//! Finds the image of a layout that the user means.

use std::collections::HashSet;
use std::sync::Arc;

use super::error::{LayoutError, Listing};
use super::index::{Chosen, LayoutIndex};
use super::manifest::Descriptor;
use super::read::{BlobStore, MAX_DEPTH, ManifestReader};
use crate::image::{Digest, Platform};
use crate::source::error::Error;
use crate::source::printable::printable;
use crate::source::role::EntryRole;
use crate::source::selection::{ChoiceError, Selection};

/// How many images or platforms a message lists.
const MAX_LISTED: usize = 10;

/// How many characters of a name a message shows.
const MAX_SHOWN: usize = 200;

/// Chooses one of a layout's images.
pub struct Chooser<'a> {
    /// The layout's name for messages.
    pub file: &'a Arc<str>,
    /// Where its manifests are.
    pub store: &'a dyn BlobStore,
    /// Its images.
    pub index: &'a LayoutIndex,
}

/// A manifest or an index, and where it is listed.
struct ManifestFound {
    descriptor: Descriptor,
    by: Listing,
    is_index: bool,
}

impl Chooser<'_> {
    /// The one image that the selection means.
    pub fn choose(&self, roots: Vec<Chosen>, selection: &Selection) -> Result<Chosen, Error> {
        let mut choice = match (&selection.name, &selection.digest) {
            (Some(name), _) => {
                let named = self.index.named(name);
                if named.is_empty() {
                    return Err(self.no_such(name.clone(), &roots).into());
                }
                named
            }
            // The digest may be that of any listed manifest.
            (None, Some(_)) => self.index.all(),
            (None, None) => roots.clone(),
        };
        if let Some(digest) = &selection.digest {
            let found = self.find(&choice, digest)?;
            choice = vec![found.ok_or_else(|| self.no_such(digest.to_string(), &roots))?];
        }
        if let Some(platform) = &selection.platform {
            choice = self.for_platform(choice, platform)?;
        }
        match choice.len() {
            0 => Err(LayoutError::Empty { file: self.file.clone() }.into()),
            1 => Ok(choice.swap_remove(0)),
            count => Err(ChoiceError::SeveralImages {
                file: self.file.clone(),
                count,
                listed: listed(choice.iter().map(|one| shown(one, selection.name.is_some()))),
            }
            .into()),
        }
    }

    /// The manifest with this digest: one of `starts`, or one that they list, at any depth.
    fn find(&self, starts: &[Chosen], wanted: &Digest) -> Result<Option<Chosen>, Error> {
        if let Some(start) = starts.iter().find(|start| start.descriptor.digest == *wanted) {
            return Ok(Some(start.clone()));
        }
        for start in starts {
            let all = self.within(start, &mut self.reader())?;
            if let Some(found) = all.into_iter().find(|one| one.descriptor.digest == *wanted) {
                return Ok(Some(found.chosen(start)));
            }
        }
        Ok(None)
    }

    /// For each of `starts`, the manifest for the platform: itself, or one that it lists. If there
    /// are several, the first is taken, as runtimes do. If any manifests have exactly this variant,
    /// only these are returned.
    fn for_platform(&self, starts: Vec<Chosen>, wanted: &Platform) -> Result<Vec<Chosen>, Error> {
        let (mut same, mut matching) = (Vec::new(), Vec::new());
        let (mut others, mut once) = (Vec::new(), HashSet::new());
        for start in &starts {
            let mut reader = self.reader();
            let (mut first_same, mut first_matching) = (None, None);
            for found in self.within(start, &mut reader)? {
                let Some(platform) = platform_of(&found, &mut reader)? else {
                    continue;
                };
                if platform == *wanted {
                    first_same.get_or_insert_with(|| found.chosen(start));
                } else if wanted.matches(&platform) {
                    first_matching.get_or_insert_with(|| found.chosen(start));
                } else if !platform.is_unknown() && once.insert(platform.clone()) {
                    // The platform of attestations is not listed.
                    others.push(platform);
                }
            }
            same.extend(first_same);
            matching.extend(first_matching);
        }
        let mut best = if same.is_empty() { matching } else { same };
        let mut once = HashSet::new();
        best.retain(|one| once.insert(one.descriptor.digest.clone()));
        if best.is_empty() && !starts.is_empty() {
            return Err(ChoiceError::NoSuchPlatform {
                file: self.file.clone(),
                wanted: wanted.to_string(),
                listed: listed(others.iter().map(|platform| cut(&platform.to_string()))),
            }
            .into());
        }
        Ok(best)
    }

    /// A manifest and, if it is an index, everything that it lists at any depth, each once.
    fn within(
        &self,
        start: &Chosen,
        reader: &mut ManifestReader<'_>,
    ) -> Result<Vec<ManifestFound>, Error> {
        let mut all = Vec::new();
        // The manifests that are still to be read. The last one is read next.
        let mut waiting = vec![(start.descriptor.clone(), start.by.clone(), 0)];
        let mut seen = HashSet::new();
        while let Some((descriptor, by, depth)) = waiting.pop() {
            if depth > MAX_DEPTH {
                return Err(LayoutError::TooLarge {
                    file: self.file.clone(),
                    limit: MAX_DEPTH as u64,
                    what: "indexes one within the other",
                }
                .into());
            }
            if !seen.insert(descriptor.digest.clone()) {
                continue;
            }
            let children = match descriptor.may_be_index() {
                true => reader.manifest(&descriptor, &by)?.1.manifests,
                false => None,
            };
            let this = Listing::Manifest(descriptor.digest.clone());
            all.push(ManifestFound { descriptor, by, is_index: children.is_some() });
            let children = children.into_iter().flatten().rev();
            waiting.extend(children.map(|child| (child, this.clone(), depth + 1)));
        }
        Ok(all)
    }

    fn reader(&self) -> ManifestReader<'_> {
        ManifestReader::new(self.file, self.store)
    }

    fn no_such(&self, wanted: String, roots: &[Chosen]) -> ChoiceError {
        let listed = listed(roots.iter().map(|one| shown(one, false)));
        let wanted = wanted.chars().take(MAX_SHOWN).collect();
        ChoiceError::NoSuchImage { file: self.file.clone(), wanted, listed }
    }
}

impl ManifestFound {
    /// The manifest as a chosen image, with the names of the image in which it was found.
    fn chosen(&self, start: &Chosen) -> Chosen {
        let (descriptor, by) = (self.descriptor.clone(), self.by.clone());
        Chosen { descriptor, by, names: start.names.clone() }
    }
}

/// The platform of a manifest, from the index that lists it, or else from its config.
fn platform_of(
    found: &ManifestFound,
    reader: &mut ManifestReader<'_>,
) -> Result<Option<Platform>, Error> {
    let descriptor = &found.descriptor;
    if found.is_index || descriptor.platform.is_some() {
        return Ok(descriptor.platform.clone().filter(|_| !found.is_index));
    }
    if !descriptor.is_manifest() {
        return Ok(None);
    }
    // A layout may contain only some of the platforms of an index.
    let Some((_, manifest)) = reader.manifest_if_there(descriptor, &found.by)? else {
        return Ok(None);
    };
    let this = Listing::Manifest(descriptor.digest.clone());
    let Some(config) = &manifest.config else {
        return Ok(None);
    };
    let Some(region) = reader.blob(config, &this, EntryRole::Config)? else {
        return Ok(None);
    };
    let config = reader.config(&manifest, &region, &this)?;
    Ok(config.map(|config| config.platform().clone()))
}

/// An image as a message shows it: by its names, or its digest.
fn shown(one: &Chosen, with_digest: bool) -> String {
    let digest = &one.descriptor.digest;
    match one.names.as_slice() {
        [] => digest.to_string(),
        names if with_digest => format!("{} ({digest})", cut(&names.join(", "))),
        names => cut(&names.join(", ")),
    }
}

/// Text from outside, safe to print and not too long.
fn cut(text: &str) -> String {
    printable(&text.chars().take(MAX_SHOWN).collect::<String>())
}

/// The first few of a list.
fn listed(all: impl ExactSizeIterator<Item = String>) -> String {
    let more = all.len().saturating_sub(MAX_LISTED);
    let first: Vec<String> = all.take(MAX_LISTED).collect();
    match (first.as_slice(), more) {
        ([], _) => "nothing".to_owned(),
        (first, 0) => first.join(", "),
        (first, more) => format!("{} and {more} more", first.join(", ")),
    }
}
