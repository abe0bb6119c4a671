//! Container images by Docker or Podman, where one of them is at work.

use std::fmt;
use std::io::{self, Read};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use serde_json::{Map, Value, json};
use tar::{Builder, Header};
use thiserror::Error;

use super::ImageConfig;
use super::container::KEY;
use super::create::{CreateError, Layer, Options, Summary, from_layers, new_place, staged};
use super::kernel::{Kernel, KernelError};

/// The programs that do it.
const PROGRAMS: [&str; 2] = ["docker", "podman"];
/// What machines are.
const PLATFORM: &str = "--platform=linux/386";
/// What is kept of how a container is run.
const KEPT: [&str; 9] =
    ["Cmd", "Entrypoint", "Env", "ExposedPorts", "Labels", "StopSignal", "User", "Volumes", "WorkingDir"];
/// What Docker puts into each container for itself: a layer takes it away again.
const OWN_FILE_GONE: &str = ".wh..dockerenv";

/// Why there is no image.
#[derive(Debug, Error)]
pub enum DockerError {
    /// The program cannot be run.
    #[error("Cannot run {program}")]
    Run {
        /// The program.
        program: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// The program does not do it.
    #[error("{program} cannot {what}: {said}")]
    Failed {
        /// The program.
        program: &'static str,
        /// What.
        what: String,
        /// What it says.
        said: String,
    },
    /// The kernel.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The image.
    #[error(transparent)]
    Create(#[from] CreateError),
}

/// A program that has container images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Engine(&'static str);

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl Engine {
    /// The one that is at work here. One that is there and cannot do anything, since it has no server, is not.
    pub fn find() -> Option<Self> {
        PROGRAMS.into_iter().map(Self).find(|engine| {
            let mut command = engine.command(&["ps", "--quiet"]);
            command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
        })
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(self.0);
        command.args(words).stdin(Stdio::null());
        command
    }

    fn failed(&self, what: &str, output: &Output) -> DockerError {
        let said = String::from_utf8_lossy(&output.stderr);
        let said = said.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("nothing");
        DockerError::Failed {
            program: self.0,
            what: what.into(),
            said: said.trim().escape_debug().to_string(),
        }
    }

    fn run(&self, what: &str, words: &[&str]) -> Result<Vec<u8>, DockerError> {
        let output = self.command(words).output();
        let output = output.map_err(|source| DockerError::Run { program: self.0, source })?;
        if output.status.success() { Ok(output.stdout) } else { Err(self.failed(what, &output)) }
    }

    /// Makes the image directory `image` of a container image that it has or can get.
    pub fn create(
        &self,
        name: &str,
        kernel: Option<&Kernel>,
        image: &Path,
        options: &Options,
    ) -> Result<Summary, DockerError> {
        new_place(image)?;
        let what = format!("make a container of {name}");
        let made = match self.run(&what, &["create", PLATFORM, name]) {
            // One that says no command of its own has to be given one, which is never run.
            Err(DockerError::Failed { said, .. }) if said.contains("no command") => {
                self.run(&what, &["create", PLATFORM, name, "sh"])?
            }
            made => made?,
        };
        // There may be other lines, of what was pulled.
        let id = String::from_utf8_lossy(&made).trim().rsplit('\n').next().unwrap_or_default().to_owned();
        let container = Container { engine: *self, id };
        let said = self.run(
            "say how the container is run",
            &["inspect", "--type", "container", "--format", "{{json .Config}}", &container.id],
        )?;
        let own: Map<String, Value> = serde_json::from_slice(&said).unwrap_or_default();
        let own: Map<String, Value> =
            own.into_iter().filter(|(key, value)| KEPT.contains(&key.as_str()) && !value.is_null()).collect();
        let starts_init = super::container::starts_init(&own);
        let mut config = ImageConfig::default();
        config.other.insert(KEY.into(), json!({ "image": name, "config": own }));
        let options = Options {
            guest: options.guest.filter(|guest| guest.is_always() || !starts_init),
            ..options.clone()
        };
        staged(image, &options.watch(), |folder| {
            if let Some(kernel) = kernel {
                kernel.put(folder, &mut config)?;
            }
            let mut command = self.command(&["export", &container.id]);
            let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
            let mut child = Running(child.map_err(|source| DockerError::Run { program: self.0, source })?);
            let files: Box<dyn Read> = match child.0.stdout.take() {
                Some(out) => Box::new(options.watch().read(out)),
                None => Box::new(io::empty()),
            };
            let gone = whiteout(OWN_FILE_GONE).map_err(CreateError::write(folder))?;
            let layers = [
                Layer { from: files, what: format!("What {self} exports"), sum: None },
                Layer { from: Box::new(io::Cursor::new(gone)), what: "The layer".into(), sum: None },
            ];
            let filled = from_layers(layers.into_iter(), folder, config, &options);
            let output = child.end().map_err(|source| DockerError::Run { program: self.0, source })?;
            match filled {
                // It says itself why there is no more.
                Err(CreateError::Tar { .. }) | Ok(_) if !output.status.success() => {
                    Err(self.failed("export the container", &output))
                }
                filled => Ok(filled?),
            }
        })
    }

    /// Builds a container image of a Dockerfile in its folder, and makes the image directory `image` of it.
    pub fn build(
        &self,
        dockerfile: &Path,
        kernel: Option<&Kernel>,
        image: &Path,
        options: &Options,
    ) -> Result<Summary, DockerError> {
        new_place(image)?;
        let folder = super::staging::parent_of(dockerfile);
        // Others may be at it.
        let name = format!("env86-build-{}", std::process::id());
        let mut command = self.command(&["build", PLATFORM, "--tag", &name, "--file"]);
        // It tells the user itself what it does; standard output is for programs.
        let status = command.arg(dockerfile).arg(folder).stdout(Stdio::null()).status();
        let status = status.map_err(|source| DockerError::Run { program: self.0, source })?;
        if !status.success() {
            let what = format!("build `{}`", dockerfile.display());
            return Err(DockerError::Failed { program: self.0, what, said: "see above".into() });
        }
        let made = self.create(&name, kernel, image, options);
        // The layers stay in its cache, if they are kept at all.
        let _ = self.run("remove the image", &["rmi", &name]);
        made
    }
}

/// A container that is removed with this.
struct Container {
    engine: Engine,
    id: String,
}

impl Drop for Container {
    fn drop(&mut self) {
        // It was never started, and is in nobody's way.
        let _ = self.engine.run("remove the container", &["rm", "--force", &self.id]);
    }
}

/// A program that does not outlive this.
struct Running(Child);

impl Running {
    /// Waits for its end, which comes at once where no one reads what it writes.
    fn end(&mut self) -> io::Result<Output> {
        let mut stderr = Vec::new();
        if let Some(from) = &mut self.0.stderr {
            from.read_to_end(&mut stderr)?;
        }
        Ok(Output { status: self.0.wait()?, stdout: Vec::new(), stderr })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A layer with one empty file.
fn whiteout(name: &str) -> io::Result<Vec<u8>> {
    let mut builder = Builder::new(Vec::new());
    let mut header = Header::new_ustar();
    header.set_size(0);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    builder.append_data(&mut header, name, io::empty())?;
    builder.into_inner()
}
