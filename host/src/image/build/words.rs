//! Words of a Dockerfile: quotes are taken off, and variables stand for their values.
//!
//! Source: Dockerfile reference, "Environment replacement"; of POSIX's shell what that says.

use std::iter::Peekable;
use std::str::Chars;

use super::ignore::matches;

/// Substitutions that may lie in one another.
const MAX_DEPTH: usize = 64;
/// Bytes that a word may come to.
const MAX_LEN: usize = 1 << 20;
/// Bytes of a value and a pattern that are compared: each end of the value is.
const MAX_MATCHED: usize = 4 << 10;

/// What a variable's name stands for.
pub trait Lookup {
    /// The value, if there is one.
    fn get(&mut self, name: &str) -> Option<String>;
}

impl<F: FnMut(&str) -> Option<String>> Lookup for F {
    fn get(&mut self, name: &str) -> Option<String> {
        self(name)
    }
}

/// A word without its quotes, and with the values of variables.
pub fn expand(text: &str, escape: char, lookup: &mut dyn Lookup) -> Result<String, String> {
    Reader { chars: text.chars().peekable(), escape, quotes: true, lookup, depth: 0 }.all()
}

/// A here-document with the values of variables. Quotes mean themselves in it.
pub fn expand_document(text: &str, lookup: &mut dyn Lookup) -> Result<String, String> {
    Reader { chars: text.chars().peekable(), escape: '\\', quotes: false, lookup, depth: 0 }.all()
}

struct Reader<'a> {
    chars: Peekable<Chars<'a>>,
    escape: char,
    /// Quotes are taken off.
    quotes: bool,
    lookup: &'a mut dyn Lookup,
    depth: usize,
}

impl Reader<'_> {
    fn all(&mut self) -> Result<String, String> {
        self.until(None)
    }

    /// Reads up to a brace that ends a substitution, which is taken, or to the end.
    fn until(&mut self, end: Option<char>) -> Result<String, String> {
        let mut text = String::new();
        loop {
            let Some(c) = self.chars.next() else {
                return match end {
                    None => Ok(text),
                    Some(_) => Err("a `${` has no `}`; add it".into()),
                };
            };
            match c {
                _ if Some(c) == end => return Ok(text),
                '\'' if self.quotes => loop {
                    match self.chars.next() {
                        None => return Err("a quote ' is not closed; add the other one".into()),
                        Some('\'') => break,
                        Some(c) => text.push(c),
                    }
                },
                '"' if self.quotes => self.quoted(&mut text)?,
                '$' => self.variable(&mut text)?,
                _ if c == self.escape => self.escaped(&mut text, |_| true),
                _ => text.push(c),
            }
            if text.len() > MAX_LEN {
                return Err(format!("with its variables it has more than {MAX_LEN} bytes"));
            }
        }
    }

    /// What is behind an escape character means itself, if it would mean something else. In here-documents only what
    /// stands for a variable does.
    fn escaped(&mut self, text: &mut String, special: fn(char) -> bool) {
        let special = |c: char| if self.quotes { special(c) } else { matches!(c, '$' | '\\') };
        match self.chars.peek().copied() {
            Some(next) if special(next) => {
                self.chars.next();
                text.push(next);
            }
            _ => text.push(self.escape),
        }
    }

    fn quoted(&mut self, text: &mut String) -> Result<(), String> {
        loop {
            match self.chars.next() {
                None => return Err("a quote \" is not closed; add the other one".into()),
                Some('"') => return Ok(()),
                Some('$') => self.variable(text)?,
                Some(c) if c == self.escape => {
                    if self.chars.peek() == Some(&self.escape) {
                        self.chars.next();
                        text.push(self.escape);
                    } else {
                        self.escaped(text, |c| matches!(c, '"' | '$'));
                    }
                }
                Some(c) => text.push(c),
            }
        }
    }

    /// A variable, behind its dollar sign.
    fn variable(&mut self, text: &mut String) -> Result<(), String> {
        match self.chars.peek().copied() {
            Some('{') => {
                self.chars.next();
                self.depth += 1;
                if self.depth > MAX_DEPTH {
                    return Err(format!("more than {MAX_DEPTH} substitutions lie in one another"));
                }
                text.push_str(&self.substitution()?);
                self.depth -= 1;
            }
            Some(c) if begins_name(c) => {
                let name = self.name();
                text.push_str(&self.lookup.get(&name).unwrap_or_default());
            }
            // Arguments of a shell, of which there are none.
            Some(c) if c.is_ascii_digit() || matches!(c, '@' | '*' | '#' | '?' | '!') => {
                self.chars.next();
            }
            _ => text.push('$'),
        }
        Ok(())
    }

    fn name(&mut self) -> String {
        let mut name = String::new();
        while let Some(c) = self.chars.next_if(|c| begins_name(*c) || c.is_ascii_digit()) {
            name.push(c);
        }
        name
    }

    /// What is between `${` and `}`.
    fn substitution(&mut self) -> Result<String, String> {
        let name = self.name();
        if name.is_empty() {
            return Err("a `${` has no variable's name behind it; write \\$ for a dollar sign".into());
        }
        let value = self.lookup.get(&name);
        let mut operator = self.chars.next();
        // With a colon an empty value is as good as none.
        let colon = operator == Some(':');
        if colon {
            operator = self.chars.next();
        }
        let set = value.clone().filter(|value| !colon || !value.is_empty());
        match (operator, colon) {
            (Some('}'), false) => Ok(value.unwrap_or_default()),
            (Some('-'), _) => {
                let word = self.until(Some('}'))?;
                Ok(set.unwrap_or(word))
            }
            (Some('+'), _) => {
                let word = self.until(Some('}'))?;
                Ok(set.map(|_| word).unwrap_or_default())
            }
            (Some('?'), _) => {
                let word = self.until(Some('}'))?;
                let why = if word.is_empty() { "it has no value" } else { &word };
                set.ok_or_else(|| format!("{name}: {why}; give it by ENV, ARG or --build-arg"))
            }
            (Some(end @ ('#' | '%')), false) => {
                let longest = self.chars.next_if_eq(&end).is_some();
                let pattern = self.until(Some('}'))?;
                let value = value.unwrap_or_default();
                if value.len() + pattern.len() > MAX_MATCHED {
                    return Err(format!("`{end}` is for values of {MAX_MATCHED} bytes at most"));
                }
                Ok(without(&value, &pattern, end == '#', longest))
            }
            (None, _) => Err("a `${` has no `}`; add it".into()),
            (Some(other), _) => Err(format!(
                "`{other}` in `${{{name}…}}` is not known here; there are :- :+ :? - + ? # ## % and %%"
            )),
        }
    }
}

