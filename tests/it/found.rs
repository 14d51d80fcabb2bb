//! Archives and layouts as they occur in practice: unusual compressions, names and folders, an
//! `index.json` that lists the platforms itself, configs of other images, and programs and pipes
//! that never end.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::support::DockerRegistry;
use crate::support::archive::{self, ImageBuilder, Layer, gzip, sha256, tar_of, testdata};
use crate::support::layout::{Layout, digest_of};
use crate::support::nix_store::executable;
use crate::support::pull::{self, PulledLayer};
use crate::support::registry::{DevRegistry, Options};
use crate::support::run::{Output, Pushimg, program};
use serde_json::{Value, json};
use tempfile::TempDir;

fn text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

fn push(image: &str, destination: &str) -> Output {
    Pushimg::new().limit(Duration::from_secs(60)).run([image, destination])
}

/// Pushes what cannot be pushed: exit code 3, and nothing was sent.
#[track_caller]
fn refused(image: &str) -> Output {
    let registry = DevRegistry::start(Options::default());
    let output = push(image, &format!("{}/app:v1", registry.host())).exits(3);
    let counters = registry.counters();
    assert_eq!((counters.uploads, counters.manifest_puts), (0, 0), "{output}");
    output
}

/// Pushes what proves wrong while it is read: exit code 3, and nothing was tagged.
#[track_caller]
fn fails(image: &str) -> Output {
    let registry = DevRegistry::start(Options::default());
    let output = push(image, &format!("{}/app:v1", registry.host())).exits(3);
    assert_eq!(registry.counters().manifest_puts, 0, "{output}");
    output
}

/// Demands that skopeo and the oci-client crate find an image whose layers are those of its config.
#[track_caller]
fn assert_readable(host: &str, tag: &str) {
    pull::skopeo(host, "app", tag);
    let pulled = pull::oci(host, "app", tag);
    let config: Value = serde_json::from_slice(&pulled.config).expect("a config");
    let diff_ids: Vec<String> = pulled.layers.iter().map(PulledLayer::diff_id).collect();
    assert_eq!(json!(diff_ids), config["rootfs"]["diff_ids"]);
}

/// A folder, and an image with a layer that is stored as another program compressed it.
fn archive_of(dir: &Path, stored: &[u8], diff_id: &str) -> PathBuf {
    let config = json!({ "os": "linux", "architecture": "amd64",
        "rootfs": { "type": "layers", "diff_ids": [diff_id] } });
    let manifest =
        json!([{ "Config": "c.json", "RepoTags": ["app:v1"], "Layers": ["l/layer.tar"] }]);
    let (config, manifest) = (config.to_string(), manifest.to_string());
    let files = [
        ("l/layer.tar", stored),
        ("c.json", config.as_bytes()),
        ("manifest.json", manifest.as_bytes()),
    ];
    archive::write(dir, "image.tar", &tar_of(&files))
}

fn compressed(program: &str, bytes: &[u8]) -> Vec<u8> {
    let dir = TempDir::new().expect("a folder");
    let path = archive::write(dir.path(), "layer", bytes);
    let output = Command::new(program).arg("-c").arg(&path).output().expect("a compressor");
    assert!(output.status.success());
    output.stdout
}

#[test]
fn layers_that_no_registry_takes_are_packed_anew() {
    let registry = DockerRegistry::plain();
    let dir = TempDir::new().expect("a folder");
    let layer = Layer::text("layer", 1, 300_000);
    for compressor in ["xz", "bzip2"] {
        let stored = compressed(compressor, &layer.tar);
        let plain = archive_of(dir.path(), &stored, &sha256(&layer.tar));
        let packed = gzip(&fs::read(&plain).expect("an archive"));
        let packed = archive::write(dir.path(), "image.tar.gz", &packed);
        for (number, archive) in [plain, packed].iter().enumerate() {
            let tag = format!("{compressor}-{number}");
            push(text(archive), &format!("{}/app:{tag}", registry.host())).success();
            assert_readable(&registry.host(), &tag);
        }
        // A damaged layer, and a layer whose diff ID is not in the config.
        let damaged = archive::corrupted(&stored, stored.len() / 2);
        let archive = archive_of(dir.path(), &damaged, &sha256(&layer.tar));
        fails(text(&archive)).says("layer \"l/layer.tar\" is corrupt").says(text(&archive));
        let archive = archive_of(dir.path(), &stored, &sha256(b"another"));
        fails(text(&archive)).says("but the image's config lists");
    }
    push(text(&testdata("xz-layer.tar")), &format!("{}/app:xz", registry.host())).success();
    assert_readable(&registry.host(), "xz");
}

