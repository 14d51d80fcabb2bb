//! The summary of a push: a line for each layer, for each image, and for all images together.

use std::collections::HashSet;
use std::time::Duration;

use oci_client::manifest::{IMAGE_MANIFEST_LIST_MEDIA_TYPE, OCI_IMAGE_INDEX_MEDIA_TYPE};

use super::super::outcome::{ImageOutcome, bytes_sent};
use super::text::{Paint, counted, escape, fit, layers, size, time};
use crate::image::Compression;
use crate::report::{LayerReport, ManifestReport, Outcome, Report};

/// The width of layers' names in a log.
pub const NAME_COLUMNS: usize = 32;

/// `glibc-2.38  12.3 MB  uploaded`, in columns.
pub fn layer(layer: &LayerReport, name_columns: usize, paint: Paint) -> String {
    let outcome = layer.outcome.to_string();
    let outcome = escape(&outcome);
    let outcome = match layer.outcome {
        Outcome::Uploaded | Outcome::WouldUpload | Outcome::WouldMount { .. } => {
            paint.good(&outcome)
        }
        Outcome::Mounted { .. } | Outcome::Reused { .. } => paint.faint(&outcome),
    };
    format!("{}  {:>7}  {outcome}", fit(&escape(&layer.name), name_columns), size(layer.size))
}

/// `linux/amd64  sha256:…`: a further manifest of the push.
pub fn manifest(manifest: &ManifestReport) -> String {
    let what = manifest.artifact_type.as_ref().or(manifest.platform.as_ref());
    let what = escape(what.unwrap_or(&manifest.media_type)).into_owned();
    let subject = match &manifest.subject {
        Some(subject) => format!("  refers to {subject}"),
        None => String::new(),
    };
    format!("{}  {}{subject}", fit(&what, NAME_COLUMNS), manifest.digest)
}

/// The line of an image: what was pushed, how much was sent, and how long it took.
pub fn whole(report: &Report, paint: Paint) -> String {
    let mut counts = other_manifests(report);
    counts += &layer_counts(report);
    let mounted = match report.layers_mounted() {
        0 => String::new(),
        count => format!(", {count} mounted"),
    };
    let kept: String = [Compression::Gzip, Compression::Zstd, Compression::None]
        .into_iter()
        .filter_map(|other| match (report.layers_kept_as(other), other) {
            (0, _) => None,
            (count, Compression::None) => Some(format!(", {count} kept uncompressed")),
            (count, other) => Some(format!(", {count} kept as {other}")),
        })
        .collect();
    let sent = size(report.bytes_sent);
    let there = size(report.bytes_reused);
    if report.dry_run {
        return format!("would upload {counts}{mounted}, {sent}; {there} already there{kept}");
    }
    if !report.layers.is_empty() {
        counts += " uploaded";
    }
    format!(
        "{} {}  {counts}{mounted}, {sent} sent, {there} already there{kept}, {}",
        paint.good("pushed"),
        names(report),
        time(report.seconds)
    )
}

/// `1 of 43 layers`. For an artifact that is not an image, `1 of 2 blobs` or `no layers`.
pub fn layer_counts(report: &Report) -> String {
    let is_image = report.layers.iter().any(|layer| layer.diff_id.is_some());
    match report.layers.len() {
        0 => "no layers".to_owned(),
        all => {
            let all = counted(all, if is_image { "layer" } else { "blob" });
            format!("{} of {all}", report.layers_uploaded())
        }
    }
}

/// `index of 2 images and 1 other manifest, `; empty for a single image.
fn other_manifests(report: &Report) -> String {
    let images = report.manifests.iter().filter(|manifest| is_image(manifest)).count();
    let others = match report.manifests.len() - images {
        0 => String::new(),
        count => counted(count, "other manifest"),
    };
    let is_index = [OCI_IMAGE_INDEX_MEDIA_TYPE, IMAGE_MANIFEST_LIST_MEDIA_TYPE]
        .contains(&report.media_type.as_str());
    match (is_index, others.as_str()) {
        (true, "") => format!("index of {}, ", counted(images, "image")),
        (true, others) => format!("index of {} and {others}, ", counted(images, "image")),
        (false, "") => String::new(),
        (false, others) => format!("with {others}, "),
    }
}

