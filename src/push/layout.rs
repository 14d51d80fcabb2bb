//! The blobs of a layout, which are pushed as they are stored.

use std::collections::HashSet;
use std::sync::Arc;

use futures::future::try_join_all;
use parking_lot::Mutex;

use super::blobs::{RepositoryBlobs, Upload};
use super::content::{Checked, InRepository};
use super::image_push::{BlobResult, Brought, Failure, Form, ImagePush};
use super::manifests::{PutTarget, reachable};
use crate::error::Error;
use crate::event::{self, Event};
use crate::image::{Blob, Compression, IndexEntry, Platform};
use crate::registry::upload::UploadSource;
use crate::report::{Known, LayerReport, Outcome};
use crate::reuse::{Candidate, Reuse, Why};
use crate::source::layout::{Node, StoredBlob, Tree};
use crate::source::{self, LayerId, Location};

/// A blob of the tree.
struct Part<'a> {
    stored: &'a StoredBlob,
    /// The report of the layer; `None` for a config.
    layer: Option<LayerReport>,
    /// Whether a tag already points to a manifest that lists the blob, directly or not.
    is_tagged: bool,
}

/// Brings the blobs of a tree to the repository.
pub async fn bring(
    push: &ImagePush<'_>,
    tree: Tree,
    target: &PutTarget<'_>,
    known: &Reuse,
) -> Result<Brought, Failure> {
    check_format(push, &tree)?;
    let digest = &tree.nodes[tree.root].digest;
    target.destination.check(digest)?;
    let entries = index_entries(push, &tree)?;
    let there = match target.is_there(digest).await {
        true => reachable(&tree),
        false => HashSet::new(),
    };
    if let (Some(config), true) = (&tree.nodes[tree.root].config, there.is_empty()) {
        // Needed only to report what changes.
        known.expect(config.diff_ids(), &[]).await;
    }
    let parts = parts(&tree, &there);
    let layers = parts.iter().filter(|part| part.layer.is_some()).count();
    (push.events)(Event::LayerCount(layers));
    let ledger = push.run.ledger.of(target.repository, push.number, push.events);
    let tagged: Arc<str> = target.destination.name().into();
    let reported = Mutex::new(HashSet::new());
    let bring = async |(place, part): (usize, &Part<'_>)| {
        let outcome = match part.is_tagged {
            true => Outcome::Reused { why: Known::PreviousImage(tagged.clone()) },
            false => bring_part(push, LayerId(place), part, known, &ledger).await?,
        };
        let StoredBlob { digest, size, .. } = part.stored;
        Ok::<_, Error>(match &part.layer {
            Some(layer) => {
                let layer = LayerReport { outcome, ..layer.clone() };
                let mut report = layer.clone();
                if !reported.lock().insert(digest.clone()) {
                    report.outcome = Outcome::Reused { why: Known::SameAsLayer };
                }
                (push.events)(Event::LayerDone { layer: LayerId(place), report });
                BlobResult::Layer(layer)
            }
            None => BlobResult::Config { digest: digest.clone(), size: *size, outcome },
        })
    };
    let blobs = try_join_all(parts.iter().enumerate().map(bring)).await?;
    known.forget(&ledger.refused());
    Ok(Brought { forms: vec![Form { tree, blobs, entries }], archive: None })
}

async fn bring_part(
    push: &ImagePush<'_>,
    id: LayerId,
    part: &Part<'_>,
    known: &Reuse,
    blobs: &RepositoryBlobs<'_>,
) -> Result<Outcome, Error> {
    let StoredBlob { digest, size, region, .. } = part.stored;
    let blob = Blob { digest: digest.clone(), size: *size, compression: Compression::None };
    let (name, events) = match &part.layer {
        Some(layer) => (layer.name.to_string(), push.events.clone()),
        None => (digest.short().to_owned(), event::ignore()),
    };
    let (candidates, content): (_, Arc<dyn UploadSource>) = match (region, &push.item.image) {
        (Some(region), _) => {
            let content = Arc::new(Checked::new(region.clone(), digest.clone()));
            let upload = Upload { layer: id, name, content: content.clone(), events };
            let outcome = blobs.ensure(&blob, &known.holders(&blob).await, &upload).await;
            return outcome.map_err(|error| content.problem().unwrap_or(error));
        }
        (None, Location::Registry(image)) if !part.stored.is_foreign() => {
            let registry = blobs.repository().registry();
            let theirs = registry.readable_repository(image.repository());
            let (repository, why) = (theirs.shared_name(), Why::Listed(image.to_string().into()));
            let candidate = Candidate { blob: blob.clone(), repository, why };
            (vec![candidate], Arc::new(InRepository::new(theirs, digest.clone(), *size)))
        }
        // A foreign layer that the image does not contain. The registry need not have it.
        (None, _) => return Ok(Outcome::Reused { why: Known::Elsewhere }),
    };
    blobs.ensure(&blob, &candidates, &Upload { layer: id, name, content, events }).await
}

