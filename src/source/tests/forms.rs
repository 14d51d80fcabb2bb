//! Every form of docker archive reads the same: plain, compressed, from a pipe, of each builder.

use super::*;

#[test]
fn a_nix_image_reads_the_same_in_every_compression() {
    let (one, two) = (layer(b"one"), layer(&[2; 700_000]));
    let archive = nix_archive(&[&one, &two]);
    for wrapping in WRAPPINGS {
        let (_folder, path) = folder_with(&compress(&archive, wrapping));
        let whole = read_path(&path).unwrap();
        assert_eq!(whole.contents(0), [&one, &two], "{wrapping}");
        assert_eq!(whole.images[0].names, ["r.io/a:v1"]);
        let diff_id: DiffId = Digest::of(&one).into();
        let claim = match wrapping {
            Wrapping::None => Claim::DiffId(diff_id),
            _ => Claim::Hint(diff_id),
        };
        assert_eq!(whole.layers[0].1, claim, "{wrapping}");
    }
}

#[test]
fn images_are_known_at_once_where_the_source_can_seek_and_at_the_end_where_not() {
    let archive = nix_archive(&[&layer(b"one")]);
    let (_folder, path) = folder_with(&archive);
    assert!(open_path(&path).unwrap().images().is_some());

    let (_folder, path) = folder_with(&compress(&archive, Wrapping::Gzip));
    let mut source = open_path(&path).unwrap();
    assert!(source.images().is_none());
    assert!(source.next_layer().unwrap().is_some());
    assert!(source.images().is_none());
    assert!(source.next_layer().unwrap().is_none());
    assert_eq!(source.images().unwrap().len(), 1);
    assert!(source.next_layer().unwrap().is_none());
}

#[test]
fn a_layer_left_unread_or_half_read_does_not_disturb_the_next() {
    let layers = [layer(&[1; 5000]), layer(&[2; 3000]), layer(&[3; 9000])];
    let archive = nix_archive(&[&layers[0], &layers[1], &layers[2]]);
    for wrapping in WRAPPINGS {
        let (_folder, path) = folder_with(&compress(&archive, wrapping));
        let mut source = open_path(&path).unwrap();
        source.next_layer().unwrap().unwrap();
        let second = source.next_layer().unwrap().unwrap();
        second.content.read_exact(&mut [0; 700]).unwrap();
        let third = source.next_layer().unwrap().unwrap();
        let mut content = Vec::new();
        third.content.read_to_end(&mut content).unwrap();
        assert_eq!(content, layers[2]);
        assert!(source.next_layer().unwrap().is_none());
        assert_eq!(source.images().unwrap()[0].layers.len(), 3);
    }
}

#[test]
fn a_result_link_and_a_pipe_are_read() {
    let archive = nix_archive(&[&layer(b"one")]);
    let (folder, path) = folder_with(&archive);
    let result = folder.path().join("result");
    symlink(&path, &result).unwrap();
    assert_eq!(read_path(&result).unwrap().images.len(), 1);

    for wrapping in WRAPPINGS {
        let pipe = folder.path().join(format!("pipe-{wrapping}"));
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let bytes = compress(&archive, wrapping);
        let writer = std::thread::spawn({
            let pipe = pipe.clone();
            move || fs::write(pipe, bytes)
        });
        let mut source = open_path(&pipe).unwrap();
        assert!(source.images().is_none());
        assert_eq!(read_whole(&mut *source).unwrap().images.len(), 1);
        // The writer could write everything.
        writer.join().unwrap().unwrap();
    }
}

