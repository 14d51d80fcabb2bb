//! The report of a push that got through.

use std::collections::HashSet;
use std::time::Duration;

use super::destination::Destination;
use super::settled::SettledLayers;
use crate::image::{Compression, Manifest};
use crate::report::{Known, Outcome, Report};
use crate::source::Image;

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
    let mut counted = HashSet::new();
    let history: Vec<_> = image.config.layer_history().collect();
    let mut layers = Vec::with_capacity(image.layers.len());
    for (place, id) in image.layers.iter().enumerate() {
        let Some(layer) = settled.get(*id) else {
            continue;
        };
        let mut report = layer.report(history.get(place).copied(), manifest.format());
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
        reference: destination.name(),
        pinned: format!("{}/{}@{}", destination.host(), destination.repository(), manifest.digest),
        tags: destination.tags().to_vec(),
        digest: manifest.digest.clone(),
        media_type: manifest.media_type.clone(),
        format: manifest.format(),
        platform: Some(image.config.platform().to_string()),
        size,
        config: Some(image.config.digest().clone()),
        config_sent: totals.config_sent,
        layers,
        manifests: Vec::new(),
        bytes_sent: if totals.dry_run { would_send } else { totals.bytes_sent },
        bytes_reused: reused,
        seconds: totals.took.as_secs_f64(),
        dry_run: totals.dry_run,
        compression: totals.compression,
    }
}
