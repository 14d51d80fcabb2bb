//! What error codes and warnings mean, and what is no registry at all.

use super::*;

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
