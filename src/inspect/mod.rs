//! What is in an image: its names, its config, its layers and what they contain. On request also
//! which layers a registry has, and what a push would send.
//!
//! A local image or one in a registry comes in, an [`Inspection`] goes out. [`Comparison`] compares
//! two images. Nothing is written anywhere.

mod comparison;
mod config;
mod reading;

use std::collections::{HashMap, HashSet};

use crate::image::Reference;
use serde::{Serialize, Serializer};

use crate::error::Error;
use crate::event::Events;
use crate::image::{DiffId, Digest, Platform};
use crate::push::{Item, PushOptions, push};
use crate::report::{Known, LayerReport, Outcome, Report};
use crate::source::layout::Tree;
use crate::source::{Image, LayerId, Location, Selection};
use crate::{registry, remote};

pub use self::comparison::{ComparedLayer, Comparison, LayerState};
pub(crate) use self::reading::not_an_image;

/// The images of one place, and what a push of them would do.
#[derive(Clone, Debug, Serialize)]
pub struct Inspection {
    /// The images, in the order in which they are stored. For an index, the images of all
    /// platforms.
    pub images: Vec<InspectedImage>,
    /// What a push would do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub against: Option<Against>,
}

/// An image.
#[derive(Clone, Debug, Serialize)]
pub struct InspectedImage {
    /// Its names.
    pub names: Vec<String>,
    /// The digest of its config.
    pub id: Digest,
    /// The digest of its manifest, if it has one already.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub manifest: Option<Digest>,
    /// Its platform.
    #[serde(serialize_with = "as_text")]
    pub platform: Platform,
    /// When it was built, according to its config.
    pub created: Option<String>,
    /// The program, and its first arguments.
    pub entrypoint: Vec<String>,
    /// The arguments after the entrypoint; without an entrypoint, the program and its arguments.
    pub cmd: Vec<String>,
    /// Environment variables, `NAME=VALUE`.
    pub env: Vec<String>,
    /// Ports that it listens on, `8080/tcp`.
    pub exposed_ports: Vec<String>,
    /// The working directory of the program.
    pub working_dir: Option<String>,
    /// The user that runs the program.
    pub user: Option<String>,
    /// Bytes of the layers as stored. A layer that occurs twice counts once.
    pub size: u64,
    /// The layers, lowest first.
    pub layers: Vec<InspectedLayer>,
}

/// A layer.
#[derive(Clone, Debug, Serialize)]
pub struct InspectedLayer {
    /// The digest of the uncompressed tar; `None` for a blob that is not a layer of an image.
    pub diff_id: Option<DiffId>,
    /// The digest of the blob, if it is stored as one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// Its length in bytes as stored. If pushimg makes the layer, the length of its tar.
    pub size: u64,
    /// The store paths in it, which Nix lists in the config's history.
    pub store_paths: Vec<String>,
    /// The command that made it, if the config's history has one.
    pub created_by: Option<String>,
    /// The layer's blob in the registry.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub registry: Option<AtRegistry>,
}

/// A layer's blob in a registry, and what a push would do with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AtRegistry {
    /// The blob's digest.
    pub digest: Digest,
    /// The blob's length in bytes.
    pub size: u64,
    /// What a push would do.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// What a push would do.
#[derive(Clone, Debug, Serialize)]
pub struct Against {
    /// `registry/repository:tag`.
    pub reference: String,
    /// Bytes of blobs and manifests that it would send.
    pub bytes_to_send: u64,
    /// How many layers it would upload.
    pub layers_to_upload: usize,
}

/// Reads the images at `location` that `selection` chooses. `against` is the destination of a push;
/// `options` are those of that push, which is a dry run.
///
/// Layers are not read if they can be skipped in the file.
pub async fn inspect(
    location: &Location,
    selection: &Selection,
    against: Option<&Reference>,
    options: &PushOptions,
    events: &Events,
) -> Result<Inspection, Error> {
    let mut inspection = reading::read(location, selection, options.may_run, events).await?;
    if let Some(destination) = against {
        let item = Item {
            image: location.clone(),
            selection: selection.clone(),
            destination: Some(destination.clone()),
            tags: Vec::new(),
            host: None,
        };
        let options = PushOptions { dry_run: true, ..options.clone() };
        inspection.compare(&push(&item, &options, events).await?);
    }
    Ok(inspection)
}

