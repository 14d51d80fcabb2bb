//! What is made of layouts that were put together by hand: as a folder, as a tar, and compressed.

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

/// A layout in the making.
#[derive(Clone, Default)]
struct Builder {
    blobs: BTreeMap<String, Vec<u8>>,
    listed: Vec<Value>,
}

impl Builder {
    fn new() -> Self {
        Self::default()
    }

    /// Adds a blob: its descriptor.
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
        Contents::Layout(layout) => Ok(layout),
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

/// The tree's root is what this descriptor is of.
#[track_caller]
fn assert_root(tree: &Tree, descriptor: &Value) {
    assert_eq!(tree.nodes[tree.root].digest, digest_of(descriptor));
}

#[test]
fn the_only_image_is_meant_and_its_blobs_are_found() {
    let mut layout = Builder::new();
    let image = layout.image("amd64", "a layer");
    layout.list_as("v1", &image);
    for opened in layout.opened() {
        let layout = opened.layout.unwrap();
        assert_eq!(layout.names(), ["v1"]);
        let tree = layout.select(&any()).unwrap();
        assert_eq!((tree.names.as_slice(), tree.root), (&["v1".to_owned()][..], 0));
        let [node] = tree.nodes.as_slice() else { panic!("one node") };
        assert_eq!(node.digest, digest_of(&image));
        assert_eq!(node.media_type, MANIFEST);
        assert_eq!(node.platform, Some(platform_of("linux/amd64")));
        let config = node.config.as_ref().unwrap();
        let [stored, layer] = node.blobs.as_slice() else { panic!("a config and a layer") };
        assert_eq!((&stored.digest, stored.media_type.as_str()), (config.digest(), CONFIG));
        assert_eq!(config.diff_ids()[0].digest(), &layer.digest);
        let region = layer.region.as_ref().unwrap();
        assert_eq!((region.length, layer.size), (7, 7));
        let mut bytes = [0; 20];
        assert_eq!(region.read_at(&mut bytes, 0).unwrap(), 7);
        assert_eq!(&bytes[..7], b"a layer");
        assert_eq!(region.read_at(&mut bytes, 2).unwrap(), 5);
        assert_eq!(&bytes[..5], b"layer");
        assert_eq!(region.read_at(&mut bytes, 7).unwrap(), 0);
        assert_eq!(region.read_at(&mut bytes, u64::MAX).unwrap(), 0);
    }
}

#[test]
fn an_index_is_one_image_with_all_that_it_lists_before_it() {
    let mut layout = Builder::new();
    let (one, two) = (layout.image("amd64", "1"), layout.image("arm64", "2"));
    let inner = layout.index(&[one.clone(), two.clone()]);
    let three = layout.image("s390x", "3");
    // One is listed twice.
    let outer = layout.index(&[inner.clone(), three.clone(), on(one.clone(), "linux/amd64")]);
    layout.list_as("v1", &outer);
    let tree = layout.select(&any());
    assert_eq!(digests(&tree), [&one, &two, &inner, &three, &outer].map(digest_of));
    assert_eq!(tree.root, 4);
    assert_eq!(tree.nodes[4].children, [2, 3, 0]);
    assert_eq!(tree.nodes[2].children, [0, 1]);
    assert!(tree.nodes[4].blobs.is_empty() && tree.nodes[4].config.is_none());
}

#[test]
fn attestations_and_artifacts_go_along_as_they_are() {
    let mut layout = Builder::new();
    let image = layout.image("amd64", "1");
    let statement = layout.blob("application/vnd.in-toto+json", r#"{"_type":"x"}"#);
    let config = json!({ "architecture": "unknown", "os": "unknown", "rootfs": {
        "type": "layers", "diff_ids": [statement["digest"]] } });
    let config = layout.blob(CONFIG, config.to_string());
    let attestation = layout.manifest(json!({ "config": config, "layers": [statement] }));
    // An old artifact with an image's config that is none.
    let no_config = layout.blob(CONFIG, "{}");
    let chart = layout.blob("application/vnd.cncf.helm.chart.content.v1.tar+gzip", "x");
    let artifact = layout.manifest(json!({ "config": no_config, "layers": [chart] }));
    let typed = layout.blob("application/vnd.example+json", r#"{"anything":true}"#);
    let index = layout.index(&[
        on(image, "linux/amd64"),
        on(attestation, "unknown/unknown"),
        artifact,
        typed.clone(),
    ]);
    layout.list(&index);
    let tree = layout.select(&any());
    assert_eq!(tree.nodes.len(), 5);
    assert_eq!(tree.nodes[1].platform, Some(platform_of("unknown/unknown")));
    assert_eq!(tree.nodes[1].blobs[1].media_type, "application/vnd.in-toto+json");
    assert!(tree.nodes[2].config.is_none());
    assert_eq!(tree.nodes[3].media_type, "application/vnd.example+json");
    assert_eq!(tree.nodes[3].digest, digest_of(&typed));
    assert!(tree.nodes[3].blobs.is_empty());
}

#[test]
fn dockers_manifests_and_lists_are_as_good() {
    let mut layout = Builder::new();
    let manifest_type = "application/vnd.docker.distribution.manifest.v2+json";
    let list_type = "application/vnd.docker.distribution.manifest.list.v2+json";
    let config = layout.blob(
        "application/vnd.docker.container.image.v1+json",
        r#"{"os":"linux","architecture":"arm","variant":"v7","rootfs":{"diff_ids":[]}}"#,
    );
    let manifest = json!({ "schemaVersion": 2, "config": config, "layers": [] }).to_string();
    let manifest = layout.blob(manifest_type, manifest);
    let list = json!({ "schemaVersion": 2, "mediaType": list_type, "manifests": [manifest] });
    let list = layout.blob(list_type, list.to_string());
    layout.list(&list);
    let tree = layout.select(&any());
    assert_eq!(tree.nodes[0].media_type, manifest_type);
    assert_eq!(tree.nodes[0].platform, Some(platform_of("linux/arm/v7")));
    assert_eq!(tree.nodes[1].media_type, list_type);
    assert_root(&layout.select(&platform("linux/arm")), &manifest);
}

#[test]
fn an_image_is_found_by_every_form_of_its_name() {
    let mut layout = Builder::new();
    let (one, two) = (layout.image("amd64", "1"), layout.image("amd64", "2"));
    let names = json!({ "annotations": {
        REF_NAME: "v1", "io.containerd.image.name": "docker.io/library/app:v1" } });
    let mut named = one.clone();
    merge(&mut named, names);
    layout.list(&named).list_as("docker.io/library/app:v2", &two).list_as("latest", &two);
    for wanted in ["v1", "docker.io/library/app:v1", "app:v1"] {
        let tree = layout.select(&name(wanted));
        assert_root(&tree, &one);
        assert_eq!(tree.names, ["docker.io/library/app:v1", "v1"]);
    }
    for wanted in ["v2", "app:v2", "latest"] {
        assert_root(&layout.select(&name(wanted)), &two);
    }
    assert_eq!(
        layout.refused(&name("v3\x1b")),
        "FILE holds no image \"v3\\u{1b}\"; it holds docker.io/library/app:v1, v1, \
         docker.io/library/app:v2, latest"
    );
}

#[test]
fn a_name_as_it_is_written_goes_before_its_other_forms() {
    let mut layout = Builder::new();
    let (one, two, three) =
        (layout.image("amd64", "1"), layout.image("amd64", "2"), layout.image("amd64", "3"));
    layout.list_as("v1", &one).list_as("r.io/a:v1", &two);
    assert_root(&layout.select(&name("v1")), &one);
    layout.list_as("r.io/a:v2", &two).list_as("r.io/b:v2", &three);
    assert_eq!(
        layout.refused(&name("v2")),
        format!(
            "FILE holds 2 images: r.io/a:v1, r.io/a:v2 ({}), r.io/b:v2 ({}); choose one with \
             `FILE:TAG`, `FILE@sha256:…`, `--image NAME` or, where they differ by it, `--platform \
             OS/ARCHITECTURE`",
            digest_of(&two),
            digest_of(&three)
        )
    );
}

#[test]
fn of_several_images_one_has_to_be_chosen() {
    let mut layout = Builder::new();
    for number in 0..12 {
        let image = layout.image("amd64", &number.to_string());
        match number {
            0 => layout.list(&image),
            _ => layout.list_as(&format!("v{number}"), &image),
        };
    }
    let first = layout.listed[0].clone();
    let text = layout.refused(&any());
    let start = format!("FILE holds 12 images: {}, v1, v2,", digest_of(&first));
    assert!(text.starts_with(&start), "{text}");
    assert!(text.contains("v9 and 2 more; choose one with `FILE:TAG`, `FILE@sha256:…`"), "{text}");
    assert_root(&layout.select(&digest(&first)), &first);
    let opened = layout.opened().remove(0);
    let trees = opened.layout.unwrap().trees().unwrap();
    assert_eq!(trees.len(), 12);
    assert_eq!((&trees[0].names, &trees[3].names), (&vec![], &vec!["v3".to_owned()]));
}

#[test]
fn two_names_of_one_image_are_one_image() {
    let mut layout = Builder::new();
    let image = layout.image("amd64", "1");
    layout.list_as("v1", &image).list_as("latest", &image).list_as("v1", &image);
    assert_eq!(layout.select(&any()).names, ["v1", "latest"]);
}

#[test]
fn a_digest_may_be_of_any_manifest_however_deep() {
    let mut layout = Builder::new();
    let (one, two) = (layout.image("amd64", "1"), layout.image("arm64", "2"));
    let inner = layout.index([&one]);
    let outer = layout.index(&[inner.clone(), two.clone()]);
    let other = layout.image("amd64", "3");
    layout.list_as("v1", &outer).list_as("other", &other);
    for (wanted, nodes) in [(&one, 1), (&two, 1), (&inner, 2), (&outer, 4), (&other, 1)] {
        let tree = layout.select(&digest(wanted));
        assert_root(&tree, wanted);
        assert_eq!(tree.nodes.len(), nodes);
    }
    assert_eq!(layout.select(&digest(&one)).names, ["v1"]);
    let absent = Digest::of(b"absent");
    let selection = Selection { digest: Some(absent.clone()), ..any() };
    assert_eq!(
        layout.refused(&selection),
        format!("FILE holds no image \"{absent}\"; it holds v1, other")
    );
    // With a name, it has to be of that image.
    let both = |descriptor| Selection { name: Some("v1".to_owned()), ..digest(descriptor) };
    assert_root(&layout.select(&both(&two)), &two);
    assert!(layout.refused(&both(&other)).contains("holds no image \"sha256:"));
}

#[test]
fn a_platform_means_the_same_variant_or_the_first_that_runs_there() {
    let mut layout = Builder::new();
    let (plain, v6, v7) =
        (layout.image("arm", "0"), layout.image("arm", "6"), layout.image("arm", "7"));
    let amd64 = layout.image("amd64", "x");
    let unknown = layout.image("unknown", "y");
    let inner = layout.index([&amd64]);
    let index = layout.index(&[
        on(v6.clone(), "linux/arm/v6"),
        on(v7.clone(), "linux/arm/v7"),
        inner,
        on(unknown, "unknown/unknown"),
    ]);
    let other = layout.index([&plain]);
    layout.list_as("v1", &index).list_as("v2", &other);
    let of = |image: &str, on: &str| Selection { name: Some(image.to_owned()), ..platform(on) };
    assert_root(&layout.select(&of("v1", "linux/arm/v7")), &v7);
    assert_root(&layout.select(&of("v1", "linux/arm")), &v6);
    assert_root(&layout.select(&of("v2", "linux/arm/v7")), &plain);
    // No platform in the index: the config says it.
    let tree = layout.select(&of("v1", "linux/amd64"));
    assert_root(&tree, &amd64);
    assert_eq!((tree.nodes.len(), tree.names[0].as_str()), (1, "v1"));
    assert_eq!(
        layout.refused(&of("v1", "linux/riscv64")),
        "FILE holds no image for \"linux/riscv64\"; it holds those for linux/arm/v6, linux/arm/v7, \
         linux/amd64"
    );
}

#[test]
fn a_platform_can_be_had_of_an_index_whose_others_were_left_out() {
    let mut layout = Builder::new();
    let amd64 = layout.image("amd64", "1");
    let mut others = Builder::new();
    let arm64 = on(others.image("arm64", "2"), "linux/arm64");
    let riscv64 = others.image("riscv64", "3");
    let index = layout.index(&[arm64.clone(), riscv64, amd64.clone()]);
    layout.list(&index);
    assert_root(&layout.select(&platform("linux/amd64")), &amd64);
    for selection in [any(), platform("linux/arm64")] {
        let text = layout.refused(&selection);
        let expected = format!("lists {} for \"linux/arm64\", which is missing", digest_of(&arm64));
        assert!(text.contains(&expected), "{text}");
    }
}

#[test]
fn one_manifest_of_two_indexes_is_one_image() {
    let mut layout = Builder::new();
    let (shared, own) = (layout.image("amd64", "1"), layout.image("arm64", "2"));
    let (one, two) = (layout.index([&shared]), layout.index(&[shared.clone(), own]));
    layout.list_as("v1", &one).list_as("v2", &two);
    assert_root(&layout.select(&platform("linux/amd64")), &shared);
}

#[test]
fn images_side_by_side_may_differ_by_platform_only() {
    let mut layout = Builder::new();
    let (amd64, arm64) = (layout.image("amd64", "1"), layout.image("arm64", "2"));
    layout.list_as("v1", &amd64).list_as("v1", &on(arm64.clone(), "linux/arm64"));
    assert_root(&layout.select(&platform("linux/amd64")), &amd64);
    let named = Selection { name: Some("v1".to_owned()), ..platform("linux/arm64") };
    assert_root(&layout.select(&named), &arm64);
    assert!(layout.refused(&any()).starts_with("FILE holds 2 images: v1, v1; choose"));
    let another = layout.image("amd64", "3");
    layout.list_as("v2", &another);
    let text = layout.refused(&platform("linux/amd64"));
    assert!(text.starts_with("FILE holds 2 images: v1, v2; choose"), "{text}");
    // A single manifest is held against the platform too.
    let mut single = Builder::new();
    let image = single.image("amd64", "1");
    single.list(&image);
    assert_root(&single.select(&platform("linux/amd64")), &image);
    let text = single.refused(&platform("linux/arm64"));
    assert!(
        text.ends_with("no image for \"linux/arm64\"; it holds those for linux/amd64"),
        "{text}"
    );
}

#[test]
fn referrers_follow_their_subjects_and_are_no_images() {
    let mut layout = Builder::new();
    let (one, two) = (layout.image("amd64", "1"), layout.image("arm64", "2"));
    let index = layout.index(&[one.clone(), two.clone()]);
    let of_one = layout.referrer(&one, "application/sbom");
    let of_two = layout.referrer(&two, "application/sbom");
    let of_index = layout.referrer(&index, "application/signature");
    let of_referrer = layout.referrer(&of_one, "application/signature");
    let of_nothing = layout.referrer(&json!({ "digest": Digest::of(b"x") }), "application/sbom");
    // In an order that is none.
    for referrer in [&of_referrer, &of_nothing, &of_index] {
        layout.list(referrer);
    }
    layout.list_as("v1", &index).list(&of_two).list(&of_one);
    let tree = layout.select(&any());
    assert_root(&tree, &index);
    let all = digests(&tree);
    assert_eq!(all[..4], [&one, &two, &index, &of_index].map(digest_of));
    assert_eq!(all[4..], [&of_two, &of_one, &of_referrer].map(digest_of));
    let node = &tree.nodes[3];
    assert_eq!(node.subject, Some(digest_of(&index)));
    assert_eq!(node.artifact_type.as_deref(), Some("application/signature"));
    assert_eq!(node.annotations["made"], "by hand");

    let tree = layout.select(&platform("linux/amd64"));
    assert_eq!(digests(&tree), [&one, &of_one, &of_referrer].map(digest_of));
    // A referrer is chosen by its digest only.
    assert_root(&layout.select(&digest(&of_nothing)), &of_nothing);
    let trees = layout.opened().remove(0).layout.unwrap().trees().unwrap();
    assert_eq!(trees.len(), 1);
}

#[test]
fn an_artifact_that_refers_to_nothing_here_is_an_image_where_there_is_no_other() {
    let mut layout = Builder::new();
    let elsewhere = json!({ "digest": Digest::of(b"x") });
    let (one, two) = (layout.referrer(&elsewhere, "a/a"), layout.referrer(&elsewhere, "b/b"));
    layout.list(&one);
    assert_root(&layout.select(&any()), &one);
    layout.list(&two);
    assert!(layout.refused(&any()).starts_with("FILE holds 2 images: sha256:"));
}

#[test]
fn referrers_under_the_tag_that_old_registries_need_are_found() {
    let mut layout = Builder::new();
    let image = layout.image("amd64", "1");
    let referrer = layout.referrer(&image, "application/sbom");
    let stray = layout.image("amd64", "no referrer");
    let list = layout.index(&[referrer.clone(), stray]);
    let tag = format!("sha256-{}", digest_of(&image).hex());
    layout.list_as("v1", &image).list_as(&tag, &list);
    let tree = layout.select(&any());
    assert_eq!(digests(&tree), [&image, &referrer].map(digest_of));
    assert_eq!(layout.opened().remove(0).layout.unwrap().names(), ["v1"]);
    assert!(layout.refused(&name(&tag)).contains("it holds v1"));
}

#[test]
fn manifests_that_are_listed_besides_their_index_are_no_images_of_their_own() {
    let mut layout = Builder::new();
    let (one, two) = (layout.image("amd64", "1"), layout.image("arm64", "2"));
    let index = layout.index(&[one.clone(), two.clone()]);
    layout.list(&one).list(&two).list_as("v1", &index);
    assert_root(&layout.select(&any()), &index);
    // One with a name is.
    layout.list_as("v1-amd64", &one);
    assert!(layout.refused(&any()).starts_with("FILE holds 2 images: v1-amd64, v1; choose"));
    // What is of another kind altogether is passed over.
    let mut layout = Builder::new();
    let image = layout.image("amd64", "1");
    let text = layout.blob("application/xml", "<xml/>");
    layout.list(&text).list_as("v1", &image);
    assert_root(&layout.select(&any()), &image);
}

#[test]
fn only_layers_that_others_hand_out_may_be_absent() {
    let mut layout = Builder::new();
    let diff_id = Digest::of(b"absent");
    let of = |layers: usize| {
        json!({ "rootfs": { "diff_ids": vec![diff_id.clone(); layers] } }).to_string()
    };
    let config = layout.blob(CONFIG, of(3));
    let absent =
        |media_type: &str| json!({ "mediaType": media_type, "digest": diff_id, "size": 6 });
    let elsewhere = |media_type: &str| {
        let mut descriptor = absent(media_type);
        merge(&mut descriptor, json!({ "urls": ["https://example.com/layer"] }));
        descriptor
    };
    let foreign = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";
    let private = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip";
    let layers = [elsewhere(LAYER), elsewhere(foreign), elsewhere(private)];
    let layers = json!({ "config": config, "layers": layers });
    let image = layout.manifest(layers);
    layout.list(&image);
    let tree = layout.select(&any());
    let regions: Vec<_> = tree.nodes[0].blobs.iter().map(|blob| blob.region.is_some()).collect();
    assert_eq!(regions, [true, false, false, false]);

    for media_type in [LAYER, foreign, private] {
        let mut layout = Builder::new();
        let config = layout.blob(CONFIG, of(1));
        let image = layout.manifest(json!({ "config": config, "layers": [absent(media_type)] }));
        layout.list(&image);
        assert_eq!(
            layout.refused(&any()),
            format!(
                "FILE: manifest {} lists {} (layer), which is missing; the layout is incomplete, \
                 make it again",
                digest_of(&image),
                Digest::of(b"absent")
            )
        );
    }
}

#[test]
fn what_is_missing_or_damaged_is_named() {
    let mut whole = Builder::new();
    let image = whole.image("amd64", "a layer");
    let index = whole.index([&image]);
    whole.list(&index);
    let (of_image, of_index) = (digest_of(&image), digest_of(&index));
    let of_layer = Digest::of(b"a layer");
    let changed = |digest: &Digest, bytes: Option<&[u8]>| {
        let mut layout = whole.clone();
        match bytes {
            Some(bytes) => layout.blobs.insert(digest.hex().to_owned(), bytes.to_vec()),
            None => layout.blobs.remove(digest.hex()),
        };
        layout.refused(&any())
    };
    let cases = [
        (
            changed(&of_index, None),
            format!("FILE: index.json lists {of_index} (manifest), which is missing"),
        ),
        (
            changed(&of_image, None),
            format!(
                "FILE: manifest {of_index} lists {of_image}, which is missing; \
                 if only some platforms were put into this layout, choose one with `--platform \
                 OS/ARCHITECTURE`, else make it again"
            ),
        ),
        (
            changed(&of_layer, Some(b"longer than it was")),
            format!("FILE: {of_layer} (layer) is 18 bytes long, not 7 as manifest {of_image} says"),
        ),
        (
            changed(&of_image, Some(&vec![b' '; image["size"].as_u64().unwrap() as usize])),
            format!(
                "FILE: what is stored as {of_image} (manifest, listed by manifest {of_index}) \
                 hashes to sha256:"
            ),
        ),
    ];
    for (text, expected) in cases {
        assert!(text.starts_with(&expected), "{text}\n{expected}");
    }
    let mut config = Builder::new();
    let image = config.image("amd64", "x");
    config.list(&image);
    let hex = config
        .blobs
        .iter()
        .find_map(|(hex, bytes)| bytes.starts_with(b"{\"architecture").then(|| hex.clone()))
        .unwrap();
    let blob = config.blobs.get_mut(&hex).unwrap();
    let last = blob.len() - 1;
    blob[last] = b' ';
    let text = config.refused(&any());
    assert!(text.starts_with(&format!("FILE: what is stored as sha256:{hex} (config,")), "{text}");
}

#[test]
fn an_index_in_a_circle_or_without_end_is_an_error() {
    // Two that list each other: one of the digests is a lie.
    let mut circle = Builder::new();
    let lie = Digest::of(b"a lie");
    let one = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [
        { "mediaType": INDEX, "digest": lie, "size": 999 }] })
    .to_string();
    let one = circle.blob(INDEX, one);
    let mut two = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [one] }).to_string();
    two.push_str(&" ".repeat(999 - two.len()));
    circle.blobs.insert(lie.hex().to_owned(), two.into_bytes());
    circle.list(&one);
    for selection in [any(), platform("linux/amd64"), digest(&json!({ "digest": Digest::of(b"") }))]
    {
        let text = circle.refused(&selection);
        assert!(text.starts_with(&format!("FILE: what is stored as {lie} (manifest,")), "{text}");
    }

    let mut deep = Builder::new();
    let mut index = deep.image("amd64", "1");
    for _ in 0..read::MAX_DEPTH {
        index = deep.index([&index]);
    }
    deep.list(&index);
    assert_eq!(deep.select(&any()).nodes.len(), read::MAX_DEPTH + 1);
    assert_eq!(deep.select(&platform("linux/amd64")).nodes.len(), 1);
    index = deep.index([&index]);
    deep.listed.clear();
    deep.list(&index);
    for selection in [any(), platform("linux/amd64")] {
        assert_eq!(
            deep.refused(&selection),
            "FILE holds more than 16 indexes one within the other, which is not what an image \
             builder writes"
        );
    }
}

