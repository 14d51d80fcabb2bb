//! Credentials are found where people keep them, asked for once, sent only to the host that they
//! are for, and never printed.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;

use crate::support::archive::{ImageBuilder, Layer, testdata};
use crate::support::docker_registry::{BASIC_PASSWORD, BASIC_USER};
use crate::support::proxy::{LocationForm, Origin, ProxyOptions, Step};
use crate::support::pull::{self, Remote};
use crate::support::registry::{self, DevRegistry, Options};
use crate::support::run::Pushimg;
use crate::support::token_server::{ExpiresIn, TokenForm, TokenOptions};
use crate::support::{DockerRegistry, FaultProxy, TokenServer};
use base64::Engine as _;
use serde_json::{Value, json};
use tempfile::TempDir;

fn archive() -> String {
    testdata("layered-v1.tar.gz").to_str().expect("UTF-8").to_owned()
}

fn auth_entry(host: &str, user: &str, password: &str) -> Value {
    let auth = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
    json!({ "auths": { host: { "auth": auth } } })
}

/// Writes a credential program that answers for this registry, and logs what it was asked.
fn helper(machine: &Pushimg, name: &str, server: &str, user: &str, secret: &str) -> String {
    let folder = machine.home().join("bin");
    std::fs::create_dir_all(&folder).expect("bin");
    let file = folder.join(format!("docker-credential-{name}"));
    let script = format!(
        "#!/bin/sh\nread -r asked\necho \"$1 $asked\" >> {log}\n\
         case \"$1 $asked\" in\n  'get {server}')\n    \
         echo '{{\"ServerURL\":\"{server}\",\"Username\":\"{user}\",\"Secret\":\"{secret}\"}}' ;;\n  \
         *) echo 'credentials not found in native keychain'; exit 1 ;;\nesac\n",
        log = machine.home().join("asked").display(),
    );
    std::fs::write(&file, script).expect("a program");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).expect("chmod");
    format!("{}:{}", folder.display(), std::env::var("PATH").expect("a PATH"))
}

#[test]
fn credentials_are_found_wherever_they_are_kept() {
    let registry = DockerRegistry::basic();
    let host = registry.host();
    let destination = |tag: &str| format!("{host}/team/app:{tag}");
    let archive = archive();
    let good = auth_entry(&host, BASIC_USER, BASIC_PASSWORD);
    let bad = auth_entry(&host, BASIC_USER, "wrong");
    let write = |machine: &Pushimg, name: &str, content: &Value| {
        let path = machine.home().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).expect("a folder");
        std::fs::write(&path, content.to_string()).expect("write");
        path.to_str().expect("UTF-8").to_owned()
    };

    let machine = Pushimg::new().stdin(format!("{BASIC_PASSWORD}\n")).docker_config(&bad);
    let to = destination("flags");
    machine.run([&archive, &to, "--username", BASIC_USER, "--password-stdin"]).success();

    let machine = Pushimg::new().docker_config(&bad);
    let file = write(&machine, "auth.json", &good);
    machine.run([&archive, &destination("auth-file"), "--auth-file", &file]).success();

    let machine = Pushimg::new().docker_config(&bad);
    let file = write(&machine, "auth.json", &good);
    machine.env("REGISTRY_AUTH_FILE", file).run([&archive, &destination("variable")]).success();

    let machine = Pushimg::new().docker_config(&good);
    write(&machine, "run/containers/auth.json", &bad);
    machine.run([&archive, &destination("docker-config")]).success();

    let machine = Pushimg::new();
    write(&machine, "run/containers/auth.json", &good);
    write(&machine, ".docker/config.json", &bad);
    machine.run([&archive, &destination("containers")]).success();

    let machine = Pushimg::new();
    write(&machine, ".docker/config.json", &good);
    machine.run([&archive, &destination("home")]).success();

    for tag in ["flags", "auth-file", "variable", "docker-config", "containers", "home"] {
        assert!(registry.tag("team/app", tag).is_some(), "{tag}");
    }
    let remote = Remote::new(&host).login(BASIC_USER, BASIC_PASSWORD);
    pull::assert_same_image(&testdata("layered-v1.tar.gz"), remote, "team/app", "home");

    // The longest path that fits wins.
    let machine = Pushimg::new();
    let mut paths = auth_entry(&format!("{host}/team"), BASIC_USER, BASIC_PASSWORD);
    paths["auths"][&host] = bad["auths"][&host].clone();
    let elsewhere = format!("{host}/other");
    paths["auths"][&elsewhere] = bad["auths"][&host].clone();
    write(&machine, "run/containers/auth.json", &paths);
    machine.run([&archive, &destination("path")]).success();
    machine.run([&archive, &format!("{host}/other/app:v1")]).exits(4);
}

