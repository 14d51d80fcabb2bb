//! An image of nix2container is a JSON file that describes its layers. It arrives with the digests
//! that nix2container computed, and layers that the registry has are not made again.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::serve::Serving;
use crate::support::archive::{self, Layer, gzip, sha256, testdata};
use crate::support::proxy::Step;
use crate::support::pull::{self, Pulled, Remote};
use crate::support::run::{Pushimg, push};
use crate::support::{DockerRegistry, FaultProxy};
use serde_json::{Value, json};
use tempfile::TempDir;

const GLIBC: &str = "0c4rhb1w2rzmpyhi5p1x2sjv7rnkwq8g-glibc-2.38";
const APP: &str = "1wz5dnrqdpnhg7a3c3v0k1x9i2r4s6y8-hello-app-1.0";
const ROOT: &str = "2m9a0bq4c7yvl1s8g5hkd3xn6w0jrf2p-root";
const ETC: &str = "3k8j7h6g5f4d3s2a1q0w9r8y7v6i5p4z-etc";

/// The store that `testdata/nix2container.json` was made of, in a folder of its own.
struct Store {
    dir: TempDir,
}

impl Store {
    /// Creates the files. It sets all modes itself, because the digests depend on them.
    fn new() -> Self {
        let store = Self { dir: TempDir::new().expect("a folder") };
        let long = "n".repeat(90);
        store.file(GLIBC, "lib/libc.so.6", 0o555, &noise(9000));
        store.file(GLIBC, "lib/ld.so", 0o555, &noise(1024));
        store.link(GLIBC, "lib/libc.so", "libc.so.6");
        // In the order of their bytes, `lib-extra` and `lib.d` come between `lib` and `lib/ld.so`.
        store.file(GLIBC, "lib-extra", 0o444, b"");
        store.folder(GLIBC, "lib.d", 0o555);
        store.file(GLIBC, "share/doc", 0o444, b"the same file under two names\n");
        fs::hard_link(store.path(GLIBC).join("share/doc"), store.path(GLIBC).join("share/again"))
            .expect("a hard link");
        store.file(GLIBC, "share/é/日本.txt", 0o444, b"not ASCII\n");
        store.file(
            GLIBC,
            &format!("share/{long}/short"),
            0o444,
            b"a long name that can be split\n",
        );
        store.file(GLIBC, &format!("share/{long}{long}"), 0o444, b"one that cannot\n");
        store.link(GLIBC, "share/far", &format!("../{}", "t/".repeat(60)));
        store.file(APP, "bin/hello", 0o555, b"#!/bin/sh\necho \"Don't panic\"\n");
        store.file(APP, "etc/hello.conf", 0o444, b"answer = 42\n");
        store.link(ROOT, "bin/hello", &format!("/nix/store/{APP}/bin/hello"));
        store.file(ROOT, "etc/passwd", 0o444, b"root:x:0:0::/root:/bin/sh\n");
        store.file(ROOT, "etc/shadow", 0o444, b"root:*:1::::::\n");
        store.folder(ROOT, "home/user", 0o755);
        store.file(ETC, "etc/hosts", 0o444, b"127.0.0.1 localhost\n");
        store
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn file(&self, name: &str, file: &str, mode: u32, content: &[u8]) {
        let path = self.path(name).join(file);
        self.folder(
            name,
            Path::new(file).parent().and_then(Path::to_str).expect("a folder"),
            0o755,
        );
        fs::write(&path, content).expect("write a file");
        fs::set_permissions(&path, Permissions::from_mode(mode)).expect("set its mode");
    }

    fn link(&self, name: &str, link: &str, target: &str) {
        self.folder(
            name,
            Path::new(link).parent().and_then(Path::to_str).expect("a folder"),
            0o755,
        );
        symlink(target, self.path(name).join(link)).expect("make a symlink");
    }

    /// Creates a folder with this mode. Its parent folders get mode 0755.
    fn folder(&self, name: &str, folder: &str, mode: u32) {
        let mut path = self.path(name);
        for part in std::iter::once("").chain(folder.split('/')) {
            path.push(part);
            fs::create_dir_all(&path).expect("make a folder");
            fs::set_permissions(&path, Permissions::from_mode(0o755)).expect("set its mode");
        }
        fs::set_permissions(&path, Permissions::from_mode(mode)).expect("set its mode");
    }

    /// The image over this store, as text.
    fn image(&self) -> String {
        let text = fs::read_to_string(testdata("nix2container.json")).expect("the sample");
        text.replace("@STORE@", self.dir.path().to_str().expect("a path in UTF-8"))
    }

    /// The same in a file, which is outside of the store.
    fn write_image(&self, machine: &Pushimg) -> PathBuf {
        archive::write(machine.home(), "image.json", self.image().as_bytes())
    }
}

/// Bytes that are the same for ever: their digests are in the sample.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..len).map(|_| next()).collect()
}

