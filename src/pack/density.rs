//! Which stretches of a block do not compress: media, model weights and archives inside a layer.
//! Searching them for matches costs as much time as text does and gains nothing.
//!
//! The decision is a pure function of the block's bytes. Bytes are dense if each of the 256 values is
//! about equally frequent (then Huffman codes gain nothing) and sequences of four bytes hardly repeat
//! (then matches gain nothing). Of long stretches only samples are measured: looking at each byte
//! would take longer than hashing it. Samples of a short stretch would say too little, so it is
//! looked at as a whole.

use std::ops::Range;

/// The size of the units of a block that are judged one by one.
const UNIT: usize = 1 << 10;

/// A unit is sampled in pieces of [`PIECE`] bytes, one at the start of each [`SPACING`] bytes. A
/// regular choice of single bytes would see only one byte of each number in an array.
const PIECE: usize = 16;
const SPACING: usize = 128;

/// The bytes of a unit that are looked at.
const SAMPLE: usize = UNIT / SPACING * PIECE;

/// The shortest dense stretch that is worth gzip members of its own: the compressor forgets the
/// bytes before it, and two more members cost some 40 bytes.
const SHORTEST: usize = 7 * UNIT;

/// A stretch of fewer bytes is looked at as a whole.
const LONG: usize = 64 << 10;

/// Sequences are compared that follow one of these bytes, so that of a repeated sequence each
/// occurrence is compared. In dense bytes, one byte in 256 is the first of them.
const MARKS: [u8; 8] = [0x6d, 0x0b, 0x2c, 0x51, 0x97, 0xb4, 0xd8, 0xe3];

/// The size of the table in which repeated sequences are looked for, a power of two.
const TABLE_BITS: u32 = 12;

/// A part of a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Stretch {
    Compressible(Range<usize>),
    Dense(Range<usize>),
}

/// Divides `block` into stretches, one after the other; none for no bytes.
pub(super) fn stretches(block: &[u8]) -> Vec<Stretch> {
    let mut stretches = Vec::new();
    let mut done = 0;
    let mut start = 0;
    while start < block.len() {
        let mut sampled = Sampled::default();
        let flat = block[start..].chunks_exact(UNIT).take_while(|unit| sampled.add_flat(unit));
        let end = start + flat.count() * UNIT;
        if end - start >= SHORTEST && is_dense(&block[start..end], &sampled) {
            if done < start {
                stretches.push(Stretch::Compressible(done..start));
            }
            stretches.push(Stretch::Dense(start..end));
            done = end;
        }
        // The unit that ended the stretch is not dense.
        start = end + UNIT;
    }
    if done < block.len() {
        stretches.push(Stretch::Compressible(done..block.len()));
    }
    stretches
}

fn is_dense(stretch: &[u8], sampled: &Sampled) -> bool {
    match stretch.len() < LONG {
        true => has_flat_histogram(stretch) && !repeats(stretch, &MARKS),
        false => sampled.is_flat() && !repeats(stretch, &MARKS[..1]),
    }
}

/// The pairs of equal bytes in the samples of some units, within each unit.
#[derive(Default)]
struct Sampled {
    units: u32,
    pairs: u32,
}

impl Sampled {
    /// The pairs that are expected in one unit of random bytes, and the standard deviation.
    const EXPECTED: f64 = expected_pairs(SAMPLE);
    const DEVIATION: f64 = 5.6;

    /// The most pairs in one unit. Of random units, one in millions has more.
    const MOST_IN_UNIT: u32 = (Self::EXPECTED + 6.5 * Self::DEVIATION) as u32;

    /// Adds a unit, unless its bytes are clearly not equally frequent.
    fn add_flat(&mut self, unit: &[u8]) -> bool {
        let pairs = pairs_in_sample(unit);
        let is_flat = pairs <= Self::MOST_IN_UNIT;
        if is_flat {
            self.units += 1;
            self.pairs += pairs;
        }
        is_flat
    }

    /// Whether all bytes are about equally frequent.
    fn is_flat(&self) -> bool {
        let units = f64::from(self.units);
        let most = MOST_PAIRS_LONG * Self::EXPECTED * units + 4.0 * Self::DEVIATION * units.sqrt();
        f64::from(self.pairs) <= most
    }
}

/// How many times as many pairs of equal bytes there may be as in random bytes. With 6 % more,
/// Huffman codes gain 0.5 %, as with most compressed files. A short stretch must be denser, since its
/// members cost as much as those of a long one.
const MOST_PAIRS_LONG: f64 = 1.06;
const MOST_PAIRS_SHORT: f64 = 1.02;

/// The pairs of equal bytes that are expected in so many random bytes.
const fn expected_pairs(bytes: usize) -> f64 {
    (bytes * (bytes - 1) / 2) as f64 / 256.0
}

