//! What is to be built: the stages that the target needs, and what each instruction comes to once its variables
//! have their values.
//!
//! Source: Dockerfile reference, "Understand how ARG and FROM interact", "Scope", "Impact on build caching"; OCI Image
//! Format Specification, "Image Configuration".

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::ParseError;
use super::parse::{Argument, Command, Copy, CopySource, Dockerfile, Instruction, Pairs, Run, Stage, What};
use super::words::{expand, expand_document};

/// The name of what has nothing in it.
const SCRATCH: &str = "scratch";
/// What machines are.
const PLATFORM: &str = "linux/386";
/// Arguments that say what is built for what, and their values.
const PLATFORM_ARGUMENTS: [(&str, &str); 8] = [
    ("TARGETPLATFORM", PLATFORM),
    ("TARGETOS", "linux"),
    ("TARGETARCH", "386"),
    ("TARGETVARIANT", ""),
    ("BUILDPLATFORM", PLATFORM),
    ("BUILDOS", "linux"),
    ("BUILDARCH", "386"),
    ("BUILDVARIANT", ""),
];
/// Arguments that need no ARG: how to get at the network.
const PROXIES: [&str; 5] = ["http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy"];
/// What a command without brackets is given to.
const SHELL: [&str; 2] = ["/bin/sh", "-c"];
/// Where programs are looked for, if an image does not say.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// In all keys: another one, once instructions give something else than before.
const VERSION: &str = "env86-build-2";
/// Variables of the environment that an image can have.
const MAX_VARIABLES: usize = 4096;

/// What a stage begins with, or files come from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Base {
    /// Nothing.
    Scratch,
    /// An earlier stage, by its number.
    Stage(usize),
    /// An image.
    Image(String),
}

/// A stage that is needed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    /// Its number in the Dockerfile.
    pub number: usize,
    /// What it begins with.
    pub base: Base,
    /// What its instructions copy from, by their lines.
    pub sources: BTreeMap<usize, Base>,
}

/// What is to be built, in this order; the last one is the target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The stages that are needed.
    pub stages: Vec<Planned>,
    /// Arguments that were set in front of the stages.
    pub globals: BTreeMap<String, String>,
}

impl Plan {
    /// Plans a stage, by its name or number, or the last one. `given` are the values that the user gives arguments.
    pub fn new(
        file: &Dockerfile,
        target: Option<&str>,
        given: &BTreeMap<String, String>,
    ) -> Result<Self, ParseError> {
        let mut globals: BTreeMap<String, String> =
            PLATFORM_ARGUMENTS.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        for Argument { line, name, value } in &file.arguments {
            let value = match (given.get(name), value) {
                (Some(value), _) => Some(value.clone()),
                (None, Some(value)) => Some(at(*line, expand(value, file.escape, &mut lookup(&globals)))?),
                (None, None) => None,
            };
            globals.extend(value.map(|value| (name.clone(), value)));
        }
        let target = match target {
            None => file.stages.len() - 1,
            Some(name) => stage_of(&file.stages, name).ok_or_else(|| {
                let names: Vec<_> = file.stages.iter().filter_map(|stage| stage.name.as_deref()).collect();
                let known = if names.is_empty() { "they have only numbers".into() } else { names.join(", ") };
                ParseError::new(1, format!("there is no stage `{name}` to build; the stages are: {known}"))
            })?,
        };
        let mut needed = BTreeSet::from([target]);
        let mut stages = Vec::new();
        // A stage needs earlier ones only.
        while let Some(number) = needed.pop_last() {
            let planned = plan(file, number, &globals)?;
            let bases = planned.sources.values().chain([&planned.base]);
            needed.extend(bases.filter_map(|base| if let Base::Stage(at) = base { Some(*at) } else { None }));
            stages.push(planned);
        }
        stages.reverse();
        Ok(Self { stages, globals })
    }
}

