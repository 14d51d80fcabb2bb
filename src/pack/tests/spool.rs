//! The spool: reading while it grows, and what happens when either side goes away.

use std::fs::OpenOptions;
use std::io::Read;
use std::path::Path;
use std::time::Duration;

use super::{bytes, eventually, options, pack, packer, read, spool_files, spooled_bytes};
use super::{unpack, wait, write};
use crate::image::{Compression, Digest};
use crate::pack::spool_file::SpoolFile;
use crate::pack::{Error, Options, Packer, Packing, Spool};

#[test]
fn readers_of_a_growing_blob_get_exactly_its_bytes() {
    let packer = packer(Compression::Gzip, 2);
    let layer = bytes(12_000_000, 5);
    wait(async {
        let (mut packing, spool) = packer.begin().unwrap();
        let readers = [997, 64 << 10, 3 << 20].map(|max| {
            let spool = spool.clone();
            tokio::spawn(async move { read(&spool, max).await.unwrap() })
        });
        let written = layer.clone();
        tokio::task::spawn_blocking(move || {
            for piece in written.chunks(1 << 20) {
                std::thread::sleep(Duration::from_millis(3));
                write(&mut packing, &packer, piece).unwrap();
            }
            packing.finish().unwrap()
        })
        .await
        .unwrap();
        let packed = spool.finished().await.unwrap();
        for reader in readers {
            let blob = reader.await.unwrap();
            assert_eq!(Digest::of(&blob), packed.blob.digest);
            assert!(unpack(&blob, Compression::Gzip) == layer);
        }
    });
}

#[test]
fn bytes_can_be_read_before_the_layer_ends_and_again_after() {
    let packer = packer(Compression::Gzip, 1);
    let (mut packing, spool) = packer.begin().unwrap();
    wait(async {
        write(&mut packing, &packer, &*bytes(1 << 20, 6)).unwrap();
        let early = spool.chunk(0, 5000).await.unwrap().unwrap();
        assert_eq!(early.len(), 5000);
        assert!(spool.available() >= 5000);
        assert_eq!(spool.length(), None);
        let end = tokio::spawn({
            let spool = spool.clone();
            async move { spool.chunk(1 << 40, 1).await }
        });
        packing.finish().unwrap();
        assert_eq!(end.await.unwrap().unwrap(), None);
        assert_eq!(spool.chunk(0, 5000).await.unwrap().unwrap(), early);
        let size = spool.finished().await.unwrap().blob.size;
        assert_eq!(spool.chunk(size, 1).await.unwrap(), None);
        let last = spool.chunk(size - 1, 10).await.unwrap().unwrap();
        assert_eq!(last.len(), 1);
    });
}

#[test]
fn an_abandoned_layer_leaves_nothing_behind_and_holds_up_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let packer =
        Packer::new(Options { spool_dir: dir.path().to_owned(), ..options(Compression::Gzip, 2) })
            .unwrap();
    let free = packer.0.pool.free();
    let layer = bytes(9_000_000, 7);
    let mut spools = Vec::new();
    for _ in 0..3 {
        let (mut dropped, spool) = packer.begin().unwrap();
        write(&mut dropped, &packer, &*layer).unwrap();
        spools.push(spool);
    }
    let (packed, _) = pack(&packer, &*layer).unwrap();
    assert_eq!(packed.diff_id, Digest::of(&layer).into());
    wait(async {
        for spool in &spools {
            assert!(matches!(spool.finished().await, Err(Error::Abandoned)));
            assert!(matches!(spool.chunk(0, 1).await, Err(Error::Abandoned)));
            assert_eq!((spool.available(), spool.length()), (0, None));
        }
    });
    eventually("all blocks are free", || packer.0.pool.free() == free);
    // Even though the spools are still held.
    eventually("no room is taken on the disk", || spooled_bytes(dir.path()) == 0);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn a_layer_that_turns_out_to_be_known_is_only_hashed_from_there_on() {
    let dir = tempfile::tempdir().unwrap();
    let packer =
        Packer::new(Options { spool_dir: dir.path().to_owned(), ..options(Compression::Gzip, 2) })
            .unwrap();
    let layer = bytes(5_000_000, 8);
    let (mut packing, spool) = packer.begin().unwrap();
    write(&mut packing, &packer, &layer[..3 << 20]).unwrap();
    packing.hash_only();
    eventually("its room is freed", || spooled_bytes(dir.path()) == 0);
    write(&mut packing, &packer, &layer[3 << 20..]).unwrap();
    assert_eq!(packing.finish().unwrap(), Digest::of(&layer).into());
    assert!(matches!(wait(spool.finished()), Err(Error::Abandoned)));
}

