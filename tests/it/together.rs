//! Images that are pushed together send their shared layers once, even if one image fails. Includes
//! indexes over them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::support::archive::{self, ImageBuilder, Layer, corrupted};
use crate::support::proxy::{Answer, Fault, Hold, Place, Record, Rule, Step};
use crate::support::pull;
use crate::support::registry::{DevRegistry, Options};
use crate::support::run::{Output, Pushimg};
use crate::support::{DockerRegistry, FaultProxy};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Layers that all services have, more than any has of its own.
const SHARED: u64 = 12;

fn shared_layers() -> Vec<Layer> {
    (0..SHARED).map(|n| Layer::random(&format!("shared-{n}"), n, 50_000 + n as usize)).collect()
}

/// A service: what all have, and two layers of its own.
fn service(number: u64) -> ImageBuilder {
    let mut layers = shared_layers();
    for own in 0..2 {
        layers.push(Layer::random(&format!("own-{number}-{own}"), 100 * number + 50 + own, 9_000));
    }
    ImageBuilder::new(layers)
}

fn path(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

/// `IMAGE=DESTINATION` for each archive.
fn pairs(archives: &[PathBuf], host: &str) -> Vec<String> {
    let pair = |(n, archive): (usize, &PathBuf)| format!("{}={host}/service-{n}:v1", path(archive));
    archives.iter().enumerate().map(pair).collect()
}

/// The digests of all layers in these repositories, as an independent client sees them.
fn layers_of(host: &str, repositories: usize) -> BTreeSet<(String, u64)> {
    let pulled =
        (0..repositories).map(|n| pull::oci(host.to_owned(), &format!("service-{n}"), "v1"));
    let layer = |layer: &pull::PulledLayer| (layer.digest.clone(), layer.size);
    pulled.flat_map(|image| image.layers.iter().map(layer).collect::<Vec<_>>()).collect()
}

#[test]
fn ten_services_send_what_they_share_once() {
    let registry = DockerRegistry::plain();
    let proxy = FaultProxy::before(registry.addr());
    let dir = TempDir::new().unwrap();
    let archives: Vec<PathBuf> =
        (0..10).map(|n| service(n).write(dir.path(), &format!("{n}.tar"))).collect();
    let arguments = pairs(&archives, &proxy.host());
    let output = Pushimg::new().run(["--json"].into_iter().map(str::to_owned).chain(arguments));
    let output = output.success();

    for (n, archive) in archives.iter().enumerate() {
        pull::assert_same_image(archive, registry.host(), &format!("service-{n}"), "v1");
    }
    let distinct = layers_of(&registry.host(), 10);
    assert_eq!(distinct.len() as u64, SHARED + 20);
    let layer_bytes: u64 = distinct.iter().map(|(_, size)| size).sum();
    let configs: u64 = (0..10).map(|n| service(n).config().len() as u64).sum();
    let sent = proxy.body_bytes(Record::carries_blob);
    assert_eq!(sent, layer_bytes + configs, "{}", proxy.transcript());
    assert_eq!(proxy.count_step(Step::MountPost) as u64, 9 * SHARED);

    let document = output.json();
    let images = document["images"].as_array().expect("images");
    let actions = |image: &Value, action: &str| {
        let layers = image["layers"].as_array().expect("layers");
        layers.iter().filter(|layer| layer["action"] == action).count() as u64
    };
    let total = |action| images.iter().map(|image| actions(image, action)).sum::<u64>();
    assert_eq!((images.len(), total("uploaded"), total("mounted")), (10, SHARED + 20, 9 * SHARED));
}

#[test]
fn where_nothing_can_be_mounted_each_repository_gets_its_own() {
    let registry = DevRegistry::start(Options::default());
    let proxy = FaultProxy::before(registry.addr());
    let refused = Answer::status(403).error("DENIED", "no mounts here");
    proxy.set_rules(vec![Rule::at(Step::MountPost, Fault::Answer(refused))]);
    let dir = TempDir::new().unwrap();
    let archives: Vec<PathBuf> =
        (0..3).map(|n| service(n).write(dir.path(), &format!("{n}.tar"))).collect();
    Pushimg::new().run(pairs(&archives, &proxy.host())).success();
    for (n, archive) in archives.iter().enumerate() {
        pull::assert_same_image(archive, registry.host(), &format!("service-{n}"), "v1");
    }
    assert_eq!(registry.open_uploads(), 0, "{}", proxy.transcript());
}

#[test]
fn a_registry_that_does_not_tell_its_tags_still_mounts() {
    let registry = DockerRegistry::plain();
    let proxy = FaultProxy::before(registry.addr());
    let hold = Hold::For(Duration::from_secs(20));
    let stall = Fault::Stall { place: Place::BeforeResponse, hold };
    proxy.set_rules(vec![Rule::at(Step::ManifestGet, stall)]);
    let dir = TempDir::new().unwrap();
    let archives: Vec<PathBuf> =
        (0..4).map(|n| service(n).write(dir.path(), &format!("{n}.tar"))).collect();
    Pushimg::new().run(pairs(&archives, &proxy.host())).success();
    assert_eq!(proxy.count_step(Step::MountPost) as u64, 3 * SHARED, "{}", proxy.transcript());
}

/// Mounts wait for each other, and pushimg does not count this time as a delay of the registry.
#[test]
fn slow_mounts_are_waited_for_however_many_they_are() {
    let registry = DockerRegistry::plain();
    let proxy = FaultProxy::before(registry.addr());
    let dir = TempDir::new().unwrap();
    let archives: Vec<PathBuf> =
        (0..10).map(|n| service(n).write(dir.path(), &format!("{n}.tar"))).collect();
    let hold = Hold::For(Duration::from_secs(1));
    let slow = Fault::Stall { place: Place::BeforeResponse, hold };
    proxy.set_rules(vec![Rule::at(Step::MountPost, slow)]);
    Pushimg::new().run(pairs(&archives, &proxy.host())).success();
    let distinct = layers_of(&registry.host(), 10).len();
    let sent = proxy.count(|r| r.carries_blob() && r.status == Some(201));
    assert_eq!(sent, distinct + 10, "{}", proxy.transcript());
}

#[test]
fn what_one_repository_has_is_mounted_into_a_new_one() {
    let registry = DockerRegistry::plain();
    let proxy = FaultProxy::before(registry.addr());
    let dir = TempDir::new().unwrap();
    let archives: Vec<PathBuf> =
        (0..2).map(|n| service(n).write(dir.path(), &format!("{n}.tar"))).collect();
    let arguments = pairs(&archives, &proxy.host());
    // The last image is already there, but this machine does not know that.
    Pushimg::new().run(&arguments[1..]).success();
    proxy.clear();
    Pushimg::new().run(&arguments).success();
    pull::assert_same_image(&archives[0], registry.host(), "service-0", "v1");
    let own = layers_of(&registry.host(), 1).len() as u64 - SHARED;
    // Its own layers and its config.
    assert_eq!(proxy.count(|r| r.carries_blob() && r.status == Some(201)) as u64, own + 1);
}

#[test]
fn an_image_whose_archive_is_damaged_takes_no_other_with_it() {
    let registry = DevRegistry::start(Options::default());
    let dir = TempDir::new().unwrap();
    let layer = Layer::random("shared", 1, 6 << 20);
    let image = |own: u64| ImageBuilder::new(vec![layer.clone(), Layer::random("own", own, 1000)]);
    // The damaged byte is in the layer that both images share. The layer is read, because the
    // archive is too large to be spooled and a stream can be read only once.
    let damaged = archive::gzip(&corrupted(&image(2).tar(), 1 << 20));
    let damaged = archive::write(dir.path(), "bad.tar.gz", &damaged);
    let archives = [damaged, image(3).write(dir.path(), "good.tar")];
    let output = Pushimg::new().run(pairs(&archives, &registry.host())).exits(3);
    let output = output.says("the archive is damaged");
    pull::assert_same_image(&archives[1], registry.host(), "service-1", "v1");
    assert_eq!(output.stdout.lines().count(), 1, "{output}");
    assert_eq!(registry.open_uploads(), 0);
}

#[test]
fn of_two_images_in_one_repository_each_layer_goes_once() {
    let registry = DockerRegistry::plain();
    let proxy = FaultProxy::before(registry.addr());
    let dir = TempDir::new().unwrap();
    let arguments: Vec<String> = (0..2)
        .map(|n| {
            let archive = service(n).write(dir.path(), &format!("{n}.tar"));
            format!("{}={}/app:v{n}", path(&archive), proxy.host())
        })
        .collect();
    Pushimg::new().run(&arguments).success();
    let uploads = proxy.count(|r| r.carries_blob() && r.status == Some(201)) as u64;
    assert_eq!(uploads, SHARED + 2 * 2 + 2, "{}", proxy.transcript());
    for n in 0..2 {
        let archive = dir.path().join(format!("{n}.tar"));
        pull::assert_same_image(&archive, registry.host(), "app", &format!("v{n}"));
    }
}

#[test]
fn two_images_that_name_themselves_alike_are_not_both_pushed() {
    let registry = DevRegistry::start(Options::default());
    let dir = TempDir::new().unwrap();
    let name = format!("{}/app:v1", registry.host());
    let images = [1, 2].map(|n| {
        let archive = service(n).repo_tags(&[&name]).write(dir.path(), &format!("{n}.tar"));
        json!({ "image": archive })
    });
    let list = archive::write(dir.path(), "images.json", json!(images).to_string().as_bytes());
    let output = Pushimg::new().run(["--file", path(&list)]).exits(2);
    let output = output.says(&format!("two images have the destination {name}"));
    assert_eq!(output.stdout.lines().count(), 1, "{output}");
}

/// Archives of the same service for two architectures.
fn platforms(dir: &Path) -> [PathBuf; 2] {
    ["amd64", "arm64"].map(|architecture| {
        let image = service(1).architecture(architecture);
        image.write(dir, &format!("{architecture}.tar"))
    })
}

fn push_index(destination: &str, images: &[&str], options: &[&str]) -> Output {
    let arguments = [options, &["--index", destination], images].concat();
    Pushimg::new().run(arguments)
}

/// What skopeo reads under a tag, not following it to an image.
fn raw_manifest(host: &str, name: &str) -> Value {
    let output = std::process::Command::new("skopeo")
        .args(["inspect", "--raw", "--tls-verify=false", &format!("docker://{host}/{name}")])
        .output()
        .expect("run skopeo");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("a manifest")
}

#[test]
fn an_index_lists_its_images_by_platform_in_whatever_order_they_came() {
    let registry = DockerRegistry::plain();
    let dir = TempDir::new().unwrap();
    let [amd64, arm64] = platforms(dir.path());
    let destination = format!("{}/app:v1", registry.host());
    let one = push_index(&destination, &[path(&amd64), path(&arm64)], &["-t", "latest"]).success();
    let raw = raw_manifest(&registry.host(), "app:latest");
    assert_eq!(raw["mediaType"], "application/vnd.docker.distribution.manifest.list.v2+json");
    let listed: Vec<&Value> = raw["manifests"].as_array().unwrap().iter().collect();
    let platforms: Vec<Value> = listed.iter().map(|entry| entry["platform"].clone()).collect();
    assert_eq!(
        platforms,
        [
            json!({"os": "linux", "architecture": "amd64"}),
            json!({"os": "linux", "architecture": "arm64"})
        ]
    );
    for (entry, archive) in listed.iter().zip([&amd64, &arm64]) {
        let digest = entry["digest"].as_str().unwrap();
        pull::assert_same_image(archive, registry.host(), "app", digest);
    }

    let (arm, amd) = (format!("arm64={}", path(&arm64)), format!("linux/amd64={}", path(&amd64)));
    let other = push_index(&destination, &[&arm, &amd], &[]).success();
    assert_eq!(one.digest(), other.digest());

    let oci = push_index(&destination, &[path(&amd64), path(&arm64)], &["--format", "oci"]);
    oci.success();
    let raw = raw_manifest(&registry.host(), "app:v1");
    assert_eq!(raw["mediaType"], "application/vnd.oci.image.index.v1+json");
}

#[test]
fn an_index_can_be_asked_for_by_its_digest() {
    let registry = DockerRegistry::plain();
    let dir = TempDir::new().unwrap();
    let images = platforms(dir.path());
    let [amd64, arm64] = [path(&images[0]), path(&images[1])];
    let repository = format!("{}/app", registry.host());
    let digest = push_index(&format!("{repository}:v1"), &[amd64, arm64], &[]).success().digest();
    let pinned = format!("{repository}:v2@{digest}");
    push_index(&pinned, &[amd64, arm64], &[]).success();
    assert_eq!(registry.tag("app", "v2"), Some(digest));
    push_index(&pinned, &[amd64], &[]).exits(1).says("nothing was tagged");
}

#[test]
fn the_next_index_sends_only_what_changed() {
    let registry = DockerRegistry::plain();
    let proxy = FaultProxy::before(registry.addr());
    let dir = TempDir::new().unwrap();
    let destination = format!("{}/app:v1", proxy.host());
    let [amd64, arm64] = platforms(dir.path());
    push_index(&destination, &[path(&amd64), path(&arm64)], &[]).success();
    let changed = service(1).architecture("arm64").with_layer(0, Layer::file("new", b"new"));
    let changed = changed.write(dir.path(), "changed.tar");
    proxy.clear();
    push_index(&destination, &[path(&amd64), path(&changed)], &[]).success();
    let uploads = proxy.count(|r| r.carries_blob() && r.status == Some(201));
    assert_eq!(uploads, 2, "the layer and the config\n{}", proxy.transcript());
}

#[test]
fn an_index_that_cannot_be_made_leaves_the_tag_as_it_was() {
    let registry = DockerRegistry::plain();
    let dir = TempDir::new().unwrap();
    let [amd64, arm64] = platforms(dir.path());
    let destination = format!("{}/app:v1", registry.host());
    push_index(&destination, &[path(&amd64), path(&arm64)], &[]).success();
    let before = registry.tag("app", "v1");
    let again = service(2).write(dir.path(), "again.tar");
    push_index(&destination, &[path(&amd64), path(&again)], &[])
        .exits(2)
        .says("two images of the index are for linux/amd64: the 1st and the 2nd");
    let wrong = format!("arm64={}", path(&amd64));
    push_index(&destination, &[&wrong], &[]).exits(2).says("is an image for linux/amd64, not");
    let absent = path(dir.path()).to_owned() + "/absent.tar";
    push_index(&destination, &[path(&arm64), &absent], &[]).exits(3).says("absent.tar");
    assert_eq!(registry.tag("app", "v1"), before);
    assert!(before.is_some());
}

/// Pushes an image by its digest alone, and returns its name.
fn push_untagged(archive: &Path, repository: &str) -> String {
    let digest = Pushimg::new().run([path(archive), &format!("{repository}@")]).success().digest();
    format!("{repository}@{digest}")
}

/// Compares each image that an index lists, as skopeo reads it, with its archive.
#[track_caller]
fn assert_lists(registry: &DockerRegistry, name: &str, archives: &[PathBuf]) {
    let raw = raw_manifest(&registry.host(), &format!("app:{name}"));
    let listed = raw["manifests"].as_array().expect("an index");
    assert_eq!(listed.len(), archives.len());
    for (entry, archive) in listed.iter().zip(archives) {
        let digest = entry["digest"].as_str().expect("a digest");
        pull::assert_same_image(archive, registry.host(), "app", digest);
        let from = format!("docker://{}/app@{digest}", registry.host());
        let copied = TempDir::new().expect("a folder");
        let to = format!("dir:{}", copied.path().display());
        let status = std::process::Command::new("skopeo")
            .args(["copy", "--quiet", "--src-tls-verify=false", &from, &to])
            .status()
            .expect("run skopeo");
        assert!(status.success(), "skopeo copies {from}");
    }
}

#[test]
fn an_index_over_images_in_its_repository_sends_no_blob() {
    let registry = DockerRegistry::plain();
    let proxy = FaultProxy::before(registry.addr());
    let dir = TempDir::new().unwrap();
    let archives = platforms(dir.path());
    let repository = format!("{}/app", proxy.host());
    let amd64 = push_untagged(&archives[0], &repository);
    let arm64 = format!("{repository}:arm");
    Pushimg::new().run([path(&archives[1]), &arm64]).success();
    proxy.clear();
    let images = [format!("amd64={amd64}"), format!("arm64={arm64}")];
    push_index(&format!("{repository}:v1"), &[&images[0], &images[1]], &[]).success();
    assert_eq!(proxy.count(|r| r.carries_blob()), 0, "{}", proxy.transcript());
    assert_lists(&registry, "v1", &archives);
    // An index gives the image of the platform.
    let images = ["amd64", "arm64"].map(|on| format!("{on}={repository}:v1"));
    push_index(&format!("{repository}:v2"), &[&images[0], &images[1]], &[]).success();
    assert_eq!(registry.tag("app", "v2"), registry.tag("app", "v1"));
}

#[test]
fn an_index_over_images_of_another_repository_mounts_their_blobs() {
    let registry = DockerRegistry::plain();
    let proxy = FaultProxy::before(registry.addr());
    let dir = TempDir::new().unwrap();
    let archives = platforms(dir.path());
    let images = ["amd64", "arm64"].map(|on| format!("{}/of-{on}", proxy.host()));
    let amd64 = format!("amd64={}", push_untagged(&archives[0], &images[0]));
    let arm64 = format!("arm64={}", push_untagged(&archives[1], &images[1]));
    proxy.clear();
    push_index(&format!("{}/app:v1", proxy.host()), &[&amd64, &arm64], &[]).success();
    assert_eq!(proxy.count(|r| r.carries_blob()), 0, "{}", proxy.transcript());
    assert_lists(&registry, "v1", &archives);
}

#[test]
fn where_nothing_can_be_mounted_an_index_copies_the_blobs() {
    let registry = DockerRegistry::plain();
    let proxy = FaultProxy::before(registry.addr());
    let refused = Answer::status(403).error("DENIED", "no mounts here");
    proxy.set_rules(vec![Rule::at(Step::MountPost, Fault::Answer(refused))]);
    let dir = TempDir::new().unwrap();
    // One layer is larger than one piece of a copy.
    let big = |machine| {
        let layers = vec![Layer::random("big", 1, 9_000_000), Layer::random(machine, 2, 9_000)];
        ImageBuilder::new(layers).architecture(machine)
    };
    let archives = ["amd64", "arm64"].map(|on| big(on).write(dir.path(), &format!("{on}.tar")));
    let amd64 = push_untagged(&archives[0], &format!("{}/other", proxy.host()));
    let destination = format!("{}/app:v1", proxy.host());
    let dry = push_index(&destination, &[&amd64, path(&archives[1])], &["--dry-run"]).success();
    assert_eq!(registry.tag("app", "v1"), None, "{dry}");
    push_index(&destination, &[&amd64, path(&archives[1])], &[]).success();
    assert_lists(&registry, "v1", &archives);
}

#[test]
fn an_index_mixes_images_in_the_registry_with_local_ones() {
    let registry = DockerRegistry::plain();
    let dir = TempDir::new().unwrap();
    let archives = platforms(dir.path());
    let amd64 = push_untagged(&archives[0], &format!("{}/other", registry.host()));
    let destination = format!("{}/app:v1", registry.host());
    push_index(&destination, &[&amd64, path(&archives[1])], &[]).success();
    assert_lists(&registry, "v1", &archives);
}

#[test]
fn an_index_over_images_that_do_not_fit_moves_no_tag() {
    let registry = DockerRegistry::plain();
    let dir = TempDir::new().unwrap();
    let archives = platforms(dir.path());
    let repository = format!("{}/app", registry.host());
    let amd64 = push_untagged(&archives[0], &repository);
    let destination = format!("{repository}:v1");
    let wrong = format!("arm64={amd64}");
    push_index(&destination, &[&wrong], &[]).exits(2).says("is an image for linux/amd64, not");
    push_index(&destination, &[&amd64, path(&archives[0])], &[])
        .exits(2)
        .says("two images of the index are for linux/amd64");
    let absent = format!("{repository}:absent");
    push_index(&destination, &[&amd64, &absent], &[]).exits(4).says(&format!("no image {absent}"));
    push_index(&destination, &[&amd64, "r.io/app:arm"], &[])
        .exits(2)
        .says("in another registry than the index")
        .says("push the image to");
    assert_eq!(registry.tag("app", "v1"), None);
}