fn plan(file: &Dockerfile, number: usize, globals: &BTreeMap<String, String>) -> Result<Planned, ParseError> {
    let Stage { line, base, platform, steps, .. } = &file.stages[number];
    let own = |text: &str| at(*line, expand(text, file.escape, &mut lookup(globals)));
    if let Some(platform) = platform {
        let platform = own(platform)?;
        if !matches!(platform.as_str(), "" | PLATFORM | "386" | "linux" | "i386" | "linux/i386") {
            let why =
                format!("it is for {platform}, and machines are {PLATFORM}; write --platform={PLATFORM}");
            return Err(ParseError::new(*line, why));
        }
    }
    let name = own(base)?;
    if name.is_empty() {
        let why = format!("`{base}` has no value; give it by an ARG in front of FROM, or by --build-arg");
        return Err(ParseError::new(*line, why));
    }
    let earlier = &file.stages[..number];
    let by_name = |name: &str| earlier.iter().position(|stage| stage.name.as_deref() == Some(name));
    let base = match by_name(&name.to_ascii_lowercase()) {
        Some(stage) => Base::Stage(stage),
        None if name == SCRATCH => Base::Scratch,
        None => Base::Image(name),
    };
    let mut sources = BTreeMap::new();
    for step in steps {
        let What::Copy(Copy { from: Some(from), .. }) = &step.what else { continue };
        let source = match stage_of(earlier, from) {
            Some(stage) => Base::Stage(stage),
            None if from == SCRATCH => Base::Scratch,
            None if stage_of(&file.stages, from).is_some() || from.parse::<usize>().is_ok() => {
                let why = format!("the stage `{from}` is not before this one; move it up");
                return Err(ParseError::new(step.line, why));
            }
            None if from.contains('$') => {
                let why = "--from can have no variables; write `FROM IMAGE AS NAME`, and --from=NAME";
                return Err(ParseError::new(step.line, why));
            }
            None => Base::Image(from.clone()),
        };
        sources.insert(step.line, source);
    }
    Ok(Planned { number, base, sources })
}

/// A stage by its name or number.
fn stage_of(stages: &[Stage], name: &str) -> Option<usize> {
    let lower = name.to_ascii_lowercase();
    let by_name = stages.iter().position(|stage| stage.name.as_deref() == Some(&lower));
    by_name.or_else(|| name.parse().ok().filter(|number| *number < stages.len()))
}

fn lookup(values: &BTreeMap<String, String>) -> impl FnMut(&str) -> Option<String> + '_ {
    |name| values.get(name).cloned()
}

fn at<T>(line: usize, result: Result<T, String>) -> Result<T, ParseError> {
    result.map_err(|why| ParseError::new(line, why))
}

/// What an instruction does to files, once its variables have their values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing.
    None,
    /// The directory is made if it is missing.
    Directory(String),
    /// Files are copied. Paths in the image are absolute; one that ends in a slash is a directory.
    Copy {
        /// What and where to.
        copy: Copy,
        /// Archives are unpacked.
        unpacks: bool,
    },
    /// A command is run.
    Run {
        /// How.
        run: Run,
        /// The shell that it may be for.
        shell: Vec<String>,
        /// The directory that it is run in.
        dir: String,
        /// Variables of its environment.
        environment: Pairs,
    },
}

/// How far a stage is, but for its files.
#[derive(Clone, Debug)]
pub struct Scope<'a> {
    escape: char,
    globals: &'a BTreeMap<String, String>,
    given: &'a BTreeMap<String, String>,
    /// Arguments that the stage has asked for.
    arguments: BTreeMap<String, String>,
    /// The environment, in its order.
    environment: Pairs,
    /// The configuration of the container image, as container programs have it.
    config: Map<String, Value>,
    /// What is run by default was said here, and not by the base.
    has_own_command: bool,
}

impl<'a> Scope<'a> {
    /// A stage that begins with a container image's configuration.
    pub fn new(
        escape: char,
        plan: &'a Plan,
        given: &'a BTreeMap<String, String>,
        config: Map<String, Value>,
    ) -> Self {
        let strings =
            config.get("Env").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
        let environment = strings.filter_map(|text| text.split_once('=')).take(MAX_VARIABLES);
        let environment = environment.map(|(name, value)| (name.into(), value.into())).collect();
        Self {
            escape,
            globals: &plan.globals,
            given,
            arguments: BTreeMap::new(),
            environment,
            config,
            has_own_command: false,
        }
    }

    /// The configuration by now.
    pub fn config(&self) -> Map<String, Value> {
        let mut config = self.config.clone();
        if !self.environment.is_empty() {
            let pairs = self.environment.iter().map(|(name, value)| format!("{name}={value}"));
            config.insert("Env".into(), pairs.collect());
        }
        config
    }

    fn text(&self, key: &str) -> &str {
        self.config.get(key).and_then(Value::as_str).unwrap_or_default()
    }