#[test]
fn zeros_behind_a_gzip_layer_are_no_part_of_its_blob() {
    let registry = DockerRegistry::plain();
    let dir = TempDir::new().expect("a folder");
    let host = registry.host();
    push(text(&testdata("gzip-layer-zero-padding.tar")), &format!("{host}/app:v1")).success();
    assert_readable(&host, "v1");
    let layer = Layer::random("layer", 1, 3 << 20);
    let stored = gzip(&layer.tar);
    for padding in [1, 512, 2 << 20] {
        let padded = [stored.clone(), vec![0; padding]].concat();
        let archive = archive_of(dir.path(), &padded, &sha256(&layer.tar));
        push(text(&archive), &format!("{host}/app:{padding}")).success();
        assert_readable(&host, &padding.to_string());
        let pulled = pull::oci(&host, "app", &padding.to_string());
        assert_eq!(pulled.layers[0].digest, sha256(&stored));
    }
    let other = [stored, vec![0; 512], b"other".to_vec()].concat();
    let archive = archive_of(dir.path(), &other, &sha256(&layer.tar));
    fails(text(&archive)).says("begin as gzip and cannot be decompressed");
}

#[test]
fn a_window_as_zstd_itself_reads_it_is_read() {
    let registry = DockerRegistry::plain();
    let archive = testdata("zstd-long-window-128-mib.tar.zst");
    push(text(&archive), &format!("{}/app:v1", registry.host())).success();
    assert_readable(&registry.host(), "v1");
    let dir = TempDir::new().expect("a folder");
    let tar = ImageBuilder::new(vec![Layer::text("layer", 1, 300_000)]).tar();
    let plain = archive::write(dir.path(), "long.tar", &tar);
    program("zstd", ["-q", "--long=27", text(&plain)]);
    let archive = dir.path().join("long.tar.zst");
    push(text(&archive), &format!("{}/app:v2", registry.host())).success();
    assert_readable(&registry.host(), "v2");
}

#[test]
fn a_folder_that_holds_images_names_them() {
    let dir = TempDir::new().expect("a folder");
    let archive = ImageBuilder::new(vec![Layer::file("a", b"a")]).write(dir.path(), "image.tar");
    fs::write(dir.path().join("README"), "hello").expect("a file");
    let said = refused(text(dir.path()));
    said.says(&format!("is a directory; give the image in it: {}", archive.display()));
    let layout = dir.path().join("layout");
    fs::create_dir(&layout).expect("a folder");
    fs::write(layout.join("oci-layout"), "{}").expect("a file");
    let both = format!("one of the images in it: {}, {}", archive.display(), layout.display());
    refused(text(dir.path())).says(&both);
    for copy in 1..5 {
        fs::copy(&archive, dir.path().join(format!("{copy}.tar"))).expect("a copy");
    }
    refused(text(dir.path())).says("give one of the images in it: ").says(" and 1 more");
}

#[test]
fn an_archive_that_was_unpacked_is_called_that() {
    let dir = TempDir::new().expect("a folder");
    let archive = ImageBuilder::new(vec![Layer::file("a", b"a")]).write(dir.path(), "image.tar");
    let folder = dir.path().join("unpacked");
    fs::create_dir(&folder).expect("a folder");
    program("tar", ["-C", text(&folder), "-xf", text(&archive)]);
    let packing = format!("tar -C {} -cf image.tar .", folder.display());
    refused(text(&folder)).says("a docker archive that was unpacked").says(&packing);
    program("tar", ["-C", text(&folder), "-cf", text(&archive), "."]);
    let registry = DockerRegistry::plain();
    push(text(&archive), &format!("{}/app:v1", registry.host())).success();
    assert_readable(&registry.host(), "v1");
}

#[test]
fn the_name_of_a_transport_is_to_be_left_off() {
    let dir = TempDir::new().expect("a folder");
    let archive = ImageBuilder::new(vec![Layer::file("a", b"a")]).write(dir.path(), "image.tar");
    for transport in ["docker-archive:", "oci-archive:", "oci:", "dir:"] {
        let image = format!("{transport}{}", archive.display());
        let said = refused(&image);
        said.says(&format!("leave off the {transport} and give {}", archive.display()));
    }
    refused("docker-daemon:app:v1").says("`docker save app:v1 | pushimg - DEST`");
}

