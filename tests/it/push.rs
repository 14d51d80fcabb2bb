//! One command pushes an image of any program's archive, and the image that is read back is the
//! same.

use std::collections::HashSet;
use std::path::Path;
use std::process::Command;

use crate::support::archive::{self, ImageBuilder, Layer, sha256, tar_of, testdata};
use crate::support::proxy::{Answer, Fault, Record, Rule, Step};
use crate::support::pull::{self, Pulled};
use crate::support::run::{Pushimg, pushed};
use crate::support::{DockerRegistry, FaultProxy};
use serde_json::Value;
use tempfile::TempDir;

/// Every docker archive in `testdata/` that holds one image.
const ARCHIVES: [&str; 13] = [
    "layered-v1.tar",
    "layered-v1.tar.gz",
    "layered-v1.tar.zst",
    "layered-v1.tar.xz",
    "layered-v1.tar.bz2",
    "layered-v2.tar.gz",
    "build-image.tar.gz",
    "docker-save-v24.tar",
    "docker-save-v24-repeated-layer.tar",
    "docker-save-v25.tar",
    "no-tag.tar",
    "podman-save.tar",
    "bazel-gzip-layers.tar",
];

/// Demands that gzip itself finds nothing wrong with the layers.
#[track_caller]
fn assert_gzip(pulled: &Pulled) {
    for layer in &pulled.layers {
        assert!(layer.media_type.ends_with("gzip"), "{}", layer.media_type);
        let test = Command::new("gzip")
            .arg("-t")
            .stdin(std::fs::File::open(&layer.path).expect("a blob"))
            .output()
            .expect("start gzip");
        let said = String::from_utf8_lossy(&test.stderr);
        assert!(test.status.success() && said.is_empty(), "gzip -t: {said}");
    }
}

#[test]
fn an_archive_of_any_program_is_pushed_and_reads_back_the_same() {
    let registry = DockerRegistry::plain();
    for (number, name) in ARCHIVES.into_iter().enumerate() {
        let repository = format!("forms/n{number}");
        let output = pushed(testdata(name), &format!("{}/{repository}:v1", registry.host()), &[]);
        let pulled = pull::assert_same_image(&testdata(name), registry.host(), &repository, "v1");
        assert_eq!(output.digest(), pulled.digest, "{name}");
        assert_eq!(registry.open_uploads(&repository), 0, "{name}");
        assert_gzip(&pulled);
    }
}

#[test]
fn skopeo_and_podman_like_the_result() {
    let registry = DockerRegistry::plain();
    for (number, name) in ["layered-v1.tar.gz", "build-image.tar.gz"].into_iter().enumerate() {
        let repository = format!("liked/n{number}");
        let output = pushed(testdata(name), &format!("{}/{repository}:v1", registry.host()), &[]);
        let inspect = Command::new("skopeo")
            .args(["inspect", "--tls-verify=false"])
            .arg(format!("docker://{}/{repository}:v1", registry.host()))
            .output()
            .expect("start skopeo");
        assert!(inspect.status.success(), "{}", String::from_utf8_lossy(&inspect.stderr));
        let inspected: Value = serde_json::from_slice(&inspect.stdout).expect("JSON of skopeo");
        assert_eq!(inspected["Digest"], output.digest());
        // It checks each blob's digest and each layer's diff ID on the way.
        pull::skopeo(registry.host(), &repository, "v1");
        let id = pull::podman(registry.host(), &repository, "v1");
        let config = pull::expected(&testdata(name), 0).config;
        assert_eq!(format!("sha256:{id}"), sha256(&config), "{name}");
    }
}

