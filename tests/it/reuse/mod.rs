//! Layers that the registry has are not sent again. Each machine here is new ([`Pushimg::new`] has
//! an empty cache), so all knowledge comes from the registry.

mod untrue;

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::archive::{self, ImageBuilder, Layer, testdata};
use crate::support::proxy::{Answer, Fault, Record, Rule, Step};
use crate::support::pull;
use crate::support::put;
use crate::support::registry::{DevRegistry, Options};
use crate::support::run::{Pushimg, pushed};
use crate::support::{DockerRegistry, FaultProxy};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Why each layer was or was not sent, as `--json` tells.
fn outcomes(report: &Value) -> Vec<String> {
    let layers = report["layers"].as_array().expect("layers");
    layers
        .iter()
        .map(|layer| match (layer["action"].as_str(), layer["why"].as_str()) {
            (Some("reused"), Some(why)) => why.to_owned(),
            (Some(action), None) => action.to_owned(),
            _ => panic!("an action without a reason: {layer}"),
        })
        .collect()
}

fn digests(pulled: &pull::Pulled) -> Vec<String> {
    pulled.layers.iter().map(|layer| layer.digest.clone()).collect()
}

/// A registry in this process, a proxy before it, and an image of three layers.
struct Bench {
    registry: DevRegistry,
    proxy: FaultProxy,
    image: ImageBuilder,
    dir: TempDir,
}

impl Bench {
    fn new() -> Self {
        let registry = DevRegistry::start(Options::default());
        let proxy = FaultProxy::before(registry.addr());
        let image = ImageBuilder::new(vec![
            Layer::text("glibc-2.38", 1, 60_000),
            Layer::random("openssl-3.0", 2, 40_000),
            Layer::file("app-1.0", b"one"),
        ]);
        Self { registry, proxy, image, dir: TempDir::new().expect("a folder") }
    }

    fn archive(&self) -> PathBuf {
        self.image.write(self.dir.path(), "image.tar")
    }

    fn host(&self) -> String {
        self.registry.host()
    }

    fn destination(&self) -> String {
        format!("{}/app:v1", self.proxy.host())
    }

    fn diff_ids(&self) -> Vec<String> {
        self.image.layers.iter().map(Layer::diff_id).collect()
    }

    /// Uploads a gzip blob of a layer, as another tool would make it, and returns its descriptor.
    fn put_layer(&self, layer: &Layer) -> Value {
        let blob = archive::gzip(&layer.tar);
        put::blob(&self.host(), "app", &blob);
        put::descriptor(put::DOCKER_LAYER, &blob)
    }

    fn put_config(&self, config: &[u8]) -> Value {
        put::blob(&self.host(), "app", config);
        put::descriptor(put::DOCKER_CONFIG, config)
    }

    /// Takes two layers of `app:v1` away, though HEADs for them are still answered.
    fn lose_behind_its_back(&self) {
        let pulled = pull::oci(self.host(), "app", "v1");
        for layer in &pulled.layers[..2] {
            assert!(self.registry.remove_blob("app", &layer.digest));
        }
        self.proxy.set_rules(pulled.layers[..2].iter().map(there).collect());
        self.proxy.clear();
    }

    /// Answers GETs through the proxy with this manifest. The registry itself would refuse it.
    fn show(&self, manifest: &Value) {
        let mut answer = Answer::status(200).header("content-type", put::DOCKER_MANIFEST);
        answer.body = manifest.to_string();
        self.proxy.set_rules(vec![Rule::at(Step::ManifestGet, Fault::Answer(answer))]);
    }

    /// Pushes the image through the proxy to `app:v1`, from a machine that knows nothing, and
    /// demands that it is right.
    #[track_caller]
    fn push_right(&self, options: &[&str]) -> Value {
        self.push_tag("v1", options)
    }

