//! The blobs of a layout: which ones are asked for, read, mounted and sent. A blob that does not
//! match its digest never arrives.

use std::fs;
use std::path::PathBuf;

use crate::support::archive::{self, Layer, random_bytes};
use crate::support::layout::{CONFIG, Layout, MANIFEST, digest_of, get};
use crate::support::proxy::{At, Fault, Record, Rule, Step};
use crate::support::pull;
use crate::support::registry::{DevRegistry, Options};
use crate::support::run::{Pushimg, program, push};
use crate::support::{DockerRegistry, FaultProxy};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A layout with one image, of a config and these layers.
struct Image {
    _dir: TempDir,
    layout: Layout,
    manifest: Value,
}

impl Image {
    fn new(layers: &[Layer]) -> Self {
        let dir = TempDir::new().expect("a folder");
        let layout = Layout::new(dir.path().join("layout"));
        let manifest = layout.image("amd64", layers);
        layout.list(&[(&manifest, Some("v1"))]);
        Self { _dir: dir, layout, manifest }
    }

    fn path(&self) -> &str {
        self.layout.text()
    }

    fn digest(&self) -> String {
        digest_of(&self.manifest)
    }

    /// The descriptor of a layer.
    fn layer(&self, index: usize) -> Value {
        self.layout.read(&self.digest())["layers"][index].clone()
    }

    /// Where a layer's blob is.
    fn layer_path(&self, index: usize) -> PathBuf {
        self.layout.blob_path(&digest_of(&self.layer(index)))
    }

    /// The layout as a tar.
    fn tar(&self) -> PathBuf {
        let tar = self.layout.path().with_extension("tar");
        let path = tar.to_str().expect("UTF-8").to_owned();
        program("tar", ["-cf", &path, "-C", self.path(), "."]);
        tar
    }
}

/// Two layers, of which the second is large enough to break off in.
fn layers() -> [Layer; 2] {
    [Layer::random("base", 1, 20_000), Layer::random("app", 2, 3 << 20)]
}

/// Overwrites a file with other bytes of the same length.
fn garble(path: &PathBuf) {
    let length = fs::metadata(path).expect("a blob").len() as usize;
    fs::write(path, random_bytes(99, length)).expect("write a blob");
}

fn is_upload(record: &Record) -> bool {
    matches!(record.step, Step::UploadPost | Step::UploadPatch | Step::UploadPut | Step::MountPost)
}

#[test]
fn where_the_tag_is_this_manifest_one_request_tells_it() {
    let registry = DockerRegistry::plain();
    let proxy = FaultProxy::before(registry.addr());
    let image = Image::new(&layers());
    let destination = format!("{}/app:v1", proxy.host());
    push(image.path(), &destination, &[]).success();
    proxy.clear();
    let output = push(image.path(), &destination, &[]).success();
    assert_eq!(output.digest(), image.digest());
    let steps: Vec<Step> = proxy.records().iter().map(|record| record.step).collect();
    assert_eq!(steps, [Step::ManifestGet], "{}", proxy.transcript());
}

#[test]
fn a_blob_that_the_registry_has_is_not_read() {
    let registry = DockerRegistry::plain();
    let image = Image::new(&layers());
    let destination = format!("{}/app:v1", registry.host());
    push(image.path(), &destination, &[]).success();
    for layer in [0, 1] {
        garble(&image.layer_path(layer));
    }
    let output = push(image.path(), &destination, &[]).success();
    assert_eq!(output.digest(), image.digest());
}