#[test]
fn the_content_tells_what_an_archive_is_whatever_its_name() {
    let registry = DockerRegistry::plain();
    let dir = TempDir::new().expect("a folder");
    let digest = |path: &Path| {
        pushed(path, &format!("{}/named:v1", registry.host()), &[]);
        pull::assert_same_image(path, registry.host(), "named", "v1").digest
    };
    let expected = digest(&testdata("layered-v1.tar"));
    for (content, name) in [
        ("layered-v1.tar.zst", "image.tar.gz"),
        ("layered-v1.tar.gz", "image.tar"),
        ("layered-v1.tar", "image.tar.xz"),
        ("layered-v1.tar.xz", "image.json"),
    ] {
        let path = dir.path().join(name);
        std::fs::copy(testdata(content), &path).expect("a copy");
        assert_eq!(digest(&path), expected, "{content} as {name}");
    }
    // As `nix build` leaves it: a link, here through another one.
    let link = |to: &Path, name: &str| {
        let link = dir.path().join(name);
        std::os::unix::fs::symlink(to, &link).expect("a link");
        link
    };
    let first = link(&testdata("layered-v1.tar.gz"), "result-1");
    assert_eq!(digest(&link(&first, "result")), expected);
}

#[test]
fn an_image_may_come_from_standard_input() {
    let registry = DockerRegistry::plain();
    for (number, name) in [
        "layered-v1.tar",
        "layered-v1.tar.gz",
        "build-image.tar.gz",
        "docker-save-v24.tar",
        "docker-save-v24-repeated-layer.tar",
        "docker-save-v25.tar",
        "podman-save.tar",
        "bazel-gzip-layers.tar",
    ]
    .into_iter()
    .enumerate()
    {
        let bytes = std::fs::read(testdata(name)).expect("an archive");
        let repository = format!("piped/n{number}");
        let destination = format!("{}/{repository}:v1", registry.host());
        let output = Pushimg::new().stdin(bytes).run(["-", &destination]).success();
        let pulled = pull::assert_same_image(&testdata(name), registry.host(), &repository, "v1");
        assert_eq!(output.digest(), pulled.digest, "{name}");
        // The file gives the same.
        let file = pushed(testdata(name), &format!("{}/file/n{number}", registry.host()), &[]);
        assert_eq!(file.digest(), pulled.digest, "{name}");
    }
}

#[test]
fn compression_and_format_are_as_asked_for() {
    let registry = DockerRegistry::plain();
    let archive = testdata("layered-v1.tar.gz");
    let arrived = |tag: &str, options: &[&str]| {
        pushed(&archive, &format!("{}/forms:{tag}", registry.host()), options);
        let pulled = pull::assert_same_image(&archive, registry.host(), "forms", tag);
        pull::skopeo(registry.host(), "forms", tag);
        pulled
    };
    let types = |pulled: &Pulled| {
        let layers: HashSet<_> = pulled.layers.iter().map(|l| l.media_type.clone()).collect();
        let manifest: Value = serde_json::from_slice(&pulled.manifest_bytes).expect("JSON");
        let layer = layers.into_iter().collect::<Vec<_>>().join(" ");
        [
            manifest["mediaType"].as_str().expect("a media type").to_owned(),
            pulled.manifest.config.media_type.clone(),
            layer,
        ]
    };
    let docker = |layer: &str| {
        [
            "application/vnd.docker.distribution.manifest.v2+json",
            "application/vnd.docker.container.image.v1+json",
            layer,
        ]
        .map(str::to_owned)
    };
    let oci = |layer: &str| {
        [
            "application/vnd.oci.image.manifest.v1+json",
            "application/vnd.oci.image.config.v1+json",
            layer,
        ]
        .map(str::to_owned)
    };
    let gzip = arrived("gzip", &[]);
    assert_eq!(types(&gzip), docker("application/vnd.docker.image.rootfs.diff.tar.gzip"));
    let gzip_oci = arrived("gzip-oci", &["--format", "oci"]);
    assert_eq!(types(&gzip_oci), oci("application/vnd.oci.image.layer.v1.tar+gzip"));
    let destination = format!("{}/plain:v1", registry.host());
    pushed(&archive, &destination, &["--compression", "none"]);
    let none = pull::assert_same_image(&archive, registry.host(), "plain", "v1");
    assert_eq!(types(&none), docker("application/vnd.docker.image.rootfs.diff.tar"));
    for layer in &none.layers {
        assert_eq!(layer.digest, layer.diff_id(), "an uncompressed blob is the layer itself");
    }
    let destination = format!("{}/zstd:v1", registry.host());
    pushed(&archive, &destination, &["--compression", "zstd"]);
    let zstd = pull::assert_same_image(&archive, registry.host(), "zstd", "v1");
    assert_eq!(types(&zstd), oci("application/vnd.oci.image.layer.v1.tar+zstd"));
    for layer in &zstd.layers {
        let head = std::fs::read(&layer.path).expect("a blob");
        assert_eq!(head[..4], [0x28, 0xb5, 0x2f, 0xfd], "a zstd frame");
    }
    let size = |pulled: &Pulled| pulled.layers.iter().map(|layer| layer.size).sum::<u64>();
    assert!(size(&zstd) < size(&none) && size(&gzip) < size(&none));
}