    /// Like [`push_right`](Self::push_right), to another tag of `app`.
    #[track_caller]
    fn push_tag(&self, tag: &str, options: &[&str]) -> Value {
        self.proxy.clear();
        let archive = self.archive();
        let all = [&["--json", "-v"], options].concat();
        let output = pushed(&archive, &format!("{}/app:{tag}", self.proxy.host()), &all);
        pull::assert_same_image(&archive, self.host(), "app", tag);
        assert_eq!(self.registry.open_uploads(), 0, "{}", self.proxy.transcript());
        output.json()
    }

    /// Points `latest` at the image of `v1`. A push to a new tag reads `latest` and sends a HEAD
    /// for each blob that it lists.
    fn tag_latest(&self) {
        let pulled = pull::oci(self.host(), "app", "v1");
        let manifest = serde_json::from_slice(&pulled.manifest_bytes).expect("JSON");
        put::tag(&self.host(), "app", "latest", &manifest);
    }
}

#[test]
fn an_unchanged_push_sends_no_blob() {
    let registry = DockerRegistry::plain();
    let proxy = FaultProxy::before(registry.addr());
    for (number, name) in [
        "layered-v1.tar.gz",
        "layered-v1.tar",
        "build-image.tar.gz",
        "docker-save-v24.tar",
        "docker-save-v25.tar",
        "podman-save.tar",
        "bazel-gzip-layers.tar",
    ]
    .into_iter()
    .enumerate()
    {
        let archive = testdata(name);
        let destination = format!("{}/app{number}:v1", proxy.host());
        let first = pushed(&archive, &destination, &[]);
        proxy.clear();
        let second = pushed(&archive, &destination, &["--json"]);
        assert_eq!(second.json()["digest"], first.digest(), "{name}");
        assert_eq!(proxy.body_bytes(|_| true), 0, "{name}\n{}", proxy.transcript());
        let second = second.json();
        assert_eq!(second["config_sent"], false);
        for layer in second["layers"].as_array().expect("layers") {
            assert_eq!(layer["why"], "previous-image", "{layer}");
        }
        // The previous manifest is enough to know that nothing changed. In a stream the config
        // comes last, so pushimg may also read the previous config to know the layers.
        let steps: Vec<Step> = proxy.records().iter().map(|r| r.step).collect();
        let config = usize::from(proxy.count_step(Step::ConfigGet) > 0);
        let expected = [Step::ManifestGet, Step::ConfigGet];
        assert_eq!(steps, expected[..=config], "{name}\n{}", proxy.transcript());
        assert!(config == 0 || name.ends_with(".gz"), "{name}\n{}", proxy.transcript());
    }
}

#[test]
fn of_a_changed_image_the_layer_the_config_and_the_manifest_go_up_and_nothing_else() {
    let registry = DockerRegistry::plain();
    let proxy = FaultProxy::before(registry.addr());
    for (number, suffix) in ["tar", "tar.gz"].into_iter().enumerate() {
        let destination = format!("{}/app{number}:v1", proxy.host());
        pushed(testdata(&format!("layered-v1.{suffix}")), &destination, &[]);
        proxy.clear();
        let archive = testdata(&format!("layered-v2.{suffix}"));
        let report = pushed(&archive, &destination, &["--json", "--no-cache"]).json();
        let pulled =
            pull::assert_same_image(&archive, registry.host(), &format!("app{number}"), "v1");
        let mut expected = vec!["previous-image"; 6];
        expected[4] = "uploaded";
        assert_eq!(outcomes(&report), expected);
        let bodies: Vec<(Step, u64)> = proxy
            .records()
            .iter()
            .filter(|r| r.request_body > 0)
            .map(|r| (r.step, r.request_body))
            .collect();
        let sizes = [
            (Step::UploadPut, pulled.layers[4].size),
            (Step::UploadPut, pulled.config.len() as u64),
            (Step::ManifestPut, pulled.manifest_bytes.len() as u64),
        ];
        assert_eq!(bodies.len(), 3, "{}", proxy.transcript());
        assert!(sizes.iter().all(|size| bodies.contains(size)), "{bodies:?}, not {sizes:?}");
        for layer in &pulled.layers {
            let asked = |r: &Record| r.is(Step::BlobHead) && r.target.ends_with(&layer.digest);
            // pushimg sends no HEAD for a layer that the tag's manifest lists.
            let expected = usize::from(layer.digest == pulled.layers[4].digest);
            assert_eq!(proxy.count(asked), expected, "HEAD for {}", layer.digest);
        }
    }
}

