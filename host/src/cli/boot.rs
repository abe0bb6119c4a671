//! `env86 boot`: a machine in the foreground.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use clap::Args;
use env86::console::log::Log;
use env86::console::script::{Script, ScriptError};
use env86::console::session::{self, Cause, Ended, Options, SaveTo, SessionError, WriteTo};
use env86::console::terminal;
#[cfg(feature = "window")]
use env86::console::window::{Options as WindowOptions, Window, WindowError};
use env86::image::Image;
use env86::machine::Layout;
use env86::machine::{Com, Ending, Machine, MachineBuilder, Recording, Report};
#[cfg(unix)]
pub use env86::named::{Place, Served};
#[cfg(feature = "sound")]
use env86::sound::Output;
use env86::sound::{Listener, Recorder};

use super::kernel::KernelFlags;
use super::size::{parse_boot_order, parse_layout, parse_port, parse_size};
use super::{CliError, Outcome, open_machines_image};
#[cfg(not(unix))]
use nameless::{Place, Served};

/// Boot a machine from an image or a kernel, or one that tests itself.
///
/// Without anything to start, the machine tests itself and shows on its screen and on COM1 what works; Esc ends it, with
/// status 0, or 1 if something does not work.
#[derive(Args, Debug)]
pub struct Boot {
    /// An image: the path of a directory or .tgz file, the name of a global image, NAME[@TAG], or one of a registry,
    /// HOST/NAME:TAG, which is pulled if it is not here
    image: Option<String>,

    /// Boot anew, even if the image holds a saved state
    #[arg(long)]
    cold: bool,

    /// At the end, save the machine to the image, to be resumed by the next boot; not if the guest
    /// switches the power off
    #[arg(long, requires = "image", conflicts_with = "save_state")]
    save: bool,

    /// Resume this saved state of env86 or v86, compressed or not
    #[arg(long, value_name = "FILE", conflicts_with_all = ["cold", "kernel", "initrd", "bios", "memory", "acpi"])]
    state: Option<PathBuf>,

    /// At the end, save the machine to this file; compressed if its name ends in .zst
    #[arg(long, value_name = "FILE")]
    save_state: Option<PathBuf>,

    /// COM1 is this terminal, or stdin and stdout; Ctrl-D ends the machine
    #[arg(long = "ttyS0")]
    serial: bool,

    /// Open no window
    #[arg(long)]
    no_console: bool,

    /// The machine's screen and keyboard are this terminal; Ctrl-] shows the keys that are the terminal's own
    #[arg(long, conflicts_with_all = ["serial", "deterministic"])]
    tty: bool,

    /// What the guest takes its keyboard for, for what is typed with --tty and pasted there or into the window: us,
    /// uk, de or fr
    #[arg(long, value_name = "LAYOUT", default_value = "us", value_parser = parse_layout)]
    layout: Layout,

    /// The window does not give the machine the keyboard
    #[arg(long)]
    no_keyboard: bool,

    /// The window does not give the machine the mouse
    #[arg(long)]
    no_mouse: bool,

