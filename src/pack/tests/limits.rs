//! Bounded memory, threads that end, and misuse.

use std::sync::mpsc;
use std::time::Duration;

use super::{bytes, eventually, options, pack, packer, wait, write};
use crate::image::{Compression, Digest};
use crate::pack::{Error, Options, Packer};

#[test]
fn there_are_no_more_blocks_than_fit_in_memory() {
    for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
        for threads in [1, 2, 16, 1000] {
            let packer = packer(compression, threads);
            let mut blocks: Vec<_> = (0..packer.0.pool.free()).map(|_| packer.block()).collect();
            let sizes = blocks.iter_mut().map(|block| {
                // The compressed bytes may take the same amount again.
                2 * block.fill(&mut std::io::repeat(0)).unwrap()
            });
            assert!(sizes.sum::<usize>() <= 48 << 20);
            assert!(blocks.len() >= 4, "{compression}: {}", blocks.len());

            let (got, next) = mpsc::channel();
            let waiting = std::thread::spawn({
                let packer = packer.clone();
                move || {
                    let _block = packer.block();
                    got.send(()).unwrap();
                }
            });
            next.recv_timeout(Duration::from_millis(20)).unwrap_err();
            blocks.pop();
            next.recv_timeout(Duration::from_secs(20)).unwrap();
            waiting.join().unwrap();
        }
    }
}

#[test]
fn packing_does_with_less_where_memory_is_taken() {
    for compression in [Compression::Gzip, Compression::Zstd] {
        for threads in [1, 16] {
            let packer =
                Packer::new(Options { taken: 72 << 20, ..options(compression, threads) }).unwrap();
            let blocks = packer.0.pool.free();
            assert!((3..=4).contains(&blocks), "{compression}: {blocks}");
            let layer = bytes(30_000_000, 5);
            let (packed, _) = pack(&packer, &*layer).unwrap();
            let (usual, _) = pack(&super::packer(compression, threads), &*layer).unwrap();
            assert_eq!(packed, usual);
        }
    }
}

#[test]
fn layers_packed_side_by_side_do_not_wait_for_each_other_forever() {
    let packer = packer(Compression::Gzip, 2);
    let free = packer.0.pool.free();
    std::thread::scope(|scope| {
        for seed in 0..4 {
            let packer = &packer;
            scope.spawn(move || {
                let layer = bytes(15_000_000, seed);
                let (packed, _) = pack(packer, &*layer).unwrap();
                assert_eq!(packed.diff_id, Digest::of(&layer).into());
                let stored = super::gzip(&layer);
                let (packed, _) = pack(packer, &*stored).unwrap();
                assert_eq!(packed.diff_id, Digest::of(&layer).into());
            });
        }
    });
    eventually("all blocks are free", || packer.0.pool.free() == free);
}

#[test]
fn the_threads_end_with_the_last_packing() {
    let (packer, threads) = Packer::start(options(Compression::Gzip, 3)).unwrap();
    assert_eq!(threads.len(), 4);
    let (mut packing, spool) = packer.begin().unwrap();
    write(&mut packing, &packer, &*bytes(2_000_000, 1)).unwrap();
    drop(packer);
    assert!(threads.iter().all(|thread| !thread.is_finished()));
    drop(packing);
    for thread in threads {
        thread.join().unwrap();
    }
    assert!(matches!(wait(spool.finished()), Err(Error::Abandoned)));
}

#[test]
fn a_block_after_one_that_was_not_full_is_refused() {
    let packer = packer(Compression::Gzip, 2);
    let (mut packing, spool) = packer.begin().unwrap();
    write(&mut packing, &packer, &b"short"[..]).unwrap();
    // An empty block is ignored.
    packing.write(packer.block()).unwrap();
    let error = write(&mut packing, &packer, &b"more"[..]).unwrap_err();
    assert!(matches!(error, Error::ShortBlock));
    assert!(matches!(packing.finish(), Err(Error::ShortBlock)));
    assert!(matches!(wait(spool.finished()), Err(Error::ShortBlock)));
}