    /// Who runs what follows; root if it is empty.
    pub fn user(&self) -> &str {
        self.text("User")
    }

    fn value(&self, name: &str) -> Option<String> {
        let own = self.environment.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
        own.or_else(|| self.arguments.get(name).cloned())
            // Programs are found without its being said.
            .or_else(|| (name == "PATH").then(|| PATH.into()))
    }

    fn expand(&self, line: usize, text: &str) -> Result<String, ParseError> {
        at(line, expand(text, self.escape, &mut |name: &str| self.value(name)))
    }

    fn all(&self, line: usize, texts: &[String]) -> Result<Vec<String>, ParseError> {
        texts.iter().map(|text| self.expand(line, text)).collect()
    }

    fn pairs(&self, line: usize, pairs: &[(String, String)]) -> Result<Pairs, ParseError> {
        // All of an instruction's have the values of before it.
        let expanded =
            pairs.iter().map(|(name, value)| Ok((self.expand(line, name)?, self.expand(line, value)?)));
        expanded.collect()
    }

    fn set(&mut self, key: &str, value: Value) {
        self.config.insert(key.into(), value);
    }

    fn add(&mut self, key: &str, names: impl IntoIterator<Item = (String, Value)>) {
        let known = self.config.entry(key).or_insert_with(|| json!({}));
        if !known.is_object() {
            *known = json!({});
        }
        if let Value::Object(known) = known {
            known.extend(names);
        }
    }

    fn command(&self, command: &Command) -> Value {
        match command {
            Command::Exec(words) => json!(words),
            Command::Shell(text) => {
                let mut words = match self.config.get("Shell").and_then(Value::as_array) {
                    Some(shell) => shell.clone(),
                    None => SHELL.map(Value::from).into(),
                };
                words.push(text.as_str().into());
                Value::Array(words)
            }
        }
    }

    /// A path from the root of the image. A slash at its end stays.
    fn path(&self, path: &str) -> String {
        let start = if path.starts_with('/') { "" } else { self.text("WorkingDir") };
        let mut parts: Vec<&str> = Vec::new();
        for part in start.split('/').chain(path.split('/')) {
            match part {
                "" | "." => {}
                ".." => drop(parts.pop()),
                part => parts.push(part),
            }
        }
        let is_directory = path.ends_with('/') || path.ends_with("/.") || path == ".";
        let end = if is_directory && !parts.is_empty() { "/" } else { "" };
        format!("/{}{end}", parts.join("/"))
    }

    /// An instruction's turn: changes the configuration, and says what is to be done to files.
    pub fn step(&mut self, Instruction { line, what, .. }: &Instruction) -> Result<Action, ParseError> {
        let line = *line;
        match what {
            What::Nothing => {}
            What::Arg(arguments) => {
                for Argument { name, value, .. } in arguments {
                    let value = match (self.given.get(name), value) {
                        (Some(value), _) => Some(value.clone()),
                        (None, Some(value)) => Some(self.expand(line, value)?),
                        (None, None) => self.globals.get(name).cloned(),
                    };
                    self.arguments.extend(value.map(|value| (name.clone(), value)));
                }
            }
            What::Env(pairs) => {
                for (name, value) in self.pairs(line, pairs)? {
                    match self.environment.iter().position(|(known, _)| *known == name) {
                        Some(at) => self.environment[at].1 = value,
                        None if self.environment.len() >= MAX_VARIABLES => {
                            let why = format!("the environment has more than {MAX_VARIABLES} variables");
                            return Err(ParseError::new(line, why));
                        }
                        None => self.environment.push((name, value)),
                    }
                }
            }
            What::Label(pairs) => {
                let pairs = self.pairs(line, pairs)?;
                self.add("Labels", pairs.into_iter().map(|(name, value)| (name, value.into())));
            }
            What::Workdir(path) => {
                let path = self.path(&self.expand(line, path)?);
                let path = if path == "/" { path } else { path.trim_end_matches('/').to_owned() };
                self.set("WorkingDir", path.as_str().into());
                return Ok(if path == "/" { Action::None } else { Action::Directory(path) });
            }
            What::User(user) => {
                let user = self.expand(line, user)?;
                self.set("User", user.into());
            }
            What::StopSignal(signal) => {
                let signal = self.expand(line, signal)?;
                self.set("StopSignal", signal.into());
            }
            What::Expose(ports) => {
                let mut known = Vec::new();
                for words in self.all(line, ports)? {
                    for port in words.split_whitespace() {
                        known.push((port_of(port).map_err(|why| ParseError::new(line, why))?, json!({})));
                    }
                }
                self.add("ExposedPorts", known);
            }
            What::Volume(paths) => {
                let paths = self.all(line, paths)?;
                self.add("Volumes", paths.into_iter().map(|path| (path, json!({}))));
            }
            What::Shell(words) => self.set("Shell", json!(words)),
            What::Cmd(command) => {
                self.set("Cmd", self.command(command));
                self.has_own_command = true;
            }
            What::Entrypoint(command) => {
                self.set("Entrypoint", self.command(command));
                // What the base image has as arguments was for its own entry point.
                if !self.has_own_command {
                    self.config.remove("Cmd");
                }
            }
            What::Copy(copy) => return Ok(Action::Copy { copy: self.copy(line, copy)?, unpacks: false }),
            What::Add(copy) => return Ok(Action::Copy { copy: self.copy(line, copy)?, unpacks: true }),
            What::Run(run) => {
                let shell = match self.config.get("Shell").and_then(Value::as_array) {
                    Some(shell) => shell.iter().filter_map(Value::as_str).map(Into::into).collect(),
                    None => SHELL.map(Into::into).into(),
                };
                let dir = match self.text("WorkingDir") {
                    "" => "/".into(),
                    dir => dir.to_owned(),
                };
                // The environment's own come last, and count.
                let arguments = self.arguments.iter().map(|(name, value)| (name.clone(), value.clone()));
                let environment = arguments.chain(self.environment.iter().cloned()).collect();
                return Ok(Action::Run { run: run.clone(), shell, dir, environment });
            }
        }
        Ok(Action::None)
    }

