//! A program for Linux on the i386 that plays a signal through ALSA's PCM device, with no library: the demo
//! image has none for sound. The test compiles it.
//!
//! Its argument is not looked at. Its exit status is 0, or the number of the step that failed.
#![no_std]
#![no_main]

mod signal;

use core::arch::{asm, global_asm};
use core::panic::PanicInfo;

use signal::{RATE, SAMPLES, Signal};

// `call(number, a, b, c)`: a system call. The kernel gives its answer in EAX.
global_asm!(
    ".globl _start",
    "_start: and esp, -16",
    "call play",
    "mov ebx, eax",
    "mov eax, 1",
    "int 0x80",
    ".globl call",
    "call: push ebx",
    "mov eax, [esp + 8]",
    "mov ebx, [esp + 12]",
    "mov ecx, [esp + 16]",
    "mov edx, [esp + 20]",
    "int 0x80",
    "pop ebx",
    "ret",
);

unsafe extern "C" {
    fn call(number: u32, a: u32, b: u32, c: u32) -> i32;
}

const OPEN: u32 = 5;
const IOCTL: u32 = 54;
const IOPL: u32 = 110;

const WRITE_ONLY: u32 = 1;

// <sound/asound.h>
const PCM_HW_PARAMS: u32 = 0xc25c_4111;
const PCM_PREPARE: u32 = 0x4140;
const PCM_DRAIN: u32 = 0x4144;
const PCM_WRITE_FRAMES: u32 = 0x400c_4150;
const MASKS: usize = 3 + 5;
const MASK_ACCESS: usize = 0;
const MASK_FORMAT: usize = 1;
const ACCESS_INTERLEAVED: u32 = 3;
const FORMAT_S16_LE: u32 = 2;
const INTERVALS: usize = 12 + 9;
const INTERVAL_CHANNELS: usize = 10 - 8;
const INTERVAL_RATE: usize = 11 - 8;
const INTERVAL_INTEGER: u32 = 4;

#[repr(C)]
struct HwParams {
    flags: u32,
    masks: [[u32; 8]; MASKS],
    /// From, to, flags.
    intervals: [[u32; 3]; INTERVALS],
    requested: u32,
    rest: [u32; 6 + 16],
}

#[repr(C)]
struct Transfer {
    result: i32,
    frames: *const [i16; 2],
    count: u32,
}

static mut PARAMS: HwParams = HwParams {
    flags: 0,
    masks: [[u32::MAX; 8]; MASKS],
    intervals: [[0, u32::MAX, 0]; INTERVALS],
    requested: u32::MAX,
    rest: [0; 22],
};
static mut FRAMES: [[i16; 2]; SAMPLES] = [[0; 2]; SAMPLES];

/// Sets a volume of the card, which its driver leaves at the least.
unsafe fn volume(register: u8) {
    unsafe {
        asm!("out dx, al", in("dx") 0x224u16, in("al") register);
        asm!("out dx, al", in("dx") 0x225u16, in("al") 0xf8u8);
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn play() -> i32 {
    unsafe {
        let pcm = call(OPEN, c"/dev/snd/pcmC0D0p".as_ptr() as u32, WRITE_ONLY, 0);
        if pcm < 0 {
            return 1;
        }
        let params = &raw mut PARAMS;
        (*params).masks[MASK_ACCESS] = [1 << ACCESS_INTERLEAVED, 0, 0, 0, 0, 0, 0, 0];
        (*params).masks[MASK_FORMAT] = [1 << FORMAT_S16_LE, 0, 0, 0, 0, 0, 0, 0];
        (*params).intervals[INTERVAL_CHANNELS] = [2, 2, INTERVAL_INTEGER];
        (*params).intervals[INTERVAL_RATE] = [RATE, RATE, INTERVAL_INTEGER];
        if call(IOCTL, pcm as u32, PCM_HW_PARAMS, params as u32) < 0 {
            return 2;
        }
        if call(IOCTL, pcm as u32, PCM_PREPARE, 0) < 0 {
            return 3;
        }
        if call(IOPL, 3, 0, 0) < 0 {
            return 4;
        }
        (0x30..0x34).for_each(|register| volume(register));
        let (frames, mut signal) = (&raw mut FRAMES, Signal::new());
        for at in 0..SAMPLES {
            let sample = signal.sample();
            // The other side is upside down and half as loud.
            (*frames)[at] = [sample, -(sample / 2)];
        }
        let mut transfer = Transfer { result: 0, frames: frames as *const [i16; 2], count: SAMPLES as u32 };
        if call(IOCTL, pcm as u32, PCM_WRITE_FRAMES, &raw mut transfer as u32) < 0 {
            return 5;
        }
        if transfer.result != SAMPLES as i32 {
            return 6;
        }
        if call(IOCTL, pcm as u32, PCM_DRAIN, 0) < 0 { 7 } else { 0 }
    }
}

#[panic_handler]
fn panic(_: &PanicInfo) -> ! {
    loop {}
}
