//! What registries do, row by row: each behaviour that is seen out there is made at the wire, and
//! the push gets through, or says clearly why not.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::support::archive::{ImageBuilder, Layer};
use crate::support::docker_registry::{BASIC_PASSWORD, BASIC_USER};
use crate::support::proxy::*;
use crate::support::pull::{self, Remote};
use crate::support::registry::{self, DevRegistry};
use crate::support::run::{Output, Pushimg};
use crate::support::token_server::{ExpiresIn, TokenForm};
use crate::support::*;
use tempfile::TempDir;

const MIB: usize = 1 << 20;

/// A registry behind a proxy, an image, and a machine to push it from.
struct Bench {
    dir: TempDir,
    registry: DevRegistry,
    proxy: FaultProxy,
    machine: Pushimg,
}

impl Bench {
    fn new() -> Self {
        Self::with(registry::Options::default())
    }

    fn with(options: registry::Options) -> Self {
        let registry = DevRegistry::start(options);
        let proxy = FaultProxy::before(registry.addr());
        Self { dir: TempDir::new().expect("a folder"), registry, proxy, machine: Pushimg::new() }
    }

    fn name(&self) -> String {
        format!("{}/app:v1", self.proxy.host())
    }

    /// Two small layers and one of so many bytes.
    fn image(&self, big: usize) -> PathBuf {
        ImageBuilder::new(vec![
            Layer::text("glibc-2.38", 1, 200_000),
            Layer::file("app-1.0", b"one"),
            Layer::random("openssl-3.0", 2, big),
        ])
        .write(self.dir.path(), "image.tar")
    }

    fn push(&self, image: &Path, more: &[&str]) -> Output {
        let mut args = vec![image.display().to_string(), self.name()];
        args.extend(more.iter().map(|arg| (*arg).to_owned()));
        self.machine.run(args)
    }

    /// Pushes, and reads back what came.
    fn pushed(&self, image: &Path, more: &[&str]) -> Output {
        let output = self.push(image, more).success();
        pull::assert_same_image(image, self.registry.addr(), "app", "v1");
        assert_eq!(self.registry.open_uploads(), 0, "{}", self.proxy.transcript());
        output
    }

    /// Bytes of blobs that the proxy received.
    fn blob_bytes(&self) -> u64 {
        self.proxy.body_bytes(|r| matches!(r.step, Step::UploadPatch | Step::UploadPut))
    }

    /// Demands that all blobs together came over the line so many times at most.
    fn sent_at_most(&self, times: f64, size: usize) {
        let sent = self.blob_bytes();
        let most = (size as f64 * times) as u64 + 300_000;
        assert!(sent <= most, "{sent} bytes of {size}\n{}", self.proxy.transcript());
    }
}

fn answer(status: u16) -> Fault {
    Fault::Answer(Answer::status(status))
}

fn rewrite(change: Change) -> Fault {
    Fault::Rewrite(vec![change])
}

fn cut(percent: u8) -> Fault {
    Fault::CutRequest { at: At::Percent(percent), delivered: true }
}

// Locations and redirects

#[test]
fn locations_in_every_form_are_followed() {
    for form in [
        LocationForm::Absolute,
        LocationForm::Relative,
        LocationForm::Foreign,
        LocationForm::Portless,
    ] {
        let bench = Bench::new();
        bench.proxy.set_locations(form);
        let image = bench.image(2 * MIB);
        bench.proxy.set_rules(vec![Rule::at(Step::UploadPut, Fault::refused_method()).first(1)]);
        bench.pushed(&image, &[]);
        // Debian's puts `_state` into the query.
        let docker = DockerRegistry::plain();
        let proxy = FaultProxy::before(docker.addr());
        proxy.set_locations(form);
        Pushimg::new()
            .run([image.display().to_string(), format!("{}/app:v1", proxy.host())])
            .success();
        pull::assert_same_image(&image, docker.addr(), "app", "v1");
        assert_eq!(docker.open_uploads("app"), 0);
    }
}