/// The blobs of the tree. For an index, each blob is returned once; for a single manifest, as often
/// as the manifest lists it.
fn parts<'a>(tree: &'a Tree, there: &HashSet<usize>) -> Vec<Part<'a>> {
    let is_index = tree.nodes[tree.root].blobs.is_empty();
    let mut seen = HashSet::new();
    let mut parts: Vec<Part<'_>> = Vec::new();
    for (node_place, node) in tree.nodes.iter().enumerate() {
        let config = node.config.as_ref();
        let history: Vec<_> = config.iter().flat_map(|config| config.layer_history()).collect();
        for (place, stored) in node.blobs.iter().enumerate() {
            let is_new = seen.insert(stored.digest.clone());
            if !is_new && (is_index || place == 0 || node_place != tree.root) {
                continue;
            }
            // The config comes first.
            let layer = place.checked_sub(1).map(|place| {
                let named = history.get(place).and_then(|entry| source::name_from_history(entry));
                LayerReport {
                    name: named.map_or_else(|| stored.digest.short().into(), Into::into),
                    diff_id: config.and_then(|config| config.diff_ids().get(place).cloned()),
                    digest: stored.digest.clone(),
                    size: stored.size,
                    media_type: stored.media_type.as_str().into(),
                    compression: Compression::of_media_type(&stored.media_type)
                        .unwrap_or(Compression::None),
                    // A placeholder until the outcome is known.
                    outcome: Outcome::WouldUpload,
                }
            });
            parts.push(Part { stored, layer, is_tagged: there.contains(&node_place) });
        }
    }
    parts
}

/// A manifest that is stored in one format cannot be put in the other.
fn check_format(push: &ImagePush<'_>, tree: &Tree) -> Result<(), Error> {
    let stored = tree.nodes[tree.root].manifest().format();
    match (push.options().format, stored) {
        (Some(asked), Some(stored)) if asked != stored => Err(Error::Usage(format!(
            "{} holds a manifest of the format {stored}, which is put as it is; leave out \
             --format {asked}",
            push.item.image
        ))),
        _ => Ok(()),
    }
}

/// The entries of the tree for an index: its images, with their platforms.
fn index_entries(push: &ImagePush<'_>, tree: &Tree) -> Result<Vec<IndexEntry>, Error> {
    let Some(slot) = push.slot else { return Ok(Vec::new()) };
    let (mut entries, mut platforms) = (Vec::new(), HashSet::new());
    for image in images(tree) {
        let Some(platform) = &image.platform else { continue };
        if !platforms.insert(platform) {
            return Err(Error::Usage(format!(
                "{image} holds two images for {platform}, and an index has one for each \
                 platform; choose one of them: {image}@sha256:…",
                image = push.item.image
            )));
        }
        slot.take(platform)?;
        entries.push(IndexEntry::of(&image.manifest(), platform));
    }
    if entries.is_empty() {
        return Err(Error::Usage(format!(
            "{} holds no image of a platform, which an index could list",
            push.item.image
        )));
    }
    Ok(entries)
}

/// The images that the root lists, directly or not. Attestations have the platform "unknown" and do
/// not count.
fn images(tree: &Tree) -> Vec<&Node> {
    let (mut images, mut seen) = (Vec::new(), HashSet::new());
    // A stack: the last element is visited next.
    let mut waiting = vec![tree.root];
    while let Some(place) = waiting.pop() {
        let node = &tree.nodes[place];
        if !seen.insert(place) {
            continue;
        }
        let is_known = |platform: &Platform| !platform.is_unknown();
        if node.config.is_some() && node.platform.as_ref().is_some_and(is_known) {
            images.push(node);
        }
        waiting.extend(node.children.iter().rev());
    }
    images
}
