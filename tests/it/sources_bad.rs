//! Sources that are broken or contradict themselves, with one case for each possible fault: the
//! exit code, the words, and the tag as it was.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::support::archive::{self, ImageBuilder, Layer, gzip, sha256, tar_of, text};
use crate::support::layout::{INDEX, Layout, digest_of};
use crate::support::nix_store::{Streamed, executable};
use crate::support::pull;
use crate::support::registry::{DevRegistry, Options};
use crate::support::run::{Output, Pushimg};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A registry with an image under `app:v1`, which no failure may change.
struct Scene {
    registry: DevRegistry,
    before: Option<String>,
    dir: TempDir,
}

impl Scene {
    fn new() -> Self {
        let registry = DevRegistry::start(Options::default());
        let dir = TempDir::new().expect("a folder");
        let image = ImageBuilder::new(vec![Layer::file("old", b"old")]);
        let archive = image.write(dir.path(), "old.tar");
        let destination = format!("{}/app:v1", registry.host());
        Pushimg::new().run([text(&archive), &destination]).success();
        let before = registry.tag("app", "v1");
        assert!(before.is_some());
        Self { registry, before, dir }
    }

    fn destination(&self) -> String {
        format!("{}/app:v1", self.registry.host())
    }

    fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        archive::write(self.dir.path(), name, bytes)
    }

    fn program(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        executable(&path, text);
        path
    }

    /// Runs a push that must fail. Asserts this exit code, a short error and nothing else, and that
    /// nothing changed.
    #[track_caller]
    fn fails<S: AsRef<str>>(&self, code: i32, arguments: &[S]) -> Output {
        let arguments = arguments.iter().map(AsRef::as_ref);
        let machine = Pushimg::new().limit(Duration::from_secs(30));
        self.unchanged(machine.run(arguments).exits(code))
    }

    #[track_caller]
    fn unchanged(&self, output: Output) -> Output {
        let output = output.plain().says("error: ");
        assert_eq!(output.stdout, "", "{output}");
        assert!(output.stderr.lines().count() <= 12, "too long to read\n{output}");
        assert_eq!(self.registry.tag("app", "v1"), self.before, "the tag moved\n{output}");
        assert_eq!(self.registry.open_uploads(), 0, "{output}");
        output
    }

    /// The image alone, that cannot be read.
    #[track_caller]
    fn unreadable(&self, image: &Path) -> Output {
        self.fails(3, &[text(image), &self.destination()]).says(text(image))
    }
}

#[test]
fn a_program_that_is_not_nixs_is_run_and_has_to_write_an_image() {
    let scene = Scene::new();
    let hello = scene.program("hello", "#!/bin/sh\necho hello\n");
    scene.unreadable(&hello).says("wrote something else to its standard output");
    let failing = scene.program("failing", "#!/bin/sh\necho 'no space' >&2\nexit 3\n");
    scene.unreadable(&failing).says("failed (exit status: 3)").says("\n  no space");
    let said = scene.fails(3, &[text(&hello), &scene.destination(), "--no-exec"]);
    said.says("--no-exec forbids (it is a script, and not one of Nix's wrappers)");
    let plain = scene.file("plain", b"#!/bin/sh\necho hello\n");
    scene.unreadable(&plain).says("may not be executed").says("chmod +x");
    // The program that this wrapper runs does not exist.
    let gone =
        "#! /bin/sh -e\nexec \"/nix/store/gone-stream\"  /nix/store/gone-conf.json \"$@\" \n";
    scene.unreadable(&scene.program("gone", gone)).says("/nix/store/gone-");
}

#[test]
fn fields_of_a_conf_that_nobody_knows_are_passed_over() {
    let scene = Scene::new();
    let known = Streamed::new(&[]);
    let destination = |name: &str| format!("{}/{name}:v1", scene.registry.host());
    let conf = fs::read_to_string(known.path("conf.json")).expect("a conf");
    let mut conf: Value = serde_json::from_str(&conf).expect("JSON");
    let first = Pushimg::new().run([&known.result(), &destination("one")]).success();
    conf["some new field"] = json!({ "deep": [1, 2.5, null, { "er": true }] });
    fs::write(known.path("conf.json"), conf.to_string()).expect("write a conf");
    let output = Pushimg::new().run([&known.result(), &destination("two"), "--no-exec"]).success();
    assert_eq!(output.digest(), first.digest());
}

