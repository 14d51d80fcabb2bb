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
