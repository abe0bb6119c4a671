//! The virtio console with the driver of a real kernel: a terminal at hvc0, in both directions, and the
//! size of its screen.

use std::time::{Duration, Instant};

use env86::image::Image;
use env86::machine::{Config, Ending, Event, Machine};
use env86_tests::{BOOT_LIMIT, Failure, PROMPT, Result, image};

const SHORT: Duration = Duration::from_secs(60);

/// `seq 1 3000 | md5sum`, its beginning.
const SUM_OF_3000: &str = "ee976274";

/// A machine with what its lines have printed.
struct Lines {
    machine: Machine,
    serial: String,
    console: [String; 4],
}

impl Lines {
    /// Takes events until a line has printed `text`; what came before it is forgotten with it.
    fn wait(&mut self, line: fn(&mut Self) -> &mut String, text: &str, limit: Duration) -> Result<String> {
        let deadline = Instant::now() + limit;
        loop {
            let printed = line(self);
            if let Some(at) = printed.find(text) {
                return Ok(printed.drain(..at + text.len()).collect());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            match self.machine.events().recv_timeout(left) {
                Ok(Event::Serial(bytes)) => self.serial.push_str(&String::from_utf8_lossy(&bytes)),
                Ok(Event::Console(port, bytes)) => {
                    self.console[usize::from(port)].push_str(&String::from_utf8_lossy(&bytes));
                }
                Ok(_) => {}
                Err(error) => {
                    return Err(Failure::from(std::io::Error::other(format!(
                        "no {text:?}: {error}\nCOM1: {}\nhvc: {:?}",
                        self.serial, self.console
                    ))));
                }
            }
        }
    }

    fn serial(&mut self) -> &mut String {
        &mut self.serial
    }

    fn hvc0(&mut self) -> &mut String {
        &mut self.console[0]
    }

    fn hvc3(&mut self) -> &mut String {
        &mut self.console[3]
    }

    fn type_serial(&self, text: &str) {
        assert!(self.machine.serial_input().send(text.as_bytes()));
    }

    fn type_console(&self, port: u8, text: &str) {
        let input = self.machine.console_input(port).expect("the console has four ports");
        assert!(input.send(text.as_bytes()));
    }
}

/// Boots, starts a shell on hvc0, and works with it as a person would.
#[test]
fn a_terminal_at_hvc0() -> Result<()> {
    let image = Image::open(image()?).map_err(|error| std::io::Error::other(error.to_string()))?;
    let config = Config { image: Some(image), virtio_console: Some(true), ..Config::default() };
    let machine = Machine::start(&config).map_err(|error| std::io::Error::other(error.to_string()))?;
    let mut lines = Lines { machine, serial: String::new(), console: Default::default() };
    lines.machine.set_console_size(132, 43);
    lines.wait(Lines::serial, PROMPT, BOOT_LIMIT)?;
    lines
        .type_serial("modprobe virtio_console && setsid sh -c 'exec sh -i < /dev/hvc0 > /dev/hvc0 2>&1' &\n");
    lines.wait(Lines::hvc0, "# ", SHORT)?;

    lines.type_console(0, "echo to-$((6 * 7)) $(tty); stty size\n");
    let answer = lines.wait(Lines::hvc0, "to-42 /dev/hvc0\r\n", SHORT)?;
    assert!(answer.contains("echo to-$(("), "the terminal echoes: {answer:?}");
    lines.wait(Lines::hvc0, "43 132\r\n", SHORT)?;

    // A change reaches the program in the foreground.
    lines.machine.set_console_size(100, 30);
    lines.type_console(0, "sleep 1; stty size\n");
    lines.wait(Lines::hvc0, "30 100\r\n# ", SHORT)?;

    // More than the queues hold, and all of it.
    lines.type_console(0, "seq 1 20000 | tail -n 20000; echo en''d\n");
    let numbers = lines.wait(Lines::hvc0, "end\r\n", SHORT)?;
    assert_eq!(numbers.lines().filter(|line| line.parse::<u32>().is_ok()).count(), 20_000);
    lines.type_console(0, "stty -echo; md5sum | cut -c 1-8\n");
    std::thread::sleep(Duration::from_secs(2));
    for number in 1..=3000 {
        lines.type_console(0, &format!("{number}\n"));
    }
    lines.type_console(0, "\u{4}");
    lines.wait(Lines::hvc0, SUM_OF_3000, SHORT)?;

    // The last of the four ports, and Ctrl-C as a key.
    lines.type_console(0, "stty echo; cat /dev/hvc3 & read word < /dev/hvc3; echo $word > /dev/hvc3\n");
    lines.type_console(0, "kill %1; sleep 1000\n");
    lines.type_console(0, "\u{3}");
    lines.type_console(0, "echo al''ive > /dev/hvc3\n");
    lines.wait(Lines::hvc3, "alive\r\n", SHORT)?;

    lines.type_console(0, "poweroff\n");
    lines.machine.events().iter().for_each(drop);
    let report = lines.machine.wait().map_err(|error| std::io::Error::other(error.to_string()))?;
    assert_eq!(report.ending, Ending::Halted);
    Ok(())
}