#[test]
fn no_credential_follows_a_redirect_or_a_location_to_another_host() {
    let login = "Basic dXNlcjpodW50ZXIy";
    let registry = DevRegistry::start(registry::Options {
        auth: registry::basic("user", "hunter2"),
        ..Default::default()
    });
    let proxy = FaultProxy::start(
        registry.addr(),
        &ProxyOptions {
            foreign_authorization: Some(Arc::new(move |_| login.to_owned())),
            ..Default::default()
        },
    );
    let dir = TempDir::new().expect("a folder");
    let image = ImageBuilder::new(vec![Layer::random("a", 1, MIB), Layer::random("b", 2, MIB)])
        .write(dir.path(), "image.tar");
    let machine = Pushimg::new().login(&proxy.host(), "user", "hunter2");
    let steps = [
        Step::ManifestGet,
        Step::ConfigGet,
        Step::BlobHead,
        Step::UploadPost,
        Step::UploadPatch,
        Step::UploadPut,
        Step::ManifestPut,
    ];
    for (number, step) in steps.into_iter().enumerate() {
        let name = format!("{}/app:v1", proxy.host());
        machine.run([image.display().to_string(), name.clone()]).success();
        proxy.clear();
        proxy.set_rules(vec![Rule::at(step, Fault::redirect())]);
        if step == Step::UploadPatch {
            proxy.add_rule(Rule::at(Step::UploadPut, Fault::refused_method()).first(1));
        }
        if step == Step::UploadPut {
            proxy.set_locations(LocationForm::Foreign);
        }
        let next = ImageBuilder::new(vec![
            Layer::random("a", 1, MIB),
            Layer::random("c", 10 + number as u64, MIB),
        ])
        .write(dir.path(), "next.tar");
        // The cache would save the config's GET.
        machine.run([next.display().to_string(), name, "--no-cache".to_owned()]).success();
        proxy.heal();
        pull::assert_same_image(
            &next,
            Remote::new(registry.addr()).login("user", "hunter2"),
            "app",
            "v1",
        );
        let records = proxy.records();
        let (there, here): (Vec<_>, Vec<_>) =
            records.iter().partition(|record| record.origin == Origin::Foreign);
        assert!(!there.is_empty(), "{step:?} was not redirected\n{}", proxy.transcript());
        assert!(there.iter().all(|record| record.header("authorization").is_none()), "{step:?}");
        assert!(here.iter().any(|record| record.header("authorization") == Some(login)));
    }
}

#[test]
fn a_location_from_https_to_plain_http_is_refused() {
    let authority = crate::support::tls::Authority::new();
    let registry = DevRegistry::start(registry::Options::default());
    let proxy = FaultProxy::start(
        registry.addr(),
        &ProxyOptions { tls: Some(&authority), ..Default::default() },
    );
    let dir = TempDir::new().expect("a folder");
    let image = ImageBuilder::new(vec![Layer::file("a", b"a")]).write(dir.path(), "image.tar");
    let location = format!("http://{}/v2/app/blobs/uploads/1", registry.addr());
    let set = Change::Set("location".to_owned(), location);
    proxy.set_rules(vec![Rule::at(Step::UploadPost, rewrite(set))]);
    let ca = format!("--ca-file={}", authority.ca_file().display());
    Pushimg::new()
        .run([image.display().to_string(), format!("{}/app:v1", proxy.host()), ca])
        .exits(5)
        .says("leads from HTTPS to plain HTTP");
}

// Authorization

#[test]
fn a_token_that_ends_in_the_middle_of_a_push_is_replaced_once() {
    for step in [Step::UploadPost, Step::UploadPut, Step::UploadPatch, Step::ManifestPut] {
        let bench = Bench::with(registry::Options {
            auth: registry::bearer("user", "hunter2", Duration::from_secs(300)),
            ..Default::default()
        });
        let machine = Pushimg::new().login(&bench.proxy.host(), "user", "hunter2");
        let image = bench.image(8 * MIB);
        bench.proxy.set_rules(vec![Rule::at(step, Fault::ExpiredToken).first(1)]);
        if step == Step::UploadPatch {
            bench.proxy.add_rule(Rule::at(Step::UploadPut, Fault::refused_method()).first(1));
        }
        machine.run([image.display().to_string(), bench.name(), "-j1".to_owned()]).success();
        let direct = Remote::new(bench.registry.addr()).login("user", "hunter2");
        pull::assert_same_image(&image, direct, "app", "v1");
        assert!(bench.proxy.count_step(Step::TokenGet) >= 2, "{step:?}");
        bench.sent_at_most(2.1, 8 * MIB);
    }
}

#[test]
fn tokens_in_all_dialects_are_taken() {
    let dir = TempDir::new().expect("a folder");
    let image = ImageBuilder::new(vec![Layer::random("a", 1, MIB)]).write(dir.path(), "image.tar");
    let dialects = [
        (TokenForm::Token, ExpiresIn::True, false),
        (TokenForm::AccessToken, ExpiresIn::Missing, false),
        (TokenForm::Both, ExpiresIn::Claimed(1), false),
        (TokenForm::AccessToken, ExpiresIn::True, true),
    ];
    for (form, expires_in, refresh) in dialects {
        let tokens = TokenServer::start(TokenOptions { form, expires_in, ..Default::default() });
        let registry = DockerRegistry::token(&tokens);
        let options = TokenOptions::default();
        let machine = if refresh {
            Pushimg::new().docker_config(&serde_json::json!({
                "auths": { registry.host(): { "identitytoken": options.refresh_token } }
            }))
        } else {
            Pushimg::new().login(&registry.host(), &options.user, &options.password)
        };
        machine
            .run([image.display().to_string(), format!("{}/app:v1", registry.host()), "-vv".into()])
            .success()
            .never_says(&options.refresh_token)
            .never_says(&options.password);
        assert!(registry.tag("app", "v1").is_some());
        let method = if refresh { "POST" } else { "GET" };
        assert!(tokens.requests().iter().all(|request| request.method == method));
    }
}

