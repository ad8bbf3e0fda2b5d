//! Random numbers: ids, challenges and the vector of every hidden packet. From the kernel, or from a seed,
//! so that a test is the same each time.

/// Where they come from. A seeded source is for tests alone.
#[derive(Debug, Clone)]
pub struct Random {
    pool: [u8; 256],
    used: usize,
    seed: Option<u64>,
}

impl Random {
    /// From the kernel.
    pub fn system() -> Random {
        Random { pool: [0; 256], used: 256, seed: None }
    }

    /// The same ones for the same seed.
    pub fn seeded(seed: u64) -> Random {
        Random { pool: [0; 256], used: 256, seed: Some(seed | 1) }
    }

    fn fill(&mut self) {
        match &mut self.seed {
            // The kernel's source cannot fail once it is seeded, which it is before any network is up.
            None => {
                if getrandom::fill(&mut self.pool).is_err() {
                    std::process::abort();
                }
            }
            Some(state) => {
                for chunk in self.pool.chunks_mut(8) {
                    *state ^= *state << 13;
                    *state ^= *state >> 7;
                    *state ^= *state << 17;
                    let length = chunk.len();
                    chunk.copy_from_slice(&state.to_le_bytes()[..length]);
                }
            }
        }
        self.used = 0;
    }

    /// So many bytes (up to 256), never handed out before.
    pub fn bytes<const N: usize>(&mut self) -> [u8; N] {
        const { assert!(N <= 256) };
        if self.used + N > self.pool.len() {
            self.fill();
        }
        let mut out = [0; N];
        out.copy_from_slice(&self.pool[self.used..self.used + N]);
        self.pool[self.used..self.used + N].fill(0);
        self.used += N;
        out
    }

    /// An id: anything but 0 and all ones, which some firmware keeps for itself.
    pub fn id(&mut self) -> u32 {
        loop {
            let id = u32::from_le_bytes(self.bytes());
            if id != 0 && id != u32::MAX {
                return id;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_for_a_seed_and_never_twice() {
        let (mut one, mut other) = (Random::seeded(7), Random::seeded(7));
        let first: [u8; 16] = one.bytes();
        assert_eq!(first, other.bytes::<16>());
        assert_ne!(first, one.bytes::<16>());
        let mut system = Random::system();
        assert_ne!(system.bytes::<16>(), system.bytes::<16>());
        for _ in 0..1000 {
            assert_ne!(one.id(), 0);
        }
    }
}
