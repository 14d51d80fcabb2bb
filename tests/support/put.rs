//! Puts blobs and manifests, right or wrong, into a registry: the earlier images that a push finds
//! there.

use serde_json::{Value, json};

use super::archive::sha256;
use super::pull::on_runtime;
use super::tls::http_client;

/// Docker's manifest, version 2, schema 2.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// Docker's manifest list.
pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// Docker's image config.
pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
/// Docker's gzip layer.
pub const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
/// Docker's media type for a layer that registries do not store.
pub const FOREIGN_LAYER: &str = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";

/// A descriptor of these bytes.
pub fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!({ "mediaType": media_type, "size": bytes.len(), "digest": sha256(bytes) })
}

/// A manifest of Docker's format.
pub fn manifest(config: Value, layers: Vec<Value>) -> Value {
    json!({
        "schemaVersion": 2,
        "mediaType": DOCKER_MANIFEST,
        "config": config,
        "layers": layers,
    })
}

/// A config for linux/amd64 that lists these layers.
pub fn config(diff_ids: &[String]) -> Vec<u8> {
    config_for("amd64", diff_ids)
}

/// A config for linux on this architecture that lists these layers.
pub fn config_for(architecture: &str, diff_ids: &[String]) -> Vec<u8> {
    let rootfs = json!({ "type": "layers", "diff_ids": diff_ids });
    json!({ "architecture": architecture, "os": "linux", "config": {}, "rootfs": rootfs })
        .to_string()
        .into_bytes()
}

/// Uploads a blob to a registry without TLS, and returns its digest.
pub fn blob(host: &str, repository: &str, bytes: &[u8]) -> String {
    let digest = sha256(bytes);
    on_runtime(async {
        let client = http_client();
        let uploads = format!("http://{host}/v2/{repository}/blobs/uploads/");
        let opened = client.post(uploads).send().await.expect("an answer to POST");
        let location = opened.headers()["location"].to_str().expect("a location").to_owned();
        let location = match location.starts_with('/') {
            true => format!("http://{host}{location}"),
            false => location,
        };
        let sign = if location.contains('?') { '&' } else { '?' };
        let put = client.put(format!("{location}{sign}digest={digest}")).body(bytes.to_vec());
        let status = put.send().await.expect("an answer to PUT").status();
        assert_eq!(status, 201, "PUT of a blob");
    });
    digest
}

/// Puts a manifest or an index under a tag, and returns its digest.
pub fn tag(host: &str, repository: &str, tag: &str, manifest: &Value) -> String {
    let media_type = manifest["mediaType"].as_str().expect("a media type").to_owned();
    let body = manifest.to_string();
    let digest = sha256(body.as_bytes());
    on_runtime(async {
        let url = format!("http://{host}/v2/{repository}/manifests/{tag}");
        let put = http_client().put(url).header("content-type", media_type).body(body);
        let answer = put.send().await.expect("an answer to PUT");
        let status = answer.status();
        let text = answer.text().await.unwrap_or_default();
        assert_eq!(status, 201, "PUT of a manifest: {text}");
    });
    digest
}
