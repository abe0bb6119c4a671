//! The lines of a Dockerfile: directives, comments, continued lines and here-documents.
//!
//! Source: Dockerfile reference, "Parser directives", "Escape character", "Here-Documents".

use super::ParseError;

/// Instructions that may have here-documents.
const WITH_DOCUMENTS: [&str; 3] = ["RUN", "COPY", "ADD"];
/// What a directive may be about. Only the first means something here: the syntax is always this one.
const DIRECTIVES: [&str; 3] = ["escape", "syntax", "check"];

/// A Dockerfile as lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lines {
    /// The character that continues lines, and takes its meaning from the next one.
    pub escape: char,
    /// The instructions.
    pub lines: Vec<Line>,
}

/// An instruction, of one or more lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Where it begins, from one on.
    pub number: usize,
    /// Its name, in capitals.
    pub name: String,
    /// What is behind the name.
    pub rest: String,
    /// Its here-documents.
    pub documents: Vec<Document>,
}

/// A here-document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// The word that ends it.
    pub name: String,
    /// Variables in it stand for their values.
    pub expands: bool,
    /// What is in it.
    pub content: String,
}

impl Lines {
    /// Reads a Dockerfile.
    pub fn new(text: &str) -> Result<Self, ParseError> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut rest = text.lines().enumerate().map(|(at, line)| (at + 1, line)).peekable();
        let mut escape = None;
        while let Some((key, value)) = rest.peek().and_then(|(_, line)| directive(line)) {
            let Some((number, _)) = rest.next() else { break };
            match (key.as_str(), value) {
                ("escape", _) if escape.is_some() => {
                    return Err(ParseError::new(number, "there is a second escape directive; remove one"));
                }
                ("escape", "\\") => escape = Some('\\'),
                ("escape", "`") => escape = Some('`'),
                ("escape", other) => {
                    let why = format!("`{other}` cannot be the escape character; write \\ or `");
                    return Err(ParseError::new(number, why));
                }
                _ => {}
            }
        }
        let escape = escape.unwrap_or('\\');
        let mut lines = Vec::new();
        while let Some((number, line)) = rest.next() {
            if is_comment(line) || line.trim().is_empty() {
                continue;
            }
            let mut text = String::new();
            let mut part = Some(line.trim_start());
            while let Some(line) = part {
                match continued(line, escape) {
                    None => {
                        text.push_str(line);
                        break;
                    }
                    Some(line) => text.push_str(line),
                }
                // Comments and empty lines may stand between the parts.
                let next = rest.by_ref().map(|(_, line)| line);
                part = next.into_iter().find(|line| !is_comment(line) && !line.trim().is_empty());
            }
            let text = text.trim();
            let end = text.find(char::is_whitespace).unwrap_or(text.len());
            let (name, behind) = (text[..end].to_ascii_uppercase(), text[end..].trim_start().to_owned());
            let mut documents = Vec::new();
            if WITH_DOCUMENTS.contains(&name.as_str()) {
                for word in raw_words(&behind, escape) {
                    let Some((name, strips, expands)) = document_of(&word) else { continue };
                    let mut content = String::new();
                    loop {
                        let Some((_, line)) = rest.next() else {
                            let why =
                                format!("the here-document is not ended; put a line `{name}` behind it");
                            return Err(ParseError::new(number, why));
                        };
                        let line = if strips { line.trim_start_matches('\t') } else { line };
                        if line == name {
                            break;
                        }
                        content.push_str(line);
                        content.push('\n');
                    }
                    documents.push(Document { name, expands, content });
                }
            }
            lines.push(Line { number, name, rest: behind, documents });
        }
        Ok(Self { escape, lines })
    }
}

fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with('#')
}

/// A directive's name, in small letters, and its value.
fn directive(line: &str) -> Option<(String, &str)> {
    let (key, value) = line.trim().strip_prefix('#')?.split_once('=')?;
    let key = key.trim().to_ascii_lowercase();
    DIRECTIVES.contains(&key.as_str()).then_some((key, value.trim()))
}

/// A line that the next one continues, without what says so. Two escape characters are one that means itself.
fn continued(line: &str, escape: char) -> Option<&str> {
    let line = line.trim_end_matches([' ', '\t']).strip_suffix(escape)?;
    (!line.ends_with(escape)).then_some(line)
}

/// The words of a text, with their quotes and escape characters.
pub fn raw_words(text: &str, escape: char) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quote = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match quote {
            None if c.is_whitespace() => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                continue;
            }
            None if c == '"' || c == '\'' => quote = Some(c),
            Some(open) if c == open => quote = None,
            _ => {}
        }
        word.push(c);
        if c == escape && quote != Some('\'') {
            word.extend(chars.next());
        }
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

