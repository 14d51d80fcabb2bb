//! Where an image goes: a repository, and the tags or the digest there.

use oci_client::Reference;

use super::Item;
use super::input::Input;
use crate::error::Error;
use crate::image::{Digest, parse_reference};
use crate::source::Image;

/// How many names a message lists.
const MAX_LISTED: usize = 10;

/// Where an image goes.
pub struct Destination {
    reference: Reference,
    tags: Vec<String>,
}

impl Destination {
    /// The destination that the user gave, or else the one name that the image carries.
    pub async fn choose(
        item: &Item,
        input: &Input,
        images: Option<&[Image]>,
    ) -> Result<Self, Error> {
        let reference = match &item.destination {
            Some(reference) => reference.clone(),
            None => {
                let name = match images {
                    Some(images) => the_one_name(images)?,
                    None => the_one_name(&input.images().await?)?,
                };
                parse_reference(&name).ok_or_else(|| {
                    Error::Usage(format!(
                        "the image names itself {name:?}, which is no destination; give one: \
                         pushimg IMAGE HOST/REPOSITORY:TAG"
                    ))
                })?
            }
        };
        let mut tags: Vec<String> = reference.tag().map(str::to_owned).into_iter().collect();
        for tag in &item.tags {
            if !tags.contains(tag) {
                tags.push(tag.clone());
            }
        }
        Ok(Self { reference, tags })
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
        &self.tags
    }

    /// What the manifest is put under: the tags, or the digest where there are none.
    pub fn references(&self) -> Vec<String> {
        match self.reference.digest() {
            Some(digest) if self.tags.is_empty() => vec![digest.to_owned()],
            _ => self.tags.clone(),
        }
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

    /// The image to push: the only one of its archive, or the one that the archive gives the name of
    /// the destination.
    pub fn pick(&self, images: &[Image]) -> Result<Image, Error> {
        let is_ours = |name: &String| parse_reference(name).as_ref() == Some(&self.reference);
        let named = |image: &&Image| image.names.iter().any(is_ours);
        match images {
            [image] => Ok(image.clone()),
            _ => images.iter().find(named).cloned().ok_or_else(|| {
                Error::Usage(format!(
                    "the archive holds {} images, and pushimg pushes one: {}; make an archive of the \
                     one (`docker save NAME`), or give its own name as the destination to push it \
                     there",
                    images.len(),
                    list(images)
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
            "the archive holds {} images: {}; give the name of one as the destination to push it \
             there, or make an archive of the one (`docker save NAME`)",
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
