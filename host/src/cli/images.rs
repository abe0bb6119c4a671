//! The images that are here: listed, looked at, named, removed, and as files for elsewhere.

use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Subcommand;
use env86::console::flag_when_interrupted;
use env86::image::build::{Keep, Pruned, prune};
use env86::image::check::{Checked, Contents, check};
use env86::image::global::{Collected, GlobalImages, GlobalName};
use env86::image::{
    Image, ImageConfig, Watch, export, export_to, find, global_root, import, sweep_temporary,
};
use serde::Serialize;

use super::build::{RESULTS, cache_folder};
use super::progress::Bar;
use super::size::{age, parse_duration, parse_size, show_size};
use super::{CliError, Outcome, print, print_json};

/// The commands for images.
#[derive(Subcommand, Debug)]
pub enum Images {
    /// List the global images
    #[command(name = "images")]
    List {
        /// As JSON: a list of objects with the keys name, tag, link (the tag that this one leads to), path, size and
        /// shared (bytes), state (of an archive null) and made (seconds since 1970)
        #[arg(long)]
        json: bool,
    },
    /// Show what is in an image
    Inspect {
        /// As JSON: an object with the keys path, entries, bytes (of all files), contents and contents_bytes (of different
        /// ones), state (null, or a list of objects with path and bytes) and config (image.json)
        #[arg(long)]
        json: bool,
        /// The path of a directory or .tgz file, or the name of a global image, NAME[@TAG]
        image: String,
    },
    /// Remove global images
    ///
    /// A tag that is a link to another goes alone; with an image go the links to it. Without a tag, the image has to
    /// be the only one of its name. One that a machine uses stays.
    Rmi {
        /// As JSON: a list of the names that were removed
        #[arg(long)]
        json: bool,
        /// The images, NAME[@TAG]
        #[arg(required = true)]
        name: Vec<String>,
    },
    /// Give an image one more name, with the same contents
    Tag {
        /// Replace the image that has the name
        #[arg(short, long)]
        force: bool,
        /// Print an object with the keys name and path
        #[arg(long)]
        json: bool,
        /// The path of a directory or .tgz file, or the name of a global image, NAME[@TAG]
        image: String,
        /// The name; without a tag it is called `local`
        #[arg(value_name = "NAME[@TAG]")]
        name: String,
    },
    /// Write an image to a .tgz file, which `import`, `boot` and web servers take
    Export {
        /// Print an object with the keys path and bytes
        #[arg(long)]
        json: bool,
        /// The path of a directory or .tgz file, or the name of a global image, NAME[@TAG]
        image: String,
        /// The file, which is replaced; `-` is standard output
        #[arg(allow_hyphen_values = true)]
        file: PathBuf,
    },
    /// Make a global image of a .tgz file
    Import {
        /// Replace the image that has the name
        #[arg(short, long)]
        force: bool,
        /// Refuse an image whose files have more bytes
        #[arg(long, value_name = "SIZE", value_parser = parse_size, default_value = "16G")]
        max_size: u64,
        /// Print an object with the keys name and path
        #[arg(long)]
        json: bool,
        /// The file; `-` is standard input
        #[arg(allow_hyphen_values = true)]
        file: PathBuf,
        /// The name; without a tag it is called `local`
        #[arg(value_name = "NAME[@TAG]")]
        name: String,
    },
    /// Free the room of what no global image needs
    ///
    /// That is what commands that were killed have left behind, downloads that broke off and no one goes on with, and
    /// contents that their image does not name. Of what builds keep, that goes which was not used for long, and then
    /// what was used longest ago. Images stay, and what a machine or a build uses is left alone.
    Gc {
        /// Keep results of builds that were used so long ago
        #[arg(long, value_name = "TIME", value_parser = parse_duration, default_value = "30d")]
        build_age: Duration,
        /// Keep so much of what builds have kept
        #[arg(long, value_name = "SIZE", value_parser = parse_size, default_value = "10G")]
        build_size: u64,
        /// As JSON: an object with the keys unfinished (bytes), contents and contents_bytes; and results,
        /// results_bytes and results_left (bytes) of builds, which are null while one is at work
        #[arg(long)]
        json: bool,
    },
    /// Look for damage: contents that are missing, cut off or not what their names say
    Verify {
        /// As JSON: a list of objects with the keys image, compared (contents), unnamed (those with names that say no
        /// hash), unused, and problems (a list of what is wrong)
        #[arg(long)]
        json: bool,
        /// The paths of directories or .tgz files, or the names of global images, NAME[@TAG]
        #[arg(required = true)]
        image: Vec<String>,
    },
}

