//! `pushimg inspect` shows what is in an image and what a push would send.

use std::io::{Seek, SeekFrom, Write};
use std::time::Duration;

use crate::support::archive::{ImageBuilder, Layer, sha256, testdata, text};
use crate::support::pull;
use crate::support::registry::{DevRegistry, Options};
use crate::support::run::Pushimg;
use serde_json::json;
use tempfile::TempDir;

#[test]
fn an_image_is_shown_with_its_layers_and_what_is_in_them() {
    for name in ["layered-v1.tar", "layered-v1.tar.gz", "docker-save-v24.tar", "podman-save.tar"] {
        let archive = testdata(name);
        let output = Pushimg::new().run(["inspect", text(&archive)]).success().plain();
        assert_eq!(output.stderr, "", "{name}");
        let expected = pull::expected(&archive, 0);
        for line in [
            "name        registry.fly.io/douglas-adams-quotes:latest".to_owned(),
            format!("id          {}", sha256(&expected.config)),
            "platform    linux/amd64".to_owned(),
            "created     1970-01-01T00:00:01+00:00".to_owned(),
        ] {
            assert!(output.stdout.lines().any(|shown| shown == line), "{line}: {output}");
        }
        let table: Vec<&str> =
            output.stdout.lines().skip_while(|line| !line.starts_with('#')).collect();
        assert_eq!(table.len(), 8, "{output}");
        assert!(table[1].starts_with("1  71.7 kB  d2cbad4914b0  glibc-2.38"), "{output}");
        assert_eq!(table[7], "6 layers, 215 kB");
    }
}

#[test]
fn json_leaves_nothing_out() {
    let archive = testdata("layered-v1.tar.zst");
    let document = Pushimg::new().run(["inspect", text(&archive), "--json"]).success().json();
    let expected = pull::expected(&archive, 0);
    let image = &document["images"][0];
    assert_eq!(image["id"], sha256(&expected.config));
    assert_eq!(image["platform"], "linux/amd64");
    let config: serde_json::Value = serde_json::from_slice(&expected.config).expect("a config");
    assert_eq!(image["env"], config["config"]["Env"]);
    let diff_ids: Vec<_> = image["layers"]
        .as_array()
        .expect("layers")
        .iter()
        .map(|layer| layer["diff_id"].clone())
        .collect();
    assert_eq!(json!(diff_ids), config["rootfs"]["diff_ids"]);
    let store_path = image["layers"][0]["store_paths"][0].as_str().expect("a store path");
    assert!(store_path.starts_with("/nix/store/") && store_path.ends_with("-glibc-2.38"));
    assert_eq!(image["layers"][0].get("registry"), None);
    assert_eq!(document.get("against"), None);
}

#[test]
fn one_of_several_images_is_chosen_by_name() {
    let archive = testdata("several-images.tar");
    let ids = |arguments: &[&str]| {
        let document = Pushimg::new().run([arguments, &["--json"]].concat()).success().json();
        let images = document["images"].as_array().expect("images").clone();
        images.into_iter().map(|image| image["names"][0].clone()).collect::<Vec<_>>()
    };
    let path = text(&archive);
    let both = ["registry.fly.io/hello-a:v1", "registry.fly.io/hello-b:v2"];
    assert_eq!(ids(&["inspect", path]), both);
    for chosen in [
        vec!["inspect", path, "--image", both[1]],
        vec!["inspect", &format!("{path}:{}", both[1])],
        vec!["inspect", &format!("{path}:v2")],
    ] {
        assert_eq!(ids(&chosen), both[1..], "{chosen:?}");
    }
    let output = Pushimg::new().run(["inspect", path, "--image", "v3"]).exits(2);
    output.says("holds no image \"v3\"; it holds: registry.fly.io/hello-a:v1");
    Pushimg::new().run(["inspect", path, "--platform", "arm64"]).exits(2);
}

#[test]
fn a_pipe_can_be_looked_at() {
    let bytes = std::fs::read(testdata("layered-v1.tar.gz")).expect("an archive");
    let output = Pushimg::new().stdin(bytes).run(["inspect", "-"]).success();
    assert!(output.stdout.contains("glibc-2.38"), "{output}");
}