#[test]
fn old_archives_and_archives_in_a_folder_are_named_as_such() {
    let dir = TempDir::new().expect("a folder");
    let layer = Layer::file("a", b"a").tar;
    let id = "0".repeat(64);
    let files = [
        (format!("{id}/VERSION"), b"1.0".to_vec()),
        (format!("{id}/json"), b"{}".to_vec()),
        (format!("{id}/layer.tar"), layer.clone()),
        ("repositories".to_owned(), b"{}".to_vec()),
    ];
    let files: Vec<(&str, &[u8])> = files.iter().map(|(name, it)| (&**name, &**it)).collect();
    let old = tar_of(&files);
    let nested = tar_of(&[("image/l.tar", &layer), ("image/manifest.json", b"[]")]);
    for (bytes, said) in [
        (old, "is a docker archive of the format before Docker 1.10"),
        (nested, "has its image in the folder \"image\""),
    ] {
        let plain = archive::write(dir.path(), "image.tar", &bytes);
        refused(text(&plain)).says(said);
        let packed = archive::write(dir.path(), "image.tar.gz", &gzip(&bytes));
        refused(text(&packed)).says(said);
    }
}

#[test]
fn an_index_that_lists_the_platforms_itself_is_pushed_as_one_index() {
    let layout = Layout::of(testdata("layout-top-level-platforms"));
    let path = text(layout.path());
    let registry = DockerRegistry::plain();
    let host = registry.host();
    let index = fs::read(layout.path().join("index.json")).expect("an index");
    push(path, &format!("{host}/app:v1")).success();
    let raw = program(
        "skopeo",
        ["inspect", "--raw", "--tls-verify=false", &format!("docker://{host}/app:v1")],
    );
    assert_eq!(raw.as_bytes(), index, "the index as it is stored");
    for architecture in ["amd64", "arm64"] {
        let dir = TempDir::new().expect("a folder");
        let to = format!("dir:{}", dir.path().join("image").display());
        program(
            "skopeo",
            [
                "--override-arch",
                architecture,
                "copy",
                "-q",
                "--src-tls-verify=false",
                &format!("docker://{host}/app:v1"),
                &to,
            ],
        );
    }
    // As part of another index, and one platform of it.
    Pushimg::new().run(["--index", &format!("{host}/app:v2"), path]).success();
    let raw = program(
        "skopeo",
        ["inspect", "--raw", "--tls-verify=false", &format!("docker://{host}/app:v2")],
    );
    let index: Value = serde_json::from_str(&raw).expect("an index");
    assert_eq!(index["manifests"].as_array().map(Vec::len), Some(2), "{index}");
    let one = [path, &format!("{host}/app:one"), "--platform", "linux/arm64"];
    Pushimg::new().run(one).success();
    assert_readable(&host, "one");
    let shown = Pushimg::new().run(["inspect", path]).success().stdout;
    assert!(shown.contains("linux/arm64") && shown.contains("linux/amd64"), "{shown}");
}

#[test]
fn an_attestation_beside_an_image_is_no_second_image() {
    let registry = DevRegistry::start(Options::default());
    let dir = TempDir::new().expect("a folder");
    let layout = Layout::new(dir.path().join("layout"));
    let mut image = layout.image("amd64", &[Layer::file("a", b"a")]);
    image["platform"] = json!({ "os": "linux", "architecture": "amd64" });
    let attestation = layout.attestation(&image);
    let destination = format!("{}/app:v1", registry.host());
    // Together they are one index, as buildx pushes it.
    layout.list(&[(&image, None), (&attestation, None)]);
    push(layout.text(), &destination).success();
    let index = fs::read(layout.path().join("index.json")).expect("an index");
    assert_eq!(registry.tag("app", "v1"), Some(archive::sha256(&index)));
    // If only the image has a name, only the image is pushed.
    layout.list(&[(&image, Some("v1")), (&attestation, None)]);
    push(layout.text(), &destination).success();
    assert_eq!(registry.tag("app", "v1"), Some(digest_of(&image)));
}

#[test]
fn of_a_layout_for_several_platforms_an_index_takes_the_one_that_is_said() {
    let layout = testdata("layout-top-level-platforms");
    let registry = DevRegistry::start(Options::default());
    let destination = format!("{}/app:v1", registry.host());
    let arm64 = format!("arm64={}", text(&layout));
    Pushimg::new().run(["--index", &destination, &arm64]).success();
    let raw = program(
        "skopeo",
        ["inspect", "--raw", "--tls-verify=false", &format!("docker://{destination}")],
    );
    let index: Value = serde_json::from_str(&raw).expect("an index");
    let platforms: Vec<_> = index["manifests"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|m| &m["platform"]["architecture"])
        .collect();
    assert_eq!(platforms, ["arm64"], "{index}");
    let s390x = format!("s390x={}", text(&layout));
    Pushimg::new()
        .run(["--index", &destination, &s390x])
        .exits(2)
        .says("linux/s390x")
        .says("linux/arm64");
}

