//! OCI layouts and `dir:` folders that other programs wrote are read correctly.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::support::archive::{self, gzip, sha256, testdata};
use crate::support::run::{Pushimg, finish};
use pushimg::image::{Digest, Platform};
use pushimg::source::layout::{Layout, Tree};
use pushimg::source::{Contents, Error, ImagesKnown, Location, Options, Selection, open};
use serde_json::{Value, json};
use tempfile::TempDir;

const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// Runs a program, asserts that it succeeds, and returns what it prints.
#[track_caller]
fn run(program: &str, arguments: &[&str]) -> String {
    let mut command = Command::new(program);
    command.args(arguments);
    finish(command, None, Duration::from_secs(120)).success().stdout
}

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
        self.path(name).to_str().expect("UTF-8").to_owned()
    }

    /// Has skopeo copy an archive of testdata/ to `oci:`, `oci-archive:` or `dir:` NAME, and
    /// perhaps a tag.
    #[track_caller]
    fn skopeo(&self, archive: &str, transport: &str, name: &str) {
        let from = format!("docker-archive:{}", testdata(archive).display());
        let to = format!("{transport}:{}", self.text(name));
        run("skopeo", &["copy", "--quiet", &from, &to]);
    }

    /// Makes a layout with both versions of an image, one of them marked as for another platform,
    /// and with an index of both.
    fn platforms(&self) -> (Digest, Digest, Digest) {
        self.skopeo("layered-v1.tar", "oci", "layout:one");
        self.skopeo("layered-v2.tar", "oci", "layout:two");
        let folder = self.path("layout");
        let listed = fs::read(folder.join("index.json")).expect("an index");
        let listed: Value = serde_json::from_slice(&listed).expect("JSON");
        let mut manifests = listed["manifests"].clone();
        for (place, architecture) in [(0, "amd64"), (1, "arm64")] {
            let descriptor = manifests[place].as_object_mut().expect("a descriptor");
            descriptor.remove("annotations");
            let platform = json!({ "os": "linux", "architecture": architecture });
            descriptor.insert("platform".to_owned(), platform);
        }
        let digest = |place: usize| {
            manifests[place]["digest"].as_str().expect("a digest").parse().expect("a digest")
        };
        let (one, two) = (digest(0), digest(1));
        let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": manifests });
        let index = index.to_string().into_bytes();
        let digest: Digest = sha256(&index).parse().expect("a digest");
        fs::write(folder.join("blobs/sha256").join(digest.hex()), &index).expect("write");
        let descriptor = json!({ "mediaType": INDEX, "digest": digest, "size": index.len(),
            "annotations": { "org.opencontainers.image.ref.name": "both" } });
        let listed = json!({ "schemaVersion": 2, "manifests": [descriptor] });
        fs::write(folder.join("index.json"), listed.to_string()).expect("write");
        (one, two, digest)
    }
}

fn options() -> Options {
    Options {
        images: ImagesKnown::WhenTold,
        may_run: false,
        progress: Box::new(|_, _| {}),
        note: Arc::new(|_| {}),
    }
}

fn try_layout(path: &Path) -> Result<Layout, Error> {
    match open(&Location::Path(path.to_owned()), options())? {
        Contents::Layout(layout) => Ok(*layout),
        Contents::Layers(_) => panic!("{} was not taken for a layout", path.display()),
    }
}

#[track_caller]
fn layout(path: &Path) -> Layout {
    try_layout(path).unwrap_or_else(|error| panic!("{error}"))
}

/// Selects the only image, and asserts that all its blobs are correct.
#[track_caller]
fn whole(layout: &Layout) -> Tree {
    checked(layout.select(&Selection::default()).unwrap_or_else(|error| panic!("{error}")))
}

#[track_caller]
fn checked(tree: Tree) -> Tree {
    for node in &tree.nodes {
        assert_eq!(sha256(&node.bytes), node.digest.as_str());
        for blob in &node.blobs {
            let region = blob.region.as_ref().expect("it is there");
            let mut bytes = vec![0; usize::try_from(blob.size).expect("small") + 10];
            let count = region.read_at(&mut bytes, 0).expect("it can be read");
            assert_eq!(sha256(&bytes[..count]), blob.digest.as_str());
        }
    }
    tree
}

/// The diff IDs of the image in an archive of testdata/, as Python reads it.
fn diff_ids(archive: &str) -> Vec<String> {
    let script = "import json, sys, tarfile\n\
                  tar = tarfile.open(sys.argv[1])\n\
                  name = json.load(tar.extractfile('manifest.json'))[0]['Config']\n\
                  print('\\n'.join(json.load(tar.extractfile(name))['rootfs']['diff_ids']))\n";
    let path = testdata(archive);
    run("python3", &["-c", script, path.to_str().expect("UTF-8")])
        .lines()
        .map(str::to_owned)
        .collect()
}

