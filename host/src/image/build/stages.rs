//! The stages of a build, one after the other.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Instant;

use serde_json::{Map, Value, json};

use super::cache::Cache;
use super::context::Context;
use super::copy::{Failure, Selection, Source};
use super::first::{first, put, take_out};
use super::parse::{Copy, Dockerfile, Instruction};
use super::plan::{Action, Base, Plan, Planned, Scope, key};
use super::resolver::Resolver;
use super::run::{self, NotRun};
use super::tree::{Listed, Tree};
use super::{Build, BuildError, Event, ParseError};
use crate::guest::Exec;
use crate::image::create::store::{self, Hashed};
use crate::image::create::{Made, Options, SHELL, Summary, fill, has_kernel};
use crate::image::{Held, Image, ImageConfig, container};

/// The key of nothing.
const NOTHING: &str = "scratch";
/// Digits of a content's name that are all there are.
const WHOLE: usize = 64;

/// Files as they are after an instruction.
#[derive(Clone, Debug)]
struct Files {
    key: String,
    /// Not read until it is needed.
    tree: Option<Tree>,
}

impl Files {
    fn tree(&mut self, cache: &Cache) -> Result<&mut Tree, BuildError> {
        let tree = match self.tree.take() {
            Some(tree) => tree,
            None => cache.load(&self.key)?,
        };
        Ok(self.tree.insert(tree))
    }
}

/// What a stage has given, or an image that was built upon.
#[derive(Clone, Debug)]
struct Outcome {
    files: Files,
    /// The container's configuration.
    config: Map<String, Value>,
    /// The image that is at the bottom.
    machine: Option<Image>,
}

/// The stages of a build.
pub struct Stages<'a> {
    build: &'a Build<'a>,
    file: &'a Dockerfile,
    plan: &'a Plan,
    context: &'a Context,
    cache: &'a Cache<'a>,
    /// What there is by now.
    made: BTreeMap<Base, Outcome>,
    /// Images that are not to be removed meanwhile.
    held: Vec<Held>,
    /// Steps that were told of.
    count: usize,
}

impl<'a> Stages<'a> {
    /// Stages, of which none is built.
    pub fn new(
        build: &'a Build<'a>,
        file: &'a Dockerfile,
        plan: &'a Plan,
        context: &'a Context,
        cache: &'a Cache<'a>,
    ) -> Self {
        Self { build, file, plan, context, cache, made: BTreeMap::new(), held: Vec::new(), count: 0 }
    }

    fn wrong(&self, source: ParseError) -> BuildError {
        BuildError::Dockerfile { path: self.build.dockerfile.clone(), source }
    }

    fn begin(&mut self, name: &str) -> (usize, Instant) {
        self.count += 1;
        (self.build.tell)(Event::Begun(self.count, name));
        (self.count, Instant::now())
    }

    fn done(&self, (number, start): (usize, Instant)) {
        (self.build.tell)(Event::Done(number, start.elapsed()));
    }

    /// Builds all that the target needs.
    pub fn run(&mut self) -> Result<(), BuildError> {
        for planned in &self.plan.stages {
            let made = self.stage(planned)?;
            self.made.insert(Base::Stage(planned.number), made);
        }
        Ok(())
    }

    /// What a stage begins with, or copies from.
    fn base(&mut self, base: &Base, line: usize, shown: &str) -> Result<Outcome, BuildError> {
        if let Some(made) = self.made.get(base) {
            return Ok(made.clone());
        }
        let Base::Image(name) = base else {
            let files = Files { key: NOTHING.into(), tree: Some(Tree::default()) };
            return Ok(Outcome { files, config: Map::new(), machine: None });
        };
        let step = self.begin(shown);
        let bases = self.cache.bases(self.build.anew)?;
        let image = (self.build.open)(name, &bases).map_err(|source| BuildError::Base {
            path: self.build.dockerfile.clone(),
            line,
            name: name.clone(),
            source,
        })?;
        self.held.push(image.hold()?);
        let (key, tree) = self.cache.image(&image)?;
        let config = container::own(&image.config).cloned().unwrap_or_default();
        let made = Outcome { files: Files { key, tree: Some(tree) }, config, machine: Some(image) };
        self.made.insert(base.clone(), made.clone());
        self.done(step);
        Ok(made)
    }