#[test]
fn a_registry_without_oci_types_gets_the_image_in_dockers_format() {
    let registry = DockerRegistry::plain();
    let proxy = FaultProxy::before(registry.addr());
    let archive = testdata("layered-v1.tar.gz");
    let types = |proxy: &FaultProxy| -> Vec<(String, Option<u16>)> {
        let records = proxy.records();
        let puts = records.iter().filter(|r| r.is(Step::ManifestPut));
        puts.map(|r| (r.header("content-type").expect("a type").to_owned(), r.status)).collect()
    };
    let refuse = |puts| {
        let answer = Answer::status(400).error("MANIFEST_INVALID", "unknown media type");
        proxy.clear();
        proxy.set_rules(vec![Rule::at(Step::ManifestPut, Fault::Answer(answer)).first(puts)]);
    };
    let oci = "application/vnd.oci.image.manifest.v1+json".to_owned();
    let docker = "application/vnd.docker.distribution.manifest.v2+json".to_owned();
    for (number, tags) in [&["v1"][..], &["v1", "v2"]].into_iter().enumerate() {
        refuse(tags.len() as u64);
        let repository = format!("old/n{number}");
        let destination = format!("{}/{repository}:v1", proxy.host());
        let more: Vec<&str> = tags[1..].iter().flat_map(|tag| ["-t", tag]).collect();
        let output = pushed(&archive, &destination, &[&["--format", "oci"], &more[..]].concat());
        let mut expected = vec![(oci.clone(), Some(400)); tags.len()];
        expected.extend(vec![(docker.clone(), Some(201)); tags.len()]);
        assert_eq!(types(&proxy), expected, "{}", proxy.transcript());
        // The warning appears only once.
        assert_eq!(output.stderr.matches("warning: ").count(), 1, "{output}");
        assert_eq!(output.stderr.matches("Docker's format").count(), 1, "{output}");
        for tag in tags {
            let pulled = pull::assert_same_image(&archive, registry.host(), &repository, tag);
            assert_eq!(pulled.digest, output.digest(), "{tag}");
            let manifest: Value = serde_json::from_slice(&pulled.manifest_bytes).expect("JSON");
            assert_eq!(manifest["mediaType"], docker);
        }
        pull::skopeo(registry.host(), &repository, "v1");
    }
    // Docker's format has no name for zstd.
    refuse(1);
    let path = archive.to_str().expect("UTF-8");
    let destination = format!("{}/old/zstd:v1", proxy.host());
    let output = Pushimg::new().run([path, &destination, "--compression", "zstd"]).exits(4);
    output.says("unknown media type");
    assert_eq!(types(&proxy), [(oci, Some(400))], "{}", proxy.transcript());
    assert_eq!(registry.tag("old/zstd", "v1"), None);
}

#[test]
fn a_compression_level_makes_blobs_smaller_or_larger() {
    let registry = DockerRegistry::plain();
    let dir = TempDir::new().expect("a folder");
    let image = ImageBuilder::new(vec![Layer::text("text-1.0", 7, 400_000)]);
    let archive = image.write(dir.path(), "image.tar");
    let size = |compression: &str, level: &str| {
        let repository = format!("level/{compression}-{level}");
        let options = ["--compression", compression, "--compression-level", level];
        pushed(&archive, &format!("{}/{repository}:v1", registry.host()), &options);
        pull::assert_same_image(&archive, registry.host(), &repository, "v1").layers[0].size
    };
    assert!(size("gzip", "12") < size("gzip", "1"));
    assert!(size("zstd", "19") < size("zstd", "1"));
}

