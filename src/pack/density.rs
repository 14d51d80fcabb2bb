//! Which stretches of a block do not compress: media, model weights and archives inside a layer.
//! Searching them for matches costs as much time as text does and gains nothing.
//!
//! The decision is a pure function of the block's bytes. Bytes are dense if each of the 256 values is
//! about equally frequent (then Huffman codes gain nothing) and sequences of four bytes hardly repeat
//! (then matches gain nothing).

use std::ops::Range;

/// What is looked at as one.
const UNIT: usize = 2 << 10;

/// The first bytes of a unit, which show most units of ordinary files to compress.
const SAMPLE: usize = 256;

/// The least dense stretch that is worth gzip members of its own: the compressor forgets what stood
/// before it, and two members more cost some 40 bytes.
const SHORTEST: usize = 3 * UNIT;

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
        let dense = block[start..].chunks(UNIT).take_while(|unit| has_flat_histogram(unit));
        let end = start + dense.map(<[u8]>::len).sum::<usize>();
        if end - start >= SHORTEST && !repeats(&block[start..end]) {
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

/// Whether all bytes are about equally frequent in a unit.
fn has_flat_histogram(unit: &[u8]) -> bool {
    // A quick look at the start first, which is enough for most units.
    unit.len() == UNIT
        && collisions(&unit[..SAMPLE]) <= most_collisions(SAMPLE)
        && collisions(unit) <= most_collisions(UNIT)
}

/// How many ordered pairs of bytes of `unit`, at different positions, are equal.
fn collisions(unit: &[u8]) -> u32 {
    // Two tables, since adding to the same counter twice in a row is slow.
    let mut counts = [[0u16; 256]; 2];
    for pair in unit.chunks_exact(2) {
        counts[0][usize::from(pair[0])] += 1;
        counts[1][usize::from(pair[1])] += 1;
    }
    let sum = |value: usize| u32::from(counts[0][value]) + u32::from(counts[1][value]);
    (0..256).map(sum).map(|count| count * count.saturating_sub(1)).sum()
}

/// The most collisions that six standard deviations allow in `len` random bytes: the expected number
/// is `len * (len - 1) / 256`, the deviation about `len / 11.3`.
const fn most_collisions(len: usize) -> u32 {
    (len * (len - 1) / 256 + 6 * len * 10 / 113) as u32
}

/// Whether more than one in 64 sequences of four bytes stood before in the same stretch.
fn repeats(stretch: &[u8]) -> bool {
    let mut table = vec![0u32; 1 << TABLE_BITS];
    let (mut sampled, mut repeated) = (0u32, 0u32);
    for position in 0..stretch.len().saturating_sub(3) {
        let Some(sequence) = stretch[position..].first_chunk::<4>() else { break };
        let sequence = u32::from_le_bytes(*sequence);
        let hash = sequence.wrapping_mul(0x9e37_79b1);
        // The hash chooses which sequences are looked at, so that a repeated one is looked at each
        // time that it occurs.
        if hash >> 28 != 0 {
            continue;
        }
        let entry = &mut table[(hash >> (28 - TABLE_BITS)) as usize & ((1 << TABLE_BITS) - 1)];
        sampled += 1;
        repeated += u32::from(*entry == sequence);
        *entry = sequence;
    }
    repeated * 64 > sampled
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