#[test]
fn build_image_and_old_docker_save_share_layers_by_links() {
    let (base, own) = (layer(b"base"), layer(b"own"));
    let (a, b, c, d) = ("a".repeat(64), "b".repeat(64), "c".repeat(64), "d".repeat(64));
    let config = config(&[&base, &own, &base, &own]);
    let names: Vec<_> = [&a, &b, &c, &d].map(|id| format!("{id}/layer.tar")).to_vec();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let archive = Archive::new()
        .folder(&a)
        .file(&format!("{a}/VERSION"), "1.0")
        .file(&format!("{a}/json"), "{}")
        .file(names[0], &base)
        .file(names[1], &own)
        .link(EntryType::Symlink, names[2], &format!("../{a}/layer.tar"))
        .link(EntryType::Link, names[3], names[1])
        .file("cfg.json", config)
        .file("manifest.json", manifest("cfg.json", &names))
        .file("repositories", "{}")
        .bytes();
    let [seeked, streamed] = read_both_ways(&archive).map(Result::unwrap);
    for whole in [&seeked, &streamed] {
        assert_eq!(whole.layers.len(), 2);
        assert_eq!(whole.contents(0), [&base, &own, &base, &own]);
    }
    assert_eq!(seeked.layers[0].1, Claim::DiffId(Digest::of(&base).into()));
    // A v1 id looks like a diff ID, so it is taken for a hint, which is wrong.
    assert!(matches!(&streamed.layers[0].1, Claim::Hint(_)));
}

