//! Logins and tokens are taken in all dialects, renewed when they expire, and not sent again once
//! they were refused.

use super::*;

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