#[test]
fn a_scope_that_was_too_narrow_is_widened_once_and_not_again() {
    for times in [Times::First(1), Times::Every] {
        let bench = Bench::with(registry::Options {
            auth: registry::bearer("user", "hunter2", Duration::from_secs(300)),
            ..Default::default()
        });
        let machine = Pushimg::new().login(&bench.proxy.host(), "user", "hunter2");
        let realm = format!("http://{}/token", bench.proxy.addr_of(Origin::Token));
        let challenge = format!(
            "Bearer realm=\"{realm}\",service=\"s\",scope=\"repository:app:pull,push,delete\",\
             error=\"insufficient_scope\""
        );
        let denied = Answer::status(403)
            .header("www-authenticate", &challenge)
            .error("DENIED", "insufficient scope");
        bench
            .proxy
            .set_rules(vec![Rule { times, ..Rule::at(Step::ManifestPut, Fault::Answer(denied)) }]);
        let image = bench.image(1000);
        let output = machine.run([image.display().to_string(), bench.name()]);
        match times {
            Times::Every => {
                output.exits(4).says("insufficient scope");
                assert_eq!(bench.proxy.count_step(Step::ManifestPut), 2);
                assert_eq!(bench.registry.tag("app", "v1"), None);
            }
            _ => drop(output.success()),
        }
        let wide = |r: &Record| r.step == Step::TokenGet && r.target.contains("delete");
        assert_eq!(bench.proxy.count(wide), 1, "{}", bench.proxy.transcript());
    }
}

#[test]
fn a_token_server_that_fails_for_a_while_is_asked_again() {
    let bench = Bench::with(registry::Options {
        auth: registry::bearer("user", "hunter2", Duration::from_secs(300)),
        ..Default::default()
    });
    let machine = Pushimg::new().login(&bench.proxy.host(), "user", "hunter2");
    let image = bench.image(1000);
    bench.proxy.set_rules(vec![Rule::at(Step::TokenGet, answer(503)).first(3)]);
    machine.run([image.display().to_string(), bench.name()]).success().says("retry: ");

    bench.proxy.set_rules(vec![Rule::at(Step::TokenGet, answer(503))]);
    machine
        .run([image.display().to_string(), bench.name(), "--retry-for=2s".into()])
        .exits(5)
        .says("token server")
        .never_says("hunter2");
}

#[test]
fn a_password_that_is_refused_is_not_sent_again_and_again() {
    let bench = Bench::with(registry::Options {
        auth: registry::basic("user", "hunter2"),
        ..Default::default()
    });
    let machine = Pushimg::new().login(&bench.proxy.host(), "user", "wrong");
    let image = bench.image(1000);
    machine
        .run([image.display().to_string(), bench.name()])
        .exits(4)
        .says("user user")
        .never_says("wrong");
    let tried = bench.proxy.count(|r| r.header("authorization").is_some());
    assert!(tried <= 4, "{}", bench.proxy.transcript());
}

// Mounts

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
    assert_eq!(bench.proxy.count_step(Step::MountPost), 3);
    // The config has no sibling to be mounted from.
    assert_eq!(bench.proxy.count_step(Step::UploadPost), 1, "{}", bench.proxy.transcript());
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
    // A token server that gives nothing for the other repository.
    let tokens = TokenServer::start(TokenOptions::default());
    let registry = DockerRegistry::token(&tokens);
    let options = TokenOptions::default();
    let machine = Pushimg::new().login(&registry.host(), &options.user, &options.password);
    let dir = TempDir::new().expect("a folder");
    let image = ImageBuilder::new(vec![Layer::random("a", 1, MIB)]).write(dir.path(), "image.tar");
    let image = image.display().to_string();
    machine.run([image.clone(), format!("{}/team/base:v1", registry.host())]).success();
    tokens.configure(|options| options.denied = vec!["team/base".to_owned()]);
    // What the cache knows makes it try the mount.
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

// Waiting

#[test]
fn a_pause_that_the_registry_asks_for_holds_all_requests_back() {
    for by_date in [false, true] {
        let bench = Bench::new();
        let image = bench.image(1000);
        let pause = match by_date {
            false => Answer::status(503).retry_after(2),
            true => Answer::status(429).retry_after_date(Duration::from_secs(3)),
        };
        bench.proxy.set_rules(vec![Rule::at(Step::UploadPost, Fault::Answer(pause)).first(1)]);
        let output = bench.pushed(&image, &[]);
        assert_eq!(output.stderr.matches("retry: ").count(), 1, "{output}");
        let records = bench.proxy.records();
        let struck = records.iter().find(|r| r.fault.is_some()).expect("a fault");
        let told = struck.answered.expect("an answer");
        // What was under way when the answer came may still arrive.
        let (from, to) = (told + Duration::from_millis(100), told + Duration::from_millis(1900));
        let early = records.iter().filter(|r| from < r.arrived && r.arrived < to).count();
        assert_eq!(early, 0, "{}", bench.proxy.transcript());
    }
}

#[test]
fn a_pause_longer_than_the_users_patience_fails_at_once_and_says_so() {
    let bench = Bench::new();
    let image = bench.image(1000);
    let pause = Answer::status(429).retry_after(3600).error("TOOMANYREQUESTS", "slow down");
    bench.proxy.set_rules(vec![Rule::at(Step::UploadPost, Fault::Answer(pause))]);
    let output = bench.push(&image, &[]).exits(5);
    assert!(output.took < Duration::from_secs(5), "{output}");
    output.says("pause of 1h").says("--retry-for 2m").says("slow down");
    assert_eq!(bench.registry.tag("app", "v1"), None);
}

