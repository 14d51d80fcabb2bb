//! The report of a push.

use std::collections::HashSet;
use std::time::Duration;

use super::destination::Destination;
use super::image_push::{BlobResult, Form};
use crate::changes::Changes;
use crate::image::{Compression, IndexEntry, Manifest, Platform, SharedTexts};
use crate::report::{Known, ManifestReport, Outcome, Report};
use crate::source::layout::Node;

/// The parts of a report that do not come from manifests and blobs.
pub struct Totals {
    /// Body bytes that were sent; `None` in a dry run.
    pub bytes_sent: Option<u64>,
    /// Whether the tags already point to the manifest, so that it is not put.
    pub is_unchanged: bool,
    pub changes: Option<Changes>,
    pub took: Duration,
    /// How new layers are compressed; `None` if blobs are pushed as they are stored.
    pub compression: Option<Compression>,
}

/// The report of an image in the form that was put.
pub fn of(destination: &Destination, form: &Form, totals: &Totals, texts: &SharedTexts) -> Report {
    let tree = &form.tree;
    let root = &tree.nodes[tree.root];
    let others = tree.nodes.iter().enumerate().filter(|(place, _)| *place != tree.root);
    let manifest_bytes = tree.nodes.iter().map(|node| node.bytes.len() as u64).sum::<u64>();
    let mut report = Report {
        platform: root.platform.as_ref().map(Platform::to_string),
        config: root.config.as_ref().map(|config| config.digest().clone()),
        manifests: others.map(|(_, node)| of_node(node)).collect(),
        size: manifest_bytes,
        compression: totals.compression,
        changes: totals.changes.clone(),
        ..bare(destination, &root.manifest(), totals.took, totals.bytes_sent.is_none())
    };
    // The root is put once for each tag.
    let again = root.bytes.len() * destination.tags().len().saturating_sub(1);
    let mut would_send = if totals.is_unchanged { 0 } else { manifest_bytes + again as u64 };
    let mut counted = HashSet::new();
    report.layers.reserve_exact(form.blobs.len());
    for blob in &form.blobs {
        let is_sent = matches!(blob.outcome(), Outcome::Uploaded | Outcome::WouldUpload);
        let is_first = counted.insert(blob.digest().clone());
        if is_first {
            report.size += blob.size();
            match is_sent {
                true => would_send += blob.size(),
                false => report.bytes_reused += blob.size(),
            }
        }
        match blob {
            BlobResult::Config { .. } => report.config_sent |= is_sent && report.config.is_some(),
            BlobResult::Layer(layer) => {
                let mut layer = layer.clone();
                layer.share(texts);
                if !is_first {
                    layer.outcome = Outcome::Reused { why: Known::SameAsLayer };
                }
                report.layers.push(layer);
            }
        }
    }
    report.bytes_sent = totals.bytes_sent.unwrap_or(would_send);
    report
}

fn of_node(node: &Node) -> ManifestReport {
    ManifestReport {
        digest: node.digest.clone(),
        media_type: node.media_type.clone(),
        platform: node.platform.as_ref().map(Platform::to_string),
        // Images have a type in lists of referrers, but not in the report.
        artifact_type: node.artifact_type.clone().filter(|_| node.config.is_none()),
        subject: node.subject.clone(),
    }
}

/// The report of an index over images that were pushed.
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
        // Count only once what several images share.
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

/// The report of a manifest or an index, without its layers and images.
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
        changes: None,
        bytes_sent: 0,
        bytes_reused: 0,
        seconds: took.as_secs_f64(),
        dry_run,
        compression: None,
    }
}
