//! Docker archives with several images or with links: the chosen image arrives, or each image under
//! its own name.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::DockerRegistry;
use crate::support::archive::{self, ImageBuilder, Layer, gzip, sha256, testdata, text};
use crate::support::pull::{self, Expected, Pulled};
use crate::support::registry::{DevRegistry, Options};
use crate::support::run::{Pushimg, program, push};
use serde_json::{Value, json};
use tempfile::TempDir;

/// An archive of two images, and the names that it gives them.
const SEVERAL: &str = "several-images.tar";
const NAMES: [&str; 2] = ["registry.fly.io/hello-a:v1", "registry.fly.io/hello-b:v2"];

/// Asserts that a pulled image has the config and the layers that the archive lists.
#[track_caller]
fn assert_is(pulled: &Pulled, expected: &Expected) {
    assert_eq!(String::from_utf8_lossy(&pulled.config), String::from_utf8_lossy(&expected.config));
    let found = pulled.diff_ids();
    assert_eq!(found, expected.diff_ids);
}

#[test]
fn of_several_images_in_an_archive_the_one_that_is_meant_arrives() {
    let registry = DockerRegistry::plain();
    let dir = TempDir::new().expect("a folder");
    let plain = testdata(SEVERAL);
    let bytes = fs::read(&plain).expect("an archive");
    let compressed = archive::write(dir.path(), "several.tar.gz", &gzip(&bytes));
    let destination = format!("{}/app:v1", registry.host());
    for place in [0, 1] {
        let expected = pull::expected(&plain, place);
        let id = sha256(&expected.config);
        let name = NAMES[place];
        let tag = name.rsplit(':').next().expect("a tag");
        for archive in [&plain, &compressed] {
            for (image, options) in [
                (text(archive).to_owned(), &["--image", name][..]),
                (text(archive).to_owned(), &["--image", tag]),
                (format!("{}:{name}", text(archive)), &[]),
                (format!("{}:{tag}", text(archive)), &[]),
                (format!("{}@{id}", text(archive)), &[]),
            ] {
                let output = push(&image, &destination, options).success();
                let pulled = pull::oci(registry.host(), "app", "v1");
                assert_eq!(pulled.digest, output.digest());
                assert_is(&pulled, &expected);
            }
        }
        for bytes in [bytes.clone(), gzip(&bytes)] {
            let machine = Pushimg::new().stdin(bytes);
            machine.run(["-", &destination, "--image", name]).success();
            assert_is(&pull::oci(registry.host(), "app", "v1"), &expected);
        }
    }
}

#[test]
fn without_a_choice_or_with_a_wrong_one_the_images_are_listed() {
    let registry = DevRegistry::start(Options::default());
    let destination = format!("{}/app:v1", registry.host());
    let dir = TempDir::new().expect("a folder");
    let plain = testdata(SEVERAL);
    let bytes = fs::read(&plain).expect("an archive");
    let compressed = archive::write(dir.path(), "several.tar.gz", &gzip(&bytes));
    let listed = format!("{} (linux/amd64), {} (linux/amd64)", NAMES[0], NAMES[1]);
    for archive in [text(&plain), text(&compressed), "-"] {
        for (options, said) in [
            (&[][..], "holds 2 images: "),
            (&["--image", "hello-c"], "holds no image \"hello-c\""),
            (&["--platform", "arm64"], "holds no image for linux/arm64"),
            (&["--image", NAMES[0], "--platform", "arm64"], "for linux/arm64"),
            (&["--platform", "amd64"], "holds 2 images: "),
        ] {
            let machine = Pushimg::new().stdin(bytes.clone());
            let output = machine.run([&[archive, &destination], options].concat()).exits(2);
            assert_eq!(output.stdout, "");
            output.says(said).says(&listed);
        }
    }
    let absent = format!("{}@{}", text(&plain), sha256(b"absent"));
    push(&absent, &destination, &[]).exits(2).says("holds no image sha256:").says(&listed);
    assert_eq!(registry.tag("app", "v1"), None);
}

