//! A Dockerfile's instructions, in stages.
//!
//! Variables are still in them as they are written: what they stand for is known once the instruction's turn comes.
//!
//! Source: Dockerfile reference.

use super::ParseError;
use super::lines::{Document, Line, Lines, document_of, raw_words};

/// Names of the instructions that are known here.
const KNOWN: &str = "FROM, RUN, COPY, ADD, ARG, ENV, LABEL, WORKDIR, USER, EXPOSE, VOLUME, CMD, ENTRYPOINT, SHELL, \
                     STOPSIGNAL, HEALTHCHECK and MAINTAINER";

/// Names and values.
pub type Pairs = Vec<(String, String)>;

/// A Dockerfile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dockerfile {
    /// The character that takes its meaning from the next one.
    pub escape: char,
    /// Arguments in front of the stages, with their values if they have some.
    pub arguments: Vec<Argument>,
    /// The stages: one at least.
    pub stages: Vec<Stage>,
}

/// An argument of the build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Argument {
    /// The line.
    pub line: usize,
    /// Its name.
    pub name: String,
    /// Its value, if the user gives none.
    pub value: Option<String>,
}

/// What is between one FROM and the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stage {
    /// The line of its FROM.
    pub line: usize,
    /// What it begins with: an image, or an earlier stage.
    pub base: String,
    /// What system it is for.
    pub platform: Option<String>,
    /// What later ones call it, in small letters.
    pub name: Option<String>,
    /// The instructions.
    pub steps: Vec<Instruction>,
}

/// An instruction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// The line.
    pub line: usize,
    /// As it is shown to the user.
    pub text: String,
    /// What is to be done.
    pub what: What,
}

/// What an instruction does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// Files come from the context, or from another image.
    Copy(Copy),
    /// The same; archives are unpacked.
    Add(Copy),
    /// Arguments of the build.
    Arg(Vec<Argument>),
    /// Variables of the environment, and their values.
    Env(Pairs),
    /// Labels, and their values.
    Label(Pairs),
    /// The directory of what follows.
    Workdir(String),
    /// Who runs what follows.
    User(String),
    /// Ports.
    Expose(Vec<String>),
    /// Places of what is no part of the image.
    Volume(Vec<String>),
    /// What is run by default, or the arguments of what is.
    Cmd(Command),
    /// What is run.
    Entrypoint(Command),
    /// What commands without brackets are given to.
    Shell(Vec<String>),
    /// The signal that stops it.
    StopSignal(String),
    /// A command that is run in the image.
    Run(Run),
    /// What says nothing about an image here.
    Nothing,
}

/// A command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// For a shell.
    Shell(String),
    /// Words of their own.
    Exec(Vec<String>),
}

/// RUN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Flags, such as mounts.
    pub flags: Pairs,
    /// What is run.
    pub command: Command,
    /// The here-documents in it.
    pub documents: Vec<Document>,
}

/// COPY or ADD.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Copy {
    /// The stage or image that has the files; without it, the context.
    pub from: Option<String>,
    /// Who gets them.
    pub chown: Option<String>,
    /// Their permissions.
    pub chmod: Option<String>,
    /// Patterns of what is left out.
    pub exclude: Vec<String>,
    /// Directories of a source's path are kept.
    pub parents: bool,
    /// The files.
    pub sources: Vec<CopySource>,
    /// Where to.
    pub to: String,
}

/// What is copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CopySource {
    /// A path, which may have patterns.
    Path(String),
    /// A file in the Dockerfile.
    Document(Document),
}

