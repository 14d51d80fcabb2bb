//! If an archive holds several images, only the chosen one is sent. The archive may be plain,
//! compressed or piped, and the image may be chosen by an option, by a name after the path, or by
//! the destination.

use std::path::Path;

use crate::support::archive::{self, Layer, gzip, sha256, tar_of, testdata};
use crate::support::pull;
use crate::support::registry::{DevRegistry, Options};
use crate::support::run::Pushimg;
use serde_json::{Value, json};
use tempfile::TempDir;

/// Two images that share one layer of three.
const TWO: &str = "two-images-one-chosen.tar.gz";

fn text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

/// Asserts that the registry received the blobs of this repository's image and nothing else.
#[track_caller]
fn assert_only_its_own(registry: &DevRegistry, repository: &str) {
    let pulled = pull::oci(registry.host(), repository, "v1");
    let config: Value = serde_json::from_slice(&pulled.config).expect("a config");
    let layers = config["rootfs"]["diff_ids"].as_array().expect("diff IDs").len();
    assert_eq!(pulled.layers.len(), layers);
    let counters = registry.counters();
    assert_eq!(counters.uploads, layers as u64 + 1, "its layers and its config");
}

#[test]
fn layers_of_images_that_were_not_chosen_are_never_sent() {
    let archive = testdata(TWO);
    let bytes = std::fs::read(&archive).expect("an archive");
    let plain = gunzip(&bytes);
    for (image, options, stdin) in [
        (text(&archive).to_owned(), &["--image", "public:1"][..], None),
        (format!("{}:public:1", text(&archive)), &[], None),
        ("-".to_owned(), &["--image", "public:1"], Some(bytes.clone())),
        ("-".to_owned(), &["--image", "public:1"], Some(plain)),
    ] {
        let registry = DevRegistry::start(Options::default());
        let destination = format!("{}/app:v1", registry.host());
        let machine = stdin.map_or_else(Pushimg::new, |bytes| Pushimg::new().stdin(bytes));
        let output = machine.run([&[&image, &*destination], options].concat()).success();
        output.says("2 layers");
        assert_only_its_own(&registry, "app");
    }
}

#[test]
fn each_of_all_images_gets_its_own_layers_only() {
    let dir = TempDir::new().expect("a folder");
    let registry = DevRegistry::start(Options::default());
    let host = registry.host();
    let named = |name: &str| format!("{host}/{name}:v1");
    let archive = two_images(dir.path(), [&named("one"), &named("two")], 6 << 20);
    Pushimg::new().run(["--all", text(&archive)]).success();
    for name in ["one", "two"] {
        let pulled = pull::oci(registry.host(), name, "v1");
        assert_eq!(pulled.layers.len(), 2);
    }
    // Two configs, and three layers of which one is shared.
    let counters = registry.counters();
    assert_eq!(counters.uploads, 5, "{counters:?}");
}

#[test]
fn without_a_choice_nothing_is_sent() {
    let archive = testdata(TWO);
    let bytes = std::fs::read(&archive).expect("an archive");
    let registry = DevRegistry::start(Options::default());
    let destination = format!("{}/app:v1", registry.host());
    let output = Pushimg::new().run([text(&archive), &destination]).exits(2);
    output.says("holds 2 images: ").says("--image NAME");
    Pushimg::new().stdin(bytes).run(["-", &destination]).exits(2).says("holds 2 images: ");
    let dir = TempDir::new().expect("a folder");
    // Long enough that a stream is not held as a whole; written as `podman save` does.
    let long = two_images(dir.path(), ["one:v1", "two:v1"], 6 << 20);
    Pushimg::new().run([text(&long), &destination]).exits(2).says("holds 2 images: ");
    let bytes = std::fs::read(&long).expect("an archive");
    Pushimg::new().stdin(bytes).run(["-", &destination]).exits(2).says("holds 2 images: ");
    let counters = registry.counters();
    assert_eq!((counters.uploads, counters.blob_bytes), (0, 0), "{counters:?}");
}

