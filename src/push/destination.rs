//! Where an image goes: a repository, and the tags or the digest there.

use oci_client::Reference;

use super::Item;
use super::input::{Images, Input};
use super::several::Place;
use crate::error::Error;
use crate::image::{Digest, Platform, parse_reference};
use crate::source::layout::Tree;
use crate::source::{Image, Selection};

/// How many names a message lists.
const MAX_LISTED: usize = 10;

/// Where an image goes.
pub struct Destination {
    reference: Reference,
    tags: Vec<String>,
    /// The tags go to the index that the image is for.
    is_tagged_above: bool,
}

impl Destination {
    /// The destination that the user gave, or else the one name that the image carries.
    pub async fn choose(
        item: &Item,
        input: &Input,
        opened: &Images,
        place: Option<&Place<'_>>,
    ) -> Result<Self, Error> {
        let reference = match &item.destination {
            Some(reference) => reference.clone(),
            None => {
                let name = match (opened.images(), opened.early_name()) {
                    (Some(images), _) => the_one_name(&selected(&item.selection, images)?)?,
                    (None, Some(name)) => name,
                    (None, None) => {
                        the_one_name(&selected(&item.selection, &input.images().await?)?)?
                    }
                };
                named_by_itself(&name)?
            }
        };
        Ok(Self::new(reference, &item.tags, place.is_some()))
    }

    /// The destination of a reference, with these tags besides its own.
    pub fn new(reference: Reference, more_tags: &[String], is_tagged_above: bool) -> Self {
        let mut tags: Vec<String> = reference.tag().map(str::to_owned).into_iter().collect();
        for tag in more_tags {
            if !tags.contains(tag) {
                tags.push(tag.clone());
            }
        }
        Self { reference, tags, is_tagged_above }
    }

    /// The registry's host, as users write it.
    pub fn host(&self) -> &str {
        self.reference.registry()
    }

    /// The repository's name at that host.
    pub fn repository(&self) -> &str {
        self.reference.repository()
    }

    /// The tags that the manifest is put under.
    pub fn tags(&self) -> &[String] {
        if self.is_tagged_above { &[] } else { &self.tags }
    }

    /// Where an image may be that was pushed before: the tags, or the digest where there are none.
    pub fn lookups(&self) -> Vec<String> {
        match self.reference.digest() {
            Some(digest) if self.tags.is_empty() => vec![digest.to_owned()],
            _ => self.tags.clone(),
        }
    }

    /// What a manifest of this digest is put under: the tags, or the digest where there are none.
    pub fn references(&self, made: &Digest) -> Vec<String> {
        match self.tags() {
            [] => vec![made.to_string()],
            tags => tags.to_vec(),
        }
    }

    /// Where a tree of manifests goes: where the user says, or where its own name says.
    pub fn of_tree(item: &Item, tree: &Tree, place: Option<&Place<'_>>) -> Result<Self, Error> {
        let reference = match &item.destination {
            Some(reference) => reference.clone(),
            None => {
                // Most layouts give no more than a tag.
                let mut whole = tree.names.iter().filter(|name| name.contains('/'));
                match (whole.next(), whole.next()) {
                    (Some(name), None) => named_by_itself(name)?,
                    _ => {
                        return Err(Error::Usage(
                            "the layout does not say where its image belongs; give the \
                             destination: pushimg IMAGE HOST/REPOSITORY:TAG"
                                .to_owned(),
                        ));
                    }
                }
            }
        };
        Ok(Self::new(reference, &item.tags, place.is_some()))
    }

    /// What a manifest can be pulled by for ever.
    pub fn pinned(&self, manifest: &Digest) -> String {
        format!("{}/{}@{manifest}", self.host(), self.repository())
    }

    /// The name for people: `host/repository:tag` of the first tag.
    pub fn name(&self) -> String {
        let repository = format!("{}/{}", self.host(), self.repository());
        match (self.tags.first(), self.reference.digest()) {
            (Some(tag), _) => format!("{repository}:{tag}"),
            (None, Some(digest)) => format!("{repository}@{digest}"),
            (None, None) => repository,
        }
    }

