//! Inspects archives of `testdata/`, a source that makes its layers, and a layout's tree.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::Path;

use super::*;
use crate::event;
use crate::image::{Compression, Config, Format};
use crate::source::layout::{Node, StoredBlob};
use crate::source::{self, Claim, Layer, LayerKey, Source};

fn testdata(name: &str) -> Location {
    Location::Path(Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata").join(name))
}

async fn look(name: &str, selection: Selection) -> Result<Inspection, Error> {
    reading::read(&testdata(name), &selection, false, &event::ignore()).await
}

fn config(diff_ids: &[DiffId], history: &str) -> Config {
    let diff_ids = serde_json::to_string(diff_ids).unwrap();
    Config::parse(format!(
        r#"{{"os":"linux","architecture":"amd64","created":"2020-01-01T00:00:00Z",
            "config":{{"Entrypoint":["/bin/app"],"Cmd":null,"Env":["A=b"],
                       "ExposedPorts":{{"80/tcp":{{}}}},"WorkingDir":"","User":"app"}},
            "rootfs":{{"diff_ids":{diff_ids}}},"history":{history}}}"#
    ))
    .unwrap()
}

#[tokio::test]
async fn every_form_of_the_same_image_shows_the_same() {
    let plain = look("layered-v1.tar", Selection::default()).await.unwrap();
    let image = &plain.images[0];
    assert_eq!(image.names, ["registry.fly.io/douglas-adams-quotes:latest"]);
    assert!(image.id.short().starts_with("c28042053646"));
    assert_eq!(image.platform.to_string(), "linux/amd64");
    assert_eq!(image.created.as_deref(), Some("1970-01-01T00:00:01+00:00"));
    assert_eq!(image.layers.len(), 6);
    assert_eq!(image.size, image.layers.iter().map(|layer| layer.size).sum::<u64>());
    let glibc = &image.layers[0];
    assert_eq!(glibc.store_paths.len(), 1);
    assert!(glibc.store_paths[0].ends_with("-glibc-2.38"), "{glibc:?}");
    assert!(glibc.diff_id.is_some() && glibc.size > 0);
    let compressed = look("layered-v1.tar.gz", Selection::default()).await.unwrap();
    assert_eq!(format!("{compressed:?}"), format!("{plain:?}"));
    let saved = look("docker-save-v24.tar", Selection::default()).await.unwrap();
    assert_eq!(saved.images[0].id, image.id);
    let diff_ids = |image: &InspectedImage| -> Vec<_> {
        image.layers.iter().map(|layer| layer.diff_id.clone()).collect()
    };
    assert_eq!(diff_ids(&saved.images[0]), diff_ids(image));
}

#[tokio::test]
async fn a_layer_that_occurs_twice_counts_once() {
    let twice = look("docker-save-v24-repeated-layer.tar", Selection::default()).await.unwrap();
    let image = &twice.images[0];
    assert_eq!(image.layers.len(), 7);
    let all: u64 = image.layers.iter().map(|layer| layer.size).sum();
    assert_eq!(image.size, all - image.layers[6].size);
}

#[tokio::test]
async fn of_several_images_those_are_shown_that_are_meant() {
    let all = look("several-images.tar", Selection::default()).await.unwrap();
    assert_eq!(all.images.len(), 2);
    let name = |name: &str| Selection { name: Some(name.into()), ..Selection::default() };
    for called in ["registry.fly.io/hello-b:v2", "v2"] {
        let one = look("several-images.tar", name(called)).await.unwrap();
        assert_eq!(one.images.len(), 1, "{called}");
        assert_eq!(one.images[0].names, ["registry.fly.io/hello-b:v2"]);
    }
    let id = Some(all.images[0].id.clone());
    let one = look("several-images.tar", Selection { digest: id, ..Selection::default() }).await;
    assert_eq!(one.unwrap().images[0].names, ["registry.fly.io/hello-a:v1"]);
    let error = look("several-images.tar", name("v3")).await.unwrap_err().to_string();
    assert!(
        error.contains("holds no image \"v3\"; it holds: registry.fly.io/hello-a:v1 (linux/amd64)"),
        "{error}"
    );
    let platform =
        Some(Platform { os: "linux".into(), architecture: "arm64".into(), variant: None });
    let wanted = Selection { platform, ..Selection::default() };
    let error = look("several-images.tar", wanted).await.unwrap_err().to_string();
    assert!(error.contains("holds no image for linux/arm64"), "{error}");
}

/// A source that makes its layers while they are read. Its config lists their diff IDs.
struct Made {
    layers: Vec<&'static [u8]>,
    content: io::Cursor<&'static [u8]>,
    next: usize,
    heard: Vec<DiffId>,
    images: Option<Vec<Image>>,
}

impl Source for Made {
    fn images(&self) -> Option<&[Image]> {
        self.images.as_deref()
    }