#[test]
fn the_layers_of_a_plain_file_that_are_known_are_not_even_read() {
    let registry = DevRegistry::start(Options::default());
    let dir = TempDir::new().expect("a folder");
    let image =
        ImageBuilder::new(vec![Layer::random("big-1.0", 1, 3_000_000), Layer::file("app", b"1")]);
    let archive = image.write(dir.path(), "image.tar");
    let destination = format!("{}/app:v1", registry.host());
    pushed(&archive, &destination, &[]);
    // pushimg does not read a layer that the registry has, so damage in the archive's copy does not
    // matter.
    let bytes = archive::corrupted(&std::fs::read(&archive).expect("an archive"), 1_500_000);
    let damaged = archive::write(dir.path(), "damaged.tar", &bytes);
    let output = pushed(&damaged, &destination, &[]);
    assert_eq!(registry.tag("app", "v1"), Some(output.digest()));
    pull::assert_same_image(&archive, registry.host(), "app", "v1");
    // A layer that is read is checked.
    let elsewhere = format!("{}/elsewhere:v1", registry.host());
    Pushimg::new().run([damaged.to_str().unwrap(), &elsewhere]).exits(3);
    assert_eq!(registry.tag("elsewhere", "v1"), None);
}

#[test]
fn what_skopeo_pushed_is_reused_as_it_is() {
    let registry = DockerRegistry::plain();
    let proxy = FaultProxy::before(registry.addr());
    for name in ["layered-v1.tar", "layered-v1.tar.gz", "docker-save-v24.tar"] {
        let repository = format!("peer/{}", name.replace('.', "-"));
        pull::skopeo_push(&testdata("layered-v1.tar"), registry.host(), &repository, "v1");
        let theirs = pull::oci(registry.host(), &repository, "v1");
        proxy.clear();
        let destination = format!("{}/{repository}:v1", proxy.host());
        let report = pushed(testdata(name), &destination, &["--json"]).json();
        let ours = pull::assert_same_image(&testdata(name), registry.host(), &repository, "v1");
        assert_eq!(digests(&ours), digests(&theirs), "{name}");
        assert_eq!(outcomes(&report), ["previous-image"; 6], "{name}");
        assert_eq!(proxy.body_bytes(Record::carries_blob), 0, "{name}\n{}", proxy.transcript());
    }
    // They are not what pushimg would have made.
    pushed(testdata("layered-v1.tar"), &format!("{}/own:v1", registry.host()), &[]);
    let own = pull::oci(registry.host(), "own", "v1");
    let theirs = pull::oci(registry.host(), "peer/layered-v1-tar", "v1");
    assert!(digests(&own).iter().all(|digest| !digests(&theirs).contains(digest)));
}

#[test]
fn zstd_layers_of_another_tool_are_reused_where_the_format_can_say_so() {
    let registry = DockerRegistry::plain();
    let dir = TempDir::new().expect("a folder");
    let image = ImageBuilder::new(vec![Layer::text("a-1.0", 1, 50_000), Layer::file("b", b"b")]);
    let archive = image.write(dir.path(), "image.tar");
    let copy = Command::new("skopeo")
        .args(["copy", "--quiet", "--dest-tls-verify=false", "--format", "oci"])
        .args(["--dest-compress-format", "zstd"])
        .arg(format!("docker-archive:{}", archive.display()))
        .arg(format!("docker://{}/z:v1", registry.host()))
        .output()
        .expect("start skopeo");
    assert!(copy.status.success(), "{}", String::from_utf8_lossy(&copy.stderr));
    let theirs = pull::oci(registry.host(), "z", "v1");
    assert!(theirs.layers[0].media_type.ends_with("zstd"), "{}", theirs.layers[0].media_type);
    let destination = format!("{}/z:v1", registry.host());
    let report = pushed(&archive, &destination, &["--json"]).json();
    let ours = pull::assert_same_image(&archive, registry.host(), "z", "v1");
    assert_eq!(digests(&ours), digests(&theirs));
    assert_eq!(outcomes(&report), ["previous-image"; 2]);
    assert_eq!(report["format"], "oci");
    // Docker's format has no name for zstd: then they are packed anew.
    let report = pushed(&archive, &destination, &["--json", "--format", "docker"]).json();
    let ours = pull::assert_same_image(&archive, registry.host(), "z", "v1");
    assert_eq!(outcomes(&report), ["uploaded"; 2]);
    assert!(ours.layers.iter().all(|layer| layer.media_type == put::DOCKER_LAYER));
}

