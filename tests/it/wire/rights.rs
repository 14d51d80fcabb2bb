//! Not allowed is not the same as not logged in.

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
