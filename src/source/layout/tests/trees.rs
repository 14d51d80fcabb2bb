//! Everything that belongs to the selected image: manifests, blobs, referrers.

use super::*;

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
    // The manifest `one` is listed twice.
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
    // An old artifact: its config has an image's media type, but is not an image config.
    let no_config = layout.blob(CONFIG, "{}");
    let chart = layout.blob("application/vnd.cncf.helm.chart.content.v1.tar+gzip", "x");
    let artifact = layout.manifest(json!({ "config": no_config, "layers": [chart] }));
    let typed = json!({ "mediaType": "application/vnd.example+json", "layers": [chart] });
    let typed = layout.blob("application/vnd.example+json", typed.to_string());
    // An entry that is not a manifest counts as a blob.
    let other = layout.blob("application/vnd.other+json", r#"{"anything":true}"#);
    let cached = layout.blob(LAYER, "x");
    let index = layout.index(&[
        on(image, "linux/amd64"),
        on(attestation, "unknown/unknown"),
        artifact,
        typed.clone(),
        other.clone(),
        cached.clone(),
    ]);
    layout.list(&index);
    let tree = layout.select(&any());
    assert_eq!(tree.nodes.len(), 5);
    let blobs: Vec<_> = tree.nodes[4].blobs.iter().map(|blob| blob.digest.clone()).collect();
    assert_eq!(blobs, [digest_of(&other), digest_of(&cached)]);
    assert_eq!(tree.nodes[1].platform, Some(platform_of("unknown/unknown")));
    assert_eq!(tree.nodes[1].blobs[1].media_type, "application/vnd.in-toto+json");
    assert!(tree.nodes[2].config.is_none());
    assert_eq!(tree.nodes[3].media_type, "application/vnd.example+json");
    assert_eq!(tree.nodes[3].digest, digest_of(&typed));
    assert_eq!(tree.nodes[3].blobs.len(), 1);
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
fn referrers_follow_their_subjects_and_are_no_images() {
    let mut layout = Builder::new();
    let (one, two) = (layout.image("amd64", "1"), layout.image("arm64", "2"));
    let index = layout.index(&[one.clone(), two.clone()]);
    let of_one = layout.referrer(&one, "application/sbom");
    let of_two = layout.referrer(&two, "application/sbom");
    let of_index = layout.referrer(&index, "application/signature");
    let of_referrer = layout.referrer(&of_one, "application/signature");
    let of_nothing = layout.referrer(&json!({ "digest": Digest::of(b"x") }), "application/sbom");
    // Listed in no particular order.
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
    // With a name of its own, it is an image of its own.
    layout.list_as("v1-amd64", &one);
    assert!(layout.refused(&any()).starts_with("FILE holds 2 images: v1-amd64, v1; choose"));
    // An entry of another kind is ignored.
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
