//! Where upload sessions and redirects lead.

use super::*;

#[test]
fn a_location_in_plain_http_at_the_same_place_behind_tls_means_https() {
    let (dir, authority) = (TempDir::new().expect("a folder"), Authority::new());
    let image = image(&dir);
    let ca = format!("--ca-file={}", authority.ca_file().display());
    let options = GatewayOptions { tls: Some(&authority), ..Default::default() };
    let registry = DockerRegistry::plain();
    let nginx = Nginx::before(registry.addr(), &options);
    push(&Pushimg::new(), &image, &nginx.host(), &[&ca]).success();
    pull::assert_same_image(&image, registry.addr(), "app", "v1");
    let registry = DockerRegistry::plain();
    let haproxy = HaProxy::before(registry.addr(), &options);
    push(&Pushimg::new(), &image, &haproxy.host(), &[&ca]).success();
    pull::assert_same_image(&image, registry.addr(), "app", "v1");
}

#[test]
fn a_location_at_an_inner_host_is_said_to_be_the_registrys_own_answer() {
    let scene = Scene::new();
    let nobody = unused_address();
    let inner = format!("http://{nobody}/v2/app/blobs/uploads/1");
    scene.rules(vec![Rule::at(Step::UploadPost, set("location", &inner))]);
    let output = scene.push(&["--retry-for=1s"]).exits(5);
    output
        .says(&format!("cannot reach {nobody}"))
        .says(&format!("the answer of {} named this address", scene.proxy.host()));
}

/// An address where nothing listens. Ports from 1024 on are taken by other tests.
fn unused_address() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 1))
}

#[test]
fn a_login_in_a_location_is_neither_shown_nor_sent() {
    let scene = Scene::with(basic());
    let machine = Pushimg::new().login(&scene.proxy.host(), BASIC_USER, BASIC_PASSWORD);
    for host in [scene.proxy.host(), scene.proxy.addr_of(Origin::Foreign).to_string()] {
        let location = format!("http://mallory:s3cr3t@{host}/v2/app/blobs/uploads/1");
        scene.rules(vec![Rule::at(Step::UploadPost, set("location", &location))]);
        let output = push(&machine, &scene.image, &scene.proxy.host(), &["-vv", "--retry-for=1s"]);
        assert!(matches!(output.code(), Some(4 | 5)), "{output}");
        output.never_says("s3cr3t").never_says("mallory");
        for record in scene.proxy.records() {
            let logins = record.headers.iter().filter(|(name, _)| name == "authorization");
            let logins: Vec<_> = logins.map(|(_, value)| value.clone()).collect();
            assert!(logins.len() <= 1, "{record} {logins:?}");
            assert!(!logins.iter().any(|login| login.contains("bWFsbG9yeT")), "{record}");
        }
    }
}

#[test]
fn a_redirect_of_a_post_from_http_to_https_says_to_name_https() {
    for status in [301, 302] {
        let scene = Scene::new();
        let secure = format!("https://{}/v2/app/blobs/uploads/", scene.proxy.host());
        let moved = Answer::status(status).header("location", &secure);
        scene.rules(vec![Rule::at(Step::UploadPost, Fault::Answer(moved))]);
        let output = scene.push(&["--retry-for=1s", "--plain-http"]).exits(5);
        output.says("redirects plain HTTP to HTTPS").says("leave out --plain-http");
    }
}

#[test]
fn a_question_for_a_blob_that_leads_nowhere_counts_as_no() {
    let nobody = format!("http://{}/blob", unused_address());
    for location in [Some(nobody.as_str()), Some("http://storage.invalid/blob"), Some("/v2/"), None]
    {
        let scene = Scene::new();
        let image = many_layers(&scene.dir);
        let moved = Answer::status(307);
        let moved = location.map_or(moved.clone(), |place| moved.header("location", place));
        scene.rules(vec![Rule::at(Step::BlobHead, Fault::Answer(moved))]);
        let output = push(&Pushimg::new(), &image, &scene.proxy.host(), &["--retry-for=2s"]);
        let output = output.success();
        assert!(output.took < Duration::from_secs(20), "{output}");
        pull::assert_same_image(&image, scene.registry.addr(), "app", "v1");
    }
    // The same if only this HEAD could tell whether the blob arrived.
    let scene = Scene::new();
    scene.rules(vec![
        Rule::at(Step::BlobHead, Fault::Answer(Answer::status(307).header("location", &nobody))),
        Rule::at(Step::UploadPut, Fault::Rewrite(vec![Change::Status(200)])),
    ]);
    scene.push(&["--retry-for=2s"]).success();
    scene.rules(vec![
        Rule::at(Step::BlobHead, Fault::Answer(Answer::status(307).header("location", &nobody))),
        Rule::at(Step::UploadPut, Fault::LostResponse(None)).first(1),
    ]);
    push(&Pushimg::new(), &scene.image, &scene.proxy.host(), &["--retry-for=2s", "--no-cache"]);
    pull::assert_same_image(&scene.image, scene.registry.addr(), "app", "v1");
}