    /// The image to push: the only one that is meant, or the one that the archive gives the name of
    /// the destination.
    pub fn pick(&self, selection: &Selection, images: &[Image]) -> Result<Image, Error> {
        let meant = selected(selection, images)?;
        let is_ours = |name: &String| parse_reference(name).as_ref() == Some(&self.reference);
        let named = |image: &&Image| image.names.iter().any(is_ours);
        match meant.as_slice() {
            [image] => Ok(image.clone()),
            _ => meant.iter().find(named).cloned().ok_or_else(|| {
                Error::Usage(format!(
                    "the archive holds {} images: {}; choose one with --image NAME, or push each \
                     under its own name with --all",
                    meant.len(),
                    list(&meant)
                ))
            }),
        }
    }

    /// Whether the manifest made is the one that the destination's digest asks for.
    pub fn check(&self, made: &Digest) -> Result<(), Error> {
        match self.reference.digest() {
            Some(asked) if asked != made.as_str() => Err(Error::Failed(format!(
                "the image's manifest is {made}, not {asked} as the destination says; nothing was \
                 tagged"
            ))),
            _ => Ok(()),
        }
    }
}

/// The images that are meant; at least one.
fn selected(selection: &Selection, images: &[Image]) -> Result<Vec<Image>, Error> {
    let is_meant = |image: &&Image| {
        let Selection { name, digest, platform } = selection;
        name.as_ref().is_none_or(|name| image.names.iter().any(|own| is_called(own, name)))
            && digest.as_ref().is_none_or(|digest| digest == image.config.digest())
            && platform.as_ref().is_none_or(|ours| ours.matches(image.config.platform()))
    };
    let mut meant: Vec<Image> = images.iter().filter(is_meant).cloned().collect();
    if let Some(name) = &selection.name
        && meant.iter().any(|image| image.names.contains(name))
    {
        // The very name goes before others that would do.
        meant.retain(|image| image.names.contains(name));
    }
    if !meant.is_empty() || images.is_empty() {
        return Ok(meant);
    }
    let asked = [
        selection.name.clone(),
        selection.digest.as_ref().map(Digest::to_string),
        selection.platform.as_ref().map(Platform::to_string),
    ];
    let asked: Vec<String> = asked.into_iter().flatten().collect();
    Err(Error::Usage(format!(
        "the archive holds no image {}; it holds: {}",
        asked.join(" for "),
        list(images)
    )))
}

/// Whether an image of this name is what somebody asks for by another: the same reference, or its
/// tag.
fn is_called(own: &str, asked: &str) -> bool {
    let tag = |name: &str| parse_reference(name)?.tag().map(str::to_owned);
    own == asked
        || parse_reference(own).is_some_and(|own| parse_reference(asked) == Some(own))
        || tag(own).as_deref() == Some(asked)
}

/// The destination that an image's own name is.
pub fn named_by_itself(name: &str) -> Result<Reference, Error> {
    parse_reference(name).ok_or_else(|| {
        Error::Usage(format!(
            "the image names itself {name:?}, which is no destination; give one: \
             pushimg IMAGE HOST/REPOSITORY:TAG"
        ))
    })
}

fn the_one_name(images: &[Image]) -> Result<String, Error> {
    let mut names = images.iter().flat_map(|image| &image.names);
    match (names.next(), names.next()) {
        (Some(name), None) => Ok(name.clone()),
        (None, _) => Err(Error::Usage(
            "the image carries no name of its own (RepoTags is empty); give the destination: \
             pushimg IMAGE HOST/REPOSITORY:TAG"
                .to_owned(),
        )),
        (Some(_), Some(_)) if images.len() > 1 => Err(Error::Usage(format!(
            "the archive holds {} images: {}; choose one with --image NAME, or push each under its \
             own name with --all",
            images.len(),
            list(images)
        ))),
        (Some(_), Some(_)) => Err(Error::Usage(format!(
            "the image carries several names; give one of them as the destination: {}",
            list(images)
        ))),
    }
}

/// The names of images, those that have none by their ids.
fn list(images: &[Image]) -> String {
    let names: Vec<String> = images
        .iter()
        .flat_map(|image| match image.names.as_slice() {
            [] => vec![format!("(unnamed, {})", image.config.digest().short())],
            names => names.iter().map(|name| name.escape_debug().to_string()).collect(),
        })
        .collect();
    match names.split_at_checked(MAX_LISTED) {
        Some((shown, more)) if !more.is_empty() => {
            format!("{} and {} more", shown.join(", "), more.len())
        }
        _ => names.join(", "),
    }
}