#[test]
fn docker_25_and_podman_archives_are_read() {
    let one = layer(b"one");
    let config = config(&[&one]);
    let config_name = format!("blobs/sha256/{}", hex(config.as_bytes()));
    let layer_name = format!("blobs/sha256/{}", hex(&one));
    let docker = Archive::new()
        .folder("blobs/")
        .folder("blobs/sha256/")
        .file(&config_name, &config)
        .file(&layer_name, &one)
        .file(&format!("blobs/sha256/{}", "f".repeat(64)), r#"{"schemaVersion":2}"#)
        .file("index.json", "{}")
        .file("manifest.json", manifest(&config_name, &[&layer_name]))
        .file("oci-layout", "{}")
        .file("repositories", "{}")
        .bytes();
    let tar_name = format!("{}.tar", hex(&one));
    let podman = Archive::new()
        .file(&tar_name, &one)
        .link(
            EntryType::Symlink,
            &format!("{}/layer.tar", "e".repeat(64)),
            &format!("../{tar_name}"),
        )
        .file("c.json", &config)
        .file("manifest.json", manifest("c.json", &[&tar_name]))
        .bytes();
    for archive in [docker, podman] {
        let [seeked, streamed] = read_both_ways(&archive).map(Result::unwrap);
        assert_eq!(seeked.contents(0), [&one]);
        assert_eq!(streamed.contents(0), [&one]);
        assert_eq!(streamed.layers.len(), 1);
        let diff_id: DiffId = Digest::of(&one).into();
        // Docker's archive may also be a layout, which only its end shows. So it is copied to a
        // temporary file and read by seeking.
        let claim = match streamed.layers[0].0.starts_with("blobs/") {
            true => Claim::DiffId(diff_id),
            false => Claim::Hint(diff_id),
        };
        assert_eq!(streamed.layers[0].1, claim);
    }
}

#[test]
fn layers_that_are_gzip_already_are_given_as_they_are() {
    let packed = compress(&layer(b"one"), Wrapping::Gzip);
    let one = layer(b"one");
    let name = format!("{}.tar.gz", hex(&packed));
    // The config's name has no `.json`.
    let archive = Archive::new()
        .file("sha256:0123", config(&[&one]))
        .file(&name, &packed)
        .file("manifest.json", manifest("sha256:0123", &[&name]))
        .bytes();
    for whole in read_both_ways(&archive) {
        assert_eq!(whole.unwrap().contents(0), [&packed]);
    }
}

#[test]
fn several_images_share_layers_and_one_without_names_has_none() {
    let (one, two) = (layer(b"one"), layer(b"two"));
    let list = serde_json::json!([
        {"Config": "./a.json", "RepoTags": ["a:1", "a:2"], "Layers": ["./1.tar", "2.tar"]},
        {"Config": "b.json", "RepoTags": null, "Layers": ["2.tar"]},
        {"Config": "c.json", "RepoTags": [], "Layers": null},
    ]);
    let archive = Archive::new()
        .file("./manifest.json", list.to_string())
        .file("2.tar", &two)
        .file("./1.tar", &one)
        .file("unused.tar", layer(b"unused"))
        .file("a.json", config(&[&one, &two]))
        .file("./b.json", config(&[&two]))
        .file("c.json", config(&[]))
        .bytes();
    let [seeked, streamed] = read_both_ways(&archive).map(Result::unwrap);
    for whole in [&seeked, &streamed] {
        assert_eq!(whole.images.len(), 3);
        assert_eq!(whole.contents(0), [&one, &two]);
        assert_eq!(whole.contents(1), [&two]);
        assert!(whole.contents(2).is_empty());
        assert_eq!(whole.images[0].names, ["a:1", "a:2"]);
        assert!(whole.images[1].names.is_empty());
    }
    // By seeking, layers that belong to no image are not read.
    assert_eq!((seeked.layers.len(), streamed.layers.len()), (2, 3));
}

#[test]
fn of_two_entries_with_one_name_the_later_counts() {
    let (old, new) = (layer(b"old"), layer(b"new"));
    let archive = Archive::new()
        .file("l.tar", &old)
        .file("c.json", config(&[]))
        .file("l.tar", &new)
        .file("c.json", config(&[&new]))
        .file("manifest.json", manifest("c.json", &["l.tar"]))
        .bytes();
    for whole in read_both_ways(&archive) {
        assert_eq!(whole.unwrap().contents(0), [&new]);
    }
}

#[test]
fn several_frames_members_and_streams_are_one_file() {
    let archive = nix_archive(&[&layer(b"one")]);
    let (head, tail) = archive.split_at(1000);
    for wrapping in &WRAPPINGS[1..] {
        let mut bytes = compress(head, *wrapping);
        bytes.extend(compress(tail, *wrapping));
        let (_folder, path) = folder_with(&bytes);
        assert_eq!(read_path(&path).unwrap().images.len(), 1, "{wrapping}");
    }
}

#[test]
fn archives_of_gnu_tar_in_all_its_formats_are_read() {
    let one = layer(&[1; 3000]);
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("image");
    // ustar has 255 bytes for a name, but 100 for a link's target.
    let long = format!("{}/{}", "d".repeat(40), "e".repeat(40));
    let longer = format!("{}/{}", "f".repeat(90), "g".repeat(90));
    fs::create_dir_all(image.join(&longer)).unwrap();
    let longer_name = format!("{longer}/layer.tar");
    fs::write(image.join(&longer_name), &one).unwrap();
    fs::create_dir_all(image.join(&long)).unwrap();
    let layer_name = format!("{long}/layer.tar");
    fs::write(image.join(&layer_name), &one).unwrap();
    fs::hard_link(image.join(&layer_name), image.join("second.tar")).unwrap();
    fs::write(image.join("c.json"), config(&[&one, &one, &one])).unwrap();
    fs::write(
        image.join("manifest.json"),
        manifest("c.json", &[&layer_name, "second.tar", &longer_name]),
    )
    .unwrap();
    for format in ["gnu", "oldgnu", "pax", "ustar"] {
        for compression in ["--no-auto-compress", "--gzip"] {
            let path = folder.path().join("out");
            let status = Command::new("tar")
                .args([&format!("--format={format}"), compression, "-cf"])
                .args([&path, Path::new("-C"), &image, Path::new(".")])
                .stderr(Stdio::inherit())
                .status()
                .unwrap();
            assert!(status.success());
            let whole = read_path(&path).unwrap();
            assert_eq!(whole.contents(0), [&one, &one, &one], "{format} {compression}");
            assert_eq!(whole.layers.len(), 2);
        }
    }
}