impl Images {
    /// Does it.
    pub fn run(self) -> Result<Outcome, CliError> {
        let interrupt = Arc::new(AtomicBool::new(false));
        let watched = |what: &mut dyn FnMut(&Watch) -> Result<(), CliError>| {
            flag_when_interrupted(&interrupt)?;
            let bar = Bar::new();
            let done = what(&Watch { progress: &bar, interrupt: &interrupt });
            bar.clear();
            done
        };
        match self {
            Self::List { json } => list(json)?,
            Self::Inspect { json, image } => inspect(&Image::open_arg(&image)?, json)?,
            Self::Rmi { json, name } => remove(&name, json)?,
            Self::Tag { force, json, image, name } => {
                let (image, name) = (Image::open_arg(&image)?, GlobalName::new(&name)?);
                watched(&mut |watch| {
                    let path = GlobalImages::new()?.tag(&image, &name, force, watch)?;
                    if json { print_json(&Named::new(&name, &path)) } else { Ok(()) }
                })?;
            }
            Self::Export { json, image, file } => {
                if json && file == Path::new("-") {
                    return Err(
                        "The archive goes to standard output; name a file, or leave out --json".into()
                    );
                }
                let image = Image::open_arg(&image)?;
                watched(&mut |watch| write(&image, &file, watch))?;
                if json {
                    let bytes = file.metadata().map_or(0, |meta| meta.len());
                    print_json(&StateFile { path: file.display().to_string(), bytes })?;
                }
            }
            Self::Import { force, max_size, json, file, name } => {
                let name = GlobalName::new(&name)?;
                watched(&mut |watch| {
                    let what = format!("`{}`", file.display());
                    let from: Box<dyn Read> = match file == Path::new("-") {
                        true => Box::new(io::stdin()),
                        false => {
                            let file =
                                File::open(&file).map_err(|error| format!("Cannot read {what}: {error}"))?;
                            watch.progress.total(file.metadata()?.len());
                            Box::new(file)
                        }
                    };
                    let images = GlobalImages::new()?;
                    let path = import(&images, &name, force, (&what, from), max_size, watch)?;
                    if json { print_json(&Named::new(&name, &path)) } else { Ok(()) }
                })?;
            }
            Self::Gc { build_age: age, build_size: bytes, json } => {
                watched(&mut |watch| collect(Keep { age, bytes }, json, watch))?;
            }
            Self::Verify { json, image } => {
                let mut found = Vec::new();
                for image in image {
                    watched(&mut |watch| {
                        let path = find(&image, global_root().as_deref())?;
                        let checked = check(&Image::open(path)?, watch)?;
                        if !json {
                            tell(&image, &checked)?;
                        }
                        found.push(Verified::new(&image, &checked));
                        Ok(())
                    })?;
                }
                if json {
                    print_json(&found)?;
                }
                return Ok(Outcome(if found.iter().all(|one| one.problems.is_empty()) { 0 } else { 1 }));
            }
        }
        Ok(Outcome::SUCCESS)
    }
}

/// An image of the list, for programs.
#[derive(Serialize)]
struct Row {
    name: String,
    tag: Option<String>,
    link: Option<String>,
    path: String,
    size: u64,
    shared: u64,
    state: Option<bool>,
    made: u64,
}