    fn copy(&self, line: usize, copy: &Copy) -> Result<Copy, ParseError> {
        let sources = copy.sources.iter().map(|source| {
            Ok(match source {
                CopySource::Path(path) => CopySource::Path(self.expand(line, path)?),
                CopySource::Document(document) => {
                    let mut document = document.clone();
                    if document.expands {
                        let mut value = |name: &str| self.value(name);
                        document.content = at(line, expand_document(&document.content, &mut value))?;
                    }
                    CopySource::Document(document)
                }
            })
        });
        let some = |text: &Option<String>| text.as_deref().map(|text| self.expand(line, text)).transpose();
        Ok(Copy {
            from: copy.from.clone(),
            chown: some(&copy.chown)?,
            chmod: some(&copy.chmod)?,
            exclude: self.all(line, &copy.exclude)?,
            parents: copy.parents,
            sources: sources.collect::<Result<_, _>>()?,
            to: self.path(&self.expand(line, &copy.to)?),
        })
    }
}

/// A port as it is kept: `80/tcp`. A range stays one.
fn port_of(text: &str) -> Result<String, String> {
    let (port, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = protocol.to_ascii_lowercase();
    let good = |port: &str| port.parse::<u16>().is_ok();
    let (first, last) = port.split_once('-').unwrap_or((port, port));
    match good(first) && good(last) && matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        true => Ok(format!("{port}/{protocol}")),
        false => Err(format!("`{text}` is no port; write 80, 8000-8010 or 53/udp")),
    }
}

/// Arguments of the user's that no ARG asks for, which are likely mistakes.
pub fn unused<'a>(file: &Dockerfile, given: &'a BTreeMap<String, String>) -> Vec<&'a str> {
    let in_stages = file.stages.iter().flat_map(|stage| &stage.steps).filter_map(|step| match &step.what {
        What::Arg(arguments) => Some(arguments),
        _ => None,
    });
    let asked: BTreeSet<&str> =
        in_stages.flatten().chain(&file.arguments).map(|argument| argument.name.as_str()).collect();
    let known = |name: &&str| asked.contains(name) || PROXIES.contains(&name.to_ascii_lowercase().as_str());
    given.keys().map(String::as_str).filter(|name| !known(name)).collect()
}