#[test]
fn what_may_pass_is_tried_again_within_the_limit_and_no_longer() {
    for status in [408, 425, 429, 500, 502, 503, 504] {
        let bench = Bench::new();
        let image = bench.image(1000);
        bench.proxy.set_rules(vec![Rule::at(Step::ManifestPut, answer(status)).first(2)]);
        let output = bench.pushed(&image, &[]);
        assert_eq!(output.stderr.matches("retry: ").count(), 2, "{output}");
    }
    let bench = Bench::new();
    let image = bench.image(1000);
    bench.proxy.set_rules(vec![Rule::at(Step::ManifestPut, answer(503))]);
    let output = bench.push(&image, &["--retry-for=3s"]).exits(5).says("--retry-for DURATION");
    assert!(output.took < Duration::from_secs(6), "{output}");
    let tries = bench.proxy.count_step(Step::ManifestPut);
    assert!((3..=6).contains(&tries), "{tries} tries\n{output}");
    assert_eq!(output.stderr.matches("retry: ").count(), tries - 1, "{output}");

    bench.proxy.clear();
    bench.push(&image, &["--retry-for=0"]).exits(5);
    assert_eq!(bench.proxy.count_step(Step::ManifestPut), 1);
}

#[test]
fn what_cannot_succeed_is_not_tried_again() {
    for status in [400, 403, 404, 405] {
        for step in [Step::UploadPost, Step::ManifestPut] {
            let bench = Bench::new();
            let image = bench.image(1000);
            let refusal = Answer::status(status).error("DENIED", "not for you");
            bench.proxy.set_rules(vec![Rule::at(step, Fault::Answer(refusal))]);
            let output = bench.push(&image, &["-j1"]).exits(4).says("not for you");
            assert!(!output.stderr.contains("retry: "), "{output}");
            let puts = bench.proxy.count_step(Step::ManifestPut);
            assert!(puts <= 1, "{}", bench.proxy.transcript());
            assert_eq!(bench.registry.tag("app", "v1"), None);
            assert_eq!(bench.registry.open_uploads(), 0, "{}", bench.proxy.transcript());
        }
    }
}

#[test]
fn a_host_that_nobody_ever_heard_of_is_given_up_soon() {
    let dir = TempDir::new().expect("a folder");
    let image = ImageBuilder::new(vec![Layer::file("a", b"a")]);
    // Nobody listens at a port that was just given back.
    let (_, addr) = crate::support::served::bind(0);
    for archive in [image.write(dir.path(), "a.tar"), image.write_gz(dir.path(), "a.tar.gz")] {
        let output =
            Pushimg::new().run([archive.display().to_string(), format!("{addr}/app:v1")]).exits(5);
        assert!(output.took < Duration::from_secs(14), "{output}");
        output.says(&addr.to_string()).says("is a registry running there?");
    }
}

#[test]
fn a_connection_that_stands_still_is_given_up_in_both_directions() {
    let stalls = [
        (Step::UploadPut, Fault::stall(Place::RequestBody(At::Percent(50)))),
        (Step::ManifestPut, Fault::stall(Place::BeforeResponse)),
        (Step::BlobHead, Fault::stall(Place::BeforeResponse)),
        (Step::UploadPost, Fault::stall(Place::BeforeResponse)),
    ];
    for (step, fault) in stalls {
        let bench = Bench::new();
        let image = bench.image(16 * MIB);
        bench.proxy.set_rules(vec![Rule::at(step, fault).nth(1)]);
        let output = bench.push(&image, &["--idle-timeout=1s"]).success();
        output.says("nothing moved on the connection");
        pull::assert_same_image(&image, bench.registry.addr(), "app", "v1");
    }
}

#[test]
fn a_registry_may_take_its_time_to_store_a_blob() {
    let bench = Bench::new();
    let image = bench.image(1000);
    let slow =
        Fault::Stall { place: Place::BeforeResponse, hold: Hold::For(Duration::from_millis(2500)) };
    bench.proxy.set_rules(vec![Rule::at(Step::UploadPut, slow).first(1)]);
    let output = bench.pushed(&image, &["--idle-timeout=1s"]);
    assert!(!output.stderr.contains("retry: "), "{output}");
}

// Uploads that break

#[test]
fn an_upload_that_breaks_goes_on_where_the_registry_stands() {
    for fault in [cut(50), cut(90)] {
        let bench = Bench::new();
        let image = bench.image(8 * MIB);
        // The config and two small layers come before the big one.
        bench.proxy.set_rules(vec![Rule::at(Step::UploadPut, fault).nth(4)]);
        bench.pushed(&image, &["-j1"]).says("retry: ");
        assert_eq!(bench.proxy.count_step(Step::UploadStatus), 1, "{}", bench.proxy.transcript());
        bench.sent_at_most(1.02, 8 * MIB);
    }
}

