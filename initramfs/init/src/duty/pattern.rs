//! What a pass writes, and what must be read back after it: the same bytes at the same place, however
//! the place is come to.

/// Bytes that are written and compared at a time. A place's content depends on which of these it is in.
pub const CHUNK: usize = 4 << 20;

/// What a disk is filled with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pattern {
    /// Zeros.
    Zeros,
    /// Pseudo-random, by a seed: xoshiro256++ of Blackman and Vigna (<https://prng.di.unimi.it/>), seeded
    /// for each chunk through splitmix64. Not for secrets: no disk can compress or guess it away.
    Random(u64),
}

impl Pattern {
    /// What the chunk with this number begins with.
    pub fn fill(self, chunk: u64, bytes: &mut [u8]) {
        match self {
            Pattern::Zeros => bytes.fill(0),
            Pattern::Random(seed) => {
                let mut mix = seed ^ chunk.wrapping_mul(0xd134_2543_de82_ef95);
                let mut state = [0; 4];
                for word in &mut state {
                    *word = splitmix(&mut mix);
                }
                for piece in bytes.chunks_mut(8) {
                    let next = xoshiro(&mut state).to_le_bytes();
                    piece.copy_from_slice(next.get(..piece.len()).unwrap_or(&next));
                }
            }
        }
    }
}

fn splitmix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn xoshiro(s: &mut [u64; 4]) -> u64 {
    let [a, b, c, d] = *s;
    let result = a.wrapping_add(d).rotate_left(23).wrapping_add(a);
    let (c, d) = (c ^ a, d ^ b);
    *s = [a ^ d, b ^ c, c ^ (b << 17), d.rotate_left(45)];
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_has_one_content() {
        let fill = |pattern: Pattern, chunk, len| {
            let mut bytes = vec![0xaa; len];
            pattern.fill(chunk, &mut bytes);
            bytes
        };
        let random = Pattern::Random(7);
        let whole = fill(random, 3, 4096);
        assert_eq!(fill(random, 3, 4096), whole);
        assert_eq!(fill(random, 3, 1001)[..], whole[..1001], "a cut chunk is its beginning");
        assert_ne!(fill(random, 4, 4096), whole);
        assert_ne!(fill(Pattern::Random(8), 3, 4096), whole);
        assert_eq!(fill(Pattern::Zeros, 3, 4096), vec![0; 4096]);
        // No byte is much more frequent than the others.
        let mut counts = [0u32; 256];
        fill(random, 0, 1 << 20).iter().for_each(|byte| counts[usize::from(*byte)] += 1);
        assert!(counts.iter().all(|count| (3500..4700).contains(count)), "{counts:?}");
    }
}