#[test]
fn credential_programs_are_asked() {
    let registry = DockerRegistry::basic();
    let host = registry.host();
    let archive = archive();
    for (name, config) in [
        ("credHelpers", json!({ "credHelpers": { &host: "lab" } })),
        ("credsStore", json!({ "credsStore": "lab", "auths": { &host: {} } })),
    ] {
        let machine = Pushimg::new().docker_config(&config);
        let path = helper(&machine, "lab", &host, BASIC_USER, BASIC_PASSWORD);
        let machine = machine.env("PATH", path);
        let output = machine.run([&archive, &format!("{host}/app:{name}"), "-vv"]).success();
        output.never_says(BASIC_PASSWORD);
        let asked = std::fs::read_to_string(machine.home().join("asked")).expect("a log");
        assert_eq!(asked, format!("get {host}\n"), "asked once");
    }
    // A helper that has no credentials for this registry.
    let machine = Pushimg::new().docker_config(&json!({ "credHelpers": { &host: "lab" } }));
    let path = helper(&machine, "lab", "registry.example", BASIC_USER, BASIC_PASSWORD);
    let machine = machine.env("PATH", path);
    machine.run([&archive, &format!("{host}/app:none")]).exits(4).says(&host);
}

#[test]
fn a_token_is_fetched_once_for_the_whole_push() {
    let tokens = TokenServer::start(TokenOptions::default());
    let registry = DockerRegistry::token(&tokens);
    let proxy = FaultProxy::start(
        registry.addr(),
        &ProxyOptions { token_upstream: Some(tokens.addr()), ..Default::default() },
    );
    let dir = TempDir::new().expect("a folder");
    let layers = (0..30).map(|n| Layer::random(&format!("p-{n}"), n, 2_000)).collect();
    let image = ImageBuilder::new(layers).write(dir.path(), "image.tar");
    let destination = format!("{}/team/app:v1", proxy.host());
    let machine = Pushimg::new().login(&proxy.host(), "pushimg", "correct horse");
    let output = machine.run([image.to_str().unwrap(), &destination, "-v"]).success();
    output.never_says("correct horse").never_says("eyJ");
    let requests = tokens.requests();
    assert_eq!(requests.len(), 1, "{requests:#?}");
    assert_eq!(requests[0].scopes, ["repository:team/app:pull,push"]);
    assert_eq!(requests[0].login, Some(("pushimg".to_owned(), "correct horse".to_owned())));
    // Only requests that pushimg sent before it knew the challenge are refused and sent again.
    let unauthorized = proxy.count(|r| r.status == Some(401));
    assert!(unauthorized <= 2, "{unauthorized} refusals\n{}", proxy.transcript());
    let remote = Remote::new(proxy.addr()).login("pushimg", "correct horse");
    pull::assert_same_image(&image, remote, "team/app", "v1");
}

