//! OCI layouts and `dir:` folders arrive byte for byte, one image of them or all, with every
//! manifest that belongs to them.

use std::path::{Path, PathBuf};

use crate::support::archive::{self, Layer, gzip, sha256, testdata, text};
use crate::support::layout::{INDEX, Layout, digest_of, get};
use crate::support::proxy::{Record, Step};
use crate::support::pull::{self};
use crate::support::registry::{self, DevRegistry};
use crate::support::run::{Pushimg, program, push};
use crate::support::{DockerRegistry, FaultProxy};
use serde_json::{Value, json};
use tempfile::TempDir;

const NAME: &str = "registry.fly.io/douglas-adams-quotes:latest";

/// A folder with what a test makes.
struct Bench(TempDir);

impl Bench {
    fn new() -> Self {
        Self(TempDir::new().expect("a folder"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        text(&self.path(name)).to_owned()
    }

    /// Copies an archive of testdata/ with skopeo to this transport and name, and returns the path.
    fn skopeo(&self, archive: &str, transport: &str, name: &str) -> PathBuf {
        let from = format!("docker-archive:{}", testdata(archive).display());
        let to = format!("{transport}:{}", self.text(name));
        program("skopeo", ["copy", "--quiet", &from, &to]);
        self.path(name.split(':').next().unwrap_or(name))
    }

    /// A tar of a layout, taken apart by tar.
    fn unpacked(&self, archive: &Path) -> Layout {
        let folder = archive.with_extension("unpacked");
        std::fs::create_dir_all(&folder).expect("a folder");
        program("tar", ["-xf", text(archive), "-C", text(&folder)]);
        Layout::of(folder)
    }

    /// An empty layout.
    fn layout(&self, name: &str) -> Layout {
        Layout::new(self.path(name))
    }
}

/// Demands that a repository has the layout's image under `v1`, and that others can read it.
#[track_caller]
fn assert_arrived(registry: &DockerRegistry, repository: &str, layout: &Layout, digest: &str) {
    let host = registry.host();
    assert_eq!(registry.tag(repository, "v1").as_deref(), Some(digest));
    layout.assert_pushed(&host, repository, digest);
    assert_eq!(registry.open_uploads(repository), 0);
    assert_readable(&host, repository);
}

/// Demands that skopeo and the oci-client crate find an image whose layers are those of its config.
#[track_caller]
fn assert_readable(host: &str, repository: &str) {
    pull::skopeo(host, repository, "v1");
    let pulled = pull::oci(host, repository, "v1");
    let config: Value = serde_json::from_slice(&pulled.config).expect("a config");
    let diff_ids = pulled.diff_ids();
    assert_eq!(json!(diff_ids), config["rootfs"]["diff_ids"]);
}

fn layer(name: &str, seed: u64) -> Layer {
    Layer::random(name, seed, 20_000)
}

#[test]
fn layouts_of_all_programs_arrive_as_they_are() {
    let bench = Bench::new();
    let (root, runroot) = (bench.text("root"), bench.text("run"));
    let stored = ["--root", &root, "--runroot", &runroot, "--storage-driver", "vfs"];
    let with = |name: &str, args: &[&str]| program(name, [&stored, args].concat());
    let archive = format!("docker-archive:{}", testdata("layered-v1.tar").display());
    with("podman", &["pull", "--quiet", &archive]);
    with("buildah", &["push", "--quiet", NAME, &format!("oci:{}:v1", bench.text("buildah"))]);
    for format in ["oci-dir", "oci-archive"] {
        with("podman", &["save", "--quiet", "--format", format, "-o", &bench.text(format), NAME]);
    }
    program("umoci", ["init", "--layout", &bench.text("umoci")]);
    let image = format!("{}:v1", bench.text("umoci"));
    program("umoci", ["new", "--image", &image]);
    let file = archive::write(bench.0.path(), "hello", b"hello");
    program("umoci", ["insert", "--rootless", "--image", &image, text(&file), "/hello"]);

    let folders = [bench.skopeo("layered-v1.tar", "oci", "skopeo:v1"), bench.path("buildah")];
    let folders = [&folders[..], &[bench.path("oci-dir"), bench.path("umoci")]].concat();
    let folders = folders.into_iter().map(|folder| (folder.clone(), Layout::of(folder)));
    let archives = [
        bench.skopeo("layered-v1.tar", "oci-archive", "archive.tar:v1"),
        bench.path("oci-archive"),
        testdata("podman-oci.tar"),
    ];
    let unpacked = |archive: PathBuf| {
        let copy = bench.path(&format!("copy-of-{}", archive.file_name().unwrap().display()));
        std::fs::copy(&archive, &copy).expect("a copy");
        (archive, bench.unpacked(&copy))
    };
    let registry = DockerRegistry::plain();
    let cases = folders.chain(archives.into_iter().map(unpacked));
    for (number, (image, layout)) in cases.enumerate() {
        let repository = format!("as-is/n{number}");
        let destination = format!("{}/{repository}:v1", registry.host());
        let output = push(text(&image), &destination, &[]).success();
        assert_eq!(output.digest(), layout.only(), "{}", image.display());
        assert_arrived(&registry, &repository, &layout, &layout.only());
    }
}

#[test]
fn a_tar_of_a_layout_may_be_compressed_and_come_from_standard_input() {
    let bench = Bench::new();
    let archive = bench.skopeo("layered-v1.tar", "oci-archive", "archive.tar:v1");
    let layout = bench.unpacked(&archive);
    let tar = std::fs::read(&archive).expect("an archive");
    let forms = [gzip(&tar), zstd::encode_all(&*tar, 1).expect("zstd"), tar];
    let registry = DockerRegistry::plain();
    for (number, bytes) in forms.into_iter().enumerate() {
        // The name of the file says nothing.
        let file = archive::write(bench.0.path(), "image.tar.xz", &bytes);
        let file = Pushimg::new().run([text(&file), &format!("{}/file:v1", registry.host())]);
        let repository = format!("piped/n{number}");
        let destination = format!("{}/{repository}:v1", registry.host());
        let piped = Pushimg::new().stdin(bytes).run(["-", &destination]).success();
        assert_eq!([file.success().digest(), piped.digest()], [layout.only(), layout.only()]);
        assert_arrived(&registry, &repository, &layout, &layout.only());
    }
}

#[test]
fn a_folder_of_skopeo_arrives_as_it_is() {
    let bench = Bench::new();
    let docker = bench.skopeo("layered-v1.tar", "dir", "docker");
    let layout = bench.skopeo("layered-v1.tar", "oci", "layout:v1");
    let (from, to) = (format!("oci:{}:v1", layout.display()), bench.path("oci"));
    program("skopeo", ["copy", "--quiet", &from, &format!("dir:{}", to.display())]);
    let registry = DockerRegistry::plain();
    let host = registry.host();
    for (repository, folder) in [("docker", docker), ("oci", to)] {
        let output = push(text(&folder), &format!("{host}/{repository}:v1"), &[]).success();
        let manifest = std::fs::read(folder.join("manifest.json")).expect("a manifest");
        assert_eq!(output.digest(), sha256(&manifest));
        assert_eq!(registry.tag(repository, "v1"), Some(output.digest()));
        let there = pull::oci(&host, repository, "v1");
        assert_eq!(there.manifest_bytes, manifest);
        for layer in &there.layers {
            let stored = folder.join(layer.digest.trim_start_matches("sha256:"));
            assert_eq!(std::fs::read(&layer.path).unwrap(), std::fs::read(stored).unwrap());
        }
        assert_readable(&host, repository);
        // The layers are uncompressed, but not because the user asked for that, so pushimg does not
        // call them "kept".
        let again = push(text(&folder), &format!("{host}/{repository}:v1"), &[]).success();
        again.says("0 of 6 layers uploaded").never_says("kept");
    }
}

/// Two images with tags, for amd64 and for arm64.
fn two_images(bench: &Bench) -> (Layout, String, String) {
    let layout = bench.layout("two");
    let one = layout.image("amd64", &[layer("base", 1), layer("app", 2)]);
    let two = layout.image("arm64", &[layer("base", 1), layer("app", 3)]);
    layout.list(&[(&one, Some("v1")), (&two, Some("v2"))]);
    (layout, digest_of(&one), digest_of(&two))
}

#[test]
fn of_several_images_one_is_chosen_by_tag_digest_name_or_platform() {
    let bench = Bench::new();
    let (layout, one, two) = two_images(&bench);
    let tar = bench.path("two.tar");
    program("tar", ["-cf", text(&tar), "-C", layout.text(), "."]);
    let registry = DockerRegistry::plain();
    let destination = format!("{}/app:v1", registry.host());
    for path in [layout.text(), text(&tar)] {
        for (image, options, wanted) in [
            (format!("{path}:v1"), &[][..], &one),
            (format!("{path}@{two}"), &[], &two),
            (path.to_owned(), &["--image", "v1"], &one),
            (path.to_owned(), &["--platform", "arm64"], &two),
            (path.to_owned(), &["--platform", "linux/amd64"], &one),
            (format!("{path}:v2"), &["--platform", "linux/arm64"], &two),
        ] {
            let output = push(&image, &destination, options).success();
            assert_eq!(&output.digest(), wanted, "{image} {options:?}");
            assert_arrived(&registry, "app", &layout, wanted);
        }
    }
}

#[test]
fn a_look_at_a_layout_shows_all_its_images_or_the_chosen_one() {
    let bench = Bench::new();
    let (layout, one, two) = two_images(&bench);
    let shown = |image: &str, options: &[&str]| -> Vec<(Value, Value)> {
        let arguments = [&["inspect", image, "--json"], options].concat();
        let document = Pushimg::new().run(arguments).success().json();
        let images = document["images"].as_array().expect("images").iter();
        images.map(|image| (image["names"].clone(), image["manifest"].clone())).collect()
    };
    let (v1, v2) = ((json!(["v1"]), json!(one)), (json!(["v2"]), json!(two)));
    assert_eq!(shown(layout.text(), &[]), [v1.clone(), v2.clone()]);
    assert_eq!(shown(&format!("{}:v1", layout.text()), &[]), [v1]);
    assert_eq!(shown(layout.text(), &["--platform", "arm64"]), [v2]);
    // For an index, `inspect` shows the images, but not the attestation and the artifact.
    let whole = whole(&bench);
    let shown: Vec<Value> = shown(whole.layout.text(), &[]).into_iter().map(|(_, it)| it).collect();
    assert_eq!(json!(shown), json!(whole.platforms.each_ref().map(digest_of)));
    let registry = DevRegistry::start(registry::Options::default());
    let against = format!("{}/app:v1", registry.host());
    let output = Pushimg::new().run(["inspect", layout.text(), "--against", &against]);
    output.exits(2).says("holds 2 images: v1, v2; choose one");
}

#[test]
fn a_choice_that_is_missing_or_fits_nothing_is_wrong_usage() {
    let bench = Bench::new();
    let (layout, one, _) = two_images(&bench);
    let path = layout.text();
    let absent = sha256(b"absent");
    for (image, options, said) in [
        (path.to_owned(), &[][..], "holds 2 images: v1, v2; choose one with"),
        (format!("{path}:v3"), &[], "holds no image \"v3\"; it holds v1, v2"),
        (format!("{path}@{absent}"), &[], "holds no image \"sha256:"),
        (path.to_owned(), &["--image", "v3"], "holds no image \"v3\""),
        (path.to_owned(), &["--platform", "s390x"], "holds no image for \"linux/s390x\"; it holds"),
        (format!("{path}:v1"), &["--platform", "arm64"], "it holds those for linux/amd64"),
        (format!("{path}@{one}"), &["--image", "v1"], "which already says which image it is"),
    ] {
        let registry = DevRegistry::start(registry::Options::default());
        let output = push(&image, &format!("{}/app:v1", registry.host()), options).exits(2);
        output.says(said).says(path);
        assert_eq!(registry.counters().requests, 0, "{image} {options:?}");
    }
}

#[test]
fn all_images_of_a_layout_go_under_their_own_names() {
    let bench = Bench::new();
    let registry = DockerRegistry::plain();
    let layout = bench.layout("named");
    let one = layout.image("amd64", &[layer("base", 1), layer("app", 2)]);
    let two = layout.image("amd64", &[layer("base", 1), layer("app", 3)]);
    let names = ["one", "two"].map(|name| format!("{}/{name}:v1", registry.host()));
    layout.list(&[(&one, Some(&names[0])), (&two, Some(&names[1]))]);
    let output = Pushimg::new().run(["--all", layout.text()]).success();
    assert_eq!(output.stdout.lines().count(), 2, "{output}");
    assert_arrived(&registry, "one", &layout, &digest_of(&one));
    assert_arrived(&registry, "two", &layout, &digest_of(&two));
    // A tag alone is no destination.
    let (layout, one, _) = two_images(&bench);
    let output = Pushimg::new().run(["--all", layout.text()]).exits(2);
    output.says(&one).says("has no name to be pushed to");
    let single = push(layout.text(), "--image=v1", &[]).exits(2);
    single.says("does not say where its image belongs");
}

/// A layout like those of buildx, with more parts: an index that lists an index of two platforms,
/// an attestation for one of them, and an artifact.
struct Whole {
    layout: Layout,
    root: Value,
    platforms: [Value; 2],
    attestation: Value,
    artifact: Value,
}

fn whole(bench: &Bench) -> Whole {
    let layout = bench.layout("whole");
    let platforms = ["amd64", "arm64"]
        .map(|on| layout.image(on, &[layer("base", 1), layer(&format!("app-{on}"), 2)]));
    let inner = layout.index(&platforms.each_ref());
    let attestation = layout.attestation(&platforms[0]);
    let artifact = layout.artifact("application/vnd.example.sbom", b"parts", None);
    let root = layout.index(&[&inner, &attestation, &artifact]);
    layout.list(&[(&root, Some("v1"))]);
    Whole { layout, root, platforms, attestation, artifact }
}

#[test]
fn an_index_is_pushed_with_all_that_it_lists_however_deep() {
    let bench = Bench::new();
    let whole = whole(&bench);
    let tar = bench.path("whole.tar");
    program("tar", ["-cf", text(&tar), "-C", whole.layout.text(), "."]);
    let registry = DockerRegistry::plain();
    let digest = digest_of(&whole.root);
    for (repository, image) in [("folder", whole.layout.text()), ("tar", text(&tar))] {
        let output = push(image, &format!("{}/{repository}:v1", registry.host()), &[]).success();
        assert_eq!(output.digest(), digest);
        assert_eq!(registry.tag(repository, "v1").as_ref(), Some(&digest));
        whole.layout.assert_pushed(&registry.host(), repository, &digest);
        assert_eq!(registry.open_uploads(repository), 0);
        output.says("index of 2 images and 3 other manifests, 5 of 5 layers uploaded");
    }
}

/// BuildKit exports a cache as an index of blobs.
#[test]
fn an_index_over_blobs_is_pushed_with_them() {
    let bench = Bench::new();
    let layout = bench.layout("cache");
    let layer = layout.blob("application/vnd.oci.image.layer.v1.tar+gzip", &gzip(&[1; 5000]));
    let config = layout.blob("application/vnd.buildkit.cacheconfig.v0", b"{\"layers\":[]}");
    let index = layout.index(&[&layer, &config]);
    layout.list(&[(&index, Some("v1"))]);
    let registry = DockerRegistry::plain();
    push(layout.text(), &format!("{}/cache:v1", registry.host()), &[]).success();
    assert_eq!(registry.tag("cache", "v1"), Some(digest_of(&index)));
    for blob in [&layer, &config] {
        let bytes = get(&registry.host(), "cache", "blobs", &digest_of(blob));
        assert_eq!(bytes.map(|bytes| sha256(&bytes)), Some(digest_of(blob)));
    }
}

#[test]
fn an_artifact_is_no_image_to_look_at() {
    let registry = DockerRegistry::plain();
    let bench = Bench::new();
    let layout = bench.layout("artifact");
    let artifact = layout.artifact("application/vnd.example.sbom", b"parts", None);
    layout.list(&[(&artifact, Some("v1"))]);
    let says = "is an artifact of the type application/vnd.example.sbom, not an image";
    Pushimg::new().run(["inspect", layout.text()]).exits(2).says(says);
    let destination = format!("{}/sbom:v1", registry.host());
    push(layout.text(), &destination, &[]).success();
    Pushimg::new().run(["inspect", &destination]).exits(2).says(says);
}

#[test]
fn an_index_reads_back_with_skopeo() {
    let bench = Bench::new();
    let layout = bench.layout("flat");
    let images = ["amd64", "arm64"].map(|on| layout.image(on, &[layer("base", 1)]));
    let index = layout.index(&images.each_ref());
    layout.list(&[(&index, Some("v1"))]);
    let folder = bench.path("dir");
    let from = format!("oci:{}:v1", layout.text());
    program("skopeo", ["copy", "--quiet", "--all", &from, &format!("dir:{}", folder.display())]);
    let registry = DockerRegistry::plain();
    for (repository, image) in [("layout", layout.text()), ("dir", text(&folder))] {
        let destination = format!("{}/{repository}:v1", registry.host());
        let output = push(image, &destination, &[]).success();
        assert_eq!(output.digest(), digest_of(&index));
        layout.assert_pushed(&registry.host(), repository, &digest_of(&index));
        let back = Layout::of(bench.path(&format!("back-{repository}")));
        let from = format!("docker://{destination}");
        let options = ["copy", "--quiet", "--all", "--src-tls-verify=false"];
        let to = format!("oci:{}:v1", back.text());
        program("skopeo", [&options[..], &[&from, &to]].concat());
        assert_eq!(back.only(), digest_of(&index));
    }
}

#[test]
fn an_index_over_layouts_lists_the_images_in_them_and_nothing_else() {
    let bench = Bench::new();
    let registry = DockerRegistry::plain();
    let destination = format!("{}/app:v1", registry.host());
    // One layout for each platform, as buildx writes them. In the second one, the image is in an
    // index within another index.
    let [(amd64, one), (arm64, two)] = ["amd64", "arm64"].map(|on| {
        let layout = bench.layout(on);
        let image = layout.image(on, &[layer("base", 1), layer(on, 2)]);
        let mut index = layout.index(&[&image, &layout.attestation(&image)]);
        if on == "arm64" {
            index = layout.index(&[&index]);
        }
        layout.list(&[(&index, Some("v1"))]);
        (layout, image)
    });
    let whole = whole(&bench);
    let named = ["amd64", "arm64"].map(|on| format!("{on}={}", bench.text(on)));
    for (images, wanted) in [
        (vec![amd64.text(), arm64.text()], [&one, &two]),
        (named.each_ref().map(String::as_str).to_vec(), [&one, &two]),
        (vec![whole.layout.text()], whole.platforms.each_ref()),
    ] {
        Pushimg::new().run([&["--index", &*destination], &images[..]].concat()).success();
        let raw = get(&registry.host(), "app", "manifests", "v1").expect("an index");
        let index: Value = serde_json::from_slice(&raw).expect("JSON");
        let listed = index["manifests"].as_array().expect("manifests").iter();
        let listed: Vec<String> = listed.map(digest_of).collect();
        assert_eq!(listed, wanted.map(digest_of), "{images:?}");
    }
    amd64.assert_pushed(&registry.host(), "app", &digest_of(&one));
    arm64.assert_pushed(&registry.host(), "app", &digest_of(&two));
}

#[test]
fn one_platform_of_an_index_is_an_image_by_itself() {
    let bench = Bench::new();
    let Whole { layout, root, platforms, attestation, artifact } = whole(&bench);
    let registry = DockerRegistry::plain();
    let host = registry.host();
    for (image, on) in platforms.iter().zip(["amd64", "linux/arm64"]) {
        let repository = on.replace('/', "-");
        let destination = format!("{host}/{repository}:v1");
        let output = push(layout.text(), &destination, &["--platform", on]).success();
        assert_eq!(output.digest(), digest_of(image));
        assert_arrived(&registry, &repository, &layout, &digest_of(image));
        for other in [&root, &attestation, &artifact] {
            assert_eq!(get(&host, &repository, "manifests", &digest_of(other)), None);
        }
    }
    // An image chosen by its digest, and a manifest that is not an image.
    for (repository, chosen) in [("by-digest", &platforms[1]), ("artifact", &artifact)] {
        let image = format!("{}@{}", layout.text(), digest_of(chosen));
        let output = push(&image, &format!("{host}/{repository}:v1"), &[]).success();
        assert_eq!(output.digest(), digest_of(chosen));
        layout.assert_pushed(&host, repository, &digest_of(chosen));
    }
    let destination = format!("{host}/none:v1");
    let output = push(layout.text(), &destination, &["--platform", "unknown/unknown"]);
    assert_eq!(output.success().digest(), digest_of(&attestation));
    let output = push(layout.text(), &destination, &["--platform", "windows/amd64"]).exits(2);
    output
        .says("holds no image for \"windows/amd64\"; it holds those for linux/amd64, linux/arm64");
}

#[test]
fn what_refers_to_an_image_goes_along_and_is_found() {
    let bench = Bench::new();
    let layout = bench.layout("signed");
    let image = layout.image("amd64", &[layer("base", 1)]);
    let index = layout.index(&[&image]);
    let sbom = layout.artifact("application/vnd.example.sbom", b"parts", Some(&image));
    let signature = layout.artifact("application/vnd.example.signature", b"me", Some(&sbom));
    let other = layout.artifact(
        "application/vnd.example.other",
        b"x",
        Some(&json!({
        "mediaType": INDEX, "digest": sha256(b"another image"), "size": 1 })),
    );
    // The referrers are listed as `oras cp -r` lists them, or under the tag that replaces the
    // referrers API.
    let tagged = layout.index(&[&sbom]);
    let stand_in = digest_of(&image).replace(':', "-");
    let listed = [(&index, Some("v1")), (&sbom, None), (&signature, None), (&other, None)];
    let under_tags = [(&index, Some("v1")), (&tagged, Some(&*stand_in)), (&signature, None)];
    for (number, listed) in [&listed[..], &under_tags].into_iter().enumerate() {
        layout.list(listed);
        let registry = DockerRegistry::plain();
        let (host, repository) = (registry.host(), format!("signed/n{number}"));
        let destination = format!("{host}/{repository}:v1");
        let output = push(layout.text(), &destination, &["--json"]).success();
        let report = output.json();
        assert_eq!(report["digest"], index["digest"]);
        layout.assert_pushed(&host, &repository, &digest_of(&index));
        for (subject, referrer, kind) in [
            (&image, &sbom, "application/vnd.example.sbom"),
            (&sbom, &signature, "application/vnd.example.signature"),
        ] {
            layout.assert_pushed(&host, &repository, &digest_of(referrer));
            let tag = digest_of(subject).replace(':', "-");
            let list = get(&host, &repository, "manifests", &tag).expect("a list of referrers");
            let list: Value = serde_json::from_slice(&list).expect("JSON");
            assert_eq!(list["mediaType"], INDEX);
            assert_eq!(list["manifests"].as_array().map(Vec::len), Some(1), "{list}");
            assert_eq!(list["manifests"][0]["digest"], referrer["digest"]);
            assert_eq!(list["manifests"][0]["artifactType"], kind);
            let told = report["manifests"].as_array().expect("manifests");
            let told = told.iter().find(|told| told["digest"] == referrer["digest"]);
            let told = told.expect("the referrer is told of");
            assert_eq!(
                (&told["subject"], &told["artifact_type"]),
                (&subject["digest"], &json!(kind))
            );
        }
        // A referrer of another image is not pushed.
        assert_eq!(get(&host, &repository, "manifests", &digest_of(&other)), None);
        // After a second push, nothing is listed twice.
        push(layout.text(), &destination, &[]).success();
        let list = get(&host, &repository, "manifests", &digest_of(&image).replace(':', "-"));
        let list: Value = serde_json::from_slice(&list.expect("a list")).expect("JSON");
        assert_eq!(list["manifests"].as_array().map(Vec::len), Some(1), "{list}");
    }
    // A registry that keeps account itself gets no list.
    let registry = DevRegistry::start(registry::Options::default());
    push(layout.text(), &format!("{}/app:v1", registry.host()), &[]).success();
    let names = registry.manifest_puts().into_iter().map(|(_, reference, _)| reference);
    assert!(names.into_iter().all(|name| !name.starts_with("sha256-")));
}

#[test]
fn a_dry_run_of_an_index_sends_nothing_and_foretells_it_all() {
    let bench = Bench::new();
    let Whole { layout, root, platforms, attestation, artifact } = whole(&bench);
    let registry = DockerRegistry::plain();
    let proxy = FaultProxy::before(registry.addr());
    let destination = format!("{}/dry:v1", proxy.host());
    // First nothing is there, then one platform, then everything.
    for before in [&[][..], &["--platform", "amd64"], &[]] {
        if !before.is_empty() {
            push(layout.text(), &destination, before).success();
        }
        proxy.clear();
        let dry = push(layout.text(), &destination, &["--dry-run", "--json"]).success().json();
        let changing = |r: &Record| !matches!(r.method.as_str(), "GET" | "HEAD");
        assert_eq!(proxy.count(changing), 0, "{}", proxy.transcript());
        proxy.clear();
        let real = push(layout.text(), &destination, &["--json"]).success().json();
        let sent = proxy.body_bytes(|r| {
            matches!(r.step, Step::UploadPatch | Step::UploadPut | Step::ManifestPut)
        });
        assert_eq!(dry["bytes_sent"], sent, "{}", proxy.transcript());
        for key in ["digest", "size", "bytes_sent", "bytes_reused", "manifests", "media_type"] {
            assert_eq!(dry[key], real[key], "{key}");
        }
        assert_eq!((&real["digest"], &real["media_type"]), (&root["digest"], &json!(INDEX)));
        assert_eq!((&dry["dry_run"], &real["dry_run"]), (&json!(true), &json!(false)));
        let layers = real["layers"].as_array().expect("layers");
        assert_eq!(layers.len(), 5, "a base, two apps, an attestation, the artifact's");
        let listed = real["manifests"].as_array().expect("manifests");
        let has = |digest: &Value, platform: &str| {
            listed.iter().any(|m| m["digest"] == *digest && m["platform"] == platform)
        };
        assert!(has(&platforms[0]["digest"], "linux/amd64"), "{listed:?}");
        assert!(has(&platforms[1]["digest"], "linux/arm64"), "{listed:?}");
        assert!(has(&attestation["digest"], "unknown/unknown"), "{listed:?}");
        let told = |digest: &Value| listed.iter().find(|m| m["digest"] == *digest);
        let kind = |digest: &Value| told(digest).map(|told| told["artifact_type"].clone());
        assert_eq!(kind(&artifact["digest"]), Some(json!("application/vnd.example.sbom")));
        assert_eq!(kind(&platforms[0]["digest"]), Some(Value::Null), "an image is none");
    }
    let last = push(layout.text(), &destination, &["--dry-run"]).success();
    assert_eq!(last.stdout, "");
    last.says("would upload index of 2 images and 3 other manifests, 0 of 5 layers, ");
}

#[test]
fn what_is_stored_as_a_manifest_is_not_put_in_another_format() {
    let bench = Bench::new();
    let oci = bench.skopeo("layered-v1.tar", "oci", "layout:v1");
    let docker = bench.skopeo("layered-v1.tar", "dir", "docker");
    let registry = DevRegistry::start(registry::Options::default());
    let destination = format!("{}/app:v1", registry.host());
    for (image, asked) in [(&oci, "docker"), (&docker, "oci")] {
        let output = push(text(image), &destination, &["--format", asked]).exits(2);
        output.says(&format!("leave out --format {asked}")).says(text(image));
    }
    assert_eq!(registry.counters().requests, 0);
    for (image, asked) in [(&oci, "oci"), (&docker, "docker")] {
        push(text(image), &destination, &["--format", asked]).success();
    }
}