#[test]
fn a_damaged_blob_is_named_and_never_arrives_whole() {
    let (docker, dev) = (DockerRegistry::plain(), DevRegistry::start(Options::default()));
    let proxy = FaultProxy::before(docker.addr());
    let old = Image::new(&[Layer::file("old", b"old")]);
    for (index, from_tar) in [(0, false), (1, false), (0, true), (1, true)] {
        for (addr, host) in [(docker.addr(), docker.host()), (dev.addr(), dev.host())] {
            proxy.set_upstream(addr);
            let repository = format!("damaged/n{index}-{from_tar}");
            let destination = format!("{}/{repository}:v1", proxy.host());
            push(old.path(), &destination, &[]).success();
            let image = Image::new(&layers());
            garble(&image.layer_path(index));
            let tar = image.tar();
            let path = if from_tar { tar.to_str().expect("UTF-8") } else { image.path() };
            proxy.clear();
            let output = push(path, &destination, &[]).exits(3).plain();
            let layer = image.layer(index);
            let digest = digest_of(&layer);
            assert_eq!(output.stdout, "", "{output}");
            output.says(&digest).says("damaged");
            assert_eq!(pull::tag_digest(&host, &repository, "v1"), Some(old.digest()));
            assert_eq!(get(&host, &repository, "blobs", &digest), None);
            let size = layer["size"].as_u64().expect("a size");
            let hex = digest.trim_start_matches("sha256:");
            let sent = proxy.body_bytes(|r| is_upload(r) && r.target.contains(hex));
            assert!(sent < size, "{sent} of {size} bytes\n{}", proxy.transcript());
            assert_eq!(proxy.count_step(Step::ManifestPut), 0);
        }
        // docker-registry forgets a session whose upload broke off, so pushimg cannot close it
        // there. Only the development registry is checked.
        assert_eq!(dev.open_uploads(), 0, "{}", proxy.transcript());
    }
}

#[test]
fn damaged_json_is_named_before_anything_is_asked() {
    let registry = DevRegistry::start(Options::default());
    let destination = format!("{}/app:v1", registry.host());
    let image = Image::new(&layers());
    let manifest = image.layout.read(&image.digest());
    for digest in [digest_of(&manifest["config"]), image.digest()] {
        let path = image.layout.blob_path(&digest);
        let whole = fs::read(&path).expect("a blob");
        garble(&path);
        let output = push(image.path(), &destination, &[]).exits(3);
        output.says(&digest).says("hashes to").says(image.path());
        fs::write(&path, whole).expect("write a blob");
    }
    assert_eq!(registry.counters().requests, 0);
}

#[test]
fn a_blob_that_is_missing_or_of_another_length_is_named_before_anything_is_asked() {
    let registry = DevRegistry::start(Options::default());
    let destination = format!("{}/app:v1", registry.host());
    for cut in [0, 1] {
        let image = Image::new(&layers());
        let (layer, path) = (image.layer(1), image.layer_path(1));
        let digest = digest_of(&layer);
        let bytes = fs::read(&path).expect("a blob");
        fs::write(&path, &bytes[cut..]).expect("write a blob");
        let tar = image.tar();
        let tar = tar.to_str().expect("UTF-8");
        if cut == 0 {
            fs::remove_file(&path).expect("remove a blob");
            let output = push(image.path(), &destination, &[]).exits(3);
            output.says(&format!("lists {digest} (layer), which is missing")).says(image.path());
            // The tar was made before.
            push(tar, &format!("{}/whole:v1", registry.host()), &[]).success();
            continue;
        }
        for path in [image.path(), tar] {
            let output = push(path, &destination, &[]).exits(3);
            let output = output.says(&format!("{digest} (layer) is {} bytes", bytes.len() - 1));
            output.says(path).says(&image.digest());
        }
    }
    assert_eq!(registry.tag("app", "v1"), None);
    assert!(registry.manifest_puts().iter().all(|(repository, ..)| repository == "whole"));
}

#[test]
fn what_another_repository_has_is_mounted() {
    let registry = DockerRegistry::plain();
    let proxy = FaultProxy::before(registry.addr());
    let image = Image::new(&layers());
    let machine = Pushimg::new();
    let base = format!("{}/team/base:v1", proxy.host());
    machine.run([image.path(), &base]).success();
    // The mounts come from `--reuse-from` on a machine without a cache, or from the cache.
    let by_word = Pushimg::new();
    for (repository, machine, options) in
        [("word", &by_word, &["--reuse-from", &base][..]), ("cache", &machine, &[])]
    {
        let destination = format!("{}/team/{repository}:v1", proxy.host());
        let arguments = [&[image.path(), &destination, "--json"], options].concat();
        let foretold = [&arguments[..], &["--dry-run"]].concat();
        proxy.clear();
        let foretold = machine.run(foretold).success().json();
        assert_eq!(foretold["layers"][0]["action"], "would-mount");
        assert_eq!(proxy.count(is_upload), 0, "{}", proxy.transcript());
        let report = machine.run(arguments).success().json();
        let layers = report["layers"].as_array().expect("layers");
        for layer in layers {
            assert_eq!(
                (&layer["action"], &layer["from"]),
                (&json!("mounted"), &json!("team/base"))
            );
        }
        // Two layers and the config.
        assert_eq!(proxy.count_step(Step::MountPost), 3, "{}", proxy.transcript());
        assert_eq!(proxy.count(is_upload), 3, "{}", proxy.transcript());
        let name = format!("team/{repository}");
        image.layout.assert_pushed(&registry.host(), &name, &image.digest());
        assert_eq!(registry.open_uploads(&name), 0);
    }
}