/// A layer so big that it is sent while it is being made, over a line that breaks again and again.
#[test]
fn a_big_layer_arrives_over_a_line_that_breaks_every_few_megabytes() {
    let full = std::env::var_os("PUSHIMG_TEST_FULL").is_some();
    let (size, stretch) = if full { (1024 * MIB, 20 * MIB) } else { (128 * MIB, 6 * MIB) };
    let bench = Bench::new();
    let image = ImageBuilder::new(vec![Layer::random("model-1.0", 7, size)])
        .write(bench.dir.path(), "image.tar");
    let breaks = Fault::CutRequest { at: At::Bytes(stretch as u64), delivered: true };
    bench.proxy.set_rules(vec![
        Rule::at(Step::UploadPatch, breaks.clone()),
        Rule::at(Step::UploadPut, breaks),
    ]);
    let machine = Pushimg::new().limit(Duration::from_secs(600));
    let output = machine
        .run([
            image.display().to_string(),
            bench.name(),
            "--compression=none".to_owned(),
            "--retry-for=10s".to_owned(),
        ])
        .success();
    pull::assert_same_image(&image, bench.registry.addr(), "app", "v1");
    let broken = bench.proxy.count(|r| r.fault.is_some());
    assert!(broken >= size / stretch, "{broken} breaks\n{output}");
    bench.sent_at_most(1.05, size);
    let sent = bench.blob_bytes();
    println!("{size} bytes over {broken} breaks: {sent} sent, {:?}", output.took);
}

#[test]
fn a_registry_that_cannot_resume_gets_the_blob_anew() {
    let registry = DockerRegistry::plain();
    let proxy = FaultProxy::before(registry.addr());
    let dir = TempDir::new().expect("a folder");
    let image =
        ImageBuilder::new(vec![Layer::random("a", 1, 4 * MIB)]).write(dir.path(), "image.tar");
    for step in [Step::UploadPut, Step::UploadPatch] {
        proxy.set_rules(vec![Rule::at(step, cut(50)).first(2)]);
        if step == Step::UploadPatch {
            proxy.add_rule(Rule::at(Step::UploadPut, Fault::refused_method()).first(2));
        }
        let name = format!("{}/{step:?}:v1", proxy.host()).to_lowercase();
        let repository = format!("{step:?}").to_lowercase();
        Pushimg::new().run([image.display().to_string(), name]).success();
        pull::assert_same_image(&image, registry.addr(), &repository, "v1");
    }
}

#[test]
fn a_session_that_the_registry_forgot_is_opened_anew() {
    for (code, status) in [
        ("BLOB_UPLOAD_UNKNOWN", 404),
        ("BLOB_UPLOAD_INVALID", 404),
        ("BLOB_UPLOAD_INVALID", 400),
        ("UNKNOWN", 404),
    ] {
        let bench = Bench::new();
        let image = bench.image(2 * MIB);
        let gone = Fault::Answer(Answer::status(status).error(code, "no such upload"));
        bench.proxy.set_rules(vec![Rule::at(Step::UploadPut, gone).first(1)]);
        bench.push(&image, &["-j1"]).success();
        pull::assert_same_image(&image, bench.registry.addr(), "app", "v1");
    }
    let bench = Bench::new();
    let image = bench.image(2 * MIB);
    bench.proxy.set_rules(vec![Rule::at(Step::UploadPut, Fault::LostSession).first(1)]);
    bench.pushed(&image, &[]);
    // Always, it is no reason to go on for ever.
    let bench = Bench::new();
    bench.proxy.set_rules(vec![Rule::at(Step::UploadPut, Fault::LostSession)]);
    bench.push(&image, &["-j1"]).exits(4).says("BLOB_UPLOAD_UNKNOWN");
    let opened = bench.proxy.count_step(Step::UploadPost);
    assert!(opened <= 20, "{opened} sessions");
}

#[test]
fn a_range_that_says_nothing_or_lies_is_not_relied_on() {
    let ranges = [
        rewrite(Change::Range(RangeLie::Last(0))),
        rewrite(Change::Range(RangeLie::Fewer(100_000))),
        rewrite(Change::Range(RangeLie::More(100_000_000))),
        rewrite(Change::Remove("range".to_owned())),
        answer(405),
        answer(400),
    ];
    for fault in ranges {
        let bench = Bench::new();
        let image = bench.image(4 * MIB);
        bench.proxy.set_rules(vec![
            Rule::at(Step::UploadStatus, fault.clone()),
            Rule::at(Step::UploadPut, cut(50)).nth(4),
        ]);
        bench.pushed(&image, &["-j1"]);
        bench.sent_at_most(2.6, 4 * MIB);
        let asked = bench.proxy.count_step(Step::UploadStatus);
        assert!((1..=2).contains(&asked), "{fault:?}\n{}", bench.proxy.transcript());
    }
}

#[test]
fn a_wrong_digest_after_a_resume_means_from_zero_once_and_no_more_resumes() {
    let bench = Bench::new();
    let image =
        ImageBuilder::new(vec![Layer::random("a", 1, 4 * MIB), Layer::random("b", 2, 4 * MIB)])
            .write(bench.dir.path(), "image.tar");
    let wrong =
        Fault::Answer(Answer::status(400).error("DIGEST_INVALID", "not what you said it is"));
    // The config's PUT may come first, and is too short to be resumed.
    let big = |fault: Fault, nth| Rule { path: None, ..Rule::at(Step::UploadPut, fault).nth(nth) };
    bench.proxy.set_rules(vec![
        Rule::at(Step::UploadPatch, Fault::LostResponse(None)).nth(99),
        big(cut(50), 2),
        big(wrong, 2),
        big(cut(50), 2),
    ]);
    bench.pushed(&image, &["-j1"]);
    assert_eq!(bench.proxy.count_step(Step::UploadStatus), 1, "{}", bench.proxy.transcript());
}

