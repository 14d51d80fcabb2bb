//! How registries and what stands before them answer besides what the specification has: each
//! request goes through one door, and what it says is plain, safe and bounded in time.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tempfile::TempDir;

use crate::support::archive::{ImageBuilder, Layer};
use crate::support::docker_registry::{BASIC_PASSWORD, BASIC_USER};
use crate::support::proxy::*;
use crate::support::pull::{self, Remote};
use crate::support::registry::{self, DevRegistry};
use crate::support::run::{Output, Pushimg};
use crate::support::tls::Authority;
use crate::support::*;

const MIB: usize = 1 << 20;

fn image(dir: &TempDir) -> PathBuf {
    ImageBuilder::new(vec![Layer::random("a", 1, 300_000), Layer::file("b", b"b")])
        .write(dir.path(), "image.tar")
}

fn push(machine: &Pushimg, image: &Path, host: &str, more: &[&str]) -> Output {
    let mut args = vec![image.display().to_string(), format!("{host}/app:v1")];
    args.extend(more.iter().map(|arg| (*arg).to_owned()));
    machine.run(args)
}

/// A registry with a proxy before it, and an image.
struct Scene {
    dir: TempDir,
    registry: DevRegistry,
    proxy: FaultProxy,
    image: PathBuf,
}

impl Scene {
    fn new() -> Self {
        Self::with(registry::Options::default())
    }

    fn with(options: registry::Options) -> Self {
        let (dir, registry) = (TempDir::new().expect("a folder"), DevRegistry::start(options));
        let (proxy, image) = (FaultProxy::before(registry.addr()), image(&dir));
        Self { dir, registry, proxy, image }
    }

    fn push(&self, more: &[&str]) -> Output {
        push(&Pushimg::new(), &self.image, &self.proxy.host(), more)
    }

    fn login(&self, user: &str, password: &str) -> Output {
        let machine = Pushimg::new().login(&self.proxy.host(), user, password);
        push(&machine, &self.image, &self.proxy.host(), &["-vv"])
    }

    fn rules(&self, rules: Vec<Rule>) {
        self.proxy.clear();
        self.proxy.set_rules(rules);
    }
}

fn set(name: &str, value: &str) -> Fault {
    Fault::Rewrite(vec![Change::Set(name.to_owned(), value.to_owned())])
}

fn bearer() -> registry::Options {
    let auth = registry::bearer(BASIC_USER, BASIC_PASSWORD, Duration::from_secs(300));
    registry::Options { auth, ..Default::default() }
}

fn basic() -> registry::Options {
    let auth = registry::basic(BASIC_USER, BASIC_PASSWORD);
    registry::Options { auth, ..Default::default() }
}

// Waiting

#[test]
fn a_pause_without_end_is_neither_waited_for_nor_a_panic() {
    for seconds in ["18446744073709551615", "99999999999999999999999"] {
        let scene = Scene::with(bearer());
        let machine = Pushimg::new().login(&scene.proxy.host(), BASIC_USER, BASIC_PASSWORD);
        for (step, status) in [(Step::TokenGet, 503), (Step::UploadPost, 429)] {
            let answer = Answer::status(status).header("retry-after", seconds);
            scene.rules(vec![Rule::at(step, Fault::Answer(answer))]);
            let output = push(&machine, &scene.image, &scene.proxy.host(), &[]).exits(5);
            assert!(output.took < Duration::from_secs(20), "{output}");
            output.says("a pause of a day or more");
        }
    }
}

/// Answers each request with a body that never ends, a byte at a time.
fn dripping() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = listener.local_addr().expect("its address");
    std::thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut head = [0; 4096];
                let _ = client.read(&mut head);
                let start = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\
                             content-length: 100000\r\n\r\n";
                let mut sent = client.write_all(start.as_bytes());
                while sent.is_ok() {
                    std::thread::sleep(Duration::from_millis(100));
                    sent = client.write_all(b" ");
                }
            });
        }
    });
    addr
}