#[test]
fn every_tag_gets_the_same_manifest() {
    let registry = DockerRegistry::plain();
    let destination = format!("{}/tagged:v1", registry.host());
    let tags = ["-t", "v1.2", "--tag", "newest", "-t", "v1"];
    let output = pushed(testdata("layered-v1.tar"), &destination, &tags);
    for tag in ["v1", "v1.2", "newest"] {
        assert_eq!(registry.tag("tagged", tag), Some(output.digest()), "{tag}");
    }
    assert_eq!(registry.tag("tagged", "latest"), None);
    output.says("v1.2").says("newest");
    // Without a tag, pushimg uses `latest`, as Docker does.
    let output = pushed(testdata("layered-v1.tar"), &format!("{}/untagged", registry.host()), &[]);
    assert_eq!(registry.tag("untagged", "latest"), Some(output.digest()));
}

#[test]
fn the_image_tells_its_destination_where_none_is_given() {
    let registry = DockerRegistry::plain();
    let dir = TempDir::new().expect("a folder");
    let name = format!("{}/team/own:v7", registry.host());
    let image = ImageBuilder::new(vec![Layer::file("app-1.0", b"own")]).repo_tags(&[&name]);
    let plain = image.write(dir.path(), "image.tar");
    let gzip = image.write_gz(dir.path(), "image.tar.gz");
    for path in [&plain, &gzip] {
        let output = Pushimg::new().run([path]).success();
        assert_eq!(registry.tag("team/own", "v7"), Some(output.digest()));
        assert!(output.stdout.starts_with(&format!("{}/team/own@", registry.host())), "{output}");
    }
    // The same for a pipe, which names the image only at its end.
    let piped = image.repo_tags(&[&format!("{}/team/piped:v7", registry.host())]);
    let output = Pushimg::new().stdin(piped.tar_gz()).run(["-"]).success();
    assert_eq!(registry.tag("team/piped", "v7"), Some(output.digest()));
}

#[test]
fn an_image_with_no_name_or_several_asks_for_a_destination() {
    let dir = TempDir::new().expect("a folder");
    let none = Pushimg::new().run([testdata("no-tag.tar")]).exits(2);
    none.says("carries no name").says("pushimg IMAGE HOST/REPOSITORY:TAG");
    let several = Pushimg::new().run([testdata("several-images.tar")]).exits(2);
    several.says("registry.fly.io/hello-a:v1").says("registry.fly.io/hello-b:v2");
    let names = ["registry.example/a:v1", "registry.example/b:v2"];
    let image = ImageBuilder::new(vec![Layer::file("app", b"x")]).repo_tags(&names);
    for path in [image.write(dir.path(), "two.tar"), image.write_gz(dir.path(), "two.tar.gz")] {
        let output = Pushimg::new().run([path]).exits(2);
        assert_eq!(output.stdout, "");
        output.says(names[0]).says(names[1]);
    }
}

#[test]
fn a_digest_as_destination_is_what_is_pushed_or_nothing_is() {
    let registry = DockerRegistry::plain();
    let proxy = FaultProxy::before(registry.addr());
    let archive = testdata("layered-v1.tar.gz");
    let path = archive.to_str().expect("UTF-8");
    let wrong = sha256(b"another manifest");
    for destination in
        [format!("{}/pinned@{wrong}", proxy.host()), format!("{}/pinned:v1@{wrong}", proxy.host())]
    {
        let output = Pushimg::new().run([path, &destination]).exits(1);
        output.says(&wrong);
        assert_eq!(proxy.count_step(Step::ManifestPut), 0, "{}", proxy.transcript());
    }
    let dry = format!("{}/pinned:v1", proxy.host());
    let right = Pushimg::new().run([path, &dry, "--dry-run", "--json"]).success().json();
    let right = right["digest"].as_str().expect("a digest");
    let output = Pushimg::new().run([path, &format!("{}/pinned@{right}", proxy.host())]).success();
    assert_eq!(output.digest(), right);
    assert_eq!(registry.tag("pinned", "v1"), None, "no tag was asked for");
    Pushimg::new().run([path, &format!("{}/pinned:v1@{right}", proxy.host())]).success();
    assert_eq!(registry.tag("pinned", "v1").as_deref(), Some(right));
}

