//! pushimg does not show its secrets if a server repeats them.

use super::*;

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
