//! The blob: what it decompresses to, and what it depends on.

use std::io::{self, Read, Write};
use std::process::{Command, Stdio};

use proptest::prelude::*;

use super::{bytes, gunzip, options, pack, packer, random, unpack};
use crate::image::{Compression, DiffId, Digest};
use crate::pack::{Error, Options, Packer};

const COMPRESSIONS: [Compression; 3] = [Compression::None, Compression::Gzip, Compression::Zstd];

/// A reader that returns few bytes at a time and is sometimes interrupted.
struct Dribble<'a> {
    rest: &'a [u8],
    most: usize,
    turn: usize,
}

impl Read for Dribble<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.turn += 1;
        if self.turn.is_multiple_of(7) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let len = buffer.len().min(1 + self.turn * 7919 % self.most);
        self.rest.read(&mut buffer[..len])
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_blob_decompresses_to_its_layer_and_depends_on_nothing_else(
        len in prop_oneof![0..3usize, 0..5_000usize, (1usize << 20) - 2..(1 << 20) + 3, 0..9_000_000usize],
        seed: u64,
        most in 1_000..3_000_000usize,
        threads in 1..8usize,
        compression in prop::sample::select(COMPRESSIONS.to_vec()),
    ) {
        let layer = bytes(len, seed);
        let dribble = Dribble { rest: &layer, most, turn: 0 };
        let (packed, blob) = pack(&packer(compression, threads), dribble).unwrap();
        prop_assert_eq!(packed.blob.compression, compression);
        prop_assert_eq!(&packed.blob.digest, &Digest::of(&blob));
        prop_assert_eq!(packed.blob.size, blob.len() as u64);
        prop_assert_eq!(&packed.diff_id, &DiffId::from(Digest::of(&layer)));
        prop_assert!(unpack(&blob, compression) == layer);
        let (alone, _) = pack(&packer(compression, 1), &*layer).unwrap();
        prop_assert_eq!(packed, alone);
    }
}

/// A layer of runs that compress and runs that do not.
fn mixed(runs: &[(usize, bool)], seed: u64) -> Vec<u8> {
    let run = |(number, (len, is_random)): (usize, &(usize, bool))| match is_random {
        true => random(*len, seed ^ number as u64),
        false => bytes(*len, seed ^ number as u64),
    };
    runs.iter().enumerate().flat_map(run).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_layer_that_compresses_in_parts_decompresses_to_itself(
        runs in prop::collection::vec(
            (prop_oneof![1..20_000usize, 100_000..1_500_000usize], any::<bool>()), 1..9,
        ),
        seed: u64,
        threads in 1..5usize,
    ) {
        let layer = mixed(&runs, seed);
        let (packed, blob) = pack(&packer(Compression::Gzip, threads), &*layer).unwrap();
        prop_assert_eq!(&packed.blob.digest, &Digest::of(&blob));
        prop_assert!(gunzip(&blob).unwrap() == layer);
        let (alone, _) = pack(&packer(Compression::Gzip, 1), &*layer).unwrap();
        prop_assert_eq!(packed, alone);
        // Stored blocks and additional members with their checksums make the blob a little longer.
        prop_assert!(blob.len() < layer.len() + layer.len() / 500 + 200);
    }
}

#[test]
fn other_programs_read_a_layer_that_compresses_in_parts() {
    let runs = [(5_000, false), (8_192, true), (9_000, false), (1_400_000, true), (70_000, false)];
    let layer = mixed(&runs.repeat(3), 7);
    let (_, blob) = pack(&packer(Compression::Gzip, 2), &*layer).unwrap();
    let members = blob.windows(10).filter(|at| at.starts_with(b"\x1f\x8b\x08\0\0\0\0\0\0\xff"));
    assert!(members.count() > 10);
    let python = "import gzip,sys; sys.stdout.buffer.write(gzip.open(sys.stdin.buffer).read())";
    assert!(filter(Command::new("gzip").arg("-dc"), &blob) == layer);
    assert!(filter(Command::new("pigz").arg("-dc"), &blob) == layer);
    assert!(filter(Command::new("python3").args(["-c", python]), &blob) == layer);
}

#[test]
fn a_blob_is_the_same_with_any_number_of_threads() {
    let layer = [bytes(12_000_000, 1), random(5_000_000, 2), bytes(3_000_000, 3)].concat();
    for compression in COMPRESSIONS {
        let digests = [1, 2, 7].map(|threads| {
            let (packed, _) = pack(&packer(compression, threads), &*layer).unwrap();
            packed.blob.digest
        });
        assert_eq!(digests[0], digests[1], "{compression}");
        assert_eq!(digests[0], digests[2], "{compression}");
    }
}

