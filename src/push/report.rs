//! The report of a push that got through.

use std::collections::HashSet;
use std::time::Duration;

use super::destination::Destination;
use super::settled::SettledLayers;
use crate::image::{Compression, Format, IndexEntry, Manifest, Platform};
use crate::report::{Known, LayerReport, ManifestReport, Outcome, Report};
use crate::source::Image;
use crate::source::layout::Tree;

/// What is told of an attempt besides its layers.
pub struct Totals {
    /// Whether the config was not there.
    pub config_sent: bool,
    /// Bytes handed to the network.
    pub bytes_sent: u64,
    /// How long it took.
    pub took: Duration,
    /// Whether nothing was really sent.
    pub dry_run: bool,
    /// How new layers are compressed.
    pub compression: Compression,
}

/// Puts together what there is to tell.
pub fn of(
    destination: &Destination,
    image: &Image,
    manifest: &Manifest,
    settled: &SettledLayers,
    totals: &Totals,
) -> Report {
    let config_size = image.config.bytes().len() as u64;
    let manifest_size = manifest.bytes.len() as u64;
    let mut size = manifest_size + config_size;
    let mut would_send = manifest_size + if totals.config_sent { config_size } else { 0 };
    let mut reused = if totals.config_sent { 0 } else { config_size };
    let format = manifest.format().unwrap_or(Format::Oci);
    let mut counted = HashSet::new();
    let history: Vec<_> = image.config.layer_history().collect();
    let mut layers = Vec::with_capacity(image.layers.len());
    for (place, id) in image.layers.iter().enumerate() {
        let Some(layer) = settled.get(*id) else {
            continue;
        };
        let mut report = layer.report(history.get(place).copied(), format);
        if counted.insert(report.digest.clone()) {
            size += report.size;
            match report.outcome {
                Outcome::WouldUpload => would_send += report.size,
                Outcome::Uploaded => {}
                _ => reused += report.size,
            }
        } else {
            report.outcome = Outcome::Reused { why: Known::SameAsLayer };
        }
        layers.push(report);
    }
    Report {
        platform: Some(image.config.platform().to_string()),
        size,
        config: Some(image.config.digest().clone()),
        config_sent: totals.config_sent,
        layers,
        bytes_sent: if totals.dry_run { would_send } else { totals.bytes_sent },
        bytes_reused: reused,
        compression: Some(totals.compression),
        ..bare(destination, manifest, totals.took, totals.dry_run)
    }
}

/// Puts together what there is to tell of an index and its images.
pub fn of_index(
    destination: &Destination,
    manifest: &Manifest,
    entries: &[IndexEntry],
    images: Vec<Report>,
    sent: u64,
    took: Duration,
) -> Report {
    let own = manifest.bytes.len() as u64;
    let dry_run = images.iter().any(|image| image.dry_run);
    let mut whole = Report {
        manifests: entries.iter().map(ManifestReport::of).collect(),
        bytes_sent: if dry_run { own } else { sent },
        compression: images.iter().find_map(|image| image.compression),
        ..bare(destination, manifest, took, dry_run)
    };
    let mut counted = HashSet::new();
    for image in images {
        whole.bytes_sent += image.bytes_sent;
        // What several images have is counted once.
        whole.size += image.size;
        whole.bytes_reused += image.bytes_reused;
        let mut own = HashSet::new();
        for layer in image.layers {
            let is_reused = !matches!(layer.outcome, Outcome::Uploaded | Outcome::WouldUpload);
            let is_first_here = own.insert(layer.digest.clone());
            if counted.insert(layer.digest.clone()) {
                whole.layers.push(layer);
            } else if is_first_here {
                whole.size -= layer.size;
                whole.bytes_reused -= if is_reused { layer.size } else { 0 };
            }
        }
    }
    whole
}

/// A blob of a tree, and what became of it.
pub struct Told {
    /// Its length.
    pub size: u64,
    /// What there is to tell, but for the outcome; `None` for a config.
    pub layer: Option<LayerReport>,
    /// What became of it.
    pub outcome: Outcome,
}

/// Puts together what there is to tell of a tree of manifests.
pub fn of_tree(
    destination: &Destination,
    tree: &Tree,
    blobs: Vec<Told>,
    sent: u64,
    took: Duration,
    dry_run: bool,
) -> Report {
    let root = &tree.nodes[tree.root];
    let manifest = root.manifest();
    let others = tree.nodes.iter().enumerate().filter(|(place, _)| *place != tree.root);
    let manifests: Vec<_> = others
        .map(|(_, node)| ManifestReport {
            digest: node.digest.clone(),
            media_type: node.media_type.clone(),
            platform: node.platform.as_ref().map(Platform::to_string),
            // An image is none, whatever lists of referrers would call it.
            artifact_type: node.artifact_type.clone().filter(|_| node.config.is_none()),
            subject: node.subject.clone(),
        })
        .collect();
    let manifest_bytes = tree.nodes.iter().map(|node| node.bytes.len() as u64).sum::<u64>();
    let mut whole = Report {
        platform: root.platform.as_ref().map(Platform::to_string),
        config: root.config.as_ref().map(|config| config.digest().clone()),
        manifests,
        size: manifest_bytes,
        bytes_sent: if dry_run { manifest_bytes } else { sent },
        ..bare(destination, &manifest, took, dry_run)
    };
    for Told { size, layer, outcome } in blobs {
        whole.size += size;
        let is_sent = matches!(outcome, Outcome::Uploaded | Outcome::WouldUpload);
        if !is_sent {
            whole.bytes_reused += size;
        } else if dry_run {
            whole.bytes_sent += size;
        }
        match layer {
            Some(layer) => whole.layers.push(LayerReport { outcome, ..layer }),
            None => whole.config_sent |= is_sent && whole.config.is_some(),
        }
    }
    whole
}

/// A report of a manifest or an index that is not yet filled in.
fn bare(destination: &Destination, manifest: &Manifest, took: Duration, dry_run: bool) -> Report {
    Report {
        reference: destination.name(),
        pinned: destination.pinned(&manifest.digest),
        tags: destination.tags().to_vec(),
        digest: manifest.digest.clone(),
        media_type: manifest.media_type.clone(),
        format: manifest.format(),
        platform: None,
        size: manifest.bytes.len() as u64,
        config: None,
        config_sent: false,
        layers: Vec::new(),
        manifests: Vec::new(),
        bytes_sent: 0,
        bytes_reused: 0,
        seconds: took.as_secs_f64(),
        dry_run,
        compression: None,
    }
}
