//! OCI layouts (image-spec 1.1, "Image Layout") made by the test, and their comparison with what a
//! registry has.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::archive::{Layer, gzip, sha256};
use super::pull::on_runtime;

/// OCI's index.
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// OCI's image manifest, which artifacts have as well.
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// OCI's image config.
pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// OCI's gzip layer.
pub const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
/// The config of an artifact that has none.
pub const EMPTY: &str = "application/vnd.oci.empty.v1+json";

/// A layout in a folder.
#[derive(Clone, Debug)]
pub struct Layout(PathBuf);

impl Layout {
    /// One that lists nothing yet.
    pub fn new(folder: PathBuf) -> Self {
        std::fs::create_dir_all(folder.join("blobs/sha256")).expect("a layout's folder");
        let layout = Self(folder);
        layout.write("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#);
        layout.list(&[]);
        layout
    }

    /// One that a program made.
    pub fn of(folder: PathBuf) -> Self {
        Self(folder)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The path as an argument.
    pub fn text(&self) -> &str {
        self.0.to_str().expect("a path in UTF-8")
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        std::fs::write(self.0.join(name), bytes).expect("write a file of a layout");
    }

    /// Where a blob is.
    pub fn blob_path(&self, digest: &str) -> PathBuf {
        self.0.join("blobs").join(digest.replace(':', "/"))
    }

    /// Stores a blob, and returns its descriptor.
    pub fn blob(&self, media_type: &str, bytes: &[u8]) -> Value {
        let digest = sha256(bytes);
        std::fs::write(self.blob_path(&digest), bytes).expect("write a blob");
        json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() })
    }

    /// Stores a manifest or an index, and returns its descriptor.
    pub fn manifest(&self, manifest: &Value) -> Value {
        let media_type = manifest["mediaType"].as_str().expect("a media type");
        self.blob(media_type, manifest.to_string().as_bytes())
    }

    /// Stores an image for linux, and returns its descriptor with the platform.
    pub fn image(&self, architecture: &str, layers: &[Layer]) -> Value {
        let diff_ids: Vec<String> = layers.iter().map(Layer::diff_id).collect();
        let config = json!({ "architecture": architecture, "os": "linux", "config": {},
            "rootfs": { "type": "layers", "diff_ids": diff_ids } });
        let blobs: Vec<Value> =
            layers.iter().map(|layer| self.blob(LAYER, &gzip(&layer.tar))).collect();
        let mut image = self.manifest(&json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": self.blob(CONFIG, config.to_string().as_bytes()),
            "layers": blobs,
        }));
        image["platform"] = json!({ "os": "linux", "architecture": architecture });
        image
    }

    /// Stores an artifact of one blob, which may refer to a manifest, and returns its descriptor.
    pub fn artifact(&self, kind: &str, content: &[u8], subject: Option<&Value>) -> Value {
        let mut manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "artifactType": kind,
            "config": self.blob(EMPTY, b"{}"),
            "layers": [self.blob(kind, content)],
        });
        if let Some(subject) = subject {
            manifest["subject"] = subject.clone();
        }
        self.manifest(&manifest)
    }

    /// Stores an attestation as buildx writes it, and returns its descriptor. The attestation looks
    /// like an image for the platform unknown/unknown.
    pub fn attestation(&self, image: &Value) -> Value {
        let content = format!("{{\"of\":{}}}", image["digest"]);
        let config = json!({ "architecture": "unknown", "os": "unknown", "config": {},
            "rootfs": { "type": "layers", "diff_ids": [sha256(content.as_bytes())] } });
        let mut attestation = self.manifest(&json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": self.blob(CONFIG, config.to_string().as_bytes()),
            "layers": [self.blob("application/vnd.in-toto+json", content.as_bytes())],
        }));
        attestation["platform"] = json!({ "os": "unknown", "architecture": "unknown" });
        attestation["annotations"] = json!({
            "vnd.docker.reference.type": "attestation-manifest",
            "vnd.docker.reference.digest": image["digest"],
        });
        attestation
    }

    /// Stores an index, and returns its descriptor.
    pub fn index(&self, manifests: &[&Value]) -> Value {
        self.manifest(&json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": manifests }))
    }

    /// Writes `index.json`: descriptors, with names where they have one.
    pub fn list(&self, manifests: &[(&Value, Option<&str>)]) {
        let named = manifests.iter().map(|(descriptor, name)| {
            let mut descriptor = (*descriptor).clone();
            if let Some(name) = name {
                let annotations = json!({ "org.opencontainers.image.ref.name": name });
                descriptor["annotations"] = annotations;
            }
            descriptor
        });
        let named: Vec<Value> = named.collect();
        let index = json!({ "schemaVersion": 2, "manifests": named });
        self.write("index.json", index.to_string().as_bytes());
    }

    /// The descriptors that `index.json` lists.
    pub fn listed(&self) -> Vec<Value> {
        let bytes = std::fs::read(self.0.join("index.json")).expect("index.json");
        let index: Value = serde_json::from_slice(&bytes).expect("index.json is JSON");
        index["manifests"].as_array().expect("a list of manifests").clone()
    }

    /// The digest of the only manifest that is listed.
    #[track_caller]
    pub fn only(&self) -> String {
        let listed = self.listed();
        assert_eq!(listed.len(), 1, "{listed:?}");
        digest_of(&listed[0])
    }

    /// A manifest that is stored here.
    pub fn read(&self, digest: &str) -> Value {
        let bytes = std::fs::read(self.blob_path(digest)).expect("a manifest");
        serde_json::from_slice(&bytes).expect("a manifest in JSON")
    }

    /// Demands that a repository has a manifest as it is stored here, to the byte, and all blobs
    /// and manifests that it lists.
    #[track_caller]
    pub fn assert_pushed(&self, host: &str, repository: &str, digest: &str) {
        let there = get(host, repository, "manifests", digest);
        let stored = std::fs::read(self.blob_path(digest)).expect("a manifest");
        assert_eq!(there.as_deref(), Some(&stored[..]), "manifest {digest} in {repository}");
        let manifest = self.read(digest);
        let list = |name: &str| manifest[name].as_array().cloned().unwrap_or_default();
        for child in list("manifests") {
            self.assert_pushed(host, repository, &digest_of(&child));
        }
        let config = manifest.get("config").cloned();
        for blob in list("layers").into_iter().chain(config) {
            let digest = digest_of(&blob);
            let there = get(host, repository, "blobs", &digest).map(|bytes| sha256(&bytes));
            assert_eq!(there, Some(digest), "a blob in {repository}");
        }
    }
}

/// The digest in a descriptor.
pub fn digest_of(descriptor: &Value) -> String {
    descriptor["digest"].as_str().expect("a digest").to_owned()
}

/// Fetches a manifest or a blob over plain HTTP; `None` on 404.
pub fn get(host: &str, repository: &str, what: &str, reference: &str) -> Option<Vec<u8>> {
    let accepted = [
        MANIFEST,
        INDEX,
        super::put::DOCKER_MANIFEST,
        super::put::DOCKER_LIST,
        "application/octet-stream",
    ];
    on_runtime(async {
        let url = format!("http://{host}/v2/{repository}/{what}/{reference}");
        let answer =
            super::tls::http_client().get(url).header("accept", accepted.join(", ")).send().await;
        let answer = answer.expect("an answer to GET");
        match answer.status().as_u16() {
            200 => Some(answer.bytes().await.expect("a body").to_vec()),
            404 => None,
            status => panic!("GET of {repository}/{what}/{reference}: {status}"),
        }
    })
}
