//! Several images in one command: one failure does not stop the others, the results come in the
//! given order, and the exit code is 0 only if all were pushed.

use std::path::Path;

use crate::support::archive::{ImageBuilder, Layer, testdata, text, write};
use crate::support::pull;
use crate::support::registry::{DevRegistry, Options};
use crate::support::run::Pushimg;
use serde_json::{Value, json};
use tempfile::TempDir;

/// An archive of two layers, of which the first is the same in all.
fn image(folder: &Path, name: &str) -> String {
    let hash = "0123456789abcdfghijklmnpqrsvwxyz";
    let layers = vec![
        Layer::text(&format!("{hash}-base-1.0"), 1, 20_000),
        Layer::text(&format!("{hash}-{name}"), 2, 10_000),
    ];
    let names = [format!("localhost/{name}:v1")];
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let path = ImageBuilder::new(layers).repo_tags(&names).write(folder, &format!("{name}.tar"));
    text(&path).to_owned()
}

/// For each line of standard output, the repository, and whether its digest is the tag's.
#[track_caller]
fn pinned(stdout: &str, registry: &DevRegistry, tag: &str) -> Vec<(String, bool)> {
    let line = |line: &str| {
        let (name, digest) = line.split_once('@').expect("a pinned name");
        let (host, repository) = name.split_once('/').expect("a repository");
        assert_eq!(host, registry.host());
        (repository.to_owned(), registry.tag(repository, tag).as_deref() == Some(digest))
    };
    stdout.lines().map(line).collect()
}

fn of(repositories: &[&str]) -> Vec<(String, bool)> {
    repositories.iter().map(|repository| ((*repository).to_owned(), true)).collect()
}

#[test]
fn each_image_goes_to_its_destination_and_is_told_of_in_the_order_given() {
    let registry = DevRegistry::start(Options::default());
    let folder = TempDir::new().expect("a folder");
    let names = ["gamma", "alpha", "beta"];
    let images = names.map(|name| image(folder.path(), name));
    let pairs = [0, 1, 2].map(|i| format!("{}={}/{}:v1", images[i], registry.host(), names[i]));
    let output = Pushimg::new().run(&pairs).success().plain();
    assert_eq!(pinned(&output.stdout, &registry, "v1"), of(&names));
    for (image, name) in images.iter().zip(names) {
        pull::assert_same_image(Path::new(image), registry.host(), name, "v1");
    }
    // Each layer's line names its image, and the last line counts a shared layer only once.
    let log = output.stderr.as_str();
    assert!(log.contains("\nalpha  base-1.0 "), "{output}");
    let last = log.lines().last().expect("a line");
    assert!(last.starts_with("pushed 3 images; 4 layers uploaded, "), "{output}");
    let summaries = log.lines().filter(|line| line.starts_with("pushed ")).count();
    assert_eq!(summaries, 4, "{output}");
}

#[test]
fn one_failure_does_not_stop_the_others() {
    let registry = DevRegistry::start(Options::default());
    let folder = TempDir::new().expect("a folder");
    let good = image(folder.path(), "good");
    let host = registry.host();
    let absent = text(&folder.path().join("absent")).to_owned();
    let pairs = [
        format!("{good}={host}/one:v1"),
        format!("{absent}={host}/two:v1"),
        format!("{good}={host}/three:v1"),
    ];
    let output = Pushimg::new().run(&pairs).exits(3);
    assert_eq!(pinned(&output.stdout, &registry, "v1"), of(&["one", "three"]));
    assert_eq!(registry.tag("two", "v1"), None);
    let said = format!("failed {host}/two:v1: {absent}: no such file");
    assert!(output.stderr.contains(&said), "{output}");
    let last = output.stderr.lines().last().expect("a line");
    assert!(last.starts_with("pushed 2 images, 1 failed; "), "{output}");

    let quiet = Pushimg::new().run([&pairs[..], &["-q".to_owned()]].concat()).exits(3);
    assert!(quiet.stderr.starts_with(&said) && quiet.stderr.lines().count() == 1, "{quiet}");
}

