//! Reading the JSON, making the image, and the errors for a wrong file.

mod go;
mod tree;

use std::path::Path;
use std::sync::Mutex;

use proptest::prelude::*;

use super::*;
use crate::source::{Location, Options};

const SAMPLE: &str = include_str!("../../../../testdata/nix2container.json");
const SAMPLE_CONFIG: &str = include_str!("../../../../testdata/nix2container-config.json");

/// Reads the image that the text describes, as a file `FILE`.
fn image(text: &str) -> Result<Nix2container, Error> {
    let file: Arc<str> = "FILE".into();
    let spec = Spec::parse(&file, text.as_bytes())?;
    Nix2container::new(file, spec, Box::new(|_, _| {}))
}

fn error_of(text: &str) -> String {
    match image(text) {
        Ok(_) => panic!("{text} is no error"),
        Err(error) => error.to_string(),
    }
}

/// All bytes of a layer of these paths, or the error.
fn layer_of(paths: serde_json::Value) -> Result<Vec<u8>, String> {
    let layer = serde_json::from_value(serde_json::json!({
        "digest": SOME, "diff_ids": SOME, "size": 0, "mediatype": "", "paths": paths,
    }));
    let layer: LayerSpec = layer.unwrap();
    let label = Label { file: "FILE".into(), layer: 1, entry: layer.name() };
    let mut bytes = Vec::new();
    match SpecLayerContent::new(Arc::new(label), Arc::new(layer)).read_to_end(&mut bytes) {
        Ok(_) => Ok(bytes),
        Err(error) => Err(Error::from_read(error, "").to_string()),
    }
}

/// Any digest.
const SOME: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// The sample with `text` replaced by `other`.
fn sample_with(text: &str, other: &str) -> String {
    assert!(SAMPLE.contains(text), "{text}");
    SAMPLE.replacen(text, other, 1)
}

#[test]
fn the_config_is_the_one_that_go_writes() {
    let sample = SAMPLE.replace("@STORE@", "/store");
    let image = image(&sample).unwrap();
    let config = &image.images().unwrap()[0].config;
    assert_eq!(std::str::from_utf8(config.bytes()), Ok(SAMPLE_CONFIG));

    // All possible fields, and control characters.
    let full = r#"{"version":1,"arch":"arm","created":"0001-01-01T00:00:00Z","layers":null,
        "image-config":{"ArgsEscaped":true,"Healthcheck":{"Test":["x"]},"Volumes":null,"Env":[],
        "WorkingDir":"/\u0001\u001f\u007f\n\"","Labels":{"\u2029":"</a>"}},"more":{}}"#;
    let image = super::tests::image(full).unwrap();
    let config = &image.images().unwrap()[0].config;
    assert_eq!(
        std::str::from_utf8(config.bytes()).unwrap(),
        concat!(
            r#"{"created":"0001-01-01T00:00:00Z","architecture":"arm","os":"linux","config":{"#,
            r#""WorkingDir":"/\u0001\u001f"#,
            "\u{7f}",
            r#"\n\"","Labels":{"\u2029":"\u003c/a\u003e"},"ArgsEscaped":true},"#,
            r#""rootfs":{"type":"","diff_ids":null}}"#
        )
    );
}

