//! What error codes and warnings mean, and how pushimg recognises a host that is not a registry.

use super::*;

#[test]
fn an_error_code_is_final_whatever_the_status_says() {
    for (step, code) in [
        (Step::ManifestPut, "MANIFEST_INVALID"),
        (Step::ManifestPut, "NAME_INVALID"),
        (Step::UploadPost, "NAME_INVALID"),
        (Step::UploadPost, "DENIED"),
        (Step::UploadPost, "UNAUTHORIZED"),
        (Step::UploadPost, "denied"),
        (Step::ManifestPut, "Manifest_Invalid"),
        (Step::UploadPut, "SIZE_INVALID"),
    ] {
        let scene = Scene::new();
        let failed = Answer::status(500).error(code, "it will never be accepted");
        scene.rules(vec![Rule::at(step, Fault::Answer(failed))]);
        let output = scene.push(&["-j1"]).exits(4).says(code).says("it will never be accepted");
        assert!(!output.stderr.contains("retry: "), "{output}");
        assert_eq!(scene.registry.tag("app", "v1"), None);
    }
    // Without such a code, the same status may be temporary, so pushimg retries.
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
    let json = |status: u16| {
        let mut answer = Answer::status(status).header("content-type", "application/json");
        answer.body = r#"{"message":"no Route matched"}"#.to_owned();
        answer
    };
    let to = |status: u16, place: &str| Answer::status(status).header("location", place);
    for answer in [
        Answer::status(404).html(),
        Answer::status(200).html(),
        plain(404, "404 page not found\n"),
        json(404),
        json(200),
        plain(200, "hello"),
        Answer::status(200),
        Answer::status(204),
        to(301, "/login"),
        to(302, "/login"),
        to(303, "/login"),
        to(302, "https://login.invalid/?next=%2Fv2%2F"),
    ] {
        let scene = Scene::new();
        scene.rules(vec![Rule::any(Fault::Answer(answer))]);
        let output = scene.push(&["--retry-for=2s"]);
        assert!(matches!(output.code(), Some(4 | 5)), "{output}");
        let text = format!("error: {} does not look like a registry", scene.proxy.host());
        output.says(&text);
    }
    // A web server, which knows no POST.
    for status in [405, 501] {
        let scene = Scene::new();
        scene.rules(vec![
            Rule::at(Step::UploadPost, Fault::Answer(Answer::status(status).html())),
            Rule::any(Fault::Answer(Answer::status(404).html())),
        ]);
        scene.push(&[]).exits(4).says("does not look like a registry");
    }
    // If only the POST gets such an answer, the host is still a registry.
    let scene = Scene::new();
    scene.rules(vec![Rule::at(Step::UploadPost, Fault::Answer(Answer::status(404).html()))]);
    scene.push(&[]).exits(4).never_says("does not look like a registry");
}

#[test]
fn an_answer_without_an_upload_session_is_told_with_what_came_instead() {
    let scene = Scene::new();
    for (answer, said) in [
        (Answer::status(200), "answered 200 OK without a Location"),
        (Answer::status(202).header("location", ""), "answered 202 Accepted without a Location"),
        (Answer::status(302).header("location", "http://other.test/v2/"), "http://other.test/v2/"),
        (Answer::status(301).header("location", "http://other.test/v2/"), "http://other.test/v2/"),
        (Answer::status(303).header("location", "/elsewhere"), "/elsewhere"),
    ] {
        scene.rules(vec![Rule::at(Step::UploadPost, Fault::Answer(answer))]);
        let output = scene.push(&[]).exits(5).says(said);
        assert!(output.took < Duration::from_secs(10), "{output}");
        assert!(!output.stderr.contains("retry: "), "{output}");
    }
    // pushimg does not follow a redirect of a manifest PUT either.
    let moved = Answer::status(301).header("location", "http://other.test/v2/");
    scene.rules(vec![Rule::at(Step::ManifestPut, Fault::Answer(moved))]);
    scene.push(&[]).exits(5).says("http://other.test/v2/").says("hint: ");
}

#[test]
fn a_compressed_error_is_read_and_bytes_that_are_no_text_are_not_shown() {
    let words = gzip(br#"{"errors":[{"code":"DENIED","message":"words in gzip"}]}"#);
    for (body, encoding, said) in [
        (words.clone(), "gzip", "DENIED: words in gzip"),
        (words, "br", "answered 403 Forbidden\n"),
        (vec![0x1f, 0x8b, 0, 1, 2, 200], "gzip", "answered 403 Forbidden\n"),
    ] {
        let head = format!(
            "HTTP/1.1 403 Forbidden\r\ncontent-encoding: {encoding}\r\ncontent-length: {}\r\n\
             connection: close\r\n\r\n",
            body.len()
        );
        let host = answering([head.into_bytes(), body].concat()).to_string();
        let scene = Scene::new();
        push(&Pushimg::new(), &scene.image, &host, &[]).exits(4).says(said);
    }
}

#[test]
fn an_answer_that_is_no_http_ends_the_push_at_once() {
    let scene = Scene::new();
    for answer in [
        &b"SSH-2.0-OpenSSH_9.2\r\n\r\n"[..],
        b"HTTP/1.1 404 Not Found\r\nbad\x01name: x\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
    ] {
        let host = answering(answer.to_vec()).to_string();
        let output = push(&Pushimg::new(), &scene.image, &host, &[]).exits(5);
        assert!(output.took < Duration::from_secs(25), "{output}");
        output.says(&host).says("not in valid HTTP").says("hint: ");
    }
}

#[test]
fn a_registry_that_takes_no_pushes_is_called_read_only() {
    let scene = Scene::new();
    scene.rules(vec![Rule::at(Step::UploadPost, Fault::refused_method())]);
    scene.push(&[]).exits(4).says("UNSUPPORTED").says("read-only, or a mirror");
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