#[test]
fn hashing_alone_needs_no_spool() {
    let packer =
        Packer::new(Options { spool_dir: "/nonexistent".into(), ..options(Compression::Gzip, 2) })
            .unwrap();
    let layer = bytes(2_500_000, 9);
    let mut packing = packer.hash();
    write(&mut packing, &packer, &*layer).unwrap();
    assert_eq!(packing.finish().unwrap(), Digest::of(&layer).into());
    assert_eq!(packer.hash().finish().unwrap(), Digest::of(b"").into());
}

#[test]
fn a_blob_that_nobody_reads_any_more_is_not_made() {
    let dir = tempfile::tempdir().unwrap();
    let packer =
        Packer::new(Options { spool_dir: dir.path().to_owned(), ..options(Compression::Zstd, 1) })
            .unwrap();
    let layer = bytes(9_000_000, 10);
    let (mut packing, spool) = packer.begin().unwrap();
    write(&mut packing, &packer, &layer[..4 << 20]).unwrap();
    drop(spool);
    eventually("its room is freed", || spooled_bytes(dir.path()) == 0);
    write(&mut packing, &packer, &layer[4 << 20..]).unwrap();
    assert_eq!(packing.finish().unwrap(), Digest::of(&layer).into());
}

#[test]
fn a_blob_is_finished_after_its_packer_is_gone() {
    let packer = packer(Compression::Gzip, 1);
    let layer = bytes(9_000_000, 11);
    let (mut packing, spool) = packer.begin().unwrap();
    write(&mut packing, &packer, &*layer).unwrap();
    drop(packer);
    packing.finish().unwrap();
    wait(async {
        spool.finished().await.unwrap();
        let blob = read(&spool, 1 << 20).await.unwrap();
        assert!(unpack(&blob, Compression::Gzip) == layer);
    });
}

#[test]
fn blobs_that_wait_for_their_upload_share_one_file() {
    let dir = tempfile::tempdir().unwrap();
    let packer =
        Packer::new(Options { spool_dir: dir.path().to_owned(), ..options(Compression::None, 2) })
            .unwrap();
    let lengths = [0, 1, 300, 262_143, 262_144, 262_145, 1_000_000, 2_500_000];
    let mut blobs: Vec<(Vec<u8>, Spool)> = Vec::new();
    for number in 0..400 {
        let layer = bytes(lengths[number % lengths.len()], number as u64);
        let (mut packing, spool) = packer.begin().unwrap();
        write(&mut packing, &packer, &*layer).unwrap();
        packing.finish().unwrap();
        blobs.push((layer, spool));
        // Some blobs are dropped early, so that later ones use their slots.
        if number % 3 == 2 {
            blobs.remove(number / 5);
        }
        assert_eq!(spool_files(dir.path()), 1);
    }
    wait(async {
        for (layer, spool) in &blobs {
            spool.finished().await.unwrap();
            assert!(read(spool, 100_000).await.unwrap() == *layer);
        }
    });
    blobs.clear();
    eventually("all room is freed", || spooled_bytes(dir.path()) == 0);
    drop(packer);
    eventually("the file is closed", || spool_files(dir.path()) == 0);
}

#[test]
fn when_no_more_files_can_be_opened_the_advice_is_about_that() {
    let file = SpoolFile::over(tempfile::tempfile().unwrap(), Path::new("/var/tmp"));
    for errno in [rustix::io::Errno::MFILE, rustix::io::Errno::NFILE] {
        let error = file.error(errno.into()).to_string();
        assert!(error.contains("raise the limit of open files"), "{error}");
        assert!(!error.contains("TMPDIR"), "{error}");
    }
}

#[test]
fn a_full_disk_ends_the_layer_with_advice() {
    let packer = packer(Compression::Gzip, 2);
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let (spool, tail) = Spool::new(&SpoolFile::over(full, Path::new("/var/tmp")));
    let mut packing = Packing::new(packer.clone(), Some(tail));
    // Longer than all blocks together, so the writer must get an error before the end.
    let error = write(&mut packing, &packer, std::io::repeat(7).take(100 << 20)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "cannot spool a layer in /var/tmp: No space left on device (os error 28); \
         set TMPDIR to a directory with more room"
    );
    for error in [
        packing.finish().unwrap_err(),
        wait(spool.finished()).unwrap_err(),
        wait(spool.chunk(0, 1)).unwrap_err(),
    ] {
        assert!(matches!(error, Error::Spool { .. }), "{error}");
    }
    pack(&packer, &*bytes(5_000_000, 12)).unwrap();
}

#[test]
fn a_spool_directory_that_is_not_there_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let absent = dir.path().join("absent");
    let packer =
        Packer::new(Options { spool_dir: absent.clone(), ..options(Compression::Gzip, 2) })
            .unwrap();
    let error = packer.begin().err().unwrap().to_string();
    let expected = format!("cannot spool a layer in {}: No such file", absent.display());
    assert!(error.starts_with(&expected), "{error}");
    assert!(error.ends_with("set TMPDIR to a directory that can be written to"), "{error}");
}
