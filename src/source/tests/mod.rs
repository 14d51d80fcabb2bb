//! Tests of [`open`] with whole files: every form of archive, and every error's text.

mod damage;
mod forms;
mod reading;

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

/// Builds an archive.
struct Archive(Builder<Vec<u8>>);

impl Archive {
    fn new() -> Self {
        Self(Builder::new(Vec::new()))
    }

    fn file(mut self, name: &str, content: impl AsRef<[u8]>) -> Self {
        let content = content.as_ref();
        let mut header = Header::new_gnu();
        header.set_size(content.len() as u64);
        // The name is stored unchanged, including `./` and `..`.
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
            // The zstd program does the same. Without a checksum, damage to raw blocks would not be
            // noticed here.
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
