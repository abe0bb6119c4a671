//! `.dockerignore`: files of a folder that a build does not see. The patterns are those of COPY and ADD, too.
//!
//! Source: Dockerfile reference, ".dockerignore file"; the patterns of Go's `filepath.Match`, and `**`.

/// The rules of a folder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ignore {
    rules: Vec<Rule>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Rule {
    /// What fits is seen after all.
    is_exception: bool,
    parts: Vec<String>,
}

impl Ignore {
    /// Reads the rules.
    pub fn new(text: &str) -> Self {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut rules = Vec::new();
        for line in text.lines() {
            if line.starts_with('#') {
                continue;
            }
            let line = line.trim();
            let (pattern, is_exception) =
                line.strip_prefix('!').map_or((line, false), |rest| (rest.trim(), true));
            let mut parts = Vec::new();
            for part in pattern.split('/') {
                match part {
                    "" | "." => {}
                    // As Go cleans paths: nothing is above the folder.
                    ".." => drop(parts.pop()),
                    _ => parts.push(part.to_owned()),
                }
            }
            // A pattern for all of the folder is written `*` or `**`: `.` and `/` fit nothing.
            if !parts.is_empty() {
                rules.push(Rule { is_exception, parts });
            }
        }
        Self { rules }
    }

    /// A file or directory is not seen. The last rule counts that fits it, or a directory that it lies in.
    pub fn hides(&self, path: &str) -> bool {
        let parts: Vec<&str> = path.split('/').collect();
        let mut hidden = false;
        for rule in &self.rules {
            // Only what would change something is compared.
            if rule.is_exception == hidden && (1..=parts.len()).any(|len| fits(&rule.parts, &parts[..len])) {
                hidden = !hidden;
            }
        }
        hidden
    }

    /// Something below a hidden directory may be seen.
    pub fn may_show_below(&self, path: &str) -> bool {
        let parts: Vec<&str> = path.split('/').collect();
        self.rules.iter().filter(|rule| rule.is_exception).any(|rule| {
            let mut pairs = rule.parts.iter().zip(&parts);
            let shared = rule.parts.iter().position(|part| part == "**").unwrap_or(rule.parts.len());
            let shared = shared.min(parts.len());
            pairs.by_ref().take(shared).all(|(pattern, part)| matches(pattern, part))
        })
    }
}

/// A path's parts fit a pattern's, of which `**` fits any number, and at the end one at least.
fn fits(pattern: &[String], path: &[&str]) -> bool {
    // Where the last `**` was, and how much of the path it has taken: only that one has ever to take more.
    let (mut at, mut place) = (0, 0);
    let mut last = None;
    loop {
        if at < pattern.len() && pattern[at] == "**" {
            at += 1;
            if at == pattern.len() {
                return place < path.len();
            }
            last = Some((at, place));
        } else if place < path.len() && at < pattern.len() && matches(&pattern[at], path[place]) {
            (at, place) = (at + 1, place + 1);
        } else if place == path.len() && at == pattern.len() {
            return true;
        } else {
            match last {
                Some((behind, taken)) if taken < path.len() => {
                    (at, place) = (behind, taken + 1);
                    last = Some((behind, taken + 1));
                }
                _ => return false,
            }
        }
    }
}

/// A text has a character that means something in a pattern.
pub fn is_pattern(text: &str) -> bool {
    text.contains(['*', '?', '[', '\\'])
}

/// A text fits a pattern of `*`, `?`, `[…]` and `\`.
pub fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let (mut at, mut place) = (0, 0);
    let mut last = None;
    loop {
        if at < pattern.len() && pattern[at] == '*' {
            at += 1;
            last = Some((at, place));
            continue;
        }
        let next = text.get(place).and_then(|c| one(&pattern[at..], *c));
        if let Some(len) = next {
            (at, place) = (at + len, place + 1);
        } else if place == text.len() && at == pattern.len() {
            return true;
        } else {
            match last {
                Some((behind, taken)) if taken < text.len() => {
                    (at, place) = (behind, taken + 1);
                    last = Some((behind, taken + 1));
                }
                _ => return false,
            }
        }
    }
}