#[test]
fn layers_of_a_plain_file_are_not_read() {
    // A layer of 400 GB, of which the file system stores nothing.
    let folder = TempDir::new().expect("a folder");
    let path = folder.path().join("big.tar");
    let mut file = std::fs::File::create(&path).expect("a file");
    let length = 400 << 30;
    let layer = format!("{}.tar", "a".repeat(64));
    let config = json!({"rootfs": {"diff_ids": [sha256(b"big")]}}).to_string();
    let manifest = json!([{"Config": "c.json", "RepoTags": [], "Layers": [layer]}]).to_string();
    file.write_all(&header(&layer, length)).expect("a header");
    file.seek(SeekFrom::Current(length as i64)).expect("a place behind");
    for (name, content) in [("c.json", &config), ("manifest.json", &manifest)] {
        let mut content = content.clone().into_bytes();
        file.write_all(&header(name, content.len() as u64)).expect("a header");
        content.resize(content.len().next_multiple_of(512), 0);
        file.write_all(&content).expect("a content");
    }
    file.write_all(&[0; 1024]).expect("an end");
    let machine = Pushimg::new().limit(Duration::from_secs(20));
    let output = machine.run(["inspect", text(&path)]).success();
    assert!(output.stdout.contains("\n1   429 GB  "), "{output}");
}

fn header(name: &str, size: u64) -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    header.set_path(name).expect("a short name");
    header.set_size(size);
    header.set_mode(0o644);
    header.set_cksum();
    header.as_bytes().to_vec()
}

#[test]
fn against_a_registry_it_says_what_is_there_and_what_a_push_would_send() {
    let registry = DevRegistry::start(Options::default());
    let folder = TempDir::new().expect("a folder");
    let first = ImageBuilder::new(vec![
        Layer::text("base-1.0", 1, 20_000),
        Layer::random("app-1.0", 2, 30_000),
    ]);
    let second = first.clone().with_layer(1, Layer::random("app-1.1", 3, 30_000));
    let (first, second) =
        (first.write(folder.path(), "1.tar"), second.write(folder.path(), "2.tar"));
    let destination = format!("{}/app:v1", registry.host());
    Pushimg::new().run([text(&first), &destination]).success();
    let before = registry.tag("app", "v1");

    let arguments = ["inspect", text(&second), "--against", &destination];
    let shown = Pushimg::new().run(arguments).success().stdout;
    let rows: Vec<&str> = shown.lines().collect();
    assert!(
        rows.iter().any(|row| row.contains("there, in previous image  /nix/store/base-1.0")),
        "{shown}"
    );
    assert!(
        rows.iter().any(|row| row.contains("upload 30.") && row.ends_with("app-1.1")),
        "{shown}"
    );

    let document = Pushimg::new().run([&arguments[..], &["--json"]].concat()).success().json();
    let layers = &document["images"][0]["layers"];
    assert_eq!(layers[0]["registry"]["action"], "reused");
    assert_eq!(layers[0]["registry"]["why"], "previous-image");
    assert_eq!(layers[1]["registry"]["action"], "would-upload");
    let against = &document["against"];
    assert_eq!(
        (&against["reference"], &against["layers_to_upload"]),
        (&json!(destination), &json!(1))
    );
    let told = against["bytes_to_send"].as_u64().expect("a number");
    assert!(
        rows.last()
            .is_some_and(|last| last.starts_with(&format!("a push to {destination} would send "))),
        "{shown}"
    );
    assert_eq!(registry.tag("app", "v1"), before);

    // It is what the push then sends.
    let report = Pushimg::new().run([text(&second), &destination, "--json"]).success().json();
    assert_eq!(report["bytes_sent"].as_u64(), Some(told));
}

#[test]
fn what_an_image_says_of_itself_cannot_steer_the_terminal() {
    let folder = TempDir::new().expect("a folder");
    let mut image = ImageBuilder::new(vec![Layer::text("evil\u{1b}[2J", 1, 1000)]);
    image.env = vec!["A=\u{1b}]0;title\u{7}".to_owned()];
    let image = image.repo_tags(&["localhost/\u{202e}app:v1"]).write(folder.path(), "evil.tar");
    let output = Pushimg::new().run(["inspect", text(&image)]).success();
    assert!(!output.stdout.contains(['\u{1b}', '\u{7}', '\u{202e}']), "{output}");
    assert!(output.stdout.contains("\\u{1b}]0;title\\u{7}"), "{output}");
}

#[test]
fn what_cannot_be_read_has_the_exit_code_of_a_push() {
    Pushimg::new().run(["inspect", "/no/such/file"]).exits(3).says("no such file");
    let folder = TempDir::new().expect("a folder");
    let file = crate::support::archive::write(folder.path(), "x", b"hello");
    Pushimg::new().run(["inspect", text(&file)]).exits(3).says("is not an image");
    let archive = testdata("layered-v1.tar");
    let nobody = ["inspect", text(&archive), "--against", "127.0.0.1:1/a", "--retry-for", "0"];
    Pushimg::new().run(nobody).exits(5);
}