#[test]
fn standard_output_is_one_line_and_all_else_goes_to_standard_error() {
    let registry = DockerRegistry::plain();
    let archive = testdata("layered-v1.tar.gz");
    let destination = format!("{}/quiet:v1", registry.host());
    let dir = TempDir::new().expect("a folder");
    let file = dir.path().join("digest.txt");
    let file = file.to_str().expect("UTF-8");
    let output = pushed(&archive, &destination, &["--digest-file", file]);
    let digest = registry.tag("quiet", "v1").expect("the tag");
    assert_eq!(output.stdout, format!("{}/quiet@{digest}\n", registry.host()));
    assert_eq!(std::fs::read_to_string(file).expect("the file"), format!("{digest}\n"));
    // The output is suited for a log: one line for each layer with its package's name, then a
    // summary.
    let output = output.plain().says("6 of 6 layers uploaded").says("hello-app-1.0");
    let last = output.stderr.lines().last().expect("a summary");
    assert!(last.starts_with(&format!("pushed {destination}")), "{output}");
    for name in ["glibc", "bash", "zlib", "python3"] {
        let lines = output.stderr.lines().filter(|line| line.starts_with(name)).count();
        assert_eq!(lines, 1, "lines for {name}\n{output}");
    }
    let quiet = pushed(&archive, &destination, &["-q"]);
    assert_eq!((quiet.stdout, quiet.stderr.as_str()), (output.stdout, ""));
}

#[test]
fn the_json_report_is_what_the_registry_holds() {
    let registry = DockerRegistry::plain();
    let proxy = FaultProxy::before(registry.addr());
    for (archive, tag) in [
        ("layered-v1.tar.gz", "v1"),
        ("layered-v2.tar", "v1"),
        ("docker-save-v24-repeated-layer.tar", "v2"),
    ] {
        proxy.clear();
        let destination = format!("{}/told:{tag}", proxy.host());
        let options = ["--json", "-t", "extra"];
        let output = pushed(testdata(archive), &destination, &options);
        let report = output.json();
        let pulled = pull::assert_same_image(&testdata(archive), registry.host(), "told", tag);
        assert_eq!(report["reference"], destination);
        assert_eq!(report["pinned"], format!("{}/told@{}", proxy.host(), pulled.digest));
        assert_eq!(report["digest"], pulled.digest);
        assert_eq!(report["tags"], serde_json::json!([tag, "extra"]));
        assert_eq!(report["config"], sha256(&pulled.config));
        assert_eq!(report["media_type"], "application/vnd.docker.distribution.manifest.v2+json");
        assert_eq!(report["dry_run"], false);
        assert!(report["seconds"].as_f64().is_some_and(|seconds| seconds > 0.0));
        let mut blobs: HashSet<&str> = HashSet::new();
        let mut size = pulled.manifest_bytes.len() + pulled.config.len();
        let layers = report["layers"].as_array().expect("layers");
        assert_eq!(layers.len(), pulled.layers.len());
        for (told, held) in layers.iter().zip(&pulled.layers) {
            assert_eq!(told["digest"], held.digest);
            assert_eq!(told["size"], held.size);
            assert_eq!(told["media_type"], held.media_type);
            assert_eq!(told["diff_id"], held.diff_id());
            assert!(told["name"].as_str().is_some_and(|name| !name.is_empty()));
            let action = told["action"].as_str().expect("an action");
            assert_eq!(action == "reused", told["why"].is_string(), "{told}");
            if blobs.insert(&held.digest) {
                size += held.size as usize;
            } else {
                assert_eq!(told["why"], "same-as-layer");
            }
        }
        assert_eq!(report["size"], size);
        let sent = |is: fn(&Record) -> bool| proxy.body_bytes(is);
        let (blob_bytes, manifest) =
            (sent(Record::carries_blob), sent(|r| r.is(Step::ManifestPut)));
        assert_eq!(manifest as usize, 2 * pulled.manifest_bytes.len(), "under two tags");
        assert_eq!(report["bytes_sent"], blob_bytes + manifest, "{}", proxy.transcript());
        let reused = report["bytes_reused"].as_u64().expect("bytes_reused") as usize;
        let config = if report["config_sent"] == true { 0 } else { pulled.config.len() };
        let there: u64 = layers
            .iter()
            .filter(|layer| layer["action"] == "reused" && layer["why"] != "same-as-layer")
            .map(|layer| layer["size"].as_u64().expect("a size"))
            .sum();
        assert_eq!(reused, there as usize + config);
    }
}

