//! Archives whose JSON only Go's decoder takes, as docker and skopeo do: they arrive, byte for byte.

use crate::support::DockerRegistry;
use crate::support::archive::{self, Layer, gzip};
use crate::support::pull;
use crate::support::run::Pushimg;
use tempfile::TempDir;

const NAMED: &[u8] = br#"[{"Config": "c.json", "RepoTags": ["x:y"], "Layers": ["l.tar"]}]"#;

fn archive(config: &[u8], manifest: &[u8], layer: &Layer) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, content) in
        [("l.tar", layer.tar.as_slice()), ("c.json", config), ("manifest.json", manifest)]
    {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, content).expect("a file in a tar");
    }
    tar.into_inner().expect("a tar in memory")
}

#[test]
fn an_image_whose_json_go_reads_arrives_as_it_is() {
    let registry = DockerRegistry::plain();
    let dir = TempDir::new().expect("a folder");
    let layer = Layer::text("a", 1, 10_000);
    let rootfs = format!(r#"{{"type": "layers", "diff_ids": ["{}"]}}"#, layer.diff_id());
    let config = |more: &str| {
        format!(r#"{{"architecture": "amd64", "os": "linux", "rootfs": {rootfs}{more}}}"#)
    };
    let other_case = config("").replace("rootfs", "RootFS").replace("diff_ids", "Diff_Ids");
    let mut latin_1 = config(r#", "history": [{"created_by": "caf#"}]"#).into_bytes();
    let at = latin_1.iter().position(|byte| *byte == b'#').expect("a place for the byte");
    latin_1[at] = 0xe9;
    let lowercase = br#"[{"config": "c.json", "repoTags": ["x:y"], "layers": ["l.tar"]}]"#;
    for (name, config, manifest) in [
        ("lowercase", config(""), lowercase.as_slice()),
        ("other-case", other_case, NAMED),
        ("twice", config(&format!(r#", "os": "linux", "OS": "linux", "rootfs": {rootfs}"#)), NAMED),
        ("nulls", config(r#", "history": null, "variant": null, "config": null"#), NAMED),
        ("surrogate", config(r#", "history": [{"comment": "\ud83d"}, null]"#), NAMED),
    ]
    .map(|(name, config, manifest)| (name, config.into_bytes(), manifest))
    .into_iter()
    .chain([("latin-1", latin_1, NAMED)])
    {
        let bytes = archive(&config, manifest, &layer);
        let plain = archive::write(dir.path(), "image.tar", &bytes);
        let compressed = archive::write(dir.path(), "image.tar.gz", &gzip(&bytes));
        for (form, path) in [("plain", plain), ("gzip", compressed)] {
            let destination = format!("{}/{name}:{form}", registry.host());
            Pushimg::new().run([path.to_str().expect("a path in UTF-8"), &destination]).success();
            let pulled = pull::oci(registry.host(), name, form);
            assert_eq!(pulled.config, config, "{name}");
            assert_eq!(pulled.layers.len(), 1);
            assert_eq!(pulled.layers[0].diff_id(), layer.diff_id());
        }
    }
}

#[test]
fn a_wrong_value_is_named_with_the_file_and_what_was_expected() {
    let dir = TempDir::new().expect("a folder");
    let layer = Layer::text("a", 1, 100);
    let bytes = archive(br#"{"rootfs": {"diff_ids": [7]}}"#, NAMED, &layer);
    let path = archive::write(dir.path(), "image.tar", &bytes);
    Pushimg::new()
        .run([path.to_str().expect("a path in UTF-8"), "localhost:1/app:v1"])
        .exits(3)
        .says("config \"c.json\"")
        .says("`rootfs.diff_ids[0]` must be a string, and is a number");
}