    fn stage(&mut self, planned: &Planned) -> Result<Outcome, BuildError> {
        let file = self.file;
        let stage = &file.stages[planned.number];
        let name = match &stage.name {
            Some(name) => name.clone(),
            None => format!("stage-{}", planned.number),
        };
        // Only what takes its time is told of: what else there is changes the configuration at once.
        let total = 1 + stage.steps.len();
        let shown = format!("[{name} 1/{total}] FROM {}", stage.base);
        let mut made = self.base(&planned.base, stage.line, &shown)?;
        let mut scope =
            Scope::new(file.escape, self.plan, &self.build.arguments, std::mem::take(&mut made.config));
        for (at, step) in stage.steps.iter().enumerate() {
            let user = scope.user().to_owned();
            let action = scope.step(step).map_err(|error| self.wrong(error))?;
            let shown = format!("[{name} {}/{total}] {}", at + 2, step.text);
            match action {
                Action::None => {}
                Action::Run { run, shell, dir, environment } => {
                    let wrong = |why| ParseError::new(step.line, why);
                    let words = run::words(&run, &shell).map_err(|why| self.wrong(wrong(why)))?;
                    let mut words = words.into_iter();
                    let exec = Exec {
                        program: words.next().unwrap_or_default(),
                        args: words.collect(),
                        env: environment,
                        env_clear: false,
                        dir: Some(dir),
                        user: Some(user).filter(|user| !user.is_empty()),
                        terminal: None,
                    };
                    self.command(&shown, step, &mut made, exec, run::has_network(&run))?;
                }
                Action::Directory(path) => {
                    let key = key([made.files.key.as_str(), "directory", &path, &user]);
                    self.step(&shown, step, &mut made.files, key, |tree, cache| {
                        if let Ok(Ok(there)) = tree.find(&path, true)
                            && tree.0.directory(there).is_ok()
                        {
                            return Ok(());
                        }
                        let read = |base: &env86_devices::fs::Base| {
                            fs::read_to_string(cache.blob(&base.blob)).map_err(|error| error.to_string())
                        };
                        let owner = tree.owner(&user, read)?;
                        tree.directory(&path, owner)?;
                        Ok(())
                    })?;
                }
                Action::Copy { copy, unpacks } => {
                    self.copy(
                        &shown,
                        step,
                        &mut made.files,
                        planned.sources.get(&step.line),
                        &copy,
                        unpacks,
                    )?;
                }
            }
        }
        made.config = scope.config();
        Ok(made)
    }

    /// Runs a command in a machine that has the files so far, which it changes.
    fn command(
        &mut self,
        shown: &str,
        step: &Instruction,
        made: &mut Outcome,
        exec: Exec,
        network: bool,
    ) -> Result<(), BuildError> {
        // What the machine is belongs to it, but for the kernel's own files.
        let machine = made.machine.as_ref().map(|image| {
            let mut config = image.config.clone();
            config.other.remove(container::KEY);
            config
        });
        let how = (&exec.program, &exec.args, &exec.env, &exec.dir, &exec.user);
        let how = json!([how, network, machine]).to_string();
        let key = key([made.files.key.as_str(), "run", &how]);
        let (build, base) = (self.build, made.machine.clone());
        let number = self.count + 1;
        self.step(shown, step, &mut made.files, key, |tree, cache| {
            let place = cache.place("machine");
            fs::create_dir(&place).map_err(BuildError::write(&place))?;
            let files = Files { key: String::new(), tree: Some(tree.clone()) };
            let image = Outcome { files, config: Map::new(), machine: base };
            let (_, lent) = image.fill(build, cache, &place, Purpose::Command)?;
            let image = Image::open(&place).map_err(BuildError::from)?;
            let tell = |bytes: &[u8]| (build.tell)(Event::Output(number, bytes));
            let resolver = Resolver::of(tree);
            let ran = run::run(&image, exec, network, build, cache, &tell);
            // What cannot be removed goes with the folder that it is in.
            let _ = fs::remove_dir_all(&place);
            *tree = ran.map_err(|error| match error {
                NotRun::Line(why) => Failure::Line(why),
                NotRun::Build(error) => Failure::Build(error),
            })?;
            if let Some(init) = lent {
                take_out(tree, init)?;
            }
            resolver.put_back(tree)?;
            Ok(())
        })
    }

    fn copy(
        &mut self,
        shown: &str,
        step: &Instruction,
        files: &mut Files,
        from: Option<&Base>,
        copy: &Copy,
        unpacks: bool,
    ) -> Result<(), BuildError> {
        let other = match from {
            Some(base) => {
                let shown = format!("FROM {}", copy.from.as_deref().unwrap_or_default());
                let mut other = self.base(base, step.line, &shown)?;
                other.files.tree(self.cache)?;
                other.files.tree
            }
            None => None,
        };
        let source = match &other {
            Some(tree) => Source::Tree(tree),
            None => Source::Context(self.context),
        };
        let failed = |failure| match failure {
            Failure::Line(why) => self.wrong(ParseError::new(step.line, why)),
            Failure::Build(error) => error,
        };
        let selection = Selection::new(source, copy, &self.build.options).map_err(failed)?;
        let parts = selection.parts().map_err(failed)?;
        let what = if unpacks { "add" } else { "copy" };
        let key = key([files.key.as_str(), what].into_iter().chain(parts.iter().map(String::as_str)));
        self.step(shown, step, files, key, |tree, cache| selection.apply(tree, cache, unpacks))
    }