#[test]
fn where_a_mount_is_refused_the_blob_is_sent() {
    let registry = DockerRegistry::plain();
    let proxy = FaultProxy::before(registry.addr());
    let image = Image::new(&layers());
    let base = format!("{}/base:v1", proxy.host());
    push(image.path(), &base, &[]).success();
    proxy.set_rules(vec![Rule::at(Step::MountPost, Fault::RefuseMount)]);
    let destination = format!("{}/app:v1", proxy.host());
    push(image.path(), &destination, &["--reuse-from", &base]).success();
    image.layout.assert_pushed(&registry.host(), "app", &image.digest());
    assert_eq!(registry.open_uploads("app"), 0, "{}", proxy.transcript());
}

#[test]
fn an_upload_that_breaks_off_is_gone_on_with_and_comes_out_right() {
    let image = Image::new(&layers());
    let size = image.layer(1)["size"].as_u64().expect("a size");
    for (delivered, percent) in [(true, 60), (true, 99), (false, 50)] {
        let registry = DevRegistry::start(Options::default());
        let proxy = FaultProxy::before(registry.addr());
        let at = At::Bytes(size * percent / 100);
        let cut = Fault::CutRequest { at, delivered };
        let hex = digest_of(&image.layer(1)).replace("sha256:", "");
        proxy.set_rules(vec![Rule::at(Step::UploadPut, cut.clone()).path(&hex).first(1)]);
        let destination = format!("{}/app:v1", proxy.host());
        let output = push(image.path(), &destination, &[]).success();
        assert_eq!(proxy.struck(), 1, "{}", proxy.transcript());
        assert_eq!(output.digest(), image.digest());
        image.layout.assert_pushed(&registry.host(), "app", &image.digest());
        assert_eq!(registry.open_uploads(), 0, "{}", proxy.transcript());
        // What arrived was not sent again.
        let sent = proxy.body_bytes(|r| is_upload(r) && r.target.contains(&hex));
        let again = if delivered { 0 } else { size * percent / 100 };
        assert!(sent <= size + again + (256 << 10), "{sent}\n{}", proxy.transcript());

        // docker-registry forgets a session whose connection broke.
        let registry = DockerRegistry::plain();
        proxy.set_upstream(registry.addr());
        proxy.set_rules(vec![Rule::at(Step::UploadPut, cut).path(&hex).first(1)]);
        proxy.clear();
        push(image.path(), &destination, &[]).success();
        assert_eq!(proxy.struck(), 1, "{}", proxy.transcript());
        image.layout.assert_pushed(&registry.host(), "app", &image.digest());
        pull::skopeo(registry.host(), "app", "v1");
    }
}

#[test]
fn a_blob_that_is_damaged_behind_the_place_where_the_line_broke_never_arrives() {
    let registry = DevRegistry::start(Options::default());
    let proxy = FaultProxy::before(registry.addr());
    let image = Image::new(&layers());
    let path = image.layer_path(1);
    let bytes = fs::read(&path).expect("a blob");
    fs::write(&path, archive::corrupted(&bytes, bytes.len() - 1000)).expect("write a blob");
    let cut = Fault::CutRequest { at: At::Bytes(2 << 20), delivered: true };
    let hex = digest_of(&image.layer(1)).replace("sha256:", "");
    proxy.set_rules(vec![Rule::at(Step::UploadPut, cut).path(&hex).first(1)]);
    let output = push(image.path(), &format!("{}/app:v1", proxy.host()), &[]).exits(3);
    output.says(&digest_of(&image.layer(1))).says("damaged");
    assert_eq!(registry.tag("app", "v1"), None);
    assert_eq!(proxy.struck(), 1, "{}", proxy.transcript());
    assert_eq!(registry.open_uploads(), 0, "{}", proxy.transcript());
}