impl Dockerfile {
    /// Reads a Dockerfile.
    pub fn new(text: &str) -> Result<Self, ParseError> {
        let Lines { escape, lines } = Lines::new(text)?;
        let mut file = Self { escape, arguments: Vec::new(), stages: Vec::new() };
        for line in lines {
            let parser = Parser { escape, line: &line };
            match (line.name.as_str(), file.stages.last_mut()) {
                ("FROM", _) => {
                    let stage = parser.stage()?;
                    let taken = |other: &&Stage| stage.name.is_some() && other.name == stage.name;
                    if let Some(other) = file.stages.iter().find(taken) {
                        let why =
                            format!("the stage in line {} has that name already; choose another", other.line);
                        return Err(parser.wrong(why));
                    }
                    file.stages.push(stage);
                }
                ("ARG", None) => file.arguments.extend(parser.arguments()?),
                (name, None) => {
                    return Err(
                        parser.wrong(format!("{name} is before the first FROM; only ARG may be there"))
                    );
                }
                (_, Some(stage)) => {
                    let what = parser.what()?;
                    let text = format!("{} {}", line.name, line.rest);
                    let text = text.trim_end().to_owned();
                    stage.steps.push(Instruction { line: line.number, text, what });
                }
            }
        }
        match file.stages.is_empty() {
            true => Err(ParseError::new(1, "there is no FROM; begin with `FROM IMAGE` or `FROM scratch`")),
            false => Ok(file),
        }
    }
}

/// Reads one instruction.
struct Parser<'a> {
    escape: char,
    line: &'a Line,
}

