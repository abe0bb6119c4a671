//! Runs cases on the host's processor.
//!
//! Linux lets a 64-bit process enter 32-bit code by naming its code segment, and a signal frame
//! holds every register. So a case is entered by returning from a signal with the case's registers
//! in the frame, and left by the signal that its exception becomes; nothing here depends on what
//! the instruction under test does to registers or memory.

#![allow(unsafe_code)]

use std::arch::asm;
use std::io;
use std::ptr;
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use libc::{c_int, c_void, siginfo_t, ucontext_t};

use crate::layout::{BYTES, Image, PAGE, REGIONS};
use crate::segments::LDT;
use crate::state::{End, Fx, Outcome, Regs};

const SIGNALS: [c_int; 6] =
    [libc::SIGSEGV, libc::SIGILL, libc::SIGFPE, libc::SIGTRAP, libc::SIGBUS, libc::SIGALRM];
const ALTERNATE_STACK: usize = 64 << 10;
/// Ticks of the watchdog until a case counts as hanging.
const PATIENCE: u32 = 4;
const TICK_MICROSECONDS: libc::suseconds_t = 250_000;
/// The function of modify_ldt(2) that writes one entry.
const WRITE_LDT: c_int = 0x11;
const ARCH_SET_FS: usize = 0x1002;
const ARCH_GET_FS: usize = 0x1003;
/// In the software bytes of a frame's FXSAVE image: an XSAVE header follows the image.
const FP_XSTATE_MAGIC1: u32 = 0x4650_5853;
/// General registers of a signal frame in the order of x86's register numbers.
const ORDER: [c_int; 8] = [
    libc::REG_RAX,
    libc::REG_RCX,
    libc::REG_RDX,
    libc::REG_RBX,
    libc::REG_RSP,
    libc::REG_RBP,
    libc::REG_RSI,
    libc::REG_RDI,
];

const IDLE: u32 = 0;
const ENTER: u32 = 1;
const RUN: u32 = 2;

static PHASE: AtomicU32 = AtomicU32::new(IDLE);
static TICKS: AtomicU32 = AtomicU32::new(0);
static OWNER: AtomicI32 = AtomicI32::new(0);
/// One case at a time: addresses and signal handlers belong to the process.
static LOCK: Mutex<()> = Mutex::new(());
/// What `run` and the handler exchange; the handler's while PHASE is not IDLE.
static mut EXCHANGE: Exchange = Exchange { regs: None, saved: [0; 23], fs_base: 0, end: End::Hang };

struct Exchange {
    regs: Option<Regs>,
    saved: [i64; 23],
    fs_base: usize,
    end: End,
}

/// The host's processor by maker, family, model and stepping, and its own name.
pub fn name() -> String {
    use std::arch::x86_64::__cpuid;
    const BRAND: std::ops::RangeInclusive<u32> = 0x8000_0002..=0x8000_0004;
    let text = |registers: &[u32]| {
        let bytes: Vec<u8> = registers.iter().flat_map(|r| r.to_le_bytes()).filter(|b| *b != 0).collect();
        String::from_utf8_lossy(&bytes).trim().to_owned()
    };
    let vendor = __cpuid(0);
    let signature = __cpuid(1).eax;
    // SDM volume 2, CPUID: the extended family and model count from family 15 and 6 on.
    let (family, model) = (signature >> 8 & 0xf, signature >> 4 & 0xf);
    let extended_model = if matches!(family, 6 | 0xf) { signature >> 12 & 0xf0 } else { 0 };
    let extended_family = if family == 0xf { signature >> 20 & 0xff } else { 0 };
    let brand = if __cpuid(0x8000_0000).eax >= *BRAND.end() {
        text(&BRAND.map(__cpuid).flat_map(|r| [r.eax, r.ebx, r.ecx, r.edx]).collect::<Vec<_>>())
    } else {
        String::new()
    };
    format!(
        "{} family {} model {} stepping {} {brand}",
        text(&[vendor.ebx, vendor.edx, vendor.ecx]),
        family + extended_family,
        model | extended_model,
        signature & 0xf
    )
}

/// The host's processor.
pub struct Native {
    /// All regions one after the other, writable: the same pages as those that cases see.
    view: *mut u8,
    old_stack: libc::stack_t,
    _lock: MutexGuard<'static, ()>,
}

fn check(result: c_int) -> io::Result<()> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn map(
    at: usize,
    len: usize,
    protection: c_int,
    flags: c_int,
    fd: c_int,
    offset: i64,
) -> io::Result<*mut u8> {
    // SAFETY: either the kernel chooses the place, or it is one of our fixed low addresses, where a
    // 64-bit process has nothing.
    let p = unsafe { libc::mmap(ptr::without_provenance_mut(at), len, protection, flags, fd, offset) };
    if p == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(p.cast()) }
}