#[track_caller]
fn assert_is(tree: &Tree, archive: &str) {
    let config = tree.nodes[tree.root].config.as_ref().expect("an image");
    let ids: Vec<_> = config.diff_ids().iter().map(ToString::to_string).collect();
    assert_eq!(ids, diff_ids(archive));
    assert_eq!(config.platform().to_string(), "linux/amd64");
}

#[test]
fn skopeos_layout_is_read_by_tag_and_the_manifest_is_the_one_that_skopeo_shows() {
    let bench = Bench::new();
    bench.skopeo("layered-v1.tar", "oci", "layout:v1");
    let path = bench.path("layout");
    let tree = whole(&layout(&path));
    assert_is(&tree, "layered-v1.tar");
    assert_eq!(tree.names, ["v1"]);
    let raw = run("skopeo", &["inspect", "--raw", &format!("oci:{}:v1", path.display())]);
    assert_eq!(tree.nodes[0].bytes, raw.as_bytes());

    bench.skopeo("layered-v2.tar", "oci", "layout:v2");
    let both = layout(&path);
    assert_eq!(both.names(), ["v1", "v2"]);
    let text = both.select(&Selection::default()).expect_err("an error").to_string();
    assert!(text.contains("holds 2 images: v1, v2; choose one with"), "{text}");
    for (name, archive) in [("v1", "layered-v1.tar"), ("v2", "layered-v2.tar")] {
        let selection = Selection { name: Some(name.to_owned()), ..Selection::default() };
        let tree = checked(both.select(&selection).expect("an image"));
        assert_is(&tree, archive);
        let selection =
            Selection { digest: Some(tree.nodes[0].digest.clone()), ..Selection::default() };
        assert_is(&both.select(&selection).expect("an image"), archive);
    }
    let trees = both.trees().expect("images");
    assert_eq!(trees.iter().map(|tree| &tree.names[0]).collect::<Vec<_>>(), ["v1", "v2"]);
}

#[test]
fn an_archive_of_a_layout_is_read_plain_compressed_and_from_a_pipe() {
    let bench = Bench::new();
    bench.skopeo("layered-v1.tar", "oci-archive", "image.tar:v1");
    let tar = fs::read(bench.path("image.tar")).expect("an archive");
    let paths = [
        bench.path("image.tar"),
        archive::write(bench.0.path(), "image.tar.gz", &gzip(&tar)),
        archive::write(bench.0.path(), "image.tar.zst", &zstd::encode_all(&*tar, 1).expect("zstd")),
        testdata("podman-oci.tar"),
    ];
    for path in &paths {
        assert_is(&whole(&layout(path)), "layered-v1.tar");
    }
    let pipe = bench.path("pipe");
    run("mkfifo", &[pipe.to_str().expect("UTF-8")]);
    for path in &paths[..2] {
        let bytes = fs::read(path).expect("an archive");
        let writer = std::thread::spawn({
            let pipe = pipe.clone();
            move || fs::write(pipe, bytes)
        });
        assert_is(&whole(&layout(&pipe)), "layered-v1.tar");
        writer.join().expect("no panic").expect("all was read");
    }
}

#[test]
fn gnu_tar_of_a_layouts_folder_is_a_layout() {
    let bench = Bench::new();
    bench.skopeo("layered-v1.tar", "oci", "layout:v1");
    for options in ["-cf", "-czf"] {
        let (to, from) = (bench.text("out"), bench.text("layout"));
        run("tar", &[options, &to, "-C", &from, "."]);
        assert_is(&whole(&layout(Path::new(&to))), "layered-v1.tar");
    }
}

#[test]
fn an_archive_that_is_both_stays_a_docker_archive_in_every_form() {
    let tar = fs::read(testdata("docker-save-v25.tar")).expect("an archive");
    let bench = Bench::new();
    for (name, bytes) in [("a.tar", tar.clone()), ("a.tar.gz", gzip(&tar))] {
        let path = archive::write(bench.0.path(), name, &bytes);
        let opened = open(&Location::Path(path), options()).expect("an archive");
        let Contents::Layers(mut source) = opened else { panic!("{name} was taken for a layout") };
        assert_eq!(source.images().map(<[_]>::len), Some(1), "{name}");
        let mut layers = 0;
        while let Some(layer) = source.next_layer().expect("a layer") {
            let mut bytes = Vec::new();
            layer.content.read_to_end(&mut bytes).expect("its bytes");
            assert!(layer.entry.ends_with(sha256(&bytes).trim_start_matches("sha256:")));
            layers += 1;
        }
        assert_eq!(layers, 6);
    }
}

