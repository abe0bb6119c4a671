//! Mapped files that another process cuts off.
//!
//! The pages behind a file's new end are gone at once, those that were written to as well, and whoever
//! touches one gets SIGBUS, which ends a process with all of its machines. No check before a touch can
//! rule that out, because the file may be cut off between the two. So this module has a handler that puts
//! zeros in the place of the page and marks the mapping as lost. Who reads a mapping looks at the mark
//! before relying on what was read: the machine whose memory it is ends with an error at the end of its
//! slice, and nothing of it can be saved.
//!
//! A handler belongs to the process, and so do the two statics here. Any other SIGBUS goes to the handler
//! that was there before.

#![allow(unsafe_code)]

use std::ffi::c_void;
use std::io;
use std::mem::MaybeUninit;
use std::ops::Range;
use std::ptr;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};
use rustix::param::page_size;

use crate::os::Lost;

/// A mapping that is watched for as long as this exists.
pub(super) struct Watch(Range<usize>);

struct Watched {
    /// Addresses, whole pages.
    place: Range<usize>,
    lost: Lost,
}

static WATCHED: Mutex<Vec<Watched>> = Mutex::new(Vec::new());

/// What handled SIGBUS before.
static BEFORE: OnceLock<libc::sigaction> = OnceLock::new();

fn watched() -> MutexGuard<'static, Vec<Watched>> {
    WATCHED.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Watch {
    /// Watches a mapping of a file: whole pages, which nobody has seen yet. What becomes of it shows in
    /// `lost`.
    pub fn new(place: Range<usize>, lost: &Lost) -> io::Result<Self> {
        install()?;
        watched().push(Watched { place: place.clone(), lost: lost.clone() });
        Ok(Self(place))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        watched().retain(|watched| watched.place != self.0);
    }
}

/// Installs the handler, once.
fn install() -> io::Result<()> {
    static INSTALLED: Mutex<bool> = Mutex::new(false);
    let mut installed = INSTALLED.lock().unwrap_or_else(PoisonError::into_inner);
    if *installed {
        return Ok(());
    }
    let done = |result| if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) };
    // SAFETY: `sigaction` is plain data, for which zeros are a value. The pointers are valid. `on_bus_error` has
    // the type that SA_SIGINFO asks for, and is fit to be a handler, as is said there. SA_ONSTACK: a thread
    // that has a stack for its handlers has it for this one, too.
    unsafe {
        let mut before = MaybeUninit::<libc::sigaction>::zeroed().assume_init();
        done(libc::sigaction(libc::SIGBUS, ptr::null(), &mut before))?;
        // The handler needs it from its first call on.
        BEFORE.get_or_init(|| before);
        let mut action = MaybeUninit::<libc::sigaction>::zeroed().assume_init();
        action.sa_sigaction = on_bus_error as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        libc::sigemptyset(&mut action.sa_mask);
        done(libc::sigaction(libc::SIGBUS, &action, ptr::null_mut()))?;
    }
    *installed = true;
    Ok(())
}

/// The handler.
///
/// It takes a lock and makes a system call, which a handler may do here: a bus error with an address is
/// raised by the very instruction that touches the mapping, never by one inside of the lock, whose holders
/// touch no mapping.
extern "C" fn on_bus_error(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel gives a handler with SA_SIGINFO a valid `siginfo_t`, and SIGBUS has an address.
    let (code, address) = unsafe { ((*info).si_code, (*info).si_addr() as usize) };
    // Other codes are those of a signal that another process has sent.
    if !(code > 0 && replace(address)) {
        pass_on(signal, info, context);
    }
}

/// Puts zeros in the place of a page of a mapping that is watched. Says whether it is one.
fn replace(address: usize) -> bool {
    let watched = watched();
    let Some(found) = watched.iter().find(|watched| watched.place.contains(&address)) else { return false };
    found.lost.set();
    let page = address & !(page_size() - 1);
    let rw = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: the page is one of the mapping, which is there for as long as it is watched, and has no content
    // any more. References to it stay valid: its bytes may have any value.
    let mapped = unsafe {
        let flags = MapFlags::PRIVATE | MapFlags::FIXED;
        mmap_anonymous(ptr::without_provenance_mut(page), page_size(), rw, flags)
    };
    mapped.is_ok()
}

/// Does what would have been done without this module.
fn pass_on(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    let before = BEFORE.get();
    match before.map_or(libc::SIG_DFL, |before| before.sa_sigaction) {
        libc::SIG_DFL | libc::SIG_IGN => {
            // SAFETY: the default action is a valid one. It ends the process as soon as the instruction is
            // executed again.
            unsafe {
                libc::signal(signal, libc::SIG_DFL);
                if (*info).si_code <= 0 {
                    libc::raise(signal);
                }
            }
        }
        handler if before.is_some_and(|before| before.sa_flags & libc::SA_SIGINFO != 0) => {
            type Handler = extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut c_void);
            // SAFETY: it was installed with SA_SIGINFO, and has that type.
            let handler = unsafe { std::mem::transmute::<usize, Handler>(handler) };
            handler(signal, info, context);
        }
        handler => {
            // SAFETY: it was installed without SA_SIGINFO, and has that type.
            let handler = unsafe { std::mem::transmute::<usize, extern "C" fn(libc::c_int)>(handler) };
            handler(signal);
        }
    }
}