#[test]
fn fields_of_a_conf_that_are_missing_or_of_another_kind_are_named() {
    let scene = Scene::new();
    let image = Streamed::new(&[]);
    let whole = fs::read_to_string(image.path("conf.json")).expect("a conf");
    let result = image.path("result");
    let conf = image.path("conf.json");
    for field in [
        "architecture",
        "config",
        "repo_tag",
        "store_layers",
        "customisation_layer",
        "created",
        "mtime",
        "uid",
        "gid",
        "uname",
        "gname",
        "from_image",
    ] {
        for kind in [None, Some(json!(true))] {
            if kind.is_some() && ["uid", "gid"].contains(&field) {
                // Python reads it as a number, so the script would run.
                continue;
            }
            let mut changed: Value = serde_json::from_str(&whole).expect("JSON");
            let fields = changed.as_object_mut().expect("an object");
            let is_missing = kind.is_none();
            match kind {
                None => drop(fields.remove(field)),
                Some(other) => drop(fields.insert(field.to_owned(), other)),
            }
            fs::write(&conf, changed.to_string()).expect("write a conf");
            let output = scene.unreadable(&result).says(text(&conf)).says(&format!("{field:?}"));
            if is_missing {
                output.says(&format!("its field {field:?} is missing"));
            }
        }
    }
    for broken in ["", "{", "[]", "null", "conf"] {
        fs::write(&conf, broken).expect("write a conf");
        scene.unreadable(&result).says(text(&conf)).says("build the image again");
    }
}

#[test]
fn a_store_path_that_is_gone_is_named_with_the_image_and_how_to_have_it_back() {
    let scene = Scene::new();
    let gone = format!("/nix/store/{}-gone-1.0", "0".repeat(32));
    for fields in [
        json!({ "store_layers": [[gone]] }),
        json!({ "customisation_layer": gone }),
        json!({ "from_image": gone }),
    ] {
        let image = Streamed::with(&[], &fields);
        let output = scene.unreadable(&image.path("result"));
        output.says(&format!("needs {gone}")).says(&format!("`nix-store --realise {gone}"));
    }
    let image = scene.file(
        "n2c.json",
        json!({
            "version": 1,
            "image-config": {},
            "arch": "amd64",
            "layers": [{
                "digest": sha256(b"layer"),
                "size": 1,
                "diff_ids": sha256(b"layer"),
                "mediatype": "application/vnd.oci.image.layer.v1.tar",
                "paths": [{ "path": gone }],
            }],
        })
        .to_string()
        .as_bytes(),
    );
    scene.unreadable(&image).says(&gone).says(&format!("`nix-store --realise {gone}`"));
}

#[test]
fn a_layout_with_a_blob_that_is_missing_or_does_not_hash_is_refused() {
    let scene = Scene::new();
    let layout = Layout::new(scene.dir.path().join("layout"));
    let image = layout.image("amd64", &[Layer::file("base", b"base")]);
    layout.list(&[(&image, None)]);
    let manifest = layout.read(&digest_of(&image));
    for blob in [&manifest["layers"][0], &manifest["config"], &image] {
        let digest = digest_of(blob);
        let path = layout.blob_path(&digest);
        let whole = fs::read(&path).expect("a blob");
        fs::write(&path, archive::corrupted(&whole, whole.len() / 2)).expect("write a blob");
        scene.unreadable(layout.path()).says(&digest).says("damaged");
        fs::remove_file(&path).expect("remove a blob");
        scene.unreadable(layout.path()).says(&digest).says("missing");
        fs::write(&path, whole).expect("write a blob");
    }
    Pushimg::new().run([layout.text(), &scene.destination()]).success();
}