#[test]
fn progress_counts_the_bytes_of_the_file_though_it_is_spooled() {
    let bench = Bench::new();
    let tar = fs::read(testdata("docker-save-v25.tar")).expect("an archive");
    for (name, tar) in
        [("docker", tar), ("layout", fs::read(testdata("podman-oci.tar")).expect("an archive"))]
    {
        let path = archive::write(bench.0.path(), name, &gzip(&tar));
        let length = fs::metadata(&path).expect("a file").len();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let sink = seen.clone();
        let progress = move |at, total| sink.lock().expect("no panic").push((at, total));
        let options = Options { progress: Box::new(progress), ..options() };
        match open(&Location::Path(path), options).expect("an archive") {
            Contents::Layout(layout) => drop(whole(&layout)),
            Contents::Layers(mut source) => {
                while source.next_layer().expect("a layer").is_some() {}
            }
        }
        let seen = seen.lock().expect("no panic");
        assert_eq!(seen.last(), Some(&(length, Some(length))), "{name}");
        assert!(seen.is_sorted(), "{name}");
    }
}

#[test]
fn what_umoci_makes_is_read() {
    let bench = Bench::new();
    let path = bench.text("layout");
    run("umoci", &["init", "--layout", &path]);
    let text = try_layout(Path::new(&path))
        .and_then(|layout| layout.select(&Selection::default()))
        .expect_err("an error")
        .to_string();
    assert!(text.contains("index.json lists no image"), "{text}");
    let image = format!("{path}:v1");
    run("umoci", &["new", "--image", &image]);
    fs::write(bench.path("hello"), "hello").expect("write");
    run("umoci", &["insert", "--rootless", "--image", &image, &bench.text("hello"), "/hello"]);
    run("umoci", &["tag", "--image", &image, "latest"]);
    let tree = whole(&layout(Path::new(&path)));
    assert_eq!(tree.names, ["v1", "latest"]);
    let node = &tree.nodes[0];
    assert_eq!(node.blobs.len(), 2);
    assert_eq!(node.config.as_ref().expect("an image").diff_ids().len(), 1);
}

#[test]
fn what_buildah_and_podman_leave_is_read() {
    let bench = Bench::new();
    let (root, runroot) = (bench.text("root"), bench.text("run"));
    let stored = ["--root", &root, "--runroot", &runroot, "--storage-driver", "vfs"];
    let with = |program: &str, arguments: &[&str]| run(program, &[&stored, arguments].concat());
    let name = "registry.fly.io/douglas-adams-quotes:latest";
    let archive = format!("docker-archive:{}", testdata("layered-v1.tar").display());
    with("podman", &["pull", "--quiet", &archive]);
    with("buildah", &["push", "--quiet", name, &format!("oci:{}:v1", bench.text("buildah"))]);
    for format in ["oci-dir", "oci-archive", "docker-dir"] {
        with("podman", &["save", "--quiet", "--format", format, "-o", &bench.text(format), name]);
    }
    for (path, names) in [
        ("buildah", vec!["v1"]),
        ("oci-dir", vec![name]),
        ("oci-archive", vec![name]),
        ("docker-dir", vec![]),
    ] {
        let tree = whole(&layout(&bench.path(path)));
        assert_is(&tree, "layered-v1.tar");
        assert_eq!(tree.names, names, "{path}");
    }
}

#[test]
fn skopeos_folder_is_read_whatever_it_holds() {
    let bench = Bench::new();
    bench.skopeo("layered-v1.tar", "dir", "docker");
    let tree = whole(&layout(&bench.path("docker")));
    assert_is(&tree, "layered-v1.tar");
    assert!(tree.nodes[0].media_type.contains("docker"));
    bench.skopeo("layered-v1.tar", "oci", "layout:v1");
    let from = format!("oci:{}:v1", bench.text("layout"));
    run("skopeo", &["copy", "--quiet", &from, &format!("dir:{}", bench.text("oci"))]);
    let tree = whole(&layout(&bench.path("oci")));
    assert_eq!(tree.nodes[0].bytes, whole(&layout(&bench.path("layout"))).nodes[0].bytes);

    // A list of manifests, which lie beside it.
    let platforms = Bench::new();
    let (one, two, index) = platforms.platforms();
    let from = format!("oci:{}:both", platforms.text("layout"));
    let to = format!("dir:{}", platforms.text("dir"));
    run("skopeo", &["copy", "--quiet", "--all", &from, &to]);
    let tree = whole(&layout(&platforms.path("dir")));
    let digests: Vec<_> = tree.nodes.iter().map(|node| &node.digest).collect();
    assert_eq!(digests, [&one, &two, &index]);
}