#[test]
fn a_look_at_the_previous_image_costs_a_few_seconds_whatever_answers() {
    let drip = format!("http://{}/", dripping());
    let faults = [
        Fault::Answer(Answer::status(503).html()),
        Fault::Answer(Answer::status(429).retry_after(1).error("TOOMANYREQUESTS", "slow down")),
        Fault::Answer(Answer::status(429).retry_after(30)),
        Fault::Answer(Answer::status(307).header("location", &drip)),
        Fault::stall(Place::BeforeResponse),
        Fault::stall(Place::ResponseBody(At::Percent(50))),
    ];
    for step in [Step::ManifestGet, Step::ConfigGet] {
        for fault in &faults {
            let scene = Scene::new();
            scene.push(&[]).success();
            scene.rules(vec![Rule::at(step, fault.clone())]);
            let output = scene.push(&["--no-cache"]).success();
            assert!(output.took < Duration::from_secs(9), "{step:?} {fault:?}\n{output}");
        }
    }
}

#[test]
fn a_small_answer_ends_in_time_although_its_bytes_keep_coming() {
    let scene = Scene::new();
    let drip = format!("http://{}/", dripping());
    let to_drip = Fault::Answer(Answer::status(307).header("location", &drip));
    // The registry does not say which manifest it stored, so it is asked.
    scene.rules(vec![
        Rule::at(
            Step::ManifestPut,
            Fault::Rewrite(vec![Change::Remove("docker-content-digest".to_owned())]),
        ),
        Rule::at(Step::ManifestGet, to_drip),
    ]);
    let output = scene.push(&["--idle-timeout=1s", "--retry-for=1s"]).exits(5);
    assert!(output.took < Duration::from_secs(20), "{output}");
    output.says("did not end within 1s");
}

// Codes

#[test]
fn an_error_code_is_final_whatever_the_status_says() {
    for (step, code) in [
        (Step::ManifestPut, "MANIFEST_INVALID"),
        (Step::ManifestPut, "NAME_INVALID"),
        (Step::UploadPost, "NAME_INVALID"),
        (Step::UploadPost, "DENIED"),
        (Step::UploadPut, "SIZE_INVALID"),
    ] {
        let scene = Scene::new();
        let failed = Answer::status(500).error(code, "it will never be accepted");
        scene.rules(vec![Rule::at(step, Fault::Answer(failed))]);
        let output = scene.push(&["-j1"]).exits(4).says(code).says("it will never be accepted");
        assert!(!output.stderr.contains("retry: "), "{output}");
        assert_eq!(scene.registry.tag("app", "v1"), None);
    }
    // The same status without such a code may pass.
    let scene = Scene::new();
    let failed = Answer::status(500).error("UNKNOWN", "a hiccup");
    scene.rules(vec![Rule::at(Step::ManifestPut, Fault::Answer(failed)).first(1)]);
    scene.push(&[]).success().says("retry: ");
}

#[test]
fn an_old_registrys_invalid_manifest_gets_a_hint_to_dockers_format() {
    let scene = Scene::new();
    let invalid = Answer::status(400).error("MANIFEST_INVALID", "manifest invalid");
    scene.rules(vec![Rule::at(Step::ManifestPut, Fault::Answer(invalid))]);
    scene
        .push(&["--compression=zstd"])
        .exits(4)
        .says("manifest invalid")
        .says("--format docker --compression gzip");
}

#[test]
fn a_host_that_is_no_registry_is_called_that() {
    let plain = |status: u16, text: &str| {
        let mut answer = Answer::status(status).header("content-type", "text/plain");
        answer.body = text.to_owned();
        answer
    };
    for answer in
        [Answer::status(404).html(), Answer::status(200).html(), plain(404, "404 page not found\n")]
    {
        let scene = Scene::new();
        scene.rules(vec![Rule::any(Fault::Answer(answer))]);
        let output = scene.push(&["--retry-for=2s"]);
        assert!(matches!(output.code(), Some(4 | 5)), "{output}");
        let text = format!("error: {} does not look like a registry", scene.proxy.host());
        output.says(&text);
    }
    // A registry that gives such an answer once is one all the same.
    let scene = Scene::new();
    scene.rules(vec![Rule::at(Step::UploadPost, Fault::Answer(Answer::status(404).html()))]);
    scene.push(&[]).exits(4).never_says("does not look like a registry");
}

#[test]
fn a_registry_that_takes_no_pushes_is_called_read_only() {
    let scene = Scene::new();
    scene.rules(vec![Rule::at(Step::UploadPost, Fault::refused_method())]);
    scene.push(&[]).exits(4).says("UNSUPPORTED").says("read-only, or a mirror");
}

// Locations

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

