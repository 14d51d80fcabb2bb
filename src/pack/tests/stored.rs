//! Layers that are stored compressed already.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use super::{bytes, eventually, gzip, pack, packer, wait, write};
use crate::image::{Compression, Digest};
use crate::pack::{Error, Packer};

fn zstandard(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
    encoder.include_checksum(true).unwrap();
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// A skippable frame, as zstd:chunked and seekable formats append for their tables.
const SKIPPABLE: &[u8] = b"\x5e\x2a\x4d\x18\x03\x00\x00\x00abc";

#[test]
fn a_layer_stored_compressed_is_its_own_blob() {
    let layer = bytes(7_000_000, 20);
    let (first, second) = layer.split_at(1_234_567);
    let concat = |parts: &[&[u8]]| parts.concat();
    for (stored, compression) in [
        (gzip(&layer), Compression::Gzip),
        (concat(&[&gzip(first), &gzip(second), &gzip(b"")]), Compression::Gzip),
        (zstandard(&layer), Compression::Zstd),
        (concat(&[&zstandard(first), &zstandard(second)]), Compression::Zstd),
        (concat(&[SKIPPABLE, &zstandard(&layer), SKIPPABLE]), Compression::Zstd),
    ] {
        // The compression for other layers makes no difference.
        for wanted in [Compression::None, Compression::Gzip, Compression::Zstd] {
            let packer = packer(wanted, 2);
            let (packed, blob) = pack(&packer, &*stored).unwrap();
            assert_eq!(packed.blob.compression, compression);
            assert_eq!(packed.blob.digest, Digest::of(&stored));
            assert_eq!(packed.diff_id, Digest::of(&layer).into());
            assert!(blob == stored);

            let mut hashing = packer.hash();
            write(&mut hashing, &packer, &*stored).unwrap();
            assert_eq!(hashing.finish().unwrap(), packed.diff_id);

            let (mut known, _spool) = packer.begin().unwrap();
            let half = stored.len() >> 23 << 22;
            write(&mut known, &packer, &stored[..half]).unwrap();
            known.hash_only();
            write(&mut known, &packer, &stored[half..]).unwrap();
            assert_eq!(known.finish().unwrap(), packed.diff_id);
        }
    }
}

/// The error of packing `stored`, as its writer and a reader of its spool get it.
fn refused(packer: &Packer, stored: &[u8]) -> Error {
    let (mut packing, spool) = packer.begin().unwrap();
    let written = write(&mut packing, packer, stored);
    let error = written.and_then(|()| packing.finish()).unwrap_err();
    let read = wait(spool.finished()).unwrap_err();
    assert_eq!(read.to_string(), error.to_string());
    assert_eq!(spool.available(), 0);
    error
}

#[test]
fn a_stored_layer_that_is_damaged_is_never_a_blob() {
    let packer = packer(Compression::Gzip, 2);
    let free = packer.0.pool.free();
    let layer = bytes(12_000_000, 21);
    for (stored, compression) in
        [(gzip(&layer), Compression::Gzip), (zstandard(&layer), Compression::Zstd)]
    {
        let mut flipped = stored.clone();
        flipped[1_100_000] ^= 1;
        let mut checksum = stored.clone();
        *checksum.last_mut().unwrap() ^= 1;
        let garbage = [&*stored, b"and then some"].concat();
        for damaged in [
            &stored[..stored.len() / 2],
            &stored[..stored.len() - 1],
            &stored[..4],
            &flipped,
            &checksum,
            &garbage,
        ] {
            let error = refused(&packer, damaged);
            assert!(
                matches!(&error, Error::Damaged { compression: c, .. } if *c == compression),
                "{error}"
            );
            let start = format!("its bytes begin as {compression} and cannot be decompressed: ");
            assert!(error.to_string().starts_with(&start), "{error}");
        }
    }
    eventually("all blocks are free", || packer.0.pool.free() == free);
}

#[test]
fn a_zstd_window_is_taken_as_zstd_takes_it_and_no_larger() {
    let stored = |window_log| {
        let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(window_log).unwrap();
        encoder.write_all(&bytes(100_000, 22)).unwrap();
        encoder.finish().unwrap()
    };
    let packer = packer(Compression::Gzip, 2);
    pack(&packer, &*stored(27)).unwrap();
    let error = refused(&packer, &stored(28));
    assert!(error.to_string().contains("a window of more than 128 MiB"), "{error}");
}

#[test]
fn other_compressions_are_refused_by_name() {
    let packer = packer(Compression::Gzip, 2);
    let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 1);
    xz.write_all(b"layer").unwrap();
    let mut bzip2 = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    bzip2.write_all(b"layer").unwrap();
    for (stored, name) in [(xz.finish().unwrap(), "xz"), (bzip2.finish().unwrap(), "bzip2")] {
        let error = refused(&packer, &stored).to_string();
        assert!(error.starts_with(&format!("it is stored {name}-compressed")), "{error}");
    }
}

#[test]
fn giving_up_a_decompression_bomb_takes_no_time() {
    // At most two blocks of input, which decompress to 25 GiB.
    let quarter = zstd::encode_all(std::io::repeat(0).take(256 << 20), 3).unwrap();
    let bomb = quarter.repeat(100);
    assert!(bomb.len() < 2 << 20, "{}", bomb.len());
    let packer = packer(Compression::Gzip, 2);
    let free = packer.0.pool.free();
    let start = Instant::now();
    let (mut packing, _spool) = packer.begin().unwrap();
    write(&mut packing, &packer, &*bomb).unwrap();
    drop(packing);
    eventually("all blocks are free", || packer.0.pool.free() == free);
    assert!(start.elapsed() < Duration::from_secs(5));
}