fn list(json: bool) -> Result<(), CliError> {
    let rows = GlobalImages::new()?.list()?.into_iter().map(|image| Row {
        name: image.name.name,
        tag: image.name.tag,
        link: image.link,
        path: image.path.display().to_string(),
        size: image.size.bytes,
        shared: image.size.shared,
        state: image.has_state,
        made: image.made,
    });
    let rows: Vec<_> = rows.collect();
    if json {
        return print_json(&rows);
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let tag = |row: &Row| {
        let link = row.link.as_ref().map(|to| format!(" -> {to}")).unwrap_or_default();
        format!("{}{link}", row.tag.as_deref().unwrap_or_default())
    };
    let widest = |of: &dyn Fn(&Row) -> usize, least: usize| rows.iter().map(of).max().unwrap_or(0).max(least);
    let name_width = widest(&|row| row.name.chars().count(), 4);
    let tag_width = widest(&|row| tag(row).chars().count(), 3);
    let mut text = format!(
        "{:name_width$}  {:tag_width$}  {:>8}  {:>8}  {:5}  {:>8}\n",
        "NAME", "TAG", "SIZE", "SHARED", "STATE", "MADE"
    );
    for row in &rows {
        let state = match row.state {
            Some(true) => "yes",
            Some(false) => "no",
            None => "?",
        };
        let (size, shared) = (show_size(row.size), show_size(row.shared));
        let age = age(now.saturating_sub(row.made));
        text += &format!(
            "{:name_width$}  {:tag_width$}  {size:>8}  {shared:>8}  {state:5}  {age:>8}\n",
            row.name,
            tag(row)
        );
    }
    print(text.as_bytes())?;
    Ok(())
}

/// What is in an image, for programs.
#[derive(Serialize)]
struct Inspected<'a> {
    path: String,
    /// Files, directories and what else has an inode.
    entries: u64,
    /// Bytes of the files.
    bytes: u64,
    /// Different contents, and their bytes.
    contents: u64,
    contents_bytes: u64,
    state: Option<Vec<StateFile>>,
    config: &'a ImageConfig,
}

#[derive(Serialize)]
struct StateFile {
    path: String,
    bytes: u64,
}

fn inspect(image: &Image, json: bool) -> Result<(), CliError> {
    let contents = Contents::of(image)?;
    let file = |path: PathBuf| StateFile {
        bytes: path.metadata().map_or(0, |meta| meta.len()),
        path: path.strip_prefix(image.dir()).unwrap_or(&path).display().to_string(),
    };
    let found = Inspected {
        path: image.path().display().to_string(),
        entries: contents.entries,
        bytes: contents.bytes,
        contents: contents.blobs.len() as u64,
        contents_bytes: contents.blobs.values().sum(),
        state: image.state_files()?.map(|files| files.into_iter().map(file).collect()),
        config: &image.config,
    };
    if json {
        return print_json(&found);
    }
    let config = &image.config;
    let mut text = format!("path:      {}\n", found.path);
    text += &format!(
        "files:     {} entries, {} in {} different contents\n",
        found.entries,
        show_size(found.bytes),
        found.contents
    );
    let state = match &found.state {
        None => "no".into(),
        Some(files) => {
            let bytes = files.iter().map(|file| file.bytes).sum();
            let first = files.first().map(|file| file.path.as_str()).unwrap_or_default();
            format!("{first}, {}", show_size(bytes))
        }
    };
    text += &format!("state:     {state}\n");
    let kernel = match (&config.bzimage, config.bzimage_initrd_from_filesystem) {
        (Some(file), _) => file.url.clone().unwrap_or_default(),
        (None, true) => "from the files".into(),
        (None, false) => "no".into(),
    };
    text += &format!("kernel:    {kernel}\n");
    text += &format!("cmdline:   {}\n", config.cmdline.as_deref().unwrap_or_default());
    text += &format!("guest86:   {}\n", if config.has_guest_service { "yes" } else { "no" });
    for (key, file) in config.files().filter(|(key, _)| *key != "bzimage") {
        text += &format!("{:10} {}\n", format!("{key}:"), file.url.as_deref().unwrap_or_default());
    }
    print(text.as_bytes())?;
    Ok(())
}

/// What was removed, for programs.
#[derive(Serialize)]
struct Freed {
    unfinished: u64,
    contents: u64,
    contents_bytes: u64,
    results: Option<u64>,
    results_bytes: Option<u64>,
    results_left: Option<u64>,
}

