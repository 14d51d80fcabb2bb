//! Tests of packing through its interface.

mod blob;
mod limits;
mod spool;
mod stored;

use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use tokio::runtime::Runtime;

use super::{Error, Options, Packed, Packer, Packing, Spool};
use crate::image::Compression;

fn options(compression: Compression, threads: usize) -> Options {
    Options { compression, level: None, threads, taken: 0, spool_dir: std::env::temp_dir() }
}

fn packer(compression: Compression, threads: usize) -> Packer {
    Packer::new(options(compression, threads)).unwrap()
}

/// Writes all of `layer` in full blocks.
fn write(packing: &mut Packing, packer: &Packer, mut layer: impl Read) -> Result<(), Error> {
    loop {
        let mut block = packer.block();
        if block.fill(&mut layer).unwrap() == 0 {
            return Ok(());
        }
        packing.write(block)?;
    }
}

/// Packs `layer`, and reads its blob once it is whole.
fn pack(packer: &Packer, layer: impl Read) -> Result<(Packed, Vec<u8>), Error> {
    let (mut packing, spool) = packer.begin()?;
    write(&mut packing, packer, layer)?;
    let diff_id = packing.finish()?;
    wait(async {
        let packed = spool.finished().await?;
        assert_eq!(packed.diff_id, diff_id);
        assert_eq!(spool.length(), Some(packed.blob.size));
        assert_eq!(spool.available(), packed.blob.size);
        Ok((packed, read(&spool, 1 << 20).await?))
    })
}

/// Reads a growing blob to its end.
async fn read(spool: &Spool, max: usize) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    while let Some(chunk) = spool.chunk(bytes.len() as u64, max).await? {
        assert!(!chunk.is_empty() && chunk.len() <= max);
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

fn wait<T>(future: impl Future<Output = T>) -> T {
    Runtime::new().unwrap().block_on(future)
}

/// Bytes of which some repeat and some do not, the same for the same length and seed.
fn bytes(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(len + 64);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        if state.is_multiple_of(3) {
            bytes.extend_from_slice(&state.to_le_bytes());
        } else {
            bytes.extend_from_slice(
                b"/nix/store/lib/share/bin/python3.12/site-packages"[..40].as_ref(),
            );
        }
    }
    bytes.truncate(len);
    bytes
}

/// Random bytes, the same for the same length and seed.
fn random(len: usize, mut seed: u64) -> Vec<u8> {
    let next = || {
        seed = seed.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(99);
        (seed >> 56) as u8
    };
    std::iter::repeat_with(next).take(len).collect()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn gunzip(blob: &[u8]) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    flate2::read::MultiGzDecoder::new(blob).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn unpack(blob: &[u8], compression: Compression) -> Vec<u8> {
    match compression {
        Compression::None => blob.to_vec(),
        Compression::Gzip => gunzip(blob).unwrap(),
        Compression::Zstd => zstd::decode_all(blob).unwrap(),
    }
}

/// The descriptors of this process that are unlinked files of `dir`.
fn spool_descriptors(dir: &Path) -> Vec<PathBuf> {
    let of_dir = |path: &PathBuf| std::fs::read_link(path).is_ok_and(|file| file.starts_with(dir));
    let descriptors = std::fs::read_dir("/proc/self/fd").unwrap();
    descriptors.map(|entry| entry.unwrap().path()).filter(of_dir).collect()
}

/// How many unlinked files of `dir` this process has open.
fn spool_files(dir: &Path) -> usize {
    spool_descriptors(dir).len()
}

/// How much disk space the unlinked files of `dir` take.
fn spooled_bytes(dir: &Path) -> u64 {
    let room = |path: PathBuf| std::fs::metadata(path).map_or(0, |file| 512 * file.blocks());
    spool_descriptors(dir).into_iter().map(room).sum()
}

/// Waits until `holds` returns true, because other threads need some time.
#[track_caller]
fn eventually(what: &str, holds: impl Fn() -> bool) {
    let start = std::time::Instant::now();
    while !holds() {
        assert!(start.elapsed().as_secs() < 20, "not after 20 s: {what}");
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
}
