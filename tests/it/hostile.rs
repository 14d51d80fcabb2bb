//! No input makes pushimg panic, hang or use more memory than its limit.

use std::fs::File;
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::support::archive::{
    self, ImageBuilder, Layer, corrupted, gzip, sha256, tar_of, testdata, truncated,
};
use crate::support::pull;
use crate::support::registry::{DevRegistry, Options};
use crate::support::run::{Output, Pushimg};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::json;
use tempfile::TempDir;

/// The most memory that any image may take.
const MOST: u64 = 100 << 20;

struct Scene {
    registry: DevRegistry,
    dir: TempDir,
}

impl Scene {
    fn new() -> Self {
        Self {
            registry: DevRegistry::start(Options::default()),
            dir: TempDir::new().expect("a folder"),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Pushes a file within bounds of time and memory, and without a panic.
    #[track_caller]
    fn push(&self, image: &Path) -> Output {
        let destination = format!("{}/hostile:v1", self.registry.host());
        let machine = Pushimg::new().limit(Duration::from_secs(45));
        let arguments = [image.to_str().expect("UTF-8"), &destination, "--no-cache"];
        let (output, memory) = machine.run_measured(arguments);
        let name = image.display();
        assert!(memory < MOST, "{name}: {} MiB\n{output}", memory >> 20);
        assert!(!output.timed_out, "{name} hangs\n{output}");
        assert!(!output.stderr.contains("panicked"), "{name}\n{output}");
        assert!(matches!(output.code(), Some(0 | 3)), "{name}\n{output}");
        output
    }

    /// The same for what cannot be an image.
    #[track_caller]
    fn refused(&self, image: &Path) -> Output {
        let output = self.push(image).exits(3);
        assert_eq!(self.registry.tag("hostile", "v1"), None);
        assert!(output.stderr.len() < 4_000, "a flood on stderr: {} bytes", output.stderr.len());
        output
    }
}

/// A tar's header (POSIX ustar).
fn header(name: &str, size: u64, kind: u8, link: &str) -> [u8; 512] {
    let mut header = tar::Header::new_ustar();
    header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
    header.as_mut_bytes()[157..157 + link.len()].copy_from_slice(link.as_bytes());
    header.set_size(size);
    header.set_mode(0o644);
    header.set_mtime(1);
    header.set_uid(0);
    header.set_gid(0);
    header.set_entry_type(tar::EntryType::new(kind));
    header.set_cksum();
    *header.as_bytes()
}

fn pad(bytes: &[u8]) -> Vec<u8> {
    let mut padded = bytes.to_vec();
    padded.resize(bytes.len().next_multiple_of(512), 0);
    padded
}

/// A file entry, header and content.
fn entry(name: &str, content: &[u8]) -> Vec<u8> {
    [&header(name, content.len() as u64, b'0', "")[..], &pad(content)].concat()
}

fn manifest(config: &str, layers: &[&str]) -> Vec<u8> {
    let image = json!([{ "Config": config, "RepoTags": ["x:y"], "Layers": layers }]);
    entry("manifest.json", image.to_string().as_bytes())
}

const GIB: u64 = 1 << 30;

/// Writes a tar whose entry `name` has `size` bytes: a hole in a sparse file, or bytes of value
/// `fill` in gzip.
fn with_giant(path: &Path, before: &[u8], name: &str, size: u64, fill: u8, after: &[u8]) {
    let file = File::create(path).expect("a file");
    if path.extension().is_some_and(|suffix| suffix == "gz") {
        let mut gzip = GzEncoder::new(BufWriter::new(file), Compression::fast());
        gzip.write_all(before).expect("write");
        gzip.write_all(&header(name, size, b'0', "")).expect("write");
        let block = vec![fill; 1 << 20];
        for _ in 0..size >> 20 {
            gzip.write_all(&block).expect("write");
        }
        gzip.write_all(after).expect("write");
        gzip.write_all(&[0; 1024]).expect("write");
        gzip.finish().expect("write").flush().expect("write");
    } else {
        let mut file = file;
        file.write_all(before).expect("write");
        file.write_all(&header(name, size, b'0', "")).expect("write");
        file.seek(SeekFrom::Current(i64::try_from(size).expect("small enough"))).expect("seek");
        file.write_all(after).expect("write");
        file.write_all(&[0; 1024]).expect("write");
    }
}

#[test]
fn json_of_a_gigabyte_is_not_read() {
    let scene = Scene::new();
    let layer = Layer::file("app", b"one");
    let config = ImageBuilder::new(vec![layer.clone()]).config();
    let layer = entry("a/layer.tar", &layer.tar);
    for name in ["manifest.tar", "manifest.tar.gz"] {
        let before = [layer.clone(), entry("config.json", &config)].concat();
        let path = scene.path(name);
        with_giant(&path, &before, "manifest.json", GIB, b' ', &[]);
        scene.refused(&path).says("manifest.json");
        std::fs::remove_file(path).expect("remove");
    }
    for name in ["config.tar", "config.tar.gz"] {
        let path = scene.path(name);
        with_giant(
            &path,
            &layer,
            "config.json",
            GIB,
            b' ',
            &manifest("config.json", &["a/layer.tar"]),
        );
        scene.refused(&path).says("config.json");
        std::fs::remove_file(path).expect("remove");
    }
    // A huge JSON file that does not belong to the image does no harm.
    for name in ["other.tar", "other.tar.gz"] {
        let path = scene.path(name);
        let after =
            [entry("config.json", &config), manifest("config.json", &["a/layer.tar"])].concat();
        with_giant(&path, &layer, "other.json", GIB, b' ', &after);
        scene.push(&path).success();
        std::fs::remove_file(path).expect("remove");
    }
}

#[test]
fn a_gigabyte_of_small_json_files_is_not_kept() {
    let scene = Scene::new();
    let layer = Layer::file("app", b"one");
    let config = ImageBuilder::new(vec![layer.clone()]).config();
    let path = scene.path("many.tar.gz");
    let file = File::create(&path).expect("a file");
    let mut gzip = GzEncoder::new(BufWriter::new(file), Compression::fast());
    let body = vec![b' '; 2 << 20];
    for number in 0..300 {
        gzip.write_all(&header(&format!("{number}.json"), body.len() as u64, b'0', ""))
            .expect("write");
        gzip.write_all(&body).expect("write");
    }
    for part in [
        entry("a/layer.tar", &layer.tar),
        entry("config.json", &config),
        manifest("config.json", &["a/layer.tar"]),
    ] {
        gzip.write_all(&part).expect("write");
    }
    gzip.finish().expect("write").flush().expect("write");
    // The other JSON files use up the limit, so pushimg does not keep the config, which comes last.
    scene.refused(&path).says("config.json").says("more JSON than");
}

#[test]
fn a_tar_with_a_million_entries_ends_soon() {
    let scene = Scene::new();
    for (name, kind) in [("files.tar.gz", b'0'), ("links.tar.gz", b'2')] {
        let path = scene.path(name);
        let file = File::create(&path).expect("a file");
        let mut gzip = GzEncoder::new(BufWriter::new(file), Compression::fast());
        let mut block = Vec::with_capacity(512 * 1000);
        for thousand in 0..1000 {
            // The first 70,000 names are more than pushimg keeps. After that, the last block is
            // repeated.
            let names = if thousand < 70 { 0..1000 } else { 0..0 };
            if thousand < 70 {
                block.clear();
            }
            for number in names {
                let name = format!("{thousand:04}-{number:03}.bin");
                block.extend_from_slice(&header(&name, 0, kind, "x"));
            }
            gzip.write_all(&block).expect("write");
        }
        gzip.write_all(&[0; 1024]).expect("write");
        gzip.finish().expect("write").flush().expect("write");
        scene.refused(&path).says("more than");
    }
}

#[test]
fn bombs_go_off_without_harm() {
    let scene = Scene::new();
    let zeros = |mib: u64| {
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        let block = vec![0; 1 << 20];
        for _ in 0..mib {
            gzip.write_all(&block).expect("gzip");
        }
        gzip.finish().expect("gzip")
    };
    let bomb = zeros(384);
    assert!(bomb.len() < 4 << 20);
    // As a config, as manifest.json, and as the whole image.
    let layer = Layer::file("app", b"one");
    let layer = entry("a/layer.tar", &layer.tar);
    let all =
        [layer.clone(), entry("c.json", &bomb), manifest("c.json", &["a/layer.tar"])].concat();
    for (name, bytes) in [("config.tar", all.clone()), ("config.tar.gz", gzip(&all))] {
        scene.refused(&archive::write(scene.dir.path(), name, &bytes)).says("c.json");
    }
    let all = [layer, entry("manifest.json", &bomb)].concat();
    for (name, bytes) in [("manifest.tar", all.clone()), ("manifest.tar.gz", gzip(&all))] {
        scene.refused(&archive::write(scene.dir.path(), name, &bytes)).says("manifest.json");
    }
    scene.refused(&archive::write(scene.dir.path(), "zeros.gz", &bomb)).says("zeros.gz");
    // A bomb in a bomb.
    scene.refused(&archive::write(scene.dir.path(), "twice.gz", &gzip(&bomb)));
    // The bomb as a layer. It is a valid layer, but the config does not list its diff ID.
    let config = ImageBuilder::new(vec![Layer::file("app", b"one")]).config();
    let all = [
        entry("bomb.tar.gz", &bomb),
        entry("c.json", &config),
        manifest("c.json", &["bomb.tar.gz"]),
    ]
    .concat();
    for (name, bytes) in [("layer.tar", all.clone()), ("layer.tar.gz", gzip(&all))] {
        scene.refused(&archive::write(scene.dir.path(), name, &bytes)).says("bomb.tar.gz");
    }
}

#[test]
fn names_that_point_out_of_the_archive_lead_nowhere() {
    let scene = Scene::new();
    let secret = "root:x:0:0";
    let layer = Layer::file("app", b"one");
    let config = ImageBuilder::new(vec![layer.clone()]).config();
    let good = [entry("a/layer.tar", &layer.tar), entry("c.json", &config)].concat();
    let link = |name: &str, to: &str, kind: u8| header(name, 0, kind, to).to_vec();
    let cases: Vec<(&str, Vec<u8>)> = vec![
        (
            "config outside",
            [good.clone(), manifest("../../../../etc/passwd", &["a/layer.tar"])].concat(),
        ),
        ("config absolute", [good.clone(), manifest("/etc/passwd", &["a/layer.tar"])].concat()),
        ("layer outside", [good.clone(), manifest("c.json", &["../../../../etc/passwd"])].concat()),
        ("layer absolute", [good.clone(), manifest("c.json", &["/etc/passwd"])].concat()),
        (
            "link outside",
            [
                good.clone(),
                link("b/layer.tar", "../../../../etc/passwd", b'2'),
                manifest("c.json", &["b/layer.tar"]),
            ]
            .concat(),
        ),
        (
            "link absolute",
            [
                good.clone(),
                link("b/layer.tar", "/etc/passwd", b'2'),
                manifest("c.json", &["b/layer.tar"]),
            ]
            .concat(),
        ),
        (
            "hard link outside",
            [
                good.clone(),
                link("b/layer.tar", "/etc/passwd", b'1'),
                manifest("c.json", &["b/layer.tar"]),
            ]
            .concat(),
        ),
        (
            "link to itself",
            [
                good.clone(),
                link("b/layer.tar", "layer.tar", b'2'),
                manifest("c.json", &["b/layer.tar"]),
            ]
            .concat(),
        ),
        (
            "links in a circle",
            [
                good.clone(),
                link("b/layer.tar", "../d/layer.tar", b'2'),
                link("d/layer.tar", "../b/layer.tar", b'2'),
                manifest("c.json", &["b/layer.tar"]),
            ]
            .concat(),
        ),
        (
            "hard link to itself",
            [
                good.clone(),
                link("b/layer.tar", "b/layer.tar", b'1'),
                manifest("c.json", &["b/layer.tar"]),
            ]
            .concat(),
        ),
        (
            "manifest links to itself",
            [good.clone(), link("manifest.json", "manifest.json", b'2')].concat(),
        ),
        (
            "device",
            [good.clone(), link("b/layer.tar", "", b'3'), manifest("c.json", &["b/layer.tar"])]
                .concat(),
        ),
        ("empty names", [good.clone(), manifest("", &[""])].concat()),
        ("dots", [good, manifest("..", &["."])].concat()),
    ];
    for (name, mut tar) in cases {
        tar.extend([0; 1024]);
        for (suffix, bytes) in [("tar", tar.clone()), ("tar.gz", gzip(&tar))] {
            let path = archive::write(scene.dir.path(), &format!("image.{suffix}"), &bytes);
            let output = scene.refused(&path).never_says(secret);
            assert!(output.stderr.contains("image."), "{name}\n{output}");
        }
    }
}

#[test]
fn names_are_printed_without_their_escape_codes() {
    let scene = Scene::new();
    let layer = Layer::file("app", b"one");
    let config = ImageBuilder::new(vec![layer.clone()]).config();
    let evil = "\u{1b}[2Jevil\n/layer.tar";
    let files: [(&str, &[u8]); 2] = [("c.json", &config), ("manifest.json", &[])];
    let manifest =
        json!([{ "Config": "c.json", "RepoTags": [evil], "Layers": [evil] }]).to_string();
    let tar = tar_of(&[files[0], ("manifest.json", manifest.as_bytes())]);
    let path = archive::write(scene.dir.path(), "evil.tar", &tar);
    scene.refused(&path).plain().never_says("\u{1b}");
    let named = ImageBuilder::new(vec![layer]).repo_tags(&["\u{1b}[31mred", "\u{7}bell"]);
    let path = named.write(scene.dir.path(), "named.tar");
    Pushimg::new().run([path]).exits(2).never_says("\u{1b}").never_says("\u{7}");
}

#[test]
fn json_as_deep_as_a_well_is_refused() {
    let scene = Scene::new();
    let layer = Layer::file("app", b"one");
    let layer = entry("a/layer.tar", &layer.tar);
    let deep = b"[".repeat(1_000_000);
    let all = [layer.clone(), entry("manifest.json", &deep)].concat();
    scene.refused(&archive::write(scene.dir.path(), "deep.tar", &all)).says("manifest.json");
    let deep = [&br#"{"rootfs":"#[..], &br#"{"a":"#.repeat(500_000)].concat();
    let all =
        [layer.clone(), entry("c.json", &deep), manifest("c.json", &["a/layer.tar"])].concat();
    scene.refused(&archive::write(scene.dir.path(), "deep2.tar", &all)).says("c.json");
    // A very large number of diff IDs and of layers.
    let ids = vec![sha256(b"x"); 60_000];
    let wide = json!({ "rootfs": { "type": "layers", "diff_ids": ids } }).to_string();
    let all =
        [layer, entry("c.json", wide.as_bytes()), manifest("c.json", &vec!["a/layer.tar"; 60_000])]
            .concat();
    scene.refused(&archive::write(scene.dir.path(), "wide.tar", &all));
}

#[test]
fn headers_that_lie_about_lengths_are_refused() {
    let scene = Scene::new();
    let layer = Layer::file("app", b"one");
    let config = ImageBuilder::new(vec![layer.clone()]).config();
    let rest = [entry("c.json", &config), manifest("c.json", &["a/layer.tar"])].concat();
    for size in [1 << 40, u64::MAX >> 1, (8 << 30) - 1] {
        let mut lying = tar::Header::new_gnu();
        lying.set_path("a/layer.tar").expect("a name");
        lying.set_mode(0o644);
        lying.set_size(size);
        lying.set_cksum();
        let all = [&lying.as_bytes()[..], &pad(&layer.tar), &rest].concat();
        for (name, bytes) in [("lying.tar", all.clone()), ("lying.tar.gz", gzip(&all))] {
            scene.refused(&archive::write(scene.dir.path(), name, &bytes)).says("lying.tar");
        }
    }
    // A name of a gigabyte.
    let path = scene.path("name.tar.gz");
    let file = File::create(&path).expect("a file");
    let mut gzip = GzEncoder::new(BufWriter::new(file), Compression::fast());
    gzip.write_all(&header("././@LongLink", GIB, b'L', "")).expect("write");
    for _ in 0..1024 {
        gzip.write_all(&vec![b'n'; 1 << 20]).expect("write");
    }
    gzip.finish().expect("write").flush().expect("write");
    scene.refused(&path).says("name.tar.gz");
}

#[test]
fn damage_anywhere_is_an_error_or_no_damage() {
    let scene = Scene::new();
    let mut draw = 1_u64;
    let mut below = |bound: usize| {
        draw = draw.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (draw >> 33) as usize % bound
    };
    for name in
        ["layered-v1.tar.gz", "docker-save-v24.tar", "docker-save-v25.tar", "build-image.tar.gz"]
    {
        let bytes = std::fs::read(testdata(name)).expect("an archive");
        let expected = pull::expected(&testdata(name), 0);
        for round in 0..8 {
            let at = below(bytes.len());
            let damaged = match round % 2 {
                0 => truncated(&bytes, at),
                _ => corrupted(&bytes, at),
            };
            let path = archive::write(scene.dir.path(), &format!("damaged-{name}"), &damaged);
            let output = scene.push(&path);
            if output.code() == Some(0) {
                // The changed byte does not belong to the image: it is in padding, an owner or a
                // VERSION file.
                let pulled = pull::oci(scene.registry.host(), "hostile", "v1");
                let ids = pulled.diff_ids();
                assert_eq!(ids, expected.diff_ids, "{name} at {at}");
            }
        }
    }
}