#[test]
fn an_index_that_lists_itself_or_has_no_end_is_refused() {
    let scene = Scene::new();
    let layout = Layout::new(scene.dir.path().join("circle"));
    // Two indexes that list each other. At least one of them does not match its digest.
    let (one, two) = (sha256(b"one"), sha256(b"two"));
    let listing = |other: &str, size: usize| {
        let other = json!({ "mediaType": INDEX, "digest": other, "size": size });
        json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [other] }).to_string()
    };
    // Each index contains the size of the other one.
    let size = listing(&one, 100).len();
    for (digest, other) in [(&one, &two), (&two, &one)] {
        fs::write(layout.blob_path(digest), listing(other, size)).expect("write an index");
    }
    layout.list(&[(&json!({ "mediaType": INDEX, "digest": one, "size": size }), None)]);
    scene.unreadable(layout.path()).says(&one).says("hashes to");

    let deep = Layout::new(scene.dir.path().join("deep"));
    let mut index = deep.image("amd64", &[Layer::file("base", b"base")]);
    for _ in 0..30 {
        index = deep.index(&[&index]);
    }
    deep.list(&[(&index, None)]);
    scene.unreadable(deep.path()).says("more than 16 indexes one within the other");
    let arguments = [deep.text(), &scene.destination(), "--platform", "amd64"].map(str::to_owned);
    scene.fails(3, &arguments).says("more than 16 indexes one within the other");
}

/// An archive with this `manifest.json`, plain and compressed.
fn archives(scene: &Scene, files: &[(&str, &[u8])], manifest: &Value) -> [PathBuf; 2] {
    let manifest = manifest.to_string();
    let files = [files, &[("manifest.json", manifest.as_bytes())]].concat();
    let tar = tar_of(&files);
    [scene.file("image.tar", &tar), scene.file("image.tar.gz", &gzip(&tar))]
}

/// Pushes the archive from a file and from a pipe, and asserts that both fail with these messages.
#[track_caller]
fn unreadable_however_it_comes(scene: &Scene, archive: &Path, said: &[&str]) {
    let piped = Pushimg::new().limit(Duration::from_secs(30));
    let piped = piped.stdin(fs::read(archive).expect("an archive"));
    let piped = scene.unchanged(piped.run(["-", &scene.destination()]).exits(3));
    for mut output in [scene.unreadable(archive), piped.says("standard input")] {
        for text in said {
            output = output.says(text);
        }
    }
}

#[test]
fn a_manifest_json_that_names_a_file_that_is_not_there_is_refused() {
    let scene = Scene::new();
    let layer = Layer::file("app", b"app");
    let config = ImageBuilder::new(vec![layer.clone()]).config();
    let manifest = |config: &str, layer: &str| json!([{ "Config": config, "RepoTags": null, "Layers": [layer] }]);
    let files: [(&str, &[u8]); 2] = [("l.tar", &layer.tar), ("c.json", &config)];
    for (manifest, absent) in [
        (manifest("c.json", "gone.tar"), "gone.tar"),
        (manifest("gone.json", "l.tar"), "gone.json"),
    ] {
        for archive in archives(&scene, &files, &manifest) {
            let said = [absent, "not in the archive"];
            unreadable_however_it_comes(&scene, &archive, &said);
        }
    }
}