/// Characters of the pattern's beginning that fit a character.
fn one(pattern: &[char], c: char) -> Option<usize> {
    match *pattern.first()? {
        '?' => Some(1),
        '\\' if pattern.len() > 1 => (pattern[1] == c).then_some(2),
        '[' => {
            let negated = pattern.get(1) == Some(&'^');
            let mut at = 1 + usize::from(negated);
            let first = at;
            let mut fits = false;
            loop {
                if pattern.get(at) == Some(&']') && at > first {
                    break;
                }
                let low = literal(pattern, &mut at)?;
                let mut high = low;
                if pattern.get(at) == Some(&'-') && pattern.get(at + 1) != Some(&']') {
                    at += 1;
                    high = literal(pattern, &mut at)?;
                }
                fits |= (low..=high).contains(&c);
            }
            (fits != negated).then_some(at + 1)
        }
        own => (own == c).then_some(1),
    }
}

/// A character of a class, which may be escaped.
fn literal(pattern: &[char], at: &mut usize) -> Option<char> {
    *at += usize::from(pattern.get(*at) == Some(&'\\'));
    let c = *pattern.get(*at)?;
    *at += 1;
    Some(c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_fit_what_go_says() {
        for (pattern, text) in [
            ("", ""),
            ("*", ""),
            ("*.rs", "a.rs"),
            ("a*c*e", "abcde"),
            ("a?c", "abc"),
            ("[a-c]x", "bx"),
            ("[^a-c]x", "dx"),
            ("[]a]", "]"),
            ("\\*", "*"),
            ("[\\]]", "]"),
            ("ä?", "äö"),
            ("a-b", "a-b"),
        ] {
            assert!(matches(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [
            ("", "a"),
            ("*.rs", "a.rsx"),
            ("a?c", "ac"),
            ("[a-c]x", "dx"),
            ("[^a-c]x", "ax"),
            ("\\*", "a"),
            ("[a", "a"),
            ("a*b", "acd"),
        ] {
            assert!(!matches(pattern, text), "{pattern} {text}");
        }
        // In time that does not grow with what could be tried.
        assert!(!matches(&("a*".repeat(40) + "b"), &"a".repeat(5_000)));
    }

    #[test]
    fn the_last_rule_counts() {
        let rules = Ignore::new("# note\n*.md\n!README*.md\nREADME-secret.md\n");
        let seen =
            ["README.md", "README-secret.md", "a.md", "d/a.md", "a.txt"].map(|path| !rules.hides(path));
        assert_eq!(seen, [true, false, false, true, true]);
        let rules = Ignore::new("*.md\nREADME-secret.md\n!README*.md\n");
        assert!(!rules.hides("README-secret.md"));
    }

    #[test]
    fn what_lies_in_a_hidden_directory_is_hidden() {
        let rules = Ignore::new("/target/\n./doc/../tmp\n  node_modules  \n!target/keep/*.txt\n");
        for path in ["target", "target/a", "target/a/b", "tmp/x", "node_modules/m/i.js", "target/keep/a.bin"]
        {
            assert!(rules.hides(path), "{path}");
        }
        for path in ["doc", "src/target", "target/keep/a.txt", "a/node_modules"] {
            assert!(!rules.hides(path), "{path}");
        }
        assert!(rules.may_show_below("target") && rules.may_show_below("target/keep"));
        assert!(!rules.may_show_below("tmp") && !rules.may_show_below("target/other"));
    }

    #[test]
    fn two_asterisks_fit_any_number_of_directories() {
        let rules = Ignore::new("**/*.o\nbuild/**\na/**/z\n!**/keep.o\n");
        for path in ["x.o", "a/x.o", "a/b/c/x.o", "build/a/b", "a/z", "a/b/c/z", "a/b/z/below"] {
            assert!(rules.hides(path), "{path}");
        }
        for path in ["x.c", "build", "b/z", "d/e/keep.o", "x.o.c"] {
            assert!(!rules.hides(path), "{path}");
        }
        assert!(rules.may_show_below("anything/at/all"));
        assert!(Ignore::new("**").hides("a/b") && Ignore::new("*").hides("a/b"));
    }

    #[test]
    fn rules_that_fit_nothing_are_none() {
        for text in ["", "\n\n", "# a", "/", ".", "..", "!", "\u{feff}"] {
            assert_eq!(Ignore::new(text), Ignore::default(), "{text:?}");
        }
    }
}