#[test]
fn two_forms_of_one_name_are_one_name() {
    let registry = DevRegistry::start(Options::default());
    let dir = TempDir::new().expect("a folder");
    let layout = Layout::new(dir.path().join("layout"));
    let mut image = layout.image("amd64", &[Layer::file("a", b"a")]);
    let name = format!("{}/app", registry.host());
    image["annotations"] = json!({
        "io.containerd.image.name": format!("{name}:latest"),
        "org.opencontainers.image.ref.name": name,
    });
    layout.list(&[(&image, None)]);
    Pushimg::new().run([layout.text()]).success();
    assert_eq!(registry.tag("app", "latest"), Some(digest_of(&image)));
    let archive = ImageBuilder::new(vec![Layer::file("a", b"a")]);
    let archive = archive.repo_tags(&[&name, &format!("{name}:latest")]);
    Pushimg::new().run([text(&archive.write(dir.path(), "image.tar"))]).success();
    assert_ne!(registry.tag("app", "latest"), Some(digest_of(&image)));
}

#[test]
fn a_config_of_another_image_is_refused_before_anything_is_sent() {
    let few = testdata("layout-diff-ids-do-not-fit/few");
    refused(text(&few)).says("lists 2 layers, but its config has 1 diff IDs");
    let wrong = testdata("layout-diff-ids-do-not-fit/wrong");
    refused(text(&wrong)).says("has the diff ID sha256:").says("but the config lists sha256:");
}

#[test]
fn a_layer_that_is_nowhere_makes_a_layout_incomplete() {
    let dir = TempDir::new().expect("a folder");
    let layout = Layout::new(dir.path().join("layout"));
    let image = layout.image("amd64", &[Layer::file("a", b"a")]);
    let mut manifest = layout.read(&digest_of(&image));
    let foreign = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip";
    manifest["layers"][0]["mediaType"] = json!(foreign);
    let layer = digest_of(&manifest["layers"][0]);
    fs::remove_file(layout.blob_path(&layer)).expect("a blob");
    let image =
        layout.blob("application/vnd.oci.image.manifest.v1+json", manifest.to_string().as_bytes());
    layout.list(&[(&image, None)]);
    refused(layout.text()).says(&layer).says("which is missing; the layout is incomplete");
}

#[test]
fn what_never_ends_is_given_up() {
    let dir = TempDir::new().expect("a folder");
    let archive = ImageBuilder::new(vec![Layer::file("a", b"a")]).write(dir.path(), "image.tar");
    let endless = dir.path().join("endless");
    executable(&endless, &format!("#!/bin/sh\ncat {}\nexec cat /dev/zero\n", archive.display()));
    fails(text(&endless)).says("more than 64 MiB follow the end of the archive");
    let packed = dir.path().join("packed");
    let script = "#!/bin/sh\ngzip -c {}\nexec cat /dev/zero\n";
    executable(&packed, &script.replace("{}", text(&archive)));
    fails(text(&packed)).says("more than 64 MiB of the gzip data hold nothing");
    refused("/dev/zero").says("more than 64 MiB follow the end of the archive");
}

#[test]
fn pipes_and_devices_in_a_layout_are_not_read() {
    let dir = TempDir::new().expect("a folder");
    let layout = Layout::new(dir.path().join("layout"));
    let image = layout.image("amd64", &[Layer::file("a", b"a")]);
    layout.list(&[(&image, None)]);
    let manifest = layout.read(&digest_of(&image));
    let layer = layout.blob_path(&digest_of(&manifest["layers"][0]));
    for path in [layer, layout.path().join("index.json")] {
        fs::remove_file(&path).expect("a file");
        program("mkfifo", [text(&path)]);
        let said = refused(layout.text());
        assert!(!said.stderr.contains("permissions"), "{said}");
        said.says("it is not a regular file but a pipe");
        fs::remove_file(&path).expect("a pipe");
        std::os::unix::fs::symlink("/dev/zero", &path).expect("a link");
        refused(layout.text()).says("it is not a regular file but a device");
    }
}
