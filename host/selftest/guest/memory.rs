//! Memory: as much as the boot loader says, sampled all over.

use iced_x86::code_asm::*;

use crate::frame::boot_info;
use crate::guest::{END, Guest, Result};

/// What fills a page and is read back.
const PATTERNS: [u32; 2] = [0x5555_5555, 0xaaaa_aaaa];
const PAGE: u32 = 4096;
/// From a page that is tested to the next: 64 KiB and a page more, so that all bits of an address change.
const STEP: u32 = 0x1_1000;
/// Pages are chosen for so long at most.
const LIMIT_MS: u32 = 1000;

/// Patterns in a page of each 68 KiB; then each of these pages is to hold its own addresses still.
pub fn test(g: &mut Guest) -> Result {
    let (info, top) = (g.at.boot_info, g.words(&[0]));
    g.mov(ebx, dword_ptr(info))?;
    g.mov(eax, dword_ptr(ebx + boot_info::MEM_UPPER))?;
    g.add(eax, 1024)?;
    g.mov(ebx, eax)?;
    // Firmware may have the last of it.
    g.add(eax, 1023)?;
    g.shr(eax, 10)?;
    g.put_decimal()?;
    g.put(" MB")?;
    g.shl(ebx, 10)?;
    g.sub(ebx, PAGE - 1)?;
    g.mov(dword_ptr(top), ebx)?;

    let [wrong, written, checked] = [(); 3].map(|()| g.create_label());
    // EBP is the page, EBX counts them.
    g.set_deadline(LIMIT_MS)?;
    g.mov(ebp, END)?;
    g.xor(ebx, ebx)?;
    let page = g.mark()?;
    g.cmp(ebp, dword_ptr(top))?;
    g.jae(written)?;
    for pattern in PATTERNS {
        g.mov(eax, pattern)?;
        for reads in [false, true] {
            g.mov(edi, ebp)?;
            g.mov(ecx, PAGE / 4)?;
            if reads {
                g.repe().scasd()?;
                // It has gone on behind what it has compared; flags stay.
                g.lea(edi, dword_ptr(edi - 4))?;
                g.jne(wrong)?;
            } else {
                g.rep().stosd()?;
            }
        }
    }
    addresses(g, |g| g.mov(dword_ptr(eax), eax))?;
    g.inc(ebx)?;
    g.add(ebp, STEP)?;
    g.before_deadline(page)?;
    g.here(written)?;
    g.mov(dword_ptr(top), ebp)?;

    g.mov(ebp, END)?;
    let page = g.mark()?;
    g.cmp(ebp, dword_ptr(top))?;
    g.jae(checked)?;
    addresses(g, |g| {
        g.cmp(dword_ptr(eax), eax)?;
        g.mov(edi, eax)?;
        g.jne(wrong)
    })?;
    g.add(ebp, STEP)?;
    g.jmp(page)?;

    g.here(wrong)?;
    g.put(", wrong at ")?;
    for byte in [24, 16, 8, 0] {
        g.mov(eax, edi)?;
        g.shr(eax, byte)?;
        g.put_hex()?;
    }
    g.fail("h")?;

    g.here(checked)?;
    g.put(", patterns and addresses in ")?;
    g.mov(eax, ebx)?;
    g.put_decimal()?;
    g.put(" pages all over it")
}

/// Does something with each address in the page at EBP that has one bit more, which is in EAX; changes ECX.
fn addresses(g: &mut Guest, act: impl Fn(&mut Guest) -> Result) -> Result {
    g.mov(ecx, 4)?;
    let bit = g.mark()?;
    g.lea(eax, dword_ptr(ebp + ecx))?;
    act(g)?;
    g.add(ecx, ecx)?;
    g.cmp(ecx, PAGE)?;
    g.jb(bit)
}