/// Demands that the registry holds the image that nix2container's own Go code makes of the sample.
#[track_caller]
fn assert_sample(pulled: &Pulled) {
    let config = fs::read(testdata("nix2container-config.json")).expect("the sample's config");
    assert_eq!(String::from_utf8_lossy(&pulled.config), String::from_utf8_lossy(&config));
    let sample = fs::read(testdata("nix2container.json")).expect("the sample");
    let sample: Value = serde_json::from_slice(&sample).expect("JSON");
    let listed = sample["layers"].as_array().expect("a list of layers");
    assert_eq!(pulled.layers.len(), listed.len());
    for (layer, listed) in pulled.layers.iter().zip(listed) {
        assert_eq!(layer.diff_id(), listed["diff_ids"]);
    }
}

/// An image with one layer; `layer` has the layer's other fields.
fn image_of(digest: &str, diff_id: &str, layer: Value) -> Value {
    let mut layer = layer;
    layer["digest"] = digest.into();
    layer["diff_ids"] = diff_id.into();
    json!({"version": 1, "image-config": {}, "arch": "amd64", "created": null, "layers": [layer]})
}

#[test]
fn an_image_arrives_with_the_digests_that_nix2container_gave_it() {
    let registry = DockerRegistry::plain();
    let (store, machine) = (Store::new(), Pushimg::new());
    let image = store.write_image(&machine);
    let output = push(&image, &format!("{}/n2c:v1", registry.host()), &[]).success();
    let pulled = pull::oci(registry.host(), "n2c", "v1");
    assert_eq!(output.digest(), pulled.digest);
    assert_sample(&pulled);
    // skopeo and podman check each blob's digest and each layer's diff ID. podman also unpacks the
    // image.
    pull::skopeo(registry.host(), "n2c", "v1");
    let id = pull::podman(registry.host(), "n2c", "v1");
    assert_eq!(format!("sha256:{id}"), sha256(&pulled.config));
}

#[test]
fn it_is_served_with_the_same_layers() {
    let (store, machine) = (Store::new(), Pushimg::new());
    let image = store.write_image(&machine);
    for compression in ["none", "zstd"] {
        let named = format!("{}=n2c:v1", archive::text(&image));
        let serving = Serving::start(&machine, &[&named], &["--compression", compression]);
        assert_sample(&pull::oci(serving.host.clone(), "n2c", "v1"));
        pull::skopeo(serving.host.clone(), "n2c", "v1");
    }
}

#[test]
fn the_image_may_come_from_standard_input() {
    let registry = DockerRegistry::plain();
    let store = Store::new();
    let destination = format!("{}/n2c:v1", registry.host());
    Pushimg::new().stdin(store.image()).run(["-", &destination]).success();
    assert_sample(&pull::oci(registry.host(), "n2c", "v1"));
}

#[test]
fn layers_that_the_registry_has_are_neither_made_nor_looked_for() {
    let registry = DockerRegistry::plain();
    let proxy = FaultProxy::before(registry.addr());
    let (store, machine) = (Store::new(), Pushimg::new());
    let image = store.write_image(&machine);
    push(&image, &format!("{}/n2c:latest", proxy.host()), &[]).success();
    drop(store);
    proxy.clear();
    push(&image, &format!("{}/n2c:v2", proxy.host()), &[]).success();
    assert_sample(&pull::oci(registry.host(), "n2c", "v2"));
    let asked = proxy.records();
    let blobs = asked.iter().filter(|record| record.step == Step::BlobHead).count();
    assert_eq!(blobs, 5, "one HEAD for each layer, one for the config");
    let uploads = [Step::UploadPost, Step::UploadPatch, Step::UploadPut];
    assert!(!asked.iter().any(|record| uploads.contains(&record.step)), "{asked:?}");
}