#[test]
fn an_index_is_taken_whole_or_for_one_platform() {
    let bench = Bench::new();
    let (one, two, index) = bench.platforms();
    let layout = layout(&bench.path("layout"));
    let tree = whole(&layout);
    assert_eq!(tree.names, ["both"]);
    let digests: Vec<_> = tree.nodes.iter().map(|node| &node.digest).collect();
    assert_eq!(digests, [&one, &two, &index]);
    assert_eq!(tree.nodes[tree.root].children, [0, 1]);
    let on = |architecture: &str| Selection {
        platform: Some(Platform {
            os: "linux".to_owned(),
            architecture: architecture.to_owned(),
            variant: None,
        }),
        ..Selection::default()
    };
    let tree = checked(layout.select(&on("arm64")).expect("an image"));
    assert_eq!((tree.nodes.len(), &tree.nodes[0].digest), (1, &two));
    let text = layout.select(&on("s390x")).expect_err("an error").to_string();
    assert!(
        text.ends_with(
            "holds no image for \"linux/s390x\"; it holds those for linux/amd64, linux/arm64"
        ),
        "{text}"
    );
    let text = layout
        .select(&Selection { name: Some("neither".to_owned()), ..Selection::default() })
        .expect_err("an error")
        .to_string();
    assert!(text.ends_with("holds no image \"neither\"; it holds both"), "{text}");
}

#[test]
fn a_layout_with_a_blob_gone_or_cut_is_refused_by_that_blobs_digest() {
    let bench = Bench::new();
    bench.skopeo("layered-v1.tar", "oci", "layout:v1");
    let tree = whole(&layout(&bench.path("layout")));
    let layer = tree.nodes[0].blobs.last().expect("a layer");
    let path = bench.path("layout/blobs/sha256").join(layer.digest.hex());
    let bytes = fs::read(&path).expect("a layer");
    fs::write(&path, &bytes[1..]).expect("write");
    let refused = || {
        let error = layout(&bench.path("layout")).select(&Selection::default());
        error.expect_err("an error").to_string()
    };
    let text = refused();
    let (listed, actual) = (layer.size, layer.size - 1);
    let expected = format!(
        "{} (layer) is {actual} bytes long, not {listed} as manifest sha256:",
        layer.digest
    );
    assert!(text.contains(&expected), "{text}");
    fs::remove_file(&path).expect("remove");
    let text = refused();
    let expected = format!("lists {} (layer), which is missing", layer.digest);
    assert!(text.contains(&expected) && text.contains(bench.0.path().to_str().unwrap()), "{text}");
}

#[test]
fn a_folder_of_another_kind_is_told_what_it_lacks() {
    let bench = Bench::new();
    let text = try_layout(bench.0.path()).err().expect("an error").to_string();
    assert!(text.contains("it has no file oci-layout") && text.contains("nix build"), "{text}");
}

/// Writes a gzipped tar with this number of layout blobs, each of one byte.
fn many_entries(path: &Path, count: usize) {
    let file = fs::File::create(path).expect("a file");
    let mut gzip = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
    let mut header = tar::Header::new_ustar();
    header.set_size(1);
    for number in 0..count {
        header.set_path(format!("blobs/sha256/{number:064x}")).expect("a name");
        header.set_cksum();
        gzip.write_all(header.as_bytes()).expect("write");
        gzip.write_all(&[0; 512]).expect("write");
    }
    gzip.write_all(&[0; 1024]).expect("write");
    gzip.finish().expect("write");
}

#[test]
fn a_hundred_thousand_entries_are_refused_in_little_memory() {
    let bench = Bench::new();
    let path = bench.path("many.tar.gz");
    many_entries(&path, 100_000);
    let text = try_layout(&path).err().expect("an error").to_string();
    assert!(text.contains("holds more than 65536 files"), "{text}");
    // A push of this archive also stays within the memory limit.
    let machine = Pushimg::new().limit(Duration::from_secs(60));
    let arguments = [path.to_str().expect("UTF-8"), "127.0.0.1:1/app:v1", "--no-cache"];
    let (output, memory) = machine.run_measured(arguments);
    output.exits(3).says("holds more than 65536 files");
    assert!(memory < 100 << 20, "{} MiB", memory >> 20);
}

#[test]
fn a_disk_that_is_full_is_named_with_what_to_do() {
    let bench = Bench::new();
    let path = archive::write(
        bench.0.path(),
        "image.tar.gz",
        &gzip(&fs::read(testdata("podman-oci.tar")).expect("an archive")),
    );
    let machine = Pushimg::new().env("TMPDIR", "/nonexistent/tmp");
    let arguments = [path.to_str().expect("UTF-8"), "127.0.0.1:1/app:v1", "--no-cache"];
    machine.run(arguments).exits(1).says("/nonexistent/tmp").says("set TMPDIR to a directory");
}
