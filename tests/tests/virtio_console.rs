//! The virtio console with the driver of a real kernel: a terminal at hvc0, in both directions, and the
//! size of its screen.

use std::io::{self, Write};
use std::time::Duration;

use env86::{Com, Ending, Image, Input, Machine, SerialPort};
use env86_tests::{BOOT_LIMIT, Failure, PROMPT, Result, image};

const SHORT: Duration = Duration::from_secs(60);

/// `seq 1 3000 | md5sum`, its beginning.
const SUM_OF_3000: &str = "ee976274";

fn failed(error: impl std::error::Error + Send + Sync + 'static) -> Failure {
    Failure::from(io::Error::other(error.to_string()))
}

fn wait(port: &mut SerialPort, text: &str) -> Result<String> {
    port.expect(text, SHORT).map_err(failed)
}

/// Boots, starts a shell on hvc0, and works with it as a person would.
#[test]
fn a_terminal_at_hvc0() -> Result<()> {
    let image = Image::open(image()?).map_err(failed)?;
    let machine = Machine::builder().image(&image).virtio_console(true).start().map_err(failed)?;
    let mut com1 = machine.serial(Com::One);
    let console = |port| machine.console(port).expect("there are three consoles");
    let (mut hvc0, mut hvc2) = (console(0), console(2));
    machine.input(Input::ConsoleSize { columns: 132, rows: 43 });
    com1.expect(PROMPT, BOOT_LIMIT).map_err(failed)?;
    com1.write_all(b"modprobe virtio_console && setsid sh -c 'exec sh -i < /dev/hvc0 > /dev/hvc0 2>&1' &\n")?;
    wait(&mut hvc0, "# ")?;

    hvc0.write_all(b"echo to-$((6 * 7)) $(tty); stty size\n")?;
    let answer = wait(&mut hvc0, "to-42 /dev/hvc0\r\n")?;
    assert!(answer.contains("echo to-$(("), "the terminal echoes: {answer:?}");
    wait(&mut hvc0, "43 132\r\n")?;

    // A change reaches the program in the foreground.
    machine.input(Input::ConsoleSize { columns: 100, rows: 30 });
    hvc0.write_all(b"sleep 1; stty size\n")?;
    wait(&mut hvc0, "30 100\r\n# ")?;

    // More than the queues hold, and all of it.
    hvc0.write_all(b"seq 1 20000 | tail -n 20000; echo en''d\n")?;
    let numbers = wait(&mut hvc0, "end\r\n")?;
    assert_eq!(numbers.lines().filter(|line| line.parse::<u32>().is_ok()).count(), 20_000);
    // It says when it reads.
    hvc0.write_all(b"stty -echo; echo re''ady; md5sum | cut -c 1-8\n")?;
    wait(&mut hvc0, "ready\r\n")?;
    for number in 1..=3000 {
        hvc0.write_all(format!("{number}\n").as_bytes())?;
    }
    hvc0.write_all(&[4])?;
    wait(&mut hvc0, SUM_OF_3000)?;

    // The last of the consoles, and Ctrl-C as a key. It comes when the shell executes the line: while the shell still reads
    // it, the key would end nothing.
    hvc0.write_all(
        b"stty echo; cat /dev/hvc2 & echo wai''ting; read word < /dev/hvc2; echo $word > /dev/hvc2\n",
    )?;
    wait(&mut hvc0, "waiting\r\n")?;
    hvc0.write_all(b"kill %1; sleep 1000\n")?;
    hvc0.write_all(&[3])?;
    hvc0.write_all(b"echo al''ive > /dev/hvc2\n")?;
    wait(&mut hvc2, "alive\r\n")?;

    hvc0.write_all(b"poweroff\n")?;
    // No one reads any more, and the guest must not wait for that.
    drop((com1, hvc0, hvc2));
    assert_eq!(machine.wait().map_err(failed)?.ending, Ending::Halted);
    Ok(())
}