#[test]
fn a_layer_that_has_become_another_is_refused_by_its_store_path() {
    let registry = DockerRegistry::plain();
    let (store, machine) = (Store::new(), Pushimg::new());
    let image = store.write_image(&machine);
    let path = store.path(APP).to_str().expect("a path in UTF-8").to_owned();

    // Of the same length.
    store.file(APP, "etc/hello.conf", 0o444, b"answer = 43\n");
    push(&image, &format!("{}/n2c:v1", registry.host()), &[])
        .exits(3)
        .says("image.json: layer 2, entry ")
        .says(&path)
        .says("but the image's config lists sha256:");
    // Only a mode.
    store.file(APP, "etc/hello.conf", 0o644, b"answer = 42\n");
    push(&image, &format!("{}/n2c:v1", registry.host()), &[]).exits(3).says(&path);
    // Of another length.
    store.file(APP, "etc/hello.conf", 0o444, &noise(600));
    push(&image, &format!("{}/n2c:v1", registry.host()), &[])
        .exits(3)
        .says(&path)
        .says("is 6656 bytes long, but the file says 6144")
        .says("nix-store --verify --check-contents");
    assert_eq!(registry.tag("n2c", "v1"), None);
}

#[test]
fn a_store_path_that_is_gone_is_named_with_what_brings_it_back() {
    let registry = DockerRegistry::plain();
    let (store, machine) = (Store::new(), Pushimg::new());
    let image = store.write_image(&machine);
    fs::remove_dir_all(store.path(ETC)).expect("remove it");
    let path = store.path(ETC).to_str().expect("a path in UTF-8").to_owned();
    push(&image, &format!("{}/n2c:v1", registry.host()), &[])
        .exits(3)
        .says(&format!("image.json: layer 3 needs {path}, which is not there"))
        .says(&format!("`nix-store --realise {path}`"));
    assert_eq!(registry.tag("n2c", "v1"), None);
}

#[test]
fn a_tar_that_is_ready_is_pushed_as_it_is() {
    let registry = DockerRegistry::plain();
    let layer = Layer::text("base", 1, 20_000);
    let zstd = zstd::encode_all(layer.tar.as_slice(), 3).expect("zstd");
    let machine = Pushimg::new();
    for (number, (media_type, bytes)) in [
        ("application/vnd.oci.image.layer.v1.tar", layer.tar.clone()),
        ("application/vnd.oci.image.layer.v1.tar+gzip", gzip(&layer.tar)),
        ("application/vnd.oci.image.layer.v1.tar+zstd", zstd),
    ]
    .into_iter()
    .enumerate()
    {
        let tar = archive::write(machine.home(), "layer", &bytes);
        // A base image's layers come without their sizes and without a history.
        let listed = json!({"size": 0, "mediatype": media_type, "layer-path": tar, "History": {}});
        let image = image_of(&sha256(&bytes), &layer.diff_id(), listed.clone());
        let image = archive::write(machine.home(), "image.json", image.to_string().as_bytes());
        let repository = format!("ready/n{number}");
        push(&image, &format!("{}/{repository}:v1", registry.host()), &[]).success();
        let pulled = pull::oci(registry.host(), &repository, "v1");
        assert_eq!(pulled.layers[0].diff_id(), layer.diff_id());
        if number > 0 {
            assert_eq!(pulled.layers[0].digest, sha256(&bytes));
            assert_eq!(pulled.layers[0].media_type.ends_with("zstd"), number == 2);
        }

        // A JSON file with a wrong blob digest, although the tar is correct.
        let other = image_of(&sha256(b"another"), &layer.diff_id(), listed);
        let other = archive::write(machine.home(), "other.json", other.to_string().as_bytes());
        push(&other, &format!("{}/other/n{number}:v1", registry.host()), &[])
            .exits(3)
            .says(if number > 0 { "but the file says sha256:" } else { "should be its diff ID" })
            .says("other.json: layer 1, of \"");
        assert_eq!(registry.tag(&format!("other/n{number}"), "v1"), None);
    }
    let gone = json!({
        "size": 9, "layer-path": "/nix/store/none-layers.json/x.tar",
        "mediatype": "application/vnd.oci.image.layer.v1.tar",
    });
    let gone = image_of(&layer.diff_id(), &layer.diff_id(), gone);
    let gone = archive::write(machine.home(), "gone.json", gone.to_string().as_bytes());
    push(&gone, &format!("{}/gone:v1", registry.host()), &[])
        .exits(3)
        .says("gone.json: layer 1 needs /nix/store/none-layers.json/x.tar, which is not there")
        .says("`nix-store --realise /nix/store/none-layers.json`");
}

