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
