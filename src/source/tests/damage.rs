//! Files that are no archive, and archives that are broken: each has its own message.

use super::*;

#[test]
fn what_manifest_and_config_say_is_checked() {
    let one = layer(b"one");
    let good = || Archive::new().file("l.tar", &one).file("c.json", config(&[&one]));
    for (archive, expected) in [
        (
            good(),
            "FILE is a tar archive without manifest.json or oci-layout, so it is no docker archive \
             and no OCI layout; make one with `nix build .#docker`, `docker save` or `podman save`",
        ),
        (
            good().file("manifest.json", "[]"),
            "FILE: manifest.json lists no image; name one when saving: `docker save IMAGE`",
        ),
        (
            good().file("manifest.json", r#"{"schemaVersion":2}"#),
            "FILE: manifest.json is not the one of a docker archive: it must be a list, and \
             is an object; make the archive again",
        ),
        (
            good().file("manifest.json", manifest("../x.json", &["l.tar"])),
            "FILE: manifest.json names the config \"../x.json\", which is not in the archive; it is \
             incomplete, make it again",
        ),
        (
            good().file("manifest.json", manifest("c.json", &["m.tar"])),
            "FILE: manifest.json names the layer \"m.tar\", which is not in the archive; it is \
             incomplete, make it again",
        ),
        (
            good().file("manifest.json", manifest("c.json", &["l.tar", "l.tar"])),
            "FILE: config \"c.json\" lists 1 diff IDs, but manifest.json lists 2 layers for it; the \
             archive is broken, make it again",
        ),
        (
            good()
                .link(EntryType::Symlink, "a", "b")
                .link(EntryType::Symlink, "b", "a")
                .file("manifest.json", manifest("c.json", &["a"])),
            "FILE: the link \"a\" leads in a circle; the archive is broken, make it again",
        ),
        (
            good()
                .file("bad.json", "{\"rootfs\": 1}")
                .file("manifest.json", manifest("bad.json", &[])),
            "FILE: config \"bad.json\": the image config is not what OCI image-spec describes: \
             `rootfs` must be an object, and is a number; the archive is broken, make it again",
        ),
        (
            good()
                .file("two.json", config(&[&one, b"x"]))
                .file("manifest.json", manifest("two.json", &["l.tar", "l.tar"])),
            "FILE: layer \"l.tar\" is listed under two diff IDs, ",
        ),
        (
            good().file("manifest.json", vec![b' '; (4 << 20) + 1]),
            "FILE: \"manifest.json\" is 4194305 bytes long, more than the 4194304 that are read of \
             it; this is not what an image builder writes",
        ),
        (
            good()
                .file("big.json", vec![b' '; (8 << 20) + 1])
                .file("manifest.json", manifest("big.json", &[])),
            "FILE: \"big.json\" is 8388609 bytes long, more than the 8388608 that are read of it; \
             this is not what an image builder writes",
        ),
        (
            Archive::new().folder("etc").file("etc/passwd", "root"),
            "FILE is a root file system (it holds \"etc/passwd\"), not a docker archive; make an \
             image of it first: `docker import FILE NAME`, then `docker save NAME`",
        ),
        (
            Archive::new().file("oci-layout", "{}").file("index.json", "{}"),
            "FILE: oci-layout is broken: `imageLayoutVersion` is missing; make the layout again",
        ),
    ] {
        let text = error_both_ways(&archive.bytes());
        assert!(text.starts_with(expected), "{text}\n{expected}");
    }
}

#[test]
fn a_layer_that_is_none_is_an_error_in_a_stream() {
    let archive = Archive::new()
        .file("l.tar", "this is no tar")
        .file("no.json", "\x01")
        .file("c.json", config(&[b"x"]))
        .file("manifest.json", manifest("c.json", &["l.tar"]))
        .bytes();
    assert_eq!(
        error_of(&compress(&archive, Wrapping::Zstd)),
        "FILE: layer \"l.tar\" is neither a tar nor gzip, zstd, xz or bzip2; the archive is broken, \
         make it again"
    );
    let archive = Archive::new()
        .file("no.json", "\x01")
        .file("manifest.json", manifest("no.json", &[]))
        .bytes();
    assert_eq!(
        error_of(&compress(&archive, Wrapping::Zstd)),
        "FILE: config \"no.json\" is not JSON; the archive is broken, make it again"
    );
}

#[test]
fn json_is_kept_up_to_a_limit_only() {
    let mut archive = Archive::new();
    for n in 0..9 {
        archive = archive.file(&format!("{n}.json"), vec![b' '; 8 << 20]);
    }
    let archive =
        archive.file("c.json", config(&[])).file("manifest.json", manifest("c.json", &[])).bytes();
    // By seeking, only the files that are needed are read.
    let [seeked, streamed] = read_both_ways(&archive);
    assert_eq!(seeked.unwrap().images.len(), 1);
    let text = failure(streamed).to_string();
    assert!(text.contains("more JSON than the 32 MiB kept"), "{text}");
}

#[test]
fn sparse_layers_are_errors() {
    let one = layer(b"one");
    let mut archive = Archive::new().file("c.json", config(&[&one]));
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::GNUSparse);
    header.as_old_mut().name[..5].copy_from_slice(b"l.tar");
    header.set_size(0);
    header.set_cksum();
    archive.0.append(&header, &b""[..]).unwrap();
    let archive = archive.file("manifest.json", manifest("c.json", &["l.tar"]));
    assert_eq!(
        error_both_ways(&archive.bytes()),
        "FILE: layer \"l.tar\" is stored as a sparse file, which is not read; make the archive \
         without `tar --sparse`"
    );
}