// How bytes are sent

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
fn a_warning_of_the_registry_is_shown_once() {
    let scene = Scene::new();
    let warning = set("warning", "299 - \"this registry moves on Sunday\"");
    scene.rules(vec![
        Rule::at(Step::BlobHead, warning.clone()),
        Rule::at(Step::UploadPost, warning.clone()),
        Rule::at(Step::ManifestPut, warning),
    ]);
    let output = scene.push(&[]).success();
    let shown = output.stderr.matches("warning: ").count();
    assert_eq!(shown, 1, "{output}");
    output.says("says: this registry moves on Sunday");
}

// The first request

/// A plain tar with many layers, whose digests the cache of an earlier push knows.
fn many_layers(dir: &TempDir) -> PathBuf {
    let layers = (0..20).map(|n| Layer::random(&format!("p-{n}"), n, 2_000)).collect();
    ImageBuilder::new(layers).write(dir.path(), "many.tar")
}

#[test]
fn before_the_first_challenge_one_request_asks() {
    for options in [bearer(), basic()] {
        let scene = Scene::with(options);
        let image = many_layers(&scene.dir);
        let machine = Pushimg::new().login(&scene.proxy.host(), BASIC_USER, BASIC_PASSWORD);
        for _ in 0..2 {
            scene.proxy.clear();
            push(&machine, &image, &scene.proxy.host(), &[]).success();
            let refused = scene.proxy.count(|record| record.status == Some(401));
            assert_eq!(refused, 1, "{}", scene.proxy.transcript());
        }
    }
}

/// Passes connections on to a server, and counts those that do not begin with a TLS handshake.
fn counting_relay(upstream: SocketAddr) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = listener.local_addr().expect("its address");
    let plain = Arc::new(AtomicUsize::new(0));
    let counter = plain.clone();
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let mut first = [0];
            let counter = counter.clone();
            std::thread::spawn(move || {
                if client.peek(&mut first).is_ok_and(|count| count == 1) && first[0] != 22 {
                    counter.fetch_add(1, Ordering::Relaxed);
                }
                let server = TcpStream::connect(upstream).expect("the server");
                let ways = [(client.try_clone(), server.try_clone()), (Ok(server), Ok(client))];
                for (from, to) in ways {
                    let (Ok(mut from), Ok(mut to)) = (from, to) else { continue };
                    std::thread::spawn(move || {
                        let _ = std::io::copy(&mut from, &mut to);
                        let _ = to.shutdown(std::net::Shutdown::Write);
                    });
                }
            });
        }
    });
    (addr, plain)
}

#[test]
fn a_loopback_port_that_speaks_tls_is_asked_in_the_open_once() {
    let (dir, authority) = (TempDir::new().expect("a folder"), Authority::new());
    let registry = DockerRegistry::tls(&authority);
    let image = many_layers(&dir);
    let machine = Pushimg::new();
    for (number, code) in [(1, 0), (2, 0), (3, 5)] {
        let (addr, plain) = counting_relay(registry.addr());
        let trust: &[&str] = if code == 0 { &["--insecure-skip-tls-verify"] } else { &[] };
        push(&machine, &image, &addr.to_string(), trust).exits(code);
        assert_eq!(plain.load(Ordering::Relaxed), 1, "push {number}");
    }
}

// Who may do what

#[test]
fn a_user_who_may_not_push_is_not_told_to_log_in() {
    // The token server knows the user, and gives no right to this repository.
    let tokens =
        TokenServer::start(TokenOptions { denied: vec!["app".to_owned()], ..Default::default() });
    let registry = DockerRegistry::token(&tokens);
    let dir = TempDir::new().expect("a folder");
    let image = image(&dir);
    let options = TokenOptions::default();
    let host = registry.host();
    let machine = Pushimg::new().login(&host, &options.user, &options.password);
    push(&machine, &image, &host, &[])
        .exits(4)
        .says(&format!("this user may not push to {host}/app"))
        .says("user pushimg")
        .never_says("pushimg login")
        .never_says("cannot log in");
    // The same from a registry that lets the user pull, in its own words.
    let scene = Scene::with(bearer());
    let narrow = Answer::status(401)
        .header(
            "www-authenticate",
            &format!(
                "Bearer realm=\"http://{}/token\",service=\"s\",error=\"insufficient_scope\"",
                scene.proxy.addr_of(Origin::Token)
            ),
        )
        .error("UNAUTHORIZED", "reporters may pull only");
    scene.rules(vec![Rule::at(Step::UploadPost, Fault::Answer(narrow))]);
    scene
        .login(BASIC_USER, BASIC_PASSWORD)
        .exits(4)
        .says("reporters may pull only")
        .says("this user may not push to")
        .never_says("pushimg login");
    // A wrong password, and none.
    for machine in [Pushimg::new().login(&host, &options.user, "wrong"), Pushimg::new()] {
        push(&machine, &image, &host, &[]).exits(4).says("pushimg login").says("cannot log in");
    }
}