fn collect(keep: Keep, json: bool, watch: &Watch) -> Result<(), CliError> {
    let Collected { unfinished, contents, contents_bytes } = GlobalImages::new()?.collect(watch)?;
    let unfinished = unfinished + sweep_temporary();
    let pruned = prune(&cache_folder(RESULTS)?, keep, watch)?;
    if json {
        let freed = Freed {
            unfinished,
            contents,
            contents_bytes,
            results: pruned.map(|pruned| pruned.results),
            results_bytes: pruned.map(|pruned| pruned.bytes),
            results_left: pruned.map(|pruned| pruned.left),
        };
        return print_json(&freed);
    }
    let mut text = format!(
        "{} of what was never finished, and {contents} contents of {} that no image needs, were removed\n",
        show_size(unfinished),
        show_size(contents_bytes)
    );
    text += &match pruned {
        Some(Pruned { results, bytes, left }) => format!(
            "{results} results of builds were removed, which frees {}; {} stay\n",
            show_size(bytes),
            show_size(left)
        ),
        None => "A build is at work: what builds keep stays\n".into(),
    };
    print(text.as_bytes())?;
    Ok(())
}

/// A global image, for programs.
#[derive(Serialize)]
struct Named {
    name: String,
    path: String,
}

impl Named {
    fn new(name: &GlobalName, path: &Path) -> Self {
        Self { name: name.clone().or_local().to_string(), path: path.display().to_string() }
    }
}

/// Removes images, and says which they were, those before an error, too.
fn remove(names: &[String], json: bool) -> Result<(), CliError> {
    let images = GlobalImages::new()?;
    let mut all: Vec<String> = Vec::new();
    let mut removed = Ok(());
    for name in names {
        match GlobalName::new(name).and_then(|name| images.remove(&name)) {
            Ok(some) => all.extend(some.iter().map(ToString::to_string)),
            Err(error) => {
                removed = Err(error.into());
                break;
            }
        }
    }
    if json {
        print_json(&all)?;
    } else {
        print(all.iter().map(|name| format!("{name}\n")).collect::<String>().as_bytes())?;
    }
    removed
}

/// Writes an archive of an image, whole or not at all.
fn write(image: &Image, file: &Path, watch: &Watch) -> Result<(), CliError> {
    if file == Path::new("-") {
        let stdout = io::stdout();
        if stdout.is_terminal() {
            return Err("The archive would go to the terminal; name a file, or pipe it somewhere".into());
        }
        export(image, stdout.lock(), watch).map_err(|error| format!("Cannot export the image: {error}"))?;
        stdout.lock().flush()?;
        return Ok(());
    }
    export_to(image, file, watch).map_err(|error| format!("Cannot write `{}`: {error}", file.display()))?;
    Ok(())
}

/// What a check of an image has found, for programs.
#[derive(Serialize)]
struct Verified {
    image: String,
    compared: u64,
    unnamed: u64,
    unused: u64,
    problems: Vec<String>,
}

impl Verified {
    fn new(image: &str, checked: &Checked) -> Self {
        let problems = checked.problems.iter().map(ToString::to_string).collect();
        let Checked { compared, unnamed, unused, .. } = *checked;
        Self { image: image.into(), compared, unnamed, unused, problems }
    }
}

/// Says what is wrong with an image.
fn tell(arg: &str, checked: &Checked) -> Result<(), CliError> {
    for problem in &checked.problems {
        eprintln!("env86: {arg}: {problem}");
    }
    let mut text = format!("{arg}: {} contents are what their names say", checked.compared);
    if checked.unnamed > 0 {
        text += &format!(", {} have other names", checked.unnamed);
    }
    if checked.unused > 0 {
        text += &format!(", {} are not used", checked.unused);
    }
    if !checked.problems.is_empty() {
        text = format!("{arg}: damaged in {} places; copy or make it again", checked.problems.len());
    }
    print(format!("{text}\n").as_bytes())?;
    Ok(())
}