#[test]
fn a_million_entries_are_an_error_not_a_memory_hog() {
    let mut bytes = Vec::new();
    let mut header = Header::new_gnu();
    header.set_size(0);
    for n in 0..70_000 {
        let name = format!("{n:08}");
        header.as_old_mut().name[..8].copy_from_slice(name.as_bytes());
        header.set_cksum();
        bytes.extend(header.as_bytes());
    }
    let text = error_both_ways(&bytes);
    assert!(text.starts_with("FILE holds more than 65536 files"), "{text}");
}

#[test]
fn what_is_no_archive_gets_its_own_word() {
    for (bytes, expected) in [
        (&b""[..], "FILE is empty (0 bytes); was the build"),
        (
            b"#! /nix/store/x/bash -e\nexec",
            "FILE is a script, but may not be executed, and is not what Nix's streamLayeredImage makes; if it writes an image, make it executable: `chmod +x FILE`",
        ),
        (b"\x7fELF\x02\x01", "FILE is a program, but may not be executed, and"),
        (b" {\"version\": 1}", "FILE is a JSON file without `image-config`, not an image; of JSON"),
        (
            b"Dear reader,\n\xc3\xa9",
            "FILE is not an image: it is a text file; give a docker archive",
        ),
        (
            b"<!DOCTYPE html>",
            "FILE is not an image: it is an HTML or XML page, as a failed download",
        ),
        (
            b"version https://git-lfs.github.com/spec/v1",
            "FILE is not an image: it is a Git LFS pointer",
        ),
        (b"PK\x03\x04", "FILE is not an image: it is a zip file"),
        (b"\x00\x01\x02", "FILE is not an image: it is neither a tar nor gzip, zstd, xz or bzip2"),
    ] {
        let text = error_of(bytes);
        assert!(text.starts_with(expected), "{text}\n{expected}");
    }
    let (folder, path) = folder_with(b"");
    let text = open_path(&folder.path().join("no\x1bne")).err().unwrap().to_string();
    assert!(text.ends_with(
        "no\\u{1b}ne: no such file; build the image first (`nix build` leaves ./result), or give \
         `-` to read it from standard input"
    ), "{text}");
    let text = open_path(&path.join("below")).err().unwrap().to_string();
    assert!(text.contains("cannot be opened"), "{text}");
    let text = open_path(folder.path()).err().unwrap().to_string();
    assert!(text.contains("is a directory, but neither an OCI layout"), "{text}");
    fs::write(folder.path().join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    let text = open_path(folder.path()).err().unwrap().to_string();
    assert!(text.contains("index.json is missing"), "{text}");
}

#[test]
fn what_is_compressed_but_no_tar_says_so() {
    for wrapping in &WRAPPINGS[1..] {
        assert_eq!(
            error_of(&compress(&[b'x'; 2000], *wrapping)),
            format!(
                "FILE is {wrapping} data, but what is inside is not a tar archive; give a docker \
                 archive, plain or compressed once"
            )
        );
    }
    let mut damaged = nix_archive(&[]);
    damaged[0] ^= 1;
    let text = error_of(&damaged);
    assert!(
        text.starts_with("FILE: the tar archive is damaged at byte 0, in the first header"),
        "{text}"
    );
}

#[test]
fn truncated_and_corrupt_compression_is_told_apart() {
    let mut noise = vec![0; 300_000];
    let mut state = 1_u32;
    for byte in &mut noise {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        *byte = (state >> 24) as u8;
    }
    let archive = nix_archive(&[&layer(&noise)]);
    for wrapping in &WRAPPINGS[1..] {
        let packed = compress(&archive, *wrapping);
        for cut in [100, packed.len() / 2, packed.len() - 1] {
            assert_eq!(
                error_of(&packed[..cut]),
                format!(
                    "FILE: truncated {wrapping} after {cut} bytes; was the download or the build \
                     cut off? Make or fetch it again"
                )
            );
        }
        let mut damaged = packed;
        let middle = damaged.len() / 2;
        damaged[middle..middle + 2000].fill(0x55);
        let text = error_of(&damaged);
        assert!(text.starts_with(&format!("FILE: corrupt {wrapping}, noticed at byte ")), "{text}");
    }
}

#[test]
fn a_plain_tar_cut_in_half_says_where() {
    let archive = nix_archive(&[&layer(&[1; 5000])]);
    let text = error_of(&archive[..3000]);
    assert!(
        text.starts_with("FILE: the tar archive is truncated: it ends at byte 3000, in entry \""),
        "{text}"
    );
    // Between two entries a tar may end, but then there is no manifest.json.
    let text = error_of(&archive[..7168]);
    assert!(text.contains("truncated: it ends at byte 7168, in the header after entry"), "{text}");
}

#[test]
fn a_file_that_shrinks_while_it_is_read_is_an_error() {
    let archive = nix_archive(&[&layer(&[1; 5000])]);
    let (_folder, path) = folder_with(&archive);
    let mut source = open_path(&path).unwrap();
    fs::File::options().write(true).open(&path).unwrap().set_len(1000).unwrap();
    let text = failure(read_whole(&mut *source)).to_string();
    assert!(text.contains("it ends at byte 1000, in entry"), "{text}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn random_bytes_are_an_error_and_never_a_panic(
        start in prop::sample::select(vec![
            &b""[..], b"\x1f\x8b\x08\x00", b"\x28\xb5\x2f\xfd", b"\xfd7zXZ\0", b"BZh9", b"\x1f\x8b",
        ]),
        bytes in prop::collection::vec(any::<u8>(), 0..2000),
    ) {
        let (_folder, path) = folder_with(&[start, &bytes].concat());
        prop_assert!(read_path(&path).is_err());
    }

    #[test]
    fn a_cut_archive_is_an_error_unless_only_zeros_are_missing(
        cut in any::<prop::sample::Index>(),
        kind in 0..WRAPPINGS.len(),
    ) {
        let archive = nix_archive(&[&layer(b"one"), &layer(b"two")]);
        let bytes = compress(&archive, WRAPPINGS[kind]);
        let cut = cut.index(bytes.len());
        let (_folder, path) = folder_with(&bytes[..cut]);
        match read_path(&path) {
            Err(_) => {}
            Ok(whole) => {
                // The two blocks of zeros that end a plain tar.
                prop_assert!(WRAPPINGS[kind] == Wrapping::None && cut >= bytes.len() - 1024);
                prop_assert_eq!(whole.layers.len(), 2);
            }
        }
    }
}