#[test]
fn a_dry_run_sends_nothing_and_foretells_every_byte() {
    let registry = DockerRegistry::plain();
    let proxy = FaultProxy::before(registry.addr());
    let destination = format!("{}/dry:v1", proxy.host());
    let repeated = "docker-save-v24-repeated-layer.tar";
    // Nothing is there; then one layer is missing; then two are the same; then nothing is missing.
    for name in ["layered-v1.tar.gz", "layered-v2.tar.gz", repeated, repeated] {
        let archive = testdata(name);
        let path = archive.to_str().expect("UTF-8");
        let tag_before = registry.tag("dry", "v1");
        proxy.clear();
        let dry = Pushimg::new().run([path, &destination, "--dry-run", "--json"]).success().json();
        let plain = Pushimg::new().run([path, &destination, "--dry-run"]).success();
        assert_eq!(plain.stdout, "", "nothing was pushed, so there is no result");
        plain.says("would upload");
        let changing = |r: &Record| !matches!(r.method.as_str(), "GET" | "HEAD");
        assert_eq!(proxy.count(changing), 0, "{}", proxy.transcript());
        assert_eq!(registry.tag("dry", "v1"), tag_before);
        proxy.clear();
        let real = pushed(&archive, &destination, &["--json"]).json();
        let sent = proxy.body_bytes(|r| r.carries_blob() || r.is(Step::ManifestPut));
        assert_eq!(dry["bytes_sent"], sent, "{name}\n{}", proxy.transcript());
        for key in ["digest", "size", "bytes_sent", "bytes_reused", "config_sent"] {
            assert_eq!(dry[key], real[key], "{key} of {name}");
        }
        let [foretold, done] = [&dry, &real].map(|report| report["layers"].as_array().unwrap());
        for (foretold, done) in foretold.iter().zip(done) {
            for key in ["diff_id", "digest", "size", "media_type", "why"] {
                assert_eq!(foretold[key], done[key], "{key} of {name}");
            }
            let action = foretold["action"].as_str().expect("an action");
            let expected = if action == "would-upload" { "uploaded" } else { action };
            assert_eq!(done["action"], expected, "{name}");
        }
    }
}

#[test]
fn a_dry_run_tells_what_would_be_mounted() {
    let registry = DockerRegistry::plain();
    let proxy = FaultProxy::before(registry.addr());
    let base = format!("{}/team/base:v1", proxy.host());
    pushed(testdata("layered-v1.tar"), &base, &[]);
    for name in ["layered-v2.tar", "layered-v2.tar.gz"] {
        proxy.clear();
        let destination = format!("{}/team/app:v1", proxy.host());
        let output = pushed(testdata(name), &destination, &["--dry-run", "--reuse-from", &base]);
        assert_eq!(output.stdout, "", "{output}");
        let lines = |part: &str| output.stderr.lines().filter(|line| line.contains(part)).count();
        assert_eq!(lines("would be mounted from team/base"), 5, "{output}");
        assert_eq!(lines("would be uploaded"), 1, "{output}");
        let last = output.stderr.lines().last().expect("a summary");
        assert!(last.contains("would upload 1 of 6 layers, 5 mounted"), "{output}");
        let changing = |r: &Record| !matches!(r.method.as_str(), "GET" | "HEAD");
        assert_eq!(proxy.count(changing), 0, "{}", proxy.transcript());
    }
}