    fn next_layer(&mut self) -> Result<Option<Layer<'_>>, source::Error> {
        let Some(bytes) = self.layers.get(self.next) else {
            self.images = Some(vec![Image {
                names: vec![],
                config: config(&self.heard, "[]"),
                layers: (0..self.next).map(LayerId).collect(),
            }]);
            return Ok(None);
        };
        self.content = io::Cursor::new(bytes);
        self.next += 1;
        Ok(Some(Layer {
            id: LayerId(self.next - 1),
            entry: "made".into(),
            size: 7_000,
            claim: Claim::Key(LayerKey(Digest::of(bytes))),
            content: &mut self.content,
            bytes: None,
        }))
    }

    fn learn(&mut self, diff_id: &DiffId) {
        self.heard.push(diff_id.clone());
    }
}

#[test]
fn a_source_that_makes_its_layers_hears_what_they_are() {
    let mut source = Made {
        layers: vec![b"one", b"three"],
        content: io::Cursor::new(b""),
        next: 0,
        heard: vec![],
        images: None,
    };
    let location = Location::Path("result".into());
    let inspection = reading::layers(&location, &Selection::default(), &mut source).unwrap();
    let layers = &inspection.images[0].layers;
    assert_eq!(layers[0].diff_id, Some(Digest::of(b"one").into()));
    assert_eq!(layers[1].diff_id, Some(Digest::of(b"three").into()));
    assert_eq!((layers[0].size, layers[1].size), (3, 5));
}

/// Content that cannot be read.
struct Unreadable;

impl Read for Unreadable {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::Error::other("not to be read"))
    }
}

/// A source with stored layers, whose content must not be read.
struct Lying {
    image: [Image; 1],
    content: Unreadable,
    left: usize,
}

impl Source for Lying {
    fn images(&self) -> Option<&[Image]> {
        Some(&self.image)
    }

    fn next_layer(&mut self) -> Result<Option<Layer<'_>>, source::Error> {
        let Some(left) = self.left.checked_sub(1) else {
            return Ok(None);
        };
        self.left = left;
        let id = LayerId(left);
        let diff_id = self.image[0].config.diff_ids()[left].clone();
        let entry = "lies".to_owned();
        let claim = Claim::DiffId(diff_id);
        Ok(Some(Layer { id, entry, size: 5, claim, content: &mut self.content, bytes: None }))
    }
}

#[test]
fn layers_that_lie_where_they_are_are_not_read() {
    let config = config(&[Digest::of(b"a").into(), Digest::of(b"b").into()], "[]");
    let image = Image { names: vec![], config, layers: vec![LayerId(0), LayerId(1)] };
    let mut source = Lying { image: [image], content: Unreadable, left: 2 };
    let location = Location::Path("result".into());
    let inspection = reading::layers(&location, &Selection::default(), &mut source).unwrap();
    assert_eq!(inspection.images[0].size, 10);
}

#[test]
fn the_config_tells_how_the_image_is_run_and_how_it_was_made() {
    let history = r#"[{"created_by":"/bin/sh -c #(nop) ADD file:1 in / "},
                      {"created_by":"ENV A=b","empty_layer":true},
                      {"comment":"store paths: ['/nix/store/a-1', '/nix/store/b-2']"}]"#;
    let ids: Vec<DiffId> = [b"a", b"b", b"c"].map(|bytes| Digest::of(bytes).into()).into();
    let stored = [(0, 10, None), (1, 20, None), (1, 20, None), (2, 5, None)];
    let image = InspectedImage::new(vec!["a:b".into()], &config(&ids, history), stored.into_iter());
    assert_eq!((image.entrypoint.as_slice(), image.cmd.len()), (&["/bin/app".to_owned()][..], 0));
    assert_eq!(
        (image.env.as_slice(), image.exposed_ports[0].as_str()),
        (&["A=b".to_owned()][..], "80/tcp")
    );
    assert_eq!((image.user.as_deref(), image.working_dir), (Some("app"), None));
    assert_eq!(image.size, 35);
    assert_eq!(image.layers[0].created_by.as_deref(), Some("ADD file:1 in /"));
    assert_eq!(image.layers[1].store_paths, ["/nix/store/a-1", "/nix/store/b-2"]);
    assert_eq!(image.layers[1].created_by, None);
    // The image has more blobs than the config has diff IDs.
    assert_eq!(image.layers[3].diff_id, None);
}