#[test]
fn a_quota_is_not_answered_with_log_in() {
    for status in [401, 403] {
        // Anonymously, a 401 is a question for the login.
        let anonymous = (status == 403).then(registry::Options::default);
        for options in [basic(), bearer()].into_iter().chain(anonymous) {
            let scene = Scene::with(options);
            let denied = Answer::status(status)
                .header("www-authenticate", "Basic realm=\"laboratory\"")
                .error("DENIED", "the quota of this project is used up");
            scene.rules(vec![Rule::at(Step::UploadPut, Fault::Answer(denied))]);
            scene
                .login(BASIC_USER, BASIC_PASSWORD)
                .exits(4)
                .says("the quota of this project is used up")
                .never_says("log in with");
        }
    }
}

#[test]
fn a_login_that_has_expired_is_answered_with_log_in() {
    for status in [401, 403] {
        let scene = Scene::with(basic());
        let denied = Answer::status(status)
            .header("www-authenticate", "Basic realm=\"laboratory\"")
            .error("DENIED", "Your authorization token has expired. Reauthenticate and try again.");
        scene.rules(vec![Rule::at(Step::UploadPost, Fault::Answer(denied))]);
        scene.login(BASIC_USER, BASIC_PASSWORD).exits(4).says("log in with `pushimg login");
    }
}

#[test]
fn a_challenge_that_cannot_be_answered_is_shown() {
    let scene = Scene::new();
    let negotiate = Answer::status(401)
        .header("www-authenticate", "Negotiate")
        .error("UNAUTHORIZED", "authentication required");
    scene.rules(vec![Rule::any(Fault::Answer(negotiate))]);
    scene.push(&[]).exits(4).says("WWW-Authenticate: Negotiate");
}

// Secrets

#[test]
fn what_a_registry_repeats_of_the_password_is_masked() {
    let padded = "cHVzaGltZzpjb3JyZWN0IGhvcnNl";
    let scene = Scene::with(basic());
    for echo in [BASIC_PASSWORD, padded, "Y29ycmVjdCBob3JzZQ==", "Y29ycmVjdCBob3JzZQ"] {
        for status in [400, 403, 500] {
            let answer = Answer::status(status).error("UNKNOWN", &format!("you sent <{echo}>"));
            scene.rules(vec![Rule::at(Step::UploadPost, Fault::Answer(answer))]);
            let machine = Pushimg::new().login(&scene.proxy.host(), BASIC_USER, BASIC_PASSWORD);
            let options = ["-vv", "--retry-for=0", "--json"];
            push(&machine, &scene.image, &scene.proxy.host(), &options)
                .never_says(echo)
                .says("you sent <***>");
        }
    }
}

#[test]
fn what_token_servers_write_into_queries_and_headers_is_not_shown() {
    let scene = Scene::with(bearer());
    let realm = format!("http://{}/token?key=s3cr3t-query", scene.proxy.addr_of(Origin::Token));
    let challenge = Answer::status(401)
        .header("www-authenticate", &format!("Bearer realm=\"{realm}\",service=\"s\""));
    scene.rules(vec![
        Rule::at(Step::ManifestGet, Fault::Answer(challenge)).first(1),
        Rule::at(
            Step::TokenGet,
            Fault::Rewrite(vec![
                Change::Set("x-refresh-token".to_owned(), "s3cr3t-token".to_owned()),
                Change::Set("x-api-key".to_owned(), "s3cr3t-key".to_owned()),
                Change::Set("x-echo".to_owned(), BASIC_PASSWORD.to_owned()),
                Change::Set("link".to_owned(), "</a?sig=s3cr3t-link>".to_owned()),
            ]),
        ),
    ]);
    let output = scene.login(BASIC_USER, BASIC_PASSWORD).success();
    output.says("GET http://").never_says("s3cr3t").never_says(BASIC_PASSWORD);
    let remote = Remote::new(scene.registry.addr()).login(BASIC_USER, BASIC_PASSWORD);
    pull::assert_same_image(&scene.image, remote, "app", "v1");
}
