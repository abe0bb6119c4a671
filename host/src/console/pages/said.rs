//! The last that COM1 has said, for those who come later or read slowly.

use std::collections::VecDeque;

/// Bytes that are kept.
const KEPT: usize = 64 << 10;

/// What COM1 has said. A place in it is the count of bytes before it.
#[derive(Debug, Default)]
pub(super) struct Said {
    kept: VecDeque<u8>,
    total: u64,
}

impl Said {
    /// Adds what comes.
    pub fn put(&mut self, bytes: &[u8]) {
        self.total += bytes.len() as u64;
        self.kept.extend(&bytes[bytes.len().saturating_sub(KEPT)..]);
        let old = self.kept.len().saturating_sub(KEPT);
        self.kept.drain(..old);
    }

    /// The place of the first byte that is kept.
    pub fn start(&self) -> u64 {
        self.total - self.kept.len() as u64
    }

    /// The place behind the last byte.
    pub fn end(&self) -> u64 {
        self.total
    }

    /// Moves a place to the first byte that is kept, if it is before that; gives how many bytes that leaves out.
    pub fn skip_lost(&self, place: &mut u64) -> u64 {
        let lost = self.start().saturating_sub(*place);
        *place += lost;
        lost
    }

    /// The bytes from a place on, at most so many, and moves it behind them.
    pub fn take(&self, place: &mut u64, most: usize) -> Vec<u8> {
        let from = usize::try_from(place.saturating_sub(self.start())).unwrap_or(usize::MAX);
        let bytes: Vec<u8> = self.kept.iter().skip(from).take(most).copied().collect();
        *place = (*place).max(self.start()) + bytes.len() as u64;
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_reads_slowly_is_told_what_is_lost() {
        let mut said = Said::default();
        let mut place = 0;
        said.put(b"first");
        assert_eq!(said.take(&mut place, 2), b"fi");
        assert_eq!((said.skip_lost(&mut place), said.take(&mut place, 100)), (0, b"rst".to_vec()));
        said.put(&[1; KEPT]);
        said.put(b"last");
        assert_eq!(said.skip_lost(&mut place), 4);
        assert_eq!(said.take(&mut place, usize::MAX).len(), KEPT);
        assert_eq!((place, said.end()), (said.end(), (5 + KEPT + 4) as u64));
        assert!(said.take(&mut place, 10).is_empty());
        // More than is kept comes at once.
        said.put(&[2; 2 * KEPT]);
        assert_eq!(said.end() - said.start(), KEPT as u64);
    }
}
