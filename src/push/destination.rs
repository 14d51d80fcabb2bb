//! Where an image goes: a repository, and the tags or the digest there.

use crate::image::Reference;

use super::input::{Images, Input, Opened};
use super::options::Item;
use super::slot::IndexSlot;
use crate::choice::{pick, selected, several};
use crate::error::Error;
use crate::image::{Digest, parse_reference};
use crate::source::layout::Tree;
use crate::source::{self, Image};

/// Where an image goes.
pub struct Destination {
    reference: Reference,
    tags: Vec<String>,
    /// The tags belong to the index that lists the image, not to the image itself.
    is_tagged_above: bool,
}

impl Destination {
    /// The destination that the user gave, or else the only name that the image has.
    pub async fn choose(
        item: &Item,
        input: &Input,
        opened: &Opened,
        slot: Option<&IndexSlot<'_>>,
    ) -> Result<Self, Error> {
        let reference = match (&item.destination, opened) {
            (Some(reference), _) => reference.clone(),
            (None, Opened::Layout(tree)) => named_by_layout(tree)?,
            (None, Opened::Archive(images)) => named_by_images(item, input, images).await?,
        };
        Ok(Self::new(reference, &item.tags, slot.is_some()))
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

    /// The references of an image that may have been pushed before: the tags, or the digest if
    /// there are no tags.
    pub fn lookups(&self) -> Vec<String> {
        match self.reference.digest() {
            Some(digest) if self.tags.is_empty() => vec![digest.to_owned()],
            _ => self.tags.clone(),
        }
    }

    /// The references under which a manifest with this digest is put: the tags, or the digest if
    /// there are no tags.
    pub fn references(&self, made: &Digest) -> Vec<String> {
        match self.tags() {
            [] => vec![made.to_string()],
            tags => tags.to_vec(),
        }
    }

    /// The name that always refers to this manifest.
    pub fn pinned(&self, manifest: &Digest) -> String {
        format!("{}/{}@{manifest}", self.host(), self.repository())
    }

    /// The name to show: `host/repository:tag` with the first tag.
    pub fn name(&self) -> String {
        let repository = format!("{}/{}", self.host(), self.repository());
        match (self.tags.first(), self.reference.digest()) {
            (Some(tag), _) => format!("{repository}:{tag}"),
            (None, Some(digest)) => format!("{repository}@{digest}"),
            (None, None) => repository,
        }
    }

    /// The image to push.
    pub fn pick(&self, item: &Item, images: &[Image]) -> Result<Image, Error> {
        pick(&item.image, &item.selection, &self.reference, images)
    }

    /// An error if the destination has a digest that is not the manifest's.
    pub fn check(&self, made: &Digest) -> Result<(), Error> {
        // If the image belongs to an index, the digest is that of the index.
        match self.reference.digest().filter(|_| !self.is_tagged_above) {
            Some(asked) if asked != made.as_str() => Err(Error::Failed(format!(
                "the image's manifest is {made}, not {asked} as the destination says; nothing was \
                 tagged"
            ))),
            _ => Ok(()),
        }
    }
}

async fn named_by_images(item: &Item, input: &Input, images: &Images) -> Result<Reference, Error> {
    let name = match (images.images(), images.early_name()) {
        (Some(images), _) => the_one_name(item, &selected(&item.image, &item.selection, images)?)?,
        (None, Some(name)) => name,
        (None, None) => {
            the_one_name(item, &selected(&item.image, &item.selection, &input.images().await?)?)?
        }
    };
    named_by_itself(&name)
}

fn named_by_layout(tree: &Tree) -> Result<Reference, Error> {
    // A name without a `/` is only a tag. Most layouts have only tags.
    let mut whole = tree.names.iter().filter(|name| name.contains('/'));
    match (whole.next(), whole.next()) {
        (Some(name), None) => named_by_itself(name),
        _ => Err(Error::Usage(
            "the layout does not say where its image belongs; give the destination: \
             pushimg IMAGE HOST/REPOSITORY:TAG"
                .to_owned(),
        )),
    }
}

/// The destination that the image's own name gives.
pub fn named_by_itself(name: &str) -> Result<Reference, Error> {
    parse_reference(name).ok_or_else(|| {
        Error::Usage(format!(
            "the image names itself {name:?}, which is no destination; give one: \
             pushimg IMAGE HOST/REPOSITORY:TAG"
        ))
    })
}

fn the_one_name(item: &Item, images: &[&Image]) -> Result<String, Error> {
    let mut names = images.iter().flat_map(|image| &image.names);
    match (names.next(), names.next()) {
        (Some(name), None) => Ok(name.clone()),
        (None, _) => Err(Error::Usage(
            "the image carries no name of its own (RepoTags is empty); give the destination: \
             pushimg IMAGE HOST/REPOSITORY:TAG"
                .to_owned(),
        )),
        (Some(_), Some(_)) if images.len() > 1 => Err(several(&item.image, images)),
        (Some(_), Some(_)) => Err(Error::Usage(format!(
            "the image carries several names; give one of them as the destination: {}",
            source::list(images.iter().copied())
        ))),
    }
}