#[test]
fn a_blob_that_the_registry_only_says_to_have_is_sent_after_all() {
    let registry = DevRegistry::start(Options::default());
    let proxy = FaultProxy::before(registry.addr());
    let image = Image::new(&layers());
    let destination = format!("{}/app:v1", proxy.host());
    let size = image.layer(0)["size"].as_u64().expect("a size");
    // As a registry behind a stale cache answers.
    let there =
        crate::support::proxy::Answer::status(200).header("content-length", &size.to_string());
    let hex = digest_of(&image.layer(0)).replace("sha256:", "");
    proxy.set_rules(vec![Rule::at(Step::BlobHead, Fault::Answer(there)).path(&hex)]);
    let output = push(image.path(), &destination, &[]).success();
    output.says("warning: ").says("read again");
    image.layout.assert_pushed(&registry.host(), "app", &image.digest());
}

#[test]
fn a_layer_that_the_registry_does_not_take_ends_the_push() {
    // docker-registry answers 500 with MANIFEST_BLOB_UNKNOWN to every foreign layer.
    let registry = DockerRegistry::plain();
    let proxy = FaultProxy::before(registry.addr());
    let layout = archive::testdata("foreign-layer-present");
    let destination = format!("{}/app:v1", proxy.host());
    // The second push finds the blobs there.
    for _ in 0..2 {
        proxy.clear();
        let machine = Pushimg::new().limit(std::time::Duration::from_secs(20));
        let arguments = [layout.to_str().expect("UTF-8"), &destination, "--retry-for", "0"];
        let output = machine.run(arguments);
        assert!(matches!(output.status.code(), Some(4 | 5)), "{output}");
        output.says("MANIFEST_BLOB_UNKNOWN").says("foreign").says("sha256:ca0ea43b52a6");
        assert_eq!(proxy.count_step(Step::ManifestPut), 1, "{}", proxy.transcript());
        assert_eq!(registry.tag("app", "v1"), None);
    }
}

#[test]
fn a_large_blob_is_pushed_in_little_memory() {
    const SIZE: u64 = 300 << 20;
    let dir = TempDir::new().expect("a folder");
    let layout = Layout::new(dir.path().join("layout"));
    // A file with a hole: the bytes are there, and take no room.
    let large = dir.path().join("large");
    let file = fs::File::create(&large).expect("a file");
    file.set_len(SIZE).expect("a long file");
    let sum = program("sha256sum", [large.to_str().expect("UTF-8")]);
    let digest = format!("sha256:{}", &sum[..64]);
    fs::rename(&large, layout.blob_path(&digest)).expect("move a blob");
    let config = json!({ "architecture": "amd64", "os": "linux", "config": {},
        "rootfs": { "type": "layers", "diff_ids": [digest] } });
    let layer = json!({ "mediaType": "application/vnd.oci.image.layer.v1.tar",
        "digest": digest, "size": SIZE });
    let image = layout.manifest(&json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": layout.blob(CONFIG, config.to_string().as_bytes()),
        "layers": [layer],
    }));
    layout.list(&[(&image, Some("v1"))]);
    let registry = DockerRegistry::plain();
    let destination = format!("{}/app:v1", registry.host());
    let (output, memory) = Pushimg::new().run_measured([layout.text(), &destination]);
    assert_eq!(output.success().digest(), digest_of(&image));
    assert!(memory < 100 << 20, "{} MiB", memory >> 20);
    let blob = format!("docker/registry/v2/blobs/sha256/{}/{}/data", &digest[7..9], &digest[7..]);
    let there = fs::metadata(registry.storage().join(blob)).expect("the blob at the registry");
    assert_eq!(there.len(), SIZE);
}
