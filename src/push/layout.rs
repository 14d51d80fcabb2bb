//! The push of what is stored as a registry stores it: blobs as they are, then the manifests that
//! list them, the one that gets the tags last of all.

use std::collections::HashSet;
use std::sync::Arc;

use futures::future::{join_all, try_join_all};

use super::content::Checked;
use super::destination::Destination;
use super::input::blocking;
use super::ship::{Cargo, Shipping};
use super::{Attempt, Pushed, Setback, all_put, report};
use crate::error::Error;
use crate::event::{self, Event};
use crate::image::{Blob, Compression, Digest, IndexEntry, Platform};
use crate::registry::{Referrer, Repository};
use crate::report::{LayerReport, Outcome};
use crate::reuse::{self, Reuse};
use crate::source::layout::{Layout, Node, StoredBlob, Tree};
use crate::source::{self, LayerId};

/// A blob of the tree, and what there is to tell of it.
struct Part<'a> {
    stored: &'a StoredBlob,
    /// `None` for a config, which nobody wants to hear of.
    layer: Option<LayerReport>,
}

impl Attempt<'_> {
    /// Pushes the tree that is meant.
    pub(super) async fn run_layout(&self, layout: Layout) -> Result<Pushed, Setback> {
        let selection = self.item.selection.clone();
        let tree = blocking(move || Ok(layout.select(&selection)?)).await?;
        let root = &tree.nodes[tree.root];
        let manifest = root.manifest();
        self.check_format(root)?;
        let destination = Destination::of_tree(self.item, &tree, self.place)?;
        destination.check(&manifest.digest)?;
        self.together.take(self.number, &destination)?;
        let listed = self.listed(&tree)?;
        (self.events)(Event::Destination { reference: destination.name() });

        let repository = self.repository(&destination);
        let options = reuse::Options { dry_run: self.options.dry_run, ..reuse::Options::default() };
        let cache = self.together.cache.clone();
        let reuse = Reuse::begin(repository.clone(), options, cache, self.events.clone());
        let mut shipping = self.shipping(&repository, &reuse);
        shipping.sources = self.mount_sources(&destination);

        let parts = parts(&tree);
        let layers = parts.iter().filter(|part| part.layer.is_some()).count();
        (self.events)(Event::LayerCount(layers));
        let ship = |(place, part)| self.ship_part(&shipping, LayerId(place), part);
        let outcomes = try_join_all(parts.iter().enumerate().map(ship)).await?;
        if !self.options.dry_run {
            let all = parts.iter().map(|part| part.stored.digest.clone()).zip(outcomes.clone());
            self.put_tree(&repository, &destination, &tree, all.collect()).await?;
            let present: Vec<Digest> =
                parts.iter().map(|part| part.stored.digest.clone()).collect();
            reuse.remember(&[], &present);
            if let Some(config) = &root.config {
                let references = destination.references(&manifest.digest);
                reuse.remember_image(&references, &manifest, config);
            }
        }
        let sent = repository.bytes_sent();
        let told = parts.into_iter().zip(outcomes).map(|(part, outcome)| report::Told {
            size: part.stored.size,
            layer: part.layer,
            outcome,
        });
        let took = self.shared.started.elapsed();
        let dry_run = self.options.dry_run;
        let report = report::of_tree(&destination, &tree, told.collect(), sent, took, dry_run);
        Ok(Pushed { report, listed })
    }

    /// What is stored as a manifest cannot be put as another.
    fn check_format(&self, root: &Node) -> Result<(), Error> {
        let stored = root.manifest().format();
        match (self.options.format, stored) {
            (Some(asked), Some(stored)) if asked != stored => Err(Error::Usage(format!(
                "{} holds a manifest of the format {stored}, which is put as it is; leave out \
                 --format {asked}",
                self.item.image
            ))),
            _ => Ok(()),
        }
    }

    /// What an index lists for the tree: its images, with their platforms.
    fn listed(&self, tree: &Tree) -> Result<Vec<IndexEntry>, Error> {
        let Some(place) = self.place else { return Ok(Vec::new()) };
        let (mut entries, mut platforms) = (Vec::new(), HashSet::new());
        for image in images(tree) {
            let Some(platform) = &image.platform else { continue };
            if !platforms.insert(platform) {
                return Err(Error::Usage(format!(
                    "{image} holds two images for {platform}, and an index has one for each \
                     platform; choose one of them: {image}@sha256:…",
                    image = self.item.image
                )));
            }
            place.take(platform)?;
            entries.push(IndexEntry::of(&image.manifest(), platform));
        }
        if entries.is_empty() {
            return Err(Error::Usage(format!(
                "{} holds no image of a platform, which an index could list",
                self.item.image
            )));
        }
        Ok(entries)
    }

    /// The repositories of `--reuse-from`, which may have blobs to mount.
    fn mount_sources(&self, destination: &Destination) -> Vec<String> {
        let here = |image: &&oci_client::Reference| image.registry() == destination.host();
        let images = self.options.reuse_from.iter().filter(here);
        images.map(|image| image.repository().to_owned()).collect()
    }

    async fn ship_part(
        &self,
        shipping: &Shipping<'_>,
        id: LayerId,
        part: &Part<'_>,
    ) -> Result<Outcome, Error> {
        let StoredBlob { digest, size, region, .. } = part.stored;
        let Some(region) = region else {
            // Only others may hand it out; the registry need not have it.
            return Ok(Outcome::Reused { why: crate::report::Known::Elsewhere });
        };
        let blob = Blob { digest: digest.clone(), size: *size, compression: Compression::None };
        let content = Arc::new(Checked::new(region.clone(), digest.clone()));
        let (name, events) = match &part.layer {
            Some(layer) => (layer.name.clone(), self.events.clone()),
            None => (digest.short().to_owned(), event::ignore()),
        };
        let cargo = Cargo { layer: id, name, content: content.clone(), events };
        let outcome = shipping.ship(&blob, &cargo, None).await;
        let outcome = outcome.map_err(|error| content.problem().unwrap_or(error))?;
        if let Some(layer) = &part.layer {
            let report = LayerReport { outcome: outcome.clone(), ..layer.clone() };
            (self.events)(Event::LayerSettled { layer: id, report });
        }
        Ok(outcome)
    }

    /// Puts the manifests: by their digests those that others list or that refer to others, and the
    /// root at the end.
    async fn put_tree(
        &self,
        repository: &Repository,
        destination: &Destination,
        tree: &Tree,
        outcomes: Vec<(Digest, Outcome)>,
    ) -> Result<(), Setback> {
        let put = async {
            for level in levels(tree) {
                let puts = level.into_iter().map(|node| async {
                    let manifest = node.manifest();
                    match &node.subject {
                        Some(subject) => {
                            let artifact_type = node.artifact_type.as_deref();
                            let annotations = &node.annotations;
                            let referrer = Referrer {
                                manifest: &manifest,
                                subject,
                                artifact_type,
                                annotations,
                            };
                            repository.put_referrer(&referrer).await
                        }
                        None => repository.put_manifest(manifest.digest.as_str(), &manifest).await,
                    }
                });
                try_join_all(puts).await?;
            }
            let root = &tree.nodes[tree.root];
            let manifest = root.manifest();
            (self.events)(Event::Tagging);
            let references = destination.references(&manifest.digest);
            let puts = references.iter().map(|tag| repository.put_manifest(tag, &manifest));
            all_put(&references, join_all(puts).await)
        };
        let error = match put.await {
            Ok(()) => return Ok(()),
            Err(Error::Registry(error)) => error,
            Err(error) => return Err(error.into()),
        };
        let relied_on = outcomes.iter().filter(|(_, outcome)| outcome.is_relied_on());
        let relied_on = relied_on.map(|(digest, _)| digest.clone()).collect();
        let unsent = outcomes.iter().filter(|(_, outcome)| *outcome != Outcome::Uploaded);
        let unsent = unsent.map(|(digest, _)| digest.clone());
        Err(self.refused(repository, error, relied_on, unsent))
    }
}