impl Native {
    /// Maps the cases' memory and takes over the signals. There is one at a time.
    pub fn new() -> io::Result<Self> {
        let lock = LOCK.lock().unwrap_or_else(PoisonError::into_inner);
        let read_write = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: plain system calls; the structures are theirs and live through them.
        unsafe {
            let fd = libc::memfd_create(c"cases".as_ptr(), 0);
            check(fd)?;
            check(libc::ftruncate(fd, BYTES as i64))?;
            let view = map(0, BYTES, read_write, libc::MAP_SHARED | libc::MAP_POPULATE, fd, 0)?;
            let mut offset = 0;
            for r in REGIONS {
                let len = (r.pages * PAGE) as usize;
                let write = if r.writable { libc::PROT_WRITE } else { 0 };
                let flags = libc::MAP_SHARED | libc::MAP_FIXED | libc::MAP_POPULATE;
                map(r.linear as usize, len, libc::PROT_READ | libc::PROT_EXEC | write, flags, fd, offset)?;
                offset += len as i64;
            }
            libc::close(fd);
            for (i, entry) in (0..).zip(LDT) {
                let descriptor = [i, entry.base, entry.limit, entry.flags];
                let size = size_of_val(&descriptor);
                // The error comes as 32 bits, which the C library takes for success.
                if libc::syscall(libc::SYS_modify_ldt, WRITE_LDT, &descriptor, size) != 0 {
                    return Err(io::Error::other("no modify_ldt"));
                }
            }

            let private = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            let stack = map(0, ALTERNATE_STACK, read_write, private, -1, 0)?;
            let new_stack = libc::stack_t { ss_sp: stack.cast(), ss_flags: 0, ss_size: ALTERNATE_STACK };
            let mut old_stack = std::mem::zeroed();
            check(libc::sigaltstack(&new_stack, &mut old_stack))?;
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = handler as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER | libc::SA_RESTART;
            libc::sigaddset(&mut action.sa_mask, libc::SIGALRM);
            for signal in SIGNALS {
                check(libc::sigaction(signal, &action, ptr::null_mut()))?;
            }
            OWNER.store(libc::gettid(), Ordering::Relaxed);
            let tick = libc::timeval { tv_sec: 0, tv_usec: TICK_MICROSECONDS };
            let timer = libc::itimerval { it_interval: tick, it_value: tick };
            check(libc::setitimer(libc::ITIMER_REAL, &timer, ptr::null_mut()))?;
            Ok(Self { view, old_stack, _lock: lock })
        }
    }

    /// Runs from `regs` until an exception. `image` is the memory before, and then after.
    pub fn run(&mut self, regs: &Regs, image: &mut Image) -> Outcome {
        // SAFETY: `view` is BYTES long. PHASE is IDLE, so EXCHANGE is ours until the trap, and again
        // when the handler has put our registers back behind it. The vector registers that the case
        // changed are among those a C function may clobber; the handler resets the control words.
        unsafe {
            ptr::copy_nonoverlapping(image.as_ptr(), self.view, BYTES);
            let x = &raw mut EXCHANGE;
            (*x).regs = Some(regs.clone());
            let mut base = 0usize;
            system_call(libc::SYS_arch_prctl, ARCH_GET_FS, &raw mut base as usize);
            (*x).fs_base = base;
            TICKS.store(0, Ordering::Relaxed);
            PHASE.store(ENTER, Ordering::SeqCst);
            asm!("int3", clobber_abi("C"));
            ptr::copy_nonoverlapping(self.view, image.as_mut_ptr(), BYTES);
            Outcome { regs: (*x).regs.take().unwrap_or_default(), end: (*x).end }
        }
    }
}

impl Drop for Native {
    fn drop(&mut self) {
        // SAFETY: gives the signals back; the mappings stay for the next one to replace.
        unsafe {
            let off: libc::itimerval = std::mem::zeroed();
            libc::setitimer(libc::ITIMER_REAL, &off, ptr::null_mut());
            for signal in SIGNALS {
                libc::signal(signal, if signal == libc::SIGALRM { libc::SIG_IGN } else { libc::SIG_DFL });
            }
            libc::sigaltstack(&self.old_stack, ptr::null_mut());
            libc::munmap(self.view.cast(), BYTES);
        }
    }
}

/// A system call that works without thread-local storage (no `errno`).
///
/// # Safety
/// As the call.
unsafe fn system_call(number: libc::c_long, a: usize, b: usize) {
    // SAFETY: the caller's promise; the kernel clobbers RCX and R11.
    unsafe {
        asm!("syscall", inlateout("rax") number => _, in("rdi") a, in("rsi") b,
             lateout("rcx") _, lateout("r11") _, options(nostack));
    }
}