    /// Points of the window for each dot of the machine's picture
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=16))]
    scale: u32,

    /// The window fills the screen
    #[arg(long)]
    fullscreen: bool,

    /// Show the VGA's own modes with square dots, and not 4 to 3, as a monitor does; Ctrl-Alt-A in the window
    /// changes it
    #[arg(long)]
    square_pixels: bool,

    /// End when COM1 has sent this text
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    exit_on: Option<String>,

    /// Guest memory, such as 512M or 1G
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    memory: Option<u64>,

    #[command(flatten)]
    kernel: KernelFlags,

    /// Add this to the kernel's command line
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    append: Option<String>,

    /// A BIOS ROM of 64 to 256 KiB. It starts the Linux kernel that is given, or the image's, before anything else
    #[arg(long, value_name = "FILE")]
    bios: Option<PathBuf>,

    /// A video BIOS ROM, instead of the image's
    #[arg(long, value_name = "FILE")]
    vga_bios: Option<PathBuf>,

    /// The machine tests itself, with the disks that it is given, as it does without anything to start
    #[arg(long, conflicts_with_all = ["image", "state", "kernel", "initrd", "bios", "vga_bios", "boot", "debug_exit"])]
    self_test: bool,

    /// The image of the first hard disk, or a device. It is only read: what the guest writes is gone at
    /// the end, or in the saved state, unless --persist is given
    #[arg(long, value_name = "FILE")]
    hda: Option<PathBuf>,

    /// The image of the second hard disk
    #[arg(long, value_name = "FILE")]
    hdb: Option<PathBuf>,

    /// The image of the third hard disk, in the place that the CD-ROM drive has else
    #[arg(long, value_name = "FILE")]
    hdc: Option<PathBuf>,

    /// The image of the fourth hard disk; beside a third one there is no CD-ROM drive
    #[arg(long, value_name = "FILE")]
    hdd: Option<PathBuf>,

    /// The image of a disk that the guest reaches by virtio, which is faster
    #[arg(long, value_name = "FILE")]
    virtio_disk: Option<PathBuf>,

    /// Keep what the guest writes to its hard and floppy disks in their images, which no other machine may
    /// use then
    #[arg(long, conflicts_with = "deterministic")]
    persist: bool,

    /// Keep what the guest writes to its first hard disk in this file, beside the image, which is only read
    /// and must not change
    #[arg(long, value_name = "FILE", conflicts_with = "deterministic")]
    overlay: Option<PathBuf>,

    /// The image in the CD-ROM drive
    #[arg(long, value_name = "FILE")]
    cdrom: Option<PathBuf>,

    /// The floppy disk in drive A, of up to 2.88 MB
    #[arg(long, value_name = "FILE")]
    fda: Option<PathBuf>,

    /// The floppy disk in drive B
    #[arg(long, value_name = "FILE")]
    fdb: Option<PathBuf>,

    /// The order in which a BIOS tries its boot devices: a (floppy), c (hard disk), d (CD-ROM), n (network)
    #[arg(long, value_name = "ORDER", value_parser = parse_boot_order)]
    boot: Option<u16>,

    /// I/O APIC, local APIC and ACPI power management on the board, or not; else as the image says
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    acpi: Option<bool>,

    #[cfg(feature = "net")]
    #[command(flatten)]
    net: super::net::Net,

    /// A guest's write to this port ends the program with the value as exit status
    #[arg(long, value_name = "PORT", value_parser = parse_port)]
    debug_exit: Option<u16>,

    /// Write what the guest sends to the debug ports E9h and 402h to this file; `-` is stdout
    #[arg(long, value_name = "FILE")]
    debug_console: Option<PathBuf>,

    /// A parallel port (378h) with a printer, which writes to this file; `-` is stdout
    #[arg(long, value_name = "FILE")]
    lpt: Option<PathBuf>,

    /// End, instead of starting again, at a reset; a triple fault is an error then
    #[arg(long)]
    no_reboot: bool,

    /// Repeat exactly: time is the number of instructions, chance comes from a seed, and what is typed
    /// is all of stdin, read before the start. Prints the number of instructions and the state's hash
    #[arg(long)]
    #[cfg_attr(feature = "net", arg(conflicts_with_all = ["net", "net_join"]))]
    deterministic: bool,

    /// Do the steps of this script at the machine, and end; `-` reads them from stdin
    #[arg(long, value_name = "FILE", conflicts_with = "deterministic")]
    script: Option<PathBuf>,

    /// Show the machine in pages of browsers, too, and print their address; only this computer can come there unless
    /// another address is given, and only who knows the token in it
    #[cfg(feature = "net")]
    #[arg(long, value_name = "ADDRESS:PORT", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    #[arg(value_parser = super::pages::parse_place, conflicts_with = "deterministic")]
    console_url: Option<super::pages::Place>,

    /// Write what the screen shows at the end to this file, as PNG
    #[arg(long, value_name = "FILE")]
    screenshot: Option<PathBuf>,

    /// Record the screen to this file, as an animated GIF of ten frames a second
    #[arg(long, value_name = "FILE", conflicts_with = "deterministic")]
    record: Option<PathBuf>,

    /// Record what the machine plays to this WAV file, from the first sound on
    #[arg(long, value_name = "FILE")]
    audio_file: Option<PathBuf>,

    /// The host's loudspeakers stay silent
    #[arg(long)]
    no_audio: bool,

    /// Print what the machine did, to stderr, at the end
    #[arg(long)]
    stats: bool,

    /// The machine's name, by which other commands reach it: `env86 exec NAME COMMAND`
    #[cfg(unix)]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
}

