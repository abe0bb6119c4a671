//! A model of how a processor predicts indirect jumps: tables that are looked up by the jump's place and by
//! more and more of the way there, of which the longest that knows the way counts (Seznec and Michaud, "A case
//! for (partially) tagged geometric history length branch prediction", 2006; ITTAGE).
//!
//! It is a small one, and no processor's own. It tells programs with more such jumps than it can hold from
//! others, whatever processor it runs on.

/// Bits of a tag.
const TAG: u32 = 12;
/// The highest confidence in a target.
const SURE: u8 = 3;
/// How many jumps before this one each table with tags looks at.
const HISTORIES: [u32; 4] = [2, 5, 13, 32];

#[derive(Clone, Copy, Default)]
struct Entry {
    tag: u16,
    confidence: u8,
    target: u64,
}

/// Indirect jumps, predicted and counted.
pub struct Predictor {
    /// Targets by the jump's place alone, and `log2` of their number.
    base: (Vec<u64>, u32),
    /// Targets by the way, the shortest first, and `log2` of the number in one.
    tagged: ([Vec<Entry>; HISTORIES.len()], u32),
    /// The way as each table looks at it.
    ways: [u64; HISTORIES.len()],
    /// Jumps whose target was not the predicted one.
    pub missed: u64,
}

/// Spreads a value's bits.
fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 29)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    value ^ (value >> 32)
}

impl Predictor {
    /// One that holds `2^base + 4 * 2^tagged` targets.
    pub fn new(base: u32, tagged: u32) -> Self {
        Self {
            base: (vec![0; 1 << base], base),
            tagged: (HISTORIES.map(|_| vec![Entry::default(); 1 << tagged]), tagged),
            ways: [0; HISTORIES.len()],
            missed: 0,
        }
    }

    /// How many targets it holds.
    pub fn size(&self) -> usize {
        self.base.0.len() + self.tagged.0.iter().map(Vec::len).sum::<usize>()
    }

    /// The jump at `place` goes to `target`. Says whether that was predicted.
    pub fn jump(&mut self, place: u64, target: u64) -> bool {
        let (tables, bits) = (&mut self.tagged.0, self.tagged.1);
        let keys = self.ways.map(|way| mix(way ^ place.wrapping_mul(0x2545_f491_4f6c_dd1d)));
        let at = |key: u64| (key & ((1 << bits) - 1)) as usize;
        let tag = |key: u64| (key >> (64 - TAG)) as u16;
        let knows = (0..keys.len()).rev().find(|&t| tables[t][at(keys[t])].tag == tag(keys[t]));
        let base = &mut self.base.0[(mix(place) & ((1 << self.base.1) - 1)) as usize];
        let predicted = knows.map_or(*base, |t| tables[t][at(keys[t])].target);
        let hit = predicted == target;
        self.missed += u64::from(!hit);
        match knows {
            Some(t) => learn(&mut tables[t][at(keys[t])], target),
            None => *base = target,
        }
        // A way that is longer tells more: it gets an entry that is least sure of itself.
        if !hit {
            for t in knows.map_or(0, |t| t + 1)..keys.len() {
                let entry = &mut tables[t][at(keys[t])];
                if entry.confidence == 0 {
                    *entry = Entry { tag: tag(keys[t]), confidence: 1, target };
                    break;
                }
                entry.confidence -= 1;
            }
        }
        for (way, history) in self.ways.iter_mut().zip(HISTORIES) {
            // A jump has left the way when its bits have been shifted out.
            *way = (*way << (64 / history)) ^ (mix(target) >> (64 - 64 / history));
        }
        hit
    }
}

fn learn(entry: &mut Entry, target: u64) {
    if entry.target == target {
        entry.confidence = (entry.confidence + 1).min(SURE);
    } else if entry.confidence > 0 {
        entry.confidence -= 1;
    } else {
        entry.target = target;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Misses for each jump of a loop of `length` jumps from one place, when it has been run for long.
    fn in_a_loop(length: u64) -> f64 {
        let mut predictor = Predictor::new(9, 8);
        let mut jump = |round: u64| {
            (0..length).for_each(|n| {
                predictor.jump(mix(n.wrapping_sub(1) % length) % 50, mix(n) % 50);
            });
            if round == 19 {
                predictor.missed = 0;
            }
        };
        (0..30).for_each(&mut jump);
        predictor.missed as f64 / (10 * length) as f64
    }

    #[test]
    fn a_loop_that_it_holds_is_predicted_and_a_longer_one_is_not() {
        assert!(in_a_loop(100) < 0.01, "{}", in_a_loop(100));
        assert!(in_a_loop(400) < 0.1, "{}", in_a_loop(400));
        assert!(in_a_loop(20_000) > 0.5, "{}", in_a_loop(20_000));
    }
}