    /// Does what changes files, or takes what is kept of it.
    fn step(
        &mut self,
        shown: &str,
        step: &Instruction,
        files: &mut Files,
        key: String,
        change: impl FnOnce(&mut Tree, &Cache) -> Result<(), Failure>,
    ) -> Result<(), BuildError> {
        let begun = self.begin(shown);
        if !self.build.anew && self.cache.has(&key) {
            *files = Files { key, tree: None };
            (self.build.tell)(Event::Cached(begun.0));
            return Ok(());
        }
        self.build.options.check_interrupt()?;
        let tree = files.tree(self.cache)?;
        change(tree, self.cache).map_err(|failure| match failure {
            Failure::Line(why) => self.wrong(ParseError::new(step.line, why)),
            Failure::Build(error) => error,
        })?;
        self.cache.save(&key, tree)?;
        files.key = key;
        self.done(begun);
        Ok(())
    }

    /// Makes what is in the target's image.
    pub fn fill(&self, folder: &Path) -> Result<Summary, BuildError> {
        let target = self.plan.stages.last().and_then(|last| self.made.get(&Base::Stage(last.number)));
        let Some(target) = target else {
            return Err(BuildError::Tree { why: "There is nothing to build".into() });
        };
        Ok(target.clone().fill(self.build, self.cache, folder, Purpose::Image)?.0)
    }
}

/// What an image is filled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    /// To run a command of the build in a machine of it.
    Command,
    /// To be what is built.
    Image,
}

impl Outcome {
    /// The image at the bottom has a kernel.
    fn has_kernel(&self) -> bool {
        let config = self.machine.as_ref().map(|image| &image.config);
        config.is_some_and(|config| config.bzimage.is_some() || config.bzimage_initrd_from_filesystem)
    }

    /// Makes what is in an image. Gives what the kernel is told of a guest86 that was put there, too.
    fn fill(
        mut self,
        build: &Build,
        cache: &Cache,
        folder: &Path,
        purpose: Purpose,
    ) -> Result<(Summary, Option<&'static str>), BuildError> {
        let tree = self.files.tree(cache)?;
        let mut config = ImageConfig::default();
        if let Some(image) = &self.machine {
            config = image.config.clone();
            // A machine that was saved has the files of before.
            (config.initial_state, config.initial_state_parts) = (None, None);
            if build.kernel.is_none() {
                copy_files(image, folder)?;
            }
        }
        let init = first(tree, &mut config);
        let has_guest = config.has_guest_service || init.is_some_and(|init| init != SHELL);
        let guest = match purpose {
            Purpose::Command => build.service.as_ref().filter(|_| !has_guest),
            // As an image has it that is made of a container.
            Purpose::Image => build.guest.as_ref().filter(|guest| {
                let is_container = self.machine.is_none() || container::is_one(&config);
                guest.is_always() || is_container && !has_guest && !container::starts_init(&self.config)
            }),
        };
        let lent = guest.map(|guest| put(tree, guest, cache)).transpose()?;
        let Listed { entries, contents, visits, count } =
            tree.list().map_err(|why| BuildError::Tree { why })?;
        // What the commands have installed is what the image is meant to start.
        let installed = purpose == Purpose::Image && !self.has_kernel() && has_kernel(&entries);
        if let Some(kernel) = build.kernel.as_ref().filter(|_| !installed) {
            kernel.put(folder, &mut config)?;
        }
        if let Value::Object(own) = config.other.entry(container::KEY).or_insert_with(|| json!({})) {
            own.insert("config".into(), self.config.into());
        }
        let (init, has_guest) = (lent.or(init), has_guest || lent.is_some());
        // Contents of a machine are known by their whole names afterwards.
        let hash_digits = if purpose == Purpose::Command { WHOLE } else { build.options.hash_digits };
        let options = Options { interrupt: build.options.interrupt, hash_digits, ..Options::default() };
        let hashed: Vec<Hashed> =
            contents.into_iter().map(|base| Hashed { hash: base.blob.into(), size: base.size }).collect();
        let filled = fill(folder, config, |dir| {
            let blobs = store::link(&hashed, |hash| cache.blob(hash), dir, &options)?;
            Ok(Made { entries, visits, blobs, count, sockets: 0, attributes: 0, init, has_guest })
        })?;
        Ok((filled, lent))
    }
}

/// Copies the kernels, ROMs and disks that an image has beside its files.
fn copy_files(image: &Image, folder: &Path) -> Result<(), BuildError> {
    for (key, file) in image.config.files() {
        for from in image.files_of_ref(key, file)? {
            let Ok(below) = from.strip_prefix(image.dir()) else { continue };
            let to = folder.join(below);
            if let Some(parent) = to.parent() {
                fs::create_dir_all(parent).map_err(BuildError::write(parent))?;
            }
            fs::copy(&from, &to).map_err(BuildError::read(&from))?;
        }
    }
    Ok(())
}