/// Machines have no names where there are no Unix sockets.
#[cfg(not(unix))]
mod nameless {
    use std::path::PathBuf;

    use env86::image::Image;
    use env86::machine::Machine;

    /// No place.
    pub enum Place {}

    /// No machine answers.
    pub enum Served {}

    impl Place {
        pub fn log(&self) -> PathBuf {
            match *self {}
        }

        pub fn serve(self, _: &Machine, _: Option<Image>) -> Result<Served, std::io::Error> {
            match self {}
        }
    }
}

impl Boot {
    /// Runs the machine to its end. One that has nothing to start tests itself.
    pub fn run(mut self) -> Result<Outcome, CliError> {
        self.self_test |= self.starts_nothing();
        #[cfg(unix)]
        let place = self.name().map(|name| Place::take(name, self.origin())).transpose()?;
        #[cfg(not(unix))]
        let place = None;
        self.run_at(place, |_| Ok(()))
    }

    /// Nothing is named that a machine can be started from, or that goes with it.
    fn starts_nothing(&self) -> bool {
        let files = [
            &self.state,
            &self.kernel.kernel,
            &self.kernel.initrd,
            &self.bios,
            &self.vga_bios,
            &self.hda,
            &self.hdb,
            &self.hdc,
            &self.hdd,
            &self.virtio_disk,
            &self.cdrom,
            &self.fda,
            &self.fdb,
        ];
        self.image.is_none() && self.boot.is_none() && files.into_iter().all(Option::is_none)
    }