/// Reads an image in a registry, without its layers. If it is an index, reads the images of all
/// platforms, or only those for `platform`.
pub async fn inspect_remote(
    reference: &Reference,
    platform: Option<&Platform>,
    options: &registry::Options,
    events: &Events,
) -> Result<Inspection, Error> {
    let repository = remote::repository(reference, options, events);
    let images = remote::images(&repository, reference, platform).await?;
    let name = reference.to_string();
    let images = images.into_iter().map(|remote| {
        let blobs = remote.blobs.iter();
        let stored = blobs.map(|(digest, size)| (digest, *size, Some(digest.clone())));
        let mut image = InspectedImage::new(vec![name.clone()], &remote.config, stored);
        image.manifest = Some(remote.digest);
        image
    });
    Ok(Inspection { images: images.collect(), against: None })
}

impl Inspection {
    /// The images of a layout, including all images that its indexes list.
    pub(crate) fn of_trees(trees: &[Tree]) -> Self {
        let nodes = trees.iter().flat_map(|tree| {
            let place = move |(place, node)| (tree, place, node);
            tree.nodes.iter().enumerate().map(place)
        });
        let images = nodes.filter_map(|(tree, place, node)| {
            let config = node.config.as_ref()?;
            // Skip attestations: they look like images for the platform unknown/unknown.
            if place != tree.root && config.platform().is_unknown() {
                return None;
            }
            let names = if place == tree.root { tree.names.clone() } else { Vec::new() };
            // The first blob is the config.
            let layers = node.blobs.iter().skip(1);
            let stored = layers.map(|blob| (&blob.digest, blob.size, Some(blob.digest.clone())));
            let mut image = InspectedImage::new(names, config, stored);
            image.manifest = Some(node.digest.clone());
            Some(image)
        });
        Self { images: images.collect(), against: None }
    }

    /// The images of a source that is not a layout, with the lengths of the layers that it yielded.
    fn of_images(images: &[&Image], lengths: &HashMap<LayerId, u64>) -> Self {
        let images = images.iter().map(|image| {
            let length = |id| lengths.get(id).copied().unwrap_or_default();
            let stored = image.layers.iter().map(|id| (id, length(id), None));
            InspectedImage::new(image.names.clone(), &image.config, stored)
        });
        Self { images: images.collect(), against: None }
    }

    /// Adds the results of a dry run.
    fn compare(&mut self, report: &Report) {
        let by_digest: HashMap<&Digest, &LayerReport> =
            report.layers.iter().rev().map(|layer| (&layer.digest, layer)).collect();
        let by_diff_id: HashMap<&DiffId, &LayerReport> =
            report.layers.iter().rev().filter_map(|l| Some((l.diff_id.as_ref()?, l))).collect();
        let mut seen = HashSet::new();
        for layer in self.images.iter_mut().flat_map(|image| &mut image.layers) {
            let found = match (&layer.digest, &layer.diff_id) {
                (Some(digest), _) => by_digest.get(digest),
                (None, Some(diff_id)) => by_diff_id.get(diff_id),
                (None, None) => None,
            };
            layer.registry = found.map(|found| AtRegistry {
                digest: found.digest.clone(),
                size: found.size,
                outcome: match seen.insert(&found.digest) {
                    true => found.outcome.clone(),
                    false => Outcome::Reused { why: Known::SameAsLayer },
                },
            });
        }
        self.against = Some(Against {
            reference: report.reference.clone(),
            bytes_to_send: report.bytes_sent,
            layers_to_upload: report.layers_uploaded(),
        });
    }
}

/// `linux/amd64`, as in the report of a push.
fn as_text<S: Serializer>(platform: &Platform, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(platform)
}

#[cfg(test)]
mod tests;