#[test]
fn a_digest_that_is_wrong_twice_is_the_registrys_last_word() {
    let bench = Bench::new();
    let image = bench.image(1000);
    let wrong = Answer::status(400).error("DIGEST_INVALID", "not what you said it is");
    bench.proxy.set_rules(vec![Rule::at(Step::UploadPut, Fault::Answer(wrong))]);
    bench.push(&image, &["-j1"]).exits(4).says("DIGEST_INVALID");
    assert!(bench.proxy.count_step(Step::UploadPut) <= 8, "{}", bench.proxy.transcript());
}

#[test]
fn an_answer_that_was_lost_costs_a_question_and_no_second_upload() {
    let lost = [Fault::LostResponse(None), Fault::LostResponse(Some(Answer::status(502).html()))];
    for fault in lost {
        let bench = Bench::new();
        let image = bench.image(4 * MIB);
        bench.proxy.set_rules(vec![Rule::at(Step::UploadPut, fault.clone())]);
        bench.pushed(&image, &[]);
        bench.sent_at_most(1.0, 4 * MIB);

        // The manifest's, always: the tag is looked at.
        bench.proxy.set_rules(vec![Rule::at(Step::ManifestPut, fault)]);
        let next = ImageBuilder::new(vec![Layer::file("next", b"two")])
            .write(bench.dir.path(), "next.tar");
        bench.pushed(&next, &["--retry-for=1s"]);
    }
}

#[test]
fn a_page_of_something_in_between_is_not_taken_for_success() {
    let bench = Bench::new();
    let image = bench.image(1000);
    let portal = Fault::Answer(Answer::status(200).html());
    bench.proxy.set_rules(vec![Rule::at(Step::ManifestPut, portal.clone())]);
    bench.push(&image, &[]).exits(5).says("does not have the manifest");
    assert_eq!(bench.registry.tag("app", "v1"), None);
    bench.proxy.set_rules(vec![Rule::at(Step::UploadPut, portal.clone()).first(2)]);
    let other =
        ImageBuilder::new(vec![Layer::random("b", 5, MIB)]).write(bench.dir.path(), "other.tar");
    bench.pushed(&other, &[]).says("does not have the blob");
}

// The ladder

#[test]
fn where_a_put_with_a_body_is_refused_the_bytes_go_by_patch_and_the_host_is_remembered() {
    for status in [400, 405, 411, 415, 501] {
        let bench = Bench::new();
        let image = bench.image(2 * MIB);
        bench.proxy.set_rules(vec![Rule::at(Step::UploadPut, answer(status)).first(1)]);
        bench.pushed(&image, &["-j1"]);
        let full_puts = bench
            .proxy
            .count(|r| r.step == Step::UploadPut && r.header("content-length") != Some("0"));
        // Config and first layer may begin together.
        assert!(full_puts <= 3, "{status}\n{}", bench.proxy.transcript());
        assert!(bench.proxy.count_step(Step::UploadPatch) >= 2, "{}", bench.proxy.transcript());
    }
}

#[test]
fn where_a_streamed_patch_is_refused_too_there_are_chunks() {
    let bench = Bench::new();
    let image = bench.image(2 * MIB);
    bench.proxy.set_rules(vec![
        Rule::at(Step::UploadPut, Fault::refused_method()).first(1),
        Rule::at(Step::UploadPatch, answer(411)).first(1),
    ]);
    bench.pushed(&image, &["-j1"]);
    let ranged = |r: &Record| r.step == Step::UploadPatch && r.header("content-range").is_some();
    assert!(bench.proxy.count(ranged) >= 1, "{}", bench.proxy.transcript());
}

#[test]
fn bodies_are_cut_to_the_length_that_a_gateway_lets_through() {
    for unread in [Unread::KeepReading, Unread::ReadFirst] {
        let bench = Bench::new();
        let image =
            ImageBuilder::new(vec![Layer::random("a", 1, 5 * MIB), Layer::random("b", 2, 5 * MIB)])
                .write(bench.dir.path(), "image.tar");
        let cap = Fault::BodyCap { bytes: 2 * MIB as u64, unread };
        bench.proxy.set_rules(vec![
            Rule::at(Step::UploadPut, cap.clone()),
            Rule::at(Step::UploadPatch, cap),
        ]);
        bench.pushed(&image, &["-j1"]);
        let too_long = bench.proxy.count(|r| r.status == Some(413));
        // Halved to 2.5 and 1.25 MiB once; the second layer knows.
        assert!(too_long <= 3, "{}", bench.proxy.transcript());
    }
    // A cap below which nothing useful is left.
    let bench = Bench::new();
    let image = bench.image(2 * MIB);
    let cap = Fault::BodyCap { bytes: 1000, unread: Unread::KeepReading };
    bench.proxy.set_rules(vec![Rule::any(cap)]);
    bench.push(&image, &["-j1"]).exits(4).says("limits the size of a request");
}