#[test]
fn the_exit_code_is_that_of_the_first_failure_in_the_order_given() {
    let registry = DevRegistry::start(Options::default());
    let folder = TempDir::new().expect("a folder");
    let good = image(folder.path(), "good");
    let absent = format!("{}={}/a:v1", text(&folder.path().join("absent")), registry.host());
    // No server listens there.
    let unreachable = format!("{good}=127.0.0.1:1/b:v1");
    let fine = format!("{good}={}/c:v1", registry.host());
    let run = |pairs: &[&String]| {
        let quick = ["--retry-for".to_owned(), "0".to_owned()];
        let pairs = pairs.iter().map(|pair| (*pair).clone()).chain(quick);
        Pushimg::new().run(pairs)
    };
    run(&[&fine, &absent, &unreachable]).exits(3);
    run(&[&unreachable, &fine, &absent]).exits(5);
}

#[test]
fn json_is_one_document_with_an_element_for_each_image() {
    let registry = DevRegistry::start(Options::default());
    let folder = TempDir::new().expect("a folder");
    let good = image(folder.path(), "good");
    let host = registry.host();
    let pairs = [
        format!("{}={host}/bad:v1", text(&folder.path().join("absent"))),
        format!("{good}={host}/good:v1"),
    ];
    let document = Pushimg::new().run([&pairs[..], &["--json".to_owned()]].concat()).exits(3);
    let document = document.json();
    let failed = &document["images"][0];
    assert_eq!(
        (&failed["reference"], &failed["exit_code"]),
        (&json!(format!("{host}/bad:v1")), &json!(3))
    );
    assert!(
        failed["error"].as_str().is_some_and(|e| e.contains("absent: no such file")),
        "{failed}"
    );
    let pushed = &document["images"][1];
    assert_eq!(pushed["digest"].as_str(), registry.tag("good", "v1").as_deref());
    assert_eq!(pushed["layers"].as_array().map(Vec::len), Some(2));
    assert_eq!(document["bytes_sent"], pushed["bytes_sent"]);
    assert!(document["seconds"].as_f64().is_some_and(|seconds| seconds > 0.0));
}

#[test]
fn a_file_lists_what_goes_where() {
    let registry = DevRegistry::start(Options::default());
    let folder = TempDir::new().expect("a folder");
    image(folder.path(), "alpha");
    image(folder.path(), "beta");
    let host = registry.host();
    let list = json!([
        { "image": "alpha.tar", "destination": format!("{host}/alpha:v1"), "tags": ["latest", "v2"] },
        { "image": "beta.tar", "destination": format!("{host}/beta:v1") },
    ]);
    let file = write(folder.path(), "images.json", list.to_string().as_bytes());
    let output = Pushimg::new().run(["--file", text(&file)]).success();
    assert_eq!(pinned(&output.stdout, &registry, "v1"), of(&["alpha", "beta"]));
    for tag in ["latest", "v2"] {
        assert_eq!(registry.tag("alpha", tag), registry.tag("alpha", "v1"));
    }

    // If the list comes from standard input, its paths are relative to the working directory.
    let machine = Pushimg::new();
    image(machine.home(), "gamma");
    let list = json!([{ "image": "gamma.tar", "destination": format!("{host}/gamma:v1") }]);
    let machine = machine.stdin(list.to_string());
    let document = machine.run(["--file", "-", "--json"]).success().json();
    assert_eq!(document["images"][0]["digest"].as_str(), registry.tag("gamma", "v1").as_deref());

    let wrong = json!([{ "image": "alpha.tar" }, { "image": "beta.tar", "repo": "x" }]);
    let file = write(folder.path(), "wrong.json", wrong.to_string().as_bytes());
    let output = Pushimg::new().run(["--file", text(&file)]).exits(2);
    output.says("wrong.json").says("element 2: \"repo\" is not known");
}