/// Whether the manifest is an image, and not an attestation or another artifact.
fn is_image(manifest: &ManifestReport) -> bool {
    let platform = manifest.platform.as_deref().filter(|platform| *platform != "unknown/unknown");
    platform.is_some() && manifest.artifact_type.is_none() && manifest.subject.is_none()
}

/// The last line, if there are several images.
pub fn total(outcomes: &[ImageOutcome], took: Duration, dry_run: bool, paint: Paint) -> String {
    let reports: Vec<&Report> = outcomes.iter().filter_map(ImageOutcome::report).collect();
    let is_new =
        |layer: &&LayerReport| matches!(layer.outcome, Outcome::Uploaded | Outcome::WouldUpload);
    let all = reports.iter().flat_map(|report| &report.layers);
    let new: HashSet<_> = all.filter(is_new).map(|layer| &layer.digest).collect();
    let new = layers(new.len());
    let sent = size(bytes_sent(outcomes));
    let pushed = counted(reports.len(), "image");
    let failed = match outcomes.len() - reports.len() {
        0 => String::new(),
        count => format!(", {}", paint.bad(&format!("{count} failed"))),
    };
    if dry_run {
        return format!("would push {pushed}{failed}; would upload {new}, {sent}");
    }
    let took = time(took.as_secs_f64());
    format!("{} {pushed}{failed}; {new} uploaded, {sent} sent, {took}", paint.good("pushed"))
}

