//! A missing right is reported differently from a missing login.

use super::*;

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
    // A registry that lets the user pull and explains the refusal in its own words.
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
        // Without a login, a 401 means that pushimg should log in, so that case is left out.
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
fn a_limit_of_the_registry_is_not_called_a_missing_right() {
    for words in [
        "adding 5.0 MiB of storage resource, which when updated to current usage of 9.9 GiB will \
         exceed the configured upper limit of 10.0 GiB.",
        "Quota has been exceeded on namespace",
        "current image with 3 vulnerabilities cannot be pushed due to the configured policy",
    ] {
        let scene = Scene::with(basic());
        let denied = Answer::status(403).error("DENIED", words);
        scene.rules(vec![Rule::at(Step::UploadPut, Fault::Answer(denied))]);
        scene
            .login(BASIC_USER, BASIC_PASSWORD)
            .exits(4)
            .says(words)
            .says("a limit or a rule of the registry")
            .never_says("may not push")
            .never_says("log in");
    }
}

#[test]
fn a_token_that_stays_the_same_and_is_too_narrow_is_no_wrong_login() {
    // At some registries the token is only another form of the password, so it never changes.
    let scene = Scene::with(basic());
    let realm = format!("http://{}/token", scene.proxy.addr_of(Origin::Token));
    let narrow = Answer::status(401)
        .header(
            "www-authenticate",
            &format!("Bearer realm=\"{realm}\",service=\"s\",error=\"insufficient_scope\""),
        )
        .error("UNAUTHORIZED", "reporters may pull only");
    let mut token = Answer::status(200).header("content-type", "application/json");
    token.body = r#"{"token":"always-the-same"}"#.to_owned();
    scene.rules(vec![
        Rule::at(Step::TokenGet, Fault::Answer(token)),
        Rule::any(Fault::Answer(narrow)),
    ]);
    scene
        .login(BASIC_USER, BASIC_PASSWORD)
        .exits(4)
        .says("reporters may pull only")
        .says("this user may not push to")
        .never_says("refused the login")
        .never_says("always-the-same");
}

#[test]
fn a_login_that_is_refused_is_told_in_the_registrys_words() {
    for challenge in [Some("Basic realm=\"laboratory\""), Some("Negotiate"), None] {
        let scene = Scene::with(basic());
        let words = "unauthorized to access repository: app, action: push";
        let mut refused = Answer::status(401).error("UNAUTHORIZED", words);
        if let Some(challenge) = challenge {
            refused = refused.header("www-authenticate", challenge);
        }
        scene.rules(vec![Rule::at(Step::UploadPost, Fault::Answer(refused))]);
        let output = scene.login(BASIC_USER, BASIC_PASSWORD).exits(4).says(words);
        output.says("may not push");
    }
}

#[test]
fn a_token_server_that_cannot_be_reached_is_no_refusal() {
    let scene = Scene::new();
    let (dir, authority) = (TempDir::new().expect("a folder"), Authority::new());
    let secure = DockerRegistry::tls(&authority);
    for (server, code, said) in [
        ("https://tokens.invalid".to_owned(), 5, "lookup address"),
        (format!("https://{}", secure.addr()), 5, "--ca-file"),
    ] {
        let challenge = Answer::status(401)
            .header("www-authenticate", &format!("Bearer realm=\"{server}/token\""));
        scene.rules(vec![Rule::any(Fault::Answer(challenge))]);
        scene.push(&[]).exits(code).says(&server).says(said);
    }
    drop(dir);
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