/// If this fails after an update of libdeflate or zstd, the blobs are still correct. But registries
/// have the old blobs, so all layers will be uploaded again. Mention it in the release notes.
#[test]
fn a_blob_is_the_same_on_every_machine() {
    let layer = bytes(6_000_000, 1);
    let digests = COMPRESSIONS.map(|compression| {
        let (packed, _) = pack(&packer(compression, 2), &*layer).unwrap();
        packed.blob.digest.short().to_owned()
    });
    assert_eq!(digests, ["70b120be1b8b", "1e1283087f84", "e58afae5caf8"]);
}

#[test]
fn a_gzip_member_says_nothing_of_when_and_where_it_was_made() {
    let (_, blob) = pack(&packer(Compression::Gzip, 2), &b"layer"[..]).unwrap();
    // RFC 1952, section 2.3: magic, deflate, no flags, mtime 0, no XFL, OS unknown.
    assert_eq!(blob[..10], [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff]);
}

#[test]
fn a_zstd_frame_has_the_size_and_checksum_of_its_content() {
    let (_, blob) = pack(&packer(Compression::Zstd, 2), &b"layer"[..]).unwrap();
    let frame = zstd::zstd_safe::get_frame_content_size(&blob).unwrap();
    assert_eq!(frame, Some(5));
    // RFC 8878, section 3.1.1.1.1: bit 2 of the descriptor.
    assert_ne!(blob[4] & 4, 0);
}

#[test]
fn an_empty_layer_is_a_valid_blob() {
    for compression in COMPRESSIONS {
        let (packed, blob) = pack(&packer(compression, 2), io::empty()).unwrap();
        assert_eq!(packed.diff_id, Digest::of(b"").into());
        assert_eq!(blob.is_empty(), compression == Compression::None);
        assert_eq!(unpack(&blob, compression), b"");
    }
}

#[test]
fn gzip_and_python_read_the_blob() {
    let layer = bytes(3_500_000, 4);
    let (_, blob) = pack(&packer(Compression::Gzip, 2), &*layer).unwrap();
    let python = "import gzip,sys; sys.stdout.buffer.write(gzip.open(sys.stdin.buffer).read())";
    assert!(filter(Command::new("gzip").arg("-dc"), &blob) == layer);
    assert!(filter(Command::new("python3").args(["-c", python]), &blob) == layer);
    filter(Command::new("gzip").arg("-t"), &blob);
}

/// The output of a program that reads `input`. It must succeed and report nothing on stderr.
fn filter(command: &mut Command, input: &[u8]) -> Vec<u8> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let output = std::thread::scope(|scope| {
        scope.spawn(move || stdin.write_all(input).unwrap());
        child.wait_with_output().unwrap()
    });
    assert!(output.status.success(), "{command:?}: {output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{command:?}");
    output.stdout
}

#[test]
fn bytes_that_do_not_shrink_are_packed_too() {
    let layer = random(9_000_000, 1);
    for compression in COMPRESSIONS {
        let (_, blob) = pack(&packer(compression, 2), &*layer).unwrap();
        assert!(blob.len() >= layer.len(), "{compression}");
        assert!(unpack(&blob, compression) == layer);
    }
}

#[test]
fn every_level_makes_a_valid_blob_and_there_are_no_others() {
    let layer = bytes(300_000, 3);
    let at =
        |compression, level| Packer::new(Options { level: Some(level), ..options(compression, 2) });
    for level in 1..=12 {
        let (_, blob) = pack(&at(Compression::Gzip, level).unwrap(), &*layer).unwrap();
        assert!(gunzip(&blob).unwrap() == layer);
    }
    for level in 1..=22 {
        let (_, blob) = pack(&at(Compression::Zstd, level).unwrap(), &*layer).unwrap();
        assert!(unpack(&blob, Compression::Zstd) == layer);
    }
    for (compression, level, text) in [
        (Compression::Gzip, 0, "gzip has the levels 1 to 12, not 0"),
        (Compression::Gzip, 13, "gzip has the levels 1 to 12, not 13"),
        (Compression::Zstd, 0, "zstd has the levels 1 to 22, not 0"),
        (Compression::Zstd, 23, "zstd has the levels 1 to 22, not 23"),
        (Compression::None, 1, "none has no levels, not 1"),
    ] {
        let error = at(compression, level).err().unwrap();
        assert!(matches!(error, Error::Level { .. }));
        assert_eq!(error.to_string(), text);
    }
}