/// The name that a result is kept by: what it was made from, and how.
pub fn key<'a>(parts: impl IntoIterator<Item = &'a str>) -> String {
    let mut hash = Sha256::new_with_prefix(VERSION);
    for part in parts {
        // No two lists of parts give the same bytes.
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values<const N: usize>(pairs: [(&str, &str); N]) -> BTreeMap<String, String> {
        pairs.map(|(name, value)| (name.into(), value.into())).into()
    }

    fn planned(text: &str, target: Option<&str>) -> Result<Vec<(usize, Base)>, String> {
        let file = Dockerfile::new(text).unwrap();
        let plan =
            Plan::new(&file, target, &values([("given", "yes")])).map_err(|error| error.to_string())?;
        Ok(plan.stages.into_iter().map(|stage| (stage.number, stage.base)).collect())
    }

    fn image(name: &str) -> Base {
        Base::Image(name.into())
    }

    #[test]
    fn only_the_stages_that_the_target_needs_are_built() {
        let text = "FROM one AS a\nFROM two AS b\nCOPY --from=a x y\nFROM three AS c\nFROM A AS d\nCOPY --from=1 x y\n\
                    COPY --from=other x y\nFROM scratch AS e\nCOPY --from=2 x y";
        let of = |target| planned(text, target).unwrap();
        assert_eq!(of(None), [(2, image("three")), (4, Base::Scratch)]);
        assert_eq!(of(Some("D")), [(0, image("one")), (1, image("two")), (3, Base::Stage(0))]);
        assert_eq!(of(Some("0")), [(0, image("one"))]);
        let file = Dockerfile::new(text).unwrap();
        let plan = Plan::new(&file, Some("d"), &BTreeMap::new()).unwrap();
        assert_eq!(plan.stages[2].sources, BTreeMap::from([(6, Base::Stage(1)), (7, image("other"))]));
        let error = planned(text, Some("none")).unwrap_err();
        assert!(error.contains("no stage `none`") && error.contains("a, b, c, d, e"), "{error}");
    }

    #[test]
    fn bases_have_the_arguments_in_front_of_them() {
        let of = |text| planned(text, None);
        assert_eq!(of("ARG v=1\nARG w=${v}2\nFROM debian:$w").unwrap(), [(0, image("debian:12"))]);
        assert_eq!(of("ARG given=no\nFROM $given").unwrap(), [(0, image("yes"))]);
        assert_eq!(of("FROM i$TARGETARCH/x").unwrap(), [(0, image("i386/x"))]);
        // What is within a stage is not for the next one.
        assert!(of("FROM x\nARG v=1\nFROM $v").unwrap_err().contains("`$v` has no value"));
        assert_eq!(of("FROM --platform=$TARGETPLATFORM x").unwrap(), [(0, image("x"))]);
        assert!(of("FROM --platform=linux/amd64 x").unwrap_err().contains("write --platform=linux/386"));
    }

    #[test]
    fn files_come_from_earlier_stages_only() {
        let of = |text| planned(text, None).unwrap_err();
        assert!(of("FROM x AS a\nCOPY --from=a x y").contains("not before this one"));
        let later = Dockerfile::new("FROM x\nCOPY --from=b x y\nFROM y AS b").unwrap();
        let error = Plan::new(&later, Some("0"), &BTreeMap::new()).unwrap_err();
        assert!(error.to_string().contains("line 2: the stage `b` is not before"), "{error}");
        assert!(of("FROM x\nCOPY --from=7 x y").contains("not before"));
        assert!(of("FROM x\nCOPY --from=$v x y").contains("no variables"));
    }

    /// What the configuration and the actions of a stage are.
    fn run(text: &str, config: Value) -> Result<(Value, Vec<Action>), ParseError> {
        let file = Dockerfile::new(&format!("ARG glob=G\nFROM scratch\n{text}")).unwrap();
        let given = values([("given", "yes")]);
        let plan = Plan::new(&file, None, &given).unwrap();
        let Value::Object(config) = config else { panic!() };
        let mut scope = Scope::new(file.escape, &plan, &given, config);
        let actions = file.stages[0].steps.iter().map(|step| scope.step(step)).collect::<Result<_, _>>()?;
        Ok((scope.config().into(), actions))
    }

    fn config(text: &str, base: Value) -> Value {
        run(text, base).unwrap().0
    }

    #[test]
    fn instructions_change_the_configuration() {
        let text = "ENV a=1 b=$a\nENV b=${a}2 PATH=/x:$PATH\nLABEL l=\"$b c\"\nUSER u:$a\nEXPOSE 80 $a/udp 5-6\n\
                    VOLUME /v\nSTOPSIGNAL SIG$a\nCMD echo $a\nSHELL [\"/bin/bash\", \"-c\"]\nENTRYPOINT x $a\nCMD [\"$a\"]";
        assert_eq!(
            config(text, json!({"Env": ["old=0", "a=0"], "Other": 5})),
            json!({
                "Env": ["old=0", "a=1", "b=12", format!("PATH=/x:{PATH}")],
                "Other": 5,
                "Labels": {"l": "12 c"},
                "User": "u:1",
                "ExposedPorts": {"80/tcp": {}, "1/udp": {}, "5-6/tcp": {}},
                "Volumes": {"/v": {}},
                "StopSignal": "SIG1",
                "Shell": ["/bin/bash", "-c"],
                "Entrypoint": ["/bin/bash", "-c", "x $a"],
                "Cmd": ["$a"],
            })
        );
        assert_eq!(config("CMD a b", json!({})), json!({"Cmd": ["/bin/sh", "-c", "a b"]}));
        assert_eq!(config("ENTRYPOINT [\"x\"]", json!({"Cmd": ["old"]})), json!({"Entrypoint": ["x"]}));
        assert_eq!(config("LABEL a=b", json!({"Labels": null})), json!({"Labels": {"a": "b"}}));
        assert!(run("EXPOSE x", json!({})).unwrap_err().to_string().contains("line 3: `x` is no port"));
    }

    #[test]
    fn arguments_are_those_that_were_asked_for() {
        let env = |text: &str| config(text, json!({}))["Env"].clone();
        assert_eq!(env("ENV a=$given$glob."), json!(["a=."]));
        assert_eq!(
            env("ARG given=no\nARG glob\nARG own=$given-\nENV a=$given$glob$own"),
            json!(["a=yesGyes-"])
        );
        assert_eq!(env("ARG glob=own\nENV a=$glob"), json!(["a=own"]));
        // The environment comes first.
        assert_eq!(env("ENV given=env\nARG given\nENV a=$given"), json!(["given=env", "a=env"]));
        let file = Dockerfile::new("ARG a\nFROM x\nARG b=1").unwrap();
        let given = values([("a", ""), ("b", ""), ("c", ""), ("HTTP_PROXY", "")]);
        assert_eq!(unused(&file, &given), ["c"]);
    }

    #[test]
    fn paths_are_seen_from_the_working_directory() {
        let text = "WORKDIR a\nWORKDIR ../b/./c/\nCOPY x .\nCOPY x y\nADD x /z/\nWORKDIR /";
        let (config, actions) = run(text, json!({})).unwrap();
        assert_eq!(config, json!({"WorkingDir": "/"}));
        let to = |action: &Action| match action {
            Action::Directory(path) => path.clone(),
            Action::Copy { copy, unpacks } => format!("{} {unpacks}", copy.to),
            _ => String::new(),
        };
        let seen: Vec<_> = actions.iter().map(to).collect();
        assert_eq!(seen, ["/a", "/b/c", "/b/c/ false", "/b/c/y false", "/z/ true", ""]);
    }

    #[test]
    fn what_is_copied_has_its_variables() {
        let text = "ENV a=1\nCOPY --chown=$a:2 --chmod=$a --exclude=$a.o $a <<E <<'F' /$a/\n$a\nE\n$a\nF";
        let (_, actions) = run(text, json!({})).unwrap();
        let Action::Copy { copy, .. } = &actions[1] else { panic!("{actions:?}") };
        assert_eq!(copy.chown.as_deref(), Some("1:2"));
        assert_eq!(
            (copy.chmod.as_deref(), copy.exclude[0].as_str(), copy.to.as_str()),
            (Some("1"), "1.o", "/1/")
        );
        let texts = copy.sources.iter().map(|source| match source {
            CopySource::Path(path) => path.as_str(),
            CopySource::Document(document) => document.content.as_str(),
        });
        assert_eq!(texts.collect::<Vec<_>>(), ["1", "1\n", "$a\n"]);
    }

    #[test]
    fn keys_tell_all_parts_apart() {
        let keys = [key(["a", "b"]), key(["ab"]), key(["ab", ""]), key(["", "ab"]), key(["b", "a"])];
        assert_eq!(keys.iter().collect::<BTreeSet<_>>().len(), keys.len());
        assert_eq!((key(["a"]), key(["a"]).len()), (key(["a"]), 64));
    }
}