#[test]
fn what_podman_pushed_is_reused_as_it_is() {
    let registry = DockerRegistry::plain();
    let dir = TempDir::new().expect("a folder");
    let podman = |arguments: &[&str]| {
        let output = Command::new("podman")
            .arg("--root")
            .arg(dir.path().join("root"))
            .arg("--runroot")
            .arg(dir.path().join("run"))
            .args(["--storage-driver", "vfs"])
            .args(arguments)
            .output()
            .expect("start podman");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    let archive = testdata("podman-save.tar");
    podman(&["load", "--quiet", "--input", archive.to_str().expect("UTF-8")]);
    let destination = format!("{}/pod:v1", registry.host());
    let name = "registry.fly.io/douglas-adams-quotes:latest";
    podman(&["push", "--quiet", "--tls-verify=false", name, &format!("docker://{destination}")]);
    let theirs = pull::oci(registry.host(), "pod", "v1");
    for name in ["podman-save.tar", "layered-v1.tar.gz"] {
        let report = pushed(testdata(name), &destination, &["--json"]).json();
        assert_eq!(outcomes(&report), ["previous-image"; 6], "{name}");
        let ours = pull::assert_same_image(&testdata(name), registry.host(), "pod", "v1");
        assert_eq!(digests(&ours), digests(&theirs));
    }
}

#[test]
fn a_new_tag_finds_its_predecessor_under_latest() {
    let registry = DockerRegistry::plain();
    let proxy = FaultProxy::before(registry.addr());
    pushed(testdata("layered-v1.tar"), &format!("{}/app:latest", registry.host()), &[]);
    for (name, tag) in [("layered-v2.tar.gz", "commit-1"), ("layered-v2.tar", "commit-2")] {
        proxy.clear();
        let destination = format!("{}/app:{tag}", proxy.host());
        let report = pushed(testdata(name), &destination, &["--json"]).json();
        let why: Vec<_> = outcomes(&report);
        let known = why.iter().filter(|why| *why == "previous-image").count();
        assert_eq!(known, 5, "{why:?}");
        let place = report["layers"][0]["where"].as_str().expect("the image it is in");
        assert_eq!(place, format!("{}/app:latest", proxy.host()));
    }
}

#[test]
fn layers_of_another_repository_are_mounted_where_told() {
    let registry = DockerRegistry::plain();
    let proxy = FaultProxy::before(registry.addr());
    let base = format!("{}/base/image:v1", registry.host());
    pushed(testdata("layered-v1.tar"), &base, &[]);
    for (number, name) in ["layered-v2.tar", "layered-v2.tar.gz"].into_iter().enumerate() {
        proxy.clear();
        let destination = format!("{}/app{number}:v1", proxy.host());
        let from = format!("{}/base/image:v1", proxy.host());
        let options = ["--json", "--reuse-from", &from];
        let dry = pushed(testdata(name), &destination, &[&options[..], &["--dry-run"]].concat());
        assert_eq!(proxy.count(|r| r.method == "POST"), 0, "{}", proxy.transcript());
        let report = pushed(testdata(name), &destination, &options).json();
        let mut expected = vec!["mounted"; 6];
        expected[4] = "uploaded";
        assert_eq!(outcomes(&report), expected);
        assert_eq!(report["layers"][0]["from"], "base/image");
        let mut would = ["would-mount"; 6];
        would[4] = "would-upload";
        assert_eq!(outcomes(&dry.json()), would);
        assert_eq!(dry.json()["bytes_sent"], report["bytes_sent"]);
        assert_eq!(proxy.count(|r| r.is(Step::MountPost) && r.status == Some(201)), 5);
        pull::assert_same_image(&testdata(name), registry.host(), &format!("app{number}"), "v1");
    }
}

#[test]
fn a_mount_that_is_not_done_goes_on_as_an_upload_in_its_session() {
    let registry = DockerRegistry::plain();
    let proxy = FaultProxy::before(registry.addr());
    pushed(testdata("layered-v1.tar"), &format!("{}/base:v1", registry.host()), &[]);
    let refusals = [
        ("202", Fault::RefuseMount),
        ("403", Fault::Answer(Answer::status(403).error("DENIED", "no"))),
        ("405", Fault::refused_method()),
    ];
    for (name, refusal) in refusals {
        proxy.clear();
        proxy.set_rules(vec![Rule::at(Step::MountPost, refusal)]);
        let destination = format!("{}/refused{name}:v1", proxy.host());
        let from = format!("{}/base:v1", proxy.host());
        let archive = testdata("layered-v1.tar");
        let report = pushed(&archive, &destination, &["--json", "--reuse-from", &from]).json();
        assert_eq!(outcomes(&report), ["uploaded"; 6], "{name}");
        let repository = format!("refused{name}");
        pull::assert_same_image(&archive, registry.host(), &repository, "v1");
        assert_eq!(registry.open_uploads(&repository), 0, "{name}\n{}", proxy.transcript());
        if name == "202" {
            let posts = proxy.count_step(Step::UploadPost);
            assert_eq!(posts, 0, "each mount opened a session\n{}", proxy.transcript());
            let mounts = proxy.count_step(Step::MountPost);
            assert_eq!(mounts, 7, "one for each layer and the config\n{}", proxy.transcript());
        }
    }
}

#[test]
fn of_an_index_the_image_of_the_same_platform_is_the_table() {
    let bench = Bench::new();
    let host = bench.host();
    let image = |architecture: &str, layers: &[&Layer]| {
        let descriptors: Vec<Value> = layers.iter().map(|layer| bench.put_layer(layer)).collect();
        let diff_ids: Vec<String> = layers.iter().map(|layer| layer.diff_id()).collect();
        let config = bench.put_config(&put::config_for(architecture, &diff_ids));
        let manifest = put::manifest(config, descriptors);
        let digest = put::tag(&host, "app", architecture, &manifest);
        json!({
            "mediaType": put::DOCKER_MANIFEST,
            "digest": digest,
            "size": manifest.to_string().len(),
            "platform": { "os": "linux", "architecture": architecture },
        })
    };
    let [glibc, openssl, app] = [0, 1, 2].map(|index| &bench.image.layers[index]);
    // The other platform's image lists the layer too, in a blob that must not be taken.
    let arm = image("arm64", &[app]);
    let amd = image("amd64", &[glibc, openssl]);
    let index = |entries: Vec<Value>| json!({ "schemaVersion": 2, "mediaType": put::DOCKER_LIST, "manifests": entries });
    put::tag(&host, "app", "v1", &index(vec![arm.clone(), amd.clone()]));
    let report = bench.push_right(&[]);
    assert_eq!(outcomes(&report), ["previous-image", "previous-image", "uploaded"]);

    // The platform's image is gone or never existed: nothing is reused, and nothing breaks.
    let mut gone = amd;
    gone["digest"] = json!(arm["digest"]);
    put::tag(&host, "app", "v1", &index(vec![arm.clone()]));
    let report = bench.push_right(&[]);
    assert_eq!(outcomes(&report)[..2], ["uploaded"; 2]);
    let entries = vec![arm, gone.clone()];
    put::tag(&host, "app", "v1", &index(entries));
    let gone = gone["digest"].as_str().expect("a digest").to_owned();
    bench.proxy.set_rules(vec![Rule::at(Step::ManifestGet, Fault::status(404)).path(&gone)]);
    bench.push_right(&[]);
}

#[test]
fn layers_that_are_there_in_another_compression_are_kept_and_counted() {
    let registry = DockerRegistry::plain();
    for (number, suffix) in ["tar", "tar.gz"].into_iter().enumerate() {
        let repository = format!("kept{number}");
        let destination = format!("{}/{repository}:v1", registry.host());
        let options = ["--json", "--compression", "zstd"];
        pushed(testdata(&format!("layered-v1.{suffix}")), &destination, &[]);
        let archive = testdata(&format!("layered-v2.{suffix}"));
        let output = pushed(&archive, &destination, &options).says(", 5 kept as gzip");
        let report = output.json();
        let pulled = pull::assert_same_image(&archive, registry.host(), &repository, "v1");
        assert_eq!(report["compression"], "zstd", "as asked for");
        let layers = report["layers"].as_array().expect("layers");
        for (place, (told, held)) in layers.iter().zip(&pulled.layers).enumerate() {
            let compression = if place == 4 { "zstd" } else { "gzip" };
            assert_eq!(told["compression"], compression, "{told}");
            assert!(held.media_type.ends_with(compression), "{place}: {}", held.media_type);
        }
        // A second push uploads nothing and keeps each layer's compression, with either option.
        let again = pushed(&archive, &destination, &options).says(", 5 kept as gzip");
        assert_eq!(again.json()["digest"], report["digest"]);
        let gzip = pushed(&archive, &destination, &["--json"]).says(", 1 kept as zstd");
        assert_eq!(gzip.json()["compression"], "gzip");
    }
}

/// A HEAD that is answered as if the blob were there.
fn there(layer: &pull::PulledLayer) -> Rule {
    let answer = Answer::status(200)
        .header("content-length", &layer.size.to_string())
        .header("docker-content-digest", &layer.digest);
    Rule::at(Step::BlobHead, Fault::Answer(answer)).path(&layer.digest)
}

#[test]
fn every_push_tells_what_it_changes() {
    let registry = DockerRegistry::plain();
    let [old, new] = ["layered-v1.tar.gz", "layered-v2.tar.gz"].map(testdata);
    let summary = tempfile::NamedTempFile::new().expect("a file");
    for format in ["docker", "oci"] {
        let destination = format!("{}/changes:{format}", registry.host());
        let push = |image: &Path, more: &[&str]| {
            let image = archive::text(image);
            let arguments = [image, &destination, "--format", format, "--no-cache"];
            Pushimg::new().run(arguments.iter().chain(more)).success()
        };
        push(&old, &[]).never_says("changed:");
        push(&old, &[]).never_says("changed:");
        let report = push(&new, &["--json", "--dry-run"]).json();
        assert_eq!(report["changes"]["layers_added"], 1, "{report}");
        let told = push(&new, &["--summary", archive::text(summary.path())]);
        if format == "docker" {
            told.says("changed: hello-app 1.0 → 1.1");
            assert_eq!(report["changes"]["packages"][0]["name"], "hello-app", "{report}");
        } else {
            // The manifest alone tells the layers. The config that names the packages is read
            // beside the uploads, and may come too late.
            told.says("changed: ");
        }
    }
    // A layout, too.
    let layout = tempfile::tempdir().expect("a folder");
    let to = format!("oci:{}", layout.path().display());
    let from = format!("docker-archive:{}", testdata("layered-v1.tar").display());
    let copied = std::process::Command::new("skopeo").args(["copy", "-q", &from, &to]).status();
    assert!(copied.expect("run skopeo").success());
    let destination = format!("{}/changes:oci", registry.host());
    let told = Pushimg::new().run([archive::text(layout.path()), &destination]).success();
    told.says("changed: ");
    let text = std::fs::read_to_string(summary.path()).expect("a summary");
    assert!(text.contains("| changed | hello-app 1.0 → 1.1 |"), "{text}");
}