fn begins_name(c: char) -> bool {
    c.is_ascii_alphabetic() || c == '_'
}

/// A value without the beginning or end that a pattern fits.
fn without(value: &str, pattern: &str, beginning: bool, longest: bool) -> String {
    let mut ends = value.char_indices().map(|(at, _)| at).chain([value.len()]);
    let fits = |at: &usize| matches(pattern, if beginning { &value[..*at] } else { &value[*at..] });
    // The first that fits is the shortest beginning and the longest end.
    let at = if beginning == longest { ends.rfind(fits) } else { ends.find(fits) };
    match at {
        Some(at) => (if beginning { &value[at..] } else { &value[..at] }).into(),
        None => value.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(name: &str) -> Option<String> {
        let known = [("x", "1"), ("e", ""), ("path", "a/b/c.tar.gz"), ("_y2", "two words")];
        known.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).into())
    }

    fn good(text: &str) -> String {
        expand(text, '\\', &mut value).unwrap()
    }

    fn bad(text: &str) -> String {
        expand(text, '\\', &mut value).unwrap_err()
    }

    #[test]
    fn variables_stand_for_their_values() {
        for (text, wanted) in [
            ("$x", "1"),
            ("${x}y", "1y"),
            ("$xy-$none-$_y2", "--two words"),
            ("a$", "a$"),
            ("$ $/", "$ $/"),
            ("$1$@", ""),
            ("${x:-no}${none:-yes}${e:-empty}", "1yesempty"),
            ("${x-no}${none-yes}${e-no}", "1yes"),
            ("${x:+set}${none:+no}${e:+no}", "set"),
            ("${e+set}${none+no}", "set"),
            ("${x:?never}", "1"),
            ("${none:-a${x}b}", "a1b"),
            ("${none:-${none:-${x}}}", "1"),
            ("${none:-\"a}b\"}", "a}b"),
        ] {
            assert_eq!(good(text), wanted, "{text}");
        }
    }

    #[test]
    fn beginnings_and_ends_are_taken_from_values() {
        for (text, wanted) in [
            ("${path#*/}", "b/c.tar.gz"),
            ("${path##*/}", "c.tar.gz"),
            ("${path%.*}", "a/b/c.tar"),
            ("${path%%.*}", "a/b/c"),
            ("${path%.zip}", "a/b/c.tar.gz"),
            ("${path#?}", "/b/c.tar.gz"),
            ("${none#a}", ""),
        ] {
            assert_eq!(good(text), wanted, "{text}");
        }
    }

    #[test]
    fn quotes_and_escapes_mean_what_they_do_in_a_shell() {
        for (text, wanted) in [
            ("'$x'", "$x"),
            ("\"$x\"", "1"),
            ("\"a \\\" \\$x \\n \\\\\"", "a \" $x \\n \\"),
            ("\\$x\\ y\\'", "$x y'"),
            ("a'b c'\"d\"", "ab cd"),
            ("''", ""),
            ("end\\", "end\\"),
        ] {
            assert_eq!(good(text), wanted, "{text}");
        }
        assert_eq!(expand("c:\\$x`$x", '`', &mut value).unwrap(), "c:\\1$x");
    }

    #[test]
    fn here_documents_keep_their_quotes() {
        let text = "say \"$x\" '${none:-$x}' \\$x \\n \\\\ it's";
        assert_eq!(expand_document(text, &mut value).unwrap(), "say \"1\" '1' $x \\n \\ it's");
    }

    #[test]
    fn what_cannot_be_read_is_an_error_that_says_what_to_do() {
        for (text, part) in [
            ("${x", "no `}`"),
            ("${none:-a", "no `}`"),
            ("${", "variable's name"),
            ("${}", "variable's name"),
            ("'a", "not closed"),
            ("\"a", "not closed"),
            ("${x/a/b}", "not known here"),
            ("${x:}", "not known here"),
            ("${none:?please}", "none: please; give it"),
            ("${e:?}", "e: it has no value"),
        ] {
            assert!(bad(text).contains(part), "{text}: {}", bad(text));
        }
        let deep = "${a:-".repeat(100_000) + &"}".repeat(100_000);
        assert!(bad(&deep).contains("lie in one another"));
        let mut long = |_: &str| Some("a".repeat(MAX_LEN / 2));
        assert!(expand("$a$a$a", '\\', &mut long).unwrap_err().contains("more than"));
    }
}