/// What can be run of all that the root lists, however deep: no attestations, which are made like
/// images of a platform that nobody has.
fn images(tree: &Tree) -> Vec<&Node> {
    let (mut images, mut seen) = (Vec::new(), HashSet::new());
    // What is to be looked at, the next last.
    let mut waiting = vec![tree.root];
    while let Some(place) = waiting.pop() {
        let node = &tree.nodes[place];
        if !seen.insert(place) {
            continue;
        }
        let is_known = |platform: &Platform| platform.os != "unknown";
        if node.config.is_some() && node.platform.as_ref().is_some_and(is_known) {
            images.push(node);
        }
        waiting.extend(node.children.iter().rev());
    }
    images
}

/// The blobs of the tree, each once.
fn parts(tree: &Tree) -> Vec<Part<'_>> {
    let mut seen = HashSet::new();
    let mut parts: Vec<Part<'_>> = Vec::new();
    for node in &tree.nodes {
        let config = node.config.as_ref();
        let history: Vec<_> = config.iter().flat_map(|config| config.layer_history()).collect();
        for (place, stored) in node.blobs.iter().enumerate() {
            if !seen.insert(stored.digest.clone()) {
                continue;
            }
            // The config comes first.
            let layer = place.checked_sub(1).map(|place| {
                let named = history.get(place).and_then(|entry| source::name_from_history(entry));
                LayerReport {
                    name: named.unwrap_or_else(|| stored.digest.short().to_owned()),
                    diff_id: config.and_then(|config| config.diff_ids().get(place).cloned()),
                    digest: stored.digest.clone(),
                    size: stored.size,
                    media_type: stored.media_type.clone(),
                    compression: Compression::of_media_type(&stored.media_type)
                        .unwrap_or(Compression::None),
                    outcome: Outcome::WouldUpload,
                }
            });
            parts.push(Part { stored, layer });
        }
    }
    parts
}

/// The nodes besides the root, those that list none first: each level can be put at once.
fn levels(tree: &Tree) -> Vec<Vec<&Node>> {
    let mut heights = vec![0; tree.nodes.len()];
    let mut levels: Vec<Vec<&Node>> = Vec::new();
    // Children come before those that list them.
    for (place, node) in tree.nodes.iter().enumerate() {
        let height = node.children.iter().map(|child| heights[*child] + 1).max().unwrap_or(0);
        heights[place] = height;
        if place == tree.root {
            continue;
        }
        if levels.len() <= height {
            levels.resize_with(height + 1, Vec::new);
        }
        levels[height].push(node);
    }
    levels
}
