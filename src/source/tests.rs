//! What [`open`] makes of whole files: every form of archive, and every error's text.

use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ::tar::{Builder, EntryType, Header};
use proptest::prelude::*;
use tempfile::TempDir;

use super::wrapping::Wrapping;
use super::*;
use crate::image::{DiffId, Digest};

/// An archive in the making.
struct Archive(Builder<Vec<u8>>);

impl Archive {
    fn new() -> Self {
        Self(Builder::new(Vec::new()))
    }

    fn file(mut self, name: &str, content: impl AsRef<[u8]>) -> Self {
        let content = content.as_ref();
        let mut header = Header::new_gnu();
        header.set_size(content.len() as u64);
        // As it is, `./` and `..` included.
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_cksum();
        self.0.append(&header, content).unwrap();
        self
    }

    fn link(mut self, kind: EntryType, name: &str, target: &str) -> Self {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(0);
        header.set_link_name_literal(target).unwrap();
        self.0.append_data(&mut header, name, &b""[..]).unwrap();
        self
    }

    fn folder(mut self, name: &str) -> Self {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Directory);
        header.set_size(0);
        self.0.append_data(&mut header, name, &b""[..]).unwrap();
        self
    }

    fn bytes(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

/// A layer's tar with one file of this content.
fn layer(content: &[u8]) -> Vec<u8> {
    Archive::new().file("hello", content).bytes()
}

fn hex(bytes: &[u8]) -> String {
    Digest::of(bytes).hex().to_owned()
}

fn config(layers: &[&[u8]]) -> String {
    let diff_ids: Vec<_> = layers.iter().map(|layer| Digest::of(layer)).collect();
    serde_json::json!({
        "architecture": "amd64", "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    })
    .to_string()
}

fn manifest(config: &str, layers: &[&str]) -> String {
    serde_json::json!([{"Config": config, "RepoTags": ["r.io/a:v1"], "Layers": layers}]).to_string()
}

/// As dockerTools.buildLayeredImage writes it.
fn nix_archive(layers: &[&[u8]]) -> Vec<u8> {
    let mut archive = Archive::new();
    let names: Vec<_> = layers.iter().map(|layer| format!("{}/layer.tar", hex(layer))).collect();
    for (name, layer) in names.iter().zip(layers) {
        archive = archive.file(name, layer);
    }
    let config = config(layers);
    let config_name = format!("{}.json", hex(config.as_bytes()));
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    archive
        .file(&config_name, &config)
        .file("manifest.json", manifest(&config_name, &names))
        .bytes()
}

fn compress(bytes: &[u8], wrapping: Wrapping) -> Vec<u8> {
    match wrapping {
        Wrapping::None => bytes.to_vec(),
        Wrapping::Gzip => {
            let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            out.write_all(bytes).unwrap();
            out.finish().unwrap()
        }
        Wrapping::Zstd => {
            let mut out = zstd::Encoder::new(Vec::new(), 1).unwrap();
            // As the zstd program does; without, damage to raw blocks goes unnoticed here.
            out.include_checksum(true).unwrap();
            out.write_all(bytes).unwrap();
            out.finish().unwrap()
        }
        Wrapping::Xz => {
            let mut out = liblzma::write::XzEncoder::new(Vec::new(), 0);
            out.write_all(bytes).unwrap();
            out.finish().unwrap()
        }
        Wrapping::Bzip2 => {
            let mut out = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
            out.write_all(bytes).unwrap();
            out.finish().unwrap()
        }
    }
}

const WRAPPINGS: [Wrapping; 5] =
    [Wrapping::None, Wrapping::Gzip, Wrapping::Zstd, Wrapping::Xz, Wrapping::Bzip2];

/// A folder with a file called `image`.
fn folder_with(bytes: &[u8]) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image");
    fs::write(&path, bytes).unwrap();
    (folder, path)
}

fn open_path(path: &Path) -> Result<Box<dyn Source>, Error> {
    open_with(path, |_, _| {})
}

fn open_with(
    path: &Path,
    progress: impl Fn(u64, Option<u64>) + Send + 'static,
) -> Result<Box<dyn Source>, Error> {
    let options = Options {
        images: ImagesKnown::WhenTold,
        may_run: false,
        progress: Box::new(progress),
        note: Arc::new(|_| {}),
    };
    match open(&Location::Path(path.to_owned()), options)? {
        Contents::Layers(source) => Ok(source),
        Contents::Layout(_) => panic!("{} is a layout", path.display()),
    }
}

/// Everything that a source gives.
struct Whole {
    layers: Vec<(String, Claim, Vec<u8>)>,
    images: Vec<Image>,
}

impl Whole {
    /// The layers of an image, by content.
    fn contents(&self, image: usize) -> Vec<&[u8]> {
        self.images[image].layers.iter().map(|id| self.layers[id.0].2.as_slice()).collect()
    }
}

fn read_whole(source: &mut dyn Source) -> Result<Whole, Error> {
    let mut layers = Vec::new();
    while let Some(layer) = source.next_layer()? {
        assert_eq!(layer.id, LayerId(layers.len()));
        let mut content = Vec::new();
        layer
            .content
            .read_to_end(&mut content)
            .map_err(|error| Error::from_read(error, &layer.entry))?;
        assert_eq!(content.len() as u64, layer.size);
        layers.push((layer.entry, layer.claim, content));
    }
    Ok(Whole { layers, images: source.images().expect("known at the end").to_vec() })
}

/// The error, without printing megabytes if there is none.
fn failure(result: Result<Whole, Error>) -> Error {
    result.err().expect("an error")
}

fn read_path(path: &Path) -> Result<Whole, Error> {
    read_whole(&mut *open_path(path)?)
}

/// Reads a tar as it is, by seeking, and as a stream.
fn read_both_ways(archive: &[u8]) -> [Result<Whole, Error>; 2] {
    let (_folder, plain) = folder_with(archive);
    let (_folder2, packed) = folder_with(&compress(archive, Wrapping::Gzip));
    [read_path(&plain), read_path(&packed)]
}

/// The text of the error, the same by seeking and as a stream; the file is called FILE.
fn error_both_ways(archive: &[u8]) -> String {
    let texts = [archive.to_vec(), compress(archive, Wrapping::Gzip)].map(|bytes| {
        let (_folder, path) = folder_with(&bytes);
        let text = failure(read_path(&path)).to_string();
        text.replace(path.to_str().unwrap(), "FILE")
    });
    assert_eq!(texts[0], texts[1]);
    texts[0].clone()
}

fn error_of(bytes: &[u8]) -> String {
    let (_folder, path) = folder_with(bytes);
    let text = failure(read_path(&path)).to_string();
    text.replace(path.to_str().unwrap(), "FILE")
}

#[test]
fn a_nix_image_reads_the_same_in_every_compression() {
    let (one, two) = (layer(b"one"), layer(&[2; 700_000]));
    let archive = nix_archive(&[&one, &two]);
    for wrapping in WRAPPINGS {
        let (_folder, path) = folder_with(&compress(&archive, wrapping));
        let whole = read_path(&path).unwrap();
        assert_eq!(whole.contents(0), [&one, &two], "{wrapping}");
        assert_eq!(whole.images[0].names, ["r.io/a:v1"]);
        let diff_id: DiffId = Digest::of(&one).into();
        let claim = match wrapping {
            Wrapping::None => Claim::DiffId(diff_id),
            _ => Claim::Hint(diff_id),
        };
        assert_eq!(whole.layers[0].1, claim, "{wrapping}");
    }
}

#[test]
fn images_are_known_at_once_where_the_source_can_seek_and_at_the_end_where_not() {
    let archive = nix_archive(&[&layer(b"one")]);
    let (_folder, path) = folder_with(&archive);
    assert!(open_path(&path).unwrap().images().is_some());

    let (_folder, path) = folder_with(&compress(&archive, Wrapping::Gzip));
    let mut source = open_path(&path).unwrap();
    assert!(source.images().is_none());
    assert!(source.next_layer().unwrap().is_some());
    assert!(source.images().is_none());
    assert!(source.next_layer().unwrap().is_none());
    assert_eq!(source.images().unwrap().len(), 1);
    assert!(source.next_layer().unwrap().is_none());
}

#[test]
fn a_layer_left_unread_or_half_read_does_not_disturb_the_next() {
    let layers = [layer(&[1; 5000]), layer(&[2; 3000]), layer(&[3; 9000])];
    let archive = nix_archive(&[&layers[0], &layers[1], &layers[2]]);
    for wrapping in WRAPPINGS {
        let (_folder, path) = folder_with(&compress(&archive, wrapping));
        let mut source = open_path(&path).unwrap();
        source.next_layer().unwrap().unwrap();
        let second = source.next_layer().unwrap().unwrap();
        second.content.read_exact(&mut [0; 700]).unwrap();
        let third = source.next_layer().unwrap().unwrap();
        let mut content = Vec::new();
        third.content.read_to_end(&mut content).unwrap();
        assert_eq!(content, layers[2]);
        assert!(source.next_layer().unwrap().is_none());
        assert_eq!(source.images().unwrap()[0].layers.len(), 3);
    }
}

#[test]
fn a_result_link_and_a_pipe_are_read() {
    let archive = nix_archive(&[&layer(b"one")]);
    let (folder, path) = folder_with(&archive);
    let result = folder.path().join("result");
    symlink(&path, &result).unwrap();
    assert_eq!(read_path(&result).unwrap().images.len(), 1);

    for wrapping in WRAPPINGS {
        let pipe = folder.path().join(format!("pipe-{wrapping}"));
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let bytes = compress(&archive, wrapping);
        let writer = std::thread::spawn({
            let pipe = pipe.clone();
            move || fs::write(pipe, bytes)
        });
        let mut source = open_path(&pipe).unwrap();
        assert!(source.images().is_none());
        assert_eq!(read_whole(&mut *source).unwrap().images.len(), 1);
        // Whoever wrote got rid of everything.
        writer.join().unwrap().unwrap();
    }
}

#[test]
fn build_image_and_old_docker_save_share_layers_by_links() {
    let (base, own) = (layer(b"base"), layer(b"own"));
    let (a, b, c, d) = ("a".repeat(64), "b".repeat(64), "c".repeat(64), "d".repeat(64));
    let config = config(&[&base, &own, &base, &own]);
    let names: Vec<_> = [&a, &b, &c, &d].map(|id| format!("{id}/layer.tar")).to_vec();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let archive = Archive::new()
        .folder(&a)
        .file(&format!("{a}/VERSION"), "1.0")
        .file(&format!("{a}/json"), "{}")
        .file(names[0], &base)
        .file(names[1], &own)
        .link(EntryType::Symlink, names[2], &format!("../{a}/layer.tar"))
        .link(EntryType::Link, names[3], names[1])
        .file("cfg.json", config)
        .file("manifest.json", manifest("cfg.json", &names))
        .file("repositories", "{}")
        .bytes();
    let [seeked, streamed] = read_both_ways(&archive).map(Result::unwrap);
    for whole in [&seeked, &streamed] {
        assert_eq!(whole.layers.len(), 2);
        assert_eq!(whole.contents(0), [&base, &own, &base, &own]);
    }
    assert_eq!(seeked.layers[0].1, Claim::DiffId(Digest::of(&base).into()));
    // A v1 id looks like a diff ID, so it is a hint, and a wrong one.
    assert!(matches!(&streamed.layers[0].1, Claim::Hint(_)));
}

#[test]
fn docker_25_and_podman_archives_are_read() {
    let one = layer(b"one");
    let config = config(&[&one]);
    let config_name = format!("blobs/sha256/{}", hex(config.as_bytes()));
    let layer_name = format!("blobs/sha256/{}", hex(&one));
    let docker = Archive::new()
        .folder("blobs/")
        .folder("blobs/sha256/")
        .file(&config_name, &config)
        .file(&layer_name, &one)
        .file(&format!("blobs/sha256/{}", "f".repeat(64)), r#"{"schemaVersion":2}"#)
        .file("index.json", "{}")
        .file("manifest.json", manifest(&config_name, &[&layer_name]))
        .file("oci-layout", "{}")
        .file("repositories", "{}")
        .bytes();
    let tar_name = format!("{}.tar", hex(&one));
    let podman = Archive::new()
        .file(&tar_name, &one)
        .link(
            EntryType::Symlink,
            &format!("{}/layer.tar", "e".repeat(64)),
            &format!("../{tar_name}"),
        )
        .file("c.json", &config)
        .file("manifest.json", manifest("c.json", &[&tar_name]))
        .bytes();
    for archive in [docker, podman] {
        let [seeked, streamed] = read_both_ways(&archive).map(Result::unwrap);
        assert_eq!(seeked.contents(0), [&one]);
        assert_eq!(streamed.contents(0), [&one]);
        assert_eq!(streamed.layers.len(), 1);
        let diff_id: DiffId = Digest::of(&one).into();
        // Docker's may be a layout as well, and which it is only the end tells: it is read by
        // seeking, in a temporary file.
        let claim = match streamed.layers[0].0.starts_with("blobs/") {
            true => Claim::DiffId(diff_id),
            false => Claim::Hint(diff_id),
        };
        assert_eq!(streamed.layers[0].1, claim);
    }
}

#[test]
fn layers_that_are_gzip_already_are_given_as_they_are() {
    let packed = compress(&layer(b"one"), Wrapping::Gzip);
    let one = layer(b"one");
    let name = format!("{}.tar.gz", hex(&packed));
    // The config's name has no `.json`.
    let archive = Archive::new()
        .file("sha256:0123", config(&[&one]))
        .file(&name, &packed)
        .file("manifest.json", manifest("sha256:0123", &[&name]))
        .bytes();
    for whole in read_both_ways(&archive) {
        assert_eq!(whole.unwrap().contents(0), [&packed]);
    }
}

#[test]
fn several_images_share_layers_and_one_without_names_has_none() {
    let (one, two) = (layer(b"one"), layer(b"two"));
    let list = serde_json::json!([
        {"Config": "./a.json", "RepoTags": ["a:1", "a:2"], "Layers": ["./1.tar", "2.tar"]},
        {"Config": "b.json", "RepoTags": null, "Layers": ["2.tar"]},
        {"Config": "c.json", "RepoTags": [], "Layers": null},
    ]);
    let archive = Archive::new()
        .file("./manifest.json", list.to_string())
        .file("2.tar", &two)
        .file("./1.tar", &one)
        .file("unused.tar", layer(b"unused"))
        .file("a.json", config(&[&one, &two]))
        .file("./b.json", config(&[&two]))
        .file("c.json", config(&[]))
        .bytes();
    let [seeked, streamed] = read_both_ways(&archive).map(Result::unwrap);
    for whole in [&seeked, &streamed] {
        assert_eq!(whole.images.len(), 3);
        assert_eq!(whole.contents(0), [&one, &two]);
        assert_eq!(whole.contents(1), [&two]);
        assert!(whole.contents(2).is_empty());
        assert_eq!(whole.images[0].names, ["a:1", "a:2"]);
        assert!(whole.images[1].names.is_empty());
    }
    // Seeking, it is known beforehand what belongs to no image.
    assert_eq!((seeked.layers.len(), streamed.layers.len()), (2, 3));
}

#[test]
fn of_two_entries_with_one_name_the_later_counts() {
    let (old, new) = (layer(b"old"), layer(b"new"));
    let archive = Archive::new()
        .file("l.tar", &old)
        .file("c.json", config(&[]))
        .file("l.tar", &new)
        .file("c.json", config(&[&new]))
        .file("manifest.json", manifest("c.json", &["l.tar"]))
        .bytes();
    for whole in read_both_ways(&archive) {
        assert_eq!(whole.unwrap().contents(0), [&new]);
    }
}

#[test]
fn what_manifest_and_config_say_is_checked() {
    let one = layer(b"one");
    let good = || Archive::new().file("l.tar", &one).file("c.json", config(&[&one]));
    for (archive, expected) in [
        (
            good(),
            "FILE is a tar archive without manifest.json or oci-layout, so it is no docker archive \
             and no OCI layout; make one with `nix build .#docker`, `docker save` or `podman save`",
        ),
        (
            good().file("manifest.json", "[]"),
            "FILE: manifest.json lists no image; name one when saving: `docker save IMAGE`",
        ),
        (
            good().file("manifest.json", r#"{"schemaVersion":2}"#),
            "FILE: manifest.json is not the one of a docker archive: it must be a list, and \
             is an object; make the archive again",
        ),
        (
            good().file("manifest.json", manifest("../x.json", &["l.tar"])),
            "FILE: manifest.json names the config \"../x.json\", which is not in the archive; it is \
             incomplete, make it again",
        ),
        (
            good().file("manifest.json", manifest("c.json", &["m.tar"])),
            "FILE: manifest.json names the layer \"m.tar\", which is not in the archive; it is \
             incomplete, make it again",
        ),
        (
            good().file("manifest.json", manifest("c.json", &["l.tar", "l.tar"])),
            "FILE: config \"c.json\" lists 1 diff IDs, but manifest.json lists 2 layers for it; the \
             archive is broken, make it again",
        ),
        (
            good()
                .link(EntryType::Symlink, "a", "b")
                .link(EntryType::Symlink, "b", "a")
                .file("manifest.json", manifest("c.json", &["a"])),
            "FILE: the link \"a\" leads in a circle; the archive is broken, make it again",
        ),
        (
            good()
                .file("bad.json", "{\"rootfs\": 1}")
                .file("manifest.json", manifest("bad.json", &[])),
            "FILE: config \"bad.json\": the image config is not what OCI image-spec describes: \
             `rootfs` must be an object, and is a number; the archive is broken, make it again",
        ),
        (
            good()
                .file("two.json", config(&[&one, b"x"]))
                .file("manifest.json", manifest("two.json", &["l.tar", "l.tar"])),
            "FILE: layer \"l.tar\" is listed under two diff IDs, ",
        ),
        (
            good().file("manifest.json", vec![b' '; (4 << 20) + 1]),
            "FILE: \"manifest.json\" is 4194305 bytes long, more than the 4194304 that are read of \
             it; this is not what an image builder writes",
        ),
        (
            good()
                .file("big.json", vec![b' '; (8 << 20) + 1])
                .file("manifest.json", manifest("big.json", &[])),
            "FILE: \"big.json\" is 8388609 bytes long, more than the 8388608 that are read of it; \
             this is not what an image builder writes",
        ),
        (
            Archive::new().folder("etc").file("etc/passwd", "root"),
            "FILE is a root file system (it holds \"etc/passwd\"), not a docker archive; make an \
             image of it first: `docker import FILE NAME`, then `docker save NAME`",
        ),
        (
            Archive::new().file("oci-layout", "{}").file("index.json", "{}"),
            "FILE: oci-layout is broken: `imageLayoutVersion` is missing; make the layout again",
        ),
    ] {
        let text = error_both_ways(&archive.bytes());
        assert!(text.starts_with(expected), "{text}\n{expected}");
    }
}

#[test]
fn a_layer_that_is_none_is_an_error_in_a_stream() {
    let archive = Archive::new()
        .file("l.tar", "this is no tar")
        .file("no.json", "\x01")
        .file("c.json", config(&[b"x"]))
        .file("manifest.json", manifest("c.json", &["l.tar"]))
        .bytes();
    assert_eq!(
        error_of(&compress(&archive, Wrapping::Zstd)),
        "FILE: layer \"l.tar\" is neither a tar nor gzip, zstd, xz or bzip2; the archive is broken, \
         make it again"
    );
    let archive = Archive::new()
        .file("no.json", "\x01")
        .file("manifest.json", manifest("no.json", &[]))
        .bytes();
    assert_eq!(
        error_of(&compress(&archive, Wrapping::Zstd)),
        "FILE: config \"no.json\" is not JSON; the archive is broken, make it again"
    );
}

#[test]
fn json_is_kept_up_to_a_limit_only() {
    let mut archive = Archive::new();
    for n in 0..9 {
        archive = archive.file(&format!("{n}.json"), vec![b' '; 8 << 20]);
    }
    let archive =
        archive.file("c.json", config(&[])).file("manifest.json", manifest("c.json", &[])).bytes();
    // Seeking, only what is needed is read at all.
    let [seeked, streamed] = read_both_ways(&archive);
    assert_eq!(seeked.unwrap().images.len(), 1);
    let text = failure(streamed).to_string();
    assert!(text.contains("more JSON than the 32 MiB kept"), "{text}");
}

#[test]
fn sparse_layers_are_errors() {
    let one = layer(b"one");
    let mut archive = Archive::new().file("c.json", config(&[&one]));
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::GNUSparse);
    header.as_old_mut().name[..5].copy_from_slice(b"l.tar");
    header.set_size(0);
    header.set_cksum();
    archive.0.append(&header, &b""[..]).unwrap();
    let archive = archive.file("manifest.json", manifest("c.json", &["l.tar"]));
    assert_eq!(
        error_both_ways(&archive.bytes()),
        "FILE: layer \"l.tar\" is stored as a sparse file, which is not read; make the archive \
         without `tar --sparse`"
    );
}

#[test]
fn a_million_entries_are_an_error_not_a_memory_hog() {
    let mut bytes = Vec::new();
    let mut header = Header::new_gnu();
    header.set_size(0);
    for n in 0..70_000 {
        let name = format!("{n:08}");
        header.as_old_mut().name[..8].copy_from_slice(name.as_bytes());
        header.set_cksum();
        bytes.extend(header.as_bytes());
    }
    let text = error_both_ways(&bytes);
    assert!(text.starts_with("FILE holds more than 65536 files"), "{text}");
}

#[test]
fn what_is_no_archive_gets_its_own_word() {
    for (bytes, expected) in [
        (&b""[..], "FILE is empty (0 bytes); was the build"),
        (
            b"#! /nix/store/x/bash -e\nexec",
            "FILE is a script, but may not be executed, and is not what Nix's streamLayeredImage makes; if it writes an image, make it executable: `chmod +x FILE`",
        ),
        (b"\x7fELF\x02\x01", "FILE is a program, but may not be executed, and"),
        (b" {\"version\": 1}", "FILE is a JSON file without `image-config`, not an image; of JSON"),
        (
            b"Dear reader,\n\xc3\xa9",
            "FILE is not an image: it is a text file; give a docker archive",
        ),
        (
            b"<!DOCTYPE html>",
            "FILE is not an image: it is an HTML or XML page, as a failed download",
        ),
        (
            b"version https://git-lfs.github.com/spec/v1",
            "FILE is not an image: it is a Git LFS pointer",
        ),
        (b"PK\x03\x04", "FILE is not an image: it is a zip file"),
        (b"\x00\x01\x02", "FILE is not an image: it is neither a tar nor gzip, zstd, xz or bzip2"),
    ] {
        let text = error_of(bytes);
        assert!(text.starts_with(expected), "{text}\n{expected}");
    }
    let (folder, path) = folder_with(b"");
    let text = open_path(&folder.path().join("no\x1bne")).err().unwrap().to_string();
    assert!(text.ends_with(
        "no\\u{1b}ne: no such file; build the image first (`nix build` leaves ./result), or give \
         `-` to read it from standard input"
    ), "{text}");
    let text = open_path(&path.join("below")).err().unwrap().to_string();
    assert!(text.contains("cannot be opened"), "{text}");
    let text = open_path(folder.path()).err().unwrap().to_string();
    assert!(text.contains("is a directory, but neither an OCI layout"), "{text}");
    fs::write(folder.path().join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    let text = open_path(folder.path()).err().unwrap().to_string();
    assert!(text.contains("index.json is missing"), "{text}");
}

#[test]
fn what_is_compressed_but_no_tar_says_so() {
    for wrapping in &WRAPPINGS[1..] {
        assert_eq!(
            error_of(&compress(&[b'x'; 2000], *wrapping)),
            format!(
                "FILE is {wrapping} data, but what is inside is not a tar archive; give a docker \
                 archive, plain or compressed once"
            )
        );
    }
    let mut damaged = nix_archive(&[]);
    damaged[0] ^= 1;
    let text = error_of(&damaged);
    assert!(
        text.starts_with("FILE: the tar archive is damaged at byte 0, in the first header"),
        "{text}"
    );
}

#[test]
fn truncated_and_corrupt_compression_is_told_apart() {
    let mut noise = vec![0; 300_000];
    let mut state = 1_u32;
    for byte in &mut noise {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        *byte = (state >> 24) as u8;
    }
    let archive = nix_archive(&[&layer(&noise)]);
    for wrapping in &WRAPPINGS[1..] {
        let packed = compress(&archive, *wrapping);
        for cut in [100, packed.len() / 2, packed.len() - 1] {
            assert_eq!(
                error_of(&packed[..cut]),
                format!(
                    "FILE: truncated {wrapping} after {cut} bytes; was the download or the build \
                     cut off? Make or fetch it again"
                )
            );
        }
        let mut damaged = packed;
        let middle = damaged.len() / 2;
        damaged[middle..middle + 2000].fill(0x55);
        let text = error_of(&damaged);
        assert!(text.starts_with(&format!("FILE: corrupt {wrapping}, noticed at byte ")), "{text}");
    }
}

#[test]
fn a_plain_tar_cut_in_half_says_where() {
    let archive = nix_archive(&[&layer(&[1; 5000])]);
    let text = error_of(&archive[..3000]);
    assert!(
        text.starts_with("FILE: the tar archive is truncated: it ends at byte 3000, in entry \""),
        "{text}"
    );
    // Between two entries a tar may end, but then there is no manifest.json.
    let text = error_of(&archive[..7168]);
    assert!(text.contains("truncated: it ends at byte 7168, in the header after entry"), "{text}");
}

#[test]
fn a_file_that_shrinks_while_it_is_read_is_an_error() {
    let archive = nix_archive(&[&layer(&[1; 5000])]);
    let (_folder, path) = folder_with(&archive);
    let mut source = open_path(&path).unwrap();
    fs::File::options().write(true).open(&path).unwrap().set_len(1000).unwrap();
    let text = failure(read_whole(&mut *source)).to_string();
    assert!(text.contains("it ends at byte 1000, in entry"), "{text}");
}

#[test]
fn a_window_that_takes_too_much_memory_is_an_error() {
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
    encoder.window_log(28).unwrap();
    encoder.write_all(&nix_archive(&[])).unwrap();
    let text = error_of(&encoder.finish().unwrap());
    assert_eq!(
        text,
        "FILE: its zstd compression needs more than 128 MiB of memory to read; decompress it first: \
         `zstd -dc --long=31 FILE | pushimg - DEST`"
    );
    let mut options = liblzma::stream::LzmaOptions::new_preset(0).unwrap();
    options.dict_size(128 << 20);
    let mut filters = liblzma::stream::Filters::new();
    filters.lzma2(&options);
    let stream =
        liblzma::stream::Stream::new_stream_encoder(&filters, liblzma::stream::Check::Crc64);
    let mut encoder = liblzma::write::XzEncoder::new_stream(Vec::new(), stream.unwrap());
    encoder.write_all(&nix_archive(&[])).unwrap();
    let text = error_of(&encoder.finish().unwrap());
    assert!(text.starts_with("FILE: its xz compression needs more than 72 MiB"), "{text}");
}

#[test]
fn a_source_tells_how_much_memory_it_takes_and_keeps_to_it() {
    let archive = nix_archive(&[&layer(&[7; 200_000])]);
    let framed = |window_log, bytes: &[u8]| {
        let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(window_log).unwrap();
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    let memory = |bytes: &[u8]| {
        let (_folder, path) = folder_with(bytes);
        open_path(&path).unwrap().memory()
    };
    assert_eq!(memory(&archive), 0);
    assert_eq!(memory(&compress(&archive, Wrapping::Gzip)), 0);
    // Any frame may take 8 MiB; where a frame does not say early, it is taken to need the most.
    assert_eq!(memory(&framed(20, &archive)), 8 << 20);
    assert_eq!(memory(&framed(25, &archive)), 32 << 20);
    assert_eq!(memory(&[b"\x50\x2a\x4d\x18\0\0\0\0", &*framed(20, &archive)].concat()), 64 << 20);

    let (head, tail) = archive.split_at(archive.len() / 2);
    let grown = [framed(20, head), framed(24, tail)].concat();
    let text = error_of(&grown);
    assert!(text.starts_with("FILE: its zstd compression needs more than 8 MiB"), "{text}");
}

#[test]
fn several_frames_members_and_streams_are_one_file() {
    let archive = nix_archive(&[&layer(b"one")]);
    let (head, tail) = archive.split_at(1000);
    for wrapping in &WRAPPINGS[1..] {
        let mut bytes = compress(head, *wrapping);
        bytes.extend(compress(tail, *wrapping));
        let (_folder, path) = folder_with(&bytes);
        assert_eq!(read_path(&path).unwrap().images.len(), 1, "{wrapping}");
    }
}

#[test]
fn progress_ends_at_the_length_of_the_file() {
    let archive = nix_archive(&[&layer(&[1; 50_000])]);
    for wrapping in WRAPPINGS {
        let (_folder, path) = folder_with(&compress(&archive, wrapping));
        let seen = Arc::new(Mutex::new(Vec::new()));
        let sink = seen.clone();
        let mut source =
            open_with(&path, move |at, total| sink.lock().unwrap().push((at, total))).unwrap();
        read_whole(&mut *source).unwrap();
        let length = fs::metadata(path).unwrap().len();
        let seen = seen.lock().unwrap();
        assert_eq!(seen.last(), Some(&(length, Some(length))), "{wrapping}");
        assert!(seen.is_sorted());
    }
}

#[test]
fn a_source_that_is_dropped_ends_its_thread() {
    let (_folder, path) =
        folder_with(&compress(&nix_archive(&[&layer(&vec![0; 30 << 20])]), Wrapping::Gzip));
    // The thread owns the closure, and with it one of the two references.
    let alive = Arc::new(AtomicU64::new(0));
    let held = alive.clone();
    let mut source = open_with(&path, move |at, _| held.store(at, Ordering::Relaxed)).unwrap();
    source.next_layer().unwrap().unwrap();
    assert_eq!(Arc::strong_count(&alive), 2);
    drop(source);
    let gone = (0..500).any(|_| {
        std::thread::sleep(Duration::from_millis(10));
        Arc::strong_count(&alive) == 1
    });
    assert!(gone);
}

#[test]
fn archives_of_gnu_tar_in_all_its_formats_are_read() {
    let one = layer(&[1; 3000]);
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("image");
    // ustar has 255 bytes for a name, but 100 for a link's target.
    let long = format!("{}/{}", "d".repeat(40), "e".repeat(40));
    let longer = format!("{}/{}", "f".repeat(90), "g".repeat(90));
    fs::create_dir_all(image.join(&longer)).unwrap();
    let longer_name = format!("{longer}/layer.tar");
    fs::write(image.join(&longer_name), &one).unwrap();
    fs::create_dir_all(image.join(&long)).unwrap();
    let layer_name = format!("{long}/layer.tar");
    fs::write(image.join(&layer_name), &one).unwrap();
    fs::hard_link(image.join(&layer_name), image.join("second.tar")).unwrap();
    fs::write(image.join("c.json"), config(&[&one, &one, &one])).unwrap();
    fs::write(
        image.join("manifest.json"),
        manifest("c.json", &[&layer_name, "second.tar", &longer_name]),
    )
    .unwrap();
    for format in ["gnu", "oldgnu", "pax", "ustar"] {
        for compression in ["--no-auto-compress", "--gzip"] {
            let path = folder.path().join("out");
            let status = Command::new("tar")
                .args([&format!("--format={format}"), compression, "-cf"])
                .args([&path, Path::new("-C"), &image, Path::new(".")])
                .stderr(Stdio::inherit())
                .status()
                .unwrap();
            assert!(status.success());
            let whole = read_path(&path).unwrap();
            assert_eq!(whole.contents(0), [&one, &one, &one], "{format} {compression}");
            assert_eq!(whole.layers.len(), 2);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn random_bytes_are_an_error_and_never_a_panic(
        start in prop::sample::select(vec![
            &b""[..], b"\x1f\x8b\x08\x00", b"\x28\xb5\x2f\xfd", b"\xfd7zXZ\0", b"BZh9", b"\x1f\x8b",
        ]),
        bytes in prop::collection::vec(any::<u8>(), 0..2000),
    ) {
        let (_folder, path) = folder_with(&[start, &bytes].concat());
        prop_assert!(read_path(&path).is_err());
    }

    #[test]
    fn a_cut_archive_is_an_error_unless_only_zeros_are_missing(
        cut in any::<prop::sample::Index>(),
        kind in 0..WRAPPINGS.len(),
    ) {
        let archive = nix_archive(&[&layer(b"one"), &layer(b"two")]);
        let bytes = compress(&archive, WRAPPINGS[kind]);
        let cut = cut.index(bytes.len());
        let (_folder, path) = folder_with(&bytes[..cut]);
        match read_path(&path) {
            Err(_) => {}
            Ok(whole) => {
                // The two blocks of zeros that end a plain tar.
                prop_assert!(WRAPPINGS[kind] == Wrapping::None && cut >= bytes.len() - 1024);
                prop_assert_eq!(whole.layers.len(), 2);
            }
        }
    }
}
