//! Which manifests pushimg puts, and how it handles a refusal.

use crate::support::archive::{ImageBuilder, Layer, testdata};
use crate::support::proxy::{Answer, Fault, Rule, Step};
use crate::support::pull;
use crate::support::registry::{DevRegistry, Options, Tags};
use crate::support::run::Pushimg;
use crate::support::*;
use tempfile::TempDir;

fn text(path: &std::path::Path) -> &str {
    path.to_str().expect("UTF-8")
}

#[test]
fn the_same_image_to_an_immutable_tag_succeeds_without_a_put() {
    for tags in [Tags::ImmutableAsEcr, Tags::ImmutableAsHarbor] {
        let registry = DevRegistry::start(Options { tags, ..Options::default() });
        let proxy = FaultProxy::before(registry.addr());
        let destination = format!("{}/app:v1", proxy.host());
        for archive in ["layered-v1.tar", "layered-v1.tar.gz", "podman-oci.tar"] {
            let repository = archive.replace('.', "-");
            let destination = destination.replace("app", &repository);
            let archive = testdata(archive);
            let push = || Pushimg::new().run([text(&archive), &destination, "-t", "v2"]).success();
            let first = push();
            proxy.clear();
            let second = push();
            assert_eq!(second.digest(), first.digest());
            assert_eq!(proxy.count_step(Step::ManifestPut), 0, "{}", proxy.transcript());
            // A new tag beside one that is there already.
            proxy.clear();
            Pushimg::new().run([text(&archive), &destination, "-t", "v3"]).success();
            assert_eq!(proxy.count_step(Step::ManifestPut), 1, "{}", proxy.transcript());
            assert_eq!(registry.tag(&repository, "v3"), registry.tag(&repository, "v1"));
        }
    }
}

#[test]
fn of_an_immutable_tag_with_another_image_it_is_said_what_it_points_to() {
    for tags in [Tags::ImmutableAsEcr, Tags::ImmutableAsHarbor] {
        let registry = DevRegistry::start(Options { tags, ..Options::default() });
        let destination = format!("{}/app:v1", registry.host());
        let [old, new] = ["layered-v1.tar", "layered-v2.tar"].map(testdata);
        let first = Pushimg::new().run([text(&old), &destination]).success();
        let output = Pushimg::new().run([text(&new), &destination]).exits(4);
        output.says("immutable").says(&format!("the tag v1 still points to {}", first.digest()));
        assert_eq!(registry.tag("app", "v1"), Some(first.digest()));
        // The tag v1 is immutable, but v2 is put.
        let output = Pushimg::new().run([text(&new), &destination, "-t", "v2"]).exits(4);
        output
            .says(&format!("the tag v1 still points to {}", first.digest()))
            .says("the image is already there as v2");
        let second = format!("{}/app:v2", registry.host());
        let output = Pushimg::new().run(["tag", &second, "v1", "v3"]).exits(4);
        output
            .says(&format!("the tag v1 still points to {}", first.digest()))
            .says("the image is already there as v3");
    }
}

#[test]
fn a_blob_that_was_only_believed_and_is_named_in_the_refusal_is_uploaded() {
    // As a registry answers that says 200 to the HEAD for a blob of another repository.
    let registry = DevRegistry::start(Options::default());
    let proxy = FaultProxy::before(registry.addr());
    let dir = TempDir::new().expect("a folder");
    let layers = vec![Layer::random("a", 1, 30_000), Layer::random("b", 2, 30_000)];
    let archive = ImageBuilder::new(layers).write(dir.path(), "image.tar");
    Pushimg::new().run([text(&archive), &format!("{}/other:v1", registry.host())]).success();
    let pulled = pull::oci(registry.host(), "other", "v1");
    let there = |layer: &pull::PulledLayer| {
        let answer = Answer::status(200).header("content-length", &layer.size.to_string());
        Rule::at(Step::BlobHead, Fault::Answer(answer)).path(&layer.digest)
    };
    let message = format!("Blob asset not found: {}", pulled.layers[0].digest);
    let refusal = Fault::Answer(Answer::status(400).error("MANIFEST_INVALID", &message));
    let mut rules: Vec<Rule> = pulled.layers.iter().map(there).collect();
    rules.push(Rule::at(Step::ManifestPut, refusal).first(1));
    proxy.set_rules(rules);
    let output = Pushimg::new().run([text(&archive), &format!("{}/app:v1", proxy.host())]);
    output.success().says("Blob asset not found").says("read again");
    assert_eq!(proxy.count_step(Step::ManifestPut), 2, "{}", proxy.transcript());
    pull::assert_same_image(&archive, registry.host(), "app", "v1");
}

#[test]
fn a_refusal_after_which_nothing_was_believed_is_final() {
    let registry = DevRegistry::start(Options::default());
    let proxy = FaultProxy::before(registry.addr());
    for code in ["MANIFEST_BLOB_UNKNOWN", "MANIFEST_INVALID", "BLOB_UNKNOWN"] {
        for status in [400, 404, 500] {
            proxy.clear();
            let refusal = Answer::status(status).error(code, "no");
            proxy.set_rules(vec![Rule::at(Step::ManifestPut, Fault::Answer(refusal))]);
            let repository = format!("{}{status}", code.to_lowercase());
            let destination = format!("{}/{repository}:v1", proxy.host());
            let archive = testdata("layered-v1.tar");
            Pushimg::new().run([text(&archive), &destination]).exits(4).says(code);
            assert_eq!(proxy.count_step(Step::ManifestPut), 1, "{}", proxy.transcript());
            assert_eq!(registry.tag(&repository, "v1"), None);
        }
    }
}

#[test]
fn an_index_that_the_tag_stands_for_is_not_put_and_its_blobs_are_not_asked_for() {
    let registry = DevRegistry::start(Options::default());
    let proxy = FaultProxy::before(registry.addr());
    let dir = TempDir::new().expect("a folder");
    let layout = layout::Layout::new(dir.path().join("layout"));
    let manifests = ["amd64", "arm64"]
        .map(|architecture| layout.image(architecture, &[Layer::random(architecture, 1, 20_000)]));
    let index = layout.index(&[&manifests[0], &manifests[1]]);
    layout.list(&[(&index, Some("v1"))]);
    let destination = format!("{}/app:v1", proxy.host());
    let first = Pushimg::new().run([layout.text(), &destination]).success();
    proxy.clear();
    let second = Pushimg::new().run([layout.text(), &destination]).success();
    assert_eq!(second.digest(), first.digest());
    assert_eq!(proxy.count(|record| !record.is(Step::ManifestGet)), 0, "{}", proxy.transcript());
}