#[test]
fn json_that_is_no_manifest_is_refused() {
    let descriptor = |media_type: &str| json!({ "mediaType": media_type });
    for (media_type, bytes, expected) in [
        (MANIFEST, "no JSON".to_owned(), "is broken: it is not JSON"),
        (MANIFEST, "[]".to_owned(), "is broken: it must be an object, and is a list"),
        (MANIFEST, "{}".to_owned(), "it is said to be a manifest"),
        (INDEX, "{}".to_owned(), "it is said to be an index"),
        ("application/x", "garbage\x1b".to_owned(), "is broken: it is not JSON"),
        (MANIFEST, r#"{"schemaVersion":1,"fsLayers":[]}"#.to_owned(), "of schema 1"),
        (INDEX, r#"{"manifests":[],"layers":[]}"#.to_owned(), "both layers and manifests"),
        (INDEX, "[".repeat(100_000), "is broken: it is not JSON"),
        (
            INDEX,
            format!(r#"{{"manifests":[],"x":{}}}"#, "[".repeat(100_000)),
            "is broken: it is not JSON",
        ),
        (
            INDEX,
            r#"{"manifests":[{"digest":"sha256:../../etc/passwd","size":1}]}"#.to_owned(),
            r#""sha256:../../etc/passwd" is not a digest"#,
        ),
        (
            INDEX,
            format!(r#"{{"manifests":[{{"digest":"{}","size":-1}}]}}"#, Digest::of(b"")),
            "must be a whole number from 0 to 18446744073709551615, and is -1",
        ),
        (
            INDEX,
            format!(r#"{{"manifests":[{{"digest":"{}","size":1e30}}]}}"#, Digest::of(b"")),
            "must be a whole number from 0 to 18446744073709551615, and is 1e30",
        ),
        (
            INDEX,
            format!(r#"{{"manifests":[{{"digest":"sha512:{}","size":1}}]}}"#, "0".repeat(128)),
            "and of digests only SHA-256 is supported",
        ),
        (
            INDEX,
            format!(
                r#"{{"manifests":[{{"digest":"{}","size":18446744073709551615}}]}}"#,
                Digest::of(b"")
            ),
            "which is missing",
        ),
        (
            MANIFEST,
            format!(
                r#"{{"annotations":{{{}"x":""}}}}"#,
                (0..2000).map(|n| format!("\"{n}\":\"\",")).collect::<String>()
            ),
            "more than 1024 annotations",
        ),
    ] {
        let mut layout = Builder::new();
        let mut listed = layout.blob(media_type, &bytes);
        merge(&mut listed, descriptor(media_type));
        layout.list(&listed);
        let text = layout.refused(&any());
        assert!(text.contains(expected), "{text}\n{expected}");
        assert!(!text.contains(char::is_control), "{text:?}");
        assert!(text.len() < 1000, "{text}");
    }
    let whole = Builder::new().files();
    for (name, bytes, expected) in [
        ("index.json", "", "FILE: index.json is broken: it is not JSON: it ends"),
        (
            "index.json",
            "{\"manifests\":7}",
            "FILE: index.json is broken: `manifests` must be a list",
        ),
        ("index.json", "{}", "FILE: index.json lists no image; was anything copied"),
        ("oci-layout", "1", "FILE: oci-layout is broken: it must be an object"),
        (
            "oci-layout",
            r#"{"imageLayoutVersion":"2.0.0"}"#,
            "FILE: oci-layout says version \"2.0.0\", and only 1.0.0 is known",
        ),
    ] {
        let mut files = whole.clone();
        files.iter_mut().find(|(file, _)| file == name).unwrap().1 = bytes.into();
        let text = refused(&files, &any());
        assert!(text.starts_with(expected), "{text}\n{expected}");
    }
    let mut files = whole;
    files.retain(|(name, _)| name != "index.json");
    assert_eq!(
        refused(&files, &any()),
        "FILE: index.json is missing, so the layout is incomplete; make it again"
    );
}

/// The error of what is too large to be tried in every form.
#[track_caller]
fn refused_as_tar(layout: &Builder) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image");
    fs::write(&path, tar_of(&layout.files())).unwrap();
    let error = layout_at(&path).and_then(|layout| layout.select(&any())).unwrap_err();
    error.to_string().replace(path.to_str().unwrap(), "FILE")
}

#[test]
fn too_much_of_anything_is_refused() {
    let mut layout = Builder::new();
    let long = layout.blob(MANIFEST, vec![b' '; (4 << 20) + 1]);
    layout.list(&long);
    let text = refused_as_tar(&layout);
    assert!(text.contains("is 4194305 bytes long, more than the 4194304 that are read"), "{text}");

    // Many large manifests.
    let mut layout = Builder::new();
    let children: Vec<_> = (0..9)
        .map(|n| layout.blob("application/x", format!("{{\"n\":{n}}}{}", " ".repeat(4_000_000))))
        .collect();
    let index = layout.index(&children);
    layout.list(&index);
    let text = refused_as_tar(&layout);
    assert!(text.contains("more than 32 MiB of manifests and configs"), "{text}");

    // One layer, listed again and again.
    let mut layout = Builder::new();
    let layer = layout.blob(LAYER, "x");
    let diff_ids = vec![layer["digest"].clone(); crate::image::MAX_LAYERS];
    let config = json!({ "rootfs": { "diff_ids": diff_ids } });
    let config = layout.blob(CONFIG, config.to_string());
    let layers = vec![layer.to_string(); crate::image::MAX_LAYERS].join(",");
    let children: Vec<_> = (0..17)
        .map(|n| {
            let manifest = format!(r#"{{"config":{config},"layers":[{layers}],"n":{n}}}"#);
            layout.blob(MANIFEST, manifest)
        })
        .collect();
    let index = layout.index(&children);
    layout.list(&index);
    let text = refused_as_tar(&layout);
    assert!(text.contains("more than 65536 layers, manifests and annotations"), "{text}");

    let mut layout = Builder::new();
    let many: Vec<_> =
        (0..4096).map(|n| layout.blob("application/x", format!("{{\"n\":{n}}}"))).collect();
    let index = layout.index(&many);
    layout.list(&index);
    assert!(refused_as_tar(&layout).starts_with("FILE holds more than 4096 manifests"));
    layout.listed.clear();
    let more = [many.as_slice(), &[index]].concat();
    let index = layout.index(&more);
    layout.list(&index);
    assert!(refused_as_tar(&layout).contains("a list has more than 4096 elements"));
}

#[test]
fn a_tar_that_was_cut_off_says_so() {
    let mut layout = Builder::new();
    let image = layout.image("amd64", &"x".repeat(5000));
    layout.list_as("v1", &image);
    let tar = tar_of(&layout.files());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image");
    let error = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        let error = layout_at(&path).and_then(|layout| layout.select(&any())).unwrap_err();
        error.to_string().replace(path.to_str().unwrap(), "FILE")
    };
    for cut in [700, 3000, tar.len() / 2] {
        let text = error(&tar[..cut]);
        assert!(
            text.starts_with(&format!("FILE: the tar archive is truncated: it ends at byte {cut}")),
            "{text}"
        );
        let text = error(&gzip(&tar[..cut]));
        assert!(
            text.starts_with(&format!("FILE: the tar archive is truncated: it ends at byte {cut}")),
            "{text}"
        );
    }
    // Between two entries.
    let boundary = tar.len() - 1024 - 1024;
    assert!(error(&tar[..boundary]).contains("truncated: it ends at byte"), "{boundary}");
    let packed = gzip(&tar);
    for cut in [packed.len() / 2, packed.len() - 1] {
        let text = error(&packed[..cut]);
        assert!(text.starts_with(&format!("FILE: truncated gzip after {cut} bytes")), "{text}");
    }
    let mut damaged = packed.clone();
    let at = damaged.len() - 6;
    damaged[at] ^= 1;
    assert!(error(&damaged).starts_with("FILE: corrupt gzip, noticed at byte"));
}

#[test]
fn what_streams_by_with_other_files_first_asks_for_a_plain_tar() {
    let mut layout = Builder::new();
    let image = layout.image("amd64", "1");
    layout.list(&image);
    let mut files = layout.files();
    files.insert(0, ("README".to_owned(), b"hello".to_vec()));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image");
    fs::write(&path, tar_of(&files)).unwrap();
    assert!(layout_at(&path).unwrap().select(&any()).is_ok());
    fs::write(&path, gzip(&tar_of(&files))).unwrap();
    let options = Options {
        images: ImagesKnown::WhenTold,
        may_run: false,
        progress: Box::new(|_, _| {}),
        note: Arc::new(|_| {}),
    };
    let Ok(Contents::Layers(mut source)) = open(&Location::Path(path.clone()), options) else {
        panic!("a stream");
    };
    let text = loop {
        match source.next_layer() {
            Ok(Some(_)) => {}
            Ok(None) => panic!("no layout is a docker archive"),
            Err(error) => break error.to_string(),
        }
    };
    let file = path.to_str().unwrap();
    assert_eq!(
        text,
        format!(
            "{file} is an OCI layout behind other files, which shows too late while it streams by; \
             make a plain tar file of it: `gzip -dc {file} > image.tar`, then push image.tar"
        )
    );
}

#[test]
fn links_in_a_tar_are_followed_and_holes_are_not() {
    let mut layout = Builder::new();
    let image = layout.image("amd64", "a layer");
    layout.list(&image);
    let hex = Digest::of(b"a layer").hex().to_owned();
    let mut tar = ::tar::Builder::new(Vec::new());
    for (name, bytes) in layout.files() {
        let mut header = ::tar::Header::new_gnu();
        if name.ends_with(&hex) {
            header.set_size(bytes.len() as u64);
            tar.append_data(&mut header, "elsewhere", bytes.as_slice()).unwrap();
            let mut link = ::tar::Header::new_gnu();
            link.set_entry_type(::tar::EntryType::Symlink);
            link.set_size(0);
            tar.append_link(&mut link, &name, "../../elsewhere").unwrap();
        } else {
            header.set_size(bytes.len() as u64);
            tar.append_data(&mut header, &name, bytes.as_slice()).unwrap();
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image");
    fs::write(&path, tar.into_inner().unwrap()).unwrap();
    let tree = layout_at(&path).unwrap().select(&any()).unwrap();
    let mut bytes = [0; 7];
    tree.nodes[0].blobs[1].region.as_ref().unwrap().read_at(&mut bytes, 0).unwrap();
    assert_eq!(&bytes, b"a layer");
}

#[test]
fn a_pipe_in_place_of_a_blob_is_not_waited_for() {
    let mut layout = Builder::new();
    let image = layout.image("amd64", "a layer");
    layout.list(&image);
    let opened = layout.opened().remove(0);
    let blob = opened.path.join(format!("blobs/sha256/{}", Digest::of(b"a layer").hex()));
    fs::remove_file(&blob).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(&blob).status().unwrap().success());
    let text = opened.layout.unwrap().select(&any()).unwrap_err().to_string();
    assert!(text.contains(Digest::of(b"a layer").hex()), "{text}");
    assert!(text.contains("it is not a regular file"), "{text}");
}

#[test]
fn a_blob_that_is_gone_by_the_time_it_is_read_is_an_error() {
    let mut layout = Builder::new();
    let image = layout.image("amd64", "a layer");
    layout.list(&image);
    let opened = layout.opened().remove(0);
    let tree = opened.layout.unwrap().select(&any()).unwrap();
    let region = tree.nodes[0].blobs[1].region.clone().unwrap();
    fs::remove_dir_all(opened.path.join("blobs")).unwrap();
    assert!(region.read_at(&mut [0; 7], 0).is_err());
    assert!(region.name.contains(Digest::of(b"a layer").hex()));
}

/// A folder of skopeo's with these files besides its version.
fn skopeo_dir(version: &str, files: &[(&str, &[u8])]) -> (TempDir, Result<Layout, Error>) {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("version"), version).unwrap();
    for (name, bytes) in files {
        fs::write(folder.path().join(name), bytes).unwrap();
    }
    let layout = layout_at(folder.path());
    (folder, layout)
}

#[test]
fn a_folder_of_skopeos_is_one_image() {
    let version = "Directory Transport Version: 1.1\n";
    let mut layout = Builder::new();
    let image = layout.image("amd64", "a layer");
    let index = layout.index([&image]);
    let bytes = |descriptor: &Value| layout.blobs[digest_of(descriptor).hex()].clone();
    let (manifest, list) = (bytes(&image), bytes(&index));
    let mut files: Vec<(String, Vec<u8>)> = layout.blobs.clone().into_iter().collect();
    files.push((format!("{}.manifest.json", digest_of(&image).hex()), manifest.clone()));
    files.push(("signature-1".to_owned(), b"anything".to_vec()));
    let with = |root: &[u8]| {
        let mut all = files.clone();
        all.push(("manifest.json".to_owned(), root.to_vec()));
        let all: Vec<_> =
            all.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect();
        skopeo_dir(version, &all)
    };
    let (_folder, layout) = with(&manifest);
    let layout = layout.unwrap();
    assert!(layout.names().is_empty());
    let tree = layout.select(&any()).unwrap();
    assert_eq!(digests(&tree), [digest_of(&image)]);
    assert_eq!(tree.nodes[0].media_type, MANIFEST);
    assert!(tree.nodes[0].blobs.iter().all(|blob| blob.region.is_some()));

    let (folder, layout) = with(&list);
    let layout = layout.unwrap();
    assert_eq!(digests(&layout.select(&any()).unwrap()), [&image, &index].map(digest_of));
    assert_root(&layout.select(&platform("linux/amd64")).unwrap(), &image);
    assert_root(&layout.select(&digest(&image)).unwrap(), &image);
    fs::remove_file(folder.path().join(format!("{}.manifest.json", digest_of(&image).hex())))
        .unwrap();
    let text = layout.select(&any()).unwrap_err().to_string();
    assert!(text.contains(", which is missing"), "{text}");

    for (version, manifest, expected) in [
        ("Directory Transport Version: 2.0\n", &manifest[..], "says version"),
        ("Directory Transport Version: 1.1 beta", &manifest, "and only 1.1 is known"),
        ("1.1", &manifest, "is a directory, but neither"),
        (version, b"{}", "and has no config"),
        (version, b"\xff", "is broken: it is not JSON"),
    ] {
        let (_folder, layout) = skopeo_dir(version, &[("manifest.json", manifest)]);
        let text = layout.and_then(|layout| layout.select(&any())).unwrap_err().to_string();
        assert!(text.contains(expected), "{text}\n{expected}");
    }
}

/// Opens what may be damaged, and looks into it in every way.
fn looked_at(files: &[(String, Vec<u8>)]) {
    for opened in three_ways(files) {
        let Ok(layout) = opened.layout else {
            continue;
        };
        for selection in [any(), name("v1"), platform("linux/amd64")] {
            if let Err(error) = layout.select(&selection) {
                assert!(!error.to_string().contains(char::is_control), "{error}");
            }
        }
        if let Ok(trees) = layout.trees() {
            assert!(!trees.is_empty());
        }
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(48))]

    #[test]
    fn damage_to_any_json_is_never_a_panic(
        damage in proptest::collection::vec(
            (proptest::prelude::any::<proptest::sample::Index>(), proptest::prelude::any::<u8>()),
            1..8,
        ),
        victim in 0..4_usize,
    ) {
        let damaged = |bytes: &str| {
            let mut bytes = bytes.as_bytes().to_vec();
            for (place, byte) in &damage {
                let place = place.index(bytes.len());
                bytes[place] = *byte;
            }
            bytes
        };
        let mut layout = Builder::new();
        let image = layout.image("amd64", "1");
        let config = r#"{"os":"linux","architecture":"amd64","rootfs":{"diff_ids":[]}}"#;
        // What hashes to what is listed, damaged or not.
        let child = match victim {
            0 => {
                let config = layout.blob(CONFIG, damaged(config));
                layout.manifest(json!({ "config": config, "layers": [] }))
            }
            1 => {
                let config = layout.blob(CONFIG, config);
                let manifest = json!({ "schemaVersion": 2, "config": config, "layers": [config] });
                layout.blob(MANIFEST, damaged(&manifest.to_string()))
            }
            _ => layout.referrer(&image, "a/b"),
        };
        let manifests = [on(image.clone(), "linux/amd64"), child];
        let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": manifests });
        let index = match victim {
            2 => layout.blob(INDEX, damaged(&index.to_string())),
            _ => layout.blob(INDEX, index.to_string()),
        };
        let referrer = layout.referrer(&index, "a/b");
        layout.list_as("v1", &index).list(&referrer);
        let mut files = layout.files();
        if victim == 3 {
            let listed = &mut files.iter_mut().find(|(name, _)| name == "index.json").unwrap().1;
            *listed = damaged(std::str::from_utf8(listed).unwrap());
        }
        looked_at(&files);
    }
}