/// While a case ran, FS was its own: until it is put back nothing here may use thread-local
/// storage, so nothing here may panic or allocate.
extern "C" fn handler(signal: c_int, _: *mut siginfo_t, context: *mut c_void) {
    // SAFETY: `context` is the frame that the kernel made for this signal. EXCHANGE is ours (see
    // there). A case's AC flag would trap our own accesses, so it goes first.
    unsafe {
        asm!("push 0x202", "popfq");
        let uc = context.cast::<ucontext_t>();
        let phase = PHASE.load(Ordering::SeqCst);
        if signal == libc::SIGALRM {
            let owner = OWNER.load(Ordering::Relaxed);
            if libc::gettid() != owner {
                libc::syscall(libc::SYS_tgkill, libc::getpid(), owner, signal);
                return;
            }
            if phase != RUN || TICKS.fetch_add(1, Ordering::Relaxed) < PATIENCE {
                return;
            }
        }
        match phase {
            ENTER if signal == libc::SIGTRAP => enter(uc),
            RUN => leave(uc, signal == libc::SIGALRM),
            // A fault of our own: die of it.
            _ => {
                libc::signal(signal, libc::SIG_DFL);
            }
        }
    }
}

/// # Safety
/// As [`handler`].
unsafe fn enter(uc: *mut ucontext_t) {
    // SAFETY: as the handler. Segment registers other than CS and SS mean nothing to 64-bit code,
    // except FS, of which see there.
    unsafe {
        let x = &raw mut EXCHANGE;
        let g = &raw mut (*uc).uc_mcontext.gregs;
        (*x).saved = *g;
        let Some(regs) = &(*x).regs else { return };
        for (&i, &v) in ORDER.iter().zip(&regs.gpr) {
            (*g)[i as usize] = i64::from(v);
        }
        (*g)[libc::REG_RIP as usize] = i64::from(regs.eip);
        (*g)[libc::REG_EFL as usize] = i64::from(regs.eflags);
        (*g)[libc::REG_CSGSFS as usize] = i64::from(regs.seg[1]) | (i64::from(regs.seg[2]) << 48);
        let image = (*uc).uc_mcontext.fpregs.cast::<u8>();
        regs.fx.store(&mut *image.cast());
        mark_present(image);
        PHASE.store(RUN, Ordering::SeqCst);
        let [es, _, _, ds, fs, gs] = regs.seg;
        asm!("mov es, {0:x}", "mov ds, {1:x}", "mov fs, {2:x}", "mov gs, {3:x}",
             in(reg) es, in(reg) ds, in(reg) fs, in(reg) gs, options(nostack));
    }
}

/// # Safety
/// As [`handler`].
unsafe fn leave(uc: *mut ucontext_t, hang: bool) {
    // SAFETY: as the handler.
    unsafe {
        let x = &raw mut EXCHANGE;
        let (es, ds, fs, gs): (u32, u32, u32, u32);
        asm!("mov {0:e}, es", "mov {1:e}, ds", "mov {2:e}, fs", "mov {3:e}, gs",
             out(reg) es, out(reg) ds, out(reg) fs, out(reg) gs, options(nostack));
        system_call(libc::SYS_arch_prctl, ARCH_SET_FS, (*x).fs_base);
        let g = &raw mut (*uc).uc_mcontext.gregs;
        let image = (*uc).uc_mcontext.fpregs.cast::<u8>();
        let selectors = (*g)[libc::REG_CSGSFS as usize];
        if let Some(regs) = &mut (*x).regs {
            for (&i, v) in ORDER.iter().zip(&mut regs.gpr) {
                *v = (*g)[i as usize] as u32;
            }
            regs.eip = (*g)[libc::REG_RIP as usize] as u32;
            regs.eflags = (*g)[libc::REG_EFL as usize] as u32;
            regs.seg =
                [es as u16, selectors as u16, (selectors >> 48) as u16, ds as u16, fs as u16, gs as u16];
            regs.fx = Fx::load(&*image.cast());
        }
        let vector = (*g)[libc::REG_TRAPNO as usize] as u8;
        let cr2 = if vector == 14 { (*g)[libc::REG_CR2 as usize] as u32 } else { 0 };
        (*x).end =
            if hang { End::Hang } else { End::Vector(vector, (*g)[libc::REG_ERR as usize] as u32, cr2) };
        *g = (*x).saved;
        Fx::default().store(&mut *image.cast());
        mark_present(image);
        PHASE.store(IDLE, Ordering::SeqCst);
    }
}

/// XRSTOR resets components that the header does not name, so names x87 and SSE.
///
/// # Safety
/// `image` is a signal frame's FXSAVE image.
unsafe fn mark_present(image: *mut u8) {
    // SAFETY: the software bytes at 464 say whether there is a header, which is at 512.
    unsafe {
        if image.add(464).cast::<u32>().read() == FP_XSTATE_MAGIC1 {
            let features = image.add(512).cast::<u64>();
            features.write(features.read() | 3);
        }
    }
}