#[test]
fn chunks_have_the_least_length_that_the_registry_wants() {
    let bench = Bench::new();
    let image = bench.image(9 * MIB);
    let least = 2 * MIB;
    let cap = Fault::BodyCap { bytes: 5 * MIB as u64, unread: Unread::KeepReading };
    let set = Change::Set("oci-chunk-min-length".to_owned(), least.to_string());
    bench.proxy.set_rules(vec![
        Rule::at(Step::UploadPost, rewrite(set)),
        Rule::at(Step::UploadPut, cap.clone()),
        Rule::at(Step::UploadPatch, cap),
    ]);
    bench.pushed(&image, &["-j1"]);
    let records = bench.proxy.records();
    let chunks: Vec<_> = records
        .iter()
        .filter(|r| r.step == Step::UploadPatch && r.status == Some(202))
        .map(|r| r.request_body as usize)
        .collect();
    let (_, all_but_last) = chunks.split_last().expect("chunks");
    assert!(!all_but_last.is_empty() && all_but_last.iter().all(|len| *len >= least), "{chunks:?}");
}

#[test]
fn a_chunk_that_does_not_fit_is_asked_after() {
    let bench = Bench::new();
    let image = bench.image(2 * MIB);
    bench.proxy.set_rules(vec![
        Rule::at(Step::UploadPut, Fault::refused_method()).first(1),
        Rule::at(Step::UploadPatch, answer(416)).first(1),
    ]);
    bench.pushed(&image, &["-j1"]);
}

#[test]
fn unusual_answers_to_an_upload_are_answers() {
    let changes = [
        vec![Change::Status(204)],
        vec![Change::Status(201)],
        vec![Change::Status(204), Change::Remove("location".to_owned())],
        vec![Change::Remove("docker-content-digest".to_owned())],
        vec![Change::Remove("content-type".to_owned())],
    ];
    for changes in changes {
        let bench = Bench::new();
        let image = bench.image(2 * MIB);
        let fault = Fault::Rewrite(changes);
        bench.proxy.set_rules(vec![
            Rule::at(Step::UploadPut, Fault::refused_method()).first(1),
            Rule::at(Step::UploadPut, fault.clone()),
            Rule::at(Step::UploadPatch, fault.clone()),
            Rule::at(Step::ManifestPut, fault),
        ]);
        bench.pushed(&image, &[]);
    }
}

#[test]
fn a_hasty_answer_ends_the_sending_and_is_heard() {
    // A refusal while the body is still under way.
    let bench = Bench::new();
    let image = bench.image(48 * MIB);
    let refusal = Answer::status(403).error("DENIED", "quota exceeded");
    bench.proxy.set_rules(vec![Rule::at(Step::UploadPut, Fault::Answer(refusal))]);
    bench.push(&image, &["-j1"]).exits(4).says("quota exceeded");
    // What the kernel holds already cannot be called back.
    bench.sent_at_most(0.7, 48 * MIB);

    // The same with the connection closed behind it: heard, or a broken connection.
    for status in [401, 413, 503] {
        let bench = Bench::new();
        let image = bench.image(6 * MIB);
        let answer = Answer::status(status)
            .header("www-authenticate", "Bearer realm=\"http://127.0.0.1:1/token\"")
            .unread(Unread::Close);
        let fault = Fault::Answer(answer);
        bench.proxy.set_rules(vec![Rule::at(Step::UploadPut, fault).nth(4)]);
        let output = bench.push(&image, &["-j1", "--retry-for=3s"]);
        match output.code() {
            Some(0) => drop(pull::assert_same_image(&image, bench.registry.addr(), "app", "v1")),
            Some(4 | 5) => assert_eq!(bench.registry.tag("app", "v1"), None, "{output}"),
            _ => panic!("{output}"),
        }
        assert_ne!((status, output.code()), (503, Some(5)), "{output}");
    }
}

#[test]
fn a_registry_without_head_is_asked_otherwise() {
    let (dir, registry) = (TempDir::new().expect("a folder"), DockerRegistry::plain());
    let proxy = FaultProxy::before(registry.addr());
    proxy.set_rules(vec![Rule::any(Fault::refused_method()).method("HEAD")]);
    let image = ImageBuilder::new(vec![Layer::random("a", 1, MIB), Layer::file("b", b"b")])
        .write(dir.path(), "image.tar");
    let push = || {
        let name = format!("{}/app:v1", proxy.host());
        Pushimg::new().run([image.display().to_string(), name]).success();
    };
    push();
    proxy.clear();
    push();
    let sent = proxy.body_bytes(|r| matches!(r.step, Step::UploadPatch | Step::UploadPut));
    assert_eq!(sent, 0, "{}", proxy.transcript());
    let asked = |r: &Record| r.step == Step::ConfigGet && r.header("range").is_some();
    let records = proxy.records();
    let read: u64 = records.iter().filter(|r| asked(r)).map(|r| r.response_body).sum();
    assert!(records.iter().any(asked), "{}", proxy.transcript());
    assert!(read < 100, "a question is no download: {read}");
    pull::assert_same_image(&image, registry.addr(), "app", "v1");
}

