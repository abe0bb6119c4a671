//! What a machine costs before the guest does anything: `footprint ENV86 IMAGE [ROUNDS]`
//!
//! * Start: from the start of the process to the first byte on COM1 of a ROM of ten instructions, with
//!   QEMU in turns where it is installed.
//! * Memory: what is resident when IMAGE, the demo image, shows its shell's prompt, beside the guest's
//!   own memory as far as the guest has touched it; and how much of a processor it needs to wait there.
//! * Size of the program, and of its code.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};
use std::{env, fs, io, thread};

use env86_benches::{Emulator, median};

const ROM_SIZE: usize = 64 << 10;
/// Where the code begins in the ROM, and where the processor does.
const CODE: usize = 0xff00;
const RESET: usize = 0xfff0;
/// What the ROM says.
const GREETING: &[u8] = b"86";
/// What the demo image's shell says when it waits for a command.
const PROMPT: &[u8] = b"root@env86:~# ";
/// How long the processor is watched while the guest waits.
const IDLE: Duration = Duration::from_secs(5);

/// A ROM that says something on COM1 and halts: ten instructions.
fn rom() -> Vec<u8> {
    let mut rom = vec![0xff; ROM_SIZE];
    // cli; mov dx, 3f8h; mov al, '8'; out dx, al; mov al, '6'; out dx, al; mov al, 10; out dx, al; hlt
    let code = [0xfa, 0xba, 0xf8, 0x03, 0xb0, b'8', 0xee, 0xb0, b'6', 0xee, 0xb0, b'\n', 0xee, 0xf4];
    rom[CODE..][..code.len()].copy_from_slice(&code);
    let distance = (CODE as u16).wrapping_sub(RESET as u16 + 3).to_le_bytes();
    // jmp near to the code
    rom[RESET..][..3].copy_from_slice(&[0xe9, distance[0], distance[1]]);
    rom
}

/// Seconds from the start of a command to what the ROM says.
fn start(command: &str) -> io::Result<f64> {
    let began = Instant::now();
    let mut emulator = Emulator::start(command)?;
    emulator.wait_for(GREETING)?;
    Ok(began.elapsed().as_secs_f64())
}

fn starts(env86: &str, rounds: usize) -> io::Result<()> {
    let rom_file = env::temp_dir().join(format!("env86-rom-{}.bin", std::process::id()));
    fs::write(&rom_file, rom())?;
    let rom_path = rom_file.display();
    let ours = format!("exec {env86} boot --bios {rom_path} --ttyS0 --no-console");
    let qemu = format!(
        "exec qemu-system-i386 -accel tcg -bios {rom_path} -display none -monitor none -serial stdio"
    );
    let has_qemu = Emulator::start("exec qemu-system-i386 --version")?.line()?.is_some();
    let (mut our_times, mut qemu_times) = (Vec::new(), Vec::new());
    let measured = (0..rounds).try_for_each(|_| {
        our_times.push(start(&ours)?);
        if has_qemu {
            qemu_times.push(start(&qemu)?);
        }
        Ok::<_, io::Error>(())
    });
    fs::remove_file(&rom_file)?;
    measured?;
    let ours = median(our_times);
    println!("{:<40}{:>10.1} ms", "start to the first byte of a ROM", ours * 1e3);
    if has_qemu {
        let qemu = median(qemu_times);
        println!("{:<40}{:>10.1} ms{:>10.3} of it", "the same, QEMU", qemu * 1e3, ours / qemu);
    }
    Ok(())
}

fn memory(env86: &str, image: &str) -> io::Result<()> {
    let mut emulator = Emulator::start(&format!("exec {env86} boot {image} --ttyS0 --no-console"))?;
    emulator.wait_for(PROMPT)?;
    // The prompt comes before the shell has gone to sleep.
    thread::sleep(Duration::from_secs(2));
    let (resident, guest) = resident(emulator.group())?;
    let megabytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    println!("{:<40}{:>10.1} MB", "resident at the prompt", megabytes(resident));
    println!("{:<40}{:>10.1} MB", "of that, touched by the guest", megabytes(guest));
    println!("{:<40}{:>10.1} MB", "the rest", megabytes(resident - guest));
    let before = emulator.cpu_time();
    thread::sleep(IDLE);
    let busy = emulator.cpu_time().saturating_sub(before).as_secs_f64() / IDLE.as_secs_f64();
    println!("{:<40}{:>10.2} % of a core", "waiting there", busy * 100.0);
    Ok(())
}

/// Bytes of a process that are resident: all, and those of its largest mapping, which is the
/// guest's memory.
fn resident(process: u32) -> io::Result<(u64, u64)> {
    let (mut all, mut largest, mut guest) = (0, 0, 0);
    let mut size = 0;
    for line in fs::read_to_string(format!("/proc/{process}/smaps"))?.lines() {
        let mut words = line.split_whitespace();
        let (name, value) = (words.next(), words.next().and_then(|kb| kb.parse::<u64>().ok()));
        match (name, value) {
            (Some("Size:"), Some(kb)) => size = kb << 10,
            (Some("Rss:"), Some(kb)) => {
                all += kb << 10;
                if size > largest {
                    (largest, guest) = (size, kb << 10);
                }
            }
            _ => {}
        }
    }
    Ok((all, guest))
}

fn sizes(env86: &Path) -> io::Result<()> {
    let megabytes = |bytes: u64| bytes as f64 / 1e6;
    let program = fs::read(env86)?;
    println!("{:<40}{:>10.1} MB", "the program, with line tables", megabytes(program.len() as u64));
    println!("{:<40}{:>10.1} MB", "its code", megabytes(code_size(&program).unwrap_or(0)));
    Ok(())
}

/// Bytes of an ELF file's segments that are executed.
fn code_size(elf: &[u8]) -> Option<u64> {
    const EXECUTABLE_LOAD: (u32, u32) = (1, 1);
    let u16_at = |at: usize| Some(u16::from_le_bytes(elf.get(at..at + 2)?.try_into().ok()?));
    let u32_at = |at: usize| Some(u32::from_le_bytes(elf.get(at..at + 4)?.try_into().ok()?));
    let u64_at = |at: usize| Some(u64::from_le_bytes(elf.get(at..at + 8)?.try_into().ok()?));
    // Elf64_Ehdr: e_phoff, e_phentsize, e_phnum; Elf64_Phdr: p_type, p_flags, p_filesz.
    let (first, each, count) = (u64_at(32)? as usize, usize::from(u16_at(54)?), usize::from(u16_at(56)?));
    let mut total = 0;
    for header in (0..count).map(|i| first + i * each) {
        if (u32_at(header)?, u32_at(header + 4)? & 1) == EXECUTABLE_LOAD {
            total += u64_at(header + 32)?;
        }
    }
    Some(total)
}

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let (env86, image, rounds) = match arguments.as_slice() {
        [env86, image] => (env86, image, Some(21)),
        [env86, image, rounds] => (env86, image, rounds.parse().ok()),
        _ => {
            eprintln!("usage: footprint ENV86 IMAGE [ROUNDS]");
            return ExitCode::from(2);
        }
    };
    let done = starts(env86, rounds.unwrap_or(1))
        .and_then(|()| memory(env86, image))
        .and_then(|()| sizes(&PathBuf::from(env86)));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("footprint: {error}");
            ExitCode::FAILURE
        }
    }
}