impl Parser<'_> {
    fn wrong(&self, why: impl Into<String>) -> ParseError {
        ParseError::new(self.line.number, why)
    }

    fn what(&self) -> Result<What, ParseError> {
        let rest = self.line.rest.as_str();
        let one = |what: &str| match rest {
            "" => Err(self.wrong(format!("{} has no {what}; add it", self.line.name))),
            rest => Ok(rest.to_owned()),
        };
        Ok(match self.line.name.as_str() {
            "COPY" => What::Copy(self.copy()?),
            "ADD" => What::Add(self.copy()?),
            "ARG" => What::Arg(self.arguments()?),
            "ENV" => What::Env(self.pairs()?),
            "LABEL" => What::Label(self.pairs()?),
            "WORKDIR" => What::Workdir(one("directory")?),
            "USER" => What::User(one("user")?),
            "STOPSIGNAL" => What::StopSignal(one("signal")?),
            "EXPOSE" => {
                one("port")?;
                What::Expose(raw_words(rest, self.escape))
            }
            "VOLUME" => {
                one("path")?;
                What::Volume(json(rest).unwrap_or_else(|| raw_words(rest, self.escape)))
            }
            "CMD" => What::Cmd(self.command(rest)?),
            "ENTRYPOINT" => What::Entrypoint(self.command(rest)?),
            "SHELL" => match json(rest) {
                Some(words) if !words.is_empty() => What::Shell(words),
                _ => return Err(self.wrong("SHELL wants words in brackets, such as [\"/bin/sh\", \"-c\"]")),
            },
            "RUN" => {
                let (flags, rest) = self.flags()?;
                if let Some((name, _)) =
                    flags.iter().find(|(name, _)| !matches!(name.as_str(), "mount" | "network" | "security"))
                {
                    return Err(self.unknown_flag(name, "--mount, --network"));
                }
                if rest.is_empty() {
                    return Err(self.wrong("RUN has no command; add it"));
                }
                let command = match json(rest) {
                    Some(words) if self.line.documents.is_empty() => Command::Exec(words),
                    _ => Command::Shell(rest.into()),
                };
                What::Run(Run { flags, command, documents: self.line.documents.clone() })
            }
            // Machines have no health checks, and who keeps an image is no part of it.
            "HEALTHCHECK" | "MAINTAINER" => What::Nothing,
            "ONBUILD" => {
                return Err(self.wrong(
                    "ONBUILD is not known here; put the instruction into the Dockerfile that it is for",
                ));
            }
            other => {
                let shown: String = other.chars().take(40).collect();
                return Err(self.wrong(format!(
                    "`{}` is no instruction; there are {KNOWN} (a line is continued by `{}` at its end)",
                    shown.escape_debug(),
                    self.escape
                )));
            }
        })
    }

    /// The command of CMD or ENTRYPOINT.
    fn command(&self, rest: &str) -> Result<Command, ParseError> {
        Ok(match json(rest) {
            Some(words) => Command::Exec(words),
            None if rest.is_empty() => Command::Exec(Vec::new()),
            None => Command::Shell(rest.into()),
        })
    }

    fn stage(&self) -> Result<Stage, ParseError> {
        let (flags, rest) = self.flags()?;
        let mut platform = None;
        for (name, value) in flags {
            match name.as_str() {
                "platform" => platform = Some(value),
                _ => return Err(self.unknown_flag(&name, "--platform")),
            }
        }
        let words = raw_words(rest, self.escape);
        let (base, name) = match words.as_slice() {
            [base] => (base, None),
            [base, word, name] if word.eq_ignore_ascii_case("as") => (base, Some(name.to_ascii_lowercase())),
            _ => return Err(self.wrong("FROM wants one image: write `FROM IMAGE` or `FROM IMAGE AS NAME`")),
        };
        if let Some(name) = &name {
            let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
            if !name.starts_with(|c: char| c.is_ascii_lowercase()) || !name.chars().all(good) {
                return Err(self.wrong(format!(
                    "`{name}` is no name of a stage; begin with a letter, and go on with letters, digits, `_`, `-` \
                     and `.`"
                )));
            }
        }
        Ok(Stage { line: self.line.number, base: base.clone(), platform, name, steps: Vec::new() })
    }

    /// Flags in front of the rest: names and values.
    fn flags(&self) -> Result<(Pairs, &str), ParseError> {
        let mut flags = Vec::new();
        let mut rest = self.line.rest.as_str();
        while let Some(behind) = rest.strip_prefix("--") {
            let word = raw_words(rest, self.escape).into_iter().next().unwrap_or_default();
            rest = rest[word.len()..].trim_start();
            if behind.is_empty() || word == "--" {
                break;
            }
            let (name, value) = word[2..].split_once('=').unwrap_or((&word[2..], "true"));
            flags.push((name.into(), value.into()));
        }
        Ok((flags, rest))
    }

    fn unknown_flag(&self, name: &str, known: &str) -> ParseError {
        let shown: String = name.chars().take(40).collect();
        let line = &self.line.name;
        self.wrong(format!(
            "--{} is no flag of {line} that is known here; there is {known}",
            shown.escape_debug()
        ))
    }

    fn copy(&self) -> Result<Copy, ParseError> {
        let (flags, rest) = self.flags()?;
        let is_copy = self.line.name == "COPY";
        let mut copy = Copy::default();
        for (name, value) in flags {
            match name.as_str() {
                "from" if is_copy => copy.from = Some(value),
                "parents" if is_copy => copy.parents = value == "true",
                "chown" => copy.chown = Some(value),
                "chmod" => copy.chmod = Some(value),
                "exclude" => copy.exclude.push(value),
                // How Docker keeps its layers; what is in the image is the same.
                "link" => {}
                _ if is_copy => {
                    let known = "--from, --chown, --chmod, --exclude, --parents, --link";
                    return Err(self.unknown_flag(&name, known));
                }
                _ => return Err(self.unknown_flag(&name, "--chown, --chmod, --exclude, --link")),
            }
        }
        let mut words = match json(rest) {
            // They mean themselves, but for variables.
            Some(words) => words.into_iter().map(|word| self.quoted(&word)).collect(),
            None => raw_words(rest, self.escape),
        };
        let to = words.pop().filter(|_| !words.is_empty());
        let name = &self.line.name;
        copy.to = to.ok_or_else(|| {
            self.wrong(format!("{name} wants a source and a destination: `{name} FROM TO`"))
        })?;
        let mut documents = self.line.documents.iter();
        for word in words {
            copy.sources.push(match document_of(&word).and_then(|_| documents.next()) {
                Some(document) => CopySource::Document(document.clone()),
                None => CopySource::Path(word),
            });
        }
        if documents.next().is_some() {
            return Err(self.wrong("a here-document cannot be the destination; put one behind it"));
        }
        Ok(copy)
    }

    /// A word that has nothing but variables to be replaced in it.
    fn quoted(&self, word: &str) -> String {
        let mut text = String::new();
        for c in word.chars() {
            if c == self.escape || c.is_whitespace() || matches!(c, '\'' | '"') {
                text.push(self.escape);
            }
            text.push(c);
        }
        text
    }

    fn arguments(&self) -> Result<Vec<Argument>, ParseError> {
        let words = raw_words(&self.line.rest, self.escape);
        if words.is_empty() {
            return Err(self.wrong("ARG has no name; write `ARG NAME` or `ARG NAME=VALUE`"));
        }
        let arguments = words.into_iter().map(|word| {
            let (name, value) = match word.split_once('=') {
                Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
                None => (word.clone(), None),
            };
            self.named(&name, "ARG")?;
            Ok(Argument { line: self.line.number, name, value })
        });
        arguments.collect()
    }

    fn named(&self, name: &str, what: &str) -> Result<(), ParseError> {
        let good = |c: char| !matches!(c, '"' | '\'' | '$') && !c.is_whitespace();
        match !name.is_empty() && name.chars().all(good) {
            true => Ok(()),
            false => Err(self.wrong(format!("`{name}` is no name for {what}; write NAME=VALUE"))),
        }
    }

    /// Names and values: `NAME=VALUE…`, or one name and all that is behind it.
    fn pairs(&self) -> Result<Pairs, ParseError> {
        let rest = self.line.rest.as_str();
        let words = raw_words(rest, self.escape);
        let what = &self.line.name;
        let Some(first) = words.first() else {
            return Err(self.wrong(format!("{what} has no name; write `{what} NAME=VALUE`")));
        };
        if !first.contains('=') {
            let value = rest[first.len()..].trim();
            if value.is_empty() {
                return Err(self.wrong(format!("`{first}` has no value; write `{what} {first}=VALUE`")));
            }
            self.named(first, what)?;
            return Ok(vec![(first.clone(), value.into())]);
        }
        let pairs = words.into_iter().map(|word| match word.split_once('=') {
            Some((name, value)) => {
                // Labels' names may be in quotes.
                let plain = name.trim_matches(|c| matches!(c, '"' | '\''));
                let name = if what == "LABEL" { plain } else { name };
                self.named(name, what)?;
                Ok((name.to_owned(), value.to_owned()))
            }
            None => Err(self.wrong(format!(
                "`{word}` has no value; write NAME=VALUE, and \"VALUE\" in quotes if it has spaces"
            ))),
        });
        pairs.collect()
    }
}

