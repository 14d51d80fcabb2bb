//! Tests with layouts that are built here: as a folder, as a tar, and as a compressed tar.

mod choosing;
mod damage;
mod trees;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;
use crate::image::{Digest, Platform};
use crate::source::{Contents, ImagesKnown, Location, Options, open};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// Builds a layout.
#[derive(Clone, Default)]
struct Builder {
    blobs: BTreeMap<String, Vec<u8>>,
    listed: Vec<Value>,
}

impl Builder {
    fn new() -> Self {
        Self::default()
    }

    /// Adds a blob and returns its descriptor.
    fn blob(&mut self, media_type: &str, bytes: impl AsRef<[u8]>) -> Value {
        let bytes = bytes.as_ref();
        let digest = Digest::of(bytes);
        self.blobs.insert(digest.hex().to_owned(), bytes.to_vec());
        json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() })
    }

    /// Adds an image for linux of one layer.
    fn image(&mut self, architecture: &str, content: &str) -> Value {
        let layer = self.blob(LAYER, content);
        let config = json!({
            "architecture": architecture, "os": "linux",
            "rootfs": { "type": "layers", "diff_ids": [layer["digest"]] },
        });
        let config = self.blob(CONFIG, config.to_string());
        self.manifest(json!({ "config": config, "layers": [layer] }))
    }

    fn manifest(&mut self, fields: Value) -> Value {
        let mut manifest = json!({ "schemaVersion": 2, "mediaType": MANIFEST });
        merge(&mut manifest, fields);
        self.blob(MANIFEST, manifest.to_string())
    }

    fn index<'v>(&mut self, manifests: impl IntoIterator<Item = &'v Value>) -> Value {
        let manifests: Vec<_> = manifests.into_iter().collect();
        let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": manifests });
        self.blob(INDEX, index.to_string())
    }

    /// Adds an artifact that refers to another manifest.
    fn referrer(&mut self, subject: &Value, kind: &str) -> Value {
        let empty = self.blob("application/vnd.oci.empty.v1+json", "{}");
        self.manifest(json!({
            "artifactType": kind,
            "config": empty,
            "layers": [empty],
            "subject": subject,
            "annotations": { "made": "by hand" },
        }))
    }

    fn list(&mut self, descriptor: &Value) -> &mut Self {
        self.listed.push(descriptor.clone());
        self
    }

    fn list_as(&mut self, name: &str, descriptor: &Value) -> &mut Self {
        let mut descriptor = descriptor.clone();
        merge(&mut descriptor, json!({ "annotations": { REF_NAME: name } }));
        self.list(&descriptor)
    }

    fn files(&self) -> Vec<(String, Vec<u8>)> {
        let index = json!({ "schemaVersion": 2, "manifests": self.listed }).to_string();
        let blobs = self.blobs.iter();
        let mut files: Vec<_> =
            blobs.map(|(hex, bytes)| (format!("blobs/sha256/{hex}"), bytes.clone())).collect();
        files.push(("index.json".to_owned(), index.into_bytes()));
        files.push(("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()));
        files
    }

    /// The layout opened as a folder, as a tar, and as a compressed tar.
    fn opened(&self) -> Vec<Opened> {
        three_ways(&self.files())
    }

    #[track_caller]
    fn select(&self, selection: &Selection) -> Tree {
        let mut trees =
            self.opened().into_iter().map(|it| it.layout.unwrap().select(selection).unwrap());
        let first = trees.next().unwrap();
        for tree in trees {
            assert_eq!(digests(&tree), digests(&first));
        }
        first
    }

    /// The error, the same in all forms; the layout is called FILE.
    #[track_caller]
    fn refused(&self, selection: &Selection) -> String {
        refused(&self.files(), selection)
    }
}

struct Opened {
    _folder: TempDir,
    path: PathBuf,
    layout: Result<Layout, Error>,
}

fn merge(into: &mut Value, from: Value) {
    let (Value::Object(into), Value::Object(from)) = (into, from) else {
        panic!("two objects");
    };
    into.extend(from);
}

fn layout_at(path: &Path) -> Result<Layout, Error> {
    let options = Options {
        images: ImagesKnown::WhenTold,
        may_run: false,
        progress: Box::new(|_, _| {}),
        note: Arc::new(|_| {}),
    };
    match open(&Location::Path(path.to_owned()), options)? {
        Contents::Layout(layout) => Ok(*layout),
        Contents::Layers(_) => panic!("{} is no layout", path.display()),
    }
}

fn tar_of(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut tar = ::tar::Builder::new(Vec::new());
    for (name, bytes) in files {
        let mut header = ::tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        tar.append_data(&mut header, name, bytes.as_slice()).unwrap();
    }
    tar.into_inner().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(bytes).unwrap();
    gzip.finish().unwrap()
}

fn as_folder(folder: &TempDir, files: &[(String, Vec<u8>)]) -> PathBuf {
    let image = folder.path().join("image");
    for (name, bytes) in files {
        let path = image.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    image
}

fn three_ways(files: &[(String, Vec<u8>)]) -> Vec<Opened> {
    let folder = tempfile::tempdir().unwrap();
    let path = as_folder(&folder, files);
    let mut all = vec![Opened { layout: layout_at(&path), path, _folder: folder }];
    let tar = tar_of(files);
    for bytes in [tar.clone(), gzip(&tar)] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("image");
        fs::write(&path, bytes).unwrap();
        all.push(Opened { layout: layout_at(&path), path, _folder: folder });
    }
    all
}

#[track_caller]
fn refused(files: &[(String, Vec<u8>)], selection: &Selection) -> String {
    let texts: Vec<String> = three_ways(files)
        .into_iter()
        .map(|it| {
            let error = it.layout.and_then(|layout| layout.select(selection)).unwrap_err();
            error.to_string().replace(it.path.to_str().unwrap(), "FILE")
        })
        .collect();
    assert!(texts.iter().all(|text| *text == texts[0]), "{texts:#?}");
    texts[0].clone()
}

fn digests(tree: &Tree) -> Vec<Digest> {
    tree.nodes.iter().map(|node| node.digest.clone()).collect()
}

fn digest_of(descriptor: &Value) -> Digest {
    descriptor["digest"].as_str().unwrap().parse().unwrap()
}

fn name(name: &str) -> Selection {
    Selection { name: Some(name.to_owned()), ..Selection::default() }
}

fn digest(descriptor: &Value) -> Selection {
    Selection { digest: Some(digest_of(descriptor)), ..Selection::default() }
}

fn platform(text: &str) -> Selection {
    Selection { platform: Some(platform_of(text)), ..Selection::default() }
}

fn platform_of(text: &str) -> Platform {
    let mut parts = text.split('/').map(str::to_owned);
    Platform {
        os: parts.next().unwrap(),
        architecture: parts.next().unwrap(),
        variant: parts.next(),
    }
}

fn on(mut descriptor: Value, platform: &str) -> Value {
    merge(&mut descriptor, json!({ "platform": platform_of(platform) }));
    descriptor
}

fn any() -> Selection {
    Selection::default()
}

/// Checks that this is the descriptor of the tree's root.
#[track_caller]
fn assert_root(tree: &Tree, descriptor: &Value) {
    assert_eq!(tree.nodes[tree.root].digest, digest_of(descriptor));
}