fn pairs_in_sample(unit: &[u8]) -> u32 {
    let mut counts = [0u8; 256];
    let mut pairs = 0;
    for part in unit.chunks_exact(SPACING) {
        for byte in &part[..PIECE] {
            let count = &mut counts[usize::from(*byte)];
            pairs += u32::from(*count);
            // At most SAMPLE, so it fits.
            *count += 1;
        }
    }
    pairs
}

/// Whether all bytes of a stretch, of at least [`SHORTEST`], are about equally frequent.
fn has_flat_histogram(stretch: &[u8]) -> bool {
    // Two tables, since adding to the same counter twice in a row is slow.
    let mut counts = [[0u32; 256]; 2];
    for pair in stretch.chunks_exact(2) {
        counts[0][usize::from(pair[0])] += 1;
        counts[1][usize::from(pair[1])] += 1;
    }
    let of_value = |value: usize| u64::from(counts[0][value] + counts[1][value]);
    let pairs: u64 = (0..256).map(of_value).map(|n| n * n.saturating_sub(1) / 2).sum();
    pairs as f64 <= MOST_PAIRS_SHORT * expected_pairs(stretch.len())
}

/// Whether more than one in 128 sequences of four bytes stood before in the same stretch.
fn repeats(stretch: &[u8], marks: &[u8]) -> bool {
    let mut table = [0u32; 1 << TABLE_BITS];
    let (mut sampled, mut repeated) = (0u32, 0u32);
    for mark in marks {
        for position in memchr::memchr_iter(*mark, stretch) {
            let Some(sequence) = stretch[position + 1..].first_chunk::<4>() else { break };
            let sequence = u32::from_le_bytes(*sequence);
            let hash = (sequence ^ u32::from(*mark)).wrapping_mul(0x9e37_79b1);
            let entry = &mut table[(hash >> (32 - TABLE_BITS)) as usize];
            sampled += 1;
            repeated += u32::from(*entry == sequence);
            *entry = sequence;
        }
    }
    repeated * 128 > sampled
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Random bytes, the same for the same seed.
    fn random(len: usize, mut seed: u64) -> Vec<u8> {
        let next = || {
            seed = seed.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(99);
            (seed >> 56) as u8
        };
        std::iter::repeat_with(next).take(len).collect()
    }

    #[test]
    fn random_bytes_are_dense_and_text_is_not() {
        for seed in 1..20 {
            let block = random(1 << 20, seed);
            assert_eq!(stretches(&block), [Stretch::Dense(0..1 << 20)], "seed {seed}");
        }
        let text = b"the quick brown fox jumps over the lazy dog; ".repeat(1000);
        assert_eq!(stretches(&text), [Stretch::Compressible(0..text.len())]);
        assert_eq!(stretches(b""), []);
    }

    #[test]
    fn random_bytes_that_occur_twice_are_not_dense() {
        let block = random(20_480, 1).repeat(4);
        assert_eq!(stretches(&block), [Stretch::Compressible(0..block.len())]);
    }

    #[test]
    fn bytes_of_seven_bits_are_not_dense() {
        let block: Vec<u8> = random(100_000, 1).iter().map(|byte| byte & 0x7f).collect();
        assert_eq!(stretches(&block), [Stretch::Compressible(0..block.len())]);
    }

    #[test]
    fn bytes_of_few_values_are_not_dense_and_a_compressed_file_is() {
        let digits: Vec<u8> = random(200_000, 1).iter().map(|byte| b'0' + byte % 64).collect();
        assert_eq!(stretches(&digits), [Stretch::Compressible(0..digits.len())]);
        let mut compressor = libdeflater::Compressor::new(libdeflater::CompressionLvl::default());
        let mut file = vec![0; compressor.gzip_compress_bound(digits.len())];
        let length = compressor.gzip_compress(&digits, &mut file).unwrap();
        let dense = stretches(&file[..length]).into_iter().find_map(|stretch| match stretch {
            Stretch::Dense(range) => Some(range.len()),
            Stretch::Compressible(_) => None,
        });
        assert!(dense.is_some_and(|dense| dense > length - 2 * UNIT), "{dense:?} of {length}");
    }

    #[test]
    fn a_dense_stretch_in_the_middle_is_found_wherever_it_begins() {
        for start in [0, 512, 1024, 1536, 4096] {
            let mut block = vec![b'x'; 65_536];
            block[start..start + 8192].copy_from_slice(&random(8192, 3));
            let dense: usize = stretches(&block)
                .iter()
                .map(|stretch| match stretch {
                    Stretch::Dense(range) => range.len(),
                    Stretch::Compressible(_) => 0,
                })
                .sum();
            assert!(dense >= SHORTEST, "at {start}: {dense}");
        }
    }
}
