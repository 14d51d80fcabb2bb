//! Mounts that are done, refused, denied or only claimed.

use super::*;

/// An image of the layers of `team/base`, in a registry that holds those already.
fn with_sibling(bench: &Bench, machine: &Pushimg) -> (PathBuf, String) {
    let image = bench.image(2 * MIB);
    let base = format!("{}/team/base:v1", bench.proxy.host());
    machine.run([image.display().to_string(), base.clone()]).success();
    bench.proxy.clear();
    (image, format!("--reuse-from={base}"))
}

#[test]
fn a_mount_that_is_answered_with_a_session_is_uploaded_in_it() {
    let bench = Bench::with(registry::Options { mounts: false, ..Default::default() });
    let (image, reuse) = with_sibling(&bench, &bench.machine);
    bench.pushed(&image, &["--no-cache", &reuse]);
    // The layers and the config.
    assert_eq!(bench.proxy.count_step(Step::MountPost), 4);
    assert_eq!(bench.proxy.count_step(Step::UploadPost), 0, "{}", bench.proxy.transcript());
}

#[test]
fn a_mount_that_is_refused_or_denied_is_an_upload() {
    let refusals =
        [answer(400), answer(403), answer(404), Fault::refused_method(), answer(500), answer(200)];
    for fault in refusals {
        let bench = Bench::new();
        let (image, reuse) = with_sibling(&bench, &bench.machine);
        bench.proxy.set_rules(vec![Rule::at(Step::MountPost, fault)]);
        bench.pushed(&image, &["--no-cache", "--retry-for=2s", &reuse]);
        assert!(bench.proxy.count_step(Step::MountPost) >= 1);
    }
    // The token server grants nothing for the other repository.
    let tokens = TokenServer::start(TokenOptions::default());
    let registry = DockerRegistry::token(&tokens);
    let options = TokenOptions::default();
    let machine = Pushimg::new().login(&registry.host(), &options.user, &options.password);
    let dir = TempDir::new().expect("a folder");
    let image = ImageBuilder::new(vec![Layer::random("a", 1, MIB)]).write(dir.path(), "image.tar");
    let image = image.display().to_string();
    machine.run([image.clone(), format!("{}/team/base:v1", registry.host())]).success();
    tokens.configure(|options| options.denied = vec!["team/base".to_owned()]);
    // pushimg tries the mount because its cache knows the blob in `team/base`.
    machine.run([image, format!("{}/app:v1", registry.host())]).success();
    assert!(registry.tag("app", "v1").is_some());
    assert_eq!(registry.open_uploads("app"), 0);
}

#[test]
fn a_mount_that_was_claimed_and_not_done_is_found_out() {
    let bench = Bench::new();
    let (image, reuse) = with_sibling(&bench, &bench.machine);
    let lie = Answer::status(201).header("location", "/v2/app/blobs/sha256:0");
    bench.proxy.set_rules(vec![Rule::at(Step::MountPost, Fault::Answer(lie)).first(1)]);
    bench.pushed(&image, &["--no-cache", &reuse]).says("is read again");
}
