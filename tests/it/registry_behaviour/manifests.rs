//! Repositories that do not exist, blobs that the registry forgot, and several tags.

use super::*;

#[test]
fn a_repository_that_does_not_exist_is_told_with_what_creates_it() {
    let bench = Bench::with(registry::Options {
        repositories: Some(vec!["other".to_owned()]),
        ..Default::default()
    });
    let image = bench.image(1000);
    bench.push(&image, &[]).exits(4).says("NAME_UNKNOWN").says("hint: create the repository app");
    assert!(bench.proxy.count_step(Step::UploadPost) <= 4);
}

#[test]
fn a_blob_that_is_not_there_although_the_registry_said_so_is_sent_once_more() {
    let bench = Bench::new();
    let image = bench.image(MIB);
    bench.pushed(&image, &[]);
    let pulled = pull::oci(bench.registry.addr(), "app", "v1");
    let lost = pulled.layers[2].digest.clone();
    assert!(bench.registry.remove_blob("app", &lost));
    let stale =
        Fault::Rewrite(vec![Change::Status(200), Change::Remove("content-length".to_owned())]);
    bench.proxy.set_rules(vec![Rule::at(Step::BlobHead, stale).path(&lost)]);
    let output = bench.pushed(&image, &["--no-cache", "-t", "v2"]);
    output.says("MANIFEST_BLOB_UNKNOWN").says("is read again");
    let puts = bench.proxy.records();
    let puts = puts.iter().filter(|r| r.step == Step::ManifestPut).count();
    assert_eq!(puts, 3, "the first push, the attempt, and once more");
}

#[test]
fn of_several_tags_it_is_said_which_were_put() {
    let bench = Bench::new();
    let image = bench.image(1000);
    let refusal = Answer::status(403).error("DENIED", "v2 is protected");
    bench
        .proxy
        .set_rules(vec![Rule::at(Step::ManifestPut, Fault::Answer(refusal)).path("/manifests/v2")]);
    bench
        .push(&image, &["-t", "v2", "-t", "latest"])
        .exits(4)
        .says("v2 is protected")
        .says("already there as v1, latest");
    assert_eq!(bench.registry.tag("app", "v2"), None);
    assert_eq!(bench.registry.tag("app", "v1"), bench.registry.tag("app", "latest"));
}
