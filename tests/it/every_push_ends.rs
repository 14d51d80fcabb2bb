//! Whatever a registry answers, a push ends: with a documented exit code, and after a bounded
//! number of requests.
//!
//! A real registry stands behind a proxy, which gives a random answer to each manifest PUT and each
//! HEAD. Sixty pushes run by default, a thousand with `PUSHIMG_TEST_FULL=1`. A failure prints the
//! seed; set `PUSHIMG_ENDS_SEED` to run it again.

use std::collections::HashSet;
use std::time::Duration;

use crate::support::FaultProxy;
use crate::support::archive::{ImageBuilder, Layer, sha256, testdata};
use crate::support::layout::{Layout, get};
use crate::support::proxy::{Answer, Change, Fault, Rule, Step};
use crate::support::registry::{DevRegistry, Options};
use crate::support::run::{Pushimg, pushed};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::Value;
use tempfile::TempDir;

/// The number of random answers for one push. A push must send fewer requests than this.
const DRAWN: usize = 150;

/// Manifest PUTs at most, for each manifest of an image and with `--retry-for 0s`: two attempts,
/// each in two formats.
const MOST_PUTS: usize = 4;

/// HEADs at most, for each blob: in two attempts, each with one more after a lost answer.
const MOST_HEADS: usize = 4;

/// An image, its blobs, and the number of its manifests.
struct Subject {
    path: String,
    blobs: Vec<String>,
    manifests: usize,
}

impl Subject {
    /// Pushes the image to a registry without faults, to learn of what it consists.
    fn new(path: String) -> Self {
        let registry = DevRegistry::start(Options::default());
        let digest = pushed(&path, &format!("{}/app:v1", registry.host()), &[]).digest();
        let mut subject = Self { path, blobs: Vec::new(), manifests: 0 };
        subject.look(&registry.host(), &digest);
        subject
    }

    fn look(&mut self, host: &str, digest: &str) {
        let bytes = get(host, "app", "manifests", digest).expect("a manifest that was pushed");
        let manifest: Value = serde_json::from_slice(&bytes).expect("a manifest in JSON");
        let list = |name: &str| manifest[name].as_array().cloned().unwrap_or_default();
        let config = manifest.get("config").cloned();
        self.manifests += 1;
        for blob in list("layers").into_iter().chain(config) {
            self.blobs.push(blob["digest"].as_str().expect("a digest").to_owned());
        }
        for child in list("manifests") {
            self.look(host, child["digest"].as_str().expect("a digest"));
        }
    }

    /// An archive, its next version, a layout with a foreign layer, and an index.
    fn all(dir: &TempDir) -> Vec<Self> {
        let layers = vec![
            Layer::text("glibc-2.38", 1, 40_000),
            Layer::random("openssl-3.0", 2, 30_000),
            Layer::file("app-1.0", b"one"),
        ];
        let archive = ImageBuilder::new(layers.clone());
        let next = archive.clone().with_layer(2, Layer::file("app-1.1", b"two"));
        let layout = Layout::new(dir.path().join("index"));
        let images = [layout.image("amd64", &layers), layout.image("arm64", &layers[..2])];
        layout.list(&[(&layout.index(&[&images[0], &images[1]]), Some("v1"))]);
        [
            archive.write(dir.path(), "first.tar"),
            next.write(dir.path(), "next.tar"),
            testdata("foreign-layer-present"),
            dir.path().join("index"),
        ]
        .map(|path| Self::new(path.display().to_string()))
        .into()
    }

    /// A blob of the image, or one that it does not have.
    fn any_blob(&self, chance: &mut StdRng) -> String {
        match chance.random_range(0..=self.blobs.len()) {
            n if n < self.blobs.len() => self.blobs[n].clone(),
            _ => sha256(b"none of the image"),
        }
    }

    fn answer(&self, step: Step, chance: &mut StdRng) -> Fault {
        match step {
            Step::ManifestPut => self.put(chance),
            _ => Self::head(chance),
        }
    }

