//! `pushimg inspect` and `pushimg diff` of images in a registry.

use serde_json::Value;

use crate::support::archive::testdata;
use crate::support::registry::{DevRegistry, Options};
use crate::support::run::Pushimg;

/// A registry with two versions of an image.
fn two_versions(pushimg: &Pushimg) -> (DevRegistry, String) {
    let registry = DevRegistry::start(Options::default());
    let repository = format!("{}/team/app", registry.host());
    for version in ["v1", "v2"] {
        let archive = testdata(&format!("layered-{version}.tar"));
        let destination = format!("{repository}:{version}");
        pushimg.run([archive.to_str().expect("UTF-8"), &destination]).success();
    }
    (registry, repository)
}

#[test]
fn a_remote_image_is_shown_like_a_local_one() {
    let pushimg = Pushimg::new();
    let (registry, repository) = two_versions(&pushimg);
    let archive = testdata("layered-v1.tar");
    let local = pushimg.run(["inspect", archive.to_str().expect("UTF-8"), "--json"]).success();
    let before = registry.counters();
    let name = format!("{repository}:v1");
    let remote = pushimg.run(["inspect", &name, "--json"]).success().json();
    assert_eq!(registry.counters().blob_gets - before.blob_gets, 1, "the config alone");
    let (local, remote) = (local.json()["images"][0].clone(), remote["images"][0].clone());
    for field in ["id", "platform", "created", "env", "cmd", "working_dir", "exposed_ports"] {
        assert_eq!(local[field], remote[field], "{field}");
    }
    assert_eq!(remote["names"][0], name);
    assert!(remote["manifest"].as_str().expect("a digest").starts_with("sha256:"));
    let paths = |image: &Value| -> Vec<_> {
        let layers = image["layers"].as_array().expect("layers").iter();
        layers.map(|layer| (layer["diff_id"].clone(), layer["store_paths"].clone())).collect()
    };
    assert_eq!(paths(&local), paths(&remote));
    let table = pushimg.run(["inspect", &name]).success().stdout;
    assert!(table.contains("glibc-2.38") && table.contains("6 layers"), "{table}");
    let pinned = format!("{repository}@{}", remote["manifest"].as_str().expect("a digest"));
    pushimg.run(["inspect", &pinned]).success();
}

#[test]
fn an_index_shows_its_images_or_the_one_for_a_platform() {
    let pushimg = Pushimg::new();
    let registry = DevRegistry::start(Options::default());
    let index = format!("{}/app:index", registry.host());
    let archive = testdata("layered-v1.tar");
    pushimg.run(["--index", &index, archive.to_str().expect("UTF-8")]).success();
    for arguments in [vec!["inspect", &index], vec!["inspect", &index, "--platform", "amd64"]] {
        let table = pushimg.run(arguments).success().stdout;
        assert!(table.contains("platform    linux/amd64"), "{table}");
    }
    let other = pushimg.run(["inspect", &index, "--platform", "arm64"]).exits(2);
    other.says("has no image for linux/arm64; it has: linux/amd64");
}

#[test]
fn an_image_for_another_platform_is_not_taken_for_the_one_that_is_wanted() {
    let pushimg = Pushimg::new();
    let (_registry, name) = two_versions(&pushimg);
    let options = ["inspect", &format!("{name}:v1"), "--platform", "arm64"];
    pushimg.run(options).exits(2).says("is an image for linux/amd64, not for linux/arm64");
}

#[test]
fn a_remote_image_that_is_not_there_is_named() {
    let pushimg = Pushimg::new();
    let (_registry, repository) = two_versions(&pushimg);
    let absent = format!("{repository}:v9");
    pushimg.run(["inspect", &absent]).exits(4).says(&format!("no image {absent}"));
    pushimg.run(["diff", &format!("{repository}:v1"), &absent]).exits(4).says(&absent);
    let against = pushimg.run(["inspect", &absent, "--against", "r.io/a"]).exits(2);
    against.says("pushimg diff OLD NEW");
    pushimg.run(["inspect", "r.io:x/a"]).exits(2).says("is no port");
    // A path that does not begin with a host is a file.
    pushimg.run(["inspect", "images/app"]).exits(3).says("no such file");
    pushimg.run(["inspect", "./r.io/app"]).exits(3).says("no such file");
}

#[test]
fn two_images_are_compared_here_and_there() {
    let pushimg = Pushimg::new();
    let (_registry, repository) = two_versions(&pushimg);
    let (old, new) = (testdata("layered-v1.tar"), testdata("layered-v2.tar.gz"));
    let (old, new) = (old.to_str().expect("UTF-8"), new.to_str().expect("UTF-8"));
    let (remote_old, remote_new) = (format!("{repository}:v1"), format!("{repository}:v2"));
    for (old, new) in
        [(old, new), (&remote_old, new), (old, &remote_new), (&remote_old, &remote_new)]
    {
        let output = pushimg.run(["diff", old, new]).success();
        let lines: Vec<_> = output.stdout.lines().collect();
        assert!(lines[0].starts_with("  5 layers in both, "), "{output}");
        assert!(lines[1].starts_with("- ") && lines[1].ends_with("hello-app-1.0"), "{output}");
        assert!(lines[2].starts_with("+ ") && lines[2].ends_with("hello-app-1.1"), "{output}");
        assert_eq!(lines[3..], ["", "hello-app 1.0 → 1.1"], "{output}");
    }
    let document = pushimg.run(["diff", old, new, "--json"]).success().json();
    assert_eq!(document["layers_added"], 1);
    assert_eq!(document["packages"][0]["name"], "hello-app");
    assert_eq!(document["packages"][0]["to"][0], "1.1");
    assert_eq!(document["layers"].as_array().map(Vec::len), Some(7));
    let same = pushimg.run(["diff", old, &remote_old]).success();
    assert_eq!(same.stdout.lines().count(), 1, "{same}");
    let several = testdata("several-images.tar");
    let several = pushimg.run(["diff", several.to_str().expect("UTF-8"), new]).exits(2);
    several.says("holds 2 images").says("PATH:NAME");
    pushimg.run(["diff", "-", "-"]).exits(2).says("are both standard input");
}