/// The here-document that a word asks for: its name, whether tabs are taken from its lines, and whether variables stand
/// for their values in it.
pub fn document_of(word: &str) -> Option<(String, bool, bool)> {
    let name = word.trim_start_matches(|c: char| c.is_ascii_digit()).strip_prefix("<<")?;
    let (name, strips) = name.strip_prefix('-').map_or((name, false), |name| (name, true));
    let plain: String = name.chars().filter(|c| !matches!(c, '"' | '\'' | '\\')).collect();
    (!plain.is_empty() && !plain.contains('<')).then(|| {
        let expands = plain == name;
        (plain, strips, expands)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The instructions, as name and rest.
    fn all(text: &str) -> Vec<(usize, String)> {
        let lines = Lines::new(text).unwrap().lines;
        lines.into_iter().map(|line| (line.number, format!("{} {}", line.name, line.rest))).collect()
    }

    fn one(number: usize, text: &str) -> (usize, String) {
        (number, text.into())
    }

    #[test]
    fn comments_and_empty_lines_are_left_out_between_the_parts_of_a_line_too() {
        let text = "# note\r\n\r\nfrom x\r\n  # more\nRUN a \\\n  # within\n\n  b \\  \n c # not one\nuser u";
        assert_eq!(all(text), [one(3, "FROM x"), one(5, "RUN a   b  c # not one"), one(10, "USER u")]);
        assert_eq!(all("\u{feff}FROM x"), [one(1, "FROM x")]);
        assert!(all("\n \n#\n").is_empty());
    }

    #[test]
    fn the_escape_character_is_chosen_by_the_first_lines_only() {
        let lines = Lines::new("# Escape = `\nFROM x `\n AS y\nRUN dir c:\\\nUSER u").unwrap();
        assert_eq!(lines.escape, '`');
        assert_eq!(lines.lines[0].rest, "x  AS y");
        assert_eq!((lines.lines[1].rest.as_str(), lines.lines.len()), ("dir c:\\", 3));
        let lines = Lines::new("# syntax=docker/dockerfile:1\n#escape=\\\nFROM x").unwrap();
        assert_eq!((lines.escape, lines.lines.len()), ('\\', 1));
        for after in ["# note\n# escape=`\nFROM x", "FROM x\n# escape=`", "\n# escape=`\nFROM x"] {
            assert_eq!(Lines::new(after).unwrap().escape, '\\', "{after}");
        }
        assert!(Lines::new("# escape=/\n").unwrap_err().to_string().contains("cannot be the escape"));
        let twice = Lines::new("# escape=`\n# escape=`\n").unwrap_err();
        assert_eq!((twice.line, twice.to_string().contains("second")), (2, true));
    }

    #[test]
    fn a_line_is_continued_by_one_escape_character_and_not_by_two() {
        assert_eq!(all("RUN a\\\\\nUSER u"), [one(1, "RUN a\\\\"), one(2, "USER u")]);
        assert_eq!(all("RUN a\\\n\\\nb"), [one(1, "RUN ab")]);
        // The end of the file ends it.
        assert_eq!(all("RUN a \\"), [one(1, "RUN a")]);
        assert_eq!(all("RUN a \\\n"), [one(1, "RUN a")]);
    }

    #[test]
    fn here_documents_have_their_lines_as_they_are() {
        let text = "COPY <<one <<-\"two\" /to/\n# kept $X \\\n\tone\none\n\t\ta\n\n\ttwo\nUSER u";
        let lines = Lines::new(text).unwrap().lines;
        let document = |name: &str, expands, content: &str| Document {
            name: name.into(),
            expands,
            content: content.into(),
        };
        let wanted = [document("one", true, "# kept $X \\\n\tone\n"), document("two", false, "a\n\n")];
        assert_eq!(lines[0].documents, wanted);
        assert_eq!((lines[1].number, lines.len()), (8, 2));
        let open = Lines::new("FROM x\nRUN <<EOF\necho\n").unwrap_err();
        assert_eq!((open.line, open.to_string().contains("a line `EOF`")), (2, true));
    }

    #[test]
    fn what_only_looks_like_a_here_document_is_none() {
        for text in ["RUN cat <<<word", "RUN echo \"a <<EOF\"", "RUN ((1<<3))", "ENV a=<<EOF", "RUN cat <<"] {
            assert!(Lines::new(text).unwrap().lines[0].documents.is_empty(), "{text}");
        }
        let words = ["<<E", "3<<-E", "<<'E F'", "<<\\E"].map(|word| document_of(word).unwrap());
        let wanted = [("E", false, true), ("E", true, true), ("E F", false, false), ("E", false, false)];
        assert_eq!(words, wanted.map(|(name, strips, expands)| (name.into(), strips, expands)));
    }

    #[test]
    fn words_keep_their_quotes() {
        let words = raw_words(r#" a "b c" d\ e 'f\' g"h i"j"#, '\\');
        assert_eq!(words, ["a", r#""b c""#, r"d\ e", r"'f\'", r#"g"h i"j"#]);
        assert_eq!(raw_words("a` b \\", '`'), ["a` b", "\\"]);
    }
}