    /// The machine's name.
    #[cfg(unix)]
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// A flag that is given, and that a machine in the background can do nothing with.
    #[cfg(unix)]
    pub fn needs_a_terminal(&self) -> Option<&'static str> {
        let script = self.script.is_some();
        let flags = [
            (self.serial, "--ttyS0"),
            (self.tty, "--tty"),
            (self.deterministic, "--deterministic"),
            (script, "--script"),
        ];
        flags.into_iter().find_map(|(given, flag)| given.then_some(flag))
    }

    /// There is no one at the machine's screen.
    #[cfg(unix)]
    pub fn without_console(&mut self) {
        self.no_console = true;
    }

    /// What the machine is started from.
    #[cfg(unix)]
    pub fn origin(&self) -> &Path {
        let image = self.image.as_deref().map(Path::new);
        let files = [
            &self.kernel.kernel,
            &self.bios,
            &self.state,
            &self.hda,
            &self.cdrom,
            &self.fda,
            &self.virtio_disk,
        ];
        let file = || files.into_iter().find_map(|path| path.as_deref());
        image.or_else(file).unwrap_or(Path::new(""))
    }

    /// The same with a name, perhaps; tells `ready` when the machine can be reached by it.
    pub fn run_at(
        self,
        place: Option<Place>,
        ready: impl FnOnce(&mut Served) -> Result<(), CliError>,
    ) -> Result<Outcome, CliError> {
        let image = self.image.as_deref().map(open_machines_image).transpose()?;
        let exit_on = self.exit_on.clone().filter(|text| !text.is_empty()).map(String::into_bytes);
        let input = if self.deterministic && self.serial { typed()? } else { Vec::new() };
        let recording = self.deterministic.then(|| Recording::typed(input, exit_on.clone()));
        let mut builder = self.builder(image.as_ref(), recording)?;
        let sound = self.audio_file.as_deref().map(record_sound).transpose()?;
        let (sound, listener) = sound.unzip();
        builder = listener.into_iter().fold(builder, MachineBuilder::sound);
        #[cfg(feature = "sound")]
        if self.at_a_desk() && !self.no_audio {
            builder = Output::open().into_iter().fold(builder, MachineBuilder::sound);
        }
        let resumed = builder.state_files()?.is_some();
        let debug =
            self.debug_console.as_deref().map(|path| written_to(path, "the debug console")).transpose()?;
        let printer = self.lpt.as_deref().map(|path| written_to(path, "what is printed")).transpose()?;
        let record = self.record.as_deref().map(create).transpose()?;
        let script = self.script.as_deref().map(Script::open).transpose()?;
        #[cfg(feature = "net")]
        let pages = self.pages(image.as_ref())?;
        // Without a display there is nothing to build a machine for.
        #[cfg(feature = "window")]
        let window = self.window(image.as_ref())?;
        let log = place.as_ref().map(|place| create_log(&place.log())).transpose()?;
        let machine = builder.start()?;
        // Its listeners are the machine's now.
        drop(builder);
        #[cfg(feature = "net")]
        {
            self.net.say_ports(&machine);
            pages.iter().for_each(super::pages::say_addresses);
        }
        #[cfg(not(feature = "window"))]
        if !self.serial && !self.tty && !self.no_console && script.is_none() {
            eprintln!(
                "env86: this build has no window; the machine runs without one, Ctrl-D or Ctrl-C ends it \
                 (--tty makes this terminal its screen, --ttyS0 its serial line)"
            );
        }
        if resumed && self.serial && !self.deterministic && terminal::stdin_is_terminal() {
            // The shell shows its prompt again.
            machine.serial(Com::One).try_write(b"\n")?;
        }
        // Dropped when the machine has ended, which gives the name back.
        let mut served = place.map(|place| place.serve(&machine, image.clone())).transpose()?;
        served.as_mut().map_or(Ok(()), ready)?;
        let save = match (self.save_state, image.filter(|_| self.save)) {
            (Some(path), _) => Some(SaveTo::File(path)),
            (None, image) => image.map(|image| SaveTo::Image(Box::new(image))),
        };
        let place = save.as_ref().map(|save| match save {
            SaveTo::File(path) => path.clone(),
            SaveTo::Image(image) => image.path().into(),
        });
        let options = Options {
            serial: self.serial,
            log,
            input: !self.deterministic,
            screen: self.tty,
            layout: self.layout,
            // A recording's end is known to the machine.
            exit_on: exit_on.filter(|_| !self.deterministic),
            save,
            debug,
            printer,
            screenshot: self.screenshot,
            record,
            sound,
            script,
            #[cfg(feature = "net")]
            pages,
            #[cfg(feature = "window")]
            window,
        };
        let Ended { cause, report, saved } = session::run(machine, options).inspect_err(show_screen)?;
        match cause {
            Cause::CtrlD => eprint!("\r\nCtrl-D detected. Exiting...\r\n"),
            Cause::Pattern => eprint!("\r\nExit pattern detected. Exiting...\r\n"),
            Cause::Machine(_) | Cause::Script | Cause::Window | Cause::Terminal | Cause::Signal(_) => {}
        }
        if let (Some(place), Some(size)) = (place, saved) {
            eprintln!("env86: the machine is saved in {} ({size} bytes)", place.display());
        }
        if let Some(digest) = report.digest {
            eprintln!("env86: {} instructions, state {digest:016x}", report.cpu.instructions);
        }
        if self.stats {
            print_stats(&report);
        }
        Ok(Outcome(match cause {
            Cause::Machine(Ending::DebugExit(value)) => value as u8,
            Cause::Signal(number) => session::exit_status(number),
            Cause::Machine(_)
            | Cause::CtrlD
            | Cause::Pattern
            | Cause::Script
            | Cause::Window
            | Cause::Terminal => 0,
        }))
    }

    /// There is another way to the machine than its window.
    #[cfg(feature = "window")]
    fn is_at_hand(&self) -> bool {
        let in_pages = false;
        #[cfg(feature = "net")]
        let in_pages = in_pages || self.console_url.is_some_and(|place| place.0.is_some());
        self.serial || self.script.is_some() || in_pages
    }

    /// What the machine is called where it is shown: its image, or its file.
    #[cfg(any(feature = "net", feature = "window"))]
    fn title(&self, image: Option<&Image>) -> String {
        let path = [
            image.map(Image::path),
            self.kernel.kernel.as_deref(),
            self.bios.as_deref(),
            self.state.as_deref(),
        ];
        let name = path.into_iter().flatten().find_map(Path::file_stem).unwrap_or_default();
        name.to_string_lossy().into_owned()
    }

    /// The port at which pages show the machine, if they are to.
    #[cfg(feature = "net")]
    fn pages(&self, image: Option<&Image>) -> Result<Option<env86::console::pages::Pages>, CliError> {
        let Some(listen) = self.console_url.and_then(|place| place.0) else { return Ok(None) };
        let run = super::pages::Run {
            no_console: self.no_console,
            tty: self.serial,
            cold: self.cold,
            save: self.save,
            exit_on: self.exit_on.as_deref(),
            network: self.net.connected(),
        };
        let config = super::pages::config(image, self.memory, &run)?;
        let (keyboard, mouse) = (!self.no_keyboard, !self.no_mouse);
        super::pages::open(listen, self.title(image), config, keyboard, mouse).map(Some)
    }

    /// The window, unless there is to be none. A machine whose serial line is at hand, or a script, goes on
    /// without one where there is no display.
    #[cfg(feature = "window")]
    fn window(&self, image: Option<&Image>) -> Result<Option<Window>, CliError> {
        if self.no_console || self.tty || self.deterministic {
            return Ok(None);
        }
        let options = WindowOptions {
            name: self.title(image),
            scale: self.scale,
            fullscreen: self.fullscreen,
            square: self.square_pixels,
            keyboard: !self.no_keyboard,
            mouse: !self.no_mouse,
            layout: self.layout,
        };
        match Window::open(options) {
            Ok(window) => Ok(Some(window)),
            Err(WindowError::NoDisplay(_)) if self.is_at_hand() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// A person is at the machine's screen, and hears it.
    #[cfg(feature = "sound")]
    fn at_a_desk(&self) -> bool {
        !self.no_console && !self.deterministic
    }

    /// The machine that was asked for.
    fn builder(
        &self,
        image: Option<&Image>,
        recording: Option<Recording>,
    ) -> Result<MachineBuilder, CliError> {
        let mut builder =
            Machine::builder().append(append(self.append.clone(), self.serial && !self.deterministic));
        if let Some(image) = image {
            builder = builder.image(image);
        }
        if self.cold {
            builder = builder.cold();
        }
        type Set = fn(MachineBuilder, PathBuf) -> MachineBuilder;
        let files: [(&Option<PathBuf>, Set); 12] = [
            (&self.state, MachineBuilder::state),
            (&self.bios, MachineBuilder::bios),
            (&self.virtio_disk, MachineBuilder::virtio_disk),
            (&self.hda, MachineBuilder::hda),
            (&self.hdb, MachineBuilder::hdb),
            (&self.hdc, MachineBuilder::hdc),
            (&self.hdd, MachineBuilder::hdd),
            (&self.cdrom, MachineBuilder::cdrom),
            (&self.fda, MachineBuilder::fda),
            (&self.fdb, MachineBuilder::fdb),
            (&self.vga_bios, MachineBuilder::vga_bios),
            (&self.overlay, MachineBuilder::overlay),
        ];
        for (path, set) in files {
            if let Some(path) = path {
                builder = set(builder, path.clone());
            }
        }
        builder = self.kernel.add_to(builder)?;
        if self.self_test {
            builder = builder.self_test();
        }
        if self.persist {
            builder = builder.persist();
        }
        if let Some(bytes) = self.memory {
            builder = builder.memory(bytes);
        }
        if let Some(order) = self.boot {
            builder = builder.boot_order(order);
        }
        if let Some(fitted) = self.acpi {
            builder = builder.acpi(fitted);
        }
        #[cfg(feature = "net")]
        {
            builder = self.net.add_to(builder, true);
        }
        if let Some(port) = self.debug_exit {
            builder = builder.debug_exit(port);
        }
        if self.debug_console.is_some() {
            builder = builder.debug_console();
        }
        if self.lpt.is_some() {
            builder = builder.printer();
        }
        if let Some(recording) = recording {
            builder = builder.recording(recording);
        }
        Ok(if self.no_reboot { builder.no_restart() } else { builder })
    }
}

/// What was on the screen when a step of a script failed.
fn show_screen(error: &SessionError) {
    if let SessionError::Script(ScriptError::Step { screen, .. }) = error {
        eprintln!("env86: the screen at the step that failed:\n{screen}");
    }
}

/// Makes a file that is written to while the machine runs.
fn create(path: &Path) -> Result<File, CliError> {
    File::create(path).map_err(|error| format!("Cannot write `{}`: {error}", path.display()).into())
}

/// Where what COM1 says is kept.
fn create_log(path: &Path) -> Result<Log, CliError> {
    Log::create(path).map_err(|error| format!("Cannot write `{}`: {error}", path.display()).into())
}

/// A recording of the machine's sound.
fn record_sound(path: &Path) -> Result<(Recorder, Listener), CliError> {
    Recorder::create(path).map_err(|error| format!("Cannot write `{}`: {error}", path.display()).into())
}

/// Where that goes what a guest only writes.
fn written_to(path: &Path, what: &str) -> Result<WriteTo, CliError> {
    if path == Path::new("-") {
        return Ok(WriteTo::Stdout);
    }
    let file = File::create(path)
        .map_err(|error| format!("Cannot write {what} to `{}`: {error}", path.display()))?;
    Ok(WriteTo::File(file))
}

/// All of standard input, unless a person is there.
fn typed() -> Result<Vec<u8>, CliError> {
    let mut bytes = Vec::new();
    if !terminal::stdin_is_terminal() {
        io::stdin().read_to_end(&mut bytes)?;
    }
    Ok(bytes)
}

/// What the user adds to the kernel's command line, and the size of the terminal, which a serial
/// line cannot tell: a login script finds it in `/proc/cmdline` and gives it to `stty`.
fn append(text: Option<String>, serial: bool) -> String {
    let size = terminal::size().filter(|_| serial && terminal::stdin_is_terminal());
    let size = size.map(|size| format!("env86.tty={}x{}", size.rows, size.columns));
    [text, size].into_iter().flatten().collect::<Vec<_>>().join(" ")
}

/// Figures for people who care about speed.
fn print_stats(report: &Report) {
    let (cpu, busy) = (&report.cpu, report.busy.as_secs_f64());
    let mips = if busy > 0.0 { cpu.instructions as f64 / busy / 1e6 } else { 0.0 };
    eprintln!("instructions        {:>16}", cpu.instructions);
    eprintln!("guest MIPS          {mips:>16.1}");
    eprintln!("wall time           {:>16.3} s", report.wall.as_secs_f64());
    eprintln!("executing           {busy:>16.3} s");
    eprintln!("exits to the driver {:>16}", cpu.exits);
    eprintln!("interrupts          {:>16}", cpu.interrupts);
    eprintln!("entries of level 3  {:>16}", cpu.user_entries);
    eprintln!("TLB misses          {:>16}", cpu.tlb_misses);
    eprintln!("TLB flushes         {:>16}", cpu.tlb_flushes);
    eprintln!("blocks looked up    {:>16}", cpu.block_lookups);
    eprintln!("blocks decoded      {:>16}", cpu.blocks_decoded);
    eprintln!("blocks invalidated  {:>16}", cpu.blocks_invalidated);
    eprintln!("restarts            {:>16}", report.resets);
}