#[test]
fn every_dialect_of_token_servers_is_understood() {
    let archive = archive();
    let cases = [
        ("access-token", TokenForm::AccessToken, ExpiresIn::True),
        ("both", TokenForm::Both, ExpiresIn::Missing),
        ("for-ever", TokenForm::Token, ExpiresIn::Claimed(u64::MAX)),
        ("at-once", TokenForm::Token, ExpiresIn::Claimed(0)),
    ];
    let tokens = TokenServer::start(TokenOptions::default());
    let registry = DockerRegistry::token(&tokens);
    for (name, form, expires_in) in cases {
        tokens.configure(|options| {
            options.form = form;
            options.expires_in = expires_in;
        });
        let machine = Pushimg::new().login(&registry.host(), "pushimg", "correct horse");
        let destination = format!("{}/{name}/app:v1", registry.host());
        machine.run([&archive, &destination]).success();
        assert!(registry.tag(&format!("{name}/app"), "v1").is_some());
    }
}

#[test]
fn an_identity_token_is_traded_for_tokens() {
    let tokens = TokenServer::start(TokenOptions::default());
    let registry = DockerRegistry::token(&tokens);
    let host = registry.host();
    let archive = archive();
    let machine = Pushimg::new()
        .docker_config(&json!({ "auths": { &host: { "identitytoken": "battery-staple" } } }));
    let output = machine.run([&archive, &format!("{host}/app:v1"), "-vv"]).success();
    output.never_says("battery-staple");
    let asked = tokens.requests().pop().expect("a request");
    assert_eq!(asked.method, "POST");
    assert_eq!(asked.refresh_token.as_deref(), Some("battery-staple"));
    // A credential helper returns an identity token as the secret of the user `<token>`.
    let machine = Pushimg::new().docker_config(&json!({ "credHelpers": { &host: "lab" } }));
    let path = helper(&machine, "lab", &host, "<token>", "battery-staple");
    machine.env("PATH", path).run([&archive, &format!("{host}/app:v2")]).success();
    assert!(registry.tag("app", "v2").is_some());
}

#[test]
fn without_credentials_an_anonymous_token_is_asked_for() {
    let tokens = TokenServer::start(TokenOptions {
        anonymous: vec!["pull".to_owned(), "push".to_owned()],
        ..Default::default()
    });
    let registry = DockerRegistry::token(&tokens);
    let archive = archive();
    let destination = format!("{}/open/app:v1", registry.host());
    Pushimg::new().run([&archive, &destination]).success();
    assert!(tokens.requests().iter().all(|request| request.login.is_none()));
    // If the anonymous token allows only pulling, the push fails and the error suggests a login.
    tokens.configure(|options| options.anonymous = vec!["pull".to_owned()]);
    let destination = format!("{}/closed/app:v1", registry.host());
    let output = Pushimg::new().run([&archive, &destination]).exits(4);
    output.says(&registry.host()).says("pushimg login");
    assert_eq!(registry.tag("closed/app", "v1"), None);
}

#[test]
fn a_token_that_ends_in_the_middle_of_a_push_is_renewed() {
    let registry = DevRegistry::start(Options {
        auth: registry::bearer("user", "secret", Duration::from_secs(60)),
        ..Default::default()
    });
    let proxy = FaultProxy::before(registry.addr());
    let machine = Pushimg::new().login(&proxy.host(), "user", "secret");
    let dir = TempDir::new().expect("a folder");
    let layers = (0..8).map(|n| Layer::random(&format!("p-{n}"), n, 20_000)).collect();
    let image = ImageBuilder::new(layers).write(dir.path(), "image.tar");
    proxy.set_rules(
        [Step::UploadPost, Step::UploadPut, Step::ManifestPut, Step::BlobHead]
            .into_iter()
            .map(|step| {
                crate::support::proxy::Rule::at(step, crate::support::proxy::Fault::ExpiredToken)
                    .first(1)
            })
            .collect(),
    );
    let destination = format!("{}/app:v1", proxy.host());
    machine.run([image.to_str().unwrap(), &destination]).success();
    assert_eq!(proxy.struck(), 4, "{}", proxy.transcript());
    let remote = Remote::new(registry.addr()).login("user", "secret");
    pull::assert_same_image(&image, remote, "app", "v1");
    assert_eq!(registry.open_uploads(), 0);
}