    /// What a registry may answer to a manifest.
    fn put(&self, chance: &mut StdRng) -> Fault {
        let blob = self.any_blob(chance);
        let status = [400, 404, 500][chance.random_range(0..3)];
        let refused =
            |code: &str, message: &str| Fault::Answer(Answer::status(status).error(code, message));
        let unknown = format!("blob unknown to registry: {blob}");
        match chance.random_range(0..14) {
            0 | 1 => Fault::Rewrite(Vec::new()),
            2..5 => refused("MANIFEST_BLOB_UNKNOWN", &unknown),
            5 => refused("MANIFEST_INVALID", &format!("Blob asset not found: {blob}")),
            6 => refused("MANIFEST_INVALID", "manifest invalid"),
            7 => refused("MANIFEST_UNKNOWN", "manifest unknown"),
            8 => refused("TAG_INVALID", "the tag is immutable"),
            9 => Fault::LostResponse(None),
            10 => Fault::ExpiredToken,
            11 => Fault::Answer(Answer::status(429).retry_after(0)),
            12 => Fault::Answer(Answer::status(415).error("UNSUPPORTED", "media type")),
            _ => Fault::status(chance.random_range(200..600)),
        }
    }

    /// What a registry may answer to HEAD.
    fn head(chance: &mut StdRng) -> Fault {
        match chance.random_range(0..8) {
            0 | 1 => Fault::Rewrite(Vec::new()),
            2 | 3 => Fault::Rewrite(vec![Change::Status(200)]),
            4 | 5 => Fault::Rewrite(vec![Change::Status(404)]),
            6 => Fault::refused_method(),
            _ => Fault::status(chance.random_range(200..600)),
        }
    }
}

fn seed() -> u64 {
    match std::env::var("PUSHIMG_ENDS_SEED") {
        Ok(seed) => seed.parse().expect("a number in PUSHIMG_ENDS_SEED"),
        Err(_) => rand::random::<u32>().into(),
    }
}

#[test]
fn whatever_is_answered_to_a_manifest_and_to_head_a_push_ends() {
    let full = std::env::var_os("PUSHIMG_TEST_FULL").is_some();
    let (seed, pushes) = (seed(), if full { 1000 } else { 60 });
    println!("PUSHIMG_ENDS_SEED={seed}");
    let dir = TempDir::new().expect("a folder");
    let subjects = Subject::all(&dir);
    let mut codes = HashSet::new();
    let (mut most, mut most_heads) = (0, 0);
    for number in 0..pushes {
        let mut chance = StdRng::seed_from_u64(seed.wrapping_mul(1_000_003).wrapping_add(number));
        let registry = DevRegistry::start(Options::default());
        let proxy = FaultProxy::before(registry.addr());
        let subject = &subjects[chance.random_range(0..subjects.len())];
        let destination = format!("{}/app:v1", proxy.host());
        let machine = Pushimg::new().limit(Duration::from_secs(45));
        // Half of the time, the registry and the cache know an image already.
        if chance.random() {
            machine.pushed(&subjects[chance.random_range(0..2)].path, &destination, &[]);
            proxy.clear();
        }
        let mut rules = Vec::new();
        for step in [Step::ManifestPut, Step::ManifestHead, Step::BlobHead] {
            // Half of the registries give the same answer every time.
            let answers = if chance.random() { 1 } else { DRAWN };
            for _ in 0..answers {
                let rule = Rule::at(step, subject.answer(step, &mut chance));
                rules.push(if answers == 1 { rule } else { rule.nth(1) });
            }
        }
        proxy.set_rules(rules);
        let output = machine.push(&subject.path, &destination, &["--retry-for=0s"]);
        let trace =
            || format!("PUSHIMG_ENDS_SEED={seed}, {number}\n{output}\n{}", proxy.transcript());
        assert!(!output.timed_out && !output.stderr.contains("panicked at"), "{}", trace());
        assert!(matches!(output.code(), Some(0 | 4 | 5)), "{}", trace());
        codes.extend(output.code());
        let puts = proxy.count_step(Step::ManifestPut);
        assert!(puts <= MOST_PUTS * subject.manifests, "{puts} manifest PUTs, {}", trace());
        let heads = proxy.count_step(Step::BlobHead);
        assert!(heads <= MOST_HEADS * subject.blobs.len(), "{heads} HEADs, {}", trace());
        most = most.max(puts.div_ceil(subject.manifests));
        most_heads = most_heads.max(heads.div_ceil(subject.blobs.len()));
    }
    assert!(codes.len() > 1, "PUSHIMG_ENDS_SEED={seed}: all pushes end with {codes:?}");
    println!("PUTs of a manifest: {most} at most; HEADs of a blob: {most_heads}");
}