/// Images of several platforms in one archive.
fn platforms(dir: &Path) -> PathBuf {
    let layer = |on: &str| Layer::random(on, on.len() as u64, 10_000);
    let mut files = Vec::new();
    let mut manifest = Vec::new();
    for on in ["amd64", "arm64", "riscv64"] {
        let image = ImageBuilder::new(vec![layer("base"), layer(on)]).architecture(on);
        for (place, layer) in image.layers.iter().enumerate() {
            files.push((format!("{on}-{place}.tar"), layer.tar.clone()));
        }
        files.push((format!("{on}.json"), image.config()));
        manifest.push(json!({ "Config": format!("{on}.json"), "RepoTags": [format!("app:{on}")],
            "Layers": [format!("{on}-0.tar"), format!("{on}-1.tar")] }));
    }
    files.push(("manifest.json".to_owned(), json!(manifest).to_string().into_bytes()));
    let files: Vec<(&str, &[u8])> = files.iter().map(|(name, it)| (&**name, &**it)).collect();
    archive::write(dir, "platforms.tar", &archive::tar_of(&files))
}

#[test]
fn the_image_of_a_platform_is_chosen_by_its_config() {
    let registry = DockerRegistry::plain();
    let dir = TempDir::new().expect("a folder");
    let archive = platforms(dir.path());
    let compressed = gzip(&fs::read(&archive).expect("an archive"));
    let destination = format!("{}/app:v1", registry.host());
    for (place, on) in ["linux/amd64", "arm64", "linux/riscv64"].into_iter().enumerate() {
        let expected = pull::expected(&archive, place);
        push(text(&archive), &destination, &["--platform", on]).success();
        assert_is(&pull::oci(registry.host(), "app", "v1"), &expected);
        let machine = Pushimg::new().stdin(compressed.clone());
        machine.run(["-", &destination, "--platform", on]).success();
        assert_is(&pull::oci(registry.host(), "app", "v1"), &expected);
    }
    // All three images under one index.
    let image = |on: &str| format!("{on}={}:{on}", text(&archive));
    let images = ["amd64", "arm64", "riscv64"].map(image);
    let [one, two, three] = images.each_ref().map(String::as_str);
    Pushimg::new().run(["--index", &destination, one, two, three]).success();
    let from = format!("docker://{destination}");
    let raw = program("skopeo", ["inspect", "--raw", "--tls-verify=false", &from]);
    let index: Value = serde_json::from_str(&raw).expect("an index");
    let listed = index["manifests"].as_array().expect("manifests");
    for (place, entry) in listed.iter().enumerate() {
        let pulled = pull::oci(registry.host(), "app", entry["digest"].as_str().expect("a digest"));
        assert_is(&pulled, &pull::expected(&archive, place));
    }
    assert_eq!(listed.len(), 3);
}

/// Loads these archives into Docker or podman, saves their images into one archive, and returns the
/// program's name.
fn save(images: &[(PathBuf, String)], to: &Path) -> &'static str {
    let names: Vec<&str> = images.iter().map(|(_, name)| name.as_str()).collect();
    let has_docker = Command::new("docker").arg("info").output();
    if has_docker.is_ok_and(|info| info.status.success()) {
        for (archive, _) in images {
            program("docker", ["load", "-q", "-i", text(archive)]);
        }
        program("docker", [&["save", "-o", text(to)], &names[..]].concat());
        program("docker", [&["rmi"], &names[..]].concat());
        return "docker";
    }
    let store = TempDir::new().expect("a folder");
    let (root, run) = (store.path().join("root"), store.path().join("run"));
    let stored = ["--root", text(&root), "--runroot", text(&run), "--storage-driver", "vfs"];
    for (archive, _) in images {
        program("podman", [&stored[..], &["load", "-q", "-i", text(archive)]].concat());
    }
    let save = ["save", "-q", "-m", "-o", text(to)];
    program("podman", [&stored[..], &save, &names[..]].concat());
    "podman"
}