#[test]
fn a_config_in_another_form_is_shown_without_what_it_has_in_it() {
    let odd = r#"{"created":7,"config":{"Cmd":"sh"},"rootfs":{"diff_ids":[]}}"#;
    let stored = std::iter::empty::<(u8, u64, Option<Digest>)>();
    let image = InspectedImage::new(vec![], &Config::parse(odd).unwrap(), stored);
    assert!(image.created.is_none() && image.cmd.is_empty());
    let many = format!(r#"{{"config":{{"Env":[{}""]}},"rootfs":{{}}}}"#, "\"\",".repeat(20_000));
    let stored = std::iter::empty::<(u8, u64, Option<Digest>)>();
    let image = InspectedImage::new(vec![], &Config::parse(many).unwrap(), stored);
    assert!(image.env.is_empty());
}

fn node(config: Option<Config>, blobs: &[&[u8]]) -> Node {
    let blob = |bytes: &&[u8]| StoredBlob {
        media_type: "application/vnd.oci.image.layer.v1.tar+gzip".into(),
        digest: Digest::of(bytes),
        size: bytes.len() as u64,
        region: None,
    };
    Node {
        media_type: "application/vnd.oci.image.manifest.v1+json".into(),
        bytes: bytes::Bytes::new(),
        digest: Digest::of(format!("{blobs:?}").as_bytes()),
        artifact_type: None,
        annotations: BTreeMap::new(),
        subject: None,
        platform: None,
        children: vec![],
        config,
        blobs: blobs.iter().map(blob).collect(),
    }
}

#[test]
fn a_layout_shows_each_node_that_has_a_config() {
    let config = config(&[Digest::of(b"a").into(), Digest::of(b"b").into()], "[]");
    let image = node(Some(config.clone()), &[b"config", b"aa", b"bbb"]);
    let index = Node { children: vec![0], ..node(None, &[]) };
    let names = vec!["latest".to_owned()];
    let tree = Tree { names, nodes: vec![image.clone(), index], root: 1 };
    let inspection = Inspection::of_trees(std::slice::from_ref(&tree));
    assert_eq!(inspection.images.len(), 1);
    let shown = &inspection.images[0];
    assert_eq!((&shown.id, shown.manifest.as_ref()), (config.digest(), Some(&image.digest)));
    assert!(shown.names.is_empty());
    assert_eq!(shown.size, 5);
    assert_eq!(shown.layers[1].digest, Some(Digest::of(b"bbb")));
    assert_eq!(shown.layers[1].diff_id, Some(Digest::of(b"b").into()));
    let alone = Tree { names: vec!["latest".into()], nodes: vec![image], root: 0 };
    assert_eq!(Inspection::of_trees(&[alone]).images[0].names, ["latest"]);
}

#[test]
fn a_comparison_finds_layers_by_diff_id_or_by_blob() {
    let report_of = |outcomes: &[(&[u8], Outcome)]| {
        let layer = |(bytes, outcome): &(&[u8], Outcome)| LayerReport {
            name: "".into(),
            diff_id: Some(Digest::of(bytes).into()),
            digest: Digest::of(&[b"blob of ", *bytes].concat()),
            size: 3,
            media_type: "".into(),
            compression: Compression::Gzip,
            outcome: outcome.clone(),
        };
        Report {
            reference: "r.io/app:v1".into(),
            pinned: String::new(),
            tags: vec![],
            digest: Digest::of(b""),
            media_type: String::new(),
            format: Some(Format::Oci),
            platform: None,
            size: 0,
            config: None,
            config_sent: true,
            layers: outcomes.iter().map(layer).collect(),
            manifests: vec![],
            changes: None,
            bytes_sent: 77,
            bytes_reused: 0,
            seconds: 0.0,
            dry_run: true,
            compression: Some(Compression::Gzip),
        }
    };
    let there = Outcome::Reused { why: Known::Cache };
    let same = Outcome::Reused { why: Known::SameAsLayer };
    let layers: [(&[u8], Outcome); 3] =
        [(b"a", Outcome::WouldUpload), (b"b", there.clone()), (b"a", same.clone())];
    let report = report_of(&layers);
    let ids: Vec<DiffId> = [b"a", b"b", b"a"].map(|bytes| Digest::of(bytes).into()).into();
    let stored = [(0, 10, None), (1, 20, None), (0, 10, None)];
    let image = InspectedImage::new(vec![], &config(&ids, "[]"), stored.into_iter());
    let mut inspection = Inspection { images: vec![image], against: None };
    inspection.compare(&report);
    let outcomes = |inspection: &Inspection| -> Vec<Outcome> {
        let layers = inspection.images[0].layers.iter();
        layers.map(|layer| layer.registry.clone().unwrap().outcome).collect()
    };
    assert_eq!(outcomes(&inspection), [Outcome::WouldUpload, there.clone(), same.clone()]);
    let against = inspection.against.as_ref().unwrap();
    assert_eq!((against.bytes_to_send, against.layers_to_upload), (77, 1));

    // The layer is found by its blob's digest, although its diff ID is not known.
    let blobs = [b"blob of b".as_slice(), b"blob of a", b"blob of a"].map(Digest::of);
    let stored = blobs.map(|digest| (digest.clone(), 3, Some(digest)));
    let image = InspectedImage::new(vec![], &config(&[], "[]"), stored.into_iter());
    let mut inspection = Inspection { images: vec![image], against: None };
    inspection.compare(&report);
    assert_eq!(outcomes(&inspection), [there, Outcome::WouldUpload, same]);
}
