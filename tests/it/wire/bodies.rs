//! The requests that carry the bytes of blobs.

use super::*;

#[test]
fn where_patch_is_refused_a_growing_layer_is_put_when_it_is_whole() {
    let scene = Scene::new();
    let image = ImageBuilder::new(vec![Layer::random("model-1.0", 7, 70 * MIB)])
        .write(scene.dir.path(), "big.tar");
    scene.rules(vec![Rule::any(Fault::refused_method()).method("PATCH")]);
    push(&Pushimg::new(), &image, &scene.proxy.host(), &["--compression=none"]).success();
    pull::assert_same_image(&image, scene.registry.addr(), "app", "v1");
    assert!(scene.proxy.count_step(Step::UploadPatch) <= 2, "{}", scene.proxy.transcript());
    assert_eq!(scene.registry.open_uploads(), 0);
    // Through a real gateway that lets no PATCH pass.
    let registry = DockerRegistry::plain();
    let options = GatewayOptions { refused_method: Some("PATCH"), ..Default::default() };
    let nginx = Nginx::before(registry.addr(), &options);
    push(&Pushimg::new(), &image, &nginx.host(), &["--compression=none"]).success();
    pull::assert_same_image(&image, registry.addr(), "app", "v1");
}

#[test]
fn no_body_is_longer_than_the_registry_allows() {
    let scene = Scene::new();
    let image =
        ImageBuilder::new(vec![Layer::random("a", 1, 5 * MIB), Layer::random("b", 2, 3 * MIB)])
            .write(scene.dir.path(), "image.tar");
    let most =
        Fault::Rewrite(vec![Change::Set("oci-chunk-max-length".to_owned(), MIB.to_string())]);
    scene.rules(vec![Rule::at(Step::UploadPost, most)]);
    push(&Pushimg::new(), &image, &scene.proxy.host(), &[]).success();
    pull::assert_same_image(&image, scene.registry.addr(), "app", "v1");
    let is_body = |r: &Record| matches!(r.step, Step::UploadPatch | Step::UploadPut);
    let records = scene.proxy.records();
    let longest = records.iter().filter(|r| is_body(r)).map(|r| r.request_body).max();
    assert_eq!(longest, Some(MIB as u64), "{}", scene.proxy.transcript());
}

#[test]
fn a_limit_of_the_registry_is_obeyed_however_small_it_is() {
    let limit = |bytes: &str| Rule::at(Step::UploadPost, set("oci-chunk-max-length", bytes));
    let scene = Scene::new();
    scene.rules(vec![limit("10000")]);
    scene.push(&[]).success();
    let is_body = |r: &Record| matches!(r.step, Step::UploadPatch | Step::UploadPut);
    let records = scene.proxy.records();
    let longest = records.iter().filter(|r| is_body(r)).map(|r| r.request_body).max();
    assert_eq!(longest, Some(10_000), "{}", scene.proxy.transcript());
    pull::assert_same_image(&scene.image, scene.registry.addr(), "app", "v1");
    // A limit so small that the push would need an enormous number of requests is an error.
    let scene = Scene::new();
    scene.rules(vec![limit("1")]);
    scene.push(&[]).exits(5).says("at most 1 byte in a request").says("OCI-Chunk-Max-Length");
    assert!(scene.proxy.count(|r| is_body(r)) < 200, "{}", scene.proxy.transcript());
}