// Names, tags, manifests

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
    bench.pushed(&image, &["--no-cache"]).says("MANIFEST_BLOB_UNKNOWN").says("is read again");
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

// What stays behind

#[test]
fn a_push_that_fails_leaves_no_upload_session_open() {
    for (step, fault) in [
        (Step::UploadPut, answer(403)),
        (Step::UploadPut, answer(503)),
        (Step::UploadPut, Fault::Reset),
        (Step::ManifestPut, answer(403)),
    ] {
        let bench = Bench::new();
        let image = bench.image(2 * MIB);
        bench.proxy.set_rules(vec![Rule::at(step, fault)]);
        let output = bench.push(&image, &["--retry-for=1s"]);
        assert!(matches!(output.code(), Some(4 | 5)), "{output}");
        assert_eq!(bench.registry.open_uploads(), 0, "{}", bench.proxy.transcript());
    }
}

#[test]
fn a_push_that_is_interrupted_leaves_no_upload_session_open() {
    let bench = Bench::new();
    let image = bench.image(8 * MIB);
    bench.proxy.set_rules(vec![Rule::at(
        Step::UploadPut,
        Fault::stall(Place::RequestBody(At::Percent(50))),
    )]);
    let child = bench.machine.spawn([image.display().to_string(), bench.name()]);
    let began = std::time::Instant::now();
    while bench.proxy.count_step(Step::UploadPut) == 0 {
        assert!(began.elapsed() < Duration::from_secs(30), "no upload began");
        std::thread::sleep(Duration::from_millis(20));
    }
    let killed = std::process::Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status()
        .expect("the program kill");
    assert!(killed.success());
    let output = child.wait_with_output().expect("its end");
    assert_eq!(output.status.code(), Some(130));
    assert_eq!(bench.registry.open_uploads(), 0, "{}", bench.proxy.transcript());
    assert_eq!(bench.registry.tag("app", "v1"), None);
}

// Secrets

#[test]
fn nothing_secret_is_ever_shown() {
    let dir = TempDir::new().expect("a folder");
    let image =
        ImageBuilder::new(vec![Layer::random("a", 1, 2 * MIB)]).write(dir.path(), "image.tar");
    let basic = "cHVzaGltZzpjb3JyZWN0IGhvcnNl";
    // Registries and what is before them like to repeat what they were sent.
    let echo = |status, secret: &str| {
        let message =
            format!("refused {secret} at http://h/b?X-Amz-Signature=51gn4tur3&_state=51gn4tur3");
        Fault::Answer(Answer::status(status).error("DENIED", &message))
    };
    let tokens = TokenServer::start(TokenOptions::default());
    let (with_tokens, with_basic) = (DockerRegistry::token(&tokens), DockerRegistry::basic());
    let foreign = {
        let set = "http://127.0.0.1:1/up?_state=51gn4tur3&X-Amz-Signature=51gn4tur3".to_owned();
        rewrite(Change::Set("location".to_owned(), set))
    };
    for (registry, token) in [(&with_tokens, Some(tokens.addr())), (&with_basic, None)] {
        let proxy = FaultProxy::start(
            registry.addr(),
            &ProxyOptions { token_upstream: token, ..Default::default() },
        );
        let machine = Pushimg::new().login(&proxy.host(), BASIC_USER, BASIC_PASSWORD);
        // To the registry itself the password is a secret of its own only with Basic.
        let ours = if token.is_some() { "it" } else { basic };
        let faults = [
            vec![],
            vec![Rule::at(Step::UploadPut, echo(403, ours))],
            vec![Rule::at(Step::ManifestPut, echo(500, ours))],
            vec![Rule::at(Step::UploadPut, Fault::Reset)],
            vec![Rule::at(Step::UploadPut, Fault::ExpiredToken)],
            vec![Rule::at(Step::UploadPost, foreign.clone())],
            vec![Rule::at(Step::TokenGet, echo(403, basic))],
            vec![Rule::at(Step::TokenGet, echo(500, basic))],
        ];
        for (number, rules) in faults.iter().enumerate() {
            proxy.clear();
            proxy.set_rules(rules.clone());
            let output = machine.run([
                image.display().to_string(),
                format!("{}/app{number}:v1", proxy.host()),
                "-vvv".to_owned(),
                "--json".to_owned(),
                "--retry-for=1s".to_owned(),
            ]);
            assert!(output.stderr.contains("> "), "headers are shown\n{output}");
            let records = proxy.records();
            let sent = records.iter().filter_map(|r| r.header("authorization"));
            let mut secrets: Vec<String> =
                sent.filter_map(|v| Some(v.split_once(' ')?.1.to_owned())).collect();
            secrets.extend(records.iter().filter_map(|r| {
                let (_, state) = r.target.split_once("_state=")?;
                Some(state.split('&').next()?.to_owned())
            }));
            assert!(!secrets.is_empty());
            secrets.extend([BASIC_PASSWORD, basic, "51gn4tur3"].map(str::to_owned));
            let mut output = output;
            for secret in &secrets {
                output = output.never_says(secret);
            }
        }
    }
}
