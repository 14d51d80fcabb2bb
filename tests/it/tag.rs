//! `pushimg tag`: one GET and one PUT for each tag, of images that are already in a registry.

use std::time::Duration;

use serde_json::json;

use crate::support::archive::testdata;
use crate::support::pull;
use crate::support::registry::{self, DevRegistry, Options};
use crate::support::run::Pushimg;
use crate::support::{DockerRegistry, DockerRegistryOptions};

fn push(pushimg: &Pushimg, name: &str, destination: &str) -> String {
    let archive = testdata(name);
    pushimg.run([archive.to_str().expect("UTF-8"), destination]).success().digest()
}

#[test]
fn tags_move_to_an_image_by_its_digest_without_its_layers() {
    let registry = DevRegistry::start(Options::default());
    let host = registry.host();
    let pushimg = Pushimg::new();
    let first = push(&pushimg, "layered-v1.tar", &format!("{host}/team/app:v1"));
    let second = push(&pushimg, "layered-v2.tar", &format!("{host}/team/app:latest"));
    assert_ne!(first, second);
    let before = registry.counters();
    let pinned = format!("{host}/team/app@{first}");
    let output = pushimg.run(["tag", &pinned, "latest", "v1.2", "latest"]).success();
    assert_eq!(output.stdout, format!("{pinned}\n"));
    assert_eq!(output.stderr, format!("tagged {pinned} as latest, v1.2\n"));
    for tag in ["latest", "v1.2", "v1"] {
        assert_eq!(registry.tag("team/app", tag).as_ref(), Some(&first), "{tag}");
    }
    let after = registry.counters();
    assert_eq!(after.manifest_gets - before.manifest_gets, 1, "one GET");
    assert_eq!(after.manifest_puts - before.manifest_puts, 2, "a PUT for each tag");
    assert_eq!(after.blob_heads, before.blob_heads, "no blob was asked for");

    let document = pushimg.run(["tag", &pinned, "v3", "--json", "-q"]).success().json();
    assert_eq!(document["pinned"], pinned);
    assert_eq!(document["digest"], first);
    assert_eq!(document["tags"], json!(["v3"]));
}

#[test]
fn a_tag_and_an_index_can_be_tagged_in_a_real_registry() {
    let registry = DockerRegistry::start(&DockerRegistryOptions::default());
    let host = registry.host();
    let pushimg = Pushimg::new();
    let archive = testdata("layered-v1.tar");
    let archive = archive.to_str().expect("UTF-8");
    let index = format!("{host}/app:index");
    let digest = pushimg.run(["--index", &index, archive]).success().digest();
    pushimg.run(["tag", &index, "latest"]).success();
    assert_eq!(pull::tag_digest(&host, "app", "latest"), Some(digest));
    let plain = push(&pushimg, "layered-v1.tar", &format!("{host}/app:plain"));
    pushimg.run(["tag", &format!("{host}/app:plain"), "v1", "v2"]).success();
    assert_eq!(pull::tag_digest(&host, "app", "v2"), Some(plain));
}

#[test]
fn what_is_not_there_cannot_be_tagged() {
    let registry = DevRegistry::start(Options::default());
    let host = registry.host();
    let pushimg = Pushimg::new();
    push(&pushimg, "layered-v1.tar", &format!("{host}/app:v1"));
    let absent = format!("{host}/app@sha256:{}", "0".repeat(64));
    for image in [absent, format!("{host}/app:v9"), format!("{host}/other:v1")] {
        let output = pushimg.run(["tag", &image, "latest"]).exits(4);
        output.says(&format!("the registry has no image {image}"));
    }
    assert_eq!(registry.tag("app", "latest"), None);
    let wrong = pushimg.run(["tag", &format!("{host}/app:v1"), "feature/x"]).exits(2);
    wrong.says("give the tag alone");
    pushimg.run(["tag", &format!("{host}/app:v1")]).exits(2).says("<TAG>");
    pushimg.run(["tag", host.as_str(), "v1"]).exits(2).says("the repository is missing");
}

#[test]
fn tagging_logs_in() {
    let auth = registry::bearer("me", "secret", Duration::from_secs(60));
    let registry = DevRegistry::start(Options { auth, ..Options::default() });
    let host = registry.host();
    let pushimg = Pushimg::new().login(&host, "me", "secret");
    push(&pushimg, "layered-v1.tar", &format!("{host}/app:v1"));
    pushimg.run(["tag", &format!("{host}/app:v1"), "latest"]).success();
    let stranger = Pushimg::new().run(["tag", &format!("{host}/app:v1"), "v2"]);
    stranger.exits(4);
    assert_eq!(registry.tag("app", "v2"), None);
}