#[test]
fn a_layer_that_occurs_twice_is_made_and_sent_once() {
    let registry = DockerRegistry::plain();
    let proxy = FaultProxy::before(registry.addr());
    let (store, machine) = (Store::new(), Pushimg::new());
    let mut image: Value = serde_json::from_str(&store.image()).expect("JSON");
    let first = image["layers"][0].clone();
    image["layers"].as_array_mut().expect("a list").push(first);
    let image = archive::write(machine.home(), "image.json", image.to_string().as_bytes());
    push(&image, &format!("{}/n2c:v1", proxy.host()), &[]).success();
    let pulled = pull::try_oci(&Remote::new(registry.host()), "n2c", "v1").expect("the image");
    let digests: Vec<_> = pulled.layers.iter().map(|layer| &layer.digest).collect();
    assert_eq!((digests.len(), digests[4]), (5, digests[0]));
    let uploads = proxy.records().iter().filter(|record| record.step == Step::UploadPut).count();
    assert_eq!(uploads, 5, "four layers and the config");
}

#[test]
fn a_pipe_or_a_device_in_place_of_a_layer_is_named_and_not_read() {
    let registry = DockerRegistry::plain();
    let machine = Pushimg::new();
    let pipe = machine.home().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().expect("run mkfifo").success());
    let socket = machine.home().join("tree/socket");
    std::fs::create_dir(machine.home().join("tree")).expect("a folder");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).expect("a socket");
    let media_type = "application/vnd.oci.image.layer.v1.tar";
    let (digest, tree) = (sha256(b""), machine.home().join("tree"));
    for (layer, path, said) in [
        (json!({"layer-path": pipe}), pipe.as_path(), "not a regular file"),
        (json!({"layer-path": "/dev/zero"}), Path::new("/dev/zero"), "not a regular file"),
        (json!({"paths": [{"path": pipe}]}), &pipe, "neither a file nor a directory nor a symlink"),
        (json!({"paths": [{"path": tree}]}), &socket, "neither a file nor a directory nor a"),
    ] {
        for size in [0, 1_u64 << 40] {
            let mut layer = layer.clone();
            layer["size"] = size.into();
            layer["mediatype"] = media_type.into();
            let image = image_of(&digest, &digest, layer).to_string();
            let image = archive::write(machine.home(), "image.json", image.as_bytes());
            push(&image, &format!("{}/app:v1", registry.host()), &[])
                .exits(3)
                .says(path.to_str().expect("UTF-8"))
                .says(said);
        }
    }
}

#[test]
fn a_ready_tar_is_read_no_further_than_was_announced() {
    let registry = DockerRegistry::plain();
    let machine = Pushimg::new();
    let layer = Layer::text("base", 1, 20_000);
    let path = machine.home().join("layer.tar");
    let file = std::fs::File::create(&path).expect("a file");
    // It would take minutes to read, and no room on the disk.
    file.set_len(1 << 40).expect("a file with holes");
    let listed = json!({
        "size": layer.tar.len(), "layer-path": path,
        "mediatype": "application/vnd.oci.image.layer.v1.tar",
    });
    let image = image_of(&layer.diff_id(), &layer.diff_id(), listed).to_string();
    let image = archive::write(machine.home(), "image.json", image.as_bytes());
    push(&image, &format!("{}/app:v1", registry.host()), &[])
        .exits(3)
        .says(&format!("is 1099511627776 bytes long, but the file says {}", layer.tar.len()));
}