#[test]
fn a_layer_that_occurs_twice_goes_once() {
    let registry = DockerRegistry::plain();
    let proxy = FaultProxy::before(registry.addr());
    let archive = testdata("docker-save-v24-repeated-layer.tar");
    let bytes = std::fs::read(&archive).expect("an archive");
    let dir = TempDir::new().expect("a folder");
    // The same content in two entries of their own, as `podman save` may leave it.
    let twins = twins(dir.path());
    let cases = [
        (Pushimg::new(), archive.to_str().unwrap(), &archive, 7, 6),
        (Pushimg::new().stdin(bytes), "-", &archive, 7, 6),
        (Pushimg::new(), twins.to_str().unwrap(), &twins, 2, 1),
    ];
    for (number, (pushimg, image, archive, layers, blobs)) in cases.into_iter().enumerate() {
        proxy.clear();
        let repository = format!("twice/n{number}");
        pushimg.run([image, &format!("{}/{repository}:v1", proxy.host())]).success();
        let pulled = pull::assert_same_image(archive, registry.host(), &repository, "v1");
        assert_eq!(pulled.layers.len(), layers);
        let puts = proxy.count(|r| r.is(Step::UploadPut));
        assert_eq!(puts, blobs + 1, "the blobs and the config\n{}", proxy.transcript());
        assert_eq!(registry.open_uploads(&repository), 0);
    }
}

/// An archive with one layer twice, under two names.
fn twins(dir: &Path) -> std::path::PathBuf {
    let layer = Layer::text("twin-1.0", 1, 50_000);
    let config = ImageBuilder::new(vec![layer.clone(), layer.clone()]).config();
    let manifest = serde_json::json!([{
        "Config": "config.json", "RepoTags": null, "Layers": ["one/layer.tar", "two/layer.tar"],
    }])
    .to_string();
    let files: [(&str, &[u8]); 4] = [
        ("one/layer.tar", &layer.tar),
        ("two/layer.tar", &layer.tar),
        ("config.json", &config),
        ("manifest.json", manifest.as_bytes()),
    ];
    archive::write(dir, "twins.tar", &tar_of(&files))
}

#[test]
fn an_image_without_layers_is_an_image() {
    let registry = DockerRegistry::plain();
    let dir = TempDir::new().expect("a folder");
    let archive = ImageBuilder::new(vec![]).write(dir.path(), "empty.tar");
    let output = pushed(&archive, &format!("{}/empty:v1", registry.host()), &[]);
    let pulled = pull::assert_same_image(&archive, registry.host(), "empty", "v1");
    assert_eq!(output.digest(), pulled.digest);
    output.says("no layers");
}

#[test]
fn at_a_terminal_there_are_bars_and_without_colours_where_none_are_wanted() {
    let registry = DockerRegistry::plain();
    let archive = testdata("layered-v1.tar.gz");
    let screen = |tag: &str, pushimg: Pushimg| {
        let destination = format!("{}/screen:{tag}", registry.host());
        let program = env!("CARGO_BIN_EXE_pushimg");
        let line = format!("{program} {} {destination}", archive.display());
        // `script` runs the command at a terminal of its own.
        let mut command = pushimg.command([""; 0]);
        let prepared: Vec<_> = command
            .get_envs()
            .filter_map(|(key, value)| Some((key.to_owned(), value?.to_owned())))
            .collect();
        command = Command::new("script");
        command.args(["-qec", &line, "/dev/null"]).env_clear().envs(prepared);
        crate::support::run::finish(command, None, std::time::Duration::from_secs(60))
            .success()
            .stdout
    };
    let coloured = screen("v1", Pushimg::new().env("TERM", "xterm-256color"));
    assert!(coloured.contains("\u{1b}["), "bars move the cursor: {coloured:?}");
    assert!(coloured.contains("6 of 6 layers uploaded"), "{coloured}");
    let plain = Pushimg::new().env("TERM", "xterm-256color").env("NO_COLOR", "1");
    let plain = plain.env("CLICOLOR_FORCE", "1");
    let plain = screen("v2", plain);
    assert!(!plain.contains("\u{1b}[3"), "a colour in spite of NO_COLOR: {plain:?}");
    let dumb = screen("v3", Pushimg::new().env("TERM", "dumb"));
    assert!(!dumb.contains('\u{1b}'), "an escape code at a dumb terminal: {dumb:?}");
}

#[test]
fn help_and_version_go_to_standard_output() {
    let help = Pushimg::new().run(["--help"]).success();
    for part in ["Examples:", "Exit codes:", "130", "--dry-run", "--reuse-from", "TMPDIR"] {
        assert!(help.stdout.contains(part), "{part} in --help\n{help}");
    }
    let version = Pushimg::new().run(["--version"]).success();
    assert_eq!(version.stdout, format!("pushimg {}\n", env!("CARGO_PKG_VERSION")));
}
