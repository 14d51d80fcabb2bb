//! Pushes without a tag, with the tag of the image, and the summary for a CI job.

use std::path::Path;

use crate::support::archive::testdata;
use crate::support::pull;
use crate::support::registry::{DevRegistry, Options};
use crate::support::run::Pushimg;
use crate::support::{DockerRegistry, DockerRegistryOptions};

fn archive(name: &str) -> String {
    testdata(name).to_str().expect("UTF-8").to_owned()
}

#[test]
fn a_push_by_digest_moves_no_tag_and_finds_the_layers_of_latest() {
    let registry = DevRegistry::start(Options::default());
    let host = registry.host();
    let pushimg = Pushimg::new();
    let latest = format!("{host}/app:latest");
    let first = pushimg.run([archive("layered-v1.tar"), latest]).success().digest();
    let untagged = format!("{host}/app@");
    let machine = Pushimg::new();
    let output = machine.run([archive("layered-v2.tar"), untagged.clone()]).success();
    let digest = output.digest();
    assert!(output.stderr.contains(&format!("pushed {host}/app  1 of 6 layers")), "{output}");
    assert_eq!(registry.tag("app", "latest"), Some(first));
    assert_eq!(registry.tag("app", ""), None);
    let pinned = format!("{host}/app@{digest}");
    machine.run(["tag", &pinned, "v2", "latest"]).success();
    assert_eq!(registry.tag("app", "latest"), Some(digest));
    let index = format!("{host}/index@");
    let made = machine.run(["--index", &index, &archive("layered-v1.tar")]).success().digest();
    machine.run(["tag", &format!("{host}/index@{made}"), "v1"]).success();
}

#[test]
fn an_untagged_image_can_be_pulled_from_a_real_registry() {
    let registry = DockerRegistry::start(&DockerRegistryOptions::default());
    let destination = format!("{}/app@", registry.host());
    let pushimg = Pushimg::new();
    let digest = pushimg.run([archive("layered-v1.tar.gz"), destination]).success().digest();
    let pinned = format!("{}/app@{digest}", registry.host());
    pushimg.run(["tag", &pinned, "v1"]).success();
    assert_eq!(pull::tag_digest(registry.host(), "app", "v1"), Some(digest));
}

#[test]
fn the_tag_is_kept_from_the_image() {
    let registry = DevRegistry::start(Options::default());
    let host = registry.host();
    let pushimg = Pushimg::new();
    for (name, repository) in [("layered-v1.tar", "a"), ("layered-v1.tar.gz", "b")] {
        let destination = format!("{host}/{repository}");
        let output = pushimg.run([&archive(name), &destination, "--keep-tag", "-t", "v1"]);
        assert!(output.success().stderr.contains(&format!("{destination}:latest (also v1)")));
        assert!(registry.tag(repository, "latest").is_some());
        assert!(registry.tag(repository, "v1").is_some());
    }
    let several = archive("several-images.tar");
    let one = format!("{several}:registry.fly.io/hello-b:v2={host}/c");
    let other = format!("{several}:registry.fly.io/hello-a:v1={host}/c");
    pushimg.run([&one, &other, "--keep-tag"]).success();
    assert!(registry.tag("c", "v1").is_some() && registry.tag("c", "v2").is_some());
    assert_eq!(registry.tag("c", "latest"), None);
    let unnamed = pushimg.run([&archive("no-tag.tar"), &format!("{host}/d"), "--keep-tag"]);
    unnamed.exits(2).says("carries no tag that could be kept");
}

#[test]
fn the_summary_is_appended_as_markdown() {
    let registry = DevRegistry::start(Options::default());
    let host = registry.host();
    let pushimg = Pushimg::new();
    let file = pushimg.home().join("summary.md");
    std::fs::write(&file, "# Before\n").expect("a file");
    let summary = file.to_str().expect("UTF-8");
    let destination = format!("{host}/app:v1");
    let digest = pushimg
        .run([&archive("layered-v1.tar"), &destination, "--summary", summary])
        .success()
        .digest();
    let text = std::fs::read_to_string(&file).expect("a summary");
    let start =
        format!("# Before\n### Pushed `{host}/app`\n\n| | |\n|---|---|\n| digest | `{digest}` |\n");
    assert!(text.starts_with(&start), "{text}");
    assert!(text.contains("| tags | `v1` |\n| layers | 6 of 6 layers uploaded |\n"), "{text}");
    let pair = format!("{}={host}/b:v1", archive("layered-v2.tar"));
    let missing = format!("/no/such/image={host}/c:v1");
    pushimg.run([&pair, &missing, "--summary", summary]).exits(3);
    let text = std::fs::read_to_string(&file).expect("a summary");
    assert!(text.contains(&format!("### Pushed `{host}/b`")), "{text}");
    assert!(text.contains(&format!("### Push failed: `{host}/c:v1`\n\n    ")), "{text}");
    let lonely = pushimg.run(["/no/such/image", &destination, "--summary", summary]);
    lonely.exits(3);
    let text = std::fs::read_to_string(&file).expect("a summary");
    assert!(text.contains("### Push failed\n\n    /no/such/image"), "{text}");
    assert!(Path::new(summary).exists());
}
