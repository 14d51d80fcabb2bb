//! Layouts that are damaged, incomplete, or too large.

use super::*;

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
    // Two indexes that list each other: one of the digests must be wrong.
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

/// The error for a layout that is too large to test in every form, so it is tested only as a tar.
#[track_caller]
fn refused_as_tar(layout: &Builder) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image");
    fs::write(&path, tar_of(&layout.files())).unwrap();
    let error = layout_at(&path).and_then(|layout| layout.select(&any())).unwrap_err();
    error.to_string().replace(path.to_str().unwrap(), "FILE")
}

const ARTIFACT: &str = "application/vnd.oci.artifact.manifest.v1+json";

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
        .map(|n| {
            let manifest = format!("{{\"n\":{n}}}{}", " ".repeat(4_000_000));
            layout.blob(ARTIFACT, manifest)
        })
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
    let many: Vec<_> = (0..4096).map(|n| layout.blob(ARTIFACT, format!("{{\"n\":{n}}}"))).collect();
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
    // Cut off between two entries.
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

/// Opens a layout that may be damaged in all forms, and selects images from it.
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
        // The digests are those of the damaged bytes, so that the damage is not noticed by hashing.
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