#[test]
fn all_images_of_an_archive_go_under_their_own_names() {
    let registry = DevRegistry::start(Options::default());
    let folder = TempDir::new().expect("a folder");
    let names = ["one:v1", "one:v2", "two:v1"].map(|name| format!("{}/{name}", registry.host()));
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let archive = ImageBuilder::new(vec![Layer::text("base-1.0", 1, 20_000)]).repo_tags(&names);
    for path in [archive.write(folder.path(), "a.tar"), archive.write_gz(folder.path(), "b.tar")] {
        let output = Pushimg::new().run(["--all", text(&path)]).success();
        assert_eq!(pinned(&output.stdout, &registry, "v1"), of(&["one", "two"]));
        assert_eq!(registry.tag("one", "v2"), registry.tag("one", "v1"));
    }
    // An archive of two images that both have a name, and an image without a name.
    let other = Pushimg::new().run(["--all", text(&testdata("several-images.tar")), "--dry-run"]);
    other.never_says("holds 2 images");
    let unnamed = Pushimg::new().run(["--all", text(&testdata("no-tag.tar"))]).exits(2);
    unnamed.says("the image sha256:c28042053646").says("has no name to be pushed to");
}

#[test]
fn two_images_for_the_same_tag_are_a_mistake() {
    let registry = DevRegistry::start(Options::default());
    let folder = TempDir::new().expect("a folder");
    let (one, two) = (image(folder.path(), "one"), image(folder.path(), "two"));
    let pairs = [&one, &two].map(|path| format!("{path}={}/app:v1", registry.host()));
    let output = Pushimg::new().run(&pairs).exits(2);
    output.says(&format!("'{one}' and '{two}' both go to {}/app:v1", registry.host()));
    assert_eq!(registry.counters().requests, 0);
}

#[test]
fn a_plan_for_several_images_names_each_and_sends_nothing() {
    let registry = DevRegistry::start(Options::default());
    let folder = TempDir::new().expect("a folder");
    let host = registry.host();
    let pairs =
        ["one", "two"].map(|name| format!("{}={host}/{name}:v1", image(folder.path(), name)));
    let output = Pushimg::new().run([&pairs[..], &["--dry-run".to_owned()]].concat()).success();
    assert_eq!(output.stdout, "");
    assert_eq!(registry.tag("one", "v1"), None);
    for line in [
        "one  base-1.0 ".to_owned(),
        format!("{host}/one:v1: would upload "),
        format!("{host}/two:v1: would upload "),
        "would push 2 images; would upload 3 layers, ".to_owned(),
    ] {
        assert!(output.stderr.lines().any(|said| said.starts_with(&line)), "{line}: {output}");
    }
    // One image uploads the shared layer, and the other one mounts it.
    assert_eq!(output.stderr.matches("would be mounted from ").count(), 1, "{output}");
}

#[test]
fn what_is_for_one_image_is_refused_for_several() {
    for arguments in [
        "a=r.io/a b=r.io/b -t v1",
        "a=r.io/a b=r.io/b --digest-file digest",
        "a=r.io/a b=r.io/b --image x",
        "a r.io/a b=r.io/b",
        "a --fail-fast",
    ] {
        Pushimg::new().run(arguments.split(' ')).exits(2);
    }
}

#[test]
fn fail_fast_leaves_the_exit_code_of_the_failure() {
    let registry = DevRegistry::start(Options::default());
    let folder = TempDir::new().expect("a folder");
    let good = image(folder.path(), "good");
    let host = registry.host();
    let absent = text(&folder.path().join("absent")).to_owned();
    let pairs = [format!("{absent}={host}/a:v1"), format!("{good}={host}/b:v1")];
    let all = [&pairs[..], &["--fail-fast".to_owned(), "--json".to_owned()]].concat();
    let document: Value = Pushimg::new().run(&all).exits(3).json();
    assert_eq!(document["images"][0]["exit_code"], 3);
    assert_eq!(document["images"].as_array().map(Vec::len), Some(2));
}