#[test]
fn what_is_not_a_nix2container_image_is_told_what_it_is() {
    for (text, expected) in [
        ("[]", "FILE is a JSON list, such as the layers.json of buildLayer, not an image; of JSON"),
        ("{}", "FILE is a JSON file without `image-config`, not an image; of JSON files those"),
        (r#"{"store_layers":[]}"#, "FILE is the conf.json of streamLayeredImage, whose `result`"),
        (r#"{"schemaVersion":2}"#, "FILE is an image's manifest without the image, not an image"),
        (r#"{"rootfs":{}}"#, "FILE is an image's config without the image, not an image"),
        (
            "{",
            "FILE: not the JSON of a nix2container image: it is not JSON: it ends too early at line 1",
        ),
        (
            "[1",
            "FILE: not the JSON of a nix2container image: it is not JSON: it ends too early at line 1",
        ),
        (
            r#"{"version":2,"image-config":{}}"#,
            "FILE: the nix2container image is of version 2, and version 1 is understood; write an",
        ),
        (r#"{"image-config":{}}"#, "FILE: the nix2container image is of no version, and version"),
        (
            r#"{"version":1,"image-config":{}}"#,
            "FILE: not the JSON of a nix2container image: `layers` is missing;",
        ),
        (
            r#"{"version":1,"image-config":{},"layers":[]}"#,
            "FILE: not the JSON of a nix2container image: `arch` is missing;",
        ),
        (
            r#"{"version":1,"image-config":{},"layers":null,"arch":""}"#,
            "FILE is a base image as pullImage leaves it, without `arch`, not an image; of JSON",
        ),
        (
            &sample_with(r#""created_by""#, r#""created":"now","created_by""#),
            "FILE: not the JSON of a nix2container image: `layers[0].History.created` is wrong: \"now\"",
        ),
        (
            &sample_with("\"digest\"", "\"no\""),
            "FILE: not the JSON of a nix2container image: `layers[0].digest` is missing",
        ),
        (
            &sample_with("\"sha256:", "\"md5:"),
            "FILE: not the JSON of a nix2container image: `layers[0].digest` is wrong: \"md5",
        ),
    ] {
        let error = error_of(text);
        assert!(error.starts_with(expected), "{error}\n{expected}");
    }
    let layers = vec!["{}"; crate::image::MAX_LAYERS + 1].join(",");
    let many = layers.replace(
        "{}",
        &serde_json::json!({
            "digest": SOME, "diff_ids": SOME, "size": 1, "mediatype": "",
        })
        .to_string(),
    );
    let text = format!(r#"{{"version":1,"image-config":{{}},"arch":"a","layers":[{many}]}}"#);
    assert!(error_of(&text).contains("a list has more than 4096 elements"));
}

#[test]
fn a_layer_that_cannot_be_is_named_and_what_is_wrong_with_it() {
    let layer = |media_type: &str, digest: &str, rest: &str| {
        format!(
            r#"{{"version":1,"image-config":{{}},"arch":"a","layers":[{{"digest":"{digest}",
            "diff_ids":"{SOME}","size":1,"mediatype":"{media_type}"{rest}}}]}}"#
        )
    };
    let tar = "application/vnd.oci.image.layer.v1.tar";
    let other = SOME.replace('e', "f");
    for (text, expected) in [
        (
            layer("text/plain", SOME, r#","paths":[{"path":"/a"},{"path":"/b"}]"#),
            "FILE: layer 1, of \"/a and 1 more\": its media type \"text/plain\" is not one of",
        ),
        (layer(tar, SOME, ""), "FILE: layer 1, of \"\": it has neither `paths` nor a `layer-path`"),
        (
            layer(tar, &other, r#","paths":[{"path":"/a"}]"#),
            "FILE: layer 1, of \"/a\": it is a plain tar, whose digest sha256:f3b0c44298",
        ),
        (
            layer(tar, SOME, r#","paths":[{"path":"store/a"}]"#),
            "FILE: layer 1, of \"store/a\": its path \"store/a\" is not an absolute one",
        ),
        (
            layer(tar, SOME, r#","layer-path":"/a\u0000""#),
            "FILE: layer 1, of \"/a\\0\": its path \"/a\\0\" is not an absolute one",
        ),
    ] {
        let error = error_of(&text);
        assert!(error.starts_with(expected), "{error}\n{expected}");
    }
}

#[test]
fn a_file_that_is_too_long_is_not_read_to_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let open = |path: &Path| {
        let options = Options {
            images: crate::source::ImagesKnown::WhenTold,
            may_run: false,
            progress: Box::new(|_, _| {}),
            note: Arc::new(|_| {}),
        };
        crate::source::open(&Location::Path(path.to_owned()), options)
    };
    let path = folder.path().join("image.json");
    let mut text = SAMPLE.replace("@STORE@", "/store");
    text.extend(std::iter::repeat_n(' ', MAX_BYTES as usize - text.len()));
    std::fs::write(&path, &text).unwrap();
    assert!(open(&path).is_ok());
    text.push(' ');
    std::fs::write(&path, &text).unwrap();
    let error = open(&path).err().unwrap().to_string();
    assert!(
        error.ends_with(
            "is a JSON file of more than 8 MiB, which no nix2container image has; \
                             give the image itself"
        ),
        "{error}"
    );
}

#[test]
fn progress_goes_on_from_layer_to_layer_and_ends_at_the_end() {
    let told = Arc::new(Mutex::new(Vec::new()));
    let telling = told.clone();
    let file: Arc<str> = "FILE".into();
    let spec = Spec::parse(&file, SAMPLE.replace("@STORE@", "/store").as_bytes()).unwrap();
    let sizes: Vec<u64> = spec.layers.iter().map(|layer| layer.size).collect();
    let progress = move |at, total| telling.lock().unwrap().push((at, total));
    let mut image = Nix2container::new(file, spec, Box::new(progress)).unwrap();
    while image.next_layer().unwrap().is_some() {}
    let total: u64 = sizes.iter().sum();
    let mut at = 0;
    for ((told, of), size) in told.lock().unwrap().iter().zip(sizes.iter().chain([&0])) {
        assert_eq!((*told, *of), (at, Some(total)));
        at += size;
    }
    assert_eq!(told.lock().unwrap().len(), sizes.len() + 1);
}

proptest! {
    #[test]
    fn no_json_is_a_crash_and_every_error_is_one_line(
        at in 0..SAMPLE.len(),
        cut in 0..40_usize,
        put in prop_oneof![
            Just(String::new()), "[ -~]{0,8}", Just("null".into()), Just("\"\\u0000\"".into()),
            Just("-1".into()), Just("18446744073709551615".into()), Just("[]".into()),
        ],
    ) {
        let (before, after) = (SAMPLE.get(..at), SAMPLE.get((at + cut).min(SAMPLE.len())..));
        prop_assume!(before.is_some() && after.is_some());
        let text = format!("{}{put}{}", before.unwrap(), after.unwrap()).replace("@STORE@", "/no");
        match image(&text) {
            Ok(mut image) => {
                prop_assert_eq!(image.images().map(<[_]>::len), Some(1));
                while let Some(layer) = image.next_layer().unwrap() {
                    // The store of the sample does not exist.
                    prop_assert!(layer.content.read(&mut [0; 512]).is_err());
                }
            }
            Err(error) => prop_assert!(!error.to_string().contains(char::is_control)),
        }
    }
}