#[test]
fn a_manifest_json_that_names_a_file_twice_has_to_mean_the_same_by_it() {
    let scene = Scene::new();
    let (layer, other) = (Layer::file("app", b"app"), Layer::file("app", b"other"));
    let config = |layers: &[&Layer]| {
        ImageBuilder::new(layers.iter().map(|layer| (*layer).clone()).collect()).config()
    };
    let manifest =
        |layers: &[&str]| json!([{ "Config": "c.json", "RepoTags": null, "Layers": layers }]);
    let tar: &[u8] = &layer.tar;
    // One layer, twice in the image.
    let right = config(&[&layer, &layer]);
    let twice = manifest(&["l.tar", "l.tar"]);
    let destination = format!("{}/twice:v1", scene.registry.host());
    for archive in archives(&scene, &[("l.tar", tar), ("c.json", &right)], &twice) {
        Pushimg::new().run([text(&archive), &destination]).success();
        let pulled = pull::assert_same_image(&archive, scene.registry.host(), "twice", "v1");
        assert_eq!(pulled.layers.len(), 2);
    }
    // One file for two different layers.
    let wrong = config(&[&layer, &other]);
    for archive in archives(&scene, &[("l.tar", tar), ("c.json", &wrong)], &twice) {
        let ids = [&layer, &other].map(Layer::diff_id);
        unreadable_however_it_comes(&scene, &archive, &["l.tar", &ids[1]]);
    }
    // One file that is config and layer.
    let both = json!([{ "Config": "c.json", "RepoTags": null, "Layers": ["c.json"] }]);
    let one = config(&[&layer]);
    for archive in archives(&scene, &[("c.json", &one)], &both) {
        unreadable_however_it_comes(&scene, &archive, &["c.json"]);
    }
    // Two entries with the same name, because the archive was appended to. tar takes the second
    // one.
    let one = config(&[&other]);
    let files = [("l.tar", tar), ("l.tar", &other.tar), ("c.json", &one)];
    let destination = format!("{}/rewritten:v1", scene.registry.host());
    for archive in archives(&scene, &files, &manifest(&["l.tar"])) {
        let output = Pushimg::new().run([text(&archive), &destination]);
        match output.code() {
            // What is pushed is right, or it is refused.
            Some(0) => {
                pull::assert_same_image(&archive, scene.registry.host(), "rewritten", "v1");
            }
            _ => drop(output.exits(3).says("l.tar")),
        }
    }
}

#[test]
fn two_images_for_the_same_destination_are_refused_before_anything_is_read() {
    let scene = Scene::new();
    let requests = scene.registry.counters().requests;
    let destination = scene.destination();
    let (host, _) = destination.split_once('/').expect("a host");
    for arguments in [
        vec![format!("absent={destination}"), format!("also-absent={destination}")],
        vec![format!("a={destination}"), format!("b={host}/b:v1"), format!("c={destination}")],
    ] {
        scene.fails(2, &arguments).says("both go to").says(&destination);
    }
    let list = |list: Value| {
        let file = scene.file("images.json", list.to_string().as_bytes());
        scene.fails(2, &["--file", text(&file)])
    };
    list(json!([{ "image": "a", "destination": destination },
        { "image": "b", "destination": format!("{host}/app:v2"), "tags": ["v1"] }]))
    .says("both go to")
    .says(&destination);
    // Two images in a layout have this destination as their name.
    let layers = [b"one", b"two"].map(|content| Layer::file("app", content));
    let layout = Layout::new(scene.dir.path().join("same"));
    let images = layers.map(|layer| layout.image("amd64", &[layer]));
    let [one, two] = images.each_ref().map(|image| (image, Some(destination.as_str())));
    layout.list(&[one, two]);
    scene.fails(2, &["--all", layout.text()]).says("both go to").says(&destination);
    assert_eq!(scene.registry.counters().requests, requests);
}

#[test]
fn an_index_over_images_of_one_platform_is_refused() {
    let scene = Scene::new();
    let image = |content: &[u8], name: &str| {
        let image = ImageBuilder::new(vec![Layer::file("app", content)]);
        text(&image.write(scene.dir.path(), name)).to_owned()
    };
    let (one, two) = (image(b"one", "one.tar"), image(b"two", "two.tar"));
    let destination = scene.destination();
    let said = scene.fails(2, &["--index", &destination, &one, &two]);
    said.says("two images of the index are for linux/amd64");
    let [first, second] = [&one, &two].map(|path| format!("amd64={path}"));
    let said = scene.fails(2, &["--index", &destination, &first, &second]);
    said.says("two images are for linux/amd64");
    let wrong = format!("arm64={two}");
    let said = scene.fails(2, &["--index", &destination, &one, &wrong]);
    said.says("is an image for linux/amd64, not for linux/arm64");
    // A layout whose index lists both images.
    let layout = Layout::new(scene.dir.path().join("layout"));
    let images = [b"1", b"2"].map(|it| layout.image("amd64", &[Layer::file("app", it)]));
    let index = layout.index(&images.each_ref());
    layout.list(&[(&index, None)]);
    let said = scene.fails(2, &["--index", &destination, layout.text()]);
    said.says(layout.text()).says("two images for linux/amd64");
}