/// The words of a list in brackets; `None` if it is none, and so is a command for a shell.
fn json(text: &str) -> Option<Vec<String>> {
    let list = text.trim();
    if !list.starts_with('[') { None } else { serde_json::from_str(list).ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good(text: &str) -> Dockerfile {
        Dockerfile::new(text).unwrap()
    }

    /// What the instructions behind a FROM do.
    fn whats(text: &str) -> Vec<What> {
        let mut file = good(&format!("FROM scratch\n{text}"));
        file.stages.remove(0).steps.into_iter().map(|step| step.what).collect()
    }

    fn what(text: &str) -> What {
        let mut all = whats(text);
        assert_eq!(all.len(), 1, "{text}");
        all.remove(0)
    }

    fn bad(text: &str) -> String {
        Dockerfile::new(text).unwrap_err().to_string()
    }

    fn words<const N: usize>(words: [&str; N]) -> Vec<String> {
        words.map(Into::into).into()
    }

    fn pairs<const N: usize>(pairs: [(&str, &str); N]) -> Pairs {
        pairs.map(|(name, value)| (name.into(), value.into())).into()
    }

    #[test]
    fn stages_have_bases_and_names() {
        let text = "ARG V=1\nARG W\nFROM --platform=linux/386 debian:$V as Build\nRUN make\n\nfrom scratch\n\
                    COPY --from=build /a /b";
        let file = good(text);
        let argument = |line, name: &str, value: Option<&str>| Argument {
            line,
            name: name.into(),
            value: value.map(Into::into),
        };
        assert_eq!(file.arguments, [argument(1, "V", Some("1")), argument(2, "W", None)]);
        let [first, second] = file.stages.as_slice() else { panic!("{file:?}") };
        assert_eq!((first.line, first.base.as_str(), first.name.as_deref()), (3, "debian:$V", Some("build")));
        assert_eq!(first.platform.as_deref(), Some("linux/386"));
        assert_eq!((second.line, second.base.as_str(), &second.name), (6, "scratch", &None));
        assert_eq!((second.steps[0].line, second.steps[0].text.as_str()), (7, "COPY --from=build /a /b"));
    }

    #[test]
    fn commands_are_words_in_brackets_or_for_a_shell() {
        let exec = |list: &str| What::Cmd(Command::Exec(serde_json::from_str(list).unwrap()));
        assert_eq!(what(r#"CMD ["a", "b c", "\"d\u00e9"]"#), exec(r#"["a", "b c", "\"dé"]"#));
        assert_eq!(what("CMD [ ]"), exec("[]"));
        assert_eq!(what("CMD echo \"$x\""), What::Cmd(Command::Shell("echo \"$x\"".into())));
        // As in Docker, what is no good list is for the shell.
        assert_eq!(what("CMD ['a']"), What::Cmd(Command::Shell("['a']".into())));
        assert_eq!(what("ENTRYPOINT [\"/x\"]"), What::Entrypoint(Command::Exec(words(["/x"]))));
        assert_eq!(what("SHELL [\"/bin/bash\", \"-c\"]"), What::Shell(words(["/bin/bash", "-c"])));
        let run = what("RUN --mount=type=cache,target=/x --network=none make \\\n  all");
        let What::Run(run) = run else { panic!("{run:?}") };
        assert_eq!(run.flags, pairs([("mount", "type=cache,target=/x"), ("network", "none")]));
        assert_eq!(run.command, Command::Shell("make   all".into()));
        let What::Run(run) = what("RUN <<EOF cat\n$x\nEOF") else { panic!() };
        assert_eq!(
            (run.documents[0].content.as_str(), run.command),
            ("$x\n", Command::Shell("<<EOF cat".into()))
        );
    }

    #[test]
    fn names_have_values() {
        assert_eq!(
            what("ENV a=1 b=\"two words\" c=x\\ y"),
            What::Env(pairs([("a", "1"), ("b", "\"two words\""), ("c", "x\\ y")]))
        );
        assert_eq!(what("ENV name all the  rest"), What::Env(pairs([("name", "all the  rest")])));
        assert_eq!(what("ENV a=b=c d="), What::Env(pairs([("a", "b=c"), ("d", "")])));
        assert_eq!(what("LABEL \"org.x\"=\"y\""), What::Label(pairs([("org.x", "\"y\"")])));
        let arg = |name: &str, value: Option<&str>| Argument {
            line: 2,
            name: name.into(),
            value: value.map(Into::into),
        };
        assert_eq!(what("ARG a b=2"), What::Arg(vec![arg("a", None), arg("b", Some("2"))]));
        assert_eq!(what("EXPOSE 80 53/udp $P"), What::Expose(words(["80", "53/udp", "$P"])));
        assert_eq!(what("VOLUME /a /b"), What::Volume(words(["/a", "/b"])));
        assert_eq!(what("VOLUME [\"/a b\"]"), What::Volume(words(["/a b"])));
        assert_eq!(what("WORKDIR  /a b "), What::Workdir("/a b".into()));
        assert_eq!(
            whats("USER u:g\nSTOPSIGNAL 9\nMAINTAINER me\nHEALTHCHECK NONE"),
            [What::User("u:g".into()), What::StopSignal("9".into()), What::Nothing, What::Nothing]
        );
    }

    #[test]
    fn copies_have_flags_sources_and_a_destination() {
        let path = |text: &str| CopySource::Path(text.into());
        let copy = what("COPY --from=0 --chown=1:2 --chmod=755 --link --exclude=*.o --exclude=b a b /to/");
        assert_eq!(
            copy,
            What::Copy(Copy {
                from: Some("0".into()),
                chown: Some("1:2".into()),
                chmod: Some("755".into()),
                exclude: words(["*.o", "b"]),
                sources: vec![path("a"), path("b")],
                to: "/to/".into(),
                ..Copy::default()
            })
        );
        let add = what("ADD [\"a b\", \"c's\", \"/to $x\"]");
        assert_eq!(
            add,
            What::Add(Copy {
                sources: vec![path("a\\ b"), path("c\\'s")],
                to: "/to\\ $x".into(),
                ..Copy::default()
            })
        );
        let What::Copy(copy) = what("COPY a <<'E' /to/\nx $y\nE") else { panic!() };
        let document = Document { name: "E".into(), expands: false, content: "x $y\n".into() };
        assert_eq!(copy.sources, [path("a"), CopySource::Document(document)]);
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line_and_what_to_do() {
        for (text, line, part) in [
            ("", 1, "there is no FROM"),
            ("ARG x\n# FROM y", 1, "there is no FROM"),
            ("RUN x", 1, "before the first FROM"),
            ("FROM", 1, "FROM wants one image"),
            ("FROM a b", 1, "FROM wants one image"),
            ("FROM a AS 1", 1, "no name of a stage"),
            ("FROM a AS b/c", 1, "no name of a stage"),
            ("FROM --x=y a", 1, "--x is no flag of FROM"),
            ("FROM a AS b\nFROM c AS B", 2, "line 1 has that name"),
            ("FROM a\n\nRUM x", 3, "`RUM` is no instruction; there are FROM, RUN"),
            ("FROM a\nRUN x\nand more", 3, "continued by `\\`"),
            ("FROM a\nRUN", 2, "no command"),
            ("FROM a\nRUN --bad=1 x", 2, "--bad is no flag of RUN"),
            ("FROM a\nCOPY a", 2, "a source and a destination"),
            ("FROM a\nCOPY", 2, "a source and a destination"),
            ("FROM a\nCOPY --form=x a b", 2, "--form is no flag of COPY"),
            ("FROM a\nADD --from=x a b", 2, "--from is no flag of ADD"),
            ("FROM a\nCOPY a <<E\nE", 2, "cannot be the destination"),
            ("FROM a\nENV", 2, "has no name"),
            ("FROM a\nENV x", 2, "write `ENV x=VALUE`"),
            ("FROM a\nENV x=1 y", 2, "`y` has no value"),
            ("FROM a\nENV =1", 2, "no name for ENV"),
            ("FROM a\nARG", 2, "ARG has no name"),
            ("FROM a\nWORKDIR", 2, "no directory"),
            ("FROM a\nUSER ", 2, "no user"),
            ("FROM a\nEXPOSE", 2, "no port"),
            ("FROM a\nSHELL sh -c", 2, "words in brackets"),
            ("FROM a\nONBUILD RUN x", 2, "ONBUILD is not known here"),
        ] {
            let error = Dockerfile::new(text).unwrap_err();
            assert_eq!((error.line, error.to_string().contains(part)), (line, true), "{text:?}: {error}");
        }
        assert!(bad("FROM a\n\u{1b}[31m\u{1b}").contains("\\u{1b}"));
    }

    #[test]
    fn nothing_that_can_be_written_is_too_much_for_it() {
        let pieces = [
            "FROM ",
            "a",
            "\n",
            "COPY ",
            "--",
            "=",
            "\"",
            "'",
            "\\",
            "<<",
            "E",
            "[",
            "]",
            "${",
            "# escape=`\n",
            " ",
            "é",
        ];
        let mut seed = 1_u64;
        for _ in 0..20_000 {
            let mut text = String::from("FROM x\n");
            for _ in 0..12 {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                text.push_str(pieces[(seed >> 33) as usize % pieces.len()]);
            }
            let _ = Dockerfile::new(&text);
        }
    }
}