#[test]
fn what_docker_or_podman_saved_of_two_images_goes_under_their_own_names() {
    let registry = DockerRegistry::plain();
    let dir = TempDir::new().expect("a folder");
    let base = Layer::random("base", 1, 20_000);
    let images = ["one", "two"].map(|name| {
        // The registry's port makes the name unique to this test.
        let full = format!("{}/team/{name}:v1", registry.host());
        let image = ImageBuilder::new(vec![base.clone(), Layer::file(name, name.as_bytes())]);
        let archive = image.repo_tags(&[&full]).write(dir.path(), &format!("{name}.tar"));
        (archive, full)
    });
    let saved = dir.path().join("saved.tar");
    let by = save(&images, &saved);
    let output = Pushimg::new().run(["--all", text(&saved)]).success();
    assert_eq!(output.stdout.lines().count(), 2, "{by}\n{output}");
    for (name, (archive, _)) in ["one", "two"].iter().zip(&images) {
        let pulled = pull::oci(registry.host(), &format!("team/{name}"), "v1");
        let expected = pull::expected(archive, 0);
        let found = pulled.diff_ids();
        assert_eq!(found, expected.diff_ids, "{by}");
        assert_eq!(sha256(&pulled.config), sha256(&expected.config), "{by}");
        pull::skopeo(registry.host(), &format!("team/{name}"), "v1");
    }
    // One of them, by its name.
    let destination = format!("{}/other:v1", registry.host());
    let bytes = fs::read(&saved).expect("an archive");
    let two = images[1].1.as_str();
    push(text(&saved), &destination, &["--image", two]).success();
    let file = pull::oci(registry.host(), "other", "v1").config;
    Pushimg::new().stdin(bytes).run(["-", &destination, "--image", two]).success();
    let expected = pull::expected(&images[1].0, 0).config;
    for config in [file, pull::oci(registry.host(), "other", "v1").config] {
        assert_eq!(sha256(&config), sha256(&expected), "{by}");
    }
}

/// A tar with the parts of an image. The entry of its layer is a link to another entry, which comes
/// before or after the link.
fn linked(layer: &Layer, target: &str, link_first: bool) -> Vec<u8> {
    let config = ImageBuilder::new(vec![layer.clone()]).config();
    let manifest = json!([{ "Config": "c.json", "RepoTags": null, "Layers": ["a/layer.tar"] }]);
    let mut tar = tar::Builder::new(Vec::new());
    let header = |size: usize| {
        let mut header = tar::Header::new_gnu();
        header.set_size(size as u64);
        header.set_mode(0o644);
        header
    };
    let link = |tar: &mut tar::Builder<Vec<u8>>| {
        let mut header = header(0);
        header.set_entry_type(tar::EntryType::Symlink);
        tar.append_link(&mut header, "a/layer.tar", target).expect("a link");
    };
    if link_first {
        link(&mut tar);
    }
    let manifest = manifest.to_string();
    for (name, content) in [
        ("b/layer.tar", &layer.tar[..]),
        ("c.json", &config),
        ("manifest.json", manifest.as_bytes()),
    ] {
        tar.append_data(&mut header(content.len()), name, content).expect("an entry");
    }
    if !link_first {
        link(&mut tar);
    }
    tar.into_inner().expect("a tar")
}

#[test]
fn a_layer_that_is_a_link_is_what_it_leads_to() {
    let registry = DockerRegistry::plain();
    let dir = TempDir::new().expect("a folder");
    let layer = Layer::random("linked", 3, 30_000);
    let destination = format!("{}/linked:v1", registry.host());
    for (target, link_first) in [("../b/layer.tar", true), ("../b/layer.tar", false)] {
        let tar = linked(&layer, target, link_first);
        let forms = [tar.clone(), gzip(&tar)];
        for bytes in forms {
            let path = archive::write(dir.path(), "linked.tar", &bytes);
            push(text(&path), &destination, &[]).success();
            pull::assert_same_image(&path, registry.host(), "linked", "v1");
            Pushimg::new().stdin(bytes).run(["-", &destination]).success();
            pull::assert_same_image(&path, registry.host(), "linked", "v1");
        }
    }
}

#[test]
fn a_link_that_leads_nowhere_is_named() {
    let registry = DevRegistry::start(Options::default());
    let dir = TempDir::new().expect("a folder");
    let layer = Layer::random("linked", 3, 30_000);
    let destination = format!("{}/linked:v1", registry.host());
    for target in ["../gone/layer.tar", "/etc/passwd", "../../../etc/passwd", "../a/layer.tar"] {
        let tar = linked(&layer, target, true);
        for bytes in [tar.clone(), gzip(&tar)] {
            let path = archive::write(dir.path(), "linked.tar", &bytes);
            push(text(&path), &destination, &[]).exits(3).says("a/layer.tar").says(text(&path));
            let piped = Pushimg::new().stdin(bytes).run(["-", &destination]).exits(3);
            piped.says("a/layer.tar").says("standard input");
        }
    }
    assert_eq!(registry.tag("linked", "v1"), None);
}
