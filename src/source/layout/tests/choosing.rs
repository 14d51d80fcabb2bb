//! Choosing one of several images, by name, digest and platform.

use super::*;

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
    // With a name, the digest must be that of a manifest of that image.
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
    // The index does not give the platform, so it comes from the config.
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
    // The platform of a single manifest is checked, too.
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
