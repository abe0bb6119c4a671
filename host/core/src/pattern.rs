//! Looking for a text in output that comes in pieces.

/// A byte string looked for in a stream.
#[derive(Clone, Debug)]
pub struct Pattern {
    text: Vec<u8>,
    /// For every length of a partial match, the longest shorter one that it ends with
    /// (Knuth, Morris and Pratt).
    shorter: Vec<usize>,
    /// How much of the text the stream ends with.
    matched: usize,
}

impl Pattern {
    /// Looks for `text`. The empty text is found in the first piece.
    pub fn new(text: impl Into<Vec<u8>>) -> Self {
        let text = text.into();
        let mut shorter = vec![0; text.len()];
        let mut len = 0;
        for i in 1..text.len() {
            while len > 0 && text[i] != text[len] {
                len = shorter[len - 1];
            }
            len += usize::from(text[i] == text[len]);
            shorter[i] = len;
        }
        Self { text, shorter, matched: 0 }
    }

    /// Takes the next piece of the stream; says whether the text has been found in it or before.
    pub fn found_in(&mut self, piece: &[u8]) -> bool {
        for &byte in piece {
            if self.matched == self.text.len() {
                break;
            }
            while self.matched > 0 && byte != self.text[self.matched] {
                self.matched = self.shorter[self.matched - 1];
            }
            self.matched += usize::from(byte == self.text[self.matched]);
        }
        self.matched == self.text.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn found_across_pieces() {
        let mut p = Pattern::new("login:");
        assert!(!p.found_in(b"debian log"));
        assert!(!p.found_in(b"in"));
        assert!(p.found_in(b": "));
        assert!(p.found_in(b"anything"), "once found, it stays found");
    }

    #[test]
    fn a_false_start_may_hide_the_true_one() {
        let mut p = Pattern::new("aab");
        assert!(p.found_in(b"aaab"));
        let mut p = Pattern::new("ababc");
        assert!(!p.found_in(b"abab"));
        assert!(p.found_in(b"abc"));
    }

    #[test]
    fn not_found() {
        let mut p = Pattern::new("abc");
        assert!(!p.found_in(b"ab ab bc acb"));
    }
}