#[test]
fn an_archive_that_only_has_the_names_of_nix_sends_nothing_without_a_choice() {
    let dir = TempDir::new().expect("a folder");
    let registry = DevRegistry::start(Options::default());
    let destination = format!("{}/app:v1", registry.host());
    let long = two_images_as(dir.path(), ["one:v1", "two:v1"], 6 << 20, "/layer.tar");
    Pushimg::new().run([text(&long), &destination]).exits(2).says("holds 2 images: ");
    assert_eq!(registry.counters().uploads, 0, "input 1");
    let bytes = std::fs::read(&long).expect("an archive");
    Pushimg::new().stdin(bytes).run(["-", &destination]).exits(2).says("holds 2 images: ");
    assert_eq!(registry.counters().uploads, 0, "input 2");
    // The archive as `tar -cz -C FOLDER .` writes it.
    let mut tar = tar::Builder::new(Vec::new());
    let mut dot = tar::Header::new_gnu();
    dot.set_entry_type(tar::EntryType::Directory);
    dot.set_mode(0o755);
    dot.set_size(0);
    dot.set_mtime(1_700_000_000);
    tar.append_data(&mut dot, "./", &[][..]).expect("a folder");
    let folder = tar.into_inner().expect("a tar");
    let rest = gunzip(&std::fs::read(&long).expect("an archive"));
    let dotted = [&folder[..512], &rest].concat();
    let dotted = archive::write(dir.path(), "dotted.tar.gz", &gzip(&dotted));
    Pushimg::new().run([text(&dotted), &destination]).exits(2).says("holds 2 images: ");
    assert_eq!(registry.counters().uploads, 0, "input 3");
    let counters = registry.counters();
    assert_eq!((counters.uploads, counters.blob_bytes), (0, 0), "{counters:?}");
}

#[test]
fn a_wrong_choice_sends_nothing() {
    let dir = TempDir::new().expect("a folder");
    let registry = DevRegistry::start(Options::default());
    let destination = format!("{}/app:v1", registry.host());
    let long = two_images(dir.path(), ["one:v1", "two:v1"], 6 << 20);
    for archive in [testdata(TWO), long] {
        let output = Pushimg::new().run([text(&archive), &destination, "--image", "three"]);
        output.exits(2).says("holds no image \"three\"");
    }
    let counters = registry.counters();
    assert_eq!((counters.uploads, counters.blob_bytes), (0, 0), "{counters:?}");
}

#[test]
fn the_name_of_the_destination_chooses_and_nothing_else_is_sent() {
    let dir = TempDir::new().expect("a folder");
    for length in [20_000, 6 << 20] {
        let registry = DevRegistry::start(Options::default());
        let destination = format!("{}/app:v1", registry.host());
        let other = format!("{}/other:v1", registry.host());
        let archive = two_images(dir.path(), [&destination, &other], length);
        Pushimg::new().run([text(&archive), &destination]).success().says("2 layers");
        assert_only_its_own(&registry, "app");
    }
}

/// A compressed archive, as `podman save` writes it, of two images of two layers each; the first
/// layer is common to both.
fn two_images(dir: &Path, names: [&str; 2], length: usize) -> std::path::PathBuf {
    two_images_as(dir, names, length, ".tar")
}

/// Like [`two_images`], but the entries of the layers have names that end with `end`.
fn two_images_as(dir: &Path, names: [&str; 2], length: usize, end: &str) -> std::path::PathBuf {
    let layer = |seed: u64| {
        let content = archive::random_bytes(seed, length);
        let tar = archive::tar_of(&[("data", &content)]);
        Layer { tar, ..Layer::file("layer", b"") }
    };
    let layers = [layer(1), layer(2), layer(3)];
    let entry = |layer: &Layer| format!("{}{end}", sha256(&layer.tar).replace("sha256:", ""));
    let mut files: Vec<(String, Vec<u8>)> =
        layers.iter().map(|layer| (entry(layer), layer.tar.clone())).collect();
    let mut manifest = Vec::new();
    for (name, own) in names.iter().zip(&layers[1..]) {
        let image = [&layers[0], own];
        let config = json!({ "os": "linux", "architecture": "amd64", "author": name,
            "rootfs": { "type": "layers", "diff_ids": image.map(|layer| sha256(&layer.tar)) } });
        let config = config.to_string().into_bytes();
        let config_name = format!("{}.json", sha256(&config).replace("sha256:", ""));
        files.push((config_name.clone(), config));
        manifest.push(json!({ "Config": config_name, "RepoTags": [name],
            "Layers": image.map(entry) }));
    }
    files.push(("manifest.json".to_owned(), json!(manifest).to_string().into_bytes()));
    let files: Vec<(&str, &[u8])> = files.iter().map(|(name, it)| (&**name, &**it)).collect();
    archive::write(dir, "two.tar.gz", &gzip(&tar_of(&files)))
}

fn gunzip(bytes: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    let mut decoder = flate2::read::MultiGzDecoder::new(bytes);
    std::io::Read::read_to_end(&mut decoder, &mut plain).expect("gzip");
    plain
}