#[test]
fn a_mount_asks_for_the_scope_that_it_needs() {
    let tokens = TokenServer::start(TokenOptions::default());
    let registry = DockerRegistry::token(&tokens);
    let proxy = FaultProxy::start(
        registry.addr(),
        &ProxyOptions { token_upstream: Some(tokens.addr()), ..Default::default() },
    );
    let host = proxy.host();
    let archive = archive();
    let machine = || Pushimg::new().login(&host, "pushimg", "correct horse");
    machine().run([&archive, &format!("{host}/base:v1")]).success();
    proxy.clear();
    let from = format!("{host}/base:v1");
    let arguments = [&archive, &format!("{host}/app:v1"), "--reuse-from", &from, "--json"];
    let report = machine().run(arguments).success().json();
    let layers = report["layers"].as_array().expect("layers");
    assert!(layers.iter().all(|layer| layer["action"] == "mounted"), "{report}");
    let asked: Vec<String> = tokens.requests().into_iter().flat_map(|r| r.scopes).collect();
    assert!(asked.iter().any(|scope| scope == "repository:base:pull"), "{asked:?}");
    // If the token server denies pulling from `base`, the layers are uploaded instead.
    tokens.configure(|options| options.denied = vec!["base".to_owned()]);
    let arguments = [&archive, &format!("{host}/third:v1"), "--reuse-from", &from, "--json"];
    let report = machine().run(arguments).success().json();
    let layers = report["layers"].as_array().expect("layers");
    assert!(layers.iter().all(|layer| layer["action"] == "uploaded"), "{report}");
    let remote = Remote::new(&host).login("pushimg", "correct horse");
    pull::assert_same_image(&testdata("layered-v1.tar.gz"), remote, "third", "v1");
}

#[test]
fn what_uploads_to_another_host_carries_no_credential_there() {
    let tokens = TokenServer::start(TokenOptions::default());
    let registry = DockerRegistry::token(&tokens);
    let signer = tokens.signer();
    let proxy = FaultProxy::start(
        registry.addr(),
        &ProxyOptions {
            token_upstream: Some(tokens.addr()),
            locations: LocationForm::Foreign,
            foreign_authorization: Some(Arc::new(move |path| {
                let repository = path.trim_start_matches("/v2/").split("/blobs/").next();
                let repository = repository.expect("a repository");
                format!("Bearer {}", signer(&format!("repository:{repository}:pull,push")))
            })),
            ..Default::default()
        },
    );
    let machine = Pushimg::new().login(&proxy.host(), "pushimg", "correct horse");
    machine.run([&archive(), &format!("{}/app:v1", proxy.host())]).success();
    let foreign = proxy.count(|r| r.origin == Origin::Foreign);
    assert!(foreign >= 7, "six layers and a config went there\n{}", proxy.transcript());
    let leaked =
        proxy.count(|r| r.origin == Origin::Foreign && r.header("authorization").is_some());
    assert_eq!(leaked, 0, "{}", proxy.transcript());
    // The password went to the token server alone.
    let basic = |r: &crate::support::proxy::Record| {
        r.header("authorization").is_some_and(|value| value.starts_with("Basic"))
    };
    assert_eq!(proxy.count(|r| basic(r) && r.origin != Origin::Token), 0);
}

#[test]
fn however_much_is_told_no_secret_is() {
    let tokens = TokenServer::start(TokenOptions::default());
    let by_token = DockerRegistry::token(&tokens);
    let basic = DockerRegistry::basic();
    let encoded =
        base64::engine::general_purpose::STANDARD.encode(format!("{BASIC_USER}:{BASIC_PASSWORD}"));
    for host in [by_token.host(), basic.host()] {
        let machine = Pushimg::new().login(&host, BASIC_USER, BASIC_PASSWORD);
        for verbosity in ["-v", "-vv", "-vvv"] {
            let destination = format!("{host}/app{verbosity}:v1");
            let output = machine.run([&archive(), &destination, verbosity, "--json"]).success();
            let output = output.says("HEAD").says("PUT");
            let output = output.never_says(BASIC_PASSWORD).never_says(&encoded);
            output.never_says("eyJ0eXAi").never_says("eyJhbGci");
        }
    }
}