/// The reference and the other tags.
fn names(report: &Report) -> String {
    let own = |tag: &&String| !report.reference.ends_with(&format!(":{tag}"));
    let others: Vec<&str> = report.tags.iter().filter(own).map(String::as_str).collect();
    let reference = escape(&report.reference);
    if others.is_empty() {
        reference.into_owned()
    } else {
        format!("{reference} (also {})", escape(&others.join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{layer_report, report};
    use super::*;
    use crate::image::Digest;
    use crate::report::Known;

    const PLAIN: Paint = Paint { colours: false };

    fn reused(count: usize) -> Vec<LayerReport> {
        let why = Known::AnsweredHead;
        let outcome = Outcome::Reused { why };
        vec![layer_report("x", 10, outcome); count]
    }

    #[test]
    fn the_summary_reads_as_documented() {
        let mut layers = reused(42);
        layers.push(layer_report("app", 1_200_000, Outcome::Uploaded));
        let mut report = report(layers);
        assert_eq!(
            whole(&report, PLAIN),
            "pushed registry.fly.io/app:latest  1 of 43 layers uploaded, 1.2 MB sent, \
             418 MB already there, 0.9 s"
        );
        report.tags.extend(["v2".into(), "v2.1".into()]);
        report.layers[0].outcome = Outcome::Mounted { from: "a".into() };
        report.layers[1].outcome = Outcome::Mounted { from: "a".into() };
        assert_eq!(
            whole(&report, PLAIN),
            "pushed registry.fly.io/app:latest (also v2, v2.1)  1 of 43 layers uploaded, \
             2 mounted, 1.2 MB sent, 418 MB already there, 0.9 s"
        );
    }

    #[test]
    fn one_layer_is_singular() {
        let one = report(vec![layer_report("app", 5, Outcome::Uploaded)]);
        assert!(whole(&one, PLAIN).contains(":latest  1 of 1 layer uploaded, "));
    }

    #[test]
    fn an_artifact_has_blobs_or_no_layers() {
        let mut none = report(vec![]);
        assert!(whole(&none, PLAIN).contains(":latest  no layers, 1.2 MB sent, "));
        none.dry_run = true;
        assert!(whole(&none, PLAIN).contains("would upload no layers, 1.2 MB; "));
        let mut blob = layer_report("chart", 5, Outcome::Uploaded);
        blob.diff_id = None;
        let text = whole(&report(vec![blob]), PLAIN);
        assert!(text.contains(":latest  1 of 1 blob uploaded, "), "{text}");
    }

    #[test]
    fn a_dry_run_says_would() {
        let mut layers = reused(42);
        layers.push(layer_report("app", 1_200_000, Outcome::WouldUpload));
        let mut report = report(layers);
        report.dry_run = true;
        assert_eq!(
            whole(&report, PLAIN),
            "would upload 1 of 43 layers, 1.2 MB; 418 MB already there"
        );
    }

    #[test]
    fn an_index_says_what_it_lists() {
        let manifest = |platform: Option<&str>, kind: Option<&str>| ManifestReport {
            digest: Digest::of(b"child"),
            media_type: "application/vnd.oci.image.manifest.v1+json".into(),
            platform: platform.map(str::to_owned),
            artifact_type: kind.map(str::to_owned),
            subject: kind.map(|_| Digest::of(b"subject")),
        };
        let mut report = report(vec![layer_report("app", 5, Outcome::Uploaded)]);
        report.platform = None;
        report.media_type = OCI_IMAGE_INDEX_MEDIA_TYPE.into();
        report.manifests =
            vec![manifest(Some("linux/amd64"), None), manifest(Some("linux/arm64"), None)];
        let said = |report: &Report| whole(report, PLAIN);
        assert!(said(&report).contains(":latest  index of 2 images, 1 of 1 layer uploaded, "));
        report.manifests.push(manifest(Some("unknown/unknown"), None));
        let text = said(&report);
        assert!(text.contains("  index of 2 images and 1 other manifest, 1 of 1 "), "{text}");
        report.media_type = "application/vnd.oci.image.manifest.v1+json".into();
        report.manifests = vec![manifest(None, Some("application/spdx+json"))];
        let text = said(&report);
        assert!(text.contains(":latest  with 1 other manifest, 1 of 1 layer uploaded"), "{text}");
        let line = super::manifest(&report.manifests[0]);
        let (child, subject) = (Digest::of(b"child"), Digest::of(b"subject"));
        assert_eq!(line, format!("application/spdx+json             {child}  refers to {subject}"));
    }

    #[test]
    fn the_total_counts_a_layer_that_images_share_once() {
        let of = |outcome| {
            let mut shared = layer_report("base", 100, Outcome::Uploaded);
            shared.digest = Digest::of(b"shared");
            let mut report = report(vec![shared, layer_report("app", 5, outcome)]);
            report.bytes_sent = 1_000_000;
            ImageOutcome::Pushed(Box::new(report))
        };
        let why = Known::Cache;
        let outcomes = [of(Outcome::Uploaded), of(Outcome::Reused { why })];
        assert_eq!(
            total(&outcomes, Duration::from_secs(1), false, PLAIN),
            "pushed 2 images; 2 layers uploaded, 2.0 MB sent, 1.0 s"
        );
        assert_eq!(
            total(&outcomes, Duration::from_secs(1), true, PLAIN),
            "would push 2 images; would upload 2 layers, 2.0 MB"
        );
    }

    #[test]
    fn layers_say_what_happened_to_them_and_why() {
        let of = |name: &str, outcome| layer(&layer_report(name, 12_345_678, outcome), 12, PLAIN);
        assert_eq!(of("glibc-2.38", Outcome::Uploaded), "glibc-2.38    12.3 MB  uploaded");
        let why = Known::PreviousImage("r.io/app:\u{1b}".into());
        assert_eq!(
            of("a-very-long-package-name", Outcome::Reused { why }),
            "a-very-long…  12.3 MB  already there (in previous image r.io/app:\\u{1b})"
        );
    }
}
